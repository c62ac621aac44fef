/* Numbered migrations. Each is a transaction that looks again where the schema stands and goes one
 * step; SQLite's one writer, or a lock in PostgreSQL, lets only one process do so at a time. So
 * those that start together do each step once. */
#include "db/db_int.h"

static const char create_table[] =
    "CREATE TABLE schema_version"
    " (version INTEGER NOT NULL PRIMARY KEY, applied_at BIGINT NOT NULL)";
static const char read_version[] = "SELECT coalesce(max(version), 0) FROM schema_version";
static const char add_version[] =
    "INSERT INTO schema_version (version, applied_at) VALUES ($1, $2)";

struct migration {
    const struct db_migration *steps;
    size_t n;
    bool more; /* there was a step to go, and there may be another */
};

static int lock_schema(struct db_conn *conn, struct err *err)
{
    const struct db_remote *remote = conn->db->engine->remote;
    return remote != NULL ? remote->lock_schema(conn->link, err) : 0;
}

static int find_table(struct db_conn *conn, bool *ret_there, struct err *err)
{
    auto_stmt stmt = db_stmt(conn, conn->db->engine->find_schema);
    return db_step(stmt, ret_there, err);
}

/* IF NOT EXISTS would ask for the right to make tables also where there is one, and who serves need
 * not have it. */
static int ensure_table(struct db_conn *conn, struct err *err)
{
    bool there;
    if (find_table(conn, &there, err) < 0)
        return -1;
    return there ? 0 : db_run(db_stmt(conn, create_table), err);
}

static int find_version(struct db_conn *conn, int64_t *ret, struct err *err)
{
    auto_stmt stmt = db_stmt(conn, read_version);
    bool row = false;
    if (db_step(stmt, &row, err) < 0)
        return -1;
    *ret = db_int(stmt, 0);
    return 0;
}

static int apply(struct db_conn *conn, const struct db_migration *step, struct err *err)
{
    bool remote = db_is_remote(conn->db);
    if (conn->db->engine->script(conn->link, remote ? step->postgres : step->sqlite, err) < 0) {
        if (!remote)
            db_group_failed(conn->db, err);
        return err_why(err, "in migration %d", step->version);
    }
    struct db_stmt *stmt = db_stmt(conn, add_version);
    db_bind_int(stmt, 1, step->version);
    db_bind_int(stmt, 2, clock_wall().us);
    return db_run(stmt, err);
}

static int migrate_one(struct call *call, void *context)
{
    struct migration *migration = context;
    struct db_conn *conn = call->db;
    int64_t version = 0;
    if (lock_schema(conn, &call->err) < 0 || ensure_table(conn, &call->err) < 0 ||
        find_version(conn, &version, &call->err) < 0)
        return -1;
    if (version < 0 || (uint64_t)version > migration->n)
        return err_set(&call->err, ERR_UNSUPPORTED,
                       "the database%s%s%s has schema version %lld, this program knows versions up "
                       "to %zu: run the newer program, or restore a backup from before the upgrade",
                       db_is_remote(conn->db) ? "" : " \"",
                       db_is_remote(conn->db) ? "" : conn->db->options.path,
                       db_is_remote(conn->db) ? "" : "\"", (long long)version, migration->n);
    migration->more = (uint64_t)version < migration->n;
    return migration->more ? apply(conn, &migration->steps[version], &call->err) : 0;
}

int db_migrate(struct db *db, const struct db_migration *migrations, size_t n, struct err *err)
{
    for (size_t i = 0; i < n; i++)
        require(migrations[i].version == (int)i + 1);
    struct migration migration = {.steps = migrations, .n = n, .more = true};
    while (migration.more) {
        auto_call call = {0};
        if (db_transact(&call, db, migrate_one, &migration) < 0) {
            *err = call.err;
            return -1;
        }
    }
    return 0;
}

static int read_current(struct db_conn *conn, int64_t *ret, struct err *err)
{
    bool there;
    if (find_table(conn, &there, err) < 0)
        return -1;
    if (there)
        return find_version(conn, ret, err);
    *ret = 0;
    return 0;
}

int db_version(struct db *db, int64_t *ret, struct err *err)
{
    auto_conn conn = NULL;
    if (db_read(db, &conn, err) < 0)
        return -1;
    return read_current(conn, ret, err);
}
