"""Mounting a blob from another repository. dist-spec 1.1.1, "Mounting a blob from another
repository" and end-11."""

import pytest

from holdfast import (get_blob, make_image, push_blob, push_image, random_bytes, sha256,
                      start_upload, with_query)


def mount(client, repo, digest, source=None):
    text = f"/v2/{repo}/blobs/uploads/?mount={digest}"
    return client.post(text + (f"&from={source}" if source is not None else ""))


def assert_is_session(client, repo, answer):
    """The fallback: 202 and a session that works."""
    assert answer.status == 202, answer
    data = random_bytes()
    assert client.put(with_query(answer.location, digest=sha256(data)), data).status == 201
    assert get_blob(client, repo, sha256(data)) == data


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_blob_is_mounted_from_the_repository_that_has_it(client, repo, algorithm):
    data = random_bytes()
    digest = push_blob(client, repo + "/source", data, algorithm=algorithm)
    answer = mount(client, repo, digest, repo + "/source")
    assert answer.status == 201
    assert answer.location == f"/v2/{repo}/blobs/{digest}"
    assert answer.digest == digest
    assert get_blob(client, repo, digest) == data


@pytest.mark.parametrize("write", [
    lambda d, s: f"mount={d}&from={s}",
    lambda d, s: f"from={s}&mount={d}",
    lambda d, s: f"mount={d.replace(':', '%3A')}&from={s.replace('/', '%2F')}",
    lambda d, s: f"mount={d}&from={s}&origin=registry.example.com",
], ids=["mount first", "from first", "encoded", "with origin"])
def test_clients_write_the_parameters_in_several_ways(client, repo, write):
    data = random_bytes()
    digest = push_blob(client, repo + "/source", data)
    answer = client.post(f"/v2/{repo}/blobs/uploads/?{write(digest, repo + '/source')}")
    assert answer.status == 201
    assert get_blob(client, repo, digest) == data


def test_a_mounted_blob_stays_when_its_source_is_deleted(client, repo):
    data = random_bytes()
    digest = push_blob(client, repo + "/source", data)
    assert mount(client, repo, digest, repo + "/source").status == 201
    assert client.delete(f"/v2/{repo}/source/blobs/{digest}").status == 202
    assert get_blob(client, repo, digest) == data


def test_a_mounted_blob_may_be_used_by_a_manifest(client, repo):
    image = make_image(2)
    for blob in image.blobs:
        push_blob(client, repo + "/source", blob)
        assert mount(client, repo, sha256(blob), repo + "/source").status == 201
    image.blobs = []
    push_image(client, repo, image, "v1")


def test_a_mount_of_what_is_there_already_is_201(client, repo):
    digest = push_blob(client, repo, random_bytes())
    assert mount(client, repo, digest, repo).status == 201
    assert mount(client, repo, digest, repo + "/absent").status in (201, 202)


def test_a_blob_that_the_source_does_not_have_falls_back_to_a_session(client, repo):
    push_blob(client, repo + "/source", random_bytes())
    assert_is_session(client, repo, mount(client, repo, sha256(b"absent" + repo.encode()),
                                          repo + "/source"))


@pytest.mark.parametrize("source", ["no/such/repository", "Bad_NAME", "", "a" * 300, "../x"])
def test_a_source_that_is_missing_or_malformed_falls_back_to_a_session(client, repo, source):
    digest = sha256(b"absent" + repo.encode())
    assert_is_session(client, repo, mount(client, repo, digest, source))


def test_a_blob_that_only_a_third_repository_has_may_not_come_from_the_named_one(client, repo):
    digest = push_blob(client, repo + "/third", random_bytes())
    push_blob(client, repo + "/source", random_bytes())
    answer = mount(client, repo, digest, repo + "/source")
    # Everyone may read everything, so that finding it elsewhere is allowed too.
    assert answer.status in (201, 202)


def test_without_from_a_blob_is_mounted_from_wherever_it_may_be_read(client, repo):
    data = random_bytes()
    digest = push_blob(client, repo + "/anywhere", data)
    answer = mount(client, repo, digest)
    assert answer.status == 201
    assert answer.location == f"/v2/{repo}/blobs/{digest}"
    assert get_blob(client, repo, digest) == data


def test_without_from_a_blob_that_exists_nowhere_falls_back_to_a_session(client, repo):
    assert_is_session(client, repo, mount(client, repo, sha256(b"nowhere" + repo.encode())))


def test_a_blob_deleted_from_every_repository_cannot_be_mounted(client, repo):
    # Its bytes may still be on the disk; knowing a digest must not be enough to get them.
    digest = push_blob(client, repo + "/source", random_bytes())
    assert client.delete(f"/v2/{repo}/source/blobs/{digest}").status == 202
    assert mount(client, repo, digest, repo + "/source").status == 202
    assert mount(client, repo, digest).status == 202
    assert client.head(f"/v2/{repo}/blobs/{digest}").status == 404


def test_bytes_of_an_unfinished_upload_cannot_be_mounted(client, repo):
    data = random_bytes()
    location = start_upload(client, repo + "/source")
    assert client.patch(location, data).status == 202
    assert mount(client, repo, sha256(data), repo + "/source").status == 202
    assert mount(client, repo, sha256(data)).status == 202


@pytest.mark.parametrize("digest", ["nonsense", "sha256:abc", "md5:" + "0" * 32])
def test_a_malformed_digest_to_mount_is_400_or_a_session(client, repo, digest):
    answer = mount(client, repo, digest, repo + "/source")
    assert answer.status in (400, 202)
    assert answer.status == 202 or answer.code == "DIGEST_INVALID"
