"""Pulling: manifests and blobs, HEAD, ranges, conditional requests. dist-spec 1.1.1, "Pull"."""

import pytest

from holdfast import (Client, encode, INDEX, make_image, make_index, MANIFEST, OCTETS, push_blob,
                      push_image, push_manifest, put_manifest, random_bytes, sha256, sha512)

ABSENT = "sha256:" + "0" * 64


# ---- Blobs ----

@pytest.mark.parametrize("size", [0, 1, 2, 4095, 4096, 65537, 1 << 20, 5 * (1 << 20) + 3])
def test_a_blob_comes_back_as_it_was_pushed(client, repo, size):
    data = random_bytes(size)
    digest = push_blob(client, repo, data)
    answer = client.get(f"/v2/{repo}/blobs/{digest}")
    assert answer.status == 200
    assert answer.body == data
    assert answer.headers["Content-Length"] == str(size)
    assert answer.headers["Content-Type"] == OCTETS
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Transfer-Encoding"] is None
    assert answer.digest == digest


@pytest.mark.needs("stream")
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_head_of_a_blob_has_the_headers_of_get_and_no_body(client, repo, algorithm):
    digest = push_blob(client, repo, random_bytes(4321), algorithm=algorithm)
    got = client.get(f"/v2/{repo}/blobs/{digest}")
    head = client.head(f"/v2/{repo}/blobs/{digest}")
    assert head.status == 200
    assert head.body == b""
    for name in ("Content-Length", "Content-Type", "Docker-Content-Digest", "ETag",
                 "Accept-Ranges", "Cache-Control"):
        assert head.headers[name] == got.headers[name], name
    assert head.headers["Content-Length"] == "4321"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("digest", [ABSENT, "sha512:" + "0" * 128])
def test_a_blob_that_is_not_there_is_404(client, repo, method, digest):
    push_blob(client, repo, random_bytes())
    answer = client.request(method, f"/v2/{repo}/blobs/{digest}")
    assert answer.status == 404
    if method == "GET":
        assert answer.code == "BLOB_UNKNOWN"


def test_a_blob_of_another_repository_is_404_here(client, repo):
    digest = push_blob(client, repo + "/other", random_bytes())
    push_blob(client, repo, random_bytes())
    assert client.get(f"/v2/{repo}/blobs/{digest}").code == "BLOB_UNKNOWN"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_blob_of_a_repository_that_does_not_exist_is_404(client, repo, method):
    answer = client.request(method, f"/v2/{repo}/blobs/{ABSENT}")
    assert answer.status == 404
    if method == "GET":
        assert answer.code in ("NAME_UNKNOWN", "BLOB_UNKNOWN")


# ---- Ranges of blobs. RFC 9110, section 14; the cases of the conformance suite ----

@pytest.fixture(scope="module")
def ranged(server):
    data = random_bytes(2048)
    with Client(server) as client:
        digest = push_blob(client, "test/ranged", data)
    return data, f"/v2/test/ranged/blobs/{digest}"


@pytest.mark.parametrize("text, first, last", [
    ("bytes=500-1499", 500, 1499),
    ("bytes=500-", 500, 2047),
    ("bytes=-500", 1548, 2047),
    ("bytes=2000-5000", 2000, 2047),
    ("bytes=0-0", 0, 0),
    ("bytes=2047-2047", 2047, 2047),
    ("bytes=0-", 0, 2047),
    ("bytes=-5000", 0, 2047),
    ("bytes=0-18446744073709551615", 0, 2047),
])
def test_a_range_of_a_blob_is_206_with_those_bytes(client, ranged, text, first, last):
    data, path = ranged
    answer = client.get(path, {"Range": text})
    assert answer.status == 206
    assert answer.body == data[first:last + 1]
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/2048"
    assert answer.headers["Content-Length"] == str(last - first + 1)
    assert answer.digest == sha256(data)


