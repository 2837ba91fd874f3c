//! The attributes of a stream protocol, read in its dictionary.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::py::Owned;

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
}
