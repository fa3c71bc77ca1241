//! What holds for any frame and any bytes of the own format: what is written is read back, what is
//! cut asks for more, what is damaged is refused, and nothing panics.

#![allow(missing_docs, reason = "tests")]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use ringtribe_wire::native::{
    Ack, AckEntry, COMMON_BYTES, Close, DataHead, Echo, Error, Frame, Gap, Goodbye, Hello,
    HelloAck, HelloStatus, LaneClass, MAGIC, MAX_BODY_BYTES, MAX_FRAME_BYTES, PACKAGE_LIMIT_BYTES,
    Step, What, crc32c, decode, decode_hello, decode_hello_ack,
};

/// A frame with what it borrows.
#[derive(Clone, Debug)]
enum Owned {
    Data(DataHead, Vec<u8>),
    Ack(Ack<'static>, Vec<AckEntry>),
    Gap(Gap),
    Confirm(u64),
    Echo(Echo, bool),
    Goodbye(Goodbye),
    Join(u64, bool),
    Close(u16, u64, Vec<u8>),
}

impl Owned {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Data(head, body) => {
                out.extend(head.encode(body.len(), crc32c(0, body)));
                out.extend(body);
            }
            Self::Ack(ack, entries) => ack.encode(entries, &mut out),
            Self::Gap(gap) => out.extend(gap.encode()),
            Self::Confirm(count) => out.extend(Frame::encode_confirm(*count)),
            Self::Echo(echo, reply) => out.extend(echo.encode(*reply)),
            Self::Goodbye(goodbye) => out.extend(goodbye.encode()),
            Self::Join(token, joined) => out.extend(Frame::encode_join(*token, *joined)),
            Self::Close(code, sequence, text) => {
                Close { code: *code, sequence: *sequence, text }.encode(&mut out);
            }
        }
        out
    }

    fn is(&self, frame: &Frame<'_>) -> bool {
        match (self, frame) {
            (Self::Data(is, body), Frame::Data { head, body: found }) => {
                is == head && body == found
            }
            (Self::Ack(is, entries), Frame::Ack(found)) => {
                Ack { entries: &[], ..*found } == *is && found.entries().eq(entries.iter().copied())
            }
            (Self::Gap(is), Frame::Gap(found)) => is == found,
            (Self::Confirm(is), Frame::Confirm { count }) => is == count,
            (Self::Echo(is, false), Frame::Echo(found))
            | (Self::Echo(is, true), Frame::EchoReply(found)) => is == found,
            (Self::Goodbye(is), Frame::Goodbye(found)) => is == found,
            (Self::Join(is, false), Frame::Join { token })
            | (Self::Join(is, true), Frame::Joined { token }) => is == token,
            (Self::Close(code, sequence, text), Frame::Close(found)) => {
                *found == Close { code: *code, sequence: *sequence, text }
            }
            _ => false,
        }
    }
}

fn entry() -> impl Strategy<Value = AckEntry> {
    any::<(u32, u32, u16, u16)>().prop_map(|(offset, count, status, cause)| AckEntry {
        offset,
        count,
        status,
        cause,
    })
}

