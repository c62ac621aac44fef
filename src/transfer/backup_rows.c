/* Snapshots and blobs of a backup: their SQL. */
#include "transfer/backup_int.h"

static const char sql_source[] = "SELECT registry FROM source";

int backup_source(struct call *call, struct str *ret)
{
    auto_stmt stmt = db_stmt(call->db, sql_source);
    bool row;
    if (db_step(stmt, &row, &call->err) < 0)
        return -1;
    *ret = row ? str_dup(&call->arena, db_text(stmt, 0)) : STR("");
    return 0;
}

static const char sql_source_set[] = "INSERT INTO source (registry) VALUES ($1)";

int backup_source_set(struct call *call, struct str registry)
{
    auto_stmt stmt = db_stmt(call->db, sql_source_set);
    db_bind_text(stmt, 1, registry);
    return db_run(stmt, &call->err);
}

/* ---- Snapshots ---- */

static const char sql_begin[] =
    "INSERT INTO snapshot (id, taken_at, blobs)"
    " VALUES (coalesce((SELECT id FROM snapshot WHERE complete = 0),"
    " (SELECT coalesce(max(id), 0) + 1 FROM snapshot)), $1, $2)"
    " ON CONFLICT (id) DO UPDATE SET taken_at = excluded.taken_at, blobs = excluded.blobs"
    " RETURNING id";

int backup_snapshot_begin(struct call *call, struct wall_us time, bool blobs, int64_t *ret_id)
{
    auto_stmt stmt = db_stmt(call->db, sql_begin);
    db_bind_int(stmt, 1, time.us);
    db_bind_int(stmt, 2, blobs);
    bool row;
    if (db_step(stmt, &row, &call->err) < 0)
        return -1;
    require(row);
    *ret_id = db_int(stmt, 0);
    return 0;
}

static int run_with_id(struct call *call, const char *sql, int64_t id)
{
    auto_stmt stmt = db_stmt(call->db, sql);
    db_bind_int(stmt, 1, id);
    return db_run(stmt, &call->err);
}

#define LINKED "EXISTS (SELECT 1 FROM link l WHERE l.digest = b.digest AND l.gone IS NULL)"

static const char sql_end[] =
    "UPDATE snapshot SET complete = 1,"
    " repositories = (SELECT count(*) FROM repository WHERE gone IS NULL),"
    " manifests = (SELECT count(*) FROM manifest WHERE gone IS NULL),"
    " tags = (SELECT count(*) FROM tag WHERE gone IS NULL),"
    " (blob_count, blob_bytes) = (SELECT count(*), coalesce(sum(b.size), 0) FROM blob b"
    " WHERE " LINKED ") WHERE id = $1";

int backup_snapshot_end(struct call *call, int64_t id)
{
    return run_with_id(call, sql_end, id);
}

static const char sql_forget[] = "DELETE FROM snapshot WHERE complete = 1 AND taken_at < $1"
                                 " AND id < (SELECT max(id) FROM snapshot WHERE complete = 1)";

int backup_snapshot_forget(struct call *call, struct wall_us before, uint64_t *ret_n)
{
    auto_stmt stmt = db_stmt(call->db, sql_forget);
    db_bind_int(stmt, 1, before.us);
    if (db_run(stmt, &call->err) < 0)
        return -1;
    *ret_n = (uint64_t)db_changed(call->db);
    return 0;
}

static const char sql_each[] =
    "SELECT id, taken_at, blobs, repositories, manifests, tags, blob_count, blob_bytes"
    " FROM snapshot WHERE complete = 1 ORDER BY id";

int backup_snapshot_each(struct call *call, transfer_snapshot_fn each, void *context)
{
    auto_stmt stmt = db_stmt(call->db, sql_each);
    for (;;) {
        bool row;
        if (db_step(stmt, &row, &call->err) < 0)
            return -1;
        if (!row)
            return 0;
        const struct transfer_snapshot snapshot = {
            .time = {db_int(stmt, 1)},
            .blobs = db_int(stmt, 2) != 0,
            .repositories = (uint64_t)db_int(stmt, 3),
            .manifests = (uint64_t)db_int(stmt, 4),
            .tags = (uint64_t)db_int(stmt, 5),
            .blob_count = (uint64_t)db_int(stmt, 6),
            .blob_bytes = (uint64_t)db_int(stmt, 7),
        };
        each(context, db_int(stmt, 0), &snapshot);
    }
}

#define TRIM(table) \
    "DELETE FROM " table " WHERE gone <= (SELECT coalesce(min(id), 0) FROM snapshot)"

