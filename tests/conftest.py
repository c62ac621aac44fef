"""Fixtures of the functional and fault tests. Run: python3 -m pytest tests/functional"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

pytest.register_assert_rewrite("holdfast")

import holdfast  # noqa: E402
from backends import Backend  # noqa: E402
from holdfast import Client, Server  # noqa: E402
from services import ServiceMissing  # noqa: E402

backend = Backend()
Server.backend = staticmethod(backend.settings)


def pytest_report_header():
    kind = "with" if holdfast.has_test_hooks() else "without"
    return f"holdfast: {holdfast.BINARY} ({kind} test hooks), back end: {backend.name}"


def pytest_configure(config):
    for line in ("hooks: needs a binary built with -Dtest_hooks=true",
                 "needs(what): means something only on back ends that have it; see backends.py"):
        config.addinivalue_line("markers", line)


def belongs(item):
    return all(backend.has(what) for mark in item.iter_markers("needs") for what in mark.args)


def pytest_collection_modifyitems(config, items):
    if not Path(holdfast.BINARY).exists():
        pytest.exit(f"no binary at {holdfast.BINARY}; set HOLDFAST_BIN", returncode=4)
    left_out = [item for item in items if not belongs(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if belongs(item)]


def pytest_runtest_setup(item):
    if item.get_closest_marker("hooks") and not holdfast.has_test_hooks():
        pytest.skip("the binary is built without test hooks")
    backend.start()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A service that is not installed is no failure, but it is said."""
    report = (yield).get_result()
    if call.excinfo is not None and call.excinfo.errisinstance(ServiceMissing):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1], f"NOT RUN: {call.excinfo.value}")


def pytest_sessionfinish():
    backend.stop()


def pytest_make_parametrize_id(val):
    """Long values are cut in the names of tests, which are in the environment of programs."""
    if isinstance(val, (str, bytes)) and len(val) > 48:
        start = val[:40] if isinstance(val, bytes) else val[:40].encode("ascii", "backslashreplace")
        return f"{start.decode('ascii', 'backslashreplace')}...{len(val)}"
    return None


@pytest.fixture
def store():
    """The back end of all servers, to see what they keep there."""
    return backend


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with default settings over a fresh folder, shared by the tests of one file."""
    data = tmp_path_factory.mktemp("data")
    running = Server(data).start()
    yield running
    running.close()
    backend.forget(data)
    shutil.rmtree(data, ignore_errors=True)


@pytest.fixture
def client(server):
    server.check()
    with Client(server) as connection:
        yield connection
    server.check()


@pytest.fixture
def repo():
    """A repository name that no other test uses."""
    return holdfast.random_name("test/repo")


@pytest.fixture
def make_server(tmp_path):
    """make_server(*flags, start=True, data=…, env=…, …): a server of this test's own."""
    made = []

    def make(*args, start=True, data=None, **options):
        own = data is None
        if own:
            data = tmp_path / "data"
            data.mkdir(exist_ok=True)
        one = Server(data, args=args, **options)
        made.append((one, own))
        return one.start() if start else one

    yield make
    failures = []
    for one, own in made:
        try:
            one.close()
        except holdfast.ServerFailed as failure:
            failures.append(failure)
        if own:
            backend.forget(one.data)
    if failures:
        raise failures[0]


@pytest.fixture
def small_disk(tmp_path):
    """make(size): an empty file system of that many bytes; needs root."""
    mounted = []

    def make(size):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        result = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder],
                                capture_output=True, text=True)
        if result.returncode != 0:
            pytest.skip(f"a small disk cannot be mounted here: {result.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=False)
