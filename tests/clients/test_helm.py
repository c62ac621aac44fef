"""helm: charts in the registry."""

import pytest

from holdfast import Client, tags
from clientkit import check_served, go_client, run, run_fails

CHART_LAYER = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
CHART_CONFIG = "application/vnd.cncf.helm.config.v1+json"
TEMPLATE = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}
data:
  greeting: {{ .Values.greeting | quote }}
"""


@pytest.fixture
def helm(tmp_path):
    program = go_client("helm")
    env = {"HOME": tmp_path, **{f"HELM_{kind}_HOME": tmp_path / kind.lower()
                                for kind in ("CACHE", "CONFIG", "DATA")}}

    def call(*arguments, **options):
        return run(program, *arguments, env=env, cwd=tmp_path, **options).stdout

    call.fails = lambda *arguments, saying: run_fails(program, *arguments, env=env, cwd=tmp_path,
                                                      saying=saying)
    return call


@pytest.fixture
def charts(server, repo):
    return f"oci://{server.address}/{repo}"


def push_chart(helm, charts, folder, version):
    chart = folder / "greeter"
    (chart / "templates").mkdir(parents=True, exist_ok=True)
    (chart / "Chart.yaml").write_text(f"apiVersion: v2\nname: greeter\nversion: {version}\n"
                                      "description: says hello\n")
    (chart / "values.yaml").write_text(f'greeting: "hello {version}"\n')
    (chart / "templates" / "greeting.yaml").write_text(TEMPLATE)
    helm("package", chart)
    helm("push", "--plain-http", f"greeter-{version}.tgz", charts)


def test_push_and_pull(helm, server, repo, charts, tmp_path):
    push_chart(helm, charts, tmp_path, "1.2.3")
    manifest = check_served(server, f"{repo}/greeter", "1.2.3")
    assert manifest["config"]["mediaType"] == CHART_CONFIG
    assert manifest["layers"][0]["mediaType"] == CHART_LAYER
    (tmp_path / "back").mkdir()
    helm("pull", "--plain-http", f"{charts}/greeter", "--version", "1.2.3", "--destination", "back")
    assert (tmp_path / "back/greeter-1.2.3.tgz").read_bytes() == \
        (tmp_path / "greeter-1.2.3.tgz").read_bytes()


def test_show_and_template(helm, charts, tmp_path):
    push_chart(helm, charts, tmp_path, "1.0.0")
    assert "description: says hello" in helm("show", "chart", "--plain-http", f"{charts}/greeter")
    text = helm("template", "release", f"{charts}/greeter", "--plain-http", "--version", "1.0.0")
    assert 'greeting: "hello 1.0.0"' in text


def test_the_newest_version_that_fits(helm, charts, tmp_path):
    for version in ("1.0.0", "1.1.0", "1.10.0", "2.0.0"):
        push_chart(helm, charts, tmp_path, version)
    text = helm("template", "release", f"{charts}/greeter", "--plain-http", "--version", "^1.0.0")
    assert 'greeting: "hello 1.10.0"' in text
    text = helm("template", "release", f"{charts}/greeter", "--plain-http")
    assert 'greeting: "hello 2.0.0"' in text


def test_version_with_build_metadata(helm, server, repo, charts, tmp_path):
    """A tag has no plus sign: helm writes an underscore, and reads it back as a plus."""
    push_chart(helm, charts, tmp_path, "1.0.0+build.5")
    with Client(server) as client:
        assert tags(client, f"{repo}/greeter") == ["1.0.0_build.5"]
    assert "version: 1.0.0+build.5" in helm("show", "chart", "--plain-http", f"{charts}/greeter",
                                            "--version", "1.0.0+build.5")


def test_dependency(helm, charts, tmp_path):
    push_chart(helm, charts, tmp_path, "1.0.0")
    parent = tmp_path / "parent"
    parent.mkdir()
    (parent / "Chart.yaml").write_text(
        "apiVersion: v2\nname: parent\nversion: 0.1.0\ndependencies:\n"
        f"  - name: greeter\n    version: ~1.0.0\n    repository: {charts}\n")
    helm("dependency", "update", "--plain-http", parent)
    assert (parent / "charts" / "greeter-1.0.0.tgz").exists()


def test_what_is_not_there(helm, charts):
    helm.fails("pull", "--plain-http", f"{charts}/absent", "--version", "1.0.0",
               saying="not found")