@pytest.mark.needs("stream")
@pytest.mark.parametrize("text", ["bytes=2048-", "bytes=2048-2050", "bytes=5000-6000", "bytes=-0"])
def test_a_range_beyond_the_blob_is_416_with_its_size(client, ranged, text):
    answer = client.get(ranged[1], {"Range": text})
    assert answer.status == 416
    assert answer.headers["Content-Range"] == "bytes */2048"
    assert answer.code == "RANGE_INVALID"
    assert answer.headers.get_all("Content-Type") == ["application/json"]
    assert "max-age" not in answer.headers.get("Cache-Control", ""), "an error must not be cached"


def test_a_range_whose_end_is_before_its_start_is_416_or_ignored(client, ranged):
    # RFC 9110 calls it invalid, which may be ignored; the suite asks for 416.
    answer = client.get(ranged[1], {"Range": "bytes=500-0"})
    assert answer.status in (416, 200)


@pytest.mark.needs("stream")
@pytest.mark.parametrize("text", [
    "bytes", "bytes=", "bytes=a-b", "bytes=--5", "items=0-5", "bytes=1", "0-5", "bytes=5-x",
    "bytes=99999999999999999999-99999999999999999999999", "bytes=0 - 5"])
def test_a_broken_range_is_ignored_or_refused_never_misread(client, ranged, text):
    data, path = ranged
    answer = client.get(path, {"Range": text})
    assert answer.status in (200, 416, 400)
    if answer.status == 200:
        assert answer.body == data


@pytest.mark.needs("stream")
def test_several_ranges_are_answered_in_a_way_that_clients_understand(client, ranged):
    # Partial pulls of podman: all of it, every part in a multipart/byteranges, or 400.
    data, path = ranged
    answer = client.get(path, {"Range": "bytes=0-9,100-109,2000-2047"})
    assert answer.status in (200, 206, 400)
    if answer.status == 200:
        assert answer.body == data
    if answer.status == 206:
        assert answer.headers["Content-Type"].startswith("multipart/byteranges")
        for part in (data[0:10], data[100:110], data[2000:2048]):
            assert part in answer.body


def test_head_ignores_a_range(client, ranged):
    answer = client.head(ranged[1], {"Range": "bytes=0-9"})
    assert answer.status == 200
    assert answer.headers["Content-Length"] == "2048"


@pytest.mark.needs("stream")
def test_a_range_is_served_when_if_range_names_the_blob(client, ranged):
    data, path = ranged
    etag = client.head(path).headers["ETag"]
    answer = client.get(path, {"Range": "bytes=0-9", "If-Range": etag})
    assert (answer.status, answer.body) == (206, data[:10])


@pytest.mark.needs("stream")
def test_all_is_served_when_if_range_names_something_else(client, ranged):
    data, path = ranged
    answer = client.get(path, {"Range": "bytes=0-9", "If-Range": '"sha256:other"'})
    assert (answer.status, answer.body) == (200, data)


def test_a_range_of_the_empty_blob_is_416_or_all_of_it(client, repo):
    digest = push_blob(client, repo, b"")
    answer = client.get(f"/v2/{repo}/blobs/{digest}", {"Range": "bytes=0-"})
    assert answer.status in (416, 200)
    assert answer.status == 416 or answer.body == b""


def test_a_broken_pull_can_be_resumed(client, repo):
    data = random_bytes(3 << 20)
    digest = push_blob(client, repo, data)
    path = f"/v2/{repo}/blobs/{digest}"
    with client.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) as broken:
        broken.socket.recv(1000)
        broken.reset()
    answer = client.get(path, {"Range": "bytes=1000000-"})
    assert (answer.status, answer.body) == (206, data[1000000:])


# ---- Manifests ----

@pytest.mark.parametrize("by", ["tag", "digest"])
def test_a_manifest_comes_back_byte_by_byte(client, repo, by):
    image = make_image(2)
    # Odd white space and key order must survive: the digest is over the bytes.
    image.body = b"\n " + image.body.replace(b",", b" ,\t", 3) + b"\r\n"
    push_image(client, repo, image, "v1")
    answer = client.get(f"/v2/{repo}/manifests/{'v1' if by == 'tag' else image.digest}")
    assert answer.status == 200
    assert answer.body == image.body
    assert answer.headers["Content-Type"] == MANIFEST
    assert answer.headers["Content-Length"] == str(len(image.body))
    assert answer.headers["Transfer-Encoding"] is None
    assert answer.digest == image.digest


