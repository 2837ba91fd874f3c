//! From `transport.write` to ciphertext on its way.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::py::{Owned, call};
use crate::tls::engine::{Encrypted, Engine};
use crate::tls::protocol::{asyncio_method, failed};
use crate::tls::slots::{Slot, TlsProtocol};
use crate::tls::tools::Tools;
use crate::transports;

/// `_write_appdata` with one piece of data.
///
/// # Errors
/// What is not an `Exception`, and what `_fatal_error` raises.
// HOT: tls
pub(crate) fn write_one(
    py: Python<'_>,
    this: &TlsProtocol,
    data: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let Some(engine) = ready_to_write(py, this)? else {
        return leave_to_asyncio(py, this, PyTuple::new(py, [data])?.as_any());
    };
    let data = Owned::from(data);
    let result = encrypt(py, this, engine, &data).and_then(|()| process_outgoing(py, this));
    result.or_else(|error| failed(py, this, error))
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
    // Iterating runs code of others, and what has no length is refused before
    // anything is sent.
    let mut pieces = Vec::with_capacity(list.len().unwrap_or(0));
    for piece in list.try_iter()? {
        let piece = piece?;
        piece.len()?;
        pieces.push(piece);
    }
    let Some(engine) = ready_to_write(py, this)? else {
        return leave_to_asyncio(py, this, PyTuple::new(py, pieces)?.as_any());
    };
    let mut result = Ok(());
    for piece in pieces {
        result = encrypt(py, this, engine, &Owned::from(piece));
        if result.is_err() {
            break;
        }
    }
    result.and_then(|()| process_outgoing(py, this)).or_else(|error| failed(py, this, error))
}

/// The session to encrypt with, where nothing waits before what is written.
#[inline]
fn ready_to_write<'a>(py: Python<'_>, this: &'a TlsProtocol) -> PyResult<Option<&'a Engine>> {
    let tools = Tools::get(py)?;
    if !this.is(Slot::State, tools.wrapped.as_ptr()) || !this.has_no_backlog(py) {
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
fn encrypt(py: Python<'_>, this: &TlsProtocol, engine: &Engine, data: &Owned) -> PyResult<()> {
    if this.has_no_backlog(py) {
        match engine.write(py, data)? {
            Encrypted::All => return Ok(()),
            Encrypted::Again => {}
        }
    }
    let this = this.object();
    let this = this.bind(py);
    let length = data.bind(py).len()?;
    this.getattr(intern!(py, "_write_backlog"))?.call_method1("append", (data.bind(py),))?;
    let size = this.getattr(intern!(py, "_write_buffer_size"))?.extract::<usize>()?;
    this.setattr(intern!(py, "_write_buffer_size"), size + length)
}

/// `_process_outgoing`: hands ciphertext to the transport below.
///
/// # Errors
/// What the transport's `write` raises.
// HOT: tls
pub(crate) fn process_outgoing(py: Python<'_>, this: &TlsProtocol) -> PyResult<()> {
    let engine = match (this.engine(py)?, this.flag(Slot::SslWritingPaused)) {
        (Some(engine), Some(false)) => engine,
        _ => {
            asyncio_method(py, "_process_outgoing")?.call1((this.object().bind(py),))?;
            return Ok(());
        }
    };
    if engine.outgoing_bytes(py)? > 0 {
        let ciphertext = engine.take_outgoing(py)?;
        let Some(transport) = this.get(py, Slot::Transport) else {
            let missing = this.object().bind(py).getattr(intern!(py, "_transport"));
            return missing.map(drop);
        };
        transports::write_to(py, &transport, &ciphertext)?;
    }
    control_writing(py, this, engine)
}

/// `_control_app_writing`, where it has something to do.
#[inline]
fn control_writing(py: Python<'_>, this: &TlsProtocol, engine: &Engine) -> PyResult<()> {
    let idle = match (
        this.flag(Slot::AppWritingPaused),
        this.size(py, Slot::OutgoingHigh),
        this.size(py, Slot::WriteBufferSize),
    ) {
        (Some(false), Some(high), Some(backlog)) => {
            engine.outgoing_bytes(py)? as isize + backlog < high
        }
        _ => false,
    };
    if idle {
        return Ok(());
    }
    call::method(py, &this.object(), intern!(py, "_control_app_writing"), []).map(drop)
}
