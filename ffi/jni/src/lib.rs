//! The natives of `org.ringtribe.Bridge`.
//!
//! Every crossing is a Java thread that calls down: engine threads never enter the JVM, since one
//! upcall stalls for a whole garbage collection. Answers at or above 0 mean that it went well, below
//! 0 a negated [`Status`] or, where said, the negated length of an error text.

mod env;
mod nearest;
mod records;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jni_sys::{
    JNI_ERR, JNI_VERSION_1_8, JNIEnv, JavaVM, jboolean, jbyteArray, jclass, jint, jintArray, jlong,
    jlongArray, jobject,
};
use ringtribe::config::Config;
use ringtribe::delivery::{Delivery, PollEnd, Polled, PollerClass};
use ringtribe::directory::Identity;
use ringtribe::ids::{Key, MemberId};
use ringtribe::node::Node;
use ringtribe::protocol::membership::LocalMember;
use ringtribe::status::Status;
use ringtribe::submit::Envelope;
use ringtribe_ffi::guard::guarded;
use ringtribe_ffi::handle::Table;
use ringtribe_wire::tribes;
use ringtribe_wire::tribes::payload::{Kind, classify};

use crate::env::Env;
use crate::records::{HEADER_BYTES, Writer};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

static NODES: Table<Open> = Table::new(NODES_LIMIT_COUNT);
static LOADED: AtomicBool = AtomicBool::new(false);

/// A message has a key; it is in the argument.
const HAS_KEY: jint = 1;
/// An answer that somebody waits for.
const REPLY: jint = 2;
/// Return when it is queued.
const SUBMIT: jint = 4;
/// With [`SUBMIT`]: a completion record with the token follows.
const TOKEN: jint = 8;

/// Nodes of one JVM.
const NODES_LIMIT_COUNT: usize = 1 << 16;
/// Pollers of a node.
const POLLERS_LIMIT_COUNT: usize = 1024;
/// Messages handed over in one poll.
const BATCH_COUNT: usize = 64;
/// Least room of a poll.
const POLL_ROOM_BYTES: usize = 64 << 10;

/// `poll` answers: closed; another thread uses the poller; from here down, the bytes needed.
const POLL_CLOSED: jint = -1;
const POLL_BUSY: jint = -2;
const POLL_NEED: jint = -1024;

struct Open {
    node: Node,
    /// What each poller has been given and not reported yet.
    pollers: Vec<Mutex<Vec<Option<Delivery>>>>,
    closed: AtomicBool,
}

fn negated(status: Status) -> jint {
    -jint::from(status.number())
}

/// Writes an error text; answers its negated length, at least 1.
fn failed(env: Env, error: jbyteArray, text: &str) -> jint {
    let written = env.write(error, text.as_bytes());
    -jint::try_from(written.max(1)).unwrap_or(jint::MAX)
}

fn parts(envelope: (jint, jlong), env: Env, unique_id: jbyteArray) -> Option<Envelope> {
    let mut id = [0; 16];
    env.read(unique_id, 0, &mut id).then_some(Envelope {
        options: envelope.0,
        timestamp_ms: envelope.1,
        unique_id: id,
    })
}

/// Refuses a second load: two copies would not share their state.
#[unsafe(no_mangle)]
pub extern "system" fn JNI_OnLoad(_vm: *mut JavaVM, _reserved: *mut core::ffi::c_void) -> jint {
    if LOADED.swap(true, Ordering::AcqRel) { JNI_ERR } else { JNI_VERSION_1_8 }
}

/// `int abiVersion()`
#[unsafe(no_mangle)]
pub extern "system" fn Java_org_ringtribe_Bridge_abiVersion(
    _env: *mut JNIEnv,
    _class: jclass,
) -> jint {
    ringtribe_ffi::ABI_VERSION
}

/// `long address(ByteBuffer)`: where a direct buffer lies, 0 if it is none.
///
/// # Safety
/// Called by the JVM as a native method.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn Java_org_ringtribe_Bridge_address(
    env: *mut JNIEnv,
    _class: jclass,
    buffer: jobject,
) -> jlong {
    // SAFETY: the JVM's own pointer, for this call.
    let env = unsafe { Env::new(env) };
    guarded(0, || env.address(buffer))
}

