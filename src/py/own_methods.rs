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
    // SAFETY: a live class, whose base it owns; what the metaclass would say does not
    // count, since functions of the base run on the memory of instances.
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

/// What a native method is made of, if it is one of that very class.
fn definition(
    base: &Bound<'_, PyType>,
    method: &Bound<'_, PyAny>,
) -> Option<*mut ffi::PyMethodDef> {
    if !ptr::eq(method.get_type().as_type_ptr(), &raw const ffi::PyMethodDescr_Type) {
        return None;
    }
    let descriptor = method.as_ptr().cast::<ffi::PyMethodDescrObject>();
    // SAFETY: an instance of that type, whose memory is that and never changes.
    let descriptor = unsafe { &*descriptor };
    (descriptor.d_common.d_type == base.as_type_ptr()).then_some(descriptor.d_method)
}
