//! Which sockets are kept in the poll, and which calls wait for them.
//!
//! A descriptor has one registration at a time. `add_reader`, a transport or a listener
//! on the same number replaces a kept socket; calls that wait then try again and find
//! the new owner, except for those that a watch replaces, as in asyncio ([`make_way`]).

use std::io;
use std::os::fd::RawFd;

use pyo3::intern;
use pyo3::prelude::*;
use tokioloop_reactor::{Readiness, Sources, Token, socket, sys};

use crate::event_loop::{EventLoop, Inside, LoopState, Source};
use crate::py::{Owned, call};
use crate::report::leaves_loop;
use crate::sockets::kept::{Identity, Kept, Side, Waiters};
use crate::sockets::stock::Stock;

/// How many sockets are kept, and at which number those that are gone are looked for.
pub(crate) struct Keeping {
    count: usize,
    sweep_at: usize,
}

/// Fewer kept sockets than this are not worth a sweep.
const FIRST_SWEEP: usize = 64;

impl Default for Keeping {
    fn default() -> Self {
        Self { count: 0, sweep_at: FIRST_SWEEP }
    }
}

/// Futures taken out of the loop's state, to be resolved or dropped outside of it.
#[derive(Default)]
pub(crate) struct Waiting {
    read: Waiters,
    write: Waiters,
}

/// Whether a future was added to those that wait for a socket.
pub(super) enum Parked {
    Yes,
    /// The socket has to be registered first.
    Unknown,
    /// The descriptor belongs to a watch, a transport or a listener.
    Foreign,
}

/// What a descriptor's number belongs to.
enum Slot {
    Free,
    Kept(Token),
    Foreign,
}

fn slot(state: &LoopState, fd: RawFd) -> Slot {
    let Some(token) = state.fds.get(fd) else { return Slot::Free };
    match state.sources.get(token) {
        None => Slot::Free,
        Some(Source::Socket(_)) => Slot::Kept(token),
        Some(_) => Slot::Foreign,
    }
}

/// The kept socket with this number, if it is this very object.
// HOT: raw
#[inline]
pub(super) fn find<'a>(
    fds: &crate::event_loop::FdTable,
    sources: &'a mut Sources<Source>,
    fd: RawFd,
    socket: &Owned,
) -> Option<&'a mut Kept> {
    match sources.get_mut(fds.get(fd)?) {
        Some(Source::Socket(kept)) if kept.is_for(socket.live()) => Some(kept),
        _ => None,
    }
}

/// Adds a future to those that wait for a kept socket.
// HOT: raw-wait
#[inline]
pub(super) fn park(
    py: Python<'_>,
    state: &mut LoopState,
    fd: RawFd,
    socket: &Owned,
    side: Side,
    future: &Owned,
) -> Parked {
    match slot(state, fd) {
        Slot::Foreign => return Parked::Foreign,
        Slot::Free => return Parked::Unknown,
        Slot::Kept(_) => {}
    }
    match find(&state.fds, &mut state.sources, fd, socket) {
        Some(kept) => {
            kept.half(side).waiters.push(future.clone_ref(py));
            Parked::Yes
        }
        None => Parked::Unknown,
    }
}

/// Registers a socket with the poll, or renews the registration of its number.
///
/// # Errors
/// What Python raises for the weak reference. The result within is the kernel's error;
/// the socket is not kept then.
pub(super) fn register(
    py: Python<'_>,
    inside: &Inside<'_>,
    fd: RawFd,
    socket: &Owned,
) -> PyResult<io::Result<()>> {
    let identity = Identity::of(py, socket)?;
    let plain = fd >= 0 && socket::is_plain_stream(sys::borrow(fd));
    let (result, dropped) = inside.with(|state| {
        // With a new token, late events of the old one's file find nothing.
        let old = match slot(state, fd) {
            Slot::Kept(token) => take(state, token),
            _ => None,
        };
        let kept = match old {
            Some(mut kept) => {
                kept.renew(identity, plain);
                kept
            }
            None => Box::new(Kept::new(fd, identity, plain)),
        };
        let token = state.sources.insert(Source::Socket(kept));
        state.keeping.count += 1;
        state.fds.set(fd, token);
        state.registered = true;
        let result = match &state.poller {
            Some(poller) => poller.keep(fd, token),
            None => Ok(()),
        };
        let dropped = if result.is_err() { take(state, token) } else { None };
        (result, dropped)
    });
    drop(dropped);
    if inside.with(|state| state.keeping.count >= state.keeping.sweep_at) {
        sweep(py, inside);
    }
    Ok(result)
}

/// Ends a wait that nobody is interested in any more.
pub(super) fn unpark(inside: &Inside<'_>, fd: RawFd, side: Side, future: &Owned) {
    let removed = inside.with(|state| match state.sources.get_mut(state.fds.get(fd)?) {
        Some(Source::Socket(kept)) => kept.half(side).waiters.remove(future.live()),
        _ => None,
    });
    drop(removed);
}

/// The poll has reported a kept socket: wakes the calls that wait, to try again.
// HOT: raw-wait
pub(crate) fn on_event(
    py: Python<'_>,
    inside: &Inside<'_>,
    token: Token,
    ready: Readiness,
) -> PyResult<()> {
    let (waiting, dropped) = inside.with(|state| {
        let Some(Source::Socket(kept)) = state.sources.get_mut(token) else {
            return (Waiting::default(), None);
        };
        let mut waiting = Waiting::default();
        if ready.readable() {
            waiting.read = kept.read.waiters.take();
        }
        if ready.writable() {
            waiting.write = kept.write.waiters.take();
        }
        let dropped = if kept.is_unwanted() { remove(state, token) } else { None };
        (waiting, dropped)
    });
    drop(dropped);
    wake(py, waiting)
}

