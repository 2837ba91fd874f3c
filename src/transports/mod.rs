//! Transports: what a protocol talks to.

pub(crate) mod accept;
pub(crate) mod address;
mod batch;
mod begin;
mod buffered;
mod close;
mod common_methods;
pub(crate) mod datagram;
mod descriptor;
mod extra;
mod flow;
pub(crate) mod interior;
mod methods;
mod read;
mod shape;
pub(crate) mod stream;
mod write;

pub(crate) use methods::add_to_module;
