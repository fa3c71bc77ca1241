//! What Ringtribe nodes say of themselves beside their member package: which incarnation they are,
//! how they are, and whom they see.
//!
//! It is believed only from the member's own host: in a datagram whose source address equals the
//! host of the member package in it, or behind an acknowledgement from the address that was
//! probed. A host whose heartbeats leave by another address than they name is a stock node to
//! others. It is never taken from a member package inside a message.

use std::net::SocketAddr;

use ringtribe_wire::native::extension::Extension;

use super::{Identity, Membership, Output, name};
use crate::directory::{Incarnation, Vitals};
use crate::event::LogLevel;
use crate::ids::{BootId, Instant};
use crate::status::Status;

/// What a member has said of itself.
#[derive(Debug, Default)]
pub(super) struct Spoken {
    pub(super) incarnation: Option<Incarnation>,
    /// The life before this one, whose packets may still be under way.
    pub(super) former: Option<BootId>,
    pub(super) vitals: Option<Vitals>,
    /// Said it from a host that is not its own, and that was logged.
    pub(super) disbelieved: bool,
    /// Acknowledged probes without a word of its incarnation, one after the other.
    pub(super) silent_answers_count: u8,
    /// Sees other members than this node, since then.
    differs_since: Option<Instant>,
    /// And that was logged.
    differs: bool,
}

impl Spoken {
    pub(super) fn boot_id(&self) -> Option<BootId> {
        self.incarnation.map(|incarnation| incarnation.boot_id)
    }
}

impl Membership {
    /// Appends what this node says of itself.
    pub(super) fn with_extension(&self, package: Vec<u8>) -> Vec<u8> {
        let mut bytes = package;
        if let Some(own) = self.own {
            // Without a package it always fits.
            let _ = self.extension(own, None).encode(&mut bytes);
        }
        bytes
    }

    fn extension<'a>(&'a self, own: Incarnation, package: Option<&'a [u8]>) -> Extension<'a> {
        Extension {
            version_min: own.version_min,
            version_max: own.version_max,
            features: own.features,
            boot_id: own.boot_id.0,
            oldest_unfinished_ms: self.oldest_unfinished_ms,
            members_count: self.view.0,
            ready: self.sending,
            draining: self.draining,
            view_hash: self.view.1,
            package,
            cluster_name: self.cluster.name(),
        }
    }

    /// Hands out what goes behind acknowledgements if it has changed.
    pub(super) fn tell_extension(&mut self, now: Instant, out: &mut Vec<Output>) {
        let Some(own) = self.own else { return };
        if !std::mem::take(&mut self.extension_is_stale) {
            return;
        }
        let package = self.local.package(self.alive_ms(now));
        // Before it is told who it is it has no address to give.
        let package = (self.local.port != 0).then_some(&package[..]);
        let mut block = Vec::new();
        if let Err(error) = self.extension(own, package).encode(&mut block) {
            let text = format!("static members will not learn who this node is: {error}");
            self.log(now, text, out);
            let _ = self.extension(own, None).encode(&mut block);
        }
        out.push(Output::Extension(block));
    }

