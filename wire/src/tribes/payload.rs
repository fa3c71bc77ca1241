//! Looking into a message that is a Java serialization stream, without deserializing it.
//!
//! The engine must know which messages keep an order and which are replies that somebody waits
//! for. Both stand near the front of the stream (Java Object Serialization Specification, 6.4):
//! the descriptors of the object's class and its superclasses, then the values of their fields.

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `org.apache.catalina.ha.session.SessionMessageImpl`.
    Session {
        /// Its event (`SessionMessage.EVT_*`, 1 to 16), 0 if it could not be read.
        event: i32,
    },
    /// `org.apache.catalina.tribes.group.RpcMessage`.
    Rpc {
        /// Whether it answers a request.
        reply: bool,
    },
    /// `RpcMessage.NoRpcChannelReply`: the answer that there is nobody to answer.
    NoRpcReply,
    /// The application's bytes. Never found by [`classify`]: the option bit
    /// [`BYTE_MESSAGE`](super::options::BYTE_MESSAGE) tells, and the caller looks at it first.
    Bytes,
    /// Anything else.
    Other,
}

/// STREAM_MAGIC, STREAM_VERSION, TC_OBJECT, TC_CLASSDESC.
const OBJECT_START: [u8; 6] = [0xac, 0xed, 0x00, 0x05, 0x73, TC_CLASSDESC];
const TC_NULL: u8 = 0x70;
const TC_REFERENCE: u8 = 0x71;
const TC_CLASSDESC: u8 = 0x72;
const TC_STRING: u8 = 0x74;
const TC_BLOCKDATA: u8 = 0x77;
const TC_ENDBLOCKDATA: u8 = 0x78;
const TC_BLOCKDATALONG: u8 = 0x7a;
/// The class's fields follow as they are, and nothing else.
const SC_SERIALIZABLE: u8 = 0x02;
/// The class writes itself, in block data.
const SC_EXTERNALIZABLE_IN_BLOCKS: u8 = 0x04 | 0x08;

const SESSION: &[u8] = b"org.apache.catalina.ha.session.SessionMessageImpl";
const RPC: &[u8] = b"org.apache.catalina.tribes.group.RpcMessage";
const NO_RPC_REPLY: &[u8] = b"org.apache.catalina.tribes.group.RpcMessage$NoRpcChannelReply";
const EVENT_FIELD: &[u8] = b"mEvtType";

/// Superclasses walked at most; Tomcat's have one.
const DEPTH_LIMIT_COUNT: usize = 8;
/// Fields of one class walked at most; Tomcat's have up to seven.
const FIELDS_LIMIT_COUNT: usize = 64;

/// Looks at the front of a serialization stream. Never fails: what is not recognised is
/// [`Kind::Other`].
///
/// Only the classes named in [`Kind`] cost more than a comparison of their names, and their
/// descriptors are walked no further than 10 classes of 64 fields; names are skipped, not read.
#[must_use]
pub fn classify(message: &[u8]) -> Kind {
    let Some(mut rest) = message.strip_prefix(&OBJECT_START) else {
        return Kind::Other;
    };
    match utf(&mut rest) {
        Some(SESSION) => Kind::Session { event: session_event(rest).unwrap_or(0) },
        Some(RPC) => rpc_reply(rest).map_or(Kind::Other, |reply| Kind::Rpc { reply }),
        Some(NO_RPC_REPLY) => Kind::NoRpcReply,
        _ => Kind::Other,
    }
}

/// Values come superclass first; of each class the primitive ones before its objects.
fn session_event(mut rest: &[u8]) -> Option<i32> {
    let class = Class::read(&mut rest).filter(|class| class.flags == SC_SERIALIZABLE)?;
    let mut before_bytes = class.event_at?;
    superclasses(&mut rest, |superclass| {
        before_bytes += superclass.primitive_bytes;
        // The event's place can be told only if nothing of unknown length is before it.
        superclass.flags == SC_SERIALIZABLE && superclass.objects_count == 0
    })?;
    take(&mut rest, before_bytes)?;
    array(&mut rest).map(|bytes| i32::from_be_bytes(*bytes))
}

/// `RpcMessage.writeExternal` starts with the flag. A long RPC id makes the block a long one.
fn rpc_reply(mut rest: &[u8]) -> Option<bool> {
    Class::read(&mut rest).filter(|class| class.flags == SC_EXTERNALIZABLE_IN_BLOCKS)?;
    superclasses(&mut rest, |_| true)?;
    let block_bytes = match byte(&mut rest)? {
        TC_BLOCKDATA => u32::from(byte(&mut rest)?),
        TC_BLOCKDATALONG => u32::from_be_bytes(*array(&mut rest)?),
        _ => return None,
    };
    let reply = byte(&mut rest)?;
    (block_bytes > 0).then_some(reply != 0)
}

/// Walks the descriptors of the superclasses, as long as `accept` does, up to the values.
fn superclasses(rest: &mut &[u8], mut accept: impl FnMut(&Class) -> bool) -> Option<()> {
    for _ in 0..=DEPTH_LIMIT_COUNT {
        match byte(rest)? {
            TC_NULL => return Some(()),
            TC_CLASSDESC => utf(rest)?,
            _ => return None,
        };
        let class = Class::read(rest)?;
        if !accept(&class) {
            return None;
        }
    }
    None
}

/// What a class descriptor says, beside the name.
struct Class {
    flags: u8,
    /// Bytes of its primitive fields.
    primitive_bytes: usize,
    /// Object fields, each of them a value in the stream.
    objects_count: usize,
    /// Where [`EVENT_FIELD`] stands among its primitive fields.
    event_at: Option<usize>,
}

impl Class {
    /// Reads a descriptor after its name: serialVersionUID, flags, fields, and the annotation,
    /// which is empty for every class that an `ObjectOutputStream` itself describes.
    fn read(rest: &mut &[u8]) -> Option<Self> {
        take(rest, 8)?;
        let mut class =
            Self { flags: byte(rest)?, primitive_bytes: 0, objects_count: 0, event_at: None };
        let fields_count = short(rest)?;
        if fields_count > FIELDS_LIMIT_COUNT {
            return None;
        }
        for _ in 0..fields_count {
            let code = byte(rest)?;
            let name = utf(rest)?;
            if code == b'I' && name == EVENT_FIELD {
                class.event_at = Some(class.primitive_bytes);
            }
            class.primitive_bytes += match code {
                b'B' | b'Z' => 1,
                b'C' | b'S' => 2,
                b'I' | b'F' => 4,
                b'J' | b'D' => 8,
                b'L' | b'[' => {
                    class.objects_count += 1;
                    skip_type(rest)?;
                    0
                }
                _ => return None,
            };
        }
        (byte(rest)? == TC_ENDBLOCKDATA).then_some(class)
    }
}

/// The type of an object field: a string, or a reference to one that was there before.
fn skip_type(rest: &mut &[u8]) -> Option<()> {
    match byte(rest)? {
        TC_STRING => utf(rest)?,
        TC_REFERENCE => take(rest, 4)?,
        _ => return None,
    };
    Some(())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

fn array<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(taken)
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    array(rest).map(|[byte]| *byte)
}

fn short(rest: &mut &[u8]) -> Option<usize> {
    array(rest).map(|bytes| usize::from(u16::from_be_bytes(*bytes)))
}

fn utf<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = short(rest)?;
    take(rest, length)
}
