/* blob, inside: the file-system store, shared by its three files. Everything is reached from the
 * descriptors of a few folders, never by a long path. */
#ifndef HOLDFAST_BLOB_FS_INT_H
#define HOLDFAST_BLOB_FS_INT_H

#include "blob/blob_int.h"

#include <stdatomic.h>

#define FS_ALGORITHMS 2 /* of enum hash_algorithm */
#define FS_FANOUT 256   /* folders below an algorithm's, one for each first byte of a digest */

struct fs_store {
    struct blob_store base;
    int root_fd;
    int uploads_fd;
    int blobs_fd;
    int algorithm_fds[FS_ALGORITHMS]; /* blobs/sha256, blobs/sha512 */
    /* This process has seen to it that the folder is there and survives a power cut. */
    atomic_bool fanout_made[FS_ALGORITHMS][FS_FANOUT];
};

static inline struct fs_store *fs_store_of(struct blob_store *store)
{
    return (struct fs_store *)store; /* its first member */
}

/* Names of the folders below blobs/. */
extern const char *const fs_algorithm_names[FS_ALGORITHMS];

/* "ab/abcdef…", below the algorithm's folder. */
#define FS_NAME_BYTES (2 + 1 + 2 * HASH_BYTES_MAX + 1)
void fs_name(const struct oci_digest *digest, char name[FS_NAME_BYTES]);
#define FS_FANOUT_CHARS 2 /* of the name, the folder's part */

/* blob_fs_upload.c */
int fs_upload_create(struct blob_store *store, const char *id, struct blob_upload **ret,
                     struct err *err);
int fs_upload_hold(struct blob_store *store, const char *id, struct blob_upload **ret,
                   struct err *err);
int fs_upload_cut(struct blob_upload *upload, uint64_t offset, struct str stage, struct err *err);
int fs_upload_write(struct blob_upload *upload, const void *p, size_t n, struct err *err);
int fs_upload_read(struct blob_upload *upload, bool whole, blob_take *take, void *context,
                   struct err *err);
int fs_upload_sync(struct blob_upload *upload, struct err *err);
struct str fs_upload_stage(const struct blob_upload *upload, struct arena *arena);
void fs_upload_settle(struct blob_upload *upload);
int fs_upload_commit(struct blob_upload *upload, const struct oci_digest *digest,
                     struct arena *arena, struct str *ret_location, struct err *err);
void fs_upload_close(struct blob_upload *upload);
int fs_upload_discard(struct blob_store *store, const char *id, struct str stage, struct str kept,
                      struct err *err);
int fs_upload_drop(struct blob_upload *upload, struct str kept, struct err *err);

/* blob_fs_walk.c */
int fs_walk(struct blob_store *store, const struct blob_walk *walk, void *context, struct err *err);

#endif
