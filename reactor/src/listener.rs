//! Accepting connections.

use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::address::Address;
use crate::sys;

/// The outcome of one attempt to accept.
#[derive(Debug)]
pub enum Accepted {
    /// A connection and its peer; the caller owns the descriptor.
    Connection(OwnedFd, Address),
    /// The client disconnected before it was accepted, or a signal interrupted
    /// the call; try again.
    Gone,
    /// No connection waits; an event will announce the next one.
    Blocked,
    /// Descriptors or memory have run out. The listener stays readable, so leave
    /// it alone for a while.
    Exhausted(io::Error),
    /// This connection failed: accept(2) reports network errors that were already
    /// pending on it, and a firewall's refusal. Others may be waiting.
    Failed(io::Error),
}

/// Accepts once.
///
/// # Errors
/// EBADF, EINVAL or ENOTSOCK: the descriptor is not a listener (any more).
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
