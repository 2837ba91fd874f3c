//! Timers against a sorted map, and the memory they own.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use tokioloop_reactor::{TimerKey, Timers};

#[derive(Clone, Debug)]
enum Step {
    Insert {
        deadline: u64,
    },
    /// Removes the timer of some earlier insertion, which may be gone.
    Remove {
        chosen: prop::sample::Index,
    },
    RemoveNewest,
    PopDue {
        now: u64,
    },
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    // Few distinct deadlines, so that many are equal.
    prop_oneof![
        8 => (0u64..40).prop_map(|deadline| Step::Insert { deadline }),
        4 => any::<prop::sample::Index>().prop_map(|chosen| Step::Remove { chosen }),
        2 => Just(Step::RemoveNewest),
        4 => (0u64..40).prop_map(|now| Step::PopDue { now }),
        1 => Just(Step::Drain),
    ]
}

/// What the timers should do, in a structure that is in firing order by itself.
#[derive(Default)]
struct Model {
    waiting: BTreeMap<(u64, usize), usize>,
    deadlines: Vec<u64>,
}

impl Model {
    fn insert(&mut self, deadline: u64) -> usize {
        let number = self.deadlines.len();
        self.deadlines.push(deadline);
        self.waiting.insert((deadline, number), number);
        number
    }

    fn remove(&mut self, number: usize) -> Option<usize> {
        self.waiting.remove(&(self.deadlines[number], number))
    }

    fn pop_due(&mut self, now: u64) -> Option<usize> {
        let first = self.waiting.first_entry()?;
        if first.key().0 <= now { Some(first.remove()) } else { None }
    }
}

