use core::fmt;

/// Which part of the input is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// The 7 bytes "FLT2002" that start a frame.
    FrameHeader,
    /// The length after the header.
    FrameLength,
    /// The 7 bytes "TLF2003" that end a frame.
    FrameFooter,
    /// The stream ended inside a frame.
    FrameTruncated,
    /// The body is longer than the fields in it say, or shorter than the fixed fields.
    BodyLength,
    /// The length of the unique id of a message.
    UniqueIdLength,
    /// The length of the sender's member package; 0 is refused, as by stock receivers.
    SenderLength,
    /// The length of the message.
    MessageLength,
    /// The 10 bytes "TRIBES-B" 1.0 that start a member package; any other version is refused.
    MemberBegin,
    /// The length of a member package.
    MemberLength,
    /// The 10 bytes "TRIBES-E" 1.0 that end a member package.
    MemberEnd,
    /// The length of a member's host address.
    MemberHostLength,
    /// The length of a member's command.
    MemberCommandLength,
    /// The length of a member's domain.
    MemberDomainLength,
    /// The length of a member's payload.
    MemberPayloadLength,
    /// The fields of a member do not fill its length.
    MemberFields,
    /// A datagram that is neither a member package nor one frame.
    Datagram,
}

impl What {
    const fn text(self) -> &'static str {
        match self {
            Self::FrameHeader => "frame header (expected FLT2002)",
            Self::FrameLength => "frame length",
            Self::FrameFooter => "frame footer (expected TLF2003)",
            Self::FrameTruncated => "end of the stream inside a frame",
            Self::BodyLength => "length of the frame's body",
            Self::UniqueIdLength => "length of the unique id",
            Self::SenderLength => "length of the sender member",
            Self::MessageLength => "length of the message",
            Self::MemberBegin => "member package begin (expected TRIBES-B 1.0)",
            Self::MemberLength => "length of the member package",
            Self::MemberEnd => "member package end (expected TRIBES-E 1.0)",
            Self::MemberHostLength => "length of the member's host",
            Self::MemberCommandLength => "length of the member's command",
            Self::MemberDomainLength => "length of the member's domain",
            Self::MemberPayloadLength => "length of the member's payload",
            Self::MemberFields => "fields of the member package",
            Self::Datagram => "datagram",
        }
    }
}

/// Input that is refused: what is wrong with it, where, and what would have been right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// The part.
    pub what: What,
    /// Where that part starts, in bytes from the start of the decoded slice.
    pub offset: usize,
    /// What stands there: a length, or the first byte that differs.
    pub value: i64,
    /// The most (or for a marker, the byte) that would be accepted.
    pub limit: i64,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, offset, value, limit } = self;
        write!(f, "a wrong {} at offset {offset}: {value}, accepted is {limit}", what.text())
    }
}

impl core::error::Error for Error {}

/// A length or an offset as it stands in an [`Error`].
pub(crate) fn number(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
