//! What a loop is made of; no behaviour.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use pyo3::{PyTraverseError, PyVisit};
use tokioloop_reactor::datagram::DatagramBatch;
use tokioloop_reactor::{Interest, Poller, ReadRing, Sources, Timers, Token};

use crate::event_loop::backlog::Backlog;
use crate::event_loop::fd_table::FdTable;
use crate::event_loop::gathering::Gathering;
use crate::event_loop::metrics::Metrics;
use crate::event_loop::patience::Patience;
use crate::handle::{HandleRef, Handles};
use crate::py::Owned;
use crate::py::message::Spare;
use crate::ready::Ready;
use crate::sockets::{Keeping, Kept};
use crate::transports::accept::Listener;
use crate::transports::datagram;
use crate::transports::stream::TransportRef;

/// The state of one loop. Only the thread inside may open it (`loop_cell`).
pub(crate) struct LoopState {
    pub(crate) ready: VecDeque<Ready>,
    /// How many entries of `ready` are still to run in this turn.
    pub(crate) left: usize,
    pub(crate) timers: Timers<HandleRef>,
    pub(crate) sources: Sources<Source>,
    pub(crate) fds: FdTable,
    /// Absent while the loop waits in it, and after `close`.
    pub(crate) poller: Option<Box<Poller>>,
    /// Absent while a transport reads into it.
    pub(crate) ring: Option<Box<ReadRing>>,
    /// The buffer that ciphertext is received into, once there is some; absent
    /// while a session reads it.
    pub(crate) ciphertext: Option<Box<ReadRing>>,
    /// Memory for the next message that a protocol gets.
    pub(crate) spare: Spare,
    /// The same for datagrams, which are smaller than what streams receive.
    pub(crate) datagram_spare: Spare,
    /// The buffers that datagrams are received into, once there is an endpoint;
    /// absent while one delivers a batch.
    pub(crate) datagrams: Option<Box<DatagramBatch>>,
    pub(crate) handles: Handles,
    pub(crate) keeping: Keeping,
    /// Transports that hold writes back until the turn ends.
    pub(crate) corked: Vec<TransportRef>,
    /// When the first of them was corked, in nanoseconds.
    pub(crate) corked_at: u64,
    pub(crate) gathering: Gathering,
    pub(crate) patience: Patience,
    /// Events that are postponed to a later turn.
    pub(crate) backlog: Backlog,
    /// Counts the callbacks run, so that a transport can tell whether two writes
    /// come from the same one.
    pub(crate) serial: u64,
    pub(crate) task_factory: Option<Owned>,
    pub(crate) transport_class: Option<Owned>,
    /// The pipe that signal handlers write to; watched while the loop lives.
    pub(crate) signal_token: Option<Token>,
    /// Whether a poll has found something in it, or numbers are left below.
    pub(crate) signalled: bool,
    /// Numbers of signals read from it that have not been handled yet.
    pub(crate) signals: VecDeque<u8>,
    /// A registration was made since the last poll. The next poll must not be
    /// skipped, because the descriptor may be ready already.
    pub(crate) registered: bool,
    /// Whether there may be handles that the collector was not told of.
    pub(crate) untracked: bool,
    pub(crate) metrics: Metrics,
}

impl LoopState {
    pub(super) fn new(poller: Poller) -> Self {
        Self {
            ready: VecDeque::new(),
            left: 0,
            timers: Timers::new(),
            sources: Sources::new(),
            fds: FdTable::default(),
            poller: Some(Box::new(poller)),
            ring: Some(Box::new(ReadRing::new())),
            ciphertext: None,
            spare: Spare::default(),
            datagram_spare: Spare::default(),
            datagrams: None,
            handles: Handles::default(),
            keeping: Keeping::default(),
            corked: Vec::new(),
            corked_at: 0,
            gathering: Gathering::default(),
            patience: Patience::default(),
            backlog: Backlog::default(),
            serial: 0,
            task_factory: None,
            transport_class: None,
            signal_token: None,
            signalled: false,
            signals: VecDeque::new(),
            registered: false,
            untracked: false,
            metrics: Metrics::default(),
        }
    }