/// `long open(byte[] config, byte[] error)`: lines `name=value`; a handle above 0, or the negated
/// length of an error text.
///
/// # Safety
/// Called by the JVM as a native method.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn Java_org_ringtribe_Bridge_open(
    env: *mut JNIEnv,
    _class: jclass,
    config: jbyteArray,
    error: jbyteArray,
) -> jlong {
    // SAFETY: the JVM's own pointer, for this call.
    let env = unsafe { Env::new(env) };
    guarded(-1, || {
        let lines = String::from_utf8_lossy(&env.bytes(config)).into_owned();
        match open(&lines) {
            Ok(handle) => handle,
            Err(text) => jlong::from(failed(env, error, &text)),
        }
    })
}

fn open(lines: &str) -> Result<i64, String> {
    let mut config = Config::default();
    for line in lines.lines().filter(|line| !line.trim().is_empty()) {
        let (name, value) = line.split_once('=').ok_or("a line without '='")?;
        config.set(name, value).map_err(|error| error.to_string())?;
    }
    let node = Node::open(&config).map_err(|error| error.to_string())?;
    let pollers = (0..POLLERS_LIMIT_COUNT).map(|_| Mutex::default()).collect();
    NODES
        .insert(Arc::new(Open { node, pollers, closed: AtomicBool::new(false) }))
        .ok_or_else(|| "too many nodes".into())
}

/// `int listen(long handle, byte[] text)`: length of "host:port" in `text`, or the negated length
/// of an error text there.
///
/// # Safety
/// Called by the JVM as a native method.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn Java_org_ringtribe_Bridge_listen(
    env: *mut JNIEnv,
    _class: jclass,
    handle: jlong,
    text: jbyteArray,
) -> jint {
    // SAFETY: the JVM's own pointer, for this call.
    let env = unsafe { Env::new(env) };
    guarded(-1, || {
        let Some(open) = NODES.get(handle) else {
            return failed(env, text, Status::Closed.text());
        };
        match open.node.listen() {
            Ok(address) => {
                let host_and_port = match address {
                    SocketAddr::V4(v4) => format!("{}:{}", v4.ip(), v4.port()),
                    SocketAddr::V6(v6) => format!("{}:{}", v6.ip(), v6.port()),
                };
                jint::try_from(env.write(text, host_and_port.as_bytes())).unwrap_or(-1)
            }
            Err(error) => failed(env, text, &error.to_string()),
        }
    })
}

/// `void stopListening(long handle)`
#[unsafe(no_mangle)]
pub extern "system" fn Java_org_ringtribe_Bridge_stopListening(
    _env: *mut JNIEnv,
    _class: jclass,
    handle: jlong,
) {
    guarded((), || {
        if let Some(open) = NODES.get(handle) {
            open.node.stop_listening();
        }
    });
}

/// `int setLocalMember(long handle, byte[] memberPackage)`
///
/// # Safety
/// Called by the JVM as a native method.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn Java_org_ringtribe_Bridge_setLocalMember(
    env: *mut JNIEnv,
    _class: jclass,
    handle: jlong,
    package: jbyteArray,
) -> jint {
    // SAFETY: the JVM's own pointer, for this call.
    let env = unsafe { Env::new(env) };
    guarded(negated(Status::Bug), || {
        let Some(open) = NODES.get(handle) else { return negated(Status::Closed) };
        let package = env.bytes(package);
        let limits = ringtribe_wire::Limits::default();
        let Ok((member, _)) = tribes::Member::decode(&package, &limits) else {
            return negated(Status::BadArgument);
        };
        open.node.set_local_member(LocalMember {
            host: member.host.to_vec(),
            port: member.port,
            secure_port: member.secure_port,
            udp_port: member.udp_port,
            unique_id: *member.unique_id,
            domain: member.domain.to_vec(),
            payload: member.payload.to_vec(),
            command: member.command.to_vec(),
        });
        0
    })
}

/// `int membership(long handle, int operation, byte[] error)`: 4 and 8 start receiving and sending
/// (`MembershipService.MBR_RX`, `MBR_TX`), -4 and -8 stop them.
///
/// # Safety
/// Called by the JVM as a native method.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn Java_org_ringtribe_Bridge_membership(
    env: *mut JNIEnv,
    _class: jclass,
    handle: jlong,
    operation: jint,
    error: jbyteArray,
) -> jint {
    // SAFETY: the JVM's own pointer, for this call.
    let env = unsafe { Env::new(env) };
    guarded(-1, || {
        let Some(open) = NODES.get(handle) else {
            return failed(env, error, Status::Closed.text());
        };
        let result = match operation {
            4 => open.node.start_receiving(),
            8 => open.node.start_sending(),
            -4 => {
                open.node.stop_receiving();
                Ok(())
            }
            -8 => {
                open.node.stop_sending();
                Ok(())
            }
            _ => return failed(env, error, "the operation must be 4, 8, -4 or -8"),
        };
        result.map_or_else(|text| failed(env, error, &text.to_string()), |()| 0)
    })
}

