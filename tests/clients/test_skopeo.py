"""skopeo: copies between layouts, folders and the registry, and looks at what is there."""

import json

import pytest

from holdfast import (DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, LAYER, Client, make_image,
                      push_image, push_manifest, tags)
from clientkit import (ARCHITECTURES, Layout, check_served, layout_blobs, need, run, run_fails,
                       sample_image, sample_index)

PLAIN = ("--src-tls-verify=false", "--dest-tls-verify=false")


@pytest.fixture(autouse=True)
def installed():
    need("skopeo")


def copy(source, target, *flags):
    return run("skopeo", "copy", *PLAIN, *flags, source, target)


def inspect(server, name, *flags):
    return run("skopeo", "inspect", "--tls-verify=false", *flags,
               f"docker://{server.address}/{name}").stdout


def test_copy_there_and_back(server, repo, layout, back):
    digest = layout.tag("v1", sample_image(layout))
    copy(layout.reference("v1"), f"docker://{server.address}/{repo}:v1")
    check_served(server, repo, "v1", digest)

    copy(f"docker://{server.address}/{repo}:v1", back.reference("v1"))
    assert back.tagged("v1") == digest
    assert layout_blobs(back.folder) == layout_blobs(layout.folder)


def test_copy_by_digest(server, repo, layout, back):
    digest = layout.tag("v1", sample_image(layout))
    copy(layout.reference("v1"), f"docker://{server.address}/{repo}@{digest}")
    copy(f"docker://{server.address}/{repo}@{digest}", back.reference("v1"))
    assert back.tagged("v1") == digest
    with Client(server) as client:
        assert tags(client, repo) == []


def test_copy_all_platforms(server, repo, layout, back):
    digest = layout.tag("multi", sample_index(layout))
    copy(layout.reference("multi"), f"docker://{server.address}/{repo}:multi", "--all")
    index = check_served(server, repo, "multi", digest)
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == \
        list(ARCHITECTURES)

    copy(f"docker://{server.address}/{repo}:multi", back.reference("multi"), "--all")
    assert back.tagged("multi") == digest
    assert layout_blobs(back.folder) == layout_blobs(layout.folder)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_copy_one_platform_of_an_index(server, repo, layout, back, architecture):
    layout.tag("multi", sample_index(layout))
    copy(layout.reference("multi"), f"docker://{server.address}/{repo}:multi", "--all")
    run("skopeo", "--override-arch", architecture, "copy", *PLAIN,
        f"docker://{server.address}/{repo}:multi", back.reference("one"))
    config = json.loads(back.read(back.tagged("one")))["config"]
    assert json.loads(back.read(config["digest"]))["architecture"] == architecture


def test_copy_between_repositories(server, repo, layout):
    digest = layout.tag("multi", sample_index(layout))
    copy(layout.reference("multi"), f"docker://{server.address}/{repo}:multi", "--all")
    copy(f"docker://{server.address}/{repo}:multi", f"docker://{server.address}/{repo}/copy:multi",
         "--all")
    check_served(server, f"{repo}/copy", "multi", digest)


def test_second_push_sends_no_blob_again(server, repo, layout):
    layout.tag("v1", sample_image(layout))
    upload = f"POST http://{server.address}/v2/{repo}/blobs/uploads/"
    first, again = [run("skopeo", "--debug", "copy", *PLAIN, layout.reference("v1"),
                        f"docker://{server.address}/{repo}:{tag}").stderr for tag in ("v1", "v2")]
    assert first.count(upload) == 3
    assert again.count(upload) == 0


def test_docker_format(server, repo, layout, back):
    layout.tag("v1", sample_image(layout))
    copy(layout.reference("v1"), f"docker://{server.address}/{repo}:v2s2", "--format", "v2s2")
    manifest = check_served(server, repo, "v2s2")
    assert manifest["mediaType"] == DOCKER_MANIFEST
    assert manifest["config"]["mediaType"] == DOCKER_CONFIG
    assert {part["mediaType"] for part in manifest["layers"]} == {DOCKER_LAYER}

    copy(f"docker://{server.address}/{repo}:v2s2", back.reference("v1"), "--format", "oci")
    layers = json.loads(layout.read(layout.tagged("v1")))["layers"]
    assert json.loads(back.read(back.tagged("v1")))["layers"] == layers


def test_zstd_layers(server, repo, layout, back):
    source = layout.image([{"file": b"text that compresses well\n" * 20000}], compressed=False)
    layout.tag("v1", source)
    copy(layout.reference("v1"), f"docker://{server.address}/{repo}:zstd", "--format", "oci",
         "--dest-compress-format", "zstd")
    manifest = check_served(server, repo, "zstd")
    assert [part["mediaType"] for part in manifest["layers"]] == [LAYER + "+zstd"]
    with Client(server) as client:
        blob = client.get(f"/v2/{repo}/blobs/{manifest['layers'][0]['digest']}")
    assert blob.body.startswith(b"\x28\xb5\x2f\xfd")
    assert "Content-Encoding" not in blob.headers

    copy(f"docker://{server.address}/{repo}:zstd", back.reference("v1"))
    check_served(server, repo, "zstd", back.tagged("v1"))


