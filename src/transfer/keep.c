/* Verifying a backup, and forgetting its old snapshots. */
#include "transfer/backup_int.h"

static int list(struct side *side, enum backup_blobs which, const struct key *after,
                struct entry *ret, size_t *ret_n)
{
    if (side_read(side) < 0)
        return -1;
    int done = backup_blob_list(&side->call, which, key_str(after), ret, ret_n);
    side_read_end(side);
    return done;
}

int backup_each_page(struct work *work, enum backup_blobs which,
                     int (*each)(struct work *work, const struct entry *blobs, size_t n,
                                 struct err *err),
                     struct err *err)
{
    struct side *side = work->to;
    struct entry page[PAGE];
    struct key after = {0};
    size_t n;
    do {
        arena_done(&side->call.arena);
        if (list(side, which, &after, page, &n) < 0)
            return side_failed(side, err);
        if (n > 0 && (key_set(&after, page[n - 1].key, err) < 0 || each(work, page, n, err) < 0))
            return -1;
    } while (n == PAGE && !work_stops(work));
    return work_stops(work) ? work_stopped(err) : 0;
}

/* ---- Verifying ---- */

static void tell_complaint(void *context, const char *complaint)
{
    work_trouble(context, "the backup's database: %s", complaint);
}

static int tell_missing(struct work *work, const struct entry *blobs, size_t n, struct err *err)
{
    (void)err;
    for (size_t i = 0; i < n; i++)
        work_trouble(work, "blob " STR_FMT ": a snapshot needs it, and it is not in the backup",
                     STR_ARG(blobs[i].key));
    return 0;
}

static bool is_named_right(const struct entry *manifest)
{
    struct err err;
    struct oci_digest digest;
    if (oci_digest_parse(manifest->key, &digest, &err) < 0)
        return false;
    struct oci_digest actual = oci_digest_of(digest.algorithm, manifest->content);
    return oci_digest_eq(&actual, &digest);
}

static int verify_manifests(struct work *work, struct err *err)
{
    struct side *side = work->to;
    struct entry manifest = {0};
    while (!work_stops(work)) {
        bool found;
        arena_done(&side->call.arena);
        if (side_read(side) < 0)
            return side_failed(side, err);
        int done = backup_manifest_next(&side->call, manifest.id, &manifest, &found);
        side_read_end(side);
        if (done < 0)
            return side_failed(side, err);
        if (!found)
            return 0;
        if (!is_named_right(&manifest))
            work_trouble(work, "manifest " STR_FMT ": its bytes are not what its digest says",
                         STR_ARG(manifest.key));
    }
    return work_stopped(err);
}

static int count_bytes(struct work *work, struct err *err)
{
    struct side *side = work->to;
    if (side_read(side) < 0)
        return side_failed(side, err);
    int done = backup_blob_bytes(&side->call, &work->bytes_total);
    side_read_end(side);
    return done < 0 ? side_failed(side, err) : 0;
}

int transfer_verify(struct call *call, const char *folder, const struct transfer_options *options,
                    uint64_t *ret_differences)
{
    auto_backup backup = BACKUP_INIT;
    if (backup_open(folder, BACKUP_READ, &backup, &call->err) < 0)
        return -1;
    auto_side side = {0};
    side_init(&side, &side_backup, backup.db, backup.blobs);
    struct work work = {.to = &side, WORK_INIT(options)};
    struct err *err = &call->err;
    if (db_verify(backup.db, tell_complaint, &work, err) < 0 || verify_manifests(&work, err) < 0 ||
        count_bytes(&work, err) < 0 ||
        backup_each_page(&work, BACKUP_BLOBS_STORED, bytes_verify, err) < 0 ||
        backup_each_page(&work, BACKUP_BLOBS_MISSING, tell_missing, err) < 0)
        return -1;
    *ret_differences = work.counts.troubles;
    return 0;
}

/* ---- Pruning ---- */

struct pruning {
    struct wall_us before;
    uint64_t snapshots; /* that went */
};

static int forget(struct call *call, void *context)
{
    struct pruning *pruning = context;
    return backup_snapshot_forget(call, pruning->before, &pruning->snapshots) < 0
               ? -1
               : backup_trim(call);
}

struct unused {
    const struct entry *blobs;
    size_t n;
    int (*change)(struct call *call, struct str digest);
};

static int change_rows(struct call *call, void *context)
{
    const struct unused *unused = context;
    for (size_t i = 0; i < unused->n; i++)
        if (unused->change(call, unused->blobs[i].key) < 0)
            return -1;
    return 0;
}

static int change_all(struct side *side, const struct entry *blobs, size_t n,
                      int (*change)(struct call *call, struct str digest), struct err *err)
{
    struct unused unused = {blobs, n, change};
    return db_transact(&side->call, side->db, change_rows, &unused) < 0 ? side_failed(side, err)
                                                                        : 0;
}

/* No row says of bytes that they are there when they are not, and none goes before its bytes have:
 * what was broken off is done by the next one. */
static int remove_page(struct work *work, const struct entry *blobs, size_t n, struct err *err)
{
    struct side *side = work->to;
    struct blob_ref refs[PAGE];
    for (size_t i = 0; i < n; i++) {
        refs[i] = (struct blob_ref){.size = blobs[i].size};
        if (oci_digest_parse(blobs[i].key, &refs[i].digest, err) < 0)
            return -1;
    }
    if (change_all(side, blobs, n, backup_blob_unstore, err) < 0)
        return -1;
    crash_point("transfer.unstored");
    if (blob_delete(side->blobs, refs, n, err) < 0)
        return -1;
    crash_point("transfer.deleted");
    if (change_all(side, blobs, n, backup_blob_remove, err) < 0)
        return -1;
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += blobs[i].size;
    work_progress(work, "bytes", atomic_fetch_add(&work->bytes, bytes) + bytes, 0);
    return 0;
}

int transfer_prune(struct call *call, const char *folder, struct wall_us before,
                   const struct transfer_options *options, uint64_t *ret_snapshots,
                   uint64_t *ret_bytes)
{
    auto_backup backup = BACKUP_INIT;
    if (backup_open(folder, BACKUP_KEEP, &backup, &call->err) < 0)
        return -1;
    auto_side side = {0};
    side_init(&side, &side_backup, backup.db, backup.blobs);
    struct work work = {.to = &side, WORK_INIT(options)};
    struct pruning pruning = {.before = before};
    if (db_transact(call, backup.db, forget, &pruning) < 0)
        return -1;
    crash_point("transfer.forgotten");
    if (backup_each_page(&work, BACKUP_BLOBS_UNUSED, remove_page, &call->err) < 0)
        return -1;
    *ret_snapshots = pruning.snapshots;
    *ret_bytes = atomic_load(&work.bytes);
    return 0;
}
