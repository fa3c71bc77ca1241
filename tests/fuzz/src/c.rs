//! The C entry points, called as a careless program calls them: lengths that are no lengths, handles
//! that are stale or invented, names and values of anything. What `ringtribe.h` binds every caller to
//! (a pointer that is not null points to as much as is said) is kept.

use core::ffi::{c_char, c_void};
use core::ptr::{null, null_mut};
use std::ffi::CString;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::targets::script::Script;

// So that it is linked.
use ringtribe_c_entry as _;

#[derive(Clone, Copy)]
#[repr(C)]
struct Attribute {
    name: *const c_char,
    value: *const c_char,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Message {
    size: u32,
    mode: u32,
    flags: u32,
    reserved: u32,
    payload: *const u8,
    payload_bytes: usize,
    key: *const u8,
    key_bytes: usize,
    /// What a newer version might have.
    newer: [u64; 4],
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Outcome {
    member: u64,
    status: i32,
    reserved: u32,
}

/// Room for the structs that begin with their size.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Sized {
    size: u32,
    rest: [u8; 4092],
}

unsafe extern "C" {
    fn ringtribe_abi_version() -> u32;
    fn ringtribe_version() -> *const c_char;
    fn ringtribe_status_text(status: i32) -> *const c_char;
    fn ringtribe_open(
        attributes: *const Attribute,
        count: usize,
        node: *mut u64,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn ringtribe_open_server_xml(
        path: *const c_char,
        overrides: *const Attribute,
        count: usize,
        node: *mut u64,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn ringtribe_address(node: u64, text: *mut c_char, size: usize, needed: *mut usize) -> i32;
    fn ringtribe_stats(node: u64, text: *mut c_char, size: usize, needed: *mut usize) -> i32;
    fn ringtribe_close(node: u64, grace_ms: u32) -> i32;
    fn ringtribe_free(node: u64) -> i32;
    fn ringtribe_members(node: u64, members: *mut u64, capacity: usize, count: *mut usize) -> i32;
    fn ringtribe_member_info(node: u64, member: u64, info: *mut c_void) -> i32;
    fn ringtribe_send(
        node: u64,
        message: *const Message,
        members: *const u64,
        count: usize,
        timeout_ms: u32,
        outcomes: *mut Outcome,
        capacity: usize,
        outcomes_count: *mut usize,
    ) -> i32;
    fn ringtribe_submit(
        node: u64,
        message: *const Message,
        members: *const u64,
        count: usize,
        timeout_ms: u32,
        token: u64,
    ) -> i32;
    fn ringtribe_poll(node: u64, poll_class: i32, timeout_ms: u32, delivery: *mut c_void) -> i32;
    fn ringtribe_finish(node: u64, handle: u64, status: i32) -> i32;
}

/// Status of a defect in the engine: no input may bring it about.
const BUG: i32 = 401;

/// A node that lives as long as the process, and one that has been given back.
struct Nodes {
    open: u64,
    stale: u64,
}

fn attributes(pairs: &[(CString, CString)]) -> Vec<Attribute> {
    let attribute = |(name, value): &(CString, CString)| Attribute {
        name: name.as_ptr(),
        value: value.as_ptr(),
    };
    pairs.iter().map(attribute).collect()
}

/// Attributes that open a node which finds nobody.
fn alone() -> Vec<(CString, CString)> {
    [
        ("staticMembers", "127.0.0.1:9"),
        ("tcpListenAddress", "127.0.0.1"),
        ("tcpListenPort", "33000"),
        ("autoBind", "2000"),
        ("tcpThreadCount", "1"),
        ("maxMessageBytes", "65536"),
        ("ackTimeout", "100"),
    ]
    .map(|(name, value)| (CString::new(name).expect("no 0"), CString::new(value).expect("no 0")))
    .into()
}

fn open(pairs: &[(CString, CString)]) -> Result<u64, (i32, String)> {
    let list = attributes(pairs);
    let mut node = 0;
    let mut error = [0; 200];
    // SAFETY: the list and its strings live until the call returns, and there is room for an error.
    let status = unsafe {
        ringtribe_open(list.as_ptr(), list.len(), &raw mut node, error.as_mut_ptr(), error.len())
    };
    if status == 0 {
        return Ok(node);
    }
    let text: Vec<u8> =
        error.iter().take_while(|byte| **byte != 0).map(|byte| byte.cast_unsigned()).collect();
    assert!(text.len() < error.len(), "the text ends with a 0");
    Err((status, String::from_utf8(text).expect("whole characters")))
}

fn nodes() -> &'static Nodes {
    static NODES: OnceLock<Nodes> = OnceLock::new();
    NODES.get_or_init(|| {
        let [open, stale] = [(); 2].map(|()| open(&alone()).expect("it opens"));
        // SAFETY: a handle is a number.
        assert_eq!(unsafe { ringtribe_free(stale) }, 0);
        Nodes { open, stale }
    })
}

struct Caller<'a> {
    script: Script<'a>,
    /// Handles that were given out.
    handles: Vec<u64>,
}

impl Caller<'_> {
    fn node(&mut self) -> (u64, bool) {
        match self.script.u8() {
            0..=199 => (nodes().open, true),
            200..=219 => (nodes().stale, false),
            220..=239 => {
                let bits = self.script.u8();
                (nodes().open ^ (1 << (bits % 64)), false)
            }
            _ => {
                let invented = self.script.number();
                (invented, invented == nodes().open)
            }
        }
    }

