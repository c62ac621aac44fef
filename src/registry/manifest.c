#include "registry/registry_int.h"

static struct str reference_text(struct call *call, const struct oci_reference *reference)
{
    return reference->is_digest ? oci_digest_text(&call->arena, &reference->digest)
                                : reference->tag.text;
}

/* ---- Pull ---- */

bool registry_manifest_known(struct call *call, struct registry *registry,
                             const struct oci_name *name, const struct oci_digest *digest,
                             struct registry_manifest *ret)
{
    return known_manifest(call, registry, name, digest, ret, NULL);
}

static int look_up(struct call *call, struct registry *registry, const struct oci_name *name,
                   const struct oci_reference *reference, bool want_content,
                   struct registry_manifest *ret)
{
    auto_read held = call;
    struct meta_manifest manifest;
    enum meta_found found;
    if (registry_begin_read(call, registry) < 0 ||
        meta_manifest_find(call, name, reference, want_content, &manifest, &found) < 0)
        return -1;
    if (found != META_FOUND)
        return registry_not_found(call, name, found, OCI_MANIFEST_UNKNOWN,
                                  reference_text(call, reference));
    *ret = (struct registry_manifest){
        .digest = manifest.digest,
        .media_type = manifest.media_type,
        .size = manifest.size,
        .content = manifest.content,
    };
    return 0;
}

static int pull_by_digest(struct call *call, struct registry *registry, const struct oci_name *name,
                          const struct oci_digest *digest, struct registry_manifest *ret)
{
    struct known_ticket ticket;
    struct oci_reference reference = {.is_digest = true, .digest = *digest};
    if (known_manifest(call, registry, name, digest, ret, &ticket))
        return 0;
    if (look_up(call, registry, name, &reference, /* want_content= */ true, ret) < 0)
        return -1;
    known_put_manifest(call, registry, &ticket, ret);
    return 0;
}

int registry_manifest_pull(struct call *call, struct registry *registry,
                           const struct oci_name *name, const struct oci_reference *reference,
                           bool want_content, struct registry_manifest *ret)
{
    if (reference->is_digest)
        return pull_by_digest(call, registry, name, &reference->digest, ret);
    if (!want_content || !db_is_remote(registry->db))
        return look_up(call, registry, name, reference, want_content, ret);

    /* Over a network, what the tag names is asked for, and the content is mostly known. */
    struct oci_digest digest;
    if (look_up(call, registry, name, reference, /* want_content= */ false, ret) < 0 ||
        oci_digest_parse(ret->digest, &digest, &call->err) < 0)
        return -1;
    if (pull_by_digest(call, registry, name, &digest, ret) == 0)
        return 0;
    /* Deleted just now: whatever the tag names after that is right. */
    return call->err.kind == ERR_NOT_FOUND
               ? look_up(call, registry, name, reference, want_content, ret)
               : -1;
}

/* ---- Push ---- */

/* The digest under which the content is stored: what the client named, else sha256. */
static int decide_digest(struct call *call, const struct registry_push *push,
                         struct oci_digest *ret)
{
    const struct oci_reference *reference = &push->reference;
    enum hash_algorithm algorithm =
        reference->is_digest ? reference->digest.algorithm : HASH_SHA256;
    *ret = oci_digest_of(algorithm, push->content);
    if (reference->is_digest && !oci_digest_eq(ret, &reference->digest))
        return err_code(&call->err, ERR_INVALID, OCI_DIGEST_INVALID,
                        "the manifest was pushed as " STR_FMT " but its bytes are " STR_FMT,
                        STR_ARG(oci_digest_text(&call->arena, &reference->digest)),
                        STR_ARG(oci_digest_text(&call->arena, ret)));
    return 0;
}

