//! TLS over a non-blocking TCP stream, as a wire like any other.
//!
//! The client trusts every certificate: it measures servers on loopback with keys made for
//! one run. Ciphertext is read through a large buffer, because rustls on its own asks for a
//! few kilobytes at a time and the client must stay cheaper than the server.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::wire::Wire;

/// What all connections of a run share.
#[derive(Clone)]
pub(crate) struct TlsClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsClient {
    pub(crate) fn new() -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = TrustEveryone { algorithms: provider.signature_verification_algorithms };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        // A resumed session would spare the server the handshake that is to be measured.
        config.resumption = rustls::client::Resumption::disabled();
        let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        Ok(Self { config: Arc::new(config), name })
    }

    /// Wraps a connected stream; the handshake takes place with the first request.
    pub(crate) fn wrap(&self, stream: TcpStream) -> io::Result<TlsWire> {
        let session = ClientConnection::new(Arc::clone(&self.config), self.name.clone())
            .map_err(io::Error::other)?;
        Ok(TlsWire(StreamOwned::new(session, ReadAhead::new(stream))))
    }
}

/// A TLS session over TCP.
pub(crate) struct TlsWire(StreamOwned<ClientConnection, ReadAhead>);

impl Read for TlsWire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for TlsWire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Wire for TlsWire {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.sock.stream.as_fd()
    }

    fn has_backlog(&self) -> bool {
        self.0.conn.wants_write()
    }

    fn waits_for_room(&self) -> bool {
        self.0.conn.wants_write()
    }

    fn buffers_input(&self) -> bool {
        true
    }
}

/// A stream whose reads are served from one large read.
struct ReadAhead {
    stream: TcpStream,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl ReadAhead {
    fn new(stream: TcpStream) -> Self {
        let buffer = vec![0; READ_AHEAD].into_boxed_slice();
        Self { stream, buffer, start: 0, end: 0 }
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            self.end = self.stream.read(&mut self.buffer)?;
        }
        let mut ahead = self.buffer.get(self.start..self.end).unwrap_or_default();
        let count = ahead.read(buffer)?;
        self.start += count;
        Ok(count)
    }
}

impl Write for ReadAhead {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[derive(Debug)]
struct TrustEveryone {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for TrustEveryone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Sixteen full records.
const READ_AHEAD: usize = 256 * 1024;
