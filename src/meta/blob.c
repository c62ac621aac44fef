#include "meta/meta_int.h"

/* Reads id, size and location from the row, if there is one. */
static int read_blob(struct call *call, struct db_stmt *stmt, struct meta_blob *ret,
                     bool *ret_found)
{
    if (db_step(stmt, ret_found, &call->err) < 0)
        return -1;
    if (*ret_found)
        *ret = (struct meta_blob){
            .id = db_int(stmt, 0),
            .size = (uint64_t)db_int(stmt, 1),
            .location = str_dup(&call->arena, db_text(stmt, 2)),
        };
    return 0;
}

static const char sql_find[] = "SELECT l.blob_id, b.size, b.location FROM repository r"
                               " LEFT JOIN blob b ON b.digest = $2"
                               " LEFT JOIN repository_blob l"
                               " ON l.repository_id = r.id AND l.blob_id = b.id"
                               " WHERE r.name = $1";

int meta_blob_find(struct call *call, const struct oci_name *repository,
                   const struct oci_digest *digest, struct meta_blob *ret,
                   enum meta_found *ret_found)
{
    char text[OCI_DIGEST_TEXT_MAX + 1];
    auto_stmt stmt = db_stmt(call->db, sql_find);
    db_bind_text(stmt, 1, repository->text);
    meta_bind_digest(stmt, 2, digest, text);
    bool row;
    if (read_blob(call, stmt, ret, &row) < 0)
        return -1;
    *ret_found = meta_found_in(stmt, row);
    return 0;
}

static const char sql_find_row[] = "SELECT id, size, location FROM blob WHERE digest = $1";

int meta_blob_find_row(struct call *call, const struct oci_digest *digest, struct meta_blob *ret,
                       bool *ret_found)
{
    char text[OCI_DIGEST_TEXT_MAX + 1];
    auto_stmt stmt = db_stmt(call->db, sql_find_row);
    meta_bind_digest(stmt, 1, digest, text);
    return read_blob(call, stmt, ret, ret_found);
}

static const char sql_find_anywhere[] =
    "SELECT b.id, b.size, b.location FROM blob b WHERE b.digest = $1"
    " AND EXISTS (SELECT 1 FROM repository_blob l WHERE l.blob_id = b.id)";

int meta_blob_find_anywhere(struct call *call, const struct oci_digest *digest,
                            struct meta_blob *ret, bool *ret_found)
{
    char text[OCI_DIGEST_TEXT_MAX + 1];
    auto_stmt stmt = db_stmt(call->db, sql_find_anywhere);
    meta_bind_digest(stmt, 1, digest, text);
    return read_blob(call, stmt, ret, ret_found);
}

/* The update that changes nothing makes RETURNING give the row that is there. */
static const char sql_adopt[] =
    "INSERT INTO blob (digest, size, created_at, location) VALUES ($1, $2, $3, $4)"
    " ON CONFLICT (digest) DO UPDATE SET size = excluded.size RETURNING id, size, location";

static struct db_stmt *adopting(struct call *call, struct str digest, uint64_t size,
                                struct str location, struct wall_us at)
{
    struct db_stmt *stmt = db_stmt(call->db, sql_adopt);
    db_bind_text(stmt, 1, digest);
    db_bind_int(stmt, 2, (int64_t)size); /* a file's size, never above INT64_MAX */
    db_bind_int(stmt, 3, at.us);
    db_bind_text(stmt, 4, location);
    return stmt;
}

int meta_blob_adopt(struct call *call, const struct oci_digest *digest, uint64_t size,
                    struct str location, struct wall_us at, struct meta_blob *ret)
{
    char text[OCI_DIGEST_TEXT_MAX + 1];
    auto_stmt stmt = adopting(call, oci_digest_format(digest, text), size, location, at);
    bool row;
    if (read_blob(call, stmt, ret, &row) < 0)
        return -1;
    require(row);
    return 0;
}

static const char sql_link_digest[] =
    "INSERT INTO repository_blob (repository_id, blob_id, linked_at)"
    " SELECT $1, id, $3 FROM blob WHERE digest = $2"
    " ON CONFLICT DO NOTHING";

