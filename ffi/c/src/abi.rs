//! The structs and numbers of `ringtribe.h`, field by field. A test compares them with the header.
#![forbid(unsafe_code)]

use core::ffi::c_char;

use crate::borrow::{In, Lent};

/// `RINGTRIBE_ABI_VERSION`, and the number of the soname.
pub(crate) const ABI_VERSION: u32 = 0;

/// `struct ringtribe_attribute`
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Attribute {
    pub(crate) name: In<c_char>,
    pub(crate) value: In<c_char>,
}

/// `struct ringtribe_message`
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Message {
    pub(crate) size: u32,
    pub(crate) mode: u32,
    pub(crate) flags: u32,
    pub(crate) reserved: u32,
    pub(crate) payload: In<u8>,
    pub(crate) payload_bytes: usize,
    pub(crate) key: In<u8>,
    pub(crate) key_bytes: usize,
}

/// `RINGTRIBE_MODE_*`, in the order of their numbers, as the option bits that ask for them.
pub(crate) const MODE_OPTIONS: [i32; 3] = {
    use ringtribe_wire::tribes::options::{SYNCHRONIZED_ACK, USE_ACK};
    [0, USE_ACK, USE_ACK | SYNCHRONIZED_ACK]
};

/// `RINGTRIBE_FLAG_REPLY`
pub(crate) const FLAG_REPLY: u32 = 1;
/// `RINGTRIBE_FLAG_QUIET`
pub(crate) const FLAG_QUIET: u32 = 2;

/// `struct ringtribe_outcome`
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Outcome {
    pub(crate) member: u64,
    pub(crate) status: i32,
    pub(crate) reserved: u32,
}

/// Room for an address in digits and a 0.
pub(crate) const HOST_BYTES: usize = 64;

/// `struct ringtribe_member_info`
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct MemberInfo {
    pub(crate) size: u32,
    pub(crate) port: u32,
    pub(crate) member: u64,
    pub(crate) alive_ms: i64,
    pub(crate) queued_bytes: u64,
    pub(crate) unique_id: [u8; 16],
    pub(crate) host: [u8; HOST_BYTES],
}

/// `RINGTRIBE_POLL_*`
pub(crate) const POLL_GENERAL: i32 = 0;
pub(crate) const POLL_RESERVED: i32 = 1;

/// `RINGTRIBE_KIND_*`
pub(crate) mod kind {
    pub(crate) const NOTHING: u32 = 0;
    pub(crate) const MESSAGE: u32 = 1;
    pub(crate) const MEMBER_ADDED: u32 = 2;
    pub(crate) const MEMBER_CHANGED: u32 = 3;
    pub(crate) const MEMBER_GONE: u32 = 4;
    pub(crate) const COMPLETED: u32 = 5;
    pub(crate) const GAP: u32 = 6;
    pub(crate) const LOG: u32 = 7;
}

/// `struct ringtribe_delivery`
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Delivery {
    pub(crate) size: u32,
    pub(crate) kind: u32,
    pub(crate) handle: u64,
    pub(crate) member: u64,
    pub(crate) payload: Lent<u8>,
    pub(crate) payload_bytes: usize,
    pub(crate) failures: Lent<Outcome>,
    pub(crate) failures_count: usize,
    pub(crate) token: u64,
    pub(crate) lost_count: u64,
    pub(crate) timestamp_ms: i64,
    pub(crate) options: i32,
    pub(crate) status: i32,
    pub(crate) level: u32,
    pub(crate) port: u32,
    pub(crate) message_id: [u8; 16],
    pub(crate) unique_id: [u8; 16],
    pub(crate) host: [u8; HOST_BYTES],
}

impl Delivery {
    /// Nothing came.
    pub(crate) const NOTHING: Self = Self {
        size: 0,
        kind: kind::NOTHING,
        handle: 0,
        member: 0,
        payload: Lent::null(),
        payload_bytes: 0,
        failures: Lent::null(),
        failures_count: 0,
        token: 0,
        lost_count: 0,
        timestamp_ms: 0,
        options: 0,
        status: 0,
        level: 0,
        port: 0,
        message_id: [0; 16],
        unique_id: [0; 16],
        host: [0; HOST_BYTES],
    };
}

