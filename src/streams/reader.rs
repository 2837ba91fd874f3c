//! The coroutine methods of a native `StreamReader`.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::ptr;

use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{Borrowed, ffi};

use crate::coroutine::{self, Body, NativeCoroutine};
use crate::guarded::Guarded;
use crate::py::args::exact_size;
use crate::py::native::{self, method};
use crate::py::{Args, Live, Owned, bytes};
use crate::streams::classes;
use crate::streams::operation::{Operation, Task};
use crate::streams::read::Read;
use crate::streams::state::StreamState;
use crate::streams::stock::Stock;

/// A native stream as its methods get it; `StreamState` finds its state. The cell allows
/// for the reference count, which changes while the object is borrowed.
#[repr(transparent)]
pub(crate) struct Instance(UnsafeCell<ffi::PyObject>);

impl Instance {
    /// The receiver of a method, if `is_ours` accepts it as an instance of a native class.
    #[inline]
    pub(crate) fn of<'a, 'py>(
        receiver: Borrowed<'a, 'py, PyAny>,
        is_ours: impl FnOnce(Python<'py>, Live<'_>) -> bool,
    ) -> Option<&'a Self> {
        let object = Live::from(receiver);
        // SAFETY: the object is alive for 'a, and every object begins with a `PyObject`.
        is_ours(receiver.py(), object).then(|| unsafe { &*object.as_ptr().cast::<Self>() })
    }

    /// A new reference to the object.
    #[inline]
    pub(crate) fn object(&self) -> Owned {
        // SAFETY: a live object during its own method.
        unsafe { Owned::from_borrowed((&raw const *self).cast_mut().cast()) }
    }

    /// Calls what asyncio's class has under this name: its own method, or a patch of it.
    #[cold]
    pub(crate) fn ordinary<'py>(
        &self,
        py: Python<'py>,
        stock: &Guarded,
        name: &str,
        args: Args<'_, 'py>,
    ) -> PyResult<Owned> {
        let object = self.object();
        let function = stock.class(py).getattr(name)?;
        args.forward(&function, &object.bind(py))
    }
}

/// A coroutine for the call: a native one, or that of asyncio's method if its code has to
/// do the work. None if the receiver is not a native reader.
#[inline]
fn start<'py>(
    receiver: Borrowed<'_, 'py, PyAny>,
    name: &str,
    args: Args<'_, 'py>,
    parse: impl FnOnce(&Args<'_, 'py>) -> PyResult<Option<Read>>,
) -> PyResult<Option<Owned>> {
    let py = receiver.py();
    let Some(this) = Instance::of(receiver, classes::has_reader_methods) else { return Ok(None) };
    let stock = &Stock::get(py)?.reader;
    if stock.is_unmodified(py) {
        if let Some(read) = parse(&args)? {
            let reader = this.object();
            if let Some(state) = StreamState::of(py, reader.live(), stock)? {
                let operation = Operation::new(reader, Task::Read(read, state));
                return NativeCoroutine::make(py, coroutine::Operation::Stream(operation))
                    .map(Some);
            }
        }
    }
    this.ordinary(py, stock, name, args).map(Some)
}

// HOT: stream
fn read<'py>(receiver: Borrowed<'_, 'py, PyAny>, args: Args<'_, 'py>) -> PyResult<Option<Owned>> {
    start(receiver, "read", args, |args| {
        let n = match args.positional() {
            [_] if !args.has_keywords() => args.get(0),
            _ => {
                let [n] = args.bind("StreamReader.read", ["n"], 0)?;
                n
            }
        };
        let Some(count) = n.map_or(Some(-1), |n| exact_size(&n)) else { return Ok(None) };
        Ok(Some(match usize::try_from(count) {
            Ok(count) => Read::Some { count, waited: false },
            Err(_) => Read::All { blocks: Vec::new(), waited: false },
        }))
    })
}

fn readexactly<'py>(
    receiver: Borrowed<'_, 'py, PyAny>,
    args: Args<'_, 'py>,
) -> PyResult<Option<Owned>> {
    start(receiver, "readexactly", args, |args| {
        let n = args.one("StreamReader.readexactly", "n")?;
        // asyncio's coroutine raises for a negative size when it is awaited.
        Ok(exact_size(&n)
            .and_then(|n| usize::try_from(n).ok())
            .map(|count| Read::Exactly { count }))
    })
}

