/* What a repository has, in the order of keys, a page at a time: for copies of whole registries. */
#include "meta/meta_int.h"

static const char sql_repository[] =
    "SELECT id, name, created_at FROM repository WHERE name > $1 ORDER BY name LIMIT 1";

int meta_repository_next(struct call *call, struct str after, struct meta_repository_row *ret,
                         bool *ret_found)
{
    auto_stmt stmt = db_stmt(call->db, sql_repository);
    db_bind_text(stmt, 1, after);
    if (db_step(stmt, ret_found, &call->err) < 0)
        return -1;
    if (*ret_found)
        *ret = (struct meta_repository_row){
            .id = db_int(stmt, 0),
            .name = str_dup(&call->arena, db_text(stmt, 1)),
            .created_at = {db_int(stmt, 2)},
        };
    return 0;
}

static const char sql_uploads_delete[] = "DELETE FROM upload WHERE repository_id = $1";
static const char sql_repository_delete[] = "DELETE FROM repository WHERE id = $1";

int meta_repository_delete(struct call *call, int64_t id)
{
    const char *const both[] = {sql_uploads_delete, sql_repository_delete};
    for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
        auto_stmt stmt = db_stmt(call->db, both[i]);
        db_bind_int(stmt, 1, id);
        if (db_run(stmt, &call->err) < 0)
            return -1;
    }
    return 0;
}

/* Binds the page and calls `read` for each of its rows. */
static int read_page(struct call *call, const char *sql, const struct meta_page *page,
                     int (*read)(struct call *call, struct db_stmt *stmt, void *rows, size_t i),
                     void *rows, size_t *ret_n)
{
    auto_stmt stmt = db_stmt(call->db, sql);
    db_bind_int(stmt, 1, page->repository_id);
    db_bind_text(stmt, 2, page->after);
    db_bind_int(stmt, 3, (int64_t)page->limit);
    return db_read_rows(call, stmt, page->limit, read, rows, ret_n);
}

static const char sql_links_sorted[] =
    "SELECT b.digest, b.size, b.location, b.created_at, l.linked_at FROM repository_blob l"
    " JOIN blob b ON b.id = l.blob_id WHERE l.repository_id = $1 AND b.digest > $2"
    " ORDER BY b.digest LIMIT $3";
/* A subquery, which no planner turns into a join that it sorts again. */
static const char sql_links_walked[] =
    "SELECT digest, size, location, created_at, linked_at FROM"
    " (SELECT b.digest, b.size, b.location, b.created_at, (SELECT l.linked_at"
    " FROM repository_blob l WHERE l.repository_id = $1 AND l.blob_id = b.id) AS linked_at"
    " FROM blob b) AS walked WHERE digest > $2 AND linked_at IS NOT NULL"
    " ORDER BY digest LIMIT $3";

static int read_link(struct call *call, struct db_stmt *stmt, void *rows, size_t i)
{
    ((struct meta_link_row *)rows)[i] = (struct meta_link_row){
        .digest = str_dup(&call->arena, db_text(stmt, 0)),
        .size = (uint64_t)db_int(stmt, 1),
        .location = str_dup(&call->arena, db_text(stmt, 2)),
        .created_at = {db_int(stmt, 3)},
        .linked_at = {db_int(stmt, 4)},
    };
    return 0;
}

int meta_link_rows(struct call *call, const struct meta_page *page, bool walk,
                   struct meta_link_row *ret, size_t *ret_n)
{
    return read_page(call, walk ? sql_links_walked : sql_links_sorted, page, read_link, ret, ret_n);
}

static const char sql_extents[] =
    "SELECT count(*), (SELECT max(value) FROM total_now WHERE name = 'blobs') FROM repository_blob"
    " WHERE repository_id = $1";

int meta_link_prefer_walk(struct call *call, const struct meta_page *page, bool *ret_walk)
{
    auto_stmt stmt = db_stmt(call->db, sql_extents);
    db_bind_int(stmt, 1, page->repository_id);
    bool row;
    if (db_step(stmt, &row, &call->err) < 0)
        return -1;
    require(row);
    /* Each page sorts the links behind it, half of all on average. */
    double links = (double)db_int(stmt, 0);
    double sorted = links / (double)page->limit * links / 2;
    *ret_walk = sorted > (double)db_int(stmt, 1);
    return 0;
}

static const char sql_manifests[] =
    "SELECT id, digest, media_type, pushed_at, size FROM manifest WHERE repository_id = $1"
    " AND digest > $2 ORDER BY digest LIMIT $3";

static int read_manifest(struct call *call, struct db_stmt *stmt, void *rows, size_t i)
{
    ((struct meta_manifest_head *)rows)[i] = (struct meta_manifest_head){
        .id = db_int(stmt, 0),
        .digest = str_dup(&call->arena, db_text(stmt, 1)),
        .media_type = str_dup(&call->arena, db_text(stmt, 2)),
        .pushed_at = {db_int(stmt, 3)},
        .size = (uint64_t)db_int(stmt, 4),
    };
    return 0;
}

int meta_manifest_heads(struct call *call, const struct meta_page *page,
                        struct meta_manifest_head *ret, size_t *ret_n)
{
    return read_page(call, sql_manifests, page, read_manifest, ret, ret_n);
}

static const char sql_content[] = "SELECT content FROM manifest WHERE id = $1";

int meta_manifest_content(struct call *call, int64_t id, struct str *ret, bool *ret_found)
{
    auto_stmt stmt = db_stmt(call->db, sql_content);
    db_bind_int(stmt, 1, id);
    if (db_step(stmt, ret_found, &call->err) < 0)
        return -1;
    if (*ret_found)
        *ret = str_dup(&call->arena, db_blob(stmt, 0));
    return 0;
}

static const char sql_tags[] =
    "SELECT t.name, m.digest, t.updated_at FROM tag t JOIN manifest m ON m.id = t.manifest_id"
    " WHERE t.repository_id = $1 AND t.name > $2 ORDER BY t.name LIMIT $3";

static int read_tag(struct call *call, struct db_stmt *stmt, void *rows, size_t i)
{
    ((struct meta_tag_row *)rows)[i] = (struct meta_tag_row){
        .name = str_dup(&call->arena, db_text(stmt, 0)),
        .digest = str_dup(&call->arena, db_text(stmt, 1)),
        .updated_at = {db_int(stmt, 2)},
    };
    return 0;
}

int meta_tag_rows(struct call *call, const struct meta_page *page, struct meta_tag_row *ret,
                  size_t *ret_n)
{
    return read_page(call, sql_tags, page, read_tag, ret, ret_n);
}
