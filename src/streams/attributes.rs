//! The attributes of a stream object, read and written in its dictionary.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::PyString;

use crate::py::{Owned, bytes};
use crate::streams::stock::Guarded;

/// What `StreamReader.__init__` sets. An instance with more attributes may
/// hide a method of its class.
const READER_ATTRIBUTES: ffi::Py_ssize_t = 8;

/// The dictionary of one object.
pub(crate) struct Attributes(Owned);

impl Attributes {
    /// The dictionary of a direct instance of a class written in Python.
    #[inline]
    pub(crate) fn of(py: Python<'_>, object: &Owned) -> PyResult<Self> {
        // SAFETY: a live object; the call answers with a new reference.
        let dict = unsafe { ffi::PyObject_GenericGetDict(object.as_ptr(), std::ptr::null_mut()) };
        // SAFETY: a new reference, or null with an exception.
        unsafe { Owned::from_result(py, dict) }.map(Self)
    }

    /// One attribute, unless it is missing.
    #[inline]
    pub(crate) fn get(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyString>,
    ) -> PyResult<Option<Owned>> {
        let mut value = std::ptr::null_mut();
        // SAFETY: a dictionary and a string, both alive; the value is a new
        // reference, or null.
        let found =
            unsafe { ffi::compat::PyDict_GetItemRef(self.0.as_ptr(), name.as_ptr(), &mut value) };
        match found {
            1 => {
                // SAFETY: found, so a new reference.
                Ok(Some(unsafe { Owned::from_raw(value) }))
            }
            0 => Ok(None),
            _ => Err(PyErr::fetch(py)),
        }
    }

    /// One attribute of `object`, whose dictionary this is.
    ///
    /// # Errors
    /// AttributeError, in Python's words, where it is missing.
    #[inline]
    pub(crate) fn require(
        &self,
        py: Python<'_>,
        object: &Owned,
        name: &Bound<'_, PyString>,
    ) -> PyResult<Owned> {
        match self.get(py, name)? {
            Some(value) => Ok(value),
            None => object.bind(py).getattr(name).map(Owned::from),
        }
    }

    /// An attribute that is exactly `True` or `False`.
    #[inline]
    pub(crate) fn flag(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyString>,
    ) -> PyResult<Option<bool>> {
        let value = self.get(py, name)?;
        Ok(value.and_then(|value| {
            // SAFETY: both live as long as the interpreter; only compared.
            let (yes, no) = unsafe { (ffi::Py_True(), ffi::Py_False()) };
            let value = value.as_ptr();
            (value == yes || value == no).then_some(value == yes)
        }))
    }

    /// Sets one attribute.
    #[inline]
    pub(crate) fn set(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyString>,
        value: &Owned,
    ) -> PyResult<()> {
        // SAFETY: a dictionary, a string and a value, all alive.
        let result = unsafe { ffi::PyDict_SetItem(self.0.as_ptr(), name.as_ptr(), value.as_ptr()) };
        if result < 0 { Err(PyErr::fetch(py)) } else { Ok(()) }
    }

    /// Whether an attribute of the instance hides one of the class's members.
    #[inline]
    pub(crate) fn hide_members(&self, py: Python<'_>, class: &Guarded) -> PyResult<bool> {
        // SAFETY: a live dictionary.
        if unsafe { ffi::PyDict_Size(self.0.as_ptr()) } <= READER_ATTRIBUTES {
            return Ok(false);
        }
        self.search(py, class)
    }

    #[cold]
    fn search(&self, py: Python<'_>, class: &Guarded) -> PyResult<bool> {
        for name in class.names() {
            if self.get(py, &PyString::intern(py, name))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The buffer of a reader, if it is the `bytearray` that asyncio makes.
    #[inline]
    pub(crate) fn buffer(&self, py: Python<'_>) -> PyResult<Option<Buffer>> {
        Ok(self.get(py, intern!(py, "_buffer"))?.and_then(Buffer::of))
    }

    /// The limit of a reader, if it is a plain number of bytes.
    #[inline]
    pub(crate) fn limit(&self, py: Python<'_>) -> PyResult<Option<usize>> {
        let Some(limit) = self.get(py, intern!(py, "_limit"))? else { return Ok(None) };
        // SAFETY: a live object.
        if unsafe { ffi::PyLong_CheckExact(limit.as_ptr()) } == 0 {
            return Ok(None);
        }
        // SAFETY: as above.
        let size = unsafe { ffi::PyLong_AsSsize_t(limit.as_ptr()) };
        if size < 0 {
            // Out of range, or negative: asyncio's code knows what to do.
            drop(PyErr::take(py));
            return Ok(None);
        }
        Ok(Some(size as usize))
    }
}

/// The `bytearray` of a reader.
pub(crate) struct Buffer(Owned);

impl Buffer {
    #[inline]
    fn of(object: Owned) -> Option<Self> {
        // SAFETY: a live object.
        let exact = unsafe { ffi::PyByteArray_CheckExact(object.as_ptr()) } != 0;
        exact.then_some(Self(object))
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
    /// BufferError where somebody holds a view of it.
    #[inline]
    pub(crate) fn extend(&self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        with_critical_section(&self.0.bind(py), || {
            let length = self.len();
            self.resize(py, length + data.len())?;
            // SAFETY: the bytearray has just been given room for so many bytes,
            // and `data` is memory of its own.
            unsafe {
                let start = ffi::PyByteArray_AsString(self.0.as_ptr()).cast::<u8>();
                start.add(length).copy_from_nonoverlapping(data.as_ptr(), data.len());
            }
            Ok(())
        })
    }

    /// Takes the first `count` bytes, or all where there are fewer.
    ///
    /// # Errors
    /// BufferError where somebody holds a view of it.
    #[inline]
    pub(crate) fn take(&self, py: Python<'_>, count: usize) -> PyResult<Owned> {
        let taken = with_critical_section(&self.0.bind(py), || {
            let length = self.len();
            let start = self.start();
            // SAFETY: the bytearray holds `length` bytes and stays as it is
            // meanwhile.
            let held = unsafe { std::slice::from_raw_parts(start, length) };
            bytes::copy(py, held.get(..count).unwrap_or(held))
        })?;
        self.drop_front(py, count)?;
        Ok(taken)
    }

    /// Drops the first `count` bytes, or all where there are fewer.
    ///
    /// # Errors
    /// BufferError where somebody holds a view of it.
    #[inline]
    pub(crate) fn drop_front(&self, py: Python<'_>, count: usize) -> PyResult<()> {
        if count >= self.len() {
            return self.resize(py, 0);
        }
        // SAFETY: a bytearray, as checked when made.
        let result =
            unsafe { ffi::PySequence_DelSlice(self.0.as_ptr(), 0, count as ffi::Py_ssize_t) };
        if result < 0 { Err(PyErr::fetch(py)) } else { Ok(()) }
    }

    /// Where a separator begins, from `offset` on.
    pub(crate) fn find(&self, py: Python<'_>, separator: &[u8], offset: usize) -> Option<usize> {
        with_critical_section(&self.0.bind(py), || {
            let rest = self.len().checked_sub(offset)?;
            // SAFETY: `offset` is within the bytearray.
            let from = unsafe { self.start().add(offset) };
            // SAFETY: both describe memory that is alive and stays as it is.
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
