/* One request: signed, sent, judged, and sent again while that may help. */
#include "s3/s3_int.h"

#include <stdatomic.h>

#include <sys/random.h>

#define BACKOFF_FIRST_US (CLOCK_SECOND_US / 10)
#define BACKOFF_MOST_US (5 * CLOCK_SECOND_US)
#define SLOWEST_BYTES_PER_SECOND (1024 * 1024) /* that a large body may be sent with */
#define SKEW_US (5 * 60 * CLOCK_SECOND_US)     /* S3 takes 15 minutes, others less */
#define STRANGE_MOST 3 /* answers that cannot be read, or that find the body damaged */

void s3_add_query(struct s3_request *request, const char *name, struct str value)
{
    require(request->n_query < S3_PAIRS_MAX);
    request->query[request->n_query++] = (struct s3_pair){name, value};
}

void s3_add_header(struct s3_request *request, const char *name, struct str value)
{
    require(request->n_headers < S3_PAIRS_MAX);
    request->headers[request->n_headers++] = (struct s3_pair){name, value};
}

void s3_add_encryption(const struct s3 *s3, struct s3_request *request)
{
    if (s3->encryption == NULL)
        return;
    s3_add_header(request, "x-amz-server-side-encryption", str_from(s3->encryption));
    if (s3->encryption_key[0] != '\0')
        s3_add_header(request, "x-amz-server-side-encryption-aws-kms-key-id",
                      str_from(s3->encryption_key));
}

int64_t s3_backoff_us(unsigned attempt)
{
    uint32_t random = 0;
    require(getrandom(&random, sizeof(random), 0) == (ssize_t)sizeof(random));
    unsigned doublings = attempt > 0 ? attempt - 1 : 0;
    int64_t us = BACKOFF_FIRST_US << (doublings < 8 ? doublings : 8);
    us = us < BACKOFF_MOST_US ? us : BACKOFF_MOST_US;
    return us / 2 + (int64_t)(random % (uint64_t)(us / 2));
}

bool s3_is_passing(unsigned status)
{
    return status == 0 || status == 408 || status == 429 ||
           (status >= 500 && status != 501 && status != 505 && status != 507);
}

/* ---- Signing ---- */

void s3_sign_request(struct arena *arena, const struct s3 *s3, const struct s3_request *request,
                     struct str payload, const struct s3_keys *keys, struct fetch_request *ret)
{
    struct s3_pair headers[S3_SIGNED_MAX];
    size_t n = request->n_headers;
    char stamp[S3_STAMP_BYTES];
    struct wall_us now = s3_now(s3);
    s3_stamp(now, stamp);
    memcpy(headers, request->headers, n * sizeof(*headers));
    headers[n++] = (struct s3_pair){"x-amz-content-sha256", payload};
    headers[n++] = (struct s3_pair){"x-amz-date", str_dup(arena, str_from(stamp))};
    if (keys->token != NULL)
        headers[n++] = (struct s3_pair){"x-amz-security-token", str_from(keys->token)};

    const struct s3_signing signing = {
        .method = request->method,
        .host = str_from(s3->store.host),
        .path = s3_path(arena, s3, &s3->store, request->key),
        .query = request->query,
        .n_query = request->n_query,
        .headers = headers,
        .n_headers = n,
        .payload = payload,
        .keys = keys,
        .region = s3->region,
        .service = "s3",
        .now = now,
    };
    struct str query = s3_query(arena, request->query, request->n_query);
    auto_buf url = BUF_INIT((size_t)128 * 1024);
    buf_add_str(&url, str_from(s3->store.url));
    buf_add_str(&url, signing.path);
    if (query.n > 0)
        buf_add_char(&url, '?');
    buf_add_str(&url, query);
    require(!url.overflow);

    *ret = (struct fetch_request){
        .method = request->method,
        .url = str_z(arena, buf_str(&url)),
        .body = request->body,
    };
    for (size_t i = 0; i < n; i++)
        ret->headers[ret->n_headers++] =
            (struct fetch_header){headers[i].name, str_z(arena, headers[i].value)};
    ret->headers[ret->n_headers++] =
        (struct fetch_header){"authorization", s3_authorization(arena, &signing).p};
}

/* What the store shall compare the body with. Where TLS sees to it that a body arrives as it was
 * sent, a large one is not hashed only to be signed; AWS's own clients do it so. */
