//! epoll: the backend where io_uring is refused.
//!
//! * `connections`: what is wanted of a descriptor, and what the kernel said of it;
//! * [`EpollIo`]: the seam [`crate::io::Io`] on top.

mod connections;
mod io;

pub use io::EpollIo;
