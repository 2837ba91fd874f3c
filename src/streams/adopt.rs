//! Turns readers that asyncio has made, and that others may hold already, into instances
//! of a native class.
#![cfg_attr(Py_GIL_DISABLED, allow(unsafe_code))]

#[cfg(Py_GIL_DISABLED)]
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

#[cfg(Py_GIL_DISABLED)]
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
#[cfg(Py_GIL_DISABLED)]
use pyo3::types::PyDict;
use pyo3::types::PyType;

use crate::py::Live;

/// A native class with the memory layout of asyncio's.
pub(crate) struct Adopting {
    class: Py<PyType>,
    /// Whether CPython has once accepted the class for an instance of asyncio's, which
    /// shows that the layouts are the same.
    #[cfg(Py_GIL_DISABLED)]
    fits: AtomicBool,
}

impl Adopting {
    pub(crate) fn new(class: Bound<'_, PyType>) -> Self {
        Self {
            class: class.unbind(),
            #[cfg(Py_GIL_DISABLED)]
            fits: AtomicBool::new(false),
        }
    }

    #[inline]
    pub(crate) fn is_class_of(&self, object: Live<'_>) -> bool {
        object.is_exactly(&self.class)
    }

    pub(crate) fn is_base_of(&self, py: Python<'_>, object: Live<'_>) -> bool {
        object.is_instance_of(py, &self.class)
    }

    /// Makes an instance of asyncio's class one of ours.
    ///
    /// # Errors
    /// TypeError if the two classes have different memory layouts.
    pub(crate) fn adopt(&self, stream: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = stream.py();
        #[cfg(Py_GIL_DISABLED)]
        if self.fits.load(Ordering::Relaxed) {
            return self.adopt_quietly(stream);
        }
        stream.setattr(intern!(py, "__class__"), &self.class)?;
        #[cfg(Py_GIL_DISABLED)]
        self.fits.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Does what assigning `__class__` does, without stopping all threads. Loops that
    /// accept connections on several threads would otherwise wait for each other twice
    /// per connection.
    #[cfg(Py_GIL_DISABLED)]
    fn adopt_quietly(&self, stream: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = stream.py();
        // CPython finds attribute values that lie in the object itself through its class,
        // so they move to a dictionary first, which both classes find.
        let name = intern!(py, "__dict__");
        let attributes = stream.getattr(name)?.cast_into::<PyDict>()?.copy()?;
        stream.setattr(name, attributes)?;
        let old = stream.get_type();
        let class = self.class.clone_ref(py).into_ptr();
        // A factory has just made the stream on this thread. Another thread that may hold
        // it sees either class, and with both finds the attributes in the dictionary. The
        // collector runs only while this thread is stopped, which it is not between these
        // steps.
        // SAFETY: `fits` shows that CPython has found the layouts to be the same. The
        // object's reference to its old class is exchanged for one to the new class.
        unsafe {
            let slot = AtomicPtr::from_ptr(&raw mut (*stream.as_ptr()).ob_type);
            slot.store(class.cast(), Ordering::Release);
            ffi::Py_DECREF(old.as_ptr());
        }
        Ok(())
    }
}
