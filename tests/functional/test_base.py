"""What every answer has in common, and the paths that exist. dist-spec 1.1.1, end-1."""

import pytest

from holdfast import make_image, push_blob, push_image, put_manifest, random_bytes, sha256

ABSENT = "sha256:" + "0" * 64


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_base_answers_200(client, method, path):
    answer = client.request(method, path)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.body == (b"{}" if method == "GET" else b"")


@pytest.mark.parametrize("path", [
    "/v2/", "/v2/no/such/tags/list", f"/v2/no/such/blobs/{ABSENT}", "/v2/no/such/manifests/v1",
    "/v2/_catalog", f"/v2/no/such/referrers/{ABSENT}", "/v2/No/manifests/v1"])
def test_every_v2_answer_names_the_api_version(client, path):
    assert client.get(path).headers["Docker-Distribution-API-Version"] == "registry/2.0"


@pytest.mark.parametrize("path", ["/", "/v1/", "/v3/", "/v2/foo", "/v2/_unknown", "/v2//tags/list",
                                  "/v2/a/b/unknown/x", "/v2/a/blobs/", "/v2/a/manifests/"])
def test_an_unknown_path_is_404_or_400_without_redirect(client, path):
    assert client.get(path).status in (404, 400)


@pytest.mark.parametrize("method, path", [
    ("POST", "/v2/"), ("PUT", "/v2/"), ("DELETE", "/v2/a/tags/list"), ("POST", "/v2/_catalog"),
    ("PATCH", "/v2/a/manifests/v1"), ("POST", f"/v2/a/blobs/{ABSENT}"),
    ("PUT", f"/v2/a/referrers/{ABSENT}"), ("OPTIONS", "/v2/"), ("BREW", "/v2/")])
def test_a_method_that_a_path_does_not_have_is_405_unsupported(client, method, path):
    answer = client.request(method, path)
    assert answer.status == 405, answer
    assert answer.code == "UNSUPPORTED"


def test_a_405_names_the_methods_that_exist(client):
    # RFC 9110, section 15.5.6: an Allow header MUST be there.
    allowed = client.post("/v2/_catalog").headers["Allow"]
    assert {"GET", "HEAD"} <= {word.strip() for word in allowed.split(",")}


@pytest.mark.parametrize("name", [
    "a", "0", "a/b", "a/b/c/d/e/f/g", "a-b", "a--b", "a---b", "a.b", "a_b", "a__b", "a1/2b",
    "manifests", "blobs", "tags", "uploads", "referrers", "a/manifests/b", "a/blobs/b",
    "a/blobs/uploads", "a/tags/list", "tags/list", "a/referrers/b", "v2", "list"])
def test_a_repository_may_have_any_name_of_the_grammar(client, name):
    image = make_image()
    push_image(client, name, image, "v1")
    assert client.get(f"/v2/{name}/manifests/v1").body == image.body
    assert client.get(f"/v2/{name}/manifests/{image.digest}").body == image.body
    assert client.get(f"/v2/{name}/blobs/{sha256(image.blobs[0])}").body == image.blobs[0]
    assert client.get(f"/v2/{name}/tags/list").json() == {"name": name, "tags": ["v1"]}
    assert client.get(f"/v2/{name}/referrers/{image.digest}").status == 200


BAD_NAMES = ["A", "a/B", "_a", "-a", "a-", "a_", "a.", "a..b", "a___b", "a/_b", "a//b", "/a", "a/",
             "a b", "a+b", "a:b", "a/../b", "%61%ff", "é", "a" * 256]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_repository_name_outside_the_grammar_is_refused(client, name):
    path = name.replace(" ", "%20").replace("é", "%C3%A9")
    for answer in (client.post(f"/v2/{path}/blobs/uploads/"),
                   put_manifest(client, path, "v1", make_image(0))):
        assert answer.status in (400, 404), answer
        assert answer.code == "NAME_INVALID", answer


def test_a_name_of_255_bytes_is_accepted(client):
    name = "/".join(["a" * 63] * 3 + ["b" * 63])
    assert len(name) == 255
    push_image(client, name, make_image(), "v1")


@pytest.mark.parametrize("tag", ["a", "A", "_", "0", "latest", "v1.2.3-rc_1", "_.-", "a" * 128])
def test_a_tag_of_the_grammar_is_accepted(client, repo, tag):
    image = make_image()
    push_image(client, repo, image, tag)
    assert client.get(f"/v2/{repo}/manifests/{tag}").body == image.body


@pytest.mark.parametrize("tag", [".a", "-a", "a" * 129, "a+b", "a%20b", "a%2Fb", "%C3%A9", "a%00",
                                 "a@b", "%"])
def test_a_tag_outside_the_grammar_is_refused(client, repo, tag):
    image = make_image(0)
    push_image(client, repo, image)
    answer = put_manifest(client, repo, tag, image)
    assert answer.status in (400, 404), answer
    assert client.get(f"/v2/{repo}/tags/list").json()["tags"] == []


BAD_DIGESTS = [
    "sha256:abc", "sha256:" + "g" * 64, "sha256:" + "A" * 64, "sha256:" + "0" * 63,
    "sha256:" + "0" * 65, "sha512:" + "0" * 64, "md5:" + "0" * 32, "sha256:", ":" + "0" * 64,
    "sha256:" + "0" * 64 + ":", "SHA256:" + "0" * 64, "sha256:" + "0" * 10000]


@pytest.mark.parametrize("digest", BAD_DIGESTS)
def test_a_blob_with_a_malformed_digest_is_400_digest_invalid(client, repo, digest):
    push_blob(client, repo, random_bytes())
    answer = client.get(f"/v2/{repo}/blobs/{digest}")
    assert answer.status in (400, 414), answer
    if answer.status == 400:
        assert answer.code == "DIGEST_INVALID"


@pytest.mark.parametrize("digest", BAD_DIGESTS)
def test_a_manifest_with_a_malformed_digest_is_not_found_or_refused(client, repo, digest):
    push_image(client, repo, make_image())
    answer = client.get(f"/v2/{repo}/manifests/{digest}")
    assert answer.status in (400, 404, 414), answer
    assert answer.code in ("DIGEST_INVALID", "MANIFEST_UNKNOWN", "MANIFEST_INVALID", "TAG_INVALID",
                           None if answer.status == 414 else "DIGEST_INVALID"), answer


def test_a_digest_in_a_path_may_be_percent_encoded(client, repo):
    data = random_bytes()
    digest = push_blob(client, repo, data)
    assert client.get(f"/v2/{repo}/blobs/{digest.replace(':', '%3A')}").body == data
    assert client.get(f"/v2/{repo}/blobs/{digest.replace(':', '%3a')}").body == data


def test_a_query_that_means_nothing_is_ignored(client, repo):
    image = make_image()
    push_image(client, repo, image, "v1")
    assert client.get(f"/v2/{repo}/manifests/v1?ns=docker.io&x=%F0&&=").status in (200, 400)
    assert client.get(f"/v2/{repo}/manifests/v1?ns=docker.io").body == image.body


def test_an_accept_encoding_changes_nothing(client, repo):
    image = make_image(config=b"{" + b" " * 100000 + b"}")
    push_image(client, repo, image, "v1")
    wanted = {"Accept-Encoding": "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5"}
    for path in ("manifests/v1", f"blobs/{sha256(image.blobs[0])}", "tags/list"):
        answer = client.get(f"/v2/{repo}/{path}", wanted)
        assert answer.headers["Content-Encoding"] is None
        assert answer.headers["Content-Length"] == str(len(answer.body))
