"""PostgreSQL under the statements of pushes and pulls, by pgbench: how much of them it does alone,
and what telling all nodes adds. The tables are those that a node has made."""

import contextlib
import os
import re
import subprocess

from nodes import processor_seconds, services

HEADS = ("", "connections", "in a second", "commits in a second", "ms for one", "processor, ms")
SECONDS = 5

TAG_LOOKUP = """\
SELECT m.id, m.digest, m.media_type, m.size, m.content FROM repository r
  LEFT JOIN tag t ON t.repository_id = r.id AND t.name = 'v1'
  LEFT JOIN manifest m ON m.id = t.manifest_id WHERE r.name = 'load/app';
"""
# A blob, as POST, PATCH, PUT brings it: five transactions in six round trips, of which two do not
# wait for the disk. `n` is one that nobody had before.
BLOB = """\
\\set n random(1, 1000000000000000)
\\startpipeline
BEGIN;
INSERT INTO upload (id, repository_id, received, hash_state, started_at, touched_at)
  SELECT 'u' || :n, id, 0, decode(repeat('00', 120), 'hex'), 1, 1
  FROM repository WHERE name = 'load/app';
COMMIT;
\\endpipeline
\\startpipeline
BEGIN;
UPDATE upload SET hold = 'h', held_until = 9 WHERE id = 'u' || :n AND (held_until < 8 OR hold = 'h')
  AND repository_id = (SELECT id FROM repository WHERE name = 'load/app')
  RETURNING repository_id, received, hash_state, stage;
SET LOCAL synchronous_commit = off;
COMMIT;
\\endpipeline
\\startpipeline
BEGIN;
UPDATE upload SET received = 9, hash_state = decode(repeat('01', 120), 'hex'), stage = 's',
  touched_at = 2, hold = '', held_until = 0 WHERE id = 'u' || :n AND hold = 'h';
COMMIT;
\\endpipeline
\\startpipeline
BEGIN;
UPDATE upload SET hold = 'h', held_until = 9 WHERE id = 'u' || :n AND (held_until < 8 OR hold = 'h')
  AND repository_id = (SELECT id FROM repository WHERE name = 'load/app')
  RETURNING repository_id, received, hash_state, stage;
SET LOCAL synchronous_commit = off;
COMMIT;
\\endpipeline
\\startpipeline
BEGIN;
DELETE FROM upload WHERE id = 'u' || :n AND hold = 'h';
\\endpipeline
\\startpipeline
INSERT INTO blob (digest, size, created_at, location) VALUES ('sha256:' || :n, 9, 1, 'l' || :n)
  ON CONFLICT (digest) DO UPDATE SET size = excluded.size RETURNING id, size, location;
INSERT INTO repository_blob (repository_id, blob_id, linked_at)
  SELECT 1, id, 1 FROM blob WHERE digest = 'sha256:' || :n ON CONFLICT DO NOTHING;
SELECT id, size, location FROM blob WHERE digest = 'sha256:' || :n;
COMMIT;
\\endpipeline
"""
# A transaction that tells all nodes, as a delete does; and the same one that does not.
QUIET = """\
\\set n random(1, 1000)
BEGIN;
UPDATE tag SET updated_at = :n WHERE repository_id = 1 AND name = 'w' || :n;
COMMIT;
"""
TELLING = QUIET.replace("COMMIT", "SELECT pg_notify('holdfast', 'load/app@sha256:' || :n);\nCOMMIT")

FILL = """
INSERT INTO repository (id, name, created_at) OVERRIDING SYSTEM VALUE VALUES (1, 'load/app', 1)
  ON CONFLICT DO NOTHING;
INSERT INTO manifest (id, repository_id, digest, media_type, artifact_type, annotations, pushed_at,
  size, content) OVERRIDING SYSTEM VALUE
  VALUES (1, 1, 'sha256:00', 'm', '', '', 1, 1300, decode(repeat('00', 1300), 'hex'))
  ON CONFLICT DO NOTHING;
INSERT INTO tag SELECT 1, 'w' || n, 1, 1 FROM generate_series(1, 1000) n ON CONFLICT DO NOTHING;
INSERT INTO tag VALUES (1, 'v1', 1, 1) ON CONFLICT DO NOTHING;
"""


class Load:
    def __init__(self, postgres, database):
        self.postgres = postgres
        self.database = database
        self.bin = services.Postgres.programs()
        self.environment = {**os.environ, "PGPASSWORD": postgres.password}

    def place(self):
        return ["-h", "127.0.0.1", "-p", str(self.postgres.port), "-U", "postgres"]

    def run(self, name, script, connections, commits):
        """commits: in one run of the script."""
        before = processor_seconds(self.postgres.server.family())
        done = subprocess.run(
            [self.bin / "pgbench", "-n", "-M", "prepared", "-f", "-", "-c", str(connections)]
            + ["-j", "1", "-T", str(SECONDS), *self.place(), self.database],
            input=script,
            capture_output=True,
            text=True,
            check=True,
            env=self.environment,
            timeout=SECONDS + 60,
        ).stdout
        used = processor_seconds(self.postgres.server.family()) - before
        rate = float(re.search(r"^tps = ([0-9.]+)", done, re.M)[1])
        n = int(re.search(r"transactions actually processed: (\d+)", done)[1])
        return (
            name,
            connections,
            f"{rate:,.0f}",
            f"{rate * commits:,.0f}",
            f"{connections * 1e3 / rate:.2f}",
            f"{used * 1e3 / n:.3f}",
        )

    @contextlib.contextmanager
    def listeners(self, n):
        """As so many nodes listen."""
        listening = [
            subprocess.Popen(
                [self.bin / "psql", "-XAtq", *self.place(), "-d", self.database],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
                env=self.environment,
            )
            for _ in range(n)
        ]
        try:
            for one in listening:
                one.stdin.write("LISTEN holdfast;\n")
                one.stdin.flush()
            services.wait_for(
                lambda: int(
                    self.postgres.psql(
                        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
                    )
                )
                >= n,
                "psql",
            )
            yield
        finally:
            for one in listening:
                one.stdin.close()
                one.wait()


def measure(postgres, database):
    load = Load(postgres, database)
    postgres.psql(FILL, database)
    for connections in (1, 16, 72):
        yield load.run("look-up of a tag", TAG_LOOKUP, connections, 0)
    for connections in (1, 16, 72):
        yield load.run("blob by POST, PATCH, PUT", BLOB, connections, 5)
    yield load.run("a change that nobody is told of", QUIET, 16, 1)
    for n in (1, 10, 100):
        with load.listeners(n):
            yield load.run(f"the same, told to {n} nodes", TELLING, 16, 1)
