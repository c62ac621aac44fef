/* http: an HTTP/1.1 server over libmicrohttpd. Knows no registry.
 *
 * An event thread reads the head and asks the application's `begin` what to do; `start` prepares
 * for the body, whose pieces go to `body`; `end` answers. What waits for a disk or another machine
 * runs on a bounded pool of worker threads while the connection is suspended: the same
 * straight-line code on another thread. Only this room knows of suspending, draining, time-outs and
 * TLS.
 *
 * A request that is refused while its body is still on the way is drained within a bound, so that
 * the client hears the answer instead of a broken pipe.
 * Threads: one thread at a time works on an exchange. */
#ifndef HOLDFAST_HTTP_H
#define HOLDFAST_HTTP_H

#include "base/base.h"
#include "base/stream.h"
#include "metrics/metrics.h"

#include <sys/socket.h>

enum http_method {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_PUT,
    HTTP_PATCH,
    HTTP_DELETE,
    HTTP_OTHER,
};
#define HTTP_METHODS 6 /* those that have a name */

#define HTTP_HEADERS_MAX 20

struct http_header {
    const char *name;  /* static */
    const char *value; /* arena of the call, or static; NUL-ended, no line breaks */
};

struct http_response {
    unsigned status;
    struct http_header headers[HTTP_HEADERS_MAX];
    size_t n_headers;
    struct str body; /* arena of the call; used when fd is -1 */
    int fd;          /* owned by the response: `size` bytes from `offset` are sent */
    uint64_t offset;
    uint64_t size;
    /* Owned by the response: its `size` bytes are sent as they come. When there are fewer, the
     * connection breaks; for HEAD nothing is read. */
    struct stream *stream;
    bool size_only; /* answer to HEAD, or 304: Content-Length is `size`, nothing is sent */
};

struct http_connection; /* of this room */

/* Which callbacks of an exchange run on a worker. Meanwhile nothing is read from the client, and it
 * is not late. None may wait for a callback of another exchange, which may stand behind it in the
 * queue. */
enum http_waits {
    HTTP_WAITS_NEVER,
    HTTP_WAITS_AT_END, /* `end` */
    HTTP_WAITS_ALWAYS, /* `start`, `body` and `end` */
};

/* One request and its answer. */
struct http_exchange {
    struct call call;
    enum http_method method;
    struct str method_text; /* arena */
    struct str target;      /* arena: path and query as they came */
    struct str path;        /* part of target, percent-encoding untouched */
    struct str query;       /* part of target, without '?' */
    bool secure;            /* came over our own TLS */
    bool certified;         /* the client proved a certificate of the configured CA */
    const struct sockaddr *peer;
    bool has_body;
    bool length_known;
    uint64_t content_length; /* when length_known */
    uint64_t bytes_in;       /* of the body, so far */
    struct mono_us began;
    enum http_waits waits; /* set by `begin` */
    void *state;           /* the application's, from `begin` to `done` */
    struct http_response response;
    /* Private to http. */
    struct http_connection *connection;
    struct http_exchange *next;
    unsigned phase;
    unsigned work; /* what a worker is to do, or has done */
    bool expects_continue;
    bool started; /* a worker has had it, and will have it again when need be */
    bool refused; /* by the worker's work: the response stands */
    bool whole;   /* the request is read to its end */
    bool answered;
    struct mono_us refused_at;
    uint64_t drained;
    char *block; /* owned; what of the body is not given to the application yet */
    size_t block_bytes;
};

struct http_app {
    void *context;
    /* The head is read. Returns 0 to go on, -1 when the response stands and the body is unwanted.
     */
    int (*begin)(void *context, struct http_exchange *x);
    /* The same, after it, and before the first piece of the body and "100 Continue": for what may
     * have to wait. On a worker, when the body is short, what has arrived of it is all of it. */
    int (*start)(void *context, struct http_exchange *x);
    /* A piece of the body; all but the last have the same size. -1 as for begin. */
    int (*body)(void *context, struct http_exchange *x, struct str piece);
    /* All of the body is there: fill the response. */
    void (*end)(void *context, struct http_exchange *x);
    /* A refusal of this room's own (overload, a broken head): fill the response from x->call.err.
     * x->response.status already holds the status that fits (400, 414, 431, 501, 503). */
    void (*refuse)(void *context, struct http_exchange *x);
    /* The answer went out (`complete`) or the connection broke; release x->state. Called once for
     * each exchange, also for those whose head never became whole (then begin was not called), and
     * when nothing else of it runs. */
    void (*done)(void *context, struct http_exchange *x, bool complete);
};

