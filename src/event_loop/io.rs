//! `add_reader` and `add_writer`: level-triggered watches of a descriptor.

use std::os::fd::{AsFd, RawFd};

use pyo3::exceptions::{PyOverflowError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyInt;
use tokioloop_reactor::{Interest, Readiness, Token, sys};

use crate::errors;
use crate::event_loop::native::This;
use crate::event_loop::state::Watch;
use crate::event_loop::{EventLoop, Inside, LoopState, Source, scheduling};
use crate::handle::{Callback, HandleRef, Kind};
use crate::imports::Imports;
use crate::py::args::missing_arguments;
use crate::py::{Args, Owned, context};
use crate::ready::Ready;
use crate::sockets;
use crate::transports::claim;

/// Which of a descriptor's two callbacks.
#[derive(Clone, Copy)]
pub(crate) enum Direction {
    Read,
    Write,
}

impl Direction {
    fn of(self, watch: &mut Watch) -> &mut Option<HandleRef> {
        match self {
            Self::Read => &mut watch.reader,
            Self::Write => &mut watch.writer,
        }
    }
}

pub(crate) fn add_reader<'py>(
    py: Python<'py>,
    this: This<'_>,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    add(py, this, args, Direction::Read, "_add_reader")
}

pub(crate) fn add_writer<'py>(
    py: Python<'py>,
    this: This<'_>,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    add(py, this, args, Direction::Write, "_add_writer")
}

fn add<'py>(
    py: Python<'py>,
    this: This<'_>,
    args: Args<'_, 'py>,
    direction: Direction,
    name: &str,
) -> PyResult<Owned> {
    if this.event_loop.closed() {
        return Err(errors::closed());
    }
    if args.has_keywords() {
        return Err(PyTypeError::new_err(format!("{name}() takes no keyword arguments")));
    }
    let [_, callable, rest @ ..] = args.positional() else {
        return Err(missing_arguments(name, &["'callback'".to_owned()]));
    };
    let (callable, rest) = (*callable, rest);
    let Some(given) = args.get(0) else { return Ok(Owned::none(py)) };
    let fd = watched_descriptor(this.event_loop, &given, name)?;
    let file = (!given.is_instance_of::<PyInt>()).then(|| Owned::from(&*given));
    let inside = this.event_loop.enter(py, name)?;
    let context = Some(context::copy_current(py)?);
    let callback = Callback { callable, args: rest, context };
    let handle = scheduling::make_handle(py, this, Some(&inside), Kind::Plain, callback)?;
    // The handle is kept past each of its calls, so the collector must know it.
    handle.get().track();
    let held = handle.clone_ref(py);
    let mut displaced = sockets::Waiting::default();
    let (result, old, dropped) = inside.with(|state| {
        let way = sockets::make_way(state, fd);
        let known = way.is_some();
        displaced = way.unwrap_or_default();
        watch(py, &inside, state, Wanted { fd, file, direction, handle: held }, known)
    });
    // Other threads may enter while these are dropped.
    drop(inside);
    drop(dropped);
    drop(displaced.forget(matches!(direction, Direction::Read)));
    sockets::wake(py, displaced)?;
    result.map_err(|refused| refused.into_error(&given))?;
    if let Some(old) = old {
        old.get().cancel(py)?;
    }
    Ok(handle.into_object())
}

/// What [`watch`] takes out of the state, to be dropped outside of it: a watch that
/// has failed, and the file that it had or was to have.
type Dropped = (Option<Source>, Option<Owned>);

/// Why a descriptor is not watched.
enum Refused {
    Io(std::io::Error),
    /// A closed transport uses it, which still sends what was written before.
    Transport(Owned),
}

impl Refused {
    #[cold]
    fn into_error(self, file: &Bound<'_, PyAny>) -> PyErr {
        match self {
            Self::Io(error) => errors::os_error(file.py(), &error),
            Self::Transport(transport) => used_by(file, &transport.bind(file.py())),
        }
    }
}

/// A callback to be registered for a descriptor.
struct Wanted {
    fd: RawFd,
    file: Option<Owned>,
    direction: Direction,
    handle: HandleRef,
}

