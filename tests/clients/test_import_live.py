"""holdfast import from what others have written: docker-registry (CNCF distribution), over HTTP and
from its storage folder, filled by skopeo, crane, oras and regctl; a layout of skopeo; holdfast.

Everything that the source serves is compared with what holdfast serves after the import, manifest by
manifest, byte for byte, and blob by blob.
"""

import collections
import ctypes
import ctypes.util
import json
import os
import signal
import socket
import subprocess
import time

import pytest

import holdfast
from holdfast import (ACCEPT, Client, clean_environment, get_blob, get_manifest, Server, sha256, tags)
from clientkit import (Daemon, go_client, layout_blobs, need, noise, run, sample_image, sample_index)

KIND = "application/vnd.example.sbom.v1"
NAME, PASSWORD = "robot", "correct horse"


def bcrypt(password):
    """As htpasswd stores it, which docker-registry reads."""
    library = ctypes.util.find_library("crypt")
    if library is None:
        pytest.skip("there is no libcrypt")
    crypt = ctypes.CDLL(library).crypt
    crypt.restype = ctypes.c_char_p
    hashed = crypt(password.encode(), b"$2b$04$" + b"abcdefghijklmnopqrstuu")
    assert hashed is not None and hashed.startswith(b"$2b$")
    return hashed.decode()


class Distribution:
    """docker-registry over a folder of its own."""

    def __init__(self, folder, *, users=False):
        need("docker-registry")
        folder.mkdir()
        self.storage = folder / "storage"
        self.scheme, self.ca, self.host = "http", None, "127.0.0.1"
        with socket.socket() as free:
            free.bind((self.host, 0))
            self.port = free.getsockname()[1]
        config = {"version": "0.1", "log": {"level": "warn"},
                  "storage": {"filesystem": {"rootdirectory": str(self.storage)},
                              "delete": {"enabled": True}},
                  "http": {"addr": self.address}}
        if users:
            (folder / "users").write_text(f"{NAME}:{bcrypt(PASSWORD)}\n")
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "users")}}
        (folder / "config.yml").write_text(json.dumps(config))
        self.daemon = Daemon(["docker-registry", "serve", folder / "config.yml"], folder / "log",
                             env={"OTEL_TRACES_EXPORTER": "none"})
        self.daemon.wait_for(self.listens)

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    @property
    def url(self):
        return f"http://{self.address}"

    def stop(self):
        self.daemon.stop()


@pytest.fixture
def registry(tmp_path):
    registry = Distribution(tmp_path / "registry")
    yield registry
    registry.stop()


@pytest.fixture
def target(make_server):
    return make_server(start=False)


@pytest.fixture
def filled(registry, layout, tmp_path):
    """The registry with an index, images of several names, deleted ones, a Docker manifest, and what
    was pushed by digest alone."""
    need("skopeo")
    index = layout.tag("multi", sample_index(layout))
    layout.tag("one", sample_image(layout, "one"))
    layout.tag("gone", sample_image(layout, "gone"))
    layout.tag("empty", layout.image([]))

    def push(tag, name, *flags):
        run("skopeo", "copy", "--all", *flags, "--dest-tls-verify=false", layout.reference(tag),
            f"docker://{registry.address}/{name}")

    push("multi", "team/app:v1")
    push("multi", "team/app:latest")
    push("one", "team/app/nested:1.0")
    push("one", "docker:v2", "--format", "v2s2")
    push("empty", "empty:v0")
    push("gone", "team/app:gone")
    run("skopeo", "delete", "--tls-verify=false", f"docker://{registry.address}/team/app:gone")
    push("one", "team/app:moving")
    push("empty", "team/app:moving")  # the first one has no tag any more
    return collections.namedtuple("Filled", "registry index")(registry, index)


def served_by(server):
    """{repository: {tag: digest}} of a registry, and every manifest and blob below the tags."""
    found, contents = {}, {}
    with Client(server) as client:
        names = client.get("/v2/_catalog?n=1000").json()["repositories"]
        for name in names:
            found[name] = {}
            answer = client.get(f"/v2/{name}/tags/list")
            for tag in answer.json()["tags"] or []:
                digest = client.head(f"/v2/{name}/manifests/{tag}", {"Accept": ACCEPT}).digest
                found[name][tag] = digest
                collect(client, name, digest, contents)
    return found, contents


def collect(client, name, digest, contents):
    if (name, digest) in contents:
        return
    answer = client.get(f"/v2/{name}/manifests/{digest}", {"Accept": ACCEPT})
    assert answer.status == 200 and sha256(answer.body) == digest
    contents[name, digest] = (answer.headers["Content-Type"], answer.body)
    content = answer.json()
    for child in content.get("manifests", []):
        collect(client, name, child["digest"], contents)
    for part in [content.get("config"), *content.get("layers", [])]:
        if part is not None:
            blob = client.get(f"/v2/{name}/blobs/{part['digest']}")
            assert blob.status == 200 and sha256(blob.body) == part["digest"]
            contents[name, part["digest"]] = part["size"]


