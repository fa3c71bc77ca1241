//! Two nodes in one process find each other and exchange messages: what a backend does, and how fast.
//!
//! `pair [--backend auto|io_uring|epoll] [--workers N] [--count N] [--size BYTES] [--options N]
//! [--callers N]`. `--refuse ERRNO|kill [--call NAME]` lets a system call of io_uring fail, or end the
//! process. With `--wait` it says `ready` and waits for a line before it begins.

use std::io::BufRead;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use ringtribe::config::Config;
use ringtribe::delivery::{PollEnd, Polled, PollerClass};
use ringtribe::event::Event;
use ringtribe::ids::{Key, MemberId};
use ringtribe::node::Node;
use ringtribe::protocol::membership::LocalMember;
use ringtribe::status::Status;
use ringtribe::submit::Envelope;
use ringtribe_tests::refuse::refuse;
use ringtribe_tests::tomcat::free_mcast_port;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WITHIN: Duration = Duration::from_secs(60);
/// An asynchronous message: its caller does not wait.
const ASYNCHRONOUS: i32 = 8;
/// Its caller waits until the listener has returned.
const APPLIED: i32 = 6;
/// Messages each way before those that count: the connections are open then.
const WARM_COUNT: u64 = 100;
/// Its order is kept by the receiver, as that of any message of a session.
const SESSION: &[u8] = include_bytes!("../../../wire/testdata/java/session-delta.bin");

struct Arguments(Vec<String>);

impl Arguments {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_str())
    }

    fn number(&self, name: &str, otherwise: u64) -> Result<u64, String> {
        self.text(name).map_or(Ok(otherwise), |text| {
            text.parse().map_err(|error| format!("{name} {text}: {error}"))
        })
    }
}

struct Member {
    node: Arc<Node>,
    events: Receiver<Event>,
    all_delivered: Receiver<()>,
    pollers: Vec<std::thread::JoinHandle<()>>,
}

/// What the pollers of a member report.
#[derive(Clone)]
struct Reports {
    events: Sender<Event>,
    to_come_count: Arc<AtomicU64>,
    all_delivered: Sender<()>,
}

fn poll(node: &Node, class: PollerClass, reports: &Reports) {
    let mut taken = Vec::new();
    loop {
        let end = node.poll(class, 64 << 20, 64, Duration::from_secs(1), &mut taken);
        for polled in taken.drain(..) {
            match polled {
                Polled::Event(event) => drop(reports.events.send(event)),
                Polled::Message(delivery) => {
                    delivery.complete(Status::Ok);
                    if reports.to_come_count.fetch_sub(1, Ordering::AcqRel) == 1 {
                        let _ = reports.all_delivered.send(());
                    }
                }
            }
        }
        if end == PollEnd::Closed {
            return;
        }
    }
}

/// Sends `count` messages; returns the time that each send took if it waits, in µs.
fn send(
    from: &Node,
    caller: u64,
    count: u64,
    size_bytes: usize,
    options: i32,
    to: MemberId,
) -> Result<Vec<u64>, String> {
    let key = Some(Key::of(&caller.to_le_bytes()));
    let mut took_us = Vec::new();
    for number in 0..count {
        // What has the id of another message may be taken for that one, sent again.
        let mut unique_id = [0; 16];
        unique_id[..8].copy_from_slice(&caller.to_le_bytes());
        unique_id[8..].copy_from_slice(&number.to_le_bytes());
        let envelope = Envelope { options, timestamp_ms: 1, unique_id };
        let clock = Instant::now();
        let builder = from.compose(size_bytes, &envelope);
        let mut builder = builder.map_err(|status| status.to_string())?;
        let payload = builder.payload_mut();
        let head_bytes = SESSION.len().min(payload.len());
        payload[..head_bytes].copy_from_slice(&SESSION[..head_bytes]);
        if options == ASYNCHRONOUS {
            let sent = from.submit(builder, key, false, &[to], None, None);
            sent.map_err(|error| format!("{:?}", error.failures))?;
        } else {
            let sent = from.send(builder, key, false, &[to], None);
            sent.map_err(|error| format!("{:?}", error.failures))?;
            took_us.push(u64::try_from(clock.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
    }
    Ok(took_us)
}

impl Member {
    fn open(
        name: &str,
        id: u8,
        mcast_port: u16,
        expected_count: u64,
        arguments: &Arguments,
    ) -> Result<Self, String> {
        let mut config = Config::default();
        for (attribute, value) in [
            ("backend", arguments.text("--backend").unwrap_or("auto")),
            ("tcpThreadCount", arguments.text("--workers").unwrap_or("2")),
            ("mcastPort", &mcast_port.to_string()),
            ("mcastBindAddr", "127.0.0.1"),
            ("mcastFrequency", "100"),
            ("tcpListenAddress", "127.0.0.1"),
            ("tcpListenPort", "31100"),
            ("autoBind", "900"),
        ] {
            config.set(attribute, value).map_err(|error| error.to_string())?;
        }
        let node = Arc::new(Node::open(&config).map_err(|error| error.to_string())?);
        println!("{name} backend={}", node.backend());
        let address = node.listen().map_err(|error| error.to_string())?;
        node.set_local_member(LocalMember {
            host: vec![127, 0, 0, 1],
            port: i32::from(address.port()),
            secure_port: -1,
            udp_port: -1,
            unique_id: [id; 16],
            ..LocalMember::default()
        });
        let (events_in, events) = channel();
        let (all_delivered_in, all_delivered) = channel();
        let reports = Reports {
            events: events_in,
            to_come_count: Arc::new(AtomicU64::new(expected_count)),
            all_delivered: all_delivered_in,
        };
        let pollers = [PollerClass::General, PollerClass::General, PollerClass::Reserved];
        let pollers = pollers.map(|class| {
            let (node, reports) = (Arc::clone(&node), reports.clone());
            std::thread::spawn(move || poll(&node, class, &reports))
        });
        node.start_receiving().map_err(|error| error.to_string())?;
        node.start_sending().map_err(|error| error.to_string())?;
        Ok(Self { node, events, all_delivered, pollers: pollers.into() })
    }

    /// The first member it sees; log lines on the way are printed.
    fn other(&self, name: &str) -> Result<MemberId, String> {
        let until = Instant::now() + WITHIN;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::MemberAdded { member, .. }) => return Ok(member),
                Ok(Event::Log { level, text }) => println!("{name} log={level:?} {text}"),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Err(format!("{name} sees nobody")),
                Err(RecvTimeoutError::Disconnected) => return Err(format!("{name} has ended")),
            }
        }
    }

    fn close(self) -> Result<(), String> {
        self.node.close(Duration::from_secs(2));
        for poller in self.pollers {
            poller.join().map_err(|_| "a poller panicked")?;
        }
        Ok(())
    }
}

