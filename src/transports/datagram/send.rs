//! The send path: at once where nothing waits, else in order as the kernel
//! finds room.

use pyo3::exceptions::{PyBlockingIOError, PyInterruptedError, PyOSError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};
use tokioloop_reactor::{Readiness, datagram};

use super::queue::Waiting;
use super::target::{self, Resolved, Target};
use super::{DatagramTransport, Family, Inner, callback_failed, error_received, watch_writing};
use crate::errors;
use crate::event_loop::{Inside, This};
use crate::py::{Owned, buffer, bytes, call, context};
use crate::ready::Ready;
use crate::report::leaves_loop;
use crate::transports::close;
use crate::transports::flow::{maybe_pause_protocol, maybe_resume_protocol};
use crate::transports::shape::TransportRef;

/// Seconds until a send to a full Unix receiver that the socket is not connected to is
/// tried again: the kernel does not report when such a receiver has room.
const RETRY_DELAY: f64 = 0.001;
/// The asyncio method that a flush replaces, for error reports.
const CALLBACK: &str = "_sendto_ready";
const FATAL: &str = "Fatal write error on datagram transport";

/// What became of a `sendto`.
enum Attempt {
    Sent,
    /// It waits in the queue.
    Queued,
    Failed(std::io::Error),
    /// The endpoint is gone: the datagram is counted and dropped.
    Lost(u32),
    /// This Python socket must send it, to this address as the caller gave it.
    ByPython(Owned, Owned),
}

/// `sendto(data, addr)`.
// HOT: udp
#[inline]
pub(super) fn send_to(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &DatagramTransport,
    data: &Bound<'_, PyAny>,
    address: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    check_type(data)?;
    if !cfg!(Py_3_13) && !data.is_truthy()? {
        return Ok(());
    }
    let to = target::resolve(py, inside, transport, address)?;
    let attempt = match bytes::exact(data) {
        Some(content) => attempt(py, inside, transport, content, to, || Ok(Owned::from(data)))?,
        None => {
            // Getting at the content may run user code, so the target is copied before.
            let to = Resolved::Other(transport.with(inside, |inner| to.keep(&inner.peers)));
            let mut room = buffer::Room::new();
            let view = buffer::View::readable_any(&mut room, data)?;
            let content = view.bytes();
            // The caller may change its memory later: what waits is a copy.
            attempt(py, inside, transport, content, to, || bytes::copy(py, content))?
        }
    };
    match attempt {
        Attempt::Sent => Ok(()),
        attempt => settle(py, this, inside, transport, data, attempt),
    }
}

fn check_type(data: &Bound<'_, PyAny>) -> PyResult<()> {
    let known = data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>();
    if known {
        return Ok(());
    }
    let class = data.get_type().name()?;
    let text = format!("data argument must be a bytes-like object, not {}", class.repr()?);
    Err(PyTypeError::new_err(text))
}

/// `keep` makes an exact `bytes` of the whole content.
#[inline]
fn attempt(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &DatagramTransport,
    content: &[u8],
    to: Resolved,
    keep: impl FnOnce() -> PyResult<Owned>,
) -> PyResult<Attempt> {
    inside.with(|state| {
        transport.with(inside, |inner| {
            // As in asyncio, an endpoint without `remote_addr` goes on sending after the
            // loss until its socket is closed.
            if inner.state.finished || (inner.lost > 0 && inner.address.is_some()) {
                inner.lost += 1;
                return Ok(Attempt::Lost(inner.lost - 1));
            }
            state.metrics.bytes_sent += content.len() as u64;
            state.metrics.messages_sent += 1;
            if !inner.queue.is_empty() {
                inner.queue.push(Waiting::new(keep()?, to.keep(&inner.peers)));
                return Ok(Attempt::Queued);
            }
            let Some(fd) = inner.descriptor.get() else { return Ok(Attempt::Sent) };
            let result = match &to {
                Resolved::Latest => datagram::send(fd, content, inner.peers.latest()),
                Resolved::Other(Target::Peer) => datagram::send(fd, content, None),
                Resolved::Other(Target::Known(raw)) => datagram::send(fd, content, Some(raw)),
                Resolved::Other(Target::Spelled(address)) => {
                    let socket = inner.descriptor.socket(py);
                    let address = address.clone_ref(py);
                    return Ok(socket.map_or(Attempt::Sent, |s| Attempt::ByPython(s, address)));
                }
            };
            match result {
                Ok(true) => Ok(Attempt::Sent),
                Ok(false) => {
                    inner.queue.push(Waiting::new(keep()?, to.keep(&inner.peers)));
                    Ok(Attempt::Queued)
                }
                Err(error) => Ok(Attempt::Failed(error)),
            }
        })
    })
}