/// The text of an address, in the fixed room of a struct.
pub(crate) fn host_text(ip: std::net::IpAddr) -> [u8; HOST_BYTES] {
    let mut host = [0; HOST_BYTES];
    // The longest address in digits has 45 bytes, so the 0 behind it stays.
    for (to, byte) in host.iter_mut().zip(ip.to_string().bytes()) {
        *to = byte;
    }
    host
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::mem::offset_of;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use ringtribe::event::LogLevel;
    use ringtribe::status::Status;

    use super::*;

    /// `RINGTRIBE_` and the variant's name in the capitals of C.
    fn c_name(status: Status) -> String {
        let mut name = String::from("RINGTRIBE");
        for letter in format!("{status:?}").chars() {
            if letter.is_uppercase() {
                name.push('_');
            }
            name.push(letter.to_ascii_uppercase());
        }
        name
    }

    fn header() -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../include/ringtribe.h");
        std::fs::read_to_string(path).expect("the header")
    }

    #[test]
    fn the_header_has_the_statuses_of_rust() {
        let mut block = String::from("enum ringtribe_status_number {\n");
        for status in Status::ALL {
            let (name, number, text) = (c_name(*status), status.number(), status.text());
            let _ = writeln!(block, "    /** {text} */\n    {name} = {number},");
        }
        block.push_str("    RINGTRIBE_STATUS_LIMIT = 32767 /* keeps the enum an int */\n};\n");
        assert!(
            header().contains(&block),
            "ringtribe.h must have exactly these lines (from engine/src/status.rs):\n{block}"
        );
    }

    /// Lines of C that do not compile where the header says another thing than this file.
    fn assertions() -> String {
        macro_rules! layout {
            ($($name:literal $type:ty { $($field:ident),* })*) => {{
                let mut lines = String::new();
                $(
                    let size = size_of::<$type>();
                    let _ = writeln!(lines, "A(sizeof(struct {}) == {size});", $name);
                    $(
                        let (at, field) = (offset_of!($type, $field), stringify!($field));
                        let _ = writeln!(lines, "A(offsetof(struct {}, {field}) == {at});", $name);
                    )*
                )*
                lines
            }};
        }
        let mut lines = layout! {
            "ringtribe_attribute" Attribute { name, value }
            "ringtribe_message" Message {
                size, mode, flags, reserved, payload, payload_bytes, key, key_bytes
            }
            "ringtribe_outcome" Outcome { member, status, reserved }
            "ringtribe_member_info" MemberInfo {
                size, port, member, alive_ms, queued_bytes, unique_id, host
            }
            "ringtribe_delivery" Delivery {
                size, kind, handle, member, payload, payload_bytes, failures, failures_count,
                token, lost_count, timestamp_ms, options, status, level, port, message_id,
                unique_id, host
            }
        };
        let mut number = |name: &str, value: i64| {
            let _ = writeln!(lines, "A({name} == {value});");
        };
        number("RINGTRIBE_ABI_VERSION", ABI_VERSION.into());
        number("RINGTRIBE_HOST_SIZE", i64::try_from(HOST_BYTES).expect("small"));
        number("RINGTRIBE_FLAG_REPLY", FLAG_REPLY.into());
        number("RINGTRIBE_FLAG_QUIET", FLAG_QUIET.into());
        number("RINGTRIBE_POLL_GENERAL", POLL_GENERAL.into());
        number("RINGTRIBE_POLL_RESERVED", POLL_RESERVED.into());
        for (at, name) in ["NONE", "RECEIVED", "APPLIED"].into_iter().enumerate() {
            let mode = ringtribe::message::AckMode::of_options(MODE_OPTIONS[at]);
            assert_eq!(format!("{mode:?}").to_uppercase(), name);
            number(&format!("RINGTRIBE_MODE_{name}"), i64::try_from(at).expect("small"));
        }
        for (name, value) in [
            ("NOTHING", kind::NOTHING),
            ("MESSAGE", kind::MESSAGE),
            ("MEMBER_ADDED", kind::MEMBER_ADDED),
            ("MEMBER_CHANGED", kind::MEMBER_CHANGED),
            ("MEMBER_GONE", kind::MEMBER_GONE),
            ("COMPLETED", kind::COMPLETED),
            ("GAP", kind::GAP),
            ("LOG", kind::LOG),
        ] {
            number(&format!("RINGTRIBE_KIND_{name}"), value.into());
        }
        for level in [LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error] {
            let name = format!("{level:?}").to_uppercase();
            number(&format!("RINGTRIBE_LOG_{name}"), level as i64);
        }
        lines
    }

    /// No holes either (`-Wpadded`): their bytes would be garbage in what C gets.
    #[test]
    fn the_header_has_the_layout_of_rust() {
        use std::io::Write as _;
        let source = format!(
            "#include <ringtribe.h>\n#define A(what) _Static_assert(what, #what)\n{}",
            assertions()
        );
        let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../include");
        let mut compiler = Command::new("cc")
            .args([
                "-std=c11",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-pedantic",
                "-Wpadded",
                "-fsyntax-only",
            ])
            .arg("-I")
            .arg(include)
            .args(["-x", "c", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a C compiler: apt-get install -y gcc libc6-dev");
        let mut input = compiler.stdin.take().expect("piped");
        input.write_all(source.as_bytes()).expect("it reads");
        drop(input);
        let output = compiler.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
