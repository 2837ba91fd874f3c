//! asyncio's streams without the interpreter in between.
//!
//! Where a protocol is asyncio's own `StreamReaderProtocol` over its own
//! `StreamReader`, and nobody has changed either, data goes from the socket
//! into the reader's buffer from here. All state stays in the attributes that
//! asyncio keeps it in, under the same names, so that native and interpreted
//! code can take turns on one reader at any point. Whatever is out of the
//! ordinary is left to asyncio's code.

mod attributes;
mod feed;
mod stock;

use pyo3::prelude::*;

pub(crate) use feed::{feed, is_stream_protocol};

/// Notes asyncio's classes before users can have changed them.
pub(crate) fn add_to_module(module: &Bound<'_, PyModule>) -> PyResult<()> {
    stock::Stock::get(module.py()).map(drop)
}
