//! Flow-control limits: when a full write buffer pauses its writer and when it resumes it.
//!
//! Holds the two numbers and asyncio's rule for choosing them. Counting the bytes is the write
//! queue's work, remembering that a writer is paused is the transport's.

use std::{error, fmt};

/// The high and low water mark of one write buffer; `low <= high` always holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaterMarks {
    high: usize,
    low: usize,
}

impl WaterMarks {
    /// asyncio's defaults: 64 KiB and a quarter of that.
    pub const fn new() -> Self {
        Self { high: DEFAULT_HIGH, low: DEFAULT_HIGH / HIGH_TO_LOW }
    }

    /// Sets the limits by the rule of `WriteTransport.set_write_buffer_limits`.
    ///
    /// A missing `high` is four times `low`, or 64 KiB if both are missing; a missing `low` is a
    /// quarter of `high`.
    ///
    /// # Errors
    /// [`InvalidMarks`] if `low` is above `high`; the limits stay as they were.
    ///
    /// ```
    /// use tokioloop_reactor::WaterMarks;
    ///
    /// let mut marks = WaterMarks::new();
    /// marks.set(None, Some(1000)).unwrap();
    /// assert_eq!((marks.high(), marks.low()), (4000, 1000));
    /// assert!(marks.should_pause(4001) && !marks.should_pause(4000));
    /// assert!(marks.should_resume(1000) && !marks.should_resume(1001));
    /// ```
    pub fn set(&mut self, high: Option<usize>, low: Option<usize>) -> Result<(), InvalidMarks> {
        let high = match (high, low) {
            (Some(high), _) => high,
            (None, Some(low)) => low.saturating_mul(HIGH_TO_LOW),
            (None, None) => DEFAULT_HIGH,
        };
        let low = low.unwrap_or(high / HIGH_TO_LOW);
        if low > high {
            return Err(InvalidMarks { high, low });
        }
        *self = Self { high, low };
        Ok(())
    }

    /// Whether a writer must pause with `size` bytes buffered.
    #[inline]
    pub const fn should_pause(&self, size: usize) -> bool {
        size > self.high
    }

    /// Whether a paused writer may go on with `size` bytes buffered.
    #[inline]
    pub const fn should_resume(&self, size: usize) -> bool {
        size <= self.low
    }

    /// More bytes than this pause the writer.
    #[inline]
    pub const fn high(&self) -> usize {
        self.high
    }

    /// This many bytes or fewer resume it.
    #[inline]
    pub const fn low(&self) -> usize {
        self.low
    }
}

impl Default for WaterMarks {
    fn default() -> Self {
        Self::new()
    }
}

/// The low water mark was above the high one. Displays as asyncio's `ValueError` reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidMarks {
    high: usize,
    low: usize,
}

impl fmt::Display for InvalidMarks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "high ({}) must be >= low ({}) must be >= 0", self.high, self.low)
    }
}

impl error::Error for InvalidMarks {}

/// asyncio's default for `high`, in bytes.
const DEFAULT_HIGH: usize = 64 * 1024;

/// asyncio's ratio between the two marks.
const HIGH_TO_LOW: usize = 4;
