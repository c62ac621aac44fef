#include "registry/registry_int.h"

/* ---- Pull ---- */

bool registry_blob_known(struct call *call, struct registry *registry, const struct oci_name *name,
                         const struct oci_digest *digest, struct registry_blob *ret)
{
    return known_blob(call, registry, name, digest, ret, NULL);
}

int registry_blob_find(struct call *call, struct registry *registry, const struct oci_name *name,
                       const struct oci_digest *digest, struct registry_blob *ret)
{
    struct known_ticket ticket;
    if (known_blob(call, registry, name, digest, ret, &ticket))
        return 0;
    auto_read held = call;
    struct meta_blob blob;
    enum meta_found found;
    if (registry_begin_read(call, registry) < 0 ||
        meta_blob_find(call, name, digest, &blob, &found) < 0)
        return -1;
    if (found != META_FOUND)
        return registry_not_found(call, name, found, OCI_BLOB_UNKNOWN,
                                  oci_digest_text(&call->arena, digest));
    *ret = (struct registry_blob){.digest = *digest, .size = blob.size, .location = blob.location};
    known_put_blob(call, registry, &ticket, ret);
    return 0;
}

static struct blob_ref ref_of(const struct registry_blob *blob)
{
    return (struct blob_ref){
        .digest = blob->digest, .size = blob->size, .location = blob->location};
}

int registry_blob_redirect(struct call *call, struct registry *registry,
                           const struct registry_blob *blob, struct str *ret_url)
{
    struct blob_ref ref = ref_of(blob);
    return blob_redirect(registry->blobs, &ref, &call->arena, ret_url, &call->err);
}

int registry_blob_open(struct call *call, struct registry *registry,
                       const struct registry_blob *blob, uint64_t offset, uint64_t n,
                       struct registry_content *ret)
{
    struct blob_ref ref = ref_of(blob);
    struct blob_content content;
    if (blob_open(registry->blobs, &ref, offset, n, call->id, &content, &call->err) < 0) {
        if (call->err.kind == ERR_NOT_FOUND)
            return err_set(&call->err, ERR_CORRUPT, "the bytes of blob " STR_FMT " are gone",
                           STR_ARG(oci_digest_text(&call->arena, &blob->digest)));
        return -1;
    }
    *ret = (struct registry_content){.fd = content.fd, .stream = content.stream};
    return 0;
}

/* ---- Mount ---- */

struct mount {
    const struct oci_name *name;
    const struct oci_digest *digest;
    const struct oci_name *from; /* NULL: any repository */
    bool found;
};

static int find_source(struct call *call, struct mount *mount, struct meta_blob *ret)
{
    if (mount->from == NULL)
        return meta_blob_find_anywhere(call, mount->digest, ret, &mount->found);
    enum meta_found found;
    if (meta_blob_find(call, mount->from, mount->digest, ret, &found) < 0)
        return -1;
    mount->found = found == META_FOUND;
    return 0;
}

static int mount_found(struct call *call, void *context)
{
    struct mount *mount = context;
    struct meta_blob blob;
    int64_t repository;
    if (find_source(call, mount, &blob) < 0)
        return -1;
    if (!mount->found)
        return 0;
    if (meta_repository_ensure(call, mount->name, clock_wall(), &repository) < 0)
        return -1;
    return meta_blob_link(call, repository, blob.id, clock_wall());
}

int registry_blob_mount(struct call *call, struct registry *registry, const struct oci_name *name,
                        const struct oci_digest *digest, const struct oci_name *from,
                        bool *ret_mounted)
{
    struct mount mount = {.name = name, .digest = digest, .from = from};
    {
        /* Most mounts that clients try on the off-chance find nothing: no write for those. */
        auto_read held = call;
        struct meta_blob blob;
        if (registry_begin_read(call, registry) < 0 || find_source(call, &mount, &blob) < 0)
            return -1;
    }
    if (mount.found && db_transact(call, registry->db, mount_found, &mount) < 0)
        return -1;
    *ret_mounted = mount.found;
    return 0;
}

/* ---- Delete ---- */

struct blob_place {
    const struct oci_name *name;
    const struct oci_digest *digest;
};

static int unlink_blob(struct call *call, void *context)
{
    const struct blob_place *place = context;
    struct meta_blob blob;
    int64_t repository;
    bool there;
    enum meta_found found = META_NO_REPOSITORY;
    if (meta_repository_find(call, place->name, &repository, &there) < 0 ||
        (there && (registry_lock(call, repository, /* shared= */ false) < 0 ||
                   meta_blob_find(call, place->name, place->digest, &blob, &found) < 0)))
        return -1;
    if (found != META_FOUND)
        return registry_not_found(call, place->name, found, OCI_BLOB_UNKNOWN,
                                  oci_digest_text(&call->arena, place->digest));
    struct str dependent;
    bool needed;
    if (meta_dependent_find(call, repository, place->digest, &dependent, &needed) < 0)
        return -1;
    if (needed)
        return err_set(&call->err, ERR_UNSUPPORTED,
                       "manifest \"" STR_FMT "\" needs this blob; delete the manifest first",
                       STR_ARG(dependent));
    /* The row and the bytes stay until the collector finds them without a link: a push that was
     * told just now that the blob exists must not lose it. */
    if (meta_blob_unlink(call, repository, blob.id) < 0)
        return -1;
    return known_forget(call, place->name, place->digest);
}

int registry_blob_delete(struct call *call, struct registry *registry, const struct oci_name *name,
                         const struct oci_digest *digest)
{
    struct blob_place place = {name, digest};
    int done = db_transact(call, registry->db, unlink_blob, &place);
    known_forget_here(call, registry, name, digest); /* also when it is not sure */
    return done;
}
