/* Signatures, times and XML, against published and foreign results. */
#include "s3/s3_int.h"
#include "test_server.h"

#define assert_text(s, z)                                                  \
    do {                                                                   \
        struct str s_ = (s);                                               \
        if (!str_eq(s_, str_from(z)))                                      \
            fail_msg("\"" STR_FMT "\"\nis not\n\"%s\"", STR_ARG(s_), (z)); \
    } while (0)

/* ---- The examples of the S3 API reference: "Signature Calculations for the Authorization Header:
 * Transferring Payload in a Single Chunk", and "Using Query Parameters" ---- */

static struct s3_keys example_keys = {
    .access = (char[]){"AKIAIOSFODNN7EXAMPLE"},
    .secret = (char[]){"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"},
};
#define EXAMPLE_DATE "20130524T000000Z"
#define EXAMPLE_TIME INT64_C(1369353600)
#define EMPTY_HASH "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static struct s3_signing example(const char *path)
{
    return (struct s3_signing){
        .method = "GET",
        .host = STR("examplebucket.s3.amazonaws.com"),
        .path = str_from(path),
        .payload = STR(EMPTY_HASH),
        .keys = &example_keys,
        .region = "us-east-1",
        .service = "s3",
        .now = {EXAMPLE_TIME * CLOCK_SECOND_US},
    };
}

#define CREDENTIAL                                                            \
    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/" \
    "aws4_request,"

