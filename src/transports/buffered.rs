//! The read path of `BufferedProtocol`.

use std::io;
use std::mem::MaybeUninit;

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use tokioloop_reactor::stream::{self, Received};

use crate::errors;
use crate::event_loop::{Inside, This};
use crate::py::{Owned, buffer, call, context};
use crate::transports::close;
use crate::transports::read::{end_of_file, read_again, requeue};
use crate::transports::stream::TransportRef;

/// The outcome of one event.
enum Served {
    /// The protocol was told, or there is nothing to tell.
    Done,
    /// `get_buffer` failed, so nothing was received.
    NoBuffer(PyErr),
    /// `buffer_updated` raised.
    Raised(PyErr),
    /// The socket has failed, or the protocol's buffer is read-only.
    Failed(PyErr),
    Eof,
}

/// `BufferedProtocol`: the kernel writes into the protocol's own memory.
pub(crate) fn receive_buffered(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
) -> PyResult<()> {
    let parts = transport.get().with(inside, |inner| {
        Some((inner.protocol.as_ref()?.clone_ref(py), inner.context.as_ref()?.clone_ref(py)))
    });
    let Some((protocol, context)) = parts else { return Ok(()) };
    let fail = |error, message| close::fatal_error(py, this, inside, transport, error, message);
    let served = context::run(py, context.live(), || serve(py, inside, transport, &protocol));
    match served.unwrap_or_else(Served::NoBuffer) {
        Served::Done => Ok(()),
        Served::NoBuffer(error) => fail(error, "Fatal error: protocol.get_buffer() call failed.")
            .inspect_err(|_| read_again(inside, transport)),
        Served::Raised(error) => fail(error, "Fatal error: protocol.buffer_updated() call failed."),
        Served::Failed(error) => fail(error, "Fatal read error on socket transport"),
        Served::Eof => end_of_file(py, this, inside, transport),
    }
}

/// Both calls of the protocol and what is received between them, in its context.
fn serve(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
    protocol: &Owned,
) -> Served {
    let length = {
        let mut room = buffer::Room::new();
        let mut view = match writable_view(py, protocol, &mut room) {
            Ok(Ok(view)) => view,
            Ok(Err(class)) => {
                return Served::Failed(PyTypeError::new_err(format!(
                    "recv_into() argument 1 must be read-write bytes-like object, not {class}"
                )));
            }
            Err(error) => return Served::NoBuffer(error),
        };
        match receive(inside, transport, view.space()) {
            Ok(Received::Data { length, .. }) => length,
            Ok(Received::Eof) => return Served::Eof,
            Ok(Received::Blocked) => return Served::Done,
            Err(error) => return Served::Failed(errors::os_error(py, &error)),
        }
    };
    let told = length.into_pyobject(py).map_err(PyErr::from).and_then(|length| {
        let length = Owned::from(length.into_any());
        call::method(py, protocol, intern!(py, "buffer_updated"), [length.live()])
    });
    told.map_or_else(Served::Raised, |_| Served::Done)
}

#[inline]
fn receive(
    inside: &Inside<'_>,
    transport: &TransportRef,
    space: &mut [MaybeUninit<u8>],
) -> io::Result<Received> {
    inside.with(|state| {
        transport.get().with(inside, |inner| {
            let Some(fd) = inner.fd() else { return Ok(Received::Blocked) };
            let hidden = inner.state.hidden;
            let received = stream::receive(fd, inner.kind, hidden, space);
            match received {
                Ok(Received::Data { length, drained }) => {
                    state.metrics.bytes_received += length as u64;
                    state.metrics.messages_received += 1;
                    inner.state.readable = !drained;
                    if !drained {
                        requeue(state, inner);
                    }
                }
                Ok(Received::Blocked) => inner.state.readable = false,
                _ => {}
            }
            received
        })
    })
}

/// The protocol's buffer, or the name of its class if it is not writable. In asyncio the
/// socket reports that, so it is no failure of `get_buffer`.
fn writable_view<'a>(
    py: Python<'_>,
    protocol: &Owned,
    room: &'a mut buffer::Room,
) -> PyResult<Result<buffer::View<&'a mut buffer::Room>, String>> {
    let hint = Owned::from((-1_i32).into_pyobject(py)?.into_any());
    let given = call::method(py, protocol, intern!(py, "get_buffer"), [hint.live()])?;
    let given = given.bind(py);
    if given.len()? == 0 {
        return Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer"));
    }
    match buffer::View::writable(room, &given) {
        Ok(view) => Ok(Ok(view)),
        Err(_) => Ok(Err(given.get_type().name()?.to_string())),
    }
}
