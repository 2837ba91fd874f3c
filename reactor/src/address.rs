//! A socket address as the kernel gave it, small enough to keep per connection.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Where a socket is bound or connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// IPv4 or IPv6.
    Inet(SocketAddr),
    /// A Unix path. It starts with a NUL byte if the name is abstract and is
    /// empty if the socket has no name.
    Unix(Box<[u8]>),
    /// A family that asyncio cannot represent, or no address at all: on macOS,
    /// accepting a client that has already disconnected yields none.
    Other,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) if path.is_empty() => f.write_str("unnamed"),
            Self::Unix(path) => path.escape_ascii().fmt(f),
            Self::Other => f.write_str("unknown"),
        }
    }
}

impl Address {
    /// Reads what `accept`, `getsockname` and their like wrote.
    #[allow(unsafe_code)]
    pub(crate) fn from_storage(storage: &libc::sockaddr_storage, length: libc::socklen_t) -> Self {
        match i32::from(storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says that the storage holds a sockaddr_in,
                // which is smaller and less aligned than the storage.
                let v4 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Self::Inet(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(v4.sin_port))))
            }
            libc::AF_INET6 => {
                // SAFETY: as above, for a sockaddr_in6.
                let v6 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
                Self::Inet(SocketAddr::V6(SocketAddrV6::new(
                    Ipv6Addr::from(v6.sin6_addr.s6_addr),
                    u16::from_be(v6.sin6_port),
                    u32::from_be(v6.sin6_flowinfo),
                    v6.sin6_scope_id,
                )))
            }
            libc::AF_UNIX => {
                // SAFETY: as above, for a sockaddr_un.
                let unix = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_un>() };
                let header = std::mem::offset_of!(libc::sockaddr_un, sun_path);
                let length = (length as usize).saturating_sub(header).min(unix.sun_path.len());
                let path: Vec<u8> = unix.sun_path.iter().take(length).map(|&c| c as u8).collect();
                // A file system path ends at its NUL, an abstract name (NUL
                // first) at the length that the kernel returned. Only Linux has
                // abstract names; elsewhere a leading NUL means no name.
                let end = match path.first() {
                    Some(0) if cfg!(target_os = "linux") => path.len(),
                    _ => path.iter().position(|&c| c == 0).unwrap_or(path.len()),
                };
                Self::Unix(path.into_iter().take(end).collect())
            }
            _ => Self::Other,
        }
    }

    /// True for IPv4 and IPv6.
    pub fn is_inet(&self) -> bool {
        matches!(self, Self::Inet(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw_address::RawAddress;
    use crate::sys;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn an_unnamed_socket_has_an_empty_path() {
        let (a, _b) = UnixStream::pair().unwrap();
        assert_eq!(sys::local_address(a.as_fd()).unwrap(), Address::Unix(Box::default()));
        assert_eq!(sys::peer_address(a.as_fd()).unwrap(), Address::Unix(Box::default()));
    }

    #[test]
    fn no_address_at_all_is_not_an_empty_path() {
        assert_eq!(RawAddress::none().to_address(), Address::Other);
    }
}
