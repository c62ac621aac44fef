/* The journey of one image: what its manifest names, then the manifest, then its tag, then what
 * refers to it. */
#include "importer/importer_int.h"

/* Indexes in indexes, and referrers of referrers. Each level may hold a manifest in memory. */
#define DEPTH_MAX 12

/* A manifest on its way. */
struct visit {
    struct importer *importer;
    const struct oci_name *from;      /* at the source */
    const struct oci_name *to;        /* here */
    const struct oci_tag *tag;        /* to be set; NULL: none */
    const struct oci_digest *subject; /* that it must refer to; NULL: any or none */
    unsigned depth;
};

static struct oci_reference by_digest(const struct oci_digest *digest)
{
    return (struct oci_reference){.is_digest = true, .digest = *digest};
}

/* How the manifest is called in reports. arena */
static struct str name_of(struct call *call, const struct visit *visit,
                          const struct oci_digest *digest)
{
    if (visit->tag != NULL)
        return str_printf(&call->arena, STR_FMT ":" STR_FMT, STR_ARG(visit->from->text),
                          STR_ARG(visit->tag->text));
    return str_printf(&call->arena, STR_FMT "@" STR_FMT, STR_ARG(visit->from->text),
                      STR_ARG(oci_digest_text(&call->arena, digest)));
}

/* ---- What is here already ---- */

/* A verb of the registry failed. What it says of the content concerns this image alone; everything
 * else would go on to happen. Returns -1. */
static int target_failed(struct importer *importer, const struct err *err)
{
    if (err->kind != ERR_INVALID && err->kind != ERR_NOT_FOUND && err->kind != ERR_TOO_LARGE)
        importer_fail(importer, err);
    return -1;
}

static int find_here(struct call *call, const struct visit *visit,
                     const struct oci_reference *reference, bool want_content,
                     struct registry_manifest *ret, bool *ret_found)
{
    struct registry *registry = visit->importer->registry;
    *ret_found = false;
    if (registry == NULL)
        return 0;
    if (registry_manifest_pull(call, registry, visit->to, reference, want_content, ret) == 0)
        *ret_found = true;
    else if (call->err.kind != ERR_NOT_FOUND)
        return target_failed(visit->importer, &call->err);
    return 0;
}

static int has_blob(struct call *call, const struct visit *visit, const struct oci_digest *digest,
                    bool *ret_found)
{
    struct registry *registry = visit->importer->registry;
    struct registry_blob blob;
    *ret_found = false;
    if (registry == NULL)
        return 0;
    if (registry_blob_find(call, registry, visit->to, digest, &blob) == 0)
        *ret_found = true;
    else if (call->err.kind != ERR_NOT_FOUND)
        return target_failed(visit->importer, &call->err);
    return 0;
}

/* ---- Blobs ---- */

struct copy {
    struct call *call;
    struct importer *importer;
    struct registry_upload *upload;
    uint64_t received;
    uint64_t size; /* as the manifest says */
    bool target_failed;
};

static int copy_piece(void *context, struct str piece, struct err *err)
{
    struct copy *copy = context;
    if (atomic_load(&copy->importer->failed))
        return err_set(err, ERR_BUSY, "the import ends");
    if (piece.n > copy->size - copy->received)
        return err_set(err, ERR_INVALID,
                       "the source gives more bytes than the %llu that the manifest says",
                       (unsigned long long)copy->size);
    if (registry_upload_write(copy->call, copy->upload, piece) < 0) {
        copy->target_failed = true;
        if (err != &copy->call->err)
            *err = copy->call->err;
        return -1;
    }
    copy->received += piece.n;
    importer_count(copy->importer, &copy->importer->counts.bytes, piece.n);
    return 0;
}

static int copy_into(const struct visit *visit, struct copy *copy, const struct oci_digest *digest)
{
    struct importer_source *source = visit->importer->source;
    struct call *call = copy->call;
    if (source->kind->blob(source, call, visit->from, digest, copy_piece, copy) < 0)
        return copy->target_failed ? target_failed(visit->importer, &call->err) : -1;
    if (registry_upload_finish(call, copy->upload, digest) < 0)
        return target_failed(visit->importer, &call->err);
    return 0;
}

