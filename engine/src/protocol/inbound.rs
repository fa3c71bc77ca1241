//! The streams from other members that one worker has.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use ringtribe_wire::native::{Hello, HelloStatus};

use crate::ids::{BootId, Epoch, Instant};
use crate::io::ConnId;
use crate::shared::{Shared, planted};

use super::core::Crew;
use super::stream::greeting::Refusal;
use super::stream::receiving::ReceiveStream;

/// Streams that are kept though no connection carries them; beyond it the longest idle one goes.
const IDLE_LIMIT_COUNT: usize = 4096;
/// A stream without a connection whose sender is no member goes after so many ackTimeouts. Nothing
/// of it is wanted by then: a sender that still lives begins a new epoch.
const FORGOTTEN_AFTER_TIMEOUTS: u64 = 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    by_number: BTreeMap<u64, ReceiveStream>,
    by_name: BTreeMap<(BootId, u16), u64>,
}

/// A hello that is taken.
#[derive(Debug)]
pub(super) struct Taken {
    /// The stream.
    pub(super) number: u64,
    /// The connection that carried it before: to be closed, its bytes unread.
    pub(super) former: Option<ConnId>,
}

impl Inbound {
    pub(super) fn get(&mut self, number: u64) -> Option<&mut ReceiveStream> {
        self.by_number.get_mut(&number)
    }

    /// Begins or resumes the stream that a hello names.
    #[allow(clippy::too_many_arguments, reason = "what a hello concerns")]
    pub(super) fn hello(
        &mut self,
        hello: &Hello<'_>,
        conn: ConnId,
        peer: SocketAddr,
        worker: u16,
        crew: &Crew,
        shared: &Shared,
        now: Instant,
    ) -> Result<Taken, (Refusal, u64)> {
        let name = (BootId(hello.boot_id), hello.stream);
        let follows = |number: &&u64| {
            !planted!(shared, OldLaneRead) || !self.by_number[*number].is_before(hello)
        };
        let number = match self.by_name.get(&name).filter(follows) {
            Some(number) => {
                let known = &self.by_number[number];
                known.judge(hello).map_err(|refusal| (refusal, hello.epoch))?;
                *number
            }
            None if hello.next_sequence > 1 => {
                let reason = "nothing is known here of what went before".into();
                let refusal = Refusal { status: HelloStatus::Reset, reason };
                return Err((refusal, hello.epoch));
            }
            None => {
                self.make_room(shared, now);
                let number = crew.accepted_number.fetch_add(1, Ordering::Relaxed);
                let stream = ReceiveStream::new(number, worker, hello, peer);
                if !planted!(shared, NotHeld) {
                    // What it sent in Tribes and gave up may still wait here for its listener.
                    shared.deliveries.begin_stream(number, crew.lines.of(hello.tribes_id));
                }
                self.by_number.insert(number, stream);
                self.by_name.insert(name, number);
                number
            }
        };
        if hello.after_cut {
            shared.epoch_after_cut(name.0, Epoch(hello.epoch));
        }
        let stream = self.by_number.get_mut(&number);
        let former = stream.and_then(|stream| stream.attach(conn, hello, peer, shared));
        Ok(Taken { number, former: former.filter(|former| *former != conn) })
    }

    /// An incarnation began an epoch: its streams that hold something of an earlier one end that.
    /// Returns those that have a connection, which is to be closed, its bytes unread.
    pub(super) fn epoch_begins(
        &mut self,
        boot_id: BootId,
        epoch: Epoch,
        shared: &Shared,
        now: Instant,
    ) -> Vec<(u64, ConnId)> {
        let streams = self.by_name.range((boot_id, 0)..=(boot_id, u16::MAX));
        let numbers: Vec<u64> = streams.map(|(_, number)| *number).collect();
        let mut former = Vec::new();
        for number in numbers {
            let Some(stream) = self.by_number.get_mut(&number) else { continue };
            if stream.epoch_begins(epoch, shared)
                && let Some(conn) = stream.conn
            {
                stream.detach(now);
                former.push((number, conn));
            }
        }
        former
    }

    /// Forgets streams of senders that went long ago, and the longest idle one if there are too
    /// many. Its sender, if it lives, begins a new epoch.
    fn make_room(&mut self, shared: &Shared, now: Instant) {
        let most_ms = FORGOTTEN_AFTER_TIMEOUTS * shared.bounds.ack_timeout_ms;
        let idle = || self.by_number.values().filter(|stream| stream.is_idle());
        let went = |stream: &&ReceiveStream| {
            stream.idle_since.is_some_and(|since| now.ms_since(since) >= most_ms)
                && shared.directory.find_boot(stream.boot_id).is_none()
        };
        let gone: Vec<u64> = idle().filter(went).map(|stream| stream.number).collect();
        let oldest = idle().min_by_key(|stream| stream.idle_since).map(|stream| stream.number);
        for number in gone {
            self.forget(number, shared);
        }
        if self.by_number.len() >= IDLE_LIMIT_COUNT
            && let Some(oldest) = oldest
        {
            self.forget(oldest, shared);
        }
    }

