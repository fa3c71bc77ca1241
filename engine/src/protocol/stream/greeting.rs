//! The first bytes of an accepted connection: which format, and if it is our own, who calls.

use std::net::SocketAddr;

use ringtribe_wire::native::{
    Hello, HelloAck, HelloStatus, LaneClass, MAGIC, MAX_FRAME_BYTES, What, decode_hello, hash,
};
use ringtribe_wire::tribes::Member;

use crate::buffer::BufferMut;
use crate::directory::Identity;
use crate::event::{Event, LogLevel};
use crate::ids::{BootId, Instant};
use crate::io::SendBatch;
use crate::protocol::foreign::Foreign;
use crate::shared::{Shared, count, planted};

/// A TLS connection begins with a handshake record of version 3.
const TLS_RECORD: [u8; 2] = [0x16, 3];

/// A connection whose first bytes are not all there, or that is on its way to its worker, or that is
/// refused and waits for its answer to go out.
#[derive(Debug)]
pub(crate) struct Greeting {
    pub(crate) peer: SocketAddr,
    pub(crate) read: Vec<u8>,
    /// By then the hello has to be there.
    pub(crate) until: Instant,
    /// Where it goes when receiving is paused.
    pub(crate) moving_to: Option<u16>,
    pub(crate) refused: bool,
}

/// What the bytes so far are.
#[derive(Debug)]
pub(crate) enum Greeted<'a> {
    /// More are needed.
    More,
    /// Not our own format: whatever it is, the Tribes decoder says what is wrong with it.
    Other,
    /// A hello.
    Hello(Hello<'a>),
    /// A hello in a version, or with a feature, that is not spoken here.
    Foreign(String),
    /// Our own format, and broken.
    Broken(String),
    /// A format that is known and not spoken here.
    Known(Foreign),
}

impl Greeting {
    pub(crate) const fn new(peer: SocketAddr, until: Instant) -> Self {
        Self { peer, read: Vec::new(), until, moving_to: None, refused: false }
    }

    /// Looks at what was read.
    pub(crate) fn look(&self) -> Greeted<'_> {
        let read = self.read.as_slice();
        if read.starts_with(&TLS_RECORD) {
            return Greeted::Known(Foreign::Tls);
        }
        if read == &TLS_RECORD[..1] {
            return Greeted::More;
        }
        let magic_bytes = read.len().min(MAGIC.len());
        if read[..magic_bytes] != MAGIC[..magic_bytes] {
            return Greeted::Other;
        }
        match decode_hello(read) {
            Ok(None) => Greeted::More,
            Ok(Some((hello, consumed_bytes))) if consumed_bytes == read.len() => {
                Greeted::Hello(hello)
            }
            Ok(Some(_)) => Greeted::Broken("bytes behind its hello before the answer".into()),
            Err(error) if error.what == What::Version => Greeted::Foreign(error.to_string()),
            Err(error) => Greeted::Broken(error.to_string()),
        }
    }
}

/// The worker of a stream: the reply lane belongs to the first.
pub(crate) const fn worker_of(hello: &Hello<'_>, workers_count: u16) -> u16 {
    match hello.lane_class {
        LaneClass::Reply => 0,
        LaneClass::Data => hello.stream % workers_count,
    }
}

/// A refusal: what goes back, and what an operator reads.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: HelloStatus,
    pub(crate) reason: String,
}

/// Checks what does not depend on the stream: whom the caller wants, and who he says he is.
pub(crate) fn check(hello: &Hello<'_>, shared: &Shared) -> Result<(), Refusal> {
    let refuse = |status, reason: String| Err(Refusal { status, reason });
    let boot_id = BootId(hello.boot_id);
    let name = &shared.bounds.cluster_name;
    if hello.cluster_hash != hash(name.as_bytes()) {
        let other = String::from_utf8_lossy(hello.cluster_name);
        return refuse(
            HelloStatus::WrongCluster,
            format!(
                "clusterName=\"{}\" calls clusterName=\"{name}\": give both the same, or other ports \
                 and groups",
                other.escape_debug()
            ),
        );
    }
    if boot_id == shared.boot_id {
        return refuse(
            HelloStatus::BootIdInUse,
            format!("boot id {boot_id:?} is this node's own: it called itself, or is a copy of it"),
        );
    }
    if hello.expected_boot_id != shared.boot_id.0 && !planted!(shared, FormerLifeBelieved) {
        let expected = BootId(hello.expected_boot_id);
        return refuse(
            HelloStatus::WrongIncarnation,
            format!("boot id {expected:?} does not live here, {:?} does", shared.boot_id),
        );
    }
    let is_data = hello.lane_class == LaneClass::Data;
    if hello.streams == 0
        || hello.stream > hello.streams
        || is_data == (hello.stream == hello.streams)
    {
        return refuse(
            HelloStatus::Refused,
            format!("stream {} of {} does not exist", hello.stream, hello.streams),
        );
    }
    let limits = ringtribe_wire::Limits::default();
    let Ok((member, _)) = Member::decode(hello.member_package, &limits) else {
        return refuse(HelloStatus::Refused, "no sound member package in the hello".into());
    };
    let identity = Identity::of(&member);
    if let Some(known) = shared.directory.find_boot(boot_id)
        && (known.identity.host != identity.host || known.identity.port != identity.port)
    {
        let other = identity.address();
        return refuse(
            HelloStatus::BootIdInUse,
            format!(
                "boot id {boot_id:?} belongs to the member at {}, the caller says that it listens at \
                 {}",
                known.address,
                other.map_or_else(|| "no usable address".into(), |address| address.to_string())
            ),
        );
    }
    Ok(())
}

impl Refusal {
    /// Says it in the log; returns the answer.
    pub(crate) fn answer(&self, peer: SocketAddr, epoch: u64, shared: &Shared) -> SendBatch {
        count(&shared.counters.refused_hellos_count, 1);
        shared.deliveries.event(Event::Log {
            level: LogLevel::Warn,
            text: format!("connection from {peer} refused: {}", self.reason),
        });
        let ack = HelloAck {
            status: self.status,
            boot_id: shared.boot_id.0,
            epoch,
            received: 0,
            applied: 0,
            credit: 0,
            granted: 0,
            #[allow(clippy::cast_possible_truncation, reason = "64 KiB")]
            max_frame_bytes: MAX_FRAME_BYTES as u32,
            reason: self.reason.as_bytes(),
        };
        let mut bytes = BufferMut::with_capacity(256);
        ack.encode(bytes.vec());
        SendBatch { segments: vec![bytes.freeze().into()], skip_bytes: 0 }
    }
}
