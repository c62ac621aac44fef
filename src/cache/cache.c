#include "cache/cache_int.h"
#include "cache/siphash.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <sys/random.h>

#define ENTRY_TYPICAL 1024  /* bytes; a power of two */
#define ALLOCATION_BYTES 24 /* that the allocator takes beyond an entry, rounding included */

struct entry {
    struct entry *next; /* in its bucket; once it is out of the table, in a list of such */
    struct entry *newer;
    struct entry *older;
    uint64_t hash;
    size_t key_n;
    size_t value_n;
    atomic_uint holders; /* the table, and who is copying the value */
    char bytes[];        /* key, then value; never changed */
};

struct shard {
    alignas(64) pthread_mutex_t mutex; /* of all that follows; shards share no cache line */
    struct entry **buckets;
    struct entry *newest;
    struct entry *oldest;
    size_t bytes;
    uint64_t entries;
    uint64_t hits;
    uint64_t misses;
    uint64_t forgotten[CACHE_TICKETS]; /* times, for keys with that ticket */
};

struct cache {
    uint64_t secret[2];
    size_t shard_bytes_max; /* of entries, without the buckets */
    size_t buckets;         /* of each shard, a power of two */
    struct shard shards[CACHE_SHARDS];
};

/* Different bits of the hash say which shard, which ticket and which bucket. */
static size_t shard_number(uint64_t hash)
{
    return hash % CACHE_SHARDS;
}
static size_t ticket_number(uint64_t hash)
{
    return hash / CACHE_SHARDS % CACHE_TICKETS;
}
static size_t bucket_number(const struct cache *cache, uint64_t hash)
{
    return hash / (CACHE_SHARDS * CACHE_TICKETS) & (cache->buckets - 1);
}

struct cache_place cache_place(const struct cache *cache, struct str key)
{
    uint64_t hash = siphash(cache->secret, key);
    return (struct cache_place){shard_number(hash), ticket_number(hash)};
}

struct cache *cache_new(size_t bytes_max)
{
    void *aligned;
    require(posix_memalign(&aligned, alignof(struct cache), sizeof(struct cache)) == 0);
    struct cache *cache = aligned;
    *cache = (struct cache){.buckets = 1};
    require(getrandom(cache->secret, sizeof(cache->secret), 0) == sizeof(cache->secret));

    /* As many as there is room for entries: a table that grew would stand still while it does. */
    size_t share = bytes_max / CACHE_SHARDS;
    while (cache->buckets < share / ENTRY_TYPICAL)
        cache->buckets *= 2;
    size_t table_bytes = cache->buckets * sizeof(struct entry *);
    cache->shard_bytes_max = share > table_bytes ? share - table_bytes : 0;
    for (size_t i = 0; i < CACHE_SHARDS; i++) {
        require(pthread_mutex_init(&cache->shards[i].mutex, NULL) == 0);
        cache->shards[i].buckets = mem_zalloc(table_bytes);
    }
    return cache;
}

size_t cache_shard_bytes(const struct cache *cache)
{
    return cache->shard_bytes_max;
}

static struct str key_of(const struct entry *entry)
{
    return (struct str){entry->bytes, entry->key_n};
}

size_t cache_entry_bytes(size_t key_n, size_t value_n)
{
    return sizeof(struct entry) + ALLOCATION_BYTES + key_n + value_n;
}

/* ---- Entries that leave ---- */

static void entry_release(struct entry *entry)
{
    if (atomic_fetch_sub(&entry->holders, 1) == 1)
        free(entry);
}

static void release_all(struct entry *gone)
{
    while (gone != NULL) {
        struct entry *next = gone->next;
        entry_release(gone);
        gone = next;
    }
}

/* ---- Under a shard's lock ---- */

static void unlink_from_list(struct shard *shard, struct entry *entry)
{
    *(entry->newer != NULL ? &entry->newer->older : &shard->newest) = entry->older;
    *(entry->older != NULL ? &entry->older->newer : &shard->oldest) = entry->newer;
}

static void link_as_newest(struct shard *shard, struct entry *entry)
{
    entry->newer = NULL;
    entry->older = shard->newest;
    *(shard->newest != NULL ? &shard->newest->newer : &shard->oldest) = entry;
    shard->newest = entry;
}

/* Where the pointer to the entry is; where it would be, when it is not there. */
static struct entry **find(const struct cache *cache, struct shard *shard, uint64_t hash,
                           struct str key)
{
    struct entry **at = &shard->buckets[bucket_number(cache, hash)];
    while (*at != NULL && ((*at)->hash != hash || !str_eq(key_of(*at), key)))
        at = &(*at)->next;
    return at;
}

/* Takes an entry out, onto the list of those to be released when the lock is. */
static void take_out(struct shard *shard, struct entry **at, struct entry **gone)
{
    struct entry *entry = *at;
    *at = entry->next;
    unlink_from_list(shard, entry);
    shard->bytes -= cache_entry_bytes(entry->key_n, entry->value_n);
    shard->entries--;
    entry->next = *gone;
    *gone = entry;
}

static void make_room(const struct cache *cache, struct shard *shard, size_t bytes,
                      struct entry **gone)
{
    while (shard->oldest != NULL && shard->bytes + bytes > cache->shard_bytes_max) {
        struct entry **at = &shard->buckets[bucket_number(cache, shard->oldest->hash)];
        while (*at != shard->oldest)
            at = &(*at)->next;
        take_out(shard, at, gone);
    }
}

