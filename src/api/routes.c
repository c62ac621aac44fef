/* The route table, and the matching of paths to it. */
#include "api/api_int.h"

#define GET_HEAD (METHOD(GET) | METHOD(HEAD))

static const struct route routes[] = {
    // clang-format off
    /* name, methods, pattern, action that must be allowed, body, waits, known, start, handle */
    {"ping", GET_HEAD, "/v2/",
        ACTION_PING, BODY_NONE, WAITS_NEVER, NULL, NULL, api_ping},

    {"manifest_pull", GET_HEAD, "/v2/{name}/manifests/{reference}",
        ACTION_PULL, BODY_NONE, WAITS_REMOTE, api_manifest_known, NULL, api_manifest_get},
    {"manifest_push", METHOD(PUT), "/v2/{name}/manifests/{reference}",
        ACTION_PUSH, BODY_BUFFER, WAITS, NULL, NULL, api_manifest_put},
    {"manifest_delete", METHOD(DELETE), "/v2/{name}/manifests/{reference}",
        ACTION_DELETE, BODY_NONE, WAITS, NULL, NULL, api_manifest_delete},

    {"upload_start", METHOD(POST), "/v2/{name}/blobs/uploads/",
        ACTION_PUSH, BODY_UPLOAD, WAITS, NULL, api_upload_start_open, api_upload_start},
    {"upload_append", METHOD(PATCH), "/v2/{name}/blobs/uploads/{id}",
        ACTION_PUSH, BODY_UPLOAD, WAITS, NULL, api_upload_append_open, api_upload_append},
    {"upload_finish", METHOD(PUT), "/v2/{name}/blobs/uploads/{id}",
        ACTION_PUSH, BODY_UPLOAD, WAITS, NULL, api_upload_finish_open, api_upload_finish},
    {"upload_status", GET_HEAD, "/v2/{name}/blobs/uploads/{id}",
        ACTION_PUSH, BODY_NONE, WAITS_REMOTE, NULL, NULL, api_upload_status},
    {"upload_cancel", METHOD(DELETE), "/v2/{name}/blobs/uploads/{id}",
        ACTION_PUSH, BODY_NONE, WAITS, NULL, api_upload_cancel_open, api_upload_cancel},

    {"blob_pull", GET_HEAD, "/v2/{name}/blobs/{digest}",
        ACTION_PULL, BODY_NONE, WAITS_REMOTE, api_blob_known, NULL, api_blob_get},
    {"blob_delete", METHOD(DELETE), "/v2/{name}/blobs/{digest}",
        ACTION_DELETE, BODY_NONE, WAITS, NULL, NULL, api_blob_delete},

    {"tag_list", GET_HEAD, "/v2/{name}/tags/list",
        ACTION_PULL, BODY_NONE, WAITS_REMOTE, NULL, NULL, api_tag_list},
    {"referrer_list", GET_HEAD, "/v2/{name}/referrers/{digest}",
        ACTION_PULL, BODY_NONE, WAITS_REMOTE, NULL, NULL, api_referrer_list},
    {"catalog", GET_HEAD, "/v2/_catalog",
        ACTION_PULL, BODY_NONE, WAITS_REMOTE, NULL, NULL, api_catalog},

    {"healthz", GET_HEAD, "/healthz", ACTION_NONE, BODY_NONE, WAITS_NEVER, NULL, NULL, api_healthz},
    {"readyz", GET_HEAD, "/readyz", ACTION_NONE, BODY_NONE, WAITS, NULL, NULL, api_readyz},
    {"metrics", GET_HEAD, "/metrics", ACTION_NONE, BODY_NONE, WAITS_REMOTE, NULL, NULL, api_metrics},
    // clang-format on
};
#define N_ROUTES ARRAY_SIZE(routes)

static const char *route_names[N_ROUTES + 1];

static void __attribute__((constructor)) name_routes(void)
{
    for (size_t i = 0; i < N_ROUTES; i++)
        route_names[i] = routes[i].name;
    route_names[N_ROUTES] = "none";
}

