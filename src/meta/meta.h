/* meta: all SQL of the registry, one file per entity; the schema is in migrations/.
 *
 * Each function runs the one statement that stands above it, on call->db, which the caller checked
 * out: reading or writing. Transactions belong to the caller. Absence is not an error here: it is
 * told by ret_found, and the caller decides what it means. Knows no engine and no HTTP.
 * `at` is the time that a new row gets. Writes that tell nothing are queued (db_queue), so their
 * failure may come from what follows in the transaction. All return 0, or -1 with call->err: BUSY,
 * IO, FULL, CORRUPT, or, in a write transaction, AGAIN, and from its last statement (db_last)
 * UNSURE. Results live in call->arena. Threads: as the connection. */
#ifndef HOLDFAST_META_H
#define HOLDFAST_META_H

#include "db/db.h"
#include "oci/oci.h"

/* Brings the schema up to date. Errors: as db_migrate. */
int meta_migrate(struct db *db, struct err *err) MUST_CHECK;

/* Changes nothing. Errors: NOT_FOUND (there is no schema), UNSUPPORTED (it is older or newer than
 * this program's). */
int meta_check(struct db *db, struct err *err) MUST_CHECK;

/* Who this registry is: 32 random hexadecimal digits that it gets when it is made. *ret_origin: of
 * the one that it is a copy of; empty: it leads a life of its own. arena */
int meta_identity(struct call *call, struct str *ret_id, struct str *ret_origin) MUST_CHECK;
int meta_identity_set(struct call *call, struct str id, struct str origin) MUST_CHECK;

/* Of a look-up by a repository's name. */
enum meta_found { META_NO_REPOSITORY, META_NOTHING, META_FOUND };

/* A row's text, in ascending byte order. Return 0 to go on; -1 with *err ends the list with it. */
typedef int (*meta_text_fn)(void *context, struct str text, struct err *err);

/* ---- Repositories ---- */

int meta_repository_find(struct call *call, const struct oci_name *name, int64_t *ret_id,
                         bool *ret_found) MUST_CHECK;
/* Finds the repository or makes it. */
int meta_repository_ensure(struct call *call, const struct oci_name *name, struct wall_us at,
                           int64_t *ret_id) MUST_CHECK;
/* At most `limit` names after `after`. */
int meta_repository_list(struct call *call, struct str after, int64_t limit, meta_text_fn each,
                         void *context) MUST_CHECK;

/* ---- Blobs ---- */

struct meta_blob {
    int64_t id;
    uint64_t size;       /* bytes */
    struct str location; /* where the blob store has it, in its words */
};

/* The blob, when the repository of that name links it. */
int meta_blob_find(struct call *call, const struct oci_name *repository,
                   const struct oci_digest *digest, struct meta_blob *ret,
                   enum meta_found *ret_found) MUST_CHECK;
/* The blob, when any repository links it. */
int meta_blob_find_anywhere(struct call *call, const struct oci_digest *digest,
                            struct meta_blob *ret, bool *ret_found) MUST_CHECK;
/* Records a blob whose bytes are durable in the store. That it is known already is success; then
 * *ret has the location of the one that is. */
int meta_blob_adopt(struct call *call, const struct oci_digest *digest, uint64_t size,
                    struct str location, struct wall_us at, struct meta_blob *ret) MUST_CHECK;
/* The same, and links it to the repository. */
int meta_blob_adopt_into(struct call *call, int64_t repository_id, const struct oci_digest *digest,
                         uint64_t size, struct str location, struct wall_us at,
                         struct meta_blob *ret) MUST_CHECK;
/* That the link is there already is success. */
int meta_blob_link(struct call *call, int64_t repository_id, int64_t blob_id,
                   struct wall_us at) MUST_CHECK;
int meta_blob_unlink(struct call *call, int64_t repository_id, int64_t blob_id) MUST_CHECK;

/* ---- Manifests ---- */

struct meta_manifest {
    int64_t id;
    struct str digest;
    struct str media_type;
    uint64_t size;
    struct str content; /* p is NULL unless it was asked for */
};

