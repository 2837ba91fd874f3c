//! Postpones socket events once a turn has received 256 KB that the program keeps.
//!
//! Data fed to a stream reader stays there until its task runs, after all events
//! of the turn. With many large messages the first ones have left the CPU caches
//! by then, and each needs new memory. So the turn stops serving events and runs
//! callbacks; the remaining events queue here, in order, and the next turns serve
//! them, polling less often until the queue is empty. Not counted are small
//! messages, those that the program drops at once, and those that are copied into
//! the buffer of a reader that no task waits for.
//!
//! When a transport resumes reading, its read queues here as well: asyncio's next
//! poll would report it, so callbacks that are scheduled by then run first.

use std::collections::VecDeque;
use std::mem;

use tokioloop_reactor::{Readiness, Token};

use crate::ready::Ready;

/// Bytes of kept messages after which a turn postpones events: a fraction of any
/// second-level cache.
const ENOUGH: usize = 256 * 1024;

/// Events that wait for a later turn.
#[derive(Default)]
pub(crate) struct Backlog {
    events: VecDeque<(Token, Readiness)>,
    /// Bytes that this turn has received and the program has kept.
    kept: usize,
    /// Whether events are postponed: queued here instead of served.
    on: bool,
    /// Entries of this turn that had not run yet when that began.
    pub(crate) left: usize,
}

impl Backlog {
    /// Begins a turn with `due` entries. Returns how many of them run without
    /// passing through [`line_up`](Self::line_up): all, or none while events wait
    /// here already.
    #[inline]
    pub(crate) fn begin(&mut self, due: usize) -> usize {
        self.kept = 0;
        self.on = !self.events.is_empty();
        self.left = if self.on { due } else { 0 };
        due - self.left
    }

    /// The program has kept a message. `left` entries of the turn are still to run;
    /// if the turn has received enough they are moved to `self.left`.
    #[inline]
    pub(crate) fn keep(&mut self, bytes: usize, left: &mut usize) {
        self.kept += bytes;
        if self.kept >= ENOUGH {
            self.on = true;
            self.left += mem::take(left);
        }
    }

    /// Whether events are postponed.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Queues the entry if it is an event to be postponed, else gives it back.
    pub(crate) fn line_up(&mut self, entry: Ready) -> Option<Ready> {
        match entry {
            Ready::Io(token, ready) if self.on => {
                self.events.push_back((token, ready));
                None
            }
            entry => Some(entry),
        }
    }

    /// Queues a transport's read for the next turn.
    pub(crate) fn read_later(&mut self, token: Token) {
        self.events.push_back((token, Readiness::AGAIN));
    }

    /// The next postponed event, unless this turn has received enough.
    pub(crate) fn next(&mut self) -> Option<Ready> {
        if !self.on || self.kept >= ENOUGH {
            return None;
        }
        self.events.pop_front().map(|(token, ready)| Ready::Io(token, ready))
    }

    /// How many events wait.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether none waits.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: usize) -> Ready {
        Ready::Io(Token::from_bits(number), Readiness::AGAIN)
    }

    fn number(entry: Option<Ready>) -> Option<usize> {
        match entry {
            Some(Ready::Io(token, _)) => Some(token.to_bits()),
            _ => None,
        }
    }

    #[test]
    fn a_turn_runs_all_that_is_due_while_little_is_kept() {
        let mut backlog = Backlog::default();
        let mut left = backlog.begin(5);
        backlog.keep(ENOUGH - 1, &mut left);
        assert_eq!((left, backlog.is_on()), (5, false));
        assert_eq!(number(backlog.line_up(event(1))), Some(1));
        assert!(backlog.is_empty() && backlog.next().is_none());
    }

    #[test]
    fn a_read_that_goes_on_is_behind_all_that_is_due_in_the_next_turn() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.begin(1), 1);
        backlog.read_later(Token::from_bits(1));
        assert!(!backlog.is_on() && backlog.next().is_none(), "not in this turn");
        assert_eq!((backlog.begin(2), backlog.left), (0, 2));
        assert_eq!(number(backlog.next()), Some(1));
        assert_eq!(backlog.begin(2), 2);
    }

    #[test]
    fn the_rest_waits_for_the_next_turn_and_keeps_its_order() {
        let mut backlog = Backlog::default();
        let mut left = backlog.begin(4);
        left -= 1;
        backlog.keep(ENOUGH, &mut left);
        assert_eq!((left, backlog.left, backlog.is_on()), (0, 3, true));
        assert!((1..=3).all(|number| backlog.line_up(event(number)).is_none()));
        assert!(backlog.next().is_none(), "this turn has received enough");
        assert_eq!((backlog.begin(1), backlog.left), (0, 1));
        // A new event queues after those that wait.
        assert!(backlog.line_up(event(4)).is_none());
        assert_eq!(number(backlog.next()), Some(1));
        backlog.keep(ENOUGH, &mut left);
        assert!(backlog.next().is_none());
        assert_eq!(backlog.begin(0), 0);
        let rest: Vec<_> = std::iter::from_fn(|| number(backlog.next())).collect();
        assert_eq!(rest, [2, 3, 4]);
        assert_eq!((backlog.begin(2), backlog.left), (2, 0));
        assert_eq!(number(backlog.line_up(event(5))), Some(5));
    }
}
