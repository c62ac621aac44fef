"""Runs the holdfast binary and speaks HTTP to it, for the tests and the benchmarks.

Standard library only. A Server is one process over one data folder; a Client is one kept
connection to it. Everything sent can be raw, so that tests may be as rude as clients are.

    server = Server("/tmp/data").start()
    client = Client(server)
    image = make_image(layers=2)
    push_image(client, "team/app", image, tag="v1")
    assert client.get("/v2/team/app/manifests/v1").body == image.body
    assert server.stop() == 0
"""

import collections
import hashlib
import http.client
import json
import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
from pathlib import Path

import services

REPOSITORY = Path(__file__).resolve().parent.parent
BINARY = os.environ.get("HOLDFAST_BIN", str(REPOSITORY / "build" / "holdfast"))

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCTETS = "application/octet-stream"
ACCEPT = ", ".join([MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST])

SANITIZER_REPORT = re.compile(
    r"AddressSanitizer|ThreadSanitizer|LeakSanitizer|MemorySanitizer|"
    r"UndefinedBehaviorSanitizer|runtime error:")


def _binary_holds(binary, text):
    try:
        return text in Path(binary).read_bytes()
    except OSError:
        return False


def has_test_hooks(binary=None):
    """Whether the binary was built with crash points and a clock that can be shifted."""
    return _binary_holds(binary or BINARY, b"HOLDFAST_TEST_CRASH")


def is_sanitized(binary=None):
    return any(_binary_holds(binary or BINARY, name) for name in (b"__asan_init", b"__tsan_init"))


def clean_environment(extra=None):
    """This process's environment without settings of holdfast, and `extra` on top."""
    env = {k: v for k, v in os.environ.items()
           if not k.startswith(("HOLDFAST_", "LISTEN_", "NOTIFY_"))}
    env.update({k: str(v) for k, v in (extra or {}).items()})
    return env


def run(*arguments, env=None, timeout=60, binary=None, cwd=None):
    """Runs a subcommand to its end. Returns returncode, stdout and stderr (text). With --data it
    works on what a Server over that folder works on."""
    texts = [str(argument) for argument in arguments]
    if "--data" in texts[:-1] and texts[0] != "check-config":
        env = {**Server.backend(texts[texts.index("--data") + 1]), **(env or {})}
    result = subprocess.run([str(binary or BINARY), *texts], text=True,
                            stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout,
                            env=clean_environment(env), cwd=cwd, errors="replace")
    report = SANITIZER_REPORT.search(result.stderr)
    if report:
        raise AssertionError(f"sanitizer report from {arguments}:\n{result.stderr}")
    return result


class ServerFailed(AssertionError):
    """The server did not start, ended by itself, or a sanitizer reported."""


