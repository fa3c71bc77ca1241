//! What polls hand to C, and what becomes of it.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ringtribe::delivery::{self, PollEnd, Polled, PollerClass};
use ringtribe::directory::Identity;
use ringtribe::event::Event;
use ringtribe::ids::MemberId;
use ringtribe::status::Status;
use ringtribe_ffi::handle::Table;
use ringtribe_wire::tribes::Member;

use crate::abi::{Delivery, Outcome, POLL_GENERAL, POLL_RESERVED, host_text, kind};
use crate::borrow::Lent;
use crate::node::{self, Open};
use crate::sending::{first_failure, outcome};

/// Deliveries that are out at a time, of all nodes of the process.
const OUT_LIMIT_COUNT: usize = 1 << 20;

/// What C holds pointers into, until it is finished. Apart from the nodes, so that a node that is
/// given back takes nothing out of the hands of another thread.
static GIVEN: Table<Given> = Table::new(OUT_LIMIT_COUNT);
static OUT_COUNT: AtomicUsize = AtomicUsize::new(0);

struct Given {
    node: u64,
    held: Held,
}

/// The memory behind the pointers.
enum Held {
    Message(delivery::Delivery),
    Failures(Vec<Outcome>),
    Text(String),
    Gap(MemberId),
    Nothing,
}

/// A place in [`GIVEN`] that is taken before anything is polled: what was polled must not be
/// dropped for want of one.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let place = Self;
        let before = OUT_COUNT.fetch_add(1, Ordering::Relaxed);
        (before < OUT_LIMIT_COUNT).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        OUT_COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes one delivery.
pub(crate) fn poll(handle: u64, poll_class: i32, timeout_ms: u32) -> Result<Delivery, Status> {
    let class = match poll_class {
        POLL_GENERAL => PollerClass::General,
        POLL_RESERVED => PollerClass::Reserved,
        _ => return Err(Status::BadArgument),
    };
    let open = node::find(handle)?;
    let place = Place::take().ok_or(Status::QueueFull)?;
    let timeout = Duration::from_millis(timeout_ms.into());
    let mut taken = Vec::with_capacity(1);
    match open.node.poll(class, usize::MAX, 1, timeout, &mut taken) {
        PollEnd::Taken { .. } => {}
        PollEnd::TimedOut => return Ok(Delivery::NOTHING),
        PollEnd::Closed => return Err(Status::Closed),
        PollEnd::Need(_) => return Err(Status::Bug),
    }
    let polled = taken.pop().ok_or(Status::Bug)?;
    let (shown, held) = show(&open, polled);
    give(handle, place, shown, held)
}

/// Puts what C gets pointers into where it stays until it is finished.
fn give(node: u64, place: Place, shown: Delivery, held: Held) -> Result<Delivery, Status> {
    // Behind an `Arc` it does not move any more.
    let given = Arc::new(Given { node, held });
    let mut shown = shown;
    match &given.held {
        Held::Message(message) => {
            let payload = message.incoming().payload();
            shown.payload = Lent::of(payload);
            shown.payload_bytes = payload.len();
        }
        Held::Failures(failures) => {
            shown.failures = Lent::of(failures);
            shown.failures_count = failures.len();
        }
        Held::Text(text) => {
            shown.payload = Lent::of(text.as_bytes());
            // The 0 at its end is not counted.
            shown.payload_bytes = text.len() - 1;
        }
        Held::Gap(_) | Held::Nothing => {}
    }
    shown.handle = GIVEN.insert(given).ok_or(Status::Bug)?.cast_unsigned();
    // Given back by `finish`.
    std::mem::forget(place);
    Ok(shown)
}

/// Everything about a delivery but its handle and its pointers.
fn show(open: &Open, polled: Polled) -> (Delivery, Held) {
    let mut shown = Delivery::NOTHING;
    let event = match polled {
        Polled::Message(message) => {
            let incoming = message.incoming();
            shown.kind = kind::MESSAGE;
            shown.options = incoming.options;
            shown.timestamp_ms = incoming.timestamp_ms;
            shown.message_id = incoming.unique_id;
            if let Some(identity) = show_package(&mut shown, &incoming.sender) {
                shown.member = open.node.find(&identity).map_or(0, |entry| entry.id.to_bits());
            }
            return (shown, Held::Message(message));
        }
        Polled::Event(event) => event,
    };
    let mut member = |kind, id: MemberId, package: &[u8]| {
        shown.kind = kind;
        shown.member = id.to_bits();
        let _ = show_package(&mut shown, package);
    };
    let held = match event {
        Event::MemberAdded { member: id, package } => {
            member(kind::MEMBER_ADDED, id, &package);
            Held::Nothing
        }
        Event::MemberChanged { member: id, package } => {
            member(kind::MEMBER_CHANGED, id, &package);
            Held::Nothing
        }
        Event::MemberGone { member: id, package, cause } => {
            member(kind::MEMBER_GONE, id, &package);
            shown.status = i32::from(cause.number());
            Held::Nothing
        }
        Event::Completed { token, failures } => {
            shown.kind = kind::COMPLETED;
            shown.token = token;
            let failures: Vec<Outcome> =
                failures.iter().map(|(member, status)| outcome(*member, *status)).collect();
            let status = first_failure(&failures).err().unwrap_or(Status::Ok);
            shown.status = i32::from(status.number());
            Held::Failures(failures)
        }
        Event::Gap { member, here, messages_count } => {
            shown.kind = kind::GAP;
            shown.member = member.to_bits();
            shown.level = u32::from(here);
            shown.lost_count = messages_count;
            Held::Gap(member)
        }
        Event::Log { level, mut text } => {
            shown.kind = kind::LOG;
            shown.level = level as u32;
            text.push('\0');
            Held::Text(text)
        }
    };
    (shown, held)
}

/// Address and name of a member package.
fn show_package(shown: &mut Delivery, package: &[u8]) -> Option<Identity> {
    let (member, _) = Member::decode(package, &ringtribe_wire::Limits::default()).ok()?;
    let identity = Identity::of(&member);
    shown.unique_id = identity.unique_id;
    let address: SocketAddr = identity.address()?;
    shown.host = host_text(address.ip());
    shown.port = address.port().into();
    Some(identity)
}

/// Ends a delivery; only the first call finds it.
pub(crate) fn finish(on: u64, handle: u64, status: i32) -> Result<(), Status> {
    let status = u16::try_from(status).ok().and_then(Status::from_number);
    let status = status.ok_or(Status::BadArgument)?;
    let given = GIVEN
        .remove_if(handle.cast_signed(), |given| given.node == on)
        .ok_or(Status::BadArgument)?;
    drop(Place);
    // Nobody else ever looks one up, so this is its only owner.
    match Arc::into_inner(given).map(|given| given.held) {
        Some(Held::Message(message)) => message.complete(status),
        // What was told is repaired, as far as the caller does; later gaps are told anew.
        Some(Held::Gap(member)) => {
            if let Ok(open) = node::find(on) {
                open.node.repaired(member);
            }
        }
        _ => {}
    }
    Ok(())
}
