#include "config/config_int.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* ---- Helpers ---- */

#define MANY 8

/* What a test loads: a file's text, variables and flags, each ended by NULL. */
struct given {
    const char *yaml;
    const char *variables[MANY];
    const char *flags[MANY];
};

static int load(const struct given *given, struct config *ret, struct buf *complaints)
{
    char path[] = "/tmp/test_config.XXXXXX";
    char *environment[MANY + 1] = {NULL};
    char *arguments[MANY];
    size_t n_variables = 0;
    int n_arguments = 0;
    while (given->variables[n_variables] != NULL) {
        environment[n_variables] = mem_strdup(given->variables[n_variables]);
        n_variables++;
    }
    while (given->flags[n_arguments] != NULL) {
        arguments[n_arguments] = mem_strdup(given->flags[n_arguments]);
        n_arguments++;
    }
    struct config_sources sources = {
        .arguments = arguments, .n_arguments = n_arguments, .environment = environment};
    if (given->yaml != NULL) {
        auto_fd fd = mkstemp(path);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, given->yaml, strlen(given->yaml)), strlen(given->yaml));
        sources.file = path;
    }
    int result = config_load(&sources, ret, complaints);
    if (given->yaml != NULL)
        assert_int_equal(unlink(path), 0);
    for (size_t i = 0; i < n_variables; i++)
        free(environment[i]);
    for (int i = 0; i < n_arguments; i++)
        free(arguments[i]);
    return result;
}

static void load_good(const struct given *given, struct config *ret)
{
    auto_buf complaints = BUF_INIT(CONFIG_COMPLAINTS_BYTES_MAX);
    if (load(given, ret, &complaints) != 0)
        fail_msg("refused: %s", complaints.p);
    assert_int_equal(complaints.n, 0);
}

/* A struct config is large: not once for each call in the frame of a test. */
#define ON_ITS_OWN __attribute__((noinline))

/* The complaints must be just these lines; the file is called test.yaml. */
ON_ITS_OWN static void yaml_is_refused(const char *yaml, const char *expected)
{
    struct config config;
    auto_buf complaints = BUF_INIT(CONFIG_COMPLAINTS_BYTES_MAX);
    assert_int_equal(config_load_yaml("test.yaml", str_from(yaml), &config, &complaints), -1);
    assert_string_equal(complaints.p, expected);
}

ON_ITS_OWN static void is_refused(const struct given *given, const char *expected)
{
    struct config config;
    auto_buf complaints = BUF_INIT(CONFIG_COMPLAINTS_BYTES_MAX);
    assert_int_equal(load(given, &config, &complaints), -1);
    assert_string_equal(complaints.p, expected);
}

ON_ITS_OWN static void flag_is_refused(const char *flag, const char *expected)
{
    is_refused(&(struct given){.flags = {flag}}, expected);
}

ON_ITS_OWN static void variable_is_refused(const char *variable, const char *expected)
{
    is_refused(&(struct given){.variables = {variable}}, expected);
}

#define REFUSED_FLAG(flag, expected) flag_is_refused(flag, expected "\n")
#define REFUSED_VARIABLE(variable, expected) variable_is_refused(variable, expected "\n")

static struct config of_flag(const char *flag)
{
    struct config config;
    load_good(&(struct given){.flags = {flag}}, &config);
    return config;
}

/* ---- Sources ---- */

static void nothing_given_gives_the_defaults(void **state)
{
    (void)state;
    struct config config;
    load_good(&(struct given){0}, &config);
    assert_int_equal(config.n_listen, 1);
    assert_true(str_eq(config.listen[0].text, STR("127.0.0.1:5000")));
    assert_true(str_eq(config.data, STR("data")));
    assert_int_equal(config.access_anonymous, CONFIG_ANONYMOUS_PUSH);
    assert_false(config.access_anonymous_push_anywhere);
    assert_int_equal(config.tls_certificate.n, 0);
    assert_int_equal(config.tls_client_auth, CONFIG_CLIENT_AUTH_NONE);
    assert_int_equal(config.n_trusted, 0);
    assert_int_equal(config.http_location, CONFIG_LOCATION_RELATIVE);
    assert_int_equal(config.http_threads, 0);
    assert_int_equal(config.limits_connections, 10000);
    assert_int_equal(config.limits_manifest, 4 * 1024 * 1024);
    assert_int_equal(config.timeouts_header, 15 * CLOCK_SECOND_US);
    assert_int_equal(config.timeouts_idle, 90 * CLOCK_SECOND_US);
    assert_int_equal(config.uploads_expire, 24 * 3600 * CLOCK_SECOND_US);
    assert_int_equal(config.log_format, CONFIG_LOG_AUTO);
    assert_int_equal(config.log_level, LOG_LEVEL_INFO);
    assert_true(config.log_access);
    config_done(&config);
}

static void flag_goes_before_variable_before_file(void **state)
{
    (void)state;
    struct config config;
    struct given given = {
        .yaml = "limits: {connections: 1, uploads: 1, manifest: 1MiB}\n"
                "listen: [127.0.0.1:1, 127.0.0.1:2]\n"
                "proxy: {trusted: [10.0.0.0/8]}\n",
        .variables = {"HOLDFAST_LIMITS_CONNECTIONS=2", "HOLDFAST_LIMITS_UPLOADS=2",
                      "HOLDFAST_LISTEN=127.0.0.1:3, [::1]:4", "HOLDFAST_PROXY_TRUSTED="},
        .flags = {"--limits-connections", "3", "--listen=127.0.0.1:5", "--listen", "127.0.0.1:6"},
    };
    load_good(&given, &config);
    assert_int_equal(config.limits_connections, 3);
    assert_int_equal(config.limits_uploads, 2);
    assert_int_equal(config.limits_manifest, 1 << 20);
    assert_int_equal(config.http_workers, 32);
    assert_int_equal(config.n_listen, 2); /* a list replaces the lower ones as a whole */
    assert_true(str_eq(config.listen[0].text, STR("127.0.0.1:5")));
    assert_true(str_eq(config.listen[1].text, STR("127.0.0.1:6")));
    assert_int_equal(config.n_trusted, 0);
    config_done(&config);

    given.flags[2] = NULL;
    load_good(&given, &config);
    assert_int_equal(config.n_listen, 2);
    assert_true(str_eq(config.listen[1].text, STR("[::1]:4")));
    config_done(&config);

    given.variables[2] = NULL;
    load_good(&given, &config);
    assert_true(str_eq(config.listen[1].text, STR("127.0.0.1:2")));
    assert_int_equal(config.n_trusted, 1);
    config_done(&config);
}

static void a_value_that_is_overridden_is_checked_all_the_same(void **state)
{
    (void)state;
    is_refused(
        &(struct given){.variables = {"HOLDFAST_LOG_LEVEL=loud"}, .flags = {"--log-level=warn"}},
        "HOLDFAST_LOG_LEVEL: \"loud\" is not debug, info, warn or error\n");
}

static void flags_are_written_in_several_ways(void **state)
{
    (void)state;
    struct config config;
    load_good(&(struct given){.flags = {"--log-access", "--data", "a", "--data=b=c",
                                        "--listen=127.0.0.1:1,127.0.0.1:2", "--http-threads=4",
                                        "--tls-key="}},
              &config);
    assert_true(config.log_access);
    assert_true(str_eq(config.data, STR("b=c"))); /* the last one counts */
    assert_string_equal(config.data.p, "b=c");    /* and is NUL-ended */
    assert_int_equal(config.n_listen, 2);
    assert_int_equal(config.http_threads, 4);
    config_done(&config);

    config = of_flag("--log-access=false");
    assert_false(config.log_access);
    config_done(&config);
}

static void wrong_flags_are_named(void **state)
{
    (void)state;
    REFUSED_FLAG("--limits-conections=5",
                 "unknown flag \"--limits-conections\"; did you mean \"--limits-connections\"?");
    REFUSED_FLAG("--limits_manifest=1MiB",
                 "unknown flag \"--limits_manifest\"; did you mean \"--limits-manifest\"?");
    REFUSED_FLAG("--certificate=x",
                 "unknown flag \"--certificate\"; did you mean \"--tls-certificate\"?");
    REFUSED_FLAG("-data", "unknown flag \"-data\"; did you mean \"--data\"?");
    REFUSED_FLAG("--confgi=x", "unknown flag \"--confgi\"; did you mean \"--config\"?");
    REFUSED_FLAG("--", "unknown flag \"--\"");
    REFUSED_FLAG("--zzz\n\x1b", "unknown flag \"--zzz\\u000a\\u001b\"");
    REFUSED_FLAG("", "unexpected argument \"\"");
    REFUSED_FLAG("here", "unexpected argument \"here\"");
    REFUSED_FLAG("--data", "--data: needs a value, as --data=PATH");
    REFUSED_FLAG("--config", "--config: needs a value, as --config=FILE");
    is_refused(&(struct given){.flags = {"--data", "--log-access"}},
               "--data: needs a value, as --data=PATH\n");
    is_refused(&(struct given){.flags = {"--log-access", "false"}},
               "unexpected argument \"false\"; write --log-access=true or =false\n");
    is_refused(&(struct given){.flags = {"--nothing-like-it", "5", "--http-queue=0"}},
               "unknown flag \"--nothing-like-it\"\n"
               "--http-queue: \"0\" is not a whole number from 1 to 1000000\n");
}

