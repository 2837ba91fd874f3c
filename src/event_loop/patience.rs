//! Whether a loop that has nothing to do looks around before it sleeps.
//!
//! To put a thread to sleep and to wake it costs microseconds on both sides, and
//! tens of them on a virtual machine, whose idle core is the host's to take. Where
//! the next thing to do comes sooner than that, it is cheaper to look for it: it is
//! served at once, and whoever brought it has nobody to wake.
//!
//! Two things often come soon: the next answer of a thread, after one has ended a
//! wait, and the request of a connection that was accepted. Nothing else is looked
//! for: traffic that arrives when it likes would be answered sooner, but for more CPU
//! time than its sleeps cost. And whether these do come soon is learned. A loop that
//! finds them nearly each time goes on to look; one that has looked in vain sleeps,
//! and makes ever longer pauses between its tries, of a thousand such waits at last.

/// Waits after a connection was accepted that may look for its request, or for the
/// next connection: its peer is at work.
const WAITS_AFTER_ACCEPT: u8 = 2;
/// How many looks are as good as a promise.
const MOST_TRUST: u8 = 8;
/// What a look in vain takes away: it costs more than one that finds something saves.
const LOST_TRUST: u8 = 4;
/// Sleeps between two tries, at first and at most.
const FIRST_PAUSE: u32 = 8;
const LONGEST_PAUSE: u32 = 1024;

/// How to look, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Look {
    /// For how long.
    pub(crate) span: u64,
    /// How seldom at the kernel's events: to look takes a lock of those who bring them.
    pub(crate) between: u64,
}

/// What a wait may hope for.
struct Hope {
    look: Look,
    /// Nanoseconds of a look that costs less than a sleep. What comes later pays for
    /// its look only if the next ones come sooner, as a thread does that has just run.
    worth: u64,
    trust: Trust,
}

/// What a loop has learned about its waits.
pub(crate) struct Patience {
    answers: Hope,
    requests: Hope,
    /// Waits that are still after an accepted connection.
    after_accept: u8,
    /// Whether a thread's message has ended the last wait.
    answered: bool,
}

impl Default for Patience {
    fn default() -> Self {
        // A thread that has slept begins to run within some forty microseconds, and does
        // what is short; a peer at work sends within a few.
        let answers = Look { span: 50_000, between: 2_000 };
        let requests = Look { span: 10_000, between: 2_000 };
        Patience {
            answers: Hope { look: answers, worth: 30_000, trust: Trust::default() },
            requests: Hope { look: requests, worth: requests.span, trust: Trust::default() },
            after_accept: 0,
            answered: false,
        }
    }
}

impl Patience {
    /// A connection was accepted.
    #[inline]
    pub(crate) fn accepted(&mut self) {
        self.after_accept = WAITS_AFTER_ACCEPT;
    }

    fn hope(&mut self) -> Option<&mut Hope> {
        if self.after_accept > 0 {
            Some(&mut self.requests)
        } else if self.answered {
            Some(&mut self.answers)
        } else {
            None
        }
    }

    /// How the wait that begins looks before it sleeps, if it does.
    pub(crate) fn look(&mut self) -> Option<Look> {
        let hope = self.hope()?;
        hope.trust.looks().then_some(hope.look)
    }

    /// The look that was asked for has found something after so many nanoseconds, or
    /// has not; whether that is a thread's message.
    pub(crate) fn looked(&mut self, found: Option<u64>, by_message: bool) {
        let was_hoped_for = by_message || self.after_accept > 0;
        if let Some(hope) = self.hope() {
            hope.trust.looked(found.map(|nanos| was_hoped_for && nanos <= hope.worth));
        }
    }

    /// The wait is over; whether a thread's message has ended it.
    pub(crate) fn ended(&mut self, answered: bool) {
        self.after_accept = self.after_accept.saturating_sub(1);
        self.answered = answered;
    }
}

/// Whether looks for one kind of thing are worth their time.
struct Trust {
    amount: u8,
    /// Sleeps until the next try.
    left: u32,
    pause: u32,
}

impl Default for Trust {
    fn default() -> Self {
        Trust { amount: 0, left: FIRST_PAUSE, pause: FIRST_PAUSE }
    }
}

impl Trust {
    fn looks(&mut self) -> bool {
        if self.amount > 0 || self.left == 0 {
            return true;
        }
        self.left -= 1;
        false
    }