static int check_conditions(struct call *call, const struct oci_name *name,
                            const struct registry_push *push)
{
    if (push->if_match.p == NULL && push->if_none_match.p == NULL)
        return 0;
    struct meta_manifest now;
    enum meta_found found;
    if (meta_manifest_find(call, name, &push->reference, /* want_content= */ false, &now, &found) <
        0)
        return -1;
    bool exists = found == META_FOUND;
    struct str digest = exists ? now.digest : (struct str){0};
    if (push->if_match.p != NULL && !push->etag_matches(push->if_match, digest, exists))
        return err_set(&call->err, ERR_PRECONDITION, "If-Match does not name what is stored now");
    if (push->if_none_match.p != NULL && push->etag_matches(push->if_none_match, digest, exists))
        return err_set(&call->err, ERR_PRECONDITION, "If-None-Match names what is stored now");
    return 0;
}

static bool is_listed(const struct str *list, size_t n, struct str text)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(list[i], text))
            return true;
    return false;
}

/* So many missing digests are named at most; who misses more hears of the rest at the next try. */
#define MISSING_MAX 100

struct needs {
    struct meta_need *list; /* in the order of digests */
    size_t n;
};

static int list_needs(struct call *call, int64_t repository, int64_t id,
                      const struct oci_manifest *manifest, struct needs *ret)
{
    size_t limit = manifest->n_references + manifest->n_foreign;
    ret->list = arena_alloc(&call->arena, limit * sizeof(*ret->list) + 1);
    return meta_need_list(call, repository, id, limit, ret->list, &ret->n);
}

static int compare_needs(const void *wanted, const void *other)
{
    return str_cmp(((const struct meta_need *)wanted)->digest,
                   ((const struct meta_need *)other)->digest);
}

/* Whether the repository has it. An index may list what was pushed as a blob. */
static bool is_met(const struct needs *needs, enum oci_reference_kind kind, struct str digest,
                   uint64_t *ret_size)
{
    const struct meta_need wanted = {.digest = digest};
    const struct meta_need *need =
        bsearch(&wanted, needs->list, needs->n, sizeof(*needs->list), compare_needs);
    bool is_blob = need != NULL && need->is_blob;
    bool is_child = need != NULL && need->is_manifest && kind == OCI_REFERENCE_CHILD;
    if (is_blob || is_child)
        *ret_size = is_blob ? need->blob_size : need->manifest_size;
    return is_blob || is_child;
}

/* Every blob and child that the manifest names must be in the repository, with its size. It is
 * stored already, in this transaction: so the database can look for all of them at once. */
static int check_references(struct call *call, int64_t repository, int64_t id,
                            const struct oci_manifest *manifest)
{
    struct str *missing = arena_alloc(&call->arena, MISSING_MAX * sizeof(*missing));
    size_t n_missing = 0;
    struct needs needs;
    if (list_needs(call, repository, id, manifest, &needs) < 0)
        return -1;
    for (size_t i = 0; i < manifest->n_references && n_missing < MISSING_MAX; i++) {
        const struct oci_descriptor *wanted = &manifest->references[i];
        struct str digest = oci_digest_text(&call->arena, &wanted->digest);
        uint64_t size;
        bool met = is_met(&needs, wanted->kind, digest, &size);
        if (!met && !is_listed(missing, n_missing, digest))
            missing[n_missing++] = digest;
        if (met && size != wanted->size)
            return err_code(
                &call->err, ERR_INVALID, OCI_SIZE_INVALID,
                "the manifest gives %llu bytes as the size of " STR_FMT ", which has %llu",
                (unsigned long long)wanted->size, STR_ARG(digest), (unsigned long long)size);
    }
    if (n_missing == 0)
        return 0;
    (void)err_code(&call->err, ERR_INVALID, OCI_MANIFEST_BLOB_UNKNOWN,
                   "the manifest names content that is not in this repository; push it first");
    call->err.details = missing;
    call->err.n_details = n_missing;
    return -1;
}

static int set_tags(struct call *call, int64_t repository, const struct registry_push *push,
                    int64_t manifest)
{
    if (!push->reference.is_digest)
        return meta_tag_set(call, repository, &push->reference.tag, manifest, clock_wall());
    for (size_t i = 0; i < push->n_tags; i++)
        if (meta_tag_set(call, repository, &push->tags[i], manifest, clock_wall()) < 0)
            return -1;
    return 0;
}

struct pushing {
    const struct oci_name *name;
    const struct registry_push *push;
    struct oci_manifest manifest;
    struct oci_digest digest;
};

