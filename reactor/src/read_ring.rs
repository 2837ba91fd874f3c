//! The buffers that all connections of a loop are read into.

use std::fmt;
use std::mem::MaybeUninit;

/// Bytes that one `recv` can take before more room has to be found.
pub const READ_RING_BYTES: usize = 64 * 1024;

/// Memory that is reused for each read of each connection, so that an idle
/// connection owns no buffer and a read allocates nothing: 64 KiB unless told
/// otherwise.
pub struct ReadRing {
    memory: Box<[MaybeUninit<u8>]>,
}

impl ReadRing {
    /// Reserves the memory; its pages are touched by the first reads.
    pub fn new() -> Self {
        Self::with_capacity(READ_RING_BYTES)
    }

    /// The same with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { memory: Box::new_uninit_slice(bytes) }
    }

    /// Where the next read goes.
    #[inline]
    pub fn space(&mut self) -> &mut [MaybeUninit<u8>] {
        &mut self.memory
    }

    /// What the last read left at the start.
    ///
    /// # Safety
    /// The last read into [`ReadRing::space`] returned at least `length`.
    #[inline]
    #[allow(unsafe_code)]
    pub unsafe fn filled(&self, length: usize) -> &[u8] {
        debug_assert!(length <= self.memory.len(), "{length} > {}", self.memory.len());
        // SAFETY: the caller's read has initialised that many bytes.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), length) }
    }
}

impl Default for ReadRing {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ReadRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadRing").field("bytes", &self.memory.len()).finish()
    }
}
