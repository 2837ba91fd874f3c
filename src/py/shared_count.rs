//! References that one thread makes and another gives up.
//!
//! Without the GIL an object counts the references of the thread that made it apart
//! from those of all others. A reference that its own thread has counted and another
//! gives up makes the object be sent back, and it lives until its thread looks; one
//! that the others have counted and its own thread gives up ends the own count early,
//! for good. So what goes from thread to thread is counted with the others from its
//! beginning to its end. With the GIL there is one count.
#![allow(unsafe_code)]

use pyo3::ffi;

#[cfg(not(Py_GIL_DISABLED))]
pub(crate) use self::with_gil::{add, subtract};
#[cfg(Py_GIL_DISABLED)]
pub(crate) use self::without_gil::{add, subtract};

#[cfg(Py_GIL_DISABLED)]
mod without_gil {
    use std::sync::atomic::Ordering;

    use super::ffi;

    /// The lowest two bits of the count are flags.
    const ONE: isize = 1 << 2;

    unsafe extern "C" {
        /// What `Py_DECREF` does in a thread that is not the object's.
        fn _Py_DecRefShared(object: *mut ffi::PyObject);
    }

    /// Adds a reference that [`subtract`] is to give up, in any thread.
    ///
    /// # Safety
    /// A live object; the caller is attached.
    #[inline]
    pub(crate) unsafe fn add(object: *mut ffi::PyObject) {
        // SAFETY: the caller's promise.
        if unsafe { is_mortal(object) } {
            // SAFETY: as above; what `Py_INCREF` does in another thread.
            unsafe { (*object).ob_ref_shared.fetch_add(ONE, Ordering::Relaxed) };
        }
    }

    /// Gives up a reference.
    ///
    /// # Safety
    /// The caller owns the reference and is attached.
    #[inline]
    pub(crate) unsafe fn subtract(object: *mut ffi::PyObject) {
        // SAFETY: the caller's promise.
        if unsafe { is_mortal(object) } {
            // SAFETY: as above.
            unsafe { _Py_DecRefShared(object) };
        }
    }

    #[inline]
    unsafe fn is_mortal(object: *mut ffi::PyObject) -> bool {
        // SAFETY: the caller has a live object.
        unsafe { (*object).ob_ref_local.load(Ordering::Relaxed) != u32::MAX }
    }
}

#[cfg(not(Py_GIL_DISABLED))]
mod with_gil {
    use super::ffi;

    /// Adds a reference that [`subtract`] is to give up, in any thread.
    ///
    /// # Safety
    /// A live object; the caller is attached.
    #[inline]
    pub(crate) unsafe fn add(object: *mut ffi::PyObject) {
        // SAFETY: the caller's promise.
        unsafe { ffi::Py_INCREF(object) };
    }

    /// Gives up a reference.
    ///
    /// # Safety
    /// The caller owns the reference and is attached.
    #[inline]
    pub(crate) unsafe fn subtract(object: *mut ffi::PyObject) {
        // SAFETY: the caller's promise.
        unsafe { ffi::Py_DECREF(object) };
    }
}
