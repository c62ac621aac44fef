/* Parsers of header and query texts, over tables taken from the RFCs. */
#include "http/test_support.h"

/* RFC 9110, 14.1.2, over a representation of 10000 bytes; the last rows are what registries'
 * clients are tested with (OCI distribution conformance, over 2048 bytes). */
static void ranges_follow_rfc_9110(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        uint64_t size;
        enum http_range kind;
        uint64_t first;
        uint64_t last;
    } rows[] = {
        {"bytes=0-499", 10000, HTTP_RANGE_PART, 0, 499},
        {"bytes=500-999", 10000, HTTP_RANGE_PART, 500, 999},
        {"bytes=-500", 10000, HTTP_RANGE_PART, 9500, 9999},
        {"bytes=9500-", 10000, HTTP_RANGE_PART, 9500, 9999},
        {"bytes=0-0,-1", 10000, HTTP_RANGE_NONE, 0, 0},
        {"bytes= 0-999, 4500-5499, -1000", 10000, HTTP_RANGE_NONE, 0, 0},
        {"bytes=500-1499", 2048, HTTP_RANGE_PART, 500, 1499},
        {"bytes=2000-5000", 2048, HTTP_RANGE_PART, 2000, 2047},
        {"bytes=500-0", 2048, HTTP_RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=2048-", 2048, HTTP_RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=2048-2048", 2048, HTTP_RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=2047-", 2048, HTTP_RANGE_PART, 2047, 2047},
        {"bytes=-0", 2048, HTTP_RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=-4096", 2048, HTTP_RANGE_PART, 0, 2047},
        {"bytes=0-", 0, HTTP_RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=-1", 0, HTTP_RANGE_UNSATISFIABLE, 0, 0},
        {"Bytes=0-0", 1, HTTP_RANGE_PART, 0, 0},
        {"items=0-499", 10000, HTTP_RANGE_NONE, 0, 0},
        {"bytes", 10000, HTTP_RANGE_NONE, 0, 0},
        {"bytes=", 10000, HTTP_RANGE_NONE, 0, 0},
        {"bytes=-", 10000, HTTP_RANGE_NONE, 0, 0},
        {"bytes=a-b", 10000, HTTP_RANGE_NONE, 0, 0},
        {"bytes=1", 10000, HTTP_RANGE_NONE, 0, 0},
        {"bytes=1-2x", 10000, HTTP_RANGE_NONE, 0, 0},
        {"bytes=+1-2", 10000, HTTP_RANGE_NONE, 0, 0},
        {"bytes=1--2", 10000, HTTP_RANGE_NONE, 0, 0},
        {"0-499", 10000, HTTP_RANGE_NONE, 0, 0},
        {"", 10000, HTTP_RANGE_NONE, 0, 0},
        {"bytes=0-18446744073709551616", 10, HTTP_RANGE_PART, 0, 9},
        {"bytes=18446744073709551616-", 10, HTTP_RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=99999999999999999999999-99999999999999999999999", 10, HTTP_RANGE_UNSATISFIABLE, 0,
         0},
        {"bytes=-18446744073709551616", 10, HTTP_RANGE_PART, 0, 9},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        uint64_t first = 77;
        uint64_t last = 77;
        enum http_range kind =
            http_range_parse(str_from(rows[i].header), rows[i].size, &first, &last);
        if (kind != rows[i].kind)
            fail_msg("%s: kind %d", rows[i].header, (int)kind);
        bool part = kind == HTTP_RANGE_PART;
        if (first != (part ? rows[i].first : 77) || last != (part ? rows[i].last : 77))
            fail_msg("%s: %llu-%llu", rows[i].header, (unsigned long long)first,
                     (unsigned long long)last);
    }
    uint64_t unused = 0;
    assert_int_equal(http_range_parse((struct str){NULL, 0}, 10, &unused, &unused),
                     HTTP_RANGE_NONE);
}

/* RFC 9110, 13.1.1 and 13.1.2: the examples, and what clients send besides. */
static void entity_tags_are_found_in_lists(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        const char *etag;
        bool exists;
        bool matches;
    } rows[] = {
        {"\"xyzzy\"", "xyzzy", true, true},
        {"\"xyzzy\", \"r2d2xxxx\", \"c3piozzzz\"", "r2d2xxxx", true, true},
        {"\"xyzzy\", \"r2d2xxxx\", \"c3piozzzz\"", "c3piozzzz", true, true},
        {"\"xyzzy\", \"r2d2xxxx\", \"c3piozzzz\"", "r2d2", true, false},
        {"W/\"xyzzy\"", "xyzzy", true, true},
        {"W/\"xyzzy\", W/\"r2d2xxxx\"", "r2d2xxxx", true, true},
        {"*", "xyzzy", true, true},
        {"*", "xyzzy", false, false},
        {" * ", "xyzzy", true, true},
        {"xyzzy", "xyzzy", true, true}, /* unquoted */
        {"a,xyzzy", "xyzzy", true, true},
        {"\"a,b\"", "a,b", true, true},
        {"\"a,b\"", "b", true, false},
        {"\"a\",,\"b\"", "b", true, true},
        {"\"xyzzy", "xyzzy", true, true}, /* a quote is missing: still plainly that tag */
        {"\"xyzzy\"", "xyzzy", false, false},
        {"\"XYZZY\"", "xyzzy", true, false},
        {"", "xyzzy", true, false},
        {",", "xyzzy", true, false},
        {"W/", "xyzzy", true, false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (http_etag_matches(str_from(rows[i].header), str_from(rows[i].etag), rows[i].exists) !=
            rows[i].matches)
            fail_msg("%s / %s", rows[i].header, rows[i].etag);
    assert_false(http_etag_matches((struct str){NULL, 0}, STR("a"), true));
}

static void percent_encoding_is_decoded(void **state)
{
    (void)state;
    auto_call call = {0};
    call_init(&call);
    static const struct {
        const char *text;
        const char *decoded; /* NULL: refused */
    } rows[] = {
        {"plain", "plain"},
        {"", ""},
        {"sha256%3Aabc", "sha256:abc"},
        {"a%2fb%2Fc", "a/b/c"},
        {"%41%7a", "Az"},
        {"a+b", "a+b"},
        {"%e2%82%ac", "\xe2\x82\xac"},
        {"%2525", "%25"}, /* once only */
        {"%", NULL},
        {"%4", NULL},
        {"x%", NULL},
        {"%zz", NULL},
        {"%4g", NULL},
        {"% 1", NULL},
        {"%-1", NULL},
        {"a%00b", NULL},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct str decoded = STR("untouched");
        int code = http_decode(&call, str_from(rows[i].text), &decoded);
        if (rows[i].decoded == NULL) {
            assert_int_equal(code, -1);
            assert_int_equal(call.err.kind, ERR_INVALID);
            assert_true(str_eq(decoded, STR("untouched")));
        } else {
            assert_int_equal(code, 0);
            if (!str_eq(decoded, str_from(rows[i].decoded)))
                fail_msg("%s", rows[i].text);
        }
    }
}

static void queries_are_taken_apart(void **state)
{
    (void)state;
    struct http_exchange x = {0};
    call_init(&x.call);
    x.query = STR("mount=sha256%3Aab&&from=a/b%2fc&empty=&flag&from=second&a=b=c");
    static const char *const expected[][2] = {
        {"mount", "sha256:ab"}, {"from", "a/b/c"},  {"empty", ""},
        {"flag", ""},           {"from", "second"}, {"a", "b=c"},
    };
    struct str rest = x.query;
    struct str name;
    struct str value;
    bool more = false;
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        assert_int_equal(http_query_next(&x.call, &rest, &name, &value, &more), 0);
        assert_true(more);
        assert_true(str_eq(name, str_from(expected[i][0])));
        assert_true(str_eq(value, str_from(expected[i][1])));
    }
    assert_int_equal(http_query_next(&x.call, &rest, &name, &value, &more), 0);
    assert_false(more);

    assert_int_equal(http_query_find(&x, "from", &value), 0);
    assert_true(str_eq(value, STR("a/b/c")));
    assert_int_equal(http_query_find(&x, "flag", &value), 0);
    assert_true(value.p != NULL && value.n == 0);
    assert_int_equal(http_query_find(&x, "absent", &value), 0);
    assert_null(value.p);
    x.query = STR("a=1&b=%0");
    assert_int_equal(http_query_find(&x, "b", &value), -1);
    call_done(&x.call);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_follow_rfc_9110),
        cmocka_unit_test(entity_tags_are_found_in_lists),
        cmocka_unit_test(percent_encoding_is_decoded),
        cmocka_unit_test(queries_are_taken_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
