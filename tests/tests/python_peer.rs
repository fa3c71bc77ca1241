//! An engine and the member in Python that was written from `wire/FORMAT.md`, in Ringtribe's own
//! format: every size and mode both ways, order per key, failures by name, and connections that are
//! broken again and again. The same with two members in Python, so that a fault has one side.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringtribe::config::Config;
use ringtribe::delivery::{PollEnd, Polled, PollerClass};
use ringtribe::event::Event;
use ringtribe::ids::{Key, MemberId};
use ringtribe::node::Node;
use ringtribe::protocol::membership::LocalMember;
use ringtribe::status::Status;
use ringtribe::submit::Envelope;
use ringtribe_tests::build::root;
use ringtribe_tests::peer::number;
use ringtribe_tests::python::{PythonPeer, command};
use ringtribe_wire::native::hash;

const WITHIN: Duration = Duration::from_secs(60);

/// Ports of loopback that are free now.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("bound").port())
}

/// Messages of one key, as `peer.py` sends them.
#[derive(Clone, Debug)]
struct Burst {
    key: String,
    /// Of one after the other, and again from the first.
    sizes: Vec<usize>,
    count: u64,
    mode: &'static str,
    reply: bool,
}

fn burst(key: &str, size: usize, count: u64, mode: &'static str) -> Burst {
    Burst { key: key.into(), sizes: vec![size], count, mode, reply: false }
}

/// The payload that `peer.py` expects and sends.
fn payload(key: &str, size: usize, number: u64) -> Vec<u8> {
    let byte = |number: u64| number.to_le_bytes()[0];
    if size < 16 {
        return vec![byte(number); size];
    }
    let key_bytes = hash(key.as_bytes()).to_le_bytes();
    let mut bytes = key_bytes[..4].to_vec();
    bytes.extend(u32::try_from(size).expect("short").to_le_bytes());
    bytes.extend(number.to_le_bytes());
    bytes.extend((16..size as u64).map(|at| byte((at + number) % 251)));
    bytes
}

/// What the engine's listeners have seen.
#[derive(Debug, Default)]
struct Seen {
    received: u64,
    damaged: u64,
    disordered: u64,
    duplicates: u64,
    /// Number of the last message of each key, by the key's hash.
    last: BTreeMap<[u8; 4], u64>,
    fails_left: u64,
    failed: u64,
    member: Option<MemberId>,
    completed: BTreeMap<u64, Vec<(MemberId, Status)>>,
}

impl Seen {
    /// A listener: notes the message and says how it ends. Messages without a key, and those too short
    /// for a number, are only counted.
    fn take(&mut self, payload: &[u8]) -> Status {
        self.received += 1;
        if let Some((head, rest)) = payload.split_first_chunk::<16>() {
            let number = u64::from_le_bytes(head[8..].try_into().expect("8 bytes"));
            let expected = |at: u64| ((at + number) % 251).to_le_bytes()[0];
            let length = u32::try_from(payload.len()).expect("short").to_le_bytes();
            if head[4..8] != length || !rest.iter().zip(16..).all(|(is, at)| *is == expected(at)) {
                self.damaged += 1;
            }
            let key = [head[0], head[1], head[2], head[3]];
            let last = self.last.entry(key).or_insert(u64::MAX);
            if *last != u64::MAX && number <= *last {
                self.duplicates += 1;
            } else {
                self.disordered += u64::from(number != last.wrapping_add(1));
                *last = number;
            }
        } else if payload.iter().any(|byte| *byte != payload[0]) {
            self.damaged += 1;
        }
        if self.fails_left == 0 {
            return Status::Ok;
        }
        self.fails_left -= 1;
        self.failed += 1;
        Status::RemoteFailed
    }
}

/// An engine, its listeners, and what they saw.
struct Engine {
    node: Arc<Node>,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    pollers: Vec<JoinHandle<()>>,
    numbers: BTreeMap<String, u64>,
    next_token: u64,
    started: Vec<u64>,
}