/// Everything but the plain success.
#[cold]
fn settle(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &DatagramTransport,
    data: &Bound<'_, PyAny>,
    attempt: Attempt,
) -> PyResult<()> {
    match attempt {
        Attempt::Sent => Ok(()),
        Attempt::Queued => {
            wait_for_room(py, this, inside, transport)?;
            maybe_pause_protocol(py, this, inside, transport)
        }
        Attempt::Failed(error) => {
            error_received(py, inside, transport, errors::os_error(py, &error))
        }
        Attempt::Lost(count) => close::note_lost_write(py, count),
        Attempt::ByPython(socket, address) => match send_by_python(py, &socket, data, &address)? {
            ByPython::Sent => Ok(()),
            ByPython::Blocked => {
                let kept = match bytes::exact(data) {
                    Some(_) => Owned::from(data),
                    None => {
                        let mut room = buffer::Room::new();
                        bytes::copy(py, buffer::View::readable_any(&mut room, data)?.bytes())?
                    }
                };
                let waiting = Waiting::new(kept, Target::Spelled(address));
                transport.with(inside, |inner| inner.queue.push(waiting));
                wait_for_room(py, this, inside, transport)?;
                maybe_pause_protocol(py, this, inside, transport)
            }
            ByPython::Failed(error) => error_received(py, inside, transport, error),
            ByPython::Fatal(error) => {
                close::fatal_error(py, this, inside, &transport.reference(), error, FATAL)
            }
        },
    }
}

/// The outcome of a send by Python's socket.
enum ByPython {
    Sent,
    Blocked,
    Failed(PyErr),
    Fatal(PyErr),
}

/// Lets Python's socket send.
///
/// # Errors
/// Exceptions that end the run.
fn send_by_python(
    py: Python<'_>,
    socket: &Owned,
    data: &Bound<'_, PyAny>,
    address: &Owned,
) -> PyResult<ByPython> {
    let args = [data.into(), address.live()];
    let Err(error) = call::method(py, socket, intern!(py, "sendto"), args) else {
        return Ok(ByPython::Sent);
    };
    let blocked = error.is_instance_of::<PyBlockingIOError>(py)
        || error.is_instance_of::<PyInterruptedError>(py);
    if blocked {
        Ok(ByPython::Blocked)
    } else if error.is_instance_of::<PyOSError>(py) {
        Ok(ByPython::Failed(error))
    } else if leaves_loop(py, &error) {
        Err(error)
    } else {
        Ok(ByPython::Fatal(error))
    }
}

/// The kernel has no room: the poll will report some, or a timer tries again.
fn wait_for_room(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &DatagramTransport,
) -> PyResult<()> {
    let first = transport.with(inside, |inner| !std::mem::replace(&mut inner.state.blocked, true));
    if first {
        let context = context::copy_current(py)?;
        let old = transport.with(inside, |inner| inner.write_context.replace(context));
        drop(old);
    }
    let untold = transport.with(inside, |inner| {
        let elsewhere = inner.queue.first().is_some_and(|w| !matches!(w.to, Target::Peer));
        inner.family == Family::Unix && elsewhere
    });
    if !untold {
        return watch_writing(inside, transport, true).map_err(|e| errors::os_error(py, &e));
    }
    // The poll would report room after every refusal, but that of this socket, not the
    // receiver's.
    watch_writing(inside, transport, false).map_err(|error| errors::os_error(py, &error))?;
    if !transport.with(inside, |inner| std::mem::replace(&mut inner.state.retrying, true)) {
        let again = transport.reference().object().bind(py).getattr(intern!(py, CALLBACK))?;
        this.bind(py).call_method1(intern!(py, "call_later"), (RETRY_DELAY, again))?;
    }
    Ok(())
}