/// Registers a callback for a descriptor; `registered` says that the poll has a
/// registration of it already. Besides the result this returns the callback that was
/// displaced or refused, and what is to be dropped.
fn watch(
    py: Python<'_>,
    inside: &Inside<'_>,
    state: &mut LoopState,
    wanted: Wanted,
    registered: bool,
) -> (Result<(), Refused>, Option<HandleRef>, Dropped) {
    let Wanted { fd, file, direction, handle } = wanted;
    let known = match state.fds.get(fd).map(|token| (token, state.sources.get(token))) {
        Some((token, Some(Source::Watch(_)))) => Some(token),
        Some((_, Some(source))) => match claim::sender(py, inside, source, fd) {
            // A descriptor has one registration, and the transport needs it.
            Some(transport) => {
                return (Err(Refused::Transport(transport)), Some(handle), (None, file));
            }
            None => None,
        },
        _ => None,
    };
    let token = known.unwrap_or_else(|| state.sources.insert(Source::Watch(Box::default())));
    let Some(Source::Watch(watch)) = state.sources.get_mut(token) else {
        return (Ok(()), None, (None, file));
    };
    let old = direction.of(watch).replace(handle);
    // A number does not replace a file object: it may be that file's number.
    let file = file.and_then(|file| watch.file.replace(file));
    let interest = watch.interest();
    state.registered = true;
    let result = match &state.poller {
        Some(poller) => poller.watch(fd, token, interest, registered || known.is_some()),
        None => Ok(()),
    };
    match result {
        Ok(()) => {
            state.fds.set(fd, token);
            (Ok(()), old, (None, file))
        }
        Err(error) => {
            // As in asyncio, nothing is watched then: a registration that cannot be
            // changed is gone from the kernel.
            state.fds.forget(fd, token);
            (Err(Refused::Io(error)), old, (state.sources.remove(token), file))
        }
    }
}

/// Removes a callback from a descriptor; false if there was none.
pub(crate) fn unwatch(
    event_loop: &Bound<'_, EventLoop>,
    fd: &Bound<'_, PyAny>,
    direction: Direction,
) -> PyResult<bool> {
    let py = event_loop.py();
    if event_loop.get().closed() {
        return Ok(false);
    }
    let name = match direction {
        Direction::Read => "remove_reader",
        Direction::Write => "remove_writer",
    };
    let fd = match watched_descriptor(event_loop.get(), fd, name) {
        // A number that no descriptor can have is watched by nobody.
        Err(error) if error.is_instance_of::<PyOverflowError>(py) => return Ok(false),
        fd => fd?,
    };
    let inside = event_loop.get().enter(py, name)?;
    let reading = matches!(direction, Direction::Read);
    // A `sock_*` call that waits on the descriptor goes on undisturbed; in asyncio it
    // would now wait for ever.
    let waits = inside.with(|state| sockets::waits(state, fd, reading));
    let (handle, source) = inside.with(|state| take(state, fd, direction));
    // Other threads may enter while these are dropped.
    drop(inside);
    let found = waits || handle.is_some();
    if let Some(handle) = handle {
        handle.get().cancel(py)?;
    }
    drop(source);
    Ok(found)
}

fn take(
    state: &mut LoopState,
    fd: RawFd,
    direction: Direction,
) -> (Option<HandleRef>, Option<Source>) {
    let Some(token) = state.fds.get(fd) else { return (None, None) };
    let Some(Source::Watch(watch)) = state.sources.get_mut(token) else { return (None, None) };
    let was = watch.interest();
    let handle = direction.of(watch).take();
    let interest = watch.interest();
    // A descriptor that was closed behind our back has left the kernel's set by itself,
    // unless a duplicate keeps its file open: an error here tells nothing new.
    if interest.is_empty() {
        if let Some(poller) = &state.poller {
            let _ = poller.unwatch(fd, was);
        }
        state.fds.forget(fd, token);
        return (handle, state.sources.remove(token));
    }
    if let Some(poller) = state.poller.as_ref().filter(|_| interest != was) {
        let _ = poller.watch(fd, token, interest, true);
    }
    (handle, None)
}

/// Queues the callbacks of a watch that is ready.
#[inline]
pub(crate) fn queue_watch(py: Python<'_>, state: &mut LoopState, token: Token, ready: Readiness) {
    let Some(Source::Watch(watch)) = state.sources.get(token) else { return };
    let reader = watch.reader.as_ref().filter(|_| ready.readable());
    let writer = watch.writer.as_ref().filter(|_| ready.writable());
    for handle in reader.into_iter().chain(writer) {
        state.ready.push_back(if handle.get().is_cancelled() {
            Ready::Io(token, ready)
        } else {
            Ready::Handle(handle.clone_ref(py))
        });
    }
}

/// Ends those of a watch whose handle was cancelled, as asyncio does when one is ready.
#[cold]
pub(crate) fn remove_cancelled(inside: &Inside<'_>, token: Token) {
    for direction in [Direction::Read, Direction::Write] {
        let removed = inside.with(|state| {
            let Some(Source::Watch(watch)) = state.sources.get_mut(token) else { return None };
            direction.of(watch).as_ref().filter(|handle| handle.get().is_cancelled())?;
            let (fd, _) = state.fds.iter().find(|(_, found)| *found == token)?;
            Some(take(state, fd, direction))
        });
        // Dropping what it refers to may run any code.
        drop(removed);
    }
}

