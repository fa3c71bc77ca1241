//! What must hold in every history. Each checker is a sentence of the promise.

mod end;

use std::collections::{BTreeMap, BTreeSet};

use ringtribe::message::AckMode;
use ringtribe::status::Status;

use super::MS;
use super::plan::{Faults, Plan, Scene};
use super::record::Record;

/// A node in one of its lives.
pub(super) type Life = (usize, u32);

/// Whether a node that stood still is judged by "what failed with its epoch is not delivered late".
/// What waited in its own queue of deliveries may still be delivered when it goes on.
const LATE_WHERE_PAUSED: bool = true;
/// Beyond ackTimeout (of a clock that may be 3 % slow), until the completion has to be taken.
const COMPLETION_SLACK_MS: u64 = 500;

/// What a reply may take in a kind network, where one of three parts of it may take 150 ms each.
const REPLY_MOST_MS: u64 = 600;

/// What a message among members that are well may take while others hang: a slow listener or two.
const OTHERS_MOST_MS: u64 = 250;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    /// Who gets it sends a reply.
    Request,
    /// To this request.
    Reply(u64),
    /// Sent when all has healed: it must arrive.
    Last,
}

/// What one receiver did with a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) by: Life,
    pub(super) delivered_at: u64,
    /// Its listener returned.
    pub(super) accepted_at: Option<u64>,
}

/// A message of a history.
#[derive(Clone, Debug)]
pub(super) struct Submitted {
    pub(super) from: Life,
    pub(super) key: Option<u64>,
    pub(super) mode: AckMode,
    pub(super) kind: Kind,
    pub(super) bytes: usize,
    /// Each destination; the life is 0 if the sender does not know it.
    pub(super) to: Vec<Life>,
    pub(super) at: u64,
    pub(super) done: bool,
    /// Failed there, by name, and told then.
    pub(super) failed: Vec<(usize, Status)>,
    pub(super) failed_at: u64,
    pub(super) taken: Vec<Taken>,
}

/// Watches one history.
#[derive(Debug, Default)]
pub(super) struct Checker {
    scene: Scene,
    /// Ends of lost connections are told at once, which the Tribes format relies on.
    ends_are_told: bool,
    messages: Vec<Submitted>,
    pending_count: usize,
    /// Last number of a key that a receiver saw of a sender.
    last: BTreeMap<(Life, Life, u64), u64>,
    /// Who was told of a gap: in which life, towards which node, whether it missed something itself.
    gaps: BTreeSet<(Life, usize, bool)>,
    /// When the application of the first took the announcement of the second.
    seen: BTreeMap<(Life, Life), u64>,
    /// When the question of the first was answered by the second.
    barriers: Vec<(Life, Life, u64)>,
    /// When nodes stood still.
    pauses: Vec<(usize, u64, u64)>,
    /// When applications took nothing.
    hangs: Vec<(Life, u64, u64)>,
    /// Since when a sender finds no room for a member.
    no_room: BTreeMap<(Life, usize), u64>,
    /// Bytes of messages to one member that hold room in its queue.
    waiting: BTreeMap<(Life, usize), u64>,
    /// What a store that takes every message as it comes has of a key: the first has, of the second,
    /// this number.
    held: BTreeMap<(Life, Life, u64), u64>,
    /// Where an older message took the place of a newer one: there, the newer, the older.
    replaced: Vec<(Life, u64, u64)>,
    /// No fault was asked for.
    is_kind: bool,
    /// No fault but applications that take nothing, and the others have little to do.
    only_hangs: bool,
    /// The first sentence that was broken.
    broken: Option<String>,
    /// For the outside judge, if it is to have this history.
    pub(super) record: Option<Record>,
    pub(super) acknowledged_count: u64,
    pub(super) delivered_count: u64,
    pub(super) failed_count: u64,
}

