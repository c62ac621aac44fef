/* Group commit under threads, and with a disk that fails. The disk fails in two places that SQLite
 * offers or the linker gives: its own table of system calls for writes, and fdatasync of libc. */
#include "db/test_db.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define THREADS 16

static atomic_int flushes;
static atomic_uint flush_us;     /* how long each takes longer, on average */
static atomic_int flushes_fail;  /* the next so many fail */
static atomic_int writes_fail;   /* of the log, likewise */
static atomic_int fault_percent; /* of flushes and writes, at random */

static bool take_one(atomic_int *count)
{
    int have = atomic_load(count);
    while (have > 0)
        if (atomic_compare_exchange_weak(count, &have, have - 1))
            return true;
    return false;
}

/* xorshift, seeded per thread: a run is the same as far as threads allow it. */
static uint32_t next_random(void)
{
    static atomic_uint seeds = 1;
    static _Thread_local uint32_t x;
    if (x == 0)
        x = atomic_fetch_add(&seeds, 1) * 2654435761U;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return x;
}

static bool fault(void)
{
    int percent = atomic_load(&fault_percent);
    return percent > 0 && next_random() % 100 < (uint32_t)percent;
}

/* Takes the place of libc's for SQLite. */
int fdatasync(int fd)
{
    (void)atomic_fetch_add(&flushes, 1);
    unsigned us = atomic_load(&flush_us);
    if (us > 0)
        (void)usleep(us / 2 + next_random() % us);
    if (take_one(&flushes_fail) || fault()) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

static bool is_log(int fd)
{
    char link[64];
    char target[256];
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, target, sizeof(target));
    return n > 0 && str_ends((struct str){target, (size_t)n}, STR("-wal"));
}

static bool write_fails(int fd)
{
    if ((atomic_load(&writes_fail) == 0 && atomic_load(&fault_percent) == 0) || !is_log(fd))
        return false;
    return take_one(&writes_fail) || fault();
}

static ssize_t faulty_pwrite(int fd, const void *p, size_t n, off_t at)
{
    if (write_fails(fd)) {
        errno = ENOSPC;
        return -1;
    }
    return pwrite(fd, p, n, at);
}

static ssize_t faulty_write(int fd, const void *p, size_t n)
{
    if (write_fails(fd)) {
        errno = ENOSPC;
        return -1;
    }
    return write(fd, p, n);
}

static int use_faulty_disk(void **state)
{
    (void)state;
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
    assert_non_null(vfs);
    assert_int_equal(vfs->xSetSystemCall(vfs, "write", (sqlite3_syscall_ptr)faulty_write), 0);
    (void)vfs->xSetSystemCall(vfs, "pwrite", (sqlite3_syscall_ptr)faulty_pwrite);
    (void)vfs->xSetSystemCall(vfs, "pwrite64", (sqlite3_syscall_ptr)faulty_pwrite);
    return 0;
}

static struct db *open_table(const struct fixture *f, int64_t busy_us)
{
    struct db_options options = options_for(f);
    options.busy_us = busy_us;
    struct db *db = open_with(&options);
    must(db, "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, data BLOB)");
    return db;
}

static struct db *open_patient(const struct fixture *f)
{
    return open_table(f, 30 * CLOCK_SECOND_US);
}

static int insert_in(struct db_conn *conn, int64_t id, struct err *err)
{
    struct db_stmt *stmt = db_stmt(conn, "INSERT INTO t (id) VALUES ($1)");
    db_bind_int(stmt, 1, id);
    return db_run(stmt, err);
}

