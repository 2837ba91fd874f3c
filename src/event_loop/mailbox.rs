//! The queue of messages from other threads.
//!
//! With the GIL it is a plain queue: sending and taking happen with the GIL held,
//! and so does the loop's announcement that it is about to block. Without the GIL
//! it is the reactor's [`Inbox`], which costs each message some atomic instructions.

use pyo3::prelude::*;
use tokioloop_reactor::Inbox;

use crate::event_loop::messages::Message;

#[cfg(not(Py_GIL_DISABLED))]
pub(crate) use self::with_gil::Mailbox;
#[cfg(Py_GIL_DISABLED)]
pub(crate) use self::without_gil::Mailbox;

#[cfg(not(Py_GIL_DISABLED))]
mod with_gil {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{Inbox, Message, Python};
    use crate::py::GilCell;

    /// The capacity that an empty queue keeps.
    const ROOM: usize = 4096;

    #[derive(Default)]
    pub(crate) struct Mailbox {
        queue: GilCell<VecDeque<Message>>,
        /// The queue's length, for readers without the GIL.
        length: AtomicUsize,
        /// Holds no messages; decides only whether the loop must be woken.
        state: Box<Inbox<()>>,
    }

    impl Mailbox {
        /// Adds a message; returns whether the caller must wake the poll.
        #[inline]
        pub(crate) fn push(&self, py: Python<'_>, message: Message) -> bool {
            self.queue.with(py, |queue| {
                queue.push_back(message);
                self.length.store(queue.len(), Ordering::Relaxed);
            });
            self.state.wake_parked()
        }

        /// Takes the oldest message.
        #[inline]
        pub(crate) fn pop(&self, py: Python<'_>) -> Option<Message> {
            self.queue.with(py, |queue| {
                let message = queue.pop_front();
                self.length.store(queue.len(), Ordering::Relaxed);
                if queue.is_empty() && queue.capacity() > ROOM {
                    queue.shrink_to(ROOM);
                }
                message
            })
        }

        /// How many messages wait.
        #[inline]
        pub(crate) fn pending(&self) -> usize {
            self.length.load(Ordering::Relaxed)
        }

        #[inline]
        pub(crate) fn has_pending(&self) -> bool {
            self.pending() > 0
        }

        #[inline]
        pub(crate) fn is_notified(&self) -> bool {
            self.state.is_notified()
        }

        /// As [`Inbox::park`], with the GIL held.
        #[inline]
        pub(crate) fn park(&self, _py: Python<'_>) -> bool {
            !self.has_pending() && self.state.park()
        }

        #[inline]
        pub(crate) fn unpark(&self) {
            self.state.unpark();
        }

        /// As [`Inbox::notify`], which needs no GIL.
        #[inline]
        pub(crate) fn notify(&self) -> bool {
            self.state.notify()
        }
    }
}

#[cfg(Py_GIL_DISABLED)]
mod without_gil {
    use std::ops::Deref;

    use super::{Inbox, Message, Python};

    /// Boxed, because its alignment is larger than that of Python objects.
    #[derive(Default)]
    pub(crate) struct Mailbox(Box<Inbox<Message>>);

    /// Gives access to the methods that take no `Python` token in either build.
    impl Deref for Mailbox {
        type Target = Inbox<Message>;

        #[inline]
        fn deref(&self) -> &Inbox<Message> {
            &self.0
        }
    }

    impl Mailbox {
        /// Adds a message; returns whether the caller must wake the poll.
        #[inline]
        pub(crate) fn push(&self, _py: Python<'_>, message: Message) -> bool {
            self.0.push(message)
        }

        /// Takes the oldest message.
        #[inline]
        pub(crate) fn pop(&self, _py: Python<'_>) -> Option<Message> {
            self.0.pop()
        }

        #[inline]
        pub(crate) fn park(&self, _py: Python<'_>) -> bool {
            self.0.park()
        }
    }
}
