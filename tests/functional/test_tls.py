"""TLS of our own: certificates, their reload, versions, client certificates."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import time

import pytest

from holdfast import Client, make_image, pull_image, push_image, run, Server, wait_until

if shutil.which("openssl") is None:
    pytest.skip("openssl is not installed", allow_module_level=True)


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]


def make_certificate(folder, name, *, issuer=None):
    """name.pem and name-key.pem for 127.0.0.1; self-signed, or signed by `issuer`."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    if issuer is None:
        openssl("req", "-x509", *EC, "-subj", f"/CN={name}", "-addext",
                "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate)
    else:
        request = folder / f"{name}.csr"
        openssl("req", "-new", *EC, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", folder / f"{issuer}.pem", "-CAkey",
                folder / f"{issuer}-key.pem", "-CAcreateserial", "-days", "2", "-out", certificate)
    return certificate, key


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("server", "other", "ca", "stranger-ca"):
        make_certificate(folder, name)
    make_certificate(folder, "member", issuer="ca")
    make_certificate(folder, "stranger", issuer="stranger-ca")
    return folder


def flags(folder, name="server"):
    return ["--tls-certificate", folder / f"{name}.pem", "--tls-key", folder / f"{name}-key.pem"]


@pytest.fixture(scope="module")
def secure(certificates, tmp_path_factory):
    with Server(tmp_path_factory.mktemp("data"), args=flags(certificates), scheme="https",
                ca=str(certificates / "server.pem")) as server:
        yield server


def context_for(server, **changes):
    context = ssl.create_default_context(cafile=server.ca)
    for name, value in changes.items():
        setattr(context, name, value)
    return context


def presented(server):
    """The certificate that the server shows, as PEM."""
    return ssl.get_server_certificate((server.host, server.port))


def same_certificate(pem, path):
    return ssl.PEM_cert_to_DER_cert(pem) == ssl.PEM_cert_to_DER_cert(path.read_text())


def test_push_and_pull_work_over_tls(secure):
    with Client(secure) as client:
        image = make_image(2, 2 << 20)
        push_image(client, "app", image, "v1")
        assert pull_image(client, "app", "v1").body == image.body


def test_a_range_works_over_tls(secure):
    with Client(secure) as client:
        image = make_image(1, 1 << 20)
        push_image(client, "app", image)
        path = f"/v2/app/blobs/{image.content['layers'][0]['digest']}"
        answer = client.get(path, {"Range": "bytes=100000-899999"})
        assert (answer.status, answer.body) == (206, image.blobs[1][100000:900000])


def test_an_absolute_location_says_https(make_server, certificates):
    server = make_server(*flags(certificates), "--http-location", "absolute", scheme="https")
    with Client(server) as client:
        text = client.post("/v2/app/blobs/uploads/").location
        assert text.startswith(f"https://{server.address}/v2/app/")


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_modern_version_is_spoken(secure, version):
    wanted = getattr(ssl.TLSVersion, version)
    context = context_for(secure, minimum_version=wanted, maximum_version=wanted)
    with Client(secure, context=context) as client:
        assert client.get("/v2/").status == 200
        assert client._connection.sock.version() == version.replace("_", ".")


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_old_version_is_refused(secure, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = getattr(ssl.TLSVersion, version)
    with socket.create_connection((secure.host, secure.port), timeout=10) as plain:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(plain)


def test_plain_http_towards_a_tls_port_is_refused_and_no_harm(secure):
    with socket.create_connection((secure.host, secure.port), timeout=10) as plain:
        plain.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            got = plain.recv(1000)
        except ConnectionError:
            got = b""
        assert not got.startswith(b"HTTP/1.1 200")
    with Client(secure) as client:
        assert client.get("/v2/").status == 200


def test_a_client_that_is_silent_in_the_handshake_is_cut(make_server, certificates):
    server = make_server(*flags(certificates), "--timeouts-header", "1s", scheme="https")
    with socket.create_connection((server.host, server.port), timeout=10) as plain:
        plain.sendall(b"\x16\x03\x01")
        plain.settimeout(8)
        try:
            assert plain.recv(100) is not None
            while plain.recv(100):
                pass
        except ConnectionError:
            pass


@pytest.fixture
def reloadable(make_server, certificates, tmp_path):
    """A server over copies of the certificate, and a function that replaces them."""
    def install(name):
        for suffix in (".pem", "-key.pem"):
            new = tmp_path / f"new{suffix}"
            shutil.copy(certificates / f"{name}{suffix}", new)
            os.replace(new, tmp_path / f"live{suffix}")

    install("server")
    server = make_server(*flags(tmp_path, "live"), scheme="https")
    assert same_certificate(presented(server), certificates / "server.pem")
    return server, install


def test_a_certificate_that_changes_is_used_without_a_restart(reloadable, certificates):
    server, install = reloadable
    with Client(server) as kept:
        kept.get("/v2/")
        own = kept._connection.sock
        install("other")
        assert wait_until(lambda: same_certificate(presented(server), certificates / "other.pem"),
                          40, 0.5)
        assert kept.get("/v2/").status == 200
        assert kept._connection.sock is own, "the standing connection was cut"


def test_sighup_reads_the_certificate_again_at_once(reloadable, certificates):
    server, install = reloadable
    install("other")
    os.kill(server.pid, signal.SIGHUP)
    assert wait_until(lambda: same_certificate(presented(server), certificates / "other.pem"), 3)


def test_a_broken_new_certificate_leaves_the_old_one_in_use(reloadable, certificates, tmp_path):
    server, _ = reloadable
    (tmp_path / "live.pem").write_text("not a certificate\n")
    first = len(server.log)
    os.kill(server.pid, signal.SIGHUP)
    line = server.wait_log(lambda l: l["level"] in ("warn", "error") and
                           "live.pem" in str(l.values()), 10, first)
    assert line, "nobody was told that the new certificate is broken"
    assert same_certificate(presented(server), certificates / "server.pem")


def test_sighup_without_tls_is_no_harm(make_server):
    server = make_server()
    os.kill(server.pid, signal.SIGHUP)
    time.sleep(0.2)
    with Client(server) as client:
        assert client.get("/v2/").status == 200


# ---- Starts that must fail ----

def refused(tmp_path, *arguments):
    return run("serve", "--data", tmp_path, "--listen", "127.0.0.1:0", *arguments)


def test_a_certificate_without_key_is_refused(tmp_path, certificates):
    result = refused(tmp_path, "--tls-certificate", certificates / "server.pem")
    assert result.returncode == 2
    assert "tls.key" in result.stderr


def test_a_key_without_certificate_is_refused(tmp_path, certificates):
    result = refused(tmp_path, "--tls-key", certificates / "server-key.pem")
    assert result.returncode == 2
    assert "tls.certificate" in result.stderr


@pytest.mark.parametrize("content", [None, "", "garbage\n"], ids=["missing", "empty", "garbage"])
def test_a_certificate_file_that_cannot_be_used_is_named(tmp_path, certificates, content):
    file = tmp_path / "broken.pem"
    if content is not None:
        file.write_text(content)
    result = refused(tmp_path, "--tls-certificate", file, "--tls-key",
                     certificates / "server-key.pem")
    assert result.returncode in (1, 2)
    assert "broken.pem" in result.stderr


def test_a_key_of_another_certificate_is_refused(tmp_path, certificates):
    result = refused(tmp_path, "--tls-certificate", certificates / "server.pem", "--tls-key",
                     certificates / "other-key.pem")
    assert result.returncode in (1, 2)
    assert "key" in result.stderr


def test_client_auth_without_a_ca_is_refused(tmp_path, certificates):
    result = refused(tmp_path, *flags(certificates), "--tls-client-auth", "required")
    assert result.returncode == 2
    assert "tls.client_ca" in result.stderr


# ---- Client certificates ----

@pytest.fixture
def asking(make_server, certificates):
    def make(mode, *more):
        return make_server(*flags(certificates), "--tls-client-ca", certificates / "ca.pem",
                           "--tls-client-auth", mode, *more, scheme="https",
                           ca=str(certificates / "server.pem"))
    return make


def with_certificate(server, folder, name):
    context = context_for(server)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}-key.pem")
    return Client(server, context=context)


def refuses(client):
    """Whether no request can be made: the handshake fails, or the answer is 401 or 403."""
    try:
        return client.get("/v2/").status in (401, 403)
    except (ssl.SSLError, ConnectionError):
        return True
    finally:
        client.close()


def test_required_serves_a_client_with_a_certificate_of_the_ca(asking, certificates):
    with with_certificate(asking("required"), certificates, "member") as client:
        assert client.get("/v2/").status == 200


def test_required_refuses_a_client_without_a_certificate(asking):
    server = asking("required")
    assert refuses(Client(server))


@pytest.mark.parametrize("mode", ["required", "optional"])
def test_a_certificate_of_the_ca_may_push_where_anonymous_clients_may_not(asking, certificates,
                                                                          mode):
    server = asking(mode, "--access-anonymous", "none")
    with with_certificate(server, certificates, "member") as client:
        push_image(client, "app", make_image(), "v1")
        assert pull_image(client, "app", "v1")
    assert refuses(Client(server))


@pytest.mark.parametrize("mode", ["required", "optional"])
def test_a_certificate_of_another_ca_proves_nothing(asking, certificates, mode):
    server = asking(mode, "--access-anonymous", "none")
    assert refuses(with_certificate(server, certificates, "stranger"))


def test_optional_serves_clients_with_and_without_a_certificate(asking, certificates):
    server = asking("optional")
    with with_certificate(server, certificates, "member") as client:
        assert client.get("/v2/").status == 200
    with Client(server) as client:
        assert client.get("/v2/").status == 200
