//! A simulated history for the outside judge, from the calls that the checkers get.

use std::collections::BTreeMap;

use ringtribe::ids::BootId;
use ringtribe::message::AckMode;
use ringtribe::status::Status;

use super::check::{Life, Submitted};
use crate::history::{Address, History, Incarnation, Told};

/// Writes down what happens. Time is the simulated clock, moved on by a nanosecond for each thing that is
/// seen: the order in which a single thread sees them is the order in which they happen.
#[derive(Debug)]
pub(super) struct Record {
    history: History,
    now: i64,
    boots: BTreeMap<[u8; 16], u32>,
    messages: BTreeMap<u64, Sent>,
}

#[derive(Clone, Debug)]
struct Sent {
    from: Life,
    key: Option<u64>,
    to: Vec<usize>,
}

const fn incarnation((member, life): Life) -> Incarnation {
    Incarnation { member, life }
}

impl Record {
    pub(super) fn new(name: &str) -> Self {
        Self {
            history: History::new(name),
            now: 0,
            boots: BTreeMap::new(),
            messages: BTreeMap::new(),
        }
    }

    /// The simulated clock goes on.
    pub(super) fn clock(&mut self, now: u64) {
        self.now = self.now.max(i64::try_from(now).unwrap_or(i64::MAX));
    }

    const fn tick(&mut self) -> i64 {
        self.now += 1;
        self.now
    }

    /// A node starts, and says in the own format that it is `boot_id`.
    pub(super) fn started(&mut self, life: Life, boot_id: BootId) {
        self.boots.insert(boot_id.0, life.1);
    }

    /// Which life a sender means that knows `boot_id` of a member.
    pub(super) fn life(&self, boot_id: Option<BootId>) -> Option<u32> {
        boot_id.and_then(|boot_id| self.boots.get(&boot_id.0).copied())
    }

    /// `lives` has one for each destination, if the sender could say which it meant.
    pub(super) fn submitted(&mut self, number: u64, message: &Submitted, lives: &[Option<u32>]) {
        let to: Vec<Address> = message
            .to
            .iter()
            .zip(lives)
            .map(|(member, life)| Address { member: *member, life: *life })
            .collect();
        let mode = match message.mode {
            AckMode::Applied => "applied",
            AckMode::Received => "received",
            AckMode::None => "none",
        };
        let from = incarnation(message.from);
        let call = self.tick();
        self.history.submitted(from, number, message.key, mode, &to, call);
        let queued = self.tick();
        self.history.queued(from, number, queued);
        let Submitted { from, key, to, .. } = message.clone();
        self.messages.insert(number, Sent { from, key, to });
    }

    pub(super) fn delivered(&mut self, to: Life, number: u64) {
        let sent = self.messages.get(&number);
        let (sender, key) =
            (sent.map(|sent| incarnation(sent.from)), sent.and_then(|sent| sent.key));
        let at = self.tick();
        self.history.taken(incarnation(to), sender, key, number, at);
    }

    /// Its listener is about to report.
    pub(super) fn listened(&mut self, to: Life, number: u64, is_accepted: bool) {
        let sender = self.messages.get(&number).map(|sent| incarnation(sent.from));
        let at = self.tick();
        self.history.listened(incarnation(to), sender, number, is_accepted, at);
    }

    pub(super) fn completed(&mut self, number: u64, failures: &[(usize, Status)]) {
        let at = self.tick();
        let Some(Sent { from, to: sent_to, .. }) = self.messages.get(&number) else { return };
        self.history.told(incarnation(*from), number, at, |to| {
            let named_count = sent_to.iter().filter(|member| **member == to.member).count();
            match failures.iter().find(|(member, _)| *member == to.member) {
                None => Some(Told::Ok),
                // Sent to two entries of one member, an old life and a new one: which failed is not known.
                Some(_) if named_count > 1 => None,
                Some((_, Status::QueueFull | Status::StaleMember)) => Some(Told::Refused),
                Some(_) => Some(Told::Failed),
            }
        });
    }

    pub(super) fn crashed(&mut self, life: Life) {
        let at = self.tick();
        self.history.killed(incarnation(life), at, at);
    }

    /// The history has settled; these live.
    pub(super) fn settled(&mut self, living: impl Iterator<Item = Life>) {
        for life in living {
            let at = self.tick();
            self.history.ended(incarnation(life), at);
        }
    }

    pub(super) fn into_history(self) -> History {
        self.history
    }
}
