"""A member of a Ringtribe cluster, written from wire/FORMAT.md; Python 3.9 and its library alone.

A peer for tests, simple where the engine is fast; peer.py drives it by lines.
"""

import os
import queue
import socket
import struct
import threading
import time
from collections import deque

import ringtribe_wire as wire
from ringtribe_streams import FAILED_TO_FINISH, InStream, Message, OutStream

LONGEST = 256 << 20
RESERVED_BOUND = 64 << 20
CONNECT_TIMEOUT = 1.0
HELLO_TIMEOUT = 5.0
BACK_OFF_MOST = 3.0
# A member that cannot be reached for so long is given up.
DROP_TIME = 3.0


class Connection:
    """A socket with a thread that writes, so that nobody waits in a send."""

    def __init__(self, sock):
        self.sock, self.data, self.closed, self.reset = sock, bytearray(), False, False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.outgoing = queue.SimpleQueue()
        threading.Thread(target=self._write, daemon=True).start()

    def _write(self):
        try:
            for data in iter(self.outgoing.get, None):
                if self.closed:
                    break
                self.sock.sendall(data)
        except OSError:
            pass
        if self.reset:
            self.sock.close()
        else:
            self._shut(socket.SHUT_WR)

    def _shut(self, how):
        try:
            self.sock.shutdown(how)
        except OSError:
            pass

    def send(self, data):
        self.outgoing.put(data)

    def finish(self):
        """What is queued goes out, then the end."""
        self.outgoing.put(None)

    def drop(self, reset=False):
        """At once; with reset the peer loses what it has not read."""
        self.closed, self.reset = True, reset
        try:
            if reset:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        # The reader has to let go of the socket before a close can reset it.
        self._shut(socket.SHUT_RD if reset else socket.SHUT_RDWR)
        self.outgoing.put(None)

    def more(self):
        """Reads on; False at the end."""
        try:
            data = self.sock.recv(1 << 18)
        except OSError:
            return False
        self.data += data
        return bool(data) and not self.closed

    def take(self, decode):
        """The next whole thing at the front, or None at the end of the connection."""
        while True:
            found = decode(self.data)
            if found:
                del self.data[:found[1]]
                return found[0]
            if not self.more():
                return None

    def frames(self):
        """All frames until the end; what has arrived together comes as one list. What is wrong is
        raised after what came before it."""
        while True:
            batch, at, fault = [], 0, None
            try:
                for found in iter(lambda: wire.decode(self.data, at), None):
                    found[0]["bytes"] = found[1] - at
                    batch.append(found[0])
                    at = found[1]
            except wire.Fault as wrong:
                fault = wrong
            del self.data[:at]
            if batch:
                yield batch
            if fault:
                raise fault
            if not self.more():
                return


class Lane:
    """An outgoing stream and the connection that carries it."""

    def __init__(self, stream):
        self.stream, self.connection, self.opened_count = stream, None, 0


class Link:
    """To one incarnation of a member."""

    def __init__(self, boot_id, address, streams):
        self.boot_id, self.address, self.streams = boot_id, address, streams
        self.epoch, self.after_cut, self.alive, self.draining = 1, False, True, False
        self.lanes = {}
        self.echo_token, self.echoed, self.joined = 0, {}, set()


