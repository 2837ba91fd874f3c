//! The datagram transport: UDP and Unix datagram sockets on the reactor.

mod methods;
mod peers;
mod queue;
mod receive;
mod send;
mod target;

use std::any::Any;
use std::collections::VecDeque;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, RawFd};

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use tokioloop_reactor::{Address, Interest, RawAddress, Readiness, Token, WaterMarks, sys};

pub(crate) use self::methods::add_to_module;
use self::peers::Peers;
use self::queue::SendQueue;
use crate::errors;
use crate::event_loop::{EventLoop, Inside, Source, This};
use crate::py::native::Visitor;
use crate::py::{Owned, call, context};
use crate::sockets::SharedSocket;
use crate::transports::begin;
use crate::transports::claim::claim;
use crate::transports::descriptor::Descriptor;
use crate::transports::extra::note_names;
use crate::transports::flow::leave_writing;
use crate::transports::interior::{Flow, Interior, Stage};
use crate::transports::shape::{Transport, TransportRef};

/// A transport of datagrams.
pub(crate) type DatagramTransport = Transport<Inner>;

/// The state of a transport. Only its loop's thread opens it.
pub(crate) struct Inner {
    /// Always owned by the Python socket, which sends to addresses in a form that only
    /// Python understands.
    descriptor: Descriptor,
    /// The descriptor's number, also after it was closed.
    number: RawFd,
    family: Family,
    token: Option<Token>,
    protocol: Option<Owned>,
    /// The context of the read callbacks.
    context: Option<Owned>,
    /// The context of the callbacks that a flush makes.
    write_context: Option<Owned>,
    queue: SendQueue,
    marks: WaterMarks,
    peer: Option<Address>,
    local: Option<Address>,
    /// The `remote_addr` of the endpoint: sends to others are refused.
    address: Option<Owned>,
    /// Recent senders, with the address tuples that the protocol got.
    peers: Peers,
    /// Datagrams that had been received already when the protocol paused reading.
    held: VecDeque<(Owned, RawAddress)>,
    /// Counts the loss itself and the sends after it; 0 before.
    lost: u32,
    state: State,
}

/// The yes-or-no part of a transport's state.
#[derive(Default)]
struct State {
    closing: bool,
    /// The socket has a named peer: `send` instead of `sendto`.
    connected: bool,
    /// `pause_reading` was called.
    paused: bool,
    /// Reading has begun: connection_made has been called.
    started: bool,
    /// An edge came, and the socket has not been drained since.
    readable: bool,
    /// A read is queued for a coming turn.
    read_queued: bool,
    /// The protocol has kept the last large datagram that it got.
    keeps: bool,
    /// An event that was merged into the queued read reported an error.
    error_waits: bool,
    /// `pause_writing` was called on the protocol.
    protocol_paused: bool,
    /// The queue waits for the kernel's buffer.
    blocked: bool,
    /// The registration includes writing.
    watches_writing: bool,
    /// A timer will try to send again.
    retrying: bool,
    /// No more callbacks: connection_lost has been called.
    finished: bool,
}

/// Which addresses the socket has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Inet,
    Inet6,
    Unix,
    /// Any other, whose addresses only Python's socket module can convert.
    Foreign,
}

impl Family {
    fn of(socket: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(match socket.getattr(intern!(socket.py(), "family"))?.extract::<i32>()? {
            libc::AF_INET => Self::Inet,
            libc::AF_INET6 => Self::Inet6,
            libc::AF_UNIX => Self::Unix,
            _ => Self::Foreign,
        })
    }
}

impl Interior for Inner {
    const CLASS_NAME: &'static CStr = c"tokioloop._core.DatagramTransport";
    const SOCKET_TYPE: libc::c_int = libc::SOCK_DGRAM;

    fn traverse(&self, visitor: &mut Visitor) {
        for slot in [&self.protocol, &self.context, &self.write_context, &self.address] {
            visitor.maybe(slot);
        }
        if let Descriptor::Lent(socket, _) = &self.descriptor {
            visitor.object(socket.object());
        }
    }

