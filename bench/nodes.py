"""Registries on several nodes behind HAProxy, over one PostgreSQL and one S3 server (radosgw) that
both sides use. The services are those of the tests: tests/services.py."""

import contextlib
import http.client
import os
import pathlib
import sys

from measure import MIB
from servers import DockerRegistry, Holdfast

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "tests"))

import services  # noqa: E402
from faultproxy import FaultProxy  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")


class BalancerByPing(services.Balancer):
    """For nodes that have no /readyz."""

    def _configuration(self):
        return super()._configuration().replace("/readyz", "/v2/")


class Nodes:
    """Servers that are alike, and a balancer before them. `url`, `port` and connect() are the
    balancer's; `ports` are the servers'."""

    def __init__(self, servers, balancer):
        self.servers = servers
        self.balancer = balancer
        self.name = servers[0].name

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            stack.enter_context(self.balancer)
            self.balancer.wait_up()
            self.exit = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.exit.close()

    @property
    def ports(self):
        return [server.port for server in self.servers]

    @property
    def pids(self):
        return [server.pid for server in self.servers]

    @property
    def port(self):
        return self.balancer.port

    @property
    def url(self):
        return self.balancer.url

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)


class Stack:
    """PostgreSQL and an S3 server below `folder`, and nodes over them. The S3 server keeps objects
    in memory: what is measured is then the registries, and not this machine's one disk."""

    def __init__(self, binary, folder):
        self.binary = binary
        self.folder = folder
        folder.mkdir(exist_ok=True)
        for step in (folder.parent, folder):
            step.chmod(0o711)  # PostgreSQL runs as a user of its own where root runs this
        self.postgres = services.Postgres(folder / "postgres", settings=self.settings())
        self.store = services.ObjectStore(folder / "s3", tls=True)
        self.ports = (None, None)
        self.n = 0

    @staticmethod
    def settings():
        return {"shared_buffers": "256MB", "max_wal_size": "4GB"}

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            for service in (self.postgres, self.store):
                stack.enter_context(service)
            self.postgres.create_database("holdfast")
            for bucket in ("holdfast", "peer"):
                self.store.make_bucket(bucket)
            self.exit = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.exit.close()

    def endpoint(self, tls):
        if tls:
            return self.store.tls_endpoint
        return f"http://127.0.0.1:{self.ports[1] or self.store.port}"

    @contextlib.contextmanager
    def through(self, database_port, store_port):
        """Nodes that are made meanwhile reach PostgreSQL and the store by these proxies."""
        self.ports = (database_port, store_port)
        yield
        self.ports = (None, None)

    def versions(self):
        """In words."""
        programs = self.store.programs
        postgres = services.execute(services.Postgres.programs() / "postgres", "--version")
        ceph = services.execute(programs["radosgw"], "--version")
        haproxy = services.execute(services.program("haproxy", "haproxy"), "-v")
        return (
            f"PostgreSQL {postgres.split()[2]}, radosgw {ceph.split()[2]},"
            f" HAProxy {haproxy.split()[2]}"
        )

    def fresh_folder(self, name):
        self.n += 1
        return self.folder / f"{name}-{self.n}"

    def holdfast(self, n=3, *, redirect=True, tls=False, **settings):
        """n nodes over the one database and bucket. tls: to the S3 server."""
        variables = {
            "HOLDFAST_METADATA": self.postgres.url("holdfast", port=self.ports[0]),
            "HOLDFAST_BLOBS": "s3://holdfast",
            "HOLDFAST_S3_ENDPOINT": self.endpoint(tls),
            "HOLDFAST_S3_ACCESS_KEY": self.store.access_key,
            "HOLDFAST_S3_SECRET_KEY": self.store.secret_key,
            "HOLDFAST_REDIRECT_ENABLED": "true" if redirect else "false",
            "HOLDFAST_LIMITS_CONNECTIONS_PER_ADDRESS": "10000",
            **settings,
        }
        if tls:
            variables["HOLDFAST_S3_CA"] = str(self.store.ca)
        servers = [
            Holdfast(self.binary, self.fresh_folder("holdfast"), settings=variables)
            for _ in range(n)
        ]
        return self.nodes(servers, services.Balancer)

    def peer(self, n=3, *, redirect=True, tls=False):
        storage = (
            "  s3:\n"
            f"    accesskey: {self.store.access_key}\n"
            f"    secretkey: {self.store.secret_key}\n"
            f"    region: {services.REGION}\n"
            f"    regionendpoint: {self.endpoint(tls)}\n"
            "    forcepathstyle: true\n"
            "    bucket: peer\n"
            f"    secure: {'true' if tls else 'false'}\n"
            f"    skipverify: {'true' if tls else 'false'}\n"
            f"  redirect: {{disable: {'false' if redirect else 'true'}}}\n"
        )
        servers = [DockerRegistry(self.fresh_folder("peer"), storage) for _ in range(n)]
        for server in servers:
            server.environment = {"AWS_CA_BUNDLE": ""}
        return self.nodes(servers, BalancerByPing)

    def nodes(self, servers, balancer):
        folder = self.fresh_folder("haproxy")
        return Nodes(servers, balancer(folder, [server.port for server in servers]))

    def forget(self, larger_than=8 * MIB):
        """Frees the memory of large objects, those that are still registered included."""
        for bucket in ("holdfast", "peer"):
            for key, size in self.store.list(bucket).items():
                if size > larger_than:
                    self.store.delete(bucket, key)
        services.execute(
            self.store.programs["radosgw-admin"],
            *("-c", self.store.folder / "ceph.conf", "gc", "process", "--include-all"),
        )

    # ---- Processor time ----

    def processes(self, nodes):
        """Process ids by what they are part of."""
        daemons = self.store.daemons
        return {
            "nodes": nodes.pids,
            "PostgreSQL": self.postgres.server.family(),
            "radosgw": daemons["radosgw"].family(),
            "Ceph behind it": daemons["ceph-osd"].family() + daemons["ceph-mon"].family(),
            "HAProxy": nodes.balancer.daemon.family(),
        }


def processor_seconds(pids):
    """Of the processes, and of their children that ended."""
    ticks = 0
    for pid in pids:
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended: its parent has its time
        ticks += sum(map(int, fields[11:15]))
    return ticks / TICKS


def missing():
    """What is not installed, in a sentence; or None."""
    try:
        services.Postgres.programs()
        for name, package in (*services.ObjectStore.PROGRAMS, ("haproxy", "haproxy")):
            services.program(name, package)
    except services.ServiceMissing as failure:
        return str(failure)
    return None


__all__ = ["FaultProxy", "Nodes", "Stack", "missing", "processor_seconds", "services"]
