//! How a native call hands over to the coroutine of asyncio's own method.

use pyo3::exceptions::PyAttributeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyMemoryView, PyTuple};

use crate::py::Owned;
use crate::sockets::call::{Call, Sending, Task};
use crate::sockets::stock::Stock;

impl Call {
    /// The coroutine of asyncio's own method, for the rest of the call.
    ///
    /// # Errors
    /// What calling the method raises.
    #[cold]
    pub(super) fn interpreted(&self, py: Python<'_>) -> PyResult<Owned> {
        let qualified: &str = self.name();
        let name = qualified.rsplit('.').next().unwrap_or(qualified);
        let Some(function) = Stock::get(py)?.inherited(py, name) else {
            return Err(PyAttributeError::new_err(name));
        };
        let mut arguments =
            vec![self.event_loop_object().bind(py).to_owned(), self.socket().bind(py).to_owned()];
        match self.task() {
            Task::Recv(count) => arguments.push(count.into_pyobject(py)?.into_any()),
            Task::RecvInto(object) | Task::RecvFrom(object) => {
                arguments.push(object.bind(py).to_owned());
            }
            Task::Connect(connecting) => arguments.push(connecting.address.bind(py).to_owned()),
            Task::RecvFromInto(first, second) | Task::SendTo(first, second) => {
                arguments.push(first.bind(py).to_owned());
                arguments.push(second.bind(py).to_owned());
            }
            Task::SendAll(sending) => arguments.push(sending.rest(py)?),
            Task::Accept => {}
        }
        Ok(function.call1(PyTuple::new(py, arguments)?)?.into())
    }
}

impl Sending {
    /// What is left to send, in a form whose length counts bytes. asyncio compares the
    /// bytes sent with the number of items, and would wait for ever if items are larger.
    fn rest<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let data = self.data().bind(py).to_owned();
        let is_wide = || -> PyResult<bool> {
            let view = PyMemoryView::from(&data)?;
            Ok(view.getattr(intern!(py, "nbytes"))?.extract::<usize>()? != data.len()?)
        };
        if self.sent() == 0 && !is_wide().unwrap_or(false) {
            return Ok(data);
        }
        let view = PyMemoryView::from(&data)?.call_method1(intern!(py, "cast"), ("B",))?;
        view.call_method1(
            intern!(py, "__getitem__"),
            (pyo3::types::PySlice::new(py, self.sent() as isize, isize::MAX, 1),),
        )
    }
}
