//! What must hold when a history is over.

use super::*;

impl Checker {
    /// When everything has healed and settled, among who lives then.
    pub(in crate::sim) fn judge_end(&mut self, living: &[Life], kind: bool) {
        let mut missing = None;
        for (number, message) in self.messages.iter().enumerate() {
            if message.mode == AckMode::Received || kind {
                missing = missing.or_else(|| self.lost(number, message, living, kind));
            }
        }
        if let Some(sentence) = missing {
            self.breaks(sentence);
        }
        self.judge_barriers();
        self.judge_copies(living);
    }

    /// A member that acknowledged a message and lives has it, or a later one of its key, ever since.
    fn judge_copies(&mut self, living: &[Life]) {
        let is_acknowledged = |message: &Submitted, by: Life| {
            // Whoever died before it was told cannot count on it.
            let is_told = message.done && message.failed_at > 0;
            let failed = message.failed.iter().any(|(node, _)| *node == by.0);
            is_told
                && !failed
                && message.mode == AckMode::Applied
                && living.contains(&by)
                && self.is_kept_in_order(message.from.0, by.0)
        };
        let mut lost = None;
        for (number, message) in (0..).zip(&self.messages) {
            let Some(key) = message.key else { continue };
            for taken in message.taken.iter().filter(|taken| is_acknowledged(message, taken.by)) {
                let held = self.held.get(&(taken.by, message.from, key)).copied();
                if held.is_none_or(|held| held < number) {
                    lost = Some((number, taken.by, held));
                }
            }
        }
        for (by, newer, older) in &self.replaced {
            if self.message(*newer).is_some_and(|message| is_acknowledged(message, *by)) {
                lost = Some((*newer, *by, Some(*older)));
            }
        }
        if let Some((number, by, held)) = lost {
            self.breaks(format!(
                "nothing acknowledged is lost while a copy lives: {number} is acknowledged by \
                 {by:?}, which had {held:?} of its key instead, afterwards"
            ));
        }
    }

    /// A message that did not fail and did not arrive though it had to.
    fn lost(
        &self,
        number: usize,
        message: &Submitted,
        living: &[Life],
        kind: bool,
    ) -> Option<String> {
        let from = message.from;
        if !living.contains(&from) && !kind {
            // Who died was not told that it failed.
            return None;
        }
        for (node, life) in &message.to {
            let failed = message.failed.iter().find(|(failed, _)| failed == node);
            if let Some((_, status)) = failed {
                // Too much for the listeners, or for the queue.
                let load = matches!(
                    status,
                    Status::QueueFull | Status::Timeout | Status::Stalled | Status::Unreachable
                );
                // What is still addressed to a member that was dropped for that.
                let load =
                    load || (*status == Status::StaleMember && self.was_stalled(from, *node));
                if kind && !load {
                    return Some(format!(
                        "without faults everything arrives: {number} of {from:?} failed at node \
                         {node}: {status}"
                    ));
                }
                continue;
            }
            let lives: Vec<Life> = living.iter().filter(|life| life.0 == *node).copied().collect();
            // The life it was sent to still lives.
            let lives = lives.first().is_some_and(|(_, now)| *now == (*life).max(1));
            let arrived = message.taken.iter().any(|taken| taken.by.0 == *node);
            // Nobody waited for it, its connection was closed, and the sender was told of a gap.
            let told = message.mode == AckMode::None && self.gaps.contains(&(from, *node, false));
            if lives && !arrived && !told {
                let sentence = if kind {
                    "without faults everything arrives"
                } else {
                    "received is kept while the receiver lives"
                };
                return Some(format!("{sentence}: {number} of {from:?} did not at node {node}"));
            }
        }
        None
    }

    fn judge_barriers(&mut self) {
        let mut broken = None;
        for (asker, by, at) in &self.barriers {
            let Some(seen) = self.seen.get(&(*by, *asker)) else { continue };
            for (number, message) in self.messages.iter().enumerate() {
                let before = message.from == *by && message.at < *seen;
                if !before
                    || message.mode != AckMode::Applied
                    || message.to.iter().any(|(node, _)| *node == asker.0)
                {
                    continue;
                }
                for taken in &message.taken {
                    let failed = message.failed.iter().any(|(node, _)| *node == taken.by.0);
                    if !failed && taken.accepted_at.is_none_or(|accepted| accepted > *at) {
                        broken = Some(format!(
                            "a member that joins has what was sent before its barrier: {number} of \
                             {by:?} at {:?} (delivered at t={}) was not applied at t={at}, when \
                             {asker:?} had its answer",
                            taken.by, taken.delivered_at
                        ));
                    }
                }
            }
        }
        if let Some(sentence) = broken {
            self.breaks(sentence);
        }
    }
}
