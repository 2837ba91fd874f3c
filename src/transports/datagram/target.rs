//! Where a datagram goes: the forms of an address that `sendto` takes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString, PyTuple};
use tokioloop_reactor::RawAddress;

use super::peers::Peers;
use super::{DatagramTransport, Family};
use crate::event_loop::Inside;
use crate::py::Owned;

/// IPv6 flow labels have 20 bits.
const MAX_FLOW: u32 = 0xf_ffff;

/// Where a datagram goes.
pub(super) enum Target {
    /// The peer that the socket is connected to.
    Peer,
    /// An address in the kernel's form.
    Known(RawAddress),
    /// An address that Python's socket must interpret: host names, paths, other families
    /// and anything invalid.
    Spelled(Owned),
}

/// Where a datagram goes that is sent now.
pub(super) enum Resolved {
    /// The sender of the last datagram, whose address need not be copied. Valid only
    /// until user code runs.
    Latest,
    Other(Target),
}

impl Resolved {
    /// The target in a form that stays valid.
    pub(super) fn keep(self, peers: &Peers) -> Target {
        match self {
            Self::Latest => {
                debug_assert!(peers.latest().is_some(), "somebody was answered");
                peers.latest().copied().map_or(Target::Peer, Target::Known)
            }
            Self::Other(target) => target,
        }
    }
}

/// Reads the address that `sendto` was given.
///
/// # Errors
/// ValueError if the endpoint has a different `remote_addr`, and what comparing raises.
// HOT: udp
#[inline]
pub(super) fn resolve(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &DatagramTransport,
    given: Option<&Bound<'_, PyAny>>,
) -> PyResult<Resolved> {
    let (remote, connected, has_peer, family) = transport.with(inside, |inner| {
        let remote = inner.address.as_ref().map(|address| address.clone_ref(py));
        (remote, inner.state.connected, inner.peer.is_some(), inner.family)
    });
    if let (Some(remote), Some(given)) = (&remote, given) {
        if remote.as_ptr() != given.as_ptr() && !given.eq(remote.bind(py))? {
            let text = remote.bind(py).str()?;
            let text = format!("Invalid address: must be None or {}", text.to_string_lossy());
            return Err(PyValueError::new_err(text));
        }
    }
    if connected {
        return Ok(Resolved::Other(Target::Peer));
    }
    let remote = remote.as_ref().map(|remote| remote.bind(py));
    let Some(address) = remote.as_deref().or(given) else {
        // An unnamed peer will do as well, where asyncio would end the endpoint.
        let target = if has_peer { Target::Peer } else { Target::Spelled(Owned::none(py)) };
        return Ok(Resolved::Other(target));
    };
    if transport.with(inside, |inner| inner.peers.is_latest(address.as_ptr())) {
        return Ok(Resolved::Latest);
    }
    Ok(Resolved::Other(match numeric(family, address) {
        Some(raw) => Target::Known(raw),
        None => Target::Spelled(Owned::from(address)),
    }))
}

/// Parses a tuple with a numeric address. Everything else is left to Python's socket,
/// with its rules and its error messages.
fn numeric(family: Family, address: &Bound<'_, PyAny>) -> Option<RawAddress> {
    let address = address.cast_exact::<PyTuple>().ok()?;
    let length = address.len();
    let host = address.get_item(0).ok()?;
    let host = host.cast_exact::<PyString>().ok()?.to_str().ok()?;
    let port = number(address, 1)?.and_then(|port| u16::try_from(port).ok())?;
    match family {
        Family::Inet if length == 2 => {
            let ip: Ipv4Addr = host.parse().ok()?;
            Some(SocketAddrV4::new(ip, port).into())
        }
        Family::Inet6 if length <= 4 => {
            let ip: Ipv6Addr = host.parse().ok()?;
            let flow = number(address, 2)?.unwrap_or(0);
            let scope = number(address, 3)?.unwrap_or(0);
            (flow <= MAX_FLOW).then(|| SocketAddrV6::new(ip, port, flow, scope).into())
        }
        _ => None,
    }
}

/// The number at `index`: `Some(None)` if the tuple is shorter, `None` if the item is no
/// `int` or out of range.
#[allow(clippy::option_option)]
fn number(address: &Bound<'_, PyTuple>, index: usize) -> Option<Option<u32>> {
    if index >= address.len() {
        return Some(None);
    }
    let item = address.get_item(index).ok()?;
    Some(Some(item.cast_exact::<PyInt>().ok()?.extract().ok()?))
}
