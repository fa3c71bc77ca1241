//! The inbox of a worker: no wake-up is lost, and nothing stays inside when it is closed.

use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::Bell;
use crate::inbox::Inbox;

fn explore(pushers_count: usize) {
    let mut model = loom::model::Builder::new();
    // All orders of one pusher; of two, those with up to three switches against a thread's will.
    model.preemption_bound = (pushers_count > 1).then_some(3);
    model.check(move || {
        let bell = Arc::new(Bell::default());
        let rings = Arc::new(AtomicUsize::new(0));
        let inbox = {
            let (bell, rings) = (Arc::clone(&bell), Arc::clone(&rings));
            Arc::new(Inbox::new(Box::new(move || {
                rings.fetch_add(1, Ordering::Relaxed);
                bell.ring();
            })))
        };
        let pushers: Vec<_> = (0..pushers_count)
            .map(|n| {
                let inbox = Arc::clone(&inbox);
                thread::spawn(move || inbox.push(n).unwrap())
            })
            .collect();
        let mut got_count = 0;
        while got_count < pushers_count {
            while inbox.pop().is_some() {
                got_count += 1;
            }
            if got_count < pushers_count && inbox.prepare_sleep() {
                // loom reports a deadlock if the bell never rings.
                bell.sleep();
                inbox.woke();
            }
        }
        for pusher in pushers {
            pusher.join().unwrap();
        }
        assert!(rings.load(Ordering::Relaxed) <= pushers_count);
    });
}

pub fn loom_no_wake_up_is_lost_with_one_pusher() {
    explore(1);
}

pub fn loom_no_wake_up_is_lost_with_two_pushers() {
    explore(2);
}

pub fn loom_nothing_stays_inside_a_closed_inbox() {
    loom::model(|| {
        let inbox = Arc::new(Inbox::new(Box::new(|| {})));
        // Owned as a message owns its place in a budget.
        let owned = Arc::new(());
        let pusher = {
            let (inbox, owned) = (Arc::clone(&inbox), Arc::clone(&owned));
            thread::spawn(move || drop(inbox.push(owned)))
        };
        inbox.close();
        pusher.join().unwrap();
        assert_eq!(Arc::strong_count(&owned), 1, "given back");
        assert!(inbox.push(Arc::clone(&owned)).is_err(), "refused from now on");
    });
}
