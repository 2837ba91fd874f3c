//! The coroutine methods of a native `StreamReader`.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::coroutine::{self, NativeCoroutine};
use crate::guarded::Guarded;
use crate::py::args::exact_size;
use crate::py::native::{self, method};
use crate::py::{Args, Owned, bytes};
use crate::streams::operation::{Operation, Task};
use crate::streams::read::Read;
use crate::streams::state::StreamState;
use crate::streams::stock::Stock;

/// A native stream as its methods get it; `StreamState` finds its state. Its count
/// of references changes while it is borrowed, hence the cell.
#[repr(transparent)]
pub(crate) struct Instance(UnsafeCell<ffi::PyObject>);

impl Instance {
    /// A new reference to the object.
    #[inline]
    pub(crate) fn object(&self) -> Owned {
        // SAFETY: a live object during its own method.
        unsafe { Owned::from_borrowed((&raw const *self).cast_mut().cast()) }
    }

    /// Calls what asyncio's class has under this name: the method that a native
    /// one stands in for, or what somebody has put in its place.
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

/// A coroutine for the call, unless asyncio's own code has to make it.
#[inline]
fn start<'py>(
    py: Python<'py>,
    this: &Instance,
    name: &str,
    args: Args<'_, 'py>,
    parse: impl FnOnce(&Args<'_, 'py>) -> PyResult<Option<Read>>,
) -> PyResult<Owned> {
    let stock = &Stock::get(py)?.reader;
    if stock.is_unmodified(py) {
        if let Some(read) = parse(&args)? {
            let reader = this.object();
            if let Some(state) = StreamState::of(py, reader.as_ptr(), stock)? {
                return NativeCoroutine::make(
                    py,
                    coroutine::Operation::Stream(Operation::new(reader, Task::Read(read, state))),
                );
            }
        }
    }
    this.ordinary(py, stock, name, args)
}

// HOT: stream
fn read<'py>(py: Python<'py>, this: &Instance, args: Args<'_, 'py>) -> PyResult<Owned> {
    start(py, this, "read", args, |args| {
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

fn readexactly<'py>(py: Python<'py>, this: &Instance, args: Args<'_, 'py>) -> PyResult<Owned> {
    start(py, this, "readexactly", args, |args| {
        let n = args.one("StreamReader.readexactly", "n")?;
        // A negative size is an error once the coroutine is awaited.
        Ok(exact_size(&n)
            .and_then(|n| usize::try_from(n).ok())
            .map(|count| Read::Exactly { count }))
    })
}

fn readuntil<'py>(py: Python<'py>, this: &Instance, args: Args<'_, 'py>) -> PyResult<Owned> {
    start(py, this, "readuntil", args, |args| {
        let [separator] = args.bind("StreamReader.readuntil", ["separator"], 0)?;
        let Some(separator) = separator else {
            return Ok(Some(Read::Until { separator: bytes::copy(py, b"\n")?, offset: 0 }));
        };
        let plain = bytes::exact(&separator).is_some_and(|content| !content.is_empty());
        Ok(plain.then(|| Read::Until { separator: Owned::from(&*separator), offset: 0 }))
    })
}

fn readline<'py>(py: Python<'py>, this: &Instance, args: Args<'_, 'py>) -> PyResult<Owned> {
    start(py, this, "readline", args, |args| {
        args.none("StreamReader.readline")?;
        Ok(Some(Read::Line { offset: 0 }))
    })
}

/// `__setattr__` of a reader with a slot: its other attributes are asyncio's,
/// but one that hides a method is to be noticed.
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
    // SAFETY: live objects; what is wrong with the name is an exception.
    let done =
        unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value.as_ptr()) };
    if done < 0 { Err(PyErr::fetch(py)) } else { Ok(Owned::none(py)) }
}

/// `__dict__` of a reader with a slot: whoever has it may put anything there.
unsafe extern "C" fn get_dictionary(
    reader: *mut ffi::PyObject,
    _closure: *mut c_void,
) -> *mut ffi::PyObject {
    // SAFETY: CPython reads attributes on attached threads.
    let py = unsafe { Python::assume_attached() };
    native::answer(py, || {
        // SAFETY: a live object.
        let object = unsafe { Owned::from_borrowed(reader) };
        StreamState::find_or_take_over(&object.bind(py))?.expose();
        // SAFETY: an instance of a class with a dictionary; the answer is a new
        // reference, or null with an exception.
        unsafe { Owned::from_result(py, ffi::PyObject_GenericGetDict(reader, ptr::null_mut())) }
    })
}

unsafe extern "C" fn set_dictionary(
    reader: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    closure: *mut c_void,
) -> c_int {
    // SAFETY: passed on from CPython.
    let old = unsafe { get_dictionary(reader, closure) };
    if old.is_null() {
        return -1;
    }
    // SAFETY: a new reference, which nobody needs; the rest is as above.
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

/// The methods of a reader that keeps its state in a slot.
pub(crate) fn methods_with_a_slot() -> Vec<ffi::PyMethodDef> {
    let mut all = methods();
    all.push(method!(
        Instance,
        c"__setattr__",
        set_attribute,
        c"__setattr__($self, name, value, /)\n--\n\nImplement setattr(self, name, value)."
    ));
    all
}

/// The methods of the class.
pub(crate) fn methods() -> Vec<ffi::PyMethodDef> {
    type T = Instance;
    vec![
        method!(T, c"read", read, c"read($self, n=-1)\n--\n\nRead up to n bytes; with -1, all until the end of the stream."),
        method!(T, c"readexactly", readexactly, c"readexactly($self, n)\n--\n\nRead exactly n bytes; raises IncompleteReadError where the stream ends before."),
        method!(T, c"readuntil", readuntil, c"readuntil($self, separator=b'\\n')\n--\n\nRead until the separator, which is part of the result.\n\nRaises IncompleteReadError at the end of the stream, and LimitOverrunError where\nmore bytes come before a separator than the reader's limit."),
        method!(T, c"readline", readline, c"readline($self)\n--\n\nRead one line; the last one may lack its newline.\n\nRaises ValueError where a line is longer than the reader's limit."),
    ]
}
