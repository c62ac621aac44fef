/* Requests that wait for their answer: what is sent, what comes back, and what goes wrong. */
#include "fetch/fetch.h"
#include "test_server.h"

#include <signal.h>

#define MS INT64_C(1000)

static struct fetch *make(int64_t silence_us, const char *ca_file)
{
    const struct fetch_options options = {
        .ca_file = ca_file,
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

static struct fetch_request get(struct call *call, struct test_server *server, const char *path)
{
    struct str url = str_printf(&call->arena, "%s%s", test_server_url(server), path);
    return (struct fetch_request){.method = "GET", .url = url.p};
}

#define assert_str(s, z)                                                             \
    do {                                                                             \
        struct str s_ = (s);                                                         \
        if (!str_eq(s_, str_from(z)))                                                \
            fail_msg("\"" STR_FMT "\" is not \"%s\"", STR_ARG(s_), (const char *)z); \
    } while (0)

static void add_bytes(struct buf *buf, size_t n)
{
    for (size_t i = 0; i < n; i++)
        buf_add_char(buf, (char)('a' + i % 26));
}

static bool say_many_headers(struct test_exchange *x, unsigned n, size_t bytes)
{
    auto_buf filler = BUF_INIT(bytes);
    add_bytes(&filler, bytes);
    (void)test_say(x, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n");
    for (unsigned i = 0; i < n; i++)
        (void)test_say(x, "X-%u: " STR_FMT "\r\n", i, STR_ARG(buf_str(&filler)));
    return test_say(x, "\r\n");
}

static bool is(const struct test_exchange *x, const char *path)
{
    return str_eq(x->target, str_from(path));
}

static bool answer_badly(struct test_exchange *x)
{
    if (is(x, "/short"))
        return test_say(x, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n12345") && false;
    if (is(x, "/nothing"))
        return false;
    if (is(x, "/garbage"))
        return test_say(x, "SSH-2.0-OpenSSH_9.2\r\n\r\n") && false;
    if (is(x, "/silent"))
        test_sleep_us(3 * CLOCK_SECOND_US);
    if (is(x, "/trickle")) {
        (void)test_say(x, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        for (int i = 0; i < 60 && test_say(x, "."); i++)
            test_sleep_us(50 * MS);
        return false;
    }
    if (is(x, "/headers-many"))
        return say_many_headers(x, 1000, 4);
    if (is(x, "/headers-long"))
        return say_many_headers(x, 20, 4000);
    return test_reply(x, "404 Not Found", "", STR("no such thing"));
}

static bool answer(void *context, struct test_exchange *x)
{
    (void)context;
    if (is(x, "/stale")) { /* looks as if it were kept open */
        (void)test_reply(x, "200 OK", "", STR("once"));
        return false;
    }
    if (is(x, "/reset") && x->nth > 1)
        return false; /* reads the request, and hangs up */
    if (is(x, "/large")) {
        auto_buf body = BUF_INIT(3 << 20);
        add_bytes(&body, 3 << 20);
        return test_reply(x, "200 OK", "", buf_str(&body));
    }
    if (is(x, "/chunked"))
        return test_say(x, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                           "5\r\nhello\r\n7\r\n, world\r\n0\r\nX-Trailer: late\r\n\r\n");
    if (is(x, "/continue"))
        return test_say(x, "HTTP/1.1 100 Continue\r\nX-Early: 1\r\n\r\n"
                           "HTTP/1.1 201 Created\r\nContent-Length: 2\r\nX-Late: 1\r\n\r\nok");
    if (is(x, "/redirect"))
        return test_reply(x, "307 Temporary Redirect", "Location: /echo\r\n", STR("over there"));
    if (is(x, "/gzip"))
        return test_reply(x, "200 OK", "Content-Encoding: gzip\r\n", STR("as it is"));
    if (is(x, "/error-large")) {
        auto_buf body = BUF_INIT(2 << 20);
        add_bytes(&body, 2 << 20);
        return test_reply(x, "500 No", "", buf_str(&body));
    }
    if (str_starts(x->target, STR("/echo")) || is(x, "/reset"))
        return str_eq(x->method, STR("HEAD"))
                   ? test_say(x, "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n")
                   : test_reply(x, "200 OK", "X-A:  spaced \r\nx-b:\r\n", x->head);
    return answer_badly(x);
}

/* ---- What is sent ---- */

static void a_request_is_sent_as_it_stands(void **state)
{
    (void)state;
    struct test_server *server = test_server_start(answer, NULL, NULL, NULL);
    struct fetch *fetch = make(CLOCK_SECOND_US, NULL);
    auto_call call;
    call_init(&call);
    struct fetch_request request = get(&call, server, "/echo/../a/./b%2F%7e//?q=%20&&x");
    request.headers[request.n_headers++] = (struct fetch_header){"X-One", "1 2"};
    request.headers[request.n_headers++] = (struct fetch_header){"x-empty", ""};
    struct fetch_answer got;
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), 0);
    assert_int_equal(got.status, 200);
    struct str expected =
        str_printf(&call.arena,
                   "GET /echo/../a/./b%%2F%%7e//?q=%%20&&x HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n"
                   "User-Agent: test/1\r\nAccept: */*\r\nX-One: 1 2\r\nx-empty:\r\n\r\n",
                   test_server_port(server));
    assert_str(got.body, expected.p);
    assert_str(fetch_header(&got, "x-a"), "spaced");
    assert_non_null(fetch_header(&got, "X-B").p);
    assert_str(fetch_header(&got, "X-B"), "");
    assert_null(fetch_header(&got, "X").p);
    fetch_free(fetch);
    test_server_stop(server);
}

static void bodies_and_methods(void **state)
{
    (void)state;
    struct test_server *server = test_server_start(answer, NULL, NULL, NULL);
    struct fetch *fetch = make(CLOCK_SECOND_US, NULL);
    auto_call call;
    call_init(&call);
    struct fetch_answer got;
    struct fetch_request request = get(&call, server, "/echo");
    auto_buf body = BUF_INIT(3 << 20);
    add_bytes(&body, 3 << 20);
    request.method = "PUT";
    request.body = buf_str(&body);
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), 0);
    assert_true(str_starts(got.body, STR("PUT /echo HTTP/1.1\r\n")));
    assert_non_null(memmem(got.body.p, got.body.n, "Content-Length: 3145728\r\n", 25));
    assert_null(memmem(got.body.p, got.body.n, "Expect", 6));
    assert_null(memmem(got.body.p, got.body.n, "Content-Type", 12));

    request.method = "POST";
    request.body = STR("");
    request.headers[request.n_headers++] = (struct fetch_header){"content-type", "text/x"};
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), 0);
    assert_true(str_starts(got.body, STR("POST /echo HTTP/1.1\r\n")));
    assert_non_null(memmem(got.body.p, got.body.n, "Content-Length: 0\r\n", 19));
    assert_non_null(memmem(got.body.p, got.body.n, "content-type: text/x\r\n", 22));

    request = get(&call, server, "/echo");
    request.method = "DELETE";
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), 0);
    assert_true(str_starts(got.body, STR("DELETE /echo HTTP/1.1\r\n")));
    assert_null(memmem(got.body.p, got.body.n, "Content-Length", 14));

    request.method = "HEAD";
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), 0);
    assert_str(fetch_header(&got, "content-length"), "12345");
    assert_int_equal(got.body.n, 0);
    assert_int_equal(test_server_connections(server), 1); /* all on one kept connection */
    fetch_free(fetch);
    test_server_stop(server);
}

