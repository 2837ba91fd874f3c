//! Observing a loop while it runs: for the stall watcher, which reads one number,
//! for code that wants each callback measured, and for debug mode.
//!
//! By default nobody observes, and a turn pays a load and a store.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use pyo3::intern;
use pyo3::prelude::*;
use tokioloop_reactor::clock;

use crate::event_loop::native::This;
use crate::event_loop::{EventLoop, Inside, Source, run, watch};
use crate::py::Owned;
use crate::ready::Ready;
use crate::report::leaves_loop;

/// No callback is slow.
const NEVER: u64 = u64::MAX;

/// Callbacks and turns are measured.
const MEASURING: u8 = 1;
/// The loop is in debug mode.
const DEBUGGING: u8 = 2;

/// What other threads may read, and what they want measured.
pub(crate) struct Observer {
    /// Changes with each turn; odd while callbacks run, even while the loop
    /// waits. Reading the same odd number twice means a stall.
    pulse: AtomicU64,
    /// The flags `MEASURING` and `DEBUGGING`, in one byte so that a turn checks both
    /// at once.
    looks: AtomicU8,
    /// Each callback is reported to `_callback_ran`.
    accounting: AtomicBool,
    /// Callbacks that take at least this many nanoseconds are reported anyway.
    slow: AtomicU64,
}

impl Observer {
    /// Whether callbacks are slow from exactly `slow` nanoseconds on (0: never).
    pub(crate) fn reports_from(&self, slow: u64) -> bool {
        self.slow.load(Ordering::Relaxed) == if slow == 0 { NEVER } else { slow }
    }

    /// Reports nothing but callbacks of at least `slow` nanoseconds (0: nothing).
    pub(crate) fn new(slow: u64) -> Self {
        let slow = if slow == 0 { NEVER } else { slow };
        Self {
            pulse: AtomicU64::new(0),
            looks: AtomicU8::new(if slow == NEVER { 0 } else { MEASURING }),
            accounting: AtomicBool::new(false),
            slow: AtomicU64::new(slow),
        }
    }

    /// Whether a turn is to be run by [`run_observed`].
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.looks.load(Ordering::Relaxed) != 0
    }

    /// Whether callbacks are measured.
    pub(crate) fn is_measuring(&self) -> bool {
        self.looks.load(Ordering::Relaxed) & MEASURING != 0
    }

    /// Whether the loop is in debug mode.
    // HOT: call_soon
    #[inline]
    pub(crate) fn is_debugging(&self) -> bool {
        self.looks.load(Ordering::Relaxed) & DEBUGGING != 0
    }

    /// Switches debug mode. May be called from any thread.
    pub(crate) fn set_debug(&self, on: bool) {
        self.set(DEBUGGING, on);
    }

    fn set(&self, look: u8, on: bool) {
        if on {
            self.looks.fetch_or(look, Ordering::Relaxed);
        } else {
            self.looks.fetch_and(!look, Ordering::Relaxed);
        }
    }

    /// The callbacks of a turn begin.
    #[inline]
    pub(crate) fn running(&self, turn: u64) {
        self.pulse.store(turn << 1 | 1, Ordering::Relaxed);
    }

    /// The loop waits.
    #[inline]
    pub(crate) fn waiting(&self, turn: u64) {
        self.pulse.store(turn << 1, Ordering::Relaxed);
    }
}

/// The number that changes with each turn. May be called from any thread.
#[pyfunction]
pub(crate) fn pulse(event_loop: &Bound<'_, EventLoop>) -> u64 {
    event_loop.get().observer.pulse.load(Ordering::Relaxed)
}

/// Sets what is measured, from the next turn on. May be called from any thread.
#[pyfunction]
pub(crate) fn observe(event_loop: &Bound<'_, EventLoop>, measuring: bool, accounting: bool) {
    let observer = &event_loop.get().observer;
    let slow = observer.slow.load(Ordering::Relaxed) != NEVER;
    observer.accounting.store(accounting, Ordering::Relaxed);
    observer.set(MEASURING, measuring || accounting || slow);
}

/// Runs the callbacks of a turn that is measured, or in debug mode.
///
/// # Errors
/// Exceptions that end the run.
#[cold]
pub(crate) fn run_observed(py: Python<'_>, this: This<'_>, inside: &Inside<'_>) -> PyResult<()> {
    if this.event_loop.observer.is_measuring() {
        run_measured(py, this, inside)
    } else {
        watch::run_turn(py, this, inside)
    }
}

/// Runs the callbacks of a turn and reads the clock after each.
fn run_measured(py: Python<'_>, this: This<'_>, inside: &Inside<'_>) -> PyResult<()> {
    let observer = &this.event_loop.observer;
    let accounting = observer.accounting.load(Ordering::Relaxed);
    let slow = observer.slow.load(Ordering::Relaxed);
    let limit = if accounting { 0 } else { slow };
    let turn_started = clock::now();
    let mut started = turn_started;
    while let Some(entry) = inside.with(run::next_entry) {
        let subject = if limit == NEVER { None } else { subject(py, inside, &entry) };
        watch::run_entry(py, this, inside, entry)?;
        let mut ended = clock::now();
        let duration = ended - started;
        inside.with(|state| state.metrics.callback_duration.record(duration));
        if let Some(subject) = subject.filter(|_| duration >= limit) {
            tell(py, this, &subject, duration, duration >= slow)?;
            // The time of the report does not count for the next callback.
            ended = clock::now();
        }
        started = ended;
    }
    inside.with(|state| state.metrics.turn_duration.record(started - turn_started));
    Ok(())
}

/// The object that identifies an entry: its callback, transport or protocol factory.
/// Taken before the entry runs, because a handle that is cancelled drops its callback.
fn subject(py: Python<'_>, inside: &Inside<'_>, entry: &Ready) -> Option<Owned> {
    match entry {
        Ready::Handle(handle) => handle.get().callback(py),
        Ready::Foreign(handle) => {
            handle.bind(py).getattr(intern!(py, "_callback")).ok().map(Owned::from)
        }
        Ready::Io(token, _) => inside.with(|state| match state.sources.get(*token) {
            Some(Source::Stream(transport)) => Some(transport.object().clone_ref(py)),
            Some(Source::Datagram(transport)) => Some(transport.object().clone_ref(py)),
            Some(Source::Listener(listener)) => Some(listener.factory_and_socket(py).0),
            _ => None,
        }),
    }
}

fn tell(
    py: Python<'_>,
    this: This<'_>,
    subject: &Owned,
    duration: u64,
    slow: bool,
) -> PyResult<()> {
    let arguments = (subject.bind(py), clock::to_seconds(duration), slow);
    match this.bind(py).call_method1(intern!(py, "_callback_ran"), arguments) {
        Err(error) if leaves_loop(py, &error) => Err(error),
        Err(error) => {
            error.write_unraisable(py, None);
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}
