//! The seam on the ring.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::buffers::{Buffers, GROUP, Lent};
use super::connections::{Conn, SendOp, Wanted};
use super::setup::{RingError, make};
use crate::gauges::Held;
use crate::ids::{Instant, MemberId};
use crate::io::{ConnId, Errno, Evidence, Io, IoEvent, QUIET_MS, SendBatch};
use crate::worker::{Driver, DriverSettings, GENERATION_MASK, Table, Upcalls};

/// An event of the ring, with what it holds of the ring.
#[derive(Debug)]
enum OwnedEvent {
    /// As [`IoEvent::Received`].
    Received {
        /// Where.
        conn: ConnId,
        /// What.
        lent: Lent,
    },
    /// As [`IoEvent::ReceiveEnded`].
    ReceiveEnded {
        /// Where.
        conn: ConnId,
        /// Why.
        error: Option<Errno>,
    },
    /// As [`IoEvent::Paused`].
    Paused {
        /// Where.
        conn: ConnId,
    },
    /// As [`IoEvent::Sent`]; the batch leaves with [`OwnedEvent::lend`].
    Sent {
        /// Where.
        conn: ConnId,
        /// What was sent.
        batch: std::cell::RefCell<Option<SendBatch>>,
        /// How much.
        result: Result<usize, Errno>,
    },
    /// As [`IoEvent::Closed`].
    Closed {
        /// Which.
        conn: ConnId,
    },
}

impl OwnedEvent {
    /// Shows the event to `look`; once.
    fn lend<R>(&self, look: impl FnOnce(IoEvent<'_>) -> R) -> R {
        look(match self {
            Self::Received { conn, lent } => {
                IoEvent::Received { conn: *conn, bytes: lent.as_slice() }
            }
            Self::ReceiveEnded { conn, error } => {
                IoEvent::ReceiveEnded { conn: *conn, error: *error }
            }
            Self::Paused { conn } => IoEvent::Paused { conn: *conn },
            Self::Sent { conn, batch, result } => IoEvent::Sent {
                conn: *conn,
                batch: batch.take().unwrap_or_default(),
                result: *result,
            },
            Self::Closed { conn } => IoEvent::Closed { conn: *conn },
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bell = 0,
    Receive = 1,
    Send = 2,
    Cancel = 3,
}

fn tag(kind: Kind, conn: ConnId) -> u64 {
    (kind as u64) << 56 | u64::from(conn.generation) << 32 | u64::from(conn.slot)
}

const NO_CONN: ConnId = ConnId { slot: 0, generation: 0 };

#[allow(clippy::cast_possible_truncation, reason = "the parts are cut out on purpose")]
fn untag(tag: u64) -> (Option<Kind>, ConnId) {
    let kind = match tag >> 56 {
        0 => Some(Kind::Bell),
        1 => Some(Kind::Receive),
        2 => Some(Kind::Send),
        3 => Some(Kind::Cancel),
        _ => None,
    };
    let generation = (tag >> 32) as u32 & GENERATION_MASK;
    (kind, ConnId { slot: tag as u32, generation })
}

/// Memory of sends that have ended, kept for the next ones.
const SPARE_SENDS_COUNT: usize = 64;

/// A send of so much may have been cut at a limit of its lane: the rest waits for its end.
const QUIET_LIMIT_BYTES: usize = 32 << 10;

/// What a ring counts; plain numbers, of one thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct RingCounters {
    /// io_uring_enter calls.
    pub enters_count: u64,
    /// Receives that found no buffer.
    pub out_of_buffers_count: u64,
    /// Completions of a connection that is gone.
    pub stale_completions_count: u64,
}

/// One worker's ring. Lives and dies on the thread that made it.
pub struct RingIo {
    // Dropped before the memory below that the kernel may touch.
    ring: IoUring,
    connections: Table<Conn>,
    buffers: Buffers,
    bell: Arc<EventFd>,
    bell_value: Box<[u8; 8]>,
    bell_armed: bool,
    events: VecDeque<OwnedEvent>,
    starved: Vec<ConnId>,
    completions: Vec<cqueue::Entry>,
    /// Operations whose last completion has not come.
    in_flight_count: usize,
    /// Sends since the last turn whose end alone is no reason to wake up.
    quiet_sends_count: usize,
    #[allow(clippy::vec_box, reason = "the header stays where the kernel reads it")]
    spare_sends: Vec<Box<SendOp>>,
    upcalls: Box<dyn Upcalls>,
    features: String,
    settings: DriverSettings,
    now: Instant,
    counters: RingCounters,
}

impl std::fmt::Debug for RingIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingIo").field("worker", &self.settings.worker).finish_non_exhaustive()
    }
}

impl RingIo {
    /// Makes the ring of a worker, on its thread.
    ///
    /// # Errors
    /// io_uring is refused, too old, or the machine is out of something; the text has the remedy.
    pub fn new(settings: DriverSettings, upcalls: Box<dyn Upcalls>) -> Result<Self, RingError> {
        let (ring, features) = make()?;
        let buffers = Buffers::register(&ring, settings.buffers_count, settings.buffer_bytes)?;
        let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC)
            .map_err(|errno| RingError::System { doing: "eventfd", error: errno.into() })?;
        Ok(Self {
            ring,
            connections: Table::default(),
            buffers,
            bell: Arc::new(bell),
            bell_value: Box::new([0; 8]),
            bell_armed: false,
            events: VecDeque::new(),
            starved: Vec::new(),
            completions: Vec::new(),
            in_flight_count: 0,
            quiet_sends_count: 0,
            spare_sends: Vec::new(),
            upcalls,
            features,
            settings,
            now: Instant(0),
            counters: RingCounters::default(),
        })
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> RingCounters {
        self.counters
    }

