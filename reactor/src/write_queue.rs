//! Chunks that wait to be sent, kept by reference until one call sends them.
//!
//! The queue copies no byte: it keeps each chunk as it was given and remembers how much of the
//! first has gone out. Between calls: no stored chunk is empty, `bytes` is what is still to be
//! sent, and the offset lies inside the first chunk.
//!
//! Owned by one thread. Dropping a chunk may run its owner's code, which must not come back to the
//! same queue. This file does no I/O and knows no water marks.

use std::collections::VecDeque;
use std::fmt;
use std::io::IoSlice;

/// A queue of byte chunks with a read position.
///
/// Most connections are idle, and an idle connection's queue is two words: the byte count, which
/// also answers [`is_empty`](Self::is_empty) without a heap access, and a pointer to the rest.
/// The rest is kept while it is small, so that a head and a body per turn allocate nothing, and
/// given back when a large burst has been sent.
///
/// ```
/// use std::io::IoSlice;
/// use tokioloop_reactor::WriteQueue;
///
/// let mut queue = WriteQueue::new();
/// queue.push_partial("HTTP/1.1 200 OK\r\n\r\n", 9); // nine bytes went out at once
/// queue.push("hello");
/// let mut slices = [IoSlice::new(&[]); 8];
/// assert_eq!(queue.slices(&mut slices), 2);
/// assert_eq!(&*slices[0], b"200 OK\r\n\r\n");
/// queue.advance(12); // the call took the head and two bytes of the body
/// assert_eq!(queue.first(), Some(&b"llo"[..]));
/// assert_eq!(queue.len_bytes(), 3);
/// ```
pub struct WriteQueue<B> {
    bytes: usize,
    pending: Option<Box<Pending<B>>>,
}

impl<B: AsRef<[u8]>> WriteQueue<B> {
    /// An empty queue that owns no memory.
    #[inline]
    pub const fn new() -> Self {
        Self { bytes: 0, pending: None }
    }

    /// Adds a chunk to the end; an empty one is dropped.
    #[inline]
    pub fn push(&mut self, chunk: B) {
        let len = chunk.as_ref().len();
        if len > 0 {
            self.bytes += len;
            self.pending.get_or_insert_default().chunks.push_back(chunk);
        }
    }

    /// Adds a chunk of which the first `sent` bytes have gone out already.
    ///
    /// # Panics
    /// If the queue is not empty: bytes would have overtaken those that wait.
    #[inline]
    #[track_caller]
    pub fn push_partial(&mut self, chunk: B, sent: usize) {
        assert!(self.is_empty(), "{sent} bytes were sent ahead of {} in the queue", self.bytes);
        let len = chunk.as_ref().len();
        debug_assert!(sent <= len, "{sent} bytes sent of a chunk of {len}");
        if sent < len {
            self.bytes = len - sent;
            let pending = self.pending.get_or_insert_default();
            pending.chunks.push_back(chunk);
            pending.offset = sent;
        }
    }

    /// Notes that the first `n` bytes were sent and drops the chunks that are sent completely.
    ///
    /// `n` beyond the end is a bug of the caller; it empties the queue.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        debug_assert!(n <= self.bytes, "{n} bytes sent of {} in the queue", self.bytes);
        self.bytes = self.bytes.saturating_sub(n);
        let Some(pending) = &mut self.pending else { return };
        if self.bytes > 0 {
            pending.advance(n);
        } else if pending.chunks.capacity() > KEPT_CHUNKS {
            self.pending = None;
        } else {
            pending.clear();
        }
    }

    /// Drops everything and gives the memory back.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes = 0;
        self.pending = None;
    }

    /// How many bytes are still to be sent.
    #[inline]
    pub fn len_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether everything was sent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// What is left of the first chunk.
    #[inline]
    pub fn first(&self) -> Option<&[u8]> {
        let pending = self.pending.as_deref()?;
        pending.chunks.front()?.as_ref().get(pending.offset..)
    }

    /// What is left of the first chunk, if it is the only one.
    #[inline]
    pub fn only(&self) -> Option<&[u8]> {
        let pending = self.pending.as_deref()?;
        if pending.chunks.len() == 1 { self.first() } else { None }
    }

    /// Fills `out` from the front of the queue and returns how many slices it holds now.
    #[inline]
    pub fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, part) in out.iter_mut().zip(self.parts()) {
            *slice = IoSlice::new(part);
            filled += 1;
        }
        filled
    }

    /// What is still to be sent, chunk by chunk.
    #[inline]
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut offset = self.pending.as_deref().map_or(0, |pending| pending.offset);
        self.iter()
            .map(move |chunk| chunk.as_ref().get(std::mem::take(&mut offset)..).unwrap_or_default())
    }

    /// The chunks as they were given; the first one includes bytes that were sent.
    pub fn iter(&self) -> impl Iterator<Item = &B> {
        self.pending.iter().flat_map(|pending| &pending.chunks)
    }

    /// How many chunks fit without allocating.
    pub fn capacity(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.chunks.capacity())
    }
}

impl<B: AsRef<[u8]>> Default for WriteQueue<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> fmt::Debug for WriteQueue<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chunks = self.pending.as_ref().map_or(0, |pending| pending.chunks.len());
        f.debug_struct("WriteQueue").field("bytes", &self.bytes).field("chunks", &chunks).finish()
    }
}

/// The part of a queue that an idle connection does without.
struct Pending<B> {
    chunks: VecDeque<B>,
    /// How much of the first chunk was sent; less than its length.
    offset: usize,
}

impl<B: AsRef<[u8]>> Pending<B> {
    fn advance(&mut self, n: usize) {
        let mut sent = self.offset + n;
        while let Some(first) = self.chunks.front() {
            let len = first.as_ref().len();
            if sent < len {
                break;
            }
            sent -= len;
            self.chunks.pop_front();
        }
        self.offset = sent;
    }

    fn clear(&mut self) {
        self.chunks.clear();
        self.offset = 0;
    }
}

impl<B> Default for Pending<B> {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), offset: 0 }
    }
}

/// The largest capacity that an empty queue keeps: two doublings, room for a head, a body and a few
/// more, a few hundred bytes.
const KEPT_CHUNKS: usize = 8;
