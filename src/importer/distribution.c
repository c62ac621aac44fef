/* The storage folder of CNCF distribution, file system driver, layout v2:
 *
 *   docker/registry/v2/blobs/ALGORITHM/xx/HEX/data
 *   docker/registry/v2/repositories/NAME/_manifests/tags/TAG/current/link
 *   docker/registry/v2/repositories/NAME/_manifests/revisions/ALGORITHM/HEX/link
 *   docker/registry/v2/repositories/NAME/_layers/ALGORITHM/HEX/link
 *
 * A repository has what its links say; a link holds the digest under which the bytes are stored,
 * which may be another one than its own name. What has no link was deleted there, and stays so. */
#include "importer/folder_int.h"

#define LAYOUT_ROOT "docker/registry/v2"
#define LINK_BYTES_MAX 512
#define PATH_BYTES_MAX ((size_t)4096)
#define DEPTH_MAX (OCI_NAME_BYTES_MAX / 2 + 1) /* of a name with one letter a part */

struct distribution {
    struct importer_source source;
    int root; /* of layout v2 */
    size_t manifest_bytes_max;
};

static struct distribution *distribution_of(struct importer_source *source)
{
    return (struct distribution *)source;
}

/* ---- Links ---- */

int source_link_parse(struct str text, struct oci_digest *ret, struct err *err)
{
    struct err reason;
    if (text.n > 0 && text.p[text.n - 1] == '\n')
        text.n--;
    if (oci_digest_parse(text, ret, &reason) < 0)
        return err_set(err, ERR_CORRUPT, "the link does not hold a digest: %s", reason.say);
    return 0;
}

static int read_link(struct call *call, const struct distribution *from, const char *path,
                     struct oci_digest *ret)
{
    struct str text;
    struct err reason;
    if (folder_read_file(&call->arena, from->root, path, LINK_BYTES_MAX, &text, &call->err) < 0)
        return -1;
    if (source_link_parse(text, ret, &reason) < 0)
        return err_set(&call->err, reason.kind, "\"%s\": %s", path, reason.say);
    return 0;
}

/* `kind` is the folder of links: "_layers" or "_manifests/revisions". */
static const char *link_path(struct call *call, const struct oci_name *name, const char *kind,
                             const struct oci_digest *digest)
{
    struct str text = oci_digest_text(&call->arena, digest);
    struct str algorithm = str_cut(&text, ':');
    return str_printf(&call->arena, "repositories/" STR_FMT "/%s/" STR_FMT "/" STR_FMT "/link",
                      STR_ARG(name->text), kind, STR_ARG(algorithm), STR_ARG(text))
        .p;
}

static const char *data_path(struct call *call, const struct oci_digest *digest)
{
    struct str text = oci_digest_text(&call->arena, digest);
    struct str algorithm = str_cut(&text, ':');
    return str_printf(&call->arena, "blobs/" STR_FMT "/" STR_FMT "/" STR_FMT "/data",
                      STR_ARG(algorithm), STR_ARG(str_first(text, 2)), STR_ARG(text))
        .p;
}

/* ---- Lists ---- */

struct walk {
    struct distribution *from;
    struct call *call;
    source_text_fn each;
    void *context;
    struct str name; /* of the folder that is looked at; empty at the top */
    unsigned depth;
};

static int walk_folder(struct walk *walk);

static int walk_entry(void *context, struct str entry, struct err *err)
{
    const struct walk *walk = context;
    if (str_eq(entry, STR("_manifests")) && walk->name.n > 0)
        return walk->each(walk->context, walk->name, err);
    if (str_starts(entry, STR("_")))
        return 0;
    auto_arena arena = {0};
    struct walk below = *walk;
    below.name = walk->name.n > 0
                     ? str_printf(&arena, STR_FMT "/" STR_FMT, STR_ARG(walk->name), STR_ARG(entry))
                     : entry;
    below.depth++;
    /* What cannot be a repository, or holds one, fails when it is looked at by its name. */
    if (below.depth > DEPTH_MAX || below.name.n > OCI_NAME_BYTES_MAX)
        return walk->each(walk->context, below.name, err);
    if (walk_folder(&below) == 0)
        return 0;
    if (walk->call->err.kind != ERR_INVALID)
        return -1;
    return walk->each(walk->context, below.name, err);
}

static int walk_folder(struct walk *walk)
{
    char path[PATH_BYTES_MAX];
    (void)snprintf(path, sizeof(path), "repositories%s" STR_FMT, walk->name.n > 0 ? "/" : "",
                   STR_ARG(walk->name));
    return folder_list(walk->from->root, path, walk_entry, walk, &walk->call->err);
}

static int distribution_repositories(struct importer_source *source, struct call *call,
                                     source_text_fn each, void *context)
{
    struct walk walk = {
        .from = distribution_of(source), .call = call, .each = each, .context = context};
    return walk_folder(&walk);
}

struct revisions {
    struct distribution *from;
    const struct oci_name *name;
    const char *folder; /* relative to the root */
    struct str algorithm;
    source_text_fn each;
    void *context;
};

