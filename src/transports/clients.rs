//! The clients of a server, in the place of the weak set of asyncio's `Server`.
//!
//! A weak set is made for any kind of object: to enter one and to leave it takes
//! several frames of the interpreter, as many as the rest of a short connection.
//! Transports are told apart by their address, so a table of weak references does.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList, PyWeakrefMethods, PyWeakrefReference};

/// What a server keeps as `_clients`, from CPython 3.13 on.
///
/// The lock is held for no longer than a look at the table: nothing is called and
/// no object is dropped inside.
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

    /// The clients that are alive, in a list of its own.
    fn copy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.alive(py))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.copy(py)?.try_iter()
    }

    fn __contains__(&self, transport: &Bound<'_, PyAny>) -> bool {
        let held = self.table().get(&address(transport)).map(|held| held.clone_ref(transport.py()));
        held.and_then(|held| held.bind(transport.py()).upgrade())
            .is_some_and(|held| held.is(transport))
    }

    /// How many there are. One that was dropped without having been closed is
    /// counted until it is found.
    fn __len__(&self, py: Python<'_>) -> usize {
        let mut table = self.table();
        let mut gone = Vec::new();
        let mut found = None;
        while let Some((&key, reference)) = table.iter().next() {
            found = reference.bind(py).upgrade();
            if found.is_some() {
                break;
            }
            gone.extend(table.remove(&key));
        }
        let count = table.len();
        drop(table);
        drop((found, gone));
        count
    }
}

impl Clients {
    fn table(&self) -> MutexGuard<'_, HashMap<usize, Py<PyWeakrefReference>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        self.table().values().filter_map(|reference| reference.bind(py).upgrade()).collect()
    }
}

fn address(transport: &Bound<'_, PyAny>) -> usize {
    transport.as_ptr() as usize
}
