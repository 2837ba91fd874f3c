//! What asyncio's transports log in debug mode.

use pyo3::prelude::*;

use crate::event_loop::This;
use crate::imports::Imports;
use crate::transports::interior::Interior;
use crate::transports::shape::Transport;

/// In debug mode, logs `text`, whose `%r` becomes the transport.
pub(crate) fn tell<I: Interior>(
    py: Python<'_>,
    this: This<'_>,
    transport: &Transport<I>,
    text: &str,
) -> PyResult<()> {
    if this.event_loop.debug() {
        let logger = Imports::get(py)?.logger.bind(py);
        let transport = transport.reference();
        logger.call_method1("debug", (text, transport.object().bind(py)))?;
    }
    Ok(())
}
