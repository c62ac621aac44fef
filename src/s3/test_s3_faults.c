/* What the client does when the store is broken, slow, away, or talks nonsense. */
#include "s3/s3_int.h"
#include "test_server.h"

#include <semaphore.h>
#include <signal.h>

#define MS INT64_C(1000)
#define MIB ((size_t)1024 * 1024)
#define OBJECT_BYTES ((uint64_t)3 * 1024 * 1024)

/* ---- A store that does what it is told ---- */

enum fault {
    FINE,
    STATUS_500,
    STATUS_503, /* SlowDown */
    STATUS_429,
    STATUS_502, /* a proxy's, not XML */
    TIMED_OUT,  /* 400 RequestTimeout */
    CUT,        /* no answer */
    CUT_BODY,   /* half of it */
    SILENT,
    JUNK, /* 200, and not what it should be */
    CUT_XML,
    ERROR_IN_200,
    FORBIDDEN,
    BAD_REQUEST,
    ELSEWHERE, /* 301, another region */
    STORAGE_FULL,
    DAMAGED, /* XAmzContentSHA256Mismatch */
    GONE,    /* 404 NoSuchUpload */
    SKEWED,
    OTHER_RANGE,
    SHORT_RANGE,
    WHOLE,     /* 200 to a range */
    KEYS_BUSY, /* in DeleteResult */
    KEYS_DENIED,
    KEYS_ABSENT,
    ENDLESS_LIST,
    NO_TOKEN_LIST,
    FOREIGN_LIST,
};

struct fake {
    struct test_server *server;
    pthread_mutex_t mutex; /* of what follows */
    enum fault faults[64]; /* of the next requests; then the last again and again, when `forever` */
    size_t n_faults;
    size_t next;
    bool forever;
    unsigned seen;
    unsigned statuses[64]; /* that were observed */
    unsigned n_statuses;
    struct buf heads; /* of all requests */
    int64_t ahead_us; /* the store's clock */
};

static struct fake fake;

static char byte_at(uint64_t at)
{
    return (char)((at * UINT64_C(2654435761)) >> 24);
}

static enum fault next_fault(const struct test_exchange *x)
{
    auto_lock held = lock_take(&fake.mutex);
    fake.seen++;
    buf_add_str(&fake.heads, x->head);
    if (fake.next < fake.n_faults)
        return fake.faults[fake.next++];
    return fake.forever ? fake.faults[fake.n_faults - 1] : FINE;
}

static bool say_error(struct test_exchange *x, const char *status, const char *code)
{
    auto_arena arena = {0};
    struct str body = str_printf(&arena,
                                 "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>%s</Code>"
                                 "<Message>the store's words</Message><RequestId>R1</RequestId>"
                                 "</Error>",
                                 code);
    return test_reply(x, status, "Content-Type: application/xml\r\n", body);
}

static bool say_bytes(struct test_exchange *x, uint64_t from, uint64_t n)
{
    auto_mem char *block = mem_alloc((size_t)n);
    for (uint64_t i = 0; i < n; i++)
        block[i] = byte_at(from + i);
    return test_send(x, block, (size_t)n);
}

static bool give_range(struct test_exchange *x, enum fault fault)
{
    struct str range = test_header(x, "Range");
    uint64_t first = 0;
    uint64_t last = 0;
    range = str_from_at(range, strlen("bytes="));
    require(str_eat_u64(&range, UINT64_MAX, &first));
    range = str_from_at(range, 1);
    require(str_eat_u64(&range, UINT64_MAX, &last));
    uint64_t n = last - first + 1;
    if (fault == OTHER_RANGE)
        first++;
    if (fault == SHORT_RANGE)
        n -= 10;
    if (fault == WHOLE)
        return test_say(x, "HTTP/1.1 200 OK\r\nContent-Length: %llu\r\n\r\n",
                        (unsigned long long)OBJECT_BYTES) &&
               say_bytes(x, 0, OBJECT_BYTES);
    (void)test_say(x,
                   "HTTP/1.1 206 Partial Content\r\nContent-Length: %llu\r\n"
                   "Content-Range: bytes %llu-%llu/%llu\r\n\r\n",
                   (unsigned long long)n, (unsigned long long)first,
                   (unsigned long long)(first + n - 1), (unsigned long long)OBJECT_BYTES);
    if (fault != CUT_BODY)
        return say_bytes(x, first, n);
    return say_bytes(x, first, n / 2) && false;
}

static bool has(const struct test_exchange *x, const char *part)
{
    return memmem(x->target.p, x->target.n, part, strlen(part)) != NULL;
}

