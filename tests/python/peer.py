"""A member that is driven by lines on standard input; each is answered by one line that starts with
"> ". Arguments are name=value: host, port, peers (host:port, comma between), cluster, streams, id.

Payloads carry what the other side checks: from 16 bytes on the hash of the key, 4 bytes, the size, 4,
and the number among the messages of that key from this sender, 8; then bytes (place + number) % 251. Shorter
ones are the number's low byte, repeated.

send key=K size=N count=C mode=none|received|applied [reply=1] [short=1] [envelope=0]
                           (size=N+M: in turn) to every member; waits for all: "sent= failed= by=PORT:STATUS,..."
members count=N            waits for so many members: "members="
received [count=N]         waits for so many messages: "received= damaged= disordered= duplicates="
fail next=N, failed        N more listeners fail; how many have: "failed="
hold, release              listeners wait
join, echo                 asks every member: "joined=", "echoed="
refuse key=K count=N       says to every member that N messages were refused here
drop-connections [reset=1] breaks all connections: "dropped="
gaps [count=N]             waits for so many Gap events: "gaps="
goodbye                    draining
faults                     what went wrong so far, in words
rough                      sends every member what it has to refuse: "rough= " and what was not
state                      where its streams stand, for people
quit
"""

import faulthandler
import signal
import struct
import sys
import threading

import ringtribe_wire as wire
from ringtribe_member import Member
from rough import all_wrong

PATTERN = bytes(range(251))
WAIT = 60.0


