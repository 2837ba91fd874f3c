//! From ciphertext to `data_received`.

use pyo3::intern;
use pyo3::prelude::*;

use crate::py::{Owned, call};
use crate::tls::engine::{Engine, Plaintext};
use crate::tls::protocol::{asyncio_method, failed, native_half};
use crate::tls::slots::{Slot, TlsProtocol};
use crate::tls::tools::Tools;
use crate::tls::writing;

/// Whether a transport may hand ciphertext to [`records_received`]: the class
/// is ours, and `buffer_updated`, which that stands in for, is asyncio's.
pub(crate) fn is_records_protocol(protocol: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = protocol.py();
    if native_half(py, &Owned::from(protocol)).is_none() {
        return Ok(false);
    }
    let own = protocol.get_type().getattr(intern!(py, "buffer_updated"))?;
    Ok(own.is(&Tools::get(py)?.buffer_updated))
}

/// What `buffer_updated` does, for ciphertext that is a `bytes` object.
///
/// # Errors
/// What `buffer_updated` would raise.
// HOT: tls
pub(crate) fn records_received(py: Python<'_>, protocol: &Owned, data: &Owned) -> PyResult<()> {
    let tools = Tools::get(py)?;
    let Some(this) = native_half(py, protocol) else { return Ok(()) };
    match this.engine(py)? {
        Some(engine) => engine.feed(py, data)?,
        None => {
            let Some(incoming) = this.get(py, Slot::Incoming) else { return Ok(()) };
            call::method(py, &incoming, intern!(py, "write"), [data.as_ptr()])?;
        }
    }
    if this.is(Slot::State, tools.wrapped.as_ptr()) {
        return do_read(py, this);
    }
    let step = if this.is(Slot::State, tools.handshaking.as_ptr()) {
        intern!(py, "_do_handshake")
    } else if this.is(Slot::State, tools.flushing.as_ptr()) {
        intern!(py, "_do_flush")
    } else if this.is(Slot::State, tools.shutting_down.as_ptr()) {
        intern!(py, "_do_shutdown")
    } else {
        return Ok(());
    };
    call::method(py, protocol, step, []).map(drop)
}

/// `_do_read`.
///
/// # Errors
/// What is not an `Exception`, and what `_fatal_error` raises.
// HOT: tls
pub(crate) fn do_read(py: Python<'_>, this: &TlsProtocol) -> PyResult<()> {
    let tools = Tools::get(py)?;
    let readable = this.is(Slot::State, tools.wrapped.as_ptr())
        || this.is(Slot::State, tools.flushing.as_ptr());
    if !readable {
        return Ok(());
    }
    let engine = match this.engine(py)? {
        Some(engine) if this.flag(Slot::AppReadingPaused) == Some(false) => engine,
        _ => {
            asyncio_method(py, "_do_read")?.call1((this.object().bind(py),))?;
            return Ok(());
        }
    };
    match read_and_answer(py, this, engine) {
        Ok(()) => Ok(()),
        Err(error) => failed(py, this, error),
    }
}

/// The part of `_do_read` whose exceptions are fatal to the connection.
fn read_and_answer(py: Python<'_>, this: &TlsProtocol, engine: &Engine) -> PyResult<()> {
    match this.flag(Slot::AppProtocolIsBuffer) {
        Some(false) => read_copied(py, this, engine)?,
        _ => {
            call::method(py, &this.object(), intern!(py, "_do_read__buffered"), [])?;
        }
    }
    if this.has_no_backlog(py) {
        writing::process_outgoing(py, this)?;
    } else {
        call::method(py, &this.object(), intern!(py, "_do_write"), [])?;
    }
    control_reading(py, this, engine)
}

/// `_do_read__copied`.
// HOT: tls
fn read_copied(py: Python<'_>, this: &TlsProtocol, engine: &Engine) -> PyResult<()> {
    let Plaintext { data, closed } = engine.read(py)?;
    if let Some(data) = data {
        let Some(protocol) = this.get(py, Slot::AppProtocol) else { return Ok(()) };
        call::method(py, &protocol, intern!(py, "data_received"), [data.as_ptr()])?;
    }
    if closed {
        let this = this.object();
        call::method(py, &this, intern!(py, "_call_eof_received"), [])?;
        call::method(py, &this, intern!(py, "_start_shutdown"), [])?;
    }
    Ok(())
}

/// `_control_ssl_reading`, where it has something to do.
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
