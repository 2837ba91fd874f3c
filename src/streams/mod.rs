//! asyncio's streams without interpreted code on the way of the data.
//!
//! If a protocol is asyncio's own `StreamReaderProtocol` with its own `StreamReader`,
//! both unmodified, this module puts data from the socket into the reader's buffer. All
//! state is available under asyncio's attribute names, so that native and interpreted
//! code can take turns on one reader at any point. Everything out of the ordinary is
//! left to asyncio's code.
//!
//! The readers of asyncio's factories and the writers of its servers become instances of
//! subclasses whose coroutine methods are native: awaiting one runs no frame of Python.
//! Their private attributes are descriptors that read native memory.

mod adopt;
mod attributes;
mod buffer;
mod classes;
mod drain;
mod feed;
mod fields;
mod operation;
mod read;
mod reader;
mod serve;
mod slots;
mod state;
mod stock;
mod transport;
mod upgrade;
mod writer;

use pyo3::prelude::*;

pub(crate) use feed::{feed, is_stream_protocol};
pub(crate) use operation::Operation;
pub(crate) use upgrade::upgrade;

/// Records asyncio's classes as they are on import, to notice later changes.
pub(crate) fn add_to_module(module: &Bound<'_, PyModule>) -> PyResult<()> {
    stock::Stock::get(module.py()).map(drop)
}
