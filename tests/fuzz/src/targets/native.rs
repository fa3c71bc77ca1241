//! The decoders of the own format.

use ringtribe_wire::Limits;
use ringtribe_wire::native::extension::Extension;
use ringtribe_wire::native::{
    Ack, AckEntry, Close, DataHead, ENVELOPE_BYTES, Echo, Envelope, Error, Frame, Gap, Goodbye,
    Hello, HelloAck, HelloStatus, LaneClass, MAGIC, MAX_BODY_BYTES, MAX_FRAME_BYTES,
    PACKAGE_LIMIT_BYTES, Step, crc32c, decode, decode_hello, decode_hello_ack,
};
use ringtribe_wire::tribes::{Datagram, Member, decode_datagram};

use super::allocations::within;
use super::script::Script;

/// Gives a frame that is whole the checksum of its bytes. Returns its length.
fn seal(frame: &mut [u8]) -> Option<usize> {
    let [a, b, c, d, _, words, ..] = *frame else { return None };
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?;
    let header_bytes = usize::from(words) * 4;
    if header_bytes < 12 || header_bytes > length {
        return None;
    }
    let frame = frame.get_mut(..length)?;
    let body = crc32c(0, &frame[header_bytes..]);
    let crc = crc32c(crc32c(body, &frame[..8]), &frame[12..header_bytes]);
    frame[8..12].copy_from_slice(&crc.to_le_bytes());
    Some(length)
}

/// Gives all frames their checksums, so that what is inside them is looked at.
#[must_use]
pub fn sealed(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    let mut at = 0;
    while let Some(length) = seal(&mut bytes[at..]) {
        at += length;
    }
    bytes
}

/// Gives an extension block its checksum; false if it is none, or not whole.
pub fn seal_extension(block: &mut [u8]) -> bool {
    let [b'R', b'T', b'H', b'X', low, high, ..] = *block else { return false };
    let length = usize::from(u16::from_le_bytes([low, high]));
    if length < 48 || block.len() < length {
        return false;
    }
    let crc = crc32c(crc32c(0, &block[..44]), &block[48..length]);
    block[44..48].copy_from_slice(&crc.to_le_bytes());
    true
}

#[derive(Debug, PartialEq)]
struct Walk<'a> {
    frames: Vec<(usize, Frame<'a>)>,
    at: usize,
    error: Option<Error>,
}

fn walk(bytes: &[u8], piece: usize, max_frame_bytes: usize) -> Walk<'_> {
    let mut walk = Walk { frames: Vec::new(), at: 0, error: None };
    let mut there = 0;
    while there < bytes.len() {
        there = (there + piece).min(bytes.len());
        loop {
            let rest = &bytes[walk.at..there];
            match within(0, || decode(rest, max_frame_bytes)) {
                Ok(Step::Frame { frame, consumed_bytes }) => {
                    assert!((1..=rest.len()).contains(&consumed_bytes));
                    walk.frames.push((walk.at, frame));
                    walk.at += consumed_bytes;
                }
                Ok(Step::NeedMore { frame_bytes }) => {
                    assert_eq!(frame_bytes.is_some(), rest.len() >= 4);
                    assert!(frame_bytes.is_none_or(|n| n > rest.len() && n <= max_frame_bytes));
                    break;
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    walk.error = Some(error);
                    return walk;
                }
            }
        }
    }
    walk
}

/// The bytes of a frame; `None` for one that this version does not know.
#[must_use]
pub fn encoded(frame: &Frame<'_>) -> Option<Vec<u8>> {
    Some(match frame {
        Frame::Data { head, body } => {
            [&head.encode(body.len(), crc32c(0, body))[..], body].concat()
        }
        Frame::Ack(ack) => {
            let entries: Vec<AckEntry> = ack.entries().collect();
            let mut bytes = Vec::new();
            ack.encode(&entries, &mut bytes);
            assert_eq!(bytes.len(), Ack::bytes(entries.len()));
            bytes
        }
        Frame::Gap(gap) => gap.encode().to_vec(),
        Frame::Confirm { count } => Frame::encode_confirm(*count).to_vec(),
        Frame::Echo(echo) => echo.encode(false).to_vec(),
        Frame::EchoReply(echo) => echo.encode(true).to_vec(),
        Frame::Goodbye(goodbye) => goodbye.encode().to_vec(),
        Frame::Join { token } => Frame::encode_join(*token, false).to_vec(),
        Frame::Joined { token } => Frame::encode_join(*token, true).to_vec(),
        Frame::Close(close) => {
            let mut bytes = Vec::new();
            close.encode(&mut bytes);
            bytes
        }
        Frame::Optional { .. } => return None,
    })
}