impl Engine {
    fn start(port: u16, peer_port: u16) -> Self {
        let mut config = Config::default();
        for (name, value) in [
            ("staticMembers", &*format!("127.0.0.1:{peer_port}")),
            ("mcastFrequency", "100"),
            ("mcastDropTime", "2000"),
            ("tcpListenAddress", "127.0.0.1"),
            ("tcpListenPort", &port.to_string()),
            ("autoBind", "1"),
            ("tcpThreadCount", "2"),
            ("ackTimeout", "30000"),
        ] {
            config.set(name, value).expect("a valid knob");
        }
        let node = Arc::new(Node::open(&config).expect("this machine has what a node needs"));
        let address = node.listen().expect("the port is free");
        assert_eq!(address.port(), port);
        node.set_local_member(LocalMember {
            host: vec![127, 0, 0, 1],
            port: i32::from(port),
            secure_port: -1,
            udp_port: -1,
            unique_id: [9; 16],
            ..LocalMember::default()
        });
        let seen: Arc<(Mutex<Seen>, Condvar)> = Arc::default();
        let classes = [PollerClass::General, PollerClass::General, PollerClass::Reserved];
        let pollers = classes.map(|class| {
            let (node, seen) = (Arc::clone(&node), Arc::clone(&seen));
            std::thread::spawn(move || poll(&node, class, &seen))
        });
        node.start_receiving().expect("no group is needed");
        node.start_sending().expect("no group is needed");
        let (numbers, started) = (BTreeMap::new(), Vec::new());
        Self { node, seen, pollers: pollers.into(), numbers, next_token: 0, started }
    }

    /// Waits until something is so.
    fn wait(&self, what: &str, is_so: impl Fn(&Seen) -> bool) -> MutexGuard<'_, Seen> {
        let until = Instant::now() + WITHIN;
        let mut seen = self.seen.0.lock().expect("no panic in a listener");
        while !is_so(&seen) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what}: not within {WITHIN:?}: {seen:?}");
            seen = self.seen.1.wait_timeout(seen, left).expect("no panic in a listener").0;
        }
        seen
    }

    fn member(&self) -> MemberId {
        self.wait("a member", |seen| seen.member.is_some()).member.expect("it is there")
    }

    fn submit(&mut self, burst: &Burst) {
        let member = self.member();
        let options = match burst.mode {
            "none" => 1,
            "received" => 3,
            _ => 7,
        };
        let count = usize::try_from(burst.count).expect("few");
        let key = (!burst.key.is_empty()).then(|| Key::of(burst.key.as_bytes()));
        for size in burst.sizes.iter().cycle().take(count) {
            let next = self.numbers.entry(burst.key.clone()).or_default();
            let bytes = payload(&burst.key, *size, *next);
            *next += 1;
            let envelope = Envelope { options, timestamp_ms: 1, unique_id: [7; 16] };
            let mut builder = self.node.compose(bytes.len(), &envelope).expect("in bounds");
            builder.payload_mut().copy_from_slice(&bytes);
            let token = self.next_token;
            self.next_token += 1;
            self.started.push(token);
            let queued = self.node.submit(builder, key, burst.reply, &[member], None, Some(token));
            queued.expect("queued");
        }
    }

    /// Waits for all that was submitted; how the failed ones failed, by the one member's name.
    fn finish(&mut self) -> Vec<Status> {
        let member = self.member();
        let started = std::mem::take(&mut self.started);
        let mut seen = self.wait("completions", |seen| {
            started.iter().all(|token| seen.completed.contains_key(token))
        });
        let failures = started.iter().filter_map(|token| seen.completed.remove(token)).flatten();
        let named = |(who, status)| {
            assert_eq!(who, member, "the member that failed");
            status
        };
        failures.map(named).collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
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
        for polled in taken.drain(..) {
            let mut seen = seen.lock().expect("no panic in a listener");
            match polled {
                Polled::Message(delivery) => {
                    let status = seen.take(delivery.incoming().payload());
                    delivery.complete(status);
                }
                Polled::Event(Event::MemberAdded { member, .. }) => seen.member = Some(member),
                Polled::Event(Event::Completed { token, failures }) => {
                    seen.completed.insert(token, failures);
                }
                Polled::Event(event) => println!("engine: {event:?}"),
            }
            drop(seen);
            changed.notify_all();
        }
        if end == PollEnd::Closed {
            return;
        }
    }
}