/* One SELECT: the manifest that a tag or a digest names in the repository of that name. */
int meta_manifest_find(struct call *call, const struct oci_name *repository,
                       const struct oci_reference *reference, bool want_content,
                       struct meta_manifest *ret, enum meta_found *ret_found) MUST_CHECK;
int meta_manifest_find_id(struct call *call, int64_t repository_id, const struct oci_digest *digest,
                          int64_t *ret_id, bool *ret_found) MUST_CHECK;
/* Records the manifest and what it needs to be whole. *ret_id is the id of the one that is there
 * when the repository holds this digest already; then nothing is written. */
int meta_manifest_put(struct call *call, int64_t repository_id, const struct oci_digest *digest,
                      const struct oci_manifest *manifest, struct str content, struct wall_us at,
                      int64_t *ret_id) MUST_CHECK;
/* Also deletes its tags. */
int meta_manifest_delete(struct call *call, int64_t id) MUST_CHECK;
/* What a manifest names that it needs to be whole, in the order of digests, with what its
 * repository has of that name: a blob that it links, a manifest, both, or nothing. One statement,
 * however many there are; at most `limit`. ret: room for these; arena for what they point at. */
struct meta_need {
    struct str digest;
    bool is_blob;
    bool is_manifest;
    uint64_t blob_size;
    uint64_t manifest_size;
};
int meta_need_list(struct call *call, int64_t repository_id, int64_t manifest_id, size_t limit,
                   struct meta_need *ret, size_t *ret_n) MUST_CHECK;
/* Size of what a manifest of this repository may refer to by that digest: a blob that it links, or,
 * for OCI_REFERENCE_CHILD, a manifest too. */
int meta_content_find(struct call *call, int64_t repository_id, enum oci_reference_kind kind,
                      const struct oci_digest *digest, uint64_t *ret_size,
                      bool *ret_found) MUST_CHECK;
/* The digest of a manifest of this repository that needs `digest` to be whole. */
int meta_dependent_find(struct call *call, int64_t repository_id, const struct oci_digest *digest,
                        struct str *ret_dependent, bool *ret_found) MUST_CHECK;
/* Calls `each` for the manifests whose subject is `subject` and whose digest comes after `after`,
 * in the order of digests. *ret_stopped: `each` returned false to end the list before its end. */
int meta_referrer_list(struct call *call, int64_t repository_id, const struct oci_digest *subject,
                       struct str after,
                       bool (*each)(void *context, const struct oci_referrer *referrer),
                       void *context, bool *ret_stopped) MUST_CHECK;

/* ---- Tags ---- */

int meta_tag_set(struct call *call, int64_t repository_id, const struct oci_tag *tag,
                 int64_t manifest_id, struct wall_us at) MUST_CHECK;
int meta_tag_delete(struct call *call, int64_t repository_id, const struct oci_tag *tag,
                    bool *ret_found) MUST_CHECK;
/* At most `limit` names after `after`. */
int meta_tag_list(struct call *call, int64_t repository_id, struct str after, int64_t limit,
                  meta_text_fn each, void *context) MUST_CHECK;

/* ---- Uploads ---- */

struct meta_upload {
    int64_t repository_id;
    uint64_t received;     /* bytes acknowledged */
    struct str hash_state; /* of hash_save, at that byte */
    struct str stage;      /* where the blob store has them, in its words */
};

/* *ret_found false: there is no repository of that name, and so no upload. */
int meta_upload_insert(struct call *call, const struct oci_name *repository, struct str id,
                       struct str hash_state, bool *ret_found) MUST_CHECK;
/* The upload, when it belongs to the repository of that name. */
int meta_upload_find(struct call *call, const struct oci_name *repository, struct str id,
                     struct meta_upload *ret, bool *ret_found) MUST_CHECK;
/* Takes the right to write, for the holder of the random text `hold`, unless another has it at
 * `now`; who has it himself takes it again. *ret_held false: another has it, or there is no such
 * upload. */
int meta_upload_hold(struct call *call, const struct oci_name *repository, struct str id,
                     struct str hold, struct wall_us now, struct wall_us until,
                     struct meta_upload *ret, bool *ret_held) MUST_CHECK;
