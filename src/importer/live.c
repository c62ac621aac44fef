/* A live registry, by the OCI Distribution Specification and Docker's catalog. */
#include "importer/live_int.h"

#define PAGE_NAMES 100
#define PAGES_MAX 100000
/* Some registries give all tags of a repository in one answer. */
#define LIST_BYTES_MAX ((size_t)32 * 1024 * 1024)
#define NAME_AND_DIGEST_MAX (OCI_NAME_BYTES_MAX + OCI_DIGEST_TEXT_MAX + 64)
#define ACCEPT_MANIFESTS                                                              \
    OCI_MEDIA_TYPE_INDEX ", " OCI_MEDIA_TYPE_MANIFEST ", " OCI_MEDIA_TYPE_DOCKER_LIST \
                         ", " OCI_MEDIA_TYPE_DOCKER_MANIFEST                          \
                         ", application/vnd.docker.distribution.manifest.v1+prettyjws"

struct live {
    struct importer_source source;
    struct arena arena; /* owns what is borrowed below */
    struct url base;
    struct str repository; /* empty: all of the catalog */
    struct credentials credentials;
    struct remote *remote; /* owned */
    size_t manifest_bytes_max;
    pthread_mutex_t mutex; /* of what follows */
    /* The repository that answered 404 last when it was asked for referrers: so it does for all its
     * manifests. Another repository may stand for another registry behind the same host. */
    char without_referrers[OCI_NAME_BYTES_MAX + 1];
};

static struct live *live_of(struct importer_source *source)
{
    return (struct live *)source;
}

/* ---- Requests ---- */

/* A body that is kept in memory. */
struct body {
    struct buf text;
    const char *what; /* static: for the error text */
};

static int body_take(void *context, struct str piece, struct err *err)
{
    struct body *body = context;
    buf_add_str(&body->text, piece);
    if (body->text.overflow)
        return err_set(err, ERR_TOO_LARGE, "%s has more than %zu bytes", body->what,
                       body->text.max);
    return 0;
}

static void body_restart(void *context)
{
    struct body *body = context;
    buf_done(&body->text);
}

static struct str pull_scope(struct call *call, const struct oci_name *name)
{
    return str_printf(&call->arena, "repository:" STR_FMT ":pull", STR_ARG(name->text));
}

/* What stands below /v2/ of the registry. Names, tags and digests need no encoding. */
__attribute__((format(printf, 4, 5))) static int
url_below(struct call *call, const struct live *live, struct url *ret, const char *fmt, ...)
{
    char path[NAME_AND_DIGEST_MAX + OCI_TAG_BYTES_MAX];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(path, sizeof(path), fmt, args);
    va_end(args);
    require(n > 0 && (size_t)n < sizeof(path));
    return url_read(&call->arena, &live->base, (struct str){path, (size_t)n}, ret, &call->err);
}

/* ---- Lists, page by page ---- */

struct list {
    const char *what;   /* static: for error texts */
    const char *accept; /* NULL: anything */
    const char *field;  /* of the answer: an array */
    const char *key;    /* of its elements, when they are objects; NULL: they are texts */
    struct str scope;
    source_text_fn each;
    void *context;
};

static int list_give(const struct list *list, struct str text, struct err *err)
{
    json_auto_t *json = NULL;
    if (source_json_read(text, list->what, &json, err) < 0)
        return -1;
    const json_t *names = json_object_get(json, list->field);
    if (names != NULL && !json_is_array(names) && !json_is_null(names))
        return err_set(err, ERR_INVALID, "%s: \"%s\" is not an array", list->what, list->field);
    for (size_t i = 0; i < json_array_size(names); i++) {
        const json_t *entry = json_array_get(names, i);
        struct str name = list->key != NULL
                              ? source_json_text(entry, list->key)
                              : (struct str){json_string_value(entry), json_string_length(entry)};
        if (list->each(list->context, name, err) < 0)
            return -1;
    }
    return 0;
}

/* Where the next page is. Only its path and query count: it is a page of the same registry,
 * whatever name a proxy before it has put there. arena; p NULL: this was the last. */
static int next_page(struct call *call, const struct live *live, const struct url *here,
                     const struct fetch_answer *answer, struct str *ret)
{
    struct str lines = answer->headers;
    struct str header;
    *ret = (struct str){0};
    while (header_next(&lines, STR("Link"), &header)) {
        struct str target = link_next(header);
        struct url next;
        if (target.p == NULL)
            continue;
        if (url_read(&call->arena, here, target, &next, &call->err) < 0)
            return -1;
        *ret =
            str_printf(&call->arena, STR_FMT "%s%s%s", STR_ARG(live->base.origin), next.path.p,
                       next.query.p != NULL ? "?" : "", next.query.p != NULL ? next.query.p : "");
        return 0;
    }
    return 0;
}

