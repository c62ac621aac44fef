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
from cluster_checks import (aftermath, all_say, await_ready, await_unready, check_deep, LEASE,
                            make_due, NODES, small_cluster)
from cluster_load import Load
from holdfast import in_threads, REPOSITORY
from services import scratch

pytestmark = [pytest.mark.hooks,
              pytest.mark.skipif(missing() is not None, reason=f"NOT RUN: {missing()}")]


STILL = 13  # seconds; longer than database.patience
SHORT = 20  # seconds; no client waits for so long because one node ends


@pytest.fixture
def cluster():
    with scratch() as folder, small_cluster(folder) as running:
        yield running


def busy(load, seconds, least=10):
    """Lets the load run, and jobs with it, for so long and until something has come of it."""
    enough = load.acknowledged() + least
    make_due(load.cluster)
    load.run(seconds)
    load.run_until(lambda: load.acknowledged() >= enough, "hardly anything is pushed")


def spoil(load, proxy, seconds=2, least=20):
    """Lets the proxy do what it was told to, for so long and so often."""
    enough = proxy.injected + least
    busy(load, seconds)
    load.run_until(lambda: proxy.injected >= enough, "what is to fail is hardly used")
    proxy.heal()


# ---- Nodes ----

def test_kill_9_of_each_node(cluster):
    with Load(cluster) as load:
        busy(load, 2)
        for i in NODES:
            cluster.kill(i)
            busy(load, 2)
            cluster.start(i)
            busy(load, 1)
        check_deep(cluster)
    assert load.tally.longest < SHORT, load.tally
    aftermath(load)


def test_kill_9_of_all_nodes_at_once(cluster):
    with Load(cluster) as load:
        busy(load, 2)
        for i in NODES:
            cluster.kill(i)
        load.run(2)
        in_threads(len(NODES), cluster.start)
        busy(load, 2)
        for i in NODES:
            cluster.kill(i)
        in_threads(len(NODES), cluster.start)
        busy(load, 2)
    aftermath(load)


def test_nodes_are_updated_one_by_one(cluster):
    """SIGTERM: what runs comes to its end, and hardly a client notices."""
    with Load(cluster) as load:
        busy(load, 2)
        for i in NODES:
            assert cluster.stop(i) == 0
            busy(load, 1)
            cluster.start(i)
            cluster.balancer.wait_up()
        busy(load, 2)
    assert load.tally.longest < SHORT, load.tally
    aftermath(load)


def test_a_node_stands_still_past_its_leases(cluster):
    with Load(cluster) as load:
        busy(load, 2)
        for i in NODES:
            cluster.pause(i)
            try:
                busy(load, 2.5 * LEASE)
            finally:
                cluster.resume(i)
            busy(load, 1)
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
            load.run_until(lambda: not node.running(), f"{point} is not passed {passing} times")
            assert node.wait() == -signal.SIGKILL
        del node.env["HOLDFAST_TEST_CRASH"]
        cluster.start(1)
        busy(load, 2)
    aftermath(load)


# ---- PostgreSQL ----

def test_postgresql_restarts(cluster):
    with Load(cluster) as load:
        for how in ("fast", "immediate", "kill"):
            busy(load, 2)
            if how == "kill":
                cluster.kill(0)
                cluster.postgres.kill()
                starting = threading.Thread(target=cluster.start, args=(0,))
                starting.start()  # it waits for the database
                load.run_until(lambda: all_say(cluster, 0, 503), "nobody misses the database")
                cluster.postgres.start()
                starting.join()
            else:
                cluster.postgres.restart(how)
            await_ready(cluster)
            busy(load, 1)
        check_deep(cluster)
    aftermath(load)


def test_postgresql_stands_still(cluster):
    with Load(cluster) as load:
        busy(load, 2)
        cluster.postgres.pause()
        begun = time.monotonic()
        try:
            await_unready(cluster)
            load.run(STILL - (time.monotonic() - begun))
        finally:
            cluster.postgres.resume()
        await_ready(cluster)
        busy(load, 2)
    aftermath(load)


def test_the_way_to_postgresql_is_cut_and_slow(cluster):
    proxy = cluster.database_proxy
    with Load(cluster) as load:
        busy(load, 2)
        for _ in range(8):
            proxy.slow(delay=0.02)
            load.run(0.4)
            proxy.cut()
            proxy.heal()
        # The last word of a transaction that is done; nobody hears it.
        proxy.lose(b"C\0\0\0\x0bCOMMIT\0", share=0.1)
        spoil(load, proxy, 3)
        busy(load, 1)
        proxy.hang()
        load.run(8)
        proxy.heal()
        await_ready(cluster)
        busy(load, 2)
    aftermath(load)


# ---- The object store ----

def test_the_object_store_answers_500_and_503(cluster):
    proxy = cluster.store_proxy
    with Load(cluster) as load:
        busy(load, 2)
        for status in (500, 503):
            proxy.fail(status, share=0.3)
            spoil(load, proxy)
            proxy.fail(status, share=0.3, after=True)  # it was done, and the answer denies it
            spoil(load, proxy)
        proxy.drop("request", share=0.1)
        proxy.drop("answer", share=0.1)
        proxy.drop("before_answer", share=0.1)
        spoil(load, proxy)
        proxy.fail(503)  # all of them
        load.run(5)
        proxy.heal()
        await_ready(cluster)
        busy(load, 2)
        check_deep(cluster)
    aftermath(load)


def test_the_object_store_is_slow(cluster):
    with Load(cluster) as load:
        busy(load, 2)
        cluster.store_proxy.slow(delay=0.3, bytes_per_second=2 << 20)
        busy(load, 6)
        cluster.store_proxy.heal()
        busy(load, 2)
    aftermath(load)


@pytest.mark.parametrize("how, seconds", [("cut", 30), ("hang", 15)])
def test_the_object_store_is_cut_off(cluster, how, seconds):
    with Load(cluster) as load:
        busy(load, 2)
        getattr(cluster.store_proxy, how)()
        begun = time.monotonic()
        await_unready(cluster)
        load.run(seconds - (time.monotonic() - begun))
        cluster.store_proxy.heal()
        await_ready(cluster)
        busy(load, 2)
    aftermath(load)
