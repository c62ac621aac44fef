/* Answers that are streams: sources and clients that are slow, break off, or leave. */
#include "http/test_support.h"

#include <poll.h>
#include <sys/socket.h>

#define HOST "Host: registry.example\r\n"
#define MS INT64_C(1000)
#define STOP_US (10 * CLOCK_SECOND_US)
#define MIB ((size_t)1 << 20)

static void ask(struct client *client, const char *query)
{
    assert_true(client_printf(client, "GET /stream?%s HTTP/1.1\r\n" HOST "\r\n", query));
}

static void check_pattern(const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)bytes[i] != test_byte(i))
            fail_msg("byte %zu of %zu is %u", i, n, (unsigned char)bytes[i]);
}

static void expect_stream(struct client *client, size_t size)
{
    struct answer answer = client_answer(client, false);
    assert_int_equal(answer.status, 200);
    assert_false(answer.cut);
    assert_int_equal(answer.body_bytes, size);
    check_pattern(answer.body, size);
    answer_free(&answer);
}

static void expect_cut(struct client *client, size_t most)
{
    struct answer answer = client_answer(client, false);
    assert_int_equal(answer.status, 200);
    assert_true(answer.cut);
    assert_in_range(answer.body_bytes, 0, most);
    check_pattern(answer.body, answer.body_bytes);
    answer_free(&answer);
    assert_true(client_ended(client, CLOCK_SECOND_US));
}

static void streams_have_their_exact_size(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 65535, 65536, 65537, 131072, 3000000};
    static const char *const ways[] = {
        "",
        "&far=1",
        "&piece=3001",          /* told again and again, without a pause */
        "&piece=50000&us=200",  /* the source is slower than the client */
        "&reads=1013&far=1",    /* little at a time */
        "&makes=9000000",       /* there is more than was promised */
        "&piece=65536&us=1000", /* what comes fills the library's block */
    };
    struct test_server server;
    test_prepare(&server);
    test_start(&server);
    struct client client = client_open(&server);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
        for (size_t j = 0; j < ARRAY_SIZE(ways); j++) {
            char query[100];
            (void)snprintf(query, sizeof(query), "size=%zu%s", sizes[i], ways[j]);
            ask(&client, query);
            expect_stream(&client, sizes[i]);
        }
    /* Kept and pipelined. */
    assert_true(client_say(&client, "GET /stream?size=100&piece=10 HTTP/1.1\r\n" HOST "\r\n"
                                    "GET /stream?size=70000&us=10000 HTTP/1.1\r\n" HOST "\r\n"
                                    "GET /hello HTTP/1.1\r\n" HOST "\r\n"));
    expect_stream(&client, 100);
    expect_stream(&client, 70000);
    struct answer answer = client_answer(&client, false);
    assert_string_equal(answer.body, "hello\n");
    answer_free(&answer);
    client_close(&client);
    assert_int_equal(test_stop(&server, STOP_US), 0);
    assert_int_equal(atomic_load(&server.app.complete), atomic_load(&server.app.begun));
}

