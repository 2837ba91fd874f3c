//! Closed-loop load: every connection sends its next request as soon as it has its reply.
//!
//! In lockstep, a connection that has its reply waits for all others first; then every
//! server sees the same batches, however slow a tracer makes it.
//!
//! One thread, one epoll set. A run ends by time or by a number of messages, and always:
//! connections that fail are counted and dropped, ones that hear nothing for the stall
//! limit are counted as stalled, and when none is left that could move, the run is over.

use std::io;
use std::time::{Duration, Instant};

use crate::conversation::{Conversation, Progress};
use crate::exchange::{Exchange, Fault};
use crate::outcome::Outcome;
use crate::sys::{CpuClock, Epoll, Interest};
use crate::wire::Wire;

/// How long a run lasts and what is watched.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Twice this where the host is watched.
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    /// Exactly so many messages instead of a duration; there is no warm-up then.
    pub(crate) messages: Option<u64>,
    /// Whether all connections send together, once the last of them has its reply.
    pub(crate) lockstep: bool,
    /// Whether the client asks for replies all the time instead of sleeping until
    /// one comes: it answers sooner than the kernel could wake it.
    pub(crate) spin: bool,
    /// Silence after which a connection counts as stalled.
    pub(crate) stall: Duration,
    /// The processes whose CPU time counts.
    pub(crate) servers: Vec<CpuClock>,
}

impl Plan {
    /// What the servers have used so far, if there are any and none has gone.
    pub(crate) fn server_cpu(&self) -> Option<Duration> {
        let times = self.servers.iter().map(|clock| clock.read().ok());
        times.sum::<Option<Duration>>().filter(|_| !self.servers.is_empty())
    }
}

/// Runs the plan over the given connections.
pub(crate) fn run<W: Wire, E: Exchange>(
    wires: Vec<W>,
    exchange: E,
    plan: &Plan,
    outcome: &mut Outcome,
) -> io::Result<()> {
    Steady::new(wires, exchange, plan)?.run(outcome)
}

struct Slot<W, E: Exchange> {
    /// None once the connection has failed.
    talk: Option<Conversation<W, E>>,
    interest: Interest,
    stalled: bool,
}

struct Steady<'a, W, E: Exchange> {
    plan: &'a Plan,
    poll: Epoll,
    slots: Vec<Slot<W, E>>,
    exchange: E,
    /// Messages that may still be started.
    budget: u64,
    buffer: Vec<u8>,
}

impl<'a, W: Wire, E: Exchange> Steady<'a, W, E> {
    fn new(wires: Vec<W>, exchange: E, plan: &'a Plan) -> io::Result<Self> {
        let poll = Epoll::new()?;
        let now = Instant::now();
        let mut slots = Vec::with_capacity(wires.len());
        for (token, wire) in wires.into_iter().enumerate() {
            poll.add(wire.fd(), token, Interest::Read)?;
            let talk = Some(Conversation::new(wire, token as u32, now));
            slots.push(Slot { talk, interest: Interest::Read, stalled: false });
        }
        let budget = plan.messages.unwrap_or(u64::MAX);
        Ok(Self { plan, poll, slots, exchange, budget, buffer: vec![0; READ_BUFFER] })
    }

    fn run(mut self, outcome: &mut Outcome) -> io::Result<()> {
        let mut begin = Instant::now();
        let mut cpu_before = self.plan.server_cpu();
        let mut warm = self.plan.messages.is_some() || self.plan.warm_up.is_zero();
        let mut next_check = begin + self.check_interval();
        self.start_all(outcome);
        let mut ready = Vec::new();
        while self.is_alive() {
            let patience = if self.plan.spin { Duration::ZERO } else { self.check_interval() };
            self.poll.wait(&mut ready, patience)?;
            for &token in &ready {
                self.advance(token, outcome);
            }
            if self.plan.lockstep && !self.is_alive() {
                self.start_all(outcome);
            }
            let now = Instant::now();
            if !warm && now - begin >= self.plan.warm_up {
                warm = outcome.end_warm_up()?;
                cpu_before = self.plan.server_cpu();
                begin = Instant::now();
            }
            if warm && self.plan.messages.is_none() && now - begin >= self.plan.duration {
                break;
            }
            if now >= next_check {
                self.look_for_stalls(now, outcome);
                next_check = now + self.check_interval();
            }
        }
        outcome.elapsed = begin.elapsed();
        outcome.server_cpu =
            cpu_before.zip(self.plan.server_cpu()).map(|(before, after)| after - before);
        Ok(())
    }

