//! What the client talks over: one non-blocking byte (or datagram) channel with a descriptor.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A connected, non-blocking channel to the server under test.
pub(crate) trait Wire: Read + Write {
    /// The descriptor to poll.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Whether bytes taken by `write` still wait for the descriptor to become writable.
    fn has_backlog(&self) -> bool {
        false
    }

    /// Whether a write that would block waits for room, and not for the peer (a handshake).
    fn waits_for_room(&self) -> bool {
        true
    }

    /// Whether plaintext may be left inside after a short read, so that reading goes on.
    fn buffers_input(&self) -> bool {
        false
    }

    /// Whether a request or its reply may get lost, so that silence means "send again".
    fn may_lose(&self) -> bool {
        false
    }
}

impl Wire for TcpStream {
    fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

impl Wire for UnixStream {
    fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

impl<W: Wire> Wire for &mut W {
    fn fd(&self) -> BorrowedFd<'_> {
        (**self).fd()
    }

    fn has_backlog(&self) -> bool {
        (**self).has_backlog()
    }

    fn waits_for_room(&self) -> bool {
        (**self).waits_for_room()
    }

    fn buffers_input(&self) -> bool {
        (**self).buffers_input()
    }

    fn may_lose(&self) -> bool {
        (**self).may_lose()
    }
}

/// A connected UDP socket with the reading and writing interface of a stream.
#[derive(Debug)]
pub(crate) struct Datagrams(UdpSocket);

impl Datagrams {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let local: SocketAddr = if address.is_ipv4() {
            SocketAddr::from(([127, 0, 0, 1], 0))
        } else {
            SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0))
        };
        let socket = UdpSocket::bind(local)?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }
}

impl Read for Datagrams {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
    }
}

impl Write for Datagrams {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.0.send(datagram)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire for Datagrams {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn may_lose(&self) -> bool {
        true
    }
}

/// Connects over TCP without ever waiting longer than `CONNECT_TIMEOUT`.
pub(crate) fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Connects to a Unix socket; the kernel answers at once, or says that the backlog is full.
pub(crate) fn connect_unix(path: &str) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
