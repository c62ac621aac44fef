#include "meta/meta_int.h"

/* Made from migrations/ by tools/embed.py. */
extern const struct db_migration meta_migrations[];
extern const size_t meta_n_migrations;

int meta_migrate(struct db *db, struct err *err)
{
    return db_migrate(db, meta_migrations, meta_n_migrations, err);
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

void meta_bind_digest(struct db_stmt *stmt, int parameter, const struct oci_digest *digest,
                      char text[OCI_DIGEST_TEXT_MAX + 1])
{
    db_bind_text(stmt, parameter, oci_digest_format(digest, text));
}

static const char sql_totals[] =
    "SELECT max(CASE name WHEN 'repositories' THEN value END),"
    " max(CASE name WHEN 'blobs' THEN value END), max(CASE name WHEN 'blob_bytes' THEN value END),"
    " max(CASE name WHEN 'manifests' THEN value END), max(CASE name WHEN 'tags' THEN value END),"
    " max(CASE name WHEN 'uploads' THEN value END) FROM total";

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
