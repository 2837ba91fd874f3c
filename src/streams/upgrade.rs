//! How the readers and writers of asyncio's factories become native ones.
//!
//! The factories make plain objects and hand the protocol to a transport. At that point
//! the reader becomes a native one. A server's writer is made later, in
//! `connection_made`, right before `client_connected_cb` is called with it. A stand-in
//! for that callback, used once, calls the real one with a native writer instead.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::streams::classes::Classes;
use crate::streams::serve;
use crate::streams::state::StreamState;
use crate::streams::stock::Stock;

/// Upgrades the reader of asyncio's own stream protocol, and prepares a server's writer.
pub(crate) fn upgrade(protocol: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = protocol.py();
    let reader = protocol.getattr(intern!(py, "_stream_reader"))?;
    if reader.is_none() {
        return Ok(());
    }
    let name = intern!(py, "_client_connected_cb");
    let callback = protocol.getattr(name)?;
    let connected = !protocol.getattr(intern!(py, "_transport"))?.is_none();
    let serves = !callback.is_none() && !connected && !callback.is_instance_of::<ClientConnected>();
    upgrade_reader(protocol, &reader, serves)?;
    if !serves {
        return Ok(());
    }
    let stand_in =
        ClientConnected { protocol: protocol.clone().unbind(), callback: callback.unbind() };
    protocol.setattr(name, Bound::new(py, stand_in)?)
}

fn upgrade_reader(
    protocol: &Bound<'_, PyAny>,
    reader: &Bound<'_, PyAny>,
    serves: bool,
) -> PyResult<()> {
    let py = reader.py();
    let stock = &Stock::get(py)?.reader;
    let plain = stock.is_exact(reader.into()) && stock.is_unmodified(py);
    if plain && !(serves && serve::reader(protocol, reader)?) {
        Classes::get(py)?.adopted_reader.adopt(reader)?;
        StreamState::find_or_take_over(reader)?;
    }
    Ok(())
}

/// Stands in for the `client_connected_cb` of one connection.
#[pyclass(frozen, module = "tokioloop._core")]
struct ClientConnected {
    protocol: Py<PyAny>,
    callback: Py<PyAny>,
}

#[pymethods]
impl ClientConnected {
    #[pyo3(signature = (reader, writer))]
    fn __call__<'py>(
        &self,
        reader: &Bound<'py, PyAny>,
        writer: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = reader.py();
        self.protocol.bind(py).setattr(intern!(py, "_client_connected_cb"), &self.callback)?;
        let native = serve::writer(self.protocol.bind(py), writer)?;
        self.callback.bind(py).call1((reader, native.as_ref().unwrap_or(writer)))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.protocol)?;
        visit.call(&self.callback)
    }
}
