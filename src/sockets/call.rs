//! One `sock_*` call, from its first step to its end.
//!
//! As in asyncio, nothing happens before the first step, which tries the socket at once.
//! A call that waits tries again each time it is woken, so a cancellation never loses
//! data: nothing is received for a call that only waits.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;

use crate::coroutine::{Input, Step, pass};
use crate::errors;
use crate::event_loop::{EventLoop, futures};
use crate::py::buffer::{Room, View};
use crate::py::native::Visitor;
use crate::py::{Live, Owned, bytes};
use crate::sockets::attempt::{Attempt, Try};
use crate::sockets::keeping::{self, Parked};
use crate::sockets::kept::Side;
use crate::sockets::stock::Stock;

/// What was called, with its arguments.
pub(super) enum Task {
    /// At least one byte and at most this many.
    Recv(usize),
    RecvInto(Owned),
    RecvFrom(Owned),
    RecvFromInto(Owned, Owned),
    SendAll(Sending),
    SendTo(Owned, Owned),
    Accept,
    Connect(Connecting),
}

/// How far a `sock_connect` has come.
pub(super) struct Connecting {
    pub(super) address: Owned,
    pub(super) is_under_way: bool,
}

/// How far a `sock_sendall` has come.
pub(super) struct Sending {
    data: Owned,
    /// Holds the data in place while the call waits, as asyncio's view of it
    /// does.
    view: Option<View<Box<Room>>>,
    sent: usize,
}

impl Sending {
    pub(super) fn new(data: Owned) -> Self {
        Self { data, view: None, sent: 0 }
    }

    pub(super) fn data(&self) -> &Owned {
        &self.data
    }

    pub(super) fn sent(&self) -> usize {
        self.sent
    }
}

/// How far a call has come.
pub(super) enum Stage {
    New,
    /// The call waits for the socket, with a future that this iterator awaits.
    Waiting {
        iterator: Owned,
        future: Owned,
        fd: RawFd,
    },
    /// The address is being resolved.
    Resolving(Owned),
    /// The rest is up to asyncio's own coroutine.
    Delegated(Owned),
}

/// The outcome of beginning a wait.
enum Wait {
    Begun { iterator: Owned, future: Owned, fd: RawFd, step: Step },
    Over,
    Delegate,
}

/// A call under way.
pub(crate) struct Call {
    task: Task,
    event_loop: Owned,
    socket: Owned,
    stage: Stage,
}

impl Call {
    pub(super) fn new(event_loop: Owned, socket: Owned, task: Task) -> Self {
        Self { task, event_loop, socket, stage: Stage::New }
    }

    /// Qualified name of the method.
    pub(crate) fn name(&self) -> &'static &'static str {
        match &self.task {
            Task::Recv(_) => &"BaseSelectorEventLoop.sock_recv",
            Task::RecvInto(_) => &"BaseSelectorEventLoop.sock_recv_into",
            Task::RecvFrom(_) => &"BaseSelectorEventLoop.sock_recvfrom",
            Task::RecvFromInto(..) => &"BaseSelectorEventLoop.sock_recvfrom_into",
            Task::SendAll(_) => &"BaseSelectorEventLoop.sock_sendall",
            Task::SendTo(..) => &"BaseSelectorEventLoop.sock_sendto",
            Task::Accept => &"BaseSelectorEventLoop.sock_accept",
            Task::Connect(_) => &"BaseSelectorEventLoop.sock_connect",
        }
    }

    pub(crate) fn is_new(&self) -> bool {
        matches!(self.stage, Stage::New)
    }

    /// What it waits for.
    pub(crate) fn awaited(&self) -> Option<&Owned> {
        match &self.stage {
            Stage::Waiting { iterator, .. } => Some(iterator),
            Stage::Resolving(awaited) | Stage::Delegated(awaited) => Some(awaited),
            Stage::New => None,
        }
    }

    pub(crate) fn traverse(&self, visitor: &mut Visitor) {
        visitor.object(&self.event_loop);
        visitor.object(&self.socket);
        match &self.task {
            Task::RecvInto(object) | Task::RecvFrom(object) => visitor.object(object),
            Task::Connect(connecting) => visitor.object(&connecting.address),
            Task::RecvFromInto(first, second) | Task::SendTo(first, second) => {
                visitor.object(first);
                visitor.object(second);
            }
            Task::SendAll(sending) => {
                visitor.object(&sending.data);
                if let Some(view) = &sending.view {
                    // SAFETY: the view holds a reference to it.
                    unsafe { visitor.pointer(view.exporter()) };
                }
            }
            Task::Recv(_) | Task::Accept => {}
        }
        if let Some(awaited) = self.awaited() {
            visitor.object(awaited);
        }
        if let Stage::Waiting { future, .. } = &self.stage {
            visitor.object(future);
        }
    }

