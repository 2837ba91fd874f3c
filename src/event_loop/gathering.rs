//! Whether what a callback writes leaves with the turn or at once.
//!
//! A write that is sent at once is with its peer soonest. Where many tasks wait
//! for their step, sending between the steps is what keeps the others waiting:
//! the kernel's code and the program's take each other's place in the caches for
//! every response, and a peer on the same machine is woken for each of them. So
//! a crowded turn gathers the small writes of its tasks, and of all else that was
//! scheduled; `cork` sends them. A protocol that answers when its socket becomes
//! readable writes at once: such callbacks are too short to gain by that. So does
//! everybody in a turn of few callbacks, and where callbacks take long: a response
//! would wait for one of them.

use tokioloop_reactor::clock;

/// Fewer callbacks than that are no crowd.
const CROWD: usize = 8;
/// Nanoseconds of a mean callback above which its turn is no crowd either.
const TOO_LONG: u64 = 250_000;

/// What a loop knows of its turns.
#[derive(Default)]
pub(crate) struct Gathering {
    /// Whether small writes of the running callback leave at the turn's end.
    pub(crate) on: bool,
    crowded: bool,
    /// Nanoseconds of a callback in turns of many, the latest ones counting most.
    mean: u64,
    started: u64,
}

impl Gathering {
    /// A turn begins to run its callbacks.
    // HOT: call_soon, proto
    #[inline]
    pub(crate) fn begin(&mut self, callbacks: usize) {
        self.crowded = false;
        if callbacks >= CROWD {
            self.crowded = self.mean <= TOO_LONG;
            self.started = clock::now();
        }
    }

    /// A callback runs that was scheduled, as the step of a task is.
    #[inline]
    pub(crate) fn enter(&mut self) {
        self.on = self.crowded;
    }

    /// An event is served, or nothing runs: what is written then would find no
    /// end of a turn.
    #[inline]
    pub(crate) fn leave(&mut self) {
        self.on = false;
    }

    /// All have run.
    #[inline]
    pub(crate) fn end(&mut self, callbacks: usize) {
        if callbacks >= CROWD {
            let each = (clock::now() - self.started) / callbacks as u64;
            self.mean = (3 * self.mean + each) / 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether tasks and events gather behind turns of that kind, in a last one.
    fn behind(turns: &[(usize, u64)], callbacks: usize) -> (bool, bool) {
        let mut gathering = Gathering::default();
        for &(count, each) in turns {
            gathering.begin(count);
            gathering.started -= each * count as u64;
            gathering.end(count);
        }
        gathering.begin(callbacks);
        gathering.enter();
        let tasks = gathering.on;
        gathering.leave();
        (tasks, gathering.on)
    }

    #[test]
    fn the_tasks_of_a_crowd_gather_its_events_do_not() {
        assert_eq!(behind(&[(64, 40_000)], 64), (true, false));
    }

    #[test]
    fn few_callbacks_do_not_gather_even_where_a_crowd_did() {
        assert_eq!(behind(&[(64, 40_000)], CROWD - 1), (false, false));
    }

    #[test]
    fn long_callbacks_do_not_gather_until_they_have_become_short() {
        assert_eq!(behind(&[(64, 2_000_000)], 64), (false, false));
        let mut turns = vec![(64, 2_000_000)];
        turns.extend([(64, 1_000); 16]);
        assert_eq!(behind(&turns, 64), (true, false));
    }
}
