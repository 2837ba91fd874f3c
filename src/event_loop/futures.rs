//! Making and resolving futures of asyncio's class.
#![allow(unsafe_code)]

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use crate::event_loop::blank_future::BlankFuture;
use crate::event_loop::{EventLoop, This};
use crate::guarded::{self, Guarded};
use crate::imports::Imports;
use crate::py::{Live, Owned, call};

/// A future for our own waiting. If `create_future` is `TokioLoop`'s own, one of
/// asyncio's class is made without calling it.
///
/// # Errors
/// What the method raises.
// HOT: stream
#[inline]
pub(crate) fn create_future(py: Python<'_>, event_loop: &Owned) -> PyResult<Owned> {
    if is_plain(py, event_loop.live())? {
        // SAFETY: `is_plain` says that it is a `TokioLoop`.
        return make_plain(py, unsafe { This::of_object(py, event_loop.live()) });
    }
    call::method(py, event_loop, intern!(py, "create_future"), [])
}

/// Makes a future of asyncio's class.
///
/// # Errors
/// What the class raises.
// HOT: future
#[inline]
pub(crate) fn make(py: Python<'_>, this: This<'_>) -> PyResult<Owned> {
    if is_plain(py, this.live())? && is_stock_future(py)? {
        make_plain(py, this)
    } else {
        call_class(py, this)
    }
}

/// As [`make`], for a loop that [`is_plain`].
#[inline]
fn make_plain(py: Python<'_>, this: This<'_>) -> PyResult<Owned> {
    if !this.event_loop.debug() {
        if let Some(blank) = blank(py, this)? {
            return blank.make(py, this.live());
        }
    }
    instance(py, this, Imports::get(py)?.future.bind(py))
}

/// As asyncio's method does, which looks the class up for each future.
#[cold]
fn call_class(py: Python<'_>, this: This<'_>) -> PyResult<Owned> {
    let class = py.import("asyncio.futures")?.getattr(intern!(py, "Future"))?;
    instance(py, this, &class)
}

fn instance(py: Python<'_>, this: This<'_>, class: &Bound<'_, PyAny>) -> PyResult<Owned> {
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "loop"), this.bind(py))?;
    Ok(class.call((), Some(&keywords))?.into())
}

/// The memory of a fresh future; None unless the class is the one written in C.
#[inline]
fn blank(py: Python<'_>, this: This<'_>) -> PyResult<Option<&'static BlankFuture>> {
    static BLANK: PyOnceLock<Option<BlankFuture>> = PyOnceLock::new();
    let blank = match BLANK.get(py) {
        Some(blank) => blank,
        None => BLANK.get_or_try_init(py, || {
            let imports = Imports::get(py)?;
            let future = instance(py, this, imports.future.bind(py))?;
            let look = || BlankFuture::learn(&future.bind(py), &this.bind(py));
            PyResult::Ok(imports.future_is_native.then(look).flatten())
        })?,
    };
    Ok(blank.as_ref())
}

/// Whether an object is exactly a `TokioLoop` and nobody has replaced
/// `create_future`, or `get_debug`, which a future's constructor calls.
#[inline]
fn is_plain(py: Python<'_>, event_loop: Live<'_>) -> PyResult<bool> {
    static CLASS: PyOnceLock<Guarded> = PyOnceLock::new();
    let class = match CLASS.get(py) {
        Some(class) => class,
        None => CLASS.get_or_try_init(py, || {
            let class = py.import("tokioloop.loop")?.getattr("TokioLoop")?.cast_into::<PyType>()?;
            let members = ["create_future", "get_debug", "__getattribute__"];
            Guarded::new(&class, &members, guarded::is_native)
        })?,
    };
    if !class.is_exact(event_loop) || !class.is_unmodified(py) {
        return Ok(false);
    }
    // SAFETY: the class was just found to be `TokioLoop`, which derives from `EventLoop`.
    Ok(!unsafe { EventLoop::borrow(py, event_loop) }.custom_futures())
}

/// Whether `asyncio.futures.Future` is still the class that was imported first.
#[inline]
fn is_stock_future(py: Python<'_>) -> PyResult<bool> {
    let imports = Imports::get(py)?;
    let class = imports.futures.bind(py).get_item(intern!(py, "Future"))?;
    Ok(class.is_some_and(|class| class.is(&imports.future)))
}

/// `future.set_result(value)`, without looking the method up on asyncio's class
/// written in C, which nobody can change.
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
    call::method(py, future, intern!(py, "set_result"), [value.live()])
}
