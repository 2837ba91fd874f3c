//! Cancelling a handle, and emptying one that is not needed any more.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::Ordering;

use pyo3::ffi;
use pyo3::prelude::*;

use super::Kind;
use super::object::{HandleObject, INLINE_ARGS, give_up};
use crate::event_loop::Inside;
use crate::py::Owned;
use crate::threadsafe_cancel;

impl HandleObject {
    /// `cancel()`, from any thread.
    pub(crate) fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_cancelled() {
            return self.wait_until_cancelled(py);
        }
        let event_loop = self.event_loop(py);
        self.cancelled.store(true, Ordering::SeqCst);
        if event_loop.debug() {
            self.remember_repr(py)?;
        }
        match event_loop.cell.try_enter() {
            Ok(inside) => {
                let released = self.take_back(py, &inside);
                // Other threads may enter while these are dropped.
                drop(inside);
                drop(released);
                Ok(())
            }
            Err(_) => {
                event_loop.reap(py, self.shared_ref(py));
                self.wait_until_cancelled(py)
            }
        }
    }

    /// Waits until a `call_soon_threadsafe` callback has stopped running, as CPython 3.14
    /// and later do in another thread that cancels its handle or asks for its state.
    pub(super) fn wait_until_cancelled(&self, py: Python<'_>) -> PyResult<()> {
        if self.kind() == Kind::Threadsafe && cfg!(Py_3_14) {
            let event_loop = self.event_loop(py);
            // In a forked child a callback that seems to run belongs to a thread that does
            // not exist there, or it is this very one.
            if !event_loop.cell.is_mine() && !event_loop.cell.is_disowned() {
                return threadsafe_cancel::wait(py, &self.running);
            }
        }
        Ok(())
    }

    /// On the loop's thread: finishes a `cancel` that this or another thread began. The
    /// caller, who holds the handle, drops the result outside of the loop's state.
    pub(crate) fn take_back(&self, py: Python<'_>, inside: &Inside<'_>) -> Option<Released> {
        let held = self.take_timer().and_then(|key| inside.with(|state| state.timers.remove(key)));
        let released = (!self.is_running()).then(|| self.empty(py));
        drop(held);
        if self.is_shared() || cfg!(Py_3_14) {
            // The loop no longer holds it: whoever keeps it may form a cycle with it
            // through the context. From 3.14 on the interpreter borrows a local variable's
            // reference for a call, so a count of 1 does not mean that nobody keeps it.
            self.track();
        }
        released
    }

    /// Debug mode shows what a cancelled handle would have called.
    #[cold]
    fn remember_repr(&self, py: Python<'_>) -> PyResult<()> {
        // SAFETY: alive during its own method.
        let this = unsafe { Owned::from_borrowed((&raw const *self).cast_mut().cast()) };
        let text = this.bind(py).repr()?.into_any();
        let old = self.alone(py, || self.repr.replace(self.take(py, text.into())));
        // SAFETY: the slot owned this reference.
        unsafe { give_up(self.kind(), old) };
        Ok(())
    }

    /// Drops what the callback needed, as asyncio does when it is cancelled.
    pub(super) fn release(&self, py: Python<'_>) {
        drop(self.empty(py));
    }

    /// Takes out the callback and its arguments. The callback's slot then holds None.
    fn empty(&self, py: Python<'_>) -> Released {
        let none = Owned::none(py);
        let held = self.alone(py, || {
            let count = usize::from(self.inline_count.replace(0));
            let mut held = [ptr::null_mut(); INLINE_ARGS + 2];
            let [callback, tuple, inline @ ..] = &mut held;
            *callback = self.callback.replace(self.take(py, none));
            *tuple = self.args.replace(ptr::null_mut());
            for (object, slot) in inline.iter_mut().zip(&self.inline).take(count) {
                *object = slot.replace(ptr::null_mut());
            }
            held
        });
        Released { kind: self.kind(), held }
    }

    /// Breaks cycles. The reference to the loop stays: the handle's methods need it, and
    /// the loop's own clear breaks that side.
    pub(super) fn clear_for_collector(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        // SAFETY: the collector runs attached.
        self.release(unsafe { Python::assume_attached() });
    }
}

/// What a cancelled handle held. Dropping it may run any code.
#[must_use]
pub(crate) struct Released {
    kind: Kind,
    held: [*mut ffi::PyObject; INLINE_ARGS + 2],
}

impl Drop for Released {
    fn drop(&mut self) {
        for object in self.held {
            // SAFETY: the slots owned these references.
            unsafe { give_up(self.kind, object) };
        }
    }
}
