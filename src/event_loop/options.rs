//! The options that `TokioLoop(...)` takes.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

/// Most that is delivered at once, and so most that can be held back.
const MAX_BATCH_BYTES: i64 = 256 * 1024;
/// Seconds; holding data back for longer is a queue, not a batch.
const MAX_BATCH_TIMEOUT: f64 = 1.0;
/// Microseconds.
const MAX_BUSY_POLL: i64 = 1_000_000;

/// Seconds; who waits longer wants another tool.
const MAX_OBSERVED: f64 = 3600.0;

/// Checked options of a loop.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    /// Bytes that a connection collects before they are delivered.
    pub(crate) read_batch_bytes: usize,
    /// Nanoseconds after which they are delivered anyway.
    pub(crate) read_batch_timeout: u64,
    /// Nanoseconds that written data waits at most for the end of the turn; 0 is
    /// for what leaves at once, None for what does so but in crowded turns.
    pub(crate) write_batch_timeout: Option<u64>,
    /// Nanoseconds for which each wait looks for events before it sleeps. None: it
    /// looks only for what has proved to come soon (`patience`); 0: not even then.
    pub(crate) busy_poll: Option<u64>,
}

impl Options {
    /// Checks what the caller gave.
    ///
    /// # Errors
    /// ValueError that names the option and its range.
    pub(crate) fn new(
        read_batch_bytes: i64,
        read_batch_timeout: f64,
        write_batch_timeout: Option<f64>,
        busy_poll: Option<i64>,
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
        if let Some(micros) = busy_poll
            && !(0..=MAX_BUSY_POLL).contains(&micros)
        {
            return Err(PyValueError::new_err(format!(
                "busy_poll must be from 0 to {MAX_BUSY_POLL} microseconds, not {micros}"
            )));
        }
        Ok(Self {
            read_batch_bytes: read_batch_bytes as usize,
            read_batch_timeout: (read_batch_timeout * 1e9) as u64,
            write_batch_timeout: write_batch_timeout.map(|seconds| (seconds * 1e9) as u64),
            busy_poll: busy_poll.map(|micros| micros as u64 * 1000),
        })
    }

    /// Whether data is held back at all.
    pub(crate) fn batches(&self) -> bool {
        self.read_batch_timeout > 0
    }
}

/// Nanoseconds from which on a callback is reported as slow; 0 for never.
///
/// # Errors
/// ValueError that names the option and its range.
pub(crate) fn slow_callback(seconds: f64) -> PyResult<u64> {
    check_seconds("slow_callback", seconds, MAX_OBSERVED)?;
    Ok((seconds * 1e9) as u64)
}

/// Checks what the watcher of stalls takes, which is written in Python.
///
/// # Errors
/// ValueError that names the option and its range, TypeError for a hook that
/// cannot be called.
pub(crate) fn check_stall_watch(timeout: f64, on_stall: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    check_seconds("stall_timeout", timeout, MAX_OBSERVED)?;
    match on_stall {
        Some(hook) if !hook.is_callable() => Err(PyTypeError::new_err(format!(
            "on_stall must be a callable or None, not {}",
            hook.repr()?
        ))),
        Some(_) if timeout == 0.0 => {
            Err(PyValueError::new_err("on_stall needs a stall_timeout above 0.0 seconds"))
        }
        _ => Ok(()),
    }
}

fn check_seconds(name: &str, seconds: f64, most: f64) -> PyResult<()> {
    if (0.0..=most).contains(&seconds) {
        return Ok(());
    }
    Err(PyValueError::new_err(format!(
        "{name} must be from 0.0 to {most:.1} seconds, not {seconds}"
    )))
}