    /// Runs one step.
    ///
    /// # Errors
    /// What the method raises.
    // HOT: raw
    pub(crate) fn resume(&mut self, py: Python<'_>, input: Input<'_>) -> PyResult<Step> {
        match std::mem::replace(&mut self.stage, Stage::New) {
            Stage::New => match input {
                Input::Throw(error) => Err(PyErr::from_value(error.clone())),
                Input::Send(_) => self.begin(py),
            },
            Stage::Waiting { iterator, future, fd } => {
                let step = pass(py, &iterator, input);
                if matches!(step, Ok(Step::Yield(_))) {
                    self.stage = Stage::Waiting { iterator, future, fd };
                    return step;
                }
                if let Err(error) = step {
                    self.give_up(py, fd, &future);
                    return Err(error);
                }
                self.go_on(py, false)
            }
            Stage::Resolving(awaited) => {
                let step = pass(py, &awaited, input)?;
                self.follow_resolution(py, awaited, step)
            }
            Stage::Delegated(awaited) => {
                let step = pass(py, &awaited, input)?;
                if matches!(step, Step::Yield(_)) {
                    self.stage = Stage::Delegated(awaited);
                }
                Ok(step)
            }
        }
    }

    /// Ends a call that nobody will resume any more.
    pub(crate) fn abandon(self) {
        if let Stage::Waiting { future, fd, .. } = &self.stage {
            // SAFETY: CPython deallocates objects on attached threads.
            let py = unsafe { Python::assume_attached() };
            self.give_up(py, *fd, future);
        }
    }

    /// asyncio's checks, and the first try.
    // HOT: raw
    fn begin(&mut self, py: Python<'_>) -> PyResult<Step> {
        if !Stock::get(py)?.is_plain(py, &self.socket) {
            return self.delegate(py);
        }
        if self.event_loop().debug() && !Stock::get(py)?.layout(py).never_waits(py, &self.socket)? {
            return Err(PyValueError::new_err("the socket must be non-blocking"));
        }
        match &mut self.task {
            Task::RecvFromInto(buffer, count) if !count.bind(py).is_truthy()? => {
                *count = buffer.bind(py).len()?.into_pyobject(py)?.into_any().into();
            }
            Task::Connect(connecting) => {
                let address = connecting.address.clone_ref(py);
                return self.resolve(py, &address);
            }
            _ => {}
        }
        self.go_on(py, true)
    }

    /// Tries, and waits if the socket is not ready.
    // HOT: raw
    pub(super) fn go_on(&mut self, py: Python<'_>, first: bool) -> PyResult<Step> {
        let mut first = first;
        loop {
            match self.attempt(py, first)? {
                Attempt::Done(value) => return Ok(Step::Return(value)),
                Attempt::Delegate => return self.delegate(py),
                Attempt::Blocked => {}
            }
            if let Some(step) = self.wait(py)? {
                return Ok(step);
            }
            first = false;
        }
    }

    fn attempt(&mut self, py: Python<'_>, first: bool) -> PyResult<Attempt> {
        let fd = Stock::get(py)?.layout(py).descriptor(py, &self.socket)?;
        // SAFETY: this is an `EventLoop`.
        let event_loop = unsafe { EventLoop::borrow(py, self.event_loop.live()) };
        let (true, Some(inside)) = (fd >= 0, event_loop.enter_for_socket(py)) else {
            return Ok(Attempt::Delegate);
        };
        let inside = &inside;
        let this = Try { inside, socket: &self.socket, fd, first };
        match &mut self.task {
            Task::Recv(count) => this.recv(py, *count),
            Task::RecvInto(buffer) => this.recv_into(py, buffer),
            Task::SendAll(sending) => send(py, &this, sending),
            Task::Accept => this.accept(py),
            Task::RecvFrom(count) => {
                this.datagram(py, Side::Read, intern!(py, "recvfrom"), [count])
            }
            Task::RecvFromInto(buffer, count) => {
                this.datagram(py, Side::Read, intern!(py, "recvfrom_into"), [buffer, count])
            }
            Task::SendTo(data, address) => {
                this.datagram(py, Side::Write, intern!(py, "sendto"), [data, address])
            }
            Task::Connect(connecting) => this.connect(py, connecting),
        }
    }

