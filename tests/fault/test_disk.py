"""Disks that are full or fail: a clear error, nothing half stored, and the server goes on."""

import shutil
import subprocess
import threading
import time

import pytest

from holdfast import (Client, fill, get_blob, make_image, MANIFEST, pull_image, push_blob,
                      push_image, put_manifest, random_bytes, run, sha256, start_upload, wait_until,
                      with_query)

MIB = 1 << 20


@pytest.fixture
def on_small_disk(make_server, small_disk):
    disk = small_disk(24 * MIB)
    server = make_server(data=disk / "data")
    with Client(server) as client:
        yield server, client, disk


def is_full(answer):
    """A clear refusal: 507, or another 5xx, in the form of the specification."""
    assert 500 <= answer.status < 600, answer
    assert answer.errors and answer.errors[0]["message"], answer
    return answer.status == 507


def test_a_blob_for_which_there_is_no_space_is_507_and_absent(on_small_disk):
    server, client, disk = on_small_disk
    fill(disk, leave=2 * MIB)
    data = random_bytes(6 * MIB)
    answer = client.put(with_query(start_upload(client, "app"), digest=sha256(data)), data)
    assert is_full(answer), answer
    assert "space" in answer.errors[0]["message"]
    assert client.get(f"/v2/app/blobs/{sha256(data)}").status == 404


@pytest.mark.parametrize("way", ["POST", "PATCH", "streamed"])
def test_every_way_to_send_a_blob_hears_of_a_full_disk(on_small_disk, way):
    server, client, disk = on_small_disk
    location = start_upload(client, "app")
    fill(disk, leave=MIB)
    data = random_bytes(6 * MIB)
    if way == "POST":
        answer = client.post(f"/v2/app/blobs/uploads/?digest={sha256(data)}", data)
    else:
        body = iter([data[i:i + 65536] for i in range(0, len(data), 65536)])
        answer = client.patch(location, data if way == "PATCH" else body)
    assert is_full(answer), answer


def test_reading_goes_on_while_the_disk_is_full(on_small_disk):
    server, client, disk = on_small_disk
    image = make_image(2, 100000)
    push_image(client, "app", image, "v1")
    fill(disk)
    for _ in range(3):
        assert pull_image(client, "app", "v1").body == image.body
        assert client.get("/v2/app/tags/list").json()["tags"] == ["v1"]
    assert client.get("/healthz").status == 200


def test_writing_goes_on_when_space_returns(on_small_disk):
    server, client, disk = on_small_disk
    push_image(client, "app", make_image(), "v1")
    filler = fill(disk, leave=MIB)
    data = random_bytes(6 * MIB)
    assert is_full(client.post(f"/v2/app/blobs/uploads/?digest={sha256(data)}", data))
    filler.unlink()
    push_blob(client, "app", data)
    assert get_blob(client, "app", sha256(data)) == data
    push_image(client, "app", make_image(), "v2")


def test_bytes_of_what_failed_are_given_back(on_small_disk):
    server, client, disk = on_small_disk
    filler = fill(disk, leave=3 * MIB)
    data = random_bytes(6 * MIB)
    for _ in range(3):
        assert is_full(client.post(f"/v2/app/blobs/uploads/?digest={sha256(data)}", data))
    small = random_bytes(MIB)
    assert wait_until(lambda: client.post(f"/v2/app/blobs/uploads/?digest={sha256(small)}",
                                          small).status == 201, 5)
    filler.unlink()


def test_a_session_keeps_what_was_acknowledged_before_the_disk_was_full(on_small_disk):
    server, client, disk = on_small_disk
    data = random_bytes(8 * MIB)
    location = client.patch(start_upload(client, "app"), data[:2 * MIB]).location
    filler = fill(disk, leave=MIB)
    answer = client.patch(location, data[2 * MIB:], {"Content-Range":
                                                     f"{2 * MIB}-{8 * MIB - 1}"})
    assert is_full(answer)
    filler.unlink()
    start = int(client.get(location).headers["Range"].partition("-")[2]) + 1
    assert start == 2 * MIB
    location = client.patch(location, data[start:]).location
    assert client.put(with_query(location, digest=sha256(data))).status == 201
    assert get_blob(client, "app", sha256(data)) == data


def test_a_manifest_for_which_there_is_no_space_is_refused_and_absent(on_small_disk):
    server, client, disk = on_small_disk
    image = make_image(annotations={f"k{i}": "x" * 10000 for i in range(300)})
    for blob in image.blobs:
        push_blob(client, "app", blob)
    filler = fill(disk)
    for _ in range(3):
        assert is_full(put_manifest(client, "app", "v1", image))
    assert client.get("/v2/app/manifests/v1").status == 404
    filler.unlink()
    assert put_manifest(client, "app", "v1", image).status == 201
    assert pull_image(client, "app", "v1").body == image.body


