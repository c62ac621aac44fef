"""The referrers API. dist-spec 1.1.1, "Listing Referrers"."""

import pytest

from holdfast import (Client, EMPTY, encode, INDEX, make_artifact, make_image, make_index, MANIFEST,
                      next_page, push_blob, push_image, put_manifest, random_name, sha256)

SBOM, SIGNATURE = "application/vnd.example.sbom", "application/vnd.example.signature"
ABSENT = "sha256:" + "0" * 64


def referrers(client, repo, digest, query=""):
    """One page: the answer and its descriptors; the form is checked."""
    path = repo if repo.startswith("/v2/") else f"/v2/{repo}/referrers/{digest}{query}"
    answer = client.get(path)
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == INDEX
    content = answer.json()
    assert (content["schemaVersion"], content["mediaType"]) == (2, INDEX)
    assert isinstance(content["manifests"], list)
    return answer, content["manifests"]


def all_pages(client, repo, digest, query=""):
    found, pages = [], 0
    answer, page = referrers(client, repo, digest, query)
    while True:
        found += page
        pages += 1
        path = next_page(answer)
        if path is None:
            return found, pages
        assert path.startswith("/v2/")
        answer, page = referrers(client, path, digest)


@pytest.fixture(scope="module")
def family(server):
    """A subject with three SBOMs and two signatures."""
    repo = random_name("test/referrers")
    subject = make_image()
    with Client(server) as client:
        push_image(client, repo, subject, "v1")
        made = []
        for kind in (SBOM, SIGNATURE, SBOM, SIGNATURE, SBOM):
            artifact = make_artifact(kind, subject.descriptor(),
                                     annotations={"number": str(len(made))})
            push_image(client, repo, artifact)
            made.append(artifact)
    return repo, subject, made


def test_every_referrer_is_listed_with_its_descriptor(client, family):
    repo, subject, made = family
    answer, found = referrers(client, repo, subject.digest)
    wanted = [{"mediaType": MANIFEST, "digest": a.digest, "size": len(a.body),
               "artifactType": a.content["artifactType"],
               "annotations": a.content["annotations"]} for a in made]
    key = lambda d: d["digest"]
    assert sorted(found, key=key) == sorted(wanted, key=key)
    assert answer.headers["OCI-Filters-Applied"] is None
    assert answer.headers["Link"] is None


@pytest.mark.parametrize("kind, count", [(SBOM, 3), (SIGNATURE, 2), ("application/vnd.none", 0),
                                         (SBOM.upper(), 0), ("application/*", 0)])
def test_the_filter_gives_exactly_that_artifact_type_and_says_so(client, family, kind, count):
    repo, subject, _ = family
    answer, found = referrers(client, repo, subject.digest, f"?artifactType={kind}")
    assert len(found) == count
    assert all(d["artifactType"] == kind for d in found)
    assert answer.headers["OCI-Filters-Applied"] == "artifactType"


def test_a_filter_may_be_percent_encoded_and_hold_a_plus(client, repo):
    subject, kind = make_image(), "application/vnd.x+json"
    push_image(client, repo, make_artifact(kind, subject.descriptor()))
    for text in (kind, kind.replace("/", "%2F").replace("+", "%2B")):
        assert len(referrers(client, repo, subject.digest, f"?artifactType={text}")[1]) == 1


def test_a_repeated_filter_means_any_of_them_or_is_not_applied(client, family):
    repo, subject, _ = family
    answer, found = referrers(client, repo, subject.digest,
                              f"?artifactType={SBOM}&artifactType=application/vnd.none")
    if answer.headers["OCI-Filters-Applied"] is None:
        assert len(found) == 5
    else:
        assert len(found) == 3


