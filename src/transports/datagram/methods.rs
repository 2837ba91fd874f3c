//! The methods of a datagram transport, as CPython calls them.

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use tokioloop_reactor::Readiness;

use super::{DatagramTransport, Inner, datagram_transport, receive, send};
use crate::py::native::{self, getter, method};
use crate::py::{Args, Owned};
use crate::transports::common_methods::{
    abort, call_connection_lost, closing_value, extra_value, fatal_error, finished_value,
    force_close, get_extra_info, get_protocol, get_write_buffer_limits, is_closing, loop_value,
    lost_value, marks, on_loop, protocol_paused_value, protocol_value, socket_value,
};
use crate::transports::interior::Interior;
use crate::transports::{close, finalizer, flow};

static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// The class that `tokioloop.DatagramTransport` extends.
pub(super) fn base_class(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    Ok(CLASS.get_or_try_init(py, || make_class(py).map(Bound::unbind))?.bind(py).clone())
}

/// Adds the class and what makes its instances to the module.
pub(crate) fn add_to_module(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("DatagramTransport", base_class(module.py())?)?;
    module.add_function(wrap_pyfunction!(datagram_transport, module)?)
}

// HOT: udp
fn sendto<'py>(py: Python<'py>, t: &DatagramTransport, args: Args<'_, 'py>) -> PyResult<Owned> {
    let name = "_SelectorDatagramTransport.sendto";
    let (data, address) = match (args.positional().len(), args.has_keywords()) {
        (2, false) => (args.get(0), args.get(1)),
        _ => {
            let [data, address] = args.bind(name, ["data", "addr"], 1)?;
            (data, address)
        }
    };
    let address = address.filter(|address| !address.is_none());
    if let Some(data) = data {
        on_loop(py, t, "sendto", |this, inside| {
            send::send_to(py, this, inside, t, &data, address.as_deref())
        })?;
    }
    Ok(Owned::none(py))
}

fn close<'py>(py: Python<'py>, t: &DatagramTransport, args: Args<'_, 'py>) -> PyResult<Owned> {
    args.none("_SelectorTransport.close")?;
    on_loop(py, t, "close", |this, inside| close::close_when_sent(py, this, inside, t))
        .or_else(|refused| finalizer::close_later(py, t, refused))?;
    Ok(Owned::none(py))
}

fn pause_reading<'py>(
    py: Python<'py>,
    t: &DatagramTransport,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("_SelectorTransport.pause_reading")?;
    on_loop(py, t, "pause_reading", |this, inside| receive::pause(py, this, inside, t))?;
    Ok(Owned::none(py))
}

fn resume_reading<'py>(
    py: Python<'py>,
    t: &DatagramTransport,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("_SelectorTransport.resume_reading")?;
    on_loop(py, t, "resume_reading", |this, inside| receive::resume(py, this, inside, t))?;
    Ok(Owned::none(py))
}

fn is_reading<'py>(py: Python<'py>, t: &DatagramTransport, args: Args<'_, 'py>) -> PyResult<Owned> {
    args.none("_SelectorTransport.is_reading")?;
    let reading = on_loop(py, t, "is_reading", |_, inside| {
        Ok(t.with(inside, |inner| !inner.state.closing && !inner.state.paused))
    })?;
    Ok(Owned::bool(py, reading))
}

fn set_protocol<'py>(
    py: Python<'py>,
    t: &DatagramTransport,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    let protocol = args.one("_SelectorTransport.set_protocol", "protocol")?;
    on_loop(py, t, "set_protocol", |_, inside| {
        super::set_protocol(inside, t, &protocol);
        Ok(())
    })?;
    Ok(Owned::none(py))
}

fn set_write_buffer_limits<'py>(
    py: Python<'py>,
    t: &DatagramTransport,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    let function = "_FlowControlMixin.set_write_buffer_limits";
    let [high, low] = args.bind(function, ["high", "low"], 0)?;
    let (high, low) = marks(py, high, low)?;
    on_loop(py, t, "set_write_buffer_limits", |this, inside| {
        t.with(inside, |inner| inner.marks.set(Some(high), Some(low)))
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        flow::maybe_pause_protocol(py, this, inside, t)
    })?;
    Ok(Owned::none(py))
}

fn get_write_buffer_size<'py>(
    py: Python<'py>,
    t: &DatagramTransport,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("_SelectorDatagramTransport.get_write_buffer_size")?;
    size_value(py, t)
}

fn start_reading<'py>(
    py: Python<'py>,
    t: &DatagramTransport,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("_start_reading")?;
    on_loop(py, t, "_start_reading", |_, inside| super::start_reading(py, inside, t))?;
    Ok(Owned::none(py))
}

fn read_ready<'py>(py: Python<'py>, t: &DatagramTransport, args: Args<'_, 'py>) -> PyResult<Owned> {
    args.none("_SelectorDatagramTransport._read_ready")?;
    on_loop(py, t, "_read_ready", |this, inside| {
        receive::on_readable(py, this, inside, &t.reference(), Readiness::AGAIN)
    })?;
    Ok(Owned::none(py))
}

fn sendto_ready<'py>(
    py: Python<'py>,
    t: &DatagramTransport,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("_SelectorDatagramTransport._sendto_ready")?;
    on_loop(py, t, "_sendto_ready", |this, inside| send::send_ready(py, this, inside, t))?;
    Ok(Owned::none(py))
}

fn fd_value(py: Python<'_>, t: &DatagramTransport) -> PyResult<Owned> {
    let number = on_loop(py, t, "_sock_fd", |_, inside| Ok(t.with(inside, |inner| inner.number)))?;
    Ok(number.into_pyobject(py)?.into_any().into())
}

