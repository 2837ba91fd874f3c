//! What the states of all kinds of transports have in common.

use std::any::Any;
use std::ffi::CStr;

use tokioloop_reactor::{Address, Token, WaterMarks};

use crate::py::Owned;
use crate::py::native::Visitor;
use crate::transports::descriptor::Descriptor;

/// The state of one kind of transport. Closing, flow control and `get_extra_info` are
/// written once, over the parts that these methods give access to.
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
    /// The token of the transport as a source, until `connection_lost`.
    fn token(&mut self) -> &mut Option<Token>;
    /// The protocol, until `connection_lost`.
    fn protocol(&self) -> Option<&Owned>;
    /// How far the transport's end has come.
    fn stage(&mut self) -> Stage<'_>;
    /// What flow control looks at and changes.
    fn flow(&mut self) -> Flow<'_>;
    /// The server that counts this transport; it is told of the end once.
    fn take_server(&mut self) -> Option<Owned>;
    /// The future of a `sendfile` that is under way; the end of the transport
    /// ends it.
    fn take_sendfile_waiter(&mut self) -> Option<Owned>;
    /// Takes out everything that waits to be sent, for the caller to drop. Corked data
    /// is offered to the kernel first.
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
    /// Counts the loss, once it is scheduled, and the writes after it; 0 before.
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
