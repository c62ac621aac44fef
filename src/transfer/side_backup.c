/* A backup as one side of a copy: as the source, how it was at a snapshot; as the target, the
 * snapshot that is being taken.
 *
 * A row is there from the snapshot `since` to the one before `gone`; NULL: to this day. So a
 * snapshot costs what changed since the last one. */
#include "transfer/backup_int.h"

static const char schema[] =
    "CREATE TABLE source (registry TEXT NOT NULL) STRICT;" /* its identity */
    /* The last one is not complete while it is taken. What it shows is counted when it is. */
    "CREATE TABLE snapshot ("
    " id INTEGER PRIMARY KEY, taken_at INTEGER NOT NULL, blobs INTEGER NOT NULL,"
    " complete INTEGER NOT NULL DEFAULT 0, repositories INTEGER NOT NULL DEFAULT 0,"
    " manifests INTEGER NOT NULL DEFAULT 0, tags INTEGER NOT NULL DEFAULT 0,"
    " blob_count INTEGER NOT NULL DEFAULT 0, blob_bytes INTEGER NOT NULL DEFAULT 0) STRICT;"
    "CREATE TABLE repository ("
    " id INTEGER PRIMARY KEY, name TEXT NOT NULL, created_at INTEGER NOT NULL,"
    " since INTEGER NOT NULL, gone INTEGER) STRICT;"
    "CREATE INDEX repository_by_name ON repository (name);"
    /* stored: the backup has the bytes; else the source's store has them at `location`. */
    "CREATE TABLE blob ("
    " digest TEXT PRIMARY KEY, size INTEGER NOT NULL, created_at INTEGER NOT NULL,"
    " location TEXT NOT NULL, stored INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE TABLE link ("
    " repository_id INTEGER NOT NULL REFERENCES repository (id),"
    " digest TEXT NOT NULL REFERENCES blob (digest), linked_at INTEGER NOT NULL,"
    " since INTEGER NOT NULL, gone INTEGER, PRIMARY KEY (repository_id, digest, since)"
    ") STRICT, WITHOUT ROWID;"
    "CREATE INDEX link_by_digest ON link (digest);"
    "CREATE TABLE manifest ("
    " id INTEGER PRIMARY KEY, repository_id INTEGER NOT NULL REFERENCES repository (id),"
    " digest TEXT NOT NULL, media_type TEXT NOT NULL, pushed_at INTEGER NOT NULL,"
    " size INTEGER NOT NULL, since INTEGER NOT NULL, gone INTEGER, content BLOB NOT NULL,"
    " UNIQUE (repository_id, digest, since)) STRICT;"
    "CREATE TABLE tag ("
    " repository_id INTEGER NOT NULL REFERENCES repository (id), name TEXT NOT NULL,"
    " digest TEXT NOT NULL, updated_at INTEGER NOT NULL, since INTEGER NOT NULL, gone INTEGER,"
    " PRIMARY KEY (repository_id, name, since)) STRICT, WITHOUT ROWID;";

const struct db_migration backup_migrations[] = {{1, schema, ""}};
const size_t backup_n_migrations = ARRAY_SIZE(backup_migrations);

static const char sql_repository_next[] =
    "SELECT id, name, created_at FROM repository WHERE name > $1"
    " AND since <= $2 AND (gone IS NULL OR gone > $2) ORDER BY name LIMIT 1";

