/* blob: a store of bytes by digest. Knows no repository and no database.
 *
 * A blob is written into a staged upload, hashed in the same pass, and committed under its digest:
 * after blob_upload_commit its bytes are durable and nobody can find them yet; whoever owns the
 * database makes them visible. Backends are a table of functions (blob_int.h):
 *   blob_fs.c  <root>/blobs/sha256/ab/abcdef…   committed, read-only
 *              <root>/uploads/<id>              staged; same file system
 *   blob_s3.c  <prefix>blobs/ab/<random>        an object, whatever its state: the database knows
 *                                               which of them are blobs and which are staged
 * Threads: the store from any; an upload belongs to one thread at a time. */
#ifndef HOLDFAST_BLOB_H
#define HOLDFAST_BLOB_H

#include "base/base.h"
#include "base/stream.h"
#include "oci/oci.h"

struct blob_store;
struct blob_upload;

#define BLOB_UPLOAD_ID_BYTES 36 /* a UUID as text, without the NUL */

/* A committed blob, as its row describes it. */
struct blob_ref {
    struct oci_digest digest;
    uint64_t size;
    struct str location; /* what blob_upload_commit gave; empty where the digest says it all */
};
#define BLOB_LOCATION_BYTES_MAX 200

/* Opens or creates the file-system store below the folder `root`, which exists and is on one file
 * system with everything below it.
 * Errors: IO (names the path and what to do: permissions, read-only), FULL. ret: owned. */
int blob_store_open_fs(const char *root, struct blob_store **ret, struct err *err) MUST_CHECK;

struct s3; /* s3/s3.h */
struct blob_s3_options {
    size_t part_bytes;   /* of a multipart upload: 5 MiB at least. An upload holds a part and 5 MiB
                            in memory, once it has come to that; what is smaller is one object. A
                            blob has 10,000 parts at most, and each acknowledgement may end one */
    bool redirect;       /* blob_redirect gives URLs */
    int64_t redirect_us; /* how long they are good */
};
/* The store over an object store; `s3` is taken over. Asks it for nothing. ret: owned. */
struct blob_store *blob_store_open_s3(struct s3 *s3, const struct blob_s3_options *options);

/* Takes NULL. */
void blob_store_close(struct blob_store *store);
/* Whether its calls wait for the network: then they belong on a worker thread, those that are said
 * not to wait excepted. */
bool blob_store_is_remote(const struct blob_store *store);
/* Proves that the store can be written: makes, syncs and removes something small. */
int blob_store_ping(struct blob_store *store, struct err *err) MUST_CHECK;
/* Proves that a remote store answers and takes our keys, at less cost: it is asked for something
 * that is not there. A local one is written all the same. */
int blob_store_look(struct blob_store *store, struct err *err) MUST_CHECK;
/* From then on nobody waits for a remote store: what waits fails within a second, and so does what
 * comes later (BUSY). May be said again, for another time. */
void blob_store_give_up(struct blob_store *store, struct mono_us at);
/* Bytes free and in all on the store's file system; zero both where there is no such bound. */
int blob_store_space(struct blob_store *store, uint64_t *ret_free, uint64_t *ret_total,
                     struct err *err) MUST_CHECK;

/* ---- Writing ---- */

/* Begins an upload under a fresh id (a random UUID as text, written to ret_id with its NUL).
 * The caller holds it exclusively until blob_upload_close. Does not wait. ret: owned.
 * Errors: IO, FULL. */
int blob_upload_create(struct blob_store *store, enum hash_algorithm algorithm,
                       char ret_id[BLOB_UPLOAD_ID_BYTES + 1], struct blob_upload **ret,
                       struct err *err) MUST_CHECK;
/* Whether blob_upload_hold excludes others. Where it does not, the caller sees to it (a lease in
 * the database) before it takes hold. The store sees to it that one who comes late all the same
 * never changes a blob, and that what he did to the upload is noticed before it becomes one. */
bool blob_store_excludes(const struct blob_store *store);
/* Takes hold of an upload, and changes nothing: what was acknowledged is to be looked up now, and
 * not before. Then comes blob_upload_resume, or blob_upload_close.
 * Errors: NOT_FOUND (discarded), BUSY (somebody holds it), INVALID (the id is not one of ours), IO.
 * ret: owned. */
int blob_upload_hold(struct blob_store *store, struct str id, struct blob_upload **ret,
                     struct err *err) MUST_CHECK;
/* Goes on with an upload that is held at byte `offset`: bytes beyond it (written, never
 * acknowledged) are cut off. `hash_state` and `stage` are what blob_upload_hash_state and
 * blob_upload_stage gave at that offset; when the hash is of another library version the staged
 * bytes are hashed again, where they can be read.
 * Errors: CORRUPT (fewer bytes than `offset`, a stage that is not one of ours, a hash that cannot
 * be had), IO, FULL. */
int blob_upload_resume(struct blob_upload *upload, uint64_t offset, struct str hash_state,
                       struct str stage, struct err *err) MUST_CHECK;
/* Appends and hashes in one pass; constant memory. Errors: FULL, IO, TOO_LARGE (more than the store
 * can take); none of the bytes count then, the upload takes nothing more, and what was staged up to
 * the last blob_upload_sync is still whole: close it and go on from there by blob_upload_resume. */
int blob_upload_write(struct blob_upload *upload, const void *p, size_t n,
                      struct err *err) MUST_CHECK;
