/* Percent-encoding and queries. */
#include "http/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_decoded(struct str text, struct str decoded)
{
    require(decoded.n <= text.n && (text.n - decoded.n) % 2 == 0);
    if (decoded.n < text.n)
        require(memchr(decoded.p, '\0', decoded.n) == NULL || memchr(text.p, '\0', text.n) != NULL);
    else
        require(str_eq(decoded, text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_exchange x = {0};
    auto_mem char *copy = mem_alloc(size > 0 ? size : 1);
    if (size > 0)
        memcpy(copy, data, size);
    struct str text = {copy, size};
    struct str decoded;
    if (http_decode(&x.call, text, &decoded) == 0)
        check_decoded(text, decoded);

    x.query = text;
    struct str rest = text;
    struct str name;
    struct str value;
    struct str found = {NULL, 0};
    struct str first = {NULL, 0};
    bool more = true;
    int code = 0;
    while (code == 0 && more) {
        size_t before = rest.n;
        code = http_query_next(&x.call, &rest, &name, &value, &more);
        require(rest.n < before || !more || code < 0);
        if (code == 0 && more && first.p == NULL && str_eq(name, STR("digest")))
            first = value;
    }
    if (http_query_find(&x, "digest", &found) == 0)
        require((found.p != NULL) == (first.p != NULL) && str_eq(found, first));
    else
        require(code < 0);
    call_done(&x.call);
    return 0;
}
