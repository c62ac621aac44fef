#include "blob/blob_int.h"

#include <stdio.h>
#include <sys/random.h>

/* ---- The store ---- */

void blob_store_close(struct blob_store *store)
{
    if (store != NULL)
        store->backend->store_close(store);
}

bool blob_store_is_remote(const struct blob_store *store)
{
    return store->backend->remote;
}

bool blob_store_excludes(const struct blob_store *store)
{
    return store->backend->excludes;
}

int blob_store_ping(struct blob_store *store, struct err *err)
{
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    auto_upload upload = NULL;
    if (blob_upload_create(store, HASH_SHA256, id, &upload, err) < 0)
        return -1;
    bool written =
        blob_upload_write(upload, "ping", 4, err) == 0 && blob_upload_sync(upload, err) == 0;
    /* The first failure is the one to tell; what is left behind then expires like any upload. */
    struct err second;
    bool removed = blob_upload_drop(upload, STR(""), written ? err : &second) == 0;
    return written && removed ? 0 : -1;
}

int blob_store_look(struct blob_store *store, struct err *err)
{
    const struct blob_backend *backend = store->backend;
    return backend->store_look != NULL ? backend->store_look(store, err)
                                       : blob_store_ping(store, err);
}

void blob_store_give_up(struct blob_store *store, struct mono_us at)
{
    if (store->backend->store_give_up != NULL)
        store->backend->store_give_up(store, at);
}

int blob_store_space(struct blob_store *store, uint64_t *ret_free, uint64_t *ret_total,
                     struct err *err)
{
    return store->backend->store_space(store, ret_free, ret_total, err);
}

/* ---- Upload ids ---- */

void blob_upload_id_make(char id[BLOB_UPLOAD_ID_BYTES + 1])
{
    uint8_t b[16];
    require(getrandom(b, sizeof(b), 0) == (ssize_t)sizeof(b));
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40); /* version 4: random */
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80); /* the variant of RFC 9562 */
    (void)snprintf(id, BLOB_UPLOAD_ID_BYTES + 1,
                   "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
                   b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
                   b[14], b[15]);
}

bool blob_upload_id_valid(struct str id)
{
    /* x: any hexadecimal digit; v: the variant's */
    static const char pattern[] = "xxxxxxxx-xxxx-4xxx-vxxx-xxxxxxxxxxxx";
    if (id.n != BLOB_UPLOAD_ID_BYTES)
        return false;
    for (size_t i = 0; i < id.n; i++) {
        const char *allowed = pattern[i] == 'x'   ? "0123456789abcdef"
                              : pattern[i] == 'v' ? "89ab"
                              : pattern[i] == '4' ? "4"
                                                  : "-";
        if (id.p[i] == '\0' || strchr(allowed, id.p[i]) == NULL)
            return false;
    }
    return true;
}

/* Checks an id from outside and makes it a text that may become a name. */
static int id_check(struct str id, char ret[BLOB_UPLOAD_ID_BYTES + 1], struct err *err)
{
    if (!blob_upload_id_valid(id))
        return err_code(err, ERR_INVALID, OCI_BLOB_UPLOAD_INVALID,
                        "\"" STR_FMT "\" is not the id of an upload", STR_ARG(str_first(id, 40)));
    memcpy(ret, id.p, BLOB_UPLOAD_ID_BYTES);
    ret[BLOB_UPLOAD_ID_BYTES] = '\0';
    return 0;
}

/* ---- Writing ---- */

static int take_hash(void *context, struct str piece, struct err *err)
{
    (void)err;
    hash_update(context, piece.p, piece.n);
    return 0;
}

/* Hashes what is staged from its first byte on. */
static int hash_staged(struct blob_upload *upload, enum hash_algorithm algorithm, bool whole,
                       struct hash *ret, struct err *err)
{
    struct hash hash;
    hash_init(&hash, algorithm);
    if (upload->offset > 0 &&
        upload->store->backend->upload_read(upload, whole, take_hash, &hash, err) < 0)
        return -1;
    *ret = hash;
    return 0;
}

/* Whether the loaded state is one of exactly `offset` bytes. The state comes from a database row:
 * a damaged one must neither vouch for content nor lead the library out of its buffer. */
