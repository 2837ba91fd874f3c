//! Open-loop load: messages are sent when they are due, whether replies come or not.
//!
//! The time of a message counts from when it was due, so a server that stops is charged for
//! every message that was due meanwhile, and not for the one that happened to wait (no
//! coordinated omission). Messages go round the connections and queue up on each; an echo
//! keeps their order, so the oldest one is always answered first.
//!
//! The thread never sleeps: it has a core of its own, and a timer's slack would blur the pace.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use crate::exchange::Fault;
use crate::outcome::Outcome;
use crate::steady::Plan;
use crate::sys::{Epoll, Interest};
use crate::wire::Wire;

/// Sends `rate` messages of `size` bytes per second over the given connections.
pub(crate) fn run<W: Wire>(
    wires: Vec<W>,
    size: usize,
    rate: f64,
    plan: &Plan,
    outcome: &mut Outcome,
) -> io::Result<()> {
    let poll = Epoll::new()?;
    let mut lanes = Vec::with_capacity(wires.len());
    for (token, wire) in wires.into_iter().enumerate() {
        poll.add(wire.fd(), token, Interest::Read)?;
        lanes.push(Lane { wire, due: VecDeque::new(), unsent: 0, received: 0, failed: false });
    }
    if lanes.is_empty() {
        return Ok(());
    }
    let payload = (0..size).map(|index| (index % 251) as u8).collect();
    let buffer = vec![0; READ_BUFFER];
    Paced { lanes, payload, buffer, poll, measured_from: Instant::now() }.run(rate, plan, outcome)
}

/// One connection and the messages that are under way on it.
struct Lane<W> {
    wire: W,
    /// When each unanswered message was due, oldest first.
    due: VecDeque<Instant>,
    /// Bytes of the unanswered messages that the socket has not taken yet.
    unsent: usize,
    /// Bytes of the oldest unanswered message that have come back.
    received: usize,
    failed: bool,
}

struct Paced<W> {
    lanes: Vec<Lane<W>>,
    payload: Vec<u8>,
    buffer: Vec<u8>,
    poll: Epoll,
    /// Messages that were due earlier belong to the warm-up.
    measured_from: Instant,
}

impl<W: Wire> Paced<W> {
    fn run(mut self, rate: f64, plan: &Plan, outcome: &mut Outcome) -> io::Result<()> {
        let begin = Instant::now();
        self.measured_from = begin + plan.warm_up;
        let end = self.measured_from + plan.duration;
        let mut cpu_before = None;
        let mut sent = 0_u64;
        let mut ready = Vec::new();
        loop {
            let now = Instant::now();
            if cpu_before.is_none() && now >= self.measured_from {
                cpu_before = plan.server_cpu();
            }
            if now >= end {
                break;
            }
            let mut due = begin + Duration::from_secs_f64(sent as f64 / rate);
            while due <= now {
                let lane = (sent % self.lanes.len() as u64) as usize;
                self.send(lane, due, outcome);
                sent += 1;
                due = begin + Duration::from_secs_f64(sent as f64 / rate);
            }
            self.receive(&mut ready, outcome)?;
            if self.lanes.iter().all(|lane| lane.failed) {
                break;
            }
        }
        outcome.elapsed = self.measured_from.elapsed();
        outcome.server_cpu =
            cpu_before.zip(plan.server_cpu()).map(|(before, after)| after - before);
        self.drain(&mut ready, outcome)
    }

    /// Waits for the replies that are still out; what never comes is a fault.
    fn drain(mut self, ready: &mut Vec<usize>, outcome: &mut Outcome) -> io::Result<()> {
        let deadline = Instant::now() + DRAIN_TIME;
        while Instant::now() < deadline && self.lanes.iter().any(|lane| !lane.due.is_empty()) {
            self.receive(ready, outcome)?;
        }
        for _ in 0..self.lanes.iter().map(|lane| lane.due.len()).sum() {
            outcome.add_fault(Fault::new("unanswered"));
        }
        Ok(())
    }

    fn send(&mut self, token: usize, due: Instant, outcome: &mut Outcome) {
        let Some(lane) = self.lanes.get_mut(token).filter(|lane| !lane.failed) else { return };
        lane.due.push_back(due);
        lane.unsent += self.payload.len();
        // With a queue before it the socket is full, or was a moment ago.
        if lane.unsent == self.payload.len() {
            let result = lane.push(&self.payload);
            lane.settle(result, outcome);
        }
    }

    fn receive(&mut self, ready: &mut Vec<usize>, outcome: &mut Outcome) -> io::Result<()> {
        self.poll.wait(ready, Duration::ZERO)?;
        for &token in ready.iter() {
            let Some(lane) = self.lanes.get_mut(token).filter(|lane| !lane.failed) else {
                continue;
            };
            let result = lane.pull(&mut self.buffer, &self.payload, self.measured_from, outcome);
            lane.settle(result, outcome);
        }
        for lane in self.lanes.iter_mut().filter(|lane| lane.unsent > 0 && !lane.failed) {
            let result = lane.push(&self.payload);
            lane.settle(result, outcome);
        }
        Ok(())
    }
}

impl<W: Wire> Lane<W> {
    /// Sends what the socket takes of the messages that wait.
    fn push(&mut self, payload: &[u8]) -> Result<(), Fault> {
        while self.unsent > 0 {
            let left = match self.unsent % payload.len() {
                0 => payload.len(),
                left => left,
            };
            let rest = payload.get(payload.len() - left..).unwrap_or_default();
            match self.wire.write(rest) {
                Ok(count) => self.unsent -= count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn pull(
        &mut self,
        buffer: &mut [u8],
        payload: &[u8],
        measured_from: Instant,
        outcome: &mut Outcome,
    ) -> Result<(), Fault> {
        let count = match self.wire.read(buffer) {
            Ok(0) => return Err(Fault::new("connection closed")),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let now = Instant::now();
        let mut bytes = buffer.get(..count).unwrap_or_default();
        while !bytes.is_empty() {
            let step = (payload.len() - self.received).min(bytes.len());
            let (reply, rest) = bytes.split_at(step);
            if payload.get(self.received..self.received + step) != Some(reply) {
                return Err(Fault::new("reply differs"));
            }
            bytes = rest;
            self.received += step;
            if self.received == payload.len() {
                self.received = 0;
                let due = self.due.pop_front().ok_or_else(|| Fault::new("reply too long"))?;
                if due >= measured_from {
                    outcome.latency.record(now.saturating_duration_since(due).as_nanos() as u64);
                }
            }
        }
        Ok(())
    }

    /// Gives a connection up after a fault; its messages count as unanswered in the end.
    fn settle(&mut self, result: Result<(), Fault>, outcome: &mut Outcome) {
        if let Err(fault) = result {
            outcome.add_fault(fault);
            self.failed = true;
        }
    }
}

const READ_BUFFER: usize = 256 * 1024;
/// Longer than any server that keeps up needs for what is under way.
const DRAIN_TIME: Duration = Duration::from_millis(500);