/* The link needs no answer to find the row by its digest, so all three are one round trip. */
int meta_blob_adopt_into(struct call *call, int64_t repository_id, const struct oci_digest *digest,
                         uint64_t size, struct str location, struct wall_us at,
                         struct meta_blob *ret)
{
    char text[OCI_DIGEST_TEXT_MAX + 1];
    struct str digest_text = oci_digest_format(digest, text);
    if (db_queue(adopting(call, digest_text, size, location, at), &call->err) < 0)
        return -1;
    struct db_stmt *link = db_stmt(call->db, sql_link_digest);
    db_bind_int(link, 1, repository_id);
    db_bind_text(link, 2, digest_text);
    db_bind_int(link, 3, at.us);
    bool found;
    if (db_queue(link, &call->err) < 0 || meta_blob_find_row(call, digest, ret, &found) < 0)
        return -1;
    require(found);
    return 0;
}

static const char sql_link[] = "INSERT INTO repository_blob (repository_id, blob_id, linked_at)"
                               " VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

int meta_blob_link(struct call *call, int64_t repository_id, int64_t blob_id, struct wall_us at)
{
    auto_stmt stmt = db_stmt(call->db, sql_link);
    db_bind_int(stmt, 1, repository_id);
    db_bind_int(stmt, 2, blob_id);
    db_bind_int(stmt, 3, at.us);
    return db_queue(stmt, &call->err);
}

static const char sql_unlink[] =
    "DELETE FROM repository_blob WHERE repository_id = $1 AND blob_id = $2";

int meta_blob_unlink(struct call *call, int64_t repository_id, int64_t blob_id)
{
    auto_stmt stmt = db_stmt(call->db, sql_unlink);
    db_bind_int(stmt, 1, repository_id);
    db_bind_int(stmt, 2, blob_id);
    return db_queue(stmt, &call->err);
}

static const char sql_rows[] = "SELECT b.id, b.digest, b.size, b.location,"
                               " EXISTS (SELECT 1 FROM repository_blob l WHERE l.blob_id = b.id)"
                               " FROM blob b WHERE b.id > $1 ORDER BY b.id LIMIT $2";

static int read_row(struct call *call, struct db_stmt *stmt, void *rows, size_t i)
{
    struct meta_blob_row *row = (struct meta_blob_row *)rows + i;
    if (oci_digest_parse(db_text(stmt, 1), &row->digest, &call->err) < 0)
        return err_set(&call->err, ERR_CORRUPT, "blob row %lld holds a broken digest",
                       (long long)db_int(stmt, 0));
    row->id = db_int(stmt, 0);
    row->size = (uint64_t)db_int(stmt, 2);
    row->location = str_dup(&call->arena, db_text(stmt, 3));
    row->linked = db_int(stmt, 4) != 0;
    return 0;
}

int meta_blob_rows(struct call *call, int64_t after_id, int64_t limit, struct meta_blob_row *ret,
                   size_t *ret_n)
{
    auto_stmt stmt = db_stmt(call->db, sql_rows);
    db_bind_int(stmt, 1, after_id);
    db_bind_int(stmt, 2, limit);
    return db_read_rows(call, stmt, (size_t)limit, read_row, ret, ret_n);
}

static const char sql_location[] = "SELECT 1 FROM blob WHERE location = $1 AND location <> ''";
/* Few uploads are open at a time, and a location has no sign that is special here. */
static const char sql_staged[] = "SELECT 1 FROM upload WHERE stage LIKE '%' || $1 || '%'";

int meta_location_find(struct call *call, struct str location, bool *ret_found)
{
    const char *const both[] = {sql_location, sql_staged};
    *ret_found = false;
    for (size_t i = 0; i < ARRAY_SIZE(both) && !*ret_found; i++) {
        auto_stmt stmt = db_stmt(call->db, both[i]);
        db_bind_text(stmt, 1, location);
        if (db_step(stmt, ret_found, &call->err) < 0)
            return -1;
    }
    return 0;
}

static const char sql_delete_links[] = "DELETE FROM repository_blob WHERE blob_id = $1";
static const char sql_delete[] = "DELETE FROM blob WHERE id = $1";

int meta_blob_delete(struct call *call, int64_t id)
{
    const char *const both[] = {sql_delete_links, sql_delete};
    for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
        auto_stmt stmt = db_stmt(call->db, both[i]);
        db_bind_int(stmt, 1, id);
        if (db_queue(stmt, &call->err) < 0)
            return -1;
    }
    return 0;
}
