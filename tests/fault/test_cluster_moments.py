"""Single moments in the life of three nodes over PostgreSQL and an object store: one of them dies
or stands still in the middle of something, and another one goes on."""

import threading
import time

import pytest

from cluster import BUCKET, DATABASE, missing
from cluster_checks import (await_ready, check_all, HEALED, is_at_rest, jobs, LEASE, make_due,
                            NODES, readiness, rows, small_cluster)
from cluster_clients import ask_calmly, connect
from cluster_load import FORGET
from faultproxy import FaultProxy
from holdfast import (get_blob, get_manifest, make_image, push_blob, push_image, push_manifest,
                      random_bytes, random_name, sha256, start_upload, wait_until, with_query)
from services import scratch, ServiceFailed

IDLE = 10  # seconds for which PostgreSQL bears a transaction in which nothing happens

pytestmark = [pytest.mark.hooks,
              pytest.mark.skipif(missing() is not None, reason=f"NOT RUN: {missing()}")]


@pytest.fixture(scope="module")
def common():
    """Of all tests here; in the end all must be well."""
    with scratch() as folder, small_cluster(folder, "--log-level", "debug") as running:
        yield running
        running.heal()
        check_all(running)


@pytest.fixture
def cluster(common):
    common.heal()
    await_ready(common)
    yield common
    common.check()


@pytest.fixture
def repo():
    return random_name()


# ---- One upload ----

def try_until_done(attempt, status):
    """An upload that a node holds which is gone is refused with 503 until its lease has run out,
    and, if it stands still inside a transaction, until PostgreSQL ends that."""
    deadline = time.monotonic() + LEASE + IDLE + HEALED
    while (answer := attempt()).status == 503 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert answer.status == status, answer


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_an_upload_goes_on_at_another_node_when_its_own_is_gone(cluster, repo, how):
    data = random_bytes(40 << 20)
    first, second, third = 12 << 20, 27 << 20, len(data)
    with cluster.client(0) as node0, cluster.client(1) as node1, cluster.client(2) as node2:
        location = start_upload(node0, repo)
        assert node0.patch(location, data[:first]).status == 202
        parts = cluster.store_proxy.count("UploadPart")
        with node0.raw(f"PATCH {location} HTTP/1.1\r\nHost: x\r\n"
                       f"Content-Length: {third - first}\r\n\r\n".encode()) as unfinished:
            unfinished.send(data[first:third - (9 << 20)])
            assert wait_until(lambda: cluster.store_proxy.count("UploadPart") > parts), "no part"
            getattr(cluster, how)(0)
            status = node1.get(location)
            assert (status.status, status.headers["Range"]) == (204, f"0-{first - 1}")
            try_until_done(lambda: node1.patch(location, data[first:second], {
                "Content-Range": f"{first}-{second - 1}"}), 202)
            if how == "pause":
                cluster.resume(0)
                unfinished.send(data[third - (9 << 20):])
                late = unfinished.response()
                assert late.status in (404, 503), late  # it was told so, and not that all is well
            status = node2.get(location)
            assert (status.status, status.headers["Range"]) == (204, f"0-{second - 1}")
            answer = node2.put(with_query(location, digest=sha256(data)), data[second:])
            assert answer.status == 201, answer
    cluster.heal()
    for i in NODES:
        with cluster.client(i) as client:
            assert get_blob(client, repo, sha256(data)) == data


def test_two_nodes_complete_the_same_upload(cluster, repo):
    """The first one stands still when the store has done it, but will deny it; the second one finds
    it done. What the first one does when it goes on harms nothing."""
    data = random_bytes(20 << 20)
    done = []
    with cluster.client(0) as node0, cluster.client(1) as node1:
        location = start_upload(node0, repo)
        assert node0.patch(location, data).status == 202
        path = with_query(location, digest=sha256(data))
        before = cluster.store_proxy.count("CompleteMultipartUpload")
        cluster.store_proxy.fail(503, kinds={"CompleteMultipartUpload"}, after=True, late=True)
        ending = threading.Thread(target=lambda: done.append(node0.put(path)))
        ending.start()
        assert wait_until(
            lambda: cluster.store_proxy.count("CompleteMultipartUpload") > before), "not completed"
        cluster.pause(0)
        cluster.store_proxy.heal()
        try_until_done(lambda: node1.put(path), 201)
        cluster.resume(0)
        ending.join(30)
        assert done and done[0].status in (201, 404, 503), done
    for i in NODES:
        with cluster.client(i) as client:
            assert get_blob(client, repo, sha256(data)) == data


