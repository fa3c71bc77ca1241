//! The bytes of Ringtribe.
//!
//! Encoders write into any [`bytes::BufMut`]; decoders work in place on received slices, borrow
//! from them, and allocate nothing: a length from the network is only ever compared with
//! [`Limits`] and with what has arrived. Nothing here touches a socket, a clock or a thread, and
//! nothing panics on any input. All types are plain values, to be shared between threads at will.
//!
//! * [`tribes`]: the format of Apache Tomcat clusters (7.0 to 11), section by section as stock
//!   Tomcat's `org.apache.catalina.tribes` writes it.
//! * [`native`]: Ringtribe's own format, specified in `wire/FORMAT.md`.
//!
//! Without the default feature `std` the crate needs `core` and (through `bytes`) `alloc` only.
//!
//! # A message there and back
//!
//! ```
//! use ringtribe_wire::Limits;
//! use ringtribe_wire::tribes::{self, Frame, Member, Step, options};
//!
//! let sender = Member {
//!     alive_ms: 1000,
//!     port: 4000,
//!     secure_port: -1,
//!     udp_port: -1,
//!     host: &[127, 0, 0, 1],
//!     command: b"",
//!     domain: b"",
//!     unique_id: &[7; 16],
//!     payload: b"",
//! };
//! let mut package = Vec::new();
//! sender.encode(&mut package);
//!
//! // The head is the same for every destination; the message need not be copied behind it.
//! let (message, options) = (b"hello", options::BYTE_MESSAGE | options::USE_ACK);
//! let mut stream = Vec::new();
//! tribes::encode_data_head(&mut stream, options, 0, &[1; 16], &package, message.len());
//! stream.extend(message);
//! stream.extend(tribes::FOOTER);
//!
//! // From its 11th byte on the length of a frame is known, and within the limits.
//! let limits = Limits::default();
//! let step = tribes::decode_frame(&stream[..11], &limits)?;
//! assert_eq!(step, Step::NeedMore { frame_bytes: Some(stream.len()) });
//!
//! let step = tribes::decode_frame(&stream, &limits)?;
//! let Step::Frame { frame: Frame::Data(data), consumed_bytes } = step else { panic!() };
//! assert_eq!((data.message, data.member, consumed_bytes), (&message[..], sender, stream.len()));
//! # Ok::<(), ringtribe_wire::Error>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

mod error;
mod limits;
pub mod native;
mod read;
pub mod tribes;

pub use error::{Error, What};
pub use limits::Limits;
