//! The frames that follow the hello.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::crc::crc32c;
use super::error::{Error, What};
use super::{COMMON_BYTES, DATA_BYTES, ENVELOPE_BYTES};

/// Flags of a frame. Unknown ones in the low byte are ignored; in the high byte they close the
/// connection.
pub mod flags {
    /// DATA: the first frame of its message.
    pub const FIRST: u16 = 0x01;
    /// DATA: the last frame of its message.
    pub const LAST: u16 = 0x02;
    /// DATA: its listener never waits for another message, so it may be delivered in a batch.
    pub const SHORT: u16 = 0x04;
    /// DATA: an answer that somebody waits for; goes to the reserved poller.
    pub const REPLY: u16 = 0x08;
    /// DATA: the sender waits until it is received.
    pub const WANT_RECEIVED: u16 = 0x10;
    /// DATA: the sender waits for the listener's outcome.
    pub const WANT_APPLIED: u16 = 0x20;
    /// DATA, first frame: the body starts with an envelope.
    pub const ENVELOPE: u16 = 0x40;
    /// HELLO: an earlier epoch of this link has ended, the receiver may have missed messages.
    pub const AFTER_CUT: u16 = 0x01;

    /// The flags in the high byte that version 1 knows: none.
    pub const MUST_KNOW: u16 = 0;
}

/// Kinds of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is the name of the frame's type below")]
pub enum Kind {
    Data = 1,
    Ack = 2,
    Gap = 3,
    Confirm = 4,
    Echo = 5,
    EchoReply = 6,
    Goodbye = 7,
    Join = 8,
    Joined = 9,
    Close = 10,
    Hello = 16,
    HelloAck = 17,
}

/// Kinds from here up are optional: who does not know one passes over the frame.
const OPTIONAL_KIND: u8 = 0x80;

/// The header that all frames share.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Common {
    pub(super) length: U32,
    pub(super) kind: u8,
    pub(super) header_words: u8,
    pub(super) flags: U16,
    pub(super) crc: U32,
}

const _: () = assert!(size_of::<Common>() == COMMON_BYTES);
const _: () = assert!(core::mem::offset_of!(Common, crc) == 8);

/// Declares the fixed part of a frame's header and asserts its size and offsets.
macro_rules! layout {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, { $($field:ident: $type:ty = $offset:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub(super) struct $name {
            pub(super) common: Common,
            $(pub(super) $field: $type,)*
        }
        const _: () = assert!(size_of::<$name>() == $bytes);
        $(const _: () = assert!(core::mem::offset_of!($name, $field) == $offset);)*
    };
}
pub(super) use layout;

layout!(DataLayout, 32, { place: U32 = 12, sequence: U64 = 16, key: U64 = 24, });
layout!(AckLayout, 56, {
    count: U32 = 12, received: U64 = 16, applied: U64 = 24, credit: U64 = 32, granted: U64 = 40,
    oldest_ms: U32 = 48, reserved: U32 = 52,
});
layout!(GapLayout, 40, {
    cause: U16 = 12, reserved: U16 = 14, sequence: U64 = 16, key: U64 = 24, refused: U64 = 32,
});
layout!(TokenLayout, 24, { reserved: U32 = 12, token: U64 = 16, });
layout!(EchoLayout, 40, {
    still_ms: U32 = 12, token: U64 = 16, view_hash: U64 = 24, members: U16 = 32,
    free_pollers: U16 = 34, reserved: U32 = 36,
});
layout!(GoodbyeLayout, 24, { phase: U16 = 12, reason: U16 = 14, sequence: U64 = 16, });
layout!(CloseLayout, 24, { code: U16 = 12, text_length: U16 = 14, sequence: U64 = 16, });

/// The checksum of a frame: of the body, continued over the header without its checksum field. So
/// the body of a message that goes to many members is read once.
pub(super) fn checksum(header: &[u8], body_crc: u32) -> u32 {
    crc32c(crc32c(body_crc, &header[..8]), &header[COMMON_BYTES..])
}

/// Completes a header whose common part is zero.
#[allow(clippy::cast_possible_truncation, reason = "headers and frames are short")]
pub(super) fn seal(header: &mut [u8], kind: Kind, flags: u16, body_bytes: usize, body_crc: u32) {
    let mut common = Common {
        length: U32::new((header.len() + body_bytes) as u32),
        kind: kind as u8,
        header_words: (header.len() / 4) as u8,
        flags: U16::new(flags),
        crc: U32::ZERO,
    };
    header[..COMMON_BYTES].copy_from_slice(common.as_bytes());
    common.crc = U32::new(checksum(header, body_crc));
    header[..COMMON_BYTES].copy_from_slice(common.as_bytes());
}

const BLANK: Common =
    Common { length: U32::ZERO, kind: 0, header_words: 0, flags: U16::ZERO, crc: U32::ZERO };
pub(super) const fn blank() -> Common {
    BLANK
}

/// The header of a DATA frame: a message, or a chunk of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHead {
    /// See [`flags`].
    pub flags: u16,
    /// In the first frame the bytes of all bodies of the message, in a later one the place of its
    /// body among them.
    pub place: u32,
    /// Number of the frame in its stream, from 1.
    pub sequence: u64,
    /// Hash of the message's key, 0 for none.
    pub key: u64,
}

