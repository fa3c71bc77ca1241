//! From a C message to the engine.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use ringtribe::directory::MAX_MEMBERS_COUNT;
use ringtribe::ids::{Key, MemberId};
use ringtribe::status::Status;
use ringtribe::submit::{MessageBuilder, SendFailure};

use crate::abi::{FLAG_QUIET, FLAG_REPLY, MODE_OPTIONS, Message, Outcome};
use crate::borrow::In;
use crate::node::Open;

/// Longest key.
const KEY_LIMIT_BYTES: usize = 64 << 10;

/// A message whose arguments are all in order.
struct Checked {
    builder: MessageBuilder,
    key: Option<Key>,
    reply: bool,
    destinations: Vec<MemberId>,
    timeout_ms: Option<u64>,
}

fn check(
    open: &Open,
    message: &Message,
    members: In<u64>,
    count: usize,
    timeout_ms: u32,
    known_flags: u32,
) -> Result<Checked, Status> {
    let mode = usize::try_from(message.mode).ok().and_then(|mode| MODE_OPTIONS.get(mode));
    let mode_options = *mode.ok_or(Status::BadArgument)?;
    if message.flags & !known_flags != 0 || message.reserved != 0 {
        return Err(Status::BadArgument);
    }
    if message.payload_bytes > 0 && message.payload.is_null() {
        return Err(Status::BadArgument);
    }
    let name = message.key.slice(message.key_bytes, KEY_LIMIT_BYTES)?;
    let key = (!name.is_empty()).then(|| Key::of(name));
    let destinations = destinations(open, members, count)?;
    let mut builder = open.node.compose(message.payload_bytes, &open.envelope(mode_options))?;
    // Straight into the frame: the one copy on the way down.
    let payload = message.payload.slice(message.payload_bytes, usize::MAX)?;
    builder.payload_mut().copy_from_slice(payload);
    Ok(Checked {
        builder,
        key,
        reply: message.flags & FLAG_REPLY != 0,
        destinations,
        timeout_ms: (timeout_ms > 0).then_some(timeout_ms.into()),
    })
}

fn destinations(open: &Open, members: In<u64>, count: usize) -> Result<Vec<MemberId>, Status> {
    if count == 0 {
        // A list of nobody is not a list of all.
        return if members.is_null() { Ok(open.members()) } else { Err(Status::BadArgument) };
    }
    let named = members.slice(count, MAX_MEMBERS_COUNT)?;
    let mut seen = BTreeSet::new();
    if !named.iter().all(|member| seen.insert(member)) {
        return Err(Status::BadArgument);
    }
    Ok(named.iter().map(|bits| MemberId::from_bits(*bits)).collect())
}

/// Sends and waits: the outcome at each member.
pub(crate) fn send(
    open: &Open,
    message: &Message,
    members: In<u64>,
    count: usize,
    timeout_ms: u32,
) -> Result<Vec<Outcome>, Status> {
    let checked = check(open, message, members, count, timeout_ms, FLAG_REPLY)?;
    let Checked { builder, key, reply, destinations, timeout_ms } = checked;
    let sent = open.node.send(builder, key, reply, &destinations, timeout_ms);
    let mut found: Vec<Outcome> =
        destinations.iter().map(|member| outcome(*member, Status::Ok)).collect();
    if let Err(SendFailure { failures }) = sent {
        // Both are in the order of the destinations.
        let mut rest = found.iter_mut();
        for (member, status) in failures {
            let place = rest.find(|outcome| outcome.member == member.to_bits());
            *place.ok_or(Status::Bug)? = outcome(member, status);
        }
    }
    Ok(found)
}

/// Queues a message; with a completion unless it is quiet.
pub(crate) fn submit(
    open: &Open,
    message: &Message,
    members: In<u64>,
    count: usize,
    timeout_ms: u32,
    token: u64,
) -> Result<(), Status> {
    let checked = check(open, message, members, count, timeout_ms, FLAG_REPLY | FLAG_QUIET)?;
    let Checked { builder, key, reply, destinations, timeout_ms } = checked;
    let token = (message.flags & FLAG_QUIET == 0).then_some(token);
    if destinations.is_empty() && token.is_some() {
        return Err(Status::NoMembers);
    }
    let failed = open.node.submit(builder, key, reply, &destinations, timeout_ms, token).err();
    match failed.and_then(|failure| failure.failures.first().copied()) {
        Some((_, status)) => Err(status),
        None => Ok(()),
    }
}

pub(crate) fn outcome(member: MemberId, status: Status) -> Outcome {
    Outcome { member: member.to_bits(), status: i32::from(status.number()), reserved: 0 }
}

/// The first outcome that is none of [`Status::Ok`].
pub(crate) fn first_failure(outcomes: &[Outcome]) -> Result<(), Status> {
    let failed = outcomes.iter().map(|outcome| outcome.status).find(|status| *status != 0);
    let status = failed.map(|number| u16::try_from(number).ok().and_then(Status::from_number));
    status.map_or(Ok(()), |status| Err(status.unwrap_or(Status::Bug)))
}
