/* s3.h in memory: what the Amazon S3 API Reference says of these operations, as far as a blob store
 * can tell (CompleteMultipartUpload: InvalidPart, EntityTooSmall, NoSuchUpload; a part of the same
 * number replaces the one before). As with Ceph's gateway, a part that is there and not listed is
 * an InvalidPart, too. */
#include "blob/test_s3_int.h"

#include "base/hash.h"
#include "base/lock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define PART_BYTES_MIN ((size_t)5 * 1024 * 1024)

struct object {
    struct object *next;
    char key[200]; /* with the place */
    char *bytes;
    size_t n;
    struct wall_us modified;
};
struct part {
    struct part *next; /* in the order of numbers */
    unsigned number;
    struct s3_etag etag;
    char *bytes;
    size_t n;
};
struct multipart {
    struct multipart *next;
    char key[200];
    char id[40];
    struct part *parts;
    struct wall_us begun;
};

/* The server: it outlives who speaks to it. */
static struct {
    pthread_mutex_t mutex;
    struct object *objects; /* in the order of keys */
    struct multipart *multiparts;
    unsigned last_id;
} server = {.mutex = PTHREAD_MUTEX_INITIALIZER};

struct test_s3_record test_s3_record;

struct s3 {
    char place[64];
};

struct s3 *test_s3_open(const char *place)
{
    struct s3 *s3 = mem_zalloc(sizeof(*s3));
    (void)snprintf(s3->place, sizeof(s3->place), "%s/", place);
    return s3;
}
void s3_give_up(struct s3 *s3, struct mono_us at)
{
    (void)s3;
    test_s3_record.give_up = at;
}
void s3_free(struct s3 *s3)
{
    free(s3);
}
void test_s3_reset(void)
{
    test_s3_record = (struct test_s3_record){.in_memory = true};
}

/* ---- The record ---- */

enum fate { FATE_WELL, FATE_NOTHING, FATE_LOST_ANSWER };

static enum fate fate_of(const char *name)
{
    struct test_s3_record *record = &test_s3_record;
    if (record->n < TEST_S3_CALLS_MAX)
        record->calls[record->n] = name;
    record->n++;
    if (record->fail_at == 0 || record->n < record->fail_at ||
        (record->n > record->fail_at && !record->fail_on))
        return FATE_WELL;
    return record->done ? FATE_LOST_ANSWER : FATE_NOTHING;
}

static int lost(struct err *err)
{
    return err_set(err, test_s3_record.fail_with, "the object store is not there");
}

#define BEGIN(name)                            \
    auto_lock held = lock_take(&server.mutex); \
    enum fate fate = fate_of(name);            \
    if (fate == FATE_NOTHING)                  \
    return lost(&call->err)
#define END() return fate == FATE_LOST_ANSWER ? lost(&call->err) : 0

/* ---- Objects ---- */

static void full_key(const struct s3 *s3, const char *key, char full[200])
{
    (void)snprintf(full, 200, "%s%s", s3->place, key);
}

/* Where the object of that key is, or belongs. */
static struct object **object_at(const struct s3 *s3, const char *key)
{
    char full[200];
    full_key(s3, key, full);
    struct object **at = &server.objects;
    while (*at != NULL && strcmp((*at)->key, full) < 0)
        at = &(*at)->next;
    return at;
}
static struct object *object_find(const struct s3 *s3, const char *key)
{
    char full[200];
    full_key(s3, key, full);
    struct object *object = *object_at(s3, key);
    return object != NULL && strcmp(object->key, full) == 0 ? object : NULL;
}

static void object_remove(const struct s3 *s3, const char *key)
{
    struct object **at = object_at(s3, key);
    struct object *gone = object_find(s3, key);
    if (gone == NULL)
        return;
    *at = gone->next;
    free(gone->bytes);
    free(gone);
}

/* bytes: taken over */
static void object_set(const struct s3 *s3, const char *key, char *bytes, size_t n)
{
    object_remove(s3, key);
    struct object **at = object_at(s3, key);
    struct object *object = mem_zalloc(sizeof(*object));
    full_key(s3, key, object->key);
    object->bytes = bytes;
    object->n = n;
    object->modified = clock_wall();
    object->next = *at;
    *at = object;
}

