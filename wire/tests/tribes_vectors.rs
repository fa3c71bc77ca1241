//! Every golden vector, both directions: decoded it has the manifest's values, encoded it has the
//! same bytes, broken it is refused with what and where, cut anywhere it comes out the same.

#![allow(missing_docs, reason = "tests")]

mod vectors;

use ringtribe_wire::tribes::{
    ACK, ChannelData, Datagram, FAIL_ACK, FOOTER, FRAME_OVERHEAD_BYTES, Frame, Member,
    SHUTDOWN_COMMAND, Step, TCP_FAILURE_DETECTOR_MAGIC, TCP_PING_MAGIC, data_head_bytes,
    decode_datagram, decode_frame, encode_data_head, finish,
};
use ringtribe_wire::{Error, Limits, What};
use serde_json::Value;
use vectors::{VECTORS_COUNT, Vector, arriving, hex, named, sha256, text, whole};

const LIMITS: Limits = Limits { max_frame_bytes: 1 << 20, max_member_bytes: 1 << 16 };

#[test]
fn every_vector_by_its_kind() {
    let mut checked_count = 0;
    for vector in vectors::all() {
        let Vector { file, kind, bytes, manifest } = &vector;
        match kind.as_str() {
            "member" => {
                let member = alone(file, bytes);
                same_member(file, &member, manifest);
            }
            "capture-member" => {
                let member = alone(file, bytes);
                assert_eq!(member.host, [127, 0, 0, 1], "{file}");
                assert_eq!((member.secure_port, member.udp_port), (-1, -1), "{file}");
                assert_eq!(member.is_shutdown(), file.contains("shutdown"), "{file}");
            }
            "frame" => {
                let data = one_message(file, bytes);
                assert_eq!(data.options, manifest["options"], "{file}: options");
                assert_eq!(data.timestamp_ms, manifest["timestamp"], "{file}: timestamp");
                assert_eq!(hex(data.unique_id), text(manifest, "uniqueId"), "{file}: id");
                same_member(file, &data.member, &manifest["member"]);
                assert_eq!(data.message.len() as u64, manifest["msgLength"], "{file}");
                assert_eq!(sha256(data.message), text(manifest, "msgSha256"), "{file}");
            }
            "frame-random-uid" => {
                let data = one_message(file, bytes);
                assert_eq!(data.options, manifest["options"], "{file}: options");
                assert_eq!(data.message, control_message(file), "{file}: message");
            }
            "frame-intercepted" => intercepted(file, one_message(file, bytes), manifest),
            "ack" => {
                let (frame, constant) = match text(manifest, "data") {
                    "060203" => (Frame::Ack, ACK),
                    "0b0005" => (Frame::FailAck, FAIL_ACK),
                    other => panic!("{file}: {other}"),
                };
                assert_eq!(frames(bytes), [frame], "{file}");
                assert_eq!(bytes[..], constant, "{file}");
            }
            "ack-stream" | "capture-ack" => {
                let expected: &[Frame<'_>] = match file.as_str() {
                    "capture-tcp-3msgs-receiver.bin" => &[Frame::Ack, Frame::Ack],
                    "capture-tcp-failack-retry-receiver.bin" => &[Frame::FailAck],
                    _ => &[Frame::Ack, Frame::Ack, Frame::FailAck],
                };
                assert_eq!(frames(bytes), expected, "{file}");
            }
            "stream" | "capture-stream" => stream(file, bytes, manifest),
            "coord" => coordination(file, bytes, manifest),
            // `tribes_broken.rs` goes through them one by one.
            "malformed" | "malformed-member" => {}
            other => panic!("{file}: unknown kind {other}"),
        }
        checked_count += 1;
    }
    assert_eq!(checked_count, VECTORS_COUNT);
}

