//! Connections that come and go: connect, exchange one message, reset, again.
//!
//! A fixed number is under way at any time. The reset (a close with zero linger) keeps the
//! ports from piling up in TIME_WAIT and gives the server its least favourable goodbye.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::conversation::{Conversation, Progress};
use crate::exchange::{Exchange, Fault};
use crate::outcome::Outcome;
use crate::steady::Plan;
use crate::sys::{Epoll, Interest};
use crate::wire::Wire;

/// Keeps `count` connections in the making or in use until the plan ends.
///
/// `wrap` turns a connected stream into the wire that the message travels over.
pub(crate) fn run<W: Wire, E: Exchange>(
    address: SocketAddr,
    count: u32,
    exchange: E,
    wrap: impl Fn(TcpStream) -> io::Result<W>,
    plan: &Plan,
    outcome: &mut Outcome,
) -> io::Result<()> {
    let poll = Epoll::new()?;
    let buffer = vec![0; READ_BUFFER];
    let left = plan.messages.unwrap_or(u64::MAX);
    let mut churn = Churn { address, exchange, wrap, poll, buffer, slots: Vec::new(), left };
    churn.run(count, plan, outcome)
}

enum Stage<W, E: Exchange> {
    Connecting(TcpStream),
    Talking(Conversation<W, E>),
    /// Could not even be opened; tried again with the next check.
    Failed,
    Stalled,
    /// Nothing is left to be sent.
    Finished,
}

struct Slot<W, E: Exchange> {
    stage: Stage<W, E>,
    started: Instant,
    interest: Interest,
}

struct Churn<W, E: Exchange, F> {
    address: SocketAddr,
    exchange: E,
    wrap: F,
    poll: Epoll,
    buffer: Vec<u8>,
    slots: Vec<Slot<W, E>>,
    /// Messages that no connection has been opened for yet.
    left: u64,
}

impl<W: Wire, E: Exchange, F: Fn(TcpStream) -> io::Result<W>> Churn<W, E, F> {
    fn run(&mut self, count: u32, plan: &Plan, outcome: &mut Outcome) -> io::Result<()> {
        let mut begin = Instant::now();
        let mut cpu_before = plan.server_cpu();
        let mut warm = plan.messages.is_some() || plan.warm_up.is_zero();
        let mut next_check = begin + CHECK_INTERVAL;
        for token in 0..count as usize {
            let slot = self.next(token, outcome);
            self.slots.push(slot);
        }
        let mut ready = Vec::new();
        let over = |stage: &_| matches!(stage, Stage::Stalled | Stage::Finished);
        while self.slots.iter().any(|slot| !over(&slot.stage)) {
            self.poll.wait(&mut ready, CHECK_INTERVAL)?;
            for &token in &ready {
                self.advance(token, outcome);
            }
            let now = Instant::now();
            if !warm && now - begin >= plan.warm_up {
                warm = outcome.end_warm_up()?;
                cpu_before = plan.server_cpu();
                begin = Instant::now();
            }
            if warm && plan.messages.is_none() && now - begin >= plan.duration {
                break;
            }
            if now >= next_check {
                self.check(now, plan.stall, outcome);
                next_check = now + CHECK_INTERVAL;
            }
        }
        outcome.elapsed = begin.elapsed();
        outcome.server_cpu =
            cpu_before.zip(plan.server_cpu()).map(|(before, after)| after - before);
        Ok(())
    }

    /// A connection for the next message, while there is one.
    fn next(&mut self, token: usize, outcome: &mut Outcome) -> Slot<W, E> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                self.open(token, outcome)
            }
            None => Slot {
                stage: Stage::Finished,
                started: Instant::now(),
                interest: Interest::ReadWrite,
            },
        }
    }

    fn open(&mut self, token: usize, outcome: &mut Outcome) -> Slot<W, E> {
        let started = Instant::now();
        let interest = Interest::ReadWrite;
        let opened = connect(self.address).and_then(|stream| {
            self.poll.add(stream.as_fd(), token, interest)?;
            Ok(stream)
        });
        let stage = match opened {
            Ok(stream) => Stage::Connecting(stream),
            Err(error) => {
                outcome.add_fault(Fault(format!("connect: {:?}", error.kind())));
                Stage::Failed
            }
        };
        Slot { stage, started, interest }
    }

    fn advance(&mut self, token: usize, outcome: &mut Outcome) {
        let Some(slot) = self.slots.get_mut(token) else { return };
        let stage = std::mem::replace(&mut slot.stage, Stage::Failed);
        let (result, started) = (self.step(token, stage), self.started(token));
        let stage = match result {
            Ok(Some(stage)) => stage,
            Ok(None) => {
                outcome.latency.record(started.elapsed().as_nanos() as u64);
                let slot = self.next(token, outcome);
                return self.replace(token, slot);
            }
            Err(fault) => {
                outcome.add_fault(fault);
                Stage::Failed
            }
        };
        if let Some(slot) = self.slots.get_mut(token) {
            slot.stage = stage;
        }
    }

    /// Moves one connection on; None once its message has come back.
    fn step(&mut self, token: usize, stage: Stage<W, E>) -> Result<Option<Stage<W, E>>, Fault> {
        let (talk, progress) = match stage {
            Stage::Connecting(stream) => {
                if let Some(error) = stream.take_error()? {
                    return Err(Fault(format!("connect: {:?}", error.kind())));
                }
                let wire = (self.wrap)(stream)?;
                let mut talk = Conversation::new(wire, token as u32, Instant::now());
                let progress = talk.begin(&mut self.exchange, Instant::now())?;
                (talk, progress)
            }
            Stage::Talking(mut talk) => {
                let progress = talk.advance(&mut self.exchange, &mut self.buffer)?;
                (talk, progress)
            }
            other => return Ok(Some(other)),
        };
        let wanted = match progress {
            Progress::Replied => {
                reset(&talk.wire)?;
                return Ok(None);
            }
            Progress::Writing => Interest::ReadWrite,
            Progress::Reading => Interest::Read,
        };
        if let Some(slot) = self.slots.get_mut(token).filter(|slot| slot.interest != wanted) {
            self.poll.modify(talk.wire.fd(), token, wanted)?;
            slot.interest = wanted;
        }
        Ok(Some(Stage::Talking(talk)))
    }

    fn check(&mut self, now: Instant, stall: Duration, outcome: &mut Outcome) {
        for token in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(token) else { continue };
            match slot.stage {
                Stage::Failed => {
                    let slot = self.open(token, outcome);
                    self.replace(token, slot);
                }
                Stage::Stalled | Stage::Finished => {}
                _ if now.saturating_duration_since(slot.started) >= stall => {
                    slot.stage = Stage::Stalled;
                    outcome.stalls += 1;
                }
                _ => {}
            }
        }
    }

    fn started(&self, token: usize) -> Instant {
        self.slots.get(token).map_or_else(Instant::now, |slot| slot.started)
    }

    fn replace(&mut self, token: usize, slot: Slot<W, E>) {
        if let Some(place) = self.slots.get_mut(token) {
            *place = slot;
        }
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// Makes the close that follows a reset.
fn reset(wire: &impl Wire) -> io::Result<()> {
    SockRef::from(&wire.fd()).set_linger(Some(Duration::ZERO))
}

const READ_BUFFER: usize = 64 * 1024;
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
