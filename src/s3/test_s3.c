/* The operations against a real object store: HOLDFAST_TEST_S3, see tests/services.py. */
#include "s3/s3_int.h"
#include "test_server.h"

#include <semaphore.h>
#include <signal.h>
#include <sys/random.h>

#define MIB ((size_t)1024 * 1024)

static const char *endpoint;
static const char *bucket;

static struct s3_options options_of(void)
{
    return (struct s3_options){
        .bucket = bucket,
        .prefix = "test prefix/",
        .endpoint = endpoint,
        .patience_us = 20 * CLOCK_SECOND_US,
        .connections = 8,
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
    const struct s3_options options = options_of();
    store = make(&options);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    s3_free(store);
    return 0;
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

static struct str random_bytes(struct arena *arena, size_t n)
{
    char *p = arena_alloc(arena, n);
    for (size_t at = 0; at < n;) {
        ssize_t got = getrandom(p + at, n - at, 0);
        require(got > 0);
        at += (size_t)got;
    }
    return (struct str){p, n};
}

static int add_piece(void *context, struct str piece, struct err *err)
{
    (void)err;
    buf_add_str(context, piece);
    return 0;
}

static int delete_one(struct call *call, const char *key)
{
    return s3_delete(call, store, &key, 1);
}

static void expect_content(struct call *call, const char *key, uint64_t offset, struct str content)
{
    auto_buf got = BUF_INIT(64 * MIB);
    assert_done(call, s3_get(call, store, key, offset, content.n, add_piece, &got));
    assert_true(str_eq(buf_str(&got), content));
}

/* ---- Objects ---- */

static void objects_come_back_as_they_went(void **state)
{
    (void)state;
    static const char *const keys[] = {
        "plain", "a/b/c",     "with space", "p+l~u's&%25$=@:;,!*()", "\xC3\xA9\xE2\x82\xAC",
        "a//b",  "dots/../x", "<tag>&amp;"};
    auto_call call;
    call_init(&call);
    struct str content = random_bytes(&call.arena, 100000);
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        uint64_t size = 0;
        assert_done(&call, s3_put(&call, store, keys[i], content, NULL));
        assert_done(&call, s3_head(&call, store, keys[i], &size));
        assert_int_equal(size, content.n);
        expect_content(&call, keys[i], 0, content);
        expect_content(&call, keys[i], 99999, str_from_at(content, 99999));
        expect_content(&call, keys[i], 12345, str_first(str_from_at(content, 12345), 1));
    }
    assert_done(&call, s3_delete(&call, store, keys, ARRAY_SIZE(keys)));
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        uint64_t size;
        assert_fails(&call, s3_head(&call, store, keys[i], &size), ERR_NOT_FOUND);
    }
    assert_done(&call, s3_delete(&call, store, keys, ARRAY_SIZE(keys))); /* again */
}

static void empty_objects(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    uint64_t size = 1;
    assert_done(&call, s3_put(&call, store, "empty", (struct str){NULL, 0}, NULL));
    assert_done(&call, s3_head(&call, store, "empty", &size));
    assert_int_equal(size, 0);
    expect_content(&call, "empty", 0, (struct str){"", 0});
    assert_done(&call, delete_one(&call, "empty"));
}

static void what_is_not_there(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    auto_buf got = BUF_INIT(MIB);
    uint64_t size;
    assert_fails(&call, s3_head(&call, store, "absent", &size), ERR_NOT_FOUND);
    assert_fails(&call, s3_get(&call, store, "absent", 0, 10, add_piece, &got), ERR_NOT_FOUND);
    assert_done(&call, s3_put(&call, store, "short", STR("0123456789"), NULL));
    assert_fails(&call, s3_get(&call, store, "short", 0, 11, add_piece, &got), ERR_CORRUPT);
    assert_fails(&call, s3_get(&call, store, "short", 5, 6, add_piece, &got), ERR_CORRUPT);
    assert_fails(&call, s3_get(&call, store, "short", 10, 1, add_piece, &got), ERR_CORRUPT);
    assert_int_equal(got.n, 0);
    assert_done(&call, delete_one(&call, "short"));
}

