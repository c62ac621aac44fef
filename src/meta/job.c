#include "meta/meta_int.h"

/* Who waits takes the new payload and the earlier time. Who is under a lease runs once more: what
 * it does now may have begun before what it is queued for. */
static const char sql_queue[] =
    "INSERT INTO job (kind, key, payload, due_at) VALUES ($1, $2, $3, $4)"
    " ON CONFLICT (kind, key) DO UPDATE SET payload = excluded.payload,"
    " due_at = CASE WHEN job.lease = '' AND job.due_at > excluded.due_at THEN excluded.due_at"
    " ELSE job.due_at END,"
    " again_at = CASE WHEN job.lease = '' OR job.again_at < excluded.due_at THEN job.again_at"
    " ELSE excluded.due_at END";

int meta_job_queue(struct call *call, struct str kind, struct str key, struct str payload,
                   struct wall_us when)
{
    auto_stmt stmt = db_stmt(call->db, sql_queue);
    db_bind_text(stmt, 1, kind);
    db_bind_text(stmt, 2, key);
    db_bind_blob(stmt, 3, payload);
    db_bind_int(stmt, 4, when.us);
    return db_run(stmt, &call->err);
}

/* Whatever the interval or the clock was before: it is due within an interval from now. */
static const char sql_repeat[] =
    "INSERT INTO job (kind, key, due_at, every_us) VALUES ($1, '', $2, $3)"
    " ON CONFLICT (kind, key) DO UPDATE SET every_us = excluded.every_us,"
    " due_at = CASE WHEN job.lease = '' AND job.due_at > excluded.due_at + excluded.every_us"
    " THEN excluded.due_at + excluded.every_us ELSE job.due_at END"
    " WHERE job.every_us <> excluded.every_us"
    " OR job.due_at > excluded.due_at + excluded.every_us";

int meta_job_repeat(struct call *call, struct str kind, int64_t every_us, struct wall_us now)
{
    auto_stmt stmt = db_stmt(call->db, sql_repeat);
    db_bind_text(stmt, 1, kind);
    db_bind_int(stmt, 2, now.us);
    db_bind_int(stmt, 3, every_us);
    return db_run(stmt, &call->err);
}

static const char sql_repeat_stop[] =
    "UPDATE job SET every_us = 0 WHERE kind = $1 AND every_us > 0";

int meta_job_repeat_stop(struct call *call, struct str kind)
{
    auto_stmt stmt = db_stmt(call->db, sql_repeat_stop);
    db_bind_text(stmt, 1, kind);
    return db_run(stmt, &call->err);
}

/* Kinds that are not given stay NULL, which nothing equals. The empty text keeps SQLite from going
 * by kind, through all that is not due yet. */
static const char sql_due[] = "SELECT id FROM job WHERE due_at <= $1 AND kind || '' IN ($3, $4, "
                              "$5, $6, $7, $8, $9, $10, $11, $12,"
                              " $13, $14, $15, $16, $17, $18) ORDER BY due_at, id LIMIT $2";

static int read_id(struct call *call, struct db_stmt *stmt, void *rows, size_t i)
{
    (void)call;
    ((int64_t *)rows)[i] = db_int(stmt, 0);
    return 0;
}

int meta_job_due(struct call *call, const struct str *kinds, size_t n_kinds, struct wall_us now,
                 int64_t limit, int64_t *ret_ids, size_t *ret_n)
{
    require(n_kinds <= META_JOB_KINDS_MAX);
    auto_stmt stmt = db_stmt(call->db, sql_due);
    db_bind_int(stmt, 1, now.us);
    db_bind_int(stmt, 2, limit);
    for (size_t i = 0; i < n_kinds; i++)
        db_bind_text(stmt, 3 + (int)i, kinds[i]);
    return db_read_rows(call, stmt, (size_t)limit, read_id, ret_ids, ret_n);
}

/* Of several that run it at the same time on PostgreSQL, all but one wait for that one's commit,
 * look at the row again, and find that it is not due. */
