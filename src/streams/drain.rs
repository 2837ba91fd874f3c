//! What `StreamWriter.drain` does between two waits.

use pyo3::intern;
use pyo3::prelude::*;

use crate::errors;
use crate::py::Owned;
use crate::streams::attributes::{Attributes, Place};
use crate::streams::classes;
use crate::streams::fields::Field;
use crate::streams::state::StreamState;
use crate::streams::stock::Stock;
use crate::streams::transport;

/// How a `drain` begins.
pub(crate) enum Begin {
    /// The loop has to turn once, so that `connection_lost` can be called.
    Closing,
    Open,
}

/// The first step.
///
/// # Errors
/// The exception of the reader, if it has one.
// HOT: stream
pub(crate) fn begin(py: Python<'_>, state: &StreamState) -> PyResult<Begin> {
    if let Some(reader) = state.get(py, Field::Reader) {
        let exception = exception_of(py, &reader)?;
        if !exception.bind(py).is_none() {
            let exception = PyErr::from_value(exception.bind(py).to_owned());
            return Err(errors::raised(py, exception));
        }
    }
    let Some(transport) = state.get(py, Field::Transport) else { return Ok(Begin::Open) };
    let closing = transport::is_closing(py, &transport)?;
    Ok(if closing { Begin::Closing } else { Begin::Open })
}

/// `reader.exception()`, or None without a reader.
fn exception_of(py: Python<'_>, reader: &Owned) -> PyResult<Owned> {
    let bound = reader.bind(py);
    if bound.is_none() {
        return Ok(Owned::none(py));
    }
    let class = &Stock::get(py)?.reader;
    if classes::is_reader(py, reader.live()) && class.is_unmodified(py) {
        if let Some(state) = StreamState::of(py, reader.live(), class)? {
            if let Some(exception) = state.get(py, Field::Exception) {
                return Ok(exception);
            }
        }
    }
    Ok(bound.call_method0(intern!(py, "exception"))?.into())
}

/// The rest: what the protocol's `_drain_helper` returns, to be awaited, or None if there
/// is nothing to wait for.
///
/// # Errors
/// What the helper raises when it is called.
// HOT: stream
pub(crate) fn flow_control(py: Python<'_>, state: &StreamState) -> PyResult<Option<Owned>> {
    let Some(protocol) = state.get(py, Field::Protocol) else { return Ok(None) };
    let class = &Stock::get(py)?.protocol;
    if class.is_exact(protocol.live()) && class.is_unmodified(py) {
        static PAUSED: Place = Place::new();
        static LOST: Place = Place::new();
        let state = Attributes::of(py, protocol.live())?;
        if state.is_false(py, intern!(py, "_paused"), &PAUSED)?
            && state.is_false(py, intern!(py, "_connection_lost"), &LOST)?
            && state.search(py, intern!(py, "_drain_helper"))?.is_none()
        {
            return Ok(None);
        }
    }
    let helper = protocol.bind(py).call_method0(intern!(py, "_drain_helper"))?;
    // An overridden helper may return any awaitable.
    let is_coroutine = helper.hasattr(intern!(py, "cr_frame"))?;
    let helper =
        if is_coroutine { helper } else { helper.call_method0(intern!(py, "__await__"))? };
    Ok(Some(helper.into()))
}
