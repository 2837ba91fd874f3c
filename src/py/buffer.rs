//! Views into the memory of other Python objects, for one call each.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::pin::Pin;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;

/// A contiguous view, released when dropped. The view is pinned because
/// exporters may keep pointers into it.
pub(crate) struct View(Pin<Box<ffi::Py_buffer>>);

impl View {
    /// A view to read from.
    ///
    /// # Errors
    /// TypeError where the object has no buffer, BufferError where it is not
    /// contiguous.
    pub(crate) fn readable(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::get(object, ffi::PyBUF_SIMPLE)
    }

    /// A view to read from, of a contiguous copy where the object's memory has
    /// gaps.
    ///
    /// # Errors
    /// TypeError where the object has no buffer.
    pub(crate) fn readable_any(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        match Self::readable(object) {
            Err(error) if error.is_instance_of::<PyBufferError>(object.py()) => {
                let view = PyMemoryView::from(object)?;
                Self::readable(&view.call_method0("tobytes")?)
            }
            result => result,
        }
    }

    /// A view to write to.
    ///
    /// # Errors
    /// As for reading; also where the memory is read-only.
    pub(crate) fn writable(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::get(object, ffi::PyBUF_WRITABLE)
    }

    fn get(object: &Bound<'_, PyAny>, flags: std::ffi::c_int) -> PyResult<Self> {
        let mut view = Box::pin(ffi::Py_buffer::new());
        // SAFETY: the object is alive and the view is ours to be filled.
        if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &mut *view, flags) } < 0 {
            return Err(PyErr::fetch(object.py()));
        }
        Ok(Self(view))
    }

    /// The bytes. Another thread may change them meanwhile, as it may while
    /// `socket.send` runs: what is sent is then either of the two.
    pub(crate) fn bytes(&self) -> &[u8] {
        if self.len() == 0 {
            return &[];
        }
        // SAFETY: a simple view describes `len` contiguous bytes.
        unsafe { std::slice::from_raw_parts(self.0.buf.cast(), self.len()) }
    }

    /// Where bytes may be written to; empty for a view that was taken to read.
    pub(crate) fn space(&mut self) -> &mut [MaybeUninit<u8>] {
        if self.0.readonly != 0 || self.len() == 0 {
            return &mut [];
        }
        // SAFETY: a writable simple view describes `len` contiguous bytes.
        unsafe { std::slice::from_raw_parts_mut(self.0.buf.cast(), self.len()) }
    }

    /// The object that the memory belongs to, which the view holds.
    pub(crate) fn exporter(&self) -> *mut ffi::PyObject {
        self.0.obj
    }

    /// How many bytes there are, whatever their format.
    pub(crate) fn len(&self) -> usize {
        self.0.len as usize
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: filled by PyObject_GetBuffer and released once.
        unsafe { ffi::PyBuffer_Release(&mut *self.0) }
    }
}

/// Whether an object has a buffer at all.
pub(crate) fn has_buffer(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a live object.
    unsafe { ffi::PyObject_CheckBuffer(object.as_ptr()) != 0 }
}
