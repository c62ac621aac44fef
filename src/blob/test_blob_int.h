/* What the tests of this room share: a store in a temporary folder, and pushing in one call. */
#ifndef HOLDFAST_TEST_BLOB_INT_H
#define HOLDFAST_TEST_BLOB_INT_H

#include "blob/blob.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

/* Every call that must succeed goes through here, so that a failure tells why. */
#define OK(call)                                                                     \
    do {                                                                             \
        if ((call) < 0) {                                                            \
            print_error("%s: %s (%s)\n", err_kind_name(err.kind), err.say, err.why); \
            fail_msg("%s", #call);                                                   \
        }                                                                            \
    } while (0)
#define FAILS(call, expected_kind)                                                  \
    do {                                                                            \
        assert_int_equal((call), -1);                                               \
        assert_string_equal(err_kind_name(err.kind), err_kind_name(expected_kind)); \
    } while (0)

struct place {
    char root[256];
    struct blob_store *store;
};

static inline void place_path(const struct place *place, const char *name, char path[512])
{
    (void)snprintf(path, 512, "%s/%s", place->root, name);
}

static inline int place_open(void **state)
{
    struct place *place = mem_zalloc(sizeof(*place));
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(place->root, sizeof(place->root), "%s/test_blob.XXXXXX",
                   tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(place->root));
    struct err err;
    OK(blob_store_open_fs(place->root, &place->store, &err));
    *state = place;
    return 0;
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline int place_close(void **state)
{
    struct place *place = *state;
    blob_store_close(place->store);
    (void)nftw(place->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(place);
    return 0;
}

/* As a restarted server would. */
static inline void place_reopen(struct place *place)
{
    struct err err;
    blob_store_close(place->store);
    OK(blob_store_open_fs(place->root, &place->store, &err));
}

static inline struct oci_digest digest_of(const char *text)
{
    struct oci_digest digest;
    struct err err;
    OK(oci_digest_parse(str_from(text), &digest, &err));
    return digest;
}

static inline int push(struct blob_store *store, enum hash_algorithm running, struct str content,
                       const struct oci_digest *digest, struct err *err)
{
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    auto_upload upload = NULL;
    if (blob_upload_create(store, running, id, &upload, err) < 0 ||
        blob_upload_write(upload, content.p, content.n, err) < 0 ||
        blob_upload_commit(upload, digest, err) < 0)
        return -1;
    return blob_upload_discard(store, str_from(id), err);
}

/* Takes an upload up at `offset`. */
static inline int reopen_upload(struct blob_store *store, struct str id, uint64_t offset,
                                struct str hash_state, struct blob_upload **ret, struct err *err)
{
    struct blob_upload *held = NULL;
    int done = blob_upload_hold(store, id, &held, err);
    auto_upload upload = held;
    if (done < 0 || blob_upload_resume(upload, offset, hash_state, err) < 0)
        return -1;
    *ret = TAKE(upload);
    return 0;
}

/* Whether the blob is there; fails when it is and has other bytes. */
static inline bool holds(struct blob_store *store, const struct oci_digest *digest,
                         struct str content)
{
    struct err err;
    auto_fd fd = -1;
    uint64_t size;
    if (blob_open(store, digest, &fd, &size, &err) < 0) {
        assert_int_equal(err.kind, ERR_NOT_FOUND);
        return false;
    }
    assert_int_equal(size, content.n);
    auto_mem char *bytes = mem_alloc(content.n + 1);
    assert_int_equal(read(fd, bytes, content.n + 1), content.n);
    assert_memory_equal(bytes, content.p, content.n);
    return true;
}

struct counts {
    size_t blobs;
    size_t uploads;
    uint64_t upload_bytes;
    size_t strays;
    char stray[16][120];
};

static inline int count_blob(void *context, const struct oci_digest *digest, uint64_t size,
                             struct err *err)
{
    (void)digest;
    (void)size;
    (void)err;
    ((struct counts *)context)->blobs++;
    return 0;
}
static inline int count_upload(void *context, struct str id, uint64_t size, struct wall_us changed,
                               struct err *err)
{
    (void)id;
    (void)changed;
    (void)err;
    struct counts *counts = context;
    counts->uploads++;
    counts->upload_bytes += size;
    return 0;
}
static inline int count_stray(void *context, const char *path, struct err *err)
{
    (void)err;
    struct counts *counts = context;
    assert_true(counts->strays < ARRAY_SIZE(counts->stray));
    (void)snprintf(counts->stray[counts->strays++], sizeof(counts->stray[0]), "%s", path);
    return 0;
}
static inline struct counts count(struct blob_store *store)
{
    static const struct blob_walk walk = {count_blob, count_upload, count_stray};
    struct counts counts = {0};
    struct err err;
    OK(blob_walk(store, &walk, &counts, &err));
    return counts;
}

#endif
