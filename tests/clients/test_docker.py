"""docker: a daemon of the test's own pushes, pulls and runs images and pushes manifest lists."""

import io
import json
import tarfile

import pytest

from holdfast import DOCKER_LIST, DOCKER_MANIFEST
from clientkit import (ARCHITECTURES, Daemon, check_served, layer_tar, need, need_root, noise, run,
                       run_fails, sample_index)


class Docker:
    def __init__(self, folder, server):
        self.server = server
        self.folder = folder
        self.env = {"DOCKER_HOST": f"unix://{folder}/docker.sock",
                    "DOCKER_CONFIG": folder / "config", "DOCKER_BUILDKIT": "0",
                    "DOCKER_CLI_EXPERIMENTAL": "enabled"}

    def command(self):
        return ["dockerd", "--data-root", self.folder / "data", "--exec-root", self.folder / "exec",
                "--host", f"unix://{self.folder}/docker.sock", "--pidfile", self.folder / "pid",
                "--storage-driver", "overlay2", "--iptables=false", "--ip6tables=false",
                "--ip-forward=false", "--ip-masq=false", "--bridge=none",
                "--insecure-registry", self.server.address]

    def __call__(self, *arguments, **options):
        return run("docker", *arguments, env=self.env, **options)

    def name(self, repo, tag="v1"):
        return f"{self.server.address}/{repo}:{tag}"

    def make(self, name, files, *changes, architecture="amd64"):
        """An image of one layer; `docker import` wants its tar in a file."""
        path = self.folder / "import.tar"
        path.write_bytes(layer_tar(files))
        flags = [flag for change in changes for flag in ("--change", change)]
        self("import", "--platform", f"linux/{architecture}", *flags, path, name)

    def forget(self):
        self("image", "prune", "--all", "--force")
        assert not self("images", "--quiet").stdout


@pytest.fixture(scope="module")
def docker(scratch, server):
    need("docker", "dockerd", "containerd", "runc")
    need_root()
    docker = Docker(scratch, server)
    daemon = Daemon(docker.command(), scratch / "log")
    daemon.wait_for(lambda: docker("version", check=False).returncode == 0)
    yield docker
    daemon.stop()


def test_push_pull_run(docker, server, repo, hello):
    name = docker.name(repo)
    docker.make(name, {"hello": (hello.read_bytes(), 0o755)}, 'ENTRYPOINT ["/hello"]')
    docker("push", name)
    assert check_served(server, repo, "v1")["mediaType"] == DOCKER_MANIFEST
    docker.forget()
    docker("pull", name)
    done = docker("run", "--rm", "--network", "none", name)
    assert done.stdout == "hello from a container\n"


def test_layers_are_pushed_once(docker, server, repo):
    base, top = docker.name(repo, "base"), docker.name(repo, "top")
    docker.make(base, {"base": noise(f"{repo}/base", 300_000)})
    docker("push", base)
    (docker.folder / "context").mkdir(exist_ok=True)
    (docker.folder / "context" / "top").write_bytes(noise(f"{repo}/top", 20_000))
    (docker.folder / "context" / "Dockerfile").write_text(f"FROM {base}\nCOPY top /top\n")
    docker("build", "--tag", top, docker.folder / "context")
    said = docker("push", top).stdout
    assert said.count("Layer already exists") == 1 and said.count("Pushed") == 1, said
    layers = [check_served(server, repo, tag)["layers"] for tag in ("base", "top")]
    assert layers[1][:1] == layers[0]


def test_layers_are_mounted_from_another_repository(docker, server, repo):
    docker.make(docker.name(repo), {"base": noise(repo, 300_000)})
    docker("push", docker.name(repo))
    docker("tag", docker.name(repo), docker.name(f"{repo}/other"))
    said = docker("push", docker.name(f"{repo}/other")).stdout
    assert f"Mounted from {repo}" in said, said
    check_served(server, f"{repo}/other", "v1")


def test_pull_by_digest(docker, server, repo):
    docker.make(docker.name(repo), {"file": noise(repo, 100_000)})
    said = docker("push", docker.name(repo)).stdout
    digest = said.partition("digest: ")[2].split()[0]
    check_served(server, repo, "v1", digest)
    docker.forget()
    docker("pull", f"{server.address}/{repo}@{digest}")
    [image] = json.loads(docker("inspect", f"{server.address}/{repo}@{digest}").stdout)
    assert image["RepoDigests"] == [f"{server.address}/{repo}@{digest}"]


def test_all_tags(docker, server, repo):
    names = [docker.name(repo, tag) for tag in ("a", "b", "c")]
    for name in names:
        docker.make(name, {"file": noise(name, 10_000)})
    docker("push", "--all-tags", f"{server.address}/{repo}")
    docker.forget()
    docker("pull", "--all-tags", f"{server.address}/{repo}")
    listed = docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    assert sorted(listed) == names


def test_manifest_list(docker, server, repo):
    made = docker.name(repo, "multi")
    parts = []
    for architecture in ARCHITECTURES:
        parts.append(docker.name(repo, architecture))
        docker.make(parts[-1], {"file": noise(f"{repo}/{architecture}", 10_000)},
                    architecture=architecture)
        docker("push", parts[-1])
    docker("manifest", "create", "--insecure", made, *parts)
    for part, architecture in zip(parts, ARCHITECTURES):
        docker("manifest", "annotate", made, part, "--arch", architecture)
    docker("manifest", "push", "--insecure", "--purge", made)
    index = check_served(server, repo, "multi")
    assert index["mediaType"] == DOCKER_LIST
    # docker sorts them by its own rules
    assert sorted(entry["platform"]["architecture"] for entry in index["manifests"]) == \
        sorted(ARCHITECTURES)
    seen = json.loads(docker("manifest", "inspect", "--insecure", made).stdout)
    assert [entry["digest"] for entry in seen["manifests"]] == \
        [entry["digest"] for entry in index["manifests"]]

    docker.forget()
    docker("pull", "--platform", "linux/arm64", made)
    [image] = json.loads(docker("inspect", made).stdout)
    assert image["Id"] == check_served(server, repo, "arm64")["config"]["digest"]


def test_pull_from_an_oci_index(docker, server, repo, layout):
    need("skopeo")
    layout.tag("multi", sample_index(layout))
    run("skopeo", "copy", "--all", "--dest-tls-verify=false", layout.reference("multi"),
        f"docker://{docker.name(repo, 'multi')}")
    docker("pull", docker.name(repo, "multi"))
    [image] = json.loads(docker("inspect", docker.name(repo, "multi")).stdout)
    assert image["Architecture"] == "amd64"


def test_save_has_what_was_pushed(docker, server, repo):
    data = noise(repo, 200_000)
    docker.make(docker.name(repo), {"file": data})
    docker("push", docker.name(repo))
    docker.forget()
    docker("pull", docker.name(repo))
    docker("save", "--output", docker.folder / "saved.tar", docker.name(repo))
    with tarfile.open(docker.folder / "saved.tar") as saved:
        [entry] = json.load(saved.extractfile("manifest.json"))
        layer = saved.extractfile(entry["Layers"][0]).read()
    with tarfile.open(fileobj=io.BytesIO(layer)) as files:
        assert files.extractfile("file").read() == data


def test_what_is_not_there(docker, server, repo):
    docker.make(docker.name(repo), {"file": noise(repo, 1000)})
    docker("push", docker.name(repo))
    run_fails("docker", "pull", docker.name(repo, "absent"), env=docker.env,
              saying="manifest unknown")
