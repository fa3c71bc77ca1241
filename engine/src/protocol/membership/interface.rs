//! What goes into membership and comes out of it.

use std::net::SocketAddr;

use ringtribe_wire::tribes::{Member, SHUTDOWN_COMMAND};

use crate::directory::{Identity, Incarnation, Vitals};
use crate::event::LogLevel;
use crate::io::Evidence;
use crate::status::Status;

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LocalMember {
    /// Address in network order.
    pub host: Vec<u8>,
    /// TCP port.
    pub port: i32,
    /// TLS port, -1 for none.
    pub secure_port: i32,
    /// UDP port, -1 for none.
    pub udp_port: i32,
    /// Tribes unique id.
    pub unique_id: [u8; 16],
    /// Domain.
    pub domain: Vec<u8>,
    /// The application's payload.
    pub payload: Vec<u8>,
    /// Command.
    pub command: Vec<u8>,
}

impl LocalMember {
    fn member(&self, alive_ms: i64) -> Member<'_> {
        Member {
            alive_ms,
            port: self.port,
            secure_port: self.secure_port,
            udp_port: self.udp_port,
            host: &self.host,
            command: &self.command,
            domain: &self.domain,
            unique_id: &self.unique_id,
            payload: &self.payload,
        }
    }

    /// The member package.
    #[must_use]
    pub fn package(&self, alive_ms: i64) -> Vec<u8> {
        let mut package = Vec::new();
        self.member(alive_ms).encode(&mut package);
        package
    }

    pub(super) fn goodbye(&self, alive_ms: i64) -> Vec<u8> {
        let mut package = Vec::new();
        Member { command: SHUTDOWN_COMMAND, ..self.member(alive_ms) }.encode(&mut package);
        package
    }
}

/// A member that is configured: found by its address, not by heartbeats
/// (`StaticMembershipInterceptor`, `StaticMember`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticMember {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its Tribes unique id, if it is a stock node; a Ringtribe node tells its own.
    pub unique_id: Option<[u8; 16]>,
}

/// How a probe ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// Connected, and the frame was acknowledged if one was sent.
    Answered {
        /// What came behind the acknowledgement; a stock node sends nothing there.
        extension: Option<Vec<u8>>,
    },
    /// Nobody listens there.
    Refused,
    /// No connection for another reason, or it ended without an answer.
    Unreachable,
    /// Nothing in time.
    TimedOut,
}

/// What comes in.
#[derive(Debug)]
pub enum Input<'a> {
    /// A packet of the group.
    Datagram {
        /// The packet.
        bytes: &'a [u8],
        /// Who sent it.
        from: SocketAddr,
    },
    /// A probe has ended.
    ProbeEnded {
        /// Which.
        probe: u64,
        /// How.
        result: ProbeResult,
    },
    /// A worker noticed something of a member.
    Evidence {
        /// Which.
        identity: &'a Identity,
        /// What.
        evidence: Evidence,
    },
    /// This node is now this.
    SetLocal(LocalMember),
    /// How this node is, for its heartbeats.
    SetVitals {
        /// Age of the oldest delivery without outcome, ms.
        oldest_unfinished_ms: u32,
        /// It wants no new messages.
        draining: bool,
    },
    /// Learn members.
    StartReceiving,
    /// Send heartbeats.
    StartSending,
    /// Stop learning.
    StopReceiving,
    /// Stop the heartbeats.
    StopSending,
    /// A deadline passed.
    Tick,
}

/// What has to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send to the group.
    SendDatagram(Vec<u8>),
    /// Connect to a member and report how it went.
    Probe {
        /// Number of the probe.
        probe: u64,
        /// Where.
        address: SocketAddr,
        /// To be written and acknowledged; `None`: connecting is enough.
        frame: Option<Vec<u8>>,
        /// Longest wait.
        timeout_ms: u64,
    },
    /// A member can be addressed.
    Added {
        /// Who.
        identity: Identity,
        /// Its member package.
        package: Vec<u8>,
        /// Which life it is; `None` if it speaks the Tribes format, as far as is known.
        incarnation: Option<Incarnation>,
        /// How it is; all zero for a stock member.
        vitals: Vitals,
    },
    /// A member changed its payload or command, or turned out to speak Ringtribe's own format.
    Changed {
        /// Who.
        identity: Identity,
        /// Its new member package.
        package: Vec<u8>,
        /// As in [`Output::Added`].
        incarnation: Option<Incarnation>,
    },
    /// A member is in another state than before.
    Vitals {
        /// Who.
        identity: Identity,
        /// How it is.
        vitals: Vitals,
    },
    /// What this node says of itself behind the acknowledgement of a probe.
    Extension(Vec<u8>),
    /// A member has gone.
    Gone {
        /// Who.
        identity: Identity,
        /// Its last member package; with the shutdown command if it said goodbye.
        package: Vec<u8>,
        /// Why.
        cause: Status,
    },
    /// A message that was sent to the whole group.
    Broadcast {
        /// The frame.
        bytes: Vec<u8>,
    },
    /// Something an operator should read.
    Log {
        /// How grave.
        level: LogLevel,
        /// The text.
        text: String,
    },
}

/// What is counted; each number only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MembershipCounters {
    /// Heartbeats of others.
    pub heartbeats_received_count: u64,
    /// Heartbeats sent.
    pub heartbeats_sent_count: u64,
    /// Packets that were no member package and no frame.
    pub malformed_datagrams_count: u64,
    /// Probes begun.
    pub probes_count: u64,
    /// Members announced.
    pub members_added_count: u64,
    /// Members dropped or gone.
    pub members_gone_count: u64,
    /// Times that a member's view differed from this node's for longer than mcastDropTime.
    pub asymmetric_views_count: u64,
    /// Heartbeats and answers ignored because they name an incarnation that is another node's.
    pub foreign_boot_ids_count: u64,
    /// Packets and answers of nodes with another clusterName.
    pub other_clusters_count: u64,
    /// Heartbeats of members that offer a port with TLS alone.
    pub tls_members_count: u64,
    /// Heartbeats of Tomcat 5.5.
    pub tomcat_55_heartbeats_count: u64,
}
