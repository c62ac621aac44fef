/* The application that the tests of this room serve. */
#include "http/test_support.h"

#include <fcntl.h>
#include <sys/stat.h>

#define BODY_BYTES_MAX ((size_t)8 << 20)
#define PATIENCE_US (20 * CLOCK_SECOND_US)

struct state {
    struct buf body;
    bool keeps;
    bool started;
    bool ended;
    size_t piece_bytes; /* of the first piece */
    bool last_piece;    /* a shorter one came */
    unsigned pieces;
    uint64_t digest;
    enum hold hold;
    enum hold refuse;
    uint64_t after;     /* the piece that is held or refused */
    atomic_bool inside; /* of a callback */
};

/* ---- Small things ---- */

static bool is_path(const struct http_exchange *x, const char *path)
{
    return str_eq(x->path, str_from(path));
}

static uint64_t number(struct http_exchange *x, const char *name, uint64_t fallback)
{
    struct str value = {NULL, 0};
    uint64_t n = 0;
    if (http_query_find(x, name, &value) < 0 || value.p == NULL ||
        str_to_u64(value, UINT64_MAX, &n, &x->call.err) < 0)
        return fallback;
    return n;
}

static enum hold hold_named(struct http_exchange *x, const char *name)
{
    static const char *const words[] = {"none", "start", "body", "end"};
    struct str value = {NULL, 0};
    if (http_query_find(x, name, &value) == 0)
        for (size_t i = 0; i < ARRAY_SIZE(words); i++)
            if (str_eq(value, str_from(words[i])))
                return (enum hold)i;
    return HOLD_NONE;
}

static void check(struct test_app *app, bool right)
{
    if (!right)
        atomic_fetch_add(&app->wrong, 1);
}

#define FNV_BASIS UINT64_C(14695981039346656037)
static uint64_t fnv(uint64_t digest, const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        digest = (digest ^ ((const unsigned char *)bytes)[i]) * UINT64_C(1099511628211);
    return digest;
}

void test_digest(const void *bytes, size_t n, char text[64])
{
    (void)snprintf(text, 64, "%zu %016llx", n, (unsigned long long)fnv(FNV_BASIS, bytes, n));
}

unsigned char test_byte(uint64_t at)
{
    return (unsigned char)(at % 1021 * 7);
}

/* ---- Holding ---- */

void test_release(struct test_app *app)
{
    auto_lock locked = lock_take(&app->mutex);
    app->open = true;
    (void)pthread_cond_broadcast(&app->released);
}

static void hold(struct test_app *app)
{
    auto_lock locked = lock_take(&app->mutex);
    atomic_fetch_add(&app->held, 1);
    while (!app->open)
        require(pthread_cond_wait(&app->released, &app->mutex) == 0);
    atomic_fetch_sub(&app->held, 1);
}

void test_await(const char *what, atomic_uint *counter, unsigned value)
{
    struct mono_us began = clock_mono();
    while (atomic_load(counter) != value) {
        if (clock_since_us(began) > PATIENCE_US)
            fail_msg("%s: %u instead of %u after 20 s", what, atomic_load(counter), value);
        test_sleep_us(1000);
    }
}

/* ---- Streams ---- */

/* Its thread is the source: it makes pieces, and tells who waits. */
struct source {
    struct stream stream;
    struct test_app *app;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t closing;
    bool closed;
    bool awaited;
    uint64_t at;
    uint64_t there; /* bytes made */
    uint64_t makes; /* in all; when that is not enough it stays silent */
    uint64_t ends;
    uint64_t fails;
    uint64_t piece;
    uint64_t reads;
    int64_t us;
    void (*ready)(void *context);
    void *ready_context;
};

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static ssize_t source_read_some(struct stream *stream, void *p, size_t max)
{
    struct source *source = (struct source *)stream;
    auto_lock locked = lock_take(&source->mutex);
    atomic_fetch_add(&source->app->streamed, 1);
    check(source->app, source->ready != NULL && !source->awaited);
    if (source->at >= source->fails)
        return STREAM_FAILED;
    if (source->at >= source->ends)
        return STREAM_END;
    uint64_t there = smaller(source->there, smaller(source->ends, source->fails));
    size_t n = (size_t)smaller(smaller(max, source->reads), there - source->at);
    if (n == 0) {
        source->awaited = true;
        return STREAM_LATER;
    }
    for (size_t i = 0; i < n; i++)
        ((unsigned char *)p)[i] = test_byte(source->at + i);
    source->at += n;
    return (ssize_t)n;
}

