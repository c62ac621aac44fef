/* What every engine does alike: each test runs on SQLite, and on PostgreSQL when there is one. */
#include "db/test_db.h"

#include <pthread.h>
#include <stdatomic.h>

static const struct db_migration migrations[] = {
    {1,
     "CREATE TABLE parent (id INTEGER NOT NULL PRIMARY KEY, name TEXT UNIQUE);"
     "CREATE TABLE child (parent_id INTEGER NOT NULL REFERENCES parent (id));",
     "CREATE TABLE parent (id BIGINT NOT NULL PRIMARY KEY, name TEXT UNIQUE);"
     "CREATE TABLE child (parent_id BIGINT NOT NULL REFERENCES parent (id));"},
    {2,
     "ALTER TABLE parent ADD COLUMN data BLOB;"
     "INSERT INTO parent (id, name) VALUES (1, 'one');",
     "ALTER TABLE parent ADD COLUMN data BYTEA;"
     "INSERT INTO parent (id, name) VALUES (1, 'one');"},
    {3, "CREATE TABLE later (x INTEGER)", "CREATE TABLE later (x INTEGER)"},
};

static struct db *open_migrated(const struct fixture *f)
{
    struct db *db = open_db(f);
    struct err err = {0};
    assert_ok(db_migrate(db, migrations, ARRAY_SIZE(migrations), &err), err);
    return db;
}

static void migrations_run_once_and_in_order(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_db(f);
    assert_ok(db_migrate(db, migrations, 1, &err), err);
    assert_int_equal(ask(db, "SELECT max(version) FROM schema_version"), 1);
    assert_int_equal(ask(db, "SELECT count(*) FROM parent"), 0);
    assert_ok(db_migrate(db, migrations, 3, &err), err);
    assert_ok(db_migrate(db, migrations, 3, &err), err);
    assert_int_equal(ask(db, "SELECT max(version) FROM schema_version"), 3);
    assert_int_equal(ask(db, "SELECT count(*) FROM parent"), 1);
    db_close(db);
}

static void a_newer_database_is_refused_with_both_versions(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_migrated(f);
    assert_int_equal(db_migrate(db, migrations, 1, &err), -1);
    assert_int_equal(err.kind, ERR_UNSUPPORTED);
    assert_non_null(strstr(err.say, "schema version 3"));
    assert_non_null(strstr(err.say, "up to 1"));
    assert_int_equal(ask(db, "SELECT count(*) FROM parent"), 1);
    db_close(db);
}

static void a_failing_migration_leaves_the_version_before_it(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_migrated(f);
    const struct db_migration broken[] = {migrations[0],
                                          migrations[1],
                                          migrations[2],
                                          {4, "CREATE TABLE four (x INTEGER); CREATE TABBLE x;",
                                           "CREATE TABLE four (x INTEGER); CREATE TABBLE x;"}};
    assert_int_equal(db_migrate(db, broken, 4, &err), -1);
    assert_non_null(strstr(err.why, "migration 4"));
    assert_int_equal(ask(db, "SELECT max(version) FROM schema_version"), 3);
    must(db, "CREATE TABLE four (x INTEGER)"); /* it is not there */
    db_close(db);
}

static void a_statement_is_prepared_once_per_connection(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_migrated(f);
    static const char sql[] = "SELECT count(*) FROM parent";
    auto_conn first = NULL;
    assert_ok(db_read(db, &first, &err), err);
    struct db_stmt *stmt = db_stmt(first, sql);
    db_done(stmt);
    db_done(stmt); /* harmless */
    assert_ptr_equal(db_stmt(first, sql), stmt);
    db_done(stmt);
    struct db_conn *was = first;
    db_end(TAKE(first));
    assert_ok(db_read(db, &first, &err), err);
    assert_ptr_equal(first, was); /* the last one back is the first one out */
    assert_ptr_equal(db_stmt(first, sql), stmt);
    db_done(stmt);

    auto_mem char(*texts)[24] = mem_zalloc(200 * sizeof(*texts));
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 200; i++) {
            (void)snprintf(texts[i], sizeof(texts[i]), "SELECT %d", i);
            assert_int_equal(ask_in(first, texts[i]), i);
        }
    db_end(TAKE(first));
    db_close(db);
}

/* What is common to the engines is that the kind is told, and that tables are not the client's
 * business. */
