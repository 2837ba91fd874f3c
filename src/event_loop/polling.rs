//! When a turn polls, how long it waits, and what the poll has brought.

use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use tokioloop_reactor::{Poller, Timeout, clock};

use crate::errors;
use crate::event_loop::native::This;
use crate::event_loop::patience::Look;
use crate::event_loop::run::take_signals;
use crate::event_loop::{EventLoop, Inside, Source, io};
use crate::logging;
use crate::py::detached::detached;
use crate::py::stop_iteration;
use crate::ready::Ready;
use crate::transports::stream;

/// Turns that may pass without a poll while callbacks keep coming and the last
/// poll found nothing; fewer if there are sources that may have events. asyncio
/// polls in every turn.
const SKIPPED_POLLS: u32 = 64;
const SKIPPED_POLLS_WITH_SOURCES: u32 = 8;
/// A turn that reads the clock polls if the last poll was longer ago, in nanoseconds.
const SKIP_NANOS: u64 = 20_000;
/// If only a signal could come, turns that may pass without reading the clock...
const UNTIMED: u32 = 3;
/// ...after two readings that were less than this apart, in nanoseconds.
const BRISK_NANOS: u64 = 4_000;
/// asyncio's longest wait (a day), in seconds; only a custom clock needs it.
const MAXIMUM_WAIT: f64 = 24.0 * 3600.0;

/// The capacity that the empty ready queue keeps.
const ROOM: usize = 4096;

/// Nanoseconds that a thread may go on running after it has sent a message, before it
/// waits for its next job or ends.
const DETACHES_WITHIN: u64 = 3_000;

/// What a run remembers between turns.
#[derive(Default)]
pub(super) struct Pace {
    /// Turns since the last poll, not counting the first one after events.
    skipped: u32,
    /// Whether the last poll found nothing.
    quiet: bool,
    /// Whether this is the first turn after a poll that found events.
    behind_events: bool,
    polled_at: u64,
    /// When the clock was read last, and how many turns need not read it.
    timed_at: u64,
    untimed: u32,
    /// Whether the last poll has spun in vain: the next one sleeps at once.
    looked: bool,
}

/// Whether this turn polls. A chain of callbacks need not pay a system call for
/// each turn while nothing happens outside.
#[inline]
pub(super) fn must_poll(inside: &Inside<'_>, pace: &mut Pace) -> bool {
    if inside.with(|state| state.signalled) {
        // An exception has ended the last poll: signals wait for no other event.
        return true;
    }
    if inside.with(|state| !state.backlog.is_empty()) {
        // What the last poll has found comes first, but not for ever: transports
        // that pause and resume may keep the backlog filled.
        pace.skipped += 1;
        return pace.skipped > SKIPPED_POLLS_WITH_SOURCES;
    }
    let (must, sources) = inside.with(|state| {
        let own = usize::from(state.signal_token.is_some());
        (state.ready.is_empty() || state.registered, state.sources.len() > own)
    });
    if std::mem::take(&mut pace.behind_events) && !must {
        // What events have scheduled, or have left to read, is due before anything that a
        // poll would find now. If the poll comes after it, all that has arrived by then is
        // one crowd and not two.
        return false;
    }
    let limit = if sources { SKIPPED_POLLS_WITH_SOURCES } else { SKIPPED_POLLS };
    if must || !pace.quiet || pace.skipped >= limit {
        return true;
    }
    pace.skipped += 1;
    if pace.untimed > 0 && !sources {
        pace.untimed -= 1;
        return false;
    }
    let now = clock::now();
    pace.untimed = if now - pace.timed_at < BRISK_NANOS { UNTIMED } else { 0 };
    pace.timed_at = now;
    now - pace.polled_at > SKIP_NANOS
}

