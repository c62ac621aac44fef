/* transfer, inside: the folder of a backup. */
#ifndef HOLDFAST_TRANSFER_BACKUP_INT_H
#define HOLDFAST_TRANSFER_BACKUP_INT_H

#include "transfer/transfer_int.h"

extern const struct db_migration backup_migrations[];
extern const size_t backup_n_migrations;

struct backup {
    struct db *db;            /* owned */
    struct blob_store *blobs; /* owned */
    int lock_fd;              /* owned; -1: opened to read */
};
#define BACKUP_INIT ((struct backup){.lock_fd = -1})

enum backup_use {
    BACKUP_READ,
    BACKUP_KEEP, /* changes it, and keeps others who would out */
    BACKUP_MAKE, /* idem; makes it when it is not there */
};
/* End with backup_close. Errors: NOT_FOUND (there is no backup), CONFLICT (the folder is something
 * else), BUSY, IO, CORRUPT, UNSUPPORTED. */
int backup_open(const char *folder, enum backup_use use, struct backup *ret,
                struct err *err) MUST_CHECK;
void backup_close(struct backup *backup);
#define auto_backup __attribute__((cleanup(backup_close))) struct backup

/* ---- backup_rows.c: SQL of snapshots; on call->db ---- */

/* Identity of the registry that is backed up; empty: none yet. arena */
int backup_source(struct call *call, struct str *ret) MUST_CHECK;
int backup_source_set(struct call *call, struct str registry) MUST_CHECK;
/* Begins a snapshot, or takes the one up that was broken off. */
int backup_snapshot_begin(struct call *call, struct wall_us time, bool blobs,
                          int64_t *ret_id) MUST_CHECK;
/* It is complete, and the newest. */
int backup_snapshot_end(struct call *call, int64_t id) MUST_CHECK;
/* Calls `each` for the complete ones, oldest first. */
int backup_snapshot_each(struct call *call, transfer_snapshot_fn each, void *context) MUST_CHECK;
/* Removes those that were taken before that time, but not the newest. *ret_n: how many. */
int backup_snapshot_forget(struct call *call, struct wall_us before, uint64_t *ret_n) MUST_CHECK;
/* Removes the rows that were gone before the oldest snapshot. */
int backup_trim(struct call *call) MUST_CHECK;

/* The next manifest after the id `after`, of whatever snapshot; key, content and id are filled. */
int backup_manifest_next(struct call *call, int64_t after, struct entry *ret,
                         bool *ret_found) MUST_CHECK;

/* Blobs in the order of digests, at most PAGE of them; arena. */
enum backup_blobs {
    BACKUP_BLOBS_NEWEST,  /* of the newest snapshot, complete or not */
    BACKUP_BLOBS_STORED,  /* whose bytes are in the backup */
    BACKUP_BLOBS_UNUSED,  /* which no link names; size 0 when the bytes are not in the backup */
    BACKUP_BLOBS_MISSING, /* of any complete snapshot with bytes, that are not in the backup */
};
int backup_blob_list(struct call *call, enum backup_blobs which, struct str after,
                     struct entry *ret, size_t *ret_n) MUST_CHECK;
/* Size of all that are stored. */
int backup_blob_bytes(struct call *call, uint64_t *ret) MUST_CHECK;
/* Its bytes are about to be removed. */
int backup_blob_unstore(struct call *call, struct str digest) MUST_CHECK;
int backup_blob_remove(struct call *call, struct str digest) MUST_CHECK;

/* ---- keep.c ---- */

/* Calls `each` for blobs of work->to, a page at a time; it may change what is listed. */
int backup_each_page(struct work *work, enum backup_blobs which,
                     int (*each)(struct work *work, const struct entry *blobs, size_t n,
                                 struct err *err),
                     struct err *err) MUST_CHECK;

#endif
