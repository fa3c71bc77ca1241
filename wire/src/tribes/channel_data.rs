use bytes::BufMut;

use super::frame::HEADER;
use super::member::Member;
use crate::Limits;
use crate::error::{Error, What, number};
use crate::read::Reader;

/// A message with its envelope (`org.apache.catalina.tribes.io.ChannelData`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelData<'a> {
    /// Option bits, see [`super::options`].
    pub options: i32,
    /// The sender's wall clock, ms since 1970.
    pub timestamp_ms: i64,
    /// Id of the message, 16 bytes from stock senders; a resent message has the same one.
    pub unique_id: &'a [u8],
    /// The sender.
    pub member: Member<'a>,
    /// The sender as it came, with what may follow its end marker.
    pub member_package: &'a [u8],
    /// The message, after all interceptors: a serialized object, or the application's bytes if
    /// [`BYTE_MESSAGE`](super::options::BYTE_MESSAGE) is set.
    pub message: &'a [u8],
}

impl<'a> ChannelData<'a> {
    /// Decodes the body of a frame, which starts at `base` of what the caller decodes.
    pub(super) fn decode(body: &'a [u8], base: usize, limits: &Limits) -> Result<Self, Error> {
        let mut reader = Reader::new(body, base, What::BodyFields);
        let options = reader.i32()?;
        let timestamp_ms = reader.i64()?;
        let unique_id = reader.counted(What::UniqueIdLength)?;
        let length_at = reader.offset();
        let member_package = reader.counted(What::SenderLength)?;
        if member_package.is_empty() || member_package.len() > limits.max_member_bytes {
            return Err(Error {
                what: What::SenderLength,
                offset: length_at,
                value: number(member_package.len()),
                limit: number(limits.max_member_bytes),
            });
        }
        let (member, _) = Member::decode_at(member_package, length_at + 4, limits)?;
        let message = reader.counted(What::MessageLength)?;
        if reader.left_bytes() > 0 {
            return Err(Error {
                what: What::BodyLength,
                offset: reader.offset(),
                value: number(body.len()),
                limit: number(body.len() - reader.left_bytes()),
            });
        }
        Ok(Self { options, timestamp_ms, unique_id, member, member_package, message })
    }
}

/// Bytes that [`encode_data_head`] writes.
#[must_use]
pub const fn data_head_bytes(member_package_bytes: usize) -> usize {
    HEADER.len() + 4 + 4 + 8 + 4 + 16 + 4 + member_package_bytes + 4
}

/// Writes everything of a data frame that stands before the message; the message and [`FOOTER`](super::FOOTER)
/// follow. The same bytes serve every destination.
///
/// `member_package` is what [`Member::encode`] wrote. Lengths are Java ints: what would exceed
/// 2^31 - 1 bytes is written as that, and every receiver refuses it, so callers bound
/// `message_bytes` far below.
pub fn encode_data_head(
    out: &mut impl BufMut,
    options: i32,
    timestamp_ms: i64,
    unique_id: &[u8; 16],
    member_package: &[u8],
    message_bytes: usize,
) {
    let envelope_bytes = data_head_bytes(member_package.len()) - HEADER.len() - 4;
    let body_bytes = envelope_bytes.saturating_add(message_bytes);
    out.put_slice(&HEADER);
    out.put_i32(length(body_bytes));
    out.put_i32(options);
    out.put_i64(timestamp_ms);
    out.put_i32(length(unique_id.len()));
    out.put_slice(unique_id);
    out.put_i32(length(member_package.len()));
    out.put_slice(member_package);
    out.put_i32(length(message_bytes));
}

pub(super) fn length(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}
