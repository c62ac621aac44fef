/* What the tests of db share: a database that goes away, and short forms of the usual calls.
 * SQLite's is in a folder of its own. PostgreSQL's is a schema of its own in the database that
 * $HOLDFAST_TEST_POSTGRES names; without that variable its tests are skipped. */
#ifndef HOLDFAST_DB_TEST_DB_H
#define HOLDFAST_DB_TEST_DB_H

#include "db/db.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>
#include <libpq-fe.h>

struct fixture {
    char folder[64];
    char path[128]; /* or the name of the schema */
    char url[512];  /* empty: SQLite */
};

/* NULL: there is none. */
static inline const char *postgres_url(void)
{
    return getenv("HOLDFAST_TEST_POSTGRES");
}

static inline void ignore_notice(void *context, const char *message)
{
    (void)context;
    (void)message;
}

/* The first value that `sql` gives, by a connection that owes nothing to the code under test. */
static inline int64_t ask_postgres(const char *url, const char *sql)
{
    PGconn *pg = PQconnectdb(url);
    (void)PQsetNoticeProcessor(pg, ignore_notice, NULL);
    PGresult *result = PQexec(pg, sql);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
        fail_msg("%s: %s", sql, PQerrorMessage(pg));
    uint64_t value = 0;
    struct str text = str_from(PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "");
    (void)str_eat_u64(&text, INT64_MAX, &value);
    PQclear(result);
    PQfinish(pg);
    return (int64_t)value;
}

static inline int set_up(void **state)
{
    struct fixture *f = mem_zalloc(sizeof(*f));
    (void)snprintf(f->folder, sizeof(f->folder), "/tmp/holdfast-test-db-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    (void)snprintf(f->path, sizeof(f->path), "%s/holdfast.db", f->folder);
    *state = f;
    return 0;
}

static inline int tear_down(void **state)
{
    struct fixture *f = *state;
    DIR *dir = opendir(f->folder);
    assert_non_null(dir);
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir))
        if (entry->d_name[0] != '.')
            assert_int_equal(unlinkat(dirfd(dir), entry->d_name, 0), 0);
    (void)closedir(dir);
    assert_int_equal(rmdir(f->folder), 0);
    free(f);
    return 0;
}

static inline int set_up_postgres(void **state)
{
    static unsigned n;
    struct fixture *f = mem_zalloc(sizeof(*f));
    const char *url = postgres_url();
    char sql[80];
    (void)snprintf(sql, sizeof(sql), "CREATE SCHEMA test_%d_%u", (int)getpid(), ++n);
    (void)ask_postgres(url, sql);
    (void)snprintf(f->path, sizeof(f->path), "%s", sql + strlen("CREATE SCHEMA "));
    (void)snprintf(f->url, sizeof(f->url), "%s%coptions=-csearch_path%%3D%s", url,
                   strchr(url, '?') != NULL ? '&' : '?', f->path);
    *state = f;
    return 0;
}

static inline int tear_down_postgres(void **state)
{
    struct fixture *f = *state;
    char sql[160];
    (void)snprintf(sql, sizeof(sql), "DROP SCHEMA %s CASCADE", f->path);
    (void)ask_postgres(postgres_url(), sql);
    free(f);
    return 0;
}

static inline struct db_options options_for(const struct fixture *f)
{
    return (struct db_options){
        .path = f->path,
        .url = f->url[0] != '\0' ? f->url : NULL,
        .readers = 4,
        .busy_us = 5 * CLOCK_SECOND_US,
        .start_us = 5 * CLOCK_SECOND_US,
    };
}

/* Fails with the error's words. */
#define assert_ok(result, err)                         \
    do {                                               \
        if ((result) != 0)                             \
            fail_msg("%s (%s)", (err).say, (err).why); \
    } while (0)

static inline struct db *open_with(const struct db_options *options)
{
    struct db *db = NULL;
    struct err err = {0};
    assert_ok(db_open(options, &db, &err), err);
    return db;
}

static inline struct db *open_db(const struct fixture *f)
{
    struct db_options options = options_for(f);
    return open_with(&options);
}

/* The first column of the first row, in a connection that the caller holds. */
static inline int64_t ask_in(struct db_conn *conn, const char *sql)
{
    struct err err = {0};
    bool row = false;
    auto_stmt stmt = db_stmt(conn, sql);
    assert_ok(db_step(stmt, &row, &err), err);
    assert_true(row);
    return db_int(stmt, 0);
}

static inline int64_t ask(struct db *db, const char *sql)
{
    struct err err = {0};
    auto_conn conn = NULL;
    assert_ok(db_read(db, &conn, &err), err);
    return ask_in(conn, sql);
}

/* One statement in a transaction of its own. */
static inline int change(struct db *db, const char *sql, struct err *err)
{
    auto_conn conn = NULL;
    if (db_write(db, &conn, err) < 0 || db_run(db_stmt(conn, sql), err) < 0)
        return -1;
    return db_commit(TAKE(conn), err);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define POSTGRES_CASE(name) \
    cmocka_unit_test_setup_teardown(name, set_up_postgres, tear_down_postgres)

static inline void must(struct db *db, const char *sql)
{
    struct err err = {0};
    assert_ok(change(db, sql, &err), err);
}

#endif
