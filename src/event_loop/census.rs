//! Lists what a loop holds, for reports and for asyncio's private attributes:
//! connections, watches, timers and callbacks.

use std::collections::VecDeque;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokioloop_reactor::sys;

use crate::event_loop::{EventLoop, Source};
use crate::py::Owned;
use crate::ready::Ready;
use crate::transports::address;

/// Every open connection as a dictionary: its transport and protocol, its
/// descriptor and addresses, what waits to be sent, and what the kernel has
/// counted (None where it does not count: only TCP on Linux does).
#[pyfunction]
pub(crate) fn connections<'py>(
    event_loop: &Bound<'py, EventLoop>,
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let py = event_loop.py();
    let inside = event_loop.get().enter(py, "connections")?;
    let transports = inside.with(|state| {
        let streams = state.sources.iter().filter_map(|source| match source {
            Source::Stream(transport) => Some(transport.clone_ref(py)),
            _ => None,
        });
        streams.collect::<Vec<_>>()
    });
    let mut found = Vec::with_capacity(transports.len());
    for transport in &transports {
        let (fd, number, peer, local, protocol, queued, closing, paused, blocked) =
            transport.get().with(&inside, |inner| {
                (
                    inner.fd(),
                    inner.descriptor.number(),
                    inner.peer.clone(),
                    inner.local.clone(),
                    inner.protocol.as_ref().map(|protocol| protocol.clone_ref(py)),
                    inner.queue.len_bytes(),
                    inner.state.closing,
                    inner.state.paused,
                    inner.state.protocol_paused,
                )
            });
        let Some(fd) = fd else { continue };
        let entry = PyDict::new(py);
        entry.set_item("transport", transport.object().bind(py))?;
        entry.set_item("protocol", protocol.map(|protocol| protocol.bind(py).to_owned()))?;
        entry.set_item("fd", number)?;
        entry.set_item("peer", peer.map(|peer| address::to_python(py, &peer)).transpose()?)?;
        entry.set_item("local", local.map(|local| address::to_python(py, &local)).transpose()?)?;
        entry.set_item("bytes_queued", queued)?;
        entry.set_item("closing", closing)?;
        entry.set_item("reading_paused", paused)?;
        entry.set_item("writing_paused", blocked)?;
        let counted = sys::tcp_bytes(fd);
        entry.set_item("bytes_received", counted.map(|counted| counted.received))?;
        entry.set_item("bytes_sent", counted.map(|counted| counted.acknowledged))?;
        found.push(entry);
    }
    Ok(found)
}

/// The handles of `add_reader` and `add_writer`, each with its descriptor and
/// whether it waits for writing.
#[pyfunction]
pub(crate) fn watches(event_loop: &Bound<'_, EventLoop>) -> PyResult<Vec<(i32, bool, Py<PyAny>)>> {
    let py = event_loop.py();
    let inside = event_loop.get().enter(py, "watches")?;
    let found = inside.with(|state| {
        let mut found = Vec::new();
        for (fd, token) in state.fds.iter() {
            if let Some(Source::Watch(watch)) = state.sources.get(token) {
                let reader = watch.reader.iter().map(|handle| (fd, false, handle));
                let writer = watch.writer.iter().map(|handle| (fd, true, handle));
                let both = reader.chain(writer);
                found.extend(both.map(|(fd, write, handle)| (fd, write, handle.clone_ref(py))));
            }
        }
        found
    });
    Ok(found
        .into_iter()
        .map(|(fd, write, handle)| (fd, write, handle.object().as_py().clone_ref(py)))
        .collect())
}

/// A descriptor, whether the call waits for it to be writable (else readable), the
/// future, and a weak reference to the socket.
type SocketWait = (i32, bool, Py<PyAny>, Py<PyAny>);

