//! The stream transport: TCP and Unix sockets on the reactor.

use std::any::Any;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use tokioloop_reactor::stream::Kind;
use tokioloop_reactor::{Address, Interest, Readiness, Token, WaterMarks, WriteQueue, sys};

use crate::errors;
use crate::event_loop::{EventLoop, Inside, Source, This};
use crate::py::native::Visitor;
use crate::py::{Owned, bytes, context};
use crate::transports::claim::claim;
pub(crate) use crate::transports::cork::{flush_corked, flush_overdue};
use crate::transports::descriptor::{self, Descriptor};
use crate::transports::flow::leave_writing;
use crate::transports::interior::{Flow, Interior, Stage};
use crate::transports::read::Delivery;
use crate::transports::shape::StreamTransport;
pub(crate) use crate::transports::shape::TransportRef;
use crate::transports::{batch, begin, cork, extra, flush, read};

/// Bytes that wait to be sent: an exact `bytes`, which nobody can change.
pub(crate) struct Chunk(pub(crate) Owned);

impl AsRef<[u8]> for Chunk {
    #[allow(unsafe_code)]
    #[inline]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: chunks are made of exact `bytes` only, which `self` keeps alive.
        unsafe { bytes::content(self.0.as_ptr()) }
    }
}

/// The state of a transport. Only its loop's thread opens it.
pub(crate) struct Inner {
    pub(crate) descriptor: Descriptor,
    pub(crate) token: Option<Token>,
    pub(crate) protocol: Option<Owned>,
    pub(crate) delivery: Delivery,
    /// The context of the read callbacks.
    pub(crate) context: Option<Owned>,
    /// The context of the callbacks that a flush makes.
    pub(crate) write_context: Option<Owned>,
    pub(crate) queue: WriteQueue<Chunk>,
    pub(crate) marks: WaterMarks,
    pub(crate) server: Option<Owned>,
    /// The future with which `sendfile` waits, for an empty queue and then for room.
    pub(crate) sendfile_waiter: Option<Owned>,
    pub(crate) batch: Option<Box<batch::Batch>>,
    pub(crate) peer: Option<Address>,
    pub(crate) local: Option<Address>,
    /// The serial number of the callback that wrote last.
    pub(crate) write_serial: u64,
    /// Expected size of the next read, in bytes.
    pub(crate) expected: u32,
    /// Counts the loss itself and the writes after it; 0 before.
    pub(crate) lost: u32,
    /// What short reads and writes of the socket mean.
    pub(crate) kind: Kind,
    /// How many callbacks in a row wrote more than once, lately.
    pub(crate) cork_score: u8,
    /// Writes of the callback that wrote last, counted to two.
    pub(crate) writes_in_callback: u8,
    pub(crate) state: State,
}

/// The yes-or-no part of a transport's state.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) closing: bool,
    /// `write_eof` was called.
    pub(crate) eof_written: bool,
    /// `pause_reading` was called.
    pub(crate) paused: bool,
    /// Reading has begun: connection_made has been called.
    pub(crate) started: bool,
    /// The peer has ended its side and the protocol keeps the connection.
    pub(crate) read_ended: bool,
    /// An edge came, and the socket has not been drained since.
    pub(crate) readable: bool,
    /// An edge has reported the end of the peer's side or urgent data: from then on a short
    /// read does not show that the socket is drained.
    pub(crate) hidden: bool,
    /// A read is queued for a coming turn.
    pub(crate) read_queued: bool,
    /// The protocol has kept the last message beyond its callback.
    pub(crate) keeps: bool,
    /// `pause_writing` was called on the protocol.
    pub(crate) protocol_paused: bool,
    /// The queue is held back until the turn ends.
    pub(crate) corked: bool,
    /// The queue waits for the kernel's buffer.
    pub(crate) blocked: bool,
    /// The registration includes writing.
    pub(crate) watches_writing: bool,
    /// No more callbacks: connection_lost has been called.
    pub(crate) finished: bool,
}

impl Inner {
    fn new(descriptor: Descriptor, protocol: Owned, delivery: Delivery) -> Self {
        Self {
            descriptor,
            token: None,
            protocol: Some(protocol),
            delivery,
            context: None,
            write_context: None,
            queue: WriteQueue::new(),
            marks: WaterMarks::default(),
            server: None,
            sendfile_waiter: None,
            batch: None,
            peer: None,
            local: None,
            write_serial: 0,
            expected: 0,
            lost: 0,
            kind: Kind::Other,
            cork_score: 0,
            writes_in_callback: 0,
            state: State::default(),
        }
    }

    #[inline]
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'static>> {
        self.descriptor.get()
    }
}

impl Interior for Inner {
    const CLASS_NAME: &'static CStr = c"tokioloop._core.StreamTransport";
    const SOCKET_TYPE: libc::c_int = libc::SOCK_STREAM;

