//! Running something inside a `contextvars.Context`.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;

use crate::py::{Live, Owned};

/// Whether an object is exactly a `Context`, which has no subclasses.
#[inline]
pub(crate) fn is_context(_py: Python<'_>, object: &Owned) -> bool {
    // SAFETY: a live object.
    unsafe { ffi::PyContext_CheckExact(object.as_ptr()) != 0 }
}

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

/// A copy of the current context for another thread to use later, or None if it
/// would be empty: that thread then makes an empty one itself.
///
/// Most threads have no context variables (without the GIL they inherit those of
/// the thread that started them). A context that is passed to another thread is
/// tracked by the collector meanwhile and freed by a thread that did not make it.
pub(crate) fn copy_unless_empty(py: Python<'_>) -> PyResult<Option<Owned>> {
    let context = copy_current(py)?;
    // SAFETY: a live mapping.
    let variables = unsafe { ffi::PyMapping_Size(context.as_ptr()) };
    Ok((variables != 0).then_some(context))
}

/// An empty context kept for reuse. The GIL protects it; without the GIL none is kept.
static KEPT: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());

/// An empty context.
#[inline]
pub(crate) fn empty(py: Python<'_>) -> PyResult<Owned> {
    let kept = KEPT.load(Ordering::Relaxed);
    if !kept.is_null() {
        KEPT.store(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: `KEPT` owned this reference.
        return Ok(unsafe { Owned::from_raw(kept) });
    }
    // SAFETY: a new reference, or null with an exception.
    unsafe { Owned::from_result(py, ffi::PyContext_New()) }
}

/// Whether nobody can tell a context from a new one: it is empty, and the caller's
/// reference is the only one, even counting weak ones.
#[inline]
pub(crate) fn is_as_new(_py: Python<'_>, context: &Owned) -> bool {
    let context = context.as_ptr();
    // SAFETY: a live object, whose class has a list of weak references there.
    unsafe {
        let weak_references = (*ffi::Py_TYPE(context)).tp_weaklistoffset;
        ffi::Py_REFCNT(context) == 1
            && (*context.byte_offset(weak_references).cast::<*mut ffi::PyObject>()).is_null()
            && ffi::PyMapping_Size(context) == 0
    }
}

/// Keeps a context that [`is_as_new`] for a later call of [`empty`].
#[inline]
pub(crate) fn keep(_py: Python<'_>, context: Owned) {
    if KEPT.load(Ordering::Relaxed).is_null() {
        KEPT.store(context.into_raw(), Ordering::Relaxed);
    }
}

/// Runs `body` inside `context`.
///
/// # Errors
/// RuntimeError if the context is entered already, when the body did not run, or if the
/// body has left the thread in another one; what it returned is dropped then.
// HOT: proto, call_soon
#[inline]
pub(crate) fn run<R>(py: Python<'_>, context: Live<'_>, body: impl FnOnce() -> R) -> PyResult<R> {
    // SAFETY: a live object; anything but a context is refused with an exception.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } < 0 {
        return Err(PyErr::fetch(py));
    }
    let entered = Entered(context);
    let result = body();
    std::mem::forget(entered);
    // SAFETY: entered above.
    if unsafe { ffi::PyContext_Exit(context.as_ptr()) } < 0 {
        // C code of the program has entered another one and stayed there; or, without the
        // GIL, two threads have entered this one at once.
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
struct Entered<'a>(Live<'a>);

impl Drop for Entered<'_> {
    #[cold]
    fn drop(&mut self) {
        // SAFETY: entered by `run` on this thread.
        if unsafe { ffi::PyContext_Exit(self.0.as_ptr()) } < 0 {
            // SAFETY: an exception is set; the panic goes on.
            unsafe { ffi::PyErr_WriteUnraisable(self.0.as_ptr()) };
        }
    }
}