static void wrong_variables_are_named(void **state)
{
    (void)state;
    REFUSED_VARIABLE("HOLDFAST_LIMITS_MANIFST=1MiB",
                     "unknown variable \"HOLDFAST_LIMITS_MANIFST\"; did you mean "
                     "\"HOLDFAST_LIMITS_MANIFEST\"?");
    REFUSED_VARIABLE("HOLDFAST_LEVEL=info", "unknown variable \"HOLDFAST_LEVEL\"; did you mean "
                                            "\"HOLDFAST_LOG_LEVEL\"?");
    REFUSED_VARIABLE("HOLDFAST_CONFG=x", "unknown variable \"HOLDFAST_CONFG\"; did you mean "
                                         "\"HOLDFAST_CONFIG\"?");
    REFUSED_VARIABLE("HOLDFAST_=x", "unknown variable \"HOLDFAST_\"");
    REFUSED_VARIABLE("HOLDFAST_LIMITS_MANIFEST=5", "HOLDFAST_LIMITS_MANIFEST: \"5\" is not a size "
                                                   "from 64KiB to 64MiB, as 4MiB");
    REFUSED_VARIABLE("HOLDFAST_LISTEN=", "HOLDFAST_LISTEN: at least one is needed, as "
                                         "127.0.0.1:5000");
}

static void variables_of_others_are_left_alone(void **state)
{
    (void)state;
    struct config config;
    /* As Kubernetes sets them for a service "holdfast" and one "holdfast-web"; see its
     * documentation, "Discovering services". */
    load_good(&(struct given){.variables = {"HOLDFAST_TEST_CLOCK_SHIFT=5", "HOLDFASTER=1",
                                            "HOLDFAST_SERVICE_HOST=10.0.0.11",
                                            "HOLDFAST_WEB_SERVICE_PORT_HTTP=80",
                                            "HOLDFAST_PORT=tcp://10.0.0.11:5000",
                                            "HOLDFAST_PORT_5000_TCP_ADDR=10.0.0.11"}},
              &config);
    config_done(&config);
    REFUSED_VARIABLE("HOLDFAST_PORT=5000", "unknown variable \"HOLDFAST_PORT\"");
    REFUSED_VARIABLE("HOLDFAST_PORT_5000=1", "unknown variable \"HOLDFAST_PORT_5000\"");
}

/* ---- The file ---- */

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void the_file_is_the_nearest_one_that_is_named(void **state)
{
    (void)state;
    char folder[] = "/tmp/test_config.XXXXXX";
    assert_non_null(mkdtemp(folder));
    auto_arena arena = {0};
    const char *paths[3];
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        paths[i] = str_printf(&arena, "%s/%zu", folder, i + 1).p;
        write_file(paths[i], str_printf(&arena, "http: {workers: %zu}", i + 1).p);
    }
    char *variable = str_z(&arena, str_printf(&arena, "HOLDFAST_CONFIG=%s", paths[1]));
    char *flag = str_z(&arena, str_printf(&arena, "--config=%s", paths[2]));
    char *empty = str_z(&arena, STR("HOLDFAST_CONFIG="));
    char *lost = str_z(&arena, STR("--config=/nowhere/at/all"));
    char *const with_variable[] = {variable, NULL};
    char *const with_empty[] = {empty, NULL};
    char *const arguments[] = {lost, flag};
    const struct {
        struct config_sources sources;
        uint64_t workers;
    } cases[] = {
        {{.file = NULL}, 32},
        {{.file = paths[0]}, 1},
        {{.file = paths[0], .environment = with_empty}, 1},
        {{.file = paths[0], .environment = with_variable}, 2},
        {{.environment = with_variable, .arguments = arguments, .n_arguments = 2}, 3},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct config config;
        auto_buf complaints = BUF_INIT(CONFIG_COMPLAINTS_BYTES_MAX);
        assert_int_equal(config_load(&cases[i].sources, &config, &complaints), 0);
        assert_int_equal(config.http_workers, cases[i].workers);
        config_done(&config);
    }
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
        assert_int_equal(unlink(paths[i]), 0);
    assert_int_equal(rmdir(folder), 0);
}

static void a_file_that_cannot_be_read_is_named(void **state)
{
    (void)state;
    is_refused(&(struct given){.flags = {"--config", "/nowhere/holdfast.yaml"}},
               "/nowhere/holdfast.yaml: could not read the configuration: "
               "No such file or directory\n");
    is_refused(&(struct given){.flags = {"--config=/"}},
               "/: could not read the configuration: Is a directory\n");
    is_refused(&(struct given){.flags = {"--config=/dev/zero"}},
               "/dev/zero: larger than 1048576 bytes\n");
    is_refused(&(struct given){.flags = {"--config=/no\nwhere"}},
               "\"/no\\u000awhere\": could not read the configuration: "
               "No such file or directory\n");
}

static void yaml_is_read(void **state)
{
    (void)state;
    struct config config;
    load_good(&(struct given){.yaml = "---\n"
                                      "# a comment\n"
                                      "listen:\n- '127.0.0.1:0'\n- \"[::1]:0\"\n"
                                      "data: /srv/\xc3\xa9t\xc3\xa9\n"
                                      "access:\n  anonymous: none\n"
                                      "tls:\n" /* all commented out */
                                      "log: {access: false, level: \"debug\", format: json}\n"
                                      "proxy: {trusted: 10.1.2.3}\n"
                                      "...\n"},
              &config);
    assert_int_equal(config.n_listen, 2);
    assert_true(str_eq(config.data, STR("/srv/\xc3\xa9t\xc3\xa9")));
    assert_int_equal(config.access_anonymous, CONFIG_ANONYMOUS_NONE);
    assert_int_equal(config.log_level, LOG_LEVEL_DEBUG);
    assert_int_equal(config.log_format, CONFIG_LOG_JSON);
    assert_false(config.log_access);
    assert_int_equal(config.n_trusted, 1);
    config_done(&config);

    static const char *const empty[] = {"", "\n", "# nothing\n", "---\n", "{}", "---\n...\n"};
    for (size_t i = 0; i < ARRAY_SIZE(empty); i++) {
        load_good(&(struct given){.yaml = empty[i]}, &config);
        config_done(&config);
    }
}

static void wrong_yaml_is_named_with_its_line(void **state)
{
    (void)state;
    yaml_is_refused("data: x\n\nlimits:\n  connections: 5\n  conections: 5\n",
                    "test.yaml:5: unknown key \"limits.conections\"; did you mean "
                    "\"limits.connections\"?\n");
    yaml_is_refused("limit:\n  connections: {a: [1, {b: c}]}\ndata: [x]\n",
                    "test.yaml:1: unknown key \"limit\"; did you mean \"limits\"?\n"
                    "test.yaml:3: data: must be one value, and is a list\n");
    yaml_is_refused("http: {manifest: 5}\n", "test.yaml:1: unknown key \"http.manifest\"; did you "
                                             "mean \"limits.manifest\"?\n");
    yaml_is_refused("timeouts: {header: 15}\n\nlimits:\n  manifest: 9TB\n",
                    "test.yaml:1: timeouts.header: \"15\" is not a time from 1s to 10m, as 15s\n"
                    "test.yaml:4: limits.manifest: \"9TB\" is not a size from 64KiB to 64MiB, "
                    "as 4MiB\n");
    yaml_is_refused("log: {access: yes}\n", "test.yaml:1: log.access: \"yes\" is not true or "
                                            "false\n");
    yaml_is_refused("access: {anonymous: Push}",
                    "test.yaml:1: access.anonymous: \"Push\" is not none, pull or push\n");
    yaml_is_refused("data:\n", "test.yaml:1: data: has no value; leave the line out for its "
                               "default\n");
    yaml_is_refused("tls: {key: }\n", "test.yaml:1: tls.key: has no value; leave the line out, or "
                                      "write \"\"\n");
    yaml_is_refused("proxy:\n  trusted:\n", "test.yaml:2: proxy.trusted: has no value; leave the "
                                            "line out, or write []\n");
    yaml_is_refused("data: ''\n", "test.yaml:1: data: \"\" is not a path\n");
    yaml_is_refused("data: \"a\\0b\"\n", "test.yaml:1: data: \"a\\u0000b\" is not one line of "
                                         "printable UTF-8 text\n");
    yaml_is_refused("listen:\n  - 127.0.0.1:1\n  - [127.0.0.1:2]\n  - 127.0.0.1:1\n",
                    "test.yaml:3: listen: an element of the list must be one value\n"
                    "test.yaml:4: listen: \"127.0.0.1:1\" is given twice\n");
    yaml_is_refused("listen: []\n", "test.yaml:1: listen: at least one is needed, as "
                                    "127.0.0.1:5000\n");
    yaml_is_refused("listen: {a: b}\n", "test.yaml:1: listen: must be a list, and is a mapping\n");
    yaml_is_refused("tls: on\n", "test.yaml:1: \"tls\" is a section: its keys, as "
                                 "\"certificate\", stand below it\n");
    yaml_is_refused("limits.connections: 5\n",
                    "test.yaml:1: write \"limits.connections\" as a section \"limits:\" with the "
                    "key below it\n");
    yaml_is_refused("- data\n", "test.yaml:1: must be a mapping, as \"data: /var/lib/holdfast\"\n");
    yaml_is_refused("data\n", "test.yaml:1: must be a mapping, as \"data: /var/lib/holdfast\"\n");
}

