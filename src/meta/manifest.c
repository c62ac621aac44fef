#include "meta/meta_int.h"

/* The content is last, and only where it is wanted: over a network it is what such a look-up costs.
 */
#define HEAD "SELECT m.id, m.digest, m.media_type, m.size"
#define BY_TAG                                                   \
    " FROM repository r"                                         \
    " LEFT JOIN tag t ON t.repository_id = r.id AND t.name = $2" \
    " LEFT JOIN manifest m ON m.id = t.manifest_id WHERE r.name = $1"
#define BY_DIGEST        \
    " FROM repository r" \
    " LEFT JOIN manifest m ON m.repository_id = r.id AND m.digest = $2 WHERE r.name = $1"

static const char sql_head_by_tag[] = HEAD BY_TAG;
static const char sql_head_by_digest[] = HEAD BY_DIGEST;
static const char sql_find_by_tag[] = HEAD ", m.content" BY_TAG;
static const char sql_find_by_digest[] = HEAD ", m.content" BY_DIGEST;

static const char *choose_find(bool by_digest, bool want_content)
{
    if (want_content)
        return by_digest ? sql_find_by_digest : sql_find_by_tag;
    return by_digest ? sql_head_by_digest : sql_head_by_tag;
}

int meta_manifest_find(struct call *call, const struct oci_name *repository,
                       const struct oci_reference *reference, bool want_content,
                       struct meta_manifest *ret, enum meta_found *ret_found)
{
    char text[OCI_DIGEST_TEXT_MAX + 1];
    auto_stmt stmt = db_stmt(call->db, choose_find(reference->is_digest, want_content));
    db_bind_text(stmt, 1, repository->text);
    if (reference->is_digest)
        meta_bind_digest(stmt, 2, &reference->digest, text);
    else
        db_bind_text(stmt, 2, reference->tag.text);
    bool row;
    if (db_step(stmt, &row, &call->err) < 0)
        return -1;
    *ret_found = meta_found_in(stmt, row);
    if (*ret_found == META_FOUND)
        *ret = (struct meta_manifest){
            .id = db_int(stmt, 0),
            .digest = str_dup(&call->arena, db_text(stmt, 1)),
            .media_type = str_dup(&call->arena, db_text(stmt, 2)),
            .size = (uint64_t)db_int(stmt, 3),
            .content = want_content ? str_dup(&call->arena, db_blob(stmt, 4)) : (struct str){0},
        };
    return 0;
}

static const char sql_insert[] =
    "INSERT INTO manifest (repository_id, digest, media_type, artifact_type, subject, annotations,"
    " pushed_at, size, content) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
    " ON CONFLICT (repository_id, digest) DO NOTHING";

static int insert(struct call *call, int64_t repository_id, const struct oci_digest *digest,
                  const struct oci_manifest *manifest, struct str content, struct wall_us at)
{
    char text[OCI_DIGEST_TEXT_MAX + 1];
    char subject[OCI_DIGEST_TEXT_MAX + 1];
    auto_stmt stmt = db_stmt(call->db, sql_insert);
    db_bind_int(stmt, 1, repository_id);
    meta_bind_digest(stmt, 2, digest, text);
    db_bind_text(stmt, 3, manifest->media_type);
    db_bind_text(stmt, 4, manifest->artifact_type);
    if (manifest->has_subject)
        meta_bind_digest(stmt, 5, &manifest->subject, subject);
    db_bind_text(stmt, 6, manifest->annotations);
    db_bind_int(stmt, 7, at.us);
    db_bind_int(stmt, 8, (int64_t)content.n);
    db_bind_blob(stmt, 9, content);
    return db_queue(stmt, &call->err);
}

static const char sql_reference_add[] =
    "INSERT INTO manifest_reference (repository_id, digest, manifest_id) VALUES ($1, $2, $3)"
    " ON CONFLICT DO NOTHING";

static int add_references(struct call *call, int64_t repository_id, int64_t manifest_id,
                          const struct oci_descriptor *descriptors, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char text[OCI_DIGEST_TEXT_MAX + 1];
        auto_stmt stmt = db_stmt(call->db, sql_reference_add);
        db_bind_int(stmt, 1, repository_id);
        meta_bind_digest(stmt, 2, &descriptors[i].digest, text);
        db_bind_int(stmt, 3, manifest_id);
        if (db_queue(stmt, &call->err) < 0)
            return -1;
    }
    return 0;
}

static const char sql_id[] = "SELECT id FROM manifest WHERE repository_id = $1 AND digest = $2";

int meta_manifest_find_id(struct call *call, int64_t repository_id, const struct oci_digest *digest,
                          int64_t *ret_id, bool *ret_found)
{
    char text[OCI_DIGEST_TEXT_MAX + 1];
    auto_stmt stmt = db_stmt(call->db, sql_id);
    db_bind_int(stmt, 1, repository_id);
    meta_bind_digest(stmt, 2, digest, text);
    if (db_step(stmt, ret_found, &call->err) < 0)
        return -1;
    if (*ret_found)
        *ret_id = db_int(stmt, 0);
    return 0;
}

