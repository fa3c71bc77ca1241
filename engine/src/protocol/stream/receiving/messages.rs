//! From frames to deliveries.

use super::*;

impl ReceiveStream {
    pub(super) fn data(
        &mut self,
        head: &DataHead,
        body: &[u8],
        frame_bytes: usize,
        whole: Option<&Buffer>,
        sink: &mut Sink<'_>,
    ) -> Result<(), String> {
        if !self.is_next(head.sequence, sink.shared)? {
            return Ok(());
        }
        let is_first = head.flags & flags::FIRST != 0;
        let counted_bytes = if is_first { frame_bytes as u64 } else { 0 };
        self.check_credit(counted_bytes)?;
        self.data_in_turn(head, body, frame_bytes, whole, sink)?;
        self.taken(head.sequence, counted_bytes, sink.shared);
        Ok(())
    }

    pub(super) fn data_in_turn(
        &mut self,
        head: &DataHead,
        body: &[u8],
        frame_bytes: usize,
        whole: Option<&Buffer>,
        sink: &mut Sink<'_>,
    ) -> Result<(), String> {
        let is_first = head.flags & flags::FIRST != 0;
        let is_last = head.flags & flags::LAST != 0;
        let is_told_later = is_first && is_last && head.flags & flags::WANT_APPLIED != 0;
        self.unsaid_bytes += frame_bytes as u64;
        self.ack_due |= !is_told_later || self.unsaid_bytes >= UNSAID_LIMIT_BYTES;
        if !is_first {
            let Some(open) = &mut self.open else {
                return Err("a later frame of a message that has no first one".into());
            };
            open.add(head.place as usize, body, is_last)?;
            // A large message that comes piece by piece is no standstill.
            self.moved_count += 1;
            if is_last && let Some(open) = self.open.take() {
                self.finish_open(open, head, sink)?;
            }
            return Ok(());
        }
        let line = (head.key != 0).then_some(LineId { owner: self.number, key: head.key });
        if is_last {
            if head.place as usize != body.len() {
                return Err(format!("a message of {} bytes that says {}", body.len(), head.place));
            }
            let (buffer, at) = match whole {
                Some(whole) => (whole.clone(), frame_bytes - body.len()),
                None => (Buffer::copy_of(body), 0),
            };
            return self.deliver(
                head.flags,
                head,
                buffer,
                at,
                frame_bytes as u64,
                None,
                line,
                sink,
            );
        }
        let whole_bytes = head.place as usize;
        let shared = sink.shared;
        let most_bytes = shared.bounds.max_message_bytes + ringtribe_wire::native::ENVELOPE_BYTES;
        if whole_bytes > most_bytes {
            // The sender fails it by name, and goes on with a gap in its place.
            self.too_big = true;
            return Err(format!(
                "a message of {whole_bytes} bytes where at most {most_bytes} are taken: raise \
                 maxMessageBytes here, or lower it there"
            ));
        }
        if body.is_empty() || body.len() >= whole_bytes {
            return Err(format!(
                "a message of {whole_bytes} bytes whose first frame has {}",
                body.len()
            ));
        }
        if self.open.is_some() {
            return Err("a second message in several frames before the first ended".into());
        }
        let (first, credit_bytes) = (head.sequence, frame_bytes as u64);
        if let Some(line) = line
            && !planted!(shared, LatePlace)
        {
            // What came before it stands before it.
            shared.deliveries.push(sink.items);
            shared.deliveries.reserve(line, first);
        }
        self.open = Some(Reassembly::new(
            first,
            head.key,
            head.flags,
            whole_bytes,
            credit_bytes,
            line,
            body,
        ));
        if let Some(room) = shared.reservations.ask(self.worker, self.number, whole_bytes) {
            self.grant(room);
        }
        Ok(())
    }

    pub(super) fn grant(&mut self, room: Reservation) {
        if let Some(open) = &mut self.open {
            open.reservation = Some(room);
            self.granted = open.first;
            self.ack_due = true;
        }
    }

    /// Room may be there for the message that is open.
    pub(crate) fn granted(&mut self, shared: &Shared) {
        if planted!(shared, ChunksNeverFinish) {
            return;
        }
        if let Some(room) = shared.reservations.claim(self.number) {
            self.grant(room);
        }
    }

    pub(super) fn finish_open(
        &mut self,
        open: Reassembly,
        head: &DataHead,
        sink: &mut Sink<'_>,
    ) -> Result<(), String> {
        if open.key != head.key {
            return Err("frames of one message with two keys".into());
        }
        let (first, line, credit_bytes) = (open.first, open.line, open.credit_bytes);
        let flags = open.flags;
        let (buffer, room) = open.finish();
        let before_count = sink.items.len();
        self.deliver(flags, head, buffer, 0, credit_bytes, room, line, sink)?;
        if let Some(line) = line
            && !planted!(sink.shared, LatePlace)
            && let Some(item) = sink.items.drain(before_count..).next()
        {
            sink.shared.deliveries.fill(line, first, Some(item));
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one message")]
    pub(super) fn deliver(
        &mut self,
        flags: u16,
        head: &DataHead,
        buffer: Buffer,
        body_from: usize,
        credit_bytes: u64,
        reservation: Option<Reservation>,
        line: Option<LineId>,
        sink: &mut Sink<'_>,
    ) -> Result<(), String> {
        let body = &buffer.as_slice()[body_from..];
        let wants_received = flags & flags::WANT_RECEIVED != 0;
        let wants_applied = flags & flags::WANT_APPLIED != 0;
        let (envelope, payload_bytes) = if flags & flags::ENVELOPE != 0 {
            let (envelope, payload) =
                Envelope::split(body).ok_or("a message that is shorter than its envelope")?;
            (envelope, payload.len())
        } else {
            let acks = if wants_applied {
                options::USE_ACK | options::SYNCHRONIZED_ACK
            } else if wants_received {
                options::USE_ACK
            } else {
                options::ASYNCHRONOUS
            };
            (Envelope { options: options::BYTE_MESSAGE | acks, ..Envelope::default() }, body.len())
        };
        let payload_end = buffer.as_slice().len();
        let sequence = head.sequence;
        let early = planted!(sink.shared, AckBeforeApply);
        self.unfinished.push_back(Unfinished {
            sequence,
            credit_bytes,
            wants_outcome: wants_applied,
            since: sink.now,
            status: early.then_some(Status::Ok),
            reported: false,
        });
        self.next_look.get_or_insert(sink.now.plus_ms(QUIET_MS));
        sink.items.push(Item {
            incoming: Incoming {
                sender: Arc::clone(&self.package),
                options: envelope.options,
                timestamp_ms: envelope.timestamp_ms,
                unique_id: envelope.unique_id,
                buffer,
                payload_start: payload_end - payload_bytes,
                payload_end,
            },
            origin: Origin::Stream {
                sequence,
                wants_outcome: wants_applied,
                outcomes: Arc::clone(&self.outcomes),
                reservation,
            },
            line: line
                .filter(|_| !planted!(sink.shared, AnyLane))
                .filter(|_| !planted!(sink.shared, ListenersOverlap)),
            reply: flags & flags::REPLY != 0,
            short: flags & flags::SHORT != 0,
        });
        Ok(())
    }
}
