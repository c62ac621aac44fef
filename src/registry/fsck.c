/* Compares the database with the blob store, and mends.
 *
 * A blob whose bytes are gone or broken has lost them already: repairing means that its row goes,
 * so that clients see that it is missing and the next push brings it back. Manifests are never
 * touched. Bytes that no row names come back into the repositories whose manifests need them. */
#include "registry/registry_int.h"

#include <stdarg.h>
#include <stdio.h>

#define BATCH 256

struct work {
    struct call *call;
    struct registry *registry;
    const struct registry_fsck *fsck;
    uint64_t wrong;
    uint64_t done;
    uint64_t total;
};

static void report(struct work *work, enum registry_finding finding, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
static void report(struct work *work, enum registry_finding finding, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    work->wrong += finding == REGISTRY_WRONG;
    work->fsck->found(work->fsck->context, finding, text);
}

static void advance(struct work *work, const char *stage, uint64_t by)
{
    work->done += by;
    work->fsck->progress(work->fsck->context, stage, work->done, work->total);
}

static void start_stage(struct work *work, uint64_t total)
{
    work->done = 0;
    work->total = total;
}

/* ---- The database's own files ---- */

static void report_database(void *context, const char *complaint)
{
    report(context, REGISTRY_WRONG, "database: %s", complaint);
}

/* ---- Rows of blobs: are the bytes there? ---- */

static struct blob_ref ref_of(const struct meta_blob_row *row)
{
    return (struct blob_ref){.digest = row->digest, .size = row->size, .location = row->location};
}

/* Says in `trouble` what is wrong with the bytes of a row; an empty text when nothing is. */
static int examine(struct work *work, const struct meta_blob_row *row, char *trouble, size_t n)
{
    struct err *err = &work->call->err;
    struct blob_ref blob = ref_of(row);
    uint64_t size;
    trouble[0] = '\0';
    if (blob_stat(work->registry->blobs, &blob, &size, err) < 0) {
        if (err->kind != ERR_NOT_FOUND)
            return -1;
        (void)snprintf(trouble, n, "its bytes are missing");
        return 0;
    }
    if (size != row->size) {
        (void)snprintf(trouble, n, "it has %llu bytes, and should have %llu",
                       (unsigned long long)size, (unsigned long long)row->size);
        return 0;
    }
    bool same = true;
    if (work->fsck->deep && blob_verify(work->registry->blobs, &blob, &same, err) < 0)
        return -1;
    if (!same)
        (void)snprintf(trouble, n, "its bytes are not what its digest says");
    return 0;
}

static int delete_row(struct call *call, void *context)
{
    const struct meta_blob_row *row = context;
    return meta_blob_delete(call, row->id);
}

static int remove_blob(struct work *work, struct meta_blob_row *row)
{
    struct blob_ref blob = ref_of(row);
    if (db_transact(work->call, work->registry->db, delete_row, row) < 0)
        return -1;
    return blob_delete(work->registry->blobs, &blob, 1, &work->call->err);
}

/* Where others serve meanwhile, the row may have gone before its bytes, a moment ago. */
static int is_still_there(struct work *work, const struct meta_blob_row *row, bool *ret)
{
    auto_read held = work->call;
    struct meta_blob blob;
    if (registry_begin_read(work->call, work->registry) < 0 ||
        meta_blob_find_row(work->call, &row->digest, &blob, ret) < 0)
        return -1;
    *ret = *ret && blob.id == row->id;
    return 0;
}

static int check_row(struct work *work, struct meta_blob_row *row)
{
    char digest[OCI_DIGEST_TEXT_MAX + 1];
    (void)oci_digest_format(&row->digest, digest);
    char trouble[128];
    bool there = true;
    if (examine(work, row, trouble, sizeof(trouble)) < 0 ||
        (trouble[0] != '\0' && is_still_there(work, row, &there) < 0))
        return -1;
    bool repair = work->fsck->repair;
    if (trouble[0] != '\0' && there) {
        if (repair && remove_blob(work, row) < 0)
            return -1;
        report(work, repair ? REGISTRY_REPAIRED : REGISTRY_WRONG, "blob %s: %s%s", digest, trouble,
               repair ? "; its entry is removed, the next push brings it back" : "");
    } else if (there && !row->linked) {
        if (repair && remove_blob(work, row) < 0)
            return -1;
        report(work, repair ? REGISTRY_FREED : REGISTRY_LEFTOVER,
               "blob %s: no repository has it any more (%llu bytes)", digest,
               (unsigned long long)row->size);
    }
    advance(work, "blobs", work->fsck->deep ? row->size : 1);
    return 0;
}

static int read_rows(struct work *work, int64_t after, struct meta_blob_row *rows, size_t *n)
{
    auto_read held = work->call;
    if (registry_begin_read(work->call, work->registry) < 0)
        return -1;
    return meta_blob_rows(work->call, after, BATCH, rows, n);
}

static int check_blobs(struct work *work, const struct registry_totals *totals)
{
    auto_mem struct meta_blob_row *rows = mem_alloc(BATCH * sizeof(*rows));
    int64_t after = 0;
    size_t n;
    start_stage(work, work->fsck->deep ? totals->blob_bytes : totals->blobs);
    do {
        if (read_rows(work, after, rows, &n) < 0)
            return -1;
        for (size_t i = 0; i < n; i++)
            if (check_row(work, &rows[i]) < 0)
                return -1;
        if (n > 0)
            after = rows[n - 1].id;
    } while (n == BATCH);
    return 0;
}

/* ---- Files: does a row name them? ---- */

struct found_file {
    const struct oci_digest *digest;
    uint64_t size;
    bool known;
    bool needed;
    struct meta_dependent dependent; /* when it is needed */
};

/* Bytes without a row that a manifest needs: records and links them where they are needed. */
static int bring_back(struct call *call, void *context)
{
    const struct found_file *file = context;
    struct meta_blob blob;
    if (meta_blob_adopt(call, file->digest, file->size, STR(""), clock_wall(), &blob) < 0)
        return -1;
    struct meta_dependent dependent = {0};
    for (;;) {
        bool more;
        if (meta_dependent_next(call, dependent.repository_id, file->digest, &dependent, &more) < 0)
            return -1;
        if (!more)
            return 0;
        if (meta_blob_link(call, dependent.repository_id, blob.id, clock_wall()) < 0)
            return -1;
    }
}

static int find_row(struct work *work, struct found_file *file)
{
    auto_read held = work->call;
    struct meta_blob blob;
    if (registry_begin_read(work->call, work->registry) < 0 ||
        meta_blob_find_row(work->call, file->digest, &blob, &file->known) < 0)
        return -1;
    return file->known
               ? 0
               : meta_dependent_next(work->call, 0, file->digest, &file->dependent, &file->needed);
}

static int check_file(struct work *work, const struct oci_digest *digest, uint64_t size,
                      struct err *err)
{
    bool repair = work->fsck->repair;
    struct found_file file = {.digest = digest, .size = size};
    if (find_row(work, &file) < 0)
        return -1;
    if (file.known)
        return 0;

    char text[OCI_DIGEST_TEXT_MAX + 1];
    (void)oci_digest_format(digest, text);
    struct blob_ref blob = {.digest = *digest, .size = size};
    bool whole = true;
    if (file.needed && blob_verify(work->registry->blobs, &blob, &whole, err) < 0)
        return -1;
    if (file.needed && whole) {
        if (repair && db_transact(work->call, work->registry->db, bring_back, &file) < 0)
            return -1;
        report(work, repair ? REGISTRY_REPAIRED : REGISTRY_WRONG,
               "blob %s: it is stored and manifest " STR_FMT " of \"" STR_FMT
               "\" needs it, but the database does not know it",
               text, STR_ARG(file.dependent.manifest),
               STR_ARG(str_first(file.dependent.repository, 255)));
        return 0;
    }
    if (repair && blob_delete(work->registry->blobs, &blob, 1, err) < 0)
        return -1;
    report(work, repair ? REGISTRY_FREED : REGISTRY_LEFTOVER,
           "blob %s: stored, and needed by nothing (%llu bytes)", text, (unsigned long long)size);
    return 0;
}

/* An object whose key does not tell its digest: a blob, staged, or left over. */
static int check_object(struct work *work, struct str location, uint64_t size,
                        struct wall_us changed, struct err *err)
{
    bool known;
    {
        auto_read held = work->call;
        if (registry_begin_read(work->call, work->registry) < 0 ||
            meta_location_find(work->call, location, &known) < 0)
            return -1;
    }
    /* What came lately may be on its way to its row, unless nobody serves. */
    bool fresh = changed.us > clock_wall().us - work->registry->expire_us;
    if (known || (fresh && !work->registry->alone))
        return 0;
    bool repair = work->fsck->repair;
    struct blob_ref blob = {.size = size, .location = location};
    if (repair && blob_delete(work->registry->blobs, &blob, 1, err) < 0)
        return -1;
    report(work, repair ? REGISTRY_FREED : REGISTRY_LEFTOVER,
           "object " STR_FMT ": stored, and named by nothing (%llu bytes)",
           STR_ARG(str_first(location, BLOB_LOCATION_BYTES_MAX)), (unsigned long long)size);
    return 0;
}

static int check_bytes(void *context, const struct oci_digest *digest, struct str location,
                       uint64_t size, struct wall_us changed, struct err *err)
{
    struct work *work = context;
    advance(work, "files", 1);
    return digest != NULL ? check_file(work, digest, size, err)
                          : check_object(work, location, size, changed, err);
}

static int check_staged(void *context, struct str id, struct str stage, uint64_t size,
                        struct wall_us changed, struct err *err)
{
    struct work *work = context;
    bool known;
    {
        auto_read held = work->call;
        if (registry_begin_read(work->call, work->registry) < 0 ||
            meta_upload_exists(work->call, id, &known) < 0)
            return -1;
    }
    bool fresh = changed.us > clock_wall().us - work->registry->expire_us;
    if (known || (fresh && !work->registry->alone))
        return 0;
    bool repair = work->fsck->repair;
    if (repair && blob_upload_discard(work->registry->blobs, id, stage, STR(""), err) < 0)
        return -1;
    report(work, repair ? REGISTRY_FREED : REGISTRY_LEFTOVER,
           "upload " STR_FMT ": staged bytes of a push that broke off (%llu bytes)", STR_ARG(id),
           (unsigned long long)size);
    return 0;
}

static int check_stray(void *context, const char *path, struct err *err)
{
    (void)err;
    report(context, REGISTRY_WRONG, "file %s: not made by holdfast; remove it by hand", path);
    return 0;
}

/* ---- Manifests: are they what they say, and whole? ---- */

static int check_references(struct work *work, const struct meta_manifest_row *row,
                            const struct oci_manifest *manifest)
{
    for (size_t i = 0; i < manifest->n_references; i++) {
        const struct oci_descriptor *wanted = &manifest->references[i];
        uint64_t size;
        bool found;
        if (meta_content_find(work->call, row->repository_id, wanted->kind, &wanted->digest, &size,
                              &found) < 0)
            return -1;
        if (!found)
            report(work, REGISTRY_WRONG,
                   "manifest " STR_FMT " of \"" STR_FMT "\": it needs " STR_FMT
                   ", which is missing; push the image again",
                   STR_ARG(row->digest), STR_ARG(str_first(row->repository, 255)),
                   STR_ARG(oci_digest_text(&work->call->arena, &wanted->digest)));
    }
    return 0;
}

static int check_manifest(struct work *work, const struct meta_manifest_row *row)
{
    struct oci_digest digest;
    struct oci_digest actual;
    struct oci_manifest manifest;
    struct err why;
    const char *trouble = NULL;
    if (oci_digest_parse(row->digest, &digest, &why) < 0)
        trouble = "its digest is not one";
    else {
        actual = oci_digest_of(digest.algorithm, row->content);
        if (!oci_digest_eq(&actual, &digest))
            trouble = "its bytes are not what its digest says; delete it and push it again";
        else if (oci_manifest_parse(&work->call->arena, row->media_type, row->content, &manifest,
                                    &why) < 0)
            trouble = why.say;
    }
    if (trouble == NULL)
        return check_references(work, row, &manifest);
    report(work, REGISTRY_WRONG, "manifest " STR_FMT " of \"" STR_FMT "\": %s",
           STR_ARG(row->digest), STR_ARG(str_first(row->repository, 255)), trouble);
    return 0;
}

static int check_manifests(struct work *work, uint64_t total)
{
    int64_t after = 0;
    bool more = true;
    start_stage(work, total);
    while (more) {
        auto_read held = work->call;
        struct meta_manifest_row row;
        if (registry_begin_read(work->call, work->registry) < 0 ||
            db_snapshot(work->call->db, &work->call->err) < 0 || /* it and what it needs */
            meta_manifest_next(work->call, after, &row, &more) < 0)
            return -1;
        if (more && check_manifest(work, &row) < 0)
            return -1;
        if (more) {
            after = row.id;
            advance(work, "manifests", 1);
        }
        arena_done(&work->call->arena); /* each manifest may be megabytes */
    }
    return 0;
}

/* ---- Rows of uploads: are their bytes there? ---- */

static int delete_upload(struct call *call, void *context)
{
    const struct str *id = context;
    return meta_upload_delete_stale(call, *id, (struct wall_us){INT64_MAX},
                                    (struct wall_us){INT64_MAX});
}

static int check_upload(struct work *work, struct str id, const struct meta_upload *row)
{
    struct err *err = &work->call->err;
    struct blob_upload *held = NULL;
    int done = blob_upload_hold(work->registry->blobs, id, &held, err);
    auto_upload upload = held;
    if (done == 0 &&
        blob_upload_resume(upload, row->received, row->hash_state, row->stage, err) == 0)
        return 0;
    bool gone = err->kind == ERR_NOT_FOUND; /* a crash came just before its end */
    if (!gone && err->kind != ERR_CORRUPT && err->kind != ERR_INVALID)
        return -1;
    bool repair = work->fsck->repair;
    if (repair && db_transact(work->call, work->registry->db, delete_upload, &id) < 0)
        return -1;
    if (gone)
        report(work, repair ? REGISTRY_FREED : REGISTRY_LEFTOVER,
               "upload " STR_FMT ": its bytes became a blob, or were removed",
               STR_ARG(str_first(id, 64)));
    else
        report(work, repair ? REGISTRY_REPAIRED : REGISTRY_WRONG,
               "upload " STR_FMT ": the %llu bytes that were acknowledged are not there",
               STR_ARG(str_first(id, 64)), (unsigned long long)row->received);
    return 0;
}

static int check_uploads(struct work *work, uint64_t total)
{
    struct str id = STR("");
    start_stage(work, total);
    while (work->registry->alone) { /* else what is read here has changed by the time it is asked */
        struct meta_upload row;
        bool more;
        {
            auto_read held = work->call;
            if (registry_begin_read(work->call, work->registry) < 0 ||
                meta_upload_next(work->call, id, (struct wall_us){INT64_MAX}, &id, &row, &more) < 0)
                return -1;
        }
        if (!more)
            return 0;
        if (check_upload(work, id, &row) < 0)
            return -1;
        advance(work, "uploads", 1);
    }
    return 0;
}

int registry_fsck(struct call *call, struct registry *registry, const struct registry_fsck *fsck,
                  uint64_t *ret_wrong)
{
    struct work work = {.call = call, .registry = registry, .fsck = fsck};
    static const struct blob_walk files = {
        .blob = check_bytes, .upload = check_staged, .stray = check_stray};
    struct registry_totals totals;
    start_stage(&work, 1);
    if (db_verify(registry->db, report_database, &work, &call->err) < 0)
        return -1;
    advance(&work, "database", 1);
    if (registry_totals(call, registry, &totals) < 0 || check_blobs(&work, &totals) < 0)
        return -1;
    start_stage(&work, totals.blobs);
    if (blob_walk(registry->blobs, &files, &work, &call->err) < 0 ||
        check_uploads(&work, totals.uploads) < 0 || check_manifests(&work, totals.manifests) < 0)
        return -1;
    *ret_wrong = work.wrong;
    return 0;
}
