//! A method that returns a native coroutine, and looks to `inspect` like the `async def`
//! that it replaces.
//!
//! Its signature, its code's flags and its docstring are those of asyncio's own function,
//! so `inspect.iscoroutinefunction(loop.sock_recv)` holds. As with any method, a call
//! makes no object for the bound method.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::mem::offset_of;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use pyo3::{Borrowed, ffi};

use crate::py::native::{self, NativeClass, Visitor};
use crate::py::{Args, Owned};

/// Makes the coroutine of a call from its receiver and the arguments after it. None if
/// asyncio's function has to be called instead. The receiver may be any object.
pub(crate) type Body =
    for<'a, 'py> fn(Borrowed<'a, 'py, PyAny>, Args<'a, 'py>) -> PyResult<Option<Owned>>;

/// The object in the class's dictionary.
#[repr(C)]
pub(crate) struct CoroutineMethod {
    ob_base: ffi::PyObject,
    vectorcall: Option<ffi::vectorcallfunc>,
    body: Option<Body>,
    /// asyncio's function.
    stock: Option<Owned>,
}

impl CoroutineMethod {
    /// The class of such methods.
    ///
    /// # Errors
    /// What Python raises while it is made.
    fn class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        Ok(CLASS.get_or_try_init(py, || Self::make_class(py).map(Bound::unbind))?.bind(py))
    }

    fn make_class(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
        native::make_class::<Self>(
            &py.get_type::<PyAny>(),
            vec![],
            vec![],
            c"A method that returns a native coroutine.",
        )
    }

    /// Makes a method that replaces asyncio's function `stock`.
    ///
    /// # Errors
    /// What Python raises while the class of such methods is made; MemoryError.
    pub(crate) fn make(stock: Bound<'_, PyAny>, body: Body) -> PyResult<Owned> {
        // SAFETY: made by `make_class`.
        let object = unsafe { native::new_instance(Self::class(stock.py())?) }?;
        let this = object.as_ptr().cast::<Self>();
        // SAFETY: a new instance with zeroed fields, which nobody else has seen.
        unsafe {
            (*this).vectorcall = Some(vectorcall);
            (*this).body = Some(body);
            (&raw mut (*this).stock).write(Some(stock.into()));
        }
        share(&object);
        Ok(object)
    }
}

/// Defers reference counting without the GIL: loops on several threads call the method,
/// and would contend for its count.
fn share(object: &Owned) {
    #[cfg(all(Py_GIL_DISABLED, Py_3_14))]
    {
        unsafe extern "C" {
            fn PyUnstable_Object_EnableDeferredRefcount(object: *mut ffi::PyObject) -> c_int;
        }
        // SAFETY: an object that this thread has just made.
        unsafe { PyUnstable_Object_EnableDeferredRefcount(object.as_ptr()) };
    }
    #[cfg(not(all(Py_GIL_DISABLED, Py_3_14)))]
    let _ = object;
}

// HOT: raw, stream
unsafe extern "C" fn vectorcall(
    callable: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    flags: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls methods on attached threads.
    let py = unsafe { Python::assume_attached() };
    native::answer(py, || {
        // SAFETY: the class's own function, called for its instance.
        let this = unsafe { &*callable.cast::<CoroutineMethod>() };
        // SAFETY: only the flag is taken off.
        let count = unsafe { ffi::PyVectorcall_NARGS(flags) };
        if count > 0 {
            // SAFETY: at least one value was passed, which lives as long as the call.
            let receiver = unsafe { Borrowed::from_ptr(py, *values) };
            // SAFETY: the values after the receiver, and those of the keywords.
            let args = unsafe { Args::new(py, values.add(1), count - 1, names) };
            if let Some(body) = this.body {
                if let Some(coroutine) = body(receiver, args)? {
                    return Ok(coroutine);
                }
            }
        }
        // SAFETY: all values and names of the call.
        let args = unsafe { Args::new(py, values, count, names) };
        let stock = this.stock(py)?;
        args.call(&stock.bind(py))
    })
}

impl CoroutineMethod {
    fn stock(&self, py: Python<'_>) -> PyResult<Owned> {
        match &self.stock {
            Some(stock) => Ok(stock.clone_ref(py)),
            None => Err(pyo3::exceptions::PySystemError::new_err("the method was cleared")),
        }
    }
}

