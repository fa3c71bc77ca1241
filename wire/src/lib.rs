//! The bytes of Ringtribe.
//!
//! Encoders write into any [`bytes::BufMut`]; decoders work in place on received slices, borrow
//! from them, and allocate nothing: a length from the network is only ever compared with a limit
//! and with what has arrived. Nothing here touches a socket, a clock or a thread, and nothing
//! panics on any input.
//!
//! * [`tribes`]: the format of Apache Tomcat clusters (7.0 to 11), section by section as stock
//!   Tomcat's `org.apache.catalina.tribes` writes it.
#![no_std]
#![forbid(unsafe_code)]

mod error;
mod limits;
mod read;
pub mod tribes;

pub use error::{Error, What};
pub use limits::Limits;