static void what_cannot_be_sent_is_refused(void **state)
{
    (void)state;
    static const char *const urls[] = {"",
                                       "/path",
                                       "ftp://127.0.0.1/",
                                       "file:///etc/passwd",
                                       "http://",
                                       "http:///x",
                                       "http://user:word@127.0.0.1/",
                                       "http://127.0.0.1/a b",
                                       "http://127.0.0.1/\r\nX: y",
                                       "http://127.0.0.1:99999/"};
    struct fetch *fetch = make(CLOCK_SECOND_US, NULL);
    auto_call call;
    call_init(&call);
    struct fetch_answer got;
    for (size_t i = 0; i < ARRAY_SIZE(urls); i++) {
        const struct fetch_request request = {.method = "GET", .url = urls[i]};
        assert_int_equal(fetch_perform(&call, fetch, &request, &got), -1);
        assert_int_equal(call.err.kind, ERR_INVALID);
        assert_null(strstr(call.err.why, "word"));
        struct stream *stream = NULL;
        if (i + 1 < ARRAY_SIZE(urls)) /* the library alone knows that this is no port */
            assert_int_equal(fetch_stream(fetch, &request, 200, 1, "c", &stream, &call.err), -1);
    }
    static const struct fetch_header headers[] = {
        {"X-A", "b\r\nX-C: d"}, {"X A", "b"}, {"X-A:", "b"}, {"", "b"}, {"X-A", "\x01"}};
    for (size_t i = 0; i < ARRAY_SIZE(headers); i++) {
        const struct fetch_request request = {
            .method = "GET", .url = "http://127.0.0.1:9/", .headers = {headers[i]}, .n_headers = 1};
        assert_int_equal(fetch_perform(&call, fetch, &request, &got), -1);
        assert_int_equal(call.err.kind, ERR_INVALID);
    }
    fetch_free(fetch);
}

