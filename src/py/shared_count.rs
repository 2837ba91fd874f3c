//! References that one thread adds and another drops.
//!
//! The free-threaded build counts references twice (PEP 703): a plain local count for
//! the owning thread and an atomic shared one for all others. An object whose reference
//! the owner has counted and another thread drops is queued for the owner to merge the
//! counts, and lives until then; the reverse ends the cheap local count for good. So a
//! reference that crosses threads uses the shared count from beginning to end. With the
//! GIL there is one count.
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

    /// One reference; the lowest two bits of the shared count are flags.
    const ONE: isize = 1 << 2;

    unsafe extern "C" {
        /// What `Py_DECREF` does in a thread that does not own the object.
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

    /// Whether the object's references are counted at all.
    ///
    /// # Safety
    /// `object` is alive.
    #[inline]
    unsafe fn is_mortal(object: *mut ffi::PyObject) -> bool {
        // SAFETY: the caller's promise.
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
