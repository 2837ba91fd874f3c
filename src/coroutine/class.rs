//! The object that `await reader.read(n)` or `await loop.sock_recv(sock, n)`
//! awaits: a coroutine whose body is Rust. It needs no interpreter frame, and where the
//! interpreter calls `am_send`, it returns its result without a StopIteration.
#![allow(unsafe_code)]

use std::cell::{Cell, UnsafeCell};
use std::ffi::{CStr, c_int, c_void};
use std::mem::{MaybeUninit, offset_of};
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use pyo3::exceptions::{PyRuntimeError, PyRuntimeWarning, PyStopIteration, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use pyo3::{ffi, intern};

use crate::coroutine::inspection;
use crate::coroutine::operation::Operation;
use crate::coroutine::step::{Input, Step};
use crate::py::native::{self, NativeClass, Reserve, Visitor, method};
use crate::py::{Args, Live, Owned, stop_iteration};

/// The object.
#[repr(C)]
pub(crate) struct NativeCoroutine {
    ob_base: ffi::PyObject,
    /// CPython's list of weak references.
    weakrefs: Cell<*mut ffi::PyObject>,
    /// Whether there is an operation inside, and whether a thread is using it: one of the
    /// constants below.
    state: AtomicU8,
    /// Qualified name of the method; a thin pointer, so that zeroed memory is None.
    name: Cell<Option<&'static &'static str>>,
    /// Up to where coroutines of the interpreter have their `gi_frame_state`.
    _unused: [u8; FRAME_STATE_OFFSET - size_of::<(usize, usize, usize)>()],
    /// Always [`NO_FRAME`].
    frame_state: Cell<i8>,
    operation: UnsafeCell<MaybeUninit<Operation>>,
}

/// Tools that look into a process from outside, such as `python -m asyncio ps`, take the
/// coroutine of every task for one of the interpreter's and follow its frame, unless
/// `gi_frame_state` says that there is none. From CPython 3.12 on this byte of a
/// `PyGenObject` is behind the header, six pointers and three flags.
const FRAME_STATE_OFFSET: usize = size_of::<[usize; 6]>() + 3;
/// What CPython calls `FRAME_CLEARED`.
const NO_FRAME: i8 = if cfg!(Py_3_15) { 5 } else { 4 };

// The three words before are `weakrefs`, `state` with its padding, and `name`.
const _: () = assert!(
    offset_of!(NativeCoroutine, frame_state) == size_of::<ffi::PyObject>() + FRAME_STATE_OFFSET
);

/// No operation is inside, not yet or no longer.
const EMPTY: u8 = 0;
/// An operation that waits for its next step.
const FILLED: u8 = 1;
/// A thread runs a step of the operation. Nobody else may access it meanwhile; the
/// collector does not visit it either.
const RUNNING: u8 = 2;
/// A thread reads the operation, for a few instructions and without a call into Python.
/// Another thread can see this state only without the GIL.
const LOOKED_AT: u8 = 3;

static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
/// Memory of the last finished coroutine for the next: `drain` ends before the next
/// `read` begins, so one is enough.
static RESERVE: Reserve = Reserve::new();

impl NativeCoroutine {
    /// A coroutine that has not begun.
    #[inline]
    pub(crate) fn make(py: Python<'_>, operation: Operation) -> PyResult<Owned> {
        let class = match CLASS.get(py) {
            Some(class) => class,
            None => CLASS.get_or_try_init(py, || make_class(py).map(Bound::unbind))?,
        };
        // SAFETY: made by `make_class`.
        let object = unsafe { RESERVE.new_instance(class.bind(py)) }?;
        // SAFETY: an instance, as just made.
        let this = unsafe { &*object.as_ptr().cast::<Self>() };
        this.name.set(Some(operation.name()));
        this.frame_state.set(NO_FRAME);
        this.put(operation);
        Ok(object)
    }

    #[inline]
    fn put(&self, operation: Operation) {
        // SAFETY: the state is EMPTY, in which nobody accesses the operation.
        unsafe { (*self.operation.get()).write(operation) };
        self.state.store(FILLED, Ordering::Release);
    }

    /// Qualified name of the method.
    pub(super) fn name(&self) -> &'static str {
        self.name.get().map_or("", |name| *name)
    }

    /// Changes the state from FILLED to `to`. The caller then has the operation for itself
    /// until it sets another state. An error is the state that prevents that; a thread
    /// that only reads is waited for.
    #[inline]
    fn seize(&self, to: u8) -> Result<(), u8> {
        loop {
            match self.state.compare_exchange(FILLED, to, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(LOOKED_AT) => thread::yield_now(),
                Err(state) => return Err(state),
            }
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.state.load(Ordering::Relaxed) == RUNNING
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state.load(Ordering::Relaxed) == EMPTY
    }

    /// Whether it waits for something.
    // HOT: stream
    #[inline]
    pub(super) fn is_suspended(&self) -> bool {
        if cfg!(Py_GIL_DISABLED) {
            return self.look(Operation::is_new) == Some(false);
        }
        // SAFETY: FILLED, and the GIL keeps other threads from changing that meanwhile.
        self.state.load(Ordering::Relaxed) == FILLED
            && !unsafe { (*self.operation.get()).assume_init_ref() }.is_new()
    }

    /// Reads the operation between two steps; None if there is none or it is running.
    /// `body` must not call into Python.
    pub(super) fn look<R>(&self, body: impl FnOnce(&Operation) -> R) -> Option<R> {
        self.seize(LOOKED_AT).ok()?;
        // SAFETY: `seize` has found it FILLED and keeps all others out.
        let result = body(unsafe { (*self.operation.get()).assume_init_ref() });
        self.state.store(FILLED, Ordering::Release);
        Some(result)
    }

    /// Takes the operation out between two steps, if `wanted` accepts it, which must not
    /// call into Python.
    fn take_if(&self, wanted: impl FnOnce(&Operation) -> bool) -> Option<Operation> {
        self.seize(LOOKED_AT).ok()?;
        // SAFETY: `seize` has found it FILLED and keeps all others out.
        let takes = wanted(unsafe { (*self.operation.get()).assume_init_ref() });
        // SAFETY: as above; the state becomes EMPTY, so it is not used again.
        let taken = takes.then(|| unsafe { (*self.operation.get()).assume_init_read() });
        self.state.store(if takes { EMPTY } else { FILLED }, Ordering::Release);
        taken
    }

    /// Takes the operation out of an object that no thread can use any more.
    #[inline]
    fn take(&self) -> Option<Operation> {
        if self.state.load(Ordering::Relaxed) == EMPTY { None } else { self.take_if(|_| true) }
    }

    /// One step, during which nobody else may take one.
    #[inline]
    fn step(&self, py: Python<'_>, input: Input<'_>) -> PyResult<Step> {
        if let Err(state) = self.seize(RUNNING) {
            return Err(refused(state));
        }
        let mut under_way = UnderWay { coroutine: self, ended: true };
        // SAFETY: `seize` has found it FILLED, and nobody else accesses a RUNNING one.
        let result = unsafe { (*self.operation.get()).assume_init_mut() }.resume(py, input);
        under_way.ended = !matches!(result, Ok(Step::Yield(_)));
        result
    }
}

/// Why a coroutine in this state takes no step.
#[cold]
fn refused(state: u8) -> PyErr {
    match state {
        RUNNING => PyValueError::new_err("coroutine already executing"),
        _ => PyRuntimeError::new_err("cannot reuse already awaited coroutine"),
    }
}

/// An operation that is taking a step.
struct UnderWay<'a> {
    coroutine: &'a NativeCoroutine,
    ended: bool,
}

