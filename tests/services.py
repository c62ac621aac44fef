#!/usr/bin/env python3
"""Private, throw-away servers that holdfast works with: PostgreSQL, an object store, a balancer.

Standard library only. Each server belongs to a folder and listens on loopback, on a port that was
free. It is ended by stop(), at the end of this process, and by the kernel should this process be
killed. Nothing else on the machine is touched.

    with Postgres(folder / "postgres") as postgres, ObjectStore(folder / "s3") as store:
        database = postgres.create_database()
        bucket = store.make_bucket()
        … postgres.url(database) … store.endpoint, store.access_key, store.secret_key

As a command it starts them for another one, which finds them in its environment
(HOLDFAST_TEST_POSTGRES: the URL of an empty database; HOLDFAST_TEST_S3: the endpoint;
HOLDFAST_TEST_S3_BUCKET: an empty bucket; HOLDFAST_TEST_S3_TLS: the same store over https;
HOLDFAST_TEST_S3_CA: who certifies it; AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_DEFAULT_REGION), and ends with its exit status, or with 77 where a service is not installed:

    python3 tests/services.py run --postgres --s3 -- COMMAND...
"""

import argparse
import atexit
import base64
import contextlib
import csv
import datetime
import fcntl
import hashlib
import hmac
import http.client
import json
import os
import pwd
import queue
import random
import secrets
import shutil
import signal
import socket
import ssl
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
import uuid
import xml.etree.ElementTree as xml
from concurrent.futures import Future
from pathlib import Path

REGION = "us-east-1"


class ServiceMissing(RuntimeError):
    """The programs of a service are not installed."""


class ServiceFailed(RuntimeError):
    """A service did not start, or ended by itself."""


# ---- Processes ----

def _spawn_forever(orders):
    while True:
        future, command, options = orders.get()
        try:
            future.set_result(subprocess.Popen(command, **options))
        except BaseException as failure:  # handed to the caller
            future.set_exception(failure)
        del future, command, options


class _Spawner:
    """Starts processes that the kernel kills when this process dies. The kernel watches the thread
    that started them, not the process, so one thread that never ends starts them all."""

    def __init__(self):
        self.lock = threading.Lock()
        self.orders = None
        self.running = set()

    def popen(self, command, **options):
        with self.lock:
            if self.orders is None:
                self.orders = queue.SimpleQueue()
                threading.Thread(target=_spawn_forever, args=(self.orders,), daemon=True).start()
                atexit.register(self.end_all)
        future = Future()
        self.orders.put((future, command, options))
        process = future.result()
        self.running.add(process)
        return process

    def end_all(self):
        for process in list(self.running):
            if process.poll() is None:
                process.kill()
                process.wait()


_spawner = _Spawner()
popen = _spawner.popen


def program(name, package, *folders):
    """The path of an installed program; daemons are often not in PATH."""
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders),
                                                    "/usr/sbin", "/usr/local/sbin", "/sbin"]))
    if path is None:
        raise ServiceMissing(f"{name} is not installed (Debian: {package}; or scripts/setup "
                             "cluster)")
    return path


def guarded(*command, user=None, death="KILL"):
    """`command` as its parent's death ends it (with the signal `death`), run by `user`."""
    start = [program("setpriv", "util-linux"), f"--pdeathsig={death}"]
    if user is not None:
        start += [f"--reuid={user}", f"--regid={user}", "--init-groups"]
    return [*start, "--", *map(str, command)]


def execute(*command, user=None, timeout=60, **options):
    """Runs a helper program to its end; returns what it wrote."""
    done = subprocess.run(guarded(*command, user=user), stdin=options.pop("stdin", None if "input"
                          in options else subprocess.DEVNULL), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=timeout, errors="replace",
                          **options)
    if done.returncode != 0:
        raise ServiceFailed(f"{' '.join(map(str, command))} ended with {done.returncode}: "
                            f"{done.stderr.strip()[-2000:]}")
    return done.stdout


