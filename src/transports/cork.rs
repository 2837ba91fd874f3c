//! Corking: small writes are held back so that one call per connection sends
//! them when the turn ends.
//!
//! A write is corked if its protocol has lately written more than once per callback,
//! if a scheduled callback of a crowded turn makes it (`gathering`), or if the loop
//! has `write_batch_timeout`.
//!
//! Sending all corked writes in a row displaces the program's code from the caches
//! once per turn instead of once per response, and wakes a peer on the same machine
//! once. After `CORK_NANOS` they leave at the end of the running callback, unless the
//! turn is about to end. Half of those nanoseconds cost aiohttp and uvicorn 7 % of their
//! requests per second; more would only add latency.

use pyo3::prelude::*;
use tokioloop_reactor::clock;

use crate::event_loop::{Inside, This};
use crate::py::context;
use crate::report;
use crate::transports::flush::flush;
use crate::transports::read::Delivery;
use crate::transports::shape::StreamTransport;
use crate::transports::stream::Inner;

/// Corked bytes of one transport that are worth a call of their own.
const CORK_LIMIT: usize = 64 * 1024;
/// A write of this many bytes gains nothing from being joined with another.
const SMALL_WRITE: usize = 16 * 1024;
/// Callbacks in a row that must write more than once before a transport is corked;
/// one lone write resets the count.
const CORK_SCORE: u8 = 2;
/// The score of transports whose loop has `write_batch_timeout`.
pub(crate) const ALWAYS: u8 = u8::MAX;
/// Nanoseconds that corked writes wait for the rest of the turn; twice as many if it is
/// about to end.
const CORK_NANOS: u64 = 2_000_000;

/// Learns how the protocol writes. True if this write is to be corked, which only
/// the first of a callback begins; later ones join the queue of a corked transport.
// HOT: proto
#[inline]
pub(crate) fn note_write(inner: &mut Inner, serial: u64, gathers: bool, length: usize) -> bool {
    if inner.write_serial != serial {
        if inner.writes_in_callback == 1 && inner.cork_score != ALWAYS {
            inner.cork_score = 0;
        }
        inner.write_serial = serial;
        inner.writes_in_callback = 1;
        return (gathers || inner.cork_score >= CORK_SCORE) && length < SMALL_WRITE;
    }
    if inner.writes_in_callback == 1 && length < SMALL_WRITE && inner.cork_score < CORK_SCORE {
        inner.cork_score += 1;
    }
    inner.writes_in_callback = 2;
    false
}

/// Keeps what was written for the end of the turn. Sends it at once if there is
/// enough of it, or if the loop does not run.
pub(crate) fn cork(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> PyResult<()> {
    if !transport.with(inside, |inner| inner.state.corked) {
        keep_context(py, inside, transport)?;
        let held = transport.reference();
        let unused = inside.with(|state| {
            // The context that was replaced may have run code that wrote and corked.
            if transport.with(inside, |inner| std::mem::replace(&mut inner.state.corked, true)) {
                return Some(held);
            }
            if state.corked.is_empty() {
                state.corked_at = clock::now();
            }
            state.corked.push(held);
            None
        });
        drop(unused);
    }
    let (length, high) =
        transport.with(inside, |inner| (inner.queue.len_bytes(), inner.marks.high()));
    if length >= CORK_LIMIT || length > high || !this.event_loop.cell.is_running() {
        return flush(py, this, inside, transport);
    }
    Ok(())
}

/// Keeps the context of the first corked write: if it blocks or fails, the protocol is
/// told in that context. asyncio's stream protocol reads no context variables there.
// HOT: stream
#[inline]
fn keep_context(py: Python<'_>, inside: &Inside<'_>, transport: &StreamTransport) -> PyResult<()> {
    if transport.with(inside, |inner| inner.delivery == Delivery::Stream) {
        return Ok(());
    }
    let context = context::copy_current(py)?;
    let old = transport.with(inside, |inner| inner.write_context.replace(context));
    drop(old);
    Ok(())
}

/// Sends what is corked if it has waited long enough. Called when a callback has
/// returned.
pub(crate) fn flush_overdue(py: Python<'_>, this: This<'_>, inside: &Inside<'_>) -> PyResult<()> {
    let asked_for = this.event_loop.options.write_batch_timeout;
    let limit = asked_for.filter(|nanos| *nanos > 0).unwrap_or(CORK_NANOS);
    let waited = clock::now() - inside.with(|state| state.corked_at);
    if waited < limit || (asked_for.is_none() && turn_ends_in_time(inside, waited)) {
        return Ok(());
    }
    flush_corked(py, this, inside)
}

/// Whether the turn will probably end before corked writes have waited for twice
/// `CORK_NANOS`. Sending twice in a turn splits its connections: their next requests come
/// in two crowds, and each wakes the peer.
fn turn_ends_in_time(inside: &Inside<'_>, waited: u64) -> bool {
    let Some(rest) = (2 * CORK_NANOS).checked_sub(waited) else { return false };
    inside.with(|state| state.backlog.is_empty() && state.gathering.ends_within(state.left, rest))
}

/// Sends what is corked, with one call for each transport, in the order of
/// their first writes.
pub(crate) fn flush_corked(py: Python<'_>, this: This<'_>, inside: &Inside<'_>) -> PyResult<()> {
    let mut result = Ok(());
    let mut batch = inside.with(|state| std::mem::take(&mut state.corked));
    while !batch.is_empty() {
        for transport in batch.drain(..) {
            let object = transport.get();
            let waits = object.with(inside, |inner| {
                if !inner.state.corked {
                    return false;
                }
                if inner.queue.only().is_some() && inner.cork_score != ALWAYS {
                    // A lone write: it need not have waited.
                    inner.cork_score = 0;
                }
                true
            });
            if waits {
                let flushed = flush(py, this, inside, object).or_else(|error| {
                    report::event_failed(py, &this.owned(py), transport.object(), error)
                });
                result = result.and(flushed);
            }
        }
        // The protocols that were told of failures or room may have written again.
        inside.with(|state| std::mem::swap(&mut state.corked, &mut batch));
    }
    result
}

/// Sends the transport's corked writes now, before an operation that must come after
/// them.
pub(crate) fn uncork(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> PyResult<()> {
    if transport.with(inside, |inner| inner.state.corked) {
        flush(py, this, inside, transport)?;
    }
    Ok(())
}