    fn submit(&mut self, entry: &squeue::Entry) {
        self.in_flight_count += 1;
        // SAFETY: every entry is built in this file. Sends point into a box that its slot owns
        // until the final completion, receives use registered buffers, the bell's read points to
        // `bell_value`, which outlives the ring.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            // The queue is full: hand it to the kernel.
            self.counters.enters_count += 1;
            if self.ring.submit().is_err() {
                // Out of memory for the moment; completions free some.
                self.reap();
            }
        }
    }

    fn arm_bell(&mut self) {
        if !self.bell_armed {
            self.bell_armed = true;
            let entry = opcode::Read::new(
                Fd(std::os::fd::AsFd::as_fd(&*self.bell).as_raw_fd()),
                self.bell_value.as_mut_ptr(),
                8,
            )
            .build()
            .user_data(tag(Kind::Bell, NO_CONN));
            self.submit(&entry);
        }
    }

    fn submit_receive(&mut self, id: ConnId) {
        let Some(conn) = self.connections.get(id) else { return };
        conn.receiving = true;
        conn.fed = false;
        let entry =
            opcode::RecvMulti::new(Fd(conn.raw()), GROUP).build().user_data(tag(Kind::Receive, id));
        self.submit(&entry);
    }

    fn submit_cancel(&mut self, kind: Kind, id: ConnId) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(tag(kind, id)))
            .build()
            .user_data(tag(Kind::Cancel, id));
        self.submit(&entry);
    }

    fn reap(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        completions.extend(self.ring.completion());
        for completion in completions.drain(..) {
            self.completed(&completion);
        }
        self.completions = completions;
    }

    fn completed(&mut self, completion: &cqueue::Entry) {
        let (kind, id) = untag(completion.user_data());
        self.in_flight_count -= usize::from(!cqueue::more(completion.flags()));
        match kind {
            Some(Kind::Bell) => self.bell_armed = false,
            Some(Kind::Receive) => self.received(id, completion),
            Some(Kind::Send) => self.sent(id, completion.result()),
            Some(Kind::Cancel) | None => {}
        }
    }

    fn received(&mut self, id: ConnId, completion: &cqueue::Entry) {
        let result = completion.result();
        let lent = cqueue::buffer_select(completion.flags())
            .map(|buffer| self.buffers.lend(buffer, usize::try_from(result).unwrap_or(0)));
        let more = cqueue::more(completion.flags());
        let Some(conn) = self.connections.get(id) else {
            self.counters.stale_completions_count += 1;
            if let Some(lent) = lent {
                self.buffers.give_back(lent);
            }
            return;
        };
        conn.receiving = more;
        let closing = conn.closing;
        match (result, lent) {
            (1.., Some(lent)) if !closing => {
                conn.fed = true;
                self.events.push_back(OwnedEvent::Received { conn: id, lent });
            }
            (1.., Some(lent)) => self.buffers.give_back(lent),
            (_, lent) => {
                if let Some(lent) = lent {
                    self.buffers.give_back(lent);
                }
                let error = Errno(-result);
                let transient = [nix::libc::ENOBUFS, nix::libc::ECANCELED, nix::libc::EINTR];
                if transient.contains(&error.0) {
                    self.counters.out_of_buffers_count += u64::from(error.0 == nix::libc::ENOBUFS);
                } else if !closing && !conn.receive_ended {
                    conn.receive_ended = true;
                    conn.wanted = Wanted::No;
                    let error = (result != 0).then_some(error);
                    self.events.push_back(OwnedEvent::ReceiveEnded { conn: id, error });
                }
            }
        }
        if more {
            return;
        }
        let Some(conn) = self.connections.get(id) else { return };
        if conn.closing {
            self.finish_close(id);
        } else if conn.wanted == Wanted::Pausing {
            conn.wanted = Wanted::No;
            self.events.push_back(OwnedEvent::Paused { conn: id });
        } else if conn.wanted == Wanted::Yes {
            self.starved.push(id);
        }
    }

    fn sent(&mut self, id: ConnId, result: i32) {
        let Some(mut op) = self.connections.get(id).and_then(|conn| conn.send.take()) else {
            self.counters.stale_completions_count += 1;
            return;
        };
        let result = match usize::try_from(result) {
            Ok(0) => Err(Errno(nix::libc::EPIPE)),
            Ok(sent_bytes) => Ok(sent_bytes),
            Err(_) => Err(Errno(-result)),
        };
        let batch = std::cell::RefCell::new(Some(std::mem::take(&mut op.batch)));
        if self.spare_sends.len() < SPARE_SENDS_COUNT {
            self.spare_sends.push(op);
        }
        self.events.push_back(OwnedEvent::Sent { conn: id, batch, result });
        if self.connections.get(id).is_some_and(|conn| conn.closing) {
            self.finish_close(id);
        }
    }

    fn finish_close(&mut self, id: ConnId) {
        if self.connections.get(id).is_some_and(|conn| conn.is_quiet()) {
            // Dropping the descriptor closes it.
            drop(self.connections.remove(id));
            self.events.push_back(OwnedEvent::Closed { conn: id });
        }
    }
}

