//! Deadlines in firing order, with true removal.
//!
//! A 4-ary heap of small copyable entries orders the deadlines; a slot table ([`slots`]) holds the
//! items and knows where each entry is, so that a cancelled timer is taken out at once instead of
//! waiting for its deadline as a tombstone. Most timers of a server are timeouts that never fire:
//! their cost is what counts. Two shortcuts keep those out of the heap. The newest timer waits
//! beside it until another one is inserted: an operation with a timeout has often ended by then.
//! And timers that are inserted in the order of their deadlines, as those of a fixed timeout are,
//! go into a queue ([`run`]), which removes from either end in O(1).
//!
//! Between calls these hold:
//! - every entry names a live slot, and that slot's position names the entry;
//! - in the heap, no entry sorts before its parent, by deadline and then by order of insertion;
//! - the run is sorted in the same order;
//! - heap, run and slot table each use about a quarter of their memory or more, or are small.
//!
//! Owned by one thread. Reads no clock and runs no callback.

mod run;
mod slots;

use std::fmt;

use self::run::Run;
use self::slots::Slots;
use crate::clock::Nanos;

/// A set of deadlines, each with the item that is due at that time.
///
/// Insertion and removal are O(log n) and allocate only to grow. They are O(1) for the timer that
/// was inserted last and, on average, for timers that were inserted in the order of their deadlines.
///
/// ```
/// use tokioloop_reactor::Timers;
///
/// let mut timers = Timers::new();
/// let slow = timers.insert(900, "slow");
/// timers.insert(100, "first");
/// timers.insert(100, "second");
/// assert_eq!(timers.remove(slow), Some("slow"));
/// assert_eq!(timers.remove(slow), None);
/// assert_eq!(timers.next_deadline(), Some(100));
/// assert_eq!(timers.pop_due(99), None);
/// assert_eq!(timers.pop_due(100), Some("first"));
/// assert_eq!(timers.pop_due(100), Some("second"));
/// assert!(timers.is_empty());
/// ```
pub struct Timers<T> {
    heap: Vec<Entry>,
    run: Run,
    newest: Option<Entry>,
    slots: Slots<T>,
    inserted: u64,
}

impl<T> Timers<T> {
    /// An empty set that owns no memory.
    pub const fn new() -> Self {
        Self { heap: Vec::new(), run: Run::new(), newest: None, slots: Slots::new(), inserted: 0 }
    }

    /// Adds a timer. Equal deadlines fire in the order of their insertion.
    #[inline]
    pub fn insert(&mut self, deadline: Nanos, item: T) -> TimerKey {
        let sequence = self.inserted;
        self.inserted += 1;
        let generation = sequence as u32;
        let slot = self.slots.insert(generation, OUTSIDE, item);
        if let Some(older) = self.newest.replace(Entry { deadline, sequence, slot }) {
            self.settle(older);
        }
        TimerKey { slot, generation }
    }

    /// Takes a timer out; `None` when it has fired or was removed before.
    #[inline]
    pub fn remove(&mut self, key: TimerKey) -> Option<T> {
        match self.slots.position(key.slot, key.generation)? {
            OUTSIDE => self.take_newest(),
            position if run::is_number(position) => self.take_of_run(position),
            position => self.take(position as usize),
        }
    }

    /// Takes the earliest timer out if its deadline is not after `now`.
    #[inline]
    pub fn pop_due(&mut self, now: Nanos) -> Option<T> {
        let first = self.first()?;
        if first.deadline > now {
            return None;
        }
        match self.slots.position_of(first.slot)? {
            OUTSIDE => self.take_newest(),
            position if run::is_number(position) => self.take_of_run(position),
            position => self.take(position as usize),
        }
    }

    /// Takes everything out, in firing order, and gives the memory back.
    ///
    /// All keys become stale. The items are returned, not dropped here, so that a caller whose
    /// items run code when they are dropped can let go of the timers first.
    pub fn drain(&mut self) -> Vec<T> {
        let mut entries = std::mem::take(&mut self.heap);
        entries.extend(std::mem::take(&mut self.run).iter());
        entries.extend(self.newest.take());
        entries.sort_unstable_by_key(|entry| entry.rank());
        let mut slots = std::mem::take(&mut self.slots);
        entries.into_iter().filter_map(|entry| slots.remove(entry.slot)).collect()
    }

    /// Drops every timer and gives the memory back; all keys become stale.
    pub fn clear(&mut self) {
        self.heap = Vec::new();
        self.run = Run::new();
        self.newest = None;
        self.slots = Slots::new();
    }

