/* Text and bytes by value: a pointer and a length, borrowed from whoever owns the bytes. */
#ifndef HOLDFAST_BASE_STR_H
#define HOLDFAST_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct arena;

struct str {
    const char *p; /* borrowed; not NUL-ended; may be NULL when n is 0 */
    size_t n;
};

#define STR(literal) ((struct str){"" literal, sizeof(literal) - 1})
#define STR_FMT "%.*s"
#define STR_ARG(s) ((int)((s).n <= 4096 ? (s).n : 4096)), ((s).n > 0 ? (s).p : "")

static inline struct str str_from(const char *z)
{
    return (struct str){z, z != NULL ? strlen(z) : 0};
}
static inline bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
static inline bool str_starts(struct str s, struct str prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}
static inline bool str_ends(struct str s, struct str suffix)
{
    return s.n >= suffix.n &&
           (suffix.n == 0 || memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n) == 0);
}
/* The part from `at` on, empty when `at` is beyond the end. */
static inline struct str str_from_at(struct str s, size_t at)
{
    return at < s.n ? (struct str){s.p + at, s.n - at} : (struct str){s.p, 0};
}
static inline struct str str_first(struct str s, size_t n)
{
    return (struct str){s.p, n < s.n ? n : s.n};
}

/* ASCII only, as HTTP wants it. */
bool str_eq_nocase(struct str a, struct str b);
/* Byte order: <0, 0, >0. */
int str_cmp(struct str a, struct str b);
/* Position of the first `c`, or s.n. */
size_t str_find(struct str s, char c);
/* Removes and returns what stands before the first `c`; all of it when there is no `c`. */
struct str str_cut(struct str *s, char c);
/* Without spaces and tabs at both ends. */
struct str str_trim(struct str s);

/* arena, NUL-ended copy: for library borders only */
char *str_z(struct arena *arena, struct str s);
/* arena */
struct str str_dup(struct arena *arena, struct str s);
struct str str_printf(struct arena *arena, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), nonnull(2)));

#endif
