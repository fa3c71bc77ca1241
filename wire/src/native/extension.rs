//! The block that a Ringtribe node appends to its heartbeats, behind the end marker of the member
//! package: which incarnation it is, what it speaks, and how it is.
//!
//! Stock receivers ignore what follows the end marker. The same block follows the acknowledgement
//! of a probe that asks for it ([`PROBE_ID`]).
//!
//! | offset | bytes | |
//! | --- | --- | --- |
//! | 0 | 4 | magic `RTHX` |
//! | 4 | 2 | length of the whole block, in bytes |
//! | 6 | 1 + 1 | least and highest version of the own format |
//! | 8 | 4 | feature bits |
//! | 12 | 16 | boot id |
//! | 28 | 4 | age of the oldest delivery without outcome, ms |
//! | 32 | 2 | members in the view, the sender included; 0: it has no view |
//! | 34 | 2 | flags: 1 ready, 2 draining; others are ignored |
//! | 36 | 8 | hash of the view |
//! | 44 | 4 | CRC |
//! | 48 | | TLVs: type 2, length 2, so many bytes |
//!
//! The CRC is CRC-32C (Castagnoli: polynomial 0x1EDC6F41, reflected, initial value and final
//! exclusive or 0xFFFFFFFF; "123456789" gives 0xE3069283) of the bytes 0 to 43 followed by the
//! bytes from 48 to the end of the block. Unknown TLVs are skipped; of two of one type the first
//! counts. TLV 1 is a member package, TLV 2 the name of the cluster.

use core::fmt;

use bytes::BufMut;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::crc32c;

/// The message id of a probe whose answer is an acknowledgement and then this block, if the node
/// that answers is a Ringtribe node. A stock node acknowledges and sends nothing else.
pub const PROBE_ID: [u8; 16] = *b"RINGTRIBE-PROBE1";

const MAGIC: [u8; 4] = *b"RTHX";
const READY: u16 = 1;
const DRAINING: u16 = 2;
/// Type of the TLV that holds the node's member package.
const PACKAGE: u16 = 1;
/// Type of the TLV that holds the name of the node's cluster.
const CLUSTER_NAME: u16 = 2;
const TLV_HEAD_BYTES: usize = 4;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    magic: [u8; 4],
    length: U16,
    version_min: u8,
    version_max: u8,
    features: U32,
    boot_id: [u8; 16],
    oldest_unfinished_ms: U32,
    members_count: U16,
    flags: U16,
    view_hash: U64,
    crc: U32,
}

const HEAD_BYTES: usize = size_of::<Head>();
const CRC_AT: usize = core::mem::offset_of!(Head, crc);

const _: () = {
    assert!(HEAD_BYTES == 48);
    assert!(core::mem::offset_of!(Head, length) == 4);
    assert!(core::mem::offset_of!(Head, version_min) == 6);
    assert!(core::mem::offset_of!(Head, features) == 8);
    assert!(core::mem::offset_of!(Head, boot_id) == 12);
    assert!(core::mem::offset_of!(Head, oldest_unfinished_ms) == 28);
    assert!(core::mem::offset_of!(Head, members_count) == 32);
    assert!(core::mem::offset_of!(Head, flags) == 34);
    assert!(core::mem::offset_of!(Head, view_hash) == 36);
    assert!(CRC_AT == 44);
};

/// What a Ringtribe node says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// Least version of the own format that it speaks.
    pub version_min: u8,
    /// Highest version of the own format that it speaks.
    pub version_max: u8,
    /// Feature bits.
    pub features: u32,
    /// Its incarnation: 16 random bytes made at its start.
    pub boot_id: [u8; 16],
    /// Age of its oldest delivery without outcome, ms; 0 if there is none.
    pub oldest_unfinished_ms: u32,
    /// Members that it sees, itself included; 0 if it does not learn members.
    pub members_count: u16,
    /// It announces itself; else it is starting or leaving.
    pub ready: bool,
    /// It wants no new messages.
    pub draining: bool,
    /// Hash of the members that it sees, itself included.
    pub view_hash: u64,
    /// Its member package (TLV 1); in answers to probes, where no package stands before the block.
    pub package: Option<&'a [u8]>,
    /// The name of its cluster (TLV 2, which an empty one has not): who has another one is no member of
    /// it, though both share a group.
    pub cluster_name: &'a [u8],
}

