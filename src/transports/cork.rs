//! Writes that wait for more of the same callback: for transports that were seen
//! to write several times in one, and for all in a turn that gathers writes
//! (`gathering`) or where the loop was asked to.
//!
//! What is corked leaves when the turn ends, all of it in a row: the code of the
//! kernel and that of the program then take each other's place in the caches
//! once per turn and not once per response, and a peer on the same machine is
//! woken once. After two milliseconds it leaves earlier: half of that cost aiohttp
//! and uvicorn 7 % of their requests per second, and waiting for more trades latency
//! for little.

use pyo3::prelude::*;
use tokioloop_reactor::clock;

use crate::event_loop::{Inside, This};
use crate::py::context;
use crate::report;
use crate::transports::read::Delivery;
use crate::transports::shape::StreamTransport;
use crate::transports::stream::Inner;
use crate::transports::write::flush;

/// Corked bytes that are worth a call of their own.
const CORK_LIMIT: usize = 64 * 1024;
/// A write of more bytes gains nothing from being joined with another.
const SMALL_WRITE: usize = 16 * 1024;
/// So many callbacks in a row have to write more than once before a transport
/// is corked; one lone write undoes it.
const CORK_SCORE: u8 = 2;
/// The score of transports whose loop was asked to join the writes of a turn.
pub(crate) const ALWAYS: u8 = u8::MAX;
/// Nanoseconds that a cork waits at most for the rest of its turn.
const CORK_NANOS: u64 = 2_000_000;

/// Learns how the protocol writes; whether this write waits for the next one
/// of the same callback, and with it for the end of the turn.
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

/// Keeps what was written for the end of the turn, unless there is enough
/// for a call of its own.
pub(crate) fn cork(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> PyResult<()> {
    let (length, high, first) = transport.with(inside, |inner| {
        let first = !std::mem::replace(&mut inner.state.corked, true);
        (inner.queue.len_bytes(), inner.marks.high(), first)
    });
    if first {
        keep_context(py, inside, transport)?;
        let held = transport.reference();
        inside.with(|state| {
            if state.corked.is_empty() {
                state.corked_at = clock::now();
            }
            state.corked.push(held);
        });
    }
    if length >= CORK_LIMIT || length > high || !this.event_loop.cell.is_running() {
        return flush(py, this, inside, transport);
    }
    Ok(())
}

/// Of a write that has to wait, or fails, the protocol hears in the context in which
/// it was made. asyncio's own for streams asks for no variable then.
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

/// A callback has returned while something is corked: send it if it has waited
/// long enough.
pub(crate) fn flush_overdue(py: Python<'_>, this: This<'_>, inside: &Inside<'_>) -> PyResult<()> {
    let asked_for = this.event_loop.options.write_batch_timeout;
    let limit = asked_for.filter(|nanos| *nanos > 0).unwrap_or(CORK_NANOS);
    let since = inside.with(|state| state.corked_at);
    if clock::now() - since < limit { Ok(()) } else { flush_corked(py, this, inside) }
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
        // What the program was told of may have made it write anew.
        inside.with(|state| std::mem::swap(&mut state.corked, &mut batch));
    }
    result
}

/// Sends what a cork holds back before something that must see it sent.
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
