//! The read path: from a readable event to one `datagram_received` per datagram.

use std::borrow::Borrow;

use pyo3::exceptions::{PyBlockingIOError, PyInterruptedError, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use tokioloop_reactor::datagram::{DatagramBatch, Longest};
use tokioloop_reactor::{RawAddress, Readiness};

use super::{DatagramTransport, Family, Inner, callback_failed, error_received};
use crate::errors;
use crate::event_loop::{Inside, LoopState, This};
use crate::py::message::Message;
use crate::py::{Live, Owned, bytes, call, context};
use crate::ready::Ready;
use crate::report::leaves_loop;
use crate::transports::shape::TransportRef;
use crate::transports::{address, close, debug_log};

/// The asyncio method that this file replaces, for error reports.
const CALLBACK: &str = "_read_ready";

/// What to do with a readable transport.
enum Plan {
    Receive(Longest),
    /// Deliver what was received before a pause.
    Held,
    /// Let Python's socket receive.
    Foreign,
    Nothing,
}

/// One datagram on its way to the protocol.
struct Delivery {
    message: Message,
    from: From,
    protocol: Owned,
}

/// Who sent a datagram.
enum From {
    Known(Owned),
    New(RawAddress),
}

/// A readable event, or the rest of one.
// HOT: udp
#[inline]
pub(super) fn on_readable(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef<Inner>,
    ready: Readiness,
) -> PyResult<()> {
    let result = match transport.get().with(inside, |inner| plan(inner, ready)) {
        Plan::Receive(longest) => receive(py, inside, transport, longest, ready.read_closed()),
        Plan::Held => deliver(py, inside, transport, |inner| {
            let held = inner.held.pop_front();
            Ok(held.map(|(data, from)| (Message::of(data), from)))
        }),
        Plan::Foreign => receive_foreign(py, this, inside, transport),
        Plan::Nothing => return Ok(()),
    };
    // Even if an exception ends the run: the loop may run again.
    inside.with(|state| transport.get().with(inside, |inner| requeue(state, inner)));
    result
}

fn plan(inner: &mut Inner, ready: Readiness) -> Plan {
    if inner.state.read_queued && !ready.is_again() {
        // The queued read serves this edge as well. Reading now would queue one more
        // read for each edge, until this endpoint starved the others.
        inner.state.error_waits |= ready.read_closed();
        return Plan::Nothing;
    }
    inner.state.read_queued = false;
    if inner.state.closing || inner.lost > 0 || !inner.state.started {
        return Plan::Nothing;
    }
    inner.state.readable = true;
    if inner.state.paused {
        return Plan::Nothing;
    }
    if !inner.held.is_empty() {
        // Whether the kernel has more shows when these have been delivered.
        return Plan::Held;
    }
    match inner.family {
        Family::Inet | Family::Inet6 => Plan::Receive(Longest::Inet),
        Family::Unix => Plan::Receive(Longest::Other),
        Family::Foreign => Plan::Foreign,
    }
}

/// Queues another read if something is left to be received. It comes after what is
/// queued already, so that one busy endpoint does not hold up the others.
fn requeue(state: &mut LoopState, inner: &mut Inner) {
    let wanted = inner.state.readable && !inner.state.paused && !inner.state.closing;
    if let Some(token) = inner.token.filter(|_| wanted && !inner.state.read_queued) {
        inner.state.read_queued = true;
        state.ready.push_back(Ready::Io(token, Readiness::AGAIN));
    }
}

/// Receives a batch and delivers it. `failed` means that the socket has an error to
/// report, which may come after the datagrams.
fn receive(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef<Inner>,
    longest: Longest,
    failed: bool,
) -> PyResult<()> {
    let Some(fd) = transport.get().with(inside, |inner| inner.descriptor.get()) else {
        return Ok(());
    };
    let mut batch = inside.with(|state| state.datagrams.take()).unwrap_or_default();
    let received = batch.receive(fd, longest);
    let result = match received {
        Ok(count) => {
            count_received(inside, &batch, count);
            transport.get().with(inside, |inner| {
                // No new edge announces an error that ended the batch early: read on.
                let failed = std::mem::take(&mut inner.state.error_waits) || failed;
                inner.state.readable = count > 0 && (batch.may_have_more() || failed);
            });
            hand_out(py, inside, transport, &batch)
        }
        Err(error) => receive_failed(py, inside, transport, &error),
    };
    inside.with(|state| state.datagrams = Some(batch));
    result
}

/// The kernel returned an error instead of datagrams.
#[cold]
#[inline(never)]
fn receive_failed(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef<Inner>,
    error: &std::io::Error,
) -> PyResult<()> {
    stop_if_gone(inside, transport.get(), error.raw_os_error());
    tell_error(py, inside, transport, errors::os_error(py, error))
}

fn count_received(inside: &Inside<'_>, batch: &DatagramBatch, count: usize) {
    let lengths = (0..count).filter_map(|index| batch.get(index)).map(|(data, _)| data.len());
    let bytes = lengths.sum::<usize>() as u64;
    inside.with(|state| {
        state.metrics.messages_received += count as u64;
        state.metrics.bytes_received += bytes;
    });
}

/// Delivers a batch. If the protocol pauses reading, the rest is kept until it resumes.
fn hand_out(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef<Inner>,
    batch: &DatagramBatch,
) -> PyResult<()> {
    let mut next = 0;
    let result = deliver(py, inside, transport, |inner| {
        let Some((data, from)) = batch.get(next) else { return Ok(None) };
        next += 1;
        let keeps = inner.state.keeps;
        let message = inside.with(|state| state.datagram_spare.copy(py, data, keeps))?;
        Ok(Some((message, from)))
    });
    while let Some((data, from)) = batch.get(next) {
        next += 1;
        let data = bytes::copy(py, data)?;
        let unwanted = transport.get().with(inside, |inner| {
            if inner.state.closing {
                return Some(data);
            }
            inner.state.readable = true;
            inner.held.push_back((data, *from));
            None
        });
        if unwanted.is_some() {
            break;
        }
    }
    result
}

/// Delivers datagrams one by one while `take` finds some and the endpoint reads. If the
/// protocol raises, the exception is reported and the next datagram delivered.
fn deliver<A: Borrow<RawAddress>>(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef<Inner>,
    mut take: impl FnMut(&mut Inner) -> PyResult<Option<(Message, A)>>,
) -> PyResult<()> {
    let object = transport.get();
    while let Some(context) =
        object.with(inside, |inner| inner.context.as_ref().map(|context| context.clone_ref(py)))
    {
        let delivered = context::run(py, context.live(), || {
            while let Some(delivery) = next(py, inside, object, &mut take)? {
                hand_over(py, inside, object, delivery)?;
            }
            Ok(())
        });
        match delivered {
            Ok(Ok(())) => break,
            Ok(Err(error)) => callback_failed(py, transport, CALLBACK, error)?,
            // The context cannot be entered or left.
            Err(error) => return callback_failed(py, transport, CALLBACK, error),
        }
    }
    Ok(())
}

/// The next datagram, unless the endpoint is closing or paused.
// HOT: udp
#[inline]
fn next<A: Borrow<RawAddress>>(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &DatagramTransport,
    take: &mut impl FnMut(&mut Inner) -> PyResult<Option<(Message, A)>>,
) -> PyResult<Option<Delivery>> {
    transport.with(inside, |inner| {
        if inner.state.closing || inner.state.paused {
            return Ok(None);
        }
        let Some(protocol) = inner.protocol.as_ref().map(|p| p.clone_ref(py)) else {
            return Ok(None);
        };
        let Some((message, from)) = take(inner)? else { return Ok(None) };
        let from = match inner.peers.find(from.borrow()) {
            Some(tuple) => From::Known(tuple.clone_ref(py)),
            None => From::New(*from.borrow()),
        };
        Ok(Some(Delivery { message, from, protocol }))
    })
}

/// Calls `datagram_received`.
// HOT: udp
#[inline]
fn hand_over(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &DatagramTransport,
    delivery: Delivery,
) -> PyResult<()> {
    let from = match delivery.from {
        From::Known(tuple) => tuple,
        From::New(raw) => meet(py, inside, transport, raw)?,
    };
    let data = delivery.message.object();
    let args = [data.live(), from.live()];
    let result = call::method(py, &delivery.protocol, intern!(py, "datagram_received"), args);
    if delivery.message.is_worthwhile() {
        let alone = delivery.message.is_alone();
        transport.with(inside, |inner| inner.state.keeps = !alone);
        if alone {
            let replaced = inside.with(|state| state.datagram_spare.put_back(delivery.message));
            drop(replaced);
        }
    }
    result.map(drop)
}

/// Makes the Python form of an address and keeps it for the next datagram.
fn meet(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &DatagramTransport,
    raw: RawAddress,
) -> PyResult<Owned> {
    if raw.is_none() {
        return Ok(Owned::none(py));
    }
    let made = Owned::from(address::to_python(py, &raw.to_address())?);
    let kept = made.clone_ref(py);
    let displaced = transport.with(inside, |inner| inner.peers.insert(raw, kept));
    drop(displaced);
    Ok(made)
}

/// Stops reading if the error means that somebody has closed the socket: it would come
/// again in every turn. Other errors are cleared by the call that returns them.
#[cold]
fn stop_if_gone(inside: &Inside<'_>, transport: &DatagramTransport, number: Option<i32>) {
    if matches!(number, Some(libc::EBADF | libc::ENOTSOCK | libc::EINVAL)) {
        transport.with(inside, |inner| inner.state.readable = false);
    }
}

/// Tells the protocol of an error of the socket, in the context of the read callbacks.
#[cold]
fn tell_error(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef<Inner>,
    error: PyErr,
) -> PyResult<()> {
    let context = transport
        .get()
        .with(inside, |inner| inner.context.as_ref().map(|context| context.clone_ref(py)));
    let Some(context) = context else { return Ok(()) };
    let told =
        context::run(py, context.live(), || error_received(py, inside, transport.get(), error));
    match told {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) | Err(error) => callback_failed(py, transport, CALLBACK, error),
    }
}

