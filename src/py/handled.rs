//! Makes an exception the one that is being handled, which `sys.exc_info()` returns.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;

use crate::py::Owned;

/// While this lives, an exception is being handled; its drop restores the previous one.
///
/// asyncio calls exception handlers within its `except` blocks, where `logging.exception`
/// finds the traceback, and what the handler raises has the exception as its context.
pub(crate) struct Handled {
    before: Option<Owned>,
}

impl Handled {
    pub(crate) fn new(exception: &Bound<'_, PyAny>) -> Self {
        let py = exception.py();
        // An exception that an outer frame handles is not to be restored into this one:
        // it would stay behind in a generator that is suspended here.
        let found = current(py);
        set(None);
        let outer = current(py);
        let is_outer =
            |found: &Owned| outer.as_ref().is_some_and(|outer| outer.as_ptr() == found.as_ptr());
        let before = found.filter(|found| !is_outer(found));
        set(Some(&Owned::from(exception)));
        Self { before }
    }
}

impl Drop for Handled {
    fn drop(&mut self) {
        set(self.before.as_ref());
    }
}

#[cfg(Py_3_11)]
fn current(py: Python<'_>) -> Option<Owned> {
    // SAFETY: a new reference or null.
    unsafe { Bound::from_owned_ptr_or_opt(py, ffi::PyErr_GetHandledException()) }.map(Owned::from)
}

#[cfg(Py_3_11)]
fn set(exception: Option<&Owned>) {
    let exception = exception.map_or(std::ptr::null_mut(), Owned::as_ptr);
    // SAFETY: an exception, of which CPython takes a reference of its own, or null for none.
    unsafe { ffi::PyErr_SetHandledException(exception) };
}

#[cfg(not(Py_3_11))]
fn current(py: Python<'_>) -> Option<Owned> {
    let [mut class, mut value, mut traceback] = [std::ptr::null_mut(); 3];
    // SAFETY: three places for new references or null.
    unsafe { ffi::PyErr_GetExcInfo(&raw mut class, &raw mut value, &raw mut traceback) };
    let [_, value, _] = [class, value, traceback].map(|part| {
        // SAFETY: one of those, which is taken over here.
        unsafe { Bound::from_owned_ptr_or_opt(py, part) }
    });
    value.filter(|value| !value.is_none()).map(Owned::from)
}

#[cfg(not(Py_3_11))]
fn set(exception: Option<&Owned>) {
    let parts = exception.map_or([std::ptr::null_mut(); 3], |exception| {
        let exception = exception.as_ptr();
        // SAFETY: a live exception.
        let class = unsafe { ffi::Py_TYPE(exception) }.cast::<ffi::PyObject>();
        // SAFETY: as above; a new reference or null.
        let traceback = unsafe { ffi::PyException_GetTraceback(exception) };
        for object in [class, exception] {
            // SAFETY: both live.
            unsafe { ffi::Py_INCREF(object) };
        }
        [class, exception, traceback]
    });
    let [class, value, traceback] = parts;
    // SAFETY: takes the references over.
    unsafe { ffi::PyErr_SetExcInfo(class, value, traceback) };
}
