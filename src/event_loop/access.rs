//! Entering a loop, reading its flags on hot paths, and emptying it at its end.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use pyo3::prelude::*;

use crate::errors;
use crate::event_loop::{EventLoop, Inside, LoopState};

impl EventLoop {
    /// Enters, or raises an error that names `method`: it was called from a wrong
    /// thread or in a forked child.
    #[inline]
    pub(crate) fn enter(&self, py: Python<'_>, method: &str) -> PyResult<Inside<'_>> {
        self.cell.enter(py).map_err(|refused| errors::refused(refused, method))
    }

    #[inline]
    pub(crate) fn debug(&self) -> bool {
        self.observer.is_debugging()
    }

    #[inline]
    pub(crate) fn closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether the calling thread runs this loop right now.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        self.cell.is_mine() && self.cell.is_running()
    }

    #[inline]
    pub(crate) fn custom_futures(&self) -> bool {
        self.custom_futures.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn custom_clock(&self) -> bool {
        self.custom_clock.load(Ordering::Relaxed)
    }

    /// Whether another thread has begun to run the loop.
    #[allow(clippy::useless_conversion)] // c_ulong is u64 on most systems only
    pub(super) fn is_run_elsewhere(&self) -> bool {
        let runner = self.thread_ident.load(Ordering::Relaxed);
        // SAFETY: an attached thread may ask for its identity.
        #[allow(unsafe_code)]
        let me = unsafe { pyo3::ffi::PyThread_get_thread_ident() };
        runner != 0 && runner != u64::from(me)
    }

    /// Empties the state. Its former contents are dropped only once the state is
    /// consistent and other threads may enter: dropping may run any code, which
    /// may wait for them.
    pub(super) fn clear(&self, py: Python<'_>, inside: Inside<'_>) {
        let dropped = inside.with(LoopState::empty);
        self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(inside);
        drop(dropped);
        while let Some(message) = self.inbox.pop(py) {
            drop(message);
        }
        if let Ok(inside) = self.cell.try_enter() {
            // Dead handles: dropping them only frees memory.
            drop(inside.with(|state| state.handles.drain()));
        }
        drop(self.shared_handles.drain(py));
    }
}
