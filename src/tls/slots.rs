//! The attributes of an `SSLProtocol` that are read for each record, as slots of its
//! memory.
//!
//! Python code reads and writes them like the members of a class with `__slots__`; native
//! code reads them without a look-up. Without the GIL another thread might replace an
//! attribute at any time, so references are then taken in the way CPython does.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::py::native::{self, NativeClass, Visitor};
use crate::py::{Live, Owned};
use crate::tls::engine::Engine;

macro_rules! slots {
    ($($variant:ident $name:literal,)*) => {
        /// One attribute.
        #[derive(Clone, Copy)]
        pub(crate) enum Slot { $($variant,)* }

        const NAMES: &[&CStr] = &[$($name,)*];
    };
}

slots! {
    State c"_state",
    Loop c"_loop",
    SslObject c"_sslobj",
    Incoming c"_incoming",
    Outgoing c"_outgoing",
    Transport c"_transport",
    AppProtocol c"_app_protocol",
    AppProtocolIsBuffer c"_app_protocol_is_buffer",
    GetBuffer c"_app_protocol_get_buffer",
    BufferUpdated c"_app_protocol_buffer_updated",
    WriteBacklog c"_write_backlog",
    WriteBufferSize c"_write_buffer_size",
    SslWritingPaused c"_ssl_writing_paused",
    SslReadingPaused c"_ssl_reading_paused",
    AppReadingPaused c"_app_reading_paused",
    AppWritingPaused c"_app_writing_paused",
    IncomingHigh c"_incoming_high_water",
    OutgoingHigh c"_outgoing_high_water",
}

/// The memory of an `SSLProtocol`.
#[repr(C)]
pub(crate) struct TlsProtocol {
    ob_base: ffi::PyObject,
    slots: [AtomicPtr<ffi::PyObject>; NAMES.len()],
    /// How the session is driven; made with the first records.
    engine: AtomicPtr<Engine>,
}

impl TlsProtocol {
    /// The native half of an object, if it has one; `class` is this class.
    #[inline]
    pub(crate) fn of<'a>(object: &'a Owned, class: &Bound<'_, PyType>) -> Option<&'a Self> {
        // SAFETY: both references keep what they refer to alive.
        if unsafe { ffi::PyObject_TypeCheck(object.as_ptr(), class.as_type_ptr()) } == 0 {
            return None;
        }
        // SAFETY: an instance of the class begins with this memory, and lives
        // as long as the reference.
        Some(unsafe { &*object.as_ptr().cast() })
    }

    /// The object as CPython knows it.
    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut ffi::PyObject {
        (&raw const *self).cast_mut().cast()
    }

    /// A new reference to this object.
    pub(crate) fn object(&self) -> Owned {
        // SAFETY: callers hold the object during its methods.
        unsafe { Owned::from_borrowed(self.as_ptr()) }
    }

    #[inline]
    fn pointer(&self, slot: Slot) -> *mut ffi::PyObject {
        self.slots.get(slot as usize).map_or(ptr::null_mut(), |slot| slot.load(Ordering::Relaxed))
    }