static void source_watch_it(struct stream *stream, void (*ready)(void *context), void *context)
{
    struct source *source = (struct source *)stream;
    check(source->app, source->ready == NULL);
    source->ready = ready;
    source->ready_context = context;
}

static void source_close(struct stream *stream)
{
    struct source *source = (struct source *)stream;
    {
        auto_lock locked = lock_take(&source->mutex);
        source->closed = true;
        (void)pthread_cond_signal(&source->closing);
    }
    require(pthread_join(source->thread, NULL) == 0);
    (void)pthread_cond_destroy(&source->closing);
    (void)pthread_mutex_destroy(&source->mutex);
    atomic_fetch_sub(&source->app->streams, 1);
    free(source);
}

/* Waits for the next piece's time. */
static void pause_for(struct source *source)
{
    int64_t until = clock_wall().us + source->us;
    struct timespec t = {.tv_sec = until / CLOCK_SECOND_US,
                         .tv_nsec = until % CLOCK_SECOND_US * 1000};
    while (!source->closed && clock_wall().us < until)
        (void)pthread_cond_timedwait(&source->closing, &source->mutex, &t);
}

static void *produce(void *arg)
{
    struct source *source = arg;
    auto_lock locked = lock_take(&source->mutex);
    while (!source->closed && source->there < source->makes) {
        if (source->us > 0) {
            pause_for(source);
        } else { /* as fast as can be, and in the reader's way */
            require(pthread_mutex_unlock(&source->mutex) == 0);
            (void)sched_yield();
            (void)lock_take(&source->mutex);
        }
        source->there = smaller(source->makes, source->there + source->piece);
        if (source->awaited) {
            source->awaited = false;
            source->ready(source->ready_context);
        }
    }
    return NULL;
}

static struct stream *source_new(struct test_app *app, struct http_exchange *x)
{
    static const struct stream_kind kind = {source_read_some, source_watch_it, source_close};
    struct source *source = mem_zalloc(sizeof(*source));
    *source = (struct source){
        .stream = {&kind},
        .app = app,
        .makes = number(x, "makes", number(x, "size", 0)),
        .ends = number(x, "ends", UINT64_MAX),
        .fails = number(x, "fails", UINT64_MAX),
        .piece = number(x, "piece", UINT64_MAX / 2),
        .reads = number(x, "reads", UINT64_MAX),
        .us = (int64_t)number(x, "us", 0),
    };
    require(pthread_mutex_init(&source->mutex, NULL) == 0);
    require(pthread_cond_init(&source->closing, NULL) == 0);
    atomic_fetch_add(&app->streams, 1);
    require(pthread_create(&source->thread, NULL, produce, source) == 0);
    return &source->stream;
}

/* ---- Callbacks ---- */

static bool is_worker(void)
{
    char name[16] = "";
    (void)pthread_getname_np(pthread_self(), name, sizeof(name));
    return strcmp(name, "http-worker") == 0;
}

/* At the beginning and the end of each callback after `begin`. */
static void enter(struct test_app *app, struct http_exchange *x, bool at_end)
{
    struct state *state = x->state;
    check(app, !atomic_exchange(&state->inside, true));
    check(app, !state->ended && x->response.status == 0);
    bool waits = x->waits == HTTP_WAITS_ALWAYS || (x->waits == HTTP_WAITS_AT_END && at_end);
    check(app, is_worker() == waits);
    check(app, http_header(x, "Host").p != NULL || !waits);
    if (waits)
        atomic_fetch_add(&app->running, 1);
}

static int leave(struct test_app *app, struct http_exchange *x, int result)
{
    struct state *state = x->state;
    if (is_worker())
        atomic_fetch_sub(&app->running, 1);
    state->ended = result < 0;
    check(app, atomic_exchange(&state->inside, false));
    return result;
}

