#include "registry/registry_int.h"

struct registry_upload {
    struct registry *registry; /* borrowed */
    struct blob_upload *blob;  /* owned; the exclusive hold */
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    char repository[OCI_NAME_BYTES_MAX + 1];
    bool recorded; /* has a row, and can be taken up again */
};

static struct registry_upload *upload_new(struct registry *registry, const struct oci_name *name)
{
    struct registry_upload *upload = mem_zalloc(sizeof(*upload));
    upload->registry = registry;
    require(name->text.n < sizeof(upload->repository));
    memcpy(upload->repository, name->text.p, name->text.n);
    return upload;
}

static void upload_close_auto(struct registry_upload **upload)
{
    registry_upload_close(*upload);
}
#define auto_registry_upload __attribute__((cleanup(upload_close_auto))) struct registry_upload *

/* What stays behind when this fails is found again by its age. */
static void discard(struct registry_upload *upload)
{
    struct err err;
    if (blob_upload_discard(upload->registry->blobs, registry_upload_id(upload), &err) < 0)
        log_err(LOG_LEVEL_WARN, "could not remove the bytes of an upload that is over", &err);
}

void registry_upload_close(struct registry_upload *upload)
{
    if (upload == NULL)
        return;
    if (!upload->recorded && upload->blob != NULL) /* over, or broken off for good */
        discard(upload);
    blob_upload_close(upload->blob);
    free(upload);
}

struct str registry_upload_id(const struct registry_upload *upload)
{
    return (struct str){upload->id, BLOB_UPLOAD_ID_BYTES};
}

uint64_t registry_upload_received(const struct registry_upload *upload)
{
    return blob_upload_offset(upload->blob);
}

int registry_upload_start_whole(struct call *call, struct registry *registry,
                                const struct oci_name *name, enum hash_algorithm algorithm,
                                struct registry_upload **ret)
{
    auto_registry_upload upload = upload_new(registry, name);
    if (blob_upload_create(registry->blobs, algorithm, upload->id, &upload->blob, &call->err) < 0)
        return -1;
    *ret = TAKE(upload);
    return 0;
}

static int record(struct call *call, struct registry_upload *upload)
{
    uint8_t state[HASH_SAVED_BYTES_MAX];
    struct str saved = {(char *)state, blob_upload_hash_state(upload->blob, state)};
    struct oci_name name = {str_from(upload->repository)};
    auto_tx tx = call;
    int64_t repository;
    if (registry_begin_write(call, upload->registry) < 0 ||
        meta_repository_ensure(call, &name, &repository) < 0 ||
        meta_upload_insert(call, repository, registry_upload_id(upload), saved) < 0)
        return -1;
    return registry_commit(call);
}

int registry_upload_start(struct call *call, struct registry *registry, const struct oci_name *name,
                          enum hash_algorithm algorithm, struct registry_upload **ret)
{
    auto_registry_upload upload = NULL;
    if (registry_upload_start_whole(call, registry, name, algorithm, &upload) < 0)
        return -1;
    if (record(call, upload) < 0)
        return -1;
    upload->recorded = true;
    *ret = TAKE(upload);
    return 0;
}

static int unknown(struct call *call, struct str id)
{
    return err_code(&call->err, ERR_NOT_FOUND, OCI_BLOB_UPLOAD_UNKNOWN,
                    "upload \"" STR_FMT "\" is not known in this repository: it was finished, "
                    "cancelled, or expired",
                    STR_ARG(str_first(id, BLOB_UPLOAD_ID_BYTES)));
}

static int find_row(struct call *call, struct registry *registry, const struct oci_name *name,
                    struct str id, struct meta_upload *ret)
{
    auto_tx tx = call;
    bool found;
    if (registry_begin_read(call, registry) < 0 ||
        meta_upload_find(call, name, id, ret, &found) < 0)
        return -1;
    return found ? 0 : unknown(call, id);
}

int registry_upload_open(struct call *call, struct registry *registry, const struct oci_name *name,
                         struct str id, struct registry_upload **ret)
{
    auto_registry_upload upload = upload_new(registry, name);
    upload->recorded = true;
    if (blob_upload_hold(registry->blobs, id, &upload->blob, &call->err) < 0)
        return call->err.kind == ERR_NOT_FOUND || call->err.kind == ERR_INVALID ? unknown(call, id)
                                                                                : -1;
    memcpy(upload->id, id.p, BLOB_UPLOAD_ID_BYTES); /* the store knows it: so long it is */

    /* Looked up with the hold taken: nobody acknowledges more of it now. */
    struct meta_upload row;
    if (find_row(call, registry, name, id, &row) < 0 ||
        blob_upload_resume(upload->blob, row.received, row.hash_state, &call->err) < 0)
        return -1;
    *ret = TAKE(upload);
    return 0;
}

int registry_upload_status(struct call *call, struct registry *registry,
                           const struct oci_name *name, struct str id, uint64_t *ret_received)
{
    struct meta_upload row;
    if (find_row(call, registry, name, id, &row) < 0)
        return -1;
    *ret_received = row.received;
    return 0;
}