static void what_is_given_twice_in_a_file_is_refused(void **state)
{
    (void)state;
    yaml_is_refused("data: a\nlog: {level: info}\ndata: b\n",
                    "test.yaml:3: \"data\" was given at line 1 already\n");
    yaml_is_refused("log:\n  level: info\n  format: json\n  level: info\n",
                    "test.yaml:4: \"log.level\" was given at line 2 already\n");
    yaml_is_refused("log: {level: info}\nlog: {level: what}\n",
                    "test.yaml:2: \"log\" was given at line 1 already\n");
}

static void yaml_beyond_keys_and_values_is_refused(void **state)
{
    (void)state;
    yaml_is_refused("data: &a x\n", "test.yaml:1: anchors (&name) are not allowed\n");
    yaml_is_refused("a: &a [x]\n", "test.yaml:1: anchors (&name) are not allowed\n");
    yaml_is_refused("data: *a\n", "test.yaml:1: aliases (*name) are not allowed\n");
    yaml_is_refused("data: !!str x\n", "test.yaml:1: tags (!name) are not allowed\n");
    yaml_is_refused("--- !x {}\n", "test.yaml:1: tags (!name) are not allowed\n");
    yaml_is_refused("data: x\n---\ndata: y\n", "test.yaml:2: a second document in the file\n");
    yaml_is_refused("? [a]\n: b\n", "test.yaml:1: a key must be a word\n");
    yaml_is_refused("\nx: [[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]\n",
                    "test.yaml:2: unknown key \"x\"\n" /* never mind the rest of it */
                    "test.yaml:2: nested too deeply\n");
    yaml_is_refused("data: x\n  log: y\n", "test.yaml:2: not valid YAML: mapping values are not "
                                           "allowed in this context\n");
    yaml_is_refused("data: \xff\xfe\n",
                    "test.yaml: not valid YAML: invalid leading UTF-8 octet at byte 6\n");
}

static void complaints_have_an_end(void **state)
{
    (void)state;
    auto_buf yaml = BUF_INIT(CONFIG_FILE_BYTES_MAX);
    for (int i = 0; i < 100000; i++)
        buf_printf(&yaml, "x%d: 1\n", i);
    struct config config;
    auto_buf complaints = BUF_INIT(CONFIG_COMPLAINTS_BYTES_MAX);
    assert_int_equal(config_load_yaml("test.yaml", buf_str(&yaml), &config, &complaints), -1);
    assert_false(complaints.overflow);
    assert_true(str_ends(buf_str(&complaints), STR("\nand more; these are the first\n")));
    size_t lines = 0;
    for (size_t i = 0; i < complaints.n; i++)
        lines += complaints.p[i] == '\n';
    assert_int_equal(lines, COMPLAINTS_MAX + 1);

    /* A buffer of the caller's that is too small fails nothing but itself. */
    auto_buf small = BUF_INIT(100);
    assert_int_equal(config_load_yaml("test.yaml", buf_str(&yaml), &config, &small), -1);
    assert_true(str_eq(str_from_at(buf_str(&small), small.n - 1), STR("\n")));
}

/* ---- Values ---- */

static void sizes_are_read(void **state)
{
    (void)state;
    /* IEC 80000-13 prefixes; SI ones are decimal. */
    static const struct {
        const char *flag;
        uint64_t bytes;
    } good[] = {
        {"--limits-manifest=65536", 65536},  {"--limits-manifest=65536B", 65536},
        {"--limits-manifest=64KiB", 65536},  {"--limits-manifest=64MiB", 67108864},
        {"--limits-manifest=100kB", 100000}, {"--limits-manifest=100KB", 100000},
        {"--limits-manifest=5MB", 5000000},  {"--limits-manifest=0000065537", 65537},
    };
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        struct config config = of_flag(good[i].flag);
        assert_true(config.limits_manifest == good[i].bytes);
        config_done(&config);
    }
    static const char *const bad[] = {
        "",
        "B",
        "MiB",
        "4M",
        "4K",
        "4mib",
        "4 MiB",
        "-4MiB",
        "4.5MiB",
        "0x400000",
        "65535",
        "67108865",
        "1GiB",
        "1TiB",
        "1TB",
        "1GB",
        "+4MiB",
        "4MiB ",
        "4MiBB",
        "0",
        "1e6",
        "16777216TiB",
        "9223372036854775807TiB",
        "18446744073709551616",
        "99999999999999999999999999MiB",
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        auto_arena arena = {0};
        is_refused(
            &(struct given){.flags = {str_printf(&arena, "--limits-manifest=%s", bad[i]).p}},
            str_printf(&arena,
                       "--limits-manifest: \"%s\" is not a size from 64KiB to 64MiB, as 4MiB\n",
                       bad[i])
                .p);
    }
}

static void times_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *flag;
        int64_t us;
    } good[] = {
        {"--timeouts-shutdown=0", 0},
        {"--timeouts-shutdown=0s", 0},
        {"--timeouts-shutdown=250ms", 250000},
        {"--timeouts-shutdown=1500ms", 1500000},
        {"--timeouts-shutdown=90s", 90000000},
        {"--timeouts-shutdown=1m30s", 90000000},
        {"--timeouts-shutdown=1h", 3600000000},
        {"--timeouts-shutdown=0d59m59s999ms", 3599999000},
        {"--uploads-expire=90d", 7776000000000},
        {"--uploads-expire=1d12h", 129600000000},
    };
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        struct config config = of_flag(good[i].flag);
        bool uploads = str_starts(str_from(good[i].flag), STR("--uploads"));
        assert_true((uploads ? config.uploads_expire : config.timeouts_shutdown) == good[i].us);
        config_done(&config);
    }
    static const char *const bad[] = {
        "",
        "s",
        "30",
        "1h1ms1s",
        "30s30s",
        "30m1h",
        "1H",
        "-1s",
        "1.5h",
        "1w",
        "30 s",
        "61m",
        "1h1ms",
        "00",
        "30sec",
        "1us",
        "1000000000000d",
        "9223372036854775807d",
        "99999999999999999999s",
        "1h9223372036854775807s",
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        auto_arena arena = {0};
        is_refused(
            &(struct given){.flags = {str_printf(&arena, "--timeouts-shutdown=%s", bad[i]).p}},
            str_printf(&arena, "--timeouts-shutdown: \"%s\" is not a time from 0s to 1h, as 30s\n",
                       bad[i])
                .p);
    }
}

static void texts_are_bounded(void **state)
{
    (void)state;
    char flag[5000];
    memset(flag, 'x', sizeof(flag));
    memcpy(flag, "--data=", strlen("--data="));
    flag[sizeof(flag) - 1] = '\0';
    struct config config;
    auto_buf complaints = BUF_INIT(CONFIG_COMPLAINTS_BYTES_MAX);
    assert_int_equal(load(&(struct given){.flags = {flag}}, &config, &complaints), -1);
    assert_true(str_ends(buf_str(&complaints), STR("x\"… is longer than 4095 bytes\n")));
    flag[strlen("--data=") + 4095] = '\0';
    load_good(&(struct given){.flags = {flag}}, &config);
    assert_int_equal(config.data.n, 4095);
    config_done(&config);
}

static void texts_are_printable(void **state)
{
    (void)state;
    /* RFC 3629, section 4: overlong, surrogate, beyond U+10FFFF, cut short; then C1 and U+2028. */
    static const char *const bad[] = {"\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82",
                                      "\x80",     "\xc2\x85",     "\xe2\x80\xa8",     "a\tb"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        auto_arena arena = {0};
        struct given given = {.flags = {str_printf(&arena, "--data=%s", bad[i]).p}};
        struct config config;
        auto_buf why = BUF_INIT(CONFIG_COMPLAINTS_BYTES_MAX);
        assert_int_equal(load(&given, &config, &why), -1);
        assert_true(str_ends(buf_str(&why), STR(" is not one line of printable UTF-8 text\n")));
    }
}

