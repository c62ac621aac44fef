/* transfer: copies of whole registries: from one back end to another, into a backup and out of it.
 *
 * All of it is one operation between two sides (a registry, or a backup as it was at some time):
 * make the target the same as the source, repository by repository, by what differs. So it can be
 * broken off and run again, and what is there is not copied twice. Bytes are verified by their
 * digest as they are written, and are durable before a row names them.
 *
 * A backup is a folder:
 *   backup.db                SQLite: every repository, link, manifest and tag with the snapshots
 *                            from and to which it was there; each run adds only what changed
 *   blobs/sha256/ab/abcdef…  as in a data folder; kept until no snapshot needs them
 *   uploads/                 bytes on their way
 *   lock                     held by who writes it
 * Threads: each call is one thread's; it starts its own. */
#ifndef HOLDFAST_TRANSFER_H
#define HOLDFAST_TRANSFER_H

#include "base/base.h"
#include "registry/registry.h"

#include <stdatomic.h>

/* The two functions are called by one thread at a time, not always the same, and must not call back
 * into this room. */
struct transfer_options {
    unsigned threads; /* that copy or hash blobs at the same time; 1 at least */
    void *context;
    /* Now and then: what is done of a stage. `total` 0: not known. */
    void (*progress)(void *context, const char *stage, uint64_t done, uint64_t total);
    /* Something that could not be copied as it is, as a line for people; the copy goes on. */
    void (*trouble)(void *context, const char *text);
    const atomic_bool *stop; /* end soon, with BUSY; may be NULL */
};

struct transfer_counts {
    uint64_t repositories; /* of the source */
    uint64_t manifests;    /* copied now */
    uint64_t tags;         /* set now */
    uint64_t blobs;        /* copied now */
    uint64_t blob_bytes;
    uint64_t present; /* blobs that were there already */
    uint64_t removed; /* links, manifests and tags that the source has no longer */
    uint64_t troubles;
};

/* Makes `to`, opened ALONE, a copy of `from`, which may be served meanwhile (opened OBSERVE).
 * Uploads that are open are not copied. What changes in `from` meanwhile is copied or not, a
 * manifest perhaps without its blobs: the next run sets it right. Errors: CONFLICT (`to` is a
 * registry of its own, or a copy of another), and what either side gives. */
int transfer_migrate(struct call *call, struct registry *from, struct registry *to,
                     const struct transfer_options *options,
                     struct transfer_counts *ret) MUST_CHECK;
/* Compares all metadata of both, and with `deep` hashes every blob of `to`. *ret_differences: each
 * was told as trouble. */
int transfer_compare(struct call *call, struct registry *from, struct registry *to, bool deep,
                     const struct transfer_options *options, uint64_t *ret_differences) MUST_CHECK;

/* Takes a snapshot of `from`, as it is at one moment, into the backup at `folder`, which is made
 * when it is missing or empty. Without `blobs` the bytes are left where they are, and the snapshot
 * is good only as long as they stay there. A snapshot is there when all of it is: one that was
 * broken off is ended by the next run. *ret_time: all that was done before is in it.
 * Errors: CONFLICT (a backup of another registry, a folder of something else), IO, FULL, BUSY
 * (another run is writing it). */
int transfer_backup(struct call *call, struct registry *from, const char *folder, bool blobs,
                    const struct transfer_options *options, struct wall_us *ret_time,
                    struct transfer_counts *ret) MUST_CHECK;

struct transfer_snapshot {
    struct wall_us time;
    bool blobs; /* it holds the bytes */
    uint64_t repositories;
    uint64_t manifests;
    uint64_t tags;
    uint64_t blob_count;
    uint64_t blob_bytes;
};
typedef void (*transfer_snapshot_fn)(void *context, int64_t id,
                                     const struct transfer_snapshot *snapshot);
/* Calls `each` for the snapshots of a backup, oldest first. Errors: NOT_FOUND (no backup). */
int transfer_list(struct call *call, const char *folder, transfer_snapshot_fn each,
                  void *context) MUST_CHECK;
/* Makes `to`, opened ALONE, what the newest snapshot not after `when` was; *ret_time: that one's.
 * What the snapshot does not have is removed. `overwrite`: also when `to` is not empty and no copy
 * of this backup's registry. Errors: NOT_FOUND (no such snapshot); as transfer_migrate. */
int transfer_restore(struct call *call, const char *folder, struct wall_us when,
                     struct registry *to, bool overwrite, const struct transfer_options *options,
                     struct wall_us *ret_time, struct transfer_counts *ret) MUST_CHECK;
/* Checks the backup's database, hashes every manifest and blob of it, and looks whether each
 * snapshot is whole. Changes nothing, and may run beside one who writes. */
int transfer_verify(struct call *call, const char *folder, const struct transfer_options *options,
                    uint64_t *ret_differences) MUST_CHECK;
/* Forgets the snapshots older than `before`, but never the newest one, and removes the bytes that
 * none needs then. */
int transfer_prune(struct call *call, const char *folder, struct wall_us before,
                   const struct transfer_options *options, uint64_t *ret_snapshots,
                   uint64_t *ret_bytes) MUST_CHECK;

#endif
