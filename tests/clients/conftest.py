"""Fixtures of the client tests. Run: python3 -m pytest tests/clients"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

pytest.register_assert_rewrite("clientkit")

from clientkit import Layout, need, remove_tree, run  # noqa: E402

HELLO = r"""
#include <unistd.h>
int main(void)
{
    static const char text[] = "hello from a container\n";
    return write(1, text, sizeof text - 1) == sizeof text - 1 ? 0 : 1;
}
"""


@pytest.fixture
def layout(tmp_path):
    """An image layout to push from."""
    layout = Layout(tmp_path / "layout")
    yield layout
    remove_tree(layout.folder)


@pytest.fixture
def back(tmp_path):
    """A second one, to pull into."""
    back = Layout(tmp_path / "back")
    yield back
    remove_tree(back.folder)


@pytest.fixture(scope="session")
def hello(tmp_path_factory):
    """The path of a static program, the smallest thing that a container can run."""
    need("gcc")
    folder = tmp_path_factory.mktemp("hello")
    (folder / "hello.c").write_text(HELLO)
    run("gcc", "-static", "-Os", "-s", "-o", folder / "hello", folder / "hello.c")
    return folder / "hello"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A folder for a daemon's state; what is left mounted in it is unmounted at the end."""
    folder = tmp_path_factory.mktemp("state")
    yield folder
    remove_tree(folder)


def pytest_terminal_summary(terminalreporter):
    """A client that was not run must be seen, whatever the flags of pytest say."""
    reasons = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons.setdefault(reason, []).append(report.nodeid)
    for reason, tests in reasons.items():
        terminalreporter.write_line(f"NOT RUN ({len(tests)} tests): {reason}", yellow=True)
        for test in tests:
            terminalreporter.write_line(f"    {test}", yellow=True)
