//! What a native coroutine does: the closed set of its bodies.

use pyo3::prelude::*;

use crate::coroutine::step::{Input, Step};
use crate::py::Owned;
use crate::py::native::Visitor;
use crate::{sockets, streams};

/// A call under way.
pub(crate) enum Operation {
    /// A method of a `StreamReader` or `StreamWriter`.
    Stream(streams::Operation),
    /// A `sock_*` method of a loop.
    Socket(sockets::Call),
}

impl Operation {
    /// Qualified name of the method.
    pub(crate) fn name(&self) -> &'static &'static str {
        match self {
            Self::Stream(operation) => operation.name(),
            Self::Socket(call) => call.name(),
        }
    }

    /// Whether it has not begun.
    pub(crate) fn is_new(&self) -> bool {
        match self {
            Self::Stream(operation) => operation.is_new(),
            Self::Socket(call) => call.is_new(),
        }
    }

    /// What it waits for.
    pub(crate) fn awaited(&self) -> Option<&Owned> {
        match self {
            Self::Stream(operation) => operation.awaited(),
            Self::Socket(call) => call.awaited(),
        }
    }

    pub(crate) fn traverse(&self, visitor: &mut Visitor) {
        match self {
            Self::Stream(operation) => operation.traverse(visitor),
            Self::Socket(call) => call.traverse(visitor),
        }
    }

    /// Runs one step.
    ///
    /// # Errors
    /// What the method raises.
    #[inline]
    pub(crate) fn resume(&mut self, py: Python<'_>, input: Input<'_>) -> PyResult<Step> {
        match self {
            Self::Stream(operation) => operation.resume(py, input),
            Self::Socket(call) => call.resume(py, input),
        }
    }

    /// Ends it where it is: nobody will resume it any more.
    pub(crate) fn abandon(self) {
        match self {
            Self::Stream(operation) => operation.abandon(),
            Self::Socket(call) => call.abandon(),
        }
    }
}
