/* The way of one exchange through its phases. */
#include "http/http_int.h"

static struct http_connection *connection_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info != NULL ? info->socket_context : NULL;
}

/* The request line is there. What is returned is what exchange_step and exchange_completed get. */
void *exchange_start(void *cls, const char *target, struct MHD_Connection *mhd)
{
    (void)cls;
    struct http_connection *connection = connection_of(mhd);
    require(connection != NULL);

    struct http_exchange *x = mem_zalloc(sizeof(*x));
    call_init(&x->call);
    x->began = clock_mono();
    x->method = HTTP_OTHER;
    x->target = str_dup(&x->call.arena, str_from(target));
    x->path = x->target;
    x->secure = connection->session != NULL;
    x->peer = connection->peer;
    x->connection = connection;
    x->response.fd = -1;
    x->phase = PHASE_HEAD;
    connection->exchange = x;
    connection->mhd = mhd;
    stage_set(connection, STAGE_HEAD);

    /* The library goes on to make a record of each parameter in the query, in the memory of the
     * connection. Nobody reads them, and a query of a thousand '&' would exhaust it: the
     * connection would be closed without an answer. The text is the library's own read buffer:
     * end it after the '?'. */
    size_t mark = str_find(x->target, '?');
    if (mark + 1 < x->target.n) {
        char *buffer = (char *)(uintptr_t)target;
        buffer[mark + 1] = '\0';
    }
    return x;
}

void exchange_end(struct http_exchange *x, bool complete)
{
    struct http_connection *connection = x->connection;
    const struct http_app *app = connection->server->app;
    stream_close(TAKE(x->response.stream));
    app->done(app->context, x, complete);
    fd_close_auto(&x->response.fd);
    free(x->block);
    call_done(&x->call);
    connection->exchange = NULL;
    free(x);
}

void exchange_completed(void *cls, struct MHD_Connection *mhd, void **context,
                        enum MHD_RequestTerminationCode code)
{
    (void)cls;
    (void)mhd;
    struct http_exchange *x = *context;
    if (x == NULL)
        return;
    *context = NULL;
    struct http_connection *connection = x->connection;
    bool client_left =
        code == MHD_REQUEST_TERMINATED_CLIENT_ABORT || code == MHD_REQUEST_TERMINATED_READ_ERROR;
    connection->lingers = !x->whole && !client_left;
    bool sent = x->phase == PHASE_SENT && code == MHD_REQUEST_TERMINATED_COMPLETED_OK;
    exchange_end(x, sent || x->answered);
    stage_set(connection, STAGE_IDLE);
}

/* This room's own refusal. */
static void refuse(struct http_exchange *x)
{
    const struct http_app *app = x->connection->server->app;
    app->refuse(app->context, x);
}

static bool is_certified(struct http_connection *connection)
{
    if (connection->session == NULL)
        return false;
    if (!connection->certificate_checked) {
        connection->certified = tls_certified(connection->credentials, connection->session);
        connection->certificate_checked = true;
    }
    return connection->certified;
}

static void start_draining(struct http_exchange *x)
{
    x->phase = PHASE_DRAIN;
    x->refused_at = clock_mono();
}

/* The rest of a refused body is known to be more than is worth reading. */
static bool rest_is_too_long(const struct http_exchange *x)
{
    return x->length_known && x->content_length - x->bytes_in > HTTP_DRAIN_BYTES;
}

/* At the head: nothing of the body is wanted. A client that waits for "100 Continue" hears the
 * answer at once, and so does one whose body is too long to be read for nothing; else see
 * take_piece. */
static enum MHD_Result refuse_body(struct http_exchange *x)
{
    if (x->expects_continue || rest_is_too_long(x))
        return answer_send(x);
    start_draining(x);
    return MHD_YES;
}

/* ---- The body, in blocks ---- */

/* The library gives what one recv gave, some 20 KiB. In whole blocks, at offsets that are multiples
 * of the page's size, writing the same bytes to a file takes a third of the time. */
#define BLOCK_BYTES ((size_t)64 * 1024)
/* A block for a worker, whose price is a hand-over. Each upload in flight holds one. Measured with
 * hashing, CPU time of 1 GiB: on the event thread 0.88 s; in blocks of 64 KiB 1.14 s, 128 KiB 0.99
 * s, 256 KiB 0.93 s, 512 KiB 0.77 s, 1 MiB 0.70 s. */
