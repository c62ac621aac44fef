/* Threads that look for due jobs and run them, and the one that keeps their leases alive.
 *
 * Every moment of a job's life is one statement on its row, which says in its WHERE who may: to
 * take it, that it is due; all else, that it carries the lease of the taker. So nothing here has to
 * be right for a job to take effect once; the threads only see to it that it is done soon. */
#include "jobs/jobs.h"

#include "base/base.h"
#include "meta/meta.h"

#include <stdatomic.h>
#include <stdio.h>
#include <sys/random.h>

#define KEY_BYTES_MAX 1000
#define PAYLOAD_BYTES_MAX (1024 * 1024)
#define CANDIDATES 16 /* asked for at a time: several nodes may be after the first ones */
#define RETRY_FIRST_US CLOCK_SECOND_US
#define RETRY_LAST_US (3600 * CLOCK_SECOND_US)
#define LEASE_BYTES 33 /* 128 bits in hexadecimal digits */

/* Belongs to a worker, between its claim and its end. */
struct job {
    struct jobs *jobs;   /* borrowed; NULL: the worker has none */
    struct meta_job row; /* in the arena of the worker's call */
    bool finished;       /* job_finish has written the end down, if its transaction committed */
    char lease[LEASE_BYTES];
    _Atomic int64_t leased_until; /* by the database's clock, as far as this node knows */
    atomic_bool lost;             /* another has it now */
};

struct worker {
    struct jobs *jobs; /* borrowed */
    pthread_t thread;
    struct job job; /* its id, lease and `jobs` change under jobs->mutex alone */
};

struct jobs {
    struct jobs_options options;
    struct worker *workers; /* owned; options.threads of them */
    unsigned n_workers;     /* started */
    bool has_keeper;
    pthread_t keeper;

    pthread_mutex_t mutex;  /* guards what stands below */
    pthread_cond_t changed; /* any of it */
    struct mono_us look_at; /* when the next worker shall look for a due job */
    unsigned n_held;        /* workers that have a job */
    bool stopping;          /* nothing is begun any more */
    bool keeper_stopping;

    atomic_bool asked; /* running jobs shall end soon */
    atomic_bool away;  /* the last use of the database failed, which the log was told */
    _Atomic uint64_t done;
    _Atomic uint64_t failed;
    _Atomic uint64_t lost;
};

/* ---- Small things ---- */

static uint64_t random_number(void)
{
    uint64_t number;
    require(getrandom(&number, sizeof(number), 0) == (ssize_t)sizeof(number));
    return number;
}

/* Three to five quarters of it, so that nodes that started together do not look together. */
static int64_t jittered(int64_t us)
{
    return us - us / 4 + (int64_t)(random_number() % (uint64_t)(us / 2 + 1));
}

static struct mono_us in_us(int64_t us)
{
    return (struct mono_us){clock_mono().us + us};
}

/* Until something changes, at most to the deadline; spurious ends are possible. Under the mutex. */
static void await_change(struct jobs *jobs, struct mono_us deadline)
{
    const struct timespec at = {.tv_sec = deadline.us / CLOCK_SECOND_US,
                                .tv_nsec = deadline.us % CLOCK_SECOND_US * 1000};
    (void)pthread_cond_clockwait(&jobs->changed, &jobs->mutex, CLOCK_MONOTONIC, &at);
}

static void tell_change(struct jobs *jobs)
{
    require(pthread_cond_broadcast(&jobs->changed) == 0);
}

/* Tells the log when the database goes away and when it is back, not each time in between. That it
 * is back, the look for due jobs alone knows: it reads and, when there are any, writes. */
static void note_database(struct jobs *jobs, const struct err *failure)
{
    bool was_away = atomic_exchange(&jobs->away, failure != NULL);
    if (failure != NULL && !was_away)
        log_err(LOG_LEVEL_ERROR, "background jobs wait for the database", failure);
    if (failure == NULL && was_away)
        log_say(LOG_LEVEL_INFO, "background jobs go on");
}

static struct wall_us now_of(const struct jobs *jobs)
{
    return db_now(jobs->options.db);
}

static struct wall_us later(struct wall_us when, int64_t us)
{
    return (struct wall_us){when.us + us};
}

static const struct job_kind *kind_of(const struct jobs *jobs, struct str name)
{
    for (size_t i = 0; i < jobs->options.n_kinds; i++)
        if (str_eq(name, str_from(jobs->options.kinds[i].name)))
            return &jobs->options.kinds[i];
    return NULL;
}

