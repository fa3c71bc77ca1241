//! The applications of a simulated cluster: they send, take what comes, run listeners, answer, and
//! wait for answers.

use ringtribe::delivery::{Delivery, Polled, PollerClass};
use ringtribe::directory::Identity;
use ringtribe::event::Event;
use ringtribe::ids::{Instant, Key, MemberId};
use ringtribe::message::{AckMode, Waiter};
use ringtribe::status::Status;
use ringtribe::submit::Envelope;
use ringtribe_wire::tribes::Member;
use ringtribe_wire::tribes::options::{ASYNCHRONOUS, BYTE_MESSAGE, SYNCHRONIZED_ACK, USE_ACK};

use super::check::{Kind, Submitted};
use super::node::{Leaving, Listener};
use super::*;

/// What makes a Tribes receiver keep the order: the front of a serialized session message.
const SESSION: &[u8] = include_bytes!("../../../wire/testdata/java/session-delta.bin");
/// Longest wait of a listener for a reply.
const REPLY_WAIT_NS: u64 = 300 * MS;

/// What a receiver says that gave up a message of which a part came, since its sender stayed away for
/// ackTimeout.
const GIVEN_UP: &str = "a message that was half here was given up";

/// A message that is to be sent.
struct Outgoing {
    key: Option<u64>,
    mode: AckMode,
    kind: Kind,
    bytes: usize,
    to: Vec<MemberId>,
}

impl World {
    /// Has the application look for what is there.
    pub(super) fn poll_soon(&mut self, node: usize) {
        let Some(running) = self.nodes[node].as_mut() else { return };
        if running.poll_at.is_none() {
            let at = self.now + self.random.between(1_000, MS);
            running.poll_at = Some(at);
            let life = running.life;
            self.at(at, Happening::Poll { node, life });
        }
    }

    /// The application takes what is there, and starts listeners if it has pollers left.
    pub(super) fn poll(&mut self, node: usize, life: u32) {
        let now = self.now;
        let Some(running) = self.node(node, life) else { return };
        if running.poll_at != Some(now) {
            return;
        }
        running.poll_at = None;
        self.take_events(node, life);
        let pollers = usize::try_from(self.plan.scene.pollers).unwrap_or(1);
        let mut taken = Vec::new();
        let hangs = self.spots[node].hangs_until > now;
        while let Some(running) = self.node(node, life)
            && running.listeners.len() < pollers
            && !hangs
        {
            let deliveries = Arc::clone(&running.shared.deliveries);
            let shown = Instant(running.clock.shows(now));
            if deliveries.try_poll(PollerClass::General, 1 << 30, 8, shown, &mut taken).is_none() {
                break;
            }
            let deliveries: Vec<Delivery> = taken
                .drain(..)
                .filter_map(|polled| match polled {
                    Polled::Message(delivery) => Some(delivery),
                    Polled::Event(_) => None,
                })
                .collect();
            for delivery in &deliveries {
                self.delivered((node, life), delivery);
            }
            let slow = self.random.chance(self.faults.slow_listener);
            let takes = self.random.between(1_000, if slow { 80 * MS } else { 300_000 });
            let listener = self.next_listener;
            self.next_listener += 1;
            if let Some(running) = self.node(node, life) {
                let until = now + takes;
                let entry = Listener { deliveries, waits_for: None, until };
                running.listeners.insert(listener, entry);
            }
            self.at(now + takes, Happening::ListenerEnds { node, life, listener });
        }
        self.judge_bounds(node);
    }

    /// Takes replies and events, which no listener may keep waiting.
    pub(super) fn take_events(&mut self, node: usize, life: u32) {
        let mut taken = Vec::new();
        let now = self.now;
        let Some(running) = self.node(node, life) else { return };
        let deliveries = Arc::clone(&running.shared.deliveries);
        let shown = Instant(running.clock.shows(now));
        while deliveries.try_poll(PollerClass::Reserved, 1 << 30, 8, shown, &mut taken).is_some() {
            for polled in taken.drain(..) {
                match polled {
                    Polled::Event(event) => self.event(node, life, event),
                    Polled::Message(delivery) => {
                        self.delivered((node, life), &delivery);
                        let number = number_of(&delivery);
                        self.checker.accepted((node, life), number, self.now);
                        delivery.complete(Status::Ok);
                        self.replied(node, number);
                    }
                }
            }
        }
        self.look_for_answers(node, life);
    }

