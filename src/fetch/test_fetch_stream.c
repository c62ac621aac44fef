/* Streams: what arrives, who is told when, and who holds back whom. */
#include "fetch/fetch.h"
#include "test_server.h"

#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>

#define MS INT64_C(1000)
#define MIB ((uint64_t)1024 * 1024)

static char byte_at(uint64_t at)
{
    return (char)((at * UINT64_C(2654435761)) >> 24);
}

/* ---- The server: /bytes/SENT, or /bytes/SENT/CLAIMED ---- */

static bool send_bytes(struct test_exchange *x, uint64_t n)
{
    auto_mem char *block = mem_alloc(65536);
    for (uint64_t at = 0; at < n;) {
        size_t piece = n - at < 65536 ? (size_t)(n - at) : 65536;
        for (size_t i = 0; i < piece; i++)
            block[i] = byte_at(at + i);
        if (!test_send(x, block, piece))
            return false;
        at += piece;
    }
    return true;
}

static _Atomic uint64_t stalled_at; /* how far /endless came */

static bool send_endless(struct test_exchange *x)
{
    auto_mem char *block = mem_zalloc(65536);
    (void)test_say(x, "HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n");
    while (test_send(x, block, 65536))
        atomic_fetch_add(&stalled_at, 65536);
    return false;
}

