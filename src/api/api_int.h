/* Shared inside api. */
#ifndef HOLDFAST_API_INT_H
#define HOLDFAST_API_INT_H

#include "api/api.h"

struct api {
    struct registry *registry;
    const struct config *config;
    struct metrics *metrics;
    struct http_app app;
};

struct request;

/* What must be allowed before a handler is reached. */
enum action {
    ACTION_NONE, /* the operator's pages, which tell nothing about what is stored */
    ACTION_PING,
    ACTION_PULL,
    ACTION_PUSH,
    ACTION_DELETE,
};

/* Who takes the pieces of a request's body. */
enum body {
    BODY_NONE,   /* nobody: a little is ignored, more is refused */
    BODY_BUFFER, /* request.body, up to the limit for manifests */
    BODY_UPLOAD, /* request.upload */
};

/* Whether a handler runs on a worker thread. */
enum waits {
    WAITS_NEVER,
    WAITS_REMOTE, /* reads: where the database or the blob store is on another machine */
    WAITS,        /* for the disk, too; what comes before the handler waits as WAITS_REMOTE */
};

/* One operation. */
struct route {
    const char *name;    /* in metrics and in the access log */
    unsigned methods;    /* METHOD(…) bits */
    const char *pattern; /* "{name}" takes one segment or more, another "{…}" exactly one */
    enum action action;
    enum body body;
    enum waits waits;
    /* May be NULL. Whether it can be answered from memory: then it does not wait. */
    bool (*known)(struct request *request);
    int (*start)(struct request *request);  /* before the body; may be NULL */
    int (*handle)(struct request *request); /* the whole body is there */
};
#define METHOD(m) (1u << HTTP_##m)

/* One request on its way through the api. Arena of the call, but what is owned. */
struct request {
    struct api *api;
    struct http_exchange *x;
    struct call *call;                 /* x->call */
    const struct route *route;         /* NULL until one matches */
    struct oci_name name;              /* of the repository, when the pattern has {name} */
    struct str item;                   /* the other parameter, decoded; p NULL when there is none */
    struct buf body;                   /* owned */
    struct buf answer;                 /* owned; a body that was built */
    uint64_t ignored;                  /* bytes of a body that nobody takes */
    struct registry_upload *upload;    /* owned */
    struct oci_digest digest;          /* that a blob upload ends with, or of the blob to pull */
    struct registry_manifest manifest; /* found by `known` */
    struct registry_blob blob;         /* idem */
    bool found;
    uint64_t expected; /* bytes that Content-Range announced; 0: none */
    bool counted;      /* among the uploads in flight */
};

/* ---- routes.c ---- */

/* Finds the route and its parameters. Errors: NOT_FOUND; UNSUPPORTED (another method; *ret_allow is
 * then the Allow header); INVALID (name). */
int route_find(struct request *request, const char **ret_allow) MUST_CHECK;
/* Its index in api_route_names; requests without a route have one of their own. */
size_t route_index(const struct request *request);

/* ---- access.c ---- */

/* Errors: UNAUTHENTICATED, DENIED. */
int access_decide(struct request *request, enum action action) MUST_CHECK;

/* ---- error.c ---- */

/* Fills the response from call->err. The one place where errors are written. */
void error_write(struct request *request);

/* ---- answer.c: what several handlers need ---- */

/* Adds a header whose value is made of text in the arena. */
void answer_header(struct request *request, const char *name, struct str value);
/* Adds Location for a path under the server's root, in the configured form. */
void answer_location(struct request *request, struct str path);
/* Docker-Content-Digest and ETag. */
void answer_digest(struct request *request, struct str digest);
/* Answers without a body. */
void answer_empty(struct request *request, unsigned status);
/* Answers with what stands in request->answer. Errors: TOO_LARGE when it overflowed. */
int answer_built(struct request *request, unsigned status, const char *content_type) MUST_CHECK;
/* Whether the request has this entity already: If-None-Match. Then the answer is 304. */
bool answer_not_modified(struct request *request, struct str digest);
/* Reads ?n= and ?last=. Errors: INVALID with PAGINATION_NUMBER_INVALID. */
int answer_page(struct request *request, struct registry_page *ret) MUST_CHECK;
/* Adds Link to the page after `last`; nothing when its p is NULL. */
void answer_link(struct request *request, struct str path, struct str parameters, struct str last);

/* ---- upload.c ---- */

/* Lets go of the upload before the answer is sent: the client's next request may be here before
 * this one is cleaned up. Where it may wait. */
void upload_let_go(struct request *request);

/* ---- Handlers, by family ---- */

int api_ping(struct request *request);
int api_healthz(struct request *request);
int api_readyz(struct request *request);
int api_metrics(struct request *request);

bool api_manifest_known(struct request *request);
int api_manifest_get(struct request *request);
int api_manifest_put(struct request *request);
int api_manifest_delete(struct request *request);

bool api_blob_known(struct request *request);
int api_blob_get(struct request *request);
int api_blob_delete(struct request *request);

int api_upload_start_open(struct request *request);
int api_upload_start(struct request *request);
int api_upload_append_open(struct request *request);
int api_upload_append(struct request *request);
int api_upload_finish_open(struct request *request);
int api_upload_finish(struct request *request);
int api_upload_status(struct request *request);
int api_upload_cancel_open(struct request *request);
int api_upload_cancel(struct request *request);

int api_tag_list(struct request *request);
int api_catalog(struct request *request);
int api_referrer_list(struct request *request);

#endif
