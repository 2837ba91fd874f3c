//! asyncio's streams without the interpreter in between.
//!
//! Where a protocol is asyncio's own `StreamReaderProtocol` over its own
//! `StreamReader`, and nobody has changed either, data goes from the socket
//! into the reader's buffer from here. All state is found in the attributes that
//! asyncio keeps it in, under the same names, so that native and interpreted
//! code can take turns on one reader at any point. Whatever is out of the
//! ordinary is left to asyncio's code.
//!
//! Readers of asyncio's factories, and the writers of its servers, are instances of
//! subclasses whose coroutine methods are native: awaiting one costs no frame. The
//! attributes of those are the class's descriptors of native memory.

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

/// Notes asyncio's classes before users can have changed them.
pub(crate) fn add_to_module(module: &Bound<'_, PyModule>) -> PyResult<()> {
    stock::Stock::get(module.py()).map(drop)
}
