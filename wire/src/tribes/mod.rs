//! The format in which stock Tomcat nodes talk (`org.apache.catalina.tribes`, Tomcat 7.0 to 11).
//!
//! All integers are big-endian and signed. A connection carries [`Frame`]s one after another: data
//! from the side that connected, acknowledgements from the side that accepted. The membership
//! group carries one [`Datagram`] a packet.

mod channel_data;
mod datagram;
mod frame;
mod member;
pub mod options;
pub mod payload;
mod tomcat55;

pub use channel_data::{ChannelData, data_head_bytes, encode_data_head};
pub use datagram::{Datagram, decode_datagram};
pub use frame::{
    ACK, FAIL_ACK, FOOTER, FRAME_OVERHEAD_BYTES, Frame, HEADER, Step, decode_frame, finish,
};
pub use member::{Member, SHUTDOWN_COMMAND};
pub use tomcat55::Tomcat55;

/// The message of a liveness probe (`TcpFailureDetector.TCP_FAIL_DETECT`).
pub const TCP_FAILURE_DETECTOR_MAGIC: [u8; 64] =
    hex(b"4fa77348798243c99f6f8980a15b07147dd9525bebf1439ab77ebe8f81671eb6\
      3715be87457e4ca8bf0a4d135338153255f694b73afa407891047dd77284c0d5");

/// The message of a ping (`TcpPingInterceptor.TCP_PING_DATA`).
pub const TCP_PING_MAGIC: [u8; 64] =
    hex(b"4fa7734879df43c99f6f8980a15b07147dd9525bebdf439ab77ebe8f81671eb6\
      3715be8745214ca8bf0a4d135338153255f694b73adf217891047dd77284c0d5");

const fn hex(text: &[u8; 128]) -> [u8; 64] {
    const fn digit(character: u8) -> u8 {
        match character {
            b'0'..=b'9' => character - b'0',
            _ => character - b'a' + 10,
        }
    }
    let mut bytes = [0; 64];
    let mut at = 0;
    while at < 64 {
        bytes[at] = digit(text[2 * at]) << 4 | digit(text[2 * at + 1]);
        at += 1;
    }
    bytes
}
