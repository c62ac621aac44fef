"""What must hold of a cluster after anything that happened to it."""

import json
import os
import time
from pathlib import Path

from cluster import Cluster
from cluster_clients import connect, NO_ANSWER
from holdfast import in_threads, wait_until

NODES = range(3)
LEASE = 2       # seconds; --cluster-lease
HEALED = 15     # seconds until all is well again
KINDS = ["totals.fold", "uploads.expire"]
DESCRIPTORS_MAX = 250          # of an idle node: connections that it keeps, and its own
MEMORY_MAX = 1 << 30           # of a node under AddressSanitizer, which keeps what was freed
SHIFT = 7200                   # seconds by which a node's clock is wrong when uploads are swept


def small_cluster(folder, *flags):
    """Three nodes with small parts and short leases. AddressSanitizer does not keep for long what
    was freed, so that memory tells something."""
    options = os.environ.get("ASAN_OPTIONS", "")
    return Cluster(folder, args=("--s3-part-size", "5MiB", "--cluster-lease", f"{LEASE}s",
                                 "--uploads-expire", "1m", *flags),
                   env={"ASAN_OPTIONS": f"{options}:quarantine_size_mb=16"})


def readiness(cluster, node, timeout=3):
    """The status of a node's /readyz; 0 when it says nothing in time."""
    try:
        with connect(cluster, node, timeout=timeout) as client:
            return client.get("/readyz").status
    except NO_ANSWER:
        return 0


def all_say(cluster, *statuses):
    """Whether each node's /readyz answers one of these."""
    return set(in_threads(len(cluster.nodes), lambda i: readiness(cluster, i))) <= set(statuses)


def await_ready(cluster, seconds=HEALED):
    """Until every node and the balancer say so."""
    assert wait_until(lambda: all_say(cluster, 200), seconds), (
        f"not ready after {seconds} s: {[readiness(cluster, i) for i in NODES]}")
    cluster.balancer.wait_up(timeout=seconds)


def await_unready(cluster, seconds=HEALED):
    """Until every node says that it is not, and the balancer sends nothing there any more."""
    assert wait_until(lambda: all_say(cluster, 503), seconds), (
        f"ready after {seconds} s: {[readiness(cluster, i) for i in NODES]}")
    cluster.balancer.wait_down(*NODES, timeout=seconds)


def fsck(cluster, *arguments):
    """Its findings as lines, and the four numbers of its last line."""
    result = cluster.run("fsck", *arguments)
    lines = result.stdout.splitlines()
    assert result.returncode == 0, f"fsck {arguments}:\n{result.stdout}\n{result.stderr}"
    numbers = [int(part.split()[0]) for part in lines[-1].split(", ")]
    return lines[:-1], dict(zip(("wrong", "repaired", "left over", "freed"), numbers))


def check_deep(cluster):
    """While nodes serve: no reference to bytes that are missing or others."""
    lines, counts = fsck(cluster, "--deep")
    assert counts["wrong"] == counts["repaired"] == counts["freed"] == 0, lines


# ---- The database ----

def rows(cluster, sql):
    """As dictionaries."""
    text = cluster.psql(f"SELECT coalesce(json_agg(row_to_json(q)), '[]') FROM ({sql}) q")
    return json.loads(text)


def check_totals(cluster):
    """What is counted by triggers and summed up by a job is what is there: a sum that was lost, or
    made twice, would show."""
    assert rows(cluster, """
        SELECT t.name, t.value, c.value AS counted FROM total_now t JOIN (
            SELECT 'repositories' AS name, count(*) AS value FROM repository
            UNION ALL SELECT 'manifests', count(*) FROM manifest
            UNION ALL SELECT 'tags', count(*) FROM tag
            UNION ALL SELECT 'uploads', count(*) FROM upload
            UNION ALL SELECT 'blobs', count(*) FROM blob
            UNION ALL SELECT 'blob_bytes', coalesce(sum(size), 0) FROM blob) c ON c.name = t.name
        WHERE t.value <> c.value""") == []


def jobs(cluster):
    return rows(cluster, """SELECT *, CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS
                            BIGINT) AS now FROM job ORDER BY kind""")