impl Drop for UnderWay<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.ended {
            // SAFETY: the step has left the operation initialized, and nobody else accesses
            // a RUNNING one.
            unsafe { (*self.coroutine.operation.get()).assume_init_drop() };
        }
        let state = if self.ended { EMPTY } else { FILLED };
        self.coroutine.state.store(state, Ordering::Release);
    }
}

// HOT: stream
unsafe extern "C" fn am_send(
    this: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: CPython calls slots on attached threads.
    let py = unsafe { Python::assume_attached() };
    let mut state = ffi::PySendResult::PYGEN_ERROR;
    let object = native::answer(py, || {
        // SAFETY: the slot of this class, which gets a value that is alive for the call.
        let (this, value) = unsafe { (&*this.cast::<NativeCoroutine>(), Live::new(value)) };
        match this.step(py, Input::Send(value))? {
            Step::Yield(object) => {
                state = ffi::PySendResult::PYGEN_NEXT;
                Ok(object)
            }
            Step::Return(object) => {
                state = ffi::PySendResult::PYGEN_RETURN;
                Ok(object)
            }
        }
    });
    // SAFETY: the caller's place for the result.
    unsafe { *result = object };
    state
}

// HOT: stream
unsafe extern "C" fn iternext(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: CPython calls slots on attached threads.
    let py = unsafe { Python::assume_attached() };
    let mut returned = None;
    let object = native::answer(py, || {
        // SAFETY: the slot of this class.
        let this = unsafe { &*this.cast::<NativeCoroutine>() };
        match this.step(py, Input::Send(Live::none(py)))? {
            Step::Yield(object) => Ok(object),
            Step::Return(object) => {
                returned = Some(object);
                Ok(Owned::none(py))
            }
        }
    });
    let Some(value) = returned else { return object };
    // SAFETY: `object` is the reference to None that the closure returned.
    let is_none = unsafe {
        ffi::Py_DECREF(object);
        value.as_ptr() == ffi::Py_None()
    };
    // Null without an exception is the end of an iterator whose value is None.
    if !is_none {
        stop_iteration::raise(py, value);
    }
    ptr::null_mut()
}

