"""The command line: subcommands, settings and their sources, errors that name what is wrong."""

import re

import pytest

from holdfast import REPOSITORY, run


def settings_in_force(*arguments, env=None):
    """What check-config prints, as {"section.key": text or list}; two levels of YAML are enough."""
    result = run("check-config", *arguments, env=env)
    assert result.returncode == 0, result.stderr
    return parse(result.stdout)


def parse(text):
    found, section, key = {}, "", None
    for line in text.splitlines():
        line = line.split(" #")[0].rstrip() if not line.lstrip().startswith("#") else ""
        if not line:
            continue
        if line.lstrip().startswith("- "):
            if not isinstance(found[key], list):
                found[key] = []
            found[key].append(line.lstrip()[2:].strip("\"'"))
            continue
        name, _, value = line.strip().partition(":")
        if not line.startswith(" "):
            section = "" if value else name + "."
            key = name
        else:
            key = section + name
        value = value.strip().strip("\"'")
        found[key] = [] if value == "[]" else value
    return found


def table():
    """Every key of settings.def with its kind."""
    text = (REPOSITORY / "src/config/settings.def").read_text()
    return re.findall(r'^CONFIG_(\w+)\("([a-z0-9_.]+)"', text, re.MULTILINE)


def flag(key):
    return "--" + re.sub("[._]", "-", key)


def variable(key):
    return "HOLDFAST_" + re.sub("[.-]", "_", key).upper()


EXAMPLES = {"TEXT": "/some/where", "NUMBER": "7", "BYTES": "8MiB", "TIME": "70s", "FLAG": "true"}
EXAMPLES_OF_KEYS = {
    "limits.manifest": "1MiB",
    "metadata": "postgres://user@db.example.com:5432/name?sslmode=verify-full",
    "blobs": "s3://bucket/a/prefix",
    "s3.endpoint": "https://s3.example.com:9000",
    "s3.region": "eu-central-1",
    "s3.access_key": "AKIDEXAMPLE",
    "s3.encryption_key": "alias/holdfast",
    "redirect.url": "https://cdn.example.com/blobs",
}


def example(kind, key):
    return EXAMPLES_OF_KEYS.get(key, EXAMPLES.get(kind))


def companions(key):
    """Flags without which a setting would be refused."""
    flags = []
    if key.startswith("s3.") or key == "redirect.url":
        flags.append("--blobs=s3://bucket")
    if key == "s3.access_key":
        flags.append("--s3-secret-key=of-it")
    if key == "s3.encryption_key":
        flags.append("--s3-encryption=aws:kms")
    return flags


# ---- Subcommands ----

def test_version_prints_name_and_version():
    result = run("version")
    assert result.returncode == 0
    assert re.fullmatch(r"holdfast \d+\.\d+\.\d+\S*\n", result.stdout)


@pytest.mark.parametrize("arguments", [["help"], ["--help"], ["serve", "--help"]])
def test_help_names_every_subcommand(arguments):
    result = run(*arguments)
    assert result.returncode == 0
    for word in ("serve", "check-config", "fsck", "version"):
        assert word in result.stdout


def test_help_names_every_setting():
    text = run("help").stdout + run("help", "serve").stdout + run("serve", "--help").stdout
    missing = [key for _, key in table() if flag(key) not in text]
    assert not missing


@pytest.mark.parametrize("arguments", [[], ["unheard-of"], ["--data", "x"]])
def test_no_or_an_unknown_subcommand_is_exit_2(arguments):
    result = run(*arguments)
    assert result.returncode == 2
    assert result.stderr
    for word in arguments[:1]:
        assert word in result.stderr


# ---- Sources ----

def test_defaults_are_those_of_the_table():
    found = settings_in_force()
    assert [k for k in found if k in dict((k, 1) for _, k in table())] == [k for _, k in table()]
    assert found["listen"] == ["127.0.0.1:5000"]
    assert found["access.anonymous"] == "push"
    assert found["limits.manifest"] == "4MiB"
    assert found["timeouts.header"] == "15s"
    assert found["log.access"] == "true"


