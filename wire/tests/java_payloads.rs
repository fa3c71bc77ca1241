//! What `classify` sees in messages that a real Tomcat serialized, and in such that none would.

#![allow(missing_docs, reason = "tests")]

use std::fs;
use std::path::PathBuf;

use ringtribe_wire::tribes::payload::{Kind, classify};

const SAMPLES: [(&str, Kind); 17] = [
    ("session-created", Kind::Session { event: 1 }),
    ("session-expired", Kind::Session { event: 2 }),
    ("session-accessed", Kind::Session { event: 3 }),
    ("session-get-all", Kind::Session { event: 4 }),
    ("session-all-data", Kind::Session { event: 12 }),
    ("session-delta", Kind::Session { event: 13 }),
    ("session-transfer-complete", Kind::Session { event: 14 }),
    ("session-change-id-long", Kind::Session { event: 15 }),
    ("session-no-context-manager", Kind::Session { event: 16 }),
    ("rpc-request", Kind::Rpc { reply: false }),
    ("rpc-reply", Kind::Rpc { reply: true }),
    ("rpc-request-long-id", Kind::Rpc { reply: false }),
    ("rpc-reply-long-id", Kind::Rpc { reply: true }),
    ("rpc-reply-blocks", Kind::Rpc { reply: true }),
    ("rpc-no-reply", Kind::NoRpcReply),
    ("string", Kind::Other),
    ("map", Kind::Other),
];