/// One of the two.
enum Side {
    Engine(Box<Engine>),
    Python { peer: PythonPeer, other: u16, started_count: u64 },
}

impl Side {
    fn submit(&mut self, burst: &Burst) {
        match self {
            Self::Engine(engine) => engine.submit(burst),
            Self::Python { peer, started_count, .. } => {
                let Burst { key, sizes, count, mode, reply } = burst;
                let size = sizes.iter().map(usize::to_string).collect::<Vec<_>>().join("+");
                let reply = u8::from(*reply);
                let words = format!("size={size} count={count} mode={mode} reply={reply}");
                peer.tell(&format!("send key={key} {words} background=1")).expect("it runs");
                *started_count += 1;
            }
        }
    }

    fn finish(&mut self) -> Vec<Status> {
        match self {
            Self::Engine(engine) => engine.finish(),
            Self::Python { peer, other, started_count } => {
                let mut statuses = Vec::new();
                for _ in 0..std::mem::take(started_count) {
                    let answer = peer.answer("sent=").expect("an answer");
                    let by = answer.rsplit_once("by=").expect("who failed").1;
                    for failure in by.split(',').filter(|failure| !failure.is_empty()) {
                        let (port, status) = failure.split_once(':').expect("two numbers");
                        assert_eq!(port, other.to_string(), "the member that failed");
                        let status = status.parse().expect("a number");
                        statuses.push(Status::from_number(status).expect("a known status"));
                    }
                }
                statuses
            }
        }
    }

    fn send(&mut self, burst: &Burst) -> Vec<Status> {
        self.submit(burst);
        self.finish()
    }

    /// Waits for so many messages.
    fn await_received(&mut self, count: u64) {
        match self {
            Self::Engine(engine) => drop(engine.wait("messages", |seen| seen.received >= count)),
            Self::Python { peer, .. } => {
                let answer = peer.ask(&format!("received count={count}"), "received=");
                let answer = answer.expect("an answer");
                let received = number(&answer, "received").expect("a number");
                assert!(received >= count, "{received} of {count} messages");
            }
        }
    }

    /// All that came, and nothing twice, changed or out of order.
    fn check(&mut self, count: u64) {
        self.await_received(count);
        let said = match self {
            Self::Engine(engine) => {
                let seen = engine.wait("messages", |_| true);
                let Seen { received, damaged, disordered, duplicates, .. } = *seen;
                format!(
                    "received={received} damaged={damaged} disordered={disordered} \
                     duplicates={duplicates}"
                )
            }
            Self::Python { peer, .. } => peer.ask("received", "received=").expect("an answer"),
        };
        assert_eq!(said, format!("received={count} damaged=0 disordered=0 duplicates=0"));
    }

    /// Where it stands, for people.
    fn state(&mut self) -> String {
        match self {
            Self::Engine(engine) => format!("{:?}", engine.node.stats()),
            Self::Python { peer, .. } => ["state", "faults"]
                .map(|command| peer.ask(command, command).unwrap_or_else(|error| error))
                .join("\n"),
        }
    }

    /// How many of its listeners have failed.
    fn failed(&mut self) -> u64 {
        match self {
            Self::Engine(engine) => engine.wait("a lock", |_| true).failed,
            Self::Python { peer, .. } => {
                let answer = peer.ask("failed", "failed=").expect("an answer");
                number(&answer, "failed").expect("a number")
            }
        }
    }

    fn fail_next(&mut self, count: u64) {
        match self {
            Self::Engine(engine) => engine.wait("a lock", |_| true).fails_left += count,
            Self::Python { peer, .. } => {
                peer.ask(&format!("fail next={count}"), "ok").expect("an answer");
            }
        }
    }
}

