//! One try of each call, on the socket itself.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, RawFd};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use tokioloop_reactor::{READ_RING_BYTES, socket, sys};

use crate::errors::{self, Failed};
use crate::event_loop::{Inside, LoopState};
use crate::py::buffer::{Room, View};
use crate::py::message::Spare;
use crate::py::{Owned, bytes, call};
use crate::sockets::keeping::find;
use crate::sockets::kept::{Kept, Side};
use crate::sockets::stock::Stock;
use crate::transports::address;

/// The outcome of one try.
pub(super) enum Attempt {
    Done(Owned),
    /// The call has to wait for the socket.
    Blocked,
    /// asyncio's own coroutine has to do it.
    Delegate,
}

/// Messages that are expected to have more bytes go straight into an object of their
/// own: copying them would cost more than allocating it.
const LARGE: u32 = 32 * 1024;
/// Most bytes that are allocated on expectation alone.
const MOST_EXPECTED: usize = 256 * 1024;

/// A call on a socket, for the length of one try.
pub(super) struct Try<'a> {
    pub(super) inside: &'a Inside<'a>,
    pub(super) socket: &'a Owned,
    pub(super) fd: RawFd,
    /// The call has not waited yet: a try that is known to be in vain is skipped.
    pub(super) first: bool,
}

