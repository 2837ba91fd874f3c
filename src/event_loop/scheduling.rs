//! `call_soon` and the other scheduling methods, `create_future` and `get_debug`.

use std::sync::atomic::Ordering;

use pyo3::exceptions::{PyAssertionError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat};
use tokioloop_reactor::clock;

use crate::errors;
use crate::event_loop::arguments::{Call, check, first, parse};
use crate::event_loop::messages::Message;
use crate::event_loop::native::This;
use crate::event_loop::{EventLoop, Inside, futures};
use crate::handle::{Callback, HandleRef, Kind, Memory};
use crate::imports::Imports;
use crate::loop_cell::Refused;
use crate::py::args::as_tuple;
use crate::py::{Args, Live, Owned, context};
use crate::ready::Ready;

// The steps that these methods share are `inline(always)`: as function calls they
// would return results through memory, which costs call_soon() 160 instructions.

// HOT: call_soon
pub(crate) fn call_soon<'py>(
    py: Python<'py>,
    this: This<'_>,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    let call = parse(py, "call_soon", args, &[])?;
    check(py, this, &call)?;
    let handle = match this.event_loop.cell.try_enter() {
        Ok(inside) => {
            let handle = make(py, this, Some(&inside), Kind::Plain, call)?;
            this.event_loop.queue(py, &inside, handle.clone_ref(py));
            handle
        }
        Err(refused) => call_from_outside(py, this, refused, call)?,
    };
    Ok(handle.into_object())
}

pub(crate) fn call_soon_threadsafe<'py>(
    py: Python<'py>,
    this: This<'_>,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    let call = parse(py, "call_soon_threadsafe", args, &[])?;
    if this.event_loop.closed() {
        return Err(errors::closed());
    }
    if this.event_loop.debug() {
        this.bind(py).call_method1("_check_callback", (call.callable.bind(py), call.name))?;
    }
    let inside = match this.event_loop.cell.try_enter() {
        // This thread runs the loop, or no thread does. Then the ready queue is better
        // than the inbox, because the collector sees it.
        Ok(inside) => Some(inside),
        Err(Refused::OtherThread) => None,
        Err(refused @ Refused::Forked) => return Err(errors::refused(refused, call.name)),
    };
    let context = match call.context {
        Some(context) => Some(context),
        None => context::copy_unless_empty(py)?,
    };
    let memory = this.event_loop.shared_handles.take(py);
    let callback = Callback { callable: call.callable, args: call.args, context };
    let handle = finish(py, this, HandleRef::new(py, memory, this.live(), callback)?)?;
    match inside {
        Some(inside) => {
            inside.with(|state| state.untracked = true);
            this.event_loop.queue(py, &inside, handle.clone_ref(py));
        }
        None => {
            this.event_loop.send(py, Message::Call(handle.share(py)));
            this.event_loop.let_catch_up(py);
        }
    }
    Ok(handle.into_object())
}

/// `call_soon` from another thread than the loop's. asyncio allows it outside of
/// debug mode; here the call goes through the inbox.
#[cold]
fn call_from_outside(
    py: Python<'_>,
    this: This<'_>,
    refused: Refused,
    call: Call<'_>,
) -> PyResult<HandleRef> {
    if refused == Refused::Forked {
        return Err(errors::refused(refused, call.name));
    }
    let handle = make(py, this, None, Kind::Plain, call)?;
    this.event_loop.send(py, Message::Call(handle.clone_ref(py)));
    Ok(handle)
}

// HOT: call_later
pub(crate) fn call_later<'py>(
    py: Python<'py>,
    this: This<'_>,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    let call = parse(py, "call_later", args, &["delay"])?;
    let delay = first(&args, "delay")?;
    let now = this.now(py)?;
    if this.event_loop.custom_timers() {
        return call_custom_at(py, this, now, &delay, &call);
    }
    let (when, given) = match delay.cast_exact::<PyFloat>() {
        Ok(delay) => (now + delay.value(), None),
        Err(_) => add_delay(py, now, &delay)?,
    };
    at(py, this, when, given, call)
}

