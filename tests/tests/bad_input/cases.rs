//! What no node should send, and how it is to be answered.

use std::io::{Read, Write};
use std::net::TcpStream;

use ringtribe_wire::native::{
    Ack, Frame, Hello, HelloStatus, MAGIC, MAX_FRAME_BYTES, Step, crc32c, decode, decode_hello_ack,
};
use ringtribe_wire::tribes;

use super::bench::*;

/// Sends a hello and waits until it is accepted; returns the credit.
pub(super) fn open(stream: &mut TcpStream, hello: &[u8]) -> std::io::Result<u64> {
    stream.write_all(hello)?;
    let mut answer = Vec::new();
    let mut room = [0; 1_024];
    loop {
        if let Some((ack, _)) = decode_hello_ack(&answer).expect("sound") {
            assert_eq!(ack.status, HelloStatus::Ok, "{}", String::from_utf8_lossy(ack.reason));
            return Ok(ack.credit);
        }
        match stream.read(&mut room)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&room[..count]),
        }
    }
}

/// Codes of the CLOSE frames among frames.
pub(super) fn closes(mut bytes: &[u8]) -> Vec<u16> {
    let mut codes = Vec::new();
    while let Ok(Step::Frame { frame, consumed_bytes }) = decode(bytes, MAX_FRAME_BYTES) {
        if let Frame::Close(close) = frame {
            codes.push(close.code);
        }
        bytes = &bytes[consumed_bytes..];
    }
    codes
}

/// How a node is to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It closes; what ends by itself is nobody's fault and is not counted.
    Closes {
        counted: bool,
    },
    Refuses(HelloStatus),
    /// A stream that was open gets CLOSE with status 207.
    Accuses,
}

/// Something that no node should send.
pub(super) struct Case {
    name: &'static str,
    /// Goes first, and has to be accepted.
    hello: Option<Vec<u8>>,
    bytes: Vec<u8>,
    answer: Answer,
    /// Part of what the log says.
    says: &'static str,
}

