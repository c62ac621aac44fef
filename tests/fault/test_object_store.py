"""One node, and an object store behind a proxy that hangs: the node ends in time all the same."""

import contextlib
import os
import signal
import threading
import time

import pytest

from faultproxy import FaultProxy
from holdfast import Client, random_bytes, random_name, Raw, sha256, start_upload, wait_until
from services import ObjectStore, Postgres, scratch, ServiceMissing

HEAD = "HTTP/1.1\r\nHost: x\r\n"
SHUTDOWN = 3  # seconds
MORE = 5      # what an end may take beyond that
MIB = 1 << 20


@pytest.fixture(scope="module")
def services():
    """PostgreSQL and an object store, each behind a proxy, and a bucket."""
    try:
        with contextlib.ExitStack() as exits:
            folder = exits.enter_context(scratch())
            postgres = exits.enter_context(Postgres(folder / "postgres"))
            store = exits.enter_context(ObjectStore(folder / "s3"))
            yield postgres, store, store.make_bucket()
    except ServiceMissing as missing:
        pytest.skip(f"NOT RUN: {missing}")


@pytest.fixture
def proxies(services):
    postgres, store, _ = services
    with FaultProxy(postgres.port, http=False) as database, FaultProxy(store.port) as objects:
        yield database, objects


@pytest.fixture
def node(services, proxies, make_server):
    postgres, store, bucket = services
    database, objects = proxies
    return make_server("--timeouts-shutdown", f"{SHUTDOWN}s", env={
        "HOLDFAST_METADATA": postgres.url(postgres.create_database(), port=database.port),
        "HOLDFAST_BLOBS": f"s3://{bucket}/{random_name()}",
        "HOLDFAST_S3_ENDPOINT": objects.endpoint,
        "HOLDFAST_S3_ACCESS_KEY": store.access_key,
        "HOLDFAST_S3_SECRET_KEY": store.secret_key,
        "HOLDFAST_S3_PART_SIZE": "5MiB",
        "HOLDFAST_REDIRECT_ENABLED": "false"})


def push_in_vain(node, exits, repo):
    """A request whose part is on its way to the store, for as long as the node bears it."""
    with Client(node) as client:
        location = start_upload(client, repo)
    raw = exits.enter_context(Raw(node, f"PATCH {location} {HEAD}Content-Length: {30 * MIB}\r\n\r\n"
                                  .encode()))

    def send():
        try:
            raw.send(random_bytes(30 * MIB))
        except OSError:
            pass  # it was cut off, which is what the test is about

    threading.Thread(target=send, daemon=True).start()


def push_whole(node, repo):
    """A push in one request, of which the bytes are to be sent yet."""
    return Raw(node, f"POST /v2/{repo}/blobs/uploads/?digest={sha256(b'')} {HEAD}Content-Length: "
               f"{30 * MIB}\r\n\r\n".encode())


def break_off(node, repo):
    """It ends before its bytes do: what was staged is to be removed."""
    with push_whole(node, repo) as raw:
        raw.send(random_bytes(12 * MIB))


def end(node):
    """SIGTERM; seconds until it has ended."""
    begun = time.monotonic()
    node.expect_end()
    os.kill(node.pid, signal.SIGTERM)
    assert node.wait(60) == 0
    return time.monotonic() - begun


def test_sigterm_while_the_object_store_hangs(node, proxies, repo):
    _, objects = proxies
    for _ in range(5):
        break_off(node, repo)
    assert wait_until(lambda: objects.count("AbortMultipartUpload") == 5), objects.counts()
    with contextlib.ExitStack() as exits:
        parts = objects.count("UploadPart")
        objects.slow(bytes_per_second=4 * MIB)
        for _ in range(5):
            exits.enter_context(push_whole(node, repo)).send(random_bytes(12 * MIB))
        assert wait_until(lambda: objects.count("UploadPart") > parts), objects.counts()
        objects.hang()
        push_in_vain(node, exits, repo)
        time.sleep(1)
        assert end(node) < SHUTDOWN + MORE


def test_sigterm_while_a_job_waits_for_the_object_store(node, services, proxies):
    """Nobody else has anything to end."""
    postgres, _, _ = services
    _, objects = proxies
    database = node.env["HOLDFAST_METADATA"].rpartition("/")[2]

    def jobs(condition):
        return int(postgres.psql("SELECT count(*) FROM job WHERE kind = 'uploads.expire' AND "
                                 + condition, database))

    # A node begins with one; it comes to its end first.
    assert wait_until(lambda: objects.count("ListMultipartUploads") > 0 and jobs("lease = ''"))
    asked = objects.count("ListMultipartUploads")
    objects.hang()
    begun = len(node.log)
    postgres.psql("UPDATE job SET due_at = 0", database)
    assert wait_until(lambda: jobs("lease <> ''") == 1, 15), node.log[begun:]
    assert objects.count("ListMultipartUploads") == asked
    time.sleep(1)
    assert end(node) < MORE
    # It was given back: another node may have it at once.
    assert postgres.psql("SELECT count(*) FROM job WHERE lease <> ''", database) == "0"


def test_sigterm_while_object_store_and_database_hang(node, proxies, repo):
    database, objects = proxies
    with contextlib.ExitStack() as exits:
        objects.hang()
        for _ in range(3):
            push_in_vain(node, exits, repo)
        time.sleep(1)
        database.hang()
        time.sleep(1)
        assert end(node) < SHUTDOWN + MORE + 10  # database.patience
