//! Every interleaving of the inbox with its senders, by model checking.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p tokioloop-reactor --release --test inbox_loom`
//!
//! The poll is a semaphore that never times out: in a model where a wake-up can be lost, the loop
//! thread waits for ever and loom reports the deadlock. The library's queue is replaced by one that
//! orders nothing by itself, so what is checked here are the fences and states of the inbox.
#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use tokioloop_reactor::Inbox;

/// The part of a poll that matters: `wake` ends the `wait` under way, or the next one.
struct Poll {
    woken: Mutex<bool>,
    changed: Condvar,
    wakes: AtomicUsize,
}

impl Poll {
    fn new() -> Self {
        Self { woken: Mutex::new(false), changed: Condvar::new(), wakes: AtomicUsize::new(0) }
    }

    fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        *self.woken.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut woken = self.woken.lock().unwrap();
        while !*woken {
            woken = self.changed.wait(woken).unwrap();
        }
        *woken = false;
    }
}

struct Shared {
    inbox: Inbox<usize>,
    poll: Poll,
    stopping: AtomicBool,
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self { inbox: Inbox::new(), poll: Poll::new(), stopping: AtomicBool::new(false) })
    }

    fn send(&self, item: usize) {
        if self.inbox.push(item) {
            self.poll.wake();
        }
    }

    fn stop(&self) {
        // Relaxed: `notify` must publish it.
        self.stopping.store(true, Ordering::Relaxed);
        if self.inbox.notify() {
            self.poll.wake();
        }
    }

    /// One turn of the loop: block unless something came, then take what there is.
    fn turn(&self, taken: &mut Vec<usize>) {
        let blocked = self.inbox.park();
        if blocked {
            self.poll.wait();
            self.inbox.unpark();
        }
        while let Some(item) = self.inbox.pop() {
            taken.push(item);
        }
        if !blocked {
            // A refused park waits for nobody: the model must know that others may go on.
            thread::yield_now();
        }
    }
}

#[test]
fn an_item_always_reaches_a_loop_that_parks() {
    loom::model(|| {
        let shared = Shared::new();
        let sender = {
            let shared = shared.clone();
            thread::spawn(move || shared.send(1))
        };
        let mut taken = Vec::new();
        while taken.is_empty() {
            shared.turn(&mut taken);
        }
        sender.join().unwrap();
        assert_eq!(taken, [1]);
    });
}

#[test]
fn items_of_two_senders_all_arrive_each_sender_in_order() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let shared = Shared::new();
        let senders = [[10, 11].as_slice(), &[20]].map(|items| {
            let shared = shared.clone();
            thread::spawn(move || items.iter().for_each(|item| shared.send(*item)))
        });
        let mut taken = Vec::new();
        while taken.len() < 3 {
            shared.turn(&mut taken);
        }
        for sender in senders {
            sender.join().unwrap();
        }
        taken.sort_by_key(|item| item / 10);
        assert_eq!(taken, [10, 11, 20]);
        assert!(!shared.inbox.has_pending());
    });
}

#[test]
fn a_wake_up_under_way_is_not_repeated() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let shared = Shared::new();
        assert!(shared.inbox.park());
        let senders = [1, 2].map(|item| {
            let shared = shared.clone();
            thread::spawn(move || shared.send(item))
        });
        for sender in senders {
            sender.join().unwrap();
        }
        assert_eq!(shared.poll.wakes.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_notification_ends_the_block_or_refuses_the_park_and_publishes_the_flag() {
    loom::model(|| {
        let shared = Shared::new();
        let stopper = {
            let shared = shared.clone();
            thread::spawn(move || shared.stop())
        };
        let mut taken = Vec::new();
        // A loop that polls only when it may, and checks its flag once a turn.
        while !shared.stopping.load(Ordering::Relaxed) {
            shared.turn(&mut taken);
        }
        stopper.join().unwrap();
    });
}

#[test]
fn one_notification_refuses_at_most_one_park() {
    loom::model(|| {
        let shared = Shared::new();
        assert!(!shared.inbox.notify());
        assert!(!shared.inbox.park());
        assert!(shared.inbox.park());
        shared.inbox.unpark();
        assert!(shared.inbox.park());
    });
}

#[test]
fn an_item_and_a_notification_do_not_hide_each_other() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let shared = Shared::new();
        let sender = {
            let shared = shared.clone();
            thread::spawn(move || shared.send(1))
        };
        let stopper = {
            let shared = shared.clone();
            thread::spawn(move || shared.stop())
        };
        let mut taken = Vec::new();
        while taken.is_empty() || !shared.stopping.load(Ordering::Relaxed) {
            shared.turn(&mut taken);
        }
        sender.join().unwrap();
        stopper.join().unwrap();
        assert_eq!(taken, [1]);
    });
}
