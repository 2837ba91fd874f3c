//! The methods of a stream transport, as CPython calls them. Each parses its
//! arguments, enters the loop and calls the function that does the work.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use pyo3::{ffi, intern};

use crate::py::native::{self, getter, method};
use crate::py::{Args, Owned, bytes, call};
use crate::transports::clients::Clients;
use crate::transports::common_methods::{
    call_connection_lost, closing_value, extra_value, fatal_error, fd_value, finished_value,
    force_close, get_extra_info, get_protocol, get_write_buffer_limits, is_closing, loop_value,
    lost_value, marks, on_loop, protocol_paused_value, protocol_value, socket_value,
};
use crate::transports::interior::Interior;
use crate::transports::read::Delivery;
use crate::transports::shape::StreamTransport;
use crate::transports::{batch, close, cork, finalizer, flow, read, sendfile, stream, write};

static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// The native class, which loops use that were given no subclass of it.
pub(crate) fn base_class(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    Ok(CLASS.get_or_try_init(py, || make_class(py).map(Bound::unbind))?.bind(py).clone())
}

/// Refuses a class that does not derive from the native one: its instances would not
/// have the memory layout of stream transports.
///
/// # Errors
/// TypeError for such a class, and for an object that is not a class.
pub(crate) fn check_class(class: &Bound<'_, PyAny>) -> PyResult<()> {
    let base = base_class(class.py())?;
    if class.cast::<PyType>()?.mro().iter().any(|parent| parent.is(&base)) {
        return Ok(());
    }
    Err(PyTypeError::new_err(format!("{} is no class of stream transports", class.repr()?)))
}

/// Adds the class to the module.
pub(crate) fn add_to_module(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("StreamTransport", base_class(module.py())?)?;
    module.add_class::<Clients>()?;
    module.add_function(wrap_pyfunction!(finalizer::called_by_finalizer, module)?)?;
    crate::transports::datagram::add_to_module(module)
}

// HOT: proto
fn write<'py>(py: Python<'py>, t: &StreamTransport, args: Args<'_, 'py>) -> PyResult<Owned> {
    let data = args.one("_SelectorTransport.write", "data")?;
    on_loop(py, t, "write", |this, inside| write::write(py, this, inside, t, &data))?;
    Ok(Owned::none(py))
}

/// `transport.write(data)` for any transport; native ones without a Python call.
///
/// # Errors
/// What `write` raises.
// HOT: tls
pub(crate) fn write_to(py: Python<'_>, transport: &Owned, data: &Owned) -> PyResult<()> {
    let class = base_class(py)?;
    let Some(t) = StreamTransport::of(transport, &class) else {
        return call::method(py, transport, intern!(py, "write"), [data.live()]).map(drop);
    };
    on_loop(py, t, "write", |this, inside| write::write(py, this, inside, t, &data.bind(py)))
}

/// Like [`write_to`], for borrowed bytes, which are copied if they have to be queued or
/// the transport is not native.
///
/// # Errors
/// What `write` raises.
// HOT: tls
#[inline]
pub(crate) fn write_slice_to(py: Python<'_>, transport: &Owned, data: &[u8]) -> PyResult<()> {
    let class = base_class(py)?;
    let Some(t) = StreamTransport::of(transport, &class) else {
        return write_to(py, transport, &bytes::copy(py, data)?);
    };
    on_loop(py, t, "write", |this, inside| write::write_slice(py, this, inside, t, data))
}

/// Whether the transport is a native one that has lost its connection, so that writes
/// to it are dropped.
///
/// # Errors
/// RuntimeError on any thread but the loop's.
pub(crate) fn has_lost(py: Python<'_>, transport: &Owned) -> PyResult<bool> {
    let class = base_class(py)?;
    let Some(t) = StreamTransport::of(transport, &class) else { return Ok(false) };
    on_loop(py, t, "write", |_, inside| Ok(t.with(inside, |inner| inner.lost > 0)))
}

fn writelines<'py>(py: Python<'py>, t: &StreamTransport, args: Args<'_, 'py>) -> PyResult<Owned> {
    let list = args.one("_SelectorSocketTransport.writelines", "list_of_data")?;
    on_loop(py, t, "writelines", |this, inside| write::writelines(py, this, inside, t, &list))?;
    Ok(Owned::none(py))
}

fn write_eof<'py>(py: Python<'py>, t: &StreamTransport, args: Args<'_, 'py>) -> PyResult<Owned> {
    args.none("_SelectorSocketTransport.write_eof")?;
    on_loop(py, t, "write_eof", |this, inside| write::write_eof(py, this, inside, t))?;
    Ok(Owned::none(py))
}

fn can_write_eof<'py>(
    py: Python<'py>,
    _: &StreamTransport,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("_SelectorSocketTransport.can_write_eof")?;
    Ok(Owned::bool(py, true))
}

fn close<'py>(py: Python<'py>, t: &StreamTransport, args: Args<'_, 'py>) -> PyResult<Owned> {
    args.none("_SelectorTransport.close")?;
    on_loop(py, t, "close", |this, inside| close::close(py, this, inside, t))
        .or_else(|refused| finalizer::close_later(py, t, refused))?;
    Ok(Owned::none(py))
}

