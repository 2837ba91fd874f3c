//! The classes that take the place of asyncio's: subclasses without slots of
//! their own, so that an instance of asyncio's class can become one of them.
#![allow(unsafe_code)]

#[cfg(Py_GIL_DISABLED)]
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use crate::guarded::Guarded;
use crate::streams::state::{self, Field, StreamState};
use crate::streams::stock::Stock;
use crate::streams::{reader, writer};

/// The native classes.
struct Classes {
    reader: Native,
    writer: Native,
}

/// One of them.
struct Native {
    class: Py<PyType>,
    /// Whether CPython has agreed to turn an instance of asyncio's class into
    /// one of ours.
    #[cfg(Py_GIL_DISABLED)]
    fits: AtomicBool,
}

static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();

#[inline]
fn classes(py: Python<'_>) -> PyResult<&Classes> {
    match CLASSES.get(py) {
        Some(classes) => Ok(classes),
        None => CLASSES.get_or_try_init(py, || load(py)),
    }
}

#[cold]
fn load(py: Python<'_>) -> PyResult<Classes> {
    let stock = Stock::get(py)?;
    Ok(Classes {
        reader: derive(py, &stock.reader, reader::methods(), state::READER)?,
        writer: derive(py, &stock.writer, writer::methods(), state::WRITER)?,
    })
}

/// A class of the same name, module and layout with native methods.
fn derive(
    py: Python<'_>,
    stock: &Guarded,
    methods: Vec<ffi::PyMethodDef>,
    fields: &[Field],
) -> PyResult<Native> {
    let base = stock.class(py);
    let body = PyDict::new(py);
    body.set_item("__slots__", ())?;
    for name in ["__module__", "__qualname__", "__doc__"] {
        body.set_item(name, base.getattr(name)?)?;
    }
    let class = py.get_type::<PyType>().call1((base.name()?, (base,), body))?;
    let class = class.cast_into::<PyType>()?;
    for method in methods {
        let method = Box::leak(Box::new(method));
        // SAFETY: the definition lives for ever, as does the class.
        let descriptor = unsafe {
            Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewMethod(class.as_type_ptr(), method))?
        };
        class.setattr(descriptor.getattr("__name__")?.extract::<String>()?, descriptor)?;
    }
    for attribute in state::descriptors(fields) {
        let attribute = Box::leak(Box::new(attribute));
        // SAFETY: as above.
        let descriptor = unsafe {
            Bound::from_owned_ptr_or_err(
                py,
                ffi::PyDescr_NewGetSet(class.as_type_ptr(), attribute),
            )?
        };
        class.setattr(descriptor.getattr("__name__")?.extract::<String>()?, descriptor)?;
    }
    Ok(Native {
        class: class.unbind(),
        #[cfg(Py_GIL_DISABLED)]
        fits: AtomicBool::new(false),
    })
}

impl Native {
    /// Makes an instance of asyncio's class one of ours.
    ///
    /// # Errors
    /// TypeError where the two classes lay out their instances differently.
    fn adopt(&self, stream: &Bound<'_, PyAny>) -> PyResult<()> {
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

/// Whether an object is one of our readers.
#[inline]
pub(crate) fn is_reader(py: Python<'_>, object: *mut ffi::PyObject) -> bool {
    CLASSES.get(py).is_some_and(|classes| {
        // SAFETY: callers pass live objects; the type is only compared.
        unsafe { ffi::Py_TYPE(object) }.cast() == classes.reader.class.as_ptr()
    })
}

/// Makes a plain and unmodified `StreamReader` one of ours.
pub(crate) fn upgrade_reader(reader: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = reader.py();
    upgrade(reader, &Stock::get(py)?.reader, &classes(py)?.reader)
}

/// Makes a plain and unmodified `StreamWriter` one of ours.
pub(crate) fn upgrade_writer(writer: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = writer.py();
    upgrade(writer, &Stock::get(py)?.writer, &classes(py)?.writer)
}

fn upgrade(stream: &Bound<'_, PyAny>, stock: &Guarded, native: &Native) -> PyResult<()> {
    let py = stream.py();
    if stock.is_exact(stream.as_ptr()) && stock.is_unmodified(py) {
        native.adopt(stream)?;
        StreamState::take_over(stream)?;
    }
    Ok(())
}
