/* The verbs over a real database and a real blob store in a folder of their own. */
#include "base/test_tree.h"
#include "blob/blob.h"
#include "registry/registry.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

struct fixture {
    char folder[64];
    struct registry *registry;
    struct call call;
};

static void open_registry(struct fixture *f, int64_t expire_us)
{
    const struct registry_options options = {
        .data = f->folder, .readers = 4, .busy_us = CLOCK_SECOND_US, .expire_us = expire_us};
    assert_int_equal(registry_open(&options, &f->registry, &f->call.err), 0);
}

static void reopen(struct fixture *f, int64_t expire_us)
{
    registry_close(f->registry);
    open_registry(f, expire_us);
}

static int setup(void **state)
{
    struct fixture *f = mem_zalloc(sizeof(*f));
    (void)snprintf(f->folder, sizeof(f->folder), "/tmp/holdfast-registry-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    call_init(&f->call);
    open_registry(f, 3600 * CLOCK_SECOND_US);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    registry_close(f->registry);
    call_done(&f->call);
    (void)test_tree_remove(f->folder);
    free(f);
    return 0;
}

static struct oci_name name_of(const char *text)
{
    struct oci_name name;
    struct err err;
    assert_int_equal(oci_name_parse(str_from(text), &name, &err), 0);
    return name;
}

static struct oci_reference reference_of(const char *text)
{
    struct oci_reference reference;
    struct err err;
    assert_int_equal(oci_reference_parse(str_from(text), &reference, &err), 0);
    return reference;
}

static struct oci_digest push_blob(struct fixture *f, const char *repository, struct str bytes)
{
    struct oci_name name = name_of(repository);
    struct oci_digest digest = oci_digest_of(HASH_SHA256, bytes);
    struct registry_upload *upload;
    assert_int_equal(registry_upload_start(&f->call, f->registry, &name, HASH_SHA256, &upload), 0);
    assert_int_equal(registry_upload_write(&f->call, upload, bytes), 0);
    assert_int_equal(registry_upload_finish(&f->call, upload, &digest), 0);
    registry_upload_close(upload);
    return digest;
}

/* An image manifest with one config and no layers; `extra` is more JSON, with a comma before it. */
static struct str image(struct fixture *f, const struct oci_digest *config, size_t config_bytes,
                        const char *extra)
{
    return str_printf(&f->call.arena,
                      "{\"schemaVersion\":2,\"mediaType\":\"" OCI_MEDIA_TYPE_MANIFEST
                      "\",\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\","
                      "\"digest\":\"" STR_FMT "\",\"size\":%zu},\"layers\":[]%s}",
                      STR_ARG(oci_digest_text(&f->call.arena, config)), config_bytes, extra);
}

static int push_manifest(struct fixture *f, const char *repository, const char *reference,
                         struct str content, struct registry_pushed *ret)
{
    struct oci_name name = name_of(repository);
    const struct registry_push push = {.reference = reference_of(reference), .content = content};
    return registry_manifest_push(&f->call, f->registry, &name, &push, ret);
}

static int pull(struct fixture *f, const char *repository, const char *reference,
                struct registry_manifest *ret)
{
    struct oci_name name = name_of(repository);
    struct oci_reference parsed = reference_of(reference);
    return registry_manifest_pull(&f->call, f->registry, &name, &parsed, true, ret);
}

static void assert_failed(const struct fixture *f, int result, enum err_kind kind, const char *code)
{
    assert_int_equal(result, -1);
    assert_int_equal(f->call.err.kind, kind);
    if (code != NULL)
        assert_string_equal(f->call.err.code, code);
}

static struct registry_totals totals_of(struct fixture *f)
{
    struct registry_totals totals;
    assert_int_equal(registry_totals(&f->call, f->registry, &totals), 0);
    return totals;
}

static void an_image_is_pulled_byte_for_byte(void **state)
{
    struct fixture *f = *state;
    struct oci_digest config = push_blob(f, "a/b", STR("{}"));
    struct str content = image(f, &config, 2, "");
    struct registry_pushed pushed;
    struct registry_manifest pulled;
    assert_int_equal(push_manifest(f, "a/b", "v1", content, &pushed), 0);
    assert_int_equal(pull(f, "a/b", "v1", &pulled), 0);
    assert_true(str_eq(pulled.content, content));
    assert_true(str_eq(pulled.media_type, STR(OCI_MEDIA_TYPE_MANIFEST)));
    assert_int_equal(pull(f, "a/b", oci_digest_text(&f->call.arena, &pushed.digest).p, &pulled), 0);

    assert_failed(f, pull(f, "a/b", "v2", &pulled), ERR_NOT_FOUND, OCI_MANIFEST_UNKNOWN);
    assert_failed(f, pull(f, "a/c", "v1", &pulled), ERR_NOT_FOUND, OCI_NAME_UNKNOWN);
}

static void a_manifest_needs_its_blobs_in_its_own_repository(void **state)
{
    struct fixture *f = *state;
    struct oci_digest config = push_blob(f, "a", STR("{}"));
    struct registry_pushed pushed;
    assert_failed(f, push_manifest(f, "b", "v1", image(f, &config, 2, ""), &pushed), ERR_INVALID,
                  OCI_MANIFEST_BLOB_UNKNOWN);
    assert_int_equal(f->call.err.n_details, 1);
    assert_failed(f, push_manifest(f, "a", "v1", image(f, &config, 3, ""), &pushed), ERR_INVALID,
                  OCI_SIZE_INVALID);
    /* a refused push leaves nothing behind */
    assert_int_equal(totals_of(f).repositories, 1);
    assert_int_equal(totals_of(f).manifests, 0);
}

/* An image manifest whose layers are the blobs of these numbers, each "layer <number>". */
static struct str layered(struct fixture *f, const struct oci_digest *config, const size_t *numbers,
                          size_t n)
{
    auto_buf layers = BUF_INIT(100000);
    for (size_t i = 0; i < n; i++) {
        struct str bytes = str_printf(&f->call.arena, "layer %zu", numbers[i]);
        struct oci_digest digest = oci_digest_of(HASH_SHA256, bytes);
        buf_printf(&layers,
                   "%s{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":"
                   "\"" STR_FMT "\",\"size\":%zu}",
                   i > 0 ? "," : "", STR_ARG(oci_digest_text(&f->call.arena, &digest)), bytes.n);
    }
    return str_printf(&f->call.arena,
                      "{\"schemaVersion\":2,\"mediaType\":\"" OCI_MEDIA_TYPE_MANIFEST
                      "\",\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\","
                      "\"digest\":\"" STR_FMT "\",\"size\":2},\"layers\":[%s]}",
                      STR_ARG(oci_digest_text(&f->call.arena, config)), layers.p);
}

static void of_many_layers_the_missing_ones_are_named(void **state)
{
    struct fixture *f = *state;
    struct oci_digest config = push_blob(f, "a", STR("{}"));
    enum { N = 100 };
    size_t numbers[N + 1];
    for (size_t i = 0; i < N; i++) {
        numbers[i] = i;
        if (i % 10 != 3)
            (void)push_blob(f, "a", str_printf(&f->call.arena, "layer %zu", i));
    }
    numbers[N] = 13; /* again */
    struct str content = layered(f, &config, numbers, N + 1);
    struct registry_pushed pushed;
    assert_failed(f, push_manifest(f, "a", "v1", content, &pushed), ERR_INVALID,
                  OCI_MANIFEST_BLOB_UNKNOWN);
    assert_int_equal(f->call.err.n_details, N / 10); /* in the manifest's order, each once */
    for (size_t i = 0; i < N / 10; i++) {
        struct str bytes = str_printf(&f->call.arena, "layer %zu", 10 * i + 3);
        struct oci_digest digest = oci_digest_of(HASH_SHA256, bytes);
        assert_true(str_eq(f->call.err.details[i], oci_digest_text(&f->call.arena, &digest)));
        (void)push_blob(f, "a", bytes);
    }
    assert_int_equal(totals_of(f).manifests, 0);
    for (int times = 0; times < 2; times++)
        assert_int_equal(push_manifest(f, "a", times == 0 ? "v1" : "v2", content, &pushed), 0);
    assert_int_equal(totals_of(f).manifests, 1);
    assert_int_equal(totals_of(f).tags, 2);
}

static void a_blob_is_mounted_from_where_it_is(void **state)
{
    struct fixture *f = *state;
    struct oci_digest digest = push_blob(f, "a", STR("layer"));
    struct oci_name a = name_of("a");
    struct oci_name b = name_of("b");
    struct oci_name c = name_of("c");
    struct registry_blob blob;
    bool mounted;
    assert_int_equal(registry_blob_mount(&f->call, f->registry, &b, &digest, &c, &mounted), 0);
    assert_false(mounted);
    assert_int_equal(registry_blob_mount(&f->call, f->registry, &b, &digest, &a, &mounted), 0);
    assert_true(mounted);
    assert_int_equal(registry_blob_mount(&f->call, f->registry, &c, &digest, NULL, &mounted), 0);
    assert_true(mounted);
    assert_int_equal(registry_blob_delete(&f->call, f->registry, &a, &digest), 0);
    assert_failed(f, registry_blob_find(&f->call, f->registry, &a, &digest, &blob), ERR_NOT_FOUND,
                  OCI_BLOB_UNKNOWN);
    struct registry_content content;
    assert_int_equal(registry_blob_find(&f->call, f->registry, &c, &digest, &blob), 0);
    assert_int_equal(blob.size, 5);
    assert_int_equal(registry_blob_open(&f->call, f->registry, &blob, 0, 5, &content), 0);
    char bytes[6] = {0};
    assert_int_equal(read(content.fd, bytes, sizeof(bytes)), 5);
    assert_string_equal(bytes, "layer");
    (void)close(content.fd);
}

static void what_is_needed_is_not_deleted(void **state)
{
    struct fixture *f = *state;
    struct oci_name a = name_of("a");
    struct oci_digest config = push_blob(f, "a", STR("{}"));
    struct registry_pushed pushed;
    assert_int_equal(push_manifest(f, "a", "v1", image(f, &config, 2, ""), &pushed), 0);
    assert_failed(f, registry_blob_delete(&f->call, f->registry, &a, &config), ERR_UNSUPPORTED,
                  NULL);

    struct oci_reference tag = reference_of("v1");
    struct oci_reference digest = {.is_digest = true, .digest = pushed.digest};
    assert_int_equal(registry_manifest_delete(&f->call, f->registry, &a, &tag), 0);
    assert_failed(f, registry_manifest_delete(&f->call, f->registry, &a, &tag), ERR_NOT_FOUND,
                  OCI_MANIFEST_UNKNOWN);
    assert_int_equal(push_manifest(f, "a", "v2", image(f, &config, 2, ""), &pushed), 0);
    assert_int_equal(totals_of(f).tags, 1);
    assert_int_equal(registry_manifest_delete(&f->call, f->registry, &a, &digest), 0);
    assert_int_equal(totals_of(f).tags, 0); /* they went with the manifest */
    assert_int_equal(totals_of(f).manifests, 0);
    assert_int_equal(registry_blob_delete(&f->call, f->registry, &a, &config), 0);
}

static void an_upload_goes_on_after_a_restart(void **state)
{
    struct fixture *f = *state;
    struct oci_name a = name_of("a");
    struct registry_upload *upload;
    struct oci_digest digest = oci_digest_of(HASH_SHA256, STR("onetwo"));
    assert_int_equal(registry_upload_start(&f->call, f->registry, &a, HASH_SHA256, &upload), 0);
    struct str id = str_dup(&f->call.arena, registry_upload_id(upload));
    assert_int_equal(registry_upload_write(&f->call, upload, STR("one")), 0);
    assert_int_equal(registry_upload_save(&f->call, upload), 0);
    assert_int_equal(registry_upload_write(&f->call, upload, STR("never acknowledged")), 0);

    struct registry_upload *second;
    assert_failed(f, registry_upload_open(&f->call, f->registry, &a, id, &second), ERR_BUSY, NULL);
    registry_upload_close(upload);
    reopen(f, 3600 * CLOCK_SECOND_US);

    uint64_t received;
    assert_int_equal(registry_upload_status(&f->call, f->registry, &a, id, &received), 0);
    assert_int_equal(received, 3);
    assert_int_equal(registry_upload_open(&f->call, f->registry, &a, id, &upload), 0);
    assert_int_equal(registry_upload_received(upload), 3);
    assert_int_equal(registry_upload_write(&f->call, upload, STR("two")), 0);
    assert_int_equal(registry_upload_finish(&f->call, upload, &digest), 0);
    registry_upload_close(upload);
    assert_failed(f, registry_upload_status(&f->call, f->registry, &a, id, &received),
                  ERR_NOT_FOUND, OCI_BLOB_UPLOAD_UNKNOWN);
}

#define WRITERS 4
#define APPENDS 200

struct writer {
    struct registry *registry;
    struct str id;
    unsigned acknowledged;
    const char *trouble; /* static */
};

/* Appends a byte at a time, whenever nobody else holds the upload. */
static void *append_bytes(void *context)
{
    struct writer *writer = context;
    struct oci_name a = name_of("a");
    while (writer->acknowledged < APPENDS && writer->trouble == NULL) {
        auto_call call;
        call_init(&call);
        struct registry_upload *upload;
        if (registry_upload_open(&call, writer->registry, &a, writer->id, &upload) < 0) {
            if (call.err.kind != ERR_BUSY)
                writer->trouble = err_kind_name(call.err.kind);
            continue;
        }
        if (registry_upload_write(&call, upload, STR("x")) < 0 ||
            registry_upload_save(&call, upload) < 0)
            writer->trouble = err_kind_name(call.err.kind);
        else
            writer->acknowledged++;
        registry_upload_close(upload);
    }
    return NULL;
}

static void no_acknowledged_byte_is_lost_to_another_writer(void **state)
{
    struct fixture *f = *state;
    struct oci_name a = name_of("a");
    struct registry_upload *upload;
    assert_int_equal(registry_upload_start(&f->call, f->registry, &a, HASH_SHA256, &upload), 0);
    struct str id = str_dup(&f->call.arena, registry_upload_id(upload));
    registry_upload_close(upload);

    struct writer writers[WRITERS];
    pthread_t threads[WRITERS];
    for (size_t i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.registry = f->registry, .id = id};
        assert_int_equal(pthread_create(&threads[i], NULL, append_bytes, &writers[i]), 0);
    }
    for (size_t i = 0; i < WRITERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_null(writers[i].trouble);
    }
    uint64_t received;
    assert_int_equal(registry_upload_status(&f->call, f->registry, &a, id, &received), 0);
    assert_int_equal(received, WRITERS * APPENDS);
    assert_int_equal(registry_upload_open(&f->call, f->registry, &a, id, &upload), 0);
    char all[WRITERS * APPENDS];
    memset(all, 'x', sizeof(all));
    struct oci_digest digest = oci_digest_of(HASH_SHA256, (struct str){all, sizeof(all)});
    assert_int_equal(registry_upload_finish(&f->call, upload, &digest), 0);
    registry_upload_close(upload);
}

