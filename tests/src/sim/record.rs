//! A simulated history for the outside judge, from the calls that the checkers get.

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
}

const fn incarnation((member, life): Life) -> Incarnation {
    Incarnation { member, life }
}

impl Record {
    pub(super) fn new(name: &str) -> Self {
        Self { history: History::new(name), now: 0 }
    }

    /// The simulated clock has gone on to `now`; something is seen.
    fn tick(&mut self, now: u64) -> i64 {
        self.now = (self.now + 1).max(i64::try_from(now).unwrap_or(i64::MAX));
        self.now
    }

    /// `is_judged` tells of which destinations the promise speaks.
    pub(super) fn submitted(
        &mut self,
        number: u64,
        message: &Submitted,
        is_judged: impl Fn(usize) -> bool,
    ) {
        let to: Vec<Address> = (message.to.iter())
            .filter(|(member, _)| is_judged(*member))
            .map(|(member, life)| Address {
                member: *member,
                life: Some(*life).filter(|life| *life > 0),
            })
            .collect();
        let mode = match message.mode {
            AckMode::Applied => "applied",
            AckMode::Received => "received",
            AckMode::None => "none",
        };
        let from = incarnation(message.from);
        let call = self.tick(message.at);
        self.history.submitted(from, number, message.key, mode, &to, call);
        let queued = self.tick(message.at);
        self.history.queued(from, number, queued);
    }

    /// `message` is what its number stands for, if it was ever sent.
    pub(super) fn delivered(
        &mut self,
        to: Life,
        number: u64,
        message: Option<&Submitted>,
        at: u64,
    ) {
        let at = self.tick(at);
        let (sender, key) =
            message.map_or((None, None), |message| (Some(incarnation(message.from)), message.key));
        self.history.taken(incarnation(to), sender, key, number, at);
    }

    /// Its listener is about to report that it has accepted it.
    pub(super) fn accepted(&mut self, to: Life, number: u64, message: Option<&Submitted>, at: u64) {
        let at = self.tick(at);
        let sender = message.map(|message| incarnation(message.from));
        self.history.listened(incarnation(to), sender, number, true, at);
    }

    pub(super) fn completed(
        &mut self,
        number: u64,
        message: &Submitted,
        failures: &[(usize, Status)],
        at: u64,
    ) {
        let at = self.tick(at);
        self.history.told(incarnation(message.from), number, at, |to| {
            let of = message.to.iter().filter(|(member, _)| *member == to.member);
            match failures.iter().find(|(member, _)| *member == to.member) {
                None => Some(Told::Ok),
                // Sent to two entries of one member, an old life and a new one: which failed is not known.
                Some(_) if of.count() > 1 => None,
                Some((_, Status::QueueFull | Status::StaleMember)) => Some(Told::Refused),
                Some(_) => Some(Told::Failed),
            }
        });
    }

    pub(super) fn life_ended(&mut self, life: Life) {
        let at = self.tick(0);
        self.history.killed(incarnation(life), at, at);
    }

    /// The history has settled; these live.
    pub(super) fn settled(&mut self, living: &[Life]) {
        for life in living {
            let at = self.tick(0);
            self.history.ended(incarnation(*life), at);
        }
    }

    pub(super) fn into_history(self) -> History {
        self.history
    }
}
