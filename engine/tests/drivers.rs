//! Each backend on the real kernel, by the same tests: what the kernel may touch is ours until it
//! lets go, everything comes once, and nobody is forgotten.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant as WallInstant};

use bytes::Bytes;
use ringtribe::epoll::EpollIo;
use ringtribe::ids::{Instant, MemberId};
use ringtribe::io::{ConnId, Errno, Evidence, IoEvent, SendBatch};
use ringtribe::ring::RingIo;
use ringtribe::worker::{Driver, DriverSettings, Upcalls};

/// Descriptors are counted, so one test at a time.
static ALONE: Mutex<()> = Mutex::new(());
const WITHIN: Duration = Duration::from_secs(60);

/// A driver that can be made for a test.
trait Made: Driver {
    fn made(settings: DriverSettings, upcalls: Box<dyn Upcalls>) -> Self;
    /// Receives that found no buffer; `None` where there are no buffers to run out of.
    fn out_of_buffers_count(&self) -> Option<u64>;
}

impl Made for RingIo {
    fn made(settings: DriverSettings, upcalls: Box<dyn Upcalls>) -> Self {
        Self::new(settings, upcalls).expect("this machine has io_uring")
    }
    fn out_of_buffers_count(&self) -> Option<u64> {
        Some(self.counters().out_of_buffers_count)
    }
}

impl Made for EpollIo {
    fn made(settings: DriverSettings, upcalls: Box<dyn Upcalls>) -> Self {
        Self::new(settings, upcalls).expect("descriptors are left")
    }
    fn out_of_buffers_count(&self) -> Option<u64> {
        None
    }
}

/// Takes the connections that are handed over, as another worker would.
struct Neighbour(mpsc::Sender<(OwnedFd, Vec<u8>)>);

impl Upcalls for Neighbour {
    fn connect(&mut self, _: u16, _: u64, _: SocketAddr, _: u64) {}
    fn hand_over(&mut self, _: u16, fd: OwnedFd, _: SocketAddr, read: Vec<u8>) {
        self.0.send((fd, read)).expect("the test runs");
    }
    fn report(&mut self, _: MemberId, _: Evidence) {}
}

/// What an event was, with its bytes copied.
#[derive(Debug)]
enum Seen {
    Bytes(ConnId, Vec<u8>),
    Ended(Option<Errno>),
    Paused,
    Sent(ConnId, SendBatch, Result<usize, Errno>),
    Closed(ConnId),
    Other,
}

struct Bench<D> {
    io: D,
    started: WallInstant,
    handed_over: mpsc::Receiver<(OwnedFd, Vec<u8>)>,
}

impl<D: Made> Bench<D> {
    fn new(buffers_count: u16, buffer_bytes: u32) -> Self {
        let started = WallInstant::now();
        let settings = DriverSettings::new(0, started, 1).with_buffers(buffers_count, buffer_bytes);
        let (hand, handed_over) = mpsc::channel();
        Self { io: D::made(settings, Box::new(Neighbour(hand))), started, handed_over }
    }

    /// A connection of the driver and its other end.
    fn connect(&mut self) -> (ConnId, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let there = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (here, _) = listener.accept().expect("a connection");
        (self.io.adopt(OwnedFd::from(here)), there)
    }

    /// The events of one turn.
    fn turn(&mut self) -> Vec<Seen> {
        let now = u64::try_from(self.started.elapsed().as_nanos()).expect("soon");
        self.io.turn(Some(Instant(now).plus_ms(50)));
        let mut seen = Vec::new();
        self.io.deliver(|event, _| {
            seen.push(match event {
                IoEvent::Received { conn, bytes } => Seen::Bytes(conn, bytes.to_vec()),
                IoEvent::ReceiveEnded { error, .. } => Seen::Ended(error),
                IoEvent::Paused { .. } => Seen::Paused,
                IoEvent::Sent { conn, batch, result } => Seen::Sent(conn, batch, result),
                IoEvent::Closed { conn } => Seen::Closed(conn),
                _ => Seen::Other,
            });
        });
        seen
    }

    fn turn_until(&mut self, what: &str, mut done: impl FnMut(&mut Self, Vec<Seen>) -> bool) {
        let until = WallInstant::now() + WITHIN;
        loop {
            let seen = self.turn();
            if done(self, seen) {
                return;
            }
            assert!(WallInstant::now() < until, "{what}");
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + n / 251).to_le_bytes()[0]).collect()
}

