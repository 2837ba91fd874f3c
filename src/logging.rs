//! Passes the records of the `log` facade to Python's `logging`.
//!
//! `RUST_LOG` is read once, when the module is imported. While it is unset the
//! facade's maximum is "off" and a log call costs one relaxed load. A record
//! may arise where no Python code may run (inside the loop's state, or on a
//! detached thread), so records queue here, with their time, until the loop's
//! thread delivers them at a place where it may.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::report::leaves_loop;

/// The variable that chooses what is logged, in the syntax of `env_logger`:
/// `debug`, or `tokioloop::reactor=trace,tokioloop=info`.
const VARIABLE: &str = "RUST_LOG";
/// Python has no level below DEBUG (10); `rust_log.py` names this one.
const PYTHON_TRACE: u8 = 5;

/// Records that no thread has handed to Python yet.
static QUEUE: Mutex<Vec<Entry>> = Mutex::new(Vec::new());
/// Whether there are any.
static PENDING: AtomicBool = AtomicBool::new(false);
/// `tokioloop.observe.rust_log.emit`.
static EMIT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// One record on its way.
struct Entry {
    level: Level,
    /// The name of a Python logger.
    logger: String,
    message: String,
    file: &'static str,
    line: u32,
    /// Seconds since 1970.
    created: f64,
}

/// Reads `RUST_LOG` and starts logging if it asks for any.
pub(crate) fn install() {
    let Ok(text) = std::env::var(VARIABLE) else { return };
    let (filter, refused) = Filter::parse(&text);
    let level = filter.maximum();
    // Fails if the module is imported a second time; the first logger stays.
    if log::set_logger(Box::leak(Box::new(PythonLogger { filter }))).is_ok() {
        log::set_max_level(level);
        for directive in refused {
            push(
                Level::Warn,
                "tokioloop",
                format!("{VARIABLE}: ignoring {directive:?}"),
                file!(),
                line!(),
            );
        }
    }
}

/// Hands the queued records to Python's `logging`. To be called only where any
/// Python code may run.
///
/// # Errors
/// `SystemExit` and `KeyboardInterrupt` out of a logging handler.
#[inline]
pub(crate) fn deliver(py: Python<'_>) -> PyResult<()> {
    if PENDING.load(Ordering::Relaxed) { deliver_queued(py) } else { Ok(()) }
}

#[cold]
fn deliver_queued(py: Python<'_>) -> PyResult<()> {
    // Records that the handlers themselves cause wait for the next delivery.
    let entries = {
        let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
        PENDING.store(false, Ordering::Relaxed);
        std::mem::take(&mut *queue)
    };
    let emit = EMIT.get_or_try_init(py, || -> PyResult<_> {
        Ok(py.import("tokioloop.observe.rust_log")?.getattr("emit")?.unbind())
    })?;
    for entry in entries {
        let level = python_level(entry.level);
        let record = (entry.logger, level, entry.message, entry.created, entry.file, entry.line);
        match emit.bind(py).call1(record) {
            Err(error) if leaves_loop(py, &error) => return Err(error),
            Err(error) => error.write_unraisable(py, None),
            Ok(_) => {}
        }
    }
    Ok(())
}

fn push(level: Level, target: &str, message: String, file: &'static str, line: u32) {
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64());
    let logger = target.replace("::", ".");
    let entry = Entry { level, logger, message, file, line, created };
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    PENDING.store(true, Ordering::Relaxed);
}

fn python_level(level: Level) -> u8 {
    match level {
        Level::Error => 40,
        Level::Warn => 30,
        Level::Info => 20,
        Level::Debug => 10,
        Level::Trace => PYTHON_TRACE,
    }
}

/// The facade's receiver.
struct PythonLogger {
    filter: Filter,
}

impl Log for PythonLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.allows(&public_target(metadata.target()), metadata.level())
    }

    fn log(&self, record: &Record<'_>) {
        let target = public_target(record.target());
        if self.filter.allows(&target, record.level()) {
            let file = record.file_static().unwrap_or("<unknown>");
            let line = record.line().unwrap_or(0);
            push(record.level(), &target, record.args().to_string(), file, line);
        }
    }

    fn flush(&self) {}
}

