//! What has to wait to be sent: it is flushed when the kernel has room again, or when a
//! turn's writes have been joined.

use std::os::fd::AsRawFd;

use pyo3::prelude::*;
use tokioloop_reactor::stream::{self, Flushed};
use tokioloop_reactor::{Interest, sys};

use crate::errors;
use crate::event_loop::{Inside, This};
use crate::py::context;
use crate::transports::flow::{maybe_pause_protocol, maybe_resume_protocol};
use crate::transports::shape::StreamTransport;
use crate::transports::stream::TransportRef;
use crate::transports::{batch, close, sendfile};

/// Sends what waits, as far as the kernel takes it.
pub(crate) fn flush(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> PyResult<()> {
    let result = transport.with(inside, |inner| {
        inner.state.corked = false;
        match inner.fd() {
            Some(fd) => stream::flush(fd, inner.kind, &mut inner.queue),
            None => Ok(Flushed::All),
        }
    });
    match result {
        Ok(Flushed::All) => flushed(py, this, inside, transport),
        Ok(Flushed::Blocked) => in_write_context(py, inside, transport, || {
            maybe_resume_protocol(py, this, inside, transport)?;
            wait_for_room(py, this, inside, transport)
        }),
        Err(error) => in_write_context(py, inside, transport, || {
            flush_failed(py, this, inside, transport, &error)
        }),
    }
}

/// Runs `tell`, which tells the protocol about earlier writes, in a copy of the context
/// in which they were made.
#[cold]
fn in_write_context(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
    tell: impl FnOnce() -> PyResult<()>,
) -> PyResult<()> {
    let written_in = transport
        .with(inside, |inner| inner.write_context.as_ref().map(|context| context.clone_ref(py)));
    match written_in {
        Some(context) => {
            let context = context::copy(py, &context)?;
            context::run(py, context.live(), tell)?
        }
        None => tell(),
    }
}

/// The queue has run empty.
fn flushed(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> PyResult<()> {
    let (was_blocked, context) = transport.with(inside, |inner| {
        (std::mem::replace(&mut inner.state.blocked, false), inner.write_context.take())
    });
    drop(context);
    if was_blocked {
        unwatch_writing(inside, transport);
    }
    // Even if this ends the run, the rest is done first: no event would cause it later.
    let told = maybe_resume_protocol(py, this, inside, transport);
    // The protocol may have written again.
    let (empty, closing, eof) = transport.with(inside, |inner| {
        let empty = inner.queue.is_empty();
        let lose = empty && inner.state.closing && inner.lost == 0;
        (empty, lose, inner.state.eof_written && inner.lost == 0)
    });
    let gone_on = if empty { sendfile::go_on(py, inside, transport) } else { Ok(()) };
    let ended = if closing {
        close::lose_after_flush(py, this, inside, transport)
    } else if empty && eof {
        shut_down(inside, transport).or_else(|error| {
            // The peer may have reset the connection; a read will tell the protocol.
            let error = errors::os_error(py, &error);
            let message = "Exception in callback _SelectorSocketTransport._write_ready()";
            close::report(py, this, &transport.reference(), None, error, message)
        })
    } else {
        Ok(())
    };
    told.and(gone_on).and(ended)
}

#[cold]
fn flush_failed(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
    error: &std::io::Error,
) -> PyResult<()> {
    let waiter =
        transport.with(inside, |inner| inner.sendfile_waiter.as_ref().map(|w| w.clone_ref(py)));
    let error = errors::os_error(py, error);
    if let Some(waiter) = waiter {
        sendfile::fail_with(py, &waiter, &error)?;
    }
    write_failed(py, this, inside, transport, error)
}

#[cold]
pub(super) fn write_failed(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
    error: PyErr,
) -> PyResult<()> {
    batch::deliver_before_loss(py, this, inside, transport)?;
    let message = "Fatal write error on socket transport";
    close::fatal_error(py, this, inside, &transport.reference(), error, message)
}

/// The kernel has room again.
pub(crate) fn on_writable(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
) -> PyResult<()> {
    let object = transport.get();
    let (context, sendfile) = object.with(inside, |inner| {
        if !inner.state.blocked || inner.lost > 0 {
            return (None, inner.sendfile_waiter.is_some() && inner.queue.is_empty());
        }
        (inner.write_context.as_ref().map(|context| context.clone_ref(py)), false)
    });
    match context {
        Some(context) => context::run(py, context.live(), || flush(py, this, inside, object))?,
        None if sendfile => sendfile::go_on(py, inside, object),
        None => Ok(()),
    }
}

/// The kernel's buffer is full: wait for room, and slow the protocol down.
pub(super) fn wait_for_room(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> PyResult<()> {
    if !transport.with(inside, |inner| inner.state.blocked) {
        let context = context::copy_current(py)?;
        // If several writes wait, the context of the first is kept.
        let unused = transport.with(inside, |inner| {
            inner.state.blocked = true;
            match &inner.write_context {
                Some(_) => Some(context),
                None => {
                    inner.write_context = Some(context);
                    None
                }
            }
        });
        drop(unused);
        watch_writing(inside, transport)
            .map_err(|error| room_not_told(py, inside, transport, &error))?;
    }
    maybe_pause_protocol(py, this, inside, transport)
}

/// The registration failed, so the poll will not report room; the next write registers
/// again.
#[cold]
#[inline(never)]
fn room_not_told(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &StreamTransport,
    error: &std::io::Error,
) -> PyErr {
    transport.with(inside, |inner| inner.state.blocked = false);
    errors::os_error(py, error)
}

/// Adds writing to the registration. TCP keeps it from then on with epoll, which reports
/// room only after a refused write. Unix sockets report every read of the peer, and
/// kqueue everything that a TCP peer acknowledges, so [`unwatch_writing`] removes it
/// there once the queue is empty.
pub(crate) fn watch_writing(
    inside: &Inside<'_>,
    transport: &StreamTransport,
) -> std::io::Result<()> {
    inside.with(|state| {
        transport.with(inside, |inner| {
            let (Some(fd), Some(token)) = (inner.fd(), inner.token) else { return Ok(()) };
            if inner.state.watches_writing || !inner.state.started {
                return Ok(());
            }
            if let Some(poller) = &state.poller {
                poller.reregister(fd.as_raw_fd(), token, Interest::BOTH)?;
            }
            inner.state.watches_writing = true;
            Ok(())
        })
    })
}

pub(crate) fn unwatch_writing(inside: &Inside<'_>, transport: &StreamTransport) {
    inside.with(|state| {
        transport.with(inside, |inner| {
            let tcp = inner.local.as_ref().is_some_and(tokioloop_reactor::Address::is_inet);
            if (tcp && cfg!(target_os = "linux")) || !inner.state.watches_writing {
                return;
            }
            let (Some(fd), Some(token), Some(poller)) = (inner.fd(), inner.token, &state.poller)
            else {
                return;
            };
            inner.state.watches_writing =
                poller.reregister(fd.as_raw_fd(), token, Interest::READABLE).is_err();
        });
    });
}

/// Ends the sending direction.
pub(super) fn shut_down(inside: &Inside<'_>, transport: &StreamTransport) -> std::io::Result<()> {
    transport.with(inside, |inner| inner.fd().map_or(Ok(()), sys::shutdown_write))
}