static int copy_blob(struct call *call, const struct visit *visit, const struct oci_digest *digest,
                     uint64_t size)
{
    struct importer *importer = visit->importer;
    struct copy copy = {.call = call, .importer = importer, .size = size};
    if (registry_upload_start_whole(call, importer->registry, visit->to, digest->algorithm,
                                    &copy.upload) < 0)
        return target_failed(importer, &call->err);
    int done = copy_into(visit, &copy, digest);
    registry_upload_close(copy.upload);
    if (done == 0)
        importer_count(importer, &importer->counts.blobs, 1);
    else
        importer_uncount(importer, &importer->counts.bytes, copy.received);
    return done;
}

/* In a dry run: the first repository would get its bytes, others a link. */
static void foresee_blob(struct call *call, const struct visit *visit,
                         const struct oci_digest *digest, uint64_t size)
{
    struct importer *importer = visit->importer;
    struct str here = str_printf(&call->arena, "blobs of " STR_FMT, STR_ARG(visit->to->text));
    if (!seen_add(importer->seen, key_of(here, digest)))
        return;
    if (seen_add(importer->seen, key_of(STR(""), digest))) {
        importer_count(importer, &importer->counts.blobs, 1);
        importer_count(importer, &importer->counts.bytes, size);
    } else {
        importer_count(importer, &importer->counts.linked, 1);
    }
}

static int bring_claimed_blob(struct call *call, const struct visit *visit,
                              const struct oci_digest *digest, uint64_t size)
{
    struct importer *importer = visit->importer;
    bool found;
    if (has_blob(call, visit, digest, &found) < 0)
        return -1;
    if (found)
        return 0;
    if (importer->options->dry_run) {
        foresee_blob(call, visit, digest, size);
        return 0;
    }
    if (registry_blob_mount(call, importer->registry, visit->to, digest, NULL, &found) < 0)
        return target_failed(importer, &call->err);
    if (!found)
        return copy_blob(call, visit, digest, size);
    importer_count(importer, &importer->counts.linked, 1);
    return 0;
}

/* Has memory of its own: a manifest may name thousands. */
static int bring_blob(const struct visit *visit, const struct oci_digest *digest, uint64_t size,
                      struct err *err)
{
    struct key key = key_of(STR(""), digest);
    auto_call call;
    call_init(&call);
    claims_take(visit->importer->claims, key);
    int done = bring_claimed_blob(&call, visit, digest, size);
    claims_release(visit->importer->claims, key);
    if (done == 0)
        return 0;
    char text[OCI_DIGEST_TEXT_MAX + 1];
    (void)oci_digest_format(digest, text);
    (void)err_set(err, call.err.kind, "blob %s: %s", text, call.err.say);
    return call.err.why[0] != '\0' ? err_why(err, "%s", call.err.why) : -1;
}

/* Layers that need not be stored anywhere are brought when the source has them all the same. */
static void bring_foreign(struct call *call, const struct visit *visit,
                          const struct oci_descriptor *layer, const struct oci_digest *manifest)
{
    struct importer *importer = visit->importer;
    struct err err;
    if (importer->options->dry_run || bring_blob(visit, &layer->digest, layer->size, &err) == 0 ||
        atomic_load(&importer->failed))
        return;
    importer_count(importer, &importer->counts.foreign, 1);
    importer_report(importer, IMPORTER_FOREIGN, STR_FMT ": %s",
                    STR_ARG(name_of(call, visit, manifest)), err.say);
}

/* ---- Manifests ---- */

static int bring_digest(const struct visit *visit, const struct oci_digest *digest);

/* The type that the source gives counts where the content does not say; some say something else
 * than the content, and then they do not count. Sets manifest->media_type to what shall be pushed.
 */
