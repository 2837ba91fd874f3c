//! Debug mode: notes which handle runs now, and reports what took long, in asyncio's
//! words.
//!
//! A turn runs here if debug mode is on when its callbacks begin.

use pyo3::intern;
use pyo3::prelude::*;
use tokioloop_reactor::Readiness;

use crate::event_loop::native::This;
use crate::event_loop::{Inside, Source, run};
use crate::py::Owned;
use crate::ready::Ready;

/// Runs the entries of a turn.
///
/// # Errors
/// Exceptions that end the run.
pub(super) fn run_turn(py: Python<'_>, this: This<'_>, inside: &Inside<'_>) -> PyResult<()> {
    while let Some(entry) = inside.with(run::next_entry) {
        run_entry(py, this, inside, entry)?;
    }
    Ok(())
}

/// Runs an entry, watched if debug mode is (still) on.
///
/// # Errors
/// Exceptions that end the run.
pub(super) fn run_entry(
    py: Python<'_>,
    this: This<'_>,
    inside: &Inside<'_>,
    entry: Ready,
) -> PyResult<()> {
    if this.event_loop.debug() {
        run_watched(py, this, inside, entry)
    } else {
        run::run_entry(py, this, inside, entry)
    }
}

#[cold]
fn run_watched(py: Python<'_>, this: This<'_>, inside: &Inside<'_>, entry: Ready) -> PyResult<()> {
    let Some(subject) = Subject::of(py, inside, &entry)? else {
        return run::run_entry(py, this, inside, entry);
    };
    let current = intern!(py, "_current_handle");
    let event_loop = this.bind(py);
    if let Subject::Handle(handle) = &subject {
        event_loop.setattr(current, handle.bind(py))?;
    }
    let result = measure(py, this, &subject, || run::run_entry(py, this, inside, entry));
    event_loop.setattr(current, py.None()).and(result)
}

/// Runs an entry and reports it if it took long. An exception that ends the run is
/// passed on without a report; reporting any other one is part of the entry's time.
fn measure(
    py: Python<'_>,
    this: This<'_>,
    subject: &Subject,
    run: impl FnOnce() -> PyResult<()>,
) -> PyResult<()> {
    let started = this.now(py)?;
    run()?;
    let duration = this.now(py)? - started;
    let event_loop = this.bind(py);
    let limit = event_loop.getattr(intern!(py, "slow_callback_duration"))?.extract::<f64>()?;
    if duration < limit {
        return Ok(());
    }
    match subject {
        Subject::Handle(handle) => {
            event_loop.call_method1("_report_slow_callback", (handle.bind(py), duration))
        }
        Subject::Event(method, subject) => {
            event_loop.call_method1("_report_slow_event", (*method, subject.bind(py), duration))
        }
    }
    .map(drop)
}

/// What a report names.
enum Subject {
    Handle(Owned),
    /// The method that asyncio would run for an event, and what that is about: a
    /// transport, or a tuple of the arguments.
    Event(&'static str, Owned),
}

impl Subject {
    /// None for what runs no code of the program.
    fn of(py: Python<'_>, inside: &Inside<'_>, entry: &Ready) -> PyResult<Option<Self>> {
        let (token, ready) = match entry {
            Ready::Handle(handle) => {
                return Ok(Some(Self::Handle(handle.object().clone_ref(py))));
            }
            Ready::Foreign(handle) => return Ok(Some(Self::Handle(handle.clone_ref(py)))),
            Ready::Io(token, ready) => (*token, *ready),
        };
        let mut arguments = None;
        let event = inside.with(|state| match state.sources.get(token)? {
            Source::Stream(transport) => {
                Some(Self::Event(of_stream(ready), transport.object().clone_ref(py)))
            }
            Source::Datagram(transport) => {
                Some(Self::Event(of_datagram(ready), transport.object().clone_ref(py)))
            }
            Source::Listener(listener) => {
                arguments = Some(listener.factory_and_socket(py));
                None
            }
            _ => None,
        });
        let Some((factory, socket)) = arguments else { return Ok(event) };
        let arguments = (factory.bind(py), socket.bind(py)).into_pyobject(py)?.into_any();
        Ok(Some(Self::Event("BaseSelectorEventLoop._accept_connection", arguments.into())))
    }
}

fn of_stream(ready: Readiness) -> &'static str {
    if ready.readable() {
        "_SelectorSocketTransport._read_ready"
    } else {
        "_SelectorSocketTransport._write_ready"
    }
}

fn of_datagram(ready: Readiness) -> &'static str {
    if ready.readable() {
        "_SelectorDatagramTransport._read_ready"
    } else {
        "_SelectorDatagramTransport._sendto_ready"
    }
}
