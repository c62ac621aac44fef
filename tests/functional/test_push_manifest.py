"""Pushing manifests and indexes. dist-spec 1.1.1, "Pushing manifests"; image-spec 1.1.1."""

import base64
import json
import re

import pytest

from holdfast import (CONFIG, descriptor, digest_of, DOCKER_CONFIG, DOCKER_LAYER, DOCKER_LIST,
                      DOCKER_MANIFEST, EMPTY, encode, get_manifest, INDEX, LAYER, make_artifact,
                      make_image, make_index, MANIFEST, Manifest, OCTETS, pull_image, push_blob,
                      push_image, push_manifest, put_manifest, random_bytes, sha256, with_query)

ABSENT = "sha256:" + "0" * 64


def test_a_push_by_tag_answers_with_the_digest_and_its_location(client, repo):
    image = make_image()
    push_image(client, repo, image)
    answer = push_manifest(client, repo, image, "v1")
    assert answer.digest == image.digest
    assert answer.location == f"/v2/{repo}/manifests/{image.digest}"
    got = client.get(answer.location)
    assert (got.status, got.body, got.headers["Content-Type"]) == (200, image.body, MANIFEST)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_push_by_digest_makes_no_tag(client, repo, algorithm):
    image = make_image()
    push_image(client, repo, image, digest_of(image.body, algorithm))
    assert client.get(f"/v2/{repo}/tags/list").json()["tags"] == []
    assert get_manifest(client, repo, digest_of(image.body, algorithm)).body == image.body


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_push_by_the_digest_of_something_else_is_400_digest_invalid(client, repo, algorithm):
    image = make_image()
    push_image(client, repo, image)
    wrong = digest_of(image.body, algorithm)
    answer = put_manifest(client, repo, wrong, b"  " + image.body)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert client.get(f"/v2/{repo}/manifests/{sha256(b'  ' + image.body)}").status == 404


@pytest.mark.parametrize("digest", ["sha256:baddigeststring", "sha256:" + "A" * 64,
                                    "md5:" + "0" * 32])
def test_a_push_by_a_malformed_digest_is_400(client, repo, digest):
    image = make_image()
    push_image(client, repo, image)
    answer = put_manifest(client, repo, digest, image)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


# ---- What must be accepted ----

def blobs_and(content, *blobs):
    return Manifest(content, blobs)


