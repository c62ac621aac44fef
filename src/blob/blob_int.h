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

/* Who is given content piece by piece: returns 0 to go on, -1 with *err to stop. */
typedef int blob_take(void *context, struct str piece, struct err *err);

/* Every function here follows the contract of its namesake in blob.h, and: */
struct blob_backend {
    bool remote;
    bool excludes;
    void (*store_close)(struct blob_store *store);
    int (*store_look)(struct blob_store *store, struct err *err);         /* NULL: local */
    void (*store_give_up)(struct blob_store *store, struct mono_us when); /* NULL: local */
    int (*store_space)(struct blob_store *store, uint64_t *ret_free, uint64_t *ret_total,
                       struct err *err);

    /* The backend allocates the upload with its store and id, and frees it in upload_close; the
     * rest is zeroed and filled by blob.c. */
    int (*upload_create)(struct blob_store *store, const char *id, struct blob_upload **ret,
                         struct err *err);
    int (*upload_hold)(struct blob_store *store, const char *id, struct blob_upload **ret,
                       struct err *err);
    /* Afterwards it holds exactly the `offset` bytes that `stage` tells of. */
    int (*upload_cut)(struct blob_upload *upload, uint64_t offset, struct str stage,
                      struct err *err);
    /* All of the bytes go behind upload->offset, or it is -1. */
    int (*upload_write)(struct blob_upload *upload, const void *p, size_t n, struct err *err);
    /* Gives all staged bytes, up to upload->offset, to `take`. `whole`: nothing will be appended to
     * them any more; where they can be read only then, it makes them so. */
    int (*upload_read)(struct blob_upload *upload, bool whole, blob_take *take, void *context,
                       struct err *err);
    int (*upload_sync)(struct blob_upload *upload, struct err *err);
    struct str (*upload_stage)(const struct blob_upload *upload, struct arena *arena);
    void (*upload_settle)(struct blob_upload *upload);
    /* The staged bytes have this digest: make them durable and give them their place. The staged
     * bytes can be taken up as an upload until upload_discard. */
    int (*upload_commit)(struct blob_upload *upload, const struct oci_digest *digest,
                         struct arena *arena, struct str *ret_location, struct err *err);
    void (*upload_close)(struct blob_upload *upload);
    int (*upload_discard)(struct blob_store *store, const char *id, struct str stage,
                          struct str kept, struct err *err);
    int (*upload_drop)(struct blob_upload *upload, struct str kept, struct err *err);

    int (*blob_open)(struct blob_store *store, const struct blob_ref *blob, uint64_t offset,
                     uint64_t n, const char *call_id, struct blob_content *ret, struct err *err);
    int (*blob_redirect)(struct blob_store *store, const struct blob_ref *blob, struct arena *arena,
                         struct str *ret_url, struct err *err);
    int (*blob_read)(struct blob_store *store, const struct blob_ref *blob, blob_take *take,
                     void *context, struct err *err);
    int (*blob_stat)(struct blob_store *store, const struct blob_ref *blob, uint64_t *ret_size,
                     struct err *err);
    int (*blob_delete)(struct blob_store *store, const struct blob_ref *blobs, size_t n,
                       struct err *err);
    int (*walk)(struct blob_store *store, const struct blob_walk *walk, void *context,
                struct err *err);
};

void blob_upload_id_make(char id[BLOB_UPLOAD_ID_BYTES + 1]);
/* Whether the text is an id as this store makes them: a random UUID (RFC 9562, version 4) in lower
 * case. Nothing else becomes a file name. */
bool blob_upload_id_valid(struct str id);
/* Says that a committed blob is not there. */
int blob_unknown(const struct blob_ref *blob, struct err *err);
/* Says that a committed blob is shorter or longer than its row has it. */
int blob_has_other_size(const struct blob_ref *blob, struct err *err);

#endif