static int push_parsed(struct call *call, void *context)
{
    const struct pushing *pushing = context;
    const struct registry_push *push = pushing->push;
    bool conditional = push->if_match.p != NULL || push->if_none_match.p != NULL;
    int64_t repository;
    int64_t id;
    if (meta_repository_ensure(call, pushing->name, clock_wall(), &repository) < 0 ||
        registry_lock(call, repository, /* shared= */ !conditional) < 0 ||
        check_conditions(call, pushing->name, push) < 0 ||
        meta_manifest_put(call, repository, &pushing->digest, &pushing->manifest, push->content,
                          clock_wall(), &id) < 0 ||
        check_references(call, repository, id, &pushing->manifest) < 0 ||
        set_tags(call, repository, push, id) < 0)
        return -1;
    crash_point("manifest.written");
    return 0;
}

int registry_manifest_push(struct call *call, struct registry *registry,
                           const struct oci_name *name, const struct registry_push *push,
                           struct registry_pushed *ret)
{
    struct pushing pushing = {.name = name, .push = push};
    const struct oci_manifest *manifest = &pushing.manifest;
    if (oci_manifest_parse(&call->arena, push->content_type, push->content, &pushing.manifest,
                           &call->err) < 0 ||
        decide_digest(call, push, &pushing.digest) < 0 ||
        db_transact(call, registry->db, push_parsed, &pushing) < 0)
        return -1;
    crash_point("manifest.committed");
    *ret = (struct registry_pushed){
        .digest = pushing.digest,
        .has_subject = manifest->has_subject,
        .subject = manifest->subject,
        .n_foreign = manifest->n_foreign,
    };
    return 0;
}

/* ---- Delete ---- */

struct deletion {
    const struct oci_name *name;
    const struct oci_reference *reference;
};

static int delete_tag(struct call *call, const struct oci_name *name, const struct oci_tag *tag)
{
    int64_t repository;
    bool there;
    bool deleted = false;
    if (meta_repository_find(call, name, &repository, &there) < 0 ||
        (there && meta_tag_delete(call, repository, tag, &deleted) < 0))
        return -1;
    if (deleted)
        return 0;
    return registry_not_found(call, name, there ? META_NOTHING : META_NO_REPOSITORY,
                              OCI_MANIFEST_UNKNOWN, tag->text);
}

static int delete_manifest(struct call *call, const struct oci_name *name,
                           const struct oci_reference *reference)
{
    struct meta_manifest manifest;
    int64_t repository;
    bool there;
    enum meta_found found = META_NO_REPOSITORY;
    if (meta_repository_find(call, name, &repository, &there) < 0 ||
        (there && (registry_lock(call, repository, /* shared= */ false) < 0 ||
                   meta_manifest_find(call, name, reference, /* want_content= */ false, &manifest,
                                      &found) < 0)))
        return -1;
    if (found != META_FOUND)
        return registry_not_found(call, name, found, OCI_MANIFEST_UNKNOWN,
                                  reference_text(call, reference));
    struct str parent;
    bool listed;
    if (meta_dependent_find(call, repository, &reference->digest, &parent, &listed) < 0)
        return -1;
    if (listed)
        return err_set(&call->err, ERR_UNSUPPORTED,
                       "index \"" STR_FMT "\" lists this manifest; delete the index first",
                       STR_ARG(parent));
    if (meta_manifest_delete(call, manifest.id) < 0)
        return -1;
    return known_forget(call, name, &reference->digest);
}

static int delete_reference(struct call *call, void *context)
{
    const struct deletion *deletion = context;
    return deletion->reference->is_digest
               ? delete_manifest(call, deletion->name, deletion->reference)
               : delete_tag(call, deletion->name, &deletion->reference->tag);
}

int registry_manifest_delete(struct call *call, struct registry *registry,
                             const struct oci_name *name, const struct oci_reference *reference)
{
    struct deletion deletion = {name, reference};
    int done = db_transact(call, registry->db, delete_reference, &deletion);
    if (reference->is_digest)
        known_forget_here(call, registry, name, &reference->digest); /* also when it is not sure */
    return done;
}
