//! From workers to pollers and back: nobody sleeps while there is work, lines keep their order, and
//! a worker that holds a connection back is told when it may go on.

use std::sync::Arc;
use std::time::Duration;

use loom::sync::Mutex;
use loom::thread;

use super::{Recorder, explore};
use crate::buffer::Buffer;
use crate::delivery::{
    ConnLoad, Delivery, DeliveryQueue, Incoming, Item, LineId, Origin, PollEnd, Polled, PollerClass,
};
use crate::event::Event;
use crate::ids::Instant;
use crate::io::ConnId;
use crate::order::Order;
use crate::protocol::lately::{Digest, Lately, Verdict, Waiting};
use crate::status::Status;

const LINE: LineId = LineId { owner: 1, key: 7 };
const HOUR: Duration = Duration::from_secs(3600);

fn item(number: u8, line: Option<LineId>, origin: Origin) -> Item {
    let incoming = Incoming {
        sender: Arc::from([]),
        options: 0,
        timestamp_ms: 0,
        unique_id: [number; 16],
        buffer: Buffer::copy_of(&[number]),
        payload_start: 0,
        payload_end: 1,
    };
    Item { incoming, origin, line, reply: false, short: false }
}

/// One message or event; `None` when the queue is closed.
fn take(queue: &Arc<DeliveryQueue>, class: PollerClass) -> Option<Polled> {
    let mut out = Vec::new();
    match queue.poll(class, usize::MAX, 1, HOUR, || Instant(1), &mut out) {
        PollEnd::Taken { .. } => out.pop(),
        PollEnd::Closed => None,
        other => panic!("{other:?}"),
    }
}

fn take_message(queue: &Arc<DeliveryQueue>) -> Option<Delivery> {
    match take(queue, PollerClass::General)? {
        Polled::Message(delivery) => Some(delivery),
        Polled::Event(event) => panic!("{event:?}"),
    }
}

/// Each message with whether its listener has returned.
type Log = Arc<Mutex<Vec<(u8, bool)>>>;

/// Two pollers run listeners until the queue is closed; which messages began and ended, in order.
fn pollers(queue: &Arc<DeliveryQueue>, count: usize) -> (Vec<thread::JoinHandle<()>>, Log) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let threads = (0..count)
        .map(|_| {
            let (queue, log) = (Arc::clone(queue), Arc::clone(&log));
            thread::spawn(move || {
                while let Some(delivery) = take_message(&queue) {
                    let number = delivery.incoming().payload()[0];
                    log.lock().unwrap().push((number, false));
                    // The listener.
                    log.lock().unwrap().push((number, true));
                    delivery.complete(Status::Ok);
                }
            })
        })
        .collect();
    (threads, log)
}

pub fn loom_a_line_is_delivered_in_order_by_any_of_its_pollers() {
    explore(2, || {
        let queue = DeliveryQueue::new(1 << 20, 1_000, Recorder::new());
        let (threads, log) = pollers(&queue, 2);
        for number in 1..=2 {
            queue.push(&mut vec![item(number, Some(LINE), Origin::Nowhere)]);
        }
        queue.close();
        for thread in threads {
            thread.join().unwrap();
        }
        let log = log.lock().unwrap();
        assert_eq!(*log, [(1, false), (1, true), (2, false), (2, true)]);
        assert!(queue.is_idle());
    });
}

pub fn loom_a_message_in_pieces_keeps_its_place() {
    explore(2, || {
        let queue = DeliveryQueue::new(1 << 20, 1_000, Recorder::new());
        queue.reserve(LINE, 1);
        let (threads, log) = pollers(&queue, 1);
        queue.push(&mut vec![item(2, Some(LINE), Origin::Nowhere)]);
        queue.fill(LINE, 1, Some(item(1, Some(LINE), Origin::Nowhere)));
        queue.close();
        for thread in threads {
            thread.join().unwrap();
        }
        let log = log.lock().unwrap();
        assert_eq!(*log, [(1, false), (1, true), (2, false), (2, true)]);
    });
}