static void refused_requests_say_why(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    struct s3_options options = options_of();
    options.access_key = getenv("AWS_ACCESS_KEY_ID");
    options.secret_key = "not-the-secret";
    struct s3 *other = make(&options);
    uint64_t size;
    assert_fails(&call, s3_put(&call, other, "x", STR("x"), NULL), ERR_DENIED);
    assert_non_null(strstr(call.err.why, "SignatureDoesNotMatch"));
    assert_null(strstr(call.err.why, "not-the-secret"));
    assert_fails(&call, s3_head(&call, other, "x", &size), ERR_DENIED);
    s3_free(other);

    options = options_of();
    options.bucket = "no-such-bucket";
    other = make(&options);
    assert_fails(&call, s3_put(&call, other, "x", STR("x"), NULL), ERR_IO);
    assert_non_null(strstr(call.err.why, "NoSuchBucket"));
    assert_non_null(strstr(call.err.why, "\"no-such-bucket\""));
    s3_free(other);
}

static void the_store_compares_with_a_known_hash(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    struct str content = random_bytes(&call.arena, 100000);
    uint8_t digest[HASH_BYTES_MAX];
    struct hash hash;
    hash_init(&hash, HASH_SHA256);
    hash_update(&hash, content.p, content.n);
    hash_final(&hash, digest);
    assert_done(&call, s3_put(&call, store, "hashed", content, digest));
    expect_content(&call, "hashed", 0, content);
    assert_done(&call, delete_one(&call, "hashed"));
    digest[31] ^= 1;
    uint64_t size;
    assert_fails(&call, s3_put(&call, store, "hashed", content, digest), ERR_IO);
    assert_non_null(strstr(call.err.why, "XAmzContentSHA256Mismatch"));
    assert_fails(&call, s3_head(&call, store, "hashed", &size), ERR_NOT_FOUND);
}

static void over_https_the_same(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    struct s3_options options = options_of();
    options.endpoint = getenv("HOLDFAST_TEST_S3_TLS");
    options.ca_file = getenv("HOLDFAST_TEST_S3_CA");
    if (options.endpoint == NULL)
        skip();
    struct s3 *secure = make(&options);
    struct str content = random_bytes(&call.arena, 5 * MIB + 678);
    struct str id = {NULL, 0};
    struct s3_etag tags[2];
    assert_done(&call, s3_multipart_begin(&call, secure, "secure", &id));
    for (unsigned i = 0; i < 2; i++)
        assert_done(&call, s3_multipart_put(&call, secure, "secure", id, i + 1,
                                            str_first(str_from_at(content, i * 5 * MIB), 5 * MIB),
                                            &tags[i]));
    assert_done(&call, s3_multipart_complete(&call, secure, "secure", id, tags, 2));
    expect_content(&call, "secure", 0, content);
    assert_done(&call, s3_put(&call, secure, "secure", str_first(content, 1000), NULL));
    expect_content(&call, "secure", 0, str_first(content, 1000));
    const char *const keys[] = {"secure"};
    assert_done(&call, s3_delete(&call, secure, keys, 1));
    s3_free(secure);
}

/* ---- Multipart uploads ---- */

static void parts_become_one_object(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    struct str content = random_bytes(&call.arena, 12 * MIB + 345);
    struct str id = {NULL, 0};
    struct s3_etag tags[3];
    assert_done(&call, s3_multipart_begin(&call, store, "large", &id));
    for (unsigned i = 0; i < 3; i++)
        assert_done(&call, s3_multipart_put(&call, store, "large", id, i + 1,
                                            str_first(str_from_at(content, i * 5 * MIB), 5 * MIB),
                                            &tags[i]));
    /* a part that is written again replaces the one before */
    assert_done(&call, s3_multipart_put(&call, store, "large", id, 3,
                                        str_from_at(content, 10 * MIB), &tags[2]));
    assert_done(&call, s3_multipart_complete(&call, store, "large", id, tags, 3));
    expect_content(&call, "large", 0, content);
    /* once more: radosgw repeats its answer, others know the upload no longer */
    if (s3_multipart_complete(&call, store, "large", id, tags, 3) < 0)
        assert_int_equal(call.err.kind, ERR_NOT_FOUND);
    expect_content(&call, "large", 0, content);
    assert_done(&call, delete_one(&call, "large"));
}

