//! Serving a listening socket: connections are accepted in batches, each with
//! a transport of its own.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3::{PyTraverseError, PyVisit};
use tokioloop_reactor::listener::{self, Accepted};
use tokioloop_reactor::{Address, Interest, Readiness, Token};

use crate::errors;
use crate::event_loop::{EventLoop, Inside, LoopState, Source, This};
use crate::py::{Owned, call, context};
use crate::ready::Ready;
use crate::report::{call_exception_handler, leaves_loop};
use crate::sockets::SharedSocket;
use crate::transports::address;
use crate::transports::claim::claim;
use crate::transports::descriptor::Descriptor;
use crate::transports::stream::{self, Parts};

/// asyncio.constants.ACCEPT_RETRY_DELAY, in seconds: how long a listener is
/// left alone once descriptors have run out.
const RETRY_DELAY: f64 = 1.0;

/// A listening socket and what its connections are made with.
pub(crate) struct Listener {
    /// Always lent: the server closes the socket, unless its owner does so first.
    descriptor: Descriptor,
    protocol_factory: Owned,
    /// Over TLS, makes the handshake's protocol around the one from the factory.
    handshake: Option<Owned>,
    server: Owned,
    /// Most connections that are accepted per event.
    backlog: usize,
    /// The context of `create_server`'s caller.
    context: Owned,
    /// Descriptors have run out; a timer will try again.
    resting: bool,
    /// A batch is queued for a coming turn.
    queued: bool,
}

impl Listener {
    /// Shows every reference to the collector.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Descriptor::Lent(socket, _) = &self.descriptor {
            visit.call(socket.object().as_py())?;
        }
        for object in [&self.protocol_factory, &self.server, &self.context] {
            visit.call(object.as_py())?;
        }
        if let Some(handshake) = &self.handshake {
            visit.call(handshake.as_py())?;
        }
        Ok(())
    }

    /// What a report in debug mode names.
    pub(crate) fn factory_and_socket(&self, py: Python<'_>) -> (Owned, Owned) {
        let socket = self.descriptor.socket(py).unwrap_or_else(|| Owned::none(py));
        (self.protocol_factory.clone_ref(py), socket)
    }
}

/// Starts serving a listening socket with a protocol factory and, over TLS, a callable
/// that makes the handshake's protocol around each protocol.
pub(crate) fn listen(
    event_loop: &Bound<'_, EventLoop>,
    socket: &Bound<'_, PyAny>,
    fd: RawFd,
    (protocol_factory, handshake): (&Bound<'_, PyAny>, Option<&Bound<'_, PyAny>>),
    server: &Bound<'_, PyAny>,
    backlog: usize,
) -> PyResult<()> {
    let py = event_loop.py();
    if event_loop.get().closed() {
        return Err(errors::closed());
    }
    let inside = event_loop.get().enter(py, "_start_serving")?;
    let listener = Box::new(Listener {
        descriptor: Descriptor::Lent(SharedSocket::new(socket), fd),
        protocol_factory: Owned::from(protocol_factory),
        handshake: handshake.map(Owned::from),
        server: Owned::from(server),
        // Even with a backlog of 0 the kernel lets one client wait.
        backlog: backlog.max(1),
        context: context::copy_current(py)?,
        resting: false,
        queued: false,
    });
    let (result, displaced) = inside.with(|state| {
        let (token, displaced) = claim(state, fd, Source::Listener(listener));
        let result = match &state.poller {
            Some(poller) => poller.register(fd, token, Interest::READABLE),
            None => Ok(()),
        };
        (result, displaced)
    });
    displaced.settle(py)?;
    log::debug!("listening on descriptor {fd}, at most {backlog} connections a turn");
    result.map_err(|error| errors::os_error(py, &error))
}

/// Stops serving a descriptor; false where it was not served.
pub(crate) fn unlisten(event_loop: &Bound<'_, EventLoop>, fd: RawFd) -> PyResult<bool> {
    let inside = event_loop.get().enter(event_loop.py(), "_stop_serving")?;
    let listener = inside.with(|state| {
        let token = state.fds.get(fd)?;
        if !matches!(state.sources.get(token), Some(Source::Listener(_))) {
            return None;
        }
        state.fds.forget(fd, token);
        if let Some(poller) = &state.poller {
            // The socket may have been closed already.
            let _ = poller.deregister(fd);
        }
        state.sources.remove(token)
    });
    Ok(listener.is_some())
}