/// `await coroutine`.
// HOT: stream
unsafe extern "C" fn am_await(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the slot of this class.
    if unsafe { &*this.cast::<NativeCoroutine>() }.is_suspended() {
        // SAFETY: CPython calls slots on attached threads.
        already_awaited().restore(unsafe { Python::assume_attached() });
        return ptr::null_mut();
    }
    // SAFETY: a live object.
    unsafe { ffi::Py_NewRef(this) }
}

#[cold]
fn already_awaited() -> PyErr {
    PyRuntimeError::new_err("coroutine is being awaited already")
}

unsafe extern "C" fn iter(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a live object.
    unsafe { ffi::Py_NewRef(this) }
}

unsafe extern "C" fn repr(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: CPython calls slots on attached threads.
    let py = unsafe { Python::assume_attached() };
    native::answer(py, || {
        // SAFETY: the slot of this class.
        let name = unsafe { &*this.cast::<NativeCoroutine>() }.name();
        Ok(Owned::from(
            format!("<coroutine object {name} at {this:p}>").into_pyobject(py)?.into_any(),
        ))
    })
}

/// What `send` and `throw` return, or raise as a StopIteration.
fn value_or_stop(py: Python<'_>, step: Step) -> PyResult<Owned> {
    match step {
        Step::Yield(object) => Ok(object),
        Step::Return(object) if object.bind(py).is_none() => Err(PyStopIteration::new_err(())),
        Step::Return(object) => Err(PyStopIteration::new_err((object.as_py().clone_ref(py),))),
    }
}

fn send<'py>(py: Python<'py>, t: &NativeCoroutine, args: Args<'_, 'py>) -> PyResult<Owned> {
    let value = args.one("send", "value")?;
    if !value.is_none() && t.look(Operation::is_new) == Some(true) {
        return Err(pyo3::exceptions::PyTypeError::new_err(
            "can't send non-None value to a just-started coroutine",
        ));
    }
    value_or_stop(py, t.step(py, Input::Send(value.into()))?)
}

fn throw<'py>(py: Python<'py>, t: &NativeCoroutine, args: Args<'_, 'py>) -> PyResult<Owned> {
    let [kind, value, traceback] = args.bind("throw", ["type", "value", "traceback"], 1)?;
    let Some(kind) = kind else { return Ok(Owned::none(py)) };
    let value = value.filter(|value| !value.is_none());
    let error = match (&value, kind.is_instance_of::<PyType>()) {
        (Some(value), true) if value.is_instance(&kind)? => (**value).clone(),
        (Some(value), true) => kind.call1((value,))?,
        (None, true) => kind.call0()?,
        _ => (*kind).clone(),
    };
    if let Some(traceback) = traceback.filter(|traceback| !traceback.is_none()) {
        error.setattr(intern!(py, "__traceback__"), traceback)?;
    }
    value_or_stop(py, t.step(py, Input::Throw(&error))?)
}

fn close<'py>(py: Python<'py>, t: &NativeCoroutine, args: Args<'_, 'py>) -> PyResult<Owned> {
    args.none("close")?;
    if t.take_if(Operation::is_new).is_some() || t.has_ended() {
        return Ok(Owned::none(py));
    }
    let exit = py.get_type::<pyo3::exceptions::PyGeneratorExit>().call0()?;
    match t.step(py, Input::Throw(&exit)) {
        Ok(Step::Yield(_)) => Err(PyRuntimeError::new_err("coroutine ignored GeneratorExit")),
        Ok(Step::Return(_)) => Ok(Owned::none(py)),
        Err(error)
            if error.is_instance_of::<pyo3::exceptions::PyGeneratorExit>(py)
                || error.is_instance_of::<PyStopIteration>(py) =>
        {
            Ok(Owned::none(py))
        }
        Err(error) => Err(error),
    }
}