/// A member in Python, and what it answers to questions of its own.
fn python(name: &str, port: u16, other: u16) -> Option<Side> {
    let arguments = [
        format!("port={port}"),
        format!("peers=127.0.0.1:{other}"),
        format!("id={}", name.len()),
        "mcastFrequency=100".into(),
    ];
    let peer = PythonPeer::start(&format!("{name}-{port}"), &arguments).expect("it starts")?;
    Some(Side::Python { peer, other, started_count: 0 })
}

/// The two, when each sees the other.
fn pair(with_engine: bool) -> Option<(Side, Side)> {
    let [a_port, b_port] = free_ports();
    let mut b = python("b", b_port, a_port)?;
    let mut a = if with_engine {
        Side::Engine(Box::new(Engine::start(a_port, b_port)))
    } else {
        python("other", a_port, b_port)?
    };
    for side in [&mut a, &mut b] {
        match side {
            Side::Engine(engine) => {
                let member = engine.member();
                let entry = engine.node.members().into_iter().find(|entry| entry.id == member);
                let boot_id = entry.and_then(|entry| entry.boot_id());
                assert!(boot_id.is_some(), "it knows that the peer speaks the own format");
            }
            Side::Python { peer, .. } => {
                assert_eq!(peer.ask("members", "members=").expect("an answer"), "members=1");
            }
        }
    }
    Some((a, b))
}

fn every_size_in_every_mode(with_engine: bool) {
    let Some((mut a, mut b)) = pair(with_engine) else { return };
    let mut count = 0;
    for size in [0, 1, 15, 16, 1_000, 65_471, 65_472, 65_473, 70_000, 300_000, 5_000_000] {
        for mode in ["none", "received", "applied"] {
            let messages_count = if size > 1_000_000 { 1 } else { 4 };
            let keyed = burst(&format!("key-{size}"), size, messages_count, mode);
            for side in [&mut a, &mut b] {
                assert_eq!(side.send(&keyed), [], "{size} bytes, {mode}");
            }
            count += messages_count;
        }
    }
    // A small one waits for the large one of its key that was begun before it.
    let sizes = vec![300_000, 20, 1_000_000, 40, 50];
    let mixed = Burst { sizes, ..burst("mixed", 0, 20, "applied") };
    for side in [&mut a, &mut b] {
        assert_eq!(side.send(&mixed), []);
    }
    count += 20;
    // Without a key, and as a reply.
    for (key, reply) in [("", false), ("reply", true)] {
        for size in [100, 200_000] {
            let messages =
                Burst { key: format!("{key}{size}"), reply, ..burst("", size, 3, "applied") };
            for side in [&mut a, &mut b] {
                assert_eq!(side.send(&messages), [], "{messages:?}");
            }
            count += 3;
        }
    }
    for side in [&mut a, &mut b] {
        side.check(count);
    }
}

fn failures_have_a_name_and_a_place(with_engine: bool) {
    let Some((mut a, mut b)) = pair(with_engine) else { return };
    for turn in 0..2 {
        let (from, to) = if turn == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
        let mut count = 0;
        for size in [20, 100_000] {
            let key = format!("key-{size}");
            to.fail_next(3);
            assert_eq!(from.send(&burst(&key, size, 10, "applied")), [Status::RemoteFailed; 3]);
            // Who waits for receipt alone is not told.
            to.fail_next(2);
            assert_eq!(from.send(&burst(&key, size, 5, "received")), []);
            to.await_received(count + 15);
            assert_eq!(from.send(&burst(&key, size, 5, "applied")), []);
            count += 20;
        }
        to.check(count);
    }
}