class Member:
    """Listens, finds peers by their addresses, sends, receives. listener(payload, opener, key)
    returns a status; it is called by one thread, for replies by another one."""

    def __init__(self, listener, host="127.0.0.1", port=0, peers=(), cluster=b"", streams=2,
                 unique_id=None, frequency=0.5):
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.boot_id = os.urandom(16)
        self.unique_id = unique_id or os.urandom(16)
        self.cluster, self.streams, self.peers = cluster, streams, list(peers)
        self.listener, self.frequency, self.closing = listener, frequency, False
        self.links, self.ins, self.openers = {}, {}, {}
        self.gaps_count, self.faults = 0, []
        self.queues = {}                       # (opener, key): deliveries in order
        self.replies = deque()
        self.reserved, self.waiting = 0, deque()
        self.accepted = set()
        self.sock = socket.create_server((host, port), backlog=128)
        self.host, self.port = host, self.sock.getsockname()[1]
        for work in (self._accept, self._seek, self._echo):
            threading.Thread(target=work, daemon=True).start()
        for replies in (False, True):
            threading.Thread(target=self._deliver, args=(replies,), daemon=True).start()

    def package(self):
        return wire.encode_package(socket.inet_aton(self.host), self.port, self.unique_id)

    # Finding members (section 2).

    def _seek(self):
        while not self.closing:
            for address in self.peers:
                with self.lock:
                    known = any(link.alive and link.address == address for link in self.links.values())
                if not known:
                    self._probe(address)
            with self.changed:
                self.changed.wait_for(lambda: self.closing, timeout=self.frequency)

    def _probe(self, address):
        data = b""
        try:
            with socket.create_connection(address, CONNECT_TIMEOUT) as sock:
                sock.sendall(wire.encode_probe(self.package()))
                while True:
                    block = wire.decode_extension(data[21:])
                    if block:
                        break
                    part = sock.recv(65536)
                    if not part:
                        return
                    data += part
        except OSError:
            return
        except wire.Fault as fault:
            self.faults.append(str(fault))
            return
        if data[:21] != wire.TRIBES_ACK or block["version_min"] > wire.VERSION or not block["flags"] & 1:
            return
        with self.changed:
            link = Link(block["boot_id"], address, self.streams)
            link = self.links.setdefault(block["boot_id"], link)
            link.alive = True
            self._lane(link, link.streams)
            self.changed.notify_all()

    # Opening (section 12.1).

    def _lane(self, link, index):
        if index not in link.lanes:
            lane = link.lanes[index] = Lane(OutStream(index))
            threading.Thread(target=self._run_lane, args=(link, lane, link.epoch), daemon=True).start()
        return link.lanes[index]

    def _is_current(self, link, lane, epoch):
        return link.alive and link.epoch == epoch and not self.closing

    def _run_lane(self, link, lane, epoch):
        back_off, failing_since = 0.0, None
        while self._is_current(link, lane, epoch):
            before = lane.opened_count
            try:
                self._carry(link, lane, epoch)
            except (OSError, wire.Fault) as fault:
                self.faults.append("to %s:%d: %s" % (*link.address, fault))
            with self.changed:
                lane.connection = None
                if lane.opened_count > before:
                    back_off, failing_since = 0.0, None
                    continue
                failing_since = failing_since or time.monotonic()
                if time.monotonic() - failing_since > DROP_TIME:
                    if self._is_current(link, lane, epoch):
                        self._lose(link)
                    return
                back_off = min(max(2 * back_off, 0.01), BACK_OFF_MOST)
                self.changed.wait_for(lambda: not self._is_current(link, lane, epoch), back_off)

    def _carry(self, link, lane, epoch):
        connection = Connection(socket.create_connection(link.address, CONNECT_TIMEOUT))
        try:
            connection.sock.settimeout(HELLO_TIMEOUT)
            with self.lock:
                stream = lane.stream
                hello = wire.encode(
                    "HELLO", wire.AFTER_CUT if link.after_cut else 0,
                    wire.encode_tlvs([(1, self.package()), (2, self.cluster)]),
                    version_min=1, version_max=1, offered=0, required=0, boot_id=self.boot_id,
                    expected_boot_id=link.boot_id, tribes_id=self.unique_id,
                    cluster_hash=wire.hash_name(self.cluster), epoch=epoch, stream=stream.index,
                    streams=link.streams, lane_class=int(stream.index == link.streams), auth_kind=0,
                    key_id=0, max_frame=wire.MAX_FRAME, max_message=LONGEST,
                    next_sequence=stream.next_sequence)
            connection.send(wire.MAGIC + hello)
            answer = connection.take(wire.decode_greeting)
            if answer is None:
                return
            if answer["kind"] != "HELLO_ACK":
                raise wire.Fault("%s answers a HELLO" % answer["kind"])
            with self.changed:
                if not self._is_current(link, lane, epoch) or not self._judge(link, answer):
                    return
                stream.open(answer)
                lane.connection, lane.opened_count = connection, lane.opened_count + 1
                self._pump(lane)
                self.changed.notify_all()
            connection.sock.settimeout(None)
            for batch in connection.frames():
                with self.changed:
                    if lane.connection is not connection:
                        return
                    for frame in batch:
                        self._answered(link, lane, frame)
                    self._pump(lane)
                    self.changed.notify_all()
        except wire.Fault as fault:
            self._say_close(connection, fault, lane.stream.next_sequence - 1)
            raise
        finally:
            connection.finish()

    def _say_close(self, connection, fault, sequence):
        text = str(fault).encode()[:256]
        connection.send(wire.encode("CLOSE", 0, text, code=207, text_length=len(text),
                                    sequence=sequence))

    def _judge(self, link, answer):
        """Whether the answer to a hello lets the lane go on."""
        status = wire.HELLO_STATUS[answer["status"]]
        if status == "OK":
            if answer["boot_id"] != link.boot_id or answer["version"] != wire.VERSION:
                raise wire.Fault("accepted by another incarnation or in another version")
            return True
        self.faults.append("%s %s" % (status, answer["reason"].decode(errors="replace")))
        if status in ("RESET", "OLD_EPOCH"):
            self._end_epoch(link, max(link.epoch, answer["epoch"]) + 1)
        elif status == "CLOSING":
            link.draining = True
        elif status != "REFUSED":
            self._lose(link)
        return False

    def _end_epoch(self, link, next_epoch):
        """What is unfinished fails; the link goes on in a new epoch."""
        for lane in link.lanes.values():
            lane.stream.fail_all(FAILED_TO_FINISH)
            if lane.connection:
                lane.connection.drop()
        link.lanes, link.epoch, link.after_cut = {}, next_epoch, True
        self.gaps_count += 1
        if link.alive:
            self._lane(link, link.streams)
        self.changed.notify_all()

    def _lose(self, link):
        link.alive = False
        self._end_epoch(link, link.epoch + 1)

    def _answered(self, link, lane, frame):
        kind = frame["kind"]
        if kind == "ACK":
            confirm = lane.stream.take(frame, wire.entries(frame))
            if confirm:
                lane.connection.send(confirm)
        elif kind == "ECHO_REPLY":
            link.echoed = frame
        elif kind == "JOINED":
            link.joined.add(frame["token"])
        elif kind == "CLOSE":
            self.faults.append("closed by the peer: %d %r" % (frame["code"], frame["body"]))
        elif isinstance(kind, str):
            raise wire.Fault("%s from an acceptor" % kind)

    def _pump(self, lane):
        if lane.connection:
            frames = lane.stream.pump()
            if frames:
                lane.connection.send(b"".join(frames))

    def _echo(self):
        while not self.closing:
            with self.changed:
                for link in list(self.links.values()):
                    lane = link.lanes.get(link.streams)
                    if link.alive and lane and lane.connection:
                        link.echo_token += 1
                        lane.connection.send(wire.encode("ECHO", token=link.echo_token,
                                                         **self._vitals()))
                self.changed.wait_for(lambda: self.closing, timeout=self.frequency)

    def _vitals(self):
        return dict(oldest_ms=0, view_hash=0, members=0, free_pollers=1)

    # What an application does.

    def live(self):
        """The links to members that are there."""
        with self.lock:
            return [link for link in self.links.values() if link.alive and not link.draining]

    def submit(self, link, payload, key=b"", mode="applied", flags=0, envelope=True):
        """Queues a message; its status is None until it is complete. Wait with await_all."""
        body = bytes(payload)
        if envelope:
            options = 1 | {"none": 0, "received": 2, "applied": 6}[mode]
            body = wire.encode_envelope(int(time.time() * 1000), os.urandom(16), options) + body
            flags |= wire.ENVELOPE
        number = (wire.hash_name(key) or 1) if key else 0
        index = number % link.streams
        if flags & wire.REPLY:
            index = link.streams
        message = Message(body, number, mode, flags)
        with self.changed:
            if not link.alive:
                message.finish(FAILED_TO_FINISH)
                return message
            lane = self._lane(link, index)
            lane.stream.queue.append(message)
            if mode == "none":
                message.finish(0)
            self._pump(lane)
        return message

    def refuse(self, link, key, count):
        """Says that so many messages were refused here."""
        with self.changed:
            lane = self._lane(link, wire.hash_name(key) % link.streams)
            lane.stream.queue.append(dict(cause=301, key=wire.hash_name(key), refused=count))
            self._pump(lane)

    def await_for(self, condition, timeout=60.0):
        with self.changed:
            return self.changed.wait_for(condition, timeout)

    def await_all(self, messages, timeout=60.0):
        """The statuses; 201 for those that have none in time."""
        self.await_for(lambda: all(m.status is not None for m in messages), timeout)
        return [201 if m.status is None else m.status for m in messages]

    def on_reply_lane(self, link, frame):
        """Sends a frame that is not sequenced; False if the lane is not open."""
        with self.lock:
            lane = link.lanes.get(link.streams)
            if lane and lane.connection:
                lane.connection.send(frame)
                return True
            return False

    def join(self, link, token, timeout=60.0):
        """Whether the member answered: all that it sent before it saw this one is finished."""
        opened = self.await_for(
            lambda: self.on_reply_lane(link, wire.encode("JOIN", token=token)), timeout)
        return opened and self.await_for(lambda: token in link.joined, timeout)

    def goodbye(self, final):
        with self.lock:
            for link in self.links.values():
                lane = link.lanes.get(link.streams)
                if link.alive and lane:
                    self.on_reply_lane(link, wire.encode(
                        "GOODBYE", phase=int(final), reason=205,
                        sequence=lane.stream.next_sequence - 1))

    def drop_connections(self, reset):
        """Breaks every connection, in both directions."""
        with self.lock:
            opened = [lane.connection for link in self.links.values() for lane in link.lanes.values()]
            broken = [c for c in opened if c] + list(self.accepted)
            for connection in broken:
                connection.drop(reset)
            return len(broken)

    def close(self):
        with self.changed:
            self.goodbye(final=True)
            self.closing = True
            for link in self.links.values():
                for lane in link.lanes.values():
                    if lane.connection:
                        lane.connection.finish()
            self.changed.notify_all()
        self.sock.close()

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
                said = wire.encode_extension(self.boot_id, self.package())
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