/// The kernel may have room again.
pub(super) fn on_writable(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef<Inner>,
) -> PyResult<()> {
    let context = transport.get().with(inside, |inner| {
        let waits = inner.state.blocked && inner.lost == 0;
        inner.write_context.as_ref().filter(|_| waits).map(|context| context.clone_ref(py))
    });
    let Some(context) = context else { return Ok(()) };
    let flushed = context::run(py, context.live(), || flush(py, this, inside, transport.get()));
    match flushed {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) | Err(error) => callback_failed(py, transport, CALLBACK, error),
    }
}

/// What became of the first datagram of the queue.
enum Step {
    /// It is done with, for the caller to drop.
    Sent(Waiting),
    Failed(Waiting, std::io::Error),
    ByPython(Waiting, Owned),
    /// Nothing can be sent for now.
    Stop,
}

/// Sends what waits until the kernel has no room left.
fn flush(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &DatagramTransport,
) -> PyResult<()> {
    loop {
        match transport.with(inside, |inner| send_first(py, inner)) {
            Step::Stop => break,
            Step::Sent(waiting) => drop(waiting),
            Step::Failed(waiting, error) => {
                drop(waiting);
                return go_on_after(py, inside, transport, errors::os_error(py, &error));
            }
            Step::ByPython(waiting, socket) => {
                let Target::Spelled(address) = &waiting.to else { continue };
                let data = waiting.data().bind(py);
                match send_by_python(py, &socket, &data, address)? {
                    ByPython::Sent => {}
                    ByPython::Blocked => {
                        transport.with(inside, |inner| inner.queue.put_back(waiting));
                        break;
                    }
                    ByPython::Failed(error) => return go_on_after(py, inside, transport, error),
                    ByPython::Fatal(error) => {
                        let transport = transport.reference();
                        return close::fatal_error(py, this, inside, &transport, error, FATAL);
                    }
                }
            }
        }
    }
    // The protocol may send again. Even if it ends the run, the rest is done, since the
    // loop may run again.
    let told = maybe_resume_protocol(py, this, inside, transport);
    told.and(after_flush(py, this, inside, transport))
}

/// Waits for room if a flush has left something, else closes or stops watching for room.
fn after_flush(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &DatagramTransport,
) -> PyResult<()> {
    let (empty, lose, context) = transport.with(inside, |inner| {
        if !inner.queue.is_empty() {
            return (false, false, None);
        }
        inner.state.blocked = false;
        (true, inner.state.closing && inner.lost == 0, inner.write_context.take())
    });
    drop(context);
    if !empty {
        return wait_for_room(py, this, inside, transport);
    }
    if lose {
        return close::lose_after_flush(py, this, inside, transport);
    }
    // The kernel reports every datagram that leaves a socket which is watched for room.
    watch_writing(inside, transport, false).map_err(|error| errors::os_error(py, &error))
}

fn send_first(py: Python<'_>, inner: &mut Inner) -> Step {
    let (Some(fd), Some(first)) = (inner.descriptor.get(), inner.queue.pop()) else {
        return Step::Stop;
    };
    let result = match &first.to {
        Target::Peer => datagram::send(fd, first.content(), None),
        Target::Known(raw) => datagram::send(fd, first.content(), Some(raw)),
        Target::Spelled(_) => {
            return match inner.descriptor.socket(py) {
                Some(socket) => Step::ByPython(first, socket),
                None => Step::Sent(first),
            };
        }
    };
    match result {
        Ok(true) => Step::Sent(first),
        Ok(false) => {
            inner.queue.put_back(first);
            Step::Stop
        }
        Err(error) => Step::Failed(first, error),
    }
}

/// Follows asyncio's order after an error: the protocol is told now, and the rest of the
/// queue is sent in the next turn.
#[cold]
fn go_on_after(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &DatagramTransport,
    error: PyErr,
) -> PyResult<()> {
    inside.with(|state| {
        if let Some(token) = transport.with(inside, |inner| inner.token) {
            state.ready.push_back(Ready::Io(token, Readiness::WRITABLE));
        }
    });
    error_received(py, inside, transport, error)
}

/// `_sendto_ready()`: called by the timer for a full Unix receiver, or by a program.
pub(super) fn send_ready(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &DatagramTransport,
) -> PyResult<()> {
    transport.with(inside, |inner| inner.state.retrying = false);
    on_writable(py, this, inside, &transport.reference())
}
