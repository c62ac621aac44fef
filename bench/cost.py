"""What a push and a pull cost on many nodes: requests, round trips to PostgreSQL, calls of the
object store, bytes, and processor time by part. Prints what docs/scaling.md is built on:

    python3 bench/cost.py [BINARY] [--only PART] [--peer] [--statements] [--folder FOLDER]

counts    what each thing takes, exactly: all that passes between the parts goes through proxies
          that count (taps.py), and each thing is done three times
idle      what a node that nobody asks takes by itself
time      processor time by part, without proxies, over some seconds each
database  what PostgreSQL alone can do of our transactions (database_load.py)

--peer: docker-registry's counts too. --statements: also what each thing asks of the database."""

import argparse
import collections
import contextlib
import itertools
import pathlib
import sys
import tempfile
import time

import database_load
import seed
from content import push_blob, push_image, random_file
from measure import MIB, Tools
from nodes import FaultProxy, Stack, missing, processor_seconds
from servers import Broken, DockerRegistry, Holdfast
from taps import PostgresTap, Tap
from visitor import REPOSITORY, Visitor, contents

ROOT = pathlib.Path(__file__).resolve().parent.parent
SMALL = [10 * 1024, 100 * 1024, MIB]
LARGE = [64 * MIB] * 3
TIMES = 3
SETTLE_SECONDS = 0.3  # what is removed comes after the answer
IDLE_SECONDS = 20
TIMED_SECONDS = 4
PARTS = ("nodes", "PostgreSQL", "radosgw", "Ceph behind it")

# Statements of what runs by itself, whatever requests come.
BEATS = ("SELECT CAST(extract(epoch", "LISTEN", "SELECT 1")
JOBS = (" job ", " total ")

RELAXED = "SET LOCAL synchronous_commit = off"  # before a COMMIT that does not wait for the disk

ONE_REQUEST = "push of small layers: POST"

Thing = collections.namedtuple("Thing", "name prepare do")


def is_by_itself(trip):
    return all(
        sql.startswith(BEATS) or any(word in sql + " " for word in JOBS) for sql in trip.statements
    )


