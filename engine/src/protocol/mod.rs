//! The sans-IO core: state machines that see no socket, clock, thread or random source.
#![forbid(unsafe_code)]

mod accepted;
mod back_off;
pub mod core;
pub(crate) mod foreign;
mod half_frame;
mod inbound;
mod lane;
pub mod lately;
pub mod membership;
mod peer;
pub mod stream;
