/* Running hashes whose state can be saved and loaded again, so that a chunked upload survives a
 * restart. The state is a plain struct: copying it forks the hash. */
#ifndef HOLDFAST_BASE_HASH_H
#define HOLDFAST_BASE_HASH_H

#include "base/str.h"

#include <nettle/sha2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum hash_algorithm {
    HASH_SHA256,
    HASH_SHA512,
};

#define HASH_BYTES_MAX 64

struct hash {
    enum hash_algorithm algorithm;
    union {
        struct sha256_ctx sha256;
        struct sha512_ctx sha512;
    } state;
};

/* Bytes of a finished hash: 32 or 64. */
size_t hash_bytes(enum hash_algorithm algorithm);
void hash_init(struct hash *hash, enum hash_algorithm algorithm);
void hash_update(struct hash *hash, const void *p, size_t n);
/* Ends the hash; it must be initialised again before it is used again. */
void hash_final(struct hash *hash, uint8_t out[HASH_BYTES_MAX]);

#define HASH_SAVED_BYTES_MAX (sizeof(struct hash) + 16)
/* Writes the state as bytes that name the library version they belong to. Returns their number. */
size_t hash_save(const struct hash *hash, uint8_t out[HASH_SAVED_BYTES_MAX]);
/* False when the bytes were saved by another library version or are not a saved state: hash the
 * content again. */
bool hash_load(struct hash *hash, struct str saved);

#endif