static void addresses_to_listen_on_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int family;
        const char *address;
        uint16_t port;
        bool loopback;
    } good[] = {
        {"127.0.0.1:5000", AF_INET, "127.0.0.1", 5000, true},
        {"127.8.9.10:65535", AF_INET, "127.8.9.10", 65535, true},
        {"localhost:80", AF_INET, "127.0.0.1", 80, true},
        {"0.0.0.0:0", AF_INET, "0.0.0.0", 0, false},
        {"192.0.2.1:443", AF_INET, "192.0.2.1", 443, false},
        {"[::1]:5000", AF_INET6, "::1", 5000, true},
        {"[0:0:0:0:0:0:0:1]:1", AF_INET6, "::1", 1, true},
        {"[::]:5000", AF_INET6, "::", 5000, false},
        {"[2001:db8::1]:5000", AF_INET6, "2001:db8::1", 5000, false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        struct config config;
        load_good(&(struct given){.flags = {"--access-anonymous=pull", "--listen", good[i].text}},
                  &config);
        const struct config_listen *listen = &config.listen[0];
        assert_int_equal(config.n_listen, 1);
        assert_int_equal(listen->address.ss_family, good[i].family);
        assert_int_equal(listen->loopback, good[i].loopback);
        char text[INET6_ADDRSTRLEN];
        if (good[i].family == AF_INET) {
            const struct sockaddr_in *in = (const struct sockaddr_in *)&listen->address;
            assert_int_equal(listen->address_bytes, sizeof(*in));
            assert_non_null(inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text)));
            assert_int_equal(ntohs(in->sin_port), good[i].port);
        } else {
            const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&listen->address;
            assert_int_equal(listen->address_bytes, sizeof(*in6));
            assert_non_null(inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text)));
            assert_int_equal(ntohs(in6->sin6_port), good[i].port);
        }
        assert_string_equal(text, good[i].address);
        config_done(&config);
    }
}

#define NOT_LISTEN(text, hint) \
    REFUSED_FLAG("--listen=" text, "--listen: \"" text "\" is not an address to listen on: " hint)

static void wrong_addresses_to_listen_on_say_what_to_write(void **state)
{
    (void)state;
    NOT_LISTEN("5000", "write ADDRESS:PORT, as 127.0.0.1:5000");
    NOT_LISTEN("127.0.0.1", "write ADDRESS:PORT, as 127.0.0.1:5000");
    NOT_LISTEN(":5000", "write 0.0.0.0:PORT or [::]:PORT to listen on all addresses");
    NOT_LISTEN("[]:5000", "write 0.0.0.0:PORT or [::]:PORT to listen on all addresses");
    NOT_LISTEN("::1", "write an IPv6 address in brackets and with a port, as [::1]:5000");
    NOT_LISTEN("[::1]", "write an IPv6 address in brackets and with a port, as [::1]:5000");
    NOT_LISTEN("::1:5000", "write an IPv6 address in brackets and with a port, as [::1]:5000");
    NOT_LISTEN("127.0.0.1:65536", "the port is a number from 0 to 65535");
    NOT_LISTEN("127.0.0.1:", "the port is a number from 0 to 65535");
    NOT_LISTEN("127.0.0.1:http", "the port is a number from 0 to 65535");
    NOT_LISTEN("127.0.0.1:-1", "the port is a number from 0 to 65535");
    NOT_LISTEN("[::ffff:127.0.0.1]:1",
               "write an IPv4 address without brackets and not as ::ffff:, as 127.0.0.1:5000");
    NOT_LISTEN("[127.0.0.1]:1",
               "write an IPv4 address without brackets and not as ::ffff:, as 127.0.0.1:5000");
    NOT_LISTEN("[::g]:1", "between brackets stands an IPv6 address, as [::1]:5000");
    NOT_LISTEN("registry.example.com:5000",
               "host names are not looked up: write an address of this machine, 0.0.0.0 for all of "
               "them, or localhost");
    NOT_LISTEN("1.2.3:1", "host names are not looked up: write an address of this machine, 0.0.0.0 "
                          "for all of them, or localhost");
    REFUSED_FLAG("--listen=127.0.0.1:1,localhost:1", "--listen: \"localhost:1\" is given twice");
    REFUSED_FLAG("--listen=127.0.0.1:1,",
                 "--listen: \"\" is not an address to listen on: write ADDRESS:PORT, as "
                 "127.0.0.1:5000");
    REFUSED_FLAG("--listen=127.0.0.1:1,127.0.0.1:2,127.0.0.1:3,127.0.0.1:4,127.0.0.1:5,127.0.0.1:6,"
                 "127.0.0.1:7,127.0.0.1:8,127.0.0.1:9,127.0.0.1:10,127.0.0.1:11,127.0.0.1:12,"
                 "127.0.0.1:13,127.0.0.1:14,127.0.0.1:15,127.0.0.1:16,127.0.0.1:17",
                 "--listen: \"127.0.0.1:17\" is one too many: at most 16 can be given");
}

static bool trusts(const struct config *config, const char *address)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, address, &in.sin_addr) == 1)
        return config_trusts(config, (const struct sockaddr *)&in);
    assert_int_equal(inet_pton(AF_INET6, address, &in6.sin6_addr), 1);
    return config_trusts(config, (const struct sockaddr *)&in6);
}

static void proxies_are_trusted_by_network(void **state)
{
    (void)state;
    /* Membership as RFC 4632 and RFC 4291 have it; the same as Python's ipaddress. */
    static const struct {
        const char *network;
        const char *inside[4];
        const char *outside[5];
    } cases[] = {
        {"10.0.0.0/8",
         {"10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"},
         {"9.255.255.255", "11.0.0.0", "::ffff:11.0.0.0", "a00::", "::10.0.0.1"}},
        {"192.0.2.64/27", {"192.0.2.64", "192.0.2.95"}, {"192.0.2.63", "192.0.2.96", "192.0.3.64"}},
        {"192.0.2.7", {"192.0.2.7", "::ffff:192.0.2.7"}, {"192.0.2.6", "::1"}},
        {"0.0.0.0/0", {"0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"}, {"::", "2001:db8::"}},
        {"::/0", {"::", "ffff::", "2001:db8::1"}, {"1.2.3.4", "::ffff:1.2.3.4"}},
        {"::1", {"::1"}, {"::", "::2", "127.0.0.1"}},
        {"fd00::/8", {"fd00::", "fdff:ffff::1"}, {"fc00::", "fe00::", "253.0.0.0"}},
        {"2001:db8:0:8000::/49",
         {"2001:db8:0:8000::", "2001:db8:0:ffff::1"},
         {"2001:db8:0:7fff::", "2001:db8:1:8000::"}},
        {"::ffff:10.0.0.0/104", {"10.9.9.9", "::ffff:10.9.9.9"}, {"11.0.0.0", "::a00:0"}},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct config config;
        load_good(&(struct given){.flags = {"--proxy-trusted", cases[i].network}}, &config);
        for (size_t j = 0; j < ARRAY_SIZE(cases[i].inside) && cases[i].inside[j] != NULL; j++)
            assert_true(trusts(&config, cases[i].inside[j]));
        for (size_t j = 0; j < ARRAY_SIZE(cases[i].outside) && cases[i].outside[j] != NULL; j++)
            assert_false(trusts(&config, cases[i].outside[j]));
        assert_false(config_trusts(&config, &(struct sockaddr){.sa_family = AF_UNIX}));
        config_done(&config);
    }
    struct config config;
    load_good(&(struct given){0}, &config);
    assert_false(trusts(&config, "127.0.0.1")); /* nobody by default */
    config_done(&config);
}

static void wrong_networks_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"proxy",     "10.0.0.0/33", "10.0.0/8",     "::/129",
                                      "10.0.0.0/", "/8",          "10.0.0.0/+8",  "10.0.0.0/8/8",
                                      "[::1]",     "fe80::1%lo",  "::ffff:0:0/95"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        auto_arena arena = {0};
        is_refused(
            &(struct given){.flags = {str_printf(&arena, "--proxy-trusted=%s", bad[i]).p}},
            str_printf(&arena,
                       "--proxy-trusted: \"%s\" is not an address or a network, as 10.0.0.0/8\n",
                       bad[i])
                .p);
    }
    REFUSED_FLAG("--proxy-trusted=10.1.2.3/8",
                 "--proxy-trusted: \"10.1.2.3/8\" names an address and not a network; did you mean "
                 "\"10.0.0.0/8\", or \"10.1.2.3\" without /8?");
}

/* ---- What must go together ---- */

