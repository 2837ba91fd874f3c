//! The turn of the loop.
//!
//! Poll, queue what the poll found, queue what is due, run as many callbacks
//! as were queued by then, flush what they wrote. The turn behind one with events
//! does not poll where these have left something to run, nor do all of a chain of
//! short callbacks (`polling`); where a turn has received enough, the next ones take
//! up its events before they poll again (`backlog`).
//! The thread stays attached to the interpreter but for a poll that may block.

use std::sync::atomic::Ordering;

use pyo3::intern;
use pyo3::prelude::*;
use tokioloop_reactor::{Token, clock};

use crate::errors;
use crate::event_loop::native::This;
use crate::event_loop::polling::{self, Pace};
use crate::event_loop::{EventLoop, Inside, LoopState, Source, io, observer};
use crate::logging;
use crate::loop_cell::Refused;
use crate::py::{Owned, stop_iteration};
use crate::ready::Ready;
use crate::report;
use crate::sockets;
use crate::transports::stream::TransportRef;
use crate::transports::{accept, datagram, stream};

/// Runs turns until `stop` was asked for.
///
/// # Errors
/// What leaves the loop: `SystemExit`, `KeyboardInterrupt`, a failed poll.
pub(crate) fn run_until_stopping(event_loop: &Bound<'_, EventLoop>) -> PyResult<()> {
    let py = event_loop.py();
    let this = This::of(event_loop);
    let running =
        event_loop.get().cell.run(py).map_err(|error| errors::refused(error, "run_forever"))?;
    log::debug!("run begins");
    let nested = running.is_nested();
    if !nested {
        running.with(|state| state.metrics.start_run());
    }
    // Outside of `run_forever` nobody would ever ask to stop, and within a run of another
    // one's it is that one's to stop.
    let once = nested || !event_loop.get().is_running();
    let mut pace = Pace::default();
    let result = loop {
        if let Err(error) = turn(py, this, &running, &mut pace) {
            break Err(error);
        }
        if once || event_loop.get().stopping.load(Ordering::Relaxed) {
            break Ok(());
        }
    };
    if !nested {
        running.with(|state| state.metrics.end_run());
    }
    drop(running);
    event_loop.get().take_late_messages(py);
    log::debug!("run ends");
    stop_iteration::forget_caught(py);
    result.and(logging::deliver(py))
}

fn turn(py: Python<'_>, this: This<'_>, inside: &Inside<'_>, pace: &mut Pace) -> PyResult<()> {
    let result = poll_and_run(py, this, inside, pace);
    // Whatever ended the turn: what it wrote is sent.
    let corked = inside.with(|state| {
        state.gathering.leave();
        !state.corked.is_empty()
    });
    if corked {
        return result.and(stream::flush_corked(py, this, inside));
    }
    result
}

// HOT: call_soon, proto
#[inline(always)]
fn poll_and_run(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    pace: &mut Pace,
) -> PyResult<()> {
    let event_loop = this.event_loop;
    if event_loop.cell.is_disowned() {
        // A callback has forked, and this is the child: it would take its parent's events.
        return Err(errors::refused(Refused::Forked, "run_forever"));
    }
    if event_loop.inbox.has_pending() {
        event_loop.take_some_messages(py, inside);
    }
    if polling::must_poll(inside, pace) {
        polling::poll(py, this, inside, pace)?;
    }
    queue_timers(py, this, inside)?;
    let gathers = event_loop.options.write_batch_timeout.is_none();
    let (turn, due) = inside.with(|state| {
        state.metrics.turns += 1;
        let due = state.ready.len();
        state.left = state.backlog.begin(due);
        if gathers {
            state.gathering.begin(due);
        }
        (state.metrics.turns, due)
    });
    event_loop.observer.running(turn);
    if event_loop.observer.is_on() {
        observer::run_observed(py, this, inside)?;
    } else {
        while let Some(entry) = inside.with(|state| {
            state.left = state.left.checked_sub(1)?;
            state.ready.pop_front()
        }) {
            run_entry(py, this, inside, entry)?;
        }
        if inside.with(|state| state.backlog.is_on()) {
            run_rest(py, this, inside)?;
        }
    }
    if gathers {
        inside.with(|state| {
            // Of events that line up nobody knows how many of those due have run.
            if !state.backlog.is_on() {
                state.gathering.end(due);
            }
        });
    }
    Ok(())
}

/// Runs what is left of a turn in which events line up.
#[cold]
fn run_rest(py: Python<'_>, this: This<'_>, inside: &Inside<'_>) -> PyResult<()> {
    while let Some(entry) = inside.with(next_entry) {
        run_entry(py, this, inside, entry)?;
    }
    Ok(())
}

/// The next of what was due when the turn began, then of the events that earlier
/// turns have left.
pub(crate) fn next_entry(state: &mut LoopState) -> Option<Ready> {
    while state.left > 0 || state.backlog.left > 0 {
        let left = if state.left > 0 { &mut state.left } else { &mut state.backlog.left };
        *left -= 1;
        let entry = state.ready.pop_front()?;
        if let Some(entry) = state.backlog.line_up(entry) {
            return Some(entry);
        }
    }
    state.backlog.next()
}

