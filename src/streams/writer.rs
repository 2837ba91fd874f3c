//! The methods of a native `StreamWriter`: straight into the transport.

use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{Borrowed, ffi, intern};

use crate::coroutine::{self, Body, NativeCoroutine};
use crate::py::native::method;
use crate::py::{Args, Owned, call};
use crate::streams::classes;
use crate::streams::fields::Field;
use crate::streams::operation::{Operation, Task};
use crate::streams::reader::Instance;
use crate::streams::state::StreamState;
use crate::streams::stock::Stock;
use crate::streams::transport;

/// Calls the transport's method of the same name with the same arguments,
/// unless asyncio's own method has to do it. Keywords are left to that: a transport's
/// parameters may have other names.
#[inline]
fn to_transport<'py>(
    py: Python<'py>,
    this: &Instance,
    name: &Bound<'py, PyString>,
    counts: std::ops::RangeInclusive<usize>,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    let stock = &Stock::get(py)?.writer;
    let values = args.positional();
    if counts.contains(&values.len()) && !args.has_keywords() && stock.is_unmodified(py) {
        let state = StreamState::find(py, this.object().live())?;
        if let Some(transport) = state.and_then(|state| state.get(py, Field::Transport)) {
            return match values {
                [] => call::method(py, &transport, name, []),
                [only] => call::method(py, &transport, name, [*only]),
                [first, second, ..] => call::method(py, &transport, name, [*first, *second]),
            };
        }
    }
    this.ordinary(py, stock, &name.to_cow()?, args)
}

// HOT: stream
fn write<'py>(py: Python<'py>, this: &Instance, args: Args<'_, 'py>) -> PyResult<Owned> {
    if let ([data], false) = (args.positional(), args.has_keywords()) {
        if Stock::get(py)?.writer.is_unmodified(py) {
            let state = StreamState::find(py, this.object().live())?;
            if let Some(transport) = state.and_then(|state| state.get(py, Field::Transport)) {
                transport::write(py, &transport, intern!(py, "write"), *data)?;
                return Ok(Owned::none(py));
            }
        }
    }
    to_transport(py, this, intern!(py, "write"), 1..=1, args)?;
    // asyncio's method returns None, whatever the transport's returns.
    Ok(Owned::none(py))
}

fn writelines<'py>(py: Python<'py>, this: &Instance, args: Args<'_, 'py>) -> PyResult<Owned> {
    to_transport(py, this, intern!(py, "writelines"), 1..=1, args)?;
    Ok(Owned::none(py))
}

fn close<'py>(py: Python<'py>, this: &Instance, args: Args<'_, 'py>) -> PyResult<Owned> {
    to_transport(py, this, intern!(py, "close"), 0..=0, args)
}

fn is_closing<'py>(py: Python<'py>, this: &Instance, args: Args<'_, 'py>) -> PyResult<Owned> {
    to_transport(py, this, intern!(py, "is_closing"), 0..=0, args)
}

fn get_extra_info<'py>(py: Python<'py>, this: &Instance, args: Args<'_, 'py>) -> PyResult<Owned> {
    to_transport(py, this, intern!(py, "get_extra_info"), 1..=2, args)
}

// HOT: stream
fn drain<'py>(receiver: Borrowed<'_, 'py, PyAny>, args: Args<'_, 'py>) -> PyResult<Option<Owned>> {
    let py = receiver.py();
    let Some(this) = Instance::of(receiver, classes::has_writer_methods) else { return Ok(None) };
    let stock = &Stock::get(py)?.writer;
    if args.positional().is_empty() && !args.has_keywords() && stock.is_unmodified(py) {
        let writer = this.object();
        if let Some(state) = StreamState::find(py, writer.live())? {
            let operation = Operation::new(writer, Task::Drain(state));
            return NativeCoroutine::make(py, coroutine::Operation::Stream(operation)).map(Some);
        }
    }
    this.ordinary(py, stock, "drain", args).map(Some)
}

/// The methods of the class that return at once.
pub(crate) fn methods() -> Vec<ffi::PyMethodDef> {
    type T = Instance;
    vec![
        method!(T, c"write", write, c"write($self, data)\n--\n\nWrite data to the transport."),
        method!(T, c"writelines", writelines, c"writelines($self, data)\n--\n\nWrite several pieces of data to the transport."),
        method!(T, c"close", close, c"close($self)\n--\n\nClose the transport once everything has been sent."),
        method!(T, c"is_closing", is_closing, c"is_closing($self)\n--\n\nReturn whether the transport is closing or closed."),
        method!(T, c"get_extra_info", get_extra_info, c"get_extra_info($self, name, default=None)\n--\n\nReturn what the transport knows under this name."),
    ]
}

/// The methods that return coroutines.
pub(crate) const COROUTINES: [(&str, Body); 1] = [("drain", drain)];
