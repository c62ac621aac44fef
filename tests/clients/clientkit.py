"""What the client tests share: running a client, starting its daemon, making images.

A client is always run with a bounded time; what it pushed is checked over plain HTTP, and what
it pulled is compared with the layout that it was pushed from, so that no client vouches for
itself.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from holdfast import CONFIG, EMPTY, INDEX, LAYER, MANIFEST, Client, encode, pull_image, sha256

ARCHITECTURES = ("amd64", "arm64", "riscv64")
GO_BINARIES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "holdfast-test/bin"

# ---- Running things ----


def need(*programs):
    """Skips the test, with the names, when one of these programs is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def need_root():
    if os.geteuid() != 0:
        pytest.skip("needs root: it mounts file systems")


def go_client(name):
    """The path of a client that scripts/go-clients builds; skips when there is none."""
    built = GO_BINARIES / name
    if built.exists():
        return str(built)
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is neither in {GO_BINARIES} (scripts/go-clients) nor on the PATH")
    return found


def run(*command, env=None, timeout=60, check=True, cwd=None, stdin=None):
    """Runs a client to its end and returns it, with text in stdout and stderr."""
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=timeout, cwd=cwd,
                              input=stdin if stdin is not None else "", errors="replace",
                              env={**os.environ, **{k: str(v) for k, v in (env or {}).items()}})
    except subprocess.TimeoutExpired as late:
        raise AssertionError(f"no end after {timeout} s: {' '.join(command)}\n"
                             f"{late.stdout}\n{late.stderr}") from None
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit code {done.returncode}\n"
                             f"{done.stdout}\n{done.stderr}")
    return done


def run_fails(*command, saying="", **options):
    """Runs a client that must fail, and name the reason `saying`."""
    done = run(*command, check=False, **options)
    said = done.stdout + done.stderr
    assert done.returncode != 0, f"{command} did not fail:\n{said}"
    assert saying.lower() in said.lower(), f"{command} did not say {saying!r}:\n{said}"
    return done


class Daemon:
    """A daemon of the test's own, ended by its process id."""

    def __init__(self, command, log, env=None):
        self.log = Path(log)
        with open(self.log, "wb") as output:
            self.process = subprocess.Popen([str(part) for part in command], stdout=output,
                                            stderr=output, stdin=subprocess.DEVNULL,
                                            env={**os.environ, **(env or {})},
                                            start_new_session=True)

    def wait_for(self, ready, timeout=30):
        deadline = time.monotonic() + timeout
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"{self.process.args[0]} did not start:\n"
                                     f"{self.log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.05)
        return self

    def stop(self, timeout=20):
        """SIGTERM; what is left of its session after `timeout` seconds gets SIGKILL."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def unmount_below(folder):
    """Unmounts what a daemon left mounted below `folder`, the deepest first."""
    folder = str(folder)
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == folder or point.startswith(folder + "/"):
            points.append(point)
    for point in sorted(points, key=len, reverse=True):
        subprocess.run(["umount", "-l", point], check=False, capture_output=True)


def remove_tree(folder):
    unmount_below(folder)
    shutil.rmtree(folder, ignore_errors=True)


# ---- Content ----


def layer_tar(files):
    """A tar of {name: bytes, or (bytes, mode)}, the same for the same files."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for name, content in sorted(files.items()):
            data, mode = content if isinstance(content, tuple) else (content, 0o644)
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    return output.getvalue()


def noise(name, size):
    """`size` bytes that look random and depend on `name` alone."""
    return hashlib.shake_256(name.encode()).digest(size)


class Layout:
    """An OCI image layout on disk, as the image specification describes it."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.blobs = self.folder / "blobs" / "sha256"
        self.blobs.mkdir(parents=True, exist_ok=True)
        (self.folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self.index = {"schemaVersion": 2, "manifests": []}
        self._save()

    def _save(self):
        (self.folder / "index.json").write_bytes(encode(self.index))

    def read(self, digest):
        return (self.blobs / digest.partition(":")[2]).read_bytes()

    def add(self, data, media_type, **fields):
        """Stores a blob and returns its descriptor."""
        digest = sha256(data)
        (self.blobs / digest.partition(":")[2]).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data), **fields}

    def image(self, layers, *, architecture="amd64", compressed=True, config=None, **fields):
        """An image of layers given as {name: content}. Returns its descriptor, with platform."""
        tars = [layer_tar(files) for files in layers]
        stored = [self.add(gzip.compress(tar, 1, mtime=0), LAYER + "+gzip") if compressed
                  else self.add(tar, LAYER) for tar in tars]
        described = {"architecture": architecture, "os": "linux", "config": config or {},
                     "rootfs": {"type": "layers", "diff_ids": [sha256(tar) for tar in tars]},
                     "history": [{"created_by": "holdfast test"} for _ in tars]}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST,
                    "config": self.add(encode(described), CONFIG), "layers": stored, **fields}
        return self.add(encode(manifest), MANIFEST,
                        platform={"architecture": architecture, "os": "linux"})

    def artifact(self, kind, content, *, subject=None, **fields):
        """An artifact of one file, with `subject` a descriptor."""
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
                    "config": self.add(b"{}", EMPTY), "layers": [self.add(content, kind)], **fields}
        if subject is not None:
            manifest["subject"] = {key: subject[key] for key in ("mediaType", "digest", "size")}
        return self.add(encode(manifest), MANIFEST)

    def index_of(self, images):
        return self.add(encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": images}),
                        INDEX)

    def tag(self, name, descriptor):
        named = {**descriptor, "annotations": {"org.opencontainers.image.ref.name": name}}
        self.index["manifests"].append(named)
        self._save()
        return descriptor["digest"]

    def tagged(self, name):
        """The digest under a tag, read from the disk: another program may have written it."""
        index = json.loads((self.folder / "index.json").read_bytes())
        for entry in index["manifests"]:
            if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == name:
                return entry["digest"]
        raise AssertionError(f"no tag {name!r} in {index}")

    def reference(self, tag):
        return f"oci:{self.folder}:{tag}"


def layout_blobs(folder):
    """The digests below blobs/ of a layout, after checking that each file is its digest."""
    found = set()
    for path in (Path(folder) / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        found.add(f"sha256:{path.name}")
    return found


def sample_image(layout, seed="sample", architecture="amd64", layers=2):
    """An image of a few layers, one of which is over a megabyte."""
    files = [{f"file{number}": noise(f"{seed}/{number}", 1500 * 1024 if number == 0 else 3000)}
             for number in range(layers)]
    return layout.image(files, architecture=architecture)


def sample_index(layout, seed="sample"):
    """One image for each of ARCHITECTURES; they share their first layer."""
    shared = {"shared": noise(f"{seed}/shared", 200 * 1024)}
    return layout.index_of([
        layout.image([shared, {"own": noise(f"{seed}/{name}", 5000)}], architecture=name)
        for name in ARCHITECTURES])


# ---- Looking from outside ----


def check_served(server, repo, reference, digest=None):
    """Pulls everything below a reference over plain HTTP, comparing each digest and size.
    Returns the parsed manifest; its digest must be `digest` when that is given."""
    server.check()
    with Client(server) as client:
        answer = pull_image(client, repo, reference)
    assert digest is None or answer.digest == digest
    return answer.json()
