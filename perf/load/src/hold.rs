//! Idle connections: opened, used once so that the server has accepted them, then held.
//!
//! Says `{"connected": N}` when all stand and holds them until standard input ends, which it
//! does when the harness closes it or has died.

use std::io::{self, Read, Write};
use std::time::Duration;

use crate::exchange::Echo;
use crate::outcome::Outcome;
use crate::steady::{self, Plan};
use crate::wire::Wire;

/// Uses each wire for one echo and holds all of them.
pub(crate) fn run<W: Wire>(mut wires: Vec<W>, outcome: &mut Outcome) -> io::Result<()> {
    let plan = Plan {
        warm_up: Duration::ZERO,
        duration: Duration::ZERO,
        messages: Some(wires.len() as u64),
        lockstep: true,
        spin: false,
        stall: Duration::from_secs(10),
        servers: Vec::new(),
    };
    steady::run(wires.iter_mut().collect(), Echo::new(FIRST_MESSAGE), &plan, outcome)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{{\"connected\": {}}}", outcome.latency.count())?;
    out.flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(wires);
    Ok(())
}

const FIRST_MESSAGE: usize = 64;