fn frame() -> impl Strategy<Value = Owned> {
    let body = prop_oneof![
        8 => vec(any::<u8>(), 0..300),
        1 => (any::<u8>(), MAX_BODY_BYTES - 3..=MAX_BODY_BYTES).prop_map(|(byte, n)| vec![byte; n]),
    ];
    let data = (0..=0xff_u16, any::<(u32, u64, u64)>(), body).prop_map(|(flags, numbers, body)| {
        let (place, sequence, key) = numbers;
        Owned::Data(DataHead { flags, place, sequence, key }, body)
    });
    let counts = prop_oneof![8 => 0..20_usize, 1 => Just(Ack::ENTRIES_LIMIT_COUNT)];
    let entries = counts.prop_flat_map(|count| vec(entry(), count));
    let ack = (any::<(u64, u64, u64, u64, u32)>(), entries).prop_map(|(numbers, entries)| {
        let (received, applied, credit, granted, oldest_ms) = numbers;
        Owned::Ack(Ack { received, applied, credit, granted, oldest_ms, entries: &[] }, entries)
    });
    let gap = any::<(u16, u64, u64, u64)>().prop_map(|(cause, sequence, key, refused)| {
        Owned::Gap(Gap { cause, sequence, key, refused })
    });
    let echo = any::<(u32, u64, u64, u16, u16, bool)>().prop_map(|numbers| {
        let (still_ms, token, view_hash, members, free_pollers, reply) = numbers;
        Owned::Echo(Echo { still_ms, token, view_hash, members, free_pollers }, reply)
    });
    let goodbye = any::<(bool, u16, u64)>().prop_map(|(is_final, reason, sequence)| {
        Owned::Goodbye(Goodbye { is_final, reason, sequence })
    });
    let close = (any::<(u16, u64)>(), vec(any::<u8>(), 0..=Close::TEXT_LIMIT_BYTES))
        .prop_map(|((code, sequence), text)| Owned::Close(code, sequence, text));
    prop_oneof![
        4 => data,
        3 => ack,
        1 => gap,
        1 => any::<u64>().prop_map(Owned::Confirm),
        1 => echo,
        1 => goodbye,
        1 => any::<(u64, bool)>().prop_map(|(token, joined)| Owned::Join(token, joined)),
        1 => close,
    ]
}

type Ids = ([u8; 16], [u8; 16], [u8; 16]);

fn hello() -> impl Strategy<Value = (Hello<'static>, Vec<u8>, Vec<u8>)> {
    let numbers = any::<(bool, bool, u64, u64, u16, u16, u32, u64, u64)>();
    let package = prop_oneof![
        8 => vec(any::<u8>(), 0..200),
        1 => Just(vec![7; PACKAGE_LIMIT_BYTES]),
    ];
    let parts = (numbers, any::<Ids>(), package, vec(any::<u8>(), 0..40));
    parts.prop_map(|(numbers, ids, package, name)| {
        let (after_cut, reply, cluster_hash, epoch, stream, streams, longest, message, next) =
            numbers;
        let hello = Hello {
            after_cut,
            boot_id: ids.0,
            expected_boot_id: ids.1,
            tribes_id: ids.2,
            cluster_hash,
            epoch,
            stream,
            streams,
            lane_class: if reply { LaneClass::Reply } else { LaneClass::Data },
            max_frame_bytes: longest,
            max_message_bytes: message,
            next_sequence: next,
            member_package: b"",
            cluster_name: b"",
        };
        (hello, package, name)
    })
}

fn hello_ack() -> impl Strategy<Value = (HelloAck<'static>, Vec<u8>)> {
    let status = prop_oneof![
        Just(HelloStatus::Ok),
        Just(HelloStatus::Reset),
        Just(HelloStatus::OldEpoch),
        Just(HelloStatus::WrongIncarnation),
        Just(HelloStatus::WrongCluster),
        Just(HelloStatus::Version),
        Just(HelloStatus::BootIdInUse),
        Just(HelloStatus::Closing),
        Just(HelloStatus::Refused),
    ];
    let numbers = any::<([u8; 16], u64, u64, u64, u64, u64, u32)>();
    (status, numbers, vec(any::<u8>(), 0..60)).prop_map(|(status, numbers, reason)| {
        let (boot_id, epoch, received, applied, credit, granted, max_frame_bytes) = numbers;
        let ack = HelloAck {
            status,
            boot_id,
            epoch,
            received,
            applied,
            credit,
            granted,
            max_frame_bytes,
            reason: b"",
        };
        (ack, reason)
    })
}

/// Ends to cut at: all of them, or of a long frame some hundred.
fn cuts(bytes: usize) -> impl Iterator<Item = usize> {
    (0..bytes).filter(move |at| *at < 200 || at % (bytes / 100) == 0 || bytes - at < 20)
}

/// Flips each bit of `bytes` (of a long frame some thousand) and hands it over with its place.
fn flips(bytes: &[u8], mut each: impl FnMut(usize, &[u8])) {
    let mut damaged = bytes.to_vec();
    for at in cuts(bytes.len()) {
        for bit in 0..8 {
            damaged[at] ^= 1 << bit;
            each(at, &damaged);
            damaged[at] ^= 1 << bit;
        }
    }
}

