/* The threads on which exchanges wait for the disk or the database. */
#include "http/http_int.h"

static void refuse_for_shutdown(struct http_exchange *x)
{
    const struct http_app *app = x->connection->server->app;
    x->response.status = MHD_HTTP_SERVICE_UNAVAILABLE;
    (void)err_set(&x->call.err, ERR_BUSY, "the server is shutting down");
    app->refuse(app->context, x);
}

/* The next exchange that waits; NULL when the pool is stopping, nothing waits any more and no
 * reserved place is still to be filled. */
static struct http_exchange *next(struct workers *workers, bool *ret_refused)
{
    auto_lock held = lock_take(&workers->mutex);
    while (workers->first == NULL && (!workers->stopping || workers->taken > 0))
        require(pthread_cond_wait(&workers->work, &workers->mutex) == 0);
    struct http_exchange *x = workers->first;
    if (x != NULL) {
        workers->first = x->next;
        if (workers->first == NULL)
            workers->last = NULL;
        x->next = NULL;
        workers->taken--;
    }
    *ret_refused = workers->stopping;
    if (workers->stopping && workers->taken == 0)
        (void)pthread_cond_broadcast(&workers->work); /* the others may go home */
    return x;
}

static void *work(void *arg)
{
    struct workers *workers = arg;
    bool refused = false;
    for (;;) {
        struct http_exchange *x = next(workers, &refused);
        if (x == NULL)
            return NULL;
        const struct http_app *app = x->connection->server->app;
        if (refused)
            refuse_for_shutdown(x);
        else
            app->end(app->context, x);
        x->phase = PHASE_READY;
        MHD_resume_connection(x->connection->mhd); /* gives it back to its event thread */
    }
}

bool workers_reserve(struct workers *workers)
{
    auto_lock held = lock_take(&workers->mutex);
    if (workers->stopping || workers->taken >= workers->places)
        return false;
    workers->taken++;
    return true;
}

void workers_push(struct workers *workers, struct http_exchange *x)
{
    {
        auto_lock held = lock_take(&workers->mutex);
        if (workers->last != NULL)
            workers->last->next = x;
        else
            workers->first = x;
        workers->last = x;
    }
    (void)pthread_cond_signal(&workers->work);
}

int workers_start(struct workers *workers, unsigned threads, unsigned places, struct err *err)
{
    require(pthread_mutex_init(&workers->mutex, NULL) == 0);
    require(pthread_cond_init(&workers->work, NULL) == 0);
    workers->places = places > 0 ? places : 1;
    if (threads == 0)
        threads = 1;
    workers->threads = mem_zalloc(threads * sizeof(*workers->threads));
    for (; workers->n_threads < threads; workers->n_threads++) {
        pthread_t *thread = &workers->threads[workers->n_threads];
        int number = pthread_create(thread, NULL, work, workers);
        if (number != 0) {
            workers_stop(workers);
            return err_set(err, ERR_IO, "cannot start %u worker threads: %s", threads,
                           strerrordesc_np(number));
        }
        (void)pthread_setname_np(*thread, "http-worker");
    }
    return 0;
}

void workers_stop(struct workers *workers)
{
    if (workers->threads == NULL)
        return;
    {
        auto_lock held = lock_take(&workers->mutex);
        workers->stopping = true;
    }
    (void)pthread_cond_broadcast(&workers->work);
    for (unsigned i = 0; i < workers->n_threads; i++)
        require(pthread_join(workers->threads[i], NULL) == 0);
    free(TAKE(workers->threads));
}