pub(super) fn poll(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    pace: &mut Pace,
) -> PyResult<()> {
    logging::deliver(py)?;
    stop_iteration::forget_caught(py);
    if inside.with(|state| !state.corked.is_empty()) {
        // A callback runs the loop itself, or a log handler has written: the loop must
        // not wait for an answer to something that is still corked.
        stream::flush_corked(py, this, inside)?;
    }
    let event_loop = this.event_loop;
    let timeout = timeout(py, this, inside)?;
    let Some(mut poller) = inside.with(|state| state.poller.take()) else {
        return Err(errors::closed());
    };
    let may_look = !std::mem::take(&mut pace.looked);
    let waited = timeout != Timeout::Now;
    let result = if waited {
        wait(py, event_loop, inside, &mut poller, timeout, may_look).map(|over| pace.looked = !over)
    } else {
        poller.wait(Timeout::Now)
    };
    let found = result.is_ok() && queue_events(py, inside, &poller);
    inside.with(|state| {
        state.poller = Some(poller);
        state.registered = false;
        state.metrics.polls += 1;
    });
    logging::deliver(py)?;
    pace.skipped = 0;
    pace.quiet = !found;
    pace.behind_events = found;
    if pace.quiet {
        pace.polled_at = clock::now();
        pace.timed_at = pace.polled_at;
        pace.untimed = 0;
    }
    if waited && event_loop.inbox.has_pending() {
        event_loop.take_some_messages(py, inside);
    }
    match result {
        // A signal does not interrupt spinning, and must not wait for the sleep's end.
        Ok(()) if pace.looked => {
            py.check_signals()?;
            take_signals(py, this, inside)
        }
        Ok(()) => take_signals(py, this, inside),
        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
            py.check_signals()?;
            take_signals(py, this, inside)
        }
        Err(error) => Err(errors::os_error(py, &error)),
    }
}

/// Waits until there is something to do, and records the wait. Returns whether the wait
/// is over: not if it has only spun, in vain.
// Cold, because an idle loop has time: the poll of a busy loop is shorter without it.
#[cold]
fn wait(
    py: Python<'_>,
    event_loop: &EventLoop,
    inside: &Inside<'_>,
    poller: &mut Poller,
    timeout: Timeout,
    may_look: bool,
) -> std::io::Result<bool> {
    let wait = Wait { event_loop, timeout, started: clock::now() };
    let turns = inside.with(|state| {
        if state.ready.is_empty() && state.ready.capacity() > ROOM {
            state.ready.shrink_to(ROOM);
        }
        state.metrics.turns
    });
    event_loop.observer.waiting(turns);
    let learns = may_look && event_loop.options.busy_poll != Some(0);
    let result = match learns.then(|| inside.with(|state| state.patience.look())).flatten() {
        Some(how) => wait.look_first(py, inside, poller, how),
        None => wait.sleep(py, inside, poller).map(|()| true),
    };
    let took = wait.took();
    inside.with(|state| {
        state.metrics.polling += took;
        if !matches!(result, Ok(false)) {
            state.patience.ended(event_loop.inbox.has_pending());
            state.metrics.blocking_polls += 1;
        }
    });
    log::debug!("woke after {} us", took / 1000);
    result
}

/// How spinning has ended.
enum Looked {
    Found,
    InVain,
    /// A timer is due, or the loop was notified; says nothing about spinning.
    CutShort,
}

/// A wait under way.
struct Wait<'a> {
    event_loop: &'a EventLoop,
    timeout: Timeout,
    started: u64,
}

