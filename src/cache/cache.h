/* cache: answers that were looked up lately, by key, bounded by bytes. Knows nothing of what they
 * mean.
 *
 * Who looks something up elsewhere and keeps it here races with who changes it there: the look-up
 * takes a ticket before it asks, and cache_put keeps the answer only when nothing was forgotten
 * since that could be it. So an answer is here only until the change that makes it wrong is told.
 * Threads: any; sharded by key, and a shard's lock is held for a copy at most. */
#ifndef HOLDFAST_CACHE_H
#define HOLDFAST_CACHE_H

#include "base/base.h"

struct cache;

/* `bytes_max`: of keys, values and what they take to be kept; 0: keeps nothing. ret: owned. */
struct cache *cache_new(size_t bytes_max);
/* Takes NULL. */
void cache_free(struct cache *cache);

/* Fills *ret_value with a copy; arena. False: it is not there. */
bool cache_find(struct cache *cache, struct str key, struct arena *arena, struct str *ret_value);
/* Before the look-up whose answer cache_put shall keep. */
uint64_t cache_ticket(struct cache *cache, struct str key);
/* Keeps a copy, in place of what the key has; the least recently used entries make room. A value
 * that is larger than an eighth of the shard (all but a 256th of bytes_max), or whose ticket is
 * stale, is not kept. */
void cache_put(struct cache *cache, struct str key, struct str value, uint64_t ticket);
void cache_forget(struct cache *cache, struct str key);
/* Everything, and every ticket that is out. */
void cache_forget_all(struct cache *cache);

struct cache_counts {
    uint64_t hits;
    uint64_t misses; /* tickets: who does not find it and goes on to ask takes one */
    uint64_t entries;
    uint64_t bytes;
};
struct cache_counts cache_count(struct cache *cache);

#endif
