//! The read path: from a readable event to `data_received` or `buffer_updated`.

use pyo3::intern;
use pyo3::prelude::*;
use tokioloop_reactor::stream::{self, Received};
use tokioloop_reactor::{READ_RING_BYTES, Readiness};

use crate::errors::{self, Failed};
use crate::event_loop::{Inside, LoopState, This};
use crate::imports::Imports;
use crate::py::message::{Filling, Message};
use crate::py::{call, context};
use crate::ready::Ready;
use crate::transports::batch::hold_back;
use crate::transports::buffered::receive_buffered;
use crate::transports::records::Records;
use crate::transports::shape::StreamTransport;
use crate::transports::stream::{Inner, TransportRef};
use crate::transports::{batch, close, debug_log, records};
use crate::{streams, tls};

/// Most bytes that one `data_received` gets, as in asyncio.
pub(crate) const MAX_DELIVERY: usize = 256 * 1024;
/// Reads that are expected to bring more bytes go straight into an object of their
/// own; smaller ones are cheaper to receive into the ring and copy.
const LARGE_READ: u32 = 32 * 1024;
/// The same if the protocol lets go of what it gets: its memory is used again, so
/// nothing is allocated.
const LARGE_READ_REUSED: u32 = 8 * 1024;

/// How a protocol takes data, decided when the protocol is set. Its method is looked
/// up for each delivery, as in asyncio: a protocol may assign itself another one.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// `Protocol`, or an object with no method for data at all, which fails when data
    /// comes, as in asyncio.
    #[default]
    Data,
    /// asyncio's own `StreamReaderProtocol`.
    Stream,
    /// An `SSLProtocol` with the native data path of `tls`, which takes ciphertext.
    Records,
    /// `BufferedProtocol`.
    Buffer,
}

impl Delivery {
    /// How a protocol wants its data.
    ///
    /// # Errors
    /// What Python raises while the protocol is inspected.
    pub(crate) fn of(py: Python<'_>, protocol: &Bound<'_, PyAny>) -> PyResult<Self> {
        if tls::is_records_protocol(protocol)? {
            return Ok(Self::Records);
        }
        if protocol.is_instance(Imports::get(py)?.buffered_protocol.bind(py))? {
            return Ok(Self::Buffer);
        }
        if streams::is_stream_protocol(protocol)? {
            streams::upgrade(protocol)?;
            return Ok(Self::Stream);
        }
        Ok(Self::Data)
    }
}

/// What to do with a readable transport.
enum Plan {
    Receive,
    Records,
    Buffer,
    Nothing,
}

/// What one receive brought, for the protocol.
pub(crate) enum Incoming {
    Data(Message),
    /// For the session of a TLS protocol.
    Records(Records),
    Eof,
    Nothing,
}

/// A readable event, or the rest of one.
// HOT: proto
#[inline]
pub(crate) fn on_readable(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
    hidden: bool,
) -> PyResult<()> {
    let object = transport.get();
    let plan = object.with(inside, |inner| plan(inner, hidden));
    match plan {
        Plan::Receive | Plan::Records => {}
        Plan::Buffer => return receive_buffered(py, this, inside, transport),
        Plan::Nothing => return Ok(()),
    }
    let records = matches!(plan, Plan::Records);
    let incoming = if records {
        records::receive(py, inside, transport)
    } else {
        inside.with(|state| object.with(inside, |inner| receive(py, state, inner)))
    };
    match incoming {
        Ok(Incoming::Records(ciphertext)) => {
            records::deliver(py, this, inside, transport, ciphertext)
        }
        Ok(Incoming::Data(data)) if records => {
            records::deliver_message(py, this, inside, transport, data)
        }
        Ok(Incoming::Data(data)) if this.event_loop.options.batches() => {
            hold_back(py, this, inside, transport, data.content())
        }
        Ok(Incoming::Data(data)) => deliver(py, this, inside, transport, data),
        Ok(Incoming::Eof) => end_of_file(py, this, inside, transport),
        Ok(Incoming::Nothing) => Ok(()),
        Err(failed) if this.event_loop.options.batches() => {
            batch::fail_behind_batch(py, this, inside, transport, failed)
        }
        Err(failed) => close::read_failed(py, this, inside, transport, failed),
    }
}

#[inline]
fn plan(inner: &mut Inner, hidden: bool) -> Plan {
    let state = &mut inner.state;
    state.read_queued = false;
    state.hidden |= hidden;
    if state.closing || state.read_ended || inner.lost > 0 || !state.started {
        return Plan::Nothing;
    }
    state.readable = true;
    if state.paused {
        return Plan::Nothing;
    }
    match inner.delivery {
        Delivery::Buffer => Plan::Buffer,
        Delivery::Records => Plan::Records,
        _ => Plan::Receive,
    }
}