static char *copy(struct str content)
{
    char *bytes = mem_alloc(content.n + 1);
    memcpy(bytes, content.p, content.n);
    return bytes;
}

static void hash_of(struct str content, uint8_t ret[HASH_BYTES_MAX])
{
    struct hash hash;
    hash_init(&hash, HASH_SHA256);
    hash_update(&hash, content.p, content.n);
    hash_final(&hash, ret);
}

int s3_put(struct call *call, struct s3 *s3, const char *key, struct str content,
           const uint8_t *sha256)
{
    uint8_t bytes[HASH_BYTES_MAX];
    BEGIN("put");
    hash_of(content, bytes);
    if (sha256 != NULL && memcmp(sha256, bytes, SHA256_DIGEST_SIZE) != 0)
        return err_set(&call->err, ERR_IO, "XAmzContentSHA256Mismatch");
    test_s3_record.hashed += sha256 == NULL;
    object_set(s3, key, copy(content), content.n);
    END();
}

static int no_object(struct err *err, const char *key)
{
    return err_set(err, ERR_NOT_FOUND, "object \"%s\" does not exist", key);
}

int s3_head(struct call *call, struct s3 *s3, const char *key, uint64_t *ret_size)
{
    BEGIN("head");
    const struct object *object = object_find(s3, key);
    if (object == NULL)
        return no_object(&call->err, key);
    *ret_size = object->n;
    END();
}

/* A copy of the range: it is handed out without the lock. */
static int range(struct s3 *s3, const char *key, uint64_t offset, uint64_t n, char **ret,
                 struct err *err)
{
    const struct object *object = object_find(s3, key);
    if (object == NULL)
        return no_object(err, key);
    if (n == 0 || offset + n > object->n)
        return err_set(err, ERR_CORRUPT, "object \"%s\" is shorter", key);
    *ret = copy((struct str){object->bytes + offset, (size_t)n});
    return 0;
}

static int get_locked(struct call *call, struct s3 *s3, const char *key, uint64_t offset,
                      uint64_t n, char **ret)
{
    BEGIN("get");
    if (range(s3, key, offset, n, ret, &call->err) < 0)
        return -1;
    END();
}

int s3_get(struct call *call, struct s3 *s3, const char *key, uint64_t offset, uint64_t n,
           int (*take)(void *context, struct str piece, struct err *err), void *context)
{
    char *bytes = NULL;
    int got = get_locked(call, s3, key, offset, n, &bytes);
    auto_mem char *owned = bytes;
    if (got < 0)
        return -1;
    for (size_t at = 0; at < n; at += 70001)
        if (take(context, str_first((struct str){owned + at, (size_t)n - at}, 70001), &call->err) <
            0)
            return -1;
    return 0;
}

/* Says "later" before each piece, and at once that there is more. */
struct memory_stream {
    struct stream base;
    char *bytes;
    size_t n;
    size_t at;
    bool later;
    void (*ready)(void *context);
    void *context;
};
static ssize_t memory_read(struct stream *base, void *p, size_t max)
{
    struct memory_stream *stream = (struct memory_stream *)base;
    stream->later = !stream->later;
    if (stream->later) {
        if (stream->ready != NULL)
            stream->ready(stream->context);
        return STREAM_LATER;
    }
    size_t n = stream->n - stream->at < max ? stream->n - stream->at : max;
    if (n == 0)
        return STREAM_END;
    memcpy(p, stream->bytes + stream->at, n);
    stream->at += n;
    return (ssize_t)n;
}
static void memory_watch(struct stream *base, void (*ready)(void *context), void *context)
{
    struct memory_stream *stream = (struct memory_stream *)base;
    stream->ready = ready;
    stream->context = context;
}
static void memory_close(struct stream *base)
{
    free(((struct memory_stream *)base)->bytes);
    free(base);
}
static const struct stream_kind memory_kind = {memory_read, memory_watch, memory_close};

int s3_stream(struct s3 *s3, const char *key, uint64_t offset, uint64_t n, const char *call_id,
              struct stream **ret, struct err *err)
{
    assert_non_null(call_id);
    auto_lock held = lock_take(&server.mutex);
    (void)fate_of("stream");
    char *bytes;
    if (range(s3, key, offset, n, &bytes, err) < 0)
        return -1;
    struct memory_stream *stream = mem_zalloc(sizeof(*stream));
    *stream = (struct memory_stream){.base = {&memory_kind}, .bytes = bytes, .n = (size_t)n};
    *ret = &stream->base;
    return 0;
}

