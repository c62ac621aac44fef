/* TLS with certificates made by openssl(1), over a GnuTLS client. */
#include "http/test_support.h"

#include <fcntl.h>
#include <gnutls/x509.h>
#include <sys/stat.h>

#define HOST "Host: registry.example\r\n"
#define STOP_US (10 * CLOCK_SECOND_US)

/* static: a file in the test's folder; eight may be in use at a time. */
static const char *path_of(const char *name)
{
    static char paths[8][200];
    static size_t next;
    next = (next + 1) % ARRAY_SIZE(paths);
    (void)snprintf(paths[next], sizeof(paths[next]), "%s/%s", test_folder(), name);
    return paths[next];
}

static void openssl(const char *const *argv)
{
    if (test_run(path_of("output"), argv) != 0)
        fail_msg("openssl %s failed", argv[1]);
}

/* A self-signed certificate that may also sign others: <name>.pem and <name>.key. */
static void make_ca(const char *name, const char *algorithm)
{
    char certificate[100];
    char key[100];
    char subject[100];
    (void)snprintf(certificate, sizeof(certificate), "%s.pem", name);
    (void)snprintf(key, sizeof(key), "%s.key", name);
    (void)snprintf(subject, sizeof(subject), "/CN=%s", name);
    const char *const argv[] = {"openssl",
                                "req",
                                "-x509",
                                "-newkey",
                                algorithm,
                                "-pkeyopt",
                                strcmp(algorithm, "ec") == 0 ? "ec_paramgen_curve:prime256v1"
                                                             : "rsa_keygen_bits:2048",
                                "-nodes",
                                "-keyout",
                                path_of(key),
                                "-out",
                                path_of(certificate),
                                "-days",
                                "2",
                                "-subj",
                                subject,
                                "-addext",
                                "subjectAltName=DNS:registry.example",
                                NULL};
    openssl(argv);
}

/* A client's certificate that the CA signed: <name>.pem and <name>.key. */
static void make_client(const char *name, const char *ca, const char *usage)
{
    char text[100];
    char file[100];
    (void)snprintf(file, sizeof(file), "%s.ext", name);
    FILE *extensions = fopen(path_of(file), "we");
    assert_non_null(extensions);
    (void)fprintf(extensions, "extendedKeyUsage=%s\n", usage);
    (void)fclose(extensions);

    (void)snprintf(text, sizeof(text), "/CN=%s", name);
    (void)snprintf(file, sizeof(file), "%s.key", name);
    const char *key = path_of(file);
    (void)snprintf(file, sizeof(file), "%s.csr", name);
    const char *request = path_of(file);
    const char *const ask[] = {"openssl",
                               "req",
                               "-new",
                               "-newkey",
                               "ec",
                               "-pkeyopt",
                               "ec_paramgen_curve:prime256v1",
                               "-nodes",
                               "-keyout",
                               key,
                               "-out",
                               request,
                               "-subj",
                               text,
                               NULL};
    openssl(ask);
    (void)snprintf(file, sizeof(file), "%s.pem", name);
    const char *certificate = path_of(file);
    (void)snprintf(file, sizeof(file), "%s.ext", name);
    const char *extension_file = path_of(file);
    (void)snprintf(file, sizeof(file), "%s.pem", ca);
    const char *ca_certificate = path_of(file);
    (void)snprintf(file, sizeof(file), "%s.key", ca);
    const char *const sign[] = {"openssl", "x509",         "-req",   "-in",         request,
                                "-CA",     ca_certificate, "-CAkey", path_of(file), "-set_serial",
                                "7",       "-days",        "2",      "-extfile",    extension_file,
                                "-out",    certificate,    NULL};
    openssl(sign);
}

static void copy_file(const char *from, const char *to)
{
    gnutls_datum_t data;
    assert_int_equal(gnutls_load_file(path_of(from), &data), 0);
    /* As tools do it: a new file takes the name over. */
    auto_fd fd = open(path_of("new"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, data.data, data.size), data.size);
    assert_int_equal(rename(path_of("new"), path_of(to)), 0);
    gnutls_free(data.data);
}

static int make_certificates(void **state)
{
    (void)state;
    make_ca("one", "ec");
    make_ca("two", "rsa");
    make_ca("clients", "ec");
    make_client("alice", "clients", "clientAuth");
    make_client("mallory", "two", "clientAuth");
    make_client("server", "clients", "serverAuth");
    copy_file("one.pem", "live.pem");
    copy_file("one.key", "live.key");
    return 0;
}

