//! What a hostile peer says on a connection.

use ringtribe::io::ConnId;
use ringtribe_wire::native::{
    DataHead, Hello, HelloAck, HelloStatus, LaneClass, crc32c, decode_hello, flags, hash,
};
use ringtribe_wire::tribes::{ACK, FAIL_ACK, FOOTER, TCP_FAILURE_DETECTOR_MAGIC, encode_data_head};

use super::{CLUSTER, OWN_BOOT_ID, SESSION, World, package};
use crate::targets::native::{encoded, scripted, sealed};
use crate::targets::script::Script;

impl World {
    pub(super) fn hello(&mut self, conn: ConnId, script: &mut Script<'_>) {
        let (who, lies) = (1 + script.u8() % 4, script.u8());
        let expected = if lies & 1 == 0 { OWN_BOOT_ID } else { [lies; 16] };
        let next_sequence = if lies & 2 == 0 { 1 } else { script.number() };
        let cluster: &[u8] = if lies & 4 == 0 { CLUSTER.as_bytes() } else { script.counted() };
        let (stream, is_reply) = (u16::from(script.u8() % 4), script.u8() & 7 == 7);
        let own_package = package(who);
        let hello = Hello {
            after_cut: lies & 8 != 0,
            boot_id: [who; 16],
            expected_boot_id: expected,
            tribes_id: [who; 16],
            cluster_hash: hash(cluster),
            epoch: script.number(),
            stream: if is_reply { 4 } else { stream },
            streams: if lies & 16 == 0 { 4 } else { script.u16() },
            lane_class: if is_reply { LaneClass::Reply } else { LaneClass::Data },
            max_frame_bytes: 65_536,
            max_message_bytes: 20_000,
            next_sequence,
            member_package: if lies & 32 == 0 { &own_package } else { script.counted() },
            cluster_name: cluster,
        };
        let mut bytes = Vec::new();
        hello.encode(&mut bytes);
        self.feed_cut(conn, &bytes, script);
    }

    /// The next frame of a stream, which may lie.
    pub(super) fn data(&mut self, conn: ConnId, script: &mut Script<'_>) {
        let Some(found) = self.kernel.conns.get_mut(&conn) else { return };
        let sequence = match script.u8() {
            0..=199 => found.next_sequence,
            200..=229 => found.next_sequence.wrapping_add(script.number()),
            _ => found.next_sequence.wrapping_sub(script.number()),
        };
        found.next_sequence = found.next_sequence.max(sequence.wrapping_add(1)).min(1 << 40);
        let shape = script.u8();
        let body = script.counted();
        let flags = match shape & 3 {
            0 => flags::FIRST | flags::LAST,
            1 => flags::FIRST,
            2 => flags::LAST,
            _ => 0,
        } | (u16::from(shape) & 0x7c);
        let place = match shape & 0x80 {
            0 if shape & 3 == 0 => u32::try_from(body.len()).unwrap_or(0),
            0 => script.number32(),
            _ => u32::from(script.u16()),
        };
        let head = DataHead { flags, place, sequence, key: u64::from(shape & 3) };
        let bytes = [&head.encode(body.len(), crc32c(0, body))[..], body].concat();
        self.feed_cut(conn, &bytes, script);
    }

    pub(super) fn frame(&mut self, conn: ConnId, script: &mut Script<'_>) {
        let mut entries = Vec::new();
        let frame = scripted(script, &mut entries);
        let bytes = encoded(&frame).unwrap_or_default();
        self.feed_cut(conn, &bytes, script);
    }

    pub(super) fn raw(&mut self, conn: ConnId, script: &mut Script<'_>) {
        let is_sealed = script.u8() & 1 == 1;
        let bytes = script.counted();
        if is_sealed {
            self.feed(conn, &sealed(bytes));
        } else {
            self.feed(conn, bytes);
        }
    }

    /// A frame of the Tribes format, of which bytes may be changed.
    pub(super) fn tribes(&mut self, conn: ConnId, script: &mut Script<'_>) {
        let (who, shape, id) = (1 + script.u8() % 4, script.u8(), script.u8());
        let body = script.counted();
        let message = match shape & 3 {
            0 => [SESSION, body].concat(),
            1 if body.is_empty() => TCP_FAILURE_DETECTOR_MAGIC.to_vec(),
            _ => body.to_vec(),
        };
        let options = [7, 3, 2, 6, 0, 9, 8, 1][usize::from(shape >> 2 & 7)];
        let mut bytes = Vec::new();
        encode_data_head(&mut bytes, options, 1, &[id; 16], &package(who), message.len());
        bytes.extend_from_slice(&message);
        bytes.extend_from_slice(&FOOTER);
        for _ in 0..shape >> 6 {
            let at = usize::from(script.u16()) % bytes.len();
            bytes[at] = script.u8();
        }
        self.feed_cut(conn, &bytes, script);
    }

    /// An answer to what a worker sent on a connection that it opened.
    pub(super) fn answer(&mut self, conn: ConnId, script: &mut Script<'_>) {
        let kind = script.u8();
        let Some(found) = self.kernel.conns.get(&conn) else { return };
        match kind % 4 {
            0 => {
                let Ok(Some((hello, _))) = decode_hello(&found.sent) else { return };
                let lies = script.u8();
                let statuses = [
                    HelloStatus::Reset,
                    HelloStatus::OldEpoch,
                    HelloStatus::WrongIncarnation,
                    HelloStatus::WrongCluster,
                    HelloStatus::Closing,
                    HelloStatus::Refused,
                ];
                let mut bytes = Vec::new();
                let number = |lie: u8, script: &mut Script<'_>| {
                    if lies & lie == 0 { 0 } else { script.number() }
                };
                HelloAck {
                    status: if lies & 1 == 0 {
                        HelloStatus::Ok
                    } else {
                        statuses[usize::from(script.u8() % 6)]
                    },
                    boot_id: if lies & 2 == 0 { hello.expected_boot_id } else { script.id() },
                    epoch: if lies & 4 == 0 { hello.epoch } else { script.number() },
                    received: number(8, script),
                    applied: number(16, script),
                    credit: if lies & 32 == 0 { 30_000 } else { script.number() },
                    granted: number(64, script),
                    max_frame_bytes: if lies & 128 == 0 { 65_536 } else { script.number32() },
                    reason: script.counted(),
                }
                .encode(&mut bytes);
                self.feed_cut(conn, &bytes, script);
            }
            1 => self.feed(conn, &ACK),
            2 => self.feed(conn, &FAIL_ACK),
            _ => self.feed(conn, &[&ACK[..], &ACK].concat()),
        }
    }
}