/// Each of two pollers takes one message: nobody sleeps while something is ready.
fn both_wake(one_push: bool) {
    explore(2, move || {
        let queue = DeliveryQueue::new(1 << 20, 1_000, Recorder::new());
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || {
                    let delivery = take_message(&queue).expect("it is not closed");
                    delivery.complete(Status::Ok);
                })
            })
            .collect();
        let mut items: Vec<Item> = (1..=2).map(|n| item(n, None, Origin::Nowhere)).collect();
        if one_push {
            queue.push(&mut items);
        } else {
            for item in items {
                queue.push(&mut vec![item]);
            }
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

pub fn loom_two_messages_in_one_push_wake_two_pollers() {
    both_wake(true);
}

pub fn loom_two_messages_in_two_pushes_wake_two_pollers() {
    both_wake(false);
}

pub fn loom_the_next_of_a_line_wakes_a_poller_when_the_one_before_has_ended() {
    explore(2, || {
        let queue = DeliveryQueue::new(1 << 20, 1_000, Recorder::new());
        let items = &mut (1..=2).map(|n| item(n, Some(LINE), Origin::Nowhere)).collect();
        queue.push(items);
        let first = take_message(&queue).expect("ready");
        let other = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let second = take_message(&queue).expect("it is not closed");
                assert_eq!(second.incoming().payload(), [2]);
            })
        };
        first.complete(Status::Ok);
        other.join().unwrap();
    });
}

pub fn loom_replies_and_events_wake_the_reserved_poller() {
    explore(2, || {
        let queue = DeliveryQueue::new(1 << 20, 1_000, Recorder::new());
        let reserved = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let taken: Vec<_> =
                    (0..2).map(|_| take(&queue, PollerClass::Reserved).expect("open")).collect();
                taken.iter().filter(|polled| matches!(polled, Polled::Message(_))).count()
            })
        };
        let worker = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let reply = Item { reply: true, ..item(1, None, Origin::Nowhere) };
                queue.push(&mut vec![reply]);
            })
        };
        queue.event(Event::Completed { token: 1, failures: Vec::new() });
        assert_eq!(reserved.join().unwrap(), 1, "the reply and the event");
        worker.join().unwrap();
    });
}

/// A worker has delivered two messages of a connection and asks to be resumed, as it does when
/// too much waits; their listeners end meanwhile.
pub fn loom_who_ends_the_last_message_of_a_held_connection_resumes_it() {
    explore(3, || {
        let told = Recorder::new();
        // Nothing of the limit: only the last one to end sees room.
        let queue = DeliveryQueue::new(0, 1_000, Arc::clone(&told) as Arc<_>);
        let load = Arc::new(ConnLoad::default());
        let conn = ConnId { slot: 3, generation: 1 };
        let items: Vec<Item> = (1..=2)
            .map(|n| {
                let load = Arc::clone(&load);
                let origin = Origin::Connection {
                    worker: 0,
                    conn,
                    sequence: n.into(),
                    wants_outcome: false,
                    load,
                };
                item(n, None, origin)
            })
            .collect();
        queue.push(&mut { items });
        let ending: Vec<_> = (0..2)
            .map(|_| {
                let delivery = take_message(&queue).expect("ready");
                thread::spawn(move || delivery.complete(Status::Ok))
            })
            .collect();
        let waits = load.pause();
        if waits {
            assert!(matches!(told.next(), Order::Resume { conn: c } if c == conn));
        } else {
            load.unpause();
        }
        for thread in ending {
            thread.join().unwrap();
        }
        let rest = told.rest();
        assert!(rest.len() <= usize::from(!waits), "resumed once: {rest:?}");
    });
}

/// A frame that was sent again waits for the outcome of its first copy, whose listener ends
/// meanwhile: it is acknowledged with it once.
pub fn loom_a_duplicate_gets_the_outcome_of_the_first_copy() {
    explore(3, || {
        let lately = Lately::new(15_000);
        let digest = Digest::of([1; 16], b"frame");
        let [first, second] = [1, 2].map(|number| lately.connected([7; 16], number, Instant(0)));
        let Verdict::New(seen) = first.judge(digest, Instant(0)) else { panic!("it is new") };
        let poller = {
            let seen = Arc::clone(&seen);
            thread::spawn(move || seen.end(Status::Ok).len())
        };
        let Verdict::Duplicate(same) = second.judge(digest, Instant(0)) else {
            panic!("it was there")
        };
        let conn = ConnId { slot: 3, generation: 1 };
        let known = same.outcome_or_wait(Waiting { worker: 0, conn, sequence: 1 });
        let told_count = poller.join().unwrap();
        assert_eq!(usize::from(known == Some(Status::Ok)) + told_count, 1);
    });
}