fn sample(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/java/{name}.bin"));
    fs::read(&path).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn messages_of_a_real_tomcat() {
    for (name, kind) in SAMPLES {
        assert_eq!(classify(&sample(name)), kind, "{name}");
    }
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/java");
    let files =
        fs::read_dir(directory).expect("testdata/java").map(|file| file.expect("file").path());
    let present_count =
        files.filter(|path| path.extension().is_some_and(|end| end == "bin")).count();
    assert_eq!(present_count, SAMPLES.len(), "every sample has its line");
}

/// A message cut anywhere is not taken for another one: it is nothing, or a session without an
/// event, until all that is looked at is there.
#[test]
fn cut_messages_are_never_taken_for_others() {
    for (name, kind) in SAMPLES {
        let message = sample(name);
        let mut seen = vec![Kind::Other];
        for length in 0..=message.len() {
            let kind = classify(&message[..length]);
            if seen.last() != Some(&kind) {
                seen.push(kind);
            }
        }
        let expected = match kind {
            Kind::Session { .. } => vec![Kind::Other, Kind::Session { event: 0 }, kind],
            Kind::Other => vec![Kind::Other],
            _ => vec![Kind::Other, kind],
        };
        assert_eq!(seen, expected, "{name}");
    }
}

const SESSION: &str = "org.apache.catalina.ha.session.SessionMessageImpl";
const RPC: &str = "org.apache.catalina.tribes.group.RpcMessage";
/// SC_SERIALIZABLE: the fields as they are.
const FIELDS: u8 = 0x02;
/// And SC_WRITE_METHOD: what a `writeObject` adds.
const WRITES: u8 = 0x03;
/// SC_EXTERNALIZABLE, as before JDK 1.2.
const EXTERNAL: u8 = 0x04;
/// And SC_BLOCK_DATA.
const BLOCKS: u8 = 0x0c;

fn utf(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("short");
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

/// A class descriptor without superclass; fields are a type code and a name, a type given in full
/// for objects.
fn class(name: &str, flags: u8, fields: &[(u8, &str)]) -> Vec<u8> {
    let mut bytes = vec![0x72];
    bytes.extend(utf(name));
    bytes.extend([7; 8]);
    bytes.push(flags);
    bytes.extend(u16::try_from(fields.len()).expect("few").to_be_bytes());
    for (code, name) in fields {
        bytes.push(*code);
        bytes.extend(utf(name));
        match code {
            b'L' => bytes.extend([&[0x74][..], &utf("Ljava/lang/String;")].concat()),
            b'[' => bytes.extend([0x71, 0, 0x7e, 0, 1]),
            _ => {}
        }
    }
    bytes.push(0x78);
    bytes
}

fn object(classes: &[Vec<u8>], values: &[u8]) -> Vec<u8> {
    [&[0xac, 0xed, 0, 5, 0x73][..], &classes.concat(), &[0x70], values].concat()
}

fn event_of(classes: &[Vec<u8>], values: &[u8]) -> i32 {
    match classify(&object(classes, values)) {
        Kind::Session { event } => event,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_event_is_found_by_its_name_wherever_it_stands() {
    let fields: &[(u8, &str)] = &[
        (b'B', "b"),
        (b'C', "c"),
        (b'D', "d"),
        (b'F', "f"),
        (b'I', "i"),
        (b'J', "j"),
        (b'I', "mEvtType"),
        (b'S', "s"),
        (b'Z', "z"),
        (b'L', "object"),
        (b'[', "array"),
    ];
    let (before, after) = ([0xff; 1 + 2 + 8 + 4 + 4 + 8], [0xff; 2 + 1]);
    let values = [&before[..], &[0, 0, 1, 2], &after].concat();
    let session = class(SESSION, FIELDS, fields);
    assert_eq!(event_of(std::slice::from_ref(&session), &values), 0x102);

    let base = class("Base", FIELDS, &[(b'J', "timestamp"), (b'I', "mEvtType")]);
    let root = class("Root", FIELDS, &[(b'S', "s")]);
    let values = [&[0xee; 2 + 8 + 4][..], &values].concat();
    assert_eq!(event_of(&[session, base, root], &values), 0x102, "superclasses come first");
}

#[test]
fn an_event_whose_place_cannot_be_told_is_0() {
    let event: &[(u8, &str)] = &[(b'I', "mEvtType")];
    let session = || class(SESSION, FIELDS, event);
    let values = [0, 0, 0, 5];
    let several = |count: usize, class: &dyn Fn() -> Vec<u8>| -> Vec<Vec<u8>> {
        (0..count).map(|_| class()).collect()
    };
    let padding = |count: usize| [&[(b'Z', "z")].repeat(count)[..], event].concat();
    let supers =
        |count: usize| [vec![session()], several(count, &|| class("Base", FIELDS, &[]))].concat();
    let after = |bytes: usize| [&vec![1; bytes][..], &values].concat();

    assert_eq!(event_of(&[session()], &values), 5, "the form all others differ from");
    assert_eq!(event_of(&[session()], &values[..3]), 0, "cut off");
    assert_eq!(
        event_of(&[class(SESSION, FIELDS, &[(b'I', "mEvtTypo")])], &values),
        0,
        "no such field"
    );
    assert_eq!(event_of(&[class(SESSION, FIELDS, &[(b'J', "mEvtType")])], &after(4)), 0, "no int");
    assert_eq!(
        event_of(&[class(SESSION, FIELDS, &[(b'?', "x"), event[0]])], &values),
        0,
        "no type"
    );
    assert_eq!(event_of(&[class(SESSION, BLOCKS, event)], &values), 0, "externalizable");
    let writes = class("Base", WRITES, &[]);
    assert_eq!(event_of(&[session(), writes], &values), 0, "unknown data of a superclass");
    let object = class("Base", FIELDS, &[(b'L', "object")]);
    assert_eq!(event_of(&[session(), object], &values), 0, "an object of a superclass");

    // The work is bounded: what would go on past the bound is not read.
    assert_eq!(event_of(&[class(SESSION, FIELDS, &padding(63))], &after(63)), 5, "64 fields");
    assert_eq!(event_of(&[class(SESSION, FIELDS, &padding(64))], &after(64)), 0, "65 fields");
    assert_eq!(event_of(&supers(8), &values), 5, "8 superclasses");
    assert_eq!(event_of(&supers(9), &values), 0, "9 superclasses");
}

#[test]
fn rpc_messages_start_with_their_flag_in_block_data() {
    let rpc = |flags: u8, values: &[u8]| classify(&object(&[class(RPC, flags, &[])], values));
    let reply = Kind::Rpc { reply: true };
    assert_eq!(rpc(BLOCKS, &[0x77, 1, 1]), reply);
    assert_eq!(rpc(BLOCKS, &[0x77, 1, 0]), Kind::Rpc { reply: false });
    assert_eq!(rpc(BLOCKS, &[0x7a, 0, 0, 1, 0, 1]), reply);
    assert_eq!(rpc(BLOCKS, &[0x77, 0, 1]), Kind::Other, "an empty block");
    assert_eq!(rpc(BLOCKS, &[0x7a, 0, 0, 0, 0, 1]), Kind::Other, "an empty long block");
    assert_eq!(rpc(BLOCKS, &[0x78, 1, 1]), Kind::Other, "no block");
    assert_eq!(rpc(EXTERNAL, &[0x77, 1, 1]), Kind::Other, "not in blocks");
    assert_eq!(rpc(FIELDS, &[0x77, 1, 1]), Kind::Other, "not externalizable");
}

#[test]
fn names_are_compared_whole() {
    for name in [SESSION, RPC] {
        for other in [format!("{name}X"), name[1..].to_owned(), name[..name.len() - 1].to_owned()] {
            let message = object(&[class(&other, FIELDS, &[(b'I', "mEvtType")])], &[0, 0, 0, 5]);
            assert_eq!(classify(&message), Kind::Other, "{other}");
        }
    }
}