/// Receives once: into the ring if the message is expected to be small, else into an
/// object of its own. Allocating a `bytes` object runs no Python code, so the body of
/// `with` may do it.
// HOT: proto
// TLS calls it as well; `write::write` says why the attribute is needed.
#[inline(always)]
pub(crate) fn receive(
    py: Python<'_>,
    state: &mut LoopState,
    inner: &mut Inner,
) -> Result<Incoming, Failed> {
    let Some(fd) = inner.fd() else { return Ok(Incoming::Nothing) };
    let large = if inner.state.keeps { LARGE_READ } else { LARGE_READ_REUSED };
    if inner.expected > large {
        return receive_large(py, state, inner);
    }
    let Some(ring) = &mut state.ring else { return Ok(Incoming::Nothing) };
    let hidden = inner.state.hidden;
    let length = match stream::receive(fd, inner.kind, hidden, ring.space())? {
        Received::Data { length, drained } => {
            inner.state.readable = !drained;
            length
        }
        Received::Eof => return Ok(Incoming::Eof),
        Received::Blocked => {
            inner.state.readable = false;
            return Ok(Incoming::Nothing);
        }
    };
    state.metrics.bytes_received += length as u64;
    state.metrics.messages_received += 1;
    inner.expected = length as u32;
    // SAFETY: the kernel has just written `length` bytes to the front of the ring.
    #[allow(unsafe_code)]
    let filled = unsafe { ring.filled(length) };
    if length == READ_RING_BYTES {
        // A full ring means that more waits: both are joined into one delivery.
        let mut large = state.spare.filling(py, MAX_DELIVERY)?;
        large.begin_with(filled);
        return fill(py, state, inner, large, length);
    }
    let data = state.spare.copy(py, filled, inner.state.keeps)?;
    if inner.state.readable {
        requeue(state, inner);
    }
    Ok(Incoming::Data(data))
}

/// Receives a message that is expected to be large without a copy.
fn receive_large(
    py: Python<'_>,
    state: &mut LoopState,
    inner: &mut Inner,
) -> Result<Incoming, Failed> {
    // With slack, a read that takes everything is a short one, which shows that nothing
    // is left.
    let capacity = (inner.expected as usize + 1).next_power_of_two().min(MAX_DELIVERY);
    let large = state.spare.filling(py, capacity)?;
    fill(py, state, inner, large, 0)
}

/// Receives into an object after its first `start` bytes, which are set already, and
/// finishes it.
fn fill(
    py: Python<'_>,
    state: &mut LoopState,
    inner: &mut Inner,
    mut large: Filling,
    start: usize,
) -> Result<Incoming, Failed> {
    let Some(fd) = inner.fd() else { return Ok(Incoming::Nothing) };
    let hidden = inner.state.hidden;
    let mut length = start;
    match stream::receive(fd, inner.kind, hidden, large.space(start)) {
        Ok(Received::Data { length: more, drained }) => {
            length += more;
            inner.state.readable = !drained;
            state.metrics.bytes_received += more as u64;
        }
        Ok(Received::Blocked) => inner.state.readable = false,
        // The next read returns the end again.
        Ok(Received::Eof) if start > 0 => inner.state.readable = true,
        Err(error) if start > 0 => batch::keep_failure(inner, error),
        Ok(Received::Eof) => return Ok(Incoming::Eof),
        Err(error) => return Err(error.into()),
    }
    if start == 0 {
        state.metrics.messages_received += 1;
    }
    // A full read was part of a larger message. After a short one the expectation falls
    // slowly, since messages sometimes arrive in two parts.
    inner.expected = if inner.state.readable {
        (2 * length).min(MAX_DELIVERY) as u32
    } else {
        (length as u32).max(inner.expected - inner.expected / 8)
    };
    if inner.state.readable {
        requeue(state, inner);
    }
    if length == 0 {
        return Ok(Incoming::Nothing);
    }
    // SAFETY: the caller has set the first `start` bytes, the kernel those up to `length`.
    #[allow(unsafe_code)]
    let data = unsafe { state.spare.finish(py, large, length, inner.state.keeps)? };
    Ok(Incoming::Data(data))
}

/// Queues another read for the next turn: the edge has been taken, but not all the data
/// that it announced.
pub(crate) fn requeue(state: &mut LoopState, inner: &mut Inner) {
    if let Some(token) = inner.token.filter(|_| !inner.state.read_queued) {
        inner.state.read_queued = true;
        state.ready.push_back(Ready::Io(token, Readiness::AGAIN));
    }
}

/// Repeats a read whose result the protocol was not told of, mostly because an exception
/// ends the run. The loop may run again, and asyncio's poll would report the socket until
/// the protocol has been served.
#[cold]
pub(crate) fn read_again(inside: &Inside<'_>, transport: &TransportRef) {
    inside.with(|state| {
        transport.get().with(inside, |inner| {
            inner.state.readable = true;
            requeue(state, inner);
        });
    });
}