fn descriptors_count() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs").count()
}

fn everything_arrives_in_order_through_few_small_buffers_and_many_pauses<D: Made>() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bench = Bench::<D>::new(4, 1024);
    let (conn, mut there) = bench.connect();
    let expected = pattern(8 << 20);
    let to_write = expected.clone();
    let writer = std::thread::spawn(move || {
        there.write_all(&to_write).expect("it reads");
    });
    bench.io.arm_receive(conn);
    let (mut got, mut paused_count, mut next_pause) = (Vec::new(), 0, 100_000);
    let mut ended = None;
    bench.turn_until("all arrived", |bench, seen| {
        for event in seen {
            match event {
                Seen::Bytes(_, bytes) => {
                    got.extend_from_slice(&bytes);
                    if got.len() > next_pause {
                        next_pause += 100_000;
                        bench.io.pause_receive(conn);
                    }
                }
                Seen::Paused => {
                    paused_count += 1;
                    bench.io.arm_receive(conn);
                }
                Seen::Ended(error) => ended = Some(error),
                _ => {}
            }
        }
        ended.is_some()
    });
    writer.join().expect("no panic");
    assert_eq!(ended, Some(None), "an orderly end");
    assert!(got == expected, "{} bytes", got.len());
    assert!(paused_count > 20, "{paused_count}");
    let out_of_buffers_count = bench.io.out_of_buffers_count();
    assert_ne!(out_of_buffers_count, Some(0), "four buffers are too few, and it copes");
    bench.io.shut_down();
}

fn a_send_of_more_segments_than_the_kernel_takes_arrives_whole<D: Made>() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bench = Bench::<D>::new(4, 4096);
    let (conn, mut there) = bench.connect();
    let expected = pattern(5_000_000);
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; 5_000_000];
        there.read_exact(&mut got).expect("all of it");
        got
    });
    // 5,000 segments: IOV_MAX is 1,024, and no socket buffer holds them all.
    let segments = expected.chunks(1000).map(|part| Bytes::copy_from_slice(part).into()).collect();
    bench.io.send(conn, SendBatch { segments, skip_bytes: 0 });
    let mut sends_count = 0;
    bench.turn_until("all sent", |bench, seen| {
        for event in seen {
            if let Seen::Sent(conn, mut batch, result) = event {
                sends_count += 1;
                if !batch.advance(result.expect("it reads")) {
                    return true;
                }
                bench.io.send(conn, batch);
            }
        }
        false
    });
    assert!(sends_count >= 5, "{sends_count}");
    assert!(reader.join().expect("no panic") == expected);
    bench.io.shut_down();
}

fn closing_with_operations_in_flight_closes_each_descriptor_once<D: Made>() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bench = Bench::<D>::new(8, 4096);
    let _ = bench.turn();
    let before_count = descriptors_count();
    let big = Bytes::from(pattern(20_000_000));
    for round in 0..300 {
        let (conn, there) = bench.connect();
        bench.io.arm_receive(conn);
        // More than the socket takes: the rest stays in flight, since nobody reads.
        let segments = vec![big.clone().into()];
        bench.io.send(conn, SendBatch { segments, skip_bytes: 0 });
        let mut batch = None;
        bench.turn_until("a part is sent", |_, seen| {
            for event in seen {
                if let Seen::Sent(_, mut sent, Ok(bytes)) = event {
                    assert!(sent.advance(bytes));
                    batch = Some(sent);
                }
            }
            batch.is_some()
        });
        bench.io.send(conn, batch.expect("the rest"));
        if round % 3 == 0 {
            drop(there);
            bench.io.close(conn, round % 2 == 0);
        } else {
            bench.io.close(conn, round % 2 == 0);
            drop(there);
        }
        let (mut sent_count, mut closed_count) = (0, 0);
        bench.turn_until("it closes", |_, seen| {
            for event in seen {
                match event {
                    Seen::Sent(..) => {
                        assert_eq!(closed_count, 0, "the segments come back before the end");
                        sent_count += 1;
                    }
                    Seen::Closed(closed) => {
                        assert_eq!(closed, conn);
                        closed_count += 1;
                    }
                    Seen::Bytes(..) | Seen::Ended(..) => panic!("nothing else comes after close"),
                    _ => {}
                }
            }
            closed_count > 0
        });
        assert_eq!((sent_count, closed_count), (1, 1));
    }
    assert_eq!(descriptors_count(), before_count);
    bench.io.shut_down();
    assert!(descriptors_count() < before_count, "the driver's own are closed too");
}

