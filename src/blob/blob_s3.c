#include "blob/blob_s3_int.h"

int bucket_failed(const struct call *call, struct err *err)
{
    *err = call->err;
    err->details = NULL; /* of the call's arena */
    err->n_details = 0;
    if (err->kind != ERR_DENIED)
        return -1;
    /* It is this server that may not, whoever asked it. */
    (void)err_set(err, ERR_IO, "the registry's storage failed");
    return err_why(err, "the object store refused: %s; %s", call->err.say, call->err.why);
}

static void bucket_store_close(struct blob_store *base)
{
    struct bucket_store *store = bucket_store_of(base);
    s3_free(store->s3);
    free(store);
}

static int nothing_taken(void *context, struct str piece, struct err *err)
{
    (void)context;
    (void)piece;
    (void)err;
    return 0;
}

/* GET, as only the body of an answer tells a key that is not there from a bucket that is not. */
static int bucket_store_look(struct blob_store *store, struct err *err)
{
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    struct bucket_key key = {""};
    blob_upload_id_make(id);
    bucket_key_make(id, &key);
    auto_call call;
    call_init(&call);
    if (s3_get(&call, bucket_store_of(store)->s3, key.text, 0, 1, nothing_taken, NULL) == 0 ||
        call.err.kind == ERR_NOT_FOUND)
        return 0;
    return bucket_failed(&call, err);
}

static void bucket_store_give_up(struct blob_store *store, struct mono_us at)
{
    s3_give_up(bucket_store_of(store)->s3, at);
}

static int bucket_store_space(struct blob_store *store, uint64_t *ret_free, uint64_t *ret_total,
                              struct err *err)
{
    (void)store;
    (void)err;
    *ret_free = *ret_total = 0;
    return 0;
}

/* ---- Committed blobs ---- */

static int key_of(const struct blob_ref *blob, struct bucket_key *ret, struct err *err)
{
    if (bucket_key_parse(blob->location, ret))
        return 0;
    char text[OCI_DIGEST_TEXT_MAX + 1];
    (void)oci_digest_format(&blob->digest, text);
    return err_set(err, ERR_CORRUPT,
                   "the location of blob \"%s\", \"" STR_FMT "\", is not one of the object store's",
                   text, STR_ARG(str_first(blob->location, 80)));
}

static int blob_failed(const struct blob_ref *blob, const struct call *call, struct err *err)
{
    if (call->err.kind == ERR_NOT_FOUND)
        return blob_unknown(blob, err);
    if (call->err.kind == ERR_CORRUPT)
        return blob_has_other_size(blob, err);
    return bucket_failed(call, err);
}

/* A stream of no bytes: the object store has no name for such a range. */
static ssize_t nothing_read(struct stream *stream, void *p, size_t max)
{
    (void)stream;
    (void)p;
    (void)max;
    return STREAM_END;
}
static void nothing_watch(struct stream *stream, void (*ready)(void *context), void *context)
{
    (void)stream;
    (void)ready;
    (void)context;
}
static void nothing_close(struct stream *stream)
{
    free(stream);
}
static const struct stream_kind nothing_kind = {nothing_read, nothing_watch, nothing_close};

static struct stream *nothing_new(void)
{
    struct stream *stream = mem_alloc(sizeof(*stream));
    stream->kind = &nothing_kind;
    return stream;
}

static int bucket_blob_open(struct blob_store *store, const struct blob_ref *blob, uint64_t offset,
                            uint64_t n, const char *call_id, struct blob_content *ret,
                            struct err *err)
{
    struct bucket_key key = {""};
    if (key_of(blob, &key, err) < 0)
        return -1;
    struct stream *stream;
    if (n == 0)
        stream = nothing_new();
    else if (s3_stream(bucket_store_of(store)->s3, key.text, offset, n, call_id, &stream, err) < 0)
        return -1;
    *ret = (struct blob_content){.fd = -1, .stream = stream};
    return 0;
}

static int bucket_blob_redirect(struct blob_store *base, const struct blob_ref *blob,
                                struct arena *arena, struct str *ret_url, struct err *err)
{
    const struct bucket_store *store = bucket_store_of(base);
    if (!store->options.redirect) {
        *ret_url = (struct str){0};
        return 0;
    }
    struct bucket_key key = {""};
    if (key_of(blob, &key, err) < 0)
        return -1;
    auto_call call;
    call_init(&call);
    struct str url;
    if (s3_presign(&call, store->s3, key.text, store->options.redirect_us, &url) < 0)
        return bucket_failed(&call, err);
    *ret_url = str_dup(arena, url);
    return 0;
}

/* Tells the taker's own failures from those of the object store. */
struct taking {
    blob_take *take;
    void *context;
    bool failed;
};

static int take_piece(void *context, struct str piece, struct err *err)
{
    struct taking *taking = context;
    if (taking->take(taking->context, piece, err) == 0)
        return 0;
    taking->failed = true;
    return -1;
}

static int bucket_blob_stat(struct blob_store *store, const struct blob_ref *blob,
                            uint64_t *ret_size, struct err *err)
{
    struct bucket_key key = {""};
    if (key_of(blob, &key, err) < 0)
        return -1;
    auto_call call;
    call_init(&call);
    if (s3_head(&call, bucket_store_of(store)->s3, key.text, ret_size) < 0)
        return blob_failed(blob, &call, err);
    return 0;
}

