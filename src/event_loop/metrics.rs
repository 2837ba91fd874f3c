//! What a loop counts: plain numbers that its own thread adds to.
//!
//! Counters and the lateness of timers are always kept: the loop takes the clock
//! readings that they need anyway. Durations of callbacks and turns need readings
//! of their own and are kept only while somebody observes.

use std::ops::AddAssign;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokioloop_reactor::clock;

use crate::event_loop::{EventLoop, Inside, Source};
use crate::transports::interior::Interior;
use crate::transports::stream::TransportRef;

/// Upper bounds of the buckets in nanoseconds, a 1-2-5 series from a
/// microsecond to ten seconds; one more bucket takes what is longer.
const BOUNDS: [u64; 22] = [
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// A count that its loop's thread adds to.
///
/// `RUSTFLAGS="--cfg tokioloop_uncounted"` builds a loop that keeps none of
/// these, to measure what counting costs (`make metrics-cost`).
#[derive(Default, Clone, Copy)]
pub(crate) struct Counter(u64);

impl AddAssign<u64> for Counter {
    #[inline]
    fn add_assign(&mut self, more: u64) {
        if cfg!(not(tokioloop_uncounted)) {
            self.0 += more;
        }
    }
}

/// Counts since the loop was made.
#[derive(Default, Clone)]
pub(crate) struct Metrics {
    pub(crate) turns: u64,
    pub(crate) polls: Counter,
    pub(crate) blocking_polls: Counter,
    /// How often a wait spun before sleeping.
    pub(crate) looks: Counter,
    pub(crate) events: Counter,
    pub(crate) callbacks: Counter,
    pub(crate) timers_fired: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) messages_received: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) messages_sent: Counter,
    pub(crate) accepted: Counter,
    /// Nanoseconds in blocking polls.
    pub(crate) polling: Counter,
    /// Nanoseconds of the runs that have ended.
    ran: u64,
    /// When the run under way began.
    run_started: Option<u64>,
    /// How late the earliest timer of a turn was.
    pub(crate) loop_lag: Histogram,
    /// While observed: from the start of a callback to its end.
    pub(crate) callback_duration: Histogram,
    /// While observed: all callbacks of a turn. An event that arrives meanwhile waits
    /// up to that long, or longer if events are postponed (`backlog`).
    pub(crate) turn_duration: Histogram,
}

impl Metrics {
    /// A run begins.
    pub(crate) fn start_run(&mut self) {
        self.run_started = Some(clock::now());
    }

    /// The run has ended.
    pub(crate) fn end_run(&mut self) {
        if let Some(started) = self.run_started.take() {
            self.ran += clock::now() - started;
        }
    }

    fn running(&self) -> u64 {
        self.ran + self.run_started.map_or(0, |started| clock::now() - started)
    }
}

/// Counts of durations in fixed buckets.
#[derive(Default, Clone)]
pub(crate) struct Histogram {
    counts: [u64; BOUNDS.len() + 1],
    sum: u64,
    longest: u64,
}

impl Histogram {
    /// Counts a duration in nanoseconds.
    pub(crate) fn record(&mut self, nanos: u64) {
        let bucket = BOUNDS.partition_point(|&bound| bound < nanos);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += nanos;
        self.longest = self.longest.max(nanos);
    }

    fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let histogram = PyDict::new(py);
        histogram.set_item("bounds", BOUNDS.map(clock::to_seconds))?;
        histogram.set_item("counts", self.counts)?;
        histogram.set_item("count", self.counts.iter().sum::<u64>())?;
        histogram.set_item("sum", clock::to_seconds(self.sum))?;
        histogram.set_item("max", clock::to_seconds(self.longest))?;
        Ok(histogram)
    }
}

/// What is open, counted when it is asked for.
#[derive(Default)]
struct Open {
    connections: usize,
    endpoints: usize,
    listeners: usize,
    watches: usize,
    queued: usize,
}