int s3_delete(struct call *call, struct s3 *s3, const char *const *keys, size_t n)
{
    assert_in_range(n, 1, 1000);
    BEGIN("delete");
    for (size_t i = 0; i < n; i++)
        object_remove(s3, keys[i]);
    END();
}

/* ---- Multipart uploads ---- */

int s3_multipart_begin(struct call *call, struct s3 *s3, const char *key, struct str *ret_id)
{
    BEGIN("multipart_begin");
    struct multipart *multipart = mem_zalloc(sizeof(*multipart));
    full_key(s3, key, multipart->key);
    (void)snprintf(multipart->id, sizeof(multipart->id), "2~upload-%u", ++server.last_id);
    multipart->begun = clock_wall();
    multipart->next = server.multiparts;
    server.multiparts = multipart;
    *ret_id = str_printf(&call->arena, "%s", multipart->id);
    END();
}

static struct multipart **multipart_at(const struct s3 *s3, const char *key, struct str id)
{
    char full[200];
    full_key(s3, key, full);
    struct multipart **at = &server.multiparts;
    while (*at != NULL && (strcmp((*at)->key, full) != 0 || !str_eq(str_from((*at)->id), id)))
        at = &(*at)->next;
    return at;
}

static void parts_free(struct part *parts)
{
    while (parts != NULL) {
        struct part *next = parts->next;
        free(parts->bytes);
        free(parts);
        parts = next;
    }
}
static void multipart_remove(struct multipart **at)
{
    struct multipart *gone = *at;
    *at = gone->next;
    parts_free(gone->parts);
    free(gone);
}

static int no_multipart(struct err *err)
{
    return err_set(err, ERR_NOT_FOUND, "the multipart upload does not exist");
}

int s3_multipart_put(struct call *call, struct s3 *s3, const char *key, struct str id,
                     unsigned number, struct str content, struct s3_etag *ret)
{
    assert_in_range(number, 1, 10000);
    BEGIN("multipart_put");
    struct multipart *multipart = *multipart_at(s3, key, id);
    if (multipart == NULL)
        return no_multipart(&call->err);
    struct part **at = &multipart->parts;
    while (*at != NULL && (*at)->number < number)
        at = &(*at)->next;
    struct part *part = mem_zalloc(sizeof(*part));
    *part = (struct part){.next = *at, .number = number, .bytes = copy(content), .n = content.n};
    if (*at != NULL && (*at)->number == number) {
        struct part *replaced = *at;
        part->next = replaced->next;
        replaced->next = NULL;
        parts_free(replaced);
    }
    *at = part;

    uint8_t bytes[HASH_BYTES_MAX];
    hash_of(content, bytes);
    for (size_t i = 0; i < 16; i++)
        (void)snprintf(part->etag.text + 2 * i, 3, "%02x", bytes[i]);
    *ret = part->etag;
    END();
}

/* The listed parts in one; NULL with *err: they are not what was said. */
static char *join(const struct multipart *multipart, const struct s3_etag *parts, size_t n_parts,
                  size_t *ret_n, struct err *err)
{
    char *all = mem_alloc(1);
    size_t n = 0;
    const struct part *part = multipart->parts;
    for (size_t i = 0; i < n_parts; i++) {
        while (part != NULL && part->number < i + 1)
            part = part->next;
        bool right =
            part != NULL && part->number == i + 1 && strcmp(part->etag.text, parts[i].text) == 0;
        if (right && i + 1 < n_parts && part->n < PART_BYTES_MIN) {
            (void)err_set(err, ERR_IO, "EntityTooSmall");
            right = false;
        } else if (!right) {
            (void)err_set(err, ERR_CONFLICT, "InvalidPart");
        }
        if (!right) {
            free(all);
            return NULL;
        }
        all = mem_realloc(all, n + part->n + 1);
        memcpy(all + n, part->bytes, part->n);
        n += part->n;
    }
    if (part->next != NULL) {
        (void)err_set(err, ERR_CONFLICT, "InvalidPart");
        free(all);
        return NULL;
    }
    *ret_n = n;
    return all;
}

