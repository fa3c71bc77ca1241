//! Real nodes over real sockets on loopback: they find each other, exchange messages in every mode
//! and notice each other go; on each backend, with one worker and with six.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringtribe::config::Config;
use ringtribe::delivery::{PollEnd, Polled, PollerClass};
use ringtribe::directory::Identity;
use ringtribe::event::Event;
use ringtribe::ids::{Key, MemberId};
use ringtribe::node::Node;
use ringtribe::protocol::membership::LocalMember;
use ringtribe::status::Status;
use ringtribe::submit::Envelope;

const WITHIN: Duration = Duration::from_secs(20);

fn free_udp_port() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("bound").port()
}

/// A running node. Each test has ports of its own: a Tribes node is known by its address, and whoever
/// takes over the port of one that went gets its messages.
struct Running {
    node: std::sync::Arc<Node>,
    events: mpsc::Receiver<Event>,
    messages: mpsc::Receiver<Vec<u8>>,
    pollers: Vec<std::thread::JoinHandle<()>>,
    port: u16,
    /// Listeners of messages that begin with [`WAITS`] end when something is sent here.
    gate: mpsc::Sender<()>,
}

/// First byte of a message whose listener waits.
const WAITS: u8 = 0xfe;

/// What the nodes of one test run on.
#[derive(Clone, Copy)]
struct Ground {
    backend: &'static str,
    workers_count: u16,
    /// No two tests have ports in common.
    first_port: u16,
}

/// How a listener treats a message, by its first byte.
fn listener_outcome(payload: &[u8]) -> Status {
    if payload.first() == Some(&0xff) { Status::RemoteFailed } else { Status::Ok }
}

impl Running {
    fn start(id: u8, mcast_port: u16, ground: Ground) -> Self {
        Self::start_with(id, mcast_port, ground, &[])
    }

    fn start_with(id: u8, mcast_port: u16, ground: Ground, more: &[(&str, &str)]) -> Self {
        let mut config = Config::default();
        for (name, value) in [
            ("mcastAddr", "228.0.0.9"),
            ("mcastPort", &mcast_port.to_string()),
            ("mcastBindAddr", "127.0.0.1"),
            ("mcastFrequency", "100"),
            ("mcastDropTime", "600"),
            ("tcpListenAddress", "127.0.0.1"),
            ("tcpListenPort", &ground.first_port.to_string()),
            ("autoBind", "90"),
            ("tcpThreadCount", &ground.workers_count.to_string()),
            ("backend", ground.backend),
            ("ackTimeout", "5000"),
        ] {
            config.set(name, value).expect("a valid knob");
        }
        for (name, value) in more {
            config.set(name, value).expect("a valid knob");
        }
        let node = std::sync::Arc::new(Node::open(&config).expect("this machine has io_uring"));
        assert!(node.backend().starts_with(ground.backend), "{}", node.backend());
        let address = node.listen().expect("a free port");
        node.set_local_member(LocalMember {
            host: vec![127, 0, 0, 1],
            port: i32::from(address.port()),
            secure_port: -1,
            udp_port: -1,
            unique_id: [id; 16],
            ..LocalMember::default()
        });
        let (event_in, events) = mpsc::channel();
        let (message_in, messages) = mpsc::channel();
        let mut pollers = Vec::new();
        let (gate, when_open) = mpsc::channel();
        let when_open = std::sync::Arc::new(std::sync::Mutex::new(when_open));
        for class in [PollerClass::General, PollerClass::Reserved] {
            let node = std::sync::Arc::clone(&node);
            let (event_in, message_in) = (event_in.clone(), message_in.clone());
            let when_open = std::sync::Arc::clone(&when_open);
            pollers.push(std::thread::spawn(move || {
                let mut taken = Vec::new();
                loop {
                    let end = node.poll(class, 64 << 20, 64, Duration::from_secs(1), &mut taken);
                    for polled in taken.drain(..) {
                        match polled {
                            Polled::Event(event) => drop(event_in.send(event)),
                            Polled::Message(delivery) => {
                                let payload = delivery.incoming().payload().to_vec();
                                let status = listener_outcome(&payload);
                                if payload.first() == Some(&WAITS) {
                                    let when_open = when_open.lock().expect("no panic holds it");
                                    when_open.recv_timeout(WITHIN).expect("the test opens it");
                                }
                                drop(message_in.send(payload));
                                delivery.complete(status);
                            }
                        }
                    }
                    if end == PollEnd::Closed {
                        return;
                    }
                }
            }));
        }
        node.start_receiving().expect("multicast on loopback");
        node.start_sending().expect("multicast on loopback");
        Self { node, events, messages, pollers, port: address.port(), gate }
    }