/// Adds a delay that is not exactly a float, as Python would.
#[cold]
fn add_delay(py: Python<'_>, now: f64, delay: &Bound<'_, PyAny>) -> PyResult<(f64, Option<Owned>)> {
    let when = sum(py, now, delay)?;
    Ok((when.extract()?, Some(when.into())))
}

fn sum<'py>(py: Python<'py>, now: f64, delay: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if delay.is_none() && cfg!(Py_3_11) {
        return Err(PyTypeError::new_err("delay must not be None"));
    }
    PyFloat::new(py, now).add(delay)
}

/// `call_later` as in asyncio, by way of a `call_at` that was overridden.
#[cold]
fn call_custom_at<'py>(
    py: Python<'py>,
    this: This<'_>,
    now: f64,
    delay: &Bound<'py, PyAny>,
    call: &Call<'_>,
) -> PyResult<Owned> {
    let when = sum(py, now, delay)?;
    let values = std::iter::once(&call.callable).chain(call.args);
    let values = values.map(|value| value.bind(py).to_owned());
    let args = as_tuple(py, std::iter::once(when).chain(values))?;
    let keywords = PyDict::new(py);
    keywords.set_item("context", call.context.as_ref().map(|context| context.bind(py)))?;
    Ok(this.bind(py).call_method(intern!(py, "call_at"), args, Some(&keywords))?.into())
}

pub(crate) fn call_at<'py>(
    py: Python<'py>,
    this: This<'_>,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    let call = parse(py, "call_at", args, &["when"])?;
    let when = first(&args, "when")?;
    if when.is_none() {
        return Err(if cfg!(Py_3_11) {
            PyTypeError::new_err("when cannot be None")
        } else {
            PyAssertionError::new_err(())
        });
    }
    at(py, this, when.extract()?, Some(Owned::from(&*when)), call)
}

fn at(
    py: Python<'_>,
    this: This<'_>,
    when: f64,
    given: Option<Owned>,
    call: Call<'_>,
) -> PyResult<Owned> {
    check(py, this, &call)?;
    let handle = match this.event_loop.cell.try_enter() {
        Ok(inside) => {
            let handle = make(py, this, Some(&inside), Kind::Timer, call)?;
            handle.get().set_when(when, given);
            schedule(py, &inside, &handle, when);
            handle
        }
        Err(Refused::Forked) => return Err(errors::refused(Refused::Forked, call.name)),
        Err(Refused::OtherThread) => {
            let handle = make(py, this, None, Kind::Timer, call)?;
            handle.get().set_when(when, given);
            this.event_loop.send(py, Message::Timer(handle.clone_ref(py)));
            handle
        }
    };
    Ok(handle.into_object())
}

/// Arms a timer. A time that the clock never reaches is accepted, as in asyncio: such
/// a timer can be cancelled, and never fires.
#[inline]
pub(crate) fn schedule(py: Python<'_>, inside: &Inside<'_>, handle: &HandleRef, when: f64) {
    let deadline = clock::deadline(when).unwrap_or(u64::MAX);
    let held = handle.clone_ref(py);
    let key = inside.with(|state| state.timers.insert(deadline, held));
    handle.get().set_timer(Some(key));
    log::trace!("timer armed for {when:.6}");
}

pub(crate) fn time<'py>(py: Python<'py>, _: This<'_>, args: Args<'_, 'py>) -> PyResult<Owned> {
    args.none("time")?;
    Owned::float(py, clock::to_seconds(clock::now()))
}

// HOT: future
pub(crate) fn create_future<'py>(
    py: Python<'py>,
    this: This<'_>,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("create_future")?;
    futures::make(py, this)
}

// HOT: future
pub(crate) fn get_debug<'py>(
    py: Python<'py>,
    this: This<'_>,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("get_debug")?;
    Ok(Owned::bool(py, this.event_loop.debug()))
}