    fn traverse(&self, visitor: &mut Visitor) {
        for slot in [&self.protocol, &self.context, &self.write_context, &self.server] {
            visitor.maybe(slot);
        }
        visitor.maybe(&self.sendfile_waiter);
        if let Descriptor::Lent(socket, _) = &self.descriptor {
            visitor.object(socket.object());
        }
    }

    fn release(&mut self) -> Box<dyn Any> {
        Box::new((
            self.protocol.take(),
            self.context.take(),
            self.write_context.take(),
            self.server.take(),
            self.sendfile_waiter.take(),
            std::mem::take(&mut self.queue),
            self.batch.take(),
        ))
    }

    fn descriptor(&mut self) -> &mut Descriptor {
        &mut self.descriptor
    }

    fn token(&mut self) -> &mut Option<Token> {
        &mut self.token
    }

    fn protocol(&self) -> Option<&Owned> {
        self.protocol.as_ref()
    }

    fn stage(&mut self) -> Stage<'_> {
        Stage {
            closing: &mut self.state.closing,
            finished: &mut self.state.finished,
            lost: &mut self.lost,
        }
    }

    fn flow(&mut self) -> Flow<'_> {
        Flow {
            size: self.queue.len_bytes(),
            marks: &mut self.marks,
            paused: &mut self.state.protocol_paused,
        }
    }

    fn take_server(&mut self) -> Option<Owned> {
        self.server.take()
    }

    fn take_sendfile_waiter(&mut self) -> Option<Owned> {
        self.sendfile_waiter.take()
    }

    fn drop_unsent(&mut self) -> Box<dyn Any> {
        if std::mem::replace(&mut self.state.corked, false) {
            // Without the cork it would have been sent already. The result does not
            // matter: the connection ends for another reason.
            if let Some(fd) = self.fd() {
                let _ = tokioloop_reactor::stream::flush(fd, self.kind, &mut self.queue);
            }
        }
        self.state.blocked = false;
        Box::new((std::mem::take(&mut self.queue), self.write_context.take()))
    }

    fn peer(&self) -> Option<Address> {
        self.peer.clone()
    }

    fn local(&self) -> Option<Address> {
        self.local.clone()
    }
}

/// What a new transport is made of besides its descriptor.
pub(crate) struct Parts<'a, 'py> {
    pub(crate) protocol: &'a Bound<'py, PyAny>,
    pub(crate) waiter: Option<&'a Bound<'py, PyAny>>,
    pub(crate) extra: Option<Owned>,
    pub(crate) server: Option<&'a Bound<'py, PyAny>>,
    pub(crate) peer: Option<Address>,
}

/// `_make_socket_transport`: takes over a connected socket's descriptor, or shares it with
/// the socket if `keep`.
pub(crate) fn adopt_socket(
    event_loop: &Bound<'_, EventLoop>,
    socket: &Bound<'_, PyAny>,
    protocol: &Bound<'_, PyAny>,
    waiter: Option<&Bound<'_, PyAny>>,
    extra: Option<&Bound<'_, PyDict>>,
    server: Option<&Bound<'_, PyAny>>,
    keep: bool,
) -> PyResult<Py<PyAny>> {
    let this = This::of(event_loop);
    let extra = extra.map(|extra| Owned::from(extra.as_any()));
    let parts = Parts { protocol, waiter, extra, server, peer: None };
    let transport = make(event_loop.py(), this, parts, || {
        if keep { descriptor::share(socket) } else { descriptor::detach(socket) }
    })?;
    Ok(transport.object().as_py().clone_ref(event_loop.py()))
}