fn as_f64(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Processor time of all threads of this process so far, in µs.
fn cpu_us() -> Result<u64, String> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).map_err(|error| error.to_string())?;
    let both = usage.user_time() + usage.system_time();
    u64::try_from(both.num_microseconds()).map_err(|error| error.to_string())
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let count = arguments.number("--count", 1_000)?;
    let callers_count = arguments.number("--callers", 1)?.max(1);
    let size_bytes = usize::try_from(arguments.number("--size", 1_024)?).unwrap_or(usize::MAX);
    let options = i32::try_from(arguments.number("--options", APPLIED.unsigned_abs().into())?)
        .unwrap_or(i32::MAX);
    if let Some(how) = arguments.text("--refuse") {
        refuse(how, arguments.text("--call").unwrap_or("io_uring_setup"))?;
    }
    if arguments.has("--wait") {
        println!("ready");
        std::io::stdin().lock().lines().next();
    }
    let mcast_port = free_mcast_port();
    let each_count = count / callers_count;
    let sent_count = each_count * callers_count;
    let a = Member::open("a", 1, mcast_port, WARM_COUNT, arguments)?;
    let b = Member::open("b", 2, mcast_port, WARM_COUNT + sent_count, arguments)?;
    let (to_b, to_a) = (a.other("a")?, b.other("b")?);
    // There and back, so that each has sent and received; it warms up too.
    let warming = u64::MAX;
    send(&a.node, warming, WARM_COUNT, size_bytes, APPLIED, to_b)?;
    send(&b.node, warming, WARM_COUNT, size_bytes, APPLIED, to_a)?;
    let used_us = cpu_us()?;
    let clock = Instant::now();
    let mut took_us = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..callers_count)
            .map(|caller| {
                let node = &a.node;
                scope.spawn(move || send(node, caller, each_count, size_bytes, options, to_b))
            })
            .collect();
        let mut took_us = Vec::new();
        for caller in callers {
            took_us.extend(caller.join().map_err(|_| "a caller panicked")??);
        }
        Ok::<_, String>(took_us)
    })?;
    b.all_delivered
        .recv_timeout(WITHIN)
        .map_err(|_| format!("not all of {sent_count} messages were delivered"))?;
    let seconds = clock.elapsed().as_secs_f64();
    let used_us = cpu_us()? - used_us;
    took_us.sort_unstable();
    let place = |percent: usize| took_us.get(took_us.len() * percent / 100).copied().unwrap_or(0);
    println!(
        "delivered={sent_count} rate={:.0} p50_us={} p99_us={} cpu_us_each={:.1}",
        as_f64(sent_count) / seconds,
        place(50),
        place(99),
        as_f64(used_us) / as_f64(sent_count),
    );
    a.close()?;
    b.close()
}

fn main() -> ExitCode {
    match run(&Arguments(std::env::args().skip(1).collect())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
