//! Running something inside a `contextvars.Context`.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;

use crate::py::Owned;

/// A copy of the current context; costs one small object.
#[inline]
pub(crate) fn copy_current(py: Python<'_>) -> PyResult<Owned> {
    // SAFETY: a new reference, or null with an exception.
    unsafe { Owned::from_result(py, ffi::PyContext_CopyCurrent()) }
}

/// A copy of a context.
#[inline]
pub(crate) fn copy(py: Python<'_>, context: &Owned) -> PyResult<Owned> {
    // SAFETY: a live context; a new reference, or null with an exception.
    unsafe { Owned::from_result(py, ffi::PyContext_Copy(context.as_ptr())) }
}

/// A copy of the current context for another thread to use later, or nothing
/// where it would be empty: that thread then makes an empty one itself.
///
/// Most threads have no variables (without the GIL: where who started them had
/// none). What lives from one thread's call to another's would be known to the
/// collector and freed by a foreign thread.
pub(crate) fn copy_unless_empty(py: Python<'_>) -> PyResult<Option<Owned>> {
    let context = copy_current(py)?;
    // SAFETY: a live mapping.
    let variables = unsafe { ffi::PyMapping_Size(context.as_ptr()) };
    Ok((variables != 0).then_some(context))
}

/// The empty context that was kept. The GIL keeps others out; without it none is.
static KEPT: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());

/// An empty context.
#[inline]
pub(crate) fn empty(py: Python<'_>) -> PyResult<Owned> {
    let kept = KEPT.load(Ordering::Relaxed);
    if !kept.is_null() {
        KEPT.store(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: the place owned a reference.
        return Ok(unsafe { Owned::from_raw(kept) });
    }
    // SAFETY: a new reference, or null with an exception.
    unsafe { Owned::from_result(py, ffi::PyContext_New()) }
}

/// Whether nobody can tell a context, of which the caller has the only reference
/// that it knows of, from a new one: it is empty, and nobody else refers to it,
/// not even weakly. False without one.
#[inline]
pub(crate) fn is_as_new(_py: Python<'_>, context: *mut ffi::PyObject) -> bool {
    if context.is_null() {
        return false;
    }
    // SAFETY: a live object, whose class has a list of weak references there.
    unsafe {
        let weak_references = (*ffi::Py_TYPE(context)).tp_weaklistoffset;
        ffi::Py_REFCNT(context) == 1
            && (*context.byte_offset(weak_references).cast::<*mut ffi::PyObject>()).is_null()
            && ffi::PyMapping_Size(context) == 0
    }
}

/// Keeps a context that is as new for the next who needs an empty one.
#[inline]
pub(crate) fn keep(_py: Python<'_>, context: Owned) {
    if KEPT.load(Ordering::Relaxed).is_null() {
        KEPT.store(context.into_raw(), Ordering::Relaxed);
    }
}

/// Runs `body` inside `context`.
///
/// # Errors
/// RuntimeError where the context is entered already; the body did not run.
// HOT: proto, call_soon
#[inline]
pub(crate) fn run<R>(
    py: Python<'_>,
    context: *mut ffi::PyObject,
    body: impl FnOnce() -> R,
) -> PyResult<R> {
    // SAFETY: every caller holds a reference to this context.
    if unsafe { ffi::PyContext_Enter(context) } < 0 {
        return Err(PyErr::fetch(py));
    }
    let entered = Entered(context);
    let result = body();
    std::mem::forget(entered);
    // SAFETY: entered above.
    let left = unsafe { ffi::PyContext_Exit(context) };
    // Without the GIL two threads may have entered it at once, which CPython notices here in
    // one of them. With it this cannot fail, since the body leaves what it enters.
    if cfg!(Py_GIL_DISABLED) && left < 0 {
        return Err(not_left(py, result));
    }
    Ok(result)
}

#[cold]
#[inline(never)]
fn not_left<R>(py: Python<'_>, unused: R) -> PyErr {
    let error = PyErr::fetch(py);
    drop(unused);
    error
}

/// Leaves the context when the body unwinds.
struct Entered(*mut ffi::PyObject);

impl Drop for Entered {
    #[cold]
    fn drop(&mut self) {
        // SAFETY: entered by `run` on this thread.
        if unsafe { ffi::PyContext_Exit(self.0) } < 0 {
            // SAFETY: an exception is set; the panic goes on.
            unsafe { ffi::PyErr_WriteUnraisable(self.0) };
        }
    }
}
