//! Room for messages that come in several frames: one bound for the node, first come, first
//! served. A message gets its whole room before its second frame may be sent, so what is open can
//! always finish.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use crate::order::{Order, Orders};
use crate::sync::{Mutex, MutexGuard};

/// See the module.
pub struct Reservations {
    limit_bytes: usize,
    state: Mutex<State>,
    orders: Arc<dyn Orders>,
}

#[derive(Debug, Default)]
struct State {
    used_bytes: usize,
    /// Those who wait: worker, stream, bytes.
    waiting: VecDeque<(u16, u64, usize)>,
}

impl std::fmt::Debug for Reservations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reservations")
    }
}

/// Room that is held until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    all: Arc<Reservations>,
    bytes: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.all.give_back(self.bytes);
    }
}

impl Reservations {
    /// At most `limit_bytes` in use, or one message that is longer.
    #[must_use]
    pub fn new(limit_bytes: usize, orders: Arc<dyn Orders>) -> Arc<Self> {
        Arc::new(Self { limit_bytes, state: Mutex::default(), orders })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for `bytes`, or `None`: then [`Order::Granted`] goes to `worker` when it is there, and
    /// [`Self::claim`] takes it. A stream waits for one message at a time.
    pub(super) fn ask(
        self: &Arc<Self>,
        worker: u16,
        stream: u64,
        bytes: usize,
    ) -> Option<Reservation> {
        let mut state = self.state();
        if state.waiting.is_empty() && self.fits(&state, bytes) {
            state.used_bytes += bytes;
            return Some(Reservation { all: Arc::clone(self), bytes });
        }
        state.waiting.push_back((worker, stream, bytes));
        None
    }

    /// The room that `stream` was told of.
    pub(super) fn claim(self: &Arc<Self>, stream: u64) -> Option<Reservation> {
        let mut state = self.state();
        let (_, first, bytes) = *state.waiting.front()?;
        if first != stream || !self.fits(&state, bytes) {
            return None;
        }
        state.waiting.pop_front();
        state.used_bytes += bytes;
        self.tell_next(&state);
        drop(state);
        Some(Reservation { all: Arc::clone(self), bytes })
    }

    /// `stream` does not wait any more.
    pub(crate) fn withdraw(&self, stream: u64) {
        let mut state = self.state();
        let was_first = state.waiting.front().is_some_and(|(_, first, _)| *first == stream);
        state.waiting.retain(|(_, other, _)| *other != stream);
        if was_first {
            self.tell_next(&state);
        }
    }

    const fn fits(&self, state: &State, bytes: usize) -> bool {
        state.used_bytes == 0 || state.used_bytes + bytes <= self.limit_bytes
    }

    fn tell_next(&self, state: &State) {
        if let Some((worker, stream, bytes)) = state.waiting.front()
            && self.fits(state, *bytes)
        {
            self.orders.push(*worker, Order::Granted { stream: *stream });
        }
    }

    fn give_back(&self, bytes: usize) {
        let mut state = self.state();
        state.used_bytes -= bytes;
        self.tell_next(&state);
    }

    /// Bytes in use.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.state().used_bytes
    }
}