/* ---- What comes back ---- */

static void answers_are_taken_whole(void **state)
{
    (void)state;
    struct test_server *server = test_server_start(answer, NULL, NULL, NULL);
    struct fetch *fetch = make(CLOCK_SECOND_US, NULL);
    auto_call call;
    call_init(&call);
    struct fetch_answer got;
    struct fetch_request request = get(&call, server, "/chunked");
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), 0);
    assert_str(got.body, "hello, world");
    assert_null(fetch_header(&got, "X-Trailer").p);
    request = get(&call, server, "/continue");
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), 0);
    assert_int_equal(got.status, 201);
    assert_str(got.body, "ok");
    assert_null(fetch_header(&got, "X-Early").p);
    assert_str(fetch_header(&got, "X-Late"), "1");
    request = get(&call, server, "/redirect");
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), 0);
    assert_int_equal(got.status, 307);
    assert_str(fetch_header(&got, "location"), "/echo");
    assert_str(got.body, "over there");
    request = get(&call, server, "/gzip");
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), 0);
    assert_str(got.body, "as it is");
    request = get(&call, server, "/absent");
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), 0);
    assert_int_equal(got.status, 404);
    assert_str(got.body, "no such thing");
    fetch_free(fetch);
    test_server_stop(server);
}

struct taken {
    uint64_t bytes;
    uint64_t most;
    unsigned begun;
    bool refuses;
};

static int take_begin(void *context, const struct fetch_answer *head, struct err *err)
{
    struct taken *taken = context;
    assert_int_equal(taken->bytes, 0);
    assert_int_equal(head->status, 200);
    assert_non_null(fetch_header(head, "Content-Length").p);
    taken->begun++;
    return taken->refuses ? err_set(err, ERR_PRECONDITION, "not this one") : 0;
}

static int take_piece(void *context, struct str piece, struct err *err)
{
    struct taken *taken = context;
    for (size_t i = 0; i < piece.n; i++)
        if (piece.p[i] != (char)('a' + (taken->bytes + i) % 26))
            return err_set(err, ERR_CORRUPT, "wrong byte");
    taken->bytes += piece.n;
    return taken->bytes > taken->most ? err_set(err, ERR_FULL, "enough") : 0;
}

