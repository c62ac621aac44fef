/* Staging and committing in an object store.
 *
 * Bytes are collected in memory and go out as parts of a multipart upload. What is small is one
 * object, put at once: when it is committed it stays where it is, and so does a completed multipart
 * upload, for the row of a blob says where it is. Nothing is ever copied or renamed.
 *
 * Requests to the object store for a blob of n bytes, with parts of p, by what clients mostly do
 * (begin; all of the bytes, acknowledged; commit without a body) or in one request:
 *   n <= p + 5 MiB   1: put
 *   otherwise        2 + (n - 5 MiB) / p, rounded up: begin, a put for each part, complete
 * The last 5 MiB of what came are held back when a part goes out, so that what an acknowledgement
 * finds in memory is never too little for a part. In many small pieces, acknowledged one by one,
 * what is not a part yet is the tail, an object of its own: put at each acknowledgement, read back
 * at the next piece, and removed when another place has its bytes.
 *
 * Nobody is excluded here. One who comes late (a node that stood still while another took the
 * upload over) cannot write over an object, as each has a random name. It can complete the
 * multipart upload: then the object is found, and read, before it becomes a blob. It can put a part
 * of the same number, and who broke off has put parts that nobody acknowledged; some stores
 * complete nothing as long as there is a part that is not named. So where a multipart upload goes
 * on no part is larger than p: the same bytes are the same part again, and the rest of them are in
 * as many parts at least. If a part is another one all the same, its tag in the row shows it. */
#include "blob/blob_s3_int.h"

#include <stdio.h>

/* The first piece of memory that an upload takes; most blobs are small. */
#define BUFFER_BYTES_FIRST ((size_t)64 * 1024)

struct bucket_upload {
    struct blob_upload base;
    struct bucket_stage stage; /* where the bytes before the buffer's are; and, in its tail, all of
                                  the buffer's, as long as their number is the same */
    bool continued;            /* bytes were acknowledged: more come in requests of their own */
    bool shared;               /* others may have put, and may put yet, parts that follow */
    bool tail_unread;          /* the tail's bytes are not in the buffer */
    char *buffer;              /* owned */
    size_t n;
    size_t capacity;
    struct bucket_key *former; /* owned: tails that others have taken the place of */
    size_t n_former;
    struct bucket_key whole; /* the object that has all bytes; "": none yet */
};

static struct bucket_upload *bucket_upload_of(struct blob_upload *upload)
{
    return (struct bucket_upload *)upload; /* its first member */
}
static const struct bucket_upload *bucket_upload_of_const(const struct blob_upload *upload)
{
    return (const struct bucket_upload *)upload;
}
static struct bucket_store *store_of(const struct bucket_upload *upload)
{
    return bucket_store_of(upload->base.store);
}

static size_t part_bytes(const struct bucket_upload *upload)
{
    return store_of(upload)->options.part_bytes;
}
static size_t buffer_max(const struct bucket_upload *upload)
{
    return part_bytes(upload) + BUCKET_PART_BYTES_MIN;
}

static bool has_key(const struct bucket_key *key)
{
    return key->text[0] != '\0';
}

static int upload_unknown(const struct bucket_upload *upload, struct err *err)
{
    return err_code(err, ERR_NOT_FOUND, OCI_BLOB_UPLOAD_UNKNOWN,
                    "upload \"%s\" does not exist any more; start it again", upload->base.id);
}

static int upload_changed(const struct bucket_upload *upload, struct err *err)
{
    return err_code(err, ERR_NOT_FOUND, OCI_BLOB_UPLOAD_UNKNOWN,
                    "upload \"%s\" was changed by another writer; start it again", upload->base.id);
}

/* ---- Beginning and ending ---- */

int bucket_upload_create(struct blob_store *store, const char *id, struct blob_upload **ret,
                         struct err *err)
{
    (void)err;
    struct bucket_upload *upload = mem_zalloc(sizeof(*upload));
    upload->base.store = store;
    memcpy(upload->base.id, id, sizeof(upload->base.id));
    *ret = &upload->base;
    return 0;
}

static void buffer_free(struct bucket_upload *upload)
{
    free(upload->buffer);
    upload->buffer = NULL;
    upload->n = upload->capacity = 0;
}

