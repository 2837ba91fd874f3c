//! A reference to an object that something else keeps alive.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr::NonNull;

use pyo3::prelude::*;
use pyo3::types::PyType;
use pyo3::{Borrowed, ffi};

use crate::py::Owned;

/// An object that is alive during `'a`.
///
/// PyO3's `Borrowed` also carries the token of the thread. This is the pointer alone, so a
/// slice of them is what CPython passes to a fastcall method.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Live<'a>(NonNull<ffi::PyObject>, PhantomData<&'a Owned>);

impl<'a> Live<'a> {
    /// The object of a pointer.
    ///
    /// # Safety
    /// `object` is not null, and alive for `'a`.
    #[inline]
    pub(crate) unsafe fn new(object: *mut ffi::PyObject) -> Self {
        debug_assert!(!object.is_null(), "a live object is not null");
        // SAFETY: not null by the caller's promise.
        Self(unsafe { NonNull::new_unchecked(object) }, PhantomData)
    }

    /// `count` objects in a row.
    ///
    /// # Safety
    /// As many pointers, each as [`Live::new`] takes them, stand at `first` for `'a`. With a
    /// count of 0 it may be anything.
    #[inline]
    pub(crate) unsafe fn slice(first: *const *mut ffi::PyObject, count: usize) -> &'a [Self] {
        if count == 0 {
            return &[];
        }
        // SAFETY: the caller's promise; a `Live` is such a pointer.
        unsafe { std::slice::from_raw_parts(first.cast(), count) }
    }

    /// The object `None`.
    #[inline]
    pub(crate) fn none(_py: Python<'a>) -> Self {
        // SAFETY: None lives as long as the interpreter.
        unsafe { Self::new(ffi::Py_None()) }
    }

    /// Whether this is `None`.
    #[inline]
    pub(crate) fn is_none(self) -> bool {
        // SAFETY: None lives as long as the interpreter; the two are only compared.
        self.as_ptr() == unsafe { ffi::Py_None() }
    }

    /// Whether both are the same object.
    #[inline]
    pub(crate) fn is(self, other: Live<'_>) -> bool {
        self.0 == other.0
    }

    /// Whether the object's class is exactly this one.
    #[inline]
    pub(crate) fn is_exactly(self, class: &Py<PyType>) -> bool {
        // SAFETY: a live object; its class is only compared.
        unsafe { ffi::Py_TYPE(self.as_ptr()) }.cast() == class.as_ptr()
    }

    /// Whether the object is an instance of this class, or of one derived from it.
    #[inline]
    pub(crate) fn is_instance_of(self, _py: Python<'_>, class: &Py<PyType>) -> bool {
        // SAFETY: a live object and a live class.
        unsafe { ffi::PyObject_TypeCheck(self.as_ptr(), class.as_ptr().cast()) != 0 }
    }

    /// The object, for a C function.
    #[inline]
    pub(crate) fn as_ptr(self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }

    /// A reference of its own.
    #[inline]
    pub(crate) fn clone_ref(self, _py: Python<'_>) -> Owned {
        // SAFETY: alive, as the lifetime says.
        unsafe { Owned::from_borrowed(self.as_ptr()) }
    }

    /// PyO3's view of the object.
    #[inline]
    pub(crate) fn bind<'py>(self, py: Python<'py>) -> Borrowed<'a, 'py, PyAny> {
        // SAFETY: alive for 'a, as the lifetime says.
        unsafe { Borrowed::from_ptr(py, self.as_ptr()) }
    }
}

impl<'a> From<&'a Owned> for Live<'a> {
    #[inline]
    fn from(object: &'a Owned) -> Self {
        // SAFETY: the reference keeps the object alive for 'a.
        unsafe { Self::new(object.as_ptr()) }
    }
}

impl<'a, T> From<&'a Py<T>> for Live<'a> {
    #[inline]
    fn from(object: &'a Py<T>) -> Self {
        // SAFETY: the reference keeps the object alive for 'a.
        unsafe { Self::new(object.as_ptr()) }
    }
}

impl<'a, T> From<Borrowed<'a, '_, T>> for Live<'a> {
    #[inline]
    fn from(object: Borrowed<'a, '_, T>) -> Self {
        // SAFETY: what the view borrows from keeps the object alive for 'a.
        unsafe { Self::new(object.as_ptr()) }
    }
}

impl<'a, T> From<&'a Bound<'_, T>> for Live<'a> {
    #[inline]
    fn from(object: &'a Bound<'_, T>) -> Self {
        // SAFETY: the binding keeps the object alive for 'a.
        unsafe { Self::new(object.as_ptr()) }
    }
}
