//! The state of a native stream, wherever it is kept: streams that were created as native
//! ones have a slot for it; readers that were asyncio's before have it as the one entry of
//! their dictionary.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::guarded::Guarded;
use crate::py::{Live, Owned, bytes};
use crate::streams::attributes::{Attributes, Place};
use crate::streams::buffer::Buffer;
use crate::streams::classes;
use crate::streams::fields::{self, Field};
use crate::streams::slots::{PENDING, Slots, is_slots};

/// A strong reference to the slots of a stream.
#[repr(transparent)]
pub(crate) struct StreamState(Owned);

impl StreamState {
    /// An empty one.
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        Slots::make(py).map(Self)
    }

    /// The state of an instance of a native class; None before `__init__`.
    // HOT: stream
    #[inline]
    pub(crate) fn find(py: Python<'_>, stream: Live<'_>) -> PyResult<Option<Self>> {
        match classes::slot(py, stream) {
            Some(slot) => Ok(Self::in_slot(slot)),
            None => Self::in_dictionary(py, stream),
        }
    }

    #[inline]
    fn in_slot(slot: &AtomicPtr<ffi::PyObject>) -> Option<Self> {
        let state = slot.load(Ordering::Acquire);
        // SAFETY: a filled slot owns its reference for as long as the stream lives.
        (!state.is_null()).then(|| Self(unsafe { Owned::from_borrowed(state) }))
    }

    fn in_dictionary(py: Python<'_>, stream: Live<'_>) -> PyResult<Option<Self>> {
        // It is the first entry, and nearly always the only one.
        static PLACE: Place = Place::new();
        let state = Attributes::of(py, stream)?.get(py, key(py), &PLACE)?;
        Ok(state.filter(|state| is_slots(py, state)).map(Self))
    }

    /// The state of a native reader, unless an attribute of the instance hides
    /// one of the members of `class`.
    // HOT: stream
    #[inline]
    pub(crate) fn of(py: Python<'_>, reader: Live<'_>, class: &Guarded) -> PyResult<Option<Self>> {
        let (state, suspect) = match classes::slot(py, reader) {
            Some(slot) => {
                let Some(state) = Self::in_slot(slot) else { return Ok(None) };
                let exposed = state.slots().is_exposed();
                (Some(state), exposed)
            }
            None => (Self::in_dictionary(py, reader)?, Attributes::of(py, reader)?.len() != 1),
        };
        if suspect && hides_members(py, reader, class)? { Ok(None) } else { Ok(state) }
    }

    /// Like [`StreamState::find`], but gives a stream that has no state yet one, with the
    /// attributes that its dictionary has.
    pub(crate) fn find_or_take_over(stream: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = stream.py();
        if let Some(state) = Self::find(py, stream.into())? {
            return Ok(state);
        }
        let state = Self::new(py)?;
        if let Some(slot) = classes::slot(py, stream.into()) {
            return Ok(state.fill(py, slot));
        }
        let dict = stream.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?;
        for &field in fields::READER {
            let name = field.interned(py);
            if let Some(value) = dict.get_item(&name)? {
                dict.del_item(&name)?;
                state.set(py, field, value.into());
            }
        }
        dict.set_item(key(py), state.0.bind(py))?;
        Ok(state)
    }

    /// Puts the state into a slot, unless another thread was faster. Returns what the slot
    /// has now.
    pub(crate) fn fill(self, py: Python<'_>, slot: &AtomicPtr<ffi::PyObject>) -> Self {
        let new = self.0.clone_ref(py).into_raw();
        let none = ptr::null_mut();
        match slot.compare_exchange(none, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => self,
            Err(first) => {
                // SAFETY: the new reference was not given away.
                drop(unsafe { Owned::from_raw(new) });
                // SAFETY: the slot owns a reference to what it holds.
                Self(unsafe { Owned::from_borrowed(first) })
            }
        }
    }

    /// One attribute as Python code sees it: the buffer includes a held message.
    ///
    /// # Errors
    /// BufferError if the held message cannot be moved to the buffer.
    pub(crate) fn read(&self, py: Python<'_>, field: Field) -> PyResult<Option<Owned>> {
        if field == Field::Buffer {
            self.slots().settle(py)?;
        }
        Ok(self.get(py, field))
    }

    /// Sets or deletes an attribute for Python code. False if there is none to delete.
    pub(crate) fn write(&self, py: Python<'_>, field: Field, value: Option<Owned>) -> bool {
        if value.is_none() && self.slots().peek(field as usize).is_null() {
            return false;
        }
        if field == Field::Buffer {
            // The held message belongs to the old buffer and goes with it.
            drop(self.slots().take_if(py, PENDING, |_| true));
        }
        self.slots().replace(py, field as usize, value);
        true
    }

    /// Notes that an attribute of the stream may hide a method from now on.
    pub(crate) fn expose(&self) {
        self.slots().expose();
    }

    #[inline]
    fn slots(&self) -> &Slots {
        // SAFETY: a state is only made around a `Slots`, which it keeps alive.
        unsafe { &*self.0.as_ptr().cast() }
    }

    /// One attribute, unless it was deleted.
    #[inline]
    pub(crate) fn get(&self, py: Python<'_>, field: Field) -> Option<Owned> {
        self.slots().get(py, field as usize)
    }

    /// Sets one attribute.
    #[inline]
    pub(crate) fn set(&self, py: Python<'_>, field: Field, value: Owned) {
        self.slots().replace(py, field as usize, Some(value));
    }

    /// Whether an attribute is None.
    #[inline]
    pub(crate) fn is_none(&self, _py: Python<'_>, field: Field) -> bool {
        // SAFETY: None lives as long as the interpreter; only compared.
        self.slots().peek(field as usize) == unsafe { ffi::Py_None() }
    }

    /// An attribute that is exactly `True` or `False`.
    #[inline]
    pub(crate) fn flag(&self, _py: Python<'_>, field: Field) -> Option<bool> {
        let value = self.slots().peek(field as usize);
        // SAFETY: both live as long as the interpreter; only compared.
        let (yes, no) = unsafe { (ffi::Py_True(), ffi::Py_False()) };
        (value == yes || value == no).then_some(value == yes)
    }

    /// The buffer with a held message, if it is a `bytearray` as asyncio makes it.
    #[inline]
    pub(crate) fn buffer(&self, py: Python<'_>) -> Option<Buffer> {
        let buffer = self.get(py, Field::Buffer).and_then(Buffer::of)?;
        // If this fails, the caller turns to asyncio's code, which gets the same error.
        self.slots().settle(py).is_ok().then_some(buffer)
    }

    /// Holds a whole message for the `read` that waits for it, instead of copying it into
    /// the empty buffer and out again. If anything reads the buffer before that, the
    /// message is moved there first.
    #[inline]
    pub(crate) fn hold(&self, py: Python<'_>, message: Owned) {
        self.slots().replace(py, PENDING, Some(message));
    }

    /// Takes the held message if `wanted` accepts its length.
    #[inline]
    pub(crate) fn take_held(
        &self,
        py: Python<'_>,
        wanted: impl FnOnce(usize) -> bool,
    ) -> Option<Owned> {
        if self.slots().peek(PENDING).is_null() {
            return None;
        }
        self.slots()
            .take_if(py, PENDING, |message| wanted(bytes::exact(&message).map_or(0, <[u8]>::len)))
    }

    /// The limit, if it is a plain number of bytes.
    #[inline]
    pub(crate) fn limit(&self, py: Python<'_>) -> Option<usize> {
        let limit = self.get(py, Field::Limit)?;
        // SAFETY: a live object.
        if unsafe { ffi::PyLong_CheckExact(limit.as_ptr()) } == 0 {
            return None;
        }
        // SAFETY: an int.
        let size = unsafe { ffi::PyLong_AsSsize_t(limit.as_ptr()) };
        if size == -1 {
            // It may be out of range, which is left to asyncio's code.
            drop(PyErr::take(py));
        }
        usize::try_from(size).ok()
    }

    /// The reference, for the collector.
    pub(crate) fn object(&self) -> &Owned {
        &self.0
    }
}

/// The key of the state in a reader's dictionary.
#[inline]
fn key(py: Python<'_>) -> &Bound<'_, PyString> {
    intern!(py, "__tokioloop__")
}

#[cold]
fn hides_members(py: Python<'_>, reader: Live<'_>, class: &Guarded) -> PyResult<bool> {
    let dict = reader.bind(py).getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?;
    for name in class.names() {
        if dict.contains(name)? {
            return Ok(true);
        }
    }
    Ok(false)
}