void bucket_upload_close(struct blob_upload *base)
{
    struct bucket_upload *upload = bucket_upload_of(base);
    bucket_stage_done(&upload->stage);
    buffer_free(upload);
    free(upload->former);
    free(upload);
}

size_t bucket_upload_memory(const struct blob_upload *upload)
{
    return bucket_upload_of_const(upload)->capacity;
}

int bucket_upload_cut(struct blob_upload *base, uint64_t offset, struct str stage, struct err *err)
{
    struct bucket_upload *upload = bucket_upload_of(base);
    struct bucket_stage *staged = &upload->stage;
    bucket_stage_done(staged);
    if (bucket_stage_parse(stage, base->id, staged, err) < 0)
        return -1;
    if (staged->listed || staged->parts_bytes + staged->tail_bytes != offset)
        return err_set(err, ERR_CORRUPT,
                       "upload \"%s\" has lost bytes: %llu of %llu are recorded; start it again",
                       base->id, (unsigned long long)(staged->parts_bytes + staged->tail_bytes),
                       (unsigned long long)offset);
    upload->continued = offset > 0;
    upload->shared = staged->multipart != NULL;
    upload->tail_unread = staged->tail_bytes > 0;
    return 0;
}

struct str bucket_upload_stage(const struct blob_upload *upload, struct arena *arena)
{
    return bucket_stage_format(&bucket_upload_of_const(upload)->stage, arena);
}

/* ---- Parts and tails ---- */

/* The tail's bytes have got another place. */
static void tail_leave(struct bucket_upload *upload)
{
    struct bucket_stage *stage = &upload->stage;
    if (!has_key(&stage->tail))
        return;
    upload->former = mem_realloc(upload->former, (upload->n_former + 1) * sizeof(*upload->former));
    upload->former[upload->n_former++] = stage->tail;
    stage->tail = (struct bucket_key){""};
    stage->tail_bytes = 0;
}

static int begin_multipart(struct bucket_upload *upload, struct err *err)
{
    auto_call call;
    call_init(&call);
    struct bucket_key key = {""};
    bucket_key_make(upload->base.id, &key);
    struct str id;
    if (s3_multipart_begin(&call, store_of(upload)->s3, key.text, &id) < 0)
        return bucket_failed(&call, err);
    if (!bucket_word_valid(id, BUCKET_MULTIPART_ID_BYTES_MAX)) {
        (void)err_set(err, ERR_IO, "the registry's storage failed");
        return err_why(err, "the object store gave no usable id for a multipart upload");
    }
    upload->stage.key = key;
    upload->stage.multipart = mem_zalloc(id.n + 1);
    memcpy(upload->stage.multipart, id.p, id.n);
    return 0;
}

static int too_many_parts(const struct bucket_upload *upload, struct err *err)
{
    return err_set(err, ERR_TOO_LARGE,
                   "the blob is too large for the registry's object store: it would have more than "
                   "%d parts, and s3.part_size is %zu bytes",
                   BUCKET_PARTS_MAX, part_bytes(upload));
}

/* Sends the first `n` bytes of the buffer as the next part.
 * Errors: NOT_FOUND: the multipart upload is over. */
static int send_part(struct bucket_upload *upload, size_t n, struct err *err)
{
    struct bucket_stage *stage = &upload->stage;
    if (stage->n_parts == BUCKET_PARTS_MAX)
        return too_many_parts(upload, err);
    if (stage->multipart == NULL && begin_multipart(upload, err) < 0)
        return -1;
    auto_call call;
    call_init(&call);
    struct s3_etag etag;
    if (s3_multipart_put(&call, store_of(upload)->s3, stage->key.text, str_from(stage->multipart),
                         (unsigned)stage->n_parts + 1, (struct str){upload->buffer, n}, &etag) < 0)
        return call.err.kind == ERR_NOT_FOUND ? upload_unknown(upload, err)
                                              : bucket_failed(&call, err);
    if (!bucket_word_valid(str_from(etag.text), S3_ETAG_BYTES_MAX) ||
        !bucket_stage_add(stage, &etag, n)) {
        (void)err_set(err, ERR_IO, "the registry's storage failed");
        return err_why(err, "the object store gave no usable tag for a part");
    }
    tail_leave(upload);
    upload->n -= n;
    memmove(upload->buffer, upload->buffer + n, upload->n);
    return 0;
}

