"""holdfast migrate: the whole registry moves to another back end, while it is served; what arrives
is compared byte for byte over HTTP."""

import json
import os
import random
import re
import signal
import subprocess
import threading
import time

import pytest

import holdfast
from backends import Backend
from holdfast import (Client, Server, clean_environment, digest_of, fill, get_blob, get_manifest,
                      make_artifact, make_image, make_index, next_page, push_blob, push_image,
                      random_bytes, run, tags, wait_until)
from services import ServiceMissing

MIB = 1 << 20


class Model:
    """What a registry has to have, kept beside it."""

    def __init__(self):
        self.repositories = {}  # name: tags {tag: digest}, manifests {digest: Manifest}, blobs

    def repository(self, name):
        return self.repositories.setdefault(
            name, {"tags": {}, "manifests": {}, "blobs": {}, "gone": set()})

    def push(self, client, name, manifest, tag=None):
        push_image(client, name, manifest, tag)
        self.note(name, manifest, tag)

    def note(self, name, manifest, tag=None):
        repository = self.repository(name)
        for child in manifest.children:
            self.note(name, child)
        repository["blobs"].update({digest_of(blob): blob for blob in manifest.blobs})
        repository["manifests"][manifest.digest] = manifest
        repository["gone"].discard(manifest.digest)
        if tag is not None:
            repository["tags"][tag] = manifest.digest

    def push_blob(self, client, name, data, **how):
        digest = push_blob(client, name, data, **how)
        self.repository(name)["blobs"][digest] = data

    def delete_tag(self, client, name, tag):
        assert client.delete(f"/v2/{name}/manifests/{tag}").status == 202
        del self.repository(name)["tags"][tag]

    def delete(self, client, name, digest):
        assert client.delete(f"/v2/{name}/manifests/{digest}").status == 202
        repository = self.repository(name)
        del repository["manifests"][digest]
        repository["tags"] = {t: d for t, d in repository["tags"].items() if d != digest}
        repository["gone"].add(digest)

    def fill(self, client):
        """Some of everything."""
        for i in range(3):
            self.push(client, "team/app", make_image(3), f"v{i}")
        first = self.repository("team/app")["manifests"]
        subject = next(iter(first.values()))
        self.push(client, "team/app", make_artifact("application/x.signature",
                                                    subject.descriptor(), annotations={"a": "b"}))
        self.push(client, "team/app", make_index([make_image(), make_image(2)]), "index")
        self.push(client, "untagged", make_image())
        self.push(client, "docker", make_image(2, media_type=holdfast.DOCKER_MANIFEST), "latest")
        self.push_blob(client, "blobs/only", random_bytes(MIB), algorithm="sha512")
        self.push_blob(client, "blobs/only", b"")
        self.push_blob(client, "large", random_bytes(11 * MIB + 17))

    def check(self, server):
        """Everything is there, and nothing else."""
        with Client(server) as client:
            assert catalog(client) == sorted(self.repositories)
            for name, repository in self.repositories.items():
                self.check_repository(client, name, repository)

    def check_repository(self, client, name, repository):
        assert tags(client, name) == sorted(repository["tags"]), name
        for tag, digest in repository["tags"].items():
            assert get_manifest(client, name, tag).digest == digest, (name, tag)
        for digest, manifest in repository["manifests"].items():
            answer = get_manifest(client, name, digest)
            assert answer.body == manifest.body, (name, digest)
            assert answer.headers["Content-Type"] == manifest.media_type
            found = client.get(f"/v2/{name}/referrers/{digest}").json()["manifests"]
            assert [entry["digest"] for entry in found] == sorted(
                own for own, other in repository["manifests"].items()
                if other.content.get("subject", {}).get("digest") == digest)
        for digest in repository["gone"]:
            assert client.get(f"/v2/{name}/manifests/{digest}").status == 404
        for digest, data in repository["blobs"].items():
            assert get_blob(client, name, digest) == data, (name, digest)


def catalog(client):
    found, path = [], "/v2/_catalog"
    while path:
        answer = client.get(path)
        found += answer.json()["repositories"]
        path = next_page(answer)
    return found


def write_config(file, data, settings, **more):
    """The YAML of a registry over `data`, whose other settings are variables."""
    groups = {"": {"data": data}}
    for name, value in {**settings, **more}.items():
        key = name.removeprefix("HOLDFAST_").lower()
        group, _, rest = key.partition("_")
        in_group = group in ("s3", "redirect", "database", "cluster", "cache", "uploads")
        groups.setdefault(group if in_group else "", {})[rest if in_group else key] = value
    lines = []
    for group, entries in groups.items():
        lines += [f"{group}:"] if group else []
        lines += [f'{"  " if group else ""}{key}: {json.dumps(str(value))}'
                  for key, value in entries.items()]
    file.write_text("\n".join(lines) + "\n")
    return file


