//! The command line: what to measure, against which server.

use std::error::Error;
use std::io;
use std::time::{Duration, TryFromFloatSecsError};

use pico_args::Arguments;

use crate::exchange::{Echo, Exchange, Fault};
use crate::http::Http;
use crate::outcome::Outcome;
use crate::steady::{self, Plan};
use crate::surroundings::{Neighbour, Range, Wanted, Watch};
use crate::sys::{self, CpuClock};
use crate::target::Target;
use crate::tls::TlsClient;
use crate::wire::{self, Datagrams, Wire};
use crate::{churn, hold, limit, paced};

/// Runs the sub-command that the arguments name.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = Arguments::from_env();
    if arguments.contains(["-h", "--help"]) {
        println!("{USAGE}");
        return Ok(());
    }
    let command = arguments.subcommand()?;
    let core: Option<usize> = arguments.opt_value_from_str("--core")?;
    if let Some(core) = core {
        sys::pin_to_core(core)?;
    }
    let neighbour = neighbour(&mut arguments, core)?;
    sys::raise_file_limit()?;
    match command.as_deref() {
        Some("client") => measure(arguments, Pattern::Steady, neighbour),
        Some("churn") => measure(arguments, Pattern::Churn, neighbour),
        Some("paced") => paced(arguments, neighbour),
        Some("survey") => {
            let seconds = seconds(arguments.opt_value_from_str("--seconds")?, 1.0)?;
            finish(arguments)?;
            let neighbour = neighbour.ok_or("survey needs --core and --server-core")?;
            let found = neighbour.survey(seconds)?;
            let distances: Vec<f64> = found.iter().map(|look| look.distance).collect();
            let paces: Vec<f64> = found.iter().map(|look| look.pace).collect();
            println!("{{\"distances\": {distances:.1?}, \"paces\": {paces:.1?}}}");
            Ok(())
        }
        Some("hold") => {
            let target: Target = arguments.value_from_str("--target")?;
            let connections = connections(&mut arguments)?;
            finish(arguments)?;
            Ok(keep_open(&target, connections)?)
        }
        Some("limit") => {
            let target = arguments.value_from_str("--target")?;
            finish(arguments)?;
            Ok(limit::serve(&target)?)
        }
        _ => Err(USAGE.into()),
    }
}

/// How connections are used.
#[derive(Clone, Copy)]
enum Pattern {
    /// All are opened first and carry message after message.
    Steady,
    /// Each carries one message and is replaced.
    Churn,
}

struct Job {
    target: Target,
    connections: u32,
    tls: Option<TlsClient>,
    pattern: Pattern,
    plan: Plan,
}

fn measure(
    mut arguments: Arguments,
    pattern: Pattern,
    neighbour: Option<Neighbour>,
) -> Result<(), Box<dyn Error>> {
    let path: Option<String> = arguments.opt_value_from_str("--http")?;
    let size: usize = arguments.opt_value_from_str("--size")?.unwrap_or(1024);
    let job = Job {
        target: arguments.value_from_str("--target")?,
        connections: connections(&mut arguments)?,
        tls: if arguments.contains("--tls") { Some(TlsClient::new()?) } else { None },
        pattern,
        plan: plan(&mut arguments)?,
    };
    finish(arguments)?;
    if path.is_none() && size == 0 {
        return Err("--size must be positive".into());
    }
    beside(neighbour, |outcome| match path {
        Some(path) => job.run(Http::new(&path), outcome),
        None => job.run(Echo::new(size), outcome),
    })
}

/// Runs a measurement and prints its outcome, and whether the host left the cores alone.
fn beside(
    neighbour: Option<Neighbour>,
    run: impl FnOnce(&mut Outcome) -> io::Result<()>,
) -> Result<(), Box<dyn Error>> {
    let mut outcome = Outcome::new();
    outcome.watch = neighbour.map(Watch::begin).transpose()?;
    run(&mut outcome)?;
    outcome.look_around()?;
    println!("{}", outcome.to_json());
    Ok(())
}

impl Job {
    fn run<E: Exchange>(&self, exchange: E, outcome: &mut Outcome) -> io::Result<()> {
        match (&self.target, &self.tls, self.pattern) {
            (Target::Tcp(address), None, Pattern::Steady) => {
                self.steady(exchange, outcome, || wire::connect_tcp(*address))
            }
            (Target::Tcp(address), Some(tls), Pattern::Steady) => {
                self.steady(exchange, outcome, || tls.wrap(wire::connect_tcp(*address)?))
            }
            (Target::Tcp(address), None, Pattern::Churn) => {
                churn::run(*address, self.connections, exchange, Ok, &self.plan, outcome)
            }
            (Target::Tcp(address), Some(tls), Pattern::Churn) => {
                let wrap = |stream| tls.wrap(stream);
                churn::run(*address, self.connections, exchange, wrap, &self.plan, outcome)
            }
            (Target::Unix(path), None, Pattern::Steady) => {
                self.steady(exchange, outcome, || wire::connect_unix(path))
            }
            (Target::Udp(address), None, Pattern::Steady) => {
                self.steady(exchange, outcome, || Datagrams::connect(*address))
            }
            _ => Err(io::Error::other("only TCP takes --tls and churn")),
        }
    }

