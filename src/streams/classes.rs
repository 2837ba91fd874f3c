//! The native classes of streams: subclasses of asyncio's with the same names.
//!
//! A server's streams are created as instances of classes with a slot for their state.
//! A reader that user code may have seen already stays the same object and becomes an
//! instance of a class without slots.
#![allow(unsafe_code)]

use std::sync::atomic::AtomicPtr;

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use crate::coroutine::{Body, CoroutineMethod};
use crate::py::{Live, Owned, native};
use crate::streams::adopt::Adopting;
use crate::streams::fields::{self, Field};
use crate::streams::stock::Stock;
use crate::streams::{reader, writer};

/// The native classes.
pub(crate) struct Classes {
    /// What existing readers of asyncio's are turned into.
    pub(crate) adopted_reader: Adopting,
    /// What a server's readers are created as.
    pub(crate) reader: Slotted,
    pub(crate) writer: Slotted,
}

/// A class that adds one slot to the memory of asyncio's.
pub(crate) struct Slotted {
    class: Py<PyType>,
    offset: usize,
}

static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();

impl Classes {
    /// The classes; made on first use.
    ///
    /// # Errors
    /// What Python raises while a class is made.
    #[inline]
    pub(crate) fn get(py: Python<'_>) -> PyResult<&Self> {
        match CLASSES.get(py) {
            Some(classes) => Ok(classes),
            None => CLASSES.get_or_try_init(py, || Self::load(py)),
        }
    }

    #[cold]
    fn load(py: Python<'_>) -> PyResult<Self> {
        let Stock { reader, writer, .. } = Stock::get(py)?;
        let base = reader.class(py);
        let body = class_body(reader.class(py), &[])?;
        let adopted = derive(base, body, vec![], &reader::COROUTINES, fields::READER)?;
        let body = class_body(reader.class(py), &[SLOT])?;
        body.set_item("__dict__", get_set(base, reader::dictionary())?)?;
        let methods = reader::methods_with_a_slot();
        let served = derive(base, body, methods, &reader::COROUTINES, fields::READER)?;
        let body = class_body(writer.class(py), &[SLOT])?;
        let (base, methods) = (writer.class(py), writer::methods());
        let writer = derive(base, body, methods, &writer::COROUTINES, fields::WRITER)?;
        Ok(Self {
            adopted_reader: Adopting::new(adopted),
            reader: Slotted::new(served)?,
            writer: Slotted::new(writer)?,
        })
    }
}

/// The name of the slot, whose descriptor is deleted from the class.
const SLOT: &str = "__tokioloop__";

/// The namespace for a class that looks like asyncio's.
fn class_body<'py>(base: &Bound<'py, PyType>, slots: &[&str]) -> PyResult<Bound<'py, PyDict>> {
    let body = PyDict::new(base.py());
    body.set_item("__slots__", slots)?;
    for name in ["__module__", "__qualname__", "__doc__"] {
        body.set_item(name, base.getattr(name)?)?;
    }
    Ok(body)
}

fn get_set<'py>(
    class: &Bound<'py, PyType>,
    definition: ffi::PyGetSetDef,
) -> PyResult<Bound<'py, PyAny>> {
    let definition = Box::leak(Box::new(definition));
    // SAFETY: the definition was leaked, so it lives for ever; the class is alive.
    unsafe {
        Bound::from_owned_ptr_or_err(
            class.py(),
            ffi::PyDescr_NewGetSet(class.as_type_ptr(), definition),
        )
    }
}

