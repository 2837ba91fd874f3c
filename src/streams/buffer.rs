//! The `bytearray` that a `StreamReader` collects data in.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;

use crate::py::{Owned, bytes};

/// Most bytes that an empty buffer keeps allocated.
#[cfg(not(any(Py_GIL_DISABLED, Py_3_15)))]
const KEPT_BYTES: ffi::Py_ssize_t = 2048;

/// The `bytearray` of a reader.
pub(crate) struct Buffer(Owned);

impl Buffer {
    /// The object, if it is the kind that asyncio makes.
    #[inline]
    pub(crate) fn of(object: Owned) -> Option<Self> {
        // SAFETY: a live object.
        let exact = unsafe { ffi::PyByteArray_CheckExact(object.as_ptr()) } != 0;
        exact.then_some(Self(object))
    }

    /// The object.
    pub(crate) fn object(&self) -> &Owned {
        &self.0
    }

    /// How many bytes it holds.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        // SAFETY: a bytearray, as checked when made.
        unsafe { ffi::PyByteArray_Size(self.0.as_ptr()) as usize }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// BufferError if a view of it exists.
    #[inline]
    pub(crate) fn extend(&self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        with_critical_section(&self.0.bind(py), || {
            let length = self.len();
            self.resize(py, length + data.len())?;
            // SAFETY: `resize` has just made room for `data` after the first `length` bytes,
            // and `data` is not part of the bytearray.
            unsafe {
                let start = ffi::PyByteArray_AsString(self.0.as_ptr()).cast::<u8>();
                start.add(length).copy_from_nonoverlapping(data.as_ptr(), data.len());
            }
            Ok(())
        })
    }

    /// Takes the first `count` bytes, or all if there are fewer.
    ///
    /// # Errors
    /// BufferError if a view of it exists.
    #[inline]
    pub(crate) fn take(&self, py: Python<'_>, count: usize) -> PyResult<Owned> {
        let taken = with_critical_section(&self.0.bind(py), || {
            let length = self.len();
            let start = self.start();
            // SAFETY: the bytearray holds `length` bytes, and the GIL or the critical section
            // keeps it unchanged meanwhile.
            let held = unsafe { std::slice::from_raw_parts(start, length) };
            bytes::copy(py, held.get(..count).unwrap_or(held))
        })?;
        self.drop_front(py, count)?;
        Ok(taken)
    }

    /// Drops the first `count` bytes, or all if there are fewer.
    ///
    /// # Errors
    /// BufferError if a view of it exists.
    #[inline]
    pub(crate) fn drop_front(&self, py: Python<'_>, count: usize) -> PyResult<()> {
        if count >= self.len() {
            return self.empty(py);
        }
        // SAFETY: a bytearray, as checked when made.
        let result =
            unsafe { ffi::PySequence_DelSlice(self.0.as_ptr(), 0, count as ffi::Py_ssize_t) };
        if result < 0 { Err(PyErr::fetch(py)) } else { Ok(()) }
    }

    /// Drops all bytes. A small buffer keeps its memory: the next message will
    /// need it again.
    #[inline]
    fn empty(&self, py: Python<'_>) -> PyResult<()> {
        #[cfg(not(any(Py_GIL_DISABLED, Py_3_15)))]
        {
            let object = self.0.as_ptr().cast::<ffi::PyByteArrayObject>();
            // SAFETY: a bytearray, as checked when made; without exports nobody points into
            // its memory. CPython leaves an allocation that is larger than the size needs,
            // too, when bytes are deleted from the end.
            unsafe {
                let (allocated, exports) = ((*object).ob_alloc, (*object).ob_exports);
                if exports == 0 && allocated > 1 && allocated <= KEPT_BYTES {
                    (*object).ob_start = (*object).ob_bytes;
                    *(*object).ob_start = 0;
                    (*object).ob_base.ob_size = 0;
                    return Ok(());
                }
            }
        }
        self.resize(py, 0)
    }

    /// The position of the first separator that begins at `offset` or later.
    pub(crate) fn find(&self, py: Python<'_>, separator: &[u8], offset: usize) -> Option<usize> {
        with_critical_section(&self.0.bind(py), || {
            let rest = self.len().checked_sub(offset)?;
            // SAFETY: `offset` is within the bytearray, as `checked_sub` has shown.
            let from = unsafe { self.start().add(offset) };
            // SAFETY: both pairs describe live memory; the GIL or the critical section keeps
            // the bytearray unchanged meanwhile.
            let found = unsafe {
                match separator {
                    [byte] => libc::memchr(from.cast(), (*byte).into(), rest),
                    _ => {
                        libc::memmem(from.cast(), rest, separator.as_ptr().cast(), separator.len())
                    }
                }
            };
            (!found.is_null()).then(|| found.addr() - from.addr() + offset)
        })
    }

    /// Whether the byte at `offset` is this one.
    pub(crate) fn has_byte_at(&self, py: Python<'_>, offset: usize, byte: u8) -> bool {
        with_critical_section(&self.0.bind(py), || {
            // SAFETY: read within the bytearray only.
            offset < self.len() && unsafe { *self.start().add(offset) } == byte
        })
    }

    #[inline]
    fn start(&self) -> *const u8 {
        // SAFETY: a bytearray, as checked when made.
        unsafe { ffi::PyByteArray_AsString(self.0.as_ptr()).cast() }
    }

    fn resize(&self, py: Python<'_>, length: usize) -> PyResult<()> {
        // SAFETY: a bytearray, as checked when made.
        let result = unsafe { ffi::PyByteArray_Resize(self.0.as_ptr(), length as ffi::Py_ssize_t) };
        if result < 0 { Err(PyErr::fetch(py)) } else { Ok(()) }
    }
}
