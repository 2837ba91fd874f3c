//! Monotonic time: integer nanoseconds inside, Python's float seconds at the border.
//!
//! One clock serves the whole loop: the one behind Python's `time.monotonic()`, so a deadline that
//! was computed from `loop.time()` means the same instant here. Any thread may read it.
//!
//! The conversions are built around one promise: **a timer never fires before `loop.time()` has
//! reached it.** Seconds as a double carry 53 bits, which is finer than a nanosecond for the first
//! 104 days of uptime and coarser afterwards, so scaling by `1e9` and rounding can land on either
//! side of the caller's instant. [`deadline`] therefore inverts [`to_seconds`] exactly instead of
//! approximating it. This file does not sleep, poll, or know what a timer is.

/// Nanoseconds on the monotonic clock; the origin is the system's (usually boot).
pub type Nanos = u64;

/// Reads the monotonic clock, the same one as Python's `time.monotonic()`.
#[inline]
pub fn now() -> Nanos {
    crate::sys::monotonic_ns()
}

/// Converts to the double that `time.monotonic()` returns at the same reading.
///
/// CPython divides whole seconds as integers and everything else as doubles. Both come to this one
/// expression: a multiple of `1e9` ends in nine zero bits, so it is exact as a double and so is the
/// quotient. The result never decreases as `nanos` grows.
#[inline]
pub fn to_seconds(nanos: Nanos) -> f64 {
    nanos as f64 / NANOS_PER_SECOND
}

/// The first instant at which [`to_seconds`] has reached `when_seconds`.
///
/// A negative time is due at once, and so is NaN, which no clock would ever reach. `None` means
/// that the clock cannot get there: infinity, or more than 584 years.
///
/// ```
/// use tokioloop_reactor::clock;
///
/// let n = clock::deadline(1.5).unwrap();
/// assert_eq!(n, 1_500_000_000);
/// assert!(clock::to_seconds(n) >= 1.5 && clock::to_seconds(n - 1) < 1.5);
/// assert_eq!(clock::deadline(f64::INFINITY), None);
/// assert_eq!(clock::deadline(-1.0), Some(0));
/// ```
#[inline]
pub fn deadline(when_seconds: f64) -> Option<Nanos> {
    if when_seconds.is_nan() || when_seconds <= 0.0 {
        return Some(0);
    }
    if when_seconds > to_seconds(Nanos::MAX) {
        return None;
    }
    // The cast saturates, so a product that was rounded up to 2^64 stays in range.
    let guess = (when_seconds * NANOS_PER_SECOND).ceil() as Nanos;
    let reached = to_seconds(guess) >= when_seconds;
    let reached_before = guess > 0 && to_seconds(guess - 1) >= when_seconds;
    if reached && !reached_before { Some(guess) } else { Some(search(guess, when_seconds)) }
}

/// Finds the exact deadline near `guess`, by bisection.
///
/// The product, the integer's conversion and the quotient are each off by at most one part in 2^53,
/// and `ceil` by less than one: the answer lies within `1 + 3 * guess / 2^53` of the guess.
fn search(guess: Nanos, when_seconds: f64) -> Nanos {
    let slack = 2 + (guess >> 51);
    let mut low = guess.saturating_sub(slack);
    let mut high = guess.saturating_add(slack);
    while low < high {
        let middle = low + (high - low) / 2;
        if to_seconds(middle) >= when_seconds {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// The last instant that a clock reading `now_seconds` has reached: the largest
/// n with `to_seconds(n) <= now_seconds`. For comparing the readings of some
/// other clock with [`deadline`]s.
///
/// ```
/// use tokioloop_reactor::clock;
///
/// assert_eq!(clock::reached(1.5), 1_500_000_000);
/// assert_eq!(clock::reached(-3.0), 0);
/// assert_eq!(clock::reached(f64::INFINITY), u64::MAX);
/// ```
pub fn reached(now_seconds: f64) -> Nanos {
    match deadline(now_seconds) {
        Some(exact) if to_seconds(exact) <= now_seconds => exact,
        Some(later) => later.saturating_sub(1),
        None => Nanos::MAX,
    }
}

const NANOS_PER_SECOND: f64 = 1e9;
