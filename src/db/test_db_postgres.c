/* What PostgreSQL alone does, and how it behaves while the server or the network fails. The faults
 * are real: backends that are terminated, killed or stopped, and a proxy that cuts. */
#include "db/test_db.h"
#include "db/test_db_proxy.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

static const char make_table[] = "CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT)";

static struct db *open_table(const struct fixture *f)
{
    struct db *db = open_db(f);
    must(db, make_table);
    return db;
}

static int run_in(struct db_conn *conn, const char *sql, struct err *err)
{
    return db_run(db_stmt(conn, sql), err);
}

static int insert_in(struct db_conn *conn, int64_t id, struct err *err)
{
    struct db_stmt *stmt = db_stmt(conn, "INSERT INTO t (id) VALUES ($1)");
    db_bind_int(stmt, 1, id);
    return db_run(stmt, err);
}

static int queue_in(struct db_conn *conn, int64_t id, struct err *err)
{
    struct db_stmt *stmt = db_stmt(conn, "INSERT INTO t (id) VALUES ($1)");
    db_bind_int(stmt, 1, id);
    return db_queue(stmt, err);
}

static bool has(struct db *db, int64_t id)
{
    struct err err = {0};
    bool row = false;
    auto_conn conn = NULL;
    assert_ok(db_read(db, &conn, &err), err);
    auto_stmt stmt = db_stmt(conn, "SELECT 1 FROM t WHERE id = $1");
    db_bind_int(stmt, 1, id);
    assert_ok(db_step(stmt, &row, &err), err);
    return row;
}

/* Without waiting for an answer of more than one row. */
static int try_ask(struct db *db, const char *sql, int64_t *ret, struct err *err)
{
    bool row = false;
    auto_conn conn = NULL;
    if (db_read(db, &conn, err) < 0)
        return -1;
    auto_stmt stmt = db_stmt(conn, sql);
    if (db_step(stmt, &row, err) < 0)
        return -1;
    *ret = row ? db_int(stmt, 0) : 0;
    return 0;
}

/* Until `db` answers again; how long that took. */
static int64_t wait_until_back(struct db *db)
{
    struct mono_us begun = clock_mono();
    struct err err = {0};
    int64_t one = 0;
    while (try_ask(db, "SELECT 1", &one, &err) < 0) {
        assert_int_equal(err.kind, ERR_BUSY);
        if (clock_since_us(begun) > 20 * CLOCK_SECOND_US)
            fail_msg("%s (%s)", err.say, err.why);
        (void)usleep(20000);
    }
    return clock_since_us(begun);
}

#define OURS "FROM pg_stat_activity WHERE application_name = 'holdfast'"
#define KEEPER " AND query LIKE '%clock_timestamp%'"
#define NOT_KEEPER " AND query NOT LIKE '%clock_timestamp%' AND query NOT LIKE 'LISTEN%'"

static int64_t terminate(const char *sql)
{
    int64_t n = ask_postgres(postgres_url(), sql);
    (void)usleep(50000);
    return n;
}

static int64_t terminate_all(void)
{
    return terminate("SELECT count(pg_terminate_backend(pid)) " OURS);
}

/* ---- A proxy before the server ---- */

static int server_port(void)
{
    return (int)ask_postgres(postgres_url(), "SELECT current_setting('port')");
}

/* The fixture's URL, by way of the proxy. */
static void route(struct fixture *f, struct proxy *proxy)
{
    char port[16];
    char url[sizeof(f->url)];
    (void)snprintf(port, sizeof(port), ":%d/", server_port());
    const char *at = strstr(f->url, port);
    assert_non_null(at);
    proxy_start(proxy, server_port());
    (void)snprintf(url, sizeof(url), "%.*s:%d/%s&sslmode=disable&gssencmode=disable",
                   (int)(at - f->url), f->url, proxy->port, at + strlen(port));
    memcpy(f->url, url, sizeof(url));
}

static void add_to_url(struct fixture *f, const char *more)
{
    size_t n = strlen(f->url);
    assert_in_range(strlen(more), 0, sizeof(f->url) - n - 1);
    memcpy(f->url + n, more, strlen(more) + 1);
}

static struct proxy the_proxy;

static struct db *open_by_proxy(struct fixture *f, int64_t busy_us)
{
    route(f, &the_proxy);
    struct db_options options = options_for(f);
    options.busy_us = busy_us;
    struct db *db = open_with(&options);
    must(db, make_table);
    return db;
}

static void close_with_proxy(struct db *db)
{
    db_close(db);
    proxy_stop(&the_proxy);
}

static void set_proxy(enum proxy_mode mode, bool drop)
{
    the_proxy.mode = mode;
    the_proxy.drop = drop;
    (void)usleep(50000);
}

static int rounds(void)
{
    return atomic_exchange(&the_proxy.rounds, 0);
}

static void round_trips_are_few(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_by_proxy(f, 5 * CLOCK_SECOND_US);
    assert_false(has(db, 1)); /* the connection is there */
    (void)rounds();
    assert_false(has(db, 1));
    assert_int_equal(rounds(), 1);
    assert_int_equal(ask(db, "SELECT count(*) FROM t"), 0); /* prepared in the same */
    assert_int_equal(rounds(), 1);
    assert_ok(db_ping(db, &err), err);
    assert_int_equal(rounds(), 1);

    for (int n = 1; n <= 3; n++) {
        auto_conn conn = NULL;
        assert_ok(db_write(db, &conn, &err), err);
        for (int i = 0; i < n; i++)
            assert_ok(insert_in(conn, 10 * n + i, &err), err);
        assert_ok(db_notify(conn, STR("payload"), &err), err);
        assert_ok(db_commit(TAKE(conn), &err), err);
        assert_int_equal(rounds(), n + 1);
    }
    for (int queued = 0; queued < 3; queued++) {
        auto_conn conn = NULL;
        assert_ok(db_write(db, &conn, &err), err);
        if (queued > 0)
            assert_ok(db_lock(conn, 7, /* shared= */ true, &err), err);
        for (int i = 0; i < queued; i++)
            assert_ok(queue_in(conn, 100 + 10 * queued + i, &err), err);
        db_relax(conn);
        db_last(conn);
        assert_ok(insert_in(conn, 200 + queued, &err), err);
        assert_int_equal(rounds(), 1);
        assert_ok(db_commit(TAKE(conn), &err), err);
        assert_int_equal(rounds(), 0);
    }
    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(queue_in(conn, 300, &err), err);
    assert_ok(db_notify(conn, STR("payload"), &err), err);
    assert_ok(db_commit(TAKE(conn), &err), err);
    assert_int_equal(rounds(), 1);
    assert_int_equal(ask(db, "SELECT count(*) FROM t"), 6 + 3 + 3 + 1);
    (void)rounds();
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(db_commit(TAKE(conn), &err), err); /* nothing happened in it */
    assert_ok(db_write(db, &conn, &err), err);
    db_end(TAKE(conn));
    assert_int_equal(rounds(), 0);
    close_with_proxy(db);
}

/* ---- Connections that break ---- */

