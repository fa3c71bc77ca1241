//! What Tomcat 5.5 sends. It is not spoken here; it is recognised, so that it can be named.

use super::frame::HEADER;

/// Before the name: alive time, port, IPv4 address.
const HEARTBEAT_HEAD_BYTES: usize = 8 + 4 + 4;
const NAME_START: &[u8] = b"tcp://";
const NAME_MOST_BYTES: usize = 255;
/// What a message begins with: a Java object, or one that was packed by gzip.
const OBJECT: [u8; 4] = [0xac, 0xed, 0, 5];
const GZIP: [u8; 3] = [0x1f, 0x8b, 8];

/// Which releases of Tomcat 5.5 write so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tomcat55 {
    /// Up to 5.5.9: frames without a flag, heartbeats without a domain.
    Early,
    /// Later ones.
    Late,
}

impl Tomcat55 {
    /// The releases, in words.
    #[must_use]
    pub const fn releases(self) -> &'static str {
        match self {
            Self::Early => "5.5.9 or older",
            Self::Late => "5.5.10 to 5.5.36",
        }
    }

    /// Recognises the front of a frame that is none as Tomcat 7.0 to 11 write them.
    #[must_use]
    pub fn of_frame(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&HEADER)?;
        // Whether as much of a message as is there begins with that.
        let is_message = |body: &[u8]| {
            let begins = |mark: &[u8]| body.iter().zip(mark).all(|(is, mark)| is == mark);
            begins(&OBJECT) || begins(&GZIP)
        };
        // Whether the next field is a flag: 0 to 2 is no length of a message.
        if let [0, 0, 0, 0..=2, length_and_body @ ..] = rest
            // The length has at most 31 bits, and a footer would begin with another byte.
            && length_and_body.first().is_some_and(|byte| *byte < b'T')
            && is_message(length_and_body.get(4..).unwrap_or(&[]))
        {
            return Some(Self::Late);
        }
        let body = rest.get(4..).filter(|body| body.len() >= OBJECT.len())?;
        is_message(body).then_some(Self::Early)
    }

    /// Recognises a heartbeat; returns the name that its sender gives itself, "tcp://host:port", too.
    #[must_use]
    pub fn of_heartbeat(bytes: &[u8]) -> Option<(Self, &str)> {
        let (head, rest) = bytes.split_at_checked(HEARTBEAT_HEAD_BYTES)?;
        let is_port = head[8..10] == [0, 0] && head[10..12] != [0, 0];
        let is_alive = head[0] < 0x80;
        let (release, name) = match rest.strip_prefix(NAME_START) {
            Some(_) => (Self::Early, rest),
            None => {
                let (length, rest) = rest.split_first_chunk::<4>()?;
                let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
                (Self::Late, rest.get(..length)?)
            }
        };
        let is_name = name.starts_with(NAME_START)
            && name.len() <= NAME_MOST_BYTES
            && name.iter().all(u8::is_ascii_graphic);
        let name = str::from_utf8(name).ok()?;
        (is_port && is_alive && is_name).then_some((release, name))
    }
}
