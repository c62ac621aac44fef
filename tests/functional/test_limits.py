"""Limits and time-outs: what is too many, too large or too slow is refused clearly, and the
server goes on."""

import http.client
import time

import pytest

from holdfast import (Client, encode, in_threads, is_sanitized, make_image, MANIFEST, push_blob,
                      push_image, random_bytes, Raw, sha256, start_upload, wait_until, with_query)

GET = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"


def works(server):
    with Client(server, timeout=10) as client:
        return client.get("/v2/").status == 200


# ---- Connections ----

def cut_off(server):
    """Whether a new connection is refused: closed, or 503."""
    try:
        with Raw(server, GET, timeout=5) as raw:
            return raw.response().status == 503
    except (ConnectionError, OSError):
        return True
    except Exception:  # an empty answer
        return True


def test_connections_beyond_the_limit_of_an_address_are_refused(make_server):
    server = make_server("--limits-connections-per-address", "5")
    held = [Raw(server, GET) for _ in range(5)]
    assert [raw.response().status for raw in held] == [200] * 5
    assert cut_off(server)
    held.pop().close()
    assert wait_until(lambda: not cut_off(server), 5), "the place of a closed one stays taken"
    for raw in held:
        assert raw.send(GET).response().status == 200, "a standing connection was harmed"
        raw.close()


