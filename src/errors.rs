//! System errors as Python exceptions with their errno, and the loop's own errors.

use std::io;

use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

use crate::loop_cell::Refused;

/// `OSError(errno, strerror)`: Python picks the subclass by the number.
#[cold]
pub(crate) fn os_error(py: Python<'_>, error: &io::Error) -> PyErr {
    let Some(errno) = error.raw_os_error() else {
        return PyOSError::new_err(error.to_string());
    };
    // Make the instance here: a lazy `PyErr` takes a detour through the thread's
    // error indicator.
    let made = text_of(py, errno)
        .and_then(|text| py.get_type::<PyOSError>().call1((errno, text)))
        .map(PyErr::from_value);
    made.unwrap_or_else(|failure| failure)
}

/// Prepares an exception as a `raise` statement does: an exception that is being handled
/// becomes its context.
#[cold]
pub(crate) fn raised(py: Python<'_>, error: PyErr) -> PyErr {
    let value = error.into_value(py).into_bound(py);
    // To PyO3 this `PyErr` is lazy, so CPython sets the context when it is raised.
    PyErr::from_type(value.get_type(), value.into_any().unbind())
}

/// Error numbers below this have their text cached: connection resets are frequent.
const KNOWN: usize = 134;
static TEXTS: [PyOnceLock<Py<PyString>>; KNOWN] = [const { PyOnceLock::new() }; KNOWN];

/// `os.strerror(errno)`.
fn text_of(py: Python<'_>, errno: i32) -> PyResult<Bound<'_, PyString>> {
    let look_up = || -> PyResult<Py<PyString>> {
        let text = py.import("os")?.call_method1("strerror", (errno,))?;
        Ok(text.cast_into::<PyString>()?.unbind())
    };
    match usize::try_from(errno).ok().and_then(|errno| TEXTS.get(errno)) {
        Some(known) => Ok(known.get_or_try_init(py, look_up)?.bind(py).clone()),
        None => Ok(look_up()?.into_bound(py)),
    }
}

/// The error for a method that was called from a wrong thread or in a forked child.
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

/// Why a receive failed. It becomes an exception outside of `with`.
pub(crate) enum Failed {
    Io(io::Error),
    Python(PyErr),
}

impl Failed {
    /// The exception.
    pub(crate) fn into_exception(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Io(error) => os_error(py, &error),
            Self::Python(error) => error,
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<PyErr> for Failed {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}
