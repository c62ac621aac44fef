/* The threads on which exchanges wait for the disk, the database or another machine. */
#include "http/http_int.h"

static struct http_exchange *take_from(struct workers *workers, enum line line)
{
    struct http_exchange *x = workers->lines[line].first;
    if (x == NULL)
        return NULL;
    workers->lines[line].first = x->next;
    if (x->next == NULL)
        workers->lines[line].last = NULL;
    x->next = NULL;
    workers->lines[line].taken--;
    return x;
}

static struct http_exchange *take(struct workers *workers)
{
    enum line turn = workers->turn;
    enum line other = turn == LINE_NEW ? LINE_UNDER_WAY : LINE_NEW;
    workers->turn = other;
    struct http_exchange *x = take_from(workers, turn);
    return x != NULL ? x : take_from(workers, other);
}

static bool is_expecting(const struct workers *workers)
{
    return workers->lines[LINE_NEW].taken > 0 || workers->lines[LINE_UNDER_WAY].taken > 0;
}

/* Whether to wake a worker, once the lock is released. One at a time is on its way from its sleep,
 * and wakes the next when it finds more than it takes: while the work is short, those that are
 * awake do most of it. */
static bool is_to_wake(struct workers *workers)
{
    bool waits =
        workers->lines[LINE_NEW].first != NULL || workers->lines[LINE_UNDER_WAY].first != NULL;
    if (!waits || workers->waking || workers->n_idle == 0)
        return false;
    workers->waking = true;
    return true;
}

/* The next exchange that waits; NULL when the pool is stopping, nothing waits any more and no
 * reserved place is still to be filled. */
static struct http_exchange *next(struct workers *workers, bool *ret_stopping)
{
    struct http_exchange *x = NULL;
    bool wake = false;
    bool last = false;
    {
        auto_lock held = lock_take(&workers->mutex);
        x = take(workers);
        while (x == NULL && (!workers->stopping || is_expecting(workers))) {
            workers->n_idle++;
            require(pthread_cond_wait(&workers->work, &workers->mutex) == 0);
            workers->n_idle--;
            workers->waking = false;
            x = take(workers);
        }
        wake = is_to_wake(workers);
        last = workers->stopping && !is_expecting(workers);
        *ret_stopping = workers->stopping;
    }
    if (wake)
        (void)pthread_cond_signal(&workers->work);
    if (last)
        (void)pthread_cond_broadcast(&workers->work); /* the others may go home */
    return x;
}

static void *work(void *arg)
{
    struct workers *workers = arg;
    bool stopping = false;
    for (;;) {
        struct http_exchange *x = next(workers, &stopping);
        if (x == NULL)
            return NULL;
        exchange_work(x, stopping);
        MHD_resume_connection(x->connection->mhd); /* gives it back to its event thread */
    }
}

bool workers_reserve(struct workers *workers, enum line line)
{
    auto_lock held = lock_take(&workers->mutex);
    if (workers->stopping || (line == LINE_NEW && workers->lines[line].taken >= workers->places))
        return false;
    workers->lines[line].taken++;
    return true;
}

void workers_push(struct workers *workers, enum line line, struct http_exchange *x)
{
    bool wake = false;
    {
        auto_lock held = lock_take(&workers->mutex);
        if (workers->lines[line].last != NULL)
            workers->lines[line].last->next = x;
        else
            workers->lines[line].first = x;
        workers->lines[line].last = x;
        wake = is_to_wake(workers);
    }
    if (wake)
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
