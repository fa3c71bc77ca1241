//! How a connection begins: who speaks to whom, which stream it carries, and where it goes on.

use bytes::BufMut;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::crc::crc32c;
use super::error::{Error, What};
use super::frame::{Common, Kind, Sound, blank, fixed, layout, seal, sound};
use super::{MAGIC, MAX_FRAME_BYTES, VERSION};

/// Type of the attribute that holds the opener's member package.
const MEMBER_PACKAGE: u16 = 1;
/// Type of the attribute that holds the cluster's name, UTF-8.
const CLUSTER_NAME: u16 = 2;
/// Type of the attribute of a HELLO_ACK that says in words why it refuses, UTF-8.
const REASON: u16 = 3;

/// Longest member package in a HELLO, in bytes. A longer one is left out, since a part of one is
/// worth nothing; it fits no heartbeat either.
pub const PACKAGE_LIMIT_BYTES: usize = 64_000;
/// Longest cluster name or reason, in bytes; what is longer is cut.
const TEXT_LIMIT_BYTES: usize = 1_024;
const _: () = assert!(128 + 4 + PACKAGE_LIMIT_BYTES + 4 + TEXT_LIMIT_BYTES <= MAX_FRAME_BYTES);

layout!(HelloLayout, 128, {
    version_min: U16 = 12, version_max: U16 = 14, offered: U32 = 16, required: U32 = 20,
    boot_id: [u8; 16] = 24, expected_boot_id: [u8; 16] = 40, tribes_id: [u8; 16] = 56,
    cluster_hash: U64 = 72, epoch: U64 = 80, stream: U16 = 88, streams: U16 = 90,
    lane_class: u8 = 92, auth_kind: u8 = 93, key_id: U16 = 94, max_frame: U32 = 96,
    max_message: U64 = 100, next_sequence: U64 = 108, reserved: [u8; 12] = 116,
});
layout!(HelloAckLayout, 80, {
    version: U16 = 12, status: U16 = 14, features: U32 = 16, boot_id: [u8; 16] = 20,
    epoch: U64 = 36, received: U64 = 44, applied: U64 = 52, credit: U64 = 60, max_frame: U32 = 68,
    granted: U64 = 72,
});

/// What a lane is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneClass {
    /// A stream of messages.
    Data,
    /// Replies, echo, goodbye, join barriers: never behind data.
    Reply,
}

/// The first frame of a connection, from who opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Whether an earlier epoch of this link has ended.
    pub after_cut: bool,
    /// This incarnation.
    pub boot_id: [u8; 16],
    /// Whom the opener wants to reach.
    pub expected_boot_id: [u8; 16],
    /// The opener's Tribes unique id, a name only.
    pub tribes_id: [u8; 16],
    /// [`super::hash`] of the cluster's name.
    pub cluster_hash: u64,
    /// The life of the link.
    pub epoch: u64,
    /// Which stream, below `streams`; of a reply lane `streams`.
    pub stream: u16,
    /// How many streams the opener has.
    pub streams: u16,
    /// What the lane is for.
    pub lane_class: LaneClass,
    /// Longest frame that the opener accepts, bytes.
    pub max_frame_bytes: u32,
    /// Longest message that the opener sends, bytes.
    pub max_message_bytes: u64,
    /// Number of the first frame that was never sent; 1: this epoch of the stream begins.
    pub next_sequence: u64,
    /// The opener's member package (Tribes `MemberImpl`): goes with each delivery.
    pub member_package: &'a [u8],
    /// The cluster's name.
    pub cluster_name: &'a [u8],
}

/// How a hello is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum HelloStatus {
    /// Go on after the received point.
    Ok = 0,
    /// The receiver knows nothing of what went before: cut, and begin a new epoch.
    Reset = 1,
    /// A newer epoch of this link is known.
    OldEpoch = 2,
    /// The incarnation that is expected does not live here.
    WrongIncarnation = 3,
    /// Another cluster's name.
    WrongCluster = 4,
    /// No common version, or a feature is required that the receiver does not have.
    Version = 5,
    /// The boot id is the receiver's own, or another member's.
    BootIdInUse = 6,
    /// The receiver closes.
    Closing = 7,
    /// Something else; the reason says what.
    Refused = 8,
}

impl HelloStatus {
    const ALL: [Self; 9] = [
        Self::Ok,
        Self::Reset,
        Self::OldEpoch,
        Self::WrongIncarnation,
        Self::WrongCluster,
        Self::Version,
        Self::BootIdInUse,
        Self::Closing,
        Self::Refused,
    ];
}