/// Runs what Python and the program want done for the signals that came. It
/// does not wait for its turn: the handlers may have been waited for long.
pub(super) fn take_signals(py: Python<'_>, this: This<'_>, inside: &Inside<'_>) -> PyResult<()> {
    let position = inside.with(|state| {
        let token = state.signal_token?;
        let is_signal = |entry: &Ready| matches!(entry, Ready::Io(source, _) if *source == token);
        let position = state.ready.iter().position(is_signal)?;
        state.ready.remove(position);
        Some(token)
    });
    let Some(token) = position else { return Ok(()) };
    deliver_signals(py, this, inside, token)
}

#[cold]
fn deliver_signals(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    token: Token,
) -> PyResult<()> {
    let numbers = io::drain_signals(inside, token);
    log::debug!("signals {numbers:?} came");
    let this = this.bind(py);
    for number in numbers {
        this.call_method1(intern!(py, "_handle_signal"), (number,))?;
    }
    py.check_signals()
}

/// Moves the timers that are due behind what is ready.
#[inline]
fn queue_timers(py: Python<'_>, this: This<'_>, inside: &Inside<'_>) -> PyResult<()> {
    if inside.with(|state| state.timers.is_empty()) {
        return Ok(());
    }
    let now = if this.event_loop.custom_clock() {
        // The largest time that this clock has reached, within what it can tell apart.
        let resolution = this.bind(py).getattr(intern!(py, "_clock_resolution"))?;
        clock::reached(this.now(py)? + resolution.extract::<f64>()?)
    } else {
        clock::now()
    };
    inside.with(|state| {
        match state.timers.next_deadline() {
            Some(deadline) if deadline <= now => state.metrics.loop_lag.record(now - deadline),
            _ => return,
        }
        while let Some(handle) = state.timers.pop_due(now) {
            handle.get().set_timer(None);
            state.metrics.timers_fired += 1;
            state.ready.push_back(Ready::Handle(handle));
        }
    });
    Ok(())
}

// HOT: call_soon, proto
// Observed turns call it as well: without the attribute it would be no part of the
// plain turn any more, for some 30 instructions per message.
#[inline(always)]
pub(crate) fn run_entry(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    entry: Ready,
) -> PyResult<()> {
    inside.with(|state| {
        state.serial += 1;
        state.metrics.callbacks += 1;
    });
    match entry {
        Ready::Handle(handle) => {
            inside.with(|state| state.gathering.enter());
            if let Err(error) = handle.run(py) {
                report::callback_failed(py, &this.owned(py), &handle, error)?;
            }
            if handle.get().is_shared() {
                // Somebody keeps it, with all that it refers to.
                handle.get().track();
            }
        }
        Ready::Foreign(handle) => {
            inside.with(|state| state.gathering.enter());
            let handle = handle.bind(py);
            if !handle.getattr(intern!(py, "_cancelled"))?.is_truthy()? {
                handle.call_method0(intern!(py, "_run"))?;
            }
        }
        Ready::Io(token, ready) => {
            inside.with(|state| state.gathering.leave());
            serve_source(py, this, inside, token, ready)?;
        }
    }
    if inside.with(|state| !state.corked.is_empty()) {
        stream::flush_overdue(py, this, inside)?;
    }
    Ok(())
}

/// What an event turned out to belong to, held while it is served.
enum Found {
    Stream(TransportRef),
    Datagram(TransportRef<datagram::Inner>),
    Listener,
    Socket,
    Signals,
    /// It went away while the event waited for its turn.
    Nothing,
}

#[inline]
fn serve_source(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    token: Token,
    ready: tokioloop_reactor::Readiness,
) -> PyResult<()> {
    let found = inside.with(|state| match state.sources.get(token) {
        Some(Source::Stream(transport)) => Found::Stream(transport.clone_ref(py)),
        Some(Source::Datagram(transport)) => Found::Datagram(transport.clone_ref(py)),
        Some(Source::Listener(_)) => Found::Listener,
        Some(Source::Socket(_)) => Found::Socket,
        Some(Source::Signals(_)) => Found::Signals,
        _ => Found::Nothing,
    });
    match found {
        Found::Stream(transport) => stream::on_event(py, this, inside, &transport, ready)
            .or_else(|error| report::event_failed(py, &this.owned(py), transport.object(), error)),
        Found::Datagram(transport) => datagram::on_event(py, this, inside, &transport, ready)
            .or_else(|error| report::event_failed(py, &this.owned(py), transport.object(), error)),
        Found::Listener => accept::on_event(py, this, inside, token, ready),
        Found::Socket => sockets::on_event(py, inside, token, ready),
        Found::Signals => deliver_signals(py, this, inside, token),
        Found::Nothing => Ok(()),
    }
}

/// After a run nothing proves any longer that the loop is alive, so what it
/// holds must be within the collector's sight.
pub(crate) fn show_to_collector(py: Python<'_>, inside: &Inside<'_>) {
    let handles = inside.with(|state| {
        if !std::mem::take(&mut state.untracked) {
            return Vec::new();
        }
        let ready = state.ready.iter().filter_map(|entry| match entry {
            Ready::Handle(handle) => Some(handle),
            _ => None,
        });
        ready.chain(state.timers.iter()).map(|handle| handle.clone_ref(py)).collect()
    });
    for handle in &handles {
        handle.get().track();
    }
}

impl This<'_> {
    /// A reference that outlives the call.
    pub(crate) fn owned(&self, py: Python<'_>) -> Owned {
        Owned::from(&*self.bind(py))
    }
}