static void tls_settings_must_go_together(void **state)
{
    (void)state;
    REFUSED_FLAG("--tls-certificate=c.pem",
                 "--tls-certificate: needs tls.key, the file of its private key");
    REFUSED_VARIABLE("HOLDFAST_TLS_KEY=k.pem",
                     "HOLDFAST_TLS_KEY: needs tls.certificate, the file of its certificate");
    yaml_is_refused("tls:\n  client_auth: required\n",
                    "test.yaml:2: tls.client_auth: needs tls.client_ca, the file of the CAs that "
                    "are believed\n"
                    "test.yaml:2: tls.client_auth: needs TLS: give tls.certificate and tls.key\n");
    yaml_is_refused("tls: {certificate: c, key: k, client_ca: ca}",
                    "test.yaml:1: tls.client_ca: has no effect while tls.client_auth is none; set "
                    "it to optional or required, or leave tls.client_ca out\n");
    struct config config;
    load_good(
        &(struct given){.yaml =
                            "tls: {certificate: c, key: k, client_ca: ca, client_auth: optional}"},
        &config);
    assert_int_equal(config.tls_client_auth, CONFIG_CLIENT_AUTH_OPTIONAL);
    config_done(&config);
}

static void strangers_are_not_let_in_by_accident(void **state)
{
    (void)state;
    static const char refusal[] =
        "--listen: \"0.0.0.0:5000\" is not a loopback address, and access.anonymous is push: "
        "anybody who reaches it could push and delete; either listen on a loopback address, as "
        "127.0.0.1:5000; or set access.anonymous to pull or none; or, if only friends reach it, "
        "set access.anonymous_push_anywhere to true\n";
    is_refused(&(struct given){.flags = {"--listen=127.0.0.1:1", "--listen=0.0.0.0:5000",
                                         "--listen=[::]:5000"}},
               refusal);
    static const char *const ways_out[] = {"--access-anonymous=pull", "--access-anonymous=none",
                                           "--access-anonymous-push-anywhere"};
    struct sockaddr_in anywhere = {.sin_family = AF_INET};
    struct sockaddr_in loopback = {.sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr local = {.sa_family = AF_UNIX};
    struct config config;
    for (size_t i = 0; i < ARRAY_SIZE(ways_out); i++) {
        load_good(&(struct given){.flags = {"--listen=0.0.0.0:5000", ways_out[i]}}, &config);
        assert_true(config_may_listen(&config, (const struct sockaddr *)&anywhere));
        config_done(&config);
    }
    /* With certificates required, nobody is anonymous. */
    load_good(&(struct given){.yaml = "listen: '[::]:5000'\n"
                                      "tls: {certificate: c, key: k, client_ca: ca, "
                                      "client_auth: required}\n"},
              &config);
    config_done(&config);
    load_good(&(struct given){0}, &config);
    assert_false(config_may_listen(&config, (const struct sockaddr *)&anywhere));
    assert_true(config_may_listen(&config, (const struct sockaddr *)&loopback));
    assert_true(config_may_listen(&config, &local));
    config_done(&config);
}

/* ---- Database and object store ---- */

static void urls_of_databases_are_read(void **state)
{
    (void)state;
    /* Those of PostgreSQL 15's documentation, "Connection URIs", and their like. */
    static const char *const good[] = {
        "postgresql://",
        "postgresql://localhost",
        "postgresql://localhost:5433",
        "postgresql://localhost/mydb",
        "postgresql://user@localhost",
        "postgresql://user:secret@localhost",
        "postgresql://other@localhost/otherdb?connect_timeout=10&application_name=myapp",
        "postgresql://host1:123,host2:456/somedb?target_session_attrs=any",
        "postgresql:///mydb?host=localhost&port=5433",
        "postgresql://[2001:db8::1234]/database",
        "postgresql://[::1]:5432/database",
        "postgresql:///dbname?host=/var/lib/postgresql",
        "postgresql://%2Fvar%2Flib%2Fpostgresql/dbname",
        "postgres://user:p%40ss%2Fw%3F@db.example.com:5432/holdfast?sslmode=verify-full",
    };
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        struct config config;
        load_good(&(struct given){.flags = {"--metadata", good[i]}}, &config);
        assert_string_equal(config.metadata.p, good[i]);
        config_done(&config);
    }
}

#define DATABASE_FORM "write postgres://USER:PASSWORD@HOST:PORT/NAME"
#define DATABASE_PERCENT \
    "spaces, '#', '%' and letters beyond ASCII are written percent-encoded, as %20, %23 and %25"
#define DATABASE_AT                                                                               \
    "'@', '/' and '?' in a user, a password or a parameter are written percent-encoded, as %40, " \
    "%2F and %3F"
#define DATABASE_HOST "behind the '@' stands HOST or HOST:PORT, as db.example.com:5432"
#define DATABASE_QUERY "behind the '?' stand NAME=VALUE, with '&' between them"

static void wrong_urls_of_databases_are_refused_without_showing_them(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        const char *hint;
    } bad[] = {
        {"mysql://user:hunter2@host/db", DATABASE_FORM},
        {"host=db user=holdfast password=hunter2", DATABASE_FORM},
        {"Postgres://host", DATABASE_FORM},
        {"sqlite", DATABASE_FORM},
        {"postgres://user:hunter 2@host/db", DATABASE_PERCENT},
        {"postgres://user:hunter2#@host/db", DATABASE_PERCENT},
        {"postgres://user:hunter2%@host/db", DATABASE_PERCENT},
        {"postgres://user:hunter%2", DATABASE_PERCENT},
        {"postgres://user:hunter2%00@host/db", DATABASE_PERCENT},
        {"postgres://user:h\xc3\xbcnter2@host/db", DATABASE_PERCENT},
        {"postgres://user:hunt@er2@host/db", DATABASE_AT},
        {"postgres://user:hunt/er2@host/db", DATABASE_AT},
        {"postgres://user:hunt?er2@host/db", DATABASE_AT},
        {"postgres://user:hunter2", DATABASE_HOST},
        {"postgres://user:hunter2/db", DATABASE_HOST},
        {"postgres://user:hunter2@host:/db", DATABASE_HOST},
        {"postgres://user:hunter2@host:0/db", DATABASE_HOST},
        {"postgres://user:hunter2@host:65536/db", DATABASE_HOST},
        {"postgres://user:hunter2@host:5432:5432/db", DATABASE_HOST},
        {"postgres://user:hunter2@[::1/db", DATABASE_HOST},
        {"postgres://user:hunter2@[::1]:/db", DATABASE_HOST},
        {"postgres://user:hunter2@[::1]5432/db", DATABASE_HOST},
        {"postgres://user:hunter2@[]/db", DATABASE_HOST},
        {"postgres://user:hunter2@host/db?hunter2", DATABASE_QUERY},
        {"postgres://user:hunter2@host/db?password=hunter2=3", DATABASE_QUERY},
        {"postgres://user:hunter2@host/db?=hunter2", DATABASE_QUERY},
        {"postgres://user:hunter2@host/db?pass%77ord=hunter2", DATABASE_QUERY},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        auto_arena arena = {0};
        variable_is_refused(
            str_printf(&arena, "HOLDFAST_METADATA=%s", bad[i].url).p,
            str_printf(&arena, "HOLDFAST_METADATA: is not the URL of a database: %s\n", bad[i].hint)
                .p);
    }
    REFUSED_VARIABLE("HOLDFAST_METADATA=postgres://user:hunter2\t@host",
                     "HOLDFAST_METADATA: is not one line of printable UTF-8 text");
    char secret[5000];
    memset(secret, 'x', sizeof(secret));
    memcpy(secret, "--s3-secret-key=", strlen("--s3-secret-key="));
    secret[sizeof(secret) - 1] = '\0';
    flag_is_refused(secret, "--s3-secret-key: is longer than 4095 bytes\n");
}

static void places_of_blobs_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *blobs;
        const char *bucket;
        const char *prefix;
    } good[] = {
        {"s3://abc", "abc", ""},
        {"s3://my.registry-1.example", "my.registry-1.example", ""},
        {"s3://1.2.3.4a", "1.2.3.4a", ""},
        {"s3://registry/prod", "registry", "prod/"},
        {"s3://registry/a/b_c/d.e-f/..g/h..", "registry", "a/b_c/d.e-f/..g/h../"},
        {"s3://a23456789012345678901234567890123456789012345678901234567890123",
         "a23456789012345678901234567890123456789012345678901234567890123", ""},
    };
    struct config config;
    struct str bucket = STR("as before");
    struct str prefix = STR("as before");
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        load_good(&(struct given){.flags = {"--blobs", good[i].blobs}}, &config);
        assert_int_equal(config_s3_location(&config, &bucket, &prefix), 0);
        assert_string_equal(bucket.p, good[i].bucket);
        assert_string_equal(prefix.p, good[i].prefix);
        assert_int_equal(bucket.n, strlen(good[i].bucket));
        assert_int_equal(prefix.n, strlen(good[i].prefix));
        config_done(&config);
    }
    load_good(&(struct given){0}, &config);
    bucket = STR("as before");
    assert_int_equal(config_s3_location(&config, &bucket, &prefix), -1);
    assert_string_equal(bucket.p, "as before");
    config_done(&config);
}

#define NOT_BLOBS(text, hint) \
    REFUSED_FLAG("--blobs=" text, "--blobs: \"" text "\" is not a blob store: " hint)
