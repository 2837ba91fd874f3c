//! Deadlines against the float clock that Python reads: never early, never later than need be.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use tokioloop_reactor::clock::{deadline, now, to_seconds};

/// 300 days of uptime; a double holds whole nanoseconds for the first 104.
const LONG_UPTIME: u64 = 300 * 86_400 * 1_000_000_000;

/// The definition, checked at the two instants around the answer.
fn assert_first_instant_that_reaches(when: f64) {
    let due = deadline(when).unwrap();
    assert!(to_seconds(due) >= when, "{due} ns fires before {when:?} s");
    if due > 0 {
        assert!(to_seconds(due - 1) < when, "{} ns had reached {when:?} s", due - 1);
    }
}

proptest! {
    #[test]
    fn deadline_is_the_first_instant_that_reaches_the_time(
        uptime in 0..LONG_UPTIME,
        delay in prop_oneof![0.0..0.001, 0.0..10.0, 0.0..1e6],
    ) {
        assert_first_instant_that_reaches(to_seconds(uptime) + delay);
    }

    #[test]
    fn neighbouring_doubles_have_exact_deadlines(uptime in 1..LONG_UPTIME, steps in 0u64..9) {
        let near = to_seconds(uptime).to_bits() + steps;
        assert_first_instant_that_reaches(f64::from_bits(near.saturating_sub(4)));
    }

    #[test]
    fn a_reading_of_the_clock_is_due_at_once(uptime in 0..LONG_UPTIME) {
        prop_assert!(deadline(to_seconds(uptime)).unwrap() <= uptime);
    }

    #[test]
    fn later_times_never_have_earlier_deadlines(a in 0.0..1e8, b in 0.0..1e8) {
        let (early, late) = if a <= b { (a, b) } else { (b, a) };
        prop_assert!(deadline(early) <= deadline(late));
    }

    #[test]
    fn any_time_that_the_clock_can_reach_is_exact(bits in any::<u64>()) {
        let when = f64::from_bits(bits).abs();
        if when > 0.0 && when <= to_seconds(u64::MAX) {
            assert_first_instant_that_reaches(when);
        }
    }
}

#[test]
fn seconds_are_those_of_cpython_for_whole_seconds_too() {
    for seconds in [0, 1, 59, 86_400, 9_007_199, 9_007_200, 25_920_000, 18_446_744_073] {
        assert_eq!(to_seconds(seconds * 1_000_000_000), seconds as f64);
    }
}

#[test]
fn times_that_have_passed_or_cannot_compare_are_due_at_once() {
    for when in [0.0, -0.0, -1e-300, -1.0, f64::NEG_INFINITY, f64::NAN, -f64::NAN] {
        assert_eq!(deadline(when), Some(0), "{when}");
    }
    assert_eq!(deadline(f64::MIN_POSITIVE), Some(1));
}

#[test]
fn times_beyond_the_clock_have_no_deadline() {
    let end = to_seconds(u64::MAX);
    assert_first_instant_that_reaches(end);
    for when in [f64::from_bits(end.to_bits() + 1), 1e12, f64::MAX, f64::INFINITY] {
        assert_eq!(deadline(when), None, "{when}");
    }
}

#[test]
fn the_clock_advances_and_never_goes_back() {
    let start = now();
    let mut last = start;
    while last == start {
        let reading = now();
        assert!(reading >= last);
        last = reading;
    }
}
