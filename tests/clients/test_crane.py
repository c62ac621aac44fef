"""crane (go-containerregistry, the library of kaniko, ko, trivy and cosign)."""

import json
import tarfile

import pytest

from holdfast import Client, make_image, push_image, push_manifest, tags
from clientkit import (ARCHITECTURES, check_served, go_client, layer_tar, layout_blobs, noise, run,
                       run_fails, sample_image, sample_index)


@pytest.fixture
def crane(tmp_path):
    program = go_client("crane")

    def call(*arguments, **options):
        return run(program, "--insecure", *arguments, **options,
                   env={"HOME": tmp_path, "DOCKER_CONFIG": tmp_path}).stdout

    call.program = program
    return call


@pytest.fixture
def name(server, repo):
    return f"{server.address}/{repo}"


def test_push_and_pull(crane, server, repo, name, layout, tmp_path):
    digest = layout.tag("v1", sample_image(layout))
    crane("push", layout.folder, f"{name}:v1", "--index=false")
    check_served(server, repo, "v1", digest)
    assert crane("digest", f"{name}:v1").strip() == digest

    crane("pull", "--format=oci", f"{name}:v1", tmp_path / "back")
    assert layout_blobs(tmp_path / "back") == layout_blobs(layout.folder)
    crane("pull", f"{name}@{digest}", tmp_path / "image.tar")
    crane("validate", "--tarball", tmp_path / "image.tar")


def test_index(crane, server, repo, name, layout):
    digest = layout.tag("multi", sample_index(layout))
    crane("push", "--index", layout.folder, f"{name}:pushed")
    [outer] = check_served(server, repo, "pushed")["manifests"]
    assert outer["digest"] == digest
    crane("tag", f"{name}@{digest}", "multi")
    index = check_served(server, repo, "multi", digest)
    assert len(index["manifests"]) == len(ARCHITECTURES)
    crane("validate", "--remote", f"{name}:multi")
    config = json.loads(crane("--platform", "linux/arm64", "config", f"{name}:multi"))
    assert config["architecture"] == "arm64"


def test_copy_with_mounts(crane, server, repo, name, layout):
    digest = layout.tag("multi", sample_index(layout))
    crane("push", "--index", layout.folder, f"{name}:pushed")
    crane("copy", f"{name}@{digest}", f"{name}/copy:v1")
    check_served(server, f"{repo}/copy", "v1", digest)
    crane("validate", "--remote", f"{name}/copy:v1")


def test_manifest_is_byte_exact(crane, server, name, layout):
    digest = layout.tag("v1", sample_image(layout))
    crane("push", layout.folder, f"{name}:v1", "--index=false")
    assert crane("manifest", f"{name}:v1").encode() == layout.read(digest)


def test_append_and_mutate(crane, server, repo, name, tmp_path):
    (tmp_path / "one.tar").write_bytes(layer_tar({"one": noise(f"{repo}/1", 200_000)}))
    (tmp_path / "two.tar").write_bytes(layer_tar({"two": noise(f"{repo}/2", 100)}))
    crane("append", "--oci-empty-base", "--new_layer", tmp_path / "one.tar",
          "--new_tag", f"{name}:v1")
    crane("append", "--base", f"{name}:v1", "--new_layer", tmp_path / "two.tar",
          "--new_tag", f"{name}:v2")
    layers = [check_served(server, repo, tag)["layers"] for tag in ("v1", "v2")]
    assert layers[1][:1] == layers[0] and len(layers[1]) == 2

    crane("mutate", f"{name}:v2", "--tag", f"{name}:v3", "--label", "org.example=yes",
          "--annotation", "org.example.note=changed")
    assert json.loads(crane("config", f"{name}:v3"))["config"]["Labels"] == {"org.example": "yes"}
    assert check_served(server, repo, "v3")["annotations"] == {"org.example.note": "changed"}


def test_export_of_layers(crane, server, name, layout, tmp_path):
    layout.tag("v1", layout.image([{"file": b"kept"}, {"other": b"too"}]))
    crane("push", layout.folder, f"{name}:v1", "--index=false")
    crane("export", f"{name}:v1", tmp_path / "files.tar")
    with tarfile.open(tmp_path / "files.tar") as files:
        found = {name: files.extractfile(name).read() for name in files.getnames()}
    assert found == {"file": b"kept", "other": b"too"}


def test_ls_follows_pages(crane, server, repo, name):
    image = make_image()
    names = [f"t{number:04}" for number in range(1100)]  # crane asks for 1000 a page
    with Client(server) as client:
        push_image(client, repo, image)
        for tag in names:
            push_manifest(client, repo, image, tag)
    assert crane("ls", name).split() == names


def test_catalog_lists_all_repositories(crane, server, repo):
    made = [f"{repo}/{number:03}" for number in range(120)]
    image = make_image()
    with Client(server) as client:
        for one in made:
            push_image(client, one, image, "v1")
    listed = crane("catalog", server.address).split()
    assert [one for one in listed if one.startswith(repo + "/")] == made
    assert listed == sorted(listed)


def test_delete(crane, server, repo, name, layout):
    digest = layout.tag("v1", sample_image(layout))
    crane("push", layout.folder, f"{name}:v1", "--index=false")
    crane("tag", f"{name}:v1", "other")
    crane("delete", f"{name}:other")
    with Client(server) as client:
        assert tags(client, repo) == ["v1"]
    crane("delete", f"{name}@{digest}")
    with Client(server) as client:
        assert tags(client, repo) == []
    run_fails(crane.program, "--insecure", "digest", f"{name}:v1", saying="MANIFEST_UNKNOWN")
    run_fails(crane.program, "--insecure", "manifest", f"{name}@{digest}",
              saying="MANIFEST_UNKNOWN")


def test_blob(crane, server, name, layout):
    digest = layout.tag("v1", sample_image(layout))
    crane("push", layout.folder, f"{name}:v1", "--index=false")
    config = json.loads(layout.read(digest))["config"]["digest"]
    assert crane("blob", f"{name}@{config}").encode() == layout.read(config)