/// `long enter(long handle, byte[] memberPackage)`: the id of a member, at or above 0.
///
/// # Safety
/// Called by the JVM as a native method.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn Java_org_ringtribe_Bridge_enter(
    env: *mut JNIEnv,
    _class: jclass,
    handle: jlong,
    package: jbyteArray,
) -> jlong {
    // SAFETY: the JVM's own pointer, for this call.
    let env = unsafe { Env::new(env) };
    let entered = || {
        let open = NODES.get(handle).ok_or(Status::Closed)?;
        let package = env.bytes(package);
        let limits = ringtribe_wire::Limits::default();
        let (member, _) =
            tribes::Member::decode(&package, &limits).map_err(|_| Status::BadArgument)?;
        let member = open.node.enter(&Identity::of(&member), &package)?;
        jlong::try_from(member.to_bits()).map_err(|_| Status::Bug)
    };
    guarded(jlong::from(negated(Status::Bug)), || {
        entered().unwrap_or_else(|status| jlong::from(negated(status)))
    })
}

/// `int broadcast(long handle, byte[] bytes, int offset, int length, int options, long timestamp,
/// byte[] uniqueId)`
///
/// # Safety
/// Called by the JVM as a native method.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "the native method's own")]
pub unsafe extern "system" fn Java_org_ringtribe_Bridge_broadcast(
    env: *mut JNIEnv,
    _class: jclass,
    handle: jlong,
    bytes: jbyteArray,
    offset: jint,
    length: jint,
    options: jint,
    timestamp: jlong,
    unique_id: jbyteArray,
) -> jint {
    // SAFETY: the JVM's own pointer, for this call.
    let env = unsafe { Env::new(env) };
    let sent = || {
        let open = NODES.get(handle).ok_or(Status::Closed)?;
        let envelope = parts((options, timestamp), env, unique_id).ok_or(Status::BadArgument)?;
        let (offset, length) = range(offset, length)?;
        let mut payload = vec![0; length];
        if !env.read(bytes, offset, &mut payload) {
            return Err(Status::BadArgument);
        }
        open.node.broadcast(&payload, &envelope)
    };
    guarded(negated(Status::Bug), || sent().map_or_else(negated, |()| 0))
}

fn range(offset: jint, length: jint) -> Result<(usize, usize), Status> {
    let number = |value: jint| usize::try_from(value).map_err(|_| Status::BadArgument);
    Ok((number(offset)?, number(length)?))
}

/// `int send(long handle, byte[] bytes, int offset, int length, int options, long timestamp,
/// byte[] uniqueId, long[] members, int count, long key, int flags, long timeout, long token,
/// int[] statuses)`: 0, or a negated status of the call itself, or the number of members that
/// failed, whose statuses are in `statuses`.
///
/// # Safety
/// Called by the JVM as a native method.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "the native method's own")]
pub unsafe extern "system" fn Java_org_ringtribe_Bridge_send(
    env: *mut JNIEnv,
    _class: jclass,
    handle: jlong,
    bytes: jbyteArray,
    offset: jint,
    length: jint,
    options: jint,
    timestamp: jlong,
    unique_id: jbyteArray,
    members: jlongArray,
    count: jint,
    key: jlong,
    flags: jint,
    timeout: jlong,
    token: jlong,
    statuses: jintArray,
) -> jint {
    // SAFETY: the JVM's own pointer, for this call.
    let env = unsafe { Env::new(env) };
    let sent = || -> Result<jint, Status> {
        let open = NODES.get(handle).ok_or(Status::Closed)?;
        let envelope = parts((options, timestamp), env, unique_id).ok_or(Status::BadArgument)?;
        let (offset, length) = range(offset, length)?;
        let (_, count) = range(0, count)?;
        if offset.checked_add(length).is_none_or(|end| end > env.length(bytes)) {
            return Err(Status::BadArgument);
        }
        let members: Vec<MemberId> = env
            .longs(members, count)
            .ok_or(Status::BadArgument)?
            .into_iter()
            .map(|bits| MemberId::from_bits(bits.unsigned_abs()))
            .collect();
        let mut builder = open.node.compose(length, &envelope)?;
        // Straight into the frame: the one copy on the way down.
        if !env.read(bytes, offset, builder.payload_mut()) {
            return Err(Status::BadArgument);
        }
        let key = (flags & HAS_KEY != 0).then(|| Key::from_hash(key.cast_unsigned()));
        // An RPC reply is recognised by its bytes, so that it works below any channel.
        let reply = flags & REPLY != 0
            || options & tribes::options::BYTE_MESSAGE == 0
                && matches!(
                    classify(builder.payload_mut()),
                    Kind::Rpc { reply: true } | Kind::NoRpcReply
                );
        let timeout = u64::try_from(timeout).ok().filter(|timeout| *timeout > 0);
        let result = if flags & SUBMIT == 0 {
            open.node.send(builder, key, reply, &members, timeout)
        } else {
            let token = (flags & TOKEN != 0).then(|| token.cast_unsigned());
            open.node.submit(builder, key, reply, &members, timeout, token)
        };
        let Err(failure) = result else { return Ok(0) };
        let found: Vec<jint> = members
            .iter()
            .map(|member| {
                let failed = failure.failures.iter().find(|(failed, _)| failed == member);
                failed.map_or(0, |(_, status)| jint::from(status.number()))
            })
            .collect();
        env.write_ints(statuses, &found);
        Ok(jint::try_from(failure.failures.len()).unwrap_or(jint::MAX))
    };
    guarded(negated(Status::Bug), || sent().unwrap_or_else(negated))
}