static void what_was_idle_is_connected_again_without_a_word(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_table(f);
    assert_int_equal(ask(db, "SELECT count(*) FROM t"), 0);
    assert_true(terminate_all() >= 2);
    assert_int_equal(ask(db, "SELECT count(*) FROM t"), 0);
    assert_true(terminate("SELECT count(pg_terminate_backend(pid)) " OURS NOT_KEEPER) >= 1);
    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(insert_in(conn, 1, &err), err);
    assert_ok(insert_in(conn, 2, &err), err);
    assert_ok(db_commit(TAKE(conn), &err), err);
    assert_true(has(db, 1) && has(db, 2));
    /* Between two reads of one check-out too, but not inside of a snapshot. */
    assert_ok(db_read(db, &conn, &err), err);
    assert_int_equal(ask_in(conn, "SELECT count(*) FROM t"), 2);
    (void)terminate_all();
    assert_int_equal(ask_in(conn, "SELECT count(*) FROM t"), 2);
    assert_ok(db_snapshot(conn, &err), err);
    assert_int_equal(ask_in(conn, "SELECT count(*) FROM t"), 2);
    (void)terminate_all();
    bool row = false;
    struct db_stmt *stmt = db_stmt(conn, "SELECT count(*) FROM t");
    assert_int_equal(db_step(stmt, &row, &err), -1);
    assert_int_equal(err.kind, ERR_BUSY);
    db_done(stmt);
    db_end(TAKE(conn));
    assert_int_equal(ask(db, "SELECT count(*) FROM t"), 2);
    db_close(db);
}

static void a_transaction_whose_connection_breaks_may_run_again(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_table(f);
    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(insert_in(conn, 1, &err), err);
    (void)terminate_all();
    for (int i = 0; i < 2; i++) { /* and all that follows says the same */
        err = (struct err){0};
        assert_int_equal(insert_in(conn, 2 + i, &err), -1);
        assert_int_equal(err.kind, ERR_AGAIN);
    }
    assert_int_equal(db_commit(TAKE(conn), &err), -1);
    assert_int_equal(err.kind, ERR_AGAIN);

    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(insert_in(conn, 1, &err), err);
    (void)terminate_all();
    assert_int_equal(db_commit(TAKE(conn), &err), -1); /* COMMIT was not sent: that is sure */
    assert_int_equal(err.kind, ERR_AGAIN);
    assert_int_equal(ask(db, "SELECT count(*) FROM t"), 0);
    db_close(db);
}

static int insert_once_broken(struct call *call, void *context)
{
    int *tries = context;
    if (insert_in(call->db, 1, &call->err) < 0)
        return -1;
    if (++*tries == 1)
        (void)terminate_all();
    return insert_in(call->db, 2, &call->err);
}

static void db_transact_runs_it_again(void **state)
{
    struct fixture *f = *state;
    struct db *db = open_table(f);
    auto_call call = {0};
    int tries = 0;
    assert_ok(db_transact(&call, db, insert_once_broken, &tries), call.err);
    assert_int_equal(tries, 2);
    assert_int_equal(ask(db, "SELECT count(*) FROM t"), 2);
    db_close(db);
}

static void a_commit_without_an_answer_is_unsure(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_by_proxy(f, 5 * CLOCK_SECOND_US);
    for (int arrives = 0; arrives < 2; arrives++) {
        auto_conn conn = NULL;
        assert_ok(db_write(db, &conn, &err), err);
        assert_ok(insert_in(conn, 1 + arrives, &err), err);
        set_proxy(arrives ? PROXY_CUT_AFTER_COMMIT : PROXY_CUT_AT_COMMIT, false);
        assert_int_equal(db_commit(TAKE(conn), &err), -1);
        assert_int_equal(err.kind, ERR_UNSURE);
        set_proxy(PROXY_PASS, false);
        assert_int_equal(has(db, 1 + arrives), arrives);
    }
    close_with_proxy(db);
}

static void what_is_queued_on_a_broken_connection_runs_again(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_table(f);
    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    db_end(TAKE(conn));
    (void)terminate_all();
    assert_ok(db_write(db, &conn, &err), err); /* noticed before anything is sent */
    assert_ok(queue_in(conn, 1, &err), err);
    assert_ok(db_commit(TAKE(conn), &err), err);
    for (int runs = 0; runs < 2; runs++) {
        assert_ok(db_write(db, &conn, &err), err);
        assert_ok(queue_in(conn, 2, &err), err);
        (void)terminate_all();
        if (runs == 1)
            assert_int_equal(insert_in(conn, 3, &err), -1);
        else
            assert_int_equal(db_commit(TAKE(conn), &err), -1);
        assert_int_equal(err.kind, ERR_AGAIN);
        db_end(TAKE(conn));
    }
    assert_int_equal(ask(db, "SELECT count(*) FROM t"), 1);
    db_close(db);
}

/* One transaction with its commit in the same round trip, that breaks as the proxy is told. */
static int insert_last(struct call *call, void *context)
{
    const int64_t *id = context;
    if (*id < 0)
        db_relax(call->db);
    db_last(call->db);
    struct db_stmt *stmt = db_stmt(call->db, "INSERT INTO t (id) VALUES ($1) ON CONFLICT (id)"
                                             " DO UPDATE SET name = 'twice'");
    db_bind_int(stmt, 1, *id);
    int result = db_run(stmt, &call->err);
    if (*id < 0) /* what broke is not broken for ever */
        the_proxy.mode = PROXY_PASS;
    return result;
}

static void a_last_statement_without_an_answer_is_unsure(void **state)
{
    struct fixture *f = *state;
    struct db *db = open_by_proxy(f, 5 * CLOCK_SECOND_US);
    auto_call call = {0};
    int64_t id = 1;
    assert_ok(db_transact(&call, db, insert_last, &id), call.err);
    for (int arrives = 0; arrives < 2; arrives++) {
        enum proxy_mode mode = arrives ? PROXY_CUT_AFTER_COMMIT : PROXY_CUT_AT_COMMIT;
        id = 2 + arrives;
        set_proxy(mode, false);
        assert_int_equal(db_transact(&call, db, insert_last, &id), -1);
        assert_int_equal(call.err.kind, ERR_UNSURE);
        set_proxy(PROXY_PASS, false);
        assert_int_equal(has(db, id), arrives);

        id = -2 - arrives; /* one that may be done twice is */
        set_proxy(mode, false);
        assert_ok(db_transact(&call, db, insert_last, &id), call.err);
        assert_true(has(db, id));
    }
    assert_int_equal(ask(db, "SELECT id FROM t WHERE name = 'twice'"), -3);
    close_with_proxy(db);
}

static void *terminate_later(void *context)
{
    (void)usleep(300000);
    (void)terminate("SELECT count(pg_terminate_backend(pid)) " OURS " AND query LIKE '%pg_sleep%'");
    return context;
}

/* The server says that it did not come to the COMMIT: that is as good as if it was not sent. */
static void who_is_ended_before_his_commit_may_run_again(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_table(f);
    for (int before = 0; before < 2; before++) {
        pthread_t thread;
        auto_conn conn = NULL;
        assert_ok(db_write(db, &conn, &err), err);
        if (before)
            assert_ok(insert_in(conn, 2, &err), err);
        else
            assert_ok(queue_in(conn, 1, &err), err);
        db_last(conn);
        assert_int_equal(pthread_create(&thread, NULL, terminate_later, NULL), 0);
        assert_int_equal(run_in(conn, "UPDATE t SET name = 'x' FROM pg_sleep(1)", &err), -1);
        assert_int_equal(err.kind, ERR_AGAIN);
        assert_int_equal(pthread_join(thread, NULL), 0);
        db_end(TAKE(conn));
    }
    assert_int_equal(ask(db, "SELECT count(*) FROM t"), 0);

    pthread_t thread; /* and with nothing before it that happens by itself */
    auto_conn conn = NULL;
    must(db, "INSERT INTO t (id) VALUES (3)");
    assert_ok(db_write(db, &conn, &err), err);
    db_last(conn);
    assert_int_equal(pthread_create(&thread, NULL, terminate_later, NULL), 0);
    assert_ok(run_in(conn, "UPDATE t SET name = 'x' FROM pg_sleep(0.6)", &err), err);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_ok(db_commit(TAKE(conn), &err), err);
    assert_int_equal(ask(db, "SELECT count(*) FROM t WHERE name = 'x'"), 1);
    db_close(db);
}

