//! Threads that send faster than the loop runs wait for it to catch up.
//!
//! A callback in the inbox takes memory until it runs. If threads that share the
//! interpreter with the loop send without a pause, the loop runs so seldom that the
//! queue grows by millions of callbacks, too many for any cache. So a thread that
//! finds the loop far behind waits, detached, until most of the queue is gone.
//!
//! The wait is short, and nothing depends on it. If the loop is kept from running (by
//! a long callback, by a lock that the sender holds), the wait times out, and no
//! thread begins another one before the loop has taken messages. A thread that runs
//! an asyncio event loop itself never waits.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;

use crate::event_loop::EventLoop;
use crate::imports::Imports;
use crate::py::detached::detached;

/// Senders wait if more messages than this are queued.
const MOST: usize = 8192;
/// They go on once no more messages than this are left.
const FEW: usize = 2048;
/// A thread checks the queue at every 61st message that it sends. Prime, so that a
/// thread that alternates between loops checks each of them.
const LOOK_EVERY: u32 = 61;
/// The longest wait; as long as the GIL's default switch interval.
const LONGEST: Duration = Duration::from_millis(5);

/// Where the senders of a loop wait.
#[derive(Default)]
pub(crate) struct Backpressure {
    waiting: AtomicUsize,
    /// A wait has timed out, and the loop has taken no message since.
    in_vain: AtomicBool,
    /// How often a thread has waited.
    waits: AtomicU64,
    lock: Mutex<()>,
    changed: Condvar,
}

thread_local! {
    /// Messages until this thread's next check.
    static LEFT: Cell<u32> = const { Cell::new(LOOK_EVERY) };
}

impl EventLoop {
    /// Called by a thread that has sent a message: waits if the loop is far behind.
    #[inline]
    pub(crate) fn let_catch_up(&self, py: Python<'_>) {
        let left = LEFT.get() - 1;
        LEFT.set(left);
        if left == 0 {
            LEFT.set(LOOK_EVERY);
            if self.inbox.pending() > MOST {
                self.wait(py);
            }
        }
    }

    #[cold]
    fn wait(&self, py: Python<'_>) {
        let pressure = &self.backpressure;
        let is_behind = || self.inbox.pending() > FEW && self.cell.is_running();
        if !pressure.in_vain.load(Ordering::Relaxed) && is_behind() && !runs_a_loop(py) {
            detached(py, || pressure.wait_while(is_behind));
        }
    }
}

/// Whether the calling thread runs an event loop that asyncio knows of.
fn runs_a_loop(py: Python<'_>) -> bool {
    let running = Imports::get(py).and_then(|imports| imports.running_loop.bind(py).call0());
    !running.is_ok_and(|running| running.is_none())
}

impl Backpressure {
    fn wait_while(&self, is_behind: impl Fn() -> bool) {
        self.waits.fetch_add(1, Ordering::Relaxed);
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let (_lock, result) = self
            .changed
            .wait_timeout_while(lock, LONGEST, |()| is_behind())
            .unwrap_or_else(PoisonError::into_inner);
        if result.timed_out() {
            self.in_vain.store(true, Ordering::Relaxed);
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// How often a thread has waited for the loop.
    pub(crate) fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    /// The loop has taken messages; `left` counts those that remain.
    #[inline]
    pub(crate) fn taken(&self, left: impl FnOnce() -> usize) {
        // Load first: a needless store would take the cache line away from senders,
        // which read the fields next to it.
        if self.in_vain.load(Ordering::Relaxed) {
            self.in_vain.store(false, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 && left() <= FEW {
            let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.changed.notify_all();
        }
    }
}
