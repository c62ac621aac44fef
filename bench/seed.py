"""Fills the database of a stopped Holdfast with many manifests and tags, by SQL: pushing a million
images takes too long. Only rows are made: the layers' bytes are not in the blob store.

    python3 bench/seed.py DATA [--manifests N] [--tags N]

DATA is a folder that Holdfast served once. Manifests go to repositories scale/0000 … of 1,000 each,
every one with a tag of its own; the N tags go to the repository scale/tags."""

import argparse
import hashlib
import json
import pathlib
import sqlite3
import time

PER_REPOSITORY = 1000
LAYERS = 5
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def digest_of(text):
    return "sha256:" + hashlib.sha256(text).hexdigest()


class Seeder:
    """Rows of one data folder, all with the same time."""

    def __init__(self, data):
        files = [p for p in pathlib.Path(data).iterdir() if is_database(p)]
        if len(files) != 1:
            raise SystemExit(f"{len(files)} SQLite files in {data}, wants one: serve it once")
        self.db = sqlite3.connect(files[0], isolation_level=None)
        # Speed over safety: the folder is thrown away. Holdfast turns WAL on again.
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -262144"):
            self.db.execute(f"PRAGMA {pragma}")
        self.now = int(time.time() * 1e6)

    def repository(self, name):
        """A repository with the blobs that all its images share. Returns its id and descriptors."""
        row = (name, self.now)
        self.db.execute("INSERT INTO repository (name, created_at) VALUES (?, ?)", row)
        (repository,) = self.db.execute("SELECT last_insert_rowid()").fetchone()
        descriptors = []
        for i in range(1 + LAYERS):
            digest = digest_of(f"{name} {i}".encode())
            kind = "config.v1+json" if i == 0 else "layer.v1.tar+gzip"
            media_type = f"application/vnd.oci.image.{kind}"
            size = 1000 + i
            descriptors.append({"mediaType": media_type, "digest": digest, "size": size})
            row = (digest, size, self.now)
            self.db.execute("INSERT INTO blob (digest, size, created_at) VALUES (?, ?, ?)", row)
            self.db.execute(
                "INSERT INTO repository_blob (repository_id, blob_id, linked_at)"
                " VALUES (?, last_insert_rowid(), ?)",
                (repository, self.now),
            )
        return repository, descriptors

    def manifests(self, repository, descriptors, n):
        """`n` images of a repository and a tag for each. They differ in an annotation. Returns the
        id of the first."""
        (highest,) = self.db.execute("SELECT coalesce(max(id), 0) FROM manifest").fetchone()
        images = []
        for i in range(n):
            version = {"org.opencontainers.image.version": f"1.{i}"}
            image = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": descriptors[0]}
            image |= {"layers": descriptors[1:], "annotations": version}
            content = json.dumps(image, indent=2).encode()
            annotations = json.dumps(version, separators=(",", ":"))
            images.append((highest + 1 + i, digest_of(content), annotations, content))
        images.sort(key=lambda image: image[1])
        self.db.executemany(
            "INSERT INTO manifest (id, repository_id, digest, media_type, artifact_type, subject,"
            " annotations, pushed_at, size, content) VALUES (?, ?, ?, ?, '', NULL, ?, ?, ?, ?)",
            (
                (key, repository, digest, MANIFEST_TYPE, annotations, self.now, len(body), body)
                for key, digest, annotations, body in images
            ),
        )
        self.db.executemany(
            "INSERT INTO manifest_reference (repository_id, digest, manifest_id) VALUES (?, ?, ?)",
            (
                (repository, digest, highest + 1 + i)
                for digest in sorted(descriptor["digest"] for descriptor in descriptors)
                for i in range(n)
            ),
        )
        self.tags(repository, [f"v{i:06}" for i in range(n)], range(highest + 1, highest + 1 + n))
        return highest + 1

    def tags(self, repository, names, manifests):
        self.db.executemany(
            "INSERT INTO tag (repository_id, name, manifest_id, updated_at) VALUES (?, ?, ?, ?)",
            ((repository, name, key, self.now) for name, key in zip(names, manifests)),
        )


def is_database(path):
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def seed(data, manifests, tags):
    seeder = Seeder(data)
    seeder.db.execute("BEGIN")
    for first in range(0, manifests, PER_REPOSITORY):
        repository, descriptors = seeder.repository(f"scale/{first // PER_REPOSITORY:04}")
        n = min(PER_REPOSITORY, manifests - first)
        seeder.manifests(repository, descriptors, n)
    if tags:
        repository, descriptors = seeder.repository("scale/tags")
        key = seeder.manifests(repository, descriptors, 1)
        names = (f"v{i:06}" for i in range(1, tags))  # v000000 is there
        seeder.tags(repository, names, [key] * (tags - 1))
    seeder.db.execute("COMMIT")
    seeder.db.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("data")
    parser.add_argument("--manifests", type=int, default=1_000_000)
    parser.add_argument("--tags", type=int, default=100_000)
    options = parser.parse_args()
    seed(options.data, options.manifests, options.tags)
