/* Exchanges whose callbacks run on workers: refusals, back-pressure, clients that leave, the end.
 */
#include "http/test_support.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#define HOST "Host: registry.example\r\n"
#define MS INT64_C(1000)
#define STOP_US (10 * CLOCK_SECOND_US)
#define MIB ((size_t)1 << 20)

/* What the body of an upload consists of. owned */
static char *content(size_t n)
{
    char *bytes = mem_alloc(n);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (char)test_byte(i);
    return bytes;
}

static void begin_upload(struct client *client, const char *query, size_t n)
{
    assert_true(client_printf(client, "PUT /far?%s HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n",
                              query, n));
}

/* Sends in chunks of growing size. False when the connection broke. */
static bool send_chunked(struct client *client, const char *bytes, size_t n)
{
    for (size_t at = 0, size = 1; at < n; at += size, size = size * 7 % 150001 + 1) {
        if (size > n - at)
            size = n - at;
        if (!client_printf(client, "%zX\r\n", size) || !client_send(client, bytes + at, size) ||
            !client_say(client, "\r\n"))
            return false;
    }
    return client_say(client, "0\r\n\r\n");
}

static void expect_answer(struct client *client, unsigned status, const char *body)
{
    struct answer answer = client_answer(client, false);
    if (answer.status != status || (body != NULL && strcmp(answer.body, body) != 0))
        fail_msg("%u \"%s\" instead of %u \"%s\"", answer.status, answer.body, status,
                 body != NULL ? body : "(any)");
    answer_free(&answer);
}

static bool is_silent(const struct client *client, int64_t us)
{
    struct pollfd polled = {.fd = client->fd, .events = POLLIN};
    return poll(&polled, 1, (int)(us / 1000)) == 0;
}

/* ---- Bodies ---- */

static void bodies_of_all_sizes_arrive(void **state)
{
    (void)state;
    static const size_t sizes[] = {0,      1,      65535,   65536,      65537,  262143,
                                   262144, 262145, 3000000, 2 * 262144, 600000, 3};
    struct test_server server;
    test_prepare(&server);
    test_start(&server);
    auto_mem char *bytes = content(3000000);
    struct client client = client_open(&server);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        char expected[64];
        test_digest(bytes, sizes[i], expected);
        begin_upload(&client, "", sizes[i]);
        assert_true(client_send(&client, bytes, sizes[i]));
        expect_answer(&client, 200, expected);
        assert_true(client_say(&client, "PATCH /far HTTP/1.1\r\n" HOST
                                        "Transfer-Encoding: chunked\r\n\r\n"));
        assert_true(send_chunked(&client, bytes, sizes[i]));
        expect_answer(&client, 200, expected);
    }
    client_close(&client);
    assert_int_equal(test_stop(&server, STOP_US), 0);
    assert_int_equal(atomic_load(&server.app.complete), 2 * ARRAY_SIZE(sizes));
}

