/* Blobs from store to store, and hashed again. */
#include "transfer/transfer_int.h"

enum outcome { OUTCOME_NONE, OUTCOME_PRESENT, OUTCOME_COPIED, OUTCOME_MISSING };

struct bringing {
    struct work *work;
    const struct entry *blobs;
    enum outcome outcomes[PAGE];
};

struct adoption {
    const struct side *to;
    const struct blob_ref *blob;
    struct wall_us made;
    struct str location; /* where the target has it now */
};

static int adopt(struct call *call, void *context)
{
    struct adoption *adoption = context;
    return adoption->to->kind->blob_adopt(call, adoption->blob, adoption->made,
                                          &adoption->location);
}

/* It will never do, however often it is tried. */
static bool is_hopeless(const struct err *err)
{
    return err->kind == ERR_NOT_FOUND || err->kind == ERR_CORRUPT || err->kind == ERR_INVALID ||
           err->kind == ERR_TOO_LARGE;
}

struct pouring {
    struct work *work;
    struct blob_upload *upload;
};

static int pour(void *context, struct str piece, struct err *err)
{
    const struct pouring *pouring = context;
    atomic_fetch_add_explicit(&pouring->work->bytes, piece.n, memory_order_relaxed);
    if (work_stops(pouring->work))
        return work_stopped(err);
    return blob_upload_write(pouring->upload, piece.p, piece.n, err);
}

/* What stays behind is left over, and found by fsck. */
static void drop(struct blob_upload *upload, struct str kept)
{
    struct err err;
    if (blob_upload_drop(upload, kept, &err) < 0)
        log_err(LOG_LEVEL_WARN, "could not remove staged bytes", &err);
}

/* Ends with the row, so that the next run finds it. */
static int copy(struct work *work, struct call *call, const struct blob_ref *blob,
                struct wall_us made)
{
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    auto_upload upload = NULL;
    struct blob_ref stored = *blob;
    if (blob_upload_create(work->to->blobs, blob->digest.algorithm, id, &upload, &call->err) < 0)
        return -1;
    struct pouring pouring = {work, upload};
    struct adoption adoption = {.to = work->to, .blob = &stored, .made = made};
    if (blob_read(work->from->blobs, blob, pour, &pouring, &call->err) < 0 ||
        blob_upload_commit(upload, &blob->digest, &call->arena, &stored.location, &call->err) < 0) {
        drop(upload, STR(""));
        return -1;
    }
    crash_point("transfer.blob_stored");
    int done = db_transact(call, work->to->db, adopt, &adoption);
    if (done == 0 || call->err.kind != ERR_UNSURE)
        drop(upload, done == 0 ? adoption.location : STR(""));
    crash_point("transfer.blob_adopted");
    return done;
}

static int look_up(struct call *call, struct blob_store *store, const struct blob_ref *blob)
{
    uint64_t size;
    if (blob_stat(store, blob, &size, &call->err) < 0)
        return -1;
    if (size == blob->size)
        return 0;
    return err_set(&call->err, ERR_CORRUPT, "it has %llu bytes, and should have %llu",
                   (unsigned long long)size, (unsigned long long)blob->size);
}

/* The target's store has the bytes where the link says, and only a row is missing. */
static int take_over(const struct work *work, struct call *call, const struct blob_ref *blob,
                     struct wall_us made)
{
    struct adoption adoption = {.to = work->to, .blob = blob, .made = made};
    if (look_up(call, work->to->blobs, blob) < 0)
        return -1;
    return db_transact(call, work->to->db, adopt, &adoption);
}

static int find(const struct work *work, struct call *call, const struct blob_ref *blob,
                bool *ret_found)
{
    bool found = false;
    if (db_read(work->to->db, &call->db, &call->err) < 0)
        return -1;
    int done = work->to->kind->blob_find(call, &blob->digest, &found);
    db_end(TAKE(call->db));
    if (done < 0)
        return -1;
    if (found && work->distrusts && look_up(call, work->to->blobs, blob) < 0) {
        if (!is_hopeless(&call->err))
            return -1;
        found = false;
    }
    *ret_found = found;
    return 0;
}

static int obtain(struct work *work, struct call *call, const struct entry *entry,
                  const struct blob_ref *blob, enum outcome *ret)
{
    bool found;
    *ret = OUTCOME_PRESENT;
    if (find(work, call, blob, &found) < 0)
        return -1;
    if (found)
        return 0;
    if (work->in_place) {
        int done = take_over(work, call, blob, entry->made);
        if (done == 0 || !is_hopeless(&call->err))
            return done;
    }
    *ret = OUTCOME_COPIED;
    return copy(work, call, blob, entry->made);
}

static int bring(void *context, struct call *call, size_t i)
{
    struct bringing *bringing = context;
    const struct entry *entry = &bringing->blobs[i];
    struct blob_ref blob = {.size = entry->size, .location = entry->text};
    enum outcome outcome;
    if (oci_digest_parse(entry->key, &blob.digest, &call->err) < 0)
        return -1;
    if (obtain(bringing->work, call, entry, &blob, &outcome) < 0) {
        if (!is_hopeless(&call->err))
            return -1;
        work_trouble(bringing->work, "blob " STR_FMT " cannot be copied: %s", STR_ARG(entry->key),
                     call->err.say);
        outcome = OUTCOME_MISSING;
    }
    bringing->outcomes[i] = outcome;
    return 0;
}

int bytes_copy(struct work *work, const struct entry *blobs, size_t n, bool *there, struct err *err)
{
    require(n <= PAGE);
    struct bringing bringing = {.work = work, .blobs = blobs};
    int done = crew_run(work, n, bring, &bringing, err);
    for (size_t i = 0; i < n; i++) {
        enum outcome outcome = bringing.outcomes[i];
        there[i] = outcome == OUTCOME_COPIED || outcome == OUTCOME_PRESENT;
        work->counts.present += outcome == OUTCOME_PRESENT;
        work->counts.blobs += outcome == OUTCOME_COPIED;
        work->counts.blob_bytes += outcome == OUTCOME_COPIED ? blobs[i].size : 0;
    }
    return done;
}

/* ---- Verification ---- */

struct verification {
    struct work *work;
    const struct entry *blobs;
};

static int verify(void *context, struct call *call, size_t i)
{
    const struct verification *verification = context;
    struct work *work = verification->work;
    const struct entry *entry = &verification->blobs[i];
    struct blob_ref blob = {.size = entry->size, .location = entry->text};
    bool same = false;
    if (oci_digest_parse(entry->key, &blob.digest, &call->err) < 0)
        return -1;
    int done = blob_verify(work->to->blobs, &blob, &same, &call->err);
    if (done < 0 && !is_hopeless(&call->err))
        return -1;
    atomic_fetch_add_explicit(&work->bytes, entry->size, memory_order_relaxed);
    if (same)
        return 0;
    bool needed; /* who keeps the backup may have removed it just now */
    struct err why = call->err;
    if (find(work, call, &blob, &needed) < 0)
        return -1;
    if (needed)
        work_trouble(work, "blob " STR_FMT ": %s", STR_ARG(entry->key),
                     done < 0 ? why.say : "its bytes are not what its digest says");
    return 0;
}

int bytes_verify(struct work *work, const struct entry *blobs, size_t n, struct err *err)
{
    struct verification verification = {work, blobs};
    return crew_run(work, n, verify, &verification, err);
}