/// A damaged frame asks for more only if its length grew.
fn refused<T: std::fmt::Debug>(at: usize, length_at: usize, result: Result<Option<T>, Error>) {
    match result {
        Err(_) => {}
        Ok(None) => assert!((length_at..length_at + 4).contains(&at), "byte {at} asks for more"),
        Ok(Some(taken)) => panic!("byte {at} is damaged, and taken: {taken:?}"),
    }
}

fn whole(bytes: &[u8]) -> Result<Option<Frame<'_>>, Error> {
    decode(bytes, MAX_FRAME_BYTES).map(|step| match step {
        Step::NeedMore { .. } => None,
        Step::Frame { frame, .. } => Some(frame),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_come_back_whatever_follows(owned in frame(), after in vec(any::<u8>(), 0..40)) {
        let bytes = owned.encode();
        let followed = [&bytes[..], &after].concat();
        match decode(&followed, MAX_FRAME_BYTES) {
            Ok(Step::Frame { frame, consumed_bytes }) => {
                prop_assert!(owned.is(&frame), "{frame:?}");
                prop_assert_eq!(consumed_bytes, bytes.len());
            }
            other => prop_assert!(false, "{other:?}"),
        }
        for end in cuts(bytes.len()) {
            let frame_bytes = (end >= 4).then_some(bytes.len());
            prop_assert_eq!(decode(&bytes[..end], MAX_FRAME_BYTES), Ok(Step::NeedMore { frame_bytes }));
        }
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed(owned in frame()) {
        flips(&owned.encode(), |at, damaged| refused(at, 0, whole(damaged)));
    }

    #[test]
    fn words_behind_a_header_are_skipped(owned in frame(), words in vec(any::<[u8; 4]>(), 1..6)) {
        let bytes = owned.encode();
        let header_bytes = usize::from(bytes[5]) * 4;
        let more = words.concat();
        prop_assume!(bytes.len() + more.len() <= MAX_FRAME_BYTES);
        let mut longer = [&bytes[..header_bytes], &more, &bytes[header_bytes..]].concat();
        let length = u32::try_from(longer.len()).expect("short");
        longer[..4].copy_from_slice(&length.to_le_bytes());
        longer[5] += u8::try_from(words.len()).expect("few");
        let (header, body) = longer.split_at(header_bytes + more.len());
        let crc = crc32c(crc32c(crc32c(0, body), &header[..8]), &header[COMMON_BYTES..]);
        longer[8..12].copy_from_slice(&crc.to_le_bytes());
        let frame = whole(&longer).expect("sound").expect("whole");
        prop_assert!(owned.is(&frame), "{frame:?}");
    }

    #[test]
    fn hellos_come_back_cut_ones_wait_damaged_ones_do_not(
        (hello, package, name) in hello(),
        after in vec(any::<u8>(), 0..40),
    ) {
        let hello = Hello { member_package: &package, cluster_name: &name, ..hello };
        let mut bytes = Vec::new();
        hello.encode(&mut bytes);
        let followed = [&bytes[..], &after].concat();
        prop_assert_eq!(decode_hello(&followed), Ok(Some((hello, bytes.len()))));
        for end in cuts(bytes.len()) {
            prop_assert_eq!(decode_hello(&bytes[..end]), Ok(None));
        }
        flips(&bytes, |at, damaged| refused(at, MAGIC.len(), decode_hello(damaged)));
        prop_assert!(decode_hello_ack(&bytes).is_err());
    }

    #[test]
    fn answers_come_back_cut_ones_wait_damaged_ones_do_not((ack, reason) in hello_ack()) {
        let ack = HelloAck { reason: &reason, ..ack };
        let mut bytes = Vec::new();
        ack.encode(&mut bytes);
        prop_assert_eq!(decode_hello_ack(&bytes), Ok(Some((ack, bytes.len()))));
        for end in 0..bytes.len() {
            prop_assert_eq!(decode_hello_ack(&bytes[..end]), Ok(None));
        }
        flips(&bytes, |at, damaged| refused(at, MAGIC.len(), decode_hello_ack(damaged)));
        prop_assert!(decode_hello(&bytes).is_err());
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_with_its_fourth_byte(
        length in prop_oneof![0..12_u32, 301..=u32::MAX],
        after in vec(any::<u8>(), 0..30),
    ) {
        let bytes = [&length.to_le_bytes()[..], &after].concat();
        let error = Error { what: What::FrameLength, offset: 0, value: u64::from(length), limit: 300 };
        for end in 0..=bytes.len() {
            let expected = if end < 4 { Ok(Step::NeedMore { frame_bytes: None }) } else { Err(error) };
            prop_assert_eq!(decode(&bytes[..end], 300), expected);
        }
    }

    #[test]
    fn a_length_of_a_hello_beyond_the_limit_is_refused_with_its_fourth_byte(
        length in prop_oneof![0..12_u32, 65_537..=u32::MAX],
    ) {
        let bytes = [&MAGIC[..], &length.to_le_bytes()].concat();
        prop_assert_eq!(decode_hello(&bytes[..bytes.len() - 1]), Ok(None));
        let error = decode_hello(&bytes).expect_err("too long");
        prop_assert_eq!((error.what, error.offset), (What::FrameLength, MAGIC.len()));
        prop_assert_eq!(decode_hello_ack(&bytes), Err(error));
    }

    #[test]
    fn arbitrary_bytes_are_survived(bytes in vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes, MAX_FRAME_BYTES);
        let _ = (decode_hello(&bytes), decode_hello_ack(&bytes));
        let behind_magic = [&MAGIC[..], &bytes].concat();
        let _ = (decode_hello(&behind_magic), decode_hello_ack(&behind_magic));
    }

    /// Bytes get past the checksum only if they are meant to: then what the kind says is judged.
    #[test]
    fn sealed_nonsense_is_survived(
        mut bytes in vec(any::<u8>(), 140..300),
        kind in 0..20_u8,
        words in 3..40_u8,
        cut in any::<Index>(),
    ) {
        let header_bytes = usize::from(words) * 4;
        bytes.truncate(header_bytes.max(cut.index(bytes.len())).min(bytes.len()));
        prop_assume!(bytes.len() >= header_bytes);
        let length = u32::try_from(bytes.len()).expect("short");
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        let low_flags = bytes[6];
        bytes[4..8].copy_from_slice(&[kind, words, low_flags, 0]);
        let (header, body) = bytes.split_at(header_bytes);
        let crc = crc32c(crc32c(crc32c(0, body), &header[..8]), &header[COMMON_BYTES..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        match decode(&bytes, MAX_FRAME_BYTES) {
            Ok(Step::Frame { frame: Frame::Ack(ack), .. }) => {
                prop_assert_eq!(ack.entries().count() * 12, ack.entries.len());
            }
            Ok(Step::NeedMore { .. }) => prop_assert!(false, "all is there"),
            Ok(Step::Frame { .. }) => {}
            Err(error) => prop_assert!(error.what != What::Checksum, "{error}"),
        }
        let greeting = [&MAGIC[..], &bytes].concat();
        prop_assert!(!matches!(decode_hello(&greeting), Ok(None)));
        prop_assert!(!matches!(decode_hello_ack(&greeting), Ok(None)));
    }
}

#[test]
fn a_package_that_fits_no_hello_is_left_out() {
    let package = vec![7; PACKAGE_LIMIT_BYTES + 1];
    let mut bytes = Vec::new();
    let golden = include_bytes!("../testdata/native/hello.bin");
    let (hello, _) = decode_hello(golden).expect("sound").expect("whole");
    Hello { member_package: &package, cluster_name: &[b'n'; 3_000], ..hello }.encode(&mut bytes);
    let (found, _) = decode_hello(&bytes).expect("it fits a frame").expect("whole");
    assert_eq!((found.member_package.len(), found.cluster_name.len()), (0, 1_024));
}