/// Receives with Python's socket, for a family whose addresses only that can convert:
/// one datagram per turn, as in asyncio.
#[cold]
fn receive_foreign(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef<Inner>,
) -> PyResult<()> {
    let object = transport.get();
    let parts = object.with(inside, |inner| {
        let socket = inner.descriptor.socket(py)?;
        let protocol = inner.protocol.as_ref()?.clone_ref(py);
        Some((socket, protocol, inner.context.as_ref()?.clone_ref(py)))
    });
    let Some((socket, protocol, context)) = parts else { return Ok(()) };
    let longest = transport.object().bind(py).getattr(intern!(py, "max_size"))?;
    let received = call::method(py, &socket, intern!(py, "recvfrom"), [(&longest).into()]);
    let error = match received {
        Ok(received) => {
            let told = context::run(py, context.live(), || {
                let received = received.bind(py);
                let pair = received.cast::<PyTuple>()?;
                let (data, from) = (pair.get_item(0)?, pair.get_item(1)?);
                let args = [Live::from(&data), Live::from(&from)];
                call::method(py, &protocol, intern!(py, "datagram_received"), args).map(drop)
            });
            return match told {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) | Err(error) => callback_failed(py, transport, CALLBACK, error),
            };
        }
        Err(error) => error,
    };
    if error.is_instance_of::<PyBlockingIOError>(py)
        || error.is_instance_of::<PyInterruptedError>(py)
    {
        object.with(inside, |inner| inner.state.readable = false);
        return Ok(());
    }
    if error.is_instance_of::<PyOSError>(py) {
        let number = error.value(py).getattr(intern!(py, "errno"))?.extract().ok();
        stop_if_gone(inside, object, number);
        return tell_error(py, inside, transport, error);
    }
    if leaves_loop(py, &error) {
        return Err(error);
    }
    let message = "Fatal read error on datagram transport";
    close::fatal_error(py, this, inside, transport, error, message)
}

