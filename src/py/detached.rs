//! Waiting without the interpreter.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;

use crate::py::call::{opaque, or_hang};

unsafe extern "C-unwind" {
    fn PyEval_RestoreThread(state: *mut ffi::PyThreadState);
}

type Restore = unsafe extern "C-unwind" fn(*mut ffi::PyThreadState);

/// Runs `body`, which must not touch Python, with the thread detached.
///
/// Before 3.14 a thread that comes back after the interpreter has ended is
/// ended in `PyEval_RestoreThread`; unwinding from there would drop Python
/// references that nobody may touch any more, so the thread waits instead.
#[inline]
pub(crate) fn detached<R>(_py: Python<'_>, body: impl FnOnce() -> R) -> R {
    struct Back(*mut ffi::PyThreadState);
    impl Drop for Back {
        fn drop(&mut self) {
            // SAFETY: the state that this thread saved, restored once.
            or_hang(|| unsafe { opaque(PyEval_RestoreThread as Restore)(self.0) });
        }
    }
    // SAFETY: the token proves that the thread is attached.
    let _back = Back(unsafe { ffi::PyEval_SaveThread() });
    body()
}
