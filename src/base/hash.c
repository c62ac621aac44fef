#include "base/hash.h"

#include <nettle/version.h>
#include <string.h>

/* What a saved state starts with: a layout of our own, then nettle's version, as its structs may
 * change between versions, then the algorithm. */
static const uint8_t saved_magic[4] = {'H', 'F', 'h', '1'};
#define SAVED_HEAD_BYTES 8

size_t hash_bytes(enum hash_algorithm algorithm)
{
    return algorithm == HASH_SHA512 ? SHA512_DIGEST_SIZE : SHA256_DIGEST_SIZE;
}

void hash_init(struct hash *hash, enum hash_algorithm algorithm)
{
    memset(hash, 0, sizeof(*hash));
    hash->algorithm = algorithm;
    if (algorithm == HASH_SHA512)
        sha512_init(&hash->state.sha512);
    else
        sha256_init(&hash->state.sha256);
}

void hash_update(struct hash *hash, const void *p, size_t n)
{
    if (hash->algorithm == HASH_SHA512)
        sha512_update(&hash->state.sha512, n, p);
    else
        sha256_update(&hash->state.sha256, n, p);
}

void hash_final(struct hash *hash, uint8_t out[HASH_BYTES_MAX])
{
    if (hash->algorithm == HASH_SHA512)
        sha512_digest(&hash->state.sha512, SHA512_DIGEST_SIZE, out);
    else
        sha256_digest(&hash->state.sha256, SHA256_DIGEST_SIZE, out);
}

static size_t state_bytes(enum hash_algorithm algorithm)
{
    return algorithm == HASH_SHA512 ? sizeof(struct sha512_ctx) : sizeof(struct sha256_ctx);
}

static void saved_head(enum hash_algorithm algorithm, uint8_t head[SAVED_HEAD_BYTES])
{
    memcpy(head, saved_magic, sizeof(saved_magic));
    head[4] = NETTLE_VERSION_MAJOR;
    head[5] = NETTLE_VERSION_MINOR;
    head[6] = algorithm == HASH_SHA512;
    head[7] = 0;
}

size_t hash_save(const struct hash *hash, uint8_t out[HASH_SAVED_BYTES_MAX])
{
    size_t n = state_bytes(hash->algorithm);
    saved_head(hash->algorithm, out);
    memcpy(out + SAVED_HEAD_BYTES, &hash->state, n);
    return SAVED_HEAD_BYTES + n;
}

bool hash_load(struct hash *hash, struct str saved)
{
    if (saved.n < SAVED_HEAD_BYTES)
        return false;
    enum hash_algorithm algorithm = saved.p[6] != 0 ? HASH_SHA512 : HASH_SHA256;
    uint8_t head[SAVED_HEAD_BYTES];
    saved_head(algorithm, head);
    if (memcmp(saved.p, head, sizeof(head)) != 0 ||
        saved.n != SAVED_HEAD_BYTES + state_bytes(algorithm))
        return false;
    memset(hash, 0, sizeof(*hash));
    hash->algorithm = algorithm;
    memcpy(&hash->state, saved.p + SAVED_HEAD_BYTES, saved.n - SAVED_HEAD_BYTES);
    return true;
}
