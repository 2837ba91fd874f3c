//! Reading and writing a connected stream: what each result of the kernel means
//! for the next step.
//!
//! The functions borrow the descriptor, which the transport above owns.
//! Callers never see `WouldBlock`, which becomes an ordinary result, or
//! `Interrupted`, which is retried.

use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use crate::sys;
use crate::write_queue::WriteQueue;

/// Chunks that one `sendmsg` takes; more follow with the next call.
const SLICES_PER_SEND: usize = 64;

/// The result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Some bytes.
    Data {
        /// How many bytes.
        length: usize,
        /// Whether the kernel has no more for now and an edge will announce the
        /// next ones. That saves a `recv`.
        drained: bool,
    },
    /// The peer has ended its side.
    Eof,
    /// Nothing for now; an edge will announce data.
    Blocked,
}

/// How far a flush got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// The queue is empty.
    All,
    /// The kernel's buffer is full; an edge will announce room.
    Blocked,
}

/// What a short read or write of a stream socket means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP: the kernel's queue is empty, or its buffer full.
    Tcp,
    /// A Unix socket: the same, except that a read also stops after data that came
    /// with ancillary data (such as descriptors), and before another process's
    /// data if the socket asks for the senders' credentials.
    Unix,
    /// Any other socket, which may preserve message boundaries: nothing.
    Other,
}

/// Receives once.
///
/// A short read of a stream socket means that the kernel's queue is empty
/// (epoll(7), "Questions and answers", 9), and the next arrival raises a new
/// edge. That does not hold once the peer has ended its side, when no further
/// edge comes, nor with urgent data (`hidden` stands for both), nor where [`Kind`]
/// says otherwise.
///
/// # Errors
/// The connection's error; never `WouldBlock` or `Interrupted`.
// HOT: proto
// Inlined by force: the path for TCP is small, and as a function call it costs 60
// instructions per message.
#[inline(always)]
pub fn receive(
    fd: BorrowedFd<'_>,
    kind: Kind,
    hidden: bool,
    space: &mut [MaybeUninit<u8>],
) -> io::Result<Received> {
    if kind == Kind::Tcp {
        return received(space.len(), hidden, || sys::recv(fd, space));
    }
    receive_beside(fd, kind, hidden, space)
}

#[inline(never)]
fn receive_beside(
    fd: BorrowedFd<'_>,
    kind: Kind,
    hidden: bool,
    space: &mut [MaybeUninit<u8>],
) -> io::Result<Received> {
    let room = space.len();
    let mut hidden = hidden || kind == Kind::Other;
    let outcome = received(room, true, || {
        let (length, beside) = sys::recv_beside(fd, space)?;
        hidden |= beside;
        Ok(length)
    });
    match outcome {
        Ok(Received::Data { length, .. }) => {
            Ok(Received::Data { length, drained: length < room && !hidden })
        }
        outcome => outcome,
    }
}