/* One page; *next holds its URL, and then that of the one after it. Memory ends with the page. */
static int read_page(const struct live *live, const struct list *list, struct buf *next,
                     struct err *err)
{
    auto_call call;
    call_init(&call);
    struct body body = {.text = BUF_INIT(LIST_BYTES_MAX), .what = list->what};
    struct remote_request request = {.method = "GET",
                                     .accept = list->accept,
                                     .scope = list->scope,
                                     .take = body_take,
                                     .restart = body_restart,
                                     .context = &body};
    struct fetch_answer answer;
    struct str following = {0};
    int done = url_read(&call.arena, NULL, buf_str(next), &request.url, &call.err);
    if (done == 0)
        done = remote_get(&call, live->remote, &request, &answer);
    if (done == 0)
        done = list_give(list, buf_str(&body.text), &call.err);
    if (done == 0)
        done = next_page(&call, live, &request.url, &answer, &following);
    buf_done(&body.text);
    if (done < 0) {
        *err = call.err;
        return -1;
    }
    buf_done(next);
    buf_add_str(next, following);
    return 0;
}

static int read_list(struct call *call, const struct live *live, const struct list *list,
                     const struct url *first)
{
    auto_buf next = BUF_INIT(16384);
    auto_buf seen = BUF_INIT(16384);
    uint64_t keep_at = 1;
    buf_add_str(&next, first->text);
    for (uint64_t page = 1; next.n > 0; page++) {
        if (next.overflow || page > PAGES_MAX)
            return err_set(&call->err, ERR_INVALID, "%s does not end after %d pages", list->what,
                           PAGES_MAX);
        /* Brent's way to find a loop: one page is remembered, and another one ever more rarely. */
        if (str_eq(buf_str(&next), buf_str(&seen)))
            return err_set(&call->err, ERR_INVALID,
                           "%s does not end: page %llu leads to one that was read before",
                           list->what, (unsigned long long)page - 1);
        if (page == keep_at) {
            buf_done(&seen);
            buf_add_str(&seen, buf_str(&next));
            keep_at *= 2;
        }
        if (atomic_load(&live->source.stopping))
            return err_set(&call->err, ERR_BUSY, "%s was not read to its end", list->what);
        if (read_page(live, list, &next, &call->err) < 0)
            return -1;
    }
    return 0;
}

static int live_repositories(struct importer_source *source, struct call *call, source_text_fn each,
                             void *context)
{
    struct live *live = live_of(source);
    if (live->repository.n > 0)
        return each(context, live->repository, &call->err);
    const struct list list = {.what = "the registry's catalog",
                              .field = "repositories",
                              .scope = STR("registry:catalog:*"),
                              .each = each,
                              .context = context};
    struct url url;
    if (url_below(call, live, &url, "/v2/_catalog?n=%d", PAGE_NAMES) < 0)
        return -1;
    if (read_list(call, live, &list, &url) == 0)
        return 0;
    enum err_kind kind = call->err.kind;
    if (kind != ERR_NOT_FOUND && kind != ERR_DENIED && kind != ERR_UNAUTHENTICATED)
        return -1;
    struct err reason = call->err;
    return err_set(&call->err, kind,
                   "the registry does not show its catalog: %s; name one repository instead, "
                   "https://HOST/REPOSITORY",
                   reason.say);
}

static int live_references(struct importer_source *source, struct call *call,
                           const struct oci_name *name, source_text_fn each, void *context)
{
    struct live *live = live_of(source);
    const struct list list = {.what = "the list of tags",
                              .field = "tags",
                              .scope = pull_scope(call, name),
                              .each = each,
                              .context = context};
    struct url url;
    if (url_below(call, live, &url, "/v2/" STR_FMT "/tags/list?n=%d", STR_ARG(name->text),
                  PAGE_NAMES) < 0)
        return -1;
    if (read_list(call, live, &list, &url) == 0)
        return 0;
    /* Catalogs go on to list repositories of which everything was deleted. */
    return call->err.kind == ERR_NOT_FOUND && live->repository.n == 0 ? 0 : -1;
}

/* ---- Manifests ---- */

static int manifest_url(struct call *call, const struct live *live, const struct oci_name *name,
                        const struct oci_reference *reference, struct url *ret)
{
    struct str text = reference->is_digest ? oci_digest_text(&call->arena, &reference->digest)
                                           : reference->tag.text;
    return url_below(call, live, ret, "/v2/" STR_FMT "/manifests/" STR_FMT, STR_ARG(name->text),
                     STR_ARG(text));
}

