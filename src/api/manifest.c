#include "api/api_int.h"

int api_ping(struct request *request)
{
    http_respond_text(request->x, 200, "application/json", STR("{}"));
    return 0;
}

/* To who pulls, a tag that cannot be one is a manifest that is not there: 404, as the conformance
 * suite of dist-spec 1.1.1 has it. */
static int parse_pulled(struct request *request, struct oci_reference *ret)
{
    struct err *err = &request->call->err;
    if (oci_reference_parse(request->item, ret, err) == 0)
        return 0;
    if (str_eq(str_from(err->code), STR(OCI_TAG_INVALID))) {
        err->kind = ERR_NOT_FOUND;
        err->code = OCI_MANIFEST_UNKNOWN;
    }
    return -1;
}

bool api_manifest_known(struct request *request)
{
    struct err ignored; /* the handler finds it again, and says so */
    struct oci_reference reference;
    if (oci_reference_parse(request->item, &reference, &ignored) < 0 || !reference.is_digest)
        return false;
    request->found = registry_manifest_known(request->call, request->api->registry, &request->name,
                                             &reference.digest, &request->manifest);
    return request->found;
}

int api_manifest_get(struct request *request)
{
    struct call *call = request->call;
    struct oci_reference reference;
    struct registry_manifest manifest = request->manifest;
    bool head = request->x->method == HTTP_HEAD;
    if (parse_pulled(request, &reference) < 0 ||
        (!request->found && registry_manifest_pull(call, request->api->registry, &request->name,
                                                   &reference, !head, &manifest) < 0))
        return -1;

    answer_digest(request, manifest.digest);
    http_respond_header(request->x, "Cache-Control",
                        reference.is_digest ? "max-age=31536000" : "no-cache");
    if (answer_not_modified(request, manifest.digest))
        return 0;
    /* The stored type whatever Accept says: the bytes are never converted, and clients that cannot
     * use them say so better than a 404 does. */
    http_respond_text(request->x, 200, manifest.media_type.p, manifest.content);
    if (head) {
        request->x->response.size_only = true;
        request->x->response.size = manifest.size;
    }
    return 0;
}

/* The media type before any parameters. */
static struct str content_type(const struct request *request)
{
    struct str header = http_header(request->x, "Content-Type");
    return str_trim(str_cut(&header, ';'));
}

/* Reads ?tag=…, which may be repeated. dist-spec dev, end-7b. */
static int read_tags(struct request *request, struct registry_push *push)
{
    struct call *call = request->call;
    struct oci_tag *tags = arena_alloc(&call->arena, REGISTRY_TAGS_MAX * sizeof(*tags));
    struct str query = request->x->query;
    for (;;) {
        struct str name;
        struct str value;
        bool more;
        if (http_query_next(call, &query, &name, &value, &more) < 0)
            return -1;
        if (!more)
            break;
        if (!str_eq(name, STR("tag")))
            continue;
        if (!push->reference.is_digest)
            return err_code(&call->err, ERR_INVALID, OCI_TAG_INVALID,
                            "the parameter \"tag\" goes with a push by digest");
        if (push->n_tags == REGISTRY_TAGS_MAX)
            return err_code(&call->err, ERR_TOO_LARGE, OCI_TAG_INVALID,
                            "more than %d tags in one push", REGISTRY_TAGS_MAX);
        if (oci_tag_parse(value, &tags[push->n_tags++], &call->err) < 0)
            return -1;
    }
    push->tags = tags;
    return 0;
}

static void answer_tags(struct request *request, const struct registry_push *push)
{
    auto_buf list = BUF_INIT(REGISTRY_TAGS_MAX * (OCI_TAG_BYTES_MAX + 2));
    for (size_t i = 0; i < push->n_tags; i++) {
        if (i > 0)
            buf_add(&list, ", ", 2);
        buf_add_str(&list, push->tags[i].text);
    }
    if (list.n > 0)
        answer_header(request, "OCI-Tag", buf_str(&list));
}

int api_manifest_put(struct request *request)
{
    struct call *call = request->call;
    struct registry_push push = {
        .content_type = content_type(request),
        .content = buf_str(&request->body),
        .if_match = http_header_all(request->x, "If-Match"),
        .if_none_match = http_header_all(request->x, "If-None-Match"),
        .etag_matches = http_etag_matches,
    };
    struct registry_pushed pushed;
    if (oci_reference_parse(request->item, &push.reference, &call->err) < 0 ||
        read_tags(request, &push) < 0 ||
        registry_manifest_push(call, request->api->registry, &request->name, &push, &pushed) < 0)
        return -1;

    struct str digest = oci_digest_text(&call->arena, &pushed.digest);
    answer_location(request, str_printf(&call->arena, "/v2/" STR_FMT "/manifests/" STR_FMT,
                                        STR_ARG(request->name.text), STR_ARG(digest)));
    answer_digest(request, digest);
    answer_tags(request, &push);
    if (pushed.has_subject)
        answer_header(request, "OCI-Subject", oci_digest_text(&call->arena, &pushed.subject));
    if (pushed.n_foreign > 0)
        answer_header(request, "Warning",
                      str_printf(&call->arena,
                                 "299 - \"%zu non-distributable layers are not stored here: "
                                 "pulling needs the place that has them\"",
                                 pushed.n_foreign));
    answer_empty(request, 201);
    return 0;
}

int api_manifest_delete(struct request *request)
{
    struct call *call = request->call;
    struct oci_reference reference;
    if (oci_reference_parse(request->item, &reference, &call->err) < 0 ||
        registry_manifest_delete(call, request->api->registry, &request->name, &reference) < 0)
        return -1;
    answer_empty(request, 202);
    return 0;
}