static void constraints_are_conflicts(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_migrated(f);
    static const struct {
        const char *sql;
        enum err_kind kind;
    } broken[] = {
        {"INSERT INTO parent (id, name) VALUES (1, 'x')", ERR_CONFLICT},
        {"INSERT INTO parent (id, name) VALUES (2, 'one')", ERR_CONFLICT},
        {"INSERT INTO child (parent_id) VALUES (77)", ERR_CONFLICT},
        {"INSERT INTO child (parent_id) VALUES (NULL)", ERR_INTERNAL},
    };
    for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
        assert_int_equal(change(db, broken[i].sql, &err), -1);
        assert_int_equal(err.kind, broken[i].kind);
        assert_null(strstr(err.say, "parent"));
        assert_non_null(strstr(err.why, "INSERT"));
    }
    assert_int_equal(ask(db, "SELECT count(*) FROM child"), 0);
    db_close(db);
}

static int64_t put(struct db_conn *conn, int64_t id, struct str name, struct str data)
{
    static const char sql[] = "INSERT INTO parent (id, name, data) VALUES ($1, $2, $3)"
                              " ON CONFLICT (id) DO UPDATE SET name = excluded.name"
                              " RETURNING id";
    struct err err = {0};
    bool row = false;
    auto_stmt stmt = db_stmt(conn, sql);
    db_bind_int(stmt, 1, id);
    db_bind_text(stmt, 2, name);
    if (data.p != NULL)
        db_bind_blob(stmt, 3, data);
    assert_ok(db_step(stmt, &row, &err), err);
    assert_true(row);
    return db_int(stmt, 0);
}

static void values_come_back_as_they_were_bound(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_migrated(f);
    auto_conn conn = NULL;
    auto_mem char *large = mem_alloc(4 << 20);
    for (size_t i = 0; i < 4 << 20; i++)
        large[i] = (char)(i * 7 + i / 256);
    assert_ok(db_write(db, &conn, &err), err);
    assert_true(put(conn, INT64_MIN, STR("na\303\257ve"), (struct str){large, 4 << 20}) ==
                INT64_MIN);
    assert_true(put(conn, INT64_MAX, (struct str){NULL, 0}, STR("\0\377")) == INT64_MAX);
    assert_true(put(conn, -5, (struct str){"not terminated", 3}, (struct str){NULL, 0}) == -5);
    assert_int_equal(db_changed(conn), 1);
    assert_ok(db_commit(TAKE(conn), &err), err);

    static const char sql[] =
        "SELECT id, name, data, EXISTS (SELECT 1 FROM child WHERE parent_id = id),"
        " CASE WHEN id < $2 THEN 1 ELSE 0 END, coalesce(name, '-') FROM parent WHERE id <> $1"
        " ORDER BY id LIMIT $3";
    assert_ok(db_read(db, &conn, &err), err);
    for (int round = 0; round < 2; round++) {
        bool row = false;
        auto_stmt stmt = db_stmt(conn, sql);
        db_bind_int(stmt, 3, round == 0 ? 10 : 1);
        db_bind_int(stmt, 1, 1);
        if (round == 0)
            db_bind_int(stmt, 2, 0);
        assert_ok(db_step(stmt, &row, &err), err);
        assert_true(row);
        assert_true(db_int(stmt, 0) == INT64_MIN);
        assert_true(str_eq(db_text(stmt, 1), STR("na\303\257ve")));
        assert_true(str_eq(db_blob(stmt, 2), (struct str){large, 4 << 20}));
        assert_int_equal(db_int(stmt, 3), 0);
        assert_int_equal(db_int(stmt, 4), round == 0); /* parameters begin as NULL each time */
        assert_ok(db_step(stmt, &row, &err), err);
        assert_int_equal(row, round == 0);
        if (!row)
            break;
        assert_int_equal(db_int(stmt, 0), -5);
        assert_true(str_eq(db_text(stmt, 1), STR("not")));
        assert_true(db_is_null(stmt, 2) && !db_is_null(stmt, 1));
        assert_int_equal(db_blob(stmt, 2).n, 0);
        assert_ok(db_step(stmt, &row, &err), err);
        assert_true(row && db_int(stmt, 0) == INT64_MAX);
        assert_true(!db_is_null(stmt, 1) && db_text(stmt, 1).n == 0); /* empty is not NULL */
        assert_true(str_eq(db_blob(stmt, 2), STR("\0\377")));
        assert_true(str_eq(db_text(stmt, 5), STR("")));
        for (int again = 0; again < 2; again++) { /* over stays over, it is not run again */
            assert_ok(db_step(stmt, &row, &err), err);
            assert_false(row);
        }
    }
    db_end(TAKE(conn));
    db_close(db);
}