/* What the server thinks of the disk when it commits: a deferred trigger looks. */
static void only_what_is_relaxed_does_not_wait_for_the_disk(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_table(f);
    must(db, "CREATE TABLE seen (setting TEXT)");
    must(db,
         "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
         " INSERT INTO seen VALUES (current_setting(''synchronous_commit'')); RETURN NULL; END'");
    must(db, "CREATE CONSTRAINT TRIGGER look AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED"
             " FOR EACH ROW EXECUTE FUNCTION look()");
    for (int relaxed = 0; relaxed < 8; relaxed++) {
        auto_conn conn = NULL;
        assert_ok(db_write(db, &conn, &err), err);
        if (relaxed & 1)
            db_relax(conn);
        if (relaxed & 2)
            db_last(conn);
        assert_ok(insert_in(conn, relaxed, &err), err);
        assert_ok(db_commit(TAKE(conn), &err), err);
        int64_t off = ask(db, "SELECT count(*) FROM seen WHERE setting = 'off'");
        assert_int_equal(off, (relaxed + 1) / 2);
    }
    assert_int_equal(ask(db, "SELECT count(*) FROM seen WHERE setting = 'on'"), 4);
    db_close(db);
}

/* ---- A server that goes away ---- */

struct worker {
    pthread_t thread;
    struct db *db;
    int64_t first; /* of its ids */
    atomic_bool *stop;
    int64_t n;            /* tried so far */
    int outcomes[100000]; /* of each: an err_kind; 0: committed */
    int64_t longest_us;   /* of one transaction */
    int reads_failed, reads;
};

struct one {
    int64_t id;
};

static int insert_one(struct call *call, void *context)
{
    struct one *one = context;
    return insert_in(call->db, one->id, &call->err);
}

static void *insert_many(void *context)
{
    struct worker *worker = context;
    while (!atomic_load(worker->stop) && worker->n < (int64_t)ARRAY_SIZE(worker->outcomes)) {
        struct one one = {worker->first + worker->n};
        struct mono_us begun = clock_mono();
        auto_call call = {0};
        int result = db_transact(&call, worker->db, insert_one, &one);
        worker->outcomes[worker->n++] = result == 0 ? 0 : (int)call.err.kind;
        int64_t us = clock_since_us(begun);
        if (us > worker->longest_us)
            worker->longest_us = us;
        int64_t count = 0;
        worker->reads++;
        worker->reads_failed +=
            try_ask(worker->db, "SELECT count(*) FROM t WHERE id < 0", &count, &call.err) < 0;
        if (result < 0)
            (void)usleep(1000);
    }
    return NULL;
}

static int64_t process_of(const char *which)
{
    char sql[200];
    (void)snprintf(sql, sizeof(sql), "SELECT pid %s%s LIMIT 1", OURS, which);
    return ask_postgres(postgres_url(), sql);
}

/* PostgreSQL ends all its connections and recovers when one of its processes dies. */
static void what_was_committed_outlives_a_crash_of_the_server(void **state)
{
    struct fixture *f = *state;
    enum { WORKERS = 4 };
    auto_mem struct worker *workers = mem_zalloc(WORKERS * sizeof(*workers));
    atomic_bool stop = false;
    struct db *db = open_table(f);
    for (int i = 0; i < WORKERS; i++) {
        workers[i].db = db;
        workers[i].first = (i + 1) * 1000000;
        workers[i].stop = &stop;
        assert_int_equal(pthread_create(&workers[i].thread, NULL, insert_many, &workers[i]), 0);
    }
    (void)usleep(300000);
    for (int crashes = 0; crashes < 2; crashes++) {
        int64_t pid = process_of(NOT_KEEPER);
        assert_true(pid > 0);
        assert_int_equal(kill((pid_t)pid, SIGKILL), 0);
        (void)usleep(100000);
        (void)wait_until_back(db);
        (void)usleep(300000);
    }
    atomic_store(&stop, true);
    int counts[ERR_INTERNAL + 1] = {0};
    for (int i = 0; i < WORKERS; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        for (int64_t k = 0; k < workers[i].n; k++) {
            int outcome = workers[i].outcomes[k];
            counts[outcome]++;
            if (outcome != ERR_UNSURE && (outcome == 0) != has(db, workers[i].first + k))
                fail_msg("row %lld: told %d", (long long)(workers[i].first + k), outcome);
        }
        assert_in_range(workers[i].longest_us, 0, 6 * CLOCK_SECOND_US);
        assert_true(workers[i].reads_failed < workers[i].reads);
    }
    print_message("committed %d, busy %d, unsure %d\n", counts[0], counts[ERR_BUSY],
                  counts[ERR_UNSURE]);
    for (int kind = 1; kind <= ERR_INTERNAL; kind++)
        if (kind != ERR_BUSY && kind != ERR_UNSURE)
            assert_int_equal(counts[kind], 0);
    assert_true(counts[0] > 0);
    db_close(db);
}

static void wait_until_told(struct db *db)
{
    for (int i = 0; i < 500 && !db_is_told(db); i++)
        (void)usleep(10000);
    assert_true(db_is_told(db));
}

struct heard {
    pthread_mutex_t mutex;
    struct buf text;
};

static void hear(void *context, struct str payload)
{
    struct heard *heard = context;
    auto_lock held = lock_take(&heard->mutex);
    if (payload.p == NULL)
        buf_add_str(&heard->text, STR("(missed)"));
    buf_add_str(&heard->text, payload);
    buf_add_char(&heard->text, '|');
}

/* And forgets it. */
static void assert_heard(struct heard *heard, const char *text)
{
    for (int i = 0; i < 300; i++) {
        {
            auto_lock held = lock_take(&heard->mutex);
            if (heard->text.n >= strlen(text))
                break;
        }
        (void)usleep(10000);
    }
    auto_lock held = lock_take(&heard->mutex);
    assert_string_equal(heard->text.p != NULL ? heard->text.p : "", text);
    buf_done(&heard->text);
    heard->text = BUF_INIT(10000);
}

static void notify(struct db *db, const char *payload)
{
    struct err err = {0};
    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(db_notify(conn, str_from(payload), &err), err);
    assert_ok(db_commit(TAKE(conn), &err), err);
}

static void while_it_is_away_calls_fail_at_once_and_go_on_when_it_is_back(void **state)
{
    struct fixture *f = *state;
    struct heard heard = {.mutex = PTHREAD_MUTEX_INITIALIZER, .text = BUF_INIT(10000)};
    struct err err = {0};
    struct db *db = open_by_proxy(f, 5 * CLOCK_SECOND_US);
    assert_ok(db_listen(db, hear, &heard, &err), err);
    assert_true(db_is_told(db));
    for (int round = 0; round < 2; round++) {
        set_proxy(PROXY_REFUSE, /* drop= */ true);
        (void)usleep(500000); /* the keeper has noticed */
        struct mono_us begun = clock_mono();
        for (int i = 0; i < 100; i++) {
            int64_t value = 0;
            struct db_conn *conn = NULL;
            assert_int_equal(try_ask(db, "SELECT 1", &value, &err), -1);
            assert_int_equal(err.kind, ERR_BUSY);
            assert_int_equal(db_write(db, &conn, &err), -1);
            assert_int_equal(err.kind, ERR_BUSY);
            assert_string_equal(err.say, "the registry's database does not answer");
            assert_int_equal(db_ping(db, &err), -1);
        }
        assert_in_range(clock_since_us(begun), 0, CLOCK_SECOND_US / 2);
        assert_false(db_is_told(db));
        set_proxy(PROXY_PASS, false);
        assert_in_range(wait_until_back(db), 0, 2 * CLOCK_SECOND_US);
        wait_until_told(db);
        notify(db, "back");
        assert_heard(&heard, "(missed)|back|");
        assert_ok(db_ping(db, &err), err);
    }
    close_with_proxy(db);
    buf_done(&heard.text);
}