impl Driver for RingIo {
    fn adopt(&mut self, fd: OwnedFd) -> ConnId {
        let socket = socket2::SockRef::from(&fd);
        // A socket that refuses these options still works.
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_nonblocking(false);
        self.connections.insert(Conn::new(fd))
    }

    fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// One system call: submits what was asked for and sleeps until something completes, the
    /// doorbell rings, or `until`.
    fn turn(&mut self, until: Option<Instant>) {
        self.arm_bell();
        let mut starved = std::mem::take(&mut self.starved);
        // Who got nothing comes first, or one that is flooded would take all buffers again.
        starved.sort_by_key(|id| self.connections.get(*id).is_some_and(|conn| conn.fed));
        for id in starved {
            let wanted = self
                .connections
                .get(id)
                .is_some_and(|c| c.wanted == Wanted::Yes && !c.receiving && !c.closing);
            if wanted {
                self.submit_receive(id);
            }
        }
        self.now = self.settings.now();
        let mut wait = until.map(|until| Duration::from_nanos(until.0.saturating_sub(self.now.0)));
        let mut wanted_count = 1;
        let quiet_count = std::mem::take(&mut self.quiet_sends_count);
        if quiet_count > 0 && wait != Some(Duration::ZERO) {
            // Most sends end as they are submitted. Without this each would cost a turn of its own.
            wanted_count += quiet_count;
            let most = Duration::from_millis(QUIET_MS);
            wait = Some(wait.map_or(most, |wait| wait.min(most)));
        }
        self.counters.enters_count += 1;
        let timespec;
        let mut args = SubmitArgs::new();
        if let Some(wait) = wait {
            timespec = Timespec::from(wait);
            args = args.timespec(&timespec);
        }
        // Errors are a timeout, a signal, or a full completion queue: all mean "look now".
        let _ = self.ring.submitter().submit_with_args(wanted_count, &args);
        self.now = self.settings.now();
        self.reap();
    }

    fn deliver(&mut self, mut take: impl FnMut(IoEvent<'_>, &mut Self)) {
        while let Some(event) = self.events.pop_front() {
            // A process may be stopped between two events, and has to notice before the next.
            self.now = self.settings.now();
            event.lend(|event| take(event, self));
            if let OwnedEvent::Received { lent, .. } = event {
                self.buffers.give_back(lent);
            }
        }
    }

    fn doorbell(&self) -> Box<dyn Fn() + Send + Sync> {
        let bell = Arc::clone(&self.bell);
        Box::new(move || {
            // The counter cannot overflow: it is read at every wake-up.
            let _ = bell.write(1);
        })
    }

    fn calls_count(&self) -> u64 {
        self.counters.enters_count
    }

    fn held(&self) -> Held {
        Held {
            connections_count: self.connections.len(),
            // The doorbell aside: it is armed again only after this is looked at.
            operations_count: self.in_flight_count - usize::from(self.bell_armed),
            buffers_count: self.buffers.lent_count(),
        }
    }

    fn features(&self) -> String {
        self.features.clone()
    }

    /// If the kernel does not let go in time the memory is leaked: better than a write into memory
    /// that is somebody else's by then.
    fn shut_down(mut self) {
        for id in self.connections.ids() {
            self.close(id, true);
        }
        let cancel_bell = opcode::AsyncCancel::new(tag(Kind::Bell, NO_CONN))
            .build()
            .user_data(tag(Kind::Cancel, NO_CONN));
        if self.bell_armed {
            self.submit(&cancel_bell);
        }
        for _ in 0..200 {
            if !self.bell_armed && self.connections.ids().is_empty() {
                return;
            }
            let timespec = Timespec::from(Duration::from_millis(10));
            let args = SubmitArgs::new().timespec(&timespec);
            let _ = self.ring.submitter().submit_with_args(1, &args);
            self.reap();
            self.deliver(|_, _| ());
        }
        std::mem::forget(self);
    }
}

impl Io for RingIo {
    fn now(&self) -> Instant {
        self.now
    }