    /// A look has found what was hoped for, soon; something late, or something else; or
    /// nothing.
    fn looked(&mut self, soon: Option<bool>) {
        let (gained, lost) = match soon {
            Some(true) => (1, 0),
            Some(false) if self.amount == 0 => (1, 0),
            Some(false) => (0, 1),
            None => (0, LOST_TRUST),
        };
        self.amount = MOST_TRUST.min(self.amount + gained).saturating_sub(lost);
        if self.amount == 0 {
            self.left = self.pause;
            self.pause = LONGEST_PAUSE.min(self.pause * 2);
        } else if self.amount == MOST_TRUST {
            self.pause = FIRST_PAUSE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `waits` that a thread's message ends, or that follow on an accepted
    /// connection, how many look; `found` tells what each look finds after how long.
    fn looks(waits: u32, answered: bool, found: impl Fn(u32) -> Option<u64>) -> u32 {
        let mut patience = Patience::default();
        let mut count = 0;
        patience.ended(answered);
        for _ in 0..waits {
            if !answered {
                patience.accepted();
            }
            if patience.look().is_some() {
                patience.looked(found(count), answered);
                count += 1;
            }
            patience.ended(answered);
        }
        count
    }

    #[test]
    fn a_loop_whose_looks_find_something_soon_sleeps_no_more() {
        for answered in [true, false] {
            assert_eq!(looks(1000, answered, |_| Some(3_000)), 1000 - FIRST_PAUSE);
        }
    }

    #[test]
    fn a_loop_that_looks_in_vain_tries_ever_more_seldom() {
        assert_eq!(looks(1024, true, |_| None), 7);
        let looked = looks(1_024_000, false, |_| None);
        assert!((1_000..1_020).contains(&looked), "{looked}");
    }

    #[test]
    fn looks_that_fail_every_other_time_are_given_up() {
        let looked = looks(1_024_000, true, |number| (number % 2 == 0).then_some(3_000));
        assert!(looked < 4_000, "{looked}");
    }

    #[test]
    fn answers_that_always_come_late_are_not_looked_for() {
        let looked = looks(1_024_000, true, |_| Some(45_000));
        assert!(looked < 4_000, "{looked}");
    }

    #[test]
    fn a_thread_that_only_its_first_answer_is_late_of_is_looked_for() {
        let looked = looks(1000, true, |number| Some(if number == 0 { 45_000 } else { 9_000 }));
        assert_eq!(looked, 1000 - FIRST_PAUSE);
    }

    #[test]
    fn a_look_in_vain_now_and_then_is_forgiven() {
        let looked = looks(10_000, true, |number| (number % 8 != 7).then_some(3_000));
        assert!(looked > 9_000, "{looked}");
    }

    #[test]
    fn a_loop_that_is_trusted_again_tries_as_often_as_a_new_one() {
        let mut trust = Trust::default();
        for _ in 0..10 {
            while !trust.looks() {}
            trust.looked(None);
        }
        assert_eq!(trust.pause, LONGEST_PAUSE);
        while !trust.looks() {}
        for _ in 0..MOST_TRUST {
            trust.looked(Some(true));
        }
        assert_eq!(trust.pause, FIRST_PAUSE);
    }

    #[test]
    fn who_is_neither_answered_nor_connected_to_does_not_look() {
        let mut patience = Patience::default();
        for _ in 0..1000 {
            assert_eq!(patience.look(), None);
            patience.ended(false);
        }
    }

    #[test]
    fn events_found_in_place_of_answers_earn_no_trust() {
        let mut patience = Patience::default();
        let mut looks = 0;
        for _ in 0..1_024_000 {
            patience.ended(true);
            if patience.look().is_some() {
                patience.looked(Some(3_000), false);
                looks += 1;
            }
        }
        assert!(looks < 4_000, "{looks}");
    }

    #[test]
    fn a_connection_is_looked_after_for_two_waits() {
        let mut patience = Patience::default();
        patience.requests.trust.amount = MOST_TRUST;
        patience.accepted();
        let mut looks = [false; 3];
        for look in &mut looks {
            *look = patience.look().is_some();
            patience.ended(false);
        }
        assert_eq!(looks, [true, true, false]);
    }

    #[test]
    fn what_is_learned_of_answers_says_nothing_of_requests() {
        let mut patience = Patience::default();
        for _ in 0..100 {
            if patience.look().is_some() {
                patience.looked(Some(3_000), true);
            }
            patience.ended(true);
        }
        assert!(patience.look().is_some());
        patience.accepted();
        assert_eq!(patience.look(), None);
    }
}