static void example_get_object(void **state)
{
    (void)state;
    auto_arena arena = {0};
    struct s3_signing signing = example("/test.txt");
    const struct s3_pair headers[] = {{"x-amz-date", STR(EXAMPLE_DATE)},
                                      {"range", STR("bytes=0-9")},
                                      {"x-amz-content-sha256", STR(EMPTY_HASH)}};
    signing.headers = headers;
    signing.n_headers = ARRAY_SIZE(headers);
    assert_text(s3_authorization(&arena, &signing),
                CREDENTIAL "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,Signature="
                           "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

static void example_put_object(void **state)
{
    (void)state;
    auto_arena arena = {0};
    char payload[S3_HASH_TEXT_BYTES];
    s3_hash_text(STR("Welcome to Amazon S3."), payload);
    assert_text(str_from(payload),
                "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072");
    auto_buf path = BUF_INIT(100);
    s3_encode(&path, STR("/test$file.text"), /* keep_slashes= */ true);
    struct s3_signing signing = example(path.p);
    const struct s3_pair headers[] = {{"date", STR("Fri, 24 May 2013 00:00:00 GMT")},
                                      {"x-amz-date", STR(EXAMPLE_DATE)},
                                      {"x-amz-storage-class", STR("REDUCED_REDUNDANCY")},
                                      {"x-amz-content-sha256", str_from(payload)}};
    signing.method = "PUT";
    signing.payload = str_from(payload);
    signing.headers = headers;
    signing.n_headers = ARRAY_SIZE(headers);
    assert_text(s3_authorization(&arena, &signing),
                CREDENTIAL "SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;"
                           "x-amz-storage-class,Signature="
                           "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

static void examples_of_queries(void **state)
{
    (void)state;
    auto_arena arena = {0};
    const struct s3_pair headers[] = {{"x-amz-date", STR(EXAMPLE_DATE)},
                                      {"x-amz-content-sha256", STR(EMPTY_HASH)}};
    const struct s3_pair lifecycle[] = {{"lifecycle", STR("")}};
    const struct s3_pair list[] = {{"prefix", STR("J")}, {"max-keys", STR("2")}};
    struct s3_signing signing = example("/");
    signing.headers = headers;
    signing.n_headers = ARRAY_SIZE(headers);
    signing.query = lifecycle;
    signing.n_query = 1;
    assert_text(s3_authorization(&arena, &signing),
                CREDENTIAL "SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature="
                           "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
    signing.query = list;
    signing.n_query = 2;
    assert_text(s3_query(&arena, list, 2), "max-keys=2&prefix=J");
    assert_text(s3_authorization(&arena, &signing),
                CREDENTIAL "SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature="
                           "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

static void example_presigned(void **state)
{
    (void)state;
    auto_arena arena = {0};
    struct s3_signing signing = example("/test.txt");
    signing.payload = STR("UNSIGNED-PAYLOAD");
    assert_text(s3_presigned_query(&arena, &signing, 86400),
                "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524"
                "%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400"
                "&X-Amz-SignedHeaders=host&X-Amz-Signature="
                "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
}

/* ---- What AWS's own Python client signs, with its clock stopped at 2026-11-24T11:22:33Z ---- */

static struct s3_keys temporary_keys = {
    .access = (char[]){"ASIAIOSFODNN7EXAMPLE"},
    .secret = (char[]){"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"},
    .token = (char[]){"IQoJb3JpZ2luX2VjEAAaCXVzLWVhc3QtMSJHMEUCIQ==/+x"},
};

static void temporary_keys_and_odd_paths(void **state)
{
    (void)state;
    auto_arena arena = {0};
    struct wall_us now;
    assert_true(s3_time_parse(STR("2026-11-24T11:22:33Z"), &now));
    auto_buf path = BUF_INIT(200);
    s3_encode(&path, STR("/examplebucket/pre fix/blobs/ab/\xC3\xA9+~'.bin"), true);
    assert_text(buf_str(&path), "/examplebucket/pre%20fix/blobs/ab/%C3%A9%2B~%27.bin");
    struct s3_signing signing = {
        .method = "GET",
        .host = STR("s3.example.org:8443"),
        .path = buf_str(&path),
        .payload = STR("UNSIGNED-PAYLOAD"),
        .keys = &temporary_keys,
        .region = "eu-west-1",
        .service = "s3",
        .now = now,
    };
    struct str query = s3_presigned_query(&arena, &signing, 1200);
    assert_true(str_ends(
        query, STR("&X-Amz-Security-Token=IQoJb3JpZ2luX2VjEAAaCXVzLWVhc3QtMSJHMEUCIQ%3D%3D%2F%2Bx"
                   "&X-Amz-SignedHeaders=host&X-Amz-Signature="
                   "2616a8ecd9730e56ddfb1216a7a406f938832036fa3e41024fefcadf202822bb")));

    const struct s3_pair upload[] = {{"uploadId", STR("2~ab/cd+=")}, {"partNumber", STR("7")}};
    char payload[S3_HASH_TEXT_BYTES];
    s3_hash_text(STR("hello"), payload);
    const struct s3_pair headers[] = {
        {"content-md5", STR("XUFAKrxLKna5cZ2REBfFkg==")},
        {"x-amz-server-side-encryption", STR("aws:kms")},
        {"x-amz-content-sha256", str_from(payload)},
        {"x-amz-date", STR("20261124T112233Z")},
        {"x-amz-security-token", str_from(temporary_keys.token)},
    };
    signing.method = "POST";
    signing.path = STR("/examplebucket/a%20b/c");
    signing.query = upload;
    signing.n_query = 2;
    signing.headers = headers;
    signing.n_headers = ARRAY_SIZE(headers);
    signing.payload = str_from(payload);
    assert_true(str_ends(
        s3_authorization(&arena, &signing),
        STR("SignedHeaders=content-md5;host;x-amz-content-sha256;x-amz-date;x-amz-security-token;"
            "x-amz-server-side-encryption,Signature="
            "200373b7a6ddd59da5effa8562d90222f0318cf703ab352defa5124c75318705")));
}

static void a_part_that_is_not_hashed(void **state)
{
    (void)state;
    auto_arena arena = {0};
    struct wall_us now;
    assert_true(s3_time_parse(STR("2026-11-24T11:22:33Z"), &now));
    const struct s3_pair query[] = {{"partNumber", STR("7")}, {"uploadId", STR("i/d")}};
    const struct s3_pair headers[] = {{"x-amz-content-sha256", STR("UNSIGNED-PAYLOAD")},
                                      {"x-amz-date", STR("20261124T112233Z")}};
    const struct s3_signing signing = {
        .method = "PUT",
        .host = STR("s3.example.org:8443"),
        .path = STR("/examplebucket/p/blobs/ab/x"),
        .query = query,
        .n_query = ARRAY_SIZE(query),
        .headers = headers,
        .n_headers = ARRAY_SIZE(headers),
        .payload = S3_UNSIGNED_PAYLOAD,
        .keys = &example_keys,
        .region = "us-east-1",
        .service = "s3",
        .now = now,
    };
    /* UploadPart over https with payload_signing_enabled False */
    assert_text(s3_authorization(&arena, &signing),
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20261124/us-east-1/s3/"
                "aws4_request,SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature="
                "9e1d65fe9685a9858d72452ba26c757c76b5d168e0907705906cb8fe59377ec3");
}

/* ---- Text ---- */

static void encoding_goes_both_ways(void **state)
{
    (void)state;
    auto_arena arena = {0};
    char all[255];
    for (size_t i = 0; i < sizeof(all); i++)
        all[i] = (char)(i + 1);
    auto_buf encoded = BUF_INIT(1000);
    s3_encode(&encoded, (struct str){all, sizeof(all)}, /* keep_slashes= */ false);
    struct str decoded;
    assert_true(s3_decode(&arena, buf_str(&encoded), &decoded));
    assert_int_equal(decoded.n, sizeof(all));
    assert_memory_equal(decoded.p, all, sizeof(all));
    assert_true(s3_decode(&arena, STR("a+b%2Bc%2f"), &decoded));
    assert_text(decoded, "a b+c/");
    static const char *const broken[] = {"%", "%2", "%2g", "%g2", "abc%", "abc%4", "%%41"};
    for (size_t i = 0; i < ARRAY_SIZE(broken); i++)
        assert_false(s3_decode(&arena, str_from(broken[i]), &decoded));
}

static void times_are_read(void **state)
{
    (void)state;
    static const char *const good[] = {"2026-11-24T11:22:33Z", "2026-11-24T11:22:33.5Z",
                                       "2026-11-24T11:22:33.000Z"};
    static const char *const bad[] = {"",
                                      "2026-11-24",
                                      "2026-11-24 11:22:33Z",
                                      "2026-11-24T11:22:33",
                                      "2026-13-24T11:22:33Z",
                                      "2026-11-24T25:22:33Z",
                                      "2026-11-24T11:22:33.Z",
                                      "2026-11-24T11:22:33Zx",
                                      "0000-00-00T00:00:00Z",
                                      "99999-11-24T11:22:33Z"};
    struct wall_us t;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_true(s3_time_parse(str_from(good[i]), &t));
        assert_int_equal(t.us, INT64_C(1795519353) * CLOCK_SECOND_US); /* by date(1) */
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(s3_time_parse(str_from(bad[i]), &t));
    assert_true(s3_http_date_parse(STR("Tue, 24 Nov 2026 11:22:33 GMT"), &t));
    assert_int_equal(t.us, INT64_C(1795519353) * CLOCK_SECOND_US);
    assert_false(s3_http_date_parse(STR("Tue, 24 nov 2026 11:22:33 GMT"), &t));
    assert_false(s3_http_date_parse(STR("Tue, 24 anF 2026 11:22:33 GMT"), &t));
    assert_false(s3_http_date_parse(STR("Tue, 24 Nov 2026 11:22:33 CET"), &t));
    assert_false(s3_http_date_parse(STR(""), &t));
}

/* ---- XML ---- */

static int no_element(void *context, struct str path, struct str text, struct err *err)
{
    (void)path;
    (void)text;
    (void)err;
    ++*(unsigned *)context;
    return 0;
}

static bool parses(struct str xml)
{
    unsigned elements = 0;
    struct err err = {0};
    int result = s3_xml_parse(xml, no_element, &elements, &err);
    assert_int_equal(err.kind, result < 0 ? ERR_IO : ERR_NONE);
    return result == 0;
}

static void xml_is_bounded(void **state)
{
    (void)state;
    assert_true(parses(STR("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a><b>1</b><b/></a>")));
    assert_false(parses(STR("")));
    assert_false(parses(STR("not xml")));
    assert_false(parses(STR("<a><b></a>")));
    assert_false(parses(STR("<a>")));
    assert_false(parses(STR("<a/><a/>")));
    assert_false(parses(STR("<a>&unknown;</a>")));
    assert_false(parses(STR("<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>")));
    assert_false(parses(STR("<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>")));

    auto_buf deep = BUF_INIT(10000);
    for (int i = 0; i < 17; i++)
        buf_add_str(&deep, STR("<a>"));
    for (int i = 0; i < 17; i++)
        buf_add_str(&deep, STR("</a>"));
    assert_false(parses(buf_str(&deep)));
    assert_true(parses((struct str){deep.p + 3, deep.n - 7}));

    auto_buf longer = BUF_INIT(100000);
    buf_add_str(&longer, STR("<a>"));
    for (int i = 0; i < 16385; i++)
        buf_add_char(&longer, 'x');
    buf_add_str(&longer, STR("</a>"));
    assert_false(parses(buf_str(&longer)));
    memcpy(longer.p, "<b>x", 4); /* one byte shorter, and the end is of another element */
    assert_false(parses(buf_str(&longer)));
    memcpy(longer.p, "<a>", 3);
    memcpy(longer.p + longer.n - 5, "</a> ", 5);
    assert_true(parses(buf_str(&longer)));
}

static void errors_are_read(void **state)
{
    (void)state;
    struct s3_error error;
    assert_true(
        s3_error_parse(STR("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>NoSuchKey"
                           "</Code><Message>The resource\nyou requested does not exist"
                           "</Message><Resource>/mybucket/myfoto.jpg</Resource><RequestId>"
                           "4442587FB7D0A2F9</RequestId></Error>"),
                       &error));
    assert_string_equal(error.code, "NoSuchKey");
    assert_string_equal(error.message, "The resource you requested does not exist");
    assert_string_equal(error.request_id, "4442587FB7D0A2F9");
    assert_true(
        s3_error_parse(STR("<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/"
                           "\"><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code>"
                           "</Error><RequestId>x</RequestId></ErrorResponse>"),
                       &error));
    assert_string_equal(error.code, "InvalidIdentityToken");
    assert_false(s3_error_parse(STR("<html><body>502 Bad Gateway</body></html>"), &error));
    assert_false(s3_error_parse(STR("<ListBucketResult/>"), &error));
    assert_false(s3_error_parse(STR(""), &error));
}

static void text_is_escaped(void **state)
{
    (void)state;
    auto_buf xml = BUF_INIT(1000);
    assert_true(s3_xml_add(&xml, STR("a<b>&\"c'\t]]>\xC3\xA9")));
    assert_text(buf_str(&xml), "a&#60;b&#62;&#38;&#34;c'&#9;]]&#62;\xC3\xA9");
    assert_false(s3_xml_add(&xml, STR("\x01")));
}

static void pages_are_read(void **state)
{
    (void)state;
    auto_arena arena = {0};
    struct s3_page page = {.arena = &arena};
    struct err err;
    assert_int_equal(
        s3_page_parse(
            &page,
            STR("<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name>"
                "<Prefix>p%2F</Prefix><KeyCount>2</KeyCount><MaxKeys>2</MaxKeys>"
                "<IsTruncated>true</IsTruncated>"
                "<NextContinuationToken>1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J==</NextContinuationToken>"
                "<Contents><Key>p/a%2Bb%01+c</Key><LastModified>2026-11-24T11:22:33.000Z"
                "</LastModified><ETag>&quot;x&quot;</ETag><Size>434234</Size>"
                "<StorageClass>STANDARD</StorageClass><Owner><ID>x</ID></Owner></Contents>"
                "<Contents><Key>p/d</Key><Size>0</Size></Contents></ListBucketResult>"),
            &err),
        0);
    assert_int_equal(page.n, 2);
    assert_text(page.entries[0].key, "p/a+b\x01 c");
    assert_int_equal(page.entries[0].size, 434234);
    assert_int_equal(page.entries[0].time.us, INT64_C(1795519353) * CLOCK_SECOND_US);
    assert_text(page.entries[1].key, "p/d");
    assert_true(page.truncated);
    assert_text(page.next_key, "1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J==");

    static const char *const broken[] = {
        "<Error><Code>InternalError</Code></Error>",
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        "<ListBucketResult><Contents><Size>-1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>%</Key></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><LastModified>x</LastModified></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>a</Key></Contents>",
    };
    for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
        assert_int_equal(s3_page_parse(&page, str_from(broken[i]), &err), -1);
        assert_int_equal(err.kind, ERR_IO);
    }
}

/* ---- Options ---- */

static void wrong_options_are_refused(void **state)
{
    (void)state;
    const struct s3_options good = {.bucket = "bucket",
                                    .endpoint = "http://127.0.0.1:9",
                                    .access_key = "a",
                                    .secret_key = "s",
                                    .patience_us = CLOCK_SECOND_US};
    struct s3_options wrong[20];
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        wrong[i] = good;
    wrong[n++].bucket = "ab";
    wrong[n++].bucket = "buck et";
    wrong[n++].bucket = "../../x";
    wrong[n++].prefix = "no-slash";
    wrong[n++].prefix = "/slash/";
    wrong[n++].endpoint = "127.0.0.1:9";
    wrong[n++].endpoint = "http://";
    wrong[n++].endpoint = "http://user@host";
    wrong[n++].endpoint = "http://host/path";
    wrong[n++].public_url = "ftp://host";
    wrong[n++].region = "us east";
    wrong[n++].secret_key = "";
    wrong[n++].access_key = "";
    wrong[n++].access_key = "a\r\nX: y";
    wrong[n++].encryption = "aes";
    wrong[n++].encryption_key = "key";
    wrong[n++].ca_file = "/does/not/exist";
    wrong[n++].addressing = S3_ADDRESSING_HOST; /* of an address */
    for (size_t i = 0; i < n; i++) {
        struct s3 *s3 = NULL;
        struct err err;
        if (s3_new(&wrong[i], &s3, &err) == 0)
            fail_msg("options %zu were taken", i);
        assert_int_equal(err.kind, ERR_INVALID);
    }
    struct s3 *s3 = NULL;
    struct err err;
    assert_int_equal(s3_new(&good, &s3, &err), 0);
    s3_free(s3);
}

static void expect_url(const struct s3_options *options, const char *store, const char *readers,
                       const char *readers_host)
{
    struct s3_options whole = *options;
    whole.access_key = "a";
    whole.secret_key = "s";
    whole.patience_us = CLOCK_SECOND_US;
    auto_arena arena = {0};
    struct s3 *s3 = NULL;
    struct err err;
    if (s3_new(&whole, &s3, &err) < 0)
        fail_msg("%s", err.say);
    assert_text(str_printf(&arena, "%s%s", s3->store.url, s3_path(&arena, s3, &s3->store, "k").p),
                store);
    assert_text(
        str_printf(&arena, "%s%s", s3->readers.url, s3_path(&arena, s3, &s3->readers, "k").p),
        readers);
    assert_text(str_from(s3->readers.host), readers_host);
    s3_free(s3);
}

static void urls_follow_the_options(void **state)
{
    (void)state;
    expect_url(&(struct s3_options){.bucket = "bucket", .prefix = "p/", .region = "eu-west-1"},
               "https://bucket.s3.eu-west-1.amazonaws.com/p/k",
               "https://bucket.s3.eu-west-1.amazonaws.com/p/k",
               "bucket.s3.eu-west-1.amazonaws.com");
    expect_url(&(struct s3_options){.bucket = "with.dots", .region = "cn-north-1"},
               "https://s3.cn-north-1.amazonaws.com.cn/with.dots/k",
               "https://s3.cn-north-1.amazonaws.com.cn/with.dots/k",
               "s3.cn-north-1.amazonaws.com.cn");
    expect_url(&(struct s3_options){.bucket = "bucket",
                                    .endpoint = "https://store.internal:443/",
                                    .public_url = "https://cdn.example/s3/"},
               "https://store.internal:443/bucket/k", "https://cdn.example/s3/bucket/k",
               "cdn.example");
    expect_url(&(struct s3_options){.bucket = "bucket",
                                    .endpoint = "http://store.internal:7480",
                                    .addressing = S3_ADDRESSING_HOST,
                                    .public_url = "https://cdn.example"},
               "http://bucket.store.internal:7480/k", "https://cdn.example/k",
               "bucket.store.internal:7480");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(example_get_object),
        TEST(example_put_object),
        TEST(examples_of_queries),
        TEST(example_presigned),
        TEST(temporary_keys_and_odd_paths),
        TEST(a_part_that_is_not_hashed),
        TEST(encoding_goes_both_ways),
        TEST(times_are_read),
        TEST(xml_is_bounded),
        TEST(errors_are_read),
        TEST(text_is_escaped),
        TEST(pages_are_read),
        TEST(wrong_options_are_refused),
        TEST(urls_follow_the_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
