/* registry: the verbs of a registry and their rules: pull, push, upload, mount, tag, delete, list.
 *
 * The one core that every dialect of HTTP above it translates to. A verb checks its connection out,
 * runs one transaction, and gives everything back; bytes are durable before the row that names
 * them is committed. Knows no HTTP and no JSON but what oci reads.
 *
 * Many nodes may serve the same registry, over PostgreSQL and an object store: nothing is kept here
 * but what was looked up lately, and that is forgotten when another node changes it.
 *
 * All verbs return 0, or -1 with call->err; besides those named, any may fail with BUSY, IO, FULL,
 * CORRUPT or UNSURE. Results live in call->arena. Threads: any. "Waits" marks verbs that wait for
 * the disk: they write. Where registry_is_remote, all wait but those that say that they do not. */
#ifndef HOLDFAST_REGISTRY_H
#define HOLDFAST_REGISTRY_H

#include "base/base.h"
#include "base/stream.h"
#include "oci/oci.h"

struct registry;
struct blob_store;
struct db;

enum registry_use {
    REGISTRY_SERVE,
    REGISTRY_SERVE_READ_ONLY, /* no verb that changes something will be used */
    REGISTRY_ALONE,           /* nobody else may use it: to repair it, or to make it a copy */
    REGISTRY_OBSERVE,         /* reads, beside one who serves; locks nothing, changes nothing */
};

struct registry_options {
    enum registry_use use;
    const char *data;         /* folder, made when it is not there; for what is not elsewhere */
    const char *metadata;     /* URL of the database; NULL: SQLite in the data folder */
    struct blob_store *blobs; /* taken over, also on failure; NULL: files in the data folder */
    unsigned readers;         /* database connections */
    int64_t busy_us;          /* patience for a database connection */
    int64_t expire_us;        /* an upload that receives nothing for so long is removed */
    int64_t lease_us;         /* a node that is not heard of for so long loses its uploads */
    size_t cache_bytes;       /* of look-ups that are kept */
    void (*observe)(void *context, bool write, int64_t us); /* as in struct db_options */
    void *observe_context;
};

/* Opens the registry. Its data folder, if it has one, exclusively: another process that has it open
 * is an error, BUSY; and so is another process at the database that is ALONE, or any when this one
 * is to be. Who serves makes the registry one of its own, when it was a copy of another.
 * Errors: IO, FULL, CORRUPT, UNSUPPORTED (what is stored is newer than this program; to OBSERVE,
 * also older), NOT_FOUND (there is nothing to OBSERVE), DENIED, INVALID; `say` names the path and
 * what to do. ret: owned. */
int registry_open(const struct registry_options *options, struct registry **ret,
                  struct err *err) MUST_CHECK;
/* For the end of the process: in `in_us` nobody waits for the object store any more, and what
 * uploads that broke off have staged is left to expire. Said again, the earlier time counts. Takes
 * NULL. */
void registry_give_up(struct registry *registry, int64_t in_us);
/* Takes NULL. */
void registry_close(struct registry *registry);
/* Whether the database or the blob store is on the other side of a network. */
bool registry_is_remote(const struct registry *registry);
/* For jobs, and for what copies whole registries. borrowed */
struct db *registry_db(struct registry *registry);
struct blob_store *registry_blobs(struct registry *registry);

/* ---- Blobs ---- */

struct registry_blob {
    struct oci_digest digest;
    uint64_t size;
    struct str location; /* of the blob store */
};
/* Errors: NOT_FOUND with BLOB_UNKNOWN or NAME_UNKNOWN.
 * Spec: dist-spec, "Pulling blobs", "Checking if content exists in the registry". */
int registry_blob_find(struct call *call, struct registry *registry, const struct oci_name *name,
                       const struct oci_digest *digest, struct registry_blob *ret) MUST_CHECK;
/* The same from memory, without waiting; false: it is not known there. */
bool registry_blob_known(struct call *call, struct registry *registry, const struct oci_name *name,
                         const struct oci_digest *digest, struct registry_blob *ret);
/* A URL from which a client may GET the blob; p NULL: it has to be opened. Does not wait. */
int registry_blob_redirect(struct call *call, struct registry *registry,
                           const struct registry_blob *blob, struct str *ret_url) MUST_CHECK;
/* One of the two, owned by the caller. */
struct registry_content {
    int fd;                /* of a file with the whole blob; -1 without */
    struct stream *stream; /* of the `n` bytes from `offset`; NULL without */
};
/* Opens `n` bytes of it. Does not wait. */
int registry_blob_open(struct call *call, struct registry *registry,
                       const struct registry_blob *blob, uint64_t offset, uint64_t n,
                       struct registry_content *ret) MUST_CHECK;
/* Links a blob of the repository `from`, or, when that is NULL, of any, to `name`. Bytes are never
 * copied. *ret_mounted false: there is none to mount. Waits.
 * Spec: dist-spec, "Mounting a blob from another repository". */