/// Bytes that `bench` receives on `conn` until its end; its end is orderly.
fn received_to_the_end<D: Made>(bench: &mut Bench<D>, conn: ConnId) -> Vec<u8> {
    let mut got = Vec::new();
    bench.turn_until("the end", |_, seen| {
        for event in seen {
            match event {
                Seen::Bytes(on, bytes) if on == conn => got.extend(bytes),
                Seen::Ended(error) => {
                    assert_eq!(error, None);
                    return true;
                }
                _ => {}
            }
        }
        false
    });
    got
}

/// Writes until nothing more goes in; returns how much did.
fn fill(there: &mut TcpStream) -> usize {
    there.set_nonblocking(true).expect("a socket");
    let block = pattern(4096);
    let mut written_bytes = 0;
    while let Ok(more_bytes) = there.write(&block) {
        written_bytes += more_bytes;
    }
    there.set_nonblocking(false).expect("a socket");
    written_bytes
}

fn what_waits_is_received_whole_without_another_word<D: Made>() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bench = Bench::<D>::new(4, 1024);
    let (conn, mut there) = bench.connect();
    // More than one turn takes, and known to the driver before anybody asks.
    there.write_all(&pattern(60_000)).expect("room");
    let _ = bench.turn();
    bench.io.arm_receive(conn);
    let mut got = Vec::new();
    bench.turn_until("all that waits", |_, seen| {
        for event in seen {
            if let Seen::Bytes(_, bytes) = event {
                got.extend(bytes);
            }
        }
        got.len() == 60_000
    });
    assert!(got == pattern(60_000));
    bench.io.shut_down();
}

fn a_flood_on_one_connection_does_not_starve_another<D: Made>() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bench = Bench::<D>::new(16, 4096);
    let (flooded, mut flood) = bench.connect();
    let (calm, mut call) = bench.connect();
    assert!(fill(&mut flood) > 100_000);
    let flood_end = flood.try_clone().expect("a descriptor");
    let writer = std::thread::spawn(move || {
        let block = pattern(1 << 20);
        while flood.write_all(&block).is_ok() {}
    });
    bench.io.arm_receive(flooded);
    bench.io.arm_receive(calm);
    for number in 0..200_u8 {
        call.write_all(&[number]).expect("it reads");
        let mut turns_count = 0;
        let mut flood_bytes = 0;
        let mut answered = false;
        while !answered {
            turns_count += 1;
            assert!(turns_count <= 20, "byte {number} waits behind {flood_bytes} others");
            let before_bytes = flood_bytes;
            for event in bench.turn() {
                match event {
                    Seen::Bytes(conn, bytes) if conn == calm => {
                        assert_eq!(bytes, [number]);
                        answered = true;
                    }
                    Seen::Bytes(_, bytes) => flood_bytes += bytes.len(),
                    other => panic!("{other:?}"),
                }
            }
            assert!(flood_bytes - before_bytes <= 16 * 4096, "a turn is bounded");
        }
    }
    flood_end.shutdown(std::net::Shutdown::Both).expect("it is open");
    writer.join().expect("no panic");
    bench.io.shut_down();
}

fn urgent_bytes_and_an_early_end_hide_nothing<D: Made>() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bench = Bench::<D>::new(8, 4096);
    let (conn, mut there) = bench.connect();
    bench.io.arm_receive(conn);
    for _ in 0..20 {
        // A read stops at the place of an urgent byte, which itself is not part of the stream.
        there.write_all(&pattern(1000)).expect("room");
        socket2::SockRef::from(&there).send_out_of_band(&[0xee]).expect("room");
        there.write_all(&pattern(500)).expect("room");
        let mut got = Vec::new();
        bench.turn_until("what stands behind the urgent byte", |_, seen| {
            for event in seen {
                if let Seen::Bytes(_, bytes) = event {
                    got.extend(bytes);
                }
            }
            got.len() >= 1500
        });
        assert!(got == [pattern(1000), pattern(500)].concat(), "{} bytes", got.len());
    }
    // What comes with the end is here, and known to the driver, before anybody asks.
    let (conn, mut there) = bench.connect();
    there.write_all(&pattern(10_000)).expect("room");
    drop(there);
    let _ = bench.turn();
    bench.io.arm_receive(conn);
    assert!(received_to_the_end(&mut bench, conn) == pattern(10_000));
    bench.io.shut_down();
}

