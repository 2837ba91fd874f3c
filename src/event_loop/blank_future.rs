//! Makes futures without calling their class.
//!
//! Outside of debug mode `asyncio.Future.__init__` only stores a reference to the
//! loop; the rest of a fresh future is zero. Where the reference is stored is
//! private to CPython, so it is learned from a future that the class has made. If
//! that future holds anything else, the class makes all futures.
#![allow(unsafe_code)]

use std::slice;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::py::{Live, Owned, native};

/// The memory of a fresh future.
pub(crate) struct BlankFuture {
    class: Py<PyType>,
    /// Which word after the object's header refers to the loop.
    word: usize,
}

impl BlankFuture {
    /// Examines a future that its class has just made for this loop. None if it
    /// holds anything but the loop.
    pub(crate) fn learn(future: &Bound<'_, PyAny>, event_loop: &Bound<'_, PyAny>) -> Option<Self> {
        let class = future.get_type();
        // SAFETY: a type object is alive, and these fields of it never change.
        let (size, item, alloc) = unsafe {
            let class = class.as_type_ptr();
            ((*class).tp_basicsize as usize, (*class).tp_itemsize, (*class).tp_alloc)
        };
        let generic = ffi::PyType_GenericAlloc as ffi::allocfunc;
        if item != 0 || alloc.map(|alloc| alloc as usize) != Some(generic as usize) {
            return None;
        }
        let words = size.checked_sub(size_of::<ffi::PyObject>())? / size_of::<usize>();
        // SAFETY: the generic allocator has given the object that many bytes after its
        // header and zeroed them; no other thread knows the object.
        let content = unsafe {
            slice::from_raw_parts(future.as_ptr().add(1).cast::<*const ffi::PyObject>(), words)
        };
        let mut filled = (0..words).zip(content).filter(|(_, value)| !value.is_null());
        let (word, value) = filled.next()?;
        let lone = filled.next().is_none() && value.cast_mut() == event_loop.as_ptr();
        lone.then(|| Self { class: class.unbind(), word })
    }

    /// Makes a future of a loop.
    ///
    /// # Errors
    /// MemoryError.
    // HOT: future
    #[inline]
    pub(crate) fn make(&self, py: Python<'_>, event_loop: Live<'_>) -> PyResult<Owned> {
        // SAFETY: the class has this allocator, as `learn` has checked, and fresh
        // memory is what its own `__new__` makes.
        let future = unsafe { native::new_instance(self.class.bind(py))? };
        // SAFETY: this word of the object is its reference to the loop, and nobody else has
        // seen the object.
        unsafe {
            let loop_of_it = future.as_ptr().add(1).cast::<*mut ffi::PyObject>().add(self.word);
            loop_of_it.write(event_loop.clone_ref(py).into_raw());
        }
        Ok(future)
    }
}
