//! `bytes` objects that data is received into, and exact ones made of it.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use pyo3::ffi;
use pyo3::prelude::*;

use crate::py::Owned;

unsafe extern "C" {
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, size: ffi::Py_ssize_t) -> std::ffi::c_int;
}

/// An exact copy of `data`.
#[inline]
pub(crate) fn copy(py: Python<'_>, data: &[u8]) -> PyResult<Owned> {
    let size = data.len() as ffi::Py_ssize_t;
    // SAFETY: pointer and size describe the slice.
    unsafe { Owned::from_result(py, ffi::PyBytes_FromStringAndSize(data.as_ptr().cast(), size)) }
}

/// The content of an exact `bytes` object, else none.
#[inline]
pub(crate) fn exact<'a>(object: &'a Bound<'_, PyAny>) -> Option<&'a [u8]> {
    // SAFETY: the object is alive.
    if unsafe { ffi::PyBytes_CheckExact(object.as_ptr()) } == 0 {
        return None;
    }
    // SAFETY: it is an exact bytes object, alive for 'a.
    Some(unsafe { content(object.as_ptr()) })
}

/// The bytes behind a `bytes` object.
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

/// A `bytes` object under construction: nobody else has seen it.
pub(crate) struct Filling {
    object: Owned,
    capacity: usize,
}

impl Filling {
    /// Room for `capacity` bytes (at least 2, so that the object is no shared
    /// one), none of them set.
    pub(crate) fn new(py: Python<'_>, capacity: usize) -> PyResult<Self> {
        debug_assert!(capacity > 1, "bytes of length {capacity} are shared objects");
        let size = capacity as ffi::Py_ssize_t;
        // SAFETY: without a source the content is left unset.
        let object = unsafe {
            Owned::from_result(py, ffi::PyBytes_FromStringAndSize(std::ptr::null(), size))?
        };
        Ok(Self { object, capacity })
    }

    /// The room from `start` on.
    #[inline]
    pub(crate) fn space(&mut self, start: usize) -> &mut [MaybeUninit<u8>] {
        let start = start.min(self.capacity);
        // SAFETY: the object is not shared, so its content may be written.
        let memory = unsafe { ffi::PyBytes_AS_STRING(self.object.as_ptr()) }.cast_mut();
        // SAFETY: the object holds `capacity` bytes, of which `start` are left out.
        unsafe { std::slice::from_raw_parts_mut(memory.add(start).cast(), self.capacity - start) }
    }

    /// Copies bytes to the front.
    pub(crate) fn begin_with(&mut self, data: &[u8]) {
        for (to, from) in self.space(0).iter_mut().zip(data) {
            to.write(*from);
        }
    }

    /// The object, cut to the bytes that were set.
    ///
    /// # Safety
    /// The first `length` bytes have been written.
    pub(crate) unsafe fn finish(self, py: Python<'_>, length: usize) -> PyResult<Owned> {
        debug_assert!(length <= self.capacity, "{length} of {} bytes", self.capacity);
        if length == self.capacity {
            return Ok(self.object);
        }
        let mut object = self.object.into_raw();
        // SAFETY: the only reference; on failure the call frees the object,
        // nulls the pointer and sets MemoryError.
        unsafe { _PyBytes_Resize(&mut object, length as ffi::Py_ssize_t) };
        // SAFETY: still the only reference, or null with an exception.
        unsafe { Owned::from_result(py, object) }
    }
}
