//! Accepting connections in batches.

use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::address::Address;
use crate::sys;

/// What one try to accept brought.
#[derive(Debug)]
pub enum Accepted {
    /// A connection, owned by the receiver from now on.
    Connection(OwnedFd, Address),
    /// A client that left before it was accepted; try on.
    Gone,
    /// Nobody waits; an event will tell.
    Blocked,
    /// Descriptors or memory have run out: leave the listener alone for a
    /// while, because it stays readable.
    Exhausted(io::Error),
}

/// Accepts once.
///
/// # Errors
/// What says that the listener itself is broken (EBADF, EINVAL, ...).
pub fn accept(fd: BorrowedFd<'_>) -> io::Result<Accepted> {
    match sys::accept(fd) {
        Ok((connection, peer)) => Ok(Accepted::Connection(connection, peer)),
        Err(error) => match (error.kind(), error.raw_os_error()) {
            (ErrorKind::WouldBlock, _) => Ok(Accepted::Blocked),
            (ErrorKind::ConnectionAborted | ErrorKind::Interrupted, _) => Ok(Accepted::Gone),
            (_, Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)) => {
                Ok(Accepted::Exhausted(error))
            }
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn a_batch_ends_when_nobody_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        for client in &clients {
            match accept(listener.as_fd()).unwrap() {
                Accepted::Connection(_, peer) => {
                    assert_eq!(peer, Address::Inet(client.local_addr().unwrap()));
                }
                other => panic!("expected a connection, got {other:?}"),
            }
        }
        assert!(matches!(accept(listener.as_fd()).unwrap(), Accepted::Blocked));
    }
}