/// The parts of a listener that a batch needs. Copied, since user code may stop the
/// listener meanwhile.
struct Batch {
    protocol_factory: Owned,
    handshake: Option<Owned>,
    server: Owned,
    context: Owned,
    backlog: usize,
}

/// A listener is readable: accepts a batch of connections.
// Not inlined, to keep the code that serves every event short.
#[inline(never)]
pub(crate) fn on_event(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    token: Token,
    ready: Readiness,
) -> PyResult<()> {
    let batch = inside.with(|state| {
        let Some(Source::Listener(listener)) = state.sources.get_mut(token) else { return None };
        if listener.resting || (listener.queued && !ready.is_again()) {
            // The queued batch serves this edge as well. Accepting now would queue one
            // more batch for each edge, until this listener starved the others.
            return None;
        }
        listener.queued = false;
        Some(Batch {
            protocol_factory: listener.protocol_factory.clone_ref(py),
            handshake: listener.handshake.as_ref().map(|handshake| handshake.clone_ref(py)),
            server: listener.server.clone_ref(py),
            context: listener.context.clone_ref(py),
            backlog: listener.backlog,
        })
    });
    let Some(batch) = batch else { return Ok(()) };
    for _ in 0..batch.backlog {
        // A protocol factory may have closed the server, or only its socket, and the
        // number may belong to another file by now.
        let descriptor = inside.with(|state| match state.sources.get(token) {
            Some(Source::Listener(listener)) => listener.descriptor.get(),
            _ => None,
        });
        let Some(descriptor) = descriptor else { return Ok(()) };
        match listener::accept(descriptor) {
            Ok(Accepted::Connection(fd, peer)) => {
                log::debug!("accepted descriptor {} from {peer}", fd.as_raw_fd());
                inside.with(|state| {
                    state.metrics.accepted += 1;
                    state.patience.accepted();
                });
                // asyncio makes a task for each connection, which copies the context.
                let result = context::copy(py, &batch.context).and_then(|context| {
                    context::run(py, context.live(), || arrive(py, this, &batch, fd, peer))?
                });
                if let Err(error) = result {
                    // The edge has been taken, but not all connections that wait.
                    inside.with(|state| requeue(state, token));
                    return Err(error);
                }
            }
            Ok(Accepted::Gone) => {}
            Ok(Accepted::Blocked) => return Ok(()),
            Ok(Accepted::Exhausted(error)) => return rest(py, this, inside, token, &error),
            Ok(Accepted::Failed(error)) => {
                inside.with(|state| requeue(state, token));
                return report(py, this, &error);
            }
            Err(error) => return broken(py, this, inside, token, &error),
        }
    }
    // More connections may wait than a batch takes, and no further edge announces them.
    inside.with(|state| requeue(state, token));
    Ok(())
}

/// Queues a batch for a coming turn, unless one is queued.
fn requeue(state: &mut LoopState, token: Token) {
    let Some(Source::Listener(listener)) = state.sources.get_mut(token) else { return };
    if !std::mem::replace(&mut listener.queued, true) {
        state.ready.push_back(Ready::Io(token, Readiness::AGAIN));
    }
}

/// Makes the transport of a connection.
///
/// # Errors
/// Exceptions that end the run.
fn arrive(
    py: Python<'_>,
    this: This<'_>,
    batch: &Batch,
    fd: OwnedFd,
    peer: Address,
) -> PyResult<()> {
    let mut protocol = None;
    let Err(error) = connect(py, this, batch, fd, peer, &mut protocol) else { return Ok(()) };
    if leaves_loop(py, &error) {
        return Err(error);
    }
    refused(py, this, error, protocol)
}

/// Sets `protocol` as soon as the factory has made it, for the report of a failure.
fn connect(
    py: Python<'_>,
    this: This<'_>,
    batch: &Batch,
    fd: OwnedFd,
    peer: Address,
    protocol: &mut Option<Owned>,
) -> PyResult<()> {
    if this.event_loop.debug() {
        tell_of_connection(py, this, batch, &fd, &peer)?;
    }
    let made = protocol.insert(call::call0(py, &batch.protocol_factory)?);
    let handshaking = match &batch.handshake {
        Some(handshake) => Some(call::call1(py, handshake, made)?),
        None => None,
    };
    let protocol = handshaking.as_ref().unwrap_or(made).bind(py);
    let server = batch.server.bind(py);
    let server = (!server.is_none()).then_some(&*server);
    let parts = Parts { protocol: &protocol, waiter: None, extra: None, server, peer: Some(peer) };
    stream::make(py, this, parts, || Ok(Descriptor::Own(fd))).map(drop)
}

