//! What the member answers: its hello, acknowledgements, outcomes.

use super::*;

impl SendStream {
    /// Bytes came from the member.
    pub(crate) fn received(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        shared: &Shared,
        io: &mut impl Io,
    ) {
        count(&shared.counters.received_bytes, bytes.len() as u64);
        self.partial.extend_from_slice(bytes);
        let mut partial = std::mem::take(&mut self.partial);
        let taken = self.take(conn, &partial, shared, io);
        match taken {
            Ok(taken_bytes) => {
                partial.drain(..taken_bytes);
                self.partial = partial;
            }
            Err(text) => {
                shared.accuse(format_args!("to {}", self.entry.address), &text);
                self.lost(conn, shared, io);
            }
        }
    }

    pub(super) fn take(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        shared: &Shared,
        io: &mut impl Io,
    ) -> Result<usize, String> {
        let mut at = 0;
        if matches!(self.state, State::Greeting { .. }) {
            match decode_hello_ack(bytes).map_err(|error| error.to_string())? {
                None => return Ok(0),
                Some((ack, consumed_bytes)) => {
                    at = consumed_bytes;
                    self.greeted(conn, &ack, shared, io)?;
                }
            }
        }
        while let State::Open { .. } = self.state
            && at < bytes.len()
        {
            match decode(&bytes[at..], MAX_FRAME_BYTES).map_err(|error| error.to_string())? {
                Step::NeedMore { .. } => break,
                Step::Frame { frame, consumed_bytes } => {
                    at += consumed_bytes;
                    self.frame(&frame, shared, io)?;
                }
            }
        }
        Ok(at)
    }

    pub(super) fn greeted(
        &mut self,
        conn: ConnId,
        ack: &native::HelloAck<'_>,
        shared: &Shared,
        io: &mut impl Io,
    ) -> Result<(), String> {
        let status = match ack.status {
            HelloStatus::Ok
                if ack.boot_id != self.expected.0 && !planted!(shared, FormerLifeBelieved) =>
            {
                Status::WrongIncarnation
            }
            HelloStatus::Ok => {
                let held = self.next_sequence - 1 - self.sent.len() as u64;
                if ack.received < held || ack.received >= self.next_sequence {
                    return Err(format!(
                        "a hello answer with received point {} where {held} to {} are possible",
                        ack.received,
                        self.next_sequence - 1
                    ));
                }
                if ack.applied > ack.received {
                    return Err(format!(
                        "a hello answer with {} applied of {} received",
                        ack.applied, ack.received
                    ));
                }
                let now = io.now();
                self.state = State::Open { conn };
                self.back_off.connected(now);
                self.failures_count = 0;
                self.confirm_due = false;
                self.raise_credit(ack.credit);
                self.granted = self.granted.max(ack.granted);
                self.hold_until(ack.received, shared);
                // What failed and is not confirmed lies above this point.
                self.applied_until(ack.applied, shared);
                // The rest goes out again.
                if !self.sent.is_empty() && self.next_write > 0 {
                    count(&shared.counters.resent_count, 1);
                }
                self.next_write =
                    if planted!(shared, ForgottenResend) { self.sent.len() } else { 0 };
                if self.class == LaneClass::Reply {
                    self.echoed = now;
                    self.next_echo = Some(now.plus_ms(shared.bounds.echo_ms));
                    for token in shared.joins.open(self.entry.id) {
                        self.control.extend(Frame::encode_join(token, false));
                    }
                }
                return Ok(());
            }
            HelloStatus::Reset | HelloStatus::OldEpoch => Status::Cut,
            HelloStatus::WrongIncarnation => Status::WrongIncarnation,
            HelloStatus::Closing => Status::Goodbye,
            _ => Status::Protocol,
        };
        count(&shared.counters.refused_hellos_count, 1);
        if status != Status::Goodbye {
            let reason = String::from_utf8_lossy(ack.reason);
            let text = format!(
                "{} refuses our connection ({:?}): {}",
                self.entry.address,
                ack.status,
                reason.escape_debug()
            );
            let level = if status == Status::Protocol { LogLevel::Error } else { LogLevel::Info };
            shared.deliveries.event(Event::Log { level, text });
        }
        io.report(self.entry.id, Evidence::Ended(status));
        self.state = State::Refused;
        io.close(conn, false);
        Ok(())
    }

