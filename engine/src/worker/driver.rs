//! What moves the bytes of a worker: the seam [`Io`] with the loop's side of it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::gauges::Held;
use crate::ids::{Instant, MemberId};
use crate::io::{ConnId, Evidence, Io, IoEvent};

/// The backend of one worker. It lives and dies on the thread that made it.
pub trait Driver: Io + Sized {
    /// Takes a connected socket over.
    fn adopt(&mut self, fd: OwnedFd) -> ConnId;

    /// Whether [`Driver::deliver`] has something to do, so that the worker must not sleep.
    fn has_events(&self) -> bool;

    /// Lets the kernel work and sleeps until something happens, the doorbell rings, or `until`;
    /// for ever if `None`. At most one system call that waits.
    fn turn(&mut self, until: Option<Instant>);

    /// Hands out what has happened. Bytes are lent for the call of `take`.
    fn deliver(&mut self, take: impl FnMut(IoEvent<'_>, &mut Self));

    /// Wakes the thread of this driver; may be called from any thread, also after its end.
    fn doorbell(&self) -> Box<dyn Fn() + Send + Sync>;

    /// System calls so far that move bytes or wait for them.
    fn calls_count(&self) -> u64;

    /// What it holds at this moment.
    fn held(&self) -> Held;

    /// The backend with the kernel features in use; begins with `io_uring` or `epoll`.
    fn features(&self) -> String;

    /// Ends everything that is in flight, then frees.
    fn shut_down(self);
}

/// What a driver asks of the control thread and of the other workers.
pub trait Upcalls: Send {
    /// Opens a connection; the answer comes through the worker's inbox.
    fn connect(&mut self, worker: u16, request: u64, address: SocketAddr, timeout_ms: u64);
    /// Gives an accepted connection to another worker.
    fn hand_over(&mut self, worker: u16, fd: OwnedFd, peer: SocketAddr, read: Vec<u8>);
    /// Passes on what was noticed of a member.
    fn report(&mut self, member: MemberId, evidence: Evidence);
}

/// Receive buffers of a ring and their size: 4 MiB a worker. Below 64 KiB each, messages from 4 KiB
/// up suffer (measured for the design). On epoll one of them serves all connections.
const BUFFERS_COUNT: u16 = 64;
const BUFFER_BYTES: u32 = 64 << 10;

/// How to make a driver.
#[derive(Clone, Debug)]
pub struct DriverSettings {
    pub(crate) worker: u16,
    pub(crate) started: std::time::Instant,
    pub(crate) seed: u64,
    pub(crate) buffers_count: u16,
    pub(crate) buffer_bytes: u32,
}

impl DriverSettings {
    /// For worker `worker` of a node that opened at `started`; `seed` from outside.
    #[must_use]
    pub const fn new(worker: u16, started: std::time::Instant, seed: u64) -> Self {
        Self { worker, started, seed, buffers_count: BUFFERS_COUNT, buffer_bytes: BUFFER_BYTES }
    }

    /// With other receive buffers: `count` a power of two, of which epoll uses one.
    #[must_use]
    pub const fn with_buffers(mut self, count: u16, each_bytes: u32) -> Self {
        self.buffers_count = count;
        self.buffer_bytes = each_bytes;
        self
    }

    /// Time since the node opened.
    pub(crate) fn now(&self) -> Instant {
        let nanos = self.started.elapsed().as_nanos();
        Instant(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The next random number of the seed (SplitMix64).
    pub(crate) const fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ringtribe_wire::native::mix(self.seed)
    }
}
