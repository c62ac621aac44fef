#include "importer/live_int.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void assert_text(struct str got, const char *wanted)
{
    if (!str_eq(got, str_from(wanted)))
        fail_msg("got \"" STR_FMT "\", wanted \"%s\"", STR_ARG(got), wanted);
}

/* ---- Header lines ---- */

static void header_lines(void **state)
{
    struct str lines = STR("Server: x\r\nwww-authenticate:  a \r\nX: y\r\nWWW-Authenticate: b\r\n");
    struct str value;
    (void)state;
    assert_true(header_next(&lines, STR("WWW-Authenticate"), &value));
    assert_text(value, "a");
    assert_true(header_next(&lines, STR("WWW-Authenticate"), &value));
    assert_text(value, "b");
    assert_false(header_next(&lines, STR("WWW-Authenticate"), &value));
}

/* ---- WWW-Authenticate ---- */

/* RFC 9110, section 11.6.1, its example. */
static void challenges_of_the_rfc(void **state)
{
    auto_arena arena = {0};
    struct str header = STR("Basic realm=\"simple\", Newauth realm=\"apps\", type=1, "
                            "title=\"Login to \\\"apps\\\"\"");
    struct challenge challenge;
    (void)state;
    assert_true(challenge_next(&arena, &header, &challenge));
    assert_text(challenge.scheme, "Basic");
    assert_text(challenge.realm, "simple");
    assert_true(challenge_next(&arena, &header, &challenge));
    assert_text(challenge.scheme, "Newauth");
    assert_text(challenge.realm, "apps");
    assert_false(challenge_next(&arena, &header, &challenge));
    assert_int_equal(header.n, 0);
}

/* distribution, "Token Authentication Specification", its example. */
static void challenge_of_docker(void **state)
{
    auto_arena arena = {0};
    struct str header = STR("Bearer realm=\"https://auth.docker.io/token\",service=\"registry."
                            "docker.io\",scope=\"repository:samalba/my-app:pull,push\"");
    struct challenge challenge;
    (void)state;
    assert_true(challenge_next(&arena, &header, &challenge));
    assert_text(challenge.scheme, "Bearer");
    assert_text(challenge.realm, "https://auth.docker.io/token");
    assert_text(challenge.service, "registry.docker.io");
    assert_text(challenge.scope, "repository:samalba/my-app:pull,push");
}

static void challenge_words(void **state)
{
    auto_arena arena = {0};
    struct challenge challenge;
    (void)state;
    struct str header = STR("Negotiate YII/+a==, Other , bearer realm = a , SCOPE= \"b\\\\c\"");
    assert_true(challenge_next(&arena, &header, &challenge));
    assert_text(challenge.scheme, "Negotiate");
    assert_int_equal(challenge.realm.n, 0);
    assert_true(challenge_next(&arena, &header, &challenge));
    assert_text(challenge.scheme, "Other");
    assert_true(challenge_next(&arena, &header, &challenge));
    assert_text(challenge.scheme, "bearer");
    assert_text(challenge.realm, "a");
    assert_text(challenge.scope, "b\\c");

    static const char *const broken[] = {
        "", " , ", "=x", "Bearer realm=\"a", "Basic realm=\"a\\", "a/b c=d"};
    for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
        header = str_from(broken[i]);
        if (challenge_next(&arena, &header, &challenge))
            fail_msg("\"%s\" was read as a challenge", broken[i]);
    }
}

/* ---- Link ---- */

static void links(void **state)
{
    static const struct {
        const char *header;
        const char *target; /* NULL: none */
    } cases[] = {
        /* distribution's API, "Pagination" */
        {"</v2/_catalog?n=20&last=b>; rel=\"next\"", "/v2/_catalog?n=20&last=b"},
        /* RFC 8288, section 3.5 */
        {"<http://example.com/TheBook/chapter2>; rel=\"previous\"; title=\"previous chapter\"",
         NULL},
        {"</TheBook/chapter2>; rel=\"previous\"; title*=UTF-8'de'letztes%20Kapitel, "
         "</TheBook/chapter4>; rel=\"next\"; title*=UTF-8'de'n%c3%a4chstes%20Kapitel",
         "/TheBook/chapter4"},
        {"<http://example.org/>; rel=\"start http://example.net/relation/other\"", NULL},
        {"<a>;rel=next", "a"},
        {"<a>; title=\"x>; rel=\\\"next\\\"\"; REL=\"prev NEXT\"", "a"},
        {"<a>; title=\"<b>; rel=next\"", NULL},
        {"<a>; flag; rel=next", "a"},
        {"<a>; rel=nextish", NULL},
        {"a; rel=next", NULL},
        {"<a; rel=next", NULL},
        {"<a>; rel=\"next", NULL},
        {"", NULL},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct str target = link_next(str_from(cases[i].header));
        if (cases[i].target == NULL && target.p != NULL)
            fail_msg("%s: got \"" STR_FMT "\"", cases[i].header, STR_ARG(target));
        if (cases[i].target != NULL)
            assert_text(target, cases[i].target);
    }
}

/* ---- Retry-After: RFC 9110, section 10.2.3, its examples ---- */

static void retry_after(void **state)
{
    const struct wall_us before = {INT64_C(946684790) * CLOCK_SECOND_US};
    (void)state;
    assert_int_equal(retry_after_us(STR("120"), before), 120 * CLOCK_SECOND_US);
    assert_int_equal(retry_after_us(STR("0"), before), 0);
    assert_int_equal(retry_after_us(STR("Fri, 31 Dec 1999 23:59:59 GMT"), before),
                     9 * CLOCK_SECOND_US);
    const struct wall_us after = {INT64_C(946684800) * CLOCK_SECOND_US};
    assert_int_equal(retry_after_us(STR("Fri, 31 Dec 1999 23:59:59 GMT"), after), 0);
    assert_int_equal(retry_after_us(STR(""), before), -1);
    assert_int_equal(retry_after_us((struct str){0}, before), -1);
    assert_int_equal(retry_after_us(STR("-5"), before), -1);
    assert_int_equal(retry_after_us(STR("soon"), before), -1);
    assert_int_equal(retry_after_us(STR("99999999999999999999"), before), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_lines),
        cmocka_unit_test(challenges_of_the_rfc),
        cmocka_unit_test(challenge_of_docker),
        cmocka_unit_test(challenge_words),
        cmocka_unit_test(links),
        cmocka_unit_test(retry_after),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
