//! `call_soon` and its kin, `create_future` and `create_task`.

use std::sync::atomic::Ordering;

use pyo3::exceptions::{PyAssertionError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat};
use pyo3::{Borrowed, ffi};
use tokioloop_reactor::clock;

use crate::errors;
use crate::event_loop::messages::Message;
use crate::event_loop::native::This;
use crate::event_loop::{EventLoop, Inside, futures};
use crate::handle::{Callback, HandleRef, Kind, Memory};
use crate::imports::Imports;
use crate::loop_cell::Refused;
use crate::py::args::{as_tuple, missing_arguments};
use crate::py::{Args, Owned, call, context};
use crate::ready::Ready;

// The steps that these methods share are `inline(always)`: called as functions they
// hand their results over in memory, which is 160 instructions of call_soon().

/// How a scheduling method was called.
struct Call<'a> {
    name: &'static str,
    callable: *mut ffi::PyObject,
    args: &'a [*mut ffi::PyObject],
    context: Option<Owned>,
}

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
        this.bind(py).call_method1("_check_callback", (as_any(py, &call), call.name))?;
    }
    let inside = match this.event_loop.cell.try_enter() {
        // This thread runs the loop, or none does: then the call is better off
        // in the queue, which the collector can see.
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
    let handle = finish(py, this, HandleRef::new(py, memory, this.as_ptr(), callback)?)?;
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

/// `call_soon` from a thread that the loop does not run in. asyncio allows it
/// outside of debug mode; the inbox carries it over.
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
    let delay = first(py, &args, "delay")?;
    let now = this.now(py)?;
    if this.event_loop.custom_timers() {
        return call_custom_at(py, this, now, &delay, &call);
    }
    // SAFETY of the fast path: none needed, `cast_exact` checks the type.
    let (when, given) = match delay.cast_exact::<PyFloat>() {
        Ok(delay) => (now + delay.value(), None),
        Err(_) => add_delay(py, now, &delay)?,
    };
    at(py, this, when, given, call)
}

/// A delay that is no float is added as Python adds it.
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

/// `call_later` as asyncio has it, for a `call_at` that is not the class's own.
#[cold]
fn call_custom_at<'py>(
    py: Python<'py>,
    this: This<'_>,
    now: f64,
    delay: &Bound<'py, PyAny>,
    call: &Call<'_>,
) -> PyResult<Owned> {
    let when = sum(py, now, delay)?;
    // SAFETY: arguments of the call under way.
    #[allow(unsafe_code)]
    let args = call.args.iter().map(|&object| unsafe { Bound::from_borrowed_ptr(py, object) });
    let args = as_tuple(py, [when, as_any(py, call)].into_iter().chain(args))?;
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
    let when = first(py, &args, "when")?;
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

/// Hands a timer to the loop. A time that no clock reaches is kept all the
/// same, as in asyncio: it can be cancelled, and never comes.
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

// HOT: task
pub(crate) fn create_task<'py>(
    py: Python<'py>,
    this: This<'_>,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    let imports = Imports::get(py)?;
    let plain = args.positional().len() == 1 && task_keywords(&args, imports);
    if plain && this.is_current() && !this.event_loop.debug() && !this.event_loop.closed() {
        let factory = this.event_loop.cell.enter(py).map(|inside| {
            // An eager task runs its first step in the call below: nothing of
            // the loop is open by then.
            inside.with(|state| state.task_factory.is_some())
        });
        if matches!(factory, Ok(false))
            && is_stock_task(py, imports)?
            && this.is_asyncios(py, imports)?
        {
            // A task without a loop argument takes the one that asyncio says runs.
            return args.call(imports.task.bind(py));
        }
    }
    inherited_create_task(py, this, args, imports)
}

/// Whether nobody has put another class in the place of `asyncio.tasks.Task`,
/// which asyncio's method looks up for each task.
#[inline]
fn is_stock_task(py: Python<'_>, imports: &Imports) -> PyResult<bool> {
    let class = imports.tasks.bind(py).get_item(intern!(py, "Task"))?;
    Ok(class.is_some_and(|class| class.is(&imports.task)))
}

