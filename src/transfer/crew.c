/* Several threads over one list of items. */
#include "transfer/transfer_int.h"

#define TICK_US 200000 /* between two looks at what was done */

struct crew {
    struct work *work; /* its mutex guards what stands below */
    crew_fn each;
    void *context;
    size_t n;
    atomic_size_t next;
    pthread_cond_t ended;
    unsigned running;
    bool failed;
    struct err err; /* the first failure */
};

static void fail(struct crew *crew, const struct err *err)
{
    auto_lock held = lock_take(&crew->work->mutex);
    if (!crew->failed)
        crew->err = *err;
    crew->failed = true;
    atomic_store(&crew->next, crew->n);
}

static void *labour(void *context)
{
    struct crew *crew = context;
    struct call call;
    call_init(&call);
    for (;;) {
        size_t i = atomic_fetch_add(&crew->next, 1);
        if (i >= crew->n || work_stops(crew->work))
            break;
        if (crew->each(crew->context, &call, i) < 0)
            fail(crew, &call.err);
        arena_done(&call.arena);
    }
    call_done(&call);
    auto_lock held = lock_take(&crew->work->mutex);
    crew->running--;
    require(pthread_cond_signal(&crew->ended) == 0);
    return NULL;
}

/* Tells what is done while the others work. */
static void watch(struct crew *crew)
{
    const struct work *work = crew->work;
    auto_lock held = lock_take(&crew->work->mutex);
    while (crew->running > 0) {
        int64_t until = clock_mono().us + TICK_US;
        const struct timespec at = {.tv_sec = until / CLOCK_SECOND_US,
                                    .tv_nsec = until % CLOCK_SECOND_US * 1000};
        (void)pthread_cond_clockwait(&crew->ended, &crew->work->mutex, CLOCK_MONOTONIC, &at);
        uint64_t done = atomic_load(&work->bytes);
        uint64_t total = work->bytes_total; /* some may have been added since it was asked for */
        work->options->progress(work->options->context, "bytes",
                                total > 0 && done > total ? total : done, total);
    }
}

static void run(struct crew *crew)
{
    unsigned wanted = crew->work->options->threads;
    unsigned n = wanted < crew->n ? wanted : (unsigned)crew->n;
    require(wanted > 0);
    auto_mem pthread_t *threads = mem_alloc(n * sizeof(*threads));
    unsigned started = 0;
    int number = 0;
    crew->running = n;
    while (started < n && number == 0) {
        number = pthread_create(&threads[started], NULL, labour, crew);
        started += number == 0;
    }
    if (number != 0) {
        struct err err;
        (void)err_set(&err, ERR_IO, "could not start %u threads: %s; see --threads", n,
                      strerrordesc_np(number));
        fail(crew, &err);
        auto_lock held = lock_take(&crew->work->mutex);
        crew->running -= n - started;
    }
    watch(crew);
    for (unsigned i = 0; i < started; i++)
        require(pthread_join(threads[i], NULL) == 0);
}

int crew_run(struct work *work, size_t n, crew_fn each, void *context, struct err *err)
{
    if (n == 0)
        return 0;
    struct crew crew = {
        .work = work, .each = each, .context = context, .n = n, .ended = PTHREAD_COND_INITIALIZER};
    run(&crew);
    (void)pthread_cond_destroy(&crew.ended);
    if (!crew.failed)
        return 0;
    *err = crew.err;
    return -1;
}
