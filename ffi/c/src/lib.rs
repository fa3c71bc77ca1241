//! The functions of `ffi/include/ringtribe.h`, which describes them.
//!
//! A skin over [`ringtribe::node::Node`]: numbers instead of pointers to Rust, a status instead of
//! a panic. What C lends is looked at in `borrow` only; every check of the arguments comes before the
//! first effect.

mod abi;
mod borrow;
mod delivering;
mod node;
mod sending;

use core::ffi::{CStr, c_char};
use std::ffi::CString;
use std::sync::OnceLock;

use ringtribe::status::Status;
use ringtribe_ffi::guard::guarded;

use crate::abi::{Attribute, Delivery, MemberInfo, Message, Outcome};
use crate::borrow::{In, Out, Room};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs a call behind the guard and answers the number of its status.
fn call(body: impl FnOnce() -> Result<(), Status>) -> i32 {
    let status = guarded(Status::Bug, || body().err().unwrap_or(Status::Ok));
    i32::from(status.number())
}

#[unsafe(no_mangle)]
extern "C" fn ringtribe_abi_version() -> u32 {
    abi::ABI_VERSION
}

#[unsafe(no_mangle)]
extern "C" fn ringtribe_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("a version without 0 in it"),
        };
    VERSION.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn ringtribe_status_text(status: i32) -> *const c_char {
    static TEXTS: OnceLock<Vec<(i32, CString)>> = OnceLock::new();
    guarded(c"a defect in the engine".as_ptr(), || {
        let texts = TEXTS.get_or_init(|| {
            let text = |status: &Status| CString::new(status.text()).unwrap_or_default();
            Status::ALL.iter().map(|s| (i32::from(s.number()), text(s))).collect()
        });
        let found = texts.iter().find(|(number, _)| *number == status);
        found.map_or(c"no status of this version".as_ptr(), |(_, text)| text.as_ptr())
    })
}

/// Opens a node from what `configure` says, and tells why not.
fn open(
    node: Out<u64>,
    error: Out<c_char>,
    error_size: usize,
    configure: impl FnOnce() -> Result<ringtribe::config::Config, (Status, String)>,
) -> Result<(), Status> {
    let (node, error) = (node.required()?, error.room(error_size)?);
    let opened = guarded(Err((Status::Bug, Status::Bug.text().into())), || {
        node::open(&configure()?).and_then(node::enter)
    });
    match opened {
        Ok(handle) => {
            error.put_text("");
            node.put(&[handle]);
            Ok(())
        }
        Err((status, text)) => {
            error.put_text(&text);
            Err(status)
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn ringtribe_open(
    attributes: In<Attribute>,
    count: usize,
    node: Out<u64>,
    error: Out<c_char>,
    error_size: usize,
) -> i32 {
    call(|| open(node, error, error_size, || node::configure(None, attributes, count)))
}

#[unsafe(no_mangle)]
extern "C" fn ringtribe_open_server_xml(
    path: In<c_char>,
    overrides: In<Attribute>,
    count: usize,
    node: Out<u64>,
    error: Out<c_char>,
    error_size: usize,
) -> i32 {
    call(|| open(node, error, error_size, || node::configure(Some(path), overrides, count)))
}

/// Hands a text out: what fits, and how long it is with its 0.
fn put_text(room: &Room<c_char>, needed: &Room<usize>, text: &str) {
    room.put_text(text);
    needed.put(&[text.len() + 1]);
}

#[unsafe(no_mangle)]
extern "C" fn ringtribe_address(
    node: u64,
    text: Out<c_char>,
    size: usize,
    needed: Out<usize>,
) -> i32 {
    call(|| {
        let (room, needed) = (text.room(size)?, needed.optional()?);
        put_text(&room, &needed, &node::find(node)?.address.to_string());
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn ringtribe_stats(
    node: u64,
    text: Out<c_char>,
    size: usize,
    needed: Out<usize>,
) -> i32 {
    call(|| {
        let (room, needed) = (text.room(size)?, needed.optional()?);
        put_text(&room, &needed, &node::find(node)?.describe());
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn ringtribe_close(node: u64, grace_ms: u32) -> i32 {
    call(|| node::find(node)?.close(grace_ms))
}

#[unsafe(no_mangle)]
extern "C" fn ringtribe_free(node: u64) -> i32 {
    call(|| {
        // Whoever is inside a call holds the node alive until it returns.
        let _ = node::take(node)?.close(0);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn ringtribe_members(
    node: u64,
    members: Out<u64>,
    capacity: usize,
    count: Out<usize>,
) -> i32 {
    call(|| {
        let (room, count) = (members.room(capacity)?, count.required()?);
        let found: Vec<u64> =
            node::running(node)?.members().iter().map(|member| member.to_bits()).collect();
        room.put(&found);
        count.put(&[found.len()]);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn ringtribe_member_info(node: u64, member: u64, info: Out<MemberInfo>) -> i32 {
    call(|| {
        let room = info.versioned()?;
        room.put(&node::running(node)?.member_info(member)?);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn ringtribe_send(
    node: u64,
    message: In<Message>,
    members: In<u64>,
    count: usize,
    timeout_ms: u32,
    outcomes: Out<Outcome>,
    capacity: usize,
    outcomes_count: Out<usize>,
) -> i32 {
    call(|| {
        let (room, total) = (outcomes.room(capacity)?, outcomes_count.optional()?);
        total.put(&[0]);
        let message = message.value()?;
        let open = node::running(node)?;
        let found = sending::send(&open, &message, members, count, timeout_ms)?;
        room.put(&found);
        total.put(&[found.len()]);
        sending::first_failure(&found)
    })
}

#[unsafe(no_mangle)]
extern "C" fn ringtribe_submit(
    node: u64,
    message: In<Message>,
    members: In<u64>,
    count: usize,
    timeout_ms: u32,
    token: u64,
) -> i32 {
    call(|| {
        let message = message.value()?;
        let open = node::running(node)?;
        sending::submit(&open, &message, members, count, timeout_ms, token)
    })
}

#[unsafe(no_mangle)]
extern "C" fn ringtribe_poll(
    node: u64,
    poll_class: i32,
    timeout_ms: u32,
    delivery: Out<Delivery>,
) -> i32 {
    call(|| {
        let room = delivery.versioned()?;
        room.put(&delivering::poll(node, poll_class, timeout_ms)?);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn ringtribe_finish(node: u64, handle: u64, status: i32) -> i32 {
    call(|| delivering::finish(node, handle, status))
}
