"""The process: start, stop, systemd, restart with what was acknowledged."""

import os
import signal
import socket
import sys
import time

import pytest

from holdfast import (Client, digest_of, get_blob, get_manifest, make_image, pull_image, push_blob,
                      push_image, push_manifest, random_bytes, Raw, Server, sha256, start_upload,
                      tags, wait_until, with_query)

HEAD = "HTTP/1.1\r\nHost: x\r\n"


def terminate(server):
    """SIGTERM, noted as wanted; does not wait."""
    server.expect_end()
    os.kill(server.pid, signal.SIGTERM)


def refuses_connections(server):
    try:
        socket.create_connection((server.host, server.port), 1).close()
        return False
    except OSError:
        return True


# ---- SIGTERM ----

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_exit_code_0(make_server, number):
    server = make_server()
    with Client(server) as client:
        client.get("/v2/")
        server.expect_end()
        os.kill(server.pid, number)
        assert server.wait(10) == 0


def test_idle_connections_do_not_delay_the_end(make_server):
    server = make_server()
    kept = [Client(server) for _ in range(5)]
    for client in kept:
        client.get("/v2/")
    silent = Raw(server)
    began = time.monotonic()
    assert server.stop(20) == 0
    assert time.monotonic() - began < 5
    assert silent.closed_within(1)
    for client in kept:
        client.close()


@pytest.mark.parametrize("form", ["length", "chunked"])
def test_a_running_upload_is_finished_before_the_end(make_server, form):
    server = make_server()
    data = random_bytes(200000)
    with Client(server) as client:
        url = with_query(start_upload(client, "app"), digest=sha256(data))
    frame = "Content-Length: 200000" if form == "length" else "Transfer-Encoding: chunked"
    with Raw(server, f"PUT {url} {HEAD}{frame}\r\n\r\n".encode()) as raw:
        pieces = [data[:100000], data[100000:]]
        if form == "chunked":
            pieces = [b"186a0\r\n" + piece + b"\r\n" for piece in pieces]
            pieces[1] += b"0\r\n\r\n"
        raw.send(pieces[0])
        time.sleep(0.2)
        terminate(server)
        assert wait_until(lambda: refuses_connections(server), 5), "it takes new connections"
        time.sleep(0.5)
        assert server.running(), "it did not wait for the upload"
        raw.send(pieces[1])
        assert raw.response().status == 201
    assert server.wait(10) == 0
    server.start()
    with Client(server) as client:
        assert get_blob(client, "app", sha256(data)) == data


@pytest.mark.needs("stream")
def test_a_running_download_is_finished_before_the_end(make_server):
    server = make_server()
    data = random_bytes(16 << 20)
    with Client(server) as client:
        digest = push_blob(client, "app", data)
    with Raw(server, f"GET /v2/app/blobs/{digest} {HEAD}\r\n".encode()) as raw:
        raw.socket.recv(1)
        terminate(server)
        time.sleep(0.5)
        got = raw.read_all()
        assert got.endswith(data)
    assert server.wait(10) == 0


def test_what_runs_too_long_is_cut_off_at_the_end(make_server):
    server = make_server("--timeouts-shutdown", "1s")
    with Client(server) as client:
        location = start_upload(client, "app")
        assert client.patch(location, b"kept").status == 202
    with Raw(server, f"PATCH {location} {HEAD}Content-Length: 1000\r\n\r\n".encode()):
        time.sleep(0.2)
        began = time.monotonic()
        server.stop(20)
        assert time.monotonic() - began < 8
    server.start()
    with Client(server) as client:
        assert client.get(location).headers["Range"] == "0-3"


# ---- systemd ----

