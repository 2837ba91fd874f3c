//! From the socket into a `StreamReader`: `data_received`, `feed_data` and
//! `_wakeup_waiter` in one step.
#![allow(unsafe_code)]

use pyo3::exceptions::PyNotImplementedError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;

use crate::event_loop::futures;
use crate::py::{Owned, bytes};
use crate::streams::attributes::{Attributes, Place};
use crate::streams::classes;
use crate::streams::fields::Field;
use crate::streams::state::StreamState;
use crate::streams::stock::Stock;

/// Whether data for this protocol may go through [`feed`]: its class is asyncio's own,
/// unmodified.
pub(crate) fn is_stream_protocol(protocol: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = protocol.py();
    let stock = Stock::get(py)?;
    Ok(stock.protocol.is_exact(protocol.into()) && stock.protocol.is_unmodified(py))
}

/// Feeds the reader of a protocol. False, with nothing done, if asyncio's code has to do
/// it.
///
/// # Errors
/// What `data_received` would raise.
// HOT: stream
pub(crate) fn feed(py: Python<'_>, protocol: &Owned, message: &Owned) -> PyResult<bool> {
    static PLACE: Place = Place::new();
    if !Stock::get(py)?.protocol.is_unmodified(py) {
        return Ok(false);
    }
    let attributes = Attributes::of(py, protocol.live())?;
    if attributes.search(py, intern!(py, "data_received"))?.is_some() {
        return Ok(false);
    }
    let name = intern!(py, "_stream_reader_wr");
    let Some(reference) = attributes.get(py, name, &PLACE)? else { return Ok(false) };
    if reference.bind(py).is_none() {
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
            feed_reader(py, &reader, message)
        }
        // The reader is gone, so nobody can read the data.
        0 => Ok(true),
        _ => Err(PyErr::fetch(py)),
    }
}

fn feed_reader(py: Python<'_>, reader: &Owned, message: &Owned) -> PyResult<bool> {
    let class = &Stock::get(py)?.reader;
    if !classes::is_reader(py, reader.live()) || !class.is_unmodified(py) {
        return Ok(false);
    }
    let Some(state) = StreamState::of(py, reader.live(), class)? else { return Ok(false) };
    let (Some(buffer), Some(limit), Some(false), Some(paused)) = (
        state.buffer(py),
        state.limit(py),
        state.flag(py, Field::Eof),
        state.flag(py, Field::Paused),
    ) else {
        return Ok(false);
    };
    let bound = message.bind(py);
    let Some(data) = bytes::exact(&bound) else { return Ok(false) };
    let length = buffer.len() + data.len();
    let is_too_much = length / 2 >= limit && length > 2 * limit;
    if state.is_none(py, Field::Waiter) {
        buffer.extend(py, data)?;
    } else {
        if length == data.len() && !is_too_much {
            state.hold(py, message.clone_ref(py));
        } else {
            buffer.extend(py, data)?;
        }
        wake(py, &state)?;
    }
    if is_too_much && !paused {
        pause(py, &state)?;
    }
    Ok(true)
}

/// `_wakeup_waiter`.
fn wake(py: Python<'_>, state: &StreamState) -> PyResult<()> {
    let Some(waiter) = state.get(py, Field::Waiter) else { return Ok(()) };
    state.set(py, Field::Waiter, Owned::none(py));
    let none = Owned::none(py);
    let Err(error) = futures::set_result(py, &waiter, &none) else {
        return Ok(());
    };
    // asyncio checks `cancelled` before it sets the result, but that is the rare case.
    let cancelled = waiter.bind(py).call_method0(intern!(py, "cancelled"))?.is_truthy()?;
    if cancelled { Ok(()) } else { Err(error) }
}

/// Pauses the transport: the buffer holds more than twice the limit.
#[cold]
fn pause(py: Python<'_>, state: &StreamState) -> PyResult<()> {
    let Some(transport) = state.get(py, Field::Transport) else { return Ok(()) };
    let transport = transport.bind(py);
    if transport.is_none() {
        return Ok(());
    }
    match transport.call_method0(intern!(py, "pause_reading")) {
        Ok(_) => state.set(py, Field::Paused, Owned::bool(py, true)),
        // The transport cannot be paused: as in asyncio, all data is buffered, and without
        // a transport no further try is made.
        Err(error) if error.is_instance_of::<PyNotImplementedError>(py) => {
            state.set(py, Field::Transport, Owned::none(py));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
