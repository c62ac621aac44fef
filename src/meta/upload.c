#include "meta/meta_int.h"

static const char sql_insert[] =
    "INSERT INTO upload (id, repository_id, received, hash_state, started_at, touched_at)"
    " VALUES ($1, $2, 0, $3, $4, $4)";

int meta_upload_insert(struct call *call, int64_t repository_id, struct str id,
                       struct str hash_state)
{
    auto_stmt stmt = db_stmt(call->db, sql_insert);
    db_bind_text(stmt, 1, id);
    db_bind_int(stmt, 2, repository_id);
    db_bind_blob(stmt, 3, hash_state);
    db_bind_int(stmt, 4, clock_wall().us);
    return db_run(stmt, &call->err);
}

static const char sql_find[] = "SELECT u.repository_id, u.received, u.hash_state FROM upload u"
                               " JOIN repository r ON r.id = u.repository_id"
                               " WHERE u.id = $2 AND r.name = $1";

int meta_upload_find(struct call *call, const struct oci_name *repository, struct str id,
                     struct meta_upload *ret, bool *ret_found)
{
    auto_stmt stmt = db_stmt(call->db, sql_find);
    db_bind_text(stmt, 1, repository->text);
    db_bind_text(stmt, 2, id);
    if (db_step(stmt, ret_found, &call->err) < 0)
        return -1;
    if (*ret_found)
        *ret = (struct meta_upload){
            .repository_id = db_int(stmt, 0),
            .received = (uint64_t)db_int(stmt, 1),
            .hash_state = str_dup(&call->arena, db_blob(stmt, 2)),
        };
    return 0;
}

static const char sql_advance[] =
    "UPDATE upload SET received = $2, hash_state = $3, touched_at = $4 WHERE id = $1";

int meta_upload_advance(struct call *call, struct str id, uint64_t received, struct str hash_state,
                        bool *ret_found)
{
    auto_stmt stmt = db_stmt(call->db, sql_advance);
    db_bind_text(stmt, 1, id);
    db_bind_int(stmt, 2, (int64_t)received); /* a file's size, never above INT64_MAX */
    db_bind_blob(stmt, 3, hash_state);
    db_bind_int(stmt, 4, clock_wall().us);
    if (db_run(stmt, &call->err) < 0)
        return -1;
    *ret_found = db_changed(call->db) > 0;
    return 0;
}

static const char sql_delete[] = "DELETE FROM upload WHERE id = $1";

int meta_upload_delete(struct call *call, struct str id)
{
    auto_stmt stmt = db_stmt(call->db, sql_delete);
    db_bind_text(stmt, 1, id);
    return db_run(stmt, &call->err);
}

static const char sql_delete_stale[] = "DELETE FROM upload WHERE id = $1 AND touched_at < $2";

int meta_upload_delete_stale(struct call *call, struct str id, struct wall_us before)
{
    auto_stmt stmt = db_stmt(call->db, sql_delete_stale);
    db_bind_text(stmt, 1, id);
    db_bind_int(stmt, 2, before.us);
    return db_run(stmt, &call->err);
}

static const char sql_exists[] = "SELECT 1 FROM upload WHERE id = $1";

int meta_upload_exists(struct call *call, struct str id, bool *ret_found)
{
    auto_stmt stmt = db_stmt(call->db, sql_exists);
    db_bind_text(stmt, 1, id);
    return db_step(stmt, ret_found, &call->err);
}

static const char sql_next[] = "SELECT id, received FROM upload WHERE id > $1 AND touched_at < $2"
                               " ORDER BY id LIMIT 1";

int meta_upload_next(struct call *call, struct str after, struct wall_us before, struct str *ret_id,
                     uint64_t *ret_received, bool *ret_found)
{
    auto_stmt stmt = db_stmt(call->db, sql_next);
    db_bind_text(stmt, 1, after);
    db_bind_int(stmt, 2, before.us);
    if (db_step(stmt, ret_found, &call->err) < 0)
        return -1;
    if (*ret_found) {
        *ret_id = str_dup(&call->arena, db_text(stmt, 0));
        *ret_received = (uint64_t)db_int(stmt, 1);
    }
    return 0;
}
