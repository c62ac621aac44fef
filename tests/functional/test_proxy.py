"""Behind proxies: whose headers are believed, and what Location says then."""

import http.client
import shutil
import socket
import ssl
import subprocess
import time

import pytest

from holdfast import (Client, make_image, pull_image, push_blob, push_image, random_bytes, Server,
                      sha256, start_upload, wait_until)

FORWARDED = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "registry.example.com",
             "X-Forwarded-For": "203.0.113.9"}


def location(client, headers):
    return client.post("/v2/app/blobs/uploads/", None, headers).location


@pytest.fixture(scope="module")
def absolute(tmp_path_factory):
    """http.location=absolute, loopback trusted."""
    with Server(tmp_path_factory.mktemp("absolute"),
                args=["--http-location", "absolute", "--proxy-trusted", "127.0.0.1/32"]) as server:
        yield server


@pytest.fixture
def via_proxy(absolute):
    with Client(absolute) as client:
        yield client


@pytest.mark.parametrize("headers, base", [
    (FORWARDED, "https://registry.example.com"),
    ({"X-Forwarded-Proto": "https", "Host": "one.example.com"}, "https://one.example.com"),
    ({"X-Forwarded-Host": "registry.example.com:8443", "X-Forwarded-Proto": "https"},
     "https://registry.example.com:8443"),
    ({"Forwarded": "proto=https;host=one.example.com;for=203.0.113.9"}, "https://one.example.com"),
    ({"Forwarded": 'for=192.0.2.60;proto=https;host="one.example.com:444", for=10.0.0.1'},
     "https://one.example.com:444"),
    ({"Forwarded": "proto=https;host=one.example.com", **FORWARDED}, "https://one.example.com"),
    ({"X-Forwarded-Proto": "https, http", "X-Forwarded-Host": "a.example.com, b.example.com"},
     "https://a.example.com"),
    ({"Host": "plain.example.com:5000"}, "http://plain.example.com:5000"),
], ids=["X-Forwarded", "host kept", "port", "Forwarded", "two elements", "Forwarded wins",
        "two values", "no proxy"])
def test_a_location_is_built_from_what_a_trusted_proxy_says(via_proxy, headers, base):
    assert location(via_proxy, headers).startswith(f"{base}/v2/app/blobs/uploads/")


def test_all_locations_are_absolute_when_asked_for(via_proxy):
    data, image = random_bytes(), make_image()
    base = "https://registry.example.com/v2/app/"
    answer = via_proxy.post(f"/v2/app/blobs/uploads/?digest={sha256(data)}", data, FORWARDED)
    assert answer.location == f"{base}blobs/{sha256(data)}"
    push_image(via_proxy, "app", image)
    answer = via_proxy.put("/v2/app/manifests/v1", image.body,
                           {"Content-Type": image.media_type, **FORWARDED})
    assert answer.location == f"{base}manifests/{image.digest}"
    answer = via_proxy.patch(start_upload(via_proxy, "app"), b"x", FORWARDED)
    assert answer.location.startswith(f"{base}blobs/uploads/")


def test_links_stay_relative(via_proxy):
    image = make_image()
    for tag in ("a", "b"):
        push_image(via_proxy, "links", image, tag)
    assert via_proxy.get("/v2/links/tags/list?n=1", FORWARDED).headers["Link"].startswith("</v2/")


@pytest.mark.parametrize("host", ["a b", "evil.example.com/path", "x\"y", "a@b", "a?b", "a#b",
                                  "[::1"])
def test_a_broken_host_never_reaches_a_location(via_proxy, host):
    answer = via_proxy.post("/v2/app/blobs/uploads/", None, {**FORWARDED, "X-Forwarded-Host": host})
    assert answer.status in (202, 400)
    if answer.status == 202:
        assert host not in answer.location


def test_the_access_log_names_the_client_behind_the_proxy(absolute, via_proxy):
    answer = via_proxy.get("/v2/", {**FORWARDED, "X-Forwarded-For": "203.0.113.77, 10.0.0.1"})
    line = absolute.wait_log(lambda l: answer.headers["X-Request-Id"] in l.values())
    assert "203.0.113.77" in line.values(), line


@pytest.mark.parametrize("args", [
    [], ["--http-location", "absolute"],
    ["--http-location", "absolute", "--proxy-trusted", "10.0.0.0/8"]],
    ids=["relative", "nobody trusted", "others trusted"])