fn size_value(py: Python<'_>, t: &DatagramTransport) -> PyResult<Owned> {
    let size = on_loop(py, t, "get_write_buffer_size", |_, inside| {
        Ok(t.with(inside, |inner| inner.flow().size))
    })?;
    Ok(size.into_pyobject(py)?.into_any().into())
}

fn address_value(py: Python<'_>, t: &DatagramTransport) -> PyResult<Owned> {
    let address = on_loop(py, t, "_address", |_, inside| {
        Ok(t.with(inside, |inner| inner.address.as_ref().map(|address| address.clone_ref(py))))
    })?;
    Ok(address.unwrap_or_else(|| Owned::none(py)))
}

macro_rules! flag {
    ($name:ident, $attribute:literal, |$inner:ident| $value:expr) => {
        fn $name(py: Python<'_>, t: &DatagramTransport) -> PyResult<Owned> {
            let value =
                on_loop(py, t, $attribute, |_, inside| Ok(t.with(inside, |$inner| $value)))?;
            Ok(Owned::bool(py, value))
        }
    };
}

flag!(paused_value, "_paused", |inner| inner.state.paused);
flag!(blocked_value, "_blocked", |inner| inner.state.blocked);
flag!(polling_value, "_polling", |inner| polls(inner));

fn polls(inner: &Inner) -> bool {
    inner.state.started && !inner.state.closing && !inner.state.paused
}

fn make_class(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let base = py.import("asyncio.transports")?.getattr("_FlowControlMixin")?;
    native::make_class::<DatagramTransport>(
        base.cast::<PyType>()?,
        methods(),
        getters(),
        c"A UDP or Unix datagram socket.",
    )
}

fn methods() -> Vec<ffi::PyMethodDef> {
    type T = DatagramTransport;
    vec![
        method!(T, c"sendto", sendto, c"sendto($self, data, addr=None)\n--\n\nSend a datagram to an address, or to the peer of a connected endpoint.\n\nErrors of the system go to the protocol's error_received(), and the endpoint stays\nopen. Raises ValueError where the endpoint has another remote address."),
        method!(T, c"close", close, c"close($self)\n--\n\nClose the endpoint once everything that waits has been sent."),
        method!(T, c"abort", abort, c"abort($self)\n--\n\nClose the endpoint at once; what waits is dropped."),
        method!(T, c"is_closing", is_closing, c"is_closing($self)\n--\n\nReturn True if the endpoint is closing or closed."),
        method!(T, c"pause_reading", pause_reading, c"pause_reading($self)\n--\n\nDeliver no datagram until resume_reading()."),
        method!(T, c"resume_reading", resume_reading, c"resume_reading($self)\n--\n\nDeliver datagrams again."),
        method!(T, c"is_reading", is_reading, c"is_reading($self)\n--\n\nReturn True if datagrams are delivered as they come."),
        method!(T, c"set_protocol", set_protocol, c"set_protocol($self, protocol)\n--\n\nSend what comes to another protocol."),
        method!(T, c"get_protocol", get_protocol, c"get_protocol($self)\n--\n\nReturn the current protocol."),
        method!(T, c"get_extra_info", get_extra_info, c"get_extra_info($self, name, default=None)\n--\n\nReturn 'peername', 'sockname', 'socket' or what else is known of the endpoint."),
        method!(T, c"set_write_buffer_limits", set_write_buffer_limits, c"set_write_buffer_limits($self, high=None, low=None)\n--\n\nSet the marks, in bytes, that pause and resume the protocol's writing."),
        method!(T, c"get_write_buffer_limits", get_write_buffer_limits, c"get_write_buffer_limits($self)\n--\n\nReturn (low, high) in bytes."),
        method!(T, c"get_write_buffer_size", get_write_buffer_size, c"get_write_buffer_size($self)\n--\n\nReturn how many bytes wait to be sent, with 8 for each datagram from 3.13 on."),
        method!(T, c"_start_reading", start_reading, c"_start_reading($self)\n--\n\n"),
        method!(T, c"_read_ready", read_ready, c"_read_ready($self)\n--\n\n"),
        method!(T, c"_sendto_ready", sendto_ready, c"_sendto_ready($self)\n--\n\n"),
        method!(T, c"_call_connection_lost", call_connection_lost, c"_call_connection_lost($self, exc)\n--\n\n"),
        method!(T, c"_force_close", force_close, c"_force_close($self, exc)\n--\n\n"),
        method!(T, c"_fatal_error", fatal_error, c"_fatal_error($self, exc, message='Fatal error on transport')\n--\n\n"),
    ]
}

fn getters() -> Vec<ffi::PyGetSetDef> {
    type T = DatagramTransport;
    vec![
        getter!(T, c"_sock", socket_value),
        getter!(T, c"_sock_fd", fd_value),
        getter!(T, c"_protocol", protocol_value),
        getter!(T, c"_loop", loop_value),
        getter!(T, c"_extra", extra_value),
        getter!(T, c"_address", address_value),
        getter!(T, c"_buffer_size", size_value),
        getter!(T, c"_conn_lost", lost_value),
        getter!(T, c"_closing", closing_value),
        getter!(T, c"_paused", paused_value),
        getter!(T, c"_protocol_paused", protocol_paused_value),
        getter!(T, c"_blocked", blocked_value),
        getter!(T, c"_finished", finished_value),
        getter!(T, c"_polling", polling_value),
    ]
}