static void what_is_there_is_sent_at_once(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    test_start(&server);
    struct client client = client_open(&server);
    ask(&client, "size=2000&piece=1000&us=1500000");
    test_sleep_us(2000 * MS);
    char bytes[4096];
    ssize_t n = recv(client.fd, bytes, sizeof(bytes) - 1, MSG_DONTWAIT);
    assert_true(n > 1000);
    bytes[n] = '\0';
    const char *body = strstr(bytes, "\r\n\r\n");
    assert_non_null(body);
    assert_int_equal(bytes + n - body, 1004);
    client_close(&client);
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

static void nothing_is_read_for_head(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    test_start(&server);
    struct client client = client_open(&server);
    static const char *const ways[] = {"", "&far=1"};
    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        assert_true(client_printf(&client, "HEAD /stream?size=123456789%s HTTP/1.1\r\n" HOST "\r\n",
                                  ways[i]));
        struct answer answer = client_answer(&client, true);
        assert_int_equal(answer.status, 200);
        assert_string_equal(answer_header(&answer, "Content-Length"), "123456789");
        answer_free(&answer);
        client_expect(&client, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
    }
    client_close(&client);
    assert_int_equal(atomic_load(&server.app.streams), 0);
    assert_int_equal(atomic_load(&server.app.streamed), 0);
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

static void a_broken_source_breaks_the_answer(void **state)
{
    (void)state;
    static const struct {
        const char *query;
        size_t most;
    } rows[] = {
        {"size=1000&fails=0", 0},
        {"size=1000&ends=0", 0},
        {"size=1000&fails=999", 999},
        {"size=1000&ends=999", 999},
        {"size=3000000&fails=1500000", 1500000},
        {"size=3000000&ends=1500000&far=1", 1500000},
        {"size=3000000&fails=1500000&piece=100000&us=500", 1500000},
        {"size=3000000&ends=1500000&piece=1000", 1500000},
    };
    struct test_server server;
    test_prepare(&server);
    test_start(&server);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct client client = client_open(&server);
        ask(&client, rows[i].query);
        expect_cut(&client, rows[i].most);
        client_close(&client);
    }
    test_await("done", &server.app.done, ARRAY_SIZE(rows));
    assert_int_equal(test_stop(&server, STOP_US), 0);
    assert_int_equal(atomic_load(&server.app.complete), 0);
}

/* ---- Patience ---- */

static void a_silent_source_is_not_the_clients_fault(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    server.options.header_us = 300 * MS;
    server.options.idle_us = 300 * MS;
    server.options.body_us = 300 * MS;
    test_start(&server);
    struct client client = client_open(&server);
    ask(&client, "size=3000&piece=1000&us=1000000");
    expect_stream(&client, 3000);
    client_close(&client);
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

static void a_stream_must_be_taken(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    server.options.body_us = 400 * MS;
    test_start(&server);
    static const char *const ways[] = {"size=67108864", "size=67108864&piece=10000"};
    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        struct client client = client_open(&server);
        ask(&client, ways[i]);
        /* What the sockets hold arrives; then nothing is read for a while. */
        test_await("done", &server.app.done, (unsigned)i + 1);
        expect_cut(&client, 64 * MIB - 1);
        client_close(&client);
    }
    assert_int_equal(atomic_load(&server.app.streams), 0);

    /* A slow reader is not cut: 1 MiB every 50 ms, for longer than the patience. */
    struct client client = client_open(&server);
    ask(&client, "size=67108864");
    static char block[1 << 20];
    size_t total = 0;
    for (int i = 0; i < 25; i++) {
        ssize_t n = recv(client.fd, block, sizeof(block), MSG_WAITALL);
        assert_true(n > 0);
        total += (size_t)n;
        test_sleep_us(50 * MS);
    }
    ssize_t n = 0;
    while (total < 64 * MIB && (n = recv(client.fd, block, sizeof(block), 0)) > 0)
        total += (size_t)n;
    assert_true(total >= 64 * MIB);
    client_close(&client);
    assert_int_equal(test_stop(&server, STOP_US), 0);
    assert_int_equal(atomic_load(&server.app.complete), 1);
}

/* ---- Clients that leave, many at a time, the end ---- */

static void clients_may_leave(void **state)
{
    (void)state;
    static const char *const ways[] = {
        "size=67108864",                      /* before the socket's buffers are full, and after */
        "size=67108864&piece=100000&us=1000", /* while the source is waited for */
        "size=3000&piece=1000&us=100000",     /* the same; what follows fits into the buffers */
        "size=67108864&fails=10000000",
        "size=67108864&piece=1000000&us=20000&far=1",
    };
    struct test_server server;
    test_prepare(&server);
    test_start(&server);
    unsigned n = 0;
    for (int round = 0; round < 4; round++)
        for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
            struct client client = client_open(&server);
            ask(&client, ways[i]);
            if (round % 2 == 1) { /* with a reset */
                struct linger hard = {.l_onoff = 1};
                assert_int_equal(setsockopt(client.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)),
                                 0);
            }
            char byte;
            assert_int_equal(recv(client.fd, &byte, 1, 0), 1);
            test_sleep_us(round < 2 ? 0 : 50 * MS);
            client_close(&client);
            n++;
        }
    test_await("done", &server.app.done, n);
    test_await("streams", &server.app.streams, 0);
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

