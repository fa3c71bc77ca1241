//! From the workers to the pollers: deliveries in their order, outcomes back.
//!
//! A *line* keeps the order of one key: what stands in it is taken by one poller at a time, and
//! the line stays busy until the outcome of everything taken is reported. What has no line is
//! delivered in parallel. Replies and events have a queue and a poller of their own, so that a
//! listener that waits for a reply cannot keep that reply from being delivered.

mod item;
mod lines;
mod load;
mod standstill;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

pub use item::{
    Delivery, Incoming, Item, LineId, Origin, PollEnd, Polled, PollerClass, RECORD_OVERHEAD_BYTES,
};
use lines::{Line, NO_LINE, Place, Ready, State};
pub use load::ConnLoad;

use crate::event::{Event, LogLevel};
use crate::ids::{Instant, MemberId};
use crate::order::{Order, Orders};
use crate::protocol::stream::StreamOutcomes;
use crate::status::Status;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Queues of lines that are kept to be used again.
const SPARE_COUNT: usize = 256;

/// Log records that may wait for the reserved poller; more are counted and dropped.
const LOGS_LIMIT_COUNT: usize = 256;

/// The queue between workers and pollers of one node.
pub struct DeliveryQueue {
    state: Mutex<State>,
    general: Condvar,
    reserved: Condvar,
    used_bytes: AtomicUsize,
    limit_bytes: usize,
    /// When anything of this node last ran, ns; 0 before it did.
    beat_ns: AtomicU64,
    /// Who does not run for so long stood still.
    still_ms: u64,
    /// Streams of which something may be withheld.
    withheld_count: AtomicUsize,
    orders: Arc<dyn Orders>,
    /// Deliveries taken and outcomes by kind, for statistics.
    pub delivered_count: AtomicU64,
    /// Outcomes other than accepted.
    pub failed_count: AtomicU64,
}

impl std::fmt::Debug for DeliveryQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeliveryQueue")
            .field("used_bytes", &self.used_bytes)
            .finish_non_exhaustive()
    }
}