impl Wait<'_> {
    fn took(&self) -> u64 {
        clock::now() - self.started
    }

    /// Spins before the loop announces that it sleeps, so that no sender has to wake it.
    /// Returns whether it has found something.
    fn look_first(
        &self,
        py: Python<'_>,
        inside: &Inside<'_>,
        poller: &mut Poller,
        how: Look,
    ) -> std::io::Result<bool> {
        let looked = detached(py, || self.look(poller, how))?;
        let took = self.took();
        let by_message = self.event_loop.inbox.has_pending();
        inside.with(|state| {
            state.metrics.looks += 1;
            match looked {
                Looked::Found => state.patience.looked(Some(took), by_message),
                Looked::InVain => state.patience.looked(None, by_message),
                Looked::CutShort => {}
            }
        });
        Ok(matches!(looked, Looked::Found))
    }

    /// Sleeps, after spinning for as long as `busy_poll` says.
    fn sleep(
        &self,
        py: Python<'_>,
        inside: &Inside<'_>,
        poller: &mut Poller,
    ) -> std::io::Result<()> {
        let inbox = &self.event_loop.inbox;
        if !inbox.park(py) {
            return poller.wait(Timeout::Now);
        }
        let span = self.event_loop.options.busy_poll.unwrap_or(0);
        let result = detached(py, || {
            let found =
                span > 0 && matches!(self.look(poller, Look { span, between: 0 })?, Looked::Found);
            if found { Ok(()) } else { poller.wait(self.timeout) }
        });
        inbox.unpark();
        if span > 0 {
            inside.with(|state| state.metrics.looks += 1);
        }
        result
    }

    /// Spins until there is something to do or the time is up. Runs detached.
    fn look(&self, poller: &mut Poller, how: Look) -> std::io::Result<Looked> {
        let inbox = &self.event_loop.inbox;
        let end = self.started + how.span;
        let due = if let Timeout::At(deadline) = self.timeout { deadline } else { u64::MAX };
        loop {
            poller.wait(Timeout::Now)?;
            if !poller.is_quiet() {
                return Ok(Looked::Found);
            }
            let again = clock::now() + how.between;
            loop {
                if inbox.has_pending() {
                    leave_time_to_detach();
                    return Ok(Looked::Found);
                }
                let now = clock::now();
                if now >= due || inbox.is_notified() {
                    return Ok(Looked::CutShort);
                }
                if now >= end {
                    return Ok(Looked::InVain);
                }
                if now >= again {
                    break;
                }
                std::hint::spin_loop();
            }
        }
    }
}

/// Waits a moment, because the thread that has sent a message still holds the GIL,
/// usually not for long: attaching meanwhile would put this thread to sleep.
fn leave_time_to_detach() {
    if cfg!(Py_GIL_DISABLED) {
        return;
    }
    let end = clock::now() + DETACHES_WITHIN;
    while clock::now() < end {
        std::hint::spin_loop();
    }
}

/// How long the poll may block.
#[inline]
fn timeout(py: Python<'_>, this: This<'_>, inside: &Inside<'_>) -> PyResult<Timeout> {
    let busy = inside
        .with(|state| !state.ready.is_empty() || !state.backlog.is_empty() || state.signalled);
    if busy || this.event_loop.stopping.load(Ordering::Relaxed) {
        return Ok(Timeout::Now);
    }
    match inside.with(|state| state.timers.next_deadline()) {
        None | Some(u64::MAX) => Ok(Timeout::Never),
        Some(deadline) if !this.event_loop.custom_clock() => Ok(Timeout::At(deadline)),
        Some(deadline) => {
            // The deadline is on another clock: wait for the difference.
            let left = (clock::to_seconds(deadline) - this.now(py)?).clamp(0.0, MAXIMUM_WAIT);
            let nanos = (left * 1e9) as u64;
            Ok(if nanos == 0 { Timeout::Now } else { Timeout::At(clock::now() + nanos) })
        }
    }
}

/// Queues what the poll found; returns whether it found anything.
// HOT: proto
#[inline(always)]
fn queue_events(py: Python<'_>, inside: &Inside<'_>, poller: &Poller) -> bool {
    inside.with(|state| {
        let mut found = 0;
        for (token, ready) in poller.events() {
            found += 1;
            match state.sources.get_mut(token) {
                Some(Source::Watch(_)) => io::queue_watch(py, state, token, ready),
                Some(Source::Socket(kept)) => {
                    let is_waited_for = kept.note(ready);
                    if is_waited_for {
                        state.ready.push_back(Ready::Io(token, ready));
                    }
                }
                Some(Source::Signals(_)) => state.signalled = true,
                Some(_) => state.ready.push_back(Ready::Io(token, ready)),
                // The source has gone since the kernel noted the event.
                None => {}
            }
        }
        log::trace!("the poll brought {found} events");
        state.metrics.events += found;
        found > 0
    })
}
