//! The inbox under real threads and with the real queue; `inbox_loom.rs` has the interleavings.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tokioloop_reactor::Inbox;

const SENDERS: usize = 8;
const ITEMS: usize = 20_000;

/// How long a wake-up may take before it counts as lost, on however busy a machine.
const LOST: Duration = Duration::from_secs(30);

/// Wakes the poll: one wake-up is kept until it is taken, a second one adds nothing.
fn give(wake: &SyncSender<()>) {
    if let Err(TrySendError::Disconnected(())) = wake.try_send(()) {
        panic!("the loop has gone");
    }
}

/// Blocks like a poll until a wake-up is given.
fn block(poll: &Receiver<()>) {
    match poll.recv_timeout(LOST) {
        Ok(()) => {}
        Err(RecvTimeoutError::Timeout) => panic!("the loop was left asleep"),
        Err(RecvTimeoutError::Disconnected) => panic!("a sender panicked"),
    }
}

#[test]
fn eight_senders_lose_nothing_and_never_leave_the_loop_asleep() {
    let inbox = Inbox::new();
    let wakes = AtomicUsize::new(0);
    let (wake, woken) = sync_channel(1);
    let mut parks = 0;
    let mut next = [0; SENDERS];

    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (inbox, wakes, wake) = (&inbox, &wakes, wake.clone());
            scope.spawn(move || {
                for item in 0..ITEMS {
                    if inbox.push((sender, item)) {
                        wakes.fetch_add(1, Ordering::Relaxed);
                        give(&wake);
                    }
                    if item % 64 == 0 {
                        thread::yield_now(); // lets the loop run dry and park
                    }
                }
            });
        }
        let mut taken = 0;
        while taken < SENDERS * ITEMS {
            parks += 1;
            if inbox.park() {
                block(&woken);
                inbox.unpark();
            }
            while let Some((sender, item)) = inbox.pop() {
                assert_eq!(item, next[sender], "items of sender {sender} out of order");
                next[sender] += 1;
                taken += 1;
            }
        }
    });

    assert_eq!(next, [ITEMS; SENDERS]);
    assert!(!inbox.has_pending());
    let wakes = wakes.load(Ordering::Relaxed);
    assert!(wakes <= parks, "{wakes} wake-ups for {parks} parks");
}

#[test]
fn a_request_and_reply_wakes_the_loop_each_time() {
    let inbox = Inbox::new();
    let (wake, woken) = sync_channel(1);
    let (reply, replies) = sync_channel(0);

    thread::scope(|scope| {
        let inbox = &inbox;
        scope.spawn(move || {
            for item in 0..2_000 {
                if inbox.push(item) {
                    give(&wake);
                }
                assert_eq!(replies.recv_timeout(LOST), Ok(item));
            }
        });
        let mut expected = 0;
        while expected < 2_000 {
            if inbox.park() {
                block(&woken);
                inbox.unpark();
            }
            while let Some(item) = inbox.pop() {
                assert_eq!(item, expected);
                expected += 1;
                reply.send(item).unwrap();
            }
        }
    });
}

#[test]
fn notifications_from_many_threads_stop_a_parked_loop() {
    for _ in 0..200 {
        let inbox: Inbox<()> = Inbox::new();
        let stopping = AtomicBool::new(false);
        let (wake, woken) = sync_channel(1);
        thread::scope(|scope| {
            for _ in 0..2 {
                let (inbox, stopping, wake) = (&inbox, &stopping, wake.clone());
                scope.spawn(move || {
                    stopping.store(true, Ordering::Relaxed);
                    if inbox.notify() {
                        give(&wake);
                    }
                });
            }
            while !stopping.load(Ordering::Relaxed) {
                if inbox.park() {
                    block(&woken);
                    inbox.unpark();
                }
            }
        });
    }
}

#[test]
fn items_that_nobody_took_are_dropped_with_the_inbox() {
    let item = std::sync::Arc::new(());
    let inbox = Inbox::new();
    for _ in 0..100 {
        assert!(!inbox.push(item.clone()));
    }
    assert!(inbox.has_pending());
    drop(inbox);
    assert_eq!(std::sync::Arc::strong_count(&item), 1);
}