/// Bytes that wait to be sent.
fn queued<I: Interior>(inside: &Inside<'_>, transports: &[TransportRef<I>]) -> usize {
    let size =
        |transport: &TransportRef<I>| transport.get().with(inside, |inner| inner.flow().size);
    transports.iter().map(size).sum()
}

/// The figures of a loop by name; `docs/observability.md` lists them.
#[pyfunction]
pub(crate) fn metrics<'py>(event_loop: &Bound<'py, EventLoop>) -> PyResult<Bound<'py, PyDict>> {
    let py = event_loop.py();
    let inside = event_loop.get().enter(py, "metrics")?;
    let (figures, timers, ready, mut open, streams, endpoints) = inside.with(|state| {
        let mut open = Open::default();
        let mut streams = Vec::new();
        let mut endpoints = Vec::new();
        for source in state.sources.iter() {
            match source {
                Source::Stream(transport) => streams.push(transport.clone_ref(py)),
                Source::Datagram(transport) => endpoints.push(transport.clone_ref(py)),
                Source::Listener(_) => open.listeners += 1,
                Source::Watch(_) => open.watches += 1,
                // A socket that is only kept between two calls counts as not watched.
                Source::Socket(kept) => open.watches += usize::from(!kept.is_idle()),
                Source::Signals(_) => {}
            }
        }
        let (timers, ready) = (state.timers.len(), state.ready.len() + state.backlog.len());
        (state.metrics.clone(), timers, ready, open, streams, endpoints)
    });
    open.connections = streams.len();
    open.endpoints = endpoints.len();
    open.queued = queued(&inside, &streams) + queued(&inside, &endpoints);
    let dict = PyDict::new(py);
    for (name, value) in [
        ("turns", figures.turns),
        ("polls", figures.polls.0),
        ("blocking_polls", figures.blocking_polls.0),
        ("looks", figures.looks.0),
        ("events", figures.events.0),
        ("callbacks", figures.callbacks.0),
        ("timers_fired", figures.timers_fired.0),
        ("thread_waits", event_loop.get().backpressure.waits()),
        ("connections_accepted", figures.accepted.0),
        ("bytes_received", figures.bytes_received.0),
        ("messages_received", figures.messages_received.0),
        ("bytes_sent", figures.bytes_sent.0),
        ("messages_sent", figures.messages_sent.0),
        ("connections_open", open.connections as u64),
        ("endpoints_open", open.endpoints as u64),
        ("listeners_open", open.listeners as u64),
        ("watches_open", open.watches as u64),
        ("bytes_queued", open.queued as u64),
        ("timers_scheduled", timers as u64),
        ("callbacks_ready", ready as u64),
    ] {
        dict.set_item(name, value)?;
    }
    let running = figures.running();
    for (name, nanos) in [
        ("running_seconds", running),
        ("polling_seconds", figures.polling.0),
        ("busy_seconds", running.saturating_sub(figures.polling.0)),
    ] {
        dict.set_item(name, clock::to_seconds(nanos))?;
    }
    dict.set_item("loop_lag_seconds", figures.loop_lag.to_python(py)?)?;
    dict.set_item("callback_duration_seconds", figures.callback_duration.to_python(py)?)?;
    dict.set_item("turn_duration_seconds", figures.turn_duration.to_python(py)?)?;
    dict.set_item("detailed", event_loop.get().observer.is_measuring())?;
    Ok(dict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_takes_what_is_not_longer_than_its_bound() {
        let mut histogram = Histogram::default();
        for nanos in [0, 1_000, 1_001, 10_000_000_000, u64::MAX / 2] {
            histogram.record(nanos);
        }
        assert_eq!(histogram.counts.first(), Some(&2));
        assert_eq!(histogram.counts.get(1), Some(&1));
        assert_eq!(histogram.counts.get(BOUNDS.len() - 1), Some(&1));
        assert_eq!(histogram.counts.last(), Some(&1));
        assert_eq!(histogram.longest, u64::MAX / 2);
    }

    #[test]
    fn bounds_rise() {
        assert!(BOUNDS.is_sorted_by(|a, b| a < b));
    }
}
