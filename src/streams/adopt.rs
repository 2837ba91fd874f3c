//! Readers that asyncio has made and somebody holds already: they become
//! instances of a native class.
#![allow(unsafe_code)]

#[cfg(Py_GIL_DISABLED)]
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
#[cfg(Py_GIL_DISABLED)]
use pyo3::types::PyDict;
use pyo3::types::PyType;

/// A class that lays out its instances as asyncio's does.
pub(crate) struct Adopting {
    class: Py<PyType>,
    /// Whether CPython has agreed to turn an instance of asyncio's class into
    /// one of ours.
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
    pub(crate) fn is_class_of(&self, object: *mut ffi::PyObject) -> bool {
        // SAFETY: callers pass live objects; the type is only compared.
        unsafe { ffi::Py_TYPE(object) }.cast() == self.class.as_ptr()
    }

    pub(crate) fn is_base_of(&self, object: *mut ffi::PyObject) -> bool {
        // SAFETY: a live object and a live class.
        unsafe { ffi::PyObject_TypeCheck(object, self.class.as_ptr().cast()) != 0 }
    }

    /// Makes an instance of asyncio's class one of ours.
    ///
    /// # Errors
    /// TypeError where the two classes lay out their instances differently.
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

    /// What the assignment to `__class__` does, but for stopping all threads:
    /// where loops in several threads accept connections, that would make them
    /// wait for each other twice for every one.
    #[cfg(Py_GIL_DISABLED)]
    fn adopt_quietly(&self, stream: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = stream.py();
        // Values that lie in the object itself are found by its class; in a
        // dictionary that was put there, by nothing else.
        let name = intern!(py, "__dict__");
        let attributes = stream.getattr(name)?.cast_into::<PyDict>()?.copy()?;
        stream.setattr(name, attributes)?;
        let old = stream.get_type();
        let class = self.class.clone_ref(py).into_ptr();
        // A factory has just made the stream on this thread; whoever may hold it
        // on another finds either class, and its attributes in the dictionary by
        // both. The collector runs while this thread is stopped, which it is
        // nowhere in between.
        // SAFETY: CPython has found the layouts of the two classes to be the
        // same, and the references that an object has of its class change hands.
        unsafe {
            let slot = AtomicPtr::from_ptr(&raw mut (*stream.as_ptr()).ob_type);
            slot.store(class.cast(), Ordering::Release);
            ffi::Py_DECREF(old.as_ptr());
        }
        Ok(())
    }
}