fn abort<'py>(py: Python<'py>, t: &StreamTransport, args: Args<'_, 'py>) -> PyResult<Owned> {
    args.none("_SelectorTransport.abort")?;
    on_loop(py, t, "abort", |this, inside| {
        batch::forget(inside, t);
        close::force_close(py, this, inside, t, None)
    })?;
    Ok(Owned::none(py))
}

fn pause_reading<'py>(
    py: Python<'py>,
    t: &StreamTransport,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("_SelectorTransport.pause_reading")?;
    on_loop(py, t, "pause_reading", |this, inside| read::pause(py, this, inside, t))?;
    Ok(Owned::none(py))
}

fn resume_reading<'py>(
    py: Python<'py>,
    t: &StreamTransport,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("_SelectorTransport.resume_reading")?;
    on_loop(py, t, "resume_reading", |this, inside| read::resume(py, this, inside, t))?;
    Ok(Owned::none(py))
}

fn is_reading<'py>(py: Python<'py>, t: &StreamTransport, args: Args<'_, 'py>) -> PyResult<Owned> {
    args.none("_SelectorTransport.is_reading")?;
    let reading = on_loop(py, t, "is_reading", |_, inside| {
        Ok(t.with(inside, |inner| !inner.state.closing && !inner.state.paused))
    })?;
    Ok(Owned::bool(py, reading))
}

fn set_protocol<'py>(py: Python<'py>, t: &StreamTransport, args: Args<'_, 'py>) -> PyResult<Owned> {
    let protocol = args.one("_SelectorTransport.set_protocol", "protocol")?;
    let delivery = Delivery::of(py, &protocol)?;
    let protocol = Owned::from(&*protocol);
    on_loop(py, t, "set_protocol", |this, inside| {
        cork::uncork(py, this, inside, t)?;
        batch::hand_out(py, this, inside, &t.reference())?;
        let old = t.with(inside, |inner| {
            inner.delivery = delivery;
            inner.protocol.replace(protocol)
        });
        drop(old);
        Ok(())
    })?;
    Ok(Owned::none(py))
}

fn set_write_buffer_limits<'py>(
    py: Python<'py>,
    t: &StreamTransport,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    let function = "_FlowControlMixin.set_write_buffer_limits";
    let [high, low] = args.bind(function, ["high", "low"], 0)?;
    let (high, low) = marks(py, high, low)?;
    on_loop(py, t, "set_write_buffer_limits", |this, inside| {
        t.with(inside, |inner| inner.marks.set(Some(high), Some(low)))
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        cork::uncork(py, this, inside, t)?;
        flow::maybe_pause_protocol(py, this, inside, t)
    })?;
    Ok(Owned::none(py))
}

fn get_write_buffer_size<'py>(
    py: Python<'py>,
    t: &StreamTransport,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("_SelectorTransport.get_write_buffer_size")?;
    let size = on_loop(py, t, "get_write_buffer_size", |this, inside| {
        cork::uncork(py, this, inside, t)?;
        Ok(t.with(inside, |inner| inner.flow().size))
    })?;
    Ok(size.into_pyobject(py)?.into_any().into())
}

fn start_reading<'py>(
    py: Python<'py>,
    t: &StreamTransport,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("_start_reading")?;
    stream::start_reading(py, t)?;
    Ok(Owned::none(py))
}

fn deliver_batch<'py>(
    py: Python<'py>,
    t: &StreamTransport,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("_deliver_batch")?;
    batch::batch_due(py, t)?;
    Ok(Owned::none(py))
}

fn make_empty_waiter<'py>(
    py: Python<'py>,
    t: &StreamTransport,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("_make_empty_waiter")?;
    on_loop(py, t, "_make_empty_waiter", |this, inside| {
        sendfile::wait_until_empty(py, this, inside, t)
    })
}

fn wait_for_room<'py>(
    py: Python<'py>,
    t: &StreamTransport,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("_wait_for_room")?;
    on_loop(py, t, "_wait_for_room", |this, inside| sendfile::wait_for_room(py, this, inside, t))
}

fn reset_empty_waiter<'py>(
    py: Python<'py>,
    t: &StreamTransport,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("_reset_empty_waiter")?;
    on_loop(py, t, "_reset_empty_waiter", |_, inside| {
        sendfile::end(inside, t);
        Ok(Owned::none(py))
    })
}

fn server_value(py: Python<'_>, t: &StreamTransport) -> PyResult<Owned> {
    let server = on_loop(py, t, "_server", |_, inside| {
        Ok(t.with(inside, |inner| inner.server.as_ref().map(|server| server.clone_ref(py))))
    })?;
    Ok(server.unwrap_or_else(|| Owned::none(py)))
}

macro_rules! flag {
    ($name:ident, $attribute:literal, |$inner:ident| $value:expr) => {
        fn $name(py: Python<'_>, t: &StreamTransport) -> PyResult<Owned> {
            let value =
                on_loop(py, t, $attribute, |_, inside| Ok(t.with(inside, |$inner| $value)))?;
            Ok(Owned::bool(py, value))
        }
    };
}

