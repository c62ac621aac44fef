"""holdfast backup and restore: snapshots that are taken beside a busy server, restored to a point
in time, and compared over HTTP with what was true then."""

import copy
import datetime
import fcntl
import random
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest

import holdfast
from backends import Backend
from holdfast import (Client, Server, clean_environment, fill, make_image, pull_image, push_image,
                      run, tags, wait_until)
from services import ServiceMissing
from test_migrate import Model, catalog

MIB = 1 << 20
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


class Keeper:
    """A registry, its backup, and the folder into which that is restored."""

    def __init__(self, tmp_path, make_server):
        self.data, self.backup, self.restored = (tmp_path / name
                                                 for name in ("data", "backup", "restored"))
        self.make_server = make_server
        self.model = Model()
        self.snapshots = []  # time, the model as it was

    def serve(self, data=None, *args):
        return self.make_server(*args, data=data or self.data)

    def run_backup(self, *more, **how):
        return run("backup", "--to", self.backup, "--data", self.data, *more, **how)

    def take(self, *more):
        """A snapshot, noted with how the registry is now."""
        result = self.run_backup(*more)
        assert result.returncode == 0, result
        when = re.search(rf"^snapshot ({TIME})$", result.stdout, re.M).group(1)
        self.snapshots.append((when, copy.deepcopy(self.model)))
        return result

    def about(self, *arguments):
        return run("backup", "--to", self.backup, *arguments)

    def restore(self, *more, **how):
        return run("restore", "--from", self.backup, "--data", self.restored, *more, **how)

    def check_restored(self, when, model, *more):
        result = self.restore("--at", when, *more)
        assert result.returncode == 0, result
        assert f"restored the snapshot {when}\n" in result.stdout
        with self.serve(self.restored, "--read-only") as server:
            model.check(server)
            assert server.stop() == 0


@pytest.fixture
def keeper(tmp_path, make_server):
    return Keeper(tmp_path, make_server)


@pytest.fixture
def lived(keeper):
    """Three snapshots of a registry that changes, taken while it is served."""
    model = keeper.model
    with keeper.serve() as server, Client(server) as client:
        model.fill(client)
        keeper.take()
        model.push(client, "team/app", make_image(2), "v0")
        model.push(client, "later", make_image(), "v1")
        model.delete_tag(client, "team/app", "v1")
        keeper.take()
        model.delete(client, "docker", model.repository("docker")["tags"]["latest"])
        model.push(client, "team/app", make_image(3), "v0")
        keeper.take()
        assert server.stop() == 0
    return keeper


# ---- Into it and out of it ----


def test_every_snapshot_is_restored_as_it_was(lived):
    for when, model in lived.snapshots:
        lived.check_restored(when, model)
    for when, model in reversed(lived.snapshots):
        lived.check_restored(when, model)
    assert run("fsck", "--deep", "--data", lived.restored).returncode == 0


def test_a_time_between_two_snapshots_means_the_older_one(lived):
    (older, _), (newer, _), _ = lived.snapshots
    form = "%Y-%m-%dT%H:%M:%S.%fZ"
    just_before = datetime.datetime.strptime(newer, form) - datetime.timedelta(microseconds=1)
    result = lived.restore("--at", just_before.strftime(form))
    assert result.returncode == 0, result
    assert f"restored the snapshot {older}\n" in result.stdout


def test_the_newest_snapshot_is_restored_without_a_time(lived):
    result = lived.restore()
    assert result.returncode == 0, result
    assert f"restored the snapshot {lived.snapshots[-1][0]}\n" in result.stdout
    with lived.serve(lived.restored) as server:
        lived.model.check(server)
        with Client(server) as client:  # it is a registry like any other
            lived.model.push(client, "team/app", make_image(), "v9")
        lived.model.check(server)


def test_snapshots_are_listed(lived):
    lines = lived.about("--list").stdout.splitlines()
    assert lines[0].split() == ["TIME", "REPOSITORIES", "MANIFESTS", "TAGS", "BLOBS", "BYTES"]
    assert len(lines) == 4
    for line, (when, model) in zip(lines[1:], lived.snapshots):
        every = model.repositories.values()
        assert line.split()[:4] == [
            when, str(len(every)), str(sum(len(r["manifests"]) for r in every)),
            str(sum(len(r["tags"]) for r in every))]