static void requests_are_pipelined(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    test_start(&server);
    char three[64];
    char none[64];
    test_digest("abc", 3, three);
    test_digest("", 0, none);
    struct client client = client_open(&server);
    assert_true(client_say(&client, "GET /far HTTP/1.1\r\n" HOST "\r\n"
                                    "PUT /far HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc"
                                    "PUT /far HTTP/1.1\r\n" HOST
                                    "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
                                    "GET /far?refuse=end HTTP/1.1\r\n" HOST "\r\n"
                                    "GET /far?refuse=start HTTP/1.1\r\n" HOST "\r\n"
                                    "GET /hello HTTP/1.1\r\n" HOST "\r\n"));
    expect_answer(&client, 200, none);
    expect_answer(&client, 200, three);
    expect_answer(&client, 200, three);
    expect_answer(&client, 409, "no\n");
    expect_answer(&client, 401, "not you\n");
    expect_answer(&client, 200, "hello\n");
    client_close(&client);
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

struct load {
    const struct test_server *server;
    const char *bytes;
    unsigned number;
};

static void *upload_often(void *arg)
{
    const struct load *load = arg;
    struct client client = client_open(load->server);
    for (unsigned i = 0; i < 6; i++) {
        size_t n = (load->number * 77773 + i * 333337) % 1500000;
        char expected[64];
        test_digest(load->bytes, n, expected);
        if (i % 2 == 0) {
            begin_upload(&client, "", n);
            assert_true(client_send(&client, load->bytes, n));
        } else {
            assert_true(client_say(&client, "PATCH /far HTTP/1.1\r\n" HOST
                                            "Transfer-Encoding: chunked\r\n\r\n"));
            assert_true(send_chunked(&client, load->bytes, n));
        }
        expect_answer(&client, 200, expected);
    }
    client_close(&client);
    return NULL;
}

static void few_workers_serve_many_uploads(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    server.options.workers = 3;
    test_start(&server);
    auto_mem char *bytes = content(1500000);
    pthread_t threads[12];
    struct load loads[ARRAY_SIZE(threads)];
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++) {
        loads[i] = (struct load){.server = &server, .bytes = bytes, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, upload_often, &loads[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(test_stop(&server, STOP_US), 0);
    assert_int_equal(atomic_load(&server.app.complete), 6 * ARRAY_SIZE(threads));
}

/* Sends for as long as somebody takes it. Returns the number of bytes that went. */
static size_t send_until_blocked(struct client *client, const char *bytes, size_t n)
{
    size_t at = 0;
    while (at < n) {
        struct pollfd polled = {.fd = client->fd, .events = POLLOUT};
        if (poll(&polled, 1, 500) == 0)
            return at;
        ssize_t sent = send(client->fd, bytes + at, n - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0)
            at += (size_t)sent;
    }
    return at;
}

/* The kernel's buffers of both sides together, at their largest, and more. */
#define SOCKET_BYTES (24 * MIB)

static void a_slow_consumer_holds_the_sender_back(void **state)
{
    (void)state;
    const size_t total = 64 * MIB;
    struct test_server server;
    test_prepare(&server);
    server.options.body_us = 400 * MS; /* and this is not the sender's fault */
    test_start(&server);
    auto_mem char *bytes = content(total);
    char expected[64];
    test_digest(bytes, total, expected);
    struct client client = client_open(&server);
    begin_upload(&client, "hold=body&after=3", total);
    size_t sent = send_until_blocked(&client, bytes, total);
    assert_in_range(sent, 1, SOCKET_BYTES);
    assert_int_equal(atomic_load(&server.app.held), 1);
    size_t taken = atomic_load(&server.app.taken);
    assert_in_range(taken, 1, 3 * MIB); /* three blocks */
    assert_true(is_silent(&client, CLOCK_SECOND_US));
    assert_int_equal(atomic_load(&server.app.taken), taken);
    test_release(&server.app);
    assert_true(client_send(&client, bytes + sent, total - sent));
    expect_answer(&client, 200, expected);
    client_close(&client);
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

/* Between two blocks nobody works for a client that is slow. */
static void slow_senders_occupy_no_worker(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    server.options.workers = 1;
    server.options.queue = 4;
    test_start(&server);
    auto_mem char *bytes = content(600000);
    char expected[64];
    test_digest(bytes, 600000, expected);
    struct client clients[30];
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
        clients[i] = client_open(&server);
        begin_upload(&clients[i], "", 600000);
        assert_true(client_send(&clients[i], bytes, 500000));
        struct client other = client_open(&server);
        client_expect(&other, "GET /far HTTP/1.1\r\n" HOST "\r\n", 200);
        client_close(&other);
    }
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
        assert_true(client_send(&clients[i], bytes + 500000, 100000));
        expect_answer(&clients[i], 200, expected);
        client_close(&clients[i]);
    }
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

/* ---- Refusals ---- */

static void continue_comes_after_start(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    test_start(&server);
    char expected[64];
    test_digest("abc", 3, expected);
    struct client client = client_open(&server);
    assert_true(client_say(&client, "PUT /far?hold=start HTTP/1.1\r\n" HOST
                                    "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"));
    test_await("held", &server.app.held, 1);
    assert_true(is_silent(&client, 300 * MS));
    test_release(&server.app);
    expect_answer(&client, 100, NULL);
    assert_true(client_say(&client, "abc"));
    expect_answer(&client, 200, expected);

    /* The first thing that is heard is the refusal. */
    static const char *const bodies[] = {"Content-Length: 3", "Content-Length: 999999999999",
                                         "Transfer-Encoding: chunked", "Content-Length: 0"};
    for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
        client_close(&client);
        client = client_open(&server);
        assert_true(client_printf(
            &client, "PUT /far?refuse=start HTTP/1.1\r\n" HOST "Expect: 100-continue\r\n%s\r\n\r\n",
            bodies[i]));
        expect_answer(&client, 401, "not you\n");
    }
    client_close(&client);
    assert_int_equal(test_stop(&server, STOP_US), 0);
    assert_int_equal(atomic_load(&server.app.taken), 3);
}

static void refused_bodies_are_read_and_the_connection_kept(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    test_start(&server);
    static const struct {
        const char *query;
        unsigned status;
    } rows[] = {
        {"refuse=start", 401},
        {"refuse=body", 413},
        {"refuse=body&after=3", 413},
        {"refuse=end", 409},
    };
    static const size_t sizes[] = {1, 3000, 65536, 65537, 700000, 3 * MIB};
    auto_mem char *bytes = content(3 * MIB);
    struct client client = client_open(&server);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        for (size_t j = 0; j < ARRAY_SIZE(sizes); j++) {
            unsigned status = rows[i].status;
            if (i == 2 && sizes[j] < 600000) /* has no third block */
                status = 200;
            begin_upload(&client, rows[i].query, sizes[j]);
            assert_true(client_send(&client, bytes, sizes[j]));
            expect_answer(&client, status, NULL);
            assert_true(client_printf(
                &client, "PATCH /far?%s HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n",
                rows[i].query));
            assert_true(send_chunked(&client, bytes, sizes[j]));
            expect_answer(&client, status, NULL);
        }
    client_expect(&client, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
    client_close(&client);
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

/* A client that does not listen while it sends: all of the body, then the answer. */
static void large_refused_bodies_hear_the_answer(void **state)
{
    (void)state;
    const size_t total = 100 * MIB;
    static const struct {
        const char *query;
        unsigned status;
    } rows[] = {{"refuse=start", 401}, {"refuse=body", 413}, {"refuse=body&after=5", 413}};
    struct test_server server;
    test_prepare(&server);
    test_start(&server);
    auto_mem char *block = mem_zalloc(MIB);
    for (size_t i = 0; i < 2 * ARRAY_SIZE(rows); i++) {
        struct client client = client_open(&server);
        if (i % 2 == 0)
            begin_upload(&client, rows[i / 2].query, total);
        else
            assert_true(client_printf(&client,
                                      "PATCH /far?%s HTTP/1.1\r\n" HOST
                                      "Transfer-Encoding: chunked\r\n\r\n%zx\r\n",
                                      rows[i / 2].query, total));
        for (size_t at = 0; at < total; at += MIB)
            if (!client_send(&client, block, MIB))
                fail_msg("%s: broken pipe after %zu bytes", rows[i / 2].query, at);
        struct answer answer = client_answer(&client, false);
        assert_int_equal(answer.status, rows[i / 2].status);
        assert_string_equal(answer_header(&answer, "Connection"), "close");
        assert_string_equal(answer_header(&answer, "X-Test"), "yes");
        answer_free(&answer);
        assert_true(client_ended(&client, 20 * CLOCK_SECOND_US));
        client_close(&client);
    }
    assert_int_equal(test_stop(&server, STOP_US), 0);
    assert_int_equal(atomic_load(&server.app.complete), 2 * ARRAY_SIZE(rows));
}

static void curl_always_shows_the_refusal(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    test_start(&server);
    char input[200];
    char output[200];
    char url[200];
    (void)snprintf(input, sizeof(input), "%s/input", test_folder());
    (void)snprintf(output, sizeof(output), "%s/output", test_folder());
    int fd = open(input, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, 100 << 20), 0);
    (void)close(fd);
    static const char *const headers[] = {"Expect:", "Transfer-Encoding: chunked",
                                          "Expect: 100-continue"};
    for (int i = 0; i < 30; i++) {
        (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/far?refuse=%s", server.port,
                       i % 2 == 0 ? "start" : "body");
        const char *const argv[] = {"curl", "-sS",
                                    "-o",   "/dev/null",
                                    "-w",   "%{http_code}",
                                    "-H",   headers[i % 3],
                                    "-H",   i % 3 == 1 ? "Expect:" : "X: y",
                                    "-T",   input,
                                    url,    NULL};
        int code = test_run(output, argv);
        if (code < 0)
            skip();
        char text[16] = "";
        int result = open(output, O_RDONLY | O_CLOEXEC);
        assert_true(read(result, text, sizeof(text) - 1) >= 0);
        (void)close(result);
        if (code != 0 || strcmp(text, i % 2 == 0 ? "401" : "413") != 0)
            fail_msg("round %d: exit code %d, status \"%s\"", i, code, text);
    }
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

/* ---- The queue ---- */

/* Makes the one worker busy until test_release. */
static struct client occupy(struct test_server *server)
{
    struct client client = client_open(server);
    assert_true(client_say(&client, "GET /far?hold=end HTTP/1.1\r\n" HOST "\r\n"));
    test_await("held", &server->app.held, 1);
    return client;
}

static void newcomers_are_turned_away_and_the_others_go_on(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    server.options.workers = 1;
    server.options.queue = 1;
    test_start(&server);
    auto_mem char *bytes = content(MIB);
    char expected[64];
    test_digest(bytes, MIB, expected);
    struct client under_way = client_open(&server);
    begin_upload(&under_way, "", MIB);
    assert_true(client_send(&under_way, bytes, 100000));
    test_sleep_us(100 * MS);

    struct client working = occupy(&server);
    struct client queued = client_open(&server);
    assert_true(client_say(&queued, "GET /far HTTP/1.1\r\n" HOST "\r\n"));
    test_sleep_us(100 * MS);

    /* With a body, small and large, and without. */
    static const char *const refused[] = {
        "GET /far HTTP/1.1\r\n" HOST "\r\n",
        "PUT /far HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc",
        "PUT /far HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "PUT /far HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        "GET /wait HTTP/1.1\r\n" HOST "\r\n",
    };
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        struct client client = client_open(&server);
        assert_true(client_say(&client, refused[i]));
        struct answer answer = client_answer(&client, false);
        assert_int_equal(answer.status, 503);
        assert_string_equal(answer_header(&answer, "Retry-After"), "1");
        assert_string_equal(answer.body, "busy: the server is busy");
        answer_free(&answer);
        if (i != 3)
            client_expect(&client, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
        client_close(&client);
    }
    assert_true(client_send(&under_way, bytes + 100000, MIB - 100000));
    assert_true(is_silent(&under_way, 200 * MS));
    test_release(&server.app);
    expect_answer(&under_way, 200, expected);
    expect_answer(&working, 200, NULL);
    expect_answer(&queued, 200, NULL);
    client_close(&under_way);
    client_close(&working);
    client_close(&queued);
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

/* A short request does not wait for a block of each upload. */
static void a_newcomer_does_not_wait_for_all_uploads(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    server.options.workers = 1;
    test_start(&server);
    auto_mem char *bytes = content(MIB);
    struct client uploads[10];
    for (size_t i = 0; i < ARRAY_SIZE(uploads); i++) {
        uploads[i] = client_open(&server);
        begin_upload(&uploads[i], "block_us=50000", MIB);
    }
    test_sleep_us(100 * MS); /* all have started */
    struct client working = occupy(&server);
    for (size_t i = 0; i < ARRAY_SIZE(uploads); i++)
        assert_true(client_send(&uploads[i], bytes, MIB));
    test_sleep_us(100 * MS);
    struct client newcomer = client_open(&server);
    assert_true(client_say(&newcomer, "GET /far HTTP/1.1\r\n" HOST "\r\n"));
    test_sleep_us(100 * MS);
    assert_int_equal(atomic_load(&server.app.taken), 0);
    test_release(&server.app);
    expect_answer(&newcomer, 200, NULL);
    assert_in_range(atomic_load(&server.app.taken), 0, 4 * 262144); /* of forty blocks */
    for (size_t i = 0; i < ARRAY_SIZE(uploads); i++) {
        expect_answer(&uploads[i], 200, NULL);
        client_close(&uploads[i]);
    }
    client_close(&newcomer);
    client_close(&working);
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

static void an_upload_does_not_wait_for_all_newcomers(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    server.options.workers = 1;
    test_start(&server);
    auto_mem char *bytes = content(600000);
    struct client upload = client_open(&server);
    begin_upload(&upload, "", 600000);
    assert_true(client_send(&upload, bytes, 200000));
    test_sleep_us(100 * MS); /* it has started */
    struct client working = occupy(&server);
    struct client newcomers[14];
    for (size_t i = 0; i < ARRAY_SIZE(newcomers); i++) {
        newcomers[i] = client_open(&server);
        assert_true(client_say(&newcomers[i], "GET /far?ms=50 HTTP/1.1\r\n" HOST "\r\n"));
    }
    assert_true(client_send(&upload, bytes + 200000, 400000));
    test_sleep_us(100 * MS);
    test_release(&server.app);
    expect_answer(&upload, 200, NULL); /* after two blocks and the last one with the end */
    assert_in_range(atomic_load(&server.app.done), 1, 8);
    for (size_t i = 0; i < ARRAY_SIZE(newcomers); i++) {
        expect_answer(&newcomers[i], 200, NULL);
        client_close(&newcomers[i]);
    }
    client_close(&upload);
    client_close(&working);
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

/* ---- Clients that leave, time-outs, the end ---- */

static const struct {
    const char *query;
    size_t total;
    size_t sent;
} phases[] = {
    {"hold=start", MIB, 1},          {"hold=start", 3, 3},      {"hold=body", MIB, MIB / 2},
    {"hold=body&after=2", MIB, MIB}, {"hold=body", 1000, 1000}, /* with start and end */
    {"hold=end", MIB, MIB},          {"hold=end", 0, 0},        {"hold=end&refuse=end", 3, 3},
};

static struct client hold_in_phase(struct test_server *server, size_t i)
{
    struct client client = client_open(server);
    auto_mem char *bytes = content(phases[i].sent + 1);
    begin_upload(&client, phases[i].query, phases[i].total);
    assert_true(client_send(&client, bytes, phases[i].sent));
    test_await("held", &server->app.held, 1);
    return client;
}

static void clients_may_leave_while_a_worker_works(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_SIZE(phases); i++) {
        struct test_server server;
        test_prepare(&server);
        server.options.workers = 1;
        test_start(&server);
        struct client client = hold_in_phase(&server, i / 2);
        struct client queued = client_open(&server);
        begin_upload(&queued, "", i % 4 < 2 ? 3 : MIB);
        assert_true(client_say(&queued, "abc"));
        struct linger hard = {.l_onoff = 1};
        if (i % 2 == 1) { /* with a reset */
            assert_int_equal(setsockopt(client.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)), 0);
            assert_int_equal(setsockopt(queued.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)), 0);
        }
        test_sleep_us(20 * MS);
        client_close(&client);
        client_close(&queued);
        test_sleep_us(20 * MS);
        assert_int_equal(atomic_load(&server.app.done), 0);
        test_release(&server.app);
        test_await("done", &server.app.done, 2);
        struct client next = client_open(&server);
        client_expect(&next, "GET /far HTTP/1.1\r\n" HOST "\r\n", 200);
        client_close(&next);
        assert_int_equal(test_stop(&server, STOP_US), 0);
    }
}

static void work_is_not_the_clients_fault(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    server.options.workers = ARRAY_SIZE(phases);
    server.options.header_us = 300 * MS;
    server.options.idle_us = 300 * MS;
    server.options.body_us = 300 * MS;
    test_start(&server);
    auto_mem char *bytes = content(MIB);
    struct client clients[ARRAY_SIZE(phases)];
    for (size_t i = 0; i < ARRAY_SIZE(phases); i++) {
        clients[i] = client_open(&server);
        begin_upload(&clients[i], phases[i].query, phases[i].total);
        assert_true(client_send(&clients[i], bytes, phases[i].total));
    }
    test_await("held", &server.app.held, ARRAY_SIZE(phases));
    test_sleep_us(1500 * MS);
    test_release(&server.app);
    for (size_t i = 0; i < ARRAY_SIZE(phases); i++) {
        expect_answer(&clients[i], i == ARRAY_SIZE(phases) - 1 ? 409 : 200, NULL);
        client_close(&clients[i]);
    }

    /* But a body that does not come is. */
    struct client client = client_open(&server);
    begin_upload(&client, "", MIB);
    assert_true(client_send(&client, bytes, MIB / 2));
    assert_true(client_ended(&client, 5 * CLOCK_SECOND_US));
    client_close(&client);
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

/* With patience: the exchange ends, and is answered. */
static void the_end_waits_for_workers(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(phases); i++) {
        struct test_server server;
        test_prepare(&server);
        test_start(&server);
        struct client client = hold_in_phase(&server, i);
        struct test_stopping stopping;
        test_stop_begin(&server, STOP_US, &stopping);
        test_sleep_us(50 * MS);
        assert_false(atomic_load(&stopping.stopped));
        test_release(&server.app);
        auto_mem char *bytes = content(MIB);
        assert_true(client_send(&client, bytes, phases[i].total - phases[i].sent));
        struct answer answer = client_answer(&client, false);
        assert_int_equal(answer.status, i == ARRAY_SIZE(phases) - 1 ? 409 : 200);
        assert_string_equal(answer_header(&answer, "Connection"), "close");
        answer_free(&answer);
        test_stop_join(&stopping);
        assert_int_equal(stopping.cut, 0);
        client_close(&client);
    }
}

/* Without: it is cut off, but not while a worker has it. */
static void the_end_cuts_off_what_works_on(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(phases); i++) {
        struct test_server server;
        test_prepare(&server);
        server.options.workers = 1;
        test_start(&server);
        /* One under way, which waits for the worker, and one that is new. */
        auto_mem char *bytes = content(MIB);
        struct client waits = client_open(&server);
        begin_upload(&waits, "", MIB);
        assert_true(client_send(&waits, bytes, 100000));
        test_sleep_us(50 * MS);
        struct client client = hold_in_phase(&server, i);
        assert_true(client_send(&waits, bytes, 400000));
        struct client queued = client_open(&server);
        assert_true(client_say(&queued, "GET /far HTTP/1.1\r\n" HOST "\r\n"));
        test_sleep_us(50 * MS);
        struct test_stopping stopping;
        test_stop_begin(&server, 50 * MS, &stopping);
        test_sleep_us(200 * MS);
        assert_false(atomic_load(&stopping.stopped));
        assert_int_equal(atomic_load(&server.app.done), 0);
        test_release(&server.app);
        test_stop_join(&stopping);
        assert_int_equal(stopping.cut, 3);
        assert_int_equal(atomic_load(&server.app.complete), 0);
        client_close(&client);
        client_close(&queued);
        client_close(&waits);
    }
}

static void *hammer(void *arg)
{
    const struct load *load = arg;
    for (;;) {
        struct client client;
        bool ended = false;
        if (!client_try(load->server, &client))
            return NULL;
        for (int i = 0; i < 10 && !ended; i++) {
            size_t n = i % 3 == 0 ? 300000 : 3;
            ended = !client_printf(&client,
                                   i % 2 == 0 ? "PUT /far HTTP/1.1\r\n" HOST
                                                "Content-Length: %zu\r\n\r\n"
                                              : "PUT /far HTTP/1.1\r\n" HOST "X: %zu\r\n"
                                                "Transfer-Encoding: chunked\r\n\r\n",
                                   n) ||
                    !(i % 2 == 0 ? client_send(&client, load->bytes, n)
                                 : send_chunked(&client, load->bytes, n));
            struct answer answer = client_answer(&client, false);
            ended = ended || answer.status != 200;
            answer_free(&answer);
        }
        client_close(&client);
        if (ended)
            return NULL;
    }
}

/* Stopping races with everything else; the sanitizers watch. */
static void the_server_stops_under_load(void **state)
{
    (void)state;
    auto_mem char *bytes = content(300000);
    for (int round = 0; round < 8; round++) {
        struct test_server server;
        test_prepare(&server);
        test_start(&server);
        struct load load = {.server = &server, .bytes = bytes};
        pthread_t threads[6];
        for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
            assert_int_equal(pthread_create(&threads[i], NULL, hammer, &load), 0);
        test_sleep_us(60 * MS);
        (void)test_stop(&server, round % 2 == 0 ? 0 : 50 * MS);
        for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
            assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bodies_of_all_sizes_arrive),
        cmocka_unit_test(requests_are_pipelined),
        cmocka_unit_test(few_workers_serve_many_uploads),
        cmocka_unit_test(a_slow_consumer_holds_the_sender_back),
        cmocka_unit_test(slow_senders_occupy_no_worker),
        cmocka_unit_test(continue_comes_after_start),
        cmocka_unit_test(refused_bodies_are_read_and_the_connection_kept),
        cmocka_unit_test(large_refused_bodies_hear_the_answer),
        cmocka_unit_test(curl_always_shows_the_refusal),
        cmocka_unit_test(newcomers_are_turned_away_and_the_others_go_on),
        cmocka_unit_test(a_newcomer_does_not_wait_for_all_uploads),
        cmocka_unit_test(an_upload_does_not_wait_for_all_newcomers),
        cmocka_unit_test(clients_may_leave_while_a_worker_works),
        cmocka_unit_test(work_is_not_the_clients_fault),
        cmocka_unit_test(the_end_waits_for_workers),
        cmocka_unit_test(the_end_cuts_off_what_works_on),
        cmocka_unit_test(the_server_stops_under_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
