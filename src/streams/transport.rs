//! The transport below a stream: called directly if a call by name would end in native
//! code anyway.
#![allow(unsafe_code)]

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::py::{Live, Owned, call};
use crate::streams::stock;
use crate::transports::shape::StreamTransport;
use crate::transports::{on_loop, write};

/// The native transport, if nobody has set attributes on it or changed its class.
#[inline]
fn plain<'a>(py: Python<'_>, transport: &'a Owned) -> PyResult<Option<&'a StreamTransport>> {
    let class = stock::transport_class(py)?;
    if !class.is_exact(transport.live()) || !class.is_unmodified(py) {
        return Ok(None);
    }
    // SAFETY: an instance of `SocketTransport`, which derives from the native class.
    let native = unsafe { &*transport.as_ptr().cast::<StreamTransport>() };
    Ok((!native.has_attributes()).then_some(native))
}

/// `transport.write(data)`.
///
/// # Errors
/// What the method raises.
// HOT: stream
#[inline]
pub(crate) fn write(
    py: Python<'_>,
    transport: &Owned,
    name: &Bound<'_, PyString>,
    data: Live<'_>,
) -> PyResult<Owned> {
    match plain(py, transport)? {
        Some(native) => {
            let data = data.bind(py);
            on_loop(py, native, "write", |this, inside| {
                write::write(py, this, inside, native, &data)
            })?;
            Ok(Owned::none(py))
        }
        None => call::method(py, transport, name, [data]),
    }
}

/// `transport.is_closing()`.
///
/// # Errors
/// What the method raises.
// HOT: stream
#[inline]
pub(crate) fn is_closing(py: Python<'_>, transport: &Owned) -> PyResult<bool> {
    match plain(py, transport)? {
        Some(native) => Ok(native.is_closing()),
        None => call::method(py, transport, intern!(py, "is_closing"), [])?.bind(py).is_truthy(),
    }
}