static int insert(struct db *db, int64_t id, struct err *err)
{
    auto_conn conn = NULL;
    if (db_write(db, &conn, err) < 0 || insert_in(conn, id, err) < 0)
        return -1;
    return db_commit(TAKE(conn), err);
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

/* One thread of a test: what it shall do, and what came of it. No assertion runs in it. */
struct worker {
    pthread_t thread;
    struct db *db;
    int64_t first; /* of its ids */
    int rounds;
    bool *kept; /* owned: per round, whether its commit returned 0 */
    int pipe;   /* told each id that was kept; 0: nobody */
    int failures;
    int result; /* of single commits */
    struct err err;
};

static void start(struct worker *worker, struct db *db, void *(*run)(void *))
{
    worker->db = db;
    assert_int_equal(pthread_create(&worker->thread, NULL, run, worker), 0);
}

static void finish(struct worker *worker)
{
    assert_int_equal(pthread_join(worker->thread, NULL), 0);
}

/* Long enough for started threads to stand in the queue. */
static void let_them_queue(void)
{
    (void)usleep(200000);
}

/* Inserts one row per round; each fifth is rolled back. */
static void *insert_many(void *context)
{
    struct worker *worker = context;
    for (int i = 0; i < worker->rounds; i++) {
        auto_conn conn = NULL;
        int64_t id = worker->first + i;
        bool commits = i % 5 != 4;
        if (db_write(worker->db, &conn, &worker->err) == 0 &&
            insert_in(conn, id, &worker->err) == 0 && commits)
            worker->kept[i] = db_commit(TAKE(conn), &worker->err) == 0;
        if (commits && !worker->kept[i])
            worker->failures++;
        if (worker->kept[i] && worker->pipe != 0)
            require(write(worker->pipe, &id, sizeof(id)) == (ssize_t)sizeof(id));
    }
    return NULL;
}

static void start_all(struct worker *workers, size_t n, struct db *db, int rounds)
{
    for (size_t i = 0; i < n; i++) {
        workers[i].first = (int64_t)(i + 1) * 1000000;
        workers[i].rounds = rounds;
        workers[i].kept = mem_zalloc((size_t)rounds);
        start(&workers[i], db, insert_many);
    }
}

/* Every row whose commit returned 0 is there, and no other. */
static void assert_kept(struct db *db, const struct worker *workers, size_t n)
{
    int64_t kept = 0;
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < workers[i].rounds; k++) {
            kept += workers[i].kept[k];
            if (workers[i].kept[k] != has(db, workers[i].first + k))
                fail_msg("row %lld: told %d", (long long)(workers[i].first + k),
                         workers[i].kept[k]);
        }
    assert_int_equal(ask(db, "SELECT count(*) FROM t"), kept);
}

static int finish_all(struct worker *workers, size_t n)
{
    int failures = 0;
    for (size_t i = 0; i < n; i++) {
        finish(&workers[i]);
        failures += workers[i].failures;
    }
    return failures;
}

static void free_all(struct worker *workers, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(workers[i].kept);
}

static void many_threads_share_flushes_and_all_is_durable(void **state)
{
    struct fixture *f = *state;
    auto_mem struct worker *workers = mem_zalloc(THREADS * sizeof(*workers));
    struct db *db = open_patient(f);
    atomic_store(&flush_us, 2000);
    int before = atomic_load(&flushes);
    start_all(workers, THREADS, db, 50);
    assert_int_equal(finish_all(workers, THREADS), 0);
    atomic_store(&flush_us, 0);
    assert_in_range(atomic_load(&flushes) - before, 1, THREADS * 40 / 4);
    assert_kept(db, workers, THREADS);
    db_close(db);

    db = open_patient(f);
    assert_kept(db, workers, THREADS);
    db_close(db);
    free_all(workers, THREADS);
}

static void *insert_one(void *context)
{
    struct worker *worker = context;
    worker->result = insert(worker->db, worker->first, &worker->err);
    return NULL;
}

