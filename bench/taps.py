"""Proxies that count what passes: bytes, and what a node asks of PostgreSQL. The object store's own
is tests/faultproxy.py, which knows the operations of S3."""

import collections
import socket
import struct
import threading

from nodes import services

PIECE = 256 * 1024
# What comes before the start of a session: requests for TLS and for GSS, answered with one byte.
NEGOTIATIONS = (80877103, 80877104)

# One round trip: the SQL of the statements that went out together. `number`: of the connection.
Trip = collections.namedtuple("Trip", "number statements")


class Tap(services.Service):
    """Before the server on loopback port `target`; counts the bytes of both directions."""

    def __init__(self, target):
        self.target = target
        self.port = services.free_ports()
        self.lock = threading.Lock()
        self.to_server = self.to_client = 0
        self.connections = 0
        self.listener = None

    def start(self):
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def stop(self):
        if self.listener is not None:
            self.listener.close()  # connections end with the processes at their ends

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            self.connections += 1
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            look = self.reader(self.connections)
            for pair in ((client, server, look), (server, client, None)):
                threading.Thread(target=self.pump, args=pair, daemon=True).start()

    def reader(self, number):
        """What looks at the bytes to the server, piece by piece; or None."""
        del number

    def pump(self, source, sink, look):
        to_server = source.getsockname()[1] == self.port
        try:
            while piece := source.recv(PIECE):
                if look is not None:
                    look(piece)
                with self.lock:
                    self.to_server += len(piece) if to_server else 0
                    self.to_client += 0 if to_server else len(piece)
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class PostgresTap(Tap):
    """Keeps the round trips: what ends with a Sync, or is a query of the simple protocol."""

    def __init__(self, target):
        super().__init__(target)
        self.trips = []

    def reader(self, number):
        session = Session(number, self.trips)
        return session.look


class Session:
    """One connection, as "Frontend/Backend Protocol" of PostgreSQL's manual has it."""

    def __init__(self, number, trips):
        self.number = number
        self.trips = trips
        self.buffer = b""
        self.typed = False
        self.prepared = {}
        self.batch = []

    def look(self, piece):
        self.buffer += piece
        while self.eat():
            pass

    def eat(self):
        """Takes one message off the buffer. False: none is whole."""
        head = 5 if self.typed else 4
        if len(self.buffer) < head:
            return False
        (size,) = struct.unpack_from(">i", self.buffer, head - 4)
        end = head - 4 + size
        if len(self.buffer) < end:
            return False
        kind, body = self.buffer[: head - 4], self.buffer[head:end]
        self.buffer = self.buffer[end:]
        if self.typed:
            self.message(kind, body)
        else:
            self.typed = struct.unpack_from(">i", body)[0] not in NEGOTIATIONS
        return True

    def message(self, kind, body):
        if kind == b"P":
            name, sql = body.split(b"\0")[:2]
            self.prepared[name] = sql.decode()
        elif kind == b"B":
            self.batch.append(self.prepared[body.split(b"\0")[1]])
        elif kind == b"Q":
            self.batch.append(body.rstrip(b"\0").decode())
            self.over()
        elif kind == b"S":
            self.over()

    def over(self):
        self.trips.append(Trip(self.number, tuple(self.batch)))
        self.batch = []
