/* What the tests of this room share: the tables of one registry, on SQLite in a folder of its own
 * and on PostgreSQL when HOLDFAST_TEST_POSTGRES names an empty database. */
#ifndef HOLDFAST_META_TEST_META_INT_H
#define HOLDFAST_META_TEST_META_INT_H

#include "base/test_tree.h"
#include "meta/meta.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* The first member of each fixture. */
struct tables {
    char folder[64];
    struct db *db; /* NULL: there is no PostgreSQL to test with */
    struct call call;
};

#define OK(call_, done)                                              \
    do {                                                             \
        if ((done) < 0)                                              \
            fail_msg("%s (%s)", (call_)->err.say, (call_)->err.why); \
    } while (0)

static inline void tables_open(struct tables *tables, const char *url)
{
    struct call *call = &tables->call;
    char path[128];
    call_init(call);
    (void)snprintf(tables->folder, sizeof(tables->folder), "/tmp/holdfast-meta-XXXXXX");
    assert_non_null(mkdtemp(tables->folder));
    (void)snprintf(path, sizeof(path), "%s/holdfast.db", tables->folder);
    const struct db_options options = {
        .path = path, .url = url, .readers = 2, .busy_us = 10 * CLOCK_SECOND_US};
    OK(call, db_open(&options, &tables->db, &call->err));
    OK(call, meta_migrate(tables->db, &call->err));
}

/* A fixture of that size, whose tables `fill` fills; NULL: they are empty. */
static inline int tables_setup(void **state, size_t bytes, bool postgres,
                               int (*fill)(struct call *call, void *fixture))
{
    struct tables *tables = mem_zalloc(bytes);
    const char *url = postgres ? getenv("HOLDFAST_TEST_POSTGRES") : NULL;
    *state = tables;
    if (postgres && url == NULL) {
        print_message("NOT RUN: HOLDFAST_TEST_POSTGRES names no database\n");
        return 0;
    }
    tables_open(tables, url);
    if (fill != NULL)
        OK(&tables->call, db_transact(&tables->call, tables->db, fill, tables));
    return 0;
}

static inline int tables_empty(struct call *call, void *context)
{
    (void)context;
    static const char sql[] = "TRUNCATE repository, blob, repository_blob, manifest,"
                              " manifest_reference, tag, upload, total";
    return db_run(db_stmt(call->db, sql), &call->err);
}

static inline int tables_teardown(void **state)
{
    struct tables *tables = *state;
    struct call *call = &tables->call;
    db_end(TAKE(call->db));
    if (tables->db != NULL && db_is_remote(tables->db))
        OK(call, db_transact(call, tables->db, tables_empty, NULL));
    db_close(tables->db);
    if (tables->folder[0] != '\0')
        (void)test_tree_remove(tables->folder);
    call_done(call);
    free(tables);
    return 0;
}

/* With setup_sqlite and setup_postgres of the file. */
#define ON(engine, test) \
    ((struct CMUnitTest){#test " (" #engine ")", test, setup_##engine, tables_teardown, NULL})
#define ON_BOTH(test) ON(sqlite, test), ON(postgres, test)

#endif
