"""The servers of the benchmark, each a context manager: Holdfast and its peers, on loopback ports,
with their data below a folder of the run. What a server writes goes to a log beside its data."""

import http.client
import os
import pathlib
import socket
import ssl
import subprocess
import time

READY_SECONDS = 60
STOP_SECONDS = 40


class Broken(Exception):
    """The run itself failed: a server does not start, a tool does not work."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def resident(pid):
    """Kilobytes by name from /proc: VmRSS, VmHWM, RssAnon, RssFile."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {
        name: int(value.split()[0])
        for name, _, value in (line.partition(":") for line in lines)
        if name in ("VmRSS", "VmHWM", "RssAnon", "RssFile")
    }


class Server:
    """One process. Subclasses set `argv`, and `environment` if they need one, in prepare()."""

    name = "server"
    ready_path = "/v2/"

    def __init__(self, folder, tls=None):
        self.folder = pathlib.Path(folder)
        self.tls = tls  # (certificate, key) paths or None
        self.port = free_port()
        self.environment = {}
        self.argv = []
        self.process = None
        self.start_seconds = None  # from fork to the first good answer

    def prepare(self):
        raise NotImplementedError

    def __enter__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.prepare()
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HOLDFAST_")}
        began = time.perf_counter()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [str(word) for word in self.argv],
                env={**clean, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.wait_ready(began)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    @property
    def log_path(self):
        return self.folder.with_name(self.folder.name + ".log")

    @property
    def pid(self):
        return self.process.pid

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def wait_ready(self, began):
        """Asks until the answer is good. The first question that gets one gives the start time."""
        while time.perf_counter() - began < READY_SECONDS:
            if self.process.poll() is not None:
                break
            try:
                connection = self.connect()
                connection.request("GET", self.ready_path)
                if connection.getresponse().status < 500:
                    self.start_seconds = time.perf_counter() - began
                    connection.close()
                    return
            except OSError:
                time.sleep(0.0005)
        tail = self.log_path.read_text(errors="replace")[-2000:]
        raise Broken(f"{self.name} did not come up; its last words:\n{tail}")

    def connect(self):
        if not self.tls:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        context = ssl.create_default_context(cafile=self.tls[0])
        context.check_hostname = False
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=context)


class Holdfast(Server):
    name = "holdfast"

    def __init__(self, binary, folder, tls=None, access_log=False, settings=None):
        """settings: further variables."""
        super().__init__(folder, tls)
        self.binary = binary
        self.access_log = access_log
        self.settings = settings or {}

    def prepare(self):
        self.argv = [self.binary, "serve"]
        self.environment = {
            "HOLDFAST_LISTEN": f"127.0.0.1:{self.port}",
            "HOLDFAST_DATA": str(self.folder),
            "HOLDFAST_LOG_LEVEL": "info" if self.access_log else "error",
            "HOLDFAST_LOG_ACCESS": "true" if self.access_log else "false",
            **self.settings,
        }
        if self.tls:
            self.environment["HOLDFAST_TLS_CERTIFICATE"] = str(self.tls[0])
            self.environment["HOLDFAST_TLS_KEY"] = str(self.tls[1])

    def blob_file(self, digest):
        """Where the bytes of a blob are, for a peer that serves the same file."""
        hexadecimal = digest.partition(":")[2]
        found = list(self.folder.glob(f"**/sha256/**/{hexadecimal}"))
        if len(found) != 1:
            raise Broken(f"{len(found)} files for blob {digest}")
        return found[0]


class DockerRegistry(Server):
    """Over its folder; or over what `storage`, lines of its configuration, says."""

    name = "docker-registry"

    def __init__(self, folder, storage=None):
        super().__init__(folder)
        self.storage = storage or f"  filesystem: {{rootdirectory: '{self.folder}'}}\n"

    def prepare(self):
        config = self.folder.with_name(self.folder.name + ".yml")
        config.write_text(
            "version: 0.1\n"
            "log: {level: error, accesslog: {disabled: true}}\n"
            f"storage:\n{self.storage}"
            "  delete: {enabled: true}\n"
            "  cache: {blobdescriptor: inmemory}\n"
            # The secret is what lets an upload go on at another node.
            f"http: {{addr: '127.0.0.1:{self.port}', secret: bench}}\n"
        )
        self.argv = ["docker-registry", "serve", config]


class Nginx(Server):
    """Serves the files below `root`, plain on `port` and with TLS on `tls_port`."""

    name = "nginx"
    ready_path = "/"

    def __init__(self, folder, root, certificate):
        super().__init__(folder)
        self.root = root
        self.certificate = certificate
        self.tls_port = free_port()

    def prepare(self):
        user = "user root;" if os.geteuid() == 0 else ""
        config = self.folder / "nginx.conf"
        config.write_text(
            f"{user} worker_processes 2; daemon off; pid {self.folder}/pid;\n"
            f"error_log stderr error;\n"
            "events { worker_connections 4096; }\n"
            "http {\n"
            "  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;\n"
            f"  client_body_temp_path {self.folder}/t1; proxy_temp_path {self.folder}/t2;\n"
            f"  fastcgi_temp_path {self.folder}/t3; uwsgi_temp_path {self.folder}/t4;\n"
            f"  scgi_temp_path {self.folder}/t5;\n"
            "  server {\n"
            f"    listen 127.0.0.1:{self.port}; listen 127.0.0.1:{self.tls_port} ssl;\n"
            f"    ssl_certificate {self.certificate[0]};\n"
            f"    ssl_certificate_key {self.certificate[1]};\n"
            "    ssl_protocols TLSv1.2 TLSv1.3;\n"
            f"    root {self.root}; default_type application/octet-stream;\n"
            "  }\n"
            "}\n"
        )
        self.argv = ["nginx", "-p", self.folder, "-c", config]


class Bare(Server):
    """bare.c: read, hash, write, fsync."""

    name = "bare loop"

    def __init__(self, tool, folder):
        super().__init__(folder)
        self.tool = tool

    def prepare(self):
        self.argv = [self.tool, str(self.port), self.folder]

    def wait_ready(self, began):
        """One connection at a time: do not hold it with a question."""
        while time.perf_counter() - began < READY_SECONDS:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.001)
        raise Broken("the bare loop did not come up")


def make_certificate(folder):
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        + ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext"]
        + ["subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    return certificate, key