    pub(super) fn frame(
        &mut self,
        frame: &Frame<'_>,
        shared: &Shared,
        io: &mut impl Io,
    ) -> Result<(), String> {
        match frame {
            Frame::Ack(ack) => self.ack(ack, shared),
            Frame::EchoReply(echo) => {
                self.echoed = io.now();
                io.report(self.entry.id, Evidence::Alive);
                self.entry.set_still_ms(echo.still_ms);
                Ok(())
            }
            Frame::Joined { token } => {
                shared.joins.answered(*token, self.entry.id);
                Ok(())
            }
            Frame::Close(close) if close.code == Status::TooBig.number() => {
                self.too_big(close.sequence, shared);
                Err(String::from_utf8_lossy(close.text).escape_debug().to_string())
            }
            Frame::Close(close) => Err(format!(
                "a close with status {}: {}",
                close.code,
                String::from_utf8_lossy(close.text).escape_debug()
            )),
            Frame::Optional { .. } => Ok(()),
            _ => Err("a frame that belongs on the other direction".into()),
        }
    }

    /// The member takes no message as long as the one that begins behind `received`: it fails by
    /// name, and a gap goes in its place.
    pub(super) fn too_big(&mut self, received: u64, shared: &Shared) {
        let first = self.next_sequence - self.sent.len() as u64;
        let at = received.checked_add(1).and_then(|next| next.checked_sub(first));
        let at = at.and_then(|at| usize::try_from(at).ok());
        let Some(frame) = at.and_then(|at| self.sent.get_mut(at)) else { return };
        let What::Chunk { message, from: 0, to } = frame else { return };
        let Some(Chunked { queued, .. }) =
            self.chunked.take_if(|open| Arc::ptr_eq(&open.queued.message, message))
        else {
            return;
        };
        self.ungranted_since = None;
        let key = Key::to_wire(queued.message.manner.key);
        // The member counts the bytes of what it takes.
        self.end -= (native::DATA_BYTES + *to) as u64 - GAP_BYTES;
        *frame = What::Gap { refused: 1, key, cause: Status::TooBig };
        self.fail(queued, Status::TooBig, shared);
    }

    /// The member's engine holds everything up to `received`: the resend copies go.
    pub(super) fn hold_until(&mut self, received: u64, shared: &Shared) {
        while self.received < received {
            let Some(frame) = self.sent.pop_front() else { break };
            self.received += 1;
            self.next_write = self.next_write.saturating_sub(1);
            let What::Last { queued, .. } = frame else { continue };
            let Queued { message, index, token } = queued;
            token.end(shared);
            let phase = Some(Arc::clone(&message.phase));
            if message.mode == AckMode::Received {
                shared.complete(&message, index, Status::Ok);
            }
            let message = (message.mode == AckMode::Applied).then_some((message, index));
            self.waiting.push_back(Waiting { sequence: self.received, message, phase });
        }
    }

    pub(super) fn ack(&mut self, ack: &Ack<'_>, shared: &Shared) -> Result<(), String> {
        count(&shared.counters.acks_received_count, 1);
        let highest = self.next_sequence - 1 - (self.sent.len() - self.next_write) as u64;
        if ack.received > highest || ack.applied > ack.received {
            return Err(format!(
                "an ack of {} received and {} applied where {highest} were sent",
                ack.received, ack.applied
            ));
        }
        self.hold_until(ack.received, shared);
        for entry in ack.entries() {
            let first = ack.applied.saturating_add(u64::from(entry.offset));
            let status = match entry.status {
                0 => Status::Ok,
                other => Status::from_number(other).unwrap_or(Status::RemoteFailed),
            };
            if !status.is_ok() {
                self.failures_count += u64::from(entry.count);
                self.confirm_due = true;
            }
            self.ended(first, first.saturating_add(u64::from(entry.count)), status, shared);
        }
        self.applied_until(ack.applied, shared);
        while self.waiting.front().is_some_and(|waiting| waiting.phase.is_none()) {
            self.waiting.pop_front();
        }
        self.raise_credit(ack.credit);
        self.granted = self.granted.max(ack.granted);
        Ok(())
    }

    fn raise_credit(&mut self, credit: u64) {
        if credit > self.credit {
            self.ungranted_since = None;
        }
        self.credit = self.credit.max(credit);
        // The credit that a gap frame took comes back with its acknowledgement: that is no progress.
        if self.room() > self.starved_room {
            self.starved_since = None;
        }
    }

    /// What has no other outcome yet was accepted up to `applied`.
    fn applied_until(&mut self, applied: u64, shared: &Shared) {
        if applied > self.applied {
            self.applied = applied;
            self.ended(0, applied + 1, Status::Ok, shared);
        }
    }

    /// The messages with numbers `from..to` have this outcome.
    pub(super) fn ended(&mut self, from: u64, to: u64, status: Status, shared: &Shared) {
        let at = self.waiting.partition_point(|waiting| waiting.sequence < from);
        for waiting in self.waiting.range_mut(at..) {
            if waiting.sequence >= to {
                break;
            }
            waiting.phase = None;
            if let Some((message, index)) = waiting.message.take() {
                if !status.is_ok() {
                    count(&shared.counters.fail_acks_received_count, 1);
                }
                shared.complete(&message, index, status);
            }
        }
    }
}
