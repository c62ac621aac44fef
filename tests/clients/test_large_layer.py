"""A layer of more than 2 GiB: pushed by skopeo and by curl, read back whole and in ranges."""

import hashlib
import os
import urllib.request

import pytest

from holdfast import CONFIG, LAYER, MANIFEST, Client, encode, start_upload, with_query
from clientkit import need, noise, run

BLOCK = 1 << 20
BLOCKS = 2048
SIZE = BLOCK * BLOCKS + 12345  # past 2^31, and no multiple of anything
MEMORY_LIMIT = 256 << 20


PATTERN = noise("large layer", BLOCK - 8)


def block(number):
    """Block `number` of the content: no two are alike, and making one costs next to nothing."""
    return number.to_bytes(8, "big") + PATTERN


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The content as a file, and its digest."""
    folder = tmp_path_factory.mktemp("large")
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    if free < 4 * SIZE:
        pytest.skip(f"needs {4 * SIZE >> 30} GiB of disk; {free >> 30} GiB are free")
    sha256 = hashlib.sha256()
    with open(folder / "layer", "wb") as file:
        for number in range(BLOCKS + 1):
            piece = block(number)[:SIZE - number * BLOCK]
            sha256.update(piece)
            file.write(piece)
    yield folder / "layer", f"sha256:{sha256.hexdigest()}"
    (folder / "layer").unlink()


def read_back(url, start=None, end=None):
    """The SHA-256 of what an URL gives, read in pieces; start and end as in Range."""
    request = urllib.request.Request(url)
    if start is not None:
        request.add_header("Range", f"bytes={start}-{end}")
    sha256, size = hashlib.sha256(), 0
    with urllib.request.urlopen(request, timeout=60) as answer:
        while piece := answer.read(BLOCK):
            sha256.update(piece)
            size += len(piece)
    return f"sha256:{sha256.hexdigest()}", size


def check_memory(server):
    assert server.rss() < MEMORY_LIMIT, "a layer is not to be held in memory"


def test_push_by_skopeo_and_pull(server, repo, large, layout, back):
    need("skopeo")
    path, digest = large
    os.link(path, layout.blobs / digest.partition(":")[2])
    config = layout.add(encode({"architecture": "amd64", "os": "linux", "config": {},
                                "rootfs": {"type": "layers", "diff_ids": [digest]}}), CONFIG)
    layer = {"mediaType": LAYER, "digest": digest, "size": SIZE}
    layout.tag("v1", layout.add(encode({"schemaVersion": 2, "mediaType": MANIFEST,
                                        "config": config, "layers": [layer]}), MANIFEST))
    run("skopeo", "copy", "--preserve-digests", "--dest-tls-verify=false",
        layout.reference("v1"), f"docker://{server.address}/{repo}:v1", timeout=180)
    check_memory(server)
    assert read_back(f"{server.url}/v2/{repo}/blobs/{digest}") == (digest, SIZE)
    check_memory(server)

    run("skopeo", "copy", "--preserve-digests", "--src-tls-verify=false",
        f"docker://{server.address}/{repo}:v1", back.reference("v1"), timeout=180)
    pulled = back.blobs / digest.partition(":")[2]
    assert pulled.stat().st_size == SIZE  # skopeo compared the digest


def test_push_by_curl_and_read_ranges(server, repo, large):
    need("curl")
    path, digest = large
    with Client(server) as client:
        location = with_query(start_upload(client, repo), digest=digest)
    if location.startswith("/"):
        location = server.url + location
    done = run("curl", "--silent", "--show-error", "--output", "/dev/null", "--upload-file", path,
               "--header", "Content-Type: application/octet-stream", "--write-out",
               "%{http_code}", location, timeout=180)
    assert done.stdout == "201"
    check_memory(server)

    url = f"{server.url}/v2/{repo}/blobs/{digest}"
    with Client(server) as client:
        assert client.head(url).headers["Content-Length"] == str(SIZE)
    for start, end in [((1 << 31) - 5, (1 << 31) + 5), (SIZE - 100, SIZE - 1),
                       (1500 * BLOCK + 7, 1502 * BLOCK + 6)]:
        with open(path, "rb") as file:
            file.seek(start)
            piece = file.read(end - start + 1)
        assert read_back(url, start, end) == \
            (f"sha256:{hashlib.sha256(piece).hexdigest()}", len(piece))