fn same_member(file: &str, member: &Member<'_>, manifest: &Value) {
    assert_eq!(member.alive_ms, manifest["alive"], "{file}: alive");
    assert_eq!(member.port, manifest["port"], "{file}: port");
    assert_eq!(member.secure_port, manifest["securePort"], "{file}: secure port");
    assert_eq!(member.udp_port, manifest["udpPort"], "{file}: udp port");
    assert_eq!(hex(member.host), text(manifest, "host"), "{file}: host");
    assert_eq!(hex(member.command), text(manifest, "command"), "{file}: command");
    assert_eq!(hex(member.domain), text(manifest, "domain"), "{file}: domain");
    assert_eq!(hex(member.unique_id), text(manifest, "uniqueId"), "{file}: id");
    assert_eq!(hex(member.payload), text(manifest, "payload"), "{file}: payload");
    assert_eq!(member.is_shutdown(), member.command == SHUTDOWN_COMMAND, "{file}");
    assert_eq!(member.is_shutdown(), file.contains("shutdown"), "{file}: goodbye");
}

/// A member package that is all of `bytes`; encoded again it is the same.
fn alone<'a>(file: &str, bytes: &'a [u8]) -> Member<'a> {
    let (member, package_bytes) =
        Member::decode(bytes, &LIMITS).unwrap_or_else(|e| panic!("{file}: {e}"));
    assert_eq!(package_bytes, bytes.len(), "{file}: length of the package");
    assert_eq!(member.encoded_bytes(), bytes.len(), "{file}: encoded length");
    let mut encoded = Vec::new();
    member.encode(&mut encoded);
    assert_eq!(encoded, bytes, "{file}: encoded again");
    assert_eq!(decode_datagram(bytes, &LIMITS), Ok(Datagram::Member(member, &[])), "{file}");
    member
}

/// The frame at the front; encoded again it is the same.
fn message<'a>(file: &str, bytes: &'a [u8]) -> (ChannelData<'a>, usize) {
    let step = decode_frame(bytes, &LIMITS).unwrap_or_else(|e| panic!("{file}: {e}"));
    let Step::Frame { frame: Frame::Data(data), consumed_bytes } = step else {
        panic!("{file}: {step:?}");
    };
    let member = alone(file, data.member_package);
    assert_eq!(member, data.member, "{file}: the member of its package");
    let id = data.unique_id.try_into().unwrap_or_else(|_| panic!("{file}: id of 16 bytes"));
    let mut encoded = Vec::new();
    encode_data_head(
        &mut encoded,
        data.options,
        data.timestamp_ms,
        id,
        data.member_package,
        data.message.len(),
    );
    assert_eq!(encoded.len(), data_head_bytes(data.member_package.len()), "{file}: head");
    encoded.extend(data.message);
    encoded.extend(FOOTER);
    assert_eq!(encoded, bytes[..consumed_bytes], "{file}: encoded again");
    (data, consumed_bytes)
}

fn one_message<'a>(file: &str, bytes: &'a [u8]) -> ChannelData<'a> {
    let (data, consumed_bytes) = message(file, bytes);
    assert_eq!(consumed_bytes, bytes.len(), "{file}: one frame");
    assert_eq!(finish(bytes, &LIMITS), Ok(()), "{file}: the stream may end after it");
    assert_eq!(decode_datagram(bytes, &LIMITS), Ok(Datagram::Broadcast(data)), "{file}");
    data
}

fn frames(bytes: &[u8]) -> Vec<Frame<'_>> {
    let outcome = whole(bytes, &LIMITS);
    assert_eq!((outcome.error, outcome.stopped_at), (None, bytes.len()));
    outcome.frames.into_iter().map(|(_, frame)| frame).collect()
}

fn control_message(file: &str) -> &'static [u8] {
    match file {
        "ctl-tcpping.bin" => &TCP_PING_MAGIC,
        "ctl-tcpfailuredetector-probe.bin" => &TCP_FAILURE_DETECTOR_MAGIC,
        "ctl-static-start.bin" => b"Local StaticMember Notification Data",
        "ctl-static-stop.bin" => b"Local StaticMember Shutdown Data",
        other => panic!("no message known for {other}"),
    }
}