static void answers_can_be_taken_in_pieces(void **state)
{
    (void)state;
    struct test_server *server = test_server_start(answer, NULL, NULL, NULL);
    struct fetch *fetch = make(CLOCK_SECOND_US, NULL);
    auto_call call;
    call_init(&call);
    struct fetch_answer got;
    struct taken taken = {.most = 3 << 20};
    struct fetch_request request = get(&call, server, "/large");
    request.begin = take_begin;
    request.take = take_piece;
    request.context = &taken;
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), 0);
    assert_int_equal(taken.bytes, 3 << 20);
    assert_int_equal(taken.begun, 1);
    assert_int_equal(got.body.n, 0);

    taken = (struct taken){.most = 100000};
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), -1);
    assert_int_equal(call.err.kind, ERR_FULL);
    taken = (struct taken){.refuses = true};
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), -1);
    assert_int_equal(call.err.kind, ERR_PRECONDITION);
    assert_int_equal(taken.bytes, 0);
    request.url = get(&call, server, "/echo").url; /* an empty body is begun too */
    request.method = "HEAD";
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), -1);
    assert_int_equal(call.err.kind, ERR_PRECONDITION);

    request = get(&call, server, "/absent"); /* what is not the thing asked for is kept */
    request.begin = take_begin;
    request.take = take_piece;
    request.context = &taken;
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), 0);
    assert_str(got.body, "no such thing");
    fetch_free(fetch);
    test_server_stop(server);
}

static void answers_are_bounded(void **state)
{
    (void)state;
    static const char *const paths[] = {"/large", "/error-large", "/headers-many", "/headers-long"};
    struct test_server *server = test_server_start(answer, NULL, NULL, NULL);
    struct fetch *fetch = make(CLOCK_SECOND_US, NULL);
    auto_call call;
    call_init(&call);
    struct fetch_answer got;
    struct fetch_request request;
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        request = get(&call, server, paths[i]);
        assert_int_equal(fetch_perform(&call, fetch, &request, &got), -1);
        assert_int_equal(call.err.kind, ERR_TOO_LARGE);
    }
    request = get(&call, server, "/large");
    request.answer_bytes_max = 3 << 20;
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), 0);
    assert_int_equal(got.body.n, 3 << 20);
    fetch_free(fetch);
    test_server_stop(server);
}

/* ---- What goes wrong ---- */

static void broken_answers_are_failures(void **state)
{
    (void)state;
    static const char *const paths[] = {"/short", "/nothing", "/garbage"};
    struct test_server *server = test_server_start(answer, NULL, NULL, NULL);
    struct fetch *fetch = make(CLOCK_SECOND_US, NULL);
    auto_call call;
    call_init(&call);
    struct fetch_answer got;
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        struct fetch_request request = get(&call, server, paths[i]);
        assert_int_equal(fetch_perform(&call, fetch, &request, &got), -1);
        assert_int_equal(call.err.kind, ERR_IO);
        assert_non_null(strstr(call.err.why, test_server_url(server)));
        assert_null(strstr(call.err.say, "127.0.0.1"));
    }
    struct fetch_request request = get(&call, server, "/echo");
    test_server_stop(server);
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), -1); /* nobody listens */
    assert_int_equal(call.err.kind, ERR_IO);
    request.url = "http://does-not-exist.invalid/?X-Amz-Signature=secret";
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), -1);
    assert_int_equal(call.err.kind, ERR_IO);
    assert_null(strstr(call.err.why, "secret"));
    fetch_free(fetch);
}

static void silence_ends_in_time(void **state)
{
    (void)state;
    struct test_server *server = test_server_start(answer, NULL, NULL, NULL);
    struct fetch *fetch = make(300 * MS, NULL);
    auto_call call;
    call_init(&call);
    struct fetch_answer got;
    struct fetch_request request = get(&call, server, "/silent");
    struct mono_us began = clock_mono();
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), -1);
    assert_int_equal(call.err.kind, ERR_TIMEOUT);
    assert_true(clock_since_us(began) > 250 * MS && clock_since_us(began) < 2500 * MS);

    request = get(&call, server, "/trickle"); /* never silent, but too slow as a whole */
    request.within_us = 700 * MS;
    began = clock_mono();
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), -1);
    assert_int_equal(call.err.kind, ERR_TIMEOUT);
    assert_true(clock_since_us(began) > 600 * MS && clock_since_us(began) < 2500 * MS);
    fetch_free(fetch);
    test_server_stop(server);
}