impl Checker {
    pub(super) fn new(plan: &Plan) -> Self {
        let ends_are_told = plan.faults.ends_are_told();
        // What is only slow keeps no reply for long.
        let is_kind = Faults { slow_link: 0, ..plan.faults }.is_none();
        let scene = plan.scene;
        let little = scene.pollers > 2
            && scene.waiting_listeners + scene.long + scene.requests == 0
            && scene.long_bytes <= 3_000
            && scene.submit_gap_us >= 10_000
            && scene.max_receive_bytes >= 200_000;
        let only_hangs = plan.faults.only_hangs() && plan.faults.slow_link == 0 && little;
        Self { scene, ends_are_told, is_kind, only_hangs, ..Self::default() }
    }

    fn breaks(&mut self, sentence: String) {
        self.broken.get_or_insert(sentence);
    }

    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    pub(super) fn require(&mut self, holds: bool, sentence: &str) {
        if !holds {
            self.breaks(sentence.to_owned());
        }
    }

    /// Numbers are given in their order.
    pub(super) fn submitted(&mut self, message: Submitted) {
        if let Some(mut record) = self.record.take() {
            let from = message.from.0;
            let is_judged = |to| self.is_kept_in_order(from, to);
            record.submitted(self.messages.len() as u64, &message, is_judged);
            self.record = Some(record);
        }
        self.pending_count += usize::from(!message.done);
        if let Some(place) = holds_room(&message) {
            *self.waiting.entry(place).or_default() += message.bytes as u64;
        }
        self.messages.push(message);
    }

    pub(super) fn message(&self, number: u64) -> Option<&Submitted> {
        self.messages.get(usize::try_from(number).ok()?)
    }

    /// Shows the record a message, if the promise speaks of it between its sender and a receiver.
    fn record(&mut self, to: Life, number: u64, show: impl Fn(&mut Record, Option<&Submitted>)) {
        let Some(mut record) = self.record.take() else { return };
        let message = self.message(number);
        if message.is_none_or(|message| self.is_kept_in_order(message.from.0, to.0)) {
            show(&mut record, message);
        }
        self.record = Some(record);
    }

    /// Whether the first gave up the second because its listeners stood still.
    fn was_stalled(&self, from: Life, node: usize) -> bool {
        let of_sender = self.messages.iter().filter(|message| message.from == from);
        of_sender.flat_map(|message| &message.failed).any(|end| *end == (node, Status::Stalled))
    }

    fn message_mut(&mut self, number: u64) -> Option<&mut Submitted> {
        self.messages.get_mut(usize::try_from(number).ok()?)
    }

    /// The most bytes that wait for one member, by what its sender was told.
    pub(super) fn waiting_bytes(&self, from: Life) -> u64 {
        let all = self.waiting.range((from, 0)..=(from, usize::MAX));
        all.map(|(_, bytes)| *bytes).max().unwrap_or(0)
    }

    /// Whether the numbers of the own format, or at least what Tribes relies on, keep the order.
    fn is_kept_in_order(&self, from: usize, to: usize) -> bool {
        let stock = self.scene.is_stock(from) || self.scene.is_stock(to);
        self.scene.is_own(from, to) || (self.ends_are_told && !stock)
    }

    fn paused_ns(&self, node: usize, from: u64, to: u64) -> u64 {
        let pauses = self.pauses.iter().filter(|(at, ..)| *at == node);
        pauses.map(|(_, since, until)| to.min(*until).saturating_sub(from.max(*since))).sum()
    }

