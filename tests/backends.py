"""Where the servers of a test run keep what they hold: HOLDFAST_TEST_BACKEND.

    local     SQLite and files in the data folder (default)
    postgres  PostgreSQL, and files in the data folder
    s3        SQLite in the data folder, and S3; blobs are streamed through the server
    cluster   PostgreSQL and S3; pulls of blobs are redirected to the store

A server over a data folder gets a database and a prefix of its own, and gets them again when it is
started again over the same folder. The services are started when the first one is needed.
"""

import os
import secrets

from services import ObjectStore, Postgres, scratch, ServiceMissing

# What tests may rely on, by @pytest.mark.needs(...); they are left out elsewhere.
#   sqlite  the database is a file in the data folder
#   folder  the data folder holds something, so that its state matters
#   files   blobs are files in the data folder
#   stream  blobs come from the server itself, with its headers and its errors
HAS = {
    "local": {"sqlite", "folder", "files", "stream"},
    "postgres": {"folder", "files", "stream"},
    "s3": {"sqlite", "folder", "stream"},
    "cluster": set(),
}
NAME = os.environ.get("HOLDFAST_TEST_BACKEND", "local")


class Backend:
    def __init__(self, name=NAME):
        if name not in HAS:
            raise ValueError(f'HOLDFAST_TEST_BACKEND: "{name}" is none of {", ".join(HAS)}')
        self.name = name
        self.scratch = self.postgres = self.store = self.bucket = None
        self.missing = None  # ServiceMissing, once it is known
        self.places = {}  # variables by data folder

    def has(self, what):
        assert what in HAS["local"], what
        return what in HAS[self.name]

    def start(self):
        if self.missing is not None:
            raise self.missing
        if self.name == "local" or self.scratch is not None:
            return
        try:
            self._start()
        except ServiceMissing as missing:
            self.stop()
            self.missing = missing
            raise

    def _start(self):
        self.scratch = scratch()
        folder = self.scratch.folder
        if self.name in ("postgres", "cluster"):
            self.postgres = Postgres(folder / "postgres")
            self.postgres.start()
        if self.name in ("s3", "cluster"):
            self.store = ObjectStore(folder / "s3")
            self.store.start()
            self.bucket = self.store.make_bucket()

    def stop(self):
        for service in (self.postgres, self.store):
            if service is not None:
                service.stop()
        if self.scratch is not None:
            self.scratch.remove()

    def settings(self, data):
        """What a server over the folder `data` is told by variables."""
        if self.name == "local":
            return {}
        self.start()
        key = os.path.realpath(data)
        if key not in self.places:
            self.places[key] = self._place()
        return self.places[key]

    def _place(self):
        place = {}
        if self.postgres is not None:
            place["HOLDFAST_METADATA"] = self.postgres.url(self.postgres.create_database())
        if self.store is not None:
            place.update({
                "HOLDFAST_BLOBS": f"s3://{self.bucket}/{secrets.token_hex(6)}",
                "HOLDFAST_S3_ENDPOINT": self.store.endpoint,
                "HOLDFAST_S3_ACCESS_KEY": self.store.access_key,
                "HOLDFAST_S3_SECRET_KEY": self.store.secret_key,
                "HOLDFAST_S3_PART_SIZE": "5MiB",  # the least: more of them, and more borders
                "HOLDFAST_CLUSTER_LEASE": "5s",
                "HOLDFAST_REDIRECT_ENABLED": "true" if self.name == "cluster" else "false"})
        return place

    # ---- What servers keep there ----

    def _objects(self, data):
        prefix = self.settings(data)["HOLDFAST_BLOBS"].removeprefix(f"s3://{self.bucket}/") + "/"
        return (self.store.list(self.bucket, prefix), self.store.uploads(self.bucket, prefix))

    def blobs(self, data):
        """The contents of all committed blobs of an idle server without unfinished uploads."""
        if self.has("files"):
            return [path.read_bytes() for path in (data / "blobs").rglob("*") if path.is_file()]
        return [self.store.get(self.bucket, key) for key in self._objects(data)[0]]

    def staged(self, data, blobs=0):
        """How many things hold bytes of unfinished uploads, beside that many committed blobs: an
        object store has no other name for these."""
        if self.has("files"):
            return sum(path.is_file() for path in (data / "uploads").rglob("*"))
        objects, uploads = self._objects(data)
        return len(objects) - blobs + len(uploads)

    def pass_time(self, server, seconds):
        """As if a server, which is stopped, had been left alone for so long."""
        server.env["HOLDFAST_TEST_CLOCK_SHIFT"] = seconds
        if self.postgres is not None:  # jobs are due by its clock
            self.postgres.psql(f"UPDATE job SET due_at = due_at - {seconds * 1_000_000}",
                               self.settings(server.data)["HOLDFAST_METADATA"].rpartition("/")[2])

    def forget(self, data):
        """The server over that folder will not be started again."""
        place = self.places.pop(os.path.realpath(data), {})
        if "HOLDFAST_METADATA" in place:
            self.postgres.drop_database(place["HOLDFAST_METADATA"].rpartition("/")[2])