static void a_cut_cable_hangs_nobody(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_by_proxy(f, 400000);
    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(insert_in(conn, 1, &err), err);
    assert_false(has(db, 1));
    set_proxy(PROXY_HOLD, false);
    struct mono_us begun = clock_mono();
    int64_t value = 0;
    assert_int_equal(try_ask(db, "SELECT 1", &value, &err), -1);
    assert_int_equal(err.kind, ERR_BUSY);
    assert_non_null(strstr(err.why, "no answer"));
    assert_in_range(clock_since_us(begun), 400000, 400000 + 3 * CLOCK_SECOND_US / 2);
    assert_false(db_is_told(db));
    begun = clock_mono();
    for (int i = 0; i < 100; i++)
        assert_int_equal(try_ask(db, "SELECT 1", &value, &err), -1);
    assert_in_range(clock_since_us(begun), 0, CLOCK_SECOND_US);
    begun = clock_mono(); /* what was begun before is not spared the wait, once */
    assert_int_equal(insert_in(conn, 2, &err), -1);
    assert_int_equal(err.kind, ERR_BUSY);
    assert_int_equal(db_commit(TAKE(conn), &err), -1);
    assert_in_range(clock_since_us(begun), 0, 2 * CLOCK_SECOND_US);
    set_proxy(PROXY_PASS, false);
    assert_in_range(wait_until_back(db), 0, 8 * CLOCK_SECOND_US);
    assert_false(has(db, 1));
    wait_until_told(db);
    close_with_proxy(db);
}

/* Returns how many there are. */
static size_t stop_backends(pid_t pids[64])
{
    size_t n = 0;
    for (; n < 64; n++) {
        char sql[200];
        (void)snprintf(sql, sizeof(sql), "SELECT pid %s ORDER BY pid OFFSET %zu LIMIT 1", OURS, n);
        pids[n] = (pid_t)ask_postgres(postgres_url(), sql);
        if (pids[n] == 0)
            break;
        assert_int_equal(kill(pids[n], SIGSTOP), 0);
    }
    return n;
}

static void stopped_backends_hang_nobody(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db_options options = options_for(f);
    options.busy_us = 300000;
    struct db *db = open_with(&options);
    must(db, make_table);
    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(insert_in(conn, 1, &err), err);
    pid_t pids[64];
    size_t n = stop_backends(pids);
    assert_true(n >= 2);
    struct mono_us begun = clock_mono();
    assert_int_equal(db_commit(TAKE(conn), &err), -1);
    assert_int_equal(err.kind, ERR_UNSURE);
    assert_in_range(clock_since_us(begun), 300000, 2 * CLOCK_SECOND_US);
    /* The server takes new connections: nothing is lost but those. */
    (void)wait_until_back(db);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(kill(pids[i], SIGCONT), 0);
    (void)wait_until_back(db);
    (void)usleep(100000);
    (void)has(db, 1); /* it may have happened */
    db_close(db);
}

static void a_slow_statement_is_ended_and_the_connection_kept(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db_options options = options_for(f);
    options.busy_us = 200000;
    struct db *db = open_with(&options);
    static const char sql_pid[] = "SELECT pg_backend_pid()";
    auto_conn conn = NULL;
    bool row = false;
    assert_ok(db_read(db, &conn, &err), err);
    int64_t pid = ask_in(conn, sql_pid);
    struct db_stmt *stmt = db_stmt(conn, "SELECT 1 FROM pg_sleep(10)");
    struct mono_us begun = clock_mono();
    assert_int_equal(db_step(stmt, &row, &err), -1);
    db_done(stmt);
    assert_int_equal(err.kind, ERR_BUSY);
    assert_non_null(strstr(err.why, "57014")); /* query_canceled, PostgreSQL's appendix A */
    assert_in_range(clock_since_us(begun), 200000, 900000);
    assert_int_equal(ask_in(conn, sql_pid), pid);
    db_end(TAKE(conn));
    db_close(db);
}

/* ---- Transactions beside each other ---- */

struct locker {
    pthread_t thread;
    struct db *db;
    int64_t keys[2];
    bool plain; /* without db_transact */
    bool shared;
    struct err err;
    int result;
    int tries;
    int64_t us;
};

/* The lock is queued: the statement behind it waits. */
static int lock_and_wait(struct db_conn *conn, int64_t key, bool shared, struct err *err)
{
    if (db_lock(conn, key, shared, err) < 0)
        return -1;
    return run_in(conn, "SELECT 1 WHERE false", err);
}

static void *end_later(void *conn)
{
    (void)usleep(1300000);
    db_end(conn);
    return NULL;
}

static int lock_both(struct call *call, void *context)
{
    struct locker *locker = context;
    locker->tries++;
    for (int i = 0; i < 2; i++) {
        if (lock_and_wait(call->db, locker->keys[i], locker->shared, &call->err) < 0)
            return -1;
        if (locker->tries == 1)
            (void)usleep(200000);
    }
    return insert_in(call->db, locker->keys[0], &call->err);
}

static void *lock_in_thread(void *context)
{
    struct locker *locker = context;
    struct mono_us begun = clock_mono();
    auto_call call = {0};
    if (locker->plain) {
        locker->result = db_write(locker->db, &call.db, &call.err);
        if (locker->result == 0)
            locker->result = lock_both(&call, locker);
        db_end(TAKE(call.db));
    } else {
        locker->result = db_transact(&call, locker->db, lock_both, locker);
    }
    locker->err = call.err;
    locker->us = clock_since_us(begun);
    return NULL;
}

static void run_lockers(struct locker *lockers, size_t n, struct db *db)
{
    for (size_t i = 0; i < n; i++) {
        lockers[i].db = db;
        assert_int_equal(pthread_create(&lockers[i].thread, NULL, lock_in_thread, &lockers[i]), 0);
    }
    for (size_t i = 0; i < n; i++)
        assert_int_equal(pthread_join(lockers[i].thread, NULL), 0);
}

static void of_a_deadlock_one_loses_and_may_run_again(void **state)
{
    struct fixture *f = *state;
    struct db *db = open_table(f);
    struct locker plain[2] = {{.keys = {1, 2}, .plain = true}, {.keys = {2, 1}, .plain = true}};
    run_lockers(plain, 2, db);
    assert_int_equal(plain[0].result + plain[1].result, -1);
    struct locker *loser = &plain[plain[0].result < 0 ? 0 : 1];
    assert_int_equal(loser->err.kind, ERR_AGAIN);
    assert_non_null(strstr(loser->err.why, "40P01"));

    struct locker lockers[2] = {{.keys = {1, 2}}, {.keys = {2, 1}}};
    run_lockers(lockers, 2, db);
    assert_ok(lockers[0].result, lockers[0].err);
    assert_ok(lockers[1].result, lockers[1].err);
    assert_int_equal(lockers[0].tries + lockers[1].tries, 3);
    assert_int_equal(ask(db, "SELECT count(*) FROM t"), 2);
    db_close(db);
}

static void shared_locks_wait_for_nobody_who_shares(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db_options options = options_for(f);
    options.busy_us = 1500000;
    struct db *db = open_with(&options);
    must(db, make_table);
    struct locker sharing[2] = {{.keys = {1, 2}, .shared = true}, {.keys = {2, 1}, .shared = true}};
    run_lockers(sharing, 2, db);
    assert_ok(sharing[0].result, sharing[0].err);
    assert_ok(sharing[1].result, sharing[1].err);
    assert_in_range(sharing[0].us, 400000, 800000);

    /* Who wants it alone waits, until his patience ends. */
    struct db *holder = open_db(f); /* one that may be idle for longer */
    auto_conn conn = NULL;
    assert_ok(db_write(holder, &conn, &err), err);
    assert_ok(lock_and_wait(conn, 1, /* shared= */ true, &err), err);
    struct locker alone = {.keys = {1, 3}};
    must(db, "DELETE FROM t");
    run_lockers(&alone, 1, db);
    assert_int_equal(alone.result, -1);
    assert_int_equal(alone.err.kind, ERR_BUSY);
    assert_int_equal(alone.tries, 1);
    assert_in_range(alone.us, 1400000, 2500000);
    db_end(TAKE(conn));
    run_lockers(&alone, 1, db);
    assert_ok(alone.result, alone.err);
    db_close(holder);
    db_close(db);
}