def test_inspect(server, repo, layout):
    source = sample_image(layout)
    digest = layout.tag("v1", source)
    for tag in ("v1", "v2"):
        copy(layout.reference("v1"), f"docker://{server.address}/{repo}:{tag}")
    seen = json.loads(inspect(server, f"{repo}:v1"))
    assert seen["Digest"] == digest
    assert seen["Name"] == f"{server.address}/{repo}"
    assert seen["RepoTags"] == ["v1", "v2"]
    assert seen["Architecture"] == "amd64"
    manifest = json.loads(layout.read(digest))
    assert seen["Layers"] == [layer["digest"] for layer in manifest["layers"]]
    assert inspect(server, f"{repo}:v1", "--raw").encode() == layout.read(digest)
    config = inspect(server, f"{repo}:v1", "--raw", "--config").encode()
    assert config == layout.read(manifest["config"]["digest"])


def test_list_tags_follows_pages(server, repo):
    image = make_image()
    names = [f"t{number:04}" for number in range(250)]
    with Client(server) as client:
        push_image(client, repo, image)
        for name in names:
            push_manifest(client, repo, image, name)
    listed = json.loads(run("skopeo", "list-tags", "--tls-verify=false",
                            f"docker://{server.address}/{repo}").stdout)
    assert listed["Tags"] == names


def test_delete(server, repo, layout):
    digest = layout.tag("gone", sample_image(layout, "gone"))
    layout.tag("kept", sample_image(layout, "kept"))
    for tag in ("gone", "kept"):
        copy(layout.reference(tag), f"docker://{server.address}/{repo}:{tag}")
    run("skopeo", "delete", "--tls-verify=false", f"docker://{server.address}/{repo}:gone")

    run_fails("skopeo", "inspect", "--tls-verify=false", f"docker://{server.address}/{repo}:gone",
              saying="manifest unknown")
    run_fails("skopeo", "inspect", "--tls-verify=false",
              f"docker://{server.address}/{repo}@{digest}", saying="manifest unknown")
    listed = json.loads(run("skopeo", "list-tags", "--tls-verify=false",
                            f"docker://{server.address}/{repo}").stdout)
    assert listed["Tags"] == ["kept"]
    check_served(server, repo, "kept")


def test_what_is_not_there(server, repo):
    run_fails("skopeo", "inspect", "--tls-verify=false",
              f"docker://{server.address}/{repo}/absent:v1", saying="unknown")
    run_fails("skopeo", "list-tags", "--tls-verify=false",
              f"docker://{server.address}/{repo}/absent", saying="404")


def test_sync_there_and_back(server, repo, layout, tmp_path):
    single = layout.tag("v1", sample_image(layout))
    multi = layout.tag("multi", sample_index(layout))
    for tag in ("v1", "multi"):
        copy(layout.reference(tag), f"docker://{server.address}/{repo}:{tag}", "--all")
    run("skopeo", "sync", "--all", *PLAIN, "--src", "docker", "--dest", "dir",
        f"{server.address}/{repo}", tmp_path / "synced")
    folders = sorted(path.name for path in (tmp_path / "synced").glob("**/*:*"))
    name = repo.rpartition("/")[2]
    assert folders == [f"{name}:multi", f"{name}:v1"]

    run("skopeo", "sync", "--all", *PLAIN, "--src", "dir", "--dest", "docker",
        tmp_path / "synced", f"{server.address}/{repo}-synced")
    check_served(server, f"{repo}-synced/{name}", "v1", single)
    check_served(server, f"{repo}-synced/{name}", "multi", multi)


def test_artifact_with_subject(server, repo, layout):
    """skopeo copies an artifact as any image; the registry lists it under its subject."""
    image = sample_image(layout)
    layout.tag("v1", image)
    kind = "application/vnd.example.sbom.v1+json"
    digest = layout.tag("sbom", layout.artifact(kind, b'{"sbom":true}', subject=image,
                                                annotations={"org.example.note": "first"}))
    copy(layout.reference("v1"), f"docker://{server.address}/{repo}:v1")
    copy(layout.reference("sbom"), f"docker://{server.address}/{repo}:sbom", "--preserve-digests")
    with Client(server) as client:
        answer = client.get(f"/v2/{repo}/referrers/{image['digest']}")
    assert answer.status == 200
    [entry] = answer.json()["manifests"]
    assert entry["digest"] == digest
    assert entry["artifactType"] == kind
    assert entry["annotations"] == {"org.example.note": "first"}
