//! The private attributes of native readers and writers: `_buffer`, `_eof` and
//! so on, in slots instead of the instance's dictionary.
//!
//! The class has a descriptor for each under asyncio's name, so that asyncio's
//! own methods, and whoever else looks, see and change the same values. The
//! slots cannot be part of the stream, whose memory asyncio's class laid out:
//! they are an object of their own, the one entry of its dictionary.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::mem::offset_of;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::exceptions::PyAttributeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::sync::critical_section::{with_critical_section, with_critical_section2};
use pyo3::types::{PyDict, PyString, PyType};
use pyo3::{Borrowed, ffi};

use crate::guarded::Guarded;
use crate::py::native::{self, NativeClass, Visitor};
use crate::py::{Owned, bytes};
use crate::streams::buffer::Buffer;

/// One attribute.
#[derive(Clone, Copy)]
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

const COUNT: usize = 11;
/// Where a message is kept for the one who waits for it.
const PENDING: usize = COUNT;

/// asyncio's names, in the order of [`Field`].
const NAMES: [&CStr; COUNT] = [
    c"_buffer",
    c"_eof",
    c"_exception",
    c"_limit",
    c"_loop",
    c"_paused",
    c"_transport",
    c"_waiter",
    c"_protocol",
    c"_reader",
    c"_complete_fut",
];

/// The object.
#[repr(C)]
pub(crate) struct Slots {
    ob_base: ffi::PyObject,
    /// A reference each, or null for what has been deleted; at the end the
    /// pending message.
    values: [AtomicPtr<ffi::PyObject>; COUNT + 1],
}

/// A strong reference to the slots of a stream.
#[repr(transparent)]
pub(crate) struct StreamState(Owned);

static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();

impl StreamState {
    fn make(py: Python<'_>) -> PyResult<Self> {
        let class = CLASS.get_or_try_init(py, || {
            let base = py.get_type::<PyAny>();
            let doc = c"The private attributes of a stream.";
            native::make_class::<Slots>(&base, Vec::new(), Vec::new(), doc).map(Bound::unbind)
        })?;
        // SAFETY: made by `make_class`.
        Ok(Self(unsafe { native::new_instance(class.bind(py)) }?))
    }

    /// The slots of an instance of the native class, and whether they are all
    /// that its dictionary holds.
    // HOT: stream
    #[inline]
    fn find(py: Python<'_>, stream: *mut ffi::PyObject) -> PyResult<(Option<Self>, bool)> {
        // SAFETY: a live instance of a class with a dictionary.
        let dict = unsafe { ffi::PyObject_GenericGetDict(stream, ptr::null_mut()) };
        // SAFETY: a new reference, or null with an exception.
        let dict = unsafe { Owned::from_result(py, dict) }?;
        if let Some(state) = Self::only_entry(py, &dict) {
            return Ok((Some(state), true));
        }
        let mut value = ptr::null_mut();
        // SAFETY: a dictionary and a string; the value is a new reference or null.
        let found =
            unsafe { ffi::compat::PyDict_GetItemRef(dict.as_ptr(), key(py).as_ptr(), &mut value) };
        // SAFETY: a live dictionary.
        let alone = unsafe { ffi::PyDict_Size(dict.as_ptr()) } == 1;
        match found {
            1 => {
                // SAFETY: found, so a new reference.
                let value = unsafe { Owned::from_raw(value) };
                Ok((is_slots(py, &value).then_some(Self(value)), alone))
            }
            0 => Ok((None, alone)),
            _ => Err(PyErr::fetch(py)),
        }
    }

