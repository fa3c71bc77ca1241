//! Handing a connection over from tokio-uring, which gives descriptors only as numbers.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// A second descriptor of the same open socket, owned by the caller.
pub(super) fn duplicate(socket: &impl AsRawFd) -> std::io::Result<OwnedFd> {
    // SAFETY: `socket` owns its descriptor and is borrowed for the whole call, so the number stays
    // valid until the duplicate exists; the borrow does not leave this function.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }.try_clone_to_owned()
}