def bring(target, source, *flags, **options):
    done = holdfast.run("import", source, *flags, "--data", target.data, timeout=120, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped:" not in done.stdout
    return done.stdout


def check_same(server, target):
    theirs = served_by(server)
    with target:
        ours = served_by(target)
    assert ours[0] == {name: found for name, found in theirs[0].items() if found or name in ours[0]}
    assert ours[1] == theirs[1]
    return theirs[0]


def test_over_http(filled, target):
    bring(target, filled.registry.url)
    found = check_same(filled.registry, target)
    assert found["team/app"]["v1"] == filled.index and "gone" not in found["team/app"]
    assert "copied 0 manifests, 0 tags, 0 blobs" in bring(target, filled.registry.url)


def test_from_its_folder(filled, target):
    """Also while it is served; and what has no tag any more, which HTTP does not show."""
    storage = f"distribution:{filled.registry.storage}"
    bring(target, storage)
    check_same(filled.registry, target)
    revisions = filled.registry.storage / "docker/registry/v2/repositories/team/app" \
        "/_manifests/revisions/sha256"
    kept = [f"sha256:{path.name}" for path in revisions.iterdir() if (path / "link").exists()]
    deleted = [path.name for path in revisions.iterdir() if not (path / "link").exists()]
    assert len(kept) == 6 and len(deleted) <= 1  # an index, its three images, and two that moved
    with target, Client(target) as client:
        for digest in kept:
            assert sha256(get_manifest(client, "team/app", digest).body) == digest
    assert "copied 0 manifests, 0 tags, 0 blobs" in bring(target, storage)


def test_one_after_the_other(filled, target):
    """What came from the folder is there when it is brought over HTTP, and the other way round."""
    bring(target, filled.registry.url, "--repository", "team/*")
    bring(target, f"distribution:{filled.registry.storage}", "--repository", "docker")
    assert "copied 0 manifests, 0 tags, 0 blobs" in bring(target, filled.registry.url,
                                                          "--repository", "docker")
    bring(target, filled.registry.url)
    check_same(filled.registry, target)


def test_with_users(tmp_path, layout, target):
    need("skopeo")
    registry = Distribution(tmp_path / "registry", users=True)
    try:
        layout.tag("one", sample_index(layout))
        run("skopeo", "copy", "--all", "--dest-tls-verify=false", "--dest-creds",
            f"{NAME}:{PASSWORD}", layout.reference("one"), f"docker://{registry.address}/a/b:c")
        (tmp_path / "password").write_text(PASSWORD)
        bring(target, registry.url, "--username", NAME, "--password-file", tmp_path / "password")
        # The same user, from what a client has stored when it logged in.
        run("skopeo", "login", "--tls-verify=false", "--authfile", tmp_path / "auth.json",
            "--username", NAME, "--password", PASSWORD, registry.address)
        said = bring(target, registry.url, "--docker-config", tmp_path / "auth.json")
        assert "copied 0 manifests" in said
        refused = holdfast.run("import", registry.url, "--username", NAME, "--password-env", "WRONG",
                               "--data", target.data, env={"WRONG": "battery staple"})
        assert refused.returncode == 1 and "401" in refused.stderr
        assert "battery" not in refused.stderr
        run("skopeo", "copy", "-q", "--all", "--src-tls-verify=false", "--src-creds",
            f"{NAME}:{PASSWORD}", f"docker://{registry.address}/a/b:c", f"oci:{tmp_path}/theirs:c")
    finally:
        registry.stop()
    with target:
        run("skopeo", "copy", "-q", "--all", "--src-tls-verify=false",
            f"docker://{target.address}/a/b:c", f"oci:{tmp_path}/ours:c")
    assert layout_blobs(tmp_path / "ours") == layout_blobs(tmp_path / "theirs")


def test_referrers_that_oras_keeps_by_tag(registry, layout, target, tmp_path):
    """docker-registry has no referrers API: oras keeps their list under a tag."""
    oras = go_client("oras")
    need("skopeo")
    image = layout.tag("one", sample_image(layout))
    name = f"{registry.address}/app"
    run("skopeo", "copy", "-q", "--dest-tls-verify=false", layout.reference("one"),
        f"docker://{name}:one")
    (tmp_path / "sbom").write_text("an sbom")
    run(oras, "attach", "--plain-http", "--artifact-type", KIND, f"{name}:one", "sbom", cwd=tmp_path,
        env={"HOME": tmp_path, "DOCKER_CONFIG": tmp_path})
    for number, source in enumerate([registry.url, f"distribution:{registry.storage}"]):
        bring(target, source, "--prefix", f"from{number}")
        with target, Client(target) as client:
            listed = client.get(f"/v2/from{number}/app/referrers/{image}").json()["manifests"]
            [entry] = [e for e in listed if e.get("artifactType") == KIND]
            get_manifest(client, f"from{number}/app", entry["digest"])
            assert "one" in tags(client, f"from{number}/app")


def test_everything_of_a_holdfast(make_server, layout, target, tmp_path):
    """Referrers by API, sha512, and cosign's tags: crane, regctl and oras fill the source."""
    crane, regctl, oras = go_client("crane"), go_client("regctl"), go_client("oras")
    source = make_server(data=tmp_path / "source")
    env = {"HOME": tmp_path, "DOCKER_CONFIG": tmp_path, "REGCTL_CONFIG": tmp_path / "regctl.json"}
    name = f"{source.address}/team/app"
    host = f"reg={source.address},tls=disabled"
    image = layout.tag("one", sample_image(layout))
    run(crane, "push", "--insecure", layout.folder, f"{name}:v1", "--index=false", env=env)
    run(regctl, "--host", host, "image", "mod", f"{name}:v1", "--create", "v512", "--digest-algo",
        "sha512", env=env)
    (tmp_path / "sbom").write_text(noise("sbom", 10).hex())
    run(oras, "attach", "--plain-http", "--artifact-type", KIND, f"{name}:v1", "sbom", cwd=tmp_path,
        env=env)
    run(crane, "copy", "--insecure", f"{name}@{image}", f"{name}:{image.replace(':', '-')}.sig",
        env=env)
    bring(target, source.url)
    with Client(source) as theirs, target, Client(target) as ours:
        assert tags(ours, "team/app") == tags(theirs, "team/app")
        for tag in tags(theirs, "team/app"):
            one, other = (get_manifest(c, "team/app", tag) for c in (theirs, ours))
            assert one.body == other.body
            # By the tag of a sha512 image regctl asks for its sha512.
            assert one.digest == other.digest
            for part in [one.json()["config"], *one.json()["layers"]]:
                get_blob(ours, "team/app", part["digest"])
        referrers = [c.get(f"/v2/team/app/referrers/{image}").json() for c in (theirs, ours)]
        assert referrers[0] == referrers[1] and len(referrers[0]["manifests"]) == 1
        get_manifest(ours, "team/app", referrers[0]["manifests"][0]["digest"])


def test_layout_of_skopeo(filled, target, tmp_path):
    for tag in ("v1", "moving"):
        run("skopeo", "copy", "-q", "--all", "--src-tls-verify=false",
            f"docker://{filled.registry.address}/team/app:{tag}", f"oci:{tmp_path}/out:{tag}")
    bring(target, f"oci:{tmp_path}/out", "--name", "from/layout")
    with target, Client(target) as client:
        assert tags(client, "from/layout") == ["moving", "v1"]
        assert client.head("/v2/from/layout/manifests/v1").digest == filled.index
        run("skopeo", "copy", "-q", "--all", "--src-tls-verify=false",
            f"docker://{target.address}/from/layout:v1", f"oci:{tmp_path}/back:v1")
        run("skopeo", "copy", "-q", "--all", "--src-tls-verify=false",
            f"docker://{target.address}/from/layout:moving", f"oci:{tmp_path}/back:moving")
    assert layout_blobs(tmp_path / "back") == layout_blobs(tmp_path / "out")


@pytest.mark.needs("files")  # are counted, to know when to kill it
def test_killed_in_the_middle(registry, layout, target):
    """A hundred images of two repositories; the first import is killed when some are there."""
    need("skopeo")
    layout.tag("base", sample_image(layout, "base", layers=3))
    run("skopeo", "copy", "-q", "--dest-tls-verify=false", layout.reference("base"),
        f"docker://{registry.address}/a:base")
    with Client(registry) as client:
        for number in range(100):
            image = holdfast.make_image(2, 40000)
            for blob in image.blobs:
                location = client.post(f"/v2/r{number % 2}/blobs/uploads/").location
                answer = client.put(holdfast.with_query(location, digest=sha256(blob)), blob)
                assert answer.status == 201
            holdfast.push_manifest(client, f"r{number % 2}", image, f"t{number}")
    blobs = target.data / "blobs"
    command = [holdfast.BINARY, "import", registry.url, "--data", str(target.data), "--jobs", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          env=clean_environment(Server.backend(target.data))) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None and \
                sum(len(files) for _, _, files in os.walk(blobs)) < 60:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL, "it was over before it was killed"
    said = bring(target, registry.url)
    assert "copied 0 manifests" not in said
    check_same(registry, target)
    checked = holdfast.run("fsck", "--deep", "--data", target.data)
    assert checked.returncode == 0, checked.stdout
