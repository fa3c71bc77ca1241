//! This node's own questions of the join barrier: who has not answered yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use crate::ids::MemberId;
use crate::order::Order;
use crate::shared::Shared;

/// See the module.
#[derive(Debug, Default)]
pub struct Joins {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next_token: u64,
    open: BTreeMap<u64, MemberId>,
}

impl Joins {
    /// A member answered a question. False if nobody asked.
    pub(crate) fn answered(&self, token: u64, member: MemberId) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.open.get(&token) != Some(&member) {
            return false;
        }
        state.open.remove(&token);
        self.changed.notify_all();
        true
    }

    /// What a member has not answered.
    pub(crate) fn open(&self, member: MemberId) -> Vec<u64> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let of_member = state.open.iter().filter(|(_, of)| **of == member);
        of_member.map(|(token, _)| *token).collect()
    }

    /// A member has gone: it owes no answer.
    pub(crate) fn gone(&self, member: MemberId) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open.retain(|_, of| *of != member);
        self.changed.notify_all();
    }
}

impl Shared {
    /// Puts the question of the join barrier to every Ringtribe member known now. Returns who was
    /// asked, and the number of each question.
    pub fn ask_join(&self) -> Vec<(MemberId, u64)> {
        let members = self.directory.entries();
        let mut asked = Vec::new();
        for entry in members.into_iter().filter(|entry| entry.boot_id().is_some()) {
            let token = {
                let mut state = self.joins.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.next_token += 1;
                let token = state.next_token;
                state.open.insert(token, entry.id);
                token
            };
            if entry.ended().is_some() {
                self.joins.gone(entry.id);
            }
            asked.push((entry.id, token));
            self.orders().push(0, Order::AskJoin { entry: Arc::clone(&entry), token });
        }
        asked
    }

    /// Whether a question of [`Shared::ask_join`] has no answer yet, and its member has not gone.
    #[must_use]
    pub fn is_join_open(&self, question: u64) -> bool {
        let state = self.joins.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open.contains_key(&question)
    }

    /// Asks every Ringtribe member known now, and waits until each has finished all that it had
    /// submitted before it saw this node, or `until`. Returns who did not answer.
    pub fn join_barrier(&self, until: Instant) -> Vec<MemberId> {
        let asked = self.ask_join();
        let mut state = self.joins.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let silent: Vec<MemberId> =
                asked.iter().filter_map(|(_, token)| state.open.get(token).copied()).collect();
            let now = Instant::now();
            if silent.is_empty() || now >= until {
                for (_, token) in &asked {
                    state.open.remove(token);
                }
                return silent;
            }
            let waited = self.joins.changed.wait_timeout(state, until - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
