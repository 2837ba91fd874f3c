//! Python objects that are looked up once per process.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyType};

use crate::handle;
use crate::py::Owned;
use crate::py::args::Keyword;

/// Classes, functions and names that the binding needs again and again.
pub(crate) struct Imports {
    pub(crate) handle: Py<PyType>,
    pub(crate) timer_handle: Py<PyType>,
    pub(crate) threadsafe_handle: Py<PyType>,
    pub(crate) future: Py<PyAny>,
    /// The namespace of `asyncio.futures`, which shows changes.
    pub(crate) futures: Py<PyDict>,
    /// Whether that is the class written in C.
    pub(crate) future_is_native: bool,
    pub(crate) future_set_result: Owned,
    pub(crate) task: Py<PyAny>,
    /// The namespace of `asyncio.tasks`, which shows changes.
    pub(crate) tasks: Py<PyDict>,
    pub(crate) format_callback: Py<PyAny>,
    pub(crate) extract_stack: Py<PyAny>,
    pub(crate) get_frame: Py<PyAny>,
    pub(crate) file_descriptor: Py<PyAny>,
    pub(crate) set_result_unless_cancelled: Py<PyAny>,
    pub(crate) socket: Py<PyAny>,
    pub(crate) buffered_protocol: Py<PyAny>,
    pub(crate) logger: Py<PyAny>,
    pub(crate) base_create_task: Py<PyAny>,
    /// `asyncio._get_running_loop`.
    pub(crate) running_loop: Owned,
    pub(crate) context: Keyword,
    pub(crate) name_name: Py<PyString>,
    pub(crate) eager_start_name: Py<PyString>,
}

static IMPORTS: PyOnceLock<Imports> = PyOnceLock::new();

impl Imports {
    /// The objects; imported on first use.
    ///
    /// # Errors
    /// ImportError or AttributeError if this interpreter's asyncio is not as expected.
    #[inline]
    pub(crate) fn get(py: Python<'_>) -> PyResult<&Self> {
        match IMPORTS.get(py) {
            Some(imports) => Ok(imports),
            None => IMPORTS.get_or_try_init(py, || Self::load(py)),
        }
    }

    #[cold]
    fn load(py: Python<'_>) -> PyResult<Self> {
        let handles = handle::make_classes(py)?;
        let find = |module: &str, name: &str| -> PyResult<Py<PyAny>> {
            Ok(py.import(module)?.getattr(name)?.unbind())
        };
        let future = find("asyncio.futures", "Future")?;
        Ok(Self {
            handle: handles.plain.unbind(),
            timer_handle: handles.timer.unbind(),
            threadsafe_handle: handles.threadsafe.unbind(),
            future: future.clone_ref(py),
            futures: py.import("asyncio.futures")?.dict().unbind(),
            future_is_native: future.getattr(py, "__module__")?.extract::<String>(py)?
                == "_asyncio",
            future_set_result: future.bind(py).getattr("set_result")?.into(),
            task: find("asyncio.tasks", "Task")?,
            tasks: py.import("asyncio.tasks")?.dict().unbind(),
            format_callback: find("asyncio.format_helpers", "_format_callback_source")?,
            extract_stack: find("asyncio.format_helpers", "extract_stack")?,
            get_frame: find("sys", "_getframe")?,
            file_descriptor: find("selectors", "_fileobj_to_fd")?,
            set_result_unless_cancelled: find("asyncio.futures", "_set_result_unless_cancelled")?,
            socket: find("socket", "socket")?,
            buffered_protocol: find("asyncio.protocols", "BufferedProtocol")?,
            logger: find("asyncio.log", "logger")?,
            base_create_task: find("asyncio.base_events", "BaseEventLoop")?
                .getattr(py, "create_task")?,
            running_loop: find("asyncio.events", "_get_running_loop")?.bind(py).into(),
            context: Keyword::new(intern!(py, "context")),
            name_name: intern!(py, "name").clone().unbind(),
            eager_start_name: intern!(py, "eager_start").clone().unbind(),
        })
    }
}
