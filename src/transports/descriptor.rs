//! The one owner of a transport's descriptor.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyInt;
use tokioloop_reactor::sys;

use crate::imports::Imports;
use crate::py::Owned;
use crate::sockets::SharedSocket;

/// A number that no file has, since no process can open so many.
const NO_FILE: RawFd = RawFd::MAX;

/// Who closes the descriptor. It has one owner at any time: the transport, or
/// the Python socket that was made of it for `get_extra_info('socket')`.
pub(crate) enum Descriptor {
    /// The transport.
    Own(OwnedFd),
    /// A Python socket, which the transport keeps and closes, and the number that it had
    /// when the transport got it.
    Lent(SharedSocket, RawFd),
    /// It was closed.
    Closed,
}

impl Descriptor {
    /// The open descriptor. If somebody has closed the socket behind the transport's
    /// back, its number may belong to another file by now. Then the result is a number
    /// that every call refuses with EBADF, as the socket itself would.
    // HOT: proto, udp
    #[inline]
    pub(crate) fn get(&self) -> Option<BorrowedFd<'static>> {
        match self {
            Self::Own(fd) => Some(sys::borrow(fd.as_raw_fd())),
            Self::Lent(socket, fd) => match socket.descriptor() {
                Some(now) if now != *fd => Some(sys::borrow(NO_FILE)),
                _ => Some(sys::borrow(*fd)),
            },
            Self::Closed => None,
        }
    }

    /// The number that the transport was made with, or -1 at its end.
    pub(crate) fn number(&self) -> RawFd {
        match self {
            Self::Own(fd) => fd.as_raw_fd(),
            Self::Lent(_, fd) => *fd,
            Self::Closed => -1,
        }
    }

    /// Whether a Python socket shares it, so that others may know the number.
    pub(crate) fn is_lent(&self) -> bool {
        matches!(self, Self::Lent(..))
    }

    /// The Python socket, if there is one.
    pub(crate) fn socket(&self, py: Python<'_>) -> Option<Owned> {
        match self {
            Self::Lent(socket, _) => Some(socket.object().clone_ref(py)),
            _ => None,
        }
    }
}

/// Takes the descriptor out of a Python socket, which has none afterwards.
///
/// # Errors
/// OSError if the socket is closed; it is left as it is.
#[allow(unsafe_code)]
pub(crate) fn detach(socket: &Bound<'_, PyAny>) -> PyResult<Descriptor> {
    number(socket)?;
    let fd = exact_number(&socket.call_method0("detach")?)?;
    // SAFETY: the socket has just given this number up.
    Ok(Descriptor::Own(unsafe { sys::adopt(fd) }))
}

/// Leaves the descriptor with a Python socket that its owner may go on using. It is
/// closed through the socket, so only once.
///
/// # Errors
/// OSError if the socket is closed.
pub(crate) fn share(socket: &Bound<'_, PyAny>) -> PyResult<Descriptor> {
    Ok(Descriptor::Lent(SharedSocket::new(socket), number(socket)?))
}

/// The number of an open socket.
fn number(socket: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let fd = exact_number(&socket.call_method0("fileno")?)?;
    if fd < 0 {
        let error = std::io::Error::from_raw_os_error(libc::EBADF);
        return Err(crate::errors::os_error(socket.py(), &error));
    }
    Ok(fd)
}

/// Takes an exact `int` only, not what converts to one: a mock would give 1, the
/// process's own output.
fn exact_number(number: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    number.cast_exact::<PyInt>()?.extract()
}

/// Makes a Python socket that owns the descriptor from now on.
///
/// # Errors
/// What `socket.socket` raises; the descriptor is then still the caller's.
pub(crate) fn lend(py: Python<'_>, fd: RawFd) -> PyResult<Owned> {
    let keywords = pyo3::types::PyDict::new(py);
    keywords.set_item("fileno", fd)?;
    let class = Imports::get(py)?.socket.bind(py);
    let socket = class.call_method1(intern!(py, "__new__"), (class,))?;
    if let Err(error) = socket.call_method(intern!(py, "__init__"), (), Some(&keywords)) {
        // An exception behind the C part, such as a signal handler's, leaves a socket that
        // would close the descriptor.
        socket.call_method0(intern!(py, "detach"))?;
        return Err(error);
    }
    Ok(socket.into())
}