static void empty(const struct cache *cache, struct shard *shard, struct entry **gone)
{
    make_room(cache, shard, cache->shard_bytes_max, gone);
}

/* ---- The contract ---- */

void cache_free(struct cache *cache)
{
    for (size_t i = 0; cache != NULL && i < CACHE_SHARDS; i++) {
        struct shard *shard = &cache->shards[i];
        struct entry *gone = NULL;
        empty(cache, shard, &gone);
        release_all(gone);
        free(shard->buckets);
        require(pthread_mutex_destroy(&shard->mutex) == 0);
    }
    free(cache);
}

/* The entry, held; NULL: it is not there. */
static struct entry *hold(struct cache *cache, uint64_t hash, struct str key)
{
    struct shard *shard = &cache->shards[shard_number(hash)];
    auto_lock held = lock_take(&shard->mutex);
    struct entry *entry = *find(cache, shard, hash, key);
    if (entry == NULL)
        return NULL;
    shard->hits++;
    if (entry != shard->newest) {
        unlink_from_list(shard, entry);
        link_as_newest(shard, entry);
    }
    atomic_fetch_add(&entry->holders, 1);
    return entry;
}

bool cache_find(struct cache *cache, struct str key, struct arena *arena, struct str *ret_value)
{
    struct entry *entry = hold(cache, siphash(cache->secret, key), key);
    if (entry == NULL)
        return false;
    /* Outside of the lock: memory for a large copy may have to come from the system. */
    *ret_value = str_dup(arena, (struct str){entry->bytes + entry->key_n, entry->value_n});
    entry_release(entry);
    return true;
}

uint64_t cache_ticket(struct cache *cache, struct str key)
{
    uint64_t hash = siphash(cache->secret, key);
    struct shard *shard = &cache->shards[shard_number(hash)];
    auto_lock held = lock_take(&shard->mutex);
    shard->misses++;
    return shard->forgotten[ticket_number(hash)];
}

static struct entry *entry_new(uint64_t hash, struct str key, struct str value)
{
    struct entry *entry = mem_alloc(sizeof(*entry) + key.n + value.n);
    *entry = (struct entry){.hash = hash, .key_n = key.n, .value_n = value.n, .holders = 1};
    if (key.n > 0)
        memcpy(entry->bytes, key.p, key.n);
    if (value.n > 0)
        memcpy(entry->bytes + key.n, value.p, value.n);
    return entry;
}

/* Puts the entry in the place of what has its key; NULL: there shall be none. Returns the list of
 * what is to be released; when the ticket is stale, that is the entry. */
static struct entry *exchange(struct cache *cache, uint64_t hash, struct str key, uint64_t ticket,
                              struct entry *entry)
{
    struct shard *shard = &cache->shards[shard_number(hash)];
    auto_lock held = lock_take(&shard->mutex);
    if (ticket != shard->forgotten[ticket_number(hash)])
        return entry;

    struct entry *gone = NULL;
    struct entry **at = find(cache, shard, hash, key);
    if (*at != NULL)
        take_out(shard, at, &gone);
    if (entry != NULL) {
        size_t bytes = cache_entry_bytes(entry->key_n, entry->value_n);
        make_room(cache, shard, bytes, &gone);
        at = &shard->buckets[bucket_number(cache, hash)];
        entry->next = *at;
        *at = entry;
        link_as_newest(shard, entry);
        shard->bytes += bytes;
        shard->entries++;
    }
    return gone;
}

void cache_put(struct cache *cache, struct str key, struct str value, uint64_t ticket)
{
    uint64_t hash = siphash(cache->secret, key);
    bool fits = cache_entry_bytes(key.n, value.n) <= cache->shard_bytes_max / CACHE_VALUE_PART;
    struct entry *entry = fits ? entry_new(hash, key, value) : NULL;
    release_all(exchange(cache, hash, key, ticket, entry));
}

static struct entry *forget(struct cache *cache, uint64_t hash, struct str key)
{
    struct shard *shard = &cache->shards[shard_number(hash)];
    auto_lock held = lock_take(&shard->mutex);
    struct entry *gone = NULL;
    struct entry **at = find(cache, shard, hash, key);
    if (*at != NULL)
        take_out(shard, at, &gone);
    shard->forgotten[ticket_number(hash)]++;
    return gone;
}

void cache_forget(struct cache *cache, struct str key)
{
    release_all(forget(cache, siphash(cache->secret, key), key));
}

static struct entry *forget_shard(struct cache *cache, struct shard *shard)
{
    auto_lock held = lock_take(&shard->mutex);
    struct entry *gone = NULL;
    empty(cache, shard, &gone);
    for (size_t i = 0; i < CACHE_TICKETS; i++)
        shard->forgotten[i]++;
    return gone;
}

void cache_forget_all(struct cache *cache)
{
    for (size_t i = 0; i < CACHE_SHARDS; i++)
        release_all(forget_shard(cache, &cache->shards[i]));
}

struct cache_counts cache_count(struct cache *cache)
{
    struct cache_counts counts = {.hits = 0};
    for (size_t i = 0; i < CACHE_SHARDS; i++) {
        struct shard *shard = &cache->shards[i];
        auto_lock held = lock_take(&shard->mutex);
        counts.hits += shard->hits;
        counts.misses += shard->misses;
        counts.entries += shard->entries;
        counts.bytes += shard->bytes;
    }
    return counts;
}