fn a_connection_changes_its_worker_without_losing_a_byte<D: Made>() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut first = Bench::<D>::new(8, 4096);
    let mut second = Bench::<D>::new(8, 4096);
    let (conn, mut there) = first.connect();
    first.io.arm_receive(conn);
    there.write_all(b"hello").expect("room");
    let mut read = Vec::new();
    first.turn_until("the first bytes", |_, seen| {
        for event in seen {
            if let Seen::Bytes(_, bytes) = event {
                read.extend(bytes);
            }
        }
        read.len() == 5
    });
    first.io.pause_receive(conn);
    first.turn_until("it pauses", |_, seen| seen.iter().any(|event| matches!(event, Seen::Paused)));
    there.write_all(b", wor").expect("room");
    let peer = there.local_addr().expect("bound");
    first.io.hand_over(conn, 1, peer, read);
    let (fd, mut got) = first.handed_over.try_recv().expect("at once");
    let moved = second.io.adopt(fd);
    there.write_all(b"ld").expect("room");
    // The first one hears nothing of it any more, nor does it end it.
    assert!(first.turn().is_empty());
    first.io.close(conn, true);
    second.io.arm_receive(moved);
    // Our side ends, the peer's goes on until it has seen that.
    second.io.shut_down_write(moved);
    assert_eq!(there.read(&mut [0; 8]).expect("an end"), 0);
    there.write_all(b"!").expect("our reading side is open");
    drop(there);
    got.extend(received_to_the_end(&mut second, moved));
    assert_eq!(String::from_utf8_lossy(&got), "hello, world!");
    assert!(first.turn().is_empty());
    first.io.shut_down();
    second.io.shut_down();
}

fn the_doorbell_rings_before_and_while_it_sleeps<D: Made>() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bench = Bench::<D>::new(8, 4096);
    let bell = bench.io.doorbell();
    let far = Some(Instant(u64::MAX));
    bench.io.turn(Some(Instant(0)));
    for round in 0..200 {
        let clock = WallInstant::now();
        if round % 2 == 0 {
            bell();
            bell();
            bench.io.turn(far);
        } else {
            std::thread::scope(|scope| {
                scope.spawn(&bell);
                bench.io.turn(far);
            });
        }
        assert!(clock.elapsed() < WITHIN);
        // Rung twice, it may wake twice; then it sleeps again.
        let mut early_count = 0;
        loop {
            let clock = WallInstant::now();
            let now = u64::try_from(bench.started.elapsed().as_nanos()).expect("soon");
            bench.io.turn(Some(Instant(now).plus_ms(5)));
            if clock.elapsed() >= Duration::from_millis(4) {
                break;
            }
            early_count += 1;
            assert!(early_count < 4, "it does not sleep any more");
        }
    }
    bench.io.shut_down();
    // Nobody is there, and it does not matter.
    bell();
}

/// Every test on every backend.
macro_rules! on_each_backend {
    ($($name:ident,)*) => {
        mod ring {
            $(#[test] fn $name() { super::$name::<super::RingIo>(); })*
        }
        mod epoll {
            $(#[test] fn $name() { super::$name::<super::EpollIo>(); })*
        }
    };
}

on_each_backend! {
    everything_arrives_in_order_through_few_small_buffers_and_many_pauses,
    a_send_of_more_segments_than_the_kernel_takes_arrives_whole,
    closing_with_operations_in_flight_closes_each_descriptor_once,
    what_waits_is_received_whole_without_another_word,
    a_flood_on_one_connection_does_not_starve_another,
    urgent_bytes_and_an_early_end_hide_nothing,
    a_connection_changes_its_worker_without_losing_a_byte,
    the_doorbell_rings_before_and_while_it_sleeps,
}
