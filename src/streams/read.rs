//! What `read`, `readline`, `readuntil` and `readexactly` do between two waits.
#![allow(unsafe_code)]

use pyo3::exceptions::{PyAttributeError, PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;

use crate::errors;
use crate::event_loop::futures;
use crate::py::{Owned, bytes};
use crate::streams::buffer::Buffer;
use crate::streams::fields::Field;
use crate::streams::operation::join;
use crate::streams::state::StreamState;
use crate::streams::stock::Stock;

/// A call of one of the methods.
pub(crate) enum Read {
    /// `read(n)`, n not negative; whether it has waited already.
    Some { count: usize, waited: bool },
    /// `read(-1)`: the blocks so far, and whether the next was waited for.
    All { blocks: Vec<Owned>, waited: bool },
    /// `readexactly(n)`, n not negative.
    Exactly { count: usize },
    /// `readuntil(separator)`, with an exact `bytes` that is not empty.
    Until { separator: Owned, offset: usize },
    /// `readline()`.
    Line { offset: usize },
}

/// The outcome of one try.
pub(crate) enum Attempt {
    Done(Owned),
    Wait,
    /// The reader's state is not what asyncio's code makes it: that has to do the rest.
    Delegate,
}

/// The outcome of a search for a separator.
enum Search {
    Found(Owned),
    Wait,
    Incomplete(Owned),
    Overrun(&'static str, usize),
}

impl Read {
    pub(crate) fn qualified_name(&self) -> &'static &'static str {
        match self {
            Self::Some { .. } | Self::All { .. } => &"StreamReader.read",
            Self::Exactly { .. } => &"StreamReader.readexactly",
            Self::Until { .. } => &"StreamReader.readuntil",
            Self::Line { .. } => &"StreamReader.readline",
        }
    }

    /// The first try.
    ///
    /// # Errors
    /// What the method raises.
    // HOT: stream
    pub(crate) fn begin(&mut self, py: Python<'_>, state: &StreamState) -> PyResult<Attempt> {
        if !state.is_none(py, Field::Exception) {
            return Ok(Attempt::Delegate);
        }
        self.attempt(py, state)
    }

    /// The message that is held apart from the buffer, which is empty then, if it is
    /// exactly what the call may return.
    // HOT: stream
    #[inline]
    fn take_whole(&self, py: Python<'_>, state: &StreamState) -> Option<Owned> {
        // If the transport is paused, it has to be resumed as well, which this does not do.
        let flows = state.flag(py, Field::Paused) == Some(false);
        match self {
            Self::Some { count, .. } if flows => state.take_held(py, |length| length <= *count),
            Self::Exactly { count } if flows => state.take_held(py, |length| length == *count),
            _ => None,
        }
    }

    /// The next try, after a wait.
    ///
    /// # Errors
    /// What the method raises.
    // HOT: stream
    pub(crate) fn attempt(&mut self, py: Python<'_>, state: &StreamState) -> PyResult<Attempt> {
        if let Some(message) = self.take_whole(py, state) {
            return Ok(Attempt::Done(message));
        }
        let (Some(buffer), Some(eof)) = (state.buffer(py), state.flag(py, Field::Eof)) else {
            return Ok(Attempt::Delegate);
        };
        match self {
            Self::Some { count: 0, .. } => Ok(Attempt::Done(bytes::copy(py, b"")?)),
            Self::Some { count, waited } => {
                if buffer.len() == 0 && !eof && !std::mem::replace(waited, true) {
                    return Ok(Attempt::Wait);
                }
                take(py, state, &buffer, *count).map(Attempt::Done)
            }
            Self::All { blocks, waited } => read_all(py, state, &buffer, eof, blocks, waited),
            Self::Exactly { count: 0 } => Ok(Attempt::Done(bytes::copy(py, b"")?)),
            Self::Exactly { count } => {
                if buffer.len() >= *count {
                    return take(py, state, &buffer, *count).map(Attempt::Done);
                }
                if !eof {
                    return Ok(Attempt::Wait);
                }
                let partial = buffer.take(py, usize::MAX)?;
                Err(incomplete(py, &partial, Some(*count)))
            }
            Self::Until { separator, offset } => {
                let Some(limit) = state.limit(py) else { return Ok(Attempt::Delegate) };
                let found = {
                    let separator = separator.bind(py);
                    let separator = bytes::exact(&separator).unwrap_or_default();
                    search(py, state, &buffer, eof, limit, separator, offset)?
                };
                match found {
                    Search::Found(chunk) => Ok(Attempt::Done(chunk)),
                    Search::Wait => Ok(Attempt::Wait),
                    Search::Incomplete(partial) => Err(incomplete(py, &partial, None)),
                    Search::Overrun(message, consumed) => Err(overrun(py, message, consumed)),
                }
            }
            Self::Line { offset } => {
                let Some(limit) = state.limit(py) else { return Ok(Attempt::Delegate) };
                match search(py, state, &buffer, eof, limit, b"\n", offset)? {
                    Search::Found(line) | Search::Incomplete(line) => Ok(Attempt::Done(line)),
                    Search::Wait => Ok(Attempt::Wait),
                    Search::Overrun(message, consumed) => {
                        line_overrun(py, state, &buffer, message, consumed)
                    }
                }
            }
        }
    }

    /// Makes the future that the next data resolves, and returns its iterator.
    ///
    /// # Errors
    /// RuntimeError if another coroutine waits already.
    // HOT: stream
    pub(crate) fn wait(&self, py: Python<'_>, state: &StreamState) -> PyResult<Owned> {
        if !state.is_none(py, Field::Waiter) {
            let function = match self {
                // asyncio's `readline` calls `readuntil`.
                Self::Line { .. } => "readuntil",
                other => other.qualified_name().trim_start_matches("StreamReader."),
            };
            return Err(PyRuntimeError::new_err(format!(
                "{function}() called while another coroutine is already waiting for incoming data"
            )));
        }
        // With a paused transport this would wait for ever.
        if state.flag(py, Field::Paused) != Some(false) {
            resume_transport(py, state)?;
        }
        let Some(event_loop) = state.get(py, Field::Loop) else {
            return Err(PyAttributeError::new_err(
                "'StreamReader' object has no attribute '_loop'",
            ));
        };
        let future = futures::create_future(py, &event_loop)?;
        state.set(py, Field::Waiter, future.clone_ref(py));
        // SAFETY: a live object; the answer is a new reference, or null with an
        // exception.
        let iterator = unsafe { Owned::from_result(py, ffi::PyObject_GetIter(future.as_ptr())) };
        if iterator.is_err() {
            forget_waiter(py, state);
        }
        iterator
    }

    /// The coroutine of asyncio's own method, for the rest of the call.
    ///
    /// # Errors
    /// What calling the method raises.
    #[cold]
    pub(crate) fn interpreted(&self, py: Python<'_>, reader: &Owned) -> PyResult<Owned> {
        let name = self.qualified_name().trim_start_matches("StreamReader.");
        let class = Stock::get(py)?.reader.class(py);
        let reader = reader.bind(py);
        let coroutine = match self {
            Self::Some { count, .. } | Self::Exactly { count } => {
                class.call_method1(name, (reader, count))
            }
            Self::All { .. } => class.call_method1(name, (reader, -1)),
            Self::Until { separator, .. } => class.call_method1(name, (reader, separator.as_py())),
            Self::Line { .. } => class.call_method1(name, (reader,)),
        }?;
        Ok(coroutine.into())
    }

    /// Puts what was read natively before the delegation in front of the delegate's result.
    pub(crate) fn join_with(&mut self, py: Python<'_>, rest: Owned) -> PyResult<Owned> {
        match self {
            Self::All { blocks, .. } if !blocks.is_empty() => {
                blocks.push(rest);
                join(py, blocks)
            }
            _ => Ok(rest),
        }
    }
}

/// `read(-1)`: blocks of at most the limit, until one is empty.
fn read_all(
    py: Python<'_>,
    state: &StreamState,
    buffer: &Buffer,
    eof: bool,
    blocks: &mut Vec<Owned>,
    waited: &mut bool,
) -> PyResult<Attempt> {
    loop {
        let Some(limit) = state.limit(py) else { return Ok(Attempt::Delegate) };
        if !std::mem::replace(waited, false) {
            // In asyncio each block is a `read` of its own, which checks for an exception.
            if !state.is_none(py, Field::Exception) {
                return match state.get(py, Field::Exception) {
                    Some(error) => {
                        let error = PyErr::from_value(error.bind(py).to_owned());
                        Err(errors::raised(py, error))
                    }
                    None => Ok(Attempt::Delegate),
                };
            }
            if buffer.len() == 0 && !eof {
                *waited = true;
                return Ok(Attempt::Wait);
            }
        }
        if buffer.len() == 0 {
            maybe_resume(py, state, buffer)?;
            return join(py, blocks).map(Attempt::Done);
        }
        blocks.push(take(py, state, buffer, limit)?);
    }
}

// HOT: stream
fn take(py: Python<'_>, state: &StreamState, buffer: &Buffer, count: usize) -> PyResult<Owned> {
    let data = buffer.take(py, count)?;
    maybe_resume(py, state, buffer)?;
    Ok(data)
}

/// `_maybe_resume_transport`.
fn maybe_resume(py: Python<'_>, state: &StreamState, buffer: &Buffer) -> PyResult<()> {
    if state.flag(py, Field::Paused) == Some(false) {
        return Ok(());
    }
    let Some(limit) = state.limit(py) else { return Ok(()) };
    if buffer.len() <= limit { resume_transport(py, state) } else { Ok(()) }
}

#[cold]
fn resume_transport(py: Python<'_>, state: &StreamState) -> PyResult<()> {
    state.set(py, Field::Paused, Owned::bool(py, false));
    match state.get(py, Field::Transport) {
        Some(transport) => transport.bind(py).call_method0(intern!(py, "resume_reading")).map(drop),
        None => Ok(()),
    }
}

/// Ends a wait.
#[inline]
pub(crate) fn forget_waiter(py: Python<'_>, state: &StreamState) {
    state.set(py, Field::Waiter, Owned::none(py));
}

/// Looks for a separator from `offset` on, and moves `offset` to where the next search has
/// to begin.
fn search(
    py: Python<'_>,
    state: &StreamState,
    buffer: &Buffer,
    eof: bool,
    limit: usize,
    separator: &[u8],
    offset: &mut usize,
) -> PyResult<Search> {
    let length = buffer.len();
    if length >= *offset + separator.len() {
        if let Some(start) = buffer.find(py, separator, *offset) {
            if start > limit {
                let message = "Separator is found, but chunk is longer than limit";
                return Ok(Search::Overrun(message, start));
            }
            return take(py, state, buffer, start + separator.len()).map(Search::Found);
        }
        // The last bytes may be the beginning of a separator.
        *offset = length + 1 - separator.len();
        if *offset > limit {
            let message = "Separator is not found, and chunk exceed the limit";
            return Ok(Search::Overrun(message, *offset));
        }
    }
    if eof {
        return buffer.take(py, usize::MAX).map(Search::Incomplete);
    }
    Ok(Search::Wait)
}

#[cold]
fn incomplete(py: Python<'_>, partial: &Owned, expected: Option<usize>) -> PyErr {
    let error = Stock::get(py)
        .and_then(|stock| stock.incomplete_read.bind(py).call1((partial.as_py(), expected)));
    errors::raised(py, error.map_or_else(|error| error, PyErr::from_value))
}

#[cold]
fn overrun(py: Python<'_>, message: &str, consumed: usize) -> PyErr {
    let error =
        Stock::get(py).and_then(|stock| stock.limit_overrun.bind(py).call1((message, consumed)));
    errors::raised(py, error.map_or_else(|error| error, PyErr::from_value))
}

/// `readline` drops a line that is too long, and raises ValueError.
#[cold]
fn line_overrun(
    py: Python<'_>,
    state: &StreamState,
    buffer: &Buffer,
    message: &str,
    consumed: usize,
) -> PyResult<Attempt> {
    if buffer.has_byte_at(py, consumed, b'\n') {
        buffer.drop_front(py, consumed + 1)?;
    } else {
        buffer.drop_front(py, usize::MAX)?;
    }
    maybe_resume(py, state, buffer)?;
    let error = PyValueError::new_err(message.to_owned());
    let during = overrun(py, message, consumed);
    error.value(py).setattr(intern!(py, "__context__"), during.value(py))?;
    Err(error)
}
