//! Broken input is refused with what and where, as early as it can be told; limits hold exactly.

#![allow(missing_docs, reason = "tests")]

mod vectors;

use std::collections::BTreeSet;

use ringtribe_wire::tribes::{
    ACK, Datagram, FRAME_OVERHEAD_BYTES, HEADER, Member, Step, decode_datagram, decode_frame,
    finish,
};
use ringtribe_wire::{Error, Limits, What};
use vectors::named;

const LIMITS: Limits = Limits { max_frame_bytes: 1 << 20, max_member_bytes: 1 << 16 };

/// File, fewest bytes of it that are refused, part, offset, and what the error says.
const BROKEN: [(&str, usize, What, usize, &str); 12] = [
    (
        "bad-truncated-last-byte.bin",
        usize::MAX,
        What::FrameTruncated,
        139,
        "frame: the stream ended at offset 139 with 139 of at least 140 bytes",
    ),
    (
        "bad-footer.bin",
        140,
        What::FrameFooter,
        133,
        "frame: footer at offset 133 has 0x32 where \"TLF2003\" has 0x33",
    ),
    (
        "bad-header.bin",
        1,
        What::FrameHeader,
        0,
        "frame: header at offset 0 has 0x47 where \"FLT2002\" has 0x46",
    ),
    (
        "bad-garbage-before-header.bin",
        1,
        What::FrameHeader,
        0,
        "frame: header at offset 0 has 0x01 where \"FLT2002\" has 0x46",
    ),
    (
        "bad-negative-length.bin",
        11,
        What::FrameLength,
        7,
        "frame: length at offset 7 is -5, accepted is 0 to 1048576",
    ),
    (
        "bad-length-intmax.bin",
        11,
        What::FrameLength,
        7,
        "frame: length at offset 7 is 2147483647, accepted is 0 to 1048576",
    ),
    (
        "bad-length-one-short.bin",
        133,
        What::FrameFooter,
        132,
        "frame: footer at offset 132 has 0x1f where \"TLF2003\" has 0x54",
    ),
    (
        "bad-member-magic.bin",
        140,
        What::MemberBegin,
        47,
        "member: begin at offset 47 has 0x55 where \"TRIBES-B 1.0\" has 0x54",
    ),
    (
        "bad-member-host-length.bin",
        140,
        What::MemberHostLength,
        81,
        "member: length of the host at offset 81 is -128, at most 32 can stand there",
    ),
    (
        "bad-uniqueid-length.bin",
        140,
        What::UniqueIdLength,
        23,
        "data frame: length of the unique id at offset 23 is 1048576, at most 106 can stand there",
    ),
    (
        "bad-message-length.bin",
        140,
        What::MessageLength,
        124,
        "data frame: length of the message at offset 124 is 1048576, at most 5 can stand there",
    ),
    (
        "bad-no-sender-member.bin",
        60,
        What::SenderLength,
        43,
        "data frame: no sender member at offset 43",
    ),
];

const BROKEN_MEMBERS: [&str; 3] =
    ["badmember-version-2.bin", "badmember-trailing-bytes.bin", "badmember-truncated.bin"];

fn says(file: &str, error: Error, what: What, offset: usize, text: &str) {
    assert_eq!((error.what, error.offset), (what, offset), "{file}: {error}");
    let said = error.to_string();
    let remedy = said.strip_prefix(text).unwrap_or_else(|| panic!("{file}: {said}"));
    assert!(remedy.starts_with("; "), "{file} names no remedy: {said}");
}

#[test]
fn no_broken_vector_is_left_out() {
    let tested = BROKEN.iter().map(|broken| broken.0).chain(BROKEN_MEMBERS);
    let vectors = vectors::all();
    let broken = vectors.iter().filter(|vector| vector.kind.starts_with("malformed"));
    assert_eq!(
        tested.collect::<BTreeSet<_>>(),
        broken.map(|vector| vector.file.as_str()).collect(),
    );
}

