//! What a node held undelivered while it stood still, or when an epoch ended.
//!
//! A process that was stopped goes on in the middle of what it did. A member that gave it up
//! meanwhile has reported as failed whatever it was not told of, so no listener may get that any
//! more. Whether it did shows when its stream comes back: in the same epoch nothing was reported,
//! in a newer one everything was. Until then what came on the stream is withheld.

use super::*;

/// The stream that a message came on; of a Tribes connection it has none.
fn stream_of(item: &Item) -> Option<u64> {
    match &item.origin {
        Origin::Stream { outcomes, .. } => Some(outcomes.stream()),
        Origin::Connection { .. } | Origin::Nowhere => None,
    }
}

/// Whether the sender was not told of a message when the epoch ended: it reported it as failed. What
/// is left of an epoch before that one was acknowledged as received, and its sequences are others.
fn is_reported_failed(item: &Item, of: &Arc<StreamOutcomes>, said: u64) -> bool {
    matches!(
        &item.origin,
        Origin::Stream { sequence, wants_outcome, outcomes, .. }
            if Arc::ptr_eq(outcomes, of) && (*wants_outcome || *sequence > said)
    )
}

impl Line {
    fn is_of_a_stream(&self) -> bool {
        self.queue.iter().any(|place| match place {
            Place::Taken(item) => stream_of(item).is_some(),
            Place::Open(_) => true,
        })
    }
}

impl State {
    /// Withholds what came without a line if its stream is withheld; gives it back otherwise.
    pub(super) fn withhold_newcomer(&mut self, item: Item) -> Option<Item> {
        let withheld = !self.withheld_until.is_empty()
            && item.line.is_none()
            && stream_of(&item).is_some_and(|stream| self.withheld_until.contains_key(&stream));
        if withheld {
            self.withheld.push_back(item);
            return None;
        }
        Some(item)
    }

    /// Streams of which something waits for a poller.
    fn streams(&self) -> BTreeSet<u64> {
        let lines = self.lines.iter().filter(|(_, line)| line.is_of_a_stream());
        let ready = self.ready.iter().filter_map(|ready| match ready {
            Ready::Single(item) => Some(item),
            Ready::Line(_) => None,
        });
        let single = ready.chain(&self.replies).chain(&self.withheld).filter_map(stream_of);
        lines.map(|(id, _)| id.owner).chain(single).collect()
    }

    /// Withholds everything that came on a stream which may go on.
    fn withhold_all(&mut self, until: Instant) {
        let mut streams = self.streams();
        streams.retain(|stream| !self.forgotten.contains(stream));
        for (id, line) in &mut self.lines {
            if streams.contains(&id.owner) {
                line.withheld = true;
                line.ready = false;
            }
        }
        let is_withheld = |item: &Item| stream_of(item).is_some_and(|s| streams.contains(&s));
        for ready in std::mem::take(&mut self.ready) {
            match ready {
                Ready::Single(item) if is_withheld(&item) => self.withheld.push_back(item),
                Ready::Line(id) if streams.contains(&id.owner) => {}
                other => self.ready.push_back(other),
            }
        }
        for item in std::mem::take(&mut self.replies) {
            let to = if is_withheld(&item) { &mut self.withheld } else { &mut self.replies };
            to.push_back(item);
        }
        self.withheld_until.extend(streams.into_iter().map(|stream| (stream, until)));
    }

    /// Takes out what the sender has reported as failed of an epoch, in the order it came.
    fn take_failed(&mut self, of: &Arc<StreamOutcomes>, said: u64) -> Vec<Item> {
        let mut failed = Vec::new();
        for (_, line) in self.lines.range_mut(lines_of(of.stream())) {
            for place in std::mem::take(&mut line.queue) {
                match place {
                    Place::Taken(item) if is_reported_failed(&item, of, said) => {
                        failed.push(item);
                    }
                    other => line.queue.push_back(other),
                }
            }
            line.ready &= line.front().is_some();
        }
        for ready in std::mem::take(&mut self.ready) {
            match ready {
                Ready::Single(item) if is_reported_failed(&item, of, said) => failed.push(item),
                Ready::Line(id) if self.lines.get(&id).is_none_or(|line| !line.ready) => {}
                other => self.ready.push_back(other),
            }
        }
        for queue in [&mut self.replies, &mut self.withheld] {
            let (gone, kept): (VecDeque<Item>, VecDeque<Item>) = std::mem::take(queue)
                .into_iter()
                .partition(|item| is_reported_failed(item, of, said));
            failed.extend(gone);
            *queue = kept;
        }
        failed
    }
}

