//! What holds for any fields, any cut and any bytes.

#![allow(missing_docs, reason = "tests")]

use proptest::collection::vec;
use proptest::prelude::*;
use ringtribe_wire::tribes::payload::classify;
use ringtribe_wire::tribes::{
    ACK, ChannelData, Datagram, FAIL_ACK, FOOTER, FRAME_OVERHEAD_BYTES, Frame, Member, Step,
    data_head_bytes, decode_datagram, decode_frame, encode_data_head, finish,
};
use ringtribe_wire::{Error, Limits};

mod vectors;
use vectors::{arriving, whole};

/// A member that owns its bytes.
#[derive(Clone, Debug)]
struct Node {
    numbers: (i64, i32, i32, i32),
    host: Vec<u8>,
    command: Vec<u8>,
    domain: Vec<u8>,
    unique_id: [u8; 16],
    payload: Vec<u8>,
}

impl Node {
    fn member(&self) -> Member<'_> {
        let (alive_ms, port, secure_port, udp_port) = self.numbers;
        Member {
            alive_ms,
            port,
            secure_port,
            udp_port,
            host: &self.host,
            command: &self.command,
            domain: &self.domain,
            unique_id: &self.unique_id,
            payload: &self.payload,
        }
    }

    fn package(&self) -> Vec<u8> {
        let mut package = Vec::new();
        self.member().encode(&mut package);
        package
    }
}

/// What a sender writes.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a few of them a case")]
enum Sent {
    Ack,
    FailAck,
    Data {
        options: i32,
        timestamp_ms: i64,
        unique_id: [u8; 16],
        sender: Node,
        after_sender: Vec<u8>,
        message: Vec<u8>,
    },
}

impl Sent {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ack => out.extend(ACK),
            Self::FailAck => out.extend(FAIL_ACK),
            Self::Data { options, timestamp_ms, unique_id, sender, after_sender, message } => {
                let package = [sender.package(), after_sender.clone()].concat();
                let start = out.len();
                encode_data_head(out, *options, *timestamp_ms, unique_id, &package, message.len());
                assert_eq!(out.len() - start, data_head_bytes(package.len()));
                out.extend(message);
                out.extend(FOOTER);
            }
        }
    }

    fn is(&self, frame: &Frame<'_>) -> bool {
        match (self, frame) {
            (Self::Ack, Frame::Ack) | (Self::FailAck, Frame::FailAck) => true,
            (
                Self::Data { options, timestamp_ms, unique_id, sender, after_sender, message },
                Frame::Data(data),
            ) => {
                let package = [sender.package(), after_sender.clone()].concat();
                let expected = ChannelData {
                    options: *options,
                    timestamp_ms: *timestamp_ms,
                    unique_id,
                    member: sender.member(),
                    member_package: &package,
                    message,
                };
                *data == expected
            }
            _ => false,
        }
    }
}

fn node() -> impl Strategy<Value = Node> {
    let text = || vec(any::<u8>(), 0..40);
    let fields = (any::<(i64, i32, i32, i32)>(), vec(any::<u8>(), 0..=127), text(), text());
    (fields, any::<[u8; 16]>(), vec(any::<u8>(), 0..300)).prop_map(
        |(fields, unique_id, payload)| {
            let (numbers, host, command, domain) = fields;
            Node { numbers, host, command, domain, unique_id, payload }
        },
    )
}

fn sent() -> impl Strategy<Value = Sent> {
    let message = prop_oneof![
        3 => vec(any::<u8>(), 0..600),
        // A message that is frames itself.
        1 => vec(any::<bool>(), 0..20).prop_map(|acks| {
            acks.iter().flat_map(|ack| if *ack { ACK } else { FAIL_ACK }).collect()
        }),
    ];
    let data = (any::<(i32, i64, [u8; 16])>(), node(), vec(any::<u8>(), 0..4), message).prop_map(
        |((options, timestamp_ms, unique_id), sender, after_sender, message)| Sent::Data {
            options,
            timestamp_ms,
            unique_id,
            sender,
            after_sender,
            message,
        },
    );
    prop_oneof![1 => Just(Sent::Ack), 1 => Just(Sent::FailAck), 4 => data]
}

fn stream() -> impl Strategy<Value = (Vec<Sent>, Vec<u8>)> {
    vec(sent(), 1..5).prop_map(|sent| {
        let mut bytes = Vec::new();
        sent.iter().for_each(|sent| sent.encode(&mut bytes));
        (sent, bytes)
    })
}

