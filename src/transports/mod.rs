//! Transports: what a protocol talks to.

pub(crate) mod accept;
pub(crate) mod address;
mod batch;
mod begin;
mod buffered;
pub(crate) mod claim;
mod clients;
mod close;
mod common_methods;
mod cork;
pub(crate) mod datagram;
mod debug_log;
mod descriptor;
mod extra;
mod finalizer;
mod flow;
mod flush;
pub(crate) mod interior;
mod methods;
mod read;
mod records;
mod sendfile;
pub(crate) mod shape;
pub(crate) mod stream;
pub(crate) mod write;

pub(crate) use common_methods::on_loop;
pub(crate) use methods::{add_to_module, check_class, has_lost, write_slice_to, write_to};
