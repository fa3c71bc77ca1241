//! The models: threads that use the engine's types as its own threads do.

pub mod budget;
pub mod closing;
pub mod deliveries;
pub mod inbox;
pub mod members;
pub mod messages;
pub mod phases;

use std::collections::VecDeque;
use std::sync::Arc;

use loom::sync::{Condvar, Mutex};

use crate::directory::{Identity, Incarnation};
use crate::ids::BootId;
use crate::order::{Order, Orders};

/// Runs `model` in every order of its steps that has up to `switches_count` switches against a
/// thread's will; those where a thread waits are free. Nearly all mistakes show with two.
pub(crate) fn explore(switches_count: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches_count);
    builder.check(model);
}

/// An eventfd as far as it matters: a ring is not lost, whether it comes before the sleep or in it.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    wake: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.wake.notify_one();
    }

    /// Sleeps until it is rung; loom reports a deadlock if it never is.
    pub(crate) fn sleep(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.wake.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// The inbox of a worker that takes its orders one by one, and sleeps while there is none.
#[derive(Default)]
pub(crate) struct Recorder {
    orders: Mutex<VecDeque<Order>>,
    came: Condvar,
}

impl Recorder {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The next order; loom reports a deadlock if it never comes.
    pub(crate) fn next(&self) -> Order {
        let mut orders = self.orders.lock().unwrap();
        loop {
            if let Some(order) = orders.pop_front() {
                return order;
            }
            orders = self.came.wait(orders).unwrap();
        }
    }

    /// All orders that nobody took.
    pub(crate) fn rest(&self) -> Vec<Order> {
        self.orders.lock().unwrap().drain(..).collect()
    }
}

impl Orders for Recorder {
    fn push(&self, _worker: u16, order: Order) {
        self.orders.lock().unwrap().push_back(order);
        self.came.notify_one();
    }
}

/// A moment that does not come while a model runs.
pub(crate) fn far() -> std::time::Instant {
    std::time::Instant::now() + std::time::Duration::from_secs(3600)
}

pub(crate) fn identity(number: u8) -> Identity {
    Identity { host: vec![127, 0, 0, number], port: 4000, unique_id: [number; 16] }
}

pub(crate) const fn life(number: u8) -> Incarnation {
    Incarnation { boot_id: BootId([number; 16]), features: 0, version_min: 1, version_max: 1 }
}