static void log_job(enum log_level level, const char *message, const struct job *job,
                    const char *error)
{
    log_say(level, message, LOG_STR("job", job->row.kind), LOG_STR("key", job->row.key),
            LOG_INT("attempts", job->row.attempts), LOG_Z("error", error));
}

/* ---- Taking a job ---- */

static int find_due(struct call *call, const struct jobs *jobs, int64_t ids[CANDIDATES],
                    size_t *ret_n)
{
    struct str kinds[META_JOB_KINDS_MAX];
    for (size_t i = 0; i < jobs->options.n_kinds; i++)
        kinds[i] = str_from(jobs->options.kinds[i].name);
    auto_conn conn = NULL;
    if (db_read(jobs->options.db, &conn, &call->err) < 0)
        return -1;
    call->db = conn;
    int result =
        meta_job_due(call, kinds, jobs->options.n_kinds, now_of(jobs), CANDIDATES, ids, ret_n);
    call->db = NULL;
    return result;
}

struct claim {
    struct jobs *jobs;
    int64_t id;
    struct str lease;
    struct wall_us until;
    struct meta_job row;
    bool claimed;
};

static int claim_body(struct call *call, void *context)
{
    struct claim *claim = context;
    struct wall_us now = now_of(claim->jobs);
    claim->until = later(now, claim->jobs->options.lease_us);
    return meta_job_claim(call, claim->id, claim->lease, now, claim->until, &claim->row,
                          &claim->claimed);
}

/* From the front, since it has waited longest; after a race that another node won, anywhere, so
 * that the two do not race for each of the rest. One failure does not end it: a row that somebody's
 * transaction keeps locked must not stand before all others. */
static int claim_any(struct call *call, struct claim *claim, int64_t ids[CANDIDATES], size_t n)
{
    unsigned failures = 0;
    size_t at = 0;
    while (n > 0) {
        claim->id = ids[at];
        if (db_transact(call, claim->jobs->options.db, claim_body, claim) < 0) {
            if (++failures > 1 || n == 1)
                return -1;
        } else if (claim->claimed) {
            return 0;
        }
        ids[at] = ids[--n];
        at = n > 0 ? random_number() % n : 0;
    }
    return 0;
}

static void hold(struct worker *worker, const struct claim *claim)
{
    auto_lock held = lock_take(&worker->jobs->mutex);
    struct job *job = &worker->job;
    job->row = claim->row;
    job->finished = false;
    require(claim->lease.n == LEASE_BYTES - 1);
    memcpy(job->lease, claim->lease.p, LEASE_BYTES);
    atomic_store(&job->leased_until, claim->until.us);
    atomic_store(&job->lost, false);
    job->jobs = worker->jobs;
    worker->jobs->n_held++;
}

/* *ret_more: there may be another that is due. */
static int take_job(struct call *call, struct worker *worker, bool *ret_taken, bool *ret_more)
{
    int64_t ids[CANDIDATES];
    size_t n;
    char lease[LEASE_BYTES];
    (void)snprintf(lease, sizeof(lease), "%016llx%016llx", (unsigned long long)random_number(),
                   (unsigned long long)random_number());
    struct claim claim = {.jobs = worker->jobs, .lease = str_from(lease)};
    if (find_due(call, worker->jobs, ids, &n) < 0 || claim_any(call, &claim, ids, n) < 0)
        return -1;
    if (claim.claimed)
        hold(worker, &claim);
    *ret_taken = claim.claimed;
    *ret_more = n > 1 || (n == 1 && !claim.claimed);
    return 0;
}

/* ---- The end of a job ---- */

enum outcome { OUTCOME_DONE, OUTCOME_FAILED, OUTCOME_GIVEN_BACK };

struct ending {
    struct job *job;
    enum outcome outcome;
    struct str error; /* of OUTCOME_FAILED */
    bool held;        /* the row was still this one's */
};

/* Twice as long after each time, and never rarer than the kind is due anyway. */
static int64_t retry_us(const struct meta_job *row)
{
    int64_t us = RETRY_FIRST_US;
    for (int64_t i = 1; i < row->attempts && us < RETRY_LAST_US; i++)
        us *= 2;
    int64_t most =
        row->every_us > 0 && row->every_us < RETRY_LAST_US ? row->every_us : RETRY_LAST_US;
    return us < most ? us : most;
}