int meta_manifest_put(struct call *call, int64_t repository_id, const struct oci_digest *digest,
                      const struct oci_manifest *manifest, struct str content, struct wall_us at,
                      int64_t *ret_id)
{
    bool found;
    if (insert(call, repository_id, digest, manifest, content, at) < 0 ||
        meta_manifest_find_id(call, repository_id, digest, ret_id, &found) < 0)
        return -1;
    require(found); /* it was inserted, or conflicted, in this very transaction */
    /* Foreign layers that were pushed all the same are needed too. */
    if (add_references(call, repository_id, *ret_id, manifest->references, manifest->n_references) <
        0)
        return -1;
    return add_references(call, repository_id, *ret_id, manifest->foreign, manifest->n_foreign);
}

static const char sql_delete[] = "DELETE FROM manifest WHERE id = $1";

int meta_manifest_delete(struct call *call, int64_t id)
{
    auto_stmt stmt = db_stmt(call->db, sql_delete);
    db_bind_int(stmt, 1, id);
    return db_queue(stmt, &call->err);
}

static const char sql_needs[] =
    "SELECT f.digest, l.blob_id, b.size, m.size FROM manifest_reference f"
    " LEFT JOIN blob b ON b.digest = f.digest"
    " LEFT JOIN repository_blob l ON l.repository_id = $1 AND l.blob_id = b.id"
    " LEFT JOIN manifest m ON m.repository_id = $1 AND m.digest = f.digest"
    " WHERE f.manifest_id = $2 ORDER BY f.digest LIMIT $3";

static int read_need(struct call *call, struct db_stmt *stmt, void *rows, size_t i)
{
    ((struct meta_need *)rows)[i] = (struct meta_need){
        .digest = str_dup(&call->arena, db_text(stmt, 0)),
        .is_blob = !db_is_null(stmt, 1),
        .is_manifest = !db_is_null(stmt, 3),
        .blob_size = (uint64_t)db_int(stmt, 2),
        .manifest_size = (uint64_t)db_int(stmt, 3),
    };
    return 0;
}

int meta_need_list(struct call *call, int64_t repository_id, int64_t manifest_id, size_t limit,
                   struct meta_need *ret, size_t *ret_n)
{
    auto_stmt stmt = db_stmt(call->db, sql_needs);
    db_bind_int(stmt, 1, repository_id);
    db_bind_int(stmt, 2, manifest_id);
    db_bind_int(stmt, 3, (int64_t)limit);
    return db_read_rows(call, stmt, limit, read_need, ret, ret_n);
}

static const char sql_blob_size[] = "SELECT b.size FROM blob b JOIN repository_blob l"
                                    " ON l.repository_id = $1 AND l.blob_id = b.id"
                                    " WHERE b.digest = $2";
static const char sql_manifest_size[] =
    "SELECT size FROM manifest WHERE repository_id = $1 AND digest = $2";

int meta_content_find(struct call *call, int64_t repository_id, enum oci_reference_kind kind,
                      const struct oci_digest *digest, uint64_t *ret_size, bool *ret_found)
{
    const char *const sources[] = {sql_blob_size, sql_manifest_size};
    size_t n_sources = kind == OCI_REFERENCE_CHILD ? 2 : 1;
    *ret_found = false;
    for (size_t i = 0; i < n_sources && !*ret_found; i++) {
        char text[OCI_DIGEST_TEXT_MAX + 1];
        auto_stmt stmt = db_stmt(call->db, sources[i]);
        db_bind_int(stmt, 1, repository_id);
        meta_bind_digest(stmt, 2, digest, text);
        if (db_step(stmt, ret_found, &call->err) < 0)
            return -1;
        if (*ret_found)
            *ret_size = (uint64_t)db_int(stmt, 0);
    }
    return 0;
}

static const char sql_dependent[] =
    "SELECT m.digest FROM manifest_reference f JOIN manifest m ON m.id = f.manifest_id"
    " WHERE f.repository_id = $1 AND f.digest = $2 LIMIT 1";

int meta_dependent_find(struct call *call, int64_t repository_id, const struct oci_digest *digest,
                        struct str *ret_dependent, bool *ret_found)
{
    char text[OCI_DIGEST_TEXT_MAX + 1];
    auto_stmt stmt = db_stmt(call->db, sql_dependent);
    db_bind_int(stmt, 1, repository_id);
    meta_bind_digest(stmt, 2, digest, text);
    if (db_step(stmt, ret_found, &call->err) < 0)
        return -1;
    if (*ret_found)
        *ret_dependent = str_dup(&call->arena, db_text(stmt, 0));
    return 0;
}

