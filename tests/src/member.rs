//! An engine with its listeners, and what they saw.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringtribe::config::Config;
use ringtribe::delivery::{PollEnd, Polled, PollerClass};
use ringtribe::directory::{Identity, MemberEntry};
use ringtribe::event::Event;
use ringtribe::ids::{Key, MemberId};
use ringtribe::node::Node;
use ringtribe::protocol::membership::LocalMember;
use ringtribe::status::Status;
use ringtribe::submit::{Envelope, MessageBuilder, SendFailure};
use ringtribe_wire::Limits;

use crate::process::monotonic_micros;

/// Longest wait for anything that a test waits for.
pub const WITHIN: Duration = Duration::from_secs(30);
/// A message whose sender waits until the listener has returned.
pub const APPLIED: i32 = 7;
/// A message whose sender waits for nothing.
pub const ASYNCHRONOUS: i32 = 9;
/// The option bit of a payload that is bytes and no Java object.
const BYTES: i32 = 1;
/// Its order is kept by a receiver in the Tribes format, as that of any message of a session.
const SESSION: &[u8] = include_bytes!("../../wire/testdata/java/session-delta.bin");
/// Key and number stand before the rest of a payload.
pub const LEAST_BYTES: usize = 16;

/// What happened to the view of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Somebody came.
    Added,
    /// Somebody has gone.
    Gone(Status),
    /// Messages of somebody are missing here.
    GapHere,
    /// Messages of this member are missing there.
    GapThere,
}

/// When that happened, and with whom.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// What.
    pub kind: Kind,
    /// Where that member listens.
    pub address: SocketAddr,
    /// The time, as [`monotonic_micros`].
    pub micros: u64,
}

/// What the listeners of a member saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Numbers of the messages of each key, in the order of their delivery.
    pub delivered: BTreeMap<u64, Vec<u64>>,
    /// How many of each key came before the process was stopped for longest.
    pub before_pause: BTreeMap<u64, usize>,
    longest_pause: Duration,
    last_taken: Option<Instant>,
    /// Messages that are none of [`Member::compose`].
    pub others_count: u64,
    /// All but log records and completions.
    pub events: Vec<Event>,
    /// The same, with their times.
    pub changes: Vec<Change>,
    addresses: BTreeMap<u64, SocketAddr>,
    /// Where each message is noted before its listener returns.
    pub journal: Option<File>,
    /// Texts of log records.
    pub logs: Vec<String>,
    /// Who failed, by token.
    pub completed: BTreeMap<u64, Vec<(MemberId, Status)>>,
    /// Listeners keep what they are given.
    held: bool,
}

impl Seen {
    /// Whether a log record has all `parts`.
    #[must_use]
    pub fn has_log(&self, parts: &[&str]) -> bool {
        self.logs.iter().any(|text| parts.iter().all(|part| text.contains(part)))
    }

    /// How many gaps of a member were told, by their `here`.
    #[must_use]
    pub fn gaps_count(&self, of: MemberId, is_here: bool) -> usize {
        let is_one = |event: &&Event| matches!(event, Event::Gap { member, here, .. } if *member == of && *here == is_here);
        self.events.iter().filter(is_one).count()
    }

    /// Messages come all the time, so the longest pause between two is that of a stopped process.
    fn note_pause(&mut self) {
        let now = Instant::now();
        let pause = self.last_taken.replace(now).map_or(Duration::ZERO, |last| now - last);
        if pause > self.longest_pause {
            self.longest_pause = pause;
            self.before_pause =
                self.delivered.iter().map(|(key, numbers)| (*key, numbers.len())).collect();
        }
    }

    fn take(&mut self, polled: Polled) {
        match polled {
            Polled::Message(delivery) => {
                self.note_pause();
                match read(delivery.incoming().payload()) {
                    Some((key, number)) => {
                        if let Some(journal) = &mut self.journal {
                            let noted = journal.write_all(format!("{key} {number}\n").as_bytes());
                            noted.expect("a message can be noted");
                        }
                        self.delivered.entry(key).or_default().push(number);
                    }
                    None => self.others_count += 1,
                }
                delivery.complete(Status::Ok);
            }
            Polled::Event(Event::Log { text, .. }) => self.logs.push(text),
            Polled::Event(Event::Completed { token, failures }) => {
                self.completed.insert(token, failures);
            }
            Polled::Event(event) => {
                self.note_change(&event);
                self.events.push(event);
            }
        }
    }

