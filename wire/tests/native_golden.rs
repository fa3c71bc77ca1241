//! Every golden frame of the own format: decoded it has the manifest's fields, encoded from the
//! manifest's fields it has the same bytes. The files come from a generator that shares no code with
//! this crate; the examples and numbers in FORMAT.md are checked against the same files and code.

#![allow(missing_docs, reason = "tests")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use ringtribe_wire::native::extension::Extension;
use ringtribe_wire::native::{
    Ack, AckEntry, Close, DataHead, Echo, Envelope, Error, Frame, Gap, Goodbye, Hello, HelloAck,
    HelloStatus, LaneClass, MAGIC, MAX_FRAME_BYTES, Step, What, crc32c, decode, decode_hello,
    decode_hello_ack, flags, hash,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

const GOLDEN_COUNT: usize = 36;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/native")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex")
    };
    digits.chunks(2).map(byte).collect()
}

/// One line of the manifest.
struct Golden {
    manifest: Value,
    file: String,
    bytes: Vec<u8>,
}

impl Golden {
    fn number(&self, name: &str) -> u64 {
        self.manifest["fields"][name].as_u64().unwrap_or_else(|| panic!("{}: {name}", self.file))
    }

    fn small<T: TryFrom<u64>>(&self, name: &str) -> T {
        T::try_from(self.number(name)).unwrap_or_else(|_| panic!("{}: {name}", self.file))
    }

    fn id(&self, name: &str) -> [u8; 16] {
        let text = self.manifest["fields"][name].as_str();
        let text = text.unwrap_or_else(|| panic!("{}: {name}", self.file));
        bytes(text).try_into().unwrap_or_else(|_| panic!("{}: {name}", self.file))
    }

    fn body(&self) -> Vec<u8> {
        bytes(self.manifest["body"].as_str().expect("a body"))
    }

    fn flags(&self) -> u16 {
        u16::try_from(self.manifest["flags"].as_u64().expect("flags")).expect("16 bits")
    }

    /// The first attribute of a type.
    fn attribute(&self, wanted: u64) -> Vec<u8> {
        let all = self.manifest["attributes"].as_array().expect("attributes");
        let found = all.iter().find(|pair| pair[0] == wanted);
        found.map_or_else(Vec::new, |pair| bytes(pair[1].as_str().expect("hex")))
    }

    fn entries(&self) -> Vec<AckEntry> {
        let all = self.manifest["entries"].as_array().expect("entries");
        let entry = |entry: &Value| {
            let number = |at: usize| u32::try_from(entry[at].as_u64().expect("a number"));
            let short = |at| u16::try_from(number(at).expect("32 bits")).expect("16 bits");
            AckEntry {
                offset: number(0).expect("32 bits"),
                count: number(1).expect("32 bits"),
                status: short(2),
                cause: short(3),
            }
        };
        all.iter().map(entry).collect()
    }