#[test]
fn broken_frames_are_refused_with_what_and_where_as_early_as_possible() {
    for (file, refused_after_bytes, what, offset, text) in BROKEN {
        let bytes = named(file);
        for there in 0..=bytes.len() {
            let step = decode_frame(&bytes[..there], &LIMITS);
            if there < refused_after_bytes {
                assert!(matches!(step, Ok(Step::NeedMore { .. })), "{file} {there}: {step:?}");
            } else {
                says(file, step.expect_err(file), what, offset, text);
            }
        }
        says(file, finish(&bytes, &LIMITS).expect_err(file), what, offset, text);
    }
}

#[test]
fn broken_members_are_refused_but_trailing_bytes_are_not() {
    let [version, trailing, truncated] = BROKEN_MEMBERS.map(named);
    let error = Member::decode(&version, &LIMITS).expect_err("version 2.0");
    let text = "member: begin at offset 0 has 0x02 where \"TRIBES-B 1.0\" has 0x01";
    says("version 2.0", error, What::MemberBegin, 0, text);
    let error = Member::decode(&truncated, &LIMITS).expect_err("truncated");
    let text = "member: ends at offset 40 with 40 of at least 73 bytes";
    says("truncated", error, What::MemberTruncated, 40, text);

    let (member, package_bytes) = Member::decode(&trailing, &LIMITS).expect("accepted");
    assert_eq!((package_bytes, member.port), (77, 4000));
    assert_eq!(decode_datagram(&trailing, &LIMITS), Ok(Datagram::Member(member, &[9, 9, 9])));
}

#[test]
fn members_are_refused_at_every_length_but_their_own() {
    for vector in vectors::all().iter().filter(|vector| vector.kind.ends_with("member")) {
        let Ok((member, package_bytes)) = Member::decode(&vector.bytes, &LIMITS) else {
            continue;
        };
        for there in 0..package_bytes {
            let error = Member::decode(&vector.bytes[..there], &LIMITS).expect_err("truncated");
            let (what, offset) = match there {
                ..73 => (What::MemberTruncated, there),
                _ => (What::MemberLength, 10),
            };
            assert_eq!((error.what, error.offset), (what, offset), "{} {there}", vector.file);
        }
        let limits = Limits { max_member_bytes: package_bytes, ..LIMITS };
        assert_eq!(Member::decode(&vector.bytes, &limits), Ok((member, package_bytes)));
        let limits = Limits { max_member_bytes: package_bytes - 1, ..LIMITS };
        let error = Member::decode(&vector.bytes, &limits).expect_err("beyond the limit");
        assert_eq!((error.what, error.offset), (What::MemberLength, 10), "{}", vector.file);
    }
}

#[test]
fn a_message_is_accepted_up_to_the_limit_and_refused_at_its_length_beyond() {
    let bytes = named("frame-size70000-syncack.bin");
    let body_bytes = bytes.len() - FRAME_OVERHEAD_BYTES;
    let exact = Limits { max_frame_bytes: body_bytes, ..LIMITS };
    assert_eq!(decode_frame(&bytes, &exact), decode_frame(&bytes, &LIMITS));
    let less = Limits { max_frame_bytes: body_bytes - 1, ..LIMITS };
    let refused = Error {
        what: What::FrameLength,
        offset: 7,
        value: body_bytes as i64,
        limit: body_bytes as i64 - 1,
    };
    assert_eq!(decode_frame(&bytes[..11], &less), Err(refused));
    let unlimited = Limits { max_frame_bytes: usize::MAX, max_member_bytes: usize::MAX };
    assert_eq!(decode_frame(&bytes, &unlimited), decode_frame(&bytes, &LIMITS));
}

#[test]
fn datagrams_are_one_member_or_one_message() {
    let frame = named("frame-multicast-size100.bin");
    let refused = |bytes: &[u8]| decode_datagram(bytes, &LIMITS).expect_err("refused");
    let two = [&frame[..], &frame[..]].concat();
    let text = "datagram: 470 bytes where its one frame has 235";
    says("two", refused(&two), What::DatagramLength, 0, text);
    let text = "datagram: 234 bytes where its one frame has 235";
    says("cut", refused(&frame[..234]), What::DatagramLength, 0, text);
    let text = "datagram: an acknowledgement where a member or a message is expected";
    says("ack", refused(&ACK), What::DatagramAck, 0, text);
    assert_eq!(refused(&[]).what, What::MemberTruncated);
    assert_eq!(refused(b"some other program").what, What::MemberBegin);
    assert_eq!(HEADER, frame[..7]);
}

