//! The methods of the loop that run per callback or message, as fastcall
//! functions on the class: PyO3 would collect `*args` into a tuple.
#![allow(unsafe_code)]

use std::ffi::CStr;

use pyo3::prelude::*;
use pyo3::types::PyType;
use pyo3::{Borrowed, ffi};

use crate::event_loop::{EventLoop, io, scheduling, tasks};
use crate::py::{Args, Live, Owned, native};

impl EventLoop {
    /// Borrows the loop out of an object that is one.
    ///
    /// # Safety
    /// The object is an instance of `EventLoop`.
    #[inline]
    pub(crate) unsafe fn borrow<'a>(py: Python<'_>, object: Live<'a>) -> &'a Self {
        // SAFETY: an instance by the caller's promise.
        let event_loop = unsafe { object.bind(py).cast_unchecked::<Self>() };
        let event_loop: *const Self = event_loop.get();
        // SAFETY: the object is frozen and lives for 'a.
        unsafe { &*event_loop }
    }
}

impl EventLoop {
    /// Whether an object is a loop of ours.
    #[inline]
    pub(crate) fn is_instance(py: Python<'_>, object: Live<'_>) -> bool {
        let class = <Self as pyo3::PyTypeInfo>::type_object_raw(py);
        // SAFETY: a live object and a live class.
        unsafe { ffi::PyObject_TypeCheck(object.as_ptr(), class) != 0 }
    }
}

/// A loop as one of its methods receives it.
#[derive(Clone, Copy)]
pub(crate) struct This<'a> {
    pub(crate) event_loop: &'a EventLoop,
    object: Live<'a>,
}

impl<'a> This<'a> {
    /// The Python object, of `EventLoop` or a subclass.
    #[inline]
    pub(crate) fn live(&self) -> Live<'a> {
        self.object
    }

    /// PyO3's view of the object.
    #[inline]
    pub(crate) fn bind<'py>(&self, py: Python<'py>) -> Borrowed<'a, 'py, PyAny> {
        self.object.bind(py)
    }

    /// A loop whose object the caller holds.
    #[inline]
    pub(crate) fn with_object(event_loop: &'a EventLoop, object: &'a Owned) -> Self {
        Self { event_loop, object: object.live() }
    }

    /// The loop of an object that a method was called on.
    ///
    /// # Safety
    /// The object is an instance of `EventLoop`.
    #[inline]
    pub(crate) unsafe fn of_object(py: Python<'_>, object: Live<'a>) -> Self {
        // SAFETY: the caller's promise.
        Self { event_loop: unsafe { EventLoop::borrow(py, object) }, object }
    }

    /// The loop of a binding.
    pub(crate) fn of(event_loop: &'a Bound<'_, EventLoop>) -> Self {
        Self { event_loop: event_loop.get(), object: event_loop.into() }
    }
}

type Body = for<'a, 'py> fn(Python<'py>, This<'a>, Args<'a, 'py>) -> PyResult<Owned>;

/// Runs a method's body for CPython; a panic becomes an exception.
///
/// # Safety
/// `this` is a live `EventLoop`; the rest are the arguments of one fastcall.
// HOT: call_soon
#[inline]
unsafe fn enter(
    this: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
    body: Body,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls methods on attached threads.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: CPython keeps the receiver alive, and the descriptor has checked its type.
    let this = unsafe { This::of_object(py, Live::new(this)) };
    // SAFETY: passed on from CPython.
    let args = unsafe { Args::new(py, values, count, names) };
    native::answer(py, || body(py, this, args))
}

macro_rules! loop_method {
    ($name:literal, $body:path, $doc:expr) => {{
        unsafe extern "C" fn raw(
            this: *mut ffi::PyObject,
            values: *const *mut ffi::PyObject,
            count: ffi::Py_ssize_t,
            names: *mut ffi::PyObject,
        ) -> *mut ffi::PyObject {
            // SAFETY: called by CPython for a method of this class.
            unsafe { enter(this, values, count, names, $body) }
        }
        ffi::PyMethodDef {
            ml_name: $name.as_ptr(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: raw },
            ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
            ml_doc: $doc.as_ptr(),
        }
    }};
}

