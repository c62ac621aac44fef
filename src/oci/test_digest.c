#include "oci/oci.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* FIPS 180-4, the examples for "abc"; the empty text and "{}" by sha256sum. */
#define SHA256_ABC "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define SHA512_ABC                                                            \
    "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a" \
    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
#define SHA256_EMPTY "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define SHA256_BRACES "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

#define HEX_60 "000000000000000000000000000000000000000000000000000000000000"

static void digests_of_content_are_those_of_the_standard(void **state)
{
    (void)state;
    static const struct {
        enum hash_algorithm algorithm;
        const char *content;
        const char *digest;
    } known[] = {
        {HASH_SHA256, "abc", SHA256_ABC},
        {HASH_SHA512, "abc", SHA512_ABC},
        {HASH_SHA256, "", SHA256_EMPTY},
        {HASH_SHA256, "{}", SHA256_BRACES},
    };
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        auto_arena arena = {0};
        char text[OCI_DIGEST_TEXT_MAX + 1];
        struct oci_digest digest = oci_digest_of(known[i].algorithm, str_from(known[i].content));
        struct str formatted = oci_digest_format(&digest, text);
        assert_string_equal(text, known[i].digest);
        assert_ptr_equal(formatted.p, text);
        assert_int_equal(formatted.n, strlen(known[i].digest));
        assert_true(str_eq(oci_digest_text(&arena, &digest), str_from(known[i].digest)));

        struct err err;
        struct oci_digest parsed;
        assert_int_equal(oci_digest_parse(formatted, &parsed, &err), 0);
        assert_memory_equal(&parsed, &digest, sizeof(digest)); /* unused bytes are 0 in both */
        assert_true(oci_digest_eq(&parsed, &digest));
    }
}

static void digests_differ_in_each_bit_and_in_the_algorithm(void **state)
{
    (void)state;
    struct oci_digest one = oci_digest_of(HASH_SHA256, STR("x"));
    for (size_t i = 0; i < hash_bytes(HASH_SHA256); i++) {
        struct oci_digest other = one;
        other.bytes[i] ^= 1;
        assert_false(oci_digest_eq(&one, &other));
    }
    struct oci_digest other = one;
    other.algorithm = HASH_SHA512;
    assert_false(oci_digest_eq(&one, &other));
}

/* Each byte value at each place of a digest: only what the specification lists passes. */
static void no_byte_but_lower_case_hexadecimal_passes(void **state)
{
    (void)state;
    for (size_t at = 7; at < sizeof(SHA256_ABC) - 1; at++) {
        for (int byte = 0; byte < 256; byte++) {
            char text[] = SHA256_ABC;
            struct err err;
            struct oci_digest digest;
            text[at] = (char)byte;
            int expected = byte != 0 && strchr("0123456789abcdef", byte) != NULL ? 0 : -1;
            assert_int_equal(oci_digest_parse((struct str){text, sizeof(text) - 1}, &digest, &err),
                             expected);
        }
    }
}

static void refused(const char *text, const char *because)
{
    struct err err;
    struct oci_digest digest = {.algorithm = HASH_SHA512};
    assert_int_equal(oci_digest_parse(str_from(text), &digest, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
    assert_string_equal(err.code, "DIGEST_INVALID");
    assert_non_null(strstr(err.say, because));
    assert_int_equal(digest.algorithm, HASH_SHA512); /* outputs are written on success only */
}

static void malformed_digests_are_refused_with_a_reason(void **state)
{
    (void)state;
    refused("", "is malformed");
    refused(":", "is malformed");
    refused("sha256", "is malformed");
    refused("sha256:", "exactly 64");
    refused("sha256:baddigeststring", "exactly 64");
    refused("sha256:" HEX_60 "000", "exactly 64");
    refused("sha256:" HEX_60 "00000", "exactly 64");
    refused("sha256:" HEX_60 "000A", "exactly 64");
    refused("sha512:" HEX_60 "0000", "exactly 128");
    refused(" " SHA256_ABC, "is malformed");
    refused(SHA256_ABC " ", "exactly 64");
    refused("SHA256:" HEX_60 "0000", "is malformed");
    refused("sha256+" HEX_60, "is malformed");
    refused("blake3:" HEX_60 "0000", "cannot be verified here");
    refused("sha384:" HEX_60, "cannot be verified here");
    refused("sha2567:" HEX_60 "0000", "cannot be verified here");
    refused("sha:256:" HEX_60, "is malformed");
}

/* image-spec, "Digests": its own examples, and what its grammar leaves out. */
static void unknown_algorithms_are_wellformed_by_the_grammar(void **state)
{
    (void)state;
    static const char *const good[] = {
        "sha256:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b",
        "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8",
        "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564",
        "blake3:" HEX_60 "0000",
        "a.b_c-d+e:A=",
        "0:-",
        SHA512_ABC,
    };
    static const char *const wrong[] = {
        "",
        ":",
        "a:",
        "a",
        ":a",
        "A:b",
        "a++b:c",
        "+a:b",
        "a+:b",
        "a:b:c",
        "a:b/c",
        "a:b+c",
        "a/b:c",
        "a b:c",
        "a:b ",
        "sha256:abc",
        ("sha512:" HEX_60),
        "a..b:c",
        "a:\xc3\xa9",
        "\xc3\xa9:a",
    };
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        assert_true(oci_digest_is_wellformed(str_from(good[i])));
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        assert_false(oci_digest_is_wellformed(str_from(wrong[i])));
    assert_false(oci_digest_is_wellformed((struct str){"a:b\0c", 5}));
}

static void algorithms_are_sha256_and_sha512(void **state)
{
    (void)state;
    struct err err;
    enum hash_algorithm algorithm = HASH_SHA512;
    assert_int_equal(oci_algorithm_parse(STR("sha256"), &algorithm, &err), 0);
    assert_int_equal(algorithm, HASH_SHA256);
    assert_int_equal(oci_algorithm_parse(STR("sha512"), &algorithm, &err), 0);
    assert_int_equal(algorithm, HASH_SHA512);
    static const char *const wrong[] = {"", "sha256:", "SHA256", "sha25", "sha384", "blake3"};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        assert_int_equal(oci_algorithm_parse(str_from(wrong[i]), &algorithm, &err), -1);
        assert_string_equal(err.code, "DIGEST_INVALID");
        assert_int_equal(err.kind, ERR_INVALID);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_of_content_are_those_of_the_standard),
        cmocka_unit_test(digests_differ_in_each_bit_and_in_the_algorithm),
        cmocka_unit_test(no_byte_but_lower_case_hexadecimal_passes),
        cmocka_unit_test(malformed_digests_are_refused_with_a_reason),
        cmocka_unit_test(unknown_algorithms_are_wellformed_by_the_grammar),
        cmocka_unit_test(algorithms_are_sha256_and_sha512),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
