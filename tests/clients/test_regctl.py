"""regctl (regclient): image copies with referrers, tags, artifacts and blobs."""

import json

import pytest

from holdfast import Client, sha256, tags
from clientkit import (ARCHITECTURES, check_served, go_client, layout_blobs, noise, run,
                       run_fails, sample_image, sample_index)

KIND = "application/vnd.example.sbom.v1"


@pytest.fixture
def regctl(server, tmp_path):
    program = go_client("regctl")
    env = {"HOME": tmp_path, "REGCTL_CONFIG": tmp_path / "config.json", "DOCKER_CONFIG": tmp_path}
    host = f"reg={server.address},tls=disabled"

    def call(*arguments, **options):
        return run(program, "--host", host, *arguments, env=env, **options).stdout

    call.fails = lambda *arguments, saying: run_fails(program, "--host", host, *arguments, env=env,
                                                      saying=saying)
    return call


@pytest.fixture
def name(server, repo):
    return f"{server.address}/{repo}"


def test_copy_there_and_back(regctl, server, repo, name, layout, tmp_path):
    digest = layout.tag("multi", sample_index(layout))
    regctl("image", "copy", f"ocidir://{layout.folder}:multi", f"{name}:multi")
    check_served(server, repo, "multi", digest)
    regctl("image", "copy", f"{name}:multi", f"ocidir://{tmp_path}/back:multi")
    assert layout_blobs(tmp_path / "back") == layout_blobs(layout.folder)


def test_copy_between_repositories_mounts(regctl, server, repo, name, layout):
    digest = layout.tag("v1", sample_image(layout))
    regctl("image", "copy", f"ocidir://{layout.folder}:v1", f"{name}:v1")
    regctl("image", "copy", f"{name}:v1", f"{name}/copy:v1")
    check_served(server, f"{repo}/copy", "v1", digest)


def test_copy_with_referrers_and_digest_tags(regctl, server, repo, name, layout):
    image = sample_image(layout)
    digest = layout.tag("v1", image)
    regctl("image", "copy", f"ocidir://{layout.folder}:v1", f"{name}:v1")
    regctl("artifact", "put", "--artifact-type", KIND, "--subject", f"{name}:v1", stdin="an sbom")
    regctl("image", "copy", "--referrers", "--digest-tags", f"{name}:v1", f"{name}/copy:v1")
    with Client(server) as client:
        [entry] = client.get(f"/v2/{repo}/copy/referrers/{digest}").json()["manifests"]
        assert entry["artifactType"] == KIND
        assert tags(client, f"{repo}/copy") == ["v1"]
    check_served(server, f"{repo}/copy", entry["digest"])


def test_artifacts(regctl, name, layout):
    layout.tag("v1", sample_image(layout))
    regctl("image", "copy", f"ocidir://{layout.folder}:v1", f"{name}:v1")
    regctl("artifact", "put", "--artifact-type", KIND, "--subject", f"{name}:v1",
           "--annotation", "org.example=first", stdin="first")
    regctl("artifact", "put", "--artifact-type", "application/other", "--subject", f"{name}:v1",
           stdin="second")
    listed = json.loads(regctl("artifact", "list", "--format", "{{json .}}", f"{name}:v1"))
    assert len(listed["descriptors"]) == 2
    listed = json.loads(regctl("artifact", "list", "--filter-artifact-type", KIND,
                               "--format", "{{json .}}", f"{name}:v1"))
    [entry] = listed["descriptors"]
    assert entry["annotations"] == {"org.example": "first"}
    assert regctl("artifact", "get", "--subject", f"{name}:v1",
                  "--filter-artifact-type", KIND) == "first"


def test_tags(regctl, server, repo, name, layout):
    digest = layout.tag("v1", sample_image(layout))
    for tag in ("v1", "v2", "v3"):
        regctl("image", "copy", f"ocidir://{layout.folder}:v1", f"{name}:{tag}")
    assert regctl("tag", "ls", name).split() == ["v1", "v2", "v3"]
    assert regctl("tag", "ls", "--include", "v[23]", name).split() == ["v2", "v3"]
    regctl("tag", "delete", f"{name}:v2")
    assert regctl("tag", "ls", name).split() == ["v1", "v3"]
    # The manifest itself is still there, and so are its other tags.
    check_served(server, repo, "v1", digest)
    check_served(server, repo, digest, digest)


def test_blobs(regctl, server, name):
    data = "text " * 100_000
    digest = regctl("blob", "put", name, stdin=data).strip()
    assert digest == sha256(data.encode())
    assert regctl("blob", "get", name, digest) == data
    regctl("blob", "head", name, digest)
    regctl("blob", "copy", name, f"{name}/copy", digest)
    assert regctl("blob", "get", f"{name}/copy", digest) == data
    regctl("blob", "delete", name, digest)
    regctl.fails("blob", "get", name, digest, saying="not found")


def test_chunked_upload(regctl, server, repo, name, layout):
    """With a chunk size of its own it sends one PATCH after the other."""
    layout.tag("v1", layout.image([{"file": noise(repo, 3_000_000)}]))
    digest = layout.tagged("v1")
    host = f"reg={server.address},tls=disabled,blobChunk=500000,blobMax=100000"
    regctl("--host", host, "image", "copy", f"ocidir://{layout.folder}:v1", f"{name}:v1")
    check_served(server, repo, "v1", digest)


def test_manifests(regctl, server, repo, name, layout):
    digest = layout.tag("multi", sample_index(layout))
    regctl("image", "copy", f"ocidir://{layout.folder}:multi", f"{name}:multi")
    assert regctl("manifest", "head", f"{name}:multi").strip() == digest
    assert regctl("manifest", "get", "--format", "raw-body", f"{name}:multi").encode() == \
        layout.read(digest)
    for architecture in ARCHITECTURES:
        config = json.loads(regctl("image", "config", "--platform", f"linux/{architecture}",
                                   f"{name}:multi"))
        assert config["architecture"] == architecture
    regctl("manifest", "delete", f"{name}@{digest}")
    regctl.fails("manifest", "head", f"{name}:multi", saying="not found")


def test_modify_and_check_base(regctl, server, repo, name, layout):
    layout.tag("v1", sample_image(layout))
    regctl("image", "copy", f"ocidir://{layout.folder}:v1", f"{name}:v1")
    regctl("image", "mod", f"{name}:v1", "--create", "v2", "--annotation", "org.example=changed",
           "--layer-compress", "zstd")
    manifest = check_served(server, repo, "v2")
    assert manifest["annotations"] == {"org.example": "changed"}
    assert all(layer["mediaType"].endswith("+zstd") for layer in manifest["layers"])


def test_sha512(regctl, server, repo, name, layout):
    layout.tag("v1", sample_image(layout))
    regctl("image", "copy", f"ocidir://{layout.folder}:v1", f"{name}:v1")
    regctl("image", "mod", f"{name}:v1", "--create", "v512", "--digest-algo", "sha512")
    digest = regctl("manifest", "head", f"{name}:v512").strip()
    assert digest.startswith("sha512:")
    manifest = check_served(server, repo, "v512", digest)
    assert manifest["config"]["digest"].startswith("sha512:")


def test_repositories(regctl, server, repo, name, layout):
    layout.tag("v1", sample_image(layout))
    regctl("image", "copy", f"ocidir://{layout.folder}:v1", f"{name}:v1")
    assert repo in regctl("repo", "ls", server.address).split()
