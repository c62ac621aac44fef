"""containerd, driven by ctr: pulls one or all platforms, pushes, and runs what it pulled."""

import json
import tarfile

import pytest

from clientkit import (ARCHITECTURES, Daemon, check_served, need, need_root, run, run_fails,
                       sample_image, sample_index)

CONFIG = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{folder}/c.sock"
[ttrpc]
address = "{folder}/t.sock"
"""


@pytest.fixture(scope="module")
def ctr(scratch):
    need("containerd", "ctr", "runc")
    need_root()
    (scratch / "config.toml").write_text(CONFIG.format(folder=scratch))

    def call(*arguments, **options):
        return run("ctr", "--address", scratch / "c.sock", *arguments, **options)

    daemon = Daemon(["containerd", "--config", scratch / "config.toml"], scratch / "log")
    daemon.wait_for(lambda: call("version", check=False).returncode == 0)
    yield call
    daemon.stop()


@pytest.fixture
def image_file(layout, tmp_path):
    """image_file(name): the layout as a tar that `ctr images import` reads, under that name."""
    def make(name):
        index = json.loads((layout.folder / "index.json").read_bytes())
        for entry in index["manifests"]:
            entry["annotations"] = {"io.containerd.image.name": name}
        (layout.folder / "index.json").write_text(json.dumps(index))
        path = tmp_path / "image.tar"
        with tarfile.open(path, "w") as tar:
            tar.add(layout.folder, arcname=".")
        return path
    return make


def content(ctr):
    return ctr("content", "list", "--quiet").stdout.split()


def forget(ctr):
    """Removes all images and content, so that a pull has to fetch."""
    names = ctr("images", "list", "--quiet").stdout.split()
    if names:
        ctr("images", "remove", "--sync", *names)
    assert content(ctr) == []


def test_push_and_pull(ctr, server, repo, layout, image_file):
    digest = layout.tag("v1", sample_image(layout))
    name = f"{server.address}/{repo}:v1"
    ctr("images", "import", image_file(name))
    ctr("images", "push", "--plain-http", name)
    check_served(server, repo, "v1", digest)
    forget(ctr)
    ctr("images", "pull", "--plain-http", name)
    manifest = json.loads(layout.read(digest))
    wanted = {digest, *(part["digest"] for part in [manifest["config"], *manifest["layers"]])}
    assert wanted == set(content(ctr))
    forget(ctr)


def test_index_of_all_platforms(ctr, server, repo, layout, image_file):
    digest = layout.tag("multi", sample_index(layout))
    name = f"{server.address}/{repo}:multi"
    ctr("images", "import", "--all-platforms", "--no-unpack", image_file(name))
    ctr("images", "push", "--plain-http", name)
    index = check_served(server, repo, "multi", digest)
    assert len(index["manifests"]) == len(ARCHITECTURES)
    forget(ctr)
    ctr("content", "fetch", "--plain-http", "--all-platforms", name)
    assert set(content(ctr)) == {f"sha256:{path.name}" for path in layout.blobs.iterdir()}
    forget(ctr)


def test_pull_one_platform(ctr, server, repo, layout, image_file):
    digest = layout.tag("multi", sample_index(layout))
    name = f"{server.address}/{repo}:multi"
    ctr("images", "import", "--all-platforms", "--no-unpack", image_file(name))
    ctr("images", "push", "--plain-http", name)
    forget(ctr)
    ctr("images", "pull", "--plain-http", "--platform", "linux/arm64", name)
    image = json.loads(layout.read(digest))["manifests"][ARCHITECTURES.index("arm64")]["digest"]
    manifest = json.loads(layout.read(image))
    assert set(content(ctr)) == {digest, image, *(part["digest"] for part in
                                                  [manifest["config"], *manifest["layers"]])}
    forget(ctr)


def test_pull_by_digest(ctr, server, repo, layout, image_file):
    digest = layout.tag("v1", sample_image(layout))
    name = f"{server.address}/{repo}@{digest}"
    ctr("images", "import", image_file(name))
    ctr("images", "push", "--plain-http", name)
    forget(ctr)
    ctr("images", "pull", "--plain-http", name)
    assert digest in content(ctr)
    forget(ctr)


def test_run(ctr, server, repo, layout, image_file, hello):
    image = layout.image([{"hello": (hello.read_bytes(), 0o755)}],
                         config={"Entrypoint": ["/hello"]})
    layout.tag("v1", image)
    name = f"{server.address}/{repo}:v1"
    ctr("images", "import", image_file(name))
    ctr("images", "push", "--plain-http", name)
    forget(ctr)
    ctr("images", "pull", "--plain-http", name)
    assert ctr("run", "--rm", name, "hello").stdout == "hello from a container\n"
    forget(ctr)


def test_mirror_of_another_registry(ctr, server, repo, layout, image_file, tmp_path):
    """As a mirror it is asked with ?ns=, by the upstream's name."""
    digest = layout.tag("v1", sample_image(layout))
    name = f"{server.address}/{repo}:v1"
    ctr("images", "import", image_file(name))
    ctr("images", "push", "--plain-http", name)
    forget(ctr)
    hosts = tmp_path / "hosts" / "upstream.example"
    hosts.mkdir(parents=True)
    (hosts / "hosts.toml").write_text(
        f'server = "https://upstream.example"\n[host."{server.url}"]\n'
        '  capabilities = ["pull", "resolve"]\n')
    ctr("images", "pull", "--hosts-dir", hosts.parent, f"upstream.example/{repo}:v1")
    assert digest in content(ctr)
    forget(ctr)


def test_what_is_not_there(ctr, server, repo, scratch):
    run_fails("ctr", "--address", scratch / "c.sock", "images", "pull", "--plain-http",
              f"{server.address}/{repo}:v1", saying="not found")