#define BUCKET_FORM                                                                             \
    "a bucket's name has 3 to 63 lower-case letters, digits, '.' and '-', and begins and ends " \
    "with "                                                                                     \
    "a letter or a digit"

static void wrong_places_of_blobs_say_what_to_write(void **state)
{
    (void)state;
    NOT_BLOBS("/var/lib/blobs", "write s3://BUCKET or s3://BUCKET/PREFIX");
    NOT_BLOBS("S3://bucket", "write s3://BUCKET or s3://BUCKET/PREFIX");
    NOT_BLOBS("https://bucket.s3.amazonaws.com", "write s3://BUCKET or s3://BUCKET/PREFIX");
    NOT_BLOBS("s3://", BUCKET_FORM);
    NOT_BLOBS("s3://ab", BUCKET_FORM);
    NOT_BLOBS("s3:///prefix", BUCKET_FORM);
    NOT_BLOBS("s3://Bucket", BUCKET_FORM);
    NOT_BLOBS("s3://-bucket", BUCKET_FORM);
    NOT_BLOBS("s3://bucket-", BUCKET_FORM);
    NOT_BLOBS("s3://bucket.", BUCKET_FORM);
    NOT_BLOBS("s3://my_bucket", BUCKET_FORM);
    NOT_BLOBS("s3://bucket:9000", BUCKET_FORM);
    NOT_BLOBS("s3://a234567890123456789012345678901234567890123456789012345678901234", BUCKET_FORM);
    NOT_BLOBS("s3://my..bucket", "a bucket's name has no two '.' beside each other");
    NOT_BLOBS("s3://192.168.5.4", "a bucket's name is not an IP address");
    NOT_BLOBS("s3://bucket/", "leave the '/' at its end out");
    NOT_BLOBS("s3://bucket//a", "a prefix has no '/' at its ends, nor two beside each other");
    NOT_BLOBS("s3://bucket/a/", "a prefix has no '/' at its ends, nor two beside each other");
    NOT_BLOBS("s3://bucket/a//b", "a prefix has no '/' at its ends, nor two beside each other");
    NOT_BLOBS("s3://bucket/..", "a prefix has no parts \".\" and \"..\"");
    NOT_BLOBS("s3://bucket/a/../b", "a prefix has no parts \".\" and \"..\"");
    NOT_BLOBS("s3://bucket/a/.", "a prefix has no parts \".\" and \"..\"");
    NOT_BLOBS("s3://bucket/a b", "a prefix has at most 200 letters, digits, '.', '-', '_' and '/'");
    NOT_BLOBS("s3://bucket/a?b=c",
              "a prefix has at most 200 letters, digits, '.', '-', '_' and '/'");
    char flag[300] = "--blobs=s3://bucket/";
    size_t begin = strlen(flag);
    memset(flag + begin, 'x', 200);
    struct config config = of_flag(flag);
    assert_int_equal(config.blobs_prefix.n, 201);
    config_done(&config);
    flag[begin + 200] = 'x';
    auto_buf complaints = BUF_INIT(CONFIG_COMPLAINTS_BYTES_MAX);
    assert_int_equal(load(&(struct given){.flags = {flag}}, &config, &complaints), -1);
    assert_non_null(strstr(complaints.p, "a prefix has at most 200 letters"));
}

/* With an object store around it. */
ON_ITS_OWN static void store_takes(const char *flag)
{
    struct config config;
    load_good(&(struct given){.flags = {"--blobs=s3://bucket", flag}}, &config);
    config_done(&config);
}
#define STORE_REFUSES(flag, expected) \
    is_refused(&(struct given){.flags = {"--blobs=s3://bucket", flag}}, expected "\n")
#define NOT_ENDPOINT(text, hint)         \
    STORE_REFUSES("--s3-endpoint=" text, \
                  "--s3-endpoint: \"" text "\" is not the URL of an object store: " hint)
#define NOT_BASE(text, hint)              \
    STORE_REFUSES("--redirect-url=" text, \
                  "--redirect-url: \"" text "\" is not the base of URLs: " hint)

static void urls_of_object_stores_are_read(void **state)
{
    (void)state;
    static const char *const good[] = {"https://s3.example.com", "http://127.0.0.1:9000",
                                       "https://[2001:db8::1]:443", "http://[::1]",
                                       "http://minio:65535"};
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        auto_arena arena = {0};
        store_takes(str_printf(&arena, "--s3-endpoint=%s", good[i]).p);
        store_takes(str_printf(&arena, "--redirect-url=%s", good[i]).p);
    }
    store_takes("--redirect-url=https://cdn.example.com/a/b%20c");

    static const char form[] = "write https://HOST or https://HOST:PORT\n";
    static const char *const bad[] = {"s3.example.com",  "ftp://host",      "https://",
                                      "https://:443",    "https://h:",      "https://h:0",
                                      "https://h:65536", "https://h:80:80", "https://h_h",
                                      "https://[::1",    "https://[::1]:",  "https://h h"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        auto_arena arena = {0};
        is_refused(&(struct given){.flags = {"--blobs=s3://bucket", "--s3-endpoint", bad[i]}},
                   str_printf(&arena, "--s3-endpoint: \"%s\" is not the URL of an object store: %s",
                              bad[i], form)
                       .p);
        is_refused(
            &(struct given){.flags = {"--blobs=s3://bucket", "--redirect-url", bad[i]}},
            str_printf(&arena, "--redirect-url: \"%s\" is not the base of URLs: %s", bad[i], form)
                .p);
    }
    NOT_ENDPOINT("https://host/",
                 "write it without a path, as https://HOST:PORT; the bucket is part of blobs");
    NOT_ENDPOINT("https://host/bucket",
                 "write it without a path, as https://HOST:PORT; the bucket is part of blobs");
    NOT_ENDPOINT("https://host?a=b", "write it without '?' and '#', and what stands behind them");
    NOT_BASE("https://host/a?b=c", "write it without '?' and '#', and what stands behind them");
    NOT_BASE("https://host/#a", "write it without '?' and '#', and what stands behind them");
    NOT_BASE("https://host/", "leave the '/' at its end out");
    NOT_BASE("https://host/a b", "other characters are written percent-encoded in a path");
    NOT_BASE("https://host/a%2", "other characters are written percent-encoded in a path");
    STORE_REFUSES("--s3-endpoint=https://key:hunter2@host",
                  "--s3-endpoint: \"https://key:********@host\" is not the URL of an object store: "
                  "write it without user and password: s3.access_key and s3.secret_key are for "
                  "them");
}

static void what_goes_into_signatures_is_bounded(void **state)
{
    (void)state;
    static const char region[] = "it has at most 64 letters, digits, '-', '_' and '.', as "
                                 "eu-central-1\n";
    store_takes("--s3-region=eu-central-1");
    store_takes("--s3-region=RegionOne");
    static const char *const bad[] = {"eu central 1", "eu/central", "\xc3\xa9u"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        auto_arena arena = {0};
        is_refused(&(struct given){.flags = {"--blobs=s3://bucket", "--s3-region", bad[i]}},
                   str_printf(&arena, "--s3-region: \"%s\" is not a region: %s", bad[i], region).p);
    }
    STORE_REFUSES("--s3-access-key=AK/ID",
                  "--s3-access-key: \"AK/ID\" is not an access key: it has at most 512 visible "
                  "ASCII characters, and no '/' and ','");
    STORE_REFUSES("--s3-encryption-key=a b",
                  "--s3-encryption-key: \"a b\" is not a key's name: it has at most 512 visible "
                  "ASCII characters");
    STORE_REFUSES("--redirect-expire=8d", /* SigV4's bound is 604800 seconds */
                  "--redirect-expire: \"8d\" is not a time from 10s to 7d, as 20m");
}

static void settings_of_stores_must_go_together(void **state)
{
    (void)state;
    STORE_REFUSES("--s3-access-key=AKID", "--s3-access-key: needs s3.secret_key");
    STORE_REFUSES("--s3-secret-key=hunter2", "--s3-secret-key: needs s3.access_key");
    STORE_REFUSES("--s3-encryption-key=alias/key",
                  "--s3-encryption-key: has no effect while s3.encryption is not aws:kms; set it, "
                  "or leave s3.encryption_key out");
    is_refused(&(struct given){.yaml = "blobs: s3://bucket\n",
                               .flags = {"--s3-ca=ca.pem", "--s3-endpoint=http://host"}},
               "--s3-ca: has no effect while s3.endpoint is an http:// URL\n");
    yaml_is_refused("s3:\n  endpoint: https://host\n  part_size: 16MiB\n  patience: 31s\n"
                    "redirect:\n  url: https://cdn\n  enabled: false\n",
                    "test.yaml:2: s3.endpoint: has no effect while blobs are files; set blobs to "
                    "s3://BUCKET, or leave this out\n"
                    "test.yaml:4: s3.patience: has no effect while blobs are files; set blobs to "
                    "s3://BUCKET, or leave this out\n"
                    "test.yaml:6: redirect.url: has no effect while blobs are files; set blobs to "
                    "s3://BUCKET, or leave this out\n");
    REFUSED_VARIABLE("HOLDFAST_S3_SECRET_KEY=hunter2",
                     "HOLDFAST_S3_SECRET_KEY: has no effect while blobs are files; set blobs to "
                     "s3://BUCKET, or leave this out");

    static const struct {
        const char *word;
        const char *header;
    } encryptions[] = {{"none", ""}, {"AES256", "AES256"}, {"aws:kms", "aws:kms"}};
    for (size_t i = 0; i < ARRAY_SIZE(encryptions); i++) {
        struct config config;
        load_good(
            &(struct given){.flags = {"--blobs=s3://bucket", "--s3-encryption", encryptions[i].word,
                                      "--s3-access-key=a", "--s3-secret-key=b",
                                      i == 2 ? "--s3-encryption-key=alias/key" : NULL}},
            &config);
        assert_string_equal(config_s3_encryption(&config), encryptions[i].header);
        config_done(&config);
    }
}