static void changed_rows_are_counted(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_migrated(f);
    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(db_run(db_stmt(conn, "INSERT INTO child (parent_id) VALUES (1), (1), (1)"), &err),
              err);
    assert_int_equal(db_changed(conn), 3);
    assert_ok(
        db_run(db_stmt(conn, "INSERT INTO parent (id) VALUES (1) ON CONFLICT DO NOTHING"), &err),
        err);
    assert_int_equal(db_changed(conn), 0);
    assert_ok(db_run(db_stmt(conn, "UPDATE child SET parent_id = 1"), &err), err);
    assert_int_equal(ask_in(conn, "SELECT count(*) FROM child"), 3);
    assert_int_equal(db_changed(conn), 3); /* asking changes nothing */
    assert_ok(db_run(db_stmt(conn, "DELETE FROM child"), &err), err);
    assert_int_equal(db_changed(conn), 3);
    db_end(TAKE(conn));
    db_close(db);
}

static void two_statements_give_their_rows_side_by_side(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_migrated(f);
    must(db, "INSERT INTO parent (id) VALUES (2), (3)");
    auto_conn conn = NULL;
    bool row = false;
    assert_ok(db_read(db, &conn, &err), err);
    struct db_stmt *up = db_stmt(conn, "SELECT id FROM parent ORDER BY id");
    struct db_stmt *down = db_stmt(conn, "SELECT id FROM parent ORDER BY id DESC");
    for (int i = 1; i <= 3; i++) {
        assert_ok(db_step(up, &row, &err), err);
        assert_ok(db_step(down, &row, &err), err);
        assert_int_equal(db_int(up, 0), i);
        assert_int_equal(db_int(down, 0), 4 - i);
    }
    db_done(up);
    db_done(down);
    db_end(TAKE(conn));
    db_close(db);
}

#define NUMBERS_MAX 5

static int read_number(struct call *call, struct db_stmt *stmt, void *rows, size_t i)
{
    int64_t number = db_int(stmt, 0);
    if (number < 0)
        return err_set(&call->err, ERR_CORRUPT, "a number below zero");
    ((int64_t *)rows)[i] = number;
    return 0;
}

static int read_numbers(struct call *call, const char *sql, int64_t ret[NUMBERS_MAX], size_t *ret_n)
{
    auto_stmt stmt = db_stmt(call->db, sql);
    return db_read_rows(call, stmt, NUMBERS_MAX, read_number, ret, ret_n);
}

static void rows_are_read_to_the_end(void **state)
{
    struct fixture *f = *state;
    struct db *db = open_migrated(f);
    auto_call call;
    call_init(&call);
    int64_t numbers[NUMBERS_MAX] = {0};
    size_t n = 99;
    assert_ok(db_read(db, &call.db, &call.err), call.err);
    assert_ok(read_numbers(&call, "SELECT 4 UNION ALL SELECT 7 ORDER BY 1", numbers, &n), call.err);
    assert_int_equal(n, 2);
    assert_int_equal(numbers[0], 4);
    assert_int_equal(numbers[1], 7);
    assert_ok(read_numbers(&call, "SELECT 4 WHERE 1 = 2", numbers, &n), call.err);
    assert_int_equal(n, 0);

    n = 99;
    static const char broken[] = "SELECT -1 UNION ALL SELECT 7 ORDER BY 1 DESC";
    assert_int_equal(read_numbers(&call, broken, numbers, &n), -1);
    assert_int_equal(call.err.kind, ERR_CORRUPT);
    assert_int_equal(n, 99);
    db_end(TAKE(call.db));
    db_close(db);
}

static void what_is_not_committed_is_not_kept(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_migrated(f);
    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(db_run(db_stmt(conn, "DELETE FROM parent"), &err), err);
    assert_int_equal(ask(db, "SELECT count(*) FROM parent"), 1); /* nor seen by others */
    db_end(TAKE(conn));
    assert_int_equal(ask(db, "SELECT count(*) FROM parent"), 1);
    db_close(db);
}

