//! Reads the attributes of a stream or its protocol from its dictionary.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicIsize, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::py::{Live, Owned};

/// The dictionary of one object.
pub(crate) struct Attributes(Owned);

/// The position at which an attribute was last found in the dictionary of an instance. It
/// is mostly the same for all, since `__init__` sets attributes in the same order.
pub(crate) struct Place(AtomicIsize);

impl Place {
    pub(crate) const fn new() -> Self {
        Self(AtomicIsize::new(0))
    }
}

impl Attributes {
    /// The dictionary of an instance of a class that gives it one.
    #[inline]
    pub(crate) fn of(py: Python<'_>, object: Live<'_>) -> PyResult<Self> {
        // SAFETY: a live object; the call answers with a new reference.
        let dict = unsafe { ffi::PyObject_GenericGetDict(object.as_ptr(), ptr::null_mut()) };
        // SAFETY: a new reference, or null with an exception.
        unsafe { Owned::from_result(py, dict) }.map(Self)
    }

    /// How many attributes there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        // SAFETY: a live dictionary.
        unsafe { ffi::PyDict_Size(self.0.as_ptr()) as usize }
    }

    /// One attribute, unless it is missing. Looks at its place first, which costs a third
    /// of a search.
    // HOT: stream
    #[inline]
    pub(crate) fn get(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyString>,
        place: &Place,
    ) -> PyResult<Option<Owned>> {
        // Without the GIL, another thread could change the dictionary meanwhile.
        if cfg!(not(Py_GIL_DISABLED)) {
            let position = place.0.load(Ordering::Relaxed);
            if let Some((found, value, _)) = self.entry(py, position) {
                if found == name.as_ptr() {
                    return Ok(Some(value));
                }
            }
            self.learn(py, name, place);
        }
        self.search(py, name)
    }

    /// One attribute, unless it is missing. Without a place, for one that mostly is.
    pub(crate) fn search(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyString>,
    ) -> PyResult<Option<Owned>> {
        let mut value = ptr::null_mut();
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

    /// The entry at a position: its name, which is only to be compared, its
    /// value and the position of the next one.
    #[inline]
    fn entry(
        &self,
        _py: Python<'_>,
        position: isize,
    ) -> Option<(*mut ffi::PyObject, Owned, isize)> {
        let (mut next, mut name, mut value) = (position, ptr::null_mut(), ptr::null_mut());
        // SAFETY: a live dictionary, which the GIL keeps unchanged meanwhile; the call
        // returns 0 for a position that it does not have.
        if unsafe { ffi::PyDict_Next(self.0.as_ptr(), &mut next, &mut name, &mut value) } == 0 {
            return None;
        }
        // SAFETY: borrowed from the dictionary, which is alive.
        Some((name, unsafe { Owned::from_borrowed(value) }, next))
    }

    #[cold]
    fn learn(&self, py: Python<'_>, name: &Bound<'_, PyString>, place: &Place) {
        let mut position = 0;
        while let Some((found, _, next)) = self.entry(py, position) {
            if found == name.as_ptr() {
                return place.0.store(position, Ordering::Relaxed);
            }
            position = next;
        }
    }

    /// Whether an attribute is exactly `False`.
    // HOT: stream
    #[inline]
    pub(crate) fn is_false(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyString>,
        place: &Place,
    ) -> PyResult<bool> {
        // SAFETY: False lives as long as the interpreter; only compared.
        let no = unsafe { ffi::Py_False() };
        Ok(self.get(py, name, place)?.is_some_and(|value| value.as_ptr() == no))
    }
}
