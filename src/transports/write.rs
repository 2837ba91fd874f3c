//! The write path. A write is sent at once if nothing waits, unless it is corked (`cork`
//! says when); several chunks that wait are sent by one `sendmsg`.

use std::os::fd::AsRawFd;

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};
use tokioloop_reactor::stream::{self, Flushed};
use tokioloop_reactor::{Interest, sys};

use crate::errors;
use crate::event_loop::{Inside, This};
use crate::py::{Owned, buffer, bytes, context};
use crate::transports::cork::{cork, note_write, uncork};
use crate::transports::flow::{maybe_pause_protocol, maybe_resume_protocol};
use crate::transports::shape::StreamTransport;
use crate::transports::stream::{Chunk, TransportRef};
use crate::transports::{batch, close, sendfile};

/// The outcome of a write.
enum Outcome {
    Done,
    /// It has to wait for room: flow control looks at the queue.
    Waiting,
    Failed(std::io::Error),
    /// A part was sent, and there is no memory for the rest.
    Truncated(PyErr),
    /// The connection is gone: the write is counted and dropped.
    Lost(u32),
    EofWritten,
    Sendfile,
    /// Sent later in this turn.
    Corked,
}

/// `write(data)`.
// HOT: proto
// Streams and TLS call it as well: without the attribute it would not be inlined into
// the method any more, which costs some 50 instructions per message.
#[inline(always)]
pub(crate) fn write(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
    data: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let outcome = match bytes::exact(data) {
        Some(content) => {
            try_write(inside, transport, content, |sent| Ok((Owned::from(data), sent)))?
        }
        None => {
            check_type(data)?;
            let mut room = buffer::Room::new();
            let view = buffer::View::readable_any(&mut room, data)?;
            let content = view.bytes();
            // The caller may change its memory later: what waits is a copy.
            try_write(inside, transport, content, |sent| copy_rest(py, content, sent))?
        }
    };
    match outcome {
        Outcome::Done => Ok(()),
        outcome => settle(py, this, inside, transport, outcome),
    }
}

/// `write(data)` for borrowed bytes, which are copied only if they have to wait.
// HOT: tls
#[inline]
pub(crate) fn write_slice(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
    data: &[u8],
) -> PyResult<()> {
    match try_write(inside, transport, data, |sent| copy_rest(py, data, sent))? {
        Outcome::Done => Ok(()),
        outcome => settle(py, this, inside, transport, outcome),
    }
}

/// What is not sent yet, as an exact `bytes` for the queue.
#[cold]
fn copy_rest(py: Python<'_>, content: &[u8], sent: usize) -> PyResult<(Owned, usize)> {
    Ok((bytes::copy(py, content.get(sent..).unwrap_or_default())?, 0))
}

/// Sends or queues `content`. `keep(sent)` makes an exact `bytes` for the queue, and says
/// where in it the part begins that is not sent yet.
#[inline]
fn try_write(
    inside: &Inside<'_>,
    transport: &StreamTransport,
    content: &[u8],
    keep: impl FnOnce(usize) -> PyResult<(Owned, usize)>,
) -> PyResult<Outcome> {
    inside.with(|state| {
        transport.with(inside, |inner| {
            if inner.state.eof_written {
                return Ok(Outcome::EofWritten);
            }
            if inner.sendfile_waiter.is_some() {
                return Ok(Outcome::Sendfile);
            }
            if content.is_empty() {
                return Ok(Outcome::Done);
            }
            if inner.lost > 0 {
                inner.lost += 1;
                return Ok(Outcome::Lost(inner.lost - 1));
            }
            let corks = note_write(inner, state.serial, state.gathering.on, content.len());
            state.metrics.bytes_sent += content.len() as u64;
            state.metrics.messages_sent += 1;
            if !inner.queue.is_empty() {
                inner.queue.push(Chunk(keep(0)?.0));
                return Ok(if inner.state.corked { Outcome::Corked } else { Outcome::Waiting });
            }
            if corks {
                inner.queue.push(Chunk(keep(0)?.0));
                return Ok(Outcome::Corked);
            }
            let Some(fd) = inner.fd() else { return Ok(Outcome::Done) };
            match stream::send(fd, content) {
                Ok(sent) if sent == content.len() => Ok(Outcome::Done),
                Ok(sent) => match keep(sent) {
                    Ok((rest, begin)) => {
                        inner.queue.push_partial(Chunk(rest), begin);
                        Ok(Outcome::Waiting)
                    }
                    // What is written next would stand where the rest belongs.
                    Err(error) if sent > 0 => Ok(Outcome::Truncated(error)),
                    Err(error) => Err(error),
                },
                Err(error) => Ok(Outcome::Failed(error)),
            }
        })
    })
}

