//! From `transport.write` to ciphertext on its way.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyMemoryView, PySlice, PyTuple};

use crate::py::message::Spare;
use crate::py::{Owned, buffer, bytes, call, length_hint};
use crate::tls::engine::{Encrypted, Engine};
use crate::tls::openssl::Session;
use crate::tls::protocol::{asyncio_method, failed};
use crate::tls::slots::{Slot, TlsProtocol};
use crate::tls::tools::Tools;
use crate::transports;

/// Bytes that are encrypted at a time: seven records, which with their overhead stay below
/// the size from which glibc maps new memory for each block.
const PART_BYTES: usize = 7 * 16 * 1024;
/// Most plaintext in one record, and the most that a cipher in use adds to it.
const RECORD_BYTES: usize = 16 * 1024;
const RECORD_OVERHEAD: usize = 128;
/// Ciphertext of at most this many bytes is sent from the stack.
const SMALL_BYTES: usize = 4096;

/// `_write_appdata` with one piece of data.
///
/// # Errors
/// Exceptions that are no `Exception`, and what `_fatal_error` raises.
// HOT: tls
pub(crate) fn write_one(
    py: Python<'_>,
    this: &TlsProtocol,
    data: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let Some(engine) = ready_to_write(py, this)? else {
        return leave_to_asyncio(py, this, PyTuple::new(py, [data])?.as_any());
    };
    let paused = this.flag(Slot::SslWritingPaused) != Some(false);
    let data = Owned::from(data);
    let result = match engine.direct() {
        Some(session) if !paused && session.outgoing_bytes() == 0 => {
            write_through(py, this, engine, session, &data)
        }
        _ => encrypt(py, this, engine, &data, paused).and_then(|()| send(py, this, engine, paused)),
    };
    result.or_else(|error| failed(py, this, error))
}

/// Encrypts and sends; the data is let go of before the program is told of room or of a
/// lack of it.
// HOT: tls
#[inline]
fn write_through(
    py: Python<'_>,
    this: &TlsProtocol,
    engine: &Engine,
    session: &Session,
    data: &Owned,
) -> PyResult<()> {
    if write_parts(py, this, engine, session, data)? {
        return control_writing(py, this, 0);
    }
    send(py, this, engine, false)
}

/// Encrypts into the memory that is sent from, and sends, in parts of whole
/// records. False if the rest had to take the way through `ssl`.
// HOT: tls
#[inline]
fn write_parts(
    py: Python<'_>,
    this: &TlsProtocol,
    engine: &Engine,
    session: &Session,
    data: &Owned,
) -> PyResult<bool> {
    let bound = data.bind(py);
    let mut room = buffer::Room::new();
    let view;
    let content = match bytes::exact(&bound) {
        Some(content) => content,
        None => match buffer::View::readable(&mut room, &bound) {
            Ok(readable) => {
                view = readable;
                view.bytes()
            }
            // `ssl` raises its own error for what is no buffer.
            Err(_) => {
                encrypt_by_method(py, this, engine, data)?;
                return Ok(false);
            }
        },
    };
    for (index, part) in content.chunks(PART_BYTES).enumerate() {
        if index > 0 && transports::has_lost(py, &transport_of(py, this)?)? {
            // The transport counts writes after a loss; all parts are to count as one.
            break;
        }
        let (all, overflowed) = write_part(py, this, session, part)?;
        if overflowed {
            send_ciphertext(py, this, session)?;
        }
        if !all {
            encrypt_the_rest(py, this, engine, data, index * PART_BYTES)?;
            return Ok(false);
        }
    }
    Ok(true)
}

/// Encrypts and sends one part. Returns whether the session took all of it, and whether
/// some of its records found no room and went to the `MemoryBIO`.
#[inline]
fn write_part(
    py: Python<'_>,
    this: &TlsProtocol,
    session: &Session,
    part: &[u8],
) -> PyResult<(bool, bool)> {
    let records = part.len() / RECORD_BYTES + 1;
    let expected = part.len() + records * RECORD_OVERHEAD;
    if expected > SMALL_BYTES {
        let mut filling = Spare::default().filling(py, expected)?;
        let (all, written) = session.write_into(part, filling.space(0));
        // SAFETY: `write_into` has written the first `written.length` bytes.
        let message = unsafe { filling.finish(py, written.length, false)? };
        if written.length > 0 {
            transports::write_to(py, &transport_of(py, this)?, message.object())?;
        }
        return Ok((all, written.overflowed));
    }
    let mut room = [MaybeUninit::uninit(); SMALL_BYTES];
    let (all, written) = session.write_into(part, &mut room);
    let filled = room.get(..written.length).unwrap_or_default();
    if !filled.is_empty() {
        // SAFETY: `write_into` has written the first `written.length` bytes.
        let filled = unsafe { &*(std::ptr::from_ref(filled) as *const [u8]) };
        transports::write_slice_to(py, &transport_of(py, this)?, filled)?;
    }
    Ok((all, written.overflowed))
}

