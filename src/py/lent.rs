//! Messages that the program has kept, watched until it lets go of them.
//!
//! A stream's message, for example, is dropped when the task has read the next one. The
//! loop keeps a reference to the last messages: once it is the only one, the memory serves
//! another message, which saves a call of the allocator and one to free it.

use std::collections::VecDeque;

use crate::py::message::Message;

/// Most messages that are watched: two for each of 64 connections.
const MOST: usize = 128;
/// Larger messages, in bytes, are not watched, so that little memory is kept from others.
const LARGEST: usize = 4096;

/// The last messages that were kept, oldest first.
#[derive(Default)]
pub(crate) struct Lent(VecDeque<Message>);

impl Lent {
    /// Watches a message. Returns one that is not watched any longer, to be dropped.
    #[inline]
    pub(crate) fn watch(&mut self, message: Message) -> Option<Message> {
        if message.room() > LARGEST {
            return Some(message);
        }
        let oldest = if self.0.len() < MOST { None } else { self.0.pop_front() };
        self.0.push_back(message);
        oldest
    }

    /// Memory for `length` bytes that nobody reads any more, a third larger at most,
    /// because the next receiver may keep it.
    #[inline]
    pub(crate) fn take(&mut self, length: usize) -> Option<Message> {
        if !self.0.front()?.is_alone() {
            return None;
        }
        let oldest = self.0.pop_front()?;
        let room = oldest.room();
        (length <= room && length >= room - room / 4).then_some(oldest)
    }
}
