//! Native methods as a class's own.
//!
//! The interpreter calls a native method without a detour (no check of the receiver
//! against the class of the descriptor, no vectorcall in between) only where the
//! receiver is exactly of that class. What users hold are instances of a Python class
//! over a native one, so each call would take the detour: 150 of the 1,800
//! instructions of an echo for `transport.write` alone.
#![allow(unsafe_code)]

use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};

/// Gives a class descriptors of its own for the methods of its native base, and returns
/// it: a class decorator.
///
/// Methods that the class overrides stay what they are, and classes derived from it
/// inherit as before.
///
/// # Errors
/// What Python raises while the methods are made.
#[pyfunction]
pub(crate) fn own_methods(class: Bound<'_, PyType>) -> PyResult<Bound<'_, PyType>> {
    let base = class.getattr("__base__")?;
    let methods = base.getattr("__dict__")?.call_method0("copy")?.cast_into::<PyDict>()?;
    for (name, method) in methods {
        let name = name.cast_into::<PyString>()?;
        if class.getattr(&name)?.is(&method) {
            if let Some(own) = of_class(&class, &method) {
                class.setattr(name, own?)?;
            }
        }
    }
    Ok(class)
}

/// A descriptor for the same method of another class, if it is a native method.
fn of_class<'py>(
    class: &Bound<'py, PyType>,
    method: &Bound<'py, PyAny>,
) -> Option<PyResult<Bound<'py, PyAny>>> {
    // SAFETY: both are live objects.
    if !unsafe { ptr::eq(ffi::Py_TYPE(method.as_ptr()), &raw const ffi::PyMethodDescr_Type) } {
        return None;
    }
    let descriptor = method.as_ptr().cast::<ffi::PyMethodDescrObject>();
    // SAFETY: the type was checked, and the method is of a base of this class; the definitions of classes live as long as the process.
    Some(unsafe {
        let definition = (*descriptor).d_method;
        Bound::from_owned_ptr_or_err(
            class.py(),
            ffi::PyDescr_NewMethod(class.as_type_ptr(), definition),
        )
    })
}
