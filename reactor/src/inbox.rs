//! What other threads send to the loop thread, and whether they have to wake it.
//!
//! The only concurrent structure of the crate: any thread (and, by [`Inbox::notify`], a signal
//! handler) may send; one thread, the loop's, takes, parks and unparks. The inbox decides *whether*
//! the poll must be woken; doing it is the caller's part.
//!
//! # States
//!
//! ```text
//!            park                 push, notify (returns true: wake the poll)
//!  RUNNING ────────▶ PARKED ─────────────────────▶ NOTIFIED
//!     ▲  │             │ unpark                       │  ▲
//!     │  └─────────────│──── notify (false) ──────────│──┘
//!     └────────────────┴──── unpark, refused park ────┘
//! ```
//!
//! Only the sender that moves PARKED to NOTIFIED wakes the poll; those that come after it find a
//! wake-up under way. While the loop runs, `push` leaves the state alone, because the loop looks
//! at the queue before it parks; `notify` has no item to be found, so it marks the state instead
//! and the next `park` is refused.
//!
//! A `park` that is refused because an item came between its two steps has been PARKED for a
//! moment, and a sender may have seen it: then a wake-up is on its way to a loop that is awake, and
//! ends the next poll early. Each `park` costs at most one wake-up, never more.
//!
//! # Why no wake-up is lost
//!
//! A sender first fills the queue and then reads the state; the loop first sets the state and then
//! reads the queue. Between the two steps each has a sequentially consistent fence, and of two such
//! fences one comes first. If it is the sender's, the loop finds the item and does not block. If it
//! is the loop's, the sender reads PARKED, or a state that came after it: NOTIFIED, so somebody
//! else's wake-up is under way, or RUNNING, so the loop is awake and this argument starts again at
//! its next `park`. Weaker orderings would let both sides read the old value.
//!
//! `notify` needs no fence: it and the loop meet on the one state word, whose changes have one
//! order. Everything that a thread wrote before `notify` is visible to the loop after the `unpark`
//! or the refused `park` that took the notification, since both exchange it with acquire ordering.
//! `push` publishes its item through the queue itself.

use std::fmt;

use self::sync::{AtomicU8, Ordering, Queue, fence};

/// A queue from many threads to the loop thread, with coalesced wake-ups.
///
/// ```
/// use tokioloop_reactor::Inbox;
///
/// let inbox = Inbox::new();
/// assert!(!inbox.push("while running")); // the loop will look before it parks
/// assert!(!inbox.park());
/// assert_eq!(inbox.pop(), Some("while running"));
///
/// assert!(inbox.park());
/// assert!(inbox.push("first")); // this caller wakes the poll
/// assert!(!inbox.push("second")); // a wake-up is under way
/// inbox.unpark();
/// assert_eq!((inbox.pop(), inbox.pop(), inbox.pop()), (Some("first"), Some("second"), None));
/// ```
pub struct Inbox<T> {
    queue: Queue<T>,
    // The queue is aligned to cache lines, so the state has a line of its own.
    state: AtomicU8,
}

impl<T> Inbox<T> {
    /// An empty inbox of a running loop.
    pub fn new() -> Self {
        Self { queue: Queue::new(), state: AtomicU8::new(RUNNING) }
    }

    /// Adds an item, from any thread. Returns whether the caller must wake the poll.
    #[inline]
    #[must_use = "on true the poll sleeps until the caller wakes it"]
    pub fn push(&self, item: T) -> bool {
        self.queue.push(item);
        // The item must be in the queue before the state is read; see the file header.
        fence(Ordering::SeqCst);
        self.wake_parked()
    }