/// `pause_reading()`: the kernel keeps what comes.
pub(super) fn pause(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &DatagramTransport,
) -> PyResult<()> {
    let paused = transport.with(inside, |inner| {
        !inner.state.closing && !std::mem::replace(&mut inner.state.paused, true)
    });
    if paused { debug_log::tell(py, this, transport, "%r pauses reading") } else { Ok(()) }
}

/// `resume_reading()`: serves what came during the pause. The read callbacks run in the
/// caller's context from now on.
pub(super) fn resume(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &DatagramTransport,
) -> PyResult<()> {
    let context = context::copy_current(py)?;
    let (resumed, unused) = inside.with(|state| {
        transport.with(inside, |inner| {
            if inner.state.closing || !std::mem::take(&mut inner.state.paused) {
                return (false, Some(context));
            }
            inner.state.readable |= !inner.held.is_empty();
            if let Some(token) = inner.token.filter(|_| inner.state.readable) {
                if !std::mem::replace(&mut inner.state.read_queued, true) {
                    state.backlog.read_later(token);
                }
            }
            // Before the start there is no reader whose context could change.
            let old = if inner.state.started { inner.context.replace(context) } else { None };
            (true, old)
        })
    });
    drop(unused);
    if resumed && this.event_loop.closed() {
        return Err(errors::closed());
    }
    if resumed { debug_log::tell(py, this, transport, "%r resumes reading") } else { Ok(()) }
}
