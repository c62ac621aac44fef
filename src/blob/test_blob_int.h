/* What the tests of this room share: a store in a temporary folder or an object store, the rows
 * that a database would hold, and pushing in one call. */
#ifndef HOLDFAST_TEST_BLOB_INT_H
#define HOLDFAST_TEST_BLOB_INT_H

#include "base/test_tree.h"
#include "blob/blob.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
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
    size_t part_bytes; /* of the store over an object store; 0: it is a file system */
};

/* Digests of known content: FIPS 180-4 and its examples; the empty one by sha256sum(1) of
 * coreutils. */
#define EMPTY_256 "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define ABC_256 "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define ABC_512                                                                                    \
    "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3" \
    "c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
#define MILLION_A_256 "sha256:cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
#define MILLION_A_512                                                                              \
    "sha512:e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973ebde0ff244877ea60a4cb04" \
    "32ce577c31beb009c5c2c49aa2e4eadb217ad8cc09b"

static inline struct str million_a(char **ret)
{
    *ret = mem_alloc(1000000);
    memset(*ret, 'a', 1000000);
    return (struct str){*ret, 1000000};
}

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

static inline int place_close(void **state)
{
    struct place *place = *state;
    blob_store_close(place->store);
    (void)test_tree_remove(place->root);
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

/* What the file-system store finds by its digest alone. */
static inline struct blob_ref ref_of(const struct oci_digest *digest, uint64_t size)
{
    return (struct blob_ref){.digest = *digest, .size = size};
}

/* Where the location has to be the empty one. */
static inline int commit(struct blob_upload *upload, const struct oci_digest *digest,
                         struct err *err)
{
    auto_arena arena = {0};
    struct str location = STR("untouched");
    int done = blob_upload_commit(upload, digest, &arena, &location, err);
    assert_string_equal(location.p, done == 0 ? "" : "untouched");
    return done;
}

static inline int discard(struct blob_store *store, struct str id, struct err *err)
{
    return blob_upload_discard(store, id, STR(""), STR(""), err);
}

static inline int remove_blob(struct blob_store *store, const struct oci_digest *digest,
                              struct err *err)
{
    struct blob_ref blob = ref_of(digest, 0);
    return blob_delete(store, &blob, 1, err);
}

static inline int push(struct blob_store *store, enum hash_algorithm running, struct str content,
                       const struct oci_digest *digest, struct err *err)
{
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    auto_upload upload = NULL;
    if (blob_upload_create(store, running, id, &upload, err) < 0 ||
        blob_upload_write(upload, content.p, content.n, err) < 0 || commit(upload, digest, err) < 0)
        return -1;
    return discard(store, str_from(id), err);
}

/* ---- What a database would hold ---- */

struct blob_row {
    struct blob_ref ref; /* borrows the location below */
    char location[BLOB_LOCATION_BYTES_MAX + 1];
};

struct upload_row {
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    uint64_t received;
    uint8_t state[HASH_SAVED_BYTES_MAX];
    size_t state_n;
    struct arena arena; /* of the stage */
    struct str stage;
};
#define auto_row __attribute__((cleanup(row_done_auto))) struct upload_row
static inline void row_done_auto(struct upload_row *row)
{
    arena_done(&row->arena);
}

/* Acknowledges what was written so far. */
static inline int row_save(struct upload_row *row, struct blob_upload *upload, struct err *err)
{
    if (blob_upload_sync(upload, err) < 0)
        return -1;
    row->received = blob_upload_offset(upload);
    row->state_n = blob_upload_hash_state(upload, row->state);
    row->stage = blob_upload_stage(upload, &row->arena);
    blob_upload_settle(upload);
    return 0;
}

static inline int row_resume(const struct upload_row *row, struct blob_store *store,
                             struct blob_upload **ret, struct err *err)
{
    struct blob_upload *held = NULL;
    int done = blob_upload_hold(store, str_from(row->id), &held, err);
    auto_upload upload = held;
    if (done < 0 || blob_upload_resume(upload, row->received,
                                       (struct str){(const char *)row->state, row->state_n},
                                       row->stage, err) < 0)
        return -1;
    *ret = TAKE(upload);
    return 0;
}

/* Commits to a row; nothing is written to it otherwise. */
static inline int row_commit(struct blob_row *row, struct blob_upload *upload,
                             const struct oci_digest *digest, struct err *err)
{
    auto_arena arena = {0};
    struct str location;
    if (blob_upload_commit(upload, digest, &arena, &location, err) < 0)
        return -1;
    assert_true(location.n <= BLOB_LOCATION_BYTES_MAX);
    memcpy(row->location, location.p, location.n);
    row->location[location.n] = '\0';
    row->ref = (struct blob_ref){.digest = *digest,
                                 .size = blob_upload_offset(upload),
                                 .location = {row->location, location.n}};
    return 0;
}

/* A blob in one request. */
static inline int row_push(struct blob_row *row, struct blob_store *store,
                           enum hash_algorithm running, struct str content,
                           const struct oci_digest *digest, struct err *err)
{
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    auto_upload upload = NULL;
    if (blob_upload_create(store, running, id, &upload, err) < 0 ||
        blob_upload_write(upload, content.p, content.n, err) < 0 ||
        row_commit(row, upload, digest, err) < 0)
        return -1;
    return blob_upload_drop(upload, row->ref.location, err);
}

/* ---- Reading ---- */

struct bell {
    pthread_mutex_t mutex;
    pthread_cond_t rung;
    bool ringing;
};
static inline void bell_ring(void *context)
{
    struct bell *bell = context;
    auto_lock held = lock_take(&bell->mutex);
    bell->ringing = true;
    assert_int_equal(pthread_cond_signal(&bell->rung), 0);
}
static inline void bell_wait(struct bell *bell)
{
    auto_lock held = lock_take(&bell->mutex);
    while (!bell->ringing)
        assert_int_equal(pthread_cond_wait(&bell->rung, &bell->mutex), 0);
    bell->ringing = false;
}

/* Reads all that was opened, closes it, and returns how much it was; STREAM_FAILED. */
static inline ssize_t content_read(struct blob_content *content, uint64_t offset, char *to,
                                   size_t max)
{
    if (content->stream == NULL) {
        auto_fd fd = content->fd;
        return pread(fd, to, max, (off_t)offset);
    }
    struct bell bell = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
    stream_watch(content->stream, bell_ring, &bell);
    size_t at = 0;
    ssize_t n;
    while ((n = stream_read(content->stream, to + at, max - at)) >= 0) {
        if (n == STREAM_LATER)
            bell_wait(&bell);
        at += (size_t)n;
        assert_true(at <= max);
    }
    stream_close(content->stream);
    return n == STREAM_END ? (ssize_t)at : n;
}

/* Whether the blob is there, whole and in any range of it; fails when it has other bytes. */
static inline bool row_holds(const struct blob_row *row, struct blob_store *store,
                             struct str content)
{
    struct err err;
    uint64_t size;
    if (blob_stat(store, &row->ref, &size, &err) < 0) {
        assert_int_equal(err.kind, ERR_NOT_FOUND);
        return false;
    }
    assert_int_equal(size, content.n);
    bool same = false;
    OK(blob_verify(store, &row->ref, &same, &err));
    assert_true(same);

    auto_mem char *bytes = mem_alloc(content.n + 1);
    for (int i = 0; i < 4; i++) {
        size_t offset = content.n * (size_t)i / 4;
        size_t n = i == 0 ? content.n : (content.n - offset) / 2;
        struct blob_content opened = {.fd = -1};
        OK(blob_open(store, &row->ref, offset, n, "test", &opened, &err));
        assert_int_equal(opened.fd >= 0, opened.stream == NULL);
        ssize_t got = content_read(&opened, offset, bytes, n + 1);
        assert_true(opened.stream == NULL ? got >= (ssize_t)n : got == (ssize_t)n);
        if (n > 0)
            assert_memory_equal(bytes, content.p + offset, n);
    }
    return true;
}

/* Takes an upload up at `offset`. */
static inline int reopen_upload(struct blob_store *store, struct str id, uint64_t offset,
                                struct str hash_state, struct blob_upload **ret, struct err *err)
{
    struct blob_upload *held = NULL;
    int done = blob_upload_hold(store, id, &held, err);
    auto_upload upload = held;
    if (done < 0 || blob_upload_resume(upload, offset, hash_state, STR(""), err) < 0)
        return -1;
    *ret = TAKE(upload);
    return 0;
}

/* Whether the blob is there; fails when it is and has other bytes. */
static inline bool holds(struct blob_store *store, const struct oci_digest *digest,
                         struct str content)
{
    struct err err;
    struct blob_ref blob = ref_of(digest, content.n);
    struct blob_content opened = {.fd = -1};
    if (blob_open(store, &blob, 0, content.n, "test", &opened, &err) < 0) {
        assert_int_equal(err.kind, ERR_NOT_FOUND);
        return false;
    }
    assert_null(opened.stream);
    auto_fd fd = opened.fd;
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

static inline int count_blob(void *context, const struct oci_digest *digest, struct str location,
                             uint64_t size, struct wall_us changed, struct err *err)
{
    (void)digest;
    (void)location;
    (void)size;
    (void)changed;
    (void)err;
    ((struct counts *)context)->blobs++;
    return 0;
}
static inline int count_upload(void *context, struct str id, struct str stage, uint64_t size,
                               struct wall_us changed, struct err *err)
{
    (void)id;
    (void)stage;
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