/* The three below change the upload only while `hold` has it; an empty one is nobody's, and right
 * where nobody holds by rows. *ret_found false: it has not. */
int meta_upload_renew(struct call *call, struct str id, struct str hold, struct wall_us until,
                      bool *ret_found) MUST_CHECK;
/* Lets go, too. */
int meta_upload_advance(struct call *call, struct str id, struct str hold,
                        const struct meta_upload *upload, bool *ret_found) MUST_CHECK;
int meta_upload_delete(struct call *call, struct str id, struct str hold,
                       bool *ret_found) MUST_CHECK;
/* Lets go of it and changes nothing else. */
int meta_upload_release(struct call *call, struct str id, struct str hold) MUST_CHECK;
/* Lets go of all: whoever held them is gone. */
int meta_upload_release_all(struct call *call) MUST_CHECK;
/* Deletes it when nothing touched it since `before` and nobody holds it at `now`. */
int meta_upload_delete_stale(struct call *call, struct str id, struct wall_us before,
                             struct wall_us now) MUST_CHECK;
int meta_upload_exists(struct call *call, struct str id, bool *ret_found) MUST_CHECK;
/* The next upload in the order of ids that nothing touched since `before`. */
int meta_upload_next(struct call *call, struct str after, struct wall_us before, struct str *ret_id,
                     struct meta_upload *ret, bool *ret_found) MUST_CHECK;

/* ---- Jobs ---- */

#define META_JOB_KINDS_MAX 16

struct meta_job {
    int64_t id;
    struct str kind;
    struct str key;
    struct str payload;
    int64_t every_us; /* due again that long after each end; 0: goes when it is done */
    int64_t attempts; /* begun so often since it last ended well, this time included */
};

/* Of the same kind and key there is one: who waits is moved to the earlier of the two times and
 * takes the new payload; who runs does so once more. */
int meta_job_queue(struct call *call, struct str kind, struct str key, struct str payload,
                   struct wall_us when) MUST_CHECK;
/* Gives the kind its one row with an empty key, due now, or that row the new interval. */
int meta_job_repeat(struct call *call, struct str kind, int64_t every_us,
                    struct wall_us now) MUST_CHECK;
/* Takes its interval away: it runs once more. */
int meta_job_repeat_stop(struct call *call, struct str kind) MUST_CHECK;
/* Of these kinds, at most META_JOB_KINDS_MAX, what may be taken, the longest due first. */
int meta_job_due(struct call *call, const struct str *kinds, size_t n_kinds, struct wall_us now,
                 int64_t limit, int64_t *ret_ids, size_t *ret_n) MUST_CHECK;
/* Takes it under the lease, a random text. *ret_found false: another was first. */
int meta_job_claim(struct call *call, int64_t id, struct str lease, struct wall_us now,
                   struct wall_us until, struct meta_job *ret, bool *ret_found) MUST_CHECK;
/* *ret_held false, here and below: the lease is not on that row any more, and nothing was changed.
 * True: until the transaction ends, no other can take the job. */
int meta_job_hold(struct call *call, int64_t id, struct str lease, struct wall_us until,
                  bool *ret_held) MUST_CHECK;
int meta_job_done(struct call *call, int64_t id, struct str lease, struct wall_us now,
                  bool *ret_held) MUST_CHECK;
/* Due again at `when`, or when it was queued for meanwhile. */
int meta_job_failed(struct call *call, int64_t id, struct str lease, struct wall_us when,
                    struct str error, bool *ret_held) MUST_CHECK;
/* As if it had not been begun; due at once. */
int meta_job_return(struct call *call, int64_t id, struct str lease, struct wall_us now,
                    bool *ret_held) MUST_CHECK;

/* ---- Totals and checks ---- */

struct meta_totals {
    uint64_t repositories;
    uint64_t blobs;
    uint64_t blob_bytes;
    uint64_t manifests;
    uint64_t tags;
    uint64_t uploads;
};
int meta_totals(struct call *call, struct meta_totals *ret) MUST_CHECK;
/* PostgreSQL keeps a row for each change of a total: makes one of each name's. */
int meta_totals_fold(struct call *call) MUST_CHECK;

