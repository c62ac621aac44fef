#include "api/api_int.h"

static struct str upload_path(struct request *request, struct str id)
{
    return str_printf(&request->call->arena, "/v2/" STR_FMT "/blobs/uploads/" STR_FMT,
                      STR_ARG(request->name.text), STR_ARG(id));
}

/* Location, Range and the id: where to go on, and from which byte. The spec's Range has no unit,
 * and 0-0 stands for nothing too. dist-spec, "Pushing a blob in chunks". */
static void answer_session(struct request *request, struct str id, uint64_t received)
{
    answer_location(request, upload_path(request, id));
    answer_header(request, "Range",
                  str_printf(&request->call->arena, "0-%llu",
                             (unsigned long long)(received > 0 ? received - 1 : 0)));
    answer_header(request, "Docker-Upload-UUID", id);
}

static void answer_blob(struct request *request, const struct oci_digest *digest)
{
    struct str text = oci_digest_text(&request->call->arena, digest);
    answer_location(request, str_printf(&request->call->arena, "/v2/" STR_FMT "/blobs/" STR_FMT,
                                        STR_ARG(request->name.text), STR_ARG(text)));
    answer_header(request, "Docker-Content-Digest", text);
    answer_empty(request, 201);
}

void upload_let_go(struct request *request)
{
    registry_upload_end(TAKE(request->upload));
}

/* Bodies of uploads are bounded in number. A PATCH is never told 429: some clients take that as
 * final. */
static int count_in(struct request *request)
{
    uint64_t limit = request->api->config->limits_uploads;
    request->counted = true;
    if (metrics_uploads_add(request->api->metrics, 1) <= (int64_t)limit)
        return 0;
    return err_code(&request->call->err, ERR_BUSY,
                    request->x->method == HTTP_POST ? OCI_TOOMANYREQUESTS : NULL,
                    "%llu uploads are being received already, the limit of this registry",
                    (unsigned long long)limit);
}

/* ---- Start ---- */

/* Mounting is an offer: when it cannot be taken, for whatever reason, a session begins. */
static int try_mount(struct request *request, struct str digest_text, bool *ret_mounted)
{
    struct call *call = request->call;
    struct str from_text;
    struct oci_name from;
    if (http_query_find(request->x, "from", &from_text) < 0)
        return -1;
    *ret_mounted = false;
    if (oci_digest_parse(digest_text, &request->digest, &call->err) < 0 ||
        (from_text.p != NULL && oci_name_parse(from_text, &from, &call->err) < 0))
        return 0;
    return registry_blob_mount(call, request->api->registry, &request->name, &request->digest,
                               from_text.p != NULL ? &from : NULL, ret_mounted);
}

int api_upload_start_open(struct request *request)
{
    struct call *call = request->call;
    struct str mount;
    struct str digest;
    if (count_in(request) < 0 || http_query_find(request->x, "mount", &mount) < 0 ||
        http_query_find(request->x, "digest", &digest) < 0)
        return -1;
    if (mount.p != NULL || digest.p == NULL)
        return 0;
    if (oci_digest_parse(digest, &request->digest, &call->err) < 0)
        return -1;
    return registry_upload_start_whole(call, request->api->registry, &request->name,
                                       request->digest.algorithm, &request->upload);
}

static int start_session(struct request *request)
{
    struct call *call = request->call;
    struct str text;
    enum hash_algorithm algorithm = HASH_SHA256;
    if (http_query_find(request->x, "digest-algorithm", &text) < 0 ||
        (text.p != NULL && oci_algorithm_parse(text, &algorithm, &call->err) < 0) ||
        registry_upload_start(call, request->api->registry, &request->name, algorithm,
                              &request->upload) < 0)
        return -1;
    answer_session(request, registry_upload_id(request->upload), 0);
    upload_let_go(request);
    answer_empty(request, 202);
    return 0;
}

int api_upload_start(struct request *request)
{
    struct str mount;
    bool mounted = false;
    if (request->upload != NULL) {
        if (registry_upload_finish(request->call, request->upload, &request->digest) < 0)
            return -1;
        upload_let_go(request);
        answer_blob(request, &request->digest);
        return 0;
    }
    if (http_query_find(request->x, "mount", &mount) < 0 ||
        (mount.p != NULL && try_mount(request, mount, &mounted) < 0))
        return -1;
    if (!mounted)
        return start_session(request);
    answer_blob(request, &request->digest);
    return 0;
}

