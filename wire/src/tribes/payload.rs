//! Looking into a message that is a Java serialization stream, without deserializing it.
//!
//! The engine must know which messages keep an order and which are replies that somebody waits
//! for. Both stand near the front of the stream (Java Object Serialization Specification, 6.4).

use crate::error::What;
use crate::read::Reader;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `org.apache.catalina.ha.session.SessionMessageImpl`.
    Session {
        /// Its event (`SessionMessage.EVT_*`), 0 if it could not be read.
        event: i32,
    },
    /// `org.apache.catalina.tribes.group.RpcMessage`.
    Rpc {
        /// Whether it answers a request.
        reply: bool,
    },
    /// `RpcMessage.NoRpcChannelReply`: the answer that there is nobody to answer.
    NoRpcReply,
    /// The application's bytes. Never found by [`classify`]: the option bit tells.
    Bytes,
    /// Anything else.
    Other,
}

const STREAM_START: [u8; 4] = [0xac, 0xed, 0x00, 0x05];
const TC_NULL: u8 = 0x70;
const TC_REFERENCE: u8 = 0x71;
const TC_CLASSDESC: u8 = 0x72;
const TC_OBJECT: u8 = 0x73;
const TC_STRING: u8 = 0x74;
const TC_BLOCKDATA: u8 = 0x77;
const TC_ENDBLOCKDATA: u8 = 0x78;
const SESSION: &[u8] = b"org.apache.catalina.ha.session.SessionMessageImpl";
const RPC: &[u8] = b"org.apache.catalina.tribes.group.RpcMessage";
const NO_RPC_REPLY: &[u8] = b"org.apache.catalina.tribes.group.RpcMessage$NoRpcChannelReply";
const EVENT_FIELD: &[u8] = b"mEvtType";
/// Superclasses walked at most.
const DEPTH_LIMIT_COUNT: usize = 8;

/// Looks at the front of a serialization stream. Never fails: what is not recognised is
/// [`Kind::Other`]. The work is bounded by the class descriptors at the front.
#[must_use]
pub fn classify(message: &[u8]) -> Kind {
    let Some(rest) = message.strip_prefix(&STREAM_START) else { return Kind::Other };
    let Some((&TC_OBJECT, descriptor)) = rest.split_first() else { return Kind::Other };
    let Some(class) = Class::read(descriptor) else { return Kind::Other };
    match class.name {
        SESSION => Kind::Session { event: session_event(&class).unwrap_or(0) },
        // Its external form starts with the flag, in block data (`RpcMessage.writeExternal`).
        RPC => match after_descriptors(&class) {
            Some(&[TC_BLOCKDATA, _, reply, ..]) => Kind::Rpc { reply: reply != 0 },
            _ => Kind::Other,
        },
        NO_RPC_REPLY => Kind::NoRpcReply,
        _ => Kind::Other,
    }
}

#[derive(Clone, Copy)]
struct Class<'a> {
    name: &'a [u8],
    /// Bytes of its primitive fields.
    primitive_bytes: usize,
    /// Object fields, each of them a value in the stream.
    objects_count: usize,
    /// Where [`EVENT_FIELD`] stands among its primitive fields.
    event_at: Option<usize>,
    /// From the superclass descriptor on.
    rest: &'a [u8],
}

impl<'a> Class<'a> {
    /// Reads a TC_CLASSDESC with its fields and its (empty) annotation.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes, 0);
        if byte(&mut reader)? != TC_CLASSDESC {
            return None;
        }
        let name = utf(&mut reader)?;
        take(&mut reader, 8 + 1)?;
        let fields_count = short(&mut reader)?;
        let mut class =
            Self { name, primitive_bytes: 0, objects_count: 0, event_at: None, rest: &[] };
        for _ in 0..fields_count {
            let code = byte(&mut reader)?;
            let field = utf(&mut reader)?;
            let width = match code {
                b'B' | b'Z' => 1,
                b'C' | b'S' => 2,
                b'I' | b'F' => 4,
                b'J' | b'D' => 8,
                b'L' | b'[' => {
                    class.objects_count += 1;
                    match byte(&mut reader)? {
                        TC_STRING => drop(utf(&mut reader)?),
                        TC_REFERENCE => drop(take(&mut reader, 4)?),
                        _ => return None,
                    }
                    continue;
                }
                _ => return None,
            };
            if field == EVENT_FIELD && code == b'I' {
                class.event_at = Some(class.primitive_bytes);
            }
            class.primitive_bytes += width;
        }
        if byte(&mut reader)? != TC_ENDBLOCKDATA {
            return None;
        }
        class.rest = take_rest(&mut reader)?;
        Some(class)
    }
}

/// The values, which follow the descriptors of the class and its superclasses.
fn after_descriptors<'a>(class: &Class<'a>) -> Option<&'a [u8]> {
    let mut rest = class.rest;
    for _ in 0..DEPTH_LIMIT_COUNT {
        if let Some((&TC_NULL, values)) = rest.split_first() {
            return Some(values);
        }
        rest = Class::read(rest)?.rest;
    }
    None
}

/// Values come superclass first; the primitive ones of each class before its objects.
fn session_event(class: &Class<'_>) -> Option<i32> {
    let mut before_bytes = 0;
    let mut rest = class.rest;
    while rest.first() != Some(&TC_NULL) {
        let superclass = Class::read(rest)?;
        if superclass.objects_count > 0 {
            return None;
        }
        before_bytes += superclass.primitive_bytes;
        rest = superclass.rest;
    }
    let mut values = Reader::new(after_descriptors(class)?, 0);
    take(&mut values, before_bytes + class.event_at?)?;
    values.i32(What::BodyLength).ok()
}

fn byte(reader: &mut Reader<'_>) -> Option<u8> {
    reader.array::<1>(What::BodyLength).ok().map(|[byte]| *byte)
}

fn short(reader: &mut Reader<'_>) -> Option<usize> {
    reader.array::<2>(What::BodyLength).ok().map(|bytes| usize::from(u16::from_be_bytes(*bytes)))
}

fn take<'a>(reader: &mut Reader<'a>, length: usize) -> Option<&'a [u8]> {
    reader.slice(i64::try_from(length).ok()?, What::BodyLength, 0).ok()
}

fn take_rest<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    take(reader, reader.left_bytes())
}

fn utf<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let length = short(reader)?;
    take(reader, length)
}