    fn frame(&self) -> Frame<'_> {
        let Step::Frame { frame, consumed_bytes } =
            decode(&self.bytes, MAX_FRAME_BYTES).unwrap_or_else(|e| panic!("{}: {e}", self.file))
        else {
            panic!("{}: more is wanted", self.file);
        };
        assert_eq!(consumed_bytes, self.bytes.len(), "{}", self.file);
        frame
    }

    fn echo(&self) -> Echo {
        Echo {
            still_ms: self.small("still_ms"),
            token: self.number("token"),
            view_hash: self.number("view_hash"),
            members: self.small("members"),
            free_pollers: self.small("free_pollers"),
        }
    }

    /// Compares what is decoded with the fields, and returns them encoded.
    fn check(&self) -> Vec<u8> {
        let file = &self.file;
        let mut out = Vec::new();
        match self.manifest["kind"].as_str() {
            Some("DATA") => {
                let (flags, sequence, key) =
                    (self.flags(), self.number("sequence"), self.number("key"));
                let head = DataHead { flags, place: self.small("place"), sequence, key };
                let body = self.body();
                assert_eq!(self.frame(), Frame::Data { head, body: &body }, "{file}");
                out.extend(head.encode(body.len(), crc32c(0, &body)));
                out.extend(body);
            }
            Some("ACK") => {
                let entries = self.entries();
                let ack = Ack {
                    received: self.number("received"),
                    applied: self.number("applied"),
                    credit: self.number("credit"),
                    granted: self.number("granted"),
                    oldest_ms: self.small("oldest_ms"),
                    entries: &[],
                };
                ack.encode(&entries, &mut out);
                let Frame::Ack(found) = self.frame() else { panic!("{file}: kind") };
                assert_eq!(found.entries().collect::<Vec<_>>(), entries, "{file}");
                assert_eq!(Ack { entries: &[], ..found }, ack, "{file}");
                assert_eq!(out.len(), Ack::bytes(entries.len()), "{file}");
            }
            Some("GAP") => {
                let gap = Gap {
                    cause: self.small("cause"),
                    sequence: self.number("sequence"),
                    key: self.number("key"),
                    refused: self.number("refused"),
                };
                assert_eq!(self.frame(), Frame::Gap(gap), "{file}");
                out.extend(gap.encode());
            }
            Some("CONFIRM") => {
                let count = self.number("count");
                assert_eq!(self.frame(), Frame::Confirm { count }, "{file}");
                out.extend(Frame::encode_confirm(count));
            }
            Some("ECHO") => {
                assert_eq!(self.frame(), Frame::Echo(self.echo()), "{file}");
                out.extend(self.echo().encode(false));
            }
            Some("ECHO_REPLY") => {
                assert_eq!(self.frame(), Frame::EchoReply(self.echo()), "{file}");
                out.extend(self.echo().encode(true));
            }
            Some("GOODBYE") => {
                let is_final = self.number("phase") == 1;
                let (reason, sequence) = (self.small("reason"), self.number("sequence"));
                let goodbye = Goodbye { is_final, reason, sequence };
                assert_eq!(self.frame(), Frame::Goodbye(goodbye), "{file}");
                out.extend(goodbye.encode());
            }
            Some("JOIN") => {
                let token = self.number("token");
                assert_eq!(self.frame(), Frame::Join { token }, "{file}");
                out.extend(Frame::encode_join(token, false));
            }
            Some("JOINED") => {
                let token = self.number("token");
                assert_eq!(self.frame(), Frame::Joined { token }, "{file}");
                out.extend(Frame::encode_join(token, true));
            }
            Some("CLOSE") => {
                let text = self.body();
                let (code, sequence) = (self.small("code"), self.number("sequence"));
                let close = Close { code, sequence, text: &text };
                assert_eq!(self.frame(), Frame::Close(close), "{file}");
                close.encode(&mut out);
            }
            Some("HELLO") => self.hello(&mut out),
            Some("HELLO_ACK") => self.hello_ack(&mut out),
            Some("extension") => self.extension(&mut out),
            None => {
                let kind = u8::try_from(self.manifest["kind"].as_u64().expect("a number"));
                assert_eq!(self.frame(), Frame::Optional { kind: kind.expect("a byte") }, "{file}");
            }
            Some(other) => panic!("{file}: unknown kind {other}"),
        }
        out
    }

    fn hello(&self, out: &mut Vec<u8>) {
        let (package, name) = (self.attribute(1), self.attribute(2));
        let hello = Hello {
            after_cut: self.flags() & flags::AFTER_CUT != 0,
            boot_id: self.id("boot_id"),
            expected_boot_id: self.id("expected_boot_id"),
            tribes_id: self.id("tribes_id"),
            cluster_hash: self.number("cluster_hash"),
            epoch: self.number("epoch"),
            stream: self.small("stream"),
            streams: self.small("streams"),
            lane_class: [LaneClass::Data, LaneClass::Reply][self.small::<usize>("lane_class")],
            max_frame_bytes: self.small("max_frame"),
            max_message_bytes: self.number("max_message"),
            next_sequence: self.number("next_sequence"),
            member_package: &package,
            cluster_name: &name,
        };
        assert_eq!(decode_hello(&self.bytes), Ok(Some((hello, self.bytes.len()))), "{}", self.file);
        assert_eq!(hash(b"default"), hello.cluster_hash, "{}", self.file);
        hello.encode(out);
    }

    fn hello_ack(&self, out: &mut Vec<u8>) {
        const STATUSES: [HelloStatus; 9] = [
            HelloStatus::Ok,
            HelloStatus::Reset,
            HelloStatus::OldEpoch,
            HelloStatus::WrongIncarnation,
            HelloStatus::WrongCluster,
            HelloStatus::Version,
            HelloStatus::BootIdInUse,
            HelloStatus::Closing,
            HelloStatus::Refused,
        ];
        let reason = self.attribute(3);
        let ack = HelloAck {
            status: STATUSES[self.small::<usize>("status")],
            boot_id: self.id("boot_id"),
            epoch: self.number("epoch"),
            received: self.number("received"),
            applied: self.number("applied"),
            credit: self.number("credit"),
            granted: self.number("granted"),
            max_frame_bytes: self.small("max_frame"),
            reason: &reason,
        };
        let found = decode_hello_ack(&self.bytes);
        assert_eq!(found, Ok(Some((ack, self.bytes.len()))), "{}", self.file);
        ack.encode(out);
    }

    fn extension(&self, out: &mut Vec<u8>) {
        let text = self.manifest["fields"]["package"].as_str().expect("hex");
        let (package, flags) = (bytes(text), self.number("flags"));
        let extension = Extension {
            version_min: self.small("version_min"),
            version_max: self.small("version_max"),
            features: self.small("features"),
            boot_id: self.id("boot_id"),
            oldest_unfinished_ms: self.small("oldest_ms"),
            members_count: self.small("members"),
            ready: flags & 1 != 0,
            draining: flags & 2 != 0,
            view_hash: self.number("view_hash"),
            package: Some(&package),
            cluster_name: b"",
        };
        assert_eq!(Extension::decode(&self.bytes), Ok(Some(extension)), "{}", self.file);
        extension.encode(out).expect("it fits");
    }
}