#define WORK_BLOCK_BYTES ((size_t)256 * 1024)
/* A body that is known to be no longer is handed over with the end: once instead of twice. No more
 * than the library holds of each connection, for nobody has agreed to it yet. */
#define WORK_WHOLE_BYTES ((size_t)64 * 1024)

static size_t block_max(const struct http_exchange *x)
{
    size_t max = x->waits == HTTP_WAITS_ALWAYS ? WORK_BLOCK_BYTES : BLOCK_BYTES;
    return x->length_known && x->content_length < max ? (size_t)x->content_length : max;
}

/* Moves from the piece what the block has room for. */
static void fill_block(struct http_exchange *x, struct str *piece)
{
    if (x->block == NULL)
        x->block = mem_alloc(block_max(x));
    struct str part = str_first(*piece, block_max(x) - x->block_bytes);
    memcpy(x->block + x->block_bytes, part.p, part.n);
    x->block_bytes += part.n;
    *piece = str_from_at(*piece, part.n);
}

static int give_block(struct http_exchange *x)
{
    const struct http_app *app = x->connection->server->app;
    struct str block = {x->block, x->block_bytes};
    x->block_bytes = 0;
    return block.n > 0 ? app->body(app->context, x, block) : 0;
}

static int give(struct http_exchange *x, struct str piece)
{
    const struct http_app *app = x->connection->server->app;
    if (x->length_known && piece.n == x->content_length) /* the whole body at once */
        return app->body(app->context, x, piece);
    while (piece.n > 0) {
        fill_block(x, &piece);
        if (x->block_bytes == block_max(x) && give_block(x) < 0)
            return -1;
    }
    return 0;
}

/* ---- Workers ---- */

/* Suspends the connection and has a worker do `work`. False: the exchange has not started and there
 * is no place in the queue for it, or the server stops. */
static bool hand_over(struct http_exchange *x, unsigned work)
{
    struct workers *workers = &x->connection->server->workers;
    enum line line = x->started ? LINE_UNDER_WAY : LINE_NEW;
    if (!workers_reserve(workers, line))
        return false;
    x->work = work;
    x->started = true;
    x->phase = PHASE_WORK;
    stage_set(x->connection, STAGE_WORK);
    MHD_suspend_connection(x->connection->mhd);
    workers_push(workers, line, x);
    return true;
}

void exchange_work(struct http_exchange *x, bool stopping)
{
    const struct http_app *app = x->connection->server->app;
    if (stopping) {
        x->response.status = MHD_HTTP_SERVICE_UNAVAILABLE;
        (void)err_set(&x->call.err, ERR_BUSY, "the server is shutting down");
        refuse(x);
        x->refused = true;
        return;
    }
    x->refused = ((x->work & WORK_START) != 0 && app->start(app->context, x) < 0) ||
                 ((x->work & WORK_BODY) != 0 && give_block(x) < 0);
    if ((x->work & WORK_END) == 0)
        return;
    free(TAKE(x->block));
    if (!x->refused)
        app->end(app->context, x);
}

static void refuse_as_busy(struct http_exchange *x)
{
    x->response.status = MHD_HTTP_SERVICE_UNAVAILABLE;
    (void)err_set(&x->call.err, ERR_BUSY, "the server is busy");
    (void)err_why(&x->call.err, "the queue of %u requests for the workers is full",
                  x->connection->server->options.queue);
    refuse(x);
}

/* Nothing needs an answer to `start` before the request is whole. */
static bool starts_late(const struct http_exchange *x)
{
    return !x->expects_continue &&
           (!x->has_body || (x->length_known && x->content_length <= WORK_WHOLE_BYTES));
}

/* The library keeps what is not taken until the worker is done with the block. At least one byte
 * must stay: else the library goes on to the next chunk of a suspended connection. */
static enum MHD_Result gather(struct http_exchange *x, struct str piece, size_t *ret_left)
{
    struct str rest = piece;
    fill_block(x, &rest);
    x->bytes_in += piece.n - rest.n;
    *ret_left = rest.n;
    return rest.n == 0 || hand_over(x, WORK_BODY) ? MHD_YES : MHD_NO;
}