    fn identity(&self, id: u8) -> Identity {
        Identity { host: vec![127, 0, 0, 1], port: i32::from(self.port), unique_id: [id; 16] }
    }

    fn await_event<T>(&self, what: &str, pick: impl Fn(Event) -> Option<T>) -> T {
        let until = Instant::now() + WITHIN;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).unwrap_or_else(|_| panic!("no {what}"));
            if let Some(picked) = pick(event) {
                return picked;
            }
        }
    }

    fn await_member(&self) -> MemberId {
        self.await_event("member added", |event| match event {
            Event::MemberAdded { member, .. } => Some(member),
            _ => None,
        })
    }

    fn await_gone(&self) -> Status {
        self.await_event("member gone", |event| match event {
            Event::MemberGone { cause, .. } => Some(cause),
            _ => None,
        })
    }

    fn next_message(&self) -> Vec<u8> {
        self.messages.recv_timeout(WITHIN).expect("a message")
    }

    fn stop(mut self) {
        self.node.close(Duration::from_secs(2));
        for poller in self.pollers.drain(..) {
            poller.join().expect("no panic in a poller");
        }
    }
}

fn envelope(options: i32, id: u8) -> Envelope {
    Envelope { options, timestamp_ms: 1, unique_id: [id; 16] }
}

fn send(
    from: &Running,
    to: MemberId,
    payload: &[u8],
    options: i32,
) -> Result<(), Vec<(MemberId, Status)>> {
    let mut builder = from.node.compose(payload.len(), &envelope(options, 7)).expect("in bounds");
    builder.payload_mut().copy_from_slice(payload);
    from.node.send(builder, Some(Key::of(b"k")), false, &[to], None).map_err(|e| e.failures)
}

fn two_nodes_exchange_messages_of_every_size_and_mode(ground: Ground) {
    let port = free_udp_port();
    let a = Running::start(1, port, ground);
    let b = Running::start(2, port, ground);
    let (to_b, to_a) = (a.await_member(), b.await_member());
    assert_eq!(a.node.members()[0].boot_id(), Some(b.node.boot_id()), "its heartbeats name it");
    for size in [0, 1, 100, 4_096, 70_000, 5_000_000] {
        let payload: Vec<u8> = (0..size).map(|i: usize| i.to_le_bytes()[0] % 251).collect();
        for options in [1, 3, 7, 9] {
            send(&a, to_b, &payload, options).expect("delivered");
            assert!(b.next_message() == payload, "{size} bytes, options {options}");
        }
        send(&b, to_a, &payload, 7).expect("delivered");
        assert!(a.next_message() == payload);
    }
    // A listener that fails is reported by name, and only for its own message.
    assert_eq!(send(&a, to_b, &[0xff, 1], 7), Err(vec![(to_b, Status::RemoteFailed)]));
    assert_eq!(send(&a, to_b, &[0xff, 1], 3), Ok(()), "received, whatever the listener does");
    send(&a, to_b, &[1], 7).expect("delivered");
    a.stop();
    assert_eq!(b.await_gone(), Status::Goodbye);
    assert_eq!(send(&b, to_a, &[1], 7), Err(vec![(to_a, Status::StaleMember)]));
    b.stop();
}

fn a_key_keeps_its_order_through_the_queue(ground: Ground) {
    let port = free_udp_port();
    // Less room than all messages need: it has to come back with the acknowledgements of receipt.
    let a = Running::start_with(1, port, ground, &[("maxQueueSize", "200000")]);
    let b = Running::start(2, port, ground);
    let to_b = a.await_member();
    // What keeps the order at a Tribes receiver is the message of a session.
    let session = include_bytes!("../../wire/testdata/java/session-delta.bin");
    let count = 20_000_u32;
    for number in 0..count {
        let payload = [&session[..], &number.to_be_bytes()].concat();
        let mut builder = a.node.compose(payload.len(), &envelope(8, 7)).expect("in bounds");
        builder.payload_mut().copy_from_slice(&payload);
        a.node
            .submit(builder, Some(Key::of(b"session")), false, &[to_b], None, None)
            .expect("queued");
    }
    // Who closes in order takes along what is queued.
    a.stop();
    for number in 0..count {
        let payload = b.next_message();
        assert_eq!(payload[session.len()..], number.to_be_bytes());
    }
    b.stop();
}

