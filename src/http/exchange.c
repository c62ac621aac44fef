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
    if (app->begin(app->context, x) == 0)
        return MHD_YES;

    /* Nothing of the body is wanted. A client that waits for "100 Continue" hears the answer at
     * once, and so does one whose body is too long to be read for nothing; else see take_piece. */
    if (x->expects_continue || rest_is_too_long(x))
        return answer_send(x);
    start_draining(x);
    return MHD_YES;
}

/* The library gives what one recv gave, some 20 KiB. In whole blocks, at offsets that are multiples
 * of the page's size, writing the same bytes to a file takes a third of the time. */
#define BLOCK_BYTES ((size_t)64 * 1024)

static int give_block(struct http_exchange *x)
{
    const struct http_app *app = x->connection->server->app;
    struct str block = {x->block, x->block_bytes};
    x->block_bytes = 0;
    return block.n > 0 ? app->body(app->context, x, block) : 0;
}

static int gather(struct http_exchange *x, struct str piece)
{
    const struct http_app *app = x->connection->server->app;
    if (x->length_known && piece.n == x->content_length) /* the whole body at once */
        return app->body(app->context, x, piece);
    if (x->block == NULL)
        x->block = mem_alloc(BLOCK_BYTES);
    while (piece.n > 0) {
        struct str part = str_first(piece, BLOCK_BYTES - x->block_bytes);
        memcpy(x->block + x->block_bytes, part.p, part.n);
        x->block_bytes += part.n;
        piece = str_from_at(piece, part.n);
        if (x->block_bytes == BLOCK_BYTES && give_block(x) < 0)
            return -1;
    }
    return 0;
}

/* MHD_NO makes the library close the connection. */
static enum MHD_Result take_piece(struct http_exchange *x, struct str piece)
{
    x->bytes_in += piece.n;
    if (x->phase == PHASE_BODY) {
        if (gather(x, piece) == 0)
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
    struct http_server *server = x->connection->server;
    const struct http_app *app = server->app;
    x->whole = true;
    if (x->phase == PHASE_DRAIN || give_block(x) < 0)
        return answer_send(x);
    if (!x->waits) {
        app->end(app->context, x);
        return answer_send(x);
    }
    if (!workers_reserve(&server->workers)) {
        x->response.status = MHD_HTTP_SERVICE_UNAVAILABLE;
        (void)err_set(&x->call.err, ERR_BUSY, "the server is busy");
        (void)err_why(&x->call.err, "the queue of %u requests for the workers is full",
                      server->options.queue);
        refuse(x);
        return answer_send(x);
    }
    x->phase = PHASE_WORK;
    stage_set(x->connection, STAGE_WORK);
    MHD_suspend_connection(x->connection->mhd);
    workers_push(&server->workers, x);
    return MHD_YES;
}

/* Called for the head, for each piece of the body, once more when the request is whole, and again
 * after it was resumed. */
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
        if (*upload_bytes > 0) {
            struct str piece = {upload, *upload_bytes};
            *upload_bytes = 0;
            return take_piece(x, piece);
        }
        return take_end(x);
    case PHASE_READY:
        return answer_send(x);
    case PHASE_WORK: /* not called while it is suspended */
    case PHASE_SENT:
        break;
    }
    return MHD_NO;
}