    /// A length that may be more than is there, but then more than any can be.
    fn length(&mut self, there: usize, limit: usize) -> usize {
        match self.script.u8() {
            0..=199 => there,
            200..=209 => usize::MAX,
            210..=219 => isize::MAX.cast_unsigned() + 1,
            220..=229 => limit + 1,
            _ => 0,
        }
    }

    fn status(&self, status: i32, was_open: bool, call: &str) {
        assert!(status != BUG, "{call} reports a defect");
        assert!(was_open || status != 0, "{call} on a handle that is none");
        // SAFETY: any number has a text.
        let text = unsafe { ringtribe_status_text(status) };
        assert!(!text.is_null());
    }

    fn string(&mut self) -> CString {
        let bytes: Vec<u8> =
            self.script.counted().iter().copied().filter(|byte| *byte != 0).collect();
        CString::new(bytes).expect("no 0")
    }

    fn send(&mut self) {
        let (node, was_open) = self.node();
        let payload = self.script.counted();
        let key = self.script.counted();
        let size = match self.script.u8() {
            0..=127 => 48,
            128..=199 => 48 + 8 * u32::from(self.script.u8() % 5),
            _ => self.script.number32(),
        };
        // Beyond what is there no size may be stated: the struct has so many bytes.
        let size = if size > 80 && size <= 4_096 { 80 } else { size };
        let message = Message {
            size,
            mode: u32::from(self.script.u8() % 4),
            flags: match self.script.u8() {
                flags @ 0..=3 => u32::from(flags),
                200.. => self.script.number32(),
                _ => 0,
            },
            reserved: u32::from(self.script.u8() == 255),
            payload: if self.script.u8() == 255 { null() } else { payload.as_ptr() },
            payload_bytes: self.length(payload.len(), 65_536),
            key: if self.script.u8() == 255 { null() } else { key.as_ptr() },
            key_bytes: self.length(key.len(), 64 << 10),
            newer: [u64::from(self.script.u8() == 255); 4],
        };
        let members: Vec<u64> = (0..self.script.u8() % 5).map(|_| self.script.number()).collect();
        let count = self.length(members.len(), 4_096);
        let list = if self.script.u8() == 255 { null() } else { members.as_ptr() };
        let timeout_ms = u32::from(self.script.u8() % 3);
        let mut outcomes = [Outcome::default(); 8];
        let capacity = self.length(outcomes.len(), isize::MAX.cast_unsigned());
        let mut total = 0;
        let shift = usize::from(self.script.u8() == 255) * 4;
        // So that it may be misaligned.
        let mut room = [0_u64; 20];
        // SAFETY: a message has 80 bytes, the room 160, and the shift is 4 at most.
        let message_at = unsafe {
            let at = room.as_mut_ptr().cast::<u8>().add(shift);
            core::ptr::copy_nonoverlapping((&raw const message).cast(), at, size_of::<Message>());
            at.cast_const().cast::<Message>()
        };
        let is_submit = self.script.u8() & 1 == 1;
        let (room_at, token) = (outcomes.as_mut_ptr(), self.script.u64());
        // SAFETY: what is not null points to what is there; a length that is more than is there is
        // refused before anything is read, which this is to show.
        let status = unsafe {
            if is_submit {
                ringtribe_submit(node, message_at, list, count, timeout_ms, token)
            } else {
                ringtribe_send(
                    node,
                    message_at,
                    list,
                    count,
                    timeout_ms,
                    room_at,
                    capacity,
                    &raw mut total,
                )
            }
        };
        self.status(status, was_open, "a send");
        assert!(total <= 4_096);
        // This node knows nobody: whoever is named has gone. Of a message that is only queued that is
        // told by its completion.
        let named = count == members.len() && count > 0 && !is_submit;
        assert!(!named || status != 0, "a message to a member that is none");
        assert!(shift == 0 || status != 0, "a message at a misaligned address");
    }

