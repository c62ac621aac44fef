/* Headers of the request, and the response as handlers fill it. */
#include "http/http_int.h"

struct str http_header(const struct http_exchange *x, const char *name)
{
    const char *value = NULL;
    size_t n = 0;
    if (x->connection->mhd == NULL ||
        MHD_lookup_connection_value_n(x->connection->mhd, MHD_HEADER_KIND, name, strlen(name),
                                      &value, &n) == MHD_NO ||
        value == NULL)
        return (struct str){NULL, 0};
    return str_trim((struct str){value, n});
}

struct gathering {
    struct str name;
    struct buf values;
    unsigned n;
};

static enum MHD_Result gather(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_size,
                              const char *value, size_t value_size)
{
    (void)kind;
    struct gathering *gathering = cls;
    if (str_eq_nocase((struct str){key, key_size}, gathering->name)) {
        if (gathering->n++ > 0)
            buf_add(&gathering->values, ", ", 2);
        if (value != NULL)
            buf_add_str(&gathering->values, str_trim((struct str){value, value_size}));
    }
    return MHD_YES;
}

struct str http_header_all(struct http_exchange *x, const char *name)
{
    if (http_header(x, name).p == NULL)
        return (struct str){NULL, 0};
    struct gathering gathering = {
        .name = str_from(name),
        /* Fits: the head is bounded, and a header line takes more than ", " does. */
        .values = BUF_INIT(HTTP_HEAD_BYTES_MAX),
    };
    (void)MHD_get_connection_values_n(x->connection->mhd, MHD_HEADER_KIND, gather, &gathering);
    struct str all = str_dup(&x->call.arena, buf_str(&gathering.values));
    buf_done(&gathering.values);
    return all;
}

void http_respond_header(struct http_exchange *x, const char *name, const char *value)
{
    require(x->response.n_headers < HTTP_HEADERS_MAX);
    x->response.headers[x->response.n_headers++] = (struct http_header){name, value};
}

void http_respond_text(struct http_exchange *x, unsigned status, const char *content_type,
                       struct str body)
{
    fd_close_auto(&x->response.fd); /* the text takes the place of a file or a stream */
    x->response.fd = -1;
    stream_close(TAKE(x->response.stream));
    x->response.status = status;
    x->response.body = body;
    http_respond_header(x, "Content-Type", content_type);
}
