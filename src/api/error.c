#include "api/api_int.h"

struct mapping {
    unsigned status;
    const char *code; /* when the error names none of its own */
};

static struct mapping map(enum err_kind kind)
{
    switch (kind) {
    case ERR_INVALID:
        return (struct mapping){400, OCI_NAME_INVALID};
    case ERR_UNAUTHENTICATED:
        return (struct mapping){401, OCI_UNAUTHORIZED};
    case ERR_DENIED:
        return (struct mapping){403, OCI_DENIED};
    case ERR_NOT_FOUND:
        return (struct mapping){404, OCI_NAME_UNKNOWN};
    case ERR_UNSUPPORTED:
        return (struct mapping){405, OCI_UNSUPPORTED};
    case ERR_CONFLICT:
        return (struct mapping){409, OCI_DENIED};
    case ERR_PRECONDITION:
        return (struct mapping){412, OCI_DENIED};
    case ERR_TOO_LARGE:
        return (struct mapping){413, OCI_SIZE_INVALID};
    case ERR_RANGE:
        return (struct mapping){416, OCI_RANGE_INVALID};
    case ERR_BUSY:
    case ERR_AGAIN:
    case ERR_UNSURE:
        return (struct mapping){503, OCI_UNAVAILABLE};
    case ERR_TIMEOUT:
        return (struct mapping){408, OCI_UNAVAILABLE};
    case ERR_FULL:
        return (struct mapping){507, OCI_UNAVAILABLE};
    case ERR_NONE:
    case ERR_IO:
    case ERR_CORRUPT:
    case ERR_INTERNAL:
        break;
    }
    return (struct mapping){500, OCI_UNKNOWN};
}

static void add_entry(struct buf *out, const char *code, const char *say, struct str detail)
{
    buf_printf(out, "{\"code\":\"%s\",\"message\":", code);
    buf_add_json(out, str_from(say));
    if (detail.p != NULL) {
        buf_add(out, ",\"detail\":", 10);
        buf_add_json(out, detail);
    }
    buf_add_char(out, '}');
}

#define ERROR_BYTES_MAX 131072 /* for a hundred entries of the longest kind */

void error_write(struct request *request)
{
    struct err *err = &request->call->err;
    struct mapping as = map(err->kind);
    const char *code = err->code != NULL ? err->code : as.code;
    if (request->x->response.status != 0) /* http refused it by itself, and knows best */
        as.status = request->x->response.status;
    else if (str_eq(str_from(code), STR(OCI_TOOMANYREQUESTS)))
        as.status = 429;

    auto_buf body = BUF_INIT(ERROR_BYTES_MAX);
    buf_add(&body, "{\"errors\":[", 11);
    for (size_t i = 0; i < err->n_details; i++) {
        if (i > 0)
            buf_add_char(&body, ',');
        add_entry(&body, code, err->say, err->details[i]);
    }
    if (err->n_details == 0)
        add_entry(&body, code, err->say, (struct str){0});
    buf_add(&body, "]}\n", 3);

    if (as.status == 401) /* RFC 9110, section 15.5.2: a challenge must be there */
        http_respond_header(request->x, "WWW-Authenticate", "Basic realm=\"holdfast\"");
    if (as.status == 503 || as.status == 429)
        http_respond_header(request->x, "Retry-After", "1");
    if (as.status >= 500 && as.status != 503)
        log_say(LOG_LEVEL_ERROR, "request failed", LOG_Z("id", request->call->id),
                LOG_STR("target", str_first(request->x->path, 1024)), LOG_Z("error", err->say),
                LOG_Z("kind", err_kind_name(err->kind)),
                LOG_Z("why", err->why[0] != '\0' ? err->why : NULL), LOG_Z("file", err->file),
                LOG_INT("line", err->line));
    http_respond_text(request->x, as.status, "application/json",
                      str_dup(&request->call->arena, buf_str(&body)));
}
