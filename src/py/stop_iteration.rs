//! Returning a value from an iterator: `StopIteration` with a value.
//!
//! The evaluator takes the value out of the exception at once and drops the
//! exception. Making and destroying one costs some thousand instructions, so one
//! is kept and raised again whenever nobody else holds it.
#![allow(unsafe_code)]

use pyo3::exceptions::PyStopIteration;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::py::Owned;

/// Sets `StopIteration(value)` as the current exception.
#[inline]
pub(crate) fn raise(py: Python<'_>, value: Owned) {
    #[cfg(all(Py_3_12, not(Py_GIL_DISABLED)))]
    let Some(value) = spare::raise(py, value) else { return };
    // SAFETY: a live object.
    if unsafe { ffi::PyTuple_Check(value.as_ptr()) } != 0 {
        // CPython would take the tuple for the arguments of the exception.
        PyStopIteration::new_err((value.as_py().clone_ref(py),)).restore(py);
        return;
    }
    // SAFETY: both are alive. (An exception as the value would itself be raised, but
    // callers never return one.)
    unsafe { ffi::PyErr_SetObject(ffi::PyExc_StopIteration, value.as_ptr()) };
}

/// Drops the value that was raised last. Whoever raised it calls this once the value
/// has been taken, so that it does not live longer than its owners expect.
#[inline]
pub(crate) fn forget_value(_py: Python<'_>) {
    #[cfg(all(Py_3_12, not(Py_GIL_DISABLED)))]
    spare::forget_value();
}

/// Gives up the kept exception if a Python frame has caught it. Its traceback holds
/// the frame with all its variables, among them perhaps the object that raised it,
/// which then never dies and never calls [`forget_value`]. The loop calls this now and
/// then, where any Python code may run.
#[inline]
pub(crate) fn forget_caught(_py: Python<'_>) {
    #[cfg(all(Py_3_12, not(Py_GIL_DISABLED)))]
    spare::forget_caught();
}

/// Not used before 3.12, where no exception is made until somebody asks for it, nor
/// without the GIL, where an object that all threads share costs more than it saves.
#[cfg(all(Py_3_12, not(Py_GIL_DISABLED)))]
mod spare {
    use std::ptr;
    use std::sync::atomic::{AtomicPtr, Ordering};

    use pyo3::ffi::{self, PyStopIterationObject};
    use pyo3::prelude::*;

    use crate::py::Owned;

    /// A reference of our own, or null.
    static SPARE: AtomicPtr<PyStopIterationObject> = AtomicPtr::new(ptr::null_mut());

    /// Raises the spare exception with a value, after replacing one that somebody else
    /// holds. Hands the value back if that fails.
    #[inline]
    pub(super) fn raise(py: Python<'_>, value: Owned) -> Option<Owned> {
        let mut spare = SPARE.load(Ordering::Relaxed);
        if spare.is_null() || !is_clean(spare) {
            match renew(py, spare) {
                Some(new) => spare = new,
                None => return Some(value),
            }
        }
        // SAFETY: nobody else holds the exception; its slot owns a reference.
        let old = unsafe { ptr::replace(&raw mut (*spare).value, value.into_raw()) };
        // SAFETY: the call takes the reference that is added here, and the
        // slot's old value is ours now.
        unsafe {
            ffi::Py_INCREF(spare.cast());
            ffi::PyErr_SetRaisedException(spare.cast());
            ffi::Py_XDECREF(old);
        }
        None
    }

    /// Whether nobody else holds the exception, and nobody has left anything in it.
    #[inline]
    fn is_clean(spare: *mut PyStopIterationObject) -> bool {
        // SAFETY: our reference keeps it alive, and the GIL keeps it still.
        unsafe {
            ffi::Py_REFCNT(spare.cast()) == 1
                && (*spare).traceback.is_null()
                && (*spare).context.is_null()
                && (*spare).cause.is_null()
                && (*spare).notes.is_null()
                && (*spare).dict.is_null()
        }
    }

    /// Makes a new exception in the place of one that somebody else holds, or of none.
    #[cold]
    fn renew(
        py: Python<'_>,
        old: *mut PyStopIterationObject,
    ) -> Option<*mut PyStopIterationObject> {
        let class = py.get_type::<pyo3::exceptions::PyStopIteration>();
        let new = class.call0().ok()?.into_ptr().cast();
        SPARE.store(new, Ordering::Relaxed);
        // SAFETY: the reference was ours.
        unsafe { ffi::Py_XDECREF(old.cast()) };
        Some(new)
    }

    #[inline]
    pub(super) fn forget_value() {
        let spare = SPARE.load(Ordering::Relaxed);
        if spare.is_null() {
            return;
        }
        if is_caught(spare) {
            forget(spare);
            return;
        }
        // SAFETY: nobody else holds the exception, so nobody reads the value; None lives
        // as long as the interpreter.
        unsafe {
            let none = ffi::Py_None();
            if (*spare).value != none {
                ffi::Py_INCREF(none);
                ffi::Py_XDECREF(ptr::replace(&raw mut (*spare).value, none));
            }
        }
    }

    #[inline]
    pub(super) fn forget_caught() {
        let spare = SPARE.load(Ordering::Relaxed);
        if !spare.is_null() && is_caught(spare) {
            forget(spare);
        }
    }

    /// Whether somebody has caught the exception; the evaluator only takes its value.
    #[inline]
    fn is_caught(spare: *mut PyStopIterationObject) -> bool {
        // SAFETY: our reference keeps it alive, and the GIL keeps it still.
        unsafe { ffi::Py_REFCNT(spare.cast()) != 1 || !(*spare).traceback.is_null() }
    }

    /// Leaves the exception to the code that holds it.
    #[cold]
    fn forget(spare: *mut PyStopIterationObject) {
        SPARE.store(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: the reference was `SPARE`'s, which no longer points to the exception.
        unsafe { ffi::Py_DECREF(spare.cast()) };
    }
}
