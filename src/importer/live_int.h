/* What the files of the live source share: requests to a registry that somebody else runs. */
#ifndef HOLDFAST_IMPORTER_LIVE_INT_H
#define HOLDFAST_IMPORTER_LIVE_INT_H

#include "fetch/fetch.h"
#include "importer/source_int.h"

/* ---- header.c: header fields, as they come ---- */

/* The value of the next field of that name; moves *lines behind it. False: there is none. */
bool header_next(struct str *lines, struct str name, struct str *ret_value);

/* One challenge of WWW-Authenticate. RFC 9110, section 11.6.1. */
struct challenge {
    struct str scheme; /* borrowed */
    struct str realm;  /* arena; empty when absent; so the others */
    struct str service;
    struct str scope;
};
/* Reads the next challenge and moves *header behind it. False: there is none, or what stands there
 * is not one; then the rest of the header is not to be used. */
bool challenge_next(struct arena *arena, struct str *header, struct challenge *ret);

/* The target of a Link field whose relation is "next"; p NULL when there is none. Borrowed.
 * RFC 8288, section 3; dist-spec, "Listing Tags". */
struct str link_next(struct str header);

/* How long Retry-After asks to wait; -1: it does not say. RFC 9110, section 10.2.3. */
int64_t retry_after_us(struct str value, struct wall_us now);

/* ---- url.c: the one reader of URLs is that of the client which sends the request ---- */

struct url {
    struct str text;   /* arena, NUL-ended: the whole, without a fragment */
    struct str origin; /* arena: scheme, host and port, in one spelling */
    struct str path;   /* arena, NUL-ended */
    struct str query;  /* arena; p NULL: none */
    struct str host;   /* arena, with its port when it is not the scheme's own */
    bool is_https;
    bool is_loopback; /* a literal address, or "localhost" */
};
/* Reads `text`, relative to `base` unless that is NULL. Errors: INVALID: not a URL, another scheme
 * than http and https, or with a user name in it. */
int url_read(struct arena *arena, const struct url *base, struct str text, struct url *ret,
             struct err *err) MUST_CHECK;
/* Appends a parameter to the query, encoded. Errors: INVALID (too long). */
int url_add_parameter(struct arena *arena, struct url *url, const char *name, struct str value,
                      struct err *err) MUST_CHECK;

/* ---- credentials.c ---- */

/* Who we are there. Cleared when freed; never logged. */
struct credentials {
    char *username; /* owned; NULL: anonymous, unless there is a token */
    char *password; /* owned */
    char *identity; /* owned: a token that is exchanged for others; NULL: none */
};
/* Errors: INVALID, NOT_FOUND, IO; they hold no secret. */
int credentials_load(const struct importer_origin *origin, struct str host, struct credentials *ret,
                     struct err *err) MUST_CHECK;
/* Finds the entry for `host` in the text of a docker config.json. *ret is left alone when there is
 * none. Errors: INVALID. */
int credentials_from_docker(struct str json, struct str host, struct credentials *ret,
                            struct err *err) MUST_CHECK;
void credentials_done(struct credentials *credentials);
/* The value of an Authorization header. arena; secret */
struct str credentials_basic(struct arena *arena, const struct credentials *credentials);

/* ---- token.c: bearer tokens, one for each scope ---- */

/* Which URLs may be asked at all: https always; http on this machine when the registry is here,
 * too, or where the operator wants it. */
struct reach {
    bool insecure_http;
    bool loopback;
};
bool reach_allows(const struct reach *reach, const struct url *url);

struct tokens;
/* `fetch` and `credentials` are borrowed. */
struct tokens *tokens_new(struct fetch *fetch, const struct credentials *credentials,
                          struct reach reach);
void tokens_free(struct tokens *tokens);
/* The header value for a scope, when a token for it is at hand and not near its end. arena; secret;
 * p NULL: there is none. */
struct str tokens_find(struct tokens *tokens, struct arena *arena, struct str scope);
/* Asks the server that the challenge names for a token, and keeps it for `scope`, in place of the
 * one before. Errors: UNAUTHENTICATED, INVALID, BUSY, IO, TIMEOUT. */
int tokens_get(struct call *call, struct tokens *tokens, const struct challenge *challenge,
               struct str scope) MUST_CHECK;

/* ---- remote.c: GET, with patience, redirects and authentication ---- */

struct remote;

struct remote_request {
    const char *method; /* "GET" or "HEAD" */
    struct url url;
    const char *accept; /* NULL: anything */
    struct str scope;   /* what a token must allow: "repository:NAME:pull"; may be empty */
    bool is_first;      /* nothing has answered there yet: who is not reached is not tried again */
    /* Takes the body of a 2xx answer; `restart` says that it comes again from its beginning. A
     * `take` that fails ends the request, and is not tried again. */
    source_piece_fn take;
    void (*restart)(void *context);
    void *context;
};

/* `credentials` are borrowed. ret: owned. Errors: INVALID (the CA file, http where it is not
 * allowed), IO. */
int remote_new(const struct importer_origin *origin, const struct url *base,
               const struct credentials *credentials, atomic_bool *stopping, struct remote **ret,
               struct err *err) MUST_CHECK;
/* Takes NULL. */
void remote_free(struct remote *remote);
/* Succeeds for 2xx. Errors: NOT_FOUND (404), UNAUTHENTICATED (401), DENIED (403), INVALID (other
 * answers, redirects that may not be followed), BUSY (429 and 5xx, after all tries), IO, TIMEOUT,
 * what `take` gave. */
int remote_get(struct call *call, struct remote *remote, const struct remote_request *request,
               struct fetch_answer *ret) MUST_CHECK;

#endif
