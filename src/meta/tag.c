#include "meta/meta_int.h"

static const char sql_set[] =
    "INSERT INTO tag (repository_id, name, manifest_id, updated_at) VALUES ($1, $2, $3, $4)"
    " ON CONFLICT (repository_id, name)"
    " DO UPDATE SET manifest_id = excluded.manifest_id, updated_at = excluded.updated_at";

int meta_tag_set(struct call *call, int64_t repository_id, const struct oci_tag *tag,
                 int64_t manifest_id, struct wall_us at)
{
    auto_stmt stmt = db_stmt(call->db, sql_set);
    db_bind_int(stmt, 1, repository_id);
    db_bind_text(stmt, 2, tag->text);
    db_bind_int(stmt, 3, manifest_id);
    db_bind_int(stmt, 4, at.us);
    return db_queue(stmt, &call->err);
}

static const char sql_delete[] = "DELETE FROM tag WHERE repository_id = $1 AND name = $2";

int meta_tag_delete(struct call *call, int64_t repository_id, const struct oci_tag *tag,
                    bool *ret_found)
{
    auto_stmt stmt = db_stmt(call->db, sql_delete);
    db_bind_int(stmt, 1, repository_id);
    db_bind_text(stmt, 2, tag->text);
    if (db_run(stmt, &call->err) < 0)
        return -1;
    *ret_found = db_changed(call->db) > 0;
    return 0;
}

static const char sql_list[] = "SELECT name FROM tag WHERE repository_id = $1 AND name > $2"
                               " ORDER BY name LIMIT $3";

int meta_tag_list(struct call *call, int64_t repository_id, struct str after, int64_t limit,
                  meta_text_fn each, void *context)
{
    auto_stmt stmt = db_stmt(call->db, sql_list);
    db_bind_int(stmt, 1, repository_id);
    db_bind_text(stmt, 2, after);
    db_bind_int(stmt, 3, limit);
    return meta_each_text(call, stmt, each, context);
}