static bool hash_is_at(const struct hash *hash, uint64_t offset)
{
    if (hash->algorithm == HASH_SHA512) {
        const struct sha512_ctx *state = &hash->state.sha512;
        return state->count_high == 0 && state->count_low == offset / SHA512_BLOCK_SIZE &&
               state->index == offset % SHA512_BLOCK_SIZE;
    }
    const struct sha256_ctx *state = &hash->state.sha256;
    return state->count == offset / SHA256_BLOCK_SIZE && state->index == offset % SHA256_BLOCK_SIZE;
}

int blob_upload_create(struct blob_store *store, enum hash_algorithm algorithm,
                       char ret_id[BLOB_UPLOAD_ID_BYTES + 1], struct blob_upload **ret,
                       struct err *err)
{
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    blob_upload_id_make(id);
    struct blob_upload *upload;
    if (store->backend->upload_create(store, id, &upload, err) < 0)
        return -1;
    hash_init(&upload->hash, algorithm);
    memcpy(ret_id, id, sizeof(id));
    *ret = upload;
    return 0;
}

int blob_upload_hold(struct blob_store *store, struct str id, struct blob_upload **ret,
                     struct err *err)
{
    char name[BLOB_UPLOAD_ID_BYTES + 1];
    if (id_check(id, name, err) < 0)
        return -1;
    return store->backend->upload_hold(store, name, ret, err);
}

int blob_upload_resume(struct blob_upload *upload, uint64_t offset, struct str hash_state,
                       struct str stage, struct err *err)
{
    if (upload->store->backend->upload_cut(upload, offset, stage, err) < 0)
        return -1;
    upload->offset = offset;
    /* A state that cannot be read does not tell its algorithm either. sha256 is what nearly all
     * digests are; a commit by another one hashes once more. */
    if (hash_load(&upload->hash, hash_state) && hash_is_at(&upload->hash, offset))
        return 0;
    return hash_staged(upload, HASH_SHA256, /* whole= */ false, &upload->hash, err);
}

/* After a failed write or sync nobody knows which bytes are there (the kernel forgets dirty pages
 * whose writing failed): such an upload takes nothing more. It is good again from the last
 * acknowledged byte on, by blob_upload_resume. */
static int upload_fail(struct blob_upload *upload, const struct err *err)
{
    upload->failed = err->kind;
    return -1;
}

static int upload_check(const struct blob_upload *upload, struct err *err)
{
    require(!upload->committed);
    if (upload->failed != ERR_NONE)
        return err_set(err, upload->failed,
                       "upload \"%s\" failed before; go on from the last acknowledged byte",
                       upload->id);
    return 0;
}

int blob_upload_write(struct blob_upload *upload, const void *p, size_t n, struct err *err)
{
    if (upload_check(upload, err) < 0)
        return -1;
    if (n == 0)
        return 0;
    if (upload->store->backend->upload_write(upload, p, n, err) < 0)
        return upload_fail(upload, err);
    hash_update(&upload->hash, p, n);
    upload->offset += n;
    return 0;
}

uint64_t blob_upload_offset(const struct blob_upload *upload)
{
    return upload->offset;
}

int blob_upload_sync(struct blob_upload *upload, struct err *err)
{
    if (upload_check(upload, err) < 0)
        return -1;
    if (upload->store->backend->upload_sync(upload, err) < 0)
        return upload_fail(upload, err);
    crash_point("blob.staged");
    return 0;
}

size_t blob_upload_hash_state(const struct blob_upload *upload, uint8_t out[HASH_SAVED_BYTES_MAX])
{
    return hash_save(&upload->hash, out);
}

struct str blob_upload_stage(const struct blob_upload *upload, struct arena *arena)
{
    return upload->store->backend->upload_stage(upload, arena);
}

void blob_upload_settle(struct blob_upload *upload)
{
    upload->store->backend->upload_settle(upload);
}

int blob_upload_commit(struct blob_upload *upload, const struct oci_digest *digest,
                       struct arena *arena, struct str *ret_location, struct err *err)
{
    if (upload_check(upload, err) < 0)
        return -1;