static bool answer(void *context, struct test_exchange *x)
{
    (void)context;
    struct str path = str_from_at(x->target, 1);
    struct str word = str_cut(&path, '/');
    uint64_t sent = 0;
    uint64_t claimed = 0;
    if (str_eat_u64(&path, UINT64_MAX, &sent))
        claimed = sent;
    (void)str_cut(&path, '/');
    (void)str_eat_u64(&path, UINT64_MAX, &claimed);
    if (str_eq(word, STR("endless")))
        return send_endless(x);
    if (str_eq(word, STR("refused")))
        return test_reply(x, "403 Forbidden", "", STR("<Error><Code>AccessDenied</Code></Error>"));
    if (str_eq(word, STR("silent"))) {
        (void)test_say(x, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n123");
        test_sleep_us(4 * CLOCK_SECOND_US);
        return false;
    }
    if (str_eq(word, STR("stale"))) { /* seems to be kept open */
        (void)test_say(x, "HTTP/1.1 200 OK\r\nContent-Length: %llu\r\n\r\n",
                       (unsigned long long)sent);
        (void)send_bytes(x, sent);
        return false;
    }
    if (str_eq(word, STR("unsaid"))) { /* no Content-Length: it ends when the connection does */
        (void)test_say(x, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        (void)send_bytes(x, sent);
        return false;
    }
    (void)test_say(x, "HTTP/1.1 %s\r\nContent-Length: %llu\r\n\r\n",
                   str_eq(word, STR("part")) ? "206 Partial Content" : "200 OK",
                   (unsigned long long)claimed);
    return send_bytes(x, sent) && sent == claimed;
}

/* ---- The reader ---- */

struct reader {
    sem_t told;
    atomic_uint tells;
};

static void on_ready(void *context)
{
    struct reader *reader = context;
    atomic_fetch_add(&reader->tells, 1);
    (void)sem_post(&reader->told);
}

static struct fetch *make(int64_t silence_us)
{
    const struct fetch_options options = {
        .user_agent = "test/1",
        .connections = 4,
        .connect_us = 2 * CLOCK_SECOND_US,
        .silence_us = silence_us,
    };
    struct fetch *fetch = NULL;
    struct err err = {0};
    if (fetch_new(&options, &fetch, &err) < 0)
        fail_msg("%s", err.say);
    return fetch;
}

static struct stream *open_after(struct fetch *fetch, struct test_server *server, const char *path,
                                 unsigned status, uint64_t size, struct reader *reader,
                                 int64_t after_us)
{
    char url[200];
    (void)snprintf(url, sizeof(url), "%s%s", test_server_url(server), path);
    const struct fetch_request request = {.method = "GET", .url = url, .after_us = after_us};
    struct stream *stream = NULL;
    struct err err = {0};
    if (fetch_stream(fetch, &request, status, size, "0123456789abcdef", &stream, &err) < 0)
        fail_msg("%s", err.say);
    if (reader != NULL) {
        atomic_init(&reader->tells, 0);
        require(sem_init(&reader->told, 0, 0) == 0);
        stream_watch(stream, on_ready, reader);
    }
    return stream;
}

static struct stream *open_stream(struct fetch *fetch, struct test_server *server, const char *path,
                                  unsigned status, uint64_t size, struct reader *reader)
{
    return open_after(fetch, server, path, status, size, reader, 0);
}

/* Reads to the end, in pieces of at most `step`; returns what the last read gave. Counts in
 * *ret_later how often there was nothing. */
static ssize_t read_all(struct stream *stream, struct reader *reader, size_t step,
                        uint64_t *ret_bytes, unsigned *ret_later)
{
    auto_mem char *block = mem_alloc(step);
    *ret_bytes = 0;
    *ret_later = 0;
    for (;;) {
        ssize_t n = stream_read(stream, block, step);
        if (n < 0)
            return n;
        if (n == STREAM_LATER) {
            ++*ret_later;
            require(sem_wait(&reader->told) == 0);
        }
        for (ssize_t i = 0; i < n; i++)
            if (block[i] != byte_at(*ret_bytes + (uint64_t)i))
                fail_msg("wrong byte at %llu", (unsigned long long)*ret_bytes);
        *ret_bytes += (uint64_t)n;
    }
}

static void expect(struct fetch *fetch, struct test_server *server, const char *path,
                   unsigned status, uint64_t size, ssize_t end, uint64_t bytes)
{
    struct reader reader;
    uint64_t got;
    unsigned later;
    struct stream *stream = open_stream(fetch, server, path, status, size, &reader);
    assert_int_equal(read_all(stream, &reader, 50000, &got, &later), end);
    assert_int_equal(got, bytes);
    assert_int_equal(stream_read(stream, &got, 1), end); /* it stays so */
    assert_int_equal(atomic_load(&reader.tells), later);
    stream_close(stream);
}

/* ---- Tests ---- */

static void bytes_arrive_in_order(void **state)
{
    (void)state;
    struct test_server *server = test_server_start(answer, NULL, NULL, NULL);
    struct fetch *fetch = make(2 * CLOCK_SECOND_US);
    expect(fetch, server, "/bytes/20000000", 200, 20000000, STREAM_END, 20000000);
    expect(fetch, server, "/bytes/1", 200, 1, STREAM_END, 1);
    expect(fetch, server, "/bytes/0", 200, 0, STREAM_END, 0);
    expect(fetch, server, "/part/100000", 206, 100000, STREAM_END, 100000);
    expect(fetch, server, "/unsaid/300000", 200, 300000, STREAM_END, 300000);
    assert_int_equal(test_server_connections(server), 1); /* one, kept for the next */
    for (int i = 0; i < 3; i++) /* a kept connection that is dead is taken up again */
        expect(fetch, server, "/stale/1000", 200, 1000, STREAM_END, 1000);
    fetch_free(fetch);
    test_server_stop(server);
}

static void anything_else_is_a_failure(void **state)
{
    (void)state;
    struct test_server *server = test_server_start(answer, NULL, NULL, NULL);
    struct fetch *fetch = make(500 * MS);
    expect(fetch, server, "/bytes/1000", 206, 1000, STREAM_FAILED, 0);
    expect(fetch, server, "/bytes/1000", 200, 1001, STREAM_FAILED, 0);
    expect(fetch, server, "/bytes/1000", 200, 999, STREAM_FAILED, 0);
    expect(fetch, server, "/bytes/700/1000", 200, 1000, STREAM_FAILED, 700);
    expect(fetch, server, "/unsaid/700", 200, 1000, STREAM_FAILED, 700);
    expect(fetch, server, "/unsaid/1000", 200, 700, STREAM_FAILED, 0);

    struct reader reader;
    uint64_t got;
    unsigned later;
    struct stream *stream = open_stream(fetch, server, "/refused", 200, 5, &reader);
    assert_int_equal(read_all(stream, &reader, 100, &got, &later), STREAM_FAILED);
    assert_int_equal(fetch_stream_status(stream), 403);
    stream_close(stream);

    struct mono_us began = clock_mono();
    stream = open_stream(fetch, server, "/silent", 200, 100, &reader);
    char bytes[3];
    while (stream_read(stream, bytes, 3) == STREAM_LATER)
        (void)sem_wait(&reader.told);
    assert_memory_equal(bytes, "123", 3);
    assert_int_equal(stream_read(stream, bytes, 3), STREAM_LATER);
    (void)sem_wait(&reader.told);
    assert_int_equal(stream_read(stream, bytes, 3), STREAM_FAILED);
    assert_true(clock_since_us(began) > 450 * MS && clock_since_us(began) < 3500 * MS);
    stream_close(stream);

    test_server_stop(server);
    server = test_server_start(answer, NULL, NULL, NULL);
    char nobody[100];
    (void)snprintf(nobody, sizeof(nobody), "%s/", test_server_url(server));
    test_server_stop(server);
    const struct fetch_request request = {.method = "GET", .url = nobody};
    struct err err;
    assert_int_equal(fetch_stream(fetch, &request, 200, 5, "c", &stream, &err), 0);
    while (stream_read(stream, bytes, 3) == STREAM_LATER) /* it can be read without being told */
        test_sleep_us(5 * MS);
    assert_int_equal(stream_read(stream, bytes, 3), STREAM_FAILED);
    assert_int_equal(fetch_stream_status(stream), 0);
    stream_close(stream);
    fetch_free(fetch);
}

static void a_slow_reader_holds_back_the_sender(void **state)
{
    (void)state;
    struct test_server *server = test_server_start(answer, NULL, NULL, NULL);
    struct fetch *fetch = make(300 * MS);
    struct reader reader;
    atomic_store(&stalled_at, 0);
    struct stream *stream = open_stream(fetch, server, "/endless", 200, UINT64_C(1) << 40, &reader);
    char bytes[1024];
    while (stream_read(stream, bytes, sizeof(bytes)) == STREAM_LATER)
        (void)sem_wait(&reader.told);
    test_sleep_us(2500 * MS); /* longer than the peer may be silent: this silence is ours */
    uint64_t sent = atomic_load(&stalled_at);
    assert_true(sent < 16 * MIB); /* sockets' buffers, mostly */
    test_sleep_us(100 * MS);
    assert_int_equal(atomic_load(&stalled_at), sent);
    uint64_t got = 0;
    while (got < 64 * MIB) {
        ssize_t n = stream_read(stream, bytes, sizeof(bytes));
        assert_true(n >= 0);
        if (n == 0)
            (void)sem_wait(&reader.told);
        got += (uint64_t)n;
    }
    assert_true(atomic_load(&stalled_at) > sent);
    stream_close(stream); /* in the midst of it: the server sees the end */
    fetch_free(fetch);
    test_server_stop(server);
}

static void a_stream_can_begin_later(void **state)
{
    (void)state;
    struct test_server *server = test_server_start(answer, NULL, NULL, NULL);
    struct fetch *fetch = make(CLOCK_SECOND_US);
    struct reader reader;
    struct mono_us began = clock_mono();
    struct stream *late = open_after(fetch, server, "/bytes/10", 200, 10, &reader, 200 * MS);
    struct stream *never = open_after(fetch, server, "/bytes/10", 200, 10, NULL, 3600000 * MS);
    uint64_t got;
    unsigned later;
    assert_int_equal(read_all(late, &reader, 100, &got, &later), STREAM_END);
    assert_true(clock_since_us(began) >= 200 * MS && clock_since_us(began) < 1000 * MS);
    stream_close(late);
    stream_close(never);
    fetch_free(fetch);
    assert_int_equal(test_server_requests(server), 1);
    test_server_stop(server);
}

/* ---- Many at a time, some of them closed at any moment ---- */

struct crowd {
    struct fetch *fetch;
    struct test_server *server;
    unsigned seed;
};

static void read_some(struct crowd *crowd, unsigned round)
{
    struct reader reader;
    uint64_t size = 1 + (crowd->seed * 7919U + round * 104729U) % 700000;
    uint64_t wanted = round % 3 == 0 ? size / 2 : size;
    char path[60];
    (void)snprintf(path, sizeof(path), "/bytes/%llu", (unsigned long long)size);
    struct stream *stream = open_stream(crowd->fetch, crowd->server, path, 200, size, &reader);
    char bytes[9000];
    uint64_t got = 0;
    ssize_t n = 0;
    while (got < wanted || (n >= 0 && wanted == size)) {
        n = stream_read(stream, bytes, sizeof(bytes));
        if (n < 0)
            break;
        if (n == 0 && round % 5 == 1)
            break; /* closed while it waits to be told */
        if (n == 0)
            require(sem_wait(&reader.told) == 0);
        got += (uint64_t)n;
    }
    require(n != STREAM_FAILED && (n != STREAM_END || got == size));
    stream_close(stream);
    unsigned tells = atomic_load(&reader.tells);
    if (round % 7 == 0)
        test_sleep_us(MS);
    require(atomic_load(&reader.tells) == tells);
    require(sem_destroy(&reader.told) == 0); /* nobody posts any more */
}

static void *read_many(void *context)
{
    struct crowd *crowd = context;
    for (unsigned round = 0; round < 40; round++)
        read_some(crowd, round);
    return NULL;
}

static void many_streams_at_a_time(void **state)
{
    (void)state;
    struct test_server *server = test_server_start(answer, NULL, NULL, NULL);
    struct fetch *fetch = make(10 * CLOCK_SECOND_US);
    struct crowd crowds[8];
    pthread_t threads[ARRAY_SIZE(crowds)];
    for (unsigned i = 0; i < ARRAY_SIZE(crowds); i++) {
        crowds[i] = (struct crowd){fetch, server, i};
        assert_int_equal(pthread_create(&threads[i], NULL, read_many, &crowds[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(crowds); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    fetch_free(fetch);
    test_server_stop(server);
}

/* ---- Speed, shown and not asserted ---- */

static bool answer_fast(void *context, struct test_exchange *x)
{
    auto_mem char *block = mem_zalloc(MIB);
    uint64_t size = *(uint64_t *)context;
    (void)test_say(x, "HTTP/1.1 200 OK\r\nContent-Length: %llu\r\n\r\n", (unsigned long long)size);
    for (uint64_t at = 0; at < size; at += MIB)
        if (!test_send(x, block, MIB))
            return false;
    return true;
}

static void one_stream_is_fast(void **state)
{
    (void)state;
    uint64_t size = 256 * MIB;
    struct test_server *server = test_server_start(answer_fast, &size, NULL, NULL);
    struct fetch *fetch = make(10 * CLOCK_SECOND_US);
    auto_mem char *block = mem_alloc(65536);
    struct reader reader;
    struct mono_us began = clock_mono();
    struct stream *stream = open_stream(fetch, server, "/", 200, size, &reader);
    uint64_t got = 0;
    ssize_t n;
    unsigned later = 0;
    while ((n = stream_read(stream, block, 65536)) >= 0) {
        got += (uint64_t)n;
        if (n == 0) {
            later++;
            require(sem_wait(&reader.told) == 0);
        }
    }
    int64_t us = clock_since_us(began);
    assert_int_equal(n, STREAM_END);
    assert_int_equal(got, size);
    stream_close(stream);
    print_message("%llu MiB in %lld us: %lld MB/s; the reader was told %u times\n",
                  (unsigned long long)(size / MIB), (long long)us, (long long)((int64_t)size / us),
                  later);
    fetch_free(fetch);
    test_server_stop(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bytes_arrive_in_order),
        TEST(anything_else_is_a_failure),
        TEST(a_slow_reader_holds_back_the_sender),
        TEST(a_stream_can_begin_later),
        TEST(many_streams_at_a_time),
        TEST(one_stream_is_fast),
    };
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
