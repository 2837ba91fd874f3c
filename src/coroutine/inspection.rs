//! The attributes of a coroutine that `inspect`, asyncio's own tools and debuggers read. A
//! native one has no interpreter frame. `cr_frame` makes one that is at the beginning of
//! the asyncio function which the coroutine replaces.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::ptr;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};
use pyo3::{ffi, intern};

use crate::coroutine::class::NativeCoroutine;
use crate::py::Owned;
use crate::py::native::getter;

/// The attributes of the class.
pub(super) fn attributes() -> Vec<ffi::PyGetSetDef> {
    type T = NativeCoroutine;
    vec![
        getter!(T, c"__class__", class),
        getter!(T, c"__name__", name),
        getter!(T, c"__qualname__", qualified_name),
        getter!(T, c"cr_running", is_running),
        getter!(T, c"cr_suspended", is_suspended),
        getter!(T, c"cr_await", awaited),
        getter!(T, c"cr_code", code),
        getter!(T, c"cr_frame", frame),
        getter!(T, c"cr_origin", origin),
    ]
}

/// `isinstance` trusts this attribute. C code checks the type instead, and so does not
/// read the memory as that of CPython's coroutine.
fn class(py: Python<'_>, _: &NativeCoroutine) -> PyResult<Owned> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    Ok(Owned::from(CLASS.import(py, "types", "CoroutineType")?.as_any()))
}

fn name(py: Python<'_>, t: &NativeCoroutine) -> PyResult<Owned> {
    Ok(last(t.name()).into_pyobject(py)?.into_any().into())
}

/// The last part of a qualified name.
fn last(qualified: &str) -> &str {
    qualified.rsplit('.').next().unwrap_or(qualified)
}

fn qualified_name(py: Python<'_>, t: &NativeCoroutine) -> PyResult<Owned> {
    Ok(t.name().into_pyobject(py)?.into_any().into())
}

fn is_running(py: Python<'_>, t: &NativeCoroutine) -> PyResult<Owned> {
    Ok(Owned::bool(py, t.is_running()))
}

fn is_suspended(py: Python<'_>, t: &NativeCoroutine) -> PyResult<Owned> {
    Ok(Owned::bool(py, t.is_suspended()))
}

fn awaited(py: Python<'_>, t: &NativeCoroutine) -> PyResult<Owned> {
    let awaited = t.look(|operation| operation.awaited().map(|awaited| awaited.clone_ref(py)));
    Ok(awaited.flatten().unwrap_or_else(|| Owned::none(py)))
}

/// Where it was made is not tracked.
fn origin(py: Python<'_>, _: &NativeCoroutine) -> PyResult<Owned> {
    Ok(Owned::none(py))
}

/// The code of asyncio's function.
fn code(py: Python<'_>, t: &NativeCoroutine) -> PyResult<Owned> {
    Ok(stock_code(py, t.name())?.into())
}

fn stock_code<'py>(py: Python<'py>, qualified: &str) -> PyResult<Bound<'py, PyAny>> {
    let is_stream = qualified.starts_with("Stream");
    let module = if is_stream { "asyncio.streams" } else { "asyncio.selector_events" };
    let module = py.import(module)?.into_any();
    let function = qualified.split('.').try_fold(module, |owner, name| owner.getattr(name))?;
    function.getattr(intern!(py, "__code__"))
}

/// A frame that has never run; None once the coroutine has ended.
fn frame(py: Python<'_>, t: &NativeCoroutine) -> PyResult<Owned> {
    if t.has_ended() {
        return Ok(Owned::none(py));
    }
    let stock = stock_code(py, t.name())?;
    if cfg!(Py_3_11) { new_frame(py, &stock) } else { frame_to_look_at(py, t, &stock) }
}

fn new_frame(py: Python<'_>, stock: &Bound<'_, PyAny>) -> PyResult<Owned> {
    let file = CString::new(stock.getattr(intern!(py, "co_filename"))?.extract::<String>()?)?;
    let function = CString::new(stock.getattr(intern!(py, "co_name"))?.extract::<String>()?)?;
    let line = stock.getattr(intern!(py, "co_firstlineno"))?.extract()?;
    let globals = PyDict::new(py);
    // SAFETY: C strings, which the call copies.
    let code = unsafe { ffi::PyCode_NewEmpty(file.as_ptr(), function.as_ptr(), line) };
    // SAFETY: a new reference, or null with an exception.
    let code = unsafe { Owned::from_result(py, code.cast()) }?;
    // SAFETY: an attached thread, an empty code object as the call asks for, live globals
    // and no locals; a new reference, or null with an exception.
    unsafe {
        let thread = ffi::PyThreadState_Get();
        let code = code.as_ptr().cast();
        let frame = ffi::PyFrame_New(thread, code, globals.as_ptr(), ptr::null_mut());
        Owned::from_result(py, frame.cast())
    }
}

/// The attributes of a frame without one. On 3.10 a new frame has the running one as its
/// `f_back`, and says of every coroutine that it has not begun.
fn frame_to_look_at(
    py: Python<'_>,
    t: &NativeCoroutine,
    stock: &Bound<'_, PyAny>,
) -> PyResult<Owned> {
    let attributes = PyDict::new(py);
    for name in ["f_back", "f_trace"] {
        attributes.set_item(name, py.None())?;
    }
    for name in ["f_builtins", "f_globals", "f_locals"] {
        attributes.set_item(name, PyDict::new(py))?;
    }
    attributes.set_item("f_code", stock)?;
    attributes.set_item("f_lineno", stock.getattr(intern!(py, "co_firstlineno"))?)?;
    // What tells a coroutine that has not begun from one that is suspended.
    attributes.set_item("f_lasti", if t.is_suspended() || t.is_running() { 0 } else { -1 })?;
    let class = py.import("types")?.getattr("SimpleNamespace")?;
    Ok(class.call((), Some(&attributes))?.into())
}
