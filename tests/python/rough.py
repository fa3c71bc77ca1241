"""An opener without manners: what an acceptor has to refuse (wire/FORMAT.md, 4.1, 5.2, 6.1, 7.1, 9)."""

import os
import socket

import ringtribe_wire as wire
from ringtribe_connection import Connection

ONE = wire.FIRST | wire.LAST


class Rough:
    """Connections to one acceptor, as an incarnation of its own with one stream."""

    def __init__(self, member, link):
        self.member, self.link, self.boot_id = member, link, os.urandom(16)

    def hello(self, flags=0, package=None, **changes):
        """A HELLO that is right but for the changes."""
        member = self.member
        fields = dict(version_min=1, version_max=1, offered=0, required=0, boot_id=self.boot_id,
                      expected_boot_id=self.link.boot_id, tribes_id=member.unique_id,
                      cluster_hash=wire.hash_name(member.cluster), epoch=5, stream=0, streams=1,
                      lane_class=0, auth_kind=0, key_id=0, max_frame=wire.MAX_FRAME,
                      max_message=1 << 20, next_sequence=1)
        fields.update(changes)
        package = member.package() if package is None else package
        body = wire.encode_tlvs([(1, package), (2, member.cluster)])
        return wire.MAGIC + wire.encode("HELLO", flags, body, **fields)

    def open(self, hello):
        """The connection and the answer, None if there is none."""
        connection = Connection(socket.create_connection(self.link.address, 5))
        connection.sock.settimeout(10)
        connection.send(hello)
        try:
            return connection, connection.take(wire.decode_greeting)
        except wire.Fault:
            return connection, None

    def name(self, hello):
        """How a hello is answered: the name of the status, or "closed"."""
        connection, answer = self.open(hello)
        connection.drop()
        return wire.HELLO_STATUS[answer["status"]] if answer else "closed"

    def ends(self, connection):
        """The code of the CLOSE that ends a connection; 0 if it ends without one."""
        for batch in connection.frames():
            for frame in batch:
                if frame["kind"] == "CLOSE":
                    return frame["code"]
        return 0

    def refused(self, what):
        """Sends a good message and then something wrong. The code of the CLOSE, and what the
        acceptor holds afterwards: the good message alone."""
        self.boot_id = os.urandom(16)
        connection, answer = self.open(self.hello())
        if not answer or answer["status"]:
            return "no answer"
        connection.send(data(1, b"good") + what())
        code = self.ends(connection)
        connection.drop()
        connection, answer = self.open(self.hello(next_sequence=100))
        connection.drop()
        return "%d %s" % (code, answer and answer["received"])


def data(sequence, body, flags=ONE, place=None, key=0):
    place = len(body) if place is None else place
    return wire.encode("DATA", flags, body, place=place, sequence=sequence, key=key)


def damaged(frame, at):
    return frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1:]


# What is wrong, by name; each follows a good frame with the number 1.
WRONG = {
    "hole": lambda: data(3, b"x"),
    "checksum": lambda: damaged(data(2, b"x"), 32),
    "length": lambda: b"\xff\xff\xff\xff",
    "short-length": lambda: b"\x0b\x00\x00\x00",
    "flag": lambda: data(2, b"x", flags=ONE | 0x100),
    "kind": lambda: wire.encode(60),
    "direction": lambda: wire.encode_ack(received=0, applied=0, credit=0, granted=0, oldest_ms=0),
    "answer": lambda: wire.encode("JOINED", token=1),
    "place": lambda: data(2, b"x", place=2),
    "no-first": lambda: data(2, b"x", flags=wire.LAST, place=0),
    "first-whole": lambda: data(2, b"xy", flags=wire.FIRST, place=2),
    "too-long": lambda: data(2, b"xy", flags=wire.FIRST, place=0xFFFFFFFF),
    "envelope": lambda: data(2, b"xy", flags=ONE | wire.ENVELOPE),
    "confirm": lambda: wire.encode("CONFIRM", count=1),
    "phase": lambda: wire.encode("GOODBYE", phase=2, reason=0, sequence=0),
}


def hellos(rough):
    """Hellos and how each has to be answered, in order."""
    yield rough.hello(), "OK"
    yield rough.hello(cluster_hash=1), "WRONG_CLUSTER"
    yield rough.hello(expected_boot_id=bytes(16)), "WRONG_INCARNATION"
    yield rough.hello(boot_id=rough.link.boot_id), "BOOT_ID_IN_USE"
    yield rough.hello(stream=2), "REFUSED"
    yield rough.hello(stream=1), "REFUSED"
    yield rough.hello(streams=0, lane_class=1), "REFUSED"
    yield rough.hello(package=b"nonsense"), "REFUSED"
    yield rough.hello(epoch=4), "OLD_EPOCH"
    yield rough.hello(next_sequence=0), "RESET"
    yield rough.hello(epoch=6, next_sequence=2), "RESET"
    yield rough.hello(boot_id=os.urandom(16), next_sequence=2), "RESET"
    yield rough.hello(version_min=2, version_max=3), "VERSION"
    yield rough.hello(required=1), "VERSION"
    yield damaged(rough.hello(), 40), "closed"
    yield rough.hello(lane_class=2), "closed"
    # Bytes before the answer.
    yield rough.hello(epoch=7) + data(1, b"too early"), "closed"
    yield rough.hello(epoch=8, flags=wire.AFTER_CUT, version_max=9, offered=0xFFFF), "OK"


def all_wrong(member, link):
    """What was answered otherwise than it should be; empty if nothing."""
    rough, wrong = Rough(member, link), []
    for number, (hello, expected) in enumerate(hellos(rough)):
        found = rough.name(hello)
        if found != expected:
            wrong.append("hello-%d:%s-not-%s" % (number, found, expected))
    for name, what in WRONG.items():
        found = rough.refused(what)
        if found != ("104 1" if name == "too-long" else "207 1"):
            wrong.append("%s:%s" % (name, found.replace(" ", "/")))
    return wrong
