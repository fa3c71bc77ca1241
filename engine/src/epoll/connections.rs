//! A descriptor that is watched edge-triggered: the kernel speaks once when something changes, so
//! what it said is kept until a call proves the opposite.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, recv, sendmsg};

use crate::io::{Errno, SendBatch};

/// Most segments of one send: IOV_MAX.
const IOVECS_LIMIT_COUNT: usize = 1024;

/// What the kernel is asked to watch, once in the life of a connection.
pub(super) fn watched() -> EpollFlags {
    EpollFlags::EPOLLIN
        | EpollFlags::EPOLLOUT
        | EpollFlags::EPOLLPRI
        | EpollFlags::EPOLLRDHUP
        | EpollFlags::EPOLLET
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) fd: OwnedFd,
    /// Whether receiving is wanted.
    pub(super) armed: bool,
    pub(super) receive_ended: bool,
    /// Whether something may be there to receive.
    pub(super) readable: bool,
    /// Whether a full stop, not a short read, ends receiving: after the peer's end, an error or an
    /// urgent byte, at which a read stops early.
    exhaust: bool,
    /// Whether it waits in the driver's list of those to read.
    pub(super) listed: bool,
    /// The send in flight: the socket had no room for any of it.
    pub(super) send: Option<SendBatch>,
    /// Why the kernel does not watch it.
    pub(super) unwatched: Option<Errno>,
}

impl Conn {
    pub(super) const fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            armed: false,
            receive_ended: false,
            readable: false,
            exhaust: false,
            listed: false,
            send: None,
            unwatched: None,
        }
    }

    /// Takes in what the kernel said; returns whether a send that waits should be tried.
    pub(super) fn told(&mut self, flags: EpollFlags) -> bool {
        let ending = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        let unusual = ending | EpollFlags::EPOLLPRI;
        self.exhaust |= flags.intersects(unusual);
        self.readable |= flags.intersects(unusual | EpollFlags::EPOLLIN);
        flags.intersects(ending | EpollFlags::EPOLLOUT)
    }

    /// Receives once; `None` if there is nothing now, 0 bytes is the peer's orderly end.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Option<Result<usize, Errno>> {
        let result = again(|| recv(self.fd.as_raw_fd(), buffer, MsgFlags::empty()));
        self.readable = match result {
            Ok(received_bytes) => received_bytes == buffer.len() || self.exhaust,
            Err(_) => false,
        };
        match result {
            Err(nix::errno::Errno::EAGAIN) => None,
            result => Some(result.map_err(|error| Errno(error as i32))),
        }
    }

    /// Sends once; `None` if there is no room now.
    pub(super) fn transmit(&self, batch: &SendBatch) -> Option<Result<usize, Errno>> {
        let mut skip_bytes = batch.skip_bytes;
        let slices: Vec<IoSlice<'_>> = batch
            .segments
            .iter()
            .take(IOVECS_LIMIT_COUNT)
            .map(|segment| IoSlice::new(&segment.as_slice()[std::mem::take(&mut skip_bytes)..]))
            .collect();
        let flags = MsgFlags::MSG_NOSIGNAL;
        match again(|| sendmsg::<()>(self.fd.as_raw_fd(), &slices, &[], flags, None)) {
            Ok(0) => Some(Err(Errno(nix::libc::EPIPE))),
            Ok(sent_bytes) => Some(Ok(sent_bytes)),
            Err(nix::errno::Errno::EAGAIN) => None,
            Err(error) => Some(Err(Errno(error as i32))),
        }
    }
}

/// Calls until no signal interrupts.
fn again<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(nix::errno::Errno::EINTR) => {}
            result => return result,
        }
    }
}