@pytest.fixture
def notified(tmp_path):
    """A socket for $NOTIFY_SOCKET, and its name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(20)
        yield receiver, str(tmp_path / "notify")


def test_systemd_is_told_when_it_is_ready_and_when_it_stops(make_server, notified):
    receiver, name = notified
    server = make_server(start=False, env={"NOTIFY_SOCKET": name})
    server.start()
    assert b"READY=1" in receiver.recv(1000)
    with Client(server) as client:
        assert client.get("/readyz").status == 200
    terminate(server)
    assert b"STOPPING=1" in receiver.recv(1000)
    assert server.wait(10) == 0


ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3, inheritable=True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_a_socket_of_systemd_is_used_instead_of_the_setting(make_server):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(10)
        server = make_server(wrapper=[sys.executable, "-c", ACTIVATE, listener.fileno()],
                             pass_fds=[listener.fileno()])
        assert server.port == listener.getsockname()[1]
        with Client(server) as client:
            push_image(client, "app", make_image(), "v1")


def test_a_connection_made_before_the_start_is_served(make_server):
    # What socket activation is for: clients wait while the server starts.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(10)
        with socket.create_connection(listener.getsockname()) as early:
            early.sendall(f"GET /v2/ {HEAD}\r\n".encode())
            make_server(wrapper=[sys.executable, "-c", ACTIVATE, listener.fileno()],
                        pass_fds=[listener.fileno()])
            early.settimeout(10)
            assert early.recv(100).startswith(b"HTTP/1.1 200")


# ---- Restart ----

@pytest.fixture(params=["SIGTERM", "SIGKILL"])
def again(request, make_server):
    """A server, and a function that ends it in one of two ways and starts it again."""
    server = make_server()

    def restart():
        server.stop() if request.param == "SIGTERM" else server.kill()
        server.start()

    return server, restart


def test_images_survive_a_restart(again):
    server, restart = again
    image = make_image(3)
    with Client(server) as client:
        push_image(client, "app", image, "v1")
    restart()
    with Client(server) as client:
        assert pull_image(client, "app", "v1").body == image.body
        assert tags(client, "app") == ["v1"]


def test_a_deletion_survives_a_restart(again):
    server, restart = again
    image = make_image()
    with Client(server) as client:
        push_image(client, "app", image, "v1")
        assert client.delete("/v2/app/manifests/v1").status == 202
        assert client.delete(f"/v2/app/manifests/{image.digest}").status == 202
    restart()
    with Client(server) as client:
        assert client.get(f"/v2/app/manifests/{image.digest}").status == 404
        assert tags(client, "app") == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_an_upload_goes_on_after_a_restart_at_what_was_acknowledged(again, algorithm):
    server, restart = again
    data = random_bytes(300001)
    with Client(server) as client:
        location = start_upload(client, "app", **{"digest-algorithm": algorithm})
        for start, end in ((0, 100000), (100000, 100063), (100063, 200001)):
            answer = client.patch(location, data[start:end],
                                  {"Content-Range": f"{start}-{end - 1}"})
            assert answer.status == 202
            restart()
            answer = client.get(answer.location)
            assert (answer.status, answer.headers["Range"]) == (204, f"0-{end - 1}")
            location = answer.location
        digest = digest_of(data, algorithm)
        assert client.put(with_query(location, digest=digest), data[200001:]).status == 201
        assert get_blob(client, "app", digest) == data


def test_a_session_without_bytes_survives_a_restart(again):
    server, restart = again
    with Client(server) as client:
        location = start_upload(client, "app")
        restart()
        data = random_bytes()
        assert client.put(with_query(location, digest=sha256(data)), data).status == 201


def test_a_chunk_cut_off_by_the_end_is_not_acknowledged(make_server, store):
    server = make_server()
    data = random_bytes(500000)
    with Client(server) as client:
        location = client.patch(start_upload(client, "app"), data[:100000]).location
        with Raw(server, f"PATCH {location} {HEAD}Content-Length: 400000\r\n\r\n".encode()
                 + data[100000:300000]):
            time.sleep(0.2)
            server.kill()
        server.start()
        answer = client.get(location)
        start = int(answer.headers["Range"].partition("-")[2]) + 1
        assert 100000 <= start <= 300000

        def go_on():
            return client.patch(location, data[start:], {"Content-Range": f"{start}-499999"})

        # Where nodes share uploads, they wait until the dead one's lease is over.
        answer = go_on()
        while answer.status == 503 and not store.has("files"):
            time.sleep(int(answer.headers["Retry-After"]))
            answer = go_on()
        assert answer.status == 202
        assert client.put(with_query(location, digest=sha256(data))).status == 201
        assert get_blob(client, "app", sha256(data)) == data


# ---- Uploads that nobody ends ----

@pytest.mark.hooks
@pytest.mark.parametrize("hours, there", [(23, True), (25, False)])
def test_an_upload_expires_after_its_time(make_server, store, hours, there):
    server = make_server()
    with Client(server) as client:
        location = client.patch(start_upload(client, "app"), random_bytes()).location
        assert store.staged(server.data) == 1
        server.stop()
        store.pass_time(server, hours * 3600)
        server.start()
        gone = wait_until(lambda: client.get(location).status == 404, 2 if there else 10)
        assert gone == (not there)
        assert wait_until(lambda: store.staged(server.data) == there, 5)  # after the row, the bytes
        if not there:
            assert client.patch(location, b"x").code == "BLOB_UPLOAD_UNKNOWN"


@pytest.mark.hooks
def test_the_time_after_which_uploads_expire_is_a_setting(make_server, store):
    server = make_server("--uploads-expire", "2h")
    with Client(server) as client:
        location = client.patch(start_upload(client, "app"), random_bytes()).location
        server.stop()
        store.pass_time(server, 3 * 3600)
        server.start()
        assert wait_until(lambda: client.get(location).status == 404)


def test_finished_and_cancelled_uploads_leave_nothing_staged(make_server, store):
    server = make_server()
    with Client(server) as client:
        push_blob(client, "app", random_bytes())
        push_blob(client, "app", random_bytes(), chunk=300)
        data = random_bytes()
        client.post(f"/v2/app/blobs/uploads/?digest={sha256(data)}", data)
        client.put(with_query(start_upload(client, "app"), digest=sha256(b"wrong")), data)
        client.post(f"/v2/app/blobs/uploads/?digest={sha256(b'wrong')}", data)
        location = client.patch(start_upload(client, "app"), data).location
        assert client.delete(location).status == 204
        assert wait_until(lambda: store.staged(server.data, blobs=3) == 0, 5)


@pytest.mark.parametrize("way", ["close", "reset"])
def test_a_single_post_that_breaks_off_leaves_nothing_staged(make_server, store, way):
    # It cannot be taken up again, so that its bytes are of no use to anybody.
    server = make_server()
    data = random_bytes(24 << 20)
    raw = Raw(server, f"POST /v2/app/blobs/uploads/?digest={sha256(data)} {HEAD}"
              f"Content-Length: {len(data)}\r\n\r\n".encode() + data[:16 << 20])
    assert wait_until(lambda: store.staged(server.data), 5)
    raw.reset() if way == "reset" else raw.close()
    assert wait_until(lambda: store.staged(server.data) == 0, 10)


def test_one_content_is_stored_once(make_server, store):
    server = make_server()
    data = random_bytes(100000)
    with Client(server) as client:
        for i in range(5):
            push_blob(client, f"app{i}", data)
    assert store.blobs(server.data) == [data]


# ---- Relations that only a later start can break ----

def test_a_second_start_changes_nothing(make_server):
    server = make_server()
    with Client(server) as client:
        image = make_image()
        push_image(client, "app", image, "v1")
        for _ in range(3):
            server.restart()
        assert get_manifest(client, "app", "v1").body == image.body
        push_manifest(client, "app", image, "v2")


@pytest.mark.needs("folder")
def test_a_folder_that_is_not_there_is_made(make_server, tmp_path):
    server = make_server(data=tmp_path / "new")
    assert (tmp_path / "new").is_dir()
    with Client(server) as client:
        assert client.get("/readyz").status == 200


@pytest.mark.needs("folder")
def test_what_it_stores_is_not_for_other_users(make_server, tmp_path):
    server = make_server(data=tmp_path / "new")
    with Client(server) as client:
        push_image(client, "app", make_image(), "v1")
    for path in [tmp_path / "new", *(tmp_path / "new").rglob("*")]:
        assert path.stat().st_mode & 0o002 == 0, f"{path} can be written by anyone"


@pytest.mark.needs("folder")
def test_it_runs_from_any_folder(tmp_path):
    server = Server(os.path.relpath(tmp_path / "relative"))
    with server, Client(server) as client:
        push_image(client, "app", make_image(), "v1")
    assert (tmp_path / "relative").is_dir()
