//! The object that holds the private attributes of a native stream. It is separate,
//! because a stream that was asyncio's before has no room for them.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::mem::offset_of;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::sync::critical_section::{with_critical_section, with_critical_section2};
use pyo3::types::PyType;
use pyo3::{Borrowed, ffi};

use crate::py::native::{self, NativeClass, Visitor};
use crate::py::{Owned, bytes};
use crate::streams::buffer::Buffer;
use crate::streams::fields::{COUNT, Field};

/// The index of a message that is held for the coroutine that waits for it.
pub(crate) const PENDING: usize = COUNT;

/// The object.
#[repr(C)]
pub(crate) struct Slots {
    ob_base: ffi::PyObject,
    /// An owned reference each, or null for an attribute that was deleted. The last one
    /// is the held message.
    values: [AtomicPtr<ffi::PyObject>; COUNT + 1],
    /// Whether the stream may have an attribute that hides one of the methods which
    /// native code replaces.
    exposed: AtomicBool,
}

static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// Whether an object is a [`Slots`].
#[inline]
pub(crate) fn is_slots(py: Python<'_>, object: &Owned) -> bool {
    // SAFETY: a live object, of which only the type is compared.
    let class = unsafe { ffi::Py_TYPE(object.as_ptr()) };
    CLASS.get(py).is_some_and(|known| known.as_ptr() == class.cast())
}

impl Slots {
    /// Makes an object without values.
    pub(crate) fn make(py: Python<'_>) -> PyResult<Owned> {
        let class = CLASS.get_or_try_init(py, || {
            let base = py.get_type::<PyAny>();
            let doc = c"The private attributes of a stream.";
            native::make_class::<Self>(&base, Vec::new(), Vec::new(), doc).map(Bound::unbind)
        })?;
        // SAFETY: made by `make_class`.
        unsafe { native::new_instance(class.bind(py)) }
    }

    /// Notes that the stream may have such an attribute from now on.
    pub(crate) fn expose(&self) {
        self.exposed.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn is_exposed(&self) -> bool {
        self.exposed.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn peek(&self, index: usize) -> *mut ffi::PyObject {
        self.values.get(index).map_or(ptr::null_mut(), |slot| slot.load(Ordering::Acquire))
    }

    #[inline]
    pub(crate) fn get(&self, py: Python<'_>, index: usize) -> Option<Owned> {
        self.locked(py, || {
            let value = self.peek(index);
            // SAFETY: a filled slot owns a reference, and the lock keeps it filled.
            (!value.is_null()).then(|| unsafe { Owned::from_borrowed(value) })
        })
    }

    /// Takes a value out of its slot if `wanted` accepts it.
    #[inline]
    pub(crate) fn take_if(
        &self,
        py: Python<'_>,
        index: usize,
        wanted: impl FnOnce(Borrowed<'_, '_, PyAny>) -> bool,
    ) -> Option<Owned> {
        self.locked(py, || {
            let value = NonNull::new(self.peek(index))?;
            // SAFETY: a filled slot owns a reference, and the lock keeps it filled.
            if !wanted(unsafe { Borrowed::from_ptr(py, value.as_ptr()) }) {
                return None;
            }
            self.values.get(index)?.store(ptr::null_mut(), Ordering::Release);
            // SAFETY: the slot has given its reference up.
            Some(unsafe { Owned::from_raw(value.as_ptr()) })
        })
    }

    /// Moves the held message, if any, to the buffer, where asyncio would have put it.
    #[inline]
    pub(crate) fn settle(&self, py: Python<'_>) -> PyResult<()> {
        if self.peek(PENDING).is_null() { Ok(()) } else { self.settle_now(py) }
    }

    /// Another thread may read the buffer while the loop's thread takes the message. With
    /// both locked, the message is always in one place: the slot or the buffer.
    #[cold]
    fn settle_now(&self, py: Python<'_>) -> PyResult<()> {
        let Some(buffer) = self.get(py, Field::Buffer as usize).and_then(Buffer::of) else {
            // `_buffer` was replaced by something else: the message goes with the old one.
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
    pub(crate) fn replace(&self, py: Python<'_>, index: usize, value: Option<Owned>) {
        let value = value.map_or(ptr::null_mut(), Owned::into_raw);
        let old = self.locked(py, || {
            self.values.get(index).map_or(value, |slot| slot.swap(value, Ordering::AcqRel))
        });
        // SAFETY: the slot owned this reference, if any.
        unsafe { ffi::Py_XDECREF(old) };
    }

    fn object(&self) -> Owned {
        // SAFETY: `self` is the memory of a live object.
        unsafe { Owned::from_borrowed((&raw const *self).cast_mut().cast()) }
    }

    /// Without the GIL, locks the object: a value must not be replaced while it is fetched.
    #[inline]
    fn locked<R>(&self, py: Python<'_>, body: impl FnOnce() -> R) -> R {
        if cfg!(Py_GIL_DISABLED) {
            with_critical_section(&self.object().bind(py), body)
        } else {
            body()
        }
    }
}

// SAFETY: all zeros are valid: every value is missing, and nothing is exposed.
unsafe impl NativeClass for Slots {
    const NAME: &'static CStr = c"tokioloop._core.StreamState";
    const BASE_SIZE: usize = offset_of!(Self, values);
    const WEAKLIST: Option<usize> = None;
    const DICT: Option<usize> = None;
    const SUBCLASSABLE: bool = false;

    fn traverse(&self, visitor: &mut Visitor) {
        for index in 0..=PENDING {
            // SAFETY: a slot owns what it holds.
            unsafe { visitor.pointer(self.peek(index)) };
        }
    }

    fn clear(&self) {
        for slot in &self.values {
            // SAFETY: the slot owned this reference, if any.
            unsafe { ffi::Py_XDECREF(slot.swap(ptr::null_mut(), Ordering::Relaxed)) };
        }
    }

    unsafe fn dealloc(this: *mut Self) {
        // SAFETY: the object is tracked until here, and must not be visited any more.
        unsafe { ffi::PyObject_GC_UnTrack(this.cast()) };
        // SAFETY: the memory is whole until it is freed.
        unsafe { &*this }.clear();
        // SAFETY: the object is dead and untracked, and its values were dropped.
        unsafe { native::free(this.cast()) };
    }
}