def test_a_disk_that_fills_under_many_pushes_loses_nothing_acknowledged(on_small_disk):
    server, client, disk = on_small_disk
    acknowledged, refused = [], []

    def push(number):
        with Client(server) as own:
            for i in range(40):
                image = make_image(1, 200000)
                parts = [own.post(f"/v2/app{number}/blobs/uploads/?digest={sha256(b)}", b)
                         for b in image.blobs]
                if all(p.status == 201 for p in parts):
                    parts.append(own.put(f"/v2/app{number}/manifests/v{i}", image.body,
                                         {"Content-Type": MANIFEST}))
                    if parts[-1].status == 201:
                        acknowledged.append((f"app{number}", f"v{i}", image.body))
                refused.extend(p for p in parts if p.status != 201)

    threads = [threading.Thread(target=push, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused, "the disk was never full"
    for answer in refused:
        assert answer.status in (500, 503, 507), answer
    for repo, tag, body in acknowledged:
        assert pull_image(client, repo, tag).body == body
    assert server.stop() == 0
    result = run("fsck", "--data", server.data, "--deep")
    assert result.returncode == 0, result.stdout + result.stderr


# ---- fsync that fails ----

@pytest.fixture
def failing(make_server, tmp_path):
    """A server, and a function under which its calls fail: with failing("fsync"): …"""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    # The leak checker of the sanitizer cannot run under ptrace.
    server = make_server(env={"ASAN_OPTIONS": "detect_leaks=0"})
    tracers = []

    class Failing:
        def __init__(self, calls, error="EIO"):
            # A call that this machine does not have is marked with "?".
            names = ",".join("?" + call for call in calls.split(","))
            self.command = ["strace", "-f", "-qq", "-o", str(tmp_path / "trace"), "-e",
                            f"trace={names}", "-e", f"inject={names}:error={error}", "-p",
                            str(server.pid)]

        def __enter__(self):
            self.tracer = subprocess.Popen(self.command, stderr=subprocess.PIPE)
            tracers.append(self.tracer)

            def attached():
                try:
                    with open(f"/proc/{server.pid}/status") as file:
                        traced = "TracerPid:\t0" not in file.read()
                except OSError:
                    traced = False
                return traced or self.tracer.poll() is not None

            assert wait_until(attached, 10)
            if self.tracer.poll() is not None:
                text = self.tracer.stderr.read().decode()
                pytest.skip(f"strace cannot attach here: {text.strip()}")
            time.sleep(0.3)  # to reach every thread

        def __exit__(self, *_):
            self.tracer.terminate()
            self.tracer.wait(20)
            self.tracer.stderr.close()

    yield server, Failing
    for tracer in tracers:
        if tracer.poll() is None:
            tracer.kill()
            tracer.wait()


SYNCS = "fsync,fdatasync,sync_file_range,syncfs"


def test_nothing_is_acknowledged_that_could_not_be_made_durable(failing):
    server, fails = failing
    image = make_image()
    with Client(server) as client:
        push_image(client, "app", image, "v1")
        started = start_upload(client, "app")
        data = random_bytes(5000)
        with fails(SYNCS):
            answers = {
                "PUT of a blob": client.post(f"/v2/app/blobs/uploads/?digest={sha256(data)}", data),
                "PATCH": client.patch(started, data),
                "PUT of a manifest": client.put("/v2/app/manifests/v2", image.body,
                                                {"Content-Type": MANIFEST}),
                "DELETE of a tag": client.delete("/v2/app/manifests/v1"),
                "POST": client.post("/v2/app/blobs/uploads/"),
            }
        for what, answer in answers.items():
            assert answer.status in (500, 503), (what, answer)
        assert pull_image(client, "app", "v1").body == image.body
        assert client.get("/v2/app/manifests/v2").status == 404
        assert client.get(f"/v2/app/blobs/{sha256(data)}").status == 404


def test_it_goes_on_when_the_disk_works_again(failing):
    server, fails = failing
    image = make_image()
    with Client(server) as client:
        push_image(client, "app", image, "v1")
        with fails(SYNCS):
            assert client.put("/v2/app/manifests/v2", image.body,
                              {"Content-Type": MANIFEST}).status in (500, 503)
        push_image(client, "app", make_image(), "v3")
        assert client.put("/v2/app/manifests/v2", image.body,
                          {"Content-Type": MANIFEST}).status == 201
    server.restart()
    with Client(server) as client:
        for tag in ("v1", "v2", "v3"):
            pull_image(client, "app", tag)
    server.stop()
    assert run("fsck", "--data", server.data, "--deep").returncode == 0


@pytest.mark.parametrize("calls", ["link,linkat,rename,renameat,renameat2"])
def test_a_blob_that_cannot_be_named_is_not_acknowledged(failing, calls):
    server, fails = failing
    data = random_bytes(5000)
    with Client(server) as client:
        push_blob(client, "app", random_bytes())
        with fails(calls):
            answer = client.post(f"/v2/app/blobs/uploads/?digest={sha256(data)}", data)
        assert answer.status == 500, answer
        assert client.get(f"/v2/app/blobs/{sha256(data)}").status == 404
        push_blob(client, "app", data)


def test_readiness_tells_that_the_disk_fails(failing):
    server, fails = failing
    with Client(server) as client:
        assert client.get("/readyz").status == 200
        with fails(SYNCS):
            assert client.get("/readyz").status == 503
        assert client.get("/readyz").status == 200


def test_no_more_files_to_open_is_an_error_and_passes(failing):
    server, fails = failing
    image = make_image()
    with Client(server) as client:
        push_image(client, "app", image, "v1")
        path = f"/v2/app/blobs/{sha256(image.blobs[0])}"
        with fails("open,openat,openat2", "EMFILE"):
            answer = client.get(path)
        assert answer.status in (500, 503)
        assert client.get(path).body == image.blobs[0]