static void a_failed_statement_ends_the_transaction(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct err after = {0};
    struct db *db = open_table(f);
    auto_conn conn = NULL;
    must(db, "INSERT INTO t (id) VALUES (1)");
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(insert_in(conn, 2, &err), err);
    assert_int_equal(insert_in(conn, 1, &err), -1);
    assert_int_equal(err.kind, ERR_CONFLICT);
    assert_int_equal(insert_in(conn, 3, &after), -1);
    assert_int_equal(after.kind, ERR_CONFLICT);
    assert_string_equal(after.why, err.why);
    assert_int_equal(db_commit(TAKE(conn), &after), -1);
    assert_int_equal(after.kind, ERR_CONFLICT);
    assert_int_equal(ask(db, "SELECT count(*) FROM t"), 1);

    must(db, "CREATE TABLE later (t_id BIGINT REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED)");
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(run_in(conn, "INSERT INTO later (t_id) VALUES (77)", &err), err);
    assert_int_equal(db_commit(TAKE(conn), &err), -1);
    assert_int_equal(err.kind, ERR_CONFLICT);
    must(db, "INSERT INTO t (id) VALUES (5)");
    db_close(db);
}

/* Behind it nothing was prepared, before it all was. */
static void a_queued_statement_that_fails_is_named(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct err after = {0};
    struct db *db = open_table(f);
    static const char sql_before[] = "INSERT INTO t (id, name) VALUES (5, 'before')";
    static const char sql_fails[] = "INSERT INTO t (id) VALUES (1) /* this one */";
    static const char sql_behind[] = "INSERT INTO t (id, name) VALUES (6, 'behind')";
    must(db, "INSERT INTO t (id) VALUES (1)");
    auto_conn conn = NULL;
    for (int commits = 0; commits < 2; commits++) {
        assert_ok(db_write(db, &conn, &err), err);
        assert_ok(db_queue(db_stmt(conn, sql_before), &err), err);
        assert_ok(db_queue(db_stmt(conn, sql_fails), &err), err);
        assert_ok(db_queue(db_stmt(conn, sql_behind), &err), err);
        if (!commits) {
            assert_int_equal(insert_in(conn, 7, &err), -1);
            assert_int_equal(err.kind, ERR_CONFLICT);
            assert_non_null(strstr(err.why, "this one"));
            assert_int_equal(queue_in(conn, 7, &after), -1);
            assert_int_equal(after.kind, ERR_CONFLICT);
        }
        assert_int_equal(db_commit(TAKE(conn), &err), -1);
        assert_int_equal(err.kind, ERR_CONFLICT);
        assert_non_null(strstr(err.why, "this one"));
    }
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(db_queue(db_stmt(conn, sql_behind), &err), err);
    assert_ok(insert_in(conn, 7, &err), err);
    assert_ok(db_queue(db_stmt(conn, sql_before), &err), err);
    assert_ok(db_commit(TAKE(conn), &err), err);
    static const char sql_prepared[] =
        "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%before%'";
    assert_int_equal(ask(db, sql_prepared), 2); /* itself is the other one */
    assert_int_equal(ask(db, "SELECT count(*) FROM t"), 4);
    db_close(db);
}

/* Each of both within its patience, together beyond it. */
static void who_waited_for_a_lock_has_his_patience_still(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db_options options = options_for(f);
    options.busy_us = 1500000;
    struct db *db = open_with(&options);
    struct db *patient = open_db(f);
    auto_conn holder = NULL;
    assert_ok(db_write(patient, &holder, &err), err);
    assert_ok(lock_and_wait(holder, 1, /* shared= */ false, &err), err);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, end_later, holder), 0);
    auto_conn conn = NULL;
    struct mono_us begun = clock_mono();
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(db_lock(conn, 1, /* shared= */ false, &err), err);
    assert_int_equal(ask_in(conn, "SELECT 1 FROM pg_sleep(1.4)"), 1);
    assert_in_range(clock_since_us(begun), 2600000, 5000000);
    db_end(TAKE(conn));
    assert_int_equal(pthread_join(thread, NULL), 0);
    TAKE(holder); /* it has ended */
    db_close(patient);
    db_close(db);
}

/* The codes are from PostgreSQL's appendix A; the server raises them. */
static void codes_have_their_kinds(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *code;
        enum err_kind write;
        enum err_kind read;
    } cases[] = {
        {"40001", ERR_AGAIN, ERR_BUSY},
        {"40P01", ERR_AGAIN, ERR_BUSY},
        {"55P03", ERR_AGAIN, ERR_BUSY},
        {"53100", ERR_FULL, ERR_FULL},
        {"53200", ERR_BUSY, ERR_BUSY},
        {"53300", ERR_BUSY, ERR_BUSY},
        {"57014", ERR_BUSY, ERR_BUSY},
        {"54000", ERR_TOO_LARGE, ERR_TOO_LARGE},
        {"58030", ERR_IO, ERR_IO},
        {"XX001", ERR_CORRUPT, ERR_CORRUPT},
        {"XX002", ERR_CORRUPT, ERR_CORRUPT},
        {"XX000", ERR_IO, ERR_IO},
        {"23505", ERR_CONFLICT, ERR_CONFLICT},
        {"23503", ERR_CONFLICT, ERR_CONFLICT},
        {"23514", ERR_INTERNAL, ERR_INTERNAL},
        {"42501", ERR_IO, ERR_IO},
        {"P0001", ERR_INTERNAL, ERR_INTERNAL},
    };
    struct err err = {0};
    struct db *db = open_table(f);
    must(db, "CREATE FUNCTION fail_with(code TEXT) RETURNS BIGINT LANGUAGE plpgsql AS"
             " 'BEGIN RAISE EXCEPTION USING ERRCODE = code; END'");
    for (size_t i = 0; i < 2 * ARRAY_SIZE(cases); i++) {
        bool row = false;
        auto_conn conn = NULL;
        assert_ok(i % 2 == 0 ? db_write(db, &conn, &err) : db_read(db, &conn, &err), err);
        auto_stmt stmt = db_stmt(conn, "SELECT fail_with($1)");
        db_bind_text(stmt, 1, str_from(cases[i / 2].code));
        assert_int_equal(db_step(stmt, &row, &err), -1);
        enum err_kind kind = i % 2 == 0 ? cases[i / 2].write : cases[i / 2].read;
        if (err.kind != kind)
            fail_msg("%s: %s", cases[i / 2].code, err_kind_name(err.kind));
        assert_non_null(strstr(err.why, cases[i / 2].code));
    }
    db_close(db);
}

static void text_that_is_no_text_is_invalid(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_table(f);
    static const struct str texts[] = {{"\xff\xfe", 2}, {"a\0b", 3}, {"\xc3", 1}};
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        auto_conn conn = NULL;
        assert_ok(db_write(db, &conn, &err), err);
        struct db_stmt *stmt = db_stmt(conn, "INSERT INTO t (id, name) VALUES (1, $1)");
        db_bind_text(stmt, 1, texts[i]);
        assert_int_equal(db_run(stmt, &err), -1);
        assert_int_equal(err.kind, ERR_INVALID);
    }
    db_close(db);
}

