//! Dead handles of `call_soon_threadsafe`, which any thread makes.
//!
//! They come to an end in whichever thread lets go of them last. If each went back
//! to the allocator, that would be memory of one thread that another frees, and the
//! collector, which counts by thread, would believe that senders fill the memory.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit, ffi};

use crate::handle::Kind;
use crate::handle::free_list::{DeadHandle, Memory};
use crate::py::Owned;

/// Dead handles that a loop keeps: as many as may wait for it before their
/// senders do.
const LENGTH: usize = 8192;

/// Dead handles, for all threads that send to one loop. Each has kept its
/// reference to the loop, whose count would otherwise pass between processors for
/// every message.
#[derive(Default)]
pub(crate) struct SharedHandles {
    list: imp::List,
    /// The loop; null before the first handle was kept.
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

    /// Shows their references to the loop to the collector, and so to
    /// `gc.get_referents`.
    pub(crate) fn traverse(
        &self,
        py: Python<'_>,
        visit: &PyVisit<'_>,
    ) -> Result<(), PyTraverseError> {
        if let Some(event_loop) = NonNull::new(self.event_loop.load(Ordering::Relaxed)) {
            // SAFETY: alive, because its collection looks at it; nothing is counted.
            let event_loop = ManuallyDrop::new(unsafe { Owned::from_raw(event_loop.as_ptr()) });
            for _ in 0..self.list.len(py) {
                visit.call(event_loop.as_py())?;
            }
        }
        Ok(())
    }

    /// Keeps a dead handle of a loop, which somebody else keeps alive, too, for the
    /// next that is made.
    #[inline]
    pub(super) fn put(&self, py: Python<'_>, event_loop: *mut ffi::PyObject, dead: DeadHandle) {
        // Read first: senders read what lies beside it.
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

    /// Made when the first handle ends: most loops are sent nothing. Boxed, because
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