    fn note_change(&mut self, event: &Event) {
        let micros = monotonic_micros();
        let (member, kind) = match event {
            Event::MemberAdded { member, package } => {
                let decoded = ringtribe_wire::tribes::Member::decode(package, &Limits::default());
                let address = decoded.ok().and_then(|(of, _)| Identity::of(&of).address());
                self.addresses.extend(address.map(|address| (member.to_bits(), address)));
                (member, Kind::Added)
            }
            Event::MemberGone { member, cause, .. } => (member, Kind::Gone(*cause)),
            Event::Gap { member, here: true, .. } => (member, Kind::GapHere),
            Event::Gap { member, here: false, .. } => (member, Kind::GapThere),
            _ => return,
        };
        if let Some(address) = self.addresses.get(&member.to_bits()) {
            let address = *address;
            if let (Kind::GapHere, Some(journal)) = (kind, &mut self.journal) {
                let noted = journal.write_all(format!("gap {address}\n").as_bytes());
                noted.expect("a gap can be noted");
            }
            self.changes.push(Change { kind, address, micros });
        }
    }
}

/// Key and number of a payload that [`Member::compose`] made.
fn read(payload: &[u8]) -> Option<(u64, u64)> {
    let payload = payload.strip_prefix(SESSION).unwrap_or(payload);
    let (key, rest) = payload.split_first_chunk::<8>()?;
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let number = u64::from_le_bytes(*number);
    let fill = number.to_le_bytes()[0];
    rest.iter().all(|byte| *byte == fill).then_some((u64::from_le_bytes(*key), number))
}

/// Numbers as runs: `0-7,9-9`.
#[must_use]
pub fn runs(numbers: &[u64]) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if number.checked_sub(1) == Some(*last) => *last = *number,
            _ => runs.push((*number, *number)),
        }
    }
    let words: Vec<String> = runs.iter().map(|(from, to)| format!("{from}-{to}")).collect();
    words.join(",")
}

/// The numbers of such runs.
///
/// # Errors
/// It is none.
pub fn numbers(runs: &str) -> Result<Vec<u64>, String> {
    let mut numbers = Vec::new();
    for run in runs.split(',').filter(|run| !run.is_empty()) {
        let ends = run
            .split_once('-')
            .and_then(|(from, to)| Some((from.parse::<u64>().ok()?, to.parse::<u64>().ok()?)));
        let (from, to) = ends.ok_or_else(|| format!("{run} is no run"))?;
        numbers.extend(from..=to);
    }
    Ok(numbers)
}

/// A running engine with its pollers.
#[derive(Debug)]
pub struct Member {
    /// The engine.
    pub node: Arc<Node>,
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    pollers: Vec<JoinHandle<()>>,
}

impl Member {
    /// Starts a member on loopback whose unique id is 16 bytes `id`, with `settings` beside those
    /// that all tests have.
    ///
    /// # Errors
    /// What the engine refuses.
    pub fn start(id: u8, settings: &[(&str, &str)]) -> Result<Self, String> {
        let member = Self::open(id, settings)?;
        member.announce()?;
        Ok(member)
    }

    /// Sees others and is seen, after [`Self::open`].
    ///
    /// # Errors
    /// What the engine refuses.
    pub fn announce(&self) -> Result<(), String> {
        self.node.start_receiving().map_err(|error| error.to_string())?;
        self.node.start_sending().map_err(|error| error.to_string())
    }