    fn steady<W: Wire, E: Exchange>(
        &self,
        exchange: E,
        outcome: &mut Outcome,
        connect: impl FnMut() -> io::Result<W>,
    ) -> io::Result<()> {
        let wires = open(self.connections, outcome, connect);
        steady::run(wires, exchange, &self.plan, outcome)
    }
}

fn paced(mut arguments: Arguments, neighbour: Option<Neighbour>) -> Result<(), Box<dyn Error>> {
    let target: Target = arguments.value_from_str("--target")?;
    let connections = connections(&mut arguments)?;
    let size: usize = arguments.opt_value_from_str("--size")?.unwrap_or(1024);
    let rate: f64 = arguments.value_from_str("--rate")?;
    let plan = plan(&mut arguments)?;
    finish(arguments)?;
    if size == 0 || !rate.is_finite() || rate <= 0.0 {
        return Err("--size and --rate must be positive".into());
    }
    let Target::Tcp(address) = target else { return Err("only TCP can be paced".into()) };
    beside(neighbour, |outcome| {
        let wires = open(connections, outcome, || wire::connect_tcp(address));
        paced::run(wires, size, rate, &plan, outcome)
    })
}

fn keep_open(target: &Target, connections: u32) -> io::Result<()> {
    let mut outcome = Outcome::new();
    match target {
        Target::Tcp(address) => {
            let wires = open(connections, &mut outcome, || wire::connect_tcp(*address));
            hold::run(wires, &mut outcome)
        }
        Target::Unix(path) => {
            let wires = open(connections, &mut outcome, || wire::connect_unix(path));
            hold::run(wires, &mut outcome)
        }
        Target::Udp(_) => Err(io::Error::other("datagrams have no connections to hold")),
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

fn connections(arguments: &mut Arguments) -> Result<u32, Box<dyn Error>> {
    match arguments.opt_value_from_str("--connections")?.unwrap_or(32) {
        0 => Err("--connections must be positive".into()),
        count => Ok(count),
    }
}

fn neighbour(
    arguments: &mut Arguments,
    own: Option<usize>,
) -> Result<Option<Neighbour>, Box<dyn Error>> {
    let distance: Option<Range> = arguments.opt_value_from_str("--distance")?;
    let pace: Option<Range> = arguments.opt_value_from_str("--pace")?;
    let is_wanted = distance.or(pace).is_some();
    let wanted = Wanted { distance: distance.unwrap_or_default(), pace: pace.unwrap_or_default() };
    let core: Option<usize> = arguments.opt_value_from_str("--server-core")?;
    match (core, own) {
        (Some(core), Some(own)) if core != own => Ok(Some(Neighbour { core, wanted })),
        (Some(_), _) => Err("--server-core needs another --core".into()),
        (None, _) if is_wanted => Err("--distance and --pace need --server-core".into()),
        (None, _) => Ok(None),
    }
}

fn seconds(value: Option<f64>, default: f64) -> Result<Duration, TryFromFloatSecsError> {
    Duration::try_from_secs_f64(value.unwrap_or(default))
}

fn plan(arguments: &mut Arguments) -> Result<Plan, Box<dyn Error>> {
    Ok(Plan {
        warm_up: seconds(arguments.opt_value_from_str("--warm-up")?, 0.2)?,
        duration: seconds(arguments.opt_value_from_str("--seconds")?, 1.0)?,
        messages: arguments.opt_value_from_str("--messages")?,
        lockstep: arguments.contains("--lockstep"),
        spin: arguments.contains("--spin"),
        stall: seconds(arguments.opt_value_from_str("--stall")?, 2.0)?,
        servers: match arguments.opt_value_from_str::<_, String>("--server-pid")? {
            Some(pids) => pids
                .split(',')
                .map(|pid| Ok(CpuClock::of_process(pid.parse()?)?))
                .collect::<Result<_, Box<dyn Error>>>()?,
            None => Vec::new(),
        },
    })
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
  tokioloop-load client --target TARGET [--connections 32] [--size 1024 | --http PATH]
                        [--tls] [--warm-up 0.2] [--seconds 1 | --messages N] [--lockstep]
                        [--spin] [--stall 2] [--server-pid PID[,PID]] [--core N]
  tokioloop-load churn  --target TARGET [options as above]
  tokioloop-load paced  --target TARGET --rate R [--connections 32] [--size 1024]
                        [--warm-up 0.2] [--seconds 1] [--server-pid PID[,PID]] [--core N]
  tokioloop-load hold   --target TARGET [--connections 32]
  tokioloop-load limit  --target TARGET [--core N]
  tokioloop-load survey --core N --server-core M [--seconds 1]

TARGET is HOST:PORT, udp:HOST:PORT or unix:PATH.
client  a closed loop over standing connections; prints its figures as one JSON object
churn   connect, one message, reset, again; prints the same
paced   an open loop at R messages per second; times count from when a message was due
hold    opens connections, uses each once, and keeps them until standard input ends
limit   an echo server without Python; prints its address and serves
survey  how far the two cores are from each other, and how long the server's takes for a fixed
        piece of work, again and again, in nanoseconds
client, churn and paced take --server-core M [--distance LEAST-MOST] [--pace LEAST-MOST] as well:
they wait until it is so, for some seconds at most, and tell whether it stayed so";
