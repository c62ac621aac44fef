#include "base/base.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void strings_are_cut_and_compared(void **state)
{
    (void)state;
    struct str rest = STR("a=b=c");
    assert_true(str_eq(str_cut(&rest, '='), STR("a")));
    assert_true(str_eq(str_cut(&rest, '='), STR("b")));
    assert_true(str_eq(str_cut(&rest, '='), STR("c")));
    assert_int_equal(rest.n, 0);
    assert_true(str_cmp(STR("ab"), STR("abc")) < 0);
    assert_true(str_cmp(STR("b"), STR("abc")) > 0);
    assert_true(str_eq_nocase(STR("Content-LENGTH"), STR("content-length")));
    assert_true(str_eq(str_trim(STR(" \tx y\t ")), STR("x y")));
    assert_true(str_ends(STR("a.tar"), STR(".tar")));
    assert_false(str_ends(STR("r"), STR(".tar")));
}

static void numbers_have_bounds(void **state)
{
    (void)state;
    struct err err;
    uint64_t n = 7;
    assert_int_equal(str_to_u64(STR("18446744073709551615"), UINT64_MAX, &n, &err), 0);
    assert_true(n == UINT64_MAX);
    n = 7;
    static const char *const wrong[] = {"18446744073709551616", "", "-1", "+1", "1 ", "0x1", "1e3"};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        assert_int_equal(str_to_u64(str_from(wrong[i]), UINT64_MAX, &n, &err), -1);
        assert_int_equal(err.kind, ERR_INVALID);
    }
    assert_int_equal(str_to_u64(STR("11"), 10, &n, &err), -1);
    assert_int_equal(str_to_u64(STR("9"), 5, &n, &err), -1);
    assert_true(n == 7); /* outputs are written on success only */
    assert_int_equal(str_to_u64(STR("0"), 0, &n, &err), 0);
}

static void buffers_stop_at_their_maximum(void **state)
{
    (void)state;
    auto_buf buf = BUF_INIT(8);
    buf_add_str(&buf, STR("12345"));
    buf_add_str(&buf, STR("6789"));
    assert_true(buf.overflow);
    assert_true(str_eq(buf_str(&buf), STR("12345")));
    buf_add_char(&buf, 'x'); /* sticky */
    assert_int_equal(buf.n, 5);
}

static void json_strings_are_escaped_and_valid_utf8(void **state)
{
    (void)state;
    auto_buf buf = BUF_INIT(1024);
    buf_add_json(&buf, STR("a\"\\\n\x01 \xc3\xa9 \xff\xc0\x80 \xed\xa0\x80 \xf0\x9f\x98\x80"));
    assert_string_equal(buf.p, "\"a\\\"\\\\\\u000a\\u0001 \xc3\xa9 \\ufffd\\ufffd\\ufffd "
                               "\\ufffd\\ufffd\\ufffd \xf0\x9f\x98\x80\"");
}

/* Expected values: FIPS 180-4 examples for "abc". */
static void hashes_match_the_standard_and_survive_saving(void **state)
{
    (void)state;
    static const struct {
        enum hash_algorithm algorithm;
        uint8_t first[4];
    } known[] = {{HASH_SHA256, {0xba, 0x78, 0x16, 0xbf}}, {HASH_SHA512, {0xdd, 0xaf, 0x35, 0xa1}}};
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        struct hash hash;
        hash_init(&hash, known[i].algorithm);
        hash_update(&hash, "a", 1);
        uint8_t saved[HASH_SAVED_BYTES_MAX];
        size_t n = hash_save(&hash, saved);

        struct hash again;
        assert_true(hash_load(&again, (struct str){(char *)saved, n}));
        hash_update(&again, "bc", 2);
        uint8_t out[HASH_BYTES_MAX];
        hash_final(&again, out);
        assert_memory_equal(out, known[i].first, 4);

        assert_false(hash_load(&again, (struct str){(char *)saved, n - 1}));
        saved[5] ^= 1; /* another version of the library */
        assert_false(hash_load(&again, (struct str){(char *)saved, n}));
    }
}

static void errors_tell_the_client_less_than_the_log(void **state)
{
    (void)state;
    struct err err;
    errno = ENOSPC;
    assert_int_equal(err_sys(&err, "could not write \"%s\"", "/secret/path"), -1);
    assert_int_equal(err.kind, ERR_FULL);
    assert_null(strstr(err.say, "/secret/path"));
    assert_non_null(strstr(err.why, "/secret/path"));
    errno = EIO;
    (void)err_sys(&err, "x");
    assert_int_equal(err.kind, ERR_IO);
    assert_int_equal(err_why(&err, "and more"), -1);
    assert_non_null(strstr(err.why, "; and more"));
}

static void arenas_give_aligned_memory_of_any_size(void **state)
{
    (void)state;
    auto_arena arena = {0};
    for (size_t n = 0; n < 9000; n += 37) {
        unsigned char *p = arena_alloc(&arena, n);
        assert_int_equal((uintptr_t)p % 16, 0);
        memset(p, 0xff, n);
    }
    assert_true(str_eq(str_printf(&arena, "%d-%s", 7, "x"), STR("7-x")));
}

static void times_are_written_as_rfc3339(void **state)
{
    (void)state;
    char text[CLOCK_TEXT_BYTES];
    clock_format((struct wall_us){INT64_C(1700000000123456)}, text);
    assert_string_equal(text, "2023-11-14T22:13:20.123456Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_are_cut_and_compared),
        cmocka_unit_test(numbers_have_bounds),
        cmocka_unit_test(buffers_stop_at_their_maximum),
        cmocka_unit_test(json_strings_are_escaped_and_valid_utf8),
        cmocka_unit_test(hashes_match_the_standard_and_survive_saving),
        cmocka_unit_test(errors_tell_the_client_less_than_the_log),
        cmocka_unit_test(arenas_give_aligned_memory_of_any_size),
        cmocka_unit_test(times_are_written_as_rfc3339),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