def test_a_second_snapshot_costs_what_changed(lived):
    result = lived.run_backup()
    assert re.match(r"0 blobs \(0\.0 MiB\), 0 manifests and 0 tags copied, \d+ blobs were there, "
                    r"0 entries removed; 6 repositories, 0 troubles\n", result.stdout), result


def test_verify_is_content_with_a_sound_backup(lived):
    result = lived.about("--verify")
    assert (result.returncode, result.stdout) == (0, "verified: 0 differences\n"), result


def push_all_the_time(server, number, stop, acknowledged):
    source = random.Random(number)
    with Client(server) as client:
        for i in range(100000):
            if stop.is_set():
                return
            image = make_image(2, source.randrange(1, 30000))
            push_image(client, f"load{number}", image, f"v{i}")
            if i % 5 == 4:
                client.delete(f"/v2/load{number}/manifests/{image.digest}")
            else:
                acknowledged[number].append((f"v{i}", image))


def test_a_snapshot_under_load_has_all_that_was_acknowledged(keeper):
    """And what it has, it has whole."""
    server = keeper.serve()
    stop, acknowledged = threading.Event(), {number: [] for number in range(3)}
    threads = [threading.Thread(target=push_all_the_time, args=(server, n, stop, acknowledged))
               for n in acknowledged]
    for thread in threads:
        thread.start()
    taken = []
    try:
        for _ in range(3):
            time.sleep(0.4)
            before = {number: list(images) for number, images in acknowledged.items()}
            result = keeper.run_backup()
            assert result.returncode == 0, result
            taken.append((re.search(TIME, result.stdout).group(), before))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert server.stop() == 0
    assert keeper.about("--verify").returncode == 0
    for when, before in taken:
        assert keeper.restore("--at", when).returncode == 0
        with keeper.serve(keeper.restored, "--read-only") as restored, Client(restored) as client:
            for number, images in before.items():
                found = tags(client, f"load{number}") if images else []
                assert {tag for tag, _ in images} <= set(found)
                for tag in found:
                    pull_image(client, f"load{number}", tag)
                for tag, image in images:
                    assert pull_image(client, f"load{number}", tag).body == image.body
            assert restored.stop() == 0


def test_a_registry_goes_back_in_time(lived):
    when, model = lived.snapshots[0]
    arguments = ["restore", "--from", lived.backup, "--data", lived.data, "--at", when]
    with lived.serve():
        result = run(*arguments, "--overwrite")
        assert result.returncode == 1
        assert re.search("in use|another", result.stderr), result
    result = run(*arguments)
    assert result.returncode == 1
    assert result.stderr == ("holdfast: the target holds repositories of its own, which would be "
                             "lost: restore into an empty registry, or give --overwrite\n")
    with lived.serve() as server:
        lived.model.check(server)
        assert server.stop() == 0
    assert run(*arguments, "--overwrite").returncode == 0
    with lived.serve() as server:
        model.check(server)
        assert server.stop() == 0
    lived.model = model
    lived.take()  # its backup goes on
    for when, model in lived.snapshots:
        lived.check_restored(when, model)


@pytest.mark.needs("sqlite", "files")
def test_a_cluster_is_backed_up_and_restored_elsewhere(tmp_path, make_server):
    """PostgreSQL and S3 into a folder; out of it to one machine, and to another cluster. Without
    bytes, over the bucket that has them, into a database that has lost everything."""
    backend = Backend("cluster")
    try:
        settings = backend.settings(tmp_path / "nodes")
    except ServiceMissing as missing:
        pytest.skip(f"NOT RUN: {missing}")
    try:
        model = Model()
        with make_server(data=tmp_path / "nodes", env=settings) as server, \
                Client(server) as client:
            model.fill(client)
            for arguments in (["--to", tmp_path / "full"],
                              ["--to", tmp_path / "rows", "--metadata-only"]):
                result = run("backup", *arguments, env=settings, timeout=120)
                assert result.returncode == 0, result
            assert server.stop() == 0
        assert not any(path.is_file() for path in (tmp_path / "rows" / "blobs").rglob("*"))
        assert "(not stored)" in run("backup", "--to", tmp_path / "rows", "--list").stdout
        fresh = backend.settings(tmp_path / "fresh")
        same_bucket = {**fresh, "HOLDFAST_BLOBS": settings["HOLDFAST_BLOBS"]}
        for data, backup, target in [("one", "full", {}),
                                     ("other", "full", backend.settings(tmp_path / "other")),
                                     ("fresh", "rows", same_bucket)]:
            result = run("restore", "--from", tmp_path / backup, timeout=120,
                         env={**target, "HOLDFAST_DATA": tmp_path / data})
            assert result.returncode == 0, (data, result)
            with make_server(data=tmp_path / data, env=target) as server:
                model.check(server)
                assert server.stop() == 0
    finally:
        backend.stop()