static void prepare(struct test_server *server)
{
    test_prepare(server);
    server->options.certificate_file = path_of("live.pem");
    server->options.key_file = path_of("live.key");
}

struct handshake {
    const char *priorities; /* NULL: "NORMAL" */
    const char *client;     /* name of the client's certificate, or NULL */
};

/* Returns the handshake's result; on success the client can be used. */
static int connect_tls(const struct test_server *server, struct handshake how,
                       struct client *ret_client)
{
    struct client client = client_open(server);
    const char *priorities = how.priorities != NULL ? how.priorities : "NORMAL";
    assert_int_equal(gnutls_init(&client.session, GNUTLS_CLIENT | GNUTLS_FORCE_CLIENT_CERT), 0);
    assert_int_equal(gnutls_certificate_allocate_credentials(&client.credentials), 0);
    if (how.client != NULL) {
        char certificate[100];
        char key[100];
        (void)snprintf(certificate, sizeof(certificate), "%s.pem", how.client);
        (void)snprintf(key, sizeof(key), "%s.key", how.client);
        assert_int_equal(gnutls_certificate_set_x509_key_file(client.credentials,
                                                              path_of(certificate), path_of(key),
                                                              GNUTLS_X509_FMT_PEM),
                         0);
    }
    assert_int_equal(gnutls_priority_set_direct(client.session, priorities, NULL), 0);
    assert_int_equal(
        gnutls_credentials_set(client.session, GNUTLS_CRD_CERTIFICATE, client.credentials), 0);
    char h2[] = "h2";
    char http[] = "http/1.1";
    const gnutls_datum_t protocols[] = {{(unsigned char *)h2, 2}, {(unsigned char *)http, 8}};
    assert_int_equal(gnutls_alpn_set_protocols(client.session, protocols, 2, 0), 0);
    gnutls_transport_set_int(client.session, client.fd);
    int code;
    do
        code = gnutls_handshake(client.session);
    while (code < 0 && gnutls_error_is_fatal(code) == 0);
    if (code < 0)
        client_close(&client);
    else
        *ret_client = client;
    return code;
}

/* Whether the connection was made with the certificate of that name. */
static bool has_certificate(const struct client *client, const char *name)
{
    char file[100];
    gnutls_datum_t pem;
    gnutls_x509_crt_t certificate;
    unsigned n = 0;
    (void)snprintf(file, sizeof(file), "%s.pem", name);
    assert_int_equal(gnutls_load_file(path_of(file), &pem), 0);
    assert_int_equal(gnutls_x509_crt_init(&certificate), 0);
    assert_int_equal(gnutls_x509_crt_import(certificate, &pem, GNUTLS_X509_FMT_PEM), 0);
    const gnutls_datum_t *peers = gnutls_certificate_get_peers(client->session, &n);
    assert_true(peers != NULL && n > 0);
    bool same = gnutls_x509_crt_equals2(certificate, peers) != 0;
    gnutls_x509_crt_deinit(certificate);
    gnutls_free(pem.data);
    return same;
}

