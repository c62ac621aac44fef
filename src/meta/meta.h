/* meta: all SQL of the registry, one file per entity; the schema is in migrations/.
 *
 * Each function runs the one statement that stands above it, on call->db, which the caller checked
 * out: reading or writing. Transactions belong to the caller. Absence is not an error here: it is
 * told by ret_found, and the caller decides what it means. Knows no engine and no HTTP.
 * All return 0, or -1 with call->err: BUSY, IO, FULL or CORRUPT. Results live in call->arena.
 * Threads: as the connection. */
#ifndef HOLDFAST_META_H
#define HOLDFAST_META_H

#include "db/db.h"
#include "oci/oci.h"

/* Brings the schema up to date. Errors: as db_migrate. */
int meta_migrate(struct db *db, struct err *err) MUST_CHECK;

/* A row's text, in ascending byte order. Return 0 to go on; -1 with *err ends the list with it. */
typedef int (*meta_text_fn)(void *context, struct str text, struct err *err);

/* ---- Repositories ---- */

int meta_repository_find(struct call *call, const struct oci_name *name, int64_t *ret_id,
                         bool *ret_found) MUST_CHECK;
/* Finds the repository or makes it. */
int meta_repository_ensure(struct call *call, const struct oci_name *name,
                           int64_t *ret_id) MUST_CHECK;
/* At most `limit` names after `after`. */
int meta_repository_list(struct call *call, struct str after, int64_t limit, meta_text_fn each,
                         void *context) MUST_CHECK;

/* ---- Blobs ---- */

struct meta_blob {
    int64_t id;
    uint64_t size; /* bytes */
};

/* The blob, when the repository of that name links it. */
int meta_blob_find(struct call *call, const struct oci_name *repository,
                   const struct oci_digest *digest, struct meta_blob *ret,
                   bool *ret_found) MUST_CHECK;
/* The blob, when any repository links it. */
int meta_blob_find_anywhere(struct call *call, const struct oci_digest *digest,
                            struct meta_blob *ret, bool *ret_found) MUST_CHECK;
/* Records a blob whose bytes are durable in the store. That it is known already is success. */
int meta_blob_adopt(struct call *call, const struct oci_digest *digest, uint64_t size,
                    int64_t *ret_id) MUST_CHECK;
/* That the link is there already is success. */
int meta_blob_link(struct call *call, int64_t repository_id, int64_t blob_id) MUST_CHECK;
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
                       struct meta_manifest *ret, bool *ret_found) MUST_CHECK;
/* Records the manifest and what it needs to be whole. *ret_id is the id of the one that is there
 * when the repository holds this digest already; then nothing is written. */
int meta_manifest_put(struct call *call, int64_t repository_id, const struct oci_digest *digest,
                      const struct oci_manifest *manifest, struct str content,
                      int64_t *ret_id) MUST_CHECK;
/* Also deletes its tags. */
int meta_manifest_delete(struct call *call, int64_t id) MUST_CHECK;
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
                 int64_t manifest_id) MUST_CHECK;
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
};

int meta_upload_insert(struct call *call, int64_t repository_id, struct str id,
                       struct str hash_state) MUST_CHECK;
/* The upload, when it belongs to the repository of that name. */
int meta_upload_find(struct call *call, const struct oci_name *repository, struct str id,
                     struct meta_upload *ret, bool *ret_found) MUST_CHECK;
int meta_upload_advance(struct call *call, struct str id, uint64_t received, struct str hash_state,
                        bool *ret_found) MUST_CHECK;
int meta_upload_delete(struct call *call, struct str id) MUST_CHECK;
/* Deletes it when nothing touched it since `before`. */
int meta_upload_delete_stale(struct call *call, struct str id, struct wall_us before) MUST_CHECK;
int meta_upload_exists(struct call *call, struct str id, bool *ret_found) MUST_CHECK;
/* The next upload in the order of ids that nothing touched since `before`. */
int meta_upload_next(struct call *call, struct str after, struct wall_us before, struct str *ret_id,
                     uint64_t *ret_received, bool *ret_found) MUST_CHECK;

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

/* For fsck: rows in the order of ids, from `after_id` on, at most `limit` at a time; *ret_n is how
 * many there were. Arena. */
struct meta_blob_row {
    int64_t id;
    struct oci_digest digest;
    uint64_t size;
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
/* Removes a blob and its links. */
int meta_blob_delete(struct call *call, int64_t id) MUST_CHECK;

#endif