int s3_multipart_complete(struct call *call, struct s3 *s3, const char *key, struct str id,
                          const struct s3_etag *parts, size_t n_parts)
{
    assert_in_range(n_parts, 1, 10000);
    BEGIN("multipart_complete");
    struct multipart **at = multipart_at(s3, key, id);
    if (*at == NULL)
        return no_multipart(&call->err);
    size_t n = 0;
    char *all = join(*at, parts, n_parts, &n, &call->err);
    if (all == NULL)
        return -1;
    object_set(s3, key, all, n);
    multipart_remove(at);
    END();
}

int s3_multipart_abort(struct call *call, struct s3 *s3, const char *key, struct str id)
{
    BEGIN("multipart_abort");
    struct multipart **at = multipart_at(s3, key, id);
    if (*at != NULL)
        multipart_remove(at);
    END();
}

/* ---- Lists ---- */

/* Copies of what is listed, so that the lock is not held while it is handed out. */
struct listing {
    struct s3_object *objects;
    char (*keys)[200];
    char (*ids)[40];
    size_t n;
};

static void listing_add(struct listing *listing, const struct s3 *s3, const char *under,
                        const char *key, const char *id, size_t size, struct wall_us when)
{
    char full[200];
    full_key(s3, under, full);
    if (strncmp(key, full, strlen(full)) != 0)
        return;
    size_t n = listing->n++;
    listing->objects = mem_realloc(listing->objects, (n + 1) * sizeof(*listing->objects));
    listing->keys = mem_realloc(listing->keys, (n + 1) * sizeof(*listing->keys));
    listing->ids = mem_realloc(listing->ids, (n + 1) * sizeof(*listing->ids));
    listing->objects[n] = (struct s3_object){.size = size, .modified = when};
    (void)snprintf(listing->keys[n], sizeof(*listing->keys), "%s", key + strlen(s3->place));
    (void)snprintf(listing->ids[n], sizeof(*listing->ids), "%s", id);
}
static void listing_done(struct listing *listing)
{
    free(listing->objects);
    free(listing->keys);
    free(listing->ids);
}
#define auto_listing __attribute__((cleanup(listing_done))) struct listing

static int list_locked(struct call *call, const struct s3 *s3, const char *under,
                       struct listing *listing)
{
    BEGIN("list");
    for (const struct object *object = server.objects; object != NULL; object = object->next)
        listing_add(listing, s3, under, object->key, "", object->n, object->modified);
    END();
}
static int list_multiparts_locked(struct call *call, const struct s3 *s3, const char *under,
                                  struct listing *listing)
{
    BEGIN("multipart_list");
    for (const struct multipart *at = server.multiparts; at != NULL; at = at->next)
        listing_add(listing, s3, under, at->key, at->id, 0, at->begun);
    END();
}

int s3_list(struct call *call, struct s3 *s3, const char *under,
            int (*each)(void *context, const struct s3_object *object, struct err *err),
            void *context)
{
    auto_listing listing = {0};
    if (list_locked(call, s3, under, &listing) < 0)
        return -1;
    for (size_t i = 0; i < listing.n; i++) {
        listing.objects[i].key = str_from(listing.keys[i]);
        if (each(context, &listing.objects[i], &call->err) < 0)
            return -1;
    }
    return 0;
}

int s3_multipart_list(struct call *call, struct s3 *s3, const char *under,
                      int (*each)(void *context, struct str key, struct str id,
                                  struct wall_us begun, struct err *err),
                      void *context)
{
    auto_listing listing = {0};
    if (list_multiparts_locked(call, s3, under, &listing) < 0)
        return -1;
    for (size_t i = 0; i < listing.n; i++)
        if (each(context, str_from(listing.keys[i]), str_from(listing.ids[i]),
                 listing.objects[i].modified, &call->err) < 0)
            return -1;
    return 0;
}

int s3_presign(struct call *call, struct s3 *s3, const char *key, int64_t ttl_us,
               struct str *ret_url)
{
    BEGIN("presign");
    *ret_url = str_printf(&call->arena, "memory://%s%s?us=%lld", s3->place, key, (long long)ttl_us);
    END();
}