static void uploads_that_are_gone(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    struct str id = {NULL, 0};
    struct s3_etag tag;
    assert_done(&call, s3_multipart_begin(&call, store, "gone", &id));
    assert_done(&call, s3_multipart_put(&call, store, "gone", id, 1, STR("1"), &tag));
    assert_done(&call, s3_multipart_abort(&call, store, "gone", id));
    assert_done(&call, s3_multipart_abort(&call, store, "gone", id));
    assert_fails(&call, s3_multipart_put(&call, store, "gone", id, 1, STR("1"), &tag),
                 ERR_NOT_FOUND);
    assert_fails(&call, s3_multipart_complete(&call, store, "gone", id, &tag, 1), ERR_NOT_FOUND);
    /* an object is there, and is not what the upload would have become */
    assert_done(&call, s3_put(&call, store, "gone", STR("22"), NULL));
    assert_fails(&call, s3_multipart_complete(&call, store, "gone", id, &tag, 1), ERR_NOT_FOUND);
    assert_done(&call, delete_one(&call, "gone"));

    assert_done(&call, s3_multipart_begin(&call, store, "wrong", &id));
    assert_done(&call, s3_multipart_put(&call, store, "wrong", id, 1, STR("1"), &tag));
    struct s3_etag other = {"00000000000000000000000000000000"};
    assert_fails(&call, s3_multipart_complete(&call, store, "wrong", id, &other, 1), ERR_CONFLICT);
    assert_done(&call, s3_multipart_abort(&call, store, "wrong", id));
    assert_fails(&call, s3_multipart_put(&call, store, "wrong", id, 0, STR("1"), &tag),
                 ERR_TOO_LARGE);
    assert_fails(&call, s3_multipart_put(&call, store, "wrong", STR(""), 1, STR("1"), &tag),
                 ERR_INVALID);
}

/* ---- Lists ---- */

#define MANY 1205

static void key_of(size_t i, char key[40])
{
    (void)snprintf(key, 40, "many/%05zu", i);
}

struct filler {
    size_t from;
    size_t to;
};

static void *fill(void *context)
{
    const struct filler *filler = context;
    auto_call call;
    call_init(&call);
    for (size_t i = filler->from; i < filler->to; i++) {
        char key[40];
        key_of(i, key);
        require(s3_put(&call, store, key, str_first(STR("0123456789"), i % 10), NULL) == 0);
    }
    return NULL;
}

static int see_object(void *context, const struct s3_object *object, struct err *err)
{
    size_t *seen = context;
    char key[40];
    key_of(*seen, key);
    if (!str_eq(object->key, str_from(key)) || object->size != *seen % 10)
        return err_set(err, ERR_INTERNAL, "\"" STR_FMT "\"", STR_ARG(object->key));
    int64_t age = clock_wall().us - object->modified.us;
    if (age < -5 * CLOCK_SECOND_US || age > 300 * CLOCK_SECOND_US)
        return err_set(err, ERR_INTERNAL, "wrong time");
    ++*seen;
    return 0;
}

static int see_three(void *context, const struct s3_object *object, struct err *err)
{
    (void)object;
    return ++*(size_t *)context == 3 ? err_set(err, ERR_PRECONDITION, "enough") : 0;
}

static void lists_have_every_page(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    struct filler fillers[4];
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) {
        fillers[i] = (struct filler){i * MANY / 4, (i + 1) * MANY / 4};
        assert_int_equal(pthread_create(&threads[i], NULL, fill, &fillers[i]), 0);
    }
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);

    size_t seen = 0;
    assert_done(&call, s3_list(&call, store, "many/", see_object, &seen));
    assert_int_equal(seen, MANY);
    seen = 0;
    assert_fails(&call, s3_list(&call, store, "many/", see_three, &seen), ERR_PRECONDITION);
    assert_int_equal(seen, 3);
    seen = 0;
    assert_done(&call, s3_list(&call, store, "many-absent/", see_object, &seen));
    assert_int_equal(seen, 0);

    static char keys[MANY][40];
    const char *names[MANY];
    for (size_t i = 0; i < MANY; i++) {
        key_of(i, keys[i]);
        names[i] = keys[i];
    }
    assert_done(&call, s3_delete(&call, store, names, 1000));
    assert_done(&call, s3_delete(&call, store, names + 1000, MANY - 1000));
    assert_done(&call, s3_list(&call, store, "many/", see_object, &seen));
    assert_int_equal(seen, 0);
}

#define UPLOADS 5

struct uploads {
    struct str ids[UPLOADS];
    unsigned found;
};

static int see_upload(void *context, struct str key, struct str id, struct wall_us begun,
                      struct err *err)
{
    struct uploads *uploads = context;
    if (!str_starts(key, STR("up/")) || clock_wall().us - begun.us > 300 * CLOCK_SECOND_US)
        return err_set(err, ERR_INTERNAL, "\"" STR_FMT "\"", STR_ARG(key));
    for (unsigned i = 0; i < UPLOADS; i++)
        if (str_eq(uploads->ids[i], id))
            uploads->found |= 1U << i;
    return 0;
}

