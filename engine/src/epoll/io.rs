//! The seam on epoll.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::connections::{Conn, watched};
use crate::gauges::Held;
use crate::ids::{Instant, MemberId};
use crate::io::{ConnId, Errno, Evidence, Io, IoEvent, SendBatch};
use crate::worker::{Driver, DriverSettings, GENERATION_MASK, Table, Upcalls};

/// What is received from one connection before the others get their turn: 256 KiB.
const BUFFERS_A_TURN_COUNT: usize = 4;
/// Most connections that one call names; the kernel names the others next time.
const FOUND_LIMIT_COUNT: usize = 256;
/// What the kernel gives back with the doorbell: no slot and generation.
const BELL: u64 = u64::MAX;

fn tag(conn: ConnId) -> u64 {
    u64::from(conn.generation) << 32 | u64::from(conn.slot)
}

#[allow(clippy::cast_possible_truncation, reason = "the parts are cut out on purpose")]
fn untag(tag: u64) -> ConnId {
    ConnId { slot: tag as u32, generation: (tag >> 32) as u32 & GENERATION_MASK }
}

/// One worker's epoll instance. Lives and dies on the thread that made it.
///
/// A send is tried at once, and waits for room only if the socket takes nothing. The kernel is told
/// of a connection once, edge-triggered: holding back and going on cost no system call, and a
/// connection with bytes left stays in a list of ours.
pub struct EpollIo {
    epoll: Epoll,
    connections: Table<Conn>,
    bell: Arc<EventFd>,
    /// What has happened, except for bytes.
    events: VecDeque<IoEvent<'static>>,
    /// Connections to receive from.
    listed: Vec<ConnId>,
    buffer: Vec<u8>,
    found: Vec<EpollEvent>,
    skipped: bool,
    calls_count: u64,
    upcalls: Box<dyn Upcalls>,
    settings: DriverSettings,
    now: Instant,
}

impl std::fmt::Debug for EpollIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EpollIo").field("worker", &self.settings.worker).finish_non_exhaustive()
    }
}

impl EpollIo {
    /// Makes the epoll instance of a worker, on its thread.
    ///
    /// # Errors
    /// The process is out of descriptors, or the machine of memory.
    pub fn new(settings: DriverSettings, upcalls: Box<dyn Upcalls>) -> std::io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let bell =
            EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        // Edge-triggered, each ring is news: the counter is never read, and 64 bits do not fill.
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(&bell, EpollEvent::new(flags, BELL))?;
        Ok(Self {
            epoll,
            connections: Table::default(),
            bell: Arc::new(bell),
            events: VecDeque::new(),
            listed: Vec::new(),
            buffer: vec![0; settings.buffer_bytes.max(1) as usize],
            found: vec![EpollEvent::empty(); FOUND_LIMIT_COUNT],
            skipped: false,
            calls_count: 0,
            upcalls,
            settings,
            now: Instant(0),
        })
    }

    /// Puts a connection into the list of those to receive from, if there is reason to.
    fn list(&mut self, id: ConnId) {
        let Some(conn) = self.connections.get(id) else { return };
        if conn.armed && conn.readable && !conn.listed {
            conn.listed = true;
            self.listed.push(id);
        }
    }

    fn told(&mut self, id: ConnId, flags: EpollFlags) {
        let Some(conn) = self.connections.get(id) else { return };
        if conn.told(flags)
            && let Some(batch) = conn.send.take()
        {
            self.calls_count += 1;
            match conn.transmit(&batch) {
                Some(result) => self.events.push_back(IoEvent::Sent { conn: id, batch, result }),
                None => conn.send = Some(batch),
            }
        }
        self.list(id);
    }

    fn receive(&mut self, id: ConnId, take: &mut impl FnMut(IoEvent<'_>, &mut Self)) {
        // Lent to the core, which gets the driver beside it.
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut left_bytes = BUFFERS_A_TURN_COUNT * buffer.len();
        while let Some(conn) = self.connections.get(id).filter(|conn| conn.armed && conn.readable) {
            if left_bytes == 0 {
                self.list(id);
                break;
            }
            self.calls_count += 1;
            let error = match conn.receive(&mut buffer) {
                None => break,
                Some(Ok(received_bytes @ 1..)) => {
                    left_bytes = left_bytes.saturating_sub(received_bytes);
                    take(IoEvent::Received { conn: id, bytes: &buffer[..received_bytes] }, self);
                    continue;
                }
                Some(Ok(0)) => None,
                Some(Err(error)) => Some(error),
            };
            conn.receive_ended = true;
            conn.armed = false;
            take(IoEvent::ReceiveEnded { conn: id, error }, self);
        }
        self.buffer = buffer;
    }
}

impl Driver for EpollIo {
    fn adopt(&mut self, fd: OwnedFd) -> ConnId {
        let socket = socket2::SockRef::from(&fd);
        // A socket that refuses this option still works.
        let _ = socket.set_tcp_nodelay(true);
        let ready = socket.set_nonblocking(true);
        let id = self.connections.insert(Conn::new(fd));
        if let Some(conn) = self.connections.get(id) {
            let add = || {
                ready?;
                let event = EpollEvent::new(watched(), tag(id));
                self.epoll.add(&conn.fd, event).map_err(std::io::Error::from)
            };
            if let Err(error) = add() {
                // The limit of watches or of memory: the connection ends when it is used.
                conn.unwatched = Some(Errno(error.raw_os_error().unwrap_or(nix::libc::ENOMEM)));
            }
        }
        id
    }