static void a_group_fails_together(void **state)
{
    struct fixture *f = *state;
    struct worker workers[4] = {0};
    struct err err = {0};
    struct db *db = open_patient(f);
    for (int fail_flush = 0; fail_flush < 2; fail_flush++) {
        auto_conn conn = NULL;
        assert_ok(db_write(db, &conn, &err), err);
        assert_ok(insert_in(conn, 1, &err), err);
        for (size_t i = 0; i < ARRAY_SIZE(workers); i++) {
            workers[i].first = 10 + (int64_t)i;
            start(&workers[i], db, insert_one);
        }
        let_them_queue();
        atomic_store(fail_flush ? &flushes_fail : &writes_fail, 1);
        assert_int_equal(db_commit(TAKE(conn), &err), -1);
        assert_int_equal(err.kind, fail_flush ? ERR_IO : ERR_FULL);
        for (size_t i = 0; i < ARRAY_SIZE(workers); i++) {
            finish(&workers[i]);
            assert_int_equal(workers[i].result, -1);
            assert_int_equal(workers[i].err.kind, err.kind);
        }
        assert_int_equal(ask(db, "SELECT count(*) FROM t"), 0);
    }
    assert_ok(insert(db, 2, &err), err); /* and the next group is a new one */
    db_close(db);
    db = open_patient(f);
    assert_int_equal(ask(db, "SELECT count(*) FROM t"), 1);
    db_close(db);
}

static void *roll_back_one(void *context)
{
    struct worker *worker = context;
    auto_conn conn = NULL;
    require(db_write(worker->db, &conn, &worker->err) == 0);
    require(insert_in(conn, worker->first, &worker->err) == 0);
    return NULL;
}

static void a_rolled_back_member_disturbs_nobody(void **state)
{
    struct fixture *f = *state;
    struct worker before = {.first = 2};
    struct worker after = {.first = 3};
    struct err err = {0};
    struct db *db = open_patient(f);
    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(insert_in(conn, 1, &err), err);
    start(&before, db, insert_one);
    let_them_queue();
    start(&after, db, roll_back_one); /* the last of the group: db_end commits for the others */
    let_them_queue();
    int flushed = atomic_load(&flushes);
    assert_ok(db_commit(TAKE(conn), &err), err);
    finish(&before);
    finish(&after);
    assert_int_equal(atomic_load(&flushes) - flushed, 1);
    assert_ok(before.result, before.err);
    assert_true(has(db, 1) && has(db, 2) && !has(db, 3));
    db_close(db);
}

static void *break_a_deferred_constraint(void *context)
{
    struct worker *worker = context;
    struct err err = {0};
    auto_conn conn = NULL;
    require(db_write(worker->db, &conn, &err) == 0);
    require(db_run(db_stmt(conn, "INSERT INTO later (t_id) VALUES (77)"), &err) == 0);
    worker->result = db_commit(TAKE(conn), &worker->err);
    return NULL;
}

static void a_deferred_constraint_fails_only_the_one_who_broke_it(void **state)
{
    struct fixture *f = *state;
    struct worker breaker = {0};
    struct err err = {0};
    struct db *db = open_patient(f);
    must(db, "CREATE TABLE later (t_id INTEGER REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED)");
    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(insert_in(conn, 1, &err), err);
    start(&breaker, db, break_a_deferred_constraint);
    let_them_queue();
    assert_ok(db_commit(TAKE(conn), &err), err);
    finish(&breaker);
    assert_int_equal(breaker.result, -1);
    assert_int_equal(breaker.err.kind, ERR_CONFLICT);
    assert_int_equal(ask(db, "SELECT count(*) FROM later"), 0);
    assert_true(has(db, 1));
    db_close(db);
}

static void *fill_the_disk(void *context)
{
    struct worker *worker = context;
    static const char huge[] = "INSERT INTO t (id, data) VALUES (5, zeroblob(30000000))";
    struct err err = {0};
    auto_conn conn = NULL;
    require(db_write(worker->db, &conn, &err) == 0);
    require(insert_in(conn, 6, &err) == 0);
    atomic_store(&writes_fail, 1); /* the cache overflows into the log */
    require(db_run(db_stmt(conn, huge), &worker->err) < 0);
    require(insert_in(conn, 7, &err) < 0); /* must not run by itself now */
    worker->result = db_commit(TAKE(conn), &err);
    return NULL;
}

