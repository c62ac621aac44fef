"""Pushing blobs in one piece. dist-spec 1.1.1, "Pushing a blob monolithically"."""

import re

import pytest

from holdfast import (digest_of, get_blob, OCTETS, push_blob, random_bytes, sha256, start_upload,
                      with_query)

ALGORITHMS = ["sha256", "sha512"]


def test_post_opens_a_session_with_a_location(client, repo):
    answer = client.post(f"/v2/{repo}/blobs/uploads/")
    assert answer.status == 202
    assert answer.location.startswith(f"/v2/{repo}/blobs/uploads/")
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
                        answer.headers["Docker-Upload-UUID"])
    assert answer.headers["Docker-Upload-UUID"] in answer.location
    assert answer.headers["Range"] in (None, "0-0")


def test_post_without_the_last_slash_opens_a_session_too(client, repo):
    assert client.post(f"/v2/{repo}/blobs/uploads").status == 202


def test_no_minimum_chunk_is_asked_for(client, repo):
    assert client.post(f"/v2/{repo}/blobs/uploads/").headers["OCI-Chunk-Min-Length"] is None


def test_sessions_are_different(client, repo):
    assert start_upload(client, repo) != start_upload(client, repo)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("size", [0, 1, 1000, 300000])
def test_post_and_put_make_a_blob(client, repo, size, algorithm):
    data = random_bytes(size)
    digest = digest_of(data, algorithm)
    location = start_upload(client, repo)
    answer = client.put(with_query(location, digest=digest), data, {"Content-Type": OCTETS})
    assert answer.status == 201
    assert answer.location == f"/v2/{repo}/blobs/{digest}"
    assert answer.digest == digest
    assert client.get(answer.location).body == data


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("size", [0, 1, 1000, 300000])
def test_a_single_post_makes_a_blob(client, repo, size, algorithm):
    data = random_bytes(size)
    digest = digest_of(data, algorithm)
    answer = client.post(f"/v2/{repo}/blobs/uploads/?digest={digest}", data,
                         {"Content-Type": OCTETS})
    assert answer.status == 201
    assert answer.location == f"/v2/{repo}/blobs/{digest}"
    assert answer.digest == digest
    assert get_blob(client, repo, digest) == data


def test_a_body_without_a_length_makes_a_blob(client, repo):
    pieces = [random_bytes(10000) for _ in range(20)]
    digest = sha256(b"".join(pieces))
    location = start_upload(client, repo)
    assert client.put(with_query(location, digest=digest), iter(pieces)).status == 201
    assert get_blob(client, repo, digest) == b"".join(pieces)


def test_a_digest_in_the_query_may_be_raw_or_encoded(client, repo):
    for write in (lambda d: d, lambda d: d.replace(":", "%3A"), lambda d: d.replace(":", "%3a")):
        data = random_bytes()
        location = start_upload(client, repo)
        joint = "&" if "?" in location else "?"
        answer = client.put(f"{location}{joint}digest={write(sha256(data))}", data)
        assert answer.status == 201


@pytest.mark.parametrize("content_type", [None, "application/json", "text/plain; charset=utf-8"])
def test_the_content_type_of_a_blob_does_not_matter(client, repo, content_type):
    data = random_bytes()
    headers = {"Content-Type": content_type} if content_type else {}
    answer = client.post(f"/v2/{repo}/blobs/uploads/?digest={sha256(data)}", data, headers)
    assert answer.status == 201
    assert client.get(answer.location).headers["Content-Type"] == OCTETS


def test_an_expected_continue_is_given(client, repo):
    data = random_bytes(50000)
    path = f"/v2/{repo}/blobs/uploads/?digest={sha256(data)}"
    with client.raw(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n"
                    "Expect: 100-continue\r\n\r\n".encode(), timeout=10) as raw:
        assert raw.socket.recv(100).startswith(b"HTTP/1.1 100")
        raw.send(data)
        assert raw.response().status == 201


def test_a_blob_may_be_pushed_twice(client, repo):
    data = random_bytes()
    push_blob(client, repo, data)
    push_blob(client, repo, data)
    assert get_blob(client, repo, sha256(data)) == data


def test_two_sessions_for_one_blob_end_both_with_201(client, repo):
    data = random_bytes()
    first, second = start_upload(client, repo), start_upload(client, repo)
    for location in (first, second):
        assert client.put(with_query(location, digest=sha256(data)), data).status == 201


def test_one_content_may_be_pushed_under_both_algorithms(client, repo):
    data = random_bytes()
    for algorithm in ALGORITHMS:
        assert get_blob(client, repo, push_blob(client, repo, data, algorithm=algorithm)) == data


# ---- Digests that are wrong ----

@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_put_with_the_digest_of_something_else_is_400_digest_invalid(client, repo, algorithm):
    data = random_bytes()
    wrong = digest_of(b"something else", algorithm)
    location = start_upload(client, repo)
    answer = client.put(with_query(location, digest=wrong), data)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    for digest in (wrong, sha256(data)):
        assert client.head(f"/v2/{repo}/blobs/{digest}").status == 404


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_single_post_with_the_digest_of_something_else_is_refused(client, repo, algorithm):
    wrong = digest_of(b"something else", algorithm)
    answer = client.post(f"/v2/{repo}/blobs/uploads/?digest={wrong}", random_bytes())
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert client.head(f"/v2/{repo}/blobs/{wrong}").status == 404


@pytest.mark.parametrize("digest", ["sha256:abc", "nonsense", "", "sha256:" + "A" * 64,
                                    "md5:" + "0" * 32, "blake3:" + "0" * 64])
@pytest.mark.parametrize("way", ["POST", "PUT"])
def test_a_malformed_or_unknown_digest_is_400_digest_invalid(client, repo, way, digest):
    if way == "POST":
        answer = client.post(f"/v2/{repo}/blobs/uploads/?digest={digest}", b"data")
    else:
        answer = client.put(with_query(start_upload(client, repo), digest=digest), b"data")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_put_without_a_digest_is_400_digest_invalid(client, repo):
    answer = client.put(start_upload(client, repo), b"data")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_a_large_body_that_is_refused_still_hears_why(client, repo):
    # Answered at its head; the client that is still sending must not see a broken pipe.
    answer = client.post(f"/v2/{repo}/blobs/uploads/?digest=nonsense", random_bytes(3 << 20))
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


# ---- digest-algorithm (dist-spec development version, end-4c) ----

def test_digest_algorithm_opens_a_session_for_it(client, repo):
    data = random_bytes()
    location = start_upload(client, repo, **{"digest-algorithm": "sha512"})
    answer = client.patch(location, data)
    assert answer.status == 202
    digest = digest_of(data, "sha512")
    assert client.put(with_query(answer.location, digest=digest)).status == 201
    assert get_blob(client, repo, digest) == data


def test_a_session_may_end_with_another_algorithm_than_it_began_with(client, repo):
    data = random_bytes()
    for begun, ended in (("sha512", "sha256"), ("sha256", "sha512")):
        location = start_upload(client, repo, **{"digest-algorithm": begun})
        location = client.patch(location, data).location
        digest = digest_of(data, ended)
        assert client.put(with_query(location, digest=digest)).status == 201
        assert get_blob(client, repo, digest) == data


@pytest.mark.parametrize("algorithm", ["md5", "", "SHA256", "blake3", "sha256 ", "x" * 1000])
def test_an_unknown_digest_algorithm_is_400_digest_invalid(client, repo, algorithm):
    answer = client.post(with_query(f"/v2/{repo}/blobs/uploads/",
                                    **{"digest-algorithm": algorithm}))
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
