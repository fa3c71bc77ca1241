//! The nodes of this process: opened, found by their handles, closed, given back.
#![forbid(unsafe_code)]

use core::ffi::c_char;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ringtribe::config::Config;
use ringtribe::control::ListenError;
use ringtribe::error::OpenError;
use ringtribe::ids::MemberId;
use ringtribe::node::Node;
use ringtribe::protocol::membership::LocalMember;
use ringtribe::ring::{RingError, random_bytes};
use ringtribe::status::Status;
use ringtribe::submit::Envelope;
use ringtribe_ffi::handle::Table;
use ringtribe_wire::tribes::{self, Member};

use crate::abi::{Attribute, MemberInfo, host_text};
use crate::borrow::In;

static NODES: Table<Open> = Table::new(NODES_LIMIT_COUNT);

/// Nodes of one process.
const NODES_LIMIT_COUNT: usize = 1 << 16;
/// Attributes of one call.
const ATTRIBUTES_LIMIT_COUNT: usize = 256;
/// Longest strings that are read; Linux takes no longer path.
const NAME_LIMIT_BYTES: usize = 256;
const VALUE_LIMIT_BYTES: usize = 64 << 10;
const PATH_LIMIT_BYTES: usize = 4095;

/// Why a node does not open.
pub(crate) type Refusal = (Status, String);

/// A node and what C has no name for.
pub(crate) struct Open {
    pub(crate) node: Node,
    /// Where it listens, and what it tells others.
    pub(crate) address: SocketAddr,
    unique_id: [u8; 16],
    closed: AtomicBool,
    /// Message ids are these 8 random bytes and a number.
    id_start: [u8; 8],
    next_id: AtomicU64,
}

/// The configuration: of a server.xml if there is one, with `attributes` over it.
pub(crate) fn configure(
    server_xml: Option<In<c_char>>,
    attributes: In<Attribute>,
    count: usize,
) -> Result<Config, Refusal> {
    let refuse = |text: String| (Status::BadArgument, text);
    let mut config = Config::default();
    let attributes = attributes.slice(count, ATTRIBUTES_LIMIT_COUNT).map_err(|_| {
        refuse(format!("{count} attributes at a null or misaligned pointer, or more than 256"))
    })?;
    if let Some(path) = server_xml {
        let path = text(&path, PATH_LIMIT_BYTES, || "the path".into())?;
        load_server_xml(Path::new(path), &mut config)?;
    }
    for (at, attribute) in attributes.iter().enumerate() {
        let name =
            text(&attribute.name, NAME_LIMIT_BYTES, || format!("the name of attribute {at}"))?;
        let value =
            text(&attribute.value, VALUE_LIMIT_BYTES, || format!("the value of attribute {at}"))?;
        config.set(name, value).map_err(|error| refuse(error.to_string()))?;
    }
    Ok(config)
}

fn text(from: &In<c_char>, limit_bytes: usize, what: impl Fn() -> String) -> Result<&str, Refusal> {
    from.text(limit_bytes).map_err(|status| {
        (status, format!("{} is null, longer than {limit_bytes} bytes, or not in UTF-8", what()))
    })
}

/// The one place where a server.xml is read.
fn load_server_xml(path: &Path, config: &mut Config) -> Result<(), Refusal> {
    let read = ringtribe::server_xml::load(path, config);
    read.map(drop).map_err(|error| (Status::BadArgument, error.to_string()))
}

