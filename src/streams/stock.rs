//! asyncio's own stream classes as they were when tokioloop was imported, and
//! whether anybody has changed them since.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// What native code stands in for.
pub(crate) struct Stock {
    pub(crate) reader: Guarded,
    pub(crate) protocol: Guarded,
    pub(crate) writer: Guarded,
    pub(crate) incomplete_read: Py<PyAny>,
    pub(crate) limit_overrun: Py<PyAny>,
}

static STOCK: PyOnceLock<Stock> = PyOnceLock::new();

/// What feeding, reading and flow control of a reader consist of.
const READER: [&str; 10] = [
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

const WRITER: [&str; 7] =
    ["write", "writelines", "drain", "close", "is_closing", "get_extra_info", "__getattribute__"];

/// What a stream asks of its transport.
const TRANSPORT: [&str; 6] =
    ["write", "writelines", "close", "is_closing", "get_extra_info", "__getattribute__"];

/// The class of the transports that loops make, unless they were given another.
///
/// # Errors
/// ImportError where the Python part of the package is not there.
#[inline]
pub(crate) fn transport_class(py: Python<'_>) -> PyResult<&Guarded> {
    static CLASS: PyOnceLock<Guarded> = PyOnceLock::new();
    match CLASS.get(py) {
        Some(class) => Ok(class),
        None => CLASS.get_or_try_init(py, || {
            let class = py.import("tokioloop._transports")?.getattr("SocketTransport")?;
            Guarded::new(&class.cast_into::<PyType>()?, &TRANSPORT, is_native)
        }),
    }
}

impl Stock {
    /// The classes; looked up on first use, which is when the module is made.
    ///
    /// # Errors
    /// ImportError where this interpreter has no asyncio.
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

/// A class and those of its members that native code stands in for.
pub(crate) struct Guarded {
    class: Py<PyType>,
    members: Vec<(&'static str, Py<PyAny>)>,
    /// Whether the members were asyncio's own when they were noted.
    genuine: bool,
    /// The version of the class that was found unmodified last; CPython gives
    /// a class a new version whenever it, or a base, is changed.
    version: AtomicU32,
}

impl Guarded {
    fn new(
        class: &Bound<'_, PyType>,
        names: &[&'static str],
        is_genuine: fn(&Bound<'_, PyAny>) -> bool,
    ) -> PyResult<Self> {
        let mut members = Vec::with_capacity(names.len());
        let mut genuine = true;
        for &name in names {
            let member = class.getattr(name)?;
            genuine &= is_genuine(&member);
            members.push((name, member.unbind()));
        }
        Ok(Self { class: class.clone().unbind(), members, genuine, version: AtomicU32::new(0) })
    }

    /// The class.
    pub(crate) fn class<'a, 'py>(&'a self, py: Python<'py>) -> &'a Bound<'py, PyType> {
        self.class.bind(py)
    }

    /// Whether `object` is a direct instance of the class.
    #[inline]
    pub(crate) fn is_exact(&self, object: *mut ffi::PyObject) -> bool {
        // SAFETY: callers pass live objects; the type is only compared.
        unsafe { ffi::Py_TYPE(object) }.cast() == self.class.as_ptr()
    }

    /// A member as asyncio defines it.
    pub(crate) fn member(&self, name: &str) -> Option<&Py<PyAny>> {
        self.members.iter().find(|(known, _)| *known == name).map(|(_, member)| member)
    }

    /// The names that an instance attribute could hide.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.members.iter().map(|(name, _)| *name)
    }

    /// Whether the class is as asyncio defines it.
    #[inline]
    pub(crate) fn is_unmodified(&self, py: Python<'_>) -> bool {
        let version = self.current_version();
        (version != 0 && version == self.version.load(Ordering::Relaxed)) || self.compare(py)
    }

    /// The class has changed since the last look: whether one of our members.
    #[cold]
    fn compare(&self, py: Python<'_>) -> bool {
        if !self.genuine {
            return false;
        }
        let class = self.class.bind(py);
        // A look-up gives a changed class its new version; a change from here
        // on gives it yet another.
        let find = |name: &str| class.getattr(name);
        if self.members.first().is_none_or(|(name, _)| find(name).is_err()) {
            return false;
        }
        let version = self.current_version();
        let same = self
            .members
            .iter()
            .all(|(name, member)| find(name).is_ok_and(|found| found.is(member.bind(py))));
        if same {
            self.version.store(version, Ordering::Relaxed);
        }
        same
    }

    #[inline]
    fn current_version(&self) -> u32 {
        let class = self.class.as_ptr().cast::<ffi::PyTypeObject>();
        // SAFETY: the class is alive; another thread may write the version, so
        // it is read as one word.
        unsafe { (&raw const (*class).tp_version_tag).cast::<AtomicU32>().as_ref() }
            .map_or(0, |version| version.load(Ordering::Relaxed))
    }
}

/// Whether a member is what CPython put there, and not a patch that was there
/// before tokioloop was imported.
fn is_genuine(member: &Bound<'_, PyAny>) -> bool {
    let function = member.getattr("fget").unwrap_or_else(|_| member.clone());
    match function.getattr("__module__").and_then(|module| module.extract::<String>()) {
        Ok(module) => module == "asyncio.streams",
        // Slots of `object` have no module.
        Err(_) => function.hasattr("__objclass__").unwrap_or(false),
    }
}

/// Whether a member of a transport is what the extension has put there.
fn is_native(member: &Bound<'_, PyAny>) -> bool {
    member.hasattr("__objclass__").unwrap_or(false)
}