static void who_shares_a_transaction_that_the_engine_gave_up_is_told(void **state)
{
    struct fixture *f = *state;
    struct worker filler = {0};
    struct err err = {0};
    struct db *db = open_patient(f);
    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(insert_in(conn, 1, &err), err);
    start(&filler, db, fill_the_disk);
    let_them_queue();
    assert_int_equal(db_commit(TAKE(conn), &err), -1);
    assert_int_equal(err.kind, ERR_FULL);
    assert_non_null(strstr(err.why, "shared its commit"));
    finish(&filler);
    assert_int_equal(filler.result, -1);
    assert_int_equal(filler.err.kind, ERR_FULL);
    assert_int_equal(ask(db, "SELECT count(*) FROM t"), 0);
    assert_ok(insert(db, 2, &err), err);
    db_close(db);
}

static void with_a_failing_disk_what_was_told_is_true(void **state)
{
    struct fixture *f = *state;
    struct worker workers[8] = {0};
    struct db *db = open_patient(f);
    atomic_store(&fault_percent, 10);
    start_all(workers, ARRAY_SIZE(workers), db, 60);
    int failures = finish_all(workers, ARRAY_SIZE(workers));
    atomic_store(&fault_percent, 0);
    assert_in_range(failures, 1, 8 * 48 - 1); /* some, not all: else this tests nothing */
    assert_kept(db, workers, ARRAY_SIZE(workers));
    db_close(db);
    db = open_patient(f);
    assert_kept(db, workers, ARRAY_SIZE(workers));
    db_close(db);
    free_all(workers, ARRAY_SIZE(workers));
}

static void those_who_cannot_wait_are_busy_and_leave_nothing_behind(void **state)
{
    struct fixture *f = *state;
    auto_mem struct worker *workers = mem_zalloc(THREADS * sizeof(*workers));
    struct db *db = open_table(f, 3000);
    atomic_store(&flush_us, 4000); /* some in time for the patience of 3 ms, some not */
    start_all(workers, THREADS, db, 40);
    int failures = finish_all(workers, THREADS);
    atomic_store(&flush_us, 0);
    assert_in_range(failures, 1, THREADS * 40 - 1); /* both happened */
    assert_kept(db, workers, THREADS);
    db_close(db);
    free_all(workers, THREADS);
}

struct watcher {
    pthread_t thread;
    struct db *db;
    atomic_bool stop;
    int64_t odd;  /* times that half a transaction was seen */
    int64_t seen; /* looks */
};

static void *watch_pairs(void *context)
{
    struct watcher *watcher = context;
    struct err err;
    while (!atomic_load(&watcher->stop)) {
        auto_conn conn = NULL;
        bool row = false;
        require(db_read(watcher->db, &conn, &err) == 0);
        auto_stmt stmt = db_stmt(conn, "SELECT count(*) FROM t");
        require(db_step(stmt, &row, &err) == 0 && row);
        watcher->odd += db_int(stmt, 0) % 2;
        watcher->seen++;
    }
    return NULL;
}

static void *insert_pairs(void *context)
{
    struct worker *worker = context;
    for (int i = 0; i < 100; i++) {
        auto_conn conn = NULL;
        require(db_write(worker->db, &conn, &worker->err) == 0);
        require(insert_in(conn, worker->first + 2 * i, &worker->err) == 0);
        require(insert_in(conn, worker->first + 2 * i + 1, &worker->err) == 0);
        require(db_commit(TAKE(conn), &worker->err) == 0);
    }
    return NULL;
}

