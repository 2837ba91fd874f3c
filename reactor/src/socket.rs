//! Single attempts on a socket that Python code owns and may do anything with.
//!
//! Sending and receiving never wait, whatever the socket's mode: a wait would
//! block the whole loop.

use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::address::Address;
use crate::sys;

/// Receives once; None if there is nothing yet.
///
/// # Errors
/// What the kernel says; never `WouldBlock` or `Interrupted`.
// HOT: raw
#[inline]
pub fn receive(fd: BorrowedFd<'_>, space: &mut [MaybeUninit<u8>]) -> io::Result<Option<usize>> {
    attempt(|| sys::recv(fd, space))
}

/// Sends once; None if there is no room.
///
/// # Errors
/// As for [`receive`].
// HOT: raw
#[inline]
pub fn send(fd: BorrowedFd<'_>, data: &[u8]) -> io::Result<Option<usize>> {
    attempt(|| sys::send_now(fd, data))
}

/// Accepts once; None if no connection waits. The connection is non-blocking; the
/// listening socket must be, too.
///
/// # Errors
/// As for [`receive`].
pub fn accept(fd: BorrowedFd<'_>) -> io::Result<Option<(OwnedFd, Address)>> {
    attempt(|| sys::accept(fd))
}

/// Whether a short read or write of this socket means that the kernel has no
/// more data or room. True of TCP, which only Linux lets us recognise. Other
/// sockets return one message at a time, or stop early, as Unix sockets do after
/// data that came with descriptors.
pub fn is_plain_stream(fd: BorrowedFd<'_>) -> bool {
    sys::is_tcp(fd)
}

/// Whether there is room to write now, or an error that says there never will
/// be. Either means that a pending connect has ended.
pub fn has_room(fd: BorrowedFd<'_>) -> bool {
    sys::is_writable(fd)
}

#[inline]
fn attempt<R>(mut call: impl FnMut() -> io::Result<R>) -> io::Result<Option<R>> {
    loop {
        match call() {
            Ok(result) => return Ok(Some(result)),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return Ok(None),
                ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_blocking_socket_is_never_waited_for() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let mut space = [MaybeUninit::uninit(); 8];
        assert_eq!(receive(a.as_fd(), &mut space).unwrap(), None);
        b.write_all(b"abc").unwrap();
        assert_eq!(receive(a.as_fd(), &mut space).unwrap(), Some(3));
        while send(a.as_fd(), &[0; 65536]).unwrap().is_some() {}
        assert!(b.read(&mut [0; 65536]).unwrap() > 0);
        assert!(send(a.as_fd(), b"x").unwrap().is_some());
    }

    #[test]
    fn only_tcp_is_a_plain_stream() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(is_plain_stream(stream.as_fd()), cfg!(target_os = "linux"));
        let (a, _b) = UnixStream::pair().unwrap();
        assert!(!is_plain_stream(a.as_fd()));
    }
}
