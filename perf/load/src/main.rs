//! Load generator and reference servers for tokioloop's benchmarks.
//!
//! Every sub-command prints one JSON object per line on standard output; see `USAGE`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod churn;
mod command;
mod conversation;
mod exchange;
mod histogram;
mod hold;
mod http;
mod limit;
mod outcome;
mod paced;
mod steady;
mod surroundings;
mod sys;
mod target;
mod tls;
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    match command::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tokioloop-load: {error}");
            ExitCode::FAILURE
        }
    }
}
