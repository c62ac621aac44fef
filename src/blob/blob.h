/* blob: a store of bytes by digest. Knows no repository and no database.
 *
 * A blob is written into a staged upload, hashed in the same pass, and committed under its digest:
 * after blob_upload_commit its bytes are durable and nobody can find them yet; whoever owns the
 * database makes them visible. Backends are a table of functions (blob_int.h); blob_fs.c is one:
 *   <root>/blobs/sha256/ab/abcdef…   committed, read-only
 *   <root>/uploads/<id>              staged; same file system
 * Threads: the store from any; an upload belongs to one thread at a time. */
#ifndef HOLDFAST_BLOB_H
#define HOLDFAST_BLOB_H

#include "base/base.h"
#include "oci/oci.h"

struct blob_store;
struct blob_upload;

#define BLOB_UPLOAD_ID_BYTES 36 /* a UUID as text, without the NUL */

/* Opens or creates the file-system store below the folder `root`, which exists and is on one file
 * system with everything below it.
 * Errors: IO (names the path and what to do: permissions, read-only), FULL. ret: owned. */
int blob_store_open_fs(const char *root, struct blob_store **ret, struct err *err) MUST_CHECK;
/* Takes NULL. */
void blob_store_close(struct blob_store *store);
/* Proves that the store can be written: makes, syncs and removes a small file. */
int blob_store_ping(struct blob_store *store, struct err *err) MUST_CHECK;
/* Bytes free and in all on the store's file system. */
int blob_store_space(struct blob_store *store, uint64_t *ret_free, uint64_t *ret_total,
                     struct err *err) MUST_CHECK;

/* ---- Writing ---- */

/* Begins an upload under a fresh id (a random UUID as text, written to ret_id with its NUL).
 * The caller holds it exclusively until blob_upload_close. ret: owned. Errors: IO, FULL. */
int blob_upload_create(struct blob_store *store, enum hash_algorithm algorithm,
                       char ret_id[BLOB_UPLOAD_ID_BYTES + 1], struct blob_upload **ret,
                       struct err *err) MUST_CHECK;
/* Takes hold of an upload, exclusively, and changes nothing: what was acknowledged is to be looked
 * up now, and not before. Then comes blob_upload_resume, or blob_upload_close.
 * Errors: NOT_FOUND (discarded), BUSY (somebody holds it), INVALID (the id is not one of ours), IO.
 * ret: owned. */
int blob_upload_hold(struct blob_store *store, struct str id, struct blob_upload **ret,
                     struct err *err) MUST_CHECK;
/* Goes on with an upload that is held at byte `offset`: bytes beyond it (written, never
 * acknowledged) are cut off. `hash_state` is what blob_upload_hash_state gave at that offset; when
 * it is of another library version the staged bytes are hashed again.
 * Errors: CORRUPT (fewer bytes than `offset`), IO, FULL. */
int blob_upload_resume(struct blob_upload *upload, uint64_t offset, struct str hash_state,
                       struct err *err) MUST_CHECK;
/* Appends and hashes in one pass; constant memory. Errors: FULL, IO; none of the bytes count then,
 * the upload takes nothing more, and what was staged up to the last blob_upload_sync is still
 * whole: close it and go on from there by blob_upload_resume. */
int blob_upload_write(struct blob_upload *upload, const void *p, size_t n,
                      struct err *err) MUST_CHECK;
/* Bytes staged so far. */
uint64_t blob_upload_offset(const struct blob_upload *upload);
/* Makes what was written durable, so that it may be acknowledged. Errors: FULL, IO, as above. */
int blob_upload_sync(struct blob_upload *upload, struct err *err) MUST_CHECK;
/* The running hash at the current offset, to be stored beside it. Returns its length. */
size_t blob_upload_hash_state(const struct blob_upload *upload, uint8_t out[HASH_SAVED_BYTES_MAX]);
/* Compares the content with `digest` (hashing the staged bytes again when the digest's algorithm is
 * not the running one), makes it durable and names it by its digest: link, sync of the folder. That
 * it is there already is success. Afterwards only blob_upload_close may be called, and, when the
 * row that names the blob is committed, blob_upload_discard; until then the upload can be taken up
 * again at what was acknowledged, should a crash come between. Errors: INVALID with code
 * DIGEST_INVALID (says both digests; the upload is untouched); FULL, IO, NOT_FOUND (discarded
 * meanwhile), CORRUPT (the staged file was changed): as after a failed write, and the whole blob
 * may have its name already, or nothing has. */
int blob_upload_commit(struct blob_upload *upload, const struct oci_digest *digest,
                       struct err *err) MUST_CHECK;
/* Lets go of the upload; staged bytes stay for the next blob_upload_resume. Takes NULL. */
void blob_upload_close(struct blob_upload *upload);
/* Removes the staged bytes of an upload. That they are not there is success. Errors: IO, INVALID.
 */
int blob_upload_discard(struct blob_store *store, struct str id, struct err *err) MUST_CHECK;

static inline void blob_upload_close_auto(struct blob_upload **upload)
{
    blob_upload_close(*upload);
}
#define auto_upload __attribute__((cleanup(blob_upload_close_auto), unused)) struct blob_upload *

/* ---- Reading ---- */

/* Opens a committed blob. ret_fd: owned, positioned at 0, regular file; ret_size: its bytes.
 * Errors: NOT_FOUND, IO. */
int blob_open(struct blob_store *store, const struct oci_digest *digest, int *ret_fd,
              uint64_t *ret_size, struct err *err) MUST_CHECK;
/* Removes a committed blob. That it is not there is success; after a power cut it may be back.
 * Errors: IO. */
int blob_delete(struct blob_store *store, const struct oci_digest *digest,
                struct err *err) MUST_CHECK;
/* Hashes a committed blob again. *ret_same false: its bytes are not what its name says.
 * Errors: NOT_FOUND, IO. */
int blob_verify(struct blob_store *store, const struct oci_digest *digest, bool *ret_same,
                struct err *err) MUST_CHECK;

/* ---- Walking, for fsck ---- */

struct blob_walk {
    /* Each returns 0 to go on, -1 with *err to stop; NULL: not wanted. They may push, discard and
     * delete. An upload is also reported while somebody writes it. */
    int (*blob)(void *context, const struct oci_digest *digest, uint64_t size, struct err *err);
    int (*upload)(void *context, struct str id, uint64_t size, struct wall_us changed,
                  struct err *err);
    /* A file or folder that this store did not make; path relative to the root. */
    int (*stray)(void *context, const char *path, struct err *err);
};
/* In no order; what comes or goes meanwhile may be reported or not. Errors: IO, or what a callback
 * gave. */
int blob_walk(struct blob_store *store, const struct blob_walk *walk, void *context,
              struct err *err) MUST_CHECK;

#endif
