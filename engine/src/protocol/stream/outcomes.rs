//! From pollers to the worker of a stream: which messages have ended, and how.

use std::sync::PoisonError;

use crate::order::{Order, Orders};
use crate::status::Status;
use crate::sync::{Mutex, MutexGuard};

/// Outcomes that nobody waits for are handed over when there are so many.
const QUIET_COUNT: usize = 128;

/// The outcomes of one epoch of a stream that its worker has not taken yet. Whoever reports one
/// that a sender waits for wakes the worker; the others come along.
#[derive(Debug)]
pub struct StreamOutcomes {
    worker: u16,
    stream: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    list: Vec<(u64, Status)>,
    /// The worker has been told and has not looked yet.
    told: bool,
}

impl StreamOutcomes {
    pub(crate) fn new(worker: u16, stream: u64) -> Self {
        Self { worker, stream, state: Mutex::default() }
    }

    /// Number of the stream in its node.
    pub(crate) fn stream(&self) -> u64 {
        self.stream
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message has ended. The worker is told at once if the sender waits for it.
    pub(crate) fn ended(&self, sequence: u64, status: Status, awaited: bool, orders: &dyn Orders) {
        let mut state = self.state();
        state.list.push((sequence, status));
        let tell = !state.told && (awaited || state.list.len() >= QUIET_COUNT);
        state.told |= tell;
        drop(state);
        if tell {
            orders.push(self.worker, Order::Outcomes { stream: self.stream });
        }
    }

    /// Takes what there is into `taken`, which is empty.
    pub(crate) fn take(&self, taken: &mut Vec<(u64, Status)>) {
        let mut state = self.state();
        state.told = false;
        std::mem::swap(&mut state.list, taken);
    }
}
