//! One member of the demo, a process of its own: told what to do on standard input, answers on
//! standard output, one JSON object a line.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringtribe::config::Config;
use ringtribe::event::{Event, LogLevel};
use ringtribe::ids::MemberId;
use ringtribe::node::Node;
use ringtribe::status::Status;
use ringtribe::submit::{Envelope, SendFailure};
use ringtribe_wire::tribes::options::{ASYNCHRONOUS, SYNCHRONIZED_ACK, USE_ACK};
use serde_json::{Value, json};

use crate::arguments::DemoMember;
use crate::demo_ledger::{KEYS_COUNT, Name, Replica};
use crate::member::Member;
use crate::output;

const APPLIED: i32 = USE_ACK | SYNCHRONIZED_ACK;
/// Longest time of one measurement.
const MEASURE_AT_MOST: Duration = Duration::from_secs(2);
/// Callers of a member while one of the others is killed.
const TRAFFIC_CALLERS_COUNT: u32 = 2;
const GRACE: Duration = Duration::from_secs(1);

/// What this member keeps, and who waits for more of it.
#[derive(Default)]
struct Kept {
    replica: Mutex<Replica>,
    changed: Condvar,
    /// Somebody waits.
    awaited: AtomicBool,
}

impl Kept {
    fn replica(&self) -> MutexGuard<'_, Replica> {
        self.replica.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, value: &[u8], keep: impl Fn(Name) -> bool) -> Status {
        let taken = self.replica().apply(value, keep);
        if self.awaited.load(Ordering::Acquire) {
            self.changed.notify_all();
        }
        if taken { Status::Ok } else { Status::RemoteFailed }
    }

    /// Waits until `count` messages of `owner` came, and returns how many did.
    fn await_count(&self, owner: u8, count: u64, within: Duration) -> u64 {
        let until = Instant::now() + within;
        let mut replica = self.replica();
        self.awaited.store(true, Ordering::Release);
        loop {
            let received_count = replica.received_count(owner);
            let left = until.saturating_duration_since(Instant::now());
            if received_count >= count || left.is_zero() {
                self.awaited.store(false, Ordering::Release);
                return received_count;
            }
            let woken = self.changed.wait_timeout(replica, left);
            replica = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Runs a member until its standard input ends, which is when the demo does.
///
/// # Errors
/// The node cannot start, or standard output is closed.
pub(crate) fn run(options: &DemoMember) -> std::io::Result<ExitCode> {
    let config = config(options).map_err(std::io::Error::other)?;
    let kept = Arc::new(Kept::default());
    let applying = Arc::clone(&kept);
    let drop_replication = options.drop_replication;
    let mut events = Events::default();
    let member = Member::start(
        &config,
        Some(unique_id(options.number)),
        move |incoming| {
            let keep = |name: Name| !drop_replication || name.key % 10 != 3;
            applying.apply(incoming.payload(), keep)
        },
        move |node, event| {
            if let Some(line) = events.line(node, event) {
                let _ = output::object(&line);
            }
        },
    )
    .map_err(std::io::Error::other)?;
    let sender = Arc::new(Sender {
        node: Arc::clone(&member.node),
        owner: options.number,
        versions: (0..KEYS_COUNT).map(|_| AtomicU64::new(0)).collect(),
        stop: AtomicBool::new(false),
    });
    let ready = json!({
        "reply": "ready", "address": member.address.to_string(), "backend": member.node.backend()
    });
    output::object(&ready)?;

    // The demo may be killed while this member is busy.
    let (line_in, lines) = mpsc::sync_channel(16);
    std::thread::Builder::new().name("commands".into()).spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if line == "quit" || line_in.send(line).is_err() {
                return;
            }
        }
        std::process::exit(1);
    })?;
    let mut traffic: Vec<JoinHandle<Tally>> = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        let reply = match (words[0], number(1), number(2), number(3)) {
            ("applied", Some(count), Some(callers), Some(size)) => {
                measure(&sender, Phase { count, callers, size, options: APPLIED })?
            }
            ("asynchronous", Some(count), Some(callers), Some(size)) => {
                measure(&sender, Phase { count, callers, size, options: ASYNCHRONOUS })?
            }
            ("await", Some(owner), Some(count), Some(within_ms)) => {
                let owner = u8::try_from(owner).unwrap_or(0);
                let within = Duration::from_millis(within_ms);
                json!({"reply": "arrived", "count": kept.await_count(owner, count, within)})
            }
            ("traffic", Some(size), ..) => {
                for caller in 0..TRAFFIC_CALLERS_COUNT {
                    traffic.push(talk(&sender, caller, size)?);
                }
                json!({"reply": "traffic"})
            }
            ("stop", ..) => {
                sender.stop.store(true, Ordering::Relaxed);
                let tally = traffic.drain(..).map(joined).fold(Tally::default(), Tally::add);
                json!({"reply": "stopped", "ok_count": tally.ok, "failed_count": tally.failed})
            }
            ("map", ..) => {
                let replica = kept.replica();
                let values: Vec<_> = replica.holdings().into_iter().collect();
                let out_of_order_count = replica.out_of_order_count;
                drop(replica);
                let values: Vec<_> = values
                    .into_iter()
                    .map(|(name, held)| json!([name.owner, name.key, held.version, held.digest]))
                    .collect();
                json!({
                    "reply": "map", "values": values, "out_of_order_count": out_of_order_count
                })
            }
            _ => json!({"reply": "unknown", "line": line}),
        };
        output::object(&reply)?;
    }
    member.close(GRACE);
    Ok(ExitCode::SUCCESS)
}