    /// Ends the turn at this point, and takes out what was still to run or to be sent.
    pub(super) fn leave_turn(&mut self) -> (VecDeque<Ready>, Backlog, Vec<TransportRef>) {
        self.left = 0;
        let Self { ready, backlog, corked, .. } = self;
        (std::mem::take(ready), std::mem::take(backlog), std::mem::take(corked))
    }

    /// Takes out what the loop holds, to be dropped where any code may run.
    pub(super) fn empty(&mut self) -> Remains {
        self.fds = FdTable::default();
        self.signal_token = None;
        self.signalled = false;
        self.keeping = Keeping::default();
        self.backlog = Backlog::default();
        let timers = self.timers.drain();
        for handle in &timers {
            handle.get().set_timer(None);
        }
        Remains {
            _ready: std::mem::take(&mut self.ready),
            _timers: timers,
            _sources: self.sources.drain(),
            _corked: std::mem::take(&mut self.corked),
            _task_factory: self.task_factory.take(),
            _transport_class: self.transport_class.take(),
            _poller: self.poller.take(),
            _rings: [self.ring.take(), self.ciphertext.take()],
            _spares: [&mut self.spare, &mut self.datagram_spare].map(std::mem::take),
            _datagrams: self.datagrams.take(),
        }
    }
}

/// What a closed loop held.
pub(super) struct Remains {
    _ready: VecDeque<Ready>,
    _timers: Vec<HandleRef>,
    _sources: Vec<Source>,
    _corked: Vec<TransportRef>,
    _task_factory: Option<Owned>,
    _transport_class: Option<Owned>,
    _poller: Option<Box<Poller>>,
    _rings: [Option<Box<ReadRing>>; 2],
    _spares: [Spare; 2],
    _datagrams: Option<Box<DatagramBatch>>,
}

/// What an event belongs to.
pub(crate) enum Source {
    /// A connected stream.
    Stream(TransportRef),
    /// A datagram endpoint.
    Datagram(TransportRef<datagram::Inner>),
    /// A listening socket.
    Listener(Box<Listener>),
    /// A descriptor of `add_reader` and `add_writer`.
    Watch(Box<Watch>),
    /// A kept socket of the `sock_*` methods, between and during calls.
    Socket(Box<Kept>),
    /// The pipe that C signal handlers write to.
    Signals(OwnedFd),
}

impl Source {
    /// The object of a transport, of whatever kind.
    pub(crate) fn transport(&self) -> Option<&Owned> {
        match self {
            Self::Stream(transport) => Some(transport.object()),
            Self::Datagram(transport) => Some(transport.object()),
            _ => None,
        }
    }

    /// Shows every reference to the collector.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Stream(transport) => visit.call(transport.object().as_py()),
            Self::Datagram(transport) => visit.call(transport.object().as_py()),
            Self::Listener(listener) => listener.traverse(visit),
            Self::Watch(watch) => {
                let handles = watch.reader.iter().chain(&watch.writer).map(HandleRef::object);
                handles.chain(&watch.file).try_for_each(|object| visit.call(object.as_py()))
            }
            Self::Socket(kept) => {
                kept.waiters().try_for_each(|(future, _)| visit.call(future.as_py()))
            }
            Self::Signals(_) => Ok(()),
        }
    }
}

/// The callbacks of one watched descriptor.
#[derive(Default)]
pub(crate) struct Watch {
    pub(crate) reader: Option<HandleRef>,
    pub(crate) writer: Option<HandleRef>,
    /// The object that was given as the descriptor, unless that was a number. Once it
    /// is closed, only its identity leads to this watch.
    pub(crate) file: Option<Owned>,
}

impl Watch {
    pub(crate) fn interest(&self) -> Interest {
        let mut interest = Interest::NONE;
        if self.reader.is_some() {
            interest = interest.with(Interest::READABLE);
        }
        if self.writer.is_some() {
            interest = interest.with(Interest::WRITABLE);
        }
        interest
    }
}