static int end_body(struct call *call, void *context)
{
    struct ending *end = context;
    const struct job *job = end->job;
    struct str lease = str_from(job->lease);
    struct wall_us now = now_of(job->jobs);
    switch (end->outcome) {
    case OUTCOME_DONE:
        return meta_job_done(call, job->row.id, lease, now, &end->held);
    case OUTCOME_FAILED:
        return meta_job_failed(call, job->row.id, lease, later(now, retry_us(&job->row)),
                               end->error, &end->held);
    case OUTCOME_GIVEN_BACK:
        break;
    }
    return meta_job_return(call, job->row.id, lease, now, &end->held);
}

static bool pause_while_leased(const struct job *job)
{
    struct jobs *jobs = job->jobs;
    struct mono_us until = in_us(jobs->options.look_us);
    auto_lock held = lock_take(&jobs->mutex);
    while (clock_mono().us < until.us) {
        if (job_stopping(job))
            return false;
        await_change(jobs, until);
    }
    return true;
}

/* Writes the end down. With the database away it tries for as long as the lease lasts: what it
 * cannot write, another node does again. */
static int write_end(struct ending *end, struct err *err)
{
    bool unsure = false;
    for (;;) {
        auto_call call;
        call_init(&call);
        if (db_transact(&call, end->job->jobs->options.db, end_body, end) == 0) {
            end->held = end->held || unsure; /* the time before was the one that changed the row */
            return 0;
        }
        note_database(end->job->jobs, &call.err);
        unsure = unsure || call.err.kind == ERR_UNSURE;
        if (!pause_while_leased(end->job)) {
            *err = call.err;
            return -1;
        }
    }
}

/* Errors quote what clients and servers sent, of which a database takes only some as text. */
static void describe(const struct err *failure, char *text, size_t size)
{
    (void)snprintf(text, size, failure->why[0] != '\0' ? "%s (%s)" : "%s", failure->say,
                   failure->why);
    for (char *p = text; *p != '\0'; p++)
        if (*p < ' ' || *p > '~')
            *p = '?';
}

static void tell_outcome(struct job *job, enum outcome outcome, const char *error)
{
    struct jobs *jobs = job->jobs;
    switch (outcome) {
    case OUTCOME_DONE:
        atomic_fetch_add(&jobs->done, 1);
        log_job(LOG_LEVEL_DEBUG, "a job is done", job, NULL);
        break;
    case OUTCOME_FAILED:
        atomic_fetch_add(&jobs->failed, 1);
        log_job(LOG_LEVEL_WARN, "a job failed and will be tried again", job, error);
        break;
    case OUTCOME_GIVEN_BACK:
        log_job(LOG_LEVEL_INFO, "a job was given back", job, NULL);
        break;
    }
}

/* failure: of OUTCOME_FAILED. */
static void end_job(struct job *job, enum outcome outcome, const struct err *failure)
{
    char error[sizeof(failure->say) + sizeof(failure->why)] = "";
    if (outcome == OUTCOME_FAILED)
        describe(failure, error, sizeof(error));
    struct ending end = {.job = job, .outcome = outcome, .error = str_from(error)};
    struct err err;
    bool finished = job->finished && outcome == OUTCOME_DONE;
    bool written = !finished && write_end(&end, &err) == 0;
    if (written && end.held) {
        tell_outcome(job, outcome, error);
        return;
    }
    /* That the row is not this one's any more tells, too, that a commit which nobody could be sure
     * of was one. */
    if (finished || (written && job->finished)) {
        tell_outcome(job, OUTCOME_DONE, NULL);
        return;
    }
    atomic_fetch_add(&job->jobs->lost, 1);
    if (written)
        log_job(LOG_LEVEL_WARN, "a job lost its lease to another node", job, NULL);
    else
        log_job(LOG_LEVEL_WARN, "a job's end could not be written down: it will run again", job,
                err.say);
}

/* One that was taken while the server began to stop is not begun. */
static enum outcome run_job(struct call *call, struct job *job)
{
    struct jobs *jobs = job->jobs;
    {
        auto_lock held = lock_take(&jobs->mutex);
        if (jobs->stopping)
            return OUTCOME_GIVEN_BACK;
    }
    const struct job_kind *kind = kind_of(jobs, job->row.kind);
    require(kind != NULL); /* find_due asked for these alone */
    log_job(LOG_LEVEL_DEBUG, "a job begins", job, NULL);
    if (kind->run(call, kind->context, job) == 0)
        return OUTCOME_DONE;
    /* What ended because it was asked to has not failed. */
    return atomic_load(&jobs->asked) ? OUTCOME_GIVEN_BACK : OUTCOME_FAILED;
}

static void let_go(struct worker *worker)
{
    struct jobs *jobs = worker->jobs;
    auto_lock held = lock_take(&jobs->mutex);
    worker->job.jobs = NULL;
    jobs->n_held--;
    jobs->look_at = clock_mono(); /* more may be due, this one among them */
    tell_change(jobs);
}

