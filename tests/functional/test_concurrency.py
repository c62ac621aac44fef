"""Many clients at once. Kept small enough to run under a thread sanitizer."""

import random
import threading

from holdfast import (Client, get_blob, get_manifest, in_threads, make_artifact, make_image,
                      MANIFEST, metric, metrics, pull_image, push_blob, push_image, push_manifest,
                      random_bytes, random_name, sha256, start_upload, tags, wait_until, with_query)


def test_one_blob_pushed_by_many_is_201_for_all(server, repo):
    data = random_bytes(300000)

    def push(i):
        with Client(server) as client:
            location = start_upload(client, repo)
            return client.put(with_query(location, digest=sha256(data)), data).status

    assert in_threads(8, push) == [201] * 8
    with Client(server) as client:
        assert get_blob(client, repo, sha256(data)) == data


def test_one_blob_pushed_by_many_in_chunks_and_in_one_is_201_for_all(server, repo):
    data = random_bytes(100000)

    def push(i):
        with Client(server) as client:
            push_blob(client, f"{repo}{i % 3}", data, chunk=30000 if i % 2 else None)

    in_threads(8, push)
    with Client(server) as client:
        for i in range(3):
            assert get_blob(client, f"{repo}{i}", sha256(data)) == data


def test_one_tag_pushed_by_many_ends_as_one_of_them(server, repo):
    images = [make_image() for _ in range(8)]

    def push(i):
        with Client(server) as client:
            for _ in range(3):
                push_image(client, repo, images[i], "latest")

    in_threads(8, push)
    with Client(server) as client:
        assert pull_image(client, repo, "latest").body in [i.body for i in images]
        assert tags(client, repo) == ["latest"]
        for image in images:
            pull_image(client, repo, image.digest)


def test_a_tag_that_moves_is_always_one_or_the_other(server, repo):
    images = [make_image(), make_image()]
    with Client(server) as client:
        for image in images:
            push_image(client, repo, image)
        push_manifest(client, repo, images[0], "latest")
    done = threading.Event()

    def move(_):
        try:
            with Client(server) as client:
                for i in range(40):
                    push_manifest(client, repo, images[i % 2], "latest")
        finally:
            done.set()

    def watch(_):
        seen = set()
        with Client(server) as client:
            while not done.is_set():
                seen.add(get_manifest(client, repo, "latest").body)
        return seen

    results = in_threads(4, lambda i: move(i) if i == 0 else watch(i))
    for seen in results[1:]:
        assert seen <= {image.body for image in images}


def test_of_many_that_create_a_tag_under_a_condition_one_succeeds(server, repo):
    images = [make_image() for _ in range(6)]
    with Client(server) as client:
        for image in images:
            push_image(client, repo, image)

    def create(i):
        with Client(server) as client:
            return client.put(f"/v2/{repo}/manifests/once", images[i].body,
                              {"Content-Type": MANIFEST, "If-None-Match": "*"}).status

    statuses = in_threads(6, create)
    assert sorted(statuses) == [201] + [412] * 5
    with Client(server) as client:
        assert get_manifest(client, repo, "once").body == images[statuses.index(201)].body


def test_referrers_pushed_at_once_are_all_listed(server, repo):
    subject = make_image()

    def push(i):
        artifact = make_artifact("application/x.y", subject.descriptor(), annotations={"i": str(i)})
        with Client(server) as client:
            push_image(client, repo, artifact)
        return artifact.digest

    pushed = in_threads(8, push)
    with Client(server) as client:
        listed = client.get(f"/v2/{repo}/referrers/{subject.digest}").json()["manifests"]
        assert sorted(d["digest"] for d in listed) == sorted(pushed)


