//! Plain counters of what a loop has done.

/// Counts since the loop was made; reading them costs nothing while unused.
#[derive(Default, Clone)]
pub(crate) struct Metrics {
    pub(crate) turns: u64,
    pub(crate) polls: u64,
    pub(crate) blocking_polls: u64,
    pub(crate) events: u64,
    pub(crate) callbacks: u64,
    pub(crate) timers_fired: u64,
    pub(crate) bytes_received: u64,
    pub(crate) messages_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) messages_sent: u64,
    pub(crate) accepted: u64,
    /// Nanoseconds in blocking polls.
    pub(crate) polling: u64,
}
