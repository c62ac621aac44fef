#include "importer/importer_int.h"

struct key key_of(struct str repository, const struct oci_digest *digest)
{
    char text[OCI_DIGEST_TEXT_MAX + 1];
    struct str digest_text = oci_digest_format(digest, text);
    struct hash hash;
    uint8_t bytes[HASH_BYTES_MAX];
    struct key key;
    hash_init(&hash, HASH_SHA256);
    hash_update(&hash, repository.p, repository.n);
    hash_update(&hash, "@", 1);
    hash_update(&hash, digest_text.p, digest_text.n);
    hash_final(&hash, bytes);
    memcpy(key.bytes, bytes, sizeof(key.bytes));
    return key;
}

static bool key_eq(const struct key *a, const struct key *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

/* ---- Claims ---- */

/* Each job holds one for each level that it is deep in a manifest, and one blob. */
#define CLAIMS_MAX (IMPORTER_JOBS_MAX * 32)

struct claims {
    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t released;
    struct key held[CLAIMS_MAX];
    size_t n;
};

struct claims *claims_new(void)
{
    struct claims *claims = mem_zalloc(sizeof(*claims));
    require(pthread_mutex_init(&claims->mutex, NULL) == 0);
    require(pthread_cond_init(&claims->released, NULL) == 0);
    return claims;
}

void claims_free(struct claims *claims)
{
    (void)pthread_mutex_destroy(&claims->mutex);
    (void)pthread_cond_destroy(&claims->released);
    free(claims);
}

static size_t claims_find(const struct claims *claims, const struct key *key)
{
    size_t i = 0;
    while (i < claims->n && !key_eq(&claims->held[i], key))
        i++;
    return i;
}

void claims_take(struct claims *claims, struct key key)
{
    auto_lock held = lock_take(&claims->mutex);
    while (claims_find(claims, &key) < claims->n)
        (void)pthread_cond_wait(&claims->released, &claims->mutex);
    require(claims->n < CLAIMS_MAX);
    claims->held[claims->n++] = key;
}

void claims_release(struct claims *claims, struct key key)
{
    auto_lock held = lock_take(&claims->mutex);
    size_t i = claims_find(claims, &key);
    require(i < claims->n);
    claims->held[i] = claims->held[--claims->n];
    (void)pthread_cond_broadcast(&claims->released);
}

/* ---- What was seen ---- */

#define SEEN_SLOTS_FIRST ((size_t)4096)
#define SEEN_SLOTS_MAX ((size_t)8 * 1024 * 1024) /* 128 MiB */

/* A table with open addresses. The key that is all zero marks a free slot, and is never found. */
struct seen {
    pthread_mutex_t mutex; /* of what follows */
    struct key *slots;     /* owned */
    size_t n_slots;        /* a power of two */
    size_t n;
};

struct seen *seen_new(void)
{
    struct seen *seen = mem_zalloc(sizeof(*seen));
    require(pthread_mutex_init(&seen->mutex, NULL) == 0);
    seen->n_slots = SEEN_SLOTS_FIRST;
    seen->slots = mem_zalloc(seen->n_slots * sizeof(*seen->slots));
    return seen;
}

void seen_free(struct seen *seen)
{
    (void)pthread_mutex_destroy(&seen->mutex);
    free(seen->slots);
    free(seen);
}

/* The slot of the key, or the free one where it belongs. */
static struct key *seen_slot(struct key *slots, size_t n_slots, const struct key *key)
{
    static const struct key none;
    size_t at;
    memcpy(&at, key->bytes, sizeof(at));
    for (;; at++) {
        struct key *slot = &slots[at & (n_slots - 1)];
        if (key_eq(slot, key) || key_eq(slot, &none))
            return slot;
    }
}

static void seen_grow(struct seen *seen)
{
    static const struct key none;
    size_t n_slots = seen->n_slots * 2;
    struct key *slots = mem_zalloc(n_slots * sizeof(*slots));
    for (size_t i = 0; i < seen->n_slots; i++)
        if (!key_eq(&seen->slots[i], &none))
            *seen_slot(slots, n_slots, &seen->slots[i]) = seen->slots[i];
    free(seen->slots);
    seen->slots = slots;
    seen->n_slots = n_slots;
}

bool seen_add(struct seen *seen, struct key key)
{
    auto_lock held = lock_take(&seen->mutex);
    struct key *slot = seen_slot(seen->slots, seen->n_slots, &key);
    if (key_eq(slot, &key))
        return false;
    if (4 * seen->n >= 3 * seen->n_slots && seen->n_slots == SEEN_SLOTS_MAX)
        return true;
    *slot = key;
    if (4 * ++seen->n >= 3 * seen->n_slots && seen->n_slots < SEEN_SLOTS_MAX)
        seen_grow(seen);
    return true;
}
