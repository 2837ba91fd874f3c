//! How far the client's core is from the server's: one cache line there and back.
//!
//! A virtual machine's cores are threads that its host moves about. Where two of them share a
//! cache a line comes back in some 40 ns, elsewhere in 200 ns or more, and the rate of an echo
//! over loopback differs by 40 % with it. What the host does cannot be asked for, but it can be
//! measured, in less than a millisecond.

use std::error::Error;
use std::hint::spin_loop;
use std::io;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::sys;

/// The server's core, seen from the calling thread, which is pinned to another one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neighbour {
    pub(crate) core: usize,
    /// The distances at which a measurement counts, in nanoseconds.
    pub(crate) wanted: Wanted,
}

/// A range of distances; any, unless it was given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { least: 0.0, most: f64::INFINITY }
    }
}

impl Wanted {
    fn holds(self, distance: f64) -> bool {
        (self.least..=self.most).contains(&distance)
    }
}

impl FromStr for Wanted {
    type Err = Box<dyn Error>;

    /// Two numbers with a hyphen between them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (least, most) = text.split_once('-').ok_or("two distances: LEAST-MOST")?;
        Ok(Self { least: least.parse()?, most: most.parse()? })
    }
}

/// Whether the cores were where they were wanted, each time it was looked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    neighbour: Neighbour,
    stayed: bool,
    last: f64,
    looks: u32,
}

impl Watch {
    /// Waits until the cores are where they are wanted, for some seconds at most.
    pub(crate) fn begin(neighbour: Neighbour) -> io::Result<Self> {
        let last = neighbour.wait_until_wanted()?;
        Ok(Self { neighbour, stayed: neighbour.wanted.holds(last), last, looks: 0 })
    }

    pub(crate) fn look(&mut self) -> io::Result<()> {
        self.looks += 1;
        self.last = self.neighbour.distance()?;
        self.stayed &= self.neighbour.wanted.holds(self.last);
        Ok(())
    }

    /// The last distance, in nanoseconds.
    pub(crate) fn last(&self) -> f64 {
        self.last
    }

    /// How often it was looked since the beginning.
    pub(crate) fn looks(&self) -> u32 {
        self.looks
    }

    pub(crate) fn stayed(&self) -> bool {
        self.stayed
    }
}

impl Neighbour {
    /// Both cores are kept busy meanwhile: hosts move an idle core far more often.
    fn wait_until_wanted(self) -> io::Result<f64> {
        let end = Instant::now() + LONGEST_WAIT;
        loop {
            let distance = self.distance()?;
            if self.wanted.holds(distance) || Instant::now() >= end {
                return Ok(distance);
            }
        }
    }

    /// Distances for some time, with pauses in which the host may move the cores.
    pub(crate) fn survey(self, duration: Duration) -> io::Result<Vec<f64>> {
        let end = Instant::now() + duration;
        let mut distances = Vec::new();
        while distances.is_empty() || Instant::now() < end {
            distances.push(self.distance()?);
            thread::sleep(PAUSE);
        }
        Ok(distances)
    }

    /// Nanoseconds for one cache line to the other core and back, without interruptions.
    fn distance(self) -> io::Result<f64> {
        let line = Line(AtomicU64::new(0));
        thread::scope(|scope| {
            let partner = scope.spawn(|| {
                // Answers from wherever it is: the other side would wait for ever.
                let pinned = sys::pin_to_core(self.core);
                (0..ROUNDS).for_each(|round| line.pass_on(2 * round + 1));
                pinned
            });
            let mut shortest = Duration::MAX;
            let mut started = Instant::now();
            for round in 0..ROUNDS {
                line.pass_on(2 * round);
                if (round + 1) % BLOCK == 0 {
                    shortest = shortest.min(started.elapsed());
                    started = Instant::now();
                }
            }
            partner.join().map_err(|_| io::Error::other("the partner thread panicked"))??;
            Ok(shortest.as_nanos() as f64 / BLOCK as f64)
        })
    }
}

/// A cache line of its own, whose value says whose turn it is.
#[repr(align(128))]
struct Line(AtomicU64);

impl Line {
    /// Waits for a value and gives the turn to the other side.
    fn pass_on(&self, value: u64) {
        while self.0.load(Ordering::Acquire) != value {
            spin_loop();
        }
        self.0.store(value + 1, Ordering::Release);
    }
}

const ROUNDS: u64 = 1000;
/// The shortest of some blocks is free of interrupts.
const BLOCK: u64 = 100;
const LONGEST_WAIT: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_does_not_exist_is_an_error_and_no_endless_wait() {
        let nowhere = Neighbour { core: usize::MAX, wanted: Wanted::default() };
        assert!(nowhere.distance().is_err());
    }

    #[test]
    fn a_range_is_two_numbers() {
        let wanted: Wanted = "40.5-180".parse().unwrap();
        assert!(wanted.holds(40.5) && wanted.holds(180.0));
        assert!(!wanted.holds(31.0) && !wanted.holds(430.0));
        for text in ["", "40", "40-", "a-b"] {
            assert!(text.parse::<Wanted>().is_err(), "{text}");
        }
    }
}
