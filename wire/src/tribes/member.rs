use bytes::BufMut;

use super::channel_data::length;
use crate::Limits;
use crate::error::{Error, What, number};
use crate::read::{Reader, marker};

const BEGIN: [u8; 10] = *b"TRIBES-B\x01\x00";
const END: [u8; 10] = *b"TRIBES-E\x01\x00";
/// Fields of fixed size: alive, three ports, host length, three counts, unique id.
const FIXED_BYTES: usize = 8 + 3 * 4 + 1 + 3 * 4 + 16;
/// Begin, length and end.
const OVERHEAD_BYTES: usize = BEGIN.len() + 4 + END.len();
const SHORTEST_BYTES: usize = OVERHEAD_BYTES + FIXED_BYTES;
/// The length of a host is one signed byte.
const MOST_HOST_BYTES: usize = 127;

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
    /// Address in network order: 4 or 16 bytes from stock members, at most 127.
    pub host: &'a [u8],
    /// A command, mostly empty; see [`SHUTDOWN_COMMAND`].
    pub command: &'a [u8],
    /// The domain of `DomainFilterInterceptor`.
    pub domain: &'a [u8],
    /// Unique id; a restarted node has a new one.
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
        marker(bytes, &BEGIN, What::MemberBegin, base)?;
        if bytes.len() < SHORTEST_BYTES {
            return Err(Error {
                what: What::MemberTruncated,
                offset: base + bytes.len(),
                value: number(bytes.len()),
                limit: number(SHORTEST_BYTES),
            });
        }
        let length_at = base + BEGIN.len();
        let mut reader = Reader::new(&bytes[BEGIN.len()..], length_at, What::MemberTruncated);
        let body_length = reader.i32()?;
        let most_bytes = bytes.len().min(limits.max_member_bytes);
        let wrong_length = |limit: usize| Error {
            what: What::MemberLength,
            offset: length_at,
            value: i64::from(body_length),
            limit: number(limit),
        };
        let most_body_bytes = most_bytes.saturating_sub(OVERHEAD_BYTES);
        if usize::try_from(body_length).map_or(true, |length| length > most_body_bytes) {
            return Err(wrong_length(most_body_bytes));
        }
        let body_at = reader.offset();
        let body = reader.slice(i64::from(body_length), What::MemberLength, length_at)?;
        let end_at = reader.offset();
        marker(reader.array::<10>()?, &END, What::MemberEnd, end_at)?;

        let mut fields = Reader::new(body, body_at, What::MemberFields);
        let alive_ms = fields.i64()?;
        let port = fields.i32()?;
        let secure_port = fields.i32()?;
        let udp_port = fields.i32()?;
        let host_at = fields.offset();
        let host_length = fields.i8()?;
        let host = fields.slice(i64::from(host_length), What::MemberHostLength, host_at)?;
        let command = fields.counted(What::MemberCommandLength)?;
        let domain = fields.counted(What::MemberDomainLength)?;
        let unique_id = fields.array::<16>()?;
        let payload = fields.counted(What::MemberPayloadLength)?;
        if fields.left_bytes() > 0 {
            return Err(wrong_length(body.len() - fields.left_bytes()));
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

    /// Bytes of the package, exactly as many as [`Member::encode`] writes.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        OVERHEAD_BYTES + self.body_bytes()
    }

    fn body_bytes(&self) -> usize {
        let host_bytes = self.encoded_host().len();
        FIXED_BYTES + host_bytes + self.command.len() + self.domain.len() + self.payload.len()
    }

    fn encoded_host(&self) -> &'a [u8] {
        &self.host[..self.host.len().min(MOST_HOST_BYTES)]
    }

    /// Writes the package. A host is at most 127 bytes long; what is longer is cut. Callers keep
    /// the other fields so short that the package fits a datagram, else no receiver accepts it.
    pub fn encode(&self, out: &mut impl BufMut) {
        let host = self.encoded_host();
        out.put_slice(&BEGIN);
        out.put_i32(length(self.body_bytes()));
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
