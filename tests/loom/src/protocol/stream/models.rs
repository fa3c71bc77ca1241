//! Outcomes that pollers hand to the worker of a stream, and the room of messages in pieces.

use std::sync::Arc;

use loom::thread;

use super::{Reservations, StreamOutcomes};
use crate::models::{Recorder, explore};
use crate::order::{Order, Orders};
use crate::status::Status;

/// An outcome that a sender waits for reaches a worker that sleeps until it is told; one that
/// nobody waits for comes along or stays.
fn outcomes_arrive(awaited: [bool; 2]) {
    explore(3, move || {
        let told = Recorder::new();
        let outcomes = Arc::new(StreamOutcomes::new(0, 5));
        let pollers: Vec<_> = (0..2_u8)
            .map(|n| {
                let (told, outcomes) = (Arc::clone(&told), Arc::clone(&outcomes));
                thread::spawn(move || {
                    outcomes.ended(n.into(), Status::Ok, awaited[usize::from(n)], &*told)
                })
            })
            .collect();
        let (mut all, mut taken) = (Vec::new(), Vec::new());
        let is_there = |all: &[(u64, Status)], n: usize| all.iter().any(|(at, _)| *at == n as u64);
        while (0..2).any(|n| awaited[n] && !is_there(&all, n)) {
            let order = told.next();
            assert!(matches!(order, Order::Outcomes { stream: 5 }), "{order:?}");
            outcomes.take(&mut taken);
            all.append(&mut taken);
        }
        for poller in pollers {
            poller.join().unwrap();
        }
        outcomes.take(&mut taken);
        all.append(&mut taken);
        all.sort_unstable_by_key(|(n, _)| *n);
        assert_eq!(all, [(0, Status::Ok), (1, Status::Ok)], "each once");
    });
}

pub fn loom_two_awaited_outcomes_reach_the_worker() {
    outcomes_arrive([true, true]);
}

pub fn loom_an_outcome_that_nobody_waits_for_hides_none_that_is_awaited() {
    outcomes_arrive([false, true]);
}

/// Two streams of two workers want all the room that a third has; `leaves`: the first gives up.
fn room_goes_on(leaves: bool) {
    explore(2, move || {
        let told = [Recorder::new(), Recorder::new()];
        let all = Reservations::new(10, Arc::new(Split(told.clone())));
        let held = all.ask(0, 9, 10).expect("there is room");
        let streams: Vec<_> = (0..2_u16)
            .map(|worker| {
                let (all, told) = (Arc::clone(&all), Arc::clone(&told[usize::from(worker)]));
                thread::spawn(move || {
                    let stream = u64::from(worker);
                    let mut room = all.ask(worker, stream, 10);
                    if leaves && worker == 0 && room.is_none() {
                        all.withdraw(stream);
                        return;
                    }
                    while room.is_none() {
                        let order = told.next();
                        assert!(matches!(order, Order::Granted { stream: s } if s == stream));
                        room = all.claim(stream);
                    }
                    assert_eq!(all.used_bytes(), 10, "one at a time");
                })
            })
            .collect();
        drop(held);
        for stream in streams {
            stream.join().unwrap();
        }
        assert_eq!(all.used_bytes(), 0);
    });
}

/// An inbox for each of two workers.
struct Split([Arc<Recorder>; 2]);

impl Orders for Split {
    fn push(&self, worker: u16, order: Order) {
        self.0[usize::from(worker)].push(worker, order);
    }
}

pub fn loom_room_that_is_given_back_goes_to_the_next() {
    room_goes_on(false);
}

pub fn loom_a_stream_that_gives_up_holds_up_nobody() {
    room_goes_on(true);
}