    fn random(&mut self) -> u64 {
        self.settings.random()
    }

    fn connect(&mut self, request: u64, address: SocketAddr, timeout_ms: u64) {
        self.upcalls.connect(self.settings.worker, request, address, timeout_ms);
    }

    fn arm_receive(&mut self, id: ConnId) {
        let Some(conn) = self.connections.get(id) else { return };
        if conn.closing || conn.receive_ended {
            return;
        }
        let cancelling = conn.wanted == Wanted::Pausing;
        conn.wanted = Wanted::Yes;
        // A cancelled receive that has not ended yet is armed again when it has.
        if !cancelling && !conn.receiving {
            self.submit_receive(id);
        }
    }

    fn pause_receive(&mut self, id: ConnId) {
        let Some(conn) = self.connections.get(id) else { return };
        if conn.closing || conn.receive_ended || conn.wanted != Wanted::Yes {
            return;
        }
        if conn.receiving {
            conn.wanted = Wanted::Pausing;
            self.submit_cancel(Kind::Receive, id);
        } else {
            conn.wanted = Wanted::No;
            self.events.push_back(OwnedEvent::Paused { conn: id });
        }
    }

    fn send(&mut self, id: ConnId, batch: SendBatch) {
        let Some(conn) = self.connections.get(id).filter(|c| !c.closing && c.send.is_none()) else {
            let batch = std::cell::RefCell::new(Some(batch));
            let result = Err(Errno(nix::libc::ENOTCONN));
            self.events.push_back(OwnedEvent::Sent { conn: id, batch, result });
            return;
        };
        let op = SendOp::new(batch, self.spare_sends.pop());
        let entry = opcode::SendMsg::new(Fd(conn.raw()), op.header())
            .flags(nix::libc::MSG_NOSIGNAL.unsigned_abs())
            .build()
            .user_data(tag(Kind::Send, id));
        conn.send = Some(op);
        self.submit(&entry);
    }

    fn send_quietly(&mut self, id: ConnId, batch: SendBatch) {
        let is_small = batch.remaining_bytes() < QUIET_LIMIT_BYTES;
        self.send(id, batch);
        let is_sending = self.connections.get(id).is_some_and(|conn| conn.send.is_some());
        self.quiet_sends_count += usize::from(is_small && is_sending);
    }

    fn shut_down_write(&mut self, id: ConnId) {
        if let Some(conn) = self.connections.get(id).filter(|conn| conn.send.is_none()) {
            // A connection that is broken already has ended anyway.
            let _ = socket2::SockRef::from(&conn.fd).shutdown(std::net::Shutdown::Write);
        }
    }

    fn hand_over(&mut self, id: ConnId, worker: u16, peer: SocketAddr, read: Vec<u8>) {
        if self.connections.get(id).is_none_or(|conn| !conn.is_quiet()) {
            // The core's mistake; the peer connects again.
            self.close(id, true);
            return;
        }
        if let Some(conn) = self.connections.remove(id) {
            self.upcalls.hand_over(worker, conn.fd, peer, read);
        }
    }

    fn close(&mut self, id: ConnId, reset: bool) {
        let Some(conn) = self.connections.get(id).filter(|conn| !conn.closing) else { return };
        conn.closing = true;
        if reset {
            let _ = socket2::SockRef::from(&conn.fd).set_linger(Some(Duration::ZERO));
        }
        let (receiving, sending) = (conn.receiving, conn.send.is_some());
        if receiving {
            self.submit_cancel(Kind::Receive, id);
        }
        if sending {
            self.submit_cancel(Kind::Send, id);
        }
        self.finish_close(id);
    }

    fn report(&mut self, member: MemberId, evidence: Evidence) {
        self.upcalls.report(member, evidence);
    }
}