/// Handles every outcome but plain success.
#[cold]
fn settle(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
    outcome: Outcome,
) -> PyResult<()> {
    match outcome {
        Outcome::Done => Ok(()),
        Outcome::Corked => cork(py, this, inside, transport),
        Outcome::Waiting => wait_for_room(py, this, inside, transport),
        Outcome::Failed(error) => {
            let error = errors::os_error(py, &error);
            write_failed(py, this, inside, transport, error)
        }
        Outcome::Truncated(error) => write_failed(py, this, inside, transport, error),
        Outcome::Lost(count) => close::note_lost_write(py, count),
        Outcome::EofWritten => {
            Err(PyRuntimeError::new_err("Cannot call write() after write_eof()"))
        }
        Outcome::Sendfile => {
            Err(PyRuntimeError::new_err("unable to write; sendfile is in progress"))
        }
    }
}

/// asyncio takes `bytes`, `bytearray` and `memoryview`; any other object with
/// a buffer is taken as well.
fn check_type(data: &Bound<'_, PyAny>) -> PyResult<()> {
    let known = data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>();
    if known || buffer::has_buffer(data) {
        return Ok(());
    }
    let class = data.get_type().name()?;
    Err(PyTypeError::new_err(if cfg!(Py_3_14) {
        format!("data argument must be a bytes, bytearray, or memoryview object, not '{class}'")
    } else {
        format!("data argument must be a bytes-like object, not '{class}'")
    }))
}