fn config(options: &DemoMember) -> Result<Config, String> {
    let mut config = Config::default();
    let (group, port) = (options.group.as_str(), options.port.to_string());
    for (attribute, value) in [
        ("mcastAddr", group),
        ("mcastPort", port.as_str()),
        ("mcastBindAddr", "127.0.0.1"),
        ("mcastFrequency", "100"),
        ("mcastDropTime", "1000"),
        ("tcpListenAddress", "127.0.0.1"),
        ("tcpThreadCount", "2"),
        ("ackTimeout", "5000"),
    ] {
        config.set(attribute, value).map_err(|error| error.to_string())?;
    }
    // Any free one.
    config.tcp_listen_port = 0;
    Ok(config)
}

/// The Tribes unique id of a member of the demo; its last byte is its number.
fn unique_id(number: u8) -> [u8; 16] {
    let mut id = *b"ringtribe-demo--";
    id[15] = number;
    id
}

/// Tells the numbers of members that come and go.
#[derive(Default)]
struct Events {
    numbers: BTreeMap<MemberId, u8>,
}

impl Events {
    fn line(&mut self, node: &Node, event: Event) -> Option<Value> {
        match event {
            Event::MemberAdded { member, .. } => {
                let number = number_of(node, member)?;
                self.numbers.insert(member, number);
                Some(json!({"event": "added", "member": number}))
            }
            Event::MemberGone { member, cause, .. } => {
                let number = self.numbers.remove(&member)?;
                Some(json!({"event": "gone", "member": number, "cause": cause.text()}))
            }
            Event::Log { level: LogLevel::Error, text } => {
                Some(json!({"event": "log", "text": text}))
            }
            _ => None,
        }
    }
}

fn number_of(node: &Node, member: MemberId) -> Option<u8> {
    let entry = node.members().into_iter().find(|entry| entry.id == member)?;
    Some(entry.identity.unique_id[15])
}

/// Sends this member's keys.
struct Sender {
    node: Arc<Node>,
    owner: u8,
    versions: Vec<AtomicU64>,
    stop: AtomicBool,
}

/// Whom to send to: handles, and the numbers of the demo.
struct Others {
    ids: Vec<MemberId>,
    numbers: Vec<u8>,
}

impl Others {
    fn of(node: &Node) -> Self {
        let members = node.members();
        Self {
            ids: members.iter().map(|entry| entry.id).collect(),
            numbers: members.iter().map(|entry| entry.identity.unique_id[15]).collect(),
        }
    }
}

/// One send: the value, and who acknowledged it.
struct Sent {
    name: Name,
    version: u64,
    ok: Vec<u8>,
    failed_count: usize,
}

impl Sender {
    /// Sends the next version of a key. A key has one caller at a time.
    fn send(
        &self,
        others: &Others,
        key: u32,
        size_bytes: usize,
        options: i32,
    ) -> Result<Sent, Status> {
        let name = Name { owner: self.owner, key };
        let version = self.versions[key as usize].fetch_add(1, Ordering::Relaxed) + 1;
        let mut unique_id = [0; 16];
        unique_id[..4].copy_from_slice(&key.to_le_bytes());
        unique_id[4..12].copy_from_slice(&version.to_le_bytes());
        let envelope = Envelope { options, timestamp_ms: 0, unique_id };
        let mut builder = self.node.compose(size_bytes, &envelope)?;
        name.fill(version, builder.payload_mut());
        let order = Some(name.order());
        let result = if options == APPLIED {
            self.node.send(builder, order, false, &others.ids, None)
        } else {
            self.node.submit(builder, order, false, &others.ids, None, None)
        };
        let failures = match result {
            Ok(()) => Vec::new(),
            Err(SendFailure { failures }) => failures,
        };
        let all = others.ids.iter().zip(&others.numbers);
        let ok = all.filter(|(id, _)| !failures.iter().any(|(failed, _)| failed == *id));
        let ok = ok.map(|(_, number)| *number).collect();
        Ok(Sent { name, version, ok, failed_count: failures.len() })
    }
}

