//! One call of a stream's coroutine method, from its first step to its end.
//!
//! A step runs until there is a result or something to wait for. What cannot
//! be done natively is delegated: to the coroutine that asyncio's own method
//! makes, or to another awaitable's iterator.
#![allow(unsafe_code)]

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::coroutine::{Input, Step, pass};
use crate::py::native::Visitor;
use crate::py::{Live, Owned};
use crate::streams::drain;
use crate::streams::read::{self, Attempt, Read};
use crate::streams::state::StreamState;

/// What was called.
pub(crate) enum Task {
    Read(Read, StreamState),
    Drain(StreamState),
}

/// How far a call has come.
enum Stage {
    New,
    /// The reader's `_waiter` is awaited through this iterator.
    Waiting(Owned),
    /// The rest is up to another coroutine.
    Delegated(Owned),
    /// `drain` has let the loop turn.
    Yielded,
}

/// A call under way.
pub(crate) struct Operation {
    task: Task,
    /// The reader or the writer.
    stream: Owned,
    stage: Stage,
}

impl Operation {
    pub(crate) fn new(stream: Owned, task: Task) -> Self {
        Self { task, stream, stage: Stage::New }
    }

    /// Qualified name of the method.
    pub(crate) fn name(&self) -> &'static &'static str {
        match &self.task {
            Task::Read(read, _) => read.qualified_name(),
            Task::Drain(_) => &"StreamWriter.drain",
        }
    }

    pub(crate) fn is_new(&self) -> bool {
        matches!(self.stage, Stage::New)
    }

    /// What it waits for.
    pub(crate) fn awaited(&self) -> Option<&Owned> {
        match &self.stage {
            Stage::Waiting(iterator) | Stage::Delegated(iterator) => Some(iterator),
            Stage::New | Stage::Yielded => None,
        }
    }

    pub(crate) fn traverse(&self, visitor: &mut Visitor) {
        visitor.object(&self.stream);
        let (Task::Read(_, state) | Task::Drain(state)) = &self.task;
        visitor.object(state.object());
        if let Some(awaited) = self.awaited() {
            visitor.object(awaited);
        }
    }

    /// Runs one step.
    // HOT: stream
    pub(crate) fn resume(&mut self, py: Python<'_>, input: Input<'_>) -> PyResult<Step> {
        match std::mem::replace(&mut self.stage, Stage::New) {
            Stage::New => {
                if let Input::Throw(error) = input {
                    return Err(PyErr::from_value(error.clone()));
                }
                match &mut self.task {
                    Task::Read(read, state) => {
                        let attempt = read.begin(py, state)?;
                        self.follow(py, attempt)
                    }
                    Task::Drain(state) => match drain::begin(py, state)? {
                        drain::Begin::Closing => {
                            self.stage = Stage::Yielded;
                            Ok(Step::Yield(Owned::none(py)))
                        }
                        drain::Begin::Open => self.finish_drain(py),
                    },
                }
            }
            Stage::Waiting(iterator) => {
                let step = pass(py, &iterator, input);
                if matches!(step, Ok(Step::Yield(_))) {
                    self.stage = Stage::Waiting(iterator);
                    return step;
                }
                // asyncio does this in a `finally`, however the wait has ended.
                if let Task::Read(_, state) = &self.task {
                    read::forget_waiter(py, state);
                }
                step?;
                self.go_on(py)
            }
            Stage::Delegated(iterator) => {
                let step = pass(py, &iterator, input)?;
                match step {
                    Step::Yield(_) => {
                        self.stage = Stage::Delegated(iterator);
                        Ok(step)
                    }
                    Step::Return(value) => self.end(py, value),
                }
            }
            Stage::Yielded => match input {
                Input::Throw(error) => Err(PyErr::from_value(error.clone())),
                Input::Send(_) => self.finish_drain(py),
            },
        }
    }

    /// Ends a call that nobody will resume any more. Does what asyncio's `finally` does
    /// when the finalizer of its coroutine runs it.
    pub(crate) fn abandon(self) {
        if let (Stage::Waiting(_), Task::Read(_, state)) = (&self.stage, &self.task) {
            // SAFETY: objects die on attached threads.
            read::forget_waiter(unsafe { Python::assume_attached() }, state);
        }
    }

    /// The wait is over: tries again.
    fn go_on(&mut self, py: Python<'_>) -> PyResult<Step> {
        let Task::Read(read, state) = &mut self.task else {
            return Ok(Step::Return(Owned::none(py)));
        };
        let attempt = read.attempt(py, state)?;
        self.follow(py, attempt)
    }

    fn follow(&mut self, py: Python<'_>, attempt: Attempt) -> PyResult<Step> {
        let mut attempt = attempt;
        loop {
            let Task::Read(read, state) = &mut self.task else {
                return Ok(Step::Return(Owned::none(py)));
            };
            match attempt {
                Attempt::Done(value) => return Ok(Step::Return(value)),
                Attempt::Delegate => {
                    let coroutine = read.interpreted(py, &self.stream)?;
                    return self.delegate(py, coroutine);
                }
                Attempt::Wait => {
                    let iterator = read.wait(py, state)?;
                    let step = pass(py, &iterator, Input::Send(Live::none(py)));
                    if matches!(step, Ok(Step::Yield(_))) {
                        self.stage = Stage::Waiting(iterator);
                        return step;
                    }
                    read::forget_waiter(py, state);
                    step?;
                    attempt = read.attempt(py, state)?;
                }
            }
        }
    }

    fn finish_drain(&mut self, py: Python<'_>) -> PyResult<Step> {
        let (Task::Read(_, state) | Task::Drain(state)) = &self.task;
        match drain::flow_control(py, state)? {
            None => Ok(Step::Return(Owned::none(py))),
            Some(coroutine) => self.delegate(py, coroutine),
        }
    }

    fn delegate(&mut self, py: Python<'_>, awaitable: Owned) -> PyResult<Step> {
        match pass(py, &awaitable, Input::Send(Live::none(py)))? {
            Step::Return(value) => self.end(py, value),
            step @ Step::Yield(_) => {
                self.stage = Stage::Delegated(awaitable);
                Ok(step)
            }
        }
    }

    /// The delegate has returned.
    fn end(&mut self, py: Python<'_>, value: Owned) -> PyResult<Step> {
        match &mut self.task {
            Task::Read(read, _) => read.join_with(py, value).map(Step::Return),
            Task::Drain(_) => Ok(Step::Return(value)),
        }
    }
}

/// The content of several `bytes` in a row.
pub(crate) fn join(py: Python<'_>, parts: &[Owned]) -> PyResult<Owned> {
    let parts = parts.iter().map(|part| part.as_py().clone_ref(py)).collect::<Vec<_>>();
    Ok(PyBytes::new(py, b"").call_method1(intern!(py, "join"), (parts,))?.into())
}