impl This<'_> {
    /// Whether the calling thread runs this loop.
    #[inline]
    pub(super) fn is_current(&self) -> bool {
        self.event_loop.is_current()
    }

    /// The time that timers count from.
    #[inline]
    pub(crate) fn now(&self, py: Python<'_>) -> PyResult<f64> {
        if self.event_loop.custom_clock() {
            return self.bind(py).call_method0(intern!(py, "time"))?.extract();
        }
        Ok(clock::to_seconds(clock::now()))
    }
}

impl EventLoop {
    #[inline]
    fn custom_timers(&self) -> bool {
        self.custom_timers.load(Ordering::Relaxed)
    }

    /// Queues a handle on the loop's own thread, after the messages that other
    /// threads have sent before.
    // HOT: call_soon
    #[inline]
    pub(crate) fn queue(&self, py: Python<'_>, inside: &Inside<'_>, handle: HandleRef) {
        if self.inbox.has_pending() {
            return self.queue_behind_messages(py, inside, handle);
        }
        inside.with(|state| state.ready.push_back(Ready::Handle(handle)));
    }

    #[cold]
    fn queue_behind_messages(&self, py: Python<'_>, inside: &Inside<'_>, handle: HandleRef) {
        if self.cell.is_running() {
            // The loop's thread is this one and does not sleep, so there is no wake-up.
            let _ = self.inbox.push(py, Message::Call(handle));
        } else {
            let cancelled = self.take_messages(py, inside);
            inside.with(|state| state.ready.push_back(Ready::Handle(handle)));
            drop(cancelled);
        }
    }

    /// Schedules a call for the binding itself.
    pub(crate) fn call_soon(
        py: Python<'_>,
        this: This<'_>,
        callable: &Owned,
        args: &[Live<'_>],
    ) -> PyResult<()> {
        if this.event_loop.closed() {
            return Err(errors::closed());
        }
        let inside = this.event_loop.enter(py, "call_soon")?;
        let call = Call { name: "call_soon", callable: callable.live(), args, context: None };
        let handle = make(py, this, Some(&inside), Kind::Plain, call)?;
        this.event_loop.queue(py, &inside, handle);
        Ok(())
    }
}

/// Makes a handle; during a run the collector is not told of it.
// HOT: call_soon
#[inline(always)]
pub(crate) fn make_handle(
    py: Python<'_>,
    this: This<'_>,
    inside: Option<&Inside<'_>>,
    kind: Kind,
    callback: Callback<'_>,
) -> PyResult<HandleRef> {
    let handle = match inside {
        Some(inside) => {
            let memory = inside.with(|state| {
                state.untracked = true;
                state.handles.take(kind)
            });
            HandleRef::new(py, memory, this.live(), callback)?
        }
        None => HandleRef::new(py, Memory::New(kind), this.live(), callback)?,
    };
    finish(py, this, handle)
}

/// Completes a new handle: tells the collector of it unless the loop runs, and in debug
/// mode notes where it was made.
#[inline(always)]
fn finish(py: Python<'_>, this: This<'_>, handle: HandleRef) -> PyResult<HandleRef> {
    if !this.event_loop.cell.is_running() {
        handle.get().track();
    }
    if this.event_loop.debug() {
        add_source_traceback(py, &handle)?;
    }
    Ok(handle)
}

#[inline(always)]
fn make(
    py: Python<'_>,
    this: This<'_>,
    inside: Option<&Inside<'_>>,
    kind: Kind,
    call: Call<'_>,
) -> PyResult<HandleRef> {
    let context = match call.context {
        Some(context) => context,
        None => context::copy_current(py)?,
    };
    make_handle(
        py,
        this,
        inside,
        kind,
        Callback { callable: call.callable, args: call.args, context: Some(context) },
    )
}

/// Debug mode remembers where a call was scheduled.
#[cold]
fn add_source_traceback(py: Python<'_>, handle: &HandleRef) -> PyResult<()> {
    let imports = Imports::get(py)?;
    // Without a Python frame (a callback scheduled natively) there is no source.
    if let Ok(frame) = imports.get_frame.bind(py).call1((0,)) {
        let stack = imports.extract_stack.bind(py).call1((frame,))?;
        handle.get().set_source_traceback(py, stack.into());
    }
    Ok(())
}