static void a_plan_that_the_schema_left_behind_is_made_anew(void **state)
{
    struct fixture *f = *state;
    static const char sql[] = "SELECT * FROM t WHERE id = 1";
    struct err err = {0};
    struct db_options options = options_for(f);
    options.readers = 2;
    struct db *db = open_with(&options);
    must(db, make_table);
    must(db, "INSERT INTO t (id) VALUES (1)");
    auto_conn conn = NULL;
    assert_ok(db_read(db, &conn, &err), err);
    assert_int_equal(ask_in(conn, sql), 1);
    must(db, "ALTER TABLE t ADD COLUMN x BIGINT");
    assert_int_equal(ask_in(conn, sql), 1);
    must(db, "ALTER TABLE t ADD COLUMN y BIGINT");
    db_end(TAKE(conn));
    assert_ok(db_write(db, &conn, &err), err); /* the same connection */
    assert_int_equal(ask_in(conn, sql), 1);
    assert_ok(db_commit(TAKE(conn), &err), err);

    auto_conn other = NULL;
    assert_ok(db_read(db, &other, &err), err);
    db_end(TAKE(other));
    assert_ok(db_write(db, &conn, &err), err);
    assert_int_equal(ask_in(conn, "SELECT 1"), 1);
    must(db, "ALTER TABLE t ADD COLUMN z BIGINT");
    bool row = false;
    struct db_stmt *stmt = db_stmt(conn, sql);
    int result = db_step(stmt, &row, &err); /* in the middle: from the beginning, then */
    assert_true(result == 0 || err.kind == ERR_AGAIN);
    db_done(stmt);
    db_end(TAKE(conn));
    assert_ok(db_write(db, &conn, &err), err);
    assert_int_equal(ask_in(conn, sql), 1);
    db_end(TAKE(conn));
    db_close(db);
}

/* ---- Between nodes ---- */

static void nodes_tell_each_other_and_know_when_they_missed_something(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct heard heard[2] = {{.mutex = PTHREAD_MUTEX_INITIALIZER, .text = BUF_INIT(10000)},
                             {.mutex = PTHREAD_MUTEX_INITIALIZER, .text = BUF_INIT(10000)}};
    struct db *nodes[2] = {open_db(f), open_db(f)};
    for (int i = 0; i < 2; i++)
        assert_ok(db_listen(nodes[i], hear, &heard[i], &err), err);
    notify(nodes[0], "from 0");
    assert_heard(&heard[1], "from 0|");
    assert_heard(&heard[0], "from 0|"); /* itself too */
    notify(nodes[1], "from 1");
    assert_heard(&heard[0], "from 1|");
    assert_heard(&heard[1], "from 1|");

    assert_int_equal(terminate("SELECT count(pg_terminate_backend(pid)) " OURS KEEPER), 2);
    for (int i = 0; i < 2; i++) {
        assert_heard(&heard[i], "(missed)|");
        wait_until_told(nodes[i]);
    }
    notify(nodes[0], "again");
    assert_heard(&heard[0], "again|");
    assert_heard(&heard[1], "again|");
    for (int i = 0; i < 2; i++) {
        db_close(nodes[i]);
        buf_done(&heard[i].text);
    }
}

static void who_hears_nothing_knows_it_within_a_second(void **state)
{
    struct fixture *f = *state;
    struct db *db = open_by_proxy(f, 5 * CLOCK_SECOND_US);
    wait_until_told(db);
    the_proxy.mode = PROXY_HOLD;
    struct mono_us begun = clock_mono();
    while (db_is_told(db) && clock_since_us(begun) < 5 * CLOCK_SECOND_US)
        (void)usleep(1000);
    assert_in_range(clock_since_us(begun), 100000, CLOCK_SECOND_US);
    set_proxy(PROXY_PASS, false);
    wait_until_told(db);
    close_with_proxy(db);
}

static void allow_connections(PGconn *admin, const char *database, bool allow)
{
    char sql[200];
    (void)snprintf(sql, sizeof(sql), "ALTER DATABASE %s ALLOW_CONNECTIONS %s", database,
                   allow ? "true" : "false");
    PGresult *result = PQexec(admin, sql);
    assert_int_equal(PQresultStatus(result), PGRES_COMMAND_OK);
    PQclear(result);
}

static void without_a_listener_the_other_connections_go_on(void **state)
{
    struct fixture *f = *state;
    struct db *db = open_table(f);
    PGconn *there = PQconnectdb(postgres_url());
    const char *const keywords[] = {"dbname", "dbname", NULL};
    const char *const values[] = {postgres_url(), "postgres", NULL};
    PGconn *admin = PQconnectdbParams(keywords, values, /* expand_dbname= */ 1);
    assert_int_equal(PQstatus(admin), CONNECTION_OK);
    wait_until_told(db);
    allow_connections(admin, PQdb(there), false);
    PGresult *result = PQexec(admin, "SELECT count(pg_terminate_backend(pid)) " OURS KEEPER);
    assert_string_equal(PQgetvalue(result, 0, 0), "1");
    PQclear(result);
    (void)usleep(600000);
    assert_false(db_is_told(db));
    must(db, "INSERT INTO t (id) VALUES (1)");
    assert_true(has(db, 1));
    allow_connections(admin, PQdb(there), true);
    wait_until_told(db);
    PQfinish(there);
    PQfinish(admin);
    db_close(db);
}

static void the_guard_keeps_others_out(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *a = open_db(f);
    struct db *b = open_db(f);
    struct db *c = open_db(f);
    assert_ok(db_guard(a, /* alone= */ false, &err), err);
    assert_ok(db_guard(b, /* alone= */ false, &err), err);
    assert_int_equal(db_guard(c, /* alone= */ true, &err), -1);
    assert_int_equal(err.kind, ERR_BUSY);
    assert_string_equal(err.say,
                        "the database is in use by other holdfast processes; stop them first");
    db_close(a);
    db_close(b);
    assert_ok(db_guard(c, /* alone= */ true, &err), err);
    a = open_db(f);
    assert_int_equal(db_guard(a, /* alone= */ false, &err), -1);
    assert_int_equal(err.kind, ERR_BUSY);
    assert_non_null(strstr(err.say, "alone"));

    /* A connection that breaks takes it again. */
    static const char held[] = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
                               " AND granted AND objid = 2 AND mode = 'ExclusiveLock'";
    assert_int_equal(ask_postgres(postgres_url(), held), 1);
    assert_true(terminate_all() >= 2);
    for (int i = 0; i < 300 && ask_postgres(postgres_url(), held) == 0; i++)
        (void)usleep(10000);
    assert_int_equal(ask_postgres(postgres_url(), held), 1);
    db_close(c);
    assert_ok(db_guard(a, /* alone= */ false, &err), err);
    db_close(a);
}

static void who_lost_the_guard_to_another_does_nothing(void **state)
{
    struct fixture *f = *state;
    struct fixture direct = *f;
    struct err err = {0};
    struct db *db = open_by_proxy(f, 5 * CLOCK_SECOND_US);
    assert_ok(db_guard(db, /* alone= */ false, &err), err);
    set_proxy(PROXY_REFUSE, /* drop= */ true);
    struct db *other = open_db(&direct);
    assert_ok(db_guard(other, /* alone= */ true, &err), err);
    set_proxy(PROXY_PASS, false);
    (void)usleep(700000);
    int64_t value = 0;
    assert_int_equal(try_ask(db, "SELECT 1", &value, &err), -1);
    assert_int_equal(err.kind, ERR_BUSY);
    assert_non_null(strstr(err.why, "alone"));
    assert_int_equal(ask(other, "SELECT 1"), 1);
    db_close(other);
    (void)wait_until_back(db);
    close_with_proxy(db);
}

