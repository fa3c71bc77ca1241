//! What keeps its order, and what is ready for a poller.

use super::*;

/// A place in a line.
#[derive(Debug)]
pub(super) enum Place {
    Taken(Item),
    /// Of a message whose last frames are still to come.
    Open(u64),
}

#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) queue: VecDeque<Place>,
    pub(super) taken_count: usize,
    pub(super) ready: bool,
    pub(super) closed: bool,
    /// Its connection may hold more that was sent before it was lost.
    pub(super) held: bool,
    /// Nothing is taken before its stream goes on: see [`super::standstill`].
    pub(super) withheld: bool,
    pub(super) after: BTreeSet<LineId>,
}

impl Line {
    pub(super) fn is_drained(&self) -> bool {
        self.queue.is_empty() && self.taken_count == 0 && !self.held
    }

    /// What a poller may take now.
    pub(super) fn front(&self) -> Option<&Item> {
        match self.queue.front() {
            Some(Place::Taken(item)) => Some(item),
            Some(Place::Open(_)) | None => None,
        }
    }

    pub(super) fn may_become_ready(&self) -> bool {
        !self.ready
            && !self.withheld
            && self.taken_count == 0
            && self.after.is_empty()
            && self.front().is_some()
    }
}

#[derive(Debug)]
pub(super) enum Ready {
    Line(LineId),
    Single(Item),
}

/// Stands among the lines for ever: a map that is never empty keeps its memory.
pub(super) const NO_LINE: LineId = LineId { owner: u64::MAX, key: u64::MAX };

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) lines: BTreeMap<LineId, Line>,
    /// Lines that wait for others.
    pub(super) waiting_lines_count: usize,
    /// Of streams whose sender spoke Tribes before: the undelivered lines that theirs come after.
    pub(super) streams_after: BTreeMap<u64, BTreeSet<LineId>>,
    /// Queues of lines that went, to be used again.
    pub(super) spare: Vec<VecDeque<Place>>,
    pub(super) ready: VecDeque<Ready>,
    /// What has no line, of streams that do not go on yet.
    pub(super) withheld: VecDeque<Item>,
    /// Those streams, and until when.
    pub(super) withheld_until: BTreeMap<u64, Instant>,
    /// Streams that never go on: the last one, and those that had something left when it was forgotten.
    pub(super) forgotten: BTreeSet<u64>,
    pub(super) replies: VecDeque<Item>,
    pub(super) events: VecDeque<Event>,
    /// Members whose announcement a reserved poller has taken, until it comes back.
    pub(super) announced: Vec<MemberId>,
    pub(super) logs_count: usize,
    pub(super) logs_dropped_count: u64,
    pub(super) general_waiting_count: usize,
    pub(super) reserved_waiting_count: usize,
    pub(super) closed: bool,
}

impl State {
    /// The message that a poller would take of what is ready.
    pub(super) fn front<'a>(&'a self, ready: &'a Ready) -> Option<&'a Item> {
        match ready {
            Ready::Single(item) => Some(item),
            Ready::Line(id) => self.lines.get(id)?.front(),
        }
    }

    /// Those of some lines that are not drained.
    pub(super) fn undrained(&self, lines: impl IntoIterator<Item = LineId>) -> BTreeSet<LineId> {
        let is_undrained = |id: &LineId| self.lines.get(id).is_some_and(|line| !line.is_drained());
        lines.into_iter().filter(is_undrained).collect()
    }

    /// Adds to a line; returns how many lines became ready.
    pub(super) fn add(&mut self, id: LineId, place: Place) -> usize {
        let (spare, withheld) = (&mut self.spare, &self.withheld_until);
        let (streams_after, waiting) = (&self.streams_after, &mut self.waiting_lines_count);
        let line = self.lines.entry(id).or_insert_with(|| {
            let after = streams_after.get(&id.owner).cloned().unwrap_or_default();
            *waiting += usize::from(!after.is_empty());
            Line {
                queue: spare.pop().unwrap_or_default(),
                withheld: withheld.contains_key(&id.owner),
                after,
                ..Line::default()
            }
        });
        line.queue.push_back(place);
        if !line.may_become_ready() {
            return 0;
        }
        line.ready = true;
        self.ready.push_back(Ready::Line(id));
        1
    }
}
