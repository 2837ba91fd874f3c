//! The options `read_batch_bytes` and `read_batch_timeout`: received data that
//! waits for more before the protocol gets it.

use ::bytes::BytesMut;
use pyo3::prelude::*;

use crate::errors::{self, Failed};
use crate::event_loop::{EventLoop, Inside, This};
use crate::py::Owned;
use crate::transports::close;
use crate::transports::read::{MAX_DELIVERY, deliver, read_again, tell_end};
use crate::transports::shape::StreamTransport;
use crate::transports::stream::{Inner, TransportRef};

/// Data held back until there is enough of it, or for long enough.
#[derive(Default)]
pub(crate) struct Batch {
    held: BytesMut,
    /// A timer will deliver what is held.
    armed: bool,
    /// A read error that the protocol has not been told of yet. The kernel reports it
    /// once; later reads return the end of the stream.
    failed: Option<std::io::Error>,
}

impl Batch {
    /// Something is held, and no timer will deliver it.
    pub(crate) fn waits_for_nothing(&self) -> bool {
        !self.held.is_empty() && !self.armed
    }
}

/// The option `read_batch_timeout`: collects data until there is enough, or
/// until the first byte has waited for long enough.
#[cold]
pub(crate) fn hold_back(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
    data: &[u8],
) -> PyResult<()> {
    let options = this.event_loop.options;
    let limit = if options.read_batch_bytes > 0 { options.read_batch_bytes } else { MAX_DELIVERY };
    let (full, arm) = transport.get().with(inside, |inner| {
        let batch = inner.batch.get_or_insert_default();
        batch.held.extend_from_slice(data);
        let full = batch.held.len() >= limit;
        (full, !full && !std::mem::replace(&mut batch.armed, true))
    });
    if full {
        return release_batch(py, this, inside, transport);
    }
    if arm {
        let deliver = transport.object().bind(py).getattr("_deliver_batch")?;
        let delay = options.read_batch_timeout as f64 / 1e9;
        this.bind(py).call_method1("call_later", (delay, deliver))?;
    }
    Ok(())
}

/// Delivers what was held back, unless the protocol has paused reading.
pub(crate) fn release_batch(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
) -> PyResult<()> {
    if transport.get().with(inside, |inner| inner.state.paused) {
        return Ok(());
    }
    hand_out(py, this, inside, transport)
}

/// Delivers what was held back even if reading is paused. `set_protocol` does so for
/// the old protocol, which would have had the data by now if it had not been held.
pub(crate) fn hand_out(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
) -> PyResult<()> {
    let held = transport.get().with(inside, |inner| match &mut inner.batch {
        Some(batch) if !batch.held.is_empty() => Some(std::mem::take(&mut batch.held)),
        _ => None,
    });
    match held {
        Some(held) => {
            let keeps = transport.get().with(inside, |inner| inner.state.keeps);
            let message = inside.with(|state| state.spare.copy(py, &held, keeps))?;
            deliver(py, this, inside, transport, message)
        }
        None => Ok(()),
    }
}

/// Drops what was held back: the program ends the connection and wants no more data.
pub(crate) fn forget(inside: &Inside<'_>, transport: &StreamTransport) {
    transport.with(inside, |inner| inner.batch = None);
}

/// The peer has ended its side. Delivers what is held back first. A protocol that
/// pauses reading then is told of the end when it resumes, one that closes never.
pub(crate) fn end_behind_batch(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
) -> PyResult<()> {
    release_batch(py, this, inside, transport)?;
    let unwanted = transport.get().with(inside, |inner| inner.state.closing || inner.state.paused);
    if unwanted { Ok(()) } else { tell_end(py, this, inside, transport) }
}

/// Like [`end_behind_batch`], for a read error.
pub(crate) fn fail_behind_batch(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
    failed: Failed,
) -> PyResult<()> {
    let released = release_batch(py, this, inside, transport);
    let (closing, paused) =
        transport.get().with(inside, |inner| (inner.state.closing, inner.state.paused));
    match failed {
        _ if closing => released,
        Failed::Io(error) if paused || released.is_err() => {
            transport.get().with(inside, |inner| keep_failure(inner, error));
            read_again(inside, transport);
            released
        }
        failed => close::read_failed(py, this, inside, transport, failed),
    }
}

/// Keeps a read error that the protocol cannot be told of yet. The next read, which
/// returns the end of the stream, reports it.
#[cold]
pub(crate) fn keep_failure(inner: &mut Inner, error: std::io::Error) {
    inner.state.readable = true;
    inner.batch.get_or_insert_default().failed = Some(error);
}

/// Takes the error that [`keep_failure`] has kept, if any.
pub(crate) fn take_failure(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> Option<PyErr> {
    let failed = transport.with(inside, |inner| inner.batch.as_mut()?.failed.take());
    failed.map(|error| errors::os_error(py, &error))
}

/// Writing has failed, possibly within a call of the protocol. Schedules the delivery
/// of what is held back; the caller then schedules the loss after it.
pub(crate) fn deliver_before_loss(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> PyResult<()> {
    let held =
        transport.with(inside, |inner| inner.batch.as_ref().is_some_and(|b| !b.held.is_empty()));
    if held { schedule_delivery(py, this, transport) } else { Ok(()) }
}

/// Schedules [`batch_due`] with `call_soon`.
pub(crate) fn schedule_delivery(
    py: Python<'_>,
    this: This<'_>,
    transport: &StreamTransport,
) -> PyResult<()> {
    let deliver = transport.reference().object().bind(py).getattr("_deliver_batch")?;
    EventLoop::call_soon(py, this, &Owned::from(deliver), &[])
}

/// The timer of a batch has fired.
pub(crate) fn batch_due(py: Python<'_>, transport: &StreamTransport) -> PyResult<()> {
    let event_loop = transport.event_loop(py)?;
    let inside = event_loop.enter(py, "_deliver_batch")?;
    let object = transport.event_loop_object();
    transport.with(&inside, |inner| {
        if let Some(batch) = &mut inner.batch {
            batch.armed = false;
        }
    });
    let object = object.bind(py).cast::<EventLoop>()?.to_owned();
    release_batch(py, This::of(&object), &inside, &transport.reference())
}