const char *const *api_route_names(size_t *ret_n)
{
    *ret_n = N_ROUTES + 1;
    return route_names;
}

size_t route_index(const struct request *request)
{
    return request->route != NULL ? (size_t)(request->route - routes) : N_ROUTES;
}

/* Removes and returns the last segment, with its slash. */
static struct str cut_last(struct str *path)
{
    size_t at = path->n;
    while (at > 0 && path->p[at - 1] != '/')
        at--;
    struct str segment = str_from_at(*path, at);
    *path = str_first(*path, at > 0 ? at - 1 : 0);
    return segment;
}

/* Matches from the end, as names may hold segments that look like ours: the last "manifests" of a
 * path is the one that counts. dist-spec, "Endpoints". */
static bool matches(struct str pattern, struct str path, struct str *ret_name, struct str *ret_item)
{
    struct str item = {0};
    struct str name = {0};
    while (pattern.n > 0 && path.n > 0) {
        struct str want = cut_last(&pattern);
        if (str_eq(want, STR("{name}"))) {
            /* what is left of the pattern stands at the path's start */
            if (!str_starts(path, pattern) || path.n <= pattern.n + 1 || path.p[pattern.n] != '/')
                return false;
            name = str_from_at(path, pattern.n + 1);
            pattern.n = path.n = 0;
            break;
        }
        struct str segment = cut_last(&path);
        if (want.n > 0 && want.p[0] == '{') {
            if (segment.n == 0)
                return false;
            item = segment;
        } else if (!str_eq(want, segment)) {
            return false;
        }
    }
    if (pattern.n > 0 || path.n > 0)
        return false;
    *ret_name = name;
    *ret_item = item;
    return true;
}

/* Some clients leave out the slash at the end of "/v2/" and of "…/blobs/uploads/". */
static struct str normalize(struct request *request, struct str path)
{
    bool slash = str_eq(path, STR("/v2")) ||
                 (request->x->method == HTTP_POST && str_ends(path, STR("/blobs/uploads")));
    return slash ? str_printf(&request->call->arena, STR_FMT "/", STR_ARG(path)) : path;
}

static const char *allow_header(struct request *request, unsigned methods)
{
    static const char *const names[HTTP_METHODS] = {
        [HTTP_GET] = "GET", [HTTP_HEAD] = "HEAD",   [HTTP_POST] = "POST",
        [HTTP_PUT] = "PUT", [HTTP_PATCH] = "PATCH", [HTTP_DELETE] = "DELETE",
    };
    auto_buf list = BUF_INIT(64);
    for (size_t i = 0; i < HTTP_METHODS; i++)
        if (methods & (1u << i))
            buf_printf(&list, "%s%s", list.n > 0 ? ", " : "", names[i]);
    return str_z(&request->call->arena, buf_str(&list));
}

static int read_parameters(struct request *request, struct str name, struct str item)
{
    struct call *call = request->call;
    struct str decoded;
    if (name.p != NULL && (http_decode(call, name, &decoded) < 0 ||
                           oci_name_parse(decoded, &request->name, &call->err) < 0))
        return -1;
    if (item.p != NULL && http_decode(call, item, &request->item) < 0)
        return -1;
    return 0;
}

int route_find(struct request *request, const char **ret_allow)
{
    struct str path = normalize(request, request->x->path);
    unsigned others = 0;
    for (size_t i = 0; i < N_ROUTES; i++) {
        struct str name;
        struct str item;
        if (!matches(str_from(routes[i].pattern), path, &name, &item))
            continue;
        if (routes[i].methods & (1u << request->x->method)) {
            request->route = &routes[i];
            return read_parameters(request, name, item);
        }
        others |= routes[i].methods;
    }
    if (others == 0)
        return err_set(&request->call->err, ERR_NOT_FOUND, "there is nothing at this path");
    *ret_allow = allow_header(request, others);
    return err_set(&request->call->err, ERR_UNSUPPORTED,
                   "this path does not know method \"" STR_FMT "\"; it knows %s",
                   STR_ARG(str_first(request->x->method_text, 20)), *ret_allow);
}