static int repository_next(struct side *side, struct str after, struct meta_repository_row *ret,
                           bool *ret_found)
{
    struct call *call = &side->call;
    auto_stmt stmt = db_stmt(call->db, sql_repository_next);
    db_bind_text(stmt, 1, after);
    db_bind_int(stmt, 2, side->snapshot);
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

/* ---- Lists: key, text, size, id, at, made ---- */

#define AT_SNAPSHOT " AND since <= $4 AND (gone IS NULL OR gone > $4)"

static const char sql_links[] =
    "SELECT l.digest, b.location, b.size, 0, l.linked_at, b.created_at FROM link l"
    " JOIN blob b ON b.digest = l.digest WHERE l.repository_id = $1 AND l.digest > $2" AT_SNAPSHOT
    " ORDER BY l.digest LIMIT $3";
static const char sql_manifests[] =
    "SELECT digest, media_type, size, id, pushed_at, 0 FROM manifest WHERE repository_id = $1"
    " AND digest > $2" AT_SNAPSHOT " ORDER BY digest LIMIT $3";
static const char sql_tags[] =
    "SELECT name, digest, 0, 0, updated_at, 0 FROM tag WHERE repository_id = $1"
    " AND name > $2" AT_SNAPSHOT " ORDER BY name LIMIT $3";

static int read_entry(struct call *call, struct db_stmt *stmt, void *rows, size_t i)
{
    ((struct entry *)rows)[i] = (struct entry){
        .key = str_dup(&call->arena, db_text(stmt, 0)),
        .text = str_dup(&call->arena, db_text(stmt, 1)),
        .size = (uint64_t)db_int(stmt, 2),
        .id = db_int(stmt, 3),
        .at = {db_int(stmt, 4)},
        .made = {db_int(stmt, 5)},
    };
    return 0;
}

static int list(struct side *side, enum entry_kind kind, const struct meta_page *page,
                struct entry *ret, size_t *ret_n)
{
    static const char *const lists[] = {
        [ENTRY_LINK] = sql_links, [ENTRY_MANIFEST] = sql_manifests, [ENTRY_TAG] = sql_tags};
    struct call *call = &side->call;
    auto_stmt stmt = db_stmt(call->db, lists[kind]);
    db_bind_int(stmt, 1, page->repository_id);
    db_bind_text(stmt, 2, page->after);
    db_bind_int(stmt, 3, (int64_t)page->limit);
    db_bind_int(stmt, 4, side->snapshot);
    return db_read_rows(call, stmt, page->limit, read_entry, ret, ret_n);
}

static const char sql_content[] = "SELECT content FROM manifest WHERE id = $1";

static int content(struct side *side, int64_t id, struct str *ret, bool *ret_found)
{
    struct call *call = &side->call;
    auto_stmt stmt = db_stmt(call->db, sql_content);
    db_bind_int(stmt, 1, id);
    if (db_step(stmt, ret_found, &call->err) < 0)
        return -1;
    if (*ret_found)
        *ret = str_dup(&call->arena, db_blob(stmt, 0));
    return 0;
}

/* ---- Changes ---- */

static const char sql_repository_put[] =
    "INSERT INTO repository (name, created_at, since) VALUES ($1, $2, $3) RETURNING id";

static int repository_put(struct side *side, const struct meta_repository_row *row, int64_t *ret_id)
{
    struct call *call = &side->call;
    auto_stmt stmt = db_stmt(call->db, sql_repository_put);
    db_bind_text(stmt, 1, row->name);
    db_bind_int(stmt, 2, row->created_at.us);
    db_bind_int(stmt, 3, side->snapshot);
    bool found;
    if (db_step(stmt, &found, &call->err) < 0)
        return -1;
    require(found);
    *ret_id = db_int(stmt, 0);
    return 0;
}

/* What came with this very snapshot leaves no trace, the rest is gone from here on. */
static const char sql_forget_repository[] = "DELETE FROM repository WHERE id = $1 AND since = $2";
static const char sql_end_repository[] = "UPDATE repository SET gone = $2 WHERE id = $1";

static int repository_remove(struct side *side, int64_t id)
{
    const char *const both[] = {sql_forget_repository, sql_end_repository};
    struct call *call = &side->call;
    for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
        auto_stmt stmt = db_stmt(call->db, both[i]);
        db_bind_int(stmt, 1, id);
        db_bind_int(stmt, 2, side->snapshot);
        if (db_run(stmt, &call->err) < 0)
            return -1;
    }
    return 0;
}

static const char sql_forget_link[] = "DELETE FROM link WHERE repository_id = $1 AND digest = $2"
                                      " AND gone IS NULL AND since = $3";
static const char sql_forget_manifest[] =
    "DELETE FROM manifest WHERE repository_id = $1 AND digest = $2 AND gone IS NULL AND since = $3";
static const char sql_forget_tag[] = "DELETE FROM tag WHERE repository_id = $1 AND name = $2"
                                     " AND gone IS NULL AND since = $3";
static const char sql_end_link[] = "UPDATE link SET gone = $3 WHERE repository_id = $1"
                                   " AND digest = $2 AND gone IS NULL";
static const char sql_end_manifest[] = "UPDATE manifest SET gone = $3 WHERE repository_id = $1"
                                       " AND digest = $2 AND gone IS NULL";
static const char sql_end_tag[] = "UPDATE tag SET gone = $3 WHERE repository_id = $1"
                                  " AND name = $2 AND gone IS NULL";

static int remove_entry(struct side *side, enum entry_kind kind, int64_t repository,
                        const struct entry *entry)
{
    static const char *const forget[] = {[ENTRY_LINK] = sql_forget_link,
                                         [ENTRY_MANIFEST] = sql_forget_manifest,
                                         [ENTRY_TAG] = sql_forget_tag};
    static const char *const end[] = {[ENTRY_LINK] = sql_end_link,
                                      [ENTRY_MANIFEST] = sql_end_manifest,
                                      [ENTRY_TAG] = sql_end_tag};
    const char *const both[] = {forget[kind], end[kind]};
    struct call *call = &side->call;
    for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
        auto_stmt stmt = db_stmt(call->db, both[i]);
        db_bind_int(stmt, 1, repository);
        db_bind_text(stmt, 2, entry->key);
        db_bind_int(stmt, 3, side->snapshot);
        if (db_run(stmt, &call->err) < 0)
            return -1;
    }
    return 0;
}

