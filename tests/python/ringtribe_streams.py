"""The two ends of a stream (wire/FORMAT.md, sections 6 to 9): what may be sent, what was received.

State alone: bytes and frames in, bytes and deliveries out. The caller holds one lock around all of it.
"""

from collections import deque

import ringtribe_wire as wire

WINDOW = 256 << 10
FAILED_TO_FINISH = 204


class Message:
    """One message on its way to one member."""

    def __init__(self, body, key, mode, flags):
        self.body, self.key, self.mode, self.flags = body, key, mode, flags
        if mode == "received":
            self.flags |= wire.WANT_RECEIVED
        elif mode == "applied":
            self.flags |= wire.WANT_APPLIED
        self.status = None

    def finish(self, status):
        if self.status is None:
            self.status = status


class OutStream:
    """The opener's end."""

    def __init__(self, index):
        self.index = index
        self.next_sequence = 1
        self.queue = deque()        # messages, and GAP frames as dicts, that have no number yet
        self.chunked = None         # [message, first sequence, offset of the next chunk]
        self.small_turn = False     # small frames and chunks take turns
        self.unreceived = deque()   # (sequence, frame, end position, first sequence if a later chunk)
        self.unsent = deque()       # of those, what this connection has still to carry
        self.outstanding = {}       # number: message without outcome
        self.position = 0
        self.received = self.applied = self.credit = self.granted = 0
        self.failed_count = 0       # named on this connection

    def next_frame(self):
        """Gives the next frame its number, if there is something to send."""
        chunk_waits = self.chunked and self.granted >= self.chunked[1]
        head = self.queue[0] if self.queue else None
        small = head is not None and not (self.chunked and isinstance(head, Message)
                                          and len(head.body) > wire.MAX_BODY)
        if small and (self.small_turn or not chunk_waits):
            # Only what fits the credit gets a number: a chunk may be sent where this may not.
            length = 40 if isinstance(head, dict) else 32 + min(len(head.body), wire.MAX_BODY)
            if self.position + length <= self.credit:
                self.small_turn = False
                self.queue.popleft()
                return self.number(head)
        if chunk_waits:
            self.small_turn = True
            return self.number_chunk()
        return False

    def number(self, what):
        sequence = self.next_sequence
        if isinstance(what, dict):
            frame = wire.encode("GAP", sequence=sequence, **what)
        else:
            part, flags = what.body[:wire.MAX_BODY], what.flags | wire.FIRST
            if len(part) == len(what.body):
                flags |= wire.LAST
                self.outstanding[sequence] = what
            else:
                self.chunked = [what, sequence, len(part)]
            frame = wire.encode("DATA", flags, part, place=len(what.body), sequence=sequence,
                                key=what.key)
        self.position += len(frame)
        return self.made(sequence, frame, None)

    def number_chunk(self):
        message, first, offset = self.chunked
        sequence, part = self.next_sequence, message.body[offset:offset + wire.MAX_BODY]
        flags = 0
        self.chunked[2] += len(part)
        if self.chunked[2] == len(message.body):
            flags = wire.LAST | message.flags & (wire.WANT_RECEIVED | wire.WANT_APPLIED)
            self.outstanding[sequence] = message
            self.chunked = None
        frame = wire.encode("DATA", flags, part, place=offset, sequence=sequence, key=message.key)
        return self.made(sequence, frame, first)

    def made(self, sequence, frame, first):
        self.next_sequence += 1
        entry = (sequence, frame, self.position, first)
        self.unreceived.append(entry)
        self.unsent.append(entry)
        return True

    def pump(self):
        """Frames that may be sent now."""
        out = []
        while True:
            if not self.unsent and not self.next_frame():
                return out
            _, frame, position, first = self.unsent[0]
            if position > self.credit if first is None else self.granted < first:
                return out
            self.unsent.popleft()
            out.append(frame)

    def open(self, answer):
        """HELLO_ACK OK: everything above received is sent again."""
        self.failed_count = 0
        self.applied = 0
        self.take(answer, [])
        self.unsent = deque(self.unreceived)

    def take(self, ack, entries):
        """An ACK. Returns a CONFIRM to send, or None."""
        received, applied = ack["received"], ack["applied"]
        if not (self.received <= received < self.next_sequence and self.applied <= applied <= received
                and ack["credit"] >= self.credit and ack["granted"] >= self.granted):
            raise wire.Fault("an acknowledgement that cannot be: %r" % ack)
        failed_before = self.failed_count
        for offset, count, status, _ in entries:
            if offset < 1 or count < 1 or applied + offset + count - 1 > received:
                raise wire.Fault("an entry beyond what was received")
            if status:
                self.failed_count += count
            for number in range(applied + offset, applied + offset + count):
                self.outcome(number, status)
        for number in [n for n in self.outstanding if n <= received]:
            if self.outstanding[number].mode == "received":
                self.outstanding[number].finish(0)
            if number <= applied:
                self.outcome(number, 0)
        while self.unreceived and self.unreceived[0][0] <= received:
            self.unreceived.popleft()
        while self.unsent and self.unsent[0][0] <= received:
            self.unsent.popleft()
        self.received, self.applied = received, applied
        self.credit, self.granted = ack["credit"], ack["granted"]
        if self.failed_count > failed_before:
            return wire.encode("CONFIRM", count=self.failed_count)
        return None

    def outcome(self, number, status):
        message = self.outstanding.pop(number, None)
        if message:
            message.finish(status)

    def fail_all(self, status):
        """The epoch ends."""
        left = list(self.outstanding.values()) + [m for m in self.queue if isinstance(m, Message)]
        for message in left + ([self.chunked[0]] if self.chunked else []):
            message.finish(status)