    fn delivered(&mut self, at: Life, delivery: &Delivery) {
        let number = number_of(delivery);
        let payload = delivery.incoming().payload();
        let intact = self
            .checker
            .message(number)
            .is_none_or(|sent| is_intact(payload, number, sent.bytes, sent.key.is_some()));
        let what = format_args!("message {number} is delivered, {} bytes", payload.len());
        self.trace.say(self.now, at.0, at.1, what);
        self.checker.delivered(at, number, intact, self.now);
    }

    /// A reply came: who waits for it goes on.
    fn replied(&mut self, node: usize, number: u64) {
        let Some(Kind::Reply(request)) = self.checker.message(number).map(|reply| reply.kind)
        else {
            return;
        };
        let Some(running) = self.nodes[node].as_mut() else { return };
        let life = running.life;
        let waiting =
            running.listeners.iter_mut().find(|(_, listener)| listener.waits_for == Some(request));
        if let Some((id, listener)) = waiting {
            let id = *id;
            listener.until = self.now + 1_000;
            let at = listener.until;
            self.at(at, Happening::ListenerEnds { node, life, listener: id });
        }
    }

    fn event(&mut self, node: usize, life: u32, event: Event) {
        let now = self.now;
        let Some(running) = self.nodes[node].as_mut() else { return };
        match event {
            Event::MemberAdded { member, .. } => {
                let Some(entry) = running.shared.directory.get(member) else { return };
                let of = node_of(entry.address);
                running.members.insert(member, of);
                self.trace.say(now, node, life, format_args!("sees node {of}"));
                let lives = entry.boot_id().and_then(|boot_id| self.boots.get(&boot_id));
                if let Some(of) = lives {
                    self.checker.seen((node, life), *of, now);
                }
            }
            Event::MemberGone { member, cause, .. } => {
                let Some(of) = running.members.remove(&member) else { return };
                self.trace.say(now, node, life, format_args!("drops node {of}: {cause}"));
                let is_troubled = |node: usize| self.spots[node].troubled_until > now;
                let excused = is_troubled(node) || is_troubled(of);
                self.checker.member_gone((node, life), of, cause, excused);
            }
            Event::Completed { token, failures } => {
                let failures: Vec<(usize, Status)> = failures
                    .iter()
                    .filter_map(|(member, status)| Some((self.place_of(token, *member)?, *status)))
                    .collect();
                let what = format_args!("message {token} completes, failed at {failures:?}");
                self.trace.say(now, node, life, what);
                self.checker.completed(token, &failures, now);
            }
            Event::Gap { member, here, messages_count } => {
                let shared = Arc::clone(&running.shared);
                let entry = shared.directory.get(member);
                if let Some(of) = entry.map(|entry| node_of(entry.address)) {
                    let side = if here { "of" } else { "at" };
                    let what = format_args!("gap: {messages_count} missed {side} node {of}");
                    self.trace.say(now, node, life, what);
                    self.checker.gap((node, life), of, here);
                }
                shared.repaired(member);
            }
            Event::Log { text, .. } => {
                self.trace.say(now, node, life, format_args!("log: {text}"));
                if text.contains(GIVEN_UP) {
                    // Losses kept the sender away for ackTimeout: the epoch has to end.
                    self.trouble(node, now);
                }
            }
            Event::MemberChanged { .. } => {}
        }
    }

    /// Which node a handle named when a message was sent.
    fn place_of(&self, number: u64, member: MemberId) -> Option<usize> {
        let addressed = self.addressed.get(&number)?;
        addressed.iter().find(|(id, _)| *id == member).map(|(_, node)| *node)
    }

