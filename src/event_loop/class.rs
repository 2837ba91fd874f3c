//! The class `EventLoop`, the native base that `TokioLoop` inherits from ahead of
//! CPython's own loop.
//!
//! State that CPython's code keeps in attributes of the loop and that the hot
//! path needs (`_stopping`, `_closed`, `_debug`, ...) lives here, under the
//! same names, so that the inherited code and this one agree.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3::{PyTraverseError, PyVisit};
use tokioloop_reactor::{Poller, Waker};

use crate::errors;
use crate::event_loop::backpressure::Backpressure;
use crate::event_loop::mailbox::Mailbox;
use crate::event_loop::observer::Observer;
use crate::event_loop::options::{self, Options, Seconds, Whole};
use crate::event_loop::{LoopState, census, io, run};
use crate::handle::{HandleRef, SharedHandles};
use crate::imports::Imports;
use crate::logging;
use crate::loop_cell::LoopCell;
use crate::py::Owned;
use crate::ready::Ready;

/// The reader's and the writer's handle of a descriptor.
type WatchHandles = (Option<Py<PyAny>>, Option<Py<PyAny>>);

/// An event loop on a mio reactor; `TokioLoop` adds CPython's cold path.
#[pyclass(subclass, frozen, module = "tokioloop._core")]
pub(crate) struct EventLoop {
    pub(crate) cell: LoopCell<LoopState>,
    pub(crate) options: Options,
    pub(crate) observer: Observer,
    pub(super) inbox: Mailbox,
    pub(super) backpressure: Backpressure,
    pub(crate) shared_handles: SharedHandles,
    /// Ends a wait from another thread; None once the loop is closed. A sender takes
    /// the lock only if it finds the loop parked.
    pub(super) waker: Mutex<Option<Arc<Waker>>>,
    pub(super) stopping: AtomicBool,
    pub(super) closed: AtomicBool,
    /// `time` was overridden: timers use the override.
    pub(super) custom_clock: AtomicBool,
    /// `call_at` was overridden: `call_later` calls the override.
    pub(super) custom_timers: AtomicBool,
    /// `create_future` or `get_debug` was replaced on the instance.
    pub(super) custom_futures: AtomicBool,
    /// `TokioLoop.run_forever` runs: one call of `_run_once` may run turns until `stop`.
    pub(super) whole_runs: AtomicBool,
    /// The identity that Python's `threading` gives the running thread, or 0.
    pub(super) thread_ident: AtomicU64,
}