/// The name that users know a crate's module by: `tokioloop::event_loop::run`,
/// `tokioloop::reactor::poller`, and `tokioloop::mio::poll` for other crates.
fn public_target(target: &str) -> String {
    let (krate, rest) = target.split_once("::").unwrap_or((target, ""));
    let base = match krate {
        "_core" | "tokioloop" => "tokioloop".to_owned(),
        "tokioloop_reactor" => "tokioloop::reactor".to_owned(),
        other => format!("tokioloop::{other}"),
    };
    if rest.is_empty() { base } else { format!("{base}::{rest}") }
}

/// What `RUST_LOG` asks for: the most exact target that matches decides.
#[derive(Debug, PartialEq)]
struct Filter {
    /// Longest target first; the empty one stands for all.
    directives: Vec<(String, LevelFilter)>,
}

impl Filter {
    /// Reads the variable; returns what cannot be understood as well.
    fn parse(text: &str) -> (Self, Vec<String>) {
        let mut directives = Vec::new();
        let mut refused = Vec::new();
        for directive in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let parsed = match directive.split_once('=') {
                Some((target, level)) => level.trim().parse().ok().map(|level| (target, level)),
                // A lone word is a level, or a target with everything on.
                None => Some(match directive.parse() {
                    Ok(level) => ("", level),
                    Err(_) => (directive, LevelFilter::Trace),
                }),
            };
            match parsed {
                Some(("", level)) => directives.push((String::new(), level)),
                Some((target, level)) => {
                    // Python's spelling of the name is accepted as well.
                    let target = target.trim().replace('.', "::");
                    directives.push((public_target(&target), level));
                }
                None => refused.push(directive.to_owned()),
            }
        }
        directives.sort_by_key(|(target, _)| std::cmp::Reverse(target.len()));
        (Self { directives }, refused)
    }

    fn maximum(&self) -> LevelFilter {
        self.directives.iter().map(|&(_, level)| level).max().unwrap_or(LevelFilter::Off)
    }

    fn allows(&self, target: &str, level: Level) -> bool {
        let covers = |prefix: &str| {
            let rest = target.strip_prefix(prefix);
            rest.is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with("::"))
        };
        let decisive = self.directives.iter().find(|(prefix, _)| covers(prefix));
        decisive.is_some_and(|&(_, maximum)| level <= maximum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_alone_is_for_every_target() {
        let (filter, refused) = Filter::parse("debug");
        assert!(refused.is_empty());
        assert!(filter.allows("tokioloop::reactor::poller", Level::Debug));
        assert!(!filter.allows("tokioloop::reactor::poller", Level::Trace));
        assert_eq!(filter.maximum(), LevelFilter::Debug);
    }

    #[test]
    fn the_most_exact_target_decides() {
        let (filter, _) = Filter::parse("warn,tokioloop::reactor=trace,tokioloop.event_loop=off");
        assert!(filter.allows("tokioloop::reactor::poller", Level::Trace));
        assert!(!filter.allows("tokioloop::reactors", Level::Trace));
        assert!(!filter.allows("tokioloop::event_loop::run", Level::Error));
        assert!(filter.allows("tokioloop::transports", Level::Warn));
        assert!(!filter.allows("tokioloop::transports", Level::Info));
    }

    #[test]
    fn a_target_alone_is_all_of_it() {
        let (filter, _) = Filter::parse("mio");
        assert!(filter.allows(&public_target("mio::poll"), Level::Trace));
        assert!(!filter.allows("tokioloop::reactor", Level::Error));
    }

    #[test]
    fn an_unknown_level_is_refused_and_the_rest_counts() {
        let (filter, refused) = Filter::parse("tokioloop=loud, info");
        assert_eq!(refused, ["tokioloop=loud"]);
        assert!(filter.allows("tokioloop", Level::Info));
        assert_eq!(Filter::parse("").0.maximum(), LevelFilter::Off);
    }

    #[test]
    fn targets_have_public_names() {
        assert_eq!(public_target("_core::event_loop::run"), "tokioloop::event_loop::run");
        assert_eq!(public_target("tokioloop_reactor::poller"), "tokioloop::reactor::poller");
        assert_eq!(public_target("tokioloop"), "tokioloop");
    }
}