    /// Counts and hashes the members, this node included. Their addresses stand for them: no two
    /// members share one, and a node that believes an incarnation sees the same member as one
    /// that does not. FNV-1a, 64 bits, over length, host and port of each, in order.
    pub(super) fn view_changed(&mut self) {
        self.extension_is_stale = true;
        if !self.receiving {
            self.view = (0, 0);
            return;
        }
        let here = (self.local.host.as_slice(), self.local.port);
        let members = self.known.iter().filter(|(_, known)| known.is_member);
        let mut all: Vec<_> =
            members.map(|(identity, _)| (identity.host.as_slice(), identity.port)).collect();
        all.push(here);
        all.sort_unstable();
        all.dedup();
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for (host, port) in &all {
            let length = u8::try_from(host.len()).unwrap_or(u8::MAX);
            for byte in [length].iter().chain(*host).chain(&port.to_be_bytes()) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        self.view = (u16::try_from(all.len()).unwrap_or(u16::MAX), hash);
    }

    /// Whether an extension cannot be a member's: it is of another cluster, or names an incarnation that is
    /// this node's own, or one that lives at another address. Such a packet is ignored.
    pub(super) fn is_foreign(
        &mut self,
        extension: &Extension<'_>,
        identity: &Identity,
        from: SocketAddr,
        now: Instant,
        out: &mut Vec<Output>,
    ) -> bool {
        if self.is_of_other_cluster(extension, from, out) {
            return true;
        }
        let boot_id = BootId(extension.boot_id);
        if self.own.is_some_and(|own| own.boot_id == boot_id) {
            self.counters.foreign_boot_ids_count += 1;
            let text = format!(
                "what {} says of itself (from {from}) is ignored: it names this node's own incarnation \
                 {boot_id:?}; is that a copy of this process?",
                name(identity)
            );
            self.log(now, text, out);
            return true;
        }
        self.is_elsewhere(boot_id, identity, now, out)
    }

    /// Whether who says this has another clusterName. Sharing a group is no fault: it is named once.
    pub(super) fn is_of_other_cluster(
        &mut self,
        extension: &Extension<'_>,
        from: SocketAddr,
        out: &mut Vec<Output>,
    ) -> bool {
        if self.own.is_none() || extension.cluster_name == self.cluster.name() {
            return false;
        }
        self.counters.other_clusters_count += 1;
        if self.cluster.is_first(extension.cluster_name) {
            let text = format!(
                "{from} is no member: its clusterName is \"{}\", this node's is \"{}\"; that is told once, \
                 and counted as other_clusters_count. If it belongs here, give both the same",
                String::from_utf8_lossy(extension.cluster_name).escape_debug(),
                String::from_utf8_lossy(self.cluster.name()).escape_debug()
            );
            // Whatever else was said this second: it is told once only.
            out.push(Output::Log { level: LogLevel::Warn, text });
        }
        true
    }

    /// Whether an incarnation is a live member at another address.
    pub(super) fn is_elsewhere(
        &mut self,
        boot_id: BootId,
        identity: &Identity,
        now: Instant,
        out: &mut Vec<Output>,
    ) -> bool {
        let first = self.known.iter().find(|(other, known)| {
            known.is_member
                && known.spoken.boot_id() == Some(boot_id)
                && !other.shares_address(identity)
        });
        let Some((first, _)) = first else { return false };
        let text = format!(
            "{} is refused as a member: it names the incarnation {boot_id:?}, and so does {}, which \
             is one already; is one a copy of the other?",
            name(identity),
            name(first)
        );
        self.counters.foreign_boot_ids_count += 1;
        self.log(now, text, out);
        true
    }

    /// Decides which life of a member a heartbeat is of. `None`: of one that has ended, or that has to
    /// be asked for. Else, if another one has begun, the former is dropped, and which it was is
    /// returned inside.
    #[allow(clippy::option_option, reason = "whether to go on, and the life before")]
    pub(super) fn judge_life(
        &mut self,
        identity: &Identity,
        alive_ms: i64,
        extension: Option<&Extension<'_>>,
        own_host: bool,
        now: Instant,
        out: &mut Vec<Output>,
    ) -> Option<Option<BootId>> {
        let Some(known) = self.known.get(identity) else { return Some(None) };
        let said = extension.map(|extension| BootId(extension.boot_id));
        if said.is_some() && said == known.spoken.former {
            return None;
        }
        let is_other = match (known.spoken.boot_id(), said) {
            (Some(is), Some(said)) => is != said,
            (None, None) => false,
            // It changed over from stock: then it has started anew.
            (None, Some(_)) => own_host && alive_ms < known.alive_ms,
            // Or back, or what it said as a stock node comes late: its own answer tells.
            (Some(_), None) if own_host && alive_ms < known.alive_ms => {
                self.probe(identity, true, now, out);
                return None;
            }
            (Some(_), None) => false,
        };
        Some(if is_other { self.cut(identity, Status::Cut, now, out) } else { None })
    }

    /// Notes what a member that is known says of itself.
    pub(super) fn spoke(
        &mut self,
        identity: &Identity,
        extension: Option<&Extension<'_>>,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let (receiving, drop_time_ms, view) = (self.receiving, self.drop_time_ms, self.view);
        let Some(extension) = extension else { return };
        let Some(known) = self.known.get_mut(identity) else { return };
        let is_member = known.is_member;
        let spoken = &mut known.spoken;
        spoken.silent_answers_count = 0;
        spoken.incarnation.get_or_insert(Incarnation {
            boot_id: BootId(extension.boot_id),
            features: extension.features,
            version_min: extension.version_min,
            version_max: extension.version_max,
        });
        let vitals = Vitals {
            oldest_unfinished_ms: extension.oldest_unfinished_ms,
            ready: extension.ready,
            draining: extension.draining,
            members_count: extension.members_count,
            view_hash: extension.view_hash,
        };
        if spoken.vitals.replace(vitals) != Some(vitals) && is_member {
            out.push(Output::Vitals { identity: identity.clone(), vitals });
        }
        if !is_member || !receiving || vitals.members_count == 0 || vitals.view_hash == view.1 {
            spoken.differs_since = None;
            spoken.differs = false;
            return;
        }
        let since = *spoken.differs_since.get_or_insert(now);
        if now.ms_since(since) >= drop_time_ms && !std::mem::replace(&mut spoken.differs, true) {
            self.counters.asymmetric_views_count += 1;
            out.push(Output::Log {
                level: LogLevel::Warn,
                text: format!(
                    "{} does not see the same members as this node: it counts {}, this node {}, \
                     each with itself; check the network between all of them",
                    name(identity),
                    vitals.members_count,
                    view.0
                ),
            });
        }
    }
}
