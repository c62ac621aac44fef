/* Folders that somebody else wrote, and the two sources that read them. */
#include "base/test_tree.h"
#include "importer/folder_int.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

/* SHA-256 of "abc" and of nothing: FIPS 180-4, examples. */
#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define NONE "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

struct fixture {
    char path[32];
    int fd;
    struct call call;
};

static int set_up(void **state)
{
    struct fixture *fixture = mem_zalloc(sizeof(*fixture));
    (void)snprintf(fixture->path, sizeof(fixture->path), "/tmp/test_folder.XXXXXX");
    assert_non_null(mkdtemp(fixture->path));
    fixture->fd = open(fixture->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fixture->fd >= 0);
    call_init(&fixture->call);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    (void)close(fixture->fd);
    call_done(&fixture->call);
    int done = test_tree_remove(fixture->path);
    free(fixture);
    return done;
}

/* Writes a file below the fixture, and the folders above it. */
static void put(const struct fixture *fixture, const char *path, const char *text)
{
    char folder[256];
    for (const char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        (void)snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path), path);
        (void)mkdirat(fixture->fd, folder, 0755);
    }
    auto_fd fd = openat(fixture->fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* Gathers what lists give, sorted by nothing: only whether it is there counts. */
struct names {
    struct buf text;
};

static int gather(void *context, struct str text, struct err *err)
{
    struct names *names = context;
    (void)err;
    buf_printf(&names->text, "[" STR_FMT "]", STR_ARG(text));
    return 0;
}

/* ---- Reading ---- */

static int read_it(struct fixture *fixture, const char *path, struct str *ret)
{
    return folder_read_file(&fixture->call.arena, fixture->fd, path, 10, ret, &fixture->call.err);
}

static void reading(void **state)
{
    struct fixture *fixture = *state;
    struct str text;
    put(fixture, "a/b/file", "content");
    assert_int_equal(read_it(fixture, "a/b/file", &text), 0);
    assert_true(str_eq(text, STR("content")));

    assert_int_equal(read_it(fixture, "a/b/none", &text), -1);
    assert_int_equal(fixture->call.err.kind, ERR_NOT_FOUND);
    assert_int_equal(read_it(fixture, "a/none/file", &text), -1);
    assert_int_equal(fixture->call.err.kind, ERR_NOT_FOUND);
    put(fixture, "a/large", "12345678901");
    assert_int_equal(read_it(fixture, "a/large", &text), -1);
    assert_int_equal(fixture->call.err.kind, ERR_TOO_LARGE);
}

static void links_and_other_things(void **state)
{
    struct fixture *fixture = *state;
    struct str text;
    put(fixture, "real/file", "content");
    assert_int_equal(symlinkat("/etc/passwd", fixture->fd, "real/out"), 0);
    assert_int_equal(symlinkat("real", fixture->fd, "folder"), 0);
    assert_int_equal(mkfifoat(fixture->fd, "fifo", 0644), 0);
    static const char *const refused[] = {"real/out", "folder/file", "fifo", "real",
                                          "real/file/below"};
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        if (read_it(fixture, refused[i], &text) == 0)
            fail_msg("%s was read", refused[i]);
        assert_int_equal(fixture->call.err.kind, ERR_INVALID);
    }
}

/* ---- distribution ---- */

#define V2 "docker/registry/v2/"
#define APP V2 "repositories/team/app/"

static struct importer_source *open_source(struct fixture *fixture, const char *scheme,
                                           const char *repository)
{
    char where[64];
    (void)snprintf(where, sizeof(where), "%s%s", scheme, fixture->path);
    const struct importer_origin origin = {
        .where = where, .repository = repository, .manifest_bytes_max = 1000};
    struct importer_source *source;
    return importer_source_open(&fixture->call, &origin, &source) == 0 ? source : NULL;
}

static void put_app(const struct fixture *fixture)
{
    put(fixture, V2 "blobs/sha256/ba/" ABC "/data", "abc");
    put(fixture, V2 "blobs/sha256/e3/" NONE "/data", "");
    put(fixture, APP "_manifests/tags/v1/current/link", "sha256:" ABC);
    put(fixture, APP "_manifests/tags/bad/current/link", "sha256:xyz");
    put(fixture, APP "_manifests/tags/gone/current/link", "sha256:" NONE);
    put(fixture, APP "_manifests/revisions/sha256/" ABC "/link", "sha256:" ABC "\n");
    put(fixture, APP "_layers/sha256/" NONE "/link", "sha256:" NONE);
    put(fixture, V2 "repositories/team/_odd/x", "");
}

static int manifest_of(struct fixture *fixture, struct importer_source *source, const char *text,
                       struct source_manifest *ret)
{
    struct oci_name name;
    struct oci_reference reference;
    assert_int_equal(oci_name_parse(STR("team/app"), &name, &fixture->call.err), 0);
    assert_int_equal(oci_reference_parse(str_from(text), &reference, &fixture->call.err), 0);
    return source->kind->manifest(source, &fixture->call, &name, &reference, ret);
}

