//! A stock member, as small as it can be and still be one: heartbeats, one message at a time on a
//! socket, an acknowledgement behind each message that wants one, one resend after an error.

use ringtribe::buffer::Buffer;
use ringtribe::io::{ConnId, Io, SendBatch};
use ringtribe::message::AckMode;
use ringtribe::status::Status;
use ringtribe_wire::Limits;
use ringtribe_wire::tribes::options::{ASYNCHRONOUS, BYTE_MESSAGE, SYNCHRONIZED_ACK, USE_ACK};
use ringtribe_wire::tribes::{
    ACK, ChannelData, Datagram, FAIL_ACK, FOOTER, Frame, Member, SHUTDOWN_COMMAND, Step,
    TCP_FAILURE_DETECTOR_MAGIC, decode_datagram, decode_frame, encode_data_head,
};

use super::application::{fill, is_intact};
use super::check::{Kind, Submitted};
use super::clock::Clock;
use super::net::SimIo;
use super::*;

/// A connection that a peer opened.
#[derive(Default)]
struct Inbound {
    read: Vec<u8>,
    answers: Vec<u8>,
    sending: bool,
    closes: bool,
}

/// The message that is being sent.
struct Outbound {
    number: u64,
    to: usize,
    frame: Vec<u8>,
    wants_ack: bool,
    sent: bool,
    tries_count: u32,
    until: u64,
    request: Option<u64>,
    conn: Option<ConnId>,
    read: Vec<u8>,
}

/// See the module.
pub(super) struct Stock {
    pub(super) life: u32,
    unique_id: [u8; 16],
    started: u64,
    next_heartbeat: u64,
    /// Who is there, and when it was heard.
    members: BTreeMap<usize, u64>,
    inbound: BTreeMap<ConnId, Inbound>,
    outbound: Option<Outbound>,
    next_request: u64,
}

impl Stock {
    pub(super) fn members_count(&self) -> usize {
        self.members.len()
    }

    fn package(&self, node: usize, now: u64, command: &[u8]) -> Vec<u8> {
        let mut package = Vec::new();
        Member {
            alive_ms: i64::try_from((now - self.started) / MS).unwrap_or(i64::MAX),
            port: i32::from(address(node).port()),
            secure_port: -1,
            udp_port: -1,
            host: &[127, 0, 0, 1],
            command,
            domain: b"",
            unique_id: &self.unique_id,
            payload: b"",
        }
        .encode(&mut package);
        package
    }
}

fn batch(bytes: &[u8]) -> SendBatch {
    SendBatch { segments: vec![Buffer::copy_of(bytes).into()], skip_bytes: 0 }
}

/// What became of the message that is being sent.
enum Fate {
    Done,
    Failed(Status),
    /// Once more on a new connection.
    Again(Status),
}

impl World {
    pub(super) fn start_stock(&mut self, node: usize, life: u32) {
        let unique_id = self.random.id();
        self.stocks[node] = Some(Stock {
            life,
            unique_id,
            started: self.now,
            next_heartbeat: self.now,
            members: BTreeMap::new(),
            inbound: BTreeMap::new(),
            outbound: None,
            next_request: 0,
        });
        self.at(self.now, Happening::Stock { node, life });
    }

    pub(super) fn stock_datagram(&mut self, node: usize, bytes: &[u8]) {
        let now = self.now;
        let Some(stock) = self.stocks[node].as_mut() else { return };
        let Ok(Datagram::Member(member, _)) = decode_datagram(bytes, &Limits::default()) else {
            return;
        };
        let of = usize::try_from(member.port - 4000).unwrap_or(0);
        if member.command == SHUTDOWN_COMMAND {
            stock.members.remove(&of);
        } else if of != node {
            stock.members.insert(of, now);
        }
    }

    /// Its timer: heartbeats, silence, and the next message.
    pub(super) fn stock_turn(&mut self, node: usize, life: u32) {
        let now = self.now;
        let scene = self.plan.scene;
        let gap_ns = (scene.submit_gap_us * 2_000).min(scene.frequency_ms * MS / 2);
        let Some(stock) = self.stocks[node].as_mut().filter(|stock| stock.life == life) else {
            return;
        };
        let drop_ns = scene.drop_time_ms * MS;
        stock.members.retain(|_, heard| now - *heard < drop_ns);
        let beats = stock.next_heartbeat <= now;
        if beats {
            stock.next_heartbeat = now + scene.frequency_ms * MS;
            let package = stock.package(node, now, b"");
            self.send_datagram(node, &package.into());
        }
        let stock = self.stocks[node].as_mut();
        if stock.is_some_and(|stock| {
            stock.outbound.as_ref().is_some_and(|outbound| outbound.until <= now)
        }) {
            // Silence: no second try.
            self.stock_fate(node, Fate::Failed(Status::Timeout));
        }
        self.stock_submits(node);
        self.soon(gap_ns / 2, gap_ns, Happening::Stock { node, life });
    }