fn await_<'py>(_: Python<'py>, t: &NativeCoroutine, args: Args<'_, 'py>) -> PyResult<Owned> {
    args.none("__await__")?;
    // SAFETY: a live object during its own method.
    Ok(unsafe { Owned::from_borrowed((&raw const *t).cast_mut().cast()) })
}

/// Makes the class and registers it as a `collections.abc.Coroutine`.
fn make_class(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    type T = NativeCoroutine;
    let class = native::make_class::<NativeCoroutine>(
        &py.get_type::<PyAny>(),
        vec![
            method!(T, c"send", send, c"send($self, value, /)\n--\n\nResume with a value; raises StopIteration with the result at the end."),
            method!(T, c"throw", throw, c"throw($self, type, value=None, traceback=None, /)\n--\n\nResume with an exception."),
            method!(T, c"close", close, c"close($self, /)\n--\n\nEnd the coroutine where it waits."),
            method!(T, c"__await__", await_, c"__await__($self, /)\n--\n\nReturn an iterator to await: the coroutine itself."),
        ],
        inspection::attributes(),
        c"A coroutine of a stream or of the loop; a collections.abc.Coroutine.",
    )?;
    py.import("collections.abc")?.getattr("Coroutine")?.call_method1("register", (&class,))?;
    Ok(class)
}

// SAFETY: all zeros are valid: the state is EMPTY and the name None.
unsafe impl NativeClass for NativeCoroutine {
    const NAME: &'static CStr = c"tokioloop._core.NativeCoroutine";
    const BASE_SIZE: usize = offset_of!(Self, weakrefs);
    const WEAKLIST: Option<usize> = Some(offset_of!(Self, weakrefs));
    const DICT: Option<usize> = None;
    const SUBCLASSABLE: bool = false;

    fn slots() -> Vec<ffi::PyType_Slot> {
        let slot = |slot: c_int, pfunc: *mut c_void| ffi::PyType_Slot { slot, pfunc };
        vec![
            slot(ffi::Py_am_await, am_await as ffi::unaryfunc as *mut c_void),
            slot(ffi::Py_am_send, am_send as ffi::sendfunc as *mut c_void),
            slot(ffi::Py_tp_iter, iter as ffi::getiterfunc as *mut c_void),
            slot(ffi::Py_tp_iternext, iternext as ffi::iternextfunc as *mut c_void),
            slot(ffi::Py_tp_repr, repr as ffi::reprfunc as *mut c_void),
        ]
    }

    fn traverse(&self, visitor: &mut Visitor) {
        // The collector has stopped all other threads, none of them in LOOKED_AT.
        if self.state.load(Ordering::Relaxed) == FILLED {
            // SAFETY: FILLED, and no other thread changes it meanwhile.
            unsafe { (*self.operation.get()).assume_init_ref() }.traverse(visitor);
        }
    }

    fn clear(&self) {
        if let Some(operation) = self.take() {
            forget(operation);
        }
    }

    unsafe fn dealloc(this: *mut Self) {
        // SAFETY: the object is tracked until here, and must not be visited any more.
        unsafe { ffi::PyObject_GC_UnTrack(this.cast()) };
        // SAFETY: the memory is whole until it is freed.
        if !unsafe { &*this }.weakrefs.get().is_null() {
            // SAFETY: a dying object; this also leaves the list empty for the next instance.
            unsafe { ffi::PyObject_ClearWeakRefs(this.cast()) };
        }
        // SAFETY: the memory is whole until it is freed.
        if let Some(operation) = unsafe { &*this }.take() {
            forget(operation);
        }
        // SAFETY: CPython deallocates objects on attached threads.
        stop_iteration::forget_value(unsafe { Python::assume_attached() });
        // SAFETY: the object is dead and untracked, and its operation was taken out.
        unsafe { RESERVE.free(this.cast()) };
    }
}

/// Ends an operation with its coroutine.
fn forget(operation: Operation) {
    if operation.is_new() {
        warn_never_awaited(operation.name());
    }
    operation.abandon();
}

/// Issues CPython's warning for a coroutine that nobody has awaited. An exception that is
/// being raised meanwhile is kept.
#[cold]
fn warn_never_awaited(name: &str) {
    // SAFETY: CPython deallocates and clears objects on attached threads.
    let py = unsafe { Python::assume_attached() };
    let underway = PyErr::take(py);
    let text = format!("coroutine '{name}' was never awaited");
    let result = std::ffi::CString::new(text)
        .map_err(PyErr::from)
        .and_then(|text| PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1));
    if let Err(error) = result {
        error.write_unraisable(py, None);
    }
    if let Some(underway) = underway {
        underway.restore(py);
    }
}