    fn release(&mut self) -> Box<dyn Any> {
        Box::new((
            self.protocol.take(),
            self.context.take(),
            self.write_context.take(),
            std::mem::take(&mut self.queue),
            std::mem::take(&mut self.peers),
            std::mem::take(&mut self.held),
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
            size: self.queue.size(),
            marks: &mut self.marks,
            paused: &mut self.state.protocol_paused,
        }
    }

    fn take_server(&mut self) -> Option<Owned> {
        None
    }

    fn take_sendfile_waiter(&mut self) -> Option<Owned> {
        None
    }

    fn drop_unsent(&mut self) -> Box<dyn Any> {
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

/// `_make_datagram_transport`: the transport closes the socket from now on.
#[pyfunction]
#[pyo3(signature = (event_loop, class_, sock, protocol, address=None, waiter=None, extra=None))]
fn datagram_transport(
    event_loop: &Bound<'_, EventLoop>,
    class_: &Bound<'_, PyType>,
    sock: &Bound<'_, PyAny>,
    protocol: &Bound<'_, PyAny>,
    address: Option<&Bound<'_, PyAny>>,
    waiter: Option<&Bound<'_, PyAny>>,
    extra: Option<&Bound<'_, PyDict>>,
) -> PyResult<Py<PyAny>> {
    let py = event_loop.py();
    let this = This::of(event_loop);
    let inside = this.event_loop.enter(py, "_make_datagram_transport")?;
    if this.event_loop.closed() {
        return Err(errors::closed());
    }
    if !class_.is_subclass(methods::base_class(py)?.as_any())? {
        return Err(PyTypeError::new_err("not a class of datagram transports"));
    }
    let number: RawFd = sock.call_method0(intern!(py, "fileno"))?.extract()?;
    if number < 0 {
        return Err(errors::os_error(py, &std::io::Error::from_raw_os_error(libc::EBADF)));
    }
    let extra = match extra {
        Some(extra) => extra.copy()?,
        None => PyDict::new(py),
    };
    let socket_class = py.import("asyncio.trsock")?.getattr("TransportSocket")?;
    extra.set_item("socket", socket_class.call1((sock,))?)?;
    let connection_made = protocol.getattr(intern!(py, "connection_made"))?;
    let object = DatagramTransport::allocate(class_)?;
    let inner = fill(sock, number, protocol, address, &extra)?;
    // SAFETY: allocated above and still empty.
    #[allow(unsafe_code)]
    let transport = unsafe {
        let extra = Owned::from(extra.as_any());
        DatagramTransport::install(object, this.owned(py), Some(extra), inner)
    };
    let held = transport.clone_ref(py);
    let (token, displaced) = inside.with(|state| claim(state, number, Source::Datagram(held)));
    transport.get().with(&inside, |inner| inner.token = Some(token));
    displaced.settle(py)?;
    begin::begin(py, this, &transport, &connection_made, waiter)?;
    Ok(transport.object().as_py().clone_ref(py))
}

fn fill(
    sock: &Bound<'_, PyAny>,
    number: RawFd,
    protocol: &Bound<'_, PyAny>,
    address: Option<&Bound<'_, PyAny>>,
    extra: &Bound<'_, PyDict>,
) -> PyResult<Inner> {
    let family = Family::of(sock)?;
    if family == Family::Foreign {
        note_names(sock, extra)?;
    }
    let (local, peer) =
        (sys::local_address(sys::borrow(number)), sys::peer_address(sys::borrow(number)));
    let peer = peer.ok();
    // asyncio tests the truth value of the peer's name, and an unnamed Unix peer's is empty.
    let connected = match extra.get_item("peername")? {
        Some(name) => name.is_truthy()?,
        None => {
            !matches!(&peer, None | Some(Address::Other)) && peer != Some(Address::Unix([].into()))
        }
    };
    let address = match address {
        Some(address) if address.is_truthy()? => Some(Owned::from(address)),
        _ => None,
    };
    Ok(Inner {
        descriptor: Descriptor::Lent(SharedSocket::new(sock), number),
        number,
        family,
        token: None,
        protocol: Some(Owned::from(protocol)),
        context: None,
        write_context: None,
        queue: SendQueue::default(),
        marks: WaterMarks::default(),
        peer,
        local: local.ok(),
        address,
        peers: Peers::default(),
        held: VecDeque::new(),
        lost: 0,
        state: State { connected, ..State::default() },
    })
}

/// `set_protocol(protocol)`.
fn set_protocol(inside: &Inside<'_>, transport: &DatagramTransport, protocol: &Bound<'_, PyAny>) {
    let protocol = Owned::from(protocol);
    let old = transport.with(inside, |inner| inner.protocol.replace(protocol));
    drop(old);
}

/// Registers the socket with the poll. Runs after `connection_made`.
fn start_reading(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &DatagramTransport,
) -> PyResult<()> {
    let context = context::copy_current(py)?;
    let (registration, old) = transport.with(inside, |inner| {
        inner.state.started = true;
        let old = inner.context.replace(context);
        // A send before this moment may already wait for room.
        let interest =
            if inner.state.watches_writing { Interest::BOTH } else { Interest::READABLE };
        let fd = inner.descriptor.get();
        let registration = fd.zip(inner.token).filter(|_| !inner.state.finished);
        (registration.map(|(fd, token)| (fd, token, interest)), old)
    });
    drop(old);
    let Some((fd, token, interest)) = registration else { return Ok(()) };
    let result = inside.with(|state| match &state.poller {
        Some(poller) => poller.register(fd.as_raw_fd(), token, interest),
        None => Ok(()),
    });
    result.map_err(|error| errors::os_error(py, &error))
}

/// Makes the poll report room for sending as well, or stops that.
fn watch_writing(
    inside: &Inside<'_>,
    transport: &DatagramTransport,
    wanted: bool,
) -> std::io::Result<()> {
    inside.with(|state| {
        transport.with(inside, |inner| {
            if inner.state.watches_writing == wanted {
                return Ok(());
            }
            let interest = if wanted { Interest::BOTH } else { Interest::READABLE };
            match (inner.descriptor.get(), inner.token, &state.poller) {
                (Some(fd), Some(token), Some(poller)) if inner.state.started => {
                    poller.reregister(fd.as_raw_fd(), token, interest)?;
                }
                _ => {}
            }
            // Not set on failure, so that the next datagram that waits tries again.
            inner.state.watches_writing = wanted;
            Ok(())
        })
    })
}

/// An event came for a transport.
// HOT: udp
#[inline]
pub(crate) fn on_event(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &TransportRef<Inner>,
    ready: Readiness,
) -> PyResult<()> {
    if ready.readable() {
        receive::on_readable(py, this, inside, transport, ready)
            .inspect_err(|_| leave_writing(inside, transport, ready))?;
    }
    if ready.writable() {
        send::on_writable(py, this, inside, transport)?;
    }
    Ok(())
}

/// What asyncio does in `_read_ready` or `_sendto_ready` has raised. Tells the exception
/// handler; the endpoint stays open.
///
/// # Errors
/// Exceptions that end the run.
#[cold]
fn callback_failed(
    py: Python<'_>,
    transport: &TransportRef<Inner>,
    callback: &str,
    error: PyErr,
) -> PyResult<()> {
    if crate::report::leaves_loop(py, &error) {
        return Err(error);
    }
    let transport = transport.object().bind(py);
    transport.call_method1("_callback_failed", (callback, error.into_value(py))).map(drop)
}

/// Tells the protocol of an OS error; the endpoint stays open.
#[cold]
fn error_received(
    py: Python<'_>,
    inside: &Inside<'_>,
    transport: &DatagramTransport,
    error: PyErr,
) -> PyResult<()> {
    let protocol = transport.with(inside, |inner| inner.protocol.as_ref().map(|p| p.clone_ref(py)));
    let Some(protocol) = protocol else { return Ok(()) };
    let error = error.into_value(py);
    call::method(py, &protocol, intern!(py, "error_received"), [(&error).into()]).map(drop)
}