def table(*heads):
    print("\n| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


# ---- Counts ----


class Counted:
    """One node, and proxies that count before and behind it."""

    def __init__(self, stack, kind, redirect=True):
        self.stack = stack
        self.make = stack.peer if kind is DockerRegistry else stack.holdfast
        self.redirect = redirect
        self.postgres = PostgresTap(stack.postgres.port)
        self.operations = FaultProxy(stack.store.port)
        self.store = Tap(self.operations.port)

    def __enter__(self):
        with contextlib.ExitStack() as exits:
            for tap in (self.postgres, self.operations, self.store):
                exits.enter_context(tap)
            with self.stack.through(self.postgres.port, self.store.port):
                (server,) = self.make(1, redirect=self.redirect).servers
            exits.enter_context(server)
            self.front = exits.enter_context(Tap(server.port))
            self.visitor = Visitor(self.front.port)
            self.exits = exits.pop_all()
        return self

    def __exit__(self, *_):
        self.exits.close()

    def moved(self):
        return {
            part: tap.to_server + tap.to_client
            for part, tap in (("clients", self.front), ("PostgreSQL", self.postgres))
        }

    def count(self, do, given):
        """Does it, and returns what that took."""
        visitor = self.visitor
        visitor.requests, visitor.fetched = 0, collections.Counter()
        self.operations.reset()
        before, first = self.moved(), len(self.postgres.trips)
        do(visitor, given)
        time.sleep(SETTLE_SECONDS)
        trips = [trip for trip in self.postgres.trips[first:] if not is_by_itself(trip)]
        operations = self.operations.counts() - visitor.fetched
        after = self.moved()
        return {
            "requests": visitor.requests,
            "trips": len(trips),
            "commits": sum("COMMIT" in trip.statements for trip in trips),
            "synced": sum(
                "COMMIT" in trip.statements and RELAXED not in trip.statements for trip in trips
            ),
            "calls": sum(operations.values()),
            "fetched": sum(visitor.fetched.values()),
            "operations": operations,
            "moved": {part: after[part] - before[part] for part in after},
            "statements": trips,
        }


def between(results, key):
    low, high = min(r[key] for r in results), max(r[key] for r in results)
    return f"{low}" if low == high else f"{low} to {high}"


def size_text(n):
    if n >= 10 * MIB:
        return f"{n / MIB:,.0f} MiB"
    return f"{n / MIB:.1f} MiB" if n >= MIB else f"{n / 1024:,.1f} KiB"


def count_row(counted, thing, list_statements):
    results = [counted.count(thing.do, thing.prepare()) for _ in range(TIMES)]
    last = results[-1]
    operations = ", ".join(f"{n} {kind}" for kind, n in last["operations"].most_common())
    keys = ("requests", "trips", "commits", "synced", "calls", "fetched")
    row(
        thing.name,
        *(between(results, key) for key in keys),
        operations,
        *(size_text(last["moved"][part]) for part in ("clients", "PostgreSQL")),
    )
    if list_statements:
        for trip in last["statements"]:
            print("    " + " ; ".join(sql[:110] for sql in trip.statements))


def things(visitor):
    """What is counted with redirects."""
    numbers = itertools.count()
    old = contents(SMALL)
    visitor.push_image(old, "v1")

    def new_image():
        tag = f"n{next(numbers)}"
        visitor.push_image(contents(SMALL), tag)
        return tag

    def known_image():
        visitor.pull_image("v1")
        return "v1"

    def push(way):
        return lambda v, layers: v.push_image(layers, f"t{next(numbers)}", way)

    def known_digest():
        return visitor.digest_of(known_image())

    def new_digest():
        return visitor.digest_of(new_image())

    def small():
        return contents(SMALL)

    return [
        Thing("manifest by tag", known_image, lambda v, tag: v.manifest(tag)),
        Thing("manifest by tag, new to the node", new_image, lambda v, tag: v.manifest(tag)),
        Thing("manifest by digest", known_digest, lambda v, digest: v.manifest(digest)),
        Thing("pull of an image", known_image, lambda v, tag: v.pull_image(tag)),
        Thing("pull of an image, new to the node", new_image, lambda v, tag: v.pull_image(tag)),
        Thing("push of small layers: POST, PATCH, PUT", small, push("PATCH")),
        Thing("push of small layers: POST, PUT", small, push("PUT")),
        Thing(ONE_REQUEST, small, push("POST")),
        Thing(
            "push, 2 of 3 small layers there", lambda: [*old[:2], *contents([MIB])], push("PATCH")
        ),
        Thing("push, all there, another tag", lambda: old, push("PATCH")),
        Thing("push of 64 MiB layers: POST, PATCH, PUT", lambda: contents(LARGE), push("PATCH")),
        Thing("manifest deleted", new_digest, lambda v, digest: v.delete(digest)),
    ]


def counts(stack, options):
    for kind in (Holdfast, DockerRegistry) if options.peer else (Holdfast,):
        print(f"\n## Counts: {kind.name}, an image has a config and 3 layers")
        table("", "requests", "database round trips", "of them commits", "that wait for the disk",
              "calls by the node", "by the client", "which", "bytes with clients",
              "with PostgreSQL")
        with Counted(stack, kind) as counted:
            for thing in things(counted.visitor):
                if kind is DockerRegistry and thing.name == ONE_REQUEST:
                    continue  # it has no such push
                count_row(counted, thing, options.statements)
            counted.visitor.push_image(contents(SMALL), "streamed")
        with Counted(stack, kind, redirect=False) as counted:
            counted.visitor.pull_image("streamed")
            name = "pull of an image, no redirects"
            thing = Thing(name, lambda: "streamed", lambda v, tag: v.pull_image(tag))
            count_row(counted, thing, options.statements)
        stack.forget()


# ---- What a node takes by itself ----


def idle(stack, _options):
    print("\n## A node that nobody asks, in a second; the balancer asks /readyz twice a second")
    with contextlib.ExitStack() as exits:
        postgres = exits.enter_context(PostgresTap(stack.postgres.port))
        store = exits.enter_context(FaultProxy(stack.store.port))
        with stack.through(postgres.port, store.port):
            nodes = stack.holdfast(1)
        exits.enter_context(nodes)
        time.sleep(2)
        store.reset()
        first, began = len(postgres.trips), processor_seconds(nodes.pids)
        time.sleep(IDLE_SECONDS)
        trips = [" ; ".join(trip.statements) for trip in postgres.trips[first:]]
        table("", "in a second")
        for sql, n in collections.Counter(trips).most_common():
            row(f"round trip: {sql[:100]}", f"{n / IDLE_SECONDS:.2f}")
        for kind, n in store.counts().most_common():
            row(f"store: {kind}", f"{n / IDLE_SECONDS:.2f}")
        used = processor_seconds(nodes.pids) - began
        row("processor, ms", f"{used * 1e3 / IDLE_SECONDS:.2f}")


# ---- Processor time ----


def time_row(stack, nodes, name, run):
    """run() does it for a while and returns how many, and how many in a second."""

    def used():
        return {part: processor_seconds(pids) for part, pids in stack.processes(nodes).items()}

    before = used()
    n, rate = run()
    after = used()
    row(name, f"{rate:,.2f}", *(f"{(after[part] - before[part]) * 1e3 / n:.3f}" for part in PARTS))


def times(stack, options):
    tools = Tools(options.folder)

    def ask(nodes, path):
        url = f"http://127.0.0.1:{nodes.ports[0]}/v2/{REPOSITORY}/{path}"
        result = tools.wrk(url, 16, TIMED_SECONDS)
        return result["requests"], result["rate"]

    def load(nodes, verb, what, **flags):
        result = tools.load(nodes.ports[0], verb, what, **flags)
        return result["requests"], result["rate"]

    def load_gib(nodes, verb, what, **flags):
        result = tools.load(nodes.ports[0], verb, what, **flags)
        return result["gib"], result["mb"] * 1e6 / 2**30

    print("\n## Processor time: milliseconds of each part for one, or for a GiB")
    table("", "in a second", *PARTS)
    many = {"seconds": TIMED_SECONDS, "connections": 4}
    images = {"connections": 16, "requests": 300, "size": SMALL, "seed": 1}
    large = {"connections": 1, "requests": 2, "size": 256 * MIB, "seed": 2}
    whole = {"connections": 1, "requests": 32, "size": 16 * MIB, "seed": 3}
    with stack.holdfast(1) as nodes:
        digest = seed.digest_of(push_image(nodes, REPOSITORY, "timed"))
        blob, _ = push_blob(nodes, REPOSITORY, random_file(options.folder / "blob", 16 * MIB))
        path = f"/v2/{REPOSITORY}/blobs/{blob}"
        for name, run in (
            ("manifest by tag", lambda: ask(nodes, "manifests/timed")),
            ("manifest by digest", lambda: ask(nodes, f"manifests/{digest}")),
            ("redirect of a blob", lambda: ask(nodes, f"blobs/{blob}")),
            (
                "push of an image, small layers",
                lambda: load(nodes, "image", REPOSITORY, **images),
            ),
            (
                "GiB pushed in layers of 256 MiB",
                lambda: load_gib(nodes, "stream", REPOSITORY, **large),
            ),
            (
                "GiB pushed in layers of 16 MiB",
                lambda: load_gib(nodes, "stream", REPOSITORY, **whole),
            ),
            (
                "GiB pulled by redirect, 16 MiB each",
                lambda: load_gib(nodes, "follow", path, **many),
            ),
        ):
            time_row(stack, nodes, name, run)
    with stack.holdfast(1, redirect=False) as nodes:
        time_row(
            stack,
            nodes,
            "GiB pulled through the node, 16 MiB each",
            lambda: load_gib(nodes, "pull", path, **many),
        )
    large["seed"] = 4
    with stack.holdfast(1, tls=True) as nodes:
        time_row(
            stack,
            nodes,
            "GiB pushed in layers of 256 MiB, the store by https",
            lambda: load_gib(nodes, "stream", REPOSITORY, **large),
        )


def database(stack, _options):
    print("\n## PostgreSQL alone, by pgbench with our statements")
    with stack.holdfast(1):
        pass  # it makes the tables
    table(*database_load.HEADS)
    for cells in database_load.measure(stack.postgres, "holdfast"):
        row(*cells)


SUBJECTS = {"counts": counts, "idle": idle, "time": times, "database": database}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("binary", nargs="?", type=pathlib.Path, default=ROOT / "build" / "holdfast")
    parser.add_argument("--only", action="append", choices=SUBJECTS, help="may be repeated")
    parser.add_argument("--peer", action="store_true", help="count docker-registry too")
    parser.add_argument("--statements", action="store_true", help="list what goes to the database")
    parser.add_argument("--folder", type=pathlib.Path, help="where to put the data of the run")
    options = parser.parse_args()
    if reason := missing():
        print(f"cost: {reason}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="holdfast-cost-", dir=options.folder) as name:
        options.folder = pathlib.Path(name)
        try:
            with Stack(options.binary, options.folder / "stack") as stack:
                for part in options.only or SUBJECTS:
                    SUBJECTS[part](stack, options)
        except Broken as error:
            print(f"cost: the run broke: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
