//! Who missed something: events that are raised once and merged until the layer above has repaired
//! what it keeps.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use crate::directory::MemberEntry;
use crate::event::Event;
use crate::ids::{BootId, Epoch, MemberId};
use crate::order::Order;
use crate::shared::{Shared, count, planted};
use crate::sync::Mutex;

/// Incarnations that are remembered; beyond it the first in order is forgotten.
const LIMIT_COUNT: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub struct Gaps {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Told, and not repaired yet; with what came since.
    open: BTreeMap<(MemberId, bool), u64>,
    /// What this node missed of incarnations that it does not know as members yet.
    unknown: BTreeMap<BootId, u64>,
    /// The newest epoch of each incarnation whose beginning was told.
    epochs: BTreeMap<BootId, Epoch>,
}

impl Gaps {
    /// Gaps that were told or wait for their member, and incarnations whose epochs are remembered.
    pub(crate) fn remembered_counts(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.open.len() + state.unknown.len(), state.epochs.len())
    }
}

impl Shared {
    /// Messages between this node and `member` were missed: at this node if `here`.
    pub fn gap(&self, member: MemberId, here: bool, messages_count: u64) {
        {
            let mut state = self.gaps.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(since) = state.open.get_mut(&(member, here)) {
                *since = since.saturating_add(messages_count.max(1));
                return;
            }
            if state.open.len() >= LIMIT_COUNT {
                state.open.pop_first();
            }
            state.open.insert((member, here), 0);
        }
        count(&self.counters.gaps_count, 1);
        self.deliveries.event(Event::Gap { member, here, messages_count });
    }

    /// A member missed messages because the epoch of the link to it ended: they are told when its
    /// incarnation is seen again.
    pub(crate) fn missed(&self, entry: &MemberEntry, messages_count: u64) {
        if let Some(missed) = entry.boot_id().and_then(|id| self.directory.missed(id)) {
            count(&missed, messages_count);
        }
    }

    /// This node missed messages of an incarnation, which may not be in the view yet.
    pub(crate) fn gap_from(&self, boot_id: BootId, messages_count: u64) {
        if let Some(entry) = self.directory.find_boot(boot_id) {
            self.gap(entry.id, true, messages_count);
            return;
        }
        {
            let mut state = self.gaps.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.unknown.len() >= LIMIT_COUNT {
                state.unknown.pop_first();
            }
            let missed = state.unknown.entry(boot_id).or_default();
            *missed = missed.saturating_add(messages_count);
        }
        // Control may have let it in meanwhile, and asked before this was noted.
        if let Some(entry) = self.directory.find_boot(boot_id) {
            self.gaps_of_newcomer(boot_id, entry.id);
        }
    }

    /// An incarnation begins an epoch after an earlier one ended: told once, whichever of its
    /// streams says it first. Each worker ends what it holds of the earlier one: a stream of which the
    /// sender has nothing to send says nothing itself.
    pub(crate) fn epoch_after_cut(&self, boot_id: BootId, epoch: Epoch) {
        if planted!(self, GapNotRaised) {
            return;
        }
        {
            let mut state = self.gaps.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.epochs.len() >= LIMIT_COUNT && !state.epochs.contains_key(&boot_id) {
                state.epochs.pop_first();
            }
            let known = state.epochs.entry(boot_id).or_default();
            if *known >= epoch {
                return;
            }
            *known = epoch;
        }
        self.gap_from(boot_id, 0);
        for worker in 0..self.bounds.worker_count {
            self.orders().push(worker, Order::Epoch { boot_id, epoch });
        }
    }

    /// An incarnation is a member now: what was missed of it before is told.
    pub(crate) fn gaps_of_newcomer(&self, boot_id: BootId, member: MemberId) {
        let missed = {
            let mut state = self.gaps.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.unknown.remove(&boot_id)
        };
        if let Some(messages_count) = missed {
            self.gap(member, true, messages_count);
        }
    }

    /// The layer above has repaired what `member` and this node missed of each other. What was
    /// missed since the event is told by a new one.
    pub fn repaired(&self, member: MemberId) {
        for here in [false, true] {
            let since = {
                let mut state = self.gaps.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.open.remove(&(member, here))
            };
            if let Some(since @ 1..) = since {
                self.gap(member, here, since);
            }
        }
    }
}