impl DataHead {
    /// The header before a body of `body_bytes` with the CRC-32C `body_crc`.
    #[must_use]
    pub fn encode(&self, body_bytes: usize, body_crc: u32) -> [u8; DATA_BYTES] {
        let layout = DataLayout {
            common: BLANK,
            place: self.place.into(),
            sequence: self.sequence.into(),
            key: self.key.into(),
        };
        sealed(layout, Kind::Data, self.flags, body_bytes, body_crc)
    }
}

fn sealed<T: IntoBytes + Immutable, const N: usize>(
    layout: T,
    kind: Kind,
    flags: u16,
    body_bytes: usize,
    body_crc: u32,
) -> [u8; N] {
    let mut header = [0; N];
    header.copy_from_slice(layout.as_bytes());
    seal(&mut header, kind, flags, body_bytes, body_crc);
    header
}

/// What stands before the payload of a message that came from a Tribes application
/// (`ChannelData`). Rust and C messages have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Envelope {
    /// The sender's wall clock, ms since 1970. Nothing computes with it.
    pub timestamp_ms: i64,
    /// Tribes unique id.
    pub unique_id: [u8; 16],
    /// Tribes option bits.
    pub options: i32,
}

impl Envelope {
    /// Its bytes: timestamp 8, unique id 16, options 4, then 4 reserved.
    #[must_use]
    pub fn encode(&self) -> [u8; ENVELOPE_BYTES] {
        let mut bytes = [0; ENVELOPE_BYTES];
        bytes[..8].copy_from_slice(&self.timestamp_ms.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.unique_id);
        bytes[24..28].copy_from_slice(&self.options.to_le_bytes());
        bytes
    }

    /// Splits an envelope off the front of a body; `None` if the body is too short.
    #[must_use]
    pub fn split(body: &[u8]) -> Option<(Self, &[u8])> {
        let (bytes, payload) = body.split_first_chunk::<ENVELOPE_BYTES>()?;
        let (timestamp, rest) = bytes.split_first_chunk::<8>()?;
        let (unique_id, rest) = rest.split_first_chunk::<16>()?;
        let (options, _) = rest.split_first_chunk::<4>()?;
        let envelope = Self {
            timestamp_ms: i64::from_le_bytes(*timestamp),
            unique_id: *unique_id,
            options: i32::from_le_bytes(*options),
        };
        Some((envelope, payload))
    }
}

/// Outcomes of `count` frames from `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckEntry {
    /// The first, as its distance from the frame's applied point; at least 1.
    pub offset: u32,
    /// How many.
    pub count: u32,
    /// Status number, 0: accepted.
    pub status: u16,
    /// Cause, 0 if there is none beside the status.
    pub cause: u16,
}

/// Bytes of an [`AckEntry`] on the wire.
const ENTRY_BYTES: usize = 12;

impl AckEntry {
    fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..4].copy_from_slice(&self.offset.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.count.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.status.to_le_bytes());
        bytes[10..].copy_from_slice(&self.cause.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
        Self {
            offset: u32::from_le_bytes([a, b, c, d]),
            count: u32::from_le_bytes([e, f, g, h]),
            status: u16::from_le_bytes([i, j]),
            cause: u16::from_le_bytes([k, l]),
        }
    }
}

/// What the receiver of a stream has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// All frames up to this one are held by the receiver's engine.
    pub received: u64,
    /// All messages up to this one have their outcome: accepted, if no entry said otherwise.
    pub applied: u64,
    /// Bytes of frames, counted from the start of the epoch, up to which the sender may send.
    pub credit: u64,
    /// The first frame of the newest message in several frames whose whole length is reserved.
    pub granted: u64,
    /// Age of the oldest delivery without an outcome, in ms; 0 if there is none.
    pub oldest_ms: u32,
    /// Entries as they stand on the wire.
    pub entries: &'a [u8],
}

