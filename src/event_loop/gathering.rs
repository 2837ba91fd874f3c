//! Whether a callback's small writes are sent at once or at the end of the turn.
//!
//! Sending at once reaches the peer soonest. But if many tasks wait for their step,
//! sending between the steps delays the others: for every response, the kernel's
//! code and the program's evict each other from the caches, and a peer on the same
//! machine is woken. So a crowded turn gathers the small writes of its tasks and
//! other scheduled callbacks, and `cork` sends them. Still sent at once are the writes
//! of a protocol while its socket's event is served (such callbacks are too short to
//! gain), and all writes in a turn of few callbacks, or of long ones, where a
//! response would have to wait for another callback.

use tokioloop_reactor::clock;

/// A turn with fewer callbacks is not crowded.
const CROWD: usize = 8;
/// Nor is a turn while callbacks take longer than this on average, in nanoseconds.
const TOO_LONG: u64 = 250_000;

/// What a loop has learned about its turns.
#[derive(Default)]
pub(crate) struct Gathering {
    /// Whether small writes of the running callback are sent at the turn's end.
    pub(crate) on: bool,
    crowded: bool,
    /// Nanoseconds per callback in turns of many: a moving average.
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

    /// A scheduled callback begins, such as a task's step.
    #[inline]
    pub(crate) fn enter(&mut self) {
        self.on = self.crowded;
    }

    /// An event is served, or the turn is over and nothing would send what is gathered.
    #[inline]
    pub(crate) fn leave(&mut self) {
        self.on = false;
    }

    /// Whether a crowded turn is expected to run `left` more callbacks within `nanos`.
    pub(crate) fn ends_within(&self, left: usize, nanos: u64) -> bool {
        self.crowded && self.mean > 0 && (left as u64).saturating_mul(self.mean) <= nanos
    }

    /// All callbacks of the turn have run.
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

    /// Whether tasks and events gather in a turn of `callbacks` that follows `turns`,
    /// each given as its number of callbacks and their nanoseconds.
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
    fn the_end_of_a_turn_is_foreseen_once_there_was_a_crowd() {
        let mut gathering = Gathering::default();
        gathering.begin(64);
        assert!(!gathering.ends_within(1, u64::MAX), "nothing is known of the callbacks");
        gathering.mean = 40_000;
        gathering.begin(64);
        assert!(gathering.ends_within(50, 2_000_000) && !gathering.ends_within(51, 2_000_000));
        gathering.begin(CROWD - 1);
        assert!(!gathering.ends_within(1, 2_000_000));
    }

    #[test]
    fn long_callbacks_do_not_gather_until_they_have_become_short() {
        assert_eq!(behind(&[(64, 2_000_000)], 64), (false, false));
        let mut turns = vec![(64, 2_000_000)];
        turns.extend([(64, 1_000); 16]);
        assert_eq!(behind(&turns, 64), (true, false));
    }
}
