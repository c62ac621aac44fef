"""holdfast import: from a registry that speaks HTTP, well or badly, from a storage folder of
distribution and from an OCI layout; what arrives is compared byte for byte over HTTP."""

import base64
import contextlib
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.parse

import pytest

import holdfast
from holdfast import (Client, DOCKER_MANIFEST, INDEX, MANIFEST, Server, clean_environment, encode,
                      get_blob, get_manifest, make_artifact, make_image, make_index, pull_image,
                      push_image, push_manifest, random_bytes, sha256, sha512, tags, wait_until)

SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


# ---- Sources ----


class Content:
    """Repositories in memory: what a source has."""

    def __init__(self):
        self.repositories = {}

    def repository(self, name):
        return self.repositories.setdefault(name, {"tags": {}, "manifests": {}, "blobs": {}})

    def add(self, name, manifest, *tag_names, algorithm="sha256"):
        """With all that it needs; returns its digest."""
        repository = self.repository(name)
        for blob in manifest.blobs:
            repository["blobs"][holdfast.digest_of(blob, algorithm)] = blob
        for child in manifest.children:
            self.add(name, child)
        digest = holdfast.digest_of(manifest.body, algorithm)
        repository["manifests"][digest] = (manifest.media_type, manifest.body)
        for tag in tag_names:
            repository["tags"][tag] = digest
        return digest

    def referrers(self, name, digest):
        found = []
        for own, (media_type, body) in self.repositories[name]["manifests"].items():
            if json.loads(body).get("subject", {}).get("digest") == digest:
                found.append({"mediaType": media_type, "digest": own, "size": len(body)})
        return found

    def write_distribution(self, folder):
        """As docker-registry stores it; see tests/clients for one that it has written itself."""
        root = folder / "docker" / "registry" / "v2"

        def link(path, digest):
            (root / "repositories" / path).mkdir(parents=True, exist_ok=True)
            (root / "repositories" / path / "link").write_text(digest)

        for name, repository in self.repositories.items():
            for digest, data in [*repository["blobs"].items(),
                                 *((d, body) for d, (_, body) in repository["manifests"].items())]:
                algorithm, _, hexadecimal = digest.partition(":")
                place = root / "blobs" / algorithm / hexadecimal[:2] / hexadecimal
                place.mkdir(parents=True, exist_ok=True)
                (place / "data").write_bytes(data)
            for digest in repository["blobs"]:
                link(f"{name}/_layers/{digest.replace(':', '/')}", digest)
            for digest in repository["manifests"]:
                link(f"{name}/_manifests/revisions/{digest.replace(':', '/')}", digest)
            for tag, digest in repository["tags"].items():
                link(f"{name}/_manifests/tags/{tag}/current", digest)
        return root

    def check(self, client, name, target=None):
        """The target has all of the repository, byte for byte."""
        repository = self.repositories[name]
        target = target or name
        for digest, (media_type, body) in repository["manifests"].items():
            answer = get_manifest(client, target, digest)
            assert answer.body == body and answer.headers["Content-Type"] == media_type
        for digest, data in repository["blobs"].items():
            assert get_blob(client, target, digest) == data
        for tag, digest in repository["tags"].items():
            assert client.head(f"/v2/{target}/manifests/{tag}").digest == digest
        assert tags(client, target) == sorted(repository["tags"])


