"""Running the load tools, and what their figures become: rows with a peer, a ratio and a target."""

import dataclasses
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import threading

from servers import Broken, resident

TOOL_SECONDS = 600
MIB = 1024 * 1024
WRK_SCRIPT = """
-- Threads are dealt out to the servers on the loopback ports in WRK_PORTS, if it is there.
local ports, threads = {}, 0
for port in (os.getenv('WRK_PORTS') or ''):gmatch('%d+') do
    ports[#ports + 1] = port
end

function setup(thread)
    if #ports > 0 then
        thread.addr = wrk.lookup('127.0.0.1', ports[threads % #ports + 1])[1]
        threads = threads + 1
    end
end

done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format(
        'RESULT {"requests": %d, "us": %d, "p50_us": %.0f, "p99_us": %.0f, "errors": %d}\\n',
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
        e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def run(argv, **variables):
    argv = [str(word) for word in argv]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=TOOL_SECONDS, env={**os.environ, **variables}
    )
    if done.returncode != 0:
        raise Broken(f"{shlex.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Tools:
    """wrk, and load and bare from this folder."""

    def __init__(self, folder, built=None):
        self.script = pathlib.Path(folder) / "report.lua"
        self.script.write_text(WRK_SCRIPT)
        self.load_path = pathlib.Path(built or folder) / "load"
        self.bare_path = pathlib.Path(built or folder) / "bare"
        if built is None:
            self.build()

    def build(self):
        here = pathlib.Path(__file__).resolve().parent
        base = here.parent / "src" / "base"
        sources = [p for p in base.glob("*.c") if not p.stem.startswith(("test_", "fuzz_"))]
        compiler = shlex.split(os.environ.get("CC", "cc")) + ["-std=gnu17", "-O2", "-D_GNU_SOURCE"]
        for tool in (self.load_path, self.bare_path):
            run(
                compiler
                + [f"-I{base.parent}", "-DHOLDFAST_VERSION=\"bench\"", here / f"{tool.name}.c"]
                + sources
                + ["-o", tool, "-lnettle", "-lgnutls", "-lpthread"]
            )

    def wrk(self, url, connections, seconds, headers=(), ports=()):
        """ports: of several servers, which share the connections; `url` is then of any of them."""
        argv = ["wrk", f"-t{max(len(ports), 1)}", f"-c{connections}", f"-d{seconds}s"]
        argv += ["--timeout", "30s", "-s", self.script]
        for header in headers:
            argv += ["-H", header]
        out = run(argv + [url], WRK_PORTS=" ".join(map(str, ports)))
        result = json.loads(out[out.index("RESULT ") + 7 :])
        if result["errors"] or not result["requests"]:
            raise Broken(f"wrk on {url}: {result}")
        return {
            "requests": result["requests"],
            "rate": result["requests"] * 1e6 / result["us"],
            "p50_ms": result["p50_us"] / 1e3,
            "p99_ms": result["p99_us"] / 1e3,
        }

    def load_argv(self, port, verb, what, headers=(), tls=False, **flags):
        """A flag whose value is a list is repeated, and so is --port."""
        argv = [self.load_path]
        for name, value in {"port": port, **flags}.items():
            for one in value if isinstance(value, (list, tuple)) else [value]:
                argv += [f"--{name}", one]
        return argv + (["--tls"] if tls else []) + [verb, what, *headers]

    def load(self, port, verb, what, **options):
        result = json.loads(run(self.load_argv(port, verb, what, **options)))
        return {
            "requests": result["requests"],
            "gib": result["bytes"] / MIB / 1024,
            "rate": result["requests"] / result["seconds"],
            "mb": result["bytes"] / result["seconds"] / 1e6,
            "p50_ms": result["p50_us"] / 1e3,
            "p99_ms": result["p99_us"] / 1e3,
            "cipher": result["cipher"],
        }


def column(results, key):
    return [result[key] for result in results]


class MemoryWatch:
    """The most memory a process held while it is watched: VmRSS, and RssAnon at any one moment."""

    def __init__(self, pid, period=0.05):
        self.pid = pid
        self.period = period
        self.peak = {}
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.stopped.wait(self.period):
            for name, kib in resident(self.pid).items():
                self.peak[name] = max(self.peak.get(name, 0), kib / 1024)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()


@dataclasses.dataclass
class Row:
    """One line of the report. `ours` and `theirs` hold one figure per round, in the same order."""

    section: str
    name: str
    unit: str
    ours: list
    peer: str = ""
    theirs: list = dataclasses.field(default_factory=list)
    at_least: float = None  # target: ours / theirs
    at_most: float = None  # target: ours / theirs
    below: float = None  # target: ours, in `unit`

    @property
    def ratio(self):
        if not self.theirs:
            return None
        return statistics.median(a / b for a, b in zip(self.ours, self.theirs))

    @property
    def target(self):
        if self.at_least is not None:
            return f"≥ {self.at_least:g}x"
        if self.at_most is not None:
            return f"≤ {self.at_most:g}x"
        return f"< {self.below:g} {self.unit}" if self.below is not None else ""

    @property
    def met(self):
        """None without a target."""
        if self.at_least is not None:
            return self.ratio >= self.at_least
        if self.at_most is not None:
            return self.ratio <= self.at_most
        return statistics.median(self.ours) < self.below if self.below is not None else None

    @property
    def verdict(self):
        return {None: "", True: "ok", False: "missed"}[self.met]

    def cells(self):
        def figure(values):
            middle = statistics.median(values)
            digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
            return f"{middle:,.{digits}f} {self.unit}"

        ratio = self.ratio
        return [
            self.name,
            figure(self.ours),
            f"{figure(self.theirs)} ({self.peer})" if self.theirs else "",
            f"{ratio:.{1 if ratio >= 10 else 2}f}x" if ratio is not None else "",
            self.target,
            self.verdict,
        ]
