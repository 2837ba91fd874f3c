//! The figures of one run, and their form as one JSON object on standard output.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::time::Duration;

use crate::exchange::Fault;
use crate::histogram::Histogram;
use crate::surroundings::Watch;

/// What a run has measured between the end of its warm-up and its end.
pub(crate) struct Outcome {
    pub(crate) latency: Histogram,
    pub(crate) elapsed: Duration,
    /// CPU time of the server process, where its id was given and it lived to the end.
    pub(crate) server_cpu: Option<Duration>,
    /// What the host does to the two cores, if that is watched.
    pub(crate) watch: Option<Watch>,
    pub(crate) stalls: u64,
    faults: BTreeMap<String, u64>,
}

impl Outcome {
    pub(crate) fn new() -> Self {
        Self {
            latency: Histogram::new(),
            elapsed: Duration::ZERO,
            server_cpu: None,
            watch: None,
            stalls: 0,
            faults: BTreeMap::new(),
        }
    }

    pub(crate) fn add_fault(&mut self, fault: Fault) {
        *self.faults.entry(fault.0).or_default() += 1;
    }

    /// Forgets the latencies of the warm-up; faults and stalls are kept, for they are never fine.
    ///
    /// Returns whether it is over: a look around holds the traffic up, so that where the
    /// host is watched half of the warm-up is before the look and half behind it.
    pub(crate) fn end_warm_up(&mut self) -> io::Result<bool> {
        self.latency.clear();
        let looks_now = self.watch.is_some_and(|watch| watch.looks() == 0);
        if looks_now {
            self.look_around()?;
        }
        Ok(!looks_now)
    }

    /// Notices what the host has done to the cores since the last look.
    pub(crate) fn look_around(&mut self) -> io::Result<()> {
        self.watch.as_mut().map_or(Ok(()), Watch::look)
    }

    /// One line of JSON. Times are in seconds.
    pub(crate) fn to_json(&self) -> String {
        let messages = self.latency.count();
        let elapsed = self.elapsed.as_secs_f64();
        let rate = if elapsed > 0.0 { messages as f64 / elapsed } else { 0.0 };
        let mut json = String::from("{");
        // Writing to a String cannot fail.
        let _ = write!(
            json,
            "\"messages\": {messages}, \"elapsed\": {elapsed:.6}, \"rps\": {rate:.1}, \
             \"latency_mean\": {:.9}",
            self.latency.mean() / 1e9
        );
        for (name, fraction) in QUANTILES {
            let seconds = self.latency.quantile(fraction) as f64 / 1e9;
            let _ = write!(json, ", \"latency_{name}\": {seconds:.9}");
        }
        let _ = write!(json, ", \"latency_max\": {:.9}", self.latency.max() as f64 / 1e9);
        if let Some(cpu) = self.server_cpu {
            let _ = write!(json, ", \"server_cpu\": {:.9}", cpu.as_secs_f64());
            if messages > 0 {
                let share = cpu.as_secs_f64() / messages as f64;
                let _ = write!(json, ", \"cpu_per_message\": {share:.9}");
            }
        }
        if let Some(watch) = &self.watch {
            let _ = write!(json, ", \"undisturbed\": {}", watch.stayed());
        }
        let errors: u64 = self.faults.values().sum();
        let _ = write!(json, ", \"errors\": {errors}, \"stalls\": {}, \"faults\": {{", self.stalls);
        for (place, (label, count)) in self.faults.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            let _ = write!(json, "{comma}\"{}\": {count}", escape(label));
        }
        json.push_str("}}");
        json
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_run_is_still_an_object() {
        let json = Outcome::new().to_json();
        assert!(
            json.starts_with("{\"messages\": 0, \"elapsed\": 0.000000, \"rps\": 0.0"),
            "{json}"
        );
        assert!(json.ends_with("\"errors\": 0, \"stalls\": 0, \"faults\": {}}"), "{json}");
    }

    #[test]
    fn faults_are_counted_by_label_and_escaped() {
        let mut outcome = Outcome::new();
        outcome.add_fault(Fault::new("ConnectionReset"));
        outcome.add_fault(Fault::new("ConnectionReset"));
        outcome.add_fault(Fault::new("bad \"quote\"\n"));
        let json = outcome.to_json();
        let tail =
            r#""errors": 3, "stalls": 0, "faults": {"ConnectionReset": 2, "bad \"quote\" ": 1}}"#;
        assert!(json.ends_with(tail), "{json}");
    }

    #[test]
    fn rates_come_from_messages_and_time() {
        let mut outcome = Outcome::new();
        for _ in 0..500 {
            outcome.latency.record(1_000_000);
        }
        outcome.elapsed = Duration::from_millis(250);
        outcome.server_cpu = Some(Duration::from_millis(5));
        let json = outcome.to_json();
        assert!(json.contains("\"rps\": 2000.0"), "{json}");
        assert!(json.contains("\"latency_mean\": 0.001000000"), "{json}");
        assert!(json.contains("\"cpu_per_message\": 0.000010000"), "{json}");
    }
}