static bool give_xml(struct test_exchange *x)
{
    if (has(x, "uploads="))
        return str_eq(x->method, STR("POST"))
                   ? test_reply(x, "200 OK", "",
                                STR("<InitiateMultipartUploadResult><UploadId>id</UploadId>"
                                    "</InitiateMultipartUploadResult>"))
                   : test_reply(x, "200 OK", "",
                                STR("<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>"
                                    "</ListMultipartUploadsResult>"));
    if (has(x, "list-type="))
        return test_reply(x, "200 OK", "",
                          STR("<ListBucketResult><IsTruncated>false</IsTruncated><Contents>"
                              "<Key>p/a</Key><Size>1</Size></Contents></ListBucketResult>"));
    if (has(x, "delete="))
        return test_reply(x, "200 OK", "", STR("<DeleteResult/>"));
    return test_reply(x, "200 OK", "",
                      STR("<CompleteMultipartUploadResult><ETag>x</ETag>"
                          "</CompleteMultipartUploadResult>"));
}

static bool give_fine(struct test_exchange *x, enum fault fault)
{
    if (str_eq(x->method, STR("HEAD")))
        return test_say(x, "HTTP/1.1 200 OK\r\nContent-Length: %llu\r\n\r\n",
                        (unsigned long long)OBJECT_BYTES);
    if (str_eq(x->method, STR("PUT")))
        return test_reply(x, "200 OK", "ETag: \"abc-1\"\r\n", STR(""));
    if (str_eq(x->method, STR("DELETE")))
        return test_reply(x, "204 No Content", "", STR(""));
    if (test_header(x, "Range").p != NULL)
        return give_range(x, fault);
    return give_xml(x);
}