# ---- Keeping ----


def test_old_snapshots_are_forgotten(lived):
    when, _ = lived.snapshots[2]
    result = lived.about("--prune", when)
    assert result.returncode == 0, result
    assert re.match(r"2 snapshots forgotten, 0 bytes freed\n", result.stdout), result
    assert len(lived.about("--list").stdout.splitlines()) == 2
    assert lived.about("--verify").returncode == 0
    lived.check_restored(*lived.snapshots[2])
    result = lived.restore("--at", lived.snapshots[1][0])
    assert result.returncode == 1
    assert "no snapshot of that time or before" in result.stderr
    result = lived.about("--prune", "0m")
    assert (result.returncode, result.stdout[:1]) == (0, "0")  # the last one stays


def test_damage_is_found(lived):
    files = sorted(path for path in (lived.backup / "blobs").rglob("*")
                   if path.is_file() and path.stat().st_size > 0)
    files[0].unlink()
    files[1].chmod(0o600)
    files[1].write_bytes(b"x" * files[1].stat().st_size)
    result = lived.about("--verify")
    assert (result.returncode, result.stdout) == (1, "verified: 2 differences\n")
    assert re.search(rf"^trouble: blob sha(256|512):{files[0].name}: ", result.stderr, re.M)
    assert re.search(rf"^trouble: blob sha(256|512):{files[1].name}: its bytes are not what its "
                     "digest says$", result.stderr, re.M)
    result = lived.restore()  # the rest
    assert result.returncode == 1
    assert "restored the snapshot" in result.stdout
    assert result.stderr.count("trouble: blob ") >= 2
    files[1].unlink()
    lived.take()  # what is lost comes again
    assert lived.about("--verify").returncode == 0
    lived.check_restored(*lived.snapshots[-1])


@pytest.mark.needs("files")
def test_blobs_that_the_registry_lost_are_restored(lived):
    files = [path for path in (lived.data / "blobs").rglob("*") if path.is_file()]
    for path in files[::3]:
        path.unlink()
    assert run("fsck", "--data", lived.data).returncode == 1
    run("fsck", "--repair", "--data", lived.data)
    result = run("restore", "--from", lived.backup, "--data", lived.data, "--overwrite")
    assert result.returncode == 0, result
    assert run("fsck", "--deep", "--data", lived.data).returncode == 0
    with lived.serve() as server:
        lived.model.check(server)
        assert server.stop() == 0


# ---- Broken off ----


@pytest.mark.hooks
@pytest.mark.parametrize("point", ["transfer.snapshot_begun", "transfer.applied",
                                   "transfer.blob_stored:4", "transfer.blob_adopted:9",
                                   "transfer.snapshot_whole"])
def test_a_killed_backup_is_gone_on_with(keeper, point):
    with keeper.serve() as server, Client(server) as client:
        keeper.model.fill(client)
        result = keeper.run_backup(env={"HOLDFAST_TEST_CRASH": point})
        assert result.returncode == -signal.SIGKILL
        assert keeper.about("--list").stdout == "there is no whole snapshot yet\n"
        assert "no snapshot" in keeper.restore().stderr
        keeper.model.push(client, "meanwhile", make_image(), "v1")
        keeper.model.delete_tag(client, "team/app", "v0")
        keeper.take()
        assert server.stop() == 0
    assert keeper.about("--verify").returncode == 0
    assert not any((keeper.backup / "uploads").iterdir())
    keeper.check_restored(*keeper.snapshots[0])