/* What the registry says that the manifest's digest is. */
static bool claimed_digest(const struct fetch_answer *answer, struct oci_digest *ret)
{
    struct err ignored;
    struct str header = fetch_header(answer, "Docker-Content-Digest");
    return header.p != NULL && oci_digest_parse(header, ret, &ignored) == 0;
}

static int live_resolve(struct importer_source *source, struct call *call,
                        const struct oci_name *name, const struct oci_tag *tag,
                        struct oci_digest *ret, bool *ret_known)
{
    struct live *live = live_of(source);
    const struct oci_reference reference = {.tag = *tag};
    struct remote_request request = {
        .method = "HEAD", .accept = ACCEPT_MANIFESTS, .scope = pull_scope(call, name)};
    struct fetch_answer answer;
    if (manifest_url(call, live, name, &reference, &request.url) < 0 ||
        remote_get(call, live->remote, &request, &answer) < 0)
        return -1;
    *ret_known = claimed_digest(&answer, ret);
    return 0;
}

static int live_manifest(struct importer_source *source, struct call *call,
                         const struct oci_name *name, const struct oci_reference *reference,
                         struct source_manifest *ret)
{
    struct live *live = live_of(source);
    struct body body = {.text = BUF_INIT(live->manifest_bytes_max), .what = "the manifest"};
    struct remote_request request = {.method = "GET",
                                     .accept = ACCEPT_MANIFESTS,
                                     .scope = pull_scope(call, name),
                                     .take = body_take,
                                     .restart = body_restart,
                                     .context = &body};
    struct fetch_answer answer;
    struct source_manifest manifest = {0};
    if (manifest_url(call, live, name, reference, &request.url) < 0)
        return -1;
    int done = remote_get(call, live->remote, &request, &answer);
    manifest.content = str_dup(&call->arena, buf_str(&body.text));
    buf_done(&body.text);
    if (done < 0)
        return -1;
    struct str type = fetch_header(&answer, "Content-Type");
    manifest.media_type = str_trim(str_cut(&type, ';'));
    struct oci_digest wanted = reference->digest;
    bool is_known = reference->is_digest || claimed_digest(&answer, &wanted);
    if (source_check_manifest(call, is_known ? &wanted : NULL, manifest.content, &manifest.digest) <
        0)
        return -1;
    *ret = manifest;
    return 0;
}

/* ---- Blobs ---- */

/* Bytes of a blob. When the connection breaks it comes again from its beginning, and what was given
 * on already is passed over; should it be other bytes this time, the digest tells. */
struct blob_bytes {
    source_piece_fn take;
    void *context;
    uint64_t given;
    uint64_t to_skip;
};

static void blob_restart(void *context)
{
    struct blob_bytes *bytes = context;
    bytes->to_skip = bytes->given;
}

static int blob_take(void *context, struct str piece, struct err *err)
{
    struct blob_bytes *bytes = context;
    size_t skipped = piece.n < bytes->to_skip ? piece.n : (size_t)bytes->to_skip;
    bytes->to_skip -= skipped;
    piece = str_from_at(piece, skipped);
    bytes->given += piece.n;
    return piece.n > 0 ? bytes->take(bytes->context, piece, err) : 0;
}

static int live_blob(struct importer_source *source, struct call *call, const struct oci_name *name,
                     const struct oci_digest *digest, source_piece_fn take, void *context)
{
    struct live *live = live_of(source);
    struct blob_bytes bytes = {.take = take, .context = context};
    struct remote_request request = {.method = "GET",
                                     .scope = pull_scope(call, name),
                                     .take = blob_take,
                                     .restart = blob_restart,
                                     .context = &bytes};
    struct fetch_answer answer;
    struct str text = oci_digest_text(&call->arena, digest);
    if (url_below(call, live, &request.url, "/v2/" STR_FMT "/blobs/" STR_FMT, STR_ARG(name->text),
                  STR_ARG(text)) < 0)
        return -1;
    return remote_get(call, live->remote, &request, &answer);
}

/* ---- Referrers ---- */

static bool lacks_referrers(struct live *live, const struct oci_name *name)
{
    auto_lock held = lock_take(&live->mutex);
    return str_eq(str_from(live->without_referrers), name->text);
}

static void remember_lack(struct live *live, const struct oci_name *name)
{
    auto_lock held = lock_take(&live->mutex);
    memcpy(live->without_referrers, name->text.p, name->text.n); /* a name is checked to fit */
    live->without_referrers[name->text.n] = '\0';
}

