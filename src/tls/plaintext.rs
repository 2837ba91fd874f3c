//! Decrypts received records into one message.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::event_loop::Inside;
use crate::py::message::{Filling, Message, Spare};
use crate::py::{Owned, bytes};
use crate::tls::engine::Engine;
use crate::tls::openssl::{Read, Session};
use crate::transports::shape::StreamTransport;

/// Most plaintext in one record.
const RECORD_BYTES: usize = 16 * 1024;
/// Most bytes that a session holds of a record that has come in part.
const PARTIAL_BYTES: usize = RECORD_BYTES + 512;
/// Messages of at most this many bytes are decrypted on the stack.
const SMALL_BYTES: usize = 512;

/// What the received ciphertext contained.
pub(crate) struct Plaintext {
    /// Everything that was decrypted, joined.
    pub(crate) message: Option<Message>,
    /// The peer has sent its close_notify.
    pub(crate) closed: bool,
}

/// Why there is no more plaintext.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Drained,
    Closed,
    /// The room is full, and there may be more.
    Full,
}

/// A transport whose loop lends the memory of its spare message.
#[derive(Clone, Copy)]
pub(crate) struct Lender<'a> {
    inside: &'a Inside<'a>,
    transport: &'a StreamTransport,
}

impl<'a> Lender<'a> {
    pub(crate) fn new(inside: &'a Inside<'a>, transport: &'a StreamTransport) -> Self {
        Self { inside, transport }
    }

    fn keeps(self) -> bool {
        self.transport.with(self.inside, |inner| inner.state.keeps)
    }

    fn room(self, py: Python<'_>, capacity: usize) -> PyResult<Filling> {
        self.inside.with(|state| state.spare.filling(py, capacity))
    }

    /// Takes the memory of a message back if the protocol has let go of it.
    #[inline]
    pub(crate) fn give_back(self, message: Message) {
        if !message.is_worthwhile() {
            return;
        }
        let alone = message.is_alone();
        self.transport.with(self.inside, |inner| inner.state.keeps = !alone);
        let replaced = if alone {
            self.inside.with(|state| state.spare.put_back(message))
        } else {
            Some(message)
        };
        drop(replaced);
    }
}

/// Decrypts all whole records that are there.
///
/// # Errors
/// Those of `SSLObject.read`; what was decrypted before is lost then, as in asyncio.
// HOT: tls
pub(crate) fn read(
    py: Python<'_>,
    engine: &Engine,
    lender: Option<Lender<'_>>,
) -> PyResult<Plaintext> {
    let mut parts = Parts::default();
    let stop = match engine.direct() {
        Some(session) => read_directly(py, engine, session, lender, &mut parts)?,
        None => read_by_methods(py, engine, &mut parts)?,
    };
    Ok(Plaintext { message: parts.join(py)?, closed: stop == Stop::Closed })
}

// HOT: tls
#[inline]
fn read_directly(
    py: Python<'_>,
    engine: &Engine,
    session: &Session,
    lender: Option<Lender<'_>>,
    parts: &mut Parts,
) -> PyResult<Stop> {
    session.forget_old_errors();
    loop {
        // No record has more plaintext than it has bytes, unless it is compressed.
        let held = if session.has_pending() { PARTIAL_BYTES } else { 0 };
        let expected = session.incoming_bytes() + held;
        let (part, stop) = if expected <= SMALL_BYTES {
            read_small(py, engine, session)?
        } else {
            read_large(py, engine, session, lender, expected)?
        };
        if let Some(part) = part {
            parts.push(part);
        }
        if stop != Stop::Full {
            return Ok(stop);
        }
    }
}

#[inline]
fn read_small(
    py: Python<'_>,
    engine: &Engine,
    session: &Session,
) -> PyResult<(Option<Message>, Stop)> {
    let mut room = [MaybeUninit::uninit(); SMALL_BYTES];
    let (length, stop) = fill(py, engine, session, &mut room)?;
    if length == 0 {
        return Ok((None, stop));
    }
    let filled = room.get(..length).unwrap_or_default();
    // SAFETY: `fill` has written the first `length` bytes.
    let filled = unsafe { &*(std::ptr::from_ref(filled) as *const [u8]) };
    Ok((Some(Message::of(bytes::copy(py, filled)?)), stop))
}

