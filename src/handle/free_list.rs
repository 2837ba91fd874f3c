//! Dead handles whose memory is reused: a loop makes a handle for every
//! callback, and most live for one turn.
#![allow(unsafe_code)]

use crate::handle::{HandleObject, Kind};
use crate::py::native;

/// How many dead handles of each class a loop keeps for its next callbacks.
const FREE_LIST_LENGTH: usize = 256;

/// A loop's dead handles.
#[derive(Default)]
pub(crate) struct Handles {
    plain: Vec<DeadHandle>,
    timer: Vec<DeadHandle>,
}

/// The memory of a handle that nothing refers to. It refers only to its class and,
/// if it is [`Kind::Threadsafe`], to its loop.
pub(crate) struct DeadHandle(*mut HandleObject);

impl DeadHandle {
    /// # Safety
    /// Nothing refers to the handle, which refers to nothing but its class and
    /// maybe its loop, and the collector does not know it.
    #[inline]
    pub(super) unsafe fn new(handle: *mut HandleObject) -> Self {
        Self(handle)
    }

    /// The handle as a new object, with one reference.
    #[inline]
    pub(super) fn revive(self) -> *mut HandleObject {
        let memory = self.0;
        std::mem::forget(self);
        // SAFETY: dead memory, which `self` was the only owner of.
        unsafe { revive(memory) };
        memory
    }
}

// SAFETY: nothing else refers to the memory, so only its owner's thread uses it.
unsafe impl Send for DeadHandle {}

impl Drop for DeadHandle {
    fn drop(&mut self) {
        // SAFETY: dead memory, whose last owner this is.
        unsafe { (*self.0).forget_loop() };
        // SAFETY: no reference is left and the collector does not know it.
        unsafe { native::free(self.0.cast()) }
    }
}

impl Handles {
    /// Memory for a handle: a dead one's if there is any.
    // HOT: call_soon
    #[inline]
    pub(crate) fn take(&mut self, kind: Kind) -> Memory {
        match self.list(kind).pop() {
            Some(dead) => Memory::Dead(dead),
            None => Memory::New(kind),
        }
    }

    pub(super) fn put(&mut self, kind: Kind, dead: DeadHandle) -> Option<DeadHandle> {
        let list = self.list(kind);
        if list.len() < FREE_LIST_LENGTH {
            list.push(dead);
            None
        } else {
            Some(dead)
        }
    }

    #[inline]
    fn list(&mut self, kind: Kind) -> &mut Vec<DeadHandle> {
        match kind {
            Kind::Timer => &mut self.timer,
            Kind::Plain | Kind::Threadsafe => {
                debug_assert!(kind == Kind::Plain, "those are in a list of their own");
                &mut self.plain
            }
        }
    }

    /// Takes every dead handle out, to be dropped by the caller.
    pub(crate) fn drain(&mut self) -> impl Sized + use<> {
        std::mem::take(self)
    }
}

/// Memory for a new handle.
pub(crate) enum Memory {
    /// That of a dead one.
    Dead(DeadHandle),
    /// To be allocated.
    New(Kind),
}

/// Makes dead memory an object again, with a count of 1. It has kept its reference to
/// its class.
///
/// # Safety
/// The memory is a dead handle that no list holds.
#[inline]
unsafe fn revive(memory: *mut HandleObject) {
    #[cfg(all(not(Py_GIL_DISABLED), Py_3_12))]
    // SAFETY: the caller's promise; a count of 1 is a new object's.
    unsafe {
        (*memory).ob_base.ob_refcnt.ob_refcnt = 1;
    }
    #[cfg(all(not(Py_GIL_DISABLED), not(Py_3_12)))]
    // SAFETY: as above.
    unsafe {
        (*memory).ob_base.ob_refcnt = 1;
    }
    #[cfg(Py_GIL_DISABLED)]
    {
        unsafe extern "C" {
            fn _Py_NewReference(object: *mut pyo3::ffi::PyObject);
        }
        // SAFETY: dead memory; this writes the header anew, except for the class.
        // (`PyObject_Init` would also count the class, whose count all threads share.)
        unsafe { _Py_NewReference(memory.cast()) };
    }
}
