/* Shared inside registry. */
#ifndef HOLDFAST_REGISTRY_INT_H
#define HOLDFAST_REGISTRY_INT_H

#include "blob/blob.h"
#include "cache/cache.h"
#include "db/db.h"
#include "meta/meta.h"
#include "registry/registry.h"

struct closer;

struct registry_upload {
    struct registry *registry; /* borrowed */
    struct blob_upload *blob;  /* owned; with the exclusive hold where the store excludes others */
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    char repository[OCI_NAME_BYTES_MAX + 1];
    int64_t repository_id;    /* when it was taken up; 0: not known */
    bool recorded;            /* has a row, and can be taken up again */
    bool over;                /* became a blob, or was cancelled: nothing of it is left to end */
    char hold[CALL_ID_BYTES]; /* the lease on its row, where the store does not exclude; empty: none
                               */
    struct mono_us renewed;
    struct registry_upload *next; /* in the closer's queue */
};

struct registry {
    struct db *db;            /* owned */
    struct blob_store *blobs; /* owned */
    struct cache *known;      /* owned; see known.c */
    struct closer *closer;    /* owned; NULL where nothing waits for a network: see closer.c */
    int folder_fd;            /* owned; the data folder; -1: none */
    int lock_fd;              /* owned; holds the data folder's lock while it is open; -1: none */
    int64_t expire_us;
    int64_t lease_us;
    struct mono_us give_up;    /* see registry_give_up; 0: not said */
    bool alone;                /* nobody else uses the registry */
    struct {                   /* whether the blob store is ready; see registry_ready */
        pthread_mutex_t mutex; /* guards what stands below */
        bool asking;           /* somebody is */
        bool good;             /* so the latest one was answered */
        struct mono_us asked;  /* when the latest one began */
        struct mono_us tried;  /* when it was last asked to take something */
    } store;
};

/* Checks a connection out into call->db. It ends with its scope.
 *     auto_read held = call;
 *     if (registry_begin_read(call, registry) < 0 || …) */
int registry_begin_read(struct call *call, struct registry *registry) MUST_CHECK;
void registry_end(struct call *call);

static inline void registry_end_auto(struct call **call)
{
    registry_end(*call);
}
#define auto_read __attribute__((cleanup(registry_end_auto), unused)) struct call *

/* Fills call->err: NAME_UNKNOWN when the repository is not there, else `code`, with the text. */
int registry_not_found(struct call *call, const struct oci_name *name, enum meta_found found,
                       const char *code, struct str what);

/* Inside a write transaction. What is pushed into a repository relies on what is there: pushes
 * share it, and who takes something away, or compares before it writes, has it alone. */
int registry_lock(struct call *call, int64_t repository, bool shared) MUST_CHECK;

/* ---- known.c: what was looked up lately ---- */

/* Before the database is asked; for the two known_put. */
struct known_ticket {
    struct str key;
    uint64_t number;
};
/* *ret_ticket is for known_put_…, when it returns false. */
bool known_manifest(struct call *call, struct registry *registry, const struct oci_name *name,
                    const struct oci_digest *digest, struct registry_manifest *ret,
                    struct known_ticket *ret_ticket);
void known_put_manifest(struct call *call, struct registry *registry,
                        const struct known_ticket *ticket,
                        const struct registry_manifest *manifest);
bool known_blob(struct call *call, struct registry *registry, const struct oci_name *name,
                const struct oci_digest *digest, struct registry_blob *ret,
                struct known_ticket *ret_ticket);
void known_put_blob(struct call *call, struct registry *registry, const struct known_ticket *ticket,
                    const struct registry_blob *blob);
/* Inside the transaction that takes it out of the repository: tells all nodes. */
int known_forget(struct call *call, const struct oci_name *name,
                 const struct oci_digest *digest) MUST_CHECK;
/* After its commit, before the verb returns: here it is forgotten at once. */
void known_forget_here(struct call *call, struct registry *registry, const struct oci_name *name,
                       const struct oci_digest *digest);
/* Fits db_listen; `context` is the struct registry. */
void known_told(void *context, struct str payload);

/* ---- closer.c: uploads whose end has to wait, ended by a thread of its own ---- */

int closer_start(struct closer **ret, struct err *err) MUST_CHECK;
/* From then on they are left as they are. Takes NULL. */
void closer_give_up(struct closer *closer, struct mono_us at);
/* What was handed over is ended, or left, before it returns. Takes NULL. */
void closer_stop(struct closer *closer);
/* upload: taken over. */
void closer_push(struct closer *closer, struct registry_upload *upload);

#endif
