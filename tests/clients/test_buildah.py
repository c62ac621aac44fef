"""buildah: builds for several platforms, and works from an image of the registry."""

import json

import pytest

from holdfast import DOCKER_LIST, DOCKER_MANIFEST, INDEX, LAYER
from clientkit import ARCHITECTURES, check_served, need, need_root, noise, run

CONTAINERFILE = "FROM scratch\nCOPY content /content\n"


@pytest.fixture(scope="module")
def buildah(scratch):
    need("buildah")
    need_root()
    (scratch / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{scratch}/graph"\nrunroot = "{scratch}/run"\n')
    env = {"CONTAINERS_STORAGE_CONF": scratch / "storage.conf", "XDG_RUNTIME_DIR": scratch,
           "TMPDIR": scratch}

    def call(*arguments, **options):
        return run("buildah", *arguments, env=env, **options).stdout.strip()

    yield call
    call("rm", "--all", check=False)
    call("rmi", "--all", "--force", check=False)


@pytest.fixture
def context(tmp_path, repo):
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "content").write_bytes(noise(repo, 100_000))
    (folder / "Containerfile").write_text(CONTAINERFILE)
    return folder


@pytest.mark.parametrize("kind, media_type", [("oci", INDEX), ("v2s2", DOCKER_LIST)])
def test_multi_platform_build(buildah, server, repo, context, kind, media_type):
    name = f"localhost/{repo}"
    buildah("manifest", "create", name)
    for architecture in ARCHITECTURES:
        buildah("build", "--platform", f"linux/{architecture}", "--manifest", name, context)
    buildah("manifest", "push", "--all", "--tls-verify=false", "--format", kind, name,
            f"docker://{server.address}/{repo}:multi")
    index = check_served(server, repo, "multi")
    assert index["mediaType"] == media_type
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == \
        list(ARCHITECTURES)


def test_push_and_build_on_it(buildah, server, repo, context):
    base, top = f"{server.address}/{repo}:base", f"{server.address}/{repo}/top:v1"
    buildah("build", "--tag", base, context)
    buildah("push", "--tls-verify=false", base)
    base_layers = check_served(server, repo, "base")["layers"]

    buildah("rmi", "--all", "--force")
    container = buildah("from", "--tls-verify=false", base)
    (context / "more").write_bytes(noise(f"{repo}/more", 50_000))
    buildah("copy", container, context / "more", "/more")
    buildah("config", "--label", "org.example.test=top", container)
    buildah("commit", container, top)
    buildah("push", "--tls-verify=false", top)
    layers = check_served(server, f"{repo}/top", "v1")["layers"]
    assert layers[:1] == base_layers and len(layers) == 2


def test_docker_format(buildah, server, repo, context):
    name = f"{server.address}/{repo}:v1"
    buildah("build", "--format", "docker", "--tag", name, context)
    buildah("push", "--tls-verify=false", "--format", "v2s2", name)
    assert check_served(server, repo, "v1")["mediaType"] == DOCKER_MANIFEST


def test_zstd_layers(buildah, server, repo, context):
    name = f"{server.address}/{repo}:v1"
    buildah("build", "--tag", name, context)
    buildah("push", "--tls-verify=false", "--format", "oci", "--compression-format", "zstd", name)
    layers = check_served(server, repo, "v1")["layers"]
    assert {layer["mediaType"] for layer in layers} == {LAYER + "+zstd"}
    buildah("rmi", "--all", "--force")
    buildah("pull", "--tls-verify=false", name)
    [image] = json.loads(buildah("images", "--json", name))
    assert image["names"] == [name]
