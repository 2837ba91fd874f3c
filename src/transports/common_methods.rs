//! The methods that every transport has, as CPython calls them.

use pyo3::Borrowed;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::event_loop::{Inside, This};
use crate::py::{Args, Owned};
use crate::transports::interior::Interior;
use crate::transports::shape::Transport;
use crate::transports::{close, extra};

/// Enters the loop and runs a method's body.
///
/// # Errors
/// RuntimeError if another thread runs the loop, and what the body returns.
#[inline]
pub(crate) fn on_loop<I: Interior, R>(
    py: Python<'_>,
    transport: &Transport<I>,
    name: &str,
    body: impl FnOnce(This<'_>, &Inside<'_>) -> PyResult<R>,
) -> PyResult<R> {
    let event_loop = transport.event_loop(py)?;
    let inside = event_loop.enter(py, name)?;
    let object = transport.event_loop_object();
    body(This::with_object(event_loop, &object), &inside)
}

pub(crate) fn abort<'py, I: Interior>(
    py: Python<'py>,
    t: &Transport<I>,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("_SelectorTransport.abort")?;
    on_loop(py, t, "abort", |this, inside| close::force_close(py, this, inside, t, None))?;
    Ok(Owned::none(py))
}

pub(crate) fn force_close<'py, I: Interior>(
    py: Python<'py>,
    t: &Transport<I>,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    let error = args.one("_SelectorTransport._force_close", "exc")?;
    let error = (!error.is_none()).then_some(&*error);
    on_loop(py, t, "_force_close", |this, inside| close::force_close(py, this, inside, t, error))?;
    Ok(Owned::none(py))
}

pub(crate) fn fatal_error<'py, I: Interior>(
    py: Python<'py>,
    t: &Transport<I>,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    let name = "_SelectorTransport._fatal_error";
    let [error, message] = args.bind(name, ["exc", "message"], 1)?;
    let error = PyErr::from_value(error.map_or_else(|| py.None().into_bound(py), |e| e.to_owned()));
    let message = match message {
        Some(message) => message.extract::<String>()?,
        None => "Fatal error on transport".to_owned(),
    };
    on_loop(py, t, "_fatal_error", |this, inside| {
        close::fatal_error(py, this, inside, &t.reference(), error, &message)
    })?;
    Ok(Owned::none(py))
}

pub(crate) fn is_closing<'py, I: Interior>(
    py: Python<'py>,
    t: &Transport<I>,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("_SelectorTransport.is_closing")?;
    Ok(Owned::bool(py, t.is_closing()))
}

pub(crate) fn get_protocol<'py, I: Interior>(
    py: Python<'py>,
    t: &Transport<I>,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("_SelectorTransport.get_protocol")?;
    protocol_value(py, t)
}

pub(crate) fn protocol_value<I: Interior>(py: Python<'_>, t: &Transport<I>) -> PyResult<Owned> {
    let protocol = on_loop(py, t, "get_protocol", |_, inside| {
        Ok(t.with(inside, |inner| inner.protocol().map(|protocol| protocol.clone_ref(py))))
    })?;
    Ok(protocol.unwrap_or_else(|| Owned::none(py)))
}

pub(crate) fn get_extra_info<'py, I: Interior>(
    py: Python<'py>,
    t: &Transport<I>,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    let function = "BaseTransport.get_extra_info";
    let [name, default] = args.bind(function, ["name", "default"], 1)?;
    let Some(name) = name else { return Ok(Owned::none(py)) };
    let value = on_loop(py, t, "get_extra_info", |_, inside| extra::get(py, inside, t, &name))?;
    Ok(match (value, default) {
        (Some(value), _) => value.into(),
        (None, Some(default)) => Owned::from(&*default),
        (None, None) => Owned::none(py),
    })
}

/// asyncio's high mark, in bytes.
const DEFAULT_HIGH: usize = 64 * 1024;