static void uploads_are_listed(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    struct uploads uploads = {0};
    char key[UPLOADS][20];
    for (unsigned i = 0; i < UPLOADS; i++) {
        (void)snprintf(key[i], sizeof(key[i]), "up/%u +", i / 2); /* some of one key */
        assert_done(&call, s3_multipart_begin(&call, store, key[i], &uploads.ids[i]));
    }
    assert_done(&call, s3_multipart_list(&call, store, "up/", see_upload, &uploads));
    assert_int_equal(uploads.found, (1U << UPLOADS) - 1);
    for (unsigned i = 0; i < UPLOADS; i++)
        assert_done(&call, s3_multipart_abort(&call, store, key[i], uploads.ids[i]));
    uploads.found = 0;
    assert_done(&call, s3_multipart_list(&call, store, "up/", see_upload, &uploads));
    assert_int_equal(uploads.found, 0);
}

/* ---- Streams ---- */

static void on_ready(void *context)
{
    require(sem_post(context) == 0);
}

static void streams_give_ranges(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    struct str content = random_bytes(&call.arena, 3 * MIB + 17);
    assert_done(&call, s3_put(&call, store, "streamed", content, NULL));
    static const uint64_t ranges[][2] = {
        {0, 3 * MIB + 17}, {1, 3 * MIB + 16}, {5000, 1}, {7, 0}, {MIB, MIB}};
    auto_mem char *got = mem_alloc(4 * MIB);
    for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
        struct stream *stream = NULL;
        sem_t told;
        require(sem_init(&told, 0, 0) == 0);
        assert_done(&call, s3_stream(store, "streamed", ranges[i][0], ranges[i][1], call.id,
                                     &stream, &call.err));
        stream_watch(stream, on_ready, &told);
        size_t n = 0;
        ssize_t read = 0;
        while ((read = stream_read(stream, got + n, 4 * MIB - n)) >= 0) {
            if (read == STREAM_LATER)
                require(sem_wait(&told) == 0);
            n += (size_t)read;
        }
        assert_int_equal(read, STREAM_END);
        assert_int_equal(n, ranges[i][1]);
        assert_memory_equal(got, content.p + ranges[i][0], n);
        stream_close(stream);
        require(sem_destroy(&told) == 0);
    }
    struct stream *stream = NULL;
    assert_done(&call, s3_stream(store, "absent", 0, 5, call.id, &stream, &call.err));
    ssize_t read;
    while ((read = stream_read(stream, got, 5)) == STREAM_LATER)
        test_sleep_us(2000);
    assert_int_equal(read, STREAM_FAILED);
    stream_close(stream);
    assert_done(&call, delete_one(&call, "streamed"));
}

/* ---- URLs for others ---- */

static unsigned status_of(struct call *call, const char *url, struct str *ret_body)
{
    const struct fetch_options options = {
        .user_agent = "test", .connect_us = CLOCK_SECOND_US, .silence_us = 5 * CLOCK_SECOND_US};
    struct fetch *fetch = NULL;
    struct fetch_answer answer = {0};
    const struct fetch_request request = {.method = "GET", .url = url};
    assert_int_equal(fetch_new(&options, &fetch, &call->err), 0);
    assert_done(call, fetch_perform(call, fetch, &request, &answer));
    fetch_free(fetch);
    *ret_body = answer.body;
    return answer.status;
}

static void presigned_urls_need_no_keys(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    struct str url = {NULL, 0};
    struct str body = {NULL, 0};
    assert_done(&call, s3_put(&call, store, "for others+", STR("take it"), NULL));
    assert_done(&call, s3_presign(&call, store, "for others+", 60 * CLOCK_SECOND_US, &url));
    assert_int_equal(status_of(&call, url.p, &body), 200);
    assert_true(str_eq(body, STR("take it")));

    char *changed = str_z(&call.arena, url);
    changed[url.n - 1] = changed[url.n - 1] == '0' ? '1' : '0';
    assert_int_equal(status_of(&call, changed, &body), 403);
    struct str other = {NULL, 0};
    assert_done(&call, s3_presign(&call, store, "for nobody", 60 * CLOCK_SECOND_US, &other));
    struct str query = other;
    (void)str_cut(&query, '?');
    struct str path = url;
    path = str_cut(&path, '?');
    assert_int_equal(
        status_of(&call,
                  str_printf(&call.arena, STR_FMT "?" STR_FMT, STR_ARG(path), STR_ARG(query)).p,
                  &body),
        403);
    assert_done(&call, s3_presign(&call, store, "for others+", CLOCK_SECOND_US, &url));
    test_sleep_us(2500000);
    assert_int_equal(status_of(&call, url.p, &body), 403);
    assert_done(&call, delete_one(&call, "for others+"));
}