static bool give_skew(struct test_exchange *x)
{
    time_t now = (time_t)((clock_wall().us + fake.ahead_us) / CLOCK_SECOND_US);
    struct tm parts;
    char date[60];
    (void)gmtime_r(&now, &parts);
    (void)strftime(date, sizeof(date), "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &parts);
    return test_reply(x, "403 Forbidden", date,
                      STR("<Error><Code>RequestTimeTooSkewed</Code></Error>"));
}

static bool give_list_result(struct test_exchange *x, const char *inner)
{
    auto_arena arena = {0};
    return test_reply(x, "200 OK", "",
                      str_printf(&arena, "<ListBucketResult>%s</ListBucketResult>", inner));
}

static bool give_delete_result(struct test_exchange *x, const char *code)
{
    auto_arena arena = {0};
    return test_reply(x, "200 OK", "",
                      str_printf(&arena,
                                 "<DeleteResult><Error><Key>p/one</Key><Code>%s</Code><Message>m"
                                 "</Message></Error></DeleteResult>",
                                 code));
}

static bool answer(void *context, struct test_exchange *x)
{
    (void)context;
    enum fault fault = next_fault(x);
    switch (fault) {
    case STATUS_500:
        return say_error(x, "500 Internal Server Error", "InternalError");
    case STATUS_503:
        return say_error(x, "503 Slow Down", "SlowDown");
    case STATUS_429:
        return say_error(x, "429 Too Many", "TooManyRequests");
    case STATUS_502:
        return test_reply(x, "502 Bad Gateway", "", STR("<html>no</html"));
    case TIMED_OUT:
        return say_error(x, "400 Bad Request", "RequestTimeout");
    case CUT:
        return false;
    case SILENT:
        test_sleep_us(2500 * MS);
        return false;
    case JUNK:
        return test_reply(x, "200 OK", "", STR("<html>Welcome to this network</html>"));
    case CUT_XML:
        return test_reply(x, "200 OK", "", STR("<CompleteMultipartUploadResult><ETag>x"));
    case ERROR_IN_200:
        return say_error(x, "200 OK", "InternalError");
    case FORBIDDEN:
        return say_error(x, "403 Forbidden", "AccessDenied");
    case BAD_REQUEST:
        return say_error(x, "400 Bad Request", "MalformedXML");
    case ELSEWHERE:
        return test_reply(x, "301 Moved Permanently", "x-amz-bucket-region: eu-west-1\r\n",
                          STR("<Error><Code>PermanentRedirect</Code></Error>"));
    case STORAGE_FULL:
        return say_error(x, "507 Insufficient Storage", "XMinioStorageFull");
    case DAMAGED:
        return say_error(x, "400 Bad Request", "XAmzContentSHA256Mismatch");
    case GONE:
        return say_error(x, "404 Not Found", "NoSuchUpload");
    case SKEWED:
        return give_skew(x);
    case KEYS_BUSY:
        return give_delete_result(x, "InternalError");
    case KEYS_DENIED:
        return give_delete_result(x, "AccessDenied");
    case KEYS_ABSENT:
        return give_delete_result(x, "NoSuchKey");
    case ENDLESS_LIST:
        return give_list_result(x, "<IsTruncated>true</IsTruncated>"
                                   "<NextContinuationToken>t</NextContinuationToken>");
    case NO_TOKEN_LIST:
        return give_list_result(x, "<IsTruncated>true</IsTruncated>");
    case FOREIGN_LIST:
        return give_list_result(x, "<Contents><Key>q/a</Key></Contents>");
    case FINE:
    case CUT_BODY:
    case OTHER_RANGE:
    case SHORT_RANGE:
    case WHOLE:
        break;
    }
    return give_fine(x, fault);
}

static void on_attempt(void *context, const char *operation, unsigned status, int64_t us)
{
    (void)context;
    require(operation[0] != '\0' && us >= 0);
    auto_lock held = lock_take(&fake.mutex);
    if (fake.n_statuses < ARRAY_SIZE(fake.statuses))
        fake.statuses[fake.n_statuses++] = status;
}

/* ---- The client ---- */

static struct s3_options options_of(int64_t patience_us)
{
    return (struct s3_options){
        .bucket = "bucket",
        .prefix = "p/",
        .endpoint = test_server_url(fake.server),
        .access_key = "access",
        .secret_key = "secret-of-it",
        .patience_us = patience_us,
        .connections = 4,
        .observe = on_attempt,
    };
}

static struct s3 *make(const struct s3_options *options)
{
    struct s3 *s3 = NULL;
    struct err err;
    if (s3_new(options, &s3, &err) < 0)
        fail_msg("%s", err.say);
    return s3;
}

static struct s3 *store;

static int set_up(void **state)
{
    (void)state;
    require(pthread_mutex_init(&fake.mutex, NULL) == 0);
    fake.heads = BUF_INIT(64 * MIB);
    fake.server = test_server_start(answer, NULL, NULL, NULL);
    const struct s3_options options = options_of(2 * CLOCK_SECOND_US);
    store = make(&options);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    s3_free(store);
    test_server_stop(fake.server);
    buf_done(&fake.heads);
    return 0;
}

#define next_requests(...)                                             \
    do {                                                               \
        const enum fault faults_[] = {__VA_ARGS__};                    \
        tell_fake(faults_, ARRAY_SIZE(faults_), /* forever= */ false); \
    } while (0)

static void tell_fake(const enum fault *faults, size_t n, bool forever)
{
    auto_lock held = lock_take(&fake.mutex);
    memcpy(fake.faults, faults, n * sizeof(*faults));
    fake.n_faults = n;
    fake.next = 0;
    fake.forever = forever;
    fake.seen = 0;
    fake.n_statuses = 0;
    buf_done(&fake.heads);
}

static void always(enum fault fault)
{
    tell_fake(&fault, 1, /* forever= */ true);
}

static unsigned seen(void)
{
    auto_lock held = lock_take(&fake.mutex);
    return fake.seen;
}

#define assert_done(call, result)                                 \
    do {                                                          \
        if ((result) != 0)                                        \
            fail_msg("%s: %s", (call)->err.say, (call)->err.why); \
    } while (0)
#define assert_fails(call, result, wanted)                                           \
    do {                                                                             \
        assert_int_equal((result), -1);                                              \
        if ((call)->err.kind != (wanted))                                            \
            fail_msg("%s: %s: %s", err_kind_name((call)->err.kind), (call)->err.say, \
                     (call)->err.why);                                               \
    } while (0)

static bool was_sent(const char *line)
{
    auto_lock held = lock_take(&fake.mutex);
    return fake.heads.p != NULL && memmem(fake.heads.p, fake.heads.n, line, strlen(line)) != NULL;
}

static unsigned count_sent(const char *line)
{
    auto_lock held = lock_take(&fake.mutex);
    unsigned n = 0;
    struct str rest = buf_str(&fake.heads);
    for (const char *at; rest.n > 0 && (at = memmem(rest.p, rest.n, line, strlen(line))) != NULL;
         rest = str_from_at(rest, (size_t)(at - rest.p) + 1))
        n++;
    return n;
}

/* ---- Retries ---- */

static void what_passes_is_asked_again(void **state)
{
    (void)state;
    static const struct {
        enum fault fault;
        unsigned status;
        unsigned attempts;
    } passing[] = {{STATUS_500, 500, 3}, {STATUS_503, 503, 3}, {STATUS_429, 429, 3},
                   {STATUS_502, 502, 3}, {TIMED_OUT, 400, 3},  {DAMAGED, 400, 3},
                   {CUT, 0, 2} /* the first was on a kept connection, and taken up again */};
    auto_call call;
    call_init(&call);
    for (size_t i = 0; i < ARRAY_SIZE(passing); i++) {
        next_requests(passing[i].fault, passing[i].fault);
        assert_done(&call, s3_put(&call, store, "k", STR("content"), NULL));
        assert_int_equal(seen(), 3);
        assert_int_equal(fake.n_statuses, passing[i].attempts);
        assert_int_equal(fake.statuses[0], passing[i].status);
        assert_int_equal(fake.statuses[passing[i].attempts - 1], 200);
    }
}

static void retries_end(void **state)
{
    (void)state;
    static const enum fault faults[] = {STATUS_503, CUT};
    auto_call call;
    call_init(&call);
    for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
        always(faults[i]);
        struct mono_us began = clock_mono();
        assert_fails(&call, s3_put(&call, store, "k", STR("content"), NULL), ERR_BUSY);
        assert_true(clock_since_us(began) > 700 * MS && clock_since_us(began) < 3500 * MS);
        assert_true(seen() >= 4 && seen() < 20);
        assert_non_null(strstr(call.err.why, "PutObject \"p/k\" in bucket \"bucket\""));
        assert_null(strstr(call.err.say, "bucket"));
    }
    assert_non_null(strstr(call.err.why, test_server_url(fake.server)));
    always(STATUS_503);
    assert_fails(&call, s3_put(&call, store, "k", STR("content"), NULL), ERR_BUSY);
    assert_non_null(strstr(call.err.why, "503 SlowDown, the store's words, request R1"));
}

