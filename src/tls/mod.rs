//! TLS: asyncio's own state machine, with the path of the records in Rust.
//!
//! `asyncio.sslproto` stays in charge of handshakes, shutdowns, timeouts, flow control
//! and errors, under its own attribute names. The class here comes before asyncio's in
//! the method order of `tokioloop._tls.SSLProtocol` and does five of its steps:
//! `buffer_updated`, `_do_handshake`, `_do_read`, `_write_appdata` and
//! `_process_outgoing`. Its attributes are slots of native memory, so that both sides see
//! one state. If anything is out of the ordinary, asyncio's method of the same name does
//! the step; the native one has changed nothing before it calls that.
//!
//! Encryption is that of the interpreter's `ssl` module, on the session that the user's
//! `SSLContext` made.

mod app_transport;
mod bio;
mod engine;
mod openssl;
mod plaintext;
mod protocol;
mod reading;
mod slots;
mod tools;
mod writing;

use pyo3::prelude::*;

pub(crate) use plaintext::Lender;
pub(crate) use reading::{Ciphertext, is_driven_directly, is_records_protocol, records_received};

/// Adds the classes that `tokioloop._tls` derives from.
pub(crate) fn add_to_module(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("TlsProtocol", protocol::class(py)?)?;
    module.add("TlsTransport", app_transport::class(py)?)
}
