//! What timer handles have in addition: when they are due, and their key in the
//! loop's timers.
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
    /// The time as an object, if it was not computed here as a float.
    given: Slot,
}

impl HandleObject {
    /// Notes the handle's key in the loop's timers; None once it is not in them.
    #[inline]
    pub(crate) fn set_timer(&self, key: Option<TimerKey>) {
        if let Some(timer) = self.timer() {
            timer.key.set(key);
        }
    }

    /// Takes the key, for removing the handle from the loop's timers.
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
        // SAFETY: a slot owns what it holds.
        unsafe { visitor.pointer(self.given.get()) };
    }

    /// Drops the key and the time object before the memory is reused.
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
