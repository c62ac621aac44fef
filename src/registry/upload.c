/* Uploads, from their beginning to their end or expiry.
 *
 * One request at a time writes to an upload. A file-system store excludes others by itself; over an
 * object store the right to write is a lease on the upload's row, under the random text `hold`. It
 * is renewed while bytes come, given back with each acknowledgement, and whoever comes too late (a
 * node that stood still, say) finds at its next change of the row that the lease is another's. */
#include "registry/registry_int.h"

#include <stdio.h>

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

static struct str hold_of(const struct registry_upload *upload)
{
    return str_from(upload->hold);
}

/* What stays behind when this fails is found again by its age. */
static void drop(struct registry_upload *upload, struct str kept)
{
    struct err err;
    if (blob_upload_drop(upload->blob, kept, &err) < 0)
        log_err(LOG_LEVEL_WARN, "could not remove the bytes of an upload that is over", &err);
}

static int release(struct call *call, void *context)
{
    struct registry_upload *upload = context;
    db_relax(call->db);
    return meta_upload_release(call, registry_upload_id(upload), hold_of(upload));
}

/* What is left to do, besides freeing it. */
static bool must_drop(const struct registry_upload *upload)
{
    return !upload->recorded && !upload->over && upload->blob != NULL;
}
static bool must_release(const struct registry_upload *upload)
{
    return upload->recorded && !upload->over && upload->hold[0] != '\0';
}

void registry_upload_end(struct registry_upload *upload)
{
    if (upload == NULL)
        return;
    if (must_drop(upload)) /* broken off for good */
        drop(upload, STR(""));
    if (must_release(upload)) {
        auto_call call;
        call_init(&call);
        if (db_transact(&call, upload->registry->db, release, upload) < 0)
            log_err(LOG_LEVEL_WARN, "could not give an upload back; its lease will run out",
                    &call.err);
    }
    blob_upload_close(upload->blob);
    free(upload);
}

void registry_upload_close(struct registry_upload *upload)
{
    if (upload == NULL)
        return;
    struct closer *closer = upload->registry->closer;
    if (closer != NULL && (must_drop(upload) || must_release(upload)))
        closer_push(closer, upload);
    else
        registry_upload_end(upload);
}

struct str registry_upload_id(const struct registry_upload *upload)
{
    return (struct str){upload->id, BLOB_UPLOAD_ID_BYTES};
}

uint64_t registry_upload_received(const struct registry_upload *upload)
{
    return blob_upload_offset(upload->blob);
}

/* ---- Begin ---- */

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

struct recording {
    struct registry_upload *upload;
    const struct oci_name *name;
    bool found; /* the repository */
};

static int make_repository(struct call *call, void *context)
{
    const struct recording *recording = context;
    int64_t unused;
    return meta_repository_ensure(call, recording->name, clock_wall(), &unused);
}

static int insert_row(struct call *call, void *context)
{
    struct recording *recording = context;
    struct registry_upload *upload = recording->upload;
    uint8_t state[HASH_SAVED_BYTES_MAX];
    struct str saved = {(char *)state, blob_upload_hash_state(upload->blob, state)};
    db_last(call->db);
    return meta_upload_insert(call, recording->name, registry_upload_id(upload), saved,
                              &recording->found);
}

/* Mostly the repository is there: that costs one round trip. */
static int record(struct call *call, struct registry_upload *upload, const struct oci_name *name)
{
    struct db *db = upload->registry->db;
    struct recording recording = {.upload = upload, .name = name};
    while (!recording.found) {
        if (db_transact(call, db, insert_row, &recording) < 0)
            return -1;
        if (!recording.found && db_transact(call, db, make_repository, &recording) < 0)
            return -1;
    }
    upload->recorded = true;
    return 0;
}

int registry_upload_start(struct call *call, struct registry *registry, const struct oci_name *name,
                          enum hash_algorithm algorithm, struct registry_upload **ret)
{
    auto_registry_upload upload = NULL;
    if (registry_upload_start_whole(call, registry, name, algorithm, &upload) < 0 ||
        record(call, upload, name) < 0)
        return -1;
    *ret = TAKE(upload);
    return 0;
}

/* ---- Take up again ---- */

