/* fetch: an HTTP client over libcurl, for the object store and for other registries. Knows neither.
 *
 * Two ways to receive an answer. fetch_perform waits until all of it is there: for requests on
 * worker threads, each with a connection of its own from a pool that keeps them open. fetch_stream
 * does not wait: one thread drives all streams, and each holds back its sender when its reader is
 * slow (a bounded buffer, never the whole body).
 * Never follows a redirect by itself: the caller decides what may be sent where. Decodes nothing:
 * bodies are bytes. HTTP/1.1 only. Goes by the proxy that http_proxy, https_proxy, all_proxy and
 * no_proxy name, as other clients do; loopback and link-local addresses are always asked directly.
 * Threads: any. */
#ifndef HOLDFAST_FETCH_H
#define HOLDFAST_FETCH_H

#include "base/base.h"
#include "base/stream.h"

struct fetch;

struct fetch_options {
    const char *ca_file;    /* PEM; NULL: the system's. Certificates are always checked. */
    const char *user_agent; /* static */
    unsigned connections; /* kept open for fetch_perform when idle; those in use are not bounded */
    int64_t connect_us;   /* patience for a connection, TLS included */
    int64_t silence_us;   /* patience for the next bytes, in either direction */
};

/* ret: owned. Errors: INVALID (the CA file). */
int fetch_new(const struct fetch_options *options, struct fetch **ret, struct err *err) MUST_CHECK;
/* From then on fetch_perform waits for nobody: what is under way fails within a second, what begins
 * later at once. May be said again, for another time. Streams are their readers' to close. */
void fetch_give_up(struct fetch *fetch, struct mono_us at);
/* No request or stream is open any more. Takes NULL. */
void fetch_free(struct fetch *fetch);

#define FETCH_HEADERS_MAX 32
#define FETCH_ANSWER_BYTES_MAX ((size_t)1024 * 1024)

struct fetch_header {
    const char *name;
    const char *value; /* no line breaks; checked */
};

struct fetch_answer;

struct fetch_request {
    const char *method; /* "GET", "HEAD", "PUT", … */
    const char *url;    /* http or https; sent exactly as it stands, dots in the path included */
    struct fetch_header headers[FETCH_HEADERS_MAX];
    size_t n_headers;
    struct str body;         /* sent with its Content-Length; p NULL: none */
    int64_t after_us;        /* fetch_stream alone: it begins so much later */
    int64_t within_us;       /* patience for all of it; 0: as long as bytes move */
    size_t answer_bytes_max; /* of a body that is kept in memory; 0: FETCH_ANSWER_BYTES_MAX */
    /* Looks at a 2xx answer's status and headers (borrowed) before its body is taken, and ends the
     * request by -1 with *err. May be NULL. */
    int (*begin)(void *context, const struct fetch_answer *head, struct err *err);
    /* Takes the body of a 2xx answer piece by piece, and ends the request by -1 with *err. NULL:
     * kept in fetch_answer.body, as the bodies of all others are. */
    int (*take)(void *context, struct str piece, struct err *err);
    void *context;
};

struct fetch_answer {
    unsigned status;
    struct str headers; /* arena: the lines as they came, without the status line */
    struct str body;    /* arena */
};

/* Any answer is a success, whatever its status. The connection is taken up again for a request that
 * was sent on a kept one which the peer had closed meanwhile.
 * Errors: TIMEOUT; IO (no such host, refused, broken off, TLS; `why` has it all, and no secret);
 * TOO_LARGE; INVALID (the URL, a header); what `begin` or `take` gave. Results live in
 * call->arena. */
int fetch_perform(struct call *call, struct fetch *fetch, const struct fetch_request *request,
                  struct fetch_answer *ret) MUST_CHECK;
/* The first header of that name, in any case of letters; p NULL when absent. */
struct str fetch_header(const struct fetch_answer *answer, const char *name);

/* Begins a GET whose answer must have `status` and exactly `size` bytes; anything else is
 * STREAM_FAILED, after a line in the log with call_id. Of the request only `url`, `headers` and
 * `after_us` are used. ret: owned, end with stream_close; the request is cut off then when it is
 * not over. Errors: INVALID (the URL, a header), IO (no thread). */
int fetch_stream(struct fetch *fetch, const struct fetch_request *request, unsigned status,
                 uint64_t size, const char *call_id, struct stream **ret,
                 struct err *err) MUST_CHECK;
/* Of a stream that failed: the status of its answer; 0 when none came. */
unsigned fetch_stream_status(const struct stream *stream);

#endif