flag!(paused_value, "_paused", |inner| inner.state.paused);
flag!(eof_value, "_eof", |inner| inner.state.eof_written);
flag!(blocked_value, "_blocked", |inner| inner.state.blocked);
flag!(polling_value, "_polling", |inner| inner.state.started
    && !inner.state.closing
    && !inner.state.paused
    && !inner.state.read_ended);

fn make_class(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let base =
        py.import("asyncio.transports")?.getattr("_FlowControlMixin")?.cast_into::<PyType>()?;
    native::make_class::<StreamTransport>(
        &base,
        methods(),
        getters(),
        c"A connected TCP or Unix stream; an asyncio.Transport.",
    )
}

fn methods() -> Vec<ffi::PyMethodDef> {
    type T = StreamTransport;
    vec![
        method!(T, c"write", write, c"write($self, data)\n--\n\nSend data, at once where nothing waits; else it is queued.\n\nTakes any bytes-like object, which may be changed afterwards. Data written after\nthe connection was lost is dropped. Raises RuntimeError after write_eof() and\nfrom another thread than the loop's."),
        method!(T, c"writelines", writelines, c"writelines($self, list_of_data)\n--\n\nSend several pieces of data with as few system calls as possible."),
        method!(T, c"write_eof", write_eof, c"write_eof($self)\n--\n\nEnd the sending direction once everything has been sent."),
        method!(T, c"can_write_eof", can_write_eof, c"can_write_eof($self)\n--\n\nReturn True: the sending direction can be ended alone."),
        method!(T, c"close", close, c"close($self)\n--\n\nStop reading, send what waits, then end the connection."),
        method!(T, c"abort", abort, c"abort($self)\n--\n\nEnd the connection at once; what waits is dropped."),
        method!(T, c"is_closing", is_closing, c"is_closing($self)\n--\n\nReturn True if the connection is closing or closed."),
        method!(T, c"pause_reading", pause_reading, c"pause_reading($self)\n--\n\nDeliver no data until resume_reading()."),
        method!(T, c"resume_reading", resume_reading, c"resume_reading($self)\n--\n\nDeliver data again."),
        method!(T, c"is_reading", is_reading, c"is_reading($self)\n--\n\nReturn True if data is delivered as it comes."),
        method!(T, c"set_protocol", set_protocol, c"set_protocol($self, protocol)\n--\n\nSend what comes to another protocol."),
        method!(T, c"get_protocol", get_protocol, c"get_protocol($self)\n--\n\nReturn the current protocol."),
        method!(T, c"get_extra_info", get_extra_info, c"get_extra_info($self, name, default=None)\n--\n\nReturn 'peername', 'sockname', 'socket' or what else is known of the connection."),
        method!(T, c"set_write_buffer_limits", set_write_buffer_limits, c"set_write_buffer_limits($self, high=None, low=None)\n--\n\nSet the marks, in bytes, that pause and resume the protocol's writing."),
        method!(T, c"get_write_buffer_limits", get_write_buffer_limits, c"get_write_buffer_limits($self)\n--\n\nReturn (low, high) in bytes."),
        method!(T, c"get_write_buffer_size", get_write_buffer_size, c"get_write_buffer_size($self)\n--\n\nReturn how many bytes wait to be sent."),
        method!(T, c"_start_reading", start_reading, c"_start_reading($self)\n--\n\n"),
        method!(T, c"_deliver_batch", deliver_batch, c"_deliver_batch($self)\n--\n\n"),
        method!(T, c"_call_connection_lost", call_connection_lost, c"_call_connection_lost($self, exc)\n--\n\n"),
        method!(T, c"_force_close", force_close, c"_force_close($self, exc)\n--\n\n"),
        method!(T, c"_fatal_error", fatal_error, c"_fatal_error($self, exc, message='Fatal error on transport')\n--\n\n"),
        method!(T, c"_make_empty_waiter", make_empty_waiter, c"_make_empty_waiter($self)\n--\n\n"),
        method!(T, c"_wait_for_room", wait_for_room, c"_wait_for_room($self)\n--\n\n"),
        method!(T, c"_reset_empty_waiter", reset_empty_waiter, c"_reset_empty_waiter($self)\n--\n\n"),
    ]
}

fn getters() -> Vec<ffi::PyGetSetDef> {
    type T = StreamTransport;
    vec![
        getter!(T, c"_sock", socket_value),
        getter!(T, c"_sock_fd", fd_value),
        getter!(T, c"_protocol", protocol_value),
        getter!(T, c"_loop", loop_value),
        getter!(T, c"_server", server_value),
        getter!(T, c"_extra", extra_value),
        getter!(T, c"_conn_lost", lost_value),
        getter!(T, c"_closing", closing_value),
        getter!(T, c"_paused", paused_value),
        getter!(T, c"_eof", eof_value),
        getter!(T, c"_protocol_paused", protocol_paused_value),
        getter!(T, c"_blocked", blocked_value),
        getter!(T, c"_finished", finished_value),
        getter!(T, c"_polling", polling_value),
    ]
}
