//! What the host of a virtual machine does to a measurement, which cannot be asked for but
//! can be measured, in less than a millisecond.
//!
//! A virtual machine's cores are threads that its host moves about. Where two of them share a
//! cache a cache line goes to the other and back in some 70 ns, elsewhere in 400, and an echo
//! over loopback has 70 % of its rate. And a core whose sibling works for somebody else takes
//! up to twice as long for the same instructions.

use std::error::Error;
use std::hint::{black_box, spin_loop};
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
    pub(crate) wanted: Wanted,
}

/// What one look has found, both in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings {
    /// One cache line to the server's core and back.
    pub(crate) distance: f64,
    /// A fixed piece of work on the server's core.
    pub(crate) pace: f64,
}

/// At which surroundings a measurement counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) distance: Range,
    pub(crate) pace: Range,
}

impl Wanted {
    fn holds(self, found: Surroundings) -> bool {
        self.distance.holds(found.distance) && self.pace.holds(found.pace)
    }
}

/// Any value, unless it was given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    least: f64,
    most: f64,
}

impl Default for Range {
    fn default() -> Self {
        Self { least: 0.0, most: f64::INFINITY }
    }
}

impl Range {
    fn holds(self, value: f64) -> bool {
        (self.least..=self.most).contains(&value)
    }
}

impl FromStr for Range {
    type Err = Box<dyn Error>;

    /// Two numbers with a hyphen between them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (least, most) = text.split_once('-').ok_or("two numbers: LEAST-MOST")?;
        Ok(Self { least: least.parse()?, most: most.parse()? })
    }
}

/// Whether the surroundings were as wanted, each time it was looked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    neighbour: Neighbour,
    stayed: bool,
    looks: u32,
}

impl Watch {
    /// Waits until the surroundings are as wanted, for some seconds at most.
    ///
    /// Both cores are kept busy meanwhile: hosts move an idle core far more often.
    pub(crate) fn begin(neighbour: Neighbour) -> io::Result<Self> {
        let end = Instant::now() + LONGEST_WAIT;
        loop {
            let stayed = neighbour.wanted.holds(neighbour.look()?);
            if stayed || Instant::now() >= end {
                return Ok(Self { neighbour, stayed, looks: 0 });
            }
        }
    }

    pub(crate) fn look(&mut self) -> io::Result<()> {
        self.looks += 1;
        self.stayed &= self.neighbour.wanted.holds(self.neighbour.look()?);
        Ok(())
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
    /// Looks for some time, with pauses in which the host may move the cores.
    pub(crate) fn survey(self, duration: Duration) -> io::Result<Vec<Surroundings>> {
        let end = Instant::now() + duration;
        let mut found = Vec::new();
        while found.is_empty() || Instant::now() < end {
            found.push(self.look()?);
            thread::sleep(PAUSE);
        }
        Ok(found)
    }

    fn look(self) -> io::Result<Surroundings> {
        let line = Line(AtomicU64::new(0));
        thread::scope(|scope| {
            let partner = scope.spawn(|| {
                // Answers from wherever it is: the other side would wait for ever.
                let pinned = sys::pin_to_core(self.core);
                (0..ROUNDS).for_each(|round| line.pass_on(2 * round + 1));
                pinned.map(|()| work())
            });
            let distance = shortest(ROUNDS / BLOCK, |block| {
                for round in block * BLOCK..(block + 1) * BLOCK {
                    line.pass_on(2 * round);
                }
            });
            let pace = partner.join().map_err(|_| io::Error::other("a thread panicked"))??;
            Ok(Surroundings { distance: distance / BLOCK as f64, pace })
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

/// Nanoseconds for arithmetic that keeps several units of a core busy.
fn work() -> f64 {
    shortest(WORKS, |_| {
        let (mut a, mut b, mut c, mut d) = (1_u64, 2_u64, 3_u64, 4_u64);
        for i in 0..WORK {
            a = black_box(a.wrapping_add(i));
            b = black_box(b.wrapping_add(i));
            c = (c ^ i).rotate_left(3);
            d = d.wrapping_mul(5);
            black_box((c, d));
        }
    })
}

/// Nanoseconds of the shortest of some runs: it is free of interrupts.
fn shortest(runs: u64, mut run: impl FnMut(u64)) -> f64 {
    let times = (0..runs).map(|number| {
        let started = Instant::now();
        run(number);
        started.elapsed()
    });
    times.min().unwrap_or_default().as_nanos() as f64
}

const ROUNDS: u64 = 1000;
const BLOCK: u64 = 100;
const WORK: u64 = 20_000;
const WORKS: u64 = 4;
const LONGEST_WAIT: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_does_not_exist_is_an_error_and_no_endless_wait() {
        let nowhere = Neighbour { core: usize::MAX, wanted: Wanted::default() };
        assert!(nowhere.look().is_err());
    }

    #[test]
    fn a_range_is_two_numbers() {
        let range: Range = "40.5-180".parse().unwrap();
        assert!(range.holds(40.5) && range.holds(180.0));
        assert!(!range.holds(31.0) && !range.holds(430.0));
        for text in ["", "40", "40-", "a-b"] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
    }
}