fn broken_connections_lose_nothing(with_engine: bool) {
    const STEPS_COUNT: u64 = 4;
    const FAILS_COUNT: u64 = 3;
    let Some((mut a, mut b)) = pair(with_engine) else { return };
    let (mut count, mut told) = (0, [0; 2]);
    for round in 0..6 {
        let bursts = [
            burst(&format!("small-{}", round % 2), 40, 1_000, "applied"),
            burst("middle", 20_000, 40, "applied"),
            burst("large", 400_000, 4, "applied"),
        ];
        let before = count;
        for side in [&mut a, &mut b] {
            for burst in &bursts {
                side.submit(burst);
            }
        }
        count += bursts.iter().map(|burst| burst.count).sum::<u64>();
        for step in 1..=STEPS_COUNT {
            let due = before + (count - before) * step / (STEPS_COUNT + 2);
            let observer = if step % 2 == 0 { &mut a } else { &mut b };
            observer.await_received(due);
            // Those that fail now are told on the connection that breaks, or on the next one.
            for side in [&mut a, &mut b] {
                side.fail_next(FAILS_COUNT);
            }
            let Side::Python { peer, .. } = &mut b else { panic!("b is in Python") };
            let how = format!("drop-connections reset={}", (round + step) % 2);
            peer.ask(&how, "dropped=").expect("an answer");
        }
        for (turn, told) in told.iter_mut().enumerate() {
            let (from, to) = if turn == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
            let failed = from.finish();
            *told += failed.len() as u64;
            let all_failed = failed.iter().all(|status| *status == Status::RemoteFailed);
            if !all_failed || *told != to.failed() {
                let failed_count = to.failed();
                panic!(
                    "round {round}: {} of {failed_count} failures told, {failed:?}\n{}\n{}",
                    *told,
                    a.state(),
                    b.state()
                );
            }
        }
        for side in [&mut a, &mut b] {
            side.check(count);
        }
    }
    assert!(told.iter().all(|count| *count >= 12), "too few failed: {told:?}");
}

#[test]
fn engine_and_python_every_size_in_every_mode() {
    every_size_in_every_mode(true);
}

#[test]
fn python_and_python_every_size_in_every_mode() {
    every_size_in_every_mode(false);
}

#[test]
fn engine_and_python_failures_have_a_name_and_a_place() {
    failures_have_a_name_and_a_place(true);
}

#[test]
fn python_and_python_failures_have_a_name_and_a_place() {
    failures_have_a_name_and_a_place(false);
}

#[test]
fn engine_and_python_broken_connections_lose_nothing() {
    broken_connections_lose_nothing(true);
}

#[test]
fn python_and_python_broken_connections_lose_nothing() {
    broken_connections_lose_nothing(false);
}

#[test]
fn the_reply_lane_answers_echo_and_join() {
    for with_engine in [true, false] {
        let Some((_a, mut b)) = pair(with_engine) else { return };
        let Side::Python { peer, .. } = &mut b else { panic!("b is in Python") };
        for _ in 0..3 {
            assert_eq!(peer.ask("echo", "echoed=").expect("an answer"), "echoed=1");
            assert_eq!(peer.ask("join", "joined=").expect("an answer"), "joined=1");
        }
        peer.ask("drop-connections reset=1", "dropped=").expect("an answer");
        assert_eq!(peer.ask("join", "joined=").expect("an answer"), "joined=1");
    }
}

#[test]
fn what_has_to_be_refused_is_and_nothing_of_it_is_taken() {
    for with_engine in [false, true] {
        let Some((mut a, mut b)) = pair(with_engine) else { return };
        let Side::Python { peer, .. } = &mut b else { panic!("b is in Python") };
        let answer = peer.ask("rough", "rough=").expect("an answer");
        assert_eq!(answer.trim(), "rough=0", "engine: {with_engine}");
        // Those who keep the rules notice nothing.
        for side in [&mut a, &mut b] {
            assert_eq!(side.send(&burst("key", 100, 10, "applied")), []);
        }
        b.check(10);
    }
}

#[test]
fn the_golden_frames_are_what_the_second_implementation_writes() {
    let Some(mut golden) = command("golden.py") else { return };
    let output = golden.arg("--check").stdin(Stdio::null()).output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn the_specification_lists_every_status() {
    let text = std::fs::read_to_string(root().join("wire/FORMAT.md")).expect("FORMAT.md");
    let listed: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "))
        .filter_map(|(number, rest)| Some(format!("{number} {}", rest.split_once(" | ")?.0)))
        .collect();
    for status in Status::ALL {
        let line = format!("{} {status:?}", status.number());
        assert!(listed.contains(&line), "{line} is not in FORMAT.md, section 11.2");
    }
}