#[inline(always)]
fn received(
    room: usize,
    hidden: bool,
    mut call: impl FnMut() -> io::Result<usize>,
) -> io::Result<Received> {
    loop {
        match call() {
            Ok(0) => return Ok(Received::Eof),
            Ok(length) => {
                return Ok(Received::Data { length, drained: length < room && !hidden });
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return Ok(Received::Blocked),
                ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
}

/// Sends once and returns how much the kernel took; 0 when its buffer is full.
///
/// # Errors
/// The connection's error; never `WouldBlock` or `Interrupted`.
// HOT: proto
#[inline(always)]
pub fn send(fd: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
    until_told(|| sys::send(fd, data))
}

/// Sends what waits in the queue until it is empty or the kernel is full.
///
/// # Errors
/// The connection's error; the queue keeps what was not sent.
pub fn flush<B: AsRef<[u8]>>(
    fd: BorrowedFd<'_>,
    kind: Kind,
    queue: &mut WriteQueue<B>,
) -> io::Result<Flushed> {
    while !queue.is_empty() {
        let (sent, offered) = match queue.only() {
            Some(chunk) => (send(fd, chunk)?, chunk.len()),
            None if queue.len_bytes() <= sys::WORTH_COPYING => send_copied(fd, queue)?,
            None => send_joined(fd, queue)?,
        };
        queue.advance(sent);
        if sent < offered {
            // A short write means a full buffer: an edge follows, which saves
            // the call that would only return EAGAIN. On other kinds of sockets
            // it may mean something else, so only a refusal counts.
            if sent == 0 || kind != Kind::Other {
                return Ok(Flushed::Blocked);
            }
        }
    }
    Ok(Flushed::All)
}

/// Sends several small chunks with one call; returns the bytes sent and the bytes offered.
// Never inlined: the copy needs more stack than the rest of a flush.
#[inline(never)]
fn send_copied<B: AsRef<[u8]>>(
    fd: BorrowedFd<'_>,
    queue: &WriteQueue<B>,
) -> io::Result<(usize, usize)> {
    let sent = until_told(|| sys::send_copied(fd, queue.parts()))?;
    Ok((sent, queue.len_bytes()))
}

/// Sends several chunks with one call; returns the bytes sent and the bytes offered.
// Never inlined: the array of slices needs more stack than the rest of a flush.
#[inline(never)]
fn send_joined<B: AsRef<[u8]>>(
    fd: BorrowedFd<'_>,
    queue: &WriteQueue<B>,
) -> io::Result<(usize, usize)> {
    let mut slices = [IoSlice::new(&[]); SLICES_PER_SEND];
    let count = queue.slices(&mut slices);
    let slices = slices.get(..count).unwrap_or(&[]);
    let offered = slices.iter().map(|slice| slice.len()).sum();
    let sent = until_told(|| sys::send_vectored(fd, slices))?;
    Ok((sent, offered))
}

#[inline(always)]
fn until_told(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    fn pair() -> (UnixStream, UnixStream) {
        let (a, b) = UnixStream::pair().unwrap();
        a.set_nonblocking(true).unwrap();
        (a, b)
    }

    #[test]
    fn a_short_read_is_drained_and_a_full_one_is_not() {
        let (a, mut b) = pair();
        let mut space = [MaybeUninit::uninit(); 8];
        b.write_all(b"hello").unwrap();
        let received = receive(a.as_fd(), Kind::Unix, false, &mut space).unwrap();
        // Other systems do not report whether a descriptor came along.
        let drained = cfg!(target_os = "linux");
        assert_eq!(received, Received::Data { length: 5, drained });
        b.write_all(b"hello again").unwrap();
        let received = receive(a.as_fd(), Kind::Unix, false, &mut space).unwrap();
        assert_eq!(received, Received::Data { length: 8, drained: false });
    }

    #[test]
    fn a_short_read_beside_the_end_of_file_is_not_drained() {
        let (a, mut b) = pair();
        let mut space = [MaybeUninit::uninit(); 8];
        b.write_all(b"bye").unwrap();
        drop(b);
        let received = receive(a.as_fd(), Kind::Unix, true, &mut space).unwrap();
        assert_eq!(received, Received::Data { length: 3, drained: false });
        let received = receive(a.as_fd(), Kind::Unix, true, &mut space).unwrap();
        assert_eq!(received, Received::Eof);
    }

    #[test]
    fn nothing_to_read_is_a_state() {
        let (a, _b) = pair();
        let mut space = [MaybeUninit::uninit(); 8];
        let received = receive(a.as_fd(), Kind::Unix, false, &mut space).unwrap();
        assert_eq!(received, Received::Blocked);
    }

    #[test]
    fn a_flush_keeps_order_across_a_full_buffer() {
        let (a, mut b) = pair();
        let mut queue = WriteQueue::new();
        let mut expected = Vec::new();
        for i in 0..500_u32 {
            let chunk = vec![i as u8; 5000];
            expected.extend_from_slice(&chunk);
            queue.push(chunk);
        }
        let mut got = Vec::new();
        while flush(a.as_fd(), Kind::Unix, &mut queue).unwrap() == Flushed::Blocked {
            let mut buffer = [0; 65536];
            let n = b.read(&mut buffer).unwrap();
            got.extend_from_slice(&buffer[..n]);
        }
        drop(a);
        b.read_to_end(&mut got).unwrap();
        assert_eq!(got, expected);
    }

    #[test]
    fn small_chunks_are_sent_from_where_the_last_send_ended() {
        let (a, mut b) = pair();
        let mut queue = WriteQueue::new();
        queue.push_partial(b"HTTP/1.1 200 OK".to_vec(), 9);
        for chunk in [&b", then "[..], &[7; sys::WORTH_COPYING - 25], b" and the end"] {
            queue.push(chunk.to_vec());
        }
        let expected: Vec<u8> = queue.parts().flatten().copied().collect();
        assert!(expected.len() <= sys::WORTH_COPYING && expected.starts_with(b"200 OK, then"));
        assert_eq!(flush(a.as_fd(), Kind::Unix, &mut queue).unwrap(), Flushed::All);
        let mut got = vec![0; expected.len()];
        b.read_exact(&mut got).unwrap();
        assert_eq!(got, expected);
    }

    #[test]
    fn a_send_to_a_closed_peer_is_an_error_and_no_signal() {
        let (a, b) = pair();
        drop(b);
        let error = send(a.as_fd(), b"x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
    }
}
