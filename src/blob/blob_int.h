/* blob, inside: what a backend is.
 *
 * blob.c keeps the rules that hold wherever the bytes are: ids, the running hash, the offset, what
 * may be called when. A backend moves bytes and makes them durable; it never hashes and never looks
 * at a digest but to name it. A backend's own structs begin with the ones below. */
#ifndef HOLDFAST_BLOB_INT_H
#define HOLDFAST_BLOB_INT_H

#include "blob/blob.h"

/* What is read at once where content is hashed again; allocated for that time only. */
#define BLOB_PIECE_BYTES ((size_t)256 * 1024)

struct blob_backend;

struct blob_store {
    const struct blob_backend *backend; /* static */
};

struct blob_upload {
    struct blob_store *store; /* borrowed */
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    uint64_t offset;      /* bytes staged; only blob.c moves it */
    struct hash hash;     /* of exactly these bytes */
    enum err_kind failed; /* ERR_NONE, or what went wrong: nothing more goes into this upload */
    bool committed;
};

/* Every function here follows the contract of its namesake in blob.h, and: */
struct blob_backend {
    void (*store_close)(struct blob_store *store);
    int (*store_space)(struct blob_store *store, uint64_t *ret_free, uint64_t *ret_total,
                       struct err *err);

    /* The backend allocates the upload with its store and id, and frees it in upload_close; the
     * rest is zeroed and filled by blob.c. */
    int (*upload_create)(struct blob_store *store, const char *id, struct blob_upload **ret,
                         struct err *err);
    int (*upload_hold)(struct blob_store *store, const char *id, struct blob_upload **ret,
                       struct err *err);
    /* Afterwards it holds exactly `offset` bytes. */
    int (*upload_cut)(struct blob_upload *upload, uint64_t offset, struct err *err);
    /* All of the bytes go behind upload->offset, or it is -1. */
    int (*upload_write)(struct blob_upload *upload, const void *p, size_t n, struct err *err);
    /* Reads exactly `n` staged bytes from byte `at` on; they are below upload->offset. */
    int (*upload_read)(struct blob_upload *upload, uint64_t at, void *p, size_t n, struct err *err);
    int (*upload_sync)(struct blob_upload *upload, struct err *err);
    /* The staged bytes have this digest: make them durable and name them. The staged
     * bytes can be opened as an upload until upload_discard. */
    int (*upload_commit)(struct blob_upload *upload, const struct oci_digest *digest,
                         struct err *err);
    void (*upload_close)(struct blob_upload *upload);
    int (*upload_discard)(struct blob_store *store, const char *id, struct err *err);

    int (*blob_open)(struct blob_store *store, const struct oci_digest *digest, int *ret_fd,
                     uint64_t *ret_size, struct err *err);
    int (*blob_delete)(struct blob_store *store, const struct oci_digest *digest, struct err *err);
    int (*walk)(struct blob_store *store, const struct blob_walk *walk, void *context,
                struct err *err);
};

void blob_upload_id_make(char id[BLOB_UPLOAD_ID_BYTES + 1]);
/* Whether the text is an id as this store makes them: a random UUID (RFC 9562, version 4) in lower
 * case. Nothing else becomes a file name. */
bool blob_upload_id_valid(struct str id);

#endif
