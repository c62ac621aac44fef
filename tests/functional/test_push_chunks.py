"""Pushing blobs in pieces: sessions, offsets, status, cancel. dist-spec 1.1.1, "Pushing a blob in
chunks"."""

import time

import pytest

from holdfast import (Client, digest_of, get_blob, in_threads, OCTETS, push_blob, random_bytes,
                      sha256, start_upload, wait_until, with_query)


def send(client, location, data, start):
    """PATCH of one chunk at `start`."""
    return client.patch(location, data, {"Content-Type": OCTETS, "Content-Range":
                                         f"{start}-{start + len(data) - 1}"})


def offset(client, location):
    """The bytes received, as the session's status tells; it cannot tell 0 from 1."""
    answer = client.get(location)
    assert answer.status == 204, answer
    first, _, last = answer.headers["Range"].partition("-")
    assert first == "0"
    return int(last) + 1


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("chunk", [1, 512, 1000, 4096, 100000])
def test_chunks_make_a_blob(client, repo, chunk, algorithm):
    data = random_bytes(min(chunk * 3 + 1, 200000))
    digest = push_blob(client, repo, data, chunk=chunk, algorithm=algorithm)
    assert get_blob(client, repo, digest) == data


def test_each_chunk_is_acknowledged_with_all_that_was_received(client, repo):
    location = start_upload(client, repo)
    for start in (0, 1000, 2000):
        answer = send(client, location, random_bytes(1000), start)
        assert answer.status == 202
        assert answer.headers["Range"] == f"0-{start + 999}"
        assert answer.headers["Docker-Upload-UUID"]
        location = answer.location
        assert location.startswith(f"/v2/{repo}/blobs/uploads/")


def test_the_last_chunk_may_come_with_put(client, repo):
    data = random_bytes(3000)
    location = send(client, start_upload(client, repo), data[:2000], 0).location
    answer = client.put(with_query(location, digest=sha256(data)), data[2000:],
                        {"Content-Range": "2000-2999", "Content-Type": OCTETS})
    assert answer.status == 201
    assert get_blob(client, repo, sha256(data)) == data


def test_the_last_chunk_of_put_needs_no_content_range(client, repo):
    data = random_bytes(3000)
    location = send(client, start_upload(client, repo), data[:2000], 0).location
    assert client.put(with_query(location, digest=sha256(data)), data[2000:]).status == 201


def test_patch_without_a_range_appends(client, repo):
    data = random_bytes(3000)
    location = start_upload(client, repo)
    for start in (0, 1500):
        answer = client.patch(location, data[start:start + 1500])
        assert (answer.status, answer.headers["Range"]) == (202, f"0-{start + 1499}")
        location = answer.location
    assert client.put(with_query(location, digest=sha256(data))).status == 201


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_streamed_patch_without_a_length_makes_a_blob(client, repo, algorithm):
    pieces = [random_bytes(70000) for _ in range(10)]
    data = b"".join(pieces)
    answer = client.patch(start_upload(client, repo), iter(pieces), {"Content-Type": OCTETS})
    assert (answer.status, answer.headers["Range"]) == (202, "0-699999")
    digest = digest_of(data, algorithm)
    assert client.put(with_query(answer.location, digest=digest)).status == 201
    assert get_blob(client, repo, digest) == data


def test_an_empty_patch_changes_nothing(client, repo):
    data = random_bytes(100)
    location = start_upload(client, repo)
    answer = client.patch(location)
    assert (answer.status, answer.headers["Range"]) == (202, "0-0")
    location = send(client, answer.location, data, 0).location
    answer = client.patch(location, b"")
    assert (answer.status, answer.headers["Range"]) == (202, "0-99")
    assert client.put(with_query(answer.location, digest=sha256(data))).status == 201


# ---- Status ----

def test_the_status_of_a_fresh_session_is_204_with_a_range(client, repo):
    answer = client.get(start_upload(client, repo))
    assert (answer.status, answer.headers["Range"], answer.body) == (204, "0-0", b"")
    assert answer.location.startswith(f"/v2/{repo}/blobs/uploads/")
    assert answer.headers["Docker-Upload-UUID"]


def test_the_status_tells_what_was_received(client, repo):
    location = send(client, start_upload(client, repo), random_bytes(1234), 0).location
    assert offset(client, location) == 1234


def test_a_location_of_before_still_names_the_session(client, repo):
    first = start_upload(client, repo)
    second = send(client, first, random_bytes(100), 0).location
    send(client, second, random_bytes(100), 100)
    for location in (first, second):
        assert offset(client, location) == 200


def test_the_status_ignores_other_parameters(client, repo):
    location = send(client, start_upload(client, repo), random_bytes(100), 0).location
    assert offset(client, with_query(location, digest="sha256:" + "0" * 64)) == 100


def test_an_upload_resumes_where_the_status_says(client, repo):
    data = random_bytes(5000)
    location = send(client, start_upload(client, repo), data[:2000], 0).location
    start = offset(client, location)
    location = send(client, location, data[start:], start).location
    assert client.put(with_query(location, digest=sha256(data))).status == 201


