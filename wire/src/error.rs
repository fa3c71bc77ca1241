use core::fmt;

/// Which part of the input is wrong. What [`Error::value`] and [`Error::limit`] mean follows from
/// it: for the markers (header, footer, begin, end) the first byte that differs and the byte that
/// belongs there, else what each variant says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum What {
    /// The 7 bytes "FLT2002" that start a frame.
    FrameHeader,
    /// The length after the header: the length, and the longest accepted.
    FrameLength,
    /// The 7 bytes "TLF2003" that end a frame.
    FrameFooter,
    /// The stream ended inside a frame: the bytes that are there, and those of the whole frame
    /// (as long as its length is not there, of the shortest frame).
    FrameTruncated,
    /// The body ends inside a field of fixed size: the bytes left for it, and its size.
    BodyFields,
    /// The body goes on after its last field: its length, and the length its fields need.
    BodyLength,
    /// The length of the unique id of a message: the length, and the bytes left for it.
    UniqueIdLength,
    /// The length of the sender's member package: the length, and the longest accepted. Also 0,
    /// which stock receivers refuse as well.
    SenderLength,
    /// The length of the message: the length, and the bytes left for it.
    MessageLength,
    /// The 10 bytes "TRIBES-B" 1.0 that start a member package; any other version is refused.
    MemberBegin,
    /// Too few bytes for any member package: the bytes there are, and the fewest possible.
    MemberTruncated,
    /// The length of a member package: the length, and the longest that fits the bytes and the
    /// limit, or if it is too long for the fields in it, the length they need.
    MemberLength,
    /// The 10 bytes "TRIBES-E" 1.0 that end a member package.
    MemberEnd,
    /// The length of a member's host address: the length, and the bytes left for it.
    MemberHostLength,
    /// The length of a member's command: the length, and the bytes left for it.
    MemberCommandLength,
    /// The length of a member's domain: the length, and the bytes left for it.
    MemberDomainLength,
    /// The length of a member's payload: the length, and the bytes left for it.
    MemberPayloadLength,
    /// A member package ends inside a field of fixed size: the bytes left for it, and its size.
    MemberFields,
    /// A datagram that is not exactly one frame: its length, and that of the frame (0 if there is
    /// not even the frame's length).
    DatagramLength,
    /// A datagram of the membership group that is an acknowledgement: its length; limit 0.
    DatagramAck,
}

/// Input that is refused: what is wrong with it, where, and what would have been right.
///
/// [`Display`](fmt::Display) tells all of it in one line that fits a log:
///
/// ```
/// use ringtribe_wire::{Limits, tribes};
///
/// let error = tribes::decode_frame(b"GET / HTTP/1.1", &Limits::default()).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "frame: header at offset 0 has 0x47 where \"FLT2002\" has 0x46; the peer does not speak \
///      Tribes as Tomcat 7.0 to 11 do: close the connection"
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// The part.
    pub what: What,
    /// Where that part starts, in bytes from the start of the decoded slice; for input that ends
    /// too early, where it ends.
    pub offset: usize,
    /// What stands there, see [`What`].
    pub value: i64,
    /// What would be accepted, see [`What`].
    pub limit: i64,
}

/// First byte of a TLS handshake record.
const TLS_HANDSHAKE: i64 = 0x16;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, offset, value, limit } = *self;
        let marker = |f: &mut fmt::Formatter<'_>, part: &str, expected: &str| {
            write!(
                f,
                "{part} at offset {offset} has {value:#04x} where \"{expected}\" has {limit:#04x}"
            )
        };
        let length = |f: &mut fmt::Formatter<'_>, part: &str| {
            write!(f, "{part} at offset {offset} is {value}, at most {limit} can stand there")
        };
        match what {
            What::FrameHeader => marker(f, "frame: header", "FLT2002"),
            What::FrameLength => {
                write!(f, "frame: length at offset {offset} is {value}, accepted is 0 to {limit}")
            }
            What::FrameFooter => marker(f, "frame: footer", "TLF2003"),
            What::FrameTruncated => write!(
                f,
                "frame: the stream ended at offset {offset} with {value} of at least {limit} bytes"
            ),
            What::BodyFields => write!(
                f,
                "data frame: {value} bytes at offset {offset} where a field of {limit} is needed"
            ),
            What::BodyLength => write!(
                f,
                "data frame: fields end at offset {offset} after {limit} of the body's {value} bytes"
            ),
            What::UniqueIdLength => length(f, "data frame: length of the unique id"),
            What::SenderLength if value == 0 => {
                write!(f, "data frame: no sender member at offset {offset}")
            }
            What::SenderLength => length(f, "data frame: length of the sender member"),
            What::MessageLength => length(f, "data frame: length of the message"),
            What::MemberBegin => marker(f, "member: begin", "TRIBES-B 1.0"),
            What::MemberTruncated => {
                write!(f, "member: ends at offset {offset} with {value} of at least {limit} bytes")
            }
            What::MemberLength => length(f, "member: length"),
            What::MemberEnd => marker(f, "member: end", "TRIBES-E 1.0"),
            What::MemberHostLength => length(f, "member: length of the host"),
            What::MemberCommandLength => length(f, "member: length of the command"),
            What::MemberDomainLength => length(f, "member: length of the domain"),
            What::MemberPayloadLength => length(f, "member: length of the payload"),
            What::MemberFields => write!(
                f,
                "member: {value} bytes at offset {offset} where a field of {limit} is needed"
            ),
            What::DatagramLength => {
                write!(f, "datagram: {value} bytes where its one frame has {limit}")
            }
            What::DatagramAck => {
                write!(f, "datagram: an acknowledgement where a member or a message is expected")
            }
        }?;
        f.write_str(self.remedy())
    }
}

impl Error {
    const fn remedy(&self) -> &'static str {
        match self.what {
            What::FrameHeader if self.value == TLS_HANDSHAKE => {
                "; this looks like a TLS hello: let the peer use plain TCP, or the port that has TLS"
            }
            What::FrameLength if self.value > self.limit => {
                "; raise max_frame_bytes if such messages are wanted, else close the connection"
            }
            What::FrameTruncated => "; the message is lost unless the peer sends it again",
            What::DatagramLength | What::DatagramAck => "; ignore it",
            What::MemberBegin
            | What::MemberTruncated
            | What::MemberLength
            | What::MemberEnd
            | What::MemberHostLength
            | What::MemberCommandLength
            | What::MemberDomainLength
            | What::MemberPayloadLength
            | What::MemberFields => {
                "; not a node of Tomcat 7.0 to 11: ignore the datagram, or close the connection"
            }
            _ => "; the peer does not speak Tribes as Tomcat 7.0 to 11 do: close the connection",
        }
    }
}

impl core::error::Error for Error {}

/// A length or an offset as it stands in an [`Error`].
pub(crate) fn number(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
