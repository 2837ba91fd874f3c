//! The poll loop under tokioloop, usable without Python.
//!
//! One thread owns a [`Poller`], its [`Timers`], the [`Sources`] that events
//! belong to and the [`ReadRing`] that data is received into. Other threads
//! reach it only through an [`Inbox`] and the poller's waker. The layer above
//! decides what a turn does with these parts.
#![deny(missing_docs, missing_debug_implementations)]
#![deny(unsafe_code)]

mod address;
pub mod clock;
pub mod datagram;
mod inbox;
mod interest;
pub mod listener;
mod poller;
mod raw_address;
mod read_ring;
mod readiness;
pub mod socket;
pub mod stream;
pub mod sys;
mod timers;
mod token;
mod water_marks;
mod write_queue;

pub use address::Address;
pub use inbox::Inbox;
pub use interest::Interest;
pub use mio::Waker;
pub use poller::{Poller, Timeout};
pub use raw_address::RawAddress;
pub use read_ring::{READ_RING_BYTES, ReadRing};
pub use readiness::Readiness;
pub use timers::{TimerKey, Timers};
pub use token::{Sources, Token};
pub use water_marks::{InvalidMarks, WaterMarks};
pub use write_queue::WriteQueue;
