//! The general layer over CPython's C API: owned references, calls without an
//! argument tuple, contexts, `bytes` that are received into, and heap types
//! whose methods take their arguments as a slice.
//!
//! Unsafe code specific to one object layout sits beside that object (`handle/`,
//! `coroutine/`, `streams/`, `tls/`, `sockets/`, `transports/`, `event_loop/`).
//! Unless it says otherwise, everything here runs on an attached thread.

pub(crate) mod args;
pub(crate) mod buffer;
pub(crate) mod bytes;
pub(crate) mod call;
pub(crate) mod context;
pub(crate) mod detached;
#[cfg(not(Py_GIL_DISABLED))]
mod gil_cell;
pub(crate) mod handled;
pub(crate) mod interpreter;
mod live;
pub(crate) mod message;
pub(crate) mod native;
pub(crate) mod outstanding;
pub(crate) mod own_methods;
mod owned;
pub(crate) mod shared_count;
pub(crate) mod stop_iteration;
#[cfg(all(target_os = "linux", target_env = "gnu", not(Py_3_14)))]
pub(crate) mod thread_exit;
#[cfg(not(any(Py_3_14, Py_GIL_DISABLED)))]
mod trashcan;

use pyo3::prelude::*;

pub(crate) use args::Args;
#[cfg(not(Py_GIL_DISABLED))]
pub(crate) use gil_cell::GilCell;
pub(crate) use live::Live;
pub(crate) use owned::Owned;

/// How many items to make room for before iterating: as many as the object claims to have,
/// up to a number whose memory is surely there.
pub(crate) fn length_hint(list: &Bound<'_, PyAny>) -> usize {
    list.len().unwrap_or(0).min(1024)
}
