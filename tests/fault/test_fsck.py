"""holdfast fsck: finds each kind of damage, mends what can be mended, and says so line by line."""

import pytest

from holdfast import (Client, get_blob, make_image, pull_image, push_blob, push_image, put_manifest,
                      random_bytes, run, sha256, start_upload)


def fsck(server, *arguments):
    return run("fsck", "--data", server.data, *arguments)


def file_of(server, digest):
    """The file that holds a blob."""
    (path,) = [p for p in server.data.rglob(digest.partition(":")[2]) if p.is_file()]
    return path


@pytest.fixture
def stocked(make_server):
    """A server that was stopped after it stored an image, and that image."""
    server = make_server()
    image = make_image(2, 5000)
    with Client(server) as client:
        push_image(client, "app", image, "v1")
        push_image(client, "other", make_image(), "v1")
    assert server.stop() == 0
    return server, image


def test_a_whole_folder_is_exit_0_and_changes_nothing(stocked):
    server, image = stocked
    for arguments in ([], ["--deep"], ["--repair"], ["--deep", "--repair"]):
        result = fsck(server, *arguments)
        assert result.returncode == 0, result.stdout
        assert "wrong:" not in result.stdout and "leftover:" not in result.stdout
    server.start()
    with Client(server) as client:
        assert pull_image(client, "app", "v1").body == image.body


def test_an_empty_folder_is_whole(make_server):
    server = make_server()
    server.stop()
    assert fsck(server, "--deep").returncode == 0


def test_it_refuses_while_a_server_runs(make_server):
    server = make_server()
    result = fsck(server)
    assert result.returncode == 1
    assert str(server.data) in result.stderr


def test_it_refuses_a_folder_that_is_not_there(tmp_path):
    result = run("fsck", "--data", tmp_path / "absent")
    assert result.returncode == 1
    assert "absent" in result.stderr
    assert not (tmp_path / "absent").exists()


def damage_missing(path):
    path.unlink()


def damage_cut(path):
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])


def damage_longer(path):
    path.chmod(0o600)
    path.write_bytes(path.read_bytes() + b"x")


def damage_empty(path):
    path.chmod(0o600)
    path.write_bytes(b"")


def damage_bit(path):
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[2500] ^= 1
    path.write_bytes(data)


DAMAGES = [(damage_missing, []), (damage_cut, []), (damage_longer, []), (damage_empty, []),
           (damage_bit, ["--deep"])]


@pytest.mark.parametrize("damage, deep", DAMAGES)
def test_a_damaged_blob_is_found_and_named(stocked, damage, deep):
    server, image = stocked
    digest = sha256(image.blobs[1])
    damage(file_of(server, digest))
    result = fsck(server, *deep)
    assert result.returncode == 1
    lines = [l for l in result.stdout.splitlines() if digest in l and l.startswith("wrong:")]
    assert lines, result.stdout


def test_a_flipped_bit_is_not_looked_for_without_deep(stocked):
    server, image = stocked
    damage_bit(file_of(server, sha256(image.blobs[1])))
    assert fsck(server).returncode == 0


@pytest.mark.parametrize("damage, deep", DAMAGES)
def test_a_damaged_blob_is_absent_after_the_repair_and_can_be_pushed_again(stocked, damage, deep):
    server, image = stocked
    digest = sha256(image.blobs[1])
    damage(file_of(server, digest))
    result = fsck(server, "--repair", *deep)
    assert digest in result.stdout
    assert any(l.startswith("repaired:") for l in result.stdout.splitlines()), result.stdout
    server.start()
    with Client(server) as client:
        assert client.get(f"/v2/app/blobs/{digest}").status == 404
        # The manifest is kept: the next push of the image makes it whole.
        assert client.get("/v2/app/manifests/v1").status == 200
        assert put_manifest(client, "app", "v1", image).codes == ["MANIFEST_BLOB_UNKNOWN"]
        push_image(client, "app", image, "v1")
        pull_image(client, "app", "v1")
    server.stop()
    assert fsck(server, "--deep").returncode == 0


@pytest.mark.parametrize("damage, deep", DAMAGES)
def test_pulling_a_damaged_blob_is_never_a_200_with_the_wrong_length(stocked, damage, deep):
    server, image = stocked
    digest = sha256(image.blobs[1])
    damage(file_of(server, digest))
    server.start()
    with Client(server) as client:
        answer = client.get(f"/v2/app/blobs/{digest}")
        if damage is damage_bit:
            assert len(answer.body) == len(image.blobs[1])  # clients compare the digest
        else:
            assert answer.status >= 400, answer