static void versions_and_protocols_are_negotiated(void **state)
{
    (void)state;
    struct test_server server;
    prepare(&server);
    test_start(&server);
    static const struct {
        const char *priorities;
        bool accepted;
    } rows[] = {
        {"NORMAL:-VERS-ALL:+VERS-TLS1.3", true},
        {"NORMAL:-VERS-ALL:+VERS-TLS1.2", true},
        {"NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-CBC", false},
        {"NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+RSA", false},
        {"NORMAL:-VERS-ALL:+VERS-TLS1.1", false},
        {"NORMAL:-VERS-ALL:+VERS-TLS1.0", false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct client client;
        int code =
            connect_tls(&server, (struct handshake){.priorities = rows[i].priorities}, &client);
        if ((code == 0) != rows[i].accepted)
            fail_msg("%s: %s", rows[i].priorities, gnutls_strerror(code));
        if (code < 0)
            continue;
        gnutls_datum_t protocol;
        assert_int_equal(gnutls_alpn_get_selected_protocol(client.session, &protocol), 0);
        assert_true(str_eq((struct str){(char *)protocol.data, protocol.size}, STR("http/1.1")));
        client_expect(&client, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
        assert_true(client_say(&client, "GET /origin HTTP/1.1\r\n" HOST "\r\n"));
        struct answer answer = client_answer(&client, false);
        assert_string_equal(answer.body, "https|registry.example|127.0.0.1");
        answer_free(&answer);
        client_close(&client);
    }
    /* Plain HTTP on the TLS port ends the connection, and nothing else. */
    struct client plain = client_open(&server);
    assert_true(client_say(&plain, "GET /hello HTTP/1.1\r\n" HOST "\r\n"));
    assert_true(client_ended(&plain, 5 * CLOCK_SECOND_US));
    client_close(&plain);
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

static void content_is_the_same_as_without(void **state)
{
    (void)state;
    const size_t n = 3000000;
    auto_mem char *expected = mem_alloc(n);
    struct test_server server;
    prepare(&server);
    server.app.file = test_file("content", n);
    assert_int_equal(pread(server.app.file, expected, n, 0), n);
    test_start(&server);
    struct client client;
    assert_int_equal(connect_tls(&server, (struct handshake){0}, &client), 0);
    static const struct {
        size_t offset;
        size_t size;
    } parts[] = {{0, 3000000}, {1, 2999999}, {65535, 131073}, {2999999, 1}, {7, 0}};
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        assert_true(client_printf(&client, "GET /file?offset=%zu&size=%zu HTTP/1.1\r\n" HOST "\r\n",
                                  parts[i].offset, parts[i].size));
        struct answer answer = client_answer(&client, false);
        assert_int_equal(answer.body_bytes, parts[i].size);
        assert_memory_equal(answer.body, expected + parts[i].offset, parts[i].size);
        answer_free(&answer);
    }
    assert_true(client_say(&client, "HEAD /file HTTP/1.1\r\n" HOST "\r\n"));
    struct answer answer = client_answer(&client, true);
    assert_string_equal(answer_header(&answer, "Content-Length"), "3000000");
    answer_free(&answer);

    assert_true(
        client_printf(&client, "PUT /echo HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n", n));
    assert_true(client_send(&client, expected, n));
    answer = client_answer(&client, false);
    assert_int_equal(answer.body_bytes, n);
    assert_memory_equal(answer.body, expected, n);
    answer_free(&answer);
    client_expect(&client, "GET /wait?ms=20 HTTP/1.1\r\n" HOST "\r\n", 200);
    client_close(&client);
    assert_int_equal(test_stop(&server, STOP_US), 0);
    (void)close(server.app.file);
}

/* A file that is shorter than was promised: the answer breaks, and says nothing wrong. */
static void a_short_file_breaks_the_answer(void **state)
{
    (void)state;
    struct test_server server;
    prepare(&server);
    server.app.file = test_file("short", 100000);
    test_start(&server);
    struct client client;
    assert_int_equal(connect_tls(&server, (struct handshake){0}, &client), 0);
    assert_true(client_say(&client, "GET /file?size=100001 HTTP/1.1\r\n" HOST "\r\n"));
    struct answer answer = client_answer(&client, false);
    assert_true(answer.cut);
    answer_free(&answer);
    client_close(&client);
    assert_int_equal(test_stop(&server, STOP_US), 0);
    assert_int_equal(atomic_load(&server.app.complete), 0);
    (void)close(server.app.file);
}

static void refusals_are_heard_through_tls(void **state)
{
    (void)state;
    const size_t total = (size_t)40 << 20;
    auto_mem char *block = mem_zalloc(1 << 20);
    struct test_server server;
    prepare(&server);
    test_start(&server);
    for (int i = 0; i < 2; i++) {
        struct client client;
        assert_int_equal(connect_tls(&server, (struct handshake){0}, &client), 0);
        assert_true(client_printf(&client, "PUT %s HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n",
                                  i == 0 ? "/refuse" : "/refuse-body", total));
        for (size_t at = 0; at < total; at += 1 << 20)
            assert_true(client_send(&client, block, 1 << 20));
        struct answer answer = client_answer(&client, false);
        assert_int_equal(answer.status, i == 0 ? 401 : 413);
        assert_true(answer.body_bytes > 0 && !answer.cut);
        answer_free(&answer);
        client_close(&client);
    }
    assert_int_equal(test_stop(&server, STOP_US), 0);
    assert_int_equal(atomic_load(&server.app.complete), 2);
}

static void check_stream(const struct answer *answer, size_t size)
{
    assert_int_equal(answer->status, 200);
    assert_int_equal(answer->body_bytes, size);
    for (size_t i = 0; i < size; i++)
        assert_int_equal((unsigned char)answer->body[i], test_byte(i));
}

static void workers_and_streams_do_the_same_as_without(void **state)
{
    (void)state;
    const size_t n = 3000000;
    auto_mem unsigned char *bytes = mem_alloc(n);
    for (size_t i = 0; i < n; i++)
        bytes[i] = test_byte(i);
    char expected[64];
    test_digest(bytes, n, expected);
    struct test_server server;
    prepare(&server);
    test_start(&server);
    struct client client;
    assert_int_equal(connect_tls(&server, (struct handshake){0}, &client), 0);
    static const char *const ways[] = {"size=3000000", "size=3000000&piece=3001&far=1",
                                       "size=300000&piece=30000&us=2000"};
    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        assert_true(client_printf(
            &client, "PUT /far?block_us=%zu HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n",
            i * 5000, n));
        assert_true(client_send(&client, bytes, n));
        struct answer answer = client_answer(&client, false);
        assert_string_equal(answer.body, expected);
        answer_free(&answer);
        assert_true(client_printf(&client, "GET /stream?%s HTTP/1.1\r\n" HOST "\r\n", ways[i]));
        answer = client_answer(&client, false);
        check_stream(&answer, i < 2 ? n : 300000);
        answer_free(&answer);
        assert_true(client_printf(&client, "HEAD /stream?%s HTTP/1.1\r\n" HOST "\r\n", ways[i]));
        answer = client_answer(&client, true);
        assert_int_equal(answer.status, 200);
        answer_free(&answer);
    }
    assert_true(client_say(&client, "PUT /far?refuse=start HTTP/1.1\r\n" HOST
                                    "Expect: 100-continue\r\nContent-Length: 9999\r\n\r\n"));
    struct answer answer = client_answer(&client, false);
    assert_int_equal(answer.status, 401);
    answer_free(&answer);
    client_close(&client);

    static const char *const broken[] = {"fails=0", "ends=1500000&piece=10000",
                                         "fails=150000&piece=10000&us=1000"};
    for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
        assert_int_equal(connect_tls(&server, (struct handshake){0}, &client), 0);
        assert_true(client_printf(&client, "GET /stream?size=3000000&%s HTTP/1.1\r\n" HOST "\r\n",
                                  broken[i]));
        answer = client_answer(&client, false);
        assert_true(answer.cut || answer.status == 0);
        answer_free(&answer);
        client_close(&client);
    }
    /* Left while the source is silent, and while it is not. */
    static const char *const left[] = {"makes=1000", "piece=1000&us=1000", "us=0"};
    for (size_t i = 0; i < ARRAY_SIZE(left); i++) {
        assert_int_equal(connect_tls(&server, (struct handshake){0}, &client), 0);
        assert_true(client_printf(&client, "GET /stream?size=67108864&%s HTTP/1.1\r\n" HOST "\r\n",
                                  left[i]));
        client_close(&client);
    }
    test_sleep_us(CLOCK_SECOND_US / 4);
    assert_in_range(test_stop(&server, CLOCK_SECOND_US / 4), 0, 1);
    assert_int_equal(atomic_load(&server.app.complete), 3 * ARRAY_SIZE(ways) + 1);
}

