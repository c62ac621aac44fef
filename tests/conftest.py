"""Fixtures of the functional and fault tests. Run: python3 -m pytest tests/functional"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

pytest.register_assert_rewrite("holdfast")

import holdfast  # noqa: E402
from holdfast import Client, Server  # noqa: E402


def pytest_report_header():
    kind = "with" if holdfast.has_test_hooks() else "without"
    return f"holdfast: {holdfast.BINARY} ({kind} test hooks)"


def pytest_collection_modifyitems(items):
    if not Path(holdfast.BINARY).exists():
        pytest.exit(f"no binary at {holdfast.BINARY}; set HOLDFAST_BIN", returncode=4)


def pytest_configure(config):
    config.addinivalue_line("markers", "hooks: needs a binary built with -Dtest_hooks=true")


def pytest_runtest_setup(item):
    if item.get_closest_marker("hooks") and not holdfast.has_test_hooks():
        pytest.skip("the binary is built without test hooks")


def pytest_make_parametrize_id(val):
    """Long values are cut in the names of tests."""
    if isinstance(val, str) and len(val) > 48:
        return f"{val[:40].encode('ascii', 'backslashreplace').decode()}...{len(val)}"
    return None


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with default settings over a fresh folder, shared by the tests of one file."""
    data = tmp_path_factory.mktemp("data")
    running = Server(data).start()
    yield running
    running.close()
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
        if data is None:
            data = tmp_path / "data"
            data.mkdir(exist_ok=True)
        one = Server(data, args=args, **options)
        made.append(one)
        return one.start() if start else one

    yield make
    failures = []
    for one in made:
        try:
            one.close()
        except holdfast.ServerFailed as failure:
            failures.append(failure)
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
