//! Memory that the thread with the GIL may open.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;

use pyo3::prelude::*;

/// A value that all threads share under the GIL.
#[derive(Default)]
pub(crate) struct GilCell<T> {
    value: UnsafeCell<T>,
    #[cfg(debug_assertions)]
    open: std::cell::Cell<bool>,
}

// SAFETY: the value is only reached with the GIL, which one thread has at a time,
// and may therefore move between threads.
unsafe impl<T: Send> Sync for GilCell<T> {}

impl<T> GilCell<T> {
    /// Opens the value. The body must not call into Python, which might give the
    /// GIL to another thread, or come back here.
    #[inline]
    pub(crate) fn with<R>(&self, _py: Python<'_>, body: impl FnOnce(&mut T) -> R) -> R {
        #[cfg(debug_assertions)]
        assert!(!self.open.replace(true), "opened twice");
        // SAFETY: the token proves that this thread has the GIL, and the body neither
        // gives it up nor comes back here.
        let result = body(unsafe { &mut *self.value.get() });
        #[cfg(debug_assertions)]
        self.open.set(false);
        result
    }
}