struct http_options {
    const int *listeners; /* listening sockets, owned by the server from http_start on */
    size_t n_listeners;
    unsigned threads; /* event threads, shared by the listeners */
    unsigned workers;
    unsigned queue; /* exchanges that may wait for a worker before they start; more are refused */
    unsigned connections;
    unsigned connections_per_address;
    int64_t header_us;
    int64_t idle_us;
    int64_t body_us;
    const char *certificate_file; /* NULL: no TLS */
    const char *key_file;
    const char *client_ca_file; /* NULL: client certificates are not asked for */
    struct metrics *metrics;    /* borrowed */
    const struct http_app *app; /* borrowed */
};

struct http_server;

/* Makes a listening socket. Errors: IO, `say` names the address and the reason. ret: owned. */
int http_listen(const struct sockaddr *address, socklen_t bytes, const char *text, int *ret,
                struct err *err) MUST_CHECK;
/* Errors: IO, INVALID (a certificate that cannot be used: names the file). ret: owned. */
int http_start(const struct http_options *options, struct http_server **ret,
               struct err *err) MUST_CHECK;
/* Reads the certificate and key again; connections that stand keep theirs. On an error the old ones
 * stay in use. Errors: INVALID, IO. */
int http_reload_certificate(struct http_server *server, struct err *err) MUST_CHECK;
/* Whether the certificate's or the key's file changed since they were read. */
bool http_certificate_changed(struct http_server *server);
/* No new connections, running exchanges end within `limit_us`, then all is closed and freed.
 * Returns the number of exchanges that were cut off. */
size_t http_stop(struct http_server *server, int64_t limit_us);

/* ---- For handlers ---- */

/* borrowed until done; p is NULL when the header is absent. The first one when it is repeated. */
struct str http_header(const struct http_exchange *x, const char *name);
/* All values of a header that may be repeated, joined with ", ". arena; p NULL when absent. */
struct str http_header_all(struct http_exchange *x, const char *name);
/* Decodes percent-encoding. arena. Errors: INVALID (a broken sequence, or %00). */
int http_decode(struct call *call, struct str text, struct str *ret) MUST_CHECK;
/* Takes the next name=value pair from *query, both decoded ('+' is kept: registries' values have no
 * spaces). *ret_more false at the end. Errors: INVALID. */
int http_query_next(struct call *call, struct str *query, struct str *ret_name,
                    struct str *ret_value, bool *ret_more) MUST_CHECK;
/* The first parameter of that name; p NULL when absent. Errors: INVALID. */
int http_query_find(struct http_exchange *x, const char *name, struct str *ret) MUST_CHECK;

/* Adds a header to the response; the value must live as long as the call. */
void http_respond_header(struct http_exchange *x, const char *name, const char *value);
void http_respond_text(struct http_exchange *x, unsigned status, const char *content_type,
                       struct str body);

/* How the client reached us: our own connection, or what a trusted proxy says of it.
 * RFC 7239 Forwarded before X-Forwarded-{Proto,Host,For}; the first element is the client's. */
struct http_origin {
    const char *scheme; /* static */
    struct str host;    /* arena: host[:port], empty when the client named none or a bad one */
    struct str client;  /* arena: numeric address */
};
void http_origin(struct http_exchange *x, bool trusted, struct http_origin *ret);

/* One range of a Range header. RFC 9110, section 14.1.2. */
enum http_range {
    HTTP_RANGE_NONE,          /* absent, another unit, broken or several ranges: send all */
    HTTP_RANGE_PART,          /* ret_first and ret_last are within the content */
    HTTP_RANGE_UNSATISFIABLE, /* 416 */
};
enum http_range http_range_parse(struct str header, uint64_t size, uint64_t *ret_first,
                                 uint64_t *ret_last);
/* Whether an If-Match or If-None-Match list holds the entity tag, given without quotes.
 * "*" matches when `exists`. Weak and unquoted tags are accepted. RFC 9110, section 13.1. */
bool http_etag_matches(struct str header, struct str etag, bool exists);

#endif
