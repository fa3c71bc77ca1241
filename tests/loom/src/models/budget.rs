//! What may be queued for a member: who waits for room gets it, whoever else comes or goes.

use std::sync::Arc;
use std::time::Instant;

use loom::thread;

use super::{Recorder, explore, far, identity};
use crate::budget::{Budget, Waited};
use crate::ids::{self, BootId, MemberId};
use crate::message::Waiter;
use crate::shared::{Bounds, Shared};
use crate::submit::Envelope;

pub fn loom_room_goes_to_all_who_wait_one_after_the_other() {
    explore(2, || {
        let budget = Budget::new(1);
        let held = budget.try_admit(1).expect("room");
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let budget = Arc::clone(&budget);
                thread::spawn(move || drop(budget.wait_admit(1, far()).expect("room comes")))
            })
            .collect();
        drop(held);
        for thread in waiting {
            thread.join().unwrap();
        }
        assert_eq!(budget.used_and_most_bytes(), (0, 1), "never two at once");
        assert!(budget.try_admit(1).is_some(), "nobody is left in the queue");
    });
}

pub fn loom_room_for_two_lets_two_in() {
    explore(2, || {
        let budget = Budget::new(2);
        let held = budget.try_admit(2).expect("room");
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let budget = Arc::clone(&budget);
                thread::spawn(move || budget.wait_admit(1, far()).expect("room comes"))
            })
            .collect();
        drop(held);
        let tokens: Vec<_> = waiting.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(budget.used_and_most_bytes().0, 2);
        drop(tokens);
    });
}

pub fn loom_who_gives_up_lets_the_next_one_in() {
    explore(2, || {
        let budget = Budget::new(1);
        let held = budget.try_admit(1).expect("room");
        let hurried = {
            let budget = Arc::clone(&budget);
            // Its deadline passes at once: it is let in at its first look, or leaves.
            thread::spawn(move || match budget.wait_admit(1, Instant::now()) {
                Ok(token) => drop(token),
                Err(ended) => assert_eq!(ended, Waited::DeadlinePassed),
            })
        };
        let patient = {
            let budget = Arc::clone(&budget);
            thread::spawn(move || drop(budget.wait_admit(1, far()).expect("room comes")))
        };
        drop(held);
        hurried.join().unwrap();
        patient.join().unwrap();
        assert!(budget.try_admit(1).is_some(), "nobody is left in the queue");
    });
}

pub fn loom_a_cut_wakes_all_who_wait() {
    explore(2, || {
        let budget = Budget::new(1);
        let held = budget.try_admit(1).expect("room");
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let budget = Arc::clone(&budget);
                thread::spawn(move || {
                    assert_eq!(budget.wait_admit(1, far()).err(), Some(Waited::Closed));
                })
            })
            .collect();
        budget.close();
        for thread in waiting {
            thread.join().unwrap();
        }
        drop(held);
        assert_eq!(budget.used_and_most_bytes().0, 0);
    });
}

pub fn loom_messages_to_the_same_members_in_another_order_do_not_block_each_other() {
    explore(2, || {
        let bounds = Bounds { max_queue_bytes: 1, worker_count: 1, ..Bounds::default() };
        let shared = Shared::new(bounds, BootId([9; 16]), Recorder::new());
        let members: Vec<MemberId> = (1..=2)
            .map(|n| shared.directory.enter(&identity(n), b"").expect("usable").id)
            .collect();
        let send = move |shared: &Shared, members: &[MemberId]| {
            let envelope = Envelope { options: 0, timestamp_ms: 0, unique_id: [0; 16] };
            let builder = shared.compose(0, &envelope).expect("small");
            let deadline = ids::Instant(u64::MAX);
            let mut routed =
                shared.route(builder, None, false, members, deadline, Waiter::Token(1));
            let tokens = routed.admit(shared, far());
            assert_eq!(tokens.len(), 2, "room at both");
        };
        let other = {
            let (shared, members) = (Arc::clone(&shared), [members[1], members[0]]);
            thread::spawn(move || send(&shared, &members))
        };
        send(&shared, &members);
        other.join().unwrap();
        for entry in shared.directory.entries() {
            assert_eq!(entry.budget.used_and_most_bytes().0, 0);
        }
    });
}
