//! The slot table under [`Timers`](super::Timers): stable numbers for items that move in the heap.
//!
//! A live slot holds its item, the item's position and the generation that tells its key from
//! older ones. Free slots form a list through the same memory, linked both ways so that a slot at
//! the end of the table can leave it: **the table never ends in a free slot**, so it shrinks as soon
//! as the timers that made it long have gone. The list is kept roughly in ascending order, which
//! draws new timers to the low end and lets the high end drain.

use super::shrink_when_sparse;

pub(super) struct Slots<T> {
    table: Vec<Slot<T>>,
    first_free: u32,
    last_free: u32,
}

impl<T> Slots<T> {
    pub(super) const fn new() -> Self {
        Self { table: Vec::new(), first_free: NONE, last_free: NONE }
    }

    #[inline]
    pub(super) fn insert(&mut self, generation: u32, position: u32, item: T) -> u32 {
        let live = Slot::Live { generation, position, item };
        let free = self.first_free;
        if free != NONE {
            self.unlink(free);
            if let Some(slot) = self.table.get_mut(free as usize) {
                *slot = live;
            }
            return free;
        }
        let slot = self.table.len();
        debug_assert!(slot < NONE as usize, "slot {slot} does not fit a key");
        self.table.push(live);
        slot as u32
    }

    /// Takes the item out and frees the slot.
    #[inline]
    pub(super) fn remove(&mut self, slot: u32) -> Option<T> {
        let place = self.table.get_mut(slot as usize)?;
        if let Slot::Free { .. } = place {
            debug_assert!(false, "slot {slot} is free already");
            return None;
        }
        let vacated = std::mem::replace(place, Slot::Free { previous: NONE, next: NONE });
        if slot as usize + 1 == self.table.len() {
            self.table.pop();
            self.drop_free_tail();
        } else {
            self.link(slot);
        }
        match vacated {
            Slot::Live { item, .. } => Some(item),
            Slot::Free { .. } => None,
        }
    }

    #[inline]
    pub(super) fn set_position(&mut self, slot: u32, moved_to: u32) {
        if let Some(Slot::Live { position, .. }) = self.table.get_mut(slot as usize) {
            *position = moved_to;
        }
    }

    /// The item's position in heap or run, if the slot still belongs to `generation`.
    #[inline]
    pub(super) fn position(&self, slot: u32, generation: u32) -> Option<u32> {
        match self.table.get(slot as usize)? {
            Slot::Live { generation: current, position, .. } if *current == generation => {
                Some(*position)
            }
            _ => None,
        }
    }

    /// The position of an item that is known to be live.
    #[inline]
    pub(super) fn position_of(&self, slot: u32) -> Option<u32> {
        match self.table.get(slot as usize)? {
            Slot::Live { position, .. } => Some(*position),
            Slot::Free { .. } => None,
        }
    }

    #[inline]
    pub(super) fn get(&self, slot: u32) -> Option<&T> {
        match self.table.get(slot as usize)? {
            Slot::Live { item, .. } => Some(item),
            Slot::Free { .. } => None,
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.table.capacity()
    }

    /// Restores the invariant after the last slot has left the table.
    #[inline]
    fn drop_free_tail(&mut self) {
        while let Some(Slot::Free { .. }) = self.table.last() {
            self.unlink((self.table.len() - 1) as u32);
            self.table.pop();
        }
        shrink_when_sparse(&mut self.table);
    }

    /// Puts a free slot before the list if it is lower than the first, else after it.
    fn link(&mut self, slot: u32) {
        let goes_first = slot < self.first_free;
        let previous = if goes_first { NONE } else { self.last_free };
        let next = if goes_first { self.first_free } else { NONE };
        if let Some(place) = self.table.get_mut(slot as usize) {
            *place = Slot::Free { previous, next };
        }
        self.set_next(previous, slot);
        self.set_previous(next, slot);
    }

    fn unlink(&mut self, slot: u32) {
        if let Some(&Slot::Free { previous, next }) = self.table.get(slot as usize) {
            self.set_next(previous, next);
            self.set_previous(next, previous);
        }
    }

    /// Links `following` after `slot`, or makes it the list's first if `slot` is `NONE`.
    #[inline]
    fn set_next(&mut self, slot: u32, following: u32) {
        match self.table.get_mut(slot as usize) {
            Some(Slot::Free { next, .. }) => *next = following,
            _ => self.first_free = following,
        }
    }

    /// Links `preceding` before `slot`, or makes it the list's last if `slot` is `NONE`.
    #[inline]
    fn set_previous(&mut self, slot: u32, preceding: u32) {
        match self.table.get_mut(slot as usize) {
            Some(Slot::Free { previous, .. }) => *previous = preceding,
            _ => self.last_free = preceding,
        }
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Sixteen bytes for a pointer-like item: the niche in the item tells the two kinds apart.
enum Slot<T> {
    Live { generation: u32, position: u32, item: T },
    Free { previous: u32, next: u32 },
}

/// "No slot" in the links; larger than any slot number, so every slot sorts before it.
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_with_a_pointer_is_two_words() {
        assert_eq!(size_of::<Slot<Box<u8>>>(), 16);
    }

    #[test]
    fn the_table_never_ends_in_a_free_slot() {
        let mut slots = Slots::new();
        for number in 0..100 {
            assert_eq!(slots.insert(0, 0, number), number);
        }
        for number in (0..99).rev() {
            assert_eq!(slots.remove(number), Some(number));
        }
        assert_eq!(slots.table.len(), 100);
        assert_eq!(slots.remove(99), Some(99));
        assert_eq!(slots.table.len(), 0);
        assert_eq!((slots.first_free, slots.last_free), (NONE, NONE));
    }

    #[test]
    fn freed_slots_are_taken_again_from_the_low_end() {
        let mut slots = Slots::new();
        for number in 0..10 {
            slots.insert(0, 0, number);
        }
        for number in [2, 7, 1, 5] {
            slots.remove(number);
        }
        assert_eq!(slots.insert(1, 0, 100), 1);
        assert_eq!(slots.insert(1, 0, 101), 2);
        assert_eq!(slots.insert(1, 0, 102), 7);
        assert_eq!(slots.insert(1, 0, 103), 5);
        assert_eq!(slots.insert(1, 0, 104), 10);
    }
}
