//! A kernel that does what a script says, and holds the core to the rules of the seam.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};

use ringtribe::ids::{Instant, MemberId};
use ringtribe::io::{ConnId, Errno, Evidence, Io, SendBatch};

/// ECANCELED, which a closed connection gives to its send.
const CANCELED: Errno = Errno(125);
/// What is kept of what was sent on a connection, bytes.
const KEPT_BYTES: usize = 4 << 10;

/// A connection.
#[derive(Debug)]
pub struct Conn {
    /// The worker that has it.
    pub worker: u16,
    /// Who is at its other end.
    pub peer: SocketAddr,
    /// Whether this node accepted it.
    pub accepted: bool,
    /// Bytes may come.
    pub armed: bool,
    /// To be reported.
    pausing: bool,
    /// The peer has ended, or it broke.
    pub ended: bool,
    /// Its own side has ended.
    shut: bool,
    sending: Option<SendBatch>,
    /// Nothing of it is sent before the script says so.
    pub stuck: bool,
    /// The core has closed it.
    pub closing: bool,
    /// What was sent last.
    pub sent: Vec<u8>,
    /// Number of the next frame of the own format that the script sends.
    pub next_sequence: u64,
}

/// What the kernel reports.
#[derive(Debug)]
#[allow(missing_docs, reason = "as the events of the seam")]
pub enum Report {
    Paused(ConnId),
    Sent(ConnId, SendBatch, Result<usize, Errno>),
    Closed(ConnId),
    HandedOver { conn: ConnId, peer: SocketAddr, read: Vec<u8> },
}

/// A connection that a worker asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Who asked.
    pub worker: u16,
    /// Number of the request.
    pub request: u64,
    /// Where to.
    pub address: SocketAddr,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Kernel {
    /// Nanoseconds.
    pub now: u64,
    random: u64,
    /// Those that are not closed.
    pub conns: BTreeMap<ConnId, Conn>,
    /// Connections that were asked for and are neither there nor refused.
    pub asked: VecDeque<Asked>,
    /// What workers noticed of members.
    pub evidence: Vec<(MemberId, Evidence)>,
    reports: VecDeque<(u16, Report)>,
    next_slot: u32,
}

impl Kernel {
    /// Without connections, at that time.
    #[must_use]
    pub fn at(now: u64) -> Self {
        Self { now, ..Self::default() }
    }

    /// A new connection.
    pub fn open(&mut self, worker: u16, peer: SocketAddr, accepted: bool) -> ConnId {
        let conn = ConnId { slot: self.next_slot, generation: 1 };
        self.next_slot += 1;
        let new = Conn {
            worker,
            peer,
            accepted,
            armed: false,
            pausing: false,
            ended: false,
            shut: false,
            sending: None,
            stuck: false,
            closing: false,
            sent: Vec::new(),
            next_sequence: 1,
        };
        self.conns.insert(conn, new);
        conn
    }

    /// A stranger's address.
    #[must_use]
    pub fn stranger(&self) -> SocketAddr {
        let number = u16::try_from(self.next_slot % 10_000).unwrap_or(0);
        SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000 + number))
    }

    /// Connections that peers opened and that are not being closed.
    #[must_use]
    pub fn accepted_count(&self) -> usize {
        self.conns.values().filter(|conn| conn.accepted && !conn.closing).count()
    }

    /// The next thing that happened, and to which worker.
    pub fn next_report(&mut self) -> Option<(u16, Report)> {
        let (worker, report) = self.reports.pop_front()?;
        match &report {
            Report::Paused(conn) => {
                let Some(found) = self.conns.get_mut(conn) else { return self.next_report() };
                if found.closing || !std::mem::take(&mut found.pausing) {
                    return self.next_report();
                }
                found.armed = false;
            }
            Report::Closed(conn) => drop(self.conns.remove(conn)),
            Report::Sent(..) | Report::HandedOver { .. } => {}
        }
        Some((worker, report))
    }

    /// Takes `bytes` (at least one, at most all) of the send in flight, or breaks it.
    pub fn progress(&mut self, conn: ConnId, bytes: usize, broken: Option<Errno>) {
        let Some(found) = self.conns.get_mut(&conn) else { return };
        let Some(batch) = found.sending.take() else { return };
        let result = broken.map_or_else(|| Ok(bytes.clamp(1, batch.remaining_bytes())), Err);
        let mut left_bytes = result.unwrap_or(0);
        let mut skip_bytes = batch.skip_bytes;
        for segment in &batch.segments {
            let segment = &segment.as_slice()[skip_bytes..];
            skip_bytes = 0;
            let taken = &segment[..segment.len().min(left_bytes)];
            left_bytes -= taken.len();
            found.sent.extend_from_slice(taken);
            let more_bytes = found.sent.len().saturating_sub(KEPT_BYTES);
            found.sent.drain(..more_bytes);
        }
        self.reports.push_back((found.worker, Report::Sent(conn, batch, result)));
    }

    /// What is not stuck is sent. Returns whether anything was.
    pub fn send_all(&mut self) -> bool {
        let ready = |(conn, found): (&ConnId, &Conn)| {
            (!found.stuck && found.sending.is_some()).then_some(*conn)
        };
        let conns: Vec<ConnId> = self.conns.iter().filter_map(ready).collect();
        conns.iter().for_each(|conn| self.progress(*conn, usize::MAX, None));
        !conns.is_empty()
    }
}

