//! CPython's own socket class and coroutines, as they were when tokioloop was
//! imported.
#![allow(unsafe_code)]

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::guarded::{self, Guarded};
use crate::imports::Imports;
use crate::py::Owned;
use crate::sockets::fields::Layout;

/// The classes that native calls replace.
pub(super) struct Stock {
    /// `socket.socket`; instances of other classes may behave in any way.
    socket: Guarded,
    /// asyncio's class, whose coroutines do what native calls do not.
    event_loop: Py<PyType>,
    /// Where a plain socket has its descriptor and its timeout.
    layout: PyOnceLock<Layout>,
    /// `asyncio.Future.set_result`, of the class that loops make.
    pub(super) set_result: Py<PyAny>,
    /// `BlockingIOError` and `InterruptedError`: try again later.
    again: [Py<PyAny>; 2],
}

static STOCK: PyOnceLock<Stock> = PyOnceLock::new();

/// The members of a socket that native calls use or replace.
const SOCKET: [&str; 17] = [
    "recv",
    "recv_into",
    "recvfrom",
    "recvfrom_into",
    "send",
    "sendto",
    "accept",
    "_accept",
    "connect",
    "fileno",
    "gettimeout",
    "setblocking",
    "getsockopt",
    "family",
    "type",
    "proto",
    "__getattribute__",
];

impl Stock {
    /// The classes; looked up on first use, which is when the module is made.
    ///
    /// # Errors
    /// ImportError if this interpreter has no sockets.
    #[inline]
    pub(super) fn get(py: Python<'_>) -> PyResult<&Self> {
        match STOCK.get(py) {
            Some(stock) => Ok(stock),
            None => STOCK.get_or_try_init(py, || Self::load(py)),
        }
    }

    #[cold]
    fn load(py: Python<'_>) -> PyResult<Self> {
        let socket = py.import("socket")?.getattr("socket")?.cast_into::<PyType>()?;
        let event_loop = py.import("asyncio.selector_events")?.getattr("BaseSelectorEventLoop")?;
        let builtins = py.import("builtins")?;
        let future = Imports::get(py)?.future.bind(py);
        Ok(Self {
            layout: PyOnceLock::new(),
            set_result: future.getattr("set_result")?.unbind(),
            socket: Guarded::new(&socket, &SOCKET, is_genuine)?,
            event_loop: event_loop.cast_into::<PyType>()?.unbind(),
            again: [
                builtins.getattr("BlockingIOError")?.unbind(),
                builtins.getattr("InterruptedError")?.unbind(),
            ],
        })
    }

    /// Whether an object is a plain `socket.socket`: no subclass, and nobody has changed
    /// the class.
    #[inline]
    pub(super) fn is_plain(&self, py: Python<'_>, socket: &Owned) -> bool {
        self.socket.is_exact(socket.live()) && self.socket.is_unmodified(py)
    }

    /// Whether a future is of the class that loops make themselves.
    #[inline]
    pub(super) fn is_future(&self, py: Python<'_>, future: &Owned) -> bool {
        // SAFETY: a live object; the type is only compared.
        let class = unsafe { pyo3::ffi::Py_TYPE(future.as_ptr()) };
        Imports::get(py).is_ok_and(|imports| class.cast() == imports.future.as_ptr())
    }

    /// How the fields of plain sockets are read.
    #[inline]
    pub(super) fn layout(&self, py: Python<'_>) -> Layout {
        *self.layout.get_or_init(py, || Layout::probe(self.socket.class(py)))
    }

    /// The class of plain sockets.
    pub(super) fn socket<'a, 'py>(&'a self, py: Python<'py>) -> &'a Bound<'py, PyType> {
        self.socket.class(py)
    }

    /// Whether the name `socket.socket` still refers to this class.
    pub(super) fn is_current(&self, py: Python<'_>) -> PyResult<bool> {
        let current = py.import("socket")?.getattr(intern!(py, "socket"))?;
        Ok(current.is(self.socket.class(py)))
    }

    /// asyncio's function of this name; None if this version has none.
    pub(super) fn inherited<'py>(&self, py: Python<'py>, name: &str) -> Option<Bound<'py, PyAny>> {
        self.event_loop.bind(py).getattr(name).ok()
    }

    /// Whether an error means that the socket is not ready.
    pub(super) fn is_again(&self, py: Python<'_>, error: &PyErr) -> bool {
        self.again.iter().any(|class| error.matches(py, class).unwrap_or(false))
    }
}

fn is_genuine(member: &Bound<'_, PyAny>) -> bool {
    guarded::is_defined_in(member, "socket")
}