/// Makes a transport and schedules its beginning. `take` hands over the descriptor after
/// what may fail because of the arguments. If the server or the loop turns out to be
/// closed after that, the transport closes the descriptor.
pub(crate) fn make(
    py: Python<'_>,
    this: This<'_>,
    parts: Parts<'_, '_>,
    take: impl FnOnce() -> PyResult<Descriptor>,
) -> PyResult<TransportRef> {
    let inside = this.event_loop.enter(py, "_make_socket_transport")?;
    if this.event_loop.closed() {
        return Err(errors::closed());
    }
    let class =
        inside.with(|state| state.transport_class.as_ref().map(|class| class.clone_ref(py)));
    let class = match &class {
        Some(class) => class.bind(py).cast::<PyType>()?.to_owned(),
        None => crate::transports::methods::base_class(py)?,
    };
    let connection_made = parts.protocol.getattr(intern!(py, "connection_made"))?;
    let delivery = Delivery::of(py, parts.protocol)?;
    let object = StreamTransport::allocate(&class)?;
    let descriptor = take()?;
    let number = descriptor.number();
    let mut inner = Inner::new(descriptor, Owned::from(parts.protocol), delivery);
    inner.peer = parts.peer;
    inner.server = parts.server.map(Owned::from);
    if this.event_loop.options.write_batch_timeout > Some(0) {
        inner.cork_score = cork::ALWAYS;
    }
    if let Some(fd) = inner.fd() {
        prepare_socket(fd, &mut inner);
    }
    // SAFETY: allocated above and still empty.
    #[allow(unsafe_code)]
    let transport = unsafe { StreamTransport::install(object, this.owned(py), parts.extra, inner) };
    log::debug!("descriptor {number} is a transport's");
    if transport.get().with(&inside, |inner| matches!(inner.local, Some(Address::Other))) {
        // If this fails, the transport is dropped and closes its descriptor, as below.
        if let Some(socket) = extra::socket(py, &inside, transport.get())? {
            extra::note_names(&socket.bind(py), &extra::extra_dict(py, transport.get())?)?;
        }
    }
    if let Some(server) = parts.server {
        // Raises if the server was closed meanwhile. Nothing else refers to the transport
        // yet, so it is dropped and closes its descriptor.
        attach(server, &transport)?;
    }
    let held = transport.clone_ref(py);
    let (token, displaced) = inside.with(|state| claim(state, number, Source::Stream(held)));
    transport.get().with(&inside, |inner| inner.token = Some(token));
    displaced.settle(py)?;
    begin::begin(py, this, &transport, &connection_made, parts.waiter)?;
    Ok(transport)
}

/// Notes the addresses while the connection is sure to have them, and switches Nagle's
/// algorithm off.
fn prepare_socket(fd: BorrowedFd<'_>, inner: &mut Inner) {
    inner.local = sys::local_address(fd).ok();
    if inner.peer.is_none() {
        inner.peer = sys::peer_address(fd).ok();
    }
    inner.kind = match &inner.local {
        // Failure is ignored: a connection that has failed meanwhile reports it on the first
        // read, and other protocols than TCP (SCTP, say) have no such option.
        Some(local) if local.is_inet() && sys::set_nodelay(fd).is_ok() => Kind::Tcp,
        Some(Address::Unix(_)) => Kind::Unix,
        _ => Kind::Other,
    };
}

/// Registers the socket with the poll. Runs after `connection_made`.
pub(crate) fn start_reading(py: Python<'_>, transport: &StreamTransport) -> PyResult<()> {
    let event_loop = transport.event_loop(py)?;
    let inside = event_loop.enter(py, "_start_reading")?;
    let context = context::copy_current(py)?;
    let (fd, token, ended) = transport.with(&inside, |inner| {
        inner.context = Some(context);
        inner.state.started = true;
        (inner.fd(), inner.token, inner.state.finished)
    });
    let (Some(fd), Some(token), false) = (fd, token, ended) else { return Ok(()) };
    let result = inside.with(|state| {
        state.registered = true;
        match &state.poller {
            Some(poller) => poller.register(fd.as_raw_fd(), token, Interest::READABLE),
            None => Ok(()),
        }
    });
    // A write or `sendfile` before this moment may already wait for room.
    let blocked =
        transport.with(&inside, |inner| inner.state.blocked || inner.sendfile_waiter.is_some());
    match result {
        Ok(()) if blocked => flush::watch_writing(&inside, transport),
        Ok(()) => Ok(()),
        Err(error) => Err(error),
    }
    .map_err(|error| errors::os_error(py, &error))
}

/// `Server._attach`, whose argument came with CPython 3.13.
fn attach(server: &Bound<'_, PyAny>, transport: &TransportRef) -> PyResult<()> {
    let py = server.py();
    let name = intern!(py, "_attach");
    if cfg!(Py_3_13) {
        server.call_method1(name, (transport.object().bind(py),))?;
    } else {
        server.call_method0(name)?;
    }
    Ok(())
}

/// An event came for a transport.
// HOT: proto
#[inline]
pub(crate) fn on_event(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef,
    ready: Readiness,
) -> PyResult<()> {
    if ready.readable() && !takes_along(inside, transport, ready) {
        let result = read::on_readable(py, this, inside, transport, ready.hides_data());
        if result.is_err() {
            leave_writing(inside, transport, ready);
            return result;
        }
    }
    if ready.writable() {
        flush::on_writable(py, this, inside, transport)?;
    }
    Ok(())
}

/// Whether a read that is queued already serves this event as well. Reading now would
/// queue one more read for each event, until this transport starved the others.
#[inline]
fn takes_along(inside: &Inside<'_>, transport: &TransportRef, ready: Readiness) -> bool {
    transport.get().with(inside, |inner| {
        let queued = inner.state.read_queued && !ready.is_again();
        inner.state.hidden |= queued && ready.hides_data();
        queued
    })
}
