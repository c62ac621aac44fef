/* What the files of this room share. */
#ifndef HOLDFAST_FETCH_INT_H
#define HOLDFAST_FETCH_INT_H

#include "fetch/fetch.h"

#include <curl/curl.h>
#include <stdatomic.h>

#define HEAD_BYTES_MAX ((size_t)64 * 1024)
#define HEAD_LINES_MAX 200

struct driver;

/* An easy handle with the one connection that it holds open. */
struct kept {
    CURL *easy;   /* owned */
    char *origin; /* owned: "https://host:port" */
    int fd;       /* of the connection, or of one that was tried; the handle's */
    struct mono_us since;
};

struct fetch {
    struct fetch_options options; /* its ca_file is the next */
    char *ca_file;                /* owned; may be NULL */
    _Atomic int64_t give_up_us;   /* of clock_mono; see fetch_give_up */
    pthread_mutex_t mutex;        /* of what follows */
    struct kept *kept;            /* owned; options.connections places, the newest last */
    size_t n_kept;
    struct driver *driver; /* owned; NULL before the first stream */
};

/* ---- transfer.c: what both kinds of transfers have in common ---- */

/* The head of an answer while it comes in. */
struct head {
    struct buf lines;
    unsigned n_lines;
    unsigned status;
    bool complete; /* of the final answer: those of 1xx do not count, nor do trailers */
};
#define HEAD_INIT ((struct head){.lines = BUF_INIT(HEAD_BYTES_MAX)})
/* Takes a line with its line break. Errors: TOO_LARGE. */
int head_add(struct head *head, struct str line, struct err *err) MUST_CHECK;

/* "https://host:port" of a URL, borrowed from it. Errors: INVALID. */
int url_origin(const char *url, struct str *ret, struct err *err) MUST_CHECK;

bool transfer_given_up(const struct fetch *fetch);

/* Prepares a fresh or reset handle. ret_headers: to be freed when the transfer is over. */
int transfer_setup(CURL *easy, const struct fetch *fetch, const struct fetch_request *request,
                   struct curl_slist **ret_headers, struct err *err) MUST_CHECK;
/* After something came in: lets the peer go on. One that sends head and body apart, and has not set
 * TCP_NODELAY, waits for our acknowledgement of the head, which the kernel would delay by 40 ms. */
void transfer_acknowledge(int fd);
/* Says why a transfer failed; `text` is the library's. Returns -1. */
int transfer_failed(CURLcode code, const char *text, struct str origin, struct err *err);
/* Nothing moved for options.silence_us, or it was given up. Returns -1. */
int transfer_silent(const struct fetch *fetch, struct str origin, struct err *err);

/* ---- stream.c ---- */

/* Takes NULL. No stream is open any more. */
void driver_free(struct driver *driver);

#endif
