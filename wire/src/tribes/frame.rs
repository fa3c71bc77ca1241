use super::channel_data::ChannelData;
use crate::Limits;
use crate::error::{Error, What, number};
use crate::read::{Reader, marker};

/// What starts a frame (`XByteBuffer.START_DATA`).
pub const HEADER: [u8; 7] = *b"FLT2002";
/// What ends a frame (`XByteBuffer.END_DATA`).
pub const FOOTER: [u8; 7] = *b"TLF2003";
/// Bytes of a frame beside its body: header, length, footer.
pub const FRAME_OVERHEAD_BYTES: usize = 18;
/// A whole positive acknowledgement (`Constants.ACK_COMMAND`).
pub const ACK: [u8; 21] = *b"FLT2002\x00\x00\x00\x03\x06\x02\x03TLF2003";
/// A whole negative acknowledgement (`Constants.FAIL_ACK_COMMAND`).
pub const FAIL_ACK: [u8; 21] = *b"FLT2002\x00\x00\x00\x03\x0b\x00\x05TLF2003";

const PREFIX_BYTES: usize = 11;

/// One frame, borrowed from the bytes it was decoded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The oldest unacknowledged message of the connection arrived, or with
    /// [`SYNCHRONIZED_ACK`](super::options::SYNCHRONIZED_ACK) its listeners returned. An
    /// acknowledgement names no message, so never have two such messages outstanding on one
    /// connection to a stock receiver: it may answer them out of order.
    Ack,
    /// A listener of that message threw.
    FailAck,
    /// A message.
    Data(ChannelData<'a>),
}

/// What [`decode_frame`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The frame is not whole, and right so far; call again with the same bytes and more.
    NeedMore {
        /// Bytes of the whole frame, known once its first 11 bytes are there. Never more than the
        /// limit and [`FRAME_OVERHEAD_BYTES`], so room for them may be made.
        frame_bytes: Option<usize>,
    },
    /// A frame.
    Frame {
        /// The frame.
        frame: Frame<'a>,
        /// Bytes it took from the front.
        consumed_bytes: usize,
    },
}

/// Decodes the frame at the front of `bytes`, incrementally: a wrong first byte is refused as soon
/// as it is there, a length beyond the limits as soon as its four bytes are.
///
/// # Errors
/// What is wrong and where. Nothing legitimate depends on going on after an error: close the
/// connection.
pub fn decode_frame<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Step<'a>, Error> {
    marker(bytes, &HEADER, What::FrameHeader, 0)?;
    if bytes.len() < PREFIX_BYTES {
        return Ok(Step::NeedMore { frame_bytes: None });
    }
    let mut prefix = Reader::new(&bytes[HEADER.len()..], HEADER.len(), What::FrameLength);
    let length = prefix.i32()?;
    let body_bytes = usize::try_from(length)
        .ok()
        .filter(|length| *length <= limits.max_frame_bytes)
        .ok_or(Error {
            what: What::FrameLength,
            offset: HEADER.len(),
            value: i64::from(length),
            limit: number(limits.max_frame_bytes),
        })?;
    let frame_bytes = body_bytes + FRAME_OVERHEAD_BYTES;
    let footer_at = PREFIX_BYTES + body_bytes;
    let footer = bytes.get(footer_at..frame_bytes.min(bytes.len())).unwrap_or(&[]);
    marker(footer, &FOOTER, What::FrameFooter, footer_at)?;
    if bytes.len() < frame_bytes {
        return Ok(Step::NeedMore { frame_bytes: Some(frame_bytes) });
    }
    let frame = match &bytes[PREFIX_BYTES..footer_at] {
        [0x06, 0x02, 0x03] => Frame::Ack,
        [0x0b, 0x00, 0x05] => Frame::FailAck,
        body => Frame::Data(ChannelData::decode(body, PREFIX_BYTES, limits)?),
    };
    Ok(Step::Frame { frame, consumed_bytes: frame_bytes })
}

/// Judges what is left when the stream has ended: nothing may be, but whole frames that the caller
/// has not decoded yet.
///
/// # Errors
/// [`What::FrameTruncated`] with the bytes that are there and the bytes the frame needs, or what is
/// wrong with them. Offsets in errors count from the start of `rest`.
pub fn finish(mut rest: &[u8], limits: &Limits) -> Result<(), Error> {
    let mut passed_bytes = 0;
    while !rest.is_empty() {
        let step = decode_frame(rest, limits)
            .map_err(|error| Error { offset: passed_bytes + error.offset, ..error })?;
        match step {
            Step::Frame { consumed_bytes, .. } => {
                passed_bytes += consumed_bytes;
                rest = &rest[consumed_bytes..];
            }
            Step::NeedMore { frame_bytes } => {
                return Err(Error {
                    what: What::FrameTruncated,
                    offset: passed_bytes + rest.len(),
                    value: number(rest.len()),
                    limit: number(frame_bytes.unwrap_or(FRAME_OVERHEAD_BYTES)),
                });
            }
        }
    }
    Ok(())
}