class Delivery:
    """A message at the receiver; it takes its place with its first frame."""

    def __init__(self, stream, first, frame, counted):
        self.stream, self.epoch, self.first, self.counted = stream, stream.epoch, first, counted
        self.key, self.flags, self.total = frame["key"], frame["flags"], frame["place"]
        self.parts, self.have = [frame["body"]], len(frame["body"])
        self.number = first if frame["flags"] & wire.LAST else None

    def payload(self):
        body = b"".join(self.parts)
        return body[wire.ENVELOPE_BYTES:] if self.flags & wire.ENVELOPE else body


class InStream:
    """The acceptor's end; lives as long as the opener's incarnation."""

    def __init__(self, epoch, longest, window=WINDOW):
        self.window, self.longest, self.connection = window, longest, None
        self.begin(epoch)

    def begin(self, epoch):
        self.epoch = epoch
        self.received = self.applied = self.granted = self.position = 0
        self.credit = self.window
        self.open = None          # the chunked message that is open
        self.outcomes = {}        # number: status, of what may have to be told
        self.unconfirmed = set()  # failed numbers
        self.named, self.named_failed = set(), []

    def resume(self):
        """A new connection of the same epoch. What failed and is not confirmed is named again."""
        self.applied = min([self.applied + 1, *self.unconfirmed]) - 1
        self.named, self.named_failed = set(), []

    def take(self, frame, reserve):
        """A sequenced frame. Returns a message that takes its place now, or None."""
        sequence, data = frame["sequence"], frame["kind"] == "DATA"
        if sequence <= self.received:
            return None
        if sequence != self.received + 1:
            raise wire.Fault("sequence %d where %d comes next" % (sequence, self.received + 1))
        first = data and frame["flags"] & wire.FIRST
        length = 0 if data and not first else frame["bytes"]
        if self.position + length > self.credit:
            raise wire.Fault("%d bytes where %d are the credit" % (self.position + length, self.credit))
        if not data:
            self.accept(sequence, length)
            return None
        if not first:
            self.later_chunk(frame)
            self.received = sequence
            return None
        last, body = frame["flags"] & wire.LAST, len(frame["body"])
        least = wire.ENVELOPE_BYTES if frame["flags"] & wire.ENVELOPE else 0
        if frame["place"] < least:
            raise wire.Fault("a message of %d bytes with an envelope" % frame["place"])
        if frame["place"] > self.longest + wire.ENVELOPE_BYTES:
            raise wire.TooBig("a message of %d bytes" % frame["place"])
        if frame["place"] != body if last else frame["place"] <= body:
            raise wire.Fault("%d bytes in the first frame of %d" % (body, frame["place"]))
        if not last and self.open:
            raise wire.Fault("a second message in chunks")
        delivery = Delivery(self, sequence, frame, length)
        self.position += length
        self.received = sequence
        if not last:
            self.open = delivery
            self.outcomes[sequence] = 0
            reserve(self, delivery)
        return delivery

    def accept(self, sequence, length):
        self.position += length
        self.credit += length
        self.received = sequence
        self.outcomes[sequence] = 0

    def later_chunk(self, frame):
        whole = self.open
        if not whole or self.granted < whole.first:
            raise wire.Fault("a chunk of no message, or before its grant")
        body, last = frame["body"], frame["flags"] & wire.LAST
        end = whole.have + len(body)
        if frame["place"] != whole.have or not body or end > whole.total:
            raise wire.Fault("a chunk at %d of %d bytes" % (frame["place"], len(body)))
        if bool(last) != (end == whole.total):
            raise wire.Fault("the last chunk ends at %d of %d" % (end, whole.total))
        whole.parts.append(body)
        whole.have = end
        if last:
            whole.number, self.open = frame["sequence"], None
        else:
            self.outcomes[frame["sequence"]] = 0

    def finish(self, delivery, status):
        """A listener has ended."""
        if delivery.epoch != self.epoch:
            return
        self.credit += delivery.counted
        self.outcomes[delivery.number] = status
        if status:
            self.unconfirmed.add(delivery.number)

    def confirm(self, count):
        if count > len(self.named_failed):
            raise wire.Fault("%d failures confirmed, %d named" % (count, len(self.named_failed)))
        self.unconfirmed.difference_update(self.named_failed[:count])
        self.forget()

    def forget(self):
        floor = min([self.applied + 1, *self.unconfirmed]) - 1
        for number in [n for n in self.outcomes if n <= floor]:
            del self.outcomes[number]

    def ack(self):
        """Where the stream stands, with the outcomes that this connection has not named."""
        point = self.applied
        while self.outcomes.get(point + 1, 1) == 0 or point + 1 in self.named:
            point += 1
        fresh = sorted(n for n in self.outcomes if n > point and n not in self.named)
        runs = []
        for number in fresh[:1024]:
            status = self.outcomes[number]
            self.named.add(number)
            if status:
                self.named_failed.append(number)
            if runs and runs[-1][2] == status and runs[-1][0] + runs[-1][1] == number:
                runs[-1][1] += 1
            else:
                runs.append([number, 1, status])
        self.applied = point
        self.named = {n for n in self.named if n > point}
        self.forget()
        out = wire.encode_ack([(start - point, count, status, 0) for start, count, status in runs],
                              **self.points())
        return out + (self.ack() if len(fresh) > 1024 else b"")

    def points(self):
        return dict(received=self.received, applied=self.applied, credit=self.credit,
                    granted=self.granted, oldest_ms=0)