class Server:
    """One `holdfast serve` over the folder `data`; it can be started again after it ended.

    args: further flags. env: further variables. wrapper: a command to run it under (strace …).
    listen: None for a free loopback port. scheme "https" makes Client speak TLS.
    ca: a PEM file that a Client checks the server against; without it nothing is checked.
    log_file: takes what it says; then only what it said until it listened is kept in memory too.
    """

    # Where servers keep what they hold, if not in their folder: variables for each folder.
    backend = staticmethod(lambda data: {})

    def __init__(self, data, *, args=(), env=None, binary=None, scheme="http",
                 listen="127.0.0.1:0", ca=None, wrapper=(), pass_fds=(), log_file=None):
        self.data = Path(data)
        self.args = [str(a) for a in args]
        self.env = dict(env or {})
        self.binary = str(binary or BINARY)
        self.scheme = scheme
        self.listen = listen
        self.ca = ca
        self.wrapper = [str(w) for w in wrapper]
        self.pass_fds = tuple(pass_fds)
        self.log_file = log_file
        self.address = None
        self.log = []    # parsed lines of all runs
        self.noise = []  # lines that are not JSON: sanitizers, strace
        self.process = None
        self._changed = threading.Condition()
        self._reader = None
        self._reader_done = True
        self._expected_end = False

    # ---- Life ----

    def command(self):
        command = self.wrapper + [self.binary, "serve", "--data", str(self.data),
                                  "--log-format", "json"]
        if self.listen is not None:
            command += ["--listen", self.listen]
        return command + self.args

    def start(self, timeout=60):
        """Returns self when the server listens; raises with its log when it ends before."""
        assert self.process is None or self.process.poll() is not None, "it is running"
        first = len(self.log)
        self.address = None
        self._expected_end = False
        environment = clean_environment({**self.backend(self.data), **self.env})
        self.process = services.popen(services.guarded(*self.command()), env=environment,
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.PIPE, pass_fds=self.pass_fds)
        self._reader_done = False
        self._reader = threading.Thread(target=self._read_log, args=(self.process.stderr,),
                                        daemon=True)
        self._reader.start()
        line = self.wait_log(lambda l: l.get("message") == "listening", timeout, first)
        if line is None:
            self._expected_end = True
            running = self.process.poll() is None
            if running:
                self.process.kill()
            self.process.wait()
            self._reader.join(10)
            why = "does not listen" if running else f"ended with {self.process.returncode}"
            raise ServerFailed(f"the server {why}:\n{self.log_text(first)}")
        self.address = line["address"]
        return self

    def start_fails(self, timeout=60):
        """For a server that must refuse to start: its exit code and all that it said."""
        first, first_noise = len(self.log), len(self.noise)
        try:
            self.start(timeout)
        except ServerFailed:
            return self.process.returncode, self.log_text(first, first_noise)
        self.kill()
        raise ServerFailed("the server started, which it should have refused")

    def stop(self, timeout=40):
        """SIGTERM; returns the exit code."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self._expected_end = True
            self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def pause(self):
        """SIGSTOP: it is there, and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        """SIGKILL, as a crash would end it."""
        if self.process is not None:
            self._expected_end = True
            if self.process.poll() is None:
                self.process.kill()
            self.wait(30)

    def wait(self, timeout=60):
        """Waits for an end that the test knows of; returns the exit code (-9: SIGKILL)."""
        self._expected_end = True
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise ServerFailed(f"the server did not end in {timeout} s:\n{self.log_text()}")
        self._reader.join(10)
        return code

    def expect_end(self):
        """From here on, its ending by itself is no failure."""
        self._expected_end = True

    def restart(self, timeout=60):
        self.stop(timeout)
        return self.start(timeout)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def check(self):
        """Raises when it ended by itself or a sanitizer reported."""
        if self.process is not None and self.process.poll() is not None and not self._expected_end:
            self._reader.join(10)
            raise ServerFailed(f"the server ended with {self.process.returncode}:\n"
                               f"{self.log_text()}")
        for number, line in enumerate(self.noise):
            if SANITIZER_REPORT.search(line):
                raise ServerFailed("sanitizer report:\n" + "\n".join(self.noise[number:][:150]))

    def close(self):
        """Ends it whatever its state and checks what it left; for teardown."""
        code = None
        if self.running():
            code = self.stop()
        self.check()
        if code not in (None, 0):
            raise ServerFailed(f"exit code {code} after SIGTERM:\n{self.log_text()}")

    def __enter__(self):
        return self if self.running() else self.start()

    def __exit__(self, *_):
        self.close()

    # ---- What it said ----

    def _read_log(self, stream):
        file = open(self.log_file or os.devnull, "ab", buffering=0)
        with stream, file:
            for raw in stream:
                file.write(raw)
                if self.log_file is not None and self.address is not None:
                    continue
                text = raw.decode("utf-8", "replace").rstrip("\n")
                try:
                    line = json.loads(text)
                    is_line = isinstance(line, dict)
                except ValueError:
                    is_line = False
                with self._changed:
                    if is_line:
                        self.log.append(line)
                    else:
                        self.noise.append(text)
                    self._changed.notify_all()
        with self._changed:
            self._reader_done = True
            self._changed.notify_all()

    def wait_log(self, wanted, timeout=10, first=0):
        """The first line from number `first` on for which wanted(line), or None after `timeout`
        seconds or when the process ends."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                while first < len(self.log):
                    if wanted(self.log[first]):
                        return self.log[first]
                    first += 1
                left = deadline - time.monotonic()
                if left <= 0 or self._reader_done:
                    return None
                self._changed.wait(left)

    def log_text(self, first=0, first_noise=0):
        return "\n".join([json.dumps(l) for l in self.log[first:]] + self.noise[first_noise:])

    # ---- What it is ----

    @property
    def host(self):
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self):
        return int(self.address.rpartition(":")[2])

    @property
    def url(self):
        return f"{self.scheme}://{self.address}"

    @property
    def pid(self):
        return self.process.pid

    def rss(self):
        """Resident memory in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise ServerFailed("no VmRSS: the server is gone")

    def open_files(self):
        """Clients' connections and blobs that are open. Connections to the database and the object
        store come and stay."""
        clients = self._sockets_of_clients()
        n = 0
        for fd in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                target = os.readlink(f"/proc/{self.pid}/fd/{fd}")
            except FileNotFoundError:
                continue  # closed meanwhile
            n += target in clients or "/blobs/sha" in target or "/uploads/" in target
        return n

    def _sockets_of_clients(self):
        """The sockets on the port that it listens on, as /proc names them."""
        found = set()
        for table in ("tcp", "tcp6"):
            try:
                lines = Path(f"/proc/{self.pid}/net/{table}").read_text().splitlines()[1:]
            except FileNotFoundError:
                continue
            for fields in map(str.split, lines):
                if int(fields[1].rpartition(":")[2], 16) == self.port:
                    found.add(f"socket:[{fields[9]}]")
        return found