static int read_manifest(struct call *call, struct source_manifest *manifest,
                         struct oci_manifest *ret)
{
    if (!oci_media_type_is_manifest(manifest->media_type))
        manifest->media_type = STR("");
    if (oci_manifest_parse(&call->arena, manifest->media_type, manifest->content, ret,
                           &call->err) == 0)
        return 0;
    if (manifest->media_type.n == 0)
        return -1;
    struct err ignored;
    if (oci_manifest_parse(&call->arena, STR(""), manifest->content, ret, &ignored) < 0)
        return -1;
    manifest->media_type = STR("");
    return 0;
}

/* What is no manifest in an index is a blob, as older build caches have them. */
static int bring_reference(const struct visit *visit, const struct oci_descriptor *reference,
                           struct err *err)
{
    if (reference->kind != OCI_REFERENCE_CHILD ||
        !oci_media_type_is_manifest(reference->media_type))
        return bring_blob(visit, &reference->digest, reference->size, err);
    const struct visit child = {.importer = visit->importer,
                                .from = visit->from,
                                .to = visit->to,
                                .depth = visit->depth + 1};
    if (bring_digest(&child, &reference->digest) == 0)
        return 0;
    char text[OCI_DIGEST_TEXT_MAX + 1];
    (void)oci_digest_format(&reference->digest, text);
    return err_set(err, ERR_INVALID, "manifest %s, which it lists, was not brought", text);
}

/* A child that fails does not keep its siblings from coming: each is an image of its own. */
static int bring_references(struct call *call, const struct visit *visit,
                            const struct oci_manifest *manifest, const struct oci_digest *digest,
                            bool manifests_only)
{
    int done = 0;
    for (size_t i = 0; i < manifest->n_references && !atomic_load(&visit->importer->failed); i++) {
        const struct oci_descriptor *reference = &manifest->references[i];
        bool is_child = reference->kind == OCI_REFERENCE_CHILD;
        struct err err;
        if ((!is_child && done < 0) || (!is_child && manifests_only))
            continue;
        if (bring_reference(visit, reference, &err) < 0 && done == 0) {
            call->err = err;
            done = -1;
        }
    }
    if (done == 0 && !manifests_only)
        for (size_t i = 0; i < manifest->n_foreign; i++)
            bring_foreign(call, visit, &manifest->foreign[i], digest);
    return atomic_load(&visit->importer->failed) ? -1 : done;
}

static int push(struct call *call, const struct visit *visit,
                const struct source_manifest *manifest)
{
    struct importer *importer = visit->importer;
    const struct registry_push push = {
        .reference = by_digest(&manifest->digest),
        .tags = visit->tag,
        .n_tags = visit->tag != NULL ? 1 : 0,
        .content_type = manifest->media_type,
        .content = manifest->content,
    };
    struct registry_pushed pushed;
    if (importer->options->dry_run)
        return 0;
    if (registry_manifest_push(call, importer->registry, visit->to, &push, &pushed) < 0)
        return target_failed(importer, &call->err);
    return 0;
}

static bool wants_referrers(const struct visit *visit)
{
    return visit->importer->source->kind->referrers != NULL;
}

/* Everything that the manifest needs, and itself; nobody else does the same meanwhile. */
static int bring_claimed(struct call *call, const struct visit *visit,
                         const struct source_manifest *manifest, const struct oci_manifest *parsed,
                         bool is_new)
{
    struct importer *importer = visit->importer;
    const struct oci_reference reference = by_digest(&manifest->digest);
    struct registry_manifest here;
    bool found;
    if (find_here(call, visit, &reference, /* want_content= */ false, &here, &found) < 0)
        return -1;
    /* In a dry run, what was seen is what would be here. */
    found = found || (importer->options->dry_run && !is_new);
    if (!found || is_new)
        if (bring_references(call, visit, parsed, &manifest->digest, found) < 0 && !found)
            return -1;
    if ((!found || visit->tag != NULL) && push(call, visit, manifest) < 0)
        return -1;
    if (!found)
        importer_count(importer, &importer->counts.manifests, 1);
    else if (is_new)
        importer_count(importer, &importer->counts.present, 1);
    if (visit->tag != NULL)
        importer_count(importer, &importer->counts.tags, 1);
    return 0;
}

