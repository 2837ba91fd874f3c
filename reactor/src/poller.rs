//! The one poll of a loop.
//!
//! Streams and listeners are registered edge-triggered through mio; what
//! `add_reader` and `add_writer` watch is registered level-triggered on the
//! same descriptor, so that no re-arming call is needed for either.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Poll, Waker};

use crate::clock::{self, Nanos};
use crate::interest::Interest;
use crate::readiness::Readiness;
use crate::sys;
use crate::token::Token;

/// Events taken from the kernel at once; more stay there for the next turn.
const EVENTS_PER_TURN: usize = 1024;
#[cfg(target_os = "linux")]
const NANOS_PER_MILLI: u64 = 1_000_000;
/// A day, asyncio's longest wait: kevent refuses a timeout of some years.
#[cfg(not(target_os = "linux"))]
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// How long a turn may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// Not at all: something is ready to run.
    Now,
    /// Until this time of the clock, or an event.
    At(Nanos),
    /// Until an event.
    Never,
}

/// mio's poll with level-triggered watches and deadlines in nanoseconds.
pub struct Poller {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    poll_fd: RawFd,
}

impl Poller {
    /// Opens a poll and its waker.
    ///
    /// # Errors
    /// What the kernel says, usually that descriptors have run out.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(Token::WAKE.to_bits()))?);
        let poll_fd = poll.as_raw_fd();
        log::debug!("poll {poll_fd} opened");
        Ok(Self { poll, events: Events::with_capacity(EVENTS_PER_TURN), waker, poll_fd })
    }

    /// The waker with which other threads end a wait.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Registers a source edge-triggered.
    ///
    /// # Errors
    /// What the kernel says: EPERM for regular files, EBADF, EEXIST, ENOMEM.
    pub fn register(&self, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
        log::debug!("descriptor {fd} registered as {token:?}, {interest:?}");
        let Some(interest) = interest.to_mio() else { return Ok(()) };
        self.poll.registry().register(&mut SourceFd(&fd), mio::Token(token.to_bits()), interest)
    }

    /// Changes what a registered source waits for.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn reregister(&self, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
        log::debug!("descriptor {fd}, {token:?}, now for {interest:?}");
        match interest.to_mio() {
            Some(interest) => self.poll.registry().reregister(
                &mut SourceFd(&fd),
                mio::Token(token.to_bits()),
                interest,
            ),
            None => self.deregister(fd),
        }
    }

    /// Ends an edge-triggered registration.
    ///
    /// # Errors
    /// The kernel's: ENOENT or EBADF if the descriptor was closed before. The
    /// registration is gone then, unless a duplicate keeps the file open.
    pub fn deregister(&self, fd: RawFd) -> io::Result<()> {
        log::debug!("descriptor {fd} deregistered");
        self.poll.registry().deregister(&mut SourceFd(&fd))
    }

    /// Watches a descriptor level-triggered; `known` says that it is watched
    /// already and only the interest changes.
    ///
    /// # Errors
    /// What the kernel says: EPERM for regular files, EBADF.
    pub fn watch(
        &self,
        fd: RawFd,
        token: Token,
        interest: Interest,
        known: bool,
    ) -> io::Result<()> {
        log::debug!("descriptor {fd} watched as {token:?}, {interest:?}");
        sys::watch_level(self.poll_fd, fd, token.to_bits(), interest, known)
    }

    /// Ends a level-triggered watch.
    ///
    /// # Errors
    /// As [`Poller::deregister`].
    pub fn unwatch(&self, fd: RawFd, was: Interest) -> io::Result<()> {
        log::debug!("descriptor {fd} not watched any more");
        sys::unwatch_level(self.poll_fd, fd, was)
    }

    /// Watches a socket edge-triggered in both directions, whether or not it is
    /// watched already. The next wait reports what is ready now, even if an
    /// earlier one has reported it.
    ///
    /// # Errors
    /// What the kernel says: EPERM for what cannot be polled, EBADF, ENOMEM.
    pub fn keep(&self, fd: RawFd, token: Token) -> io::Result<()> {
        log::debug!("descriptor {fd} kept as {token:?}");
        sys::watch_edges(self.poll_fd, fd, token.to_bits())
    }

    /// Waits for events or the timeout. It may return early without an event: the
    /// caller checks the clock and calls again.
    ///
    /// # Errors
    /// `Interrupted` after a signal: the caller lets Python handle it and waits
    /// again for the time that is left.
    pub fn wait(&mut self, timeout: Timeout) -> io::Result<()> {
        let duration = match timeout {
            Timeout::Now => Some(Duration::ZERO),
            Timeout::Never => None,
            Timeout::At(deadline) => Some(self.sleep_until_last_milli(deadline)?),
        };
        self.poll.poll(&mut self.events, duration)
    }

    /// The events of the last wait, without the waker's.
    #[inline]
    pub fn events(&self) -> impl Iterator<Item = (Token, Readiness)> {
        self.events.iter().filter_map(|event| {
            let token = Token::from_bits(event.token().0);
            (token != Token::WAKE).then(|| (token, Readiness::of(event)))
        })
    }

    /// Whether the last wait brought nothing, not even a wake-up.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.events.is_empty()
    }

    /// Returns how long mio is to wait. mio rounds a timeout up to milliseconds,
    /// which would make every timer late by up to one. So it waits for whole
    /// milliseconds only; less than one is waited for here, on the poll
    /// descriptor itself.
    #[cfg(target_os = "linux")]
    fn sleep_until_last_milli(&self, deadline: Nanos) -> io::Result<Duration> {
        let rest = deadline.saturating_sub(clock::now());
        if rest >= NANOS_PER_MILLI {
            return Ok(Duration::from_millis(rest / NANOS_PER_MILLI));
        }
        if rest > 0 {
            sys::wait_briefly(self.poll_fd, rest)?;
        }
        Ok(Duration::ZERO)
    }

    /// kqueue's timeout has nanoseconds.
    #[cfg(not(target_os = "linux"))]
    fn sleep_until_last_milli(&self, deadline: Nanos) -> io::Result<Duration> {
        let rest = Duration::from_nanos(deadline.saturating_sub(clock::now()));
        Ok(rest.min(LONGEST_WAIT))
    }
}