# ---- What is out of order ----

@pytest.mark.parametrize("start", [0, 99, 101, 1000, 2**40, 2**62])
def test_a_chunk_that_does_not_follow_is_416_and_the_session_stays(client, repo, start):
    data = random_bytes(200)
    location = send(client, start_upload(client, repo), data[:100], 0).location
    answer = send(client, location, data[100:], start)
    assert answer.status == 416
    assert answer.headers["Range"] == "0-99"
    assert answer.location.startswith(f"/v2/{repo}/blobs/uploads/")
    assert answer.code in ("BLOB_UPLOAD_INVALID", "RANGE_INVALID")
    assert offset(client, location) == 100
    location = send(client, answer.location, data[100:], 100).location
    assert client.put(with_query(location, digest=sha256(data))).status == 201


def test_the_first_chunk_must_begin_at_0(client, repo):
    location = start_upload(client, repo)
    assert send(client, location, random_bytes(100), 1).status == 416
    assert send(client, location, random_bytes(100), 0).status == 202


def test_a_chunk_sent_again_is_416(client, repo):
    location = start_upload(client, repo)
    data = random_bytes(100)
    assert send(client, location, data, 0).status == 202
    assert send(client, location, data, 0).status == 416


def test_a_last_chunk_out_of_order_is_416_and_the_session_stays(client, repo):
    data = random_bytes(3000)
    location = send(client, start_upload(client, repo), data[:2000], 0).location
    url = with_query(location, digest=sha256(data))
    assert client.put(url, data[2000:], {"Content-Range": "1000-1999"}).status == 416
    assert offset(client, location) == 2000
    assert client.put(url, data[2000:], {"Content-Range": "2000-2999"}).status == 201


@pytest.mark.parametrize("text", ["5-1", "100-", "-5", "bytes 0-99/100", "a-b", "0-99-100", "",
                                  "0 - 99", "+0-99", "0x0-0x63", "99999999999999999999999-1",
                                  f"{2**64}-{2**64 + 99}"])
def test_a_broken_content_range_is_refused_and_the_session_stays(client, repo, text):
    location = start_upload(client, repo)
    data = random_bytes(100)
    answer = client.patch(location, data, {"Content-Range": text})
    assert answer.status in (400, 416), answer
    assert offset(client, location) <= 1
    assert send(client, location, data, 0).status == 202


@pytest.mark.parametrize("text", ["0-98", "0-100", "0-0"])
def test_a_content_range_that_is_not_the_length_is_refused(client, repo, text):
    location = start_upload(client, repo)
    data = random_bytes(100)
    answer = client.patch(location, data, {"Content-Range": text})
    assert (answer.status, answer.code) in ((400, "SIZE_INVALID"), (416, "RANGE_INVALID"),
                                            (416, "BLOB_UPLOAD_INVALID"))
    assert offset(client, location) <= 1
    assert send(client, location, data, 0).status == 202


@pytest.mark.parametrize("sent", [50, 150])
def test_a_chunk_of_unknown_length_must_fill_its_range_exactly(client, repo, sent):
    location = start_upload(client, repo)
    answer = client.patch(location, iter([random_bytes(sent)]), {"Content-Range": "0-99"})
    assert answer.status in (400, 416)
    data = random_bytes(500)
    start = offset(client, location)
    # Whatever was kept is told truthfully: the session goes on from there.
    if start <= 1:
        location = send(client, location, data, 0).location
        assert client.put(with_query(location, digest=sha256(data))).status == 201


# ---- Ends ----

def test_a_finished_session_is_gone(client, repo):
    data = random_bytes()
    location = start_upload(client, repo)
    url = with_query(location, digest=sha256(data))
    assert client.put(url, data).status == 201
    for answer in (client.get(location), client.patch(location, b"more"), client.put(url, data),
                   client.delete(location)):
        assert answer.status == 404
    assert client.get(location).code in ("BLOB_UPLOAD_UNKNOWN", None)


def test_delete_cancels_a_session(client, repo):
    location = send(client, start_upload(client, repo), random_bytes(100), 0).location
    assert client.delete(location).status == 204
    for answer in (client.patch(location, b"more"), client.delete(location)):
        assert (answer.status, answer.code) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert client.get(location).status == 404


@pytest.mark.parametrize("session", [
    "00000000-0000-4000-8000-000000000000", "x", "..", "%2e%2e%2fx", "a" * 36, "A" * 5000,
    "%00", "00000000-0000-4000-8000-00000000000G"])
@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT", "DELETE"])
def test_a_session_that_does_not_exist_is_404(client, repo, method, session):
    push_blob(client, repo, random_bytes())
    answer = client.request(method, f"/v2/{repo}/blobs/uploads/{session}?digest=sha256:" + "0" * 64,
                            b"data" if method in ("PATCH", "PUT") else None)
    assert answer.status in (404, 400, 414), answer
    if session.startswith("00000000") and session.endswith("0"):
        assert answer.status == 404
        assert answer.code == "BLOB_UPLOAD_UNKNOWN"


