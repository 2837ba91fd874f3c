//! Dead handles of `call_soon_threadsafe`, which any thread may call.
//!
//! A handle is deallocated by whichever thread drops it last. If the memory went back
//! to the allocator, one thread would free what another has allocated, and the
//! collector, which counts per thread, would believe that senders fill the memory.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit, ffi};

use crate::handle::Kind;
use crate::handle::free_list::{DeadHandle, Memory};
use crate::py::{Live, Owned};

/// How many dead handles a loop keeps: as many as messages may wait before senders
/// wait for the loop (`backpressure`).
const LENGTH: usize = 8192;

/// Dead handles, for all threads that send to one loop. Each keeps its reference to
/// the loop: otherwise the loop's count would move between processors for every
/// message.
#[derive(Default)]
pub(crate) struct SharedHandles {
    list: imp::List,
    /// The loop; null until the first handle is kept.
    event_loop: AtomicPtr<ffi::PyObject>,
}

impl SharedHandles {
    /// Memory for a handle: a dead one's if there is any.
    #[inline]
    pub(crate) fn take(&self, py: Python<'_>) -> Memory {
        self.list.pop(py).map_or(Memory::New(Kind::Threadsafe), Memory::Dead)
    }

    /// Takes every dead handle out, to be dropped by the caller.
    pub(crate) fn drain(&self, py: Python<'_>) -> impl Sized + use<> {
        std::iter::from_fn(|| self.list.pop(py)).collect::<Vec<_>>()
    }

    /// Shows the dead handles' references to the loop to the collector, and so to
    /// `gc.get_referents`.
    pub(crate) fn traverse(
        &self,
        py: Python<'_>,
        visit: &PyVisit<'_>,
    ) -> Result<(), PyTraverseError> {
        if let Some(event_loop) = NonNull::new(self.event_loop.load(Ordering::Relaxed)) {
            // SAFETY: the loop is alive, because this is its own `tp_traverse`;
            // `ManuallyDrop` leaves its count unchanged.
            let event_loop = ManuallyDrop::new(unsafe { Owned::from_raw(event_loop.as_ptr()) });
            for _ in 0..self.list.len(py) {
                visit.call(event_loop.as_py())?;
            }
        }
        Ok(())
    }

    /// Keeps a dead handle of a loop for reuse. The caller makes sure that something
    /// else keeps the loop alive as well.
    #[inline]
    pub(super) fn put(&self, py: Python<'_>, event_loop: Live<'_>, dead: DeadHandle) {
        let event_loop = event_loop.as_ptr();
        // Load first: a needless store would take the cache line away from senders,
        // which read the fields next to it.
        if self.event_loop.load(Ordering::Relaxed) != event_loop {
            self.event_loop.store(event_loop, Ordering::Relaxed);
        }
        drop(self.list.push(py, dead));
    }
}

#[cfg(not(Py_GIL_DISABLED))]
mod imp {
    use super::{DeadHandle, LENGTH, Python};
    use crate::py::GilCell;

    #[derive(Default)]
    pub(super) struct List(GilCell<Vec<DeadHandle>>);

    impl List {
        #[inline]
        pub(super) fn pop(&self, py: Python<'_>) -> Option<DeadHandle> {
            self.0.with(py, Vec::pop)
        }

        pub(super) fn len(&self, py: Python<'_>) -> usize {
            self.0.with(py, |list| list.len())
        }

        #[inline]
        pub(super) fn push(&self, py: Python<'_>, dead: DeadHandle) -> Option<DeadHandle> {
            self.0.with(py, |list| {
                if list.len() >= LENGTH {
                    return Some(dead);
                }
                list.push(dead);
                None
            })
        }
    }
}

#[cfg(Py_GIL_DISABLED)]
mod imp {
    use std::sync::OnceLock;

    use crossbeam_queue::ArrayQueue;

    use super::{DeadHandle, LENGTH, Python};

    /// Made when the first handle dies: most loops never get a message. Boxed, because
    /// its alignment is larger than that of Python objects.
    #[derive(Default)]
    pub(super) struct List(OnceLock<Box<ArrayQueue<DeadHandle>>>);

    impl List {
        #[inline]
        pub(super) fn pop(&self, _py: Python<'_>) -> Option<DeadHandle> {
            self.0.get()?.pop()
        }

        pub(super) fn len(&self, _py: Python<'_>) -> usize {
            self.0.get().map_or(0, |list| list.len())
        }

        #[inline]
        pub(super) fn push(&self, _py: Python<'_>, dead: DeadHandle) -> Option<DeadHandle> {
            self.0.get_or_init(|| Box::new(ArrayQueue::new(LENGTH))).push(dead).err()
        }
    }
}
