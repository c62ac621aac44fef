"""What clients without credentials may do: access.anonymous, and where it may be said."""

import socket

import pytest

from holdfast import (Client, make_image, push_blob, push_image, random_bytes, run, Server, sha256,
                      with_query)

ABSENT = "sha256:" + "0" * 64
SESSION = "00000000-0000-4000-8000-000000000000"

READS = ["/v2/app/manifests/v1", "/v2/app/tags/list", "/v2/_catalog", f"/v2/app/blobs/{ABSENT}",
         f"/v2/app/referrers/{ABSENT}", "/v2/absent/tags/list"]
WRITES = [("POST", "/v2/app/blobs/uploads/"), ("POST", f"/v2/app/blobs/uploads/?digest={ABSENT}"),
          ("POST", f"/v2/app/blobs/uploads/?mount={ABSENT}&from=other"),
          ("PUT", "/v2/app/manifests/v1"), ("PUT", f"/v2/app/manifests/{ABSENT}"),
          ("DELETE", "/v2/app/manifests/v1"), ("DELETE", f"/v2/app/manifests/{ABSENT}"),
          ("DELETE", f"/v2/app/blobs/{ABSENT}"), ("PATCH", f"/v2/app/blobs/uploads/{SESSION}"),
          ("PUT", f"/v2/app/blobs/uploads/{SESSION}?digest={ABSENT}"),
          ("DELETE", f"/v2/app/blobs/uploads/{SESSION}"),
          ("GET", f"/v2/app/blobs/uploads/{SESSION}")]


@pytest.fixture(scope="module")
def stocked(tmp_path_factory):
    """A data folder with the image app:v1, and that image."""
    data = tmp_path_factory.mktemp("stocked")
    image = make_image()
    with Server(data) as server, Client(server) as client:
        push_image(client, "app", image, "v1")
    return data, image


@pytest.fixture(scope="module")
def closed(stocked):
    with Server(stocked[0], args=["--access-anonymous", "none"]) as server:
        yield server


@pytest.fixture
def closed_client(closed):
    with Client(closed) as client:
        yield client


@pytest.mark.parametrize("path", ["/v2/", *READS])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_none_refuses_to_show_anything(closed_client, method, path):
    answer = closed_client.request(method, path)
    assert answer.status == 401
    assert method == "HEAD" or answer.code == "UNAUTHORIZED"


def test_none_sends_a_challenge_with_the_401(closed_client):
    # RFC 9110, section 15.5.2: WWW-Authenticate MUST be there; clients look at it on /v2/.
    assert closed_client.get("/v2/").headers["WWW-Authenticate"]


@pytest.mark.parametrize("method, path", WRITES)
def test_none_refuses_to_change_anything(closed_client, method, path):
    answer = closed_client.request(method, path)
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")


def test_none_leaves_health_open(closed_client):
    assert closed_client.get("/healthz").status == 200
    assert closed_client.get("/readyz").status == 200


def test_a_refused_upload_hears_its_refusal(closed_client):
    answer = closed_client.post(f"/v2/app/blobs/uploads/?digest={ABSENT}", random_bytes(3 << 20))
    assert answer.status == 401


@pytest.fixture
def pull_only(make_server, stocked):
    """A server of access.anonymous=pull that holds app:v1."""
    server = make_server()
    with Client(server) as client:
        push_image(client, "app", stocked[1], "v1")
    server.stop()
    server.args += ["--access-anonymous", "pull"]
    with Client(server.start()) as client:
        yield client


def test_pull_allows_to_read(pull_only, stocked):
    assert pull_only.get("/v2/").status == 200
    assert pull_only.get("/v2/app/manifests/v1").body == stocked[1].body
    assert pull_only.get("/v2/app/tags/list").status == 200
    assert pull_only.get("/v2/_catalog").status == 200
    assert pull_only.get(f"/v2/app/blobs/{sha256(stocked[1].blobs[0])}").status == 200


def test_pull_refuses_to_change_anything(pull_only, stocked):
    for method, path in WRITES:
        if (method, path) == ("GET", f"/v2/app/blobs/uploads/{SESSION}"):
            continue
        answer = pull_only.request(method, path)
        assert (answer.status, answer.code) in ((401, "UNAUTHORIZED"), (403, "DENIED")), path
    assert pull_only.get("/v2/app/manifests/v1").body == stocked[1].body


def test_pull_makes_no_repository_of_a_refused_push(pull_only):
    pull_only.post("/v2/new/blobs/uploads/")
    assert pull_only.get("/v2/_catalog").json()["repositories"] == ["app"]


def test_push_allows_to_push_and_to_delete(make_server):
    with Client(make_server("--access-anonymous", "push")) as client:
        image = make_image()
        push_image(client, "app", image, "v1")
        assert client.delete("/v2/app/manifests/v1").status == 202
        digest = push_blob(client, "app", random_bytes())
        assert client.delete(f"/v2/app/blobs/{digest}").status == 202


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", ":0"])
def test_serve_refuses_other_addresses_than_loopback_while_anyone_may_push(tmp_path, address):
    result = run("serve", "--data", tmp_path, "--listen", address)
    assert result.returncode == 2, result.stderr
    if address != ":0":
        assert "anonymous" in result.stderr


def test_serve_refuses_when_only_one_of_several_addresses_is_open(tmp_path):
    result = run("serve", "--data", tmp_path, "--listen", "127.0.0.1:0", "--listen", "0.0.0.0:0")
    assert result.returncode == 2
    assert "0.0.0.0" in result.stderr


@pytest.mark.parametrize("args", [
    ["--access-anonymous", "pull"], ["--access-anonymous", "none"],
    ["--access-anonymous-push-anywhere=true"]], ids=" ".join)
def test_serve_listens_anywhere_when_told_so_or_when_nobody_may_push(make_server, args):
    server = make_server(*args, listen="0.0.0.0:0")
    with Client(server) as client:
        assert client.get("/healthz").status == 200


def test_serve_listens_on_the_ipv6_loopback(make_server):
    try:
        import socket
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    with Client(make_server(listen="[::1]:0")) as client:
        push_image(client, "app", make_image(), "v1")


def test_serve_listens_on_several_addresses(make_server):
    server = make_server("--listen", "127.0.0.2:0")
    lines = [l for l in server.log if l["message"] == "listening"]
    if len(lines) < 2:
        server.wait_log(lambda l: l["message"] == "listening" and l["address"] != server.address)
        lines = [l for l in server.log if l["message"] == "listening"]
    assert sorted(l["address"].rpartition(":")[0] for l in lines) == ["127.0.0.1", "127.0.0.2"]
    for line in lines:
        server.address = line["address"]
        with Client(server) as client:
            assert client.get("/v2/").status == 200


def test_a_taken_address_is_an_error_that_names_it(server, tmp_path):
    result = run("serve", "--data", tmp_path, "--listen", server.address)
    assert result.returncode == 1
    assert server.address in result.stderr


def test_an_upload_begun_is_not_open_to_guessing(server, client, repo):
    first = client.post(f"/v2/{repo}/blobs/uploads/").headers["Docker-Upload-UUID"]
    second = client.post(f"/v2/{repo}/blobs/uploads/").headers["Docker-Upload-UUID"]
    same = sum(a == b for a, b in zip(first, second))
    assert same < 20, "session ids must be random"
    other = with_query(f"/v2/{repo}/blobs/uploads/{SESSION}", digest=ABSENT)
    assert client.put(other).status == 404
