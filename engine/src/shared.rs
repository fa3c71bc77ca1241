//! What the threads of one node share.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};

use crate::delivery::DeliveryQueue;
use crate::directory::{Directory, Identity, Incarnation, MemberEntry};
use crate::event::{Event, LogLevel};
use crate::gaps::Gaps;
use crate::gauges::WorkerGauges;
use crate::ids::{BootId, Instant};
use crate::joins::Joins;
use crate::order::Orders;
use crate::phase::Phases;
use crate::protocol::foreign::{Foreign, Named};
use crate::protocol::lately::Lately;
use crate::protocol::stream::Reservations;
use crate::status::Status;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, RwLock};

#[cfg(feature = "planted-bugs")]
pub use crate::planted::Planted;
pub(crate) use crate::planted::planted;

/// The configured bounds that the core needs, checked.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Workers, and streams per link (tcpThreadCount).
    pub worker_count: u16,
    /// Connections to one member, over all workers (poolSize).
    pub pool_size: usize,
    /// Longest wait for an acknowledgement (ackTimeout).
    pub ack_timeout_ms: u64,
    /// Longest wait for a connection (connectTimeout).
    pub connect_timeout_ms: u64,
    /// Longest message.
    pub max_message_bytes: usize,
    /// What may be queued for one member (maxQueueSize).
    pub max_queue_bytes: usize,
    /// Received messages without outcome (maxReceiveBytes).
    pub max_receive_bytes: usize,
    /// Connections that peers may open to this node (maxConnections).
    pub max_connections: usize,
    /// Time between echoes on a reply lane, as between heartbeats (mcastFrequency).
    pub echo_ms: u64,
    /// Silence after which a member has to prove that it lives (mcastDropTime).
    pub drop_time_ms: u64,
    /// The cluster's name (clusterName); empty is a name like any other.
    pub cluster_name: String,
    /// The bug that is planted, if any.
    #[cfg(feature = "planted-bugs")]
    pub planted: Option<Planted>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            worker_count: 2,
            pool_size: 25,
            ack_timeout_ms: 15_000,
            connect_timeout_ms: 1_000,
            max_message_bytes: 256 << 20,
            max_queue_bytes: 64 << 20,
            max_receive_bytes: 256 << 20,
            max_connections: 4096,
            echo_ms: 500,
            drop_time_ms: 3_000,
            cluster_name: String::new(),
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }
}

impl Bounds {
    /// A worker or a whole node that does not run for so long, ms, stood still: others may have given
    /// it up meanwhile, which they do after mcastDropTime at the earliest.
    #[must_use]
    pub const fn standstill_ms(&self) -> u64 {
        self.drop_time_ms / 2
    }