fn readuntil<'py>(
    receiver: Borrowed<'_, 'py, PyAny>,
    args: Args<'_, 'py>,
) -> PyResult<Option<Owned>> {
    start(receiver, "readuntil", args, |args| {
        let [separator] = args.bind("StreamReader.readuntil", ["separator"], 0)?;
        let Some(separator) = separator else {
            let newline = bytes::copy(receiver.py(), b"\n")?;
            return Ok(Some(Read::Until { separator: newline, offset: 0 }));
        };
        let plain = bytes::exact(&separator).is_some_and(|content| !content.is_empty());
        Ok(plain.then(|| Read::Until { separator: Owned::from(&*separator), offset: 0 }))
    })
}

fn readline<'py>(
    receiver: Borrowed<'_, 'py, PyAny>,
    args: Args<'_, 'py>,
) -> PyResult<Option<Owned>> {
    start(receiver, "readline", args, |args| {
        args.none("StreamReader.readline")?;
        Ok(Some(Read::Line { offset: 0 }))
    })
}

/// `__setattr__` of a reader with a slot: sets the attribute as usual, but notes one that
/// hides a method.
fn set_attribute<'py>(py: Python<'py>, this: &Instance, args: Args<'_, 'py>) -> PyResult<Owned> {
    let [Some(name), Some(value)] = args.bind("StreamReader.__setattr__", ["name", "value"], 2)?
    else {
        return Ok(Owned::none(py));
    };
    let object = this.object();
    if let Ok(text) = name.cast::<PyString>() {
        let text = text.to_cow()?;
        if Stock::get(py)?.reader.names().any(|hidden| hidden == text) {
            StreamState::find_or_take_over(&object.bind(py))?.expose();
        }
    }
    // SAFETY: live objects; the call raises for a name that is not a string.
    let done =
        unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value.as_ptr()) };
    if done < 0 { Err(PyErr::fetch(py)) } else { Ok(Owned::none(py)) }
}

/// `__dict__` of a reader with a slot. The caller may put anything into it, so from now on
/// an attribute may hide a method.
unsafe extern "C" fn get_dictionary(
    reader: *mut ffi::PyObject,
    _closure: *mut c_void,
) -> *mut ffi::PyObject {
    // SAFETY: CPython reads attributes on attached threads.
    let py = unsafe { Python::assume_attached() };
    native::answer(py, || {
        // SAFETY: CPython passes the object, and keeps it alive for the call.
        let reader = unsafe { Live::new(reader) };
        StreamState::find_or_take_over(&reader.bind(py))?.expose();
        // SAFETY: an instance of a class with a dictionary.
        let dict = unsafe { ffi::PyObject_GenericGetDict(reader.as_ptr(), ptr::null_mut()) };
        // SAFETY: a new reference, or null with an exception.
        unsafe { Owned::from_result(py, dict) }
    })
}

unsafe extern "C" fn set_dictionary(
    reader: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    closure: *mut c_void,
) -> c_int {
    // SAFETY: CPython calls both functions with the same arguments.
    let old = unsafe { get_dictionary(reader, closure) };
    if old.is_null() {
        return -1;
    }
    // SAFETY: `old` is a new reference, which is not needed; CPython's arguments are alive.
    unsafe {
        ffi::Py_DECREF(old);
        ffi::PyObject_GenericSetDict(reader, value, ptr::null_mut())
    }
}

/// The definition of `__dict__`.
pub(crate) fn dictionary() -> ffi::PyGetSetDef {
    ffi::PyGetSetDef {
        name: c"__dict__".as_ptr(),
        get: Some(get_dictionary),
        set: Some(set_dictionary),
        doc: ptr::null(),
        closure: ptr::null_mut(),
    }
}

/// The methods of a reader with a slot that return no coroutines.
pub(crate) fn methods_with_a_slot() -> Vec<ffi::PyMethodDef> {
    vec![method!(
        Instance,
        c"__setattr__",
        set_attribute,
        c"__setattr__($self, name, value, /)\n--\n\nImplement setattr(self, name, value)."
    )]
}

/// The methods of a reader that return coroutines.
pub(crate) const COROUTINES: [(&str, Body); 4] = [
    ("read", read),
    ("readexactly", readexactly),
    ("readuntil", readuntil),
    ("readline", readline),
];
