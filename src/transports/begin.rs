//! The beginning of a transport: what is scheduled when it has been made.

use pyo3::intern;
use pyo3::prelude::*;

use crate::event_loop::{EventLoop, This};
use crate::imports::Imports;
use crate::py::{Live, Owned};
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
    EventLoop::call_soon(py, this, &Owned::from(connection_made), &[object.live()])?;
    let start = object.bind(py).getattr(intern!(py, "_start_reading"))?;
    EventLoop::call_soon(py, this, &Owned::from(start), &[])?;
    if let Some(waiter) = waiter {
        let wake = Imports::get(py)?.set_result_unless_cancelled.bind(py);
        EventLoop::call_soon(py, this, &Owned::from(wake), &[waiter.into(), Live::none(py)])?;
    }
    Ok(())
}