class FakeRegistry(http.server.ThreadingHTTPServer):
    """A registry whose behaviour a test can bend. `before(handler)` may answer by itself and return
    True. Every request is kept in `seen` as (method, path, headers)."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, content=None, before=None, page=1000, has_referrers=True):
        super().__init__(("127.0.0.1", 0), FakeHandler)
        self.content = content or Content()
        self.before = before
        self.page = page
        self.has_referrers = has_referrers
        self.seen = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # the importer may hang up

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def paths(self, part=""):
        return [path for _, path, _ in self.seen if part in path]

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class FakeHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=None):
        if isinstance(body, (dict, list)):
            body = encode(body)
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self):
        self.answer(404, {"errors": [{"code": "UNKNOWN", "message": "no such thing"}]})

    def listed(self, key, names, path, extra=None):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        names = sorted(n for n in names if n > query.get("last", [""])[0])
        page, rest = names[:self.server.page], names[self.server.page:]
        headers = {}
        if rest:
            last = urllib.parse.quote(page[-1], safe="")
            headers["Link"] = f'<{path}?last={last}&n={self.server.page}>; rel="next"'
        self.answer(200, {**(extra or {}), key: page}, headers)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server = self.server
        server.seen.append((self.command, self.path, dict(self.headers.items())))
        if server.before is not None and server.before(self):
            return
        path = urllib.parse.urlsplit(self.path).path
        if path == "/v2/":
            return self.answer(200, {})
        if path == "/v2/_catalog":
            return self.listed("repositories", server.content.repositories, path)
        match = re.fullmatch(r"/v2/(.+)/(tags/list|manifests/(.+)|blobs/(.+)|referrers/(.+))", path)
        repository = server.content.repositories.get(match.group(1)) if match else None
        if repository is None:
            return self.missing()
        if match.group(3):
            return self.manifest(repository, match.group(3))
        if match.group(4):
            blob = repository["blobs"].get(match.group(4))
            return self.missing() if blob is None else self.answer(200, blob)
        if match.group(5):
            if not server.has_referrers:
                return self.missing()
            return self.answer(200, {
                "schemaVersion": 2, "mediaType": INDEX,
                "manifests": server.content.referrers(match.group(1), match.group(5))},
                {"Content-Type": INDEX})
        return self.listed("tags", repository["tags"], path, {"name": match.group(1)})

    def manifest(self, repository, reference):
        digest = repository["tags"].get(reference, reference)
        if digest not in repository["manifests"]:
            return self.missing()
        media_type, body = repository["manifests"][digest]
        self.answer(200, body, {"Content-Type": media_type, "Docker-Content-Digest": digest})


# ---- Running it ----


@pytest.fixture
def target(make_server):
    """A server that is not started yet, into whose registry the tests import."""
    return make_server(start=False)


def bring(target, source, *flags, timeout=120, **options):
    return holdfast.run("import", source, *flags, "--data", target.data, timeout=timeout, **options)


def bring_well(target, source, *flags, **options):
    """Runs an import in which nothing may be skipped; returns its counts."""
    done = bring(target, source, *flags, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped:" not in done.stdout
    return counts(done)


def bring_badly(target, source, *flags, saying=(), **options):
    """Runs an import that must fail or skip something, and say so."""
    done = bring(target, source, *flags, **options)
    assert done.returncode == 1, done.stdout + done.stderr
    for text in [saying] if isinstance(saying, str) else saying:
        assert text in done.stdout + done.stderr, done.stdout + done.stderr
    return done


def counts(done):
    """The numbers of the summary."""
    first = re.search(r"(?:copied|would copy) (\d+) manifests, (\d+) tags, (\d+) blobs "
                      r"\(([^)]+)\) of (\d+) repositories", done.stdout)
    second = re.search(r"there already: (\d+) manifests, (\d+) tags, (\d+) blobs in other "
                       r"repositories; (\d+) foreign layers left, (\d+) skipped", done.stdout)
    assert first and second, done.stdout + done.stderr
    numbers = dict(zip(("manifests", "tags", "blobs", "size", "repositories"), first.groups()))
    numbers.update(zip(("present", "present_tags", "linked", "foreign", "skipped"),
                       second.groups()))
    return {k: v if k == "size" else int(v) for k, v in numbers.items()}


def nothing_copied(numbers):
    return (numbers["manifests"], numbers["tags"], numbers["blobs"]) == (0, 0, 0)


@contextlib.contextmanager
def served(target):
    """A client of the registry, while it is served."""
    target.start()
    with Client(target) as client:
        yield client
    target.close()


def sample():
    """Repositories with images, an index, referrers of both, and a nested name."""
    content = Content()
    image = make_image(2, 20000)
    index = make_index([make_image(1, 3000), make_image(1, 3000)])
    content.add("team/app", image, "v1", "latest")
    content.add("team/app", index, "multi")
    signature = make_artifact("application/x.signature", subject=image.descriptor())
    content.add("team/app", signature)
    content.add("team/app", make_artifact("application/x.of.signature",
                                          subject=signature.descriptor()))
    content.add("team/app", make_artifact("application/x.sbom",
                                          subject=index.children[1].descriptor()))
    content.add("team/app/nested", make_image(1, 500, media_type=DOCKER_MANIFEST), "1.0")
    content.add("solo", make_image(0), "empty")
    return content


# ---- A live registry ----


def test_everything_arrives(target):
    content = sample()
    with FakeRegistry(content) as source:
        numbers = bring_well(target, source.url)
    assert numbers["repositories"] == 3 and numbers["tags"] == 5
    assert numbers["manifests"] == sum(len(r["manifests"]) for r in content.repositories.values())
    with served(target) as client:
        for name in content.repositories:
            content.check(client, name)
        image = content.repositories["team/app"]["tags"]["v1"]
        listed = client.get(f"/v2/team/app/referrers/{image}").json()["manifests"]
        assert [entry["artifactType"] for entry in listed] == ["application/x.signature"]


def test_from_holdfast(target, make_server, tmp_path):
    """Both sides are real: many tags (so that lists have pages), sha512, an index of indexes."""
    other = make_server(data=tmp_path / "other")
    image = make_image(3, 5000)
    deep = make_index([make_index([make_image(1, 100)])])
    with Client(other) as client:
        push_image(client, "a/many", image)
        for number in range(230):
            push_manifest(client, "a/many", image, f"t{number:03}")
        push_image(client, "b", deep, "deep")
        strong = make_image(1, 900, algorithm="sha512")
        for blob in strong.blobs:
            holdfast.push_blob(client, "b", blob, algorithm="sha512")
        push_manifest(client, "b", strong, strong.sha512)
    numbers = bring_well(target, other.url)
    assert (numbers["repositories"], numbers["tags"]) == (2, 231)
    with served(target) as client:
        assert tags(client, "a/many") == [f"t{number:03}" for number in range(230)]
        assert pull_image(client, "a/many", "t117").body == image.body
        assert pull_image(client, "b", "deep").body == deep.body
    assert nothing_copied(bring_well(target, other.url))


def test_sha512_by_tag(target):
    """A tag that points to a manifest by its sha512, with blobs by theirs."""
    content = Content()
    image = make_image(2, 700, algorithm="sha512")
    digest = content.add("strong", image, "v1", algorithm="sha512")
    assert digest == sha512(image.body)
    with FakeRegistry(content) as source:
        bring_well(target, source.url)
    with served(target) as client:
        content.check(client, "strong")


def test_one_repository_without_a_catalog(target):
    content = sample()
    with FakeRegistry(content, lambda h: "_catalog" in h.path and (h.missing() or True)) as source:
        bring_badly(target, source.url, saying=["does not show its catalog", "https://HOST/REPO"])
        numbers = bring_well(target, f"{source.url}/team/app")
    assert numbers["repositories"] == 1
    with served(target) as client:
        content.check(client, "team/app")
        assert client.get("/v2/_catalog").json()["repositories"] == ["team/app"]


def test_globs_and_prefix(target):
    content = sample()
    with FakeRegistry(content) as source:
        bring_well(target, source.url, "--repository", "team/*", "--prefix=old/place")
        bring_well(target, source.url, "--repository=so?o", "--repository", "nothing")
    with served(target) as client:
        content.check(client, "team/app", "old/place/team/app")
        content.check(client, "team/app/nested", "old/place/team/app/nested")
        content.check(client, "solo")
        assert client.get("/v2/_catalog").json()["repositories"] == [
            "old/place/team/app", "old/place/team/app/nested", "solo"]


def test_pages(target):
    content = Content()
    image = make_image(1, 10)
    for number in range(7):
        content.add(f"r{number}", image, *[f"t{n}" for n in range(5)])
    with FakeRegistry(content, page=2) as source:
        numbers = bring_well(target, source.url)
    assert (numbers["repositories"], numbers["tags"]) == (7, 35)


def test_running_it_again_copies_nothing(target):
    content = sample()
    with FakeRegistry(content) as source:
        bring_well(target, source.url)
        source.seen.clear()
        assert nothing_copied(bring_well(target, source.url))
        assert not source.paths("/blobs/")
        assert [m for m, path, _ in source.seen if "/manifests/" in path] == ["HEAD"] * 5


def test_what_is_new_is_copied(target):
    """A new referrer of an old image, and a new tag of it."""
    content = sample()
    with FakeRegistry(content) as source:
        bring_well(target, source.url)
        image = content.repositories["team/app"]["tags"]["v1"]
        body = content.repositories["team/app"]["manifests"][image][1]
        content.repositories["team/app"]["tags"]["new"] = image
        subject = {"mediaType": MANIFEST, "digest": image, "size": len(body)}
        content.add("team/app", make_artifact("application/x.new", subject=subject))
        numbers = bring_well(target, source.url)
    assert (numbers["manifests"], numbers["tags"]) == (1, 1)
    with served(target) as client:
        content.check(client, "team/app")


def test_blobs_of_other_repositories_are_linked(target):
    content = Content()
    layers = [random_bytes(5000) for _ in range(3)]
    for number in range(6):
        content.add(f"r{number}", make_image(layer_blobs=layers), "v1")
    with FakeRegistry(content) as source:
        numbers = bring_well(target, source.url, "--jobs", 8)
        fetched = [path.rpartition("/")[2] for path in source.paths("/blobs/")]
    assert len(fetched) == len(set(fetched)) == 3 + 6  # layers once, and six configurations
    assert numbers["linked"] == 15
    with served(target) as client:
        for name in content.repositories:
            content.check(client, name)


# ---- Tags that are there ----


def test_tags_that_point_elsewhere_are_left(target):
    content = Content()
    mine, theirs = make_image(1, 10), make_image(1, 20)
    content.add("app", theirs, "same", "other")
    with served(target) as client:
        push_image(client, "app", mine, "other")
    with FakeRegistry(content) as source:
        done = bring_badly(target, source.url, saying=["app:other", mine.digest, theirs.digest])
        assert counts(done)["skipped"] == 1
        with served(target) as client:
            assert pull_image(client, "app", "other").body == mine.body
            assert pull_image(client, "app", "same").body == theirs.body
        assert bring_well(target, source.url, "--overwrite")["tags"] == 1
    with served(target) as client:
        assert pull_image(client, "app", "other").body == theirs.body


# ---- Dry run ----


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None
            for path in folder.rglob("*")}


def test_dry_run_into_nothing(target):
    content = sample()
    with FakeRegistry(content) as source:
        numbers = bring_well(target, source.url, "--dry-run")
        assert list(target.data.iterdir()) == []
        target.data.rmdir()
        assert bring_well(target, source.url, "--dry-run") == numbers
        assert not target.data.exists()
        assert not source.paths("/blobs/")
        real = bring_well(target, source.url)
    assert numbers == real


def test_dry_run_beside_what_is_there(target):
    """A registry that is served meanwhile is looked at, and not changed."""
    content = sample()
    with served(target) as client:
        image = content.repositories["team/app"]["tags"]["v1"]
        media_type, body = content.repositories["team/app"]["manifests"][image]
        for blob in content.repositories["team/app"]["blobs"].values():
            holdfast.push_blob(client, "team/app", blob)
        holdfast.push_manifest(client, "team/app", holdfast.Manifest(json.loads(body), body=body),
                               "v1")
    before = snapshot(target.data / "blobs") if (target.data / "blobs").exists() else None
    with FakeRegistry(content) as source:
        with served(target) as client:
            numbers = bring_well(target, source.url, "--dry-run")
            assert client.get("/v2/_catalog").json()["repositories"] == ["team/app"]
            assert tags(client, "team/app") == ["v1"]
            assert client.head(f"/v2/team/app/manifests/latest").status == 404
        if before is not None:
            assert snapshot(target.data / "blobs") == before
        real = bring_well(target, source.url)
    for what in ("manifests", "tags", "blobs", "size"):
        assert numbers[what] == real[what], what
    assert numbers["tags"] == 4


# ---- Breaking off ----


def big_sample():
    content = Content()
    for number in range(30):
        content.add(f"r{number % 5}", make_image(2, 30000), f"t{number}")
    return content


def test_killed_and_run_again(target):
    content = big_sample()
    with FakeRegistry(content) as source:
        enough = threading.Event()

        def count(handler):
            if len(source.paths("/blobs/")) > 25:
                enough.set()
            if "/blobs/" in handler.path:
                time.sleep(0.01)

        source.before = count
        command = [holdfast.BINARY, "import", source.url, "--data", str(target.data)]
        environment = clean_environment(Server.backend(target.data))
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env=environment) as process:
            assert enough.wait(60)
            process.send_signal(signal.SIGKILL)
            assert process.wait(30) == -signal.SIGKILL
        source.seen.clear()
        numbers = bring_well(target, source.url)
    assert 0 < numbers["blobs"] < 90  # and not the ones that were there
    with served(target) as client:
        for name in content.repositories:
            content.check(client, name)


@pytest.mark.hooks
@pytest.mark.parametrize("point", ["upload.committed", "upload.finished", "manifest.written",
                                   "manifest.committed"])
def test_killed_at(target, point):
    content = big_sample()
    with FakeRegistry(content) as source:
        done = bring(target, source.url, env={"HOLDFAST_TEST_CRASH": f"{point}:7"})
        assert done.returncode == -signal.SIGKILL
        bring_well(target, source.url)
    with served(target) as client:
        for name in content.repositories:
            content.check(client, name)
    checked = holdfast.run("fsck", "--deep", "--data", target.data)
    assert checked.returncode == 0, checked.stdout


def test_source_that_dies(target):
    """It is asked some times more, and then the import ends and says why."""
    content = Content()
    for number in range(40):
        content.add("app", make_image(1, 100), f"t{number}")
    with FakeRegistry(content) as source:
        def die(handler):
            if len(source.paths("/blobs/")) > 20:
                handler.close_connection = True
                handler.connection.close()
                return True

        source.before = die
        done = bring_badly(target, source.url, "--jobs", 16, saying="does not answer any more")
        assert 10 <= counts(done)["skipped"] < 40
        source.before = None
        bring_well(target, source.url)
    with served(target) as client:
        content.check(client, "app")


def test_connection_that_breaks_in_a_blob(target):
    """What was received already counts; the rest is read when it comes again."""
    content = Content()
    image = make_image(1, 300_000)
    content.add("app", image, "v1")
    broken = []
    with FakeRegistry(content) as source:
        def cut(handler):
            if handler.path.endswith(sha256(image.blobs[1])) and len(broken) < 3:
                broken.append(1)
                handler.send_response(200)
                handler.send_header("Content-Length", str(len(image.blobs[1])))
                handler.end_headers()
                handler.wfile.write(image.blobs[1][:100_000 * len(broken) - 50_000])
                handler.close_connection = True
                return True

        source.before = cut
        bring_well(target, source.url)
    assert len(broken) == 3
    with served(target) as client:
        content.check(client, "app")


# ---- Who we are ----

NAME, PASSWORD = "robot", "s3cret, with: colons"
BASIC = "Basic " + base64.b64encode(f"{NAME}:{PASSWORD}".encode()).decode()


def ask_basic(handler):
    if handler.headers.get("Authorization") == BASIC:
        return False
    handler.answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]},
                   {"WWW-Authenticate": 'Basic realm="here"'})
    return True


@pytest.fixture
def password_file(tmp_path):
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    return path


def docker_config(tmp_path, host, **entry):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": {host: entry}, "credsStore": "desktop"}))
    return path


def test_basic(target, password_file, tmp_path):
    content = sample()
    with FakeRegistry(content, ask_basic) as source:
        bring_well(target, source.url, "--username", NAME, "--password-file", password_file)
        bring_well(target, source.url, "--username", NAME, "--password-env", "SOME_PASSWORD",
                   env={"SOME_PASSWORD": PASSWORD})
        auth = base64.b64encode(f"{NAME}:{PASSWORD}".encode()).decode()
        config = docker_config(tmp_path, source.url[len("http://"):], auth=auth)
        bring_well(target, source.url, "--docker-config", config)
        unknown = docker_config(tmp_path, "other.example", auth=auth)
        bring_badly(target, source.url, "--docker-config", unknown, saying="has no entry for")
        bring_badly(target, source.url, saying="asks for a user name and password")
        done = bring_badly(target, source.url, "--username", NAME, "--password-env", "WRONG",
                           env={"WRONG": "not-the-password"}, saying="401")
    assert "not-the-password" not in done.stdout + done.stderr
    # Credentials are sent when they are asked for, not before.
    assert "Authorization" not in source.seen[0][2]
    with served(target) as client:
        for name in content.repositories:
            content.check(client, name)


class Tokens:
    """A token server in front of a FakeRegistry, at the same address: each token is for one scope,
    and for so many requests."""

    def __init__(self, uses=1000, expires_in=300, answer=None):
        self.uses = uses
        self.expires_in = expires_in
        self.answer = answer
        self.tokens = {}
        self.asked = []
        self.lock = threading.Lock()

    def __call__(self, handler):
        url = urllib.parse.urlsplit(handler.path)
        if url.path == "/token":
            return self.give(handler, urllib.parse.parse_qs(url.query))
        name = re.match(r"/v2/(.+)/(?:tags|manifests|blobs|referrers)/", url.path)
        scope = f"repository:{name.group(1)}:pull" if name else \
            "registry:catalog:*" if "_catalog" in url.path else ""
        token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        with self.lock:
            allowed, uses = self.tokens.get(token, (None, 0))
            if allowed == scope and uses > 0:
                self.tokens[token] = (scope, uses - 1)
                return False
        realm = f'{handler.server.url}/token?kind=pull'
        challenge = f'Bearer realm="{realm}",service="fake, registry"'
        if scope:
            challenge += f',scope="{scope}"'
        handler.answer(401, {}, {"WWW-Authenticate": challenge})
        return True

    def give(self, handler, query):
        with self.lock:
            self.asked.append((query, handler.headers.get("Authorization")))
            if self.answer is not None:
                self.answer(handler)
                return True
            token = hashlib.sha256(os.urandom(8)).hexdigest() * 80  # longer than one buffer
            self.tokens[token] = (query.get("scope", [""])[0], self.uses)
        handler.answer(200, {"token": token, "expires_in": self.expires_in})
        return True


@pytest.mark.parametrize("uses,expires_in", [(1000, 300), (3, 300), (1000, 1)])
def test_tokens(target, password_file, uses, expires_in):
    """Tokens for each repository; they end early, or after a second."""
    content = sample()
    authority = Tokens(uses, expires_in)
    # Of a token for three uses several jobs could leave nothing to the one that asked for it.
    jobs = ("--jobs", "1") if uses == 3 else ()
    with FakeRegistry(content, authority) as source:
        bring_well(target, source.url, "--username", NAME, "--password-file", password_file, *jobs)
    for query, authorization in authority.asked:
        assert authorization == BASIC
        assert query["service"] == ["fake, registry"] and query["kind"] == ["pull"]
        assert query["account"] == [NAME]
    assert all(BASIC != headers.get("Authorization") for _, path, headers in source.seen
               if not path.startswith("/token"))
    if uses == 1000 and expires_in == 300:
        scopes = [query.get("scope", [""])[0] for query, _ in authority.asked]
        assert len(scopes) <= len(set(scopes)) * 4  # at most once for each job
        assert set(scopes) == {"", "registry:catalog:*"} | {
            f"repository:{name}:pull" for name in content.repositories}
    with served(target) as client:
        for name in content.repositories:
            content.check(client, name)


def test_anonymous_tokens(target):
    authority = Tokens()
    with FakeRegistry(sample(), authority) as source:
        bring_well(target, source.url)
    assert all(authorization is None for _, authorization in authority.asked)


def test_identity_token(target, tmp_path):
    """distribution, "Docker Registry v2 authentication via OAuth2": exchanged by POST."""
    content = Content()
    content.add("app", make_image(1, 10), "v1")
    authority = Tokens()
    forms = []

    class Handler(FakeHandler):
        def do_POST(self):
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            forms.append(urllib.parse.parse_qs(form))
            token = f"token{len(forms)}"
            authority.tokens[token] = (forms[-1].get("scope", [""])[0], 1000)
            self.answer(200, {"access_token": token})

    with FakeRegistry(content, authority) as source:
        source.RequestHandlerClass = Handler
        config = docker_config(tmp_path, source.url[len("http://"):], identitytoken="id+en/tity=")
        bring_well(target, source.url, "--docker-config", config)
    assert not authority.asked
    assert all(form["grant_type"] == ["refresh_token"] and
               form["refresh_token"] == ["id+en/tity="] and
               form["service"] == ["fake, registry"] for form in forms)


@pytest.mark.parametrize("answer,saying", [
    (lambda h: h.answer(401, {}), "check user name and password"),
    (lambda h: h.answer(404, {}), "answered with status 404"),
    (lambda h: h.answer(200, b"no json"), "is not valid JSON"),
    (lambda h: h.answer(200, {}), "holds no token"),
    (lambda h: h.answer(200, {"token": "a\r\nX: y"}), "holds no token"),
    (lambda h: h.answer(200, {"token": 5}), "holds no token"),
    (lambda h: h.answer(302, b"", {"Location": "http://127.0.0.1:1/"}), "answered with status 302"),
    (lambda h: h.answer(200, b"[" * 2_000_000), "1048576"),
])
def test_token_servers_that_err(target, password_file, answer, saying):
    with FakeRegistry(sample(), Tokens(answer=answer)) as source:
        done = bring_badly(target, source.url, "--username", NAME, "--password-file",
                           password_file, saying=saying)
    assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize("challenge,saying", [
    ("Negotiate", "not in a way that is known here"),
    ("", "not in a way that is known here"),
    ('Bearer service="x"', "does not say where it is to be had"),
    ('Bearer realm="http://registry.example/token"', "is reached by http"),
    ('Bearer realm="ftp://127.0.0.1/token"', "only https and http"),
    ('Bearer realm="https://user:pass@127.0.0.1/token"', "must not hold a user name"),
    ('Bearer realm="file:///etc/passwd"', "scheme"),
])
def test_challenges_that_err(target, password_file, challenge, saying):
    def ask(handler):
        handler.answer(401, {}, {"WWW-Authenticate": challenge})
        return True

    with FakeRegistry(sample(), ask) as source:
        bring_badly(target, source.url, "--username", NAME, "--password-file", password_file,
                    saying=saying)


# ---- Redirects ----


def test_redirects_get_no_credentials(target, password_file):
    """Blobs that are elsewhere, behind two hops; the credentials stay with the registry."""
    content = sample()
    with FakeRegistry() as elsewhere, FakeRegistry(content) as source:
        def give(handler):
            path = handler.path
            if path.startswith("/first/"):
                handler.answer(302, b"", {"Location": "../second/" + path.rpartition("/")[2]})
                return True
            for repository in content.repositories.values():
                if (blob := repository["blobs"].get(path.rpartition("/")[2])) is not None:
                    handler.answer(200, blob)
                    return True

        def send_on(handler):
            if ask_basic(handler):
                return True
            if "/blobs/" in handler.path:
                digest = handler.path.rpartition("/")[2]
                handler.answer(307, b"", {
                    "Location": f"//127.0.0.1:{elsewhere.server_port}/first/{digest}"})
                return True

        elsewhere.before, source.before = give, send_on
        bring_well(target, source.url, "--username", NAME, "--password-file", password_file)
        assert elsewhere.paths("/second/")
        assert all("Authorization" not in headers for _, _, headers in elsewhere.seen)
    with served(target) as client:
        for name in content.repositories:
            content.check(client, name)


@pytest.mark.parametrize("location,saying", [
    ("/again", "redirects more than"),
    ("http://registry.example/blob", "by http, and https is needed"),
    ("ftp://127.0.0.1/blob", "only https and http"),
    ("http://user@127.0.0.1/", "must not hold a user name"),
    (None, "does not say where to go"),
])
def test_redirects_that_err(target, location, saying):
    def send_on(handler):
        if "/blobs/" in handler.path or handler.path == "/again":
            handler.answer(307, b"", {} if location is None else {"Location": location})
            return True

    with FakeRegistry(sample(), send_on) as source:
        bring_badly(target, source.url, saying=saying)


# ---- Being asked to wait ----


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(target, status):
    content = Content()
    content.add("app", make_image(1, 10), "v1")
    times = []

    def busy(handler):
        if "/manifests/" not in handler.path:
            return False
        times.append(time.monotonic())
        if len(times) <= 2:
            handler.answer(status, {}, {"Retry-After": "1"})
            return True

    with FakeRegistry(content, busy) as source:
        bring_well(target, source.url)
    assert times[1] - times[0] >= 1 and times[2] - times[1] >= 1
    with served(target) as client:
        content.check(client, "app")


def test_errors_that_pass(target):
    failures = [500, 502, 503, 504]

    def fail(handler):
        if "/blobs/" in handler.path and failures:
            handler.answer(failures.pop(), {})
            return True

    with FakeRegistry(sample(), fail) as source:
        bring_well(target, source.url)
    assert not failures


def test_who_asks_for_too_much_time_is_left(target):
    def busy(handler):
        if "/manifests/" in handler.path:
            handler.answer(429, {"errors": [{"message": "your limit\x1b[31m is reached"}]},
                           {"Retry-After": "86400"})
            return True

    with FakeRegistry(sample(), busy) as source:
        began = time.monotonic()
        done = bring_badly(target, source.url, saying=["429", "your limit?[31m is reached"])
    assert time.monotonic() - began < 30
    assert "\x1b" not in done.stdout


# ---- Referrers ----


def test_referrers_by_tag(target):
    """dist-spec, "Unavailable Referrers API": the client keeps the list under a tag."""
    content = Content()
    image = make_image(1, 10)
    content.add("app", image, "v1")
    artifact = make_artifact("application/x.sig", subject=image.descriptor())
    content.add("app", artifact)
    lists = make_index([artifact])
    content.add("app", lists, image.digest.replace(":", "-"))
    hidden = content.repositories["app"]["tags"]

    def hide(handler):  # a list of tags that leaves the fallback out
        if handler.path.startswith("/v2/app/tags/list"):
            handler.answer(200, {"name": "app", "tags": ["v1"]})
            return True

    with FakeRegistry(content, hide, has_referrers=False) as source:
        bring_well(target, source.url)
        assert hidden
    with served(target) as client:
        [entry] = client.get(f"/v2/app/referrers/{image.digest}").json()["manifests"]
        assert entry["digest"] == artifact.digest
        assert pull_image(client, "app", artifact.digest).body == artifact.body
    with FakeRegistry(content, has_referrers=False) as source:  # and listed: it is a tag as others
        bring_well(target, source.url)
    with served(target) as client:
        content.check(client, "app")


def test_referrers_that_are_none(target):
    """A source may list anything: what does not name the subject would lead in circles."""
    content = Content()
    image, other = make_image(1, 10), make_image(1, 20)
    content.add("app", image, "v1")
    content.add("app", other)

    def lie(handler):
        if "/referrers/" in handler.path:
            handler.answer(200, {"manifests": [image.descriptor(), other.descriptor(),
                                               {"digest": "sha256:none"}, 5]})
            return True

    with FakeRegistry(content, lie) as source:
        done = bring_badly(target, source.url, saying="which it does not name")
    assert counts(done)["skipped"] == 4
    with served(target) as client:
        assert pull_image(client, "app", "v1").body == image.body


# ---- Sources that lie ----


def lying(target, content, before, saying):
    with FakeRegistry(content, before) as source:
        began = time.monotonic()
        done = bring_badly(target, source.url, saying=saying)
        assert time.monotonic() - began < 60
    with served(target) as client:
        assert client.get("/metrics").status == 200
    return done


def one_image():
    content = Content()
    content.add("app", make_image(1, 1000), "v1")
    return content


@pytest.mark.parametrize("list_path", ["/v2/_catalog", "/v2/app/tags/list"])
@pytest.mark.parametrize("loop", [
    lambda n: "?n=1",                    # at once
    lambda n: f"?n=1&last=x{n % 7}",     # after some pages
    lambda n: f"?n=1&last=x{min(n, 9)}",  # at the end
])
def test_pages_without_end(target, list_path, loop):
    n = iter(range(10**9))

    def page(handler):
        if handler.path.startswith(list_path):
            handler.answer(200, {"repositories": ["app"], "tags": ["v1"]},
                           {"Link": f'<{list_path}{loop(next(n))}>; rel="next"'})
            return True

    lying(target, one_image(), page, "does not end")


def test_pages_stay_at_the_registry(target):
    """Only path and query of a link count, whatever host it names: proxies get that wrong, and
    others must not."""
    content = Content()
    for name in ("a", "b", "c"):
        content.add(name, make_image(1, 10), "v1")

    def page(handler):
        if handler.path.startswith("/v2/_catalog?n="):
            handler.answer(200, {"repositories": ["a", "b"]}, {
                "Link": '<http://registry.example:81/v2/_catalog?last=b>; rel="next"'})
            return True

    with FakeRegistry(content, page) as source:
        assert bring_well(target, source.url)["repositories"] == 3


@pytest.mark.parametrize("body,saying", [
    (b"[" * 100, "not valid JSON"),
    (b"[]", "not a JSON object"),
    (b'{"repositories": 5}', "not an array"),
    (b'{"repositories": [' + b"[]," * 1_200_000 + b"1]}", "more than 1000000 values"),
    (b" " * (33 << 20) + b"{}", "more than 33554432 bytes"),
    (b"", "not valid JSON"),
])
def test_catalogs_that_are_none(target, body, saying):
    def answer(handler):
        if "_catalog" in handler.path:
            handler.answer(200, body)
            return True

    lying(target, one_image(), answer, saying)


def test_names_that_are_none(target):
    def answer(handler):
        if "_catalog" in handler.path:
            handler.answer(200, {"repositories": ["../../etc", "UPPER", "", 7, None, "a" * 300,
                                                  "app"]})
            return True
        if "tags/list" in handler.path:
            handler.answer(200, {"tags": ["v1", "../v1", "", "x" * 200, 7, "\u001b[31m"]})
            return True

    with FakeRegistry(one_image(), answer) as source:
        done = bring_badly(target, source.url, saying=['"UPPER"', '"../../etc"', '"../v1"'])
    assert counts(done)["skipped"] == 6 + 5 and counts(done)["tags"] == 1
    assert "\x1b" not in done.stdout


def test_manifest_that_is_another(target):
    content = one_image()
    body = make_image(1, 10).body
    digest = content.repositories["app"]["tags"]["v1"]

    def by_tag(handler):
        if "/manifests/v1" in handler.path:
            handler.answer(200, body, {"Content-Type": MANIFEST, "Docker-Content-Digest": digest})
            return True

    done = lying(target, content, by_tag, ["other bytes", sha256(body), digest])
    assert counts(done)["tags"] == 0

    def by_digest(handler):
        if f"/manifests/{child.digest}" in handler.path:
            handler.answer(200, body, {"Content-Type": MANIFEST})
            return True

    child = make_image(1, 30)
    content.add("app", make_index([child, make_image(1, 40)]), "multi")
    done = lying(target, content, by_digest, ["other bytes", child.digest])
    assert counts(done)["skipped"] == 2 and counts(done)["tags"] == 1  # v1 is another tag


@pytest.mark.parametrize("size,saying", [(5 << 20, "more than 4194304 bytes"), (0, "is empty")])
def test_manifest_of_another_size(target, size, saying):
    def answer(handler):
        if "/manifests/v1" in handler.path:
            handler.answer(200, b" " * size)
            return True

    lying(target, one_image(), answer, saying)


def test_blobs_that_are_others(target):
    content = Content()
    images = {kind: make_image(1, 1000) for kind in ("other", "longer", "shorter", "gone")}
    for kind, image in images.items():
        content.add("app", image, kind)
    content.add("app", make_image(1, 500), "good")
    data = {sha256(image.blobs[1]): kind for kind, image in images.items()}

    def answer(handler):
        kind = data.get(handler.path.rpartition("/")[2])
        if kind is None:
            return False
        if kind == "gone":
            handler.missing()
        else:
            handler.answer(200, {"other": random_bytes(1000), "shorter": b"x" * 999,
                                 "longer": b"x" * 1001}[kind])
        return True

    done = lying(target, content, answer, [f"skipped: app:{kind}: blob" for kind in images])
    assert counts(done)["skipped"] == 4 and counts(done)["tags"] == 1
    assert "more bytes than the 1000 that the manifest says" in done.stdout
    with served(target) as client:
        assert tags(client, "app") == ["good"]


def test_blob_without_end(target):
    def answer(handler):
        if "/blobs/" not in handler.path:
            return False
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(piece)
        handler.close_connection = True
        return True

    lying(target, one_image(), answer, "more bytes than")


def test_index_in_index_in_index(target):
    content = Content()
    index = make_index([make_image(1, 10)])
    for _ in range(20):
        index = make_index([index])
    content.add("app", index, "deep")
    with FakeRegistry(content) as source:
        bring_badly(target, source.url, saying="nested deeper than")


def test_not_a_registry(target):
    with FakeRegistry(before=lambda h: h.answer(404, b"<html>") or True) as source:
        bring_badly(target, source.url, saying="answered 404")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        began = time.monotonic()
        bring_badly(target, f"http://127.0.0.1:{unused.getsockname()[1]}", saying="reached")
        assert time.monotonic() - began < 10


# ---- TLS ----


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_tls(target, make_server, tmp_path):
    for name in ("good", "stranger"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                        f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout",
                        tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.pem"],
                       check=True, capture_output=True)
    other = make_server("--tls-certificate", tmp_path / "good.pem", "--tls-key",
                        tmp_path / "good.key", data=tmp_path / "other", scheme="https")
    image = make_image(1, 1000)
    with Client(other) as client:
        push_image(client, "app", image, "v1")
    bring_badly(target, other.url, saying="reached")
    bring_badly(target, other.url, "--ca", tmp_path / "stranger.pem", saying="reached")
    bring_badly(target, other.url, "--ca", tmp_path / "none.pem")
    bring_well(target, other.url, "--ca", tmp_path / "good.pem")
    with served(target) as client:
        assert pull_image(client, "app", "v1").body == image.body


def test_http_beyond_loopback_needs_a_flag(target):
    bring_badly(target, "http://registry.example", saying="use https, or say that you want it")


# ---- distribution's folder ----


def test_distribution(target, tmp_path):
    """With what has no tag, and what was pushed by digest alone."""
    content = sample()
    content.write_distribution(tmp_path / "storage")
    source = f"distribution:{tmp_path}/storage"
    numbers = bring_well(target, source)
    assert numbers["manifests"] == sum(len(r["manifests"]) for r in content.repositories.values())
    assert nothing_copied(bring_well(target, source))
    with served(target) as client:
        for name in content.repositories:
            content.check(client, name)


def test_distribution_that_is_damaged(target, tmp_path):
    """Each damage is named; what is whole arrives."""
    content = Content()
    kinds = ("whole", "no-data", "other-data", "cut-data", "no-layer-link", "link-garbage",
             "link-huge", "link-symlink", "data-symlink", "no-revision", "no-current", "data-fifo",
             "manifest-cut", "link-elsewhere")
    images = {kind: make_image(1, 1000) for kind in kinds}
    for kind, image in images.items():
        content.add(f"r/{kind}", image, "v1")
    root = content.write_distribution(tmp_path / "storage")
    (tmp_path / "secret").write_bytes(images["data-symlink"].blobs[1])
    (tmp_path / "secret-link").write_text(images["link-symlink"].digest)

    def data(kind):
        hexadecimal = sha256(images[kind].blobs[1]).partition(":")[2]
        return root / "blobs" / "sha256" / hexadecimal[:2] / hexadecimal / "data"

    def own_data(kind):
        hexadecimal = images[kind].digest.partition(":")[2]
        return root / "blobs" / "sha256" / hexadecimal[:2] / hexadecimal / "data"

    def links(kind):
        return root / "repositories" / "r" / kind

    def tag(kind):
        return links(kind) / "_manifests" / "tags" / "v1" / "current" / "link"

    data("no-data").unlink()
    data("other-data").write_bytes(random_bytes(1000))
    data("cut-data").write_bytes(images["cut-data"].blobs[1][:500])
    (links("no-layer-link") / "_layers" / sha256(images["no-layer-link"].blobs[1]).replace(
        ":", "/") / "link").unlink()
    tag("link-garbage").write_bytes(b"\x1b[31msha256:zz")
    tag("link-huge").write_bytes(b"sha256:" + b"a" * 1_000_000)
    tag("link-symlink").unlink()
    tag("link-symlink").symlink_to(tmp_path / "secret-link")
    data("data-symlink").unlink()
    data("data-symlink").symlink_to(tmp_path / "secret")
    shutil.rmtree(links("no-revision") / "_manifests" / "revisions")
    shutil.rmtree(tag("no-current").parent)
    data("data-fifo").unlink()
    os.mkfifo(data("data-fifo"))
    own_data("manifest-cut").write_bytes(images["manifest-cut"].body[:50])
    tag("link-elsewhere").write_text("sha256:../../../../../secret")
    (root / "repositories" / "out").symlink_to(tmp_path)
    (root / "repositories" / "stray").write_text("a file")

    done = bring_badly(target, f"distribution:{tmp_path}/storage")
    for kind in kinds:
        assert (f"skipped: r/{kind}:v1: " in done.stdout) == (kind != "whole"), kind
    assert "\x1b" not in done.stdout
    assert 'repository "out"' in done.stdout and 'repository "stray"' in done.stdout
    with served(target) as client:
        content.check(client, "r/whole")
        # What a tag has lost is there by its digest.
        for kind in ("link-garbage", "link-huge", "link-symlink", "no-current", "link-elsewhere"):
            assert pull_image(client, f"r/{kind}", images[kind].digest).body == images[kind].body
        for kind in ("no-data", "other-data", "cut-data", "data-symlink", "data-fifo",
                     "manifest-cut", "no-revision"):
            assert client.head(f"/v2/r/{kind}/manifests/{images[kind].digest}").status == 404


def test_index_without_a_child(target, tmp_path):
    """The index cannot come; the children that are there do."""
    content = Content()
    children = [make_image(1, 100) for _ in range(3)]
    index = make_index(children)
    content.add("app", index, "multi")
    root = content.write_distribution(tmp_path / "storage")
    hexadecimal = children[1].digest.partition(":")[2]
    shutil.rmtree(root / "repositories/app/_manifests/revisions/sha256" / hexadecimal)
    done = bring_badly(target, f"distribution:{tmp_path}/storage",
                       saying=[f"skipped: app@{children[1].digest}", "skipped: app:multi",
                               "was not brought"])
    assert counts(done)["manifests"] == 2
    with served(target) as client:
        assert pull_image(client, "app", children[2].digest).body == children[2].body
        assert client.head("/v2/app/manifests/multi").status == 404


def test_schema_1_and_foreign_layers(target, tmp_path):
    content = Content()
    old = holdfast.Manifest({"schemaVersion": 1, "name": "app", "tag": "old", "fsLayers": [],
                             "history": [], "signatures": []}, media_type=SCHEMA1)
    content.add("app", old, "old")
    layer = random_bytes(300)
    image = make_image(layer_blobs=[layer], media_type=DOCKER_MANIFEST,
                       layer_type="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
    content.add("app", image, "windows")
    pushed = make_image(layer_blobs=[random_bytes(200)],
                        layer_type="application/vnd.oci.image.layer.nondistributable.v1.tar")
    content.add("app", pushed, "pushed")
    del content.repositories["app"]["blobs"][sha256(layer)]
    content.write_distribution(tmp_path / "storage")
    saying = ["skipped: app:old: ", "schema 1"]
    with FakeRegistry(content) as source:
        done = bring_badly(target, source.url, saying=saying)
        assert f"foreign: app:windows: blob {sha256(layer)}" in done.stdout
        assert counts(done)["foreign"] == 1
    bring_badly(target, f"distribution:{tmp_path}/storage", saying=saying)
    with served(target) as client:
        assert tags(client, "app") == ["pushed", "windows"]
        assert get_manifest(client, "app", "windows").body == image.body
        pull_image(client, "app", "pushed")


@pytest.mark.parametrize("where", ["distribution:{}", "oci:{}", "distribution:{}/none",
                                   "oci:{}/none", "other:{}", "{}", "https://", "http://a b/",
                                   "https://127.0.0.1:1/UPPER", "https://127.0.0.1:1/a?b",
                                   "https://user:secret@127.0.0.1:1/"])
def test_not_a_source(target, tmp_path, where):
    name = ["--name", "a"] if where.startswith("oci:") else []
    done = bring(target, where.format(tmp_path / "data"), *name)
    assert done.returncode == 1 and "secret" not in done.stderr, done.stderr
    assert done.stderr.startswith("holdfast: ")


# ---- OCI layouts ----


def write_layout(folder, entries, manifests):
    """entries: (manifest, ref.name or None)."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def store(manifest):
        (blobs / manifest.digest.partition(":")[2]).write_bytes(manifest.body)
        for blob in manifest.blobs:
            (blobs / sha256(blob).partition(":")[2]).write_bytes(blob)
        for child in manifest.children:
            store(child)

    for manifest in manifests:
        store(manifest)
    listed = []
    for manifest, name in entries:
        entry = manifest.descriptor()
        if name is not None:
            entry["annotations"] = {"org.opencontainers.image.ref.name": name}
        listed.append(entry)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_bytes(encode({"schemaVersion": 2, "manifests": listed}))
    return f"oci:{folder}"