fn fault(what: What, offset: usize, value: i64, limit: i64) -> Error {
    Error { what, offset, value, limit }
}

fn with_int(mut bytes: Vec<u8>, at: usize, int: i32) -> Vec<u8> {
    bytes[at..at + 4].copy_from_slice(&int.to_be_bytes());
    bytes
}

/// The package: length at 10, host 34, command 39, domain 43 (9 bytes), id 56, payload 72 (13
/// bytes), end 89.
#[test]
fn every_length_in_a_member_is_checked() {
    let good = named("member-heartbeat-full.bin");
    for (at, int, expected) in [
        (10, -1, fault(What::MemberLength, 10, -1, 75)),
        (10, 74, fault(What::MemberEnd, 88, 0x64, 0x54)),
        (10, 76, fault(What::MemberLength, 10, 76, 75)),
        (39, -1, fault(What::MemberCommandLength, 39, -1, 46)),
        (39, 47, fault(What::MemberCommandLength, 39, 47, 46)),
        (43, i32::MAX, fault(What::MemberDomainLength, 43, 2_147_483_647, 42)),
        (43, 9 + 20, fault(What::MemberFields, 76, 13, 16)),
        (72, 14, fault(What::MemberPayloadLength, 72, 14, 13)),
        (72, 12, fault(What::MemberLength, 10, 75, 74)),
    ] {
        let bytes = with_int(good.clone(), at, int);
        assert_eq!(Member::decode(&bytes, &LIMITS), Err(expected), "{int} at {at}");
    }
}

#[test]
fn every_byte_of_a_body_is_accounted_for() {
    let good = named("frame-size100-async-syncack.bin");
    let framed = |body: &[u8]| {
        let length = i32::try_from(body.len()).expect("short");
        [&HEADER[..], &length.to_be_bytes(), body, &good[good.len() - 7..]].concat()
    };
    let body = &good[11..good.len() - 7];
    assert_eq!(framed(body), good);
    let (body_bytes, end) = (239, good.len() - 7);
    assert_eq!(body.len(), body_bytes);
    let longer = [body, &[0]].concat();
    for (body, expected) in [
        (&longer[..], fault(What::BodyLength, end, 240, 239)),
        (&body[..238], fault(What::MessageLength, 146, 100, 99)),
        (&body[..137], fault(What::BodyFields, 146, 2, 4)),
        (&body[..134], fault(What::SenderLength, 43, 99, 98)),
        (&body[..6], fault(What::BodyFields, 15, 2, 8)),
        (&[], fault(What::BodyFields, 11, 0, 4)),
        // Nearly an acknowledgement.
        (&[6, 2, 4], fault(What::BodyFields, 11, 3, 4)),
    ] {
        assert_eq!(decode_frame(&framed(body), &LIMITS), Err(expected), "{} bytes", body.len());
    }
    let limits = Limits { max_member_bytes: 98, ..LIMITS };
    let expected = fault(What::SenderLength, 43, 99, 98);
    assert_eq!(decode_frame(&good, &limits), Err(expected), "one byte beyond the limit");
}

#[test]
fn offsets_at_the_end_of_a_stream_count_from_its_start() {
    let stream = [&ACK[..], &ACK, b"FLT2003"].concat();
    let expected = fault(What::FrameHeader, 42, 0x33, 0x32);
    assert_eq!(finish(&stream, &LIMITS), Err(expected));
}

#[test]
fn a_tls_hello_is_named() {
    let error = decode_frame(&[0x16], &LIMITS).expect_err("no Tribes");
    assert!(error.to_string().contains("TLS"), "{error}");
}