    /// A listener gets a message.
    pub(super) fn delivered(&mut self, to: Life, number: u64, intact: bool, at: u64) {
        self.delivered_count += 1;
        self.record(to, number, |record, message| record.delivered(to, number, message, at));
        let Some(message) = self.message(number) else {
            self.breaks(format!("delivered is only what was sent: {number} at {to:?}"));
            return;
        };
        let (from, key, kind) = (message.from, message.key, message.kind);
        let is_own = self.scene.is_own(from.0, to.0);
        let sent_there =
            message.to.iter().any(|(node, life)| *node == to.0 && (*life == 0 || *life == to.1));
        if !intact || (is_own && !sent_there) {
            let addressed = &message.to;
            let text = format!(
                "delivered is only what was sent: {number} of {from:?} to {addressed:?} at {to:?}, \
                 intact: {intact}"
            );
            self.breaks(text);
        }
        if let Kind::Reply(request) = kind
            && self.message(request).is_none_or(|request| {
                // The Tribes format knows addresses and no lives.
                request.from.0 != to.0 || (is_own && request.from != to)
            })
        {
            self.breaks(format!(
                "a reply reaches who waits for it, once: {number} of {from:?}, to request {request}, \
                 at {to:?}"
            ));
        }
        self.judge_lateness(to, number, at);
        self.judge_reply(to, number, at);
        let again = self
            .message(number)
            .is_some_and(|message| message.taken.iter().any(|taken| taken.by == to));
        if again {
            if self.is_kept_in_order(from.0, to.0) {
                self.breaks(format!(
                    "a message is delivered at most once per incarnation: {number} of {from:?} twice \
                     at {to:?}, t={at}"
                ));
            }
            return;
        }
        if let Some(message) = self.message_mut(number) {
            message.taken.push(Taken { by: to, delivered_at: at, accepted_at: None });
        }
        if let Some(key) = key
            && self.is_kept_in_order(from.0, to.0)
        {
            let last = self.last.entry((from, to, key)).or_insert(number);
            let before = std::mem::replace(last, number.max(*last));
            if before > number {
                self.breaks(format!(
                    "messages of one key from one sender are delivered in the order submitted: \
                     {number} after {before} of {from:?} key {key} at {to:?}, t={at}"
                ));
            }
        }
    }

    fn judge_lateness(&mut self, to: Life, number: u64, at: u64) {
        let Some(message) = self.message(number) else { return };
        let (from, failed_at) = (message.from, message.failed_at);
        let Some((_, status)) = message.failed.iter().find(|(node, _)| *node == to.0) else {
            return;
        };
        let ended = matches!(
            status,
            Status::Cut | Status::Stalled | Status::WrongIncarnation | Status::Goodbye
        );
        // The acknowledgement that it was received may have been lost: then it has to be kept.
        if message.mode == AckMode::Received {
            return;
        }
        // What its engine had read before may wait for a poller as long as its listeners take.
        let slack_ns = 2 * self.scene.drop_time_ms * MS;
        if !ended || !self.scene.is_own(from.0, to.0) || at < failed_at + slack_ns {
            return;
        }
        if self.hangs.iter().any(|(life, ..)| *life == to) {
            return;
        }
        if LATE_WHERE_PAUSED || self.paused_ns(to.0, 0, at) == 0 {
            let text = format!(
                "what failed with its epoch is not delivered late: {number} of {from:?} failed at \
                 t={failed_at} ({status}) and is delivered at {to:?}, t={at}"
            );
            self.breaks(text);
        }
    }

    /// Where nothing goes wrong a reply waits for nothing but the network.
    fn judge_reply(&mut self, to: Life, number: u64, at: u64) {
        let Some(message) = self.message(number) else { return };
        let (from, took_ms) = (message.from, (at - message.at) / MS);
        let is_reply = matches!(message.kind, Kind::Reply(_));
        if is_reply && self.is_kind && self.scene.is_own(from.0, to.0) && took_ms > REPLY_MOST_MS {
            self.breaks(format!(
                "a reply reaches who waits for it, once: {number} of {from:?} took {took_ms} ms to \
                 {to:?}"
            ));
        }
    }

    /// Its listener returned.
    pub(super) fn accepted(&mut self, to: Life, number: u64, at: u64) {
        self.record(to, number, |record, message| record.accepted(to, number, message, at));
        let Some(message) = self.message_mut(number) else { return };
        let (from, key) = (message.from, message.key);
        if let Some(taken) = message.taken.iter_mut().find(|taken| taken.by == to) {
            taken.accepted_at.get_or_insert(at);
        }
        if let Some(key) = key {
            let before = self.held.insert((to, from, key), number);
            if let Some(newer) = before.filter(|before| *before > number) {
                self.replaced.push((to, newer, number));
            }
        }
    }