impl DeliveryQueue {
    /// An empty queue. Receiving is held back while more than `limit_bytes` wait for outcomes. A node
    /// that does not run for `still_ms` stood still.
    #[must_use]
    pub fn new(limit_bytes: usize, still_ms: u64, orders: Arc<dyn Orders>) -> Arc<Self> {
        let mut state = State::default();
        state.lines.insert(NO_LINE, Line::default());
        Arc::new(Self {
            state: Mutex::new(state),
            general: Condvar::new(),
            reserved: Condvar::new(),
            used_bytes: AtomicUsize::new(0),
            limit_bytes,
            beat_ns: AtomicU64::new(0),
            still_ms,
            withheld_count: AtomicUsize::new(0),
            orders,
            delivered_count: AtomicU64::new(0),
            failed_count: AtomicU64::new(0),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the bound on what waits for outcomes is passed.
    #[must_use]
    pub fn is_over_limit(&self) -> bool {
        self.used_bytes.load(Ordering::Relaxed) > self.limit_bytes
    }

    /// Bytes that wait for outcomes.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Opens a line that is not delivered from before the lines `after` are drained.
    pub fn open_line(&self, line: LineId, after: impl IntoIterator<Item = LineId>) {
        let mut state = self.state();
        let after = state.undrained(after);
        state.waiting_lines_count += usize::from(!after.is_empty());
        state.lines.insert(line, Line { after, ..Line::default() });
    }

    /// A stream begins: its lines are not delivered from before the lines `after` are drained.
    pub fn begin_stream(&self, stream: u64, after: impl IntoIterator<Item = LineId>) {
        let mut state = self.state();
        let after = state.undrained(after);
        if !after.is_empty() {
            state.streams_after.insert(stream, after);
        }
    }

    /// Says whether the connection of a line may still hold something unread: lines that come
    /// after it wait as long.
    pub fn hold_line(&self, line: LineId, held: bool) {
        let mut state = self.state();
        match state.lines.get_mut(&line) {
            Some(known) => known.held = held,
            None if held => drop(state.lines.insert(line, Line { held, ..Line::default() })),
            None => return,
        }
        self.after_line_changed(&mut state, line);
    }

    /// Nothing will be added to the line any more; it goes when it is drained.
    pub fn close_line(&self, line: LineId) {
        let mut state = self.state();
        if let Some(closing) = state.lines.get_mut(&line) {
            closing.closed = true;
            closing.held = false;
        }
        self.after_line_changed(&mut state, line);
    }

    /// Hands items over, in order; `items` is left empty.
    pub fn push(&self, items: &mut Vec<Item>) {
        if items.is_empty() {
            return;
        }
        let mut state = self.state();
        let mut general_count = 0;
        let mut reserved = false;
        for item in items.drain(..) {
            let bytes = item.incoming.record_bytes();
            self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
            if let Origin::Connection { load, .. } = &item.origin {
                load.add(bytes);
            }
            let Some(item) = state.withhold_newcomer(item) else { continue };
            if item.reply {
                state.replies.push_back(item);
                reserved = true;
                continue;
            }
            match item.line {
                None => {
                    state.ready.push_back(Ready::Single(item));
                    general_count += 1;
                }
                Some(id) => general_count += state.add(id, Place::Taken(item)),
            }
        }
        let wake_count = general_count.min(state.general_waiting_count);
        let wake_reserved = reserved && state.reserved_waiting_count > 0;
        drop(state);
        for _ in 0..wake_count {
            self.general.notify_one();
        }
        if wake_reserved {
            self.reserved.notify_one();
        }
    }

    /// Keeps the place of a message in its line whose last frames are still to come.
    pub fn reserve(&self, line: LineId, place: u64) {
        self.state().add(line, Place::Open(place));
    }

    /// The message of a reserved place is whole, or (`None`) will never be.
    pub fn fill(&self, line: LineId, place: u64, item: Option<Item>) {
        let mut state = self.state();
        let Some(known) = state.lines.get_mut(&line) else { return };
        let at =
            known.queue.iter().position(|other| matches!(other, Place::Open(p) if *p == place));
        let Some(at) = at else { return };
        match item {
            Some(item) => {
                self.used_bytes.fetch_add(item.incoming.record_bytes(), Ordering::Relaxed);
                known.queue[at] = Place::Taken(item);
            }
            None => drop(known.queue.remove(at)),
        }
        self.after_line_changed(&mut state, line);
    }

    /// Queues an event for the reserved poller.
    pub fn event(&self, event: Event) {
        let mut state = self.state();
        if matches!(event, Event::Log { .. }) {
            if state.logs_count == LOGS_LIMIT_COUNT {
                state.logs_dropped_count += 1;
                return;
            }
            state.logs_count += 1;
        }
        state.events.push_back(event);
        drop(state);
        self.reserved.notify_one();
    }

    /// Takes what is there for a poller of `class` without waiting: messages of one line that fit
    /// `room_bytes` together, at most `most_count`, or one other message; or events. `now` is on the
    /// node's scale.
    pub fn try_poll(
        self: &Arc<Self>,
        class: PollerClass,
        room_bytes: usize,
        most_count: usize,
        now: Instant,
        out: &mut Vec<Polled>,
    ) -> Option<PollEnd> {
        let mut state = self.state();
        self.look(&mut state, now);
        self.take(&mut state, class, room_bytes, most_count, out)
    }

    /// As [`Self::try_poll`], waiting up to `timeout` for something to come. `clock` tells the time
    /// on the node's scale.
    pub fn poll(
        self: &Arc<Self>,
        class: PollerClass,
        room_bytes: usize,
        most_count: usize,
        timeout: Duration,
        clock: impl Fn() -> Instant,
        out: &mut Vec<Polled>,
    ) -> PollEnd {
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let deadline_ns = clock().0.saturating_add(timeout_ns);
        let mut state = self.state();
        loop {
            let now = clock();
            self.look(&mut state, now);
            if let Some(end) = self.take(&mut state, class, room_bytes, most_count, out) {
                return end;
            }
            if now.0 >= deadline_ns {
                return PollEnd::TimedOut;
            }
            let condition = match class {
                PollerClass::General => {
                    state.general_waiting_count += 1;
                    &self.general
                }
                PollerClass::Reserved => {
                    state.reserved_waiting_count += 1;
                    &self.reserved
                }
            };
            state = condition
                .wait_timeout(state, Duration::from_nanos(deadline_ns - now.0))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            match class {
                PollerClass::General => state.general_waiting_count -= 1,
                PollerClass::Reserved => state.reserved_waiting_count -= 1,
            }
        }
    }

    fn take(
        self: &Arc<Self>,
        state: &mut State,
        class: PollerClass,
        room_bytes: usize,
        most_count: usize,
        out: &mut Vec<Polled>,
    ) -> Option<PollEnd> {
        match class {
            PollerClass::Reserved => {
                for member in state.announced.drain(..) {
                    self.orders.push(0, Order::Newcomer { member });
                }
                if let Some(item) = state.replies.front() {
                    if item.incoming.record_bytes() > room_bytes {
                        return Some(PollEnd::Need(item.incoming.record_bytes()));
                    }
                    let item = state.replies.pop_front()?;
                    out.push(Polled::Message(self.delivery(item)));
                    return Some(PollEnd::Taken { more_pollers: false });
                }
                if state.logs_dropped_count > 0 && state.logs_count == 0 {
                    let dropped = std::mem::take(&mut state.logs_dropped_count);
                    state.events.push_back(Event::Log {
                        level: LogLevel::Warn,
                        text: format!("{dropped} log records were dropped: they came too fast"),
                    });
                    state.logs_count += 1;
                }
                if let Some(event) = state.events.pop_front() {
                    if matches!(event, Event::Log { .. }) {
                        state.logs_count -= 1;
                    }
                    if let Event::MemberAdded { member, .. } = &event {
                        state.announced.push(*member);
                    }
                    out.push(Polled::Event(event));
                    return Some(PollEnd::Taken { more_pollers: false });
                }
                state.closed.then_some(PollEnd::Closed)
            }
            PollerClass::General => {
                let needed_bytes = match state.ready.front() {
                    None => return state.closed.then_some(PollEnd::Closed),
                    Some(ready) => state.front(ready).map_or(0, Self::record_bytes),
                };
                if needed_bytes > room_bytes {
                    return Some(PollEnd::Need(needed_bytes));
                }
                self.take_general(state, room_bytes, most_count, out);
                Some(PollEnd::Taken { more_pollers: state.general_waiting_count == 0 })
            }
        }
    }

    fn record_bytes(item: &Item) -> usize {
        item.incoming.record_bytes()
    }

    /// Takes one message, or as many that never wait for another as fit: of one line, and, if more
    /// lines are ready than pollers wait, of several.
    fn take_general(
        self: &Arc<Self>,
        state: &mut State,
        room_bytes: usize,
        most_count: usize,
        out: &mut Vec<Polled>,
    ) {
        let mut left_bytes = room_bytes;
        let mut left_count = most_count;
        let mut turns_count = state.ready.len().div_ceil(state.general_waiting_count + 1);
        while turns_count > 0 && left_count > 0 {
            turns_count -= 1;
            let fits =
                state.ready.front().and_then(|ready| state.front(ready)).is_some_and(|item| {
                    Self::record_bytes(item) <= left_bytes
                        && (item.short || left_count == most_count)
                });
            if !fits {
                break;
            }
            let id = match state.ready.pop_front() {
                Some(Ready::Line(id)) => id,
                Some(Ready::Single(item)) => {
                    left_bytes -= Self::record_bytes(&item);
                    left_count -= 1;
                    let short = item.short;
                    out.push(Polled::Message(self.delivery(item)));
                    if short {
                        continue;
                    }
                    break;
                }
                None => break,
            };
            let Some(line) = state.lines.get_mut(&id) else { continue };
            line.ready = false;
            let mut all_short = true;
            while all_short && left_count > 0 {
                let fits = line.front().is_some_and(|item| {
                    Self::record_bytes(item) <= left_bytes
                        && (item.short || left_count == most_count)
                });
                if !fits {
                    break;
                }
                let Some(Place::Taken(item)) = line.queue.pop_front() else { break };
                left_bytes -= Self::record_bytes(&item);
                left_count -= 1;
                line.taken_count += 1;
                all_short = item.short;
                out.push(Polled::Message(self.delivery(item)));
            }
            if line.may_become_ready() {
                // Nothing of it fitted.
                line.ready = true;
                state.ready.push_front(Ready::Line(id));
                break;
            }
            if !all_short {
                break;
            }
        }
    }

    fn delivery(self: &Arc<Self>, item: Item) -> Delivery {
        self.delivered_count.fetch_add(1, Ordering::Relaxed);
        Delivery {
            incoming: item.incoming,
            origin: item.origin,
            line: item.line,
            queue: Arc::clone(self),
            done: false,
        }
    }

    fn finish(&self, origin: Origin, line: Option<LineId>, bytes: usize, status: Status) {
        if !status.is_ok() {
            self.failed_count.fetch_add(1, Ordering::Relaxed);
        }
        let before = self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        match origin {
            Origin::Connection { worker, conn, sequence, wants_outcome, load } => {
                if wants_outcome {
                    self.orders.push(worker, Order::Outcome { conn, sequence, status });
                }
                if load.ended(bytes, before - bytes < self.limit_bytes / 2) {
                    self.orders.push(worker, Order::Resume { conn });
                }
            }
            Origin::Stream { sequence, wants_outcome, outcomes, reservation } => {
                drop(reservation);
                outcomes.ended(sequence, status, wants_outcome, &*self.orders);
            }
            Origin::Nowhere => {}
        }
        if let Some(id) = line {
            let mut state = self.state();
            if let Some(line) = state.lines.get_mut(&id) {
                line.taken_count -= 1;
            }
            self.after_line_changed(&mut state, id);
        }
    }

    /// Makes a line ready whose turn ended, lets successors of a drained one start, removes it if
    /// nothing more can come.
    fn after_line_changed(&self, state: &mut State, id: LineId) {
        let Some(line) = state.lines.get_mut(&id) else { return };
        let mut made_ready_count = 0;
        if line.may_become_ready() {
            line.ready = true;
            state.ready.push_back(Ready::Line(id));
            made_ready_count += 1;
        } else if line.is_drained() {
            // What belongs to a key comes back with its next message.
            if (line.closed || id.key != 0)
                && let Some(line) = state.lines.remove(&id)
                && state.spare.len() < SPARE_COUNT
            {
                state.spare.push(line.queue);
            }
            state.streams_after.retain(|_, after| {
                after.remove(&id);
                !after.is_empty()
            });
            if state.waiting_lines_count > 0 {
                for (other_id, other) in &mut state.lines {
                    let waited = other.after.remove(&id);
                    if waited && other.after.is_empty() {
                        state.waiting_lines_count -= 1;
                        if other.may_become_ready() {
                            other.ready = true;
                            state.ready.push_back(Ready::Line(*other_id));
                            made_ready_count += 1;
                        }
                    }
                }
            }
        }
        for _ in 0..state.general_waiting_count.min(made_ready_count) {
            self.general.notify_one();
        }
    }

    /// Lines that are open, or have something undelivered.
    #[must_use]
    pub fn lines_count(&self) -> usize {
        // One stands there for ever.
        self.state().lines.len() - 1
    }

    /// Whether nothing is queued and nothing is out with pollers.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.used_bytes() == 0
    }

    /// Wakes every poller; they get what is left, then [`PollEnd::Closed`].
    pub fn close(&self) {
        self.state().closed = true;
        self.general.notify_all();
        self.reserved.notify_all();
    }
}