# ---- HTTP ----

class Response:
    """status, headers (any case), body, and the errors of the registry's error body.
    redirect: the answer that sent the client elsewhere for this one, or None."""

    redirect = None

    def __init__(self, status, headers, body, reason=""):
        self.status = status
        self.headers = headers
        self.body = body
        self.reason = reason

    def json(self):
        return json.loads(self.body)

    @property
    def errors(self):
        try:
            return self.json()["errors"]
        except (ValueError, KeyError, TypeError):
            return []

    @property
    def codes(self):
        return [e.get("code") for e in self.errors]

    @property
    def code(self):
        """The first error code, or None."""
        return self.codes[0] if self.codes else None

    @property
    def location(self):
        return self.headers["Location"]

    @property
    def digest(self):
        """Of a blob that came from elsewhere, the registry has said it before."""
        return self.headers["Docker-Content-Digest"] or (self.redirect and self.redirect.digest)

    def __repr__(self):
        return f"<{self.status} {dict(self.headers.items())} {self.body[:600]!r}>"


Elsewhere = collections.namedtuple("Elsewhere", "scheme host port ca")


class Client:
    """One kept connection; it is opened again when the server closed it while it was idle.
    follow=False: redirects are answers like others."""

    def __init__(self, server, timeout=60, context=None, follow=True):
        self.server = server
        self.timeout = timeout
        self.follow = follow
        self.context = context
        self._connection = None
        self._used = False
        self._elsewhere = {}  # clients of other hosts, to which redirects led

    def _tls(self):
        if self.context is None:
            self.context = ssl.create_default_context(cafile=self.server.ca)
            if self.server.ca is None:
                self.context.check_hostname = False
                self.context.verify_mode = ssl.CERT_NONE
        return self.context

    def _connect(self):
        host, port = self.server.host, self.server.port
        if self.server.scheme == "https":
            self._connection = http.client.HTTPSConnection(host, port, timeout=self.timeout,
                                                           context=self._tls())
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=self.timeout)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._used = False

    def close(self):
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        for client in self._elsewhere.values():
            client.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def request(self, method, path, body=None, headers=None):
        """body: None, bytes (with Content-Length), or an iterable of bytes (sent chunked).
        path may be an absolute URL of this server. headers: dict, or list of pairs to repeat.
        A redirect to another host is followed as registries' clients do it."""
        if path.startswith(("http://", "https://")):
            parts = urllib.parse.urlsplit(path)
            path = parts.path + (f"?{parts.query}" if parts.query else "")
        pairs = list(headers.items()) if isinstance(headers, dict) else list(headers or [])
        answer = self._request(method, path, body, pairs)
        if answer.status == 307 and method in ("GET", "HEAD") and self.follow:
            return self._follow(answer, method, pairs)
        return answer

    def _follow(self, answer, method, pairs):
        """Credentials are for the registry alone."""
        target = urllib.parse.urlsplit(answer.location)
        assert target.scheme in ("http", "https") and target.port, answer
        place = (target.scheme, target.hostname, target.port)
        if place not in self._elsewhere:
            self._elsewhere[place] = Client(Elsewhere(*place, ca=None), self.timeout, follow=False)
        kept = [(name, value) for name, value in pairs
                if name.lower() not in ("authorization", "cookie", "host")]
        final = self._elsewhere[place].request(method, answer.location, None, kept)
        final.redirect = answer
        return final

    def _request(self, method, path, body, pairs):
        if self._connection is None:
            self._connect()
        again = self._used and (body is None or isinstance(body, (bytes, bytearray, memoryview)))
        try:
            return self._exchange(method, path, body, pairs)
        except (http.client.RemoteDisconnected, ConnectionError):
            self.close()
            if not again:
                raise
        except BaseException:
            self.close()
            raise
        self._connect()
        try:
            return self._exchange(method, path, body, pairs)
        except BaseException:
            self.close()
            raise

    def _exchange(self, method, path, body, pairs):
        connection = self._connection
        names = {name.lower() for name, _ in pairs}
        connection.putrequest(method, path, skip_host="host" in names, skip_accept_encoding=True)
        chunked = False
        if body is None:
            if method in ("POST", "PUT", "PATCH") and "content-length" not in names:
                connection.putheader("Content-Length", "0")
        elif isinstance(body, (bytes, bytearray, memoryview)):
            if "content-length" not in names:
                connection.putheader("Content-Length", str(len(body)))
        else:
            chunked = "content-length" not in names
            if chunked:
                connection.putheader("Transfer-Encoding", "chunked")
        for name, value in pairs:
            connection.putheader(name, value)
        try:
            connection.endheaders(body, encode_chunked=chunked)
        except (BrokenPipeError, ConnectionResetError):
            # Refused while it was sent: the answer may be there to read. When it is not, the
            # reading below fails too.
            pass
        answer = connection.getresponse()
        result = Response(answer.status, answer.headers, answer.read(), answer.reason)
        self._used = True
        if answer.will_close:
            self.close()
        return result

    def get(self, path, headers=None):
        return self.request("GET", path, None, headers)

    def head(self, path, headers=None):
        return self.request("HEAD", path, None, headers)

    def post(self, path, body=None, headers=None):
        return self.request("POST", path, body, headers)

    def put(self, path, body=None, headers=None):
        return self.request("PUT", path, body, headers)

    def patch(self, path, body=None, headers=None):
        return self.request("PATCH", path, body, headers)

    def delete(self, path, headers=None):
        return self.request("DELETE", path, None, headers)

    def raw(self, data=b"", timeout=None):
        """A socket of its own on which `data` was sent as it is."""
        return Raw(self.server, data, timeout or self.timeout,
                   self._tls() if self.server.scheme == "https" else None)