static int app_begin(void *context, struct http_exchange *x)
{
    struct test_app *app = context;
    atomic_fetch_add(&app->begun, 1);
    if (x->certified)
        atomic_fetch_add(&app->certified, 1);
    http_respond_header(x, "X-Test", "yes");

    struct state *state = mem_zalloc(sizeof(*state));
    *state = (struct state){
        .body = BUF_INIT(BODY_BYTES_MAX),
        .keeps = is_path(x, "/echo"),
        .digest = FNV_BASIS,
        .hold = hold_named(x, "hold"),
        .refuse = hold_named(x, "refuse"),
        .after = number(x, "after", 1),
    };
    x->state = state;
    if (is_path(x, "/wait") || is_path(x, "/wait-refused"))
        x->waits = HTTP_WAITS_AT_END;
    else if (is_path(x, "/far") || number(x, "far", 0) != 0)
        x->waits = HTTP_WAITS_ALWAYS;
    if (is_path(x, "/refuse") || is_path(x, "/wait-refused")) {
        http_respond_text(x, 401, "text/plain", STR("who are you?\n"));
        return -1;
    }
    return 0;
}

static int app_start(void *context, struct http_exchange *x)
{
    struct test_app *app = context;
    struct state *state = x->state;
    enter(app, x, false);
    check(app, !state->started && state->pieces == 0);
    state->started = true;
    if (state->hold == HOLD_START)
        hold(app);
    if (state->refuse != HOLD_START && !is_path(x, "/refuse-start"))
        return leave(app, x, 0);
    http_respond_text(x, 401, "text/plain", STR("not you\n"));
    return leave(app, x, -1);
}

static void look_at_piece(struct test_app *app, struct state *state, struct str piece)
{
    check(app, state->started && !state->last_piece && piece.n > 0);
    if (state->pieces++ == 0)
        state->piece_bytes = piece.n;
    check(app, piece.n <= state->piece_bytes);
    state->last_piece = piece.n < state->piece_bytes;
    state->digest = fnv(state->digest, piece.p, piece.n);
    atomic_fetch_add(&app->taken, piece.n);
}

static int app_body(void *context, struct http_exchange *x, struct str piece)
{
    struct test_app *app = context;
    struct state *state = x->state;
    enter(app, x, false);
    look_at_piece(app, state, piece);
    if (state->keeps)
        buf_add_str(&state->body, piece);
    if (is_worker())
        test_sleep_us((int64_t)number(x, "block_us", 0));
    if (state->hold == HOLD_BODY && state->pieces == state->after)
        hold(app);
    bool refused = state->refuse == HOLD_BODY && state->pieces == state->after;
    if (!refused && !is_path(x, "/refuse-body"))
        return leave(app, x, 0);
    http_respond_text(x, 413, "text/plain", STR("too much\n"));
    return leave(app, x, -1);
}

static void answer_file(struct test_app *app, struct http_exchange *x)
{
    struct stat st;
    require(fstat(app->file, &st) == 0);
    uint64_t offset = number(x, "offset", 0);
    x->response.status = 200;
    x->response.fd = fcntl(app->file, F_DUPFD_CLOEXEC, 3);
    x->response.offset = offset;
    x->response.size = number(x, "size", (uint64_t)st.st_size - offset);
    http_respond_header(x, "Content-Type", "application/octet-stream");
}

static void answer_header_of(struct http_exchange *x)
{
    struct str name = {NULL, 0};
    require(http_query_find(x, "name", &name) == 0);
    const char *text = str_z(&x->call.arena, name);
    struct str one = http_header(x, text);
    struct str all = http_header_all(x, text);
    http_respond_text(x, 200, "text/plain",
                      str_printf(&x->call.arena, "%s|" STR_FMT "|" STR_FMT,
                                 one.p != NULL ? "there" : "absent", STR_ARG(one), STR_ARG(all)));
}

