//! What is known of a kept socket: one that stays in the poll between two calls.
//!
//! The registration belongs to the open file. Its number does not identify it, because
//! numbers are used again. So a weak reference identifies the socket object that waited,
//! and another object with the same number registers anew. Edges from before that, or
//! from a duplicate of a closed descriptor, carry the old token and find nothing.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

use pyo3::ffi;
use pyo3::prelude::*;
use tokioloop_reactor::Readiness;

use crate::py::{Live, Owned};

/// One of a socket's two directions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Read,
    Write,
}

/// A socket in the poll.
pub(crate) struct Kept {
    pub(super) fd: RawFd,
    socket: Identity,
    /// A short read or write means that there is no more data or room for now, as with TCP.
    plain: bool,
    /// The peer has ended its side, or urgent data may stop a read: then a short read
    /// shows nothing. `ended` is what the last event reported; `urgent` stays set.
    ended: bool,
    urgent: bool,
    pub(super) read: Half,
    pub(super) write: Half,
    /// Expected size of the next message, in bytes.
    pub(super) expected: u32,
    /// Events without news since the socket was last used.
    unwanted: u8,
}

/// The socket object that a registration is for.
pub(super) struct Identity {
    address: usize,
    reference: Owned,
}

/// What is known of one direction, and who waits for it.
pub(super) struct Half {
    known: Known,
    /// Fruitless tries still allowed after a short read.
    eager: u8,
    skipped: u8,
    pub(super) waiters: Waiters,
}

/// Whether a try is worth its system call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// There may be something.
    Maybe,
    /// The last try took less than it asked for; an edge announces more.
    Short,
    /// The kernel had no data or no room; an edge announces the change.
    Blocked,
}

/// The futures of the calls that wait; mostly one.
#[derive(Default)]
pub(super) struct Waiters {
    first: Option<Owned>,
    more: Vec<Owned>,
}

/// Events without news, and without a call in between, that end a registration.
const MOST_UNWANTED: u8 = 16;
/// Fruitless tries after a short read that one successful try pays for.
const EAGER: u8 = 3;
/// While tries after a short read are skipped, one in this many is made anyway.
const PROBE: u8 = 32;

impl Kept {
    pub(super) fn new(fd: RawFd, socket: Identity, plain: bool) -> Self {
        Self {
            fd,
            socket,
            plain,
            ended: false,
            urgent: false,
            read: Half::default(),
            write: Half::default(),
            expected: 0,
            unwanted: 0,
        }
    }

    /// Whether the registration was made for this very object.
    #[inline]
    pub(super) fn is_for(&self, socket: Live<'_>) -> bool {
        self.socket.address == socket.as_ptr().addr() && self.socket.is_alive()
    }

    /// The object that the registration is for, to check whether it is still alive.
    pub(super) fn identity(&self) -> &Identity {
        &self.socket
    }

    /// Notes that a call uses the socket.
    #[inline]
    pub(super) fn used(&mut self) {
        self.unwanted = 0;
    }

    /// Records an event. True if a waiting call must be woken, or the registration is to
    /// end.
    // HOT: raw-wait
    #[inline]
    pub(crate) fn note(&mut self, ready: Readiness) -> bool {
        let mut news = false;
        let mut waited_for = false;
        for (half, is_ready) in
            [(&mut self.read, ready.readable()), (&mut self.write, ready.writable())]
        {
            if is_ready {
                news |= half.known != Known::Maybe;
                half.known = Known::Maybe;
                waited_for |= !half.waiters.is_empty();
            }
        }
        // An event reports the current state, so `ended` may become false again.
        self.ended = ready.read_closed();
        self.urgent |= ready.urgent();
        if !news && !waited_for {
            self.unwanted = self.unwanted.saturating_add(1);
        }
        waited_for || self.is_unwanted()
    }

    /// Whether the registration is to end, since nobody uses the socket.
    pub(super) fn is_unwanted(&self) -> bool {
        self.unwanted >= MOST_UNWANTED && self.read.is_idle() && self.write.is_idle()
    }

