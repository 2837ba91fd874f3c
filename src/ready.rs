//! What is due in this turn of the loop.

use tokioloop_reactor::{Readiness, Token};

use crate::handle::HandleRef;
use crate::py::Owned;

/// One entry of the ready queue. asyncio queues what the poll found behind
/// what was there before, so readiness is an entry like any callback.
pub(crate) enum Ready {
    /// A callback.
    Handle(HandleRef),
    /// A handle that another class made: `asyncio.Handle` of a signal.
    Foreign(Owned),
    /// A source may be read or written.
    Io(Token, Readiness),
}