/// The marks (high, low) that asyncio derives from its arguments. Computed by Python, so
/// that any numbers that can be compared will do.
pub(crate) fn marks(
    py: Python<'_>,
    high: Option<Borrowed<'_, '_, PyAny>>,
    low: Option<Borrowed<'_, '_, PyAny>>,
) -> PyResult<(usize, usize)> {
    let given = |value: Option<Borrowed<'_, '_, PyAny>>| {
        value.filter(|value| !value.is_none()).map(|value| value.as_unbound().clone_ref(py))
    };
    let (high, low) = (given(high), given(low));
    let low_given = low.as_ref().map(|low| low.bind(py).clone());
    let high = match (high, &low_given) {
        (Some(high), _) => high.into_bound(py),
        (None, Some(low)) => low.mul(4)?,
        (None, None) => DEFAULT_HIGH.into_pyobject(py)?.into_any(),
    };
    let low = match low_given {
        Some(low) => low,
        None => high.floor_div(4)?,
    };
    if !(high.ge(&low)? && low.ge(0)?) {
        return Err(PyValueError::new_err(format!(
            "high ({}) must be >= low ({}) must be >= 0",
            high.repr()?,
            low.repr()?
        )));
    }
    Ok((bytes_of(&high)?, bytes_of(&low)?))
}

/// A mark in whole bytes. It is only compared with sizes, so rounding a fraction down
/// and capping a huge number make no difference.
fn bytes_of(mark: &Bound<'_, PyAny>) -> PyResult<usize> {
    match mark.extract::<usize>() {
        Ok(bytes) => Ok(bytes),
        Err(_) => Ok(mark.extract::<f64>()? as usize),
    }
}

pub(crate) fn get_write_buffer_limits<'py, I: Interior>(
    py: Python<'py>,
    t: &Transport<I>,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    args.none("_FlowControlMixin.get_write_buffer_limits")?;
    let (low, high) = on_loop(py, t, "get_write_buffer_limits", |_, inside| {
        Ok(t.with(inside, |inner| {
            let flow = inner.flow();
            (flow.marks.low(), flow.marks.high())
        }))
    })?;
    Ok((low, high).into_pyobject(py)?.into_any().into())
}

pub(crate) fn call_connection_lost<'py, I: Interior>(
    py: Python<'py>,
    t: &Transport<I>,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    let error = args.one("_SelectorTransport._call_connection_lost", "exc")?;
    let error = (!error.is_none()).then_some(&*error);
    on_loop(py, t, "_call_connection_lost", |_, inside| {
        close::connection_lost(py, inside, t, error)
    })?;
    Ok(Owned::none(py))
}

pub(crate) fn socket_value<I: Interior>(py: Python<'_>, t: &Transport<I>) -> PyResult<Owned> {
    let socket = on_loop(py, t, "_sock", |_, inside| extra::socket(py, inside, t))?;
    Ok(socket.unwrap_or_else(|| Owned::none(py)))
}

pub(crate) fn fd_value<I: Interior>(py: Python<'_>, t: &Transport<I>) -> PyResult<Owned> {
    let number = on_loop(py, t, "_sock_fd", |_, inside| {
        Ok(t.with(inside, |inner| inner.descriptor().number()))
    })?;
    Ok(number.into_pyobject(py)?.into_any().into())
}

pub(crate) fn loop_value<I: Interior>(py: Python<'_>, t: &Transport<I>) -> PyResult<Owned> {
    t.event_loop(py)?;
    Ok(t.event_loop_object())
}

pub(crate) fn extra_value<I: Interior>(py: Python<'_>, t: &Transport<I>) -> PyResult<Owned> {
    on_loop(py, t, "_extra", |_, inside| {
        let dict = extra::extra_dict(py, t)?;
        for name in ["socket", "sockname", "peername"] {
            let name = pyo3::types::PyString::new(py, name).into_any();
            if let Some(value) = extra::get(py, inside, t, &name)? {
                dict.set_item(name, value)?;
            }
        }
        Ok(dict.into_any().into())
    })
}

pub(crate) fn lost_value<I: Interior>(py: Python<'_>, t: &Transport<I>) -> PyResult<Owned> {
    let lost =
        on_loop(py, t, "_conn_lost", |_, inside| Ok(t.with(inside, |inner| *inner.stage().lost)))?;
    Ok(lost.into_pyobject(py)?.into_any().into())
}

macro_rules! flag {
    ($name:ident, $attribute:literal, |$inner:ident| $value:expr) => {
        pub(crate) fn $name<I: Interior>(py: Python<'_>, t: &Transport<I>) -> PyResult<Owned> {
            let value =
                on_loop(py, t, $attribute, |_, inside| Ok(t.with(inside, |$inner| $value)))?;
            Ok(Owned::bool(py, value))
        }
    };
}

flag!(closing_value, "_closing", |inner| *inner.stage().closing);
flag!(finished_value, "_finished", |inner| *inner.stage().finished);
flag!(protocol_paused_value, "_protocol_paused", |inner| *inner.flow().paused);
