//! Which interpreter of the process this is, and which of its threads.
#![allow(unsafe_code)]

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

/// Refuses sub-interpreters. The extension has one set of classes and cached objects
/// per process, and an object of one interpreter crashes another.
///
/// # Errors
/// ImportError in any interpreter but the main one.
pub(crate) fn require_main(_py: Python<'_>) -> PyResult<()> {
    // SAFETY: an attached thread has an interpreter.
    let current = unsafe { ffi::PyInterpreterState_Get() };
    // SAFETY: the interpreter runs this very call.
    if unsafe { ffi::PyInterpreterState_GetID(current) } == MAIN {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "tokioloop cannot be loaded in a sub-interpreter; use threads (tokioloop.serve) or processes",
    ))
}

/// Whether this is the thread that Python runs signal handlers in.
pub(crate) fn is_main_thread(py: Python<'_>) -> bool {
    let main = || py.import("threading")?.call_method0("main_thread")?.getattr("ident")?.extract();
    // SAFETY: an attached thread may ask for its identity.
    let me = unsafe { ffi::PyThread_get_thread_ident() };
    PyResult::<std::ffi::c_ulong>::is_ok_and(main(), |main| main == me)
}

/// CPython's number of the main interpreter.
const MAIN: i64 = 0;
