//! A strong reference that is dropped without asking whether the thread is
//! attached: everything that holds one runs attached by construction.
#![allow(unsafe_code)]

use std::mem;
use std::ptr::NonNull;

use pyo3::prelude::*;
use pyo3::{Borrowed, ffi};

use crate::py::Live;

/// One strong reference.
///
/// PyO3's `Py` reads a thread-local on each drop to learn whether it may touch
/// the count; on the paths that run per message that is most of the cost.
#[repr(transparent)]
pub(crate) struct Owned(NonNull<ffi::PyObject>);

// SAFETY: a reference may be moved to another thread; the counts are only
// touched by threads that are attached to the interpreter.
unsafe impl Send for Owned {}

// SAFETY: through a shared reference the count is only changed by threads that
// are attached, which is what the token of `clone_ref` says.
unsafe impl Sync for Owned {}

impl Owned {
    /// Takes over a reference that a C function returned.
    ///
    /// # Safety
    /// `object` is not null and the caller gives its reference up.
    #[inline]
    pub(crate) unsafe fn from_raw(object: *mut ffi::PyObject) -> Self {
        debug_assert!(!object.is_null(), "an owned reference is never null");
        // SAFETY: not null by the caller's promise.
        Self(unsafe { NonNull::new_unchecked(object) })
    }

    /// Adds a reference to a borrowed object.
    ///
    /// # Safety
    /// `object` is not null and alive.
    #[inline]
    pub(crate) unsafe fn from_borrowed(object: *mut ffi::PyObject) -> Self {
        // SAFETY: alive by the caller's promise.
        unsafe { ffi::Py_INCREF(object) };
        // SAFETY: the reference added above is given up to the new value.
        unsafe { Self::from_raw(object) }
    }

    /// Takes over what a C function returned, or the exception it set.
    ///
    /// # Safety
    /// `object` is a new reference, or null with an exception set.
    #[inline]
    pub(crate) unsafe fn from_result(py: Python<'_>, object: *mut ffi::PyObject) -> PyResult<Self> {
        match NonNull::new(object) {
            Some(object) => Ok(Self(object)),
            None => Err(PyErr::fetch(py)),
        }
    }

    /// The object `None`.
    #[inline]
    pub(crate) fn none(_py: Python<'_>) -> Self {
        // SAFETY: None lives as long as the interpreter.
        unsafe { Self::from_borrowed(ffi::Py_None()) }
    }

    /// `True` or `False`.
    #[inline]
    pub(crate) fn bool(_py: Python<'_>, value: bool) -> Self {
        // SAFETY: both live as long as the interpreter.
        unsafe { Self::from_borrowed(if value { ffi::Py_True() } else { ffi::Py_False() }) }
    }

    /// A `float`.
    #[inline]
    pub(crate) fn float(py: Python<'_>, value: f64) -> PyResult<Self> {
        // SAFETY: the call returns a new reference or sets MemoryError.
        unsafe { Self::from_result(py, ffi::PyFloat_FromDouble(value)) }
    }

    /// The object, for as long as this reference is borrowed.
    #[inline]
    pub(crate) fn live(&self) -> Live<'_> {
        Live::from(self)
    }

    /// The object, for a C function.
    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }

    /// The reference itself, for a C caller.
    #[inline]
    pub(crate) fn into_raw(self) -> *mut ffi::PyObject {
        let object = self.0.as_ptr();
        mem::forget(self);
        object
    }

    /// A second reference.
    #[inline]
    pub(crate) fn clone_ref(&self, _py: Python<'_>) -> Self {
        // SAFETY: this value keeps the object alive.
        unsafe { Self::from_borrowed(self.as_ptr()) }
    }

    /// PyO3's view of the object.
    #[inline]
    pub(crate) fn bind<'a, 'py>(&'a self, py: Python<'py>) -> Borrowed<'a, 'py, PyAny> {
        // SAFETY: this value keeps the object alive for 'a.
        unsafe { Borrowed::from_ptr(py, self.as_ptr()) }
    }

    /// Views PyO3's type as this one.
    #[inline]
    pub(crate) fn of_py(object: &Py<PyAny>) -> &Self {
        // SAFETY: both are one non-null pointer that counts as one reference.
        unsafe { &*(&raw const *object).cast::<Self>() }
    }

    /// Views this as PyO3's type, for `PyVisit`.
    #[inline]
    pub(crate) fn as_py(&self) -> &Py<PyAny> {
        // SAFETY: both are one non-null pointer that counts as one reference.
        unsafe { &*(&raw const *self).cast::<Py<PyAny>>() }
    }
}

impl Drop for Owned {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this value owns one reference, and its thread is attached.
        unsafe { ffi::Py_DECREF(self.0.as_ptr()) }
    }
}

impl From<Bound<'_, PyAny>> for Owned {
    #[inline]
    fn from(object: Bound<'_, PyAny>) -> Self {
        // SAFETY: into_ptr gives up one reference to a live object.
        unsafe { Self::from_raw(object.into_ptr()) }
    }
}

impl From<&Bound<'_, PyAny>> for Owned {
    #[inline]
    fn from(object: &Bound<'_, PyAny>) -> Self {
        // SAFETY: the binding keeps the object alive during the call.
        unsafe { Self::from_borrowed(object.as_ptr()) }
    }
}
