"""Three nodes, PostgreSQL and an object store under a mixed load, while something breaks. After it
every acknowledged push pulls back byte for byte from every node, nothing refers to bytes that are
missing, no job is lost or takes effect twice, and clients saw retries at worst."""

import random
import re
import signal
import threading
import time

import pytest

from cluster import missing
from cluster_checks import (aftermath, await_ready, check_deep, HEALED, LEASE, make_due, NODES,
                            readiness, small_cluster)
from cluster_load import Load
from holdfast import in_threads, REPOSITORY, wait_until
from services import scratch

pytestmark = [pytest.mark.hooks,
              pytest.mark.skipif(missing() is not None, reason=f"NOT RUN: {missing()}")]


@pytest.fixture
def cluster():
    with scratch() as folder, small_cluster(folder) as running:
        yield running


def busy(load, seconds, least=5):
    """Lets the load run, and jobs with it; something must come of it."""
    before = load.acknowledged()
    make_due(load.cluster)
    load.run(seconds)
    assert load.acknowledged() - before >= least, f"hardly anything was pushed: {load.tally}"


# ---- Nodes ----

def test_kill_9_of_each_node(cluster):
    with Load(cluster) as load:
        busy(load, 2)
        for i in NODES:
            cluster.kill(i)
            busy(load, 3)
            cluster.start(i)
            busy(load, 2)
        check_deep(cluster)
    assert load.tally.longest < 20, load.tally
    aftermath(load)


def test_kill_9_of_all_nodes_at_once(cluster):
    with Load(cluster) as load:
        busy(load, 3)
        for i in NODES:
            cluster.kill(i)
        load.run(2)
        in_threads(len(NODES), cluster.start)
        busy(load, 4)
        for i in NODES:
            cluster.kill(i)
        in_threads(len(NODES), cluster.start)
        busy(load, 3)
    aftermath(load)


def test_nodes_are_updated_one_by_one(cluster):
    """SIGTERM: what runs comes to its end, and hardly a client notices."""
    with Load(cluster) as load:
        busy(load, 2)
        for i in NODES:
            assert cluster.stop(i) == 0
            busy(load, 1, least=1)
            cluster.start(i)
            cluster.balancer.wait_up()
        busy(load, 2)
    assert load.tally.longest < 10, load.tally
    aftermath(load)


def test_a_node_stands_still_past_its_leases(cluster):
    with Load(cluster) as load:
        busy(load, 2)
        for i in NODES:
            cluster.pause(i)
            try:
                busy(load, 3 * LEASE)
            finally:
                cluster.resume(i)
            busy(load, 2)
        check_deep(cluster)
    aftermath(load)


def points():
    """The crash points that a node of a cluster passes."""
    found = set()
    for path in sorted((REPOSITORY / "src").glob("*/*.c")):
        if path.parent.name in ("blob", "db", "registry") and not path.name.startswith(
                ("blob_fs", "db_group", "test_")):
            found |= set(re.findall(r'crash_point\("([^"]+)"\)', path.read_text()))
    return sorted(found)


def test_a_node_dies_at_every_crash_point(cluster):
    source = random.Random()
    node = cluster.nodes[1]
    with Load(cluster) as load:
        for point in points():
            node.kill()
            # Each start passes those of the database, too.
            passing = source.randrange(1, 4) + (15 if point.startswith("db.") else 0)
            node.env["HOLDFAST_TEST_CRASH"] = f"{point}:{passing}"
            cluster.start(1)
            node.expect_end()
            assert wait_until(lambda: not node.running() or load.stopping.is_set(), 20), (
                f"{node.env['HOLDFAST_TEST_CRASH']} is not passed")
            load.run(0)
            assert node.wait() == -signal.SIGKILL
        del node.env["HOLDFAST_TEST_CRASH"]
        cluster.start(1)
        busy(load, 2)
    aftermath(load)


# ---- PostgreSQL ----

def test_postgresql_restarts(cluster):
    with Load(cluster) as load:
        for how in ("fast", "immediate", "kill"):
            busy(load, 3)
            if how == "kill":
                cluster.kill(0)
                cluster.postgres.kill()
                starting = threading.Thread(target=cluster.start, args=(0,))
                starting.start()  # it waits for the database
                assert wait_until(lambda: not any(readiness(cluster, i) == 200 for i in NODES), 10)
                cluster.postgres.start()
                starting.join()
            else:
                cluster.postgres.restart(how)
            assert await_ready(cluster) < HEALED
            busy(load, 2)
        check_deep(cluster)
    aftermath(load)


def test_postgresql_stands_still(cluster):
    with Load(cluster) as load:
        busy(load, 3)
        cluster.postgres.pause()
        try:
            assert wait_until(lambda: {readiness(cluster, i, 12) for i in NODES} == {503}, 15)
            cluster.balancer.wait_down(*NODES, timeout=10)
            load.run(8)
        finally:
            cluster.postgres.resume()
        assert await_ready(cluster) < HEALED
        busy(load, 4)
    aftermath(load)


def test_the_way_to_postgresql_is_cut_and_slow(cluster):
    with Load(cluster) as load:
        busy(load, 2)
        for _ in range(8):
            cluster.database_proxy.slow(delay=0.02)
            load.run(0.4)
            cluster.database_proxy.cut()
            cluster.database_proxy.heal()
        # The last word of a transaction that is done; nobody hears it.
        cluster.database_proxy.lose(b"C\0\0\0\x0bCOMMIT\0", share=0.1)
        busy(load, 6, least=1)
        cluster.database_proxy.heal()
        assert cluster.database_proxy.injected > 20
        busy(load, 2)
        cluster.database_proxy.hang()
        load.run(8)
        cluster.database_proxy.heal()
        assert await_ready(cluster) < HEALED
        busy(load, 3)
    aftermath(load)


# ---- The object store ----

def test_the_object_store_answers_500_and_503(cluster):
    proxy = cluster.store_proxy
    with Load(cluster) as load:
        busy(load, 2)
        for status in (500, 503):
            proxy.fail(status, share=0.3)
            busy(load, 3, least=1)
            proxy.heal()
            proxy.fail(status, share=0.3, after=True)  # it was done, and the answer denies it
            busy(load, 3, least=1)
            proxy.heal()
        proxy.drop("request", share=0.1)
        proxy.drop("answer", share=0.1)
        proxy.drop("before_answer", share=0.1)
        busy(load, 4, least=1)
        assert proxy.injected > 30
        proxy.heal()
        proxy.fail(503)  # all of them
        load.run(6)
        proxy.heal()
        assert await_ready(cluster) < HEALED
        busy(load, 2)
        check_deep(cluster)
    aftermath(load)


def test_the_object_store_is_slow(cluster):
    with Load(cluster) as load:
        busy(load, 2)
        cluster.store_proxy.slow(delay=0.3, bytes_per_second=2 << 20)
        busy(load, 8)
        cluster.store_proxy.heal()
        busy(load, 2)
    aftermath(load)


@pytest.mark.parametrize("how, seconds", [("cut", 30), ("hang", 15)])
def test_the_object_store_is_cut_off(cluster, how, seconds):
    with Load(cluster) as load:
        busy(load, 3)
        getattr(cluster.store_proxy, how)()
        begun = time.monotonic()
        assert wait_until(lambda: {readiness(cluster, i) for i in NODES} == {503}, 15), (
            [readiness(cluster, i) for i in NODES])
        cluster.balancer.wait_down(*NODES, timeout=10)
        load.run(seconds - (time.monotonic() - begun))
        cluster.store_proxy.heal()
        assert await_ready(cluster) < HEALED
        busy(load, 4)
    aftermath(load)
