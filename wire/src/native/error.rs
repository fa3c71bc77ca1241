use core::fmt;

/// Which part of a frame is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum What {
    /// The 8 bytes that start a connection: the first that differs, and what belongs there.
    Magic,
    /// The length of a frame: the length, and the longest accepted; or shorter than its header.
    FrameLength,
    /// The kind of a frame: the kind; limit 0.
    Kind,
    /// The length of a header: its bytes, and the fewest that its kind needs.
    HeaderLength,
    /// A flag in the high byte that this version does not know: the flags; limit: those it knows.
    Flags,
    /// The checksum: as it stands there, and as computed.
    Checksum,
    /// A count or length inside a frame: the number, and the most that can stand there.
    Count,
    /// An attribute behind a HELLO or HELLO_ACK: its type, and the bytes left.
    Attribute,
    /// No version is common, or a feature is required that is not here: the peer's oldest version,
    /// and the one spoken here.
    Version,
    /// A status, lane class or phase that does not exist: the number; limit: the last known.
    Enumeration,
}

/// Input that is refused: what is wrong, where, and what would have been right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// The part.
    pub what: What,
    /// Where it starts, in bytes from the start of the decoded slice.
    pub offset: usize,
    /// What stands there, see [`What`].
    pub value: u64,
    /// What would be accepted, see [`What`].
    pub limit: u64,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, offset, value, limit } = *self;
        match what {
            What::Magic => write!(
                f,
                "no Ringtribe connection: {value:#04x} at offset {offset} where {limit:#04x} starts one"
            ),
            What::FrameLength => {
                write!(
                    f,
                    "frame length {value} at offset {offset}, accepted are 12 to {limit} bytes"
                )
            }
            What::Kind => write!(
                f,
                "frame kind {value} at offset {offset} is unknown to version {}: let the newer node \
                 speak an older version, or update this one",
                super::VERSION
            ),
            What::HeaderLength => write!(
                f,
                "header of {value} bytes at offset {offset} where {limit} are the fewest for its kind"
            ),
            What::Flags => write!(
                f,
                "flags {value:#06x} at offset {offset} hold one that version {} must know and does \
                 not (it knows {limit:#06x}): let the newer node speak an older version",
                super::VERSION
            ),
            What::Checksum => write!(
                f,
                "checksum {value:#010x} at offset {offset} where the bytes give {limit:#010x}: \
                 damaged on the way, or not Ringtribe"
            ),
            What::Count => write!(f, "{value} at offset {offset} where at most {limit} can stand"),
            What::Attribute => {
                write!(
                    f,
                    "attribute {value} at offset {offset} does not fit the {limit} bytes left"
                )
            }
            What::Version => write!(
                f,
                "nothing in common at offset {offset}: the peer's oldest version is {value}, this node \
                 speaks {limit} and has no optional features: update the older node"
            ),
            What::Enumeration => {
                write!(f, "{value} at offset {offset} has no meaning here (known: up to {limit})")
            }
        }
    }
}

impl core::error::Error for Error {}
