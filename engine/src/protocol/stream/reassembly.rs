//! A message that comes in several frames.

use crate::buffer::{Buffer, BufferMut};
use crate::delivery::LineId;

use super::reservation::Reservation;

/// Room is given to what has arrived, and doubled, so that a length alone allocates little.
const FIRST_ROOM_BYTES: usize = 1 << 20;

/// See the module. A stream has one at a time.
#[derive(Debug)]
pub(super) struct Reassembly {
    /// Number of its first frame; names its place in its line.
    pub(super) first: u64,
    pub(super) key: u64,
    /// Flags of its first frame.
    pub(super) flags: u16,
    /// Bytes of all bodies.
    pub(super) whole_bytes: usize,
    /// What its first frame cost of the credit.
    pub(super) credit_bytes: u64,
    pub(super) line: Option<LineId>,
    pub(super) reservation: Option<Reservation>,
    buffer: BufferMut,
}

impl Reassembly {
    pub(super) fn new(
        first: u64,
        key: u64,
        flags: u16,
        whole_bytes: usize,
        credit_bytes: u64,
        line: Option<LineId>,
        body: &[u8],
    ) -> Self {
        let room_bytes = whole_bytes.min(FIRST_ROOM_BYTES).max(body.len());
        let mut buffer = BufferMut::with_capacity(room_bytes);
        buffer.vec().extend_from_slice(body);
        Self { first, key, flags, whole_bytes, credit_bytes, line, reservation: None, buffer }
    }

    /// Adds a later body; `last` says that nothing follows.
    pub(super) fn add(&mut self, place: usize, body: &[u8], last: bool) -> Result<(), String> {
        let have_bytes = self.buffer.vec().len();
        if self.reservation.is_none() {
            return Err("a second frame of a message before its room was granted".into());
        }
        if place != have_bytes || body.is_empty() || body.len() > self.whole_bytes - have_bytes {
            return Err(format!(
                "bytes {place}..{} of a message of {} of which {have_bytes} are here",
                place.saturating_add(body.len()),
                self.whole_bytes
            ));
        }
        self.buffer.vec().extend_from_slice(body);
        let is_whole = have_bytes + body.len() == self.whole_bytes;
        if is_whole == last {
            return Ok(());
        }
        Err(format!("the last frame of a message of {} bytes is not marked so", self.whole_bytes))
    }

    /// The whole body, and its room.
    pub(super) fn finish(self) -> (Buffer, Option<Reservation>) {
        (self.buffer.freeze(), self.reservation)
    }
}