impl<'a> Ack<'a> {
    /// Most entries of one frame.
    pub const ENTRIES_LIMIT_COUNT: usize = 1024;
    /// Bytes of an ack with so many entries.
    #[must_use]
    pub const fn bytes(entries_count: usize) -> usize {
        size_of::<AckLayout>() + entries_count * ENTRY_BYTES
    }

    /// Appends the frame with `entries` (at most [`Self::ENTRIES_LIMIT_COUNT`]) to `out`; the field
    /// `entries` of `self` is not used.
    #[allow(clippy::cast_possible_truncation, reason = "limited to 1024 by the caller")]
    pub fn encode(&self, entries: &[AckEntry], out: &mut impl bytes::BufMut) {
        let layout = AckLayout {
            common: BLANK,
            count: (entries.len() as u32).into(),
            received: self.received.into(),
            applied: self.applied.into(),
            credit: self.credit.into(),
            granted: self.granted.into(),
            oldest_ms: self.oldest_ms.into(),
            reserved: U32::ZERO,
        };
        let body_crc = entries.iter().fold(0, |crc, entry| crc32c(crc, &entry.encode()));
        let body_bytes = entries.len() * ENTRY_BYTES;
        let header: [u8; 56] = sealed(layout, Kind::Ack, 0, body_bytes, body_crc);
        out.put_slice(&header);
        for entry in entries {
            out.put_slice(&entry.encode());
        }
    }

    /// The entries, in order.
    pub fn entries(&self) -> impl Iterator<Item = AckEntry> + use<'a> {
        self.entries.as_chunks::<ENTRY_BYTES>().0.iter().map(AckEntry::decode)
    }
}

/// Messages that were refused at the sender for want of room: the receiver missed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Status number of the refusal.
    pub cause: u16,
    /// Number in the stream, as a DATA frame's.
    pub sequence: u64,
    /// Hash of the key of the last one, 0: several or none.
    pub key: u64,
    /// How many.
    pub refused: u64,
}

impl Gap {
    /// The frame.
    #[must_use]
    pub fn encode(&self) -> [u8; 40] {
        let layout = GapLayout {
            common: BLANK,
            cause: self.cause.into(),
            reserved: U16::ZERO,
            sequence: self.sequence.into(),
            key: self.key.into(),
            refused: self.refused.into(),
        };
        sealed(layout, Kind::Gap, 0, 0, 0)
    }
}

/// Whether the peer's engine runs, and how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Echo {
    /// For how long no delivery has ended there though some are without an outcome, in ms; 0: none is.
    pub still_ms: u32,
    /// Comes back in the reply.
    pub token: u64,
    /// Hash over the members that it sees.
    pub view_hash: u64,
    /// How many it sees, itself included.
    pub members: u16,
    /// Pollers that wait for something to deliver.
    pub free_pollers: u16,
}

impl Echo {
    /// The frame; [`Kind::Echo`] or [`Kind::EchoReply`].
    #[must_use]
    pub fn encode(&self, reply: bool) -> [u8; 40] {
        let layout = EchoLayout {
            common: BLANK,
            still_ms: self.still_ms.into(),
            token: self.token.into(),
            view_hash: self.view_hash.into(),
            members: self.members.into(),
            free_pollers: self.free_pollers.into(),
            reserved: U32::ZERO,
        };
        sealed(layout, if reply { Kind::EchoReply } else { Kind::Echo }, 0, 0, 0)
    }
}

/// The sender leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// False: it drains, do not address it any more. True: it is gone.
    pub is_final: bool,
    /// Status number.
    pub reason: u16,
    /// Last number of the stream it stands in.
    pub sequence: u64,
}

impl Goodbye {
    /// The frame.
    #[must_use]
    pub fn encode(&self) -> [u8; 24] {
        let layout = GoodbyeLayout {
            common: BLANK,
            phase: u16::from(self.is_final).into(),
            reason: self.reason.into(),
            sequence: self.sequence.into(),
        };
        sealed(layout, Kind::Goodbye, 0, 0, 0)
    }
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'a> {
    /// Status number.
    pub code: u16,
    /// The last frame that was taken.
    pub sequence: u64,
    /// For a log, UTF-8, at most 256 bytes.
    pub text: &'a [u8],
}

impl Close<'_> {
    /// Longest text.
    pub const TEXT_LIMIT_BYTES: usize = 256;

    /// Appends the frame; the text is cut at the limit.
    #[allow(clippy::cast_possible_truncation, reason = "cut at 256")]
    pub fn encode(&self, out: &mut impl bytes::BufMut) {
        let text = &self.text[..self.text.len().min(Self::TEXT_LIMIT_BYTES)];
        let layout = CloseLayout {
            common: BLANK,
            code: self.code.into(),
            text_length: (text.len() as u16).into(),
            sequence: self.sequence.into(),
        };
        let header: [u8; 24] = sealed(layout, Kind::Close, 0, text.len(), crc32c(0, text));
        out.put_slice(&header);
        out.put_slice(text);
    }
}

