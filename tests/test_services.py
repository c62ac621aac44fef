"""The servers that the tests start, and the proxy that misbehaves: what other tests rely on."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import services
from faultproxy import FaultProxy, kind_of
from holdfast import wait_until
from services import Balancer, ObjectStore, Postgres, S3Client, S3Error, ServiceFailed, scratch

SERVICES = Path(services.__file__)


@pytest.fixture(scope="module")
def postgres():
    with scratch() as folder, Postgres(folder / "postgres", tls=True) as server:
        yield server


@pytest.fixture(scope="module")
def store():
    with scratch() as folder, ObjectStore(folder / "s3", tls=True) as server:
        yield server


@pytest.fixture
def proxy(store):
    with FaultProxy(store.port) as proxy:
        yield proxy


@pytest.fixture
def bucket(store):
    return store.make_bucket()


@pytest.fixture
def s3(store, proxy):
    return S3Client(proxy.endpoint, store.access_key, store.secret_key)


def children_of(pid):
    """The processes below one, by their command lines."""
    found = {}
    for one in services.family(pid)[1:]:
        try:
            found[one] = Path(f"/proc/{one}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            pass
    return found


def is_running(pid, command):
    """Whether that very process is there, and not only waiting to be buried."""
    try:
        return (Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() == command
                and b"State:\tZ" not in Path(f"/proc/{pid}/status").read_bytes())
    except OSError:
        return False


def run_services(*command, flags=("--postgres", "--s3"), **options):
    return subprocess.Popen([sys.executable, SERVICES, "run", *flags, "--", *command],
                            stdout=subprocess.PIPE, text=True, start_new_session=True, **options)


# ---- PostgreSQL ----

def test_postgres_keeps_what_is_in_it_over_restarts_and_crashes(postgres):
    name = postgres.create_database()
    postgres.psql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)", name)
    url = postgres.url(name)
    postgres.restart()
    assert postgres.psql("SELECT n FROM kept", name) == "42"
    postgres.kill()
    postgres.start()
    assert postgres.psql("SELECT n FROM kept", name) == "42"
    assert postgres.url(name) == url
    assert postgres.psql("SHOW fsync", name) == "on"


def test_postgres_asks_for_its_password(postgres):
    wrong = postgres.url().replace(postgres.password, "wrong")
    done = subprocess.run([postgres.bin / "psql", wrong, "-c", "SELECT 1"], capture_output=True,
                          text=True)
    assert done.returncode != 0 and "password authentication failed" in done.stderr


def test_postgres_takes_tls_that_is_verified(postgres):
    done = subprocess.run([postgres.bin / "psql", postgres.url(tls=True), "-XAtc",
                           "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"],
                          capture_output=True, text=True)
    assert done.stdout == "t\n", done.stderr


def test_postgres_pauses_with_all_its_children(postgres):
    postgres.pause()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            subprocess.run([postgres.bin / "psql", postgres.url(), "-c", "SELECT 1"], timeout=1,
                           capture_output=True)
        states = [Path(f"/proc/{pid}/status").read_text().split("State:\t")[1][0]
                  for pid in postgres.server.family()]
        assert len(states) > 4 and set(states) <= {"T", "Z"}
    finally:
        postgres.resume()
    assert postgres.psql("SELECT 1") == "1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_a_folder_that_postgres_cannot_enter_is_named(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ServiceFailed, match="cannot enter"):
        Postgres(closed / "postgres")


# ---- Object store ----

def test_the_store_refuses_wrong_signatures(store, bucket):
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        S3Client(store.endpoint, store.access_key, "wrong").request("GET", f"/{bucket}")
    with pytest.raises(S3Error, match="InvalidAccessKeyId"):
        S3Client(store.endpoint, "NOBODY", store.secret_key).request("GET", f"/{bucket}")


def test_the_store_takes_tls_that_is_verified(store, bucket):
    store.put(bucket, "a key/with & signs", b"content")
    secure = S3Client(store.tls_endpoint, store.access_key, store.secret_key, ca=store.ca)
    assert secure.request("GET", f"/{bucket}/a key/with & signs") == b"content"


def test_lists_go_on_behind_the_first_page(store, bucket):
    for i in range(1003):
        store.put(bucket, f"many/{i:04}", b"x" * (i % 3))
    found = store.list(bucket, "many/")
    assert found == {f"many/{i:04}": i % 3 for i in range(1003)}


def test_uploads_under_way_are_listed(store, bucket):
    store.client.request("POST", f"/{bucket}/begun", {"uploads": ""})
    (key, identity), = store.uploads(bucket)
    assert key == "begun"
    store.client.request("DELETE", f"/{bucket}/begun", {"uploadId": identity})
    assert store.uploads(bucket) == []


def test_a_store_on_disk_keeps_objects_over_a_restart_and_a_crash():
    with scratch() as folder, ObjectStore(folder / "s3", keep=True) as store:
        bucket = store.make_bucket()
        content = random.randbytes(1 << 20)
        store.put(bucket, "kept", content)
        store.restart()
        assert store.get(bucket, "kept") == content
        store.put(bucket, "late", content)
        store.kill()
        store.start()
        assert store.get(bucket, "late") == content


# ---- The proxy ----

def test_bytes_pass_unchanged_and_requests_are_counted(store, bucket, s3, proxy):
    content = random.randbytes(5 << 20)
    s3.request("PUT", f"/{bucket}/one", body=content)
    assert s3.request("GET", f"/{bucket}/one") == content
    s3.request("POST", f"/{bucket}/two", {"uploads": ""})
    assert proxy.counts() == {"PutObject": 1, "GetObject": 1, "CreateMultipartUpload": 1}
    assert proxy.count(method="GET", status=200) == 1


@pytest.mark.parametrize("method, target, kind", [
    ("PUT", "/b/k?partNumber=2&uploadId=x", "UploadPart"), ("POST", "/b/k?uploads",
                                                            "CreateMultipartUpload"),
    ("POST", "/b/k?uploadId=x", "CompleteMultipartUpload"), ("DELETE", "/b/k?uploadId=x",
                                                             "AbortMultipartUpload"),
    ("GET", "/b?list-type=2&prefix=a/b", "ListObjects"), ("GET", "/b/?uploads",
                                                          "ListMultipartUploads"),
    ("POST", "/b?delete=", "DeleteObjects"), ("DELETE", "/b/a/k", "DeleteObject"),
    ("HEAD", "/b/a/k", "HeadObject"), ("GET", "/b/a/k?X-Amz-Expires=1", "GetObject")])
def test_requests_have_the_names_of_the_api(method, target, kind):
    assert kind_of(method, target) == kind


def test_a_share_of_requests_fails(store, bucket, s3, proxy):
    proxy.fail(500, share=0.5, kinds={"PutObject"})
    failed = set()
    for i in range(60):
        try:
            s3.request("PUT", f"/{bucket}/{i}", body=b"x")
        except S3Error as error:
            assert (error.status, error.code) == (500, "InternalError")
            failed.add(str(i))
    assert 10 < len(failed) < 50 and proxy.injected == len(failed)
    assert set(store.list(bucket)) == {str(i) for i in range(60)} - failed


def test_a_failure_afterwards_did_what_was_asked(store, bucket, s3, proxy):
    proxy.fail(503, after=True, kinds={"PutObject"})
    with pytest.raises(S3Error, match="503 SlowDown"):
        s3.request("PUT", f"/{bucket}/done", body=b"x")
    assert list(store.list(bucket)) == ["done"]


def test_a_failure_that_is_late_is_told_when_it_heals(store, bucket, s3, proxy):
    proxy.fail(503, after=True, late=True)
    failures = []

    def put():
        with pytest.raises(S3Error, match="503 SlowDown") as failure:
            s3.request("PUT", f"/{bucket}/done", body=b"x")
        failures.append(failure.value)

    asking = threading.Thread(target=put)
    asking.start()
    assert wait_until(lambda: proxy.count("PutObject") == 1)
    assert list(store.list(bucket)) == ["done"] and failures == []
    proxy.heal()
    asking.join(20)
    assert len(failures) == 1


@pytest.mark.parametrize("where, method, is_done", [
    ("request", "PUT", False), ("answer", "PUT", True), ("before_answer", "PUT", True),
    ("request", "GET", None), ("answer", "GET", None), ("before_answer", "GET", None)])
def test_connections_break_where_they_are_told(store, bucket, s3, proxy, where, method, is_done):
    if method == "GET":
        store.put(bucket, "key", random.randbytes(1 << 20))
    proxy.drop(where)
    with pytest.raises((OSError, services.http.client.HTTPException)):
        s3.request(method, f"/{bucket}/key", body=b"x" * (1 << 20) if method == "PUT" else b"")
    proxy.heal()
    if is_done is not None:
        assert ("key" in store.list(bucket)) == is_done
    assert s3.request("GET", f"/{bucket}") != b""


def test_a_cut_refuses_and_a_heal_ends_it(store, bucket, s3, proxy):
    store.put(bucket, "key", b"x")
    proxy.cut()
    with pytest.raises(ConnectionRefusedError):
        s3.request("GET", f"/{bucket}/key")
    proxy.heal()
    assert s3.request("GET", f"/{bucket}/key") == b"x"


def test_what_hangs_goes_on_when_it_heals(store, bucket, s3, proxy):
    store.put(bucket, "key", b"x")
    proxy.hang()
    begun = time.monotonic()
    threading.Timer(0.7, proxy.heal).start()
    assert s3.request("GET", f"/{bucket}/key") == b"x"
    assert time.monotonic() - begun > 0.6


def test_slow_is_slow(store, bucket, s3, proxy):
    store.put(bucket, "key", bytes(1 << 20))
    proxy.slow(delay=0.2, bytes_per_second=2 << 20)
    begun = time.monotonic()
    s3.request("GET", f"/{bucket}/key")
    assert 0.65 < time.monotonic() - begun < 3


def test_a_database_is_cut_off_by_a_proxy_that_looks_into_nothing(postgres):
    with FaultProxy(postgres.port, http=False) as proxy:
        command = [postgres.bin / "psql", postgres.url(port=proxy.port), "-XAtc", "SELECT 1"]
        assert subprocess.run(command, capture_output=True, text=True).stdout == "1\n"
        proxy.cut()
        assert "refused" in subprocess.run(command, capture_output=True, text=True).stderr
        proxy.heal()
        assert subprocess.run(command, capture_output=True, text=True).stdout == "1\n"
        assert proxy.connections == 2


# ---- The balancer ----

def test_the_balancer_leaves_out_a_node_that_is_not_ready(tmp_path):
    """Two web servers of which the files decide whether they are ready."""
    ports, nodes = [services.free_ports(), services.free_ports()], []
    for i, port in enumerate(ports):
        folder = tmp_path / f"node{i}"
        folder.mkdir()
        (folder / "readyz").write_text("ok")
        (folder / "who").write_text(f"node{i}")
        nodes.append(services.Daemon(f"node{i}", [
            sys.executable, "-m", "http.server", "--bind", "127.0.0.1", port], tmp_path / f"log{i}",
            cwd=folder))
    try:
        services.wait_for(lambda: all(map(services.accepts, ports)), "http.server", *nodes)
        with Balancer(tmp_path / "haproxy", ports) as balancer:
            def ask():
                with services.urllib.request.urlopen(balancer.url + "/who") as answer:
                    text = answer.read().decode()
                    assert answer.headers["X-Served-By"] == text
                    return text
            balancer.wait_up()
            assert {ask() for _ in range(4)} == {"node0", "node1"}
            (tmp_path / "node0" / "readyz").unlink()
            balancer.wait_down(0)
            assert {ask() for _ in range(4)} == {"node1"}
            nodes[1].kill()
            (tmp_path / "node0" / "readyz").write_text("ok")
            balancer.wait_up(0)
            assert {ask() for _ in range(4)} == {"node0"}
    finally:
        for node in nodes:
            node.kill()


# ---- Ends ----

def test_a_family_is_found_while_its_members_come_and_go(tmp_path):
    daemon = services.Daemon("sh", [
        "sh", "-c", "while :; do /bin/true & /bin/true & wait; done"], tmp_path / "log")
    try:
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            assert daemon.family()[0] == daemon.pid
    finally:
        daemon.kill()


def test_a_command_finds_its_services_and_its_status_is_kept():
    child = run_services("sh", "-c", 'echo "$HOLDFAST_TEST_POSTGRES $HOLDFAST_TEST_S3 '
                         '$HOLDFAST_TEST_S3_BUCKET $AWS_ACCESS_KEY_ID $AWS_DEFAULT_REGION"; exit 3')
    said = child.communicate(timeout=60)[0].split()
    assert child.returncode == 3
    assert said[0].startswith("postgres://postgres:") and said[1].startswith("http://127.0.0.1:")
    assert len(said) == 5 and said[4] == services.REGION


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_running(number):
    """Whatever ends the parent, and the folder goes too unless that was SIGKILL."""
    child = run_services("sh", "-c", "echo $HOLDFAST_TEST_POSTGRES; exec sleep 600")
    assert child.stdout.readline().startswith("postgres://")
    family = children_of(child.pid)
    folders = {text.split("-c ")[1].split("/ceph.conf")[0] for text in family.values()
               if "radosgw" in text}
    for name in ("bin/postgres", "postgres: ", "ceph-mon", "ceph-osd", "radosgw", "sleep"):
        assert any(name in text for text in family.values()), (name, family)
    child.send_signal(number)
    child.wait(30)
    deadline = time.monotonic() + 15
    while left := [text for pid, text in family.items() if is_running(pid, text)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    for folder in (Path(folder).parent for folder in folders):
        assert folder.exists() == (number == signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_service_started_by_a_thread_outlives_it():
    with scratch() as folder:
        server = Postgres(folder / "postgres")
        try:
            thread = threading.Thread(target=server.start)
            thread.start()
            thread.join()
            time.sleep(0.3)
            assert server.psql("SELECT 1") == "1"
        finally:
            server.stop()


def test_a_program_that_is_not_there_is_named():
    with pytest.raises(services.ServiceMissing, match="no-such-server is not installed.*package"):
        services.program("no-such-server", "a-package")


def test_ports_are_free_and_kept_out_of_the_kernels_way():
    first = services.free_ports(3)
    assert first + 2 < services._first_ephemeral_port()
    for port in range(first, first + 3):
        with socket.socket() as one:
            one.bind(("127.0.0.1", port))