static struct str payload_of(const struct s3 *s3, const struct s3_request *request,
                             char text[S3_HASH_TEXT_BYTES])
{
    if (request->body_sha256 != NULL)
        s3_digest_text(request->body_sha256, text);
    else if (request->is_content && s3->store.tls)
        return S3_UNSIGNED_PAYLOAD;
    else
        s3_hash_text(request->body, text);
    return str_from(text);
}

/* ---- Judging ---- */

enum verdict {
    VERDICT_DONE,
    VERDICT_AGAIN, /* with back-off, while there is patience */
    VERDICT_AT_ONCE,
    VERDICT_FAILED, /* with *err */
};

struct sending {
    struct call *call;
    struct s3 *s3;
    const struct s3_request *request;
    struct mono_us began;
    unsigned attempts;
    unsigned strange;
    unsigned errors; /* answers of status 500 */
    bool renewed;    /* the credentials were */
    bool skewed;     /* the clock was corrected */
};

/* A store that has not answered anybody for so long is away: then nobody waits for long, and who
 * still asks finds out when it is back. */
#define AWAY_US (5 * CLOCK_SECOND_US)
#define AWAY_PATIENCE_US (2 * CLOCK_SECOND_US)

static void note_silence(struct s3 *s3)
{
    int64_t answering = 0;
    (void)atomic_compare_exchange_strong(&s3->silent_since_us, &answering, clock_mono().us);
}

static void note_answer(struct s3 *s3)
{
    if (atomic_load(&s3->silent_since_us) != 0)
        atomic_store(&s3->silent_since_us, 0);
}

static int64_t left_us(const struct sending *sending)
{
    const struct s3 *s3 = sending->s3;
    struct mono_us since = {atomic_load(&s3->silent_since_us)};
    bool away = since.us != 0 && clock_since_us(since) > AWAY_US;
    int64_t patience =
        away && s3->patience_us > AWAY_PATIENCE_US ? AWAY_PATIENCE_US : s3->patience_us;
    int64_t left = patience - clock_since_us(sending->began);
    int64_t most = s3->give_up_us - clock_mono().us;
    return left < most ? left : most;
}

/* The operator's words: what was asked, and what the store answered. */
static int say_why(const struct sending *sending, unsigned status, const struct s3_error *error)
{
    const struct s3_request *request = sending->request;
    return err_why(
        &sending->call->err, "%s \"%s%.100s\" in bucket \"%s\", attempt %u: status %u%s%s%s%s%s%s",
        request->operation, sending->s3->prefix, request->key != NULL ? request->key : "",
        sending->s3->bucket, sending->attempts, status, error->code[0] != '\0' ? " " : "",
        error->code, error->message[0] != '\0' ? ", " : "", error->message,
        error->request_id[0] != '\0' ? ", request " : "", error->request_id);
}

static bool is_code(const struct s3_error *error, const char *code)
{
    return strcmp(error->code, code) == 0;
}

static bool is_among(const struct s3_error *error, const char *const *codes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (is_code(error, codes[i]))
            return true;
    return false;
}

static const char *const refused_keys[] = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired",
                                           "InvalidAccessKeyId"};

/* What the store means by an answer that is an error, without regard to attempts. */
static enum err_kind kind_of(unsigned status, const struct s3_error *error)
{
    static const char *const absent[] = {"NoSuchKey", "NoSuchUpload"};
    static const char *const full[] = {"QuotaExceeded", "XMinioStorageFull", "EntityTooLarge"};
    static const char *const passing[] = {
        "SlowDown",         "RequestTimeout",      "InternalError",
        "Throttling",       "ThrottlingException", "ServiceUnavailable",
        "OperationAborted", "RequestLimitExceeded"};
    static const char *const parts[] = {"InvalidPart", "InvalidPartOrder", "EntityTooSmall"};
    if (is_among(error, passing, ARRAY_SIZE(passing)))
        return ERR_BUSY;
    if (is_among(error, full, ARRAY_SIZE(full)) || status == 507)
        return ERR_FULL;
    if (is_among(error, parts, ARRAY_SIZE(parts)))
        return ERR_CONFLICT;
    if (is_among(error, absent, ARRAY_SIZE(absent)) || (status == 404 && error->code[0] == '\0'))
        return ERR_NOT_FOUND;
    if (status == 416)
        return ERR_RANGE;
    if (status == 401 || status == 403 || is_among(error, refused_keys, ARRAY_SIZE(refused_keys)))
        return ERR_DENIED;
    return s3_is_passing(status) ? ERR_BUSY : ERR_IO;
}

