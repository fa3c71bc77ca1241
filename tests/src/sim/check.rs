//! What must hold in every history. Each checker is a sentence of the promise.

use std::collections::{BTreeMap, BTreeSet};

use ringtribe::message::AckMode;
use ringtribe::status::Status;

use super::record::Record;

/// A node in one of its lives.
pub(super) type Life = (usize, u32);

/// A message of a history.
#[derive(Clone, Debug)]
pub(super) struct Submitted {
    pub(super) from: Life,
    pub(super) key: Option<u64>,
    pub(super) mode: AckMode,
    /// Node index of each destination.
    pub(super) to: Vec<usize>,
    pub(super) at: u64,
    pub(super) done: bool,
    /// Failed there, by name.
    pub(super) failed: Vec<usize>,
}

/// Watches one history.
#[derive(Debug, Default)]
pub(super) struct Checker {
    messages: BTreeMap<u64, Submitted>,
    /// Delivered, by receiver's life.
    delivered: BTreeSet<(Life, u64)>,
    /// Accepted by a listener, by receiver.
    accepted: BTreeSet<(usize, u64)>,
    /// Last number of a key that a receiver saw of a sender.
    last: BTreeMap<(Life, Life, u64), u64>,
    /// Who was told of a gap: in which life, towards which node, whether it missed something itself.
    gaps: BTreeSet<(Life, usize, bool)>,
    /// The first sentence that was broken.
    broken: Option<String>,
    /// For the outside judge, if it is to have this history.
    pub(super) record: Option<Record>,
    pub(super) acknowledged_count: u64,
    pub(super) delivered_count: u64,
    pub(super) failed_count: u64,
}

impl Checker {
    /// With `record`, what it sees is written down as well.
    pub(super) fn new(record: Option<Record>) -> Self {
        Self { record, ..Self::default() }
    }

    fn breaks(&mut self, sentence: String) {
        self.broken.get_or_insert(sentence);
    }

    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    pub(super) fn submitted(&mut self, number: u64, message: Submitted) {
        self.messages.insert(number, message);
    }

    pub(super) fn delivered(&mut self, to: Life, number: u64, at: u64) {
        self.delivered_count += 1;
        if let Some(record) = &mut self.record {
            record.delivered(to, number);
        }
        let Some(message) = self.messages.get(&number).cloned() else {
            self.breaks(format!("delivered is only what was sent: {number} at {to:?}"));
            return;
        };
        if !self.delivered.insert((to, number)) {
            self.breaks(format!(
                "a message is delivered at most once per incarnation: {number} of {:?} twice at \
                 {to:?}, t={at}",
                message.from
            ));
        }
        if let Some(key) = message.key {
            let last = self.last.entry((message.from, to, key)).or_insert(number);
            if *last > number {
                let last = *last;
                self.breaks(format!(
                    "messages of one key from one sender are delivered in the order submitted: \
                     {number} after {last} of {:?} key {key} at {to:?}, t={at}",
                    message.from
                ));
            } else {
                *last = number;
            }
        }
    }

    /// A listener is about to report what became of a message.
    pub(super) fn listened(&mut self, to: Life, number: u64, is_accepted: bool) {
        if let Some(record) = &mut self.record {
            record.listened(to, number, is_accepted);
        }
        if is_accepted {
            self.accepted.insert((to.0, number));
        }
    }

    /// The sender was told: these destinations (by place) failed, the others did not.
    pub(super) fn completed(&mut self, number: u64, failures: &[(usize, Status)]) {
        if let Some(record) = &mut self.record {
            record.completed(number, failures);
        }
        let Some(message) = self.messages.get_mut(&number) else { return };
        if std::mem::replace(&mut message.done, true) {
            let from = message.from;
            self.breaks(format!("a message completes once: {number} of {from:?}"));
            return;
        }
        self.failed_count += u64::from(!failures.is_empty());
        message.failed.extend(failures.iter().map(|(node, _)| *node));
        let message = message.clone();
        for node in &message.to {
            let failed = failures.iter().any(|(failed, _)| failed == node);
            if failed || message.mode != AckMode::Applied {
                continue;
            }
            self.acknowledged_count += 1;
            if !self.accepted.contains(&(*node, number)) {
                self.breaks(format!(
                    "acknowledged means applied: {number} of {:?} at node {node} was not",
                    message.from
                ));
            }
        }
    }

    /// A node was told that messages between it and `of` are missing.
    pub(super) fn gap(&mut self, at: Life, of: usize, here: bool) {
        self.gaps.insert((at, of, here));
    }

    /// An epoch of the link between two living nodes ended, and both see each other again.
    pub(super) fn epoch_ended(&mut self, from: Life, to: Life) {
        for (at, of, here) in [(from, to.0, false), (to, from.0, true)] {
            if !self.gaps.contains(&(at, of, here)) {
                self.breaks(format!(
                    "what a living member missed is told on both sides: {at:?} was not told of {of}"
                ));
            }
        }
    }

    /// A sender died: nobody is told of its messages any more.
    pub(super) fn forget_sender(&mut self, life: Life) {
        if let Some(record) = &mut self.record {
            record.crashed(life);
        }
        for message in self.messages.values_mut().filter(|message| message.from == life) {
            message.done = true;
        }
    }

    /// When everything has healed and settled.
    pub(super) fn settled(&mut self, kind_network: bool) {
        let pending = self.messages.iter().find(|(_, message)| !message.done);
        if let Some((number, message)) = pending {
            let text = format!(
                "every message completes, or fails by name: {number} of {:?} sent at t={}, mode \
                 {:?}, did not",
                message.from, message.at, message.mode
            );
            self.breaks(text);
        }
        if kind_network {
            let mut missing = None;
            for (number, message) in &self.messages {
                for node in &message.to {
                    if !message.failed.contains(node) && !self.accepted.contains(&(*node, *number))
                    {
                        missing = Some((*number, *node));
                    }
                }
            }
            if let Some((number, node)) = missing {
                self.breaks(format!(
                    "without faults everything arrives: {number} did not at node {node}"
                ));
            }
        }
    }

    pub(super) fn require(&mut self, holds: bool, sentence: &str) {
        if !holds {
            self.breaks(sentence.to_owned());
        }
    }
}
