//! Flow control: `pause_writing` and `resume_writing` on the protocol, and writable events
//! that an exception has kept from being served.

use pyo3::intern;
use pyo3::prelude::*;
use tokioloop_reactor::Readiness;

use crate::event_loop::{Inside, This};
use crate::py::{Owned, call};
use crate::ready::Ready;
use crate::transports::close;
use crate::transports::interior::Interior;
use crate::transports::shape::{Transport, TransportRef};

/// Calls `pause_writing` when the queue has passed its high mark.
pub(crate) fn maybe_pause_protocol<I: Interior>(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &Transport<I>,
) -> PyResult<()> {
    let protocol = transport.with(inside, |inner| {
        let flow = inner.flow();
        if *flow.paused || !flow.marks.should_pause(flow.size) {
            return None;
        }
        *flow.paused = true;
        inner.protocol().map(|protocol| protocol.clone_ref(py))
    });
    match protocol {
        Some(protocol) => {
            let result = call::method(py, &protocol, intern!(py, "pause_writing"), []);
            let message = "protocol.pause_writing() failed";
            report(py, this, transport, &protocol, result, message)
        }
        None => Ok(()),
    }
}

/// Calls `resume_writing` when the queue has fallen to its low mark.
pub(crate) fn maybe_resume_protocol<I: Interior>(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    transport: &Transport<I>,
) -> PyResult<()> {
    let protocol = transport.with(inside, |inner| {
        let flow = inner.flow();
        if !*flow.paused || !flow.marks.should_resume(flow.size) {
            return None;
        }
        *flow.paused = false;
        inner.protocol().map(|protocol| protocol.clone_ref(py))
    });
    match protocol {
        Some(protocol) => {
            let result = call::method(py, &protocol, intern!(py, "resume_writing"), []);
            let message = "protocol.resume_writing() failed";
            report(py, this, transport, &protocol, result, message)
        }
        None => Ok(()),
    }
}

/// A failing flow-control callback is reported, and the connection goes on.
fn report<I: Interior>(
    py: Python<'_>,
    this: This<'_>,
    transport: &Transport<I>,
    protocol: &Owned,
    result: PyResult<Owned>,
    message: &str,
) -> PyResult<()> {
    let Err(error) = result else { return Ok(()) };
    if crate::report::leaves_loop(py, &error) {
        return Err(error);
    }
    close::report(py, this, &transport.reference(), Some(protocol), error, message)
}

/// An exception ends the run after the readable half of an event: queues the writable half,
/// if there is one, for the next run.
#[cold]
pub(crate) fn leave_writing<I: Interior>(
    inside: &Inside<'_>,
    transport: &TransportRef<I>,
    ready: Readiness,
) {
    let token = transport.get().with(inside, |inner| *inner.token());
    if let Some(token) = token.filter(|_| ready.writable()) {
        inside.with(|state| state.ready.push_front(Ready::Io(token, Readiness::WRITABLE)));
    }
}
