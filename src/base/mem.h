/* Memory and clean-up. Small fixed-size allocations abort when memory is gone: every durable step
 * is atomic, so the supervisor's restart is the recovery. Sizes that come from outside are checked
 * against a named limit before anything is allocated for them. */
#ifndef HOLDFAST_BASE_MEM_H
#define HOLDFAST_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Aborts with the place when an invariant of our own is broken. Nothing a client sends reaches it.
 */
#define require(cond) ((cond) ? (void)0 : require_failed(#cond, __FILE__, __LINE__))
_Noreturn void require_failed(const char *cond, const char *file, int line);

/* owned; never NULL (aborts) */
void *mem_alloc(size_t n) __attribute__((malloc, returns_nonnull));
void *mem_zalloc(size_t n) __attribute__((malloc, returns_nonnull));
void *mem_realloc(void *p, size_t n) __attribute__((returns_nonnull));
char *mem_strdup(const char *s) __attribute__((malloc, returns_nonnull));

static inline void mem_free_auto(void *p)
{
    free(*(void **)p);
}
static inline void fd_close_auto(const int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
}

/* Variables that clean up after themselves; always declared with an initialiser. */
#define auto_mem __attribute__((cleanup(mem_free_auto)))
#define auto_fd __attribute__((cleanup(fd_close_auto))) int

/* Hands an automatic variable over: the caller owns what is returned. */
#define TAKE(p)                    \
    (__extension__({               \
        __typeof__(p) take_ = (p); \
        (p) = NULL;                \
        take_;                     \
    }))
static inline int take_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

#endif
