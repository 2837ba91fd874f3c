//! Reports exceptions that nobody awaits to the exception handler, in asyncio's words.

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::handle::HandleRef;
use crate::imports::Imports;
use crate::py::Owned;
use crate::py::handled::Handled;

/// Whether an exception ends the run instead of being reported.
pub(crate) fn leaves_loop(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
}

/// Reports that a callback raised.
///
/// # Errors
/// Exceptions that end the run: `SystemExit` and `KeyboardInterrupt`.
#[cold]
pub(crate) fn callback_failed(
    py: Python<'_>,
    event_loop: &Owned,
    handle: &HandleRef,
    error: PyErr,
) -> PyResult<()> {
    if leaves_loop(py, &error) {
        return Err(error);
    }
    let handle = handle.object().bind(py);
    let callback = handle.getattr(intern!(py, "_callback"))?;
    let args = handle.getattr(intern!(py, "_args"))?;
    let args = if args.is_none() { pyo3::types::PyTuple::empty(py).into_any() } else { args };
    let description = describe(py, event_loop, &callback, &args)?;
    let context = PyDict::new(py);
    context.set_item("message", format!("Exception in callback {description}"))?;
    context.set_item("exception", error.into_value(py))?;
    context.set_item("handle", handle)?;
    let traceback = handle.getattr(intern!(py, "_source_traceback"))?;
    if traceback.is_truthy()? {
        context.set_item("source_traceback", traceback)?;
    }
    call_exception_handler(py, event_loop, &context)
}

/// Reports that an event of a transport could not be served, for another reason than
/// the end of its connection: one transport must not stop the loop.
///
/// # Errors
/// Exceptions that end the run.
#[cold]
pub(crate) fn event_failed(
    py: Python<'_>,
    event_loop: &Owned,
    transport: &Owned,
    error: PyErr,
) -> PyResult<()> {
    if leaves_loop(py, &error) {
        return Err(error);
    }
    let context = PyDict::new(py);
    context.set_item("message", "Exception in an event of a transport")?;
    context.set_item("exception", error.into_value(py))?;
    context.set_item("transport", transport.bind(py))?;
    call_exception_handler(py, event_loop, &context)
}

/// `f(1, 2) at file.py:3`; a broken `repr` must not hide the exception.
fn describe(
    py: Python<'_>,
    event_loop: &Owned,
    callback: &Bound<'_, PyAny>,
    args: &Bound<'_, PyAny>,
) -> PyResult<String> {
    let described = Imports::get(py).and_then(|imports| {
        let format = imports.format_callback.bind(py);
        // CPython 3.13 and later hide the arguments outside of debug mode.
        let debug = cfg!(Py_3_13).then(|| PyDict::new(py));
        if let Some(keywords) = &debug {
            let debug = event_loop.bind(py).call_method0(intern!(py, "get_debug"))?;
            keywords.set_item("debug", debug)?;
        }
        format.call((callback, args), debug.as_ref())?.extract::<String>()
    });
    match described {
        Err(error) if leaves_loop(py, &error) => Err(error),
        described => Ok(described.unwrap_or_else(|_| "<callback whose repr failed>".to_owned())),
    }
}

/// Hands a context to `loop.call_exception_handler`.
///
/// # Errors
/// Exceptions that end the run, out of the handler.
#[cold]
pub(crate) fn call_exception_handler(
    py: Python<'_>,
    event_loop: &Owned,
    context: &Bound<'_, PyDict>,
) -> PyResult<()> {
    let exception = context.get_item(intern!(py, "exception"))?;
    let _handled = exception.as_ref().map(Handled::new);
    let name = intern!(py, "call_exception_handler");
    event_loop.bind(py).call_method1(name, (context,)).map(drop)
}
