//! A member in a process of its own that loads the cluster and writes down what it sees.
//!
//! Each line is in the file, by one write, before what it speaks of can be seen elsewhere: so a SIGKILL loses
//! nothing that another process can know. Times are nanoseconds of CLOCK_MONOTONIC, one clock for all processes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use ringtribe::config::Config;
use ringtribe::delivery::{Delivery, PollEnd, Polled, PollerClass};
use ringtribe::event::Event;
use ringtribe::ids::{BootId, Key, MemberId};
use ringtribe::node::Node;
use ringtribe::protocol::membership::LocalMember;
use ringtribe::status::Status;
use ringtribe::submit::Envelope;

use crate::sim::random::Random;

/// Boot id of the sender, key, number.
const HEAD_BYTES: usize = 32;
const NO_KEY: u64 = u64::MAX;
/// Messages of which the outcome is awaited in the background.
const MOST_AWAITED_COUNT: usize = 256;
const WITHIN: Duration = Duration::from_secs(30);
/// Longest time that a closing member has to finish.
const GRACE: Duration = Duration::from_secs(10);

/// Options of a message of bytes by its mode.
const MODES: [(&str, i32); 3] = [("applied", 7), ("received", 3), ("none", 9)];

/// What each sending thread sends: key, mode by its place above, whether it waits for each message. Two threads
/// share a key: which of their messages is first, if both are sent at once, is not said.
const THREADS: [(Option<u64>, usize, bool); 8] = [
    (Some(1), 0, true),
    (Some(2), 1, true),
    (Some(3), 2, false),
    (Some(4), 0, false),
    (Some(5), 0, true),
    (Some(5), 0, true),
    (None, 0, false),
    (None, 1, false),
];

/// Nanoseconds of the clock that all processes of a host share.
#[must_use]
pub fn now() -> i64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

/// A boot id as it is written.
#[must_use]
pub fn hex(boot_id: BootId) -> String {
    format!("{boot_id:?}")
}

/// Who has a message, as this member knows them.
type Addressed = Vec<(MemberId, BootId)>;

struct Recorded {
    node: Node,
    boot_id: BootId,
    journal: File,
    next_number: AtomicU64,
    stopping: AtomicBool,
    awaited: Mutex<BTreeMap<u64, Addressed>>,
    changed: Condvar,
}

impl Recorded {
    /// One write, so that lines of several threads do not mix and none is half there.
    fn note(&self, line: std::fmt::Arguments<'_>) {
        let line = format!("{line}\n");
        if let Err(error) = (&self.journal).write_all(line.as_bytes()) {
            // Without its journal a history says nothing.
            eprintln!("the journal: {error}");
            std::process::abort();
        }
    }

