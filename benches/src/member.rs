//! One member of the engine alone, a process of its own: told what to do on standard input, answers
//! on standard output with lines that begin with "> ".

use std::io::{BufRead, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringtribe::config::Config;
use ringtribe::delivery::{PollEnd, Polled, PollerClass};
use ringtribe::ids::{Key, MemberId};
use ringtribe::node::Node;
use ringtribe::protocol::membership::LocalMember;
use ringtribe::status::Status;
use ringtribe::submit::Envelope;
use serde_json::{Map, Value, json};

use crate::arguments::MemberOptions;
use crate::cases::{ASYNCHRONOUS, Case, SIZE_BYTES};
use crate::threads;

/// Longest wait for members, and for the messages of a measurement.
const WITHIN: Duration = Duration::from_secs(60);
const POLL_TIMEOUT: Duration = Duration::from_secs(60);
/// Deliveries that a poller takes at a time.
const BATCH_COUNT: usize = 64;
/// Keys of a caller, in turns: like sessions.
const KEYS_COUNT: u64 = 64;

/// What arrived, and who waits for more of it.
#[derive(Default)]
struct Arrived {
    count: AtomicU64,
    damaged_count: AtomicU64,
    /// Whoever passes this count wakes who waits; 0: nobody.
    wanted_count: AtomicU64,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Arrived {
    fn wake(&self) {
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn take(&self, payload: &[u8], expected: &[u8]) {
        if payload != expected {
            self.damaged_count.fetch_add(1, Ordering::Relaxed);
        }
        let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        if count == self.wanted_count.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Waits until `done`, looking again at each wake-up.
    fn wait(&self, done: impl Fn() -> bool) -> bool {
        let until = Instant::now() + WITHIN;
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while !done() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.changed.wait_timeout(guard, left);
            guard = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// What every message carries, checked by every listener: as the peers in Java do.
fn payload() -> Vec<u8> {
    (0..SIZE_BYTES).map(|n| u8::try_from((n * 31 + 1) % 256).unwrap_or(0)).collect()
}

fn say(value: &Value) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "> {value}").and_then(|()| out.flush()).map_err(|error| error.to_string())
}

fn poller(
    node: &Arc<Node>,
    class: PollerClass,
    name: &str,
    arrived: &Arc<Arrived>,
) -> Result<(), String> {
    let (node, arrived) = (Arc::clone(node), Arc::clone(arrived));
    let poll = move || {
        let expected = payload();
        let mut taken = Vec::new();
        loop {
            let end = node.poll(class, usize::MAX, BATCH_COUNT, POLL_TIMEOUT, &mut taken);
            for polled in taken.drain(..) {
                match polled {
                    Polled::Message(delivery) => {
                        arrived.take(delivery.incoming().payload(), &expected);
                        delivery.complete(Status::Ok);
                    }
                    Polled::Event(_) => arrived.wake(),
                }
            }
            if end == PollEnd::Closed {
                return;
            }
        }
    };
    let spawned = std::thread::Builder::new().name(name.into()).spawn(poll);
    spawned.map(drop).map_err(|error| error.to_string())
}

/// Runs a member until its standard input ends.
///
/// # Errors
/// The node cannot start, or standard output is closed.
pub(crate) fn run(options: &MemberOptions) -> Result<(), String> {
    let mut config = Config::default();
    for (attribute, value) in [
        ("membership", "static"),
        ("staticMembers", options.others.as_str()),
        ("tcpListenAddress", "127.0.0.1"),
        ("tcpListenPort", options.port.as_str()),
        ("backend", options.backend.as_str()),
        ("mcastFrequency", "500"),
    ] {
        config.set(attribute, value).map_err(|error| error.to_string())?;
    }
    let node = Arc::new(Node::open(&config).map_err(|error| error.to_string())?);
    let address = node.listen().map_err(|error| error.to_string())?;
    node.set_local_member(LocalMember {
        host: match address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(_) => Ipv4Addr::LOCALHOST.octets().to_vec(),
        },
        port: i32::from(address.port()),
        secure_port: -1,
        udp_port: -1,
        unique_id: node.boot_id().0,
        ..LocalMember::default()
    });
    let arrived = Arc::new(Arrived::default());
    poller(&node, PollerClass::General, "poller", &arrived)?;
    poller(&node, PollerClass::Reserved, "reserved", &arrived)?;
    node.start_receiving().map_err(|error| error.to_string())?;
    node.start_sending().map_err(|error| error.to_string())?;
    say(&json!({"backend": node.backend(), "streams_count": config.tcp_thread_count}))?;

    // The first message of the count that is asked for next.
    let mut counted = 0;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        let answer = match (words[0], number(1), number(2), number(3)) {
            ("members", Some(count), ..) => {
                let others_count =
                    || node.members().iter().filter(|entry| entry.boot_id().is_some()).count();
                arrived.wait(|| others_count() as u64 == count);
                json!({"members_count": others_count()})
            }
            ("bench", Some(options), Some(callers), Some(messages_count)) => {
                bench(&node, options, callers, messages_count)?
            }
            ("received", Some(count), ..) => {
                let wanted = counted + count;
                arrived.wanted_count.store(wanted, Ordering::SeqCst);
                arrived.wait(|| arrived.count.load(Ordering::SeqCst) >= wanted);
                let received = arrived.count.load(Ordering::SeqCst);
                let damaged = arrived.damaged_count.load(Ordering::Relaxed);
                let answer = json!({"received": received - counted, "damaged": damaged});
                counted = received;
                answer
            }
            ("sample", ..) => sample(&node),
            _ => json!({"error": format!("unknown: {line}")}),
        };
        say(&answer)?;
    }
    node.close(Duration::from_secs(1));
    Ok(())
}

/// What node and threads counted so far.
fn sample(node: &Node) -> Value {
    let stats = node.stats().into_iter().map(|(name, count)| (name.to_owned(), json!(count)));
    json!({"stats": stats.collect::<Map<_, _>>(), "threads": threads::sample()})
}

/// Sends, from `callers` threads, and says how fast; with samples at the first and last send.
fn bench(node: &Arc<Node>, options: u64, callers: u64, count: u64) -> Result<Value, String> {
    let case = Case { options, callers, messages_count: count, ..Case::default() };
    let destinations: Vec<MemberId> = node.members().iter().map(|entry| entry.id).collect();
    let parties = usize::try_from(callers + 1).map_err(|error| error.to_string())?;
    let barrier = Arc::new(Barrier::new(parties));
    let mut threads = Vec::new();
    for caller in 0..callers {
        let (node, barrier) = (Arc::clone(node), Arc::clone(&barrier));
        let destinations = destinations.clone();
        let send = move || {
            let mut took_ns = Vec::with_capacity(usize::try_from(count / callers).unwrap_or(0));
            let mut failed_count = 0;
            let payload = payload();
            barrier.wait();
            barrier.wait();
            for number in 0..case.messages_count / callers {
                let clock = Instant::now();
                let sent = send_one(&node, case, caller, number, &payload, &destinations);
                took_ns.push(u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX));
                failed_count += u64::from(!sent);
            }
            // Alive until it was sampled.
            barrier.wait();
            barrier.wait();
            (took_ns, failed_count)
        };
        let spawned = std::thread::Builder::new().name("caller".into()).spawn(send);
        threads.push(spawned.map_err(|error| error.to_string())?);
    }
    barrier.wait();
    let before = sample(node);
    let clock = Instant::now();
    barrier.wait();
    barrier.wait();
    let took_us = u64::try_from(clock.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
    let after = sample(node);
    barrier.wait();
    let (mut all_ns, mut failed_count) = (Vec::new(), 0);
    for thread in threads {
        let (took_ns, failed) = thread.join().map_err(|_| "a caller panicked")?;
        all_ns.extend(took_ns);
        failed_count += failed;
    }
    all_ns.sort_unstable();
    let at = |percent: usize| all_ns.get(all_ns.len() * percent / 100).map_or(0, |ns| ns / 1_000);
    Ok(json!({
        "rate": all_ns.len() as u64 * 1_000_000 / took_us, "p50_us": at(50), "p99_us": at(99),
        "failed": failed_count, "before": before, "after": after,
    }))
}

fn send_one(
    node: &Node,
    case: Case,
    caller: u64,
    number: u64,
    payload: &[u8],
    destinations: &[MemberId],
) -> bool {
    let mut unique_id = [0; 16];
    unique_id[..8].copy_from_slice(&caller.to_le_bytes());
    unique_id[8..].copy_from_slice(&number.to_le_bytes());
    let options = i32::try_from(case.options).unwrap_or(0);
    let envelope = Envelope { options, timestamp_ms: 1, unique_id };
    let Ok(mut builder) = node.compose(payload.len(), &envelope) else { return false };
    builder.payload_mut().copy_from_slice(payload);
    let builder = builder.short();
    let key = Some(Key::from_hash(caller * KEYS_COUNT + number % KEYS_COUNT));
    let sent = if case.options == ASYNCHRONOUS {
        node.submit(builder, key, false, destinations, None, None)
    } else {
        node.send(builder, key, false, destinations, None)
    };
    sent.is_ok()
}