/// Some bytes replaced (often by what makes a length wrong by little), removed or added.
fn changed(mut bytes: Vec<u8>, changes: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    for (index, byte, action) in changes {
        if bytes.is_empty() {
            break;
        }
        // The fields are in the first bytes, where changes are the most telling.
        let reach = if action % 2 == 0 { bytes.len().min(160) } else { bytes.len() };
        let at = index.index(reach);
        match action {
            0 => drop(bytes.remove(at)),
            1 => bytes.insert(at, *byte),
            2 => bytes.truncate(at),
            3 | 4 => bytes[at] = bytes[at].wrapping_add(1),
            5 | 6 => bytes[at] = bytes[at].wrapping_sub(1),
            _ => bytes[at] = *byte,
        }
    }
    bytes
}

/// A marker, a length, so many bytes, a marker: right outside, whatever is inside.
fn wrapped(begin: &[u8], inside: &[u8], end: &[u8]) -> Vec<u8> {
    let length = i32::try_from(inside.len()).expect("short");
    [begin, &length.to_be_bytes(), inside, end].concat()
}

/// A body without a message: everything that can be wrong in it is a field.
fn envelope(unique_id: [u8; 16], package: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_data_head(&mut frame, 3, 1_190_000_000_000, &unique_id, package, 0);
    frame.split_off(11)
}

/// Bytes that are nearly right: streams and member packages with changes anywhere, or with changes
/// in a body alone, so that they are found there and not at the markers around it.
fn nearly_right() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
    let changes = || vec((any::<prop::sample::Index>(), byte.clone(), 0..9_u8), 0..4);
    let short_node = || node().prop_map(|node| Node { host: vec![127, 0, 0, 1], ..node });
    prop_oneof![
        (stream(), changes()).prop_map(|((_, bytes), changes)| changed(bytes, &changes)),
        (node(), changes()).prop_map(|(node, changes)| changed(node.package(), &changes)),
        (short_node(), any::<[u8; 16]>(), changes()).prop_map(|(node, id, changes)| {
            let body = changed(envelope(id, &node.package()), &changes);
            wrapped(b"FLT2002", &body, &FOOTER)
        }),
        (short_node(), changes(), any::<bool>()).prop_map(|(node, changes, framed)| {
            let package = node.package();
            let inside = changed(package[14..package.len() - 10].to_vec(), &changes);
            let package = wrapped(b"TRIBES-B\x01\0", &inside, b"TRIBES-E\x01\0");
            if framed {
                wrapped(b"FLT2002", &envelope([1; 16], &package), &FOOTER)
            } else {
                package
            }
        }),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    prop_oneof![
        Just(Limits::default()),
        Just(Limits { max_frame_bytes: usize::MAX, max_member_bytes: usize::MAX }),
        (0..2000_usize, 0..700_usize).prop_map(|(max_frame_bytes, max_member_bytes)| Limits {
            max_frame_bytes,
            max_member_bytes,
        }),
    ]
}

/// Nothing decoded is a copy: it lies inside the input.
fn borrows(input: &[u8], part: &[u8]) -> bool {
    let input = input.as_ptr_range();
    let part = part.as_ptr_range();
    input.start <= part.start && part.end <= input.end
}

fn member_is_sound(input: &[u8], member: &Member<'_>, package: &[u8]) {
    let parts = [member.host, member.command, member.domain, member.unique_id, member.payload];
    assert!(parts.iter().all(|part| borrows(input, part)));
    let mut again = Vec::new();
    member.encode(&mut again);
    assert_eq!(again, package, "there is one encoding");
    assert_eq!(member.encoded_bytes(), package.len());
}

fn data_is_sound(input: &[u8], data: &ChannelData<'_>, frame: &[u8], limits: &Limits) {
    for part in [data.unique_id, data.member_package, data.message] {
        assert!(borrows(input, part));
    }
    assert!(frame.len() - FRAME_OVERHEAD_BYTES <= limits.max_frame_bytes);
    assert!(data.member_package.len() <= limits.max_member_bytes);
    member_is_sound(input, &data.member, &data.member_package[..data.member.encoded_bytes()]);
    if let Ok(id) = data.unique_id.try_into() {
        let mut again = Vec::new();
        let (package, message) = (data.member_package, data.message);
        encode_data_head(&mut again, data.options, data.timestamp_ms, id, package, message.len());
        again.extend(message);
        again.extend(FOOTER);
        assert_eq!(again, frame, "there is one encoding");
    }
}