/// The kernel as one worker sees it.
#[derive(Debug)]
pub struct View<'a> {
    /// The whole.
    pub kernel: &'a mut Kernel,
    /// Whose view it is.
    pub worker: u16,
}

impl View<'_> {
    fn own(&mut self, conn: ConnId) -> &mut Conn {
        let found = self.kernel.conns.get_mut(&conn).expect("a connection that is there");
        assert_eq!(found.worker, self.worker, "a connection of another worker");
        found
    }
}

impl Io for View<'_> {
    fn now(&self) -> Instant {
        Instant(self.kernel.now)
    }

    fn random(&mut self) -> u64 {
        self.kernel.random = self.kernel.random.wrapping_mul(6_364_136_223_846_793_005) + 1;
        self.kernel.random >> 11
    }

    fn connect(&mut self, request: u64, address: SocketAddr, _timeout_ms: u64) {
        let worker = self.worker;
        self.kernel.asked.push_back(Asked { worker, request, address });
    }

    fn arm_receive(&mut self, conn: ConnId) {
        let found = self.own(conn);
        assert!(!found.closing, "a closed connection is armed");
        assert!(!found.armed, "a connection is armed twice");
        found.armed = true;
    }

    fn pause_receive(&mut self, conn: ConnId) {
        let found = self.own(conn);
        if !found.closing && !found.ended {
            found.pausing = true;
            self.kernel.reports.push_back((self.worker, Report::Paused(conn)));
        }
    }

    fn send(&mut self, conn: ConnId, batch: SendBatch) {
        let found = self.own(conn);
        assert!(!found.closing && !found.shut, "a send on a closed connection");
        assert!(found.sending.is_none(), "two sends in flight on one connection");
        assert!(batch.remaining_bytes() > 0, "a send of nothing");
        found.sending = Some(batch);
    }

    fn shut_down_write(&mut self, conn: ConnId) {
        let found = self.own(conn);
        assert!(found.sending.is_none(), "shut down while a send is in flight");
        found.shut = true;
    }

    fn hand_over(&mut self, conn: ConnId, worker: u16, peer: SocketAddr, read: Vec<u8>) {
        let found = self.own(conn);
        assert!(!found.armed && found.sending.is_none(), "handed over with something in flight");
        assert!(!found.closing && found.peer == peer);
        found.worker = worker;
        self.kernel.reports.push_back((worker, Report::HandedOver { conn, peer, read }));
    }

    fn close(&mut self, conn: ConnId, _reset: bool) {
        let Some(found) = self.kernel.conns.get_mut(&conn) else { return };
        assert_eq!(found.worker, self.worker, "a connection of another worker");
        if std::mem::replace(&mut found.closing, true) {
            return;
        }
        found.armed = false;
        if let Some(batch) = found.sending.take() {
            self.kernel.reports.push_back((self.worker, Report::Sent(conn, batch, Err(CANCELED))));
        }
        self.kernel.reports.push_back((self.worker, Report::Closed(conn)));
    }

    fn report(&mut self, member: MemberId, evidence: Evidence) {
        self.kernel.evidence.push((member, evidence));
    }
}
