//! Who has a descriptor's number: a transport or a listener takes it from a watch, another
//! listener or a socket that was kept.
//!
//! As in asyncio, the last registration of a descriptor is the one that counts. Calls of the
//! loop's state only; what they displace is settled outside of it.

use std::os::fd::RawFd;

use pyo3::prelude::*;
use tokioloop_reactor::Token;

use crate::event_loop::{LoopState, Source};
use crate::report::leaves_loop;
use crate::sockets::{self, Waiting};

/// What has had a number before.
#[must_use = "who has waited for the descriptor has to be told"]
pub(crate) struct Displaced {
    waiting: Waiting,
    source: Option<Source>,
}

/// Gives a number to a source. What it displaces has no registration any more: the
/// source makes its own.
pub(crate) fn claim(state: &mut LoopState, fd: RawFd, source: Source) -> (Token, Displaced) {
    let waiting = sockets::displace(state, fd);
    let old = remove(state, fd);
    let token = state.sources.insert(source);
    state.fds.set(fd, token);
    (token, Displaced { waiting, source: old })
}

/// Takes a watch or a listener out of the tables and of the poll. A transport stays, to be
/// told of its end.
fn remove(state: &mut LoopState, fd: RawFd) -> Option<Source> {
    let token = state.fds.get(fd)?;
    let poller = state.poller.as_ref()?;
    let removed = match state.sources.get(token)? {
        Source::Watch(watch) => poller.unwatch(fd, watch.interest()),
        Source::Listener(_) => poller.deregister(fd),
        _ => return None,
    };
    // Closing the descriptor, whose number is another file's by now, has done the same.
    let _ = removed;
    state.sources.remove(token)
}

impl Displaced {
    /// Lets those who have waited look again, and cancels the callbacks of a watch.
    ///
    /// # Errors
    /// What leaves the loop.
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
