//! The private attributes of native streams under asyncio's names: `_buffer`,
//! `_eof` and so on. The class has a descriptor for each, so that asyncio's methods and
//! user code see and change the values that native code works with.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::ptr;

use pyo3::exceptions::PyAttributeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::py::{Live, Owned, native};
use crate::streams::state::StreamState;

/// One attribute.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Buffer,
    Eof,
    Exception,
    Limit,
    Loop,
    Paused,
    Transport,
    Waiter,
    Protocol,
    Reader,
    CompleteFuture,
}

/// What `StreamReader.__init__` sets.
pub(crate) const READER: &[Field] = &[
    Field::Buffer,
    Field::Eof,
    Field::Exception,
    Field::Limit,
    Field::Loop,
    Field::Paused,
    Field::Transport,
    Field::Waiter,
];

/// What `StreamWriter.__init__` sets.
pub(crate) const WRITER: &[Field] =
    &[Field::CompleteFuture, Field::Loop, Field::Protocol, Field::Reader, Field::Transport];

pub(crate) const COUNT: usize = 11;

impl Field {
    /// In the order of their discriminants, which the descriptors carry.
    const ALL: [Self; COUNT] = [
        Self::Buffer,
        Self::Eof,
        Self::Exception,
        Self::Limit,
        Self::Loop,
        Self::Paused,
        Self::Transport,
        Self::Waiter,
        Self::Protocol,
        Self::Reader,
        Self::CompleteFuture,
    ];

    /// asyncio's name for it.
    pub(crate) const fn name(self) -> &'static CStr {
        match self {
            Self::Buffer => c"_buffer",
            Self::Eof => c"_eof",
            Self::Exception => c"_exception",
            Self::Limit => c"_limit",
            Self::Loop => c"_loop",
            Self::Paused => c"_paused",
            Self::Transport => c"_transport",
            Self::Waiter => c"_waiter",
            Self::Protocol => c"_protocol",
            Self::Reader => c"_reader",
            Self::CompleteFuture => c"_complete_fut",
        }
    }

    /// The same as an interned string.
    pub(crate) fn interned(self, py: Python<'_>) -> Bound<'_, PyString> {
        PyString::intern(py, &self.name().to_string_lossy())
    }

    fn of(closure: *mut c_void) -> Option<Self> {
        Self::ALL.get(closure.addr()).copied()
    }
}

unsafe extern "C" fn get_field(
    stream: *mut ffi::PyObject,
    closure: *mut c_void,
) -> *mut ffi::PyObject {
    // SAFETY: CPython reads attributes on attached threads.
    let py = unsafe { Python::assume_attached() };
    native::answer(py, || {
        // SAFETY: CPython passes the object, and keeps it alive for the call.
        let stream = unsafe { Live::new(stream) };
        let state = StreamState::find(py, stream)?;
        let value = match (state, Field::of(closure)) {
            (Some(state), Some(field)) => state.read(py, field)?,
            _ => None,
        };
        value.ok_or_else(|| missing(py, stream, closure))
    })
}

unsafe extern "C" fn set_field(
    stream: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    closure: *mut c_void,
) -> c_int {
    // SAFETY: CPython writes attributes on attached threads.
    let py = unsafe { Python::assume_attached() };
    let done = native::answer(py, || {
        // SAFETY: CPython passes the object, and keeps it alive for the call.
        let stream = unsafe { Live::new(stream) };
        // An instance whose `__init__` is running has no state yet.
        let state = StreamState::find_or_take_over(&stream.bind(py))?;
        // SAFETY: CPython keeps a value that it passes alive for the call.
        let value = (!value.is_null()).then(|| unsafe { Owned::from_borrowed(value) });
        match Field::of(closure) {
            Some(field) if state.write(py, field, value) => Ok(Owned::none(py)),
            _ => Err(missing(py, stream, closure)),
        }
    });
    if done.is_null() {
        return -1;
    }
    // SAFETY: `done` is the reference to None that the closure returned.
    unsafe { ffi::Py_DECREF(done) };
    0
}

#[cold]
fn missing(py: Python<'_>, stream: Live<'_>, closure: *mut c_void) -> PyErr {
    let name = Field::of(closure).map_or_else(Default::default, |f| f.name().to_string_lossy());
    match stream.bind(py).get_type().name() {
        Ok(class) => {
            PyAttributeError::new_err(format!("'{class}' object has no attribute '{name}'"))
        }
        Err(error) => error,
    }
}

/// The descriptors of a native class.
pub(crate) fn descriptors(fields: &[Field]) -> Vec<ffi::PyGetSetDef> {
    let descriptor = |field: &Field| ffi::PyGetSetDef {
        name: field.name().as_ptr(),
        get: Some(get_field),
        set: Some(set_field),
        doc: ptr::null(),
        closure: ptr::without_provenance_mut(*field as usize),
    };
    fields.iter().map(descriptor).collect()
}