/// Hands a message to the protocol, and takes its memory back if the protocol
/// has let go of it, or will later.
// HOT: proto
// A function of its own costs some 25 instructions per message.
#[inline(always)]
pub(crate) fn deliver(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
    message: Message,
) -> PyResult<()> {
    let result = hand_over(py, this, inside, transport, &message);
    if message.is_worthwhile() {
        let alone = message.is_alone();
        transport.get().with(inside, |inner| inner.state.keeps = !alone);
        if alone {
            drop(inside.with(|state| state.spare.put_back(message)));
        } else {
            let length = message.content().len();
            drop(inside.with(|state| {
                state.backlog.keep(length, &mut state.left);
                state.spare.watch(message)
            }));
        }
    }
    result
}

/// Calls the protocol, in the transport's context.
// HOT: proto
#[inline]
fn hand_over(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
    message: &Message,
) -> PyResult<()> {
    let data = message.object();
    let parts = transport.get().with(inside, |inner| {
        let protocol = inner.protocol.as_ref()?.clone_ref(py);
        let context = inner.context.as_ref()?.clone_ref(py);
        Some((protocol, context, inner.delivery == Delivery::Stream))
    });
    let Some((protocol, context, stream)) = parts else { return Ok(()) };
    let call =
        || call::method(py, &protocol, intern!(py, "data_received"), [data.live()]).map(drop);
    // Feeding a reader runs nothing of the user's but methods patched into the loop or the
    // transport, so it needs no context.
    let fed = if stream { streams::feed(py, &protocol, data) } else { Ok(false) };
    let result = match fed {
        Ok(true) => Ok(Ok(())),
        Ok(false) => context::run(py, context.live(), call),
        Err(error) => Err(error),
    };
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) | Err(error) => close::fatal_error(
            py,
            this,
            inside,
            transport,
            error,
            "Fatal error: protocol.data_received() call failed.",
        ),
    }
}

/// The peer has ended its side. If an exception ends the run here, the next run reads
/// the end again.
#[cold]
pub(crate) fn end_of_file(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
) -> PyResult<()> {
    let result = if this.event_loop.options.batches() {
        batch::end_behind_batch(py, this, inside, transport)
    } else {
        tell_end(py, this, inside, transport)
    };
    result.inspect_err(|_| read_again(inside, transport))
}

/// Calls `eof_received`, whose result says whether our side stays open. A read error
/// that was kept is reported instead.
#[cold]
pub(crate) fn tell_end(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
) -> PyResult<()> {
    if let Some(error) = batch::take_failure(py, inside, transport.get()) {
        let failed = Failed::Python(error);
        return close::read_failed(py, this, inside, transport, failed);
    }
    if this.event_loop.debug() {
        let logger = Imports::get(py)?.logger.bind(py);
        logger.call_method1("debug", ("%r received EOF", transport.object().bind(py)))?;
    }
    let parts = transport.get().with(inside, |inner| {
        inner.state.readable = false;
        Some((inner.protocol.as_ref()?.clone_ref(py), inner.context.as_ref()?.clone_ref(py)))
    });
    let Some((protocol, context)) = parts else { return Ok(()) };
    let answer = context::run(py, context.live(), || {
        call::method(py, &protocol, intern!(py, "eof_received"), [])?.bind(py).is_truthy()
    });
    match answer {
        Ok(Ok(true)) => {
            transport.get().with(inside, |inner| inner.state.read_ended = true);
            Ok(())
        }
        Ok(Ok(false)) => {
            context::run(py, context.live(), || close::close(py, this, inside, transport.get()))?
        }
        Ok(Err(error)) | Err(error) => close::fatal_error(
            py,
            this,
            inside,
            transport,
            error,
            "Fatal error: protocol.eof_received() call failed.",
        ),
    }
}

/// `pause_reading()`.
pub(crate) fn pause(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> PyResult<()> {
    let paused = transport.with(inside, |inner| {
        !inner.state.closing && !std::mem::replace(&mut inner.state.paused, true)
    });
    if paused { debug_log::tell(py, this, transport, "%r pauses reading") } else { Ok(()) }
}

/// `resume_reading()`: serves an edge that came during the pause. The read callbacks
/// run in the caller's context from now on.
pub(crate) fn resume(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> PyResult<()> {
    let (resumed, keeps_context) = transport.with(inside, |inner| {
        let resumed = !inner.state.closing && std::mem::take(&mut inner.state.paused);
        // asyncio's stream protocol reads no context variable when it is given data, and
        // before the start there is no reader whose context could change.
        (resumed, inner.delivery == Delivery::Stream || !inner.state.started)
    });
    if !resumed {
        return Ok(());
    }
    if this.event_loop.closed() {
        return Err(errors::closed());
    }
    if !keeps_context {
        let context = context::copy_current(py)?;
        let old = transport.with(inside, |inner| inner.context.replace(context));
        drop(old);
    }
    let held = inside.with(|state| {
        transport.with(inside, |inner| {
            if let Some(token) = inner.token.filter(|_| inner.state.readable) {
                if !std::mem::replace(&mut inner.state.read_queued, true) {
                    state.backlog.read_later(token);
                }
            }
            inner.batch.as_ref().is_some_and(|batch| batch.waits_for_nothing())
        })
    });
    if held {
        batch::schedule_delivery(py, this, transport)?;
    }
    debug_log::tell(py, this, transport, "%r resumes reading")
}