    fn stock_submits(&mut self, node: usize) {
        let now = self.now;
        if now > self.storm_ns() {
            return;
        }
        let Some(stock) = self.stocks[node].as_ref() else { return };
        let members: Vec<usize> = stock.members.keys().copied().collect();
        if stock.outbound.is_some() || members.is_empty() {
            return;
        }
        let to = members[self.random.index(members.len())];
        let (mode, options) = match self.random.below(3) {
            0 => (AckMode::Applied, USE_ACK | SYNCHRONIZED_ACK),
            1 => (AckMode::Received, USE_ACK),
            _ => (AckMode::None, ASYNCHRONOUS),
        };
        let bytes = self.random.index(3_000);
        let number = self.next_message;
        self.next_message += 1;
        let mut unique_id = self.random.id();
        unique_id[8..].copy_from_slice(&number.to_be_bytes());
        let package = stock.package(node, now, b"");
        let mut frame = Vec::new();
        encode_data_head(&mut frame, options | BYTE_MESSAGE, 0, &unique_id, &package, bytes);
        frame.resize(frame.len() + bytes, fill(number));
        frame.extend_from_slice(&FOOTER);
        let life = stock.life;
        let what = format_args!("stock message {number} to {to}: {bytes} bytes, {mode:?}");
        self.trace.say(now, node, life, what);
        self.checker.submitted(Submitted {
            from: (node, life),
            key: None,
            mode,
            kind: Kind::Plain,
            bytes,
            to: vec![(to, 0)],
            at: now,
            done: false,
            failed: Vec::new(),
            failed_at: 0,
            taken: Vec::new(),
        });
        let until = now + self.plan.scene.ack_timeout_ms * MS;
        if let Some(stock) = self.stocks[node].as_mut() {
            stock.outbound = Some(Outbound {
                number,
                to,
                frame,
                wants_ack: mode != AckMode::None,
                sent: false,
                tries_count: 0,
                until,
                request: None,
                conn: None,
                read: Vec::new(),
            });
        }
        self.stock_connects(node);
    }

    fn stock_connects(&mut self, node: usize) {
        let Some(stock) = self.stocks[node].as_mut() else { return };
        let place = Place { node, life: stock.life, worker: 0 };
        let Some(outbound) = stock.outbound.as_mut() else { return };
        stock.next_request += 1;
        let request = stock.next_request;
        outbound.request = Some(request);
        outbound.sent = false;
        outbound.read.clear();
        let (address, timeout_ms) = (address(outbound.to), 1_000);
        self.effects.push(Effect::Connect { from: place, request, address, timeout_ms });
    }

    fn stock_fate(&mut self, node: usize, fate: Fate) {
        let Some(stock) = self.stocks[node].as_mut() else { return };
        let place = Place { node, life: stock.life, worker: 0 };
        let Some(outbound) = stock.outbound.as_mut() else { return };
        let conn = outbound.conn.take();
        outbound.request = None;
        let (number, to) = (outbound.number, outbound.to);
        let again = matches!(fate, Fate::Again(_)) && outbound.tries_count == 0;
        outbound.tries_count += 1;
        if !again {
            stock.outbound = None;
        }
        if let Some(conn) = conn {
            let call = Call {
                now: self.now,
                random: &mut self.random,
                faults: &self.faults,
                effects: &mut self.effects,
            };
            let clock = Clock::new(0, 1_000);
            SimIo { net: &mut self.net, call, place, clock }.close(conn, false);
        }
        if again {
            self.stock_connects(node);
            return;
        }
        let failures = match fate {
            Fate::Done => Vec::new(),
            Fate::Failed(status) | Fate::Again(status) => vec![(to, status)],
        };
        let what = format_args!("stock message {number} completes, failed at {failures:?}");
        self.trace.say(self.now, node, place.life, what);
        self.checker.completed(number, &failures, self.now);
    }

