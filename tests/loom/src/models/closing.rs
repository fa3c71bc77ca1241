//! A message that is submitted while the node closes has an outcome in every order of the steps.

use std::sync::Arc;

use loom::thread;

use super::{Bell, explore, far, identity};
use crate::closing::Closing;
use crate::ids::{self, BootId};
use crate::inbox::Inbox;
use crate::message::Waiter;
use crate::order::{Order, Orders};
use crate::shared::{Bounds, Shared};
use crate::status::Status;
use crate::submit::Envelope;

/// The way to one worker.
struct Way(Inbox<Order>);

impl Orders for Way {
    fn push(&self, _worker: u16, order: Order) {
        drop(self.0.push(order));
    }
}

/// What a worker does with its inbox: `worker::run` around a core that answers each message, until
/// its last order.
fn work(way: &Way, bell: &Bell, shared: &Shared) {
    'turns: loop {
        while let Some(order) = way.0.pop() {
            match order {
                Order::Send { message, destinations } => {
                    for destination in destinations {
                        shared.complete(&message, destination.index, Status::Ok);
                    }
                }
                Order::Close { .. } => break 'turns,
                other => panic!("{other:?}"),
            }
        }
        if way.0.prepare_sleep() {
            bell.sleep();
            way.0.woke();
        }
    }
    way.0.close();
}

pub fn loom_a_message_has_its_outcome_though_the_node_closes() {
    explore(3, || {
        let bell = Arc::new(Bell::default());
        let way = {
            let bell = Arc::clone(&bell);
            Arc::new(Way(Inbox::new(Box::new(move || bell.ring()))))
        };
        let bounds = Bounds { worker_count: 1, ..Bounds::default() };
        let shared = Shared::new(bounds, BootId([9; 16]), Arc::clone(&way) as Arc<_>);
        let closing = Arc::new(Closing::default());
        let entry = shared.directory.enter(&identity(1), b"").expect("usable");

        let worker = {
            let (way, bell, shared) = (Arc::clone(&way), Arc::clone(&bell), Arc::clone(&shared));
            thread::spawn(move || work(&way, &bell, &shared))
        };
        let sender = {
            let (shared, closing, member) = (Arc::clone(&shared), Arc::clone(&closing), entry.id);
            thread::spawn(move || {
                // USE_ACK with SYNCHRONIZED_ACK.
                let envelope = Envelope { options: 6, timestamp_ms: 0, unique_id: [0; 16] };
                let builder = shared.compose(0, &envelope).expect("small");
                let waiter = Waiter::Thread(thread::current());
                let deadline = ids::Instant(u64::MAX);
                let routed = shared.route(builder, None, false, &[member], deadline, waiter);
                let tokens = routed.try_admit().expect("room");
                let message = Arc::clone(&routed.message);
                shared.dispatch_unless_closed(&closing, routed, tokens);
                // loom reports a deadlock if there is none.
                message.wait(far());
                assert!(matches!(message.outcome(0), Some(Status::Ok | Status::Closed)));
            })
        };
        assert!(closing.begin());
        way.push(0, Order::Close { status: Status::Closed });
        worker.join().unwrap();
        sender.join().unwrap();
        assert_eq!(entry.budget.used_and_most_bytes().0, 0, "its room is given back");
    });
}
