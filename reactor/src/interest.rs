//! What a source waits for.

use std::fmt;

/// Includes urgent data, because a read stops at its mark.
#[cfg(target_os = "linux")]
const READABLE: mio::Interest = mio::Interest::READABLE.add(mio::Interest::PRIORITY);
#[cfg(not(target_os = "linux"))]
const READABLE: mio::Interest = mio::Interest::READABLE;

/// A set of directions to watch.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest(u8);

impl Interest {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Data, end of file or an error to read.
    pub const READABLE: Self = Self(1);
    /// Room to write.
    pub const WRITABLE: Self = Self(2);
    /// Both directions.
    pub const BOTH: Self = Self(3);

    /// Whether the set contains reading.
    #[inline]
    pub fn readable(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether the set contains writing.
    #[inline]
    pub fn writable(self) -> bool {
        self.0 & 2 != 0
    }

    /// Whether the set is empty.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// This set and the other's directions.
    #[inline]
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the other's directions.
    #[inline]
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// mio's form; None for the empty set.
    pub(crate) fn to_mio(self) -> Option<mio::Interest> {
        match (self.readable(), self.writable()) {
            (true, true) => Some(READABLE | mio::Interest::WRITABLE),
            (true, false) => Some(READABLE),
            (false, true) => Some(mio::Interest::WRITABLE),
            (false, false) => None,
        }
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "NONE",
            1 => "READABLE",
            2 => "WRITABLE",
            _ => "READABLE | WRITABLE",
        })
    }
}