static const char *say_of(enum err_kind kind)
{
    switch ((int)kind) {
    case ERR_BUSY:
        return "the object store is too busy";
    case ERR_FULL:
        return "the object store has no space left";
    case ERR_CONFLICT:
        return "the object store does not have a part that was sent to it";
    case ERR_NOT_FOUND:
        return "the object store does not have this";
    case ERR_RANGE:
        return "an object in the object store is shorter than it should be";
    case ERR_DENIED:
        return "the object store refuses access";
    default:
        return "the object store failed";
    }
}

/* True: our clock was wrong, and is no more. */
static bool correct_clock(struct sending *sending, const struct fetch_answer *answer,
                          const struct s3_error *error)
{
    struct wall_us date;
    if (sending->skewed || !s3_http_date_parse(fetch_header(answer, "Date"), &date))
        return false;
    int64_t off = date.us - s3_now(sending->s3).us;
    if (!is_code(error, "RequestTimeTooSkewed") && off < SKEW_US && off > -SKEW_US)
        return false;
    sending->skewed = true;
    int64_t skew_us = date.us - clock_wall().us;
    sending->s3->skew_us = skew_us;
    log_say(LOG_LEVEL_WARN, "this machine's clock is not the object store's",
            LOG_INT("seconds", skew_us / CLOCK_SECOND_US));
    return true;
}

static bool renew_keys(struct sending *sending, unsigned status, const struct s3_error *error,
                       const struct s3_keys *keys)
{
    /* The answer to a HEAD has no code. */
    bool expired = is_among(error, refused_keys, ARRAY_SIZE(refused_keys)) ||
                   (error->code[0] == '\0' && (status == 400 || status == 403));
    if (!expired || sending->renewed)
        return false;
    sending->renewed = true;
    return s3_keys_refused(sending->s3->source, keys);
}

static void explain(const struct sending *sending, const struct fetch_answer *answer,
                    const struct s3_error *error)
{
    struct err *err = &sending->call->err;
    struct str region = fetch_header(answer, "x-amz-bucket-region");
    if (region.n == 0)
        region = str_from(error->region);
    if (region.n > 0 && !str_eq(region, str_from(sending->s3->region)))
        (void)err_why(err, "the bucket is in region \"" STR_FMT "\", and s3.region is \"%s\"",
                      STR_ARG(str_first(region, 40)), sending->s3->region);
    else if (is_code(error, "SignatureDoesNotMatch"))
        (void)err_why(err, "the secret key may be wrong, or a proxy changes requests");
}

static enum verdict judge_error(struct sending *sending, const struct fetch_answer *answer,
                                const struct s3_keys *keys)
{
    struct s3_error error = {0};
    unsigned status = answer->status;
    (void)s3_error_parse(answer->body, &error);
    enum err_kind kind = kind_of(status, &error);
    if (kind == ERR_DENIED && correct_clock(sending, answer, &error))
        return VERDICT_AT_ONCE;
    if (renew_keys(sending, status, &error, keys))
        return VERDICT_AT_ONCE;
    (void)err_set(&sending->call->err, kind, "%s", say_of(kind));
    (void)say_why(sending, status, &error);
    explain(sending, answer, &error);
    bool damaged = is_code(&error, "XAmzContentSHA256Mismatch") || is_code(&error, "BadDigest");
    if (status == 500 && ++sending->errors == sending->request->errors_most)
        return VERDICT_FAILED;
    if (kind == ERR_BUSY || (damaged && ++sending->strange < STRANGE_MOST))
        return VERDICT_AGAIN;
    return VERDICT_FAILED;
}

static enum verdict judge(struct sending *sending, const struct fetch_answer *answer,
                          const struct s3_keys *keys)
{
    const struct s3_request *request = sending->request;
    struct s3_error error;
    bool good = answer->status >= 200 && answer->status < 300;
    /* CompleteMultipartUpload and DeleteObjects may fail after their status was sent. */
    if (!good || (request->parse != NULL && s3_error_parse(answer->body, &error)))
        return judge_error(sending, answer, keys);
    if (request->parse == NULL ||
        request->parse(request->context, answer, &sending->call->err) == 0)
        return VERDICT_DONE;
    (void)say_why(sending, answer->status, &(struct s3_error){0});
    if (sending->call->err.kind == ERR_BUSY)
        return VERDICT_AGAIN;
    return sending->call->err.kind == ERR_IO && ++sending->strange < STRANGE_MOST ? VERDICT_AGAIN
                                                                                  : VERDICT_FAILED;
}

