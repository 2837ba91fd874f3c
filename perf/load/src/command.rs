//! The command line: what to measure, against which server.

use std::error::Error;
use std::io;
use std::time::Duration;

use pico_args::Arguments;

use crate::exchange::{Echo, Exchange, Fault};
use crate::limit;
use crate::outcome::Outcome;
use crate::steady::{self, Plan};
use crate::sys::{self, CpuClock};
use crate::target::Target;
use crate::wire::{self, Datagrams};

/// Runs the sub-command that the arguments name.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = Arguments::from_env();
    if arguments.contains(["-h", "--help"]) {
        println!("{USAGE}");
        return Ok(());
    }
    let command = arguments.subcommand()?;
    if let Some(core) = arguments.opt_value_from_str("--core")? {
        sys::pin_to_core(core)?;
    }
    sys::raise_file_limit()?;
    match command.as_deref() {
        Some("client") => client(arguments),
        Some("limit") => {
            let target = target(&mut arguments)?;
            finish(arguments)?;
            Ok(limit::serve(&target)?)
        }
        _ => Err(USAGE.into()),
    }
}

fn client(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let target = target(&mut arguments)?;
    let connections: u32 = arguments.opt_value_from_str("--connections")?.unwrap_or(32);
    let size: usize = arguments.opt_value_from_str("--size")?.unwrap_or(1024);
    let plan = plan(&mut arguments)?;
    finish(arguments)?;
    if connections == 0 || size == 0 {
        return Err("--connections and --size must be positive".into());
    }
    let mut outcome = Outcome::new();
    talk(&target, connections, Echo::new(size), &plan, &mut outcome)?;
    println!("{}", outcome.to_json());
    Ok(())
}

fn talk<E: Exchange>(
    target: &Target,
    connections: u32,
    exchange: E,
    plan: &Plan,
    outcome: &mut Outcome,
) -> io::Result<()> {
    match target {
        Target::Tcp(address) => {
            let wires = open(connections, outcome, || wire::connect_tcp(*address));
            steady::run(wires, exchange, plan, outcome)
        }
        Target::Unix(path) => {
            let wires = open(connections, outcome, || wire::connect_unix(path));
            steady::run(wires, exchange, plan, outcome)
        }
        Target::Udp(address) => {
            let wires = open(connections, outcome, || Datagrams::connect(*address));
            steady::run(wires, exchange, plan, outcome)
        }
    }
}

/// Opens the connections; after the first that fails, the run goes on with those that stand.
fn open<W>(
    count: u32,
    outcome: &mut Outcome,
    mut connect: impl FnMut() -> io::Result<W>,
) -> Vec<W> {
    let mut wires = Vec::new();
    for _ in 0..count {
        match connect() {
            Ok(wire) => wires.push(wire),
            Err(error) => {
                outcome.add_fault(Fault(format!("connect: {:?}", error.kind())));
                break;
            }
        }
    }
    wires
}

fn plan(arguments: &mut Arguments) -> Result<Plan, Box<dyn Error>> {
    let seconds =
        |value: Option<f64>, default: f64| Duration::try_from_secs_f64(value.unwrap_or(default));
    Ok(Plan {
        warm_up: seconds(arguments.opt_value_from_str("--warm-up")?, 0.2)?,
        duration: seconds(arguments.opt_value_from_str("--seconds")?, 1.0)?,
        messages: arguments.opt_value_from_str("--messages")?,
        lockstep: arguments.contains("--lockstep"),
        stall: seconds(arguments.opt_value_from_str("--stall")?, 2.0)?,
        server: match arguments.opt_value_from_str("--server-pid")? {
            Some(pid) => Some(CpuClock::of_process(pid)?),
            None => None,
        },
    })
}

fn target(arguments: &mut Arguments) -> Result<Target, Box<dyn Error>> {
    Ok(arguments.value_from_str("--target")?)
}

/// A mistyped option is an error, never a silently different benchmark.
fn finish(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    match arguments.finish().as_slice() {
        [] => Ok(()),
        rest => Err(format!("unknown arguments: {rest:?}").into()),
    }
}

const USAGE: &str = "\
usage:
  tokioloop-load client --target TARGET [--connections 32] [--size 1024]
                        [--warm-up 0.2] [--seconds 1 | --messages N] [--lockstep]
                        [--stall 2] [--server-pid PID] [--core N]
  tokioloop-load limit  --target TARGET [--core N]

TARGET is HOST:PORT, udp:HOST:PORT or unix:PATH. `client` prints its figures as one
JSON object (times in seconds); `limit` prints its address as one and then serves.";
