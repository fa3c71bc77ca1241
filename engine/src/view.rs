//! What membership found goes into the directory, to the workers and to the pollers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringtribe_wire::tribes::{self, Datagram};

use crate::buffer::Buffer;
use crate::delivery::{Incoming, Item, Origin};
use crate::directory::MemberEntry;
use crate::event::Event;
use crate::ids::MemberId;
use crate::order::Order;
use crate::protocol::membership::Output;
use crate::shared::{Shared, count};
use crate::status::Status;

impl Shared {
    /// Takes over what membership found.
    pub fn apply(&self, output: Output) {
        let deliveries = &self.deliveries;
        match output {
            Output::Added { identity, package, incarnation, vitals } => {
                let Some(entry) = self.enter_incarnation(&identity, &package, incarnation) else {
                    return;
                };
                entry.set_package(package.into());
                entry.set_vitals(vitals);
                deliveries.event(Event::MemberAdded { member: entry.id, package: entry.package() });
                self.own_format_begins(&entry);
            }
            Output::Changed { identity, package, incarnation } => {
                let Some(entry) = self.directory.find(&identity) else { return };
                if let Some(incarnation) = incarnation {
                    entry.set_incarnation(incarnation);
                    self.own_format_begins(&entry);
                }
                // The alive time is 8 bytes at offset 14. The format is nothing to listeners.
                let changed = entry.package().get(22..) != package.get(22..);
                entry.set_package(package.into());
                if changed {
                    let (member, package) = (entry.id, entry.package());
                    deliveries.event(Event::MemberChanged { member, package });
                }
            }
            Output::Vitals { identity, vitals } => {
                let Some(entry) = self.directory.find(&identity) else { return };
                entry.set_vitals(vitals);
            }
            Output::Extension(block) => self.set_extension(block.into()),
            Output::Gone { identity, package, cause } => {
                let Some(entry) = self.directory.find(&identity) else { return };
                self.directory.went(&identity);
                self.cut(entry.id, cause);
                let (member, package) = (entry.id, package.into());
                deliveries.event(Event::MemberGone { member, package, cause });
            }
            Output::Broadcast { bytes } => self.broadcast_received(&bytes),
            Output::Log { level, text } => deliveries.event(Event::Log { level, text }),
            Output::SendDatagram(_) | Output::Probe { .. } => {}
        }
    }

    /// A member is known to speak the own format: its reply lane opens, and what it and this node
    /// missed of each other is told.
    fn own_format_begins(&self, entry: &Arc<MemberEntry>) {
        let Some(boot_id) = entry.boot_id() else { return };
        if let Some(missed) = self.directory.missed(boot_id)
            && entry.after_cut.set(Arc::clone(&missed)).is_ok()
        {
            self.gap(entry.id, false, missed.swap(0, Ordering::Relaxed));
        }
        self.gaps_of_newcomer(boot_id, entry.id);
        self.orders().push(0, Order::Seen { entry: Arc::clone(entry) });
    }

    /// Ends the epoch of a member: what is queued for it fails by name.
    pub fn cut(&self, member: MemberId, cause: Status) {
        let Some(entry) = self.directory.cut(member, cause) else { return };
        count(&self.counters.epochs_ended_count, 1);
        self.joins.gone(member);
        // Who says goodbye still takes what is on the way.
        let drains = cause == Status::Goodbye && entry.boot_id().is_some();
        for worker in 0..self.bounds.worker_count {
            let entry = Arc::clone(&entry);
            self.orders().push(
                worker,
                if drains { Order::Drain { entry } } else { Order::Cut { entry, status: cause } },
            );
        }
    }

    fn broadcast_received(&self, bytes: &[u8]) {
        let Ok(Datagram::Broadcast(data)) = tribes::decode_datagram(bytes, &self.bounds.wire())
        else {
            return;
        };
        // Nobody can be held back here, and who sends so promises nothing.
        if self.deliveries.is_over_limit() {
            count(&self.counters.dropped_broadcasts_count, 1);
            return;
        }
        let mut unique_id = [0; 16];
        let length = data.unique_id.len().min(16);
        unique_id[..length].copy_from_slice(&data.unique_id[..length]);
        let buffer = Buffer::copy_of(data.message);
        let incoming = Incoming {
            sender: data.member_package.into(),
            options: data.options,
            timestamp_ms: data.timestamp_ms,
            unique_id,
            payload_start: 0,
            payload_end: data.message.len(),
            buffer,
        };
        let (origin, line) = (Origin::Nowhere, None);
        self.deliveries.push(&mut vec![Item {
            incoming,
            origin,
            line,
            reply: false,
            short: false,
        }]);
    }
}