@pytest.mark.parametrize("kind, key", [(k, key) for k, key in table() if example(k, key)])
def test_each_setting_can_be_given_in_each_way(tmp_path, kind, key):
    if key.startswith("tls."):
        pytest.skip("goes only with others; see test_tls.py")
    value = example(kind, key)
    others = companions(key)
    section, _, name = key.rpartition(".")
    file = tmp_path / "holdfast.yaml"
    file.write_text(f"{section}:\n  {name}: {value}\n" if section else f"{name}: {value}\n")
    wanted = settings_in_force(f"{flag(key)}={value}", *others)[key]
    assert wanted == value or kind == "TIME"
    assert settings_in_force(*others, env={variable(key): value})[key] == wanted
    assert settings_in_force("--config", file, *others)[key] == wanted
    if kind != "FLAG":
        assert settings_in_force(flag(key), value, *others)[key] == wanted


def test_a_flag_goes_before_a_variable_before_a_file_before_the_default(tmp_path):
    file = tmp_path / "holdfast.yaml"
    file.write_text("limits:\n  connections: 11\n  uploads: 11\nhttp:\n  workers: 11\n")
    env = {"HOLDFAST_LIMITS_CONNECTIONS": 22, "HOLDFAST_LIMITS_UPLOADS": 22}
    found = settings_in_force("--config", file, "--limits-connections", 33, env=env)
    assert (found["limits.connections"], found["limits.uploads"], found["http.workers"],
            found["http.queue"]) == ("33", "22", "11", "4096")


def test_the_file_may_be_named_by_a_variable(tmp_path):
    file = tmp_path / "holdfast.yaml"
    file.write_text("data: /from/the/file\n")
    assert settings_in_force(env={"HOLDFAST_CONFIG": file})["data"] == "/from/the/file"


def test_what_check_config_prints_can_be_read_back(tmp_path):
    arguments = ["--listen", "127.0.0.1:1", "--listen", "[::1]:2", "--data", "/a b: #c",
                 "--limits-manifest", "65536", "--timeouts-idle", "90s", "--log-access=false",
                 "--proxy-trusted", "10.0.0.0/8,::1"]
    printed = run("check-config", *arguments).stdout
    file = tmp_path / "printed.yaml"
    file.write_text(printed)
    assert run("check-config", "--config", file).stdout == printed


def test_a_list_is_repeated_or_separated_by_commas(tmp_path):
    wanted = ["127.0.0.1:1", "127.0.0.1:2"]
    file = tmp_path / "holdfast.yaml"
    file.write_text("listen:\n  - 127.0.0.1:1\n  - 127.0.0.1:2\n")
    for found in (settings_in_force("--listen", wanted[0], "--listen", wanted[1]),
                  settings_in_force("--listen", ",".join(wanted)),
                  settings_in_force(env={"HOLDFAST_LISTEN": ",".join(wanted)}),
                  settings_in_force("--config", file)):
        assert found["listen"] == wanted


@pytest.mark.parametrize("value, wanted", [
    ("65536", "64KiB"), ("64KiB", "64KiB"), ("1MiB", "1MiB"), ("64MiB", "64MiB")])
def test_bytes_may_have_a_unit(value, wanted):
    assert settings_in_force("--limits-manifest", value)["limits.manifest"] == wanted


@pytest.mark.parametrize("value, wanted", [("1h", "1h"), ("90m", "90m"), ("5400s", "90m"),
                                           ("24h", {"24h", "1d"}), ("1d", {"24h", "1d"})])
def test_times_have_a_unit(value, wanted):
    found = settings_in_force("--uploads-expire", value)["uploads.expire"]
    assert found in (wanted if isinstance(wanted, set) else {wanted})


# ---- Secrets ----

PASSWORD = "hunter2-hunter2"
URL = f"postgres://user:{PASSWORD}@db.example.com/name?sslpassword={PASSWORD}"
STORE = ["--blobs=s3://bucket", "--s3-access-key=AKID"]