@pytest.mark.parametrize("by", ["tag", "digest"])
def test_head_of_a_manifest_has_the_headers_of_get_and_no_body(client, repo, by):
    image = make_image()
    push_image(client, repo, image, "v1")
    path = f"/v2/{repo}/manifests/{'v1' if by == 'tag' else image.digest}"
    got, head = client.get(path), client.head(path)
    assert (head.status, head.body) == (200, b"")
    for name in ("Content-Length", "Content-Type", "Docker-Content-Digest", "ETag",
                 "Cache-Control"):
        assert head.headers[name] == got.headers[name], name
    assert head.headers["Content-Length"] == str(len(image.body))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("reference", ["absent", ABSENT])
def test_a_manifest_that_is_not_there_is_404(client, repo, method, reference):
    push_image(client, repo, make_image(), "v1")
    answer = client.request(method, f"/v2/{repo}/manifests/{reference}")
    assert answer.status == 404
    if method == "GET":
        assert answer.code == "MANIFEST_UNKNOWN"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("reference", ["latest", ABSENT])
def test_a_manifest_of_a_repository_that_does_not_exist_is_404(client, repo, method, reference):
    answer = client.request(method, f"/v2/{repo}/manifests/{reference}")
    assert answer.status == 404
    if method == "GET":
        assert answer.code in ("NAME_UNKNOWN", "MANIFEST_UNKNOWN")


def test_a_manifest_of_another_repository_is_404_here(client, repo):
    image = make_image()
    push_image(client, repo + "/other", image, "v1")
    push_blob(client, repo, random_bytes())
    assert client.get(f"/v2/{repo}/manifests/{image.digest}").status == 404
    assert client.get(f"/v2/{repo}/manifests/v1").status == 404


def test_a_manifest_is_not_a_blob_of_the_repository(client, repo):
    # dist-spec has no such rule, but a blob and a manifest are different things to delete.
    image = make_image()
    push_image(client, repo, image)
    answer = client.get(f"/v2/{repo}/blobs/{image.digest}")
    assert answer.status in (404, 200)
    assert answer.status == 404 or answer.body == image.body


@pytest.mark.parametrize("accept", [
    None, "*/*", "application/*", MANIFEST, INDEX, f"{INDEX}, {MANIFEST}", "text/html",
    "application/json;q=0.5, */*;q=0.1", ""])
def test_what_the_client_accepts_does_not_change_what_is_stored(client, repo, accept):
    image = make_image()
    push_image(client, repo, image, "v1")
    answer = client.get(f"/v2/{repo}/manifests/v1", {} if accept is None else {"Accept": accept})
    assert answer.status == 200
    assert (answer.headers["Content-Type"], answer.body) == (MANIFEST, image.body)


def test_accept_may_be_repeated(client, repo):
    index = make_index([make_image()])
    push_image(client, repo, index, "v1")
    answer = client.get(f"/v2/{repo}/manifests/v1", [("Accept", MANIFEST), ("Accept", INDEX)])
    assert (answer.status, answer.body) == (200, index.body)


def test_a_tag_may_not_be_cached_blindly(client, repo):
    push_image(client, repo, make_image(), "v1")
    cache = client.get(f"/v2/{repo}/manifests/v1").headers["Cache-Control"]
    assert cache is None or "no-cache" in cache or "max-age=0" in cache or "no-store" in cache


def test_a_manifest_pushed_by_sha512_is_pulled_by_sha512(client, repo):
    image = make_image()
    push_image(client, repo, image, image.sha512)
    answer = client.get(f"/v2/{repo}/manifests/{image.sha512}")
    assert (answer.status, answer.body) == (200, image.body)
    assert answer.digest == image.sha512 == sha512(answer.body)


# ---- Conditional requests ----

@pytest.fixture
def tagged(client, repo):
    image = make_image()
    push_image(client, repo, image, "v1")
    return f"/v2/{repo}/manifests/v1", image