    /// The slots where they are all that the dictionary holds, which is how it
    /// nearly always is: to look at its first entry is cheaper than to search.
    #[cfg(not(Py_GIL_DISABLED))]
    #[inline]
    fn only_entry(py: Python<'_>, dict: &Owned) -> Option<Self> {
        let (mut position, mut name, mut value) = (0, ptr::null_mut(), ptr::null_mut());
        // SAFETY: a live dictionary, which nobody changes meanwhile; what it
        // answers with is borrowed from it.
        let state = unsafe {
            if ffi::PyDict_Size(dict.as_ptr()) != 1
                || ffi::PyDict_Next(dict.as_ptr(), &mut position, &mut name, &mut value) == 0
                || name != key(py).as_ptr()
            {
                return None;
            }
            Owned::from_borrowed(value)
        };
        is_slots(py, &state).then_some(Self(state))
    }

    /// Another thread could change the dictionary between two looks at it.
    #[cfg(Py_GIL_DISABLED)]
    #[inline]
    fn only_entry(_py: Python<'_>, _dict: &Owned) -> Option<Self> {
        None
    }

    /// The slots of an instance of the native class, unless an attribute of
    /// the instance hides one of the members of `class`.
    // HOT: stream
    #[inline]
    pub(crate) fn of(
        py: Python<'_>,
        reader: *mut ffi::PyObject,
        class: &Guarded,
    ) -> PyResult<Option<Self>> {
        let (state, alone) = Self::find(py, reader)?;
        if alone || !hides_members(py, reader, class)? { Ok(state) } else { Ok(None) }
    }

    /// The slots of a native writer.
    // HOT: stream
    #[inline]
    pub(crate) fn of_writer(py: Python<'_>, writer: *mut ffi::PyObject) -> PyResult<Option<Self>> {
        Ok(Self::find(py, writer)?.0)
    }

    /// Moves the attributes of a plain stream, which has just become an
    /// instance of a native class, into slots.
    pub(crate) fn take_over(stream: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = stream.py();
        let dict = stream.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?;
        let state = Self::make(py)?;
        for (index, name) in NAMES.into_iter().enumerate() {
            let name = PyString::intern(py, &name.to_string_lossy());
            if let Some(value) = dict.get_item(&name)? {
                dict.del_item(&name)?;
                state.slots().replace(py, index, Some(value.into()));
            }
        }
        dict.set_item(key(py), state.0.bind(py))
    }

    #[inline]
    fn slots(&self) -> &Slots {
        // SAFETY: only made around instances of the class.
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

    /// The buffer, if it is the `bytearray` that asyncio makes.
    #[inline]
    pub(crate) fn buffer(&self, py: Python<'_>) -> Option<Buffer> {
        let buffer = self.get(py, Field::Buffer).and_then(Buffer::of)?;
        // Where this fails, asyncio's code comes to the same error.
        self.slots().settle(py).is_ok().then_some(buffer)
    }

    /// Keeps a whole message for the `read` that waits for it, instead of
    /// copying it into the buffer, which is empty, and out again. Whoever looks
    /// at the buffer before that finds the message there.
    #[inline]
    pub(crate) fn hold(&self, py: Python<'_>, message: Owned) {
        self.slots().replace(py, PENDING, Some(message));
    }

    /// The message that was kept, if it is one that `wanted` takes whole.
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
            // Out of range, perhaps: asyncio's code knows what to do.
            drop(PyErr::take(py));
        }
        usize::try_from(size).ok()
    }

    /// The reference, for the collector.
    pub(crate) fn object(&self) -> &Owned {
        &self.0
    }
}

/// Whether an object is what streams of ours keep their attributes in.
#[inline]
fn is_slots(py: Python<'_>, object: &Owned) -> bool {
    // SAFETY: a live object, of which only the type is compared.
    let class = unsafe { ffi::Py_TYPE(object.as_ptr()) };
    CLASS.get(py).is_some_and(|known| known.as_ptr() == class.cast())
}