int registry_blob_mount(struct call *call, struct registry *registry, const struct oci_name *name,
                        const struct oci_digest *digest, const struct oci_name *from,
                        bool *ret_mounted) MUST_CHECK;
/* Unlinks the blob from this repository. Waits. Errors: NOT_FOUND; UNSUPPORTED when a manifest of
 * the repository needs it. Spec: dist-spec, "Deleting blobs". */
int registry_blob_delete(struct call *call, struct registry *registry, const struct oci_name *name,
                         const struct oci_digest *digest) MUST_CHECK;

/* ---- Uploads ---- */

/* An upload that this caller holds, exclusively. */
struct registry_upload;

/* Begins an upload; a repository that is not there comes into being. Waits.
 * Spec: dist-spec, "Pushing blobs". ret: owned. */
int registry_upload_start(struct call *call, struct registry *registry, const struct oci_name *name,
                          enum hash_algorithm algorithm, struct registry_upload **ret) MUST_CHECK;
/* Begins one whose blob comes in the same request: it cannot be taken up again, so nothing is
 * recorded before registry_upload_finish. ret: owned. */
int registry_upload_start_whole(struct call *call, struct registry *registry,
                                const struct oci_name *name, enum hash_algorithm algorithm,
                                struct registry_upload **ret) MUST_CHECK;
/* Takes an upload up where it was acknowledged last, on whichever node that was.
 * Errors: NOT_FOUND with BLOB_UPLOAD_UNKNOWN; BUSY when another request is writing it. ret: owned.
 */
int registry_upload_open(struct call *call, struct registry *registry, const struct oci_name *name,
                         struct str id, struct registry_upload **ret) MUST_CHECK;
/* borrowed */
struct str registry_upload_id(const struct registry_upload *upload);
/* Bytes received, acknowledged or not. */
uint64_t registry_upload_received(const struct registry_upload *upload);
/* Appends to what was received. Errors: FULL, IO. */
int registry_upload_write(struct call *call, struct registry_upload *upload,
                          struct str piece) MUST_CHECK;
/* Makes what was received durable, so that it may be acknowledged, and lets others go on with it:
 * nothing more is to be written here. Waits. Errors: NOT_FOUND with BLOB_UPLOAD_UNKNOWN when it
 * expired or another request has taken it over meanwhile. */
int registry_upload_save(struct call *call, struct registry_upload *upload) MUST_CHECK;
/* Ends the upload as the blob of that digest, linked to its repository: durable and visible when
 * this returns. Waits. Errors: INVALID with DIGEST_INVALID, or NOT_FOUND with BLOB_UPLOAD_UNKNOWN
 * when its bytes are gone or another writer changed them; the upload is then discarded.
 * Spec: dist-spec, "Pushing blobs", closing request. */
int registry_upload_finish(struct call *call, struct registry_upload *upload,
                           const struct oci_digest *digest) MUST_CHECK;
/* Drops the upload and its bytes. Waits. Spec: dist-spec dev, end-14. */
int registry_upload_cancel(struct call *call, struct registry_upload *upload) MUST_CHECK;
/* Lets go of it; what was acknowledged stays for registry_upload_open, which works as soon as this
 * returns. Waits. Takes NULL. */
void registry_upload_end(struct registry_upload *upload);
/* The same, soon, and without waiting. */
void registry_upload_close(struct registry_upload *upload);

/* Bytes acknowledged. Errors: NOT_FOUND with BLOB_UPLOAD_UNKNOWN. */
int registry_upload_status(struct call *call, struct registry *registry,
                           const struct oci_name *name, struct str id,
                           uint64_t *ret_received) MUST_CHECK;
/* Removes uploads that received nothing for expire_us, and what broken ones have left behind.
 * Waits. ret_n: how many. */
int registry_uploads_expire(struct call *call, struct registry *registry, size_t *ret_n) MUST_CHECK;

/* ---- Manifests and tags ---- */

struct registry_manifest {
    struct str digest;
    struct str media_type;
    uint64_t size;
    struct str content; /* p NULL when it was not asked for */
};
/* Errors: NOT_FOUND with MANIFEST_UNKNOWN or NAME_UNKNOWN. Spec: dist-spec, "Pulling manifests". */
int registry_manifest_pull(struct call *call, struct registry *registry,
                           const struct oci_name *name, const struct oci_reference *reference,
                           bool want_content, struct registry_manifest *ret) MUST_CHECK;
/* The same by digest, from memory, without waiting; false: it is not known there. */
bool registry_manifest_known(struct call *call, struct registry *registry,
                             const struct oci_name *name, const struct oci_digest *digest,
                             struct registry_manifest *ret);

#define REGISTRY_TAGS_MAX 50 /* tags set by one push */