static int bucket_blob_read(struct blob_store *store, const struct blob_ref *blob, blob_take *take,
                            void *context, struct err *err)
{
    uint64_t size;
    if (blob->size == 0) /* there is only its presence to be asked for */
        return bucket_blob_stat(store, blob, &size, err);
    struct bucket_key key = {""};
    if (key_of(blob, &key, err) < 0)
        return -1;
    struct taking taking = {.take = take, .context = context};
    auto_call call;
    call_init(&call);
    if (s3_get(&call, bucket_store_of(store)->s3, key.text, 0, blob->size, take_piece, &taking) ==
        0)
        return 0;
    if (!taking.failed)
        return blob_failed(blob, &call, err);
    *err = call.err;
    return -1;
}

static int bucket_blob_delete(struct blob_store *store, const struct blob_ref *blobs, size_t n,
                              struct err *err)
{
    const size_t at_once = 1000; /* what one request may name */
    for (size_t at = 0; at < n; at += at_once) {
        auto_call call;
        call_init(&call);
        size_t n_keys = n - at < at_once ? n - at : at_once;
        struct bucket_key *keys = arena_alloc(&call.arena, n_keys * sizeof(*keys));
        const char **texts = arena_alloc(&call.arena, n_keys * sizeof(*texts));
        for (size_t i = 0; i < n_keys; i++) {
            if (key_of(&blobs[at + i], &keys[i], err) < 0)
                return -1;
            texts[i] = keys[i].text;
        }
        if (s3_delete(&call, bucket_store_of(store)->s3, texts, n_keys) < 0)
            return bucket_failed(&call, err);
    }
    return 0;
}

/* ---- Walking ---- */

struct walking {
    const struct blob_walk *walk;
    void *context;
};

static int walk_stray(const struct walking *walking, struct str key, struct err *err)
{
    if (walking->walk->stray == NULL)
        return 0;
    auto_arena arena = {0};
    return walking->walk->stray(walking->context, str_z(&arena, key), err);
}

static int walk_object(void *context, const struct s3_object *object, struct err *err)
{
    const struct walking *walking = context;
    struct bucket_key key = {""};
    if (!bucket_key_parse(object->key, &key))
        return walk_stray(walking, object->key, err);
    if (walking->walk->blob == NULL)
        return 0;
    return walking->walk->blob(walking->context, NULL, str_from(key.text), object->size,
                               object->modified, err);
}

static int walk_multipart(void *context, struct str key, struct str id, struct wall_us begun,
                          struct err *err)
{
    const struct walking *walking = context;
    struct bucket_stage stage = {.listed = true};
    if (!bucket_key_parse(key, &stage.key))
        return walk_stray(walking, key, err);
    if (!bucket_word_valid(id, BUCKET_MULTIPART_ID_BYTES_MAX))
        return err_set(err, ERR_IO, "the object store listed a multipart upload without usable id");
    auto_arena arena = {0};
    stage.multipart = str_z(&arena, id);
    return walking->walk->upload(walking->context, bucket_key_id(&stage.key),
                                 bucket_stage_format(&stage, &arena), 0, begun, err);
}

static int bucket_walk(struct blob_store *base, const struct blob_walk *walk, void *context,
                       struct err *err)
{
    struct s3 *s3 = bucket_store_of(base)->s3;
    struct walking walking = {.walk = walk, .context = context};
    if (walk->blob != NULL || walk->stray != NULL) {
        auto_call call;
        call_init(&call);
        if (s3_list(&call, s3, BUCKET_UNDER, walk_object, &walking) < 0)
            return bucket_failed(&call, err);
    }
    if (walk->upload != NULL) {
        auto_call call;
        call_init(&call);
        if (s3_multipart_list(&call, s3, BUCKET_UNDER, walk_multipart, &walking) < 0)
            return bucket_failed(&call, err);
    }
    return 0;
}

/* ---- The store ---- */

static const struct blob_backend bucket_backend = {
    .remote = true,
    .excludes = false,
    .store_close = bucket_store_close,
    .store_look = bucket_store_look,
    .store_give_up = bucket_store_give_up,
    .store_space = bucket_store_space,
    .upload_create = bucket_upload_create,
    .upload_hold = bucket_upload_create, /* nothing is asked, so there is nothing to find */
    .upload_cut = bucket_upload_cut,
    .upload_write = bucket_upload_write,
    .upload_read = bucket_upload_read,
    .upload_sync = bucket_upload_sync,
    .upload_stage = bucket_upload_stage,
    .upload_settle = bucket_upload_settle,
    .upload_commit = bucket_upload_commit,
    .upload_close = bucket_upload_close,
    .upload_discard = bucket_upload_discard,
    .upload_drop = bucket_upload_drop,
    .blob_open = bucket_blob_open,
    .blob_redirect = bucket_blob_redirect,
    .blob_read = bucket_blob_read,
    .blob_stat = bucket_blob_stat,
    .blob_delete = bucket_blob_delete,
    .walk = bucket_walk,
};

struct blob_store *blob_store_open_s3(struct s3 *s3, const struct blob_s3_options *options)
{
    require(options->part_bytes >= BUCKET_PART_BYTES_MIN);
    struct bucket_store *store = mem_zalloc(sizeof(*store));
    store->base.backend = &bucket_backend;
    store->s3 = s3;
    store->options = *options;
    return &store->base;
}