    fn has_events(&self) -> bool {
        !self.events.is_empty() || !self.listed.is_empty()
    }

    fn turn(&mut self, until: Option<Instant>) {
        self.now = self.settings.now();
        // What has happened already is handed out first, without asking: a send that was taken at
        // once costs no second call. Every other turn asks in any case.
        self.skipped = !self.events.is_empty() && !self.skipped;
        if self.skipped {
            return;
        }
        let timeout = if self.has_events() {
            EpollTimeout::ZERO
        } else if let Some(until) = until {
            // Milliseconds, up: a turn must not end before the deadline only to begin again.
            let wait_ms = until.0.saturating_sub(self.now.0).div_ceil(1_000_000);
            EpollTimeout::try_from(i32::try_from(wait_ms).unwrap_or(i32::MAX))
                .unwrap_or(EpollTimeout::MAX)
        } else {
            EpollTimeout::NONE
        };
        let mut found = std::mem::take(&mut self.found);
        // An error is a signal, and means "look now".
        self.calls_count += 1;
        let found_count = self.epoll.wait(&mut found, timeout).unwrap_or(0);
        self.now = self.settings.now();
        for event in &found[..found_count] {
            if event.data() != BELL {
                self.told(untag(event.data()), event.events());
            }
        }
        self.found = found;
    }

    fn deliver(&mut self, mut take: impl FnMut(IoEvent<'_>, &mut Self)) {
        // Those that are there now: each may lead to another one at once.
        for _ in 0..self.events.len() {
            let Some(event) = self.events.pop_front() else { break };
            take(event, self);
        }
        let mut listed = std::mem::take(&mut self.listed);
        for id in listed.drain(..) {
            if let Some(conn) = self.connections.get(id) {
                conn.listed = false;
                self.receive(id, &mut take);
            }
        }
        // Those with bytes left; in the same memory.
        listed.append(&mut self.listed);
        self.listed = listed;
    }

    fn doorbell(&self) -> Box<dyn Fn() + Send + Sync> {
        let bell = Arc::clone(&self.bell);
        Box::new(move || {
            let _ = bell.write(1);
        })
    }

    fn calls_count(&self) -> u64 {
        self.calls_count
    }

    fn held(&self) -> Held {
        Held { connections_count: self.connections.len(), ..Held::default() }
    }

    fn features(&self) -> String {
        "epoll (edge-triggered)".into()
    }

    fn shut_down(mut self) {
        for id in self.connections.ids() {
            self.close(id, true);
        }
    }
}

impl Io for EpollIo {
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
        let Some(conn) = self.connections.get(id).filter(|conn| !conn.receive_ended) else {
            return;
        };
        if let Some(error) = conn.unwatched {
            conn.receive_ended = true;
            self.events.push_back(IoEvent::ReceiveEnded { conn: id, error: Some(error) });
            return;
        }
        conn.armed = true;
        self.list(id);
    }

    fn pause_receive(&mut self, id: ConnId) {
        let Some(conn) = self.connections.get(id).filter(|conn| conn.armed) else { return };
        conn.armed = false;
        self.events.push_back(IoEvent::Paused { conn: id });
    }

    fn send(&mut self, id: ConnId, batch: SendBatch) {
        let result = match self.connections.get(id).filter(|conn| conn.send.is_none()) {
            None => Err(Errno(nix::libc::ENOTCONN)),
            Some(conn) => match conn.unwatched.map(Err).or_else(|| {
                self.calls_count += 1;
                conn.transmit(&batch)
            }) {
                Some(result) => result,
                None => {
                    conn.send = Some(batch);
                    return;
                }
            },
        };
        self.events.push_back(IoEvent::Sent { conn: id, batch, result });
    }

    fn shut_down_write(&mut self, id: ConnId) {
        if let Some(conn) = self.connections.get(id).filter(|conn| conn.send.is_none()) {
            // A connection that is broken already has ended anyway.
            let _ = socket2::SockRef::from(&conn.fd).shutdown(std::net::Shutdown::Write);
        }
    }

    fn hand_over(&mut self, id: ConnId, worker: u16, peer: SocketAddr, read: Vec<u8>) {
        if self.connections.get(id).is_none_or(|conn| conn.armed || conn.send.is_some()) {
            // The core's mistake; the peer connects again.
            self.close(id, true);
            return;
        }
        if let Some(conn) = self.connections.remove(id) {
            let _ = self.epoll.delete(&conn.fd);
            self.upcalls.hand_over(worker, conn.fd, peer, read);
        }
    }

    fn close(&mut self, id: ConnId, reset: bool) {
        let Some(conn) = self.connections.remove(id) else { return };
        if reset {
            let _ = socket2::SockRef::from(&conn.fd).set_linger(Some(Duration::ZERO));
        }
        // The kernel forgets a descriptor only with the last of its duplicates.
        let _ = self.epoll.delete(&conn.fd);
        if let Some(batch) = conn.send {
            let result = Err(Errno(nix::libc::ECANCELED));
            self.events.push_back(IoEvent::Sent { conn: id, batch, result });
        }
        self.events.push_back(IoEvent::Closed { conn: id });
    }

    fn report(&mut self, member: MemberId, evidence: Evidence) {
        self.upcalls.report(member, evidence);
    }
}
