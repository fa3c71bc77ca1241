use bytes::BufMut;

use super::channel_data::length;
use crate::Limits;
use crate::error::{Error, What, number};
use crate::read::{Reader, marker};

const BEGIN: [u8; 10] = *b"TRIBES-B\x01\x00";
const END: [u8; 10] = *b"TRIBES-E\x01\x00";
/// Fields of fixed size: alive, three ports, host length, three counts, unique id.
const FIXED_BYTES: usize = 8 + 3 * 4 + 1 + 3 * 4 + 16;

/// The command of a member that leaves (`Member.SHUTDOWN_PAYLOAD`).
pub const SHUTDOWN_COMMAND: &[u8] = b"BABY-ALEX";

/// A member package (`org.apache.catalina.tribes.membership.MemberImpl.getData`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Milliseconds since the member's service started, as of its last heartbeat.
    pub alive_ms: i64,
    /// TCP port.
    pub port: i32,
    /// TLS port, -1 for none.
    pub secure_port: i32,
    /// UDP port, -1 for none.
    pub udp_port: i32,
    /// Address in network order: 4 or 16 bytes from stock members.
    pub host: &'a [u8],
    /// A command, mostly empty; see [`SHUTDOWN_COMMAND`].
    pub command: &'a [u8],
    /// The domain of `DomainFilterInterceptor`.
    pub domain: &'a [u8],
    /// Unique id.
    pub unique_id: &'a [u8; 16],
    /// The application's payload.
    pub payload: &'a [u8],
}

impl<'a> Member<'a> {
    /// Decodes the package at the front of `bytes` and tells its length; what follows the end
    /// marker is accepted, as stock does.
    ///
    /// # Errors
    /// What is wrong and where.
    pub fn decode(bytes: &'a [u8], limits: &Limits) -> Result<(Self, usize), Error> {
        Self::decode_at(bytes, 0, limits)
    }

    pub(super) fn decode_at(
        bytes: &'a [u8],
        base: usize,
        limits: &Limits,
    ) -> Result<(Self, usize), Error> {
        let mut reader = Reader::new(bytes, base);
        marker(bytes, &BEGIN, What::MemberBegin, base)?;
        reader.array::<10>(What::MemberBegin)?;
        let length_at = reader.offset();
        let body_length = reader.i32(What::MemberLength)?;
        let most_bytes = reader.left_bytes().min(limits.max_member_bytes);
        let body = if usize::try_from(body_length).is_ok_and(|length| length <= most_bytes) {
            reader.slice(i64::from(body_length), What::MemberLength, length_at)?
        } else {
            return Err(Error {
                what: What::MemberLength,
                offset: length_at,
                value: i64::from(body_length),
                limit: number(most_bytes),
            });
        };
        let body_at = length_at + 4;
        let end_at = reader.offset();
        let end = reader.array::<10>(What::MemberEnd)?;
        marker(end, &END, What::MemberEnd, end_at)?;

        let mut fields = Reader::new(body, body_at);
        let alive_ms = fields.i64(What::MemberFields)?;
        let port = fields.i32(What::MemberFields)?;
        let secure_port = fields.i32(What::MemberFields)?;
        let udp_port = fields.i32(What::MemberFields)?;
        let host_at = fields.offset();
        let host_length = fields.i8(What::MemberHostLength)?;
        let host = fields.slice(i64::from(host_length), What::MemberHostLength, host_at)?;
        let command = fields.counted(What::MemberCommandLength)?;
        let domain = fields.counted(What::MemberDomainLength)?;
        let unique_id = fields.array::<16>(What::MemberFields)?;
        let payload = fields.counted(What::MemberPayloadLength)?;
        if fields.left_bytes() > 0 {
            return Err(Error {
                what: What::MemberFields,
                offset: fields.offset(),
                value: i64::from(body_length),
                limit: number(body.len() - fields.left_bytes()),
            });
        }
        let member = Self {
            alive_ms,
            port,
            secure_port,
            udp_port,
            host,
            command,
            domain,
            unique_id,
            payload,
        };
        Ok((member, reader.offset() - base))
    }

    /// Bytes of the package.
    #[must_use]
    pub const fn encoded_bytes(&self) -> usize {
        BEGIN.len() + 4 + self.body_bytes() + END.len()
    }

    const fn body_bytes(&self) -> usize {
        FIXED_BYTES
            + self.host.len()
            + self.command.len()
            + self.domain.len()
            + self.payload.len()
    }

    /// Writes the package. A host is at most 127 bytes long; what is longer is cut.
    pub fn encode(&self, out: &mut impl BufMut) {
        let host = &self.host[..self.host.len().min(127)];
        let body_bytes = self.body_bytes() - self.host.len() + host.len();
        out.put_slice(&BEGIN);
        out.put_i32(length(body_bytes));
        out.put_i64(self.alive_ms);
        out.put_i32(self.port);
        out.put_i32(self.secure_port);
        out.put_i32(self.udp_port);
        out.put_i8(i8::try_from(host.len()).unwrap_or(i8::MAX));
        out.put_slice(host);
        out.put_i32(length(self.command.len()));
        out.put_slice(self.command);
        out.put_i32(length(self.domain.len()));
        out.put_slice(self.domain);
        out.put_slice(self.unique_id);
        out.put_i32(length(self.payload.len()));
        out.put_slice(self.payload);
        out.put_slice(&END);
    }

    /// Whether the member says goodbye.
    #[must_use]
    pub fn is_shutdown(&self) -> bool {
        self.command == SHUTDOWN_COMMAND
    }
}