#[pymethods]
impl EventLoop {
    #[new]
    // `__new__` also gets a subclass's own arguments; TokioLoop's `__init__` refuses unknown ones.
    #[pyo3(signature = (*_arguments, read_batch_bytes=Whole::ZERO, read_batch_timeout=Seconds::ZERO, write_batch_timeout=None, busy_poll=None, slow_callback=Seconds::ZERO, stall_timeout=Seconds::ZERO, on_stall=None, **_keywords))]
    // One for each keyword.
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        _arguments: &Bound<'_, PyAny>,
        read_batch_bytes: Whole,
        read_batch_timeout: Seconds,
        write_batch_timeout: Option<Seconds>,
        busy_poll: Option<Whole>,
        slow_callback: Seconds,
        stall_timeout: Seconds,
        on_stall: Option<&Bound<'_, PyAny>>,
        _keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let options =
            Options::new(read_batch_bytes, read_batch_timeout, write_batch_timeout, busy_poll)?;
        let observer = Observer::new(options::slow_callback(slow_callback)?);
        options::check_stall_watch(stall_timeout, on_stall)?;
        let poller = Poller::new().map_err(|error| errors::os_error(py, &error))?;
        Imports::get(py)?;
        let waker = Mutex::new(Some(poller.waker()));
        Ok(Self {
            cell: LoopCell::new(LoopState::new(poller)),
            options,
            observer,
            inbox: Mailbox::default(),
            backpressure: Backpressure::default(),
            shared_handles: SharedHandles::default(),
            waker,
            stopping: AtomicBool::new(false),
            // asyncio's constructor sets it to False. If it is not reached, there is
            // nothing to close.
            closed: AtomicBool::new(true),
            custom_clock: AtomicBool::new(false),
            custom_timers: AtomicBool::new(false),
            custom_futures: AtomicBool::new(false),
            whole_runs: AtomicBool::new(false),
            thread_ident: AtomicU64::new(0),
        })
    }

    /// Run turns until `stop` is asked for, if `TokioLoop.run_forever` calls this and
    /// nobody has overridden it (`_whole_runs`); otherwise one turn.
    fn _run_once(slf: &Bound<'_, Self>) -> PyResult<()> {
        run::run_until_stopping(slf)
    }

    /// Stop the loop after its current turn. May be called from any thread.
    fn stop(&self, py: Python<'_>) {
        self.stopping.store(true, Ordering::SeqCst);
        if !self.cell.is_mine() && self.inbox.notify() {
            self.wake(py);
        }
    }

    /// Return True if the loop is running. May be called from any thread.
    pub(super) fn is_running(&self) -> bool {
        self.thread_ident.load(Ordering::Relaxed) != 0
    }

    /// Return True if the loop was closed. May be called from any thread.
    fn is_closed(&self) -> bool {
        self.closed()
    }

    fn _check_closed(&self) -> PyResult<()> {
        if self.closed() { Err(errors::closed()) } else { Ok(()) }
    }

    fn _remove_reader(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        io::unwatch(slf, fd, io::Direction::Read)
    }

    fn _remove_writer(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        io::unwatch(slf, fd, io::Direction::Write)
    }

    fn _ensure_fd_no_transport(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<()> {
        io::ensure_no_transport(slf, fd)
    }

    /// Queue a handle, of any class, for the next turn.
    fn _add_callback(slf: &Bound<'_, Self>, handle: &Bound<'_, PyAny>) -> PyResult<()> {
        if handle.getattr("_cancelled")?.is_truthy()? {
            return Ok(());
        }
        let inside = slf.get().enter(slf.py(), "_add_callback")?;
        let handle = Owned::from(handle);
        inside.with(|state| state.ready.push_back(Ready::Foreign(handle)));
        Ok(())
    }

    /// Wake the loop. May be called from any thread and from signal handlers.
    fn _write_to_self(&self, py: Python<'_>) {
        if self.inbox.notify() {
            self.wake(py);
        }
    }

    /// Watch the read end of the pipe that C signal handlers write to. The loop
    /// owns the descriptor from now on, and closes it if this raises.
    fn _watch_signals(slf: &Bound<'_, Self>, fd: i32) -> PyResult<()> {
        io::watch_signals(slf, fd)
    }

    /// Serve connections that wait on a listening socket; see
    /// `TokioLoop._start_serving`.
    #[pyo3(signature = (sock, fd, protocol_factory, handshake, server, backlog))]
    fn _listen(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        fd: i32,
        protocol_factory: &Bound<'_, PyAny>,
        handshake: Option<&Bound<'_, PyAny>>,
        server: &Bound<'_, PyAny>,
        backlog: usize,
    ) -> PyResult<()> {
        let factories = (protocol_factory, handshake);
        crate::transports::accept::listen(slf, sock, fd, factories, server, backlog)
    }

    /// Stop serving a descriptor; returns whether it was served.
    fn _unlisten(slf: &Bound<'_, Self>, fd: i32) -> PyResult<bool> {
        crate::transports::accept::unlisten(slf, fd)
    }

    /// Make a transport of a connected socket, whose descriptor it takes over.
    /// With `keep` the socket object stays usable and keeps the descriptor; the
    /// transport closes it.
    #[pyo3(signature = (sock, protocol, waiter, extra, server, keep))]
    fn _stream_transport(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        waiter: Option<&Bound<'_, PyAny>>,
        extra: Option<&Bound<'_, PyDict>>,
        server: Option<&Bound<'_, PyAny>>,
        keep: bool,
    ) -> PyResult<Py<PyAny>> {
        crate::transports::stream::adopt_socket(slf, sock, protocol, waiter, extra, server, keep)
    }

    /// Let a listener accept again that had run out of descriptors or memory.
    fn _resume_listener(slf: &Bound<'_, Self>, token: usize) -> PyResult<()> {
        crate::transports::accept::resume(slf, token)
    }

    /// How many callbacks and events are due.
    fn _ready_count(slf: &Bound<'_, Self>) -> PyResult<usize> {
        let inside = slf.get().enter(slf.py(), "_ready")?;
        Ok(inside.with(|state| state.ready.len() + state.backlog.len()))
    }

    /// The handles that are due.
    fn _ready_handles(slf: &Bound<'_, Self>) -> PyResult<Vec<Py<PyAny>>> {
        census::ready_handles(slf)
    }

    /// The reader's and the writer's handle of a watched descriptor.
    fn _watched(slf: &Bound<'_, Self>, fd: i32) -> PyResult<WatchHandles> {
        let py = slf.py();
        let inside = slf.get().enter(py, "_selector")?;
        let (reader, writer) = inside.with(|state| io::watched(py, state, fd));
        let object =
            |handle: Option<HandleRef>| handle.map(|handle| handle.object().as_py().clone_ref(py));
        Ok((object(reader), object(writer)))
    }

    /// Every descriptor that `add_reader` or `add_writer` watches.
    fn _watched_descriptors(slf: &Bound<'_, Self>) -> PyResult<Vec<i32>> {
        census::watched_descriptors(slf)
    }

    /// The handles of all timers, in no particular order.
    fn _timer_handles(slf: &Bound<'_, Self>) -> PyResult<Vec<Py<PyAny>>> {
        census::timer_handles(slf)
    }

    /// Every open transport.
    fn _open_transports(slf: &Bound<'_, Self>) -> PyResult<Vec<Py<PyAny>>> {
        census::open_transports(slf)
    }

    /// Drop every waiting callback. Events stay: the poll reports each only once,
    /// so their sources would never be served again.
    fn _clear_ready(slf: &Bound<'_, Self>) -> PyResult<()> {
        census::clear_ready(slf)
    }

    /// Drop every timer; none of them counts as cancelled.
    fn _clear_timers(slf: &Bound<'_, Self>) -> PyResult<()> {
        census::clear_timers(slf)
    }

    /// Release everything that the loop holds; part of `close`.
    fn _shutdown(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        let inside = this.enter(slf.py(), "close")?;
        this.closed.store(true, Ordering::SeqCst);
        this.clear(slf.py(), inside);
        log::debug!("loop closed");
        logging::deliver(slf.py())
    }

    /// In a forked child: give up the loop, which belongs to the parent. Its poll
    /// must not be touched. An epoll is shared by both processes. A kqueue is not
    /// inherited: its descriptor number and the waker's are free in the child, so
    /// the poller must not close them when they belong to another file.
    fn _disown(&self) {
        if self.cell.is_mine() {
            // A callback has forked: what is queued after it, the parent runs and sends.
            if let Ok(inside) = self.cell.try_enter() {
                std::mem::forget(inside.with(LoopState::leave_turn));
            }
        }
        self.cell.disown();
        // SAFETY: a forked child has one thread, and no body of `with` forks.
        #[cfg(not(target_os = "linux"))]
        #[allow(unsafe_code)]
        std::mem::forget(unsafe { self.cell.with_remains(|state| state.poller.take()) });
    }

    #[getter(_stopping)]
    fn stopping_value(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    #[setter(_stopping)]
    fn set_stopping_value(&self, value: bool) {
        if value || !self.is_run_elsewhere() {
            self.stopping.store(value, Ordering::Relaxed);
        }
    }

    #[getter(_closed)]
    fn closed_value(&self) -> bool {
        self.closed()
    }

    #[setter(_closed)]
    fn set_closed_value(&self, value: bool) {
        self.closed.store(value, Ordering::Relaxed);
    }

    #[getter(_debug)]
    fn debug_value(&self) -> bool {
        self.debug()
    }

    #[setter(_debug)]
    fn set_debug_value(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.observer.set_debug(value.is_truthy()?);
        Ok(())
    }

    #[getter(_thread_id)]
    fn thread_id_value(&self) -> Option<u64> {
        Some(self.thread_ident.load(Ordering::Relaxed)).filter(|&ident| ident != 0)
    }

    #[setter(_thread_id)]
    fn set_thread_id_value(&self, value: Option<u64>) -> PyResult<()> {
        let ident = value.unwrap_or(0);
        if ident == 0 {
            // A run in another thread must not be marked as ended, which CPython up to
            // 3.11 does after a refused start.
            if self.is_run_elsewhere() {
                return Ok(());
            }
            self.thread_ident.store(0, Ordering::Relaxed);
            return Ok(());
        }
        // CPython has checked before, but two threads may have checked at once.
        let (strong, weak) = (Ordering::AcqRel, Ordering::Relaxed);
        match self.thread_ident.compare_exchange(0, ident, strong, weak) {
            Err(runner) if runner != ident => Err(errors::already_running()),
            _ => Ok(()),
        }
    }

    #[getter(_task_factory)]
    fn task_factory_value(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        let py = slf.py();
        let inside = slf.get().enter(py, "get_task_factory")?;
        let factory =
            inside.with(|state| state.task_factory.as_ref().map(|factory| factory.clone_ref(py)));
        Ok(factory.map(|factory| factory.as_py().clone_ref(py)))
    }

    #[setter(_task_factory)]
    fn set_task_factory_value(
        slf: &Bound<'_, Self>,
        value: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let inside = slf.get().enter(slf.py(), "set_task_factory")?;
        let value = value.map(Owned::from);
        let old = inside.with(|state| std::mem::replace(&mut state.task_factory, value));
        drop(inside);
        drop(old);
        Ok(())
    }

    #[getter(_custom_clock)]
    fn custom_clock_value(&self) -> bool {
        self.custom_clock()
    }

    #[getter(_custom_timers)]
    fn custom_timers_value(&self) -> bool {
        self.custom_timers.load(Ordering::Relaxed)
    }

    #[getter(_custom_futures)]
    fn custom_futures_value(&self) -> bool {
        self.custom_futures()
    }

    #[setter(_custom_futures)]
    fn set_custom_futures_value(&self, value: bool) {
        self.custom_futures.store(value, Ordering::Relaxed);
    }

    #[setter(_custom_clock)]
    fn set_custom_clock_value(&self, value: bool) {
        self.custom_clock.store(value, Ordering::Relaxed);
    }

    #[setter(_custom_timers)]
    fn set_custom_timers_value(&self, value: bool) {
        self.custom_timers.store(value, Ordering::Relaxed);
    }

    #[getter(_whole_runs)]
    fn whole_runs_value(&self) -> bool {
        self.whole_runs.load(Ordering::Relaxed)
    }

    #[setter(_whole_runs)]
    fn set_whole_runs_value(&self, value: bool) {
        self.whole_runs.store(value, Ordering::Relaxed);
    }

    #[setter(_transport_class)]
    fn set_transport_class_value(slf: &Bound<'_, Self>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        crate::transports::check_class(value)?;
        let inside = slf.get().enter(slf.py(), "_transport_class")?;
        let value = Owned::from(value);
        let old = inside.with(|state| state.transport_class.replace(value));
        drop(inside);
        drop(old);
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // SAFETY: this is `tp_traverse`, which changes nothing; `loop_cell` explains why
        // no thread is inside `with` meanwhile.
        #[allow(unsafe_code)]
        let state = unsafe { self.cell.peek() };
        for entry in &state.ready {
            match entry {
                Ready::Handle(handle) => visit.call(handle.object().as_py())?,
                Ready::Foreign(handle) => visit.call(handle.as_py())?,
                Ready::Io(..) => {}
            }
        }
        for handle in state.timers.iter() {
            visit.call(handle.object().as_py())?;
        }
        for source in state.sources.iter() {
            source.traverse(&visit)?;
        }
        for transport in &state.corked {
            visit.call(transport.object().as_py())?;
        }
        for object in [&state.task_factory, &state.transport_class].into_iter().flatten() {
            visit.call(object.as_py())?;
        }
        // SAFETY: the collector runs attached.
        #[allow(unsafe_code)]
        let py = unsafe { Python::assume_attached() };
        self.shared_handles.traverse(py, &visit)
    }

    fn __clear__(&self) {
        // SAFETY: the collector runs attached.
        #[allow(unsafe_code)]
        let py = unsafe { Python::assume_attached() };
        if let Ok(inside) = self.cell.enter(py) {
            self.clear(py, inside);
        }
        // A forked child cannot enter its parent's loop.
        drop(self.shared_handles.drain(py));
    }
}

// CPython's memory is aligned to words at least.
const _: () = assert!(align_of::<EventLoop>() <= align_of::<usize>());