@pytest.mark.parametrize("way", ["flag", "variable", "file"])
def test_secrets_are_not_printed(tmp_path, way):
    file = tmp_path / "holdfast.yaml"
    file.write_text(f"metadata: {URL}\ns3:\n  secret_key: {PASSWORD}\n")
    arguments, env = {
        "flag": (["--metadata", URL, f"--s3-secret-key={PASSWORD}"], {}),
        "variable": ([], {"HOLDFAST_METADATA": URL, "HOLDFAST_S3_SECRET_KEY": PASSWORD}),
        "file": (["--config", file], {}),
    }[way]
    result = run("check-config", *STORE, *arguments, env=env)
    assert result.returncode == 0, result.stderr
    assert PASSWORD not in result.stdout + result.stderr
    found = parse(result.stdout)
    assert found["metadata"] == "postgres://user:********@db.example.com/name?sslpassword=********"
    assert found["s3.secret_key"] == "********"


def test_stars_are_not_taken_for_a_secret(tmp_path):
    file = tmp_path / "printed.yaml"
    file.write_text(run("check-config", *STORE, "--metadata", URL, "--s3-secret-key=x").stdout)
    result = run("check-config", "--config", file)
    assert result.returncode == 2
    lines = result.stderr.splitlines()
    assert [line for line in lines if "metadata: " in line and "file:PATH" in line]
    assert [line for line in lines if "s3.secret_key: " in line and "file:PATH" in line]


@pytest.mark.parametrize("way", ["flag", "variable", "file"])
def test_secrets_may_be_in_files(tmp_path, way):
    (tmp_path / "url").write_text(URL + "\n")
    (tmp_path / "key").write_text(PASSWORD)
    url, key = f"file:{tmp_path}/url", f"file://{tmp_path}/key"
    file = tmp_path / "holdfast.yaml"
    file.write_text(f"metadata: {url}\ns3:\n  secret_key: {key}\n")
    arguments, env = {
        "flag": (["--metadata", url, "--s3-secret-key", key], {}),
        "variable": ([], {"HOLDFAST_METADATA": url, "HOLDFAST_S3_SECRET_KEY": key}),
        "file": (["--config", file], {}),
    }[way]
    result = run("check-config", *STORE, *arguments, env=env)
    assert result.returncode == 0, result.stderr
    assert PASSWORD not in result.stdout + result.stderr
    found = parse(result.stdout)
    assert (found["metadata"], found["s3.secret_key"]) == (url, key)

    # What is printed can be used.
    file.write_text(result.stdout)
    assert run("check-config", "--config", file).stdout == result.stdout

    # The file is read, and not just named.
    (tmp_path / "url").write_text(f"mysql://user:{PASSWORD}@host")
    result = run("check-config", *STORE, *arguments, env=env)
    assert result.returncode == 2 and "postgres://" in result.stderr
    assert PASSWORD not in result.stdout + result.stderr


@pytest.mark.parametrize("arguments, env, words", [
    ([f"--metadata=mysql://u:{PASSWORD}@h"], {}, ["--metadata", "postgres://"]),
    ([f"--metadata=postgres://u:{PASSWORD}@x@h/db"], {}, ["--metadata", "%40"]),
    ([f"--metadata=postgres://u:{PASSWORD}/db"], {}, ["--metadata", "HOST:PORT"]),
    ([f"--metadata=postgres://u:{PASSWORD}%@h/db"], {}, ["--metadata", "%25"]),
    ([f"postgres://u:{PASSWORD}@h/db"], {}, ["postgres://u:********@h/db"]),
    ([f"--blobs=postgres://u:{PASSWORD}@h/db"], {}, ["--blobs", "s3://BUCKET"]),
    (["--blobs=s3://bucket", f"--s3-endpoint=https://u:{PASSWORD}@h"], {}, ["s3.access_key"]),
    ([f"--s3-secret-key={PASSWORD}"], {}, ["--s3-secret-key", "blobs"]),
    (["--blobs=s3://bucket", f"--s3-secret-key={PASSWORD}"], {}, ["needs s3.access_key"]),
    (["--s3-secret-key", "half", PASSWORD], {}, ["--s3-secret-key"]),
    (["--s3-secret-kye", PASSWORD], {}, ["--s3-secret-kye", "--s3-secret-key"]),
    ([], {"HOLDFAST_METADATA": f"host=h password={PASSWORD}"}, ["HOLDFAST_METADATA"]),
    ([], {"HOLDFAST_S3_SECRET_KEY": PASSWORD + "\n"}, ["HOLDFAST_S3_SECRET_KEY", "one line"]),
    ([], {"HOLDFAST_S3_SECRET_KEY_FILE": "/run/secrets/key"},
     ["HOLDFAST_S3_SECRET_KEY=file:PATH"]),
    (["--metadata=file:/no/such/file"], {}, ["--metadata", "/no/such/file"]),
    (["--s3-secret-key=file:/dev/null"], {}, ["--s3-secret-key", "/dev/null", "empty"]),
    (["--s3-secret-key=file:/dev/zero"], {}, ["--s3-secret-key", "/dev/zero", "4095"]),
    (["--s3-secret-key=file:"], {}, ["--s3-secret-key", "path"]),
], ids=range(18))
@pytest.mark.parametrize("command", ["check-config", "serve"])
def test_complaints_about_secrets_do_not_show_them(tmp_path, command, arguments, env, words):
    result = run(command, *arguments, env=env, cwd=tmp_path)
    assert result.returncode == 2
    assert PASSWORD not in result.stdout + result.stderr
    for word in words:
        assert word in result.stderr


