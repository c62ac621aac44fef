"""The error body, and each code of the specification. dist-spec 1.1.1, "Error Codes"."""

import re
import socket

import pytest

from holdfast import (Client, encode, make_image, MANIFEST, push_blob, push_image, put_manifest,
                      random_bytes, sha256, start_upload, with_query)

ABSENT = "sha256:" + "0" * 64


def bad_size(client, repo):
    image = make_image()
    push_image(client, repo, image)
    return client.patch(start_upload(client, repo), b"12345", {"Content-Range": "0-99"})


CASES = {
    "BLOB_UNKNOWN": (404, lambda c, r: c.get(f"/v2/{r}/blobs/{ABSENT}")),
    "BLOB_UPLOAD_UNKNOWN": (404, lambda c, r: c.patch(
        f"/v2/{r}/blobs/uploads/00000000-0000-4000-8000-000000000000", b"x")),
    "DIGEST_INVALID": (400, lambda c, r: c.put(
        with_query(start_upload(c, r), digest=ABSENT), b"x")),
    "MANIFEST_BLOB_UNKNOWN": (400, lambda c, r: put_manifest(c, r, "v2", make_image())),
    "MANIFEST_INVALID": (400, lambda c, r: put_manifest(c, r, "v2", b"{}")),
    "MANIFEST_UNKNOWN": (404, lambda c, r: c.get(f"/v2/{r}/manifests/absent")),
    "NAME_INVALID": (400, lambda c, r: c.post(f"/v2/{r.upper()}/blobs/uploads/")),
    "NAME_UNKNOWN": (404, lambda c, r: c.get(f"/v2/{r}/absent/tags/list")),
    "UNSUPPORTED": (405, lambda c, r: c.patch(f"/v2/{r}/manifests/v1", b"x")),
    "PAGINATION_NUMBER_INVALID": (400, lambda c, r: c.get(f"/v2/{r}/tags/list?n=x")),
}


def assert_is_error_body(answer, code):
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Length"] == str(len(answer.body))
    content = answer.json()
    assert set(content) == {"errors"}
    assert content["errors"]
    for error in content["errors"]:
        assert set(error) <= {"code", "message", "detail"}
        assert re.fullmatch("[A-Z_]+", error["code"])
        assert error["message"] and isinstance(error["message"], str)
    assert content["errors"][0]["code"] == code


@pytest.mark.parametrize("code", CASES)
def test_each_error_code_comes_with_its_status_and_body(client, repo, code):
    push_image(client, repo, make_image(), "v1")
    status, provoke = CASES[code]
    answer = provoke(client, repo)
    assert answer.status == status, answer
    assert_is_error_body(answer, code)


def test_a_content_range_that_is_not_the_length_is_size_invalid_or_416(client, repo):
    answer = bad_size(client, repo)
    assert answer.status in (400, 416)
    assert_is_error_body(answer, "SIZE_INVALID" if answer.status == 400 else answer.code)


def test_a_chunk_out_of_order_has_an_error_body(client, repo):
    answer = client.patch(start_upload(client, repo), b"12345", {"Content-Range": "7-11"})
    assert answer.status == 416
    assert answer.code in ("BLOB_UPLOAD_INVALID", "RANGE_INVALID")
    assert_is_error_body(answer, answer.code)


def test_a_message_never_shows_the_inside_of_the_server(server, client, repo):
    push_image(client, repo, make_image(), "v1")
    for status, provoke in CASES.values():
        text = provoke(client, repo).body.decode()
        assert str(server.data) not in text
        assert not re.search(r"\.c:\d+|sqlite|errno|SELECT ", text), text


def test_what_the_client_sent_is_quoted_safely(client, repo):
    push_blob(client, repo, b"x")
    answer = client.get(f"/v2/{repo}/manifests/%22%3Cscript%3E%0a%1b[31m")
    assert answer.status in (400, 404)
    answer.json()
    assert b"\x1b" not in answer.body


def test_an_error_of_head_has_no_body(client, repo):
    answer = client.head(f"/v2/{repo}/manifests/absent")
    assert (answer.status, answer.body) == (404, b"")


def test_the_connection_stays_after_an_error(server, repo):
    with Client(server) as client:
        client.get("/v2/")
        socket = client._connection.sock
        for status, provoke in CASES.values():
            provoke(client, repo)
        assert client.get("/v2/").status == 200
        assert client._connection.sock is socket


def test_a_body_where_none_is_expected_is_no_harm(client, repo):
    push_blob(client, repo, b"x")
    assert client.request("GET", "/v2/", b"x" * 5000).status in (200, 400)
    answer = client.request("DELETE", f"/v2/{repo}/manifests/absent", b"x" * 5000)
    assert answer.status in (404, 400)
    assert client.get("/v2/").status == 200


def test_a_manifest_sent_as_a_form_is_refused(client, repo):
    image = make_image()
    push_image(client, repo, image)
    answer = put_manifest(client, repo, "v1", b"a=b", "application/x-www-form-urlencoded")
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


def test_an_error_names_what_was_wrong(client, repo):
    image = make_image()
    push_image(client, repo, image)
    image.content["layers"][0]["size"] = -5
    message = put_manifest(client, repo, "v1", encode(image.content), MANIFEST).errors[0]["message"]
    assert "size" in message
    location = start_upload(client, repo)
    data = random_bytes()
    answer = client.put(with_query(location, digest=ABSENT), data)
    assert sha256(data) in answer.body.decode() or ABSENT in answer.body.decode()
