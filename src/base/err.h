/* The one way to fail: a function that can fail returns 0, or -1 with `*err` filled.
 *
 * A failure has three readers, and the carrier serves each: `kind` is for the caller's branch,
 * `say` for the client, `why` for the operator's log. Nothing is allocated on this path.
 * Texts: lower case, no full stop, no function names, values quoted and named. */
#ifndef HOLDFAST_BASE_ERR_H
#define HOLDFAST_BASE_ERR_H

#include "base/mem.h"
#include "base/str.h"

enum err_kind {
    ERR_NONE,
    ERR_INVALID,         /* the input is wrong and stays wrong */
    ERR_UNAUTHENTICATED, /* who is asking is not known */
    ERR_DENIED,          /* known, and may not */
    ERR_NOT_FOUND,
    ERR_CONFLICT,     /* the state of the thing forbids it */
    ERR_PRECONDITION, /* If-Match and its like */
    ERR_TOO_LARGE,
    ERR_RANGE,       /* bytes asked for or sent are not where they should be */
    ERR_UNSUPPORTED, /* understood, and not offered */
    ERR_BUSY,        /* works later: a limit, a lock, a shutdown */
    ERR_AGAIN,  /* a transaction that lost against another: works at once, from its beginning */
    ERR_UNSURE, /* whether it was done is not known */
    ERR_TIMEOUT,
    ERR_FULL,     /* no space left to store it */
    ERR_IO,       /* the disk or the database failed */
    ERR_CORRUPT,  /* stored data is not what it was */
    ERR_INTERNAL, /* our own fault */
};

struct err {
    enum err_kind kind;
    const char *code; /* static: the protocol's own code when the default of `kind` is not it */
    char say[320];    /* safe for the client */
    char why[480];    /* for the log: paths, errno, the database's words */
    /* One entry of the answer per element (say, every missing layer); arena of the call. */
    const struct str *details;
    size_t n_details;
    const char *file; /* static: where it was first reported */
    int line;
};

/* All are -1, visibly, so that a failing function can `return err_set(...)` and a static analyser
 * knows what its caller sees. */
#define err_set(err, kind, ...) err_code((err), (kind), NULL, __VA_ARGS__)
#define err_code(err, kind, code, ...) \
    (err_set_at((err), (kind), (code), __FILE__, __LINE__, __VA_ARGS__), -1)
/* From errno: `why` is the text and errno's; the client hears of the kind alone. */
#define err_sys(err, ...) (err_sys_at((err), __FILE__, __LINE__, __VA_ARGS__), -1)
/* Adds what only the log may hear. */
#define err_why(err, ...) (err_why_add((err), __VA_ARGS__), -1)

void err_set_at(struct err *err, enum err_kind kind, const char *code, const char *file, int line,
                const char *fmt, ...) PRINTF_LIKE(6, 7);
void err_sys_at(struct err *err, const char *file, int line, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
void err_why_add(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* static */
const char *err_kind_name(enum err_kind kind);

#endif
