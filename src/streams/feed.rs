//! From the socket into a `StreamReader`: `data_received`, `feed_data` and
//! `_wakeup_waiter` in one step.
#![allow(unsafe_code)]

use pyo3::exceptions::PyNotImplementedError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;

use crate::py::Owned;
use crate::streams::attributes::Attributes;
use crate::streams::classes;
use crate::streams::stock::Stock;

/// Whether data for this protocol may go through [`feed`]: it is asyncio's own,
/// and `function`, the method that it takes data with, is as well.
pub(crate) fn is_stream_protocol(protocol: &Bound<'_, PyAny>, function: &Owned) -> PyResult<bool> {
    let py = protocol.py();
    let stock = Stock::get(py)?;
    Ok(stock.protocol.is_exact(protocol.as_ptr())
        && stock.protocol.is_unmodified(py)
        && stock
            .protocol
            .member("data_received")
            .is_some_and(|own| own.as_ptr() == function.as_ptr()))
}

/// Feeds the reader of a protocol. False where asyncio's code has to do it;
/// nothing has happened then.
///
/// # Errors
/// What `data_received` would raise.
// HOT: stream
pub(crate) fn feed(py: Python<'_>, protocol: &Owned, data: &[u8]) -> PyResult<bool> {
    let reference = protocol.bind(py).getattr(intern!(py, "_stream_reader_wr"))?;
    if reference.is_none() {
        return Ok(true);
    }
    // SAFETY: a live object.
    if unsafe { ffi::PyWeakref_CheckRefExact(reference.as_ptr()) } == 0 {
        return Ok(false);
    }
    let mut reader = std::ptr::null_mut();
    // SAFETY: a weak reference, as checked; the answer is a new reference.
    match unsafe { ffi::compat::PyWeakref_GetRef(reference.as_ptr(), &mut reader) } {
        1 => {
            // SAFETY: the referent lives, and this reference is ours.
            let reader = unsafe { Owned::from_raw(reader) };
            feed_reader(py, &reader, data)
        }
        // Nobody can read this any more.
        0 => Ok(true),
        _ => Err(PyErr::fetch(py)),
    }
}

fn feed_reader(py: Python<'_>, reader: &Owned, data: &[u8]) -> PyResult<bool> {
    let class = &Stock::get(py)?.reader;
    let known = classes::is_reader(py, reader.as_ptr()) || class.is_exact(reader.as_ptr());
    if !known || !class.is_unmodified(py) {
        return Ok(false);
    }
    let state = Attributes::of(py, reader)?;
    let (Some(buffer), Some(limit), Some(false), Some(paused), Some(waiter), Some(transport)) = (
        state.buffer(py)?,
        state.limit(py)?,
        state.flag(py, intern!(py, "_eof"))?,
        state.flag(py, intern!(py, "_paused"))?,
        state.get(py, intern!(py, "_waiter"))?,
        state.get(py, intern!(py, "_transport"))?,
    ) else {
        return Ok(false);
    };
    if state.hide_members(py, class)? {
        return Ok(false);
    }
    buffer.extend(py, data)?;
    let waiter = waiter.bind(py);
    if !waiter.is_none() {
        state.set(py, intern!(py, "_waiter"), &Owned::none(py))?;
        if !waiter.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
            waiter.call_method1(intern!(py, "set_result"), (py.None(),))?;
        }
    }
    let transport = transport.bind(py);
    if !paused && buffer.len() / 2 >= limit && buffer.len() > 2 * limit && !transport.is_none() {
        pause(&state, &transport)?;
    }
    Ok(true)
}

/// The reader has more than it wants to hold.
#[cold]
fn pause(state: &Attributes, transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = transport.py();
    match transport.call_method0(intern!(py, "pause_reading")) {
        Ok(_) => state.set(py, intern!(py, "_paused"), &Owned::bool(py, true)),
        // The transport cannot be paused: all data is buffered, and nobody
        // tries again.
        Err(error) if error.is_instance_of::<PyNotImplementedError>(py) => {
            state.set(py, intern!(py, "_transport"), &Owned::none(py))
        }
        Err(error) => Err(error),
    }
}