static const char sql_claim[] =
    "UPDATE job SET lease = $2, due_at = $4, attempts = attempts + 1,"
    " again_at = CASE WHEN again_at > $3 THEN again_at END WHERE id = $1 AND due_at <= $3"
    " RETURNING kind, key, payload, every_us, attempts";

int meta_job_claim(struct call *call, int64_t id, struct str lease, struct wall_us now,
                   struct wall_us until, struct meta_job *ret, bool *ret_found)
{
    auto_stmt stmt = db_stmt(call->db, sql_claim);
    db_bind_int(stmt, 1, id);
    db_bind_text(stmt, 2, lease);
    db_bind_int(stmt, 3, now.us);
    db_bind_int(stmt, 4, until.us);
    if (db_step(stmt, ret_found, &call->err) < 0)
        return -1;
    if (*ret_found)
        *ret = (struct meta_job){
            .id = id,
            .kind = str_dup(&call->arena, db_text(stmt, 0)),
            .key = str_dup(&call->arena, db_text(stmt, 1)),
            .payload = str_dup(&call->arena, db_blob(stmt, 2)),
            .every_us = db_int(stmt, 3),
            .attempts = db_int(stmt, 4),
        };
    return 0;
}

/* Runs a statement on the row of job $1, under lease $2. */
static int run_held(struct call *call, struct db_stmt *stmt, int64_t id, struct str lease,
                    bool *ret_held)
{
    db_bind_int(stmt, 1, id);
    db_bind_text(stmt, 2, lease);
    if (db_run(stmt, &call->err) < 0)
        return -1;
    *ret_held = db_changed(call->db) > 0;
    return 0;
}

static const char sql_hold[] = "UPDATE job SET due_at = $3 WHERE id = $1 AND lease = $2";

int meta_job_hold(struct call *call, int64_t id, struct str lease, struct wall_us until,
                  bool *ret_held)
{
    auto_stmt stmt = db_stmt(call->db, sql_hold);
    db_bind_int(stmt, 3, until.us);
    return run_held(call, stmt, id, lease, ret_held);
}

static const char sql_done[] =
    "DELETE FROM job WHERE id = $1 AND lease = $2 AND every_us = 0 AND again_at IS NULL";
static const char sql_done_again[] =
    "UPDATE job SET lease = '', attempts = 0, error = '', again_at = NULL,"
    " due_at = CASE WHEN again_at IS NULL OR (every_us > 0 AND again_at > $3 + every_us)"
    " THEN $3 + every_us ELSE again_at END WHERE id = $1 AND lease = $2";

int meta_job_done(struct call *call, int64_t id, struct str lease, struct wall_us now,
                  bool *ret_held)
{
    auto_stmt stmt = db_stmt(call->db, sql_done);
    bool gone;
    if (run_held(call, stmt, id, lease, &gone) < 0)
        return -1;
    if (gone) {
        *ret_held = true;
        return 0;
    }
    auto_stmt again = db_stmt(call->db, sql_done_again);
    db_bind_int(again, 3, now.us);
    return run_held(call, again, id, lease, ret_held);
}

static const char sql_failed[] =
    "UPDATE job SET lease = '', error = $4, again_at = NULL,"
    " due_at = CASE WHEN again_at < $3 THEN again_at ELSE $3 END WHERE id = $1 AND lease = $2";

int meta_job_failed(struct call *call, int64_t id, struct str lease, struct wall_us when,
                    struct str error, bool *ret_held)
{
    auto_stmt stmt = db_stmt(call->db, sql_failed);
    db_bind_int(stmt, 3, when.us);
    db_bind_text(stmt, 4, error);
    return run_held(call, stmt, id, lease, ret_held);
}

static const char sql_return[] = "UPDATE job SET lease = '', attempts = attempts - 1,"
                                 " again_at = NULL, due_at = $3 WHERE id = $1 AND lease = $2";

int meta_job_return(struct call *call, int64_t id, struct str lease, struct wall_us now,
                    bool *ret_held)
{
    auto_stmt stmt = db_stmt(call->db, sql_return);
    db_bind_int(stmt, 3, now.us);
    return run_held(call, stmt, id, lease, ret_held);
}