    /// For an item in a queue of the caller's: returns whether the caller must wake the poll.
    ///
    /// The caller must hold a lock around queuing the item and this call, and the loop must hold
    /// the same lock around checking that queue and [`park`](Self::park). [`push`](Self::push)
    /// needs no lock.
    #[inline]
    #[must_use = "on true the poll sleeps until the caller wakes it"]
    pub fn wake_parked(&self) -> bool {
        // A plain load first: while the loop runs, senders share the line instead of fighting for
        // it. The exchange lets exactly one of several senders be the one that wakes. Relaxed will
        // do: the item is published by the queue, and the fence has ordered the rest.
        self.state.load(Ordering::Relaxed) == PARKED
            && self
                .state
                .compare_exchange(PARKED, NOTIFIED, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Keeps the loop from blocking, from any thread or signal handler, without an item. Returns
    /// whether the caller must wake the poll.
    ///
    /// If the loop runs, its next [`park`](Self::park) is refused. Never blocks, never allocates.
    #[inline]
    #[must_use = "on true the poll sleeps until the caller wakes it"]
    pub fn notify(&self) -> bool {
        // Release: what the caller wrote before (a stop flag) is seen by the loop that takes this
        // notification. Being an exchange, it also hands on the releases of earlier ones.
        self.state.swap(NOTIFIED, Ordering::Release) == PARKED
    }

    /// Takes the oldest item. Called by the loop thread.
    #[inline]
    pub fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Whether an item waits: two loads, no write.
    #[inline]
    pub fn has_pending(&self) -> bool {
        !self.queue.is_empty()
    }

    /// How many items wait; others may add more meanwhile.
    pub fn pending(&self) -> usize {
        self.queue.len()
    }

    /// Whether a notification waits for the next [`park`](Self::park), which will be refused. Called
    /// by a loop thread that spins instead of blocking.
    #[inline]
    pub fn is_notified(&self) -> bool {
        self.state.load(Ordering::Relaxed) == NOTIFIED
    }

    /// Announces that the loop thread is about to block in the poll. Returns whether it may.
    ///
    /// On false, an item or a notification came first and the loop stays running: poll without
    /// waiting. On true, the next sender wakes the poll; call [`unpark`](Self::unpark) after it.
    #[inline]
    #[must_use = "on false the poll must not block"]
    pub fn park(&self) -> bool {
        // Most refusals end here, before a sender can see PARKED and wake a poll that is awake. A
        // notification stays for the next call.
        if self.has_pending() {
            return false;
        }
        // Relaxed: the fence orders success, and on failure `unpark` reads the notification again.
        let parked =
            self.state.compare_exchange(RUNNING, PARKED, Ordering::Relaxed, Ordering::Relaxed);
        // PARKED must be visible before the queue is read; see the file header.
        fence(Ordering::SeqCst);
        if parked.is_ok() && self.queue.is_empty() {
            return true;
        }
        self.unpark();
        false
    }

    /// Announces that the loop thread runs again and looks at the inbox before it next blocks.
    #[inline]
    pub fn unpark(&self) {
        // An exchange rather than a store: it reads the notification that it overwrites, and with
        // acquire ordering sees everything written before it. One that comes later stays.
        self.state.swap(RUNNING, Ordering::Acquire);
    }
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Inbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("has_pending", &self.has_pending()).finish_non_exhaustive()
    }
}

/// The loop thread is awake and looks at the queue before it blocks.
const RUNNING: u8 = 0;
/// The loop thread blocks, or is about to: the next sender wakes it.
const PARKED: u8 = 1;
/// A wake-up is under way, or a notification waits for the next `park`.
const NOTIFIED: u8 = 2;

#[cfg(not(loom))]
mod sync {
    pub(super) use std::sync::atomic::{AtomicU8, Ordering, fence};

    pub(super) use crossbeam_queue::SegQueue as Queue;
}

/// Stand-ins under the model checker.
#[cfg(loom)]
mod sync {
    use std::collections::VecDeque;

    pub(super) use loom::sync::atomic::{AtomicU8, Ordering, fence};
    use loom::sync::{Mutex, atomic::AtomicUsize};

    /// A queue no stronger than `SegQueue`: `is_empty` reads relaxed counters that order nothing
    /// else, so that the inbox's own fences have to carry the proof. (With the lock alone every
    /// fence could be left out and no model would notice.)
    pub(super) struct Queue<T> {
        items: Mutex<VecDeque<T>>,
        pushed: AtomicUsize,
        popped: AtomicUsize,
    }

    impl<T> Queue<T> {
        pub(super) fn new() -> Self {
            Self {
                items: Mutex::new(VecDeque::new()),
                pushed: AtomicUsize::new(0),
                popped: AtomicUsize::new(0),
            }
        }

        pub(super) fn push(&self, item: T) {
            if let Ok(mut items) = self.items.lock() {
                items.push_back(item);
            }
            self.pushed.fetch_add(1, Ordering::Relaxed);
        }

        pub(super) fn pop(&self) -> Option<T> {
            let item = self.items.lock().ok()?.pop_front()?;
            self.popped.fetch_add(1, Ordering::Relaxed);
            Some(item)
        }

        pub(super) fn len(&self) -> usize {
            self.items.lock().map_or(0, |items| items.len())
        }

        pub(super) fn is_empty(&self) -> bool {
            self.popped.load(Ordering::Relaxed) == self.pushed.load(Ordering::Relaxed)
        }
    }
}
