/* A stream that outlives its connections: when one fails, the rest is asked for on another, after a
 * pause, without anybody waiting. */
#include "s3/s3_int.h"

#define ATTEMPTS_MAX 1000 /* in all, however much each of them gave */

struct s3_body {
    struct stream stream; /* first */
    struct s3 *s3;
    char *key; /* owned */
    uint64_t offset;
    uint64_t n;
    uint64_t got;
    struct stream *inner;   /* owned; NULL after a failure for good */
    struct mono_us began;   /* the attempt */
    unsigned attempts;      /* in all */
    unsigned fruitless;     /* in a row, without a byte */
    struct mono_us failing; /* since when they are */
    bool renewed;
    bool observed;        /* this attempt was */
    struct s3_keys *keys; /* of the attempt */
    char call_id[CALL_ID_BYTES];
    void (*ready)(void *context);
    void *context;
};

static int begin(struct s3_body *body, bool waits, int64_t after_us, struct err *err)
{
    auto_arena arena = {0};
    struct s3_request request = {.operation = "GetObject", .method = "GET", .key = body->key};
    uint64_t first = body->offset + body->got;
    uint64_t last = body->offset + body->n - 1;
    s3_add_header(
        &request, "range",
        str_printf(&arena, "bytes=%llu-%llu", (unsigned long long)first, (unsigned long long)last));
    struct s3_keys *keys = NULL;
    if (s3_keys_get(body->s3->source, waits, &keys, err) < 0)
        return -1;
    char payload[S3_HASH_TEXT_BYTES];
    struct fetch_request sent;
    s3_hash_text((struct str){NULL, 0}, payload);
    s3_sign_request(&arena, body->s3, &request, str_from(payload), keys, &sent);
    if (body->keys != NULL)
        s3_keys_give(body->s3->source, body->keys);
    body->keys = keys;
    body->attempts++;
    body->began = (struct mono_us){clock_mono().us + after_us};
    body->observed = false;
    sent.after_us = after_us;
    if (fetch_stream(body->s3->fetch, &sent, 206, body->n - body->got, body->call_id, &body->inner,
                     err) < 0)
        return -1;
    if (body->ready != NULL)
        stream_watch(body->inner, body->ready, body->context);
    return 0;
}

static void observe(struct s3_body *body, unsigned status)
{
    if (!body->observed)
        s3_observe(body->s3, "GetObject", status, clock_since_us(body->began));
    body->observed = true;
}

/* Whether another attempt may give what this one did not. */
static bool may_go_on(struct s3_body *body, unsigned status)
{
    if (status == 403 && !body->renewed) {
        body->renewed = true;
        return s3_keys_refused(body->s3->source, body->keys);
    }
    return (status == 206 || s3_is_passing(status)) && body->attempts < ATTEMPTS_MAX &&
           clock_since_us(body->failing) < body->s3->patience_us;
}

/* After a failure: begins another attempt, or says why there is none. */
static void go_on(struct s3_body *body)
{
    unsigned status = fetch_stream_status(body->inner);
    observe(body, status == 206 ? 0 : status);
    stream_close(TAKE(body->inner));
    if (body->fruitless++ == 0)
        body->failing = clock_mono();
    struct err err;
    if (!may_go_on(body, status))
        (void)err_set(&err, ERR_IO, "an object could not be read to its end");
    else if (begin(body, /* waits= */ false, s3_backoff_us(body->fruitless), &err) == 0)
        return;
    (void)err_why(&err, "object \"%s%.100s\", byte %llu, attempt %u, call %s", body->s3->prefix,
                  body->key, (unsigned long long)(body->offset + body->got), body->attempts,
                  body->call_id);
    log_err(LOG_LEVEL_ERROR, "reading from the object store failed", &err);
}

static ssize_t body_read(struct stream *stream, void *p, size_t max)
{
    struct s3_body *body = (struct s3_body *)stream;
    if (body->got == body->n)
        return STREAM_END;
    while (body->inner != NULL) {
        ssize_t n = stream_read(body->inner, p, max);
        if (n == STREAM_LATER)
            return n;
        if (n < 0) {
            go_on(body);
            continue;
        }
        body->got += (uint64_t)n;
        body->fruitless = 0;
        if (body->got == body->n)
            observe(body, 206);
        return n;
    }
    return STREAM_FAILED;
}

static void body_watch(struct stream *stream, void (*ready)(void *context), void *context)
{
    struct s3_body *body = (struct s3_body *)stream;
    body->ready = ready;
    body->context = context;
    if (body->inner != NULL)
        stream_watch(body->inner, ready, context);
}

static void body_close(struct stream *stream)
{
    struct s3_body *body = (struct s3_body *)stream;
    stream_close(body->inner);
    if (body->keys != NULL)
        s3_keys_give(body->s3->source, body->keys);
    free(body->key);
    free(body);
}

static const struct stream_kind body_kind = {body_read, body_watch, body_close};

int s3_stream(struct s3 *s3, const char *key, uint64_t offset, uint64_t n, const char *call_id,
              struct stream **ret, struct err *err)
{
    uint64_t end;
    if (!num_add(offset, n, &end) || end > INT64_MAX)
        return err_set(err, ERR_RANGE, "a range of an object is larger than any can be");
    struct s3_body *body = mem_zalloc(sizeof(*body));
    body->stream.kind = &body_kind;
    body->s3 = s3;
    body->key = mem_strdup(key);
    body->offset = offset;
    body->n = n;
    (void)snprintf(body->call_id, sizeof(body->call_id), "%s", call_id);
    if (n > 0 && begin(body, /* waits= */ true, 0, err) < 0) {
        stream_close(&body->stream);
        return -1;
    }
    *ret = &body->stream;
    return 0;
}
