"""kill -9 at any moment: what was acknowledged is whole after the restart, what was not is absent
or whole, and nothing is ever half there."""

import random
import re
import subprocess
import threading
import time

import pytest

from holdfast import (clean_environment, Client, digest_of, get_blob, make_artifact, make_image,
                      make_index, pull_image, push_blob, push_image, push_manifest, random_bytes,
                      REPOSITORY, run, ServerFailed, sha256, start_upload, with_query)

ROUNDS = 12
THREADS = 4


class Pusher:
    """Pushes without end until the server is gone, and remembers what it was told."""

    def __init__(self, server, number, seed):
        self.server = server
        self.repo = f"app{number}"
        self.source = random.Random(seed)
        self.images = {}      # tag -> body, acknowledged
        self.in_doubt = {}    # tag -> bodies sent for it without an answer
        self.blobs = set()    # digests, acknowledged
        self.deleted = set()  # digests of manifests, acknowledged as deleted
        self.maybe_deleted = set()
        self.upload = None    # location, bytes acknowledged, all bytes
        self.counter = 0

    def work(self):
        """One round; ends when the connection breaks."""
        try:
            with Client(self.server, timeout=20) as client:
                while True:
                    self.step(client)
        except Exception as failure:
            if isinstance(failure, AssertionError):
                raise  # an answer that should not have been given

    def step(self, client):
        self.source.choice([self.push_image, self.push_image, self.push_chunks, self.move_tag,
                            self.delete])(client)

    def push_tag(self, client, image, tag):
        self.in_doubt.setdefault(tag, []).append(image.body)
        push_manifest(client, self.repo, image, tag)
        self.images[tag] = image.body
        self.in_doubt[tag] = []

    def push_blobs(self, client, image):
        for blob in image.blobs:
            chunk = self.source.choice([None, None, 7000])
            self.blobs.add(push_blob(client, self.repo, blob, chunk=chunk))

    def push_image(self, client):
        image = make_image(2, self.source.randrange(1, 40000))
        self.push_blobs(client, image)
        self.counter += 1
        if self.counter % 3 == 0:
            push_manifest(client, self.repo, image)
            image = make_index([image])
        self.push_tag(client, image, f"v{self.counter}")

    def move_tag(self, client):
        image = make_image(1, 100)
        self.push_blobs(client, image)
        self.push_tag(client, image, "moving")

    def delete(self, client):
        """Pushes an image without a tag and deletes it again."""
        image = make_image(1, 100)
        push_image(client, self.repo, image)
        self.maybe_deleted.add(image.digest)
        answer = client.delete(f"/v2/{self.repo}/manifests/{image.digest}")
        assert answer.status == 202, answer
        self.deleted.add(image.digest)

    def push_chunks(self, client):
        """Goes on with an upload that outlives the rounds."""
        if self.upload is None:
            data = random_bytes(60000)
            self.upload = [start_upload(client, self.repo), 0, data]
        location, start, data = self.upload
        if start < len(data):
            piece = data[start:start + 9000]
            answer = client.patch(location, piece,
                                  {"Content-Range": f"{start}-{start + len(piece) - 1}"})
            assert answer.status == 202, answer
            self.upload = [answer.location, start + len(piece), data]
        else:
            answer = client.put(with_query(location, digest=sha256(data)))
            assert answer.status == 201, answer
            self.blobs.add(sha256(data))
            self.upload = None

    def check(self, client):
        """After a restart: everything that was acknowledged, and the truth about the rest."""
        for tag, body in self.images.items():
            answer = pull_image(client, self.repo, tag)
            allowed = [body, *self.in_doubt.get(tag, [])]
            assert answer.body in allowed, f"{self.repo}:{tag} is none of what was pushed"
            self.images[tag] = answer.body
        for tag, bodies in self.in_doubt.items():
            if tag not in self.images and bodies:
                answer = client.get(f"/v2/{self.repo}/manifests/{tag}")
                assert answer.status in (200, 404)
                if answer.status == 200:
                    assert answer.body in bodies
                    pull_image(client, self.repo, tag)
                    self.images[tag] = answer.body
        self.in_doubt.clear()
        for digest in self.blobs:
            get_blob(client, self.repo, digest)
        for digest in self.deleted:
            assert client.get(f"/v2/{self.repo}/manifests/{digest}").status == 404
        if self.upload is not None:
            self.check_upload(client)

    def check_upload(self, client):
        location, start, data = self.upload
        answer = client.get(location)
        if answer.status == 404:
            # The last request, which had no answer, may have ended it.
            assert start == len(data), "an acknowledged upload is gone"
            get_blob(client, self.repo, sha256(data))
            self.blobs.add(sha256(data))
            self.upload = None
            return
        assert answer.status == 204, answer
        received = int(answer.headers["Range"].partition("-")[2]) + 1
        received = 0 if received == 1 else received
        assert start <= received <= start + 9000, "acknowledged bytes are lost"
        self.upload[1] = received


