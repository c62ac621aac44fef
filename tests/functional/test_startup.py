"""Data folders that cannot be used: the server says what is wrong and what to do, and ends."""

import os
import shutil
import sqlite3
import subprocess

import pytest

import holdfast
from holdfast import Client, make_image, push_image, run


def find_database(data):
    """The SQLite file in a data folder."""
    for path in data.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                if file.read(16) == b"SQLite format 3\0":
                    return path
    raise AssertionError("no database was made")


@pytest.fixture
def used(make_server):
    """A server that was stopped after some pushes, and its database."""
    server = make_server()
    with Client(server) as client:
        for i in range(20):
            push_image(client, "app", make_image(), f"v{i}")
    assert server.stop() == 0
    return server, find_database(server.data)


@pytest.mark.needs("folder")
def test_a_second_server_on_the_folder_is_refused_by_name(server):
    result = run("serve", "--data", server.data, "--listen", "127.0.0.1:0")
    assert result.returncode == 1
    assert str(server.data) in result.stderr


@pytest.mark.needs("folder")
def test_a_second_server_does_no_harm_to_the_first(server, client, repo):
    push_image(client, repo, make_image(), "v1")
    run("serve", "--data", server.data, "--listen", "127.0.0.1:0")
    push_image(client, repo, make_image(), "v2")


def test_the_lock_goes_with_the_process(make_server):
    server = make_server()
    server.kill()
    server.start()


@pytest.mark.needs("sqlite")
def test_a_database_that_another_process_locked_is_an_error_that_says_so(used):
    server, database = used
    with sqlite3.connect(database, isolation_level=None) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("CREATE TABLE other (x)")
        code, said = server.start_fails(40)
        other.execute("ROLLBACK")
    other.close()
    assert code == 1
    assert database.name in said and "lock" in said
    server.start()


def spoil_with_text(path):
    path.write_text("this is not a database\n" * 1000)


def spoil_by_cutting(path):
    os.truncate(path, path.stat().st_size // 2 + 100)


def spoil_header(path):
    with open(path, "r+b") as file:
        file.write(os.urandom(4096))


def spoil_schema(path):
    with open(path, "r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)


@pytest.mark.needs("sqlite")
@pytest.mark.parametrize("spoil", [spoil_with_text, spoil_by_cutting, spoil_header, spoil_schema])
def test_a_broken_database_is_an_error_that_names_it(used, spoil):
    server, database = used
    spoil(database)
    before = database.read_bytes()
    code, said = server.start_fails()
    assert code == 1
    assert database.name in said
    assert database.read_bytes() == before, "a broken database must be left as evidence"


@pytest.mark.needs("sqlite")
def test_an_empty_database_is_a_new_registry(make_server):
    # A crash during the very first start may leave it.
    server = make_server(start=False)
    server.start()
    database = find_database(server.data)
    server.stop()
    for path in database.parent.glob(database.name + "*"):
        path.write_bytes(b"")
    server.start()
    with Client(server) as client:
        push_image(client, "app", make_image(), "v1")


@pytest.mark.needs("sqlite")
def test_a_database_of_a_newer_version_is_refused(used):
    server, database = used
    with sqlite3.connect(database) as other:
        columns = [row[1] for row in other.execute("PRAGMA table_info(schema_version)")]
        assert columns, "there is no table schema_version"
        other.execute("INSERT INTO schema_version VALUES (9999, 0)")
    other.close()
    code, said = server.start_fails()
    assert code == 1
    assert "9999" in said and "newer" in said


@pytest.mark.needs("folder")
@pytest.mark.parametrize("make", ["file", "below a file"])
def test_a_folder_that_cannot_be_one_is_an_error_that_names_it(tmp_path, make):
    (tmp_path / "file").write_text("x")
    data = tmp_path / "file" if make == "file" else tmp_path / "file" / "data"
    result = run("serve", "--data", data, "--listen", "127.0.0.1:0")
    assert result.returncode == 1
    assert str(data) in result.stderr


@pytest.mark.needs("sqlite")
def test_a_read_only_folder_is_an_error_that_names_it(used, small_disk):
    server, _ = used
    disk = small_disk(64 << 20)
    shutil.copytree(server.data, disk / "data")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    server.data = disk / "data"
    code, said = server.start_fails()
    assert code == 1
    assert str(disk / "data") in said
    assert "read-only" in said.lower()


@pytest.mark.needs("folder")
def test_a_folder_without_permission_is_an_error_that_names_it(tmp_path):
    data = tmp_path / "closed"
    data.mkdir(mode=0o500)
    command = [holdfast.BINARY, "serve", "--data", str(data), "--listen", "127.0.0.1:0"]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may do everything, and setpriv is not there")
        for folder in [tmp_path, *tmp_path.parents][:4]:
            folder.chmod(folder.stat().st_mode | 0o055)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
        probe = subprocess.run([*command[:4], "test", "-x", holdfast.BINARY])
        if probe.returncode != 0:
            pytest.skip("another user cannot reach the binary")
    result = subprocess.run(command, capture_output=True, text=True, timeout=30,
                            env=holdfast.clean_environment())
    assert result.returncode == 1
    assert "closed" in result.stderr and "ermission" in result.stderr


@pytest.mark.needs("sqlite")
def test_a_full_disk_at_the_start_is_an_error_that_says_so(make_server, small_disk):
    disk = small_disk(1 << 20)
    (disk / "filler").write_bytes(b"x" * ((1 << 20) - 8192))
    server = make_server(start=False, data=disk / "data")
    code, said = server.start_fails()
    assert code == 1
    assert "full" in said or "space" in said