/* The store under a name, for which it looks for the bucket in front of it (rgw_dns_name). */
static const char *named_endpoint(struct call *call)
{
    struct str port = str_from(endpoint);
    (void)str_cut(&port, ':');
    (void)str_cut(&port, ':');
    return str_printf(&call->arena, "http://localhost:" STR_FMT, STR_ARG(port)).p;
}

static void the_bucket_in_the_host(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    struct s3_options options = options_of();
    options.endpoint = named_endpoint(&call);
    options.addressing = S3_ADDRESSING_HOST;
    struct s3 *other = make(&options);
    struct str url = {NULL, 0};
    struct str body = {NULL, 0};
    assert_done(&call, s3_put(&call, other, "by host", STR("here"), NULL));
    expect_content(&call, "by host", 0, STR("here")); /* by path */
    assert_done(&call, s3_presign(&call, other, "by host", 60 * CLOCK_SECOND_US, &url));
    assert_true(str_starts(url, str_printf(&call.arena, "http://%s.localhost:", bucket)));
    assert_int_equal(status_of(&call, url.p, &body), 200);
    assert_true(str_eq(body, STR("here")));
    assert_done(&call, delete_one(&call, "by host"));
    s3_free(other);
}

static void urls_under_another_name(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    struct s3_options options = options_of();
    options.public_url = named_endpoint(&call);
    struct s3 *other = make(&options);
    struct str url = {NULL, 0};
    struct str body = {NULL, 0};
    assert_done(&call, s3_put(&call, other, "public", STR("here"), NULL));
    assert_done(&call, s3_presign(&call, other, "public", 60 * CLOCK_SECOND_US, &url));
    assert_true(str_starts(url, str_from(options.public_url)));
    assert_int_equal(status_of(&call, url.p, &body), 200);
    assert_true(str_eq(body, STR("here")));
    assert_done(&call, delete_one(&call, "public"));
    s3_free(other);
}

/* ---- Another client ---- */

static void another_client_sees_the_same(void **state)
{
    (void)state;
    static const char aws[] = "/usr/bin/aws";
    if (access(aws, X_OK) != 0)
        skip();
    auto_call call;
    call_init(&call);
    struct str content = random_bytes(&call.arena, 300000);
    struct str file = str_printf(&call.arena, "%s/file", test_folder());
    struct str object = str_printf(&call.arena, "s3://%s/test prefix/from us + you", bucket);
    const char *const get[] = {aws, "--endpoint-url", endpoint, "s3", "cp", object.p, file.p, NULL};
    const char *const put[] = {aws, "--endpoint-url", endpoint, "s3", "cp", file.p, object.p, NULL};
    assert_done(&call, s3_put(&call, store, "from us + you", content, NULL));
    assert_int_equal(test_run(get), 0);
    FILE *read = fopen(file.p, "re");
    assert_non_null(read);
    char *got = arena_alloc(&call.arena, content.n + 1);
    assert_int_equal(fread(got, 1, content.n + 1, read), content.n);
    assert_int_equal(fclose(read), 0);
    assert_memory_equal(got, content.p, content.n);

    test_write_file(file.p, STR("from them"));
    assert_int_equal(test_run(put), 0);
    expect_content(&call, "from us + you", 0, STR("from them"));
    assert_done(&call, delete_one(&call, "from us + you"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(objects_come_back_as_they_went),
        TEST(empty_objects),
        TEST(what_is_not_there),
        TEST(refused_requests_say_why),
        TEST(the_store_compares_with_a_known_hash),
        TEST(over_https_the_same),
        TEST(parts_become_one_object),
        TEST(uploads_that_are_gone),
        TEST(lists_have_every_page),
        TEST(uploads_are_listed),
        TEST(streams_give_ranges),
        TEST(presigned_urls_need_no_keys),
        TEST(the_bucket_in_the_host),
        TEST(urls_under_another_name),
        TEST(another_client_sees_the_same),
    };
    (void)signal(SIGPIPE, SIG_IGN);
    endpoint = getenv("HOLDFAST_TEST_S3");
    bucket = getenv("HOLDFAST_TEST_S3_BUCKET");
    if (endpoint == NULL || bucket == NULL) {
        (void)printf("skipped: HOLDFAST_TEST_S3 names no object store\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