static void silence_is_cut_short(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    struct s3_options options = options_of(6 * CLOCK_SECOND_US);
    struct s3 *patient = make(&options);
    struct str id;
    options.patience_us = CLOCK_SECOND_US;
    struct s3 *hasty = make(&options);
    next_requests(SILENT, FINE);
    struct mono_us began = clock_mono();
    assert_done(&call, s3_multipart_begin(&call, patient, "k", &id));
    assert_int_equal(seen(), 2);
    always(SILENT);
    began = clock_mono();
    assert_fails(&call, s3_multipart_begin(&call, hasty, "k", &id), ERR_BUSY);
    assert_true(clock_since_us(began) < 3 * CLOCK_SECOND_US);
    s3_free(patient);
    s3_free(hasty);
}

static void *give_up_in_a_second(void *context)
{
    test_sleep_us(CLOCK_SECOND_US);
    s3_give_up(context, clock_mono());
    return NULL;
}

/* While it waits for an answer, or for its next attempt; and whoever comes later. */
static void who_is_given_up_ends_soon(void **state)
{
    (void)state;
    static const enum fault faults[] = {SILENT, STATUS_503};
    auto_call call;
    call_init(&call);
    const struct s3_options options = options_of(30 * CLOCK_SECOND_US);
    struct str id;
    for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
        struct s3 *patient = make(&options);
        pthread_t thread;
        always(faults[i]);
        struct mono_us began = clock_mono();
        assert_int_equal(pthread_create(&thread, NULL, give_up_in_a_second, patient), 0);
        assert_fails(&call, s3_multipart_begin(&call, patient, "k", &id), ERR_BUSY);
        assert_in_range(clock_since_us(began), 990 * MS, 2300 * MS);
        assert_int_equal(pthread_join(thread, NULL), 0);
        unsigned before = seen();
        began = clock_mono();
        assert_fails(&call, s3_multipart_begin(&call, patient, "k", &id), ERR_BUSY);
        assert_true(clock_since_us(began) < 500 * MS);
        assert_int_equal(seen(), before);
        s3_give_up(patient, (struct mono_us){INT64_MAX});
        next_requests(FINE);
        assert_done(&call, s3_multipart_begin(&call, patient, "k", &id));
        s3_free(patient);
    }
}

static void what_stays_is_not_asked_again(void **state)
{
    (void)state;
    static const struct {
        enum fault fault;
        enum err_kind kind;
        const char *why;
    } staying[] = {
        {FORBIDDEN, ERR_DENIED, "403 AccessDenied"},
        {BAD_REQUEST, ERR_IO, "400 MalformedXML"},
        {ELSEWHERE, ERR_IO, "the bucket is in region \"eu-west-1\""},
        {STORAGE_FULL, ERR_FULL, "XMinioStorageFull"},
        {GONE, ERR_NOT_FOUND, "NoSuchUpload"},
    };
    auto_call call;
    call_init(&call);
    for (size_t i = 0; i < ARRAY_SIZE(staying); i++) {
        always(staying[i].fault);
        assert_fails(&call, s3_put(&call, store, "k", STR("content"), NULL), staying[i].kind);
        assert_non_null(strstr(call.err.why, staying[i].why));
        assert_null(strstr(call.err.why, "secret-of-it"));
        assert_int_equal(seen(), 1);
    }
    always(DAMAGED); /* a few times only: a whole part is sent each time */
    assert_fails(&call, s3_put(&call, store, "k", STR("content"), NULL), ERR_IO);
    assert_int_equal(seen(), 3);
}