/* Where the buffer has all bytes of the upload, its hash is the running one: nothing is hashed
 * twice, and the store refuses what is not what the client's digest is compared with. */
static bool buffer_hash(const struct bucket_upload *upload, uint8_t ret[HASH_BYTES_MAX])
{
    struct hash hash = upload->base.hash; /* a copy: more may come */
    if (hash.algorithm != HASH_SHA256 || upload->n != upload->base.offset)
        return false;
    hash_final(&hash, ret);
    return true;
}

/* How much of the buffer is the next part when nothing is held back. */
static size_t next_part(const struct bucket_upload *upload)
{
    size_t most = upload->shared ? part_bytes(upload) : upload->n;
    return upload->n < most ? upload->n : most;
}

/* Puts the buffer as an object of its own. */
static int put_tail(struct bucket_upload *upload, struct err *err)
{
    auto_call call;
    call_init(&call);
    struct bucket_key key = {""};
    bucket_key_make(upload->base.id, &key);
    struct str content = {upload->n > 0 ? upload->buffer : "", upload->n};
    uint8_t hash[HASH_BYTES_MAX];
    if (s3_put(&call, store_of(upload)->s3, key.text, content,
               buffer_hash(upload, hash) ? hash : NULL) < 0)
        return bucket_failed(&call, err);
    tail_leave(upload);
    upload->stage.tail = key;
    upload->stage.tail_bytes = upload->n;
    return 0;
}

/* Bytes behind the parts. */
static uint64_t rest_bytes(const struct bucket_upload *upload)
{
    return upload->tail_unread ? upload->stage.tail_bytes : upload->n;
}
/* Whether they are in the tail. */
static bool rest_is_tail(const struct bucket_upload *upload)
{
    return has_key(&upload->stage.tail) && upload->stage.tail_bytes == rest_bytes(upload);
}

/* ---- The buffer ---- */

/* Appends what there is room for; returns how much. */
static size_t buffer_add(struct bucket_upload *upload, const char *p, size_t n)
{
    size_t max = buffer_max(upload);
    if (n > max - upload->n)
        n = max - upload->n;
    size_t capacity = upload->capacity > 0 ? upload->capacity : BUFFER_BYTES_FIRST;
    while (capacity < upload->n + n)
        capacity *= 2;
    if (capacity > max)
        capacity = max;
    if (capacity > upload->capacity) {
        upload->buffer = mem_realloc(upload->buffer, capacity);
        upload->capacity = capacity;
    }
    memcpy(upload->buffer + upload->n, p, n);
    upload->n += n;
    return n;
}

/* A part goes out when there are 5 MiB more than it needs: whatever comes or does not come then,
 * what is left can be a part. */
static int buffer_drain(struct bucket_upload *upload, struct err *err)
{
    return upload->n < buffer_max(upload) ? 0 : send_part(upload, part_bytes(upload), err);
}

static int take_tail(void *context, struct str piece, struct err *err)
{
    struct bucket_upload *upload = context;
    if (buffer_add(upload, piece.p, piece.n) != piece.n)
        return err_set(err, ERR_CORRUPT, "the object store gave more bytes than it was asked for");
    return 0;
}

static int get_tail(struct bucket_upload *upload, const struct bucket_key *key, uint64_t at,
                    size_t n, struct err *err)
{
    auto_call call;
    call_init(&call);
    if (s3_get(&call, store_of(upload)->s3, key->text, at, n, take_tail, upload) == 0)
        return 0;
    if (call.err.kind == ERR_NOT_FOUND)
        return err_set(err, ERR_CORRUPT, "upload \"%s\" has lost bytes; start it again",
                       upload->base.id);
    return bucket_failed(&call, err);
}

/* Another node may have put a tail that is larger than this one's buffer. */
static int tail_load(struct bucket_upload *upload, struct err *err)
{
    if (!upload->tail_unread)
        return 0;
    const struct bucket_key key = upload->stage.tail;
    const uint64_t size = upload->stage.tail_bytes;
    for (uint64_t at = 0; at < size;) {
        if (buffer_drain(upload, err) < 0)
            return -1;
        uint64_t rest = size - at;
        size_t room = buffer_max(upload) - upload->n;
        size_t n = rest < room ? (size_t)rest : room;
        if (get_tail(upload, &key, at, n, err) < 0)
            return -1;
        at += n;
    }
    upload->tail_unread = false;
    return 0;
}

