//! `close()` called by a finalizer. The collector runs on whichever thread allocates, and
//! an unreachable `StreamWriter` closes its transport on that thread.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::transports::interior::Interior;
use crate::transports::shape::Transport;

/// Frames that are searched: the finalizer's own and those of `close` methods below it.
const NEAREST_FRAMES: usize = 4;

/// Whether one of the nearest callers is a `__del__`.
///
/// # Errors
/// What Python raises while its frames are inspected.
#[pyfunction]
pub(crate) fn called_by_finalizer(py: Python<'_>) -> PyResult<bool> {
    let Ok(mut frame) = py.import("sys")?.call_method0(intern!(py, "_getframe")) else {
        return Ok(false);
    };
    for _ in 0..NEAREST_FRAMES {
        if frame.is_none() {
            break;
        }
        let name = frame.getattr(intern!(py, "f_code"))?.getattr(intern!(py, "co_name"))?;
        if name.cast::<PyString>()?.to_str()? == "__del__" {
            return Ok(true);
        }
        frame = frame.getattr(intern!(py, "f_back"))?;
    }
    Ok(false)
}

/// Schedules the `close` that a finalizer on another thread has called.
///
/// # Errors
/// `refused` for every other caller, and if the loop was closed meanwhile.
#[cold]
pub(crate) fn close_later<I: Interior>(
    py: Python<'_>,
    transport: &Transport<I>,
    refused: PyErr,
) -> PyResult<()> {
    let event_loop = transport.event_loop(py)?;
    let elsewhere = event_loop.cell.is_running() && !event_loop.is_current();
    if !elsewhere || !called_by_finalizer(py)? {
        return Err(refused);
    }
    let held = transport.reference();
    let close = held.object().bind(py).getattr(intern!(py, "close"))?;
    let event_loop = transport.event_loop_object();
    let sent = event_loop.bind(py).call_method1(intern!(py, "call_soon_threadsafe"), (close,));
    sent.map(drop).map_err(|_| refused)
}
