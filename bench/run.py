"""Holdfast side by side with its peers on this machine: `make bench`, or

    python3 bench/run.py [BINARY] [--quick] [--only SECTION] [--output FILE]

Peers: docker-registry (Debian's), nginx serving the same blob files, and a bare
read-hash-write-fsync loop (bare.c). Several nodes are compared in many_nodes.py. Servers take turns
within each round, so that a noisy neighbour hits both; a ratio is the median over the rounds of
ours / theirs. Everything runs on loopback ports and in a temporary folder (--folder says where; it
must be on a real disk for the pushes to mean something). The exit status says whether the run
worked, not whether targets were met."""

import argparse
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import time

import many_nodes
import seed
from content import ask, push_blob, push_image, random_file
from measure import MIB, MemoryWatch, Row, Tools, column
from servers import Bare, Broken, DockerRegistry, Holdfast, Nginx, make_certificate, resident

ACCEPT = f"Accept: {seed.MANIFEST_TYPE}"
CLIENTS = 16
STARTS = 9
ROOT = pathlib.Path(__file__).resolve().parent.parent


class Bench:
    """One run: its sizes, its folder, its tools and the rows so far."""

    def __init__(self, binary, folder, tools, quick):
        self.binary = binary
        self.folder = folder
        self.tools = tools
        self.rows = []
        self.notes = []
        self.seeds = 0
        self.rounds = 3 if quick else 7
        self.seconds = 2 if quick else 3
        self.layer_rounds = 3 if quick else 5
        self.layer_bytes = (256 if quick else 512) * MIB
        self.blob_bytes = 256 * MIB
        self.memory_layer_bytes = (256 if quick else 1024) * MIB
        self.manifests = 100_000 if quick else 1_000_000
        self.cluster_rounds = 3 if quick else 5
        self.cluster_seconds = 1 if quick else 2
        self.certificate = make_certificate(folder)

    def holdfast(self, name, **options):
        return Holdfast(self.binary, self.folder / name, **options)

    def peer(self, name):
        return DockerRegistry(self.folder / name)

    def fresh_seed(self):
        """A number for contents that no earlier push had."""
        self.seeds += 1
        return self.seeds

    def add(self, *args, **fields):
        row = Row(*args, **fields)
        self.rows.append(row)
        print("  " + " | ".join(cell for cell in row.cells() if cell), flush=True)
        return row

    def turns(self, rounds, *measurements):
        """Runs the measurements in turn, in the other order every second round. Returns one list of
        results for each."""
        results = [[] for _ in measurements]
        for number in range(rounds):
            order = list(enumerate(measurements))
            for index, measure in order if number % 2 == 0 else reversed(order):
                results[index].append(measure())
            os.sync()  # what one round left to write is not the next one's burden
        return results


# ---- Sections ----