static const char sql_put_blob[] =
    "INSERT INTO blob (digest, size, created_at, location, stored) VALUES ($1, $2, $3, $4, 0)"
    " ON CONFLICT (digest) DO UPDATE SET location = excluded.location";
static const char sql_put_link[] =
    "INSERT INTO link (repository_id, digest, linked_at, since) VALUES ($1, $2, $3, $4)";

static int put_link(struct side *side, int64_t repository, const struct entry *entry)
{
    struct call *call = &side->call;
    auto_stmt blob = db_stmt(call->db, sql_put_blob);
    db_bind_text(blob, 1, entry->key);
    db_bind_int(blob, 2, (int64_t)entry->size);
    db_bind_int(blob, 3, entry->made.us);
    db_bind_text(blob, 4, entry->text);
    if (db_run(blob, &call->err) < 0)
        return -1;
    auto_stmt link = db_stmt(call->db, sql_put_link);
    db_bind_int(link, 1, repository);
    db_bind_text(link, 2, entry->key);
    db_bind_int(link, 3, entry->at.us);
    db_bind_int(link, 4, side->snapshot);
    return db_run(link, &call->err);
}

static const char sql_put_manifest[] =
    "INSERT INTO manifest (repository_id, digest, media_type, pushed_at, size, since, content)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7)";

static int put_manifest(struct side *side, int64_t repository, const struct entry *entry)
{
    struct call *call = &side->call;
    auto_stmt stmt = db_stmt(call->db, sql_put_manifest);
    db_bind_int(stmt, 1, repository);
    db_bind_text(stmt, 2, entry->key);
    db_bind_text(stmt, 3, entry->text);
    db_bind_int(stmt, 4, entry->at.us);
    db_bind_int(stmt, 5, (int64_t)entry->content.n);
    db_bind_int(stmt, 6, side->snapshot);
    db_bind_blob(stmt, 7, entry->content);
    return db_run(stmt, &call->err);
}

static const char sql_put_tag[] =
    "INSERT INTO tag (repository_id, name, digest, updated_at, since) VALUES ($1, $2, $3, $4, $5)";

static int put_tag(struct side *side, int64_t repository, const struct entry *entry)
{
    struct call *call = &side->call;
    auto_stmt stmt = db_stmt(call->db, sql_put_tag);
    db_bind_int(stmt, 1, repository);
    db_bind_text(stmt, 2, entry->key);
    db_bind_text(stmt, 3, entry->text);
    db_bind_int(stmt, 4, entry->at.us);
    db_bind_int(stmt, 5, side->snapshot);
    return db_run(stmt, &call->err);
}

static int put(struct side *side, enum entry_kind kind, int64_t repository,
               const struct entry *entry)
{
    switch (kind) {
    case ENTRY_LINK:
        return put_link(side, repository, entry);
    case ENTRY_MANIFEST:
        return put_manifest(side, repository, entry);
    case ENTRY_TAG:
        break;
    }
    return put_tag(side, repository, entry);
}

/* ---- Bytes ---- */

static const char sql_blob_find[] = "SELECT 1 FROM blob WHERE digest = $1 AND stored = 1";

static int blob_find(struct call *call, const struct oci_digest *digest, bool *ret_found)
{
    auto_stmt stmt = db_stmt(call->db, sql_blob_find);
    db_bind_text(stmt, 1, oci_digest_text(&call->arena, digest));
    return db_step(stmt, ret_found, &call->err);
}

static const char sql_blob_adopt[] = "UPDATE blob SET stored = 1 WHERE digest = $1";

static int blob_adopt(struct call *call, const struct blob_ref *blob, struct wall_us made,
                      struct str *ret_location)
{
    (void)made;
    auto_stmt stmt = db_stmt(call->db, sql_blob_adopt);
    db_bind_text(stmt, 1, oci_digest_text(&call->arena, &blob->digest));
    *ret_location = STR(""); /* files are found by their digest */
    return db_run(stmt, &call->err);
}

const struct side_kind side_backup = {
    .names_places = true,
    .repository_next = repository_next,
    .list = list,
    .content = content,
    .repository_put = repository_put,
    .repository_remove = repository_remove,
    .put = put,
    .remove = remove_entry,
    .blob_find = blob_find,
    .blob_adopt = blob_adopt,
};
