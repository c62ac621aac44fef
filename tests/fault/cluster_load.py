"""A mixed load on a cluster, and the ledger of what its clients were told.

    with Load(cluster) as load:
        … something breaks, and is whole again …
    load.ledger.verify(cluster)

Each worker owns its repositories, so that it knows what must be there. It talks to the balancer,
every other one to the nodes as well. A request without an answer may have been done, or may be done
yet: the ledger then allows both. An answer that no client could bear, what is not there though it
was acknowledged, and what is there though it was deleted, end the load with a failure.
"""

import collections
import random
import threading
import time

from cluster_clients import (ask_calmly, connect, expect, NO_ANSWER, PATIENCE, Tally, TIMEOUT,
                             Unbearable, Uploader)
from holdfast import ACCEPT, encode, in_threads, make_image, make_index, sha256

WORKERS = 6
PAUSE = 0.2          # seconds between two things that a worker does
FORGET = 1.0         # seconds after which a deleted thing is gone at every node
SLOW = 60            # seconds for what comes soon, unless it never does
BYTES_MAX = 60 << 20  # of blobs in all; what comes after is small

SMALL, MIDDLE, LARGE = (2, 60_000), (200_000, 3 << 20), (5 << 20, 12 << 20)


class Ledger:
    """What must be there, may be there, and must not be. Each entry has one writer."""

    def __init__(self):
        self.tags = {}  # (repository, tag): digests that it may name; None: it may be absent
        self.bodies = {}  # digest: bytes of a manifest
        self.manifests = set()  # (repository, digest)
        self.blobs = {}  # (repository, digest): bytes
        self.gone = set()  # paths

    def verify_at(self, client):
        """All of it at one place."""
        for (repo, tag), allowed in list(self.tags.items()):
            answer = ask_calmly(client, f"/v2/{repo}/manifests/{tag}")
            digest = answer.digest if answer.status == 200 else None
            assert digest in allowed, f"{repo}:{tag} is {digest}, and not one of {allowed}"
            assert digest is None or answer.body == self.bodies[digest]
        for repo, digest in list(self.manifests):
            answer = ask_calmly(client, f"/v2/{repo}/manifests/{digest}")
            assert answer.status == 200, (repo, digest, answer)
            assert answer.body == self.bodies[digest]
        for (repo, digest), content in list(self.blobs.items()):
            answer = ask_calmly(client, f"/v2/{repo}/blobs/{digest}")
            assert answer.status == 200, (repo, digest, answer)
            assert answer.body == content, f"{repo}@{digest}: {len(answer.body)} other bytes"
        for path in list(self.gone):
            answer = ask_calmly(client, path)
            assert answer.status == 404, f"{path} was deleted: {answer}"

    def verify(self, cluster, *nodes):
        """At each of these nodes, or at all."""
        nodes = nodes or range(len(cluster.nodes))

        def at_node(i):
            with connect(cluster, nodes[i]) as client:
                self.verify_at(client)

        in_threads(len(nodes), at_node)


# ---- What a client does ----