int bucket_upload_write(struct blob_upload *base, const void *p, size_t n, struct err *err)
{
    struct bucket_upload *upload = bucket_upload_of(base);
    if (has_key(&upload->whole) && upload->stage.multipart != NULL)
        return err_set(err, ERR_CONFLICT, "upload \"%s\" is whole already; start it again",
                       base->id);
    upload->whole = (struct bucket_key){""};
    if (tail_load(upload, err) < 0)
        return -1;
    const char *from = p;
    while (n > 0) {
        if (buffer_drain(upload, err) < 0)
            return -1;
        size_t added = buffer_add(upload, from, n);
        from += added;
        n -= added;
    }
    return 0;
}

int bucket_upload_sync(struct blob_upload *base, struct err *err)
{
    struct bucket_upload *upload = bucket_upload_of(base);
    /* The first time this may be all of it, and then it is best as one object. */
    bool parts = upload->continued || upload->stage.multipart != NULL;
    while (parts && !rest_is_tail(upload) && upload->n >= BUCKET_PART_BYTES_MIN)
        if (send_part(upload, next_part(upload), err) < 0)
            return -1;
    if (rest_bytes(upload) == 0)
        buffer_free(upload);
    else if (!rest_is_tail(upload) && put_tail(upload, err) < 0)
        return -1;
    upload->continued = upload->continued || upload->base.offset > 0;
    return 0;
}

/* ---- Removing ---- */

/* What may be there and is not wanted. */
struct rubbish {
    struct bucket_store *store;
    struct str kept;
    const char **keys; /* owned; the keys are borrowed */
    size_t n;
};

static void rubbish_done(struct rubbish *rubbish)
{
    free(rubbish->keys);
}
#define auto_rubbish __attribute__((cleanup(rubbish_done))) struct rubbish

static void rubbish_add(struct rubbish *rubbish, const struct bucket_key *key)
{
    if (!has_key(key) || bucket_key_is(key, rubbish->kept))
        return;
    rubbish->keys = mem_realloc(rubbish->keys, (rubbish->n + 1) * sizeof(*rubbish->keys));
    rubbish->keys[rubbish->n++] = key->text;
}

static int rubbish_remove(const struct rubbish *rubbish, struct err *err)
{
    const size_t at_once = 1000;
    for (size_t at = 0; at < rubbish->n; at += at_once) {
        auto_call call;
        call_init(&call);
        size_t n = rubbish->n - at < at_once ? rubbish->n - at : at_once;
        if (s3_delete(&call, rubbish->store->s3, rubbish->keys + at, n) < 0)
            return bucket_failed(&call, err);
    }
    return 0;
}

/* Aborting comes first: who completes it at this moment then comes too late, or has made an object
 * that is removed afterwards. */
static int remove_stage(struct rubbish *rubbish, const struct bucket_stage *stage, struct err *err)
{
    rubbish_add(rubbish, &stage->tail);
    if (stage->multipart != NULL && !bucket_key_is(&stage->key, rubbish->kept)) {
        auto_call call;
        call_init(&call);
        if (s3_multipart_abort(&call, rubbish->store->s3, stage->key.text,
                               str_from(stage->multipart)) < 0)
            return bucket_failed(&call, err);
        /* What was found among the unfinished ones may have become a blob since. */
        if (!stage->listed)
            rubbish_add(rubbish, &stage->key);
    }
    return rubbish_remove(rubbish, err);
}

void bucket_upload_settle(struct blob_upload *base)
{
    struct bucket_upload *upload = bucket_upload_of(base);
    auto_rubbish rubbish = {.store = store_of(upload)};
    for (size_t i = 0; i < upload->n_former; i++)
        rubbish_add(&rubbish, &upload->former[i]);
    struct err err;
    if (rubbish_remove(&rubbish, &err) < 0)
        log_err(LOG_LEVEL_DEBUG, "could not remove the former tail of an upload", &err);
    else
        upload->n_former = 0;
}