/// The answer to a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloAck<'a> {
    /// Whether, and why not.
    pub status: HelloStatus,
    /// The acceptor's incarnation.
    pub boot_id: [u8; 16],
    /// The epoch it knows.
    pub epoch: u64,
    /// As in an ack.
    pub received: u64,
    /// As in an ack.
    pub applied: u64,
    /// As in an ack.
    pub credit: u64,
    /// As in an ack.
    pub granted: u64,
    /// Longest frame that the acceptor accepts, bytes.
    pub max_frame_bytes: u32,
    /// Why it refuses, for a log; empty if it does not.
    pub reason: &'a [u8],
}

/// Appends `attributes` and completes the header that stands at `start` of `out`.
#[allow(clippy::cast_possible_truncation, reason = "attributes are cut to what fits a frame")]
fn finish(
    out: &mut impl BufMut,
    mut header: impl IntoBytes + FromBytes + Immutable,
    kind: Kind,
    flags: u16,
    attributes: &[(u16, &[u8])],
) {
    let mut crc = 0;
    let mut body_bytes = 0;
    for (number, value) in attributes {
        crc = crc32c(crc, &number.to_le_bytes());
        crc = crc32c(crc32c(crc, &(value.len() as u16).to_le_bytes()), value);
        body_bytes += 4 + value.len();
    }
    out.put_slice(&MAGIC);
    seal(header.as_mut_bytes(), kind, flags, body_bytes, crc);
    out.put_slice(header.as_bytes());
    for (number, value) in attributes {
        out.put_u16_le(*number);
        out.put_u16_le(value.len() as u16);
        out.put_slice(value);
    }
}

/// A text, cut so that it fits beside everything else.
fn cut(text: &[u8]) -> &[u8] {
    &text[..text.len().min(TEXT_LIMIT_BYTES)]
}

impl Hello<'_> {
    /// Appends magic and frame.
    pub fn encode(&self, out: &mut impl BufMut) {
        let layout = HelloLayout {
            common: blank(),
            version_min: VERSION.into(),
            version_max: VERSION.into(),
            offered: U32::ZERO,
            required: U32::ZERO,
            boot_id: self.boot_id,
            expected_boot_id: self.expected_boot_id,
            tribes_id: self.tribes_id,
            cluster_hash: self.cluster_hash.into(),
            epoch: self.epoch.into(),
            stream: self.stream.into(),
            streams: self.streams.into(),
            lane_class: u8::from(self.lane_class == LaneClass::Reply),
            auth_kind: 0,
            key_id: U16::ZERO,
            max_frame: self.max_frame_bytes.into(),
            max_message: self.max_message_bytes.into(),
            next_sequence: self.next_sequence.into(),
            reserved: [0; 12],
        };
        let fits = self.member_package.len() <= PACKAGE_LIMIT_BYTES;
        let package = if fits { self.member_package } else { &[] };
        let attributes = [(MEMBER_PACKAGE, package), (CLUSTER_NAME, cut(self.cluster_name))];
        finish(out, layout, Kind::Hello, u16::from(self.after_cut), &attributes);
    }
}

impl HelloAck<'_> {
    /// Appends magic and frame.
    pub fn encode(&self, out: &mut impl BufMut) {
        let layout = HelloAckLayout {
            common: blank(),
            version: VERSION.into(),
            status: (self.status as u16).into(),
            features: U32::ZERO,
            boot_id: self.boot_id,
            epoch: self.epoch.into(),
            received: self.received.into(),
            applied: self.applied.into(),
            credit: self.credit.into(),
            max_frame: self.max_frame_bytes.into(),
            granted: self.granted.into(),
        };
        let reason = [(REASON, cut(self.reason))];
        let attributes = if self.reason.is_empty() { &[][..] } else { &reason[..] };
        finish(out, layout, Kind::HelloAck, 0, attributes);
    }
}

/// Splits the magic off the front; `None` if more bytes are needed.
fn after_magic(bytes: &[u8]) -> Result<Option<&[u8]>, Error> {
    match bytes.iter().zip(&MAGIC).position(|(is, should)| is != should) {
        Some(offset) => Err(Error {
            what: What::Magic,
            offset,
            value: u64::from(bytes[offset]),
            limit: u64::from(MAGIC[offset]),
        }),
        None => Ok(bytes.get(MAGIC.len()..)),
    }
}

/// The value of the first attribute of a type, empty if there is none.
fn attribute<'a>(sound: &Sound<'a>, wanted: u16) -> Result<&'a [u8], Error> {
    let mut rest = sound.body;
    let mut found = None;
    while !rest.is_empty() {
        let frame_bytes = sound.common.length.get() as usize;
        let offset = MAGIC.len() + frame_bytes - rest.len();
        let refused = |number: u16, left: usize| Error {
            what: What::Attribute,
            offset,
            value: u64::from(number),
            limit: left as u64,
        };
        let Some((&[a, b, c, d], after)) = rest.split_first_chunk::<4>() else {
            return Err(refused(0, rest.len()));
        };
        let (number, length) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        let Some((value, after)) = after.split_at_checked(usize::from(length)) else {
            return Err(refused(number, after.len()));
        };
        if number == wanted {
            found = found.or(Some(value));
        }
        rest = after;
    }
    Ok(found.unwrap_or_default())
}

