//! The turn of the loop.
//!
//! A turn polls, queues what the poll found, queues the timers that are due, runs as
//! many callbacks as were queued by then, and sends what they wrote. It does not poll
//! if the turn before had events that left something to run, nor always in a chain of
//! short callbacks (`polling`). After a turn that has received enough, the next ones
//! serve its remaining events before they poll again (`backlog`).
//! The thread stays attached to the interpreter except in a poll that may block.

use std::sync::atomic::Ordering;

use pyo3::intern;
use pyo3::prelude::*;
use tokioloop_reactor::{Readiness, Token, clock};

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
/// Exceptions that end the run (`SystemExit`, `KeyboardInterrupt`); a failed poll.
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
    // Who calls `_run_once` elsewhere than in `TokioLoop.run_forever` has something to do
    // between two turns.
    let once = nested || !event_loop.get().whole_runs.load(Ordering::Relaxed);
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
    // Send what the turn wrote, even if an exception has ended it.
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
            // If events were postponed, it is unknown how many of the due entries ran.
            if !state.backlog.is_on() {
                state.gathering.end(due);
            }
        });
    }
    Ok(())
}

/// Runs the rest of a turn in which events are postponed.
#[cold]
fn run_rest(py: Python<'_>, this: This<'_>, inside: &Inside<'_>) -> PyResult<()> {
    while let Some(entry) = inside.with(next_entry) {
        run_entry(py, this, inside, entry)?;
    }
    Ok(())
}

/// The next entry of those that were due when the turn began, then of the postponed
/// events.
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

/// Handles the signals that have arrived, before everything that is queued: they may
/// have waited long already.
pub(super) fn take_signals(py: Python<'_>, this: This<'_>, inside: &Inside<'_>) -> PyResult<()> {
    let signalled = inside.with(|state| std::mem::take(&mut state.signalled));
    if signalled { deliver_signals(py, this, inside) } else { Ok(()) }
}

#[cold]
fn deliver_signals(py: Python<'_>, this: This<'_>, inside: &Inside<'_>) -> PyResult<()> {
    let result = call_signal_handlers(py, this, inside);
    if result.is_err() {
        // The edge has been taken, but what is left, here or in the pipe, is for the next run.
        inside.with(|state| state.signalled = true);
    }
    result
}

fn call_signal_handlers(py: Python<'_>, this: This<'_>, inside: &Inside<'_>) -> PyResult<()> {
    // The program's own handlers come first, as in asyncio, and may raise KeyboardInterrupt.
    py.check_signals()?;
    io::drain_signals(inside);
    while let Some(number) = inside.with(|state| state.signals.pop_front()) {
        log::debug!("signal {number} came");
        if let Err(error) = this.bind(py).call_method1(intern!(py, "_handle_signal"), (number,)) {
            if report::leaves_loop(py, &error) {
                // An interrupt on the way to the handler: it may not have been scheduled.
                inside.with(|state| state.signals.push_front(number));
            }
            return Err(error);
        }
    }
    py.check_signals()
}

/// Moves the timers that are due to the end of the ready queue.
#[inline]
fn queue_timers(py: Python<'_>, this: This<'_>, inside: &Inside<'_>) -> PyResult<()> {
    if inside.with(|state| state.timers.is_empty()) {
        return Ok(());
    }
    let now = if this.event_loop.custom_clock() {
        // As in asyncio, a timer is due if it is within the clock's resolution.
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
// Inlined by force: observed turns call it as well, so the compiler would make it a
// function, which costs the plain turn some 30 instructions per message.
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
                // Somebody keeps the handle, and with it all that it refers to.
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

/// What an event belongs to, held while it is served.
enum Found {
    Stream(TransportRef),
    Datagram(TransportRef<datagram::Inner>),
    Listener,
    Socket,
    Watch,
    /// The source has gone while the event was queued. The pipe of signals queues none.
    Nothing,
}

#[inline]
fn serve_source(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    token: Token,
    ready: Readiness,
) -> PyResult<()> {
    let found = inside.with(|state| match state.sources.get(token) {
        Some(Source::Stream(transport)) => Found::Stream(transport.clone_ref(py)),
        Some(Source::Datagram(transport)) => Found::Datagram(transport.clone_ref(py)),
        Some(Source::Listener(_)) => Found::Listener,
        Some(Source::Socket(_)) => Found::Socket,
        Some(Source::Watch(_)) => Found::Watch,
        Some(Source::Signals(_)) | None => Found::Nothing,
    });
    match found {
        Found::Stream(transport) => stream::on_event(py, this, inside, &transport, ready)
            .or_else(|error| report::event_failed(py, &this.owned(py), transport.object(), error)),
        Found::Datagram(transport) => datagram::on_event(py, this, inside, &transport, ready)
            .or_else(|error| report::event_failed(py, &this.owned(py), transport.object(), error)),
        Found::Listener => accept::on_event(py, this, inside, token, ready),
        Found::Socket => sockets::on_event(py, inside, token, ready),
        Found::Watch => {
            io::remove_cancelled(inside, token);
            Ok(())
        }
        Found::Nothing => Ok(()),
    }
}

/// Makes the queued handles known to the collector. During a run the loop is certain
/// to be alive; afterwards it may be garbage, in a cycle with what it holds.
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
