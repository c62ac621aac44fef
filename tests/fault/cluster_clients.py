"""Clients of a cluster that behave as real ones do: they repeat what failed with growing pauses
until their patience is over, and begin an upload again whose session is gone. What the registry
must never tell them is Unbearable."""

import collections
import http.client
import random
import threading
import time

from holdfast import ACCEPT, Client, Elsewhere, OCTETS, sha256, with_query

PATIENCE = 90      # seconds for one request with all its repetitions; longer than any fault
TIMEOUT = 60       # seconds for one answer
SESSION_TRIES = 8  # requests of one upload that may fail before it is begun again
EXPIRE = 50        # seconds for which an upload without news is there, at least


class Unbearable(AssertionError):
    """What a client must never be told, or never be told for so long."""


class Single(Client):
    """Sends each request once: who repeats it must know that he does."""

    def _request(self, method, path, body, pairs):
        if self._connection is None:
            self._connect()
        try:
            return self._exchange(method, path, body, pairs)
        except BaseException:
            self.close()
            raise


def place_of(server):
    """Where a node or the balancer is, also while it is not."""
    port = int(server.listen.rpartition(":")[2]) if hasattr(server, "listen") else server.port
    return Elsewhere("http", "127.0.0.1", port, None)


def connect(cluster, node=None, timeout=TIMEOUT, **options):
    server = cluster.balancer if node is None else cluster.nodes[node]
    return Single(place_of(server), timeout=timeout, **options)


NO_ANSWER = (OSError, http.client.HTTPException)


def is_final(answer):
    return answer.status < 500 and answer.status != 429


class Tally:
    """What clients had to bear."""

    def __init__(self):
        self.lock = threading.Lock()
        self.counts = collections.Counter()
        self.longest = 0.0

    def add(self, what):
        with self.lock:
            self.counts[what] += 1

    def waited(self, seconds):
        with self.lock:
            self.longest = max(self.longest, seconds)

    def __str__(self):
        with self.lock:
            return (f"longest wait {self.longest:.1f} s; "
                    + ", ".join(f"{what}: {n}" for what, n in sorted(self.counts.items(), key=str)))


def ask_calmly(client, path):
    """GET while nothing is broken; a connection that was idle for too long is no fault."""
    for last in (False, True):
        try:
            return client.get(path, {"Accept": ACCEPT})
        except NO_ANSWER:
            if last:
                raise


class Asker:
    """Sends requests to the balancer or to any node, and repeats what failed."""

    def __init__(self, load, seed, direct):
        self.load = load
        self.source = random.Random(seed)
        self.tally = load.tally
        nodes = len(load.cluster.nodes)
        self.balancer = connect(load.cluster)
        self.nodes = [connect(load.cluster, i if direct else None) for i in range(nodes)]
        self.turn = self.source.randrange(nodes)
        self.doubt = False  # something had no answer since this was set to False

    def close(self):
        for client in (self.balancer, *self.nodes):
            client.close()

    def some_place(self):
        return self.balancer if self.source.random() < 0.5 else self.source.choice(self.nodes)

    def next_node(self):
        self.turn = (self.turn + 1) % len(self.nodes)
        return self.nodes[self.turn]

    def try_once(self, method, path, body=None, headers=None, place=None):
        """The answer, or None when there was none or one that invites to repeat."""
        place = place or self.some_place()
        try:
            answer = place.request(method, path, body, headers)
        except ConnectionRefusedError:
            self.tally.add("refused")
            return None
        except NO_ANSWER as failure:
            self.doubt = True
            self.tally.add(type(failure).__name__)
            return None
        if is_final(answer):
            return answer
        self.doubt = True
        self.tally.add(answer.status)
        if answer.status not in (429, 502, 503, 504) and answer.redirect is None:
            self.load.note_odd(f"{method} {path}: {answer!r}")
        return None

    def repeat(self, attempt, what):
        """Calls attempt() until it gives something, with growing pauses."""
        begun = time.monotonic()
        pause = 0.05
        while (result := attempt()) is None:
            waited = time.monotonic() - begun
            if waited > PATIENCE:
                raise Unbearable(f"{what} failed for {waited:.0f} s; {self.tally}")
            time.sleep(pause * self.source.uniform(0.5, 1))
            pause = min(pause * 2, 2)
        self.tally.waited(time.monotonic() - begun)
        return result

    def ask(self, method, path, body=None, headers=None, place=None):
        """The first answer that is final."""
        places = [place]

        def attempt():
            return self.try_once(method, path, body, headers, places.pop() if places else None)

        return self.repeat(attempt, f"{method} {path}")


def expect(answer, *statuses, what=""):
    if answer.status not in statuses:
        raise Unbearable(f"{what or 'an answer'}: {answer!r}")
    return answer