def test_a_session_belongs_to_its_repository(client, repo):
    location = send(client, start_upload(client, repo), random_bytes(100), 0).location
    push_blob(client, repo + "/other", random_bytes())
    elsewhere = location.replace(f"/v2/{repo}/", f"/v2/{repo}/other/")
    for answer in (client.get(elsewhere), client.patch(elsewhere, b"x"), client.delete(elsewhere),
                   client.put(with_query(elsewhere, digest=sha256(b"x")), b"x")):
        assert answer.status == 404
    assert offset(client, location) == 100


def test_a_wrong_digest_at_the_end_is_400_and_shows_nothing(client, repo):
    data = random_bytes(2000)
    location = send(client, start_upload(client, repo), data, 0).location
    answer = client.put(with_query(location, digest=sha256(b"other")))
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert client.head(f"/v2/{repo}/blobs/{sha256(data)}").status == 404
    assert client.head(f"/v2/{repo}/blobs/{sha256(b'other')}").status == 404
    # Whether the session is kept for another try is ours to choose, not to break.
    retry = client.put(with_query(location, digest=sha256(data)))
    assert retry.status in (201, 404)
    assert client.head(f"/v2/{repo}/blobs/{sha256(data)}").status == (
        200 if retry.status == 201 else 404)


def test_nothing_of_an_unfinished_upload_can_be_pulled(client, repo):
    data = random_bytes(2000)
    location = send(client, start_upload(client, repo), data, 0).location
    assert client.get(f"/v2/{repo}/blobs/{sha256(data)}").status == 404
    assert client.put(with_query(location, digest=sha256(data))).status == 201
    assert client.get(f"/v2/{repo}/blobs/{sha256(data)}").status == 200


# ---- Clients that vanish ----

@pytest.mark.parametrize("way", ["close", "reset"])
@pytest.mark.parametrize("form", ["length", "chunked"])
def test_a_client_that_vanishes_in_a_patch_leaves_the_session_usable(client, repo, form, way):
    data = random_bytes(400000)
    location = send(client, start_upload(client, repo), data[:1000], 0).location
    head = (f"PATCH {location} HTTP/1.1\r\nHost: x\r\n" +
            ("Content-Length: 399000\r\n\r\n" if form == "length"
             else "Transfer-Encoding: chunked\r\n\r\n61a80\r\n"))
    raw = client.raw(head.encode() + data[1000:201000])
    time.sleep(0.1)
    raw.reset() if way == "reset" else raw.close()

    def resume():
        start = offset(client, location)
        assert 1000 <= start <= 201000
        answer = send(client, location, data[start:], start)
        return answer if answer.status == 202 else None

    answer = wait_until(resume, 15)
    assert answer, "the session did not come free"
    assert client.put(with_query(location, digest=sha256(data))).status == 201
    assert get_blob(client, repo, sha256(data)) == data


def test_a_client_that_vanishes_in_a_put_leaves_no_blob(client, repo):
    data = random_bytes(100000)
    location = start_upload(client, repo)
    raw = client.raw(f"PUT {with_query(location, digest=sha256(data))} HTTP/1.1\r\nHost: x\r\n"
                     f"Content-Length: {len(data)}\r\n\r\n".encode() + data[:-1])
    time.sleep(0.1)
    raw.reset()
    assert client.head(f"/v2/{repo}/blobs/{sha256(data)}").status == 404
    push_blob(client, repo, data)
    assert get_blob(client, repo, sha256(data)) == data


def test_a_session_is_free_as_soon_as_its_answer_is_there(server, repo):
    # Clients with a pool of connections send the next request on another one.
    with Client(server) as one, Client(server) as other:
        for _ in range(60):
            location = start_upload(one, repo)
            data = random_bytes(3000)
            for start, client in ((0, other), (1000, one)):
                answer = send(client, location, data[start:start + 1000], start)
                assert answer.status == 202, answer
            assert send(one, location, data, 0).status == 416
            assert other.put(with_query(location, digest=sha256(data)), data[2000:]).status == 201


def test_of_two_writers_at_one_offset_one_wins(server, client, repo):
    location = start_upload(client, repo)
    chunks = [random_bytes(200000) for _ in range(4)]

    def write(i):
        with Client(server) as own:
            return send(own, location, chunks[i], 0)

    answers = in_threads(4, write)
    winners = [i for i in range(4) if answers[i].status == 202]
    assert len(winners) == 1, answers
    for answer in answers:
        assert answer.status in (202, 416, 409, 503), answer
    winner = chunks[winners[0]]
    assert offset(client, location) == 200000
    assert client.put(with_query(location, digest=sha256(winner))).status == 201
    assert get_blob(client, repo, sha256(winner)) == winner