/// A measurement.
#[derive(Clone, Copy)]
struct Phase {
    count: u64,
    callers: u64,
    size: u64,
    options: i32,
}

/// What callers did.
#[derive(Default)]
struct Tally {
    ok: u64,
    failed: u64,
    /// Of each send, µs.
    took_us: Vec<u32>,
    /// Newest acknowledged version by key and member.
    newest: BTreeMap<(u32, u8), u64>,
}

impl Tally {
    fn count(&mut self, sent: &Sent) {
        for member in &sent.ok {
            self.newest.insert((sent.name.key, *member), sent.version);
        }
        if sent.failed_count == 0 { self.ok += 1 } else { self.failed += 1 }
    }

    fn add(mut self, other: Self) -> Self {
        self.ok += other.ok;
        self.failed += other.failed;
        self.took_us.extend(other.took_us);
        self.newest.extend(other.newest);
        self
    }

    fn percentile_us(&self, percent: usize) -> Option<u32> {
        self.took_us.get((self.took_us.len().checked_sub(1)?) * percent / 100).copied()
    }
}

fn joined(caller: JoinHandle<Tally>) -> Tally {
    // A caller that panicked has said so; its sends count for nothing.
    caller.join().unwrap_or_default()
}

fn spawn(work: impl FnOnce() -> Tally + Send + 'static) -> std::io::Result<JoinHandle<Tally>> {
    std::thread::Builder::new().name("caller".into()).spawn(work)
}

/// Every caller has keys of its own, in turns.
fn keys(caller: u64, callers: u64) -> impl Iterator<Item = u32> {
    let callers = u32::try_from(callers).unwrap_or(1).clamp(1, KEYS_COUNT);
    (u32::try_from(caller).unwrap_or(0)..KEYS_COUNT).step_by(callers as usize).cycle()
}

fn measure(sender: &Arc<Sender>, phase: Phase) -> std::io::Result<Value> {
    let size_bytes = usize::try_from(phase.size).unwrap_or(usize::MAX);
    let started = Instant::now();
    let mut callers = Vec::new();
    for caller in 0..phase.callers {
        let sender = Arc::clone(sender);
        // The first callers take the rest.
        let count = phase.count / phase.callers + u64::from(caller < phase.count % phase.callers);
        callers.push(spawn(move || {
            let mut tally = Tally::default();
            let others = Others::of(&sender.node);
            for key in keys(caller, phase.callers).take(usize::try_from(count).unwrap_or(0)) {
                let before = Instant::now();
                if before - started > MEASURE_AT_MOST {
                    break;
                }
                match sender.send(&others, key, size_bytes, phase.options) {
                    Ok(sent) => tally.count(&sent),
                    Err(_) => tally.failed += 1,
                }
                let took_us = u32::try_from(before.elapsed().as_micros());
                tally.took_us.push(took_us.unwrap_or(u32::MAX));
            }
            tally
        })?);
    }
    let mut tally = callers.into_iter().map(joined).fold(Tally::default(), Tally::add);
    let took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    tally.took_us.sort_unstable();
    // Without an acknowledgement nothing is promised.
    let acknowledged: Vec<_> = tally
        .newest
        .iter()
        .filter(|_| phase.options == APPLIED)
        .map(|((key, member), version)| json!([key, member, version]))
        .collect();
    Ok(json!({
        "reply": "measured", "ok_count": tally.ok, "failed_count": tally.failed,
        "took_us": took_us, "p50_us": tally.percentile_us(50), "p99_us": tally.percentile_us(99),
        "acknowledged": acknowledged,
    }))
}

/// Sends until told to stop, and says at once what was acknowledged: this process may be killed.
fn talk(sender: &Arc<Sender>, caller: u32, size: u64) -> std::io::Result<JoinHandle<Tally>> {
    let sender = Arc::clone(sender);
    let size_bytes = usize::try_from(size).unwrap_or(usize::MAX);
    spawn(move || {
        let mut tally = Tally::default();
        for key in keys(caller.into(), TRAFFIC_CALLERS_COUNT.into()) {
            if sender.stop.load(Ordering::Relaxed) {
                break;
            }
            let others = Others::of(&sender.node);
            let Ok(sent) = sender.send(&others, key, size_bytes, APPLIED) else {
                tally.failed += 1;
                continue;
            };
            tally.count(&sent);
            let line = json!({"ok": [key, sent.version, sent.ok], "failed": sent.failed_count});
            if output::object(&line).is_err() {
                break;
            }
        }
        tally
    })
}