def family(pid):
    """This process id, and those of its children and theirs, which come and go."""
    pids = [pid]
    for one in pids:
        with contextlib.suppress(OSError):  # it has ended, and below, a thread of it
            for thread in os.listdir(f"/proc/{one}/task"):
                with contextlib.suppress(OSError):
                    children = Path(f"/proc/{one}/task/{thread}/children").read_text()
                    pids += map(int, children.split())
    return pids


class Daemon:
    """One server process in the foreground, in a session of its own, so that Ctrl-C reaches this
    process alone. Its output goes to the file `log`."""

    def __init__(self, name, command, log, *, user=None, death="KILL", env=None, cwd=None):
        self.name = name
        self.log = Path(log)
        with open(self.log, "ab") as output:
            self.process = popen(
                guarded(*command, user=user, death=death), stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True, env=env, cwd=cwd or self.log.parent)

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.poll() is None

    def check(self):
        if not self.running():
            raise ServiceFailed(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}")

    def tail(self, size=3000):
        try:
            return self.log.read_text(errors="replace")[-size:]
        except OSError:
            return ""

    def family(self):
        """Its own process id, and those of its children and theirs."""
        return family(self.pid)

    def signal_all(self, number):
        """To the whole family, and again to those who were born meanwhile."""
        done = set()
        while new := [pid for pid in self.family() if pid not in done]:
            for pid in new:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
                done.add(pid)

    def pause(self):
        self.signal_all(signal.SIGSTOP)

    def resume(self):
        self.signal_all(signal.SIGCONT)

    def stop(self, number=signal.SIGTERM, patience=20):
        """Asks it to end, and makes it after `patience` seconds."""
        if self.running():
            self.resume()
            self.process.send_signal(number)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def kill(self):
        """As a crash would end it."""
        if self.running():
            self.process.kill()
        self.process.wait()
        _spawner.running.discard(self.process)


def wait_for(condition, what, *daemons, timeout=60):
    """Until the condition holds; fails when one of the processes ends before, or the time does."""
    deadline = time.monotonic() + timeout
    while not condition():
        for daemon in daemons:
            daemon.check()
        if time.monotonic() > deadline:
            raise ServiceFailed(f"{what} did not answer in {timeout} s:\n"
                                + "\n".join(daemon.tail() for daemon in daemons))
        time.sleep(0.02)


def _first_ephemeral_port():
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return 32768


def free_ports(count=1):
    """`count` free loopback ports in a row, below those that the kernel gives to connections: a
    server that restarts finds its port free."""
    limit = max(_first_ephemeral_port(), 12000)
    for _ in range(200):
        first = random.SystemRandom().randrange(10000, limit - count)
        sockets = []
        try:
            for port in range(first, first + count):
                one = socket.socket()
                sockets.append(one)
                one.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise ServiceFailed(f"no {count} free ports in a row on 127.0.0.1")


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
        return True
    except OSError:
        return False


# ---- Folders ----

_SCRATCH = "holdfast-services-"


