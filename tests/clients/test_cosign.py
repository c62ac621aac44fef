"""cosign: signatures, attestations and SBOMs, as tags beside the image and as referrers.

Nothing is asked outside: a key signs, and no transparency log is written or read.
"""

import json

import pytest

from holdfast import Client, push_image, make_image, tags
from clientkit import check_served, go_client, run, run_fails

HTTP = ("--allow-http-registry", "--allow-insecure-registry")
OFFLINE = ("--tlog-upload=false", "--yes")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a key pair."""
    program = go_client("cosign")
    home = tmp_path_factory.mktemp("cosign")
    run(program, "generate-key-pair", cwd=home, env=environment(home))
    return home


def environment(home):
    """A proxy that is not there keeps cosign from asking its public services; the registry on
    the loopback address is asked without it."""
    return {"HOME": home, "COSIGN_PASSWORD": "secret", "TUF_ROOT": home / "tuf",
            "DOCKER_CONFIG": home, "COSIGN_EXPERIMENTAL": "1",
            "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}


@pytest.fixture
def cosign(home):
    program = go_client("cosign")

    def call(*arguments, **options):
        return run(program, *arguments, env=environment(home), cwd=home, **options).stdout

    call.fails = lambda *arguments, saying: run_fails(program, *arguments, env=environment(home),
                                                      cwd=home, saying=saying)
    return call


@pytest.fixture
def image(server, repo):
    """The name of an image by its digest, which is what one signs."""
    with Client(server) as client:
        digest = push_image(client, repo, make_image(), "v1")
    return f"{server.address}/{repo}@{digest}"


def verify(cosign, image, *flags):
    return json.loads(cosign("verify", *HTTP, "--key", "cosign.pub", "--insecure-ignore-tlog=true",
                             *flags, image))


def referrers(server, repo, image):
    with Client(server) as client:
        answer = client.get(f"/v2/{repo}/referrers/{image.partition('@')[2]}")
    assert answer.status == 200
    return answer.json()["manifests"]


def test_sign_as_tag(cosign, server, repo, image):
    cosign("sign", *HTTP, *OFFLINE, "--key", "cosign.key", "-a", "by=test", image)
    digest = image.partition("@")[2]
    with Client(server) as client:
        assert tags(client, repo) == [digest.replace(":", "-") + ".sig", "v1"]
    [payload] = verify(cosign, image)
    assert payload["critical"]["image"]["docker-manifest-digest"] == digest
    assert payload["optional"]["by"] == "test"

    cosign("sign", *HTTP, *OFFLINE, "--key", "cosign.key", "-a", "by=again", image)
    assert len(verify(cosign, image)) == 2
    cosign("clean", *HTTP, "--force", image)
    cosign.fails("verify", *HTTP, "--key", "cosign.pub", "--insecure-ignore-tlog=true", image,
                 saying="no signatures found")


def test_sign_as_referrer(cosign, server, repo, image):
    cosign("sign", *HTTP, *OFFLINE, "--key", "cosign.key", "--registry-referrers-mode=oci-1-1",
           image)
    with Client(server) as client:
        assert tags(client, repo) == ["v1"]
    [entry] = referrers(server, repo, image)
    check_served(server, repo, entry["digest"])
    [payload] = verify(cosign, image, "--experimental-oci11=true")
    assert payload["critical"]["image"]["docker-manifest-digest"] == image.partition("@")[2]


def test_sign_as_bundle(cosign, server, repo, image, tmp_path):
    (tmp_path / "root.json").write_text(
        '{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}')
    cosign("sign", *HTTP, *OFFLINE, "--key", "cosign.key", "--new-bundle-format=true",
           "--use-signing-config=false", image)
    [entry] = referrers(server, repo, image)
    assert entry["artifactType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    verify(cosign, image, "--new-bundle-format=true", "--trusted-root", tmp_path / "root.json")


def test_another_key_is_refused(cosign, home, image, tmp_path):
    cosign("sign", *HTTP, *OFFLINE, "--key", "cosign.key", image)
    run(go_client("cosign"), "generate-key-pair", cwd=tmp_path, env=environment(home))
    cosign.fails("verify", *HTTP, "--key", tmp_path / "cosign.pub", "--insecure-ignore-tlog=true",
                 image, saying="no matching signatures")


def test_attest(cosign, server, repo, image, tmp_path):
    (tmp_path / "predicate.json").write_text('{"built": "by a test"}')
    cosign("attest", *HTTP, *OFFLINE, "--key", "cosign.key", "--predicate",
           tmp_path / "predicate.json", "--type", "https://example.org/built", image)
    done = cosign("verify-attestation", *HTTP, "--key", "cosign.pub", "--insecure-ignore-tlog=true",
                  "--type", "https://example.org/built", image)
    assert json.loads(done)["payloadType"] == "application/vnd.in-toto+json"
    with Client(server) as client:
        assert image.partition("@")[2].replace(":", "-") + ".att" in tags(client, repo)


def test_attach_sbom(cosign, server, repo, image, tmp_path):
    (tmp_path / "sbom.json").write_text('{"spdxVersion": "SPDX-2.3"}')
    cosign("attach", "sbom", *HTTP, "--sbom", tmp_path / "sbom.json", image)
    assert cosign("download", "sbom", *HTTP, image) == '{"spdxVersion": "SPDX-2.3"}'
    tree = cosign("tree", *HTTP, image)
    assert "SBOMs" in tree


def test_attach_sbom_as_referrer(cosign, server, repo, image, tmp_path):
    (tmp_path / "sbom.json").write_text('{"spdxVersion": "SPDX-2.3"}')
    cosign("attach", "sbom", *HTTP, "--registry-referrers-mode=oci-1-1", "--sbom",
           tmp_path / "sbom.json", image)
    [entry] = referrers(server, repo, image)
    check_served(server, repo, entry["digest"])


def test_copy_with_signatures(cosign, server, repo, image):
    cosign("sign", *HTTP, *OFFLINE, "--key", "cosign.key", image)
    cosign("copy", *HTTP, f"{server.address}/{repo}:v1", f"{server.address}/{repo}/copy:v1")
    verify(cosign, f"{server.address}/{repo}/copy@{image.partition('@')[2]}")
