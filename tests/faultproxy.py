"""A proxy that misbehaves when told to: between nodes and their object store or database.

    with FaultProxy(store.port) as proxy:
        … --s3-endpoint {proxy.endpoint} …
        proxy.fail(503, share=0.3)                     # a third of all requests
        proxy.fail(500, kinds={"UploadPart"}, after=True)  # done, but the answer says otherwise
        proxy.fail(503, after=True, late=True)         # done, and not answered before heal()
        proxy.drop("answer", share=0.1)                # the connection breaks in the answer
        proxy.slow(delay=0.2, bytes_per_second=1 << 20)
        proxy.cut()                                    # nobody is there
        proxy.hang()                                   # connections stay, nothing moves
        proxy.heal()
        proxy.count("UploadPart")                      # requests that came, by kind

Everything is passed on byte for byte. S3 signatures cover the Host header: nodes sign for the
proxy's address, and the store checks the header that arrives, so that they agree.
"""

import collections
import random
import re
import select
import socket
import threading
import time
import urllib.parse

from services import free_ports, Service

PIECE = 256 * 1024
HEAD_MAX = 128 * 1024

# status: what the client was answered; 0: nothing, or not all of it
Request = collections.namedtuple("Request", "time method kind target status")


def kind_of(method, target):
    """The S3 operation of a request in path style, by the name that the API gives it."""
    path, _, query = target.partition("?")
    given = urllib.parse.parse_qs(query, keep_blank_values=True)
    bucket, _, key = path.lstrip("/").partition("/")
    if not key:
        if method == "GET" and "uploads" in given:
            return "ListMultipartUploads"
        if method == "POST" and "delete" in given:
            return "DeleteObjects"
        return {"GET": "ListObjects" if bucket else "ListBuckets", "HEAD": "HeadBucket",
                "PUT": "CreateBucket", "DELETE": "DeleteBucket"}.get(method, method)
    if "uploadId" in given:
        return {"PUT": "UploadPart", "POST": "CompleteMultipartUpload",
                "DELETE": "AbortMultipartUpload", "GET": "ListParts"}.get(method, method)
    if "uploads" in given and method == "POST":
        return "CreateMultipartUpload"
    return {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject",
            "DELETE": "DeleteObject"}.get(method, method)


class _Broken(Exception):
    """The connection is to be reset at both ends."""


class _Fault(collections.namedtuple("_Fault", "what status share kinds after late")):
    def hits(self, kind):
        return (not self.kinds or kind in self.kinds) and random.random() < self.share


class _Stream:
    """A socket with what was read of it beforehand."""

    def __init__(self, sock):
        self.sock = sock
        self.ahead = b""

    def read(self, size):
        if self.ahead:
            piece, self.ahead = self.ahead[:size], self.ahead[size:]
            return piece
        return self.sock.recv(min(size, PIECE))

    def until(self, mark, limit=HEAD_MAX):
        """Up to and with `mark`; b"" when the peer closed before the first byte."""
        while mark not in self.ahead:
            piece = self.sock.recv(PIECE)
            if not piece:
                if not self.ahead:
                    return b""
                raise _Broken("closed within a head")
            self.ahead += piece
            if len(self.ahead) > limit + PIECE:
                raise _Broken("a head without end")
        got, _, self.ahead = self.ahead.partition(mark)
        return got + mark


def _headers(head):
    fields = collections.defaultdict(str)
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        fields[name.strip().lower().decode("latin-1")] = value.strip().decode("latin-1")
    return fields


def _reset(sock):
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    except OSError:
        pass
    try:
        sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it
    except OSError:
        pass
    sock.close()