/// Starts a node that listens, has joined and says so.
pub(crate) fn open(config: &Config) -> Result<Open, Refusal> {
    let system = |error: std::io::Error| {
        (Status::System, format!("the operating system gave no random numbers: {error}"))
    };
    let (unique_id, id_start) = (random_bytes().map_err(system)?, random_bytes().map_err(system)?);
    if let Some(address) = config.tcp_listen_address.filter(IpAddr::is_unspecified) {
        let text = format!(
            "tcpListenAddress=\"{address}\" is refused: it is told to the other nodes, which cannot \
             connect to it; give one address of this machine, or auto"
        );
        return Err((Status::BadArgument, text));
    }
    let node = Node::open(config).map_err(|error| {
        let status = match &error {
            OpenError::Config(_) => Status::BadArgument,
            OpenError::Ring(RingError::Absent { .. } | RingError::Lacks { .. }) => Status::Absent,
            OpenError::Ring(RingError::System { .. })
            | OpenError::Control(_)
            | OpenError::System(_) => Status::System,
        };
        (status, error.to_string())
    })?;
    let address = node.listen().map_err(|error| {
        let status = match &error {
            ListenError::NotHere { .. } | ListenError::OnlyLoopback { .. } => Status::BadArgument,
            ListenError::InUse { .. } | ListenError::System(_) => Status::System,
        };
        (status, error.to_string())
    })?;
    let host = match address.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    node.set_local_member(LocalMember {
        host,
        port: i32::from(address.port()),
        secure_port: -1,
        udp_port: -1,
        unique_id,
        ..LocalMember::default()
    });
    for start in [Node::start_receiving, Node::start_sending] {
        start(&node).map_err(|error| (Status::System, error.to_string()))?;
    }
    let (closed, next_id) = (AtomicBool::new(false), AtomicU64::new(0));
    Ok(Open { node, address, unique_id, closed, id_start, next_id })
}

/// Gives a node its handle.
pub(crate) fn enter(open: Open) -> Result<u64, Refusal> {
    let handle = NODES.insert(Arc::new(open)).ok_or_else(|| {
        (Status::System, format!("{NODES_LIMIT_COUNT} nodes are open; free some"))
    })?;
    Ok(handle.cast_unsigned())
}

/// A node that was not given back.
pub(crate) fn find(handle: u64) -> Result<Arc<Open>, Status> {
    NODES.get(handle.cast_signed()).ok_or(Status::Closed)
}

/// A node that nobody has closed.
pub(crate) fn running(handle: u64) -> Result<Arc<Open>, Status> {
    find(handle).and_then(|open| {
        if open.closed.load(Ordering::Acquire) { Err(Status::Closed) } else { Ok(open) }
    })
}

/// Takes a node out: its handle is stale from now on.
pub(crate) fn take(handle: u64) -> Result<Arc<Open>, Status> {
    NODES.remove(handle.cast_signed()).ok_or(Status::Closed)
}

impl Open {
    /// Closes the node, once.
    pub(crate) fn close(&self, grace_ms: u32) -> Result<(), Status> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Err(Status::Closed);
        }
        self.node.close(Duration::from_millis(grace_ms.into()));
        Ok(())
    }

    /// What it counts, as lines.
    pub(crate) fn describe(&self) -> String {
        let mut lines =
            format!("backend={}\nboot_id={:?}\n", self.node.backend(), self.node.boot_id());
        for (name, value) in self.node.stats() {
            let _ = writeln!(lines, "{name}={value}");
        }
        lines
    }

    /// All members.
    pub(crate) fn members(&self) -> Vec<MemberId> {
        self.node.members().iter().map(|entry| entry.id).collect()
    }

    /// Who a member is; 0 is the node itself.
    pub(crate) fn member_info(&self, bits: u64) -> Result<MemberInfo, Status> {
        if bits == 0 {
            return Ok(MemberInfo {
                size: 0,
                port: self.address.port().into(),
                member: 0,
                alive_ms: 0,
                queued_bytes: 0,
                unique_id: self.unique_id,
                host: host_text(self.address.ip()),
            });
        }
        let entry = self.node.member(MemberId::from_bits(bits)).ok_or(Status::StaleMember)?;
        let package = entry.package();
        let decoded = Member::decode(&package, &ringtribe_wire::Limits::default());
        Ok(MemberInfo {
            size: 0,
            port: entry.address.port().into(),
            member: entry.id.to_bits(),
            alive_ms: decoded.map_or(0, |(member, _)| member.alive_ms),
            queued_bytes: entry.budget.used_and_most_bytes().0 as u64,
            unique_id: entry.identity.unique_id,
            host: host_text(entry.address.ip()),
        })
    }

    /// What goes with a message beside its payload.
    pub(crate) fn envelope(&self, mode_options: i32) -> Envelope {
        let mut unique_id = [0; 16];
        unique_id[..8].copy_from_slice(&self.id_start);
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        unique_id[8..].copy_from_slice(&number.to_be_bytes());
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let timestamp_ms = since_1970
            .ok()
            .and_then(|since| i64::try_from(since.as_millis()).ok())
            .unwrap_or_default();
        Envelope { options: tribes::options::BYTE_MESSAGE | mode_options, timestamp_ms, unique_id }
    }
}
