//! What an event says about its source.

/// Directions that are ready, and whether the peer has ended its side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readiness(u8);

impl Readiness {
    /// There is something to read: data, an end of file or an error.
    pub const READABLE: Self = Self(1);
    /// There is room to write, or an error that a write will report.
    pub const WRITABLE: Self = Self(2);
    /// The peer has ended its side or the connection failed: a short read does
    /// not mean that everything has been read, because no other edge follows.
    pub const READ_CLOSED: Self = Self(4);

    /// Urgent data was announced or has arrived: a read stops at its mark, so a
    /// short one does not mean that everything has been read.
    pub const URGENT: Self = Self(16);

    /// Still readable: a read that an earlier event left over, because other
    /// sources were to have their turn.
    pub const AGAIN: Self = Self(1 | 8);

    /// Translates one of mio's events. An error or a hang-up makes both
    /// directions ready: the call that comes first gets the errno.
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

    /// Translates one of mio's events. kqueue has a filter for each direction, so
    /// an event says nothing about the other one: a closed sending side may be
    /// our own shutdown, after which the peer may go on sending.
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

    /// Whether more data may follow a short read because of urgent data.
    #[inline]
    pub fn urgent(self) -> bool {
        self.0 & 16 != 0
    }

    /// Whether more data may follow a short read, for any reason.
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
