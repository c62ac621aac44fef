#include "api/api_int.h"

/* Most names in one page, and in a page that does not say. */
#define PAGE_NAMES_MAX 10000

void answer_header(struct request *request, const char *name, struct str value)
{
    http_respond_header(request->x, name, str_z(&request->call->arena, value));
}

void answer_location(struct request *request, struct str path)
{
    const struct config *config = request->api->config;
    if (config->http_location == CONFIG_LOCATION_RELATIVE) {
        answer_header(request, "Location", path);
        return;
    }
    struct http_origin origin;
    http_origin(request->x, config_trusts(config, request->x->peer), &origin);
    if (origin.host.n == 0)
        answer_header(request, "Location", path);
    else
        answer_header(request, "Location",
                      str_printf(&request->call->arena, "%s://" STR_FMT STR_FMT, origin.scheme,
                                 STR_ARG(origin.host), STR_ARG(path)));
}

void answer_digest(struct request *request, struct str digest)
{
    answer_header(request, "Docker-Content-Digest", digest);
    answer_header(request, "ETag",
                  str_printf(&request->call->arena, "\"" STR_FMT "\"", STR_ARG(digest)));
}

void answer_empty(struct request *request, unsigned status)
{
    request->x->response.status = status;
}

int answer_built(struct request *request, unsigned status, const char *content_type)
{
    if (request->answer.overflow)
        return err_set(&request->call->err, ERR_TOO_LARGE, "the answer would be too large");
    http_respond_text(request->x, status, content_type, buf_str(&request->answer));
    return 0;
}

bool answer_not_modified(struct request *request, struct str digest)
{
    struct str known = http_header_all(request->x, "If-None-Match");
    if (known.p == NULL || !http_etag_matches(known, digest, /* exists= */ true))
        return false;
    request->x->response.status = 304;
    return true;
}

int answer_page(struct request *request, struct registry_page *ret)
{
    struct call *call = request->call;
    struct registry_page page = {.limit = PAGE_NAMES_MAX};
    struct str n;
    if (http_query_find(request->x, "n", &n) < 0 ||
        http_query_find(request->x, "last", &page.last) < 0)
        return -1;
    if (n.p != NULL && str_to_u64(n, INT64_MAX, &page.limit, &call->err) < 0)
        return err_code(&call->err, ERR_INVALID, OCI_PAGINATION_NUMBER_INVALID,
                        "n=\"" STR_FMT "\" is not a number of results", STR_ARG(str_first(n, 40)));
    if (page.limit > PAGE_NAMES_MAX)
        page.limit = PAGE_NAMES_MAX;
    *ret = page;
    return 0;
}

void answer_link(struct request *request, struct str path, struct str parameters, struct str last)
{
    /* Names and digests hold no character that would need encoding. */
    if (last.p != NULL)
        answer_header(request, "Link",
                      str_printf(&request->call->arena,
                                 "<" STR_FMT "?" STR_FMT "last=" STR_FMT ">; rel=\"next\"",
                                 STR_ARG(path), STR_ARG(parameters), STR_ARG(last)));
}
