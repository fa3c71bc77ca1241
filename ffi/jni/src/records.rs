//! What a poll hands to Java: records in the caller's direct buffer, in the machine's byte order,
//! each on a multiple of 8 bytes. `org.ringtribe.Records` reads them.

use ringtribe::delivery::Incoming;
use ringtribe::event::Event;
use ringtribe::ids::MemberId;
use ringtribe::status::Status;

/// Bytes before the first record: count 4, reserved 4.
pub(crate) const HEADER_BYTES: usize = 8;

const MESSAGE: u16 = 1;
const MEMBER_ADDED: u16 = 2;
const MEMBER_CHANGED: u16 = 3;
const MEMBER_GONE: u16 = 4;
const COMPLETED: u16 = 5;
const GAP: u16 = 6;
const LOG: u16 = 7;

/// Records being written to a buffer.
pub(crate) struct Writer<'a> {
    room: &'a mut [u8],
    at: usize,
    count: u32,
}

impl<'a> Writer<'a> {
    /// Starts behind the header. The room is at least 64 KiB.
    pub(crate) fn new(room: &'a mut [u8]) -> Self {
        Self { room, at: HEADER_BYTES, count: 0 }
    }

    /// Bytes that are left.
    pub(crate) fn left_bytes(&self) -> usize {
        self.room.len() - self.at
    }

    fn put(&mut self, bytes: &[u8]) {
        let length = bytes.len().min(self.left_bytes());
        self.room[self.at..self.at + length].copy_from_slice(&bytes[..length]);
        self.at += length;
    }

    fn int(&mut self, value: usize) {
        self.put(&u32::try_from(value).unwrap_or(u32::MAX).to_ne_bytes());
    }

    /// One record: total length 4, type 2, reserved 2, then what `fill` writes, padded.
    fn record(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.at;
        self.int(0);
        self.put(&kind.to_ne_bytes());
        self.put(&[0; 2]);
        fill(self);
        let padding = self.at.next_multiple_of(8) - self.at;
        self.put(&[0; 8][..padding]);
        let total = u32::try_from(self.at - start).unwrap_or(u32::MAX);
        self.room[start..start + 4].copy_from_slice(&total.to_ne_bytes());
        self.count += 1;
    }

    /// options 4, sender length 4, timestamp 8, unique id 16, payload length 4, reserved 4, sender,
    /// payload.
    pub(crate) fn message(&mut self, incoming: &Incoming) {
        self.record(MESSAGE, |record| {
            record.put(&incoming.options.to_ne_bytes());
            record.int(incoming.sender.len());
            record.put(&incoming.timestamp_ms.to_ne_bytes());
            record.put(&incoming.unique_id);
            record.int(incoming.payload().len());
            record.put(&[0; 4]);
            record.put(&incoming.sender);
            record.put(incoming.payload());
        });
    }

    /// cause 4, package length 4, member 8, package.
    fn member(&mut self, kind: u16, member: MemberId, cause: Status, package: &[u8]) {
        self.record(kind, |record| {
            record.int(usize::from(cause.number()));
            record.int(package.len());
            record.put(&member.to_bits().to_ne_bytes());
            record.put(package);
        });
    }

    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::MemberAdded { member, package } => {
                self.member(MEMBER_ADDED, *member, Status::Ok, package);
            }
            Event::MemberChanged { member, package } => {
                self.member(MEMBER_CHANGED, *member, Status::Ok, package);
            }
            Event::MemberGone { member, package, cause } => {
                self.member(MEMBER_GONE, *member, *cause, package);
            }
            // failures 4, reserved 4, token 8, then each: member 8, status 4, reserved 4.
            Event::Completed { token, failures } => self.record(COMPLETED, |record| {
                record.int(failures.len());
                record.put(&[0; 4]);
                record.put(&token.to_ne_bytes());
                for (member, status) in failures {
                    record.put(&member.to_bits().to_ne_bytes());
                    record.int(usize::from(status.number()));
                    record.put(&[0; 4]);
                }
            }),
            // here 4 (1: this node missed them), reserved 4, member 8, messages 8.
            Event::Gap { member, here, messages_count } => self.record(GAP, |record| {
                record.int(usize::from(*here));
                record.put(&[0; 4]);
                record.put(&member.to_bits().to_ne_bytes());
                record.put(&messages_count.to_ne_bytes());
            }),
            // level 4, length 4, UTF-8 text.
            Event::Log { level, text } => self.record(LOG, |record| {
                let length = text.floor_char_boundary(32 << 10);
                record.int(*level as usize);
                record.int(length);
                record.put(&text.as_bytes()[..length]);
            }),
        }
    }

    /// Writes the header; returns the bytes of all.
    pub(crate) fn finish(self) -> usize {
        self.room[..4].copy_from_slice(&self.count.to_ne_bytes());
        self.room[4..8].fill(0);
        self.at
    }
}