    pub(super) fn listener_ends(&mut self, node: usize, life: u32, listener: u64) {
        let now = self.now;
        let (fail, waits) = (self.faults.fail_listener, self.plan.scene.waiting_listeners);
        let hangs_until = self.spots[node].hangs_until;
        let Some(running) = self.node(node, life) else { return };
        let Some(entry) = running.listeners.get_mut(&listener).filter(|entry| entry.until <= now)
        else {
            return;
        };
        if hangs_until > now {
            entry.until = hangs_until;
            self.at(hangs_until, Happening::ListenerEnds { node, life, listener });
            return;
        }
        if entry.waits_for.is_none() && !self.calm && self.random.chance(waits) {
            self.ask_somebody(node, life, listener);
            return;
        }
        let Some(running) = self.node(node, life) else { return };
        let Some(entry) = running.listeners.remove(&listener) else { return };
        for delivery in entry.deliveries {
            let number = number_of(&delivery);
            if self.random.chance(fail) {
                self.trace.say(now, node, life, format_args!("the listener of {number} fails"));
                delivery.complete(Status::RemoteFailed);
                continue;
            }
            self.checker.accepted((node, life), number, now);
            let is_request =
                self.checker.message(number).is_some_and(|sent| sent.kind == Kind::Request);
            let sender = Arc::clone(&delivery.incoming().sender);
            if self.random.chance(500) {
                delivery.complete(Status::Ok);
                self.reply(node, life, number, is_request, &sender);
            } else {
                self.reply(node, life, number, is_request, &sender);
                delivery.complete(Status::Ok);
            }
            // Where replies have no lane of their own.
            self.replied(node, number);
        }
        self.poll_soon(node);
    }

    fn reply(&mut self, node: usize, life: u32, request: u64, is_request: bool, sender: &[u8]) {
        let Some(running) = self.node(node, life).filter(|_| is_request) else { return };
        let limits = ringtribe_wire::Limits::default();
        let Ok((member, _)) = Member::decode(sender, &limits) else { return };
        let Some(to) = running.shared.directory.find(&Identity::of(&member)) else { return };
        if !running.members.contains_key(&to.id) {
            return;
        }
        let mode = [AckMode::Applied, AckMode::Received, AckMode::None][self.random.index(3)];
        let bytes = self.random.index(200);
        let kind = Kind::Reply(request);
        self.send(node, life, Outgoing { key: None, mode, kind, bytes, to: vec![to.id] });
    }

    /// A listener asks another member and waits for the reply.
    fn ask_somebody(&mut self, node: usize, life: u32, listener: u64) {
        let until = self.now + REPLY_WAIT_NS;
        let Some(running) = self.nodes[node].as_ref() else { return };
        let members: Vec<MemberId> = running.members.keys().copied().collect();
        let mut waits_for = Some(u64::MAX);
        if !members.is_empty() {
            let to = vec![members[self.random.index(members.len())]];
            let (mode, kind) = (AckMode::Received, Kind::Request);
            waits_for = Some(self.next_message);
            self.send(node, life, Outgoing { key: None, mode, kind, bytes: 40, to });
        }
        let Some(running) = self.node(node, life) else { return };
        if let Some(entry) = running.listeners.get_mut(&listener) {
            entry.waits_for = waits_for;
            entry.until = until;
        }
        self.at(until, Happening::ListenerEnds { node, life, listener });
    }

    pub(super) fn submit(&mut self, node: usize, life: u32) {
        if self.now > self.storm_ns() || self.node(node, life).is_none() {
            return;
        }
        let scene = self.plan.scene;
        let gap_ns = scene.submit_gap_us * 1_000;
        // Often in bursts.
        let burst = self.random.chance(100);
        let gap_ns = self.random.between(0, 2 * gap_ns);
        let times = if burst { self.random.between(2, 12) } else { 1 };
        self.at(self.now + gap_ns * times + 1, Happening::Submit { node, life });
        for _ in 0..times {
            self.submit_one(node, life);
        }
    }

