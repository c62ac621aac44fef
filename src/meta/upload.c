#include "meta/meta_int.h"

/* Ends a statement that changes the one upload, if it is there, and still the holder's. */
static int run_held(struct call *call, struct db_stmt *stmt, bool *ret_found)
{
    if (db_run(stmt, &call->err) < 0)
        return -1;
    *ret_found = db_changed(call->db) > 0;
    return 0;
}

static const char sql_insert[] =
    "INSERT INTO upload (id, repository_id, received, hash_state, started_at, touched_at)"
    " SELECT $2, id, 0, $3, $4, $4 FROM repository WHERE name = $1";

int meta_upload_insert(struct call *call, const struct oci_name *repository, struct str id,
                       struct str hash_state, bool *ret_found)
{
    auto_stmt stmt = db_stmt(call->db, sql_insert);
    db_bind_text(stmt, 1, repository->text);
    db_bind_text(stmt, 2, id);
    db_bind_blob(stmt, 3, hash_state);
    db_bind_int(stmt, 4, clock_wall().us);
    return run_held(call, stmt, ret_found);
}

#define COLUMNS "repository_id, received, hash_state, stage"

/* Reads COLUMNS, which stand from column `at` on. */
static struct meta_upload read_upload(struct call *call, struct db_stmt *stmt, int at)
{
    return (struct meta_upload){
        .repository_id = db_int(stmt, at),
        .received = (uint64_t)db_int(stmt, at + 1),
        .hash_state = str_dup(&call->arena, db_blob(stmt, at + 2)),
        .stage = str_dup(&call->arena, db_text(stmt, at + 3)),
    };
}

static const char sql_find[] = "SELECT " COLUMNS " FROM upload u"
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
        *ret = read_upload(call, stmt, 0);
    return 0;
}

static const char sql_hold[] = "UPDATE upload SET hold = $3, held_until = $5"
                               " WHERE id = $2 AND (held_until < $4 OR hold = $3)"
                               " AND repository_id = (SELECT id FROM repository WHERE name = $1)"
                               " RETURNING " COLUMNS;

int meta_upload_hold(struct call *call, const struct oci_name *repository, struct str id,
                     struct str hold, struct wall_us now, struct wall_us until,
                     struct meta_upload *ret, bool *ret_held)
{
    auto_stmt stmt = db_stmt(call->db, sql_hold);
    db_bind_text(stmt, 1, repository->text);
    db_bind_text(stmt, 2, id);
    db_bind_text(stmt, 3, hold);
    db_bind_int(stmt, 4, now.us);
    db_bind_int(stmt, 5, until.us);
    if (db_step(stmt, ret_held, &call->err) < 0)
        return -1;
    if (*ret_held)
        *ret = read_upload(call, stmt, 0);
    return 0;
}

static const char sql_renew[] = "UPDATE upload SET held_until = $3 WHERE id = $1 AND hold = $2";

int meta_upload_renew(struct call *call, struct str id, struct str hold, struct wall_us until,
                      bool *ret_found)
{
    auto_stmt stmt = db_stmt(call->db, sql_renew);
    db_bind_text(stmt, 1, id);
    db_bind_text(stmt, 2, hold);
    db_bind_int(stmt, 3, until.us);
    return run_held(call, stmt, ret_found);
}

static const char sql_advance[] =
    "UPDATE upload SET received = $3, hash_state = $4, stage = $5, touched_at = $6, hold = '',"
    " held_until = 0 WHERE id = $1 AND hold = $2";

int meta_upload_advance(struct call *call, struct str id, struct str hold,
                        const struct meta_upload *upload, bool *ret_found)
{
    auto_stmt stmt = db_stmt(call->db, sql_advance);
    db_bind_text(stmt, 1, id);
    db_bind_text(stmt, 2, hold);
    db_bind_int(stmt, 3, (int64_t)upload->received); /* never above INT64_MAX */
    db_bind_blob(stmt, 4, upload->hash_state);
    db_bind_text(stmt, 5, upload->stage);
    db_bind_int(stmt, 6, clock_wall().us);
    return run_held(call, stmt, ret_found);
}

static const char sql_delete[] = "DELETE FROM upload WHERE id = $1 AND hold = $2";

int meta_upload_delete(struct call *call, struct str id, struct str hold, bool *ret_found)
{
    auto_stmt stmt = db_stmt(call->db, sql_delete);
    db_bind_text(stmt, 1, id);
    db_bind_text(stmt, 2, hold);
    return run_held(call, stmt, ret_found);
}

static const char sql_release[] =
    "UPDATE upload SET hold = '', held_until = 0 WHERE id = $1 AND hold = $2";

int meta_upload_release(struct call *call, struct str id, struct str hold)
{
    auto_stmt stmt = db_stmt(call->db, sql_release);
    db_bind_text(stmt, 1, id);
    db_bind_text(stmt, 2, hold);
    return db_queue(stmt, &call->err);
}

static const char sql_release_all[] =
    "UPDATE upload SET hold = '', held_until = 0 WHERE hold <> ''";

int meta_upload_release_all(struct call *call)
{
    return db_queue(db_stmt(call->db, sql_release_all), &call->err);
}

static const char sql_delete_stale[] =
    "DELETE FROM upload WHERE id = $1 AND touched_at < $2 AND held_until < $3";

int meta_upload_delete_stale(struct call *call, struct str id, struct wall_us before,
                             struct wall_us now)
{
    auto_stmt stmt = db_stmt(call->db, sql_delete_stale);
    db_bind_text(stmt, 1, id);
    db_bind_int(stmt, 2, before.us);
    db_bind_int(stmt, 3, now.us);
    return db_queue(stmt, &call->err);
}

static const char sql_exists[] = "SELECT 1 FROM upload WHERE id = $1";

int meta_upload_exists(struct call *call, struct str id, bool *ret_found)
{
    auto_stmt stmt = db_stmt(call->db, sql_exists);
    db_bind_text(stmt, 1, id);
    return db_step(stmt, ret_found, &call->err);
}

static const char sql_next[] =
    "SELECT u.id, " COLUMNS " FROM upload u WHERE u.id > $1 AND u.touched_at < $2"
    " ORDER BY u.id LIMIT 1";

int meta_upload_next(struct call *call, struct str after, struct wall_us before, struct str *ret_id,
                     struct meta_upload *ret, bool *ret_found)
{
    auto_stmt stmt = db_stmt(call->db, sql_next);
    db_bind_text(stmt, 1, after);
    db_bind_int(stmt, 2, before.us);
    if (db_step(stmt, ret_found, &call->err) < 0)
        return -1;
    if (*ret_found) {
        *ret_id = str_dup(&call->arena, db_text(stmt, 0));
        *ret = read_upload(call, stmt, 1);
    }
    return 0;
}
