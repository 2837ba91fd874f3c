//! The `sock_*` methods of the loop, without interpreted code.
//!
//! A call tries the socket at once, as asyncio does, and waits only if the socket is not
//! ready. After a wait the socket is kept: it stays in the poll between calls,
//! edge-triggered, and a call that is known to find nothing makes no system call.
//! Everything out of the ordinary (other classes than `socket.socket`, blocking sockets,
//! descriptors with readers or transports) is left to the coroutines of the running
//! CPython.

mod attempt;
mod call;
mod connect;
mod fields;
mod interpreted;
mod keeping;
mod kept;
mod methods;
mod stock;

pub(crate) use call::Call;
pub(crate) use fields::SharedSocket;
pub(crate) use keeping::{Keeping, Waiting, displace, make_way, on_event, waits, wake};
pub(crate) use kept::Kept;
pub(crate) use methods::install;