    fn submit_one(&mut self, node: usize, life: u32) {
        let scene = self.plan.scene;
        let Some(running) = self.nodes[node].as_ref() else { return };
        let mut to: Vec<MemberId> = running.members.keys().copied().collect();
        let random = &mut self.random;
        if random.chance(300) {
            // To some of them.
            to.retain(|_| random.chance(500));
        }
        if to.is_empty() || running.leaving != Leaving::No {
            return;
        }
        let hot = random.below(scene.keys.max(1)).min(random.below(scene.keys.max(1)));
        let key = random.chance(800).then_some(hot);
        let mode = match random.below(10) {
            0..=3 => AckMode::Applied,
            4..=5 => AckMode::Received,
            _ => AckMode::None,
        };
        let most = scene.max_message_bytes.min(scene.long_bytes);
        let filler_bytes = match random.below(1_000) {
            0..=4 => scene.max_message_bytes.min(scene.long_bytes * 2),
            draw if draw < scene.long => random.below(most + 1),
            draw if draw < 500 => random.below(2_000),
            _ => random.below(200),
        };
        let front_bytes = if key.is_some() { SESSION.len() } else { 0 };
        let filler_bytes = usize::try_from(filler_bytes).unwrap_or(0);
        let most = usize::try_from(scene.max_message_bytes).unwrap_or(0);
        let bytes = (front_bytes + filler_bytes).min(most);
        let request = random.chance(scene.requests);
        let kind = if request { Kind::Request } else { Kind::Plain };
        self.send(node, life, Outgoing { key, mode, kind, bytes, to });
    }

    /// Everyone sends to everyone.
    pub(super) fn last_round(&mut self) {
        for node in 0..self.nodes.len() {
            let Some(running) = &self.nodes[node] else { continue };
            let life = running.life;
            let to: Vec<MemberId> = running.members.keys().copied().collect();
            if !to.is_empty() {
                let (mode, kind) = (AckMode::Applied, Kind::Last);
                let key = Some(0);
                let bytes = SESSION.len() + 10;
                self.send(node, life, Outgoing { key, mode, kind, bytes, to });
            }
        }
    }

    fn send(&mut self, node: usize, life: u32, outgoing: Outgoing) {
        let now = self.now;
        let Outgoing { key, mode, kind, bytes, to: members } = outgoing;
        let number = self.next_message;
        let options = match mode {
            AckMode::Applied => USE_ACK | SYNCHRONIZED_ACK,
            AckMode::Received => USE_ACK,
            AckMode::None => ASYNCHRONOUS,
        };
        let options = if key.is_some() { options } else { options | BYTE_MESSAGE };
        let mut unique_id = self.random.id();
        unique_id[8..].copy_from_slice(&number.to_be_bytes());
        let Some(running) = self.nodes[node].as_ref().filter(|running| running.life == life) else {
            return;
        };
        let shared = Arc::clone(&running.shared);
        let envelope = Envelope { options, timestamp_ms: 0, unique_id };
        let most = shared.bounds.max_message_bytes;
        let too_big = shared.compose(most + 1, &envelope).err();
        self.checker.require(
            too_big == Some(Status::TooBig),
            "queues stay inside their bounds: a message longer than maxMessageBytes was taken",
        );
        let Ok(mut builder) = shared.compose(bytes, &envelope) else { return };
        self.next_message += 1;
        let payload = builder.payload_mut();
        payload.fill(fill(number));
        if key.is_some() {
            payload[..SESSION.len()].copy_from_slice(SESSION);
        }
        let addressed: Vec<(MemberId, usize)> = members
            .iter()
            .filter_map(|member| Some((*member, *running.members.get(member)?)))
            .collect();
        let to = addressed
            .iter()
            .map(|(member, place)| {
                let boot_id = shared.directory.get(*member).and_then(|entry| entry.boot_id());
                let life = boot_id.and_then(|boot_id| self.boots.get(&boot_id));
                life.map_or((*place, 0), |life| *life)
            })
            .collect();
        let at = Instant(running.clock.shows(now));
        let deadline = at.plus_ms(shared.bounds.ack_timeout_ms);
        let what = format_args!(
            "message {number} to {to:?}: {bytes} bytes, key {key:?}, {mode:?}, {kind:?}"
        );
        self.trace.say(now, node, life, what);
        self.addressed.insert(number, addressed);
        self.checker.submitted(Submitted {
            from: (node, life),
            key,
            mode,
            kind,
            bytes,
            to,
            at: now,
            done: false,
            failed: Vec::new(),
            failed_at: 0,
            taken: Vec::new(),
        });
        let key = key.map(|key| Key::of(&key.to_be_bytes()));
        let is_reply = matches!(kind, Kind::Reply(_));
        let waiter = Waiter::Token(number);
        let mut routed = shared.route(builder, key, is_reply, &members, deadline, waiter);
        // A caller would wait for room; this one has waited already.
        let tokens = routed.admit(&shared, std::time::Instant::now());
        shared.dispatch(routed, tokens);
        self.poll_soon(node);
    }

