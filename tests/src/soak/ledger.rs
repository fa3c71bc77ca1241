//! Who acknowledged what: carried by the messages themselves, so that a receiver can tell at once
//! that a message was lost, and nothing has to be kept for an hour.
//!
//! A *course* is what one life of a sender sends to one life of a receiver under one key (or without
//! key). Its messages are numbered, and each says which of the 64 before it the receiver has
//! acknowledged. Those must have been delivered.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Marks a payload of these tests.
const MAGIC: u32 = 0x6b61_6f53;
/// Bytes before the entries.
const HEAD_BYTES: usize = 16;
/// Bytes of an entry.
const ENTRY_BYTES: usize = 32;
/// A course of a sender that was silent for so long is forgotten.
const SILENT: Duration = Duration::from_secs(600);

/// What a listener is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    Take = 0,
    /// Answer with a message.
    Reply = 1,
    /// Fail after it took the message.
    Fail = 2,
    /// Nothing: it is the answer.
    Answer = 3,
}

impl Wish {
    const fn of(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Take),
            1 => Some(Self::Reply),
            2 => Some(Self::Fail),
            3 => Some(Self::Answer),
            _ => None,
        }
    }
}

/// What a message says to one of its receivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The receiver's life.
    pub receiver: u64,
    /// The course; random.
    pub course: u64,
    /// From 1.
    pub number: u64,
    /// Bit n: the message n + 1 before this one was acknowledged.
    pub acknowledged: u64,
}

/// The least payload for so many receivers, bytes.
#[must_use]
pub const fn least_bytes(entries_count: usize) -> usize {
    HEAD_BYTES + entries_count * ENTRY_BYTES
}

/// Writes a payload: what it says, and a filling that its receiver can check.
///
/// # Panics
/// It is shorter than [`least_bytes`] or has more than 255 entries.
pub fn write(payload: &mut [u8], wish: Wish, sender: u64, entries: &[Entry]) {
    let fill = entries.first().map_or(7, |entry| entry.number.to_le_bytes()[0]);
    payload.fill(fill);
    payload[..4].copy_from_slice(&MAGIC.to_le_bytes());
    payload[4] = wish as u8;
    payload[5] = u8::try_from(entries.len()).expect("few receivers");
    payload[8..16].copy_from_slice(&sender.to_le_bytes());
    for (at, entry) in entries.iter().enumerate() {
        let numbers = [entry.receiver, entry.course, entry.number, entry.acknowledged];
        for (place, number) in numbers.into_iter().enumerate() {
            let from = HEAD_BYTES + at * ENTRY_BYTES + place * 8;
            payload[from..from + 8].copy_from_slice(&number.to_le_bytes());
        }
    }
}

/// A payload that was read.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// What the listener is to do.
    pub wish: Wish,
    /// The sender's life.
    pub sender: u64,
    /// What it says to `receiver`.
    pub entry: Entry,
}

/// Reads a payload as the receiver `receiver`; `None` if it is damaged or not for it.
#[must_use]
pub fn read(payload: &[u8], receiver: u64) -> Option<Read> {
    let number = |at: usize| {
        let bytes = payload.get(at..at + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    if payload.get(..4)? != MAGIC.to_le_bytes() {
        return None;
    }
    let wish = Wish::of(*payload.get(4)?)?;
    let entries_count = usize::from(*payload.get(5)?);
    let rest = payload.get(least_bytes(entries_count)..)?;
    let entry_at = |at: usize| {
        let from = HEAD_BYTES + at * ENTRY_BYTES;
        Some(Entry {
            receiver: number(from)?,
            course: number(from + 8)?,
            number: number(from + 16)?,
            acknowledged: number(from + 24)?,
        })
    };
    let fill = entry_at(0).map_or(7, |entry| entry.number.to_le_bytes()[0]);
    if entries_count > 0 && rest.iter().any(|byte| *byte != fill) {
        return None;
    }
    let entry = (0..entries_count).filter_map(entry_at).find(|entry| entry.receiver == receiver)?;
    Some(Read { wish, sender: number(8)?, entry })
}

/// The sender's side of one course.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    course: u64,
    last: u64,
    /// Bit n: message `last` - n.
    acknowledged: u64,
}

impl Outgoing {
    /// A new course with a name of its own.
    #[must_use]
    pub const fn new(course: u64) -> Self {
        Self { course, last: 0, acknowledged: 0 }
    }

    /// The next message of it.
    pub const fn next(&mut self, receiver: u64) -> Entry {
        let acknowledged = self.acknowledged;
        self.acknowledged <<= 1;
        self.last += 1;
        Entry { receiver, course: self.course, number: self.last, acknowledged }
    }

    /// The receiver acknowledged a message.
    pub const fn acknowledged(&mut self, number: u64) {
        let back = self.last - number;
        if back < 64 {
            self.acknowledged |= 1 << back;
        }
    }
}

/// What the receiver of a course has seen.
#[derive(Clone, Copy, Debug)]
struct Seen {
    highest: u64,
    /// Bit n: message `highest` - n.
    window: u128,
    at: Instant,
}

/// What was found wrong, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Acknowledged, and never delivered.
    pub lost_count: u64,
    /// Delivered twice.
    pub duplicates_count: u64,
    /// Of a key, and delivered after a later one.
    pub disorder_count: u64,
}

