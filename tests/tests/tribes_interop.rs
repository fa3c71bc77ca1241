//! Among stock Tribes nodes: stock Tomcat's own `GroupChannel` in its own JVM is the judge.

use std::net::{Ipv4Addr, SocketAddr};

use ringtribe_tests::build::Flavour::{self, Ringtribe, Stock};
use ringtribe_tests::peer::{Peer, number};
use ringtribe_tests::tomcat::free_mcast_port;

const DETECTOR: &str = "interceptors=MessageDispatchInterceptor,TcpFailureDetector";

fn start(name: &str, flavour: Flavour, mcast_port: u16, interceptors: &str) -> Peer {
    Peer::start("TribesPeer", name, flavour, mcast_port, &[interceptors]).expect("a peer")
}

/// Starts two peers that have found each other.
fn pair(flavours: [Flavour; 2], interceptors: &str) -> (Peer, Peer, u16) {
    let mcast_port = free_mcast_port();
    let mut a = start("a", flavours[0], mcast_port, interceptors);
    let mut b = start("b", flavours[1], mcast_port, interceptors);
    await_members(&mut a, 1);
    await_members(&mut b, 1);
    (a, b, mcast_port)
}

fn await_members(peer: &mut Peer, count: usize) {
    let answer = peer.ask(&format!("members count={count}")).expect("an answer");
    assert_eq!(answer, format!("members={count}"));
}

fn every_size_and_ack(interceptors: &str) {
    let (mut a, mut b, _) = pair([Ringtribe, Stock], interceptors);
    let mut sent_count = 0;
    for size in [0, 1, 100, 4096, 70_000, 1_000_000, 5_000_000] {
        // No acknowledgement, on receipt, after the listener, and the asynchronous ones.
        for options in [0, 2, 6, 8, 14] {
            for peer in [&mut a, &mut b] {
                let command = format!("send size={size} options={options} count=2");
                let answer = peer.ask(&command).expect("an answer");
                assert_eq!(answer, "sent=2 failed=0", "{command}");
            }
            sent_count += 2;
        }
    }
    for peer in [&mut a, &mut b] {
        let answer = peer.ask(&format!("received count={sent_count}")).expect("an answer");
        assert_eq!(answer, format!("received={sent_count} damaged=0"));
    }
}

#[test]
fn messages_of_every_size_and_ack_pass_both_ways() {
    every_size_and_ack(DETECTOR);
}

#[test]
fn messages_pass_through_the_interceptors_that_change_bytes() {
    every_size_and_ack(
        "interceptors=MessageDispatchInterceptor,OrderInterceptor,GzipInterceptor,\
         FragmentationInterceptor,TcpFailureDetector",
    );
}

#[test]
fn a_fail_ack_reaches_the_message_it_belongs_to() {
    let (mut a, mut b, _) = pair([Ringtribe, Stock], DETECTOR);
    // At the same time in both directions: plain, failing, slow and slow failing listeners.
    a.tell("mixed count=48").expect("it runs");
    b.tell("mixed count=48").expect("it runs");
    for peer in [&a, &b] {
        assert_eq!(peer.answer().expect("an answer"), "ended=true failures=24 wrong=0");
    }
}

#[test]
fn sixty_four_listeners_that_wait_for_replies_do_not_deadlock() {
    // The stock node asks; 64 listeners of the Ringtribe node are inside together, ask back and wait.
    let (mut a, _b, _) = pair([Stock, Ringtribe], DETECTOR);
    let answer = a.ask("rpc threads=64").expect("an answer");
    assert_eq!(number(&answer, "answered").expect("a number"), 64, "{answer}");
}

#[test]
fn nodes_see_each_other_come_go_and_die() {
    let (mut a, mut b, mcast_port) = pair([Ringtribe, Stock], DETECTOR);
    for peer in [&mut a, &mut b] {
        assert!(peer.ask("added").expect("an answer").starts_with("added port="));
    }
    for flavour in [Ringtribe, Stock] {
        // One that leaves in order.
        let mut polite = start("polite", flavour, mcast_port, DETECTOR);
        await_members(&mut a, 2);
        await_members(&mut b, 2);
        assert_eq!(polite.ask("stop").expect("an answer"), "stopped");
        for (peer, observer) in [(&mut a, Ringtribe), (&mut b, Stock)] {
            let gone = peer.ask("gone").expect("an answer");
            assert!(gone.ends_with("polite=true"), "{flavour:?} seen by {observer:?}: {gone}");
        }
        await_members(&mut a, 1);
        await_members(&mut b, 1);
        // One that is killed.
        let mut killed = start("killed", flavour, mcast_port, DETECTOR);
        await_members(&mut a, 2);
        await_members(&mut b, 2);
        killed.process().kill().expect("it runs");
        for (peer, observer) in [(&mut a, Ringtribe), (&mut b, Stock)] {
            let gone = peer.ask("gone").expect("an answer");
            assert!(gone.ends_with("polite=false"), "{flavour:?} seen by {observer:?}: {gone}");
        }
        await_members(&mut a, 1);
        await_members(&mut b, 1);
    }
}

/// Sends a packet to the group on loopback.
fn send_to_group(mcast_port: u16, packet: &[u8]) {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).expect("a socket");
    socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).expect("loopback");
    let group = SocketAddr::from((Ipv4Addr::new(228, 0, 0, 4), mcast_port));
    socket.send_to(packet, &group.into()).expect("sent");
}

#[test]
fn malformed_datagrams_are_counted_and_forgotten() {
    let (mut a, mut b, mcast_port) = pair([Ringtribe, Ringtribe], DETECTOR);
    let heartbeat = include_bytes!("../../wire/testdata/tribes/member-heartbeat-min.bin");
    // The length that ends the membership of every stock node: 2^31 - 1 inside a heartbeat.
    let mut lying = heartbeat.to_vec();
    lying[10..14].copy_from_slice(&i32::MAX.to_be_bytes());
    let mut long_host = heartbeat.to_vec();
    long_host[34] = 127;
    for packet in [&lying[..], &long_host, b"noise", b"", &[0xff; 2000], b"FLT2002\x7f\xff\xff\xff"]
    {
        send_to_group(mcast_port, packet);
    }
    // Both still learn of a newcomer, and exchange messages.
    let _c = start("c", Ringtribe, mcast_port, DETECTOR);
    await_members(&mut a, 2);
    await_members(&mut b, 2);
    assert_eq!(a.ask("send size=100 options=6").expect("an answer"), "sent=1 failed=0");
    let statistics = a.ask("engine name=malformed_datagrams_count").expect("an answer");
    assert!(number(&statistics, "malformed_datagrams_count").expect("a number") >= 6);
}
