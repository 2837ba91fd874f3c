//! Futures that native code waits with.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::event_loop::EventLoop;
use crate::guarded::{self, Guarded};
use crate::imports::Imports;
use crate::py::{Owned, call};

/// `loop.create_future()`, without the call where the method is the one that
/// `TokioLoop` has: asyncio's own class is what it makes then.
///
/// # Errors
/// What the method raises.
// HOT: stream
#[inline]
pub(crate) fn create_future(py: Python<'_>, event_loop: &Owned) -> PyResult<Owned> {
    if makes_plain_futures(py, event_loop)? {
        return Ok(Imports::get(py)?.future.bind(py).call0()?.into());
    }
    call::method(py, event_loop, intern!(py, "create_future"), [])
}

/// Whether the object is a `TokioLoop` that runs in this thread, and whose
/// `create_future` nobody has replaced.
#[inline]
fn makes_plain_futures(py: Python<'_>, event_loop: &Owned) -> PyResult<bool> {
    static CLASS: PyOnceLock<Guarded> = PyOnceLock::new();
    let class = match CLASS.get(py) {
        Some(class) => class,
        None => CLASS.get_or_try_init(py, || {
            let class = py.import("tokioloop.loop")?.getattr("TokioLoop")?.cast_into::<PyType>()?;
            Guarded::new(&class, &["create_future", "__getattribute__"], guarded::is_native)
        })?,
    };
    if !class.is_exact(event_loop.as_ptr()) || !class.is_unmodified(py) {
        return Ok(false);
    }
    let event_loop = event_loop.bind(py);
    let event_loop = event_loop.cast::<EventLoop>()?.get();
    Ok(event_loop.is_current() && !event_loop.custom_futures())
}

/// `future.set_result(value)`, by the shortest way for asyncio's own class,
/// which nobody can change.
///
/// # Errors
/// What the method raises: InvalidStateError where the future is done.
// HOT: stream
#[inline]
pub(crate) fn set_result(py: Python<'_>, future: &Owned, value: &Owned) -> PyResult<Owned> {
    let imports = Imports::get(py)?;
    let class = imports.future.bind(py);
    if imports.future_is_native && future.bind(py).get_type().as_ptr() == class.as_ptr() {
        return call::call2(py, &imports.future_set_result, future, value);
    }
    call::method(py, future, intern!(py, "set_result"), [value.as_ptr()])
}
