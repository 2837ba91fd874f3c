//! What looks at a loop while it runs: the watcher of stalls, which reads one
//! number, whoever wants each callback measured, and debug mode.
//!
//! Nobody observes by default, and a turn then pays a load and a store.

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
    /// waits. Whoever finds the same odd number again has found a stall.
    pulse: AtomicU64,
    /// `MEASURING` and `DEBUGGING`: why a turn is not a plain one, in one byte.
    looks: AtomicU8,
    /// Each callback is told to `_callback_ran`.
    accounting: AtomicBool,
    /// Nanoseconds from which on a callback is told to it anyway.
    slow: AtomicU64,
}

impl Observer {
    /// Whether callbacks of so many nanoseconds are slow (0: none).
    pub(crate) fn reports_from(&self, slow: u64) -> bool {
        self.slow.load(Ordering::Relaxed) == if slow == 0 { NEVER } else { slow }
    }

    /// Nobody looks, unless for callbacks that take `slow` nanoseconds (0: none).
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
/// What leaves the loop.
#[cold]
pub(crate) fn run_observed(py: Python<'_>, this: This<'_>, inside: &Inside<'_>) -> PyResult<()> {
    if this.event_loop.observer.is_measuring() {
        run_measured(py, this, inside)
    } else {
        watch::run_turn(py, this, inside)
    }
}

/// Runs the callbacks of a turn with a look at the clock after each.
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
            // The report is nobody's callback.
            ended = clock::now();
        }
        started = ended;
    }
    inside.with(|state| state.metrics.turn_duration.record(started - turn_started));
    Ok(())
}

/// The object that says what an entry is: its callback, transport or protocol factory.
/// It is looked for before the run, in which a handle that is cancelled forgets it.
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
