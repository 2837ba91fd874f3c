//! `get_extra_info`: addresses and the socket, made when they are asked for.

use std::os::fd::{AsRawFd, OwnedFd};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokioloop_reactor::{Address, sys};

use crate::event_loop::Inside;
use crate::imports::Imports;
use crate::py::Owned;
use crate::sockets::SharedSocket;
use crate::transports::address;
use crate::transports::descriptor::{self, Descriptor};
use crate::transports::interior::Interior;
use crate::transports::shape::Transport;

/// The value of `name`, or None if the transport has none.
pub(crate) fn get<'py, I: Interior>(
    py: Python<'py>,
    inside: &Inside<'_>,
    transport: &Transport<I>,
    name: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    if let Some(extra) = transport.extra() {
        if let Some(value) = extra.bind(py).cast::<PyDict>()?.get_item(name)? {
            return Ok(Some(value));
        }
    }
    let Ok(known) = name.extract::<&str>() else {
        // asyncio looks the name up in a dictionary: one that is unhashable is an error,
        // with the message of the running Python.
        return PyDict::new(py).get_item(name);
    };
    let value = match known {
        "peername" => transport.with(inside, |inner| inner.peer()),
        "sockname" => transport.with(inside, |inner| inner.local()),
        "socket" => {
            let socket = match socket(py, inside, transport)? {
                Some(socket) => socket,
                // If descriptors have run out, none can be made.
                None => match closed_socket(py, inside, transport) {
                    Ok(socket) => socket,
                    Err(_) => return Ok(None),
                },
            };
            return transport_socket(py, transport, &socket).map(Some);
        }
        _ => return Ok(None),
    };
    // asyncio stores None for a peer that had left before its name was read.
    match value {
        Some(value) => address::to_python(py, &value).map(Some),
        None if known == "peername" => Ok(Some(py.None().into_bound(py))),
        None => Ok(None),
    }
}

/// Stores the addresses that only Python's socket can convert, while there is a connection
/// to ask. As in asyncio, a `peername` that was given stays.
pub(crate) fn note_names(sock: &Bound<'_, PyAny>, extra: &Bound<'_, PyDict>) -> PyResult<()> {
    let name_of = |method| match sock.call_method0(method) {
        Err(error) if !error.is_instance_of::<PyOSError>(sock.py()) => Err(error),
        name => Ok(name.ok()),
    };
    extra.set_item("sockname", name_of("getsockname")?)?;
    if !extra.contains("peername")? {
        extra.set_item("peername", name_of("getpeername")?)?;
    }
    Ok(())
}

/// The Python socket of the transport. It takes the descriptor over when it is
/// made, and the transport closes it through the socket from then on.
pub(crate) fn socket<I: Interior>(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &Transport<I>,
) -> PyResult<Option<Owned>> {
    let (existing, number) = transport.with(inside, |inner| {
        let descriptor = inner.descriptor();
        (descriptor.socket(py), descriptor.number())
    });
    if existing.is_some() || number < 0 {
        return Ok(existing);
    }
    let socket = descriptor::lend(py, number)?;
    // The descriptor is non-blocking already; this only tells the object.
    if let Err(error) = socket.bind(py).call_method1("setblocking", (false,)) {
        // The transport still owns the descriptor, so the socket must not close it.
        socket.bind(py).call_method0("detach")?;
        return Err(error);
    }
    let lent = Descriptor::Lent(SharedSocket::new(&socket.bind(py)), number);
    // Making the socket has run Python code (audit hooks, the collector), which may have
    // made one as well, or ended the transport.
    let old = transport.with(inside, |inner| {
        let descriptor = inner.descriptor();
        match descriptor {
            Descriptor::Own(_) => Ok(std::mem::replace(descriptor, lent)),
            _ => Err(descriptor.socket(py)),
        }
    });
    match old {
        Ok(Descriptor::Own(fd)) => give_up(fd, number),
        Ok(_) => {}
        Err(other) => {
            socket.bind(py).call_method0("detach")?;
            return Ok(other);
        }
    }
    Ok(Some(socket))
}

/// A closed socket, for a transport at its end: asyncio's still returns its own then.
#[cold]
fn closed_socket<I: Interior>(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &Transport<I>,
) -> PyResult<Owned> {
    let family = match transport.with(inside, |inner| inner.local().or_else(|| inner.peer())) {
        Some(Address::Unix(_)) => libc::AF_UNIX,
        Some(Address::Inet(address)) if address.is_ipv6() => libc::AF_INET6,
        _ => libc::AF_INET,
    };
    let socket = Imports::get(py)?.socket.bind(py).call1((family, I::SOCKET_TYPE))?;
    socket.call_method0("close")?;
    Ok(socket.into())
}

/// The socket owns the number now.
fn give_up(fd: OwnedFd, number: i32) {
    debug_assert_eq!(fd.as_raw_fd(), number, "another descriptor was lent");
    sys::release(fd);
}

/// asyncio's `TransportSocket`, the same object each time.
fn transport_socket<'py, I: Interior>(
    py: Python<'py>,
    transport: &Transport<I>,
    socket: &Owned,
) -> PyResult<Bound<'py, PyAny>> {
    let extra = extra_dict(py, transport)?;
    if let Some(existing) = extra.get_item("socket")? {
        return Ok(existing);
    }
    let made =
        py.import("asyncio.trsock")?.getattr("TransportSocket")?.call1((socket.bind(py),))?;
    extra.set_item("socket", &made)?;
    Ok(made)
}

/// The dictionary behind `_extra`, made when something has to be kept.
pub(crate) fn extra_dict<'py, I: Interior>(
    py: Python<'py>,
    transport: &Transport<I>,
) -> PyResult<Bound<'py, PyDict>> {
    match transport.extra() {
        Some(extra) => Ok(extra.bind(py).cast::<PyDict>()?.to_owned()),
        None => {
            let extra = PyDict::new(py);
            transport.set_extra(Owned::from(extra.as_any()));
            Ok(extra)
        }
    }
}
