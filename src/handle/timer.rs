//! What handles of timers have besides: when they are due, and where the loop's
//! timers hold them.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use tokioloop_reactor::TimerKey;

use super::object::{HandleObject, Slot};
use crate::py::native::Visitor;
use crate::py::{Args, Owned};

/// The memory of a `TimerHandle`.
#[repr(C)]
pub(crate) struct TimerObject {
    pub(super) handle: HandleObject,
    key: Cell<Option<TimerKey>>,
    when_seconds: Cell<f64>,
    /// `when` as the caller gave it, if it did.
    given: Slot,
}

impl HandleObject {
    /// Notes where the loop's timers hold the handle.
    #[inline]
    pub(crate) fn set_timer(&self, key: Option<TimerKey>) {
        if let Some(timer) = self.timer() {
            timer.key.set(key);
        }
    }

    /// Where the loop's timers hold the handle, which they are to give back.
    pub(super) fn take_timer(&self) -> Option<TimerKey> {
        self.timer()?.key.take()
    }

    /// The time on the loop's clock at which the handle is due.
    pub(crate) fn when_seconds(&self) -> f64 {
        self.timer().map_or(f64::INFINITY, |timer| timer.when_seconds.get())
    }

    #[inline]
    pub(crate) fn set_when(&self, seconds: f64, given: Option<Owned>) {
        if let Some(timer) = self.timer() {
            timer.when_seconds.set(seconds);
            if let Some(given) = given {
                timer.given.set(given.into_raw());
            }
        }
    }
}

impl TimerObject {
    pub(super) fn visit(&self, visitor: &mut Visitor) {
        visitor.pointer(self.given.get());
    }

    /// Before the memory serves again: there is neither a time nor a place.
    #[inline]
    pub(super) fn forget(&self) {
        self.key.set(None);
        // SAFETY: the slot owned this reference, if any.
        unsafe { ffi::Py_XDECREF(self.given.replace(ptr::null_mut())) };
    }
}

pub(super) fn when<'py>(
    py: Python<'py>,
    this: &TimerObject,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("TimerHandle.when")?;
    when_value(py, this)
}

pub(super) fn when_value(py: Python<'_>, this: &TimerObject) -> PyResult<Owned> {
    let given = this.given.get();
    if given.is_null() {
        Owned::float(py, this.when_seconds.get())
    } else {
        // SAFETY: the slot owns a reference.
        Ok(unsafe { Owned::from_borrowed(given) })
    }
}

pub(super) fn scheduled_value(py: Python<'_>, this: &TimerObject) -> PyResult<Owned> {
    Ok(Owned::bool(py, this.key.get().is_some()))
}
