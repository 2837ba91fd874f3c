//! Datagrams that wait for room in the kernel.

use std::collections::VecDeque;

use super::target::Target;
use crate::py::{Owned, bytes};

/// Bytes that asyncio adds to the buffer size for each datagram.
const HEADER_SIZE: usize = if cfg!(Py_3_13) { 8 } else { 0 };

/// Datagrams in the order in which they are sent. Each is sent whole or not at all, so
/// no offset into the first is kept.
#[derive(Default)]
pub(super) struct SendQueue {
    waiting: VecDeque<Waiting>,
    size: usize,
}

/// One datagram.
pub(super) struct Waiting {
    /// An exact `bytes`, which nobody can change.
    data: Owned,
    pub(super) to: Target,
}

impl Waiting {
    /// `data` is an exact `bytes`.
    pub(super) fn new(data: Owned, to: Target) -> Self {
        Self { data, to }
    }

    /// What is to be sent.
    #[allow(unsafe_code)]
    pub(super) fn content(&self) -> &[u8] {
        // SAFETY: `new` takes exact `bytes` only, and `self` keeps the object alive.
        unsafe { bytes::content(self.data.as_ptr()) }
    }

    /// The same as an object.
    pub(super) fn data(&self) -> &Owned {
        &self.data
    }

    fn counted(&self) -> usize {
        self.content().len() + HEADER_SIZE
    }
}

impl SendQueue {
    /// Bytes that wait, plus a header for each datagram from CPython 3.13 on. It is 0
    /// only if nothing waits: before 3.13, empty datagrams are not sent at all.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn first(&self) -> Option<&Waiting> {
        self.waiting.front()
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.size += waiting.counted();
        self.waiting.push_back(waiting);
    }

    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let first = self.waiting.pop_front()?;
        self.size -= first.counted();
        Some(first)
    }

    /// Puts the datagram back that [`pop`](Self::pop) returned last.
    pub(super) fn put_back(&mut self, waiting: Waiting) {
        self.size += waiting.counted();
        self.waiting.push_front(waiting);
    }
}
