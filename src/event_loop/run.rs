//! The turn of the loop.
//!
//! Poll, queue what the poll found, queue what is due, run as many callbacks
//! as were queued by then, flush what they wrote. Where a turn has received
//! enough, the next ones take up its events before they poll again (`backlog`).
//! The thread stays attached to the interpreter but for a poll that may block.

use std::sync::atomic::Ordering;

use pyo3::intern;
use pyo3::prelude::*;
use tokioloop_reactor::{Poller, Timeout, Token, clock};

use crate::errors;
use crate::event_loop::native::This;
use crate::event_loop::{EventLoop, Inside, LoopState, Source, io, observer};
use crate::logging;
use crate::py::detached::detached;
use crate::ready::Ready;
use crate::sockets;
use crate::transports::stream::TransportRef;
use crate::transports::{accept, datagram, stream};
use crate::{py::Owned, report};

/// Turns that may pass without a poll while callbacks keep coming and the last
/// poll found nothing; fewer where there is something that an event could be
/// for. asyncio polls in every turn.
const SKIPPED_POLLS: u32 = 64;
const SKIPPED_POLLS_WITH_SOURCES: u32 = 8;
/// Nanoseconds since the last poll after which a turn polls in any case.
const SKIP_NANOS: u64 = 20_000;
/// asyncio's longest wait (a day), in seconds; only a custom clock needs it.
const MAXIMUM_WAIT: f64 = 24.0 * 3600.0;

/// What a run remembers between turns.
struct Pace {
    /// Turns since the last poll.
    skipped: u32,
    /// Whether the last poll found nothing.
    quiet: bool,
    polled_at: u64,
}

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
    running.with(|state| state.metrics.start_run());
    // Outside of `run_forever` nobody would ever ask to stop.
    let once = !event_loop.get().is_running();
    let mut pace = Pace { skipped: 0, quiet: false, polled_at: 0 };
    let result = loop {
        if let Err(error) = turn(py, this, &running, &mut pace) {
            break Err(error);
        }
        if once || event_loop.get().stopping.load(Ordering::Relaxed) {
            break Ok(());
        }
    };
    running.with(|state| state.metrics.end_run());
    drop(running);
    event_loop.get().take_late_messages(py);
    log::debug!("run ends");
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
    if event_loop.inbox.has_pending() {
        event_loop.take_some_messages(py, inside);
    }
    if must_poll(inside, pace) {
        poll(py, this, inside, pace)?;
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
        observer::run_measured(py, this, inside)?;
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

/// Whether this turn looks for events. A chain of callbacks need not pay a
/// system call for each while nothing happens outside.
#[inline]
fn must_poll(inside: &Inside<'_>, pace: &mut Pace) -> bool {
    if inside.with(|state| !state.backlog.is_empty()) {
        // What the last poll has found comes first, but not for ever: those who
        // read it may keep the backlog filled.
        pace.skipped += 1;
        return pace.skipped > SKIPPED_POLLS_WITH_SOURCES;
    }
    let (must, limit) = inside.with(|state| {
        let own = usize::from(state.signal_token.is_some());
        let sources = state.sources.len() > own;
        let limit = if sources { SKIPPED_POLLS_WITH_SOURCES } else { SKIPPED_POLLS };
        (state.ready.is_empty() || state.registered, limit)
    });
    if must || !pace.quiet || pace.skipped >= limit {
        return true;
    }
    pace.skipped += 1;
    clock::now() - pace.polled_at > SKIP_NANOS
}

fn poll(py: Python<'_>, this: This<'_>, inside: &Inside<'_>, pace: &mut Pace) -> PyResult<()> {
    logging::deliver(py)?;
    if inside.with(|state| !state.corked.is_empty()) {
        // A callback runs the loop, or a handler of the log writes: nothing that
        // was written may wait for what it brings about.
        stream::flush_corked(py, this, inside)?;
    }
    let event_loop = this.event_loop;
    let mut timeout = timeout(py, this, inside)?;
    let parked = timeout != Timeout::Now;
    if parked && !event_loop.inbox.park(py) {
        timeout = Timeout::Now;
    }
    let Some(mut poller) = inside.with(|state| state.poller.take()) else {
        return Err(errors::closed());
    };
    let started = if parked { clock::now() } else { 0 };
    if parked {
        event_loop.observer.waiting(inside.with(|state| state.metrics.turns));
    }
    let result = match timeout {
        Timeout::Now => poller.wait(Timeout::Now),
        _ => detached(py, || wait(event_loop, &mut poller, timeout)),
    };
    if parked {
        event_loop.inbox.unpark();
    }
    let now = if parked { clock::now() } else { started };
    let found = result.is_ok() && queue_events(py, inside, &poller);
    inside.with(|state| {
        state.poller = Some(poller);
        state.registered = false;
        state.metrics.polls += 1;
        if parked {
            state.metrics.blocking_polls += 1;
            state.metrics.polling += now - started;
        }
    });
    if parked {
        log::debug!("woke after {} us", (now - started) / 1000);
    }
    logging::deliver(py)?;
    pace.skipped = 0;
    pace.quiet = !found;
    if pace.quiet {
        pace.polled_at = if parked { now } else { clock::now() };
    }
    if parked && event_loop.inbox.has_pending() {
        event_loop.take_some_messages(py, inside);
    }
    match result {
        Ok(()) => take_signals(py, this, inside),
        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
            py.check_signals()?;
            take_signals(py, this, inside)
        }
        Err(error) => Err(errors::os_error(py, &error)),
    }
}