struct registry_push {
    struct oci_reference reference;
    const struct oci_tag *tags; /* more tags for it; only when pushed by digest */
    size_t n_tags;
    struct str content_type; /* of the request, without parameters; may be empty */
    struct str content;
    struct str if_match;      /* header values; p NULL when absent */
    struct str if_none_match; /* idem */
    /* Whether such a header names `digest`, the one the reference has now (`exists`). */
    bool (*etag_matches)(struct str header, struct str digest, bool exists);
};
struct registry_pushed {
    struct oci_digest digest;
    bool has_subject;
    struct oci_digest subject;
    size_t n_foreign; /* layers that are not stored here */
};
/* Stores a manifest byte for byte and points its tags at it. Waits.
 * Errors: INVALID with MANIFEST_INVALID, DIGEST_INVALID, SIZE_INVALID, or MANIFEST_BLOB_UNKNOWN
 * (one detail for each digest that is missing); PRECONDITION. Spec: dist-spec, "Pushing manifests";
 * dev, end-7b. */
int registry_manifest_push(struct call *call, struct registry *registry,
                           const struct oci_name *name, const struct registry_push *push,
                           struct registry_pushed *ret) MUST_CHECK;
/* By tag: removes the tag. By digest: removes the manifest and its tags. Waits.
 * Errors: NOT_FOUND; UNSUPPORTED when an index of the repository lists the manifest.
 * Spec: dist-spec, "Deleting tags", "Deleting manifests". */
int registry_manifest_delete(struct call *call, struct registry *registry,
                             const struct oci_name *name,
                             const struct oci_reference *reference) MUST_CHECK;

/* ---- Lists ---- */

struct registry_page {
    struct str last; /* names after this one; may be empty */
    uint64_t limit;  /* at most so many */
};
typedef int (*registry_name_fn)(void *context, struct str name, struct err *err);

/* Errors: NOT_FOUND with NAME_UNKNOWN. *ret_last: the last name given, when more follow it; p NULL
 * otherwise. Spec: dist-spec, "Listing tags". */
int registry_tag_list(struct call *call, struct registry *registry, const struct oci_name *name,
                      const struct registry_page *page, registry_name_fn each, void *context,
                      struct str *ret_last) MUST_CHECK;
int registry_catalog(struct call *call, struct registry *registry, const struct registry_page *page,
                     registry_name_fn each, void *context, struct str *ret_last) MUST_CHECK;
/* Manifests whose subject is `subject`, in the order of digests after `after`. A repository or a
 * subject that is not there has none. `each` returns false to stop; *ret_stopped tells that it did.
 * Spec: dist-spec, "Listing Referrers". */
int registry_referrer_list(struct call *call, struct registry *registry,
                           const struct oci_name *name, const struct oci_digest *subject,
                           struct str after,
                           bool (*each)(void *context, const struct oci_referrer *referrer),
                           void *context, bool *ret_stopped) MUST_CHECK;

/* ---- Operation ---- */

/* Whether the database answers, and the blob store: that it can be written is tried each time where
 * it is local, and otherwise now and then, as that is paid for. Waits. */
int registry_ready(struct call *call, struct registry *registry) MUST_CHECK;

struct registry_totals {
    uint64_t repositories;
    uint64_t blobs;
    uint64_t blob_bytes;
    uint64_t manifests;
    uint64_t tags;
    uint64_t uploads;
    uint64_t disk_free_bytes;
    uint64_t disk_total_bytes; /* 0: the blob store has no such bound */
    struct {
        uint64_t hits;
        uint64_t misses;
        uint64_t entries;
        uint64_t bytes;
    } cache; /* of this node */
};
int registry_totals(struct call *call, struct registry *registry,
                    struct registry_totals *ret) MUST_CHECK;

/* Keeps the totals short, where each change adds to them; now and then. Waits. */
int registry_totals_fold(struct call *call, struct registry *registry) MUST_CHECK;

enum registry_finding {
    REGISTRY_WRONG,    /* a difference that is there now */
    REGISTRY_REPAIRED, /* a difference that is gone now */
    REGISTRY_LEFTOVER, /* bytes that nothing needs: deleted, or of a push that broke off */
    REGISTRY_FREED,    /* idem, removed */
};
struct registry_fsck {
    bool deep;   /* hash every blob again */
    bool repair; /* mend what can be mended without losing anything that is referenced */
    void *context;
    /* One finding, as a line for people. */
    void (*found)(void *context, enum registry_finding finding, const char *text);
    /* Now and then: how much of a stage is done, in the stage's own unit. */
    void (*progress)(void *context, const char *stage, uint64_t done, uint64_t total);
};
/* Compares the database with itself and with the blob store. To repair, nothing may serve
 * meanwhile: the registry was opened `alone`. ret_wrong: differences that remain. */
int registry_fsck(struct call *call, struct registry *registry, const struct registry_fsck *fsck,
                  uint64_t *ret_wrong) MUST_CHECK;

#endif