/// Whether asyncio's method would hand the keywords to the task as they are.
#[inline]
fn task_keywords(args: &Args<'_, '_>, imports: &Imports) -> bool {
    let names = [
        (true, &imports.name_name),
        (cfg!(Py_3_11), &imports.context_name),
        (cfg!(Py_3_14), &imports.eager_start_name),
    ];
    let taken = names.iter().filter(|(since, _)| *since).map(|(_, name)| name.as_ptr());
    args.keywords_among(taken)
}

#[cold]
fn inherited_create_task<'py>(
    py: Python<'py>,
    this: This<'_>,
    args: Args<'_, 'py>,
    imports: &Imports,
) -> PyResult<Owned> {
    // asyncio's code would go on to the task factory, and fail by that name.
    drop(this.event_loop.enter(py, "create_task")?);
    let keywords = PyDict::new(py);
    for (name, value) in args.keywords() {
        keywords.set_item(name, value)?;
    }
    let positional = (0..args.positional().len()).filter_map(|index| args.get(index));
    let all = std::iter::once(this.bind(py)).chain(positional).map(|value| value.to_owned());
    let all = as_tuple(py, all)?;
    Ok(imports.base_create_task.bind(py).call(all, Some(&keywords))?.into())
}

impl This<'_> {
    /// Whether the calling thread runs this loop.
    #[inline]
    fn is_current(&self) -> bool {
        self.event_loop.is_current()
    }

    /// Whether asyncio, too, says that this loop runs in this thread: not where a
    /// callback runs another one meanwhile.
    #[inline]
    fn is_asyncios(&self, py: Python<'_>, imports: &Imports) -> PyResult<bool> {
        let running = call::call0(py, &imports.running_loop)?;
        Ok(running.as_ptr() == self.as_ptr())
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

    /// Queues a handle of the loop's own thread, behind what other threads
    /// have sent before.
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
            // This thread does not sleep in the poll, so nobody is to be woken.
            let _ = self.inbox.push(py, Message::Call(handle));
        } else {
            let cancelled = self.take_messages(py, inside);
            inside.with(|state| state.ready.push_back(Ready::Handle(handle)));
            drop(cancelled);
        }
    }

    /// Schedules a call of the binding's own.
    pub(crate) fn call_soon(
        py: Python<'_>,
        this: This<'_>,
        callable: &Owned,
        args: &[*mut ffi::PyObject],
    ) -> PyResult<()> {
        if this.event_loop.closed() {
            return Err(errors::closed());
        }
        let inside = this.event_loop.enter(py, "call_soon")?;
        let call = Call { name: "call_soon", callable: callable.as_ptr(), args, context: None };
        let handle = make(py, this, Some(&inside), Kind::Plain, call)?;
        this.event_loop.queue(py, &inside, handle);
        Ok(())
    }
}

/// Makes a handle; in a run it is not shown to the collector.
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
            HandleRef::new(py, memory, this.as_ptr(), callback)?
        }
        None => HandleRef::new(py, Memory::New(kind), this.as_ptr(), callback)?,
    };
    finish(py, this, handle)
}

/// What a new handle needs besides: the collector's attention where no run stands
/// for it, and in debug mode its source.
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
        handle.get().set_source_traceback(stack.into());
    }
    Ok(())
}

// HOT: call_soon
#[inline(always)]
fn parse<'a>(
    py: Python<'_>,
    name: &'static str,
    args: Args<'a, '_>,
    before: &[&'static str],
) -> PyResult<Call<'a>> {
    let context = if args.has_keywords() {
        match args.only_keyword(Imports::get(py)?.context_name.as_ptr()) {
            // SAFETY: an argument of the call under way.
            #[allow(unsafe_code)]
            Some(context) if !is_none(context) => Some(unsafe { Owned::from_borrowed(context) }),
            Some(_) => None,
            None => return parse_keywords(py, name, args, before),
        }
    } else {
        None
    };
    match args.positional().split_at_checked(before.len()) {
        Some((_, [callable, args @ ..])) => {
            Ok(Call { name, callable: *callable, args, context: checked_context(py, context)? })
        }
        _ => Err(missing(name, args.positional().len(), before, &[])),
    }
}