def fsck(server, *arguments):
    return run("fsck", "--data", server.data, *arguments, timeout=120)


def test_kill_9_in_a_loop_loses_nothing_that_was_acknowledged(make_server):
    seed = random.randrange(2**32)
    source = random.Random(seed)
    server = make_server()
    pushers = [Pusher(server, i, seed + i) for i in range(THREADS)]
    failures = []

    def body(pusher):
        try:
            pusher.work()
        except AssertionError as failure:
            failures.append(failure)

    for number in range(ROUNDS):
        threads = [threading.Thread(target=body, args=(p,)) for p in pushers]
        for thread in threads:
            thread.start()
        time.sleep(source.uniform(0.1, 0.9))
        server.kill()
        for thread in threads:
            thread.join()
        assert not failures, (seed, failures[0])
        server.start()
        with Client(server) as client:
            for pusher in pushers:
                pusher.check(client)
    assert sum(len(p.images) for p in pushers) > ROUNDS, "hardly anything was pushed"
    assert server.stop() == 0
    result = fsck(server, "--deep")
    assert result.returncode == 0, result.stdout
    result = fsck(server, "--deep", "--repair")
    assert result.returncode == 0, result.stdout
    result = fsck(server, "--deep")
    assert (result.returncode, "leftover" in result.stdout) == (0, False), result.stdout
    server.start()
    with Client(server) as client:
        for pusher in pushers:
            pusher.check(client)


