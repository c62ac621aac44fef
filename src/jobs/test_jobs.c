/* Jobs over real databases: each test runs on SQLite in a folder of its own, and on PostgreSQL when
 * HOLDFAST_TEST_POSTGRES names an empty database; an argument is a pattern of test names. Nodes are
 * instances of jobs, on PostgreSQL each with connections of its own; where a node has to die or
 * stand still, it is another process, this program once more. */
#include "base/base.h"
#include "base/test_tree.h"
#include "jobs/jobs.h"
#include "meta/meta.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>

#include <cmocka.h>

#define MS INT64_C(1000)
#define LOOK_US (20 * MS)
#define PATIENCE_US (60 * CLOCK_SECOND_US)
#define CLOCKS_US (50 * MS) /* how far two nodes may be apart about the database's clock */
#define NODES_MAX 3
#define NOTES_MAX 2048

struct fixture;

/* One beginning of a job. */
struct note {
    char key[32];
    char payload[32];
    struct wall_us at;
};

struct node {
    struct fixture *f;
    struct db *db; /* owned, unless it is the fixture's */
    struct jobs *jobs;
    struct job_kind kind;
    atomic_uint begun;
    atomic_uint running;
    atomic_bool go_on; /* what run_gated waits for */
    atomic_bool saw_stopping;
    atomic_int hold; /* the error kind of the job_hold, ERR_NONE for success; -1: not yet */
};

struct fixture {
    char folder[64];
    char path[128];
    const char *url; /* NULL: SQLite */
    struct db *db;   /* NULL: there is no PostgreSQL to test with */
    struct node nodes[NODES_MAX];
    atomic_int fail; /* the next so many runs fail */
    atomic_bool overlapped;
    pthread_mutex_t mutex; /* guards the notes */
    unsigned n_notes;
    struct note notes[NOTES_MAX];
};

/* ---- Short forms ---- */

#define assert_ok(result, err)                         \
    do {                                               \
        if ((result) != 0)                             \
            fail_msg("%s (%s)", (err).say, (err).why); \
    } while (0)