    fn forget(&mut self, number: u64, shared: &Shared) {
        if let Some(gone) = self.by_number.remove(&number) {
            self.by_name.remove(&(gone.boot_id, gone.stream));
            gone.forgotten(shared);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Since when the oldest message of all streams waits for its outcome.
    pub(super) fn oldest_since(&self) -> Option<Instant> {
        self.by_number.values().filter_map(ReceiveStream::oldest_since).min()
    }

    /// [`ReceiveStream::moved_count`] of all.
    pub(super) fn moved_count(&self) -> u64 {
        self.by_number.values().map(ReceiveStream::moved_count).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use ringtribe_wire::native::{DataHead, LaneClass, crc32c, flags};

    use super::*;
    use crate::delivery::Origin;
    use crate::directory::{Identity, Incarnation};
    use crate::order::{Order, Orders};
    use crate::shared::Bounds;
    use crate::status::Status;

    #[derive(Default)]
    struct NoOrders(Mutex<Vec<u16>>);

    impl Orders for NoOrders {
        fn push(&self, worker: u16, _: Order) {
            self.0.lock().expect("unpoisoned").push(worker);
        }
    }

    fn hello(life: u8) -> Hello<'static> {
        Hello {
            after_cut: false,
            boot_id: [life; 16],
            expected_boot_id: [99; 16],
            tribes_id: [life; 16],
            cluster_hash: 0,
            epoch: 1,
            stream: 0,
            streams: 2,
            lane_class: LaneClass::Data,
            max_frame_bytes: 1 << 20,
            max_message_bytes: 1 << 30,
            next_sequence: 1,
            member_package: b"package",
            cluster_name: b"",
        }
    }

    #[test]
    fn streams_of_lives_that_ended_are_forgotten_and_those_of_members_are_kept() {
        let shared =
            Shared::new(Bounds::default(), BootId([99; 16]), Arc::new(NoOrders::default()));
        let (crew, mut inbound) = (Crew::default(), Inbound::default());
        let peer = SocketAddr::from(([127, 0, 0, 1], 4000));
        let begin = |inbound: &mut Inbound, life, at_ms| {
            let conn = ConnId { slot: u32::from(life), generation: 1 };
            let now = Instant(0).plus_ms(at_ms);
            let taken = inbound.hello(&hello(life), conn, peer, 0, &crew, &shared, now);
            let number = taken.expect("taken").number;
            inbound.get(number).expect("known").detach(now);
        };
        // Life 1 is a member though its connection is lost; life 2 is gone.
        let identity = Identity { host: vec![127, 0, 0, 1], port: 4000, unique_id: [1; 16] };
        let member = shared.directory.enter(&identity, b"package").expect("usable");
        member.set_incarnation(Incarnation {
            boot_id: BootId([1; 16]),
            features: 0,
            version_min: 1,
            version_max: 1,
        });
        begin(&mut inbound, 1, 0);
        begin(&mut inbound, 2, 0);
        let most_ms = FORGOTTEN_AFTER_TIMEOUTS * shared.bounds.ack_timeout_ms;
        begin(&mut inbound, 3, most_ms - 1);
        assert_eq!(inbound.len(), 3, "a sender may come back");
        begin(&mut inbound, 4, most_ms);
        let lives = |inbound: &Inbound| inbound.by_name.keys().map(|(id, _)| id.0[0]).collect();
        let kept: Vec<u8> = lives(&inbound);
        assert_eq!(kept, [1, 3, 4]);
        assert_eq!(inbound.len(), kept.len());
        // Once it is no member either, nothing keeps it.
        let _ = shared.directory.cut(member.id, Status::Cut);
        begin(&mut inbound, 5, most_ms + 1);
        let kept: Vec<u8> = lives(&inbound);
        assert_eq!(kept, [3, 4, 5]);
    }

    #[test]
    fn a_failure_that_its_sender_does_not_live_to_learn_keeps_nothing() {
        let orders = Arc::new(NoOrders::default());
        let shared = Shared::new(Bounds::default(), BootId([99; 16]), Arc::clone(&orders) as _);
        let (crew, mut inbound) = (Crew::default(), Inbound::default());
        let (peer, conn) =
            (SocketAddr::from(([127, 0, 0, 1], 4000)), ConnId { slot: 0, generation: 1 });
        let taken = inbound.hello(&hello(1), conn, peer, 0, &crew, &shared, Instant(0));
        let stream = inbound.get(taken.expect("taken").number).expect("known");
        let head = DataHead {
            flags: flags::FIRST | flags::LAST | flags::WANT_APPLIED,
            place: 4,
            sequence: 1,
            key: 0,
        };
        let mut bytes = head.encode(4, crc32c(0, b"body")).to_vec();
        bytes.extend_from_slice(b"body");
        let (mut items, mut asked) = (Vec::new(), Vec::new());
        let received = stream.received(&bytes, &mut items, &mut asked, &shared, Instant(0));
        received.expect("a whole frame");
        stream.detach(Instant(0));
        assert!(!stream.is_idle(), "its listener runs");
        let Some(Origin::Stream { sequence, outcomes, .. }) = items.pop().map(|item| item.origin)
        else {
            panic!("a message of a stream");
        };
        outcomes.ended(sequence, Status::RemoteFailed, true, &*orders);
        for ms in [50, 100, 150] {
            stream.look(Instant(0).plus_ms(ms), &shared);
        }
        assert_eq!(stream.deadline(), None, "nothing is left to look for");
        assert!(stream.is_idle());
    }
}