class Pair:
    """A registry and where it is to be, on the back end of this run."""

    def __init__(self, tmp_path, make_server):
        self.model = Model()
        self.folders = {"from": tmp_path / "from", "to": tmp_path / "to"}
        self.files = {name: write_config(tmp_path / f"{name}.yaml", folder,
                                         Server.backend(folder))
                      for name, folder in self.folders.items()}
        self.make_server = make_server

    def serve(self, name, *args):
        return self.make_server(*args, data=self.folders[name])

    def arguments(self, *more):
        return ["migrate", "--from", self.files["from"], "--to", self.files["to"], *more]

    def migrate(self, *more, **how):
        return run(*self.arguments(*more), **how)

    def popen(self, *more):
        return subprocess.Popen([holdfast.BINARY, *map(str, self.arguments(*more))],
                                env=clean_environment(), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)


@pytest.fixture
def pair(tmp_path, make_server):
    return Pair(tmp_path, make_server)


@pytest.fixture
def filled(pair):
    with pair.serve("from") as server, Client(server) as client:
        pair.model.fill(client)
        assert server.stop() == 0
    return pair


def assert_done(result):
    assert result.returncode == 0, (result.stdout, result.stderr)
    assert "0 troubles" in result.stdout


def counts(result):
    numbers = list(map(float, re.findall(r"[0-9.]+", result.stdout.partition("\n")[0])))
    return dict(zip(["blobs", "mib", "manifests", "tags", "present", "removed", "repositories",
                     "troubles"], numbers, strict=True))


# ---- Moving ----


def test_everything_is_there_afterwards(filled):
    result = filled.migrate("--verify")
    assert_done(result)
    assert "verified: 0 differences" in result.stdout
    assert counts(result)["repositories"] == 5
    assert run("fsck", "--deep", "--data", filled.folders["to"]).returncode == 0
    with filled.serve("to") as server:
        filled.model.check(server)


def test_a_second_run_copies_nothing(filled):
    assert_done(filled.migrate())
    result = filled.migrate()
    assert_done(result)
    assert result.stdout == ("0 blobs (0.0 MiB), 0 manifests and 0 tags copied, 0 blobs were "
                             "there, 0 entries removed; 5 repositories, 0 troubles\n")


def push_until(pair, server, stop):
    """One thread's pushes: images, tags that move, manifests that go."""
    source = random.Random(7)
    with Client(server) as client:
        while not stop.is_set():
            image = make_image(2, source.randrange(1, 20000))
            pair.model.push(client, "busy", image, source.choice(["latest", "v1", "v2", "v3"]))
            if source.random() < 0.3:
                pair.model.delete(client, "busy", image.digest)


def test_a_registry_moves_while_it_is_served(pair):
    """As docs/moving.md says: passes beside the server, a last one read-only, then the new one."""
    stop = threading.Event()
    server = pair.serve("from")
    with Client(server) as client:
        pair.model.fill(client)
    pusher = threading.Thread(target=push_until, args=(pair, server, stop))
    pusher.start()
    for _ in range(3):
        assert_done(pair.migrate())
    stop.set()
    pusher.join()
    assert server.stop() == 0
    old = pair.serve("from", "--read-only")
    pair.model.check(old)
    assert_done(pair.migrate("--verify"))
    with pair.serve("to") as new:
        pair.model.check(new)
        with Client(new) as client:  # it is a registry like any other
            pair.model.push(client, "team/app", make_image(), "v9")
            pair.model.delete_tag(client, "team/app", "v0")
        pair.model.check(new)
    pair.model.repository("team/app")  # the old one has not changed
    assert old.stop() == 0


def test_what_changes_between_two_runs_is_copied(filled):
    assert_done(filled.migrate())
    with filled.serve("from") as server, Client(server) as client:
        model = filled.model
        model.push(client, "team/app", make_image(), "v0")
        model.delete_tag(client, "team/app", "v1")
        model.delete(client, "docker", model.repository("docker")["tags"]["latest"])
        model.push(client, "new", make_image(), "v1")
        assert server.stop() == 0
    result = filled.migrate()
    assert_done(result)
    assert counts(result)["blobs"] == 4
    assert counts(result)["tags"] == 2
    with filled.serve("to") as server:
        filled.model.check(server)