def test_pushes_pulls_mounts_and_deletes_do_not_disturb_each_other(server, repo):
    shared = random_bytes(50000)
    with Client(server) as client:
        push_blob(client, repo + "/shared", shared)

    def work(i):
        own = f"{repo}/{i}"
        source = random.Random(i)
        with Client(server) as client:
            for round in range(6):
                image = make_image(2, source.randrange(1, 60000), layer_blobs=[
                    random_bytes(source.randrange(1, 60000)), shared])
                mounted = client.post(f"/v2/{own}/blobs/uploads/?mount={sha256(shared)}"
                                      f"&from={repo}/shared")
                assert mounted.status == 201
                push_image(client, own, image, f"v{round}")
                assert pull_image(client, own, f"v{round}").body == image.body
                if round % 2:
                    assert client.delete(f"/v2/{own}/manifests/{image.digest}").status == 202
                    assert client.get(f"/v2/{own}/manifests/v{round}").status == 404
                client.get("/v2/_catalog")
                client.get("/metrics")
            assert tags(client, own) == ["v0", "v2", "v4"]

    in_threads(6, work)


def test_a_blob_deleted_and_pushed_by_many_is_never_half_there(server, repo):
    # Whoever gets 200 gets all of it; whoever was told 201 last finds it.
    data = random_bytes(20000)
    path = f"/v2/{repo}/blobs/{sha256(data)}"

    def work(i):
        with Client(server) as client:
            for _ in range(15):
                if i == 0:
                    assert client.delete(path).status in (202, 404)
                elif i == 1:
                    answer = client.get(path)
                    assert answer.status in (200, 404)
                    assert answer.status == 404 or answer.body == data
                else:
                    push_blob(client, repo, data)

    in_threads(4, work)
    with Client(server) as client:
        push_blob(client, repo, data)
        assert get_blob(client, repo, sha256(data)) == data


def test_deleting_a_manifest_while_its_tag_is_pushed_leaves_whole_images(server, repo):
    image = make_image()
    with Client(server) as client:
        push_image(client, repo, image, "v1")

    def work(i):
        with Client(server) as client:
            for _ in range(15):
                if i == 0:
                    answer = client.delete(f"/v2/{repo}/manifests/{image.digest}")
                    assert answer.status in (202, 404)
                else:
                    push_manifest(client, repo, image, "v1")

    in_threads(3, work)
    with Client(server) as client:
        push_manifest(client, repo, image, "v1")
        pull_image(client, repo, "v1")


def test_repositories_made_by_many_at_once_exist_once(server):
    base = random_name("many/repo")

    def push(i):
        with Client(server) as client:
            for j in range(5):
                push_image(client, f"{base}{j}", make_image(0), f"v{i}")

    in_threads(6, push)
    with Client(server) as client:
        names = client.get(f"/v2/_catalog?last={base}&n=5").json()["repositories"]
        assert names == [f"{base}{j}" for j in range(5)]
        for name in names:
            assert tags(client, name) == [f"v{i}" for i in range(6)]


def test_clients_that_vanish_among_others_leave_nothing_counted(server, repo):
    data = random_bytes(100000)

    def work(i):
        with Client(server) as client:
            for _ in range(5):
                location = start_upload(client, repo)
                if i % 2:
                    client.raw(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"
                               f"\r\n".encode() + data[:50000]).reset()
                else:
                    url = with_query(location, digest=sha256(data))
                    assert client.put(url, data).status == 201

    in_threads(6, work)
    with Client(server) as client:
        assert wait_until(lambda: metric(metrics(client), "holdfast_uploads_in_flight") == 0)


def test_many_connections_are_served_at_once(server):
    def ask(i):
        with Client(server) as client:
            return [client.get("/v2/").status for _ in range(10)]

    assert in_threads(40, ask) == [[200] * 10] * 40


def test_an_end_among_requests_loses_nothing_that_was_acknowledged(make_server):
    server = make_server()
    acknowledged = []

    def push(i):
        with Client(server, timeout=20) as client:
            try:
                for j in range(1000):
                    image = make_image(1, 5000)
                    push_image(client, f"app{i}", image, f"v{j}")
                    acknowledged.append((f"app{i}", f"v{j}", image.body))
            except Exception:  # the end came
                return

    def end(_):
        wait_until(lambda: len(acknowledged) > 5, 30)
        assert server.stop() == 0

    in_threads(4, lambda i: end(i) if i == 0 else push(i))
    server.start()
    with Client(server) as client:
        for repo, tag, body in acknowledged:
            assert pull_image(client, repo, tag).body == body