/// The callbacks of a watched descriptor.
pub(crate) fn watched(
    py: Python<'_>,
    state: &LoopState,
    fd: RawFd,
) -> (Option<HandleRef>, Option<HandleRef>) {
    match state.fds.get(fd).and_then(|token| state.sources.get(token)) {
        Some(Source::Watch(watch)) => {
            let copy = |handle: &Option<HandleRef>| handle.as_ref().map(|h| h.clone_ref(py));
            (copy(&watch.reader), copy(&watch.writer))
        }
        _ => (None, None),
    }
}

/// Refuses a descriptor that a transport reads and writes.
pub(crate) fn ensure_no_transport(
    event_loop: &Bound<'_, EventLoop>,
    fd: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = event_loop.py();
    let number = match fd.extract::<RawFd>() {
        Ok(number) => number,
        // A number that no descriptor can have is nobody's.
        Err(error) if error.is_instance_of::<PyOverflowError>(py) => return Ok(()),
        Err(_) => match descriptor(fd) {
            Ok(number) => number,
            // It was closed, so no transport has its number.
            Err(_)
                if fd.call_method0("fileno").is_ok_and(|number| number.lt(0).unwrap_or(false)) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        },
    };
    // In another thread, the call that makes this check is refused later, under its
    // own name.
    let Ok(inside) = event_loop.get().cell.enter(py) else { return Ok(()) };
    let transport = inside.with(|state| {
        let source = state.fds.get(number).and_then(|token| state.sources.get(token))?;
        source.transport().map(|transport| transport.clone_ref(py))
    });
    let Some(transport) = transport else { return Ok(()) };
    let transport = &transport.bind(py);
    if transport.call_method0("is_closing")?.is_truthy()? {
        return Ok(());
    }
    Err(used_by(fd, transport))
}

#[cold]
fn used_by(fd: &Bound<'_, PyAny>, transport: &Bound<'_, PyAny>) -> PyErr {
    match (fd.repr(), transport.repr()) {
        (Ok(fd), Ok(transport)) => PyRuntimeError::new_err(format!(
            "File descriptor {fd} is used by transport {transport}"
        )),
        (Err(error), _) | (_, Err(error)) => error,
    }
}

/// As [`descriptor`], but also finds a file that was closed while it was watched: by
/// its identity, as asyncio's selector does.
fn watched_descriptor(
    event_loop: &EventLoop,
    fd: &Bound<'_, PyAny>,
    name: &str,
) -> PyResult<RawFd> {
    let py = fd.py();
    descriptor(fd).or_else(|error| {
        if !error.is_instance_of::<PyValueError>(py) {
            return Err(error);
        }
        let inside = event_loop.enter(py, name)?;
        let found = inside.with(|state| {
            let mut numbers = state.fds.iter();
            numbers.find(|(_, token)| match state.sources.get(*token) {
                Some(Source::Watch(watch)) => {
                    watch.file.as_ref().is_some_and(|file| file.as_ptr() == fd.as_ptr())
                }
                _ => false,
            })
        });
        found.map(|(number, _)| number).ok_or(error)
    })
}

/// The number of a descriptor or of an object with `fileno()`.
///
/// # Errors
/// ValueError for what is neither, in the words of `selectors`.
pub(crate) fn descriptor(fd: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    // HOT: raw
    if let Ok(number) = fd.cast_exact::<PyInt>().map_err(PyErr::from).and_then(|fd| fd.extract()) {
        if number >= 0 {
            return Ok(number);
        }
    }
    let number = Imports::get(fd.py())?.file_descriptor.bind(fd.py()).call1((fd,))?;
    number.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(fd.py()) {
            // In the words of asyncio's selector.
            return PyOverflowError::new_err("Python int too large to convert to C int");
        }
        error
    })
}

/// Takes over the pipe that C signal handlers write to.
#[allow(unsafe_code)]
pub(crate) fn watch_signals(event_loop: &Bound<'_, EventLoop>, fd: RawFd) -> PyResult<()> {
    let py = event_loop.py();
    // SAFETY: the caller has detached the descriptor from its Python object.
    let pipe = unsafe { sys::adopt(fd) };
    let inside = event_loop.get().enter(py, "_watch_signals")?;
    let result = inside.with(|state| {
        let token = state.sources.insert(Source::Signals(pipe));
        state.signal_token = Some(token);
        match &state.poller {
            Some(poller) => poller.register(fd, token, Interest::READABLE),
            None => Ok(()),
        }
    });
    result.map_err(|error| errors::os_error(py, &error))
}

/// Reads the numbers of the signals that have arrived.
pub(crate) fn drain_signals(inside: &Inside<'_>) {
    inside.with(|state| {
        let Some(token) = state.signal_token else { return };
        if let Some(Source::Signals(pipe)) = state.sources.get(token) {
            state.signals.extend(sys::read_all(pipe.as_fd()));
        }
    });
}
