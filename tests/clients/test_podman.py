"""podman: builds, pushes, pulls and runs images, and works with manifest lists."""

import json

import pytest

from holdfast import DOCKER_MANIFEST, INDEX, MANIFEST, Client, tags
from clientkit import ARCHITECTURES, check_served, need, need_root, run, run_fails

CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
"""
CONTAINERFILE = 'FROM scratch\nCOPY hello unique /\nENTRYPOINT ["/hello"]\n'


class Podman:
    def __init__(self, folder, server, hello):
        self.server = server
        self.folder = folder
        self.context = folder / "context"
        self.context.mkdir()
        (self.context / "hello").write_bytes(hello.read_bytes())
        (self.context / "hello").chmod(0o755)
        (self.context / "Containerfile").write_text(CONTAINERFILE)
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/graph"\n'
            f'runroot = "{folder}/run"\n')
        (folder / "containers.conf").write_text(CONTAINERS_CONF)
        (folder / "registries.conf").write_text(
            f'[[registry]]\nlocation = "{server.address}"\ninsecure = true\n')
        self.env = {"CONTAINERS_STORAGE_CONF": folder / "storage.conf",
                    "CONTAINERS_CONF": folder / "containers.conf",
                    "CONTAINERS_REGISTRIES_CONF": folder / "registries.conf",
                    "XDG_RUNTIME_DIR": folder, "TMPDIR": folder}

    def __call__(self, *arguments, **options):
        return run("podman", *arguments, env=self.env, **options).stdout

    def name(self, repo, tag="v1"):
        return f"{self.server.address}/{repo}:{tag}"

    def build(self, name, *flags):
        (self.context / "unique").write_text(name)
        return self("build", "--tag", name, *flags, self.context)

    def push(self, name, *flags):
        return self("push", *flags, name)

    def pull(self, name, *flags):
        return self("pull", *flags, name)


@pytest.fixture(scope="module")
def podman(scratch, server, hello):
    need("podman", "runc")
    need_root()
    podman = Podman(scratch, server, hello)
    yield podman
    podman("rm", "--all", "--force", check=False)
    podman("rmi", "--all", "--force", check=False)


def test_build_push_pull_run(podman, server, repo):
    name = podman.name(repo)
    podman.build(name)
    podman.push(name)
    manifest = check_served(server, repo, "v1")
    assert manifest["mediaType"] == MANIFEST

    podman("rmi", "--all", "--force")
    podman.pull(name)
    assert podman("run", "--rm", "--network", "none", name) == "hello from a container\n"


def test_pull_by_digest(podman, server, repo):
    name = podman.name(repo)
    podman.build(name)
    podman.push(name, "--digestfile", podman.folder / "digest")
    digest = (podman.folder / "digest").read_text()
    check_served(server, repo, "v1", digest)
    podman("rmi", "--all", "--force")
    podman.pull(f"{server.address}/{repo}@{digest}")
    [image] = json.loads(podman("inspect", f"{server.address}/{repo}@{digest}"))
    assert image["Digest"] == digest


def test_docker_format(podman, server, repo):
    name = podman.name(repo)
    podman.build(name, "--format", "docker")
    podman.push(name, "--format", "v2s2")
    assert check_served(server, repo, "v1")["mediaType"] == DOCKER_MANIFEST
    podman("rmi", "--all", "--force")
    podman.pull(name)


def test_zstd_layers(podman, server, repo):
    name = podman.name(repo)
    podman.build(name)
    podman.push(name, "--format", "oci", "--compression-format", "zstd")
    manifest = check_served(server, repo, "v1")
    assert {layer["mediaType"].rpartition("+")[2] for layer in manifest["layers"]} == {"zstd"}
    podman("rmi", "--all", "--force")
    podman.pull(name)
    assert podman("run", "--rm", "--network", "none", name) == "hello from a container\n"


def test_manifest_list(podman, server, repo):
    name, made = podman.name(repo, "multi"), f"localhost/{repo}:made"
    podman("manifest", "create", made)
    for architecture in ARCHITECTURES:
        part = podman.name(repo, architecture)
        podman.build(part, "--no-cache", "--platform", f"linux/{architecture}")
        podman.push(part)
        podman("manifest", "add", "--arch", architecture, made, f"docker://{part}")
    podman("manifest", "push", "--all", made, f"docker://{name}")
    index = check_served(server, repo, "multi")
    assert index["mediaType"] == INDEX
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == \
        list(ARCHITECTURES)
    assert json.loads(podman("manifest", "inspect", name))["manifests"] == index["manifests"]

    podman("rmi", "--all", "--force")
    podman.pull(name, "--arch", "arm64")
    [image] = json.loads(podman("inspect", name))
    assert image["Architecture"] == "arm64"


def test_pull_all_tags(podman, server, repo):
    for tag in ("a", "b", "c"):
        podman.build(podman.name(repo, tag), "--label", f"tag={tag}")
        podman.push(podman.name(repo, tag))
    podman("rmi", "--all", "--force")
    podman.pull(f"{server.address}/{repo}", "--all-tags")
    listed = podman("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert sorted(listed) == [podman.name(repo, tag) for tag in ("a", "b", "c")]
    with Client(server) as client:
        assert tags(client, repo) == ["a", "b", "c"]


def test_search(podman, server, repo):
    podman.build(podman.name(repo))
    podman.push(podman.name(repo))
    found = podman("search", "--format", "{{.Name}}", f"{server.address}/{repo}")
    assert found.split() == [f"{server.address}/{repo}"]
    listed = json.loads(podman("search", "--list-tags", "--format", "json",
                               f"{server.address}/{repo}"))
    assert listed == [{"Name": f"{server.address}/{repo}", "Tags": ["v1"]}]


def test_what_is_not_there(podman, server, repo):
    run_fails("podman", "pull", podman.name(repo), env=podman.env, saying="unknown")
