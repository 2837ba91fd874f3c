//! Gives a class its own copies of the native methods that it inherits.
//!
//! The interpreter calls a native method directly only if the receiver's class is
//! exactly the one that the method's descriptor names. Otherwise it checks the receiver
//! and goes through vectorcall. Users hold instances of a Python class derived from a
//! native one, so every call would take that detour: for `transport.write` alone 150 of
//! the 1,800 instructions of an echo.
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
    // SAFETY: a live class owns its base. This is read from the class itself and not from
    // its metaclass, because functions of the base will run on the memory of instances.
    let base = unsafe { (*class.as_type_ptr()).tp_base };
    // SAFETY: as above; null for `object` alone.
    let base = unsafe { Bound::from_borrowed_ptr_or_opt(class.py(), base.cast()) };
    let Some(base) = base else { return Ok(class) };
    let base = base.cast_into::<PyType>()?;
    let methods = base.getattr("__dict__")?.call_method0("copy")?.cast_into::<PyDict>()?;
    for (name, method) in methods {
        let name = name.cast_into::<PyString>()?;
        if !class.getattr(&name)?.is(&method) {
            continue;
        }
        if let Some(definition) = definition(&base, &method) {
            // SAFETY: the function is for instances of `base`, which those of `class`
            // are, and the definitions of classes live as long as the process.
            let own = unsafe { ffi::PyDescr_NewMethod(class.as_type_ptr(), definition) };
            // SAFETY: a new reference, or null with an exception.
            let own = unsafe { Bound::from_owned_ptr_or_err(class.py(), own) }?;
            class.setattr(name, own)?;
        }
    }
    Ok(class)
}

/// The definition of a native method, if `base` itself defines it.
fn definition(
    base: &Bound<'_, PyType>,
    method: &Bound<'_, PyAny>,
) -> Option<*mut ffi::PyMethodDef> {
    if !ptr::eq(method.get_type().as_type_ptr(), &raw const ffi::PyMethodDescr_Type) {
        return None;
    }
    let descriptor = method.as_ptr().cast::<ffi::PyMethodDescrObject>();
    // SAFETY: exactly an instance of that type, which has this layout and is immutable.
    let descriptor = unsafe { &*descriptor };
    (descriptor.d_common.d_type == base.as_type_ptr()).then_some(descriptor.d_method)
}