/// The signature is that of the running Python's asyncio.
const CREATE_TASK_DOC: &CStr = if cfg!(Py_3_14) {
    c"create_task($self, coro, **kwargs)\n--\n\nSchedule a coroutine and return its asyncio.Task.\n\nTakes the keywords of the running Python's asyncio (name, context from 3.11 on,\neager_start from 3.13.3 on) and honours set_task_factory()."
} else if cfg!(Py_3_11) {
    c"create_task($self, coro, *, name=None, context=None)\n--\n\nSchedule a coroutine and return its asyncio.Task.\n\nTakes the keywords of the running Python's asyncio (name, context from 3.11 on,\neager_start from 3.13.3 on) and honours set_task_factory()."
} else {
    c"create_task($self, coro, *, name=None)\n--\n\nSchedule a coroutine and return its asyncio.Task.\n\nTakes the keywords of the running Python's asyncio (name, context from 3.11 on,\neager_start from 3.13.3 on) and honours set_task_factory()."
};

/// Puts the native methods on the class.
///
/// # Errors
/// What Python raises while a descriptor is made.
pub(crate) fn install(class: &Bound<'_, PyType>) -> PyResult<()> {
    let methods = [
        loop_method!(c"call_soon", scheduling::call_soon, c"call_soon($self, callback, *args, context=None)\n--\n\nRun callback(*args) in the next turn of the loop; return its Handle.\n\nCalls run in the order in which they were scheduled, in the given context or a\ncopy of the current one. From another thread than the loop's use\ncall_soon_threadsafe(): in debug mode this raises RuntimeError there. Raises\nRuntimeError once the loop is closed."),
        loop_method!(c"call_soon_threadsafe", scheduling::call_soon_threadsafe, c"call_soon_threadsafe($self, callback, *args, context=None)\n--\n\nLike call_soon(), from any thread and from signal handlers; wakes the loop.\n\nA thread that finds more than 8,192 calls waiting gives the loop up to 5 ms to\ncatch up. Raises RuntimeError once the loop is closed."),
        loop_method!(c"call_later", scheduling::call_later, c"call_later($self, delay, callback, *args, context=None)\n--\n\nRun callback(*args) after delay seconds; return its TimerHandle.\n\nThe callback never runs before loop.time() has reached its time; equal times\nrun in the order of the calls. Raises RuntimeError once the loop is closed and, in\ndebug mode, in another thread than the loop's."),
        loop_method!(c"call_at", scheduling::call_at, c"call_at($self, when, callback, *args, context=None)\n--\n\nLike call_later(), at a time of loop.time(), in seconds. Raises as it does."),
        loop_method!(c"time", scheduling::time, c"time($self)\n--\n\nReturn the loop's clock in seconds: time.monotonic()."),
        loop_method!(c"get_debug", scheduling::get_debug, c"get_debug($self)\n--\n\nReturn True if the loop is in debug mode. May be called from any thread."),
        loop_method!(c"create_future", scheduling::create_future, c"create_future($self)\n--\n\nReturn a new asyncio.Future that belongs to this loop."),
        loop_method!(c"create_task", tasks::create_task, CREATE_TASK_DOC),
        loop_method!(c"_add_reader", io::add_reader, c"_add_reader($self, fd, callback, *args)\n--\n\n"),
        loop_method!(c"_add_writer", io::add_writer, c"_add_writer($self, fd, callback, *args)\n--\n\n"),
    ];
    let py = class.py();
    for method in methods {
        let method = Box::leak(Box::new(method));
        // SAFETY: the definition lives for ever, as does the class.
        let descriptor = unsafe {
            Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewMethod(class.as_type_ptr(), method))?
        };
        let name = descriptor.getattr("__name__")?.extract::<String>()?;
        class.setattr(name, descriptor)?;
    }
    Ok(())
}