def _remove_abandoned():
    """Removes folders of scratch() whose owners were killed: nobody holds their lock."""
    for folder in Path(tempfile.gettempdir()).glob(_SCRATCH + "*"):
        try:
            if folder.stat().st_uid != os.geteuid() or time.time() - folder.stat().st_mtime < 60:
                continue
            with open(folder / "lock", "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue


class scratch:
    """`with scratch() as folder`: a temporary folder that other users may enter, as PostgreSQL
    needs it where root runs the tests. Removed at the end."""

    def __init__(self):
        _remove_abandoned()
        self.folder = Path(tempfile.mkdtemp(prefix=_SCRATCH))
        self.folder.chmod(0o711)
        self._lock = open(self.folder / "lock", "wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def __enter__(self):
        return self.folder

    def __exit__(self, *_):
        self.remove()

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def closed_to(user, folder):
    """The first folder on the way to `folder` that `user` may not enter, or None."""
    entry = pwd.getpwnam(user)
    groups = os.getgrouplist(user, entry.pw_gid)
    for step in [*reversed(folder.parents), folder]:
        if not step.exists():
            return None
        mode = step.stat()
        bit = (stat.S_IXUSR if mode.st_uid == entry.pw_uid else
               stat.S_IXGRP if mode.st_gid in groups else stat.S_IXOTH)
        if not mode.st_mode & bit:
            return step
    return None


class Kept:
    """What a service must know again when it is started over the same folder another time."""

    def __init__(self, path, make):
        self.path = Path(path)
        if self.path.exists():
            self.values = json.loads(self.path.read_text())
        else:
            self.values = make()
            with open(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                json.dump(self.values, file)

    def __getitem__(self, key):
        return self.values[key]


def certify(folder):
    """A throw-away CA, and a server's certificate by it for localhost and 127.0.0.1. Returns the
    paths of the CA's certificate, the server's certificate, and its key."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    ca, ca_key = folder / "ca.pem", folder / "ca-key.pem"
    certificate, key, request = folder / "server.pem", folder / "server-key.pem", folder / "csr.pem"
    names = folder / "names"
    if not certificate.exists():
        openssl = program("openssl", "openssl")
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        execute(openssl, "req", "-x509", *new, "-days", 30, "-subj", "/CN=Holdfast test CA",
                "-keyout", ca_key, "-out", ca)
        execute(openssl, "req", "-new", *new, "-subj", "/CN=localhost", "-keyout", key,
                "-out", request)
        names.write_text("subjectAltName=DNS:localhost,DNS:*.localhost,IP:127.0.0.1\n")
        execute(openssl, "x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key,
                "-CAcreateserial", "-days", 30, "-extfile", names, "-out", certificate)
    return ca, certificate, key


class Service:
    """Common ground: `with` starts and stops."""

    def start(self):
        raise NotImplementedError

    def stop(self):
        raise NotImplementedError

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_):
        self.stop()


# ---- PostgreSQL ----

class Postgres(Service):
    """One PostgreSQL server over `folder`; what it holds is found again when it is started again.

    Root runs it as the user postgres, who must be able to enter the folder (see scratch), any
    other user as himself. tls: it takes TLS too, and url(…, tls=True) asks for it.
    settings: further settings of postgresql.conf."""

    def __init__(self, folder, *, tls=False, settings=None):
        self.folder = Path(folder).resolve()
        self.user = "postgres" if os.geteuid() == 0 else None
        self.bin = self.programs()
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.user is not None:
            self._check_reach()
        kept = Kept(self.folder / "postgres.json", lambda: {
            "port": free_ports(), "password": secrets.token_hex(12)})
        self.port, self.password = kept["port"], kept["password"]
        self.tls = tls
        self.ca = None
        self.settings = {
            "listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "",
            "max_connections": 200, "fsync": "on", "log_line_prefix": "%m [%p] ",
            "timezone": "UTC", **(settings or {})}
        self.server = None

    @staticmethod
    def programs():
        """The folder of the newest version's programs."""
        newest = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"),
                        key=lambda path: (len(path.parts[4]), path.parts[4]))
        path = newest[-1] if newest else Path(program("postgres", "postgresql"))
        return path.parent

    def _check_reach(self):
        try:
            step = closed_to(self.user, self.folder)
        except KeyError:
            raise ServiceMissing("PostgreSQL refuses to run as root, and there is no user postgres")
        if step is not None:
            raise ServiceFailed(f"the user postgres, who runs PostgreSQL for root, cannot enter "
                                f"{step}; take another folder, or chmod o+x it")

    def _own(self, path, mode):
        path.chmod(mode)
        if self.user is not None:
            entry = pwd.getpwnam(self.user)
            os.chown(path, entry.pw_uid, entry.pw_gid)

    def _init(self):
        data, secret = self.folder / "data", self.folder / "password"
        if (data / "PG_VERSION").exists():
            return
        shutil.rmtree(data, ignore_errors=True)  # an initdb that was interrupted
        data.mkdir()
        self._own(data, 0o700)
        secret.touch(0o600)
        secret.write_text(self.password + "\n")
        self._own(secret, 0o600)
        execute(self.bin / "initdb", "--no-sync", "-D", data, "-U", "postgres", "-E", "UTF8",
                "--locale=C.UTF-8", "-A", "scram-sha-256", f"--pwfile={secret}", user=self.user,
                cwd="/")
        secret.unlink()

    def _tls_settings(self):
        self.ca, certificate, key = certify(self.folder / "tls")
        for path in (certificate, key):
            self._own(path, 0o600)
        (self.folder / "tls").chmod(0o711)
        return {"ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key}

    def start(self):
        if self.server is not None and self.server.running():
            return self
        self._init()
        settings = dict(self.settings)
        if self.tls:
            settings.update(self._tls_settings())
        flags = [flag for key, value in settings.items() for flag in ("-c", f"{key}={value}")]
        # SIGQUIT ends it with its children at once, as it is safe to.
        self.server = Daemon("PostgreSQL", [self.bin / "postgres", "-D", self.folder / "data",
                                            *flags], self.folder / "log", user=self.user,
                             death="QUIT", cwd="/")
        wait_for(self._ready, "PostgreSQL", self.server)
        return self

    def _ready(self):
        """What pg_ctl looks at."""
        try:
            lines = (self.folder / "data" / "postmaster.pid").read_text().split("\n")
            return int(lines[0]) == self.server.pid and lines[7].strip() == "ready"
        except (OSError, IndexError, ValueError):
            return False

    def stop(self, how="fast"):
        """how: smart (waits for clients), fast (ends them), immediate (recovers when it starts)."""
        if self.server is not None:
            self.server.stop({"smart": signal.SIGTERM, "fast": signal.SIGINT,
                              "immediate": signal.SIGQUIT}[how])

    def kill(self):
        """As a crash would: kill -9 of the server; its children see that and end."""
        family = self.server.family()
        self.server.kill()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family),
                 "the end of PostgreSQL's children")

    def restart(self, how="fast"):
        self.stop(how)
        return self.start()

    def pause(self):
        self.server.pause()

    def resume(self):
        self.server.resume()

    def url(self, database="postgres", *, tls=False, port=None):
        """port: of a proxy before it."""
        query = ""
        if tls:
            query = "?" + urllib.parse.urlencode({"sslmode": "verify-full",
                                                  "sslrootcert": str(self.ca)})
        return (f"postgres://postgres:{self.password}@127.0.0.1:{port or self.port}/{database}"
                f"{query}")

    def psql(self, sql, database="postgres"):
        """What psql prints, without headings and alignment."""
        return execute(self.bin / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1",
                       "-p", self.port, "-U", "postgres", "-d", database, "-c", sql,
                       env={**os.environ, "PGPASSWORD": self.password}).rstrip("\n")

    def create_database(self, name=None):
        """A new, empty one; returns its name."""
        name = name or f"holdfast_{secrets.token_hex(6)}"
        self.psql(f'CREATE DATABASE "{name}"')
        return name

    def drop_database(self, name):
        self.psql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


# ---- Object store ----

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


class S3Error(Exception):
    """An answer of the object store other than 2xx; .status, .code."""

    def __init__(self, method, target, status, body):
        code = xml.fromstring(body).findtext("Code") if body.startswith(b"<?xml") else None
        super().__init__(f"{method} {target}: {status} {code or ''} {body[:300]!r}")
        self.status, self.code = status, code


class S3Client:
    """As much of S3 as tests need, signed with Signature Version 4, path style."""

    def __init__(self, endpoint, access_key, secret_key, *, ca=None):
        self.endpoint = urllib.parse.urlsplit(endpoint)
        self.access_key, self.secret_key = access_key, secret_key
        self.ca = ca

    def _sign(self, method, path, query, payload_hash, moment):
        day = moment[:8]
        scope = f"{day}/{REGION}/s3/aws4_request"
        headers = {"host": self.endpoint.netloc, "x-amz-content-sha256": payload_hash,
                   "x-amz-date": moment}
        names = ";".join(sorted(headers))
        canonical = "\n".join([method, path, query,
                               *(f"{name}:{headers[name]}" for name in sorted(headers)), "",
                               names, payload_hash])
        text = "\n".join(["AWS4-HMAC-SHA256", moment, scope,
                          hashlib.sha256(canonical.encode()).hexdigest()])
        key = b"AWS4" + self.secret_key.encode()
        for part in (day, REGION, "s3", "aws4_request", text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, SignedHeaders={names}, "
            f"Signature={key.hex()}")
        return headers

    def request(self, method, path, query=None, body=b""):
        """The body of a 2xx answer; anything else raises S3Error."""
        path = urllib.parse.quote(path, safe="/-_.~")
        query = urllib.parse.urlencode(sorted((query or {}).items()), safe="-_.~",
                                       quote_via=urllib.parse.quote)
        moment = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        payload_hash = hashlib.sha256(body).hexdigest() if body else EMPTY_SHA256
        headers = self._sign(method, path, query, payload_hash, moment)
        if self.endpoint.scheme == "https":
            connection = http.client.HTTPSConnection(
                self.endpoint.netloc, timeout=60,
                context=ssl.create_default_context(cafile=self.ca))
        else:
            connection = http.client.HTTPConnection(self.endpoint.netloc, timeout=60)
        try:
            target = path + (f"?{query}" if query else "")
            connection.request(method, target, body or None, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status // 100 != 2:
            raise S3Error(method, target, answer.status, content)
        return content

    def pages(self, bucket, query, tag, marks):
        """The elements `tag` of a list, page after page. marks: query parameter by the element
        that has its next value."""
        query = dict(query)
        while True:
            page = xml.fromstring(self.request("GET", f"/{bucket}", query))
            for element in page.iter():
                element.tag = element.tag.rpartition("}")[2]
            yield from page.iter(tag)
            if page.findtext("IsTruncated") != "true":
                return
            query.update({parameter: page.findtext(element) for parameter, element in
                          marks.items()})


class ObjectStore(Service):
    """A Ceph cluster of one monitor and one OSD with radosgw, which speaks S3 and is strict about
    signatures. keep=False: in memory, ready in a second, lost when it ends. keep=True: on disk
    (BlueStore), found again when it is started again over the same folder.
    tls: it takes TLS too; tls_endpoint and ca are how.
    Endpoint and keys stay the same over restarts. http://BUCKET.localhost:PORT works too."""

    PROGRAMS = (("ceph", "ceph-common"), ("monmaptool", "ceph-common"), ("ceph-mon", "ceph-mon"),
                ("ceph-osd", "ceph-osd"), ("radosgw", "radosgw"), ("radosgw-admin", "radosgw"))

    def __init__(self, folder, *, keep=False, tls=False):
        self.folder = Path(folder).resolve()
        self.programs = {name: program(name, package) for name, package in self.PROGRAMS}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.keep = keep
        kept = Kept(self.folder / "store.json", lambda: {
            "port": free_ports(3), "osd_port": free_ports(16), "fsid": str(uuid.uuid4()),
            "access_key": secrets.token_hex(10).upper(), "secret_key": secrets.token_hex(20)})
        self.port, self.osd_port, self.fsid = kept["port"], kept["osd_port"], kept["fsid"]
        self.access_key, self.secret_key = kept["access_key"], kept["secret_key"]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.tls = tls
        self.tls_endpoint = f"https://127.0.0.1:{self.port + 2}" if tls else None
        self.ca = None
        self.client = S3Client(self.endpoint, self.access_key, self.secret_key)
        self.daemons = {}

    # -- Life --

    def _configuration(self):
        # Without tcp_nodelay each small answer waits 40 ms for an acknowledgement.
        front = f"beast endpoint=127.0.0.1:{self.port} tcp_nodelay=1"
        if self.tls:
            self.ca, certificate, key = certify(self.folder / "tls")
            front += (f" ssl_endpoint=127.0.0.1:{self.port + 2} ssl_certificate={certificate}"
                      f" ssl_private_key={key}")
        # One replica, no manager, and a monitor that does not wait to gather proposals.
        return f"""[global]
fsid = {self.fsid}
mon_host = [v2:127.0.0.1:{self.port + 1}/0]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_msgr1 = false
ms_bind_port_min = {self.osd_port}
ms_bind_port_max = {self.osd_port + 15}
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_crit = 1
mon_data_avail_warn = 2
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
auth_allow_insecure_global_id_reclaim = false
run_dir = {self.folder}
admin_socket =
pid_file =
crash_dir = {self.folder}
log_file = {self.folder}/$name.log
keyring = {self.folder}/keyring
[mon]
mon_data = {self.folder}/mon
[osd]
osd_data = {self.folder}/osd
osd_objectstore = {"bluestore" if self.keep else "memstore"}
osd_numa_auto_affinity = false
memstore_device_bytes = 8589934592
bluestore_block_size = 17179869184
osd_memory_target = 939524096
[client.rgw]
rgw_frontends = {front}
rgw_dns_name = localhost
rgw_thread_pool_size = 64
rgw_enable_usage_log = false
rgw_gc_obj_min_wait = 60
rgw_gc_processor_period = 60
"""

    def _run(self, name, *arguments, **options):
        return execute(self.programs[name], "-c", self.folder / "ceph.conf", *arguments, **options)

    def _daemon(self, name, *arguments):
        self.daemons[name] = Daemon(name, [self.programs[name], "-f", "-c",
                                           self.folder / "ceph.conf", *arguments],
                                    self.folder / f"{name}.out", cwd=self.folder)
        return self.daemons[name]

    def _make_monitor(self):
        """The keys of a new cluster, and its first monitor."""
        rights = 'caps mon = "allow *"\n\tcaps osd = "allow *"\n\tcaps mgr = "allow *"'
        keyring = self.folder / "keyring"
        keyring.touch(0o600)
        keyring.write_text(
            f'[mon.]\n\tkey = {_ceph_key()}\n\tcaps mon = "allow *"\n' + "".join(
                f"[{name}]\n\tkey = {_ceph_key()}\n\t{rights}\n"
                for name in ("client.admin", "client.rgw")))
        (self.folder / "mon").mkdir()
        (self.folder / "osd").mkdir()
        execute(self.programs["monmaptool"], "--create", "--fsid", self.fsid, "--addv", "a",
                f"[v2:127.0.0.1:{self.port + 1}]", self.folder / "monmap")
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", self.folder / "monmap",
                  "--keyring", keyring)

    def _make_osd(self):
        identity, key = uuid.uuid4(), _ceph_key()
        self._run("ceph", "osd", "new", identity, "-i", "-",
                  input=json.dumps({"cephx_secret": key}))
        with open(self.folder / "keyring", "a") as keyring:
            keyring.write(f'[osd.0]\n\tkey = {key}\n\tcaps mon = "allow profile osd"\n'
                          '\tcaps osd = "allow *"\n')
        self._run("ceph-osd", "-i", 0, "--mkfs", "--osd-uuid", identity)

    def _start_osd(self):
        """Until the monitor knows it: radosgw would try the OSD's old address for many seconds."""
        log = self.folder / "osd.0.log"
        before = log.stat().st_size if log.exists() else 0

        def is_active():
            with open(log, "rb") as file:
                file.seek(before)
                return b"state: booting -> active" in file.read()

        osd = self._daemon("ceph-osd", "-i", "0")
        wait_for(lambda: log.exists() and is_active(), "ceph-osd", osd, self.daemons["ceph-mon"])

    def start(self):
        if self.daemons:
            return self
        complete = self.folder / "complete"  # written when the first start came to its end
        new = not complete.exists()
        if new:
            for name in ("mon", "osd"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
        elif not self.keep:
            raise ServiceFailed(f"{self.folder}: a store in memory cannot be started again")
        (self.folder / "ceph.conf").write_text(self._configuration())
        if new:
            self._make_monitor()
        self._daemon("ceph-mon", "-i", "a")
        if new:
            self._make_osd()
        self._start_osd()
        gateway = self._daemon("radosgw", "-n", "client.rgw")
        wait_for(lambda: accepts(self.port), "radosgw", *self.daemons.values(), timeout=120)
        if new:
            self._run("radosgw-admin", "user", "create", "--uid=holdfast",
                      "--display-name=holdfast", f"--access-key={self.access_key}",
                      f"--secret-key={self.secret_key}")
            complete.touch()
        gateway.check()
        return self

    def stop(self):
        """radosgw first: the others' ends wait for it."""
        for name in ("radosgw", "ceph-osd", "ceph-mon"):
            if name in self.daemons:
                self.daemons[name].stop() if self.keep else self.daemons[name].kill()
        self.daemons = {}

    def kill(self):
        """As a crash would end all of it."""
        for daemon in self.daemons.values():
            daemon.kill()
        self.daemons = {}

    def restart(self):
        self.stop()
        return self.start()

    def pause(self):
        self.daemons["radosgw"].pause()

    def resume(self):
        self.daemons["radosgw"].resume()

    # -- What it holds --

    def environment(self):
        """The variables by which S3 clients find their credentials."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key,
                "AWS_DEFAULT_REGION": REGION}

    def make_bucket(self, name=None):
        """A new, empty one; returns its name."""
        name = name or f"holdfast-{secrets.token_hex(6)}"
        self.client.request("PUT", f"/{name}")
        return name

    def list(self, bucket, prefix=""):
        """The sizes of all objects by their keys."""
        return {item.findtext("Key"): int(item.findtext("Size")) for item in self.client.pages(
            bucket, {"list-type": "2", "prefix": prefix}, "Contents",
            {"continuation-token": "NextContinuationToken"})}

    def uploads(self, bucket, prefix=""):
        """The multipart uploads that are neither completed nor aborted: pairs of key and id."""
        return [(item.findtext("Key"), item.findtext("UploadId")) for item in self.client.pages(
            bucket, {"uploads": "", "prefix": prefix}, "Upload",
            {"key-marker": "NextKeyMarker", "upload-id-marker": "NextUploadIdMarker"})]

    def get(self, bucket, key):
        return self.client.request("GET", f"/{bucket}/{key}")

    def put(self, bucket, key, content):
        self.client.request("PUT", f"/{bucket}/{key}", body=content)

    def delete(self, bucket, key):
        self.client.request("DELETE", f"/{bucket}/{key}")


def _ceph_key():
    """A key for cephx: type 1, the time of its making, 16 secret bytes."""
    return base64.b64encode(struct.pack("<HIIH", 1, int(time.time()), 0, 16)
                            + os.urandom(16)).decode()


# ---- Load balancer ----

class Balancer(Service):
    """HAProxy before the nodes on the loopback ports `nodes`: round robin, nodes in and out by
    /readyz, X-Served-By says who answered. What no node has taken is offered to the next; only
    reads are repeated after one has. `scheme`, `host`, `port` and `ca` make it a server for
    holdfast.Client; statistics_url shows the nodes to people."""

    def __init__(self, folder, nodes, *, port=None, statistics_port=None):
        self.folder = Path(folder).resolve()
        self.program = program("haproxy", "haproxy")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.nodes = list(nodes)
        self.scheme, self.host, self.ca = "http", "127.0.0.1", None
        self.port = port or free_ports()
        self.statistics_port = statistics_port or free_ports()
        self.url = f"http://{self.host}:{self.port}"
        self.statistics_url = f"http://127.0.0.1:{self.statistics_port}/"
        self.daemon = None

    def _configuration(self):
        servers = "\n".join(f"    server node{i} 127.0.0.1:{port}"
                            for i, port in enumerate(self.nodes))
        return f"""global
    maxconn 8000
    nbthread 2

defaults
    mode http
    timeout connect 2s
    timeout client 10m
    timeout server 10m
    timeout http-request 30s
    timeout http-keep-alive 60s
    retries 3
    option redispatch 1
    option http-keep-alive

frontend registry
    bind {self.host}:{self.port}
    option forwardfor
    default_backend nodes

backend nodes
    balance roundrobin
    option httpchk GET /readyz
    http-check expect status 200
    default-server check inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
    # A node that dies drops what it had taken: reads go to another one. Writes are the client's to
    # repeat, who knows what it sent.
    retry-on conn-failure empty-response response-timeout
    http-request disable-l7-retry unless METH_GET || {{ method HEAD }}
    http-response set-header X-Served-By %s
{servers}

frontend statistics
    bind 127.0.0.1:{self.statistics_port}
    stats enable
    stats uri /
    stats refresh 2s
"""

    def start(self):
        if self.daemon is None or not self.daemon.running():
            path = self.folder / "haproxy.cfg"
            path.write_text(self._configuration())
            self.daemon = Daemon("haproxy", [self.program, "-db", "-f", path],
                                 self.folder / "haproxy.log")
            wait_for(lambda: accepts(self.statistics_port), "haproxy", self.daemon)
        return self

    def check(self):
        self.daemon.check()

    def states(self):
        """What it thinks of each node: "UP", "DOWN", or on the way to one of them."""
        with urllib.request.urlopen(self.statistics_url + ";csv", timeout=5) as answer:
            text = answer.read().decode().removeprefix("# ")
        return [row["status"] for row in csv.DictReader(text.splitlines())
                if row["pxname"] == "nodes" and row["svname"] != "BACKEND"]

    def wait_up(self, *nodes, timeout=60):
        """Until these nodes, or all, are in use."""
        wait_for(lambda: all(state == "UP" for i, state in enumerate(self.states())
                             if not nodes or i in nodes), "a node", self.daemon, timeout=timeout)

    def wait_down(self, *nodes, timeout=60):
        wait_for(lambda: all(self.states()[i].startswith("DOWN") for i in nodes),
                 "the balancer's check", self.daemon, timeout=timeout)

    def stop(self):
        if self.daemon is not None:
            self.daemon.stop(patience=2)


# ---- Command ----

def run(postgres, s3, command):
    """Runs `command` with services; returns its exit status as a shell would say it."""
    environment = dict(os.environ)
    with scratch() as folder:
        services = []
        try:
            if postgres:
                server = Postgres(folder / "postgres")
                services.append(server)
                server.start()
                environment["HOLDFAST_TEST_POSTGRES"] = server.url(server.create_database())
            if s3:
                store = ObjectStore(folder / "s3", tls=True)
                services.append(store)
                store.start()
                environment.update(store.environment(), HOLDFAST_TEST_S3=store.endpoint,
                                   HOLDFAST_TEST_S3_TLS=store.tls_endpoint,
                                   HOLDFAST_TEST_S3_CA=str(store.ca),
                                   HOLDFAST_TEST_S3_BUCKET=store.make_bucket())
            child = subprocess.Popen(guarded(*command), env=environment)
            try:
                status = child.wait()
            except BaseException:  # Ctrl-C reached it too; a signal to this process alone did not
                child.terminate()
                try:
                    child.wait(10)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
                raise
            return status if status >= 0 else 128 - status
        finally:
            for service in reversed(services):
                service.stop()


def main():
    parser = argparse.ArgumentParser(description="Runs a command with servers of its own.")
    commands = parser.add_subparsers(dest="verb", required=True)
    runs = commands.add_parser("run", help="run a command with an empty database, an empty bucket")
    runs.add_argument("--postgres", action="store_true", help="set HOLDFAST_TEST_POSTGRES")
    runs.add_argument("--s3", action="store_true", help="set HOLDFAST_TEST_S3 and AWS_*")
    runs.add_argument("command", nargs="+", metavar="COMMAND")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell had it ignored
    try:
        sys.exit(run(arguments.postgres, arguments.s3, arguments.command))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except ServiceMissing as failure:
        print(f"services: NOT RUN: {failure}", file=sys.stderr)
        sys.exit(77)  # what Meson and Automake count as skipped
    except ServiceFailed as failure:
        sys.exit(f"services: {failure}")


if __name__ == "__main__":
    main()