def payload_of(key, size, number):
    if size < 16:
        return bytes([number & 255]) * size
    head = struct.pack("<IIQ", wire.hash_name(key) & 0xFFFFFFFF, size, number)
    start = (16 + number) % 251
    return head + (PATTERN * (size // 251 + 2))[start:start + size - 16]


class Driver:
    def __init__(self, arguments):
        peers = [p.rsplit(":", 1) for p in arguments.get("peers", "").split(",") if p]
        self.member = Member(
            self.listen, host=arguments.get("host", "127.0.0.1"), port=int(arguments.get("port", 0)),
            peers=[(host, int(port)) for host, port in peers],
            cluster=arguments.get("cluster", "").encode(), streams=int(arguments.get("streams", 2)),
            unique_id=bytes([int(arguments.get("id", 1))]) * 16,
            frequency=int(arguments.get("mcastFrequency", 100)) / 1000)
        self.changed = self.member.changed
        self.released = threading.Event()
        self.released.set()
        self.fails_left = self.received = self.damaged = self.disordered = self.duplicates = 0
        self.failed_count = 0
        self.last, self.seen, self.sent, self.tokens = {}, set(), {}, 0

    def listen(self, payload, opener, key):
        self.released.wait()
        with self.changed:
            self.check(payload, (opener, key))
            self.received += 1
            self.changed.notify_all()
            if self.fails_left:
                self.fails_left -= 1
                self.failed_count += 1
                return 202
            return 0

    def check(self, payload, name):
        size, number, last = len(payload), None, self.last.get(name, -1)
        if size >= 16:
            key, stated, number = struct.unpack_from("<IIQ", payload)
            start = (16 + number) % 251
            if (key, stated) != (name[1] & 0xFFFFFFFF if name[1] else key, size) or \
                    payload[16:] != (PATTERN * (size // 251 + 2))[start:start + size - 16]:
                self.damaged += 1
                return
            if (name, number) in self.seen:
                self.duplicates += 1
                return
            self.seen.add((name, number))
        elif not name[1]:
            return
        else:
            # Its number is not told but for the low byte.
            number = last + 1
            if any(byte != number & 255 for byte in payload):
                self.damaged += 1
        if name[1] and number != last + 1:
            self.disordered += 1
        self.last[name] = max(last, number)

    # Commands.

    def send(self, key="", size="0", count="1", mode="applied", reply="0", short="0", envelope="1"):
        name, links = key.encode(), self.member.live()
        flags = (wire.REPLY if reply == "1" else 0) | (wire.SHORT if short == "1" else 0)
        sent = []
        sizes = [int(one) for one in size.split("+")]
        for n in range(int(count)):
            number = self.sent.get(name, 0)
            self.sent[name] = number + 1
            payload = payload_of(name, sizes[n % len(sizes)], number)
            sent += [(link, self.member.submit(link, payload, name, mode, flags, envelope == "1"))
                     for link in links]
        statuses = self.member.await_all([message for _, message in sent], WAIT)
        failed = ["%d:%d" % (link.address[1], status)
                  for (link, _), status in zip(sent, statuses) if status]
        return "sent=%d failed=%d by=%s" % (len(sent), len(failed), ",".join(failed))

    def members(self, count="1"):
        self.member.await_for(lambda: len(self.member.live()) == int(count), WAIT)
        return "members=%d" % len(self.member.live())

    def received_(self, count="0"):
        self.member.await_for(lambda: self.received >= int(count), WAIT)
        return "received=%d damaged=%d disordered=%d duplicates=%d" % (
            self.received, self.damaged, self.disordered, self.duplicates)

    def fail(self, next="1"):
        with self.changed:
            self.fails_left += int(next)
        return "ok"

    def failed(self):
        with self.changed:
            return "failed=%d" % self.failed_count

    def hold(self):
        self.released.clear()
        return "ok"

    def release(self):
        self.released.set()
        return "ok"

    def join(self):
        self.tokens += 1
        return "joined=%d" % sum(self.member.join(link, self.tokens, WAIT)
                                 for link in self.member.live())

    def echo(self):
        def answered(link, after):
            return self.member.await_for(lambda: link.echoed.get("token", 0) > after, WAIT)
        return "echoed=%d" % sum(answered(link, link.echo_token) for link in self.member.live())

    def refuse(self, key="", count="1"):
        for link in self.member.live():
            self.member.refuse(link, key.encode(), int(count))
        return "ok"

    def drop_connections(self, reset="0"):
        return "dropped=%d" % self.member.drop_connections(reset == "1")

    def gaps(self, count="0"):
        self.member.await_for(lambda: self.member.gaps_count >= int(count), WAIT)
        return "gaps=%d" % self.member.gaps_count

    def goodbye(self):
        self.member.goodbye(final=False)
        return "ok"

    def faults(self):
        return "faults=%d %s" % (len(self.member.faults), "; ".join(self.member.faults))

    def rough(self):
        wrong = [word for link in self.member.live() for word in all_wrong(self.member, link)]
        return "rough=%d %s" % (len(wrong), " ".join(wrong))

    def state(self):
        with self.changed:
            said = []
            for link in self.member.links.values():
                for index, lane in link.lanes.items():
                    s = lane.stream
                    said.append("out %d: epoch %d next %d received %d applied %d position %d credit %d "
                                "granted %d queue %d open %s lane %s" % (
                                    index, link.epoch, s.next_sequence, s.received, s.applied,
                                    s.position, s.credit, s.granted, len(s.queue),
                                    s.chunked and s.chunked[1:], bool(lane.connection)))
            for (_, index), s in self.member.ins.items():
                said.append("in %d: epoch %d received %d applied %d position %d credit %d granted %d "
                            "open %s unconfirmed %d lane %s" % (
                                index, s.epoch, s.received, s.applied, s.position, s.credit, s.granted,
                                s.open and s.open.first, len(s.unconfirmed), bool(s.connection)))
            return "state " + "; ".join(said)


SAYING = threading.Lock()


def say(text):
    """One line, whole: answers come from several threads."""
    with SAYING:
        sys.stdout.write("> %s\n" % text)
        sys.stdout.flush()


COMMANDS = {"send", "members", "received", "fail", "failed", "hold", "release", "join", "echo", "refuse",
            "drop-connections", "gaps", "goodbye", "faults", "rough", "state"}


def main():
    # kill -USR1 makes it say where its threads are.
    faulthandler.register(signal.SIGUSR1)
    driver = Driver(dict(word.split("=", 1) for word in sys.argv[1:]))
    member = driver.member
    say("started port=%d boot=%s" % (member.port, member.boot_id.hex()))

    def answer(command, words):
        method = "received_" if command == "received" else command.replace("-", "_")
        say(getattr(driver, method)(**dict(word.split("=", 1) for word in words)))

    for line in sys.stdin:
        command, *words = line.split() or [""]
        if command == "quit":
            break
        if command not in COMMANDS:
            say("unknown command %r" % command)
            continue
        # In the background, so that connections can be broken while messages are under way.
        background = "background=1" in words
        words = [word for word in words if word != "background=1"]
        if background:
            threading.Thread(target=answer, args=(command, words), daemon=True).start()
        else:
            answer(command, words)
    member.close()
    say("bye")


if __name__ == "__main__":
    main()