/* For fsck: rows in the order of ids, from `after_id` on, at most `limit` at a time; *ret_n is how
 * many there were. Arena. */
struct meta_blob_row {
    int64_t id;
    struct oci_digest digest;
    uint64_t size;
    struct str location;
    bool linked; /* by a repository */
};
int meta_blob_rows(struct call *call, int64_t after_id, int64_t limit, struct meta_blob_row *ret,
                   size_t *ret_n) MUST_CHECK;
struct meta_manifest_row {
    int64_t id;
    int64_t repository_id;
    struct str repository;
    struct str digest;
    struct str media_type;
    struct str content;
};
/* The next manifest after `after_id`; *ret_found false at the end. */
int meta_manifest_next(struct call *call, int64_t after_id, struct meta_manifest_row *ret,
                       bool *ret_found) MUST_CHECK;
/* A repository, the next after `after_repository` in the order of ids, in which a manifest needs
 * `digest`; and one such manifest. */
struct meta_dependent {
    int64_t repository_id;
    struct str repository;
    struct str manifest; /* its digest */
};
int meta_dependent_next(struct call *call, int64_t after_repository,
                        const struct oci_digest *digest, struct meta_dependent *ret,
                        bool *ret_found) MUST_CHECK;
/* The row of a blob, linked or not. */
int meta_blob_find_row(struct call *call, const struct oci_digest *digest, struct meta_blob *ret,
                       bool *ret_found) MUST_CHECK;
/* Whether a blob's row, or an upload's, names this place of the blob store. */
int meta_location_find(struct call *call, struct str location, bool *ret_found) MUST_CHECK;
/* Removes a blob and its links. */
int meta_blob_delete(struct call *call, int64_t id) MUST_CHECK;

/* ---- Copies of whole registries ---- */

/* The next repository after `after`, in the order of names. */
struct meta_repository_row {
    int64_t id;
    struct str name;
    struct wall_us created_at;
};
int meta_repository_next(struct call *call, struct str after, struct meta_repository_row *ret,
                         bool *ret_found) MUST_CHECK;
/* Removes one that has no links, manifests or tags any more, with its uploads: who held them is
 * gone, and what they staged is left over. Errors: CONFLICT (it has some). */
int meta_repository_delete(struct call *call, int64_t id) MUST_CHECK;

/* At most `limit` rows of a repository whose key comes after `after`, in the order of keys:
 * digests, or tags' names. ret: room for `limit`; arena for what they point at. */
struct meta_page {
    int64_t repository_id;
    struct str after;
    size_t limit;
};
struct meta_link_row { /* a blob that the repository links */
    struct str digest;
    uint64_t size;
    struct str location;
    struct wall_us created_at; /* of the blob */
    struct wall_us linked_at;
};
/* walk: go through the blobs of all repositories in the order of their index, from page->after on,
 * until enough of this one are found; else its links are sorted for each page. */
int meta_link_rows(struct call *call, const struct meta_page *page, bool walk,
                   struct meta_link_row *ret, size_t *ret_n) MUST_CHECK;
/* Which of both takes less for a list of many such pages: the walk, when the repository has many of
 * all blobs. One look, of which each page of the list makes use. */
int meta_link_prefer_walk(struct call *call, const struct meta_page *page,
                          bool *ret_walk) MUST_CHECK;
struct meta_manifest_head {
    int64_t id;
    struct str digest;
    struct str media_type;
    struct wall_us pushed_at;
    uint64_t size;
};
int meta_manifest_heads(struct call *call, const struct meta_page *page,
                        struct meta_manifest_head *ret, size_t *ret_n) MUST_CHECK;
int meta_manifest_content(struct call *call, int64_t id, struct str *ret,
                          bool *ret_found) MUST_CHECK;
struct meta_tag_row {
    struct str name;
    struct str digest; /* of its manifest */
    struct wall_us updated_at;
};
int meta_tag_rows(struct call *call, const struct meta_page *page, struct meta_tag_row *ret,
                  size_t *ret_n) MUST_CHECK;

#endif
