//! Transports: what a protocol talks to.

pub(crate) mod accept;
pub(crate) mod address;
mod close;
mod common_methods;
mod descriptor;
mod extra;
mod flow;
mod interior;
mod methods;
mod read;
mod shape;
pub(crate) mod stream;
mod write;

pub(crate) use methods::add_to_module;
