//! One step of a native coroutine: its input, its outcome, and how it is passed on to
//! something else that is awaited.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;

use crate::py::{Live, Owned};

/// What a coroutine is resumed with.
pub(crate) enum Input<'a> {
    Send(Live<'a>),
    Throw(&'a Bound<'a, PyAny>),
}

/// How a step has ended.
pub(crate) enum Step {
    Yield(Owned),
    Return(Owned),
}

/// Passes an input on to what is awaited.
///
/// # Errors
/// What that raises.
#[inline]
pub(crate) fn pass(py: Python<'_>, iterator: &Owned, input: Input<'_>) -> PyResult<Step> {
    match input {
        Input::Send(value) => {
            let mut result = std::ptr::null_mut();
            // SAFETY: all objects are alive; the result is a new reference.
            let state = unsafe { ffi::PyIter_Send(iterator.as_ptr(), value.as_ptr(), &mut result) };
            // SAFETY: a new reference, or null with an exception.
            let result = unsafe { Owned::from_result(py, result) }?;
            Ok(match state {
                ffi::PySendResult::PYGEN_NEXT => Step::Yield(result),
                _ => Step::Return(result),
            })
        }
        Input::Throw(error) => {
            match iterator.bind(py).call_method1(intern!(py, "throw"), (error,)) {
                Ok(value) => Ok(Step::Yield(value.into())),
                Err(stop) if stop.is_instance_of::<pyo3::exceptions::PyStopIteration>(py) => {
                    let value = stop.value(py).getattr(intern!(py, "value"))?;
                    Ok(Step::Return(value.into()))
                }
                Err(error) => Err(error),
            }
        }
    }
}
