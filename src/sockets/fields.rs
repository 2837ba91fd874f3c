//! Reads the descriptor and the timeout from the memory of a plain socket object.
//!
//! Both are needed several times per message, and calling the methods that return them
//! would cost more than the rest of a call. The layout is private to CPython: it is
//! tested on real sockets before the first use, and if it does not hold, the methods are
//! called.
#![allow(unsafe_code)]

use std::mem::size_of;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyFloat;

use crate::py::{Owned, call};
use crate::sockets::stock::Stock;

/// The beginning of `PySocketSockObject`, the same in every version so far.
#[repr(C)]
struct Fields {
    ob_base: ffi::PyObject,
    sock_fd: AtomicI32,
    sock_family: AtomicI32,
    sock_type: AtomicI32,
    sock_proto: AtomicI32,
    errorhandler: usize,
    /// In nanoseconds; negative if calls block without limit.
    sock_timeout: AtomicI64,
}

/// How the fields of plain sockets are read.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    is_known: bool,
}

impl Layout {
    /// Tests whether sockets of this interpreter are laid out as expected. If none can be
    /// made for the test, the layout counts as unknown.
    #[cold]
    pub(super) fn probe(class: &Bound<'_, PyAny>) -> Self {
        Self { is_known: Self::holds(class).unwrap_or(false) }
    }

    fn holds(class: &Bound<'_, PyAny>) -> PyResult<bool> {
        for timeout in [None, Some(0.0), Some(1.5), Some(86_400.25)] {
            let socket = class.call0()?;
            // SAFETY: a live class.
            let size = unsafe { (*socket.get_type_ptr()).tp_basicsize };
            if !socket.get_type().is(class) || size < size_of::<Fields>() as ffi::Py_ssize_t {
                return Ok(false);
            }
            socket.call_method1("settimeout", (timeout,))?;
            let number = socket.call_method0("fileno")?.extract::<i32>()?;
            // SAFETY: an object of at least this size, as checked above.
            let fields = unsafe { &*socket.as_ptr().cast::<Fields>() };
            let found = fields.sock_timeout.load(Ordering::Relaxed);
            let is_timeout = match timeout {
                None => found < 0,
                Some(seconds) => found == (seconds * 1e9) as i64,
            };
            let is_open = fields.sock_fd.load(Ordering::Relaxed) == number
                && fields.sock_family.load(Ordering::Relaxed) == libc::AF_INET
                && fields.sock_type.load(Ordering::Relaxed) == libc::SOCK_STREAM;
            socket.call_method0("close")?;
            let is_closed = fields.sock_fd.load(Ordering::Relaxed) == -1;
            if !(is_timeout && is_open && is_closed) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The descriptor of a plain socket; -1 if it is closed.
    // HOT: raw
    #[inline]
    pub(super) fn descriptor(self, py: Python<'_>, socket: &Owned) -> PyResult<i32> {
        if self.is_known {
            // SAFETY: a plain socket, laid out as probed.
            let fields = unsafe { &*socket.as_ptr().cast::<Fields>() };
            return Ok(fields.sock_fd.load(Ordering::Relaxed));
        }
        call::method(py, socket, intern!(py, "fileno"), [])?.bind(py).extract()
    }

    /// Whether a plain socket is a stream of bytes. A socket of another type drops the part
    /// of a message that a receive has no room for.
    // HOT: raw
    #[inline]
    pub(super) fn is_stream(self, py: Python<'_>, socket: &Owned) -> PyResult<bool> {
        if self.is_known {
            // SAFETY: a plain socket, laid out as probed.
            let fields = unsafe { &*socket.as_ptr().cast::<Fields>() };
            return Ok(fields.sock_type.load(Ordering::Relaxed) == libc::SOCK_STREAM);
        }
        let kind = socket.bind(py).getattr(intern!(py, "type"))?.extract::<i32>()?;
        Ok(kind == libc::SOCK_STREAM)
    }

    /// Whether a plain socket never waits: a timeout of zero.
    // HOT: raw-wait
    #[inline]
    pub(super) fn never_waits(self, py: Python<'_>, socket: &Owned) -> PyResult<bool> {
        if self.is_known {
            // SAFETY: a plain socket, laid out as probed.
            let fields = unsafe { &*socket.as_ptr().cast::<Fields>() };
            return Ok(fields.sock_timeout.load(Ordering::Relaxed) == 0);
        }
        let timeout = call::method(py, socket, intern!(py, "gettimeout"), [])?;
        Ok(timeout.bind(py).cast_exact::<PyFloat>().is_ok_and(|timeout| timeout.value() == 0.0))
    }
}

/// A socket object that its owner may close at any time.
pub(crate) struct SharedSocket {
    object: Owned,
    /// Its C part is laid out as probed.
    is_known: bool,
}

impl SharedSocket {
    pub(crate) fn new(socket: &Bound<'_, PyAny>) -> Self {
        let is_known = Self::is_laid_out(socket).unwrap_or(false);
        Self { object: Owned::from(socket), is_known }
    }

    fn is_laid_out(socket: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = socket.py();
        let stock = Stock::get(py)?;
        // The C class below the one that was probed; other sockets derive from it as well.
        // SAFETY: a live class.
        let base = unsafe { (*stock.socket(py).as_type_ptr()).tp_base };
        // SAFETY: the base of a class lives as long as the class, and all but `object` have one.
        let size = unsafe { (*base).tp_basicsize };
        // SAFETY: a live object and a live class.
        let is_of_it = unsafe { ffi::PyObject_TypeCheck(socket.as_ptr(), base) } != 0;
        let has_fields = size >= size_of::<Fields>() as ffi::Py_ssize_t;
        Ok(stock.layout(py).is_known && has_fields && is_of_it)
    }

    pub(crate) fn object(&self) -> &Owned {
        &self.object
    }

    /// The descriptor that it has now, -1 if it is closed. None if it is no socket of
    /// CPython's: only calling its `fileno` would tell.
    // HOT: udp
    #[inline]
    pub(crate) fn descriptor(&self) -> Option<i32> {
        if !self.is_known {
            return None;
        }
        // SAFETY: `new` has found it to be an instance of the C class that was probed.
        let fields = unsafe { &*self.object.as_ptr().cast::<Fields>() };
        Some(fields.sock_fd.load(Ordering::Relaxed))
    }
}
