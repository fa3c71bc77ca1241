//! What is in flight on each descriptor. The kernel may touch a send's memory until its final
//! completion, so the slot owns it until then, and a descriptor is closed only after all of its
//! operations have ended.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::io::{ConnId, SendBatch};

/// Most segments of one send: IOV_MAX.
const IOVECS_LIMIT_COUNT: usize = 1024;

/// The memory of one vectored send, at a fixed place while the kernel reads it.
pub(super) struct SendOp {
    pub(super) batch: SendBatch,
    iovecs: Vec<nix::libc::iovec>,
    header: nix::libc::msghdr,
}

impl std::fmt::Debug for SendOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendOp").field("batch", &self.batch).finish_non_exhaustive()
    }
}

impl SendOp {
    pub(super) fn new(batch: SendBatch) -> Box<Self> {
        let mut skip_bytes = batch.skip_bytes;
        let iovecs: Vec<_> = batch
            .segments
            .iter()
            .take(IOVECS_LIMIT_COUNT)
            .map(|segment| {
                let bytes = &segment.as_slice()[std::mem::take(&mut skip_bytes)..];
                nix::libc::iovec {
                    iov_base: bytes.as_ptr().cast_mut().cast(),
                    iov_len: bytes.len(),
                }
            })
            .collect();
        // SAFETY: a msghdr of zeros is valid: no name, no control data, no iovecs.
        let header = unsafe { std::mem::zeroed() };
        let mut op = Box::new(Self { batch, iovecs, header });
        op.header.msg_iov = op.iovecs.as_mut_ptr();
        op.header.msg_iovlen = op.iovecs.len();
        op
    }

    /// For the submission. Stays valid as long as the box lives: the segments are immutable and
    /// reference-counted by the batch, the iovecs and the header do not move.
    pub(super) fn header(&self) -> *const nix::libc::msghdr {
        &raw const self.header
    }
}

/// Whether receiving is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    No,
    Yes,
    /// Until the cancellation is through, then `Paused` is due.
    Pausing,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) fd: OwnedFd,
    pub(super) wanted: Wanted,
    pub(super) receiving: bool,
    pub(super) receive_ended: bool,
    pub(super) send: Option<Box<SendOp>>,
    pub(super) closing: bool,
}

impl Conn {
    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub(super) fn is_quiet(&self) -> bool {
        !self.receiving && self.send.is_none()
    }
}

/// All connections of a ring, by slot and generation.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slots: Vec<(u32, Option<Conn>)>,
    free: Vec<u32>,
}

/// Generations in completions have 24 bits.
pub(super) const GENERATION_MASK: u32 = 0x00ff_ffff;

impl Connections {
    pub(super) fn insert(&mut self, fd: OwnedFd) -> ConnId {
        let conn = Conn {
            fd,
            wanted: Wanted::No,
            receiving: false,
            receive_ended: false,
            send: None,
            closing: false,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let place = &mut self.slots[slot as usize];
        place.0 = (place.0 + 1) & GENERATION_MASK;
        place.1 = Some(conn);
        ConnId { slot, generation: place.0 }
    }

    pub(super) fn get(&mut self, id: ConnId) -> Option<&mut Conn> {
        let (generation, conn) = self.slots.get_mut(id.slot as usize)?;
        conn.as_mut().filter(|_| *generation == id.generation)
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Conn> {
        self.get(id)?;
        self.free.push(id.slot);
        self.slots[id.slot as usize].1.take()
    }

    pub(super) fn ids(&self) -> Vec<ConnId> {
        (0_u32..)
            .zip(&self.slots)
            .filter(|(_, (_, conn))| conn.is_some())
            .map(|(slot, (generation, _))| ConnId { slot, generation: *generation })
            .collect()
    }
}