    /// The limits of the wire decoders.
    #[must_use]
    pub fn wire(&self) -> ringtribe_wire::Limits {
        let mut limits = ringtribe_wire::Limits::default();
        limits.max_frame_bytes = self.max_message_bytes + limits.max_member_bytes + 1024;
        limits
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a node counts. Read at any time from any thread; each counter only grows.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: AtomicU64,)* }

        impl Counters {
            /// All counters by name.
            #[must_use]
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

counters! {
    /// Messages submitted, whatever the number of members.
    submitted_count,
    /// Frames handed to the kernel whole.
    frames_sent_count,
    /// Bytes of them.
    frames_sent_bytes,
    /// Vectored sends asked for; frames a send tell how well sends coalesce.
    sends_count,
    /// Acknowledgements received.
    acks_received_count,
    /// Negative acknowledgements received.
    fail_acks_received_count,
    /// Acknowledgements that nothing waited for; the connection is closed.
    unexpected_acks_count,
    /// Messages failed at a member because no acknowledgement came in time.
    ack_timeouts_count,
    /// Messages refused at a member because its queue stayed full.
    queue_full_count,
    /// Messages that failed at a member while nobody waited for them.
    undelivered_count,
    /// Frames sent again on a new connection.
    resent_count,
    /// Messages handed to connections that were lost before anything proved their arrival.
    unconfirmed_count,
    /// Connections opened.
    connects_count,
    /// Connection attempts that failed.
    connect_failures_count,
    /// Connections lost while something was outstanding.
    connections_lost_count,
    /// Connections accepted.
    accepted_count,
    /// Connections refused because there were maxConnections.
    refused_connections_count,
    /// Connections of strangers closed because all places were taken and somebody else came.
    displaced_connections_count,
    /// Messages to the whole group that were dropped: maxReceiveBytes waited for listeners.
    dropped_broadcasts_count,
    /// Connections closed because of what came on them.
    bad_input_count,
    /// Connections closed because TLS came on them.
    tls_hellos_count,
    /// Connections closed because Tomcat 5.5's replication came on them.
    tomcat_55_frames_count,
    /// Frames received whole.
    frames_received_count,
    /// Bytes received.
    received_bytes,
    /// Acknowledgements sent.
    acks_sent_count,
    /// Negative acknowledgements sent.
    fail_acks_sent_count,
    /// Frames recognised as sent again and not delivered twice.
    duplicates_count,
    /// Liveness probes answered.
    probes_answered_count,
    /// Times receiving was held back by maxReceiveBytes.
    receive_pauses_count,
    /// Epochs of links to members that ended.
    epochs_ended_count,
    /// Times an application was told that a member, or this node, missed messages.
    gaps_count,
    /// Times a worker noticed that it had stood still.
    standstills_count,
    /// Received messages that no listener got because their sender had reported them as failed when
    /// their epoch ended.
    too_late_count,
    /// Hellos that were refused, by us or by a peer.
    refused_hellos_count,
    /// System calls of the workers that moved bytes or waited for them.
    io_calls_count,
    /// Times a worker that slept was rung.
    doorbells_count,
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// What the threads of one node share.
#[derive(Debug)]
pub struct Shared {
    /// Configured bounds.
    pub bounds: Bounds,
    /// This incarnation.
    pub boot_id: BootId,
    /// The destinations.
    pub directory: Directory,
    /// From workers to pollers.
    pub deliveries: Arc<DeliveryQueue>,
    /// Duplicates.
    pub lately: Lately,
    /// Counters.
    pub counters: Counters,
    /// What each worker holds.
    pub gauges: Box<[WorkerGauges]>,
    /// The join barrier.
    pub(crate) phases: Phases,
    /// Room for messages that come in several frames.
    pub(crate) reservations: Arc<Reservations>,
    /// Who missed something and was not told yet.
    pub(crate) gaps: Gaps,
    /// Our own questions of the join barrier.
    pub(crate) joins: Joins,
    /// For each worker, since when its oldest delivery waits for an outcome; `u64::MAX` for none.
    oldest_since: Box<[AtomicU64]>,
    /// When a delivery was last seen to have ended, or a piece of a message to have come, ns.
    moved_at: AtomicU64,
    /// Spreads messages without a key over the streams.
    pub(crate) next_stream: AtomicU64,
    orders: OrdersHandle,
    local_package: RwLock<Arc<[u8]>>,
    extension: RwLock<Arc<[u8]>>,
    foreign: Mutex<Named<(Foreign, IpAddr)>>,
}

#[derive(Clone)]
struct OrdersHandle(Arc<dyn Orders>);

impl std::fmt::Debug for OrdersHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Orders")
    }
}

impl Shared {
    /// The shared state of a node that has not started.
    #[must_use]
    pub fn new(bounds: Bounds, boot_id: BootId, orders: Arc<dyn Orders>) -> Arc<Self> {
        Arc::new(Self {
            directory: Directory::new(boot_id, bounds.max_queue_bytes, bounds.worker_count),
            deliveries: DeliveryQueue::new(
                bounds.max_receive_bytes,
                bounds.standstill_ms(),
                Arc::clone(&orders),
            ),
            lately: Lately::new(bounds.ack_timeout_ms),
            counters: Counters::default(),
            gauges: (0..bounds.worker_count).map(|_| WorkerGauges::default()).collect(),
            phases: Phases::new(&orders),
            reservations: Reservations::new(bounds.max_receive_bytes, Arc::clone(&orders)),
            gaps: Gaps::default(),
            joins: Joins::default(),
            moved_at: AtomicU64::new(0),
            oldest_since: (0..bounds.worker_count).map(|_| AtomicU64::new(u64::MAX)).collect(),
            next_stream: AtomicU64::new(0),
            orders: OrdersHandle(orders),
            local_package: RwLock::new(Arc::from([])),
            extension: RwLock::new(Arc::from([])),
            foreign: Mutex::default(),
            boot_id,
            bounds,
        })
    }