static void readers_never_see_half_a_transaction(void **state)
{
    struct fixture *f = *state;
    struct worker workers[4] = {0};
    struct watcher watchers[6] = {0}; /* more than connections: they also wait for each other */
    struct db *db = open_patient(f);
    for (size_t i = 0; i < ARRAY_SIZE(watchers); i++) {
        watchers[i].db = db;
        assert_int_equal(pthread_create(&watchers[i].thread, NULL, watch_pairs, &watchers[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(workers); i++) {
        workers[i].first = (int64_t)(i + 1) * 1000;
        start(&workers[i], db, insert_pairs);
    }
    (void)finish_all(workers, ARRAY_SIZE(workers));
    for (size_t i = 0; i < ARRAY_SIZE(watchers); i++) {
        atomic_store(&watchers[i].stop, true);
        assert_int_equal(pthread_join(watchers[i].thread, NULL), 0);
        assert_true(watchers[i].seen > 0);
        assert_int_equal(watchers[i].odd, 0);
    }
    assert_int_equal(ask(db, "SELECT count(*) FROM t"), 800);
    db_close(db);
}

static void *insert_large(void *context)
{
    struct worker *worker = context;
    static const char sql[] = "INSERT INTO t (data) VALUES (zeroblob(200000))";
    for (int i = 0; i < 200; i++) {
        auto_conn conn = NULL;
        require(db_write(worker->db, &conn, &worker->err) == 0);
        require(db_run(db_stmt(conn, sql), &worker->err) == 0);
        require(db_commit(TAKE(conn), &worker->err) == 0);
    }
    return NULL;
}

static void the_log_does_not_grow_for_ever(void **state)
{
    struct fixture *f = *state;
    struct worker workers[3] = {0};
    struct db *db = open_patient(f);
    for (size_t i = 0; i < ARRAY_SIZE(workers); i++)
        start(&workers[i], db, insert_large);
    (void)finish_all(workers, ARRAY_SIZE(workers)); /* 120 MB in all */
    char log[160];
    struct stat st;
    (void)snprintf(log, sizeof(log), "%s-wal", f->path);
    assert_int_equal(stat(log, &st), 0);
    assert_in_range(st.st_size, 1, 64 << 20);
    assert_int_equal(ask(db, "SELECT count(*) FROM t"), 600);
    db_close(db);
    assert_int_equal(stat(log, &st), -1); /* nothing is left to recover */
}

static void commit_until_killed(const struct fixture *f, int pipe)
{
    struct worker workers[8] = {0};
    struct db *db = open_patient(f);
    for (size_t i = 0; i < ARRAY_SIZE(workers); i++)
        workers[i].pipe = pipe;
    start_all(workers, ARRAY_SIZE(workers), db, 900000);
    (void)finish_all(workers, ARRAY_SIZE(workers));
}

static void what_was_told_survives_a_kill(void **state)
{
    struct fixture *f = *state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)close(ends[0]);
        commit_until_killed(f, ends[1]);
        _exit(0);
    }
    (void)close(ends[1]);
    static int64_t told[1000000];
    size_t n = 0;
    while (n < 500 && read(ends[0], &told[n], sizeof(told[n])) == (ssize_t)sizeof(told[n]))
        n++;
    assert_int_equal(kill(pid, SIGKILL), 0);
    while (n < ARRAY_SIZE(told) &&
           read(ends[0], &told[n], sizeof(told[n])) == (ssize_t)sizeof(told[n]))
        n++;
    (void)close(ends[0]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_true(n >= 500);

    struct db *db = open_patient(f);
    for (size_t i = 0; i < n; i++)
        assert_true(has(db, told[i]));
    db_close(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(many_threads_share_flushes_and_all_is_durable),
        CASE(a_group_fails_together),
        CASE(a_rolled_back_member_disturbs_nobody),
        CASE(a_deferred_constraint_fails_only_the_one_who_broke_it),
        CASE(who_shares_a_transaction_that_the_engine_gave_up_is_told),
        CASE(with_a_failing_disk_what_was_told_is_true),
        CASE(those_who_cannot_wait_are_busy_and_leave_nothing_behind),
        CASE(readers_never_see_half_a_transaction),
        CASE(the_log_does_not_grow_for_ever),
        CASE(what_was_told_survives_a_kill),
    };
    return cmocka_run_group_tests(tests, use_faulty_disk, NULL);
}