static int unknown(struct call *call, struct str id)
{
    return err_code(&call->err, ERR_NOT_FOUND, OCI_BLOB_UPLOAD_UNKNOWN,
                    "upload \"" STR_FMT "\" is not known in this repository: it was finished, "
                    "cancelled, or expired",
                    STR_ARG(str_first(id, BLOB_UPLOAD_ID_BYTES)));
}

static int taken_over(struct call *call, struct registry_upload *upload)
{
    upload->hold[0] = '\0';
    return err_code(&call->err, ERR_NOT_FOUND, OCI_BLOB_UPLOAD_UNKNOWN,
                    "upload \"%s\" has expired, or another request has taken it over", upload->id);
}

static int find_row(struct call *call, struct registry *registry, const struct oci_name *name,
                    struct str id, struct meta_upload *ret)
{
    auto_read held = call;
    bool found;
    if (registry_begin_read(call, registry) < 0 ||
        meta_upload_find(call, name, id, ret, &found) < 0)
        return -1;
    return found ? 0 : unknown(call, id);
}

struct taking {
    struct registry *registry;
    const struct oci_name *name;
    struct str id;
    struct str hold;
    struct meta_upload row;
    bool held;
};

static struct wall_us lease_end(const struct registry *registry)
{
    return (struct wall_us){db_now(registry->db).us + registry->lease_us};
}

static int take_row(struct call *call, void *context)
{
    struct taking *taking = context;
    db_relax(call->db);
    db_last(call->db);
    return meta_upload_hold(call, taking->name, taking->id, taking->hold,
                            db_now(taking->registry->db), lease_end(taking->registry), &taking->row,
                            &taking->held);
}

/* Takes the lease on the row. */
static int lease_row(struct call *call, struct registry_upload *upload, const struct oci_name *name,
                     struct str id, struct meta_upload *ret)
{
    struct registry *registry = upload->registry;
    struct taking taking = {
        .registry = registry, .name = name, .id = id, .hold = str_from(call->id)};
    upload->renewed = clock_mono();
    if (db_transact(call, registry->db, take_row, &taking) < 0)
        return -1;
    if (!taking.held) {
        struct meta_upload row;
        if (find_row(call, registry, name, id, &row) < 0)
            return -1;
        return err_set(&call->err, ERR_BUSY,
                       "upload \"" STR_FMT "\" is being written to by somebody", STR_ARG(id));
    }
    (void)snprintf(upload->hold, sizeof(upload->hold), "%s", call->id);
    *ret = taking.row;
    return 0;
}

static int hold_bytes(struct call *call, struct registry_upload *upload, struct str id)
{
    if (blob_upload_hold(upload->registry->blobs, id, &upload->blob, &call->err) == 0)
        return 0;
    bool gone = call->err.kind == ERR_NOT_FOUND || call->err.kind == ERR_INVALID;
    return gone ? unknown(call, id) : -1;
}

int registry_upload_open(struct call *call, struct registry *registry, const struct oci_name *name,
                         struct str id, struct registry_upload **ret)
{
    auto_registry_upload upload = upload_new(registry, name);
    upload->recorded = true;
    /* Also tells that the id is one: so long it is, and so it may be asked for. */
    if (hold_bytes(call, upload, id) < 0)
        return -1;
    memcpy(upload->id, id.p, BLOB_UPLOAD_ID_BYTES);

