//! Events that are left for the next turn, because this one has received enough.
//!
//! What a stream reader is fed lies there until its task runs, after all events
//! of the turn. Where messages are large and connections many, the first of them
//! has left the processor's caches by then, and the memory of each is a new one.
//! So a turn stops to serve events once so much is waiting, and runs the tasks;
//! the rest of the events follows, in order, in the next turns, which poll less
//! often meanwhile. Messages that nobody keeps do not count, nor do small ones, and
//! what is copied to the buffer of a reader that nobody waits for.
//!
//! The read of a transport that goes on reading lies here as well: asyncio's next poll
//! tells of it, so that what is scheduled by then runs first.

use std::collections::VecDeque;
use std::mem;

use tokioloop_reactor::{Readiness, Token};

use crate::ready::Ready;

/// Bytes of kept messages that a turn receives: a part of any second-level cache.
const ENOUGH: usize = 256 * 1024;

/// What waits for the next turn.
#[derive(Default)]
pub(crate) struct Backlog {
    events: VecDeque<(Token, Readiness)>,
    /// Bytes that this turn has received and somebody has kept.
    kept: usize,
    /// Whether events line up here.
    on: bool,
    /// Entries of the turn that had not run when they began to.
    pub(crate) left: usize,
}

impl Backlog {
    /// A turn begins; the answer is how many of the entries that are due run
    /// before any event has to line up.
    #[inline]
    pub(crate) fn begin(&mut self, due: usize) -> usize {
        self.kept = 0;
        self.on = !self.events.is_empty();
        self.left = if self.on { due } else { 0 };
        due - self.left
    }

    /// Somebody has kept a message, in a turn of which so many entries are left.
    #[inline]
    pub(crate) fn keep(&mut self, bytes: usize, left: &mut usize) {
        self.kept += bytes;
        if self.kept >= ENOUGH {
            self.on = true;
            self.left += mem::take(left);
        }
    }

    /// Whether events line up.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Takes an event in that is not to be served now; what is, is given back.
    pub(crate) fn line_up(&mut self, entry: Ready) -> Option<Ready> {
        match entry {
            Ready::Io(token, ready) if self.on => {
                self.events.push_back((token, ready));
                None
            }
            entry => Some(entry),
        }
    }

    /// Takes the read of a transport in, for the next turn.
    pub(crate) fn read_later(&mut self, token: Token) {
        self.events.push_back((token, Readiness::AGAIN));
    }

    /// The next event, where this turn has not received enough.
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
        // What comes meanwhile is behind what waits.
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