impl Try<'_> {
    /// What is known of the socket, if it is kept. An error if a try in this direction is
    /// known to be in vain.
    #[inline]
    fn gate<'s>(&self, state: &'s mut LoopState, side: Side) -> Result<Option<&'s mut Kept>, ()> {
        let mut kept = find(&state.fds, &mut state.sources, self.fd, self.socket);
        if let Some(kept) = &mut kept {
            kept.used();
            if self.first && kept.half(side).would_block() {
                return Err(());
            }
        }
        Ok(kept)
    }

    /// Notes that the kernel had no data or no room.
    pub(super) fn has_blocked(&self, side: Side) {
        self.inside.with(|state| {
            if let Some(kept) = find(&state.fds, &mut state.sources, self.fd, self.socket) {
                kept.half(side).has_blocked();
            }
        });
    }

    /// `socket.recv(count)`, with at least one byte to receive.
    // HOT: raw
    #[inline]
    pub(super) fn recv(&self, py: Python<'_>, count: usize) -> PyResult<Attempt> {
        let is_stream = Stock::get(py)?.layout(py).is_stream(py, self.socket)?;
        let result = self.inside.with(|state| {
            let Ok(kept) = self.gate(state, Side::Read) else { return Ok(Received::Blocked) };
            let expected = kept.map_or(0, |kept| kept.expected);
            let (received, asked) = if count > READ_RING_BYTES && !is_stream {
                // The rest of a message that the ring has no room for would be lost.
                (self.recv_large(py, count)?, count)
            } else if expected > LARGE && count > LARGE as usize {
                // With slack, a read that takes everything is a short one, which shows that
                // nothing is left.
                let capacity = (expected as usize + 1).next_power_of_two();
                let capacity = capacity.min(MOST_EXPECTED).min(count);
                (self.recv_large(py, capacity)?, capacity)
            } else {
                self.recv_small(py, state, count)?
            };
            if let Some(kept) = find(&state.fds, &mut state.sources, self.fd, self.socket) {
                match &received {
                    Received::Data(_, length) => {
                        kept.has_read(*length, asked);
                        expect(kept, *length, asked);
                    }
                    Received::Blocked => kept.read.has_blocked(),
                    Received::Delegate => {}
                }
            }
            Ok(received)
        });
        match result {
            Ok(Received::Data(data, _)) => Ok(Attempt::Done(data)),
            Ok(Received::Blocked) => Ok(Attempt::Blocked),
            Ok(Received::Delegate) => Ok(Attempt::Delegate),
            Err(Failed::Io(error)) => Err(errors::raised(py, errors::os_error(py, &error))),
            Err(Failed::Python(error)) => Err(error),
        }
    }

    /// Receives into the loop's ring and copies from there; also returns how many bytes
    /// were asked for. What does not fit is left to the next call, which will expect
    /// more: a second receive here could consume an error that nobody would be told of.
    #[inline]
    fn recv_small(
        &self,
        py: Python<'_>,
        state: &mut LoopState,
        count: usize,
    ) -> Result<(Received, usize), Failed> {
        // A closed loop has no ring any more.
        let Some(ring) = &mut state.ring else { return Ok((Received::Delegate, 0)) };
        let asked = count.min(READ_RING_BYTES);
        let space = ring.space().get_mut(..asked).unwrap_or_default();
        let Some(length) = socket::receive(sys::borrow(self.fd), space)? else {
            return Ok((Received::Blocked, asked));
        };
        // SAFETY: the kernel has just written `length` bytes to the front of the ring.
        let filled = unsafe { ring.filled(length) };
        Ok((Received::Data(bytes::copy(py, filled)?, length), asked))
    }

    /// Receives into an object of its own.
    fn recv_large(&self, py: Python<'_>, capacity: usize) -> Result<Received, Failed> {
        let mut large = Spare::default().filling(py, capacity)?;
        let Some(length) = socket::receive(sys::borrow(self.fd), large.space(0))? else {
            return Ok(Received::Blocked);
        };
        // SAFETY: the kernel has just written the first `length` bytes.
        let message = unsafe { large.finish(py, length, true)? };
        Ok(Received::Data(message.object().clone_ref(py), length))
    }

    /// `socket.recv_into(buffer)`.
    pub(super) fn recv_into(&self, py: Python<'_>, buffer: &Owned) -> PyResult<Attempt> {
        // asyncio's coroutine refuses what is no writable buffer, with CPython's message.
        let (mut room, buffer) = (Room::new(), buffer.bind(py));
        let Ok(mut view) = View::writable(&mut room, &buffer) else {
            return Ok(Attempt::Delegate);
        };
        let asked = view.len();
        if asked == 0 {
            return Ok(Attempt::Delegate);
        }
        let result = self.inside.with(|state| {
            if self.gate(state, Side::Read).is_err() {
                return Ok(None);
            }
            let result = socket::receive(sys::borrow(self.fd), view.space());
            if let Some(kept) = find(&state.fds, &mut state.sources, self.fd, self.socket) {
                match result {
                    Ok(Some(length)) => kept.has_read(length, asked),
                    Ok(None) => kept.read.has_blocked(),
                    Err(_) => {}
                }
            }
            result
        });
        drop(view);
        match result {
            Ok(Some(length)) => Ok(Attempt::Done(length.into_pyobject(py)?.into_any().into())),
            Ok(None) => Ok(Attempt::Blocked),
            Err(error) => Err(errors::raised(py, errors::os_error(py, &error))),
        }
    }

    /// `socket.send(data)` from `sent` on, which it advances; done once all is sent.
    // HOT: raw
    #[inline]
    pub(super) fn send(&self, py: Python<'_>, data: &[u8], sent: &mut usize) -> PyResult<Attempt> {
        let result = self.inside.with(|state| {
            // Sending nothing needs no room.
            if self.gate(state, Side::Write).is_err() && !data.is_empty() {
                return Ok(false);
            }
            loop {
                let rest = data.get(*sent..).unwrap_or_default();
                let taken = socket::send(sys::borrow(self.fd), rest)?;
                *sent += taken.unwrap_or(0);
                if taken == Some(rest.len()) {
                    return Ok(true);
                }
                let kept = find(&state.fds, &mut state.sources, self.fd, self.socket);
                let is_full = match (taken, kept) {
                    (None, None) => true,
                    (None, Some(kept)) => {
                        kept.write.has_blocked();
                        true
                    }
                    (Some(_), Some(kept)) => kept.has_written_some(),
                    (Some(_), None) => false,
                };
                if is_full {
                    return Ok(false);
                }
            }
        });
        match result {
            Ok(true) => Ok(Attempt::Done(Owned::none(py))),
            Ok(false) => Ok(Attempt::Blocked),
            Err(error) => Err(errors::raised(py, errors::os_error(py, &error))),
        }
    }

    /// Calls a method of the Python socket; None if the kernel had no data or no room.
    pub(super) fn method<const N: usize>(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyString>,
        arguments: [&Owned; N],
    ) -> PyResult<Option<Owned>> {
        match call::method(py, self.socket, name, arguments.map(Owned::live)) {
            Ok(result) => Ok(Some(result)),
            Err(error) if Stock::get(py)?.is_again(py, &error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends or receives a datagram with a method of the Python socket, which may refuse its
    /// arguments and is therefore always tried.
    pub(super) fn datagram<const N: usize>(
        &self,
        py: Python<'_>,
        side: Side,
        name: &Bound<'_, PyString>,
        arguments: [&Owned; N],
    ) -> PyResult<Attempt> {
        if let Some(result) = self.method(py, name, arguments)? {
            return Ok(Attempt::Done(result));
        }
        self.has_blocked(side);
        Ok(Attempt::Blocked)
    }

    /// `socket.accept()`, and the connection made non-blocking.
    pub(super) fn accept(&self, py: Python<'_>) -> PyResult<Attempt> {
        let stock = Stock::get(py)?;
        let listener = self.socket.bind(py);
        let family = listener.getattr(intern!(py, "family"))?;
        // The addresses of other families have forms of their own.
        let known = matches!(family.extract()?, libc::AF_INET | libc::AF_INET6 | libc::AF_UNIX);
        if !known || !stock.is_current(py)? || !stock.layout(py).never_waits(py, self.socket)? {
            return Ok(Attempt::Delegate);
        }
        if self.inside.with(|state| self.gate(state, Side::Read).is_err()) {
            return Ok(Attempt::Blocked);
        }
        let accepted = socket::accept(sys::borrow(self.fd));
        let Some((fd, peer)) =
            accepted.map_err(|error| errors::raised(py, errors::os_error(py, &error)))?
        else {
            self.has_blocked(Side::Read);
            return Ok(Attempt::Blocked);
        };
        let address = address::to_python(py, &peer)?;
        let kind = listener.getattr(intern!(py, "type"))?;
        let protocol = listener.getattr(intern!(py, "proto"))?;
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "fileno"), fd.as_raw_fd())?;
        let connection =
            stock.socket(py).call((family, non_blocking(&kind)?, protocol), Some(&keywords))?;
        // The socket object owns the descriptor from now on.
        let _ = sys::release(fd);
        if !cfg!(target_os = "linux") {
            connection.call_method1(intern!(py, "setblocking"), (false,))?;
        }
        Ok(Attempt::Done((connection, address).into_pyobject(py)?.into_any().into()))
    }
}

/// The socket type with a flag (on Linux) for the descriptor being non-blocking, so that
/// CPython need not make it so.
fn non_blocking<'py>(kind: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    #[cfg(target_os = "linux")]
    {
        let flagged = kind.extract::<i32>()? | libc::SOCK_NONBLOCK;
        Ok(flagged.into_pyobject(kind.py())?.into_any())
    }
    #[cfg(not(target_os = "linux"))]
    Ok(kind.clone())
}

/// Notes how large a message was. A full read was part of a larger message. After a short
/// one the expectation falls slowly, since messages sometimes arrive in parts.
fn expect(kept: &mut Kept, length: usize, asked: usize) {
    let length = length.min(MOST_EXPECTED);
    kept.expected = if length == asked {
        (2 * length).min(MOST_EXPECTED) as u32
    } else {
        (length as u32).max(kept.expected - kept.expected / 8)
    };
}

enum Received {
    Data(Owned, usize),
    Blocked,
    Delegate,
}