fn again(frame: &Frame<'_>) {
    let Some(bytes) = encoded(frame) else { return };
    // Headers may be longer than this version's: then the new frame is the shorter one.
    let consumed_bytes = bytes.len();
    assert_eq!(
        decode(&bytes, usize::MAX),
        Ok(Step::Frame { frame: *frame, consumed_bytes }),
        "encoded again it is the same"
    );
    if let Frame::Data { body, .. } = frame
        && let Some((envelope, payload)) = Envelope::split(body)
    {
        assert_eq!(envelope.encode()[..28], body[..28]);
        assert_eq!(payload.len() + ENVELOPE_BYTES, body.len());
    }
}

/// Frames of a connection, as they come and with sound checksums.
pub fn frames(input: &[u8]) {
    for bytes in [input, &sealed(input)] {
        for max_frame_bytes in [MAX_FRAME_BYTES, 100] {
            let whole = walk(bytes, bytes.len().max(1), max_frame_bytes);
            for piece in [1, 5, 64] {
                // Every look at a frame that is not whole costs nothing but the header, and still.
                if bytes.len() / piece < 4_096 {
                    assert_eq!(walk(bytes, piece, max_frame_bytes), whole, "in pieces of {piece}");
                }
            }
            whole.frames.iter().for_each(|(_, frame)| again(frame));
        }
    }
}

/// A hello and its answer, as they come and with sound checksums.
pub fn hello(input: &[u8]) {
    let mut with_sum = input.to_vec();
    if with_sum.len() > MAGIC.len() {
        let _ = seal(&mut with_sum[MAGIC.len()..]);
    }
    for bytes in [input, &with_sum] {
        let decoded = within(0, || decode_hello(bytes));
        if let Ok(Some((hello, consumed_bytes))) = decoded {
            assert!(consumed_bytes <= bytes.len());
            let fits = hello.member_package.len() <= PACKAGE_LIMIT_BYTES
                && hello.cluster_name.len() <= 1_024;
            let mut again = Vec::new();
            hello.encode(&mut again);
            let decoded = decode_hello(&again).expect("sound").expect("whole");
            assert_eq!(decoded.1, again.len());
            assert!(!fits || decoded.0 == hello, "{hello:?}");
        }
        let decoded = within(0, || decode_hello_ack(bytes));
        if let Ok(Some((ack, consumed_bytes))) = decoded {
            assert!(consumed_bytes <= bytes.len());
            let mut again = Vec::new();
            ack.encode(&mut again);
            let decoded = decode_hello_ack(&again).expect("sound").expect("whole");
            assert!(ack.reason.len() > 1_024 || decoded.0 == ack, "{ack:?}");
        }
        // More is asked for only while it is right so far, and once it is known how much.
        for end in [0, 1, 8, 12, 20, bytes.len() / 2] {
            let part = &bytes[..end.min(bytes.len())];
            if let (Ok(Some((whole, used))), Ok(Some((first, first_used)))) =
                (decode_hello(bytes), decode_hello(part))
            {
                assert_eq!((whole, used), (first, first_used));
            }
        }
    }
}

/// A frame of the own format out of a script.
#[must_use]
pub fn scripted<'a, 's: 'a>(script: &mut Script<'s>, entries: &'a mut Vec<u8>) -> Frame<'a> {
    match script.u8() % 12 {
        0..=2 => {
            let head = DataHead {
                flags: script.u16() & 0xff,
                place: script.number32(),
                sequence: script.number(),
                key: script.number(),
            };
            Frame::Data { head, body: script.counted() }
        }
        3 => {
            let ack = Ack {
                received: script.number(),
                applied: script.number(),
                credit: script.number(),
                granted: script.number(),
                oldest_ms: script.number32(),
                entries: &[],
            };
            for _ in 0..script.u8() % 5 {
                entries.extend_from_slice(&script.number32().to_le_bytes());
                entries.extend_from_slice(&script.number32().to_le_bytes());
                entries.extend_from_slice(&script.u16().to_le_bytes());
                entries.extend_from_slice(&script.u16().to_le_bytes());
            }
            Frame::Ack(Ack { entries, ..ack })
        }
        4 => Frame::Gap(Gap {
            cause: script.u16(),
            sequence: script.number(),
            key: script.number(),
            refused: script.number(),
        }),
        5 => Frame::Confirm { count: script.number() },
        kind @ (6 | 7) => {
            let echo = Echo {
                still_ms: script.number32(),
                token: script.number(),
                view_hash: script.number(),
                members: script.u16(),
                free_pollers: script.u16(),
            };
            if kind == 6 { Frame::Echo(echo) } else { Frame::EchoReply(echo) }
        }
        8 => Frame::Goodbye(Goodbye {
            is_final: script.u8() & 1 == 1,
            reason: script.u16(),
            sequence: script.number(),
        }),
        9 => Frame::Join { token: script.number() },
        10 => Frame::Joined { token: script.number() },
        _ => {
            let (code, sequence) = (script.u16(), script.number());
            let text = script.counted();
            Frame::Close(Close { code, sequence, text: &text[..text.len().min(256)] })
        }
    }
}

