"""Requests that no honest client sends: the answer is an error or a close, and the server goes
on."""

import os
import random
import socket

import pytest

from holdfast import Client, push_blob, random_bytes, Raw, sha256, wait_until

HOST = b"Host: x\r\n"
POST = b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\n" + HOST


def ask(server, data, timeout=5):
    """The first status that comes back, or None when the server closes without one."""
    with Raw(server, timeout=timeout) as raw:
        try:
            raw.send(data)
            raw.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        try:
            got = raw.read_all()
        except TimeoutError:
            return "silent"
    if not got.startswith(b"HTTP/1."):
        return None
    return int(got[9:12])


BROKEN = {
    "garbage": b"\x00\x01\x02\x03\r\n\r\n",
    "no version": b"GET /v2/\r\n\r\n",
    "a version of the future": b"GET /v2/ HTTP/9.9\r\n" + HOST + b"\r\n",
    "no method": b" /v2/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "no path": b"GET  HTTP/1.1\r\n" + HOST + b"\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no Host": b"GET /v2/ HTTP/1.1\r\n\r\n",
    "a header without colon": b"GET /v2/ HTTP/1.1\r\n" + HOST + b"broken\r\n\r\n",
    "a NUL in a header": b"GET /v2/ HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a length that is no number": POST + b"Content-Length: 5x\r\n\r\nhello",
    "a length beyond all": POST + b"Content-Length: 99999999999999999999999999\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a chunk size that is no number":
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "a chunk size beyond all":
        POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffffff\r\nhello\r\n",
    "an unknown transfer encoding": POST + b"Transfer-Encoding: gzip\r\n\r\nhello",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_request_is_an_error_or_a_close(server, client, name):
    # A POST without a body that can be read must not open a session either.
    status = ask(server, BROKEN[name])
    assert status is None or status == "silent" or 400 <= status < 600, status
    assert status != "silent", "the connection hangs"
    assert client.get("/v2/").status == 200


def test_a_length_and_chunks_together_are_refused_or_the_connection_ends(server):
    # RFC 9112, section 6.3: else a second request could be smuggled past a proxy.
    data = (b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n")
    with Raw(server, data, timeout=5) as raw:
        raw.socket.shutdown(socket.SHUT_WR)
        got = raw.read_all()
    assert got.count(b"HTTP/1.1 ") == 1, got
    assert b"\nok\n" not in got


@pytest.mark.parametrize("size, wanted", [(20_000, (414, 404, 400)), (200_000, (414, 431)),
                                          (5_000_000, (414, 431))])
def test_a_target_that_is_too_long_is_refused(server, client, size, wanted):
    status = ask(server, b"GET /v2/" + b"a" * size + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert status in (*wanted, None)
    assert client.get("/v2/").status == 200


@pytest.mark.parametrize("head", [b"X: " + b"a" * 1_000_000 + b"\r\n", b"X: y\r\n" * 50_000])
def test_a_head_that_is_too_large_is_refused(server, client, head):
    status = ask(server, b"GET /v2/ HTTP/1.1\r\n" + HOST + head + b"\r\n")
    assert status in (431, 413, 400, None)
    assert client.get("/v2/").status == 200


def test_a_head_of_an_ordinary_size_is_served(client):
    # Tokens of 8 KiB and cookies of proxies.
    assert client.get("/v2/", {"Authorization": "Bearer " + "a" * 8192}).status in (200, 401)


@pytest.mark.parametrize("path", [
    "/v2/../../../../etc/passwd", "/v2/a/blobs/../../../etc/passwd", "/v2/%2e%2e/%2e%2e/etc/passwd",
    "/v2/a/blobs/uploads/../../../../etc/passwd", "/v2/a/manifests/..%2f..%2fetc%2fpasswd",
    "/v2/a/manifests/%00", "/v2/a%00b/tags/list", "/v2/a/manifests/%ff%fe", "/v2/a/manifests/%zz",
    "/v2/a/manifests/%", "/../etc/passwd", "/v2/a/blobs/sha256:..%2f..%2f..%2fetc%2fpasswd",
    "//v2//", "/v2/./a/tags/list", "/v2/a/tags/list/..", "/v2/a/manifests/v1%0d%0aX-Evil:%201"])
def test_a_path_that_tries_to_leave_is_refused(client, path):
    answer = client.get(path)
    assert answer.status in (400, 404), answer
    assert b"root:" not in answer.body
    assert answer.headers["X-Evil"] is None


@pytest.mark.parametrize("query", [
    "digest=%", "digest=%zz", "digest=%00", "digest=sha256:" + "0" * 4000, "&" * 3000, "=" * 3000,
    "digest", "mount=%ff&from=%fe", "digest=a&digest=b", "n=%00"])
def test_a_broken_query_is_refused_or_ignored(client, repo, query):
    answer = client.post(f"/v2/{repo}/blobs/uploads/?{query}")
    assert answer.status in (202, 400, 414), answer


@pytest.mark.needs("stream")
def test_requests_in_a_pipeline_are_answered_in_order(server, client, repo):
    digest = push_blob(client, repo, b"first")
    with Raw(server, timeout=10) as raw:
        raw.send(f"GET /v2/{repo}/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
                 + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
                 + b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        got = raw.read_all()
    assert got.count(b"HTTP/1.1 200") == 3
    assert got.index(b"first") < got.index(b"ok\n") < got.index(b"{}")


def test_an_upload_behind_an_upload_in_a_pipeline_is_taken(server, client, repo):
    first, second = random_bytes(50000), random_bytes(50000)
    with Raw(server, timeout=20) as raw:
        for data in (first, second):
            raw.send(f"POST /v2/{repo}/blobs/uploads/?digest={sha256(data)} HTTP/1.1\r\nHost: x\r\n"
                     f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        assert raw.response().status == 201
        assert raw.response().status == 201
    for data in (first, second):
        assert client.get(f"/v2/{repo}/blobs/{sha256(data)}").body == data


@pytest.mark.needs("stream")
def test_an_unread_answer_and_a_reset_are_no_harm(server, client, repo):
    digest = push_blob(client, repo, random_bytes(2 << 20))
    before = server.open_files()
    for _ in range(30):
        Raw(server, f"GET /v2/{repo}/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).reset()
    assert wait_until(lambda: server.open_files() <= before + 2, 10), "files stay open"
    assert client.get("/v2/").status == 200


def test_random_bytes_do_no_harm(server, client):
    seed = int.from_bytes(os.urandom(4), "big")
    source = random.Random(seed)
    words = [b"GET ", b"PUT ", b"/v2/", b"a/blobs/", b"uploads/", b"manifests/", b"sha256:",
             b" HTTP/1.1", b"\r\n", b"\r\n\r\n", b"Host: x", b"Content-Length: ", b"5", b"-1",
             b"Transfer-Encoding: chunked", b"\0", b"\xff" * 20, b"?digest=", b"%2F",
             b"Range: bytes=", b"0-", b"\n", b":", b" "]
    for _ in range(30):
        data = b"".join(source.choice(words) for _ in range(source.randrange(1, 60)))
        with Raw(server, timeout=2) as raw:
            try:
                raw.send(data)
                raw.socket.shutdown(socket.SHUT_WR)
                raw.read_all()
            except OSError:
                pass
    server.check()
    assert client.get("/v2/").status == 200, f"seed {seed}"


def test_many_connections_that_come_and_go_leave_nothing(server):
    with Client(server) as client:
        client.get("/v2/")
        before = server.open_files()
        for _ in range(200):
            Raw(server).close()
        for _ in range(50):
            with Client(server) as one:
                one.get("/v2/")
        assert wait_until(lambda: server.open_files() <= before + 2, 10)


@pytest.mark.parametrize("first", [b"GARBAGE\r\n\r\n", b"\x16\x03\x01\x00\x05hello\n\r\n\r\n", b"\n\n\n\n"])
def test_a_first_line_that_is_no_request_is_answered_in_http(server, first):
    """Clients that try TLS first know a plain server by that."""
    raw = Raw(server, first, timeout=10)
    raw.socket.shutdown(1)
    assert raw.read_all().startswith(b"HTTP/1.1 400 ")
