//! What a source waits for.

use std::fmt;

/// Urgent data is told of beside other data: reads stop at it.
#[cfg(target_os = "linux")]
const READABLE: mio::Interest = mio::Interest::READABLE.add(mio::Interest::PRIORITY);
#[cfg(not(target_os = "linux"))]
const READABLE: mio::Interest = mio::Interest::READABLE;

/// A set of directions to be told about.
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

    /// Whether reading is part of it.
    #[inline]
    pub fn readable(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether writing is part of it.
    #[inline]
    pub fn writable(self) -> bool {
        self.0 & 2 != 0
    }

    /// Whether nothing is part of it.
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

    /// This set less the other's directions.
    #[inline]
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// mio's form; none for the empty set.
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