int registry_upload_write(struct call *call, struct registry_upload *upload, struct str piece)
{
    return blob_upload_write(upload->blob, piece.p, piece.n, &call->err);
}

int registry_upload_save(struct call *call, struct registry_upload *upload)
{
    if (blob_upload_sync(upload->blob, &call->err) < 0)
        return -1;
    crash_point("upload.synced");
    uint8_t state[HASH_SAVED_BYTES_MAX];
    struct str saved = {(char *)state, blob_upload_hash_state(upload->blob, state)};
    auto_tx tx = call;
    bool found;
    if (registry_begin_write(call, upload->registry) < 0 ||
        meta_upload_advance(call, registry_upload_id(upload), blob_upload_offset(upload->blob),
                            saved, &found) < 0)
        return -1;
    if (!found) /* it expired meanwhile */
        return unknown(call, registry_upload_id(upload));
    if (registry_commit(call) < 0)
        return -1;
    crash_point("upload.advanced");
    return 0;
}

static int delete_row(struct call *call, struct registry_upload *upload)
{
    return upload->recorded ? meta_upload_delete(call, registry_upload_id(upload)) : 0;
}

int registry_upload_cancel(struct call *call, struct registry_upload *upload)
{
    auto_tx tx = call;
    if (registry_begin_write(call, upload->registry) < 0 || delete_row(call, upload) < 0 ||
        registry_commit(call) < 0)
        return -1;
    upload->recorded = false;
    return 0;
}

static int adopt(struct call *call, struct registry_upload *upload, const struct oci_digest *digest,
                 uint64_t size)
{
    struct oci_name name = {str_from(upload->repository)};
    auto_tx tx = call;
    int64_t repository;
    int64_t blob;
    if (registry_begin_write(call, upload->registry) < 0 ||
        meta_repository_ensure(call, &name, &repository) < 0 ||
        meta_blob_adopt(call, digest, size, &blob) < 0 ||
        meta_blob_link(call, repository, blob) < 0 || delete_row(call, upload) < 0)
        return -1;
    return registry_commit(call);
}

int registry_upload_finish(struct call *call, struct registry_upload *upload,
                           const struct oci_digest *digest)
{
    uint64_t size = blob_upload_offset(upload->blob);
    if (blob_upload_commit(upload->blob, digest, &call->err) < 0) {
        if (call->err.kind == ERR_INVALID) {
            struct err why = call->err;
            if (registry_upload_cancel(call, upload) == 0)
                call->err = why;
        }
        return -1;
    }
    crash_point("upload.committed");
    if (adopt(call, upload, digest, size) < 0)
        return -1;
    upload->recorded = false;
    crash_point("upload.finished");
    return 0;
}

/* ---- Expiry ---- */

struct sweep {
    struct call *call;
    struct registry *registry;
    struct wall_us before;
    size_t n;
};

/* Forgets the upload, unless it was touched since. *ret_fresh: it was. */
static int forget_stale(struct sweep *sweep, struct str id, bool *ret_fresh)
{
    auto_tx tx = sweep->call;
    if (registry_begin_write(sweep->call, sweep->registry) < 0 ||
        meta_upload_delete_stale(sweep->call, id, sweep->before) < 0 ||
        meta_upload_exists(sweep->call, id, ret_fresh) < 0)
        return -1;
    return registry_commit(sweep->call);
}

/* Staged bytes that did not change for long: of an upload that was given up, or, without a row, of
 * a request that carried a whole blob and broke off. */
static int sweep_staged(void *context, struct str id, uint64_t size, struct wall_us changed,
                        struct err *err)
{
    struct sweep *sweep = context;
    (void)size;
    if (changed.us >= sweep->before.us)
        return 0;
    bool fresh;
    if (forget_stale(sweep, id, &fresh) < 0)
        return -1;
    if (fresh)
        return 0;
    sweep->n++;
    return blob_upload_discard(sweep->registry->blobs, id, err);
}

/* Rows whose bytes are gone: a crash came between the end of the bytes and that of the row. */
static int sweep_rows(struct sweep *sweep)
{
    struct str id = STR("");
    for (;;) {
        struct call *call = sweep->call;
        uint64_t received;
        bool more;
        {
            auto_tx tx = call;
            if (registry_begin_read(call, sweep->registry) < 0 ||
                meta_upload_next(call, id, sweep->before, &id, &received, &more) < 0)
                return -1;
        }
        if (!more)
            return 0;
        struct blob_upload *held = NULL;
        int found = blob_upload_hold(sweep->registry->blobs, id, &held, &call->err);
        blob_upload_close(held);
        bool fresh;
        if (found < 0 && call->err.kind == ERR_NOT_FOUND && forget_stale(sweep, id, &fresh) < 0)
            return -1;
    }
}

int registry_uploads_expire(struct call *call, struct registry *registry, size_t *ret_n)
{
    struct sweep sweep = {
        .call = call,
        .registry = registry,
        .before = {clock_wall().us - registry->expire_us},
    };
    const struct blob_walk staged = {.upload = sweep_staged};
    if (blob_walk(registry->blobs, &staged, &sweep, &call->err) < 0 || sweep_rows(&sweep) < 0)
        return -1;
    *ret_n = sweep.n;
    return 0;
}