    fn poll(&mut self) {
        let (node, was_open) = self.node();
        let class = match self.script.u8() {
            class @ 0..=2 => i32::from(class),
            200.. => self.script.number32().cast_signed(),
            _ => 1,
        };
        let size = match self.script.u8() {
            0..=127 => 192,
            _ => self.script.number32(),
        };
        let mut delivery = Sized { size, rest: [0xaa; 4092] };
        let at = if self.script.u8() == 255 { null_mut() } else { (&raw mut delivery).cast() };
        // SAFETY: there is room for the largest size that is accepted.
        let status = unsafe { ringtribe_poll(node, class, 0, at) };
        self.status(status, was_open, "a poll");
        if status == 0 {
            assert_eq!(delivery.size, size, "the size stays");
            let handle = delivery.rest[4..12].try_into().expect("8 bytes");
            self.handles.push(u64::from_le_bytes(handle));
        }
    }

    fn finish(&mut self) {
        let (node, was_open) = self.node();
        let known = self.handles.pop().filter(|_| self.script.u8() < 200);
        let handle = known.unwrap_or_else(|| self.script.number());
        let outcome = match self.script.u8() {
            0..=99 => 0,
            _ => self.script.number32().cast_signed(),
        };
        // SAFETY: handles are numbers.
        let status = unsafe { ringtribe_finish(node, handle, outcome) };
        self.status(status, was_open, "a finish");
        if status == 0 {
            // SAFETY: as above.
            let again = unsafe { ringtribe_finish(node, handle, outcome) };
            assert_ne!(again, 0, "finished twice");
        }
    }

    fn texts(&mut self) {
        let (node, was_open) = self.node();
        let mut text = [0x55; 64];
        let there = usize::from(self.script.u8()) % 64;
        let size = self.length(there, isize::MAX.cast_unsigned());
        let at = if self.script.u8() == 255 { null_mut() } else { text.as_mut_ptr() };
        let mut needed = 0;
        let is_stats = self.script.u8() & 1 == 1;
        // SAFETY: no size below the largest is above what is there, and those are refused.
        let status = unsafe {
            if is_stats {
                ringtribe_stats(node, at, size, &raw mut needed)
            } else {
                ringtribe_address(node, at, size, &raw mut needed)
            }
        };
        self.status(status, was_open, "a text");
        if status == 0 && size > 0 {
            let end = text.iter().position(|byte| *byte == 0).expect("it ends with a 0");
            assert!(end < size && end < needed);
        }
    }

    fn members(&mut self) {
        let (node, was_open) = self.node();
        let mut room = [0; 4];
        let there = usize::from(self.script.u8()) % 5;
        let capacity = self.length(there, isize::MAX.cast_unsigned());
        let mut count = 0;
        // SAFETY: as for texts.
        let status =
            unsafe { ringtribe_members(node, room.as_mut_ptr(), capacity, &raw mut count) };
        self.status(status, was_open, "members");
        assert_eq!(count, 0, "nobody is there");
        let member = self.script.number();
        let size = match self.script.u8() {
            0..=127 => 112,
            _ => self.script.number32(),
        };
        let mut info = Sized { size, rest: [0; 4092] };
        // SAFETY: there is room for the largest size that is accepted.
        let status = unsafe { ringtribe_member_info(node, member, (&raw mut info).cast()) };
        self.status(status, was_open, "member_info");
        assert!(member == 0 || status != 0, "a member that is none");
    }