/// Resolves the futures of calls that wait. They try again, whatever the reason.
///
/// # Errors
/// Exceptions that end the run.
pub(crate) fn wake(py: Python<'_>, waiting: Waiting) -> PyResult<()> {
    for future in waiting.read.iter().chain(waiting.write.iter()) {
        let Err(error) = resolve(py, future) else { continue };
        // asyncio checks before it sets the result, but a cancelled future is rare.
        let done = future.bind(py).call_method0(intern!(py, "done"));
        if done.is_ok_and(|done| done.is_truthy().unwrap_or(false)) {
            continue;
        }
        if leaves_loop(py, &error) {
            return Err(error);
        }
        error.write_unraisable(py, Some(&future.bind(py)));
    }
    Ok(())
}

/// `future.set_result(None)`.
#[inline]
fn resolve(py: Python<'_>, future: &Owned) -> PyResult<()> {
    let none = Owned::none(py);
    let stock = Stock::get(py)?;
    if stock.is_future(py, future) {
        return call::call_method1(py, Owned::of_py(&stock.set_result), future, &none).map(drop);
    }
    call::method(py, future, intern!(py, "set_result"), [none.live()]).map(drop)
}

/// Frees a number for a transport or a listener. The caller must wake the calls that have
/// waited for the kept socket.
pub(crate) fn displace(state: &mut LoopState, fd: RawFd) -> Waiting {
    let Slot::Kept(token) = slot(state, fd) else { return Waiting::default() };
    remove(state, token).map_or_else(Waiting::default, |kept| into_waiting(*kept))
}

/// Frees a number for `add_reader` or `add_writer`, which changes the registration to its
/// own. None if there was no kept socket. As in asyncio the watch replaces the calls that
/// waited in the same direction ([`Waiting::forget`]); the caller must wake the others.
pub(crate) fn make_way(state: &mut LoopState, fd: RawFd) -> Option<Waiting> {
    let Slot::Kept(token) = slot(state, fd) else { return None };
    take(state, token).map(|kept| into_waiting(*kept))
}

impl Waiting {
    /// Takes out the futures of one direction, whose calls then wait for ever, as in
    /// asyncio when their watch is replaced. The result is to be dropped outside of the
    /// loop's state.
    pub(crate) fn forget(&mut self, reading: bool) -> impl Sized + use<> {
        if reading { self.read.take() } else { self.write.take() }
    }
}

/// Whether a call waits for a direction of a descriptor.
pub(crate) fn waits(state: &LoopState, fd: RawFd, reading: bool) -> bool {
    match state.fds.get(fd).and_then(|token| state.sources.get(token)) {
        Some(Source::Socket(kept)) => kept.waiters().any(|(_, writes)| writes != reading),
        _ => false,
    }
}

fn into_waiting(mut kept: Kept) -> Waiting {
    Waiting { read: kept.read.waiters.take(), write: kept.write.waiters.take() }
}

/// Takes a kept socket out of the tables; its registration stays.
fn take(state: &mut LoopState, token: Token) -> Option<Box<Kept>> {
    if !matches!(state.sources.get(token), Some(Source::Socket(_))) {
        return None;
    }
    let Some(Source::Socket(kept)) = state.sources.remove(token) else { return None };
    state.keeping.count -= 1;
    state.fds.forget(kept.fd, token);
    Some(kept)
}

/// Takes a kept socket out of the tables and of the poll.
fn remove(state: &mut LoopState, token: Token) -> Option<Box<Kept>> {
    let kept = take(state, token)?;
    // If another source has the number by now, the registration is that source's.
    if let (None, Some(poller)) = (state.fds.get(kept.fd), &state.poller) {
        let _ = poller.deregister(kept.fd);
    }
    Some(kept)
}

/// Forgets the kept sockets whose objects are gone. Closing a socket takes it out of the
/// poll, but nothing reports that here.
#[cold]
fn sweep(py: Python<'_>, inside: &Inside<'_>) {
    let kept = inside.with(|state| {
        let mut found = Vec::with_capacity(state.keeping.count);
        for (fd, token) in state.fds.iter() {
            if let Some(Source::Socket(kept)) = state.sources.get(token) {
                debug_assert_eq!(kept.fd, fd, "a kept socket is found by its number");
                found.push((token, kept.identity().clone_ref(py)));
            }
        }
        found
    });
    let gone: Vec<_> = kept.iter().filter(|(_, socket)| !socket.is_alive()).collect();
    let dropped = inside.with(|state| {
        let dropped: Vec<_> = gone.iter().filter_map(|(token, _)| remove(state, *token)).collect();
        state.keeping.sweep_at = (2 * state.keeping.count).max(FIRST_SWEEP);
        dropped
    });
    drop(dropped);
}

impl EventLoop {
    /// Enters for a `sock_*` call; None if the loop refuses, so that asyncio's code has to
    /// do it.
    #[inline]
    pub(super) fn enter_for_socket(&self, py: Python<'_>) -> Option<Inside<'_>> {
        self.cell.enter(py).ok()
    }
}