    pub(super) fn stock_event(&mut self, place: Place, what: Occurrence) {
        let node = place.node;
        let is_there = self.stocks[node].as_ref().is_some_and(|stock| stock.life == place.life);
        let Some(mut stock) = self.stocks[node].take_if(|_| is_there) else { return };
        let call = Call {
            now: self.now,
            random: &mut self.random,
            faults: &self.faults,
            effects: &mut self.effects,
        };
        let mut io = SimIo { net: &mut self.net, call, place, clock: Clock::new(0, 1_000) };
        let mut fate = None;
        match what {
            Occurrence::Accepted { conn, .. } => {
                stock.inbound.insert(conn, Inbound::default());
                io.arm_receive(conn);
            }
            Occurrence::Connected { request, conn } => {
                match stock.outbound.as_mut().filter(|out| out.request == Some(request)) {
                    Some(outbound) => {
                        outbound.conn = Some(conn);
                        io.arm_receive(conn);
                        io.send(conn, batch(&outbound.frame));
                    }
                    None => io.close(conn, false),
                }
            }
            Occurrence::ConnectFailed { request, .. } => {
                let is_it = |out: &Outbound| out.request == Some(request);
                if stock.outbound.as_ref().is_some_and(is_it) {
                    fate = Some(Fate::Again(Status::Unreachable));
                }
            }
            Occurrence::Sent { conn, mut batch, result } => {
                io.net.send_reported(place, conn);
                let outbound = stock.outbound.as_mut().filter(|out| out.conn == Some(conn));
                match (result, outbound) {
                    (Ok(bytes), outbound) => {
                        if batch.advance(bytes) {
                            if outbound.is_some() || stock.inbound.contains_key(&conn) {
                                io.send(conn, batch);
                            }
                        } else if let Some(outbound) = outbound {
                            outbound.sent = true;
                            if !outbound.wants_ack {
                                fate = Some(Fate::Done);
                            }
                        } else if let Some(inbound) = stock.inbound.get_mut(&conn) {
                            inbound.sending = false;
                            answer(conn, inbound, &mut io);
                        }
                    }
                    (Err(_), Some(_)) => fate = Some(Fate::Again(Status::Unreachable)),
                    (Err(_), None) => {
                        if stock.inbound.remove(&conn).is_some() {
                            io.close(conn, true);
                        }
                    }
                }
            }
            Occurrence::Readable { conn } => match io.net.read(place, conn, &mut io.call) {
                None => {}
                Some(Ok(bytes)) => {
                    if let Some(outbound) =
                        stock.outbound.as_mut().filter(|out| out.conn == Some(conn))
                    {
                        outbound.read.extend_from_slice(&bytes);
                        if outbound.read.starts_with(&ACK) {
                            fate = Some(Fate::Done);
                        } else if outbound.read.starts_with(&FAIL_ACK) {
                            fate = Some(Fate::Again(Status::RemoteFailed));
                        }
                    } else if let Some(inbound) = stock.inbound.get_mut(&conn) {
                        inbound.read.extend_from_slice(&bytes);
                        let taken = take_frames(inbound, &mut io, &mut self.checker);
                        for number in taken {
                            let what = format_args!("stock: message {number} is delivered");
                            self.trace.say(self.now, node, place.life, what);
                        }
                        answer(conn, inbound, &mut io);
                    }
                }
                Some(Err(_)) => {
                    if stock.outbound.as_ref().is_some_and(|out| out.conn == Some(conn)) {
                        fate = Some(Fate::Again(Status::Unreachable));
                    } else if stock.inbound.remove(&conn).is_some() {
                        io.close(conn, false);
                    }
                }
            },
            Occurrence::Closed { conn } => {
                io.net.forget(place, conn);
                stock.inbound.remove(&conn);
            }
            Occurrence::HandedOver { .. } | Occurrence::Paused { .. } => {}
        }
        self.stocks[node] = Some(stock);
        if let Some(fate) = fate {
            self.stock_fate(node, fate);
        }
    }
}

/// Takes the messages that are whole: their listener returns at once.
fn take_frames(inbound: &mut Inbound, io: &mut SimIo<'_>, checker: &mut Checker) -> Vec<u64> {
    let mut taken = Vec::new();
    let mut passed_bytes = 0;
    let at = (io.place.node, io.place.life);
    let now = io.call.now;
    while let Ok(Step::Frame { frame, consumed_bytes }) =
        decode_frame(&inbound.read[passed_bytes..], &Limits::default())
    {
        passed_bytes += consumed_bytes;
        let Frame::Data(data) = frame else { continue };
        let mut is_good = true;
        if data.message != TCP_FAILURE_DETECTOR_MAGIC {
            let number = number_of(&data);
            taken.push(number);
            let intact = checker
                .message(number)
                .is_none_or(|sent| is_intact(data.message, number, sent.bytes, sent.key.is_some()));
            checker.delivered(at, number, intact, now);
            let synchronous = data.options & SYNCHRONIZED_ACK != 0;
            is_good = !(synchronous && io.call.random.chance(io.call.faults.fail_listener));
            if is_good {
                checker.accepted(at, number, now);
            }
        }
        let silent = io.call.random.chance(io.call.faults.stock_silence);
        if data.options & USE_ACK != 0 && !silent {
            inbound.answers.extend_from_slice(if is_good { &ACK } else { &FAIL_ACK });
        }
        inbound.closes |= io.call.random.chance(io.call.faults.stock_close);
    }
    inbound.read.drain(..passed_bytes);
    taken
}

fn answer(conn: ConnId, inbound: &mut Inbound, io: &mut SimIo<'_>) {
    if inbound.sending {
        return;
    }
    if !inbound.answers.is_empty() {
        inbound.sending = true;
        let answers = std::mem::take(&mut inbound.answers);
        io.send(conn, batch(&answers));
    } else if inbound.closes {
        io.close(conn, false);
    }
}

fn number_of(data: &ChannelData<'_>) -> u64 {
    let mut number = [0; 8];
    if let Some(id) = data.unique_id.get(8..16) {
        number.copy_from_slice(id);
    }
    u64::from_be_bytes(number)
}