/// The name of the one entry.
#[inline]
fn key(py: Python<'_>) -> &Bound<'_, PyString> {
    intern!(py, "__tokioloop__")
}

#[cold]
fn hides_members(py: Python<'_>, reader: *mut ffi::PyObject, class: &Guarded) -> PyResult<bool> {
    // SAFETY: the caller's object is alive.
    let reader = unsafe { Owned::from_borrowed(reader) };
    let dict = reader.bind(py).getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?;
    for name in class.names() {
        if dict.contains(name)? {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Slots {
    #[inline]
    fn peek(&self, index: usize) -> *mut ffi::PyObject {
        self.values.get(index).map_or(ptr::null_mut(), |slot| slot.load(Ordering::Acquire))
    }

    #[inline]
    fn get(&self, py: Python<'_>, index: usize) -> Option<Owned> {
        self.locked(py, || {
            let value = self.peek(index);
            // SAFETY: a filled slot owns a reference, and nobody empties it now.
            (!value.is_null()).then(|| unsafe { Owned::from_borrowed(value) })
        })
    }

    /// Empties a slot, if `wanted` says so of what is in it.
    #[inline]
    fn take_if(
        &self,
        py: Python<'_>,
        index: usize,
        wanted: impl FnOnce(Borrowed<'_, '_, PyAny>) -> bool,
    ) -> Option<Owned> {
        self.locked(py, || {
            let value = NonNull::new(self.peek(index))?;
            // SAFETY: a filled slot owns a reference, and nobody empties it now.
            if !wanted(unsafe { Borrowed::from_ptr(py, value.as_ptr()) }) {
                return None;
            }
            self.values.get(index)?.store(ptr::null_mut(), Ordering::Release);
            // SAFETY: the slot has given its reference up.
            Some(unsafe { Owned::from_raw(value.as_ptr()) })
        })
    }

    /// Puts the message that is kept where asyncio would have put it.
    #[inline]
    fn settle(&self, py: Python<'_>) -> PyResult<()> {
        if self.peek(PENDING).is_null() { Ok(()) } else { self.settle_now(py) }
    }

    /// Another thread may look at the buffer while the loop's thread takes the
    /// message: each finds it in one place, the slot or the buffer.
    #[cold]
    fn settle_now(&self, py: Python<'_>) -> PyResult<()> {
        let Some(buffer) = self.get(py, Field::Buffer as usize).and_then(Buffer::of) else {
            // Somebody has put something else there, and dropped this one.
            drop(self.take_if(py, PENDING, |_| true));
            return Ok(());
        };
        let this = self.object();
        with_critical_section2(&this.bind(py), &buffer.object().bind(py), || {
            let Some(message) = self.get(py, PENDING) else { return Ok(()) };
            buffer.extend(py, bytes::exact(&message.bind(py)).unwrap_or_default())?;
            drop(self.take_if(py, PENDING, |_| true));
            Ok(())
        })
    }

    #[inline]
    fn replace(&self, py: Python<'_>, index: usize, value: Option<Owned>) {
        let value = value.map_or(ptr::null_mut(), Owned::into_raw);
        let old = self.locked(py, || {
            self.values.get(index).map_or(value, |slot| slot.swap(value, Ordering::AcqRel))
        });
        // SAFETY: the slot owned this reference, if any.
        unsafe { ffi::Py_XDECREF(old) };
    }

    fn object(&self) -> Owned {
        // SAFETY: the slots are an object, which lives as long as they do.
        unsafe { Owned::from_borrowed((&raw const *self).cast_mut().cast()) }
    }

    /// With the GIL off, a value must not be replaced while it is fetched.
    #[inline]
    fn locked<R>(&self, py: Python<'_>, body: impl FnOnce() -> R) -> R {
        if cfg!(Py_GIL_DISABLED) {
            with_critical_section(&self.object().bind(py), body)
        } else {
            body()
        }
    }
}

unsafe extern "C" fn get_field(
    stream: *mut ffi::PyObject,
    closure: *mut c_void,
) -> *mut ffi::PyObject {
    // SAFETY: CPython reads attributes on attached threads.
    let py = unsafe { Python::assume_attached() };
    let index = closure.addr();
    native::answer(py, || {
        let (state, _) = StreamState::find(py, stream)?;
        if let Some(state) = state.as_ref().filter(|_| index == Field::Buffer as usize) {
            state.slots().settle(py)?;
        }
        state
            .and_then(|state| state.slots().get(py, index))
            .ok_or_else(|| missing(py, stream, index))
    })
}

unsafe extern "C" fn set_field(
    stream: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    closure: *mut c_void,
) -> c_int {
    // SAFETY: CPython writes attributes on attached threads.
    let py = unsafe { Python::assume_attached() };
    let index = closure.addr();
    let done = native::answer(py, || {
        let state = match StreamState::find(py, stream)? {
            (Some(state), _) => state,
            // A new instance of the class, in `__init__`.
            (None, _) => {
                // SAFETY: a live object.
                let object = unsafe { Owned::from_borrowed(stream) };
                StreamState::take_over(&object.bind(py))?;
                StreamState::find(py, stream)?.0.ok_or_else(|| missing(py, stream, index))?
            }
        };
        if value.is_null() && state.slots().peek(index).is_null() {
            return Err(missing(py, stream, index));
        }
        if index == Field::Buffer as usize {
            // What was in the old buffer goes with it.
            drop(state.slots().take_if(py, PENDING, |_| true));
        }
        // SAFETY: a value that is given is alive.
        let value = (!value.is_null()).then(|| unsafe { Owned::from_borrowed(value) });
        state.slots().replace(py, index, value);
        Ok(Owned::none(py))
    });
    if done.is_null() {
        return -1;
    }
    // SAFETY: the None of above is given back.
    unsafe { ffi::Py_DECREF(done) };
    0
}

#[cold]
fn missing(py: Python<'_>, stream: *mut ffi::PyObject, index: usize) -> PyErr {
    let name = NAMES.get(index).map_or_else(Default::default, |name| name.to_string_lossy());
    // SAFETY: the caller's object is alive.
    let stream = unsafe { Owned::from_borrowed(stream) };
    match stream.bind(py).get_type().name() {
        Ok(class) => {
            PyAttributeError::new_err(format!("'{class}' object has no attribute '{name}'"))
        }
        Err(error) => error,
    }
}

/// The descriptors of a native class.
pub(crate) fn descriptors(fields: &[Field]) -> Vec<ffi::PyGetSetDef> {
    let descriptor = |(index, name): (usize, &'static CStr)| ffi::PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get_field),
        set: Some(set_field),
        doc: ptr::null(),
        closure: ptr::without_provenance_mut(index),
    };
    let wanted = |(index, _): &(usize, _)| fields.iter().any(|field| *field as usize == *index);
    NAMES.into_iter().enumerate().filter(wanted).map(descriptor).collect()
}

// SAFETY: zero is valid: null says that a value was deleted.
unsafe impl NativeClass for Slots {
    const NAME: &'static CStr = c"tokioloop._core.StreamState";
    const BASE_SIZE: usize = offset_of!(Self, values);
    const WEAKLIST: Option<usize> = None;
    const DICT: Option<usize> = None;
    const SUBCLASSABLE: bool = false;

    fn traverse(&self, visitor: &mut Visitor) {
        for index in 0..=PENDING {
            visitor.pointer(self.peek(index));
        }
    }

    fn clear(&self) {
        for slot in &self.values {
            // SAFETY: the slot owned this reference, if any.
            unsafe { ffi::Py_XDECREF(slot.swap(ptr::null_mut(), Ordering::Relaxed)) };
        }
    }

    unsafe fn dealloc(this: *mut Self) {
        // SAFETY: a dead object is no longer to be visited.
        unsafe { ffi::PyObject_GC_UnTrack(this.cast()) };
        // SAFETY: the memory is whole until it is freed.
        unsafe { &*this }.clear();
        // SAFETY: dead, unknown to the collector, and its values were dropped.
        unsafe { native::free(this.cast()) };
    }
}