/* ---- Secrets ---- */

static void passwords_of_urls_are_masked(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *masked;
    } cases[] = {
        {"", ""},
        {"a:b@c", "a:b@c"}, /* no URL */
        {"postgres://host:5432/db", "postgres://host:5432/db"},
        {"postgres://user@host:5432/db", "postgres://user@host:5432/db"},
        {"postgres://user:@host", "postgres://user:@host"},
        {"postgres://user:hunter2@host:5432/db", "postgres://user:********@host:5432/db"},
        {"postgres://:hunter2@host", "postgres://:********@host"},
        {"postgres://user:hun@ter:2/@host/db", "postgres://user:********@host/db"},
        {"x postgres://user:hunter2@host", "x postgres://user:********@host"},
        {"a,postgres://b:c@d,https://e:f@g", "a,postgres://b:********@g"},
        {"postgres://h/db?password=hunter2", "postgres://h/db?password=********"},
        {"postgres://u:p@h/db?a=b&PassWord=hunter2&sslpassword=x=y&c=d",
         "postgres://u:********@h/db?a=b&PassWord=********&sslpassword=********&c=d"},
        {"postgres://h/db?password=&passwords=3&a&", "postgres://h/db?password=&passwords=3&a&"},
        {"postgres://h/db?password=hunter2&user=a@b", "postgres://h/db?password=********&user=a@b"},
        {"://", "://"},
        {"://:@", "://:@"},
        {"://:x@?password=y", "://:********@?password=********"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        auto_buf masked = BUF_INIT(1000);
        config_add_masked(&masked, str_from(cases[i].text));
        assert_int_equal(masked.n, strlen(cases[i].masked));
        if (masked.n > 0)
            assert_string_equal(masked.p, cases[i].masked);
    }
}

static void secrets_are_not_in_complaints(void **state)
{
    (void)state;
    REFUSED_FLAG("postgres://user:hunter2@host/db",
                 "unexpected argument \"postgres://user:********@host/db\"");
    REFUSED_FLAG("--blobs=postgres://user:hunter2@host/db",
                 "--blobs: \"postgres://user:********@host/db\" is not a blob store: write "
                 "s3://BUCKET or s3://BUCKET/PREFIX");
    yaml_is_refused("{metadata:postgres://user:hunter2@host/db}",
                    "test.yaml:1: unknown key \"metadata:postgres://user:********@host/db\"\n");
    is_refused(&(struct given){.flags = {"--s3-secret-key", "hunter", "2"}},
               "unexpected argument behind the value of --s3-secret-key; quote the value\n");
    is_refused(&(struct given){.flags = {"--s3-secret-key", "--hunter2"}},
               "--s3-secret-key: needs a value, as --s3-secret-key=SECRET\n");
    is_refused(&(struct given){.flags = {"--s3-secret-kye", "hunter2"}},
               "unknown flag \"--s3-secret-kye\"; did you mean \"--s3-secret-key\"?\n");
    yaml_is_refused("s3: {secret_key: [hunter2]}\n",
                    "test.yaml:1: s3.secret_key: must be one value, and is a list\n");
    yaml_is_refused("s3: {secret_key: {file: /run/secrets/key}}\n",
                    "test.yaml:1: s3.secret_key: must be one value, and is a mapping\n");
    yaml_is_refused("s3:\n  secret_key:\n", "test.yaml:2: s3.secret_key: has no value; leave the "
                                            "line out, or write \"\"\n");
}

static void secrets_are_not_printed(void **state)
{
    (void)state;
    struct config config;
    load_good(&(struct given){.yaml = "metadata: postgres://user:hunter2@host/db\n"
                                      "blobs: s3://bucket\n"
                                      "s3: {access_key: AKID, secret_key: \"hunter \\\" 3\"}\n"},
              &config);
    assert_string_equal(config.s3_secret_key.p, "hunter \" 3");
    auto_buf printed = BUF_INIT(CONFIG_FILE_BYTES_MAX);
    config_print(&config, &printed);
    config_done(&config);
    assert_null(strstr(printed.p, "hunter"));
    assert_non_null(strstr(printed.p, "\nmetadata: \"postgres://user:********@host/db\"\n"));
    assert_non_null(strstr(printed.p, "\n  access_key: \"AKID\"\n"));
    assert_non_null(strstr(printed.p, "\n  secret_key: \"********\"\n"));

    auto_buf complaints = BUF_INIT(CONFIG_COMPLAINTS_BYTES_MAX);
    assert_int_equal(config_load_yaml("p", buf_str(&printed), &config, &complaints), -1);
    struct str rest = buf_str(&complaints);
    struct str why = STR(" has ******** where check-config leaves out what is secret; write the "
                         "secret itself, or file:PATH");
    assert_true(str_ends(str_cut(&rest, '\n'), why));
    assert_true(str_ends(str_cut(&rest, '\n'), why));
    assert_int_equal(rest.n, 0);

    /* Nothing secret in it: it is printed as it is. */
    load_good(&(struct given){.flags = {"--metadata=postgres://user@host:1/db?sslmode=disable"}},
              &config);
    auto_buf plain = BUF_INIT(CONFIG_FILE_BYTES_MAX);
    config_print(&config, &plain);
    config_done(&config);
    assert_non_null(strstr(plain.p, "\nmetadata: \"postgres://user@host:1/db?sslmode=disable\"\n"));
    assert_non_null(strstr(plain.p, "\n  secret_key: \"\"\n"));
}

/* Two files, for the tests that need secrets in some. */
struct secret_files {
    char folder[32];
    char url[48];
    char key[48];
};

static void secret_files_make(struct secret_files *files, const char *url, const char *key)
{
    (void)snprintf(files->folder, sizeof(files->folder), "/tmp/test_config.XXXXXX");
    assert_non_null(mkdtemp(files->folder));
    (void)snprintf(files->url, sizeof(files->url), "%s/url", files->folder);
    (void)snprintf(files->key, sizeof(files->key), "%s/key", files->folder);
    write_file(files->url, url);
    write_file(files->key, key);
}

static void secret_files_done(const struct secret_files *files)
{
    assert_int_equal(unlink(files->url), 0);
    assert_int_equal(unlink(files->key), 0);
    assert_int_equal(rmdir(files->folder), 0);
}