static void distribution(void **state)
{
    struct fixture *fixture = *state;
    put_app(fixture);
    /* Deleted: the folder stays, without its link. */
    put(fixture, APP "_manifests/revisions/sha256/" NONE "/signatures", "");
    struct importer_source *source = open_source(fixture, "distribution:", NULL);
    assert_non_null(source);

    struct names names = {BUF_INIT(10000)};
    assert_int_equal(source->kind->repositories(source, &fixture->call, gather, &names), 0);
    assert_string_equal(names.text.p, "[team/app]");
    buf_done(&names.text);

    const struct oci_name name = {STR("team/app")};
    assert_int_equal(source->kind->references(source, &fixture->call, &name, gather, &names), 0);
    assert_non_null(strstr(names.text.p, "[v1]"));
    assert_non_null(strstr(names.text.p, "[bad]"));
    assert_non_null(strstr(names.text.p, "[sha256:" ABC "]"));
    assert_null(strstr(names.text.p, NONE));
    buf_done(&names.text);

    struct source_manifest manifest;
    assert_int_equal(manifest_of(fixture, source, "v1", &manifest), 0);
    assert_true(str_eq(manifest.content, STR("abc")));
    assert_int_equal(manifest_of(fixture, source, "sha256:" ABC, &manifest), 0);
    assert_int_equal(manifest_of(fixture, source, "bad", &manifest), -1);
    assert_int_equal(fixture->call.err.kind, ERR_CORRUPT);
    assert_int_equal(manifest_of(fixture, source, "gone", &manifest), -1);
    assert_int_equal(fixture->call.err.kind, ERR_NOT_FOUND);

    put(fixture, V2 "blobs/sha256/ba/" ABC "/data", "other");
    assert_int_equal(manifest_of(fixture, source, "v1", &manifest), -1);
    assert_int_equal(fixture->call.err.kind, ERR_CORRUPT);
    importer_source_close(source);
}

/* A repository has the blobs to which it has links, not all that are stored. */
static void distribution_blobs(void **state)
{
    struct fixture *fixture = *state;
    put_app(fixture);
    struct importer_source *source = open_source(fixture, "distribution:", NULL);
    assert_non_null(source);
    const struct oci_name name = {STR("team/app")};
    struct names names = {BUF_INIT(10000)};
    struct oci_digest digest;
    assert_int_equal(oci_digest_parse(STR("sha256:" NONE), &digest, &fixture->call.err), 0);
    assert_int_equal(source->kind->blob(source, &fixture->call, &name, &digest, gather, &names), 0);
    assert_int_equal(names.text.n, 0);
    assert_int_equal(oci_digest_parse(STR("sha256:" ABC), &digest, &fixture->call.err), 0);
    assert_int_equal(source->kind->blob(source, &fixture->call, &name, &digest, gather, &names),
                     -1);
    assert_int_equal(fixture->call.err.kind, ERR_NOT_FOUND);
    put(fixture, APP "_layers/sha256/" ABC "/link", "sha256:" ABC);
    assert_int_equal(source->kind->blob(source, &fixture->call, &name, &digest, gather, &names), 0);
    assert_string_equal(names.text.p, "[abc]");
    buf_done(&names.text);
    importer_source_close(source);
}

static void not_a_distribution(void **state)
{
    struct fixture *fixture = *state;
    assert_null(open_source(fixture, "distribution:", NULL));
    assert_int_equal(fixture->call.err.kind, ERR_INVALID);
    assert_null(open_source(fixture, "other:", NULL));
    assert_int_equal(fixture->call.err.kind, ERR_INVALID);
    assert_null(open_source(fixture, "distribution:/nowhere", NULL));
    assert_int_equal(fixture->call.err.kind, ERR_NOT_FOUND);
    put(fixture, "elsewhere/repositories/x", "");
    put(fixture, "docker/registry/x", "");
    assert_int_equal(symlinkat("../../elsewhere", fixture->fd, "docker/registry/v2"), 0);
    assert_null(open_source(fixture, "distribution:", NULL));
    assert_int_equal(fixture->call.err.kind, ERR_INVALID);
}

/* ---- Layouts ---- */

#define MARK "{\"imageLayoutVersion\": \"1.0.0\"}"
#define ENTRY(digest, more) \
    "{\"mediaType\":\"application/x\",\"digest\":\"" digest "\"," more "\"size\":3}"
#define NAMED(name) "\"annotations\":{\"org.opencontainers.image.ref.name\":\"" name "\"},"

