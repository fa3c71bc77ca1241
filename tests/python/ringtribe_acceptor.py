"""The acceptor's side of a member (wire/FORMAT.md, 12.2): hellos, streams, room, deliveries."""

import threading
from collections import deque

import ringtribe_wire as wire
from ringtribe_connection import Connection
from ringtribe_streams import InStream, Message

RESERVED_BOUND = 64 << 20
HELLO_TIMEOUT = 5.0


class Acceptor:
    """Half of Member, which has what is used here: lock, changed, boot_id, links, listener."""

    # Accepting (section 12.2).

    def _accept(self):
        while True:
            try:
                sock, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(Connection(sock),), daemon=True).start()

    def _serve(self, connection):
        with self.lock:
            self.accepted.add(connection)
        try:
            if connection.data or connection.more():
                if connection.data[0] == wire.MAGIC[0]:
                    self._greet(connection)
                else:
                    self._serve_tribes(connection)
        except (OSError, wire.Fault) as fault:
            self.faults.append("from a peer: %s" % fault)
        finally:
            connection.finish()
            with self.lock:
                self.accepted.discard(connection)

    def _serve_tribes(self, connection):
        """Probes alone: this member speaks Tribes no further."""
        while True:
            end = wire.tribes_frame_end(connection.data)
            if end is None:
                if not connection.more():
                    return
                continue
            frame = bytes(connection.data[:end])
            del connection.data[:end]
            if wire.PROBE_MESSAGE not in frame:
                raise wire.Fault("a Tribes message that is no probe")
            said = b""
            if frame[27:43] == wire.PROBE_ID:
                said = wire.encode_extension(self.boot_id, self.package(), cluster=self.cluster)
            connection.send(wire.TRIBES_ACK + said)

    def _greet(self, connection):
        connection.sock.settimeout(HELLO_TIMEOUT)
        hello = connection.take(wire.decode_greeting)
        if hello is None:
            return
        connection.sock.settimeout(None)
        if hello["kind"] != "HELLO":
            raise wire.Fault("%s opens a connection" % hello["kind"])
        if connection.data:
            raise wire.Fault("bytes behind a HELLO before its answer")
        with self.changed:
            name, stream = self._welcome(hello)
            points = stream.points() if name == "OK" else dict(received=0, applied=0, credit=0, granted=0)
            points.pop("oldest_ms", None)
            connection.send(wire.MAGIC + wire.encode(
                "HELLO_ACK", version=wire.VERSION, status=wire.HELLO_STATUS.index(name), features=0,
                boot_id=self.boot_id, epoch=stream.epoch if stream else 0, max_frame=wire.MAX_FRAME,
                **points))
            if name != "OK":
                return
            stream.connection = connection
            if stream.outcomes:
                connection.send(stream.ack())
            self.changed.notify_all()
        try:
            for batch in connection.frames():
                with self.changed:
                    if stream.connection is not connection:
                        return
                    self._take_batch(hello["boot_id"], stream, connection, batch)
        except wire.Fault as fault:
            with self.lock:
                if stream.connection is connection:
                    stream.connection = None
                    self._say_close(connection, fault, stream.received)
            raise

    def _take_batch(self, opener, stream, connection, batch):
        sequenced = False
        try:
            for frame in batch:
                sequenced |= self._came(opener, stream, connection, frame)
        finally:
            # What came before a fault is held, and may be told.
            if sequenced:
                connection.send(stream.ack())
            self.changed.notify_all()

    def _welcome(self, hello):
        """How a hello is answered, and its stream."""
        if hello["version_min"] > wire.VERSION or hello["version_max"] < wire.VERSION or hello["required"]:
            return "VERSION", None
        if hello["cluster_hash"] != wire.hash_name(self.cluster):
            return "WRONG_CLUSTER", None
        if hello["boot_id"] == self.boot_id:
            return "BOOT_ID_IN_USE", None
        if hello["expected_boot_id"] != self.boot_id:
            return "WRONG_INCARNATION", None
        reply = hello["stream"] == hello["streams"]
        if not hello["streams"] or hello["stream"] > hello["streams"] or reply != hello["lane_class"] \
                or not wire.is_package(hello["member_package"]):
            return "REFUSED", None
        if self.closing:
            return "CLOSING", None
        name = (hello["boot_id"], hello["stream"])
        stream, epoch, sent = self.ins.get(name), hello["epoch"], hello["next_sequence"]
        if stream and epoch < stream.epoch:
            return "OLD_EPOCH", stream
        if not stream or epoch > stream.epoch:
            if sent > 1:
                return "RESET", stream
            if stream:
                self._begin(stream, epoch)
            else:
                stream = self.ins[name] = InStream(epoch, hello["max_message"])
            cut_epochs = self.openers.setdefault(hello["boot_id"], set())
            if hello["flags"] & wire.AFTER_CUT and epoch not in cut_epochs:
                cut_epochs.add(epoch)
                self.gaps_count += 1
        elif stream.received >= sent:
            return "RESET", stream
        else:
            stream.resume()
        if stream.connection:
            stream.connection.drop()
        return "OK", stream

    def _begin(self, stream, epoch):
        """A newer epoch: an unfinished message is dropped, the others stay in the queues."""
        if stream.open:
            self._unreserve(stream.open)
            stream.open.total = None
            self._forget_dropped()
        stream.begin(epoch)

    def _came(self, opener, stream, connection, frame):
        """A frame from an opener; whether it was a sequenced one."""
        kind = frame["kind"]
        if kind in ("DATA", "GAP"):
            fresh = frame["sequence"] > stream.received
            delivery = stream.take(frame, self._reserve)
            if kind == "GAP" and fresh:
                self.gaps_count += 1
            if delivery:
                self._queue(opener, delivery)
            return True
        if kind == "CONFIRM":
            stream.confirm(frame["count"])
        elif kind == "ECHO":
            connection.send(wire.encode("ECHO_REPLY", token=frame["token"], **self._vitals()))
        elif kind == "JOIN":
            threading.Thread(target=self._joined, args=(opener, connection, frame["token"]),
                             daemon=True).start()
        elif kind == "GOODBYE":
            link = self.links.get(opener)
            if link and frame["phase"]:
                self._lose(link)
            elif link:
                link.draining = True
        elif kind == "CLOSE":
            self.faults.append("closed by the peer: %d %r" % (frame["code"], frame["body"]))
        elif isinstance(kind, str):
            raise wire.Fault("%s from an opener" % kind)
        return False

    def _joined(self, opener, connection, token):
        """Answers when what was submitted to others until now is finished."""
        with self.changed:
            before = [message for link in self.links.values() if link.boot_id != opener
                      for lane in link.lanes.values()
                      for message in [*lane.stream.outstanding.values(), *lane.stream.queue]
                      if isinstance(message, Message)]
            self.changed.wait_for(lambda: all(m.status is not None for m in before), 60)
            connection.send(wire.encode("JOINED", token=token))

    # Room for messages in chunks, first come first served (section 9).

    def _reserve(self, stream, delivery):
        self.waiting.append((stream, delivery))
        self._grant()

    def _grant(self):
        while self.waiting:
            stream, delivery = self.waiting[0]
            if delivery.total is not None:
                if self.reserved and self.reserved + delivery.total > RESERVED_BOUND:
                    return
                self.reserved += delivery.total
                delivery.reserved = True
                stream.granted = delivery.first
                if stream.connection:
                    stream.connection.send(stream.ack())
            self.waiting.popleft()

    def _unreserve(self, delivery):
        if getattr(delivery, "reserved", False):
            delivery.reserved = False
            self.reserved -= delivery.total
            self._grant()

    # Delivering, in the order of first frames for each key (section 7.2).

    def _queue(self, opener, delivery):
        delivery.opener = opener
        if delivery.flags & wire.REPLY:
            self.replies.append(delivery)
            return
        name = (opener, delivery.key) if delivery.key else (opener, id(delivery))
        self.queues.setdefault(name, deque()).append(delivery)

    def _forget_dropped(self):
        for name, line in list(self.queues.items()):
            kept = deque(delivery for delivery in line if delivery.total is not None)
            if kept:
                self.queues[name] = kept
            else:
                del self.queues[name]
        self.replies = deque(reply for reply in self.replies if reply.total is not None)

    def _next(self, replies):
        if replies:
            if self.replies and self.replies[0].number is not None:
                return self.replies.popleft()
            return None
        for name, line in self.queues.items():
            if line[0].number is not None:
                # To the end, so that each key has its turn.
                self.queues[name] = self.queues.pop(name)
                return line[0]
        return None

    def _deliver(self, replies):
        while True:
            with self.changed:
                found = []
                self.changed.wait_for(
                    lambda: self.closing or found.append(self._next(replies)) or found[-1])
                delivery = found[-1] if found else None
                if delivery is None:
                    return
            try:
                status = self.listener(delivery.payload(), delivery.opener, delivery.key)
            except Exception as error:  # A listener may fail in any way; the sender learns that.
                self.faults.append("listener: %r" % error)
                status = 202
            with self.changed:
                if not replies:
                    name = (delivery.opener, delivery.key or id(delivery))
                    line = self.queues.get(name)
                    line.popleft()
                    if not line:
                        del self.queues[name]
                self._unreserve(delivery)
                stream = delivery.stream
                stream.finish(delivery, status)
                if stream.connection and delivery.epoch == stream.epoch:
                    stream.connection.send(stream.ack())
                self.changed.notify_all()
