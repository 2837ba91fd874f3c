//! The options that `TokioLoop(...)` takes.

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::event_loop::EventLoop;

/// The most that is delivered at once, and so the most that can be held back.
const MAX_BATCH_BYTES: i64 = 256 * 1024;
/// Seconds; holding data back for longer is a queue, not a batch.
const MAX_BATCH_TIMEOUT: f64 = 1.0;
/// Microseconds.
const MAX_BUSY_POLL: i64 = 1_000_000;

/// Seconds; noticing anything longer is another tool's work.
const MAX_OBSERVED: f64 = 3600.0;

/// A whole number as the caller gave it. One that does not fit becomes the nearest
/// `i64`, which is outside of every option's range.
#[derive(Clone, Copy)]
pub(crate) struct Whole(i64);

impl Whole {
    pub(crate) const ZERO: Self = Self(0);
}

impl<'py> FromPyObject<'_, 'py> for Whole {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        given.extract().map(Self).or_else(|error| beyond(given, error, [i64::MIN, i64::MAX], Self))
    }
}

/// Seconds as the caller gave them; a whole number too large for a float is infinite.
#[derive(Clone, Copy)]
pub(crate) struct Seconds(f64);

impl Seconds {
    pub(crate) const ZERO: Self = Self(0.0);

    /// In nanoseconds; call it after the range check.
    fn nanos(self) -> u64 {
        (self.0 * 1e9) as u64
    }
}

impl<'py> FromPyObject<'_, 'py> for Seconds {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let ends = [f64::NEG_INFINITY, f64::INFINITY];
        given.extract().map(Self).or_else(|error| beyond(given, error, ends, Self))
    }
}

/// The end of the type's range that a number exceeds, if that is why it did not convert.
#[cold]
fn beyond<T, R>(
    given: Borrowed<'_, '_, PyAny>,
    error: PyErr,
    [least, most]: [T; 2],
    wrap: impl FnOnce(T) -> R,
) -> PyResult<R> {
    if !error.is_instance_of::<PyOverflowError>(given.py()) {
        return Err(error);
    }
    Ok(wrap(if given.lt(0)? { least } else { most }))
}

/// Checked options of a loop.
#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) struct Options {
    /// Bytes that a connection collects before they are delivered.
    pub(crate) read_batch_bytes: usize,
    /// Nanoseconds after which they are delivered anyway.
    pub(crate) read_batch_timeout: u64,
    /// Nanoseconds that every small write waits at most for the end of the turn.
    /// None: writes wait in crowded turns only; 0: not even then. Either way, a
    /// transport that writes several times in a callback is corked (`cork`).
    pub(crate) write_batch_timeout: Option<u64>,
    /// Nanoseconds for which each wait spins before it sleeps. None: it spins only
    /// where that has proved worthwhile (`patience`); 0: never.
    pub(crate) busy_poll: Option<u64>,
}

impl Options {
    /// Checks what the caller gave.
    ///
    /// # Errors
    /// ValueError that names the option and its range.
    pub(crate) fn new(
        Whole(read_batch_bytes): Whole,
        read_batch_timeout: Seconds,
        write_batch_timeout: Option<Seconds>,
        busy_poll: Option<Whole>,
    ) -> PyResult<Self> {
        if !(0..=MAX_BATCH_BYTES).contains(&read_batch_bytes) {
            return Err(PyValueError::new_err(format!(
                "read_batch_bytes must be from 0 to {MAX_BATCH_BYTES} bytes, not {read_batch_bytes}"
            )));
        }
        check_seconds("read_batch_timeout", read_batch_timeout, MAX_BATCH_TIMEOUT)?;
        if let Some(seconds) = write_batch_timeout {
            check_seconds("write_batch_timeout", seconds, MAX_BATCH_TIMEOUT)?;
        }
        let looks = busy_poll.map_or(0, |Whole(micros)| micros);
        if !(0..=MAX_BUSY_POLL).contains(&looks) {
            return Err(PyValueError::new_err(format!(
                "busy_poll must be from 0 to {MAX_BUSY_POLL} microseconds, not {looks}"
            )));
        }
        Ok(Self {
            read_batch_bytes: read_batch_bytes as usize,
            read_batch_timeout: read_batch_timeout.nanos(),
            write_batch_timeout: write_batch_timeout.map(Seconds::nanos),
            busy_poll: busy_poll.map(|Whole(micros)| micros as u64 * 1000),
        })
    }

    /// Whether received data is held back.
    pub(crate) fn batches(&self) -> bool {
        self.read_batch_timeout > 0
    }
}

/// Nanoseconds from which on a callback is reported as slow; 0 for never.
///
/// # Errors
/// ValueError that names the option and its range.
pub(crate) fn slow_callback(seconds: Seconds) -> PyResult<u64> {
    check_seconds("slow_callback", seconds, MAX_OBSERVED)?;
    Ok(seconds.nanos())
}

/// Whether a loop was made with these options: the constructor of a subclass may pass
/// other options to `__init__` than `__new__` has seen.
#[pyfunction]
#[pyo3(signature = (event_loop, read_batch_bytes, read_batch_timeout, write_batch_timeout, busy_poll, slow, stall_timeout, on_stall, /))]
// One for each keyword.
#[allow(clippy::too_many_arguments)]
pub(crate) fn is_made_with(
    event_loop: &Bound<'_, EventLoop>,
    read_batch_bytes: Whole,
    read_batch_timeout: Seconds,
    write_batch_timeout: Option<Seconds>,
    busy_poll: Option<Whole>,
    slow: Seconds,
    stall_timeout: Seconds,
    on_stall: Option<&Bound<'_, PyAny>>,
) -> PyResult<bool> {
    check_stall_watch(stall_timeout, on_stall)?;
    let options =
        Options::new(read_batch_bytes, read_batch_timeout, write_batch_timeout, busy_poll)?;
    let event_loop = event_loop.get();
    Ok(event_loop.options == options && event_loop.observer.reports_from(slow_callback(slow)?))
}

/// Checks the options of the stall watcher, which is written in Python.
///
/// # Errors
/// ValueError that names the option and its range, TypeError for a hook that
/// cannot be called.
pub(crate) fn check_stall_watch(
    timeout: Seconds,
    on_stall: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    check_seconds("stall_timeout", timeout, MAX_OBSERVED)?;
    match on_stall {
        Some(hook) if !hook.is_callable() => Err(PyTypeError::new_err(format!(
            "on_stall must be a callable or None, not {}",
            hook.repr()?
        ))),
        Some(_) if timeout.0 == 0.0 => {
            Err(PyValueError::new_err("on_stall needs a stall_timeout above 0.0 seconds"))
        }
        _ => Ok(()),
    }
}

fn check_seconds(name: &str, Seconds(seconds): Seconds, most: f64) -> PyResult<()> {
    if (0.0..=most).contains(&seconds) {
        return Ok(());
    }
    Err(PyValueError::new_err(format!(
        "{name} must be from 0.0 to {most:.1} seconds, not {seconds}"
    )))
}