impl AsRawFd for Poller {
    fn as_raw_fd(&self) -> RawFd {
        self.poll_fd
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("fd", &self.poll_fd).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Sources;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn pair() -> (UnixStream, UnixStream) {
        let (a, b) = UnixStream::pair().unwrap();
        a.set_nonblocking(true).unwrap();
        (a, b)
    }

    /// What a wait reports for each source; kqueue reports each direction separately.
    fn ready(poller: &mut Poller) -> Vec<(Token, Readiness)> {
        poller.wait(Timeout::At(clock::now() + 2_000_000)).unwrap();
        let mut found: Vec<(Token, Readiness)> = Vec::new();
        for (token, readiness) in poller.events() {
            match found.iter_mut().find(|(known, _)| *known == token) {
                Some((_, all)) => *all = all.with(readiness),
                None => found.push((token, readiness)),
            }
        }
        found
    }

    #[test]
    fn a_registration_tells_an_edge_once() {
        let (a, mut b) = pair();
        let mut poller = Poller::new().unwrap();
        let token = Sources::new().insert(());
        poller.register(a.as_raw_fd(), token, Interest::READABLE).unwrap();
        b.write_all(b"x").unwrap();
        assert_eq!(ready(&mut poller), [(token, Readiness::READABLE)]);
        assert_eq!(ready(&mut poller), []);
    }

    #[test]
    fn a_watch_tells_a_level_until_it_is_read() {
        let (mut a, mut b) = pair();
        let mut poller = Poller::new().unwrap();
        let token = Sources::new().insert(());
        poller.watch(a.as_raw_fd(), token, Interest::READABLE, false).unwrap();
        b.write_all(b"x").unwrap();
        assert_eq!(ready(&mut poller).len(), 1);
        assert_eq!(ready(&mut poller).len(), 1);
        a.read_exact(&mut [0]).unwrap();
        assert_eq!(ready(&mut poller), []);
        poller.unwatch(a.as_raw_fd(), Interest::READABLE).unwrap();
    }

    #[test]
    fn a_watch_survives_a_descriptor_that_was_closed_and_reused() {
        let mut poller = Poller::new().unwrap();
        let token = Sources::new().insert(());
        let (a, _b) = pair();
        let number = a.as_raw_fd();
        poller.watch(number, token, Interest::READABLE, false).unwrap();
        drop(a);
        let (again, mut peer) = pair();
        if again.as_raw_fd() == number {
            poller.watch(number, token, Interest::READABLE, true).unwrap();
            peer.write_all(b"x").unwrap();
            assert_eq!(ready(&mut poller).len(), 1);
        }
    }

    #[test]
    fn a_kept_socket_tells_what_is_ready_each_time_it_is_kept() {
        let (a, mut b) = pair();
        let mut poller = Poller::new().unwrap();
        let mut sources = Sources::new();
        let (first, second) = (sources.insert(()), sources.insert(()));
        b.write_all(b"x").unwrap();
        let both = Readiness::READABLE.with(Readiness::WRITABLE);
        poller.keep(a.as_raw_fd(), first).unwrap();
        assert_eq!(ready(&mut poller), [(first, both)]);
        assert_eq!(ready(&mut poller), []);
        poller.keep(a.as_raw_fd(), second).unwrap();
        assert_eq!(ready(&mut poller), [(second, both)]);
    }

    #[test]
    fn a_wait_ends_at_its_deadline_and_not_before() {
        let mut poller = Poller::new().unwrap();
        for delay in [50_000, 700_000, 1_300_000] {
            let deadline = clock::now() + delay;
            while clock::now() < deadline {
                poller.wait(Timeout::At(deadline)).unwrap();
            }
            assert!(poller.events().next().is_none());
        }
    }

    #[test]
    fn a_wait_may_have_a_deadline_far_away() {
        let (a, mut b) = pair();
        let mut poller = Poller::new().unwrap();
        let token = Sources::new().insert(());
        poller.register(a.as_raw_fd(), token, Interest::READABLE).unwrap();
        b.write_all(b"x").unwrap();
        poller.wait(Timeout::At(u64::MAX - 1)).unwrap();
        assert_eq!(poller.events().collect::<Vec<_>>(), [(token, Readiness::READABLE)]);
    }

    #[test]
    fn the_waker_ends_a_wait_from_another_thread() {
        let mut poller = Poller::new().unwrap();
        let waker = poller.waker();
        let thread = std::thread::spawn(move || waker.wake());
        poller.wait(Timeout::Never).unwrap();
        assert!(poller.events().next().is_none());
        thread.join().unwrap().unwrap();
    }
}