/// The courses that one life receives.
#[derive(Debug, Default)]
pub struct Incoming {
    courses: BTreeMap<u64, Seen>,
    taken_count: u64,
    /// What was found.
    pub faults: Faults,
    /// Acknowledgements that were checked.
    pub checked_count: u64,
}

impl Incoming {
    /// A message was delivered.
    pub fn take(&mut self, entry: &Entry, is_ordered: bool, now: Instant) {
        self.taken_count += 1;
        if self.taken_count.is_multiple_of(4096) {
            self.courses.retain(|_, seen| now.saturating_duration_since(seen.at) < SILENT);
        }
        let fresh = Seen { highest: 0, window: 0, at: now };
        let seen = self.courses.entry(entry.course).or_insert(fresh);
        seen.at = now;
        if entry.number > seen.highest {
            let by = u32::try_from(entry.number - seen.highest).unwrap_or(u32::MAX);
            seen.window = seen.window.checked_shl(by).unwrap_or(0) | 1;
            seen.highest = entry.number;
        } else {
            let back = seen.highest - entry.number;
            if back < 128 && seen.window & (1 << back) != 0 {
                self.faults.duplicates_count += 1;
            } else if is_ordered {
                self.faults.disorder_count += 1;
            }
            if back < 128 {
                seen.window |= 1 << back;
            }
        }
        for bit in (0..64).filter(|bit| entry.acknowledged & (1 << bit) != 0) {
            let Some(number) = entry.number.checked_sub(bit + 1) else { continue };
            let back = seen.highest - number;
            if back < 128 {
                self.checked_count += 1;
                self.faults.lost_count += u64::from(seen.window & (1 << back) == 0);
            }
        }
    }

    /// How many courses are remembered.
    #[must_use]
    pub fn courses_count(&self) -> usize {
        self.courses.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(outgoing: &mut Outgoing, acknowledge: bool) -> Entry {
        let entry = outgoing.next(1);
        if acknowledge {
            outgoing.acknowledged(entry.number);
        }
        entry
    }

    #[test]
    fn what_was_acknowledged_and_did_not_come_is_found_by_the_next_that_comes() {
        let now = Instant::now();
        let mut outgoing = Outgoing::new(9);
        let entries: Vec<Entry> = (0..200).map(|n| sent(&mut outgoing, n % 3 != 0)).collect();
        let mut incoming = Incoming::default();
        // Numbers 4, 7, ... were not acknowledged and may be missing.
        entries
            .iter()
            .filter(|e| e.number % 3 != 1)
            .for_each(|entry| incoming.take(entry, true, now));
        assert_eq!(incoming.faults, Faults::default());
        assert!(incoming.checked_count > 1000);

        let mut incoming = Incoming::default();
        entries
            .iter()
            .filter(|e| e.number != 101)
            .for_each(|entry| incoming.take(entry, true, now));
        assert!(incoming.faults.lost_count > 0, "{incoming:?}");

        let mut incoming = Incoming::default();
        entries.iter().skip(50).for_each(|entry| incoming.take(entry, true, now));
        assert!(incoming.faults.lost_count > 0, "nothing is forgiven at the beginning");
    }

    #[test]
    fn twice_and_out_of_order_are_told_apart() {
        let now = Instant::now();
        let mut outgoing = Outgoing::new(9);
        let entries: Vec<Entry> = (0..3).map(|_| sent(&mut outgoing, false)).collect();
        let mut incoming = Incoming::default();
        for at in [0, 2, 1, 1] {
            incoming.take(&entries[at], true, now);
        }
        let found = Faults { lost_count: 0, duplicates_count: 1, disorder_count: 1 };
        assert_eq!(incoming.faults, found);
    }

    #[test]
    fn a_payload_is_read_by_whom_it_names_and_no_byte_may_change() {
        let entry = Entry { receiver: 3, course: 4, number: 5, acknowledged: 6 };
        let other = Entry { receiver: 30, ..entry };
        let mut payload = vec![0; 200];
        write(&mut payload, Wish::Reply, 77, &[other, entry]);
        let found = read(&payload, 3).expect("it is named");
        assert_eq!((found.wish, found.sender, found.entry), (Wish::Reply, 77, entry));
        assert!(read(&payload, 4).is_none());
        payload[150] ^= 1;
        assert!(read(&payload, 3).is_none());
    }
}
