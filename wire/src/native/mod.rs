//! Ringtribe's own format, version 1: what Ringtribe nodes speak among themselves.
//!
//! `wire/FORMAT.md` is the specification; this module is its encoder and decoder. All integers are
//! little-endian. A connection starts with [`MAGIC`] and a HELLO from its opener, answered by
//! [`MAGIC`] and a HELLO_ACK; then data runs from the opener to the acceptor, acknowledgements run
//! back. Every frame carries a CRC-32C of its bytes.

mod crc;
mod error;
pub mod extension;
mod frame;
mod hello;

pub use crc::crc32c;
pub use error::{Error, What};
pub use frame::{
    Ack, AckEntry, Close, DataHead, Echo, Envelope, Frame, Gap, Goodbye, Kind, Step, decode, flags,
};
pub use hello::{
    Hello, HelloAck, HelloStatus, LaneClass, PACKAGE_LIMIT_BYTES, decode_hello, decode_hello_ack,
};

/// First bytes of a connection in this format, in both directions: neither the start of a Tribes
/// frame nor of a TLS record.
pub const MAGIC: [u8; 8] = *b"\x89RINGT\r\n";

/// The version that this code speaks.
pub const VERSION: u16 = 1;

/// Bytes of the header that all frames share.
pub const COMMON_BYTES: usize = 12;
/// Bytes of the header of a DATA frame.
pub const DATA_BYTES: usize = 32;
/// Bytes of the envelope before the payload of a message that has one.
pub const ENVELOPE_BYTES: usize = 32;
/// Longest frame, in bytes, header and all.
pub const MAX_FRAME_BYTES: usize = 64 << 10;
/// Longest body of a DATA frame, in bytes; a longer message goes in several.
pub const MAX_BODY_BYTES: usize = MAX_FRAME_BYTES - DATA_BYTES;

/// The hash of a name (a key, a cluster's name): 64-bit FNV-1a, finished by [`mix`]. Every
/// implementation must hash alike, since a key decides its stream.
#[must_use]
pub const fn hash(name: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < name.len() {
        hash = (hash ^ name[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    mix(hash)
}

/// The finisher of SplitMix64 (Steele, Lea, Flood 2014), so that short names spread over few streams.
#[must_use]
pub const fn mix(hash: u64) -> u64 {
    let mut mixed = hash;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
