//! What of the streams threads share.

pub mod models;
#[path = "../../../../../engine/src/protocol/stream/outcomes.rs"]
mod outcomes;
#[path = "../../../../../engine/src/protocol/stream/reservation.rs"]
mod reservation;

pub(crate) use outcomes::StreamOutcomes;
pub(crate) use reservation::{Reservation, Reservations};
