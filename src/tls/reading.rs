//! From ciphertext to `data_received`.

use pyo3::intern;
use pyo3::prelude::*;

use crate::py::{Owned, buffer, bytes, call};
use crate::tls::engine::Engine;
use crate::tls::openssl::Session;
use crate::tls::plaintext::{self, Lender, Plaintext, Stop};
use crate::tls::protocol::{asyncio_method, failed, native_half};
use crate::tls::slots::{Slot, TlsProtocol};
use crate::tls::tools::Tools;
use crate::tls::writing;

/// Whether a transport may hand ciphertext to [`records_received`]: the class is ours, and
/// `buffer_updated`, which that function replaces, is asyncio's.
pub(crate) fn is_records_protocol(protocol: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = protocol.py();
    if native_half(py, &Owned::from(protocol)).is_none() {
        return Ok(false);
    }
    let own = protocol.get_type().getattr(intern!(py, "buffer_updated"))?;
    Ok(own.is(&Tools::get(py)?.buffer_updated))
}

/// Ciphertext on its way to a protocol.
#[derive(Clone, Copy)]
pub(crate) enum Ciphertext<'a> {
    /// A `bytes` object.
    Object(&'a Owned),
    /// Memory that is reused afterwards.
    Memory(&'a [u8]),
}

/// Whether the session of a protocol is driven without the methods of `ssl`.
#[inline]
pub(crate) fn is_driven_directly(py: Python<'_>, protocol: &Owned) -> PyResult<bool> {
    let Some(this) = native_half(py, protocol) else { return Ok(false) };
    Ok(this.engine(py)?.and_then(Engine::direct).is_some())
}

/// Does what asyncio's `buffer_updated` does.
///
/// # Errors
/// What `buffer_updated` would raise.
// HOT: tls
pub(crate) fn records_received(
    py: Python<'_>,
    protocol: &Owned,
    ciphertext: Ciphertext<'_>,
    lender: Lender<'_>,
) -> PyResult<()> {
    let tools = Tools::get(py)?;
    let Some(this) = native_half(py, protocol) else { return Ok(()) };
    if let (Ciphertext::Memory(fresh), true) = (ciphertext, this.is(Slot::State, &tools.wrapped)) {
        return do_read(py, this, fresh, Some(lender));
    }
    take_in(py, this, ciphertext)?;
    if this.is(Slot::State, &tools.wrapped) {
        return do_read(py, this, &[], Some(lender));
    }
    let step = if this.is(Slot::State, &tools.handshaking) {
        intern!(py, "_do_handshake")
    } else if this.is(Slot::State, &tools.flushing) {
        intern!(py, "_do_flush")
    } else if this.is(Slot::State, &tools.shutting_down) {
        intern!(py, "_do_shutdown")
    } else {
        return Ok(());
    };
    call::method(py, protocol, step, []).map(drop)
}

/// Puts ciphertext where the session reads it.
fn take_in(py: Python<'_>, this: &TlsProtocol, ciphertext: Ciphertext<'_>) -> PyResult<()> {
    let engine = this.engine(py)?;
    let copied;
    let data = match (ciphertext, engine.and_then(Engine::direct)) {
        (Ciphertext::Object(data), _) => data,
        (Ciphertext::Memory([]), _) => return Ok(()),
        (Ciphertext::Memory(fresh), Some(session)) => return session.feed(fresh),
        (Ciphertext::Memory(fresh), None) => {
            copied = bytes::copy(py, fresh)?;
            &copied
        }
    };
    if let Some(engine) = engine {
        return engine.feed(py, data);
    }
    let Some(incoming) = this.get(py, Slot::Incoming) else { return Ok(()) };
    call::method(py, &incoming, intern!(py, "write"), [data.live()]).map(drop)
}

/// `_do_read`, with ciphertext that was just received and is not in the session's buffer
/// yet.
///
/// # Errors
/// Exceptions that are no `Exception`, and what `_fatal_error` raises.
// HOT: tls
pub(crate) fn do_read(
    py: Python<'_>,
    this: &TlsProtocol,
    fresh: &[u8],
    lender: Option<Lender<'_>>,
) -> PyResult<()> {
    let tools = Tools::get(py)?;
    let readable = this.is(Slot::State, &tools.wrapped) || this.is(Slot::State, &tools.flushing);
    if !readable {
        return Ok(());
    }
    let engine = match this.engine(py)? {
        Some(engine) if this.flag(Slot::AppReadingPaused) == Some(false) => engine,
        _ => {
            take_in(py, this, Ciphertext::Memory(fresh))?;
            asyncio_method(py, "_do_read")?.call1((this.object().bind(py),))?;
            return Ok(());
        }
    };
    match read_and_answer(py, this, engine, fresh, lender) {
        Ok(()) => Ok(()),
        Err(error) => failed(py, this, error),
    }
}

/// The part of `_do_read` whose exceptions are fatal to the connection.
fn read_and_answer(
    py: Python<'_>,
    this: &TlsProtocol,
    engine: &Engine,
    fresh: &[u8],
    lender: Option<Lender<'_>>,
) -> PyResult<()> {
    let closed = match (this.flag(Slot::AppProtocolIsBuffer), engine.direct()) {
        (Some(false), _) => read_copied(py, this, engine, fresh, lender)?,
        (Some(true), Some(session)) => read_buffered(py, this, engine, session, fresh)?,
        _ => {
            take_in(py, this, Ciphertext::Memory(fresh))?;
            call::method(py, &this.object(), intern!(py, "_do_read__buffered"), [])?;
            false
        }
    };
    if closed {
        let this = this.object();
        call::method(py, &this, intern!(py, "_call_eof_received"), [])?;
        call::method(py, &this, intern!(py, "_start_shutdown"), [])?;
    }
    if this.has_no_backlog(py) {
        writing::process_outgoing(py, this)?;
    } else {
        call::method(py, &this.object(), intern!(py, "_do_write"), [])?;
    }
    control_reading(py, this, engine)
}

/// `_do_read__copied`; true if the peer has ended its side.
// HOT: tls
fn read_copied(
    py: Python<'_>,
    this: &TlsProtocol,
    engine: &Engine,
    fresh: &[u8],
    lender: Option<Lender<'_>>,
) -> PyResult<bool> {
    let Plaintext { message, closed } = match engine.direct() {
        Some(session) => session.reading_from(fresh, || plaintext::read(py, engine, lender))??,
        None => {
            take_in(py, this, Ciphertext::Memory(fresh))?;
            plaintext::read(py, engine, lender)?
        }
    };
    let Some(message) = message else { return Ok(closed) };
    let Some(protocol) = this.get(py, Slot::AppProtocol) else { return Ok(closed) };
    let data = message.object().live();
    let result = call::method(py, &protocol, intern!(py, "data_received"), [data]);
    if let Some(lender) = lender {
        lender.give_back(message);
    }
    result.map(|_| closed)
}

/// `_do_read__buffered`; true if the peer has ended its side.
fn read_buffered(
    py: Python<'_>,
    this: &TlsProtocol,
    engine: &Engine,
    session: &Session,
    fresh: &[u8],
) -> PyResult<bool> {
    let slot = |slot, name: &str| match this.get(py, slot) {
        Some(method) => Ok(method),
        None => this.object().bind(py).getattr(name).map(Owned::from),
    };
    let ask = || {
        let get_buffer = slot(Slot::GetBuffer, "_app_protocol_get_buffer")?;
        let waiting = session.incoming_bytes() + fresh.len();
        let hint = Owned::from(waiting.into_pyobject(py)?.into_any());
        let given = call::call1(py, &get_buffer, &hint)?;
        let wants = given.bind(py).len()?;
        Ok((given, wants))
    };
    let (given, wants) = match ask() {
        Ok(answer) => answer,
        Err(error) => {
            // If this ends the run, the data is there when the loop runs again.
            session.feed(fresh)?;
            return Err(error);
        }
    };
    let given = given.bind(py);
    let mut room = buffer::Room::new();
    let (count, full, closed) = match buffer::View::writable(&mut room, &given) {
        Ok(mut view) if view.len() > 0 => {
            let read = || plaintext::fill(py, engine, session, view.space());
            let (count, stop) = session.reading_from(fresh, read)??;
            (count, count == view.len(), matches!(stop, Stop::Closed))
        }
        // For a buffer that is empty or not writable, `ssl` raises, or asyncio's rules apply.
        _ => match session.reading_from(fresh, || engine.read_into(py, wants, &given))?? {
            Some(0) => (0, false, true),
            Some(count) => (count, count >= wants, false),
            None => (0, false, false),
        },
    };
    if full {
        let this = this.object();
        let this = this.bind(py);
        let read_on = this.getattr(intern!(py, "_do_read"))?;
        this.getattr(intern!(py, "_loop"))?.call_method1(intern!(py, "call_soon"), (read_on,))?;
    }
    if count > 0 {
        let updated = slot(Slot::BufferUpdated, "_app_protocol_buffer_updated")?;
        let count = Owned::from(count.into_pyobject(py)?.into_any());
        call::call1(py, &updated, &count)?;
    }
    Ok(closed)
}

/// `_control_ssl_reading`, if it has something to do.
#[inline]
fn control_reading(py: Python<'_>, this: &TlsProtocol, engine: &Engine) -> PyResult<()> {
    let waiting = engine.incoming_bytes(py)? as isize;
    let idle = match (this.flag(Slot::SslReadingPaused), this.size(py, Slot::IncomingHigh)) {
        (Some(false), Some(high)) => waiting < high,
        _ => false,
    };
    if idle {
        return Ok(());
    }
    call::method(py, &this.object(), intern!(py, "_control_ssl_reading"), []).map(drop)
}