fn lines_of(stream: u64) -> std::ops::RangeInclusive<LineId> {
    LineId { owner: stream, key: 0 }..=LineId { owner: stream, key: u64::MAX }
}

impl DeliveryQueue {
    /// A worker runs. If nothing of this node did for long, what came on streams is withheld.
    pub fn beat(&self, now: Instant) {
        if self.stood_still(now) {
            self.look(&mut self.state(), now);
        } else if now.ms_since(Instant(self.beat_ns.load(Ordering::Relaxed))) > 0 {
            self.beat_ns.fetch_max(now.0, Ordering::Relaxed);
        }
    }

    fn stood_still(&self, now: Instant) -> bool {
        let last = Instant(self.beat_ns.load(Ordering::Relaxed));
        last.0 != 0 && now.ms_since(last) >= self.still_ms
    }

    /// A poller, or a worker that noticed a standstill, runs. Whoever comes first after one withholds,
    /// before anything is taken: the beat is moved past a standstill under the lock alone.
    pub(super) fn look(&self, state: &mut State, now: Instant) {
        if self.stood_still(now) {
            // A member that did not give this node up is back within that; one that did, and comes
            // later, finds what waited for an outcome gone.
            state.withhold_all(now.plus_ms(2 * self.still_ms));
            self.withheld_count.store(state.withheld_until.len(), Ordering::Relaxed);
        }
        self.beat_ns.fetch_max(now.0, Ordering::Relaxed);
    }

    /// A stream is forgotten: it never goes on. What its sender reported as failed is taken out, and
    /// returned by count; the rest is delivered, and no standstill withholds it any more.
    pub fn forget_stream(&self, outcomes: &Arc<StreamOutcomes>, said: u64) -> u64 {
        {
            let mut state = self.state();
            let streams = state.streams();
            state.forgotten.retain(|stream| streams.contains(stream));
            state.forgotten.insert(outcomes.stream());
        }
        self.end_epoch(outcomes, said)
    }

    /// A stream goes on in the same epoch: nothing of it was reported as failed.
    pub fn go_on(&self, stream: u64) {
        if self.withheld_count.load(Ordering::Relaxed) > 0 {
            let mut state = self.state();
            if state.withheld_until.contains_key(&stream) {
                self.release(&mut state, stream);
            }
        }
    }

    /// The epoch that has `outcomes` ends, or its sender stays away. What `said`, the last frame that
    /// an ack named as received, does not cover, and what waits for an outcome, was reported as
    /// failed: it is taken out, and returned by count. The rest is delivered.
    pub fn end_epoch(&self, outcomes: &Arc<StreamOutcomes>, said: u64) -> u64 {
        let mut state = self.state();
        let failed = state.take_failed(outcomes, said);
        self.release(&mut state, outcomes.stream());
        drop(state);
        let failed_count = failed.len() as u64;
        for item in failed {
            self.finish(item.origin, None, item.incoming.record_bytes(), Status::Cut);
        }
        failed_count
    }

    /// Withheld streams whose senders stay away.
    pub fn overdue(&self, now: Instant) -> Vec<u64> {
        if self.withheld_count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let state = self.state();
        let due = state.withheld_until.iter().filter(|(_, until)| **until <= now);
        due.map(|(stream, _)| *stream).collect()
    }

