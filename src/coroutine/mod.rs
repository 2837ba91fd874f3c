//! Coroutines whose body is Rust: one class for all of them, so that code which takes
//! coroutines treats them alike.

mod class;
mod inspection;
mod method;
mod operation;
mod step;

pub(crate) use class::NativeCoroutine;
pub(crate) use method::{Body, CoroutineMethod};
pub(crate) use operation::Operation;
pub(crate) use step::{Input, Step, pass};
