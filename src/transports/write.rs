//! The write path. A write is sent at once if nothing waits, unless it is corked (`cork`
//! says when); several chunks that wait are sent by one call (`flush`).

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};
use tokioloop_reactor::stream;

use crate::errors;
use crate::event_loop::{Inside, This};
use crate::py::{Owned, buffer, bytes, length_hint};
use crate::transports::close;
use crate::transports::cork::{cork, note_write, uncork};
use crate::transports::flush::{flush, shut_down, wait_for_room, write_failed};
use crate::transports::shape::StreamTransport;
use crate::transports::stream::Chunk;

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

/// `writelines(list_of_data)`.
pub(crate) fn writelines(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
    list: &Bound<'_, PyAny>,
) -> PyResult<()> {
    if cfg!(Py_3_12) {
        check_writelines(inside, transport)?;
        if !list.is_truthy()? {
            return Ok(());
        }
    }
    // Iterating may run user code: all chunks are collected before the state is read,
    // and if one is invalid nothing is sent.
    let chunks = collect(py, list)?;
    check_writelines(inside, transport)?;
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

/// Whether the transport takes more; before CPython 3.12 asyncio joins the list and calls
/// `write`.
fn check_writelines(inside: &Inside<'_>, transport: &StreamTransport) -> PyResult<()> {
    let name = if cfg!(Py_3_12) { "writelines" } else { "write" };
    let (eof, sendfile) =
        transport.with(inside, |inner| (inner.state.eof_written, inner.sendfile_waiter.is_some()));
    if eof {
        return Err(PyRuntimeError::new_err(format!("Cannot call {name}() after write_eof()")));
    }
    if sendfile {
        return Err(PyRuntimeError::new_err(format!("unable to {name}; sendfile is in progress")));
    }
    Ok(())
}

fn collect(py: Python<'_>, list: &Bound<'_, PyAny>) -> PyResult<Vec<Chunk>> {
    let mut chunks = Vec::with_capacity(length_hint(list));
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
