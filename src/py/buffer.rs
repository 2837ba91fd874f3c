//! Views into the memory of other Python objects, for one call each.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ops::DerefMut;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;

/// The memory of a view. It must not move, because exporters may keep pointers into it.
pub(crate) struct Room(ffi::Py_buffer);

impl Room {
    /// Without a view in it yet.
    #[inline]
    pub(crate) fn new() -> Self {
        Self(ffi::Py_buffer::new())
    }
}

/// A pointer to a [`Room`] that does not move while the pointer is held.
pub(crate) trait Place: DerefMut<Target = Room> {}

/// On the stack, while it is borrowed.
impl Place for &mut Room {}

/// On the heap, wherever the owner moves.
impl Place for Box<Room> {}

/// A contiguous view, released when dropped.
pub(crate) struct View<P: Place>(P);

impl<P: Place> View<P> {
    /// A view to read from.
    ///
    /// # Errors
    /// TypeError where the object has no buffer, BufferError where it is not
    /// contiguous.
    pub(crate) fn readable(mut room: P, object: &Bound<'_, PyAny>) -> PyResult<Self> {
        fill(&mut room, object, ffi::PyBUF_SIMPLE)?;
        Ok(Self(room))
    }

    /// A view to read from, of a contiguous copy where the object's memory has
    /// gaps.
    ///
    /// # Errors
    /// TypeError where the object has no buffer.
    pub(crate) fn readable_any(mut room: P, object: &Bound<'_, PyAny>) -> PyResult<Self> {
        match fill(&mut room, object, ffi::PyBUF_SIMPLE) {
            Err(error) if error.is_instance_of::<PyBufferError>(object.py()) => {
                let view = PyMemoryView::from(object)?;
                fill(&mut room, &view.call_method0("tobytes")?, ffi::PyBUF_SIMPLE)?;
            }
            result => result?,
        }
        Ok(Self(room))
    }

    /// A view to write to.
    ///
    /// # Errors
    /// As for reading; also where the memory is read-only.
    pub(crate) fn writable(mut room: P, object: &Bound<'_, PyAny>) -> PyResult<Self> {
        fill(&mut room, object, ffi::PyBUF_WRITABLE)?;
        Ok(Self(room))
    }

    /// The bytes. Another thread may change them meanwhile, as it may while
    /// `socket.send` runs: the old or the new value is sent then.
    pub(crate) fn bytes(&self) -> &[u8] {
        if self.len() == 0 {
            return &[];
        }
        // SAFETY: a simple view describes `len` contiguous bytes.
        unsafe { std::slice::from_raw_parts(self.0.0.buf.cast(), self.len()) }
    }

    /// Where bytes may be written to; empty for a view that was taken to read.
    pub(crate) fn space(&mut self) -> &mut [MaybeUninit<u8>] {
        if self.0.0.readonly != 0 || self.len() == 0 {
            return &mut [];
        }
        // SAFETY: a writable simple view describes `len` contiguous bytes.
        unsafe { std::slice::from_raw_parts_mut(self.0.0.buf.cast(), self.len()) }
    }

    /// The object that the memory belongs to, which the view holds.
    pub(crate) fn exporter(&self) -> *mut ffi::PyObject {
        self.0.0.obj
    }

    /// How many bytes there are, whatever their format.
    pub(crate) fn len(&self) -> usize {
        self.0.0.len as usize
    }
}

impl<P: Place> Drop for View<P> {
    fn drop(&mut self) {
        // SAFETY: PyObject_GetBuffer filled it, it has not moved since (`Place`), and it
        // is released once.
        unsafe { ffi::PyBuffer_Release(&mut self.0.0) }
    }
}

#[inline]
fn fill(room: &mut Room, object: &Bound<'_, PyAny>, flags: std::ffi::c_int) -> PyResult<()> {
    // SAFETY: the object is alive and the view is ours to be filled.
    if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &mut room.0, flags) } < 0 {
        return Err(PyErr::fetch(object.py()));
    }
    Ok(())
}

/// Whether an object has a buffer at all.
pub(crate) fn has_buffer(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a live object.
    unsafe { ffi::PyObject_CheckBuffer(object.as_ptr()) != 0 }
}
