/* Memory with the life time of one call: bump allocation, released all at once.
 * Nothing that outlives the call may keep a pointer into it. In sanitizer builds each piece is its
 * own malloc, so that overruns inside the arena are seen. */
#ifndef HOLDFAST_BASE_ARENA_H
#define HOLDFAST_BASE_ARENA_H

#include <stddef.h>

struct arena_block;

struct arena {
    struct arena_block *blocks; /* owned, newest first */
};

/* arena; aligned for any type, not zeroed, never NULL. Sizes from outside must be checked first. */
void *arena_alloc(struct arena *arena, size_t n) __attribute__((returns_nonnull));
/* arena, zeroed */
void *arena_zalloc(struct arena *arena, size_t n) __attribute__((returns_nonnull));
/* Frees everything; the arena is empty and usable again. A zeroed arena is a valid empty one. */
void arena_done(struct arena *arena);

#define auto_arena __attribute__((cleanup(arena_done))) struct arena

#endif