/* ---- Migrations ---- */

static const struct db_migration migrations[] = {
    {1, NULL, "CREATE TABLE m (x BIGINT); INSERT INTO m VALUES (1)"},
    {2, NULL, "INSERT INTO m VALUES (2); SELECT pg_sleep(1.2)"},
    {3, NULL, "INSERT INTO m VALUES (3)"},
};

struct migrator {
    pthread_t thread;
    struct db *db;
    int result;
    struct err err;
};

static void *migrate(void *context)
{
    struct migrator *migrator = context;
    migrator->result = db_migrate(migrator->db, migrations, ARRAY_SIZE(migrations), &migrator->err);
    return NULL;
}

/* One of them takes longer than anybody's patience. */
static void processes_that_start_together_migrate_once(void **state)
{
    struct fixture *f = *state;
    struct migrator migrators[8] = {0};
    struct db_options options = options_for(f);
    options.busy_us = 500000;
    options.readers = 8;
    struct db *nodes[2] = {open_with(&options), open_with(&options)};
    for (size_t i = 0; i < ARRAY_SIZE(migrators); i++) {
        migrators[i].db = nodes[i % 2];
        assert_int_equal(pthread_create(&migrators[i].thread, NULL, migrate, &migrators[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(migrators); i++) {
        assert_int_equal(pthread_join(migrators[i].thread, NULL), 0);
        assert_ok(migrators[i].result, migrators[i].err);
    }
    assert_int_equal(ask(nodes[0], "SELECT count(*) FROM m"), 3);
    assert_int_equal(ask(nodes[1], "SELECT count(*) FROM schema_version"), 3);
    assert_int_equal(ask(nodes[1], "SELECT CAST(sum(x) AS BIGINT) FROM m"), 6);
    db_close(nodes[0]);
    db_close(nodes[1]);
}

/* ---- Opening ---- */

static void assert_refused(const char *url, enum err_kind kind, const char *says)
{
    struct db_options options = {
        .url = url, .readers = 1, .busy_us = CLOCK_SECOND_US, .start_us = 300000};
    struct err err = {0};
    struct db *db = NULL;
    assert_int_equal(db_open(&options, &db, &err), -1);
    if (err.kind != kind || strstr(err.say, says) == NULL)
        fail_msg("%s: %s (%s)", err_kind_name(err.kind), err.say, err.why);
    assert_null(strstr(err.say, "topsecret"));
    assert_null(strstr(err.why, "topsecret"));
}

static void what_does_not_open_says_why_and_never_the_password(void **state)
{
    (void)state;
    char url[300];
    int port = server_port();
    (void)snprintf(url, sizeof(url), "postgres://postgres:topsecret@127.0.0.1:%d/postgres", port);
    assert_refused(url, ERR_DENIED, "password authentication failed for user \"postgres\"");
    (void)snprintf(url, sizeof(url), "postgres://postgres@127.0.0.1:%d/postgres", port);
    assert_refused(url, ERR_DENIED, "no password");
    (void)snprintf(url, sizeof(url), "%s_not_there", postgres_url());
    assert_refused(url, ERR_DENIED, "does not exist");
    assert_refused("postgres://u:topsecret@127.0.0.1:1/d", ERR_BUSY, "Connection refused");
    assert_refused("postgres://u:topsecret@host.invalid/d", ERR_BUSY, "host.invalid");
    static const char *const broken[] = {
        "mysql://u:topsecret@h/d",      "postgres://u:topsecret%zz@h/d",
        "postgres://u:p@topsecret@h/d", "postgres://u:pa/topsecret@h/d",
        "postgres://u:topsecret/x@h/d", "postgres://u:topsecret@h/d?nonsense=1",
        "host=h password=topsecret",    "",
    };
    for (size_t i = 0; i < ARRAY_SIZE(broken); i++)
        assert_refused(broken[i], ERR_INVALID, "postgres://USER:PASSWORD@HOST");
}

static void servers_that_are_too_old_are_refused(void **state)
{
    struct fixture *f = *state;
    route(f, &the_proxy);
    set_proxy(PROXY_AGE, false);
    assert_refused(f->url, ERR_UNSUPPORTED, "needs 13 or later");
    proxy_stop(&the_proxy);
}

static void *heal_later(void *context)
{
    (void)usleep(700000);
    the_proxy.mode = PROXY_PASS;
    return context;
}

static void db_open_waits_for_a_server_that_is_starting(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;
    route(f, &the_proxy);
    set_proxy(PROXY_REFUSE, false);
    struct mono_us begun = clock_mono();
    assert_int_equal(pthread_create(&thread, NULL, heal_later, NULL), 0);
    struct db *db = open_db(f);
    assert_in_range(clock_since_us(begun), 600000, 3 * CLOCK_SECOND_US);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(ask(db, "SELECT 1"), 1);
    close_with_proxy(db);
}

static void sessions_are_set_up_as_the_engine_needs_them(void **state)
{
    struct fixture *f = *state;
    add_to_url(f, "%20-csynchronous_commit%3Doff");
    struct db *db = open_db(f);
    static const char *const sql[] = {
        "SELECT CASE current_setting('synchronous_commit') WHEN 'on' THEN 1 END",
        "SELECT CASE current_setting('statement_timeout') WHEN '5001ms' THEN 1 END",
        "SELECT CASE current_setting('lock_timeout') WHEN '5001ms' THEN 1 END",
        "SELECT 1 WHERE current_setting('idle_in_transaction_session_timeout') = '5001ms'",
        "SELECT CASE current_setting('client_encoding') WHEN 'UTF8' THEN 1 END",
        "SELECT CASE current_setting('transaction_isolation') WHEN 'read committed' THEN 1 END",
        "SELECT CASE current_setting('application_name') WHEN 'holdfast' THEN 1 END",
    };
    for (size_t i = 0; i < ARRAY_SIZE(sql); i++)
        if (ask(db, sql[i]) != 1)
            fail_msg("%s", sql[i]);
    db_close(db);
}

/* ---- TLS ---- */

static void spawn(const char *const *arguments)
{
    pid_t pid = 0;
    int status = 0;
    posix_spawn_file_actions_t actions;
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    assert_int_equal(posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0), 0);
    char *copies[40] = {0};
    for (size_t i = 0; arguments[i] != NULL; i++)
        copies[i] = mem_strdup(arguments[i]);
    assert_int_equal(posix_spawnp(&pid, copies[0], &actions, NULL, copies, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    for (size_t i = 0; copies[i] != NULL; i++)
        free(copies[i]);
    (void)posix_spawn_file_actions_destroy(&actions);
}

struct authority {
    char folder[64];
    char key[96];
    char certificate[96];
};

static void make_authority(struct authority *authority)
{
    (void)snprintf(authority->folder, sizeof(authority->folder), "/tmp/holdfast-test-ca-XXXXXX");
    assert_non_null(mkdtemp(authority->folder));
    (void)snprintf(authority->key, sizeof(authority->key), "%s/ca.key", authority->folder);
    (void)snprintf(authority->certificate, sizeof(authority->certificate), "%s/ca.crt",
                   authority->folder);
    spawn((const char *const[]){"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                                "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                                "/CN=test authority", "-keyout", authority->key, "-out",
                                authority->certificate, NULL});
}

static void drop_authority(const struct authority *authority)
{
    assert_int_equal(unlink(authority->key), 0);
    assert_int_equal(unlink(authority->certificate), 0);
    assert_int_equal(rmdir(authority->folder), 0);
}

static void data_folder(char *path, size_t size)
{
    PGconn *pg = PQconnectdb(postgres_url());
    PGresult *result = PQexec(pg, "SHOW data_directory");
    assert_int_equal(PQresultStatus(result), PGRES_TUPLES_OK);
    (void)snprintf(path, size, "%s", PQgetvalue(result, 0, 0));
    PQclear(result);
    PQfinish(pg);
}

/* For `name`, in the server's own folder, where it looks by default. */
static void certify_server(const struct authority *authority, const char *name)
{
    char folder[200];
    char key[220];
    char certificate[220];
    char alternative[80];
    struct stat st;
    data_folder(folder, sizeof(folder));
    (void)snprintf(key, sizeof(key), "%s/server.key", folder);
    (void)snprintf(certificate, sizeof(certificate), "%s/server.crt", folder);
    (void)snprintf(alternative, sizeof(alternative), "subjectAltName=%s", name);
    spawn((const char *const[]){"openssl",
                                "req",
                                "-x509",
                                "-newkey",
                                "ec",
                                "-pkeyopt",
                                "ec_paramgen_curve:P-256",
                                "-nodes",
                                "-days",
                                "2",
                                "-subj",
                                "/CN=test server",
                                "-addext",
                                alternative,
                                "-CA",
                                authority->certificate,
                                "-CAkey",
                                authority->key,
                                "-keyout",
                                key,
                                "-out",
                                certificate,
                                NULL});
    assert_int_equal(stat(folder, &st), 0);
    assert_int_equal(chmod(key, 0600), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(key, st.st_uid, st.st_gid), 0);
        assert_int_equal(chown(certificate, st.st_uid, st.st_gid), 0);
    }
    (void)ask_postgres(postgres_url(), "ALTER SYSTEM SET ssl = on");
    (void)ask_postgres(postgres_url(), "SELECT pg_reload_conf()");
    (void)usleep(300000);
}

static void tls_is_as_the_url_asks(void **state)
{
    struct fixture *f = *state;
    struct authority ours;
    struct authority foreign;
    make_authority(&ours);
    make_authority(&foreign);
    struct fixture secure = *f;
    add_to_url(&secure, "&sslmode=verify-full&sslrootcert=");
    struct fixture misled = secure;
    add_to_url(&secure, ours.certificate);
    add_to_url(&misled, foreign.certificate);

    assert_refused(secure.url, ERR_BUSY, "does not support SSL"); /* yet */
    certify_server(&ours, "IP:127.0.0.1");
    struct db *db = open_table(&secure);
    assert_int_equal(ask(db, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"), 1);
    assert_int_equal(ask(db, "SELECT length(repeat('x', 1000))"), 1000);
    static const char sql_large[] = "SELECT repeat('0123456789', 1000000)"; /* of many records */
    struct err err = {0};
    auto_conn conn = NULL;
    bool row = false;
    assert_ok(db_read(db, &conn, &err), err);
    struct db_stmt *stmt = db_stmt(conn, sql_large);
    struct mono_us begun = clock_mono();
    assert_ok(db_step(stmt, &row, &err), err);
    assert_int_equal(db_text(stmt, 0).n, 10000000);
    assert_in_range(clock_since_us(begun), 0, 4 * CLOCK_SECOND_US);
    db_done(stmt);
    db_end(TAKE(conn));
    assert_true(terminate_all() >= 2);
    must(db, "INSERT INTO t (id) VALUES (1)");
    assert_true(has(db, 1));
    wait_until_told(db);
    db_close(db);

    assert_refused(misled.url, ERR_BUSY, "certificate verify failed");
    certify_server(&ours, "DNS:db.example.com");
    assert_refused(secure.url, ERR_BUSY, "does not match host name");
    (void)ask_postgres(postgres_url(), "ALTER SYSTEM RESET ssl");
    (void)ask_postgres(postgres_url(), "SELECT pg_reload_conf()");
    drop_authority(&ours);
    drop_authority(&foreign);
}

/* ---- fsck ---- */

static void note_complaint(void *context, const char *complaint)
{
    (void)snprintf(context, 200, "%s", complaint);
}

/* An index over a function whose answer changed is damaged, as one on a bad disk is. */
static void verify_finds_a_damaged_index(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    char complaint[200] = "";
    struct db *db = open_table(f);
    must(db, "CREATE EXTENSION IF NOT EXISTS amcheck");
    must(db, "CREATE FUNCTION same(x BIGINT) RETURNS BIGINT IMMUTABLE LANGUAGE sql AS 'SELECT x'");
    must(db, "CREATE INDEX t_same ON t (same(id))");
    must(db, "INSERT INTO t (id) SELECT generate_series(1, 1000)");
    assert_ok(db_verify(db, note_complaint, complaint, &err), err);
    assert_string_equal(complaint, "");
    must(db, "CREATE OR REPLACE FUNCTION same(x BIGINT) RETURNS BIGINT IMMUTABLE LANGUAGE sql"
             " AS 'SELECT -x'");
    assert_ok(db_verify(db, note_complaint, complaint, &err), err);
    assert_non_null(strstr(complaint, "index \"t_same\""));
    must(db, "DROP EXTENSION amcheck");
    db_close(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        POSTGRES_CASE(round_trips_are_few),
        POSTGRES_CASE(what_was_idle_is_connected_again_without_a_word),
        POSTGRES_CASE(a_transaction_whose_connection_breaks_may_run_again),
        POSTGRES_CASE(db_transact_runs_it_again),
        POSTGRES_CASE(a_commit_without_an_answer_is_unsure),
        POSTGRES_CASE(what_is_queued_on_a_broken_connection_runs_again),
        POSTGRES_CASE(a_last_statement_without_an_answer_is_unsure),
        POSTGRES_CASE(who_is_ended_before_his_commit_may_run_again),
        POSTGRES_CASE(only_what_is_relaxed_does_not_wait_for_the_disk),
        POSTGRES_CASE(what_was_committed_outlives_a_crash_of_the_server),
        POSTGRES_CASE(while_it_is_away_calls_fail_at_once_and_go_on_when_it_is_back),
        POSTGRES_CASE(a_cut_cable_hangs_nobody),
        POSTGRES_CASE(stopped_backends_hang_nobody),
        POSTGRES_CASE(a_slow_statement_is_ended_and_the_connection_kept),
        POSTGRES_CASE(of_a_deadlock_one_loses_and_may_run_again),
        POSTGRES_CASE(shared_locks_wait_for_nobody_who_shares),
        POSTGRES_CASE(who_waited_for_a_lock_has_his_patience_still),
        POSTGRES_CASE(a_failed_statement_ends_the_transaction),
        POSTGRES_CASE(a_queued_statement_that_fails_is_named),
        POSTGRES_CASE(codes_have_their_kinds),
        POSTGRES_CASE(text_that_is_no_text_is_invalid),
        POSTGRES_CASE(a_plan_that_the_schema_left_behind_is_made_anew),
        POSTGRES_CASE(nodes_tell_each_other_and_know_when_they_missed_something),
        POSTGRES_CASE(who_hears_nothing_knows_it_within_a_second),
        POSTGRES_CASE(without_a_listener_the_other_connections_go_on),
        POSTGRES_CASE(the_guard_keeps_others_out),
        POSTGRES_CASE(who_lost_the_guard_to_another_does_nothing),
        POSTGRES_CASE(processes_that_start_together_migrate_once),
        POSTGRES_CASE(what_does_not_open_says_why_and_never_the_password),
        POSTGRES_CASE(servers_that_are_too_old_are_refused),
        POSTGRES_CASE(db_open_waits_for_a_server_that_is_starting),
        POSTGRES_CASE(sessions_are_set_up_as_the_engine_needs_them),
        POSTGRES_CASE(tls_is_as_the_url_asks),
        POSTGRES_CASE(verify_finds_a_damaged_index),
    };
    if (postgres_url() == NULL) {
        print_message("not run: there is no HOLDFAST_TEST_POSTGRES\n");
        return 77; /* skipped */
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
