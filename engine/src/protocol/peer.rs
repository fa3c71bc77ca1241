//! What one worker has towards one member: Tribes lanes, or streams of the own format, and the
//! change from the first to the second.

use std::sync::Arc;

use ringtribe_wire::native::LaneClass;

use crate::directory::MemberEntry;
use crate::ids::{BootId, Instant};
use crate::io::{ConnId, Io};
use crate::message::Message;
use crate::shared::{Shared, planted};
use crate::status::Status;

use super::lane::{Lane, Queued};
use super::stream::sending::SendStream;

/// One connection to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LaneRef {
    /// A Tribes lane.
    Tribes(usize),
    /// The stream that belongs to this worker.
    Data,
    /// The reply lane.
    Reply,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) entry: Arc<MemberEntry>,
    /// Ordered ones, free ones, and one for replies; made with the first message.
    tribes: Vec<Lane>,
    ordered_count: usize,
    data: Option<Box<SendStream>>,
    reply: Option<Box<SendStream>>,
    /// The member leaves: then what is left fails.
    pub(super) draining: Option<Instant>,
}

impl Peer {
    pub(super) fn new(entry: Arc<MemberEntry>) -> Self {
        Self {
            entry,
            tribes: Vec::new(),
            ordered_count: 0,
            data: None,
            reply: None,
            draining: None,
        }
    }

    /// The Tribes lanes, which do not connect before `settled`.
    pub(super) fn with_tribes(
        &mut self,
        lanes_count: usize,
        settled: Option<Instant>,
    ) -> &mut Self {
        if self.tribes.is_empty() {
            let (id, address) = (self.entry.id, self.entry.address);
            self.ordered_count = lanes_count.div_ceil(2);
            // One more than the lanes for data: the last is the reply lane.
            self.tribes.extend((0..=lanes_count).map(|_| Lane::new(id, address, settled)));
        }
        self
    }

    /// The stream of a class, made if there is none; held while Tribes lanes are in use.
    pub(super) fn stream(
        &mut self,
        boot_id: BootId,
        class: LaneClass,
        worker: u16,
        shared: &Shared,
    ) -> &mut SendStream {
        let held = !self.tribes.is_empty() && !planted!(shared, NotHeld);
        let (place, stream) = match class {
            LaneClass::Data => (&mut self.data, worker),
            LaneClass::Reply => (&mut self.reply, shared.bounds.worker_count),
        };
        let made = place.get_or_insert_with(|| {
            let entry = Arc::clone(&self.entry);
            Box::new(SendStream::new(entry, boot_id, stream, class))
        });
        made.held = held;
        made
    }

    /// The Tribes lane for a message.
    pub(super) fn choose(&self, message: &Message) -> usize {
        let data_count = self.tribes.len() - 1;
        if message.manner.reply {
            return data_count;
        }
        if let Some(key) = message.manner.key {
            return key.lane(self.ordered_count);
        }
        // The first that is free and connected, else the first that is free, else the shortest.
        let free = if self.ordered_count == data_count { 0 } else { self.ordered_count };
        (free..data_count)
            .min_by_key(|n| (self.tribes[*n].load(), !self.tribes[*n].is_used(), *n))
            .unwrap_or(0)
    }

    pub(super) fn push_tribes(&mut self, lane: usize, queued: Queued) {
        self.tribes[lane].push(queued);
    }

    pub(super) fn tribes_count(&self) -> usize {
        self.tribes.len()
    }

    pub(super) fn tribes(&mut self, lane: usize) -> Option<&mut Lane> {
        self.tribes.get_mut(lane)
    }

    pub(super) fn own(&mut self, lane: LaneRef) -> Option<&mut SendStream> {
        match lane {
            LaneRef::Data => self.data.as_deref_mut(),
            LaneRef::Reply => self.reply.as_deref_mut(),
            LaneRef::Tribes(_) => None,
        }
    }

    /// Ends Tribes lanes that the own format follows: each closes its side when it is quiet, and the
    /// member closes the other after its last delivery. When all have, the streams may start.
    pub(super) fn change_over(&mut self, shared: &Shared, io: &mut impl Io) -> bool {
        if self.tribes.is_empty() || (self.data.is_none() && self.reply.is_none()) {
            return false;
        }
        let mut quiet = true;
        for lane in &mut self.tribes {
            quiet &= lane.finish(shared, io);
        }
        if quiet {
            self.tribes.clear();
            for stream in [&mut self.data, &mut self.reply].into_iter().flatten() {
                stream.held = false;
            }
        }
        quiet
    }

    /// Whether nothing is queued or unanswered.
    pub(super) fn is_idle(&self) -> bool {
        let own = [&self.data, &self.reply];
        own.into_iter().flatten().all(|stream| stream.is_idle())
            && self.tribes.iter().all(Lane::is_idle)
    }

    /// Whether one of its streams waits for credit.
    pub(super) fn is_starved(&self) -> bool {
        [&self.data, &self.reply].into_iter().flatten().any(|stream| stream.is_starved())
    }

    /// No new connections: the member leaves.
    pub(super) fn drain(&mut self, until: Instant) {
        self.draining = Some(until);
        for stream in [&mut self.data, &mut self.reply].into_iter().flatten() {
            stream.draining = true;
        }
    }

    /// The epoch has ended: everything fails by name.
    pub(super) fn cut(&mut self, status: Status, shared: &Shared, io: &mut impl Io) {
        for lane in &mut self.tribes {
            lane.cut(status, shared, io);
        }
        for stream in [&mut self.data, &mut self.reply].into_iter().flatten() {
            stream.cut(status, shared, io);
        }
    }

    /// All connections, Tribes or own.
    pub(super) fn conns(&self) -> impl Iterator<Item = ConnId> {
        let own = [&self.data, &self.reply].into_iter().flatten().filter_map(|s| s.conn());
        self.tribes.iter().filter_map(Lane::conn).chain(own)
    }

    /// Whether a Tribes connection is open.
    pub(super) fn has_tribes_conn(&self) -> bool {
        self.tribes.iter().any(|lane| lane.conn().is_some())
    }
}
