"""A connection: whole frames in, bytes out, and ways to end it."""

import queue
import socket
import struct
import threading

import ringtribe_wire as wire


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