/* A fair wait: what does not come true within a minute never will. */
#define assert_soon(cond)                                                 \
    do {                                                                  \
        struct mono_us since_ = clock_mono();                             \
        bool came_;                                                       \
        while (!(came_ = (cond)) && clock_since_us(since_) < PATIENCE_US) \
            (void)usleep(5 * 1000);                                       \
        if (!came_)                                                       \
            fail_msg("did not come true: %s", #cond);                     \
    } while (0)

static struct db *open_db(const char *path, const char *url)
{
    const struct db_options options = {
        .path = path, .url = url, .readers = 8, .busy_us = 10 * CLOCK_SECOND_US};
    struct db *db = NULL;
    struct err err = {0};
    assert_ok(db_open(&options, &db, &err), err);
    return db;
}

static int tell_body(struct call *call, void *context)
{
    return db_run(db_stmt(call->db, context), &call->err);
}

static void tell(struct fixture *f, const char *sql)
{
    auto_call call;
    call_init(&call);
    char *text = NULL; /* a context is not const */
    memcpy(&text, &sql, sizeof(text));
    assert_ok(db_transact(&call, f->db, tell_body, text), call.err);
}

static int try_ask(struct fixture *f, const char *sql, int64_t *ret, struct err *err)
{
    auto_conn conn = NULL;
    if (db_read(f->db, &conn, err) < 0)
        return -1;
    auto_stmt stmt = db_stmt(conn, sql);
    bool row = false;
    if (db_step(stmt, &row, err) < 0)
        return -1;
    assert_true(row);
    *ret = db_int(stmt, 0);
    return 0;
}

static int64_t ask(struct fixture *f, const char *sql)
{
    struct err err = {0};
    int64_t value = 0;
    assert_ok(try_ask(f, sql, &value, &err), err);
    return value;
}

#define count_jobs(f) ask((f), "SELECT count(*) FROM job")
#define count_effects(f) ask((f), "SELECT count(*) FROM effect")

struct order {
    const char *kind;
    const char *key;
    const char *payload;
    struct wall_us when;
};

static int queue_body(struct call *call, void *context)
{
    const struct order *order = context;
    return jobs_queue(call, order->kind, str_from(order->key), str_from(order->payload),
                      order->when);
}

static void queue(struct fixture *f, const char *kind, const char *key, const char *payload,
                  int64_t in_us)
{
    struct order order = {kind, key, payload, {db_now(f->db).us + in_us}};
    auto_call call;
    call_init(&call);
    assert_ok(db_transact(&call, f->db, queue_body, &order), call.err);
}

/* ---- Kinds ---- */

static void take_note(struct node *node, const struct job *job)
{
    struct fixture *f = node->f;
    auto_lock held = lock_take(&f->mutex);
    require(f->n_notes < NOTES_MAX);
    struct note *note = &f->notes[f->n_notes++];
    (void)snprintf(note->key, sizeof(note->key), STR_FMT, STR_ARG(job_key(job)));
    (void)snprintf(note->payload, sizeof(note->payload), STR_FMT, STR_ARG(job_payload(job)));
    note->at = db_now(node->db);
    for (size_t i = 0; i < NODES_MAX; i++)
        if (atomic_load(&f->nodes[i].running) > 0)
            atomic_store(&f->overlapped, true);
    atomic_fetch_add(&node->running, 1);
    atomic_fetch_add(&node->begun, 1);
}

static unsigned count_notes(struct fixture *f)
{
    auto_lock held = lock_take(&f->mutex);
    return f->n_notes;
}

static struct note note_at(struct fixture *f, unsigned i)
{
    auto_lock held = lock_take(&f->mutex);
    require(i < f->n_notes);
    return f->notes[i];
}

static int insert_effect(struct call *call, const struct job *job)
{
    static const char sql[] = "INSERT INTO effect (key) VALUES ($1)";
    struct db_stmt *stmt = db_stmt(call->db, sql);
    db_bind_text(stmt, 1, job_key(job));
    return db_run(stmt, &call->err);
}

static int effect_body(struct call *call, void *context)
{
    return job_hold(call, context) < 0 ? -1 : insert_effect(call, context);
}

static int finish_body(struct call *call, void *context)
{
    return job_finish(call, context) < 0 ? -1 : insert_effect(call, context);
}

static int take_effect(struct call *call, struct node *node, struct job *job)
{
    int result = db_transact(call, node->db, effect_body, job);
    atomic_store(&node->hold, result < 0 ? (int)call->err.kind : (int)ERR_NONE);
    return result;
}

static int run_effect(struct call *call, void *context, struct job *job)
{
    struct node *node = context;
    take_note(node, job);
    int result = take_effect(call, node, job);
    atomic_fetch_sub(&node->running, 1);
    return result;
}

static int run_finish(struct call *call, void *context, struct job *job)
{
    struct node *node = context;
    take_note(node, job);
    int result = db_transact(call, node->db, finish_body, job);
    atomic_fetch_sub(&node->running, 1);
    return result;
}

static int run_note(struct call *call, void *context, struct job *job)
{
    struct node *node = context;
    take_note(node, job);
    (void)usleep(5 * 1000); /* long enough for others to run into it */
    atomic_fetch_sub(&node->running, 1);
    if (atomic_fetch_sub(&node->f->fail, 1) > 0)
        return err_set(&call->err, ERR_IO, "no luck with \"\xff\xc3\"");
    return 0;
}

/* Waits until the test lets it go on, even after it was asked to end. */
static int run_gated(struct call *call, void *context, struct job *job)
{
    struct node *node = context;
    take_note(node, job);
    while (!atomic_load(&node->go_on)) {
        if (job_stopping(job))
            atomic_store(&node->saw_stopping, true);
        (void)usleep(1000);
    }
    int result = take_effect(call, node, job);
    atomic_fetch_sub(&node->running, 1);
    return result;
}

/* Asks nobody whether it may. */
static int run_careless(struct call *call, void *context, struct job *job)
{
    struct node *node = context;
    (void)call;
    take_note(node, job);
    while (!atomic_load(&node->go_on))
        (void)usleep(1000);
    atomic_fetch_sub(&node->running, 1);
    return 0;
}

static int run_until_asked(struct call *call, void *context, struct job *job)
{
    struct node *node = context;
    take_note(node, job);
    while (!job_stopping(job) && !atomic_load(&node->go_on))
        (void)usleep(1000);
    atomic_fetch_sub(&node->running, 1);
    if (atomic_load(&node->go_on))
        return 0;
    atomic_store(&node->saw_stopping, true);
    return err_set(&call->err, ERR_BUSY, "asked to end");
}

/* ---- Nodes ---- */

typedef int (*run_fn)(struct call *call, void *context, struct job *job);

static struct node *start(struct fixture *f, unsigned number, const char *kind, run_fn run,
                          struct jobs_options options)
{
    struct node *node = &f->nodes[number];
    require(node->jobs == NULL);
    if (node->db == NULL)
        node->db = f->url != NULL ? open_db(NULL, f->url) : f->db;
    node->f = f;
    atomic_store(&node->go_on, false);
    atomic_store(&node->saw_stopping, false);
    atomic_store(&node->hold, -1);
    node->kind = (struct job_kind){
        .name = kind,
        .every_us = options.kinds != NULL ? options.kinds->every_us : 0,
        .run = run,
        .context = node,
    };
    options.db = node->db;
    options.kinds = &node->kind;
    options.n_kinds = 1;
    options.look_us = LOOK_US;
    options.threads = options.threads > 0 ? options.threads : 1;
    options.lease_us = options.lease_us > 0 ? options.lease_us : 30 * CLOCK_SECOND_US;
    struct err err = {0};
    assert_ok(jobs_start(&options, &node->jobs, &err), err);
    return node;
}
#define start_node(f, number, kind, run, ...) \
    start((f), (number), (kind), (run), (struct jobs_options){__VA_ARGS__})
#define EVERY(us)                     \
    .kinds = &(const struct job_kind) \
    {                                 \
        .every_us = (us)              \
    }

static void stop_node(struct node *node, int64_t limit_us)
{
    jobs_stop(TAKE(node->jobs), limit_us);
}

static uint64_t done(const struct node *node)
{
    return jobs_count(node->jobs).done;
}

static int setup(void **state, const char *url)
{
    struct fixture *f = mem_zalloc(sizeof(*f));
    *state = f;
    require(pthread_mutex_init(&f->mutex, NULL) == 0);
    (void)snprintf(f->folder, sizeof(f->folder), "/tmp/holdfast-test-jobs-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    (void)snprintf(f->path, sizeof(f->path), "%s/holdfast.db", f->folder);
    f->url = url;
    f->db = open_db(url != NULL ? NULL : f->path, url);
    struct err err = {0};
    assert_ok(meta_migrate(f->db, &err), err);
    tell(f, "CREATE TABLE IF NOT EXISTS effect (key TEXT NOT NULL)");
    tell(f, "DELETE FROM effect");
    tell(f, "DELETE FROM job");
    return 0;
}

static int setup_sqlite(void **state)
{
    return setup(state, NULL);
}

static int setup_postgres(void **state)
{
    const char *url = getenv("HOLDFAST_TEST_POSTGRES");
    if (url != NULL && url[0] != '\0')
        return setup(state, url);
    *state = mem_zalloc(sizeof(struct fixture));
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->db != NULL) {
        for (size_t i = 0; i < NODES_MAX; i++) {
            atomic_store(&f->nodes[i].go_on, true);
            stop_node(&f->nodes[i], 0);
            if (f->nodes[i].db != f->db)
                db_close(f->nodes[i].db);
        }
        db_close(f->db);
        (void)test_tree_remove(f->folder);
        (void)pthread_mutex_destroy(&f->mutex);
    }
    free(f);
    return 0;
}

static struct fixture *begin(void **state)
{
    struct fixture *f = *state;
    if (f->db == NULL) {
        print_message("HOLDFAST_TEST_POSTGRES is not set\n");
        skip();
    }
    return f;
}

/* ---- The queue ---- */

static void test_runs_in_the_order_of_due_times(void **state)
{
    struct fixture *f = begin(state);
    queue(f, "greet", "second", "2", -2 * CLOCK_SECOND_US);
    queue(f, "greet", "third", "3", -1 * CLOCK_SECOND_US);
    queue(f, "greet", "first", "1", -3 * CLOCK_SECOND_US);
    queue(f, "greet", "tomorrow", "4", 24 * 3600 * CLOCK_SECOND_US);
    struct node *node = start_node(f, 0, "greet", run_note, .threads = 1);
    assert_soon(done(node) == 3);
    (void)usleep(10 * LOOK_US);
    assert_int_equal(count_notes(f), 3);
    assert_string_equal(note_at(f, 0).key, "first");
    assert_string_equal(note_at(f, 1).key, "second");
    assert_string_equal(note_at(f, 2).key, "third");
    assert_string_equal(note_at(f, 2).payload, "3");
    assert_int_equal(count_jobs(f), 1);
}

static void test_waits_for_the_due_time(void **state)
{
    struct fixture *f = begin(state);
    struct node *node = start_node(f, 0, "greet", run_note, .threads = 2);
    struct wall_us queued = db_now(f->db);
    queue(f, "greet", "later", "", CLOCK_SECOND_US);
    assert_soon(done(node) == 1);
    assert_true(note_at(f, 0).at.us - queued.us >= CLOCK_SECOND_US - CLOCKS_US);
}

static void test_queued_twice_is_one_job(void **state)
{
    struct fixture *f = begin(state);
    queue(f, "greet", "one", "old", 10 * CLOCK_SECOND_US);
    queue(f, "greet", "one", "newer", 3600 * CLOCK_SECOND_US);
    assert_int_equal(count_jobs(f), 1);
    int64_t due = ask(f, "SELECT due_at FROM job");
    assert_true(due < db_now(f->db).us + 11 * CLOCK_SECOND_US);
    queue(f, "greet", "one", "newest", 0);
    queue(f, "other", "one", "theirs", 0);
    assert_int_equal(count_jobs(f), 2);
    struct node *node = start_node(f, 0, "greet", run_note, .threads = 2);
    assert_soon(done(node) == 1);
    assert_string_equal(note_at(f, 0).payload, "newest");
    assert_int_equal(ask(f, "SELECT count(*) FROM job WHERE kind = 'other'"), 1);
}

static void test_queued_while_it_runs_runs_once_more(void **state)
{
    struct fixture *f = begin(state);
    queue(f, "greet", "one", "old", 0);
    struct node *node = start_node(f, 0, "greet", run_gated, .threads = 4);
    assert_soon(atomic_load(&node->begun) == 1);
    queue(f, "greet", "one", "later", 0);
    queue(f, "greet", "one", "last", 0);
    (void)usleep(10 * LOOK_US);
    assert_int_equal(count_notes(f), 1); /* not beside itself */
    atomic_store(&node->go_on, true);
    assert_soon(done(node) == 2);
    (void)usleep(10 * LOOK_US);
    assert_int_equal(count_notes(f), 2);
    assert_string_equal(note_at(f, 0).payload, "old");
    assert_string_equal(note_at(f, 1).payload, "last");
    assert_int_equal(count_jobs(f), 0);
    assert_false(atomic_load(&f->overlapped));
}

static void test_leaves_unknown_kinds_alone(void **state)
{
    struct fixture *f = begin(state);
    for (unsigned i = 0; i < 40; i++) { /* more than are looked at in one go, and before ours */
        char key[16];
        (void)snprintf(key, sizeof(key), "%u", i);
        queue(f, "newer", key, "", -10 * CLOCK_SECOND_US);
    }
    queue(f, "greet", "ours", "", 0);
    struct node *node = start_node(f, 0, "greet", run_note, .threads = 2);
    assert_soon(done(node) == 1);
    (void)usleep(5 * LOOK_US);
    assert_int_equal(count_notes(f), 1);
    assert_int_equal(ask(f, "SELECT count(*) FROM job WHERE attempts = 0"), 40);
}

static void test_refuses_what_is_too_large(void **state)
{
    struct fixture *f = begin(state);
    auto_mem char *key = mem_zalloc(1002);
    memset(key, 'k', 1001);
    struct order order = {"greet", key, "", {0}};
    auto_call call;
    call_init(&call);
    assert_int_equal(db_transact(&call, f->db, queue_body, &order), -1);
    assert_int_equal(call.err.kind, ERR_TOO_LARGE);
    key[1000] = '\0';
    assert_ok(db_transact(&call, f->db, queue_body, &order), call.err);
}

/* ---- Failures ---- */

static void test_tries_again_with_growing_delay(void **state)
{
    struct fixture *f = begin(state);
    atomic_store(&f->fail, 2);
    queue(f, "greet", "hard", "p", 0);
    struct node *node = start_node(f, 0, "greet", run_note, .threads = 2);
    assert_soon(jobs_count(node->jobs).failed == 1);
    /* Bytes that are not text in any database do not get in the way. */
    assert_int_equal(ask(f, "SELECT count(*) FROM job WHERE lease = '' AND attempts = 1"
                            " AND error = 'no luck with \"??\"'"),
                     1);
    assert_soon(done(node) == 1);
    assert_int_equal(jobs_count(node->jobs).failed, 2);
    assert_int_equal(count_notes(f), 3);
    int64_t first = note_at(f, 1).at.us - note_at(f, 0).at.us;
    int64_t second = note_at(f, 2).at.us - note_at(f, 1).at.us;
    assert_true(first >= CLOCK_SECOND_US);
    assert_true(second >= 2 * CLOCK_SECOND_US);
    assert_string_equal(note_at(f, 2).payload, "p");
    assert_int_equal(count_jobs(f), 0);
}

static void test_never_gives_up_and_never_waits_above_an_hour(void **state)
{
    struct fixture *f = begin(state);
    atomic_store(&f->fail, 1);
    queue(f, "greet", "hopeless", "", 0);
    tell(f, "UPDATE job SET attempts = 4000000");
    struct node *node = start_node(f, 0, "greet", run_note, .threads = 1);
    assert_soon(jobs_count(node->jobs).failed == 1);
    int64_t delay = ask(f, "SELECT due_at FROM job") - note_at(f, 0).at.us;
    assert_true(delay >= 3600 * CLOCK_SECOND_US && delay < 3610 * CLOCK_SECOND_US);
    queue(f, "greet", "hopeless", "", 0); /* who mended it need not wait */
    assert_soon(done(node) == 1);
}

/* ---- Periodic kinds ---- */

static void test_periodic_runs_once_per_interval(void **state)
{
    struct fixture *f = begin(state);
    int64_t every = 300 * MS;
    for (unsigned i = 0; i < NODES_MAX; i++)
        (void)start_node(f, i, "tidy", run_note, .threads = 2, EVERY(every));
    struct mono_us since = clock_mono();
    assert_soon(clock_since_us(since) > 3 * CLOCK_SECOND_US);
    unsigned n = count_notes(f);
    assert_true(n >= 4); /* a slow machine begins late, never early */
    for (unsigned i = 1; i < n; i++)
        assert_true(note_at(f, i).at.us - note_at(f, i - 1).at.us >= every - CLOCKS_US);
    assert_false(atomic_load(&f->overlapped));
    assert_int_equal(count_jobs(f), 1);
}

static void test_periodic_takes_a_new_interval(void **state)
{
    struct fixture *f = begin(state);
    struct node *node =
        start_node(f, 0, "tidy", run_note, .threads = 1, EVERY(86400 * CLOCK_SECOND_US));
    assert_soon(done(node) == 1);
    (void)usleep(10 * LOOK_US);
    assert_int_equal(count_notes(f), 1);
    stop_node(node, 0);
    (void)start_node(f, 0, "tidy", run_note, .threads = 1, EVERY(50 * MS));
    assert_soon(count_notes(f) >= 4);
    stop_node(node, 0);
    (void)start_node(f, 0, "tidy", run_note, .threads = 1); /* only when queued, by now */
    assert_soon(count_jobs(f) == 0);
}

static void test_periodic_survives_a_clock_that_was_wrong(void **state)
{
    struct fixture *f = begin(state);
    struct node *node = start_node(f, 0, "tidy", run_note, .threads = 1, EVERY(100 * MS));
    assert_soon(done(node) >= 1);
    stop_node(node, 0);
    tell(f, "UPDATE job SET due_at = due_at + 86400000000");
    node = start_node(f, 0, "tidy", run_note, .threads = 1, EVERY(100 * MS));
    assert_soon(done(node) >= 1);
}

static void test_periodic_retries_within_its_interval(void **state)
{
    struct fixture *f = begin(state);
    atomic_store(&f->fail, 1);
    struct node *node = start_node(f, 0, "tidy", run_note, .threads = 1, EVERY(100 * MS));
    assert_soon(done(node) >= 1);
    assert_int_equal(jobs_count(node->jobs).failed, 1);
    assert_true(note_at(f, 1).at.us - note_at(f, 0).at.us < CLOCK_SECOND_US);
}

static void test_periodic_runs_at_once_when_queued(void **state)
{
    struct fixture *f = begin(state);
    struct node *node =
        start_node(f, 0, "tidy", run_note, .threads = 1, EVERY(86400 * CLOCK_SECOND_US));
    assert_soon(done(node) == 1);
    queue(f, "tidy", "", "now", 0);
    assert_soon(done(node) == 2);
    assert_string_equal(note_at(f, 1).payload, "now");
    assert_int_equal(ask(f, "SELECT count(*) FROM job WHERE every_us = 86400000000"), 1);
    assert_true(ask(f, "SELECT due_at FROM job") > db_now(f->db).us + 86000 * CLOCK_SECOND_US);
}

/* ---- Leases ---- */

static void test_keeps_its_lease_while_it_runs(void **state)
{
    struct fixture *f = begin(state);
    queue(f, "slow", "one", "", 0);
    struct node *first = start_node(f, 0, "slow", run_gated, .lease_us = CLOCK_SECOND_US);
    assert_soon(atomic_load(&first->begun) == 1);
    struct node *second = start_node(f, 1, "slow", run_gated, .lease_us = CLOCK_SECOND_US);
    struct mono_us since = clock_mono();
    assert_soon(clock_since_us(since) > 3 * CLOCK_SECOND_US);
    assert_int_equal(atomic_load(&second->begun), 0);
    assert_false(atomic_load(&first->saw_stopping));
    atomic_store(&first->go_on, true);
    assert_soon(done(first) == 1);
    assert_int_equal(count_effects(f), 1);
}

/* As if it had run out before it was renewed. */
static void lose_lease(struct fixture *f, struct node *to)
{
    while (atomic_load(&to->begun) == 0) {
        tell(f, "UPDATE job SET due_at = 0 WHERE attempts = 1");
        (void)usleep(1000);
    }
}

static void test_begun_twice_takes_effect_once(void **state)
{
    struct fixture *f = begin(state);
    queue(f, "slow", "one", "", 0);
    struct node *first = start_node(f, 0, "slow", run_gated, .lease_us = CLOCK_SECOND_US);
    assert_soon(atomic_load(&first->begun) == 1);
    struct node *second = start_node(f, 1, "slow", run_gated, .lease_us = 30 * CLOCK_SECOND_US);
    lose_lease(f, second);
    assert_soon(atomic_load(&first->saw_stopping));
    atomic_store(&first->go_on, true);
    assert_soon(jobs_count(first->jobs).lost == 1);
    assert_int_equal(atomic_load(&first->hold), ERR_CONFLICT);
    assert_int_equal(count_effects(f), 0);
    /* The end of the first one changed nothing of the second one's row. */
    assert_int_equal(ask(f, "SELECT count(*) FROM job WHERE lease <> '' AND attempts = 2"
                            " AND error = ''"),
                     1);
    atomic_store(&second->go_on, true);
    assert_soon(done(second) == 1);
    assert_int_equal(atomic_load(&second->hold), ERR_NONE);
    assert_int_equal(count_effects(f), 1);
    assert_int_equal(count_jobs(f), 0);
    assert_int_equal(done(first) + jobs_count(first->jobs).failed, 0);
}

static void test_finishes_with_its_effect(void **state)
{
    struct fixture *f = begin(state);
    struct node *node = start_node(f, 0, "tidy", run_finish, .threads = 2, EVERY(100 * MS));
    assert_soon(done(node) >= 3);
    stop_node(node, 0);
    assert_int_equal(count_effects(f), count_notes(f));
    assert_int_equal(ask(f, "SELECT count(*) FROM job WHERE lease = '' AND attempts = 0"), 1);
    for (unsigned i = 1; i < count_notes(f); i++)
        assert_true(note_at(f, i).at.us - note_at(f, i - 1).at.us >= 100 * MS);
}

static void test_a_lost_jobs_end_changes_nothing(void **state)
{
    struct fixture *f = begin(state);
    queue(f, "slow", "one", "", 0);
    struct node *first = start_node(f, 0, "slow", run_careless, .threads = 1);
    assert_soon(atomic_load(&first->begun) == 1);
    struct node *second = start_node(f, 1, "slow", run_gated, .threads = 1);
    lose_lease(f, second);
    atomic_store(&first->go_on, true);
    assert_soon(jobs_count(first->jobs).lost == 1);
    assert_int_equal(done(first), 0);
    assert_int_equal(ask(f, "SELECT count(*) FROM job WHERE lease <> '' AND attempts = 2"), 1);
    atomic_store(&second->go_on, true);
    assert_soon(done(second) == 1);
}

static void test_stop_gives_back(void **state)
{
    struct fixture *f = begin(state);
    queue(f, "slow", "one", "", 0);
    struct node *first = start_node(f, 0, "slow", run_until_asked, .threads = 3);
    assert_soon(atomic_load(&first->begun) == 1);
    stop_node(first, 0);
    assert_true(atomic_load(&first->saw_stopping));
    assert_int_equal(ask(f, "SELECT count(*) FROM job WHERE lease = '' AND attempts = 0"
                            " AND error = ''"),
                     1);
    assert_true(ask(f, "SELECT due_at FROM job") <= db_now(f->db).us + CLOCKS_US);
    struct node *second = start_node(f, 1, "slow", run_effect, .threads = 1);
    assert_soon(done(second) == 1);
}

static void *let_go_soon(void *arg)
{
    struct node *node = arg;
    (void)usleep(300 * 1000);
    atomic_store(&node->go_on, true);
    return NULL;
}

static void test_stop_lets_a_job_end_within_the_limit(void **state)
{
    struct fixture *f = begin(state);
    queue(f, "slow", "one", "", 0);
    struct node *node = start_node(f, 0, "slow", run_until_asked, .threads = 3);
    assert_soon(atomic_load(&node->begun) == 1);
    pthread_t thread;
    require(pthread_create(&thread, NULL, let_go_soon, node) == 0);
    struct mono_us since = clock_mono();
    stop_node(node, PATIENCE_US);
    require(pthread_join(thread, NULL) == 0);
    assert_true(clock_since_us(since) < PATIENCE_US / 2);
    assert_false(atomic_load(&node->saw_stopping));
    assert_int_equal(count_jobs(f), 0);
}

/* ---- Many threads ---- */

struct claimer {
    struct db *db;
    int64_t first;
    int64_t n;
    atomic_uint *claims; /* of each id */
    pthread_t thread;
};

struct attempt {
    int64_t id;
    struct db *db;
    char lease[16];
    bool found;
};

static int attempt_body(struct call *call, void *context)
{
    struct attempt *attempt = context;
    struct meta_job row;
    struct wall_us now = db_now(attempt->db);
    return meta_job_claim(call, attempt->id, str_from(attempt->lease), now,
                          (struct wall_us){now.us + 3600 * CLOCK_SECOND_US}, &row, &attempt->found);
}

static void *claim_all(void *arg)
{
    struct claimer *claimer = arg;
    for (int64_t i = 0; i < claimer->n; i++) {
        struct attempt attempt = {.id = claimer->first + i, .db = claimer->db, .lease = "mine"};
        auto_call call;
        call_init(&call);
        require(db_transact(&call, claimer->db, attempt_body, &attempt) == 0);
        if (attempt.found)
            atomic_fetch_add(&claimer->claims[i], 1);
    }
    return NULL;
}

static int queue_many_body(struct call *call, void *context)
{
    unsigned n;
    memcpy(&n, context, sizeof(n));
    for (unsigned i = 0; i < n; i++) {
        char key[16];
        int length = snprintf(key, sizeof(key), "%u", i);
        if (jobs_queue(call, "many", (struct str){key, (size_t)length}, STR("x"),
                       (struct wall_us){0}) < 0)
            return -1;
    }
    return 0;
}

static void queue_many(struct fixture *f, unsigned n)
{
    auto_call call;
    call_init(&call);
    assert_ok(db_transact(&call, f->db, queue_many_body, &n), call.err);
}

/* All go through the same rows in the same order, so that they meet at each. */
static void test_each_row_is_claimed_once(void **state)
{
    enum { CLAIMERS = 8, ROWS = 200 };
    struct fixture *f = begin(state);
    queue_many(f, ROWS);
    struct db *other = f->url != NULL ? open_db(NULL, f->url) : f->db;
    atomic_uint claims[ROWS] = {0};
    struct claimer claimers[CLAIMERS];
    for (unsigned i = 0; i < CLAIMERS; i++) {
        claimers[i] = (struct claimer){.db = i % 2 == 0 ? f->db : other,
                                       .first = ask(f, "SELECT min(id) FROM job"),
                                       .n = ROWS,
                                       .claims = claims};
        require(pthread_create(&claimers[i].thread, NULL, claim_all, &claimers[i]) == 0);
    }
    for (unsigned i = 0; i < CLAIMERS; i++)
        require(pthread_join(claimers[i].thread, NULL) == 0);
    if (other != f->db)
        db_close(other);
    for (unsigned i = 0; i < ROWS; i++)
        assert_int_equal(atomic_load(&claims[i]), 1);
    assert_int_equal(ask(f, "SELECT count(*) FROM job WHERE attempts = 1"), ROWS);
}

static void test_a_thousand_jobs_run_once_each(void **state)
{
    enum { JOBS = 1000 };
    struct fixture *f = begin(state);
    queue_many(f, JOBS);
    struct node *first = start_node(f, 0, "many", run_effect, .threads = 4);
    struct node *second = start_node(f, 1, "many", run_effect, .threads = 4);
    assert_soon(done(first) + done(second) == JOBS);
    assert_int_equal(count_jobs(f), 0);
    assert_int_equal(count_notes(f), JOBS);
    assert_int_equal(count_effects(f), JOBS);
    assert_int_equal(ask(f, "SELECT count(DISTINCT key) FROM effect"), JOBS);
    assert_int_equal(jobs_count(first->jobs).lost + jobs_count(second->jobs).lost, 0);
    assert_int_equal(jobs_count(first->jobs).failed + jobs_count(second->jobs).failed, 0);
}

/* Ended connections are failures here and there: of a look, a renewal, an effect, an end. */
static void test_broken_connections_lose_and_repeat_no_job(void **state)
{
    enum { JOBS = 200 };
    struct fixture *f = begin(state);
    struct node *first =
        start_node(f, 0, "many", run_finish, .threads = 4, .lease_us = 2 * CLOCK_SECOND_US);
    struct node *second =
        start_node(f, 1, "many", run_finish, .threads = 4, .lease_us = 2 * CLOCK_SECOND_US);
    queue_many(f, JOBS);
    for (unsigned i = 0; i < 8; i++) {
        static const char sql[] = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                                  " WHERE pid <> pg_backend_pid() AND datname = current_database()";
        struct err err;
        int64_t n;
        assert_soon(try_ask(f, sql, &n, &err) == 0);
        (void)usleep(100 * 1000);
    }
    int64_t left = -1;
    struct err err;
    assert_soon(try_ask(f, "SELECT count(*) FROM job", &left, &err) == 0 && left == 0);
    assert_int_equal(count_effects(f), JOBS);
    assert_int_equal(ask(f, "SELECT count(DISTINCT key) FROM effect"), JOBS);
    print_message("%u begun for %u jobs, %u told as done\n", count_notes(f), JOBS,
                  (unsigned)(done(first) + done(second)));
}

/* ---- Another process ---- */

/* The child's half: says when its job has begun, waits for a line, goes on, says how that went. */
static int child_run(struct call *call, void *context, struct job *job)
{
    struct db *db = context;
    (void)printf("begun\n");
    (void)fflush(stdout);
    char line[8];
    if (fgets(line, sizeof(line), stdin) == NULL)
        return err_set(&call->err, ERR_IO, "nobody said go on");
    bool asked = job_stopping(job);
    int result = db_transact(call, db, effect_body, job);
    (void)printf("asked %d hold %s\n", asked, result < 0 ? err_kind_name(call->err.kind) : "done");
    (void)fflush(stdout);
    return result;
}

static int child(const char *path, const char *url)
{
    const struct db_options options = {
        .path = path, .url = url, .readers = 4, .busy_us = 5 * CLOCK_SECOND_US};
    struct db *db = NULL;
    struct jobs *jobs = NULL;
    struct err err = {0};
    if (db_open(&options, &db, &err) < 0)
        return 2;
    const struct job_kind kind = {.name = "slow", .run = child_run, .context = db};
    const struct jobs_options how = {.db = db,
                                     .kinds = &kind,
                                     .n_kinds = 1,
                                     .threads = 1,
                                     .lease_us = CLOCK_SECOND_US,
                                     .look_us = LOOK_US};
    if (jobs_start(&how, &jobs, &err) < 0)
        return 3;
    while (jobs_count(jobs).lost == 0)
        (void)usleep(1000);
    jobs_stop(jobs, 0);
    db_close(db);
    return 0;
}

struct process {
    pid_t pid;
    FILE *to;
    FILE *from;
};

static struct process start_child(const struct fixture *f)
{
    int to[2];
    int from[2];
    require(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
    posix_spawn_file_actions_t files;
    require(posix_spawn_file_actions_init(&files) == 0);
    require(posix_spawn_file_actions_adddup2(&files, to[0], STDIN_FILENO) == 0);
    require(posix_spawn_file_actions_adddup2(&files, from[1], STDOUT_FILENO) == 0);
    char self[] = "/proc/self/exe";
    char *path = mem_strdup(f->url != NULL ? "" : f->path);
    char *url = mem_strdup(f->url != NULL ? f->url : "");
    char *arguments[] = {self, path, url, NULL};
    struct process process = {0};
    require(posix_spawn(&process.pid, self, &files, NULL, arguments, environ) == 0);
    (void)posix_spawn_file_actions_destroy(&files);
    free(path);
    free(url);
    (void)close(to[0]);
    (void)close(from[1]);
    process.to = fdopen(to[1], "w");
    process.from = fdopen(from[0], "r");
    require(process.to != NULL && process.from != NULL);
    return process;
}

static void assert_says(struct process *process, const char *expected)
{
    char line[80] = "";
    assert_non_null(fgets(line, sizeof(line), process->from));
    assert_string_equal(line, expected);
}

static int end_child(struct process *process)
{
    int status = 0;
    require(waitpid(process->pid, &status, 0) == process->pid);
    (void)fclose(process->to);
    (void)fclose(process->from);
    return status;
}

static void test_a_killed_nodes_job_runs_elsewhere(void **state)
{
    struct fixture *f = begin(state);
    queue(f, "slow", "one", "", 0);
    struct process process = start_child(f);
    assert_says(&process, "begun\n");
    require(kill(process.pid, SIGKILL) == 0);
    assert_true(WIFSIGNALED(end_child(&process)));
    struct node *node = start_node(f, 0, "slow", run_effect, .threads = 2);
    assert_soon(done(node) == 1);
    assert_int_equal(count_effects(f), 1);
}

/* Not while it renews its lease: its transaction would keep the row locked. */
static void pause_child(struct fixture *f, const struct process *process)
{
    for (;;) {
        require(kill(process->pid, SIGSTOP) == 0);
        (void)usleep(200 * 1000);
        if (ask(f, "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in trans%'") == 0)
            return;
        require(kill(process->pid, SIGCONT) == 0);
        (void)usleep(100 * 1000);
    }
}

static void test_a_node_that_stood_still_takes_no_effect(void **state)
{
    struct fixture *f = begin(state);
    queue(f, "slow", "one", "", 0);
    struct process process = start_child(f);
    assert_says(&process, "begun\n");
    pause_child(f, &process);
    struct node *node = start_node(f, 0, "slow", run_effect, .threads = 2);
    assert_soon(done(node) == 1);
    require(kill(process.pid, SIGCONT) == 0);
    (void)fprintf(process.to, "go on\n");
    (void)fflush(process.to);
    assert_says(&process, "asked 1 hold conflict\n");
    assert_int_equal(end_child(&process), 0); /* it counted one lost lease */
    assert_int_equal(count_effects(f), 1);
    assert_int_equal(count_jobs(f), 0);
}

#define ON(engine, test) \
    ((struct CMUnitTest){#test " (" #engine ")", test, setup_##engine, teardown, NULL})
#define ON_BOTH(test) ON(sqlite, test), ON(postgres, test)

int main(int argc, char **argv)
{
    if (argc == 3)
        return child(argv[1], argv[2][0] != '\0' ? argv[2] : NULL);
    const struct CMUnitTest tests[] = {
        ON_BOTH(test_runs_in_the_order_of_due_times),
        ON_BOTH(test_waits_for_the_due_time),
        ON_BOTH(test_queued_twice_is_one_job),
        ON_BOTH(test_queued_while_it_runs_runs_once_more),
        ON_BOTH(test_leaves_unknown_kinds_alone),
        ON_BOTH(test_refuses_what_is_too_large),
        ON_BOTH(test_tries_again_with_growing_delay),
        ON_BOTH(test_never_gives_up_and_never_waits_above_an_hour),
        ON_BOTH(test_periodic_runs_once_per_interval),
        ON_BOTH(test_periodic_takes_a_new_interval),
        ON_BOTH(test_periodic_survives_a_clock_that_was_wrong),
        ON_BOTH(test_periodic_retries_within_its_interval),
        ON_BOTH(test_periodic_runs_at_once_when_queued),
        ON_BOTH(test_keeps_its_lease_while_it_runs),
        ON_BOTH(test_begun_twice_takes_effect_once),
        ON_BOTH(test_finishes_with_its_effect),
        ON_BOTH(test_a_lost_jobs_end_changes_nothing),
        ON_BOTH(test_stop_gives_back),
        ON_BOTH(test_stop_lets_a_job_end_within_the_limit),
        ON_BOTH(test_each_row_is_claimed_once),
        ON_BOTH(test_a_thousand_jobs_run_once_each),
        ON(postgres, test_broken_connections_lose_and_repeat_no_job),
        ON_BOTH(test_a_killed_nodes_job_runs_elsewhere),
        ON(postgres, test_a_node_that_stood_still_takes_no_effect), /* SQLite is one node's */
    };
    if (argc == 2)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("jobs", tests, NULL, NULL);
}