static const char sql_trim_link[] = TRIM("link");
static const char sql_trim_manifest[] = TRIM("manifest");
static const char sql_trim_tag[] = TRIM("tag");
static const char sql_trim_repository[] = TRIM("repository"); /* its entries were gone before */

int backup_trim(struct call *call)
{
    const char *const all[] = {sql_trim_link, sql_trim_manifest, sql_trim_tag, sql_trim_repository};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        auto_stmt stmt = db_stmt(call->db, all[i]);
        if (db_run(stmt, &call->err) < 0)
            return -1;
    }
    return 0;
}

static const char sql_manifest_next[] =
    "SELECT id, digest, content FROM manifest WHERE id > $1 ORDER BY id LIMIT 1";

int backup_manifest_next(struct call *call, int64_t after, struct entry *ret, bool *ret_found)
{
    auto_stmt stmt = db_stmt(call->db, sql_manifest_next);
    db_bind_int(stmt, 1, after);
    if (db_step(stmt, ret_found, &call->err) < 0)
        return -1;
    if (*ret_found)
        *ret = (struct entry){.id = db_int(stmt, 0),
                              .key = str_dup(&call->arena, db_text(stmt, 1)),
                              .content = str_dup(&call->arena, db_blob(stmt, 2))};
    return 0;
}

/* ---- Blobs ---- */

#define BLOBS(size)                                                   \
    "SELECT b.digest, b.location, " size ", b.created_at FROM blob b" \
    " WHERE b.digest > $1"
#define PAGED " ORDER BY b.digest LIMIT $2"

static const char sql_newest[] = BLOBS("b.size") " AND " LINKED PAGED;
static const char sql_stored[] = BLOBS("b.size") " AND b.stored = 1" PAGED;
static const char sql_unused[] = BLOBS(
    "b.size * b.stored") " AND NOT EXISTS (SELECT 1 FROM link l WHERE l.digest = b.digest)" PAGED;
static const char sql_missing[] =
    BLOBS("b.size") " AND b.stored = 0 AND EXISTS (SELECT 1 FROM link l JOIN snapshot s"
                    " ON s.complete = 1 AND s.blobs = 1 AND l.since <= s.id AND (l.gone IS NULL OR "
                    "l.gone > s.id)"
                    " WHERE l.digest = b.digest)" PAGED;

static int read_blob(struct call *call, struct db_stmt *stmt, void *rows, size_t i)
{
    ((struct entry *)rows)[i] = (struct entry){
        .key = str_dup(&call->arena, db_text(stmt, 0)),
        .text = str_dup(&call->arena, db_text(stmt, 1)),
        .size = (uint64_t)db_int(stmt, 2),
        .made = {db_int(stmt, 3)},
    };
    return 0;
}

int backup_blob_list(struct call *call, enum backup_blobs which, struct str after,
                     struct entry *ret, size_t *ret_n)
{
    static const char *const lists[] = {
        [BACKUP_BLOBS_NEWEST] = sql_newest,
        [BACKUP_BLOBS_STORED] = sql_stored,
        [BACKUP_BLOBS_UNUSED] = sql_unused,
        [BACKUP_BLOBS_MISSING] = sql_missing,
    };
    auto_stmt stmt = db_stmt(call->db, lists[which]);
    db_bind_text(stmt, 1, after);
    db_bind_int(stmt, 2, PAGE);
    return db_read_rows(call, stmt, PAGE, read_blob, ret, ret_n);
}

static const char sql_blob_bytes[] = "SELECT coalesce(sum(size), 0) FROM blob WHERE stored = 1";

int backup_blob_bytes(struct call *call, uint64_t *ret)
{
    auto_stmt stmt = db_stmt(call->db, sql_blob_bytes);
    bool row;
    if (db_step(stmt, &row, &call->err) < 0)
        return -1;
    *ret = (uint64_t)db_int(stmt, 0);
    return 0;
}

static int run_with_digest(struct call *call, const char *sql, struct str digest)
{
    auto_stmt stmt = db_stmt(call->db, sql);
    db_bind_text(stmt, 1, digest);
    return db_run(stmt, &call->err);
}

static const char sql_blob_unstore[] = "UPDATE blob SET stored = 0 WHERE digest = $1";

int backup_blob_unstore(struct call *call, struct str digest)
{
    return run_with_digest(call, sql_blob_unstore, digest);
}

static const char sql_blob_remove[] = "DELETE FROM blob WHERE digest = $1";

int backup_blob_remove(struct call *call, struct str digest)
{
    return run_with_digest(call, sql_blob_remove, digest);
}