    /// A node that started asks the members that it sees for the join barrier.
    pub(super) fn join(&mut self, node: usize, life: u32) {
        let Some(running) = self.nodes[node].as_mut().filter(|running| running.life == life) else {
            return;
        };
        if running.members.is_empty() {
            self.soon(20 * MS, 100 * MS, Happening::Join { node, life });
            return;
        }
        for (member, question) in running.shared.ask_join() {
            let boot_id = running.shared.directory.get(member).and_then(|entry| entry.boot_id());
            if let Some(of) = boot_id.and_then(|boot_id| self.boots.get(&boot_id)) {
                running.asked.push((member, question, *of));
            }
        }
    }

    fn look_for_answers(&mut self, node: usize, life: u32) {
        let now = self.now;
        let Some(running) = self.nodes[node].as_mut().filter(|running| running.life == life) else {
            return;
        };
        let shared = Arc::clone(&running.shared);
        running.asked.retain(|(member, question, of)| {
            let open = shared.is_join_open(*question);
            if !open && shared.directory.get(*member).is_some() {
                self.trace.say(now, node, life, format_args!("the join barrier of {of:?} is over"));
                self.checker.barrier((node, life), *of, now);
            }
            open
        });
    }

    /// Looks at the queues of a node.
    fn judge_bounds(&mut self, node: usize) {
        let scene = self.plan.scene;
        let Some(running) = &self.nodes[node] else { return };
        // One more message may enter as long as there is room at all.
        let most = scene.max_queue_bytes + scene.max_message_bytes + 4_096;
        let queued = |entry: Arc<ringtribe::directory::MemberEntry>| {
            entry.budget.used_and_most_bytes().1 as u64
        };
        let queued = running.shared.directory.entries().into_iter().map(queued).max();
        let waiting = self.checker.waiting_bytes((node, running.life));
        self.checker.require(
            waiting <= most,
            &format!("queues stay inside their bounds: {waiting} bytes wait, {most} at most"),
        );
        let received = running.shared.deliveries.used_bytes() as u64;
        // Each stream has a window of at least 256 KiB; Tribes connections stop when it is over.
        let streams = scene.members * (scene.workers + 1);
        let most_received =
            2 * scene.max_receive_bytes + streams * (256 << 10) + 4 * scene.max_message_bytes;
        self.checker.require(
            queued.unwrap_or(0) <= most,
            &format!("queues stay inside their bounds: {queued:?} bytes queued, {most} at most"),
        );
        self.checker.require(
            received <= most_received,
            &format!(
                "queues stay inside their bounds: {received} bytes received, {most_received} at most"
            ),
        );
    }
}

fn number_of(delivery: &Delivery) -> u64 {
    let id = &delivery.incoming().unique_id;
    u64::from_be_bytes([id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15]])
}

/// What a message is filled with.
pub(super) fn fill(number: u64) -> u8 {
    u8::try_from(number % 251).unwrap_or(0)
}

/// Whether a payload is that of its message.
pub(super) fn is_intact(payload: &[u8], number: u64, bytes: usize, has_key: bool) -> bool {
    let front = if has_key { SESSION } else { b"" };
    let fill = fill(number);
    payload.len() == bytes
        && payload.strip_prefix(front).is_some_and(|rest| rest.iter().all(|byte| *byte == fill))
}
