//! A session of the `ssl` module and its two memory BIOs.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::py::native::Visitor;
use crate::py::{Owned, call};
use crate::tls::openssl::Session;
use crate::tls::slots::{Slot, TlsProtocol};
use crate::tls::tools::Tools;

/// What an `SSLProtocol` encrypts with.
pub(crate) struct Engine {
    /// The `ssl.SSLObject` and what it wraps.
    ssl_object: Owned,
    session: Owned,
    incoming: Owned,
    outgoing: Owned,
    direct: Option<Session>,
}

/// The outcome of a try to encrypt.
pub(crate) enum Encrypted {
    All,
    /// The session has to read first.
    Again,
}

impl Engine {
    /// The session of a protocol. None if its parts are not exactly those of the `ssl`
    /// module: then only asyncio's code can drive it.
    pub(crate) fn of(py: Python<'_>, protocol: &TlsProtocol) -> PyResult<Option<Self>> {
        let tools = Tools::get(py)?;
        let (Some(ssl_object), Some(incoming), Some(outgoing)) = (
            protocol.get(py, Slot::SslObject),
            protocol.get(py, Slot::Incoming),
            protocol.get(py, Slot::Outgoing),
        ) else {
            return Ok(None);
        };
        let is = |object: &Owned, class: &Py<PyType>| object.bind(py).get_type().is(class.bind(py));
        if !is(&ssl_object, &tools.ssl_object)
            || !is(&incoming, &tools.memory_bio)
            || !is(&outgoing, &tools.memory_bio)
        {
            return Ok(None);
        }
        let session = Owned::from(ssl_object.bind(py).getattr(intern!(py, "_sslobj"))?);
        if !is(&session, &tools.session) {
            return Ok(None);
        }
        let direct = Session::of(py, &session, &incoming, &outgoing)?;
        Ok(Some(Self { ssl_object, session, incoming, outgoing, direct }))
    }

    /// Whether these are still the parts of the protocol.
    #[inline]
    pub(crate) fn serves(&self, protocol: &TlsProtocol) -> bool {
        protocol.is(Slot::SslObject, &self.ssl_object)
            && protocol.is(Slot::Incoming, &self.incoming)
            && protocol.is(Slot::Outgoing, &self.outgoing)
    }

    pub(crate) fn traverse(&self, visitor: &mut Visitor) {
        for object in [&self.ssl_object, &self.session, &self.incoming, &self.outgoing] {
            visitor.object(object);
        }
        if let Some(direct) = &self.direct {
            direct.traverse(visitor);
        }
    }

    /// The same session without the methods of `ssl`, if it can be used so.
    #[inline]
    pub(crate) fn direct(&self) -> Option<&Session> {
        self.direct.as_ref()
    }

    /// Adds ciphertext, a `bytes` object, to what waits to be decrypted.
    pub(crate) fn feed(&self, py: Python<'_>, ciphertext: &Owned) -> PyResult<()> {
        call::call_method1(py, Owned::of_py(&Tools::get(py)?.bio_write), &self.incoming, ciphertext)
            .map(drop)
    }

    /// How much ciphertext waits to be decrypted.
    #[inline]
    pub(crate) fn incoming_bytes(&self, py: Python<'_>) -> PyResult<usize> {
        if let Some(session) = &self.direct {
            return Ok(session.incoming_bytes());
        }
        self.incoming.bind(py).getattr(intern!(py, "pending"))?.extract()
    }

    /// How much ciphertext waits to be sent.
    #[inline]
    pub(crate) fn outgoing_bytes(&self, py: Python<'_>) -> PyResult<usize> {
        if let Some(session) = &self.direct {
            return Ok(session.outgoing_bytes());
        }
        self.outgoing.bind(py).getattr(intern!(py, "pending"))?.extract()
    }

    /// Takes out the ciphertext that waits to be sent.
    pub(crate) fn take_outgoing(&self, py: Python<'_>) -> PyResult<Owned> {
        call::call1(py, Owned::of_py(&Tools::get(py)?.bio_read), &self.outgoing)
    }

    /// Whether the handshake has nothing to do before the peer sends something. True of a
    /// server that has received nothing: the client speaks first.
    pub(crate) fn listens(&self, py: Python<'_>) -> PyResult<bool> {
        let server_side = self.session.bind(py).getattr(intern!(py, "server_side"))?;
        Ok(server_side.is_truthy()? && self.incoming_bytes(py)? == 0)
    }

    /// `SSLObject.do_handshake`; true if the handshake is complete.
    ///
    /// # Errors
    /// Those of the method, except those that only mean that more records must come.
    pub(crate) fn do_handshake(&self, py: Python<'_>) -> PyResult<bool> {
        // Called by its name: user code may have replaced the method, to check the peer.
        match call::method(py, &self.ssl_object, intern!(py, "do_handshake"), []) {
            Ok(_) => Ok(true),
            Err(error) if Tools::get(py)?.is_again(py, &error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `SSLObject.read`; None if more records must come first.
    ///
    /// # Errors
    /// All others of the method.
    pub(crate) fn read(&self, py: Python<'_>, size: usize) -> PyResult<Option<Owned>> {
        let tools = Tools::get(py)?;
        let size = Owned::from(size.into_pyobject(py)?.into_any());
        let read = Owned::of_py(&tools.session_read);
        match call::call_method1(py, read, &self.session, &size) {
            Ok(chunk) => Ok(Some(chunk)),
            Err(error) if tools.is_again(py, &error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `SSLObject.read` into a buffer; None if more records must come first.
    ///
    /// # Errors
    /// All others of the method.
    pub(crate) fn read_into(
        &self,
        py: Python<'_>,
        size: usize,
        buffer: &Bound<'_, PyAny>,
    ) -> PyResult<Option<usize>> {
        match self.session.bind(py).call_method1(intern!(py, "read"), (size, buffer)) {
            Ok(count) => count.extract().map(Some),
            Err(error) if Tools::get(py)?.is_again(py, &error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `SSLObject.pending`: plaintext of a record of which a part was read.
    pub(crate) fn pending(&self, py: Python<'_>) -> PyResult<usize> {
        let pending = Owned::of_py(&Tools::get(py)?.session_pending);
        call::call1(py, pending, &self.session)?.bind(py).extract()
    }

    /// Encrypts `data`, an object with a buffer.
    ///
    /// # Errors
    /// Those of `SSLObject.write`.
    pub(crate) fn write(&self, py: Python<'_>, data: &Owned) -> PyResult<Encrypted> {
        let tools = Tools::get(py)?;
        match call::call_method1(py, Owned::of_py(&tools.session_write), &self.session, data) {
            Ok(_) => Ok(Encrypted::All),
            Err(error) if tools.is_again(py, &error) => Ok(Encrypted::Again),
            Err(error) => Err(error),
        }
    }
}
