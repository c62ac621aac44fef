/* Inside of the cache room: what decides which entries are kept, for the model of its tests. */
#ifndef HOLDFAST_CACHE_INT_H
#define HOLDFAST_CACHE_INT_H

#include "cache/cache.h"

/* All are powers of two. */
#define CACHE_SHARDS 32
#define CACHE_TICKETS 64   /* of a shard: what is forgotten makes a 64th of its tickets stale */
#define CACHE_VALUE_PART 8 /* the largest entry is such a part of a shard */

/* Entries of one shard push each other out. Keys of one shard and one ticket share their ticket. */
struct cache_place {
    size_t shard;
    size_t ticket;
};
struct cache_place cache_place(const struct cache *cache, struct str key);
/* What a shard's entries take at most. */
size_t cache_shard_bytes(const struct cache *cache);
size_t cache_entry_bytes(size_t key_n, size_t value_n);

#endif
