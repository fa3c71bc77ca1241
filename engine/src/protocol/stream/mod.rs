//! Streams in Ringtribe's own format: what one node sends to another in order, exactly once inside
//! an epoch, whatever happens to the connections that carry it.
//!
//! * `greeting`: the first bytes of an accepted connection;
//! * `sending`: a stream to a member, and the lane that carries it;
//! * `receiving`: a stream from a member;
//! * `outcomes`: what pollers report to the worker of a stream;
//! * `reservation`: room for messages that come in several frames.
//!
//! `wire/FORMAT.md` has the rules that both sides keep.

pub(super) mod greeting;
mod outcomes;
mod reassembly;
pub(super) mod receiving;
mod reservation;
pub(super) mod sending;

pub use outcomes::StreamOutcomes;
pub use reservation::{Reservation, Reservations};
