//! The write queue against a plain string of bytes, and the memory it owns.

use std::cell::Cell;
use std::io::IoSlice;
use std::rc::Rc;

use proptest::prelude::*;
use tokioloop_reactor::WriteQueue;

#[derive(Clone, Debug)]
enum Step {
    Push {
        len: usize,
    },
    /// Taken as `push_partial` when the queue is empty.
    PushPartial {
        len: usize,
        sent: prop::sample::Index,
    },
    Advance {
        part: prop::sample::Index,
    },
    AdvanceAll,
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0usize..20).prop_map(|len| Step::Push { len }),
        3 => (0usize..20, any::<prop::sample::Index>())
            .prop_map(|(len, sent)| Step::PushPartial { len, sent }),
        6 => any::<prop::sample::Index>().prop_map(|part| Step::Advance { part }),
        1 => Just(Step::AdvanceAll),
        1 => Just(Step::Clear),
    ]
}

/// Distinct bytes, so that a byte sent twice or out of order shows.
fn chunk(counter: &mut u8, len: usize) -> Vec<u8> {
    std::iter::repeat_with(|| {
        *counter = counter.wrapping_add(1);
        *counter
    })
    .take(len)
    .collect()
}

fn gathered<B: AsRef<[u8]>>(queue: &WriteQueue<B>, slices: usize) -> Vec<u8> {
    let mut out = vec![IoSlice::new(&[]); slices];
    let filled = queue.slices(&mut out);
    out[..filled].iter().flat_map(|slice| slice.to_vec()).collect()
}

proptest! {
    #[test]
    fn every_history_is_that_of_a_string(steps in prop::collection::vec(step(), 0..60)) {
        let mut queue = WriteQueue::new();
        let mut model: Vec<u8> = Vec::new();
        let mut counter = 0;
        for step in steps {
            match step {
                Step::PushPartial { len, sent } if queue.is_empty() => {
                    let chunk = chunk(&mut counter, len);
                    let sent = sent.index(len + 1);
                    model.extend(&chunk[sent..]);
                    queue.push_partial(chunk, sent);
                }
                Step::Push { len } | Step::PushPartial { len, .. } => {
                    let chunk = chunk(&mut counter, len);
                    model.extend(&chunk);
                    queue.push(chunk);
                }
                Step::Advance { part } => {
                    let n = part.index(model.len() + 1);
                    model.drain(..n);
                    queue.advance(n);
                }
                Step::AdvanceAll => {
                    queue.advance(model.len());
                    model.clear();
                }
                Step::Clear => {
                    queue.clear();
                    model.clear();
                }
            }
            prop_assert_eq!(queue.len_bytes(), model.len());
            prop_assert_eq!(queue.is_empty(), model.is_empty());
            prop_assert_eq!(&gathered(&queue, 1000), &model);
            let some = gathered(&queue, 3);
            prop_assert!(model.starts_with(&some));
            let first = queue.first().unwrap_or_default();
            prop_assert!(model.starts_with(first));
            prop_assert_eq!(first.is_empty(), model.is_empty());
            prop_assert!(queue.iter().all(|chunk| !chunk.is_empty()));
            let whole: Vec<u8> = queue.iter().flatten().copied().collect();
            prop_assert!(whole.ends_with(&model));
        }
    }
}

#[test]
fn an_idle_queue_is_two_words() {
    assert_eq!(size_of::<WriteQueue<Vec<u8>>>(), 2 * size_of::<usize>());
    assert_eq!(WriteQueue::<Vec<u8>>::new().capacity(), 0);
}

#[test]
fn slices_stop_at_the_room_they_are_given() {
    let mut queue = WriteQueue::new();
    assert_eq!(queue.slices(&mut [IoSlice::new(b"stale")]), 0);
    for chunk in ["ab", "cd", "ef"] {
        queue.push(chunk);
    }
    queue.advance(1);
    assert_eq!(queue.slices(&mut []), 0);
    let mut out = [IoSlice::new(&[]); 2];
    assert_eq!(queue.slices(&mut out), 2);
    assert_eq!((&*out[0], &*out[1]), (&b"b"[..], &b"cd"[..]));
}

#[test]
fn chunks_are_dropped_when_sent_and_not_before() {
    struct Chunk(Rc<Cell<usize>>);
    impl AsRef<[u8]> for Chunk {
        fn as_ref(&self) -> &[u8] {
            b"four"
        }
    }
    impl Drop for Chunk {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    let dropped = Rc::new(Cell::new(0));
    let mut queue = WriteQueue::new();
    for _ in 0..5 {
        queue.push(Chunk(dropped.clone()));
    }
    for (sent, expected) in [(3, 0), (1, 1), (5, 2), (2, 2), (1, 3)] {
        queue.advance(sent);
        assert_eq!(dropped.get(), expected);
    }
    queue.advance(8);
    assert_eq!((dropped.get(), queue.is_empty()), (5, true));
    queue.push_partial(Chunk(dropped.clone()), 4);
    assert_eq!((dropped.get(), queue.is_empty()), (6, true));
    queue.push(Chunk(dropped.clone()));
    queue.clear();
    assert_eq!(dropped.get(), 7);
}

#[test]
fn a_steady_cork_keeps_its_small_memory() {
    let mut queue = WriteQueue::new();
    queue.push("head");
    queue.push("body");
    let capacity = queue.capacity();
    for _ in 0..10 {
        let len = queue.len_bytes();
        queue.advance(len);
        assert_eq!(queue.capacity(), capacity);
        queue.push("head");
        queue.push("body");
        queue.push("trailer");
    }
}

#[test]
fn a_burst_leaves_no_memory_behind() {
    let mut queue = WriteQueue::new();
    for _ in 0..1000 {
        queue.push("chunk");
    }
    assert!(queue.capacity() >= 1000);
    queue.advance(4999);
    assert_eq!(queue.first(), Some(&b"k"[..]));
    queue.advance(1);
    assert_eq!(queue.capacity(), 0);
}

#[test]
fn clear_gives_even_the_small_memory_back() {
    let mut queue = WriteQueue::new();
    queue.push("chunk");
    queue.clear();
    assert_eq!((queue.capacity(), queue.len_bytes()), (0, 0));
}

#[test]
#[should_panic(expected = "2 bytes were sent ahead of 5 in the queue")]
fn a_partly_sent_chunk_cannot_follow_waiting_ones() {
    let mut queue = WriteQueue::new();
    queue.push("first");
    queue.push_partial("second", 2);
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "6 bytes sent of 5 in the queue"))]
fn advancing_beyond_the_end_is_caught_or_empties_the_queue() {
    let mut queue = WriteQueue::new();
    queue.push("chunk");
    queue.advance(6);
    assert_eq!((queue.is_empty(), queue.first()), (true, None));
}