    /// What is left of a stream is delivered.
    fn release(&self, state: &mut State, stream: u64) {
        let lines: Vec<LineId> = state.lines.range(lines_of(stream)).map(|(id, _)| *id).collect();
        for id in lines {
            if let Some(line) = state.lines.get_mut(&id) {
                line.withheld = false;
            }
            self.after_line_changed(state, id);
        }
        if state.withheld_until.remove(&stream).is_none() {
            return;
        }
        self.withheld_count.store(state.withheld_until.len(), Ordering::Relaxed);
        for item in std::mem::take(&mut state.withheld) {
            if stream_of(&item) != Some(stream) {
                state.withheld.push_back(item);
            } else if item.reply {
                state.replies.push_back(item);
                self.reserved.notify_one();
            } else {
                state.ready.push_back(Ready::Single(item));
                self.general.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Buffer;

    const STILL_MS: u64 = 500;

    /// Orders that nobody carries out.
    struct Nobody;

    impl Orders for Nobody {
        fn push(&self, _: u16, _: Order) {}
    }

    struct Rig {
        queue: Arc<DeliveryQueue>,
        now: Instant,
        outcomes: BTreeMap<u64, Arc<StreamOutcomes>>,
    }

    impl Rig {
        fn new() -> Self {
            let queue = DeliveryQueue::new(1 << 20, STILL_MS, Arc::new(Nobody));
            let mut rig = Self { queue, now: Instant(1), outcomes: BTreeMap::new() };
            rig.pass(1);
            rig
        }

        fn pass(&mut self, ms: u64) {
            self.now = self.now.plus_ms(ms);
            self.queue.beat(self.now);
        }

        /// Message `sequence` of `stream` comes, with its sequence as payload.
        fn comes(&mut self, stream: u64, key: u64, sequence: u8, wants_outcome: bool, reply: bool) {
            let outcomes = self
                .outcomes
                .entry(stream)
                .or_insert_with(|| Arc::new(StreamOutcomes::new(0, stream)));
            let origin = Origin::Stream {
                sequence: u64::from(sequence),
                wants_outcome,
                outcomes: Arc::clone(outcomes),
                reservation: None,
            };
            let item = Item {
                incoming: Incoming {
                    sender: Arc::from([]),
                    options: 0,
                    timestamp_ms: 0,
                    unique_id: [0; 16],
                    buffer: Buffer::copy_of(&[sequence]),
                    payload_start: 0,
                    payload_end: 1,
                },
                origin,
                line: (key != 0).then_some(LineId { owner: stream, key }),
                reply,
                short: false,
            };
            self.queue.push(&mut vec![item]);
        }

        /// Everything that pollers get now, each listener returning at once.
        fn polled(&mut self) -> Vec<u8> {
            let mut numbers = Vec::new();
            for class in [PollerClass::Reserved, PollerClass::General] {
                let mut taken = Vec::new();
                while self.queue.try_poll(class, 1 << 20, 1, self.now, &mut taken).is_some() {
                    for polled in taken.drain(..) {
                        let Polled::Message(delivery) = polled else { continue };
                        numbers.push(delivery.incoming().payload()[0]);
                        delivery.complete(Status::Ok);
                    }
                }
            }
            numbers
        }

        fn ended(&self, stream: u64) -> Vec<(u64, Status)> {
            let mut taken = Vec::new();
            self.outcomes[&stream].take(&mut taken);
            taken
        }
    }

    #[test]
    fn what_came_before_a_standstill_waits_for_its_stream_and_goes_on_in_order() {
        let mut rig = Rig::new();
        for sequence in 1..=3 {
            rig.comes(7, 5, sequence, true, false);
        }
        rig.comes(7, 0, 4, true, false);
        rig.comes(7, 0, 5, false, true);
        rig.comes(8, 5, 9, true, false);
        // A poller is the first to run: it takes nothing.
        rig.now = rig.now.plus_ms(STILL_MS);
        assert!(rig.polled().is_empty());
        // What still comes in the middle of a worker's turn waits too.
        rig.comes(7, 5, 6, true, false);
        rig.comes(7, 0, 7, true, false);
        rig.comes(7, 6, 8, true, false);
        rig.pass(1);
        assert!(rig.polled().is_empty());
        rig.queue.go_on(7);
        let mut polled = rig.polled();
        assert_eq!(polled.first(), Some(&5), "a reply");
        polled.retain(|number| [1, 2, 3, 6].contains(number));
        assert_eq!(polled, [1, 2, 3, 6]);
        rig.queue.go_on(8);
        assert_eq!(rig.polled(), [9]);
        assert!(rig.queue.is_idle());
    }

    #[test]
    fn a_newer_epoch_drops_what_was_reported_as_failed_and_no_more() {
        for stands_still in [false, true] {
            let mut rig = Rig::new();
            rig.comes(7, 5, 1, false, false);
            rig.comes(7, 5, 2, true, false);
            rig.comes(7, 0, 3, true, false);
            rig.comes(7, 5, 4, false, false);
            rig.comes(7, 0, 5, false, false);
            rig.comes(7, 0, 6, true, true);
            rig.comes(8, 5, 9, true, false);
            if stands_still {
                rig.pass(STILL_MS);
                assert_eq!(rig.queue.overdue(rig.now.plus_ms(2 * STILL_MS)), [7, 8]);
            }
            // An ack has named frame 4.
            assert_eq!(rig.queue.end_epoch(&rig.outcomes[&7], 4), 4);
            let (of_7, of_8): (Vec<u8>, Vec<u8>) = rig.polled().into_iter().partition(|n| *n < 9);
            assert_eq!(of_7, [1, 4]);
            assert_eq!(of_8.is_empty(), stands_still);
            let mut ended = rig.ended(7);
            ended.sort_unstable();
            let cut = |sequence| (sequence, Status::Cut);
            assert_eq!(ended, [(1, Status::Ok), cut(2), cut(3), (4, Status::Ok), cut(5), cut(6)]);
            rig.queue.go_on(8);
            assert_eq!(rig.polled(), if stands_still { vec![9] } else { vec![] });
            assert!(rig.queue.is_idle());
        }
    }

    #[test]
    fn what_was_acknowledged_in_an_earlier_epoch_outlives_the_next_ones() {
        let mut rig = Rig::new();
        for sequence in 1..=9 {
            rig.comes(7, 5, sequence, false, false);
        }
        assert_eq!(rig.queue.end_epoch(&rig.outcomes[&7], 9), 0);
        // The sequences of the next epoch begin again; of these two an ack has named the first.
        rig.outcomes.remove(&7);
        rig.comes(7, 5, 1, false, false);
        rig.comes(7, 5, 2, false, false);
        assert_eq!(rig.queue.end_epoch(&rig.outcomes[&7], 1), 1);
        assert_eq!(rig.polled(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 1]);
    }

    #[test]
    fn what_is_left_of_a_forgotten_stream_is_never_withheld() {
        for stands_still_before in [false, true] {
            let mut rig = Rig::new();
            rig.comes(7, 5, 1, false, false);
            rig.comes(7, 0, 2, false, false);
            rig.comes(7, 0, 3, false, true);
            rig.comes(7, 5, 4, false, false);
            rig.comes(8, 5, 9, false, false);
            if stands_still_before {
                rig.pass(STILL_MS);
            }
            assert_eq!(rig.queue.forget_stream(&rig.outcomes[&7], 3), 1, "4 was not acknowledged");
            rig.pass(STILL_MS);
            let mut polled = rig.polled();
            polled.sort_unstable();
            assert_eq!(polled, [1, 2, 3]);
            rig.queue.forget_stream(&rig.outcomes[&8], 9);
            assert_eq!(rig.polled(), [9]);
            assert_eq!(
                rig.queue.state().forgotten.len(),
                1,
                "no more than what has something left"
            );
            assert!(rig.queue.is_idle());
        }
    }

    #[test]
    fn a_node_that_runs_now_and_then_does_not_stand_still() {
        let mut rig = Rig::new();
        rig.comes(7, 5, 1, true, false);
        for _ in 0..10 {
            rig.pass(STILL_MS - 1);
        }
        assert_eq!(rig.polled(), [1]);
    }
}