class Raw:
    """A socket for what http.client would never send."""

    def __init__(self, server, data=b"", timeout=30, context=None):
        self.socket = socket.create_connection((server.host, server.port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname=server.host)
        if data:
            self.send(data)

    def send(self, data):
        self.socket.sendall(data)
        return self

    def response(self, method="GET"):
        """Reads one answer; the connection stays."""
        answer = http.client.HTTPResponse(self.socket, method=method)
        answer.begin()
        return Response(answer.status, answer.headers, answer.read(), answer.reason)

    def read_all(self):
        """Everything up to the server's close (or reset)."""
        got = b""
        try:
            while piece := self.socket.recv(65536):
                got += piece
        except ConnectionError:
            pass
        return got

    def closed_within(self, seconds):
        """Whether the server closes within that time, whatever it sends before."""
        deadline = time.monotonic() + seconds
        try:
            while (left := deadline - time.monotonic()) > 0:
                self.socket.settimeout(left)
                if not self.socket.recv(65536):
                    return True
        except (TimeoutError, socket.timeout):
            return False
        except ConnectionError:
            return True
        return False

    def reset(self):
        """Closes with a TCP reset, as a client that vanishes."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# ---- Content ----

def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def sha512(data):
    return "sha512:" + hashlib.sha512(data).hexdigest()


def digest_of(data, algorithm="sha256"):
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def random_name(prefix="repo"):
    return f"{prefix}-{secrets.token_hex(6)}"


def random_bytes(size=1000):
    return secrets.token_bytes(size)


def with_query(location, **parameters):
    """The location with parameters appended; a value that is a list is repeated."""
    text = urllib.parse.urlencode(parameters, doseq=True)
    return location + ("&" if "?" in location else "?") + text


def encode(value):
    """JSON as clients write it; the bytes are what is hashed."""
    return json.dumps(value, separators=(",", ":")).encode()


def descriptor(data, media_type=OCTETS, algorithm="sha256", **more):
    return {"mediaType": media_type, "digest": digest_of(data, algorithm), "size": len(data),
            **more}


class Manifest:
    """A manifest or an index: `body` as it is sent, the blobs and child manifests it needs."""

    def __init__(self, content, blobs=(), children=(), body=None, media_type=None):
        self.content = content
        self.body = encode(content) if body is None else body
        self.media_type = media_type or content["mediaType"]
        self.blobs = list(blobs)
        self.children = list(children)

    @property
    def digest(self):
        return sha256(self.body)

    @property
    def sha512(self):
        return sha512(self.body)

    def descriptor(self, algorithm="sha256", **more):
        return descriptor(self.body, self.media_type, algorithm, **more)


def make_image(layers=1, size=1000, *, config=None, layer_blobs=None, media_type=MANIFEST,
               config_type=None, layer_type=None, algorithm="sha256", **fields):
    """An image with random layers. fields: subject=, artifactType=, annotations= …"""
    docker = media_type == DOCKER_MANIFEST
    if config is None:
        config = encode({"architecture": "amd64", "os": "linux", "unique": secrets.token_hex(8),
                         "rootfs": {"type": "layers", "diff_ids": []}})
    if layer_blobs is None:
        layer_blobs = [random_bytes(size) for _ in range(layers)]
    config_type = config_type or (DOCKER_CONFIG if docker else CONFIG)
    layer_type = layer_type or (DOCKER_LAYER if docker else LAYER)
    content = {"schemaVersion": 2, "mediaType": media_type,
               "config": descriptor(config, config_type, algorithm),
               "layers": [descriptor(b, layer_type, algorithm) for b in layer_blobs], **fields}
    return Manifest(content, [config, *layer_blobs])


def make_artifact(artifact_type, subject=None, *, annotations=None, content=b"{}"):
    """An artifact: an image manifest with the empty config and one small layer."""
    fields = {"artifactType": artifact_type}
    if subject is not None:
        fields["subject"] = subject
    if annotations is not None:
        fields["annotations"] = annotations
    return make_image(config=b"{}", config_type=EMPTY, layer_blobs=[content], layer_type=OCTETS,
                      **fields)


def make_index(children=(), *, media_type=INDEX, **fields):
    """An index over Manifest objects. fields: subject=, annotations=, artifactType= …"""
    platforms = ["amd64", "arm64", "arm", "s390x", "ppc64le", "riscv64"]
    entries = [child.descriptor(platform={"os": "linux", "architecture":
                                          platforms[i % len(platforms)]})
               for i, child in enumerate(children)]
    return Manifest({"schemaVersion": 2, "mediaType": media_type, "manifests": entries, **fields},
                    children=children)


# ---- Verbs; each checks the answer that the specification asks for ----

def start_upload(client, repo, **parameters):
    """Opens a session; returns its location."""
    path = f"/v2/{repo}/blobs/uploads/"
    answer = client.post(with_query(path, **parameters) if parameters else path)
    assert answer.status == 202, answer
    return answer.location


def push_blob(client, repo, data, *, algorithm="sha256", chunk=None):
    """POST + PUT, or POST + PATCHes of `chunk` bytes + PUT. Returns the digest."""
    digest = digest_of(data, algorithm)
    location = start_upload(client, repo)
    if chunk is None:
        answer = client.put(with_query(location, digest=digest), data, {"Content-Type": OCTETS})
    else:
        for start in range(0, len(data), chunk):
            piece = data[start:start + chunk]
            answer = client.patch(location, piece, {
                "Content-Type": OCTETS, "Content-Range": f"{start}-{start + len(piece) - 1}"})
            assert answer.status == 202, answer
            location = answer.location
        answer = client.put(with_query(location, digest=digest))
    assert answer.status == 201, answer
    return digest


def put_manifest(client, repo, reference, manifest, content_type=None):
    """The answer, whatever it is. manifest: a Manifest, or bytes with content_type."""
    if isinstance(manifest, Manifest):
        return client.put(f"/v2/{repo}/manifests/{reference}", manifest.body,
                          {"Content-Type": content_type or manifest.media_type})
    return client.put(f"/v2/{repo}/manifests/{reference}", manifest,
                      {"Content-Type": content_type or MANIFEST})


def push_manifest(client, repo, manifest, reference=None, content_type=None):
    """PUT under the tag or digest `reference` (its digest when None); returns the answer."""
    answer = put_manifest(client, repo, reference or manifest.digest, manifest, content_type)
    assert answer.status == 201, answer
    return answer


def push_image(client, repo, manifest, tag=None):
    """Blobs, children and the manifest itself; returns the digest."""
    for blob in dict.fromkeys(manifest.blobs):
        push_blob(client, repo, blob)
    for child in manifest.children:
        push_image(client, repo, child)
    push_manifest(client, repo, manifest, tag)
    return manifest.digest


def get_blob(client, repo, digest):
    """The bytes of a blob, checked against its digest."""
    answer = client.get(f"/v2/{repo}/blobs/{digest}")
    assert answer.status == 200, answer
    assert digest_of(answer.body, digest.partition(":")[0]) == digest, "bytes are not the blob"
    return answer.body


def get_manifest(client, repo, reference):
    """The answer to a pull, checked against its digest header."""
    answer = client.get(f"/v2/{repo}/manifests/{reference}", {"Accept": ACCEPT})
    assert answer.status == 200, answer
    digest = answer.digest
    assert digest_of(answer.body, digest.partition(":")[0]) == digest, "bytes are not the manifest"
    return answer


def pull_image(client, repo, reference):
    """Pulls as a client does: the manifest, its children, every blob; all are checked."""
    answer = get_manifest(client, repo, reference)
    content = answer.json()
    for child in content.get("manifests", []):
        pull_image(client, repo, child["digest"])
    for part in [content.get("config"), *content.get("layers", [])]:
        if part is not None:
            assert len(get_blob(client, repo, part["digest"])) == part["size"]
    return answer


def tags(client, repo):
    """All tags, following Link."""
    found, path = [], f"/v2/{repo}/tags/list"
    while path:
        answer = client.get(path)
        assert answer.status == 200, answer
        found += answer.json()["tags"]
        path = next_page(answer)
    return found


def next_page(answer):
    """The target of Link rel=next, or None."""
    link = answer.headers.get("Link")
    if link is None:
        return None
    match = re.fullmatch(r'<([^>]+)>\s*;\s*rel="next"', link)
    assert match, f"malformed Link: {link}"
    return match.group(1)


Sample = collections.namedtuple("Sample", "name labels value")


def metrics(client):
    """/metrics as a list of samples, parsed strictly by the text format 0.0.4."""
    answer = client.get("/metrics")
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4"), answer.headers
    return parse_metrics(answer.body.decode())


def parse_metrics(text):
    assert text.endswith("\n"), "the last line must end with a line feed"
    samples, types = [], {}
    for line in text.splitlines():
        if not line:
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert kind in ("counter", "gauge", "histogram", "summary", "untyped"), line
            assert name not in types, f"second TYPE for {name}"
            types[name] = kind
            continue
        if line.startswith("#"):
            continue
        match = re.fullmatch(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ([^ ]+)(?: -?[0-9]+)?', line)
        assert match, f"not a sample: {line}"
        labels = {}
        if match.group(2):
            pairs = re.findall(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)',
                               match.group(2))
            assert ",".join(f'{k}="{v}"' for k, v in pairs) == match.group(2).rstrip(","), line
            labels = dict(pairs)
        samples.append(Sample(match.group(1), labels, float(match.group(3))))
    names = {s.name for s in samples}
    for name, kind in types.items():
        if kind == "histogram" and f"{name}_count" in names:
            assert f"{name}_bucket" in names and f"{name}_sum" in names, name
    for name in names:
        base = re.sub(r"_(bucket|sum|count|total)$", "", name)
        assert name in types or base in types, f"no TYPE for {name}"
    return samples


def metric(samples, name, **labels):
    """The sum of the samples of that name that carry those labels."""
    return sum(s.value for s in samples
               if s.name == name and all(s.labels.get(k) == v for k, v in labels.items()))


def wait_until(condition, timeout=20, interval=0.05):
    """Calls until the result is true, and returns it; False after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result or time.monotonic() > deadline:
            return result
        time.sleep(interval)


def fill(disk, leave=0):
    """Fills a small disk but for `leave` bytes; returns the file that does."""
    filler = Path(disk) / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while file.write(b"x" * 65536) > 0:
                pass
        except OSError:
            pass
        if leave:
            file.truncate(max(0, file.tell() - leave))
    return filler


def in_threads(count, work):
    """Runs work(i) in `count` threads that begin together; returns the results in order and
    raises the first exception."""
    results, failures = [None] * count, []
    barrier = threading.Barrier(count)

    def body(i):
        try:
            barrier.wait(30)
            results[i] = work(i)
        except BaseException as failure:  # handed to the caller
            failures.append(failure)

    threads = [threading.Thread(target=body, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results