def manifest_get(bench):
    section = "Manifest GET by tag"
    with bench.holdfast("manifest") as ours, bench.peer("manifest-peer") as peer:
        for server in (ours, peer):
            content = push_image(server, "team/app", "v1")
        bench.notes.append(f"The manifest of the GETs has 5 layers and {len(content):,} bytes.")

        def measure(server, connections):
            url = f"{server.url}/v2/team/app/manifests/v1"
            return lambda: bench.tools.wrk(url, connections, bench.seconds, [ACCEPT])

        for connections in (16, 256):
            mine, theirs = bench.turns(
                bench.rounds, measure(ours, connections), measure(peer, connections)
            )
            name = f"{connections} connections"
            for key, label, unit, target in (
                ("rate", "requests", "/s", {"at_least": 20}),
                ("p50_ms", "p50", "ms", {}),
                ("p99_ms", "p99", "ms", {"at_most": 1}),
            ):
                a, b = column(mine, key), column(theirs, key)
                bench.add(section, f"{name}, {label}", unit, a, peer.name, b, **target)

    with bench.holdfast("manifest", access_log=True) as ours:
        (mine,) = bench.turns(bench.rounds // 2 + 1, measure(ours, 16))
        bench.add(section, "16 connections, with access log", "/s", column(mine, "rate"))


def blob_get(bench):
    section = "Blob GET"
    with bench.holdfast("blob") as ours:
        source = random_file(bench.folder / "blob.source", bench.blob_bytes)
        large, _ = push_blob(ours, "team/app", source)
        small, _ = push_blob(ours, "team/app", os.urandom(10 * 1024))
        source.unlink()
    data = bench.folder / "blob"
    files = {digest: ours.blob_file(digest).relative_to(data) for digest in (large, small)}
    for tls in (None, bench.certificate):
        with bench.holdfast("blob", tls=tls) as ours:
            with Nginx(bench.folder / "nginx", data, bench.certificate) as peer:
                blob_get_by(bench, section, ours, peer, large, small, files)


def blob_get_by(bench, section, ours, peer, large, small, files):
    tls = ours.tls is not None
    way = "TLS" if tls else "plain"
    peer_port = peer.tls_port if tls else peer.port

    def measure(port, path, connections):
        options = {"tls": tls, "connections": connections, "seconds": bench.seconds}
        return lambda: bench.tools.load(port, "pull", path, **options)

    for connections in (1, 4):
        mine, theirs = bench.turns(
            bench.rounds,
            measure(ours.port, f"/v2/team/app/blobs/{large}", connections),
            measure(peer_port, f"/{files[large]}", connections),
        )
        ciphers = {result["cipher"] for result in mine + theirs}
        if len(ciphers) != 1:
            raise Broken(f"not the same cipher for both: {ciphers}")
        size = f"{bench.blob_bytes // MIB} MiB, {way}{' ' + ciphers.pop() if tls else ''}"
        clients = f"{connections} client{'s' if connections > 1 else ''}"
        a, b = column(mine, "mb"), column(theirs, "mb")
        bench.add(section, f"{size}, {clients}", "MB/s", a, peer.name, b, at_least=0.95)

    def measure_small(url):
        return lambda: bench.tools.wrk(url, CLIENTS, bench.seconds)

    peer_url = f"{'https' if tls else 'http'}://127.0.0.1:{peer_port}"
    mine, theirs = bench.turns(
        bench.rounds,
        measure_small(f"{ours.url}/v2/team/app/blobs/{small}"),
        measure_small(f"{peer_url}/{files[small]}"),
    )
    name = f"10 KiB, {way}, {CLIENTS} connections"
    bench.add(section, name, "/s", column(mine, "rate"), peer.name, column(theirs, "rate"))


def push_large(bench):
    section = "Push of one layer"

    def measure(make, verb):
        def push():
            # The clock of a push starts when the digest is known and stops at the 201.
            with make() as server:
                result = bench.tools.load(
                    server.port,
                    verb,
                    "team/app",
                    size=bench.layer_bytes,
                    seed=bench.fresh_seed(),
                    requests=1,
                )
            shutil.rmtree(server.folder)
            os.sync()  # the blocks are free again, and the next push does not pay for this one
            return result

        return push

    def ours():
        return bench.holdfast("push")

    def peer():
        return bench.peer("push-peer")

    def bare():
        return Bare(bench.tools.bare_path, bench.folder / "push-bare")

    pushes = [measure(make, verb) for verb in ("stream", "push") for make in (ours, peer)]
    pushes.append(measure(bare, "push"))
    # Once aside: many a virtual disk is several times slower where nothing was ever written.
    bench.turns(1, *pushes)
    results = [column(result, "mb") for result in bench.turns(bench.layer_rounds, *pushes)]
    loop = results.pop()
    size = f"{bench.layer_bytes // MIB} MiB"
    for name in ("POST, PATCH, PUT", "POST, PUT"):
        mine, theirs, *results = results
        peer_name = DockerRegistry.name
        bench.add(section, f"{size}, {name}", "MB/s", mine, peer_name, theirs, at_least=2)
        bench.add(section, f"{size}, {name}", "MB/s", mine, Bare.name, loop, at_least=0.75)


def push_small(bench):
    section = "Many small pushes"
    with bench.holdfast("small") as ours, bench.peer("small-peer") as peer:

        def measure(server, verb):
            def push():
                return bench.tools.load(
                    server.port,
                    verb,
                    "team/app",
                    connections=CLIENTS,
                    seconds=bench.seconds,
                    requests=100_000,
                    size=10 * 1024,
                    seed=bench.fresh_seed(),
                )

            return push

        for verb, name, unit, target in (
            ("push", f"10 KiB layers, {CLIENTS} clients", "/s", {"at_least": 3}),
            ("image", f"images (layer, config, manifest), {CLIENTS} clients", "/s", {}),
        ):
            mine, theirs = bench.turns(bench.rounds, measure(ours, verb), measure(peer, verb))
            a, b = column(mine, "rate"), column(theirs, "rate")
            bench.add(section, name, unit, a, peer.name, b, **target)
            a, b = column(mine, "p99_ms"), column(theirs, "p99_ms")
            bench.add(section, f"{name}, p99", "ms", a, peer.name, b)


def memory(bench):
    section = "Resident memory"
    idle, peak, anonymous = [], [], []
    for make, name in ((bench.holdfast, "memory"), (bench.peer, "memory-peer")):
        with make(name) as server:
            connection = server.connect()
            ask(connection, "GET", "/v2/")
            connection.close()
            time.sleep(2)
            idle.append([resident(server.pid)["VmRSS"] / 1024])
            with MemoryWatch(server.pid) as watch:
                pull_and_push(bench, server)
            peak.append([resident(server.pid)["VmHWM"] / 1024])
            anonymous.append([watch.peak["RssAnon"]])
        shutil.rmtree(server.folder)
    layer = f"{bench.memory_layer_bytes // MIB} MiB"
    busy = f"256 pull 64 MiB, {CLIENTS} push {layer}"
    peer = DockerRegistry.name
    bench.add(section, "idle", "MiB", idle[0], peer, idle[1], below=20)
    bench.add(section, f"peak, {busy}", "MiB", peak[0], peer, peak[1], below=100)
    bench.add(section, f"anonymous, {busy}", "MiB", anonymous[0], peer, anonymous[1])


def pull_and_push(bench, server):
    """All at once: 256 clients pull the same blob for some seconds, others push large layers."""
    source = random_file(bench.folder / "memory.source", 64 * MIB)
    digest, _ = push_blob(server, "team/app", source)
    source.unlink()
    pull = {"connections": 256, "seconds": 10}
    push = {"connections": CLIENTS, "requests": CLIENTS, "size": bench.memory_layer_bytes}
    path = f"/v2/team/app/blobs/{digest}"
    run_together(
        [
            bench.tools.load_argv(server.port, "pull", path, **pull),
            bench.tools.load_argv(server.port, "stream", "team/app", **push),
        ]
    )


def run_together(commands, limit_seconds=300):
    running = []
    try:
        for argv in commands:
            pipe = subprocess.PIPE
            words = [str(word) for word in argv]
            running.append(subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True))
        for process in running:
            _, complaint = process.communicate(timeout=limit_seconds)
            if process.returncode != 0:
                raise Broken(f"{process.args[0]}: {complaint.strip()}")
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()