class Session:
    """An upload on its way: what was acknowledged of it."""

    def __init__(self, repo, data, location):
        self.repo, self.data, self.location = repo, data, location
        self.digest = sha256(data)
        self.at = 0
        self.failures = 0
        self.ending = False
        self.touched = time.monotonic()  # when something was acknowledged


class Uploader(Asker):
    """Pushes blobs in all the ways that clients have."""

    def push_blob(self, repo, data):
        """Until it is acknowledged, and in the ledger."""
        way = self.source.choice([self.by_post, self.by_put, self.by_stream, self.by_chunks,
                                  self.by_chunks])

        def attempt():
            done = way(repo, data)
            if not done:
                self.tally.add("upload begun again")
            return done or None

        self.repeat(attempt, f"a push of {len(data)} bytes to {repo}")
        digest = sha256(data)
        self.load.ledger.blobs[repo, digest] = data
        self.tally.add("blobs")
        return digest

    def by_post(self, repo, data):
        path = f"/v2/{repo}/blobs/uploads/?digest={sha256(data)}"
        answer = self.try_once("POST", path, data, {"Content-Type": OCTETS})
        return answer is not None and bool(expect(answer, 201, what=path))

    def start(self, repo, data):
        path = f"/v2/{repo}/blobs/uploads/"
        answer = expect(self.ask("POST", path), 202, what=path)
        return Session(repo, data, answer.location)

    def by_put(self, repo, data):
        return self.finish(self.start(repo, data))

    def by_stream(self, repo, data):
        session = self.start(repo, data)
        return self.append(session, len(data), ranged=False) and self.finish(session)

    def by_chunks(self, repo, data):
        """The pieces go to one node after the other."""
        session = self.start(repo, data)
        if len(data) > 20:
            for cut in sorted(self.source.sample(range(2, len(data)), self.source.randrange(1, 5))):
                if not self.append(session, cut):
                    return False
        return self.finish(session)

    @staticmethod
    def headers(session, end, ranged):
        """Of the bytes up to `end`. What had no answer may be carried out yet: from then on only
        bytes that say where they belong are safe."""
        if session.at < end and (ranged or session.failures):
            return {"Content-Type": OCTETS, "Content-Range": f"{session.at}-{end - 1}"}
        return {"Content-Type": OCTETS}

    def append(self, session, end, *, ranged=True):
        """Sends the bytes up to `end`. False: the session is lost."""
        while session.at < end:
            at, piece = session.at, session.data[session.at:end]
            headers = self.headers(session, end, ranged)
            answer = self.try_once("PATCH", session.location, piece, headers, self.next_node())
            if answer is None or (answer.status in (404, 416) and session.failures):
                if not self.look_again(session, end):
                    return False
                continue
            expect(answer, 202, what=f"PATCH {session.location} {at}-{end - 1}")
            assert answer.headers["Range"] == f"0-{end - 1}", answer
            session.at, session.location = end, answer.location
            session.touched = time.monotonic()
        return True

    def finish(self, session):
        """False: the session is lost, and the blob is not there."""
        session.ending = True
        while True:
            path = with_query(session.location, digest=session.digest)
            headers = self.headers(session, len(session.data), False)
            answer = self.try_once("PUT", path, session.data[session.at:], headers,
                                   self.next_node())
            if answer is not None and answer.status == 201:
                assert answer.digest == session.digest, answer
                return True
            if answer is not None and not (answer.status in (404, 416) and session.failures):
                raise Unbearable(f"PUT {path}: {answer!r}")
            if not self.look_again(session, len(session.data)):
                return self.is_there(session)

    def look_again(self, session, end):
        """After a request that had no answer: how far is it? False: give it up."""
        session.failures += 1
        if session.failures > SESSION_TRIES:
            return False
        time.sleep(0.1 * 2 ** min(session.failures, 4) * self.source.uniform(0.5, 1))
        answer = expect(self.ask("GET", session.location), 204, 404, what=session.location)
        if answer.status == 404:
            self.tally.add("session gone")
            ended = session.ending and self.is_there(session)
            if not ended and time.monotonic() - session.touched < EXPIRE:
                raise Unbearable(f"{session.location} is gone, which was acknowledged: {answer!r}")
            return False
        told = int(answer.headers["Range"].partition("-")[2])
        received = told + 1 if told > 0 else 0
        if not session.at <= received <= end:
            raise Unbearable(f"{session.location} has {received} bytes: {session.at} were "
                             f"acknowledged, {end} sent")
        session.at = received
        return True

    def is_there(self, session):
        path = f"/v2/{session.repo}/blobs/{session.digest}"
        return expect(self.ask("HEAD", path), 200, 404, what=path).status == 200
