//! Socket addresses in the form that Python's `socket` module gives them.

use std::net::SocketAddr;

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
            // getnameinfo writes the zone of a scoped address by name, as
            // Python's own conversion does.
            let host = match v6.scope_id() {
                0 => v6.ip().to_string(),
                scope => scoped(py, &v6.ip().to_string(), scope),
            };
            // The kernel keeps the flow label in network order.
            let flow = u32::from_be(v6.flowinfo());
            Ok((host, v6.port(), flow, v6.scope_id()).into_pyobject(py)?.into_any())
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

fn scoped(py: Python<'_>, host: &str, scope: u32) -> String {
    let name = py
        .import("socket")
        .and_then(|socket| socket.call_method1("if_indextoname", (scope,)))
        .and_then(|name| name.extract::<String>());
    match name {
        Ok(name) => format!("{host}%{name}"),
        Err(_) => format!("{host}%{scope}"),
    }
}