static void layout(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, "oci-layout", MARK);
    put(fixture, "index.json",
        "{\"schemaVersion\":2,\"manifests\":[" ENTRY("sha256:" ABC, NAMED("v1")) "," ENTRY(
            "sha256:" NONE, "") "," ENTRY("sha256:" ABC, NAMED("example.org/app:v2")) "]}");
    put(fixture, "blobs/sha256/" ABC, "abc");
    struct importer_source *source = open_source(fixture, "oci:", "team/app");
    assert_non_null(source);

    struct names names = {BUF_INIT(10000)};
    const struct oci_name name = {STR("team/app")};
    assert_int_equal(source->kind->repositories(source, &fixture->call, gather, &names), 0);
    assert_int_equal(source->kind->references(source, &fixture->call, &name, gather, &names), 0);
    assert_string_equal(names.text.p, "[team/app][v1][sha256:" NONE "][v2]");
    buf_done(&names.text);

    struct source_manifest manifest;
    assert_int_equal(manifest_of(fixture, source, "v2", &manifest), 0);
    assert_true(str_eq(manifest.content, STR("abc")));
    assert_true(str_eq(manifest.media_type, STR("application/x")));
    assert_int_equal(manifest_of(fixture, source, "v3", &manifest), -1);
    assert_int_equal(fixture->call.err.kind, ERR_NOT_FOUND);
    importer_source_close(source);
}

static void not_a_layout(void **state)
{
    struct fixture *fixture = *state;
    assert_null(open_source(fixture, "oci:", NULL));
    assert_null(open_source(fixture, "oci:", "Not/A/Name"));
    assert_null(open_source(fixture, "oci:", "app"));
    put(fixture, "oci-layout", MARK);
    assert_null(open_source(fixture, "oci:", "app")); /* no index.json */
    static const char *const indexes[] = {"", "[]", "{}", "{\"manifests\":5}", "{\"manifests\":["};
    for (size_t i = 0; i < ARRAY_SIZE(indexes); i++) {
        put(fixture, "index.json", indexes[i]);
        assert_null(open_source(fixture, "oci:", "app"));
        assert_int_equal(fixture->call.err.kind, ERR_INVALID);
    }
    put(fixture, "index.json", "{\"manifests\":[]}");
    static const char *const marks[] = {"", "{}", "{\"imageLayoutVersion\":\"2.0.0\"}", "x"};
    for (size_t i = 0; i < ARRAY_SIZE(marks); i++) {
        put(fixture, "oci-layout", marks[i]);
        assert_null(open_source(fixture, "oci:", "app"));
        assert_int_equal(fixture->call.err.kind, ERR_INVALID);
    }
}

/* Entries of any shape: what has no digest fails when it is asked for, not before. */
static void odd_entries(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, "oci-layout", MARK);
    put(fixture, "index.json",
        "{\"manifests\":[5,null,{},[],{\"digest\":7},{\"digest\":\"sha256:../../x\","
        "\"annotations\":{\"org.opencontainers.image.ref.name\":\"up\"}},"
        "{\"digest\":\"md5:00\",\"annotations\":[]}]}");
    struct importer_source *source = open_source(fixture, "oci:", "team/app");
    assert_non_null(source);
    struct source_manifest manifest;
    assert_int_equal(manifest_of(fixture, source, "up", &manifest), -1);
    assert_int_equal(fixture->call.err.kind, ERR_INVALID);
    importer_source_close(source);
}

static void link_files(void **state)
{
    struct oci_digest digest;
    struct err err;
    (void)state;
    assert_int_equal(source_link_parse(STR("sha256:" ABC), &digest, &err), 0);
    assert_int_equal(source_link_parse(STR("sha256:" ABC "\n"), &digest, &err), 0);
    static const char *const broken[] = {"",
                                         "\n",
                                         "sha256:",
                                         ABC,
                                         "sha256:" ABC "\n\n",
                                         " sha256:" ABC,
                                         "sha256:" ABC "0",
                                         "sha256:../../../../../../etc/passwd"};
    for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
        if (source_link_parse(str_from(broken[i]), &digest, &err) == 0)
            fail_msg("\"%s\" was read as a digest", broken[i]);
        assert_int_equal(err.kind, ERR_CORRUPT);
    }
}

static void layout_tags(void **state)
{
    static const struct {
        const char *ref_name;
        const char *tag; /* NULL: none */
    } cases[] = {
        {"v1", "v1"},
        {"busybox:1.36", "1.36"},
        {"docker.io/library/busybox:latest", "latest"},
        {"localhost:5000/app", NULL},
        {"localhost:5000/app:v2", "v2"},
        {"app:", NULL},
        {"app/v1", NULL},
        {"", NULL},
        {"-v1", NULL},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct str tag = source_layout_tag(str_from(cases[i].ref_name));
        if (cases[i].tag == NULL)
            assert_null(tag.p);
        else
            assert_true(str_eq(tag, str_from(cases[i].tag)));
    }
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(reading),         WITH_FOLDER(links_and_other_things),
        WITH_FOLDER(distribution),    WITH_FOLDER(distribution_blobs),
        WITH_FOLDER(layout),          WITH_FOLDER(not_a_distribution),
        WITH_FOLDER(not_a_layout),    WITH_FOLDER(odd_entries),
        cmocka_unit_test(link_files), cmocka_unit_test(layout_tags),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