def test_connections_beyond_the_limit_of_all_are_refused_or_wait(make_server):
    server = make_server("--limits-connections", "8", "--http-threads", "2")
    busy = [Raw(server, b"PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
            for _ in range(8)]
    assert wait_until(lambda: server.log, 5)
    late = Raw(server, GET, timeout=2)
    try:
        assert late.response().status == 503
    except (OSError, http.client.HTTPException):
        pass  # refused, or it waits for a place
    for raw in busy:
        raw.close()
    assert wait_until(lambda: not cut_off(server), 10)


def test_an_idle_connection_gives_way_when_the_limit_of_all_is_reached(make_server):
    server = make_server("--limits-connections", "8", "--http-threads", "2")
    idle = [Raw(server, GET) for _ in range(8)]
    assert [raw.response().status for raw in idle] == [200] * 8
    assert Raw(server, GET, timeout=10).response().status == 200


# ---- Slow clients ----

def drip(raw, data, pause, limit):
    """Sends one byte each `pause` seconds; the seconds until the server cut it off, else None."""
    began = time.monotonic()
    raw.socket.settimeout(pause)
    for i in range(len(data)):
        try:
            raw.socket.sendall(data[i:i + 1])
            if raw.socket.recv(1000) == b"":
                return time.monotonic() - began
        except TimeoutError:
            pass
        except ConnectionError:
            return time.monotonic() - began
        if time.monotonic() - began > limit:
            return None
    return None


def test_a_head_that_comes_byte_by_byte_is_cut(make_server):
    server = make_server("--timeouts-header", "1s")
    with Raw(server) as raw:
        took = drip(raw, b"GET /v2/ HTTP/1.1\r\nX-Slow: " + b"a" * 1000, 0.2, 12)
        assert took is not None, "it was never cut"
        assert took > 0.8
    assert works(server)


def test_a_connection_that_says_nothing_is_cut(make_server):
    server = make_server("--timeouts-header", "1s")
    with Raw(server) as raw:
        assert not raw.closed_within(0.5)
        assert raw.closed_within(8)


def test_a_kept_connection_that_says_nothing_is_closed(make_server):
    server = make_server("--timeouts-idle", "1s")
    with Raw(server, GET) as raw:
        assert raw.response().status == 200
        assert not raw.closed_within(0.5)
        assert raw.closed_within(8)


def test_a_kept_connection_outlives_the_time_for_a_head(make_server):
    server = make_server("--timeouts-header", "1s", "--timeouts-idle", "60s")
    with Raw(server, GET) as raw:
        raw.response()
        assert not raw.closed_within(3)
        assert raw.send(GET).response().status == 200


@pytest.mark.parametrize("pace", ["silent", "drip"])
def test_a_body_that_stalls_is_cut_and_the_session_stays(make_server, pace):
    server = make_server("--timeouts-body", "1s")
    with Client(server) as client:
        data = random_bytes(100000)
        location = client.patch(start_upload(client, "app"), data[:1000]).location
        with Raw(server, f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 99000\r\n\r\n"
                 .encode() + data[1000:3000]) as raw:
            if pace == "silent":
                assert raw.closed_within(10)
            else:
                assert drip(raw, data[3000:], 0.2, 12) is not None, "it was never cut"

        def resume():
            answer = client.get(location)
            start = int(answer.headers["Range"].partition("-")[2]) + 1
            assert start >= 1000
            answer = client.patch(location, data[start:],
                                  {"Content-Range": f"{start}-{len(data) - 1}"})
            return answer.status == 202

        assert wait_until(resume, 10)
        assert client.put(with_query(location, digest=sha256(data))).status == 201


def test_a_slow_but_steady_body_is_served(make_server):
    # 4 KiB within timeouts.body is enough: slow is not dead.
    server = make_server("--timeouts-body", "2s")
    data = random_bytes(6 * 8192)
    with Client(server) as client:
        location = start_upload(client, "app")

        def slowly():
            for i in range(6):
                time.sleep(0.6)
                yield data[i * 8192:(i + 1) * 8192]

        answer = client.put(with_query(location, digest=sha256(data)), slowly())
        assert answer.status == 201


@pytest.mark.needs("stream")
def test_an_answer_that_nobody_takes_is_cut(make_server):
    server = make_server("--timeouts-body", "1s")
    with Client(server) as client:
        digest = push_blob(client, "app", random_bytes(32 << 20))
    with Raw(server, f"GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) as raw:
        raw.socket.recv(10)
        before = server.open_files()
        assert wait_until(lambda: server.open_files() < before, 15), \
            "the connection of a client that reads nothing stays open"


# ---- Sizes ----

def test_the_limit_of_manifests_is_a_setting(make_server):
    with Client(make_server("--limits-manifest", "64KiB")) as client:
        image = make_image(annotations={"k": "x" * 60000})
        push_image(client, "app", image, "v1")
        image = make_image(annotations={"k": "x" * 66000})
        for blob in image.blobs:
            push_blob(client, "app", blob)
        answer = client.put("/v2/app/manifests/v2", image.body, {"Content-Type": MANIFEST})
        assert answer.status == 413
        assert answer.code in ("MANIFEST_INVALID", "SIZE_INVALID")
        assert "64" in answer.errors[0]["message"] or "65536" in answer.errors[0]["message"]


def test_a_huge_manifest_is_refused_at_its_head(server):
    with Raw(server, f"PUT /v2/app/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Type: {MANIFEST}\r\n"
             "Content-Length: 1000000000000\r\n\r\n".encode(), timeout=10) as raw:
        assert raw.response().status == 413


def test_a_manifest_without_end_is_refused_in_time(server, client):
    def endless():
        for _ in range(2000):
            yield b" " * 65536

    try:
        answer = client.put("/v2/app/manifests/v1", endless(), {"Content-Type": MANIFEST})
        assert answer.status == 413
    except (ConnectionError, OSError):
        pass  # the answer came while we were sending; the client may not see it
    assert works(server)


def test_a_large_upload_does_not_grow_the_server(server, store):
    # Parts for S3 are gathered in memory, and a sanitizer keeps what was freed for a while.
    bound = 24 << 20 if store.has("files") or not is_sanitized() else 72 << 20
    with Client(server) as client:
        push_blob(client, "app", random_bytes(1 << 20))
        before = server.rss()
        push_blob(client, "app", random_bytes(160 << 20))
        assert server.rss() - before < bound


# ---- Uploads at a time ----

@pytest.fixture
def two_uploads(make_server):
    """A server that receives two upload bodies at a time, and has them already."""
    server = make_server("--limits-uploads", "2")
    with Client(server) as client:
        locations = [start_upload(client, "app") for _ in range(3)]
        head = "PATCH {} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
        held = [Raw(server, head.format(location).encode() + random_bytes(50000))
                for location in locations[:2]]
        wait_until(lambda: b"holdfast_uploads_in_flight 2" in client.get("/metrics").body, 10)
        yield server, client, locations[2], held
        for raw in held:
            raw.close()


def test_an_upload_beyond_the_limit_is_told_to_come_back(two_uploads):
    _, client, location, _ = two_uploads
    data = random_bytes()
    answers = {
        "PATCH": client.patch(location, data),
        "PUT": client.put(with_query(location, digest=sha256(data)), data),
        "POST": client.post(f"/v2/app/blobs/uploads/?digest={sha256(data)}", data),
    }
    for method, answer in answers.items():
        assert answer.status in (503, 429), (method, answer)
        assert answer.code in ("UNAVAILABLE", "TOOMANYREQUESTS")
        assert int(answer.headers["Retry-After"]) > 0
    # Clients give a whole push up for a 429 to PATCH, and wait for a 503.
    assert answers["PATCH"].status == 503


def test_an_upload_goes_on_when_another_ends(two_uploads):
    server, client, location, held = two_uploads
    data = random_bytes()
    assert client.patch(location, data).status == 503
    held[0].send(random_bytes(50000))
    assert held[0].response().status == 202
    assert wait_until(lambda: client.patch(location, data).status == 202, 5)
    assert client.put(with_query(location, digest=sha256(data))).status == 201


def test_an_upload_goes_on_when_another_vanishes(two_uploads):
    _, client, location, held = two_uploads
    held[0].reset()
    assert wait_until(lambda: client.patch(location, b"x").status == 202, 5)


def test_reading_goes_on_while_uploads_are_full(two_uploads):
    _, client, _, _ = two_uploads
    assert client.get("/v2/_catalog").status == 200
    assert client.get("/readyz").status == 200


# ---- Answers in a queue ----

def test_a_queue_that_is_full_is_503_with_retry_after(make_server):
    server = make_server("--http-workers", "1", "--http-queue", "1")
    with Client(server) as client:
        image = make_image()
        push_image(client, "app", image)

    def push(i):
        with Client(server) as own:
            return [own.put(f"/v2/app/manifests/t{i}-{j}", image.body, {"Content-Type": MANIFEST})
                    for j in range(10)]

    answers = [a for some in in_threads(16, push) for a in some]
    assert any(a.status == 201 for a in answers)
    for answer in answers:
        assert answer.status in (201, 503), answer
        if answer.status == 503:
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.code in ("UNAVAILABLE", "TOOMANYREQUESTS")
    assert works(server)


def test_a_deep_json_costs_little(server, client, repo):
    push_blob(client, repo, b"x")
    began = time.monotonic()
    for text in (b"[" * (4 << 20), b'{"a":' * 800000, encode([{}] * 500000)):
        assert client.put(f"/v2/{repo}/manifests/v1", text,
                          {"Content-Type": MANIFEST}).status == 400
    assert time.monotonic() - began < 20
