//! The heartbeat extension: one block as it is for ever, and what holds for any block.

#![allow(missing_docs, reason = "tests")]

use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::*;
use ringtribe_wire::native::extension::{Extension, ExtensionError, wants_more};

fn golden() -> Extension<'static> {
    Extension {
        version_min: 1,
        version_max: 2,
        features: 0x0403_0201,
        boot_id: *b"0123456789abcdef",
        oldest_unfinished_ms: 1_500,
        members_count: 3,
        ready: true,
        draining: true,
        view_hash: 0x1122_3344_5566_7788,
        package: Some(b"a member package"),
        cluster_name: b"",
    }
}

fn encoded(extension: &Extension<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    extension.encode(&mut bytes).expect("it fits");
    bytes
}

#[test]
fn the_golden_block_is_read_and_written() {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/native/heartbeat-extension.bin");
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    // Field by field, so that the file cannot follow a mistake of the encoder.
    let mut by_hand = b"RTHX\x44\x00\x01\x02\x01\x02\x03\x040123456789abcdef".to_vec();
    by_hand.extend(b"\xdc\x05\x00\x00\x03\x00\x03\x00\x88\x77\x66\x55\x44\x33\x22\x11");
    by_hand.extend(&bytes[44..48]);
    by_hand.extend(b"\x01\x00\x10\x00a member package");
    assert_eq!(bytes, by_hand);
    assert_eq!(Extension::decode(&bytes), Ok(Some(golden())));
    assert_eq!(encoded(&golden()), bytes);
    // With a name of the cluster it has one part more.
    let named = encoded(&Extension { cluster_name: b"shop", ..golden() });
    assert_eq!(named.len(), bytes.len() + 8);
    assert!(named.ends_with(b"a member package\x02\x00\x04\x00shop"));
}

#[test]
fn what_is_refused_names_the_limit() {
    let bytes = encoded(&golden());
    let refused = |bytes: &[u8]| Extension::decode(bytes).expect_err("refused");
    assert_eq!(refused(&bytes[..20]), ExtensionError::Short { bytes: 20, least_bytes: 48 });
    assert_eq!(refused(&bytes[..50]), ExtensionError::Short { bytes: 50, least_bytes: 68 });
    let mut short = bytes.clone();
    short[4] = 47;
    assert_eq!(refused(&short), ExtensionError::Short { bytes: 47, least_bytes: 48 });
    for (min, max) in [(0, 1), (3, 2)] {
        let wrong = encoded(&Extension { version_min: min, version_max: max, ..golden() });
        assert_eq!(refused(&wrong), ExtensionError::Versions { min, max });
    }
    assert!(refused(&[&bytes[..44], &[0; 4], &bytes[48..]].concat()).to_string().contains("CRC"));
    let package = vec![0; 65_500];
    let long = Extension { package: Some(&package), ..golden() };
    let mut out = Vec::new();
    assert_eq!(
        long.encode(&mut out),
        Err(ExtensionError::PackageTooLong { bytes: 65_500, most_bytes: 65_483 })
    );
    assert!(out.is_empty());
    assert_eq!(Extension::decode(b""), Ok(None));
    assert_eq!(Extension::decode(b"what stock's own versions may append some day"), Ok(None));
}

fn extension() -> impl Strategy<Value = (Extension<'static>, Option<Vec<u8>>)> {
    let numbers = any::<(u32, [u8; 16], u32, u16, u64)>();
    let versions = (1..=255_u8).prop_flat_map(|min| (Just(min), min..=255));
    let package = proptest::option::of(vec(any::<u8>(), 0..200));
    (numbers, versions, any::<(bool, bool)>(), package).prop_map(
        |(numbers, (version_min, version_max), (ready, draining), package)| {
            let (features, boot_id, oldest_unfinished_ms, members_count, view_hash) = numbers;
            let extension = Extension {
                version_min,
                version_max,
                features,
                boot_id,
                oldest_unfinished_ms,
                members_count,
                ready,
                draining,
                view_hash,
                package: None,
                cluster_name: b"",
            };
            (extension, package)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocks_come_back_and_damaged_ones_do_not(
        (extension, package) in extension(),
        after in vec(any::<u8>(), 0..40),
        flips in vec((any::<prop::sample::Index>(), 1..=255_u8), 1..20),
    ) {
        let cluster_name = &after[..after.len() / 2];
        let extension = Extension { package: package.as_deref(), cluster_name, ..extension };
        let block = encoded(&extension);
        let bytes = [&block[..], &after].concat();
        prop_assert_eq!(Extension::decode(&bytes), Ok(Some(extension)));
        for (index, flip) in flips {
            let mut damaged = bytes.clone();
            damaged[index.index(block.len())] ^= flip;
            prop_assert!(!matches!(Extension::decode(&damaged), Ok(Some(_))), "{:?}", damaged);
        }
        for end in 0..block.len() {
            prop_assert!(wants_more(&block[..end]));
            prop_assert!(!matches!(Extension::decode(&block[..end]), Ok(Some(_))));
        }
        prop_assert!(!wants_more(&bytes));
    }

    #[test]
    fn arbitrary_bytes_are_survived(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Extension::decode(&bytes);
        let behind_magic = [b"RTHX", &bytes[..]].concat();
        let _ = Extension::decode(&behind_magic);
        let _ = (wants_more(&bytes), wants_more(&behind_magic));
    }
}
