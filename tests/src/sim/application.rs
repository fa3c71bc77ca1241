//! The applications of a simulated cluster: they send, take what comes, and run listeners.

use std::sync::Arc;

use ringtribe::delivery::{Delivery, Polled, PollerClass};
use ringtribe::event::Event;
use ringtribe::ids::{Instant, Key, MemberId};
use ringtribe::message::{AckMode, Waiter};
use ringtribe::status::Status;
use ringtribe::submit::Envelope;
use ringtribe_wire::tribes::options::{ASYNCHRONOUS, BYTE_MESSAGE, SYNCHRONIZED_ACK, USE_ACK};

use super::check::Submitted;
use super::{ACK_TIMEOUT_MS, Happening, KEYS_COUNT, MS, POLLERS_COUNT, STORM_NS, World, node_of};

/// What makes a Tribes receiver keep the order: the front of a serialized session message.
const SESSION: &[u8] = include_bytes!("../../../wire/testdata/java/session-delta.bin");

impl World {
    /// The application takes what is there, and starts listeners if it has pollers left.
    pub(super) fn poll(&mut self, node: usize, life: u32) {
        let now = self.now;
        let Some(running) = self.nodes[node].as_mut().filter(|running| running.life == life) else {
            return;
        };
        let mut taken = Vec::new();
        let deliveries = Arc::clone(&running.shared.deliveries);
        while deliveries.try_poll(PollerClass::Reserved, 1 << 30, 8, &mut taken).is_some() {}
        while running.listeners.len() < POLLERS_COUNT {
            let before = taken.len();
            if deliveries.try_poll(PollerClass::General, 1 << 30, 8, &mut taken).is_none() {
                break;
            }
            let batch: Vec<Delivery> = taken
                .drain(before..)
                .filter_map(|polled| match polled {
                    Polled::Message(delivery) => Some(delivery),
                    Polled::Event(_) => None,
                })
                .collect();
            for delivery in &batch {
                let payload = delivery.incoming().payload();
                self.checker.delivered((node, life), message_number(payload), now);
            }
            let listener = self.next_listener;
            self.next_listener += 1;
            running.listeners.insert(listener, batch);
            let slow = self.random.chance(20);
            let takes = self.random.between(1_000, if slow { 80 * MS } else { 300_000 });
            let id = self.next_happening;
            self.next_happening += 1;
            self.happenings.insert(id, Happening::ListenerEnds { node, life, listener });
            self.queue.push(std::cmp::Reverse((now + takes, id)));
        }
        for polled in taken {
            if let Polled::Event(event) = polled {
                self.event(node, event);
            }
        }
        self.soon(20_000, 2 * MS, Happening::Poll { node, life });
    }

    fn event(&mut self, node: usize, event: Event) {
        let Some(running) = self.nodes[node].as_mut() else { return };
        match event {
            Event::MemberAdded { member, .. } => {
                if let Some(entry) = running.shared.directory.get(member) {
                    running.members.insert(member, node_of(entry.address));
                }
            }
            Event::Completed { token, failures } => {
                let members = &running.members;
                let failures: Vec<(usize, Status)> = failures
                    .iter()
                    .filter_map(|(member, status)| Some((*members.get(member)?, *status)))
                    .collect();
                self.checker.completed(token, &failures);
            }
            Event::Gap { member, here, .. } => {
                if let Some(of) = running.members.get(&member) {
                    self.checker.gap((node, running.life), *of, here);
                }
                running.shared.repaired(member);
            }
            _ => {}
        }
    }

    pub(super) fn listener_ends(&mut self, node: usize, life: u32, listener: u64) {
        let fail = self.faults.fail_listener;
        let Some(running) = self.nodes[node].as_mut().filter(|running| running.life == life) else {
            return;
        };
        for delivery in running.listeners.remove(&listener).unwrap_or_default() {
            let is_accepted = !self.random.chance(fail);
            let number = message_number(delivery.incoming().payload());
            self.checker.listened((node, life), number, is_accepted);
            delivery.complete(if is_accepted { Status::Ok } else { Status::RemoteFailed });
        }
    }

    pub(super) fn submit(&mut self, node: usize, life: u32) {
        if self.now > STORM_NS {
            return;
        }
        let now = self.now;
        self.soon(100_000, 20 * MS, Happening::Submit { node, life });
        let random = &mut self.random;
        let Some(running) = self.nodes[node].as_mut().filter(|running| running.life == life) else {
            return;
        };
        let members: Vec<MemberId> =
            running.shared.directory.entries().iter().map(|entry| entry.id).collect();
        let known: Option<Vec<usize>> =
            members.iter().map(|member| running.members.get(member).copied()).collect();
        // A member whose announcement the application has not taken yet is not addressed.
        let Some(to) = known.filter(|to| !to.is_empty()) else { return };
        let number = self.next_message;
        self.next_message += 1;
        let key = random.chance(800).then(|| random.below(KEYS_COUNT));
        let (mode, mut options) = match random.below(10) {
            0..=3 => (AckMode::Applied, USE_ACK | SYNCHRONIZED_ACK),
            4..=5 => (AckMode::Received, USE_ACK),
            _ => (AckMode::None, ASYNCHRONOUS),
        };
        let filler_bytes = match random.below(20) {
            0 => random.below(100_000),
            1..=4 => random.below(20_000),
            _ => random.below(300),
        };
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(8 + usize::try_from(filler_bytes).unwrap_or(0), 7);
        if key.is_some() {
            payload.splice(0..0, SESSION.iter().copied());
        } else {
            options |= BYTE_MESSAGE;
        }
        let envelope = Envelope { options, timestamp_ms: 0, unique_id: random.id() };
        let Ok(mut builder) = running.shared.compose(payload.len(), &envelope) else { return };
        builder.payload_mut().copy_from_slice(&payload);
        let deadline = Instant(now).plus_ms(ACK_TIMEOUT_MS);
        let engine_key = key.map(|key| Key::of(&key.to_be_bytes()));
        let waiter = Waiter::Token(number);
        let failed = Vec::new();
        let message = Submitted { from: (node, life), key, mode, to, at: now, done: false, failed };
        if let Some(record) = &mut self.checker.record {
            let life = |member| record.life(running.shared.directory.get(member)?.boot_id());
            let lives: Vec<Option<u32>> = members.iter().map(|member| life(*member)).collect();
            record.submitted(number, &message, &lives);
        }
        self.checker.submitted(number, message);
        let routed = running.shared.route(builder, engine_key, false, &members, deadline, waiter);
        match routed.try_admit() {
            Ok(tokens) => running.shared.dispatch(routed, tokens),
            // A caller would wait for room; this one gives up at once.
            Err(_) => {
                for (index, _) in &routed.live {
                    running.shared.complete(&routed.message, *index, Status::QueueFull);
                }
            }
        }
    }
}

fn message_number(payload: &[u8]) -> u64 {
    let rest = payload.strip_prefix(SESSION).unwrap_or(payload);
    let mut number = [0; 8];
    let length = rest.len().min(8);
    number[..length].copy_from_slice(&rest[..length]);
    u64::from_be_bytes(number)
}
