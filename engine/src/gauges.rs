//! What a node holds at this moment: when all that happened is over, as much as before it began.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::buffer;
use crate::shared::Shared;

macro_rules! gauges {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What one worker holds. It writes them before it sleeps; any thread may read them.
        #[derive(Debug, Default)]
        pub struct WorkerGauges { $($(#[$doc])* pub $name: AtomicUsize,)* }

        impl WorkerGauges {
            /// The sums over all workers, by name.
            #[must_use]
            pub fn sums(all: &[Self]) -> Vec<(&'static str, u64)> {
                let mut sums = Vec::new();
                $(
                    let held = all.iter().map(|one| one.$name.load(Ordering::Relaxed) as u64);
                    sums.push((stringify!($name), held.sum()));
                )*
                sums
            }
        }
    };
}

gauges! {
    /// Descriptors of connections, of the driver.
    open_connections_count,
    /// Connections that the core knows.
    known_connections_count,
    /// Operations that the kernel has and has not ended, the doorbells aside; 0 on epoll.
    operations_in_flight_count,
    /// Receive buffers taken from the kernel; 0 on epoll.
    lent_buffers_count,
    /// Members that this worker has connections or messages for.
    linked_members_count,
    /// Connections asked for and not there yet.
    connecting_count,
    /// Streams from members in the own format, with a connection or without.
    kept_streams_count,
    /// Deadlines that are watched, also those that have become meaningless.
    deadlines_count,
    /// Tribes messages whose listener runs though their connection is gone.
    orphans_count,
}

/// What a driver holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// Descriptors of connections.
    pub connections_count: usize,
    /// Operations in flight.
    pub operations_count: usize,
    /// Receive buffers.
    pub buffers_count: usize,
}

impl WorkerGauges {
    /// Notes what the driver holds.
    pub fn note(&self, held: Held) {
        set(&self.open_connections_count, held.connections_count);
        set(&self.operations_in_flight_count, held.operations_count);
        set(&self.lent_buffers_count, held.buffers_count);
    }
}

/// Replaces the value of a gauge.
pub(crate) fn set(gauge: &AtomicUsize, value: usize) {
    gauge.store(value, Ordering::Relaxed);
}

impl Shared {
    /// What the node holds, by name. Buffers are those of all nodes of the process.
    #[must_use]
    pub fn held(&self) -> Vec<(&'static str, u64)> {
        let mut list = WorkerGauges::sums(&self.gauges);
        let (used_bytes, idle_bytes) = buffer::used_and_idle_bytes();
        let (missed_count, epochs_count) = self.gaps.remembered_counts();
        let others = [
            ("buffers_used_bytes", used_bytes),
            ("buffers_idle_bytes", idle_bytes),
            ("reserved_bytes", self.reservations.used_bytes()),
            ("delivery_lines_count", self.deliveries.lines_count()),
            ("directory_members_count", self.directory.members_count()),
            ("remembered_lives_count", self.directory.cut_count() + epochs_count),
            ("open_gaps_count", missed_count),
            ("remembered_senders_count", self.lately.senders_count()),
        ];
        list.extend(others.map(|(name, held)| (name, held as u64)));
        list
    }
}
