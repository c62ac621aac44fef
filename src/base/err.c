#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

static void start(struct err *err, enum err_kind kind, const char *code, const char *file, int line)
{
    err->kind = kind;
    err->code = code;
    err->say[0] = '\0';
    err->why[0] = '\0';
    err->details = NULL;
    err->n_details = 0;
    err->file = file;
    err->line = line;
}

void err_set_at(struct err *err, enum err_kind kind, const char *code, const char *file, int line,
                const char *fmt, ...)
{
    start(err, kind, code, file, line);
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(err->say, sizeof(err->say), fmt, args);
    va_end(args);
}

void err_sys_at(struct err *err, const char *file, int line, const char *fmt, ...)
{
    int number = errno;
    bool full = number == ENOSPC || number == EDQUOT || number == EFBIG;
    start(err, full ? ERR_FULL : ERR_IO, NULL, file, line);
    (void)snprintf(err->say, sizeof(err->say), "%s",
                   full ? "the registry has no space left to store this"
                        : "the registry's storage failed");

    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(err->why, sizeof(err->why), fmt, args);
    va_end(args);
    size_t used = strlen(err->why);
    (void)snprintf(err->why + used, sizeof(err->why) - used, ": %s", strerrordesc_np(number));
}

void err_why_add(struct err *err, const char *fmt, ...)
{
    size_t used = strlen(err->why);
    if (used > 0 && used + 2 < sizeof(err->why)) {
        (void)snprintf(err->why + used, sizeof(err->why) - used, "; ");
        used += 2;
    }
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(err->why + used, sizeof(err->why) - used, fmt, args);
    va_end(args);
}

const char *err_kind_name(enum err_kind kind)
{
    switch (kind) {
    case ERR_NONE:
        return "none";
    case ERR_INVALID:
        return "invalid";
    case ERR_UNAUTHENTICATED:
        return "unauthenticated";
    case ERR_DENIED:
        return "denied";
    case ERR_NOT_FOUND:
        return "not found";
    case ERR_CONFLICT:
        return "conflict";
    case ERR_PRECONDITION:
        return "precondition";
    case ERR_TOO_LARGE:
        return "too large";
    case ERR_RANGE:
        return "range";
    case ERR_UNSUPPORTED:
        return "unsupported";
    case ERR_BUSY:
        return "busy";
    case ERR_AGAIN:
        return "again";
    case ERR_UNSURE:
        return "unsure";
    case ERR_TIMEOUT:
        return "timeout";
    case ERR_FULL:
        return "full";
    case ERR_IO:
        return "io";
    case ERR_CORRUPT:
        return "corrupt";
    case ERR_INTERNAL:
        return "internal";
    }
    return "unknown";
}