static void answer_text(struct http_exchange *x)
{
    struct arena *arena = &x->call.arena;
    struct str text = STR("hello\n");
    if (is_path(x, "/target")) {
        text = str_printf(arena, "%d " STR_FMT "|" STR_FMT "|" STR_FMT, (int)x->method,
                          STR_ARG(x->method_text), STR_ARG(x->path), STR_ARG(x->query));
    } else if (is_path(x, "/origin") || is_path(x, "/trusted")) {
        struct http_origin origin;
        http_origin(x, is_path(x, "/trusted"), &origin);
        text = str_printf(arena, "%s|" STR_FMT "|" STR_FMT, origin.scheme, STR_ARG(origin.host),
                          STR_ARG(origin.client));
    } else if (is_path(x, "/far")) {
        const struct state *state = x->state;
        text = str_printf(arena, "%llu %016llx", (unsigned long long)x->bytes_in,
                          (unsigned long long)state->digest);
    } else if (is_path(x, "/length") || is_path(x, "/wait") || is_path(x, "/refuse-body")) {
        text = str_printf(arena, "%llu", (unsigned long long)x->bytes_in);
    }
    http_respond_text(x, 200, "text/plain", text);
}

static void app_end(void *context, struct http_exchange *x)
{
    struct test_app *app = context;
    struct state *state = x->state;
    enter(app, x, true);
    check(app, state->started);
    if (state->hold == HOLD_END)
        hold(app);
    if (is_worker())
        test_sleep_us((int64_t)number(x, "ms", 0) * 1000);
    if (state->refuse == HOLD_END) {
        http_respond_text(x, 409, "text/plain", STR("no\n"));
    } else if (is_path(x, "/stream")) {
        x->response.status = 200;
        x->response.size = number(x, "size", 0);
        x->response.stream = source_new(app, x);
    } else if (is_path(x, "/file")) {
        answer_file(app, x);
    } else if (is_path(x, "/header")) {
        answer_header_of(x);
    } else if (is_path(x, "/echo")) {
        http_respond_text(x, 200, "application/octet-stream", buf_str(&state->body));
    } else if (is_path(x, "/size")) {
        x->response.status = 200;
        x->response.size_only = true;
        x->response.size = number(x, "size", 0);
    } else if (is_path(x, "/empty")) {
        x->response.status = 204;
    } else if (is_path(x, "/same")) {
        x->response.status = 304;
        x->response.size_only = true;
        x->response.size = 1234;
    } else {
        answer_text(x);
    }
    (void)leave(app, x, -1);
}

static void app_refuse(void *context, struct http_exchange *x)
{
    struct test_app *app = context;
    atomic_fetch_add(&app->refused, 1);
    http_respond_header(x, "Retry-After", "1");
    http_respond_text(
        x, x->response.status, "text/plain",
        str_printf(&x->call.arena, "%s: %s", err_kind_name(x->call.err.kind), x->call.err.say));
}

static void app_done(void *context, struct http_exchange *x, bool complete)
{
    struct test_app *app = context;
    struct state *state = x->state;
    if (state == NULL)
        return;
    check(app, !atomic_load(&state->inside));
    buf_done(&state->body);
    free(state);
    x->state = NULL;
    atomic_fetch_add(&app->done, 1);
    atomic_fetch_add(&app->complete, complete);
}

void test_app_init(struct test_app *app)
{
    *app = (struct test_app){
        .app =
            {
                .context = app,
                .begin = app_begin,
                .start = app_start,
                .body = app_body,
                .end = app_end,
                .refuse = app_refuse,
                .done = app_done,
            },
        .file = -1,
    };
    require(pthread_mutex_init(&app->mutex, NULL) == 0);
    require(pthread_cond_init(&app->released, NULL) == 0);
}

void test_app_done(struct test_app *app)
{
    assert_int_equal(atomic_load(&app->done), atomic_load(&app->begun));
    assert_int_equal(atomic_load(&app->running), 0);
    assert_int_equal(atomic_load(&app->streams), 0);
    assert_int_equal(atomic_load(&app->wrong), 0);
    (void)pthread_cond_destroy(&app->released);
    (void)pthread_mutex_destroy(&app->mutex);
}