impl Case {
    /// Sends it; returns who sent it and what came back.
    pub(super) fn play(&self, bench: &Bench) -> std::io::Result<(String, Vec<u8>)> {
        let mut stream = bench.connect()?;
        let from = stream.local_addr()?.to_string();
        if let Some(hello) = &self.hello {
            open(&mut stream, hello)?;
        }
        // It may be refused before all is written.
        let _ = stream.write_all(&self.bytes);
        if self.answer == (Answer::Closes { counted: false }) {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        Ok((from, read_out(&mut stream)))
    }

    pub(super) fn check(&self, bench: &Bench) {
        let name = self.name;
        let counter = match self.answer {
            Answer::Refuses(_) => "refused_hellos_count",
            _ => "bad_input_count",
        };
        let before_count = bench.node.counter(counter);
        let (from, answer) = self.play(bench).unwrap_or_else(|error| panic!("{name}: {error}"));
        let said = bench.node.wait(name, |seen| seen.has_log(&[&from, self.says]).then_some(()));
        said.unwrap_or_else(|error| panic!("{from} \"{}\" is not said: {error}", self.says));
        let counted = bench.node.counter(counter) - before_count;
        assert_eq!(counted, u64::from(self.answer != Answer::Closes { counted: false }), "{name}");
        match self.answer {
            Answer::Closes { .. } => assert_eq!(answer, b"", "{name}"),
            Answer::Refuses(status) => {
                let (ack, _) = decode_hello_ack(&answer).expect("sound").expect("whole");
                assert_eq!(ack.status, status, "{name}");
                assert!(!ack.reason.is_empty(), "{name}");
            }
            Answer::Accuses => assert_eq!(closes(&answer), [207], "{name}"),
        }
    }
}

/// All kinds, of a stranger whose incarnation is `life`.
pub(super) fn cases(bench: &Bench, life: u64) -> Vec<Case> {
    let mut boot_id = [0xaa; 16];
    boot_id[..8].copy_from_slice(&life.to_le_bytes());
    let package = package(39_999, 3);
    let good = bench.hello(boot_id, &package);
    let own = bench.node.node.boot_id().0;
    let healthy = bench.healthy.node.boot_id().0;
    let closes = |name, bytes: &[u8], says| {
        let answer = Answer::Closes { counted: true };
        Case { name, hello: None, bytes: bytes.to_vec(), answer, says }
    };
    let ends = |name, bytes: &[u8], says| {
        let answer = Answer::Closes { counted: false };
        Case { name, hello: None, bytes: bytes.to_vec(), answer, says }
    };
    let refused = |name, hello: &Hello<'_>, status, says| {
        let answer = Answer::Refuses(status);
        Case { name, hello: None, bytes: encoded(hello), answer, says }
    };
    let accused = |name, frames: Vec<u8>, says| {
        let hello = Some(encoded(&good));
        Case { name, hello, bytes: frames, answer: Answer::Accuses, says }
    };
    // The version stands behind the magic and 12 bytes; the checksum is that of the frame anew.
    let mut future = encoded(&good);
    future[20..22].copy_from_slice(&9_u16.to_le_bytes());
    future[22..24].copy_from_slice(&9_u16.to_le_bytes());
    seal(&mut future[MAGIC.len()..], 128);
    let mut damaged = encoded(&good);
    *damaged.last_mut().expect("bytes") ^= 1;
    let mut ack = Vec::new();
    let nothing =
        Ack { received: 0, applied: 0, credit: 0, granted: 0, oldest_ms: 0, entries: &[] };
    nothing.encode(&[], &mut ack);
    let mut bad_sum = whole(1, b"hello");
    bad_sum[40 - 4] ^= 1;
    let long_native = [&MAGIC[..], &u32::MAX.to_le_bytes(), &[16, 32, 0, 0]].concat();
    let mut probe = Vec::new();
    tribes::encode_data_head(&mut probe, 3, 1, &[1; 16], &package, 64);
    vec![
        closes("garbage", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", "frame"),
        closes("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
        closes(
            "a frame of Tomcat 5.5.25",
            b"FLT2002\0\0\0\x02\0\0\0\x08\xac\xed\0\x05sr\0\x2cTLF2003",
            "it sent a frame of Tomcat 5.5.10 to 5.5.36: this node speaks as Tomcat 7.0 to 11 do",
        ),
        closes(
            "a frame of Tomcat 5.5.9",
            b"FLT2002\0\0\0\x08\xac\xed\0\x05sr\0\x2cTLF2003",
            "it sent a frame of Tomcat 5.5.9 or older: this node speaks as Tomcat 7.0 to 11 do",
        ),
        closes("a Tribes frame that is too long", b"FLT2002\x7f\xff\xff\xff", "2147483647"),
        ends("half a Tribes frame", &probe, "inside a frame"),
        ends("half a hello", &encoded(&good)[..60], "ended after 60 bytes of a hello"),
        closes("a hello that is too long", &long_native, "frame length 4294967295"),
        closes("a hello that is damaged", &damaged, "checksum"),
        closes(
            "bytes behind a hello",
            &[encoded(&good), whole(1, b"hello")].concat(),
            "bytes behind its hello before the answer",
        ),
        Case {
            name: "a version of the future",
            hello: None,
            bytes: future,
            answer: Answer::Refuses(HelloStatus::Version),
            says: "the peer's oldest version is 9",
        },
        refused(
            "another cluster",
            &Hello { cluster_hash: 7, cluster_name: b"test", ..good },
            HelloStatus::WrongCluster,
            "clusterName=\"test\" calls clusterName=\"production\"",
        ),
        refused(
            "this node's own incarnation",
            &Hello { boot_id: own, ..good },
            HelloStatus::BootIdInUse,
            "is this node's own",
        ),
        refused(
            "the incarnation of another member",
            &Hello { boot_id: healthy, ..good },
            HelloStatus::BootIdInUse,
            "belongs to the member at 127.0.0.1:",
        ),
        refused(
            "somebody else is meant",
            &Hello { expected_boot_id: [5; 16], ..good },
            HelloStatus::WrongIncarnation,
            "boot id 05050505050505050505050505050505 does not live here",
        ),
        refused(
            "a stream that does not exist",
            &Hello { stream: 65, ..good },
            HelloStatus::Refused,
            "stream 65 of 64 does not exist",
        ),
        refused(
            "it goes on where nothing was",
            &Hello { next_sequence: 9, boot_id: [life.to_le_bytes()[0] ^ 0x55; 16], ..good },
            HelloStatus::Reset,
            "nothing is known here of what went before",
        ),
        accused("a hole", whole(4_000_000, b"hello"), "frame 4000000 where"),
        accused("a damaged frame", bad_sum, "checksum"),
        accused("an ack on the wrong side", ack, "belongs on the other direction"),
        accused(
            "a confirmation of nothing",
            Frame::encode_confirm(5).to_vec(),
            "confirmation of 5",
        ),
    ]
}

/// Gives a frame with a header of so many bytes its checksum.
fn seal(frame: &mut [u8], header_bytes: usize) {
    let body = crc32c(0, &frame[header_bytes..]);
    let crc = crc32c(crc32c(body, &frame[..8]), &frame[12..header_bytes]);
    frame[8..12].copy_from_slice(&crc.to_le_bytes());
}