def test_layout(target, tmp_path):
    image, index = make_image(2, 5000), make_index([make_image(1, 100), make_image(1, 100)])
    signature = make_artifact("application/x.sig", subject=image.descriptor())
    source = write_layout(tmp_path / "layout",
                          [(image, "v1"), (index, "example.org/other:multi"), (signature, None)],
                          [image, index, signature])
    numbers = bring_well(target, source, "--name", "team/app")
    assert (numbers["manifests"], numbers["tags"]) == (5, 2)
    again = bring_well(target, source, "--name=team/app")
    assert nothing_copied(again) and (again["present"], again["present_tags"]) == (5, 2)
    with served(target) as client:
        assert tags(client, "team/app") == ["multi", "v1"]
        assert pull_image(client, "team/app", "v1").body == image.body
        assert pull_image(client, "team/app", "multi").body == index.body
        [entry] = client.get(f"/v2/team/app/referrers/{image.digest}").json()["manifests"]
        assert entry["digest"] == signature.digest


def test_layout_that_is_damaged(target, tmp_path):
    good, bad, unnamed = (make_image(1, 1000) for _ in range(3))
    source = write_layout(tmp_path / "layout",
                          [(good, "good"), (bad, "bad"), (unnamed, "not/a/tag")],
                          [good, bad, unnamed])
    (tmp_path / "layout/blobs/sha256" / sha256(bad.blobs[1]).partition(":")[2]).write_bytes(b"x")
    done = bring_badly(target, source, "--name", "app",
                       saying=["skipped: app:bad: blob", '"not/a/tag"'])
    assert counts(done)["skipped"] == 2
    with served(target) as client:
        assert tags(client, "app") == ["good"]
        assert pull_image(client, "app", unnamed.digest).body == unnamed.body


