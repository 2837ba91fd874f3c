//! asyncio's own stream classes as they were when tokioloop was imported, and
//! whether anybody has changed them since.
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::guarded::{self, Guarded};

/// The classes that native code replaces, and the exceptions that it raises.
pub(crate) struct Stock {
    pub(crate) reader: Guarded,
    pub(crate) protocol: Guarded,
    pub(crate) writer: Guarded,
    pub(crate) incomplete_read: Py<PyAny>,
    pub(crate) limit_overrun: Py<PyAny>,
}

static STOCK: PyOnceLock<Stock> = PyOnceLock::new();

/// The members that feeding, reading and flow control of a reader consist of.
const READER: [&str; 11] = [
    "__init__",
    "feed_data",
    "_wakeup_waiter",
    "_wait_for_data",
    "_maybe_resume_transport",
    "read",
    "readline",
    "readuntil",
    "readexactly",
    "exception",
    "__getattribute__",
];

const PROTOCOL: [&str; 4] =
    ["data_received", "_stream_reader", "_drain_helper", "__getattribute__"];

const WRITER: [&str; 8] = [
    "__init__",
    "write",
    "writelines",
    "drain",
    "close",
    "is_closing",
    "get_extra_info",
    "__getattribute__",
];

/// The members of a transport that a stream uses.
const TRANSPORT: [&str; 6] =
    ["write", "writelines", "close", "is_closing", "get_extra_info", "__getattribute__"];

/// The class of the transports that loops make, unless they were given another.
///
/// # Errors
/// ImportError if the Python part of the package is missing.
#[inline]
pub(crate) fn transport_class(py: Python<'_>) -> PyResult<&Guarded> {
    static CLASS: PyOnceLock<Guarded> = PyOnceLock::new();
    match CLASS.get(py) {
        Some(class) => Ok(class),
        None => CLASS.get_or_try_init(py, || {
            let class = py.import("tokioloop._transports")?.getattr("SocketTransport")?;
            Guarded::new(&class.cast_into::<PyType>()?, &TRANSPORT, guarded::is_native)
        }),
    }
}

impl Stock {
    /// The classes; looked up on first use, which is when the module is made.
    ///
    /// # Errors
    /// ImportError if this interpreter has no asyncio.
    #[inline]
    pub(crate) fn get(py: Python<'_>) -> PyResult<&Self> {
        match STOCK.get(py) {
            Some(stock) => Ok(stock),
            None => STOCK.get_or_try_init(py, || Self::load(py)),
        }
    }

    #[cold]
    fn load(py: Python<'_>) -> PyResult<Self> {
        let streams = py.import("asyncio.streams")?;
        let class = |name: &str| -> PyResult<Bound<'_, PyType>> {
            Ok(streams.getattr(name)?.cast_into::<PyType>()?)
        };
        let exceptions = py.import("asyncio.exceptions")?;
        Ok(Self {
            reader: Guarded::new(&class("StreamReader")?, &READER, is_genuine)?,
            protocol: Guarded::new(&class("StreamReaderProtocol")?, &PROTOCOL, is_genuine)?,
            writer: Guarded::new(&class("StreamWriter")?, &WRITER, is_genuine)?,
            incomplete_read: exceptions.getattr("IncompleteReadError")?.unbind(),
            limit_overrun: exceptions.getattr("LimitOverrunError")?.unbind(),
        })
    }
}

fn is_genuine(member: &Bound<'_, PyAny>) -> bool {
    guarded::is_defined_in(member, "asyncio.streams")
}
