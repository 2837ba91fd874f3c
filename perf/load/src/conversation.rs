//! One connection's requests and replies, one at a time, without blocking.

use std::io::{self, ErrorKind};
use std::time::Instant;

use crate::exchange::{Exchange, Fault, Stamp};
use crate::wire::Wire;

/// A connection that sends a request, reads its reply, and is then ready for the next.
pub(crate) struct Conversation<W, E: Exchange> {
    pub(crate) wire: W,
    stamp: Stamp,
    sent: usize,
    complete: bool,
    reply: E::Reply,
    started: Instant,
}

/// What a call to `advance` has left the conversation waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The reply is complete; nothing is in flight.
    Replied,
    /// Only the server can move on.
    Reading,
    /// The socket has no room; wait for it to become writable.
    Writing,
}

impl<W: Wire, E: Exchange> Conversation<W, E> {
    pub(crate) fn new(wire: W, connection: u32, now: Instant) -> Self {
        let stamp = Stamp { connection, sequence: 0 };
        Self { wire, stamp, sent: 0, complete: true, reply: E::Reply::default(), started: now }
    }

    /// Starts the next request and sends what the socket takes.
    pub(crate) fn begin(&mut self, exchange: &mut E, now: Instant) -> Result<Progress, Fault> {
        self.stamp.sequence = self.stamp.sequence.wrapping_add(1);
        self.restart(exchange, now)
    }

    /// Sends the current request again, as a datagram that was lost needs.
    pub(crate) fn restart(&mut self, exchange: &mut E, now: Instant) -> Result<Progress, Fault> {
        self.sent = 0;
        self.complete = false;
        self.reply = E::Reply::default();
        self.started = now;
        self.push(exchange)
    }

    /// Moves on after a readiness event.
    pub(crate) fn advance(
        &mut self,
        exchange: &mut E,
        buffer: &mut [u8],
    ) -> Result<Progress, Fault> {
        let writing = self.push(exchange)?;
        loop {
            let count = match self.wire.read(buffer) {
                Ok(0) => return Err(Fault::new("connection closed")),
                Ok(count) => count,
                Err(error) if is_transient(&error) => return Ok(writing),
                Err(error) => return Err(error.into()),
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            if self.complete {
                return Err(Fault::new("reply too long"));
            }
            if exchange.receive(self.stamp, &mut self.reply, bytes)? {
                self.complete = true;
                return Ok(Progress::Replied);
            }
            // A short read has emptied the socket; the poll tells about later bytes.
            if count < buffer.len() && !self.wire.buffers_input() {
                return Ok(writing);
            }
        }
    }

    /// When the current request was started.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Whether a reply is still missing.
    pub(crate) fn in_flight(&self) -> bool {
        !self.complete
    }

    fn blocked(&self) -> Progress {
        if self.wire.waits_for_room() { Progress::Writing } else { Progress::Reading }
    }

    fn push(&mut self, exchange: &mut E) -> Result<Progress, Fault> {
        if !self.complete {
            let request = exchange.request(self.stamp);
            while let Some(rest) = request.get(self.sent..).filter(|rest| !rest.is_empty()) {
                match self.wire.write(rest) {
                    Ok(count) => self.sent += count,
                    Err(error) if is_transient(&error) => return Ok(self.blocked()),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if self.wire.has_backlog() {
            match self.wire.flush() {
                Ok(()) => {}
                Err(error) if is_transient(&error) => return Ok(Progress::Writing),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Progress::Reading)
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