static void who_is_given_up_ends_soon(void **state)
{
    (void)state;
    struct test_server *server = test_server_start(answer, NULL, NULL, NULL);
    struct fetch *fetch = make(20 * CLOCK_SECOND_US, NULL);
    auto_call call;
    call_init(&call);
    static const char *const paths[] = {"/silent", "/trickle"};
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        struct fetch_answer got;
        struct fetch_request request = get(&call, server, paths[i]);
        struct mono_us began = clock_mono();
        fetch_give_up(fetch, (struct mono_us){began.us + 300 * MS});
        assert_int_equal(fetch_perform(&call, fetch, &request, &got), -1);
        assert_int_equal(call.err.kind, ERR_TIMEOUT);
        assert_in_range(clock_since_us(began), 300 * MS, 1800 * MS);
        unsigned requests = test_server_requests(server);
        request = get(&call, server, "/echo");
        assert_int_equal(fetch_perform(&call, fetch, &request, &got), -1);
        assert_int_equal(call.err.kind, ERR_TIMEOUT);
        assert_int_equal(test_server_requests(server), requests);
        fetch_give_up(fetch, (struct mono_us){INT64_MAX});
        assert_int_equal(fetch_perform(&call, fetch, &request, &got), 0);
    }
    fetch_free(fetch);
    test_server_stop(server);
}

static void a_dead_kept_connection_is_taken_up_again(void **state)
{
    (void)state;
    struct test_server *server = test_server_start(answer, NULL, NULL, NULL);
    struct fetch *fetch = make(CLOCK_SECOND_US, NULL);
    auto_call call;
    call_init(&call);
    struct fetch_answer got;
    struct fetch_request request = get(&call, server, "/stale");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(fetch_perform(&call, fetch, &request, &got), 0);
        assert_str(got.body, "once");
    }
    assert_int_equal(test_server_connections(server), 3);

    /* The peer hangs up when it has seen the request: with a small body, and in the midst of one */
    auto_buf body = BUF_INIT(8 << 20);
    add_bytes(&body, 8 << 20);
    for (int i = 0; i < 4; i++) {
        request = get(&call, server, "/reset");
        request.method = "PUT";
        request.body = i % 2 == 0 ? STR("small") : buf_str(&body);
        assert_int_equal(fetch_perform(&call, fetch, &request, &got), 0);
        assert_int_equal(got.status, 200);
    }
    fetch_free(fetch);
    test_server_stop(server);
}

/* ---- Many ---- */

static struct fetch *shared;
static struct test_server *shared_server;

static void *ask_often(void *context)
{
    (void)context;
    auto_call call;
    call_init(&call);
    struct fetch_answer got;
    for (int i = 0; i < 50; i++) {
        struct fetch_request request = get(&call, shared_server, "/echo");
        require(fetch_perform(&call, shared, &request, &got) == 0 && got.status == 200);
    }
    return NULL;
}

static void connections_are_kept_and_bounded(void **state)
{
    (void)state;
    shared_server = test_server_start(answer, NULL, NULL, NULL);
    shared = make(5 * CLOCK_SECOND_US, NULL);
    pthread_t threads[8];
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask_often, NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(test_server_requests(shared_server), 400);
    unsigned before = test_server_connections(shared_server);
    assert_true(before >= 1 && before < 200);
    ask_often(NULL); /* one after the other: on a connection that is there */
    assert_int_equal(test_server_connections(shared_server), before);
    fetch_free(shared);
    test_server_stop(shared_server);
}

/* ---- TLS ---- */

static const char *path_of(struct call *call, const char *name)
{
    return str_printf(&call->arena, "%s/%s", test_folder(), name).p;
}

static void make_certificate(struct call *call, const char *name, const char *subject)
{
    const char *key = str_printf(&call->arena, "%s/%s.key", test_folder(), name).p;
    const char *pem = str_printf(&call->arena, "%s/%s.pem", test_folder(), name).p;
    const char *const argv[] = {"openssl",
                                "req",
                                "-x509",
                                "-newkey",
                                "ec",
                                "-pkeyopt",
                                "ec_paramgen_curve:prime256v1",
                                "-nodes",
                                "-keyout",
                                key,
                                "-out",
                                pem,
                                "-days",
                                "2",
                                "-subj",
                                "/CN=x",
                                "-addext",
                                subject,
                                NULL};
    assert_int_equal(test_run(argv), 0);
}