def test_an_upload_is_over_of_which_another_writer_changed_a_part(cluster, repo):
    """As one can who stood still while it put that part."""
    data = random_bytes(20 << 20)
    with cluster.client() as client:
        location = start_upload(client, repo)
        assert client.patch(location, data).status == 202
        identity = location.rpartition("/")[2]
        (key, multipart), = [one for one in cluster.uploads() if identity in one[0]]
        cluster.store.client.request("PUT", f"/{BUCKET}/{key}", {
            "partNumber": "1", "uploadId": multipart}, body=random_bytes(5 << 20))
        answer = client.put(with_query(location, digest=sha256(data)))
        assert (answer.status, answer.code) == (404, "BLOB_UPLOAD_UNKNOWN"), answer
        assert client.get(location).status == 404
        assert not any(identity in one[0] for one in cluster.uploads())
        push_blob(client, repo, data)
        assert get_blob(client, repo, sha256(data)) == data


# ---- Jobs ----

class TableLock:
    """Nobody writes to the table until the end of the `with`."""

    def __init__(self, cluster, table):
        self.cluster = cluster
        sql = f"BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE; SELECT pg_sleep(60); COMMIT"
        self.thread = threading.Thread(target=self.hold, args=(sql,))

    def hold(self, sql):
        with pytest.raises(ServiceFailed, match="terminating connection"):
            self.cluster.psql(sql)

    def holders(self):
        return [row["pid"] for row in rows(self.cluster, """
            SELECT pid FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK TABLE%'
            AND wait_event = 'PgSleep'""")]

    def __enter__(self):
        self.thread.start()
        assert wait_until(self.holders, 10)
        return self

    def __exit__(self, *_):
        for pid in self.holders():
            self.cluster.psql(f"SELECT pg_terminate_backend({pid})")
        self.thread.join()


def quoted(ids):
    return ", ".join(f"'{one}'" for one in ids)


def says(message, kind):
    return lambda line: line.get("message") == message and line.get("job") == kind


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_a_job_runs_elsewhere_when_its_node_is_gone(cluster, repo, how):
    kind = "uploads.expire"
    job = lambda: next(job for job in jobs(cluster) if job["kind"] == kind)  # noqa: E731
    with cluster.client() as client:
        stale = [start_upload(client, repo) for _ in range(5)]
        fresh = start_upload(client, repo)
        for location in (*stale, fresh):
            assert client.patch(location, b"something").status == 202
    assert wait_until(lambda: is_at_rest(job()), HEALED)
    ids = [location.rpartition("/")[2] for location in (*stale, fresh)]
    cluster.psql(f"UPDATE upload SET touched_at = 0 WHERE id IN ({quoted(ids[:-1])})")
    marks = [len(node.log) for node in cluster.nodes]
    with TableLock(cluster, "upload"):
        make_due(cluster)
        assert wait_until(lambda: job()["lease"] != "", HEALED), job()
        lease = job()["lease"]
        holder = next(i for i in NODES if cluster.nodes[i].wait_log(
            says("a job begins", kind), 1, marks[i]))
        marks = [len(node.log) for node in cluster.nodes]
        getattr(cluster, how)(holder)
        assert wait_until(lambda: job()["lease"] not in ("", lease), HEALED), job()
    # A node that stands still inside a transaction keeps its locks until PostgreSQL ends that.
    assert wait_until(lambda: is_at_rest(job()), IDLE + HEALED), job()
    left = rows(cluster, f"SELECT id FROM upload WHERE id IN ({quoted(ids)})")
    assert [row["id"] for row in left] == ids[-1:]
    others = [node for i, node in enumerate(cluster.nodes) if i != holder]
    assert any(node.wait_log(says("a job is done", kind), 1, marks[cluster.nodes.index(node)])
               for node in others)
    before = job()
    if how == "pause":
        cluster.resume(holder)
        lost = cluster.nodes[holder].wait_log(says("a job lost its lease to another node", kind),
                                           HEALED, marks[holder])
        assert lost, "it does not know that it lost the job"
    else:
        cluster.start(holder)
    after = job()
    assert is_at_rest(after) and after["due_at"] >= before["due_at"], (before, after)
    with cluster.client() as client:
        assert client.get(fresh).headers["Range"] == "0-8"
        assert client.delete(fresh).status == 204