fn error_is_sound(input: &[u8], error: &Error) {
    assert!(error.offset <= input.len(), "{error:?} beyond {}", input.len());
    assert!(error.to_string().contains("; "), "{error}");
}

/// Everything there is to decode with, on anything.
fn survives(bytes: &[u8], limits: &Limits) {
    // Checks what is asked for on the way, too.
    for (at, frame) in whole(bytes, limits).frames {
        if let Frame::Data(data) = frame {
            let Ok(Step::Frame { consumed_bytes, .. }) = decode_frame(&bytes[at..], limits) else {
                panic!("decoded once, then not");
            };
            data_is_sound(bytes, &data, &bytes[at..at + consumed_bytes], limits);
            let _ = classify(data.message);
        }
    }
    match finish(bytes, limits) {
        Ok(()) => assert_eq!(whole(bytes, limits).stopped_at, bytes.len()),
        Err(error) => error_is_sound(bytes, &error),
    }
    match Member::decode(bytes, limits) {
        Ok((member, package_bytes)) => {
            assert!(package_bytes <= limits.max_member_bytes);
            member_is_sound(bytes, &member, &bytes[..package_bytes]);
            let trailing = &bytes[package_bytes..];
            assert_eq!(decode_datagram(bytes, limits), Ok(Datagram::Member(member, trailing)));
        }
        Err(error) => error_is_sound(bytes, &error),
    }
    match decode_datagram(bytes, limits) {
        Ok(Datagram::Broadcast(data)) => data_is_sound(bytes, &data, bytes, limits),
        Ok(Datagram::Member(..)) => {}
        Err(error) => error_is_sound(bytes, &error),
    }
    let _ = classify(bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn members_come_back(node in node(), after in vec(any::<u8>(), 0..20)) {
        let package = node.package();
        let bytes = [&package[..], &after].concat();
        let decoded = Member::decode(&bytes, &Limits::default());
        prop_assert_eq!(decoded, Ok((node.member(), package.len())));
        prop_assert_eq!(
            decode_datagram(&bytes, &Limits::default()),
            Ok(Datagram::Member(node.member(), &after[..]))
        );
    }

    #[test]
    fn a_host_too_long_is_cut_and_nothing_else_is(node in node(), host in vec(any::<u8>(), 128..300)) {
        let node = Node { host, ..node };
        let package = node.package();
        prop_assert_eq!(node.member().encoded_bytes(), package.len());
        let cut = Node { host: node.host[..127].to_vec(), ..node };
        prop_assert_eq!(Member::decode(&package, &Limits::default()), Ok((cut.member(), package.len())));
    }

    #[test]
    fn streams_come_back_however_they_are_cut(
        (sent, bytes) in stream(),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let limits = Limits::default();
        let expected = whole(&bytes, &limits);
        prop_assert_eq!(expected.stopped_at, bytes.len());
        prop_assert_eq!(expected.frames.len(), sent.len());
        for (sent, (_, frame)) in sent.iter().zip(&expected.frames) {
            prop_assert!(sent.is(frame), "{:?} {:?}", sent, frame);
        }
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        prop_assert_eq!(arriving(&bytes, ends, &limits), expected);
        prop_assert_eq!(finish(&bytes, &limits), Ok(()));
    }

    #[test]
    fn wrong_streams_fail_the_same_however_they_are_cut(
        bytes in nearly_right(),
        limits in limits(),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let expected = whole(&bytes, &limits);
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        prop_assert_eq!(arriving(&bytes, ends, &limits), expected);
    }

    #[test]
    fn nearly_right_input_is_survived(bytes in nearly_right(), limits in limits()) {
        survives(&bytes, &limits);
    }

    #[test]
    fn arbitrary_input_is_survived(bytes in vec(any::<u8>(), 0..400), limits in limits()) {
        survives(&bytes, &limits);
        survives(&[b"FLT2002\0\0\0", &bytes[..]].concat(), &limits);
        survives(&[b"TRIBES-B\x01\0\0\0\0", &bytes[..]].concat(), &limits);
        for class in [
            &b"\0\x31org.apache.catalina.ha.session.SessionMessageImpl"[..],
            b"\0\x2borg.apache.catalina.tribes.group.RpcMessage",
        ] {
            let _ = classify(&[b"\xac\xed\0\x05sr", class, &bytes[..]].concat());
        }
    }
}
