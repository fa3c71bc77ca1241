//! io_uring: the one place that names a ring, and the only unsafe code of the engine.
//!
//! * [`setup`](RingError): making a ring, and what the kernel must offer;
//! * `buffers`: memory that the kernel fills;
//! * `connections`: what is in flight on a descriptor, and what the kernel may still touch;
//! * [`RingIo`]: the seam [`crate::io::Io`] on top.
#![allow(unsafe_code)]

mod buffers;
mod connections;
mod io;
mod setup;

pub use io::{Lent, OwnedEvent, RingIo, RingSettings, Upcalls};
pub use setup::{RingError, probe, random_bytes};
