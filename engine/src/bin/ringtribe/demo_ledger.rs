//! What the demo's members send, what they keep, and what was acknowledged of it: the ledger that
//! the verdict stands on.

use std::collections::BTreeMap;

use ringtribe::ids::Key;

/// Shortest message: who sent it, its key and its version.
pub(crate) const HEAD_BYTES: usize = 16;
/// Keys of each member.
pub(crate) const KEYS_COUNT: u32 = 256;

/// A key of a member: like a session, only its owner writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) owner: u8,
    pub(crate) key: u32,
}

impl Name {
    /// What keeps the order of its messages.
    pub(crate) fn order(self) -> Key {
        Key::from_hash((u64::from(self.owner) << 32) | u64::from(self.key))
    }

    /// Writes the value of `version`: every byte of it follows from name and version.
    pub(crate) fn fill(self, version: u64, out: &mut [u8]) {
        let (head, body) = out.split_at_mut(HEAD_BYTES);
        head[..4].copy_from_slice(&u32::from(self.owner).to_le_bytes());
        head[4..8].copy_from_slice(&self.key.to_le_bytes());
        head[8..].copy_from_slice(&version.to_le_bytes());
        let mut word = u64::from(self.order().stream(u16::MAX).0);
        for chunk in body.chunks_mut(8) {
            word = (version ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
    }

    /// Name and version of a value; `None` if it is none.
    pub(crate) fn read(value: &[u8]) -> Option<(Self, u64)> {
        let head = value.first_chunk::<HEAD_BYTES>()?;
        let owner = u8::try_from(u32::from_le_bytes(*head.first_chunk()?)).ok()?;
        let key = u32::from_le_bytes(*head[4..].first_chunk()?);
        let version = u64::from_le_bytes(*head[8..].first_chunk()?);
        Some((Self { owner, key }, version))
    }
}

/// 64-bit FNV-1a.
pub(crate) fn digest(value: &[u8]) -> u64 {
    value.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The last value of each key, as one member keeps it.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    values: BTreeMap<Name, (u64, Vec<u8>)>,
    /// Messages by their owner, kept or not.
    received: BTreeMap<u8, u64>,
    /// Messages that came behind a newer one of their key.
    pub(crate) out_of_order_count: u64,
}

impl Replica {
    /// Takes a value over; false if it cannot be read. `keep` is false for the self-test.
    pub(crate) fn apply(&mut self, value: &[u8], keep: impl Fn(Name) -> bool) -> bool {
        let Some((name, version)) = Name::read(value) else { return false };
        *self.received.entry(name.owner).or_default() += 1;
        if !keep(name) {
            return true;
        }
        let (last, kept) = self.values.entry(name).or_default();
        if version < *last {
            self.out_of_order_count += 1;
        } else {
            *last = version;
            kept.clear();
            kept.extend_from_slice(value);
        }
        true
    }

    /// Messages of `owner` that came.
    pub(crate) fn received_count(&self, owner: u8) -> u64 {
        self.received.get(&owner).copied().unwrap_or(0)
    }

    /// Version and digest of every value.
    pub(crate) fn holdings(&self) -> Holdings {
        let held = |(name, (version, value)): (&Name, &(u64, Vec<u8>))| {
            (*name, Held { version: *version, digest: digest(value) })
        };
        self.values.iter().map(held).collect()
    }
}

/// What a member says that it holds for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) version: u64,
    pub(crate) digest: u64,
}

/// All that a member says that it holds.
pub(crate) type Holdings = BTreeMap<Name, Held>;

/// What was acknowledged: key and member to the newest version, kept by the demo itself, outside of
/// all members.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    newest: BTreeMap<(u8, Name), u64>,
}

impl Ledger {
    /// A send of this value returned, and `member` was not among those that failed.
    pub(crate) fn acknowledged(&mut self, member: u8, name: Name, version: u64) {
        let newest = self.newest.entry((member, name)).or_default();
        *newest = version.max(*newest);
    }

    /// Compares with what `member` holds: each acknowledged value must be there, or a newer one, and
    /// its bytes must be those of its version.
    pub(crate) fn check(&self, member: u8, holdings: &Holdings, size_bytes: usize) -> Check {
        let mut check = Check::default();
        let mut expected = vec![0; size_bytes];
        for ((_, name), version) in self
            .newest
            .range((member, Name { owner: 0, key: 0 })..)
            .take_while(|((m, _), _)| *m == member)
        {
            check.keys_count += 1;
            let Some(held) = holdings.get(name) else {
                check.missing_count += 1;
                continue;
            };
            if held.version < *version {
                check.older_count += 1;
                continue;
            }
            name.fill(held.version, &mut expected);
            if digest(&expected) != held.digest {
                check.damaged_count += 1;
            }
        }
        check
    }
}

/// How a member's map compares with what was acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Check {
    /// Keys with something acknowledged.
    pub(crate) keys_count: u64,
    /// Of them, not there.
    pub(crate) missing_count: u64,
    /// Of them, there with an older version.
    pub(crate) older_count: u64,
    /// Of them, there with other bytes than were sent.
    pub(crate) damaged_count: u64,
}

impl Check {
    /// Keys whose acknowledged value is there, or a newer one.
    pub(crate) fn good_count(&self) -> u64 {
        self.keys_count - self.missing_count - self.older_count - self.damaged_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: Name, version: u64) -> Vec<u8> {
        let mut value = vec![0; 100];
        name.fill(version, &mut value);
        value
    }

    #[test]
    fn what_is_acknowledged_and_not_held_is_found() {
        let name = |key| Name { owner: 1, key };
        let mut replica = Replica::default();
        let mut ledger = Ledger::default();
        for key in 0..4 {
            ledger.acknowledged(2, name(key), 7);
            ledger.acknowledged(2, name(key), 6);
            ledger.acknowledged(3, name(key), 9);
        }
        assert!(replica.apply(&value(name(0), 7), |_| true));
        assert!(replica.apply(&value(name(0), 8), |_| true));
        assert!(replica.apply(&value(name(1), 6), |_| true));
        assert!(replica.apply(&value(name(2), 7), |_| false), "acknowledged, not kept");
        let mut damaged = value(name(3), 7);
        damaged[99] ^= 1;
        assert!(replica.apply(&damaged, |_| true));
        assert!(!replica.apply(&damaged[..15], |_| true), "no value");
        assert_eq!(replica.received_count(1), 5);
        let check = ledger.check(2, &replica.holdings(), 100);
        let expected = Check { keys_count: 4, missing_count: 1, older_count: 1, damaged_count: 1 };
        assert_eq!((check, check.good_count()), (expected, 1));
        assert_eq!(ledger.check(4, &replica.holdings(), 100), Check::default());

        assert_eq!(replica.out_of_order_count, 0);
        assert!(replica.apply(&value(name(0), 7), |_| true));
        assert_eq!(replica.out_of_order_count, 1);
        assert_eq!(replica.holdings()[&name(0)].version, 8, "the newer one stays");
    }
}