/* dist-spec, "Unavailable Referrers API": an index under a tag made from the digest. */
static int referrers_by_tag(struct live *live, struct call *call, const struct oci_name *name,
                            const struct oci_digest *subject, const struct list *list)
{
    struct str digest = oci_digest_text(&call->arena, subject);
    struct str algorithm = str_cut(&digest, ':');
    const struct oci_reference reference = {
        .tag = {str_printf(&call->arena, STR_FMT "-" STR_FMT, STR_ARG(algorithm),
                           STR_ARG(str_first(digest, 64)))}};
    struct source_manifest manifest;
    if (live_manifest(&live->source, call, name, &reference, &manifest) < 0)
        return call->err.kind == ERR_NOT_FOUND ? 0 : -1;
    return list_give(list, manifest.content, &call->err);
}

static int live_referrers(struct importer_source *source, struct call *call,
                          const struct oci_name *name, const struct oci_digest *subject,
                          source_text_fn each, void *context)
{
    struct live *live = live_of(source);
    const struct list list = {.what = "the list of referrers",
                              .accept = OCI_MEDIA_TYPE_INDEX,
                              .field = "manifests",
                              .key = "digest",
                              .scope = pull_scope(call, name),
                              .each = each,
                              .context = context};
    if (lacks_referrers(live, name))
        return referrers_by_tag(live, call, name, subject, &list);
    struct url url;
    if (url_below(call, live, &url, "/v2/" STR_FMT "/referrers/" STR_FMT, STR_ARG(name->text),
                  STR_ARG(oci_digest_text(&call->arena, subject))) < 0)
        return -1;
    if (read_list(call, live, &list, &url) == 0)
        return 0;
    if (call->err.kind != ERR_NOT_FOUND)
        return -1;
    remember_lack(live, name);
    return referrers_by_tag(live, call, name, subject, &list);
}

/* ---- Opening ---- */

static void live_close(struct importer_source *source)
{
    struct live *live = live_of(source);
    remote_free(live->remote);
    credentials_done(&live->credentials);
    (void)pthread_mutex_destroy(&live->mutex);
    arena_done(&live->arena);
    free(live);
}

static const struct source_kind live_kind = {
    .is_remote = true,
    .repositories = live_repositories,
    .references = live_references,
    .resolve = live_resolve,
    .manifest = live_manifest,
    .blob = live_blob,
    .referrers = live_referrers,
    .close = live_close,
};

/* https://HOST[:PORT][/REPOSITORY] */
static int read_where(struct live *live, const char *text, struct err *err)
{
    struct oci_name name;
    if (url_read(&live->arena, NULL, str_from(text), &live->base, err) < 0)
        return -1;
    struct str repository = str_from_at(live->base.path, 1);
    if (str_ends(repository, STR("/")))
        repository.n--;
    if (live->base.query.p != NULL)
        return err_set(err, ERR_INVALID, "\"%s\" is not https://HOST[:PORT][/REPOSITORY]", text);
    if (str_find(repository, ':') < repository.n) /* as clients write images */
        return err_set(err, ERR_INVALID,
                       "\"%s\" names one image, and a repository is imported whole: leave out what "
                       "comes after its name",
                       text);
    if (repository.n > 0 && oci_name_parse(repository, &name, err) < 0)
        return -1;
    live->repository = repository;
    return 0;
}

/* dist-spec, "Determining Support". Some registries refuse this to strangers, and show them public
 * repositories all the same; a wrong password is told at once. */
static int check_registry(struct call *call, const struct live *live)
{
    const struct credentials *credentials = &live->credentials;
    bool is_stranger = credentials->username == NULL && credentials->identity == NULL;
    struct remote_request request = {.method = "GET", .is_first = true};
    struct fetch_answer answer;
    if (url_below(call, live, &request.url, "/v2/") < 0)
        return -1;
    if (remote_get(call, live->remote, &request, &answer) == 0)
        return 0;
    bool is_refused = call->err.kind == ERR_UNAUTHENTICATED || call->err.kind == ERR_DENIED;
    return is_stranger && is_refused ? 0 : -1;
}

int source_open_live(struct call *call, const char *url, const struct importer_origin *origin,
                     struct importer_source **ret)
{
    struct live *live = mem_zalloc(sizeof(*live));
    live->source.kind = &live_kind;
    live->manifest_bytes_max = origin->manifest_bytes_max;
    require(pthread_mutex_init(&live->mutex, NULL) == 0);
    if (read_where(live, url, &call->err) < 0 ||
        credentials_load(origin, live->base.host, &live->credentials, &call->err) < 0 ||
        remote_new(origin, &live->base, &live->credentials, &live->source.stopping, &live->remote,
                   &call->err) < 0 ||
        check_registry(call, live) < 0) {
        live_close(&live->source);
        return -1;
    }
    *ret = &live->source;
    return 0;
}
