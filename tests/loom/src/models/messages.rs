//! The outcomes of a message: the first at each member counts, and whoever waits learns the last.

use std::sync::Arc;
use std::time::Instant;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::{Recorder, explore, far};
use crate::ids::{self, MemberId};
use crate::message::{Body, Completed, Envelope, Manner, Message, Waiter};
use crate::order::Orders;
use crate::phase::Phases;
use crate::status::Status;

fn message(members_count: u32, waiter: Waiter) -> Arc<Message> {
    let envelope = Envelope { options: 6, timestamp_ms: 0, unique_id: [0; 16] };
    let body = Body::new(Body::room(0, &envelope), None);
    let manner = Manner { key: None, reply: false, short: false, deadline: ids::Instant(u64::MAX) };
    let members = (0..members_count).map(|index| MemberId { index, generation: 1 }).collect();
    let orders: Arc<dyn Orders> = Recorder::new();
    let phase = Phases::new(&orders).present();
    Arc::new(Message::new(body, envelope, manner, members, waiter, phase))
}

/// A thread that sends to two members and sleeps until both have answered or `until`. It blocks on
/// nothing else: loom's `unpark` would end that too.
fn waiter(
    until: impl FnOnce() -> Instant + Send + 'static,
) -> (thread::JoinHandle<Vec<Option<Status>>>, Arc<Message>) {
    let slot = Arc::new(loom::sync::Mutex::new(None));
    let made = Arc::new(loom::sync::Condvar::new());
    let thread = {
        let (slot, made) = (Arc::clone(&slot), Arc::clone(&made));
        thread::spawn(move || {
            let sent = message(2, Waiter::Thread(thread::current()));
            *slot.lock().unwrap() = Some(Arc::clone(&sent));
            made.notify_one();
            sent.wait(until());
            (0..2).map(|index| sent.outcome(index)).collect()
        })
    };
    let mut there = slot.lock().unwrap();
    let sent = loop {
        if let Some(sent) = there.take() {
            break sent;
        }
        there = made.wait(there).unwrap();
    };
    drop(there);
    (thread, sent)
}

pub fn loom_who_sleeps_until_all_have_answered_is_woken_by_the_last() {
    explore(2, || {
        let (waiter, sent) = waiter(far);
        let worker = {
            let sent = Arc::clone(&sent);
            thread::spawn(move || sent.complete(0, Status::Ok))
        };
        let _ = sent.complete(1, Status::RemoteFailed);
        worker.join().unwrap();
        let seen = waiter.join().unwrap();
        assert_eq!(seen, [Some(Status::Ok), Some(Status::RemoteFailed)]);
        assert_eq!(sent.failures(), [(sent.destinations[1], Status::RemoteFailed)]);
    });
}

pub fn loom_an_outcome_and_a_deadline_that_race_leave_one_of_both() {
    explore(3, || {
        let (waiter, sent) = waiter(Instant::now);
        let in_time = sent.complete(1, Status::Ok) != Completed::Late;
        let seen = waiter.join().unwrap();
        let of_race = if in_time { Status::Ok } else { Status::Timeout };
        assert_eq!(seen, [Some(Status::Timeout), Some(of_race)]);
    });
}

pub fn loom_a_completion_event_is_due_once() {
    explore(3, || {
        let sent = message(2, Waiter::Token(7));
        let due_count = Arc::new(AtomicUsize::new(0));
        // An acknowledgement and a cut of the second member, whose outcome both write.
        let threads: Vec<_> = [[0, 1], [1, 0]]
            .into_iter()
            .zip([Status::Ok, Status::Cut])
            .map(|(indexes, status)| {
                let (sent, due_count) = (Arc::clone(&sent), Arc::clone(&due_count));
                thread::spawn(move || {
                    for index in indexes {
                        if sent.complete(index, status) == Completed::Last(Some(7)) {
                            assert_eq!(sent.outcome(0).is_some(), sent.outcome(1).is_some());
                            due_count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(due_count.load(Ordering::Relaxed), 1);
    });
}
