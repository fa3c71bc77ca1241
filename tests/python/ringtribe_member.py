"""A member of a Ringtribe cluster, written from wire/FORMAT.md; Python 3.9 and its library alone.

A peer for tests, simple where the engine is fast; peer.py drives it by lines.
"""

import os
import socket
import threading
import time
from collections import deque

import ringtribe_wire as wire
from ringtribe_acceptor import Acceptor
from ringtribe_connection import Connection
from ringtribe_streams import FAILED_TO_FINISH, Message, OutStream

LONGEST = 256 << 20
CONNECT_TIMEOUT = 1.0
HELLO_TIMEOUT = 5.0
BACK_OFF_MOST = 3.0
# A member that cannot be reached for so long is given up.
DROP_TIME = 3.0


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


class Member(Acceptor):
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
        if block["cluster"] != self.cluster:
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
        connection.send(wire.encode("CLOSE", 0, text, code=fault.code, text_length=len(text),
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
        return dict(still_ms=0, view_hash=0, members=0, free_pollers=1)

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

    def join(self, link, token, timeout=60.0):
        """Whether the member answered: all that it sent before it saw this one is finished. Asked on
        each connection anew, since the question may be lost with one."""
        asked = []

        def answered():
            lane = link.lanes.get(link.streams)
            if lane and lane.connection and lane.connection not in asked[-1:]:
                asked.append(lane.connection)
                lane.connection.send(wire.encode("JOIN", token=token))
            return token in link.joined

        return self.await_for(answered, timeout)

    def goodbye(self, final):
        with self.lock:
            for link in self.links.values():
                lane = link.lanes.get(link.streams)
                if link.alive and lane and lane.connection:
                    lane.connection.send(wire.encode(
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