fn who_joins_learns_when_all_that_it_did_not_get_is_finished(ground: Ground) {
    let port = free_udp_port();
    let a = Running::start(1, port, ground);
    let b = Running::start(2, port, ground);
    let to_b = a.await_member();
    let builder = a.node.compose_shared(vec![WAITS].into(), &envelope(9, 3)).expect("in bounds");
    a.node.submit(builder, None, false, &[to_b], None, None).expect("queued");
    let c = Running::start(3, port, ground);
    let from_c = [c.await_member(), c.await_member()];
    // Its listener has not ended, so that a copy of b's state may lack it, and c did not get it.
    let silent = c.node.join_barrier(Duration::from_millis(700));
    let of_a = c.node.members().into_iter().find(|entry| entry.identity == a.identity(1));
    assert_eq!(silent, [of_a.expect("c sees a").id], "of {from_c:?}");
    b.gate.send(()).expect("its listener waits");
    assert_eq!(c.node.join_barrier(WITHIN), [], "all answer");
    c.stop();
    a.stop();
    b.stop();
}

fn a_message_that_the_member_does_not_take_fails_by_name_and_the_next_goes_on(ground: Ground) {
    let port = free_udp_port();
    let a = Running::start(1, port, ground);
    let b = Running::start_with(2, port, ground, &[("maxMessageBytes", "100000")]);
    let (to_b, _) = (a.await_member(), b.await_member());
    for round in 0..3 {
        send(&a, to_b, &[round; 100_000], 7).expect("just so long");
        assert_eq!(b.next_message(), [round; 100_000]);
        let too_big = send(&a, to_b, &[round; 100_001], 7);
        assert_eq!(too_big, Err(vec![(to_b, Status::TooBig)]));
        let here = b.await_event("gap", |event| match event {
            Event::Gap { here, messages_count, member } => {
                b.node.repaired(member);
                Some((here, messages_count))
            }
            _ => None,
        });
        assert_eq!(here, (true, 1), "the member learns that it missed one");
        send(&a, to_b, &[round, 1], 7).expect("delivered");
        assert_eq!(b.next_message(), [round, 1]);
    }
    a.stop();
    b.stop();
}

fn a_node_that_dies_without_a_word_is_noticed_and_named(ground: Ground) {
    let port = free_udp_port();
    let a = Running::start(1, port, ground);
    let b = Running::start(2, port, ground);
    let to_b = a.await_member();
    send(&a, to_b, &[1], 7).expect("delivered");
    let b_identity = b.identity(2);
    // Its port closes without a goodbye: connections are refused from now on.
    b.node.stop_listening();
    let cause = a.await_gone();
    assert!(matches!(cause, Status::Refused | Status::Cut), "{cause}");
    let refused = a.node.enter(&b_identity, &[]).expect_err("it has gone");
    assert_eq!(refused, Status::StaleMember);
    // Whom membership never knew is tried.
    let to_nobody = a.node.enter(&b.identity(3), &[]).expect("an address");
    let failed = send(&a, to_nobody, &[1], 7).expect_err("nobody listens");
    assert_eq!(failed, vec![(to_nobody, Status::Refused)]);
    a.stop();
    b.stop();
}

macro_rules! grounds {
    ($($ground:ident: $backend:literal, $workers:literal, $port:literal;)*) => {
        $(mod $ground {
            const fn ground(offset: u16) -> super::Ground {
                let (backend, workers_count) = ($backend, $workers);
                super::Ground { backend, workers_count, first_port: $port + offset }
            }
            #[test]
            fn two_nodes_exchange_messages_of_every_size_and_mode() {
                super::two_nodes_exchange_messages_of_every_size_and_mode(ground(0));
            }
            #[test]
            fn a_key_keeps_its_order_through_the_queue() {
                super::a_key_keeps_its_order_through_the_queue(ground(100));
            }
            #[test]
            fn who_joins_learns_when_all_that_it_did_not_get_is_finished() {
                super::who_joins_learns_when_all_that_it_did_not_get_is_finished(ground(400));
            }
            #[test]
            fn a_message_that_the_member_does_not_take_fails_by_name_and_the_next_goes_on() {
                super::a_message_that_the_member_does_not_take_fails_by_name_and_the_next_goes_on(
                    ground(300),
                );
            }
            #[test]
            fn a_node_that_dies_without_a_word_is_noticed_and_named() {
                super::a_node_that_dies_without_a_word_is_noticed_and_named(ground(200));
            }
        })*
    };
}

grounds! {
    ring_with_one_worker: "io_uring", 1, 41_000;
    ring_with_six_workers: "io_uring", 6, 41_500;
    epoll_with_one_worker: "epoll", 1, 42_000;
    epoll_with_six_workers: "epoll", 6, 42_500;
}
