//! Calls by vectorcall: no tuple, no dictionary.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::py::{Live, Owned};

/// Calls with no argument.
#[inline]
pub(crate) fn call0(py: Python<'_>, callable: &Owned) -> PyResult<Owned> {
    let mut stack: [*mut ffi::PyObject; 2] = [std::ptr::null_mut(); 2];
    // SAFETY: the reference keeps the callable alive; no argument is passed,
    // and the slot before the arguments is ours to be overwritten.
    unsafe { vectorcall(py, callable.as_ptr(), stack.as_mut_ptr().add(1), 0) }
}

/// Calls a method by its name.
#[inline]
pub(crate) fn method<const N: usize>(
    py: Python<'_>,
    receiver: &Owned,
    name: &Bound<'_, PyString>,
    arguments: [Live<'_>; N],
) -> PyResult<Owned> {
    let mut stack = [std::ptr::null_mut(); 4];
    for (slot, value) in stack.iter_mut().skip(1).zip([receiver.live()].iter().chain(&arguments)) {
        *slot = value.as_ptr();
    }
    const { assert!(N <= 2, "a method is called with two arguments at most") };
    let flags = (N + 1) | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
    let name = name.as_ptr();
    // SAFETY: live objects, and the slot before the receiver is ours to be overwritten.
    let result = unsafe {
        ffi::PyObject_VectorcallMethod(name, stack.as_mut_ptr().add(1), flags, std::ptr::null_mut())
    };
    // SAFETY: a new reference, or null with an exception.
    unsafe { Owned::from_result(py, result) }
}

/// Calls with arguments in a tuple.
///
/// # Safety
/// `callable` and `arguments`, a tuple, are alive.
pub(crate) unsafe fn with_tuple(
    py: Python<'_>,
    callable: *mut ffi::PyObject,
    arguments: *mut ffi::PyObject,
) -> PyResult<Owned> {
    // SAFETY: the caller's promise.
    let result = unsafe { ffi::PyObject_Call(callable, arguments, std::ptr::null_mut()) };
    // SAFETY: a new reference, or null with an exception.
    unsafe { Owned::from_result(py, result) }
}

/// Calls a function with `receiver` and one argument.
// HOT: proto
#[inline]
pub(crate) fn call_method1(
    py: Python<'_>,
    function: &Owned,
    receiver: &Owned,
    argument: &Owned,
) -> PyResult<Owned> {
    let mut stack = [std::ptr::null_mut(), receiver.as_ptr(), argument.as_ptr()];
    // SAFETY: the slot before the arguments is ours to be overwritten, as the
    // offset flag allows; the references live in the caller.
    unsafe { vectorcall(py, function.as_ptr(), stack.as_mut_ptr().add(1), 2) }
}

/// Calls with one argument.
#[inline]
pub(crate) fn call1(py: Python<'_>, callable: &Owned, argument: &Owned) -> PyResult<Owned> {
    let mut stack = [std::ptr::null_mut(), argument.as_ptr()];
    // SAFETY: as in `call_method1`.
    unsafe { vectorcall(py, callable.as_ptr(), stack.as_mut_ptr().add(1), 1) }
}

/// Calls with two arguments.
#[inline]
pub(crate) fn call2(
    py: Python<'_>,
    callable: &Owned,
    first: &Owned,
    second: &Owned,
) -> PyResult<Owned> {
    let mut stack = [std::ptr::null_mut(), first.as_ptr(), second.as_ptr()];
    // SAFETY: as in `call_method1`.
    unsafe { vectorcall(py, callable.as_ptr(), stack.as_mut_ptr().add(1), 2) }
}

/// Calls with `count` arguments at `arguments`.
///
/// # Safety
/// `callable` and the arguments are alive, and the slot before the first
/// argument may be written to.
#[inline]
pub(crate) unsafe fn vectorcall(
    py: Python<'_>,
    callable: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: usize,
) -> PyResult<Owned> {
    // SAFETY: the caller's promise.
    unsafe { vectorcall_at(py, callable, arguments, count, true) }
}

/// As [`vectorcall`]; `slot_before` says whether there is a slot before the arguments
/// that the callee may overwrite.
///
/// # Safety
/// `callable` and the arguments are alive, and the slot, if there is one, may be
/// written to.
#[inline]
pub(crate) unsafe fn vectorcall_at(
    py: Python<'_>,
    callable: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    slot_before: bool,
) -> PyResult<Owned> {
    let flags = if slot_before { count | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET } else { count };
    // SAFETY: the caller's promise.
    let result =
        unsafe { ffi::PyObject_Vectorcall(callable, arguments, flags, std::ptr::null_mut()) };
    // SAFETY: a new reference, or null with an exception.
    unsafe { Owned::from_result(py, result) }
}