@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_pages_of_n_give_each_referrer_once(client, family, n):
    repo, subject, made = family
    found, pages = all_pages(client, repo, subject.digest, f"?n={n}")
    assert sorted(d["digest"] for d in found) == sorted(a.digest for a in made)
    assert pages == -(-5 // n)


def test_pages_keep_the_filter(client, family):
    repo, subject, _ = family
    found, pages = all_pages(client, repo, subject.digest, f"?artifactType={SBOM}&n=1")
    assert [d["artifactType"] for d in found] == [SBOM] * 3
    assert pages == 3


def test_an_answer_stays_below_the_manifest_limit_of_clients(client, repo):
    subject = make_image()
    push_image(client, repo, subject)
    made = []
    for i in range(6):
        artifact = make_artifact(SBOM, subject.descriptor(),
                                 annotations={f"k{j}": "x" * 10000 for j in range(100 + i)})
        push_image(client, repo, artifact)
        made.append(artifact.digest)
    answer, _ = referrers(client, repo, subject.digest)
    assert len(answer.body) <= 4 << 20
    found, pages = all_pages(client, repo, subject.digest)
    assert sorted(d["digest"] for d in found) == sorted(made)
    assert pages == 2


def test_a_subject_without_referrers_has_an_empty_list(client, repo):
    image = make_image()
    push_image(client, repo, image)
    assert referrers(client, repo, image.digest)[1] == []


@pytest.mark.parametrize("digest", [ABSENT, "sha512:" + "0" * 128])
def test_an_unknown_digest_or_repository_has_an_empty_list(client, repo, digest):
    assert referrers(client, repo, digest)[1] == []
    push_blob(client, repo, b"x")
    assert referrers(client, repo, digest)[1] == []
    answer, _ = referrers(client, repo, digest, f"?artifactType={SBOM}")
    assert answer.headers["OCI-Filters-Applied"] == "artifactType"


@pytest.mark.parametrize("digest", ["latest", "sha256:abc", "sha256:" + "A" * 64,
                                    "md5:" + "0" * 32])
def test_a_malformed_digest_is_400(client, repo, digest):
    answer = client.get(f"/v2/{repo}/referrers/{digest}")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_referrers_of_a_subject_that_was_never_pushed_are_listed(client, repo):
    absent = make_image()
    artifact = make_artifact(SBOM, absent.descriptor())
    push_image(client, repo, artifact)
    assert [d["digest"] for d in referrers(client, repo, absent.digest)[1]] == [artifact.digest]


def test_the_artifact_type_of_an_image_is_its_configs_type(client, repo):
    subject = make_image()
    image = make_image(config_type="application/vnd.example.config", subject=subject.descriptor())
    push_image(client, repo, image)
    found = referrers(client, repo, subject.digest)[1]
    assert [d["artifactType"] for d in found] == ["application/vnd.example.config"]
    query = "?artifactType=application/vnd.example.config"
    assert len(referrers(client, repo, subject.digest, query)[1]) == 1


def test_an_index_without_artifact_type_has_none_in_the_list(client, repo):
    subject = make_image()
    index = make_index([], subject=subject.descriptor())
    push_image(client, repo, index)
    (found,) = referrers(client, repo, subject.digest)[1]
    assert found == {"mediaType": INDEX, "digest": index.digest, "size": len(index.body)}


def test_an_index_may_refer_with_type_and_annotations(client, repo):
    subject = make_image()
    index = make_index([], subject=subject.descriptor(), artifactType=SBOM, annotations={"a": "b"})
    push_image(client, repo, index)
    (found,) = referrers(client, repo, subject.digest)[1]
    assert (found["artifactType"], found["annotations"]) == (SBOM, {"a": "b"})


def test_annotations_come_back_as_they_were(client, repo):
    subject = make_image()
    annotations = {"quote": '"\\/', "control": "\u0001\n", "smile": "\U0001f600", "": "empty key",
                   "empty": ""}
    push_image(client, repo, make_artifact(SBOM, subject.descriptor(), annotations=annotations))
    assert referrers(client, repo, subject.digest)[1][0]["annotations"] == annotations


def test_referrers_are_of_one_repository(client, repo):
    subject = make_image()
    push_image(client, repo + "/other", make_artifact(SBOM, subject.descriptor()))
    push_image(client, repo, subject)
    assert referrers(client, repo, subject.digest)[1] == []


def test_a_referrer_pushed_twice_is_listed_once(client, repo):
    subject = make_image()
    artifact = make_artifact(SBOM, subject.descriptor())
    for reference in (None, "a", "b"):
        push_image(client, repo, artifact, reference)
    assert len(referrers(client, repo, subject.digest)[1]) == 1


def test_a_deleted_referrer_is_no_longer_listed(client, repo):
    subject = make_image()
    artifact = make_artifact(SBOM, subject.descriptor())
    push_image(client, repo, artifact)
    assert client.delete(f"/v2/{repo}/manifests/{artifact.digest}").status == 202
    assert referrers(client, repo, subject.digest)[1] == []


def test_referrers_stay_reachable_when_their_subject_is_deleted(client, repo):
    subject = make_image()
    artifact = make_artifact(SBOM, subject.descriptor())
    push_image(client, repo, subject)
    push_image(client, repo, artifact)
    assert client.delete(f"/v2/{repo}/manifests/{subject.digest}").status == 202
    assert len(referrers(client, repo, subject.digest)[1]) == 1
    assert client.get(f"/v2/{repo}/manifests/{artifact.digest}").status == 200


def test_a_referrer_may_itself_have_referrers(client, repo):
    subject = make_image()
    sbom = make_artifact(SBOM, subject.descriptor())
    signature = make_artifact(SIGNATURE, sbom.descriptor())
    for manifest in (subject, sbom, signature):
        push_image(client, repo, manifest)
    assert [d["digest"] for d in referrers(client, repo, sbom.digest)[1]] == [signature.digest]
    assert [d["digest"] for d in referrers(client, repo, subject.digest)[1]] == [sbom.digest]


def test_a_subject_named_by_sha512_has_its_referrers_there(client, repo):
    subject = make_image()
    artifact = make_artifact(SBOM, subject.descriptor("sha512"))
    push_image(client, repo, subject)
    push_image(client, repo, artifact)
    assert [d["digest"] for d in referrers(client, repo, subject.sha512)[1]] == [artifact.digest]


def test_clients_that_keep_fallback_tags_can_do_so(client, repo):
    # dist-spec 1.1.1, "Referrers Tag Schema": pull, append, push, under a condition.
    subject, artifact = make_image(), make_artifact(SBOM)
    push_image(client, repo, subject)
    push_image(client, repo, artifact)
    tag = subject.digest.replace(":", "-")
    index = make_index([artifact])
    assert put_manifest(client, repo, tag, index).status == 201
    etag = client.get(f"/v2/{repo}/manifests/{tag}").headers["ETag"]
    assert client.put(f"/v2/{repo}/manifests/{tag}", encode(make_index([]).content),
                      {"Content-Type": INDEX, "If-Match": etag}).status == 201


def test_the_empty_config_is_the_one_of_the_specification():
    # image-spec 1.1.1, "Guidance for an Empty Descriptor"; guards the builders of these tests.
    artifact = make_artifact(SBOM)
    assert artifact.content["config"] == {
        "mediaType": EMPTY, "size": 2,
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}
    assert sha256(b"{}") == artifact.content["config"]["digest"]