static const char sql_referrers[] =
    "SELECT media_type, digest, size, artifact_type, annotations FROM manifest"
    " WHERE repository_id = $1 AND subject = $2 AND digest > $3 ORDER BY digest LIMIT $4";
#define REFERRERS_AT_ONCE 200 /* an engine may hold all rows of a statement in memory */

/* One page; *last is the digest it ends with. *ret_more: there may be another. */
static int list_referrers(struct call *call, int64_t repository_id,
                          const struct oci_digest *subject, char last[OCI_DIGEST_TEXT_MAX + 1],
                          bool (*each)(void *context, const struct oci_referrer *referrer),
                          void *context, bool *ret_stopped, bool *ret_more)
{
    char text[OCI_DIGEST_TEXT_MAX + 1];
    auto_stmt stmt = db_stmt(call->db, sql_referrers);
    db_bind_int(stmt, 1, repository_id);
    meta_bind_digest(stmt, 2, subject, text);
    db_bind_text(stmt, 3, str_dup(&call->arena, str_from(last)));
    db_bind_int(stmt, 4, REFERRERS_AT_ONCE);
    int n = 0;
    *ret_stopped = false;
    for (bool row = true; !*ret_stopped; n++) {
        if (db_step(stmt, &row, &call->err) < 0)
            return -1;
        if (!row)
            break;
        struct str digest = db_text(stmt, 1);
        require(digest.n <= OCI_DIGEST_TEXT_MAX);
        memcpy(last, digest.p, digest.n);
        last[digest.n] = '\0';
        *ret_stopped = !each(context, &(struct oci_referrer){
                                          .media_type = db_text(stmt, 0),
                                          .digest = digest,
                                          .size = (uint64_t)db_int(stmt, 2),
                                          .artifact_type = db_text(stmt, 3),
                                          .annotations = db_text(stmt, 4),
                                      });
    }
    *ret_more = n == REFERRERS_AT_ONCE;
    return 0;
}

int meta_referrer_list(struct call *call, int64_t repository_id, const struct oci_digest *subject,
                       struct str after,
                       bool (*each)(void *context, const struct oci_referrer *referrer),
                       void *context, bool *ret_stopped)
{
    char last[OCI_DIGEST_TEXT_MAX + 1] = "";
    bool more = true;
    if (after.n > OCI_DIGEST_TEXT_MAX) /* no digest comes after it that does not begin like it */
        after.n = OCI_DIGEST_TEXT_MAX;
    if (after.n > 0)
        memcpy(last, after.p, after.n);
    *ret_stopped = false;
    while (more && !*ret_stopped)
        if (list_referrers(call, repository_id, subject, last, each, context, ret_stopped, &more) <
            0)
            return -1;
    return 0;
}

static const char sql_next[] =
    "SELECT m.id, m.repository_id, r.name, m.digest, m.media_type, m.content"
    " FROM manifest m JOIN repository r ON r.id = m.repository_id"
    " WHERE m.id > $1 ORDER BY m.id LIMIT 1";

int meta_manifest_next(struct call *call, int64_t after_id, struct meta_manifest_row *ret,
                       bool *ret_found)
{
    auto_stmt stmt = db_stmt(call->db, sql_next);
    db_bind_int(stmt, 1, after_id);
    if (db_step(stmt, ret_found, &call->err) < 0)
        return -1;
    if (*ret_found)
        *ret = (struct meta_manifest_row){
            .id = db_int(stmt, 0),
            .repository_id = db_int(stmt, 1),
            .repository = str_dup(&call->arena, db_text(stmt, 2)),
            .digest = str_dup(&call->arena, db_text(stmt, 3)),
            .media_type = str_dup(&call->arena, db_text(stmt, 4)),
            .content = str_dup(&call->arena, db_blob(stmt, 5)),
        };
    return 0;
}

static const char sql_dependents[] =
    "SELECT f.repository_id, r.name, m.digest FROM manifest_reference f"
    " JOIN repository r ON r.id = f.repository_id JOIN manifest m ON m.id = f.manifest_id"
    " WHERE f.repository_id > $1 AND f.digest = $2 ORDER BY f.repository_id LIMIT 1";

int meta_dependent_next(struct call *call, int64_t after_repository,
                        const struct oci_digest *digest, struct meta_dependent *ret,
                        bool *ret_found)
{
    char text[OCI_DIGEST_TEXT_MAX + 1];
    auto_stmt stmt = db_stmt(call->db, sql_dependents);
    db_bind_int(stmt, 1, after_repository);
    meta_bind_digest(stmt, 2, digest, text);
    if (db_step(stmt, ret_found, &call->err) < 0)
        return -1;
    if (*ret_found)
        *ret = (struct meta_dependent){
            .repository_id = db_int(stmt, 0),
            .repository = str_dup(&call->arena, db_text(stmt, 1)),
            .manifest = str_dup(&call->arena, db_text(stmt, 2)),
        };
    return 0;
}