fn goldens() -> Vec<Golden> {
    let manifest = std::fs::read_to_string(directory().join("manifest.json")).expect("a manifest");
    let manifest: Vec<Value> = serde_json::from_str(&manifest).expect("JSON");
    let golden = |manifest: Value| {
        let file = manifest["file"].as_str().expect("a name").to_owned();
        let bytes =
            std::fs::read(directory().join(&file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        Golden { manifest, file, bytes }
    };
    manifest.into_iter().map(golden).collect()
}

#[test]
fn every_golden_frame_is_read_and_written() {
    let mut checked = BTreeSet::new();
    for golden in goldens() {
        let Golden { manifest, file, bytes } = &golden;
        assert_eq!(bytes.len() as u64, manifest["length"], "{file}: length");
        assert_eq!(hex(&Sha256::digest(bytes)), manifest["sha256"], "{file}: content");
        let encoded = golden.check();
        // What no version 1 writes: words and attributes of later ones, unknown kinds.
        if manifest["reencodes"] == true {
            assert_eq!(hex(&encoded), hex(bytes), "{file}: encoded");
        }
        checked.insert(file.clone());
    }
    let is_bin = |name: &String| name.ends_with(".bin");
    let present: BTreeSet<String> = std::fs::read_dir(directory())
        .expect("testdata/native")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
        .filter(is_bin)
        .collect();
    assert_eq!(checked, present);
    assert_eq!(checked.len(), GOLDEN_COUNT);
}

#[test]
fn the_envelope_is_split_off() {
    let golden = goldens().into_iter().find(|golden| golden.file == "data-envelope.bin");
    let body = golden.expect("it is there").body();
    let unique_id = std::array::from_fn(|at| 32 + u8::try_from(at).expect("small"));
    let envelope = Envelope { timestamp_ms: 1_700_000_000_123, unique_id, options: 6 };
    assert_eq!(Envelope::split(&body), Some((envelope, &b"hello"[..])));
    assert_eq!(body[..32], envelope.encode());
    assert_eq!(Envelope::split(&body[..31]), None);
}

/// A golden frame with some bytes changed or added, and a checksum that is right again.
fn resealed(file: &str, changes: &[(usize, u8)], added: &[u8]) -> Vec<u8> {
    let mut bytes = std::fs::read(directory().join(file)).expect("it is there");
    bytes.extend(added);
    let magic_bytes = if bytes.starts_with(&MAGIC) { MAGIC.len() } else { 0 };
    let frame = &mut bytes[magic_bytes..];
    let length = u32::try_from(frame.len()).expect("short");
    frame[..4].copy_from_slice(&length.to_le_bytes());
    for (at, value) in changes {
        frame[*at] = *value;
    }
    let (header, body) = frame.split_at(usize::from(frame[5]) * 4);
    let crc = crc32c(crc32c(crc32c(0, body), &header[..8]), &header[12..]);
    frame[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// A golden file, bytes of its frame to change, bytes to add behind it, and how it is refused.
type Wrong = (&'static str, &'static [(usize, u8)], &'static [u8], Refusal);
/// What is wrong, where, the value and the limit.
type Refusal = (What, usize, u64, u64);

#[test]
fn what_is_sound_and_wrong_is_refused_by_name_and_place() {
    let cases: [Wrong; 12] = [
        ("gap.bin", &[(4, 11)], b"", (What::Kind, 4, 11, 0)),
        ("gap.bin", &[(4, 0x7f)], b"", (What::Kind, 4, 0x7f, 0)),
        ("gap.bin", &[(4, 16)], b"", (What::Kind, 4, 16, 0)),
        ("gap.bin", &[(4, 0)], b"", (What::Kind, 4, 0, 0)),
        ("gap.bin", &[(5, 9)], b"", (What::HeaderLength, 5, 36, 40)),
        ("gap.bin", &[(7, 0x01)], b"", (What::Flags, 6, 0x100, 0xff)),
        ("goodbye.bin", &[(12, 2)], b"", (What::Enumeration, 12, 2, 1)),
        ("ack-1.bin", &[(12, 2)], b"", (What::Count, 12, 2, 1)),
        ("ack-1.bin", &[], b"1", (What::Count, 12, 1, 1)),
        ("ack-0.bin", &[(15, 0x80)], b"", (What::Count, 12, 0x8000_0000, 0)),
        ("close-silent.bin", &[(14, 1)], b"", (What::Count, 14, 1, 0)),
        ("close-silent.bin", &[(14, 1), (15, 1)], &[b'x'; 300], (What::Count, 14, 257, 256)),
    ];
    for (file, changes, added, expected) in cases {
        let bytes = resealed(file, changes, added);
        let Error { what, offset, value, limit } = decode(&bytes, MAX_FRAME_BYTES).expect_err(file);
        assert_eq!((what, offset, value, limit), expected, "{file} {changes:?}");
    }
    // Hellos: places count from the magic.
    const NAME_AT: usize = 128 + 4 + 77;
    let hellos: [Wrong; 9] = [
        ("hello.bin", &[(4, 17)], b"", (What::Kind, 12, 17, 16)),
        ("hello.bin", &[(5, 31)], b"", (What::HeaderLength, 13, 124, 128)),
        ("hello.bin", &[(7, 0x80)], b"", (What::Flags, 14, 0x8000, 0xff)),
        ("hello.bin", &[(12, 2), (14, 3)], b"", (What::Version, 20, 2, 1)),
        ("hello.bin", &[(12, 0), (14, 0)], b"", (What::Version, 20, 0, 1)),
        ("hello.bin", &[(20, 1)], b"", (What::Version, 20, 1, 1)),
        ("hello.bin", &[(92, 2)], b"", (What::Enumeration, 100, 2, 1)),
        ("hello.bin", &[], b"\x09\0", (What::Attribute, 8 + NAME_AT + 11, 0, 2)),
        ("hello.bin", &[(NAME_AT + 2, 8)], b"", (What::Attribute, 8 + NAME_AT, 2, 7)),
    ];
    for (file, changes, added, expected) in hellos {
        let bytes = resealed(file, changes, added);
        let Error { what, offset, value, limit } = decode_hello(&bytes).expect_err(file);
        assert_eq!((what, offset, value, limit), expected, "{file} {changes:?}");
    }
    let acks: [(&[(usize, u8)], Refusal); 3] = [
        (&[(4, 16)], (What::Kind, 12, 16, 17)),
        (&[(14, 9)], (What::Enumeration, 22, 9, 8)),
        (&[(12, 2)], (What::Version, 20, 2, 1)),
    ];
    for (changes, expected) in acks {
        let bytes = resealed("hello-ack.bin", changes, b"");
        let Error { what, offset, value, limit } = decode_hello_ack(&bytes).expect_err("refused");
        assert_eq!((what, offset, value, limit), expected, "{changes:?}");
    }
    // The same version in a refusal is news, no fault.
    let refusal = resealed("hello-ack-version.bin", &[(12, 2)], b"");
    let found = decode_hello_ack(&refusal).expect("sound").expect("whole");
    assert_eq!(found.0.status, HelloStatus::Version);
}

#[test]
fn the_examples_of_the_specification_are_the_golden_frames() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("FORMAT.md");
    let text = std::fs::read_to_string(path).expect("FORMAT.md");
    let mut shown = BTreeSet::new();
    for block in text.split("```hex ").skip(1) {
        let (file, rest) = block.split_once('\n').expect("a name");
        let (digits, _) = rest.split_once("```").expect("an end");
        let golden =
            std::fs::read(directory().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(hex(&bytes(digits)), hex(&golden), "{file} in FORMAT.md");
        shown.insert(file.to_owned());
    }
    let kinds: BTreeSet<String> = goldens()
        .iter()
        .filter(|golden| shown.contains(&golden.file))
        .filter_map(|golden| golden.manifest["kind"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(kinds.len(), 13, "an example of each of the 12 kinds, and of the extension");
    for name in ["", "session-1", "default"] {
        let value = format!("{:#018x}", hash(name.as_bytes()));
        assert!(text.contains(&value), "the hash of \"{name}\", {value}, in FORMAT.md");
    }
}