    /// Whether an attribute is this very object.
    #[inline]
    pub(crate) fn is<'a>(&self, slot: Slot, object: impl Into<Live<'a>>) -> bool {
        self.pointer(slot) == object.into().as_ptr()
    }

    /// An attribute that is a `bool`.
    #[inline]
    pub(crate) fn flag(&self, slot: Slot) -> Option<bool> {
        let value = self.pointer(slot);
        // SAFETY: the two are only compared by address.
        let (yes, no) = unsafe { (ffi::Py_True(), ffi::Py_False()) };
        if value == yes {
            Some(true)
        } else if value == no {
            Some(false)
        } else {
            None
        }
    }

    /// The value of an attribute, if it has one.
    #[inline]
    pub(crate) fn get(&self, py: Python<'_>, slot: Slot) -> Option<Owned> {
        if cfg!(Py_GIL_DISABLED) {
            return self.get_as_cpython_does(py, slot);
        }
        let value = self.pointer(slot);
        // SAFETY: with the GIL held, a filled slot owns a reference.
        (!value.is_null()).then(|| unsafe { Owned::from_borrowed(value) })
    }

    /// Safe against a thread that replaces the value meanwhile.
    fn get_as_cpython_does(&self, py: Python<'_>, slot: Slot) -> Option<Owned> {
        if self.pointer(slot).is_null() {
            return None;
        }
        let mut member = member(slot as usize, c"");
        // SAFETY: the definition describes a slot of this object's memory.
        let value = unsafe { ffi::PyMember_GetOne(self.as_ptr().cast(), &mut member) };
        // SAFETY: a new reference, or null with an exception.
        unsafe { Owned::from_result(py, value) }.ok()
    }

    /// An attribute that is an `int` of moderate size.
    #[inline]
    pub(crate) fn size(&self, py: Python<'_>, slot: Slot) -> Option<isize> {
        let value = self.get(py, slot)?;
        // SAFETY: a live object.
        if unsafe { ffi::PyLong_CheckExact(value.as_ptr()) } == 0 {
            return None;
        }
        // SAFETY: an exact int.
        let size = unsafe { ffi::PyLong_AsSsize_t(value.as_ptr()) };
        if size == -1 {
            // -1 itself, or out of range: left to asyncio's code.
            // SAFETY: on an attached thread; clears the OverflowError, if there is one.
            unsafe { ffi::PyErr_Clear() };
            return None;
        }
        Some(size)
    }

    /// Whether nothing waits to be encrypted.
    #[inline]
    pub(crate) fn has_no_backlog(&self, py: Python<'_>) -> bool {
        self.get(py, Slot::WriteBacklog).is_some_and(|backlog| {
            // SAFETY: a live object; -1 with an exception if it has no length.
            let length = unsafe { ffi::PyObject_Size(backlog.as_ptr()) };
            if length < 0 {
                // SAFETY: on an attached thread; asyncio's code, which runs next, raises its own.
                unsafe { ffi::PyErr_Clear() };
            }
            length == 0
        })
    }

    /// How to drive the session, unless only asyncio's code can.
    #[inline]
    pub(crate) fn engine(&self, py: Python<'_>) -> PyResult<Option<&Engine>> {
        // SAFETY: null or a box that lives until the object is cleared.
        if let Some(engine) = unsafe { self.engine.load(Ordering::Acquire).as_ref() } {
            return Ok(engine.serves(self).then_some(engine));
        }
        self.make_engine(py)
    }

    #[cold]
    fn make_engine(&self, py: Python<'_>) -> PyResult<Option<&Engine>> {
        let Some(engine) = Engine::of(py, self)? else { return Ok(None) };
        let engine = Box::into_raw(Box::new(engine));
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        let made = self.engine.compare_exchange(ptr::null_mut(), engine, success, failure);
        let current = match made {
            Ok(_) => engine,
            Err(other) => {
                // SAFETY: another thread was first, so nobody else has seen this box.
                drop(unsafe { Box::from_raw(engine) });
                other
            }
        };
        // SAFETY: a box that lives until the object is cleared.
        Ok(unsafe { current.as_ref() })
    }
}

// SAFETY: the memory begins with that of an object without slots; null is a
// valid value of every field.
unsafe impl NativeClass for TlsProtocol {
    const NAME: &'static CStr = c"tokioloop._core.TlsProtocol";
    const BASE_SIZE: usize = offset_of!(Self, slots);
    const WEAKLIST: Option<usize> = None;
    const DICT: Option<usize> = None;
    const SUBCLASSABLE: bool = true;

    fn members() -> Vec<ffi::PyMemberDef> {
        NAMES.iter().enumerate().map(|(index, name)| member(index, name)).collect()
    }

    fn traverse(&self, visitor: &mut Visitor) {
        for slot in &self.slots {
            // SAFETY: a slot owns what it holds.
            unsafe { visitor.pointer(slot.load(Ordering::Relaxed)) };
        }
        // SAFETY: null or a box that lives until the object is cleared.
        if let Some(engine) = unsafe { self.engine.load(Ordering::Acquire).as_ref() } {
            engine.traverse(visitor);
        }
    }

    fn clear(&self) {
        let engine = self.engine.swap(ptr::null_mut(), Ordering::AcqRel);
        if !engine.is_null() {
            // SAFETY: taken out above; no method runs on an object that is being cleared.
            drop(unsafe { Box::from_raw(engine) });
        }
        for slot in &self.slots {
            // SAFETY: the slot owned this reference, if any.
            unsafe { ffi::Py_XDECREF(slot.swap(ptr::null_mut(), Ordering::AcqRel)) };
        }
    }

    unsafe fn dealloc(this: *mut Self) {
        // SAFETY: the object is tracked until here, and must not be visited any more.
        unsafe { ffi::PyObject_GC_UnTrack(this.cast()) };
        // SAFETY: the memory is whole until it is freed.
        unsafe { &*this }.clear();
        // SAFETY: the object is dead and untracked, and its value was dropped.
        unsafe { native::free(this.cast()) };
    }
}

fn member(index: usize, name: &'static CStr) -> ffi::PyMemberDef {
    let offset = offset_of!(TlsProtocol, slots) + index * size_of::<*mut ffi::PyObject>();
    ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: ffi::Py_T_OBJECT_EX,
        offset: offset as ffi::Py_ssize_t,
        flags: 0,
        doc: ptr::null(),
    }
}