def make_due(cluster):
    """All jobs that nobody runs."""
    cluster.psql("UPDATE job SET due_at = 0 WHERE lease = ''")


def is_at_rest(job):
    return (job["lease"] == "" and job["attempts"] == 0 and job["error"] == ""
            and 0 < job["due_at"] - job["now"] <= job["every_us"] > 0)


def check_jobs(cluster, seconds=HEALED):
    """Each kind is there once, runs when it is due, and is due again."""
    assert [job["kind"] for job in jobs(cluster)] == KINDS, jobs(cluster)
    make_due(cluster)
    assert wait_until(lambda: all(map(is_at_rest, jobs(cluster))), seconds, 0.2), jobs(cluster)


def held_uploads(cluster):
    return rows(cluster, """SELECT id, hold FROM upload WHERE hold <> '' AND held_until >
                            extract(epoch FROM clock_timestamp()) * 1000000""")


def check_leases(cluster):
    """Nobody uploads any more: within a lease all are free."""
    assert wait_until(lambda: not held_uploads(cluster), 2 * LEASE + 1), held_uploads(cluster)


def check_sessions(cluster):
    """Nothing was left open in the database."""
    def stuck():
        return rows(cluster, """SELECT pid, state, query FROM pg_stat_activity WHERE datname =
                                current_database() AND state LIKE 'idle in transaction%'""")

    assert wait_until(lambda: not stuck(), 5), stuck()


# ---- The nodes ----

def descriptors(node):
    return len(os.listdir(f"/proc/{node.pid}/fd"))


def check_nodes(cluster):
    cluster.check()
    for node in cluster.nodes:
        assert wait_until(lambda node=node: node.open_files() <= 5, 10), (
            f"{node.open_files()} clients' connections without a client")
        assert descriptors(node) < DESCRIPTORS_MAX, sorted(
            os.readlink(f"/proc/{node.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{node.pid}/fd"))
        assert node.rss() < MEMORY_MAX, f"{node.rss() >> 20} MiB"


# ---- The end ----

def sweep(cluster):
    """Stops all nodes but one, by whose clock all uploads are stale, and whose job removes them."""
    for i, node in enumerate(cluster.nodes):
        assert cluster.stop(i) == 0, node.log_text()[-3000:]
    cluster.check()
    make_due(cluster)
    node = cluster.nodes[0]
    node.env["HOLDFAST_TEST_CLOCK_SHIFT"] = str(SHIFT)
    cluster.start(0)
    del node.env["HOLDFAST_TEST_CLOCK_SHIFT"]
    left = lambda: (rows(cluster, "SELECT * FROM upload"), cluster.uploads())  # noqa: E731
    assert wait_until(lambda: left() == ([], []), HEALED, 0.2), (left(), jobs(cluster))
    assert cluster.stop(0) == 0
    cluster.check()


def check_bucket(cluster):
    """It holds the blobs that the database names, and nothing else."""
    named = {row["location"]: row["size"] for row in rows(
        cluster, "SELECT location, size FROM blob")}
    assert cluster.objects() == named
    assert cluster.uploads() == []


def check_repair(cluster):
    """With nobody serving: there are only leftovers, and then there is nothing."""
    lines, counts = fsck(cluster, "--repair")
    assert counts["wrong"] == counts["repaired"] == 0, lines
    check_bucket(cluster)
    lines, counts = fsck(cluster, "--repair")
    assert set(counts.values()) == {0}, lines


def check_all(cluster, ledger=None):
    """The cluster is whole again, and nobody uses it; it is stopped afterwards."""
    await_ready(cluster)
    cluster.check()
    if ledger is not None:
        ledger.verify(cluster)
    check_deep(cluster)
    check_leases(cluster)
    check_sessions(cluster)
    check_jobs(cluster)
    check_totals(cluster)
    check_nodes(cluster)
    sweep(cluster)
    check_repair(cluster)
    if ledger is not None:
        cluster.start(0)
        ledger.verify(cluster, 0)
        cluster.stop(0)
    cluster.check()


def aftermath(load):
    """Of a load that is over."""
    assert not load.odd, load.odd[0]
    check_all(load.cluster, load.ledger)