    /// As [`Self::start`], but it sees nobody yet and nobody sees it.
    ///
    /// # Errors
    /// What the engine refuses.
    pub fn open(id: u8, settings: &[(&str, &str)]) -> Result<Self, String> {
        let mut config = Config::default();
        let common = [
            ("tcpThreadCount", "2"),
            ("mcastFrequency", "100"),
            ("tcpListenAddress", "127.0.0.1"),
            ("tcpListenPort", "31100"),
            ("autoBind", "900"),
        ];
        for (attribute, value) in common.iter().chain(settings) {
            config.set(attribute, value).map_err(|error| error.to_string())?;
        }
        let node = Arc::new(Node::open(&config).map_err(|error| error.to_string())?);
        let address = node.listen().map_err(|error| error.to_string())?;
        node.set_local_member(LocalMember {
            host: match address.ip() {
                IpAddr::V4(ip) => ip.octets().into(),
                IpAddr::V6(ip) => ip.octets().into(),
            },
            port: i32::from(address.port()),
            secure_port: -1,
            udp_port: -1,
            unique_id: [id; 16],
            ..LocalMember::default()
        });
        let seen: Arc<(Mutex<Seen>, Condvar)> = Arc::default();
        let classes = [PollerClass::General, PollerClass::General, PollerClass::Reserved];
        let pollers = classes.map(|class| {
            let (node, seen) = (Arc::clone(&node), Arc::clone(&seen));
            std::thread::spawn(move || poll(&node, class, &seen))
        });
        Ok(Self { node, address, seen, pollers: pollers.into() })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what was seen.
    pub fn look<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen())
    }

    /// Lets listeners keep what they are given until this is taken back.
    pub fn hold(&self, held: bool) {
        self.seen().held = held;
        self.seen.1.notify_all();
    }

    /// Waits until `look` finds something; it is asked again whenever something was seen.
    ///
    /// # Errors
    /// Not within [`WITHIN`]; what the log says is part of it.
    pub fn wait<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&Seen) -> Option<T>,
    ) -> Result<T, String> {
        let until = Instant::now() + WITHIN;
        let mut seen = self.seen();
        loop {
            if let Some(found) = look(&seen) {
                return Ok(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let Seen { events, logs, .. } = &*seen;
                return Err(format!("{what}: not within {WITHIN:?}: {events:?} {logs:#?}"));
            }
            // What is looked at may lie beside what was seen.
            let soon = left.min(Duration::from_millis(50));
            seen = self.seen.1.wait_timeout(seen, soon).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the member that listens at `port` to be announced.
    ///
    /// # Errors
    /// It is not.
    pub fn member_at(&self, port: u16) -> Result<Arc<MemberEntry>, String> {
        self.wait(&format!("the member at port {port}"), |seen| {
            let entry = self.node.members().into_iter().find(|e| e.address.port() == port)?;
            let is_added = |event: &Event| {
                matches!(event, Event::MemberAdded { member, .. } if *member == entry.id)
            };
            seen.events.iter().any(is_added).then_some(entry)
        })
    }

    /// A message of `key` with a number: of a session, if its options do not say that it is bytes.
    ///
    /// # Errors
    /// The engine refuses it.
    pub fn compose(
        &self,
        key: u64,
        number: u64,
        bytes: usize,
        options: i32,
    ) -> Result<MessageBuilder, Status> {
        // What has the id of another message may be taken for that one, sent again.
        let mut unique_id = [0; 16];
        unique_id[..8].copy_from_slice(&key.to_le_bytes());
        unique_id[8..].copy_from_slice(&number.to_le_bytes());
        let envelope = Envelope { options, timestamp_ms: 1, unique_id };
        let head = if options & BYTES == 0 { SESSION } else { &[] };
        let mut builder = self.node.compose(head.len() + bytes.max(LEAST_BYTES), &envelope)?;
        let (start, payload) = builder.payload_mut().split_at_mut(head.len());
        start.copy_from_slice(head);
        payload.fill(number.to_le_bytes()[0]);
        payload[..8].copy_from_slice(&key.to_le_bytes());
        payload[8..16].copy_from_slice(&number.to_le_bytes());
        Ok(builder)
    }

    /// Sends it to `to` and waits as its options ask.
    ///
    /// # Errors
    /// Who failed.
    pub fn send(
        &self,
        key: u64,
        number: u64,
        bytes: usize,
        options: i32,
        to: &[MemberId],
    ) -> Result<(), SendFailure> {
        let builder = self.compose(key, number, bytes, options);
        let builder = builder.map_err(|status| SendFailure::all(to, status))?;
        self.node.send(builder, Some(Key::of(&key.to_le_bytes())), false, to, None)
    }

    /// Queues it for `to`; a completion follows for a token.
    ///
    /// # Errors
    /// Who failed at once.
    pub fn submit(
        &self,
        key: u64,
        number: u64,
        bytes: usize,
        options: i32,
        to: &[MemberId],
        token: Option<u64>,
    ) -> Result<(), SendFailure> {
        let builder = self.compose(key, number, bytes, options);
        let builder = builder.map_err(|status| SendFailure::all(to, status))?;
        self.node.submit(builder, Some(Key::of(&key.to_le_bytes())), false, to, None, token)
    }

    /// One of the engine's counters.
    ///
    /// # Panics
    /// There is none of that name.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        let stats = self.node.stats();
        stats.iter().find(|(is, _)| *is == name).expect("a counter").1
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.hold(false);
        self.node.close(Duration::from_secs(1));
        for poller in self.pollers.drain(..) {
            let ended = poller.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a listener panicked");
        }
    }
}

fn poll(node: &Node, class: PollerClass, (seen, changed): &(Mutex<Seen>, Condvar)) {
    let mut taken = Vec::new();
    loop {
        let end = node.poll(class, 64 << 20, 64, Duration::from_secs(1), &mut taken);
        if !taken.is_empty() {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            while seen.held && class == PollerClass::General {
                seen = changed.wait(seen).unwrap_or_else(PoisonError::into_inner);
            }
            taken.drain(..).for_each(|polled| seen.take(polled));
            drop(seen);
            changed.notify_all();
        }
        if end == PollEnd::Closed {
            return;
        }
    }
}
