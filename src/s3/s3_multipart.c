/* Multipart uploads. */
#include "s3/s3_int.h"

#define ID_BYTES_MAX 1024
#define PARTS_MAX 10000
#define COMPLETE_ERRORS_MOST 3

static int not_understood(struct err *err)
{
    return err_set(err, ERR_IO, "an answer of the object store is not understood");
}

/* ---- Begin ---- */

struct beginning {
    struct arena *arena;
    struct str id;
};

static int begin_element(void *context, struct str path, struct str text, struct err *err)
{
    (void)err;
    struct beginning *beginning = context;
    if (str_eq(path, STR("InitiateMultipartUploadResult/UploadId")) && text.n <= ID_BYTES_MAX)
        beginning->id = str_dup(beginning->arena, text);
    return 0;
}

static int begin_parse(void *context, const struct fetch_answer *answer, struct err *err)
{
    struct beginning *beginning = context;
    if (s3_xml_parse(answer->body, begin_element, beginning, err) < 0)
        return -1;
    return beginning->id.n > 0 ? 0 : not_understood(err);
}

int s3_multipart_begin(struct call *call, struct s3 *s3, const char *key, struct str *ret_id)
{
    struct beginning beginning = {.arena = &call->arena};
    struct s3_request request = {
        .operation = "CreateMultipartUpload",
        .method = "POST",
        .key = key,
        .body = STR(""),
        .parse = begin_parse,
        .context = &beginning,
    };
    s3_add_query(&request, "uploads", STR(""));
    s3_add_header(&request, "content-type", STR("application/octet-stream"));
    s3_add_encryption(s3, &request);
    struct fetch_answer answer;
    if (s3_send(call, s3, &request, &answer) < 0)
        return -1;
    *ret_id = beginning.id;
    return 0;
}

/* ---- Parts ---- */

static int check_id(struct str id, struct err *err)
{
    if (id.n == 0 || id.n > ID_BYTES_MAX)
        return err_set(err, ERR_INVALID, "\"" STR_FMT "\" is not the id of a multipart upload",
                       STR_ARG(str_first(id, 60)));
    return 0;
}

static bool etag_copy(struct str text, struct s3_etag *ret)
{
    if (text.n >= 2 && str_starts(text, STR("\"")) && str_ends(text, STR("\"")))
        text = (struct str){text.p + 1, text.n - 2};
    if (text.n == 0 || text.n > S3_ETAG_BYTES_MAX)
        return false;
    memcpy(ret->text, text.p, text.n);
    ret->text[text.n] = '\0';
    return true;
}

int s3_multipart_put(struct call *call, struct s3 *s3, const char *key, struct str id,
                     unsigned part, struct str content, struct s3_etag *ret)
{
    if (check_id(id, &call->err) < 0)
        return -1;
    if (part < 1 || part > PARTS_MAX)
        return err_set(&call->err, ERR_TOO_LARGE,
                       "part %u is not one of the %d that an object can have", part, PARTS_MAX);
    struct s3_request request = {
        .operation = "UploadPart",
        .method = "PUT",
        .key = key,
        .body = content.p != NULL ? content : STR(""),
        .is_content = true,
    };
    s3_add_query(&request, "partNumber", str_printf(&call->arena, "%u", part));
    s3_add_query(&request, "uploadId", id);
    struct fetch_answer answer;
    if (s3_send(call, s3, &request, &answer) < 0)
        return -1;
    if (!etag_copy(fetch_header(&answer, "ETag"), ret)) {
        (void)not_understood(&call->err);
        return err_why(&call->err, "UploadPart: no usable ETag");
    }
    return 0;
}

/* ---- Complete ---- */

static int complete_element(void *context, struct str path, struct str text, struct err *err)
{
    (void)text;
    (void)err;
    bool *is_result = context;
    *is_result = *is_result || str_eq(path, STR("CompleteMultipartUploadResult"));
    return 0;
}

static int complete_parse(void *context, const struct fetch_answer *answer, struct err *err)
{
    (void)context;
    bool is_result = false;
    if (s3_xml_parse(answer->body, complete_element, &is_result, err) < 0)
        return -1;
    return is_result ? 0 : not_understood(err);
}

static int complete_body(const struct s3_etag *parts, size_t n, struct buf *body, struct err *err)
{
    buf_add_str(body, STR("<?xml version=\"1.0\" encoding=\"UTF-8\"?><CompleteMultipartUpload "
                          "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"));
    for (size_t i = 0; i < n; i++) {
        buf_printf(body, "<Part><PartNumber>%zu</PartNumber><ETag>&#34;", i + 1);
        if (!s3_xml_add(body, str_from(parts[i].text)))
            return err_set(err, ERR_INVALID, "the tag of part %zu cannot be sent", i + 1);
        buf_add_str(body, STR("&#34;</ETag></Part>"));
    }
    buf_add_str(body, STR("</CompleteMultipartUpload>"));
    require(!body->overflow); /* the number of parts and their tags are bounded */
    return 0;
}

/* Errors: NOT_FOUND. */
static int upload_look(struct call *call, struct s3 *s3, const char *key, struct str id)
{
    struct s3_request request = {.operation = "ListParts", .method = "GET", .key = key};
    s3_add_query(&request, "uploadId", id);
    s3_add_query(&request, "max-parts", STR("1"));
    struct fetch_answer answer;
    return s3_send(call, s3, &request, &answer);
}

int s3_multipart_complete(struct call *call, struct s3 *s3, const char *key, struct str id,
                          const struct s3_etag *parts, size_t n_parts)
{
    if (check_id(id, &call->err) < 0)
        return -1;
    if (n_parts < 1 || n_parts > PARTS_MAX)
        return err_set(&call->err, ERR_TOO_LARGE, "an object cannot have %zu parts", n_parts);
    auto_buf body = BUF_INIT((size_t)16 * 1024 * 1024);
    if (complete_body(parts, n_parts, &body, &call->err) < 0)
        return -1;
    struct s3_request request = {
        .operation = "CompleteMultipartUpload",
        .method = "POST",
        .key = key,
        .body = buf_str(&body),
        .parse = complete_parse,
        .errors_most = COMPLETE_ERRORS_MOST,
    };
    s3_add_query(&request, "uploadId", id);
    s3_add_header(&request, "content-type", STR("application/xml"));
    struct fetch_answer answer;
    if (s3_send(call, s3, &request, &answer) == 0)
        return 0;
    /* radosgw answers 500 as long as one likes when the upload was aborted. */
    request.errors_most = 0;
    if (call->err.kind == ERR_BUSY && upload_look(call, s3, key, id) == 0 &&
        s3_send(call, s3, &request, &answer) == 0)
        return 0;
    return -1;
}

int s3_multipart_abort(struct call *call, struct s3 *s3, const char *key, struct str id)
{
    if (check_id(id, &call->err) < 0)
        return -1;
    struct s3_request request = {
        .operation = "AbortMultipartUpload", .method = "DELETE", .key = key};
    s3_add_query(&request, "uploadId", id);
    struct fetch_answer answer;
    if (s3_send(call, s3, &request, &answer) == 0)
        return 0;
    return call->err.kind == ERR_NOT_FOUND ? 0 : -1;
}