    /// The way to the workers.
    #[must_use]
    pub fn orders(&self) -> &dyn Orders {
        &*self.orders.0
    }

    /// This node's member package, which goes with each message.
    #[must_use]
    pub fn local_package(&self) -> Arc<[u8]> {
        Arc::clone(&self.local_package.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces this node's member package.
    pub fn set_local_package(&self, package: Arc<[u8]>) {
        *self.local_package.write().unwrap_or_else(PoisonError::into_inner) = package;
    }

    /// A connection is closed because of what came on it: counted, and said with who sent what.
    /// `connection`: "from" or "to", and where.
    pub(crate) fn accuse(&self, connection: std::fmt::Arguments<'_>, fault: &str) {
        count(&self.counters.bad_input_count, 1);
        let text = format!("connection {connection} closed: it sent {fault}");
        self.deliveries.event(Event::Log { level: LogLevel::Warn, text });
    }

    /// As [`Self::accuse`] of a connection that speaks something known, which is said once of an address
    /// for each such thing.
    pub(crate) fn name_foreign(&self, peer: SocketAddr, foreign: Foreign) {
        foreign.count(&self.counters);
        let mut named = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = named.is_first((foreign, peer.ip()));
        drop(named);
        if is_first {
            self.accuse(format_args!("from {peer}"), &foreign.fault());
        } else {
            count(&self.counters.bad_input_count, 1);
        }
    }

    pub(crate) fn set_oldest_since(&self, worker: u16, since: Option<Instant>) {
        self.oldest_since[usize::from(worker)]
            .store(since.map_or(u64::MAX, |since| since.0), Ordering::Relaxed);
    }

    pub(crate) fn set_moved(&self, now: Instant) {
        self.moved_at.fetch_max(now.0, Ordering::Relaxed);
    }

    /// For how long no delivery of the own format has ended, and no piece of a large message come, though
    /// some are without an outcome, ms, as of the last look; 0: none is. Replies do not count.
    pub(crate) fn still_ms(&self, now: Instant) -> u64 {
        let moved = Instant(self.moved_at.load(Ordering::Relaxed));
        self.oldest_unfinished_ms(now).min(now.ms_since(moved))
    }

    /// Age of the oldest delivery of the own format without an outcome, ms; it is looked at every
    /// 50 ms.
    #[must_use]
    pub fn oldest_unfinished_ms(&self, now: Instant) -> u64 {
        let oldest = self.oldest_since.iter().map(|since| since.load(Ordering::Relaxed)).min();
        oldest.map_or(0, |since| now.ms_since(Instant(since)))
    }

    /// What this node says of itself behind the acknowledgement of a probe that asks for it.
    #[must_use]
    pub fn extension(&self) -> Arc<[u8]> {
        Arc::clone(&self.extension.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces [`Shared::extension`].
    pub fn set_extension(&self, block: Arc<[u8]>) {
        *self.extension.write().unwrap_or_else(PoisonError::into_inner) = block;
    }

    /// The entry of one life of a member; an entry of another life ends.
    pub(crate) fn enter_incarnation(
        &self,
        identity: &Identity,
        package: &[u8],
        incarnation: Option<Incarnation>,
    ) -> Option<Arc<MemberEntry>> {
        let entry = self.directory.enter(identity, package)?;
        let Some(incarnation) = incarnation else { return Some(entry) };
        if entry.set_incarnation(incarnation) {
            return Some(entry);
        }
        self.cut(entry.id, Status::Cut);
        let entry = self.directory.enter(identity, package)?;
        entry.set_incarnation(incarnation);
        Some(entry)
    }
}
