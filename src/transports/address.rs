//! Socket addresses in the form that Python's `socket` module gives them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use tokioloop_reactor::Address;

/// `(host, port)`, `(host, port, flow, scope)`, a path, or None.
pub(crate) fn to_python<'py>(py: Python<'py>, address: &Address) -> PyResult<Bound<'py, PyAny>> {
    match address {
        Address::Inet(SocketAddr::V4(v4)) => {
            Ok((v4.ip().to_string(), v4.port()).into_pyobject(py)?.into_any())
        }
        Address::Inet(SocketAddr::V6(v6)) => {
            let host = ipv6_text(*v6.ip());
            Ok((host, v6.port(), v6.flowinfo(), v6.scope_id()).into_pyobject(py)?.into_any())
        }
        Address::Unix(path) => match path.first() {
            Some(0) => Ok(PyBytes::new(py, path).into_any()),
            _ => decode_path(py, path),
        },
        Address::Other => Ok(py.None().into_bound(py)),
    }
}

fn decode_path<'py>(py: Python<'py>, path: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    if path.is_empty() {
        return Ok(PyString::new(py, "").into_any());
    }
    py.import("os")?.call_method1("fsdecode", (PyBytes::new(py, path),))
}

/// The text that C's `inet_ntop` writes. It shows an embedded IPv4 address in dotted
/// form also in the deprecated `::a.b.c.d`, which Rust writes in hexadecimal.
fn ipv6_text(ip: Ipv6Addr) -> String {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high > 0 => {
            format!("::{}", Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
        }
        _ => ip.to_string(),
    }
}