/// `_write_appdata`.
///
/// # Errors
/// As of [`write_one`], and what iterating over the list raises.
pub(crate) fn write_list(
    py: Python<'_>,
    this: &TlsProtocol,
    list: &Bound<'_, PyAny>,
) -> PyResult<()> {
    if ready_to_write(py, this)?.is_none() {
        return leave_to_asyncio(py, this, list);
    }
    // Iterating may run user code, and a piece without a length is refused before anything
    // is sent.
    let mut pieces = Vec::with_capacity(length_hint(list));
    for piece in list.try_iter()? {
        let piece = piece?;
        piece.len()?;
        pieces.push(piece);
    }
    let Some(engine) = ready_to_write(py, this)? else {
        return leave_to_asyncio(py, this, PyTuple::new(py, pieces)?.as_any());
    };
    let paused = this.flag(Slot::SslWritingPaused) != Some(false);
    pieces
        .into_iter()
        .try_for_each(|piece| encrypt(py, this, engine, &Owned::from(piece), paused))
        .and_then(|()| send(py, this, engine, paused))
        .or_else(|error| failed(py, this, error))
}

/// The session to encrypt with. None if the handshake is not done, if other data waits to
/// be encrypted first, or if only asyncio's code can drive the session.
#[inline]
fn ready_to_write<'a>(py: Python<'_>, this: &'a TlsProtocol) -> PyResult<Option<&'a Engine>> {
    let tools = Tools::get(py)?;
    if !this.is(Slot::State, &tools.wrapped) || !this.has_no_backlog(py) {
        return Ok(None);
    }
    this.engine(py)
}

#[cold]
fn leave_to_asyncio(py: Python<'_>, this: &TlsProtocol, list: &Bound<'_, PyAny>) -> PyResult<()> {
    asyncio_method(py, "_write_appdata")?.call1((this.object().bind(py), list)).map(drop)
}

/// Encrypts one piece; what the session does not take now waits in the backlog.
#[inline]
fn encrypt(
    py: Python<'_>,
    this: &TlsProtocol,
    engine: &Engine,
    data: &Owned,
    paused: bool,
) -> PyResult<()> {
    if !this.has_no_backlog(py) {
        return put_off(py, this, data.bind(py).to_owned());
    }
    let Some(session) = engine.direct() else { return encrypt_by_method(py, this, engine, data) };
    let bound = data.bind(py);
    if let Some(content) = bytes::exact(&bound) {
        return encrypt_directly(py, this, engine, session, data, content, paused);
    }
    let mut room = buffer::Room::new();
    match buffer::View::readable(&mut room, &bound) {
        Ok(view) => encrypt_directly(py, this, engine, session, data, view.bytes(), paused),
        // `ssl` raises its own error for what is no buffer.
        Err(_) => encrypt_by_method(py, this, engine, data),
    }
}

/// Encrypts in parts of whole records, and sends what is encrypted before the next part:
/// so the whole ciphertext of a large message is never in memory besides the message.
// HOT: tls
#[inline]
fn encrypt_directly(
    py: Python<'_>,
    this: &TlsProtocol,
    engine: &Engine,
    session: &Session,
    data: &Owned,
    content: &[u8],
    paused: bool,
) -> PyResult<()> {
    for (index, part) in content.chunks(PART_BYTES).enumerate() {
        if !paused && session.outgoing_bytes() >= PART_BYTES {
            if transports::has_lost(py, &transport_of(py, this)?)? {
                return Ok(());
            }
            send_ciphertext(py, this, session)?;
        }
        if !session.write(part) {
            return encrypt_the_rest(py, this, engine, data, index * PART_BYTES);
        }
    }
    Ok(())
}

