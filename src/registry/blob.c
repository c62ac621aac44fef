#include "registry/registry_int.h"

int registry_blob_pull(struct call *call, struct registry *registry, const struct oci_name *name,
                       const struct oci_digest *digest, bool open, struct registry_blob *ret)
{
    struct meta_blob blob;
    {
        auto_tx tx = call;
        bool found;
        if (registry_begin_read(call, registry) < 0 ||
            meta_blob_find(call, name, digest, &blob, &found) < 0)
            return -1;
        if (!found)
            return registry_not_found(call, name, OCI_BLOB_UNKNOWN,
                                      oci_digest_text(&call->arena, digest));
    }
    if (!open) {
        *ret = (struct registry_blob){.size = blob.size, .fd = -1};
        return 0;
    }
    auto_fd fd = -1;
    uint64_t size;
    if (blob_open(registry->blobs, digest, &fd, &size, &call->err) < 0) {
        if (call->err.kind == ERR_NOT_FOUND)
            return err_set(&call->err, ERR_CORRUPT, "the bytes of blob " STR_FMT " are gone",
                           STR_ARG(oci_digest_text(&call->arena, digest)));
        return -1;
    }
    if (size != blob.size)
        return err_set(&call->err, ERR_CORRUPT, "blob " STR_FMT " does not have its size",
                       STR_ARG(oci_digest_text(&call->arena, digest)));
    *ret = (struct registry_blob){.size = size, .fd = take_fd(&fd)};
    return 0;
}

/* The blob to mount: of `from`, or of any repository. */
static int find_source(struct call *call, const struct oci_digest *digest,
                       const struct oci_name *from, struct meta_blob *ret, bool *ret_found)
{
    if (from != NULL)
        return meta_blob_find(call, from, digest, ret, ret_found);
    return meta_blob_find_anywhere(call, digest, ret, ret_found);
}

int registry_blob_mount(struct call *call, struct registry *registry, const struct oci_name *name,
                        const struct oci_digest *digest, const struct oci_name *from,
                        bool *ret_mounted)
{
    struct meta_blob blob;
    bool found;
    {
        /* Most mounts that clients try on the off-chance find nothing: no write for those. */
        auto_tx tx = call;
        if (registry_begin_read(call, registry) < 0 ||
            find_source(call, digest, from, &blob, &found) < 0)
            return -1;
    }
    if (!found) {
        *ret_mounted = false;
        return 0;
    }
    auto_tx tx = call;
    int64_t repository;
    if (registry_begin_write(call, registry) < 0 ||
        find_source(call, digest, from, &blob, &found) < 0)
        return -1;
    if (found && (meta_repository_ensure(call, name, &repository) < 0 ||
                  meta_blob_link(call, repository, blob.id) < 0 || registry_commit(call) < 0))
        return -1;
    *ret_mounted = found;
    return 0;
}

int registry_blob_delete(struct call *call, struct registry *registry, const struct oci_name *name,
                         const struct oci_digest *digest)
{
    auto_tx tx = call;
    struct meta_blob blob;
    int64_t repository;
    bool found;
    if (registry_begin_write(call, registry) < 0 ||
        meta_blob_find(call, name, digest, &blob, &found) < 0)
        return -1;
    if (!found)
        return registry_not_found(call, name, OCI_BLOB_UNKNOWN,
                                  oci_digest_text(&call->arena, digest));
    struct str dependent;
    bool needed;
    if (meta_repository_find(call, name, &repository, &found) < 0 ||
        meta_dependent_find(call, repository, digest, &dependent, &needed) < 0)
        return -1;
    if (needed)
        return err_set(&call->err, ERR_UNSUPPORTED,
                       "manifest \"" STR_FMT "\" needs this blob; delete the manifest first",
                       STR_ARG(dependent));
    /* The row and the bytes stay until the collector finds them without a link: a push that was
     * told just now that the blob exists must not lose it. */
    if (meta_blob_unlink(call, repository, blob.id) < 0)
        return -1;
    return registry_commit(call);
}
