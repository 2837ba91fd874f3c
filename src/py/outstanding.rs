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
/// Once in so many times that memory is used again, memory that nobody has needed for a
/// while is freed, because few messages in turn stay in the caches and many do not.
const THINS_OUT: u32 = 64;

/// The last messages that were kept, oldest first.
#[derive(Default)]
pub(crate) struct Outstanding {
    messages: VecDeque<Message>,
    used_again: u32,
}

impl Outstanding {
    /// Watches a message. Returns one that is not watched any longer, to be dropped.
    #[inline]
    pub(crate) fn watch(&mut self, message: Message) -> Option<Message> {
        if message.room() > LARGEST {
            return Some(message);
        }
        let oldest = if self.messages.len() < MOST { None } else { self.messages.pop_front() };
        self.messages.push_back(message);
        oldest
    }

    /// The memory of the oldest message if nobody else holds it and it has room for
    /// `length` bytes, but at most a third too much, because the next receiver may keep it.
    /// If its size is wrong, it is freed.
    #[inline]
    pub(crate) fn take(&mut self, length: usize) -> Option<Message> {
        let oldest = self.pop_alone()?;
        self.used_again += 1;
        if self.used_again == THINS_OUT {
            self.used_again = 0;
            drop(self.pop_alone());
        }
        let room = oldest.room();
        (length <= room && length >= room - room / 4).then_some(oldest)
    }

    #[inline]
    fn pop_alone(&mut self) -> Option<Message> {
        if self.messages.front()?.is_alone() { self.messages.pop_front() } else { None }
    }
}