/* What a crash leaves of a request that carried a whole blob. */
static void leave_staged(struct fixture *f)
{
    auto_fd fd = open(
        str_printf(&f->call.arena, "%s/uploads/11111111-1111-4111-9111-111111111111", f->folder).p,
        O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "abc", 3), 3);
}

static void a_whole_blob_that_broke_off_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct oci_name a = name_of("a");
    struct registry_upload *whole;
    assert_int_equal(registry_upload_start_whole(&f->call, f->registry, &a, HASH_SHA256, &whole),
                     0);
    assert_int_equal(registry_upload_write(&f->call, whole, STR("abc")), 0);
    struct str path = str_printf(&f->call.arena, "%s/uploads/" STR_FMT, f->folder,
                                 STR_ARG(registry_upload_id(whole)));
    assert_int_equal(access(path.p, F_OK), 0);
    registry_upload_close(whole);
    assert_int_equal(access(path.p, F_OK), -1);
}

static void uploads_that_were_given_up_expire(void **state)
{
    struct fixture *f = *state;
    struct oci_name a = name_of("a");
    struct registry_upload *recorded;
    size_t n;
    assert_int_equal(registry_upload_start(&f->call, f->registry, &a, HASH_SHA256, &recorded), 0);
    registry_upload_close(recorded);
    leave_staged(f);
    assert_int_equal(registry_uploads_expire(&f->call, f->registry, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(totals_of(f).uploads, 1);
    reopen(f, -CLOCK_SECOND_US); /* everything is older than a second from now */
    assert_int_equal(registry_uploads_expire(&f->call, f->registry, &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(totals_of(f).uploads, 0);
}

static void a_folder_has_one_owner(void **state)
{
    struct fixture *f = *state;
    const struct registry_options options = {
        .data = f->folder, .readers = 1, .busy_us = CLOCK_SECOND_US};
    struct registry *second;
    assert_failed(f, registry_open(&options, &second, &f->call.err), ERR_BUSY, NULL);
    assert_non_null(strstr(f->call.err.say, f->folder));
}

static int join(void *context, struct str name, struct err *err)
{
    (void)err;
    buf_printf(context, STR_FMT " ", STR_ARG(name));
    return 0;
}

static void tags_are_listed_in_byte_order_by_pages(void **state)
{
    struct fixture *f = *state;
    struct oci_name a = name_of("a");
    struct oci_digest config = push_blob(f, "a", STR("{}"));
    struct registry_pushed pushed;
    static const char *const tags[] = {"b", "a", "B", "a.1", "a-1", "10", "9"};
    for (size_t i = 0; i < ARRAY_SIZE(tags); i++)
        assert_int_equal(push_manifest(f, "a", tags[i], image(f, &config, 2, ""), &pushed), 0);

    static const struct {
        const char *last;
        uint64_t limit;
        const char *names;
        bool more;
    } pages[] = {
        {"", 100, "10 9 B a a-1 a.1 b ", false},
        {"", 3, "10 9 B ", true},
        {"B", 4, "a a-1 a.1 b ", false},
        {"aa", 1, "b ", false},
        {"zz", 5, "", false},
        {"", 0, "", false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
        auto_buf names = BUF_INIT(1000);
        buf_add(&names, "", 0);
        const struct registry_page page = {str_from(pages[i].last), pages[i].limit};
        struct str last;
        assert_int_equal(registry_tag_list(&f->call, f->registry, &a, &page, join, &names, &last),
                         0);
        assert_string_equal(names.p, pages[i].names);
        assert_int_equal(last.p != NULL, pages[i].more);
    }
}

static bool count_referrer(void *context, const struct oci_referrer *referrer)
{
    size_t *n = context;
    assert_true(str_eq(referrer->artifact_type, STR("application/x-signature")));
    assert_true(str_eq(referrer->annotations, STR("{\"k\":\"v\"}")));
    return ++*n < 2;
}

static void referrers_are_found_by_their_subject(void **state)
{
    struct fixture *f = *state;
    struct oci_name a = name_of("a");
    struct oci_digest config = push_blob(f, "a", STR("{}"));
    struct oci_digest subject = oci_digest_of(HASH_SHA256, STR("not pushed yet"));
    struct registry_pushed pushed;
    for (int i = 0; i < 3; i++) {
        struct str extra = str_printf(
            &f->call.arena,
            ",\"artifactType\":\"application/x-signature\",\"annotations\":{\"k\":\"v\"},"
            "\"number\":%d,\"subject\":{\"mediaType\":\"" OCI_MEDIA_TYPE_MANIFEST
            "\",\"digest\":\"" STR_FMT "\",\"size\":9}",
            i, STR_ARG(oci_digest_text(&f->call.arena, &subject)));
        struct str content = image(f, &config, 2, extra.p);
        struct oci_digest digest = oci_digest_of(HASH_SHA256, content);
        struct str reference = oci_digest_text(&f->call.arena, &digest);
        assert_int_equal(push_manifest(f, "a", reference.p, content, &pushed), 0);
        assert_true(pushed.has_subject);
    }
    size_t n = 0;
    bool stopped;
    assert_int_equal(registry_referrer_list(&f->call, f->registry, &a, &subject, STR(""),
                                            count_referrer, &n, &stopped),
                     0);
    assert_int_equal(n, 2);
    assert_true(stopped);
    struct oci_name nowhere = name_of("nowhere");
    assert_int_equal(registry_referrer_list(&f->call, f->registry, &nowhere, &subject, STR(""),
                                            count_referrer, &n, &stopped),
                     0);
    assert_false(stopped);
}

/* ---- fsck ---- */

struct findings {
    size_t n[REGISTRY_FREED + 1];
};

static void note_finding(void *context, enum registry_finding finding, const char *text)
{
    struct findings *findings = context;
    assert_true(strlen(text) > 10);
    findings->n[finding]++;
}

static void ignore_progress(void *context, const char *stage, uint64_t done, uint64_t total)
{
    (void)context;
    (void)stage;
    (void)done;
    (void)total;
}

static struct findings run_fsck(struct fixture *f, bool deep, bool repair)
{
    struct findings findings = {0};
    const struct registry_fsck fsck = {
        .deep = deep,
        .repair = repair,
        .context = &findings,
        .found = note_finding,
        .progress = ignore_progress,
    };
    uint64_t wrong;
    assert_int_equal(registry_fsck(&f->call, f->registry, &fsck, &wrong), 0);
    assert_int_equal(wrong, findings.n[REGISTRY_WRONG]);
    return findings;
}

static struct str path_of(struct fixture *f, const struct oci_digest *digest)
{
    struct str hex = str_from_at(oci_digest_text(&f->call.arena, digest), sizeof("sha256:") - 1);
    return str_printf(&f->call.arena, "%s/blobs/sha256/%.2s/" STR_FMT, f->folder, hex.p,
                      STR_ARG(hex));
}

static void fsck_finds_nothing_in_a_sound_registry(void **state)
{
    struct fixture *f = *state;
    struct oci_digest config = push_blob(f, "a", STR("{}"));
    struct registry_pushed pushed;
    assert_int_equal(push_manifest(f, "a", "v1", image(f, &config, 2, ""), &pushed), 0);
    struct findings found = run_fsck(f, true, false);
    for (size_t i = 0; i < ARRAY_SIZE(found.n); i++)
        assert_int_equal(found.n[i], 0);
}

static void fsck_lets_a_lost_blob_be_pushed_again(void **state)
{
    struct fixture *f = *state;
    struct oci_digest config = push_blob(f, "a", STR("{}"));
    struct registry_pushed pushed;
    assert_int_equal(push_manifest(f, "a", "v1", image(f, &config, 2, ""), &pushed), 0);
    assert_int_equal(unlink(path_of(f, &config).p), 0);
    assert_int_equal(run_fsck(f, false, false).n[REGISTRY_WRONG], 1);

    struct findings found = run_fsck(f, false, true);
    assert_int_equal(found.n[REGISTRY_REPAIRED], 1); /* the row */
    assert_int_equal(found.n[REGISTRY_WRONG], 1);    /* the manifest still needs it */
    (void)push_blob(f, "a", STR("{}"));
    found = run_fsck(f, true, false);
    assert_int_equal(found.n[REGISTRY_WRONG], 0);
}

static void fsck_finds_changed_bytes_when_it_looks_deep(void **state)
{
    struct fixture *f = *state;
    struct oci_digest blob = push_blob(f, "a", STR("abc"));
    struct str path = path_of(f, &blob);
    assert_int_equal(chmod(path.p, 0600), 0);
    auto_fd fd = open(path.p, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "abd", 3, 0), 3);
    assert_int_equal(run_fsck(f, false, false).n[REGISTRY_WRONG], 0);
    assert_int_equal(run_fsck(f, true, false).n[REGISTRY_WRONG], 1);
    assert_int_equal(run_fsck(f, true, true).n[REGISTRY_REPAIRED], 1);
    (void)push_blob(f, "a", STR("abc"));
    assert_int_equal(run_fsck(f, true, false).n[REGISTRY_WRONG], 0);
}

static void fsck_frees_what_nothing_needs(void **state)
{
    struct fixture *f = *state;
    struct oci_name a = name_of("a");
    struct oci_digest blob = push_blob(f, "a", STR("abc"));
    assert_int_equal(registry_blob_delete(&f->call, f->registry, &a, &blob), 0);
    leave_staged(f);
    assert_int_equal(access(path_of(f, &blob).p, F_OK), 0);
    assert_int_equal(run_fsck(f, false, false).n[REGISTRY_LEFTOVER], 2);
    assert_int_equal(run_fsck(f, false, true).n[REGISTRY_FREED], 2);
    assert_int_equal(access(path_of(f, &blob).p, F_OK), -1);
    assert_int_equal(totals_of(f).blobs, 0);
    assert_int_equal(totals_of(f).blob_bytes, 0);
}

int main(void)
{
#define REGISTRY_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        REGISTRY_TEST(an_image_is_pulled_byte_for_byte),
        REGISTRY_TEST(a_manifest_needs_its_blobs_in_its_own_repository),
        REGISTRY_TEST(of_many_layers_the_missing_ones_are_named),
        REGISTRY_TEST(a_blob_is_mounted_from_where_it_is),
        REGISTRY_TEST(what_is_needed_is_not_deleted),
        REGISTRY_TEST(an_upload_goes_on_after_a_restart),
        REGISTRY_TEST(no_acknowledged_byte_is_lost_to_another_writer),
        REGISTRY_TEST(a_whole_blob_that_broke_off_leaves_nothing),
        REGISTRY_TEST(uploads_that_were_given_up_expire),
        REGISTRY_TEST(a_folder_has_one_owner),
        REGISTRY_TEST(tags_are_listed_in_byte_order_by_pages),
        REGISTRY_TEST(referrers_are_found_by_their_subject),
        REGISTRY_TEST(fsck_finds_nothing_in_a_sound_registry),
        REGISTRY_TEST(fsck_lets_a_lost_blob_be_pushed_again),
        REGISTRY_TEST(fsck_finds_changed_bytes_when_it_looks_deep),
        REGISTRY_TEST(fsck_frees_what_nothing_needs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