@pytest.mark.parametrize("form", ['"{}"', "{}", 'W/"{}"', '"other", "{}"', '"a","{}" , "b"', "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_if_none_match_with_the_digest_is_304_without_a_body(client, tagged, method, form):
    path, image = tagged
    answer = client.request(method, path, None, {"If-None-Match": form.format(image.digest)})
    assert (answer.status, answer.body) == (304, b"")
    assert image.digest in answer.headers["ETag"]


@pytest.mark.parametrize("form", ['"sha256:other"', '"{}x"', "", '""'])
def test_if_none_match_with_another_tag_is_200(client, tagged, form):
    path, image = tagged
    answer = client.get(path, {"If-None-Match": form.format(image.digest)})
    assert (answer.status, answer.body) == (200, image.body)


@pytest.mark.needs("stream")
def test_if_none_match_works_for_blobs(client, repo):
    digest = push_blob(client, repo, random_bytes())
    path = f"/v2/{repo}/blobs/{digest}"
    assert client.get(path).headers["ETag"] == f'"{digest}"'
    assert client.get(path, {"If-None-Match": f'"{digest}"'}).status == 304


def test_the_etag_of_a_manifest_is_its_digest(client, tagged):
    path, image = tagged
    assert client.get(path).headers["ETag"] == f'"{image.digest}"'


def test_put_with_if_match_of_the_current_manifest_replaces_it(client, repo, tagged):
    path, image = tagged
    new = make_image()
    push_image(client, repo, new)
    answer = client.put(path, new.body, {"Content-Type": MANIFEST,
                                         "If-Match": f'"{image.digest}"'})
    assert answer.status == 201
    assert client.get(path).body == new.body


def test_put_with_if_match_of_an_older_manifest_is_412_and_changes_nothing(client, repo, tagged):
    path, image = tagged
    new = make_image()
    push_image(client, repo, new)
    answer = client.put(path, new.body, {"Content-Type": MANIFEST, "If-Match": f'"{ABSENT}"'})
    assert answer.status == 412
    assert client.get(path).body == image.body


def test_put_with_if_match_of_a_tag_that_is_not_there_is_412(client, repo):
    image = make_image()
    push_image(client, repo, image)
    for value in ("*", f'"{image.digest}"'):
        answer = client.put(f"/v2/{repo}/manifests/new", image.body,
                            {"Content-Type": MANIFEST, "If-Match": value})
        assert answer.status == 412
    assert client.get(f"/v2/{repo}/manifests/new").status == 404


def test_put_with_if_none_match_star_creates_a_tag_once(client, repo):
    first, second = make_image(), make_image()
    push_image(client, repo, first)
    push_image(client, repo, second)
    headers = {"Content-Type": MANIFEST, "If-None-Match": "*"}
    path = f"/v2/{repo}/manifests/once"
    assert client.put(path, first.body, headers).status == 201
    assert client.put(path, second.body, headers).status == 412
    assert client.get(path).body == first.body


def test_a_put_without_conditions_moves_the_tag(client, repo, tagged):
    path, _ = tagged
    new = make_image()
    push_image(client, repo, new, "v1")
    assert client.get(path).body == new.body
    assert client.head(path).digest == new.digest


def test_an_index_comes_back_with_its_own_type(client, repo):
    index = make_index([make_image(), make_image()])
    push_image(client, repo, index, "multi")
    answer = client.get(f"/v2/{repo}/manifests/multi")
    assert (answer.headers["Content-Type"], answer.body) == (INDEX, index.body)


def test_content_that_looks_like_anything_is_served_as_it_is(client, repo):
    # A blob is never interpreted.
    for data in (b"<html><script>alert(1)</script>", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100,
                 encode({"schemaVersion": 2})):
        digest = push_blob(client, repo, data)
        answer = client.get(f"/v2/{repo}/blobs/{digest}")
        assert (answer.body, answer.headers["Content-Type"]) == (data, OCTETS)


def test_a_manifest_put_twice_is_201_twice(client, repo, tagged):
    _, image = tagged
    assert push_manifest(client, repo, image, "v1").digest == image.digest
    assert put_manifest(client, repo, image.digest, image).status == 201