/* ---- Threads ---- */

/* False: the worker shall end. True: it is its turn to look; the others' is later. */
static bool await_turn(struct jobs *jobs)
{
    auto_lock held = lock_take(&jobs->mutex);
    while (!jobs->stopping && clock_mono().us < jobs->look_at.us)
        await_change(jobs, jobs->look_at);
    jobs->look_at = in_us(jittered(jobs->options.look_us));
    return !jobs->stopping;
}

static void look_again_now(struct jobs *jobs)
{
    auto_lock held = lock_take(&jobs->mutex);
    jobs->look_at = clock_mono();
    tell_change(jobs);
}

static void look_and_run(struct worker *worker)
{
    struct jobs *jobs = worker->jobs;
    bool taken;
    bool more;
    auto_call call;
    call_init(&call);
    if (take_job(&call, worker, &taken, &more) < 0) {
        note_database(jobs, &call.err);
        return;
    }
    note_database(jobs, NULL);
    if (more)
        look_again_now(jobs);
    if (!taken)
        return;
    enum outcome outcome = run_job(&call, &worker->job);
    end_job(&worker->job, outcome, &call.err);
    let_go(worker);
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    while (await_turn(worker->jobs))
        look_and_run(worker);
    return NULL;
}

struct renewal {
    struct jobs *jobs;
    int64_t id;
    char lease[LEASE_BYTES];
    struct wall_us until;
    bool held;
};

static int renew_body(struct call *call, void *context)
{
    struct renewal *renewal = context;
    renewal->until = later(now_of(renewal->jobs), renewal->jobs->options.lease_us);
    return meta_job_hold(call, renewal->id, str_from(renewal->lease), renewal->until,
                         &renewal->held);
}

/* False: the worker has no job. */
static bool note_lease(struct worker *worker, struct renewal *ret)
{
    auto_lock held = lock_take(&worker->jobs->mutex);
    if (worker->job.jobs == NULL)
        return false;
    *ret = (struct renewal){.jobs = worker->jobs, .id = worker->job.row.id};
    memcpy(ret->lease, worker->job.lease, LEASE_BYTES);
    return true;
}

static void renew(struct worker *worker)
{
    struct jobs *jobs = worker->jobs;
    struct job *job = &worker->job;
    struct renewal renewal;
    auto_call call;
    call_init(&call);
    if (!note_lease(worker, &renewal))
        return;
    /* A transaction for each: one waits for the commit of the job that it renews. */
    int result = db_transact(&call, jobs->options.db, renew_body, &renewal);
    if (result < 0)
        note_database(jobs, &call.err);
    auto_lock held = lock_take(&jobs->mutex);
    if (result < 0 || job->jobs == NULL || strcmp(job->lease, renewal.lease) != 0)
        return; /* what cannot be renewed runs out by itself; what has ended needs nothing */
    if (renewal.held)
        atomic_store(&job->leased_until, renewal.until.us);
    else
        atomic_store(&job->lost, true);
    tell_change(jobs);
}

static void *keep(void *arg)
{
    struct jobs *jobs = arg;
    for (;;) {
        struct mono_us next = in_us(jobs->options.lease_us / 3);
        {
            auto_lock held = lock_take(&jobs->mutex);
            while (!jobs->keeper_stopping && clock_mono().us < next.us)
                await_change(jobs, next);
            if (jobs->keeper_stopping)
                return NULL;
        }
        for (unsigned i = 0; i < jobs->options.threads; i++)
            renew(&jobs->workers[i]);
    }
}

/* ---- Start and stop ---- */

static int repeat_body(struct call *call, void *context)
{
    const struct jobs *jobs = context;
    for (size_t i = 0; i < jobs->options.n_kinds; i++) {
        const struct job_kind *kind = &jobs->options.kinds[i];
        struct str name = str_from(kind->name);
        if ((kind->every_us > 0 ? meta_job_repeat(call, name, kind->every_us, now_of(jobs))
                                : meta_job_repeat_stop(call, name)) < 0)
            return -1;
    }
    return 0;
}

static int start_threads(struct jobs *jobs, struct err *err)
{
    int number = pthread_create(&jobs->keeper, NULL, keep, jobs);
    jobs->has_keeper = number == 0;
    if (number == 0)
        (void)pthread_setname_np(jobs->keeper, "jobs-keeper");
    while (number == 0 && jobs->n_workers < jobs->options.threads) {
        struct worker *worker = &jobs->workers[jobs->n_workers];
        number = pthread_create(&worker->thread, NULL, work, worker);
        if (number == 0) {
            (void)pthread_setname_np(worker->thread, "jobs-worker");
            jobs->n_workers++;
        }
    }
    if (number != 0)
        return err_set(err, ERR_IO, "cannot start %u threads for background jobs: %s",
                       jobs->options.threads, strerrordesc_np(number));
    return 0;
}

