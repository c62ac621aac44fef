"""Deleting tags, manifests and blobs. dist-spec 1.1.1, "Content Management"."""

import pytest

from holdfast import (get_blob, make_image, make_index, push_blob, push_image, push_manifest,
                      random_bytes, sha256, tags)

ABSENT = "sha256:" + "0" * 64


def test_deleting_a_tag_removes_it_at_once_and_keeps_the_manifest(client, repo):
    image = make_image()
    push_image(client, repo, image, "v1")
    push_manifest(client, repo, image, "v2")
    assert client.delete(f"/v2/{repo}/manifests/v1").status == 202
    assert client.head(f"/v2/{repo}/manifests/v1").status == 404
    assert client.get(f"/v2/{repo}/manifests/v1").code == "MANIFEST_UNKNOWN"
    assert client.get(f"/v2/{repo}/manifests/v2").status == 200
    assert client.get(f"/v2/{repo}/manifests/{image.digest}").status == 200
    assert tags(client, repo) == ["v2"]


def test_deleting_the_last_tag_keeps_the_manifest(client, repo):
    image = make_image()
    push_image(client, repo, image, "v1")
    assert client.delete(f"/v2/{repo}/manifests/v1").status == 202
    assert client.get(f"/v2/{repo}/manifests/{image.digest}").body == image.body
    assert tags(client, repo) == []


def test_deleting_a_manifest_removes_its_tags_too(client, repo):
    image, other = make_image(), make_image()
    push_image(client, repo, image, "v1")
    push_manifest(client, repo, image, "v2")
    push_image(client, repo, other, "other")
    assert client.delete(f"/v2/{repo}/manifests/{image.digest}").status == 202
    for reference in (image.digest, "v1", "v2"):
        assert client.head(f"/v2/{repo}/manifests/{reference}").status == 404
        assert client.get(f"/v2/{repo}/manifests/{reference}").status == 404
    assert tags(client, repo) == ["other"]


def test_a_deleted_manifest_may_be_pushed_again(client, repo):
    image = make_image()
    push_image(client, repo, image, "v1")
    assert client.delete(f"/v2/{repo}/manifests/{image.digest}").status == 202
    push_image(client, repo, image, "v1")
    assert client.get(f"/v2/{repo}/manifests/v1").body == image.body


def test_a_manifest_pushed_by_sha512_is_deleted_by_sha512(client, repo):
    image = make_image()
    push_image(client, repo, image, image.sha512)
    assert client.delete(f"/v2/{repo}/manifests/{image.sha512}").status == 202
    assert client.head(f"/v2/{repo}/manifests/{image.sha512}").status == 404


def test_deleting_a_blob_hides_it_at_once(client, repo):
    digest = push_blob(client, repo, random_bytes())
    assert client.delete(f"/v2/{repo}/blobs/{digest}").status == 202
    assert client.head(f"/v2/{repo}/blobs/{digest}").status == 404
    assert client.get(f"/v2/{repo}/blobs/{digest}").code == "BLOB_UNKNOWN"


def test_deleting_a_blob_here_keeps_it_elsewhere(client, repo):
    data = random_bytes()
    for name in (repo, repo + "/other"):
        push_blob(client, name, data)
    assert client.delete(f"/v2/{repo}/blobs/{sha256(data)}").status == 202
    assert client.head(f"/v2/{repo}/blobs/{sha256(data)}").status == 404
    assert get_blob(client, repo + "/other", sha256(data)) == data


def test_a_deleted_blob_may_be_pushed_again(client, repo):
    data = random_bytes()
    for _ in range(3):
        digest = push_blob(client, repo, data)
        assert get_blob(client, repo, digest) == data
        assert client.delete(f"/v2/{repo}/blobs/{digest}").status == 202


@pytest.mark.parametrize("path, code", [
    (f"manifests/{ABSENT}", "MANIFEST_UNKNOWN"), ("manifests/absent", "MANIFEST_UNKNOWN"),
    (f"blobs/{ABSENT}", "BLOB_UNKNOWN")])
def test_deleting_what_is_not_there_is_404(client, repo, path, code):
    push_image(client, repo, make_image(), "v1")
    answer = client.delete(f"/v2/{repo}/{path}")
    assert (answer.status, answer.code) == (404, code)


@pytest.mark.parametrize("path", [f"manifests/{ABSENT}", "manifests/v1", f"blobs/{ABSENT}"])
def test_deleting_in_an_unknown_repository_is_404(client, repo, path):
    assert client.delete(f"/v2/{repo}/{path}").status == 404


@pytest.mark.parametrize("path", ["manifests/sha256:abc", "blobs/sha256:abc", "blobs/v1"])
def test_deleting_by_a_malformed_digest_is_400(client, repo, path):
    push_image(client, repo, make_image(), "v1")
    answer = client.delete(f"/v2/{repo}/{path}")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_deleting_twice_is_202_then_404(client, repo):
    image = make_image()
    push_image(client, repo, image, "v1")
    blob = sha256(image.blobs[0])
    for path in ("manifests/v1", f"manifests/{image.digest}", f"blobs/{blob}"):
        assert client.delete(f"/v2/{repo}/{path}").status == 202
        assert client.delete(f"/v2/{repo}/{path}").status == 404


def test_all_of_an_image_can_be_deleted_from_the_top_down(client, repo):
    image = make_image(2)
    index = make_index([image])
    push_image(client, repo, index, "v1")
    paths = ["manifests/v1", f"manifests/{index.digest}", f"manifests/{image.digest}",
             *(f"blobs/{sha256(b)}" for b in image.blobs)]
    for path in paths:
        assert client.delete(f"/v2/{repo}/{path}").status == 202, path
        assert client.head(f"/v2/{repo}/{path}").status == 404, path


def test_a_blob_that_a_manifest_needs_is_405_unsupported_and_stays(client, repo):
    # A registry may refuse a deletion (405); a pull must never find half an image.
    image = make_image()
    push_image(client, repo, image, "v1")
    for blob in image.blobs:
        answer = client.delete(f"/v2/{repo}/blobs/{sha256(blob)}")
        assert (answer.status, answer.code) == (405, "UNSUPPORTED")
        assert get_blob(client, repo, sha256(blob)) == blob


def test_a_manifest_that_an_index_lists_is_405_unsupported_and_stays(client, repo):
    image = make_image()
    push_image(client, repo, make_index([image]), "multi")
    answer = client.delete(f"/v2/{repo}/manifests/{image.digest}")
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")
    assert client.get(f"/v2/{repo}/manifests/{image.digest}").status == 200


def test_a_blob_needed_elsewhere_can_be_deleted_here(client, repo):
    image = make_image()
    push_image(client, repo + "/other", image, "v1")
    digest = push_blob(client, repo, image.blobs[0])
    assert client.delete(f"/v2/{repo}/blobs/{digest}").status == 202
    assert get_blob(client, repo + "/other", digest) == image.blobs[0]


def test_deleting_a_tag_leaves_other_repositories_alone(client, repo):
    image = make_image()
    for name in (repo, repo + "/other"):
        push_image(client, name, image, "v1")
    assert client.delete(f"/v2/{repo}/manifests/v1").status == 202
    assert client.delete(f"/v2/{repo}/manifests/{image.digest}").status == 202
    assert client.get(f"/v2/{repo}/other/manifests/v1").body == image.body
