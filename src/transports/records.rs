//! Ciphertext on its way from the socket to a TLS protocol.

use pyo3::prelude::*;

use crate::event_loop::{Inside, This};
use crate::py::context;
use crate::py::message::Message;
use crate::tls;
use crate::transports::close;
use crate::transports::stream::TransportRef;

/// Hands ciphertext to the protocol, in the transport's context.
// HOT: tls
pub(crate) fn deliver(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
    message: Message,
) -> PyResult<()> {
    let parts = transport.get().with(inside, |inner| {
        Some((inner.protocol.as_ref()?.clone_ref(py), inner.context.as_ref()?.clone_ref(py)))
    });
    let Some((protocol, context)) = parts else { return Ok(()) };
    let call = || tls::records_received(py, &protocol, message.object());
    let result = context::run(py, context.as_ptr(), call);
    if message.is_worthwhile() && message.is_alone() {
        let replaced = inside.with(|state| state.spare.put_back(message));
        drop(replaced);
    }
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) | Err(error) => close::fatal_error(
            py,
            this,
            inside,
            transport,
            error,
            "Fatal error: protocol.buffer_updated() call failed.",
        ),
    }
}
