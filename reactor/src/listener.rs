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
    /// A connection could not be had (accept(2): errors of its network are told
    /// here, and a firewall's refusal); others may wait behind it.
    Failed(io::Error),
}

/// Accepts once.
///
/// # Errors
/// What says that the descriptor is no listener (any more).
pub fn accept(fd: BorrowedFd<'_>) -> io::Result<Accepted> {
    match sys::accept(fd) {
        Ok((connection, peer)) => Ok(Accepted::Connection(connection, peer)),
        Err(error) => refused(error),
    }
}

fn refused(error: io::Error) -> io::Result<Accepted> {
    match (error.kind(), error.raw_os_error()) {
        (ErrorKind::WouldBlock, _) => Ok(Accepted::Blocked),
        (ErrorKind::ConnectionAborted | ErrorKind::Interrupted, _) => Ok(Accepted::Gone),
        (_, Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)) => {
            Ok(Accepted::Exhausted(error))
        }
        (_, Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK)) => Err(error),
        _ => Ok(Accepted::Failed(error)),
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
            sys::await_readable(listener.as_fd());
            match accept(listener.as_fd()).unwrap() {
                Accepted::Connection(_, peer) => {
                    assert_eq!(peer, Address::Inet(client.local_addr().unwrap()));
                }
                other => panic!("expected a connection, got {other:?}"),
            }
        }
        assert!(matches!(accept(listener.as_fd()).unwrap(), Accepted::Blocked));
    }

    #[test]
    fn an_error_of_one_connection_is_none_of_the_listener() {
        for errno in [libc::EPROTO, libc::EPERM, libc::ENETDOWN, libc::EHOSTUNREACH] {
            let told = refused(io::Error::from_raw_os_error(errno));
            assert!(matches!(told, Ok(Accepted::Failed(_))), "{errno}: {told:?}");
        }
        for errno in [libc::EBADF, libc::EINVAL, libc::ENOTSOCK] {
            assert!(refused(io::Error::from_raw_os_error(errno)).is_err(), "{errno}");
        }
    }
}
