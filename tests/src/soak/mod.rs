//! An hour of mixed load, with members that come, leave in order and are killed all the time, and
//! two that live through it: what these hold must not grow.

pub mod application;
mod chance;
pub mod cluster;
pub mod course;
pub mod ledger;
pub mod report;
pub mod sample;
pub mod slope;
