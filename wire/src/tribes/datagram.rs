use super::channel_data::ChannelData;
use super::frame::{Frame, HEADER, Step, decode_frame};
use super::member::Member;
use crate::Limits;
use crate::error::{Error, What, number};

/// One packet of the membership group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// A heartbeat or a goodbye, and what follows its end marker.
    Member(Member<'a>, &'a [u8]),
    /// A message sent with [`super::options::MULTICAST`].
    Broadcast(ChannelData<'a>),
}

/// Decodes a packet of the membership group.
///
/// Packets of other programs on the same group are to be expected: count them and go on.
///
/// # Errors
/// What is wrong and where; a frame that is not whole ([`What::DatagramLength`]), not alone, or no
/// message is a wrong datagram.
pub fn decode_datagram<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Datagram<'a>, Error> {
    if !bytes.starts_with(&HEADER) {
        let (member, package_bytes) = Member::decode(bytes, limits)?;
        return Ok(Datagram::Member(member, &bytes[package_bytes..]));
    }
    let wrong = |expected_bytes: usize| Error {
        what: What::DatagramLength,
        offset: 0,
        value: number(bytes.len()),
        limit: number(expected_bytes),
    };
    match decode_frame(bytes, limits)? {
        Step::Frame { frame: Frame::Data(data), consumed_bytes }
            if consumed_bytes == bytes.len() =>
        {
            Ok(Datagram::Broadcast(data))
        }
        Step::Frame { consumed_bytes, .. } if consumed_bytes < bytes.len() => {
            Err(wrong(consumed_bytes))
        }
        Step::Frame { .. } => Err(Error { what: What::DatagramAck, ..wrong(0) }),
        Step::NeedMore { frame_bytes } => Err(wrong(frame_bytes.unwrap_or(0))),
    }
}