static int check_subject(struct call *call, const struct visit *visit,
                         const struct oci_manifest *manifest)
{
    if (visit->subject == NULL ||
        (manifest->has_subject && oci_digest_eq(&manifest->subject, visit->subject)))
        return 0;
    return err_set(&call->err, ERR_INVALID,
                   "the source lists it as a referrer of " STR_FMT ", which it does not name",
                   STR_ARG(oci_digest_text(&call->arena, visit->subject)));
}

static int bring_referrer(void *context, struct str text, struct err *err)
{
    const struct visit *visit = context;
    struct oci_digest digest;
    struct err reason;
    auto_arena arena = {0};
    if (atomic_load(&visit->importer->failed))
        return err_set(err, ERR_BUSY, "the import ends");
    if (oci_digest_parse(text, &digest, &reason) < 0)
        importer_skip(visit->importer,
                      str_printf(&arena, "a referrer in " STR_FMT, STR_ARG(visit->from->text)),
                      &reason);
    else
        (void)bring_digest(visit, &digest);
    return 0;
}

static void bring_referrers(struct call *call, const struct visit *visit,
                            const struct oci_digest *digest)
{
    struct importer_source *source = visit->importer->source;
    struct visit referrer = {.importer = visit->importer,
                             .from = visit->from,
                             .to = visit->to,
                             .subject = digest,
                             .depth = visit->depth + 1};
    if (source->kind->referrers(source, call, visit->from, digest, bring_referrer, &referrer) < 0)
        importer_skip(visit->importer,
                      str_printf(&call->arena, "referrers of " STR_FMT,
                                 STR_ARG(name_of(call, visit, digest))),
                      &call->err);
}

/* Reports what fails, and returns -1 then. */
static int bring_manifest(struct call *call, const struct visit *visit,
                          struct source_manifest *manifest)
{
    struct importer *importer = visit->importer;
    struct key key = key_of(visit->to->text, &manifest->digest);
    struct oci_manifest parsed;
    importer_heard(importer);
    int done = read_manifest(call, manifest, &parsed);
    if (done == 0)
        done = check_subject(call, visit, &parsed);
    if (done < 0) {
        importer_skip(importer, name_of(call, visit, &manifest->digest), &call->err);
        return -1;
    }
    bool is_new = seen_add(importer->seen, key);
    claims_take(importer->claims, key);
    done = bring_claimed(call, visit, manifest, &parsed, is_new);
    claims_release(importer->claims, key);
    if (done < 0)
        importer_skip(importer, name_of(call, visit, &manifest->digest), &call->err);
    else if (is_new && wants_referrers(visit) && !atomic_load(&importer->failed))
        bring_referrers(call, visit, &manifest->digest);
    return done;
}

/* Gets a manifest from here, when it is here, and otherwise from the source. What is here needs no
 * further look, unless there may be new referrers, or children that are counted. */
static int get_by_digest(struct call *call, const struct visit *visit,
                         const struct oci_digest *digest, struct source_manifest *ret,
                         bool *ret_settled)
{
    struct importer_source *source = visit->importer->source;
    const struct oci_reference reference = by_digest(digest);
    struct registry_manifest here;
    bool found;
    *ret_settled = false;
    if (visit->depth > DEPTH_MAX)
        return err_set(&call->err, ERR_INVALID, "it is nested deeper than %d levels", DEPTH_MAX);
    if (find_here(call, visit, &reference, /* want_content= */ true, &here, &found) < 0)
        return -1;
    if (!found)
        return source->kind->manifest(source, call, visit->from, &reference, ret);
    *ret_settled = !wants_referrers(visit) && !oci_media_type_is_index(here.media_type);
    *ret = (struct source_manifest){
        .digest = *digest, .media_type = here.media_type, .content = here.content};
    return 0;
}