# ---- Errors ----

@pytest.mark.parametrize("arguments, words", [
    (["--unheard-of", "1"], ["--unheard-of"]),
    (["--limits-connection", "1"], ["--limits-connection", "--limits-connections"]),
    (["--limits-connections"], ["--limits-connections"]),
    (["stray"], ["stray"]),
    (["-d", "x"], ["-d"]),
    (["--limits-connections", "0"], ["--limits-connections"]),
    (["--limits-connections", "1000001"], ["--limits-connections", "1000000"]),
    (["--limits-connections", "many"], ["--limits-connections", "many"]),
    (["--limits-connections", "-5"], ["--limits-connections"]),
    (["--limits-connections", "1e3"], ["1e3"]),
    (["--limits-connections", "99999999999999999999999"], ["--limits-connections"]),
    (["--limits-manifest", "1KiB"], ["--limits-manifest", "64KiB"]),
    (["--limits-manifest", "5 apples"], ["5 apples"]),
    (["--timeouts-header", "15"], ["--timeouts-header", "15"]),
    (["--timeouts-header", "0s"], ["--timeouts-header"]),
    (["--timeouts-header", "1 fortnight"], ["fortnight"]),
    (["--access-anonymous", "all"], ["--access-anonymous", "all", "none", "pull", "push"]),
    (["--log-access=perhaps"], ["--log-access", "perhaps"]),
    (["--listen", "nonsense"], ["--listen", "nonsense"]),
    (["--listen", "127.0.0.1:99999"], ["99999"]),
    (["--listen", "127.0.0.1"], ["127.0.0.1"]),
    (["--proxy-trusted", "10.0.0.0/33"], ["10.0.0.0/33"]),
    (["--proxy-trusted", "proxy.example.com"], ["proxy.example.com"]),
    (["--config", "/no/such/file.yaml"], ["/no/such/file.yaml"]),
    (["--tls-client-auth", "required"], ["tls.client_ca"]),
    (["--metadata", "holdfast.db"], ["--metadata", "postgres://"]),
    (["--blobs", "/srv/blobs"], ["/srv/blobs", "s3://BUCKET"]),
    (["--blobs", "s3://Bucket"], ["s3://Bucket", "lower-case"]),
    (["--blobs", "s3://bucket/a/../b"], ["s3://bucket/a/../b", "prefix"]),
    (["--blobs", "s3://bucket/"], ["s3://bucket/", "'/'"]),
    (["--s3-region", "eu-central-1"], ["--s3-region", "blobs"]),
    (["--redirect-url", "https://cdn"], ["--redirect-url", "blobs"]),
    (["--blobs=s3://bucket", "--s3-endpoint", "s3.example.com"], ["s3.example.com", "https://"]),
    (["--blobs=s3://bucket", "--s3-endpoint", "https://h/bucket"], ["without a path"]),
    (["--blobs=s3://bucket", "--redirect-url", "https://h/?a=b"], ["https://h/?a=b"]),
    (["--blobs=s3://bucket", "--s3-access-key", "a"], ["--s3-access-key", "s3.secret_key"]),
    (["--blobs=s3://bucket", "--s3-encryption-key", "a"], ["--s3-encryption-key", "aws:kms"]),
    (["--blobs=s3://bucket", "--s3-encryption", "aes256"], ["aes256", "AES256"]),
    (["--redirect-expire", "8d"], ["--redirect-expire", "7d"]),
    (["--s3-part-size", "1MiB"], ["--s3-part-size", "5MiB"]),
], ids=lambda v: " ".join(v)[:50] if isinstance(v, list) else None)
def test_a_wrong_argument_is_exit_2_and_named(arguments, words):
    result = run("check-config", *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr


def test_an_unknown_variable_is_exit_2_and_named():
    result = run("check-config", env={"HOLDFAST_LIMITS_CONNECTION": "5"})
    assert result.returncode == 2
    assert "HOLDFAST_LIMITS_CONNECTION" in result.stderr


def test_a_bad_value_of_a_variable_is_exit_2_and_named():
    result = run("check-config", env={"HOLDFAST_LIMITS_CONNECTIONS": "many"})
    assert result.returncode == 2
    assert "HOLDFAST_LIMITS_CONNECTIONS" in result.stderr and "many" in result.stderr


def test_variables_of_kubernetes_do_not_disturb():
    env = {"HOLDFAST_SERVICE_HOST": "10.0.0.1", "HOLDFAST_SERVICE_PORT": "5000",
           "HOLDFAST_PORT": "tcp://10.0.0.1:5000", "HOLDFAST_PORT_5000_TCP_ADDR": "10.0.0.1"}
    assert run("check-config", env=env).returncode == 0


@pytest.mark.parametrize("text, line, words", [
    ("limits:\n  connection: 5\n", 2, ["connection"]),
    ("unheard_of: 5\n", 1, ["unheard_of"]),
    ("limits: 5\n", 1, ["limits"]),
    ("data: /a\nlimits:\n  connections: many\n", 3, ["many"]),
    ("data: /a\ndata: /b\n", 2, ["data"]),
    ("data: [1, 2]\n", 1, ["data"]),
    ("listen: {a: b}\n", 1, ["listen"]),
    ("- data\n", 1, []),
    ("data: 'open\n", None, []),
    ("data: /a\n\tlimits: 5\n", 2, []),
    ("data: &anchor /a\nlog: *anchor\n", None, []),
    ("\0\1\2", None, []),
], ids=range(12))
def test_a_wrong_file_is_exit_2_and_the_line_is_named(tmp_path, text, line, words):
    file = tmp_path / "holdfast.yaml"
    file.write_text(text)
    result = run("check-config", "--config", file)
    assert result.returncode == 2, result.stdout
    assert "holdfast.yaml" in result.stderr
    if line is not None:
        assert f"holdfast.yaml:{line}" in result.stderr
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "limits:\n", "{}\n"])
def test_an_empty_file_is_all_defaults(tmp_path, text):
    file = tmp_path / "holdfast.yaml"
    file.write_text(text)
    assert settings_in_force("--config", file) == settings_in_force()


def test_every_mistake_is_told_at_once(tmp_path):
    file = tmp_path / "holdfast.yaml"
    file.write_text("limits:\n  connections: many\n  wrong: 1\nlog:\n  level: loud\n")
    result = run("check-config", "--config", file, "--http-workers", "none")
    assert result.returncode == 2
    for word in ("many", "wrong", "loud", "--http-workers"):
        assert word in result.stderr


def test_a_file_of_many_mistakes_has_a_bounded_answer(tmp_path):
    file = tmp_path / "holdfast.yaml"
    file.write_text("".join(f"wrong{i}: 1\n" for i in range(10000)))
    result = run("check-config", "--config", file)
    assert result.returncode == 2
    assert len(result.stderr) < 100_000


@pytest.mark.parametrize("command", ["serve", "fsck"])
def test_other_commands_check_their_settings_too(tmp_path, command):
    result = run(command, "--data", tmp_path, "--limits-connections", "many")
    assert result.returncode == 2
    assert "many" in result.stderr
