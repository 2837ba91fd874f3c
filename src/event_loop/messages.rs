//! Messages from other threads to a loop, and waking the loop for them.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::event_loop::{EventLoop, Inside, run, scheduling};
use crate::handle::{HandleRef, Released};
use crate::ready::Ready;

/// How many messages a turn takes; the others wait for the next one. If threads send
/// faster than the loop runs, this keeps the queue of callbacks short and lets the
/// loop poll in between.
const MESSAGES_PER_TURN: usize = 1024;

/// One message.
pub(crate) enum Message {
    /// Run this.
    Call(HandleRef),
    /// Run this when it is due.
    Timer(HandleRef),
    /// This handle was cancelled: drop what it holds.
    Reap(HandleRef),
}

/// A handle that was cancelled, and what it held.
pub(crate) type Cancelled = (HandleRef, Option<Released>);

impl EventLoop {
    /// Hands a handle that another thread cancelled to the loop.
    #[cold]
    pub(crate) fn reap(&self, py: Python<'_>, handle: HandleRef) {
        self.send(py, Message::Reap(handle));
    }

    /// Sends a message from another thread.
    pub(crate) fn send(&self, py: Python<'_>, message: Message) {
        if self.inbox.push(py, message) {
            self.wake(py);
        }
        // A message refers to its loop: one that arrives after the loop has emptied
        // the inbox for the last time would keep it alive for ever.
        if self.closed.load(Ordering::SeqCst) {
            while let Some(late) = self.inbox.pop(py) {
                drop(late);
            }
        } else if !self.cell.is_running() {
            self.take_late_messages(py);
        }
    }

    /// Takes the messages that arrived at the end of a run or outside of one, so that
    /// the collector sees what they hold.
    pub(crate) fn take_late_messages(&self, py: Python<'_>) {
        if let Ok(inside) = self.cell.try_enter() {
            let cancelled = self.take_messages(py, &inside);
            run::show_to_collector(py, &inside);
            // Other threads may enter while these are dropped.
            drop(inside);
            drop(cancelled);
        }
    }

    #[cold]
    pub(crate) fn wake(&self, py: Python<'_>) {
        if self.cell.is_disowned() {
            // The poll is the parent's.
            return;
        }
        log::debug!("another thread wakes the loop");
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(Err(error)) = waker.map(|waker| waker.wake()) {
            // Nothing else wakes a parked loop, so this must not pass unseen.
            PyErr::new::<PyRuntimeError, _>(format!("cannot wake the event loop: {error}"))
                .write_unraisable(py, None);
        }
    }

    /// Takes over as many messages as one turn takes; the rest stays in the inbox.
    #[cold]
    pub(crate) fn take_some_messages(&self, py: Python<'_>, inside: &Inside<'_>) {
        drop(self.take(py, inside, MESSAGES_PER_TURN));
    }

    /// Takes over all messages that have been sent by now, so that what the caller
    /// queues next comes after them. Threads that go on sending do not prolong it.
    /// The caller drops what is returned.
    #[cold]
    pub(crate) fn take_messages(&self, py: Python<'_>, inside: &Inside<'_>) -> Vec<Cancelled> {
        self.take(py, inside, self.inbox.pending())
    }

    fn take(&self, py: Python<'_>, inside: &Inside<'_>, most: usize) -> Vec<Cancelled> {
        let mut taken = 0;
        let mut cancelled = Vec::new();
        while taken < most {
            let Some(message) = self.inbox.pop(py) else { break };
            taken += 1;
            match message {
                Message::Call(handle) => {
                    inside.with(|state| {
                        state.untracked = true;
                        state.ready.push_back(Ready::Handle(handle));
                    });
                }
                Message::Timer(handle) if !handle.get().is_cancelled() => {
                    let when = handle.get().when_seconds();
                    inside.with(|state| state.untracked = true);
                    scheduling::schedule(py, inside, &handle, when);
                }
                Message::Timer(handle) => cancelled.push((handle, None)),
                Message::Reap(handle) => {
                    let released = handle.get().take_back(py, inside);
                    cancelled.push((handle, released));
                }
            }
        }
        if taken > 0 {
            self.backpressure.taken(|| self.inbox.pending());
        }
        cancelled
    }
}