def scale(bench):
    """Start-up, and a large database: many manifests, and a repository of many tags."""
    section = "Start-up to the first answer"
    empty = [0]

    def start(server):
        with server:
            return {"ms": server.start_seconds * 1e3}

    def fresh(make, name):
        def measure():
            empty[0] += 1
            return start(make(f"{name}-{empty[0]}"))

        return measure

    mine, theirs = bench.turns(
        STARTS, fresh(bench.holdfast, "empty"), fresh(bench.peer, "empty-peer")
    )
    a, b = column(mine, "ms"), column(theirs, "ms")
    name = "the first, which makes the database"
    bench.add(section, name, "ms", a, DockerRegistry.name, b, below=50)

    start(bench.holdfast("scale"))
    seed.seed(bench.folder / "scale", bench.manifests, tags=100_000)
    os.sync()
    start(bench.holdfast("scale"))  # once aside: it turns the journal back to WAL
    (mine,) = bench.turns(STARTS, lambda: start(bench.holdfast("scale")))
    bench.add(section, f"{bench.manifests:,} manifests", "ms", column(mine, "ms"), below=50)

    section = "A large database"
    with bench.holdfast("scale") as ours:
        names = (("from the start", ""), ("from the middle", "v050000"), ("the end", "v098999"))
        for name, last in names:
            path = f"/v2/scale/tags/tags/list?n=1000{'&last=' + last if last else ''}"
            connection = ours.connect()
            if len(json.loads(ask(connection, "GET", path).content)["tags"]) != 1000:
                raise Broken(f"GET {path} does not list 1000 tags")
            connection.close()
            (mine,) = bench.turns(
                bench.rounds, lambda: bench.tools.load(ours.port, "pull", path, requests=200)
            )
            name = f"1,000 of 100,000 tags, {name}"
            bench.add(section, f"{name}, p50", "ms", column(mine, "p50_ms"), below=5)
            bench.add(section, f"{name}, p99", "ms", column(mine, "p99_ms"), below=5)
        url = f"{ours.url}/v2/scale/0007/manifests/v000500"
        (mine,) = bench.turns(
            bench.rounds // 2 + 1, lambda: bench.tools.wrk(url, 16, bench.seconds, [ACCEPT])
        )
        name = f"manifest GET among {bench.manifests:,}, 16 connections"
        bench.add(section, name, "/s", column(mine, "rate"))
        idle = [resident(ours.pid)["VmRSS"] / 1024]
        bench.add(section, "resident memory after these", "MiB", idle)