fn stream(file: &str, bytes: &[u8], manifest: &Value) {
    let mut at = 0;
    let mut lengths = Vec::new();
    let mut options = Vec::new();
    let leftover_bytes = manifest.get("leftover").map_or(0, usize_of);
    while at < bytes.len() - leftover_bytes {
        let (data, consumed_bytes) = message(file, &bytes[at..]);
        lengths.push(consumed_bytes);
        options.push(data.options);
        at += consumed_bytes;
    }
    if let Some(frames_count) = manifest.get("frames") {
        assert_eq!(lengths.len() as u64, *frames_count, "{file}: frames");
    }
    if let Some(expected) = manifest.get("lengths") {
        assert_eq!(Value::from(lengths), *expected, "{file}: lengths");
    }
    let expected: &[i32] = match file {
        "stream-two-back-to-back.bin" | "stream-three-last-partial.bin" => &options.clone(),
        "capture-tcp-3msgs-sender.bin" => &[1, 3, 7],
        "capture-tcp-failack-retry-sender.bin" => &[7],
        "capture-mcast-broadcast.bin" => &[0x41],
        other => panic!("no options known for {other}"),
    };
    assert_eq!(options, expected, "{file}: options");
    let end = finish(bytes, &LIMITS);
    if leftover_bytes == 0 {
        assert_eq!(end, Ok(()), "{file}");
    } else {
        // The third frame is as long as the second but for its message: 10 bytes are cut off.
        let error = end.expect_err(file);
        assert_eq!((error.what, error.offset), (What::FrameTruncated, bytes.len()), "{file}");
        assert_eq!(error.value, leftover_bytes as i64, "{file}");
        assert_eq!(error.limit, leftover_bytes as i64 + 10, "{file}");
    }
}

fn usize_of(value: &Value) -> usize {
    value.as_u64().and_then(|value| usize::try_from(value).ok()).expect("a length")
}

/// The generator's messages; the manifest gives only their lengths for these vectors.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..=u8::MAX).cycle().map(|at| at.wrapping_mul(7).wrapping_add(3)).take(bytes).collect()
}

/// What the interceptors append or replace stays in the message; the frame is as any other.
fn intercepted(file: &str, data: ChannelData<'_>, manifest: &Value) {
    let original = pattern(usize_of(&manifest["msgLength"]));
    let with = |tail: &[u8]| [&original[..], tail].concat();
    let message = data.message;
    match file {
        "icpt-frag-1of3.bin" | "icpt-frag-2of3.bin" | "icpt-frag-3of3.bin" => {
            let index = file.as_bytes()["icpt-frag-".len()] - b'1';
            let piece = original.chunks(100).nth(index.into()).expect("a piece");
            let tail = [0, 0, 0, index, 0, 0, 0, 3, 1];
            assert_eq!(message, [piece, &tail].concat(), "{file}: piece, index, count, 1");
            let first = named("icpt-frag-1of3.bin");
            assert_eq!(data.unique_id, one_message(file, &first).unique_id, "{file}: shared id");
        }
        "icpt-frag-small.bin" => assert_eq!(message, with(&[0]), "{file}"),
        "icpt-order-1of3.bin" => assert_eq!(message, with(&[0, 0, 0, 1]), "{file}"),
        "icpt-order-2of3.bin" => assert_eq!(message, with(&[0, 0, 0, 2]), "{file}"),
        "icpt-order-3of3.bin" => assert_eq!(message, with(&[0, 0, 0, 3]), "{file}"),
        "icpt-2pc-1of2.bin" => assert_eq!(message, original, "{file}"),
        "icpt-2pc-2of2.bin" => {
            let first = named("icpt-2pc-1of2.bin");
            let first = one_message(file, &first);
            assert_eq!((message.len(), &message[16..32]), (48, first.unique_id), "{file}");
            assert_ne!(data.unique_id, first.unique_id, "{file}");
        }
        "icpt-gzip.bin" => {
            assert_eq!((data.options & 0x100, &message[..2]), (0x100, &[0x1f, 0x8b][..]), "{file}");
        }
        "icpt-encrypt-gcm.bin" => assert_eq!(message.len(), 12 + 8 + original.len() + 16, "{file}"),
        "icpt-encrypt-cbc.bin" => {
            let padded_bytes = (8 + original.len()) / 16 * 16 + 16;
            assert_eq!(message.len(), 16 + padded_bytes, "{file}");
        }
        other => panic!("unknown interceptor vector {other}"),
    }
}