/// A block that is refused: what is wrong, with its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtensionError {
    /// The length, or what is there, is less than a block needs: how long, and how long at least.
    Short {
        /// Bytes.
        bytes: usize,
        /// Bytes needed.
        least_bytes: usize,
    },
    /// The CRC does not match the bytes.
    Crc {
        /// As it stands in the block.
        stated: u32,
        /// As it should be.
        computed: u32,
    },
    /// The least version is above the highest, or 0.
    Versions {
        /// Least.
        min: u8,
        /// Highest.
        max: u8,
    },
    /// A TLV ends after the block.
    Tlv {
        /// Its offset in the block.
        offset: usize,
        /// Its length.
        bytes: usize,
        /// What is left of the block.
        left_bytes: usize,
    },
    /// The member package, with the cluster's name, does not fit a block.
    PackageTooLong {
        /// Its length.
        bytes: usize,
        /// The longest that fits.
        most_bytes: usize,
    },
}

impl fmt::Display for ExtensionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { bytes, least_bytes } => {
                write!(f, "a heartbeat extension of {bytes} bytes; it needs {least_bytes}")
            }
            Self::Crc { stated, computed } => write!(
                f,
                "a heartbeat extension whose CRC is {stated:#010x}; its bytes give {computed:#010x}"
            ),
            Self::Versions { min, max } => {
                write!(f, "a heartbeat extension for versions {min} to {max}; they start at 1")
            }
            Self::Tlv { offset, bytes, left_bytes } => write!(
                f,
                "a heartbeat extension whose part at {offset} has {bytes} bytes; {left_bytes} are \
                 left"
            ),
            Self::PackageTooLong { bytes, most_bytes } => write!(
                f,
                "a member package of {bytes} bytes for a heartbeat extension; at most {most_bytes} \
                 fit, shorten the member's payload"
            ),
        }
    }
}

impl core::error::Error for ExtensionError {}

impl<'a> Extension<'a> {
    /// Appends the block.
    ///
    /// # Errors
    /// [`ExtensionError::PackageTooLong`]; nothing is written then.
    pub fn encode(&self, out: &mut impl BufMut) -> Result<(), ExtensionError> {
        let name = Some(self.cluster_name).filter(|name| !name.is_empty());
        let name_bytes = name.map_or(0, |name| TLV_HEAD_BYTES + name.len());
        let most_bytes =
            (u16::MAX as usize - HEAD_BYTES - TLV_HEAD_BYTES).saturating_sub(name_bytes);
        let package = self.package.unwrap_or_default();
        let too_long = ExtensionError::PackageTooLong { bytes: package.len(), most_bytes };
        if package.len() > most_bytes {
            return Err(too_long);
        }
        let tlv_head = |kind: u16, value: Option<&[u8]>| match value {
            None => Ok(None),
            Some(value) => match u16::try_from(value.len()) {
                Ok(bytes) => Ok(Some([U16::new(kind), U16::new(bytes)])),
                Err(_) => Err(too_long),
            },
        };
        let package_head = tlv_head(PACKAGE, self.package)?;
        let name_head = tlv_head(CLUSTER_NAME, name)?;
        let package_head = package_head.as_ref().map(IntoBytes::as_bytes).unwrap_or_default();
        let name_head = name_head.as_ref().map(IntoBytes::as_bytes).unwrap_or_default();
        let tlvs = [package_head, package, name_head, self.cluster_name];
        let length_bytes = HEAD_BYTES + tlvs.iter().map(|part| part.len()).sum::<usize>();
        let flag = |is_set: bool, bit: u16| if is_set { bit } else { 0 };
        let mut head = Head {
            magic: MAGIC,
            length: U16::new(u16::try_from(length_bytes).map_err(|_| too_long)?),
            version_min: self.version_min,
            version_max: self.version_max,
            features: U32::new(self.features),
            boot_id: self.boot_id,
            oldest_unfinished_ms: U32::new(self.oldest_unfinished_ms),
            members_count: U16::new(self.members_count),
            flags: U16::new(flag(self.ready, READY) | flag(self.draining, DRAINING)),
            view_hash: U64::new(self.view_hash),
            crc: U32::new(0),
        };
        let crc = crc32c(0, &head.as_bytes()[..CRC_AT]);
        head.crc = U32::new(tlvs.iter().fold(crc, |crc, part| crc32c(crc, part)));
        out.put_slice(head.as_bytes());
        tlvs.iter().for_each(|part| out.put_slice(part));
        Ok(())
    }

