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
/// # Errors
/// What is wrong and where; a frame that is not whole, or not alone, is a wrong datagram.
pub fn decode_datagram<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Datagram<'a>, Error> {
    if !bytes.starts_with(&HEADER) {
        let (member, package_bytes) = Member::decode(bytes, limits)?;
        return Ok(Datagram::Member(member, &bytes[package_bytes..]));
    }
    let wrong = |expected_bytes: usize| Error {
        what: What::Datagram,
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
        Step::Frame { consumed_bytes, .. } => Err(wrong(consumed_bytes)),
        Step::NeedMore { frame_bytes } => Err(wrong(frame_bytes.unwrap_or(0))),
    }
}
