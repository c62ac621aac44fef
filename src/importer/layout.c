/* An OCI image layout: oci-layout, index.json, blobs/ALGORITHM/HEX. image-spec, "Image Layout". */
#include "importer/folder_int.h"

#define INDEX_BYTES_MAX ((size_t)16 * 1024 * 1024)
#define MARK_BYTES_MAX ((size_t)4096)
#define REF_NAME "org.opencontainers.image.ref.name"

struct entry {
    struct str tag; /* p NULL: none */
    struct str ref_name;
    struct str digest; /* as written */
    struct str media_type;
};

struct layout {
    struct importer_source source;
    struct arena arena; /* owns what the entries borrow */
    int root;
    struct str repository;
    struct entry *entries;
    size_t n_entries;
    size_t manifest_bytes_max;
};

static struct layout *layout_of(struct importer_source *source)
{
    return (struct layout *)source;
}

struct str source_layout_tag(struct str ref_name)
{
    struct oci_tag tag;
    struct err ignored;
    if (oci_tag_parse(ref_name, &tag, &ignored) == 0)
        return ref_name;
    for (size_t i = ref_name.n; i > 0 && ref_name.p[i - 1] != '/'; i--)
        if (ref_name.p[i - 1] == ':') {
            struct str last = str_from_at(ref_name, i);
            return oci_tag_parse(last, &tag, &ignored) == 0 ? last : (struct str){0};
        }
    return (struct str){0};
}

/* ---- Lists ---- */

static int layout_repositories(struct importer_source *source, struct call *call,
                               source_text_fn each, void *context)
{
    return each(context, layout_of(source)->repository, &call->err);
}

/* A name that is no tag is given as it stands, so that its manifest is reported by it. */
static int layout_references(struct importer_source *source, struct call *call,
                             const struct oci_name *name, source_text_fn each, void *context)
{
    struct layout *from = layout_of(source);
    (void)name;
    for (size_t i = 0; i < from->n_entries; i++) {
        const struct entry *entry = &from->entries[i];
        struct str text = entry->tag.n > 0 ? entry->tag : entry->digest;
        if (each(context, text, &call->err) < 0)
            return -1;
        if (entry->tag.n == 0 && entry->ref_name.n > 0 &&
            each(context, entry->ref_name, &call->err) < 0)
            return -1;
    }
    return 0;
}

static const struct entry *find_entry(const struct layout *from,
                                      const struct oci_reference *reference)
{
    char text[OCI_DIGEST_TEXT_MAX + 1];
    struct str wanted =
        reference->is_digest ? oci_digest_format(&reference->digest, text) : reference->tag.text;
    for (size_t i = 0; i < from->n_entries; i++) {
        const struct entry *entry = &from->entries[i];
        if (str_eq(reference->is_digest ? entry->digest : entry->tag, wanted))
            return entry;
    }
    return NULL;
}

static int layout_resolve(struct importer_source *source, struct call *call,
                          const struct oci_name *name, const struct oci_tag *tag,
                          struct oci_digest *ret, bool *ret_known)
{
    const struct oci_reference reference = {.tag = *tag};
    const struct entry *entry = find_entry(layout_of(source), &reference);
    (void)name;
    if (entry == NULL)
        return err_set(&call->err, ERR_NOT_FOUND, "there is no tag \"" STR_FMT "\" in the layout",
                       STR_ARG(tag->text));
    if (oci_digest_parse(entry->digest, ret, &call->err) < 0)
        return -1;
    *ret_known = true;
    return 0;
}

/* ---- Content ---- */

static const char *blob_path(struct call *call, const struct oci_digest *digest)
{
    struct str text = oci_digest_text(&call->arena, digest);
    struct str algorithm = str_cut(&text, ':');
    return str_printf(&call->arena, "blobs/" STR_FMT "/" STR_FMT, STR_ARG(algorithm), STR_ARG(text))
        .p;
}

static int layout_manifest(struct importer_source *source, struct call *call,
                           const struct oci_name *name, const struct oci_reference *reference,
                           struct source_manifest *ret)
{
    struct layout *from = layout_of(source);
    struct source_manifest manifest = {0};
    struct oci_digest wanted = reference->digest;
    bool known;
    if (!reference->is_digest &&
        layout_resolve(source, call, name, &reference->tag, &wanted, &known) < 0)
        return -1;
    const struct entry *entry = find_entry(from, reference);
    if (entry != NULL) /* others are described by the index that lists them */
        manifest.media_type = entry->media_type;
    if (folder_read_file(&call->arena, from->root, blob_path(call, &wanted),
                         from->manifest_bytes_max, &manifest.content, &call->err) < 0 ||
        source_check_manifest(call, &wanted, manifest.content, &manifest.digest) < 0)
        return -1;
    *ret = manifest;
    return 0;
}

