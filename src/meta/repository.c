#include "meta/meta_int.h"

static const char sql_find[] = "SELECT id FROM repository WHERE name = $1";

int meta_repository_find(struct call *call, const struct oci_name *name, int64_t *ret_id,
                         bool *ret_found)
{
    auto_stmt stmt = db_stmt(call->db, sql_find);
    db_bind_text(stmt, 1, name->text);
    if (db_step(stmt, ret_found, &call->err) < 0)
        return -1;
    if (*ret_found)
        *ret_id = db_int(stmt, 0);
    return 0;
}

static const char sql_insert[] = "INSERT INTO repository (name, created_at) VALUES ($1, $2)"
                                 " ON CONFLICT (name) DO NOTHING";

int meta_repository_ensure(struct call *call, const struct oci_name *name, struct wall_us at,
                           int64_t *ret_id)
{
    bool found;
    if (meta_repository_find(call, name, ret_id, &found) < 0)
        return -1;
    if (found)
        return 0;
    {
        auto_stmt stmt = db_stmt(call->db, sql_insert);
        db_bind_text(stmt, 1, name->text);
        db_bind_int(stmt, 2, at.us);
        if (db_run(stmt, &call->err) < 0)
            return -1;
    }
    if (meta_repository_find(call, name, ret_id, &found) < 0)
        return -1;
    require(found);
    return 0;
}

static const char sql_list[] = "SELECT name FROM repository WHERE name > $1 ORDER BY name LIMIT $2";

int meta_repository_list(struct call *call, struct str after, int64_t limit, meta_text_fn each,
                         void *context)
{
    auto_stmt stmt = db_stmt(call->db, sql_list);
    db_bind_text(stmt, 1, after);
    db_bind_int(stmt, 2, limit);
    return meta_each_text(call, stmt, each, context);
}