fn derive<'py>(
    base: &Bound<'py, PyType>,
    body: Bound<'py, PyDict>,
    methods: Vec<ffi::PyMethodDef>,
    coroutines: &[(&str, Body)],
    fields: &[Field],
) -> PyResult<Bound<'py, PyType>> {
    let py = base.py();
    let class = py.get_type::<PyType>().call1((base.name()?, (base,), body))?;
    let class = class.cast_into::<PyType>()?;
    for method in methods {
        let method = Box::leak(Box::new(method));
        // SAFETY: the definition was leaked, so it lives for ever; the class is alive.
        let descriptor = unsafe {
            Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewMethod(class.as_type_ptr(), method))?
        };
        class.setattr(descriptor.getattr("__name__")?.extract::<String>()?, descriptor)?;
    }
    for (name, body) in coroutines {
        let method = CoroutineMethod::make(base.getattr(*name)?, *body)?;
        class.setattr(*name, method.bind(py))?;
    }
    for attribute in fields::descriptors(fields) {
        let descriptor = get_set(&class, attribute)?;
        class.setattr(descriptor.getattr("__name__")?.extract::<String>()?, descriptor)?;
    }
    Ok(class)
}

impl Slotted {
    fn new(class: Bound<'_, PyType>) -> PyResult<Self> {
        // SAFETY: type objects are alive, and their sizes never change.
        let (base, size) = unsafe {
            let class = class.as_type_ptr();
            ((*(*class).tp_base).tp_basicsize as usize, (*class).tp_basicsize as usize)
        };
        // If exactly one word was added, it is the slot.
        if size != base + size_of::<AtomicPtr<ffi::PyObject>>() {
            return Err(PyImportError::new_err("this interpreter lays out slots in another way"));
        }
        // Without its descriptor, only native code can fill or empty the slot.
        class.delattr(SLOT)?;
        Ok(Self { class: class.unbind(), offset: base })
    }

    /// Makes an instance without calling `__init__`.
    pub(crate) fn new_instance(&self, py: Python<'_>) -> PyResult<Owned> {
        // SAFETY: classes made by `type` have this allocator.
        unsafe { native::new_instance(self.class.bind(py)) }
    }

    #[inline]
    fn is_class_of(&self, object: Live<'_>) -> bool {
        object.is_exactly(&self.class)
    }

    fn is_base_of(&self, py: Python<'_>, object: Live<'_>) -> bool {
        object.is_instance_of(py, &self.class)
    }
}

/// The slot of a stream, if its class has one. It is empty before `__init__`, is filled
/// once and then owns a reference.
// HOT: stream
#[inline]
pub(crate) fn slot<'a>(py: Python<'_>, stream: Live<'a>) -> Option<&'a AtomicPtr<ffi::PyObject>> {
    let Classes { reader, writer, adopted_reader } = CLASSES.get(py)?;
    let offset = if reader.is_class_of(stream) {
        reader.offset
    } else if writer.is_class_of(stream) {
        writer.offset
    } else if adopted_reader.is_class_of(stream) {
        return None;
    } else {
        of_subclass(py, reader, writer, stream)?
    };
    // SAFETY: the class of the stream, which is alive for 'a, has its slot at this offset.
    Some(unsafe { &*stream.as_ptr().byte_add(offset).cast::<AtomicPtr<ffi::PyObject>>() })
}

/// The slot's offset in an instance of a subclass of ours.
#[cold]
fn of_subclass(
    py: Python<'_>,
    reader: &Slotted,
    writer: &Slotted,
    stream: Live<'_>,
) -> Option<usize> {
    [reader, writer].iter().find(|class| class.is_base_of(py, stream)).map(|class| class.offset)
}

/// Whether an object is one of our readers.
#[inline]
pub(crate) fn is_reader(py: Python<'_>, object: Live<'_>) -> bool {
    CLASSES.get(py).is_some_and(|classes| {
        classes.reader.is_class_of(object) || classes.adopted_reader.is_class_of(object)
    })
}

/// Whether an object has the methods of our readers.
#[inline]
pub(crate) fn has_reader_methods(py: Python<'_>, object: Live<'_>) -> bool {
    is_reader(py, object)
        || CLASSES.get(py).is_some_and(|classes| {
            classes.reader.is_base_of(py, object) || classes.adopted_reader.is_base_of(py, object)
        })
}

/// Whether an object has the methods of our writers.
#[inline]
pub(crate) fn has_writer_methods(py: Python<'_>, object: Live<'_>) -> bool {
    CLASSES.get(py).is_some_and(|Classes { writer, .. }| {
        writer.is_class_of(object) || writer.is_base_of(py, object)
    })
}