class Worker(Uploader):
    """Does one thing after the other in repositories of its own."""

    def __init__(self, load, number, seed):
        super().__init__(load, seed, direct=number % 2 == 1)
        self.repos = [f"load/w{number}/{name}" for name in ("one", "two")]
        self.images = []  # (repository, tag, manifest) that stay
        self.counter = 0
        self.steps = [self.push_image] * 5 + [self.pull] * 4 + [
            self.move_tag, self.mount, self.delete_image, self.delete_image, self.delete_blob,
            self.pull_range, self.abandon, self.cancel]

    def run(self):
        try:
            while not self.load.stopping.is_set():
                self.doubt = False
                self.source.choice(self.steps)()
                time.sleep(PAUSE)
        finally:
            self.close()

    def some_bytes(self):
        kind = self.source.choices([SMALL, MIDDLE, LARGE], [70, 20, 10])[0]
        size = self.source.randrange(*kind)
        return self.source.randbytes(size if self.load.grant(size) else 2000)

    def small_image(self):
        config = encode({"architecture": "amd64", "os": "linux", "unique": self.source.random()})
        return make_image(config=config, layer_blobs=[self.source.randbytes(500)])

    def next_tag(self):
        self.counter += 1
        return f"v{self.counter}"

    # ---- Manifests ----

    def push_blobs(self, repo, image):
        for blob in image.blobs:
            self.push_blob(repo, blob)

    def put_manifest(self, repo, image, reference):
        path = f"/v2/{repo}/manifests/{reference}"
        self.load.ledger.bodies[image.digest] = image.body
        answer = self.ask("PUT", path, image.body, {"Content-Type": image.media_type})
        expect(answer, 201, what=f"PUT {path}")
        self.tally.add("manifests")

    def put_tag(self, repo, image, tag):
        """The ledger allows what the tag may name as soon as it may."""
        tags, key = self.load.ledger.tags, (repo, tag)
        before = tags.get(key, {None})
        tags[key] = before | {image.digest}
        self.doubt = False
        self.put_manifest(repo, image, tag)
        # A request that was never answered may be carried out later than this one.
        in_doubt = self.load.in_doubt[key] | ({image.digest} if self.doubt else set())
        self.load.in_doubt[key] = in_doubt
        tags[key] = {image.digest} | in_doubt

    def push_image(self):
        repo = self.source.choice(self.repos)
        config = encode({"architecture": "amd64", "os": "linux", "unique": self.source.random()})
        image = make_image(config=config, layer_blobs=[
            self.some_bytes() for _ in range(self.source.randrange(1, 4))])
        self.push_blobs(repo, image)
        if self.source.random() < 0.2:
            self.put_manifest(repo, image, image.digest)
            self.load.ledger.manifests.add((repo, image.digest))
            image = make_index([image])
        tag = self.next_tag()
        self.put_tag(repo, image, tag)
        self.load.ledger.manifests.add((repo, image.digest))
        self.images.append((repo, tag, image))
        self.load.shared.extend((repo, sha256(blob)) for blob in image.blobs)
        self.load.inspect(f"/v2/{repo}/manifests/{image.digest}", image.body)

    def move_tag(self):
        image, repo = self.small_image(), self.repos[0]
        self.push_blobs(repo, image)
        self.put_tag(repo, image, "moving")
        self.load.ledger.manifests.add((repo, image.digest))

    def delete(self, path):
        answer = self.ask("DELETE", path)
        expect(answer, 202, *([404] if self.doubt else []), what=f"DELETE {path}")

    def delete_image(self):
        """Pushes one, makes every node know it, and deletes it by tag or by digest."""
        repo, image, tag = self.source.choice(self.repos), self.small_image(), self.next_tag()
        ledger = self.load.ledger
        self.push_blobs(repo, image)
        self.put_tag(repo, image, tag)
        paths = [f"/v2/{repo}/manifests/{tag}", f"/v2/{repo}/manifests/{image.digest}"]
        by_tag = self.source.random() < 0.4
        doubt = self.doubt  # then it may come back
        for client in self.nodes:
            self.try_once("GET", paths[1], None, {"Accept": ACCEPT}, client)
        self.doubt = False
        ledger.tags[repo, tag] = ledger.tags[repo, tag] | {None}
        self.delete(paths[0] if by_tag else paths[1])
        if not doubt:
            ledger.tags[repo, tag] = {None}
            self.load.inspect_gone(paths[0] if by_tag else paths[1])
        if by_tag:
            ledger.manifests.add((repo, image.digest))
            return
        # What nothing needs any more can be deleted, too.
        blob = sha256(image.blobs[1])
        ledger.blobs.pop((repo, blob))
        self.doubt = False
        answer = self.ask("DELETE", f"/v2/{repo}/blobs/{blob}")
        expect(answer, 202, *([404] if self.doubt else []), *([405] if doubt else []))

    def delete_blob(self):
        repo, data = self.source.choice(self.repos), self.source.randbytes(3000)
        self.doubt = False
        path = f"/v2/{repo}/blobs/{self.push_blob(repo, data)}"
        doubt, self.doubt = self.doubt, False
        for client in self.nodes:
            self.try_once("HEAD", path, None, None, client)
        self.load.ledger.blobs.pop((repo, sha256(data)))
        self.doubt = False
        self.delete(path)
        if not doubt:
            self.load.inspect_gone(path)

    # ---- The rest ----

    def mount(self):
        if not self.load.shared:
            return
        source, digest = self.source.choice(self.load.shared)
        repo = self.source.choice(self.repos)
        path = f"/v2/{repo}/blobs/uploads/?mount={digest}&from={source}"
        expect(self.ask("POST", path), 201, what=path)
        self.load.ledger.blobs[repo, digest] = self.load.ledger.blobs[source, digest]
        self.tally.add("mounts")

    def pull(self):
        if not self.images:
            return
        repo, tag, image = self.source.choice(self.images)
        answer = expect(self.ask("GET", f"/v2/{repo}/manifests/{tag}", None, {"Accept": ACCEPT}),
                        200, what=f"{repo}:{tag}")
        if answer.body != image.body and not self.load.in_doubt[repo, tag]:
            raise Unbearable(f"{repo}:{tag} is not what was pushed: {answer!r}")
        for blob in image.blobs:
            path = f"/v2/{repo}/blobs/{sha256(blob)}"
            if expect(self.ask("GET", path), 200, what=path).body != blob:
                raise Unbearable(f"{path}: other bytes")
        self.tally.add("pulls")

    def pull_range(self):
        if not self.load.shared:
            return
        repo, digest = self.source.choice(self.load.shared)
        data = self.load.ledger.blobs[repo, digest]
        first = self.source.randrange(len(data))
        last = self.source.randrange(first, len(data))
        path = f"/v2/{repo}/blobs/{digest}"
        answer = expect(self.ask("GET", path, None, {"Range": f"bytes={first}-{last}"}), 206,
                        what=path)
        if answer.body != data[first:last + 1]:
            raise Unbearable(f"{path}, bytes {first}-{last}: other bytes")

    def begin_upload(self):
        size = self.source.choice([1000, 6 << 20])
        data = bytes(size if self.load.grant(size) else 1000)
        session = self.start(self.source.choice(self.repos), data)
        return session if self.append(session, len(data)) else None

    def abandon(self):
        """Begins an upload that nobody ends."""
        self.begin_upload()

    def cancel(self):
        session = self.begin_upload()
        if session is None:
            return
        doubt, self.doubt = self.doubt, False
        answer = self.ask("DELETE", session.location)
        expect(answer, 204, *([404] if doubt or self.doubt else []), what=session.location)