    /// The sender was told: these destinations (by place) failed, the others did not.
    pub(super) fn completed(&mut self, number: u64, failures: &[(usize, Status)], at: u64) {
        if let Some(mut record) = self.record.take() {
            if let Some(message) = self.message(number) {
                record.completed(number, message, failures, at);
            }
            self.record = Some(record);
        }
        let Some(message) = self.message_mut(number) else { return };
        let (from, sent_at, mode, kind) = (message.from, message.at, message.mode, message.kind);
        if std::mem::replace(&mut message.done, true) {
            self.breaks(format!("a message completes once: {number} of {from:?}"));
            return;
        }
        message.failed = failures.to_vec();
        message.failed_at = at;
        let message = message.clone();
        self.pending_count -= 1;
        if let Some(place) = holds_room(&message) {
            let waiting = self.waiting.entry(place).or_default();
            *waiting = waiting.saturating_sub(message.bytes as u64);
        }
        self.judge_stall(&message, at);
        self.judge_others(number, &message, at);
        self.failed_count += u64::from(!failures.is_empty());
        let foreign =
            failures.iter().find(|(failed, _)| !message.to.iter().any(|(node, _)| node == failed));
        if let Some((node, status)) = foreign {
            self.breaks(format!(
                "every message completes, or fails by name: {number} of {from:?} failed at {node} \
                 ({status}), to which it was not sent"
            ));
        }
        let most_ns = (self.scene.ack_timeout_ms * 103 / 100 + COMPLETION_SLACK_MS) * MS;
        // What only has to be handed to the kernel waits for it as long as the member lives.
        let is_timed = mode != AckMode::None && !self.scene.is_stock(from.0);
        if is_timed && at - sent_at > most_ns + self.paused_ns(from.0, sent_at, at) {
            self.breaks(format!(
                "every message completes, or fails by name: {number} of {from:?}, mode {mode:?}, \
                 took {} ms: {failures:?}",
                (at - sent_at) / MS
            ));
        }
        if kind == Kind::Last && !failures.is_empty() {
            self.breaks(format!(
                "after the faults heal everyone sees everyone: a message of {from:?} failed: \
                 {failures:?}"
            ));
        }
        for (node, _) in &message.to {
            let failed = failures.iter().any(|(failed, _)| failed == node);
            if failed || mode != AckMode::Applied {
                continue;
            }
            self.acknowledged_count += 1;
            let is_accepted = message
                .taken
                .iter()
                .any(|taken| taken.by.0 == *node && taken.accepted_at.is_some());
            if !is_accepted {
                self.breaks(format!(
                    "acknowledged means applied: {number} of {from:?} at node {node} was not"
                ));
            }
        }
    }

    /// Where a member whose application takes nothing has no room, it is dropped in time: then nobody
    /// waits for it any more.
    fn judge_stall(&mut self, message: &Submitted, at: u64) {
        let from = message.from;
        for (node, _) in &message.to {
            let status = message.failed.iter().find(|(failed, _)| failed == node);
            match status {
                Some((_, Status::QueueFull)) => {}
                Some((_, Status::Timeout)) => continue,
                _ => {
                    self.no_room.remove(&(from, *node));
                    continue;
                }
            }
            let full_since = *self.no_room.entry((from, *node)).or_insert(at);
            let hang = self
                .hangs
                .iter()
                .find(|(life, since, until)| life.0 == *node && *since <= at && at <= *until);
            let Some((_, since, _)) = hang.filter(|_| self.scene.is_own(from.0, *node)) else {
                continue;
            };
            // A message to several members tells of room when the last of them has ended.
            let most_ms = 2 * self.scene.ack_timeout_ms + self.scene.drop_time_ms + 500;
            let stalled_ns = at - full_since.max(*since);
            if stalled_ns > most_ms * MS + self.paused_ns(from.0, 0, at) {
                self.breaks(format!(
                    "a stalled member costs the others nothing once detected: {from:?} finds no room for node {node} since {} ms",
                    stalled_ns / MS
                ));
            }
        }
    }