/// `int poll(long handle, int poller, boolean reserved, long address, int capacity, long timeout)`:
/// bytes written, 0 if nothing came in `timeout` ms, -1 when the node is closed, -2 if another
/// thread uses this poller, or below -1024: that much less than -1024 is the capacity needed.
/// Outcomes that this poller has not reported are reported failed.
///
/// # Safety
/// Called by the JVM as a native method; `address` is that of a direct buffer of `capacity` bytes
/// that the calling thread owns and holds reachable until the call returns.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "the native method's own")]
pub unsafe extern "system" fn Java_org_ringtribe_Bridge_poll(
    _env: *mut JNIEnv,
    _class: jclass,
    handle: jlong,
    poller: jint,
    reserved: jboolean,
    address: jlong,
    capacity: jint,
    timeout: jlong,
) -> jint {
    guarded(negated(Status::Bug) + POLL_CLOSED, || {
        let Some(open) = NODES.get(handle) else { return POLL_CLOSED };
        let Some(slot) = usize::try_from(poller).ok().and_then(|at| open.pollers.get(at)) else {
            return POLL_BUSY;
        };
        let Ok(mut given) = slot.try_lock() else { return POLL_BUSY };
        given.clear();
        let Some(capacity) = usize::try_from(capacity).ok().filter(|c| *c >= POLL_ROOM_BYTES)
        else {
            return POLL_NEED - jint::try_from(POLL_ROOM_BYTES).unwrap_or(0);
        };
        let class = if reserved { PollerClass::Reserved } else { PollerClass::General };
        let timeout = Duration::from_millis(u64::try_from(timeout).unwrap_or(0));
        let mut taken = Vec::new();
        let room_bytes = capacity - HEADER_BYTES;
        let end = open.node.poll(class, room_bytes, BATCH_COUNT, timeout, &mut taken);
        match end {
            // The Java side counts its idle pollers itself, to know also when one may end.
            PollEnd::Taken { .. } => {}
            PollEnd::TimedOut => return 0,
            PollEnd::Closed => {
                // Completions are taken by reserved pollers: with the first that finds none left the
                // handle goes stale, and whoever is still inside a call holds the node alive.
                if reserved {
                    drop(NODES.remove(handle));
                }
                return POLL_CLOSED;
            }
            PollEnd::Need(bytes) => {
                let needed = jint::try_from(bytes + HEADER_BYTES).unwrap_or(jint::MAX / 2);
                return POLL_NEED - needed;
            }
        }
        let start = address as *mut u8;
        if start.is_null() {
            return POLL_BUSY;
        }
        // SAFETY: the caller's direct buffer has `capacity` bytes at `address`, and no other thread
        // touches it during the call (the contract above; `Poller` keeps its buffer private).
        let room = unsafe { std::slice::from_raw_parts_mut(start, capacity) };
        let mut writer = Writer::new(room);
        for polled in taken {
            match polled {
                Polled::Message(delivery) => {
                    writer.message(delivery.incoming());
                    given.push(Some(delivery));
                }
                Polled::Event(event) => writer.event(&event),
            }
        }
        jint::try_from(writer.finish()).unwrap_or(POLL_CLOSED)
    })
}