fn member<'a, 's: 'a>(script: &mut Script<'s>, unique_id: &'a [u8; 16]) -> Member<'a> {
    let host = script.counted();
    Member {
        alive_ms: script.number().cast_signed(),
        port: script.number32().cast_signed(),
        secure_port: script.number32().cast_signed(),
        udp_port: script.number32().cast_signed(),
        host: &host[..host.len().min(127)],
        command: script.counted(),
        domain: script.counted(),
        unique_id,
        payload: script.counted(),
    }
}

/// Values of every kind: decoded again they are the same.
pub fn round_trip(input: &[u8]) {
    let mut script = Script::new(input);
    while !script.is_over() {
        match script.u8() % 5 {
            0 | 1 => {
                let mut entries = Vec::new();
                let frame = scripted(&mut script, &mut entries);
                again(&frame);
                let Frame::Data { body, .. } = frame else { continue };
                assert!(body.len() <= MAX_BODY_BYTES || body.len() <= 65_535);
            }
            2 => {
                let hello = Hello {
                    after_cut: script.u8() & 1 == 1,
                    boot_id: script.id(),
                    expected_boot_id: script.id(),
                    tribes_id: script.id(),
                    cluster_hash: script.number(),
                    epoch: script.number(),
                    stream: script.u16(),
                    streams: script.u16(),
                    lane_class: [LaneClass::Data, LaneClass::Reply][usize::from(script.u8() & 1)],
                    max_frame_bytes: script.number32(),
                    max_message_bytes: script.number(),
                    next_sequence: script.number(),
                    member_package: script.counted(),
                    cluster_name: script.counted(),
                };
                let mut bytes = Vec::new();
                hello.encode(&mut bytes);
                let fits = hello.member_package.len() <= PACKAGE_LIMIT_BYTES
                    && hello.cluster_name.len() <= 1_024;
                let (decoded, consumed_bytes) =
                    decode_hello(&bytes).expect("sound").expect("whole");
                assert_eq!(consumed_bytes, bytes.len());
                assert!(!fits || decoded == hello);
                for end in [1, 9, 20, bytes.len() - 1] {
                    assert_eq!(decode_hello(&bytes[..end]), Ok(None), "of a part more is wanted");
                }
            }
            3 => {
                let statuses = [HelloStatus::Ok, HelloStatus::Reset, HelloStatus::Refused];
                let ack = HelloAck {
                    status: statuses[usize::from(script.u8() % 3)],
                    boot_id: script.id(),
                    epoch: script.number(),
                    received: script.number(),
                    applied: script.number(),
                    credit: script.number(),
                    granted: script.number(),
                    max_frame_bytes: script.number32(),
                    reason: script.counted(),
                };
                let mut bytes = Vec::new();
                ack.encode(&mut bytes);
                let (decoded, _) = decode_hello_ack(&bytes).expect("sound").expect("whole");
                assert!(ack.reason.len() > 1_024 || decoded == ack);
            }
            _ => {
                let unique_id = script.id();
                let member = member(&mut script, &unique_id);
                let mut bytes = Vec::new();
                member.encode(&mut bytes);
                let package_bytes = bytes.len();
                let limits = Limits::default();
                let fits = package_bytes <= limits.max_member_bytes;
                let decoded = Member::decode(&bytes, &limits);
                assert_eq!(decoded.ok(), fits.then_some((member, package_bytes)));
                let block = Extension {
                    version_min: script.u8().max(1),
                    version_max: u8::MAX,
                    features: script.number32(),
                    boot_id: script.id(),
                    oldest_unfinished_ms: script.number32(),
                    members_count: script.u16(),
                    ready: script.u8() & 1 == 1,
                    draining: script.u8() & 1 == 1,
                    view_hash: script.number(),
                    package: (script.u8() & 1 == 1).then(|| script.counted()),
                    cluster_name: b"",
                };
                let package = bytes.clone();
                if block.encode(&mut bytes).is_ok() && fits {
                    let Ok(Datagram::Member(_, trailing)) = decode_datagram(&bytes, &limits) else {
                        panic!("a heartbeat with its block")
                    };
                    assert_eq!(Extension::decode(trailing), Ok(Some(block)));
                    assert_eq!(package.len() + trailing.len(), bytes.len());
                }
            }
        }
    }
}