/// `object.method`: CPython's own method object, as for any function.
unsafe extern "C" fn descr_get(
    this: *mut ffi::PyObject,
    object: *mut ffi::PyObject,
    _class: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: None lives as long as the interpreter.
    if object.is_null() || object == unsafe { ffi::Py_None() } {
        // SAFETY: a live object.
        return unsafe { ffi::Py_NewRef(this) };
    }
    // SAFETY: both are alive.
    unsafe { PyMethod_New(this, object) }
}

unsafe extern "C" {
    fn PyMethod_New(
        function: *mut ffi::PyObject,
        receiver: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;
}

/// Attributes that the method itself lacks come from asyncio's function.
unsafe extern "C" fn getattro(
    this: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython reads attributes on attached threads.
    let py = unsafe { Python::assume_attached() };
    // The class has values of its own for these two, which would hide the function's.
    // SAFETY: live strings.
    let of_class = [c"__doc__", c"__module__"]
        .iter()
        .any(|text| unsafe { ffi::PyUnicode_CompareWithASCIIString(name, text.as_ptr()) } == 0);
    if !of_class {
        // SAFETY: live objects.
        let own = unsafe { ffi::PyObject_GenericGetAttr(this, name) };
        // SAFETY: the class of the exception lives as long as the interpreter.
        let is_lacking =
            own.is_null() && unsafe { ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) } != 0;
        if !is_lacking {
            return own;
        }
    }
    native::answer(py, || {
        drop(PyErr::take(py));
        // SAFETY: the slot of this class.
        let stock = unsafe { &*this.cast::<CoroutineMethod>() }.stock(py)?;
        // SAFETY: live objects; a new reference, or null with an exception.
        unsafe { Owned::from_result(py, ffi::PyObject_GetAttr(stock.as_ptr(), name)) }
    })
}

unsafe extern "C" fn repr(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: CPython calls slots on attached threads.
    let py = unsafe { Python::assume_attached() };
    native::answer(py, || {
        // SAFETY: the slot of this class.
        let stock = unsafe { &*this.cast::<CoroutineMethod>() }.stock(py)?;
        let name = stock.bind(py).getattr("__qualname__")?;
        Ok(Owned::from(format!("<native method {name} at {this:p}>").into_pyobject(py)?.into_any()))
    })
}

// SAFETY: all zeros are valid: no function and no object.
unsafe impl NativeClass for CoroutineMethod {
    const NAME: &'static CStr = c"tokioloop._core.CoroutineMethod";
    const BASE_SIZE: usize = offset_of!(Self, vectorcall);
    const WEAKLIST: Option<usize> = None;
    const DICT: Option<usize> = None;
    const SUBCLASSABLE: bool = false;
    const VECTORCALL: Option<usize> = Some(offset_of!(Self, vectorcall));
    // The interpreter specialises calls of a method only if the method's class is
    // immutable.
    const FLAGS: std::ffi::c_ulong = ffi::Py_TPFLAGS_HAVE_VECTORCALL
        | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR
        | ffi::Py_TPFLAGS_IMMUTABLETYPE;

    fn slots() -> Vec<ffi::PyType_Slot> {
        let slot = |slot: c_int, pfunc: *mut c_void| ffi::PyType_Slot { slot, pfunc };
        vec![
            slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as ffi::ternaryfunc as *mut c_void),
            slot(ffi::Py_tp_descr_get, descr_get as ffi::descrgetfunc as *mut c_void),
            slot(ffi::Py_tp_getattro, getattro as ffi::getattrofunc as *mut c_void),
            slot(ffi::Py_tp_repr, repr as ffi::reprfunc as *mut c_void),
        ]
    }

    fn traverse(&self, visitor: &mut Visitor) {
        visitor.maybe(&self.stock);
    }

    // Nothing in it refers back to it: asyncio's function is not part of a cycle.
    fn clear(&self) {}

    unsafe fn dealloc(this: *mut Self) {
        // SAFETY: the object is tracked until here, and must not be visited any more.
        unsafe { ffi::PyObject_GC_UnTrack(this.cast()) };
        // SAFETY: the memory is whole until it is freed, and nobody else refers to it.
        drop(unsafe { (*this).stock.take() });
        // SAFETY: the object is dead and untracked, and its value was dropped.
        unsafe { native::free(this.cast()) };
    }
}