static void a_snapshot_stands_still(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_migrated(f);
    auto_conn conn = NULL;
    assert_ok(db_read(db, &conn, &err), err);
    assert_ok(db_snapshot(conn, &err), err);
    must(db, "INSERT INTO parent (id) VALUES (2)");
    assert_int_equal(ask_in(conn, "SELECT count(*) FROM parent"), 1);
    assert_int_equal(ask(db, "SELECT count(*) FROM parent"), 2);
    db_end(TAKE(conn));
    assert_ok(db_read(db, &conn, &err), err);
    assert_int_equal(ask_in(conn, "SELECT count(*) FROM parent"), 2);
    must(db, "INSERT INTO parent (id) VALUES (3)"); /* without one, each statement looks anew */
    assert_int_equal(ask_in(conn, "SELECT count(*) FROM parent"), 3);
    db_end(TAKE(conn));
    db_close(db);
}

static void readers_cannot_write(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_migrated(f);
    auto_conn conn = NULL;
    assert_ok(db_read(db, &conn, &err), err);
    assert_int_equal(db_run(db_stmt(conn, "DELETE FROM parent"), &err), -1);
    db_end(TAKE(conn));
    assert_int_equal(ask(db, "SELECT count(*) FROM parent"), 1);
    db_close(db);
}

static void connections_run_out_and_come_back(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db_options options = options_for(f);
    options.readers = 2;
    options.busy_us = 50000;
    struct db *db = open_with(&options);
    auto_conn a = NULL;
    auto_conn b = NULL;
    auto_conn c = NULL;
    assert_ok(db_read(db, &a, &err), err);
    assert_ok(db_read(db, &b, &err), err);
    struct mono_us begun = clock_mono();
    assert_int_equal(db_read(db, &c, &err), -1);
    assert_int_equal(err.kind, ERR_BUSY);
    assert_string_equal(err.say, "the registry's database is busy");
    assert_true(clock_since_us(begun) >= options.busy_us);
    db_end(TAKE(b));
    assert_ok(db_read(db, &c, &err), err);
    db_end(TAKE(c));
    db_end(TAKE(a));
    db_close(db);
}

static void too_large_a_value_fails_at_the_step(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_migrated(f);
    auto_conn conn = NULL;
    bool row = false;
    assert_ok(db_read(db, &conn, &err), err);
    struct db_stmt *stmt = db_stmt(conn, "SELECT id FROM parent WHERE name = $1");
    db_bind_text(stmt, 1, (struct str){"x", SIZE_MAX / 4}); /* is refused before it is read */
    assert_int_equal(db_step(stmt, &row, &err), -1);
    assert_int_equal(err.kind, ERR_TOO_LARGE);
    db_done(stmt);
    stmt = db_stmt(conn, "SELECT id FROM parent WHERE name = $1");
    db_done(stmt);
    db_end(TAKE(conn));
    db_close(db);
}

static void count_transaction(void *context, bool write, int64_t us)
{
    assert_true(us >= 0);
    ++((int *)context)[write];
}

static void each_transaction_is_observed(void **state)
{
    struct fixture *f = *state;
    int counts[2] = {0, 0};
    struct db_options options = options_for(f);
    options.observe = count_transaction;
    options.observe_context = counts;
    struct db *db = open_with(&options);
    struct err err = {0};
    must(db, "CREATE TABLE t (x INTEGER)");
    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    db_end(TAKE(conn));
    assert_int_equal(ask(db, "SELECT count(*) FROM t"), 0);
    assert_int_equal(counts[false], 1);
    assert_int_equal(counts[true], 2);
    db_close(db);
}

/* What was told, in order, with a '|' behind each. */
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

/* At once, or, from a server, soon. */
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
}

static void notify_in(struct db_conn *conn, const char *payload)
{
    struct err err = {0};
    assert_ok(db_notify(conn, str_from(payload), &err), err);
}