    /// Names and values of anything. What opens is given back at once.
    fn open(&mut self) {
        let mut pairs = alone();
        let own_count = pairs.len();
        for _ in 0..1 + self.script.u8() % 3 {
            let known = usize::from(self.script.u8());
            let name = pairs.get(known).map(|(name, _)| name.clone());
            let name = name.unwrap_or_else(|| self.string());
            pairs.push((name, self.string()));
        }
        // What would ask for many threads or a port of others opens nothing here.
        let is_dear = |(name, _): &(CString, CString)| {
            let name = name.to_string_lossy().to_lowercase();
            ["thread", "port", "bind", "address", "addr", "member", "backend", "file"]
                .iter()
                .any(|word| name.contains(word))
        };
        let is_free = !pairs[own_count..].iter().any(is_dear);
        // An unknown name behind it all keeps the node from being opened; the values before were read.
        if !is_free {
            pairs.push((c"no such attribute".into(), c"1".into()));
        }
        match open(&pairs) {
            // SAFETY: a handle is a number.
            Ok(node) => assert_eq!(unsafe { ringtribe_free(node) }, 0),
            Err((status, text)) => {
                self.status(status, false, "open");
                assert!(!text.is_empty());
            }
        }
    }

    fn server_xml(&mut self) {
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("ringtribe-fuzz-{}.xml", std::process::id());
        let path = std::env::temp_dir().join(name);
        let text = self.script.counted();
        std::fs::write(&path, text).expect("a new file");
        let at = CString::new(path.display().to_string()).expect("no 0");
        let mut pairs = vec![(c"no such attribute".to_owned(), c"1".to_owned())];
        pairs.push((self.string(), self.string()));
        let list = attributes(&pairs);
        let mut node = 0;
        let mut error = [0; 100];
        let count = self.length(list.len(), 256);
        let size = usize::from(self.script.u8()) % 101;
        let path_at = if self.script.u8() == 255 { null() } else { at.as_ptr() };
        // SAFETY: as in `open`; counts above what is there are refused.
        let status = unsafe {
            ringtribe_open_server_xml(
                path_at,
                list.as_ptr(),
                count.max(1),
                &raw mut node,
                error.as_mut_ptr(),
                size,
            )
        };
        self.status(status, false, "open_server_xml");
        let _ = std::fs::remove_file(path);
    }
}

/// Calls.
pub fn play(input: &[u8]) {
    // SAFETY: no argument.
    assert_eq!(unsafe { ringtribe_abi_version() }, 0);
    // SAFETY: as above.
    assert!(!unsafe { ringtribe_version() }.is_null());
    let mut caller = Caller { script: Script::new(input), handles: Vec::new() };
    for _ in 0..64 {
        if caller.script.is_over() {
            break;
        }
        match caller.script.u8() % 16 {
            0..=4 => caller.send(),
            5..=7 => caller.poll(),
            8..=9 => caller.finish(),
            10 => caller.texts(),
            11 => caller.members(),
            12 => caller.open(),
            13 => caller.server_xml(),
            14 => {
                let (node, was_open) = caller.node();
                if !was_open {
                    // SAFETY: handles are numbers.
                    let (close, free) = unsafe { (ringtribe_close(node, 0), ringtribe_free(node)) };
                    assert!(close != 0 && free != 0, "a handle that is none");
                }
            }
            _ => {
                let number = caller.script.number32().cast_signed();
                // SAFETY: any number has a text.
                assert!(!unsafe { ringtribe_status_text(number) }.is_null());
            }
        }
    }
    for handle in caller.handles {
        // SAFETY: handles are numbers.
        let _ = unsafe { ringtribe_finish(nodes().open, handle, 0) };
    }
}
