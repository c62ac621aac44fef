/* Numbered migrations. Each takes the writing connection, looks again where the schema stands, and
 * goes one step, so that two processes that start together do not do the same step twice. */
#include "db/db_int.h"

static const char create_table[] =
    "CREATE TABLE IF NOT EXISTS schema_version"
    " (version INTEGER NOT NULL PRIMARY KEY, applied_at BIGINT NOT NULL)";
static const char read_version[] = "SELECT coalesce(max(version), 0) FROM schema_version";
static const char add_version[] =
    "INSERT INTO schema_version (version, applied_at) VALUES ($1, $2)";

static int find_version(struct db_conn *conn, int64_t *ret, struct err *err)
{
    auto_stmt stmt = db_stmt(conn, read_version);
    bool row = false;
    if (db_step(stmt, &row, err) < 0)
        return -1;
    *ret = db_int(stmt, 0);
    return 0;
}

static int apply(struct db_conn *conn, const struct db_migration *migration, struct err *err)
{
    if (conn->db->engine->script(conn->link, migration->sql, err) < 0) {
        db_group_failed(conn->db, err);
        return err_why(err, "in migration %d", migration->version);
    }
    struct db_stmt *stmt = db_stmt(conn, add_version);
    db_bind_int(stmt, 1, migration->version);
    db_bind_int(stmt, 2, clock_wall().us);
    return db_run(stmt, err);
}

/* *ret_more: there was a migration to apply, and there may be another. */
static int migrate_one(struct db *db, const struct db_migration *migrations, size_t n,
                       bool *ret_more, struct err *err)
{
    auto_conn conn = NULL;
    int64_t version = 0;
    if (db_write(db, &conn, err) < 0 || db_run(db_stmt(conn, create_table), err) < 0 ||
        find_version(conn, &version, err) < 0)
        return -1;
    if (version < 0 || (uint64_t)version > n)
        return err_set(err, ERR_UNSUPPORTED,
                       "database \"%s\" has schema version %lld, this program knows versions up to "
                       "%zu: run the newer program, or restore a backup from before the upgrade",
                       db->options.path, (long long)version, n);
    *ret_more = (uint64_t)version < n;
    if (!*ret_more)
        return 0;
    if (apply(conn, &migrations[version], err) < 0)
        return -1;
    return db_commit(TAKE(conn), err);
}

int db_migrate(struct db *db, const struct db_migration *migrations, size_t n, struct err *err)
{
    for (size_t i = 0; i < n; i++)
        require(migrations[i].version == (int)i + 1);
    bool more = true;
    while (more)
        if (migrate_one(db, migrations, n, &more, err) < 0)
            return -1;
    return 0;
}