static void notices_are_told_when_and_only_when_the_transaction_commits(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct heard heard = {.mutex = PTHREAD_MUTEX_INITIALIZER, .text = BUF_INIT(10000)};
    struct db *db = open_migrated(f);
    assert_ok(db_listen(db, hear, &heard, &err), err);
    assert_true(db_is_told(db));
    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    notify_in(conn, "never");
    db_end(TAKE(conn));

    assert_ok(db_write(db, &conn, &err), err);
    notify_in(conn, "one");
    assert_ok(db_run(db_stmt(conn, "INSERT INTO parent (id) VALUES (7)"), &err), err);
    notify_in(conn, "two words");
    notify_in(conn, "na\303\257ve 'quoted'");
    assert_int_equal(heard.text.n, 0);
    assert_ok(db_commit(TAKE(conn), &err), err);
    if (!db_is_remote(db)) /* before db_commit returns */
        assert_int_equal(heard.text.n, strlen("one|two words|na\303\257ve 'quoted'|"));

    assert_ok(db_write(db, &conn, &err), err);
    notify_in(conn, "broken");
    assert_int_equal(db_run(db_stmt(conn, "INSERT INTO parent (id) VALUES (7)"), &err), -1);
    db_end(TAKE(conn));
    assert_ok(db_write(db, &conn, &err), err); /* with nothing else in it */
    notify_in(conn, "alone");
    assert_ok(db_commit(TAKE(conn), &err), err);
    assert_heard(&heard, "one|two words|na\303\257ve 'quoted'|alone|");

    char large[1002];
    memset(large, 'x', sizeof(large));
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(db_notify(conn, (struct str){large, 1000}, &err), err);
    assert_int_equal(db_notify(conn, (struct str){large, 1001}, &err), -1);
    db_end(TAKE(conn));
    db_close(db);
    buf_done(&heard.text);
}

static int add_and_lose(struct call *call, void *context)
{
    int *tries = context;
    assert_non_null(call->db);
    if (db_run(db_stmt(call->db, "INSERT INTO parent (id) VALUES (70)"), &call->err) < 0)
        return -1;
    return ++*tries < 3 ? err_set(&call->err, ERR_AGAIN, "lost") : 0;
}

static int refuse(struct call *call, void *context)
{
    ++*(int *)context;
    if (db_run(db_stmt(call->db, "INSERT INTO parent (id) VALUES (71)"), &call->err) < 0)
        return -1;
    return err_set(&call->err, ERR_CONFLICT, "no");
}

static int lose(struct call *call, void *context)
{
    ++*(int *)context;
    return err_set(&call->err, ERR_AGAIN, "lost");
}

static void transactions_that_lost_run_again(void **state)
{
    struct fixture *f = *state;
    struct db *db = open_migrated(f);
    auto_call call = {0};
    int tries = 0;
    assert_ok(db_transact(&call, db, add_and_lose, &tries), call.err);
    assert_int_equal(tries, 3);
    assert_null(call.db);
    assert_int_equal(ask(db, "SELECT count(*) FROM parent WHERE id = 70"), 1);

    tries = 0;
    assert_int_equal(db_transact(&call, db, refuse, &tries), -1);
    assert_int_equal(call.err.kind, ERR_CONFLICT);
    assert_int_equal(tries, 1);
    assert_int_equal(ask(db, "SELECT count(*) FROM parent WHERE id = 71"), 0);

    tries = 0;
    assert_int_equal(db_transact(&call, db, lose, &tries), -1);
    assert_int_equal(call.err.kind, ERR_BUSY);
    assert_in_range(tries, 4, 8);
    db_close(db);
}

static int queue_parent(struct db_conn *conn, int64_t id, struct str data, struct err *err)
{
    struct db_stmt *stmt = db_stmt(conn, "INSERT INTO parent (id, data) VALUES ($1, $2)");
    db_bind_int(stmt, 1, id);
    db_bind_blob(stmt, 2, data);
    return db_queue(stmt, err);
}

/* More than an engine keeps back, and larger than a socket's buffer. */
static void what_is_queued_runs_before_what_follows(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_migrated(f);
    auto_mem char *bytes = mem_zalloc(4 << 20);
    struct str large = {bytes, 4 << 20};
    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(queue_parent(conn, 10, STR("ten"), &err), err);
    assert_ok(
        db_queue(db_stmt(conn, "UPDATE parent SET name = 'x' WHERE id = 10 RETURNING id"), &err),
        err);
    assert_int_equal(ask_in(conn, "SELECT count(*) FROM parent WHERE name = 'x'"), 1);
    for (int64_t id = 100; id < 1100; id++)
        assert_ok(queue_parent(conn, id, id < 104 ? large : STR("small"), &err), err);
    assert_ok(db_commit(TAKE(conn), &err), err);
    assert_int_equal(ask(db, "SELECT count(*) FROM parent WHERE id >= 100"), 1000);
    assert_int_equal(ask(db, "SELECT sum(length(data)) / 4194304 FROM parent"), 4);

    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(queue_parent(conn, 2000, STR(""), &err), err);
    db_end(TAKE(conn));
    assert_int_equal(ask(db, "SELECT count(*) FROM parent WHERE id = 2000"), 0);
    db_close(db);
}

