//! The options `read_batch_bytes` and `read_batch_timeout`: received data that
//! waits for more before the protocol gets it.

use ::bytes::BytesMut;
use pyo3::prelude::*;

use crate::errors;
use crate::event_loop::{EventLoop, Inside, This};
use crate::py::Owned;
use crate::transports::close;
use crate::transports::read::{Failed, MAX_DELIVERY, deliver, read_again, tell_end};
use crate::transports::shape::StreamTransport;
use crate::transports::stream::{Inner, TransportRef};

/// Data held back until there is enough of it, or for long enough.
#[derive(Default)]
pub(crate) struct Batch {
    held: BytesMut,
    /// A timer will deliver what is held.
    armed: bool,
    /// Why reading has failed, where the protocol has not been told yet: the kernel
    /// says so once, and then that the stream has ended.
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

/// Delivers what was held back to the protocol that it came for, which gets
/// another one: it would have had this before whatever it has done since.
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

/// The program ends the connection: it wants no more data.
pub(crate) fn forget(inside: &Inside<'_>, transport: &StreamTransport) {
    transport.with(inside, |inner| inner.batch = None);
}

/// The peer has ended its side. What is held back comes first; a protocol that
/// pauses then is told of the end when it goes on, one that closes never.
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

/// Reading has failed: as [`end_behind_batch`], for an error.
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

/// Reading has failed before the protocol was to be told: the next read tells it.
#[cold]
pub(crate) fn keep_failure(inner: &mut Inner, error: std::io::Error) {
    inner.state.readable = true;
    inner.batch.get_or_insert_default().failed = Some(error);
}

/// What a read has failed with that the protocol does not know of.
pub(crate) fn take_failure(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> Option<PyErr> {
    let failed = transport.with(inside, |inner| inner.batch.as_mut()?.failed.take());
    failed.map(|error| errors::os_error(py, &error))
}

/// Writing has failed, maybe inside of a call of the protocol's: what is held
/// back is delivered before the loss, which is scheduled behind it.
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

/// Calls [`batch_due`] soon.
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
