//! What `sendfile` needs from a stream transport: first an empty queue, then, again and
//! again, room in the kernel's buffer.
//!
//! One future at a time waits for either. While the transport has one, done or not, a
//! file is being sent and writes are refused.

use pyo3::exceptions::{PyConnectionError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;

use crate::errors;
use crate::event_loop::{Inside, This};
use crate::py::Owned;
use crate::transports::shape::StreamTransport;
use crate::transports::{cork, flush};

/// asyncio's message for a connection that ends while a file is being sent.
const ENDED: &str = "Connection is closed by peer";

/// A future that is done once everything written before has been sent.
pub(crate) fn wait_until_empty(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> PyResult<Owned> {
    cork::uncork(py, this, inside, transport)?;
    if transport.with(inside, |inner| inner.sendfile_waiter.is_some()) {
        return Err(PyRuntimeError::new_err("Empty waiter is already set"));
    }
    let waiter = Owned::from(this.bind(py).call_method0(intern!(py, "create_future"))?);
    if transport.with(inside, |inner| inner.queue.is_empty()) {
        finish(py, &waiter)?;
    }
    let kept = waiter.clone_ref(py);
    transport.with(inside, |inner| inner.sendfile_waiter = Some(kept));
    Ok(waiter)
}

/// A future that is done once the kernel, which has just refused a byte, has room
/// again. It gets a ConnectionError if the connection ends first.
pub(crate) fn wait_for_room(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> PyResult<Owned> {
    let waiter = Owned::from(this.bind(py).call_method0(intern!(py, "create_future"))?);
    let kept = waiter.clone_ref(py);
    let (ended, old) =
        transport.with(inside, |inner| (inner.state.finished, inner.sendfile_waiter.replace(kept)));
    drop(old);
    if ended {
        fail(py, &waiter)?;
    } else {
        flush::watch_writing(inside, transport).map_err(|error| errors::os_error(py, &error))?;
    }
    Ok(waiter)
}

/// The file is no longer being sent: writes are allowed again.
pub(crate) fn end(inside: &Inside<'_>, transport: &StreamTransport) {
    let (waiter, blocked) =
        transport.with(inside, |inner| (inner.sendfile_waiter.take(), inner.state.blocked));
    drop(waiter);
    if !blocked {
        flush::unwatch_writing(inside, transport);
    }
}

/// Ends the wait, if any: the queue is empty, or there is room.
pub(crate) fn go_on(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> PyResult<()> {
    let waiter =
        transport.with(inside, |inner| inner.sendfile_waiter.as_ref().map(|w| w.clone_ref(py)));
    waiter.map_or(Ok(()), |waiter| finish(py, &waiter))
}

/// Ends a wait with a ConnectionError: the connection has ended.
pub(crate) fn fail(py: Python<'_>, waiter: &Owned) -> PyResult<()> {
    fail_with(py, waiter, &PyConnectionError::new_err(ENDED))
}

/// Ends a wait with an error, unless it is done.
pub(crate) fn fail_with(py: Python<'_>, waiter: &Owned, error: &PyErr) -> PyResult<()> {
    let waiter = waiter.bind(py);
    if !waiter.call_method0(intern!(py, "done"))?.is_truthy()? {
        waiter.call_method1(intern!(py, "set_exception"), (error.value(py),))?;
    }
    Ok(())
}

fn finish(py: Python<'_>, waiter: &Owned) -> PyResult<()> {
    let waiter = waiter.bind(py);
    if !waiter.call_method0(intern!(py, "done"))?.is_truthy()? {
        waiter.call_method1(intern!(py, "set_result"), (py.None(),))?;
    }
    Ok(())
}
