//! The streams of a server. asyncio's factory makes plain ones, which native ones replace
//! before user code sees them.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyWeakrefReference};

use crate::py::Owned;
use crate::streams::classes::{self, Classes, Slotted};
use crate::streams::fields::{self, Field};
use crate::streams::state::StreamState;
use crate::streams::stock::Stock;

/// Replaces the plain reader of a server's protocol by a native one. False, with nothing
/// done, if it is not as asyncio makes it, or others may hold it already.
///
/// # Errors
/// What Python raises while objects are made.
pub(crate) fn reader(protocol: &Bound<'_, PyAny>, plain: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = plain.py();
    let strong = protocol.getattr_opt(intern!(py, "_strong_reader"))?;
    if strong.is_none_or(|strong| !strong.is(plain)) || !is_unseen(protocol, plain)? {
        return Ok(false);
    }
    let Some(native) = copy(plain, &Classes::get(py)?.reader, fields::READER)? else {
        return Ok(false);
    };
    let reference = PyWeakrefReference::new(&native)?;
    protocol.setattr(intern!(py, "_stream_reader_wr"), reference)?;
    protocol.setattr(intern!(py, "_strong_reader"), &native)?;
    Ok(true)
}

/// Whether only the protocol refers to its reader, strongly and weakly.
fn is_unseen(protocol: &Bound<'_, PyAny>, reader: &Bound<'_, PyAny>) -> PyResult<bool> {
    static COUNT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = reader.py();
    let count = COUNT.import(py, "weakref", "getweakrefcount")?;
    let reference = protocol.getattr(intern!(py, "_stream_reader_wr"))?;
    // Two references each: the protocol's dictionary has one, this function or its caller
    // the other.
    // SAFETY: live objects.
    let (strong, weak) =
        unsafe { (ffi::Py_REFCNT(reader.as_ptr()), ffi::Py_REFCNT(reference.as_ptr())) };
    Ok(strong == 2 && weak == 2 && count.call1((reader,))?.extract::<usize>()? == 1)
}

/// A native writer that replaces the one that `connection_made` has just made; None if
/// that is not as asyncio makes it.
///
/// # Errors
/// What Python raises while objects are made.
pub(crate) fn writer<'py>(
    protocol: &Bound<'py, PyAny>,
    plain: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = plain.py();
    let stock = &Stock::get(py)?.writer;
    if !stock.is_exact(plain.into()) || !stock.is_unmodified(py) {
        return Ok(None);
    }
    let Some(native) = copy(plain, &Classes::get(py)?.writer, fields::WRITER)? else {
        return Ok(None);
    };
    // Up to CPython 3.12 the protocol refers to it as well.
    let name = intern!(py, "_stream_writer");
    if protocol.getattr_opt(name)?.is_some_and(|held| held.is(plain)) {
        protocol.setattr(name, &native)?;
    }
    // The plain writer dies with the frame of `connection_made`. With this transport its
    // `__del__` neither warns nor closes the connection.
    plain.setattr(intern!(py, "_transport"), Bound::new(py, Taken)?)?;
    Ok(Some(native))
}

/// An instance of the native class with the attributes of a plain stream. None if that has
/// others than asyncio's `__init__` sets, as in debug mode.
fn copy<'py>(
    plain: &Bound<'py, PyAny>,
    class: &Slotted,
    fields: &[Field],
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = plain.py();
    let attributes = plain.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?;
    if attributes.len() != fields.len() {
        return Ok(None);
    }
    let state = StreamState::new(py)?;
    for field in fields {
        let Some(value) = attributes.get_item(field.interned(py))? else { return Ok(None) };
        state.set(py, *field, Owned::from(value));
    }
    let native = class.new_instance(py)?;
    if let Some(slot) = classes::slot(py, (&native).into()) {
        state.fill(py, slot);
    }
    Ok(Some(native.bind(py).to_owned()))
}

/// The transport of a plain writer that was replaced: it looks closed.
#[pyclass(frozen, module = "tokioloop._core")]
struct Taken;

#[pymethods]
impl Taken {
    fn is_closing(&self) -> bool {
        true
    }
}