/// The kernel's buffer is full: wait for room, and slow the protocol down.
fn wait_for_room(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> PyResult<()> {
    let first = transport.with(inside, |inner| !std::mem::replace(&mut inner.state.blocked, true));
    if first {
        let context = context::copy_current(py)?;
        // If several writes wait, the context of the first is kept.
        let unused = transport.with(inside, |inner| match &inner.write_context {
            Some(_) => Some(context),
            None => {
                inner.write_context = Some(context);
                None
            }
        });
        drop(unused);
        watch_writing(inside, transport)
            .map_err(|error| room_not_told(py, inside, transport, &error))?;
    }
    maybe_pause_protocol(py, this, inside, transport)
}

/// The registration failed, so the poll will not report room; the next write registers
/// again.
#[cold]
#[inline(never)]
fn room_not_told(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
    error: &std::io::Error,
) -> PyErr {
    transport.with(inside, |inner| inner.state.blocked = false);
    errors::os_error(py, error)
}

/// Adds writing to the registration. TCP keeps it from then on with epoll, which reports
/// room only after a refused write. Unix sockets report every read of the peer, and
/// kqueue everything that a TCP peer acknowledges, so [`unwatch_writing`] removes it
/// there once the queue is empty.
pub(crate) fn watch_writing(
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> std::io::Result<()> {
    inside.with(|state| {
        transport.with(inside, |inner| {
            let (Some(fd), Some(token)) = (inner.fd(), inner.token) else { return Ok(()) };
            if inner.state.watches_writing || !inner.state.started {
                return Ok(());
            }
            if let Some(poller) = &state.poller {
                poller.reregister(fd.as_raw_fd(), token, Interest::BOTH)?;
            }
            inner.state.watches_writing = true;
            Ok(())
        })
    })
}

pub(crate) fn unwatch_writing(inside: &Inside<'_>, transport: &StreamTransport) {
    inside.with(|state| {
        transport.with(inside, |inner| {
            let tcp = inner.local.as_ref().is_some_and(tokioloop_reactor::Address::is_inet);
            if (tcp && cfg!(target_os = "linux")) || !inner.state.watches_writing {
                return;
            }
            let (Some(fd), Some(token), Some(poller)) = (inner.fd(), inner.token, &state.poller)
            else {
                return;
            };
            inner.state.watches_writing =
                poller.reregister(fd.as_raw_fd(), token, Interest::READABLE).is_err();
        });
    });
}

/// `writelines(list_of_data)`.
pub(crate) fn writelines(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
    list: &Bound<'_, PyAny>,
) -> PyResult<()> {
    // Iterating may run user code: all chunks are collected before the state is read,
    // and if one is invalid nothing is sent.
    let chunks = collect(py, list)?;
    let (eof, sendfile) =
        transport.with(inside, |inner| (inner.state.eof_written, inner.sendfile_waiter.is_some()));
    if eof {
        let name = if cfg!(Py_3_12) { "writelines" } else { "write" };
        return Err(PyRuntimeError::new_err(format!("Cannot call {name}() after write_eof()")));
    }
    if sendfile {
        return Err(PyRuntimeError::new_err("unable to writelines; sendfile is in progress"));
    }
    if chunks.is_empty() {
        return Ok(());
    }
    let outcome = inside.with(|state| {
        transport.with(inside, |inner| {
            if inner.lost > 0 {
                inner.lost += 1;
                return Outcome::Lost(inner.lost - 1);
            }
            let waits = inner.state.blocked;
            let corks = note_write(inner, state.serial, state.gathering.on, 0);
            for chunk in chunks {
                state.metrics.bytes_sent += chunk.as_ref().len() as u64;
                inner.queue.push(chunk);
            }
            state.metrics.messages_sent += 1;
            if waits {
                Outcome::Waiting
            } else if corks || inner.state.corked {
                Outcome::Corked
            } else {
                Outcome::Done
            }
        })
    });
    match outcome {
        Outcome::Done => flush(py, this, inside, transport),
        outcome => settle(py, this, inside, transport, outcome),
    }
}

fn collect(py: Python<'_>, list: &Bound<'_, PyAny>) -> PyResult<Vec<Chunk>> {
    if list.is_none() && cfg!(Py_3_12) {
        return Ok(Vec::new());
    }
    let mut chunks = Vec::with_capacity(list.len().unwrap_or(0));
    let items = match list.try_iter() {
        Err(_) if !cfg!(Py_3_12) => {
            return Err(PyTypeError::new_err("can only join an iterable"));
        }
        items => items?,
    };
    for item in items {
        let item = item?;
        if bytes::exact(&item).is_some() {
            chunks.push(Chunk(item.into()));
            continue;
        }
        if !buffer::has_buffer(&item) {
            let class = item.get_type().name()?;
            return Err(PyTypeError::new_err(if cfg!(Py_3_12) {
                format!("memoryview: a bytes-like object is required, not '{class}'")
            } else {
                let index = chunks.len();
                format!("sequence item {index}: expected a bytes-like object, {class} found")
            }));
        }
        let mut room = buffer::Room::new();
        let view = buffer::View::readable_any(&mut room, &item)?;
        chunks.push(Chunk(bytes::copy(py, view.bytes())?));
    }
    Ok(chunks)
}

/// Sends what waits, as far as the kernel takes it.
pub(crate) fn flush(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> PyResult<()> {
    let result = transport.with(inside, |inner| {
        inner.state.corked = false;
        match inner.fd() {
            Some(fd) => stream::flush(fd, inner.kind, &mut inner.queue),
            None => Ok(Flushed::All),
        }
    });
    match result {
        Ok(Flushed::All) => flushed(py, this, inside, transport),
        Ok(Flushed::Blocked) => in_write_context(py, inside, transport, || {
            maybe_resume_protocol(py, this, inside, transport)?;
            wait_for_room(py, this, inside, transport)
        }),
        Err(error) => in_write_context(py, inside, transport, || {
            flush_failed(py, this, inside, transport, &error)
        }),
    }
}

/// Runs `tell`, which tells the protocol about earlier writes, in a copy of the context
/// in which they were made.
#[cold]
fn in_write_context(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
    tell: impl FnOnce() -> PyResult<()>,
) -> PyResult<()> {
    let written_in = transport
        .with(inside, |inner| inner.write_context.as_ref().map(|context| context.clone_ref(py)));
    match written_in {
        Some(context) => {
            let context = context::copy(py, &context)?;
            context::run(py, context.as_ptr(), tell)?
        }
        None => tell(),
    }
}

/// The queue has run empty.
fn flushed(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> PyResult<()> {
    let (was_blocked, context) = transport.with(inside, |inner| {
        (std::mem::replace(&mut inner.state.blocked, false), inner.write_context.take())
    });
    drop(context);
    if was_blocked {
        unwatch_writing(inside, transport);
    }
    // Even if this ends the run, the rest is done first: no event would cause it later.
    let told = maybe_resume_protocol(py, this, inside, transport);
    // The protocol may have written again.
    let (empty, closing, eof) = transport.with(inside, |inner| {
        let empty = inner.queue.is_empty();
        let lose = empty && inner.state.closing && inner.lost == 0;
        (empty, lose, inner.state.eof_written && inner.lost == 0)
    });
    let gone_on = if empty { sendfile::go_on(py, inside, transport) } else { Ok(()) };
    let ended = if closing {
        close::lose_after_flush(py, this, inside, transport)
    } else if empty && eof {
        shut_down(inside, transport).or_else(|error| {
            // The peer may have reset the connection; a read will tell the protocol.
            let error = errors::os_error(py, &error);
            let message = "Exception in callback _SelectorSocketTransport._write_ready()";
            close::report(py, this, &transport.reference(), None, error, message)
        })
    } else {
        Ok(())
    };
    told.and(gone_on).and(ended)
}

#[cold]
fn flush_failed(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
    error: &std::io::Error,
) -> PyResult<()> {
    let waiter =
        transport.with(inside, |inner| inner.sendfile_waiter.as_ref().map(|w| w.clone_ref(py)));
    let error = errors::os_error(py, error);
    if let Some(waiter) = waiter {
        sendfile::fail_with(py, &waiter, &error)?;
    }
    write_failed(py, this, inside, transport, error)
}

#[cold]
fn write_failed(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
    error: PyErr,
) -> PyResult<()> {
    batch::deliver_before_loss(py, this, inside, transport)?;
    let message = "Fatal write error on socket transport";
    close::fatal_error(py, this, inside, &transport.reference(), error, message)
}

/// The kernel has room again.
pub(crate) fn on_writable(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
) -> PyResult<()> {
    let object = transport.get();
    let (context, sendfile) = object.with(inside, |inner| {
        if !inner.state.blocked || inner.lost > 0 {
            return (None, inner.sendfile_waiter.is_some() && inner.queue.is_empty());
        }
        (inner.write_context.as_ref().map(|context| context.clone_ref(py)), false)
    });
    match context {
        Some(context) => context::run(py, context.as_ptr(), || flush(py, this, inside, object))?,
        None if sendfile => sendfile::go_on(py, inside, object),
        None => Ok(()),
    }
}

/// `write_eof()`.
pub(crate) fn write_eof(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> PyResult<()> {
    uncork(py, this, inside, transport)?;
    let now = transport.with(inside, |inner| {
        if inner.state.closing || inner.state.eof_written {
            return false;
        }
        inner.state.eof_written = true;
        inner.queue.is_empty()
    });
    if now {
        shut_down(inside, transport).map_err(|error| errors::os_error(py, &error))?;
    }
    Ok(())
}

fn shut_down(inside: &Inside<'_>, transport: &StreamTransport) -> std::io::Result<()> {
    transport.with(inside, |inner| inner.fd().map_or(Ok(()), sys::shutdown_write))
}
