//! Futures without a call of their class.
//!
//! All that `asyncio.Future.__init__` does for a loop that is not in debug mode
//! is to keep a reference to it; the rest of a fresh future is zero. Where the
//! reference is kept is nobody's interface. So it is found out, by a look at a
//! future that the class has made; if there is more in it than that, futures are
//! made by the class.
#![allow(unsafe_code)]

use std::slice;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::py::{Owned, native};

/// How a fresh future looks.
pub(crate) struct BlankFuture {
    class: Py<PyType>,
    /// Which word behind the object's header is the loop.
    word: usize,
}

impl BlankFuture {
    /// Looks at a future that its class has just made for this loop. None where
    /// there is anything in it but the loop.
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
        // SAFETY: the memory of an object of that size behind its header, which
        // was zero before `__init__`; no other thread knows the object.
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
    pub(crate) fn make(&self, py: Python<'_>, event_loop: *mut ffi::PyObject) -> PyResult<Owned> {
        // SAFETY: the class has this allocator, as `learn` has checked, and fresh
        // memory is what its own `__new__` makes.
        let future = unsafe { native::new_instance(self.class.bind(py))? };
        // SAFETY: this word of the object is its reference to the loop, the
        // caller's loop is alive, and nobody else has seen the object.
        unsafe {
            let loop_of_it = future.as_ptr().add(1).cast::<*mut ffi::PyObject>().add(self.word);
            loop_of_it.write(Owned::from_borrowed(event_loop).into_raw());
        }
        Ok(future)
    }
}
