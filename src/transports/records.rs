//! Ciphertext on its way from the socket to a TLS protocol.
#![allow(unsafe_code)]

use pyo3::prelude::*;
use tokioloop_reactor::stream::{self, Kind, Received};

use crate::event_loop::{Inside, LoopState, This};
use crate::py::context;
use crate::py::message::Message;
use crate::tls::{self, Ciphertext, Lender, Session};
use crate::transports::close;
use crate::transports::read::{self, Failed, Incoming, MAX_DELIVERY};
use crate::transports::stream::{Inner, TransportRef};

/// Receives what there is, up to what one delivery may be: into the session
/// where that can be driven directly, else into a message.
// HOT: tls
#[inline]
pub(crate) fn receive(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
) -> Result<Incoming, Failed> {
    let object = transport.get();
    let protocol = object.with(inside, |inner| inner.protocol.as_ref().map(|p| p.clone_ref(py)));
    let Some(protocol) = protocol else { return Ok(Incoming::Nothing) };
    let fed = tls::with_session(py, &protocol, |session| {
        inside.with(|state| object.with(inside, |inner| feed(session, state, inner)))
    })?;
    match fed {
        Some(incoming) => incoming,
        None => inside.with(|state| object.with(inside, |inner| read::receive(py, state, inner))),
    }
}

/// Receives into the ring and from there into the session. Nothing here runs
/// code of Python: the session only keeps the bytes.
#[inline]
fn feed(session: &Session, state: &mut LoopState, inner: &mut Inner) -> Result<Incoming, Failed> {
    let Some(fd) = inner.fd() else { return Ok(Incoming::Nothing) };
    let Some(ring) = &mut state.ring else { return Ok(Incoming::Nothing) };
    let mut total = 0;
    while total < MAX_DELIVERY {
        match stream::receive(fd, Kind::Socket, inner.state.read_closed, ring.space()) {
            Ok(Received::Data { length, drained }) => {
                // SAFETY: the kernel has just filled so many bytes.
                session.feed(unsafe { ring.filled(length) })?;
                total += length;
                inner.state.readable = !drained;
                if drained {
                    break;
                }
            }
            Ok(Received::Blocked) => {
                inner.state.readable = false;
                break;
            }
            // The end, or an error, is told again by the next read.
            Ok(Received::Eof) | Err(_) if total > 0 => {
                inner.state.readable = true;
                break;
            }
            Ok(Received::Eof) => return Ok(Incoming::Eof),
            Err(error) => return Err(error.into()),
        }
    }
    if inner.state.readable {
        read::requeue(state, inner);
    }
    if total == 0 {
        return Ok(Incoming::Nothing);
    }
    state.metrics.bytes_received += total as u64;
    state.metrics.messages_received += 1;
    Ok(Incoming::Fed)
}

/// Hands ciphertext to the protocol; `message` where the session does not have
/// it already.
// HOT: tls
pub(crate) fn deliver(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
    message: Option<Message>,
) -> PyResult<()> {
    let parts = transport.get().with(inside, |inner| {
        Some((inner.protocol.as_ref()?.clone_ref(py), inner.context.as_ref()?.clone_ref(py)))
    });
    let Some((protocol, context)) = parts else { return Ok(()) };
    let ciphertext = match &message {
        Some(message) => Ciphertext::Received(message.object()),
        None => Ciphertext::Fed,
    };
    let lender = Lender::new(inside, transport.get());
    let call = || tls::records_received(py, &protocol, ciphertext, lender);
    let result = context::run(py, context.as_ptr(), call);
    if let Some(message) = message {
        lender.give_back(message);
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