/* At once, or from what follows: but before anybody is told that it was done. */
static void what_is_queued_and_fails_is_told(void **state)
{
    struct fixture *f = *state;
    struct db *db = open_migrated(f);
    for (int follows = 0; follows < 3; follows++) {
        struct err err = {0};
        bool row = false;
        auto_conn conn = NULL;
        assert_ok(db_write(db, &conn, &err), err);
        assert_ok(db_run(db_stmt(conn, "INSERT INTO parent (id) VALUES (50)"), &err), err);
        int result = queue_parent(conn, 1, STR(""), &err); /* is there */
        if (result == 0)
            result = queue_parent(conn, 51, STR(""), &err);
        if (result == 0 && follows == 1) {
            auto_stmt stmt = db_stmt(conn, "SELECT 1");
            result = db_step(stmt, &row, &err);
        }
        if (result == 0 && follows == 2)
            db_last(conn);
        if (result == 0 && follows == 2)
            result = db_run(db_stmt(conn, "INSERT INTO parent (id) VALUES (52)"), &err);
        if (result == 0)
            result = db_commit(TAKE(conn), &err);
        else
            db_end(TAKE(conn));
        assert_int_equal(result, -1);
        assert_int_equal(err.kind, ERR_CONFLICT);
        assert_int_equal(ask(db, "SELECT count(*) FROM parent"), 1);
    }
    struct err err = {0};
    auto_conn conn = NULL; /* and when nobody asks, it is gone all the same */
    assert_ok(db_write(db, &conn, &err), err);
    (void)queue_parent(conn, 1, STR(""), &err);
    db_end(TAKE(conn));
    must(db, "INSERT INTO parent (id) VALUES (60)");
    db_close(db);
}

static void the_last_statement_commits(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct heard heard = {.mutex = PTHREAD_MUTEX_INITIALIZER, .text = BUF_INIT(10000)};
    struct db *db = open_migrated(f);
    assert_ok(db_listen(db, hear, &heard, &err), err);
    for (int relaxed = 0; relaxed < 2; relaxed++) {
        auto_conn conn = NULL;
        bool row = false;
        assert_ok(db_write(db, &conn, &err), err);
        notify_in(conn, "told");
        if (relaxed)
            db_relax(conn);
        db_last(conn);
        assert_ok(queue_parent(conn, 20 + relaxed, STR("before"), &err), err);
        struct db_stmt *stmt = db_stmt(conn, "UPDATE parent SET name = id WHERE id >= 20"
                                             " RETURNING name");
        assert_ok(db_step(stmt, &row, &err), err);
        assert_true(row);
        assert_int_equal(db_text(stmt, 0).n, 2);
        db_done(stmt);
        assert_int_equal(db_changed(conn), 1 + relaxed);
        assert_ok(db_commit(TAKE(conn), &err), err);
        assert_int_equal(ask(db, "SELECT count(*) FROM parent WHERE name > '1'"), 2 + relaxed);
    }
    assert_heard(&heard, "told|told|");

    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(queue_parent(conn, 30, STR(""), &err), err);
    db_last(conn);
    assert_int_equal(db_run(db_stmt(conn, "INSERT INTO parent (id) VALUES (1)"), &err), -1);
    assert_int_equal(err.kind, ERR_CONFLICT);
    db_end(TAKE(conn));
    assert_int_equal(ask(db, "SELECT count(*) FROM parent WHERE id = 30"), 0);

    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(queue_parent(conn, 31, STR(""), &err), err);
    db_last(conn); /* and then there was none */
    assert_ok(db_commit(TAKE(conn), &err), err);
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(queue_parent(conn, 32, STR(""), &err), err);
    db_last(conn);
    db_end(TAKE(conn));
    assert_int_equal(ask(db, "SELECT count(*) FROM parent WHERE id IN (31, 32)"), 1);
    db_close(db);
    buf_done(&heard.text);
}