static void many_streams_flow_side_by_side(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    test_start(&server);
    struct client clients[200];
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
        char query[100];
        (void)snprintf(query, sizeof(query), "size=%zu&piece=%zu&us=%zu&far=%zu", 100000 + i * 7,
                       5000 + i * 100, i % 10 * 500 + 1, i % 2);
        clients[i] = client_open(&server);
        /* Without a place in the queue for all of them. */
        while (i % 2 == 1 && atomic_load(&server.app.begun) + 8 < i)
            test_sleep_us(MS);
        ask(&clients[i], query);
    }
    unsigned served = 0;
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
        struct answer answer = client_answer(&clients[i], false);
        served += answer.status == 200;
        if (answer.status == 200) {
            assert_int_equal(answer.body_bytes, 100000 + i * 7);
            check_pattern(answer.body, answer.body_bytes);
        }
        answer_free(&answer);
        client_close(&clients[i]);
    }
    assert_int_equal(served, ARRAY_SIZE(clients));
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

static void the_end_waits_for_streams(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    test_start(&server);
    struct client client = client_open(&server);
    ask(&client, "size=4000&piece=1000&us=200000");
    test_sleep_us(100 * MS);
    struct test_stopping stopping;
    test_stop_begin(&server, STOP_US, &stopping);
    expect_stream(&client, 4000);
    test_stop_join(&stopping);
    assert_int_equal(stopping.cut, 0);
    assert_int_equal(atomic_load(&server.app.complete), 1);
    client_close(&client);
}

static void the_end_cuts_off_streams(void **state)
{
    (void)state;
    static const char *const ways[] = {
        "size=3000&makes=1000",          /* silent for ever */
        "size=67108864",                 /* not taken */
        "size=67108864&piece=100&us=50", /* in between */
        "size=3000&makes=0&far=1",
    };
    struct test_server server;
    test_prepare(&server);
    test_start(&server);
    struct client clients[ARRAY_SIZE(ways)];
    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        clients[i] = client_open(&server);
        ask(&clients[i], ways[i]);
    }
    test_sleep_us(100 * MS);
    struct mono_us began = clock_mono();
    assert_int_equal(test_stop(&server, 200 * MS), ARRAY_SIZE(ways));
    assert_in_range(clock_since_us(began), 200 * MS, 5 * CLOCK_SECOND_US);
    assert_int_equal(atomic_load(&server.app.complete), 0);
    for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
        client_close(&clients[i]);
}

static void *hammer(void *arg)
{
    const struct test_server *server = arg;
    for (unsigned round = 0;; round++) {
        struct client client;
        bool ended = false;
        if (!client_try(server, &client))
            return NULL;
        for (unsigned i = 0; i < 10 && !ended; i++) {
            ended = !client_printf(
                &client, "GET /stream?size=%u&piece=%u&us=%u&far=%u HTTP/1.1\r\n" HOST "\r\n",
                1000 + i * 10000, 500 + i * 3000, (i + round) % 3 * 50, i % 2);
            struct answer answer = client_answer(&client, false);
            ended = ended || answer.status != 200 || answer.cut;
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
    for (int round = 0; round < 10; round++) {
        struct test_server server;
        test_prepare(&server);
        test_start(&server);
        pthread_t threads[6];
        for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
            assert_int_equal(pthread_create(&threads[i], NULL, hammer, &server), 0);
        test_sleep_us(60 * MS);
        (void)test_stop(&server, round % 2 == 0 ? 0 : 20 * MS);
        for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
            assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_have_their_exact_size),
        cmocka_unit_test(what_is_there_is_sent_at_once),
        cmocka_unit_test(nothing_is_read_for_head),
        cmocka_unit_test(a_broken_source_breaks_the_answer),
        cmocka_unit_test(a_silent_source_is_not_the_clients_fault),
        cmocka_unit_test(a_stream_must_be_taken),
        cmocka_unit_test(clients_may_leave),
        cmocka_unit_test(many_streams_flow_side_by_side),
        cmocka_unit_test(the_end_waits_for_streams),
        cmocka_unit_test(the_end_cuts_off_streams),
        cmocka_unit_test(the_server_stops_under_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
