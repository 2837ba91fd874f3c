//! The clients of a server, in place of the `WeakSet` of asyncio's `Server`.
//!
//! A `WeakSet` takes any kind of object: adding and removing one runs several frames
//! of Python, as many as the rest of a short connection. Transports are compared by
//! identity, so a table of weak references by address is enough.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList, PyWeakrefMethods, PyWeakrefReference};

/// What a server keeps as `_clients`, from CPython 3.13 on.
///
/// Under the lock only references are counted: the thread that holds it neither waits
/// for another one nor runs Python code, so waiting for the lock is short.
#[pyclass(frozen, module = "tokioloop._core")]
#[derive(Default)]
pub(crate) struct Clients {
    table: Mutex<HashMap<usize, Py<PyWeakrefReference>>>,
}

#[pymethods]
impl Clients {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn add(&self, transport: &Bound<'_, PyAny>) -> PyResult<()> {
        let reference = PyWeakrefReference::new(transport)?.unbind();
        let replaced = self.table().insert(address(transport), reference);
        drop(replaced);
        Ok(())
    }

    fn discard(&self, transport: &Bound<'_, PyAny>) {
        let removed = self.table().remove(&address(transport));
        drop(removed);
    }

    /// The clients that are alive, in a new list.
    fn copy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.alive(py))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.copy(py)?.try_iter()
    }

    fn __contains__(&self, transport: &Bound<'_, PyAny>) -> bool {
        let py = transport.py();
        let reference = self.table().get(&address(transport)).map(|held| held.clone_ref(py));
        let held = reference.and_then(|reference| reference.bind(py).upgrade());
        held.is_some_and(|held| held.is(transport))
    }

    /// The number of clients. Those that were dropped without being closed may be
    /// counted, but if none is alive the answer is 0.
    fn __len__(&self, py: Python<'_>) -> usize {
        loop {
            let table = self.table();
            let count = table.len();
            let first = table.iter().next().map(|(&key, held)| (key, held.clone_ref(py)));
            drop(table);
            match first {
                Some((key, reference)) if reference.bind(py).upgrade().is_none() => {
                    self.forget(key, &reference);
                }
                _ => return count,
            }
        }
    }
}

impl Clients {
    fn table(&self) -> MutexGuard<'_, HashMap<usize, Py<PyWeakrefReference>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the entry of a dead transport, unless another one was added at the same
    /// address.
    fn forget(&self, key: usize, gone: &Py<PyWeakrefReference>) {
        let mut table = self.table();
        let same = table.get(&key).is_some_and(|held| held.is(gone));
        let removed = if same { table.remove(&key) } else { None };
        drop(table);
        drop(removed);
    }

    fn alive<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        let held: Vec<_> = self.table().values().map(|held| held.clone_ref(py)).collect();
        held.iter().filter_map(|reference| reference.bind(py).upgrade()).collect()
    }
}

fn address(transport: &Bound<'_, PyAny>) -> usize {
    transport.as_ptr() as usize
}
