"""The access log, request ids, metrics, health."""

import json
import re
import shutil
import subprocess

import pytest

import holdfast
from holdfast import (Client, fill, make_image, metric, metrics, push_blob, push_image,
                      random_bytes, sha256, start_upload, wait_until)

ABSENT = "sha256:" + "0" * 64


def line_of(server, answer):
    """The access line of an answer."""
    wanted = answer.headers["X-Request-Id"]
    line = server.wait_log(lambda l: l.get("message") == "request" and l.get("id") == wanted)
    assert line, f"no access line for {wanted}"
    return line


def test_every_answer_has_an_id_of_its_own(client):
    answers = [client.get(path) for path in ("/v2/", "/v2/", "/absent", "/healthz", "/metrics",
                                             f"/v2/a/blobs/{ABSENT}")]
    ids = [a.headers["X-Request-Id"] for a in answers]
    assert all(ids) and len(set(ids)) == len(ids)


def test_the_id_leads_to_the_line_in_the_log(server, client):
    line = line_of(server, client.get("/v2/", {"User-Agent": "test/1.0"}))
    assert line["client"] == "127.0.0.1"
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v2/", 200)
    assert line["agent"] == "test/1.0"
    assert (line["received"], line["sent"]) == (0, 2)
    assert 0 <= line["us"] < 10_000_000
    assert line["route"] == "ping"
    assert line["level"] == "info"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["time"])


@pytest.mark.needs("stream")
def test_the_log_counts_bytes_both_ways(server, client, repo):
    data = random_bytes(12345)
    answer = client.post(f"/v2/{repo}/blobs/uploads/?digest={sha256(data)}", data)
    assert line_of(server, answer)["received"] == 12345
    answer = client.get(answer.location)
    assert line_of(server, answer)["sent"] == 12345
    answer = client.get(f"/v2/{repo}/blobs/{sha256(data)}", {"Range": "bytes=0-99"})
    assert line_of(server, answer)["sent"] == 100
    answer = client.head(f"/v2/{repo}/blobs/{sha256(data)}")
    assert line_of(server, answer)["sent"] == 0


def test_an_error_is_in_the_log_with_its_status(server, client):
    assert line_of(server, client.get("/v2/no/such/tags/list"))["status"] == 404


def test_a_request_that_broke_off_is_in_the_log(server, client, repo):
    location = start_upload(client, repo)
    raw = client.raw(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc"
                     .encode())
    wait_until(lambda: b"holdfast_uploads_in_flight 1" in client.get("/metrics").body, 5)
    raw.reset()
    line = server.wait_log(lambda l: l.get("path") == location and l.get("method") == "PATCH")
    assert line and line["status"] == 0


def test_what_a_client_sends_cannot_forge_a_line(server, client):
    nasty = 'x" ,"level":"error\\\x7f\u20ac'.encode().decode("latin-1")
    answer = client.get("/v2/%0a{\"forged\":1}", {"User-Agent": nasty})
    assert line_of(server, answer)["agent"]
    assert not [l for l in server.log if "forged" in l]
    assert all("forged" not in text for text in server.noise)


def test_a_very_long_path_is_logged_within_bounds(server, client):
    answer = client.get("/v2/" + "a" * 6000)
    if answer.headers["X-Request-Id"]:
        assert len(line_of(server, answer)["path"]) <= 2048


def test_the_access_log_can_be_turned_off(make_server):
    server = make_server("--log-access=false")
    with Client(server) as client:
        client.get("/v2/")
    server.stop()
    assert not [l for l in server.log if l["message"] == "request"]


def test_the_level_leaves_lesser_lines_out(make_server, tmp_path):
    server = make_server("--log-level", "warn", start=False)
    # It says nothing of its address then, so that only its log is looked at.
    process = subprocess.Popen(server.command(), stderr=subprocess.PIPE,
                               env=holdfast.clean_environment())
    try:
        process.wait(1.5)
    except subprocess.TimeoutExpired:
        pass
    process.terminate()
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert all(json.loads(l)["level"] in ("warn", "error") for l in said.decode().splitlines())


def test_the_text_format_is_for_people(make_server, tmp_path):
    process = subprocess.Popen([holdfast.BINARY, "serve", "--data", str(tmp_path / "d"), "--listen",
                                "127.0.0.1:0", "--log-format", "text"], stderr=subprocess.PIPE,
                               env=holdfast.clean_environment(), text=True)
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "listening" in line:
            break
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert re.search(r"^\S+Z info  listening .*address=127\.0\.0\.1:\d+", lines[-1])