# ---- The command line ----


@pytest.mark.parametrize("flags,saying", [
    ([], "usage: holdfast import"),
    (["oci:x"], "oci:FOLDER needs --name"),
    (["distribution:x", "--name", "a"], "--name is for oci:FOLDER"),
    (["distribution:x", "--jobs", "0"], "is not a number from 1 to 64"),
    (["distribution:x", "--jobs=65"], "is not a number from 1 to 64"),
    (["distribution:x", "--jobs"], "--jobs needs a value"),
    (["distribution:x", "--repository"], "--repository needs a value"),
    (["distribution:x", "--dry-run=yes"], "--dry-run takes no value"),
    (["https://x", "--username", "a"], "--username needs"),
    (["https://x", "--password-file", "a"], "--username needs"),
    (["https://x", "--username", "a", "--password-env", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE"),
    (["https://x", "--username", "a", "--password-env", "HOME", "--docker-config", "b"],
     "exclude each other"),
    (["distribution:x", "--unknown"], "--unknown"),
    (["distribution:x", "more"], "more"),
])
def test_usage(flags, saying):
    done = holdfast.run("import", *flags)
    assert done.returncode == 2 and saying in done.stderr, done.stderr


def test_a_source_without_repositories_is_no_success(target):
    """A mistyped name, or a registry that hides its catalog: somebody expects that it was copied."""
    with FakeRegistry(sample()) as source:
        bring_badly(target, source.url, "--repository", "taem/*",
                    saying="the source shows no repository that --repository chooses\n")
    with FakeRegistry() as source:
        bring_badly(target, source.url, saying="the source shows no repository\n")


def test_one_image_is_no_source(target):
    with FakeRegistry(sample()) as source:
        for image in ("team/app:v1", "team/app@" + sha256(b"")):
            bring_badly(target, f"{source.url}/{image}", saying="a repository is imported whole")


def test_source_by_flag(target, tmp_path):
    content = sample()
    content.write_distribution(tmp_path / "storage")
    done = holdfast.run("import", "--data", target.data, "--jobs=1", "--from",
                        f"distribution:{tmp_path}/storage")
    assert done.returncode == 0, done.stderr
    assert counts(done)["repositories"] == 3


def test_prefix_that_is_none(target, tmp_path):
    sample().write_distribution(tmp_path / "storage")
    bring_badly(target, f"distribution:{tmp_path}/storage", "--prefix", "Not/A/Name",
                saying="Not/A/Name")


def test_registry_that_is_served(target, tmp_path, store):
    """A data folder has one user; a database may have many."""
    sample().write_distribution(tmp_path / "storage")
    target.start()
    done = bring(target, f"distribution:{tmp_path}/storage")
    if not store.has("folder"):
        assert done.returncode == 0, done.stderr
        with Client(target) as client:
            assert wait_until(lambda: tags(client, "team/app") == ["latest", "multi", "v1"])
    else:
        assert done.returncode == 1 and "in use by another" in done.stderr