    /* Looked up with the hold taken: nobody acknowledges more of it now. */
    struct meta_upload row;
    int found = blob_store_excludes(registry->blobs) ? find_row(call, registry, name, id, &row)
                                                     : lease_row(call, upload, name, id, &row);
    if (found < 0 ||
        blob_upload_resume(upload->blob, row.received, row.hash_state, row.stage, &call->err) < 0)
        return -1;
    upload->repository_id = row.repository_id;
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

/* ---- Write ---- */

struct renewal {
    struct registry_upload *upload;
    bool found;
};

static int renew_row(struct call *call, void *context)
{
    struct renewal *renewal = context;
    struct registry_upload *upload = renewal->upload;
    db_relax(call->db);
    db_last(call->db);
    return meta_upload_renew(call, registry_upload_id(upload), hold_of(upload),
                             lease_end(upload->registry), &renewal->found);
}

/* The lease is renewed when a third of it is over. */
static int renew(struct call *call, struct registry_upload *upload)
{
    if (upload->hold[0] == '\0' || clock_since_us(upload->renewed) < upload->registry->lease_us / 3)
        return 0;
    struct renewal renewal = {.upload = upload};
    upload->renewed = clock_mono();
    if (db_transact(call, upload->registry->db, renew_row, &renewal) < 0)
        return -1;
    return renewal.found ? 0 : taken_over(call, upload);
}

int registry_upload_write(struct call *call, struct registry_upload *upload, struct str piece)
{
    if (renew(call, upload) < 0)
        return -1;
    return blob_upload_write(upload->blob, piece.p, piece.n, &call->err);
}

struct saving {
    struct registry_upload *upload;
    struct meta_upload row;
    bool found;
};

static int advance_row(struct call *call, void *context)
{
    struct saving *saving = context;
    db_last(call->db);
    return meta_upload_advance(call, registry_upload_id(saving->upload), hold_of(saving->upload),
                               &saving->row, &saving->found);
}

int registry_upload_save(struct call *call, struct registry_upload *upload)
{
    if (renew(call, upload) < 0 || blob_upload_sync(upload->blob, &call->err) < 0)
        return -1;
    crash_point("upload.synced");
    uint8_t state[HASH_SAVED_BYTES_MAX];
    struct saving saving = {
        .upload = upload,
        .row =
            {
                .received = blob_upload_offset(upload->blob),
                .hash_state = {(char *)state, blob_upload_hash_state(upload->blob, state)},
                .stage = blob_upload_stage(upload->blob, &call->arena),
            },
    };
    if (db_transact(call, upload->registry->db, advance_row, &saving) < 0)
        return -1;
    if (!saving.found) /* it expired meanwhile */
        return taken_over(call, upload);
    upload->hold[0] = '\0';
    crash_point("upload.advanced");
    blob_upload_settle(upload->blob);
    return 0;
}

/* ---- End ---- */

/* Ends the row, which is still this upload's: otherwise what it staged is not, either. */
static int delete_row(struct call *call, struct registry_upload *upload)
{
    if (!upload->recorded)
        return 0;
    bool found;
    if (meta_upload_delete(call, registry_upload_id(upload), hold_of(upload), &found) < 0)
        return -1;
    return found ? 0 : taken_over(call, upload);
}

static int cancel_row(struct call *call, void *context)
{
    return delete_row(call, context);
}

int registry_upload_cancel(struct call *call, struct registry_upload *upload)
{
    if (db_transact(call, upload->registry->db, cancel_row, upload) < 0)
        return -1;
    upload->over = true;
    drop(upload, STR(""));
    return 0;
}

struct adoption {
    struct registry_upload *upload;
    const struct oci_digest *digest;
    uint64_t size;
    struct str location;
    struct meta_blob blob;
};

static int adopt(struct call *call, void *context)
{
    struct adoption *adoption = context;
    struct registry_upload *upload = adoption->upload;
    struct oci_name name = {str_from(upload->repository)};
    int64_t repository = upload->repository_id; /* its row keeps the repository there */
    if (delete_row(call, upload) < 0 ||
        (repository == 0 && meta_repository_ensure(call, &name, clock_wall(), &repository) < 0))
        return -1;
    db_last(call->db);
    return meta_blob_adopt_into(call, repository, adoption->digest, adoption->size,
                                adoption->location, clock_wall(), &adoption->blob);
}

/* The upload is over. The error stays. */
static int reject(struct call *call, struct registry_upload *upload)
{
    struct err why = call->err;
    if (registry_upload_cancel(call, upload) == 0)
        call->err = why;
    return -1;
}

/* Content that is not what the digest says, or that is gone, can never be committed. */
static int commit_bytes(struct call *call, struct registry_upload *upload,
                        const struct oci_digest *digest, struct str *ret_location)
{
    if (blob_upload_commit(upload->blob, digest, &call->arena, ret_location, &call->err) == 0)
        return 0;
    bool over = call->err.kind == ERR_INVALID || call->err.kind == ERR_NOT_FOUND;
    return over ? reject(call, upload) : -1;
}

int registry_upload_finish(struct call *call, struct registry_upload *upload,
                           const struct oci_digest *digest)
{
    struct adoption adoption = {
        .upload = upload, .digest = digest, .size = blob_upload_offset(upload->blob)};
    if (renew(call, upload) < 0 || commit_bytes(call, upload, digest, &adoption.location) < 0)
        return -1;
    crash_point("upload.committed");
    if (db_transact(call, upload->registry->db, adopt, &adoption) < 0) {
        /* Perhaps a row names the bytes now: then they must stay. */
        upload->over = upload->over || call->err.kind == ERR_UNSURE;
        return -1;
    }
    upload->over = true;
    crash_point("upload.finished");
    drop(upload, adoption.blob.location);
    return 0;
}

/* ---- Expiry ---- */

struct sweep {
    struct call *call;
    struct registry *registry;
    struct wall_us before;
    size_t n;
};

struct forgetting {
    struct sweep *sweep;
    struct str id;
    bool fresh;
};

static int forget_row(struct call *call, void *context)
{
    struct forgetting *forgetting = context;
    const struct sweep *sweep = forgetting->sweep;
    if (meta_upload_delete_stale(call, forgetting->id, sweep->before, db_now(sweep->registry->db)) <
        0)
        return -1;
    db_last(call->db);
    return meta_upload_exists(call, forgetting->id, &forgetting->fresh);
}

/* Forgets the upload, unless it was touched since. *ret_fresh: it was. */
static int forget_stale(struct sweep *sweep, struct str id, bool *ret_fresh)
{
    struct forgetting forgetting = {.sweep = sweep, .id = id};
    if (db_transact(sweep->call, sweep->registry->db, forget_row, &forgetting) < 0)
        return -1;
    *ret_fresh = forgetting.fresh;
    return 0;
}

/* Over an object store the row alone knows all that is staged: sweep_row sees to those that have
 * one.
 */
static int find_any_row(struct sweep *sweep, struct str id, bool *ret_found)
{
    auto_read held = sweep->call;
    if (registry_begin_read(sweep->call, sweep->registry) < 0)
        return -1;
    return meta_upload_exists(sweep->call, id, ret_found);
}

/* Staged bytes that did not change for long: of an upload that was given up, or, without a row, of
 * a request that carried a whole blob and broke off. */
static int sweep_staged(void *context, struct str id, struct str stage, uint64_t size,
                        struct wall_us changed, struct err *err)
{
    struct sweep *sweep = context;
    (void)size;
    if (changed.us >= sweep->before.us)
        return 0;
    bool fresh;
    int asked = blob_store_excludes(sweep->registry->blobs) ? forget_stale(sweep, id, &fresh)
                                                            : find_any_row(sweep, id, &fresh);
    if (asked < 0)
        return -1;
    if (fresh)
        return 0;
    sweep->n++;
    return blob_upload_discard(sweep->registry->blobs, id, stage, STR(""), err);
}

/* The row says where its bytes are, if they are there still. */
static int sweep_row(struct sweep *sweep, struct str id, const struct meta_upload *row)
{
    struct call *call = sweep->call;
    bool fresh;
    if (blob_store_excludes(sweep->registry->blobs)) {
        struct blob_upload *held = NULL;
        int found = blob_upload_hold(sweep->registry->blobs, id, &held, &call->err);
        blob_upload_close(held);
        if (found == 0 || call->err.kind != ERR_NOT_FOUND)
            return 0; /* the walk sees to it; or somebody has it */
    }
    if (forget_stale(sweep, id, &fresh) < 0)
        return -1;
    if (fresh)
        return 0;
    sweep->n++;
    return blob_upload_discard(sweep->registry->blobs, id, row->stage, STR(""), &call->err);
}

static int sweep_rows(struct sweep *sweep)
{
    struct str id = STR("");
    for (;;) {
        struct call *call = sweep->call;
        struct meta_upload row;
        bool more;
        {
            auto_read held = call;
            if (registry_begin_read(call, sweep->registry) < 0 ||
                meta_upload_next(call, id, sweep->before, &id, &row, &more) < 0)
                return -1;
        }
        if (!more)
            return 0;
        if (sweep_row(sweep, id, &row) < 0)
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
    /* Rows first: what they name is removed whole, and what is left has none. */
    if (sweep_rows(&sweep) < 0 || blob_walk(registry->blobs, &staged, &sweep, &call->err) < 0)
        return -1;
    *ret_n = sweep.n;
    return 0;
}