# ---- What a node remembers ----

def test_a_node_that_stood_still_does_not_serve_what_was_deleted(cluster, repo):
    image, data = make_image(), random_bytes(1000)
    with cluster.client(0) as node0, connect(cluster, 2) as node2:
        push_image(node0, repo, image, "v1")
        paths = [f"/v2/{repo}/manifests/{image.digest}",
                 f"/v2/{repo}/blobs/{push_blob(node0, repo, data)}"]
        for path in paths:
            assert ask_calmly(node2, path).status == 200
        for path in paths:
            answers = []
            asking = threading.Thread(target=lambda path=path, answers=answers: answers.append(
                node2.get(path).status))
            cluster.pause(2)
            assert node0.delete(path).status == 202
            time.sleep(FORGET)
            asking.start()
            time.sleep(0.1)
            cluster.resume(2)
            asking.join(30)
            assert answers[0] in (404, 503), answers
            assert wait_until(lambda path=path: node2.get(path).status == 404, 10)


@pytest.mark.parametrize("how", ["cut", "hang"])
def test_a_node_without_its_database_does_not_serve_what_was_deleted(cluster, repo, how):
    image, other = make_image(), make_image()
    node = cluster.nodes[2]
    with FaultProxy(cluster.postgres.port, http=False) as proxy:
        node.stop()
        node.env["HOLDFAST_METADATA"] = cluster.postgres.url(DATABASE, port=proxy.port)
        cluster.start(2)
        with cluster.client(0) as node0, connect(cluster, 2) as node2:
            for one in (image, other):
                push_image(node0, repo, one, one.digest)
                assert get_manifest(node2, repo, one.digest).body == one.body
            getattr(proxy, how)()
            begun = time.monotonic()
            path = f"/v2/{repo}/manifests/{image.digest}"
            assert node0.delete(path).status == 202
            gone = time.monotonic()
            while time.monotonic() - begun < 6:
                asked = time.monotonic()
                status = node2.get(path).status
                assert status == 503 or (status == 200 and asked - gone < FORGET), (
                    f"{status}, {asked - gone:.2f} s after the deletion")
                time.sleep(0.02)
            assert readiness(cluster, 2) == 503
            proxy.heal()
            assert wait_until(lambda: node2.get(path).status == 404, 10)
            assert get_manifest(node2, repo, other.digest).body == other.body
        await_ready(cluster)
        node.stop()
        node.env["HOLDFAST_METADATA"] = cluster.database_url()
        cluster.start(2)


def test_fsck_reports_nothing_of_what_is_deleted_meanwhile(cluster, repo):
    """A manifest goes, and then what it needed, while fsck looks for each of its many layers."""
    layer, last = random_bytes(50), random_bytes(50)
    image = make_image(layer_blobs=[layer] * 2000 + [last])
    results = []
    with cluster.client() as client:
        for blob in (image.blobs[0], layer, last):
            push_blob(client, repo, blob)
        checking = threading.Thread(target=lambda: results.extend(
            cluster.run("fsck") for _ in range(5)))
        checking.start()
        while checking.is_alive():
            push_manifest(client, repo, image)
            time.sleep(0.2)
            for path in (f"manifests/{image.digest}", f"blobs/{sha256(last)}"):
                assert client.delete(f"/v2/{repo}/{path}").status == 202
            time.sleep(0.5)
            push_blob(client, repo, last)
    assert len(results) == 5
    for result in results:
        assert result.returncode == 0, result.stdout