/* Bytes staged so far. */
uint64_t blob_upload_offset(const struct blob_upload *upload);
/* Makes what was written durable, so that it may be acknowledged. Errors: FULL, IO, as above. */
int blob_upload_sync(struct blob_upload *upload, struct err *err) MUST_CHECK;
/* The running hash at the current offset, to be stored beside it. Returns its length. */
size_t blob_upload_hash_state(const struct blob_upload *upload, uint8_t out[HASH_SAVED_BYTES_MAX]);
/* Where the staged bytes are, after blob_upload_sync, to be stored beside the hash; empty where the
 * id says it all. arena */
struct str blob_upload_stage(const struct blob_upload *upload, struct arena *arena);
/* Once the new stage is stored: removes what only the one before it named. What cannot be removed
 * is left over. */
void blob_upload_settle(struct blob_upload *upload);
/* Compares the content with `digest` (hashing the staged bytes again when the digest's algorithm is
 * not the running one), makes it durable and gives it its place: in the file system, its name by
 * digest. That it is there already is success. Afterwards only blob_upload_close may be called,
 * and, when the row that names the blob is committed, blob_upload_discard; until then the upload
 * can be taken up again at what was acknowledged, should a crash come between.
 * ret_location: for the blob's row; arena.
 * Errors: INVALID with code DIGEST_INVALID (says both digests); FULL, IO, NOT_FOUND (discarded
 * meanwhile, or changed by another writer), CORRUPT (the staged bytes were changed): as after a
 * failed write, and the whole blob may have its place already, or nothing has. */
int blob_upload_commit(struct blob_upload *upload, const struct oci_digest *digest,
                       struct arena *arena, struct str *ret_location, struct err *err) MUST_CHECK;
/* Lets go of the upload; staged bytes stay for the next blob_upload_resume. Takes NULL. */
void blob_upload_close(struct blob_upload *upload);
/* Removes the staged bytes of an upload, but not what became the blob `kept` (its location; empty:
 * nothing). `stage`: as it is stored, or as blob_walk told it. That they are not there is success.
 * Errors: IO, INVALID, CORRUPT (a stage that is not one of ours). */
int blob_upload_discard(struct blob_store *store, struct str id, struct str stage, struct str kept,
                        struct err *err) MUST_CHECK;
/* Removes all that this upload staged, acknowledged or not, but not `kept` as above: for one that
 * is over, or never had a row, and before blob_upload_close. */
int blob_upload_drop(struct blob_upload *upload, struct str kept, struct err *err) MUST_CHECK;

static inline void blob_upload_close_auto(struct blob_upload **upload)
{
    blob_upload_close(*upload);
}
#define auto_upload __attribute__((cleanup(blob_upload_close_auto), unused)) struct blob_upload *

/* ---- Reading: a location that is not one of the store's is CORRUPT ---- */

/* Bytes of a committed blob on their way to a client: one of the two. */
struct blob_content {
    int fd;                /* owned; a regular file that holds the whole blob; -1 without */
    struct stream *stream; /* owned; the `n` bytes that were asked for; NULL without */
};
/* Does not wait. Errors: NOT_FOUND (where that is known without waiting), CORRUPT (it does not have
 * its size), IO. */
int blob_open(struct blob_store *store, const struct blob_ref *blob, uint64_t offset, uint64_t n,
              const char *call_id, struct blob_content *ret, struct err *err) MUST_CHECK;
/* A URL at which a client gets the blob without us; p NULL: there is none. Waits only when the
 * store has no credentials yet. arena */
int blob_redirect(struct blob_store *store, const struct blob_ref *blob, struct arena *arena,
                  struct str *ret_url, struct err *err) MUST_CHECK;
/* Reads all of it, piece by piece, and waits for it.
 * Errors: NOT_FOUND, CORRUPT (it is shorter than its row says), IO, what `take` gave. */
int blob_read(struct blob_store *store, const struct blob_ref *blob,
              int (*take)(void *context, struct str piece, struct err *err), void *context,
              struct err *err) MUST_CHECK;
/* Its size. Errors: NOT_FOUND, IO. */
int blob_stat(struct blob_store *store, const struct blob_ref *blob, uint64_t *ret_size,
              struct err *err) MUST_CHECK;
/* Removes committed blobs, many at once. That one is not there is success; after a power cut it may
 * be back. Errors: IO. */
int blob_delete(struct blob_store *store, const struct blob_ref *blobs, size_t n,
                struct err *err) MUST_CHECK;
/* Hashes a committed blob again. *ret_same false: its bytes are not what its digest says.
 * Errors: NOT_FOUND, IO. */
int blob_verify(struct blob_store *store, const struct blob_ref *blob, bool *ret_same,
                struct err *err) MUST_CHECK;

/* ---- Walking, for fsck and the sweep of what was left over ---- */

struct blob_walk {
    /* Each returns 0 to go on, -1 with *err to stop; NULL: not wanted. They may push, discard and
     * delete.
     * blob: digest NULL where the store does not know it. It may be staged, or on its way to its
     * row: `changed` says since when. */
    int (*blob)(void *context, const struct oci_digest *digest, struct str location, uint64_t size,
                struct wall_us changed, struct err *err);
    /* An upload, also while somebody writes it. `id` is what the store knows it by and what
     * blob_upload_discard takes together with `stage`; size 0 where that is not known. */
    int (*upload)(void *context, struct str id, struct str stage, uint64_t size,
                  struct wall_us changed, struct err *err);
    /* A file or folder that this store did not make; path relative to the root. */
    int (*stray)(void *context, const char *path, struct err *err);
};
/* In no order; what comes or goes meanwhile may be reported or not. A part of the walk that nobody
 * wants is not made: uploads alone are found at little cost. Errors: IO, or what a callback gave.
 */
int blob_walk(struct blob_store *store, const struct blob_walk *walk, void *context,
              struct err *err) MUST_CHECK;

#endif