@pytest.mark.hooks
@pytest.mark.parametrize("point", ["transfer.claimed", "transfer.blob_stored:4",
                                   "transfer.blob_adopted:9", "transfer.applied"])
def test_a_killed_restore_is_gone_on_with(lived, point):
    result = lived.restore(env={"HOLDFAST_TEST_CRASH": point})
    assert result.returncode == -signal.SIGKILL
    lived.check_restored(*lived.snapshots[-1])


@pytest.mark.hooks
@pytest.mark.parametrize("point", ["transfer.forgotten", "transfer.unstored", "transfer.deleted"])
def test_a_killed_prune_is_gone_on_with(keeper, point):
    with keeper.serve() as server, Client(server) as client:
        image = make_image(2)
        keeper.model.push(client, "app", image, "v1")
        keeper.take()
        keeper.model.delete(client, "app", image.digest)
        for blob in image.blobs:
            digest = holdfast.digest_of(blob)
            assert client.delete(f"/v2/app/blobs/{digest}").status == 202
            del keeper.model.repository("app")["blobs"][digest]
        keeper.model.push(client, "app", make_image(), "v2")
        keeper.take()
        assert server.stop() == 0
    result = run("backup", "--to", keeper.backup, "--prune", "0m",
                 env={"HOLDFAST_TEST_CRASH": point})
    assert result.returncode == -signal.SIGKILL
    assert keeper.about("--verify").returncode == 0
    assert keeper.about("--prune", "0m").returncode == 0
    assert keeper.about("--verify").returncode == 0
    assert sum(path.is_file() for path in (keeper.backup / "blobs").rglob("*")) == 2
    keeper.check_restored(*keeper.snapshots[-1])


