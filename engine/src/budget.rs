//! What may be queued for one member, in bytes.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Instant as WallInstant;

use crate::shared::{Shared, planted};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Bytes that a message costs beside its length, so that empty messages are bounded too.
pub const MESSAGE_OVERHEAD_BYTES: usize = 256;

/// Bytes that may be queued and unacknowledged towards one member.
///
/// A message is let in while less than the limit is used, so no size is impossible and the
/// overshoot is one message. Who finds no room waits first come, first served.
#[derive(Debug)]
pub struct Budget {
    limit_bytes: usize,
    state: Mutex<State>,
    room: Condvar,
}

#[derive(Debug, Default)]
struct State {
    used_bytes: usize,
    most_bytes: usize,
    next_ticket: u64,
    waiting: VecDeque<u64>,
    closed: bool,
}

/// The cost of one message at one member, given back exactly once: when this is dropped.
#[derive(Debug)]
pub struct BudgetToken {
    budget: Arc<Budget>,
    cost_bytes: usize,
}

impl BudgetToken {
    /// Gives the room back, as a drop does.
    pub(crate) fn end(self, shared: &Shared) {
        if planted!(shared, BudgetKept) {
            std::mem::forget(self);
            return;
        }
        if planted!(shared, BudgetTwice) {
            self.budget.give_back(self.cost_bytes);
        }
    }
}

impl Drop for BudgetToken {
    fn drop(&mut self) {
        self.budget.give_back(self.cost_bytes);
    }
}

/// Why waiting for room ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// There may be room: try again.
    Room,
    /// The deadline passed.
    DeadlinePassed,
    /// The member was cut.
    Closed,
}

impl Budget {
    /// A budget of `limit_bytes`, at least 1.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes: limit_bytes.max(1),
            state: Mutex::default(),
            room: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits `cost_bytes` if there is room and nobody waits before the caller.
    #[must_use]
    pub fn try_admit(self: &Arc<Self>, cost_bytes: usize) -> Option<BudgetToken> {
        self.admit(cost_bytes, None)
    }

    fn admit(self: &Arc<Self>, cost_bytes: usize, ticket: Option<u64>) -> Option<BudgetToken> {
        let mut state = self.state();
        let first = match state.waiting.front() {
            None => true,
            Some(first) => ticket == Some(*first),
        };
        if !first || state.used_bytes >= self.limit_bytes {
            return None;
        }
        if ticket.is_some() {
            state.waiting.pop_front();
        }
        state.used_bytes += cost_bytes;
        state.most_bytes = state.most_bytes.max(state.used_bytes);
        let others_may_enter = !state.waiting.is_empty() && state.used_bytes < self.limit_bytes;
        drop(state);
        if others_may_enter {
            self.room.notify_all();
        }
        Some(BudgetToken { budget: Arc::clone(self), cost_bytes })
    }

    /// Queues up and waits for room until `deadline`, then admits.
    ///
    /// # Errors
    /// [`Waited::DeadlinePassed`] or [`Waited::Closed`]; nothing is held then.
    pub fn wait_admit(
        self: &Arc<Self>,
        cost_bytes: usize,
        deadline: WallInstant,
    ) -> Result<BudgetToken, Waited> {
        let ticket = {
            let mut state = self.state();
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            state.waiting.push_back(ticket);
            ticket
        };
        loop {
            if let Some(token) = self.admit(cost_bytes, Some(ticket)) {
                return Ok(token);
            }
            let mut state = self.state();
            let now = WallInstant::now();
            let ended = if state.closed {
                Some(Waited::Closed)
            } else if now >= deadline {
                Some(Waited::DeadlinePassed)
            } else {
                None
            };
            if let Some(ended) = ended {
                state.waiting.retain(|other| *other != ticket);
                drop(state);
                self.room.notify_all();
                return Err(ended);
            }
            if state.waiting.front() == Some(&ticket) && state.used_bytes < self.limit_bytes {
                continue;
            }
            let _ = self
                .room
                .wait_timeout(state, deadline - now)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends all waiting: the member is cut. What is admitted stays counted until given back.
    pub fn close(&self) {
        self.state().closed = true;
        self.room.notify_all();
    }

    fn give_back(&self, cost_bytes: usize) {
        let mut state = self.state();
        // What is given back twice must not make the rest look full.
        state.used_bytes = state.used_bytes.saturating_sub(cost_bytes);
        let wake = !state.waiting.is_empty();
        drop(state);
        if wake {
            self.room.notify_all();
        }
    }

    /// Bytes in use, and the most there ever were.
    #[must_use]
    pub fn used_and_most_bytes(&self) -> (usize, usize) {
        let state = self.state();
        (state.used_bytes, state.most_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_overshoot_is_one_message_and_tokens_return_once() {
        let budget = Budget::new(1000);
        let first = budget.try_admit(900).expect("there is room");
        let second = budget.try_admit(5000).expect("used < limit lets any size in");
        assert!(budget.try_admit(1).is_none());
        drop(second);
        assert_eq!(budget.used_and_most_bytes(), (900, 5900));
        drop(first);
        assert_eq!(budget.used_and_most_bytes().0, 0);
    }

    #[test]
    fn waiting_is_first_come_first_served_and_ends_with_the_member() {
        let budget = Budget::new(10);
        let held = budget.try_admit(10).expect("room");
        let far = WallInstant::now() + Duration::from_secs(30);
        let order = Arc::new(Mutex::new(Vec::new()));
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let (queued, order) = (Arc::clone(&budget), Arc::clone(&order));
                let thread = std::thread::spawn(move || {
                    let token = queued.wait_admit(10, far).expect("room comes");
                    order.lock().expect("unpoisoned").push(n);
                    drop(token);
                });
                while budget.state().waiting.len() < n + 1 {
                    std::thread::yield_now();
                }
                thread
            })
            .collect();
        assert!(budget.try_admit(1).is_none(), "nobody overtakes those who wait");
        drop(held);
        for thread in threads {
            thread.join().expect("no panic");
        }
        assert_eq!(*order.lock().expect("unpoisoned"), [0, 1, 2, 3]);

        let _held = budget.try_admit(10).expect("room");
        let soon = WallInstant::now() + Duration::from_millis(5);
        assert_eq!(budget.wait_admit(1, soon).unwrap_err(), Waited::DeadlinePassed);
        budget.close();
        assert_eq!(budget.wait_admit(1, far).unwrap_err(), Waited::Closed);
        assert!(budget.state().waiting.is_empty());
    }
}
