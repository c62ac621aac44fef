/* A growing byte buffer with a maximum given at birth and a sticky failure flag: append freely,
 * test once at the end. Always NUL-ended, so that text can go to a library. */
#ifndef HOLDFAST_BASE_BUF_H
#define HOLDFAST_BASE_BUF_H

#include "base/mem.h"
#include "base/str.h"

struct buf {
    char *p; /* owned; NULL until something was added */
    size_t n;
    size_t capacity;
    size_t max;    /* bytes */
    bool overflow; /* an append did not fit; the content is what fitted before */
};

#define BUF_INIT(max_bytes) ((struct buf){.max = (max_bytes)})

void buf_add(struct buf *buf, const void *p, size_t n);
void buf_add_str(struct buf *buf, struct str s);
void buf_add_char(struct buf *buf, char c);
void buf_printf(struct buf *buf, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* The text as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD. */
void buf_add_json(struct buf *buf, struct str s);
void buf_done(struct buf *buf);
/* borrowed until the next change */
struct str buf_str(const struct buf *buf);

#define auto_buf __attribute__((cleanup(buf_done))) struct buf

#endif
