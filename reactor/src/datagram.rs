//! Receiving and sending datagrams; on Linux one call receives many.
//!
//! The functions borrow the descriptor, which the transport above owns.
//! Callers never see `WouldBlock`, which becomes an ordinary result, or
//! `Interrupted`, which is retried.
#![allow(unsafe_code)]

use std::fmt;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use crate::raw_address::RawAddress;
use crate::sys;

/// Most datagrams that one batch takes.
pub const DATAGRAMS_PER_BATCH: usize = 64;

/// The memory that a batch's slots share: room for 64 of the longest UDP
/// datagrams. A page becomes resident only when a datagram reaches it.
const MEMORY_BYTES: usize = DATAGRAMS_PER_BATCH * SLOT_BYTES_INET;

/// The fewest slots that one call offers. A header is filled in for each, so an
/// endpoint that gets one datagram at a time should not pay for a full batch.
#[cfg(target_os = "linux")]
const FEWEST_OFFERED: usize = 4;

/// No UDP datagram is longer.
const SLOT_BYTES_INET: usize = 64 * 1024;

/// The most that asyncio receives of any other datagram.
const SLOT_BYTES_OTHER: usize = 256 * 1024;

/// How long a datagram may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Longest {
    /// The most that the length field of an IP packet can express: 64 KiB.
    Inet,
    /// As much as the sender's buffer holds; like asyncio we take 256 KiB of it.
    Other,
}

impl Longest {
    fn bytes(self) -> usize {
        match self {
            Self::Inet => SLOT_BYTES_INET,
            Self::Other => SLOT_BYTES_OTHER,
        }
    }
}

/// Memory that datagrams are received into, one slot each; one batch serves
/// every endpoint of a loop.
pub struct DatagramBatch {
    memory: Box<[MaybeUninit<u8>]>,
    senders: Box<[RawAddress]>,
    lengths: [usize; DATAGRAMS_PER_BATCH],
    /// The length of a slot in the last call.
    slot: usize,
    /// How many slots that call has filled.
    filled: usize,
    /// Whether the kernel may hold more datagrams.
    more: bool,
    /// How many slots the next call offers; adapts to what the last calls received.
    #[cfg(target_os = "linux")]
    offered: usize,
    #[cfg(target_os = "linux")]
    headers: sys::MessageHeaders<DATAGRAMS_PER_BATCH>,
}

impl DatagramBatch {
    /// Reserves the memory; its pages become resident as data is received.
    pub fn new() -> Self {
        Self {
            memory: Box::new_uninit_slice(MEMORY_BYTES),
            senders: vec![RawAddress::none(); DATAGRAMS_PER_BATCH].into_boxed_slice(),
            lengths: [0; DATAGRAMS_PER_BATCH],
            slot: SLOT_BYTES_INET,
            filled: 0,
            more: false,
            #[cfg(target_os = "linux")]
            offered: FEWEST_OFFERED,
            #[cfg(target_os = "linux")]
            headers: sys::MessageHeaders::new(),
        }
    }

