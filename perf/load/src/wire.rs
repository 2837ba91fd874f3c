//! What the client talks over: one non-blocking byte (or datagram) channel with a descriptor.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A connected, non-blocking channel to the server under test.
pub(crate) trait Wire: Read + Write {
    /// The descriptor to poll.
    fn fd(&self) -> RawFd;

    /// Whether bytes taken by `write` still wait for the descriptor to become writable.
    fn has_backlog(&self) -> bool {
        false
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
    fn fd(&self) -> RawFd {
        self.as_raw_fd()
    }
}

impl Wire for UnixStream {
    fn fd(&self) -> RawFd {
        self.as_raw_fd()
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
    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
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