    /// Whether nobody waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.read.is_idle() && self.write.is_idle()
    }

    pub(super) fn half(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Read => &mut self.read,
            Side::Write => &mut self.write,
        }
    }

    /// Notes a read of `length` bytes, of `asked` that were asked for.
    #[inline]
    pub(super) fn has_read(&mut self, length: usize, asked: usize) {
        let drained = length > 0 && length < asked;
        let half = &mut self.read;
        if half.known == Known::Short {
            half.eager = EAGER;
        }
        half.known = if drained && self.plain && !self.ended && !self.urgent {
            Known::Short
        } else {
            Known::Maybe
        };
    }

    /// Notes a write that did not take everything. True if that shows that no room is
    /// left.
    #[inline]
    pub(super) fn has_written_some(&mut self) -> bool {
        if self.plain {
            self.write.known = Known::Blocked;
        }
        self.plain
    }

    /// Starts anew for a new registration; the calls that wait stay.
    pub(super) fn renew(&mut self, socket: Identity, plain: bool) {
        let (read, write) = (self.read.waiters.take(), self.write.waiters.take());
        *self = Self::new(self.fd, socket, plain);
        self.read.waiters = read;
        self.write.waiters = write;
    }

    /// The futures of both sides.
    pub(crate) fn waiters(&self) -> impl Iterator<Item = (&Owned, bool)> {
        let read = self.read.waiters.iter().map(|future| (future, false));
        read.chain(self.write.waiters.iter().map(|future| (future, true)))
    }

    /// The weak reference to the socket.
    pub(crate) fn reference(&self, py: Python<'_>) -> Owned {
        self.socket.reference.clone_ref(py)
    }

    /// The number that it was registered with.
    pub(crate) fn number(&self) -> RawFd {
        self.fd
    }
}

impl Identity {
    /// The identity of a live socket object, which takes weak references.
    pub(super) fn of(py: Python<'_>, socket: &Owned) -> PyResult<Self> {
        // SAFETY: a live object; the call returns a new reference or raises.
        let reference = unsafe {
            Owned::from_result(py, ffi::PyWeakref_NewRef(socket.as_ptr(), std::ptr::null_mut()))?
        };
        Ok(Self { address: socket.as_ptr().addr(), reference })
    }

    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { address: self.address, reference: self.reference.clone_ref(py) }
    }

    /// Whether the object is still alive. A caller inside the loop's state, where nothing
    /// may be deallocated, holds a reference to the object at this address, so that the
    /// one which is dropped here cannot be the last.
    pub(super) fn is_alive(&self) -> bool {
        let mut object = std::ptr::null_mut();
        // SAFETY: a weak reference, alive; the object is a new reference.
        if unsafe { ffi::compat::PyWeakref_GetRef(self.reference.as_ptr(), &mut object) } != 1 {
            return false;
        }
        // SAFETY: found, so a new reference.
        drop(unsafe { Owned::from_raw(object) });
        true
    }
}

impl Half {
    /// Whether a first try is to be skipped, as it would find nothing. After a short read,
    /// data may have come since the last poll; whether a try pays off is learned.
    #[inline]
    pub(super) fn would_block(&mut self) -> bool {
        match self.known {
            Known::Maybe => false,
            Known::Blocked => true,
            Known::Short => {
                if self.eager > 0 {
                    return false;
                }
                self.skipped = (self.skipped + 1) % PROBE;
                self.skipped != 0
            }
        }
    }

    /// Notes that the kernel had no data or no room.
    #[inline]
    pub(super) fn has_blocked(&mut self) {
        if self.known == Known::Short {
            self.eager = self.eager.saturating_sub(1);
        }
        self.known = Known::Blocked;
    }

    fn is_idle(&self) -> bool {
        self.waiters.is_empty()
    }
}

impl Default for Half {
    fn default() -> Self {
        Self { known: Known::Maybe, eager: 1, skipped: 0, waiters: Waiters::default() }
    }
}

impl Waiters {
    pub(super) fn push(&mut self, future: Owned) {
        if self.is_empty() {
            self.first = Some(future);
        } else {
            self.more.push(future);
        }
    }

    /// Takes one out.
    pub(super) fn remove(&mut self, future: Live<'_>) -> Option<Owned> {
        if self.first.as_ref().is_some_and(|first| first.live().is(future)) {
            return self.first.take();
        }
        let position = self.more.iter().position(|each| each.live().is(future))?;
        Some(self.more.remove(position))
    }

    pub(super) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.more.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Owned> {
        self.first.iter().chain(&self.more)
    }
}
