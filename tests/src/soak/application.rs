//! A member under load: sends in every mode to whoever is there, checks what it gets.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringtribe::config::Config;
use ringtribe::delivery::{Delivery, PollEnd, Polled, PollerClass};
use ringtribe::directory::MemberEntry;
use ringtribe::event::Event;
use ringtribe::ids::{BootId, Key, MemberId};
use ringtribe::node::Node;
use ringtribe::protocol::membership::LocalMember;
use ringtribe::status::Status;
use ringtribe::submit::{Envelope, MessageBuilder, SendFailure};

use super::chance::Chance;
use super::ledger::{self, Entry, Incoming, Outgoing, Wish};

/// Keys of each sending thread; 0 stands for no key.
const KEYS_COUNT: u64 = 12;
/// Option bits (Tribes): bytes, acknowledged, after the listener, asynchronous.
const BYTES: i32 = 1;
const USE_ACK: i32 = 2;
const SYNCHRONIZED_ACK: i32 = 4;
const ASYNCHRONOUS: i32 = 8;
/// Longest wait for what is on the way to end, and for members to be seen.
const WITHIN: Duration = Duration::from_secs(40);

/// What the sending threads do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Load {
    #[default]
    Paused,
    Running,
    Ended,
}

/// A message whose completion is to come, and which of its receivers count it as acknowledged.
#[derive(Debug)]
struct Pending {
    key: u64,
    entries: Vec<(MemberId, u64)>,
    is_proof: bool,
}

#[derive(Debug, Default)]
struct State {
    load: Load,
    /// Sending threads that are inside of a call.
    busy_count: usize,
    courses: BTreeMap<(MemberId, u64), Outgoing>,
    pending: BTreeMap<u64, Pending>,
    incoming: Incoming,
    counts: BTreeMap<&'static str, u64>,
}

impl State {
    fn count(&mut self, name: &'static str, by: u64) {
        *self.counts.entry(name).or_default() += by;
    }

    /// A message has ended: at whom it failed, and the others have acknowledged it.
    fn ended(&mut self, pending: &Pending, failures: &[(MemberId, Status)]) {
        for (member, number) in &pending.entries {
            match failures.iter().find(|(failed, _)| failed == member) {
                Some((_, Status::RemoteFailed)) => self.count("failed_as_asked", 1),
                Some((_, status)) => self.count(name_of(*status), 1),
                None => {
                    self.count("acknowledged", 1);
                    if pending.is_proof
                        && let Some(course) = self.courses.get_mut(&(*member, pending.key))
                    {
                        course.acknowledged(*number);
                    }
                }
            }
        }
    }
}

/// Outcomes are counted by the name of their status.
const fn name_of(status: Status) -> &'static str {
    match status {
        Status::Timeout => "failed_timeout",
        Status::QueueFull => "failed_queue_full",
        Status::StaleMember => "failed_stale_member",
        Status::Cut => "failed_cut",
        Status::Goodbye => "failed_goodbye",
        Status::Closed => "failed_closed",
        _ => "failed_otherwise",
    }
}

/// See the module.
#[derive(Debug)]
pub struct Application {
    node: Arc<Node>,
    life: u64,
    state: Arc<(Mutex<State>, Condvar)>,
    threads: Vec<JoinHandle<()>>,
}

