#include "importer/live_int.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void assert_text(struct str got, const char *wanted)
{
    if (!str_eq(got, str_from(wanted)))
        fail_msg("got \"" STR_FMT "\", wanted \"%s\"", STR_ARG(got), wanted);
}

/* ---- URLs ---- */

static struct url read_good(struct arena *arena, const struct url *base, const char *text)
{
    struct url url = {0};
    struct err err;
    if (url_read(arena, base, str_from(text), &url, &err) < 0)
        fail_msg("%s: %s", text, err.say);
    return url;
}

static void urls(void **state)
{
    auto_arena arena = {0};
    (void)state;
    struct url url = read_good(&arena, NULL, "https://Registry.Example/team/app?x=1#y");
    assert_text(url.text, "https://Registry.Example/team/app?x=1");
    assert_text(url.origin, "https://registry.example:443");
    assert_text(url.host, "registry.example");
    assert_text(url.path, "/team/app");
    assert_text(url.query, "x=1");
    assert_true(url.is_https);
    assert_false(url.is_loopback);

    url = read_good(&arena, NULL, "http://127.0.0.1:5000");
    assert_text(url.origin, "http://127.0.0.1:5000");
    assert_text(url.host, "127.0.0.1:5000");
    assert_text(url.path, "/");
    assert_null(url.query.p);
    assert_true(url.is_loopback);
    assert_true(read_good(&arena, NULL, "http://[::1]:5000/").is_loopback);
    assert_true(read_good(&arena, NULL, "http://localhost/").is_loopback);
    assert_false(read_good(&arena, NULL, "http://127.evil.example/").is_loopback);
    assert_false(read_good(&arena, NULL, "http://localhost.evil.example/").is_loopback);
}

/* RFC 3986, section 5.4.1: what a redirect or a link may say. */
static void urls_relative(void **state)
{
    static const struct {
        const char *reference;
        const char *target;
    } cases[] = {
        {"/g", "https://a/g"},        {"//g/x", "https://g/x"},   {"g", "https://a/b/c/g"},
        {"g?y", "https://a/b/c/g?y"}, {"../../g", "https://a/g"}, {"?y", "https://a/b/c/d?y"},
        {"http://g/", "http://g/"},   {"../g", "https://a/b/g"},
    };
    auto_arena arena = {0};
    (void)state;
    struct url base = read_good(&arena, NULL, "https://a/b/c/d?q");
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_text(read_good(&arena, &base, cases[i].reference).text, cases[i].target);
}

static void urls_refused(void **state)
{
    static const char *const cases[] = {
        "",
        "ftp://registry.example/",
        "file:///etc/passwd",
        "https://user:password@registry.example/",
        "https://user@registry.example/",
        "https://registry.example/a b",
        "https://registry.example/\r\nX: y",
        "https://",
        "https://registry.example:99999/",
        "javascript:alert(1)",
    };
    auto_arena arena = {0};
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct url url;
        struct err err;
        if (url_read(&arena, NULL, str_from(cases[i]), &url, &err) == 0)
            fail_msg("\"%s\" was read as %s", cases[i], url.text.p);
        assert_int_equal(err.kind, ERR_INVALID);
    }
}

static void url_parameters(void **state)
{
    auto_arena arena = {0};
    struct err err;
    (void)state;
    struct url url = read_good(&arena, NULL, "https://auth.example/token?a=b");
    assert_int_equal(url_add_parameter(&arena, &url, "scope", STR("repository:a/b:pull&x"), &err),
                     0);
    assert_text(url.text, "https://auth.example/token?a=b&scope=repository%3aa%2fb%3apull%26x");
}

/* ---- Credentials ---- */

