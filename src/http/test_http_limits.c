/* Patience, limits, refusals in the middle of a body, and the end. */
#include "http/test_support.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

#define HOST "Host: registry.example\r\n"
#define MS INT64_C(1000)
#define STOP_US (10 * CLOCK_SECOND_US)

/* ---- Time-outs ---- */

/* Sends one byte every 20 ms until the connection breaks. Returns the time it took. */
static int64_t drip(struct client *client, const char *bytes, int64_t most_us)
{
    struct mono_us began = clock_mono();
    size_t n = strlen(bytes);
    for (size_t at = 0; clock_since_us(began) < most_us; at = (at + 1) % n) {
        if (!client_send(client, bytes + at, 1))
            break;
        test_sleep_us(20 * MS);
        struct pollfd polled = {.fd = client->fd, .events = POLLIN};
        char byte;
        if (poll(&polled, 1, 0) > 0 && recv(client->fd, &byte, 1, MSG_PEEK) <= 0)
            break;
    }
    return clock_since_us(began);
}

static void a_head_must_arrive_in_time(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    server.options.header_us = 400 * MS;
    test_start(&server);

    struct client silent = client_open(&server);
    struct client line = client_open(&server); /* drips in its request line */
    struct client headers = client_open(&server);
    assert_true(client_say(&headers, "GET /hello HTTP/1.1\r\nX: "));
    int64_t us = drip(&headers, "a", 10 * CLOCK_SECOND_US);
    if (us < 200 * MS || us > 5 * CLOCK_SECOND_US)
        fail_msg("cut after %lld us", (long long)us);
    assert_true(client_ended(&silent, 5 * CLOCK_SECOND_US));
    client_close(&line);
    line = client_open(&server);
    us = drip(&line, "GET", 10 * CLOCK_SECOND_US);
    if (us < 300 * MS || us > 5 * CLOCK_SECOND_US)
        fail_msg("cut after %lld us", (long long)us);
    client_close(&silent);
    client_close(&line);
    client_close(&headers);
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

static void an_idle_connection_ends_in_time(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    server.options.idle_us = 300 * MS;
    test_start(&server);
    struct client client = client_open(&server);
    client_expect(&client, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
    test_sleep_us(100 * MS);
    client_expect(&client, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
    struct mono_us began = clock_mono();
    assert_true(client_ended(&client, 5 * CLOCK_SECOND_US));
    assert_true(clock_since_us(began) > 200 * MS);
    client_close(&client);
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

static void a_body_must_make_progress(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    server.options.body_us = 400 * MS;
    test_start(&server);

    /* Fast enough: 8 KiB every 100 ms, for longer than the time-out. */
    static const char block[8192] = {0};
    struct client client = client_open(&server);
    assert_true(client_printf(&client,
                              "PUT /length HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n",
                              sizeof(block) * 12));
    for (int i = 0; i < 12; i++) {
        assert_true(client_send(&client, block, sizeof(block)));
        test_sleep_us(100 * MS);
    }
    struct answer answer = client_answer(&client, false);
    assert_int_equal(answer.status, 200);
    answer_free(&answer);

    assert_true(
        client_say(&client, "PUT /length HTTP/1.1\r\n" HOST "Content-Length: 99999\r\n\r\n"));
    int64_t us = drip(&client, "a", 10 * CLOCK_SECOND_US);
    if (us < 300 * MS || us > 5 * CLOCK_SECOND_US)
        fail_msg("cut after %lld us", (long long)us);
    client_close(&client);
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

static void an_answer_must_be_taken(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    server.options.body_us = 400 * MS;
    server.app.file = test_file("large", (size_t)64 << 20);
    test_start(&server);
    struct client client = client_open(&server);
    assert_true(client_say(&client, "GET /file HTTP/1.1\r\n" HOST "\r\n"));
    /* What the sockets hold arrives; then nothing is read for a while. */
    test_sleep_us(3 * CLOCK_SECOND_US);
    struct answer answer = client_answer(&client, false);
    assert_int_equal(answer.status, 200);
    assert_true(answer.cut);
    assert_true(answer.body_bytes < (size_t)64 << 20);
    answer_free(&answer);
    client_close(&client);

    /* A slow reader is not cut: 1 MiB every 50 ms. */
    client = client_open(&server);
    assert_true(client_say(&client, "GET /file HTTP/1.1\r\n" HOST "\r\n"));
    static char block[1 << 20];
    size_t total = 0;
    for (int i = 0; i < 30; i++) {
        ssize_t n = recv(client.fd, block, sizeof(block), MSG_WAITALL);
        assert_true(n > 0);
        total += (size_t)n;
        test_sleep_us(50 * MS);
    }
    ssize_t n = 0;
    while (total < ((size_t)64 << 20) && (n = recv(client.fd, block, sizeof(block), 0)) > 0)
        total += (size_t)n;
    assert_true(total >= (size_t)64 << 20);
    client_close(&client);
    assert_int_equal(test_stop(&server, STOP_US), 0);
    (void)close(server.app.file);
}

static void a_client_that_closed_its_side_is_not_waited_for(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    server.options.header_us = 2 * CLOCK_SECOND_US; /* also sets how often it is looked at */
    test_start(&server);
    static const char *const halves[] = {
        "GET /hello HTTP/1.1\r\n" HOST "\r\n",
        "GET /hello HTTP/1.1\r\nHos",
        "PUT /length HTTP/1.1\r\n" HOST "Content-Length: 9\r\n\r\nabc",
    };
    for (size_t i = 0; i < ARRAY_SIZE(halves); i++) {
        struct client client = client_open(&server);
        assert_true(client_say(&client, halves[i]));
        assert_int_equal(shutdown(client.fd, SHUT_WR), 0);
        struct answer answer = client_answer(&client, false);
        assert_int_equal(answer.status, i == 0 ? 200 : 0);
        answer_free(&answer);
        assert_true(client_ended(&client, 5 * CLOCK_SECOND_US));
        client_close(&client);
    }
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

/* ---- Limits ---- */

static void connections_are_limited(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    server.options.connections = 4;
    server.options.connections_per_address = 100;
    test_start(&server);
    struct client clients[5];
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
        clients[i] = client_open(&server);
        assert_true(client_say(&clients[i], i < 4 ? "GET /wait?ms=10 HTTP/1.1\r\n" HOST "X: "
                                                  : "GET /hello HTTP/1.1\r\n" HOST "\r\n"));
        test_sleep_us(20 * MS);
    }
    /* The fifth waits in the kernel, for the others are in the middle of a request. */
    struct pollfd polled = {.fd = clients[4].fd, .events = POLLIN};
    assert_int_equal(poll(&polled, 1, 300), 0);
    client_close(&clients[0]);
    struct answer answer = client_answer(&clients[4], false);
    assert_int_equal(answer.status, 200);
    answer_free(&answer);

    /* When all places are taken, idle connections make room. */
    client_expect(&clients[1], "x\r\n\r\n", 200);
    struct client last = client_open(&server);
    client_expect(&last, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
    client_close(&last);
    for (size_t i = 1; i < ARRAY_SIZE(clients); i++)
        client_close(&clients[i]);
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

static void connections_of_an_address_are_limited(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    server.options.connections_per_address = 2;
    test_start(&server);
    struct client clients[3];
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++)
        clients[i] = client_open(&server);
    client_expect(&clients[0], "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
    client_expect(&clients[1], "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
    assert_true(client_ended(&clients[2], 5 * CLOCK_SECOND_US));
    client_close(&clients[0]);
    client_close(&clients[2]);
    bool served = false;
    for (int i = 0; i < 100 && !served; i++) { /* until the server has seen it go */
        clients[0] = client_open(&server);
        (void)client_say(&clients[0], "GET /hello HTTP/1.1\r\n" HOST "\r\n");
        struct answer answer = client_answer(&clients[0], false);
        served = answer.status == 200;
        answer_free(&answer);
        client_close(&clients[0]);
        test_sleep_us(10 * MS);
    }
    assert_true(served);
    client_close(&clients[1]);
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

static void a_full_queue_is_answered(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    server.options.workers = 1;
    server.options.queue = 2;
    test_start(&server);
    struct client clients[6];
    unsigned served = 0;
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
        clients[i] = client_open(&server);
        assert_true(client_say(&clients[i], "GET /wait?ms=500 HTTP/1.1\r\n" HOST "\r\n"));
        test_sleep_us(30 * MS);
    }
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
        struct answer answer = client_answer(&clients[i], false);
        served += answer.status == 200;
        if (answer.status != 200) {
            assert_int_equal(answer.status, 503);
            assert_string_equal(answer_header(&answer, "Retry-After"), "1");
            assert_string_equal(answer.body, "busy: the server is busy");
        }
        answer_free(&answer);
        client_expect(&clients[i], "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
        client_close(&clients[i]);
    }
    assert_int_equal(served, 3); /* one at work, two in the queue */
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

/* ---- Refusals while the body is on the way ---- */

/* A client that does not listen while it sends: all of the body, then the answer. */
static void check_deaf_sender(const struct test_server *server, const char *path, bool chunked,
                              unsigned status)
{
    const size_t total = (size_t)100 << 20;
    auto_mem char *block = mem_zalloc(1 << 20);
    struct client client = client_open(server);
    if (chunked)
        assert_true(client_printf(
            &client, "PATCH %s HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n%zx\r\n", path,
            total));
    else
        assert_true(client_printf(
            &client, "PATCH %s HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n", path, total));
    for (size_t at = 0; at < total; at += 1 << 20)
        if (!client_send(&client, block, 1 << 20))
            fail_msg("%s: broken pipe after %zu bytes", path, at);
    struct answer answer = client_answer(&client, false);
    assert_int_equal(answer.status, status);
    assert_string_equal(answer_header(&answer, "Connection"), "close");
    assert_string_equal(answer_header(&answer, "X-Test"), "yes");
    assert_non_null(answer_header(&answer, "Date"));
    assert_true(answer.body_bytes > 0 && !answer.cut);
    answer_free(&answer);
    assert_true(client_ended(&client, 20 * CLOCK_SECOND_US));
    client_close(&client);
}

static void large_refused_bodies_hear_the_answer(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    test_start(&server);
    check_deaf_sender(&server, "/refuse", /* chunked= */ false, 401);
    check_deaf_sender(&server, "/refuse", /* chunked= */ true, 401);
    check_deaf_sender(&server, "/refuse-body", /* chunked= */ false, 413);
    check_deaf_sender(&server, "/refuse-body", /* chunked= */ true, 413);
    assert_int_equal(test_stop(&server, STOP_US), 0);
    assert_int_equal(atomic_load(&server.app.complete), 4);
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
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/refuse", server.port);
    int fd = open(input, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, 100 << 20), 0);
    (void)close(fd);
    static const char *const headers[] = {"Expect:", "Transfer-Encoding: chunked",
                                          "Expect: 100-continue"};
    for (int i = 0; i < 60; i++) {
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
        if (code != 0 || strcmp(text, "401") != 0)
            fail_msg("round %d: exit code %d, status \"%s\"", i, code, text);
    }
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

/* ---- The end ---- */

static void running_requests_end_before_the_server_does(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    test_start(&server);
    struct client idle = client_open(&server);
    struct client fresh = client_open(&server);
    struct client waits = client_open(&server);
    struct client sends = client_open(&server);
    client_expect(&idle, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200);
    assert_true(client_say(&waits, "GET /wait?ms=600 HTTP/1.1\r\n" HOST "\r\n"));
    assert_true(client_say(&sends, "PUT /length HTTP/1.1\r\n" HOST "Content-Length: 6\r\n\r\nabc"));
    test_sleep_us(100 * MS);

    struct test_stopping stopping;
    test_stop_begin(&server, STOP_US, &stopping);
    assert_true(client_ended(&idle, CLOCK_SECOND_US));
    assert_true(client_ended(&fresh, CLOCK_SECOND_US));
    assert_true(client_say(&sends, "def"));
    struct client *both[] = {&waits, &sends};
    for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
        struct answer answer = client_answer(both[i], false);
        assert_int_equal(answer.status, 200);
        assert_string_equal(answer.body, i == 0 ? "0" : "6");
        assert_string_equal(answer_header(&answer, "Connection"), "close");
        answer_free(&answer);
        assert_true(client_ended(both[i], CLOCK_SECOND_US));
    }
    test_stop_join(&stopping);
    assert_int_equal(stopping.cut, 0);
    assert_true(stopping.took_us < 5 * CLOCK_SECOND_US);
    assert_int_equal(atomic_load(&server.app.complete), 3);
    client_close(&idle);
    client_close(&fresh);
    client_close(&waits);
    client_close(&sends);
}

static void what_does_not_end_is_cut_off(void **state)
{
    (void)state;
    struct test_server server;
    test_prepare(&server);
    server.options.workers = 1;
    server.app.file = test_file("endless", (size_t)64 << 20);
    test_start(&server);
    static const char *const requests[] = {
        "PUT /length HTTP/1.1\r\n" HOST "Content-Length: 6\r\n\r\nabc",
        "GET /file HTTP/1.1\r\n" HOST "\r\n",
        "GET /wait?ms=1000 HTTP/1.1\r\n" HOST "\r\n",
        "GET /wait?ms=1000 HTTP/1.1\r\n" HOST "\r\n", /* in the queue */
        "GET /hello HTTP/1.1\r\nX: ",
    };
    struct client clients[ARRAY_SIZE(requests)];
    for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
        clients[i] = client_open(&server);
        assert_true(client_say(&clients[i], requests[i]));
        test_sleep_us(50 * MS);
    }
    struct mono_us began = clock_mono();
    assert_int_equal(test_stop(&server, 200 * MS), ARRAY_SIZE(requests));
    int64_t took = clock_since_us(began);
    assert_true(took >= 200 * MS && took < 5 * CLOCK_SECOND_US);
    assert_int_equal(atomic_load(&server.app.complete), 0);
    for (size_t i = 0; i < ARRAY_SIZE(requests); i++)
        client_close(&clients[i]);
    (void)close(server.app.file);
}

static void *hammer(void *arg)
{
    const struct test_server *server = arg;
    for (;;) {
        struct client client;
        bool ended = false;
        if (!client_try(server, &client))
            return NULL;
        for (int i = 0; i < 20 && !ended; i++) {
            ended = !client_say(&client, i % 2 == 0 ? "GET /wait HTTP/1.1\r\n" HOST "\r\n"
                                                    : "PUT /wait?ms=2 HTTP/1.1\r\n" HOST
                                                      "Content-Length: 3\r\n\r\nabc");
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
    for (int round = 0; round < 8; round++) {
        struct test_server server;
        test_prepare(&server);
        test_start(&server);
        pthread_t threads[6];
        for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
            assert_int_equal(pthread_create(&threads[i], NULL, hammer, &server), 0);
        test_sleep_us(60 * MS);
        (void)test_stop(&server, round % 2 == 0 ? 0 : 50 * MS);
        for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
            assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

static void several_listeners_are_served(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct err err = {0};
    struct test_server server;
    test_prepare(&server);
    server.options.threads = 1;
    int listeners[3];
    uint16_t ports[3];
    for (size_t i = 0; i < ARRAY_SIZE(listeners); i++) {
        socklen_t n = sizeof(address);
        address.sin_port = 0;
        assert_int_equal(
            http_listen((struct sockaddr *)&address, n, "127.0.0.1:0", &listeners[i], &err), 0);
        assert_int_equal(getsockname(listeners[i], (struct sockaddr *)&address, &n), 0);
        ports[i] = ntohs(address.sin_port);
    }
    /* The address is taken now. */
    int another = -1;
    assert_int_equal(http_listen((struct sockaddr *)&address, sizeof(address), "127.0.0.1:taken",
                                 &another, &err),
                     -1);
    assert_int_equal(err.kind, ERR_IO);
    assert_string_equal(err.say, "cannot listen on 127.0.0.1:taken: Address already in use");

    server.options.listeners = listeners;
    server.options.n_listeners = ARRAY_SIZE(listeners);
    server.options.metrics = server.metrics;
    server.options.app = &server.app.app;
    assert_int_equal(http_start(&server.options, &server.server, &err), 0);
    for (size_t i = 0; i < ARRAY_SIZE(listeners); i++) {
        server.port = ports[i];
        struct client client = client_open(&server);
        client_expect(&client, "GET /wait HTTP/1.1\r\n" HOST "\r\n", 200);
        client_close(&client);
    }
    assert_int_equal(test_stop(&server, STOP_US), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_head_must_arrive_in_time),
        cmocka_unit_test(an_idle_connection_ends_in_time),
        cmocka_unit_test(a_body_must_make_progress),
        cmocka_unit_test(an_answer_must_be_taken),
        cmocka_unit_test(a_client_that_closed_its_side_is_not_waited_for),
        cmocka_unit_test(connections_are_limited),
        cmocka_unit_test(connections_of_an_address_are_limited),
        cmocka_unit_test(a_full_queue_is_answered),
        cmocka_unit_test(large_refused_bodies_hear_the_answer),
        cmocka_unit_test(curl_always_shows_the_refusal),
        cmocka_unit_test(running_requests_end_before_the_server_does),
        cmocka_unit_test(what_does_not_end_is_cut_off),
        cmocka_unit_test(the_server_stops_under_load),
        cmocka_unit_test(several_listeners_are_served),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