    /// Where some applications take nothing and all else is well, messages among the others take no
    /// longer for it.
    fn judge_others(&mut self, number: u64, message: &Submitted, at: u64) {
        let took_ms = (at - message.at) / MS;
        let ends = || message.to.iter().map(|(node, _)| *node).chain([message.from.0]);
        let concerned = self.hangs.iter().any(|((node, _), since, until)| {
            let stalled_ns = until + (self.scene.ack_timeout_ms + self.scene.drop_time_ms) * MS;
            ends().any(|end| end == *node) && *since <= at && message.at <= stalled_ns
        });
        let is_own = ends().all(|end| self.scene.is_own(message.from.0, end));
        let is_judged = self.only_hangs && is_own && !concerned && !self.hangs.is_empty();
        if is_judged && message.mode == AckMode::Applied && took_ms > OTHERS_MOST_MS {
            let (from, to, hangs) = (message.from, &message.to, &self.hangs);
            self.breaks(format!(
                "a stalled member costs the others nothing once detected: {number} of {from:?} to \
                 {to:?} took {took_ms} ms, where {hangs:?} take nothing"
            ));
        }
    }

    /// A node was told that messages between it and `of` are missing.
    pub(super) fn gap(&mut self, at: Life, of: usize, here: bool) {
        self.gaps.insert((at, of, here));
    }

    /// The application of `at` took the announcement of `of`.
    pub(super) fn seen(&mut self, at: Life, of: Life, now: u64) {
        self.seen.entry((at, of)).or_insert(now);
    }

    /// A question of the join barrier was answered.
    pub(super) fn barrier(&mut self, asker: Life, by: Life, now: u64) {
        self.barriers.push((asker, by, now));
    }

    /// An application takes nothing. What its engine has may be delivered when it goes on.
    pub(super) fn hung(&mut self, life: Life, since: u64, until: u64) {
        self.hangs.push((life, since, until));
    }

    pub(super) fn paused(&mut self, node: usize, since: u64, until: u64) {
        self.pauses.push((node, since, until));
    }

    /// A node's view lost a member. `excused`: something happened to one of them.
    pub(super) fn member_gone(&mut self, at: Life, of: usize, cause: Status, excused: bool) {
        let allowed = matches!(cause, Status::Stalled | Status::Closed | Status::Goodbye);
        if !excused && !allowed {
            self.breaks(format!(
                "a reachable member is not dropped: node {of} by {at:?}, because {cause}"
            ));
        }
    }

    /// A life ended: nobody is told of its messages any more.
    pub(super) fn life_ended(&mut self, life: Life) {
        if let Some(record) = &mut self.record {
            record.life_ended(life);
        }
        for message in self.messages.iter_mut().filter(|message| message.from == life) {
            self.pending_count -= usize::from(!std::mem::replace(&mut message.done, true));
        }
    }

    /// A node left in order: all its messages are complete.
    pub(super) fn left(&mut self, life: Life) {
        let pending = self.messages.iter().position(|sent| sent.from == life && !sent.done);
        if let Some(number) = pending {
            self.breaks(format!(
                "every message completes, or fails by name: {number} of {life:?}, which left, did not"
            ));
        }
    }

    /// What has not settled yet, if anything.
    pub(super) fn unsettled(&self, ended_epochs: &[(Life, Life)]) -> Option<String> {
        if self.pending_count > 0 {
            let pending = self.messages.iter().enumerate().find(|(_, message)| !message.done);
            return pending.map(|(number, message)| {
                format!(
                    "every message completes, or fails by name: {number} of {:?} sent at t={}, mode \
                     {:?}, did not",
                    message.from, message.at, message.mode
                )
            });
        }
        for (from, to) in ended_epochs {
            for (at, of, here) in [(*from, to.0, false), (*to, from.0, true)] {
                if !self.gaps.contains(&(at, of, here)) {
                    return Some(format!(
                        "what a living member missed is told on both sides: {at:?} was not told of {of}"
                    ));
                }
            }
        }
        None
    }
}

/// Whose room a message takes for certain until it completes: that of its one destination.
fn holds_room(message: &Submitted) -> Option<(Life, usize)> {
    match message.to.as_slice() {
        [(node, _)] if message.mode != AckMode::Applied => Some((message.from, *node)),
        _ => None,
    }
}