def test_runs_that_are_killed_at_any_moment_come_to_the_end(keeper):
    source = random.Random(3)
    environment = clean_environment(Server.backend(keeper.data))
    with keeper.serve() as server, Client(server) as client:
        keeper.model.fill(client)
        for i in range(8):
            process = subprocess.Popen(
                [holdfast.BINARY, "backup", "--to", keeper.backup, "--data", keeper.data],
                env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            keeper.model.push(client, "meanwhile", make_image(), f"v{i}")
            time.sleep(source.random() * 0.4)
            process.kill()
            process.wait()
        keeper.take()
        assert server.stop() == 0
    assert keeper.about("--verify").returncode == 0
    for _ in range(6):
        process = subprocess.Popen(
            [holdfast.BINARY, "restore", "--from", keeper.backup, "--data", keeper.restored],
            env=clean_environment(Server.backend(keeper.restored)), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        time.sleep(source.random() * 0.4)
        process.kill()
        process.wait()
    keeper.check_restored(*keeper.snapshots[0])


def test_sigterm_ends_it_in_order(keeper):
    with keeper.serve() as server, Client(server) as client:
        for i in range(60):
            keeper.model.push(client, "many", make_image(3, 200000), f"v{i}")
        process = subprocess.Popen(
            [holdfast.BINARY, "backup", "--to", keeper.backup, "--data", keeper.data, "--threads",
             "1"], env=clean_environment(Server.backend(keeper.data)), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)
        wait_until(lambda: process.poll() is not None or any(keeper.backup.glob("blobs/*/*/*")))
        process.terminate()
        out, err = process.communicate(timeout=60)
        if process.returncode != 0:
            assert process.returncode == 1, (out, err)
            assert err.endswith("holdfast: it was stopped; run it again to go on\n")
        keeper.take()
        assert server.stop() == 0
    keeper.check_restored(*keeper.snapshots[0])


def test_a_full_backup_disk_is_told_and_gone_on_with(keeper, small_disk):
    disk = small_disk(32 * MIB)
    keeper.backup = disk / "backup"
    with keeper.serve() as server, Client(server) as client:
        keeper.model.fill(client)
        filler = fill(disk, leave=5 * MIB)
        result = keeper.run_backup()
        assert result.returncode == 1
        assert re.search(r"^holdfast: .*space", result.stderr, re.M), result.stderr
        filler.unlink()
        keeper.take()
        assert server.stop() == 0
    assert keeper.about("--verify").returncode == 0
    keeper.check_restored(*keeper.snapshots[0])


# ---- What it refuses ----


def test_two_runs_do_not_write_one_backup(lived):
    with open(lived.backup / "lock", "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for result in (lived.run_backup(), lived.about("--prune", "1d")):
            assert result.returncode == 1
            assert "is in use by another holdfast process" in result.stderr
        assert lived.about("--verify").returncode == 0
        assert lived.restore().returncode == 0


def test_a_backup_is_of_one_registry(lived):
    with lived.serve(lived.restored) as server:
        assert server.stop() == 0
    result = run("backup", "--to", lived.backup, "--data", lived.restored)
    assert result.returncode == 1
    assert "is the backup of another registry; choose another folder" in result.stderr


def test_a_folder_that_is_no_backup_is_left_alone(lived, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    result = run("backup", "--to", other, "--data", lived.data)
    assert result.returncode == 1
    assert "is not a backup, it holds \"letter.txt\"" in result.stderr
    for arguments in (["backup", "--list", "--to"], ["backup", "--verify", "--to"],
                      ["backup", "--prune", "1d", "--to"],
                      ["restore", "--data", lived.restored, "--from"]):
        result = run(*arguments, other)
        assert (result.returncode, result.stdout) == (1, ""), result
        assert result.stderr == f'holdfast: there is no backup in "{other}"\n'
    assert [path.name for path in other.iterdir()] == ["letter.txt"]
    assert not lived.restored.exists()


@pytest.mark.needs("sqlite")
def test_a_registry_that_is_not_there_is_not_made(keeper):
    result = keeper.run_backup()
    assert result.returncode == 1
    assert "there is no registry in the data folder" in result.stderr
    assert not keeper.data.exists() and not keeper.backup.exists()


@pytest.mark.needs("sqlite", "files")
def test_a_backup_of_a_stopped_registry_leaves_no_trace(lived):
    def state():
        return sorted((path.name, path.stat().st_mtime_ns) for path in lived.data.rglob("*")
                      if path.is_file())
    before = state()
    lived.take()
    assert state() == before


def test_an_empty_registry_is_backed_up(keeper):
    with keeper.serve() as server:
        keeper.take()
        assert server.stop() == 0
    result = keeper.restore()
    assert result.returncode == 0, result
    with keeper.serve(keeper.restored) as server, Client(server) as client:
        assert catalog(client) == []


def test_a_backup_may_be_copied_elsewhere(lived, tmp_path):
    shutil.copytree(lived.backup, tmp_path / "copied")
    lived.backup = tmp_path / "copied"
    assert lived.about("--verify").returncode == 0
    lived.check_restored(*lived.snapshots[0])


@pytest.mark.parametrize("arguments, expected", [
    (["backup"], "--to FOLDER is missing"),
    (["backup", "--to"], "--to needs a value"),
    (["backup", "--to", "b", "--list", "--verify"], "exclude each other"),
    (["backup", "--to", "b", "--prune", "1d", "--list"], "exclude each other"),
    (["backup", "--to", "b", "--metadata-only", "--verify"], "exclude each other"),
    (["backup", "--to", "b", "--list", "--data", "x"], "take no settings"),
    (["backup", "--to", "b", "--prune", "soon"], '"soon" is no time'),
    (["backup", "--to", "b", "--prune", "2026-01-01T00:00:00.Z"], "is no time"),
    (["backup", "--to", "b", "--prune", "2026-01-01T00:00:00.1234567Z"], "is no time"),
    (["backup", "--to", "b", "--bogus"], "--bogus"),
    (["backup", "--to", "b", "--threads", "-1"], "is not a number"),
    (["restore"], "--from FOLDER is missing"),
    (["restore", "--from", "b", "--at", "2026-13-01"], '"2026-13-01" is no time'),
    (["restore", "--from", "b", "--at"], "--at needs a value"),
    (["restore", "--from", "b", "--overwrite=yes"], "--overwrite takes no value"),
    (["restore", "--from", "b", "--bogus", "x"], "--bogus"),
])
def test_wrong_flags(tmp_path, arguments, expected):
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 2, result
    assert expected in result.stderr
    assert list(tmp_path.iterdir()) == []