static int bring_digest(const struct visit *visit, const struct oci_digest *digest)
{
    struct importer *importer = visit->importer;
    struct source_manifest manifest;
    bool is_settled;
    auto_call call;
    call_init(&call);
    if (get_by_digest(&call, visit, digest, &manifest, &is_settled) < 0) {
        importer_skip(importer, name_of(&call, visit, digest), &call.err);
        return -1;
    }
    if (!is_settled)
        return bring_manifest(&call, visit, &manifest);
    if (seen_add(importer->seen, key_of(visit->to->text, digest)))
        importer_count(importer, &importer->counts.present, 1);
    return 0;
}

/* ---- Tags ---- */

static int keep_tag(struct call *call, const struct visit *visit, struct str here,
                    const struct oci_digest *there)
{
    struct err err;
    (void)err_set(&err, ERR_CONFLICT,
                  "the tag points to " STR_FMT " here and to " STR_FMT
                  " in the source; it is left, unless tags are to be overwritten",
                  STR_ARG(here), STR_ARG(oci_digest_text(&call->arena, there)));
    importer_skip(visit->importer, name_of(call, visit, there), &err);
    return -1;
}

/* The tag is here: fails when it points elsewhere and must stay so. */
static int compare_tag(struct call *call, const struct visit *visit, struct str here,
                       const struct oci_digest *there, bool *ret_same)
{
    *ret_same = str_eq(here, oci_digest_text(&call->arena, there));
    if (*ret_same || visit->importer->options->overwrite)
        return 0;
    return keep_tag(call, visit, here, there);
}

static void bring_tag(struct call *call, const struct visit *visit)
{
    struct importer_source *source = visit->importer->source;
    const struct oci_reference reference = {.tag = *visit->tag};
    struct visit untagged = *visit;
    struct registry_manifest here;
    struct source_manifest manifest;
    struct oci_digest there;
    bool is_here;
    bool is_known = false;
    bool is_same = false;
    untagged.tag = NULL;
    struct str what = name_of(call, visit, NULL);
    if (find_here(call, visit, &reference, /* want_content= */ false, &here, &is_here) < 0) {
        importer_skip(visit->importer, what, &call->err);
        return;
    }
    if (is_here &&
        source->kind->resolve(source, call, visit->from, visit->tag, &there, &is_known) < 0) {
        importer_skip(visit->importer, what, &call->err);
        return;
    }
    if (is_known && compare_tag(call, visit, here.digest, &there, &is_same) < 0)
        return;
    if (is_same) {
        if (bring_digest(&untagged, &there) == 0)
            importer_count(visit->importer, &visit->importer->counts.present_tags, 1);
        return;
    }
    if (source->kind->manifest(source, call, visit->from, &reference, &manifest) < 0) {
        importer_skip(visit->importer, what, &call->err);
        return;
    }
    if (is_here && compare_tag(call, visit, here.digest, &manifest.digest, &is_same) < 0)
        return;
    if (bring_manifest(call, is_same ? &untagged : visit, &manifest) == 0 && is_same)
        importer_count(visit->importer, &visit->importer->counts.present_tags, 1);
}

void image_import(struct importer *importer, const struct oci_name *from, const struct oci_name *to,
                  struct str text)
{
    auto_call call;
    call_init(&call);
    struct visit visit = {.importer = importer, .from = from, .to = to};
    struct oci_reference reference;
    if (oci_reference_parse(text, &reference, &call.err) < 0) {
        struct str what = str_printf(&call.arena, STR_FMT ", \"" STR_FMT "\"", STR_ARG(from->text),
                                     STR_ARG(str_first(text, OCI_TAG_BYTES_MAX)));
        importer_skip(importer, what, &call.err);
        return;
    }
    if (reference.is_digest) {
        (void)bring_digest(&visit, &reference.digest);
        return;
    }
    visit.tag = &reference.tag;
    bring_tag(&call, &visit);
}