/// A frame of which one number is all that matters.
fn token(kind: Kind, token: u64) -> [u8; 24] {
    let layout = TokenLayout { common: BLANK, reserved: U32::ZERO, token: token.into() };
    sealed(layout, kind, 0, 0, 0)
}

/// One frame, borrowed from what was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A message or a chunk of one.
    Data {
        /// Its header.
        head: DataHead,
        /// What follows it.
        body: &'a [u8],
    },
    /// See [`Ack`].
    Ack(Ack<'a>),
    /// See [`Gap`].
    Gap(Gap),
    /// So many failed outcomes of this connection's acks are known to the sender of the messages.
    Confirm {
        /// Counted from the start of the connection.
        count: u64,
    },
    /// See [`Echo`].
    Echo(Echo),
    /// See [`Echo`].
    EchoReply(Echo),
    /// See [`Goodbye`].
    Goodbye(Goodbye),
    /// Asks for JOINED when all that was submitted without the asker is finished.
    Join {
        /// Comes back in the answer.
        token: u64,
    },
    /// Answers JOIN.
    Joined {
        /// From the question.
        token: u64,
    },
    /// See [`Close`].
    Close(Close<'a>),
    /// Of an optional kind that this version does not know: to be passed over.
    Optional {
        /// The kind.
        kind: u8,
    },
}

impl Frame<'_> {
    /// A CONFIRM frame.
    #[must_use]
    pub fn encode_confirm(count: u64) -> [u8; 24] {
        token(Kind::Confirm, count)
    }

    /// A JOIN frame, or JOINED.
    #[must_use]
    pub fn encode_join(value: u64, joined: bool) -> [u8; 24] {
        token(if joined { Kind::Joined } else { Kind::Join }, value)
    }
}

/// What a decoder makes of the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// More bytes are needed.
    NeedMore {
        /// Length of the whole frame, once it is known; it is within the limit.
        frame_bytes: Option<usize>,
    },
    /// A whole frame.
    Frame {
        /// The frame.
        frame: Frame<'a>,
        /// Its length.
        consumed_bytes: usize,
    },
}

/// A whole frame that is sound: its common header, its header, its body.
pub(super) struct Sound<'a> {
    pub(super) common: Common,
    pub(super) header: &'a [u8],
    pub(super) body: &'a [u8],
}

/// Checks length, header, flags and checksum, in that order. `Err(Ok(n))`: more is needed.
pub(super) fn sound(
    bytes: &[u8],
    max_frame_bytes: usize,
) -> Result<Sound<'_>, Result<Option<usize>, Error>> {
    let Ok((common, _)) = Common::read_from_prefix(bytes) else {
        // The length alone tells a frame that is too long.
        let Some((length, _)) = bytes.split_first_chunk::<4>() else { return Err(Ok(None)) };
        let length = u32::from_le_bytes(*length);
        return Err(Ok(Some(check_length(length, max_frame_bytes).map_err(Err)?)));
    };
    let frame_bytes = check_length(common.length.get(), max_frame_bytes).map_err(Err)?;
    let header_bytes = usize::from(common.header_words) * 4;
    if header_bytes < COMMON_BYTES || header_bytes > frame_bytes {
        let limit = COMMON_BYTES as u64;
        let error =
            Error { what: What::HeaderLength, offset: 5, value: header_bytes as u64, limit };
        return Err(Err(error));
    }
    let unknown = common.flags.get() & 0xff00 & !flags::MUST_KNOW;
    if unknown != 0 {
        let (value, limit) = (u64::from(common.flags.get()), u64::from(flags::MUST_KNOW | 0xff));
        return Err(Err(Error { what: What::Flags, offset: 6, value, limit }));
    }
    let Some(frame) = bytes.get(..frame_bytes) else { return Err(Ok(Some(frame_bytes))) };
    let (header, body) = frame.split_at(header_bytes);
    let computed = checksum(header, crc32c(0, body));
    if computed != common.crc.get() {
        let (value, limit) = (u64::from(common.crc.get()), u64::from(computed));
        return Err(Err(Error { what: What::Checksum, offset: 8, value, limit }));
    }
    Ok(Sound { common, header, body })
}