    struct hash hash = upload->hash; /* a copy: with a wrong digest the upload goes on */
    if (digest->algorithm != hash.algorithm &&
        hash_staged(upload, digest->algorithm, /* whole= */ true, &hash, err) < 0)
        return upload_fail(upload, err);
    struct oci_digest content = oci_digest_from_hash(&hash);
    if (!oci_digest_eq(&content, digest)) {
        char is[OCI_DIGEST_TEXT_MAX + 1];
        char said[OCI_DIGEST_TEXT_MAX + 1];
        (void)oci_digest_format(&content, is);
        (void)oci_digest_format(digest, said);
        return err_code(err, ERR_INVALID, OCI_DIGEST_INVALID,
                        "the content has digest \"%s\", not \"%s\"", is, said);
    }

    if (upload->store->backend->upload_commit(upload, digest, arena, ret_location, err) < 0)
        return upload_fail(upload, err);
    upload->committed = true;
    return 0;
}

void blob_upload_close(struct blob_upload *upload)
{
    if (upload != NULL)
        upload->store->backend->upload_close(upload);
}

int blob_upload_discard(struct blob_store *store, struct str id, struct str stage, struct str kept,
                        struct err *err)
{
    char name[BLOB_UPLOAD_ID_BYTES + 1];
    if (id_check(id, name, err) < 0)
        return -1;
    return store->backend->upload_discard(store, name, stage, kept, err);
}

int blob_upload_drop(struct blob_upload *upload, struct str kept, struct err *err)
{
    return upload->store->backend->upload_drop(upload, kept, err);
}

/* ---- Reading ---- */

int blob_unknown(const struct blob_ref *blob, struct err *err)
{
    char text[OCI_DIGEST_TEXT_MAX + 1];
    (void)oci_digest_format(&blob->digest, text);
    return err_code(err, ERR_NOT_FOUND, OCI_BLOB_UNKNOWN, "blob \"%s\" is not stored", text);
}

int blob_has_other_size(const struct blob_ref *blob, struct err *err)
{
    char text[OCI_DIGEST_TEXT_MAX + 1];
    (void)oci_digest_format(&blob->digest, text);
    return err_set(err, ERR_CORRUPT, "blob \"%s\" does not have its size, %llu bytes", text,
                   (unsigned long long)blob->size);
}

int blob_open(struct blob_store *store, const struct blob_ref *blob, uint64_t offset, uint64_t n,
              const char *call_id, struct blob_content *ret, struct err *err)
{
    return store->backend->blob_open(store, blob, offset, n, call_id, ret, err);
}

int blob_redirect(struct blob_store *store, const struct blob_ref *blob, struct arena *arena,
                  struct str *ret_url, struct err *err)
{
    return store->backend->blob_redirect(store, blob, arena, ret_url, err);
}

int blob_read(struct blob_store *store, const struct blob_ref *blob,
              int (*take)(void *context, struct str piece, struct err *err), void *context,
              struct err *err)
{
    return store->backend->blob_read(store, blob, take, context, err);
}

int blob_stat(struct blob_store *store, const struct blob_ref *blob, uint64_t *ret_size,
              struct err *err)
{
    return store->backend->blob_stat(store, blob, ret_size, err);
}

int blob_delete(struct blob_store *store, const struct blob_ref *blobs, size_t n, struct err *err)
{
    return n > 0 ? store->backend->blob_delete(store, blobs, n, err) : 0;
}

int blob_verify(struct blob_store *store, const struct blob_ref *blob, bool *ret_same,
                struct err *err)
{
    /* Asked for by itself: who reads as many bytes as the row says does not see that there are
     * more. */
    uint64_t size;
    if (blob_stat(store, blob, &size, err) < 0)
        return -1;
    struct hash hash;
    hash_init(&hash, blob->digest.algorithm);
    bool same = size == blob->size;
    if (same && blob_read(store, blob, take_hash, &hash, err) < 0)
        return -1;
    if (same) {
        struct oci_digest content = oci_digest_from_hash(&hash);
        same = oci_digest_eq(&content, &blob->digest);
    }
    *ret_same = same;
    return 0;
}

int blob_walk(struct blob_store *store, const struct blob_walk *walk, void *context,
              struct err *err)
{
    return store->backend->walk(store, walk, context, err);
}