    /// Decodes the block at the front of `bytes`; what follows it is ignored. `None`: there is no
    /// block, but nothing or something else (stock receivers accept any bytes there).
    ///
    /// # Errors
    /// What begins as a block and is not a whole and sound one.
    pub fn decode(bytes: &'a [u8]) -> Result<Option<Self>, ExtensionError> {
        if !bytes.starts_with(&MAGIC) {
            return Ok(None);
        }
        let short = |bytes: usize, least_bytes: usize| ExtensionError::Short { bytes, least_bytes };
        let (head, _) = Head::ref_from_prefix(bytes).map_err(|_| short(bytes.len(), HEAD_BYTES))?;
        let length_bytes = usize::from(head.length.get());
        if length_bytes < HEAD_BYTES {
            return Err(short(length_bytes, HEAD_BYTES));
        }
        let block = bytes.get(..length_bytes).ok_or(short(bytes.len(), length_bytes))?;
        let tlvs = &block[HEAD_BYTES..];
        let (stated, computed) = (head.crc.get(), crc32c(crc32c(0, &block[..CRC_AT]), tlvs));
        if stated != computed {
            return Err(ExtensionError::Crc { stated, computed });
        }
        let (min, max) = (head.version_min, head.version_max);
        if min == 0 || min > max {
            return Err(ExtensionError::Versions { min, max });
        }
        let (package, cluster_name) = values(tlvs)?;
        Ok(Some(Self {
            version_min: min,
            version_max: max,
            features: head.features.get(),
            boot_id: head.boot_id,
            oldest_unfinished_ms: head.oldest_unfinished_ms.get(),
            members_count: head.members_count.get(),
            ready: head.flags.get() & READY != 0,
            draining: head.flags.get() & DRAINING != 0,
            view_hash: head.view_hash.get(),
            package,
            cluster_name: cluster_name.unwrap_or_default(),
        }))
    }
}

/// The values of two TLVs, if they are there.
type Values<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// The member package and the cluster's name among the TLVs.
fn values(tlvs: &[u8]) -> Result<Values<'_>, ExtensionError> {
    let mut rest = tlvs;
    let (mut package, mut name) = (None, None);
    while !rest.is_empty() {
        let offset = HEAD_BYTES + tlvs.len() - rest.len();
        let cut_off =
            |bytes: usize, left_bytes: usize| ExtensionError::Tlv { offset, bytes, left_bytes };
        let ([kind, length], after) =
            <[U16; 2]>::read_from_prefix(rest).map_err(|_| cut_off(TLV_HEAD_BYTES, rest.len()))?;
        let length_bytes = usize::from(length.get());
        let (value, after) =
            after.split_at_checked(length_bytes).ok_or(cut_off(length_bytes, after.len()))?;
        match kind.get() {
            PACKAGE => package = package.or(Some(value)),
            CLUSTER_NAME => name = name.or(Some(value)),
            _ => {}
        }
        rest = after;
    }
    Ok((package, name))
}

/// Whether more bytes behind `bytes` would change what [`Extension::decode`] says of them: for who
/// reads a block from a connection.
#[must_use]
pub fn wants_more(bytes: &[u8]) -> bool {
    if bytes.len() < MAGIC.len() {
        return MAGIC.starts_with(bytes);
    }
    if !bytes.starts_with(&MAGIC) {
        return false;
    }
    let Some(&[low, high]) = bytes.get(4..6) else { return true };
    let length_bytes = usize::from(u16::from_le_bytes([low, high]));
    length_bytes >= HEAD_BYTES && bytes.len() < length_bytes
}
