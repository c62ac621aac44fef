"""What the user of the database must be allowed, as docs/operations.md says it."""

import re
import secrets
from pathlib import Path

import pytest

from backends import Backend
from holdfast import (Client, make_image, metrics, pull_image, push_blob, push_image, run,
                      start_upload)
from services import ServiceMissing

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/operations.md"
PASSWORD = secrets.token_hex(8)

pytestmark = pytest.mark.needs("sqlite", "files")  # once: it brings its own PostgreSQL


@pytest.fixture(scope="module")
def postgres():
    backend = Backend("postgres")
    try:
        backend.start()
    except ServiceMissing as missing:
        pytest.skip(f"NOT RUN: {missing}")
    yield backend.postgres
    backend.stop()


class Database:
    """One whose owner is another user than the one who serves."""

    def __init__(self, postgres):
        self.postgres = postgres
        self.name = f"rights_{secrets.token_hex(4)}"
        self.roles = {role: f"{role}_{secrets.token_hex(4)}" for role in ("owner", "server")}
        for role in self.roles.values():
            postgres.psql(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        postgres.psql(f"CREATE DATABASE {self.name} OWNER {self.roles['owner']}")

    def psql(self, sql):
        return self.postgres.psql(sql, self.name)

    def url(self, role):
        return (f"postgres://{self.roles[role]}:{PASSWORD}@127.0.0.1:{self.postgres.port}/"
                f"{self.name}")

    def grant(self):
        """What the document says, in the names of here."""
        text = DOCUMENT.read_text()
        block = re.search(r"((?:    (?:GRANT|ALTER DEFAULT)[^\n]*\n(?:     [^\n]*\n)*)+)", text)[1]
        for name, role in (("holdfast_owner", "owner"), ("holdfast_server", "server")):
            assert name in block
            block = block.replace(name, self.roles[role])
        self.psql(block)


@pytest.fixture
def database(postgres):
    return Database(postgres)


def upgrade(database, data):
    result = run("upgrade", "--metadata", database.url("owner"), "--data", data)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "the database is up to date\n"


def test_who_serves_need_not_own_the_tables(database, make_server, tmp_path):
    database.grant()
    upgrade(database, tmp_path / "data")
    server = make_server(data=tmp_path / "data", env={"HOLDFAST_METADATA": database.url("server")})
    with Client(server) as client:
        image = make_image(2)
        push_image(client, "app", image, "v1")
        assert pull_image(client, "app", "v1").body == image.body
        upload = start_upload(client, "app")
        answer = client.patch(upload, b"abc")
        assert answer.status == 202
        assert client.delete(answer.headers["Location"]).status == 204
        blob = push_blob(client, "app", b"deleted")
        assert client.delete(f"/v2/app/blobs/{blob}").status == 202
        assert client.delete(f"/v2/app/manifests/{image.digest}").status == 202
        assert client.get("/readyz").status == 200
        metrics(client)
    assert server.stop() == 0
    assert "42501" not in server.log_text()
    result = run("fsck", "--repair", env={"HOLDFAST_METADATA": database.url("server")}, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    with pytest.raises(Exception, match="permission denied"):
        database.psql(f"SET ROLE {database.roles['server']}; CREATE TABLE mine (x INTEGER)")


def test_tables_that_cannot_be_changed_are_told(database, make_server, tmp_path):
    """There are none yet, and then older ones: the newest migration was not there."""
    database.grant()
    server = make_server(data=tmp_path / "data", start=False,
                         env={"HOLDFAST_METADATA": database.url("server")})
    code, said = server.start_fails()
    assert code == 1 and "holdfast upgrade" in said, said
    upgrade(database, tmp_path / "data")
    upgrade(database, tmp_path / "data")  # changes nothing
    server.start()
    assert server.stop() == 0
    database.psql("DROP TABLE job; DELETE FROM schema_version WHERE version = 3")
    code, said = server.start_fails()
    assert code == 1 and "holdfast upgrade" in said, said
    assert database.psql("SELECT max(version) FROM schema_version") == "2"
    upgrade(database, tmp_path / "data")
    server.start()


def test_newer_tables_are_told_also_to_who_may_not_change_them(database, make_server, tmp_path):
    database.grant()
    upgrade(database, tmp_path / "data")
    database.psql("INSERT INTO schema_version VALUES (9999, 0)")
    server = make_server(data=tmp_path / "data", start=False,
                         env={"HOLDFAST_METADATA": database.url("server")})
    code, said = server.start_fails()
    assert code == 1 and "9999" in said and "newer" in said, said


def test_a_copy_stays_a_copy(database, tmp_path):
    upgrade(database, tmp_path / "data")
    database.psql("UPDATE identity SET origin = repeat('a', 32)")
    upgrade(database, tmp_path / "data")
    assert database.psql("SELECT origin FROM identity") == "a" * 32
