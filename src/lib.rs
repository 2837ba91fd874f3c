//! `tokioloop._core`: the loop's hot path over the reactor, as a Python module.
//!
//! - `py/`, `loop_cell.rs`: the layer over CPython
//! - `event_loop/`: the native base class of `TokioLoop`; `handle/`: its callbacks
//! - `transports/`: what protocols talk to
//! - `streams/`: replaces asyncio's streams on top of transports; `tls/`: replaces
//!   parts of its TLS
//! - `sockets/`: the `sock_*` methods
//! - `coroutine/`: what programs await on streams and sockets
//!
//! Python code reaches all of this only through the module's classes and functions.
//!
//! `CONTRIBUTING.md` explains the terms that comments use. `// HOT: name` marks code that
//! runs for every message or callback of the workload `name` in `perf/`.
#![deny(unsafe_code)]

mod coroutine;
mod errors;
mod event_loop;
mod guarded;
mod handle;
mod imports;
mod logging;
mod loop_cell;
mod py;
mod ready;
mod report;
mod sockets;
mod streams;
mod threadsafe_cancel;
mod tls;
mod transports;

use pyo3::prelude::*;

/// How this library was built; `perf/` compares release builds only.
const BUILD_PROFILE: &str = env!("TOKIOLOOP_PROFILE");

/// The extension module.
#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    py::interpreter::require_main(module.py())?;
    #[cfg(all(target_os = "linux", target_env = "gnu", not(Py_3_14)))]
    py::thread_exit::park_instead_of_unwinding();
    logging::install();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("BUILD_PROFILE", BUILD_PROFILE)?;
    module.add_function(wrap_pyfunction!(py::own_methods::own_methods, module)?)?;
    event_loop::add_to_module(module)?;
    streams::add_to_module(module)?;
    transports::add_to_module(module)?;
    tls::add_to_module(module)
}
