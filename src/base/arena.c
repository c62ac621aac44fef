#include "base/arena.h"

#include "base/mem.h"

#include <stdalign.h>
#include <string.h>

/* A typical call needs under 2 KiB. */
#define ARENA_BLOCK_BYTES 4000

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ONE_MALLOC_PER_PIECE 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ONE_MALLOC_PER_PIECE 1
#endif
#endif
#ifndef ARENA_ONE_MALLOC_PER_PIECE
#define ARENA_ONE_MALLOC_PER_PIECE 0
#endif

struct arena_block {
    struct arena_block *next;
    size_t used;
    size_t size;
    alignas(max_align_t) unsigned char bytes[];
};

static struct arena_block *block_add(struct arena *arena, size_t size)
{
    struct arena_block *block = mem_alloc(sizeof(*block) + size);
    block->used = 0;
    block->size = size;
    block->next = arena->blocks;
    arena->blocks = block;
    return block;
}

void *arena_alloc(struct arena *arena, size_t n)
{
    const size_t align = alignof(max_align_t);
    require(n <= SIZE_MAX / 2);
    size_t rounded = (n + align - 1) / align * align;
    if (ARENA_ONE_MALLOC_PER_PIECE)
        return block_add(arena, n)->bytes;

    struct arena_block *block = arena->blocks;
    if (block == NULL || block->size - block->used < rounded)
        block = block_add(arena, rounded > ARENA_BLOCK_BYTES ? rounded : ARENA_BLOCK_BYTES);
    void *piece = block->bytes + block->used;
    block->used += rounded;
    return piece;
}

void *arena_zalloc(struct arena *arena, size_t n)
{
    void *piece = arena_alloc(arena, n);
    memset(piece, 0, n);
    return piece;
}

void arena_done(struct arena *arena)
{
    while (arena->blocks != NULL) {
        struct arena_block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
}
