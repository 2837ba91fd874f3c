//! What an event says of a source.

/// Directions that are ready, and whether the peer has ended its side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readiness(u8);

impl Readiness {
    /// There is something to read: data, an end of file or an error.
    pub const READABLE: Self = Self(1);
    /// There is room to write, or an error that a write will tell.
    pub const WRITABLE: Self = Self(2);
    /// The peer has ended its side or the connection failed: a short read does
    /// not mean that everything has been read, because no other edge follows.
    pub const READ_CLOSED: Self = Self(4);

    /// Urgent data is on its way or here: a read stops at its mark, so a short
    /// one does not mean that everything has been read.
    pub const URGENT: Self = Self(16);

    /// Readable still: the rest of an event whose source has given way to the
    /// others.
    pub const AGAIN: Self = Self(1 | 8);

    /// Collects what mio says of one event. An error or a hang-up makes both
    /// directions ready: whoever acts first gets the errno from its call.
    #[cfg(target_os = "linux")]
    #[inline]
    pub(crate) fn of(event: &mio::event::Event) -> Self {
        let mut bits = 0;
        let failed = event.is_error() || event.is_write_closed();
        if event.is_readable() || event.is_read_closed() || failed {
            bits |= 1;
        }
        if event.is_writable() || failed {
            bits |= 2;
        }
        if event.is_read_closed() || failed {
            bits |= 4;
        }
        if event.is_priority() {
            bits |= 16;
        }
        Self(bits)
    }

    /// Collects what mio says of one event. kqueue tells of each direction by a
    /// filter of its own, so one says nothing of the other: a closed sending
    /// side may be our own shutdown, after which the peer goes on.
    #[cfg(not(target_os = "linux"))]
    #[inline]
    pub(crate) fn of(event: &mio::event::Event) -> Self {
        if event.is_writable() {
            Self::WRITABLE
        } else if event.is_read_closed() {
            Self::READABLE.with(Self::READ_CLOSED)
        } else {
            Self::READABLE
        }
    }

    /// The raw bits, to be kept beside a token.
    #[inline]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The inverse of [`Readiness::bits`].
    #[inline]
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & 31)
    }

    /// Whether reading is worth a try.
    #[inline]
    pub fn readable(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether writing is worth a try.
    #[inline]
    pub fn writable(self) -> bool {
        self.0 & 2 != 0
    }

    /// Whether the peer's side has ended.
    #[inline]
    pub fn read_closed(self) -> bool {
        self.0 & 4 != 0
    }

    /// Whether urgent data makes short reads mean nothing.
    #[inline]
    pub fn urgent(self) -> bool {
        self.0 & 16 != 0
    }

    /// Whether a short read means nothing, for whichever reason.
    #[inline]
    pub fn hides_data(self) -> bool {
        self.0 & (4 | 16) != 0
    }

    /// Whether this is the rest of an earlier event.
    #[inline]
    pub fn is_again(self) -> bool {
        self.0 & 8 != 0
    }

    /// Both together.
    #[inline]
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
