//! A session of the `ssl` module and its two memory BIOs.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};

use crate::py::native::Visitor;
use crate::py::{Owned, bytes, call};
use crate::tls::slots::{Slot, TlsProtocol};
use crate::tls::tools::Tools;

/// Plaintext in one record.
const RECORD_BYTES: usize = 16 * 1024;

/// What an `SSLProtocol` encrypts with.
pub(crate) struct Engine {
    /// The `ssl.SSLObject` and what it wraps.
    ssl_object: Owned,
    session: Owned,
    incoming: Owned,
    outgoing: Owned,
}

/// What the ciphertext that has come contained.
#[derive(Default)]
pub(crate) struct Plaintext {
    /// Everything that was decrypted, joined.
    pub(crate) data: Option<Owned>,
    /// The peer has sent its close_notify.
    pub(crate) closed: bool,
}

/// What became of a try to encrypt.
pub(crate) enum Encrypted {
    All,
    /// The session has to read first.
    Again,
}

impl Engine {
    /// The session of a protocol; none where its parts are not those of the
    /// `ssl` module, which only asyncio's code can drive.
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
        Ok(Some(Self { ssl_object, session, incoming, outgoing }))
    }

    /// Whether these are still the parts of the protocol.
    #[inline]
    pub(crate) fn serves(&self, protocol: &TlsProtocol) -> bool {
        protocol.is(Slot::SslObject, self.ssl_object.as_ptr())
            && protocol.is(Slot::Incoming, self.incoming.as_ptr())
            && protocol.is(Slot::Outgoing, self.outgoing.as_ptr())
    }

    pub(crate) fn traverse(&self, visitor: &mut Visitor) {
        for object in [&self.ssl_object, &self.session, &self.incoming, &self.outgoing] {
            visitor.object(object);
        }
    }

    /// Takes ciphertext, a `bytes` object, in.
    pub(crate) fn feed(&self, py: Python<'_>, ciphertext: &Owned) -> PyResult<()> {
        call::call_method1(py, Owned::of_py(&Tools::get(py)?.bio_write), &self.incoming, ciphertext)
            .map(drop)
    }

    /// How much ciphertext waits to be decrypted.
    pub(crate) fn incoming_bytes(&self, py: Python<'_>) -> PyResult<usize> {
        self.incoming.bind(py).getattr(intern!(py, "pending"))?.extract()
    }

    /// How much ciphertext waits to be sent.
    pub(crate) fn outgoing_bytes(&self, py: Python<'_>) -> PyResult<usize> {
        self.outgoing.bind(py).getattr(intern!(py, "pending"))?.extract()
    }

    /// Takes the ciphertext out that waits to be sent.
    pub(crate) fn take_outgoing(&self, py: Python<'_>) -> PyResult<Owned> {
        call::call1(py, Owned::of_py(&Tools::get(py)?.bio_read), &self.outgoing)
    }

    /// Decrypts what there is.
    ///
    /// # Errors
    /// Those of `SSLObject.read`; what was decrypted before is lost then, as in
    /// asyncio.
    pub(crate) fn read(&self, py: Python<'_>) -> PyResult<Plaintext> {
        let tools = Tools::get(py)?;
        let mut chunks = Chunks::default();
        let mut waiting = self.incoming_bytes(py)?;
        loop {
            let size = Owned::from(waiting.clamp(1, RECORD_BYTES).into_pyobject(py)?.into_any());
            let chunk = match call::call_method1(
                py,
                Owned::of_py(&tools.session_read),
                &self.session,
                &size,
            ) {
                Ok(chunk) => chunk,
                Err(error) if tools.is_again(py, &error) => break,
                Err(error) => return Err(error),
            };
            if chunk.bind(py).len()? == 0 {
                return Ok(Plaintext { data: chunks.join(py)?, closed: true });
            }
            chunks.push(chunk);
            waiting = self.incoming_bytes(py)?;
            if waiting == 0 {
                // A record of which a part was taken.
                waiting = call::call1(py, Owned::of_py(&tools.session_pending), &self.session)?
                    .bind(py)
                    .extract()?;
            }
            if waiting == 0 {
                // Another read would raise SSLWantReadError.
                break;
            }
        }
        Ok(Plaintext { data: chunks.join(py)?, closed: false })
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

/// Pieces of plaintext, which are joined only where there are several.
#[derive(Default)]
struct Chunks {
    first: Option<Owned>,
    rest: Vec<Owned>,
}

impl Chunks {
    fn push(&mut self, chunk: Owned) {
        match self.first {
            None => self.first = Some(chunk),
            Some(_) => self.rest.push(chunk),
        }
    }

    fn join(self, py: Python<'_>) -> PyResult<Option<Owned>> {
        if self.rest.is_empty() {
            return Ok(self.first);
        }
        let chunks: Vec<&Owned> = self.first.iter().chain(&self.rest).collect();
        let bound: Vec<_> = chunks.iter().map(|chunk| chunk.bind(py)).collect();
        let parts: Vec<&[u8]> =
            bound.iter().map(|chunk| bytes::exact(chunk).unwrap_or_default()).collect();
        let length = parts.iter().map(|part| part.len()).sum();
        let joined = PyBytes::new_with(py, length, |mut room| {
            for part in parts {
                let (to, rest) = std::mem::take(&mut room).split_at_mut(part.len());
                to.copy_from_slice(part);
                room = rest;
            }
            Ok(())
        })?;
        Ok(Some(joined.into_any().into()))
    }
}
