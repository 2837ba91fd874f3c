//! The classes of handles, as Python sees them.
#![allow(unsafe_code)]

use std::ffi::CStr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

use crate::handle::object::{
    HANDLE_SIZE, HandleObject, Slot, THREADSAFE_HANDLE_SIZE, TIMER_HANDLE_SIZE,
};
use crate::handle::timer::{TimerObject, scheduled_value, when, when_value};
use crate::handle::{HandleRef, Kind};
use crate::py::native::{self, NativeClass, Visitor, getter, method};
use crate::py::{Args, Owned, context};

/// The class `Handle`.
#[repr(transparent)]
struct PlainHandle(HandleObject);
/// The class `TimerHandle`.
#[repr(transparent)]
struct TimerHandle(TimerObject);
/// The class of `call_soon_threadsafe` from CPython 3.14 on.
#[repr(transparent)]
struct ThreadsafeHandle(HandleObject);

macro_rules! handle_class {
    ($class:ty, $name:literal, $size:expr) => {
        // SAFETY: the memory begins with the slots of asyncio's class, whose
        // size is checked; zero is a valid value of every field.
        unsafe impl NativeClass for $class {
            const NAME: &'static CStr = $name;
            const BASE_SIZE: usize = $size;
            const WEAKLIST: Option<usize> = None;
            const DICT: Option<usize> = None;
            const SUBCLASSABLE: bool = false;

            fn traverse(&self, visitor: &mut Visitor) {
                // SAFETY: there is a handle at the beginning of all three.
                unsafe { &*(&raw const *self).cast::<HandleObject>() }.visit(visitor);
            }

            fn clear(&self) {
                // SAFETY: as above.
                unsafe { &*(&raw const *self).cast::<HandleObject>() }.clear_for_collector();
            }

            unsafe fn dealloc(this: *mut Self) {
                // SAFETY: the same memory, the same promise.
                unsafe { HandleObject::end(this.cast()) }
            }
        }
    };
}

handle_class!(PlainHandle, c"tokioloop.Handle", HANDLE_SIZE);
handle_class!(TimerHandle, c"tokioloop.TimerHandle", TIMER_HANDLE_SIZE);
handle_class!(ThreadsafeHandle, c"tokioloop._ThreadSafeHandle", THREADSAFE_HANDLE_SIZE);

fn cancel<'py>(py: Python<'py>, this: &HandleObject, args: Args<'_, 'py>) -> PyResult<Owned> {
    args.none("Handle.cancel")?;
    this.cancel(py)?;
    Ok(Owned::none(py))
}

fn cancelled<'py>(py: Python<'py>, this: &HandleObject, args: Args<'_, 'py>) -> PyResult<Owned> {
    args.none("Handle.cancelled")?;
    this.wait_until_cancelled(py)?;
    Ok(Owned::bool(py, this.is_cancelled()))
}

fn run<'py>(py: Python<'py>, this: &HandleObject, args: Args<'_, 'py>) -> PyResult<Owned> {
    args.none("Handle._run")?;
    // SAFETY: alive during its own method.
    let this = HandleRef(unsafe { Owned::from_borrowed((&raw const *this).cast_mut().cast()) });
    let result = match this.get().kind() {
        Kind::Threadsafe => this.run(py),
        _ => run_apart(py, this.get()),
    };
    if let Err(error) = result {
        // SAFETY: the handle keeps its loop alive.
        let event_loop = unsafe { Owned::from_borrowed(this.get().event_loop.get()) };
        crate::report::callback_failed(py, &event_loop, &this, error)?;
    }
    Ok(Owned::none(py))
}

/// Runs the callback while holding references of its own, because the loop and other
/// threads may run or cancel the handle at the same time.
fn run_apart(py: Python<'_>, this: &HandleObject) -> PyResult<()> {
    if this.is_cancelled() {
        return Ok(());
    }
    let context = context_value(py, this)?;
    let (callback, args) = parts(py, this)?;
    let Some(args) = args else { return Ok(()) };
    let (callback, args) = (callback.bind(py), args.bind(py));
    context::run(py, context.live(), || callback.call1(args.cast::<PyTuple>()?))??;
    Ok(())
}

fn args_value(py: Python<'_>, this: &HandleObject) -> PyResult<Owned> {
    Ok(parts(py, this)?.1.unwrap_or_else(|| Owned::none(py)))
}

fn callback_value(py: Python<'_>, this: &HandleObject) -> PyResult<Owned> {
    slot_value(py, this, &this.callback)
}

fn loop_value(py: Python<'_>, this: &HandleObject) -> PyResult<Owned> {
    slot_value(py, this, &this.event_loop)
}