static void nobody_listens(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    struct test_server *other = test_server_start(answer, NULL, NULL, NULL);
    struct s3_options options = options_of(CLOCK_SECOND_US);
    options.endpoint = str_printf(&call.arena, "%s", test_server_url(other)).p;
    test_server_stop(other);
    struct s3 *lost = make(&options);
    struct mono_us began = clock_mono();
    uint64_t size;
    assert_fails(&call, s3_head(&call, lost, "k", &size), ERR_BUSY);
    assert_true(clock_since_us(began) < 2 * CLOCK_SECOND_US);
    assert_non_null(strstr(call.err.why, "connect"));
    s3_free(lost);
}

/* ---- What is sent ---- */

static void requests_are_whole(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    struct s3_options options = options_of(CLOCK_SECOND_US);
    options.encryption = "aws:kms";
    options.encryption_key = "arn:aws:kms:eu-west-1:1:key/a-b";
    struct s3 *encrypting = make(&options);
    struct s3_etag tag;
    struct str id = {NULL, 0};
    next_requests(FINE);
    assert_done(&call, s3_put(&call, encrypting, "a b", STR("Welcome to Amazon S3."), NULL));
    assert_true(was_sent("PUT /bucket/p/a%20b HTTP/1.1\r\n"));
    assert_true(was_sent("x-amz-server-side-encryption: aws:kms\r\n"));
    assert_true(was_sent("x-amz-server-side-encryption-aws-kms-key-id: "
                         "arn:aws:kms:eu-west-1:1:key/a-b\r\n"));
    assert_true(
        was_sent("SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date;"
                 "x-amz-server-side-encryption;x-amz-server-side-encryption-aws-kms-key-id,"));
    assert_true(was_sent("x-amz-content-sha256: "
                         "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072\r\n"));
    next_requests(FINE);
    assert_done(&call, s3_multipart_begin(&call, encrypting, "k", &id));
    assert_true(was_sent("POST /bucket/p/k?uploads= HTTP/1.1\r\n"));
    assert_true(was_sent("x-amz-server-side-encryption: aws:kms\r\n"));
    next_requests(FINE);
    assert_done(&call, s3_multipart_put(&call, encrypting, "k", STR("i/d"), 7, STR("x"), &tag));
    assert_string_equal(tag.text, "abc-1");
    assert_true(was_sent("PUT /bucket/p/k?partNumber=7&uploadId=i%2Fd HTTP/1.1\r\n"));
    assert_false(was_sent("x-amz-server-side-encryption")); /* of no part: S3 API reference */
    s3_free(encrypting);

    options = options_of(CLOCK_SECOND_US);
    options.addressing = S3_ADDRESSING_HOST;
    options.endpoint =
        str_printf(&call.arena, "http://localhost:%u", test_server_port(fake.server)).p;
    struct s3 *by_host = make(&options);
    next_requests(FINE);
    assert_done(&call, s3_put(&call, by_host, "k", STR("x"), NULL));
    assert_true(was_sent("PUT /p/k HTTP/1.1\r\n"));
    assert_true(was_sent(
        str_printf(&call.arena, "Host: bucket.localhost:%u\r\n", test_server_port(fake.server)).p));
    s3_free(by_host);
}

/* The example of the S3 API reference, "Transferring Payload in a Single Chunk". */
#define WELCOME_HASH "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"
static const uint8_t welcome_hash[] = {
    0x44, 0xce, 0x7d, 0xd6, 0x7c, 0x95, 0x9e, 0x0d, 0x35, 0x24, 0xff, 0xac, 0x17, 0x71, 0xdf, 0xbb,
    0xa8, 0x7d, 0x2b, 0x6b, 0x4b, 0x4e, 0x99, 0xe4, 0x20, 0x34, 0xa8, 0xb8, 0x03, 0xf8, 0xb0, 0x72};

static void a_known_hash_is_sent_as_it_is(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    next_requests(FINE, FINE);
    assert_done(&call, s3_put(&call, store, "k", STR("something else"), welcome_hash));
    assert_true(was_sent("x-amz-content-sha256: " WELCOME_HASH "\r\n"));
    assert_done(&call, s3_put(&call, store, "k", STR("Welcome to Amazon S3."), NULL));
    assert_int_equal(count_sent("x-amz-content-sha256: " WELCOME_HASH "\r\n"), 2);
}