    /// Whether any connection has a request under way that may still be answered.
    fn is_alive(&self) -> bool {
        self.slots
            .iter()
            .any(|slot| !slot.stalled && slot.talk.as_ref().is_some_and(Conversation::in_flight))
    }

    fn start_all(&mut self, outcome: &mut Outcome) {
        for token in 0..self.slots.len() {
            self.start_next(token, Instant::now(), outcome);
        }
    }

    fn advance(&mut self, token: usize, outcome: &mut Outcome) {
        let Some(slot) = self.slots.get_mut(token) else { return };
        let Some(talk) = slot.talk.as_mut() else { return };
        slot.stalled = false;
        match talk.advance(&mut self.exchange, &mut self.buffer) {
            Ok(Progress::Replied) => {
                let now = Instant::now();
                outcome.latency.record((now - talk.started()).as_nanos() as u64);
                if self.plan.lockstep {
                    self.settle(token, Ok(Progress::Replied), outcome);
                } else {
                    self.start_next(token, now, outcome);
                }
            }
            progress => self.settle(token, progress, outcome),
        }
    }

    fn start_next(&mut self, token: usize, now: Instant, outcome: &mut Outcome) {
        if self.budget == 0 {
            return self.settle(token, Ok(Progress::Reading), outcome);
        }
        let Some(talk) = self.slots.get_mut(token).and_then(|slot| slot.talk.as_mut()) else {
            return;
        };
        self.budget -= 1;
        let progress = talk.begin(&mut self.exchange, now);
        self.settle(token, progress, outcome);
    }

    /// Waits for what the connection needs next, or drops it after a fault.
    fn settle(&mut self, token: usize, progress: Result<Progress, Fault>, outcome: &mut Outcome) {
        let Some(slot) = self.slots.get_mut(token) else { return };
        let Some(talk) = slot.talk.as_ref() else { return };
        let result = progress.and_then(|progress| {
            let wanted = match progress {
                Progress::Writing => Interest::ReadWrite,
                Progress::Reading | Progress::Replied => Interest::Read,
            };
            if wanted != slot.interest {
                self.poll.modify(talk.wire.fd(), token, wanted)?;
                slot.interest = wanted;
            }
            Ok(())
        });
        if let Err(fault) = result {
            outcome.add_fault(fault);
            slot.talk = None;
        }
    }

    fn look_for_stalls(&mut self, now: Instant, outcome: &mut Outcome) {
        for token in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(token) else { continue };
            let Some(talk) = slot.talk.as_mut().filter(|talk| talk.in_flight()) else { continue };
            let silence = now.saturating_duration_since(talk.started());
            if talk.wire.may_lose() && silence >= RESEND_AFTER && silence < self.plan.stall {
                outcome.add_fault(Fault::new("lost"));
                let progress = talk.restart(&mut self.exchange, now);
                self.settle(token, progress, outcome);
            } else if silence >= self.plan.stall && !slot.stalled {
                slot.stalled = true;
                outcome.stalls += 1;
            }
        }
    }

    fn check_interval(&self) -> Duration {
        CHECK_INTERVAL.min(self.plan.stall)
    }
}

/// Larger than any message, so that a reply usually needs one read.
const READ_BUFFER: usize = 256 * 1024;
/// How often stalled connections are looked for.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// On loopback a datagram that has not been answered by then was dropped.
const RESEND_AFTER: Duration = Duration::from_millis(250);