static void certificates_are_exchanged_while_running(void **state)
{
    (void)state;
    struct test_server server;
    struct err err = {0};
    copy_file("one.pem", "live.pem");
    copy_file("one.key", "live.key");
    prepare(&server);
    test_start(&server);
    assert_false(http_certificate_changed(server.server));
    struct client old;
    struct client fresh;
    assert_int_equal(connect_tls(&server, (struct handshake){0}, &old), 0);
    assert_true(has_certificate(&old, "one"));

    /* Half of it: the key does not fit, the old pair stays. */
    copy_file("two.pem", "live.pem");
    assert_true(http_certificate_changed(server.server));
    assert_int_equal(http_reload_certificate(server.server, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
    assert_non_null(strstr(err.say, path_of("live.pem")));
    assert_non_null(strstr(err.say, path_of("live.key")));
    assert_int_equal(connect_tls(&server, (struct handshake){0}, &fresh), 0);
    assert_true(has_certificate(&fresh, "one"));
    client_close(&fresh);

    copy_file("two.key", "live.key");
    assert_true(http_certificate_changed(server.server));
    assert_int_equal(http_reload_certificate(server.server, &err), 0);
    assert_false(http_certificate_changed(server.server));
    assert_int_equal(connect_tls(&server, (struct handshake){0}, &fresh), 0);
    assert_true(has_certificate(&fresh, "two"));
    client_expect(&fresh, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
    client_expect(&old, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
    client_close(&fresh);
    client_close(&old);

    /* A file that is missing for a moment is not a change; reading it is an error. */
    assert_int_equal(unlink(path_of("live.key")), 0);
    assert_false(http_certificate_changed(server.server));
    assert_int_equal(http_reload_certificate(server.server, &err), -1);
    assert_int_equal(err.kind, ERR_IO);
    assert_non_null(strstr(err.say, path_of("live.key")));
    copy_file("two.key", "live.key");
    assert_int_equal(test_stop(&server, STOP_US), 0);
    copy_file("one.pem", "live.pem");
    copy_file("one.key", "live.key");
}

static void bad_files_are_named_at_start(void **state)
{
    (void)state;
    static const struct {
        const char *certificate;
        const char *key;
        const char *ca;
        enum err_kind kind;
        const char *named;
    } rows[] = {
        {"absent.pem", "live.key", NULL, ERR_IO, "absent.pem"},
        {"live.pem", "absent.key", NULL, ERR_IO, "absent.key"},
        {"live.pem", "two.key", NULL, ERR_INVALID, "two.key"},
        {"live.key", "live.key", NULL, ERR_INVALID, "live.key"},
        {"live.pem", "live.pem", NULL, ERR_INVALID, "live.pem"},
        {"live.pem", "live.key", "absent-ca.pem", ERR_IO, "absent-ca.pem"},
        {"live.pem", "live.key", "alice.key", ERR_INVALID, "alice.key"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct test_server server;
        struct err err = {0};
        test_prepare(&server);
        server.options.certificate_file = path_of(rows[i].certificate);
        server.options.key_file = path_of(rows[i].key);
        server.options.client_ca_file = rows[i].ca != NULL ? path_of(rows[i].ca) : NULL;
        server.options.metrics = server.metrics;
        server.options.app = &server.app.app;
        assert_int_equal(http_start(&server.options, &server.server, &err), -1);
        if (err.kind != rows[i].kind || strstr(err.say, path_of(rows[i].named)) == NULL)
            fail_msg("row %zu: %s", i, err.say);
        metrics_free(server.metrics);
    }
}

static void client_certificates_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *client;
        bool certified;
    } rows[] = {{NULL, false}, {"alice", true}, {"mallory", false}, {"server", false}};
    static const char *const versions[] = {"NORMAL:-VERS-ALL:+VERS-TLS1.3",
                                           "NORMAL:-VERS-ALL:+VERS-TLS1.2"};
    struct test_server server;
    prepare(&server);
    server.options.client_ca_file = path_of("clients.pem");
    test_start(&server);
    for (size_t v = 0; v < ARRAY_SIZE(versions); v++)
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
            struct client client;
            atomic_store(&server.app.certified, 0);
            assert_int_equal(
                connect_tls(&server,
                            (struct handshake){.priorities = versions[v], .client = rows[i].client},
                            &client),
                0);
            client_expect(&client, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
            client_expect(&client, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
            if (atomic_load(&server.app.certified) != (rows[i].certified ? 2U : 0U))
                fail_msg("row %zu, %s", i, versions[v]);
            client_close(&client);
        }
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

static void a_handshake_must_end_in_time(void **state)
{
    (void)state;
    struct test_server server;
    prepare(&server);
    server.options.header_us = CLOCK_SECOND_US / 4;
    test_start(&server);
    struct client client = client_open(&server);
    assert_true(client_send(&client, "\x16\x03\x01", 3));
    assert_true(client_ended(&client, 5 * CLOCK_SECOND_US));
    client_close(&client);
    assert_int_equal(connect_tls(&server, (struct handshake){0}, &client), 0);
    assert_true(client_ended(&client, 5 * CLOCK_SECOND_US));
    client_close(&client);
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

int main(void)
{
    const char *const version[] = {"openssl", "version", NULL};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(versions_and_protocols_are_negotiated),
        cmocka_unit_test(content_is_the_same_as_without),
        cmocka_unit_test(a_short_file_breaks_the_answer),
        cmocka_unit_test(refusals_are_heard_through_tls),
        cmocka_unit_test(workers_and_streams_do_the_same_as_without),
        cmocka_unit_test(certificates_are_exchanged_while_running),
        cmocka_unit_test(bad_files_are_named_at_start),
        cmocka_unit_test(client_certificates_are_checked),
        cmocka_unit_test(a_handshake_must_end_in_time),
    };
    if (test_run("/dev/null", version) != 0)
        return 77; /* meson: skipped */
    return cmocka_run_group_tests(tests, make_certificates, NULL);
}