/* ---- Sending ---- */

/* `begin` or `take` failed, not the network. */
struct relay {
    const struct s3_request *request;
    bool failed;
};

static int relay_begin(void *context, const struct fetch_answer *head, struct err *err)
{
    struct relay *relay = context;
    int result = relay->request->begin(relay->request->context, head, err);
    relay->failed = result < 0;
    return result;
}

static int relay_take(void *context, struct str piece, struct err *err)
{
    struct relay *relay = context;
    int result = relay->request->take(relay->request->context, piece, err);
    relay->failed = result < 0;
    return result;
}

static int64_t within_us(const struct sending *sending)
{
    if (sending->request->take != NULL)
        return 0; /* as long as it moves */
    int64_t body = (int64_t)(sending->request->body.n / SLOWEST_BYTES_PER_SECOND);
    int64_t left = left_us(sending);
    return (left > 0 ? left : 1) + body * CLOCK_SECOND_US;
}

static enum verdict judge_silence(struct sending *sending)
{
    struct err *err = &sending->call->err;
    if (err->kind == ERR_TOO_LARGE || err->kind == ERR_INVALID)
        return VERDICT_FAILED;
    note_silence(sending->s3);
    char why[sizeof(err->why)];
    (void)snprintf(why, sizeof(why), "%s", err->why);
    (void)err_set(err, ERR_BUSY, "the object store does not answer");
    (void)err_why(err, "%s \"%s%.100s\" in bucket \"%s\", attempt %u: %s",
                  sending->request->operation, sending->s3->prefix,
                  sending->request->key != NULL ? sending->request->key : "", sending->s3->bucket,
                  sending->attempts, why);
    return VERDICT_AGAIN;
}

static enum verdict attempt(struct sending *sending, struct str payload, struct s3_keys *keys,
                            struct fetch_answer *ret)
{
    const struct s3_request *request = sending->request;
    struct relay relay = {.request = request};
    struct fetch_request sent;
    s3_sign_request(&sending->call->arena, sending->s3, request, payload, keys, &sent);
    sent.within_us = within_us(sending);
    sent.answer_bytes_max = request->answer_bytes_max;
    sent.begin = request->begin != NULL ? relay_begin : NULL;
    sent.take = request->take != NULL ? relay_take : NULL;
    sent.context = &relay;

    struct mono_us began = clock_mono();
    int result = fetch_perform(sending->call, sending->s3->fetch, &sent, ret);
    s3_observe(sending->s3, request->operation, result == 0 ? ret->status : 0,
               clock_since_us(began));
    if (result == 0 || relay.failed)
        note_answer(sending->s3);
    if (relay.failed)
        return VERDICT_FAILED;
    return result == 0 ? judge(sending, ret, keys) : judge_silence(sending);
}

/* In naps, as patience may end meanwhile. */
#define NAP_US (CLOCK_SECOND_US / 5)
static void sleep_us(const struct sending *sending, int64_t us)
{
    const struct mono_us end = {clock_mono().us + us};
    for (int64_t rest = us; rest > 0 && left_us(sending) > 0; rest = end.us - clock_mono().us) {
        const struct timespec t = {.tv_nsec = (rest < NAP_US ? rest : NAP_US) * 1000};
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
    }
}

int s3_send(struct call *call, struct s3 *s3, const struct s3_request *request,
            struct fetch_answer *ret)
{
    struct sending sending = {.call = call, .s3 = s3, .request = request, .began = clock_mono()};
    uint64_t before = request->progress != NULL ? *request->progress : 0;
    char text[S3_HASH_TEXT_BYTES];
    struct str payload = payload_of(s3, request, text);
    for (;;) {
        struct s3_keys *keys = NULL;
        sending.attempts++;
        if (s3_keys_get(s3->source, /* waits= */ true, &keys, &call->err) < 0)
            return -1;
        enum verdict verdict = attempt(&sending, payload, keys, ret);
        s3_keys_give(s3->source, keys);
        if (verdict == VERDICT_DONE)
            return 0;
        if (verdict == VERDICT_FAILED)
            return -1;
        if (request->progress != NULL && *request->progress != before)
            return -1; /* the caller goes on where it broke */
        if (verdict == VERDICT_AT_ONCE)
            continue;
        int64_t pause = s3_backoff_us(sending.attempts);
        if (pause >= left_us(&sending))
            return -1;
        sleep_us(&sending, pause);
    }
}