/// The callback and a tuple of its arguments, or no tuple once both were dropped.
fn parts(py: Python<'_>, this: &HandleObject) -> PyResult<(Owned, Option<Owned>)> {
    let (callback, tuple, inline) = this.alone(py, || {
        // SAFETY: the slot is always filled, with None once the callback was dropped.
        let callback = unsafe { Owned::from_borrowed(this.callback.get()) };
        let tuple = this.args.get();
        // SAFETY: a filled slot owns a reference.
        let tuple = (!tuple.is_null()).then(|| unsafe { Owned::from_borrowed(tuple) });
        let inline = this.inline.iter().take(usize::from(this.inline_count.get()));
        // SAFETY: as above.
        let inline = inline.map(|slot| unsafe { Bound::from_borrowed_ptr(py, slot.get()) });
        (callback, tuple, inline.collect::<Vec<_>>())
    });
    if callback.as_ptr() == Owned::none(py).as_ptr() {
        return Ok((callback, None));
    }
    let args = match tuple {
        Some(tuple) => tuple,
        None => PyTuple::new(py, inline)?.into_any().into(),
    };
    Ok((callback, Some(args)))
}

fn cancelled_value(py: Python<'_>, this: &HandleObject) -> PyResult<Owned> {
    Ok(Owned::bool(py, this.is_cancelled()))
}

/// Reads a slot; an empty one reads as None.
fn slot_value(py: Python<'_>, this: &HandleObject, slot: &Slot) -> PyResult<Owned> {
    let held = this.alone(py, || {
        let object = slot.get();
        // SAFETY: a filled slot owns a reference.
        (!object.is_null()).then(|| unsafe { Owned::from_borrowed(object) })
    });
    Ok(held.unwrap_or_else(|| Owned::none(py)))
}

fn context_value(py: Python<'_>, this: &HandleObject) -> PyResult<Owned> {
    this.own_context(py)
}

fn repr_value(py: Python<'_>, this: &HandleObject) -> PyResult<Owned> {
    slot_value(py, this, &this.repr)
}

fn source_traceback_value(py: Python<'_>, this: &HandleObject) -> PyResult<Owned> {
    slot_value(py, this, &this.source_traceback)
}

/// The classes of handles.
pub(crate) struct Classes<'py> {
    pub(crate) plain: Bound<'py, PyType>,
    pub(crate) timer: Bound<'py, PyType>,
    pub(crate) threadsafe: Bound<'py, PyType>,
}

/// Makes the classes.
///
/// # Errors
/// ImportError where this interpreter lays asyncio's classes out differently.
pub(crate) fn make_classes(py: Python<'_>) -> PyResult<Classes<'_>> {
    let events = py.import("asyncio.events")?;
    let base = |name: &str| -> PyResult<Bound<'_, PyType>> {
        Ok(events.getattr(name)?.cast_into::<PyType>()?)
    };
    let plain = native::make_class::<PlainHandle>(
        &base("Handle")?,
        methods(),
        getters(),
        c"A callback that call_soon() scheduled; an asyncio.Handle.",
    )?;
    let mut timer_methods = methods();
    timer_methods.push(method!(TimerObject, c"when", when, c"when($self)\n--\n\nReturn the time of loop.time(), in seconds, at which the callback is due."));
    let mut timer_getters = getters();
    timer_getters.push(getter!(TimerObject, c"_when", when_value));
    timer_getters.push(getter!(TimerObject, c"_scheduled", scheduled_value));
    let timer = native::make_class::<TimerHandle>(
        &base("TimerHandle")?,
        timer_methods,
        timer_getters,
        c"A callback that call_later() or call_at() scheduled; an asyncio.TimerHandle.",
    )?;
    let threadsafe = if cfg!(Py_3_14) {
        native::make_class::<ThreadsafeHandle>(
            &base("_ThreadSafeHandle")?,
            methods(),
            getters(),
            c"A callback that call_soon_threadsafe() scheduled; an asyncio.Handle.",
        )?
    } else {
        plain.clone()
    };
    Ok(Classes { plain, timer, threadsafe })
}

fn methods() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(HandleObject, c"cancel", cancel, c"cancel($self)\n--\n\nCancel the callback; it is not run, and what it holds is dropped.\n\nMay be called from any thread. Cancelling twice, or after the run, does nothing."),
        method!(HandleObject, c"cancelled", cancelled, c"cancelled($self)\n--\n\nReturn True if the callback was cancelled."),
        method!(HandleObject, c"_run", run, c"_run($self)\n--\n\nRun the callback now."),
    ]
}

fn getters() -> Vec<ffi::PyGetSetDef> {
    vec![
        getter!(HandleObject, c"_args", args_value),
        getter!(HandleObject, c"_callback", callback_value),
        getter!(HandleObject, c"_cancelled", cancelled_value),
        getter!(HandleObject, c"_context", context_value),
        getter!(HandleObject, c"_loop", loop_value),
        getter!(HandleObject, c"_repr", repr_value),
        getter!(HandleObject, c"_source_traceback", source_traceback_value),
    ]
}