static void make_certificate(const char *key, const char *certificate)
{
    const char *const argv[] = {"openssl",
                                "req",
                                "-x509",
                                "-newkey",
                                "ec",
                                "-pkeyopt",
                                "ec_paramgen_curve:P-256",
                                "-nodes",
                                "-keyout",
                                key,
                                "-out",
                                certificate,
                                "-days",
                                "2",
                                "-subj",
                                "/CN=x",
                                "-addext",
                                "subjectAltName=IP:127.0.0.1",
                                NULL};
    assert_int_equal(test_run(argv), 0);
}

/* Over TLS content is not hashed where its hash is not known; what tells the store what to do is,
 * always. */
static void content_over_https_is_not_hashed_again(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    const char *key = str_printf(&call.arena, "%s/key.pem", test_folder()).p;
    const char *certificate = str_printf(&call.arena, "%s/certificate.pem", test_folder()).p;
    make_certificate(key, certificate);
    struct test_server *server = test_server_start(answer, NULL, certificate, key);
    struct s3_options options = options_of(5 * CLOCK_SECOND_US);
    options.endpoint = str_printf(&call.arena, "https://127.0.0.1:%u", test_server_port(server)).p;
    options.ca_file = certificate;
    struct s3 *secure = make(&options);
    struct s3_etag tag = {"x"};
    struct s3 *clients[] = {secure, store};
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
        const bool over_tls = i == 0;
        const char *const wanted = over_tls ? "x-amz-content-sha256: UNSIGNED-PAYLOAD\r\n"
                                            : "x-amz-content-sha256: " WELCOME_HASH "\r\n";
        struct str content = STR("Welcome to Amazon S3.");
        next_requests(FINE);
        assert_done(&call, s3_multipart_put(&call, clients[i], "k", STR("id"), 1, content, &tag));
        assert_true(was_sent(wanted));
        assert_true(was_sent("SignedHeaders=host;x-amz-content-sha256;x-amz-date,"));
        next_requests(FINE);
        assert_done(&call, s3_put(&call, clients[i], "k", content, NULL));
        assert_true(was_sent(wanted));
        next_requests(FINE);
        assert_done(&call, s3_put(&call, clients[i], "k", content, welcome_hash));
        assert_true(was_sent("x-amz-content-sha256: " WELCOME_HASH "\r\n"));
        next_requests(FINE, FINE, FINE);
        const char *const keys[] = {"k"};
        uint64_t size;
        assert_done(&call, s3_multipart_complete(&call, clients[i], "k", STR("id"), &tag, 1));
        assert_done(&call, s3_delete(&call, clients[i], keys, 1));
        assert_done(&call, s3_head(&call, clients[i], "k", &size));
        assert_int_equal(seen(), 3);
        assert_false(was_sent("UNSIGNED-PAYLOAD"));
    }
    s3_free(secure);
    test_server_stop(server);
}

static void a_wrong_clock_is_corrected(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    const struct s3_options options = options_of(CLOCK_SECOND_US);
    struct s3 *skewed = make(&options);
    fake.ahead_us = 7200 * CLOCK_SECOND_US;
    next_requests(SKEWED);
    assert_done(&call, s3_put(&call, skewed, "k", STR("x"), NULL));
    assert_int_equal(seen(), 2);
    int64_t off = s3_now(skewed).us - clock_wall().us - fake.ahead_us;
    assert_true(off < 3 * CLOCK_SECOND_US && off > -3 * CLOCK_SECOND_US);
    char stamp[S3_STAMP_BYTES];
    s3_stamp(s3_now(skewed), stamp); /* to the hour */
    const char *line = str_printf(&call.arena, "x-amz-date: %.11s", stamp).p;
    next_requests(FINE);
    assert_done(&call, s3_put(&call, skewed, "k", STR("x"), NULL)); /* at once right */
    assert_int_equal(seen(), 1);
    assert_true(was_sent(line));
    always(SKEWED); /* once, and not for ever */
    assert_fails(&call, s3_put(&call, skewed, "k", STR("x"), NULL), ERR_DENIED);
    assert_int_equal(seen(), 2);
    s3_free(skewed);
}

/* ---- Reading ---- */

struct taken {
    uint64_t bytes;
    uint64_t from;
    uint64_t most;
};

static int take(void *context, struct str piece, struct err *err)
{
    struct taken *taken = context;
    for (size_t i = 0; i < piece.n; i++)
        if (piece.p[i] != byte_at(taken->from + taken->bytes + i))
            return err_set(err, ERR_INTERNAL, "wrong byte");
    taken->bytes += piece.n;
    return taken->bytes > taken->most ? err_set(err, ERR_BUSY, "enough") : 0;
}

