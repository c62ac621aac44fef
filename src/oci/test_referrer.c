#include "oci/oci.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define DIGEST "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

/* Another reader of JSON must find what dist-spec, "Listing Referrers", names, and no more. */
static json_t *formatted(const struct oci_referrer *referrer)
{
    auto_buf buf = BUF_INIT(4096);
    oci_referrer_format(&buf, referrer);
    assert_false(buf.overflow);
    json_t *json = json_loadb(buf.p, buf.n, JSON_REJECT_DUPLICATES, NULL);
    assert_true(json_is_object(json));
    return json;
}

static void full_descriptor(void **state)
{
    (void)state;
    json_auto_t *json = formatted(&(struct oci_referrer){
        .media_type = STR(OCI_MEDIA_TYPE_MANIFEST),
        .digest = STR(DIGEST),
        .size = INT64_MAX,
        .artifact_type = STR("application/vnd.\"odd\"\\type"),
        .annotations = STR("{\"a\":\"1\",\"b\":\"\\\"\"}"),
    });
    json_auto_t *expected =
        json_pack("{s:s, s:s, s:I, s:s, s:{s:s, s:s}}", "mediaType", OCI_MEDIA_TYPE_MANIFEST,
                  "digest", DIGEST, "size", (json_int_t)INT64_MAX, "artifactType",
                  "application/vnd.\"odd\"\\type", "annotations", "a", "1", "b", "\"");
    assert_non_null(expected);
    assert_true(json_equal(json, expected));
}

static void what_is_empty_is_left_out(void **state)
{
    (void)state;
    json_auto_t *json = formatted(&(struct oci_referrer){
        .media_type = STR(OCI_MEDIA_TYPE_INDEX), .digest = STR(DIGEST), .size = 0});
    json_auto_t *expected = json_pack("{s:s, s:s, s:i}", "mediaType", OCI_MEDIA_TYPE_INDEX,
                                      "digest", DIGEST, "size", 0);
    assert_true(json_equal(json, expected));
}

static void the_limit_of_the_buffer_is_seen(void **state)
{
    (void)state;
    auto_buf buf = BUF_INIT(20);
    oci_referrer_format(
        &buf, &(struct oci_referrer){.media_type = STR("a/b"), .digest = STR(DIGEST), .size = 1});
    assert_true(buf.overflow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_descriptor),
        cmocka_unit_test(what_is_empty_is_left_out),
        cmocka_unit_test(the_limit_of_the_buffer_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
