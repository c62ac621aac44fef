#include "base/mem.h"

#include <stdio.h>
#include <string.h>

_Noreturn void require_failed(const char *cond, const char *file, int line)
{
    (void)fprintf(stderr, "holdfast: %s:%d: invariant broken: %s\n", file, line, cond);
    abort();
}

static void *checked(void *p)
{
    if (p == NULL) {
        (void)fputs("holdfast: out of memory\n", stderr);
        abort();
    }
    return p;
}

void *mem_alloc(size_t n)
{
    return checked(malloc(n > 0 ? n : 1));
}

void *mem_zalloc(size_t n)
{
    return checked(calloc(1, n > 0 ? n : 1));
}

void *mem_realloc(void *p, size_t n)
{
    return checked(realloc(p, n > 0 ? n : 1));
}

char *mem_strdup(const char *s)
{
    return checked(strdup(s));
}