static int layout_blob(struct importer_source *source, struct call *call,
                       const struct oci_name *name, const struct oci_digest *digest,
                       source_piece_fn take, void *context)
{
    (void)name;
    return folder_copy_file(layout_of(source)->root, blob_path(call, digest), take, context,
                            &call->err);
}

/* ---- Opening ---- */

static void layout_close(struct importer_source *source)
{
    struct layout *from = layout_of(source);
    (void)close(from->root);
    arena_done(&from->arena);
    free(from);
}

static const struct source_kind layout_kind = {
    .repositories = layout_repositories,
    .references = layout_references,
    .resolve = layout_resolve,
    .manifest = layout_manifest,
    .blob = layout_blob,
    .referrers = NULL,
    .close = layout_close,
};

static int check_mark(struct call *call, int root, const char *folder)
{
    struct str text;
    json_auto_t *mark = NULL;
    if (folder_read_file(&call->arena, root, "oci-layout", MARK_BYTES_MAX, &text, &call->err) < 0) {
        if (call->err.kind != ERR_NOT_FOUND)
            return -1;
        return err_set(&call->err, ERR_INVALID,
                       "\"%s\" is not an OCI image layout: there is no file \"oci-layout\" in it",
                       folder);
    }
    if (source_json_read(text, "\"oci-layout\"", &mark, &call->err) < 0)
        return -1;
    struct str version = source_json_text(mark, "imageLayoutVersion");
    if (!str_starts(version, STR("1.")))
        return err_set(&call->err, ERR_INVALID,
                       "\"%s\" is an image layout of version \"" STR_FMT
                       "\", and 1.0.0 can be read",
                       folder, STR_ARG(str_first(version, 40)));
    return 0;
}

static struct str keep(struct layout *from, struct str text)
{
    return text.n > 0 ? str_dup(&from->arena, text) : (struct str){0};
}

static int read_index(struct call *call, struct layout *from)
{
    struct str text;
    json_auto_t *index = NULL;
    if (folder_read_file(&call->arena, from->root, "index.json", INDEX_BYTES_MAX, &text,
                         &call->err) < 0 ||
        source_json_read(text, "\"index.json\"", &index, &call->err) < 0)
        return -1;
    const json_t *list = json_object_get(index, "manifests");
    if (!json_is_array(list))
        return err_set(&call->err, ERR_INVALID, "\"index.json\" has no array \"manifests\"");
    from->n_entries = json_array_size(list);
    from->entries = arena_zalloc(&from->arena, from->n_entries * sizeof(*from->entries) + 1);
    for (size_t i = 0; i < from->n_entries; i++) {
        const json_t *json = json_array_get(list, i);
        struct entry *entry = &from->entries[i];
        entry->digest = keep(from, source_json_text(json, "digest"));
        entry->media_type = keep(from, source_json_text(json, "mediaType"));
        entry->ref_name =
            keep(from, source_json_text(json_object_get(json, "annotations"), REF_NAME));
        entry->tag = source_layout_tag(entry->ref_name);
    }
    return 0;
}

int source_open_layout(struct call *call, const char *folder, const struct importer_origin *origin,
                       struct importer_source **ret)
{
    struct oci_name name;
    if (origin->repository == NULL)
        return err_set(
            &call->err, ERR_INVALID,
            "an OCI image layout has no name of its own: say which repository it becomes");
    if (oci_name_parse(str_from(origin->repository), &name, &call->err) < 0)
        return -1;
    auto_fd root = -1;
    if (folder_open_root(folder, &root, &call->err) < 0 || check_mark(call, root, folder) < 0)
        return -1;
    struct layout *from = mem_zalloc(sizeof(*from));
    from->source.kind = &layout_kind;
    from->root = take_fd(&root);
    from->repository = str_dup(&from->arena, name.text);
    from->manifest_bytes_max = origin->manifest_bytes_max;
    if (read_index(call, from) < 0) {
        layout_close(&from->source);
        return -1;
    }
    *ret = &from->source;
    return 0;
}
