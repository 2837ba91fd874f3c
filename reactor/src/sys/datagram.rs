//! Sending and receiving datagrams with their addresses.

use std::io;
#[cfg(target_os = "linux")]
use std::mem;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::SEND_FLAGS;
use crate::raw_address::{self, RawAddress};

/// Sends one datagram to an address.
#[inline]
pub(crate) fn send_to(fd: BorrowedFd<'_>, data: &[u8], to: &RawAddress) -> io::Result<usize> {
    let n = check!(libc::sendto(
        fd.as_raw_fd(),
        data.as_ptr().cast(),
        data.len(),
        SEND_FLAGS,
        to.as_ptr(),
        to.length()
    ))?;
    Ok(n as usize)
}

/// Receives one datagram with its sender.
#[cfg(not(target_os = "linux"))]
pub(crate) fn receive_from(
    fd: BorrowedFd<'_>,
    space: &mut [MaybeUninit<u8>],
    sender: &mut RawAddress,
) -> io::Result<usize> {
    let mut length = raw_address::CAPACITY;
    let n = check!(libc::recvfrom(
        fd.as_raw_fd(),
        space.as_mut_ptr().cast(),
        space.len(),
        0,
        sender.as_mut_ptr(),
        &mut length
    ))?;
    sender.set_length(length);
    Ok(n as usize)
}

/// The arrays that `recvmmsg` takes, kept between calls.
#[cfg(target_os = "linux")]
pub(crate) struct MessageHeaders<const N: usize> {
    headers: Box<[libc::mmsghdr; N]>,
    vectors: Box<[libc::iovec; N]>,
}

// SAFETY: `receive` writes the pointers inside anew before each call, and nobody
// uses them between calls.
#[cfg(target_os = "linux")]
unsafe impl<const N: usize> Send for MessageHeaders<N> {}

#[cfg(target_os = "linux")]
impl<const N: usize> MessageHeaders<N> {
    pub(crate) fn new() -> Self {
        // SAFETY: all-zero bytes are valid for both: no name, no data.
        unsafe { Self { headers: Box::new(mem::zeroed()), vectors: Box::new(mem::zeroed()) } }
    }

    /// Receives one datagram per slot, with its sender and its length, and
    /// returns how many came. Never waits.
    pub(crate) fn receive<'a>(
        &mut self,
        fd: BorrowedFd<'_>,
        slots: impl Iterator<Item = &'a mut [MaybeUninit<u8>]>,
        senders: &mut [RawAddress],
        lengths: &mut [usize],
    ) -> io::Result<usize> {
        let parts = self.headers.iter_mut().zip(self.vectors.iter_mut());
        let mut offered = 0;
        for (((header, vector), slot), sender) in parts.zip(slots).zip(senders.iter_mut()) {
            vector.iov_base = slot.as_mut_ptr().cast();
            vector.iov_len = slot.len();
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = sender.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = raw_address::CAPACITY;
            offered += 1;
        }
        let count = check!(libc::recvmmsg(
            fd.as_raw_fd(),
            self.headers.as_mut_ptr(),
            offered,
            libc::MSG_DONTWAIT as _,
            std::ptr::null_mut()
        ))? as usize;
        let filled = self.headers.iter().take(count);
        for ((header, sender), length) in filled.zip(senders).zip(lengths) {
            sender.set_length(header.msg_hdr.msg_namelen);
            *length = header.msg_len as usize;
        }
        Ok(count)
    }
}
