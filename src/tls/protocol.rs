//! The class that comes before asyncio's `SSLProtocol` in the method order, and its
//! methods.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::event_loop::EventLoop;
use crate::py::native::{self, getter, method};
use crate::py::{Args, Owned, call};
use crate::tls::slots::{Slot, TlsProtocol};
use crate::tls::tools::Tools;
use crate::tls::{reading, writing};

static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// The class.
pub(crate) fn class(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    Ok(CLASS.get_or_try_init(py, || make_class(py).map(Bound::unbind))?.bind(py).clone())
}

/// The native half of an object, if it has one.
#[inline]
pub(crate) fn native_half<'a>(py: Python<'_>, object: &'a Owned) -> Option<&'a TlsProtocol> {
    TlsProtocol::of(object, CLASS.get(py)?.bind(py))
}

/// asyncio's own version of a method, not bound to a receiver.
pub(crate) fn asyncio_method<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    Tools::get(py)?.protocol.bind(py).getattr(name)
}

/// Reports an exception as fatal to the connection, as asyncio's method would.
///
/// # Errors
/// The exception itself if asyncio would not catch it, since it is no `Exception`.
#[cold]
pub(crate) fn failed(py: Python<'_>, this: &TlsProtocol, error: PyErr) -> PyResult<()> {
    let this = this.object();
    this.bind(py).call_method1(intern!(py, "_step_failed"), (error.value(py),)).map(drop)
}

/// Runs a method's body on the loop's thread. Another thread is refused before it touches
/// the session or its buffers, which have no other protection.
///
/// # Errors
/// RuntimeError with the method's name on another thread; what the body raises.
#[inline]
pub(crate) fn on_loop<R>(
    py: Python<'_>,
    this: &TlsProtocol,
    name: &str,
    body: impl FnOnce() -> PyResult<R>,
) -> PyResult<R> {
    let event_loop = this.get(py, Slot::Loop);
    let event_loop = event_loop.as_ref().map(|event_loop| event_loop.bind(py));
    match event_loop.as_ref().and_then(|event_loop| event_loop.cast::<EventLoop>().ok()) {
        Some(event_loop) => {
            let _inside = event_loop.get().enter(py, name)?;
            body()
        }
        // A loop of another kind has its own rules about threads.
        None => body(),
    }
}

/// Raises if a method of asyncio's was called on another thread than the loop's.
fn refuse_other_thread<'py>(
    py: Python<'py>,
    this: &TlsProtocol,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    let method = args.one("SSLProtocol._refuse_other_thread", "method")?;
    on_loop(py, this, method.extract()?, || Ok(Owned::none(py)))
}

/// Like asyncio's, but a server waits for its client before the first step.
fn do_handshake<'py>(py: Python<'py>, this: &TlsProtocol, args: Args<'_, 'py>) -> PyResult<Owned> {
    args.none("SSLProtocol._do_handshake")?;
    on_loop(py, this, "_do_handshake", || handshake(py, this))
}

fn handshake(py: Python<'_>, this: &TlsProtocol) -> PyResult<Owned> {
    let Some(engine) = this.engine(py)? else {
        return Ok(asyncio_method(py, "_do_handshake")?.call1((this.object().bind(py),))?.into());
    };
    if engine.listens(py)? {
        return Ok(Owned::none(py));
    }
    let failure = match engine.do_handshake(py) {
        Ok(false) => {
            writing::process_outgoing(py, this)?;
            return Ok(Owned::none(py));
        }
        Ok(true) => Owned::none(py),
        Err(error) if error.is_instance(py, Tools::get(py)?.error.bind(py)) => {
            Owned::from(error.into_value(py).into_bound(py).into_any())
        }
        Err(error) => return Err(error),
    };
    let complete = intern!(py, "_on_handshake_complete");
    call::method(py, &this.object(), complete, [failure.live()])
}

fn do_read<'py>(py: Python<'py>, this: &TlsProtocol, args: Args<'_, 'py>) -> PyResult<Owned> {
    args.none("SSLProtocol._do_read")?;
    on_loop(py, this, "_do_read", || reading::do_read(py, this, &[], None))?;
    Ok(Owned::none(py))
}

fn write_appdata<'py>(py: Python<'py>, this: &TlsProtocol, args: Args<'_, 'py>) -> PyResult<Owned> {
    let list = args.one("SSLProtocol._write_appdata", "list_of_data")?;
    on_loop(py, this, "_write_appdata", || writing::write_list(py, this, &list))?;
    Ok(Owned::none(py))
}

fn process_outgoing<'py>(
    py: Python<'py>,
    this: &TlsProtocol,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("SSLProtocol._process_outgoing")?;
    on_loop(py, this, "_process_outgoing", || writing::process_outgoing(py, this))?;
    Ok(Owned::none(py))
}

/// How data is encrypted: `openssl` (called directly), `ssl` (by its methods) or `asyncio`
/// (its own code, with whatever objects it was given).
fn engine_value(py: Python<'_>, this: &TlsProtocol) -> PyResult<Owned> {
    let name = match this.engine(py)? {
        Some(engine) if engine.direct().is_some() => intern!(py, "openssl"),
        Some(_) => intern!(py, "ssl"),
        None => intern!(py, "asyncio"),
    };
    Ok(Owned::from(name.as_any()))
}

fn make_class(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let base = py.import("asyncio.protocols")?.getattr("BufferedProtocol")?;
    type T = TlsProtocol;
    native::make_class::<T>(
        base.cast::<PyType>()?,
        vec![
            method!(T, c"_do_handshake", do_handshake, c"_do_handshake($self)\n--\n\n"),
            method!(
                T,
                c"_refuse_other_thread",
                refuse_other_thread,
                c"_refuse_other_thread($self, method)\n--\n\n"
            ),
            method!(T, c"_do_read", do_read, c"_do_read($self)\n--\n\n"),
            method!(
                T,
                c"_write_appdata",
                write_appdata,
                c"_write_appdata($self, list_of_data)\n--\n\n"
            ),
            method!(T, c"_process_outgoing", process_outgoing, c"_process_outgoing($self)\n--\n\n"),
        ],
        vec![getter!(T, c"_engine", engine_value)],
        c"The records' way through an asyncio.sslproto.SSLProtocol.",
    )
}