/// Waits detached, spinning first where the loop was asked to.
fn wait(event_loop: &EventLoop, poller: &mut Poller, timeout: Timeout) -> std::io::Result<()> {
    let spin = event_loop.options.busy_poll;
    if spin > 0 {
        let mut until = clock::now() + spin;
        if let Timeout::At(deadline) = timeout {
            until = until.min(deadline);
        }
        loop {
            poller.wait(Timeout::Now)?;
            let found = !poller.is_quiet() || event_loop.inbox.has_pending();
            if found || clock::now() >= until {
                if found {
                    return Ok(());
                }
                break;
            }
            std::hint::spin_loop();
        }
    }
    poller.wait(timeout)
}

/// How long the poll may block.
#[inline]
fn timeout(py: Python<'_>, this: This<'_>, inside: &Inside<'_>) -> PyResult<Timeout> {
    let busy = inside.with(|state| !state.ready.is_empty() || !state.backlog.is_empty());
    if busy || this.event_loop.stopping.load(Ordering::Relaxed) {
        return Ok(Timeout::Now);
    }
    match inside.with(|state| state.timers.next_deadline()) {
        None | Some(u64::MAX) => Ok(Timeout::Never),
        Some(deadline) if !this.event_loop.custom_clock() => Ok(Timeout::At(deadline)),
        Some(deadline) => {
            // The deadline counts on another clock: wait for the difference.
            let left = (clock::to_seconds(deadline) - this.now(py)?).clamp(0.0, MAXIMUM_WAIT);
            let nanos = (left * 1e9) as u64;
            Ok(if nanos == 0 { Timeout::Now } else { Timeout::At(clock::now() + nanos) })
        }
    }
}

/// Queues what the poll found; whether it found anything.
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
                Some(_) => state.ready.push_back(Ready::Io(token, ready)),
                // It went away after the kernel had noted the event.
                None => {}
            }
        }
        log::trace!("the poll brought {found} events");
        state.metrics.events += found;
        found > 0
    })
}

/// Runs what Python and the program want done for the signals that came. It
/// does not wait for its turn: the handlers may have been waited for long.
fn take_signals(py: Python<'_>, this: This<'_>, inside: &Inside<'_>) -> PyResult<()> {
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
        // The largest time that this clock has reached.
        let reached = this.now(py)?;
        clock::reached(reached)
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
// Measured turns call it as well: without the attribute it would be no part of the
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
            let result = if this.event_loop.debug() {
                run_watched(py, this, &handle)
            } else {
                handle.run(py)
            };
            if let Err(error) = result {
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
        Found::Stream(transport) => stream::on_event(py, this, inside, &transport, ready),
        Found::Datagram(transport) => datagram::on_event(py, this, inside, &transport, ready),
        Found::Listener => accept::on_event(py, this, inside, token, ready),
        Found::Socket => sockets::on_event(py, inside, token, ready),
        Found::Signals => deliver_signals(py, this, inside, token),
        Found::Nothing => Ok(()),
    }
}

/// Debug mode measures each callback.
#[cold]
fn run_watched(py: Python<'_>, this: This<'_>, handle: &crate::handle::HandleRef) -> PyResult<()> {
    let started = clock::now();
    let result = handle.run(py);
    let duration = clock::to_seconds(clock::now() - started);
    let event_loop = this.bind(py);
    let limit = event_loop.getattr("slow_callback_duration")?.extract::<f64>()?;
    if duration >= limit {
        event_loop.call_method1("_report_slow_callback", (handle.object().bind(py), duration))?;
    }
    result
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