static void certificates_are_checked(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    make_certificate(&call, "right", "subjectAltName=IP:127.0.0.1");
    make_certificate(&call, "other", "subjectAltName=DNS:elsewhere.example");
    struct test_server *server =
        test_server_start(answer, NULL, path_of(&call, "right.pem"), path_of(&call, "right.key"));
    struct test_server *elsewhere =
        test_server_start(answer, NULL, path_of(&call, "other.pem"), path_of(&call, "other.key"));
    struct fetch_answer got;
    struct fetch_request request = get(&call, server, "/echo");
    struct fetch *fetch = make(CLOCK_SECOND_US, path_of(&call, "right.pem"));
    for (int i = 0; i < 3; i++)
        assert_int_equal(fetch_perform(&call, fetch, &request, &got), 0);
    assert_int_equal(test_server_connections(server), 1);
    fetch_free(fetch);

    fetch = make(CLOCK_SECOND_US, path_of(&call, "other.pem")); /* signed by somebody else */
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), -1);
    assert_int_equal(call.err.kind, ERR_IO);
    assert_non_null(strstr(call.err.why, "certificate"));
    request = get(&call, elsewhere, "/echo"); /* trusted, but of another name */
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), -1);
    assert_int_equal(call.err.kind, ERR_IO);
    fetch_free(fetch);

    fetch = make(CLOCK_SECOND_US, NULL); /* not one of the system's */
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), -1);
    assert_int_equal(call.err.kind, ERR_IO);
    fetch_free(fetch);
    test_server_stop(server);
    test_server_stop(elsewhere);
}

static void a_broken_ca_file_is_refused_at_once(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    test_write_file(path_of(&call, "text.pem"), STR("not a certificate\n"));
    test_write_file(path_of(&call, "empty.pem"), STR(""));
    static const char *const names[] = {"text.pem", "empty.pem", "absent.pem"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        const struct fetch_options options = {.ca_file = path_of(&call, names[i])};
        struct fetch *fetch = NULL;
        assert_int_equal(fetch_new(&options, &fetch, &call.err), -1);
        assert_int_equal(call.err.kind, ERR_INVALID);
        assert_non_null(strstr(call.err.say, names[i]));
    }
}

/* ---- Proxies ---- */

static bool answer_as_proxy(void *context, struct test_exchange *x)
{
    (void)context;
    return test_reply(x, "200 OK", "", x->target);
}

static void proxies_of_the_environment(void **state)
{
    (void)state;
    struct test_server *proxy = test_server_start(answer_as_proxy, NULL, NULL, NULL);
    struct test_server *server = test_server_start(answer, NULL, NULL, NULL);
    assert_int_equal(setenv("http_proxy", test_server_url(proxy), 1), 0);
    struct fetch *fetch = make(CLOCK_SECOND_US, NULL);
    auto_call call;
    call_init(&call);
    struct fetch_answer got;
    struct fetch_request request = {.method = "GET", .url = "http://registry.example/v2/"};
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), 0);
    assert_str(got.body, "http://registry.example/v2/");
    request = get(&call, server, "/absent"); /* loopback: asked directly */
    assert_int_equal(fetch_perform(&call, fetch, &request, &got), 0);
    assert_str(got.body, "no such thing");
    assert_int_equal(unsetenv("http_proxy"), 0);
    fetch_free(fetch);
    test_server_stop(proxy);
    test_server_stop(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_request_is_sent_as_it_stands),      TEST(bodies_and_methods),
        TEST(what_cannot_be_sent_is_refused),      TEST(answers_are_taken_whole),
        TEST(answers_can_be_taken_in_pieces),      TEST(answers_are_bounded),
        TEST(broken_answers_are_failures),         TEST(silence_ends_in_time),
        TEST(who_is_given_up_ends_soon),           TEST(a_dead_kept_connection_is_taken_up_again),
        TEST(connections_are_kept_and_bounded),    TEST(certificates_are_checked),
        TEST(a_broken_ca_file_is_refused_at_once), TEST(proxies_of_the_environment),
    };
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