static void reading_goes_on_where_it_broke(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    struct taken taken = {.most = UINT64_MAX};
    next_requests(CUT_BODY, CUT_BODY, STATUS_503, CUT_BODY, CUT, FINE);
    assert_done(&call, s3_get(&call, store, "k", 0, OBJECT_BYTES, take, &taken));
    assert_int_equal(taken.bytes, OBJECT_BYTES);
    assert_int_equal(seen(), 6);
    assert_true(was_sent("range: bytes=0-3145727\r\n"));
    assert_true(was_sent("range: bytes=1572864-3145727\r\n"));
    assert_true(was_sent("range: bytes=2359296-3145727\r\n"));

    taken = (struct taken){.from = 1000, .most = UINT64_MAX};
    next_requests(FINE);
    assert_done(&call, s3_get(&call, store, "k", 1000, 5000, take, &taken));
    assert_int_equal(taken.bytes, 5000);
    taken = (struct taken){.most = UINT64_MAX};
    next_requests(WHOLE); /* a store that does not know ranges, and all was asked for */
    assert_done(&call, s3_get(&call, store, "k", 0, OBJECT_BYTES, take, &taken));

    always(CUT_BODY); /* each attempt gives something: it ends, because bytes do */
    taken = (struct taken){.most = UINT64_MAX};
    assert_fails(&call, s3_get(&call, store, "k", 0, 1024, take, &taken), ERR_BUSY);
    assert_true(taken.bytes < 1024);
}

static void wrong_bytes_are_not_taken(void **state)
{
    (void)state;
    static const struct {
        enum fault fault;
        enum err_kind kind;
    } wrong[] = {{OTHER_RANGE, ERR_IO}, {SHORT_RANGE, ERR_CORRUPT}, {WHOLE, ERR_IO}};
    auto_call call;
    call_init(&call);
    struct taken taken = {.most = UINT64_MAX};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        next_requests(wrong[i].fault);
        assert_fails(&call, s3_get(&call, store, "k", 10, 100, take, &taken), wrong[i].kind);
        assert_int_equal(taken.bytes, 0);
        assert_int_equal(seen(), 1);
    }
    next_requests(FINE);
    taken.most = 100000; /* what `take` says is final, BUSY too */
    assert_fails(&call, s3_get(&call, store, "k", 0, OBJECT_BYTES, take, &taken), ERR_BUSY);
    assert_string_equal(call.err.say, "enough");
    assert_int_equal(seen(), 1);
}

static void on_ready(void *context)
{
    require(sem_post(context) == 0);
}

static ssize_t read_stream(struct s3 *s3, uint64_t offset, uint64_t n, uint64_t *ret_bytes)
{
    struct stream *stream = NULL;
    struct err err;
    sem_t told;
    char block[5000];
    require(sem_init(&told, 0, 0) == 0);
    require(s3_stream(s3, "k", offset, n, "0123456789abcdef", &stream, &err) == 0);
    stream_watch(stream, on_ready, &told);
    ssize_t got;
    *ret_bytes = 0;
    while ((got = stream_read(stream, block, sizeof(block))) >= 0) {
        if (got == STREAM_LATER)
            require(sem_wait(&told) == 0);
        for (ssize_t i = 0; i < got; i++)
            require(block[i] == byte_at(offset + *ret_bytes + (uint64_t)i));
        *ret_bytes += (uint64_t)got;
    }
    stream_close(stream);
    require(sem_destroy(&told) == 0);
    return got;
}

static void streams_go_on_where_they_broke(void **state)
{
    (void)state;
    uint64_t got = 0;
    next_requests(STATUS_503, CUT_BODY, CUT, STATUS_500, CUT_BODY, FINE);
    assert_int_equal(read_stream(store, 5, OBJECT_BYTES - 5, &got), STREAM_END);
    assert_int_equal(got, OBJECT_BYTES - 5);
    assert_int_equal(seen(), 6);
    assert_int_equal(fake.n_statuses, 6);
    assert_int_equal(fake.statuses[0], 503);
    assert_int_equal(fake.statuses[5], 206);

    always(STATUS_503);
    struct mono_us began = clock_mono();
    assert_int_equal(read_stream(store, 0, 100, &got), STREAM_FAILED);
    assert_true(clock_since_us(began) > CLOCK_SECOND_US / 2 &&
                clock_since_us(began) < 6 * CLOCK_SECOND_US);
    assert_true(seen() >= 4);
    static const enum fault final[] = {FORBIDDEN, GONE, WHOLE, BAD_REQUEST};
    for (size_t i = 0; i < ARRAY_SIZE(final); i++) {
        always(final[i]);
        assert_int_equal(read_stream(store, 0, 100, &got), STREAM_FAILED);
        assert_int_equal(got, 0);
        assert_int_equal(seen(), 1);
    }
}