int bucket_upload_discard(struct blob_store *store, const char *id, struct str stage,
                          struct str kept, struct err *err)
{
    struct bucket_stage staged;
    if (bucket_stage_parse(stage, id, &staged, err) < 0)
        return -1;
    auto_rubbish rubbish = {.store = bucket_store_of(store), .kept = kept};
    int done = remove_stage(&rubbish, &staged, err);
    bucket_stage_done(&staged);
    return done;
}

int bucket_upload_drop(struct blob_upload *base, struct str kept, struct err *err)
{
    struct bucket_upload *upload = bucket_upload_of(base);
    auto_rubbish rubbish = {.store = store_of(upload), .kept = kept};
    for (size_t i = 0; i < upload->n_former; i++)
        rubbish_add(&rubbish, &upload->former[i]);
    return remove_stage(&rubbish, &upload->stage, err);
}

/* ---- Committing ---- */

/* The multipart upload is gone: it was discarded; or completed by an attempt that was not answered,
 * before a crash, or by another writer. Then its bytes are those that were hashed here, or it is
 * none of ours. */
static int find_completed(struct bucket_upload *upload, struct err *err)
{
    struct hash hash = upload->base.hash;
    struct blob_ref object = {
        .digest = oci_digest_from_hash(&hash),
        .size = upload->base.offset,
        .location = str_from(upload->stage.key.text),
    };
    bool same;
    if (blob_verify(upload->base.store, &object, &same, err) < 0)
        return err->kind == ERR_NOT_FOUND ? upload_unknown(upload, err) : -1;
    return same ? 0 : upload_changed(upload, err);
}

static int complete(struct bucket_upload *upload, struct err *err)
{
    struct bucket_stage *stage = &upload->stage;
    while (upload->n > 0)
        if (send_part(upload, next_part(upload), err) < 0)
            return err->kind == ERR_NOT_FOUND ? find_completed(upload, err) : -1;
    buffer_free(upload);
    auto_call call;
    call_init(&call);
    if (s3_multipart_complete(&call, store_of(upload)->s3, stage->key.text,
                              str_from(stage->multipart), stage->etags, stage->n_parts) == 0)
        return 0;
    if (call.err.kind == ERR_CONFLICT)
        return upload_changed(upload, err);
    return call.err.kind == ERR_NOT_FOUND ? find_completed(upload, err) : bucket_failed(&call, err);
}

/* All bytes in one object, which upload->whole names then. */
static int make_whole(struct bucket_upload *upload, struct err *err)
{
    if (has_key(&upload->whole))
        return 0;
    if (upload->stage.multipart == NULL) {
        if (!rest_is_tail(upload) && put_tail(upload, err) < 0)
            return -1;
        upload->whole = upload->stage.tail;
    } else {
        if (tail_load(upload, err) < 0)
            return -1;
        if (complete(upload, err) < 0)
            return -1;
        upload->whole = upload->stage.key;
    }
    return 0;
}

int bucket_upload_read(struct blob_upload *base, bool whole, blob_take *take, void *context,
                       struct err *err)
{
    struct bucket_upload *upload = bucket_upload_of(base);
    if (!whole && upload->stage.multipart != NULL)
        return err_set(err, ERR_CORRUPT,
                       "the running hash of upload \"%s\" cannot be read by this version of the "
                       "registry; start the upload again",
                       base->id);
    if (whole && make_whole(upload, err) < 0)
        return -1;
    struct blob_ref object = {.size = base->offset,
                              .location =
                                  str_from(whole ? upload->whole.text : upload->stage.tail.text)};
    if (blob_read(base->store, &object, take, context, err) == 0)
        return 0;
    if (err->kind == ERR_NOT_FOUND || err->kind == ERR_CORRUPT)
        return err_set(err, ERR_CORRUPT, "upload \"%s\" has lost bytes; start it again", base->id);
    return -1;
}

int bucket_upload_commit(struct blob_upload *base, const struct oci_digest *digest,
                         struct arena *arena, struct str *ret_location, struct err *err)
{
    (void)digest;
    struct bucket_upload *upload = bucket_upload_of(base);
    if (make_whole(upload, err) < 0)
        return -1;
    crash_point("blob.durable");
    crash_point("blob.committed");
    *ret_location = str_dup(arena, str_from(upload->whole.text));
    return 0;
}
