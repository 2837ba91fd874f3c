//! Waiting without the interpreter.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;

/// Runs `body`, which must not touch Python, with the thread detached.
#[inline]
pub(crate) fn detached<R>(_py: Python<'_>, body: impl FnOnce() -> R) -> R {
    struct Back(*mut ffi::PyThreadState);
    impl Drop for Back {
        fn drop(&mut self) {
            // SAFETY: the state that this thread saved, restored once.
            unsafe { ffi::PyEval_RestoreThread(self.0) };
        }
    }
    // SAFETY: the token proves that the thread is attached.
    let _back = Back(unsafe { ffi::PyEval_SaveThread() });
    body()
}