/* RFC 7617, section 2, its example. */
static void basic(void **state)
{
    auto_arena arena = {0};
    char username[] = "Aladdin";
    char password[] = "open sesame";
    const struct credentials credentials = {.username = username, .password = password};
    (void)state;
    assert_text(credentials_basic(&arena, &credentials), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
}

#define ENTRY(host, rest) "{\"auths\":{\"" host "\":{" rest "}}}"
#define ALADDIN "\"auth\":\"QWxhZGRpbjpvcGVuIHNlc2FtZQ==\""

static void docker_config(void **state)
{
    static const struct {
        const char *json;
        const char *host;
        const char *username; /* NULL: no such entry */
        const char *password;
    } cases[] = {
        {ENTRY("registry.example", ALADDIN), "registry.example", "Aladdin", "open sesame"},
        {ENTRY("registry.example:5000", ALADDIN), "registry.example:5000", "Aladdin",
         "open sesame"},
        {ENTRY("registry.example:5000", ALADDIN), "registry.example", NULL, NULL},
        {ENTRY("other.example", ALADDIN), "registry.example", NULL, NULL},
        {ENTRY("https://registry.example/v1/", ALADDIN), "registry.example", "Aladdin",
         "open sesame"},
        {ENTRY("https://index.docker.io/v1/", ALADDIN), "registry-1.docker.io", "Aladdin",
         "open sesame"},
        {ENTRY("https://index.docker.io/v1/", ALADDIN), "evildocker.io", NULL, NULL},
        {ENTRY("registry.example", "\"username\":\"u\",\"password\":\"p:q\""), "registry.example",
         "u", "p:q"},
        {"{}", "registry.example", NULL, NULL},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct credentials credentials = {0};
        struct err err;
        if (credentials_from_docker(str_from(cases[i].json), str_from(cases[i].host), &credentials,
                                    &err) < 0)
            fail_msg("%s: %s", cases[i].json, err.say);
        if (cases[i].username == NULL) {
            assert_null(credentials.username);
        } else {
            assert_non_null(credentials.username);
            assert_string_equal(credentials.username, cases[i].username);
            assert_string_equal(credentials.password, cases[i].password);
        }
        credentials_done(&credentials);
    }
}

static void docker_config_refused(void **state)
{
    static const char *const cases[] = {
        "",
        "[]",
        "{",
        ENTRY("registry.example", ""),
        ENTRY("registry.example", "\"auth\":\"QWxhZGRpbg==\""), /* no colon */
        ENTRY("registry.example", "\"auth\":\"***\""),
        ENTRY("registry.example", "\"auth\":\"QWxhZGRpbjpvcGVuIHNlc2FtZQ=\""),
        ENTRY("registry.example", "\"auth\":\"dQA6cA==\""), /* "u\0:p" */
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct credentials credentials = {0};
        struct err err;
        if (credentials_from_docker(str_from(cases[i]), STR("registry.example"), &credentials,
                                    &err) == 0)
            fail_msg("%s was taken", cases[i]);
        assert_int_equal(err.kind, ERR_INVALID);
        assert_null(credentials.username);
        assert_null(strstr(err.say, "Aladdin"));
    }
}

static void password_file(void **state)
{
    char path[] = "/tmp/test_credentials.XXXXXX";
    int fd = mkstemp(path);
    struct credentials credentials;
    struct err err;
    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "open sesame\r\nnot this\n", 22), 22);
    const struct importer_origin origin = {.username = "Aladdin", .password_file = path};
    assert_int_equal(credentials_load(&origin, STR("registry.example"), &credentials, &err), 0);
    assert_string_equal(credentials.username, "Aladdin");
    assert_string_equal(credentials.password, "open sesame");
    credentials_done(&credentials);

    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(credentials_load(&origin, STR("registry.example"), &credentials, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
    assert_int_equal(ftruncate(fd, 100000), 0);
    assert_int_equal(credentials_load(&origin, STR("registry.example"), &credentials, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
    assert_int_equal(close(fd), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(credentials_load(&origin, STR("registry.example"), &credentials, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls),          cmocka_unit_test(urls_relative),
        cmocka_unit_test(urls_refused),  cmocka_unit_test(url_parameters),
        cmocka_unit_test(basic),         cmocka_unit_test(docker_config),
        cmocka_unit_test(password_file), cmocka_unit_test(docker_config_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
