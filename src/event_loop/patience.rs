//! Adaptive spinning: whether an idle loop polls for some microseconds before it
//! sleeps.
//!
//! Putting a thread to sleep and waking it costs microseconds on both sides, tens on
//! a virtual machine. If the next event comes sooner, spinning is cheaper: the event
//! is served at once, and its sender need not wake anybody.
//!
//! The loop spins in two cases only: after another thread's message has ended the
//! last wait, and in the first two waits after an accept. Other traffic would be
//! answered sooner, but for more CPU time than sleeping costs. For each case the loop
//! learns whether spinning pays (`Trust`). A spin that finds nothing costs
//! `LOST_TRUST`; at zero the loop sleeps `FIRST_PAUSE` times before it tries again,
//! and each failure doubles the pause, up to `LONGEST_PAUSE`.

/// How many waits after an accept may spin for the connection's request, or for the
/// next connection: the peer is at work.
const WAITS_AFTER_ACCEPT: u8 = 2;
/// The upper limit of trust.
const MOST_TRUST: u8 = 8;
/// What a spin that finds nothing takes away. More than a success adds, because it
/// costs more than a success saves.
const LOST_TRUST: u8 = 4;
/// How many waits sleep between two tries to spin, at first and at most.
const FIRST_PAUSE: u32 = 8;
const LONGEST_PAUSE: u32 = 1024;

/// How to spin, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Look {
    /// For how long.
    pub(crate) span: u64,
    /// The time between two polls of the kernel: a poll takes a lock that threads
    /// need to deliver events.
    pub(crate) between: u64,
}

/// One kind of event that a wait may spin for.
struct Hope {
    look: Look,
    /// Spinning for up to this long costs less than sleeping, in nanoseconds. An event
    /// that takes longer is worth it only if the next ones come sooner, as those of a
    /// thread do that is awake by then.
    worth: u64,
    trust: Trust,
}

/// What a loop has learned about its waits.
pub(crate) struct Patience {
    answers: Hope,
    requests: Hope,
    /// How many of the next waits count as following an accept.
    after_accept: u8,
    /// Whether a thread's message has ended the last wait.
    answered: bool,
}

impl Default for Patience {
    fn default() -> Self {
        // A sleeping thread begins to run within some forty microseconds, and a short
        // job takes little more; a peer at work sends within a few.
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

    /// How the wait that begins is to spin before it sleeps, if at all.
    pub(crate) fn look(&mut self) -> Option<Look> {
        let hope = self.hope()?;
        hope.trust.looks().then_some(hope.look)
    }

    /// Spinning has ended: it `found` something after that many nanoseconds, a thread's
    /// message if `by_message`, or found nothing.
    pub(crate) fn looked(&mut self, found: Option<u64>, by_message: bool) {
        let was_hoped_for = by_message || self.after_accept > 0;
        if let Some(hope) = self.hope() {
            hope.trust.looked(found.map(|nanos| was_hoped_for && nanos <= hope.worth));
        }
    }

    /// The wait is over; `answered` says whether a thread's message has ended it.
    pub(crate) fn ended(&mut self, answered: bool) {
        self.after_accept = self.after_accept.saturating_sub(1);
        self.answered = answered;
    }
}

/// Whether spinning for one kind of event pays.
struct Trust {
    amount: u8,
    /// Waits that sleep until the next try.
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

    /// Spinning has found what was hoped for in time (true), something too late or
    /// something else (false), or nothing (None).
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

    /// How many of `waits` spin, each of which a thread's message ends (`answered`) or
    /// which follow an accept; `found` says after how long each spin finds something.
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
