//! What the native steps use of `ssl` and `asyncio.sslproto`, looked up once.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// Classes, members and functions of the running CPython.
pub(crate) struct Tools {
    /// asyncio's class, whose methods do everything out of the ordinary.
    pub(crate) protocol: Py<PyAny>,
    /// Its method that [`records_received`](super::records_received) replaces.
    pub(crate) buffer_updated: Py<PyAny>,
    /// Members of `SSLProtocolState`.
    pub(crate) wrapped: Py<PyAny>,
    pub(crate) flushing: Py<PyAny>,
    pub(crate) handshaking: Py<PyAny>,
    pub(crate) shutting_down: Py<PyAny>,
    /// `ssl.SSLObject`, and the classes of what it wraps.
    pub(crate) ssl_object: Py<PyType>,
    pub(crate) session: Py<PyType>,
    pub(crate) memory_bio: Py<PyType>,
    /// Functions of the last two classes.
    pub(crate) session_read: Py<PyAny>,
    pub(crate) session_write: Py<PyAny>,
    pub(crate) session_pending: Py<PyAny>,
    pub(crate) bio_read: Py<PyAny>,
    pub(crate) bio_write: Py<PyAny>,
    /// The errors that mean "not now", and the base class of all errors of a session.
    pub(crate) want_read: Py<PyAny>,
    pub(crate) syscall: Py<PyAny>,
    pub(crate) error: Py<PyAny>,
}

static TOOLS: PyOnceLock<Tools> = PyOnceLock::new();

impl Tools {
    /// Looked up on first use, which is when a TLS connection is made.
    ///
    /// # Errors
    /// ImportError if the interpreter was built without `ssl`.
    #[inline]
    pub(crate) fn get(py: Python<'_>) -> PyResult<&Self> {
        match TOOLS.get(py) {
            Some(tools) => Ok(tools),
            None => TOOLS.get_or_try_init(py, || Self::load(py)),
        }
    }

    #[cold]
    fn load(py: Python<'_>) -> PyResult<Self> {
        let sslproto = py.import("asyncio.sslproto")?;
        let ssl = py.import("ssl")?;
        let protocol = sslproto.getattr("SSLProtocol")?;
        let states = sslproto.getattr("SSLProtocolState")?;
        let state = |name: &str| -> PyResult<Py<PyAny>> { Ok(states.getattr(name)?.unbind()) };
        let session = py.import("_ssl")?.getattr("_SSLSocket")?;
        let memory_bio = ssl.getattr("MemoryBIO")?;
        Ok(Self {
            buffer_updated: protocol.getattr("buffer_updated")?.unbind(),
            protocol: protocol.unbind(),
            wrapped: state("WRAPPED")?,
            flushing: state("FLUSHING")?,
            handshaking: state("DO_HANDSHAKE")?,
            shutting_down: state("SHUTDOWN")?,
            ssl_object: ssl.getattr("SSLObject")?.cast_into::<PyType>()?.unbind(),
            session_read: session.getattr("read")?.unbind(),
            session_write: session.getattr("write")?.unbind(),
            session_pending: session.getattr("pending")?.unbind(),
            session: session.cast_into::<PyType>()?.unbind(),
            bio_read: memory_bio.getattr("read")?.unbind(),
            bio_write: memory_bio.getattr("write")?.unbind(),
            memory_bio: memory_bio.cast_into::<PyType>()?.unbind(),
            want_read: ssl.getattr("SSLWantReadError")?.unbind(),
            syscall: ssl.getattr("SSLSyscallError")?.unbind(),
            error: ssl.getattr("SSLError")?.unbind(),
        })
    }

    /// Whether an error of the session only means that there is no more data.
    pub(crate) fn is_again(&self, py: Python<'_>, error: &PyErr) -> bool {
        error.is_instance(py, self.want_read.bind(py))
            || error.is_instance(py, self.syscall.bind(py))
    }
}
