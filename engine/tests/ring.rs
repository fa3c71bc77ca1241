//! The ring on the real kernel: what the kernel may touch is ours until it lets go.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant as WallInstant};

use bytes::Bytes;
use ringtribe::ids::{Instant, MemberId};
use ringtribe::io::{ConnId, Errno, Evidence, Io, IoEvent, SendBatch};
use ringtribe::ring::{RingIo, RingSettings, Upcalls};

/// Descriptors are counted, so one test at a time.
static ALONE: Mutex<()> = Mutex::new(());
const WITHIN: Duration = Duration::from_secs(60);

struct Nobody;

impl Upcalls for Nobody {
    fn connect(&mut self, _: u16, _: u64, _: SocketAddr, _: u64) {}
    fn hand_over(&mut self, _: u16, _: OwnedFd, _: SocketAddr, _: Vec<u8>) {}
    fn report(&mut self, _: MemberId, _: Evidence) {}
}

/// What an event was, with its bytes copied.
#[derive(Debug)]
enum Seen {
    Bytes(Vec<u8>),
    Ended(Option<Errno>),
    Paused,
    Sent(ConnId, SendBatch, Result<usize, Errno>),
    Closed(ConnId),
    Other,
}

struct Bench {
    io: RingIo,
    started: WallInstant,
}

impl Bench {
    fn new(buffers_count: u16, buffer_bytes: u32) -> Self {
        let started = WallInstant::now();
        let settings = RingSettings::new(0, started, 1).with_buffers(buffers_count, buffer_bytes);
        let io = RingIo::new(&settings, Box::new(Nobody)).expect("this machine has io_uring");
        Self { io, started }
    }

    /// A connection of the ring and its other end.
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
        while let Some(event) = self.io.next_event() {
            seen.push(event.lend(|event| match event {
                IoEvent::Received { bytes, .. } => Seen::Bytes(bytes.to_vec()),
                IoEvent::ReceiveEnded { error, .. } => Seen::Ended(error),
                IoEvent::Paused { .. } => Seen::Paused,
                IoEvent::Sent { conn, batch, result } => Seen::Sent(conn, batch, result),
                IoEvent::Closed { conn } => Seen::Closed(conn),
                _ => Seen::Other,
            }));
            self.io.give_back(event);
        }
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

#[test]
fn everything_arrives_in_order_through_few_small_buffers_and_many_pauses() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bench = Bench::new(4, 1024);
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
                Seen::Bytes(bytes) => {
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
    assert!(bench.io.counters().out_of_buffers_count > 0, "four buffers are too few, and it copes");
    bench.io.shut_down();
}

#[test]
fn a_send_of_more_segments_than_the_kernel_takes_arrives_whole() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bench = Bench::new(4, 4096);
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

#[test]
fn closing_with_operations_in_flight_closes_each_descriptor_once() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bench = Bench::new(8, 4096);
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
    assert!(descriptors_count() < before_count, "the ring's own are closed too");
}
