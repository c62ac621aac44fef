"""Three nodes behind a balancer: what is pushed at one is at all of them."""

import pytest

from cluster import Cluster
from holdfast import (get_blob, get_manifest, make_image, pull_image, push_blob, push_image,
                      random_bytes, random_name, sha256, start_upload, wait_until, with_query)
from services import scratch


@pytest.fixture(scope="module")
def cluster():
    with scratch() as folder, Cluster(folder) as running:
        yield running
        running.check()


@pytest.fixture
def repo():
    return random_name("team/app")


@pytest.fixture
def nodes(cluster):
    """A client of each node."""
    clients = [cluster.client(i) for i in range(len(cluster.nodes))]
    yield clients
    for client in clients:
        client.close()


def test_a_push_by_the_balancer_is_pulled_from_every_node(cluster, nodes, repo):
    image = make_image(3, 100_000)
    with cluster.client() as client:
        push_image(client, repo, image, "v1")
    for client in nodes:
        assert pull_image(client, repo, "v1").body == image.body


def test_the_balancer_asks_all_nodes(cluster):
    with cluster.client() as client:
        assert {client.get("/v2/").headers["X-Served-By"] for _ in range(12)} == {
            f"node{i}" for i in range(len(cluster.nodes))}


def test_an_upload_goes_on_at_another_node(nodes, repo):
    data = random_bytes(20 << 20)
    location = start_upload(nodes[0], repo)
    step = len(data) // 3 + 1
    for i, client in enumerate(nodes):
        piece = data[i * step:(i + 1) * step]
        answer = client.patch(location, piece, {
            "Content-Range": f"{i * step}-{i * step + len(piece) - 1}"})
        assert answer.status == 202, answer
        location = answer.location
    assert nodes[0].put(with_query(location, digest=sha256(data))).status == 201
    for client in nodes:
        assert get_blob(client, repo, sha256(data)) == data


def test_a_blob_comes_from_the_store_itself(cluster, nodes, repo):
    digest = push_blob(nodes[0], repo, random_bytes(100_000))
    cluster.store_proxy.reset()
    answer = nodes[1].get(f"/v2/{repo}/blobs/{digest}")
    assert answer.redirect.status == 307
    assert answer.redirect.location.startswith(cluster.store_proxy.endpoint)
    assert cluster.store_proxy.counts() == {"GetObject": 1}


@pytest.mark.parametrize("delete_by", ["tag", "digest"])
def test_a_change_is_seen_at_every_node_within_a_second(cluster, nodes, repo, delete_by):
    first, second = make_image(), make_image()
    push_image(nodes[0], repo, first, "v1")
    for client in nodes:
        get_manifest(client, repo, "v1")
        get_manifest(client, repo, first.digest)
    push_image(nodes[0], repo, second, "v1")
    for client in nodes:
        assert get_manifest(client, repo, "v1").body == second.body
    path = f"/v2/{repo}/manifests/{'v1' if delete_by == 'tag' else second.digest}"
    assert nodes[1].delete(path).status == 202
    # A node may answer from its memory until it is told.
    assert wait_until(lambda: {client.get(path).status for client in nodes} == {404}, 1, 0.02)


def test_nodes_die_and_come_back_behind_the_balancer(cluster, repo):
    image = make_image(2, 50_000)
    with cluster.client() as client:
        push_image(client, repo, image, "v1")
        cluster.kill(0)
        cluster.stop(1)
        cluster.balancer.wait_down(0, 1)
        assert pull_image(client, repo, "v1").body == image.body
        cluster.start(0)
        cluster.start(1)
        cluster.balancer.wait_up()
        push_image(client, repo, make_image(), "v2")


def test_a_database_that_restarts_is_found_again(cluster, nodes, repo):
    image = make_image()
    push_image(nodes[0], repo, image, "v1")
    cluster.postgres.restart()
    path = f"/v2/{repo}/manifests/v1"
    assert wait_until(lambda: {client.get(path).status for client in nodes} == {200}, 5)
    for client in nodes:
        assert pull_image(client, repo, "v1").body == image.body
    push_image(nodes[1], repo, make_image(), "v2")
