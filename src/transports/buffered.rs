//! The read path of `BufferedProtocol`.

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
    let view = context::run(py, context.as_ptr(), || writable_view(py, &protocol));
    let view = match view {
        Ok(Ok(view)) => view,
        Ok(Err(error)) | Err(error) => {
            // Nothing has been received yet.
            return fail(error, "Fatal error: protocol.get_buffer() call failed.")
                .inspect_err(|_| read_again(inside, transport));
        }
    };
    let mut view = match view {
        Ok(view) => view,
        Err(class) => {
            let error = PyTypeError::new_err(format!(
                "recv_into() argument 1 must be read-write bytes-like object, not {class}"
            ));
            return fail(error, "Fatal read error on socket transport");
        }
    };
    let received = inside.with(|state| {
        transport.get().with(inside, |inner| {
            let Some(fd) = inner.fd() else { return Ok(Received::Blocked) };
            let hidden = inner.state.hidden;
            let received = stream::receive(fd, inner.kind, hidden, view.space());
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
    });
    drop(view);
    match received {
        Ok(Received::Data { length, .. }) => {
            let result = context::run(py, context.as_ptr(), || {
                let length = Owned::from(length.into_pyobject(py)?.into_any());
                let name = intern!(py, "buffer_updated");
                call::method(py, &protocol, name, [length.as_ptr()])
            });
            match result {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) | Err(error) => {
                    fail(error, "Fatal error: protocol.buffer_updated() call failed.")
                }
            }
        }
        Ok(Received::Eof) => end_of_file(py, this, inside, transport),
        Ok(Received::Blocked) => Ok(()),
        Err(error) => fail(errors::os_error(py, &error), "Fatal read error on socket transport"),
    }
}

/// The protocol's memory; the name of its class where it is read-only, which
/// asyncio learns from the socket only.
fn writable_view(py: Python<'_>, protocol: &Owned) -> PyResult<Result<buffer::View, String>> {
    let hint = Owned::from((-1_i32).into_pyobject(py)?.into_any());
    let given = call::method(py, protocol, intern!(py, "get_buffer"), [hint.as_ptr()])?;
    let given = given.bind(py);
    if given.len()? == 0 {
        return Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer"));
    }
    match buffer::View::writable(&given) {
        Ok(view) => Ok(Ok(view)),
        Err(_) => Ok(Err(given.get_type().name()?.to_string())),
    }
}
