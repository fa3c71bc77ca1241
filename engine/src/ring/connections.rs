//! What is in flight on each descriptor. The kernel may touch a send's memory until its final
//! completion, so the slot owns it until then, and a descriptor is closed only after all of its
//! operations have ended.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::io::SendBatch;

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
    /// In the memory of `spare`, an operation that has ended, if there is one.
    pub(super) fn new(batch: SendBatch, spare: Option<Box<Self>>) -> Box<Self> {
        let mut op = spare.unwrap_or_else(|| {
            // SAFETY: a msghdr of zeros is valid: no name, no control data, no iovecs.
            let header = unsafe { std::mem::zeroed() };
            Box::new(Self { batch: SendBatch::default(), iovecs: Vec::new(), header })
        });
        op.batch = batch;
        let mut skip_bytes = op.batch.skip_bytes;
        op.iovecs.clear();
        op.iovecs.extend(op.batch.segments.iter().take(IOVECS_LIMIT_COUNT).map(|segment| {
            let bytes = &segment.as_slice()[std::mem::take(&mut skip_bytes)..];
            nix::libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
        }));
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
    /// Whether the receive that is or was in flight got anything.
    pub(super) fed: bool,
    pub(super) receive_ended: bool,
    pub(super) send: Option<Box<SendOp>>,
    pub(super) closing: bool,
}

impl Conn {
    pub(super) const fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            wanted: Wanted::No,
            receiving: false,
            fed: false,
            receive_ended: false,
            send: None,
            closing: false,
        }
    }

    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub(super) fn is_quiet(&self) -> bool {
        !self.receiving && self.send.is_none()
    }
}