/// `NonBlockingCoordinator`: the message alone, with member packages in it.
fn coordination(file: &str, bytes: &[u8], manifest: &Value) {
    let mut rest = &bytes[16..bytes.len() - 32];
    let int = |rest: &mut &[u8]| {
        let (int, after) = rest.split_first_chunk().expect("an int");
        *rest = after;
        usize::try_from(i32::from_be_bytes(*int)).expect("a count")
    };
    let member = |rest: &mut &[u8]| {
        let length = int(rest);
        let (package, after) = rest.split_at(length);
        *rest = after;
        alone(file, package);
    };
    member(&mut rest);
    member(&mut rest);
    let (members_count, after) = rest.split_first_chunk().expect("an int");
    let members_count = i32::from_be_bytes(*members_count);
    assert_eq!(members_count, manifest["members"], "{file}");
    rest = after;
    for _ in 0..members_count {
        member(&mut rest);
    }
    assert!(rest.is_empty(), "{file}: {} bytes more", rest.len());
    let view_id = &bytes[bytes.len() - 32..bytes.len() - 16];
    assert_eq!(hex(view_id), text(manifest, "viewId"), "{file}");
}

#[test]
fn streams_come_out_the_same_however_they_are_cut() {
    let mut split_count = 0;
    for vector in vectors::all().iter().filter(|vector| vector.is_stream()) {
        let (file, bytes) = (&vector.file, &vector.bytes);
        let expected = whole(bytes, &LIMITS);
        assert_eq!(arriving(bytes, 1..=bytes.len(), &LIMITS), expected, "{file} byte by byte");
        for split in 0..=bytes.len() {
            let outcome = arriving(bytes, [split, bytes.len()], &LIMITS);
            assert_eq!(outcome, expected, "{file} split at {split}");
            split_count += 1;
        }
    }
    assert!(split_count > 70_157, "the longest vector alone has more splits");
}

#[test]
fn truncated_streams_ask_for_more_and_an_end_there_is_an_error() {
    for vector in vectors::all().iter().filter(|vector| vector.is_stream()) {
        let (file, bytes) = (&vector.file, &vector.bytes);
        let Some((0, _)) = whole(bytes, &LIMITS).frames.first() else {
            continue;
        };
        let Ok(Step::Frame { consumed_bytes, .. }) = decode_frame(bytes, &LIMITS) else {
            panic!("{file}");
        };
        for there in 1..consumed_bytes {
            let frame_bytes = (there >= 11).then_some(consumed_bytes);
            let step = decode_frame(&bytes[..there], &LIMITS);
            assert_eq!(step, Ok(Step::NeedMore { frame_bytes }), "{file} {there}");
            let error = Error {
                what: What::FrameTruncated,
                offset: there,
                value: there as i64,
                limit: frame_bytes.unwrap_or(FRAME_OVERHEAD_BYTES) as i64,
            };
            assert_eq!(finish(&bytes[..there], &LIMITS), Err(error), "{file} {there}");
        }
    }
    assert_eq!(finish(&[], &LIMITS), Ok(()));
}
