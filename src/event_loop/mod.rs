//! The loop: its class, its state, and what a turn does with them.

mod access;
mod arguments;
mod backlog;
mod backpressure;
mod blank_future;
mod census;
mod class;
mod fd_table;
pub(crate) mod futures;
mod gathering;
mod io;
mod mailbox;
mod messages;
mod metrics;
mod native;
mod observer;
mod options;
mod patience;
mod polling;
mod run;
mod scheduling;
mod state;
mod tasks;
mod watch;

use pyo3::prelude::*;
use pyo3::types::PyType;

pub(crate) use self::class::EventLoop;
pub(crate) use self::fd_table::FdTable;
pub(crate) use self::native::This;
pub(crate) use self::state::{LoopState, Source};
use crate::loop_cell::OnLoop;
use crate::sockets;

/// Proof of being on the loop's thread.
pub(crate) type Inside<'a> = OnLoop<'a, LoopState>;

/// Adds the class and its native methods to the module.
///
/// # Errors
/// What Python raises while the methods are made.
pub(crate) fn add_to_module(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<EventLoop>()?;
    module.add_function(wrap_pyfunction!(metrics::metrics, module)?)?;
    module.add_function(wrap_pyfunction!(options::is_made_with, module)?)?;
    module.add_function(wrap_pyfunction!(observer::pulse, module)?)?;
    module.add_function(wrap_pyfunction!(observer::observe, module)?)?;
    module.add_function(wrap_pyfunction!(census::connections, module)?)?;
    module.add_function(wrap_pyfunction!(census::watches, module)?)?;
    module.add_function(wrap_pyfunction!(census::socket_waits, module)?)?;
    let class = module.getattr("EventLoop")?.cast_into::<PyType>()?;
    native::install(&class)?;
    sockets::install(&class)
}
