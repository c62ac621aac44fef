/* What the tests of db share: a folder that goes away, and short forms of the usual calls. */
#ifndef HOLDFAST_DB_TEST_DB_H
#define HOLDFAST_DB_TEST_DB_H

#include "db/db.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

struct fixture {
    char folder[64];
    char path[128];
};

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

static inline struct db_options options_for(const struct fixture *f)
{
    return (struct db_options){.path = f->path, .readers = 4, .busy_us = 5 * CLOCK_SECOND_US};
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

static inline void must(struct db *db, const char *sql)
{
    struct err err = {0};
    assert_ok(change(db, sql, &err), err);
}

#endif
