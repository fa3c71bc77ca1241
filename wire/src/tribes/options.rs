//! Option bits of a message (`Channel.SEND_OPTIONS_*`).

/// The message is the user's bytes, not a serialized object.
pub const BYTE_MESSAGE: i32 = 0x01;
/// One acknowledgement a message and destination; alone it comes before the listeners run.
pub const USE_ACK: i32 = 0x02;
/// With [`USE_ACK`]: the acknowledgement comes after the listeners returned, negative if they threw.
pub const SYNCHRONIZED_ACK: i32 = 0x04;
/// The sender does not wait; receivers ignore it.
pub const ASYNCHRONOUS: i32 = 0x08;
/// Reserved.
pub const SECURE: i32 = 0x10;
/// One datagram to the member's UDP port.
pub const UDP: i32 = 0x20;
/// One datagram to the membership group.
pub const MULTICAST: i32 = 0x40;