/// `void outcome(long handle, int poller, int index, int status)`: how the listener of the message
/// at `index` of the poller's last batch ended.
#[unsafe(no_mangle)]
pub extern "system" fn Java_org_ringtribe_Bridge_outcome(
    _env: *mut JNIEnv,
    _class: jclass,
    handle: jlong,
    poller: jint,
    index: jint,
    status: jint,
) {
    guarded((), || {
        let Some(open) = NODES.get(handle) else { return };
        let slot = usize::try_from(poller).ok().and_then(|at| open.pollers.get(at));
        let Some(Ok(mut given)) = slot.map(Mutex::try_lock) else { return };
        let delivery = usize::try_from(index).ok().and_then(|at| given.get_mut(at)?.take());
        if let Some(delivery) = delivery {
            let status = u16::try_from(status).ok().and_then(Status::from_number);
            delivery.complete(status.unwrap_or(Status::RemoteFailed));
        }
    });
}

/// `void repaired(long handle, long member)`: what a gap record told of a member is dealt with.
#[unsafe(no_mangle)]
pub extern "system" fn Java_org_ringtribe_Bridge_repaired(
    _env: *mut JNIEnv,
    _class: jclass,
    handle: jlong,
    member: jlong,
) {
    guarded((), || {
        if let Some(open) = NODES.get(handle) {
            open.node.repaired(MemberId::from_bits(member.unsigned_abs()));
        }
    });
}

/// `int join(long handle, long timeout, byte[] text)`: waits up to `timeout` ms until every Ringtribe
/// member has finished what it submitted before it saw this node; 0, or the negated length of a text
/// in `text` that names who did not answer.
///
/// # Safety
/// Called by the JVM as a native method.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn Java_org_ringtribe_Bridge_join(
    env: *mut JNIEnv,
    _class: jclass,
    handle: jlong,
    timeout: jlong,
    text: jbyteArray,
) -> jint {
    // SAFETY: the JVM's own pointer, for this call.
    let env = unsafe { Env::new(env) };
    guarded(-1, || {
        let Some(open) = NODES.get(handle) else {
            return failed(env, text, Status::Closed.text());
        };
        let timeout = Duration::from_millis(u64::try_from(timeout).unwrap_or(0));
        let silent = open.node.join_barrier(timeout);
        let members = open.node.members();
        let names: Vec<String> = members
            .iter()
            .filter(|entry| silent.contains(&entry.id))
            .map(|entry| entry.address.to_string())
            .collect();
        if names.is_empty() { 0 } else { failed(env, text, &names.join(", ")) }
    })
}

/// `int describe(long handle, byte[] text)`: what the node counts, as lines `name=value`; the
/// length of the text, cut to the array.
///
/// # Safety
/// Called by the JVM as a native method.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn Java_org_ringtribe_Bridge_describe(
    env: *mut JNIEnv,
    _class: jclass,
    handle: jlong,
    text: jbyteArray,
) -> jint {
    // SAFETY: the JVM's own pointer, for this call.
    let env = unsafe { Env::new(env) };
    guarded(negated(Status::Bug), || {
        let Some(open) = NODES.get(handle) else { return negated(Status::Closed) };
        let mut lines =
            format!("backend={}\nboot_id={:?}\n", open.node.backend(), open.node.boot_id());
        for (name, value) in open.node.stats() {
            lines.push_str(&format!("{name}={value}\n"));
        }
        jint::try_from(env.write(text, lines.as_bytes())).unwrap_or(0)
    })
}

/// `int close(long handle, long grace)`: closes in order, at most `grace` ms for what is queued.
/// Reserved pollers get what is left; the handle is valid until the first of them answers closed.
#[unsafe(no_mangle)]
pub extern "system" fn Java_org_ringtribe_Bridge_close(
    _env: *mut JNIEnv,
    _class: jclass,
    handle: jlong,
    grace: jlong,
) -> jint {
    guarded(negated(Status::Bug), || {
        let Some(open) = NODES.get(handle) else { return negated(Status::Closed) };
        if open.closed.swap(true, Ordering::AcqRel) {
            return negated(Status::Closed);
        }
        open.node.close(Duration::from_millis(u64::try_from(grace).unwrap_or(0)));
        0
    })
}
