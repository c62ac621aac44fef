/* Shared inside registry. */
#ifndef HOLDFAST_REGISTRY_INT_H
#define HOLDFAST_REGISTRY_INT_H

#include "blob/blob.h"
#include "db/db.h"
#include "meta/meta.h"
#include "registry/registry.h"

struct registry {
    struct db *db;            /* owned */
    struct blob_store *blobs; /* owned */
    int lock_fd;              /* owned; holds the data folder's lock while it is open */
    int64_t expire_us;
};

/* Check a connection out into call->db. It ends with its scope: a read is over, a write that was
 * not committed is rolled back.
 *     auto_tx tx = call;
 *     if (registry_begin_write(call, registry) < 0) … registry_commit(call) */
int registry_begin_read(struct call *call, struct registry *registry) MUST_CHECK;
int registry_begin_write(struct call *call, struct registry *registry) MUST_CHECK;
int registry_commit(struct call *call) MUST_CHECK;
void registry_end(struct call *call);

static inline void registry_end_auto(struct call **call)
{
    registry_end(*call);
}
#define auto_tx __attribute__((cleanup(registry_end_auto), unused)) struct call *

/* Fills call->err: NAME_UNKNOWN when the repository is not there, else `code`, with the text. */
int registry_not_found(struct call *call, const struct oci_name *name, const char *code,
                       struct str what);

#endif