/// The futures on which `sock_*` calls wait.
#[pyfunction]
pub(crate) fn socket_waits(event_loop: &Bound<'_, EventLoop>) -> PyResult<Vec<SocketWait>> {
    let py = event_loop.py();
    let inside = event_loop.get().enter(py, "socket_waits")?;
    let found = inside.with(|state| {
        let kept = state.sources.iter().filter_map(|source| match source {
            Source::Socket(kept) => Some(kept),
            _ => None,
        });
        let waits = kept.flat_map(|kept| {
            let each = move |(future, writes): (&Owned, bool)| {
                (kept.number(), writes, future.clone_ref(py), kept.reference(py))
            };
            kept.waiters().map(each)
        });
        waits.collect::<Vec<_>>()
    });
    let object = |object: &Owned| object.as_py().clone_ref(py);
    Ok(found
        .iter()
        .map(|(fd, writes, future, socket)| (*fd, *writes, object(future), object(socket)))
        .collect())
}

/// The handles that are due.
pub(super) fn ready_handles(slf: &Bound<'_, EventLoop>) -> PyResult<Vec<Py<PyAny>>> {
    let py = slf.py();
    let inside = slf.get().enter(py, "_ready")?;
    let handles = inside.with(|state| {
        let handles = state.ready.iter().filter_map(|entry| match entry {
            Ready::Handle(handle) => Some(handle.object().clone_ref(py)),
            Ready::Foreign(handle) => Some(handle.clone_ref(py)),
            Ready::Io(..) => None,
        });
        handles.collect::<Vec<_>>()
    });
    Ok(handles.iter().map(|handle| handle.as_py().clone_ref(py)).collect())
}

/// Every descriptor that `add_reader` or `add_writer` watches.
pub(super) fn watched_descriptors(slf: &Bound<'_, EventLoop>) -> PyResult<Vec<i32>> {
    let inside = slf.get().enter(slf.py(), "_selector")?;
    Ok(inside.with(|state| {
        let numbers = state
            .fds
            .iter()
            .filter(|(_, token)| matches!(state.sources.get(*token), Some(Source::Watch(_))));
        numbers.map(|(fd, _)| fd).collect::<Vec<_>>()
    }))
}

/// The handles of all timers, in no particular order.
pub(super) fn timer_handles(slf: &Bound<'_, EventLoop>) -> PyResult<Vec<Py<PyAny>>> {
    let py = slf.py();
    let inside = slf.get().enter(py, "_scheduled")?;
    let timers = inside.with(|state| {
        state.timers.iter().map(|handle| handle.object().clone_ref(py)).collect::<Vec<_>>()
    });
    Ok(timers.iter().map(|handle| handle.as_py().clone_ref(py)).collect())
}

/// Every open transport.
pub(super) fn open_transports(slf: &Bound<'_, EventLoop>) -> PyResult<Vec<Py<PyAny>>> {
    let py = slf.py();
    let inside = slf.get().enter(py, "_transports")?;
    let open = inside.with(|state| {
        let open = state.sources.iter().filter_map(Source::transport);
        open.map(|transport| transport.clone_ref(py)).collect::<Vec<_>>()
    });
    Ok(open.iter().map(|transport| transport.as_py().clone_ref(py)).collect())
}

/// Drops every waiting callback, but no event: the poll reports each event only once,
/// so its source would never be served again.
pub(crate) fn clear_ready(slf: &Bound<'_, EventLoop>) -> PyResult<()> {
    let inside = slf.get().enter(slf.py(), "_ready")?;
    let callbacks = inside.with(|state| {
        let entries = std::mem::take(&mut state.ready);
        let is_event = |entry: &Ready| matches!(entry, Ready::Io(..));
        let (events, callbacks): (VecDeque<_>, _) = entries.into_iter().partition(is_event);
        state.ready = events;
        callbacks
    });
    // Other threads may enter while these are dropped.
    drop(inside);
    drop(callbacks);
    Ok(())
}

/// Drops every timer.
pub(crate) fn clear_timers(slf: &Bound<'_, EventLoop>) -> PyResult<()> {
    let inside = slf.get().enter(slf.py(), "_scheduled")?;
    let timers = inside.with(|state| {
        let timers = state.timers.drain();
        timers.iter().for_each(|handle| handle.get().set_timer(None));
        timers
    });
    // Other threads may enter while these are dropped.
    drop(inside);
    drop(timers);
    Ok(())
}
