//! What is known of one socket that stays in the poll between calls.
//!
//! The registration belongs to the open file; a number alone does not name it,
//! because numbers are used again. So the object that waited is remembered by a
//! weak reference, and another object under the same number registers anew.
//! Edges that were told before that, or that a duplicate of a closed descriptor
//! still brings, carry the old token and find nothing.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

use pyo3::ffi;
use pyo3::prelude::*;
use tokioloop_reactor::Readiness;

use crate::py::Owned;

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
    /// A short read or write means that there is no more for now: TCP.
    plain: bool,
    /// The peer has ended its side, or urgent data may stop a read: a short one
    /// means nothing. `ended` is what the last event said, `urgent` stays.
    ended: bool,
    urgent: bool,
    pub(super) read: Half,
    pub(super) write: Half,
    /// Bytes that the next message may have, as the last ones had.
    pub(super) expected: u32,
    /// Events that told nothing new since somebody used the socket.
    unwanted: u8,
}

/// Who a registration is for.
pub(super) struct Identity {
    address: usize,
    reference: Owned,
}

/// What is known of one direction, and who waits for it.
pub(super) struct Half {
    known: Known,
    /// Tries after a short read that paid, lately.
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
    /// The kernel has said no; an edge announces what changes that.
    Blocked,
}

/// The futures of those who wait; mostly one.
#[derive(Default)]
pub(super) struct Waiters {
    first: Option<Owned>,
    more: Vec<Owned>,
}

/// Without a try in between: so many events that nobody uses end a registration.
const MOST_UNWANTED: u8 = 16;
/// How many failures the success of a try after a short read outweighs.
const EAGER: u8 = 3;
/// One try in so many, to notice that they would pay again.
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

    /// Whether the registration was made for this very object. The caller holds
    /// a reference to it.
    #[inline]
    pub(super) fn is_for(&self, socket: *mut ffi::PyObject) -> bool {
        self.socket.address == socket as usize && self.socket.is_alive()
    }

    /// Who the registration is for, to be asked whether they are still there.
    pub(super) fn identity(&self) -> &Identity {
        &self.socket
    }

    /// Somebody uses the socket.
    #[inline]
    pub(super) fn used(&mut self) {
        self.unwanted = 0;
    }

    /// Takes in what the poll says; true where somebody has to be told, or
    /// nobody seems to care.
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
        // An event tells how things stand, not what has changed.
        self.ended = ready.read_closed();
        self.urgent |= ready.urgent();
        if !news && !waited_for {
            self.unwanted = self.unwanted.saturating_add(1);
        }
        waited_for || self.is_unwanted()
    }

    /// Whether the poll should no longer tell of this socket.
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

    /// Notes a read: so many bytes of so many that were asked for.
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

    /// Notes a write that did not take everything; whether there is no room left
    /// for sure.
    #[inline]
    pub(super) fn has_written_some(&mut self) -> bool {
        if self.plain {
            self.write.known = Known::Blocked;
        }
        self.plain
    }

    /// The registration is made anew, for whoever waits by now.
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
        Ok(Self { address: socket.as_ptr() as usize, reference })
    }

    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { address: self.address, reference: self.reference.clone_ref(py) }
    }

    /// Whether the object is still there. Where that is asked inside of the
    /// loop's state, the caller holds a reference to the object at this
    /// address: the one that is dropped here cannot be the last.
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
    /// Whether a first try would find nothing. A short read may have become
    /// out of date since the last poll: whether asking pays is learned.
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

    /// Notes that the kernel had nothing.
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
        match &self.first {
            None => self.first = Some(future),
            Some(_) => self.more.push(future),
        }
    }

    /// Takes one out.
    pub(super) fn remove(&mut self, future: *mut ffi::PyObject) -> Option<Owned> {
        if self.first.as_ref().is_some_and(|first| first.as_ptr() == future) {
            return self.first.take();
        }
        let position = self.more.iter().position(|each| each.as_ptr() == future)?;
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
