"""Holdfast as it runs on many nodes: PostgreSQL, an object store, nodes, and HAProxy before them.

    with scratch() as folder, Cluster(folder) as cluster:
        with cluster.client() as any_node, cluster.client(0) as first:
            push_image(any_node, "team/app", image, tag="v1")
            cluster.kill(1)
            pull_image(first, "team/app", "v1")
            cluster.start(1)

The nodes reach the store by cluster.store_proxy and the database by cluster.database_proxy, which
misbehave when told to (faultproxy.py).
"""

import services
from faultproxy import FaultProxy
from holdfast import Client, in_threads, run, Server
from services import Balancer, free_ports, Kept, ObjectStore, Postgres, Service

DATABASE = "holdfast"
BUCKET = "holdfast"


class Cluster(Service):
    """The cluster below `folder`, which the user postgres can enter where root runs it.

    s3=False: one node with PostgreSQL and files. keep: the store is on disk, so that the whole of
    it can be started again over its folder. proxies=False: nothing stands between. args, env: of
    each node, before and above those made here. port: of the balancer; the nodes have those that
    follow. log_files: the nodes' logs go to files, and only their beginnings stay in memory."""

    def __init__(self, folder, nodes=3, *, s3=True, keep=False, proxies=True, args=(), env=None,
                 binary=None, port=None, log_files=False):
        assert s3 or nodes == 1, "files in a data folder belong to one node"
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.args, self.env = [str(argument) for argument in args], dict(env or {})
        self.postgres = Postgres(self.folder / "postgres")
        self.store = ObjectStore(self.folder / "s3", keep=keep) if s3 else None
        self.database_proxy = FaultProxy(self.postgres.port, http=False) if proxies else None
        self.store_proxy = FaultProxy(self.store.port) if proxies and s3 else None
        first = port or Kept(self.folder / "cluster.json",
                             lambda: {"port": free_ports(nodes + 2)})["port"]
        self.nodes = [self._make_node(i, first + 1 + i, binary, log_files) for i in range(nodes)]
        self.balancer = Balancer(self.folder / "haproxy", range(first + 1, first + 1 + nodes),
                                 port=first, statistics_port=first + 1 + nodes)

    # ---- Settings ----

    def database_url(self):
        proxy = self.database_proxy
        return self.postgres.url(DATABASE, port=proxy.port if proxy is not None else None)

    def settings(self):
        """The variables that make a node one of this cluster; two of them are secret."""
        variables = {"HOLDFAST_METADATA": self.database_url(),
                     "HOLDFAST_PROXY_TRUSTED": "127.0.0.1"}
        if self.store is not None:
            variables.update({
                "HOLDFAST_BLOBS": f"s3://{BUCKET}",
                "HOLDFAST_S3_ENDPOINT": (self.store_proxy or self.store).endpoint,
                "HOLDFAST_S3_ACCESS_KEY": self.store.access_key,
                "HOLDFAST_S3_SECRET_KEY": self.store.secret_key})
        return {**variables, **self.env}

    def _make_node(self, i, port, binary, log_files):
        folder = self.folder / f"node{i}"
        folder.mkdir(exist_ok=True)
        return Server(folder / "data", args=self.args, env=self.settings(), binary=binary,
                      listen=f"127.0.0.1:{port}",
                      log_file=folder / "log" if log_files else None)

    # ---- Life ----

    def start_services(self):
        """All but the nodes and the balancer."""
        self.postgres.start()
        if not self.postgres.psql(f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"):
            self.postgres.create_database(DATABASE)
        if self.store is not None:
            self.store.start()
            self.store.make_bucket(BUCKET)  # it is there already: nothing happens
        for proxy in (self.database_proxy, self.store_proxy):
            if proxy is not None:
                proxy.start()

    def start_all(self):
        self.start_services()
        in_threads(len(self.nodes), self.start_node)  # together, as nodes do after a power cut
        self.balancer.start()
        self.balancer.wait_up()
        return self

    def start(self, node=None):
        """All of it, or the node of that number again."""
        return self.start_all() if node is None else self.start_node(node)

    def start_node(self, i):
        return self.nodes[i].start(timeout=90)

    def stop(self, node=None):
        """All of it, or the node of that number, as an update would; returns its exit code."""
        if node is not None:
            return self.nodes[node].stop()
        self.balancer.stop()
        in_threads(len(self.nodes), lambda i: self._end(self.nodes[i]))
        for proxy in (self.store_proxy, self.database_proxy):
            if proxy is not None:
                proxy.stop()
        for service in (self.store, self.postgres):
            if service is not None:
                service.stop()
        return None

    def _end(self, node):
        if node.running():
            node.resume()
            node.stop()

    def check(self):
        """Raises when a node ended by itself, or a sanitizer reported."""
        for node in self.nodes:
            node.check()

    # ---- Faults ----

    def kill(self, i):
        """kill -9"""
        self.nodes[i].kill()

    def pause(self, i):
        self.nodes[i].pause()

    def resume(self, i):
        self.nodes[i].resume()

    def heal(self):
        """Ends all that its proxies do, and brings back what is paused or dead."""
        for proxy in (self.store_proxy, self.database_proxy):
            if proxy is not None:
                proxy.heal()
        for i, node in enumerate(self.nodes):
            if node.running():
                node.resume()
            else:
                self.start_node(i)
        self.balancer.wait_up()

    # ---- Use ----

    def client(self, node=None, **options):
        """Of the node of that number, or of the balancer."""
        return Client(self.balancer if node is None else self.nodes[node], **options)

    def run(self, subcommand, *arguments, timeout=300):
        """A subcommand over what the nodes work on: fsck, backup …"""
        folder = self.folder / "tool"
        folder.mkdir(exist_ok=True)
        return run(subcommand, "--data", folder, *arguments, env=self.settings(), timeout=timeout,
                   binary=self.nodes[0].binary)

    def objects(self, prefix=""):
        """What the store holds: sizes by keys."""
        return self.store.list(BUCKET, prefix)

    def uploads(self, prefix=""):
        """Multipart uploads under way."""
        return self.store.uploads(BUCKET, prefix)

    def psql(self, sql):
        return self.postgres.psql(sql, DATABASE)


def missing():
    """What is not installed that a cluster needs, in a sentence; or None."""
    try:
        Postgres.programs()
        for name, package in (*ObjectStore.PROGRAMS, ("haproxy", "haproxy")):
            services.program(name, package)
    except services.ServiceMissing as failure:
        return str(failure)
    return None