/// The session did not take a part. Repeats the call with the rest through `ssl`, which
/// knows the reason.
#[cold]
fn encrypt_the_rest(
    py: Python<'_>,
    this: &TlsProtocol,
    engine: &Engine,
    data: &Owned,
    start: usize,
) -> PyResult<()> {
    if start == 0 {
        return encrypt_by_method(py, this, engine, data);
    }
    let view = PyMemoryView::from(&data.bind(py))?.call_method1("cast", ("B",))?;
    let rest = view.get_item(PySlice::new(py, start as isize, isize::MAX, 1))?;
    encrypt_by_method(py, this, engine, &rest.into())
}

fn encrypt_by_method(
    py: Python<'_>,
    this: &TlsProtocol,
    engine: &Engine,
    data: &Owned,
) -> PyResult<()> {
    match engine.write(py, data)? {
        Encrypted::All => Ok(()),
        Encrypted::Again => put_off(py, this, data.bind(py).to_owned()),
    }
}

/// Appends to the backlog, which asyncio's code encrypts later.
#[cold]
fn put_off(py: Python<'_>, this: &TlsProtocol, data: Bound<'_, PyAny>) -> PyResult<()> {
    let this = this.object();
    let this = this.bind(py);
    let length = data.len()?;
    this.getattr(intern!(py, "_write_backlog"))?.call_method1("append", (data,))?;
    let size = this.getattr(intern!(py, "_write_buffer_size"))?.extract::<usize>()?;
    this.setattr(intern!(py, "_write_buffer_size"), size + length)
}

/// `_process_outgoing`: hands ciphertext to the transport below.
///
/// # Errors
/// What the transport's `write` raises.
// HOT: tls
pub(crate) fn process_outgoing(py: Python<'_>, this: &TlsProtocol) -> PyResult<()> {
    match (this.engine(py)?, this.flag(Slot::SslWritingPaused)) {
        (Some(engine), Some(paused)) => send(py, this, engine, paused),
        _ => {
            asyncio_method(py, "_process_outgoing")?.call1((this.object().bind(py),))?;
            Ok(())
        }
    }
}

/// Hands ciphertext to the transport below, unless that is `paused`, and then does flow
/// control.
#[inline]
fn send(py: Python<'_>, this: &TlsProtocol, engine: &Engine, paused: bool) -> PyResult<()> {
    if paused {
        return control_writing(py, this, engine.outgoing_bytes(py)?);
    }
    match engine.direct() {
        Some(session) => send_ciphertext(py, this, session)?,
        None if engine.outgoing_bytes(py)? > 0 => {
            let ciphertext = engine.take_outgoing(py)?;
            transports::write_to(py, &transport_of(py, this)?, &ciphertext)?;
        }
        None => {}
    }
    control_writing(py, this, 0)
}

// HOT: tls
#[inline]
fn send_ciphertext(py: Python<'_>, this: &TlsProtocol, session: &Session) -> PyResult<()> {
    let waiting = session.outgoing_bytes();
    if waiting == 0 {
        return Ok(());
    }
    if waiting > SMALL_BYTES {
        let mut filling = Spare::default().filling(py, waiting)?;
        let length = session.take_outgoing(filling.space(0));
        // SAFETY: `take_outgoing` has written the first `length` bytes.
        let message = unsafe { filling.finish(py, length, false)? };
        return transports::write_to(py, &transport_of(py, this)?, message.object());
    }
    let mut room = [MaybeUninit::uninit(); SMALL_BYTES];
    let length = session.take_outgoing(&mut room);
    let filled = room.get(..length).unwrap_or_default();
    // SAFETY: `take_outgoing` has written the first `length` bytes.
    let filled = unsafe { &*(std::ptr::from_ref(filled) as *const [u8]) };
    transports::write_slice_to(py, &transport_of(py, this)?, filled)
}

/// `self._transport`.
#[inline]
fn transport_of(py: Python<'_>, this: &TlsProtocol) -> PyResult<Owned> {
    match this.get(py, Slot::Transport) {
        Some(transport) => Ok(transport),
        None => Ok(this.object().bind(py).getattr(intern!(py, "_transport"))?.into()),
    }
}

/// `_control_app_writing`, if it has something to do.
#[inline]
fn control_writing(py: Python<'_>, this: &TlsProtocol, outgoing: usize) -> PyResult<()> {
    let idle = match (
        this.flag(Slot::AppWritingPaused),
        this.size(py, Slot::OutgoingHigh),
        this.size(py, Slot::WriteBufferSize),
    ) {
        (Some(false), Some(high), Some(backlog)) => outgoing as isize + backlog < high,
        _ => false,
    };
    if idle {
        return Ok(());
    }
    call::method(py, &this.object(), intern!(py, "_control_app_writing"), []).map(drop)
}
