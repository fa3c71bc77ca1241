//! The vectors in `testdata/tribes`, checked against their manifest, and what takes a stream apart.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use ringtribe_wire::tribes::{Frame, Step, decode_frame};
use ringtribe_wire::{Error, Limits};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub(crate) const VECTORS_COUNT: usize = 63;

#[derive(Debug)]
pub(crate) struct Vector {
    pub(crate) file: String,
    pub(crate) kind: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) manifest: Value,
}

impl Vector {
    pub(crate) fn is_stream(&self) -> bool {
        !self.kind.contains("member") && self.kind != "coord"
    }
}

/// All of them; fails unless directory and manifest agree to the byte.
pub(crate) fn all() -> Vec<Vector> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/tribes");
    let manifest = fs::read_to_string(directory.join("manifest.json")).expect("manifest.json");
    let manifest: Vec<Value> = serde_json::from_str(&manifest).expect("manifest.json is JSON");
    let vectors: Vec<Vector> = manifest
        .into_iter()
        .map(|manifest| {
            let file = text(&manifest, "file").to_owned();
            let bytes = fs::read(directory.join(&file)).unwrap_or_else(|e| panic!("{file}: {e}"));
            assert_eq!(
                bytes.len() as u64,
                manifest["length"],
                "{file}: length differs from the manifest"
            );
            assert_eq!(
                sha256(&bytes),
                text(&manifest, "sha256"),
                "{file}: content differs from the manifest"
            );
            let kind = text(&manifest, "kind").to_owned();
            Vector { file, kind, bytes, manifest }
        })
        .collect();
    let listed: BTreeSet<String> = vectors.iter().map(|vector| vector.file.clone()).collect();
    let present: BTreeSet<String> = fs::read_dir(&directory)
        .expect("testdata/tribes")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
        .filter(|name| name.ends_with(".bin"))
        .collect();
    assert_eq!(present, listed, "the manifest lists other files than there are");
    assert_eq!(listed.len(), VECTORS_COUNT);
    vectors
}

pub(crate) fn named(name: &str) -> Vec<u8> {
    let vector = all().into_iter().find(|vector| vector.file == name);
    vector.unwrap_or_else(|| panic!("no vector {name}")).bytes
}

pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field} in {value}"))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String");
        text
    })
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// What became of a stream: frames with where each starts, then where and why it stopped.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome<'a> {
    pub(crate) frames: Vec<(usize, Frame<'a>)>,
    pub(crate) stopped_at: usize,
    pub(crate) error: Option<Error>,
    pub(crate) wanted_bytes: Option<usize>,
}

/// Decodes a stream that arrives in pieces, each of which ends at one of `ends`.
pub(crate) fn arriving<'a>(
    bytes: &'a [u8],
    ends: impl IntoIterator<Item = usize>,
    limits: &Limits,
) -> Outcome<'a> {
    let mut outcome =
        Outcome { frames: Vec::new(), stopped_at: 0, error: None, wanted_bytes: None };
    for end in ends {
        loop {
            let there = &bytes[outcome.stopped_at..end];
            match decode_frame(there, limits) {
                Ok(Step::Frame { frame, consumed_bytes }) => {
                    assert!((1..=there.len()).contains(&consumed_bytes));
                    outcome.frames.push((outcome.stopped_at, frame));
                    outcome.stopped_at += consumed_bytes;
                }
                Ok(Step::NeedMore { frame_bytes }) => {
                    assert_eq!(frame_bytes.is_some(), there.len() >= 11, "known from 11 bytes on");
                    assert!(frame_bytes.is_none_or(|frame_bytes| frame_bytes > there.len()
                        && frame_bytes <= limits.max_frame_bytes.saturating_add(18)));
                    outcome.wanted_bytes = frame_bytes;
                    break;
                }
                Err(error) => {
                    outcome.error = Some(error);
                    outcome.wanted_bytes = None;
                    return outcome;
                }
            }
        }
    }
    outcome
}

pub(crate) fn whole<'a>(bytes: &'a [u8], limits: &Limits) -> Outcome<'a> {
    arriving(bytes, [bytes.len()], limits)
}
