"""What the benchmark pushes by itself, beside what load.c makes: blobs, a small image."""

import hashlib
import json
import os
import pathlib

import seed
from measure import MIB
from servers import Broken


def push_blob(server, repository, body):
    """Pushes bytes, or the content of a path. Returns the digest and the size."""
    digest = hashlib.sha256()
    if isinstance(body, pathlib.Path):
        size = body.stat().st_size
        with open(body, "rb") as file:
            while piece := file.read(MIB):
                digest.update(piece)
    else:
        size = len(body)
        digest.update(body)
    name = "sha256:" + digest.hexdigest()
    connection = server.connect()
    target = f"/v2/{repository}/blobs/uploads/"
    target = ask(connection, "POST", target, expected=202).headers["Location"]
    target += ("&" if "?" in target else "?") + "digest=" + name
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
    if isinstance(body, pathlib.Path):
        with open(body, "rb") as file:
            ask(connection, "PUT", target, file, headers, expected=201)
    else:
        ask(connection, "PUT", target, body, headers, expected=201)
    connection.close()
    return name, size


def ask(connection, method, target, body=None, headers=None, expected=200):
    """Sends a request, reads the whole answer into its `content`, and wants that status."""
    connection.blocksize = 256 * 1024
    connection.request(method, target, body, headers or {})
    response = connection.getresponse()
    response.content = response.read()
    if response.status != expected:
        raise Broken(f"{method} {target}: {response.status} {response.content[:500]!r}")
    return response


def push_image(server, repository, tag):
    """An image with five layers, such as a small service has. Returns the manifest's bytes."""
    descriptors = []
    for i in range(6):
        kind = "config.v1+json" if i == 0 else "layer.v1.tar+gzip"
        digest, size = push_blob(server, repository, f"{kind} {i}".encode() * 100)
        media_type = f"application/vnd.oci.image.{kind}"
        descriptors.append({"mediaType": media_type, "digest": digest, "size": size})
    manifest = {"schemaVersion": 2, "mediaType": seed.MANIFEST_TYPE, "config": descriptors[0]}
    manifest |= {"layers": descriptors[1:]}
    manifest |= {"annotations": {"org.opencontainers.image.version": tag}}
    content = json.dumps(manifest, indent=2).encode()
    connection = server.connect()
    headers = {"Content-Type": seed.MANIFEST_TYPE}
    target = f"/v2/{repository}/manifests/{tag}"
    ask(connection, "PUT", target, content, headers, expected=201)
    answer = ask(connection, "GET", target, headers={"Accept": seed.MANIFEST_TYPE})
    if answer.content != content:
        raise Broken(f"{server.name} gave another manifest than it took")
    connection.close()
    return content


def random_file(path, size):
    with open(path, "wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
    return path
