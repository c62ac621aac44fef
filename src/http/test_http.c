/* Requests and answers over real sockets. */
#include "http/test_support.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>

#define HOST "Host: registry.example\r\n"

static int start_server(void **state)
{
    static struct test_server server;
    test_prepare(&server);
    server.app.file = test_file("file", 3000000);
    test_start(&server);
    *state = &server;
    return 0;
}

static int stop_server(void **state)
{
    struct test_server *server = *state;
    int file = server->app.file;
    (void)test_stop(server, 5 * CLOCK_SECOND_US);
    return close(file);
}

/* One request on a connection of its own; the answer's body must be `body` unless that is NULL. */
static void check_one(const struct test_server *server, const char *request, unsigned status,
                      const char *body)
{
    struct client client = client_open(server);
    assert_true(client_say(&client, request));
    struct answer answer = client_answer(&client, strncmp(request, "HEAD ", 5) == 0);
    if (answer.status != status)
        fail_msg("status %u instead of %u for %.300s: %s", answer.status, status, request,
                 answer.body);
    if (body != NULL)
        assert_string_equal(answer.body, body);
    answer_free(&answer);
    client_close(&client);
}

static void connections_are_kept_and_requests_pipelined(void **state)
{
    struct client client = client_open(*state);
    for (int i = 0; i < 3; i++)
        client_expect(&client, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
    assert_true(client_say(&client, "GET /target?1 HTTP/1.1\r\n" HOST "\r\n"
                                    "PUT /length HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc"
                                    "GET /wait?ms=20 HTTP/1.1\r\n" HOST "\r\n"
                                    "HEAD /hello HTTP/1.1\r\n" HOST "\r\n"
                                    "GET /target?2 HTTP/1.1\r\n" HOST "\r\n"));
    static const char *const bodies[] = {"0 GET|/target|1", "3", "0", "", "0 GET|/target|2"};
    for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
        struct answer answer = client_answer(&client, i == 3);
        assert_int_equal(answer.status, 200);
        assert_string_equal(answer.body, bodies[i]);
        answer_free(&answer);
    }
    client_close(&client);
}

