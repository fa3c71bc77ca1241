//! A frame that has begun has to come further: who sends half of one and then a byte now and then
//! would keep a connection, and what it holds, for ever.

use crate::ids::Instant;

/// Bytes that each ackTimeout brings of a frame that has begun, unless it is whole before. Who is
/// slower than this has given its message up, and a sender of a frame that is shorter too.
pub(crate) const PROGRESS_BYTES: u64 = 64 << 10;

/// How the frames of one connection come along.
#[derive(Debug, Default)]
pub(crate) struct HalfFrame {
    /// Bytes of the connection so far.
    came_bytes: u64,
    /// While a frame is not whole: since when it is watched, and how many bytes had come by then.
    mark: Option<(Instant, u64)>,
    /// The worker looks again then.
    due: Option<Instant>,
}

impl HalfFrame {
    /// Bytes came; `is_half`: they end inside a frame, `is_new`: of which none were there before.
    /// Returns when to [`Self::look`] first.
    pub(crate) fn note(
        &mut self,
        bytes: usize,
        is_half: bool,
        is_new: bool,
        limit_ms: u64,
        now: Instant,
    ) -> Option<Instant> {
        self.came_bytes += bytes as u64;
        if !is_half {
            self.mark = None;
            return None;
        }
        if is_new || self.mark.is_none() {
            self.mark = Some((now, self.came_bytes));
        }
        if self.due.is_some() {
            return None;
        }
        self.due = Some(now.plus_ms(limit_ms));
        self.due
    }

    /// The time has come: when to look again if it goes on well, or how many bytes came in all this
    /// time. `is_excused`: this node did not read meanwhile.
    pub(crate) fn look(
        &mut self,
        limit_ms: u64,
        is_excused: bool,
        now: Instant,
    ) -> Result<Option<Instant>, u64> {
        if self.due.is_none_or(|due| due > now) {
            return Ok(None);
        }
        self.due = None;
        let Some((since, came_bytes)) = self.mark else { return Ok(None) };
        if now >= since.plus_ms(limit_ms) {
            let more_bytes = self.came_bytes - came_bytes;
            if more_bytes < PROGRESS_BYTES && !is_excused {
                return Err(more_bytes);
            }
            self.mark = Some((now, self.came_bytes));
        }
        self.due = self.mark.map(|(since, _)| since.plus_ms(limit_ms));
        Ok(self.due)
    }
}

/// What a peer is told that a frame does not come along.
pub(crate) fn fault(more_bytes: u64, limit_ms: u64) -> String {
    format!(
        "the beginning of a frame and then {more_bytes} bytes within ackTimeout ({limit_ms} ms) where \
         {PROGRESS_BYTES} or its end have to come: look at the peer and the network, or raise ackTimeout"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT_MS: u64 = 1_000;

    fn at(ms: u64) -> Instant {
        Instant(0).plus_ms(ms)
    }

    #[test]
    fn a_trickle_ends_and_what_comes_along_does_not() {
        let mut half = HalfFrame::default();
        assert_eq!(half.note(10, true, true, LIMIT_MS, at(0)), Some(at(1_000)));
        assert_eq!(half.note(1, true, false, LIMIT_MS, at(900)), None);
        assert_eq!(half.look(LIMIT_MS, false, at(1_000)), Err(1));

        let mut half = HalfFrame::default();
        assert_eq!(half.note(10, true, true, LIMIT_MS, at(0)), Some(at(1_000)));
        assert_eq!(half.note(64 << 10, true, false, LIMIT_MS, at(900)), None);
        assert_eq!(half.look(LIMIT_MS, false, at(1_000)), Ok(Some(at(2_000))));
        assert_eq!(half.look(LIMIT_MS, false, at(2_000)), Err(0));
    }

    #[test]
    fn the_time_of_a_frame_starts_with_it_and_not_while_nothing_is_read() {
        let mut half = HalfFrame::default();
        assert_eq!(half.note(10, true, true, LIMIT_MS, at(0)), Some(at(1_000)));
        // It is whole, and another one begins.
        assert_eq!(half.note(10, true, true, LIMIT_MS, at(800)), None);
        assert_eq!(half.look(LIMIT_MS, false, at(1_000)), Ok(Some(at(1_800))));
        assert_eq!(half.look(LIMIT_MS, true, at(1_800)), Ok(Some(at(2_800))));
        assert_eq!(half.note(10, false, false, LIMIT_MS, at(2_000)), None);
        assert_eq!(
            half.look(LIMIT_MS, false, at(2_800)),
            Ok(None),
            "between frames nothing is due"
        );
        assert_eq!(half.note(10, true, true, LIMIT_MS, at(9_000)), Some(at(10_000)));
    }
}
