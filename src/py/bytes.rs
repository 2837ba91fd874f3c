//! Exact `bytes` objects: making them, and reading what is in them.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;

use crate::py::Owned;

/// An exact copy of `data`.
#[inline]
pub(crate) fn copy(py: Python<'_>, data: &[u8]) -> PyResult<Owned> {
    let size = data.len() as ffi::Py_ssize_t;
    // SAFETY: pointer and size describe the slice.
    unsafe { Owned::from_result(py, ffi::PyBytes_FromStringAndSize(data.as_ptr().cast(), size)) }
}

/// The content of an exact `bytes` object; None for any other object.
#[inline]
pub(crate) fn exact<'a>(object: &'a Bound<'_, PyAny>) -> Option<&'a [u8]> {
    // SAFETY: the object is alive.
    if unsafe { ffi::PyBytes_CheckExact(object.as_ptr()) } == 0 {
        return None;
    }
    // SAFETY: it is an exact bytes object, alive for 'a.
    Some(unsafe { content(object.as_ptr()) })
}

/// The content of a `bytes` object.
///
/// # Safety
/// `object` is an instance of `bytes` and outlives `'a`.
#[inline]
pub(crate) unsafe fn content<'a>(object: *mut ffi::PyObject) -> &'a [u8] {
    // SAFETY: a bytes object by the caller's promise.
    let start = unsafe { ffi::PyBytes_AS_STRING(object) }.cast();
    // SAFETY: as above.
    let size = unsafe { ffi::Py_SIZE(object) } as usize;
    // SAFETY: a bytes object holds that many bytes, which never change.
    unsafe { std::slice::from_raw_parts(start, size) }
}