/* Threads that add one to the same number, each under the lock of its key. */
struct adder {
    pthread_t thread;
    struct db *db;
    int rounds;
    int failures;
};

static int add_one(struct call *call, void *context)
{
    (void)context;
    if (db_lock(call->db, 42, /* shared= */ false, &call->err) < 0)
        return -1;
    int64_t value = 0;
    {
        bool row = false;
        auto_stmt stmt = db_stmt(call->db, "SELECT x FROM later");
        if (db_step(stmt, &row, &call->err) < 0)
            return -1;
        value = db_int(stmt, 0);
    }
    struct db_stmt *stmt = db_stmt(call->db, "UPDATE later SET x = $1");
    db_bind_int(stmt, 1, value + 1);
    return db_run(stmt, &call->err);
}

static void *add_many(void *context)
{
    struct adder *adder = context;
    for (int i = 0; i < adder->rounds; i++) {
        auto_call call = {0};
        adder->failures += db_transact(&call, adder->db, add_one, NULL) < 0;
    }
    return NULL;
}

static void what_a_lock_protects_is_changed_by_one_at_a_time(void **state)
{
    struct fixture *f = *state;
    struct adder adders[6] = {0};
    struct db *db = open_migrated(f);
    must(db, "INSERT INTO later (x) VALUES (0)");
    for (size_t i = 0; i < ARRAY_SIZE(adders); i++) {
        adders[i].db = db;
        adders[i].rounds = 25;
        assert_int_equal(pthread_create(&adders[i].thread, NULL, add_many, &adders[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(adders); i++) {
        assert_int_equal(pthread_join(adders[i].thread, NULL), 0);
        assert_int_equal(adders[i].failures, 0);
    }
    assert_int_equal(ask(db, "SELECT x FROM later"), 150);
    db_close(db);
}

static void the_clock_is_right(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_db(f);
    int64_t apart_us = db_now(db).us - clock_wall().us; /* the server is on this machine */
    assert_in_range(apart_us + 20000, 0, 40000);
    assert_ok(db_ping(db, &err), err);
    assert_ok(db_guard(db, /* alone= */ true, &err), err);
    db_close(db);
}

static void complain(void *context, const char *complaint)
{
    (void)context;
    fail_msg("%s", complaint);
}

static void a_sound_database_has_no_complaints(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_migrated(f);
    assert_ok(db_verify(db, complain, NULL, &err), err);
    assert_int_equal(ask(db, "SELECT count(*) FROM parent"), 1);
    db_close(db);
}

#define CASES(kind)                                                                               \
    kind(migrations_run_once_and_in_order), kind(a_newer_database_is_refused_with_both_versions), \
        kind(a_failing_migration_leaves_the_version_before_it),                                   \
        kind(a_statement_is_prepared_once_per_connection), kind(constraints_are_conflicts),       \
        kind(values_come_back_as_they_were_bound), kind(changed_rows_are_counted),                \
        kind(two_statements_give_their_rows_side_by_side), kind(rows_are_read_to_the_end),        \
        kind(what_is_not_committed_is_not_kept), kind(a_snapshot_stands_still),                   \
        kind(readers_cannot_write), kind(connections_run_out_and_come_back),                      \
        kind(too_large_a_value_fails_at_the_step), kind(each_transaction_is_observed),            \
        kind(notices_are_told_when_and_only_when_the_transaction_commits),                        \
        kind(transactions_that_lost_run_again), kind(what_is_queued_runs_before_what_follows),    \
        kind(what_is_queued_and_fails_is_told), kind(the_last_statement_commits),                 \
        kind(what_a_lock_protects_is_changed_by_one_at_a_time), kind(the_clock_is_right),         \
        kind(a_sound_database_has_no_complaints),

int main(void)
{
    const struct CMUnitTest sqlite[] = {CASES(CASE)};
    const struct CMUnitTest postgres[] = {CASES(POSTGRES_CASE)};
    int failed = cmocka_run_group_tests(sqlite, NULL, NULL);
    if (postgres_url() == NULL) {
        print_message("not run on PostgreSQL: there is no HOLDFAST_TEST_POSTGRES\n");
        return failed;
    }
    return failed + cmocka_run_group_tests(postgres, NULL, NULL);
}