/* ---- Content ---- */

/* first-last, inclusive, without a unit. */
static int parse_content_range(struct str header, uint64_t *ret_first, uint64_t *ret_last,
                               struct err *err)
{
    struct str rest = header;
    bool good = str_eat_u64(&rest, INT64_MAX - 1, ret_first) && rest.n > 0 && rest.p[0] == '-';
    rest = str_from_at(rest, 1);
    if (good && str_eat_u64(&rest, INT64_MAX - 1, ret_last) && rest.n == 0)
        return 0;
    return err_code(err, ERR_INVALID, OCI_BLOB_UPLOAD_INVALID,
                    "Content-Range \"" STR_FMT "\" is not of the form first-last",
                    STR_ARG(str_first(header, 60)));
}

/* Compares Content-Range with what was received so far. */
static int check_range(struct request *request)
{
    struct err *err = &request->call->err;
    struct str header = http_header(request->x, "Content-Range");
    uint64_t received = registry_upload_received(request->upload);
    uint64_t first;
    uint64_t last;
    if (header.p == NULL)
        return 0;
    if (parse_content_range(header, &first, &last, err) < 0)
        return -1;
    if (first > last || first != received) {
        answer_session(request, registry_upload_id(request->upload), received);
        return err_set(err, ERR_RANGE, "the upload has %llu bytes, the chunk begins at %llu",
                       (unsigned long long)received, (unsigned long long)first);
    }
    request->expected = last - first + 1;
    if (request->x->length_known && request->x->content_length != request->expected)
        return err_code(err, ERR_INVALID, OCI_SIZE_INVALID,
                        "Content-Range announces %llu bytes, Content-Length %llu",
                        (unsigned long long)request->expected,
                        (unsigned long long)request->x->content_length);
    return 0;
}

/* A chunk without a length has its size checked when it ended. Its bytes are not acknowledged, so
 * the next request drops them. */
static int check_chunk(struct request *request)
{
    if (request->expected == 0 || request->expected == request->x->bytes_in)
        return 0;
    return err_code(&request->call->err, ERR_INVALID, OCI_SIZE_INVALID,
                    "Content-Range announced %llu bytes, %llu arrived",
                    (unsigned long long)request->expected,
                    (unsigned long long)request->x->bytes_in);
}

int api_upload_append_open(struct request *request)
{
    if (count_in(request) < 0 ||
        registry_upload_open(request->call, request->api->registry, &request->name, request->item,
                             &request->upload) < 0)
        return -1;
    return check_range(request);
}

int api_upload_append(struct request *request)
{
    if (check_chunk(request) < 0 || registry_upload_save(request->call, request->upload) < 0)
        return -1;
    answer_session(request, registry_upload_id(request->upload),
                   registry_upload_received(request->upload));
    upload_let_go(request);
    answer_empty(request, 202);
    return 0;
}

int api_upload_finish_open(struct request *request)
{
    struct call *call = request->call;
    struct str digest;
    if (http_query_find(request->x, "digest", &digest) < 0)
        return -1;
    if (digest.p == NULL)
        return err_code(&call->err, ERR_INVALID, OCI_DIGEST_INVALID,
                        "the parameter \"digest\" is missing");
    if (oci_digest_parse(digest, &request->digest, &call->err) < 0)
        return -1;
    return api_upload_append_open(request);
}

int api_upload_finish(struct request *request)
{
    if (check_chunk(request) < 0 ||
        registry_upload_finish(request->call, request->upload, &request->digest) < 0)
        return -1;
    upload_let_go(request);
    answer_blob(request, &request->digest);
    return 0;
}

int api_upload_status(struct request *request)
{
    uint64_t received;
    if (registry_upload_status(request->call, request->api->registry, &request->name, request->item,
                               &received) < 0)
        return -1;
    answer_session(request, request->item, received);
    answer_empty(request, 204);
    return 0;
}

int api_upload_cancel_open(struct request *request)
{
    return registry_upload_open(request->call, request->api->registry, &request->name,
                                request->item, &request->upload);
}

int api_upload_cancel(struct request *request)
{
    if (registry_upload_cancel(request->call, request->upload) < 0)
        return -1;
    upload_let_go(request);
    answer_empty(request, 204);
    return 0;
}
