#include "base/buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

static bool reserve(struct buf *buf, size_t more)
{
    if (buf->overflow || more > buf->max - buf->n) {
        buf->overflow = true;
        return false;
    }
    size_t need = buf->n + more + 1;
    if (need > buf->capacity) {
        size_t grown = buf->capacity * 2;
        buf->capacity = grown > need ? grown : need + 64;
        buf->p = mem_realloc(buf->p, buf->capacity);
    }
    return true;
}

void buf_add(struct buf *buf, const void *p, size_t n)
{
    if (!reserve(buf, n))
        return;
    if (n > 0)
        memcpy(buf->p + buf->n, p, n);
    buf->n += n;
    buf->p[buf->n] = '\0';
}

void buf_add_str(struct buf *buf, struct str s)
{
    buf_add(buf, s.p, s.n);
}

void buf_add_char(struct buf *buf, char c)
{
    buf_add(buf, &c, 1);
}

void buf_printf(struct buf *buf, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    require(n >= 0);
    if (!reserve(buf, (size_t)n))
        return;
    va_start(args, fmt);
    (void)vsnprintf(buf->p + buf->n, (size_t)n + 1, fmt, args);
    va_end(args);
    buf->n += (size_t)n;
}

/* Length of the well-formed UTF-8 sequence at p (1..4), or 0. RFC 3629, section 4. */
static size_t utf8_length(const unsigned char *p, size_t n)
{
    if (p[0] < 0x80)
        return 1;
    size_t len = p[0] >= 0xF0 ? 4 : p[0] >= 0xE0 ? 3 : 2;
    if (p[0] < 0xC2 || p[0] > 0xF4 || n < len)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F) ||
        (p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] > 0x8F))
        return 0;
    return len;
}

void buf_add_json(struct buf *buf, struct str s)
{
    buf_add_char(buf, '"');
    for (size_t i = 0; i < s.n;) {
        unsigned char c = (unsigned char)s.p[i];
        size_t len = utf8_length((const unsigned char *)s.p + i, s.n - i);
        if (len == 0)
            buf_add(buf, "\\ufffd", 6);
        else if (c == '"' || c == '\\')
            buf_printf(buf, "\\%c", c);
        else if (c < 0x20)
            buf_printf(buf, "\\u%04x", c);
        else
            buf_add(buf, s.p + i, len);
        i += len > 0 ? len : 1;
    }
    buf_add_char(buf, '"');
}

void buf_done(struct buf *buf)
{
    free(buf->p);
    *buf = (struct buf){.max = buf->max};
}

struct str buf_str(const struct buf *buf)
{
    return (struct str){buf->p, buf->n};
}
