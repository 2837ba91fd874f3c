//! The reference echo server: epoll, recv, send, and no interpreter. It marks the limit.
//!
//! One thread, one shared buffer; a reply that does not fit into the socket is kept and
//! sent when there is room, and nothing more is read from that connection until then.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use crate::sys::{Epoll, Interest};
use crate::target::Target;
use crate::wire::Wire;

/// Serves until the process is killed. Prints where it listens.
pub(crate) fn serve(target: &Target) -> io::Result<()> {
    match target {
        Target::Tcp(address) => {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            announce(&format!("\"port\": {}", listener.local_addr()?.port()))?;
            EchoServer::new(listener)?.run()
        }
        Target::Unix(path) => {
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            announce(&format!("\"path\": {path:?}"))?;
            EchoServer::new(listener)?.run()
        }
        Target::Udp(address) => serve_datagrams(*address),
    }
}

/// A listening socket of either family.
trait Listener: AsFd {
    type Stream: Wire;

    fn accept_one(&self) -> io::Result<Self::Stream>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    fn accept_one(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.accept()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    fn accept_one(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.accept()?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }
}

struct Peer<S> {
    stream: S,
    unsent: Vec<u8>,
}

struct EchoServer<L: Listener> {
    listener: L,
    poll: Epoll,
    peers: Vec<Option<Peer<L::Stream>>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
}

impl<L: Listener> EchoServer<L> {
    fn new(listener: L) -> io::Result<Self> {
        let poll = Epoll::new()?;
        poll.add(listener.as_fd(), LISTENER, Interest::Read)?;
        let buffer = vec![0; READ_BUFFER];
        Ok(Self { listener, poll, peers: Vec::new(), free: Vec::new(), buffer })
    }

    fn run(mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        loop {
            self.poll.wait(&mut ready, FOREVER)?;
            for &token in &ready {
                if token == LISTENER {
                    self.accept()?;
                } else if self.echo(token).is_err() {
                    // Dropping the peer closes it, which also takes it out of the poll.
                    if let Some(peer) = self.peers.get_mut(token) {
                        *peer = None;
                        self.free.push(token);
                    }
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept_one() {
                Ok(stream) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let token = self.free.pop().unwrap_or(self.peers.len());
            self.poll.add(stream.fd(), token, Interest::Read)?;
            let peer = Some(Peer { stream, unsent: Vec::new() });
            match self.peers.get_mut(token) {
                Some(place) => *place = peer,
                None => self.peers.push(peer),
            }
        }
    }

    /// Echoes one read, or goes on with an unsent reply; an error means the peer is done with.
    fn echo(&mut self, token: usize) -> io::Result<()> {
        let Some(peer) = self.peers.get_mut(token).and_then(Option::as_mut) else {
            return Ok(());
        };
        if !peer.unsent.is_empty() {
            let sent = send(&mut peer.stream, &peer.unsent)?;
            peer.unsent.drain(..sent);
            if peer.unsent.is_empty() {
                self.poll.modify(peer.stream.fd(), token, Interest::Read)?;
            }
            return Ok(());
        }
        let count = match peer.stream.read(&mut self.buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let reply = self.buffer.get(..count).unwrap_or_default();
        let sent = send(&mut peer.stream, reply)?;
        if let Some(rest) = reply.get(sent..).filter(|rest| !rest.is_empty()) {
            peer.unsent.extend_from_slice(rest);
            self.poll.modify(peer.stream.fd(), token, Interest::ReadWrite)?;
        }
        Ok(())
    }
}

fn send(stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

fn serve_datagrams(address: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    let mut poll = Epoll::new()?;
    poll.add(socket.as_fd(), LISTENER, Interest::Read)?;
    announce(&format!("\"port\": {}", socket.local_addr()?.port()))?;
    let mut buffer = vec![0; READ_BUFFER];
    let mut ready = Vec::new();
    loop {
        poll.wait(&mut ready, FOREVER)?;
        loop {
            match socket.recv_from(&mut buffer) {
                // A datagram that finds no room is dropped, as datagrams are.
                Ok((count, peer)) => {
                    drop(socket.send_to(buffer.get(..count).unwrap_or_default(), peer));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // A peer that has gone answers with an ICMP error; the others still count.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn announce(place: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{{\"pid\": {}, {place}}}", std::process::id())?;
    out.flush()
}

const LISTENER: usize = usize::MAX;
const READ_BUFFER: usize = 256 * 1024;
const FOREVER: Duration = Duration::from_secs(3600);
