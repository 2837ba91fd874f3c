//! The end of a transport: `close`, `abort`, fatal errors, `connection_lost`.

use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::Failed;
use crate::event_loop::{EventLoop, Inside, This};
use crate::imports::Imports;
use crate::py::{Live, Owned, call};
use crate::report::{call_exception_handler, leaves_loop};
use crate::transports::descriptor::Descriptor;
use crate::transports::interior::Interior;
use crate::transports::shape::{StreamTransport, Transport, TransportRef};
use crate::transports::{batch, cork, sendfile};

/// `close()`: what waits is sent first, then the protocol is told.
pub(crate) fn close(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> PyResult<()> {
    cork::uncork(py, this, inside, transport)?;
    batch::forget(inside, transport);
    close_when_sent(py, this, inside, transport)
}

/// The part of `close()` that every transport has.
pub(crate) fn close_when_sent<I: Interior>(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &Transport<I>,
) -> PyResult<()> {
    let lose = transport.with(inside, |inner| {
        let lose = inner.flow().size == 0;
        let stage = inner.stage();
        if std::mem::replace(stage.closing, true) {
            return false;
        }
        transport.note_closing();
        if lose {
            *stage.lost += 1;
        }
        lose
    });
    if lose {
        schedule_loss(py, this, transport, None)?;
    }
    Ok(())
}

/// The queue of a closing transport has run empty: asyncio tells the protocol
/// at once, not in a later turn.
pub(crate) fn lose_after_flush<I: Interior>(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &Transport<I>,
) -> PyResult<()> {
    transport.with(inside, |inner| *inner.stage().lost += 1);
    let result = connection_lost(py, inside, transport, None);
    match result {
        Err(error) if !leaves_loop(py, &error) => {
            let message = "Exception in callback connection_lost()";
            report(py, this, &transport.reference(), None, error, message)
        }
        result => result,
    }
}

/// `abort()` and what follows a fatal error: what waits is dropped.
pub(crate) fn force_close<I: Interior>(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &Transport<I>,
    error: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let dropped = transport.with(inside, |inner| {
        let stage = inner.stage();
        if *stage.lost > 0 {
            return None;
        }
        *stage.closing = true;
        transport.note_closing();
        *stage.lost += 1;
        Some(inner.drop_unsent())
    });
    match dropped {
        Some(dropped) => {
            drop(dropped);
            schedule_loss(py, this, transport, error)
        }
        None => Ok(()),
    }
}

/// Something failed in a callback of the loop: ends the connection. OS errors end it
/// silently, like a peer that leaves; other exceptions are reported first.
///
/// # Errors
/// Exceptions that end the run.
#[cold]
pub(crate) fn fatal_error<I: Interior>(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef<I>,
    error: PyErr,
    message: &str,
) -> PyResult<()> {
    if leaves_loop(py, &error) {
        return Err(error);
    }
    let protocol = transport.get().with(inside, |inner| inner.protocol().map(|p| p.clone_ref(py)));
    let value = error.value(py).clone().into_any();
    if !error.is_instance_of::<PyOSError>(py) {
        report(py, this, transport, protocol.as_ref(), error, message)?;
    } else if this.event_loop.debug() {
        let logger = Imports::get(py)?.logger.bind(py);
        let keywords = PyDict::new(py);
        keywords.set_item("exc_info", &value)?;
        let args = ("%r: %s", transport.object().bind(py), message);
        logger.call_method("debug", args, Some(&keywords))?;
    }
    force_close(py, this, inside, transport.get(), Some(&value))
}

/// A stream cannot be read any more.
#[cold]
pub(crate) fn read_failed(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
    failed: Failed,
) -> PyResult<()> {
    let error = failed.into_exception(py);
    let message = "Fatal read error on socket transport";
    fatal_error(py, this, inside, transport, error, message)
}

/// asyncio's LOG_THRESHOLD_FOR_CONNLOST_WRITES.
const SILENT_LOST_WRITES: u32 = 5;

/// A write after the connection was lost, which was dropped as were `earlier` ones. asyncio
/// logs nothing for the first few.
#[cold]
pub(crate) fn note_lost_write(py: Python<'_>, earlier: u32) -> PyResult<()> {
    if earlier >= SILENT_LOST_WRITES {
        let logger = Imports::get(py)?.logger.bind(py);
        logger.call_method1("warning", ("socket.send() raised exception.",))?;
    }
    Ok(())
}

/// Tells the exception handler about an error of a transport.
pub(crate) fn report<I: Interior>(
    py: Python<'_>,
    this: This<'_>,
    transport: &TransportRef<I>,
    protocol: Option<&Owned>,
    error: PyErr,
    message: &str,
) -> PyResult<()> {
    let context = PyDict::new(py);
    context.set_item("message", message)?;
    context.set_item("exception", error.into_value(py))?;
    context.set_item("transport", transport.object().bind(py))?;
    context.set_item("protocol", protocol.map(|protocol| protocol.bind(py).to_owned()))?;
    call_exception_handler(py, &this.owned(py), &context)
}

fn schedule_loss<I: Interior>(
    py: Python<'_>,
    this: This<'_>,
    transport: &Transport<I>,
    error: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let object = transport.reference();
    let lose = object.object().bind(py).getattr(intern!(py, "_call_connection_lost"))?;
    let error = error.map_or(Live::none(py), Live::from);
    EventLoop::call_soon(py, this, &Owned::from(lose), &[error])
}

/// The last step: calls `connection_lost` on the protocol and releases everything.
pub(crate) fn connection_lost<I: Interior>(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &Transport<I>,
    error: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let protocol = transport.with(inside, |inner| {
        if std::mem::replace(inner.stage().finished, true) {
            return None;
        }
        inner.protocol().map(|protocol| protocol.clone_ref(py))
    });
    transport.note_finished();
    let Some(protocol) = protocol else { return Ok(()) };
    let error = error.map_or(Live::none(py), Live::from);
    let result = call::method(py, &protocol, intern!(py, "connection_lost"), [error]).map(drop);
    let waiter = transport.with(inside, I::take_sendfile_waiter);
    let server = dispose(py, inside, transport);
    // All three are told, even if one of them raises.
    let failed = waiter.map_or(Ok(()), |waiter| sendfile::fail(py, &waiter));
    let detached = server.map_or(Ok(()), |server| detach(py, &server, transport));
    result.and(failed).and(detached)
}

/// `Server._detach`, whose argument came with CPython 3.13.
fn detach<I: Interior>(py: Python<'_>, server: &Owned, transport: &Transport<I>) -> PyResult<()> {
    let server = server.bind(py);
    let name = intern!(py, "_detach");
    if cfg!(Py_3_13) {
        server.call_method1(name, (transport.reference().object().bind(py),)).map(drop)
    } else {
        server.call_method0(name).map(drop)
    }
}

/// Takes the transport off the loop and closes its descriptor; returns the
/// server that counts it.
fn dispose<I: Interior>(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &Transport<I>,
) -> Option<Owned> {
    let (descriptor, token, server, dropped) = transport.with(inside, |inner| {
        let server = inner.take_server();
        let descriptor = std::mem::replace(inner.descriptor(), Descriptor::Closed);
        (descriptor, inner.token().take(), server, inner.release())
    });
    let source = inside.with(|state| {
        let token = token?;
        state.fds.forget(descriptor.number(), token);
        // Closing the last descriptor of a socket takes it out of the poll. One that
        // Python code has seen may have been duplicated, or closed already, so that
        // another source has its number.
        let number = descriptor.number();
        if let (true, None, Some(poller)) =
            (descriptor.is_lent(), state.fds.get(number), &state.poller)
        {
            let _ = poller.deregister(number);
        }
        state.sources.remove(token)
    });
    log::debug!("connection of descriptor {} ended", descriptor.number());
    close_descriptor(py, descriptor);
    drop(source);
    drop(dropped);
    server
}

fn close_descriptor(py: Python<'_>, descriptor: Descriptor) {
    if let Descriptor::Lent(socket, _) = descriptor {
        let socket = socket.object().bind(py);
        if let Err(error) = socket.call_method0("close") {
            error.write_unraisable(py, Some(&socket));
        }
    }
}
