//! The buffer that all connections of a loop are read into.

use std::fmt;
use std::mem::MaybeUninit;

/// The default size; to receive more at once needs other memory.
pub const READ_RING_BYTES: usize = 64 * 1024;

/// A buffer that is reused for every read of every connection, so that an idle
/// connection owns no buffer and a read allocates nothing.
pub struct ReadRing {
    memory: Box<[MaybeUninit<u8>]>,
}

impl ReadRing {
    /// Reserves [`READ_RING_BYTES`]; the pages become resident with the first reads.
    pub fn new() -> Self {
        Self::with_capacity(READ_RING_BYTES)
    }

    /// As [`ReadRing::new`], with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { memory: Box::new_uninit_slice(bytes) }
    }

    /// Where the next read goes.
    #[inline]
    pub fn space(&mut self) -> &mut [MaybeUninit<u8>] {
        &mut self.memory
    }

    /// The first `length` bytes, as the last read has written them.
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
