//! How readers and writers of asyncio's factories come to be native ones.
//!
//! The factories make plain objects and hand the protocol to a transport. That
//! is where the reader becomes a native one. A server's writer is made later,
//! in `connection_made`, right before `client_connected_cb` is called with it:
//! a stand-in for that callback, which is gone once it was called, turns the
//! writer into a native one first.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::streams::classes;

/// Upgrades what belongs to a stream protocol of asyncio's own.
pub(crate) fn upgrade(protocol: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = protocol.py();
    let reader = protocol.getattr(intern!(py, "_stream_reader"))?;
    if reader.is_none() {
        return Ok(());
    }
    classes::upgrade_reader(&reader)?;
    let name = intern!(py, "_client_connected_cb");
    let callback = protocol.getattr(name)?;
    let connected = !protocol.getattr(intern!(py, "_transport"))?.is_none();
    if callback.is_none() || connected || callback.is_instance_of::<ClientConnected>() {
        return Ok(());
    }
    let stand_in =
        ClientConnected { protocol: protocol.clone().unbind(), callback: callback.unbind() };
    protocol.setattr(name, Bound::new(py, stand_in)?)
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
        classes::upgrade_writer(writer)?;
        self.callback.bind(py).call1((reader, writer))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.protocol)?;
        visit.call(&self.callback)
    }
}
