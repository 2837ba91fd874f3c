//! What every kind of transport has, whatever else it consists of.

use std::any::Any;
use std::ffi::CStr;

use tokioloop_reactor::{Address, Token, WaterMarks};

use crate::py::Owned;
use crate::py::native::Visitor;
use crate::transports::descriptor::Descriptor;

/// What one kind of transport consists of, and where in it is what all kinds
/// have: closing, flow control and `get_extra_info` are written once over this.
pub(crate) trait Interior: Sized + Any {
    /// Dotted name of the class.
    const CLASS_NAME: &'static CStr;
    /// What its sockets are, `SOCK_STREAM` for example.
    const SOCKET_TYPE: libc::c_int;

    /// Shows every reference to the collector.
    fn traverse(&self, visitor: &mut Visitor);
    /// Takes out what can be part of a cycle, for the caller to drop. The
    /// descriptor stays: it is closed with the object.
    fn release(&mut self) -> Box<dyn Any>;

    /// The one owner of the descriptor.
    fn descriptor(&mut self) -> &mut Descriptor;
    /// The name of the registration, while there is one.
    fn token(&mut self) -> &mut Option<Token>;
    /// Whom the transport talks to, until the end.
    fn protocol(&self) -> Option<&Owned>;
    /// Where the transport has got to in its life.
    fn stage(&mut self) -> Stage<'_>;
    /// What flow control looks at and changes.
    fn flow(&mut self) -> Flow<'_>;
    /// The server that counts this transport; it is told of the end once.
    fn take_server(&mut self) -> Option<Owned>;
    /// The future of a `sendfile` that is under way; the end of the transport
    /// ends it.
    fn take_sendfile_waiter(&mut self) -> Option<Owned>;
    /// Takes everything out that waits to be sent, with what belongs to it; what
    /// only a cork holds back is offered to the kernel first.
    fn drop_unsent(&mut self) -> Box<dyn Any>;
    /// The peer's address, where the socket has one.
    fn peer(&self) -> Option<Address>;
    /// The socket's own address.
    fn local(&self) -> Option<Address>;
}

/// The end of a transport's life, step by step.
pub(crate) struct Stage<'a> {
    /// `close` or something like it was called.
    pub(crate) closing: &'a mut bool,
    /// connection_lost has been called.
    pub(crate) finished: &'a mut bool,
    /// Whether the loss was scheduled, and writes after it.
    pub(crate) lost: &'a mut u32,
}

/// A transport's write buffer as flow control sees it.
pub(crate) struct Flow<'a> {
    pub(crate) marks: &'a mut WaterMarks,
    /// `pause_writing` was called on the protocol.
    pub(crate) paused: &'a mut bool,
    /// How many bytes wait.
    pub(crate) size: usize,
}
