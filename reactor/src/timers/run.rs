//! The queue beside the heap of [`Timers`](super::Timers): entries that came in firing order.
//!
//! An entry is found by its number. Numbers count up from one end of the queue to the other, so they
//! stay valid while entries leave at either end. An entry that leaves in the middle becomes a gap;
//! once more than half of the queue is gaps, they are closed. **Neither end is a gap.**

use std::collections::VecDeque;

use super::{Entry, KEPT_CAPACITY};

#[derive(Default)]
pub(super) struct Run {
    entries: VecDeque<Option<Entry>>,
    /// The number of the first entry.
    first: u32,
    gaps: usize,
}

impl Run {
    pub(super) const fn new() -> Self {
        Self { entries: VecDeque::new(), first: 0, gaps: 0 }
    }

    /// Appends an entry that is newer than all others and returns its number, or None if it would
    /// fire before the last one or the queue is full.
    #[inline]
    pub(super) fn push(&mut self, entry: Entry) -> Option<u32> {
        match self.entries.back() {
            Some(Some(last)) if entry.deadline < last.deadline => return None,
            _ if self.entries.len() >= COUNT as usize => return None,
            _ => {}
        }
        let number = self.number(self.entries.len());
        self.entries.push_back(Some(entry));
        Some(number)
    }

    /// The entry that fires first.
    #[inline]
    pub(super) fn first(&self) -> Option<Entry> {
        self.entries.front().copied().flatten()
    }

    /// Takes an entry out.
    #[inline]
    pub(super) fn remove(&mut self, number: u32) -> Option<Entry> {
        let index = (number.wrapping_sub(self.first) & COUNT) as usize;
        let entry = self.entries.get_mut(index)?.take()?;
        self.gaps += 1;
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            self.first = self.first.wrapping_add(1) & COUNT;
            self.gaps -= 1;
        }
        while let Some(None) = self.entries.back() {
            self.entries.pop_back();
            self.gaps -= 1;
        }
        Some(entry)
    }

    /// Whether it is time to close the gaps.
    #[inline]
    pub(super) fn is_sparse(&self) -> bool {
        self.entries.capacity() > KEPT_CAPACITY
            && (self.gaps > self.len() || self.entries.len() < self.entries.capacity() / 4)
    }

    /// Removes the gaps, gives back memory, and calls `moved` with each entry's new number.
    #[cold]
    pub(super) fn close_gaps(&mut self, mut moved: impl FnMut(Entry, u32)) {
        self.entries.retain(Option::is_some);
        self.gaps = 0;
        self.entries.shrink_to((self.entries.len() * 2).max(KEPT_CAPACITY));
        for (index, entry) in self.entries.iter().enumerate() {
            if let Some(entry) = entry {
                moved(*entry, self.number(index));
            }
        }
    }

    /// Every entry, in firing order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Entry> {
        self.entries.iter().copied().flatten()
    }

    /// How many entries there are, gaps not counted.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.gaps
    }

    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    #[inline]
    fn number(&self, index: usize) -> u32 {
        MARK | (self.first.wrapping_add(index as u32) & COUNT)
    }
}

/// Whether a position is a number of the run, which no position in the heap is.
#[inline]
pub(super) fn is_number(position: u32) -> bool {
    position & MARK != 0
}

/// Distinguishes numbers from positions in the heap.
const MARK: u32 = 1 << 31;
/// The counting bits of a number; one bit is left out, so that no number is `u32::MAX`.
const COUNT: u32 = (1 << 30) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(deadline: u64) -> Entry {
        Entry { deadline, sequence: deadline, slot: deadline as u32 }
    }

    #[test]
    fn numbers_outlive_removals_at_both_ends_and_in_the_middle() {
        let mut run = Run::new();
        let numbers = (0..10).map(|time| run.push(entry(time)).unwrap()).collect::<Vec<_>>();
        for removed in [0, 9, 4, 1, 8] {
            assert_eq!(run.remove(numbers[removed]).unwrap().deadline, removed as u64);
            assert!(run.remove(numbers[removed]).is_none());
        }
        assert_eq!(run.iter().map(|entry| entry.deadline).collect::<Vec<_>>(), [2, 3, 5, 6, 7]);
        assert_eq!(run.len(), 5);
        assert_eq!(run.first().unwrap().deadline, 2);
    }

    #[test]
    fn an_earlier_entry_is_refused() {
        let mut run = Run::new();
        run.push(entry(5)).unwrap();
        assert!(run.push(entry(4)).is_none());
        assert!(run.push(entry(5)).is_some());
    }

    #[test]
    fn numbers_run_over() {
        let mut run = Run { first: COUNT - 1, ..Run::new() };
        let numbers = (0..5).map(|time| run.push(entry(time)).unwrap()).collect::<Vec<_>>();
        for (time, number) in numbers.into_iter().enumerate() {
            assert!(is_number(number) && number != u32::MAX);
            assert_eq!(run.remove(number).unwrap().deadline, time as u64);
        }
        assert_eq!(run.len(), 0);
    }

    #[test]
    fn closing_up_renumbers_what_is_left() {
        let mut run = Run::new();
        let numbers = (0..1000).map(|time| run.push(entry(time)).unwrap()).collect::<Vec<_>>();
        for number in &numbers[1..900] {
            run.remove(*number);
        }
        assert!(run.is_sparse());
        let mut current = vec![0; 1000];
        run.close_gaps(|entry, number| current[entry.slot as usize] = number);
        assert!(run.capacity() < 500);
        assert_eq!(run.remove(current[950]).unwrap().deadline, 950);
        assert_eq!(run.remove(current[0]).unwrap().deadline, 0);
        assert_eq!(run.first().unwrap().deadline, 900);
    }
}
