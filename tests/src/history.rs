//! What was seen of a cluster, as lines that an outside judge reads (`tests/judge/README.md`).

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

/// A member in one of its lives, by its index; lives count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation {
    /// Which member.
    pub member: usize,
    /// Which of its lives.
    pub life: u32,
}

impl Display for Incarnation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "m{}.{}", self.member, self.life)
    }
}

/// Whom a message was sent to: a life, or whoever lives at the member's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Which member.
    pub member: usize,
    /// Which of its lives, if the sender could say that.
    pub life: Option<u32>,
}

/// What a sender was told of a message at one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// All is well, as far as the mode of the message asks.
    Ok,
    /// Failed by name; it may have been delivered, or still be.
    Failed,
    /// It never left.
    Refused,
}

#[derive(Debug)]
struct Append {
    to: Address,
    told: Option<(i64, Told)>,
}

#[derive(Debug)]
struct Sent {
    key: Option<u64>,
    mode: &'static str,
    call: i64,
    queued: Option<i64>,
    appends: Vec<Append>,
}

#[derive(Debug)]
struct Take {
    sender: Option<Incarnation>,
    receiver: Incarnation,
    key: Option<u64>,
    number: u64,
    call: i64,
    end: Option<(i64, bool)>,
}

/// Collects what is seen of one cluster, in any order of time. Times are nanoseconds of one clock.
#[derive(Debug)]
pub struct History {
    name: String,
    sent: BTreeMap<(Incarnation, u64), Sent>,
    takes: Vec<Take>,
    /// The last take of a message at a receiver.
    open: BTreeMap<(Incarnation, Option<Incarnation>, u64), usize>,
    lives: Vec<(Incarnation, bool, i64, i64)>,
}

impl History {
    /// Nothing seen yet. The name has letters, digits and dashes.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            sent: BTreeMap::new(),
            takes: Vec::new(),
            open: BTreeMap::new(),
            lives: Vec::new(),
        }
    }

    /// An application begins to hand over a message. `mode`: applied, received or none.
    pub fn submitted(
        &mut self,
        sender: Incarnation,
        number: u64,
        key: Option<u64>,
        mode: &'static str,
        to: &[Address],
        at: i64,
    ) {
        let appends = to.iter().map(|to| Append { to: *to, told: None }).collect();
        self.sent.insert((sender, number), Sent { key, mode, call: at, queued: None, appends });
    }

    /// The call that handed it over has returned.
    pub fn queued(&mut self, sender: Incarnation, number: u64, at: i64) {
        if let Some(sent) = self.sent.get_mut(&(sender, number)) {
            sent.queued = Some(at);
        }
    }

    /// The application learned what became of it; `outcome` tells it for each address, `None` if it cannot
    /// tell.
    pub fn told(
        &mut self,
        sender: Incarnation,
        number: u64,
        at: i64,
        mut outcome: impl FnMut(Address) -> Option<Told>,
    ) {
        let Some(sent) = self.sent.get_mut(&(sender, number)) else { return };
        for append in &mut sent.appends {
            append.told = outcome(append.to).map(|told| (at, told));
        }
    }

    /// The application of a receiver got a message, of an unknown sender if nobody sent it.
    pub fn taken(
        &mut self,
        receiver: Incarnation,
        sender: Option<Incarnation>,
        key: Option<u64>,
        number: u64,
        at: i64,
    ) {
        self.open.insert((receiver, sender, number), self.takes.len());
        self.takes.push(Take { sender, receiver, key, number, call: at, end: None });
    }

    /// Its listener is about to report that it has accepted it, or that it has not.
    pub fn listened(
        &mut self,
        receiver: Incarnation,
        sender: Option<Incarnation>,
        number: u64,
        is_accepted: bool,
        at: i64,
    ) {
        if let Some(take) = self.open.remove(&(receiver, sender, number)) {
            self.takes[take].end = Some((at, is_accepted));
        }
    }

    /// A member was killed between two times.
    pub fn killed(&mut self, life: Incarnation, from: i64, until: i64) {
        self.lives.push((life, true, from, until));
    }

    /// A member lives, and has handed over all that it received.
    pub fn ended(&mut self, life: Incarnation, at: i64) {
        self.lives.push((life, false, at, at));
    }

    /// How many messages were handed to applications.
    #[must_use]
    pub fn takes_count(&self) -> usize {
        self.takes.len()
    }

    /// How many lives were killed.
    #[must_use]
    pub fn kills_count(&self) -> usize {
        self.lives.iter().filter(|(_, is_killed, ..)| *is_killed).count()
    }

    /// How many outcomes of messages in `mode` were as `told`.
    #[must_use]
    pub fn told_count(&self, mode: &str, told: Told) -> usize {
        let sent = self.sent.values().filter(|sent| sent.mode == mode);
        sent.flat_map(|sent| &sent.appends)
            .filter(|append| append.told.is_some_and(|(_, is)| is == told))
            .count()
    }

    /// The lines.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut text = String::new();
        let mut line = |line: std::fmt::Arguments<'_>| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{{{line}}}");
        };
        line(format_args!(r#""kind":"history","name":"{}""#, self.name));
        for ((sender, number), sent) in &self.sent {
            let Sent { key, mode, call, .. } = sent;
            let (key, queued) = (or_null(*key), or_null(sent.queued));
            for Append { to, told } in &sent.appends {
                let receiver = to.life.map_or_else(
                    || format!("m{}", to.member),
                    |life| Incarnation { member: to.member, life }.to_string(),
                );
                let outcome = match told {
                    None => "unknown",
                    Some((_, Told::Ok)) => "ok",
                    Some((_, Told::Failed)) => "failed",
                    Some((_, Told::Refused)) => "refused",
                };
                let end = or_null(told.map(|(at, _)| at));
                line(format_args!(
                    r#""kind":"append","sender":"{sender}","receiver":"{receiver}","key":{key},"number":{number},"mode":"{mode}","call":{call},"queued":{queued},"return":{end},"outcome":"{outcome}""#
                ));
            }
        }
        for Take { sender, receiver, key, number, call, end } in &self.takes {
            let sender = sender.map_or_else(|| "nobody".to_owned(), |sender| sender.to_string());
            let key = or_null(*key);
            let outcome = match end {
                None => "open",
                Some((_, true)) => "accepted",
                Some((_, false)) => "refused",
            };
            let end = or_null(end.map(|(at, _)| at));
            line(format_args!(
                r#""kind":"take","sender":"{sender}","receiver":"{receiver}","key":{key},"number":{number},"call":{call},"return":{end},"outcome":"{outcome}""#
            ));
        }
        for (life, is_killed, from, until) in &self.lives {
            let outcome = if *is_killed { "killed" } else { "alive" };
            line(format_args!(
                r#""kind":"life","receiver":"{life}","call":{from},"return":{until},"outcome":"{outcome}""#
            ));
        }
        text
    }
}

fn or_null(value: Option<impl Display>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.to_string())
}