#[inline]
fn read_large(
    py: Python<'_>,
    engine: &Engine,
    session: &Session,
    lender: Option<Lender<'_>>,
    expected: usize,
) -> PyResult<(Option<Message>, Stop)> {
    let mut filling = match lender {
        Some(lender) => lender.room(py, expected)?,
        None => Spare::default().filling(py, expected)?,
    };
    let (length, stop) = fill(py, engine, session, filling.space(0))?;
    if length == 0 {
        return Ok((None, stop));
    }
    // SAFETY: `fill` has written the first `length` bytes.
    let message = unsafe { filling.finish(py, length, lender.is_none_or(Lender::keeps))? };
    Ok((Some(message), stop))
}

/// Decrypts into `room`. Returns how many bytes, and why not more.
///
/// # Errors
/// Those of `SSLObject.read`.
// HOT: tls
#[inline]
pub(crate) fn fill(
    py: Python<'_>,
    engine: &Engine,
    session: &Session,
    room: &mut [MaybeUninit<u8>],
) -> PyResult<(usize, Stop)> {
    let mut length = 0;
    loop {
        let free = room.get_mut(length..).unwrap_or_default();
        if free.is_empty() {
            return Ok((length, Stop::Full));
        }
        match session.read(free) {
            Read::Plaintext(count) => length += count,
            Read::WantsMore => return Ok((length, Stop::Drained)),
            Read::Other => match engine.read(py, free.len().min(RECORD_BYTES))? {
                None => return Ok((length, Stop::Drained)),
                Some(chunk) => {
                    let chunk = chunk.bind(py);
                    let chunk = bytes::exact(&chunk).unwrap_or_default();
                    if chunk.is_empty() {
                        return Ok((length, Stop::Closed));
                    }
                    for (to, from) in free.iter_mut().zip(chunk) {
                        to.write(*from);
                    }
                    length += chunk.len();
                }
            },
        }
        if session.is_drained() {
            return Ok((length, Stop::Drained));
        }
    }
}

/// Like [`read_directly`], with the methods of `ssl`.
fn read_by_methods(py: Python<'_>, engine: &Engine, parts: &mut Parts) -> PyResult<Stop> {
    let mut waiting = engine.incoming_bytes(py)?;
    loop {
        let Some(chunk) = engine.read(py, waiting.clamp(1, RECORD_BYTES))? else {
            return Ok(Stop::Drained);
        };
        if chunk.bind(py).len()? == 0 {
            return Ok(Stop::Closed);
        }
        parts.push(Message::of(chunk));
        waiting = engine.incoming_bytes(py)?;
        if waiting == 0 {
            waiting = engine.pending(py)?;
        }
        if waiting == 0 {
            // Another read would raise SSLWantReadError.
            return Ok(Stop::Drained);
        }
    }
}

/// Pieces of plaintext, which are joined only if there are several.
#[derive(Default)]
struct Parts {
    first: Option<Message>,
    rest: Vec<Message>,
}

impl Parts {
    #[inline]
    fn push(&mut self, part: Message) {
        match self.first {
            None => self.first = Some(part),
            Some(_) => self.rest.push(part),
        }
    }

    #[inline]
    fn join(self, py: Python<'_>) -> PyResult<Option<Message>> {
        if self.rest.is_empty() {
            return Ok(self.first);
        }
        let parts = || self.first.iter().chain(&self.rest).map(Message::content);
        let joined = PyBytes::new_with(py, parts().map(<[u8]>::len).sum(), |mut room| {
            for part in parts() {
                let (to, rest) = std::mem::take(&mut room).split_at_mut(part.len());
                to.copy_from_slice(part);
                room = rest;
            }
            Ok(())
        })?;
        Ok(Some(Message::of(Owned::from(joined.into_any()))))
    }
}