int jobs_start(const struct jobs_options *options, struct jobs **ret, struct err *err)
{
    require(options->threads >= 1 && options->n_kinds <= META_JOB_KINDS_MAX);
    require(options->lease_us > 0 && options->look_us > 0);
    struct jobs *jobs = mem_zalloc(sizeof(*jobs));
    jobs->options = *options;
    jobs->workers = mem_zalloc(options->threads * sizeof(*jobs->workers));
    for (unsigned i = 0; i < options->threads; i++)
        jobs->workers[i].jobs = jobs;
    require(pthread_mutex_init(&jobs->mutex, NULL) == 0);
    require(pthread_cond_init(&jobs->changed, NULL) == 0);
    auto_call call;
    call_init(&call);
    int result = db_transact(&call, options->db, repeat_body, jobs);
    if (result < 0)
        *err = call.err;
    if (result < 0 || start_threads(jobs, err) < 0) {
        jobs_stop(jobs, /* limit_us= */ 0);
        return -1;
    }
    *ret = jobs;
    return 0;
}

static void stop_workers(struct jobs *jobs, int64_t limit_us)
{
    struct mono_us deadline = in_us(limit_us);
    {
        auto_lock held = lock_take(&jobs->mutex);
        jobs->stopping = true;
        tell_change(jobs);
        while (jobs->n_held > 0 && clock_mono().us < deadline.us)
            await_change(jobs, deadline);
        atomic_store(&jobs->asked, true);
        tell_change(jobs);
    }
    for (unsigned i = 0; i < jobs->n_workers; i++)
        require(pthread_join(jobs->workers[i].thread, NULL) == 0);
}

void jobs_stop(struct jobs *jobs, int64_t limit_us)
{
    if (jobs == NULL)
        return;
    stop_workers(jobs, limit_us);
    {
        auto_lock held = lock_take(&jobs->mutex);
        jobs->keeper_stopping = true;
        tell_change(jobs);
    }
    if (jobs->has_keeper)
        require(pthread_join(jobs->keeper, NULL) == 0);
    (void)pthread_cond_destroy(&jobs->changed);
    (void)pthread_mutex_destroy(&jobs->mutex);
    free(jobs->workers);
    free(jobs);
}

/* ---- What others call ---- */

int jobs_queue(struct call *call, const char *kind, struct str key, struct str payload,
               struct wall_us when)
{
    if (key.n > KEY_BYTES_MAX || payload.n > PAYLOAD_BYTES_MAX)
        return err_set(&call->err, ERR_TOO_LARGE,
                       "a job \"%s\" with a key of %zu and a payload of %zu bytes is too large",
                       kind, key.n, payload.n);
    return meta_job_queue(call, str_from(kind), key, payload, when);
}

struct str job_key(const struct job *job)
{
    return job->row.key;
}

struct str job_payload(const struct job *job)
{
    return job->row.payload;
}

bool job_stopping(const struct job *job)
{
    return atomic_load(&job->jobs->asked) || atomic_load(&job->lost) ||
           atomic_load(&job->leased_until) <= now_of(job->jobs).us;
}

static int check_held(struct call *call, const struct job *job, bool held)
{
    if (!held)
        return err_set(&call->err, ERR_CONFLICT, "job \"" STR_FMT "\" is another node's by now",
                       STR_ARG(job->row.kind));
    return 0;
}

int job_hold(struct call *call, const struct job *job)
{
    bool held;
    if (meta_job_hold(call, job->row.id, str_from(job->lease),
                      later(now_of(job->jobs), job->jobs->options.lease_us), &held) < 0)
        return -1;
    return check_held(call, job, held);
}

int job_finish(struct call *call, struct job *job)
{
    job->finished = false; /* of a try that did not commit */
    bool held;
    if (meta_job_done(call, job->row.id, str_from(job->lease), now_of(job->jobs), &held) < 0)
        return -1;
    job->finished = held;
    return check_held(call, job, held);
}

struct jobs_counts jobs_count(const struct jobs *jobs)
{
    return (struct jobs_counts){
        .done = atomic_load(&jobs->done),
        .failed = atomic_load(&jobs->failed),
        .lost = atomic_load(&jobs->lost),
    };
}
