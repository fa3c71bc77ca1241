//! The decoders of the Tribes format.

use ringtribe_wire::native::extension::{self, Extension};
use ringtribe_wire::tribes::payload::classify;
use ringtribe_wire::tribes::{
    ACK, ChannelData, Datagram, FAIL_ACK, FOOTER, FRAME_OVERHEAD_BYTES, Frame, Member, Step,
    decode_datagram, decode_frame, encode_data_head, finish,
};
use ringtribe_wire::{Error, Limits};

use super::allocations::within;

/// Where frames were found, and how it ended.
#[derive(Debug, PartialEq)]
struct Walk<'a> {
    frames: Vec<(usize, Frame<'a>)>,
    at: usize,
    error: Option<Error>,
}

/// Takes a stream apart that comes in pieces of `piece` bytes.
fn walk<'a>(bytes: &'a [u8], piece: usize, limits: &Limits) -> Walk<'a> {
    let mut walk = Walk { frames: Vec::new(), at: 0, error: None };
    let mut there = 0;
    while there < bytes.len() {
        there = (there + piece).min(bytes.len());
        loop {
            let rest = &bytes[walk.at..there];
            match within(0, || decode_frame(rest, limits)) {
                Ok(Step::Frame { frame, consumed_bytes }) => {
                    assert!((1..=rest.len()).contains(&consumed_bytes));
                    walk.frames.push((walk.at, frame));
                    walk.at += consumed_bytes;
                }
                Ok(Step::NeedMore { frame_bytes }) => {
                    let most_bytes = limits.max_frame_bytes.saturating_add(FRAME_OVERHEAD_BYTES);
                    assert_eq!(frame_bytes.is_some(), rest.len() >= 11);
                    assert!(frame_bytes.is_none_or(|n| n > rest.len() && n <= most_bytes));
                    break;
                }
                Err(error) => {
                    walk.error = Some(error);
                    return walk;
                }
            }
        }
    }
    walk
}

fn member_again(member: &Member<'_>, package: &[u8]) {
    let mut again = Vec::new();
    member.encode(&mut again);
    assert_eq!(again.len(), member.encoded_bytes());
    assert_eq!(again, package, "a member package has one encoding");
}

fn data_again(data: &ChannelData<'_>, limits: &Limits) {
    let (member, package_bytes) =
        Member::decode(data.member_package, limits).expect("it was decoded before");
    assert_eq!(member, data.member);
    member_again(&member, &data.member_package[..package_bytes]);
    let _ = classify(data.message);
}

/// Frames of a connection, in pieces of several sizes and with several limits.
pub fn frames(input: &[u8]) {
    let small = Limits { max_frame_bytes: 200, max_member_bytes: 100 };
    for limits in [Limits::default(), small] {
        let whole = walk(input, input.len().max(1), &limits);
        for piece in [1, 7, 64] {
            if input.len() / piece < 4_096 {
                assert_eq!(walk(input, piece, &limits), whole, "in pieces of {piece}");
            }
        }
        for (at, frame) in &whole.frames {
            let bytes = &input[*at..];
            match frame {
                Frame::Ack => assert!(bytes.starts_with(&ACK)),
                Frame::FailAck => assert!(bytes.starts_with(&FAIL_ACK)),
                Frame::Data(data) => {
                    data_again(data, &limits);
                    if let Ok(unique_id) = data.unique_id.try_into() {
                        let (package, message) = (data.member_package, data.message);
                        let mut again = Vec::new();
                        let (options, timestamp_ms) = (data.options, data.timestamp_ms);
                        let message_bytes = message.len();
                        encode_data_head(
                            &mut again,
                            options,
                            timestamp_ms,
                            unique_id,
                            package,
                            message_bytes,
                        );
                        again.extend_from_slice(message);
                        again.extend_from_slice(&FOOTER);
                        assert!(bytes.starts_with(&again), "a frame has one encoding");
                    }
                }
            }
        }
        let ended = within(0, || finish(input, &limits));
        assert_eq!(ended.is_ok(), whole.error.is_none() && whole.at == input.len());
    }
}

/// A packet of the group: heartbeat with what follows it, goodbye, broadcast.
pub fn datagram(input: &[u8]) {
    let limits = Limits::default();
    let decoded = within(0, || decode_datagram(input, &limits));
    match decoded {
        Ok(Datagram::Member(member, trailing)) => {
            member_again(&member, &input[..input.len() - trailing.len()]);
            extension_again(trailing);
        }
        Ok(Datagram::Broadcast(data)) => data_again(&data, &limits),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    // The block alone too, as behind an acknowledgement.
    extension_again(input);
    let mut sealed = input.to_vec();
    if super::native::seal_extension(&mut sealed) {
        extension_again(&sealed);
    }
}

fn extension_again(bytes: &[u8]) {
    let decoded = within(0, || Extension::decode(bytes));
    let wants_more = within(0, || extension::wants_more(bytes));
    match decoded {
        Ok(Some(block)) => {
            assert!(!wants_more);
            let mut again = Vec::new();
            block.encode(&mut again).expect("what came in a block fits one");
            assert_eq!(Extension::decode(&again), Ok(Some(block)));
        }
        Ok(None) => assert!(!wants_more || bytes.len() < 4),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A message that may be a Java serialization stream.
pub fn payload(input: &[u8]) {
    let kind = within(0, || classify(input));
    // What follows what was looked at changes nothing, once something was recognised.
    if kind != ringtribe_wire::tribes::payload::Kind::Other
        && !matches!(kind, ringtribe_wire::tribes::payload::Kind::Session { event: 0 })
    {
        let longer = [input, b"behind"].concat();
        assert_eq!(classify(&longer), kind);
    }
}
