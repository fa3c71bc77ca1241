//! The sans-IO core: state machines that see no socket, clock, thread or random source.
#![forbid(unsafe_code)]

mod accepted;
pub mod core;
mod lane;
pub mod lately;
pub mod membership;
