//! The beginning of a transport: what is scheduled when it has been made.

use pyo3::prelude::*;
use pyo3::{ffi, intern};

use crate::event_loop::{EventLoop, This};
use crate::imports::Imports;
use crate::py::Owned;
use crate::transports::interior::Interior;
use crate::transports::shape::TransportRef;

/// asyncio's order: connection_made, then reading, then the waiter, each in a
/// call of its own.
pub(crate) fn begin<I: Interior>(
    py: Python<'_>,
    this: This<'_>,
    transport: &TransportRef<I>,
    connection_made: &Bound<'_, PyAny>,
    waiter: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let object = transport.object();
    EventLoop::call_soon(py, this, &Owned::from(connection_made), &[object.as_ptr()])?;
    let start = object.bind(py).getattr(intern!(py, "_start_reading"))?;
    EventLoop::call_soon(py, this, &Owned::from(start), &[])?;
    if let Some(waiter) = waiter {
        let wake = Imports::get(py)?.set_result_unless_cancelled.bind(py);
        let none = Owned::none(py);
        let args: [*mut ffi::PyObject; 2] = [waiter.as_ptr(), none.as_ptr()];
        EventLoop::call_soon(py, this, &Owned::from(wake), &args)?;
    }
    Ok(())
}