ACCEPTED = {
    "no layers": lambda: make_image(0),
    "many layers": lambda: make_image(60, 10),
    "the same layer twice": lambda: make_image(layer_blobs=[b"same layer", b"same layer"]),
    "the empty layer": lambda: make_image(layer_blobs=[b""]),
    "the empty config": lambda: make_image(config=b"{}", config_type=EMPTY),
    "a config that is not JSON": lambda: make_image(config=b"\0\1\2 not json"),
    "unknown types": lambda: make_image(config_type="application/vnd.example.config",
                                        layer_type="text/x-unheard-of"),
    "a helm chart": lambda: make_image(
        config_type="application/vnd.cncf.helm.config.v1+json",
        layer_type="application/vnd.cncf.helm.chart.content.v1.tar+gzip"),
    "an artifact": lambda: make_artifact("application/vnd.example.sbom"),
    "annotations": lambda: make_image(annotations={"org.example.title": "ä \u0001 \"x\""}),
    "unknown fields": lambda: make_image(custom={"deep": [1, 2, {"x": None}]}, other=1.5e300),
    "sha512 descriptors": lambda: make_image(2, algorithm="sha512"),
    "a subject that is not there": lambda: make_image(
        subject={"mediaType": MANIFEST, "digest": ABSENT, "size": 1234}),
    "an empty index": lambda: make_index([]),
    "an index": lambda: make_index([make_image(), make_image()]),
    "a nested index": lambda: make_index([make_index([make_image()]), make_image()]),
    "an index with a subject": lambda: make_index(
        [make_image()], subject={"mediaType": MANIFEST, "digest": ABSENT, "size": 1234}),
    "an index with an artifact type": lambda: make_index([], artifactType="application/x.y"),
    "non-ASCII and escapes": lambda: make_image(annotations={"k": "\u2028\ud83d\ude00"}),
    "a Docker image": lambda: make_image(2, media_type=DOCKER_MANIFEST),
    "a Docker list": lambda: make_index([make_image(media_type=DOCKER_MANIFEST)],
                                        media_type=DOCKER_LIST),
    "a Docker list of OCI images": lambda: make_index([make_image()], media_type=DOCKER_LIST),
    "an OCI index of Docker images": lambda: make_index([make_image(media_type=DOCKER_MANIFEST)]),
    "a Docker plugin": lambda: make_image(media_type=DOCKER_MANIFEST,
                                          config_type="application/vnd.docker.plugin.v1+json"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_valid_manifest_is_accepted_and_served_as_it_came(client, repo, name):
    manifest = ACCEPTED[name]()
    for blob in manifest.blobs if name == "sha512 descriptors" else ():
        push_blob(client, repo, blob, algorithm="sha512")
    push_image(client, repo, manifest, "v1")
    answer = pull_image(client, repo, "v1")
    assert answer.body == manifest.body
    assert answer.headers["Content-Type"] == manifest.media_type


def test_a_manifest_may_carry_the_data_of_its_descriptors(client, repo):
    image = make_image()
    image.content["config"]["data"] = base64.b64encode(image.blobs[0]).decode()
    image.body = encode(image.content)
    push_image(client, repo, image, "v1")
    assert pull_image(client, repo, "v1").body == image.body


@pytest.mark.parametrize("layer_type", [
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"])
def test_a_layer_that_may_not_be_distributed_need_not_be_there(client, repo, layer_type):
    image = make_image(layer_blobs=[b"elsewhere" + repo.encode()], layer_type=layer_type)
    image.blobs.pop()
    for blob in image.blobs:
        push_blob(client, repo, blob)
    answer = push_manifest(client, repo, image, "v1")
    # dist-spec 1.1.1, "Warnings": code 299, agent "-", quoted text.
    assert re.fullmatch(r'299 - "[^"\\]+"', answer.headers["Warning"])
    assert get_manifest(client, repo, "v1").body == image.body


def test_a_layer_with_urls_need_not_be_there(client, repo):
    image = make_image(layer_blobs=[b"elsewhere" + repo.encode()])
    image.content["layers"][0]["urls"] = ["https://example.com/layer"]
    image.body = encode(image.content)
    image.blobs.pop()
    push_image(client, repo, image, "v1")


def test_an_index_may_list_blobs(client, repo):
    # Build caches of older BuildKit list their layers in an index.
    layer = random_bytes()
    push_blob(client, repo, layer)
    index = Manifest({"schemaVersion": 2, "mediaType": INDEX,
                      "manifests": [descriptor(layer, LAYER)]})
    push_image(client, repo, index, "cache")


def test_a_manifest_of_almost_4_mib_is_accepted(client, repo):
    image = make_image(annotations={f"key{i}": "x" * 10000 for i in range(415)})
    assert 4_100_000 < len(image.body) < 4 << 20
    push_image(client, repo, image, "large")
    assert get_manifest(client, repo, "large").body == image.body


def test_a_manifest_of_exactly_the_limit_is_accepted_and_one_byte_more_is_413(client, repo):
    image = make_image(annotations={f"key{i}": "x" * 10000 for i in range(415)})
    image.body += b" " * ((4 << 20) - len(image.body))
    push_image(client, repo, image, "limit")
    for body in (image.body + b" ", iter([image.body, b" "])):
        answer = client.put(f"/v2/{repo}/manifests/over", body, {"Content-Type": MANIFEST})
        assert answer.status == 413
        assert answer.code in ("MANIFEST_INVALID", "SIZE_INVALID")
    assert client.head(f"/v2/{repo}/manifests/over").status == 404


# ---- Types ----

@pytest.mark.parametrize("content_type", [
    MANIFEST + "; charset=utf-8", MANIFEST + ";charset=utf-8", None, ""])
def test_parameters_of_the_content_type_are_dropped_and_it_may_be_missing(client, repo,
                                                                         content_type):
    image = make_image()
    push_image(client, repo, image)
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert client.put(f"/v2/{repo}/manifests/v1", image.body, headers).status == 201
    assert client.get(f"/v2/{repo}/manifests/v1").headers["Content-Type"] == MANIFEST


@pytest.mark.parametrize("shape, wanted", [("image", MANIFEST), ("index", INDEX)])
@pytest.mark.parametrize("told", [True, False], ids=["header tells", "shape tells"])
def test_the_type_of_a_manifest_without_media_type_is_found(client, repo, shape, wanted, told):
    manifest = make_image() if shape == "image" else make_index([make_image()])
    del manifest.content["mediaType"]
    manifest.body = encode(manifest.content)
    for blob in manifest.blobs:
        push_blob(client, repo, blob)
    for child in manifest.children:
        push_image(client, repo, child)
    headers = {"Content-Type": wanted} if told else {}
    assert client.put(f"/v2/{repo}/manifests/v1", manifest.body, headers).status == 201
    assert client.get(f"/v2/{repo}/manifests/v1").headers["Content-Type"] == wanted


# ---- What must be refused ----

def changed(**fields):
    """A valid image with fields replaced; None removes one."""
    def make():
        image = make_image()
        for key, value in fields.items():
            if value is None:
                del image.content[key]
            else:
                image.content[key] = value(image) if callable(value) else value
        image.body = encode(image.content)
        return image
    return make


def layer(**fields):
    def make(image):
        entry = {**image.content["layers"][0], **fields}
        return [{k: v for k, v in entry.items() if v is not None}]
    return changed(layers=make)


def body(text):
    return lambda: Manifest({}, body=text if isinstance(text, bytes) else text.encode(),
                            media_type=MANIFEST)


REFUSED = {
    "nothing": body(""),
    "white space": body("  \n"),
    "not JSON": body("not json"),
    "JSON cut off": body('{"schemaVersion":2'),
    "JSON with more after it": body(encode(make_image().content) + b"{}"),
    "an array": body("[]"),
    "a string": body('"x"'),
    "null": body("null"),
    "not UTF-8": body(b'{"schemaVersion":2,"x":"\xff\xfe"}'),
    "a NUL": body(b'{"schemaVersion":2}\0'),
    "deep nesting": body("[" * 100000),
    "deep nesting, closed": body('{"x":' * 5000 + "1" + "}" * 5000),
    "schemaVersion 1": changed(schemaVersion=1),
    "schemaVersion 3": changed(schemaVersion=3),
    "schemaVersion text": changed(schemaVersion="2"),
    "no schemaVersion": changed(schemaVersion=None),
    "no config": changed(config=None),
    "no layers": changed(layers=None),
    "config a string": changed(config="x"),
    "layers an object": changed(layers={}),
    "layers of strings": changed(layers=["x"]),
    "mediaType a number": changed(mediaType=5),
    "a layer without digest": layer(digest=None),
    "a layer without size": layer(size=None),
    "a layer without mediaType": layer(mediaType=None),
    "a negative size": layer(size=-1),
    "a fractional size": layer(size=1.5),
    "a size as text": layer(size="1000"),
    "a malformed digest": layer(digest="sha256:zzz"),
    "an upper-case digest": layer(digest="sha256:" + "A" * 64),
    "a digest that is a number": layer(digest=5),
    "a subject without digest": changed(subject={"mediaType": MANIFEST, "size": 5}),
    "a subject with a malformed digest": changed(subject={"mediaType": MANIFEST, "size": 5,
                                                          "digest": "sha256:.."}),
    "annotations that are not text": changed(annotations={"a": 5}),
    "annotations that are a list": changed(annotations=["a"]),
    "an image that lists manifests": changed(manifests=[]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_manifest_is_400_and_not_stored(client, repo, name):
    manifest = REFUSED[name]()
    for blob in [*manifest.blobs, b"x"]:
        push_blob(client, repo, blob)
    answer = put_manifest(client, repo, "v1", manifest.body, MANIFEST)
    assert answer.status == 400, answer
    assert answer.code in ("MANIFEST_INVALID", "DIGEST_INVALID", "SIZE_INVALID",
                           "MANIFEST_BLOB_UNKNOWN")
    assert answer.errors[0]["message"]
    assert client.get(f"/v2/{repo}/manifests/v1").status == 404
    assert client.get(f"/v2/{repo}/manifests/{sha256(manifest.body)}").status == 404


def test_a_duplicate_key_is_400(client, repo):
    # Two readers of such JSON may see two different images.
    image = make_image()
    push_image(client, repo, image)
    body = image.body.replace(b'"schemaVersion":2', b'"schemaVersion":2,"schemaVersion":2')
    answer = put_manifest(client, repo, "v1", body)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


def test_an_index_with_layers_is_400(client, repo):
    image = make_image()
    push_image(client, repo, image)
    index = make_index([image], layers=image.content["layers"], config=image.content["config"])
    answer = put_manifest(client, repo, "v1", index)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


@pytest.mark.parametrize("content_type", [INDEX, DOCKER_MANIFEST, DOCKER_LIST])
def test_a_header_that_disagrees_with_the_body_is_400(client, repo, content_type):
    image = make_image()
    push_image(client, repo, image)
    answer = put_manifest(client, repo, "v1", image, content_type)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", OCTETS, "nonsense",
                                        "application/vnd.example.manifest.v1+json"])
def test_an_unknown_manifest_type_is_400(client, repo, media_type):
    image = make_image()
    push_image(client, repo, image)
    image.content["mediaType"] = media_type
    answer = put_manifest(client, repo, "v1", encode(image.content), media_type)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


@pytest.mark.parametrize("media_type", [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws"])
def test_schema_1_is_400_and_says_so(client, repo, media_type):
    push_blob(client, repo, b"x")
    manifest = encode({"schemaVersion": 1, "name": repo, "tag": "v1", "architecture": "amd64",
                       "fsLayers": [{"blobSum": sha256(b"x")}], "history": [], "signatures": []})
    answer = put_manifest(client, repo, "v1", manifest, media_type)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
    assert "schema" in answer.errors[0]["message"].lower()


def test_a_wrong_length_of_data_is_400(client, repo):
    image = make_image()
    push_image(client, repo, image)
    image.content["config"]["data"] = base64.b64encode(image.blobs[0] + b"more").decode()
    answer = put_manifest(client, repo, "v1", encode(image.content))
    assert answer.status == 400


# ---- References ----

def test_each_missing_blob_is_named_by_an_error_of_its_own(client, repo):
    image = make_image(3)
    push_blob(client, repo, image.blobs[1])
    answer = put_manifest(client, repo, "v1", image)
    assert answer.status == 400
    assert answer.codes == ["MANIFEST_BLOB_UNKNOWN"] * 3
    missing = {sha256(b) for b in (image.blobs[0], image.blobs[2], image.blobs[3])}
    assert all(any(digest in json.dumps(error) for error in answer.errors) for digest in missing)
    assert sha256(image.blobs[1]) not in answer.body.decode()
    assert client.get(f"/v2/{repo}/manifests/v1").status == 404


def test_a_blob_missing_twice_is_named_once(client, repo):
    image = make_image(config=b"{}", layer_blobs=[b"twice " + repo.encode()] * 2)
    push_blob(client, repo, b"{}")
    assert put_manifest(client, repo, "v1", image).codes == ["MANIFEST_BLOB_UNKNOWN"]


def test_a_very_long_list_of_missing_blobs_is_answered(client, repo):
    push_blob(client, repo, b"{}")
    layers = [{"mediaType": LAYER, "digest": sha256(repo.encode() + bytes([i // 256, i % 256])),
               "size": 5} for i in range(2000)]
    manifest = encode({"schemaVersion": 2, "mediaType": MANIFEST,
                       "config": descriptor(b"{}", CONFIG), "layers": layers})
    answer = put_manifest(client, repo, "v1", manifest)
    assert answer.status == 400
    assert set(answer.codes) == {"MANIFEST_BLOB_UNKNOWN"}


def test_a_blob_of_another_repository_is_missing_here(client, repo):
    image = make_image(1)
    for blob in image.blobs:
        push_blob(client, repo + "/other", blob)
    assert put_manifest(client, repo, "v1", image).codes == ["MANIFEST_BLOB_UNKNOWN"] * 2


def test_a_missing_child_is_named(client, repo):
    child, absent = make_image(), make_image()
    push_image(client, repo, child)
    index = make_index([child, absent])
    answer = put_manifest(client, repo, "v1", index)
    assert (answer.status, answer.codes) == (400, ["MANIFEST_BLOB_UNKNOWN"])
    assert absent.digest in answer.body.decode()


@pytest.mark.parametrize("what", ["config", "layer", "child"])
@pytest.mark.parametrize("difference", [-1, 1, 10**15])
def test_a_size_that_is_not_the_stored_one_is_400(client, repo, what, difference):
    image = make_image()
    push_image(client, repo, image)
    manifest = make_index([image]) if what == "child" else image
    entry = {"config": lambda: manifest.content["config"],
             "layer": lambda: manifest.content["layers"][0],
             "child": lambda: manifest.content["manifests"][0]}[what]()
    entry["size"] += difference
    answer = put_manifest(client, repo, "v1", encode(manifest.content), manifest.media_type)
    assert answer.status == 400
    assert answer.code in ("MANIFEST_INVALID", "SIZE_INVALID")
    assert entry["digest"] in answer.body.decode()


def test_a_digest_of_an_unknown_algorithm_in_a_layer_is_not_a_syntax_error(client, repo):
    # image-spec, "Digests": unrecognised algorithms SHOULD pass validation.
    image = make_image()
    push_image(client, repo, image)
    image.content["layers"][0]["digest"] = "blake3:" + "0" * 64
    answer = put_manifest(client, repo, "v1", encode(image.content))
    assert answer.status == 201 or answer.codes == ["MANIFEST_BLOB_UNKNOWN"]


# ---- The subject ----

@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("shape", ["image", "index"])
def test_a_push_with_a_subject_answers_with_oci_subject(client, repo, shape, there):
    subject = make_image()
    if there:
        push_image(client, repo, subject)
    make = make_image if shape == "image" else make_index
    manifest = make(subject=subject.descriptor())
    for blob in manifest.blobs:
        push_blob(client, repo, blob)
    assert push_manifest(client, repo, manifest).headers["OCI-Subject"] == subject.digest
    assert push_manifest(client, repo, manifest, "v1").headers["OCI-Subject"] == subject.digest


def test_a_push_without_a_subject_answers_without_oci_subject(client, repo):
    image = make_image()
    push_image(client, repo, image)
    assert push_manifest(client, repo, image).headers["OCI-Subject"] is None


# ---- Tag parameters (dist-spec development version, end-7b) ----

def split_tags(answer):
    return [tag.strip() for value in answer.headers.get_all("OCI-Tag", [])
            for tag in value.split(",")]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_push_by_digest_may_set_tags(client, repo, algorithm):
    image = make_image()
    push_image(client, repo, image)
    digest = digest_of(image.body, algorithm)
    wanted = [f"v{i}" for i in range(12)]
    answer = client.put(with_query(f"/v2/{repo}/manifests/{digest}", tag=wanted), image.body,
                        {"Content-Type": MANIFEST})
    assert answer.status == 201
    assert answer.digest == digest
    assert sorted(split_tags(answer)) == sorted(wanted)
    for tag in wanted:
        got = client.get(f"/v2/{repo}/manifests/{tag}")
        assert (got.body, got.digest) == (image.body, digest)


def test_a_malformed_tag_parameter_is_400_and_nothing_is_stored(client, repo):
    image = make_image()
    for blob in image.blobs:
        push_blob(client, repo, blob)
    answer = client.put(with_query(f"/v2/{repo}/manifests/{image.digest}", tag=["good", "-bad-"]),
                        image.body, {"Content-Type": MANIFEST})
    assert answer.status == 400
    assert answer.code in ("TAG_INVALID", "MANIFEST_INVALID", "NAME_INVALID")
    assert client.get(f"/v2/{repo}/manifests/good").status == 404
    assert client.get(f"/v2/{repo}/manifests/{image.digest}").status == 404


def test_a_tag_parameter_beside_a_tag_is_refused(client, repo):
    image = make_image()
    push_image(client, repo, image)
    answer = client.put(f"/v2/{repo}/manifests/v1?tag=v2", image.body, {"Content-Type": MANIFEST})
    assert answer.status == 400
    assert client.get(f"/v2/{repo}/tags/list").json()["tags"] == []


def test_too_many_tag_parameters_are_refused(client, repo):
    image = make_image()
    push_image(client, repo, image)
    answer = client.put(with_query(f"/v2/{repo}/manifests/{image.digest}",
                                   tag=[f"v{i}" for i in range(1000)]), image.body,
                        {"Content-Type": MANIFEST})
    assert answer.status in (413, 414)
    assert client.get(f"/v2/{repo}/tags/list").json()["tags"] == []


def test_a_push_by_digest_without_tags_has_no_oci_tag(client, repo):
    image = make_image()
    push_image(client, repo, image)
    assert push_manifest(client, repo, image).headers["OCI-Tag"] is None


# ---- Docker's types ----

def test_a_docker_image_is_served_with_its_own_type(client, repo):
    image = make_image(2, media_type=DOCKER_MANIFEST)
    assert image.content["config"]["mediaType"] == DOCKER_CONFIG
    assert image.content["layers"][0]["mediaType"] == DOCKER_LAYER
    push_image(client, repo, image, "v1")
    for path in (f"/v2/{repo}/manifests/v1", f"/v2/{repo}/manifests/{image.digest}"):
        answer = client.get(path, {"Accept": MANIFEST})
        assert answer.headers["Content-Type"] == DOCKER_MANIFEST
        assert answer.body == image.body