/* ---- Multipart uploads ---- */

static void completion_is_what_its_body_says(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    const struct s3_etag tag = {"t"};
    next_requests(ERROR_IN_200, FINE);
    assert_done(&call, s3_multipart_complete(&call, store, "k", STR("id"), &tag, 1));
    assert_int_equal(seen(), 2);
    next_requests(CUT_XML, JUNK, FINE);
    assert_done(&call, s3_multipart_complete(&call, store, "k", STR("id"), &tag, 1));
    assert_int_equal(seen(), 3);
    always(JUNK);
    assert_fails(&call, s3_multipart_complete(&call, store, "k", STR("id"), &tag, 1), ERR_IO);
    assert_int_equal(seen(), 3);
    next_requests(CUT, GONE); /* perhaps the first completed it */
    assert_fails(&call, s3_multipart_complete(&call, store, "k", STR("id"), &tag, 1),
                 ERR_NOT_FOUND);
    next_requests(STATUS_500, STATUS_500, STATUS_500,
                  GONE); /* as radosgw does it when it is gone */
    assert_fails(&call, s3_multipart_complete(&call, store, "k", STR("id"), &tag, 1),
                 ERR_NOT_FOUND);
    next_requests(STATUS_500, STATUS_500, STATUS_500, FINE, STATUS_500, FINE);
    assert_done(&call, s3_multipart_complete(&call, store, "k", STR("id"), &tag, 1));
    assert_int_equal(seen(), 6);
    next_requests(JUNK, JUNK, JUNK);
    struct str id = {NULL, 0};
    assert_fails(&call, s3_multipart_begin(&call, store, "k", &id), ERR_IO);
    always(GONE);
    assert_done(&call, s3_multipart_abort(&call, store, "k", STR("id")));
}

/* ---- Deleting and listing ---- */

static void each_key_counts(void **state)
{
    (void)state;
    static const char *const keys[] = {"one", "two"};
    auto_call call;
    call_init(&call);
    next_requests(KEYS_BUSY, FINE);
    assert_done(&call, s3_delete(&call, store, keys, 2));
    assert_int_equal(seen(), 2);
    assert_true(was_sent("content-md5: "));
    next_requests(KEYS_ABSENT);
    assert_done(&call, s3_delete(&call, store, keys, 2));
    always(KEYS_DENIED);
    assert_fails(&call, s3_delete(&call, store, keys, 2), ERR_DENIED);
    assert_int_equal(seen(), 1);
    assert_non_null(strstr(call.err.why, "the first is \"p/one\": AccessDenied"));
    always(JUNK);
    assert_fails(&call, s3_delete(&call, store, keys, 2), ERR_IO);
    static const char *const odd[] = {"a\001b"};
    assert_fails(&call, s3_delete(&call, store, odd, 1), ERR_INVALID);
}

static int see(void *context, const struct s3_object *object, struct err *err)
{
    (void)err;
    require(str_eq(object->key, STR("a")) && object->size == 1);
    ++*(unsigned *)context;
    return 0;
}

static void lists_are_checked(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    unsigned n = 0;
    next_requests(STATUS_503, JUNK, FINE);
    assert_done(&call, s3_list(&call, store, "", see, &n));
    assert_int_equal(n, 1);
    assert_true(was_sent("GET /bucket?encoding-type=url&list-type=2&max-keys=1000&prefix=p%2F "));
    static const enum fault wrong[] = {ENDLESS_LIST, NO_TOKEN_LIST, FOREIGN_LIST, JUNK};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        always(wrong[i]);
        assert_fails(&call, s3_list(&call, store, "", see, &n), ERR_IO);
        assert_true(seen() <= 3);
    }
    assert_int_equal(n, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_passes_is_asked_again),
        TEST(retries_end),
        TEST(silence_is_cut_short),
        TEST(who_is_given_up_ends_soon),
        TEST(what_stays_is_not_asked_again),
        TEST(nobody_listens),
        TEST(requests_are_whole),
        TEST(a_known_hash_is_sent_as_it_is),
        TEST(content_over_https_is_not_hashed_again),
        TEST(a_wrong_clock_is_corrected),
        TEST(reading_goes_on_where_it_broke),
        TEST(wrong_bytes_are_not_taken),
        TEST(streams_go_on_where_they_broke),
        TEST(completion_is_what_its_body_says),
        TEST(each_key_counts),
        TEST(lists_are_checked),
    };
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
