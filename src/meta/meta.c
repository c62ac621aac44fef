#include "meta/meta_int.h"

/* Made from migrations/ by tools/embed.py. */
extern const struct db_migration meta_migrations[];
extern const size_t meta_n_migrations;

int meta_migrate(struct db *db, struct err *err)
{
    if (db_migrate(db, meta_migrations, meta_n_migrations, err) == 0)
        return 0;
    if (err->kind == ERR_IO && db_is_remote(db)) /* the server's refusals are among these */
        return err_why(err, "a user who may not change tables needs their owner to run "
                            "\"holdfast upgrade\" first");
    return -1;
}

int meta_check(struct db *db, struct err *err)
{
    int64_t version;
    if (db_version(db, &version, err) < 0)
        return -1;
    if (version == (int64_t)meta_n_migrations)
        return 0;
    if (version == 0)
        return err_set(err, ERR_NOT_FOUND, "there is no registry in this database");
    return err_set(err, ERR_UNSUPPORTED,
                   "the database has schema version %lld, this program works with version %zu; "
                   "serve the registry with this program once, which brings it up to date",
                   (long long)version, meta_n_migrations);
}

int meta_each_text(struct call *call, struct db_stmt *stmt, meta_text_fn each, void *context)
{
    for (;;) {
        bool row;
        if (db_step(stmt, &row, &call->err) < 0)
            return -1;
        if (!row)
            return 0;
        if (each(context, db_text(stmt, 0), &call->err) < 0)
            return -1;
    }
}

enum meta_found meta_found_in(struct db_stmt *stmt, bool row)
{
    if (!row)
        return META_NO_REPOSITORY;
    return db_is_null(stmt, 0) ? META_NOTHING : META_FOUND;
}

void meta_bind_digest(struct db_stmt *stmt, int parameter, const struct oci_digest *digest,
                      char text[OCI_DIGEST_TEXT_MAX + 1])
{
    db_bind_text(stmt, parameter, oci_digest_format(digest, text));
}

static const char sql_identity[] = "SELECT id, origin FROM identity";

int meta_identity(struct call *call, struct str *ret_id, struct str *ret_origin)
{
    auto_stmt stmt = db_stmt(call->db, sql_identity);
    bool row;
    if (db_step(stmt, &row, &call->err) < 0)
        return -1;
    if (!row)
        return err_set(&call->err, ERR_CORRUPT, "table identity is empty");
    *ret_id = str_dup(&call->arena, db_text(stmt, 0));
    *ret_origin = str_dup(&call->arena, db_text(stmt, 1));
    return 0;
}

static const char sql_identity_set[] = "UPDATE identity SET id = $1, origin = $2";

int meta_identity_set(struct call *call, struct str id, struct str origin)
{
    auto_stmt stmt = db_stmt(call->db, sql_identity_set);
    db_bind_text(stmt, 1, id);
    db_bind_text(stmt, 2, origin);
    return db_queue(stmt, &call->err);
}

static const char sql_totals[] =
    "SELECT max(CASE name WHEN 'repositories' THEN value END),"
    " max(CASE name WHEN 'blobs' THEN value END), max(CASE name WHEN 'blob_bytes' THEN value END),"
    " max(CASE name WHEN 'manifests' THEN value END), max(CASE name WHEN 'tags' THEN value END),"
    " max(CASE name WHEN 'uploads' THEN value END) FROM total_now";

int meta_totals(struct call *call, struct meta_totals *ret)
{
    auto_stmt stmt = db_stmt(call->db, sql_totals);
    bool row;
    if (db_step(stmt, &row, &call->err) < 0)
        return -1;
    *ret = (struct meta_totals){
        .repositories = (uint64_t)db_int(stmt, 0),
        .blobs = (uint64_t)db_int(stmt, 1),
        .blob_bytes = (uint64_t)db_int(stmt, 2),
        .manifests = (uint64_t)db_int(stmt, 3),
        .tags = (uint64_t)db_int(stmt, 4),
        .uploads = (uint64_t)db_int(stmt, 5),
    };
    return 0;
}

static const char sql_fold_take[] = "DELETE FROM total RETURNING name, value";
static const char sql_fold_put[] = "INSERT INTO total (name, value) VALUES ($1, $2)";

struct sum {
    struct str name;
    int64_t value;
};
#define SUMS_MAX 16 /* names that the triggers count */

static int take_sums(struct call *call, struct sum sums[SUMS_MAX], size_t *ret_n)
{
    auto_stmt stmt = db_stmt(call->db, sql_fold_take);
    size_t n = 0;
    for (;;) {
        bool row;
        if (db_step(stmt, &row, &call->err) < 0)
            return -1;
        if (!row)
            break;
        struct str name = db_text(stmt, 0);
        size_t i = 0;
        while (i < n && !str_eq(sums[i].name, name))
            i++;
        if (i == SUMS_MAX)
            return err_set(&call->err, ERR_CORRUPT, "table total has too many names");
        if (i == n)
            sums[n++] = (struct sum){.name = str_dup(&call->arena, name)};
        sums[i].value += db_int(stmt, 1);
    }
    *ret_n = n;
    return 0;
}

int meta_totals_fold(struct call *call)
{
    struct sum sums[SUMS_MAX];
    size_t n;
    if (take_sums(call, sums, &n) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        auto_stmt stmt = db_stmt(call->db, sql_fold_put);
        db_bind_text(stmt, 1, sums[i].name);
        db_bind_int(stmt, 2, sums[i].value);
        if (db_queue(stmt, &call->err) < 0)
            return -1;
    }
    return 0;
}
