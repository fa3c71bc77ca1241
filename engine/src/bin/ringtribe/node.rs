//! `ringtribe node`: a member that accepts every message and tells what happens.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use ringtribe::event::{Event, LogLevel};
use ringtribe::ids::MemberId;
use ringtribe::machine::EndSignals;
use ringtribe::node::Node;
use ringtribe::status::Status;
use serde_json::{Value, json};

use crate::member::Member;
use crate::output;
use crate::settings::Settings;

/// What may still go out when the node is asked to end.
const GRACE: Duration = Duration::from_secs(5);
/// Between lines on traffic.
const TRAFFIC_EVERY: Duration = Duration::from_secs(1);

enum Happening {
    Event(Event),
    Signal(&'static str),
    /// The node ended by itself.
    Ended,
}

/// Where the node's events go; says so when no more can come.
struct Events(Sender<Happening>);

impl Events {
    fn take(&self, event: Event) {
        // The receiver is gone only when the program ends.
        let _ = self.0.send(Happening::Event(event));
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.0.send(Happening::Ended);
    }
}

/// One line: a word and a text for people, an object for programs.
struct Printer {
    json: bool,
}

impl Printer {
    fn print(&self, word: &str, text: &str, mut object: Value) -> std::io::Result<()> {
        if self.json {
            object["event"] = word.into();
            output::object(&object)
        } else {
            output::line(&format!("{word:<9} {text}"))
        }
    }
}

/// Runs a member until a signal asks it to end.
///
/// # Errors
/// The node cannot start, or standard output is closed; then it says goodbye too.
pub(crate) fn run(settings: &Settings, json: bool) -> std::io::Result<ExitCode> {
    let signals = EndSignals::keep()?;
    let printer = Printer { json };
    printer.print("settings", &settings.text(), json!({"settings": settings.json()}))?;
    for text in &settings.ignored {
        printer.print("ignored", text, json!({"text": text}))?;
    }

    let accepted = Arc::new(Accepted::default());
    let (happened, happenings) = channel();
    let counting = Arc::clone(&accepted);
    let events = Events(happened.clone());
    let member = Member::start(
        &settings.config,
        None,
        move |incoming| {
            counting.bytes.fetch_add(incoming.payload().len() as u64, Ordering::Relaxed);
            counting.messages_count.fetch_add(1, Ordering::Relaxed);
            Status::Ok
        },
        move |_, event| events.take(event),
    )
    .map_err(std::io::Error::other)?;
    await_signals(signals, happened)?;

    let mut watch = Watch {
        printer,
        node: Arc::clone(&member.node),
        accepted,
        names: BTreeMap::new(),
        before: Traffic::default(),
    };
    let ended = watch.hello(&member).and_then(|()| {
        let mut due = Instant::now() + TRAFFIC_EVERY;
        loop {
            match happenings.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Happening::Event(event)) => watch.event(event)?,
                Ok(Happening::Signal(name)) => return Ok(Some(name)),
                Ok(Happening::Ended) | Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {
                    watch.traffic()?;
                    due += TRAFFIC_EVERY;
                }
            }
        }
    });
    member.close(GRACE);
    let signal = ended?;
    // What the last second brought, and what the close itself had to say. That it leaves the
    // others behind is no news.
    watch.traffic()?;
    for happening in happenings.try_iter() {
        match happening {
            Happening::Event(Event::MemberGone { cause: Status::Closed, .. }) => {}
            Happening::Event(event) => watch.event(event)?,
            Happening::Signal(_) | Happening::Ended => {}
        }
    }
    let (messages_count, bytes) = watch.accepted.get();
    let count = output::thousands(messages_count);
    let why = signal.unwrap_or("the node ended by itself");
    let text = format!("{why}; accepted {count} messages, {}", output::bytes(bytes));
    let object = json!({"why": why, "accepted_count": messages_count, "accepted_bytes": bytes});
    watch.printer.print("closed", &text, object)?;
    Ok(signal.map_or(ExitCode::FAILURE, |_| ExitCode::SUCCESS))
}