/* Deleting a manifest takes its link away, and leaves the folder. */
static int revision_entry(void *context, struct str entry, struct err *err)
{
    const struct revisions *revisions = context;
    auto_arena arena = {0};
    struct str text;
    struct str path = str_printf(&arena, "%s/" STR_FMT "/link", revisions->folder, STR_ARG(entry));
    if (folder_read_file(&arena, revisions->from->root, path.p, LINK_BYTES_MAX, &text, err) < 0 &&
        err->kind == ERR_NOT_FOUND)
        return 0;
    return revisions->each(
        revisions->context,
        str_printf(&arena, STR_FMT ":" STR_FMT, STR_ARG(revisions->algorithm), STR_ARG(entry)),
        err);
}

static int algorithm_entry(void *context, struct str entry, struct err *err)
{
    struct revisions revisions = *(const struct revisions *)context;
    auto_arena arena = {0};
    revisions.algorithm = entry;
    revisions.folder = str_printf(&arena, "repositories/" STR_FMT "/_manifests/revisions/" STR_FMT,
                                  STR_ARG(revisions.name->text), STR_ARG(entry))
                           .p;
    return folder_list(revisions.from->root, revisions.folder, revision_entry, &revisions, err);
}

static int distribution_references(struct importer_source *source, struct call *call,
                                   const struct oci_name *name, source_text_fn each, void *context)
{
    struct distribution *from = distribution_of(source);
    struct revisions revisions = {.from = from, .name = name, .each = each, .context = context};
    struct str manifests =
        str_printf(&call->arena, "repositories/" STR_FMT "/_manifests", STR_ARG(name->text));
    auto_fd folder = -1;
    if (folder_open_folder(from->root, manifests.p, &folder, &call->err) < 0)
        return -1;
    struct str tags = str_printf(&call->arena, "%s/tags", manifests.p);
    struct str algorithms = str_printf(&call->arena, "%s/revisions", manifests.p);
    if (folder_list(from->root, tags.p, each, context, &call->err) < 0)
        return -1;
    return folder_list(from->root, algorithms.p, algorithm_entry, &revisions, &call->err);
}

/* ---- Content ---- */

static int distribution_resolve(struct importer_source *source, struct call *call,
                                const struct oci_name *name, const struct oci_tag *tag,
                                struct oci_digest *ret, bool *ret_known)
{
    struct str path = str_printf(
        &call->arena, "repositories/" STR_FMT "/_manifests/tags/" STR_FMT "/current/link",
        STR_ARG(name->text), STR_ARG(tag->text));
    if (read_link(call, distribution_of(source), path.p, ret) < 0)
        return -1;
    *ret_known = true;
    return 0;
}

static int distribution_manifest(struct importer_source *source, struct call *call,
                                 const struct oci_name *name, const struct oci_reference *reference,
                                 struct source_manifest *ret)
{
    struct distribution *from = distribution_of(source);
    struct source_manifest manifest = {0};
    struct oci_digest wanted = reference->digest;
    struct oci_digest stored;
    bool known;
    if (!reference->is_digest &&
        distribution_resolve(source, call, name, &reference->tag, &wanted, &known) < 0)
        return -1;
    if (read_link(call, from, link_path(call, name, "_manifests/revisions", &wanted), &stored) <
            0 ||
        folder_read_file(&call->arena, from->root, data_path(call, &stored),
                         from->manifest_bytes_max, &manifest.content, &call->err) < 0 ||
        source_check_manifest(call, &wanted, manifest.content, &manifest.digest) < 0)
        return -1;
    *ret = manifest;
    return 0;
}

static int distribution_blob(struct importer_source *source, struct call *call,
                             const struct oci_name *name, const struct oci_digest *digest,
                             source_piece_fn take, void *context)
{
    struct distribution *from = distribution_of(source);
    struct oci_digest stored;
    if (read_link(call, from, link_path(call, name, "_layers", digest), &stored) < 0)
        return -1;
    return folder_copy_file(from->root, data_path(call, &stored), take, context, &call->err);
}

static void distribution_close(struct importer_source *source)
{
    struct distribution *from = distribution_of(source);
    (void)close(from->root);
    free(from);
}

static const struct source_kind distribution_kind = {
    .repositories = distribution_repositories,
    .references = distribution_references,
    .resolve = distribution_resolve,
    .manifest = distribution_manifest,
    .blob = distribution_blob,
    .referrers = NULL,
    .close = distribution_close,
};

int source_open_distribution(struct call *call, const char *folder,
                             const struct importer_origin *origin, struct importer_source **ret)
{
    auto_fd top = -1;
    auto_fd root = -1;
    auto_fd repositories = -1;
    if (folder_open_root(folder, &top, &call->err) < 0)
        return -1;
    if (folder_open_folder(top, LAYOUT_ROOT, &root, &call->err) < 0 ||
        folder_open_folder(root, "repositories", &repositories, &call->err) < 0) {
        if (call->err.kind != ERR_NOT_FOUND)
            return -1;
        return err_set(&call->err, ERR_INVALID,
                       "\"%s\" is not a storage folder of distribution: there is no folder "
                       "\"" LAYOUT_ROOT "/repositories\" in it",
                       folder);
    }
    struct distribution *from = mem_zalloc(sizeof(*from));
    from->source.kind = &distribution_kind;
    from->root = take_fd(&root);
    from->manifest_bytes_max = origin->manifest_bytes_max;
    *ret = &from->source;
    return 0;
}
