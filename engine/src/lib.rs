//! The engine of Ringtribe: replicates messages between the members of a cluster.
//!
//! See `engine/DESIGN.md` for the picture, the threads and the life of a message.
#![deny(unsafe_code)]

pub mod backend;
pub mod budget;
pub mod buffer;
mod closing;
pub mod config;
pub mod control;
pub mod delivery;
pub mod directory;
pub mod epoll;
pub mod error;
pub mod event;
pub mod gaps;
pub mod gauges;
pub mod ids;
pub mod io;
pub mod joins;
pub mod machine;
pub mod message;
pub mod node;
pub mod order;
pub mod phase;
pub mod planted;
pub mod protocol;
pub mod ring;
pub mod server_xml;
pub mod shared;
mod start;
pub mod status;
pub mod submit;
mod sync;
mod view;
pub mod worker;
