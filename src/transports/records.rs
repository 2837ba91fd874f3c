//! Ciphertext on its way from the socket to a TLS protocol.
#![allow(unsafe_code)]

use pyo3::prelude::*;
use tokioloop_reactor::ReadRing;
use tokioloop_reactor::stream::{self, Received};

use crate::errors::Failed;
use crate::event_loop::{Inside, LoopState, This};
use crate::py::context;
use crate::py::message::Message;
use crate::tls::{self, Ciphertext, Lender};
use crate::transports::read::{self, Incoming, MAX_DELIVERY};
use crate::transports::stream::{Inner, TransportRef};
use crate::transports::{batch, close};

/// Ciphertext that has been received.
pub(crate) struct Records {
    room: Box<ReadRing>,
    length: usize,
}

impl Records {
    fn bytes(&self) -> &[u8] {
        // SAFETY: `length` is what the kernel wrote to the front, see `receive_records`.
        unsafe { self.room.filled(self.length) }
    }
}

/// Receives up to [`MAX_DELIVERY`] bytes: into memory of the loop if the TLS session can
/// be driven directly, else into a message.
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
    let direct = tls::is_driven_directly(py, &protocol)?;
    inside.with(|state| {
        object.with(inside, |inner| {
            if direct { receive_records(state, inner) } else { read::receive(py, state, inner) }
        })
    })
}

/// Receives into memory of the loop until the socket is drained or the memory full.
#[inline]
fn receive_records(state: &mut LoopState, inner: &mut Inner) -> Result<Incoming, Failed> {
    let Some(fd) = inner.fd() else { return Ok(Incoming::Nothing) };
    let mut room =
        state.ciphertext.take().unwrap_or_else(|| Box::new(ReadRing::with_capacity(MAX_DELIVERY)));
    let hidden = inner.state.hidden;
    let mut length = 0;
    let outcome = loop {
        let space = room.space().get_mut(length..).unwrap_or_default();
        if space.is_empty() {
            break None;
        }
        match stream::receive(fd, inner.kind, hidden, space) {
            Ok(Received::Data { length: more, drained }) => {
                length += more;
                inner.state.readable = !drained;
                if drained {
                    break None;
                }
            }
            Ok(Received::Blocked) => {
                inner.state.readable = false;
                break None;
            }
            // The next read returns the end again.
            Ok(Received::Eof) if length > 0 => {
                inner.state.readable = true;
                break None;
            }
            Err(error) if length > 0 => {
                batch::keep_failure(inner, error);
                break None;
            }
            Ok(Received::Eof) => break Some(Ok(Incoming::Eof)),
            Err(error) => break Some(Err(error.into())),
        }
    };
    if outcome.is_none() && inner.state.readable {
        read::requeue(state, inner);
    }
    if length == 0 {
        state.ciphertext = Some(room);
        return outcome.unwrap_or(Ok(Incoming::Nothing));
    }
    state.metrics.bytes_received += length as u64;
    state.metrics.messages_received += 1;
    Ok(Incoming::Records(Records { room, length }))
}

/// Hands received ciphertext to the protocol.
// HOT: tls
pub(crate) fn deliver(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
    records: Records,
) -> PyResult<()> {
    let ciphertext = Ciphertext::Memory(records.bytes());
    let result = hand_over(py, this, inside, transport, ciphertext);
    let replaced = inside.with(|state| state.ciphertext.replace(records.room));
    drop(replaced);
    result
}

/// Hands ciphertext to a protocol whose session needs it as a `bytes` object.
pub(crate) fn deliver_message(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
    message: Message,
) -> PyResult<()> {
    let ciphertext = Ciphertext::Object(message.object());
    let result = hand_over(py, this, inside, transport, ciphertext);
    Lender::new(inside, transport.get()).give_back(message);
    result
}

#[inline]
fn hand_over(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
    ciphertext: Ciphertext<'_>,
) -> PyResult<()> {
    let parts = transport.get().with(inside, |inner| {
        Some((inner.protocol.as_ref()?.clone_ref(py), inner.context.as_ref()?.clone_ref(py)))
    });
    let Some((protocol, context)) = parts else { return Ok(()) };
    let lender = Lender::new(inside, transport.get());
    let call = || tls::records_received(py, &protocol, ciphertext, lender);
    match context::run(py, context.live(), call) {
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
