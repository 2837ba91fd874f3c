//! The options `read_batch_bytes` and `read_batch_timeout`: received data that
//! waits for more before the protocol gets it.

use ::bytes::BytesMut;
use pyo3::prelude::*;

use crate::event_loop::{EventLoop, Inside, This};
use crate::transports::read::{MAX_DELIVERY, deliver};
use crate::transports::shape::StreamTransport;
use crate::transports::stream::TransportRef;

/// Data held back until there is enough of it, or for long enough.
pub(crate) struct Batch {
    held: BytesMut,
    /// A timer will deliver what is held.
    armed: bool,
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
        let batch = inner
            .batch
            .get_or_insert_with(|| Box::new(Batch { held: BytesMut::new(), armed: false }));
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

/// Delivers what was held back.
pub(crate) fn release_batch(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
) -> PyResult<()> {
    let held = transport.get().with(inside, |inner| match &mut inner.batch {
        Some(batch) if !batch.held.is_empty() && !inner.state.paused => {
            Some(std::mem::take(&mut batch.held))
        }
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