static void old_clients_are_served(void **state)
{
    struct client client = client_open(*state);
    client_expect(&client, "GET /hello HTTP/1.0\r\n\r\n", 200);
    assert_true(client_ended(&client, 5 * CLOCK_SECOND_US));
    client_close(&client);
    client = client_open(*state);
    client_expect(&client, "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200);
    client_expect(&client, "GET /hello HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", 200);
    assert_true(client_ended(&client, 5 * CLOCK_SECOND_US));
    client_close(&client);
}

static void targets_arrive_as_they_were_sent(void **state)
{
    check_one(*state, "GET /a%2Fb//c/../%zz?x=%41&y=a+b HTTP/1.1\r\n" HOST "\r\n", 200, "hello\n");
    static const struct {
        const char *target;
        const char *body;
    } rows[] = {
        {"/target?a=%2F%2f&b", "0 GET|/target|a=%2F%2f&b"},
        {"/target?", "0 GET|/target|"},
        {"/target?a?b", "0 GET|/target|a?b"},
        {"http://registry.example/target?q", "0 GET|/target|q"},
        {"HTTPS://other.example:5000/target", "0 GET|/target|"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char request[300];
        (void)snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\n" HOST "\r\n", rows[i].target);
        check_one(*state, request, 200, rows[i].body);
    }
    static const char *const methods[] = {"GET",   "HEAD",   "POST",    "PUT",
                                          "PATCH", "DELETE", "OPTIONS", "get"};
    for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
        char request[300];
        char body[100];
        (void)snprintf(request, sizeof(request),
                       "%s /target HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n", methods[i]);
        (void)snprintf(body, sizeof(body), "%zu %s|/target|", i < 6 ? i : 6, methods[i]);
        check_one(*state, request, 200, i == HTTP_HEAD ? "" : body);
    }
}

/* More parameters than the library has memory to remember. */
static void a_query_of_many_parameters_is_answered(void **state)
{
    struct client client = client_open(*state);
    char request[9000] = "GET /hello?";
    size_t n = strlen(request);
    memset(request + n, '&', 8000);
    memcpy(request + n + 8000, " HTTP/1.1\r\n" HOST "\r\n", sizeof(" HTTP/1.1\r\n" HOST "\r\n"));
    client_expect(&client, request, 200);
    client_expect(&client, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
    client_close(&client);
}

static void bodies_arrive_whole(void **state)
{
    const size_t n = 3000000;
    auto_mem char *bytes = mem_alloc(n + 1);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (char)('a' + i % 1021 % 26);
    bytes[n] = '\0';
    struct client client = client_open(*state);

    assert_true(
        client_printf(&client, "PUT /echo HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n", n));
    assert_true(client_send(&client, bytes, n));
    struct answer answer = client_answer(&client, false);
    assert_int_equal(answer.status, 200);
    assert_int_equal(answer.body_bytes, n);
    assert_memory_equal(answer.body, bytes, n);
    answer_free(&answer);

    /* Chunks of growing size, with an extension and a trailer. */
    assert_true(
        client_say(&client, "PATCH /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"));
    for (size_t at = 0, size = 1; at < n; at += size, size = size * 3 % 90001 + 1) {
        if (size > n - at)
            size = n - at;
        assert_true(client_printf(&client, "%zX;name=\"v\"\r\n", size));
        assert_true(client_send(&client, bytes + at, size));
        assert_true(client_say(&client, "\r\n"));
    }
    assert_true(client_say(&client, "0\r\nX-Trailer: 1\r\n\r\n"));
    answer = client_answer(&client, false);
    assert_int_equal(answer.status, 200);
    assert_int_equal(answer.body_bytes, n);
    assert_memory_equal(answer.body, bytes, n);
    answer_free(&answer);

    /* containerd sends an empty body this way. */
    assert_true(client_say(&client, "PUT /wait HTTP/1.1\r\n" HOST
                                    "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"));
    answer = client_answer(&client, false);
    assert_string_equal(answer.body, "0");
    answer_free(&answer);
    client_expect(&client, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
    client_close(&client);
}

static void answers_without_body_have_the_right_length(void **state)
{
    struct client client = client_open(*state);
    assert_true(client_say(&client, "HEAD /size?size=123456789012 HTTP/1.1\r\n" HOST "\r\n"));
    struct answer answer = client_answer(&client, true);
    assert_int_equal(answer.status, 200);
    assert_string_equal(answer_header(&answer, "Content-Length"), "123456789012");
    assert_string_equal(answer_header(&answer, "X-Test"), "yes");
    assert_non_null(answer_header(&answer, "Date"));
    answer_free(&answer);

    assert_true(client_say(&client, "HEAD /file HTTP/1.1\r\n" HOST "\r\n"));
    answer = client_answer(&client, true);
    assert_string_equal(answer_header(&answer, "Content-Length"), "3000000");
    answer_free(&answer);

    assert_true(client_say(&client, "DELETE /empty HTTP/1.1\r\n" HOST "\r\n"));
    answer = client_answer(&client, false);
    assert_int_equal(answer.status, 204);
    assert_null(answer_header(&answer, "Content-Length"));
    assert_null(answer_header(&answer, "Transfer-Encoding"));
    answer_free(&answer);

    assert_true(client_say(&client, "GET /same HTTP/1.1\r\n" HOST "\r\n"));
    answer = client_answer(&client, false);
    assert_int_equal(answer.status, 304);
    assert_string_equal(answer_header(&answer, "Content-Length"), "1234");
    answer_free(&answer);
    client_expect(&client, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
    client_close(&client);
}

static void files_are_sent_in_parts(void **state)
{
    const struct test_server *server = *state;
    static const struct {
        size_t offset;
        size_t size;
    } rows[] = {{0, 3000000}, {1, 2999999}, {2999999, 1}, {70000, 200001}, {500, 0}};
    auto_mem char *expected = mem_alloc(3000000);
    assert_int_equal(pread(server->app.file, expected, 3000000, 0), 3000000);
    struct client client = client_open(server);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_true(client_printf(&client, "GET /file?offset=%zu&size=%zu HTTP/1.1\r\n" HOST "\r\n",
                                  rows[i].offset, rows[i].size));
        struct answer answer = client_answer(&client, false);
        assert_int_equal(answer.status, 200);
        assert_int_equal(answer.body_bytes, rows[i].size);
        assert_memory_equal(answer.body, expected + rows[i].offset, rows[i].size);
        answer_free(&answer);
    }
    client_close(&client);
}

static void headers_are_found(void **state)
{
    static const struct {
        const char *headers;
        const char *body;
    } rows[] = {
        {"", "absent||"},
        {"X-Name: a\r\n", "there|a|a"},
        {"x-nAMe:   a b \t\r\n", "there|a b|a b"},
        {"X-Name:\r\n", "there||"},
        {"X-Name: a\r\nX-Other: c\r\nx-name: b, c\r\n", "there|a|a, b, c"},
        {"Cookie: X-Name=a; b=c\r\n", "absent||"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char request[300];
        (void)snprintf(request, sizeof(request),
                       "GET /header?name=X-Name HTTP/1.1\r\n" HOST "%s\r\n", rows[i].headers);
        check_one(*state, request, 200, rows[i].body);
    }
}

/* The addresses and elements are those of RFC 7239, sections 4 to 7. */
static void origins_are_found(void **state)
{
    static const struct {
        const char *headers;
        const char *body;
    } rows[] = {
        {"Host: r.example:5000\r\n", "http|r.example:5000|127.0.0.1"},
        {"Host: [2001:db8::1]:80\r\n", "http|[2001:db8::1]:80|127.0.0.1"},
        {"Host: r.example\r\nForwarded: for=192.0.2.43;proto=https;host=pub.example\r\n",
         "https|pub.example|192.0.2.43"},
        {"Host: r\r\nForwarded: For=\"[2001:db8:cafe::17]:4711\"\r\n", "http|r|2001:db8:cafe::17"},
        {"Host: r\r\nForwarded: for=192.0.2.43, for=198.51.100.17;proto=https\r\n",
         "http|r|192.0.2.43"},
        {"Host: r\r\nForwarded: for=192.0.2.43\r\nForwarded: for=198.51.100.17\r\n",
         "http|r|192.0.2.43"},
        {"Host: r\r\nForwarded: for=\"_gazonk\"\r\n", "http|r|127.0.0.1"},
        {"Host: r\r\nForwarded: for=unknown;proto=https\r\n", "https|r|127.0.0.1"},
        {"Host: r\r\nForwarded: for=192.0.2.60;proto=http;by=203.0.113.43\r\n",
         "http|r|192.0.2.60"},
        {"Host: r\r\nForwarded: proto=https;host=\"a.example:8443\";for=\"192.0.2.1:1\"\r\n",
         "https|a.example:8443|192.0.2.1"},
        {"Host: r\r\nForwarded: proto=\"ht\\tps\"\r\n", "https|r|127.0.0.1"},
        {"Host: r\r\nForwarded: proto=https;host\r\n", "http|r|127.0.0.1"},
        {"Host: r\r\nForwarded: proto=https;host=\"open\r\n", "http|r|127.0.0.1"},
        {"Host: r\r\nForwarded: host=evil.example/x\r\n", "http|r|127.0.0.1"},
        {"Host: r\r\nForwarded: proto=javascript\r\n", "http|r|127.0.0.1"},
        {"Host: r\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a.example, b\r\n"
         "X-Forwarded-For: 192.0.2.7, 10.0.0.1\r\n",
         "https|a.example|192.0.2.7"},
        {"Host: r\r\nX-Forwarded-For: 2001:db8::7\r\n", "http|r|2001:db8::7"},
        {"Host: r\r\nX-Forwarded-For: 1.2.3.4.5\r\nX-Forwarded-Host: a b\r\n", "http|r|127.0.0.1"},
        {"Host: r\r\nForwarded: proto=https\r\nX-Forwarded-Host: a.example\r\n",
         "https|r|127.0.0.1"},
        {"Host: user@evil.example\r\n", "http||127.0.0.1"},
        {"Host: a.example:99999\r\n", "http||127.0.0.1"},
        {"Host: a..example\r\n", "http||127.0.0.1"},
        {"Host: [::1\r\n", "http||127.0.0.1"},
        {"Host: [zz]\r\n", "http||127.0.0.1"},
        {"Host: a.example:\r\n", "http||127.0.0.1"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char request[500];
        (void)snprintf(request, sizeof(request), "GET /trusted HTTP/1.1\r\n%s\r\n",
                       rows[i].headers);
        check_one(*state, request, 200, rows[i].body);
    }
    check_one(*state,
              "GET /origin HTTP/1.1\r\nHost: r\r\nForwarded: proto=https;host=evil.example\r\n"
              "X-Forwarded-For: 192.0.2.7\r\n\r\n",
              200, "http|r|127.0.0.1");
}

/* RFC 9112: what could be read in two ways is refused, and the connection ends. */
static void ambiguous_heads_are_refused(void **state)
{
    static const struct {
        const char *request;
        unsigned status;
    } rows[] = {
        {"GET /hello HTTP/1.1\r\n\r\n", 400}, /* no Host */
        {"GET /hello HTTP/1.1\r\n" HOST HOST "\r\n", 400},
        {"POST /length HTTP/1.1\r\n" HOST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
         "0\r\n\r\n",
         400},
        {"POST /length HTTP/1.1\r\n" HOST "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
         400},
        {"POST /length HTTP/1.1\r\n" HOST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 200},
        {"POST /length HTTP/1.1\r\n" HOST "Content-Length: 3,3\r\n\r\nabc", 400},
        {"POST /length HTTP/1.1\r\n" HOST "Content-Length: -3\r\n\r\nabc", 400},
        {"POST /length HTTP/1.1\r\n" HOST "Content-Length: +3\r\n\r\nabc", 400},
        {"POST /length HTTP/1.1\r\n" HOST "Content-Length: 0x3\r\n\r\nabc", 400},
        {"POST /length HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\nabc", 400},
        {"POST /length HTTP/1.1\r\n" HOST "Content-Length: 9223372036854775808\r\n\r\nabc", 400},
        {"POST /length HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999\r\n\r\nabc", 413},
        {"POST /length HTTP/1.1\r\n" HOST "Content-Length : 3\r\n\r\nabc", 400},
        {"POST /length HTTP/1.1\r\n" HOST "Content-Len: x\r\n gth: 3\r\n\r\nabc", 400},
        {"POST /length HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
        {"POST /length HTTP/1.1\r\n" HOST "Transfer-Encoding: identity\r\n\r\n", 501},
        {"POST /length HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n"
         "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         501},
        {"POST /length HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
        {"POST /length HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400},
        {"POST /length HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400},
        {"POST /length HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", 400},
        {"POST /length HTTP/1.1\r\n" HOST
         "Transfer-Encoding: chunked\r\n\r\n11112222333344445\r\nabc\r\n",
         413},
        {"GET /hello HTTP/1.1\r\n" HOST "no colon here\r\n\r\n", 400},
        {"GET /hello HTTP/1.1\r\n" HOST ": no name\r\n\r\n", 400},
        {"GET /hello HTTP/1.1\r\n" HOST "X-A: \x01\r\n\r\n", 400},
        {"GET /hello HTTP/1.1\r\n" HOST "X-A: a\rb\r\n\r\n", 400},
        {"GET /hello HTTP/1.1\n" HOST "\r\n", 400},
        {"GET /hello HTTP/1.1\r\nHost: a\n\r\n", 400},
        {"GET  /hello HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /hel lo HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /hello\x7f HTTP/1.1\r\n" HOST "\r\n", 400},
        {"G@T /hello HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /hello HTTP/2.0\r\n" HOST "\r\n", 505},
        {"GET /hello FTP/1.1\r\n" HOST "\r\n", 400},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct client client = client_open(*state);
        assert_true(client_say(&client, rows[i].request));
        struct answer answer = client_answer(&client, false);
        if (answer.status != rows[i].status)
            fail_msg("%s: %u %s", rows[i].request, answer.status, answer.body);
        answer_free(&answer);
        if (rows[i].status != 200)
            assert_true(client_ended(&client, 5 * CLOCK_SECOND_US));
        client_close(&client);
    }
    /* A NUL in a header hides what follows from the library. */
    static const char hidden[] = "GET /hello HTTP/1.1\r\n" HOST "X: a\0b\r\n\r\n";
    struct client client = client_open(*state);
    assert_true(client_send(&client, hidden, sizeof(hidden) - 1));
    struct answer answer = client_answer(&client, false);
    assert_int_equal(answer.status, 400);
    answer_free(&answer);
    client_close(&client);
}

/* The request that a smuggler hides in the body of a refused one must not be answered. */
static void nothing_is_smuggled(void **state)
{
    struct client client = client_open(*state);
    assert_true(client_say(&client, "POST /length HTTP/1.1\r\n" HOST
                                    "Content-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n"
                                    "0\r\n\r\nGET /hello HTTP/1.1\r\n" HOST "\r\n"));
    struct answer answer = client_answer(&client, false);
    assert_int_equal(answer.status, 400);
    answer_free(&answer);
    answer = client_answer(&client, false);
    assert_int_equal(answer.status, 0);
    answer_free(&answer);
    client_close(&client);
}

static void heads_have_limits(void **state)
{
    static const struct {
        size_t target;
        size_t header;
        unsigned status;
    } rows[] = {
        {16 * 1024, 10, 200},        {16 * 1024 + 1, 10, 414}, {40 * 1024, 10, 414},
        {200 * 1024, 10, 414},       {10, 31 * 1024, 200},     {10, 33 * 1024, 431},
        {10, 50 * 1024, 431},        {10, 200 * 1024, 431},    {16 * 1024, 15 * 1024, 200},
        {16 * 1024, 20 * 1024, 431},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        auto_buf request = BUF_INIT(SIZE_MAX / 2);
        buf_printf(&request, "GET /hello?");
        while (request.n < rows[i].target + 4)
            buf_add_char(&request, 'q');
        buf_printf(&request, " HTTP/1.1\r\n" HOST "Authorization: ");
        for (size_t n = 0; n < rows[i].header; n++)
            buf_add_char(&request, 'h');
        buf_printf(&request, "\r\n\r\n");
        struct client client = client_open(*state);
        (void)client_send(&client, request.p, request.n); /* it may be refused half-way */
        struct answer answer = client_answer(&client, false);
        if (answer.status != rows[i].status)
            fail_msg("%zu %zu: %u", rows[i].target, rows[i].header, answer.status);
        answer_free(&answer);
        client_close(&client);
    }
    /* More headers than the library has memory for. */
    auto_buf request = BUF_INIT(SIZE_MAX / 2);
    buf_printf(&request, "GET /hello HTTP/1.1\r\n" HOST);
    for (int i = 0; i < 3000; i++)
        buf_printf(&request, "a: b\r\n");
    buf_printf(&request, "\r\n");
    struct client client = client_open(*state);
    (void)client_send(&client, request.p, request.n);
    struct answer answer = client_answer(&client, false);
    assert_int_equal(answer.status, 431);
    answer_free(&answer);
    client_close(&client);
}

static void a_client_that_waits_hears_100_or_the_refusal(void **state)
{
    struct client client = client_open(*state);
    assert_true(client_say(&client, "PUT /length HTTP/1.1\r\n" HOST
                                    "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"));
    struct answer answer = client_answer(&client, false);
    assert_int_equal(answer.status, 100);
    answer_free(&answer);
    client_expect(&client, "abc", 200);

    assert_true(client_say(&client, "PUT /refuse HTTP/1.1\r\n" HOST
                                    "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"));
    answer = client_answer(&client, false);
    assert_int_equal(answer.status, 401);
    answer_free(&answer);
    client_close(&client);
}

static void refused_bodies_are_read_and_the_connection_kept(void **state)
{
    const size_t n = 1000000;
    auto_mem char *bytes = mem_zalloc(n);
    struct client client = client_open(*state);
    static const char *const paths[] = {"/refuse", "/refuse-body", "/wait-refused"};
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        assert_true(client_printf(&client, "PUT %s HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n",
                                  paths[i], n));
        assert_true(client_send(&client, bytes, n));
        struct answer answer = client_answer(&client, false);
        assert_int_equal(answer.status, i == 1 ? 413 : 401);
        assert_string_equal(answer_header(&answer, "X-Test"), "yes");
        answer_free(&answer);
    }
    client_expect(&client, "GET /refuse HTTP/1.1\r\n" HOST "\r\n", 401);
    client_expect(&client, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
    client_close(&client);
}

struct load {
    const struct test_server *server;
    unsigned failed;
};

static void *run_load(void *arg)
{
    struct load *load = arg;
    struct client client = client_open(load->server);
    for (unsigned i = 0; i < 40; i++) {
        if (!client_printf(&client,
                           "POST /wait?ms=%u HTTP/1.1\r\n" HOST "Content-Length: 4\r\n\r\nabcd",
                           i % 3)) {
            load->failed++;
            break;
        }
        struct answer answer = client_answer(&client, false);
        load->failed += answer.status != 200 || strcmp(answer.body, "4") != 0;
        answer_free(&answer);
    }
    client_close(&client);
    return NULL;
}

static void workers_serve_many_connections(void **state)
{
    pthread_t threads[8];
    struct load loads[8];
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
        loads[i] = (struct load){.server = *state};
        assert_int_equal(pthread_create(&threads[i], NULL, run_load, &loads[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(loads[i].failed, 0);
    }
}

/* Clients that leave in the middle of everything; what they leave behind, the sanitizers see. */
static void clients_may_leave_at_any_point(void **state)
{
    struct test_server *server = *state;
    unsigned before = atomic_load(&server->app.begun);
    static const char *const halves[] = {
        "",
        "GET /hel",
        "GET /hello HTTP/1.1\r\nHost: a",
        "PUT /echo HTTP/1.1\r\n" HOST "Content-Length: 100\r\n\r\nabc",
        "PUT /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n10\r\nabc",
        "GET /file HTTP/1.1\r\n" HOST "\r\n",
        "GET /wait?ms=100 HTTP/1.1\r\n" HOST "\r\n",
        "PUT /refuse HTTP/1.1\r\n" HOST "Content-Length: 100\r\n\r\nabc",
    };
    for (int round = 0; round < 5; round++)
        for (size_t i = 0; i < ARRAY_SIZE(halves); i++) {
            struct client client = client_open(server);
            assert_true(client_say(&client, halves[i]));
            if (round % 2 == 1) { /* with a reset */
                struct linger hard = {.l_onoff = 1};
                assert_int_equal(setsockopt(client.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)),
                                 0);
            }
            if (round > 2)
                test_sleep_us(5000);
            client_close(&client);
        }
    assert_true(atomic_load(&server->app.begun) > before);
    check_one(server, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200, "hello\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections_are_kept_and_requests_pipelined),
        cmocka_unit_test(old_clients_are_served),
        cmocka_unit_test(targets_arrive_as_they_were_sent),
        cmocka_unit_test(a_query_of_many_parameters_is_answered),
        cmocka_unit_test(bodies_arrive_whole),
        cmocka_unit_test(answers_without_body_have_the_right_length),
        cmocka_unit_test(files_are_sent_in_parts),
        cmocka_unit_test(headers_are_found),
        cmocka_unit_test(origins_are_found),
        cmocka_unit_test(ambiguous_heads_are_refused),
        cmocka_unit_test(nothing_is_smuggled),
        cmocka_unit_test(heads_have_limits),
        cmocka_unit_test(a_client_that_waits_hears_100_or_the_refusal),
        cmocka_unit_test(refused_bodies_are_read_and_the_connection_kept),
        cmocka_unit_test(workers_serve_many_connections),
        cmocka_unit_test(clients_may_leave_at_any_point),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