    fn awaited(&self) -> MutexGuard<'_, BTreeMap<u64, Addressed>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `look` is content with what is awaited.
    fn wait(&self, within: Duration, look: impl Fn(&BTreeMap<u64, Addressed>) -> bool) -> bool {
        let until = Instant::now() + within;
        let mut awaited = self.awaited();
        while !look(&awaited) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            awaited =
                self.changed.wait_timeout(awaited, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn members(&self) -> Addressed {
        let entries = self.node.members();
        entries.iter().filter_map(|entry| Some((entry.id, entry.boot_id()?))).collect()
    }

    fn told(&self, number: u64, to: &Addressed, failures: &[(MemberId, Status)]) {
        let at = now();
        let failed: Vec<String> = to
            .iter()
            .filter_map(|(member, boot_id)| {
                let (_, status) = failures.iter().find(|(failed, _)| failed == member)?;
                Some(format!("{}:{}", hex(*boot_id), status.number()))
            })
            .collect();
        self.note(format_args!("d {number} {at} {}", failed.join(",")));
    }

    fn send(&self, random: &mut Random, key: Option<u64>, mode: usize, is_waiting: bool) {
        let to = self.members();
        if to.is_empty() {
            return;
        }
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let filler_bytes = match random.below(40) {
            0 => random.index(150_000),
            1..=8 => random.index(8_000),
            _ => random.index(200),
        };
        let mut unique_id = self.boot_id.0;
        unique_id[8..].copy_from_slice(&number.to_le_bytes());
        let (mode, options) = MODES[mode];
        let envelope = Envelope { options, timestamp_ms: 1, unique_id };
        let Ok(mut builder) = self.node.compose(HEAD_BYTES + filler_bytes, &envelope) else {
            return;
        };
        let payload = builder.payload_mut();
        payload[..16].copy_from_slice(&self.boot_id.0);
        payload[16..24].copy_from_slice(&key.unwrap_or(NO_KEY).to_le_bytes());
        payload[24..32].copy_from_slice(&number.to_le_bytes());
        let engine_key = key.map(|key| Key::of(&key.to_le_bytes()));
        let members: Vec<MemberId> = to.iter().map(|(member, _)| *member).collect();
        let boots: Vec<String> = to.iter().map(|(_, boot_id)| hex(*boot_id)).collect();
        let key = key.map_or_else(|| "-".to_owned(), |key| key.to_string());
        if !is_waiting {
            self.awaited().insert(number, to.clone());
        }
        self.note(format_args!("s {number} {key} {mode} {} {}", now(), boots.join(",")));
        if is_waiting {
            let sent = self.node.send(builder, engine_key, false, &members, None);
            self.note(format_args!("q {number} {}", now()));
            self.told(number, &to, &sent.err().map(|error| error.failures).unwrap_or_default());
            return;
        }
        let queued = self.node.submit(builder, engine_key, false, &members, None, Some(number));
        self.note(format_args!("q {number} {}", now()));
        if let Err(error) = queued {
            self.awaited().remove(&number);
            self.changed.notify_all();
            self.told(number, &to, &error.failures);
        }
    }

    fn sender(&self, seed: u64, (key, mode, is_waiting): (Option<u64>, usize, bool)) {
        let mut random = Random::new(seed);
        while !self.stopping.load(Ordering::Acquire) {
            if is_waiting || self.wait(WITHIN, |awaited| awaited.len() < MOST_AWAITED_COUNT) {
                self.send(&mut random, key, mode, is_waiting);
            }
            std::thread::park_timeout(Duration::from_micros(random.between(500, 8_000)));
        }
    }

    fn listen(&self, random: &mut Random, delivery: Delivery) {
        let payload = delivery.incoming().payload();
        let Some((sender, key, number)) = read(payload) else {
            self.note(format_args!("t {} - 0 {}", hex(BootId([0; 16])), now()));
            delivery.complete(Status::Ok);
            return;
        };
        let (sender, key_text) = (hex(sender), key.map_or("-".to_owned(), |key| key.to_string()));
        self.note(format_args!("t {sender} {key_text} {number} {}", now()));
        match random.below(200) {
            0 => std::thread::park_timeout(Duration::from_millis(random.between(1, 30))),
            1..=20 => std::thread::yield_now(),
            _ => {}
        }
        // A listener that fails, once in fifty times.
        let is_accepted = !random.chance(20);
        let mark = if is_accepted { 'a' } else { 'r' };
        self.note(format_args!("{mark} {sender} {number} {}", now()));
        delivery.complete(if is_accepted { Status::Ok } else { Status::RemoteFailed });
    }

    fn poll(&self, seed: u64, class: PollerClass) {
        let mut random = Random::new(seed);
        let mut taken = Vec::new();
        loop {
            let end = self.node.poll(class, 64 << 20, 16, Duration::from_secs(1), &mut taken);
            for polled in taken.drain(..) {
                match polled {
                    Polled::Message(delivery) => self.listen(&mut random, delivery),
                    Polled::Event(Event::Completed { token, failures }) => {
                        let to = self.awaited().get(&token).cloned().unwrap_or_default();
                        self.told(token, &to, &failures);
                        self.awaited().remove(&token);
                        self.changed.notify_all();
                    }
                    Polled::Event(Event::Gap { member, .. }) => self.node.repaired(member),
                    Polled::Event(_) => self.changed.notify_all(),
                }
            }
            if end == PollEnd::Closed {
                return;
            }
        }
    }

    fn command(&self, line: &str) -> Result<(), String> {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("announce", port) => {
                let port: u16 = port.parse().map_err(|error| format!("{port}: {error}"))?;
                let mut unique_id = [0; 16];
                unique_id[..2].copy_from_slice(&port.to_be_bytes());
                self.node.set_local_member(LocalMember {
                    host: vec![127, 0, 0, 1],
                    port: i32::from(port),
                    secure_port: -1,
                    udp_port: -1,
                    unique_id,
                    ..LocalMember::default()
                });
                self.node.start_receiving().map_err(|error| error.to_string())?;
                self.node.start_sending().map_err(|error| error.to_string())
            }
            ("members", count) => {
                let count: usize = count.parse().map_err(|error| format!("{count}: {error}"))?;
                let until = Instant::now() + WITHIN;
                // What a heartbeat adds to a member is told by no event.
                while self.members().len() != count {
                    if Instant::now() > until {
                        return Err(format!("{} of {count} members", self.members().len()));
                    }
                    self.wait(Duration::from_millis(5), |_| false);
                }
                Ok(())
            }
            ("stop", _) => {
                self.stopping.store(true, Ordering::Release);
                let is_done = self.wait(WITHIN, BTreeMap::is_empty);
                is_done.then_some(()).ok_or_else(|| {
                    let left: Vec<u64> = self.awaited().keys().copied().take(10).collect();
                    format!("no outcome within {WITHIN:?} of {left:?}")
                })
            }
            _ => Err(format!("no such command: {line}")),
        }
    }
}

/// Sender, key and number of a payload.
fn read(payload: &[u8]) -> Option<(BootId, Option<u64>, u64)> {
    let (boot_id, rest) = payload.split_first_chunk::<16>()?;
    let (key, rest) = rest.split_first_chunk::<8>()?;
    let (number, _) = rest.split_first_chunk::<8>()?;
    let key = u64::from_le_bytes(*key);
    Some((BootId(*boot_id), (key != NO_KEY).then_some(key), u64::from_le_bytes(*number)))
}

/// Runs a member until its input ends or says `close`: `arguments` are a seed, the journal's file and the
/// engine's attributes as NAME=VALUE. Says `port=N`; takes `announce PORT`, `members COUNT`, `stop` and
/// `close`, and answers each.
///
/// # Errors
/// What the engine refuses, or an argument that is none.
pub fn run(arguments: &[String]) -> Result<(), String> {
    let [seed, journal, settings @ ..] = arguments else {
        return Err("give a seed and a journal".into());
    };
    let seed: u64 = seed.parse().map_err(|error| format!("{seed}: {error}"))?;
    let mut config = Config::default();
    for setting in settings {
        let (name, value) = setting.split_once('=').ok_or("settings are NAME=VALUE")?;
        config.set(name, value).map_err(|error| error.to_string())?;
    }
    let node = Node::open(&config).map_err(|error| error.to_string())?;
    let address = node.listen().map_err(|error| error.to_string())?;
    let journal = File::options().append(true).create_new(true).open(journal);
    let member = Arc::new(Recorded {
        boot_id: node.boot_id(),
        node,
        journal: journal.map_err(|error| error.to_string())?,
        next_number: AtomicU64::new(1),
        stopping: AtomicBool::new(false),
        awaited: Mutex::default(),
        changed: Condvar::new(),
    });
    member.note(format_args!("boot {}", hex(member.boot_id)));
    println!("port={}", address.port());
    let mut random = Random::new(seed);
    let classes = [PollerClass::General, PollerClass::General, PollerClass::Reserved];
    std::thread::scope(|scope| {
        for class in classes {
            let seed = random.next();
            let member = &member;
            scope.spawn(move || member.poll(seed, class));
        }
        let mut senders = Vec::new();
        for thread in THREADS {
            let seed = random.next();
            let member = &member;
            senders.push(scope.spawn(move || member.sender(seed, thread)));
        }
        let mut is_orderly = false;
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if line == "close" {
                is_orderly = true;
                break;
            }
            match member.command(&line) {
                Ok(()) => println!("> {line}"),
                Err(text) => println!("> error {text}"),
            }
        }
        member.stopping.store(true, Ordering::Release);
        for sender in senders {
            let _ = sender.join();
        }
        let clock = Instant::now();
        member.node.close(GRACE);
        if is_orderly && clock.elapsed() >= GRACE {
            println!("> error it was not done when its grace of {GRACE:?} ended");
            std::process::exit(1);
        }
    });
    // The pollers have ended too: all that was received was handed over.
    member.note(format_args!("e {}", now()));
    println!("> close");
    Ok(())
}
