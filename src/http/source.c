/* Responses whose bytes arrive over time. The library asks for bytes; while there are none the
 * connection is suspended. Then the client is not waited for, and so is not late (sweep.c): the
 * source has its own limits. */
#include "http/http_int.h"

static void resume(struct http_connection *connection)
{
    /* Suspended, the connection cannot be closed, so `mhd` stands. */
    if (atomic_exchange(&connection->source, SOURCE_TOLD) == SOURCE_AWAITED)
        MHD_resume_connection(connection->mhd);
}

/* From any thread, at any time between source_watch and the end of stream_close. */
static void source_ready(void *context)
{
    resume(context);
}

static void await_source(struct http_connection *connection)
{
    stage_set(connection, STAGE_WORK);
    MHD_suspend_connection(connection->mhd);
    unsigned quiet = SOURCE_QUIET;
    if (!atomic_compare_exchange_strong(&connection->source, &quiet, SOURCE_AWAITED))
        MHD_resume_connection(connection->mhd); /* it told since it was asked */
    else if (atomic_load(&connection->server->ending))
        resume(connection); /* source_stop may have looked here a moment too early */
}

ssize_t source_read(void *cls, uint64_t at, char *buffer, size_t max)
{
    (void)at;
    struct http_exchange *x = cls;
    struct http_connection *connection = x->connection;
    if (atomic_load(&connection->server->ending))
        return answer_break_off(connection, buffer);
    /* Before it is asked: what it tells from here on is news. */
    atomic_store(&connection->source, SOURCE_QUIET);
    ssize_t n = stream_read(x->response.stream, buffer, max);
    if (n == STREAM_LATER) {
        await_source(connection);
        return 0;
    }
    if (n < 0)
        return answer_break_off(connection, buffer);
    require((size_t)n <= max);
    if (stage_get(connection) != STAGE_ANSWER)
        stage_set(connection, STAGE_ANSWER);
    return n;
}

void source_watch(struct http_exchange *x)
{
    stream_watch(x->response.stream, source_ready, x->connection);
}

void source_stop(struct http_server *server)
{
    atomic_store(&server->ending, true);
    auto_lock held = lock_take(&server->lock);
    for (struct http_connection *c = server->connections; c != NULL; c = c->next)
        resume(c);
}
