"""oras: artifacts, their referrers, blobs, manifests and tags."""

import json

import pytest

from holdfast import Client, sha256, tags
from clientkit import (check_served, go_client, noise, run, run_fails, sample_image, sample_index)

KIND = "application/vnd.example.config.v1"
SBOM = "application/vnd.example.sbom.v1"
SIGNATURE = "application/vnd.example.signature.v1"


@pytest.fixture
def oras(tmp_path):
    program = go_client("oras")
    (tmp_path / "files").mkdir()

    def call(*arguments, **options):
        return run(program, *arguments, **options, cwd=tmp_path / "files",
                   env={"HOME": tmp_path, "DOCKER_CONFIG": tmp_path}).stdout

    call.program = program
    call.folder = tmp_path / "files"
    return call


@pytest.fixture
def name(server, repo):
    return f"{server.address}/{repo}"


def push_artifact(oras, name, tag="v1"):
    """Pushes two files; returns the digest that oras names."""
    (oras.folder / "large.bin").write_bytes(noise(name, 3_000_000))
    (oras.folder / "small.txt").write_text("small")
    told = oras("push", "--plain-http", "--format", "json", "--artifact-type", KIND,
                "--annotation", "org.example=1", f"{name}:{tag}", "large.bin", "small.txt:text/plain")
    return json.loads(told)["digest"]


def attach(oras, name, kind, text, subject="v1"):
    (oras.folder / "attached").write_text(text)
    told = oras("attach", "--plain-http", "--format", "json", "--artifact-type", kind,
                f"{name}{subject if subject.startswith('@') else ':' + subject}", "attached")
    return json.loads(told)["digest"]


def test_push_and_pull(oras, server, repo, name, tmp_path):
    digest = push_artifact(oras, name)
    manifest = check_served(server, repo, "v1", digest)
    assert manifest["artifactType"] == KIND
    assert len(manifest["layers"]) == 2
    oras("pull", "--plain-http", "--output", tmp_path / "back", f"{name}:v1")
    for file in ("large.bin", "small.txt"):
        assert (tmp_path / "back" / file).read_bytes() == (oras.folder / file).read_bytes()


def test_attach_and_discover(oras, server, repo, name):
    subject = push_artifact(oras, name)
    sbom = attach(oras, name, SBOM, "an sbom")
    signature = attach(oras, name, SIGNATURE, "a signature")
    deeper = attach(oras, name, SIGNATURE, "a signature of the sbom", f"@{sbom}")

    def discover(*flags, of="v1"):
        told = oras("discover", "--plain-http", "--format", "json", "--depth", "1", *flags,
                    f"{name}{of if of.startswith('@') else ':' + of}")
        return {entry["digest"] for entry in json.loads(told)["referrers"] or []}

    assert discover() == {sbom, signature}
    assert discover("--artifact-type", SBOM) == {sbom}
    assert discover("--artifact-type", "application/none") == set()
    assert discover(of=f"@{sbom}") == {deeper}

    with Client(server) as client:
        answer = client.get(f"/v2/{repo}/referrers/{subject}")
        assert {entry["digest"] for entry in answer.json()["manifests"]} == {sbom, signature}
        # The server has the referrers API: no client may fall back to tags.
        assert tags(client, repo) == ["v1"]

    oras("manifest", "delete", "--plain-http", "--force", f"{name}@{signature}")
    assert discover() == {sbom}


def test_copy_with_referrers(oras, server, repo, name):
    subject = push_artifact(oras, name)
    sbom = attach(oras, name, SBOM, "an sbom")
    deeper = attach(oras, name, SIGNATURE, "a signature of the sbom", f"@{sbom}")
    oras("cp", "--recursive", "--from-plain-http", "--to-plain-http", f"{name}:v1",
         f"{name}/copy:v1")
    check_served(server, f"{repo}/copy", "v1", subject)
    check_served(server, f"{repo}/copy", sbom, sbom)
    check_served(server, f"{repo}/copy", deeper, deeper)
    with Client(server) as client:
        answer = client.get(f"/v2/{repo}/copy/referrers/{subject}")
    assert [entry["digest"] for entry in answer.json()["manifests"]] == [sbom]


def test_copy_of_an_index_from_a_layout(oras, server, repo, name, layout):
    digest = layout.tag("multi", sample_index(layout))
    oras("cp", "--from-oci-layout", "--to-plain-http", f"{layout.folder}:multi", f"{name}:multi")
    check_served(server, repo, "multi", digest)
    told = oras("manifest", "fetch", "--plain-http", "--platform", "linux/arm64", "--descriptor",
                f"{name}:multi")
    assert json.loads(told)["platform"]["architecture"] == "arm64"


def test_tags(oras, server, repo, name):
    digest = push_artifact(oras, name)
    oras("tag", "--plain-http", f"{name}:v1", "v2", "latest")
    assert oras("repo", "tags", "--plain-http", name).split() == ["latest", "v1", "v2"]
    assert oras("repo", "tags", "--plain-http", "--last", "latest", name).split() == ["v1", "v2"]
    assert oras("resolve", "--plain-http", f"{name}:latest").strip() == digest


def test_repositories(oras, server, repo, name):
    push_artifact(oras, f"{name}/one")
    push_artifact(oras, f"{name}/two")
    assert oras("repo", "ls", "--plain-http", f"{name}/").split() == ["one", "two"]


def test_manifest(oras, server, repo, name, layout):
    image = sample_image(layout)
    layout.tag("v1", image)
    oras("cp", "--from-oci-layout", "--to-plain-http", f"{layout.folder}:v1", f"{name}:v1")
    fetched = oras("manifest", "fetch", "--plain-http", f"{name}:v1")
    assert sha256(fetched.encode()) == image["digest"]

    (oras.folder / "manifest.json").write_text(fetched)
    oras("manifest", "push", "--plain-http", f"{name}:again,third", "manifest.json")
    check_served(server, repo, "third", image["digest"])
    oras("manifest", "delete", "--plain-http", "--force", f"{name}:again")
    run_fails(oras.program, "manifest", "fetch", "--plain-http", f"{name}:again",
              saying="not found")


def test_blob(oras, server, name):
    data = noise(name, 5_000_000)
    (oras.folder / "blob").write_bytes(data)
    told = oras("blob", "push", "--plain-http", "--descriptor", name, "blob")
    digest = json.loads(told)["digest"]
    assert digest == sha256(data)
    oras("blob", "fetch", "--plain-http", "--output", "back", f"{name}@{digest}")
    assert (oras.folder / "back").read_bytes() == data
    oras("blob", "delete", "--plain-http", "--force", f"{name}@{digest}")
    run_fails(oras.program, "blob", "fetch", "--plain-http", "--output", "/dev/null",
              f"{name}@{digest}", saying="not found")