/// Debug mode logs each connection.
#[cold]
fn tell_of_connection(
    py: Python<'_>,
    this: This<'_>,
    batch: &Batch,
    fd: &OwnedFd,
    peer: &Address,
) -> PyResult<()> {
    let server = batch.server.bind(py);
    let peer = address::to_python(py, peer)?;
    this.bind(py).call_method1("_tell_of_connection", (server, peer, fd.as_raw_fd())).map(drop)
}

/// A connection could not be made, which asyncio reports in debug mode only.
#[cold]
fn refused(py: Python<'_>, this: This<'_>, error: PyErr, protocol: Option<Owned>) -> PyResult<()> {
    if !this.event_loop.debug() {
        return Ok(());
    }
    let context = PyDict::new(py);
    context.set_item("message", "Error on transport creation for incoming connection")?;
    context.set_item("exception", error.into_value(py))?;
    if let Some(protocol) = &protocol {
        context.set_item("protocol", protocol.bind(py))?;
    }
    call_exception_handler(py, &this.owned(py), &context)
}

/// Descriptors have run out: reports it once and tries again later. Until then the
/// clients stay in the kernel's queue.
#[cold]
fn rest(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    token: Token,
    error: &std::io::Error,
) -> PyResult<()> {
    let socket = inside.with(|state| match state.sources.get_mut(token) {
        Some(Source::Listener(listener)) => {
            listener.resting = true;
            listener.descriptor.socket(py)
        }
        _ => None,
    });
    let Some(socket) = socket else { return Ok(()) };
    log::warn!(
        "no descriptors left to accept with ({error}): a listener rests for {RETRY_DELAY} s"
    );
    let class = py.import("asyncio.trsock")?.getattr("TransportSocket")?;
    let context = PyDict::new(py);
    context.set_item("message", "socket.accept() out of system resource")?;
    context.set_item("exception", errors::os_error(py, error).into_value(py))?;
    context.set_item("socket", class.call1((socket.bind(py),))?)?;
    // Before the report: its handler may end the run, and the loop may run again.
    let wake = this.bind(py).getattr(intern!(py, "_resume_listener"))?;
    this.bind(py).call_method1("call_later", (RETRY_DELAY, wake, token.to_bits()))?;
    call_exception_handler(py, &this.owned(py), &context)
}

/// The timer that [`rest`] has set fired: tries to accept again.
pub(crate) fn resume(event_loop: &Bound<'_, EventLoop>, token: usize) -> PyResult<()> {
    let inside = event_loop.get().enter(event_loop.py(), "_resume_listener")?;
    let token = Token::from_bits(token);
    inside.with(|state| {
        if let Some(Source::Listener(listener)) = state.sources.get_mut(token) {
            listener.resting = false;
        }
        requeue(state, token);
    });
    Ok(())
}

/// The listening socket itself has failed: stops serving it.
#[cold]
fn broken(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    token: Token,
    error: &std::io::Error,
) -> PyResult<()> {
    let listener = inside.with(|state| {
        let listener = state.sources.remove(token);
        if let Some(Source::Listener(listener)) = &listener {
            let fd = listener.descriptor.number();
            // If another source has the number by now, the registration is that source's.
            let is_ours = state.fds.get(fd) == Some(token);
            state.fds.forget(fd, token);
            if let Some(poller) = state.poller.as_ref().filter(|_| is_ours) {
                let _ = poller.deregister(fd);
            }
        }
        listener
    });
    drop(listener);
    report(py, this, error)
}

#[cold]
fn report(py: Python<'_>, this: This<'_>, error: &std::io::Error) -> PyResult<()> {
    let context = PyDict::new(py);
    context.set_item("message", "accepting on a listening socket failed")?;
    context.set_item("exception", errors::os_error(py, error).into_value(py))?;
    call_exception_handler(py, &this.owned(py), &context)
}
