"""One client, as clients of registries behave: what bench/cost.py counts is what it does."""

import collections
import http.client
import json
import os
import urllib.parse

import seed
from servers import Broken

REPOSITORY = "team/app"


class Visitor:
    """A client with one kept connection to the node, and one to the store."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.store = None
        self.requests = 0
        self.fetched = collections.Counter()

    def ask(self, method, path, *expected, body=None, headers=None):
        self.requests += 1
        self.connection.request(method, path, body, headers or {})
        answer = self.connection.getresponse()
        answer.content = answer.read()
        if answer.status not in expected:
            raise Broken(f"{method} {path}: {answer.status} {answer.content[:300]!r}")
        return answer

    def fetch(self, url):
        """What a redirect leads to."""
        parts = urllib.parse.urlsplit(url)
        self.store = self.store or http.client.HTTPConnection(parts.netloc, timeout=120)
        self.store.request("GET", f"{parts.path}?{parts.query}")
        answer = self.store.getresponse()
        answer.read()
        if answer.status != 200:
            raise Broken(f"GET {url}: {answer.status}")
        self.fetched["GetObject"] += 1

    # -- Pulls --

    def manifest(self, reference, method="GET"):
        path = f"/v2/{REPOSITORY}/manifests/{reference}"
        return self.ask(method, path, 200, headers={"Accept": seed.MANIFEST_TYPE})

    def digest_of(self, tag):
        return self.manifest(tag, "HEAD").headers["Docker-Content-Digest"]

    def delete(self, digest):
        self.ask("DELETE", f"/v2/{REPOSITORY}/manifests/{digest}", 202)

    def blob(self, digest):
        answer = self.ask("GET", f"/v2/{REPOSITORY}/blobs/{digest}", 200, 307)
        if answer.status == 307:
            self.fetch(answer.headers["Location"])

    def pull_image(self, tag):
        """As containerd does: what the tag names, that manifest, the config and the layers."""
        manifest = json.loads(self.manifest(self.digest_of(tag)).content)
        for descriptor in (manifest["config"], *manifest["layers"]):
            self.blob(descriptor["digest"])

    # -- Pushes --

    def upload(self, body, way):
        """POST, PATCH, PUT, as Docker and podman do; or POST, PUT, as containerd does; or POST."""
        digest = seed.digest_of(body)
        path = f"/v2/{REPOSITORY}/blobs/uploads/"
        if self.ask("HEAD", f"/v2/{REPOSITORY}/blobs/{digest}", 200, 404, 307).status != 404:
            return digest
        if way == "POST":
            self.ask("POST", f"{path}?digest={digest}", 201, body=body)
            return digest
        where = self.ask("POST", path, 202).headers["Location"]
        if way == "PATCH":
            pieces = (body[i : i + 32768] for i in range(0, len(body), 32768))
            where = self.ask("PATCH", where, 202, body=pieces).headers["Location"]
            body = b""
        where += ("&" if "?" in where else "?") + "digest=" + digest
        self.ask("PUT", where, 201, body=body, headers={"Content-Length": str(len(body))})
        return digest

    def push_image(self, layers, tag, way="PATCH"):
        digests = [self.upload(layer, way) for layer in layers]
        config = json.dumps({"rootfs": {"type": "layers", "diff_ids": digests}}).encode()
        types = ["config.v1+json"] + ["layer.v1.tar+gzip"] * len(layers)
        descriptors = [
            {
                "mediaType": f"application/vnd.oci.image.{kind}",
                "digest": digest,
                "size": len(body),
            }
            for kind, digest, body in zip(
                types, [self.upload(config, way), *digests], [config, *layers]
            )
        ]
        manifest = {"schemaVersion": 2, "mediaType": seed.MANIFEST_TYPE}
        manifest |= {"config": descriptors[0], "layers": descriptors[1:]}
        self.ask(
            "PUT",
            f"/v2/{REPOSITORY}/manifests/{tag}",
            201,
            body=json.dumps(manifest).encode(),
            headers={"Content-Type": seed.MANIFEST_TYPE},
        )


def contents(sizes):
    """Bytes that nobody pushed before."""
    return [os.urandom(size) for size in sizes]
