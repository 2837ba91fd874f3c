//! Cancelling a callback from another thread while the loop may be running it.
//!
//! The loop announces that it runs a callback and then checks whether it was
//! cancelled; the other thread announces the cancellation and then checks whether
//! the callback runs. All these steps are sequentially consistent, so at least one
//! thread sees the other: either the callback is not run, or `cancel` waits for it.
//! In builds with a GIL these steps happen with the GIL held, which orders them.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;

use crate::py::detached::detached;
use crate::py::interpreter;

const ORDER: Ordering = if cfg!(Py_GIL_DISABLED) { Ordering::SeqCst } else { Ordering::Relaxed };

/// How often the main thread checks for signals while it waits; short enough that
/// nobody who presses Ctrl-C notices.
const BETWEEN_SIGNALS: Duration = Duration::from_millis(20);

static WAITERS: AtomicUsize = AtomicUsize::new(0);
static LOCK: Mutex<()> = Mutex::new(());
static ENDED: Condvar = Condvar::new();

/// On the loop's thread: false where the callback must not run.
pub(crate) fn begin(running: &AtomicU16, cancelled: &AtomicBool) -> bool {
    change(running, 1);
    if cancelled.load(ORDER) {
        end(running);
        return false;
    }
    true
}

/// On the loop's thread: the callback has returned.
pub(crate) fn end(running: &AtomicU16) {
    change(running, u16::MAX);
    if WAITERS.load(ORDER) > 0 {
        let _lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        ENDED.notify_all();
    }
}

/// Adds to the number of calls under way, wrapping: adding `u16::MAX` subtracts one.
fn change(running: &AtomicU16, by: u16) {
    if cfg!(Py_GIL_DISABLED) {
        running.fetch_add(by, ORDER);
    } else {
        running.store(running.load(ORDER).wrapping_add(by), ORDER);
    }
}

/// On another thread: returns when the callback does not run (any more).
///
/// # Errors
/// In the main thread, what a signal handler raises meanwhile.
pub(crate) fn wait(py: Python<'_>, running: &AtomicU16) -> PyResult<()> {
    if running.load(ORDER) == 0 {
        return Ok(());
    }
    // A signal does not end a wait on the condition variable.
    let slice = interpreter::is_main_thread(py).then_some(BETWEEN_SIGNALS);
    let _waiter = Waiter::new();
    while !detached(py, || wait_for_end(running, slice)) {
        py.check_signals()?;
    }
    Ok(())
}

/// Waits, no longer than `most`; returns whether the callback has returned.
fn wait_for_end(running: &AtomicU16, most: Option<Duration>) -> bool {
    let runs = |_: &mut ()| running.load(ORDER) != 0;
    let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    match most {
        Some(most) => {
            drop(
                ENDED.wait_timeout_while(lock, most, runs).unwrap_or_else(PoisonError::into_inner),
            );
        }
        None => drop(ENDED.wait_while(lock, runs).unwrap_or_else(PoisonError::into_inner)),
    }
    running.load(ORDER) == 0
}

/// Counts a thread that waits.
struct Waiter;

impl Waiter {
    fn new() -> Self {
        WAITERS.fetch_add(1, ORDER);
        Self
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        WAITERS.fetch_sub(1, ORDER);
    }
}