# ---- Is it gone, and is it there, at every node? ----

class Inspector:
    """Looks at one node, whatever its state: what it answers must be true. A node that stands still
    answers when it goes on."""

    def __init__(self, load, node):
        self.load = load
        self.client = connect(load.cluster, node, follow=False)
        self.node = node
        self.changed = threading.Condition()
        self.orders = collections.deque()  # (when, path, body; None: it is gone)

    def order(self, when, path, body):
        with self.changed:
            self.orders.append((when, path, body))
            self.changed.notify()

    def next(self):
        """In the order in which they came, which is nearly that of their times."""
        with self.changed:
            while not self.orders:
                if self.load.stopping.is_set():
                    return None
                self.changed.wait(0.2)
            return self.orders.popleft()

    def run(self):
        while (order := self.next()) is not None:
            when, path, body = order
            time.sleep(max(0.0, when - time.monotonic()))
            try:
                answer = self.client.get(path, {"Accept": ACCEPT})
            except NO_ANSWER:
                continue
            if answer.status >= 500:
                continue
            if body is None and answer.status != 404:
                raise Unbearable(f"node {self.node} serves {path}, {time.monotonic() - when:.2f} s "
                                 f"after it must be gone: {answer!r}")
            if body is not None and (answer.status != 200 or answer.body != body):
                raise Unbearable(f"node {self.node} does not serve {path}, which was acknowledged: "
                                 f"{answer!r}")
            self.load.tally.add("inspections")
        self.client.close()


class Load:
    """Runs from its `with` to the end of it, which raises the first failure."""

    def __init__(self, cluster, workers=WORKERS, seed=None, bytes_max=BYTES_MAX):
        self.cluster = cluster
        self.seed = random.randrange(2 ** 32) if seed is None else seed
        self.ledger, self.tally = Ledger(), Tally()
        self.in_doubt = collections.defaultdict(set)  # digests by tag: may be put there yet
        self.shared = []  # (repository, digest) of blobs that stay
        self.stopping = threading.Event()
        self.failures, self.odd = [], []
        self.bytes_left, self.lock = bytes_max, threading.Lock()
        self.inspectors = [Inspector(self, i) for i in range(len(cluster.nodes))]
        self.workers = [Worker(self, i, self.seed + i) for i in range(workers)]
        self.threads = [threading.Thread(target=self._guarded, args=(one.run,), daemon=True)
                        for one in [*self.inspectors, *self.workers]]

    def _guarded(self, run):
        try:
            run()
        except BaseException as failure:  # handed to the test
            self.failures.append(failure)
            self.stopping.set()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self.stopping.set()
        if kind is not None:
            self.cluster.heal()  # lest clients wait for what the test has left broken
        for thread in self.threads:
            thread.join(PATIENCE + TIMEOUT)
        print(f"load, seed {self.seed}: {self.tally}")
        if self.failures and (kind is None or issubclass(kind, Stopped)):
            raise self.failures[0]
        assert kind is not None or not any(thread.is_alive() for thread in self.threads), (
            "a client waits for an answer")

    def run(self, seconds):
        """Lets it run so long; ends early when it fails."""
        if self.stopping.wait(seconds):
            raise Stopped

    def run_until(self, condition, what):
        """Lets it run until that holds, which takes as long as the machine is slow."""
        deadline = time.monotonic() + SLOW
        while not condition():
            assert time.monotonic() < deadline, f"{what} after {SLOW} s; {self.tally}"
            self.run(0.05)

    def acknowledged(self):
        """Pushes of blobs and manifests so far."""
        with self.tally.lock:
            return self.tally.counts["blobs"] + self.tally.counts["manifests"]

    def grant(self, size):
        with self.lock:
            if self.bytes_left < size:
                return False
            self.bytes_left -= size
            return True

    def note_odd(self, text):
        with self.lock:
            self.odd.append(text)

    def inspect(self, path, body):
        for inspector in self.inspectors:
            inspector.order(time.monotonic(), path, body)

    def inspect_gone(self, path):
        self.ledger.gone.add(path)
        now = time.monotonic()
        for inspector in self.inspectors:
            inspector.order(now + FORGET, path, None)


class Stopped(Exception):
    """The load has failed; its `with` says how."""
