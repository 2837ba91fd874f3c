//! Which source owns a descriptor's number. As in asyncio, the last registration of a
//! descriptor counts: a new transport or listener takes the number from a watch, another
//! listener or a kept socket.
//!
//! [`claim`] only changes the loop's state; the caller settles what it displaces outside
//! of it ([`Displaced::settle`]).

use std::os::fd::{AsRawFd, RawFd};

use pyo3::prelude::*;
use tokioloop_reactor::Token;

use crate::event_loop::{Inside, LoopState, Source};
use crate::py::Owned;
use crate::report::leaves_loop;
use crate::sockets::{self, Waiting};
use crate::transports::interior::Interior;
use crate::transports::shape::Transport;

/// What had a number before.
#[must_use = "who has waited for the descriptor has to be told"]
pub(crate) struct Displaced {
    waiting: Waiting,
    source: Option<Source>,
}

/// Gives a number to a source, which registers it with the poll itself. What it displaces
/// is no longer registered.
pub(crate) fn claim(state: &mut LoopState, fd: RawFd, source: Source) -> (Token, Displaced) {
    let waiting = sockets::displace(state, fd);
    let old = remove(state, fd);
    let token = state.sources.insert(source);
    state.fds.set(fd, token);
    (token, Displaced { waiting, source: old })
}

/// Takes a watch or a listener out of the tables and the poll. A transport stays until it
/// is told of its end.
fn remove(state: &mut LoopState, fd: RawFd) -> Option<Source> {
    let token = state.fds.get(fd)?;
    let poller = state.poller.as_ref()?;
    let removed = match state.sources.get(token)? {
        Source::Watch(watch) => poller.unwatch(fd, watch.interest()),
        Source::Listener(_) => poller.deregister(fd),
        _ => return None,
    };
    // It fails if the old descriptor was closed, which has removed the registration.
    let _ = removed;
    state.sources.remove(token)
}

/// The transport of a source, if `close` was called but data still waits to be sent: then it
/// needs its registration to learn of room.
#[cold]
pub(crate) fn sender(
    py: Python<'_>,
    inside: &Inside<'_>,
    source: &Source,
    fd: RawFd,
) -> Option<Owned> {
    let sends = match source {
        Source::Stream(transport) => sends(inside, transport.get(), fd),
        Source::Datagram(transport) => sends(inside, transport.get(), fd),
        _ => false,
    };
    source.transport().filter(|_| sends).map(|transport| transport.clone_ref(py))
}

fn sends<I: Interior>(inside: &Inside<'_>, transport: &Transport<I>, fd: RawFd) -> bool {
    transport.with(inside, |inner| {
        let waits = *inner.stage().closing && inner.flow().size > 0;
        // If its socket was closed behind its back, the number belongs to another file.
        waits && inner.descriptor().get().is_some_and(|open| open.as_raw_fd() == fd)
    })
}

impl Displaced {
    /// Wakes the `sock_*` calls that wait on a kept socket, and cancels the callbacks of a
    /// watch.
    ///
    /// # Errors
    /// Exceptions that end the run.
    pub(crate) fn settle(self, py: Python<'_>) -> PyResult<()> {
        sockets::wake(py, self.waiting)?;
        let Some(Source::Watch(watch)) = self.source else { return Ok(()) };
        for handle in [watch.reader, watch.writer].into_iter().flatten() {
            let Err(error) = handle.get().cancel(py) else { continue };
            if leaves_loop(py, &error) {
                return Err(error);
            }
            error.write_unraisable(py, Some(&handle.object().bind(py)));
        }
        Ok(())
    }
}