class FaultProxy(Service):
    """Before the server on loopback port `target`. http=False: it knows no requests, and only
    slow, cut, hang and lose mean something (for PostgreSQL)."""

    def __init__(self, target, *, http=True):
        self.target = target
        self.http = http
        self.port = free_ports()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._lock = threading.Lock()
        self._sockets = set()
        self._listener = None
        self._flowing = threading.Event()
        self._healed = threading.Event()
        self._faults = ()
        self._delay = 0.0
        self._rate = None
        self._lost = None
        self.requests = collections.deque(maxlen=1_000_000)
        self.connections = 0
        self.injected = 0  # faults that were given to somebody
        self.heal_switches()

    # ---- Life ----

    def start(self):
        self._listen()
        return self

    def stop(self):
        self._flowing.set()
        self._healed.set()
        self._close_all()

    def _listen(self):
        with self._lock:
            if self._listener is not None:
                return
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self.port))
            listener.listen(512)
            self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _close_all(self):
        with self._lock:
            listener, self._listener = self._listener, None
            sockets, self._sockets = self._sockets, set()
        if listener is not None:
            _reset(listener)
        for one in sockets:
            _reset(one)

    # ---- Switches ----

    def heal_switches(self):
        self._faults, self._delay, self._rate, self._lost = (), 0.0, None, None
        self._flowing.set()
        self._healed.set()

    def heal(self):
        """All is well again; connections that hung go on."""
        self.heal_switches()
        self._listen()

    def fail(self, status=503, *, share=1.0, kinds=None, after=False, late=False):
        """Answers so. after: the server does what it is asked, but its answer is lost; and late:
        this one waits for heal()."""
        if late:
            self._healed.clear()
        self._faults += (_Fault("status", status, share, frozenset(kinds or ()), after, late),)

    def drop(self, where="request", *, share=1.0, kinds=None):
        """Resets the connection in the middle of the request's body or of the answer, or
        "before_answer": when the server has answered, and nobody heard."""
        assert where in ("request", "answer", "before_answer"), where
        self._faults += (_Fault(where, 0, share, frozenset(kinds or ()), False, False),)

    def slow(self, *, delay=0.0, bytes_per_second=None):
        """delay: seconds before each request (each piece, if it is not HTTP). The rate holds for
        each connection and direction."""
        self._delay, self._rate = delay, bytes_per_second

    def lose(self, mark, *, share=1.0):
        """Breaks the connection instead of passing on what holds `mark` and comes from the server;
        not for HTTP."""
        self._lost = mark, share

    def cut(self):
        """Refuses connections, and resets those that are."""
        self._close_all()

    def hang(self):
        """Takes connections, but moves nothing, as a network that loses all packets."""
        self._flowing.clear()

    # ---- What it saw ----

    def count(self, *kinds, method=None, status=None):
        """Requests since the start or reset(): all, or those of these kinds."""
        return sum((not kinds or request.kind in kinds) and method in (None, request.method)
                   and status in (None, request.status) for request in list(self.requests))

    def counts(self):
        """Requests by kind."""
        return collections.Counter(request.kind for request in list(self.requests))

    def reset(self):
        self.requests.clear()
        self.injected = 0

    # ---- Connections ----

    def _accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        server = None
        try:
            self._flowing.wait()
            server = socket.create_connection(("127.0.0.1", self.target), timeout=30)
            server.settimeout(None)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if self._listener is None:
                    raise _Broken("cut")
                self._sockets |= {client, server}
            if self.http:
                client_stream, server_stream = _Stream(client), _Stream(server)
                while self._exchange(client_stream, server_stream):
                    pass
                client.close()
                server.close()
            else:
                self._tunnel(client, server)
        except (OSError, _Broken, ValueError):
            for one in (client, server):
                if one is not None:
                    _reset(one)
        finally:
            with self._lock:
                self._sockets -= {client, server}

    def _loses(self, piece):
        if self._lost is None:
            return False
        mark, share = self._lost
        hit = mark in piece and random.random() < share
        self.injected += hit
        return hit

    def _tunnel(self, client, server):
        def pump(source, sink):
            try:
                while piece := source.recv(PIECE):
                    if self._delay:
                        time.sleep(self._delay)
                    if source is server and self._loses(piece):
                        raise ConnectionError("told to")
                    self._send(sink, piece)
                sink.shutdown(socket.SHUT_WR)
            except OSError:
                _reset(source)
                _reset(sink)

        back = threading.Thread(target=pump, args=(server, client), daemon=True)
        back.start()
        pump(client, server)
        back.join()
        client.close()
        server.close()

    def _send(self, sink, data):
        rate = self._rate
        step = len(data) if rate is None else max(1, min(len(data), int(rate / 20)))
        for start in range(0, len(data), max(step, 1)):
            self._flowing.wait()
            sink.sendall(data[start:start + step])
            if rate is not None:
                time.sleep(min(step, len(data) - start) / rate)

    def _pass(self, source, sink, size, break_at=None):
        """`size` bytes, or all when it is None. break_at: the connection breaks there."""
        passed = 0
        while size is None or passed < size:
            piece = source.read(PIECE if size is None else size - passed)
            if not piece:
                if size is None:
                    return
                raise _Broken("closed within a body")
            if break_at is not None and passed + len(piece) >= break_at:
                self._send(sink, piece[:break_at - passed])
                raise _Broken("told to")
            self._send(sink, piece)
            passed += len(piece)
        if break_at is not None:
            raise _Broken("told to")

    def _pass_chunks(self, source, sink, break_at=None):
        passed = 0
        while True:
            line = source.until(b"\r\n")
            size = int(line.split(b";")[0], 16)
            self._send(sink, line)
            left = None if break_at is None or passed + size < break_at else break_at - passed
            self._pass(source, sink, size, left)
            passed += size
            if size == 0:
                break
            self._send(sink, source.until(b"\r\n"))
        while (line := source.until(b"\r\n")) != b"\r\n":
            self._send(sink, line)
        self._send(sink, line)
        if break_at is not None:
            raise _Broken("told to")

    def _pass_body(self, source, sink, fields, broken):
        """By Content-Length or in chunks; `broken`: only half of it, or the first KiB."""
        if "chunked" in fields["transfer-encoding"].lower():
            self._pass_chunks(source, sink, 1024 if broken else None)
        else:
            size = int(fields["content-length"] or 0)
            self._pass(source, sink, size, size // 2 if broken else None)

    def _exchange(self, client, server):
        """One request and its answer. False: the connection has done its work."""
        if not client.ahead:
            ready = select.select([client.sock, server.sock], [], [])[0]
            if client.sock not in ready:
                return False  # the server closed what was idle, and so does the proxy
        head = client.until(b"\r\n\r\n")
        if not head:
            return False
        self._flowing.wait()
        match = re.match(rb"([A-Z]+) (\S+) HTTP/1\.[01]\r\n", head)
        if not match:
            raise _Broken("not HTTP")
        method, target = match.group(1).decode(), match.group(2).decode("latin-1")
        kind, fields = kind_of(method, target), _headers(head)
        if kind == "UploadPart" and fields["x-amz-copy-source"]:
            kind = "UploadPartCopy"
        elif kind == "PutObject" and fields["x-amz-copy-source"]:
            kind = "CopyObject"
        if self._delay:
            time.sleep(self._delay)
        fault = next((fault for fault in self._faults if fault.hits(kind)), None)
        self.injected += fault is not None
        noted = []

        def note(status):
            """Once, before the client can know how it went."""
            if not noted:
                noted.append(status)
                self.requests.append(Request(time.time(), method, kind, target, status))

        try:
            if fault is not None and fault.what == "status" and not fault.after:
                return self._refuse(client, fields, method, fault.status, note)
            return self._forward(client, server, head, method, fields, fault, note)
        except BaseException:
            note(0)
            raise

    def _refuse(self, client, fields, method, status, note):
        """An answer of the proxy's own, after the request was read as a server would read it."""
        if fields["expect"].lower() != "100-continue":
            self._pass_body(client, _NOWHERE, fields, False)
        note(status)
        self._own_answer(client, method, status)
        return fields["expect"].lower() != "100-continue"

    def _own_answer(self, client, method, status):
        code = {503: "SlowDown", 500: "InternalError"}.get(status, "Fault")
        body = (f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code>'
                f"<Message>told to fail</Message></Error>").encode()
        head = (f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\n"
                f"Content-Length: {len(body)}\r\n\r\n").encode()
        self._send(client.sock, head + (b"" if method == "HEAD" else body))

    def _forward(self, client, server, head, method, fields, fault, note):
        where = fault.what if fault is not None else None
        self._send(server.sock, head)
        answer = None
        if fields["expect"].lower() == "100-continue":
            answer = server.until(b"\r\n\r\n")
            if answer.startswith((b"HTTP/1.1 100", b"HTTP/1.0 100")):
                self._send(client.sock, answer)
                answer = None
        if answer is None:
            try:
                self._pass_body(client, server.sock, fields, where == "request")
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused while it was sent: the answer may be there to read
            answer = server.until(b"\r\n\r\n")
            while answer.startswith((b"HTTP/1.1 100", b"HTTP/1.0 100")):
                answer = server.until(b"\r\n\r\n")
        if not answer:
            raise _Broken("no answer")
        if where == "before_answer":
            raise _Broken("told to")
        status, answer_fields = int(answer.split(b" ")[1]), _headers(answer)
        note(fault.status if where == "status" else 0 if where == "answer" else status)
        if where == "status":
            self._answer_body(server, _NOWHERE, method, status, answer_fields, False)
            if fault.late:
                self._healed.wait()
            self._own_answer(client, method, fault.status)
        else:
            if where == "answer" and not _bytes_follow(method, status, answer_fields):
                self._send(client.sock, answer[:10])
                raise _Broken("told to")
            self._send(client.sock, answer)
            self._answer_body(server, client.sock, method, status, answer_fields,
                              where == "answer")
        closes = "close" in (fields["connection"] + answer_fields["connection"]).lower()
        unbounded = not answer_fields["content-length"] and not answer_fields["transfer-encoding"]
        return not closes and not (unbounded and _has_body(method, status))

    def _answer_body(self, server, sink, method, status, fields, broken):
        if not _has_body(method, status):
            return
        if fields["content-length"] or fields["transfer-encoding"]:
            self._pass_body(server, sink, fields, broken)
        else:
            self._pass(server, sink, None, 1 if broken else None)


def _has_body(method, status):
    return method != "HEAD" and status not in (204, 304) and status >= 200


def _bytes_follow(method, status, fields):
    return _has_body(method, status) and fields["content-length"] != "0"


class _Nowhere:
    """A sink for bytes that nobody wants."""

    @staticmethod
    def sendall(_data):
        pass


_NOWHERE = _Nowhere()
