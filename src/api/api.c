/* From an exchange of http to a route's handler, and back. */
#include "api/api_int.h"

/* A body that nobody takes may have so many bytes: some clients send an empty JSON object. */
#define IGNORED_BODY_MAX 65536

static struct request *request_new(struct api *api, struct http_exchange *x)
{
    struct request *request = arena_zalloc(&x->call.arena, sizeof(*request));
    request->api = api;
    request->x = x;
    request->call = &x->call;
    request->body.max = api->config->limits_manifest;
    x->state = request;
    http_respond_header(x, "Docker-Distribution-API-Version", "registry/2.0");
    http_respond_header(x, "X-Request-Id", x->call.id);
    return request;
}

static int body_too_large(struct request *request, uint64_t limit)
{
    bool manifest = request->route->body == BODY_BUFFER;
    return err_code(&request->call->err, ERR_TOO_LARGE,
                    manifest ? OCI_MANIFEST_INVALID : OCI_SIZE_INVALID,
                    "the %s is larger than %llu bytes, the limit of this registry",
                    manifest ? "manifest" : "body", (unsigned long long)limit);
}

static uint64_t body_limit(const struct request *request)
{
    return request->route->body == BODY_BUFFER ? request->body.max : IGNORED_BODY_MAX;
}

/* Which of the steps that follow are made by a worker. */
static enum http_waits choose_waits(struct request *request)
{
    const struct route *route = request->route;
    if (route->waits == WAITS_NEVER)
        return HTTP_WAITS_NEVER;
    if (route->known != NULL && route->known(request))
        return HTTP_WAITS_NEVER;
    if (registry_is_remote(request->api->registry))
        return HTTP_WAITS_ALWAYS;
    return route->waits == WAITS ? HTTP_WAITS_AT_END : HTTP_WAITS_NEVER;
}

static int check_read_only(struct request *request)
{
    bool writes = request->route->action == ACTION_PUSH || request->route->action == ACTION_DELETE;
    if (!writes || !request->api->config->read_only)
        return 0;
    return err_set(&request->call->err, ERR_UNSUPPORTED,
                   "this registry is read-only for now; try again later");
}

/* Nothing of a request is looked at before its action has been decided. */
static int begin(struct request *request)
{
    const char *allow = NULL;
    struct http_exchange *x = request->x;
    if (route_find(request, &allow) < 0) {
        if (allow != NULL)
            http_respond_header(x, "Allow", allow);
        return -1;
    }
    if (access_decide(request, request->route->action) < 0 || check_read_only(request) < 0)
        return -1;
    x->waits = choose_waits(request);
    return 0;
}

static int start(struct request *request)
{
    struct http_exchange *x = request->x;
    if (request->route->start != NULL && request->route->start(request) < 0)
        return -1;
    if (request->upload == NULL && x->length_known && x->content_length > body_limit(request))
        return body_too_large(request, body_limit(request));
    return 0;
}

static int refused(struct request *request)
{
    upload_let_go(request);
    error_write(request);
    return -1;
}

static int on_begin(void *context, struct http_exchange *x)
{
    struct request *request = request_new(context, x);
    return begin(request) < 0 ? refused(request) : 0;
}

static int on_start(void *context, struct http_exchange *x)
{
    (void)context;
    struct request *request = x->state;
    return start(request) < 0 ? refused(request) : 0;
}

static int take(struct request *request, struct str piece)
{
    if (request->upload != NULL)
        return registry_upload_write(request->call, request->upload, piece);
    if (request->route->body != BODY_BUFFER) {
        request->ignored += piece.n;
        return request->ignored > IGNORED_BODY_MAX ? body_too_large(request, IGNORED_BODY_MAX) : 0;
    }
    buf_add_str(&request->body, piece);
    return request->body.overflow ? body_too_large(request, request->body.max) : 0;
}

static int on_body(void *context, struct http_exchange *x, struct str piece)
{
    (void)context;
    struct request *request = x->state;
    return take(request, piece) < 0 ? refused(request) : 0;
}

static void on_end(void *context, struct http_exchange *x)
{
    (void)context;
    struct request *request = x->state;
    if (request->route->handle(request) < 0)
        (void)refused(request);
}

static void on_refuse(void *context, struct http_exchange *x)
{
    error_write(x->state != NULL ? x->state : request_new(context, x));
}

static void log_access(const struct request *request, unsigned status, uint64_t sent, int64_t us)
{
    struct http_exchange *x = request->x;
    struct http_origin origin;
    http_origin(x, config_trusts(request->api->config, x->peer), &origin);
    log_say(LOG_LEVEL_INFO, "request", LOG_Z("id", x->call.id), LOG_STR("client", origin.client),
            LOG_STR("method", str_first(x->method_text, 20)),
            LOG_STR("path", str_first(x->path, 2048)), LOG_INT("status", status),
            LOG_INT("received", x->bytes_in), LOG_INT("sent", sent), LOG_INT("us", us),
            LOG_Z("route", request->route != NULL ? request->route->name : NULL),
            LOG_STR("agent", str_first(http_header(x, "User-Agent"), 256)));
}

static void on_done(void *context, struct http_exchange *x, bool complete)
{
    struct request *request = x->state;
    (void)context;
    if (request == NULL)
        return;
    struct api *api = request->api;
    const struct http_response *response = &x->response;
    unsigned status = complete ? response->status : 0;
    uint64_t sent = response->body.n > 0 ? response->body.n : response->size;
    int64_t us = clock_since_us(x->began);
    if (!complete || response->size_only)
        sent = 0;

    if (request->counted)
        (void)metrics_uploads_add(api->metrics, -1);
    metrics_request(api->metrics, route_index(request), status, us, x->bytes_in, sent);
    if (api->config->log_access && log_wants(LOG_LEVEL_INFO))
        log_access(request, status, sent, us);
    registry_upload_close(request->upload);
    buf_done(&request->body);
    buf_done(&request->answer);
    x->state = NULL;
}

struct api *api_new(struct registry *registry, const struct config *config, struct metrics *metrics)
{
    struct api *api = mem_zalloc(sizeof(*api));
    *api = (struct api){
        .registry = registry,
        .config = config,
        .metrics = metrics,
        .app =
            {
                .context = api,
                .begin = on_begin,
                .start = on_start,
                .body = on_body,
                .end = on_end,
                .refuse = on_refuse,
                .done = on_done,
            },
    };
    return api;
}

void api_free(struct api *api)
{
    free(api);
}

const struct http_app *api_http_app(const struct api *api)
{
    return &api->app;
}
