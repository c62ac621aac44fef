/* Percent-encoding and the parameters of a query. */
#include "http/http_int.h"

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int http_decode(struct call *call, struct str text, struct str *ret)
{
    if (str_find(text, '%') == text.n) {
        *ret = text.p != NULL ? text : STR("");
        return 0;
    }
    char *out = arena_alloc(&call->arena, text.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] != '%') {
            out[n++] = text.p[i];
            continue;
        }
        int high = i + 2 < text.n ? hex_value(text.p[i + 1]) : -1;
        int low = i + 2 < text.n ? hex_value(text.p[i + 2]) : -1;
        if (high < 0 || low < 0 || high * 16 + low == 0)
            return err_set(&call->err, ERR_INVALID,
                           "the percent-encoding at byte %zu of \"" STR_FMT "\" is broken", i,
                           STR_ARG(text));
        out[n++] = (char)(high * 16 + low);
        i += 2;
    }
    out[n] = '\0';
    *ret = (struct str){out, n};
    return 0;
}

int http_query_next(struct call *call, struct str *query, struct str *ret_name,
                    struct str *ret_value, bool *ret_more)
{
    struct str pair = {NULL, 0};
    while (pair.n == 0 && query->n > 0) /* "a=1&&b=2" has two */
        pair = str_cut(query, '&');
    if (pair.n == 0) {
        *ret_more = false;
        return 0;
    }
    struct str name;
    struct str value;
    if (http_decode(call, str_cut(&pair, '='), &name) < 0 || http_decode(call, pair, &value) < 0)
        return -1;
    *ret_name = name;
    *ret_value = value;
    *ret_more = true;
    return 0;
}

int http_query_find(struct http_exchange *x, const char *name, struct str *ret)
{
    struct str query = x->query;
    struct str wanted = str_from(name);
    struct str found;
    struct str value;
    bool more = false;
    do {
        if (http_query_next(&x->call, &query, &found, &value, &more) < 0)
            return -1;
        if (more && str_eq(found, wanted)) {
            *ret = value;
            return 0;
        }
    } while (more);
    *ret = (struct str){NULL, 0};
    return 0;
}