/* ---- The steps; MHD_NO makes the library close the connection ---- */

static enum MHD_Result take_head(struct http_exchange *x, const char *url, const char *method,
                                 const char *version)
{
    const struct http_app *app = x->connection->server->app;
    if (head_read(x, url, method, version, &x->call.err) < 0) {
        refuse(x);
        return answer_send(x); /* at this point the library takes it as the last one */
    }
    x->certified = is_certified(x->connection);
    x->phase = PHASE_BODY;
    stage_set(x->connection, STAGE_BODY);
    if (app->begin(app->context, x) < 0)
        return refuse_body(x);
    if (x->waits != HTTP_WAITS_ALWAYS)
        return app->start(app->context, x) < 0 ? refuse_body(x) : MHD_YES;
    if (starts_late(x) || hand_over(x, WORK_START))
        return MHD_YES;
    refuse_as_busy(x);
    return refuse_body(x);
}

static enum MHD_Result take_piece(struct http_exchange *x, struct str piece, size_t *ret_left)
{
    *ret_left = 0;
    if (x->phase == PHASE_BODY && x->waits == HTTP_WAITS_ALWAYS)
        return gather(x, piece, ret_left);
    x->bytes_in += piece.n;
    if (x->phase == PHASE_BODY) {
        if (give(x, piece) == 0)
            return MHD_YES;
        start_draining(x);
    } else {
        x->drained += piece.n;
    }

    /* Read on for a while: most bodies end soon, and then the connection can be kept. For the
     * others the answer is written now, and the socket lingers. */
    if (!rest_is_too_long(x) && x->drained <= HTTP_DRAIN_BYTES &&
        clock_since_us(x->refused_at) <= HTTP_DRAIN_US)
        return MHD_YES;
    x->answered = answer_write(x);
    return MHD_NO;
}

static enum MHD_Result take_end(struct http_exchange *x)
{
    const struct http_app *app = x->connection->server->app;
    x->whole = true;
    if (x->phase == PHASE_DRAIN || (x->waits != HTTP_WAITS_ALWAYS && give_block(x) < 0))
        return answer_send(x);
    if (x->waits == HTTP_WAITS_NEVER) {
        app->end(app->context, x);
        return answer_send(x);
    }
    unsigned work = WORK_END;
    if (x->waits == HTTP_WAITS_ALWAYS && !x->started)
        work |= WORK_START;
    if (x->block_bytes > 0)
        work |= WORK_BODY;
    if (hand_over(x, work))
        return MHD_YES;
    if (x->started)
        return MHD_NO;
    refuse_as_busy(x);
    return answer_send(x);
}

static enum MHD_Result take_body(struct http_exchange *x, const char *upload, size_t *upload_bytes)
{
    if (*upload_bytes == 0)
        return take_end(x);
    return take_piece(x, (struct str){upload, *upload_bytes}, upload_bytes);
}

/* A worker has done its work. */
static enum MHD_Result take_back(struct http_exchange *x, const char *upload, size_t *upload_bytes)
{
    if ((x->work & WORK_END) != 0)
        return answer_send(x);
    x->phase = PHASE_BODY;
    stage_set(x->connection, STAGE_BODY);
    if ((x->work & WORK_START) != 0)
        return x->refused ? refuse_body(x) : MHD_YES;
    if (x->refused)
        start_draining(x);
    return take_body(x, upload, upload_bytes);
}

/* Called for the head, for each piece of the body, once more when the request is whole, and for the
 * same again after it was resumed. */
enum MHD_Result exchange_step(void *cls, struct MHD_Connection *mhd, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_bytes, void **context)
{
    (void)cls;
    (void)mhd;
    struct http_exchange *x = *context;
    if (x == NULL)
        return MHD_NO;
    switch ((enum phase)x->phase) {
    case PHASE_HEAD:
        return take_head(x, url, method, version);
    case PHASE_BODY:
    case PHASE_DRAIN:
        return take_body(x, upload, upload_bytes);
    case PHASE_WORK: /* and not suspended any more */
        return take_back(x, upload, upload_bytes);
    case PHASE_SENT:
        break;
    }
    return MHD_NO;
}