/// A life by the first half of its boot id.
fn life(boot_id: BootId) -> u64 {
    let (first, _) = boot_id.0.split_at(8);
    u64::from_le_bytes(first.try_into().unwrap_or_default())
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Application {
    /// Starts a member with `settings` that sends `rate` messages a second, once told to.
    ///
    /// # Errors
    /// What the engine refuses.
    pub fn start(id: u8, rate: u32, settings: &[(&str, &str)]) -> Result<(Self, u16), String> {
        let mut config = Config::default();
        for (attribute, value) in settings {
            config.set(attribute, value).map_err(|error| error.to_string())?;
        }
        let node = Arc::new(Node::open(&config).map_err(|error| error.to_string())?);
        let port = node.listen().map_err(|error| error.to_string())?.port();
        node.set_local_member(LocalMember {
            host: vec![127, 0, 0, 1],
            port: i32::from(port),
            secure_port: -1,
            udp_port: -1,
            unique_id: [id; 16],
            ..LocalMember::default()
        });
        let mut application =
            Self { life: life(node.boot_id()), node, state: Arc::default(), threads: Vec::new() };
        // Told also if there is none.
        lock(&application.state.0).count("damaged", 0);
        let classes = [PollerClass::General, PollerClass::General, PollerClass::Reserved];
        for class in classes {
            let worker = application.worker();
            application.threads.push(std::thread::spawn(move || worker.poll(class)));
        }
        for is_waiting in [true, false] {
            let worker = application.worker();
            let pause = Duration::from_secs(2) / rate.max(1);
            application.threads.push(std::thread::spawn(move || worker.send(is_waiting, pause)));
        }
        let node = &application.node;
        node.start_receiving().map_err(|error| error.to_string())?;
        node.start_sending().map_err(|error| error.to_string())?;
        Ok((application, port))
    }

    fn worker(&self) -> Worker {
        Worker { node: Arc::clone(&self.node), life: self.life, state: Arc::clone(&self.state) }
    }

    fn load(&self, load: Load) {
        lock(&self.state.0).load = load;
        self.state.1.notify_all();
    }

    /// Begins or goes on.
    pub fn resume(&self) {
        self.load(Load::Running);
    }

    /// Stops sending, and waits for the end of what is on the way.
    ///
    /// # Errors
    /// It did not end in time.
    pub fn pause(&self) -> Result<(), String> {
        self.load(Load::Paused);
        self.wait("the end of what was sent", |state| {
            state.busy_count == 0 && state.pending.is_empty()
        })
    }

    /// Waits until so many others are seen.
    ///
    /// # Errors
    /// They are not seen in time.
    pub fn await_members(&self, wanted: usize) -> Result<(), String> {
        self.wait("members", |_| self.node.members().len() == wanted)
    }

    /// Waits until so many more messages have come.
    ///
    /// # Errors
    /// They do not come in time.
    pub fn await_received(&self, more: u64) -> Result<(), String> {
        let received = |state: &State| state.counts.get("received").copied().unwrap_or_default();
        let wanted = received(&lock(&self.state.0)) + more;
        self.wait("messages", |state| received(state) >= wanted)
    }

    fn wait(&self, what: &str, is_so: impl Fn(&State) -> bool) -> Result<(), String> {
        let until = Instant::now() + WITHIN;
        let mut state = lock(&self.state.0);
        while !is_so(&state) {
            if Instant::now() >= until {
                return Err(format!("{what}: not within {WITHIN:?}: {:?}", self.node.members()));
            }
            // What is waited for may come without news for this state.
            let soon = Duration::from_millis(50);
            state =
                self.state.1.wait_timeout(state, soon).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// What it and its engine count, as words name=value.
    #[must_use]
    pub fn figures(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        {
            let state = lock(&self.state.0);
            words.extend(state.counts.iter().map(|(name, count)| format!("app_{name}={count}")));
            let faults = state.incoming.faults;
            for (name, count) in [
                ("lost", faults.lost_count),
                ("duplicates", faults.duplicates_count),
                ("disorder", faults.disorder_count),
                ("checked", state.incoming.checked_count),
                ("courses", state.incoming.courses_count() as u64),
                ("pending", state.pending.len() as u64),
            ] {
                words.push(format!("app_{name}={count}"));
            }
        }
        words.extend(self.node.stats().iter().map(|(name, value)| format!("{name}={value}")));
        words.join(" ")
    }

    /// Leaves in order.
    pub fn leave(mut self) {
        self.load(Load::Ended);
        self.node.close(Duration::from_secs(5));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What a thread needs.
struct Worker {
    node: Arc<Node>,
    life: u64,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Worker {
    fn poll(&self, class: PollerClass) {
        let mut taken = Vec::new();
        loop {
            let end = self.node.poll(class, 64 << 20, 64, Duration::from_secs(1), &mut taken);
            for polled in taken.drain(..) {
                match polled {
                    Polled::Message(delivery) => self.take(delivery),
                    Polled::Event(event) => self.event(event),
                }
            }
            if end == PollEnd::Closed {
                return;
            }
        }
    }

    fn take(&self, delivery: Delivery) {
        let payload = delivery.incoming().payload();
        let read = ledger::read(payload, self.life);
        let is_empty = payload.is_empty();
        let mut state = lock(&self.state.0);
        state.count("received", 1);
        let Some(read) = read else {
            // Too short to say anything, or damaged.
            state.count(if is_empty { "received_empty" } else { "damaged" }, 1);
            drop(state);
            delivery.complete(Status::Ok);
            return;
        };
        // The key stands in the lowest byte of the course.
        let is_ordered = read.entry.course & 0xff != 0;
        state.incoming.take(&read.entry, is_ordered, Instant::now());
        if read.wish == Wish::Answer {
            state.count("answers_received", 1);
        }
        drop(state);
        if read.wish == Wish::Reply {
            self.answer(read.sender);
        }
        delivery.complete(if read.wish == Wish::Fail { Status::RemoteFailed } else { Status::Ok });
    }

    /// The listener's answer, on the reply lane.
    fn answer(&self, asker: u64) {
        let is_asker = |entry: &Arc<MemberEntry>| entry.boot_id().map(life) == Some(asker);
        let Some(entry) = self.node.members().into_iter().find(is_asker) else { return };
        let is_out = self.message(0, 200, USE_ACK, Wish::Answer, &[entry]).is_some_and(
            |(builder, pending)| {
                let to: Vec<MemberId> = pending.entries.iter().map(|(id, _)| *id).collect();
                self.node.submit(builder, None, true, &to, None, None).is_ok()
            },
        );
        if is_out {
            lock(&self.state.0).count("answers_sent", 1);
        }
    }

    fn event(&self, event: Event) {
        let mut state = lock(&self.state.0);
        match event {
            Event::Completed { token, failures } => {
                if let Some(pending) = state.pending.remove(&token) {
                    state.ended(&pending, &failures);
                }
            }
            Event::Gap { member, .. } => {
                state.count("gaps_told", 1);
                drop(state);
                self.node.repaired(member);
            }
            Event::MemberAdded { .. } => state.count("members_added", 1),
            Event::MemberGone { member, .. } => {
                state.count("members_gone", 1);
                state.courses.retain(|(of, _), _| *of != member);
            }
            Event::MemberChanged { .. } => {}
            Event::Log { level, text } => {
                drop(state);
                eprintln!("{level:?} {text}");
            }
        }
        self.state.1.notify_all();
    }

    /// A message of a key for `members`, as far as they speak the own format.
    fn message(
        &self,
        key: u64,
        bytes: usize,
        options: i32,
        wish: Wish,
        members: &[Arc<MemberEntry>],
    ) -> Option<(MessageBuilder, Pending)> {
        let known: Vec<(MemberId, u64)> =
            members.iter().filter_map(|entry| Some((entry.id, life(entry.boot_id()?)))).collect();
        if known.is_empty() {
            return None;
        }
        let (mut entries, mut numbers): (Vec<Entry>, Vec<(MemberId, u64)>) = Default::default();
        let unique = {
            let mut state = lock(&self.state.0);
            for (member, receiver) in known {
                // Random, and so that the receiver sees whether there is a key.
                let name =
                    ringtribe_wire::native::mix(self.life ^ member.to_bits().rotate_left(20) ^ key)
                        & !0xff
                        | key;
                let course =
                    state.courses.entry((member, key)).or_insert_with(|| Outgoing::new(name));
                let entry = course.next(receiver);
                numbers.push((member, entry.number));
                entries.push(entry);
            }
            state.count("messages", 1);
            state.counts["messages"]
        };
        let mut unique_id = [0; 16];
        unique_id[..8].copy_from_slice(&self.life.to_le_bytes());
        unique_id[8..].copy_from_slice(&unique.to_le_bytes());
        let envelope = Envelope { options: options | BYTES, timestamp_ms: 1, unique_id };
        let least_bytes = ledger::least_bytes(entries.len());
        // Every sixteenth is handed over without a copy.
        let builder = if unique.is_multiple_of(16) {
            let mut payload = vec![0; bytes.max(least_bytes)];
            ledger::write(&mut payload, wish, self.life, &entries);
            self.node.compose_shared(payload.into(), &envelope)
        } else {
            self.node.compose(bytes.max(least_bytes), &envelope).map(|mut builder| {
                ledger::write(builder.payload_mut(), wish, self.life, &entries);
                builder
            })
        };
        let is_proof = options & USE_ACK != 0 && (key != 0 || options & SYNCHRONIZED_ACK != 0);
        Some((builder.ok()?, Pending { key, entries: numbers, is_proof }))
    }

    /// Sends until the end; one of the two threads waits for each message, the other one never.
    fn send(&self, is_waiting: bool, pause: Duration) {
        let mut random = Chance::new(self.life ^ u64::from(is_waiting));
        let mut due = Instant::now();
        loop {
            {
                let mut state = lock(&self.state.0);
                loop {
                    let now = Instant::now();
                    let left = match state.load {
                        Load::Ended => return,
                        Load::Paused => Duration::from_secs(60),
                        Load::Running if now < due => due - now,
                        Load::Running => break,
                    };
                    let waited = self.state.1.wait_timeout(state, left);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                state.busy_count += 1;
            }
            // After a long wait it does not catch up.
            due = due.max(Instant::now() - pause) + pause;
            self.send_one(is_waiting, &mut random);
            lock(&self.state.0).busy_count -= 1;
            self.state.1.notify_all();
        }
    }

    fn send_one(&self, is_waiting: bool, random: &mut Chance) {
        let mut members = self.node.members();
        if members.len() > 1 && random.below(3) == 0 {
            let one = usize::try_from(random.below(members.len() as u64)).unwrap_or(0);
            members = vec![members.swap_remove(one)];
        }
        let bytes = size(random);
        if bytes == 0 {
            return self.send_empty(&members);
        }
        let mut options = [0, USE_ACK, USE_ACK | SYNCHRONIZED_ACK, USE_ACK | SYNCHRONIZED_ACK]
            [usize::try_from(random.below(4)).unwrap_or(0)];
        if !is_waiting {
            options |= ASYNCHRONOUS;
        }
        let wish = match random.below(100) {
            0..10 => Wish::Reply,
            10 => Wish::Fail,
            _ => Wish::Take,
        };
        // Each thread has keys of its own, so that the order of the numbers is that of the calls.
        let key = random.below(KEYS_COUNT) * 2 + u64::from(is_waiting);
        let key = if random.below(5) == 0 { 0 } else { key + 1 };
        let Some((builder, pending)) = self.message(key, bytes, options, wish, &members) else {
            return;
        };
        let to: Vec<MemberId> = pending.entries.iter().map(|(id, _)| *id).collect();
        let of_key = (key != 0).then(|| Key::of(&key.to_le_bytes()));
        if is_waiting {
            let failures = failures(self.node.send(builder, of_key, false, &to, None));
            let mut state = lock(&self.state.0);
            state.count("sent_waiting", to.len() as u64);
            state.ended(&pending, &failures);
            return;
        }
        if options & USE_ACK == 0 && random.below(2) == 0 {
            let failures = failures(self.node.submit(builder, of_key, false, &to, None, None));
            let mut state = lock(&self.state.0);
            state.count("sent_unwatched", to.len() as u64);
            state.count("refused_unwatched", failures.len() as u64);
            return;
        }
        let token = {
            let mut state = lock(&self.state.0);
            state.count("sent_queued", to.len() as u64);
            let token = state.counts["sent_queued"];
            state.pending.insert(token, pending);
            token
        };
        if let Err(failure) = self.node.submit(builder, of_key, false, &to, None, Some(token)) {
            // Nothing was queued and no event follows.
            let mut state = lock(&self.state.0);
            if let Some(pending) = state.pending.remove(&token) {
                state.ended(&pending, &failure.failures);
            }
        }
    }

    /// Nothing at all is a message too.
    fn send_empty(&self, members: &[Arc<MemberEntry>]) {
        let to: Vec<MemberId> = members.iter().map(|entry| entry.id).collect();
        let count = {
            let mut state = lock(&self.state.0);
            state.count("sent_empty", to.len() as u64);
            state.counts["sent_empty"]
        };
        let mut unique_id = [0xff; 16];
        unique_id[..8].copy_from_slice(&self.life.to_le_bytes());
        unique_id[9..].copy_from_slice(&count.to_le_bytes()[..7]);
        let options = USE_ACK | SYNCHRONIZED_ACK | BYTES;
        let envelope = Envelope { options, timestamp_ms: 1, unique_id };
        let sent = match self.node.compose(0, &envelope) {
            Ok(builder) if !to.is_empty() => self.node.send(builder, None, false, &to, None),
            _ => return,
        };
        let failed_count = failures(sent).len() as u64;
        let mut state = lock(&self.state.0);
        state.count("acknowledged_empty", to.len() as u64 - failed_count);
    }
}

fn failures(result: Result<(), SendFailure>) -> Vec<(MemberId, Status)> {
    result.err().map_or_else(Vec::new, |failure| failure.failures)
}

/// From nothing to some hundred KiB, which goes in pieces; most are small.
fn size(random: &mut Chance) -> usize {
    let (from, to) = match random.below(100) {
        0..2 => return 0,
        2..62 => (1, 1 << 10),
        62..87 => (1 << 10, 8 << 10),
        87..97 => (8 << 10, 64 << 10),
        _ => (64 << 10, 300 << 10),
    };
    usize::try_from(from + random.below(to - from)).unwrap_or(1)
}