# ---- Metrics ----

def test_metrics_are_in_the_format_of_prometheus(client):
    samples = metrics(client)
    assert metric(samples, "holdfast_build_info") == 1
    assert metric(samples, "holdfast_start_time_seconds") > 1.7e9


def test_requests_are_counted_by_route_and_status(client, repo):
    def count(route, status):
        return metric(metrics(client), "holdfast_requests_total", route=route, status=status)

    before = count("tag_list", "404"), count("ping", "200")
    client.get(f"/v2/{repo}/tags/list")
    client.get("/v2/")
    client.get("/v2/")
    assert wait_until(lambda: (count("tag_list", "404"), count("ping", "200"))
                      == (before[0] + 1, before[1] + 2), 5)


def test_durations_are_counted(client):
    def count():
        return metric(metrics(client), "holdfast_request_duration_seconds_count", route="ping")

    before = count()
    client.get("/v2/")
    assert wait_until(lambda: count() == before + 1, 5)
    samples = metrics(client)
    assert metric(samples, "holdfast_database_duration_seconds_count", operation="read") > 0


def test_buckets_rise_and_end_with_the_count(client):
    client.get("/v2/")
    samples = metrics(client)
    buckets = [s.value for s in samples if s.name == "holdfast_request_duration_seconds_bucket"
               and s.labels["route"] == "ping"]
    assert buckets == sorted(buckets)
    total = metric(samples, "holdfast_request_duration_seconds_count", route="ping")
    assert buckets[-1] == total


@pytest.mark.needs("stream")
def test_bytes_are_counted(client, repo):
    before = metrics(client)
    digest = push_blob(client, repo, random_bytes(100000))
    client.get(f"/v2/{repo}/blobs/{digest}")

    def grown(name):
        return metric(metrics(client), name) - metric(before, name)

    assert wait_until(lambda: grown("holdfast_received_bytes_total") >= 100000, 5)
    assert grown("holdfast_sent_bytes_total") >= 100000


def test_what_is_stored_is_counted(make_server, store):
    with Client(make_server()) as client:
        image = make_image(2, 5000)
        push_image(client, "app", image, "v1")
        push_image(client, "other", image, "v1")
        start_upload(client, "app")
        samples = metrics(client)
        for name, value in (("blobs", 3), ("manifests", 2), ("tags", 2), ("repositories", 2),
                            ("uploads", 1), ("blob_bytes", sum(map(len, image.blobs)))):
            assert metric(samples, f"holdfast_storage_{name}") == value, name
        if store.has("files"):
            assert 0 < metric(samples, "holdfast_storage_disk_free_bytes") <= metric(
                samples, "holdfast_storage_disk_total_bytes")


def test_connections_are_counted_and_come_back_to_where_they_were(server, client):
    def count():
        return metric(metrics(client), "holdfast_connections")

    before = count()
    held = [Client(server) for _ in range(5)]
    for one in held:
        one.get("/v2/")
    assert count() >= before + 5
    for one in held:
        one.close()
    assert wait_until(lambda: count() <= before, 5)


def test_labels_do_not_grow_with_what_clients_ask(client):
    for i in range(20):
        client.get(f"/v2/name{i}/tags/list")
        client.request("BREW" + "X" * i, f"/path{i}")
    assert len(metrics(client)) < 2000


# ---- Health ----

@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_health_is_200(client, path, method):
    assert client.request(method, path).status == 200


@pytest.mark.needs("folder")
def test_readiness_is_503_when_the_disk_is_full_and_comes_back(make_server, small_disk):
    disk = small_disk(16 << 20)
    server = make_server(data=disk / "data")
    with Client(server) as client:
        push_image(client, "app", make_image(), "v1")
        assert client.get("/readyz").status == 200
        fill(disk)
        answer = client.get("/readyz")
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert client.get("/healthz").status == 200
        (disk / "filler").unlink()
        assert client.get("/readyz").status == 200


@pytest.mark.needs("folder")
def test_readiness_is_503_when_the_folder_is_gone(make_server):
    server = make_server()
    with Client(server) as client:
        assert client.get("/readyz").status == 200
        shutil.rmtree(server.data)
        answer = client.get("/readyz")
        assert answer.status == 503
        assert str(server.data) not in answer.body.decode()
        assert client.get("/healthz").status == 200
    server.kill()
