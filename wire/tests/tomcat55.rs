//! What Tomcat 5.5 sends is recognised, and nothing else is taken for it.

use ringtribe_wire::Limits;
use ringtribe_wire::tribes::{
    ACK, FAIL_ACK, FOOTER, HEADER, Tomcat55, decode_frame, encode_data_head,
};

const OBJECT: [u8; 4] = [0xac, 0xed, 0, 5];
const GZIP: [u8; 3] = [0x1f, 0x8b, 8];

fn frame(flag: &[u8], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    [&HEADER[..], flag, &length, body, &FOOTER].concat()
}

#[test]
fn frames_of_both_ages_are_recognised_where_they_are_refused() {
    let object =
        [&OBJECT[..], b"sr\x00\x2corg.apache.catalina.cluster.SessionMessageImpl"].concat();
    let packed = [&GZIP[..], &[0; 40]].concat();
    for body in [&object, &packed] {
        for flag in 0..=2 {
            let whole = frame(&[0, 0, 0, flag], body);
            for cut in 12..=whole.len() {
                if decode_frame(&whole[..cut], &Limits::default()).is_err() {
                    assert_eq!(Tomcat55::of_frame(&whole[..cut]), Some(Tomcat55::Late), "{cut}");
                }
            }
            assert!(decode_frame(&whole, &Limits::default()).is_err());
        }
        let whole = frame(&[], body);
        assert!(decode_frame(&whole, &Limits::default()).is_err());
        assert_eq!(Tomcat55::of_frame(&whole), Some(Tomcat55::Early));
    }
}

#[test]
fn nothing_of_today_is_taken_for_it() {
    let mut today = Vec::new();
    encode_data_head(&mut today, 6, 1, &[1; 16], &[7; 90], 64);
    today.extend([0; 64]);
    for bytes in [&today[..], &ACK, &FAIL_ACK, b"GET / HTTP/1.1"] {
        for cut in 0..=bytes.len() {
            assert_eq!(Tomcat55::of_frame(&bytes[..cut]), None, "{cut}");
        }
    }
    let damaged = [&HEADER[..], &[0, 0, 0, 2, b'T', b'L']].concat();
    assert_eq!(Tomcat55::of_frame(&damaged), None);
    assert_eq!(Tomcat55::of_heartbeat(b"TRIBES-B\x01\x00 and so on and so on"), None);
}

fn heartbeat(name: &[u8], length: Option<u32>) -> Vec<u8> {
    let mut bytes =
        [&1_000_i64.to_be_bytes()[..], &8_015_i32.to_be_bytes(), &[192, 168, 1, 9]].concat();
    if let Some(length) = length {
        bytes.extend(length.to_be_bytes());
    }
    bytes.extend(name);
    if length.is_some() {
        bytes.extend(8_u32.to_be_bytes());
        bytes.extend(b"catalina");
    }
    bytes
}

#[test]
fn heartbeats_of_both_ages_are_recognised() {
    let name = "tcp://192.168.1.9:8015";
    let length = u32::try_from(name.len()).expect("short");
    let late = heartbeat(name.as_bytes(), Some(length));
    assert_eq!(Tomcat55::of_heartbeat(&late), Some((Tomcat55::Late, name)));
    let early = heartbeat(name.as_bytes(), None);
    assert_eq!(Tomcat55::of_heartbeat(&early), Some((Tomcat55::Early, name)));
    assert_eq!(Tomcat55::of_heartbeat(&heartbeat(name.as_bytes(), Some(u32::MAX))), None);
    assert_eq!(Tomcat55::of_heartbeat(&heartbeat(b"tcp://a\x1b[31m", None)), None);
    assert_eq!(Tomcat55::of_heartbeat(&heartbeat(b"udp://192.168.1.9:8015", None)), None);
    assert_eq!(Tomcat55::of_heartbeat(&early[..20]), None);
}