# ---- Between back ends ----


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Every kind of back end, as it is needed."""
    kinds = {}

    def place(kind, data):
        if kind not in kinds:
            kinds[kind] = Backend(kind)
        try:
            return kinds[kind].settings(data)
        except ServiceMissing as missing:
            pytest.skip(f"NOT RUN to {kind}: {missing}")
    yield place
    for backend in kinds.values():
        backend.stop()


@pytest.mark.needs("sqlite", "files")
def test_a_registry_moves_through_every_back_end(places, tmp_path, make_server):
    model = Model()
    way = ["local", "cluster", "s3", "postgres", "local", "postgres", "cluster", "local"]
    previous = None
    for i, kind in enumerate(way):
        data = tmp_path / f"{i}-{kind}"
        settings = places(kind, data)
        file = write_config(tmp_path / f"{i}.yaml", data, settings)
        if previous is not None:
            result = run("migrate", "--from", previous, "--to", file, "--verify", timeout=300)
            assert_done(result)
            assert "verified: 0 differences" in result.stdout
            assert_done(run("migrate", "--from", previous, "--to", file, timeout=300))
        with make_server(data=data, env=settings) as server:
            if previous is None:
                with Client(server) as client:
                    model.fill(client)
            model.check(server)
            with Client(server) as client:
                model.push(client, "way", make_image(), kind)
            assert server.stop() == 0
        previous = file


@pytest.mark.needs("sqlite", "files")
def test_a_target_that_goes_away_is_told_and_gone_on_with(places, filled, tmp_path, make_server):
    data = tmp_path / "away"
    backend = Backend("postgres")
    try:
        settings = backend.settings(data)
    except ServiceMissing as missing:
        pytest.skip(f"NOT RUN: {missing}")
    try:
        filled.files["to"] = write_config(tmp_path / "away.yaml", data, settings,
                                          HOLDFAST_DATABASE_PATIENCE="2s")
        with filled.serve("from") as server, Client(server) as client:
            for _ in range(40):
                filled.model.push(client, "more", make_image(3), "latest")
            assert server.stop() == 0
        process = filled.popen("--threads", "1")
        time.sleep(0.4)
        backend.postgres.stop("immediate")
        out, err = process.communicate(timeout=120)
        if process.returncode != 0:  # it was not quicker than we
            assert process.returncode == 1, (out, err)
            assert re.search(r"^holdfast: .*database", err, re.M), err
        backend.postgres.start()
        assert_done(filled.migrate("--verify"))
        with make_server(data=data, env=settings) as server:
            filled.model.check(server)
            assert server.stop() == 0
    finally:
        backend.stop()


# ---- Broken off ----


@pytest.mark.hooks
@pytest.mark.parametrize("point", ["transfer.claimed", "transfer.blob_stored:4",
                                   "transfer.blob_adopted:60", "transfer.applied",
                                   "transfer.applied:2"])
def test_a_killed_run_is_gone_on_with(filled, point):
    with filled.serve("from") as server, Client(server) as client:
        for i in range(40):  # more than is done in one transaction
            filled.model.push(client, f"more{i % 3}", make_image(), f"v{i}")
        assert server.stop() == 0
    result = filled.migrate(env={"HOLDFAST_TEST_CRASH": point})
    assert result.returncode == -signal.SIGKILL
    assert_done(filled.migrate("--verify"))
    with filled.serve("to") as server:
        filled.model.check(server)


def test_runs_that_are_killed_at_any_moment_come_to_the_end(filled):
    source = random.Random(11)
    for _ in range(8):
        process = filled.popen()
        time.sleep(source.random() * 0.5)
        process.kill()
        process.communicate()
    assert_done(filled.migrate("--verify"))
    with filled.serve("to") as server:
        filled.model.check(server)


def make_large(pair):
    with pair.serve("from") as server, Client(server) as client:
        for i in range(60):
            pair.model.push(client, f"many{i % 7}", make_image(3, 200000), f"v{i}")
        assert server.stop() == 0


def test_ctrl_c_ends_it_in_order(pair):
    make_large(pair)
    process = pair.popen("--threads", "1")
    assert wait_until(lambda: process.poll() is not None or started(process))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    if process.returncode != 0:
        assert process.returncode == 1, (out, err)
        assert err.endswith("holdfast: it was stopped; run it again to go on\n")
        assert "holdfast: ending what is under way; once more ends at once\n" in err
    assert_done(pair.migrate("--verify"))
    with pair.serve("to") as server:
        pair.model.check(server)


def started(process):
    """It has blocked the signals that it listens for: SIGINT is bit 2 of the mask."""
    with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
        blocked = re.search(r"^SigBlk:\s*([0-9a-f]+)$", file.read(), re.M).group(1)
    return int(blocked, 16) & 2


def test_ctrl_c_twice_ends_it_at_once(pair):
    make_large(pair)
    process = pair.popen("--threads", "1")
    assert wait_until(lambda: process.poll() is not None or started(process))
    process.send_signal(signal.SIGSTOP)  # both are there before it goes on
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    line = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert line.startswith("holdfast: ending") or process.returncode == 0
    assert process.returncode in (-signal.SIGINT, 1, 0)
    assert_done(pair.migrate())


@pytest.mark.needs("files")
def test_a_full_target_is_told_and_gone_on_with(filled, small_disk, tmp_path):
    disk = small_disk(16 * MIB)
    filled.folders["to"] = disk / "to"
    filled.files["to"] = write_config(tmp_path / "full.yaml", disk / "to",
                                      Server.backend(disk / "to"))
    filler = fill(disk, leave=6 * MIB)
    result = filled.migrate()
    assert result.returncode == 1
    assert re.search(r"^holdfast: .*space", result.stderr, re.M), result.stderr
    filler.unlink()
    assert_done(filled.migrate("--verify"))
    with filled.serve("to") as server:
        filled.model.check(server)
        assert server.stop() == 0


# ---- What it refuses, and what it finds ----


def test_a_registry_is_not_moved_into_itself(filled):
    result = run("migrate", "--from", filled.files["from"], "--to", filled.files["from"])
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "holdfast: source and target are the same registry\n"


def test_a_registry_that_is_served_is_no_target(filled):
    with filled.serve("to"):
        result = filled.migrate()
        assert result.returncode == 1
        assert result.stderr.startswith(f"holdfast: {str(filled.files['to'])[:100]}: ")
        assert re.search("in use|another", result.stderr), result.stderr


def test_a_registry_with_images_of_its_own_is_no_target(filled):
    with filled.serve("to") as server, Client(server) as client:
        push_image(client, "mine", make_image(), "v1")
        assert server.stop() == 0
    result = filled.migrate()
    assert result.returncode == 1
    assert result.stderr == ("holdfast: the target holds repositories of its own, which would be "
                             "lost: migrate into an empty registry\n")
    with filled.serve("to") as server, Client(server) as client:
        assert catalog(client) == ["mine"]


def test_a_copy_that_was_served_is_no_target_any_more(filled):
    assert_done(filled.migrate())
    with filled.serve("to", "--read-only") as server:
        filled.model.check(server)
        assert server.stop() == 0
    assert_done(filled.migrate())
    with filled.serve("to") as server:
        assert server.stop() == 0
    assert filled.migrate().returncode == 1


@pytest.mark.needs("sqlite")
def test_a_source_that_is_not_there_is_not_made(pair):
    result = pair.migrate()
    assert result.returncode == 1
    assert "there is no registry in the data folder" in result.stderr
    assert not pair.folders["from"].exists() and not pair.folders["to"].exists()


@pytest.mark.needs("files")
def test_verify_finds_damage(filled):
    assert_done(filled.migrate())
    files = sorted(path for path in (filled.folders["to"] / "blobs").rglob("*") if path.is_file())
    content = files[0].read_bytes()
    files[0].chmod(0o600)
    files[0].write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if content else b"x")
    result = filled.migrate("--verify")
    assert result.returncode == 1
    assert "verified: 1 differences" in result.stdout
    assert f"trouble: blob sha256:{files[0].name}" in result.stderr or \
        f"trouble: blob sha512:{files[0].name}" in result.stderr


@pytest.mark.needs("files")
def test_a_blob_that_is_lost_is_told(filled):
    digest = next(iter(filled.model.repository("untagged")["blobs"]))
    hexadecimal = digest.partition(":")[2]
    (filled.folders["from"] / "blobs" / "sha256" / hexadecimal[:2] / hexadecimal).unlink()
    result = filled.migrate()
    assert result.returncode == 1
    assert f"trouble: blob {digest} cannot be copied: " in result.stderr
    assert result.stdout.endswith("1 troubles\n")


@pytest.mark.parametrize("arguments, expected", [
    ([], "--from FILE is missing"),
    (["--from", "x"], "x: could not read"),
    (["--from"], "--from needs a value"),
    (["--from", "--to", "x"], "--from needs a value"),
    (["--to", "x"], "--from FILE is missing"),
    (["--verify=yes"], "--verify takes no value"),
    (["--data", "x"], 'migrate does not know "--data"'),
    (["--from", "a.yaml", "--to", "a.yaml", "--threads", "0"], '--threads "0" is not a number'),
    (["--from", "a.yaml", "--to", "a.yaml", "--threads", "257"], "from 1 to 256"),
    (["--from", "a.yaml", "--to", "a.yaml", "--threads", "many"], '--threads "many"'),
])
def test_wrong_flags(tmp_path, arguments, expected):
    (tmp_path / "a.yaml").write_text("data: there\n")
    result = run("migrate", *arguments, cwd=tmp_path)
    assert result.returncode == 2, result
    assert expected in result.stderr
    assert os.listdir(tmp_path) == ["a.yaml"]