proptest! {
    #[test]
    fn every_history_is_that_of_a_sorted_map(steps in prop::collection::vec(step(), 0..200)) {
        let mut timers = Timers::new();
        let mut model = Model::default();
        let mut keys: Vec<TimerKey> = Vec::new();
        for step in steps {
            match step {
                Step::Insert { deadline } => {
                    let number = model.insert(deadline);
                    keys.push(timers.insert(deadline, number));
                }
                Step::Remove { chosen } if !keys.is_empty() => {
                    let number = chosen.index(keys.len());
                    prop_assert_eq!(timers.remove(keys[number]), model.remove(number));
                    prop_assert_eq!(timers.remove(keys[number]), None);
                }
                Step::RemoveNewest if !keys.is_empty() => {
                    let number = keys.len() - 1;
                    prop_assert_eq!(timers.remove(keys[number]), model.remove(number));
                }
                Step::Remove { .. } | Step::RemoveNewest => {}
                Step::PopDue { now } => {
                    prop_assert_eq!(timers.pop_due(now), model.pop_due(now));
                }
                Step::Drain => {
                    let expected = std::mem::take(&mut model.waiting);
                    prop_assert_eq!(timers.drain(), expected.into_values().collect::<Vec<_>>());
                }
            }
            prop_assert_eq!(timers.len(), model.waiting.len());
            prop_assert_eq!(timers.is_empty(), model.waiting.is_empty());
            prop_assert_eq!(
                timers.next_deadline(),
                model.waiting.first_key_value().map(|(&(deadline, _), _)| deadline)
            );
        }
        let mut seen: Vec<usize> = timers.iter().copied().collect();
        seen.sort_unstable();
        let mut expected: Vec<usize> = model.waiting.values().copied().collect();
        expected.sort_unstable();
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn removals_from_a_deep_heap_leave_the_rest_in_order(
        fates in prop::collection::vec((0u64..1000, any::<bool>()), 0..300),
    ) {
        let mut timers = Timers::new();
        let keys: Vec<TimerKey> =
            fates.iter().map(|&(deadline, _)| timers.insert(deadline, deadline)).collect();
        let mut staying = Vec::new();
        for (key, (deadline, stays)) in keys.into_iter().zip(fates) {
            if stays {
                staying.push(deadline);
            } else {
                prop_assert_eq!(timers.remove(key), Some(deadline));
            }
        }
        staying.sort_unstable();
        let fired: Vec<u64> = std::iter::from_fn(|| timers.pop_due(1000)).collect();
        prop_assert_eq!(fired, staying);
    }

    #[test]
    fn timers_that_come_in_order_may_go_in_any(
        fates in prop::collection::vec((0u64..3, any::<prop::sample::Index>(), 0u8..8), 0..800),
    ) {
        let mut timers = Timers::new();
        let mut model = Model::default();
        let mut keys: Vec<TimerKey> = Vec::new();
        let mut deadline = 0;
        for (step, chosen, fate) in fates {
            deadline += step;
            let number = model.insert(deadline);
            keys.push(timers.insert(deadline, number));
            // In the middle, at the far end, and as time goes by.
            match fate {
                0..=3 => {
                    let number = chosen.index(keys.len());
                    prop_assert_eq!(timers.remove(keys[number]), model.remove(number));
                }
                4 => prop_assert_eq!(timers.pop_due(deadline / 2), model.pop_due(deadline / 2)),
                _ => {}
            }
            prop_assert_eq!(timers.len(), model.waiting.len());
        }
        let expected = std::mem::take(&mut model.waiting);
        let fired: Vec<usize> = std::iter::from_fn(|| timers.pop_due(deadline)).collect();
        prop_assert_eq!(fired, expected.into_values().collect::<Vec<_>>());
        prop_assert!(timers.is_empty());
    }

    #[test]
    fn a_key_survives_the_trip_through_a_word(inserted in 1usize..50) {
        let mut timers = Timers::new();
        let keys: Vec<TimerKey> = (0..inserted).map(|n| timers.insert(7, n)).collect();
        for (number, key) in keys.into_iter().enumerate().rev() {
            prop_assert_eq!(TimerKey::from_u64(key.to_u64()), key);
            prop_assert_eq!(timers.remove(TimerKey::from_u64(key.to_u64())), Some(number));
        }
    }
}

#[test]
fn a_key_is_one_word() {
    assert_eq!(size_of::<TimerKey>(), 8);
}

#[test]
fn the_newest_timer_fires_in_its_turn_too() {
    for (deadlines, expected) in
        [([5, 3], [1, 0]), ([3, 5], [0, 1]), ([4, 4], [0, 1]), ([9, 5], [1, 0])]
    {
        let mut timers = Timers::new();
        for (number, deadline) in deadlines.into_iter().enumerate() {
            timers.insert(deadline, number);
        }
        let earliest = deadlines.into_iter().min().unwrap();
        assert_eq!(timers.next_deadline(), Some(earliest));
        assert_eq!(timers.pop_due(earliest - 1), None);
        let fired: Vec<usize> = std::iter::from_fn(|| timers.pop_due(9)).collect();
        assert_eq!(fired, expected);
    }
}

#[test]
fn equal_deadlines_fire_in_the_order_of_insertion() {
    let mut timers = Timers::new();
    let cancelled: Vec<TimerKey> = (0..100).map(|n| timers.insert(5, 1000 + n)).collect();
    for number in 0..100 {
        timers.insert(5, number);
    }
    for key in cancelled {
        assert!(timers.remove(key).is_some());
    }
    let fired: Vec<i32> = std::iter::from_fn(|| timers.pop_due(5)).collect();
    assert_eq!(fired, (0..100).collect::<Vec<i32>>());
}

#[test]
fn a_stale_key_does_not_remove_the_timer_that_took_its_slot() {
    let mut timers = Timers::new();
    let stale = timers.insert(1, "old");
    assert_eq!(timers.pop_due(1), Some("old"));
    let fresh = timers.insert(2, "new");
    assert_eq!(timers.remove(stale), None);
    assert_eq!(timers.remove(TimerKey::from_u64(u64::MAX)), None);
    assert_eq!(timers.remove(fresh), Some("new"));
}

#[test]
fn keys_from_before_a_drain_or_clear_are_stale() {
    let mut timers = Timers::new();
    let first = timers.insert(1, 'a');
    assert_eq!(timers.drain(), ['a']);
    let second = timers.insert(1, 'b');
    assert_eq!(timers.remove(first), None);
    timers.clear();
    assert_eq!(timers.capacity(), 0);
    timers.insert(1, 'c');
    assert_eq!((timers.remove(first), timers.remove(second)), (None, None));
    assert_eq!(timers.drain(), ['c']);
}

/// Cancels a hundred thousand timers in the given order and expects their memory back.
fn assert_cancelled_timers_cost_no_memory(order: impl Fn(&mut Vec<TimerKey>)) {
    const MANY: usize = 100_000;
    let mut timers = Timers::new();
    let survivor = timers.insert(u64::MAX, MANY);
    let mut keys: Vec<TimerKey> =
        (0..MANY).map(|n| timers.insert((n as u64 * 7919) % 1000, n)).collect();
    assert!(timers.capacity() >= MANY);
    order(&mut keys);
    for key in keys {
        assert!(timers.remove(key).is_some());
    }
    assert_eq!(timers.len(), 1);
    assert!(timers.capacity() <= 128, "{} places kept for one timer", timers.capacity());
    assert_eq!(timers.remove(survivor), Some(MANY));
}

#[test]
fn timers_cancelled_oldest_first_cost_no_memory() {
    assert_cancelled_timers_cost_no_memory(|_| {});
}

#[test]
fn timers_cancelled_newest_first_cost_no_memory() {
    assert_cancelled_timers_cost_no_memory(|keys| keys.reverse());
}

#[test]
fn timers_cancelled_in_a_scattered_order_cost_no_memory() {
    assert_cancelled_timers_cost_no_memory(|keys| {
        keys.sort_by_key(|key| key.to_u64().wrapping_mul(0x9e37_79b9_7f4a_7c15));
    });
}

#[test]
fn a_late_survivor_of_a_burst_does_not_pin_its_memory() {
    let mut timers = Timers::new();
    let burst: Vec<TimerKey> = (0..10_000).map(|n| timers.insert(1, n)).collect();
    let mut newest = timers.insert(2, 0);
    for key in burst {
        timers.remove(key);
    }
    // Timers come and go, always one of them waiting: they move to the low end of the table.
    for number in 0..100 {
        let next = timers.insert(2, number);
        assert!(timers.remove(newest).is_some());
        newest = next;
    }
    assert!(timers.capacity() <= 128, "{} places kept for one timer", timers.capacity());
}

#[test]
fn a_steady_number_of_timers_does_not_grow_the_memory() {
    let mut timers = Timers::new();
    let mut waiting: Vec<TimerKey> = (0..50).map(|n| timers.insert(n, n)).collect();
    let capacity = timers.capacity();
    for round in 50..5_000 {
        let oldest = (round % 50) as usize;
        assert!(timers.remove(waiting[oldest]).is_some());
        waiting[oldest] = timers.insert(round * 31 % 977, round);
        assert_eq!(timers.capacity(), capacity);
    }
}