/// The first signal ends the node in order, the second at once.
fn await_signals(signals: EndSignals, happened: Sender<Happening>) -> std::io::Result<()> {
    let waiting = move || {
        while let Ok(name) = signals.wait() {
            if happened.send(Happening::Signal(name)).is_err() {
                return;
            }
            if signals.wait().is_ok() {
                std::process::exit(1);
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(waiting).map(drop)
}

/// Messages that this node accepted.
#[derive(Default)]
struct Accepted {
    messages_count: AtomicU64,
    bytes: AtomicU64,
}

impl Accepted {
    fn get(&self) -> (u64, u64) {
        (self.messages_count.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// Totals when traffic was last told, and what waited.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Traffic {
    in_count: u64,
    in_bytes: u64,
    out_count: u64,
    out_bytes: u64,
    queued_bytes: u64,
    undelivered_bytes: u64,
}

struct Watch {
    printer: Printer,
    node: Arc<Node>,
    accepted: Arc<Accepted>,
    /// What a member was called: a handle says nothing any more when it has gone.
    names: BTreeMap<MemberId, String>,
    before: Traffic,
}

impl Watch {
    fn hello(&self, member: &Member) -> std::io::Result<()> {
        let boot_id = format!("{:?}", self.node.boot_id());
        let (address, backend, pid) = (member.address, self.node.backend(), std::process::id());
        let object = json!({
            "boot_id": boot_id, "address": address.to_string(), "backend": backend, "pid": pid
        });
        let text = format!("{address}, {backend}, boot id {boot_id}, pid {pid}");
        self.printer.print("node", &text, object)
    }

    /// What a member is called: where it listens.
    fn name(&mut self, member: MemberId) -> String {
        if let Some(name) = self.names.get(&member) {
            return name.clone();
        }
        let entry = self.node.members().into_iter().find(|entry| entry.id == member);
        let name = entry.map_or_else(
            || format!("{}.{}", member.index, member.generation),
            |entry| entry.address.to_string(),
        );
        self.names.insert(member, name.clone());
        name
    }

    fn event(&mut self, event: Event) -> std::io::Result<()> {
        match event {
            Event::MemberAdded { member, .. } => {
                let name = self.name(member);
                let count = self.node.members().len();
                let text = format!("+ {name}, {count} besides this node");
                let object = json!({"change": "added", "address": name, "members_count": count});
                self.printer.print("member", &text, object)
            }
            Event::MemberChanged { member, .. } => {
                let name = self.name(member);
                let object = json!({"change": "changed", "address": name});
                self.printer.print("member", &format!("~ {name}, changed"), object)
            }
            Event::MemberGone { member, cause, .. } => {
                let name = self.name(member);
                self.names.remove(&member);
                let count = self.node.members().len();
                let text = format!("- {name}, {count} besides this node: {cause}");
                let object = json!({
                    "change": "gone", "address": name, "members_count": count,
                    "cause": cause.number(), "text": cause.text()
                });
                self.printer.print("member", &text, object)
            }
            Event::Gap { member, here, messages_count } => {
                let name = self.name(member);
                let count = output::thousands(messages_count);
                let place = if here { "here" } else { "there" };
                let text = format!("{name}: up to {count} messages are missing {place}");
                // This program keeps no state to repair.
                self.node.repaired(member);
                let object =
                    json!({"address": name, "here": here, "messages_count": messages_count});
                self.printer.print("gap", &text, object)
            }
            Event::Log { level, text } => {
                let level = match level {
                    LogLevel::Debug => "debug",
                    LogLevel::Info => "info",
                    LogLevel::Warn => "warn",
                    LogLevel::Error => "error",
                };
                let object = json!({"level": level, "text": text});
                self.printer.print("log", &format!("{level}: {text}"), object)
            }
            // This program submits nothing.
            Event::Completed { .. } => Ok(()),
        }
    }

    fn traffic(&mut self) -> std::io::Result<()> {
        let stats: BTreeMap<&str, u64> = self.node.stats().into_iter().collect();
        let stat = |name: &str| stats.get(name).copied().unwrap_or(0);
        let (in_count, in_bytes) = self.accepted.get();
        let now = Traffic {
            in_count,
            in_bytes,
            out_count: stat("frames_sent_count"),
            out_bytes: stat("frames_sent_bytes"),
            queued_bytes: stat("queued_bytes"),
            undelivered_bytes: stat("undelivered_bytes"),
        };
        let before = std::mem::replace(&mut self.before, now);
        if now == before {
            return Ok(());
        }
        let (in_count, in_bytes) = (now.in_count - before.in_count, now.in_bytes - before.in_bytes);
        let out_count = now.out_count - before.out_count;
        let out_bytes = now.out_bytes - before.out_bytes;
        let text = format!(
            "in {} messages/s {}/s, out {} messages/s {}/s, queued {}, undelivered {}",
            output::thousands(in_count),
            output::bytes(in_bytes),
            output::thousands(out_count),
            output::bytes(out_bytes),
            output::bytes(now.queued_bytes),
            output::bytes(now.undelivered_bytes)
        );
        let object = json!({
            "in_count": in_count, "in_bytes": in_bytes,
            "out_count": out_count, "out_bytes": out_bytes,
            "queued_bytes": now.queued_bytes, "undelivered_bytes": now.undelivered_bytes,
        });
        self.printer.print("traffic", &text, object)
    }
}
