#include "api/api_int.h"

/* The part that Range asks for. Errors: RANGE. RFC 9110, section 14.2. */
static int choose_part(struct request *request, uint64_t size, struct str digest)
{
    struct http_response *response = &request->x->response;
    struct str condition = http_header(request->x, "If-Range");
    struct str range = http_header(request->x, "Range");
    uint64_t first = 0;
    uint64_t last = 0;
    enum http_range asked = HTTP_RANGE_NONE;
    if (range.p != NULL &&
        (condition.p == NULL || http_etag_matches(condition, digest, /* exists= */ true)))
        asked = http_range_parse(range, size, &first, &last);

    struct arena *arena = &request->call->arena;
    switch (asked) {
    case HTTP_RANGE_NONE:
        response->status = 200;
        response->size = size;
        return 0;
    case HTTP_RANGE_PART:
        response->status = 206;
        response->offset = first;
        response->size = last - first + 1;
        answer_header(request, "Content-Range",
                      str_printf(arena, "bytes %llu-%llu/%llu", (unsigned long long)first,
                                 (unsigned long long)last, (unsigned long long)size));
        return 0;
    case HTTP_RANGE_UNSATISFIABLE:
        break;
    }
    answer_header(request, "Content-Range",
                  str_printf(arena, "bytes */%llu", (unsigned long long)size));
    return err_set(&request->call->err, ERR_RANGE, "the blob has %llu bytes, none of them in range",
                   (unsigned long long)size);
}

int api_blob_get(struct request *request)
{
    struct call *call = request->call;
    struct oci_digest digest;
    struct registry_blob blob;
    bool head = request->x->method == HTTP_HEAD;
    if (oci_digest_parse(request->item, &digest, &call->err) < 0)
        return -1;
    if (registry_blob_pull(call, request->api->registry, &request->name, &digest,
                           /* open= */ !head, &blob) < 0)
        return -1;

    struct http_response *response = &request->x->response;
    response->fd = blob.fd;
    answer_digest(request, request->item);
    if (answer_not_modified(request, request->item))
        return 0;
    if (!head && choose_part(request, blob.size, request->item) < 0)
        return -1;
    http_respond_header(request->x, "Content-Type", "application/octet-stream");
    http_respond_header(request->x, "Accept-Ranges", "bytes");
    http_respond_header(request->x, "Cache-Control", "max-age=31536000");
    if (head) {
        response->status = 200;
        response->size = blob.size;
        response->size_only = true;
    }
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
