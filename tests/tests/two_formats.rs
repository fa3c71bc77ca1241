//! Both formats at a time: two Ringtribe nodes and a stock one in one cluster, and a member that is
//! known as a stock one first.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringtribe::directory::Identity;
use ringtribe::event::Event;
use ringtribe::ids::MemberId;
use ringtribe::submit::Envelope;
use ringtribe_tests::build::Flavour;
use ringtribe_tests::member::{APPLIED, ASYNCHRONOUS, Member, Seen, runs};
use ringtribe_tests::peer::{Peer, number};
use ringtribe_tests::tomcat::free_mcast_port;
use ringtribe_wire::tribes;

const STOCK_INTERCEPTORS: &str = "interceptors=MessageDispatchInterceptor,TcpFailureDetector";
const COUNT: u64 = 200;
const SIZE_BYTES: usize = 1_000;
/// What the own format adds to a payload: the headers of DATA and envelope.
const OWN_BYTES: u64 = 64;
/// The share of a message in the echoes that go out meanwhile is below this.
const ECHO_BYTES: u64 = 10;

/// Whether so many bytes for a message are the own format.
fn is_own(bytes: u64) -> bool {
    let least = SIZE_BYTES as u64 + OWN_BYTES;
    (least..least + ECHO_BYTES).contains(&bytes)
}

/// The payload that the peer in Java expects.
fn stock_payload(number: i32, payload: &mut [u8]) {
    let fill = |at: usize| (i32::try_from(at).expect("short") * 31 + number).to_le_bytes()[0];
    for (at, byte) in payload.iter_mut().enumerate() {
        *byte = fill(at);
    }
    payload[..4].copy_from_slice(&number.to_be_bytes());
    payload[4] = 0;
}

/// Sends [`COUNT`] messages to each of `to`; returns the bytes that went out for a message.
fn send(from: &Member, to: &[MemberId], all_read: impl FnOnce()) -> u64 {
    let before_bytes = from.counter("frames_sent_bytes");
    for n in 0..i32::try_from(COUNT).expect("few") {
        let mut unique_id = [from.address.port().to_le_bytes()[0]; 16];
        unique_id[..4].copy_from_slice(&n.to_le_bytes());
        unique_id[4..8].copy_from_slice(&to[0].index.to_le_bytes());
        let envelope = Envelope { options: APPLIED, timestamp_ms: 1, unique_id };
        let mut message = from.node.compose(SIZE_BYTES, &envelope).expect("in bounds");
        stock_payload(n, message.payload_mut());
        from.node.send(message, None, false, to, None).expect("delivered");
    }
    all_read();
    (from.counter("frames_sent_bytes") - before_bytes) / COUNT
}

/// Bytes of such a message in the Tribes format.
fn tribes_bytes(from: &Member) -> u64 {
    let mut package = Vec::new();
    tribes::Member {
        alive_ms: 1,
        port: i32::from(from.address.port()),
        secure_port: -1,
        udp_port: -1,
        host: &[127, 0, 0, 1],
        command: b"",
        domain: b"",
        unique_id: &[0; 16],
        payload: b"",
    }
    .encode(&mut package);
    let mut head = Vec::new();
    tribes::encode_data_head(&mut head, APPLIED, 1, &[0; 16], &package, SIZE_BYTES);
    (head.len() + SIZE_BYTES + tribes::FOOTER.len()) as u64
}

#[test]
fn two_ringtribe_nodes_and_a_stock_one_reach_each_other_each_in_its_format() {
    let mcast_port = free_mcast_port();
    let mut stock =
        Peer::start("TribesPeer", "stock", Flavour::Stock, mcast_port, &[STOCK_INTERCEPTORS])
            .expect("a peer");
    let port_text = mcast_port.to_string();
    let settings = [
        ("mcastPort", port_text.as_str()),
        ("mcastBindAddr", "127.0.0.1"),
        ("mcastFrequency", "200"),
    ];
    let nodes = [1, 2].map(|id| Member::start(id, &settings).expect("it starts"));
    assert_eq!(stock.ask("members count=2").expect("an answer"), "members=2");
    let answer = stock.ask("added").expect("an answer");
    assert!(number(&answer, "port").is_ok(), "{answer}");
    let [a, b] = &nodes;
    for (from, other) in [(a, b), (b, a)] {
        let own = from.member_at(other.address.port()).expect("it is seen");
        assert_eq!(own.boot_id(), Some(other.node.boot_id()), "the own format");
        let stock_one = from.wait("the stock one", |_| {
            from.node.members().into_iter().find(|entry| entry.id != own.id)
        });
        let stock_one = stock_one.expect("it is seen");
        assert!(stock_one.boot_id().is_none(), "Tribes");
        // The connections are open after these; what they cost is not looked at.
        send(from, &[own.id, stock_one.id], || {});
        stock.ask(&format!("received count={COUNT}")).expect("an answer");

        let frames_before = other.counter("frames_received_count");
        let own_bytes = send(from, &[own.id], || {});
        assert!(is_own(own_bytes), "{own_bytes} bytes");
        let frames_count = other.counter("frames_received_count") - frames_before;
        assert!((COUNT..COUNT + 10).contains(&frames_count), "{frames_count}");
        let tribes = send(from, &[stock_one.id], || {});
        let least = tribes_bytes(from);
        assert!((least..least + ECHO_BYTES).contains(&tribes), "{tribes} bytes, not {least}");
        assert!(!is_own(least), "the two can be told apart");
        let answer = stock.ask(&format!("received count={COUNT}")).expect("an answer");
        assert_eq!(answer, format!("received={COUNT} damaged=0"));
    }
    // The stock one to both, waiting for both.
    for node in &nodes {
        node.look(|seen| seen.others_count = 0);
    }
    let answer = stock.ask(&format!("send size=500 options=6 count={COUNT}"));
    assert_eq!(answer.expect("an answer"), format!("sent={COUNT} failed=0"));
    for node in &nodes {
        assert_eq!(node.look(|seen| seen.others_count), COUNT);
        assert_eq!(node.counter("bad_input_count"), 0);
        assert_eq!(node.counter("refused_hellos_count"), 0);
    }
}

