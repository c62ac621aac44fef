"""The section `cluster`: three nodes over PostgreSQL and S3, beside three of docker-registry with
its S3 driver on the same S3 server, each behind a HAProxy with the same settings; and one beside
one."""

import dataclasses

import seed
from content import ask, push_blob, push_image, random_file
from measure import MIB, column
from nodes import Stack, missing
from servers import Broken

THREE = "Three nodes, PostgreSQL and S3"
ONE = "One node, PostgreSQL and S3"
ONE_TLS = "One node, PostgreSQL and S3, TLS to S3"
NOTE = (
    "Nodes: {}, objects in memory. An image has layers of 10 KiB, 100 KiB and 1 MiB, a config and"
    " a manifest; 16 clients push, each blob by HEAD, POST and PUT. Large layers are pushed by one"
    " client by POST, PATCH and PUT. GETs come on 48 connections, pulls of 16 MiB on 4."
)

ACCEPT = f"Accept: {seed.MANIFEST_TYPE}"
REPOSITORY = "team/app"
CONNECTIONS = 48
PULLS = 4
PUSHES = 16
SMALL_LAYERS = [10 * 1024, 100 * 1024, MIB]
PULLED_BYTES = 16 * MIB
PUSHED_BYTES = 256 * MIB


@dataclasses.dataclass
class Sides:
    """What is compared: nodes of ours, and as many of the peer; asked directly, or through their
    balancers."""

    bench: object
    section: str
    ours: object
    peer: object
    direct: bool

    def balanced(self):
        return dataclasses.replace(self, direct=False)

    def ports(self, nodes):
        return nodes.ports if self.direct else [nodes.port]

    def row(self, name, unit, key, results, **target):
        """key: of the results, what the line is about."""
        mine, theirs = (column(side, key) for side in results)
        name += "" if self.direct else ", HAProxy"
        self.bench.add(self.section, name, unit, mine, self.peer.name, theirs, **target)

    def both(self, measure, rounds=None):
        """measure(nodes) does it once."""
        rounds = rounds or self.bench.cluster_rounds
        return self.bench.turns(rounds, lambda: measure(self.ours), lambda: measure(self.peer))

    def ask(self, path):
        tools, seconds = self.bench.tools, self.bench.cluster_seconds
        return self.both(
            lambda nodes: tools.wrk(
                nodes.url + path, CONNECTIONS, seconds, [ACCEPT], self.ports(nodes)
            )
        )

    def load(self, verb, what, rounds=None, then=None, **flags):
        def measure(nodes):
            seeded = {} if verb in ("pull", "follow") else {"seed": self.bench.fresh_seed()}
            result = self.bench.tools.load(self.ports(nodes), verb, what, **flags, **seeded)
            if then is not None:
                then()
            return result

        return self.both(measure, rounds)


def manifests(sides, digest, **target):
    for name, reference in (("tag", "v1"), ("digest", digest)):
        results = sides.ask(f"/v2/{REPOSITORY}/manifests/{reference}")
        sides.row(f"manifest GET by {name}", "/s", "rate", results, **target)
        sides.row(f"manifest GET by {name}, p50", "ms", "p50_ms", results)
        sides.row(f"manifest GET by {name}, p99", "ms", "p99_ms", results)


def check_redirect(nodes, path):
    connection = nodes.connect()
    answer = ask(connection, "GET", path, expected=307)
    connection.close()
    if "X-Amz-Signature" not in answer.headers["Location"]:
        raise Broken(f"{nodes.name} redirects to {answer.headers['Location']}")


def redirects(sides, blob):
    path = f"/v2/{REPOSITORY}/blobs/{blob}"
    for nodes in (sides.ours, sides.peer):
        check_redirect(nodes, path)
    sides.row("blob GET, the redirect alone", "/s", "rate", sides.ask(path))


def pulls(sides, verb, blob):
    results = sides.load(
        verb,
        f"/v2/{REPOSITORY}/blobs/{blob}",
        connections=PULLS,
        seconds=sides.bench.cluster_seconds,
    )
    way = "by redirect" if verb == "follow" else "through the node"
    sides.row(f"pull of {PULLED_BYTES // MIB} MiB {way}", "MB/s", "mb", results)


def pushes(sides, stack, **target):
    images = sides.load(
        "image",
        REPOSITORY,
        connections=PUSHES,
        requests=400,
        seconds=sides.bench.cluster_seconds,
        size=SMALL_LAYERS,
    )
    sides.row("push of images", "/s", "rate", images, **target)
    sides.row("push of images, p50", "ms", "p50_ms", images)
    sides.row("push of images, p99", "ms", "p99_ms", images)
    large = sides.load(
        "stream",
        REPOSITORY,
        rounds=sides.bench.layer_rounds,
        then=lambda: stack.forget(larger_than=PULLED_BYTES),
        requests=1,
        size=PUSHED_BYTES,
    )
    sides.row(f"push of a layer of {PUSHED_BYTES // MIB} MiB", "MB/s", "mb", large, **target)


def prepare(bench, *both):
    """The same content on both sides. Returns the digests of a manifest and of a blob."""
    source = random_file(bench.folder / "pulled", PULLED_BYTES)
    for nodes in both:
        content = push_image(nodes, REPOSITORY, "v1")
        blob, _ = push_blob(nodes, REPOSITORY, source)
    source.unlink()
    return seed.digest_of(content), blob


def three_nodes(bench, stack):
    with stack.holdfast() as ours, stack.peer() as peer:
        digest, blob = prepare(bench, ours, peer)
        sides = Sides(bench, THREE, ours, peer, direct=True)
        manifests(sides, digest, at_least=10)
        redirects(sides, blob)
        sides = sides.balanced()
        manifests(sides, digest, at_least=10)
        pulls(sides, "follow", blob)
        pushes(sides, stack, at_least=2)
    with stack.holdfast(redirect=False) as ours, stack.peer(redirect=False) as peer:
        pulls(Sides(bench, THREE, ours, peer, direct=False), "pull", blob)
    return digest, blob


def one_node(bench, stack, digest, blob):
    with stack.holdfast(1) as ours, stack.peer(1) as peer:
        sides = Sides(bench, ONE, ours, peer, direct=True)
        manifests(sides, digest)
        redirects(sides, blob)
        pushes(sides, stack)
    with stack.holdfast(1, redirect=False) as ours, stack.peer(1, redirect=False) as peer:
        pulls(Sides(bench, ONE, ours, peer, direct=True), "pull", blob)


def one_node_tls(bench, stack, blob):
    options = {"redirect": False, "tls": True}
    with stack.holdfast(1, **options) as ours, stack.peer(1, **options) as peer:
        sides = Sides(bench, ONE_TLS, ours, peer, direct=True)
        pulls(sides, "pull", blob)
        pushes(sides, stack)


def cluster(bench):
    """Left out, with a word, where the services are not installed."""
    if reason := missing():
        print(f"  not run: {reason}", flush=True)
        return
    with Stack(bench.binary, bench.folder) as stack:
        bench.notes.append(NOTE.format(stack.versions()))
        digest, blob = three_nodes(bench, stack)
        one_node(bench, stack, digest, blob)
        one_node_tls(bench, stack, blob)