fn check_length(length: u32, max_frame_bytes: usize) -> Result<usize, Error> {
    let frame_bytes = length as usize;
    if (COMMON_BYTES..=max_frame_bytes).contains(&frame_bytes) {
        return Ok(frame_bytes);
    }
    let (value, limit) = (u64::from(length), max_frame_bytes as u64);
    Err(Error { what: What::FrameLength, offset: 0, value, limit })
}

pub(super) fn fixed<T: FromBytes + KnownLayout + Immutable>(header: &[u8]) -> Result<T, Error> {
    T::read_from_prefix(header).map(|(layout, _)| layout).map_err(|_| Error {
        what: What::HeaderLength,
        offset: 5,
        value: header.len() as u64,
        limit: size_of::<T>() as u64,
    })
}

/// Takes the frame at the front of `bytes`, if it is whole. Frames longer than `max_frame_bytes`
/// are refused as soon as their length is there.
///
/// # Errors
/// See [`What`]. After an error nothing on the connection can be trusted.
pub fn decode(bytes: &[u8], max_frame_bytes: usize) -> Result<Step<'_>, Error> {
    let sound = match sound(bytes, max_frame_bytes) {
        Ok(sound) => sound,
        Err(Ok(frame_bytes)) => return Ok(Step::NeedMore { frame_bytes }),
        Err(Err(error)) => return Err(error),
    };
    let consumed_bytes = sound.common.length.get() as usize;
    Ok(Step::Frame { frame: interpret(&sound)?, consumed_bytes })
}

fn interpret<'a>(sound: &Sound<'a>) -> Result<Frame<'a>, Error> {
    let Sound { common, header, body } = *sound;
    Ok(match common.kind {
        1 => {
            let layout: DataLayout = fixed(header)?;
            let head = DataHead {
                flags: common.flags.get(),
                place: layout.place.get(),
                sequence: layout.sequence.get(),
                key: layout.key.get(),
            };
            Frame::Data { head, body }
        }
        2 => {
            let layout: AckLayout = fixed(header)?;
            let count = u64::from(layout.count.get());
            let most = (body.len() / ENTRY_BYTES) as u64;
            if count != most || body.len() % ENTRY_BYTES != 0 {
                return Err(Error { what: What::Count, offset: 12, value: count, limit: most });
            }
            Frame::Ack(Ack {
                received: layout.received.get(),
                applied: layout.applied.get(),
                credit: layout.credit.get(),
                granted: layout.granted.get(),
                oldest_ms: layout.oldest_ms.get(),
                entries: body,
            })
        }
        3 => {
            let layout: GapLayout = fixed(header)?;
            Frame::Gap(Gap {
                cause: layout.cause.get(),
                sequence: layout.sequence.get(),
                key: layout.key.get(),
                refused: layout.refused.get(),
            })
        }
        4 => Frame::Confirm { count: fixed::<TokenLayout>(header)?.token.get() },
        kind @ (5 | 6) => {
            let layout: EchoLayout = fixed(header)?;
            let echo = Echo {
                still_ms: layout.still_ms.get(),
                token: layout.token.get(),
                view_hash: layout.view_hash.get(),
                members: layout.members.get(),
                free_pollers: layout.free_pollers.get(),
            };
            if kind == 5 { Frame::Echo(echo) } else { Frame::EchoReply(echo) }
        }
        7 => {
            let layout: GoodbyeLayout = fixed(header)?;
            let phase = layout.phase.get();
            if phase > 1 {
                let value = u64::from(phase);
                return Err(Error { what: What::Enumeration, offset: 12, value, limit: 1 });
            }
            Frame::Goodbye(Goodbye {
                is_final: phase == 1,
                reason: layout.reason.get(),
                sequence: layout.sequence.get(),
            })
        }
        8 => Frame::Join { token: fixed::<TokenLayout>(header)?.token.get() },
        9 => Frame::Joined { token: fixed::<TokenLayout>(header)?.token.get() },
        10 => {
            let layout: CloseLayout = fixed(header)?;
            let length = usize::from(layout.text_length.get());
            let text = body.get(..length).filter(|_| length <= Close::TEXT_LIMIT_BYTES);
            let text = text.ok_or(Error {
                what: What::Count,
                offset: 14,
                value: length as u64,
                limit: body.len().min(Close::TEXT_LIMIT_BYTES) as u64,
            })?;
            Frame::Close(Close { code: layout.code.get(), sequence: layout.sequence.get(), text })
        }
        kind @ OPTIONAL_KIND.. => Frame::Optional { kind },
        kind => {
            return Err(Error { what: What::Kind, offset: 4, value: u64::from(kind), limit: 0 });
        }
    })
}