/// Errors of a frame count from its start; those of a hello from the magic before it.
fn behind_magic(error: Error) -> Error {
    Error { offset: error.offset + MAGIC.len(), ..error }
}

/// A decoded frame and how many bytes it took with its magic; `None`: more are needed.
type Decoded<T> = Result<Option<(T, usize)>, Error>;

fn of_kind(bytes: &[u8], kind: Kind) -> Decoded<Sound<'_>> {
    let Some(frame) = after_magic(bytes)? else { return Ok(None) };
    match sound(frame, MAX_FRAME_BYTES) {
        Ok(sound) if sound.common.kind == kind as u8 => {
            let consumed_bytes = MAGIC.len() + sound.common.length.get() as usize;
            Ok(Some((sound, consumed_bytes)))
        }
        Ok(sound) => {
            let value = u64::from(sound.common.kind);
            Err(Error { what: What::Kind, offset: MAGIC.len() + 4, value, limit: kind as u64 })
        }
        Err(Ok(_)) => Ok(None),
        Err(Err(error)) => Err(behind_magic(error)),
    }
}

/// Takes a HELLO with its magic off the front of `bytes`.
///
/// # Errors
/// See [`What`]. [`What::Version`]: it is sound, but no version is common.
pub fn decode_hello(bytes: &[u8]) -> Decoded<Hello<'_>> {
    let Some((sound, consumed_bytes)) = of_kind(bytes, Kind::Hello)? else { return Ok(None) };
    let layout: HelloLayout = fixed(sound.header).map_err(behind_magic)?;
    let (oldest, newest) = (layout.version_min.get(), layout.version_max.get());
    if oldest > VERSION || newest < VERSION || layout.required.get() != 0 {
        let (value, limit) = (u64::from(oldest), u64::from(VERSION));
        return Err(Error { what: What::Version, offset: MAGIC.len() + 12, value, limit });
    }
    let lane_class = match layout.lane_class {
        0 => LaneClass::Data,
        1 => LaneClass::Reply,
        other => {
            let value = u64::from(other);
            return Err(Error { what: What::Enumeration, offset: 100, value, limit: 1 });
        }
    };
    let hello = Hello {
        after_cut: sound.common.flags.get() & super::flags::AFTER_CUT != 0,
        boot_id: layout.boot_id,
        expected_boot_id: layout.expected_boot_id,
        tribes_id: layout.tribes_id,
        cluster_hash: layout.cluster_hash.get(),
        epoch: layout.epoch.get(),
        stream: layout.stream.get(),
        streams: layout.streams.get(),
        lane_class,
        max_frame_bytes: layout.max_frame.get(),
        max_message_bytes: layout.max_message.get(),
        next_sequence: layout.next_sequence.get(),
        member_package: attribute(&sound, MEMBER_PACKAGE)?,
        cluster_name: attribute(&sound, CLUSTER_NAME)?,
    };
    Ok(Some((hello, consumed_bytes)))
}

/// Takes a HELLO_ACK with its magic off the front of `bytes`.
///
/// # Errors
/// See [`What`]. [`What::Version`]: it accepts, in a version that was not offered.
pub fn decode_hello_ack(bytes: &[u8]) -> Decoded<HelloAck<'_>> {
    let Some((sound, consumed_bytes)) = of_kind(bytes, Kind::HelloAck)? else { return Ok(None) };
    let layout: HelloAckLayout = fixed(sound.header).map_err(behind_magic)?;
    let number = layout.status.get();
    let status = HelloStatus::ALL.get(usize::from(number)).copied().ok_or(Error {
        what: What::Enumeration,
        offset: MAGIC.len() + 14,
        value: u64::from(number),
        limit: HelloStatus::ALL.len() as u64 - 1,
    })?;
    let version = layout.version.get();
    if status == HelloStatus::Ok && version != VERSION {
        let (value, limit) = (u64::from(version), u64::from(VERSION));
        return Err(Error { what: What::Version, offset: MAGIC.len() + 12, value, limit });
    }
    let ack = HelloAck {
        status,
        boot_id: layout.boot_id,
        epoch: layout.epoch.get(),
        received: layout.received.get(),
        applied: layout.applied.get(),
        credit: layout.credit.get(),
        granted: layout.granted.get(),
        max_frame_bytes: layout.max_frame.get(),
        reason: attribute(&sound, REASON)?,
    };
    Ok(Some((ack, consumed_bytes)))
}
