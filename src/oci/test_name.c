#include "oci/oci.h"

#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* dist-spec, "Pulling manifests", letter by letter. */
#define NAME_GRAMMAR "^[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*)*$"
#define TAG_GRAMMAR "^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$"

static bool is_name(struct str text)
{
    struct err err;
    struct oci_name name;
    if (oci_name_parse(text, &name, &err) == 0) {
        assert_true(str_eq(name.text, text));
        return true;
    }
    assert_int_equal(err.kind, ERR_INVALID);
    assert_string_equal(err.code, "NAME_INVALID");
    return false;
}

static bool is_tag(struct str text)
{
    struct err err;
    struct oci_tag tag;
    if (oci_tag_parse(text, &tag, &err) == 0) {
        assert_true(str_eq(tag.text, text));
        return true;
    }
    assert_int_equal(err.kind, ERR_INVALID);
    assert_string_equal(err.code, "TAG_INVALID");
    return false;
}

/* All texts of up to `longest` bytes over an alphabet with a member of each class; the other
 * opinion is the C library's, on the grammar of the specification. */
static void agrees_with(const char *grammar, const char *alphabet, size_t longest,
                        bool (*accepts)(struct str text))
{
    regex_t regex;
    assert_int_equal(regcomp(&regex, grammar, REG_EXTENDED | REG_NOSUB), 0);
    size_t letters = strlen(alphabet);
    size_t accepted = 0;
    size_t count = 1;
    for (size_t n = 0; n <= longest; n++, count *= letters) {
        for (size_t number = 0; number < count; number++) {
            char text[16] = {0};
            size_t rest = number;
            for (size_t i = 0; i < n; i++, rest /= letters)
                text[i] = alphabet[rest % letters];
            bool expected = regexec(&regex, text, 0, NULL, 0) == 0;
            if (accepts((struct str){text, n}) != expected)
                fail_msg("\"%s\" should%s pass", text, expected ? "" : " not");
            accepted += expected;
        }
    }
    assert_true(accepted > 0);
    regfree(&regex);
}

static void names_follow_the_grammar_of_the_specification(void **state)
{
    (void)state;
    agrees_with(NAME_GRAMMAR, "a0._-/A", 5, is_name);
    agrees_with(NAME_GRAMMAR, "a_-/", 8, is_name);
}

static void tags_follow_the_grammar_of_the_specification(void **state)
{
    (void)state;
    agrees_with(TAG_GRAMMAR, "aZ0._-/:+", 4, is_tag);
}

static void bytes_outside_of_the_alphabet_are_refused(void **state)
{
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        char text[] = {'a', (char)byte, 'a'};
        struct str str = {text, sizeof(text)};
        bool lower = (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9');
        bool upper = byte >= 'A' && byte <= 'Z';
        bool joins = byte == '.' || byte == '_' || byte == '-';
        assert_int_equal(is_name(str), lower || joins || byte == '/');
        assert_int_equal(is_tag(str), lower || upper || joins);
    }
}

static void lengths_are_limited(void **state)
{
    (void)state;
    char text[300];
    memset(text, 'a', sizeof(text));
    assert_true(is_name((struct str){text, 255}));
    assert_false(is_name((struct str){text, 256}));
    assert_true(is_tag((struct str){text, 128}));
    assert_false(is_tag((struct str){text, 129}));
    assert_false(is_name((struct str){NULL, 0}));
    assert_false(is_tag((struct str){NULL, 0}));
}

static void words_of_the_protocol_are_names_too(void **state)
{
    (void)state;
    static const char *const names[] = {"library/busybox", "v2",          "manifests/blobs/tags",
                                        "a/uploads/b",     "tags/list",   "referrers",
                                        "a---b/c__d/e.f",  "0/1/2/3/4/5", "list"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        assert_true(is_name(str_from(names[i])));
    assert_false(is_name(STR("_catalog")));
    assert_false(is_name(STR("a/_oci/ext/discover")));
}

static void errors_say_where_a_name_is_malformed(void **state)
{
    (void)state;
    struct err err;
    struct oci_name name = {STR("untouched")};
    assert_int_equal(oci_name_parse(STR("library/Busybox"), &name, &err), -1);
    assert_non_null(strstr(err.say, "\"library/Busybox\" is malformed at byte 8"));
    assert_int_equal(oci_name_parse(STR("library/"), &name, &err), -1);
    assert_non_null(strstr(err.say, "at byte 8"));
    assert_true(str_eq(name.text, STR("untouched")));
}

#define DIGEST "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void a_colon_makes_a_reference_a_digest(void **state)
{
    (void)state;
    struct err err;
    struct oci_reference reference;
    assert_int_equal(oci_reference_parse(STR(DIGEST), &reference, &err), 0);
    assert_true(reference.is_digest);
    struct oci_digest empty = oci_digest_of(HASH_SHA256, STR(""));
    assert_true(oci_digest_eq(&reference.digest, &empty));

    assert_int_equal(oci_reference_parse(STR("v1.0"), &reference, &err), 0);
    assert_false(reference.is_digest);
    assert_true(str_eq(reference.tag.text, STR("v1.0")));

    assert_int_equal(oci_reference_parse(STR("v1:0"), &reference, &err), -1);
    assert_string_equal(err.code, "DIGEST_INVALID");
    assert_int_equal(oci_reference_parse(STR("v1/0"), &reference, &err), -1);
    assert_string_equal(err.code, "TAG_INVALID");
    assert_int_equal(oci_reference_parse(STR(""), &reference, &err), -1);
    assert_string_equal(err.code, "TAG_INVALID");
    assert_true(str_eq(reference.tag.text, STR("v1.0")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_follow_the_grammar_of_the_specification),
        cmocka_unit_test(tags_follow_the_grammar_of_the_specification),
        cmocka_unit_test(bytes_outside_of_the_alphabet_are_refused),
        cmocka_unit_test(lengths_are_limited),
        cmocka_unit_test(words_of_the_protocol_are_names_too),
        cmocka_unit_test(errors_say_where_a_name_is_malformed),
        cmocka_unit_test(a_colon_makes_a_reference_a_digest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
