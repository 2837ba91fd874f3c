//! What is due in this turn of the loop.

use tokioloop_reactor::{Readiness, Token};

use crate::handle::HandleRef;
use crate::py::Owned;

/// One entry of the ready queue. asyncio queues what the poll found after what was
/// there before, so an event is an entry like any callback.
pub(crate) enum Ready {
    /// A callback.
    Handle(HandleRef),
    /// A handle of another class, such as the `asyncio.Handle` of a signal.
    Foreign(Owned),
    /// An event: a source may be read or written.
    Io(Token, Readiness),
}
