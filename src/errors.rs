//! Errors of the system as Python exceptions, errno kept.

use std::io;

use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;

use crate::loop_cell::Refused;

/// `OSError(errno, strerror)`: Python picks the subclass by the number.
#[cold]
pub(crate) fn os_error(py: Python<'_>, error: &io::Error) -> PyErr {
    let Some(errno) = error.raw_os_error() else {
        return PyOSError::new_err(error.to_string());
    };
    let text = py
        .import("os")
        .and_then(|os| os.call_method1("strerror", (errno,)))
        .and_then(|text| text.extract::<String>())
        .unwrap_or_else(|_| error.to_string());
    PyOSError::new_err((errno, text))
}

/// A method that only the loop's thread may call was called by another.
#[cold]
pub(crate) fn refused(refused: Refused, method: &str) -> PyErr {
    PyRuntimeError::new_err(match refused {
        Refused::OtherThread => format!(
            "{method}() was called from another thread than the one that runs the event loop; \
             use loop.call_soon_threadsafe()"
        ),
        Refused::Forked => format!(
            "{method}() was called in a forked child: this event loop belongs to the parent process"
        ),
    })
}

/// asyncio's error for a loop that was started twice.
#[cold]
pub(crate) fn already_running() -> PyErr {
    PyRuntimeError::new_err("This event loop is already running")
}

/// asyncio's error for a loop that was closed.
#[cold]
pub(crate) fn closed() -> PyErr {
    PyRuntimeError::new_err("Event loop is closed")
}
