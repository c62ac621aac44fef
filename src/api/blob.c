#include "api/api_int.h"

struct part {
    bool whole;
    uint64_t offset;
    uint64_t n;
};

/* The part that Range asks for. Errors: RANGE. RFC 9110, section 14.2. */
static int choose_part(struct request *request, uint64_t size, struct str digest, struct part *ret)
{
    struct str condition = http_header(request->x, "If-Range");
    struct str range = http_header(request->x, "Range");
    uint64_t first = 0;
    uint64_t last = 0;
    enum http_range asked = HTTP_RANGE_NONE;
    if (range.p != NULL &&
        (condition.p == NULL || http_etag_matches(condition, digest, /* exists= */ true)))
        asked = http_range_parse(range, size, &first, &last);

    switch (asked) {
    case HTTP_RANGE_NONE:
        *ret = (struct part){.whole = true, .n = size};
        return 0;
    case HTTP_RANGE_PART:
        *ret = (struct part){.offset = first, .n = last - first + 1};
        return 0;
    case HTTP_RANGE_UNSATISFIABLE:
        break;
    }
    answer_header(request, "Content-Range",
                  str_printf(&request->call->arena, "bytes */%llu", (unsigned long long)size));
    return err_set(&request->call->err, ERR_RANGE, "the blob has %llu bytes, none of them in range",
                   (unsigned long long)size);
}

bool api_blob_known(struct request *request)
{
    struct err ignored; /* the handler finds it again, and says so */
    request->found = oci_digest_parse(request->item, &request->digest, &ignored) == 0 &&
                     registry_blob_known(request->call, request->api->registry, &request->name,
                                         &request->digest, &request->blob);
    return request->found;
}

/* To where the store itself gives the bytes. The URL is good for a while only: nobody may keep this
 * answer. RFC 9110, section 15.4.8. */
static void answer_redirect(struct request *request, struct str url)
{
    answer_header(request, "Location", url);
    http_respond_header(request->x, "Cache-Control", "no-store");
    answer_empty(request, 307);
}

/* The bytes themselves, or the part of them that is asked for. */
static int answer_content(struct request *request, const struct registry_blob *blob)
{
    struct http_response *response = &request->x->response;
    struct registry_content content;
    struct part part;
    if (choose_part(request, blob->size, request->item, &part) < 0 ||
        registry_blob_open(request->call, request->api->registry, blob, part.offset, part.n,
                           &content) < 0)
        return -1;
    response->status = part.whole ? 200 : 206;
    response->offset = part.offset;
    response->size = part.n;
    response->fd = content.fd;
    response->stream = content.stream;
    if (!part.whole)
        answer_header(request, "Content-Range",
                      str_printf(&request->call->arena, "bytes %llu-%llu/%llu",
                                 (unsigned long long)part.offset,
                                 (unsigned long long)(part.offset + part.n - 1),
                                 (unsigned long long)blob->size));
    return 0;
}

int api_blob_get(struct request *request)
{
    struct call *call = request->call;
    struct http_response *response = &request->x->response;
    struct registry_blob *blob = &request->blob;
    struct str url = {0};
    if (!request->found && (oci_digest_parse(request->item, &request->digest, &call->err) < 0 ||
                            registry_blob_find(call, request->api->registry, &request->name,
                                               &request->digest, blob) < 0))
        return -1;
    answer_digest(request, request->item);
    if (answer_not_modified(request, request->item))
        return 0;

    bool head = request->x->method == HTTP_HEAD;
    if (!head && registry_blob_redirect(call, request->api->registry, blob, &url) < 0)
        return -1;
    if (url.p != NULL) {
        answer_redirect(request, url);
        return 0;
    }
    if (head) {
        response->status = 200;
        response->size = blob->size;
        response->size_only = true;
    } else if (answer_content(request, blob) < 0) {
        return -1;
    }
    http_respond_header(request->x, "Content-Type", "application/octet-stream");
    http_respond_header(request->x, "Accept-Ranges", "bytes");
    http_respond_header(request->x, "Cache-Control", "max-age=31536000");
    return 0;
}

int api_blob_delete(struct request *request)
{
    struct call *call = request->call;
    struct oci_digest digest;
    if (oci_digest_parse(request->item, &digest, &call->err) < 0 ||
        registry_blob_delete(call, request->api->registry, &request->name, &digest) < 0)
        return -1;
    answer_empty(request, 202);
    return 0;
}