/// Keywords other than just `context`: `callback=` and `delay=` by name.
#[cold]
fn parse_keywords<'a>(
    py: Python<'_>,
    name: &'static str,
    args: Args<'a, '_>,
    before: &[&'static str],
) -> PyResult<Call<'a>> {
    let mut callable = args.positional().get(before.len()).copied();
    let mut context = None;
    let mut given = Vec::new();
    for (keyword, value) in args.keywords() {
        let keyword = keyword.to_cow()?.into_owned();
        match keyword.as_str() {
            "context" => context = (!value.is_none()).then(|| Owned::from(&*value)),
            "callback" if callable.is_none() => callable = Some(value.as_ptr()),
            known if before.iter().take(1).skip(args.positional().len()).any(|b| *b == known) => {}
            known if known == "callback" || before.contains(&known) => {
                return Err(PyTypeError::new_err(format!(
                    "{name}() got multiple values for argument '{known}'"
                )));
            }
            unknown => {
                return Err(PyTypeError::new_err(format!(
                    "{name}() got an unexpected keyword argument '{unknown}'"
                )));
            }
        }
        given.push(keyword);
    }
    let missing_before = before
        .iter()
        .skip(args.positional().len())
        .any(|parameter| !given.iter().any(|keyword| keyword == parameter));
    match callable {
        Some(callable) if !missing_before => {
            let rest = args.positional().get(before.len() + 1..).unwrap_or(&[]);
            Ok(Call { name, callable, args: rest, context: checked_context(py, context)? })
        }
        _ => Err(missing(name, args.positional().len(), before, &given)),
    }
}

/// The parameter before the callback, by position or name.
#[inline]
fn first<'a, 'py>(
    py: Python<'py>,
    args: &Args<'a, 'py>,
    name: &str,
) -> PyResult<Borrowed<'a, 'py, PyAny>> {
    if args.positional().is_empty() {
        for (keyword, value) in args.keywords() {
            if keyword.to_cow()? == name {
                return Ok(value);
            }
        }
    }
    let _ = py;
    args.get(0).ok_or_else(|| missing_arguments(name, &[format!("'{name}'")]))
}

#[cold]
fn missing(name: &str, count: usize, before: &[&'static str], given: &[String]) -> PyErr {
    let missing: Vec<_> = before
        .iter()
        .chain(&["callback"])
        .skip(count)
        .filter(|parameter| !given.iter().any(|keyword| keyword == *parameter))
        .map(|parameter| format!("'{parameter}'"))
        .collect();
    missing_arguments(&format!("BaseEventLoop.{name}"), &missing)
}

/// A context of another type fails when it is entered, in asyncio; its
/// `run` method is what is looked for.
#[inline(always)]
#[allow(unsafe_code)]
fn checked_context(py: Python<'_>, context: Option<Owned>) -> PyResult<Option<Owned>> {
    if let Some(context) = &context {
        // SAFETY: a live object.
        if unsafe { ffi::PyContext_CheckExact(context.as_ptr()) } == 0 {
            let class = context.bind(py).get_type().name()?;
            return Err(PyTypeError::new_err(format!(
                "a contextvars.Context was expected, got {class}"
            )));
        }
    }
    Ok(context)
}

/// What every scheduling method checks first.
// HOT: call_soon
#[inline(always)]
fn check(py: Python<'_>, this: This<'_>, call: &Call<'_>) -> PyResult<()> {
    if this.event_loop.closed.load(Ordering::Relaxed) {
        return Err(errors::closed());
    }
    if this.event_loop.debug() {
        let this = this.bind(py);
        this.call_method0("_check_thread")?;
        // asyncio's call_later is a call_at, and its checks say so.
        let name = if call.name == "call_later" { "call_at" } else { call.name };
        this.call_method1("_check_callback", (as_any(py, call), name))?;
    }
    Ok(())
}

#[allow(unsafe_code)]
fn as_any<'py>(py: Python<'py>, call: &Call<'_>) -> Bound<'py, PyAny> {
    // SAFETY: an argument of the call under way.
    unsafe { Bound::from_borrowed_ptr(py, call.callable) }
}

#[inline]
#[allow(unsafe_code)]
fn is_none(object: *mut ffi::PyObject) -> bool {
    // SAFETY: only compares pointers.
    object == unsafe { ffi::Py_None() }
}
