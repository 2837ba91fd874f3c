//! A socket address in the kernel's own form, as `recvfrom` writes it and
//! `sendto` takes it, so that replying needs no conversion.
#![allow(unsafe_code)]

use std::fmt;
use std::mem::{self, MaybeUninit};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::address::Address;

/// Room for an address of any family.
pub(crate) const CAPACITY: libc::socklen_t =
    mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;

/// An address of any family; equal if the kernel's bytes are.
#[derive(Clone, Copy)]
pub struct RawAddress {
    storage: libc::sockaddr_storage,
    length: libc::socklen_t,
}

impl RawAddress {
    /// No address, as an unnamed Unix socket has.
    pub const fn none() -> Self {
        // SAFETY: all-zero bytes are a valid sockaddr_storage.
        Self { storage: unsafe { MaybeUninit::zeroed().assume_init() }, length: 0 }
    }

    /// Whether the kernel gave no address at all.
    #[inline]
    pub fn is_none(&self) -> bool {
        self.length == 0
    }

    /// The bytes that are in use.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        let length = self.length.min(CAPACITY) as usize;
        // SAFETY: the storage was zeroed when it was made and has CAPACITY bytes.
        unsafe { std::slice::from_raw_parts((&raw const self.storage).cast(), length) }
    }

    /// The parsed address.
    pub fn to_address(&self) -> Address {
        Address::from_storage(&self.storage, self.length)
    }

    /// For the kernel to read.
    #[inline]
    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    /// How many of its bytes are in use.
    #[inline]
    pub(crate) fn length(&self) -> libc::socklen_t {
        self.length
    }

    /// For the kernel to write, [`CAPACITY`] bytes at most.
    #[inline]
    pub(crate) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        (&raw mut self.storage).cast()
    }

    /// Notes how much the kernel wrote.
    #[inline]
    pub(crate) fn set_length(&mut self, length: libc::socklen_t) {
        self.length = length.min(CAPACITY);
    }

    /// Puts an address of one family into the storage.
    fn from_family<A: Copy>(address: A) -> Self {
        const { assert!(mem::size_of::<A>() <= CAPACITY as usize) };
        let mut raw = Self::none();
        // SAFETY: the storage is larger than any family's address and aligned
        // for all of them.
        unsafe { raw.as_mut_ptr().cast::<A>().write(address) };
        raw.length = mem::size_of::<A>() as libc::socklen_t;
        raw
    }
}

impl From<SocketAddrV4> for RawAddress {
    fn from(address: SocketAddrV4) -> Self {
        // SAFETY: all-zero bytes are a valid sockaddr_in.
        let mut v4: libc::sockaddr_in = unsafe { mem::zeroed() };
        #[cfg(not(target_os = "linux"))]
        {
            v4.sin_len = mem::size_of::<libc::sockaddr_in>() as u8;
        }
        v4.sin_family = libc::AF_INET as libc::sa_family_t;
        v4.sin_port = address.port().to_be();
        v4.sin_addr.s_addr = u32::from(*address.ip()).to_be();
        Self::from_family(v4)
    }
}

impl From<SocketAddrV6> for RawAddress {
    fn from(address: SocketAddrV6) -> Self {
        // SAFETY: all-zero bytes are a valid sockaddr_in6.
        let mut v6: libc::sockaddr_in6 = unsafe { mem::zeroed() };
        #[cfg(not(target_os = "linux"))]
        {
            v6.sin6_len = mem::size_of::<libc::sockaddr_in6>() as u8;
        }
        v6.sin6_family = libc::AF_INET6 as libc::sa_family_t;
        v6.sin6_port = address.port().to_be();
        v6.sin6_flowinfo = address.flowinfo().to_be();
        v6.sin6_addr.s6_addr = address.ip().octets();
        v6.sin6_scope_id = address.scope_id();
        Self::from_family(v6)
    }
}

impl From<SocketAddr> for RawAddress {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => v4.into(),
            SocketAddr::V6(v6) => v6.into(),
        }
    }
}

impl PartialEq for RawAddress {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for RawAddress {}

impl fmt::Debug for RawAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_address().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn an_address_survives_the_way_to_the_kernel_and_back() {
        let v4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 7), 4711);
        assert_eq!(RawAddress::from(v4).to_address(), Address::Inet(v4.into()));
        let v6 = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 53, 0x12345, 7);
        assert_eq!(RawAddress::from(v6).to_address(), Address::Inet(v6.into()));
    }

    #[test]
    fn addresses_are_equal_where_their_bytes_are() {
        let one = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
        let other = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2);
        assert_eq!(RawAddress::from(one), RawAddress::from(SocketAddr::from(one)));
        assert_ne!(RawAddress::from(one), RawAddress::from(other));
        assert_ne!(RawAddress::from(one), RawAddress::none());
        assert!(RawAddress::none().is_none());
    }
}