def test_an_incomplete_manifest_is_told_after_the_repair(stocked):
    server, image = stocked
    file_of(server, sha256(image.blobs[1])).unlink()
    assert fsck(server, "--repair").returncode == 1
    result = fsck(server)
    assert result.returncode == 1, "the image cannot be pulled; that is a difference"
    assert image.digest in result.stdout


def test_bytes_that_nothing_names_are_left_over_and_freed(stocked):
    server, image = stocked
    data = random_bytes()
    path = file_of(server, sha256(image.blobs[1]))
    stray = path.parent.parent / sha256(data)[7:9] / sha256(data)[7:]
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(data)
    result = fsck(server)
    assert result.returncode == 0
    assert sha256(data) in result.stdout
    result = fsck(server, "--repair")
    assert result.returncode == 0
    assert not stray.exists()
    assert sha256(data) not in fsck(server).stdout
    assert path.exists()


@pytest.mark.parametrize("place", ["blobs/stray", "blobs/sha256/stray", "uploads/stray.txt",
                                   "blobs/sha256/zz/file"])
def test_a_file_that_it_did_not_make_is_named_and_kept(stocked, place):
    server, _ = stocked
    stray = server.data / place
    stray.parent.mkdir(exist_ok=True, parents=True)
    stray.write_text("somebody's")
    result = fsck(server)
    assert result.returncode == 1
    assert "stray" in result.stdout or "zz" in result.stdout
    fsck(server, "--repair")
    assert stray.read_text() == "somebody's"


def test_staged_bytes_of_nobody_are_freed(stocked):
    server, _ = stocked
    orphan = server.data / "uploads" / "00000000-0000-4000-8000-000000000000"
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"staged")
    result = fsck(server)
    assert "00000000-0000-4000-8000-000000000000" in result.stdout
    assert fsck(server, "--repair").returncode == 0
    assert not orphan.exists()


def test_an_upload_that_goes_on_is_left_alone(make_server):
    server = make_server()
    data = random_bytes(3000)
    with Client(server) as client:
        location = client.patch(start_upload(client, "app"), data[:1000]).location
        server.stop()
        for arguments in ([], ["--repair", "--deep"]):
            assert fsck(server, *arguments).returncode == 0
        server.start()
        assert client.get(location).headers["Range"] == "0-999"
        location = client.patch(location, data[1000:]).location
        assert client.put(f"{location}?digest={sha256(data)}").status == 201


@pytest.mark.parametrize("damage, code", [(damage_missing, 0), (damage_cut, 1), (damage_empty, 1)])
def test_an_upload_whose_acknowledged_bytes_are_gone_is_removed(make_server, damage, code):
    # No bytes at all: a crash just before its end leaves that, and nobody misses them.
    server = make_server()
    with Client(server) as client:
        answer = client.patch(start_upload(client, "app"), random_bytes(3000))
        server.stop()
        (path,) = [p for p in (server.data / "uploads").rglob("*") if p.is_file()]
        damage(path)
        result = fsck(server)
        assert result.returncode == code
        assert answer.headers["Docker-Upload-UUID"] in result.stdout
        assert fsck(server, "--repair").returncode == 0
        assert fsck(server).returncode == 0
        server.start()
        assert client.get(answer.location).status == 404


def test_a_blob_deleted_everywhere_is_not_a_difference(make_server):
    server = make_server()
    with Client(server) as client:
        digest = push_blob(client, "app", random_bytes())
        assert client.delete(f"/v2/app/blobs/{digest}").status == 202
        kept = push_blob(client, "app", random_bytes())
        server.stop()
        assert fsck(server, "--deep").returncode == 0
        assert fsck(server, "--repair").returncode == 0
        server.start()
        get_blob(client, "app", kept)
        assert client.get(f"/v2/app/blobs/{digest}").status == 404


def test_a_damaged_database_is_a_difference_or_an_error(stocked):
    server, _ = stocked
    for path in server.data.rglob("*"):
        if path.is_file() and path.read_bytes()[:16] == b"SQLite format 3\0":
            data = bytearray(path.read_bytes())
            data[4096:] = bytes(b ^ 0xff for b in data[4096:])
            path.write_bytes(data)
    result = fsck(server)
    assert result.returncode == 1
    assert result.stdout + result.stderr


def test_each_difference_is_one_line(stocked):
    server, image = stocked
    for blob in image.blobs:
        file_of(server, sha256(blob)).unlink()
    lines = [l for l in fsck(server).stdout.splitlines() if l.startswith("wrong: blob ")]
    assert len(lines) == len(image.blobs)


@pytest.mark.parametrize("arguments", [["--unheard-of"], ["stray"]])
def test_a_wrong_argument_is_exit_2(tmp_path, arguments):
    assert run("fsck", "--data", tmp_path, *arguments).returncode == 2
