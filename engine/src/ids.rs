//! Names of things: incarnations, members, links, epochs, streams, keys and instants.

use core::fmt;

use ringtribe_wire::native;

/// Nanoseconds on the node's own monotonic scale, zero when the node opened.
///
/// The core never reads a clock: instants come in with events, so that a simulated history can
/// be replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The instant `ms` milliseconds later.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }

    /// So much earlier, not before the beginning.
    #[must_use]
    pub const fn minus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms.saturating_mul(1_000_000)))
    }

    /// Whole milliseconds since `earlier`, 0 when `earlier` is later.
    #[must_use]
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000_000
    }
}

/// One life of one node: 16 random bytes made at each start and never configured.
///
/// The Tribes unique id is only a name beside it, since it can be configured or derived from an
/// address and so survive a restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(pub [u8; 16]);

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// A destination as one node knows it: an index into its directory with a generation, so that a
/// handle to a member that has gone is recognised as stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId {
    /// Place in the directory.
    pub index: u32,
    /// Counts the members that had this place.
    pub generation: u32,
}

impl MemberId {
    /// The id as one number, for C and Java; never negative as `i64`.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        ((self.generation as u64 & 0x7fff_ffff) << 32) | self.index as u64
    }

    /// The reverse of [`MemberId::to_bits`].
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the two halves are cut out on purpose")]
    pub const fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

/// Counts the lives of a link between two incarnations: cutting ends an epoch, coming back
/// begins the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// From this incarnation to that member in this epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// Who sends.
    pub from: BootId,
    /// Who receives. A stock node has no boot id, so the receiver is named by its directory id.
    pub to: MemberId,
    /// The life of the link.
    pub epoch: Epoch,
}

/// Index of an ordered sequence inside a link; stream i belongs to worker i mod workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamIndex(pub u16);

/// What keeps its order: messages of one key from one sender are delivered as submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u64);

impl Key {
    /// The key of `name`, by the hash of the own format: every implementation must hash alike.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        Self(native::hash(name))
    }

    /// The key of a name that the caller has hashed already (any 64-bit hash).
    #[must_use]
    pub const fn from_hash(hash: u64) -> Self {
        Self(native::mix(hash))
    }

    /// A key as it stands on the wire, where 0 means none.
    #[must_use]
    pub const fn to_wire(key: Option<Self>) -> u64 {
        match key {
            None => 0,
            Some(Self(0)) => 1,
            Some(Self(hash)) => hash,
        }
    }

    /// The stream of this key among `streams`.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "a remainder of a u16 fits a u16")]
    pub const fn stream(self, streams: u16) -> StreamIndex {
        StreamIndex((self.0 % streams as u64) as u16)
    }

    /// The lane of this key among `lanes` of one stream. Uses other bits than [`Key::stream`].
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "a remainder of a small count fits")]
    pub const fn lane(self, lanes: usize) -> usize {
        ((self.0 >> 32) % lanes as u64) as usize
    }
}