def test_a_kill_during_the_first_start_is_no_harm(make_server):
    server = make_server(start=False)
    for delay in (0.0, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3):
        process = subprocess.Popen(server.command(), env=clean_environment(),
                                   stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.kill()
        process.wait()
    server.start()
    with Client(server) as client:
        push_image(client, "app", make_image(), "v1")
    assert server.stop() == 0
    assert fsck(server, "--deep").returncode == 0


# ---- At the named points ----

def points():
    """Every crash point that a server may pass."""
    found = set()
    for path in sorted((REPOSITORY / "src").glob("*/*.c")):
        if path.parent.name not in ("base", "transfer"):
            found |= set(re.findall(r'crash_point\("([^"]+)"\)', path.read_text()))
    return sorted(found)


class Ledger:
    """One pass over everything that writes, noting what was acknowledged."""

    def __init__(self):
        self.blobs, self.tags, self.gone = {}, {}, []
        self.upload = None
        self.data = random_bytes(50000)

    def blob(self, repo, digest, data):
        self.blobs[repo, digest] = data

    def run(self, client):
        image, late = make_image(2, 3000), make_image(1, 3000)
        for data in image.blobs:
            digest = push_blob(client, "one", data)
            self.blob("one", digest, data)
        push_manifest(client, "one", image, "v1")
        self.tags["one", "v1"] = image.body
        data = random_bytes(3000)
        answer = client.post(f"/v2/two/blobs/uploads/?digest={sha256(data)}", data)
        assert answer.status == 201, answer
        self.blob("two", sha256(data), data)
        digest = push_blob(client, "two", random_bytes(3000), algorithm="sha512")
        self.blobs["two", digest] = None
        mounted = sha256(image.blobs[1])
        answer = client.post(f"/v2/two/blobs/uploads/?mount={mounted}&from=one")
        assert answer.status == 201, answer
        self.blob("two", mounted, image.blobs[1])
        location = start_upload(client, "one")
        self.upload = location, 0
        for start in (0, 10000, 20000, 30000):
            answer = client.patch(location, self.data[start:start + 10000])
            assert answer.status == 202, answer
            self.upload = answer.location, start + 10000
        answer = client.put(with_query(location, digest=sha256(self.data)), self.data[40000:])
        assert answer.status == 201, answer
        self.blob("one", sha256(self.data), self.data)
        self.upload = None
        answer = client.put(with_query(start_upload(client, "one"), digest=sha256(b"other")), b"x")
        assert answer.status == 400, answer
        assert client.delete(start_upload(client, "one")).status == 204
        for tag in ("v1", "v2"):
            push_image(client, "one", late, tag)
            self.tags["one", tag] = late.body
        artifact = make_artifact("application/x.y", late.descriptor())
        push_image(client, "one", artifact, "artifact")
        self.tags["one", "artifact"] = artifact.body
        self.tags.pop(("one", "v2"))
        assert client.delete("/v2/one/manifests/v2").status == 202
        self.gone.append("/v2/one/manifests/v2")
        assert client.delete(f"/v2/one/manifests/{image.digest}").status == 202
        self.gone.append(f"/v2/one/manifests/{image.digest}")
        digest = sha256(image.blobs[0])
        self.blobs.pop(("one", digest))
        assert client.delete(f"/v2/one/blobs/{digest}").status == 202
        self.gone.append(f"/v2/one/blobs/{digest}")

    def check(self, client):
        for (repo, digest), data in self.blobs.items():
            assert data is None or get_blob(client, repo, digest) == data
            assert digest_of(get_blob(client, repo, digest), digest.partition(":")[0]) == digest
        for (repo, tag), body in self.tags.items():
            answer = pull_image(client, repo, tag)
            assert answer.body == body or tag == "v1"  # the move of v1 may have had no answer
        for path in self.gone:
            assert client.get(path).status == 404, path
        if self.upload is not None:
            location, received = self.upload
            answer = client.get(location)
            if answer.status == 404 and received == 40000:
                return get_blob(client, "one", sha256(self.data))
            assert answer.status == 204, answer
            told = int(answer.headers["Range"].partition("-")[2])
            assert told == 0 or told + 1 >= received, "acknowledged bytes are lost"
        return None


@pytest.mark.hooks
@pytest.mark.parametrize("received", [0, 30000])
@pytest.mark.parametrize("point", [
    p for p in points() if not p.startswith(("manifest.", "db."))  # background work commits, too
    and p not in ("blob.staged", "upload.synced", "upload.advanced")])
def test_an_upload_whose_end_crashed_can_be_ended_again(make_server, point, received):
    # The client had no answer to its PUT and sends it again, as it may after any failure.
    server = make_server()
    data = random_bytes(30000)
    with Client(server, timeout=20) as client:
        push_image(client, "app", make_image(), "v1")
        location = start_upload(client, "app")
        if received:
            assert client.patch(location, data).status == 202
        server.stop()
        server.env["HOLDFAST_TEST_CRASH"] = point
        server.start()
        url = with_query(location, digest=sha256(data))
        server.expect_end()
        try:
            answer = client.put(url, data[received:])
        except Exception:
            answer = None
        if answer is not None and point == "blob.folder_made":
            return  # by chance, the folder of this digest was there
        assert answer is None, f"{point} is not on the way of a PUT"
        assert server.wait(10) == -9
        del server.env["HOLDFAST_TEST_CRASH"]
        server.start()
        status = client.get(location)
        if status.status == 404:  # the PUT was done, only its answer was lost
            assert get_blob(client, "app", sha256(data)) == data
            return
        assert status.headers["Range"] == f"0-{max(0, received - 1)}"
        answer = client.put(url, data[received:])
        assert answer.status == 201, answer
        assert get_blob(client, "app", sha256(data)) == data


@pytest.mark.hooks
@pytest.mark.parametrize("passing", [1, 3])
@pytest.mark.parametrize("point", points())
def test_a_crash_at_a_named_point_loses_nothing_that_was_acknowledged(make_server, point, passing):
    server = make_server(env={"HOLDFAST_TEST_CRASH": f"{point}:{passing}"}, start=False)
    ledger = Ledger()
    crashed_at_start = False
    try:
        server.start()
    except ServerFailed:
        assert server.process.returncode == -9, server.log_text()
        crashed_at_start = True
    if not crashed_at_start:
        server.expect_end()
        broke = False
        try:
            with Client(server, timeout=30) as client:
                ledger.run(client)
        except Exception as failure:
            if isinstance(failure, AssertionError):
                raise
            broke = True
        assert broke, f"the crash point {point} was not passed {passing} times"
        assert server.wait(10) == -9
    del server.env["HOLDFAST_TEST_CRASH"]
    server.start()
    with Client(server) as client:
        ledger.check(client)
        Ledger().run(client)  # and everything still works
    assert server.stop() == 0
    result = fsck(server, "--deep")
    assert result.returncode == 0, result.stdout