/// Session messages, which a receiver keeps in order in either format.
const SESSION_APPLIED: i32 = APPLIED & !1;
const SESSION_ASYNCHRONOUS: i32 = ASYNCHRONOUS & !1;
/// Keys whose sender waits, and those whose sender does not.
const KEYS: [(u64, i32); 4] = [
    (1, SESSION_APPLIED),
    (2, SESSION_APPLIED),
    (3, SESSION_ASYNCHRONOUS),
    (4, SESSION_ASYNCHRONOUS),
];

/// So long listeners take nothing: longer than streams need to open.
const HELD: Duration = Duration::from_millis(300);

#[test]
fn the_change_to_the_own_format_keeps_order_and_loses_nothing() {
    let mcast_port = free_mcast_port().to_string();
    let settings = [
        ("mcastPort", mcast_port.as_str()),
        ("mcastBindAddr", "127.0.0.1"),
        ("maxQueueSize", "262144"),
    ];
    let b = Member::start(2, &settings).expect("it starts");
    // It hears nobody yet.
    let a = Member::open(1, &settings).expect("it opens");
    let host = vec![127, 0, 0, 1];
    let identity = Identity { host, port: i32::from(b.address.port()), unique_id: [2; 16] };
    let to = a.node.enter(&identity, b"").expect("an address");
    let entry = a.node.member(to).expect("entered");
    assert!(entry.boot_id().is_none());
    let ended = AtomicBool::new(false);
    let counts: BTreeMap<u64, u64> = std::thread::scope(|scope| {
        let senders: Vec<_> = KEYS
            .iter()
            .map(|(key, options)| {
                let (a, ended) = (&a, &ended);
                scope.spawn(move || {
                    for number in 0.. {
                        if ended.load(Ordering::Acquire) {
                            return (*key, number);
                        }
                        let sent = if *options == SESSION_APPLIED {
                            a.send(*key, number, 300, *options, &[to])
                        } else {
                            a.submit(*key, number, 300, *options, &[to], None)
                        };
                        sent.expect("it is there all the time");
                    }
                    (*key, 0)
                })
            })
            .collect();
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let count = |seen: &Seen, key| seen.delivered.get(&key).map_or(0, Vec::len);
            let more = |least: usize| {
                let before = b.look(|seen| KEYS.map(|(key, _)| count(seen, key)));
                let waited = b.wait("messages", |seen| {
                    let mut of_keys = KEYS.iter().zip(before);
                    of_keys
                        .all(|((key, _), before)| count(seen, *key) >= before + least)
                        .then(|| KEYS.map(|(key, _)| count(seen, key)))
                });
                waited.expect("they come")
            };
            let in_tribes = more(200);
            assert!(entry.boot_id().is_none(), "still Tribes");
            // Much of Tribes is still on its way to a listener when the format changes.
            b.hold(true);
            a.announce().expect("the group is there");
            let changed = a.wait("a heartbeat", |_| entry.boot_id());
            assert_eq!(changed.expect("it says who it is"), b.node.boot_id());
            let clock = Instant::now();
            while clock.elapsed() < HELD {
                std::thread::park_timeout(HELD);
            }
            b.hold(false);
            println!("delivered of each key: {in_tribes:?} in Tribes, then {:?}", more(500));
        }));
        ended.store(true, Ordering::Release);
        let counts = senders.into_iter().map(|sender| sender.join().expect("all were sent"));
        let counts = counts.collect();
        if let Err(why) = told {
            std::panic::resume_unwind(why);
        }
        counts
    });
    // The same member all the time, and its lanes were changed: nothing of Tribes goes out any more.
    assert_eq!(a.node.member(to).expect("known").id, to);
    let gaps = |event: &Event| matches!(event, Event::Gap { .. } | Event::MemberGone { .. });
    for member in [&a, &b] {
        assert!(!member.look(|seen| seen.events.iter().any(gaps)));
    }
    for (key, count) in counts {
        let all = b.wait("the last one", |seen| {
            let all = seen.delivered.get(&key)?;
            (all.last() == Some(&(count - 1))).then(|| runs(all))
        });
        assert_eq!(all.expect("it comes"), format!("0-{}", count - 1), "key {key}");
    }
    let before_bytes = a.counter("frames_sent_bytes");
    for number in 0..100 {
        a.send(9, number, SIZE_BYTES, APPLIED, &[to]).expect("delivered");
    }
    let each_bytes = (a.counter("frames_sent_bytes") - before_bytes) / 100;
    assert!(is_own(each_bytes), "{each_bytes} bytes");
}
