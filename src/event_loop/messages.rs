//! What other threads send to a loop, and how it is woken for it.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::event_loop::{EventLoop, Inside, run, scheduling};
use crate::handle::{HandleRef, Released};
use crate::ready::Ready;

/// So many messages are queued for a turn; the others wait for the next one. Where
/// threads send faster than the loop runs, the queue of callbacks stays short, and
/// the loop polls in between.
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
        // A message refers to its loop: one that came behind the loop's last
        // look would keep it alive for ever.
        if self.closed.load(Ordering::SeqCst) {
            while let Some(late) = self.inbox.pop(py) {
                drop(late);
            }
        } else if !self.cell.is_running() {
            self.take_late_messages(py);
        }
    }

    /// Takes what came behind the last look of a run, or without one, to where the
    /// collector sees it.
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

    /// Takes over what other threads have sent, for a turn: the rest is as well
    /// off where it is, and need not be copied.
    #[cold]
    pub(crate) fn take_some_messages(&self, py: Python<'_>, inside: &Inside<'_>) {
        drop(self.take(py, inside, MESSAGES_PER_TURN));
    }

    /// Takes over all that other threads have sent by now, for what is to come
    /// after it. Threads that go on sending do not keep it from ending. What comes
    /// back is to be dropped.
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