    /// Receives the waiting datagrams that there are slots for, and returns how
    /// many. After 0, an edge will announce the next one.
    ///
    /// # Errors
    /// The socket's pending error, such as an ICMP answer to something it sent;
    /// never `WouldBlock` or `Interrupted`. The socket stays usable.
    pub fn receive(&mut self, fd: BorrowedFd<'_>, longest: Longest) -> io::Result<usize> {
        self.slot = longest.bytes();
        self.filled = 0;
        self.more = false;
        loop {
            match self.receive_once(fd) {
                Ok(count) => {
                    self.filled = count;
                    return Ok(count);
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(0),
                    ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn receive_once(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        let slots = self.memory.chunks_exact_mut(self.slot);
        let offered = self.offered.min(slots.len());
        let slots = slots.take(offered);
        let count = self.headers.receive(fd, slots, &mut self.senders, &mut self.lengths)?;
        self.more = count == offered;
        if self.more {
            self.offered = (offered * 2).min(DATAGRAMS_PER_BATCH);
        } else if count * 4 <= offered {
            self.offered = (offered / 2).max(FEWEST_OFFERED);
        }
        Ok(count)
    }

    /// One datagram per call: this system has no call that receives many.
    #[cfg(not(target_os = "linux"))]
    fn receive_once(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        let Some((space, sender)) =
            self.memory.chunks_exact_mut(self.slot).zip(&mut self.senders).next()
        else {
            return Ok(0);
        };
        self.lengths[0] = sys::receive_from(fd, space, sender)?;
        self.more = true;
        Ok(1)
    }

    /// Whether the last call ran out of slots: datagrams may be left then, and
    /// no edge will announce them.
    pub fn may_have_more(&self) -> bool {
        self.more
    }

    /// A datagram of the last call and who sent it.
    pub fn get(&self, index: usize) -> Option<(&[u8], &RawAddress)> {
        if index >= self.filled {
            return None;
        }
        let length = *self.lengths.get(index)?;
        let start = index * self.slot;
        let space = self.memory.get(start..start + length.min(self.slot))?;
        // SAFETY: `lengths` holds what the kernel reported, and `filled` limits the
        // index to the last call, so the kernel has written these bytes.
        let data = unsafe { std::slice::from_raw_parts(space.as_ptr().cast(), space.len()) };
        Some((data, self.senders.get(index)?))
    }
}

impl Default for DatagramBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for DatagramBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramBatch").field("filled", &self.filled).finish_non_exhaustive()
    }
}

/// Sends one datagram, without an address to the connected peer; returns whether
/// the kernel had room for it.
///
/// # Errors
/// The error of this datagram, or a pending one of an earlier datagram; never
/// `WouldBlock` or `Interrupted`. The socket stays usable.
// HOT: udp
#[inline]
pub fn send(fd: BorrowedFd<'_>, data: &[u8], to: Option<&RawAddress>) -> io::Result<bool> {
    loop {
        let result = match to {
            Some(to) => sys::send_to(fd, data, to),
            None => sys::send(fd, data),
        };
        match result {
            Ok(_) => return Ok(true),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return Ok(false),
                ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    fn socket() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    /// Receives `total` datagrams and checks that none is left.
    fn drain(
        batch: &mut DatagramBatch,
        socket: &UdpSocket,
        total: usize,
    ) -> Vec<(Vec<u8>, RawAddress)> {
        let mut all = Vec::new();
        while all.len() < total {
            sys::await_readable(socket.as_fd());
            let count = batch.receive(socket.as_fd(), Longest::Inet).unwrap();
            for index in 0..count {
                let (data, from) = batch.get(index).unwrap();
                all.push((data.to_vec(), *from));
            }
            assert!(batch.get(count).is_none());
        }
        assert_eq!(batch.receive(socket.as_fd(), Longest::Inet).unwrap(), 0);
        all
    }

    #[test]
    fn a_batch_keeps_order_lengths_and_senders() {
        let (receiver, to) = socket();
        let (one, one_address) = socket();
        let (two, two_address) = socket();
        let mut expected = Vec::new();
        // macOS sends no UDP datagram of more than 9,216 bytes unless it is told to.
        let longest = if cfg!(target_os = "linux") { 60_000 } else { 9200 };
        for length in [0, 1, 1000, 9000, longest] {
            for (sender, address) in [(&one, one_address), (&two, two_address)] {
                let data = vec![length as u8; length];
                assert!(send(sender.as_fd(), &data, Some(&to.into())).unwrap());
                expected.push((data, RawAddress::from(address)));
            }
        }
        assert_eq!(drain(&mut DatagramBatch::new(), &receiver, expected.len()), expected);
    }

    #[test]
    fn more_than_a_batch_comes_in_several() {
        let (receiver, to) = socket();
        let (sender, _) = socket();
        let total = DATAGRAMS_PER_BATCH + 3;
        for number in 0..total {
            assert!(send(sender.as_fd(), &[number as u8], Some(&to.into())).unwrap());
        }
        let received = drain(&mut DatagramBatch::new(), &receiver, total);
        let numbers: Vec<_> = received.iter().map(|(data, _)| usize::from(data[0])).collect();
        assert_eq!(numbers, (0..total).collect::<Vec<_>>());
    }

    #[test]
    fn an_empty_socket_has_no_datagram_and_an_empty_datagram_is_one() {
        let (receiver, to) = socket();
        let mut batch = DatagramBatch::new();
        assert_eq!(batch.receive(receiver.as_fd(), Longest::Inet).unwrap(), 0);
        assert!(!batch.may_have_more());
        assert!(send(receiver.as_fd(), b"", Some(&to.into())).unwrap());
        sys::await_readable(receiver.as_fd());
        assert_eq!(batch.receive(receiver.as_fd(), Longest::Inet).unwrap(), 1);
        assert_eq!(batch.get(0).unwrap().0, b"");
    }

    #[test]
    fn a_closed_port_is_an_error_and_the_socket_goes_on() {
        let (gone, address) = socket();
        drop(gone);
        let (sender, own) = socket();
        sender.connect(address).unwrap();
        assert!(send(sender.as_fd(), b"anybody?", None).unwrap());
        let mut batch = DatagramBatch::new();
        sys::await_readable(sender.as_fd());
        let error = batch.receive(sender.as_fd(), Longest::Inet).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        let back = UdpSocket::bind(address).unwrap();
        back.send_to(b"here", own).unwrap();
        sys::await_readable(sender.as_fd());
        assert_eq!(batch.receive(sender.as_fd(), Longest::Inet).unwrap(), 1);
        assert_eq!(batch.get(0).unwrap().0, b"here");
    }

    #[test]
    fn a_long_unix_datagram_comes_whole_and_its_sender_has_no_name() {
        let (one, two) = UnixDatagram::pair().unwrap();
        two.set_nonblocking(true).unwrap();
        // macOS sends no Unix datagram of more than 2,048 bytes unless it is told to.
        let length = if cfg!(target_os = "linux") { 100_000 } else { 2000 };
        let data: Vec<u8> = (0..length).map(|n: u32| n as u8).collect();
        assert!(send(one.as_fd(), &data, None).unwrap());
        let mut batch = DatagramBatch::new();
        assert_eq!(batch.receive(two.as_fd(), Longest::Other).unwrap(), 1);
        let (received, from) = batch.get(0).unwrap();
        assert_eq!(received, data);
        assert!(from.is_none() || from.to_address() == Address::Unix(Box::default()));
    }

    #[test]
    fn a_full_receiver_is_a_state_of_the_send() {
        let (one, _two) = UnixDatagram::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        assert!(send(one.as_fd(), b"x", None).unwrap());
        let mut tries = (0..100_000).map(|_| send(one.as_fd(), b"x", None));
        let refused = tries.find(|result| !matches!(result, Ok(true))).unwrap();
        if cfg!(target_os = "linux") {
            assert!(!refused.unwrap());
        } else {
            // macOS reports an error instead, as it does to asyncio.
            assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
        }
    }

    #[test]
    fn a_datagram_that_is_too_long_is_an_error() {
        let (sender, own) = socket();
        let error = send(sender.as_fd(), &[0; 70_000], Some(&own.into())).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    }
}