    /// The earliest deadline.
    #[inline]
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.first().map(|first| first.deadline)
    }

    /// How many timers wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.heap.len() + self.run.len() + usize::from(self.newest.is_some())
    }

    /// Whether no timer waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.newest.is_none() && self.run.len() == 0 && self.heap.is_empty()
    }

    /// How many timers fit without allocating; falls again when timers go.
    pub fn capacity(&self) -> usize {
        self.heap.capacity().max(self.run.capacity()).max(self.slots.capacity())
    }

    /// Every waiting item, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let entries = self.heap.iter().copied().chain(self.run.iter()).chain(self.newest);
        entries.filter_map(|entry| self.slots.get(entry.slot))
    }

    /// The entry that fires first.
    #[inline]
    fn first(&self) -> Option<Entry> {
        let others = self.run.first().into_iter().chain(self.newest);
        others.fold(self.heap.first().copied(), |first, entry| match first {
            Some(first) if first.rank() < entry.rank() => Some(first),
            _ => Some(entry),
        })
    }

    /// Puts an entry that is no longer the newest into the run or the heap.
    #[inline]
    fn settle(&mut self, entry: Entry) {
        if let Some(number) = self.run.push(entry) {
            self.slots.set_position(entry.slot, number);
        } else {
            self.heap.push(entry);
            self.sift_up(self.heap.len() - 1, entry);
        }
    }

    #[inline]
    fn take_of_run(&mut self, number: u32) -> Option<T> {
        let entry = self.run.remove(number)?;
        if self.run.is_sparse() {
            let slots = &mut self.slots;
            self.run.close_gaps(|entry, number| slots.set_position(entry.slot, number));
        }
        self.slots.remove(entry.slot)
    }

    #[inline]
    fn take_newest(&mut self) -> Option<T> {
        let newest = self.newest.take()?;
        self.slots.remove(newest.slot)
    }

    /// Takes a timer out of the heap.
    fn take(&mut self, position: usize) -> Option<T> {
        let entry = *self.heap.get(position)?;
        let last = self.heap.pop()?;
        if position < self.heap.len() {
            // The last entry comes from another branch, so it may belong above the gap or below.
            match self.parent(position) {
                Some((_, parent)) if last.rank() < parent.rank() => self.sift_up(position, last),
                _ => self.sift_down(position, last),
            }
        }
        shrink_when_sparse(&mut self.heap);
        self.slots.remove(entry.slot)
    }

    /// Moves the gap at `position` towards the root until `entry` may fill it.
    #[inline]
    fn sift_up(&mut self, mut position: usize, entry: Entry) {
        while let Some((above, parent)) = self.parent(position) {
            if parent.rank() < entry.rank() {
                break;
            }
            self.place(position, parent);
            position = above;
        }
        self.place(position, entry);
    }

    /// Moves the gap at `position` towards the leaves until `entry` may fill it.
    fn sift_down(&mut self, mut position: usize, entry: Entry) {
        while let Some((below, child)) = self.first_child(position) {
            if entry.rank() < child.rank() {
                break;
            }
            self.place(position, child);
            position = below;
        }
        self.place(position, entry);
    }

    #[inline]
    fn parent(&self, position: usize) -> Option<(usize, Entry)> {
        let above = position.checked_sub(1)? / ARITY;
        Some((above, *self.heap.get(above)?))
    }

    /// The child of `position` that fires first.
    #[inline]
    fn first_child(&self, position: usize) -> Option<(usize, Entry)> {
        let first = position * ARITY + 1;
        let end = self.heap.len().min(first + ARITY);
        let children = self.heap.get(first..end)?;
        let (index, child) = children.iter().enumerate().min_by_key(|(_, child)| child.rank())?;
        Some((first + index, *child))
    }

    #[inline]
    fn place(&mut self, position: usize, entry: Entry) {
        if let Some(place) = self.heap.get_mut(position) {
            *place = entry;
        }
        self.slots.set_position(entry.slot, position as u32);
    }
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Timers<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers")
            .field("len", &self.len())
            .field("next_deadline", &self.next_deadline())
            .finish_non_exhaustive()
    }
}

/// Identifies one timer for removal; stale once the timer has fired or was removed.
///
/// The generation is the low half of the insertion count, so a stale key is recognised until the
/// same slot is taken again exactly 2^32 insertions later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerKey {
    slot: u32,
    generation: u32,
}

impl TimerKey {
    /// The key as one word, for storage in a foreign object.
    #[inline]
    pub const fn to_u64(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// The key that [`TimerKey::to_u64`] was called on; any other word is a stale key.
    #[inline]
    pub const fn from_u64(word: u64) -> Self {
        Self { slot: word as u32, generation: (word >> 32) as u32 }
    }
}

/// What the heap moves around: 24 bytes, so that four children span two cache lines.
#[derive(Clone, Copy)]
struct Entry {
    deadline: Nanos,
    sequence: u64,
    slot: u32,
}

impl Entry {
    /// Deadline first, then order of insertion; one wide integer compares without a branch.
    #[inline]
    fn rank(&self) -> u128 {
        u128::from(self.deadline) << 64 | u128::from(self.sequence)
    }
}

/// Shrinks a large allocation of which less than a quarter is used.
///
/// Room for twice the entries stays, so it does not grow again before their number has doubled.
#[inline]
fn shrink_when_sparse<E>(entries: &mut Vec<E>) {
    let capacity = entries.capacity();
    if capacity > KEPT_CAPACITY && entries.len() < capacity / 4 {
        entries.shrink_to((entries.len() * 2).max(KEPT_CAPACITY));
    }
}

/// The position of the newest timer; no heap position or run number has this value.
const OUTSIDE: u32 = u32::MAX;

/// Children per entry: half the levels of a binary heap for two more comparisons at each.
const ARITY: usize = 4;

/// The capacity that stays however few timers wait (about 2.5 KB in all).
const KEPT_CAPACITY: usize = 64;