def test_headers_of_others_are_not_believed(make_server, args):
    server = make_server(*args)
    with Client(server) as client:
        text = location(client, FORWARDED)
        assert "example.com" not in text
        if args:
            assert text.startswith(f"http://{server.address}/v2/")
        answer = client.get("/v2/", FORWARDED)
        line = server.wait_log(lambda l: answer.headers["X-Request-Id"] in l.values())
        assert "203.0.113.9" not in line.values()


def test_relative_locations_stay_relative_behind_a_proxy(make_server):
    with Client(make_server("--proxy-trusted", "127.0.0.0/8")) as client:
        assert location(client, FORWARDED).startswith("/v2/app/")


def test_several_networks_may_be_trusted(make_server):
    with Client(make_server("--proxy-trusted", "10.0.0.0/8", "--proxy-trusted", "127.0.0.1",
                            "--http-location", "absolute")) as client:
        assert location(client, FORWARDED).startswith("https://registry.example.com/")


# ---- nginx in front ----

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate}; ssl_certificate_key {key};
        client_max_body_size 0;
        location / {{
            proxy_pass http://{upstream};
            proxy_http_version 1.1;
            proxy_request_buffering off; proxy_buffering off;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""


class Front:
    """What Client needs to know of the nginx in front."""
    scheme = "https"
    host = "127.0.0.1"

    def __init__(self, port, ca):
        self.port, self.ca = port, ca


@pytest.fixture
def front(make_server, tmp_path):
    nginx = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if nginx is None or shutil.which("openssl") is None:
        pytest.skip("nginx or openssl is not installed")
    server = make_server("--http-location", "absolute", "--proxy-trusted", "127.0.0.1")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=front",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
                   check=True, capture_output=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "nginx.conf").write_text(NGINX.format(
        folder=tmp_path, port=port, upstream=server.address, certificate=certificate, key=key))
    process = subprocess.Popen([nginx, "-c", tmp_path / "nginx.conf", "-e", tmp_path / "error.log"],
                               stderr=subprocess.PIPE)

    def answers():
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            return process.poll() is not None

    wait_until(answers)
    assert process.poll() is None, process.stderr.read()
    yield Front(port, str(certificate))
    process.terminate()
    process.wait(20)
    process.stderr.close()


def test_push_and_pull_work_through_nginx_that_ends_tls(front):
    with Client(front) as client:
        image = make_image(2, 300000)
        push_image(client, "app", image, "v1")
        assert pull_image(client, "app", "v1").body == image.body
        push_blob(client, "app", random_bytes(500000), chunk=100000)
        text = start_upload(client, "app")
        assert text.startswith(f"https://127.0.0.1:{front.port}/v2/app/")
        pieces = [random_bytes(50000)] * 10
        answer = client.patch(text, iter(pieces))
        assert (answer.status, answer.headers["Range"]) == (202, "0-499999")


# ---- HTTP as proxies speak it ----

def test_http_1_0_is_answered(server):
    with Client(server).raw(b"GET /v2/ HTTP/1.0\r\n\r\n") as raw:
        assert raw.read_all().startswith(b"HTTP/1.")


def test_connection_close_is_obeyed(server):
    with Client(server).raw(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") as raw:
        answer = raw.response()
        assert answer.status == 200
        assert answer.headers["Connection"].lower() == "close"
        assert raw.closed_within(5)


def test_a_kept_connection_serves_many_requests(server, client):
    client.get("/v2/")
    own = client._connection.sock
    began = time.monotonic()
    for _ in range(200):
        assert client.get("/v2/").status == 200
    assert client._connection.sock is own
    assert time.monotonic() - began < 20


def test_an_absolute_target_is_understood_or_refused(server):
    # RFC 9112, section 3.2.2: a server MUST accept the absolute form.
    with Client(server).raw(b"GET http://x/v2/ HTTP/1.1\r\nHost: x\r\n\r\n") as raw:
        assert raw.response().status in (200, 400, 404)


def test_tls_towards_a_plain_port_is_no_harm(server):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(server.host, server.port, context=context, timeout=10)
    with pytest.raises((ssl.SSLError, ConnectionError, socket.timeout)):
        connection.connect()
    with Client(server) as client:
        assert client.get("/v2/").status == 200