static void secrets_may_be_in_files(void **state)
{
    (void)state;
    struct secret_files files;
    secret_files_make(&files, "postgres://user:hunter2@host/db\n", "hunter \" 3\r\n");
    auto_arena arena = {0};
    const char *both = "--s3-access-key=AKID";
    const char *blobs = "--blobs=s3://bucket";
    struct given cases[] = {
        {.flags = {blobs, both, "--metadata", str_printf(&arena, "file:%s", files.url).p,
                   str_printf(&arena, "--s3-secret-key=file:%s", files.key).p}},
        {.flags = {blobs, both},
         .variables = {str_printf(&arena, "HOLDFAST_METADATA=file:%s", files.url).p,
                       str_printf(&arena, "HOLDFAST_S3_SECRET_KEY=file://%s", files.key).p}},
        {.flags = {blobs, both},
         .yaml = str_printf(&arena, "metadata: file:%s\ns3: {secret_key: 'file:%s'}\n", files.url,
                            files.key)
                     .p},
        /* What is overridden is not read. */
        {.flags = {blobs, both},
         .variables = {str_printf(&arena, "HOLDFAST_METADATA=file:%s", files.url).p,
                       str_printf(&arena, "HOLDFAST_S3_SECRET_KEY=file:%s", files.key).p},
         .yaml = "metadata: file:/nowhere\ns3: {secret_key: 'file:/nowhere'}\n"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct config config;
        load_good(&cases[i], &config);
        assert_string_equal(config.metadata.p, "postgres://user:hunter2@host/db");
        assert_string_equal(config.s3_secret_key.p, "hunter \" 3");

        /* What is printed has the file, and can be used. */
        auto_buf printed = BUF_INIT(CONFIG_FILE_BYTES_MAX);
        config_print(&config, &printed);
        config_done(&config);
        assert_null(strstr(printed.p, "hunter"));
        assert_non_null(
            strstr(printed.p, str_printf(&arena, "\nmetadata: \"file:%s\"\n", files.url).p));
        load_good(&(struct given){.yaml = printed.p}, &config);
        assert_string_equal(config.s3_secret_key.p, "hunter \" 3");
        config_done(&config);
    }
    /* A value itself goes before a file, and the file is forgotten. */
    struct config config;
    load_good(&(struct given){.yaml = str_printf(&arena, "metadata: file:%s\n", files.url).p,
                              .flags = {"--metadata="}},
              &config);
    assert_int_equal(config.metadata.n, 0);
    assert_int_equal(config.metadata_file.n, 0);
    config_done(&config);
    secret_files_done(&files);
}

static void files_of_secrets_that_cannot_be_used_are_named(void **state)
{
    (void)state;
    struct secret_files files;
    secret_files_make(&files, "mysql://user:hunter2@host/db\n", "\n");
    auto_arena arena = {0};
    const char *metadata = str_printf(&arena, "--metadata=file:%s", files.url).p;
    const char *key = str_printf(&arena, "--s3-secret-key=file:%s", files.key).p;
    flag_is_refused(metadata, str_printf(&arena,
                                         "--metadata: what \"%s\" holds is not the URL of a "
                                         "database: " DATABASE_FORM "\n",
                                         files.url)
                                  .p);
    flag_is_refused(key, str_printf(&arena, "--s3-secret-key: \"%s\" is empty\n", files.key).p);
    write_file(files.key, "two\nlines\n");
    flag_is_refused(key, str_printf(&arena,
                                    "--s3-secret-key: what \"%s\" holds is not one line of "
                                    "printable UTF-8 text\n",
                                    files.key)
                             .p);
    write_file(files.key, "********\n");
    flag_is_refused(key, str_printf(&arena,
                                    "--s3-secret-key: what \"%s\" holds has ******** where "
                                    "check-config leaves out what is secret; write the secret "
                                    "itself, or file:PATH\n",
                                    files.key)
                             .p);
    secret_files_done(&files);

    REFUSED_FLAG("--s3-secret-key=file:/nowhere/key",
                 "--s3-secret-key: could not read \"/nowhere/key\": No such file or directory");
    REFUSED_FLAG("--s3-secret-key=file:/", "--s3-secret-key: could not read \"/\": Is a directory");
    REFUSED_FLAG("--s3-secret-key=file:/dev/zero",
                 "--s3-secret-key: \"/dev/zero\" is larger than 4095 bytes");
    REFUSED_FLAG("--s3-secret-key=file:", "--s3-secret-key: needs the path of a file behind file:");
    /* The habit of other programs. */
    REFUSED_VARIABLE("HOLDFAST_S3_SECRET_KEY_FILE=/run/secrets/key",
                     "unknown variable \"HOLDFAST_S3_SECRET_KEY_FILE\"; write "
                     "HOLDFAST_S3_SECRET_KEY=file:PATH");
    REFUSED_VARIABLE("HOLDFAST_DATA_FILE=x", "unknown variable \"HOLDFAST_DATA_FILE\"");
}

/* ---- Writing ---- */

static void what_is_printed_is_read_back(void **state)
{
    (void)state;
    struct config config;
    load_good(&(struct given){.yaml = "listen: ['0.0.0.0:1', 'localhost:0', '[::1]:2']\n"
                                      "data: \"/a \\\"b\\\" \\\\ # \xe2\x82\xac: {x}\"\n"
                                      "access: {anonymous: none}\n"
                                      "tls: {certificate: c, key: k}\n"
                                      "proxy: {trusted: [10.0.0.0/8, '::1', 'fd00::/8']}\n"
                                      "limits: {manifest: 65537}\n"
                                      "timeouts: {header: 1m1ms, idle: 1h, shutdown: 0}\n"
                                      "log: {access: false}\n"},
              &config);
    auto_buf printed = BUF_INIT(CONFIG_FILE_BYTES_MAX);
    config_print(&config, &printed);
    config_done(&config);

    static const char *const lines[] = {
        "\n  - \"localhost:0\"\n", "\ndata: \"/a \\\"b\\\" \\\\ # \xe2\x82\xac: {x}\"\n",
        "\n  anonymous: none\n",   "\n    - \"10.0.0.0/8\"\n    - \"::1\"\n    - \"fd00::/8\"\n",
        "\n  manifest: 65537B\n",  "\n  header: 60001ms\n",
        "\n  idle: 1h\n",          "\n  shutdown: 0\n",
        "\n  body: 60s\n",         "\n  access: false\n",
    };
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
        if (strstr(printed.p, lines[i]) == NULL)
            fail_msg("not printed: %s", lines[i]);

    load_good(&(struct given){.yaml = printed.p}, &config);
    assert_int_equal(config.n_listen, 3);
    assert_true(str_eq(config.data, STR("/a \"b\" \\ # \xe2\x82\xac: {x}")));
    assert_int_equal(config.timeouts_header, 60001000);
    auto_buf again = BUF_INIT(CONFIG_FILE_BYTES_MAX);
    config_print(&config, &again);
    assert_string_equal(again.p, printed.p);
    config_done(&config);
}

static void each_setting_has_its_own_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < SETTINGS; i++)
        for (enum spelling spelling = SPELLING_KEY; spelling <= SPELLING_VARIABLE; spelling++) {
            char name[SETTING_NAME_BYTES];
            struct str spelt = setting_spell(&settings[i], spelling, name);
            assert_ptr_equal(setting_find(spelt, spelling), &settings[i]);
        }
    /* Keys of a section stand together, or config_print would write it twice. */
    for (size_t i = 1; i < SETTINGS; i++) {
        struct str section = setting_section(&settings[i]);
        if (!str_eq(section, setting_section(&settings[i - 1])) && section.n > 0)
            assert_ptr_equal(setting_section_find(section), &settings[i]);
    }
    char name[SETTING_NAME_BYTES];
    assert_string_equal(
        setting_spell(&settings[SETTING_limits_connections_per_address], SPELLING_FLAG, name).p,
        "--limits-connections-per-address");
    assert_string_equal(
        setting_spell(&settings[SETTING_limits_connections_per_address], SPELLING_VARIABLE, name).p,
        "HOLDFAST_LIMITS_CONNECTIONS_PER_ADDRESS");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_given_gives_the_defaults),
        cmocka_unit_test(flag_goes_before_variable_before_file),
        cmocka_unit_test(a_value_that_is_overridden_is_checked_all_the_same),
        cmocka_unit_test(flags_are_written_in_several_ways),
        cmocka_unit_test(wrong_flags_are_named),
        cmocka_unit_test(wrong_variables_are_named),
        cmocka_unit_test(variables_of_others_are_left_alone),
        cmocka_unit_test(the_file_is_the_nearest_one_that_is_named),
        cmocka_unit_test(a_file_that_cannot_be_read_is_named),
        cmocka_unit_test(yaml_is_read),
        cmocka_unit_test(wrong_yaml_is_named_with_its_line),
        cmocka_unit_test(what_is_given_twice_in_a_file_is_refused),
        cmocka_unit_test(yaml_beyond_keys_and_values_is_refused),
        cmocka_unit_test(complaints_have_an_end),
        cmocka_unit_test(sizes_are_read),
        cmocka_unit_test(times_are_read),
        cmocka_unit_test(texts_are_bounded),
        cmocka_unit_test(texts_are_printable),
        cmocka_unit_test(addresses_to_listen_on_are_read),
        cmocka_unit_test(wrong_addresses_to_listen_on_say_what_to_write),
        cmocka_unit_test(proxies_are_trusted_by_network),
        cmocka_unit_test(wrong_networks_are_refused),
        cmocka_unit_test(tls_settings_must_go_together),
        cmocka_unit_test(strangers_are_not_let_in_by_accident),
        cmocka_unit_test(urls_of_databases_are_read),
        cmocka_unit_test(wrong_urls_of_databases_are_refused_without_showing_them),
        cmocka_unit_test(places_of_blobs_are_read),
        cmocka_unit_test(wrong_places_of_blobs_say_what_to_write),
        cmocka_unit_test(urls_of_object_stores_are_read),
        cmocka_unit_test(what_goes_into_signatures_is_bounded),
        cmocka_unit_test(settings_of_stores_must_go_together),
        cmocka_unit_test(passwords_of_urls_are_masked),
        cmocka_unit_test(secrets_are_not_in_complaints),
        cmocka_unit_test(secrets_are_not_printed),
        cmocka_unit_test(secrets_may_be_in_files),
        cmocka_unit_test(files_of_secrets_that_cannot_be_used_are_named),
        cmocka_unit_test(what_is_printed_is_read_back),
        cmocka_unit_test(each_setting_has_its_own_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