    /// Waits for the socket; None if it is to be tried again at once.
    // HOT: raw-wait
    fn wait(&mut self, py: Python<'_>) -> PyResult<Option<Step>> {
        match self.begin_wait(py)? {
            Wait::Begun { iterator, future, fd, step } => {
                self.stage = Stage::Waiting { iterator, future, fd };
                Ok(Some(step))
            }
            Wait::Over => Ok(None),
            Wait::Delegate => self.delegate(py).map(Some),
        }
    }

    // HOT: raw-wait
    fn begin_wait(&self, py: Python<'_>) -> PyResult<Wait> {
        // A socket that blocks, or has a timeout, is left to asyncio's coroutine.
        if !Stock::get(py)?.layout(py).never_waits(py, &self.socket)? {
            return Ok(Wait::Delegate);
        }
        if self.event_loop().closed() {
            return Err(errors::closed());
        }
        let future = futures::create_future(py, &self.event_loop)?;
        let fd = Stock::get(py)?.layout(py).descriptor(py, &self.socket)?;
        let Some(inside) = self.event_loop().enter_for_socket(py) else {
            return Ok(Wait::Delegate);
        };
        let side = self.side();
        let park =
            || inside.with(|state| keeping::park(py, state, fd, &self.socket, side, &future));
        let parked = match park() {
            Parked::Unknown => {
                keeping::register(py, &inside, fd, &self.socket)?
                    .map_err(|error| errors::raised(py, errors::os_error(py, &error)))?;
                park()
            }
            parked => parked,
        };
        if !matches!(parked, Parked::Yes) {
            return Ok(Wait::Delegate);
        }
        // SAFETY: a live object; the answer is a new reference, or null with an
        // exception.
        let iterator = unsafe { Owned::from_result(py, ffi::PyObject_GetIter(future.as_ptr())) };
        let step = iterator.and_then(|iterator| {
            let step = pass(py, &iterator, Input::Send(Live::none(py)))?;
            Ok((iterator, step))
        });
        if let Ok((iterator, step @ Step::Yield(_))) = step {
            return Ok(Wait::Begun { iterator, future, fd, step });
        }
        // What an overridden `create_future` returns may be done already, or no future.
        keeping::unpark(&inside, fd, side, &future);
        step.map(|_| Wait::Over)
    }

    fn give_up(&self, py: Python<'_>, fd: RawFd, future: &Owned) {
        if let Some(inside) = self.event_loop().enter_for_socket(py) {
            keeping::unpark(&inside, fd, self.side(), future);
        }
    }

    fn side(&self) -> Side {
        match &self.task {
            Task::Recv(_)
            | Task::RecvInto(_)
            | Task::RecvFrom(_)
            | Task::RecvFromInto(..)
            | Task::Accept => Side::Read,
            Task::SendAll(_) | Task::SendTo(..) | Task::Connect(_) => Side::Write,
        }
    }

    pub(super) fn task(&self) -> &Task {
        &self.task
    }

    pub(super) fn set_task(&mut self, task: Task) {
        self.task = task;
    }

    pub(super) fn set_stage(&mut self, stage: Stage) {
        self.stage = stage;
    }

    pub(super) fn socket(&self) -> &Owned {
        &self.socket
    }

    pub(super) fn event_loop_object(&self) -> &Owned {
        &self.event_loop
    }

    #[inline]
    fn event_loop(&self) -> &EventLoop {
        // SAFETY: coroutines run on attached threads, and this is an `EventLoop`.
        unsafe { EventLoop::borrow(Python::assume_attached(), self.event_loop.live()) }
    }

    /// Leaves the rest to the coroutine of asyncio's own method.
    #[cold]
    pub(super) fn delegate(&mut self, py: Python<'_>) -> PyResult<Step> {
        let coroutine = self.interpreted(py)?;
        let step = pass(py, &coroutine, Input::Send(Live::none(py)))?;
        if matches!(step, Step::Yield(_)) {
            self.stage = Stage::Delegated(coroutine);
        }
        Ok(step)
    }
}

/// Sends what is left, straight out of a `bytes` object or through a view.
// HOT: raw
#[inline]
fn send(py: Python<'_>, this: &Try<'_>, sending: &mut Sending) -> PyResult<Attempt> {
    let data = sending.data.bind(py);
    if let Some(content) = bytes::exact(&data) {
        return this.send(py, content, &mut sending.sent);
    }
    let view = match sending.view.take() {
        Some(view) => view,
        // asyncio's coroutine refuses what has no buffer, with CPython's message.
        None => match View::readable(Box::new(Room::new()), &data) {
            Ok(view) => view,
            Err(_) => return Ok(Attempt::Delegate),
        },
    };
    let attempt = this.send(py, view.bytes(), &mut sending.sent)?;
    if matches!(attempt, Attempt::Blocked) {
        sending.view = Some(view);
    }
    Ok(attempt)
}