SECTIONS = {
    "manifest-get": manifest_get,
    "blob-get": blob_get,
    "push-large": push_large,
    "push-small": push_small,
    "memory": memory,
    "scale": scale,
    "cluster": many_nodes.cluster,
}


# ---- Report ----


def said(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    return (done.stdout.strip() or done.stderr.strip()).splitlines()


def first_line(*argv):
    return said(*argv)[0]


def last_line(*argv):
    return said(*argv)[-1]


def machine_facts(binary, folder):
    cpu = memory_kib = file_system = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal"):
            memory_kib = int(line.split()[1])
    file_system = last_line("df", "--output=fstype", str(folder))
    return [
        f"Machine: {os.cpu_count()} cores of {cpu}, {memory_kib / MIB:.0f} GiB of memory, "
        f"{file_system} on one disk, Linux {platform.release()}; load average at the start "
        f"{os.getloadavg()[0]:.2f}.",
        f"Versions: {first_line(str(binary), '--version')}; "
        f"docker-registry {first_line('docker-registry', '--version').split()[-1]}; "
        f"{first_line('nginx', '-v').partition(': ')[2]}; "
        f"{first_line('wrk', '-v').split(' [')[0]}.",
    ]


REPEAT = """\
## How to repeat

    make bench                              # all of it: about twenty minutes, 25 GB of free disk
    python3 bench/run.py --quick            # smaller sizes and fewer rounds: about six minutes
    python3 bench/run.py --only blob-get    # one part of it

It needs docker-registry, nginx, wrk and openssl beside what the build needs, and for the nodes
PostgreSQL, radosgw, Ceph and HAProxy (`scripts/setup bench cluster`).

## How it is measured

- All servers and clients share the machine and talk over loopback. Servers take turns in each
  round (A B, B A, …); a figure is the median over the rounds, a ratio the median of their ratios.
- Each server runs with its defaults, without an access log where nothing else is said.
  docker-registry has its in-memory descriptor cache on. nginx has two workers and sendfile and
  serves the very file that Holdfast serves.
- Manifests are read by wrk with one thread and connections that are kept. Blobs are pulled and
  pushed by `bench/load.c`, one thread per connection; it hashes before the clock starts.
- A push counts when its 201 arrived. Holdfast and the bare loop have then synced the bytes to the
  disk, Holdfast also the folder and the database; docker-registry syncs the bytes.
- The bare loop (`bench/bare.c`) reads the same request from a socket, hashes with nettle, writes
  and calls fsync, and does nothing else: about what a server of one thread can do with plain means.
- Layers go where earlier ones were deleted, after one push aside: a virtual disk is often several
  times slower where nothing was ever written.
- Resident memory is VmRSS, the peak is VmHWM: shared libraries and mapped database pages count.
- Start-up is from fork to the first good answer to GET /v2/, with the files in the page cache.
- Nodes: all of them, of both sides, use one S3 server (radosgw), which keeps objects in memory, so
  that the registries are compared and not one disk; PostgreSQL syncs each commit to it. Both sides
  redirect pulls to the S3 server, except where a pull goes through the node. Where no HAProxy is
  named the clients' connections are dealt out to the nodes. wrk corrects its percentiles for the
  requests that a stalled connection did not send. What one push takes of each part: scaling.md.
"""


def report(bench, facts, seconds):
    lines = ["# Benchmarks", ""]
    lines += ["Written by `bench/run.py`. Each line: Holdfast, a peer on the same machine in the"]
    lines += ["same minutes, the ratio, and the target it is held to.", ""]
    lines += [f"- {fact}" for fact in facts + bench.notes]
    lines += [f"- {bench.rounds} rounds of {bench.seconds} s; in all {seconds:.0f} s.", ""]
    section = None
    for row in bench.rows:
        if row.section != section:
            section = row.section
            lines += ["", f"## {section}", ""] if lines[-1] else [f"## {section}", ""]
            lines += ["| | Holdfast | peer | ratio | target | |", "|---|---|---|---|---|---|"]
        lines.append("| " + " | ".join(row.cells()) + " |")
    return "\n".join(lines) + "\n\n" + REPEAT


def summary(rows):
    judged = [row for row in rows if row.met is not None]
    missed = [f"{row.section}: {row.name}" for row in judged if not row.met]
    text = f"bench: {len(judged) - len(missed)} of {len(judged)} targets met"
    return text + (f"; missed: {'; '.join(missed)}" if missed else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("binary", nargs="?", type=pathlib.Path, default=ROOT / "build" / "holdfast")
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="may be repeated")
    parser.add_argument(
        "--output", type=pathlib.Path, help="of the report; a whole run: docs/benchmarks.md"
    )
    parser.add_argument("--folder", type=pathlib.Path, help="where to put the data of the run")
    parser.add_argument("--tools", type=pathlib.Path, help="folder with load and bare, if built")
    options = parser.parse_args()
    if options.output is None and not options.quick and not options.only:
        options.output = ROOT / "docs" / "benchmarks.md"

    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=options.folder) as name:
        folder = pathlib.Path(name)
        try:
            facts = machine_facts(options.binary, folder)
            tools = Tools(folder, options.tools)
            bench = Bench(options.binary, folder, tools, options.quick)
            for section in options.only or SECTIONS:
                print(f"{section}:", flush=True)
                bench.folder = folder / section
                bench.folder.mkdir()
                SECTIONS[section](bench)
                shutil.rmtree(bench.folder)
                os.sync()
        except Broken as error:
            print(f"bench: the run broke: {error}", file=sys.stderr)
            return 1
    text = report(bench, facts, time.monotonic() - began)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text)
    print(summary(bench.rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
